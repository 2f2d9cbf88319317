"""MobileNetV2 of Sandler et al. 2018, with torchvision's parameter names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# Table 2: expansion, channels, blocks, stride of the first block.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1; an identity beside it where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        widen = [_conv(inputs, width, 1)] if expansion != 1 else []
        filters = _conv(width, width, 3, stride, groups=width)
        narrow = nn.Conv2d(width, outputs, 1, bias=False)
        self.conv = nn.Sequential(*widen, filters, narrow, nn.BatchNorm2d(outputs))
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class MobileNetV2(nn.Module):
    """A 3x3 convolution, 17 inverted residuals, a 1x1 convolution, a mean, a linear layer.

    small_images: stride 1 in the first convolution and in the stage of 24 channels.
    """

    def __init__(self, classes: int, small_images: bool) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv(3, 32, 3, 1 if small_images else 2)]
        channels = 32
        for expansion, width, count, first in _STAGES:
            for index in range(count):
                stride = first if index == 0 and not (small_images and width == 24) else 1
                features.append(InvertedResidual(channels, width, stride, expansion))
                channels = width
        self.features = nn.Sequential(*features, _conv(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
