"""One round of repair: path counts of the masks at hand, and what may be done to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from topo.errors import NotFound
from topo.graph import Block, WiredGraph, columns_to_inputs, paths
from topo.masks import BitRows, MaskSet
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.problem import Problem
from topo.wiring import Layer

# Logs of path counts below this stand for none: units that are live, but only open a gate.
_NO_PATHS = -1e9


@dataclass(frozen=True, eq=False)
class Cells:
    """Kernels of one layer with the log of their value F_i B_j: input channels, output units."""

    name: str
    sources: np.ndarray
    targets: np.ndarray
    values: np.ndarray


class Round:
    """The words of the masks, which its methods change, and path counts as they were before.

    changed: whether anything was done. gentle: units that lose parameters keep one in and one out of each layer, as far
    as that goes.
    """

    def __init__(self, problem: Problem, graph: WiredGraph, rng: np.random.Generator, gentle: bool = False) -> None:
        self.gentle = gentle
        self.problem, self.graph, self.rng = problem, graph, rng
        self.words = {name: graph.masks.rows(name).words.copy() for name in graph.masks}
        self.live = paths.live(graph)
        self.walk = paths.counts(graph)
        self.step = {step.name: i for i, step in reversed(list(enumerate(graph.steps))) if isinstance(step, Block)}
        self.changed = False

    def masks(self) -> MaskSet:
        """The masks as they are now."""
        return MaskSet({name: BitRows(self.graph.masks.shapes[name], self.words[name]) for name in self.graph.masks})

    def kept(self, name: str) -> int:
        return int(np.bitwise_count(self.words[name]).sum(dtype=np.int64))

    # -- what is given up

    def drop_useless(self) -> bool:
        """Give up parameters on no path, and outputs that have less than their least fan-in; whether there were any."""
        for name, words in paths.effective_words(self.graph).items():
            if name in self.words and name not in self.problem.whole:
                least = self.problem.fan_in(name)
                if least > 1:
                    few = np.bitwise_count(words).sum(axis=1) < least
                    words = np.where(few[:, None], np.uint64(0), words)
                self.changed |= not np.array_equal(words, self.words[name])
                self.words[name] = words.copy()
        return self.changed

    # -- logs of path counts

    def uses(self, name: str) -> list[int]:
        """The steps that use a layer's parameters."""
        return [i for i, step in enumerate(self.graph.steps) if isinstance(step, Block) and step.name == name]

    def values(self, name: str, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """log F_i B_j of kernels of a layer, in the best of its uses."""
        layer = self.problem.layer(name)
        found = np.full(len(sources), -np.inf)
        for index in self.uses(name):
            ahead, behind = self.ends(name, index)
            rows, columns = self.problem.wiring.steps[index].part  # type: ignore[union-attr]
            mine = rows[targets] & columns[sources % layer.shape[1]]
            found = np.where(mine, np.maximum(found, ahead[sources] + behind[targets]), found)
        return found

    def ends(self, name: str, index: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(log F of the inputs, log B of the outputs) of a layer, by default in its first use; -inf where no path
        leads."""
        index = self.step[name] if index is None else index
        layer = self.problem.wiring.steps[index]
        assert isinstance(layer, Layer)
        made = slice(layer.start, layer.stop)
        ahead, behind = self.walk.read[index], self.walk.backward[index + 1]
        alive = self.live.forward[layer.reads], self.live.backward[made]
        found = []
        for counts, flags in zip((ahead, behind), alive):
            with np.errstate(divide="ignore"):
                logs = np.log(counts.mantissa) + counts.exponent * math.log(2.0)
            found.append(
                np.where(flags, np.maximum(logs, 2 * _NO_PATHS), -np.inf)
            )  # alive, though its count underflows
        return found[0], found[1]

    # -- exact budgets

    def fit(self, names: tuple[str, ...], missing: int) -> bool:
        """Add `missing` units to these layers, or take away -missing; False if there is no place for any."""
        names = tuple(name for name in names if name not in self.problem.whole)
        if missing == 0 or not names:
            return True
        if missing < 0:
            self.take(names, -missing)
            return True
        cells = [self._candidates(name, missing) for name in names]
        return self.add(_best(cells, missing, self._affordable())) > 0

    def _candidates(self, name: str, number: int) -> Cells:
        """The most valuable kernels of a layer that may hold one unit more, `many` at most in each use."""
        found = [self._candidates_of(name, index, number) for index in self.uses(name)]
        sources, targets, values = (np.concatenate(part) for part in zip(*found))
        if len(found) > 1:  # once each, at its best value
            order = np.lexsort((-values, sources, targets))
            sources, targets, values = sources[order], targets[order], values[order]
            new = np.append(True, (np.diff(sources) != 0) | (np.diff(targets) != 0))[: len(sources)]
            sources, targets, values = sources[new], targets[new], values[new]
        return Cells(name, sources, targets, values)

    def _candidates_of(self, name: str, index: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sources, targets, values) of a use of a layer."""
        from topo.kernels.rank_one import rank_one

        layer = self.problem.wiring.steps[index]
        assert isinstance(layer, Layer)
        ahead, behind = self.ends(name, index)
        behind = np.where(layer.part[0], behind, -np.inf)
        if self.problem.fan_in(name) > 1:
            behind = np.where(self.words[name].any(axis=1), behind, -np.inf)
        pattern = self.problem.pattern(name)
        blocked = self.kept(name) // layer.kernel_size if pattern is None else self.kept(name) * pattern[1]
        f, g = _relative(ahead), _relative(behind)
        rows = (f > 0).reshape(layer.groups, -1).sum(axis=1)
        columns = (g > 0).reshape(layer.groups, -1).sum(axis=1)
        most = min(int(rows @ columns), number + blocked)
        nobody = np.zeros(len(f), bool), np.zeros(len(g), bool)
        sources, targets, _, _ = rank_one(f, g, *nobody, 1, layer.groups, most)
        free = self.free(name, sources, targets).any(axis=1) if len(sources) else np.zeros(0, bool)
        sources, targets = sources[free], targets[free]
        return sources, targets, ahead[sources] + behind[targets]

    def _taps(self, name: str, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """bool (kernels, kernel_size): kept positions."""
        layer = self.problem.layer(name)
        inside = sources % layer.shape[1]
        bits = inside[:, None] * layer.kernel_size + np.arange(layer.kernel_size)
        words = self.words[name][targets[:, None], bits >> 6]
        return (words >> (bits & 63).astype(np.uint64) & np.uint64(1)).astype(bool)

    def free(self, name: str, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """bool (kernels, kernel_size): positions that may be added."""
        free = ~self._taps(name, sources, targets)
        pattern = self.problem.pattern(name)
        if pattern is not None:
            (n, m), width = pattern, self.problem.layer(name).shape[1]
            first = sources % width // m * m
            held = np.zeros(free.shape, np.int32)
            for offset in range(m):
                inside = first + offset < width
                held[inside] += self._taps(name, (first + offset)[inside], targets[inside])
            free &= held < n
        return free

    def _affordable(self) -> tuple[Mapping[str, int], float] | None:
        """(cost of a unit of each layer, operations left); None without a FLOPs budget."""
        if self.problem.macs is None:
            return None
        costs = self.problem.costs
        return costs, self.problem.macs - sum(costs[name] * self.kept(name) for name in self.words if name in costs)

    def add(self, chosen: list[Cells]) -> int:
        """One unit in each of these kernels, at a random free position; how many were placed."""
        placed = 0
        for cells in chosen:
            layer = self.problem.layer(cells.name)
            free = self.free(cells.name, cells.sources, cells.targets)
            tap = np.where(free, self.rng.random(free.shape), -1.0).argmax(axis=1)
            keep = free.any(axis=1)
            pattern = self.problem.pattern(cells.name)
            if pattern is not None:  # one unit a round in each group of M, so that no two break it together
                key = (cells.sources // pattern[1] * layer.kernel_size + tap) * layer.outputs + cells.targets
                first = np.zeros(len(key), bool)
                first[np.unique(key, return_index=True)[1]] = True
                keep &= first
            bits = cells.sources[keep] % layer.shape[1] * layer.kernel_size + tap[keep]
            flags = np.uint64(1) << (bits & 63).astype(np.uint64)
            np.bitwise_or.at(self.words[cells.name], (cells.targets[keep], bits >> 6), flags)
            placed += int(keep.sum())
        self.changed |= placed > 0
        return placed

    def take(self, names: tuple[str, ...], number: int) -> None:
        """Remove the units that carry least, no two of one output or input, none of dense layers or that these need."""
        names = tuple(name for name in names if name not in self.problem.whole)
        required = self._required()
        values, owners, places = [], [], []
        for k, name in enumerate(names):
            layer = self.problem.layer(name)
            bits = np.unpackbits(
                self.words[name].view(np.uint8), axis=1, count=layer.size // layer.outputs, bitorder="little"
            )
            targets, columns = np.nonzero(bits)
            sources = columns // layer.kernel_size + targets // (layer.outputs // layer.groups) * layer.shape[1]
            fan_in, fan_out = (
                np.bincount(targets, minlength=layer.outputs),
                np.bincount(sources, minlength=len(layer.reads)),
            )
            made = np.arange(layer.start, layer.stop)
            free = fan_in[targets] > self.problem.fan_in(name)
            free |= (self.problem.fan_in(name) == 1) & ~required[made][targets]
            free &= (fan_out[sources] > 1) | ~required[layer.reads][sources]
            worth = self.values(name, sources, targets) + 1e-6 * self.rng.random(len(sources))
            free &= (worth > _NO_PATHS) | (fan_in[targets] > 1)  # what only opens a gate carries no path, and is needed
            order = np.argsort(worth, kind="stable")
            order = order[free[order]]
            if self.problem.fan_in(name) > 1 or required.any():
                order = order[np.sort(np.unique(targets[order], return_index=True)[1])]
                order = order[np.sort(np.unique(sources[order], return_index=True)[1])]
            if self.gentle:
                order = _sparing(order, targets, sources, fan_in, fan_out, number)
            order = order[:number]
            values.append(worth[order])
            owners.append(np.full(len(order), k))
            places.append(np.stack([targets[order], columns[order]]))
        if not any(len(worth) for worth in values):
            raise NotFound(
                f"no masks of {self.problem.told()} were found: constraints hold more; other masks may exist"
            )
        value, owner, place = np.concatenate(values), np.concatenate(owners), np.concatenate(places, axis=1)
        worst = np.argsort(value, kind="stable")[:number]
        self.changed = True
        for k in np.unique(owner[worst]):
            targets, columns = place[:, worst[owner[worst] == k]]
            flags = np.uint64(1) << (columns & 63).astype(np.uint64)
            np.bitwise_xor.at(self.words[names[k]], (targets, columns >> 6), flags)

    # -- what must live

    def _required(self) -> np.ndarray:
        """bool (units + 2,): units that must be effective, those at the ends of layers kept dense."""
        required = np.zeros(self.problem.wiring.n_units + 2, bool)
        if self.problem.whole:
            pools = InterchangeableUnits(self.problem.wiring)
            ties = np.zeros(len(pools.pool) + 1, bool)
            for name in self.problem.whole:
                layer = self.problem.layer(name)
                for units in (layer.reads, np.arange(layer.start, layer.stop)):
                    ties[pools.tie[units[units >= 0]]] = True
            required = ties[pools.tie] & (pools.tie >= 0)
        return required

    def cover(self) -> None:
        """A unit for every required row and column that has none, at its best partner."""
        required = self._required()
        if not required.any():
            return
        pools = InterchangeableUnits(self.problem.wiring)
        for name in self.words:
            if name in self.problem.whole or name not in self.step:
                continue
            layer = self.problem.layer(name)
            rows_needed, columns_needed = pools.needs[self.step[name]]
            ahead, behind = self.ends(name)
            used = self._used_inputs(name, layer)
            rows = np.flatnonzero(rows_needed & required[layer.reads] & ~used & np.isfinite(ahead))
            empty = ~self.words[name].any(axis=1)
            columns = np.flatnonzero(columns_needed & required[layer.start : layer.stop] & empty & np.isfinite(behind))
            per_row, per_column = layer.outputs // layer.groups, layer.shape[1]
            cells = []
            for i in rows:
                group = slice(i // per_column * per_row, (i // per_column + 1) * per_row)
                cells.append((i, group.start + int(np.argmax(behind[group]))))
            for j in columns:
                group = slice(j // per_row * per_column, (j // per_row + 1) * per_column)
                best = np.argsort(-ahead[group], kind="stable")[: int(np.isfinite(ahead[group]).sum())]
                least = self.problem.fan_in(name)
                cells += [(group.start + int(best[k % len(best)]), j) for k in range(least if len(best) else 0)]
            if cells:
                sources, targets = np.array(cells).T
                self.add([Cells(name, sources, targets, np.zeros(len(cells)))])

    def _used_inputs(self, name: str, layer: Layer) -> np.ndarray:
        words = self.words[name].reshape(layer.groups, -1, self.words[name].shape[1])
        return columns_to_inputs(np.bitwise_or.reduce(words, axis=1), layer.shape[1], layer.kernel_size)


def _sparing(
    order: np.ndarray, targets: np.ndarray, sources: np.ndarray, fan_in: np.ndarray, fan_out: np.ndarray, number: int
) -> np.ndarray:
    """Of entries in order those that leave each target and source one, `number` at most; all if there is none."""
    ins, outs = fan_in.tolist(), fan_out.tolist()
    found = []
    for entry, target, source in zip(order.tolist(), targets[order].tolist(), sources[order].tolist()):
        if ins[target] > 1 and outs[source] > 1:
            ins[target] -= 1
            outs[source] -= 1
            found.append(entry)
            if len(found) == number:
                break
    return np.array(found, np.int64) if found else order


def _relative(logs: np.ndarray) -> np.ndarray:
    """exp of the logs, the largest 1; what is not -inf stays positive."""
    finite = np.isfinite(logs)
    if not finite.any():
        return np.zeros(len(logs))
    return np.where(finite, np.exp(np.maximum(logs - logs[finite].max(), -300.0)), 0.0)


def _best(cells: list[Cells], number: int, budget: tuple[Mapping[str, int], float] | None) -> list[Cells]:
    """The `many` most valuable kernels of all layers; under a FLOPs budget those that it still pays."""
    values = np.concatenate([c.values for c in cells])
    owners = np.repeat(np.arange(len(cells)), [len(c.values) for c in cells])
    order = np.argsort(-values, kind="stable")
    if budget is not None and len(order):
        costs, left = budget
        price = np.array([costs[c.name] for c in cells], float)[owners[order]]
        beyond = price - price.min()  # the cheapest layer must still be able to take the rest
        order = order[np.cumsum(beyond) * (beyond > 0) <= left - number * price.min()]
    chosen = order[:number]
    starts = np.cumsum([0, *(len(c.values) for c in cells)])
    found = []
    for k, c in enumerate(cells):
        mine = chosen[owners[chosen] == k] - starts[k]
        if len(mine):
            found.append(Cells(c.name, c.sources[mine], c.targets[mine], c.values[mine]))
    return found
