"""Masks from shapes alone: random graphs, regular graphs, lattices, closed constructions.

A generator is a function under `@generator(...)` in a file of this folder. It takes the wiring, a budget for each layer
to mask (or masks to start from), the random numbers and its options, and yields the bit rows of one layer after the
other. What it keeps exactly - the layers' budgets, their total, or neither - is said where it is registered, and
`generate` checks it. In a convolution the structure lies between channels, and kernel positions are placed evenly at
random (`topo.generators.channels`), unless the method says otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from topo._support.doors import called, check_flags, check_function, check_text, check_word, summary
from topo._support.registry import Registry
from topo._support.seeds import as_rng, own_rng
from topo.errors import TopoError
from topo.masks import BitRows, MaskSet
from topo.quotas import quotas
from topo.wiring import Layer, Wiring

generators = Registry("generator", __name__)

Budgets = Mapping[str, int]
Drawn = Iterator[tuple[str, BitRows]]
Progress = Callable[[int, int, str], None]

EXACT = ("layers", "total", "no")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Generator:
    """A registered generator.

    source: where it was published. quota: the budgets it has by default. fixed: it has no others. exact: "layers" if
    every layer keeps its budget, "total" if all layers together do, "no" if the structure forbids it (`keeps` says
    what it keeps instead). rewires: it takes masks to start from, and keeps their counts, instead of budgets.
    """

    function: Callable[..., Drawn]
    name: str
    source: str
    quota: str
    fixed: bool
    exact: str
    keeps: str
    rewires: bool

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return summary(self.function)

    @property
    def needs(self) -> str:
        """What it works from: "nothing" but shapes, or "masks"."""
        return "masks" if self.rewires else "nothing"

    @cached_property
    def options(self) -> dict[str, Any]:
        """Option -> its default."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every option: those given, as values or as text, and defaults for the rest.

        TopoError for an option that it does not take, and for a value that is not of the default's type.
        """
        for name in given:
            if name not in self.options:
                takes = ", ".join(f"{key}={value}" for key, value in self.options.items()) or "none"
                raise TopoError(f"method '{self.name}' has no option '{name}'; it takes {takes}")
        return {
            name: _value(self.name, name, given[name], default) if name in given else default
            for name, default in self.options.items()
        }

    def __call__(
        self,
        wiring: Wiring,
        start: Budgets | MaskSet,
        *,
        rng: np.random.Generator | int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> MaskSet:
        """The masks. start: parameters to keep by layer name, or the masks to rewire; only these layers are masked.

        A method that rewires has a stream of its own: under the seed that drew the masks it would draw the same again.
        """
        made: dict[str, BitRows] = {}
        draws = own_rng(rng) if self.rewires else as_rng(rng)
        plugin = f"generator '{self.name}'"
        own, wiring = wiring, wiring.plain
        start = own.plain_masks(start) if isinstance(start, MaskSet) else start
        drawn = called(plugin, "", self.function, wiring, start, draws, **self.read(options))
        for name, rows in checked_rows(plugin, wiring, start, drawn):
            made[name] = rows
            if progress is not None:
                progress(len(made), len(start), name)
        return own.own_masks(MaskSet(made))


def checked_rows(plugin: str, wiring: Wiring, names: Collection[str], drawn: Any) -> Drawn:
    """What a generator or a null model yields, layer by layer, if it is bit rows (or bool arrays) of each of `names`.

    TopoError, naming the plugin and the layer, for other layers, layers left out, other shapes and other things.
    """
    left = dict.fromkeys(names)
    pairs = called(plugin, "", iter, drawn)
    while (pair := called(plugin, "", next, pairs, None)) is not None:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TopoError(f"{plugin} yields {type(pair).__name__}; it yields pairs (name, bit rows)")
        name, rows = pair
        if name not in left:
            raise TopoError(f"{plugin} yields layer {name!r:.60}, which was not asked for, or came before")
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_:
            rows = BitRows.of_mask(rows)
        if not isinstance(rows, BitRows):
            raise TopoError(f"{plugin} yields {type(rows).__name__} for '{name}'; it yields bit rows or a bool array")
        if tuple(rows.shape) != tuple(wiring.shapes[name]):
            raise TopoError(
                f"{plugin} yields shape {tuple(rows.shape)} for '{name}', whose shape is {wiring.shapes[name]}"
            )
        del left[name]
        yield name, rows
    if left:
        raise TopoError(f"{plugin} yields nothing for {', '.join(map(repr, list(left)[:4]))}")


def _value(method: str, name: str, given: Any, default: Any) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return given if isinstance(given, bool) else _WORDS[str(given).strip().lower()]
        if kind is int and isinstance(given, float) and given != int(given):
            raise ValueError
        return kind(given)
    except (KeyError, ValueError, TypeError, OverflowError):
        what = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "text")
        raise TopoError(f"option '{name}' of method '{method}' holds {given!r}; it is {what}") from None


def generator(
    *,
    source: str,
    quota: str = "erk",
    fixed: bool = False,
    exact: str = "layers",
    keeps: str = "",
    rewires: bool = False,
) -> Callable[[Callable[..., Drawn]], Callable[..., Drawn]]:
    """Decorator: register a function (wiring, budgets or masks, rng, *, options) that yields (name, bit rows).

    Arguments as in `Generator`. Raises TopoError for words that it does not know and for other functions.
    """

    def enter(function: Callable[..., Drawn]) -> Callable[..., Drawn]:
        name = str(getattr(function, "__name__", function))
        plugin = f"generator '{name}'"
        check_text(plugin, source=source)
        check_word(plugin, "quota", quota, quotas)
        check_word(plugin, "exact", exact, EXACT)
        check_flags(plugin, fixed=fixed, rewires=rewires)
        check_function(plugin, function, "wiring, masks, rng" if rewires else "wiring, budgets, rng")
        if exact == "no":
            check_text(plugin, keeps=keeps)
        generators.add(name)(Generator(function, name, source, quota, fixed, exact, keeps, rewires))
        return function

    return enter


def requested(wiring: Wiring, budgets: Budgets) -> Iterator[tuple[Layer, int]]:
    """The layers to mask, in the order of the budgets, each with what it keeps."""
    for name, budget in budgets.items():
        yield wiring.layer(name), int(budget)
