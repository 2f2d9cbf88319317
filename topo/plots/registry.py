"""The registry of figures: what each is made of."""

from __future__ import annotations

from collections.abc import Callable

from topo._support.doors import check_function, check_word
from topo._support.registry import Registry
from topo.errors import TopoError

plots = Registry("plot", "topo.plots")


# What the command line makes of each INPUT, the first of several that all inputs hold: "reports", "masks", "graphs"
# (with the wiring), "rows" (of a table), "courses" (epochs of runs), "evaluation", "frontiers"; and the metrics that
# the reports hold.
OF = ("reports", "masks", "graphs", "rows", "courses", "evaluation", "frontiers")
takes: dict[str, tuple[str, str]] = {}


def plot(of: str, metrics: str = "") -> Callable[[Callable], Callable]:
    """Decorator: register a figure. of (one of OF, or more with commas between), metrics: see `takes`.

    TopoError for other words and functions.
    """

    def enter(function: Callable) -> Callable:
        plugin = f"plot '{getattr(function, '__name__', function)}'"
        for word in of.split(",") if isinstance(of, str) else [of]:
            check_word(plugin, "of", word, OF)
        if not isinstance(metrics, str):
            raise TopoError(f"{plugin} has metrics={metrics!r}; they are names in one text, with commas between")
        check_function(plugin, function, "data", more=True)  # and options that users give
        takes[function.__name__] = (of, metrics)
        plots.add()(function)
        return function

    return enter
