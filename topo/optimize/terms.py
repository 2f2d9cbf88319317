"""solve: a problem in, balanced masks out; its terms say by which algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.optimize.most_paths import solve_paths
from topo.optimize.npb import solve_node_path
from topo.optimize.problem import Balanced, Problem
from topo.optimize.regular import solve_balanced


def solve(problem: Problem, *, rng: int | np.random.Generator = 0, **options: Any) -> Balanced:
    """Masks for a problem.

    terms balance alone: near-biregular masks on a degree floor (options degree_floor, rule). paths alone: dense core
    and covered periphery (options active, sweeps). nodes, paths and kernels: Node-Path Balancing (options rule, max_p,
    released, repaired). All take progress.

    >>> from topo.networks import find_wiring
    >>> solve(Problem(find_wiring("lenet300"), total=2000)).certificate.effective
    2000

    Raises TopoError for terms that no algorithm here weighs together.
    """
    terms = {name for name, weight in problem.terms.items() if weight}
    if terms == {"balance"}:
        return solve_balanced(problem, as_rng(rng), **options)
    if terms == {"paths"}:
        return solve_paths(problem, as_rng(rng), **options)
    if "balance" not in terms:
        return solve_node_path(problem, as_rng(rng), **options)
    raise TopoError(f"balance is a term of its own; given are {', '.join(sorted(terms))}")
