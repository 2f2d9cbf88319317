"""Mode "balanced": as few nodes as a degree floor allows, joined as regularly as can be, at random."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from topo.errors import NotFound
from topo.masks import BitRows, MaskSet
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.layers import solve_layer_npb
from topo.optimize.problem import Balanced, Problem
from topo.optimize.registry import Progress
from topo.optimize.repair import mend
from topo.wiring import Layer

# The defaults of method balance, chosen by the study (docs/does_topology_predict.md).
DEGREE_FLOOR, RULE = 16.0, "igq"
# What the degree floor is multiplied with in each try.
_FLOORS = (1.0, 2.0, 0.5)


def solve_balanced(
    problem: Problem,
    rng: np.random.Generator,
    *,
    degree_floor: float | None = DEGREE_FLOOR,
    rule: str = RULE,
    progress: Progress | None = None,
) -> Balanced:
    """Near-biregular masks: U close to its bound sum_e log n_e, whatever the seed.

    1. budgets n_e of the layers by `rule`, with the exact total;
    2. of each pool so many ties are active that every active node has `degree_floor` parameters of a layer on
       average, in and out (inputs and outputs of the network: as many as can be);
    3. a random deal of each layer: rows within one unit, columns within one unit, kernels as even as possible;
    4. repair.
    Where that ends without masks, again with other random numbers on fewer nodes, and on more.
    """
    budgets = problem.split(rule)
    chosen: tuple[str, ...] = ()
    if degree_floor is None:
        degree_floor = automatic_floor(problem, budgets)
        chosen = (f"degree floor {degree_floor:.3g}",)
    pools = InterchangeableUnits(problem.wiring)
    for turn, factor in enumerate(_FLOORS):
        active = active_ties(problem, pools, budgets, max(1.0, factor * degree_floor))
        flags = pools.first(active, pools.turns(rng))
        masks = {}
        for k, name in enumerate(problem.names):
            if progress is not None:
                progress(k, len(problem.names), name)
            masks[name] = _deal(problem, name, budgets[name], flags, rng)
        try:
            mended, trace, moved = mend(MaskSet(masks), problem, rng, split=budgets)
        except NotFound:
            if turn + 1 == len(_FLOORS):
                raise
            continue
        notes = (f"found at a degree floor of {factor * degree_floor:g}, none at {degree_floor:g}",) if turn else ()
        return Balanced(mended, problem, tuple(trace), (*chosen, *notes, *moved))
    raise AssertionError


# Share of ReLU units that may be dead whatever the data are, and mean paths of a pair of an input and an output.
_DEAD, _PATHS_OF_A_PAIR = 0.03, 4.0


def automatic_floor(problem: Problem, budgets: Mapping[str, int]) -> float:
    """d* = max(log2(1 / eps), (lambda A_in A_out / n)^(1 / (L - 1))), at least 1.

    eps = .03: with d weights of either sign a ReLU unit is dead for all data in 2^-d of cases. lambda = 4: an input and
    an output of a chain of L layers of n weights with fan-in d are joined by n d^(L-1) / (A_in A_out) paths on average,
    and e^-lambda of the pairs by none. n: geometric mean of the layers' budgets; A_in at most the budget of the layers
    that read the inputs; L: layers on the longest way.
    """
    wiring = problem.wiring
    ahead = np.zeros(wiring.n_units + 2, np.int64)
    for step in wiring.steps:
        deep = max((int(ahead[units[units >= 0]].max(initial=0)) for units in step.operands), default=0)
        ahead[step.start : step.stop] = deep + (isinstance(step, Layer) and step.name in budgets)
    depth = int(ahead[wiring.outputs].max(initial=1))
    each = math.exp(sum(math.log(count) for count in budgets.values()) / len(budgets))
    first = sum(budgets[layer.name] for layer in wiring.layers if np.isin(layer.reads, wiring.inputs).any())
    pairs = min(len(wiring.inputs), first or len(wiring.inputs)) * len(wiring.outputs)
    joined = (_PATHS_OF_A_PAIR * pairs / each) ** (1 / (depth - 1)) if depth > 1 else 1.0
    return max(1.0, math.log2(1 / _DEAD), joined)


def active_ties(
    problem: Problem, pools: InterchangeableUnits, budgets: Mapping[str, int], degree_floor: float
) -> np.ndarray:
    """int64 (pools,): how many ties of each pool are active."""
    sizes = pools.sizes
    active = sizes.astype(np.float64)
    steps = [
        (index, step)
        for index, step in enumerate(problem.wiring.steps)
        if isinstance(step, Layer) and step.name in budgets
    ]
    sides: list[tuple[Layer, np.ndarray, np.ndarray]] = []  # layer, places of its inputs and outputs by pool
    for index, layer in steps:
        rows_needed, columns_needed = pools.needs[index]
        made = np.arange(layer.start, layer.stop)
        sides.append((layer, pools.places(layer.reads), pools.places(made)))
        for needed, units in ((rows_needed, layer.reads), (columns_needed.any(), made)):
            if needed:
                places = pools.places(units) * sizes
                for floor, mine in ((degree_floor, ~pools.terminal), (1, pools.terminal)):
                    share = (budgets[layer.name] // max(floor, 1)) / places.sum()
                    active = np.where(mine & (places > 0), np.minimum(active, share * sizes), active)
    active = np.maximum(np.floor(active + 1e-9), 1).astype(np.int64)
    for layer, ins, outs in sides:  # a dense layer's ends are all active
        if layer.name in problem.whole:
            active = np.where((ins > 0) | (outs > 0), sizes, active)
    while True:
        before = active.copy()
        for layer, ins, outs in sides:
            _make_room(active, sizes, ins, outs, budgets[layer.name], _density(problem, layer))
        if np.array_equal(before, active):
            return active


def _density(problem: Problem, layer: Layer) -> float:
    """Units per (active input, active output) that surely fit."""
    pattern = problem.pattern(layer.name)
    share = 1.0
    if pattern is not None:
        n, m = pattern
        inputs = layer.shape[1]
        share = (inputs // m * n + min(inputs % m, n)) / inputs
    return share * layer.kernel_size / layer.groups


def _make_room(
    active: np.ndarray, sizes: np.ndarray, ins: np.ndarray, outs: np.ndarray, budget: int, density: float
) -> None:
    """Activate ties, on the emptier side first, until the budget fits between the active ones."""
    touched = np.flatnonzero((ins > 0) | (outs > 0))
    while (ins @ active) * (outs @ active) * density < budget:
        free = touched[active[touched] < sizes[touched]]
        if len(free) == 0:
            return
        pool = free[np.argmin(active[free] / sizes[free])]
        active[pool] += 1


def _deal(problem: Problem, name: str, budget: int, flags: np.ndarray, rng: np.random.Generator) -> BitRows:
    """A random near-biregular layer between its active inputs and outputs."""
    layer = problem.layer(name)
    if name in problem.whole:
        usable, open_ = np.ones(len(layer.reads), bool), np.ones(layer.outputs, bool)
    else:
        usable, open_ = flags[layer.reads], flags[layer.start : layer.stop]
    rows = solve_layer_npb(
        np.ones(len(usable)),
        layer.outputs,
        layer.kernel_size,
        budget,
        alpha=0.0,
        beta=0.0,
        groups=layer.groups,
        n_m=problem.pattern(name),
        min_fan_in=problem.fan_in(name),
        usable=usable,
        open_=open_,
        rng=rng,
    )
    return deal_rows(layer, rows.units, rows.open_, problem.pattern(name), rng)


def deal_rows(
    layer: Layer, units: np.ndarray, open_: np.ndarray, pattern: tuple[int, int] | None, rng: np.random.Generator
) -> BitRows:
    """Bit rows of a layer whose input i keeps units[i] weights, dealt evenly over the open outputs, at random."""
    from topo.kernels.balance import deal, deal_n_m

    words = np.zeros((layer.outputs, -(-math.prod(layer.shape[1:]) // 64)), np.uint64)
    if pattern is None:
        deal(words, units, open_, layer.kernel_size, layer.groups, rng)
    else:
        deal_n_m(words, units, open_, layer.kernel_size, layer.groups, pattern[1], rng)
    return BitRows(layer.shape, words)
