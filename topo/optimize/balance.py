"""Method balance: the global problem, solved for even paths (the default) or for many."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.optimize.most_paths import solve_paths
from topo.optimize.options import near, requested
from topo.optimize.problem import Balanced
from topo.optimize.registry import Progress, method
from topo.optimize.regular import DEGREE_FLOOR, RULE, solve_balanced
from topo.wiring import Wiring

MODES = ("balanced", "paths")


@method(source="node-path balance law, P prod(effective nodes) <= prod(n_e); see topo.optimize")
def balance(
    wiring: Wiring,
    *,
    total: int | None = None,
    rng: int | np.random.Generator = 0,
    progress: Progress | None = None,
    mode: str = "balanced",
    degree_floor: str | float = DEGREE_FLOOR,
    active: float = 1.0,
    inputs: float = 1.0,
    sweeps: int | None = None,
    budgets: str | Mapping[str, int] = RULE,
    nm: str | None = None,
    block: str | None = None,
    min_fan_in: int = 1,
    dense: str = "",
    flops: str | float | None = None,
) -> Balanced:
    """Masks with even paths on as many nodes as a degree floor allows; or with many paths (mode=paths).

    mode "balanced": budgets by a quota or by water filling, as many active units in each layer as leave every one
    `degree_floor` weights in and out on average, near-biregular random masks between them. U, the entropy of the
    parameters on a random path, comes within a fraction of a percent of its bound sum_e log n_e. mode "paths": the most
    paths found with a fraction `active` of the nodes alive (more where the budget does not fit between so few, fewer
    where it cannot cover so many): a dense core, and a periphery of single weights. There, inputs is
    the largest share of the network's inputs to read, sweeps how long to search (a few seconds by default).
    budgets: "water" or a quota, or a number for each layer; mode "paths" shares the total out itself, except for
    numbers. nm, block, dense, flops, and in mode "balanced" min_fan_in: constraints, see `topo.optimize.Problem`.
    Such budgets put more weights on large feature maps than ERK's do: on ResNet-20 1.3 to 1.6 times the FLOPs of `npb`
    at equal parameters (water-filled ones 1.6), on ResNet-18 1.4 to 3.1 (1.8 to 3.4); flops is a number, a share, or
    the name of a rule (`flops=npb`) whose FLOPs are the limit.

    What the numbers mean. Node and path counts, the two goals of Node-Path Balancing, can both be driven to their
    limits without helping accuracy: mode "paths" beats every published method that we counted in both, and on the
    digits trained 3 (at 97 and 98 % sparsity) to 53 (at 99.5 %) points of accuracy below mode "balanced" (water, 8).
    Paths and effective nodes trade one for one at given layer sizes, so that no weighing of the two is special. How
    evenly the parameters share the paths (U) is not a law of accuracy either. What won in practice is weights gathered
    on fewer units of regular fan-in: the degree floor. At 1, all nodes live; large, a dense core is left. IGQ budgets
    and a floor of 16 are the default since they were the best of six by the validation parts of two data sets, and were
    ahead of random masks, SynFlow and NPB on a third that was not used to choose; on a fourth they were behind SynFlow
    (docs/does_topology_predict.md). At 90 % methods hardly differ. Figures: benchmarks/README.md.
    """
    if mode not in MODES:
        raise TopoError(f"mode is '{mode}'; it is one of {', '.join(MODES)}")
    floor = _degree_floor(degree_floor)
    draws = as_rng(rng)

    def attempt(total: int | None) -> Balanced:
        problem, restore = requested(
            wiring, total, budgets, nm=nm, block=block, min_fan_in=min_fan_in, dense=dense, flops=flops,
            terms={"balance": 1.0} if mode == "balanced" else {"paths": 1.0},
        )  # fmt: skip
        if mode == "paths":
            return restore(solve_paths(problem, draws, active=active, inputs=inputs, sweeps=sweeps, progress=progress))
        rule = budgets if isinstance(budgets, str) else RULE
        return restore(solve_balanced(problem, draws, degree_floor=floor, rule=rule, progress=progress))

    return near(attempt, total) if isinstance(budgets, str) else attempt(total)


def _degree_floor(given: str | float) -> float | None:
    """A degree floor as a number, at least 1; None for "auto"."""
    if given == "auto":
        return None
    try:
        floor = float(given)
    except ValueError:
        floor = math.nan
    if not 1 <= floor < math.inf:
        raise TopoError(f"degree_floor is {given}; it is auto, or a number of at least 1")
    return floor
