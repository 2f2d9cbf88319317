"""Walks over the graph that many metrics share: which units are live, and how many paths meet each.

Live is decided by booleans, forwards from the inputs and backwards from the outputs: an add is OR, a gate is AND, a
score is an OR over its pairs of ANDs. Path counts follow, F(v) from the inputs to v and B(v) from v to the outputs, the
input units and the output units starting at 1 (Patil & Dovrolis 2021; Pham et al., NeurIPS 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo import threads
from topo.errors import TopoError
from topo.graph import Block, LayeredGraph, columns_to_inputs, inputs_to_columns
from topo.metrics import shared
from topo.metrics.arithmetic import Limbs, Scaled
from topo.wiring import Join

ROUTES = ("value", "all")


@dataclass(frozen=True, eq=False)
class Live:
    """bool (units + 1,) each: reachable from an input, reaching an output. The last entry, "no unit", is False."""

    forward: np.ndarray
    backward: np.ndarray

    @property
    def effective(self) -> np.ndarray:
        """bool (units + 1,): on a path from an input to an output."""
        return self.forward & self.backward


@shared
def live(graph: LayeredGraph) -> Live:
    """Reachability of every unit of a wired graph."""
    from topo.kernels.reach import reach_backward, reach_forward

    wiring = graph.wiring
    assert wiring is not None
    forward = np.zeros(wiring.n_units + 1, np.bool_)
    backward = np.zeros_like(forward)
    forward[wiring.inputs] = True
    for step in graph.steps:
        made = forward[_made(step)]
        if isinstance(step, Block):
            if step.source:
                made[:] = True
            else:
                columns = inputs_to_columns(forward[step.reads], step.groups, step.taps)
                reach_forward(step.rows.words, columns, step.shape[0] // step.groups, made)
        elif step.kind == "add":
            np.logical_or.reduce([forward[operand] for operand in step.operands], out=made)
        elif step.kind == "gate":
            np.logical_and.reduce([forward[operand] for operand in step.operands], out=made)
        else:
            query, key = step.operands
            np.any((forward[query] & forward[key]).reshape(-1, step.width), axis=1, out=made)
    backward[wiring.outputs] = True
    for step in reversed(graph.steps):
        made = backward[_made(step)]
        if isinstance(step, Block):
            if not step.source:
                columns = np.empty((step.groups, step.rows.words.shape[1]), np.uint64)
                reach_backward(step.rows.words, made, step.shape[0] // step.groups, columns)
                _mark(backward, step.reads, columns_to_inputs(columns, step.shape[1], step.taps))
            continue
        for operand in step.operands:
            needed = np.repeat(made, step.width)
            if step.kind != "add":  # a factor matters only where the others are not zero for good
                needed = np.logical_and.reduce(
                    [needed, *(forward[other] for other in step.operands if other is not operand)]
                )
            _mark(backward, operand, needed)
    return Live(forward, backward)


def _made(step: Block | Join) -> slice:
    if isinstance(step, Block):
        assert step.layer is not None
        return slice(step.layer.start, step.layer.stop)
    return slice(step.start, step.stop)


def _mark(flags: np.ndarray, units: np.ndarray, values: np.ndarray) -> None:
    """flags[units] |= values, units that stand several times included; "no unit" stays False."""
    flags[units[values]] = True
    flags[-1] = False


@shared
def effective_by_step(graph: LayeredGraph) -> dict[int, np.ndarray]:
    """Step -> bit rows of the effective parameters of that use of the layer: kept, both ends live."""
    from topo.kernels.reach import effective

    state = live(graph)

    def of_step(step: Block) -> np.ndarray:
        out = np.empty_like(step.rows.words)
        columns = inputs_to_columns(state.forward[step.reads], step.groups, step.taps)
        effective(step.rows.words, columns, state.backward[_made(step)], step.shape[0] // step.groups, out)
        return out

    steps = {index: step for index, step in enumerate(graph.steps) if isinstance(step, Block) and not step.source}
    workers = graph.threads if graph.masks.size > 1 << 22 else 1
    return dict(zip(steps, threads.over(of_step, steps.values(), workers)))


@shared
def effective_words(graph: LayeredGraph) -> dict[str, np.ndarray]:
    """Parameter -> bit rows of its effective weights. A parameter that is used twice is effective if either use is."""
    words: dict[str, np.ndarray] = {}
    for index, mine in effective_by_step(graph).items():
        name = graph.steps[index].name  # type: ignore[union-attr]
        words[name] = words[name] | mine if name in words else mine
    return words


class Walk:
    """One walk of path counts over a graph, in one arithmetic (Scaled or Limbs).

    forward[g], backward[g]: counts of the units of group g. read[i]: what step i reads, pushed[i]: what it gives back
    to each of its inputs (layers only). routes: "value" follows the value branch of a gate, "all" every branch. alive:
    units that an input reaches, which close gates; looked up if there are gates. only: count paths through these units
    alone.
    """

    def __init__(
        self,
        graph: LayeredGraph,
        arithmetic: Any,
        routes: str = "value",
        alive: np.ndarray | None = None,
        only: np.ndarray | None = None,
    ) -> None:
        if routes not in ROUTES:
            raise TopoError(f"routes is '{routes}'; it is one of {', '.join(ROUTES)}")
        assert graph.wiring is not None
        # Parts of the graph, not the graph: its memo holds walks, and a cycle would keep all bits until a collection.
        self.steps, self.wiring, self.groups = graph.steps, graph.wiring, graph.wiring.groups
        self.arithmetic, self.routes, self.only = arithmetic, routes, only
        if alive is None and any(isinstance(step, Join) and step.kind != "add" for step in graph.steps):
            alive = live(graph).forward
        self.alive = alive
        self.forward: list[Any] = []
        self.backward: list[Any] = []
        self.read: dict[int, Any] = {}
        self.pushed: dict[int, Any] = {}

    def _open(self, step: Join) -> np.ndarray:
        assert self.alive is not None
        return self.alive[_made(step)]

    def gather(self, units: np.ndarray) -> Any:
        """Forward counts of `units`."""
        parts = [(where, self.forward[group].take(place)) for group, where, place in self.groups.parts(units)]
        if len(parts) == 1 and isinstance(parts[0][0], slice):
            return parts[0][1]
        total = self.arithmetic.zeros(len(units))
        for where, values in parts:
            total = total.plus(values.spread(where, len(units)))
        return total

    def _give(self, units: np.ndarray, values: Any) -> None:
        """Add backward counts to `units`."""
        for group, where, place in self.groups.parts(units):
            mine = values.take(where)
            if not isinstance(place, slice):
                mine = mine.spread(place, self.groups.sizes[group])
            held = self.backward[group]
            self.backward[group] = mine if held is None else held.plus(mine)

    def start(self) -> Walk:
        """Begin at the inputs; `advance` then takes the steps, in order."""
        self.forward = [self.arithmetic.ones(self.groups.sizes[0])]
        return self

    def advance(self, index: int, step: Block | Join) -> None:
        """Forward counts of what step `index` makes."""
        if isinstance(step, Block):
            made = self._layer_forward(index, step)
        else:
            counted = step.operands if step.kind == "add" or self.routes == "all" else step.operands[:1]
            if step.kind == "score" and self.routes == "value":
                made = self.arithmetic.zeros(step.outputs)
            else:
                made = self.gather(counted[0])
                for operand in counted[1:]:
                    made = made.plus(self.gather(operand))
                if step.kind == "score":
                    made = made.fold(step.width)
            if step.kind != "add":
                made = made.times(self._open(step))
        self.forward.append(made if self.only is None else made.times(self.only[_made(step)]))

    def go_forward(self) -> Walk:
        """Fill `forward`."""
        self.start()
        for index, step in enumerate(self.steps):
            self.advance(index, step)
        return self

    def _layer_forward(self, index: int, step: Block) -> Any:
        if step.source:
            return self.arithmetic.ones(step.shape[0])
        self.read[index] = self.gather(step.edges.reads)
        return self.read[index].through(step.edges.pull, step.edges.bound)

    def go_backward(self) -> Walk:
        """Fill `backward` and `pushed`."""
        self.backward = [None] * len(self.groups.sizes)
        self._give(self.wiring.outputs, self.arithmetic.ones(len(self.wiring.outputs)))
        for index in range(len(self.steps) - 1, -1, -1):
            step, made = self.steps[index], self.backward[index + 1]
            if made is None:
                made = self.backward[index + 1] = self.arithmetic.zeros(self.groups.sizes[index + 1])
            elif self.only is not None:
                made = self.backward[index + 1] = made.times(self.only[_made(step)])
            if isinstance(step, Block):
                if not step.source:
                    self.pushed[index] = made.through(step.edges.push, step.edges.bound)
                    self._give(step.edges.reads, self.pushed[index])
                continue
            if step.kind == "score" and self.routes == "value":
                continue
            if step.kind != "add":
                made = made.times(self._open(step))
            if step.kind == "score":
                made = made.take(np.repeat(np.arange(step.outputs), step.width))
            for operand in step.operands if step.kind == "add" or self.routes == "all" else step.operands[:1]:
                self._give(operand, made)
        if self.backward[0] is None:
            self.backward[0] = self.arithmetic.zeros(self.groups.sizes[0])
        return self

    def forward_total(self) -> Any:
        """The number of paths, summed at the outputs: (mantissa, exponent) or an integer."""
        return self.gather(self.wiring.outputs).total()

    def backward_total(self) -> Any:
        """The number of paths, summed where they start: at the inputs and at embeddings that are not masked."""
        starts = [0, *(i + 1 for i, step in enumerate(self.steps) if isinstance(step, Block) and step.source)]
        total = self.arithmetic.zeros(1)
        for group in starts:
            total = total.plus(self.backward[group].fold(self.groups.sizes[group]))
        return total.total()


@shared
def effective_counts(graph: LayeredGraph) -> Walk:
    """Counts of the paths from inputs to outputs that meet each unit's two sides, in floats: dead ends count 0.

    Forward counts of a stream that leads nowhere could be 2**1074 times those that arrive, and drown them in the scale
    that they share.
    """
    return Walk(graph, Scaled, only=live(graph).effective).go_forward().go_backward()


@shared
def counts(graph: LayeredGraph) -> Walk:
    """Path counts of every unit, forwards and backwards, in floats; see Scaled for the error bound."""
    return Walk(graph, Scaled).go_forward().go_backward()


def exact_paths(graph: LayeredGraph, routes: str = "value", direction: str = "forward") -> int:
    """The number of paths from inputs to outputs, an exact Python integer.

    direction: "forward" sums at the outputs, "backward" at the inputs; they agree.
    """
    walk = Walk(graph, Limbs, routes)
    if direction == "forward":
        return walk.go_forward().forward_total()
    if direction == "backward":
        return walk.go_backward().backward_total()
    raise TopoError(f"direction is '{direction}'; it is forward or backward")


def log10(total: tuple[float, int]) -> float:
    """log10 of mantissa * 2**exponent; -inf for 0."""
    mantissa, exponent = total
    return math.log10(mantissa) + exponent * math.log10(2.0) if mantissa > 0 else -math.inf
