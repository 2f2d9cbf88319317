"""Nodes against paths: where methods stand in the trade between wide and deep connectivity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.graph import LayeredGraph
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.plots.axes import (
    GREY,
    RED,
    axes,
    key,
    legend,
    name_points,
    name_x,
    name_y,
    nothing,
    percent,
    series,
    whole_ticks,
)
from topo.plots.given import called, density_of, labelled, number, plain, report_of, rows_of, short, wired
from topo.plots.registry import plot
from topo.report import Report
from topo.wiring import Wiring

_METRICS = "density,nodes,effective_nodes,log10_effective_paths"
Drawn = Report | MaskSet
Data = Drawn | Sequence[Drawn] | Mapping[str, Drawn | Sequence[Drawn]] | Sequence[Mapping[str, Any]]


@plot("reports,rows", _METRICS)
def nodes_paths(
    data: Data,
    ax: Axes | None = None,
    *,
    group: str = "method",
    lines: bool = True,
    front: bool = True,
    names: bool = True,
    wiring: Wiring | str | Any | None = None,
    **style: Any,
) -> Axes:
    """Effective nodes against log10 effective paths, a point for each mask; lines of equal balance.

    data: reports with effective_nodes, log10_effective_paths and density, or masks; by label, one or several each (a
    method at several densities); or rows of a table with these columns and `group`. Points of one group are joined by
    density, and each is called by its density. lines: grey lines of equal log P + L log N, the budget that the balance
    law log P + sum of log widths <= sum of log parameters splits where the nodes of L + 1 layers are spread evenly
    (drawn where L is known; exact for chains).
    front: join the points that no other has more nodes and more paths than. A mask without paths is a cross below.
    wiring: of masks that are not a plain chain; a Wiring, a model's name or a torch module. style: of the points.

    Raises TopoError if nodes and paths are not known for want of the wiring, or if the masks are of different
    networks: their numbers of all nodes, where reports or rows hold them (`nodes`), or the shapes of layers of one name
    in reports differ.
    """
    groups, layers = _groups(_reported(data, wiring), group)
    ax = axes(ax)
    every = [point for found in groups.values() for point in found]
    alive = [p for p in every if math.isfinite(p[0]) and math.isfinite(p[1])]
    single = all(len(found) == 1 for found in groups.values())
    for i, (label, found) in enumerate(groups.items()):
        drawn = sorted((p for p in found if p in alive), key=lambda p: p[2])
        look = {**series(i), "linewidth": 0.7, "alpha": 0.9}
        look |= {"markersize": mpl.rcParams["lines.markersize"] + 0.8, "linestyle": "-" if len(drawn) > 1 else "none"}
        ax.plot([p[0] for p in drawn], [p[1] for p in drawn], zorder=3, **{**look, "label": label, **style})
    if front and len(alive) > 1:
        _front(ax, alive)
    if dead := [p[0] for p in every if p not in alive and math.isfinite(p[0])]:
        look = {"color": RED, "transform": ax.get_xaxis_transform(), "zorder": 5}
        ax.plot(dead, [0.03] * len(dead), "x", label="no path left", **look)
    ax.margins(0.09)
    ax.autoscale_view()
    if lines and layers and len(alive) > 1:
        _iso(ax, layers)
    name_x(ax, "; ".join(["effective nodes (channel view)", *_equal(groups)]))
    name_y(ax, "log$_{10}$ effective paths")
    nodes = [p[0] for p in every if math.isfinite(p[0])]
    whole_ticks(ax.xaxis, nodes)
    if not nodes:
        ax.set_xticks([])
    if not alive:
        nothing(ax, "nothing to draw: no mask has a path")
    legend(ax, list(groups))
    densities = {percent(p[2]) for p in alive if math.isfinite(p[2])}
    if names and alive and not (single and len(densities) == 1):
        known = [p for p in alive if math.isfinite(p[2])]
        name_points(ax, [p[0] for p in known], [p[1] for p in known], [percent(p[2]) for p in known])
    return ax


Point = tuple[float, float, float]  # nodes, log10 paths, density


def _groups(data: Any, group: str) -> tuple[dict[str, list[Point]], int | None]:
    """Points by label, and how many layers the networks have, where all have equally many."""
    if _holds(data, Report):
        reports = {label: found for label, found in data.items()}
        if not any(reports.values()):
            raise TopoError("a scatter is drawn of one mask or more; none was given")
        _one_network(reports)
        depths = {len(report.shapes) for found in reports.values() for report in found}
        points = {label: [_point(report) for report in found] for label, found in reports.items()}
        return points, depths.pop() if len(depths) == 1 else None
    rows = rows_of(data, ("effective_nodes", "log10_effective_paths"))
    _same_nodes([(called(row, group, "masks"), number(row.get("nodes"))) for row in rows])
    found: dict[str, list[Point]] = {}
    for row in rows:
        place = (number(row["effective_nodes"]), number(row["log10_effective_paths"]), density_of(row))
        found.setdefault(called(row, group, "masks"), []).append(place)
    return found, None


def _reported(data: Any, wiring: Any) -> Any:
    """The data with reports in place of masks."""
    kinds = Report | MaskSet | LayeredGraph
    net = None if wiring is None else find_wiring(wiring)
    if isinstance(data, kinds):
        data = [data]
    if not _holds(data, kinds):
        return data
    if isinstance(data, Mapping):
        data = {plain(label): item for label, item in data.items()}
    else:
        given = labelled(data, kinds, "a scatter")
        data = dict(zip(short(list(given)), given.values()))
    return {
        label: [_analysed(part, label, net) for part in (item if isinstance(item, list | tuple) else [item])]
        for label, item in data.items()
    }


def _analysed(item: Any, label: str, wiring: Wiring | None) -> Report:
    return item if isinstance(item, Report) else report_of(wired(item, wiring, f"'{label}'"), _METRICS)


def _one_network(reports: Mapping[str, Sequence[Report]]) -> None:
    """TopoError if the reports are of different networks; a layer that one of them lacks has no mask there."""
    every = [
        (label if len(found) == 1 else report.mask, report) for label, found in reports.items() for report in found
    ]
    _same_nodes([(label, number(report.network.get("nodes"))) for label, report in every])
    known: dict[str, tuple[str, tuple[int, ...]]] = {}
    for label, report in every:
        for layer, shape in report.shapes.items():
            other, there = known.setdefault(layer, (label, shape))
            if there != shape:
                sizes = [f"{'x'.join(map(str, s))} in '{name}'" for name, s in ((other, there), (label, shape))]
                raise TopoError(
                    f"a scatter is drawn of masks of one network, but layer '{layer}' is {' and '.join(sizes)}"
                )


def _same_nodes(every: Sequence[tuple[str, float]]) -> None:
    """TopoError if networks have different numbers of nodes; NaN is not known."""
    known = [(label, nodes) for label, nodes in every if math.isfinite(nodes)]
    for label, nodes in known:
        if nodes != known[0][1]:
            raise TopoError(
                f"a scatter is drawn of masks of one network, but '{known[0][0]}' has {known[0][1]:,.0f} nodes in all "
                f"and '{label}' {nodes:,.0f}"
            )


def _holds(data: Any, kind: Any) -> bool:
    items = list(data.values()) if isinstance(data, Mapping) else list(data) if isinstance(data, Sequence) else []
    items = [part for item in items for part in (item if isinstance(item, list | tuple) else [item])]
    return bool(items) and all(isinstance(item, kind) for item in items)


def _point(report: Report) -> Point:
    for name in ("effective_nodes", "log10_effective_paths"):
        if name not in report.network:
            raise TopoError(f"the report of '{report.mask}' holds no '{name}'; analyze with metrics='paths'")
    found = report.network
    if isinstance(found["effective_nodes"], float) and math.isnan(found["effective_nodes"]):
        why = next((note["note"] for note in report.notes if note["metric"] == "effective_nodes"), "undefined")
        raise TopoError(f"a scatter cannot show '{report.mask}', whose effective_nodes are not known: {why} (--model)")
    return number(found["effective_nodes"]), number(found["log10_effective_paths"]), number(found.get("density"))


def _equal(groups: Mapping[str, Sequence[Point]]) -> list[str]:
    """Which points lie on one another, in words: only the last that is drawn is seen."""
    places: dict[tuple[float, float], dict[str, None]] = {}
    for label, found in groups.items():
        for nodes, log_paths, _ in found:
            if math.isfinite(nodes) and math.isfinite(log_paths):
                places.setdefault((nodes, round(log_paths, 9)), {})[label] = None
    together = dict.fromkeys(" = ".join(labels) for labels in places.values() if len(labels) > 1)
    few = list(together)[:3]
    more = f" and {len(together) - len(few)} more" if len(together) > len(few) else ""
    return [f"equal points: {', '.join(few)}{more}"] if few else []


def _front(ax: Axes, alive: Sequence[Point]) -> None:
    """The points that no other beats in both, joined by steps."""
    best: list[Point] = []
    for p in sorted(alive, key=lambda p: (-p[0], -p[1])):
        if not best or p[1] > best[-1][1]:
            best.append(p)
    x, y = [p[0] for p in best], [p[1] for p in best]
    look: dict[str, Any] = {"color": "black", "linewidth": 0.7, "linestyle": (0, (1, 1.2)), "marker": "none"}
    ax.step(x, y, where="pre", **look, zorder=2, label="not dominated")


def _iso(ax: Axes, layers: int) -> None:
    """Lines of equal log10 P + (layers - 1) log10 N, within the present limits."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    x = np.linspace(max(x0, 1e-9 + 0.001 * x1), x1, 100)
    slope = max(layers - 1, 1)
    low, high = y0 + slope * math.log10(x[0]), y1 + slope * math.log10(x1)
    for level in np.linspace(low, high, 9)[1:-1]:
        ax.plot(x, level - slope * np.log10(x), "-", marker="none", color=GREY, alpha=0.45, linewidth=0.5, zorder=0)
    key(ax, f"equal log P + {slope} log N", color=GREY, alpha=0.6, linewidth=0.5)
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
