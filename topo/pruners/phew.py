"""PHEW: paths with higher edge weights, as random walks, many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from topo.errors import TopoError
from topo.kernels.walks import draw_columns, draw_taps, kernel_sums, running_shares
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores
from topo.wiring import Join, Layer, Wiring

_MOST_WALKS = 1 << 14
_FEWEST_NEW = 0.1  # below this share of new weights among those visited, walking on is a waste


@pruner(
    data="none", cost="walks: seconds for a million weights kept", modes=("eval",),
    shared_ranking=False, source="Patil & Dovrolis 2021, section 4",
)  # fmt: skip
def phew(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """Weights on random walks between inputs and outputs that prefer large weights, in both directions in turn.

    From unit i forwards to j with probability sum|kernel_ij| / sum_j' sum|kernel_ij'|, to each weight of the kernel in
    proportion to |w|, and backwards likewise; the inputs and the outputs take turns as starts. Where a unit is read by
    several layers, or made by a sum, each branch is as likely. Walks are complete, so every kept weight lies on a path
    from input to output. The last weights, fewer than a walk would add, and those that walks hardly find any more (at
    high density), are drawn singly between units that walks have crossed, in proportion to the forward probability.

    TopoError if the budget is smaller than one walk, or the network multiplies branches.
    """
    arrays = {name: (w.float() if w.itemsize < 4 else w).cpu().numpy() for name, w in net.dense.items()}
    weights = {name: net.held[name].mask(array) for name, array in arrays.items()}
    kept = _Collected(weights, net.keep)
    if net.keep:
        _collect(_Walker(net.wiring, weights, rng), kept, rng)
    return {name: torch.from_numpy(net.held[name].parameter(flags).copy()) for name, flags in kept.flags().items()}


class _Collected:
    """The weights of a network as one row of flags, layer after layer, and how many more may be set."""

    def __init__(self, weights: dict[str, np.ndarray], budget: int) -> None:
        self.shapes = {name: values.shape for name, values in weights.items()}
        sizes = [values.size for values in weights.values()]
        self.offset = dict(zip(weights, np.concatenate([[0], np.cumsum(sizes)]).tolist()))
        self.taken = np.zeros(sum(sizes), bool)
        self.left = budget

    def take(self, walks: np.ndarray) -> int:
        """Take the walks, a row of places each (-1: none), as far as the budget goes; how many of them."""
        rows, columns = np.nonzero(walks >= 0)
        places, first = np.unique(walks[rows, columns], return_index=True)
        new = ~self.taken[places]
        found = np.bincount(rows[first[new]], minlength=len(walks))  # new weights that each walk adds
        count = int(np.searchsorted(np.cumsum(found), self.left, "right"))
        self.taken[places[new & (rows[first] < count)]] = True
        self.left -= int(found[:count].sum())
        return count

    def flags(self) -> dict[str, np.ndarray]:
        return {
            name: self.taken[start : start + int(np.prod(self.shapes[name]))].reshape(self.shapes[name])
            for name, start in self.offset.items()
        }


def _collect(walker: _Walker, kept: _Collected, rng: np.random.Generator) -> None:
    """Whole walks while they fit the budget, then single steps of further walks, between units that are crossed."""
    crossed = np.zeros(walker.wiring.n_units + 2, bool)
    length, whole = None, True
    while kept.left:
        count = 64 if length is None else int(np.clip(kept.left // length, 64, _MOST_WALKS))
        before = kept.left
        walks, units = walker.walk(count, kept.offset)
        visited = int((walks >= 0).sum())
        if not visited:
            raise TopoError("no walk gets from an input to an output through a masked layer")
        length = max(visited // len(walks), 1)
        if whole:
            taken = kept.take(walks)
            crossed[units[:taken]] = True
            crossed[-2:] = False  # -1 and -2 are not units
            whole = taken == len(walks)
            walks = walks[taken:]
            if not crossed.any():
                raise TopoError(f"the budget of {kept.left} parameters is smaller than a path through the network")
        if not whole:
            kept.take(walker.between(walks, crossed, kept.offset).reshape(-1, 1))
        if before - kept.left < _FEWEST_NEW * visited:
            _fill(walker, kept, crossed, rng)


def _fill(walker: _Walker, kept: _Collected, crossed: np.ndarray, rng: np.random.Generator) -> None:
    """Draw what is left of the budget among all weights between crossed units, each with its forward probability.

    Weighted draws without replacement: the smallest of exponential times with these rates (Efraimidis & Spirakis 2006).
    """
    places, drawn = [], []
    for table in walker.tables.values():
        layer = table.layer
        if layer.name not in kept.offset:
            continue
        between = crossed[layer.start : layer.stop, None] & table.by_output(crossed[layer.reads])
        start = kept.offset[layer.name]
        free = np.flatnonzero(between.reshape(-1) & ~kept.taken[start : start + layer.size])
        with np.errstate(divide="ignore"):  # a weight of 0 comes last
            drawn.append(rng.exponential(size=len(free)) / table.rates(free))
        places.append(start + free)
    place, time = np.unique(np.concatenate(places), return_index=True)  # a parameter used twice counts once
    if len(place) < kept.left:
        raise TopoError(
            f"{kept.left - len(place)} parameters of the budget are left when every weight between the units that "
            "walks have crossed is kept; the others lie on no path"
        )
    times = np.concatenate(drawn)[time]
    kept.taken[place[np.argpartition(times, kept.left - 1)[: kept.left]]] = True
    kept.left = 0


@dataclass(eq=False)
class _Table:
    """One use of a layer, ready for draws: first a kernel by the sum of its |w|, then one of its weights.

    weights (out * in / groups, kernel_size). forwards (in, out / groups) and backwards (out, in / groups) hold the
    running shares of the kernels' sums at each input and each output. sums (groups, in / groups): the whole |w| at each
    input.
    """

    layer: Layer
    weights: np.ndarray
    forwards: np.ndarray
    backwards: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, layer: Layer, weights: np.ndarray) -> _Table:
        """TopoError for weights of another shape than the layer's and for weights that are not finite."""
        if weights.shape != layer.shape:
            raise TopoError(f"'{layer.name}' has shape {weights.shape} but the wiring's layer has {layer.shape}")
        values = np.ascontiguousarray(weights).reshape(layer.shape[0] * layer.shape[1], -1)
        kernels = np.empty(len(values))
        kernel_sums(values, kernels)
        if not np.isfinite(kernels.sum()):
            raise TopoError(f"pruner 'phew': '{layer.name}' holds weights that are not finite; walks need finite ones")
        split = kernels.reshape(layer.groups, -1, layer.shape[1])
        if (layer.reads < 0).any():
            split *= layer.reads.reshape(layer.groups, 1, -1) >= 0  # zero padding is not a unit
        from_inputs = np.ascontiguousarray(split.transpose(0, 2, 1)).reshape(len(layer.reads), -1)
        from_outputs = split.reshape(layer.shape[0], -1)
        forwards, backwards = np.empty_like(from_inputs), np.empty_like(from_outputs)
        running_shares(from_inputs, forwards)
        running_shares(from_outputs, backwards)
        return cls(layer, values, forwards, backwards, split.sum(axis=1))

    def step(self, rows: np.ndarray, rng: np.random.Generator, backwards: bool) -> tuple[np.ndarray, np.ndarray]:
        """Walks at these inputs (or outputs) -> the outputs (or inputs) they go to, and the weights they go along."""
        other, tap = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        draw_columns(self.backwards if backwards else self.forwards, rows, rng.random(len(rows)), other)
        per_group, inputs = self.layer.shape[0] // self.layer.groups, self.layer.shape[1]
        if backwards:
            output, within = rows, other
            there = rows // per_group * inputs + other
        else:
            group, within = np.divmod(rows, inputs)
            there = output = group * per_group + other
        kernel = output * inputs + within
        draw_taps(self.weights, kernel, rng.random(len(rows)), tap)
        return there, kernel * self.weights.shape[1] + tap

    def ends(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The units that these flat places join."""
        outputs, inputs = self.layer.shape[:2]
        output, within = np.divmod(places // self.weights.shape[1], inputs)
        read = output // (outputs // self.layer.groups) * inputs + within
        return self.layer.reads[read], self.layer.start + output

    def by_output(self, flags: np.ndarray) -> np.ndarray:
        """Flags of the inputs (in,) -> (out, in / groups * kernel_size) by the weight that reads them."""
        outputs, inputs = self.layer.shape[:2]
        spread = np.repeat(flags.reshape(self.layer.groups, inputs), self.weights.shape[1], axis=1)
        return np.repeat(spread, outputs // self.layer.groups, axis=0)

    def rates(self, places: np.ndarray) -> np.ndarray:
        """|w| over the sum of all |w| at the same input, of these flat places."""
        outputs, inputs = self.layer.shape[:2]
        output, within = np.divmod(places // self.weights.shape[1], inputs)
        total = self.sums[output // (outputs // self.layer.groups), within]
        return np.abs(self.weights.reshape(-1)[places]) / np.where(total > 0, total, 1.0)


class _Walker:
    """Random walks through a wiring, in step: each step moves every walk that stands before it."""

    def __init__(self, wiring: Wiring, weights: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        odd = next((step for step in wiring.steps if isinstance(step, Join) and step.kind != "add"), None)
        if odd is not None:
            raise TopoError("pruner 'phew' walks through layers and sums; this network also multiplies its branches")
        self.wiring, self.rng = wiring, rng
        self.tables = {
            index: _Table.of(step, weights[step.name] if step.name in weights else np.ones(step.shape))
            for index, step in enumerate(wiring.steps)
            if isinstance(step, Layer)
        }
        self.start = {False: 0, True: 0}  # whose turn it is, among inputs and among outputs
        self.maker = np.full(wiring.n_units + 2, -1)
        for index, step in enumerate(wiring.steps):
            self.maker[step.start : step.stop] = index
        self.reads = [step.operands for step in wiring.steps]
        self.readers = _readers(self.reads, wiring)
        self.entries = [_Entries(np.stack(read)) for read in self.reads]

    def walk(self, count: int, offset: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """`count` walks, forwards and backwards in turn: the weights they go along, and the units; -1 where none."""
        halves = [self._go(-(-count // 2), backwards, offset) for backwards in (False, True)]
        walks, units = (np.stack(pair, 1).reshape(-1, pair[0].shape[1]) for pair in zip(*halves))
        complete = walks[:, 0] >= -1
        return walks[complete], units[complete]

    def _go(self, count: int, backwards: bool, offset: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        steps = len(self.wiring.steps)
        starts = self.wiring.outputs if backwards else self.wiring.inputs
        starts = starts[starts >= 0]
        now = starts[(self.start[backwards] + np.arange(count)) % len(starts)].astype(np.int64)
        self.start[backwards] = (self.start[backwards] + count) % len(starts)
        walks, units = np.full((count, steps), -1), np.full((count, steps + 1), -1)
        units[:, steps] = now
        before = self.maker[now] if backwards else self._next(now)
        for index in reversed(range(steps)) if backwards else range(steps):
            here = np.flatnonzero(before == index)
            if not here.size:
                continue
            move = self._back if backwards else self._forth
            now[here], weight = move(index, now[here])
            if weight is not None and (name := self.tables[index].layer.name) in offset:
                walks[here, index] = offset[name] + weight
            units[here, index] = now[here]
            before[here] = self.maker[now[here]] if backwards else self._next(now[here])
        lost = before != (-1 if backwards else steps)  # in a unit that nothing reads
        walks[lost, 0] = -2
        return walks, units

    def between(self, walks: np.ndarray, crossed: np.ndarray, offset: dict[str, int]) -> np.ndarray:
        """The weights of these walks that lie between crossed units, walk after walk; -1 for the others."""
        found = np.full(walks.shape, -1)
        for index, table in self.tables.items():
            there = np.flatnonzero(walks[:, index] >= 0)
            if there.size:
                places = walks[there, index]
                inside = crossed[np.stack(table.ends(places - offset[table.layer.name]))].all(axis=0)
                found[there[inside], index] = places[inside]
        return found

    def _next(self, units: np.ndarray) -> np.ndarray:
        """One of the steps that read each unit; the number of steps for "leave the network", -2 for a dead end."""
        steps, first = self.readers
        number = first[units + 1] - first[units]
        chosen = first[units] + (self.rng.random(len(units)) * number).astype(np.int64)
        return np.where(number > 0, steps[np.minimum(chosen, len(steps) - 1)], -2)

    def _forth(self, index: int, units: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        step, place = self.wiring.steps[index], self.entries[index].of(units, self.rng)
        if isinstance(step, Join):
            return step.start + place, None
        there, weight = self.tables[index].step(place, self.rng, False)
        return step.start + there, weight

    def _back(self, index: int, units: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        step = self.wiring.steps[index]
        place = units - step.start
        if isinstance(step, Layer):
            there, weight = self.tables[index].step(place, self.rng, True)
            return step.reads[there].astype(np.int64), weight
        operands = np.stack([operand[place] for operand in step.operands])
        order = np.argsort(operands < 0, axis=0, kind="stable")  # those with a unit first
        number = (operands >= 0).sum(axis=0)
        row = order[(self.rng.random(len(units)) * number).astype(np.int64), np.arange(len(units))]
        return operands[row, np.arange(len(units))].astype(np.int64), None


class _Entries:
    """Where each unit stands in what a step reads; one of the places at random if it stands there several times."""

    def __init__(self, reads: np.ndarray) -> None:
        flat = reads.reshape(-1)
        self.order = np.argsort(flat, kind="stable")
        self.sorted = flat[self.order]
        self.width = reads.shape[1]

    def of(self, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, end = np.searchsorted(self.sorted, units, "left"), np.searchsorted(self.sorted, units, "right")
        return self.order[first + (rng.random(len(units)) * (end - first)).astype(np.int64)] % self.width


def _readers(reads: list[tuple[np.ndarray, ...]], wiring: Wiring) -> tuple[np.ndarray, np.ndarray]:
    """Unit -> the steps that read it, as (steps, first place of each unit); the outputs are read by step "leave"."""
    pairs = [(np.unique(np.concatenate(read)), index) for index, read in enumerate(reads)]
    pairs.append((np.unique(wiring.outputs), len(reads)))
    units = np.concatenate([found[found >= 0] for found, _ in pairs])
    steps = np.concatenate([np.full(int((found >= 0).sum()), index) for found, index in pairs])
    order = np.argsort(units, kind="stable")
    return steps[order], np.searchsorted(units[order], np.arange(wiring.n_units + 1))
