"""Pruners: masks from a torch model before training.

A pruner is a scoring function `(net, batches, *, rng, **options) -> {parameter: scores}` under `@pruner(...)` in a file
of this folder; the highest scores are kept. Everything else is shared and written once: budgets and exact top-k with
seeded ties (`selection`), rounds, precision, batch-norm mode and the check of the scores (`rounds`), the working copy
that a scoring function sees (`network`).

    masks = prune("synflow", model, sparsity=0.98, input_shape=(3, 32, 32))
    masks = prune("snip", model, density=0.05, batches=[(x, y), ...])
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topo._support.doors import check_flags, check_function, check_text, check_word, summary
from topo._support.registry import Registry
from topo.errors import TopoError

__all__ = ["Pruner", "prune", "pruner", "pruners", "reinitialise", "rescale", "scale_branches"]

SCHEDULES = ("exponential", "linear")
DATA = ("none", "batches")
MODES = ("eval", "train", "statistics")
PRECISIONS = ("model", "float32", "float64")
TIES = ("few", "random")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

pruners = Registry("pruner", __name__)


@dataclass(frozen=True)
class Pruner:
    """A registered scoring function and how it is run unless told otherwise.

    data: "batches" if it needs (x, y) batches, else "none". cost: of one run, in words. source: where it was published.
    rounds, schedule: defaults. regrow: pruned weights are scored again in the next round and may come back. double:
    scored in float64 unless told otherwise. prepare: called once on the working copy with the generator, before its
    weights are read. modes: the batch-norm modes it allows, the default first. shared_ranking: False
    if it chooses exactly the budget by itself, so that quotas, rounds and inversion make no sense. keeps: where the
    budget is of something else than parameters, what is kept of these.
    """

    name: str
    score: Callable[..., Mapping[str, Any]]
    data: str
    cost: str
    source: str
    rounds: int = 1
    schedule: str = "exponential"
    regrow: bool = False
    double: bool = False
    prepare: Callable[..., Any] | None = None
    modes: tuple[str, ...] = MODES
    shared_ranking: bool = True
    keeps: str = ""

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return (summary(self.score) or self.name).rstrip(".")

    @property
    def needs(self) -> str:
        """What it must be given besides a model: "data" or "nothing"."""
        return "data" if self.data == "batches" else "nothing"

    @cached_property
    def options(self) -> dict[str, Any]:
        """Every option with its default: how the scores are used, then the scoring function's own."""
        shared: dict[str, Any] = {}
        if self.shared_ranking:
            shared = {"rounds": self.rounds, "schedule": self.schedule, "invert": False, "ties": "few"}
            shared |= {"dense": "", "degree_decay": 0.0}
        if self.data == "batches":
            shared["mode"] = self.modes[0]
        shared["output"] = ""
        shared["precision"] = "float64" if self.double else "model"
        parameters = inspect.signature(self.score).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "rng"}
        return shared | own

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every option: those given, as values or as text, and defaults for the rest.

        TopoError for an option that it does not take, and for a value that the option cannot have.
        """
        for name in given:
            if name not in self.options:
                takes = ", ".join(f"{key}={value}" for key, value in self.options.items())
                raise TopoError(f"pruner '{self.name}' has no option '{name}'; it takes {takes}")
        found = {name: self._value(name, given[name]) for name in given}
        return {name: found.get(name, default) for name, default in self.options.items()}

    def _value(self, name: str, given: Any) -> Any:
        words = {"schedule": SCHEDULES, "mode": self.modes, "precision": PRECISIONS, "ties": TIES}.get(name)
        kind = type(self.options[name])
        try:
            if kind is bool:
                value = given if isinstance(given, bool) else _WORDS[str(given).strip().lower()]
            elif kind is int and isinstance(given, bool | float):
                raise ValueError
            else:
                value = kind(given)
            if (words and value not in words) or (name == "rounds" and value < 1):
                raise ValueError
            if name == "degree_decay" and not 0 <= value < math.inf:
                raise ValueError
        except (KeyError, ValueError, TypeError):
            what = {bool: "true or false", int: "a whole number of at least 1", float: "a number"}.get(kind)
            what = "a number of at least 0" if name == "degree_decay" else what
            allowed = f"one of {', '.join(words)}" if words else what
            raise TopoError(f"option '{name}' of pruner '{self.name}' holds {given!r}; it is {allowed}") from None
        return value


def pruner(*, data: str, cost: str, source: str, **how: Any) -> Callable[[Callable], Callable]:
    """Decorator: enter a scoring function under its own name; arguments as in `Pruner`.

    Raises TopoError for words that it does not know, and for a function that cannot be called as
    (net, batches, *, rng).
    """

    def enter(function: Callable) -> Callable:
        plugin = f"pruner '{getattr(function, '__name__', function)}'"
        check_word(plugin, "data", data, DATA)
        check_text(plugin, cost=cost, source=source, **({"keeps": how["keeps"]} if "keeps" in how else {}))
        if odd := set(how) - {"rounds", "schedule", "regrow", "double", "prepare", "modes", "shared_ranking", "keeps"}:
            raise TopoError(f"{plugin} says {', '.join(sorted(odd))}, which no pruner does; see topo.pruners.Pruner")
        check_flags(plugin, **{name: how[name] for name in ("regrow", "double", "shared_ranking") if name in how})
        check_word(plugin, "schedule", how.get("schedule", SCHEDULES[0]), SCHEDULES)
        for mode in how.get("modes", MODES) or ("",):
            check_word(plugin, "modes", mode, MODES)
        rounds = how.get("rounds", 1)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise TopoError(f"{plugin} has rounds={rounds!r}; it is a whole number of at least 1")
        if how.get("prepare") is not None:
            check_function(f"{plugin}, prepare", how["prepare"], "module, *, rng", documented=False)
        check_function(plugin, function, "net, batches, *, rng")
        pruners.add(function.__name__)(Pruner(function.__name__, function, data, cost, source, **how))
        return function

    return enter


_HOME = {
    "prune": "topo.pruners.rounds",
    "reinitialise": "topo.pruners.initial",
    "rescale": "topo.pruners.initial",
    "scale_branches": "topo.models.nets.branches",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'topo.pruners' has no attribute '{name}'")
