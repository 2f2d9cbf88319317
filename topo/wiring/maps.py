"""Maps: the wiring of a network whose units are the places of feature maps, for the unrolled view.

A layer reads maps, (channels, places), and makes maps. Which place of the input a tap of its kernel meets at each place
of the output is a table, so that strides, padding, dilation and transposed convolutions need no rule of their own. The
joins are those of a wiring, on places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topo.wiring.steps import Join, Layer


@dataclass(frozen=True, eq=False)
class MapLayer:
    """One use of a layer.

    shape: of its mask, (out, in / groups, *kernel). reads: int32 (in, places), the unit at each place of each input
    channel, -1 zero, -2 a constant. taps: int32 (kernel positions, places of the output), the place of the input that
    each tap meets, -1 where it lies outside. It makes units start, start + 1, ..., channel after channel.
    """

    name: str
    shape: tuple[int, ...]
    reads: np.ndarray
    taps: np.ndarray
    start: int
    groups: int = 1

    @property
    def positions(self) -> int:
        """Places of the output."""
        return self.taps.shape[1]

    @property
    def stop(self) -> int:
        """One more than the last unit it makes."""
        return self.start + self.shape[0] * self.positions

    @property
    def columns(self) -> int:
        """Weights of an output channel."""
        return math.prod(self.shape[1:])

    @property
    def operands(self) -> tuple[np.ndarray, ...]:
        """What it reads, as of a join: one array."""
        return (self.reads,)

    @cached_property
    def meets(self) -> np.ndarray:
        """int32 (in * kernel positions, places of the output): the unit that each weight column meets, -1 if none."""
        padded = np.concatenate([self.reads, np.full((len(self.reads), 1), -1, np.int32)], axis=1)
        return padded[:, self.taps].reshape(-1, self.positions)


MapStep = MapLayer | Join


@dataclass(frozen=True, eq=False)
class Maps:
    """inputs, outputs: int32 units. steps: in running order. pools: the steps (by index) that are sums of a window or
    of a whole map, which make no units of their own."""

    inputs: np.ndarray
    steps: tuple[MapStep, ...]
    outputs: np.ndarray
    pools: frozenset[int] = frozenset()

    @property
    def n_units(self) -> int:
        """One more than the largest unit number."""
        return max([int(self.inputs.max(initial=-1)) + 1, *(step.stop for step in self.steps)])

    @classmethod
    def of_flat(cls, inputs: np.ndarray, steps: tuple[Layer | Join, ...], outputs: np.ndarray) -> Maps | None:
        """Of a network without maps: each layer a matrix, used whole and at one place; None of another."""
        made: list[MapStep] = []
        for step in steps:
            if isinstance(step, Layer):
                flat = step.kernel_size == 1 and step.positions in (None, 1) and step.kind != "embedding"
                if not flat or step.rows is not None or step.columns is not None or step.axes or step.pattern:
                    return None
                one = np.zeros((1, 1), np.int32)
                made.append(MapLayer(step.name, step.shape, step.reads[:, None], one, step.start, step.groups))
            else:
                made.append(step)
        return cls(inputs, tuple(made), outputs)


def axis_taps(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, *, transposed: bool = False
) -> np.ndarray:
    """Along one axis, the place of the input that each tap meets at each place of the output: int64 (kernel, out)."""
    y, k = np.arange(out), np.arange(kernel)[:, None]
    if transposed:
        at, rest = np.divmod(y + padding - k * dilation, stride)
        at = np.where(rest == 0, at, -1)
    else:
        at = y * stride + k * dilation - padding
    return np.where((at >= 0) & (at < size), at, -1)


def joint_taps(sizes: tuple[int, ...], axes: list[np.ndarray]) -> np.ndarray:
    """The table of several axes, each (kernel, out), over maps of these sizes: int32 (kernel positions, places)."""
    found = np.zeros((1, 1), np.int64)
    for size, axis in zip(sizes, axes):
        both = found[:, None, :, None] * size + axis[None, :, None, :]
        both = np.where((found[:, None, :, None] < 0) | (axis[None, :, None, :] < 0), -1, both)
        found = both.reshape(len(found) * len(axis), -1)
    return found.astype(np.int32)
