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
    """core, active: units of each pool, int64. units: layer -> parameters. taps: most parameters of a core kernel."""

    core: np.ndarray
    active: np.ndarray
    units: dict[str, int]
    taps: int


def design(problem: Problem, pools: InterchangeableUnits, fraction: float) -> Design:
    """Core sizes for the most paths with a fraction of the units of each pool alive.

    Where the budget cannot cover all units, all pools are cut to one size, the largest that fits. Cores whose kernels
    are full cost much: with a tight budget thinner ones are tried.
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
    active = np.where(free, np.ceil(best[1].core + fraction * (full - best[1].core)).astype(np.int64), full)
    found = None
    for _ in range(8):  # cores that fill their pool may need more room than the fraction gives
        trial = _best(problem, pools, active)
        if trial is None:
            break
        if found is None or trial[0] > found[0] + 1e-9:
            found = trial
        tight = (trial[1].core >= active) & (active < sizes)
        if not tight.any():
            break
        active = np.where(tight, np.minimum(sizes, active + np.maximum(1, active // 4)), active)
    assert found is not None
    return found[1]


def _best(problem: Problem, pools: InterchangeableUnits, active: np.ndarray) -> tuple[float, Design] | None:
    """(log paths, design) with these active units; None if covering them does not fit."""
    from topo.kernels.cores import best_cores

    names, net = _network(problem, pools)
    for most in range(max(problem.layer(name).taps for name in problem.names), 0, -1):
        thin = (*net[:8], np.minimum(net[8], most), *net[9:])
        core, units = np.ones(len(active), np.int64), np.zeros(len(net[0]))
        value = best_cores(thin, core, active, float(problem.total), _EXCHANGES, units)  # type: ignore[arg-type]
        if value > -np.inf:
            spent: Counter[str] = Counter()
            for name, many in zip(names, units):
                if name is not None:
                    spent[name] = max(spent[name], int(np.floor(many + 1e-9)))
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
            mine, many = np.unique(pools.of(units[where]), return_counts=True)
            for pool, count in zip(mine.tolist(), many.tolist()):
                node = number.setdefault((tensor, pool), len(number))
                found.append((node, count / len(pools.members[pool])))
        return found

    names: list[str | None] = []
    kind, row_need, taps, groups = [], [], [], []
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
        taps.append(layer.taps if layer else 1)
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
        np.array([many for _, many in ins], np.float64),
        np.cumsum([0, *out_sizes]),
        np.array([node for node, _ in outs], np.int64),
        np.array([need for _, need in outs], bool),
        np.array(row_need, bool),
        np.array(taps, np.float64),
        np.array(groups, np.float64),
        pool,
        np.array(starts, np.int64),
        np.array(ends, np.int64),
    )
