"""A masked network as lists: what every twin takes. Python integers, dictionaries, enumerated paths."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property

import numpy as np

from topo.masks import MaskSet
from topo.wiring import Layer, Wiring

MAX_PATHS = 200_000
ALWAYS = -2  # the operand of a wiring that is always live


def in_use(layer: Layer, o: int, i: int) -> bool:
    """Whether the weights from input i of its group to output o take part."""
    return (layer.rows is None or o in layer.rows) and (layer.columns is None or i in layer.columns)


class Net:
    """A masked network as lists of parameter edges (parameter, unit, unit) and joins, in running order."""

    def __init__(self, masks: MaskSet, wiring: Wiring, view: str = "channel", layer_view: str = "kernel") -> None:
        self.masks, self.wiring, self.view, self.layer_view = masks, wiring, view, layer_view
        self.sources = [
            step
            for step in wiring.steps
            if isinstance(step, Layer) and step.kind == "embedding" and step.name not in masks
        ]
        self.layers = [step for step in wiring.steps if isinstance(step, Layer) and step not in self.sources]
        self.starts = {int(u) for u in wiring.inputs} | {u for s in self.sources for u in range(s.start, s.stop)}
        self.ends = {int(u) for u in wiring.outputs}

    def array(self, name: str) -> np.ndarray:
        return self.masks[name] if name in self.masks else np.ones(self.wiring.shapes[name], bool)

    def parameters(self, layer: Layer) -> list[tuple[tuple, int, int]]:
        """(parameter, from unit, to unit) of every kept weight of one use of a layer."""
        per_group, out_per_group = layer.shape[1], layer.shape[0] // layer.groups
        found = []
        for index in zip(*np.nonzero(self.array(layer.name))):
            o, i = int(index[0]), int(index[1])
            if not in_use(layer, o, i):
                continue
            unit = int(layer.reads[(o // out_per_group) * per_group + i])
            found.append(((layer.name, *map(int, index)), unit, layer.start + o))
        return [entry for entry in found if entry[1] >= 0]

    def edges(self, layer: Layer) -> list[tuple[tuple, int, int]]:
        """As `parameters`; in the unit view one edge for each joined pair of units."""
        every = self.parameters(layer)
        if self.view == "unit":
            return [((layer.name, u, v), u, v) for u, v in sorted({(u, v) for _, u, v in every})]
        return every

    @cached_property
    def forward(self) -> set[int]:
        """Units that inputs reach."""
        return self._open - {ALWAYS}

    @cached_property
    def _open(self) -> set[int]:
        """These, and what a gate beside its bias is: always live."""
        live = {*self.starts, ALWAYS}
        for step in self.wiring.steps:
            if isinstance(step, Layer):
                if step not in self.sources:
                    live |= {v for _, u, v in self.parameters(step) if u in live}
            else:
                for k in range(step.outputs):
                    if step.kind == "add":
                        fed = any(int(op[k]) in live for op in step.operands)
                    elif step.kind == "gate":
                        fed = all(int(op[k]) in live for op in step.operands)
                    else:
                        places = range(k * step.width, (k + 1) * step.width)
                        fed = any(all(int(op[d]) in live for op in step.operands) for d in places)
                    if fed:
                        live.add(step.start + k)
        return live

    @cached_property
    def backward(self) -> set[int]:
        live = set(self.ends)
        for step in reversed(self.wiring.steps):
            if isinstance(step, Layer):
                if step not in self.sources:
                    live |= {u for _, u, v in self.parameters(step) if v in live}
                continue
            for place in range(len(step.operands[0])):
                if step.start + place // step.width not in live:
                    continue
                for op in step.operands:
                    others = [int(other[place]) for other in step.operands if other is not op]
                    if op[place] >= 0 and (step.kind == "add" or all(u in self._open for u in others)):
                        live.add(int(op[place]))
        return live

    @cached_property
    def effective(self) -> dict[str, set[tuple]]:
        """Name -> effective parameters."""
        found: dict[str, set[tuple]] = {name: set() for name in self.wiring.names}
        for layer in self.layers:
            found[layer.name] |= {p for p, u, v in self.parameters(layer) if u in self.forward and v in self.backward}
        return found

    @cached_property
    def arcs(self) -> dict[int, list[tuple[tuple, int]]]:
        """Unit -> [(what the path uses, next unit)], along the value branch of live gates."""
        out: dict[int, list] = defaultdict(list)
        for index, step in enumerate(self.wiring.steps):
            if isinstance(step, Layer):
                if step not in self.sources:
                    for parameter, u, v in self.edges(step):
                        out[u].append(((index, *parameter), v))
            elif step.kind != "score":
                for number, op in enumerate(step.operands if step.kind == "add" else step.operands[:1]):
                    for k, u in enumerate(op):
                        if u >= 0 and (step.kind == "add" or step.start + k in self.forward):
                            out[int(u)].append((("join", index, number, k), step.start + k))
        return out

    @cached_property
    def paths(self) -> list[list[tuple[tuple, int, int]]]:
        """Every path, as its arcs (what, from, to)."""
        found: list[list] = []

        def walk(unit: int, trail: list) -> None:
            if unit in self.ends:
                found.append(trail)
                assert len(found) <= MAX_PATHS, "too many paths to enumerate: use a smaller toy"
            for what, after in self.arcs[unit]:
                walk(after, [*trail, (what, unit, after)])

        for start in sorted(self.starts):
            walk(start, [])
        return found

    @cached_property
    def node_layers(self) -> list[tuple[int, Layer]]:
        return [
            (index, step)
            for index, step in enumerate(self.wiring.steps)
            if step in self.layers and index not in self.wiring.shortcuts
        ]

    def visits(self, index: int) -> Counter:
        """Parameter -> number of paths that use it in step `index`."""
        return Counter(what for path in self.paths for what, _, _ in path if what[0] == index)

    def inputs_of(self, index: int) -> Counter:
        """Unit -> number of paths that enter step `index` through it."""
        return Counter(unit for path in self.paths for what, unit, _ in path if what[0] == index)
