"""The balance problem: data-free masks with many paths, or even ones, and how far they are from an upper bound.

A method is a function under `@method(...)` in a file of this folder: the wiring, a total or budgets, random numbers and
its options in, a `Balanced` out, whose `masks` keep exactly the budget and whose `certificate` says how far they are
from that bound, and whether it is proved. `topo.generate("balance", wiring, sparsity=0.98)` comes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo._support.lazy import keep_names, load
from topo.optimize.registry import Method, Progress, method, methods

if TYPE_CHECKING:
    from topo.optimize.bounds import Bound, upper_bound
    from topo.optimize.frontier import Frontier, front, frontier, hypervolume
    from topo.optimize.layers import solve_layer_npb, solve_layer_rank1
    from topo.optimize.problem import Balanced, Certificate, Problem
    from topo.optimize.repair import repair
    from topo.optimize.terms import solve
    from topo.optimize.water_filling import water_fill

_HOME = {
    "Balanced": "topo.optimize.problem",
    "Bound": "topo.optimize.bounds",
    "Certificate": "topo.optimize.problem",
    "Frontier": "topo.optimize.frontier",
    "Problem": "topo.optimize.problem",
    "front": "topo.optimize.frontier",
    "frontier": "topo.optimize.frontier",
    "hypervolume": "topo.optimize.frontier",
    "repair": "topo.optimize.repair",
    "solve": "topo.optimize.terms",
    "solve_layer_npb": "topo.optimize.layers",
    "solve_layer_rank1": "topo.optimize.layers",
    "upper_bound": "topo.optimize.bounds",
    "water_fill": "topo.optimize.water_filling",
}
__all__ = [
    "Balanced",
    "Bound",
    "Certificate",
    "Frontier",
    "Method",
    "Problem",
    "Progress",
    "front",
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


keep_names(__name__)


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
