"""A network as columns of units: where each layer's outputs stand, and in which column the units of a sum are merged.

A column holds the units that one step makes. A branch that is read by one sum only has no column of its own: its units
are those of the sum. So a residual network has a column for each layer, and its skips jump over columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from topo.graph import paths
from topo.graph.graph import Block, WiredGraph
from topo.wiring import Join, Layer


@dataclass(frozen=True)
class Link:
    """Edges from unit source[k] to unit target[k] of one column each, as they are drawn, made by a step of the graph.

    layer: its name, None for an identity of a join. rows, columns: the place of each edge in the layer's mask, columns
    within its group; of a join both are the place in `read`, the units that are read.
    """

    step: int
    layer: str | None
    source: np.ndarray
    target: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    read: np.ndarray


class Columns:
    """units[c]: those of column c, in order. depth[c]: its place from left to right. names[c]: what makes it."""

    def __init__(self, graph: WiredGraph) -> None:
        wiring = graph.wiring
        self.graph = graph
        spans = [(0, 0), *((step.start, step.stop) for step in wiring.steps)]
        group_of = np.full(wiring.n_units + 2, -1)
        group_of[wiring.inputs] = 0
        for group, (start, stop) in enumerate(spans[1:], 1):
            group_of[start:stop] = group
        group_of[-2:] = -1
        merged = self._merged(group_of, spans)
        # each unit, and the unit that it is drawn as
        self.drawn = np.arange(wiring.n_units + 2)
        for index in range(len(wiring.steps) - 1, -1, -1):
            step = wiring.steps[index]
            if isinstance(step, Join):
                for operand in step.operands:
                    known = operand >= 0
                    inside = known & (np.array([merged.get(int(g)) for g in group_of[operand]]) == index + 1)
                    self.drawn[operand[inside]] = self.drawn[step.start + np.flatnonzero(inside)]
        home = {group: group for group in range(len(spans))}
        for group in sorted(merged, reverse=True):
            home[group] = home[merged[group]]
        self._home, self._group_of = home, group_of
        self.depth = self._depths()
        self.order = sorted(self.depth, key=lambda group: (self.depth[group], group))
        self.units = {group: self._made(group, spans[group]) for group in self.order}
        self.names = self._names()

    def _made(self, group: int, span: tuple[int, int]) -> np.ndarray:
        """The inputs, or the units that a step makes; of a layer that is used in part, those of the part."""
        wiring = self.graph.wiring
        step = wiring.steps[group - 1] if group else None
        if step is None:
            return np.asarray(wiring.inputs)
        return step.start + step.rows if isinstance(step, Layer) and step.rows is not None else np.arange(*span)

    def _merged(self, group_of: np.ndarray, spans: list[tuple[int, int]]) -> dict[int, int]:
        """Group -> the sum that alone reads it, each unit once and in full."""
        wiring = self.graph.wiring
        readers: dict[int, set[int]] = {}
        for index, step in enumerate(wiring.steps):
            for read in step.operands:
                for group in np.unique(group_of[read[read >= 0]]):
                    readers.setdefault(int(group), set()).add(index + 1)
        outside = set(group_of[wiring.outputs[wiring.outputs >= 0]].tolist())
        found = {}
        for group, steps in readers.items():
            step = wiring.steps[next(iter(steps)) - 1]
            one_sum = len(steps) == 1 and isinstance(step, Join) and step.kind == "add"
            if group and group not in outside and one_sum:
                assert isinstance(step, Join)
                full = [o for o in step.operands if (group_of[o[o >= 0]] == group).any()]
                width = spans[group][1] - spans[group][0]
                if len(full) == 1 and len(full[0]) == width and len(np.unique(full[0])) == width:
                    found[group] = next(iter(steps))
        return found

    def _sources(self, read: np.ndarray) -> set[int]:
        return {self._home[int(group)] for group in np.unique(self._group_of[read[read >= 0]])}

    def _depths(self) -> dict[int, int]:
        wiring = self.graph.wiring
        depth: dict[int, int] = {0: 0}
        for index, step in enumerate(wiring.steps):
            home = self._home[index + 1]
            reads = step.operands
            sources = set().union(*(self._sources(read) for read in reads)) - {home}
            made = 1 + max((depth.get(source, 0) for source in sources), default=0)
            depth[home] = max(depth.get(home, 0), made)
        return depth

    def _names(self) -> dict[int, str]:
        wiring = self.graph.wiring
        names = {0: "input"}
        for index, step in enumerate(wiring.steps):
            home = self._home[index + 1]
            if isinstance(step, Join):
                names.setdefault(home, {"add": "sum", "gate": "gate", "score": "score"}[step.kind])
            elif index not in wiring.shortcuts or home not in names:
                names[home] = step.name.removesuffix(".weight")
        return names

    def column_of(self, units: np.ndarray) -> np.ndarray:
        """The column of units that are drawn."""
        table = np.array([self._home.get(group, -1) for group in range(len(self._home))] + [-1])
        return table[self._group_of[units]]

    @cached_property
    def links(self) -> list[Link]:
        """Layers, an edge for each kernel with a kept weight, and identities of joins; units as they are drawn."""
        found: list[tuple[Any, ...]] = []
        for index, step in enumerate(self.graph.steps):
            if isinstance(step, Block):
                if step.source or step.layer is None:
                    continue
                rows, columns = np.nonzero(step.rows.unpack().reshape(step.shape[0], step.shape[1], -1).any(axis=2))
                group = rows // (step.shape[0] // step.groups)
                source = step.reads[group * step.shape[1] + columns]
                target = step.layer.start + rows
                keep = source >= 0
                found.append((index, step.name, source[keep], target[keep], rows[keep], columns[keep], step.reads))
            else:
                width = step.width if step.kind == "score" else 1
                for operand in step.operands:
                    places = np.flatnonzero(operand >= 0)
                    target = step.start + places // width
                    keep = self.drawn[operand[places]] != self.drawn[target]
                    found.append(
                        (index, None, operand[places][keep], target[keep], places[keep], places[keep], operand)
                    )
        return [link for entry in found for link in self._split(*entry)]

    def _split(
        self, index: int, name: str | None, source: Any, target: Any, rows: Any, columns: Any, read: Any
    ) -> Iterator[Link]:
        """A link for each pair of columns that the edges join."""
        source, target = self.drawn[source], self.drawn[target]
        pairs = np.stack([self.column_of(source), self.column_of(target)])
        for a, b in np.unique(pairs, axis=1).T.tolist():
            mine = (pairs[0] == a) & (pairs[1] == b)
            yield Link(index, name, source[mine], target[mine], rows[mine], columns[mine], read)

    def effective(self, link: Link) -> np.ndarray:
        """bool: which edges of a link lie on a path from an input to an output; gates and queries count as the paths'.

        Of a layer those of kernels that hold an effective weight, of an identity those between two live units.
        """
        step = self.graph.steps[link.step]
        if isinstance(step, Block):
            words = paths.effective_by_step(self.graph).words[link.step]
            bits = np.unpackbits(words.view(np.uint8), axis=1, count=step.rows.columns, bitorder="little")
            kernels = np.asarray(bits.reshape(step.shape[0], step.shape[1], -1).any(axis=2))
            return kernels[link.rows, link.columns]
        live = paths.live(self.graph).effective
        made = step.start + link.rows // (step.width if step.kind == "score" else 1)
        return np.asarray(live[link.read[link.rows]] & live[made])

    @cached_property
    def alive(self) -> np.ndarray:
        """bool, of units that are drawn: on a path from an input to an output."""
        live = np.asarray(paths.live(self.graph).effective)
        alive = np.zeros_like(live)
        np.logical_or.at(alive, self.drawn, live)
        return alive

    @cached_property
    def by_skip(self) -> np.ndarray:
        """bool, of units that are drawn: alive, an identity reaches them, and no effective weight of a layer does."""
        reached, fed = np.zeros(len(self.drawn), bool), np.zeros(len(self.drawn), bool)
        for link in self.links:
            if link.layer is None:
                reached[link.target] = True
            else:
                fed[link.target[self.effective(link)]] = True
        return self.alive & reached & ~fed
