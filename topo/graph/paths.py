"""Walks over the graph that many metrics share: which units are live, and how many paths meet each.

Live is decided by booleans, forwards from the inputs and backwards from the outputs: an add is OR, a gate is AND, a
score is an OR over its pairs of ANDs. Path counts follow, F(v) from the inputs to v and B(v) from v to the outputs, the
input units and the output units starting at 1 (Patil & Dovrolis 2021; Pham et al., NeurIPS 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from topo._support import threads
from topo.errors import TopoError
from topo.graph.arithmetic import Limbs, Scaled, limbs_on
from topo.graph.graph import Block, WiredGraph
from topo.graph.memo import shared
from topo.masks import BitRows
from topo.wiring import CONSTANT, Join, Wiring
from topo.wiring.table import Groups

ROUTES = ("value", "all")
_NONE = np.zeros(0, np.bool_)
_LARGE = 1 << 26  # parameters from which on counts of units are let go as soon as nothing reads them


@dataclass(frozen=True, eq=False)
class Live:
    """bool (units + 2,) each: what is not zero, as an input or a constant reaches it; and what reaches an output.

    The last entry is nothing, never live; the one before it a constant, live forwards alone.
    """

    forward: np.ndarray
    backward: np.ndarray

    @property
    def effective(self) -> np.ndarray:
        """bool (units + 2,): on a path from an input to an output."""
        return self.forward & self.backward


@shared
def live(graph: WiredGraph) -> Live:
    """Reachability of every unit of a wired graph."""
    from topo.kernels.reach import reach_backward, reach_forward

    wiring = graph.wiring
    forward, backward = wiring.table.inputs.copy(), wiring.table.outputs.copy()
    forward[CONSTANT] = True
    for first, last, words in graph.runs:
        reach_forward(graph.table, wiring.table.reads, words, first, last, forward)
    for first, last, words in reversed(graph.runs):
        reach_backward(graph.table, wiring.table.reads, words, first, last, forward, backward)
    return Live(forward, backward)


def _made(step: Block | Join) -> slice:
    if isinstance(step, Block):
        return slice(step.use.start, step.use.stop)
    return slice(step.start, step.stop)


@dataclass(frozen=True, eq=False)
class Effective:
    """Step -> bit rows of the effective parameters of that use of the layer: kept, both ends live. Sources have none.

    read: int64 (steps,), how many distinct units each step reads with them.
    """

    words: dict[int, np.ndarray]
    read: np.ndarray


@shared
def effective_by_step(graph: WiredGraph) -> Effective:
    """What is effective in each use of a layer."""
    from topo.kernels.reach import effective

    table, reads, state = graph.table, graph.wiring.table.reads, live(graph)
    read = np.zeros(len(graph.steps), np.int64)

    def of_run(run: tuple[int, int, np.ndarray]) -> np.ndarray:
        first, last, words = run
        out = np.empty_like(words)
        effective(table, reads, words, first, last, state.forward, state.backward, out, read)
        # Of a large layer all of whose units are live the bits are the mask's own: a copy would double the memory.
        return words if last == first + 1 and np.array_equal(out, words) else out

    workers = graph.threads if len(graph.runs) > 1 and graph.masks.size > 1 << 22 else 1
    found: dict[int, np.ndarray] = {}
    made = zip(graph.runs, threads.over(of_run, graph.runs, workers))
    last = at = 0
    for index, block in graph.uses:
        while index >= last:  # in a later run, whose words begin anew
            (_, last, _), words = next(made)
            at = 0
        stop = at + block.rows.words.size
        found[index] = words[at:stop].reshape(block.rows.words.shape)
        at = stop
    return Effective(found, read)


@shared
def effective_words(graph: WiredGraph) -> dict[str, np.ndarray]:
    """Parameter -> bit rows of its effective weights, as `graph.blocks` are laid out.

    A parameter that is used twice is effective if either use is.
    """
    words: dict[str, np.ndarray] = {}
    for index, mine in effective_by_step(graph).words.items():
        block = graph.steps[index]
        assert isinstance(block, Block)
        name, first = block.name, graph.wiring.layer(block.name)
        if block.use.axes != first.axes:
            mine = first.laid_out(block.use.as_mask(BitRows(block.shape, mine))).words
        words[name] = words[name] | mine if name in words else mine
    return words


class Counted:
    """Path counts of a graph, in one arithmetic (Scaled, Limbs or Floating).

    forward[g], backward[g]: counts of the units of group g (topo.wiring.table.Groups). read[i]: what step i reads,
    pushed[i]: what it gives back to each of its inputs (layers only).
    """

    steps: tuple[Block | Join, ...]
    wiring: Wiring
    groups: Groups
    arithmetic: Any
    forward: list[Any]
    backward: list[Any]
    read: dict[int, Any]
    pushed: dict[int, Any]

    def gather(self, units: np.ndarray) -> Any:
        """Forward counts of `units`."""
        parts = [(where, self.forward[group].take(place)) for group, where, place in self.groups.parts(units)]
        if len(parts) == 1 and isinstance(parts[0][0], slice):
            return parts[0][1]
        total = self.arithmetic.zeros(len(units))
        for where, values in parts:
            total = total.plus(values.spread(where, len(units)))
        return total

    def forward_total(self) -> Any:
        """The number of paths, summed at the outputs: (mantissa, exponent) or an integer."""
        return self.gather(self.wiring.outputs).total()

    def backward_total(self) -> Any:
        """The number of paths, summed where they start: at the inputs and at embeddings that are not masked."""
        starts = [0, *(i + 1 for i, step in enumerate(self.steps) if isinstance(step, Block) and step.source)]
        total = self.arithmetic.zeros(1)
        for group in starts:
            if self.groups.sizes[group]:
                total = total.plus(self.backward[group].fold(self.groups.sizes[group]))
        return total.total()


class Walk(Counted):
    """Counts step by step, in any arithmetic and view.

    routes: "value" follows the value branch of a gate, "all" every branch. alive: units that an input reaches, which
    close gates; looked up if there are gates. only: count paths through these units alone.
    """

    def __init__(
        self,
        graph: WiredGraph,
        arithmetic: Any,
        routes: str = "value",
        alive: np.ndarray | None = None,
        only: np.ndarray | None = None,
    ) -> None:
        if routes not in ROUTES:
            raise TopoError(f"routes is '{routes}'; it is one of {', '.join(ROUTES)}")
        # Parts of the graph, not the graph: its memo holds walks, and a cycle would keep all bits until a collection.
        self.steps, self.wiring, self.groups = graph.steps, graph.wiring, graph.wiring.groups
        self.arithmetic, self.routes, self.only = arithmetic, routes, only
        if alive is None and _has_products(graph):
            alive = live(graph).forward
        self.alive = alive
        self.forward, self.backward, self.read, self.pushed = [], [], {}, {}

    def _open(self, step: Join) -> np.ndarray:
        assert self.alive is not None
        return self.alive[_made(step)]

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


class Swept(Counted):
    """The same counts in floats and in the channel view, by kernels that take many steps a call.

    Held as the kernels leave them: each way, mantissas and exponents of all units and of all that layers read.
    """

    def __init__(self, graph: WiredGraph, only: np.ndarray | None = None) -> None:
        assert graph.view == "channel"
        self.steps, self.wiring, self.groups = graph.steps, graph.wiring, graph.wiring.groups
        self.arithmetic = Scaled
        self._ahead, self._behind = swept_forward(graph, only), swept_backward(graph, only)

    def _by_group(self, mantissa: np.ndarray, exponents: np.ndarray) -> list[Scaled]:
        found = [Scaled(mantissa[self.wiring.inputs], int(exponents[0]))]  # the kernels leave group 0 as it came
        for step, exponent in zip(self.wiring.steps, exponents[1:].tolist()):
            found.append(Scaled.held(mantissa[step.start : step.stop], exponent))
        return found

    def _by_layer(self, mantissa: np.ndarray, exponents: np.ndarray) -> dict[int, Scaled]:
        places, exponent = self.wiring.table.places, exponents.tolist()
        return {
            index: Scaled.held(mantissa[places[index]], exponent[index])
            for index, step in enumerate(self.steps)
            if isinstance(step, Block) and not step.source
        }

    @cached_property
    def forward(self) -> list[Scaled]:  # type: ignore[override]
        return self._by_group(*self._ahead[:2])

    @cached_property
    def backward(self) -> list[Scaled]:  # type: ignore[override]
        return self._by_group(*self._behind[:2])

    @cached_property
    def read(self) -> dict[int, Scaled]:  # type: ignore[override]
        return self._by_layer(*self._ahead[2:])

    @cached_property
    def pushed(self) -> dict[int, Scaled]:  # type: ignore[override]
        return self._by_layer(*self._behind[2:])


Sweep = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def swept_forward(graph: WiredGraph, only: np.ndarray | None = None) -> Sweep:
    """Counts of paths from the inputs: mantissas of all units, exponents of groups, and both of what layers read."""
    from topo.kernels.paths import count_forward

    units, exponents, passed, passed_exponents = _start(graph, graph.wiring.inputs)
    of_unit, alive, only = graph.wiring.groups.of_unit, _alive(graph), _NONE if only is None else only
    for first, last, words in graph.runs:
        count_forward(
            graph.table, graph.wiring.table.reads, words, first, last, of_unit,
            alive, only, units, exponents, passed, passed_exponents,
        )  # fmt: skip
    return units, exponents, passed, passed_exponents


def swept_backward(graph: WiredGraph, only: np.ndarray | None = None) -> Sweep:
    """The same of paths to the outputs, and of what layers give back to each of their inputs."""
    from topo.kernels.paths import count_backward

    units, exponents, passed, passed_exponents = _start(graph, graph.wiring.outputs)
    of_unit, alive, only = graph.wiring.groups.of_unit, _alive(graph), _NONE if only is None else only
    for first, last, words in reversed(graph.runs):
        count_backward(
            graph.table, graph.wiring.table.reads, words, first, last, of_unit, graph.wiring.inputs,
            alive, only, units, exponents, passed, passed_exponents,
        )  # fmt: skip
    return units, exponents, passed, passed_exponents


def _start(graph: WiredGraph, units: np.ndarray) -> Sweep:
    """One path at each of these units, none elsewhere."""
    from topo.kernels.paths import begin

    of_unit, reads, steps = graph.wiring.groups.of_unit, graph.wiring.table.reads, len(graph.steps)
    mantissa, exponent = np.empty(len(of_unit)), np.empty(steps + 1, np.int64)
    begin(units, of_unit, mantissa, exponent)
    return mantissa, exponent, np.empty(len(reads)), np.empty(steps, np.int64)


def _alive(graph: WiredGraph) -> np.ndarray:
    """What closes gates: nothing where there are none."""
    return live(graph).forward if _has_products(graph) else _NONE


def _has_products(graph: WiredGraph) -> bool:
    return any(isinstance(step, Join) and step.kind != "add" for step in graph.steps)


@shared
def effective_counts(graph: WiredGraph) -> Counted:
    """Counts of the paths from inputs to outputs that meet each unit's two sides, in floats: dead ends count 0.

    Forward counts of a stream that leads nowhere could be 2**1074 times those that arrive, and drown them in the scale
    that they share.
    """
    return _in_floats(graph, live(graph).effective)


@shared
def counts(graph: WiredGraph) -> Counted:
    """Path counts of every unit, forwards and backwards, in floats; see Scaled for the error bound."""
    return _in_floats(graph)


def _in_floats(graph: WiredGraph, only: np.ndarray | None = None) -> Counted:
    if graph.view == "channel":
        return Swept(graph, only)
    return Walk(graph, Scaled, only=only).go_forward().go_backward()


def unit_centrality(graph: WiredGraph) -> np.ndarray:
    """V(v) = F(v) B(v) / P, the share of all paths that meet each unit: float64 (units,), NaN where no path is left."""
    walk = effective_counts(graph)
    mantissa, exponent = walk.forward_total()
    share = np.full(graph.wiring.n_units, np.nan if mantissa == 0 else 0.0)
    if mantissa:
        for group, units_ in _group_units(graph):
            ahead, behind = walk.forward[group], walk.backward[group]
            if behind is not None:
                shift = int(np.clip(ahead.exponent + behind.exponent - exponent, -2000, 2000))
                share[units_] = np.ldexp(ahead.mantissa * behind.mantissa / mantissa, shift)
    return share


def _group_units(graph: WiredGraph):
    yield 0, graph.wiring.inputs
    for index, step in enumerate(graph.wiring.steps):
        yield index + 1, slice(step.start, step.stop)


def exact_paths(graph: WiredGraph, routes: str = "value", direction: str = "forward") -> int:
    """The number of paths from inputs to outputs, an exact Python integer.

    direction: "forward" sums at the outputs, "backward" at the inputs; they agree.
    """
    many = graph.masks.size > _LARGE
    walk = Walk(graph, limbs_on(graph.threads) if many else Limbs, routes)
    if direction == "forward":
        finished = _read_last(walk) if many else {}
        walk.start()
        for index, step in enumerate(walk.steps):
            walk.advance(index, step)
            walk.read.clear()  # what layers read is of no use here, and as large as all that units hold
            for group in finished.get(index, ()):
                walk.forward[group] = None
        return walk.forward_total()
    if direction == "backward":
        return walk.go_backward().backward_total()
    raise TopoError(f"direction is '{direction}'; it is forward or backward")


def _read_last(walk: Walk) -> dict[int, list[int]]:
    """Step -> the groups of units that no later step reads, so that their counts can go: of a language model whose
    counts have hundreds of digits, all of them at once would take half as much memory as its masks."""
    last: dict[int, int] = {}
    for index, step in enumerate(walk.steps):
        for units in step.use.operands if isinstance(step, Block) else step.operands:
            last.update((group, index) for group, _, _ in walk.groups.parts(units))
    for group, _, _ in walk.groups.parts(walk.wiring.outputs):
        last.pop(group, None)
    found: dict[int, list[int]] = {}
    for group, index in last.items():
        found.setdefault(index, []).append(group)
    return found


def log10(total: tuple[float, int]) -> float:
    """log10 of mantissa * 2**exponent; -inf for 0."""
    mantissa, exponent = total
    return math.log10(mantissa) + exponent * math.log10(2.0) if mantissa > 0 else -math.inf
