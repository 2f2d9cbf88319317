"""The balance problem: data-free masks with as many paths, or as even paths, as their parameters allow, certified.

A method is a function under `@method(...)` in a file of this folder: the wiring, a total or budgets, random numbers and
its options in, a `Balanced` out, whose `masks` keep exactly the budget and whose `certificate` says how far from the
best they are. `topo.generate("balance", wiring, sparsity=0.98)` comes here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from topo.errors import TopoError
from topo.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from topo.optimize.bounds import Bound, upper_bound
    from topo.optimize.front import Frontier, frontier, hypervolume
    from topo.optimize.layers import solve_layer_npb, solve_layer_rank1
    from topo.optimize.mend import repair
    from topo.optimize.problem import Balanced, Certificate, Problem
    from topo.optimize.terms import solve
    from topo.optimize.water import water_fill
    from topo.wiring import Wiring

methods = Registry("optimizer", __name__)

Progress = Callable[[int, int, str], None]

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

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Method:
    """A registered method: its name, where it was published, and what makes the masks."""

    function: Callable[..., Balanced]
    name: str
    source: str
    needs: str = "nothing"

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters.values()
        fixed = ("total", "rng", "progress")
        return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed}

    @property
    def options(self) -> dict[str, Any]:
        """Option -> its default. `budgets` is the rule that splits the total: water, or a quota."""
        return {name: parameter.default for name, parameter in self._parameters.items()}

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options as values, given as values or as text; TopoError for one that it does not take or cannot read."""
        for name in given:
            if name not in self.options:
                takes = ", ".join(f"{key}={value}" for key, value in self.options.items())
                raise TopoError(f"method '{self.name}' has no option '{name}'; it takes {takes}")
        return {name: self._value(name, value) for name, value in given.items()}

    def _value(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind = str(self._parameters[name].annotation).split(" ")[0]
        try:
            if kind == "bool":
                return _WORDS[value.lower()]
            return int(value) if kind == "int" else float(value) if kind == "float" else value
        except (KeyError, ValueError):
            raise TopoError(f"option '{name}' of method '{self.name}' is '{value}'; it is of type {kind}") from None

    def __call__(
        self,
        wiring: Wiring,
        *,
        total: int | None = None,
        rng: int | np.random.Generator = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Balanced:
        """Masks with exactly `total` parameters, or with budgets={layer: parameters}."""
        return self.function(wiring, total=total, rng=rng, progress=progress, **self.read(options))


def method(*, source: str, name: str | None = None) -> Callable[[Callable[..., Balanced]], Callable[..., Balanced]]:
    """Decorator: register a function as a method."""

    def enter(function: Callable[..., Balanced]) -> Callable[..., Balanced]:
        entry = Method(function, name or function.__name__, source)
        methods.add(entry.name)(entry)
        return function

    return enter


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
