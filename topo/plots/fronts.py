"""Frontiers: what a budget allows in paths, and in nodes or FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.optimize import Frontier
from topo.optimize.frontier import OVER, efficient, hypervolume
from topo.plots.axes import GREY, axes, legend, name_x, name_y, series
from topo.plots.given import Row, number, plain, rows_of
from topo.plots.registry import plot

Front = Frontier | Sequence[Row]


@plot("frontiers,rows")
def frontier(
    data: Front | Mapping[str, Front], ax: Axes | None = None, *, over: str | None = None, **style: Any
) -> Axes:
    """Effective nodes, or FLOPs, against log10 paths of masks of one budget, and what they dominate.

    data: a Frontier (of `topo.optimize.front`), several by label, or a table with the columns log10_paths and nodes, or
    flops (and mode, a front each). over: "nodes" or "flops" (few are good), by default what the fronts run over. Points
    that another beats in both are small and hollow. Grey lines: all nodes there are, and the bound on paths that no
    mask of this budget passes (dashed where it is not certified). The legend gives the hypervolume, what the staircase
    covers above (0, 0): of a Frontier the share of the rectangle up to both limits, of a table, which knows none, nodes
    times decades of paths. Where the bound is 0 there is no rectangle: undefined. style: of the lines.

    Raises TopoError if there is no point, or a column is missing.
    """
    ax = axes(ax)
    over = over or _over(data)
    if over not in OVER:
        raise TopoError(f"over is '{over}'; a front runs over one of {', '.join(OVER)}")
    fronts = _fronts(data, over)
    if over == "flops":
        return _against_flops(fronts, ax, style)
    for i, (label, (front, points)) in enumerate(fronts.items()):
        x, y = np.array(points).T
        best = np.array(efficient(points))
        look = series(i)
        order = np.argsort(x[best], kind="stable")
        right, top = x[best][order], y[best][order]
        stairs = {**look, "marker": "none", **style}
        ax.step([0, *right], [top[0], *top], where="pre", **stairs)
        ax.plot(right, top, **{**look, "linestyle": "none"}, label=f"{label}: {covered(front, points)}", zorder=4)
        if not best.all():
            look |= {"markerfacecolor": "white", "linestyle": "none", "alpha": 0.7, "markersize": 2.5}
            ax.plot(x[~best], y[~best], **look, zorder=3)
    for nodes, bound, certified in dict.fromkeys(_limits(front) for front, _ in fronts.values() if front is not None):
        ax.axvline(nodes, color=GREY, linewidth=0.8, linestyle=":", label="all nodes")
        dashes = "-" if certified else (0, (3, 2))
        ax.axhline(
            bound, color=GREY, linewidth=0.8, linestyle=dashes, label="bound" if certified else "bound, not certified"
        )
    _unique_legend(ax, list(fronts))
    ax.set_xlim(left=0)
    units = dict.fromkeys(_UNITS[front is not None] for front, _ in fronts.values())
    name_x(ax, f"effective nodes (channel view)\nhypervolume: {'; '.join(units)}")
    name_y(ax, r"$\log_{10}$ effective paths")
    return ax


def _over(data: Any) -> str:
    """What the fronts run over: nodes, unless every one that says so runs over FLOPs."""
    fronts = [data] if isinstance(data, Frontier) else list(data.values()) if isinstance(data, Mapping) else []
    said = {front.over for front in fronts if isinstance(front, Frontier)}
    return "flops" if said == {"flops"} else "nodes"


def _against_flops(fronts: Mapping[str, Any], ax: Axes, style: Mapping[str, Any]) -> Axes:
    """The same with FLOPs, of which few are good: stairs go up to the right."""
    for i, (label, (_, points)) in enumerate(fronts.items()):
        x, y = np.array(points).T
        best = np.array(efficient([(-a, b) for a, b in points]))
        look = series(i)
        order = np.argsort(x[best], kind="stable")
        left, top = x[best][order], y[best][order]
        ax.step(left, top, where="post", **{**look, "marker": "none", **style})
        ax.plot(left, top, **{**look, "linestyle": "none"}, label=label, zorder=4)
        if not best.all():
            look |= {"markerfacecolor": "white", "linestyle": "none", "alpha": 0.7, "markersize": 2.5}
            ax.plot(x[~best], y[~best], **look, zorder=3)
    for bound, certified in dict.fromkeys(_limits(front)[1:] for front, _ in fronts.values() if front is not None):
        dashes = "-" if certified else (0, (3, 2))
        told = "bound" if certified else "bound, not certified"
        ax.axhline(bound, color=GREY, linewidth=0.8, linestyle=dashes, label=told)
    _unique_legend(ax, list(fronts))
    ax.set_xlim(left=0)
    name_x(ax, "FLOPs, share of the dense network's")
    name_y(ax, r"$\log_{10}$ effective paths")
    return ax


# What a hypervolume is measured in: of points alone, of a Frontier.
_UNITS = (
    "nodes times decades of paths, above (0,\N{NO-BREAK SPACE}0)",
    "share of the rectangle from (0,\N{NO-BREAK SPACE}0) to (all nodes, bound)",
)


def covered(front: Frontier | None, points: Sequence[tuple[float, float]]) -> str:
    """The hypervolume of points, in words; with a Frontier, in units of its limits."""
    if front is None:
        return f"hypervolume {hypervolume(points):.4g}"
    if not (front.all_nodes > 0 and front.bound > 0):
        what = "no nodes" if front.all_nodes <= 0 else f"the bound is {front.bound:g}"
        return f"hypervolume undefined, {what}"
    return f"hypervolume {hypervolume([(x / front.all_nodes, y / front.bound) for x, y in points]):.3f}"


def _limits(front: Frontier) -> tuple[int, float, bool]:
    return front.all_nodes, front.bound, front.certified


def _fronts(data: Any, over: str) -> dict[str, tuple[Frontier | None, list[tuple[float, float]]]]:
    """Label -> (the Frontier, if it is one, points (nodes, log10 paths))."""
    if isinstance(data, Frontier):
        data = {f"mode {data.points[0].mode}" if data.points else "masks": data}
    elif not isinstance(data, Mapping) or not all(map(_is_front, data.values())):
        rows = rows_of(data, (over, "log10_paths"))
        modes = dict.fromkeys(str(row.get("mode", "masks")) for row in rows)
        data = {mode: [row for row in rows if str(row.get("mode", "masks")) == mode] for mode in modes}
    found: dict[str, tuple[Frontier | None, list[tuple[float, float]]]] = {}
    for label, item in data.items():
        if isinstance(item, Frontier):
            points = [(float(getattr(point, over)), point.log10_paths) for point in item.points]
        else:
            points = [(number(row[over]), number(row["log10_paths"])) for row in rows_of(item, (over, "log10_paths"))]
        points = [point for point in points if all(map(math.isfinite, point))]
        if not points:
            raise TopoError(f"the frontier '{label}' has no point with finite {over} and paths")
        found[plain(label)] = (item if isinstance(item, Frontier) else None, points)
    return found


def _is_front(item: Any) -> bool:
    """Whether a value is a front of its own, under its label, and no column of a table."""
    if isinstance(item, Sequence) and not isinstance(item, str):
        return all(isinstance(row, Mapping) for row in item)
    return isinstance(item, Frontier | Mapping) or (hasattr(item, "to_dict") and hasattr(item, "columns"))


def _unique_legend(ax: Axes, names: Sequence[str]) -> None:
    """One entry for each name: the limits of two fronts of one network are drawn once in it."""
    seen: set[str] = set()
    for line in ax.get_lines():
        label = str(line.get_label())
        if label in seen:
            line.set_label(f"_{label}")
        seen.add(label)
    legend(ax, names)
