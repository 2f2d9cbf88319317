"""Mode "paths": the most paths, with every active node alive, as released node and path counts reward it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from topo.errors import TopoError
from topo.graph import Block, WiredGraph, build_graph, dense_rows
from topo.graph.arithmetic import Scaled
from topo.graph.paths import Walk
from topo.masks import BitRows, MaskSet
from topo.metrics import metrics
from topo.optimize.cores import design
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.problem import Balanced, Problem
from topo.optimize.registry import Progress
from topo.optimize.repair import mend
from topo.wiring import Layer, Wiring

# Before there are path counts backwards, a column of the periphery counts for this much of one of the core.
_RIM = 0.01
# Layers with the lowest and the highest price that are tried for a transfer of units.
_TRIED = 6
_SMALLEST_SHARE = 1e-4


def solve_paths(
    problem: Problem,
    rng: np.random.Generator,
    *,
    active: float = 1.0,
    sweeps: int | None = None,
    progress: Progress | None = None,
) -> Balanced:
    """Many paths, by search, of `problem.total` parameters, with a fraction `active` of the nodes alive.

    More nodes are alive where the budget does not fit between so few, and fewer where it cannot cover so many; a note
    tells the first.

    1. design: a core size for each pool, on the network at large (`topo.optimize.cores`);
    2. sweeps: each layer in turn solved exactly (`solve_layer_rank1`), the others fixed, active nodes covered;
       P never falls;
    3. transfers of units from the layer where one is worth least to where it is worth most, while P grows.
    sweeps: at most so many in all; by default as many as take about a second.

    Raises TopoError for the constraints of mode "balanced", which the exact solution of a layer does not know.
    """
    if problem.n_m or problem.dense or problem.flops or problem.budgets is not None or problem.min_fan_in != 1:
        raise TopoError(
            "mode 'paths' takes no constraints (nm, block, min_fan_in, dense, flops) and no budgets of layers"
        )
    if not 0 <= active <= 1:
        raise TopoError(f"active is {active}; it is the fraction of the nodes to keep alive, 0 to 1")
    assert problem.total is not None
    pools = InterchangeableUnits(problem.wiring)
    plan = design(problem, pools, active)
    turns = pools.turns(rng)
    search = _Search(problem, pools, pools.first(np.maximum(plan.active, plan.core), turns))
    if sweeps is None:  # a sweep takes some 100 ns for each unit of the network and some for each parameter
        sweeps = int(np.clip(4e7 // (problem.total + 100 * problem.wiring.n_units), 20, 400))
    search.build(pools.first(plan.core, turns), plan.units)
    search.spend(problem.total)
    search.settle()
    search.transfer(sweeps, progress)
    masks, trace = mend(search.masks(rng), problem, None, rng)
    graph = build_graph(masks, problem.wiring)
    alive, all_nodes = (metrics[f"network:{name}"](graph).number for name in ("effective_nodes", "nodes"))
    notes: tuple[str, ...] = ()
    if alive > 1.05 * active * all_nodes + 1:
        notes = (f"{alive / all_nodes:.3g} of the nodes are alive, not {active:g}: the budget needs them",)
    return Balanced(masks, problem, (*((f"sweep {k}", value) for k, value in search.trace), *trace), notes)


@dataclass(frozen=True, eq=False)
class _Sketch(Block):
    """A layer as kernels with counts (sources, targets, counts), kernel positions left open."""

    kernels: tuple[np.ndarray, np.ndarray, np.ndarray] = (np.zeros(0, int),) * 3

    @property
    def edges(self) -> _Sketch:  # type: ignore[override]
        return self

    @property
    def units(self) -> int:
        return int(self.kernels[2].sum())

    @property
    def bound(self) -> int:
        return self.units

    def pull(self, x: np.ndarray) -> np.ndarray:
        sources, targets, counts = self.kernels
        return np.bincount(targets, counts * x[sources], self.shape[0])

    def push(self, b: np.ndarray) -> np.ndarray:
        sources, targets, counts = self.kernels
        return np.bincount(sources, counts * b[targets], len(self.reads))

    def value(self, f: np.ndarray, g: np.ndarray) -> float:
        sources, targets, counts = self.kernels
        return float((f[sources] * g[targets]) @ counts)


def _sketch(layer: Layer, kernels: tuple[np.ndarray, np.ndarray, np.ndarray]) -> _Sketch:
    return _Sketch(
        layer.name, BitRows(layer.shape, np.empty((layer.outputs, 0), np.uint64)), layer=layer, kernels=kernels
    )


State = dict[int, _Sketch]  # by step


class _Search:
    """The current masks, as sketches by step, and log P."""

    def __init__(self, problem: Problem, pools: InterchangeableUnits, active: np.ndarray) -> None:
        wiring: Wiring = problem.wiring
        self.problem, self.active, self.wiring = problem, active, wiring
        first = problem.names[0]
        self.graph: WiredGraph = build_graph(MaskSet({first: dense_rows(problem.layer(first).shape)}), wiring)
        self.alive = np.ones(wiring.n_units + 2, bool)
        self.layers: dict[int, Layer] = {}
        self.shared: dict[int, int] = {}  # step -> the first step with the same parameter
        seen: dict[str, int] = {}
        for index, step in enumerate(wiring.steps):
            if isinstance(step, Layer) and step.name in problem.names:
                self.layers[index] = step
                self.shared[index] = seen.setdefault(step.name, index)
        uses = list(self.shared.values())
        self.single = {index for index in self.layers if uses.count(index) == 1 and self.shared[index] == index}
        self.rows, self.columns, self.room, self.least = {}, {}, {}, {}
        for index, layer in self.layers.items():
            rows_needed, columns_needed = pools.needs[index]
            once = np.zeros(len(layer.reads), bool)
            once[np.unique(layer.reads, return_index=True)[1]] = True
            self.rows[index] = once & active[layer.reads] & rows_needed
            self.columns[index] = columns_needed & active[layer.start : layer.stop]
            ins = active[layer.reads].reshape(layer.groups, -1).sum(axis=1)
            outs = active[layer.start : layer.stop].reshape(layer.groups, -1).sum(axis=1)
            self.room[index] = int(ins @ outs) * layer.kernel_size
            self.least[index] = max(
                1,
                sum(
                    max(int(r.sum()), int(c.sum()))
                    for r, c in zip(
                        self.rows[index].reshape(layer.groups, -1), self.columns[index].reshape(layer.groups, -1)
                    )
                ),
            )
        self.state: State = {}
        self.log_paths = -math.inf
        self.prices: dict[int, float] = {}
        self.swept = 0
        self.trace: list[tuple[int, float]] = []

    # -- one layer, one sweep

    def _solve(
        self, index: int, f: np.ndarray, g: np.ndarray, units: int
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], float] | None:
        """(kernels, price) of the best layer, or None if `units` do not cover or do not fit."""
        from topo.kernels.rank_one import rank_one

        layer = self.layers[index]
        f = f * self.active[layer.reads]
        g = g * self.active[layer.start : layer.stop]
        rows, columns = self.rows[index] & (f > 0), self.columns[index] & (g > 0)
        sources, targets, counts, price = rank_one(f, g, rows, columns, layer.kernel_size, layer.groups, units)
        return ((sources, targets, counts), price) if price >= 0 else None

    def _steps(self, state: State) -> WiredGraph:
        steps = tuple(
            state[self.shared[index]] if index in self.layers else step for index, step in enumerate(self.graph.steps)
        )
        steps = tuple(
            replace(step, layer=self.layers[index]) if isinstance(step, _Sketch) and index not in self.single else step
            for index, step in enumerate(steps)
        )
        return replace(self.graph, steps=steps, memo={})

    def sweep(self, state: State, units: dict[int, int]) -> tuple[State, float, dict[int, float]]:
        """Every layer solved exactly, from the inputs on: (the new state, log P, log of a unit's worth by layer)."""
        self.swept += 1
        graph = self._steps(state)
        behind = Walk(graph, Scaled, alive=self.alive).go_backward()
        walk = Walk(graph, Scaled, alive=self.alive).start()
        found, worth = dict(state), {}
        for index, step in enumerate(graph.steps):
            if index in self.single:
                assert isinstance(step, _Sketch)
                f, g = walk.gather(self.layers[index].reads), behind.backward[index + 1]
                solved = self._solve(index, f.mantissa, g.mantissa, units[index])
                if solved is not None:
                    kernels, price = solved
                    worth[index] = (math.log(price) if price > 0 else -math.inf) + _log2(f.exponent + g.exponent)
                    new = _sketch(self.layers[index], kernels)
                    old = step.value(f.mantissa, g.mantissa)
                    if step.units != units[index] or new.value(f.mantissa, g.mantissa) > old * (1 + 1e-12):
                        found[index] = step = new
            walk.advance(index, step)
        mantissa, exponent = walk.forward_total()
        value = math.log(mantissa) + _log2(exponent) if mantissa else -math.inf
        return found, value, {index: price - value for index, price in worth.items()}

    @property
    def units(self) -> dict[int, int]:
        return {index: self.state[index].units for index in self.single}

    def _accept(self, state: State, log_paths: float, prices: dict[int, float]) -> None:
        self.state, self.log_paths, self.prices = state, log_paths, prices
        self.trace.append((self.swept, log_paths / math.log(10)))

    # -- the search

    def build(self, core: np.ndarray, units: dict[str, int]) -> None:
        """First masks: layer by layer with true counts forwards, and core before periphery backwards."""
        walk = Walk(self.graph, Scaled, alive=self.alive).start()
        state: State = {}
        for index, step in enumerate(self.graph.steps):
            if index in self.layers:
                layer = self.layers[index]
                if self.shared[index] == index:
                    amount = min(max(units[layer.name], self.least[index]), self.room[index])
                    g = np.where(core[layer.start : layer.stop], 1.0, _RIM)
                    solved = self._solve(index, walk.gather(layer.reads).mantissa, g, amount)
                    empty = (np.zeros(0, np.int64),) * 3
                    state[index] = _sketch(layer, solved[0] if solved else empty)
                step = replace(state[self.shared[index]], layer=layer)
            walk.advance(index, step)
        self.state = state
        self._accept(*self.sweep(state, self.units))

    def spend(self, total: int) -> None:
        """What the design left over goes where a unit is worth most."""
        shut: set[int] = set()
        while (left := total - sum(sketch.units for sketch in self.state.values())) > 0:
            units = self.units
            room = [index for index in self.prices if units[index] < self.room[index] and index not in shut]
            if not room:
                return  # the repair finds places that no path leads to yet
            best = max(room, key=lambda index: self.prices[index])
            units[best] += min(left, self.room[best] - units[best], max(self.layers[best].kernel_size, left // 2))
            state, value, prices = self.sweep(self.state, units)
            if state[best].units < units[best]:
                shut.add(best)
            else:
                self._accept(state, value, prices)

    def settle(self) -> None:
        """Sweeps until log P stands still."""
        for _ in range(10):
            state, value, prices = self.sweep(self.state, self.units)
            if value <= self.log_paths + 1e-12:
                return
            self._accept(state, value, prices)

    def transfer(self, limit: int, progress: Progress | None) -> None:
        """Units from cheap layers to dear ones, fewer at a time as that stops to help."""
        share, turn = 0.1, 0
        tabu: dict[tuple[int, int], int] = {}
        while share > _SMALLEST_SHARE and self.swept < limit:
            turn += 1
            if progress is not None:
                progress(self.swept, limit, "polish")
            order = sorted(self.prices, key=lambda index: self.prices[index])
            for low, high in ((low, high) for low in order[:_TRIED] for high in order[::-1][:_TRIED]):
                if self.prices[high] <= self.prices[low] or tabu.get((low, high), -1) >= turn:
                    continue
                units = self.units
                amount = max(1, int(share * units[low]))
                amount = min(amount, self.room[high] - units[high], units[low] - self.least[low])
                if amount <= 0:
                    continue
                units[low] -= amount
                units[high] += amount
                state, value, prices = self.sweep(*self.sweep(self.state, units)[:1], units)
                exact = state[low].units == units[low] and state[high].units == units[high]
                if exact and value > self.log_paths + 1e-9:
                    self._accept(state, value, prices)
                    break
                tabu[low, high] = turn + 10
                if self.swept >= limit:
                    return
            else:
                share /= 2
                tabu.clear()

    def masks(self, rng: np.random.Generator) -> MaskSet:
        """Sketches as masks, kernel positions drawn at random and used equally often."""
        from topo.kernels.balance import place

        found = {}
        for index, sketch in self.state.items():
            layer = self.layers[index]
            words = np.zeros((layer.outputs, -(-math.prod(layer.shape[1:]) // 64)), np.uint64)
            place(words, *sketch.kernels, layer.kernel_size, layer.shape[1], rng)
            found[layer.name] = BitRows(layer.shape, words)
        return MaskSet({name: found[name] for name in self.problem.names})


def _log2(exponent: int) -> float:
    return exponent * math.log(2.0)
