"""The design of mode "paths": the size of a dense core in each pool, on the network at large."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from topo.errors import TopoError
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.problem import Problem
from topo.wiring import Join, Layer

# Rounds of exchanges after the greedy climb: ResNet-20 needs two or three, and gains a few hundredths of a decade.
_EXCHANGES = 6


@dataclass(frozen=True, eq=False)
class Design:
    """core, active: units of each pool, int64. units: layer -> parameters.

    kernel_size: most parameters of a core kernel.
    """

    core: np.ndarray
    active: np.ndarray
    units: dict[str, int]
    kernel_size: int


def design(problem: Problem, pools: InterchangeableUnits, fraction: float) -> Design:
    """Core sizes for the most paths with a fraction of the network's nodes alive.

    Where the budget cannot cover all units, all pools are cut to one size, the largest that fits, and where it does
    not fit between so few nodes, more are alive. Cores whose kernels are full cost much: with a tight budget thinner
    ones are tried.
    """
    assert problem.total is not None
    sizes = pools.sizes
    free = ~pools.terminal
    full = sizes.copy()
    best = _best(problem, pools, full)
    if best is None:
        low, high = 1, int(sizes[free].max(initial=1))
        while low < high:
            middle = (low + high + 1) // 2
            if _best(problem, pools, np.where(free, np.minimum(sizes, middle), sizes)) is None:
                high = middle - 1
            else:
                low = middle
        full = np.where(free, np.minimum(sizes, low), sizes)
        best = _best(problem, pools, full)
    if best is None:
        raise TopoError(f"{problem.total} parameters cannot cover one unit of each layer, all inputs and all outputs")
    if fraction >= 1:
        return best[1]
    weights = _nodes(problem, pools)
    wanted = fraction * float(weights @ sizes)
    found = []
    for active in (_first(problem, pools, way, weights, wanted) for way in _ways(best[1].core, full, free)):
        trial = None if active is None else _best(problem, pools, active)
        if trial is not None:
            found.append((max(float(weights @ trial[1].active) - 1.02 * wanted, 0.0), -trial[0], trial[1]))
    return min(found, key=lambda one: one[:2])[2] if found else best[1]


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
    assert problem.total is not None
    for active in way:
        if weights @ active >= wanted - 0.5 and _room(problem, pools, active) >= problem.total:
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


def _best(problem: Problem, pools: InterchangeableUnits, active: np.ndarray) -> tuple[float, Design] | None:
    """(log paths, design) with these active units; None if covering them does not fit."""
    from topo.kernels.cores import best_cores

    names, net = _network(problem, pools)
    for most in range(max(problem.layer(name).kernel_size for name in problem.names), 0, -1):
        thin = (*net[:8], np.minimum(net[8], most), *net[9:])
        core, units = np.ones(len(active), np.int64), np.zeros(len(net[0]))
        value = best_cores(thin, core, active, float(problem.total), _EXCHANGES, units)  # type: ignore[arg-type]
        if value > -np.inf:
            spent: Counter[str] = Counter()
            for name, amount in zip(names, units):
                if name is not None:
                    spent[name] = max(spent[name], int(np.floor(amount + 1e-9)))
            return value, Design(core, active, dict(spent), most)
    return None


def _network(problem: Problem, pools: InterchangeableUnits) -> tuple[list[str | None], tuple[np.ndarray, ...]]:
    """(layer of each step, the network at large as `topo.kernels.cores` reads it)."""
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
            kind.append(2 if depthwise else 0)
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
    return names, (
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
