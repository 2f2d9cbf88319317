"""The CIFAR ResNets of He et al. 2016, section 4.2."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Halve(nn.Module):
    """Option A: every second pixel, and as many zero channels before the old channels as after them.

    The paper says only that zeros are padded; halves on both sides is what the common torch versions do.
    """

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


def _shortcut(inputs: int, outputs: int, kind: str) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return Halve()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; where the width doubles, the side halves."""

    def __init__(self, inputs: int, outputs: int, shortcut: str) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class CifarResNet(nn.Module):
    """depth = 6 n + 2: a 3x3 convolution, stages of n blocks with 16, 32, 64 channels, a mean, a linear layer."""

    def __init__(self, depth: int, classes: int, shortcut: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [width for width in (16, 32, 64) for _ in range((depth - 2) // 6)]
        self.blocks = nn.Sequential(*(Block(a, b, shortcut) for a, b in zip([16, *widths], widths)))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
