"""Stacks of linear layers, and of convolutions before them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear layers fc1, fc2, ... of these sizes (inputs first) with ReLU between; an image is flattened."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        for index, (inputs, outputs) in enumerate(pairwise(sizes), 1):
            self.add_module(f"fc{index}", nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x.flatten(1), list(self.children()))


class ConvStack(nn.Module):
    """Convolutions conv1, conv2, ... with ReLU, a 2x2 max-pool after each group, then linear layers fc1, fc2, ...

    shape: of the images, (channels, side, side). groups: widths of the convolutions, pool by pool. hidden: widths of
    the linear layers before the last.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        groups: Sequence[Sequence[int]],
        hidden: Sequence[int],
        classes: int,
        kernel: int,
        padding: int,
    ) -> None:
        super().__init__()
        channels, side, _ = shape
        self.pool_after: set[int] = set()
        depth = 0
        for widths in groups:
            for width in widths:
                depth += 1
                self.add_module(f"conv{depth}", nn.Conv2d(channels, width, kernel, padding=padding))
                channels, side = width, side + 2 * padding - kernel + 1
            self.pool_after.add(depth)
            side //= 2
        self.depth = depth
        for index, (inputs, outputs) in enumerate(pairwise((channels * side**2, *hidden, classes)), 1):
            self.add_module(f"fc{index}", nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.children())
        for index, layer in enumerate(layers[: self.depth], 1):
            x = F.relu(layer(x))
            if index in self.pool_after:
                x = F.max_pool2d(x, 2)
        return _linear(x.flatten(1), layers[self.depth :])


def _linear(x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    for layer in layers[:-1]:
        x = F.relu(layer(x))
    return layers[-1](x)
