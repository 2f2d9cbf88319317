"""A wiring in flat arrays, as walks and kernels take it: units by the step that makes them, steps as a table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from topo.wiring import Wiring

KINDS = ("layer", "add", "gate", "score", "source")
COLUMNS = ("kind", "start", "stop", "read", "read_stop", "operands", "groups", "taps", "width", "words")


class Groups:
    """Unit -> (group, place in it). Units made together form a group: group 0 the inputs, group i + 1 step i."""

    def __init__(self, wiring: Wiring) -> None:
        self.sizes = [len(wiring.inputs), *(step.stop - step.start for step in wiring.steps)]
        self.of_unit = np.full(wiring.n_units + 1, -1, np.int32)
        self._place = np.zeros(wiring.n_units + 1, np.int32)
        self.of_unit[wiring.inputs] = 0
        self._place[wiring.inputs] = np.arange(len(wiring.inputs))
        for index, step in enumerate(wiring.steps):
            self.of_unit[step.start : step.stop] = index + 1
            self._place[step.start : step.stop] = np.arange(step.stop - step.start)
        reads = [units for step in wiring.steps for units in _read(step)]
        self._parts: dict[int, list | None] = {id(units): None for units in (*reads, wiring.outputs)}

    def parts(self, units: np.ndarray) -> list[tuple[int, Any, Any]]:
        """(group, where in `units`, where in the group) for each group that `units` names; a slice for the whole.

        What the wiring's own steps read is looked up once.
        """
        known = self._parts.get(id(units))
        if known is None:
            known = list(self._find(units))
            if id(units) in self._parts:
                self._parts[id(units)] = known
        return known

    def _find(self, units: np.ndarray) -> Iterator[tuple[int, Any, Any]]:
        groups = self.of_unit[units]
        for group in [int(groups[0])] if (groups == groups[0]).all() else np.unique(groups).tolist():
            if group < 0:
                continue
            where: Any = np.flatnonzero(groups == group)
            place: Any = self._place[units[where]]
            if len(where) == len(units):
                where = slice(None)
            if len(place) == self.sizes[group] and (place[1:] > place[:-1]).all():
                place = slice(None)
            yield group, where, place


class Table:
    """The steps of a wiring as rows of numbers.

    steps: int64 (steps, 10), the columns of COLUMNS. kind: place in KINDS. start, stop: the units it makes. read,
    read_stop: its part of `reads`, operand after operand. operands: how many. groups, taps: of a layer, 1 of a join.
    width: uint64 words in a bit row of a layer, entries of a head in a score. words: where a layer's words begin, all
    layers' words one behind the other.
    reads: int32, the units that the steps read. inputs, outputs: bool (units + 1,), the network's; the last entry, "no
    unit", is False.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.inputs, self.outputs = (np.zeros(wiring.n_units + 1, np.bool_) for _ in range(2))
        self.inputs[wiring.inputs], self.outputs[wiring.outputs] = True, True
        self.reads = np.concatenate([units for step in wiring.steps for units in _read(step)] or [wiring.inputs[:0]])
        self.reads.flags.writeable = False
        rows, read, words = [], 0, 0
        step: Any
        for step in wiring.steps:
            units = _read(step)
            stop = read + sum(map(len, units))
            if hasattr(step, "reads"):
                width = -(-step.shape[1] * step.taps // 64)
                rows.append((0, step.start, step.stop, read, stop, 1, step.groups, step.taps, width, words))
                words += step.shape[0] * width
            else:
                kind = KINDS.index(step.kind)
                rows.append((kind, step.start, step.stop, read, stop, len(units), 1, 1, step.width, words))
            read = stop
        self.steps = _frozen(np.array(rows, np.int64).reshape(-1, len(COLUMNS)))

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many words each step has."""
        return np.where(self.steps[:, 0] == 0, (self.steps[:, 2] - self.steps[:, 1]) * self.steps[:, 8], 0)

    def with_sources(self, sources: list[int]) -> np.ndarray:
        """`steps` where these are sources, which have no words."""
        if not sources:
            return self.steps
        steps, sizes = self.steps.copy(), self.sizes.copy()
        steps[sources, 0], sizes[sources] = KINDS.index("source"), 0
        steps[1:, 9] = np.cumsum(sizes)[:-1]
        return _frozen(steps)


def _read(step: Any) -> tuple[np.ndarray, ...]:
    return (step.reads,) if hasattr(step, "reads") else step.operands


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
