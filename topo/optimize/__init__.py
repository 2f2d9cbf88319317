"""The balance problem: data-free masks with as many paths, or as even paths, as their parameters allow, certified.

A method is a function under `@method(...)` in a file of this folder: the wiring, a total or budgets, random numbers and
its options in, a `Balanced` out, whose `masks` keep exactly the budget and whose `certificate` says how far from the
best they are. `topo.generate("balance", wiring, sparsity=0.98)` comes here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from topo.optimize.registry import Method, Progress, method, methods

if TYPE_CHECKING:
    from topo.optimize.bounds import Bound, upper_bound
    from topo.optimize.frontier import Frontier, frontier, hypervolume
    from topo.optimize.layers import solve_layer_npb, solve_layer_rank1
    from topo.optimize.problem import Balanced, Certificate, Problem
    from topo.optimize.repair import repair
    from topo.optimize.terms import solve
    from topo.optimize.water_filling import water_fill

_HOME = {
    "Balanced": "problem",
    "Bound": "bounds",
    "Certificate": "problem",
    "Frontier": "front",
    "Problem": "problem",
    "frontier": "front",
    "hypervolume": "front",
    "repair": "mend",
    "solve": "terms",
    "solve_layer_npb": "layers",
    "solve_layer_rank1": "layers",
    "upper_bound": "bounds",
    "water_fill": "water",
}
__all__ = [
    "Balanced",
    "Bound",
    "Certificate",
    "Frontier",
    "Method",
    "Problem",
    "Progress",
    "frontier",
    "hypervolume",
    "method",
    "methods",
    "repair",
    "solve",
    "solve_layer_npb",
    "solve_layer_rank1",
    "upper_bound",
    "water_fill",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
