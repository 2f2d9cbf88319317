"""Pruners that look at what goes into each layer: Wanda and SparseGPT, on any torch or transformers model.

A method is a function `(weight, seen, keep, **options) -> (mask, weight)` of one layer's matrix under
`@calibrated(...)` in a file of this folder. Everything else is shared and written once: what is sent through the model
(`calibration`), blocks one after the other with the activations that the pruned ones before them give (`blocks`),
layers as matrices (`matrices`), what quotas ask of them (`measured`), exact budgets and the walk over the model
(`pruning`).

    pruned = prune("sparsegpt", model, sparsity=0.5, calibration=tokens)
    pruned.masks, pruned.model
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topo._support.doors import check_function, check_text, check_word, summary
from topo._support.registry import Registry
from topo.errors import TopoError
from topo.n_m import parse_n_m

__all__ = ["Calibrated", "calibrated", "methods", "prune"]

SEEN = ("norms", "gram")
methods = Registry("calibrated pruner", __name__)


@dataclass(frozen=True)
class Calibrated:
    """A registered method.

    seen: what it is told of a layer's inputs, the squared "norms" of the columns or their "gram" matrix. cost: of one
    run, in words. source: where it was published.
    """

    name: str
    function: Callable[..., Any]
    seen: str
    cost: str
    source: str
    needs = "data"
    calibrates = True

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return (summary(self.function) or self.name).rstrip(".")

    @cached_property
    def options(self) -> dict[str, Any]:
        """Every option with its default: the shared ones, then the method's own."""
        parameters = inspect.signature(self.function).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {"nm": "", "dense": "", "owl_factor": 5.0, "owl_span": 0.08, "alpha_span": 0.3} | own

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every option: those given, as values or as text, and defaults for the rest.

        TopoError for an option that it does not take, and for a value that the option cannot have.
        """
        for name in given:
            if name not in self.options:
                takes = ", ".join(f"{key}={value}" for key, value in self.options.items())
                raise TopoError(f"method '{self.name}' has no option '{name}'; it takes {takes}")
        found = {name: self._value(name, given.get(name, default)) for name, default in self.options.items()}
        if found["nm"]:
            parse_n_m(found["nm"])
        return found

    def _value(self, name: str, given: Any) -> Any:
        kind = type(self.options[name])
        try:
            value = kind(given)
            if kind in (int, float) and (isinstance(given, bool) or not value >= (1 if kind is int else 0)):
                raise ValueError
        except (ValueError, TypeError):
            what = {int: "a whole number of at least 1", float: "a number of at least 0"}.get(kind, "text")
            raise TopoError(f"option '{name}' of method '{self.name}' holds {given!r}; it is {what}") from None
        return value


def calibrated(*, seen: str, cost: str, source: str) -> Callable[[Callable], Callable]:
    """Decorator: enter a function (weight, seen, keep, *, options) -> (mask, weight) under its own name.

    weight: (out, columns), a layer's matrix in float32 or float64; seen: what `seen` names, of its inputs; keep: the
    budget (`topo.calibrated.budget.Keep`). TopoError for other functions and words.
    """

    def enter(function: Callable) -> Callable:
        plugin = f"calibrated pruner '{getattr(function, '__name__', function)}'"
        check_word(plugin, "seen", seen, SEEN)
        check_text(plugin, cost=cost, source=source)
        check_function(plugin, function, "weight, seen, keep")
        methods.add(function.__name__)(Calibrated(function.__name__, function, seen, cost, source))
        return function

    return enter


def __getattr__(name: str) -> Any:
    if name in ("prune", "Pruned"):
        import importlib

        return getattr(importlib.import_module("topo.calibrated.pruning"), name)
    raise AttributeError(f"module 'topo.calibrated' has no attribute '{name}'")
