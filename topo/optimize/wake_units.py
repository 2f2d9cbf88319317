"""Waking dead units: where live ones are full, no parameter finds a place alone, but a way through dead ones does."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np

from topo.errors import TopoError
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.moves import Cells, Round
from topo.wiring import Join, Layer

# A woken unit is meant to get about so many parameters, in and out together.
_EACH = 16
# Units that may fail to be paid for after one was woken: where each layer has its budget, most fail.
_FAILURES = 50

Share = tuple[tuple[str, ...], int]  # layers, and how many units they miss
Kernel = tuple[str, int, int, int]  # layer, input, output, and which of several units in this kernel


def open_path(work: Round) -> None:
    """The fewest parameters that make an output reachable: a network without any path gets one."""
    ways = Ways(work)
    outputs = work.rng.permutation(work.problem.wiring.outputs)
    best = outputs[np.argmin(ways.ahead[outputs])]
    if not np.isfinite(ways.ahead[best]):
        raise TopoError("no path leads from an input to an output of this network, whatever is kept")
    _put(work, ways.to(int(best)))


def sprout(work: Round, missing: list[Share]) -> bool:
    """Wake dead units, with parameters that put them on a path; whether any was found.

    As many as would take up what is missing at 16 parameters each. Where a share of the budget misses less than the
    first one costs, it gives up its least valuable units for it.
    """
    owner = {name: k for k, (names, _) in enumerate(missing) for name in names}
    left = [units for _, units in missing]
    wanted = max(1, sum(units for units in left if units > 0) // _EACH)
    ways, tie = Ways(work), InterchangeableUnits(work.problem.wiring).tie
    woken: set[int] = set()
    failures = 0
    dead = np.flatnonzero(~(work.live.forward & work.live.backward)[:-1])
    for unit in work.rng.permutation(dead).tolist():
        if tie[unit] in woken or not np.isfinite(ways.ahead[unit] + ways.behind[unit]):
            continue
        kernels = ways.through(unit)
        cost = Counter(owner[name] for name, *_ in kernels)
        short = {k: count - left[k] for k, count in cost.items() if left[k] < count}
        if not kernels or (short and woken):
            failures += bool(woken)
            if failures > _FAILURES:
                break
            continue
        for k, count in short.items():
            work.take(missing[k][0], count)
            left[k] += count
        _put(work, kernels)
        for k, count in cost.items():
            left[k] -= count
        woken.add(int(tie[unit]))
        if len(woken) == wanted:
            break
    return bool(woken)


def _put(work: Round, kernels: list[Kernel]) -> None:
    for name, source, target, _ in kernels:
        work.add([Cells(name, np.array([source]), np.array([target]), np.zeros(1))])


class Ways:
    """Fewest new parameters that connect a unit: ahead (units + 2,) from the inputs, behind to the outputs.

    A shortest way through the steps: a layer adds one parameter (its least fan-in, where it opens an output), an
    addition the cheapest of its operands, a gate all of them, a score its cheapest pair. 0 where a path leads already.
    """

    def __init__(self, work: Round) -> None:
        self.work, self.wiring = work, work.problem.wiring
        self.maker = np.full(self.wiring.n_units + 2, -1, np.int64)
        for index, step in enumerate(self.wiring.steps):
            self.maker[step.start : step.stop] = index

    def _price(self, layer: Layer) -> int:
        """New parameters of an output that is opened; 0 for layers that are dense."""
        open_ = layer.name in self.work.words and layer.name not in self.work.problem.whole
        return self.work.problem.fan_in(layer.name) if open_ else 0

    @cached_property
    def ahead(self) -> np.ndarray:
        cost = np.where(self.work.live.forward, 0.0, np.inf)
        for step in self.wiring.steps:
            made = slice(step.start, step.stop)
            if isinstance(step, Layer):
                fewest = -(-max(self._price(step), 1) // step.kernel_size)  # inputs, each with all of its positions
                reads = np.sort(cost[step.reads].reshape(step.groups, -1), axis=1)[:, :fewest]
                new = reads.sum(axis=1).repeat(step.outputs // step.groups) + self._price(step)
            else:
                reads = np.stack([cost[operand] for operand in step.operands])
                new = reads.min(axis=0) if step.kind == "add" else reads.sum(axis=0)
                if step.kind == "score":
                    new = new.reshape(-1, step.width).min(axis=1)
            cost[made] = np.minimum(cost[made], new)
        cost[-1] = np.inf
        return cost

    @cached_property
    def behind(self) -> np.ndarray:
        cost = np.where(self.work.live.backward, 0.0, np.inf)
        for step in reversed(self.wiring.steps):
            made = cost[step.start : step.stop]
            if isinstance(step, Layer):
                best = (made + self._opening(step)).reshape(step.groups, -1).min(axis=1)
                np.minimum.at(cost, step.reads, best.repeat(step.shape[1]))
            else:
                for operand, needed in self._operands(step, made):
                    np.minimum.at(cost, operand, needed)
        cost[-2:] = np.inf
        return cost

    def _opening(self, layer: Layer) -> np.ndarray:
        """(out,): new parameters of one more input for each output."""
        price = self._price(layer)
        if price <= 1:
            return np.full(layer.outputs, float(price))
        return np.where(self.work.words[layer.name].any(axis=1), 1.0, float(price))

    def _operands(self, step: Join, made: np.ndarray):
        """(operand, cost of going on from it): behind a gate the other operands have to be reached too."""
        for operand in step.operands:
            cost = np.repeat(made, step.width)
            if step.kind != "add":
                cost = cost + sum(self.ahead[other] for other in step.operands if other is not operand)
            yield operand, cost

    # -- the kernels of a way

    def through(self, unit: int) -> list[Kernel]:
        """What puts a unit on a path; empty if constraints close the way."""
        onward = self.onward(unit)
        return [] if onward is None else list(dict.fromkeys([*self.to(unit), *onward]))

    def to(self, unit: int) -> list[Kernel]:
        """What makes a unit reachable."""
        found: list[Kernel] = []
        waiting = [unit]
        while waiting:
            unit = waiting.pop()
            if self.work.live.forward[unit]:
                continue
            step = self.wiring.steps[self.maker[unit]]
            place = unit - step.start
            if isinstance(step, Layer):
                kernels, sources = self._open(step, place)
                found += kernels
                waiting += step.reads[sources].tolist()
            elif step.kind == "add":
                waiting.append(min((int(o[place]) for o in step.operands), key=lambda u: self.ahead[u]))
            else:
                pairs = np.stack(step.operands)[:, place * step.width : (place + 1) * step.width]
                waiting += pairs[:, np.argmin(self.ahead[pairs].sum(axis=0))].tolist()
        return found

    def _open(self, layer: Layer, output: int, through: int | None = None) -> tuple[list[Kernel], np.ndarray]:
        """(units, the inputs that they read) that open an output of a layer; through: an input that is among them.

        Live inputs first, each with one unit while they last; where there are fewer than the least fan-in, inputs take
        more positions before dead ones are reached for.
        """
        price, width = self._price(layer), layer.shape[1]
        first = output // (layer.outputs // layer.groups) * width
        costs = self.ahead[layer.reads[first : first + width]].copy()
        if through is not None:
            costs[through - first] = -1.0
        order = self._best(costs, max(price, 1))
        fewest = -(-max(price, 1) // layer.kernel_size)
        sources = first + order[: max(fewest, int((costs[order] <= 0).sum()))]
        units = [(layer.name, int(sources[k % len(sources)]), output, k // len(sources)) for k in range(price)]
        return units, sources

    def _best(self, costs: np.ndarray, count: int) -> np.ndarray:
        """Places of the `many` smallest costs, ties at random."""
        return np.lexsort((self.work.rng.random(len(costs)), costs))[:count]

    def onward(self, unit: int) -> list[Kernel] | None:
        """What leads from a unit to an output."""
        found: list[Kernel] = []
        while not self.work.live.backward[unit]:
            for index in self._readers[unit]:
                onward = self._step_on(unit, self.wiring.steps[index])
                if onward is not None:
                    break
            else:
                return None
            kernels, unit = onward
            found += kernels
        return found

    @cached_property
    def _readers(self) -> list[list[int]]:
        """Unit -> the steps that read it, in order."""
        found: list[list[int]] = [[] for _ in range(self.wiring.n_units + 2)]
        for index, step in enumerate(self.wiring.steps):
            for unit in np.unique(np.concatenate(step.operands)).tolist():
                found[unit].append(index)
        return found

    def _step_on(self, unit: int, step: Layer | Join) -> tuple[list[Kernel], int] | None:
        """(kernels, the next unit) of a step that lies on a shortest way from `unit`; None if it does not."""
        made = self.behind[step.start : step.stop]
        if isinstance(step, Layer):
            places = np.flatnonzero(step.reads == unit)
            if len(places) == 0:
                return None
            source, width = int(places[0]), step.outputs // step.groups
            targets = source // step.shape[1] * width + np.arange(width)
            opening = self._opening(step)
            targets = targets[(made + opening)[targets] <= self.behind[unit]]
            price = self._price(step)
            if price and len(targets):
                targets = targets[self.work.free(step.name, np.full(len(targets), source), targets).any(axis=1)]
            if len(targets) == 0:
                return None
            target = int(targets[self._best(np.zeros(len(targets)), 1)[0]])
            if price == 0:
                return [], step.start + target
            kernels: list[Kernel] = [(step.name, source, target, 0)]
            if opening[target] > 1:
                kernels, sources = self._open(step, target, source)
                for other in step.reads[sources[sources != source]].tolist():
                    kernels += self.to(other)
            return kernels, step.start + target
        for operand, cost in self._operands(step, made):
            for place in np.flatnonzero((operand == unit) & (cost <= self.behind[unit])):
                others = [int(other[place]) for other in step.operands if other is not operand]
                kernels = [kernel for other in others for kernel in self.to(other)] if step.kind != "add" else []
                return kernels, step.start + int(place) // step.width
        return None
