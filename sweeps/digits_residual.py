"""A small residual network for the 8x8 digits: ResNet-8 of He et al. 2016, one block a stage and a linear layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + (x if self.shortcut is None else self.shortcut(x)))


class Residual(nn.Module):
    """A 3x3 convolution, `blocks` blocks at each of the widths, a mean over places, a linear layer."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        found, before = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                found.append(Block(before, width, 2 if stage and not block else 1))
                before = width
        self.blocks = nn.Sequential(*found)
        self.fc = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


def net() -> nn.Module:
    """Of 77,072 weights in ten layers that are masked."""
    return Residual()
