"""The registry of optimizers: what a method is, and how its options are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from topo._support.doors import called, check_function, check_text, kind_of, summary
from topo._support.registry import Registry
from topo.errors import TopoError
from topo.masks import MaskSet

if TYPE_CHECKING:
    import numpy as np

    from topo.optimize.problem import Balanced
    from topo.wiring import Wiring

methods = Registry("optimizer", "topo.optimize")


Progress = Callable[[int, int, str], None]


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Method:
    """A registered method: its name, where it was published, and what makes the masks.

    starts: it takes masks to start from, as `source`.
    """

    function: Callable[..., Balanced]
    name: str
    source: str
    starts: bool = False

    @property
    def needs(self) -> str:
        """What it must be given besides shapes and a budget."""
        return "masks" if self.starts else "nothing"

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return summary(self.function)

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters.values()
        fixed = ("total", "rng", "progress", *(("source",) if self.starts else ()))
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
        kind = kind_of(self._parameters[name].annotation)
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
        source: MaskSet | None = None,
        **options: Any,
    ) -> Balanced:
        """Masks with exactly `total` parameters, or with budgets={layer: parameters}. source: masks to start from."""
        plugin = f"method '{self.name}'"
        values = self.read(options)
        if self.starts != (source is not None):
            raise TopoError(f"{plugin} " + ("starts from masks: give source" if self.starts else "takes no source"))
        own, wiring = wiring, wiring.untied
        if source is not None:
            values["source"] = own.plain_masks(source)
        found = called(plugin, "", self.function, wiring, total=total, rng=rng, progress=progress, **values)
        if not isinstance(getattr(found, "masks", None), MaskSet) or not hasattr(found, "certificate"):
            raise TopoError(f"{plugin} gives {type(found).__name__}; it gives topo.optimize.Balanced")
        if own.plain is own:
            return found
        return replace(found, masks=own.own_masks(found.masks), problem=replace(found.problem, wiring=own))


def method(
    *, source: str, name: str | None = None, starts: bool = False
) -> Callable[[Callable[..., Balanced]], Callable[..., Balanced]]:
    """Decorator: register a function as a method. starts: it takes masks to start from, as `source`."""

    def enter(function: Callable[..., Balanced]) -> Callable[..., Balanced]:
        plugin = f"method '{name or getattr(function, '__name__', function)}'"
        check_text(plugin, source=source)
        check_function(plugin, function, "wiring, *, total, rng, progress" + (", source" if starts else ""))
        entry = Method(function, name or function.__name__, source, starts)
        methods.add(entry.name)(entry)
        return function

    return enter
