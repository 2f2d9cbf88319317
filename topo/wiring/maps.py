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

from topo.masks import BitRows
from topo.wiring.steps import Join, Layer

Axis = tuple[int, int, int, int, int, int]  # size, out, kernel, stride, padding, dilation


@dataclass(frozen=True, eq=False)
class Strips:
    """How one channel of a map is laid in a strip, so that a tap of the kernel meets a run of it.

    cells: int32, the place of the map at each place of the strip, -1 a zero. shifts: int64 (kernel positions,), lanes:
    int64 (places of the output,): tap k meets cells[shifts[k] + lanes[p]] at place p of the output. So the sum over
    taps of runs of `length` from their shifts has the output at its lanes, and what means nothing between them.
    A stride is a strip of several planes, of every stride-th row and column each. Lanes are runs, too, of `row` each;
    along a row of cells, places are `step` apart.
    """

    cells: np.ndarray
    shifts: np.ndarray
    lanes: np.ndarray
    row: int
    step: int

    @property
    def length(self) -> int:
        """Of the runs that are added."""
        return int(self.lanes[-1]) + 1

    @cached_property
    def runs(self) -> np.ndarray:
        """int64 (runs, 3): where in the strip, from which place on, and how many places, each `step` from the last."""
        none = -1 - self.step
        cells = np.where(self.cells < 0, none, self.cells).astype(np.int64)
        begins = np.flatnonzero((cells >= 0) & (np.diff(cells, prepend=none) != self.step))
        ends = np.flatnonzero((cells >= 0) & (np.diff(cells, append=none) != self.step))
        return np.stack([begins, cells[begins], ends - begins + 1], axis=1)

    @classmethod
    def of_axes(cls, axes: tuple[Axis, ...]) -> Strips:
        """Of a convolution that is not transposed, with its zero padding as zeros of the strip."""
        cells = np.zeros((1, 1), np.int64)
        planes, steps, lanes = (np.zeros(1, np.int64) for _ in range(3))
        for places, out, kernel, stride, padding, dilation in axes:
            first = np.arange(kernel) * dilation
            used, plane = np.unique(first % stride, return_inverse=True)
            wide = out + int(first[-1]) // stride
            at = used[:, None] + stride * np.arange(wide) - padding
            at = np.where((at >= 0) & (at < places), at, -1)[None, :, None, :]
            known = cells[:, None, :, None]
            cells = np.where((known < 0) | (at < 0), -1, known * places + at).reshape(len(cells) * len(used), -1)
            planes = np.add.outer(planes * len(used), plane).reshape(-1)
            steps = np.add.outer(steps * wide, first // stride).reshape(-1)
            lanes = np.add.outer(lanes * wide, np.arange(out)).reshape(-1)
        return cls(cells.reshape(-1).astype(np.int32), planes * cells.shape[1] + steps, lanes, axes[-1][1], axes[-1][3])

    @classmethod
    def of_taps(cls, taps: np.ndarray) -> Strips:
        """Of any table of taps: what each tap meets is laid out on its own."""
        taps_of, places = taps.shape
        return cls(taps.reshape(-1), np.arange(taps_of) * places, np.arange(places), places, 1)


@dataclass(frozen=True, eq=False)
class MapLayer:
    """One use of a layer.

    shape: of its mask, (out, in / groups, *kernel). reads: int32 (in, places), the unit at each place of each input
    channel, -1 zero, -2 a constant. taps: int32 (kernel positions, places of the output), the place of the input that
    each tap meets, -1 where it lies outside. It makes units start, start + 1, ..., channel after channel. axes: of a
    plain convolution, whose taps meet runs; None of others.
    """

    name: str
    shape: tuple[int, ...]
    reads: np.ndarray
    taps: np.ndarray
    start: int
    groups: int = 1
    axes: tuple[Axis, ...] | None = None

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

    @cached_property
    def strips(self) -> Strips:
        """Where the taps of one channel meet what it holds."""
        return Strips.of_taps(self.taps) if self.axes is None else Strips.of_axes(self.axes)

    @cached_property
    def first(self) -> np.ndarray:
        """int64 (in,): the unit at the first place of each channel whose places are units in a row, else -1."""
        row = (self.reads[:, :1] >= 0) & (self.reads == self.reads[:, :1] + np.arange(self.reads.shape[1]))
        return np.where(row.all(axis=1), self.reads[:, 0], -1).astype(np.int64)

    @cached_property
    def whole(self) -> int:
        """The first unit that it reads, where its strips are units in a row as they stand; else -1."""
        size = self.reads.shape[1]
        alike = np.array_equal(self.strips.cells, np.arange(size))
        follow = self.first[0] >= 0 and np.array_equal(self.first, self.first[0] + size * np.arange(len(self.reads)))
        return int(self.first[0]) if alike and follow else -1

    @property
    def laid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Which units are laid on the strips of its channels, for kernels."""
        return self.reads, self.first, self.strips.runs, self.strips.step

    @cached_property
    def at(self) -> np.ndarray:
        """int64 (columns,): where the run of each weight of the first group begins, strip after strip."""
        return np.add.outer(np.arange(self.shape[1]) * len(self.strips.cells), self.strips.shifts).reshape(-1)

    @cached_property
    def alive(self) -> np.ndarray:
        """uint64 words of the weights of a row that meet a place of the map: padding starves others of all."""
        meets = np.tile((self.taps >= 0).any(axis=1), self.shape[1])
        return BitRows.of_mask(meets[None]).words[0]


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

    @cached_property
    def tensors(self) -> np.ndarray:
        """int32 (units,): the number of the step that makes each unit, 0 for inputs, 1 for the first step."""
        found = np.zeros(self.n_units, np.int32)
        for number, step in enumerate(self.steps, 1):
            found[step.start : step.stop] = number
        return found

    @cached_property
    def sources(self) -> tuple[np.ndarray, ...]:
        """Of each tensor, the tensors whose units its paths come from: of a gate, those of its first operand."""
        found = [np.zeros(0, np.int64)]
        for step in self.steps:
            follows = isinstance(step, MapLayer) or step.kind == "add"
            reads = step.operands if follows else step.operands[: int(step.kind == "gate")]  # type: ignore[union-attr]
            some = np.zeros(len(self.steps) + 1, np.bool_)
            for units in reads:
                some[self.tensors[units[units >= 0]]] = True
            found.append(np.flatnonzero(some))
        return tuple(found)

    def segment(self, tensor: int) -> slice | np.ndarray:
        """Where the units of a tensor lie."""
        return slice(self.steps[tensor - 1].start, self.steps[tensor - 1].stop) if tensor else self.inputs

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
