"""Mode "paths": the most paths, with every active node alive, as released node and path counts reward it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from topo.errors import TopoError
from topo.graph import Block, WiredGraph, build_graph, dense_rows, paths
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
# Transfers of units that are tried, by what they promise; parts of a layer that are moved, at first and at last.
_TRIED = 24
_LARGEST_PART, _SMALLEST_PART = 0.2, 0.002
# Random transfers of this part of a layer, so many at a time, lead out of an optimum: ResNet-20 gains .03 decades.
_KICK, _KICKS = 0.1, 3
# Most shifts of units to cheaper layers, until a FLOPs budget holds all parameters.
_SHIFTS = 200
# Times that random transfers may fail in a row.
_PATIENCE = 6
# Turns that a transfer waits which did not help: most that fail once fail again.
_WAIT = 12


def solve_paths(
    problem: Problem,
    rng: np.random.Generator,
    *,
    active: float = 1.0,
    inputs: float = 1.0,
    sweeps: int | None = None,
    progress: Progress | None = None,
) -> Balanced:
    """Many paths, by search, of `problem.count` parameters, with a fraction `active` of the nodes alive.

    More nodes are alive where the budget does not fit between so few, and fewer where it cannot cover so many, or where
    an N:M pattern lets no more inputs of a layer live; notes tell.

    1. design: a core size for each pool, on the network at large, climbed to from many starts (`topo.optimize.cores`);
    2. sweeps: each layer in turn solved exactly (`solve_layer_rank1`), the others fixed, active nodes covered;
       P never falls;
    3. transfers of units from the layer where one is worth least to where it is worth most, while P grows. All units of
       a layer cost the same FLOPs, so that a FLOPs budget changes only these.
    inputs: at most this share of the network's inputs lives. sweeps: at most so many in all; by default as many as take
    a few seconds, 1,800 at most.

    Raises TopoError for a least fan-in, which the exact solution of a layer does not know.
    """
    if problem.min_fan_in != 1:
        raise TopoError("mode 'paths' takes no min_fan_in: its peripheries are single weights")
    for name, share in (("active", active), ("inputs", inputs)):
        if not 0 <= share <= 1:
            raise TopoError(f"{name} is {share}; it is the fraction of the nodes to keep alive, 0 to 1")
    if problem.budgets is not None:
        problem.split()
    pools = InterchangeableUnits(problem.wiring)
    turns, sizes = allowed_turns(problem, pools, pools.turns(rng))
    mine = np.unique(pools.of(problem.wiring.inputs))
    sizes[mine] = np.minimum(sizes[mine], np.maximum(1, np.rint(inputs * pools.sizes[mine]))).astype(np.int64)
    plan = design(problem, pools, sizes, active)
    search = _Search(problem, pools, pools.first(np.maximum(plan.active, plan.core), turns))
    if sweeps is None:  # a sweep takes some 100 ns for each unit of the network and some for each parameter
        sweeps = int(np.clip(2e8 // (problem.count + 100 * problem.wiring.n_units), 40, 1800))
    search.build(pools.first(plan.core, turns), plan.units)
    search.spend()
    search.settle()
    search.afford()
    search.search(sweeps, rng, progress)
    search.afford()
    masks, trace, _ = mend(search.masks(rng), problem, rng)
    found = Balanced(masks, problem, (*((f"sweep {k}", value) for k, value in search.trace), *trace))
    return replace(found, notes=_notes(found, active))


def _notes(found: Balanced, active: float) -> tuple[str, ...]:
    """What became of the nodes that were asked for."""
    wiring, notes = found.problem.wiring, []
    alive, nodes = (metrics[f"network:{name}"](found.graph).number for name in ("effective_nodes", "nodes"))
    if alive > 1.05 * active * nodes + 1:
        notes.append(f"{alive / nodes:.3g} of the nodes are alive, not {active:g}: the budget needs them")
    read, inputs = int(paths.live(found.graph).effective[wiring.inputs].sum()), len(wiring.inputs)
    if active == 1 and read < inputs:
        notes.append(f"{read:,} of {inputs:,} inputs are read")
    return tuple(notes)


def allowed_turns(problem: Problem, pools: InterchangeableUnits, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(turns of ties, how many of each pool may be active): of M inputs that a pattern N:M holds together, N may.

    Which ones, the turns say: those that come later give way, and take the last turns of their pool.
    """
    kept = np.ones(len(turns), bool)
    for layer in problem.wiring.layers:
        pattern = problem.pattern(layer.name) if layer.name in problem.names else None
        if pattern is None:
            continue
        n, m = pattern
        for group in layer.reads.reshape(layer.groups, -1):
            for first in range(0, len(group), m):
                ties = pools.tie[group[first : first + m]]
                ties = ties[ties >= 0]
                ties = ties[kept[ties]]
                if len(ties) > n:
                    order = ties[np.argsort(turns[ties], kind="stable")]
                    if np.isin(order[n:], order[:n]).any():
                        raise TopoError(
                            f"'{layer.name}' reads a unit more than {n} times in {m} consecutive inputs; mode 'paths' "
                            f"takes no {n}:{m} there"
                        )
                    kept[order[n:]] = False
    sizes = np.bincount(pools.pool[kept], minlength=len(pools.sizes))
    found = np.zeros(len(turns), np.int64)
    for ties in pools.members:
        found[ties[np.lexsort((turns[ties], ~kept[ties]))]] = np.arange(len(ties))
    return found, sizes


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


def _everything(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels of a layer that keeps every weight."""
    targets = np.repeat(np.arange(layer.outputs), layer.shape[1])
    first = targets // (layer.outputs // layer.groups) * layer.shape[1]
    sources = first + np.tile(np.arange(layer.shape[1]), layer.outputs)
    return sources, targets, np.full(len(targets), layer.kernel_size)


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
        self.single = {
            index
            for index, layer in self.layers.items()
            if uses.count(index) == 1 and self.shared[index] == index and layer.name not in problem.whole
        }
        self.total = problem.count
        self.macs = math.inf if problem.macs is None else problem.macs
        self.costs = {index: problem.costs[layer.name] if problem.flops else 0 for index, layer in self.layers.items()}
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
        walk, budgets = Walk(self.graph, Scaled, alive=self.alive).start(), self.problem.budgets
        state: State = {}
        for index, step in enumerate(self.graph.steps):
            if index in self.layers:
                layer = self.layers[index]
                if self.shared[index] == index:
                    if layer.name in self.problem.whole:
                        state[index] = _sketch(layer, _everything(layer))
                    else:
                        amount = units[layer.name] if budgets is None else budgets[layer.name]
                        amount = min(max(amount, self.least[index]), self.room[index])
                        g = np.where(core[layer.start : layer.stop], 1.0, _RIM)
                        solved = self._solve(index, walk.gather(layer.reads).mantissa, g, amount)
                        empty = (np.zeros(0, np.int64),) * 3
                        state[index] = _sketch(layer, solved[0] if solved else empty)
                step = replace(state[self.shared[index]], layer=layer)
            walk.advance(index, step)
        self.state = state
        self._accept(*self.sweep(state, self.units))

    def left(self) -> tuple[int, float]:
        """(parameters, multiply-accumulates) that the budgets leave."""
        held = {index: sketch.units for index, sketch in self.state.items()}
        return self.total - sum(held.values()), self.macs - sum(self.costs[index] * n for index, n in held.items())

    def spend(self) -> bool:
        """What is left over goes where a unit is worth most of what it takes of the budgets; whether anything went."""
        if self.problem.budgets is not None:
            return False
        shut: set[int] = set()
        went = False
        while (left := self.left())[0] > 0:
            units = self.units
            room = [index for index in self.prices if units[index] < self.room[index] and index not in shut]
            room = [index for index in room if self.costs[index] <= left[1]]
            if not room:
                return went  # the repair finds places that no path leads to yet
            best = max(room, key=lambda index: self.prices[index] - math.log(self._share(index)))
            more = min(left[0], self.room[best] - units[best], max(self.layers[best].kernel_size, left[0] // 2))
            units[best] += min(more, int(left[1] // self.costs[best])) if self.costs[best] else more
            state, value, prices = self.sweep(self.state, units)
            if state[best].units < units[best]:
                shut.add(best)
            else:
                self._accept(state, value, prices)
                went = True
        return went

    def afford(self) -> None:
        """Parameters that a FLOPs budget has left over find a place, where dear units go to cheaper layers."""
        for _ in range(_SHIFTS if self.problem.budgets is None else 0):
            if self.left()[0] <= 0:
                return
            moves = [move for part in (0.02, 0.2, 1.0) for move in self._moves(part, least=-math.inf)]
            moves = [move for move in moves if move[4] > move[3]]
            moves.sort(key=lambda move: -move[0] / (move[4] - move[3]))
            if not any(self._try(*move[1:], least=-math.inf) for move in moves[:4]):
                return
            self.spend()

    def _share(self, index: int) -> float:
        """What a unit of a layer takes of the budgets."""
        return 1 / self.total + (self.costs[index] / self.macs if math.isfinite(self.macs) else 0.0)

    def settle(self) -> None:
        """Sweeps until log P stands still."""
        for _ in range(10):
            state, value, prices = self.sweep(self.state, self.units)
            if value <= self.log_paths + 1e-12:
                return
            self._accept(state, value, prices)

    def search(self, limit: int, rng: np.random.Generator, progress: Progress | None) -> None:
        """Transfers while they help, then again from masks that random transfers have changed, until `limit` sweeps.

        What ends below the best is given up.
        """
        if self.problem.budgets is not None:
            return
        self._transfer(limit, _LARGEST_PART, progress)
        failures = 0
        while self.swept < limit and failures < _PATIENCE:
            kept, best, prices, stages = self.state, self.log_paths, self.prices, len(self.trace)
            for _ in range(_KICKS):
                moves = self._moves(_KICK, least=-math.inf)
                if not moves:
                    return
                self._try(*moves[int(rng.integers(len(moves)))][1:], least=-math.inf)
            self._transfer(limit, _KICK, progress)
            del self.trace[stages:]
            if self.log_paths > best + 1e-9:
                self._accept(self.state, self.log_paths, self.prices)
                failures = 0
            else:
                self.state, self.log_paths, self.prices = kept, best, prices
                failures += 1

    def _transfer(self, limit: int, part: float, progress: Progress | None) -> None:
        """Units from cheap layers to dear ones, fewer at a time as that stops to help."""
        turn = 0
        waiting: dict[tuple[int, int], int] = {}  # transfers that did not help, and the turn from which they may again
        while part > _SMALLEST_PART and self.swept < limit:
            if progress is not None:
                progress(min(self.swept, limit), limit, "polish")
            turn += 1
            moves = [move for move in self._moves(part) if waiting.get(move[1:3], 0) <= turn]
            for _, low, high, less, more in moves[:_TRIED]:
                if self._try(low, high, less, more, least=self.log_paths + 1e-9):
                    break
                waiting[low, high] = turn + _WAIT
                if self.swept >= limit:
                    return
            else:
                waiting.clear()
                if not self.spend():
                    part /= 2

    def _try(self, low: int, high: int, less: int, more: int, *, least: float) -> bool:
        """Units from one layer to another, if more than `least` log paths are found with that."""
        units = self.units
        units[low] -= less
        units[high] += more
        state, value, prices = self.sweep(*self.sweep(self.state, units)[:1], units)
        exact = state[low].units == units[low] and state[high].units == units[high]
        if exact and value > least:
            self._accept(state, value, prices)
        return exact and value > least

    def _moves(self, part: float, *, least: float = 0.0) -> list[tuple[float, int, int, int, int]]:
        """(what it promises, from, to, units less, units more), the best first; what is left over goes along."""
        units, (left, left_macs) = self.units, self.left()
        worth = {index: math.exp(min(price, 700.0)) for index, price in self.prices.items()}
        found = []
        for low in worth:
            less = min(max(1, int(part * units[low])), units[low] - self.least[low])
            for high in worth if less > 0 else ():
                more = min(less + left, self.room[high] - units[high])
                if self.costs[high]:
                    more = min(more, int((left_macs + less * self.costs[low]) // self.costs[high]))
                gain = more * worth[high] - less * worth[low]
                if high != low and more > 0 and gain > least:
                    found.append((gain, low, high, less, more))
        return sorted(found, key=lambda move: -move[0])

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
