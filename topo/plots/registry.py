"""The registry of figures: what each is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from topo._support.doors import check_function, check_word
from topo._support.registry import Registry
from topo.errors import TopoError

plots = Registry("plot", "topo.plots")


# What the command line makes of the inputs, the first of several that all inputs hold: "reports" (by their labels),
# "masks" (those of one, or of several by their labels), "graphs" (one, on its wiring), "rows" (of tables and runs, a
# list), "courses" (epochs of runs), "evaluation" (JSON of topo evaluate), "frontiers"; and the metrics that the reports
# hold.
OF = ("reports", "masks", "graphs", "rows", "courses", "evaluation", "frontiers")
takes: dict[str, tuple[str, str]] = {}


def plot(of: str, metrics: str = "") -> Callable[[Callable], Callable]:
    """Decorator: register a figure: a function of what is drawn and of `ax`, or `fig` for several axes, that gives the
    axes it drew on. of (one of OF, or more with commas between), metrics: see `takes`. TopoError for other words and
    functions."""

    def enter(function: Callable) -> Callable:
        plugin = f"plot '{getattr(function, '__name__', function)}'"
        for word in of.split(",") if isinstance(of, str) else [of]:
            check_word(plugin, "of", word, OF)
        if not isinstance(metrics, str):
            raise TopoError(f"{plugin} has metrics={metrics!r}; they are names in one text, with commas between")
        check_function(plugin, function, "data", more=True)  # and options that users give
        if not {"ax", "fig"} & inspect.signature(function).parameters.keys():
            raise TopoError(f"{plugin} is called as (data, ax=...) or (data, fig=...); it takes neither ax nor fig")
        takes[function.__name__] = (of, metrics)
        plots.add()(function)
        return function

    return enter
