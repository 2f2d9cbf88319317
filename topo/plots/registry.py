"""The registry of figures: what each is made of."""

from __future__ import annotations

from collections.abc import Callable

from topo._support.registry import Registry

plots = Registry("plot", "topo.plots")


# What the command line makes of each INPUT: "reports", "masks", "graphs" (with the wiring) or "rows" (of a table); and
# the metrics that the reports hold.
takes: dict[str, tuple[str, str]] = {}


def plot(of: str, metrics: str = "") -> Callable[[Callable], Callable]:
    """Decorator: register a figure. of, metrics: see `takes`."""

    def enter(function: Callable) -> Callable:
        takes[function.__name__] = (of, metrics)
        plots.add()(function)
        return function

    return enter
