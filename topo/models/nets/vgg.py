"""The VGG networks of Simonyan & Zisserman 2015, with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (64, 128, 256, 512, 512)


class ConvBN(nn.Module):
    """A 3x3 convolution with bias, a batch norm, a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class CifarVGG(nn.Module):
    """Five stages with a max-pool between them, counted in `layers` like the convolutions; a mean; one linear layer."""

    def __init__(self, stages: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, (count, width) in enumerate(zip(stages, _WIDTHS)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers.append(ConvBN(channels, width))
                channels = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


class VGG(nn.Module):
    """Five stages with a max-pool after each, then three linear layers on maps of side x side.

    `features` and `classifier` count every convolution, batch norm, ReLU, max-pool and dropout, as torchvision's do.
    """

    def __init__(self, stages: Sequence[int], classes: int, side: int, hidden: int) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = 3
        for count, width in zip(stages, _WIDTHS):
            for _ in range(count):
                features += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(channels * side**2, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
