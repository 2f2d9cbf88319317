"""Metrics: graph -> numbers, one file per family.

A metric is a function under `@metric(...)` in a file of this folder, with a naive twin of the same name in
tests/naive/. Of a network it takes the graph, of a layer the graph and a block; it returns a number or a
Value(number, note). Undefined is NaN with the reason in the note. Functions whose result several metrics need carry
`@shared`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo._support.doors import called, check_flags, check_function, check_text, check_word, summary
from topo._support.names import nearest
from topo._support.registry import Registry
from topo.errors import TopoError
from topo.graph import Block, LayeredGraph, shared
from topo.report import Value

__all__ = ["DEFAULT_GROUPS", "GROUPS", "Metric", "chosen", "metric", "metrics", "named", "shared"]

# Numbers of the PATHS group stand in this order of files, others in that of file names.
metrics = Registry("metric", __name__, first=("parameters", "nodes", "paths", "balance", "flops"))

# In the order of reports. Groups computed by --metrics default; `all` is every metric there is.
GROUPS = ("paths", "spectral", "degrees", "structure", "graph", "science", "size", "weighted")
DEFAULT_GROUPS = ("paths", "spectral", "degrees")
SCOPES = ("network", "layer")
RESERVED = ("default", "all", *GROUPS)
# Other names under which a metric may be asked for: node counts in the convention of NPB.
ALIASES = {"nodes_npb": "nodes"}


_OF_EVERY_VIEW = ("graph", "science")  # groups that look at one list of edges, whatever its units are
_unrolled: dict[str, Callable[..., Any]] = {}


def in_unrolled_view(key: str) -> Callable[[Callable], Callable]:
    """Decorator: what a metric ("network:NAME" or "layer:NAME") is where the units are places of maps."""

    def enter(function: Callable) -> Callable:
        _unrolled[key] = function
        return function

    return enter


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    scope: "network" or "layer". wired: needs to know who feeds whom. view: "network" if it is seen in the graph's view,
    "layer" if in the view of single layers. ordered: it depends on the order in which units are numbered, so that a
    relabelled network, the same graph, may have another value. weighted: it needs weights beside the masks.
    """

    function: Callable[..., Any]
    name: str
    group: str
    scope: str
    unit: str
    source: str
    wired: bool
    view: str = "network"
    ordered: bool = False
    weighted: bool = False

    @property
    def doc(self) -> str:
        """First line of the docstring."""
        return summary(self.function)

    def __call__(self, graph: LayeredGraph, *block: Block) -> Value:
        """The number of a graph, or of one layer; TopoError, naming the metric, if it gives something else."""
        about = f" at layer '{block[0].name}'" if block else ""
        function = self.function
        if graph.view == "unrolled" and self.wired and self.view == "network" and self.group not in _OF_EVERY_VIEW:
            if f"{self.scope}:{self.name}" not in _unrolled:
                return Value(math.nan, "not defined in the unrolled view; it is of the channel view")
            function = _unrolled[f"{self.scope}:{self.name}"]
        result = called(f"metric '{self.name}'", about, function, graph, *block)
        value = result if isinstance(result, Value) else _number(result)
        if value is None or not (value.note is None or isinstance(value.note, str)):
            raise TopoError(
                f"metric '{self.name}'{about} gives {result!r:.60} ({type(result).__name__}); "
                "it gives a number, or Value(number, note)"
            )
        return value


def _number(result: Any) -> Value | None:
    """A number as a Value; None for what is not a single real number."""
    if isinstance(result, np.ndarray | np.generic) and result.ndim == 0 and result.dtype.kind in "biuf":
        return Value(result.item())
    return Value(result) if isinstance(result, int | float) else None


def metric(
    *,
    group: str,
    scope: str,
    unit: str,
    source: str = "definition",
    wired: bool = True,
    view: str = "network",
    ordered: bool = False,
    weighted: bool = False,
) -> Callable[[Callable], Callable]:
    """Decorator: register a function as a metric. A name may stand once for the network and once for layers.

    group: one of GROUPS. scope: "network" or "layer"; the function of a layer is called `layer_NAME`. unit, source: for
    people. view: "network" or "layer", in which view it is seen. The rest as in `Metric`.

    Raises TopoError for other words, and for a function that cannot be called with a graph (and a block).
    """

    def enter(function: Callable) -> Callable:
        full = str(getattr(function, "__name__", function))
        plugin = f"metric '{full}'"
        check_word(plugin, "group", group, GROUPS)
        check_word(plugin, "scope", scope, SCOPES)
        check_word(plugin, "view", view, SCOPES)
        check_text(plugin, unit=unit, source=source)
        check_flags(plugin, wired=wired, ordered=ordered, weighted=weighted)
        check_function(plugin, function, "graph, block" if scope == "layer" else "graph")
        if scope == "layer" and not full.startswith("layer_"):
            raise TopoError(f"{plugin} is of layers; the name of its function begins with layer_")
        name = full.removeprefix("layer_") if scope == "layer" else full
        if name in RESERVED:
            raise TopoError(f"{plugin} is called as a group of metrics; {', '.join(RESERVED)} are taken")
        entry = Metric(function, name, group, scope, unit, source, wired, view, ordered, weighted)
        metrics.add(f"{scope}:{name}")(entry)
        return function

    return enter


def named(names: str | Sequence[str], group: str) -> list[str]:
    """Metrics of a group that are asked for by its name or their own, not by "default" or "all"; each once.

    >>> named("all,path_length", "science")
    ['path_length']
    """
    given = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    asked = [entry.name for entry in metrics.values() if entry.group == group and {group, entry.name} & set(given)]
    return list(dict.fromkeys(asked))  # one name for the network's and the layers'


def chosen(names: str | Sequence[str], *, weights: bool = True) -> list[Metric]:
    """Metrics of "default", "all", group names and metric names (a list, or one text with commas), group by group.

    weights: whether there are weights; without, weighted metrics are chosen only by their own name and by the group
    that holds nothing else, `weighted`.
    Raises TopoError for a name that is neither.
    """
    given = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    wanted = [ALIASES.get(name, name) for name in given]
    every = sorted(metrics.values(), key=lambda entry: GROUPS.index(entry.group))
    known = {entry.name for entry in every}
    for name in wanted:
        if name not in {"default", "all", *GROUPS} | known:
            near = nearest(name, {*GROUPS, *known})
            meant = f"did you mean {' or '.join(map(repr, near))}? Groups" if near else "groups"
            raise TopoError(
                f"no metric or group is called '{name}'; {meant}: default, all, {', '.join(GROUPS)}; "
                "`topo list metrics` names the metrics"
            )

    def requested(entry: Metric) -> bool:
        if entry.name in wanted or (entry.group == "weighted" and "weighted" in wanted):
            return True
        if entry.weighted and not weights:
            return False
        return "all" in wanted or entry.group in wanted or ("default" in wanted and entry.group in DEFAULT_GROUPS)

    return [entry for entry in every if requested(entry)]
