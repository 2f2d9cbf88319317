"""The design of mode "paths": the size of a dense core in each pool, on the network at large, from many starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

import numpy as np

from topo.errors import TopoError
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.problem import Problem
from topo.wiring import Join, Layer

# Rounds of exchanges after the greedy climb: ResNet-20 needs two or three, and gains a few hundredths of a decade.
_EXCHANGES = 6
# What the share of a FLOPs budget counts for against the share of the parameters, where cores grow.
_WEIGHTS = (0.0, 0.3, 1.0, 3.0, 10.0, 100.0)
# Streams start with cores of these parts of their channels: wide streams and thin middles, or the reverse, are optima
# of their own, .04 to .72 decades apart on ResNet-20. More streams than these have one part in common.
_PARTS, _STREAMS = (0.0, 0.25, 0.5, 1.0), 4
# First climbs go by a sixteenth of a pool; those that come within so many nats of the best, so many at most, and fewer
# in large networks, are gone again in fine steps.
_COARSE, _FINE, _NEAR, _FINISHERS = 16, 64, 4.0, 32


@dataclass(frozen=True, eq=False)
class Design:
    """core, active: units of each pool, int64. units: layer -> parameters.

    kernel_size: most parameters of a core kernel.
    """

    core: np.ndarray
    active: np.ndarray
    units: dict[str, int]
    kernel_size: int


def design(problem: Problem, pools: InterchangeableUnits, sizes: np.ndarray, fraction: float) -> Design:
    """Core sizes for the most paths with a fraction of the network's nodes alive.

    sizes: most active units of each pool. Where the budget cannot cover all units, inputs are given up until covering
    takes half of it; then all pools are cut to one size, the largest that fits, and where it does not fit between so
    few nodes, more are alive. Cores whose kernels are full cost much: with a tight budget thinner ones are tried.

    Raises TopoError where one unit of each layer and all outputs cannot be covered.
    """
    free = ~pools.terminal
    free[pools.of(problem.wiring.inputs)] = True
    free[_beside_whole(problem, pools)] = False
    large = _Large(problem, pools)
    full = _covered(problem, pools, large, sizes, free)
    best = None if full is None else large.best(full)
    if full is None or best is None:
        raise TopoError(f"{problem.told()} cannot cover one unit of each layer and all outputs")
    if fraction >= 1:
        return best[1]
    weights = _nodes(problem, pools)
    wanted = fraction * float(weights @ sizes)
    found = []
    for active in (_first(problem, pools, way, weights, wanted) for way in _ways(best[1].core, full, free)):
        trial = None if active is None else large.best(active)
        if trial is not None:
            found.append((max(float(weights @ trial[1].active) - 1.02 * wanted, 0.0), -trial[0], trial[1]))
    return min(found, key=lambda one: one[:2])[2] if found else best[1]


def _covered(
    problem: Problem, pools: InterchangeableUnits, large: _Large, sizes: np.ndarray, free: np.ndarray
) -> np.ndarray | None:
    """Active units of each pool, as many as the budget can cover; None if not even one of each."""
    if large.fits(sizes):
        return sizes
    inputs = np.zeros(len(sizes), bool)
    inputs[pools.of(problem.wiring.inputs)] = True
    for cut, share in ((inputs & free, 0.5), (free, 1.0)):

        def capped(most: int, cut: np.ndarray = cut) -> np.ndarray:
            return np.where(cut, np.minimum(sizes, most), sizes)

        low, high = 1, int(sizes[cut].max(initial=1))
        if not large.fits(capped(low), share):
            continue
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if large.fits(capped(middle), share) else (low, middle - 1)
        return capped(low)
    return None


def _beside_whole(problem: Problem, pools: InterchangeableUnits) -> np.ndarray:
    """Pools at either side of a layer that is kept dense."""
    units = [
        units
        for layer in problem.wiring.layers
        if layer.name in problem.whole
        for units in (layer.reads[layer.reads >= 0], np.arange(layer.start, layer.stop))
    ]
    return np.unique(pools.of(np.concatenate(units))) if units else np.zeros(0, np.int64)


def _ways(core: np.ndarray, full: np.ndarray, free: np.ndarray) -> list[list[np.ndarray]]:
    """Ways from one active unit in each pool to all: past the core, and in equal shares."""
    parts, least = np.linspace(0, 1, 1 + 2 * int(full.max(initial=1))), np.minimum(1, full)
    along = [np.rint(least + part * (core - least)) for part in parts]
    along += [np.rint(core + part * (full - core)) for part in parts[1:]]
    equal = [np.maximum(least, np.rint(part * full)) for part in parts]
    return [[np.where(free, active, full).astype(np.int64) for active in way] for way in (along, equal)]


def _first(
    problem: Problem, pools: InterchangeableUnits, way: list[np.ndarray], weights: np.ndarray, wanted: float
) -> np.ndarray | None:
    """The first stage of a way with as many nodes as wanted that has room for the parameters; None if none has."""
    for active in way:
        if weights @ active >= wanted - 0.5 and _room(problem, pools, active) >= problem.count:
            return active
    return None


def _nodes(problem: Problem, pools: InterchangeableUnits) -> np.ndarray:
    """(pools,): nodes, as `effective_nodes` counts them, of each tie of a pool."""
    wiring, nodes = problem.wiring, np.zeros(len(pools.sizes))
    read = [step.reads for k, step in enumerate(wiring.steps) if isinstance(step, Layer) and k not in wiring.shortcuts]
    for units in [*(np.unique(reads[reads >= 0]) for reads in read), wiring.outputs]:
        nodes += np.bincount(pools.of(units), minlength=len(nodes))
    return nodes / np.maximum(pools.sizes, 1)


def _room(problem: Problem, pools: InterchangeableUnits, active: np.ndarray) -> float:
    """How many parameters find a place between so many active units."""
    room, share = 0.0, active / np.maximum(pools.sizes, 1)
    for name in problem.names:
        layer = problem.layer(name)
        made = np.arange(layer.start, layer.stop)
        ins, outs = (float(share[pools.of(units[units >= 0])].sum()) for units in (layer.reads, made))
        room += ins * outs * layer.kernel_size / layer.groups
    return room


Limits = tuple[float, float, np.ndarray, np.ndarray]


class _Large:
    """The network at large under the limits of a problem: what fits, and which cores have most paths."""

    def __init__(self, problem: Problem, pools: InterchangeableUnits) -> None:
        self.problem, self.pools = problem, pools
        self.names, self.net, price = _network(problem, pools)
        budgets, self.total = problem.budgets, float(problem.count)
        most = [np.inf if budgets is None or name is None else float(budgets[name]) for name in self.names]
        macs = np.inf if problem.macs is None else float(problem.macs)
        self.limits: Limits = (self.total, macs, price, np.array(most))
        self.kernel_size = max(problem.layer(name).kernel_size for name in problem.names)

    def fits(self, active: np.ndarray, share: float = 1.0) -> bool:
        """Whether a share of the budgets covers these active units."""
        from topo.kernels.cores import log_paths

        total, macs, price, most = self.limits
        limits = (share * total, share * macs, price, most)
        core = np.minimum(1, active)
        return bool(log_paths(self._thin(1), limits, core, active, np.zeros(len(self.names))) > -np.inf)

    def _thin(self, most: int) -> tuple[np.ndarray, ...]:
        net = self.net
        return (*net[:8], np.where(net[0] == 3, net[8], np.minimum(net[8], most)), *net[9:])

    def best(self, active: np.ndarray) -> tuple[float, Design] | None:
        """(log paths, design) with these active units; None if covering them does not fit."""
        for thickest in range(self.kernel_size, 0, -1):
            found = _climbed(self._thin(thickest), self.limits, active, _starts(self.problem, self.pools, active))
            if found is not None:
                value, core, units = found
                spent: Counter[str] = Counter()
                for name, amount in zip(self.names, units):
                    if name is not None:
                        spent[name] = max(spent[name], int(np.floor(amount + 1e-9)))
                return value, Design(core, active, dict(spent), thickest)
        return None


def _climbed(
    net: tuple[np.ndarray, ...], limits: Limits, active: np.ndarray, starts: list[np.ndarray]
) -> tuple[float, np.ndarray, np.ndarray] | None:
    """(log paths, cores, units of each step) of the best climb from all starts; None if the smallest does not fit."""
    from topo.kernels.cores import best_cores, log_paths

    def climb(core: np.ndarray, part: int, weight: float, exchanges: int) -> tuple[float, np.ndarray, np.ndarray]:
        core, units = core.copy(), np.zeros(len(net[0]))
        step = np.maximum(1, active // part)
        return best_cores(net, limits, core, active, step, weight, exchanges, units), core, units

    weights = _WEIGHTS if np.isfinite(limits[1]) else (0.0,)
    if log_paths(net, limits, starts[0], active, np.zeros(len(net[0]))) == -np.inf:
        return None
    tried = [(climb(start, _COARSE, weight, 0)[0], start, weight) for start in starts for weight in weights]
    tried.sort(key=lambda one: -one[0])
    work = len(active) ** 2 * len(net[0]) * _FINE
    near = [one for one in tried if one[0] >= tried[0][0] - _NEAR][: int(np.clip(3e7 // work, 2, _FINISHERS))]
    found = max((climb(start, _FINE, weight, _EXCHANGES) for _, start, weight in near), key=lambda one: one[0])
    if (active > _FINE).any():  # the last units of wide pools
        found = max(found, climb(found[1], int(active.max()), 0.0, 1), key=lambda one: one[0])
    return found


def _starts(problem: Problem, pools: InterchangeableUnits, active: np.ndarray) -> list[np.ndarray]:
    """Cores to climb from: one unit in each pool, and streams and ends that are wider."""
    wiring = problem.wiring
    made = [np.arange(step.start, step.stop) for step in wiring.steps if isinstance(step, Join) and step.kind == "add"]
    streams = np.unique(np.concatenate([pools.of(units) for units in made])) if made else np.zeros(0, int)
    streams = streams[~pools.terminal[streams]]
    ends = np.unique(pools.of(np.concatenate([wiring.inputs, wiring.outputs])))
    alone = len(streams) > _STREAMS
    choices = [(part,) * len(streams) for part in _PARTS] if alone else list(product(_PARTS, repeat=len(streams)))
    found = []
    for parts, full in product(choices, (False, True)):
        core = np.minimum(1, active)
        core[streams] = np.maximum(core[streams], (np.array(parts) * active[streams]).astype(np.int64))
        if full:
            core[ends] = active[ends]
        found.append(core)
    return found


def _network(
    problem: Problem, pools: InterchangeableUnits
) -> tuple[list[str | None], tuple[np.ndarray, ...], np.ndarray]:
    """(layer of each step, the network at large as `topo.kernels.cores` reads it, multiply-accumulates of a unit)."""
    wiring = problem.wiring
    number: dict[tuple[int, int], int] = {}

    def nodes(units: np.ndarray) -> list[tuple[int, float]]:
        """(node, units of `units` for each of its ties) of the nodes that an array of units names."""
        found = []
        for tensor, where, _ in wiring.groups.parts(units):
            mine, amount = np.unique(pools.of(units[where]), return_counts=True)
            for pool, count in zip(mine.tolist(), amount.tolist()):
                node = number.setdefault((tensor, pool), len(number))
                found.append((node, count / len(pools.members[pool])))
        return found

    names: list[str | None] = []
    kind, row_need, kernel_size, groups = [], [], [], []
    ins, outs, in_sizes, out_sizes = [], [], [], []
    starts = [node for node, _ in nodes(wiring.inputs)]
    for index, step in enumerate(wiring.steps):
        made = nodes(np.arange(step.start, step.stop))
        if isinstance(step, Join):
            read = step.operands if step.kind == "add" else step.operands[:1] if step.kind == "gate" else ()
            target = {pool: node for (tensor, pool), node in number.items() if tensor == index + 1}
            source = {node: pool for (_, pool), node in number.items()}
            into = [pair for operand in read for pair in nodes(operand) if source.get(pair[0], -1) in target]
            made = [(target[source[node]], 1.0) for node, _ in into]
            kind.append(1)
            row_need.append(False)
            needs = [False] * len(made)
            names.append(None)
        elif step.name not in problem.names:
            starts += [node for node, _ in made]
            kind.append(1)
            into, made, needs = [], [], []
            row_need.append(False)
            names.append(None)
        else:
            into = nodes(step.reads)
            depthwise = step.groups > 1 and step.shape[1] == 1
            kind.append(3 if step.name in problem.whole else 2 if depthwise else 0)
            rows, columns = pools.needs[index]
            row_need.append(rows)
            pools_of = pools.of(np.arange(step.start, step.stop))
            pool_of = {node: pool for (_, pool), node in number.items()}
            needs = [bool(columns[pools_of == pool_of[node]].any()) for node, _ in made]
            names.append(step.name)
            if depthwise:
                into = [(into[0][0], made[0][1])]
        layer = step if isinstance(step, Layer) else None
        kernel_size.append(layer.kernel_size if layer else 1)
        groups.append(layer.groups if layer else 1)
        ins += into
        outs += [(node, need) for (node, _), need in zip(made, needs)]
        in_sizes.append(len(into))
        out_sizes.append(len(made))
    ends = [node for node, _ in nodes(wiring.outputs)]
    pool = np.array([pool for _, pool in number], np.int64)
    price = np.zeros(len(names))
    if problem.macs is not None:
        price[:] = [0.0 if name is None else float(problem.costs[name]) for name in names]
    net = (
        np.array(kind, np.int64),
        np.cumsum([0, *in_sizes]),
        np.array([node for node, _ in ins], np.int64),
        np.array([amount for _, amount in ins], np.float64),
        np.cumsum([0, *out_sizes]),
        np.array([node for node, _ in outs], np.int64),
        np.array([need for _, need in outs], bool),
        np.array(row_need, bool),
        np.array(kernel_size, np.float64),
        np.array(groups, np.float64),
        pool,
        np.array(starts, np.int64),
        np.array(ends, np.int64),
    )
    return names, net, price
