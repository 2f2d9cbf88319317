"""A wiring in flat arrays, as walks and kernels take it: units by the step that makes them, steps as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from topo._support.distinct import distinct
from topo.wiring.steps import Layer, Step

KINDS = ("layer", "add", "gate", "score", "source")
COLUMNS = ("kind", "start", "stop", "read", "read_stop", "operands", "groups", "kernel_size", "width", "words")


class Groups:
    """Unit -> (group, place in it). Units made together form a group: group 0 the inputs, group i + 1 step i."""

    def __init__(self, inputs: np.ndarray, steps: Sequence[Step], outputs: np.ndarray, n_units: int) -> None:
        self.sizes = [len(inputs), *(step.stop - step.start for step in steps)]
        self.of_unit = np.full(n_units + 2, -1, np.int32)  # -1 and -2 are of no group
        self.of_unit[inputs] = 0
        self._inputs, self._starts = inputs, [0, *(step.start for step in steps)]
        for index, step in enumerate(steps):
            self.of_unit[step.start : step.stop] = index + 1
        reads = [units for step in steps for units in step.operands]
        self._parts: dict[int, list | None] = {id(units): None for units in (*reads, outputs)}

    def parts(self, units: np.ndarray) -> list[tuple[int, Any, Any]]:
        """(group, where in `units`, where in the group) for each group that `units` names; a slice for the whole.

        What the steps read is looked up once.
        """
        known = self._parts.get(id(units))
        if known is None:
            known = list(self._find(units))
            if id(units) in self._parts:
                self._parts[id(units)] = known
        return known

    def _find(self, units: np.ndarray) -> Iterator[tuple[int, Any, Any]]:
        groups = self.of_unit[units]
        if not groups.size:
            return
        for group in [int(groups[0])] if (groups == groups[0]).all() else distinct(groups).tolist():
            if group < 0:
                continue
            where: Any = np.flatnonzero(groups == group)
            place: Any = self._places(group, units[where])
            if len(where) == len(units):
                where = slice(None)
            if len(place) == self.sizes[group] and (place[1:] > place[:-1]).all():
                place = slice(None)
            yield group, where, place

    def _places(self, group: int, units: np.ndarray) -> np.ndarray:
        """The places of some units of a group in it."""
        if group or (self._inputs == np.arange(len(self._inputs), dtype=np.int32)).all():
            return units - np.int32(self._starts[group])
        order = np.argsort(self._inputs, kind="stable")
        return order[np.searchsorted(self._inputs, units, sorter=order)]


class Table:
    """The steps of a wiring as rows of numbers.

    steps: int64 (steps, 10), the columns of COLUMNS. kind: place in KINDS. start, stop: the units it makes. read,
    read_stop: its part of `reads`, operand after operand. operands: how many. groups, kernel_size: of a layer, 1 of a
    join.
    width: uint64 words in a bit row of a layer, entries of a head in a score. words: where a layer's words begin, all
    layers' words one behind the other.
    reads: int32, the units that the steps read. places: the part of each step, a slice. sizes: how many words each step
    has. inputs, outputs: bool (units + 2,), the network's; the last entries, a constant and nothing, are False.
    """

    def __init__(self, inputs: np.ndarray, steps: Sequence[Step], outputs: np.ndarray, n_units: int) -> None:
        self.inputs, self.outputs = (np.zeros(n_units + 2, np.bool_) for _ in range(2))
        self.inputs[inputs], self.outputs[outputs] = True, True
        read_by_steps = [units for step in steps for units in step.operands]
        one = len(read_by_steps) == 1  # ten million units need not be held twice
        self.reads = read_by_steps[0] if one else _frozen(np.concatenate([inputs[:0], *read_by_steps]))
        self.places: list[slice] = []
        self.sizes: list[int] = []
        rows, read, words = [], 0, 0
        for step in steps:
            read_stop = read + sum(map(len, step.operands))
            if isinstance(step, Layer):
                kind, groups, kernel_size, width = (
                    "layer",
                    step.groups,
                    step.kernel_size,
                    -(-step.shape[1] * step.kernel_size // 64),
                )
                size = step.outputs * width
            else:
                kind, groups, kernel_size, width, size = step.kind, 1, 1, step.width, 0
            row = (step.start, step.stop, read, read_stop, len(step.operands), groups, kernel_size, width, words)
            rows.append((KINDS.index(kind), *row))
            self.places.append(slice(read, read_stop))
            self.sizes.append(size)
            read, words = read_stop, words + size
        self.steps = _frozen(np.array(rows, np.int64).reshape(-1, len(COLUMNS)))

    def with_sources(self, sources: list[int]) -> np.ndarray:
        """`steps` where these are sources, which have no words."""
        if not sources:
            return self.steps
        steps, sizes = self.steps.copy(), np.array(self.sizes)
        steps[sources, COLUMNS.index("kind")], sizes[sources] = KINDS.index("source"), 0
        steps[1:, COLUMNS.index("words")] = np.cumsum(sizes)[:-1]
        return _frozen(steps)


def _frozen(array: np.ndarray) -> np.ndarray:
    """Read-only: a kernel compiles anew for arrays that could be written."""
    array.flags.writeable = False
    return array
