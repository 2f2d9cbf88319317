"""The layered graph of a network: units as dots, one column for each layer, and the edges between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from topo.errors import TopoError
from topo.graph import WiredGraph, paths
from topo.graph.columns import Columns, Link
from topo.graph.whole import numbers
from topo.metrics.whole import core_units, h_score, tau_core
from topo.plots.axes import GREY, RED, axes, key, legend, name_layers, remark, size_of, small, width_of
from topo.plots.given import Masked, one, wired
from topo.plots.registry import plot
from topo.wiring import Wiring

_BLUE, _ORANGE, _GOLD = "#0072B2", "#D55E00", "#E69F00"


@plot("graphs")
def layered_graph(
    data: Masked,
    ax: Axes | None = None,
    *,
    wiring: Wiring | str | Any | None = None,
    most_units: int | None = None,
    most_edges: int = 4000,
    useless: bool = True,
    core: bool = False,
    **style: Any,
) -> Axes:
    """The network as a graph: units as dots, a column for each layer, effective edges, dead units hollow.

    Units that live by an identity skip alone, as no effective weight of a layer reaches them, are gold.

    data: masks or a graph. wiring: of masks that are not a plain chain; a Wiring, a model's name or a torch module.
    An edge joins two units by a kernel with a kept weight; it is effective if it lies on a path from an input to an
    output. Columns of more than `most_units` units (12 to 32, by the number of columns, unless given) are drawn as so
    many groups of units, live ones in the middle; the colour of a group is its share of live units, the ink of a line
    the number of edges behind it. Of over `most_edges` lines each layer's heaviest are drawn; what was left out is said
    below. Skips are arcs. useless: draw kept weights off all paths, too. core: ring the dots of the tau-core, the
    units that together meet 90 % of all paths (metric `tau_core`). style: of the effective edges.
    """
    for name, value in (("most_units", most_units), ("most_edges", most_edges)):
        if value is not None and value < 1:
            raise TopoError(f"{name} is {value}; it is 1 or more")
    graph = wired(one(data, Masked, "a graph"), wiring, "a graph of layers")
    columns = Columns(graph)
    live = np.asarray(paths.live(graph).effective)
    alive = columns.alive
    bypassed = columns.by_skip
    if most_units is None:
        most_units = max(12, min(32, 640 // (max(columns.depth.values()) + 1)))
    placed = _Placed(columns, alive, bypassed, most_units)
    ax = axes(ax)
    _draw_arcs(ax, columns, placed, alive)
    said = _draw_edges(ax, columns, placed, most_edges, useless, style)
    if not live.any():
        said.append("no path is left" if graph.masks.kept else "no parameter is kept")
    _draw_dots(ax, columns, placed)
    if core:
        said.append(_draw_core(ax, graph, columns, placed))
    if placed.largest > 1:
        said.insert(0, f"a dot is up to {placed.largest:,} units")
    _frame(ax, columns, placed, "; ".join(said))
    return ax


class _Placed:
    """Dots: place of each, how many units it stands for, their live share; dot_of[unit]."""

    def __init__(self, columns: Columns, alive: np.ndarray, bypassed: np.ndarray, most: int) -> None:
        count = len(columns.drawn)
        self.bypassed: list[bool] = []
        self.dot_of = np.full(count, -1)
        self.x: list[float] = []
        self.y: list[float] = []
        self.share: list[float] = []
        self.top: dict[int, float] = {}
        self.bottom: dict[int, float] = {}
        self.counts: dict[int, tuple[int, int]] = {}
        self.largest = 1
        self.peak = 0.0  # of the arcs
        place = np.zeros(count)
        before = _incoming(columns)
        widest = max(len(units) for units in columns.units.values())
        lanes: dict[int, list[int]] = {}
        for column in columns.order:
            lanes.setdefault(columns.depth[column], []).append(column)
        for depth, together in lanes.items():
            for lane, column in enumerate(together):
                units = columns.units[column]
                if column in before:  # as high as what feeds it, in the mean
                    sources, targets = before[column]
                    mean = np.bincount(targets, place[sources], count)[units]
                    times = np.bincount(targets, minlength=count)[units]
                    mean = np.where(times > 0, mean / np.maximum(times, 1), 0.5)
                else:
                    mean = np.linspace(1, 0, len(units))
                order = np.lexsort((np.arange(len(units)), -mean, ~alive[units]))
                count_live = int(alive[units].sum())
                half = count_live + (len(units) - count_live) // 2  # dead ones above and below: live ones in the middle
                order = np.concatenate([order[half:], order[:count_live], order[count_live:half]])
                height = (0.4 + 0.6 * np.log1p(len(units)) / np.log1p(widest)) / len(together)
                middle = 0.5 + (0.5 - (lane + 0.5) / len(together))
                height *= 0.9 if len(together) > 1 else 1.0
                parts = np.array_split(units[order], min(most, len(units)))
                heights = middle + height * (0.5 - (np.arange(len(parts)) + 0.5) / len(parts))
                for part, y in zip(parts, heights):
                    self.dot_of[part] = len(self.x)
                    place[part] = y
                    self.x.append(depth)
                    self.y.append(float(y))
                    self.share.append(float(alive[part].mean()))
                    self.bypassed.append(bool(alive[part].any() and bypassed[part][alive[part]].all()))
                    self.largest = max(self.largest, len(part))
                self.top[column], self.bottom[column] = float(heights[0]), float(heights[-1])
                self.counts[column] = int(alive[units].sum()), len(units)


def _incoming(columns: Columns) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Column -> (sources, targets) of all edges that reach it."""
    found: dict[int, list[Link]] = {}
    for link in columns.links:
        found.setdefault(int(columns.column_of(link.target[:1])[0]), []).append(link)
    return {
        column: (np.concatenate([k.source for k in links]), np.concatenate([k.target for k in links]))
        for column, links in found.items()
    }


def _draw_edges(
    ax: Axes, columns: Columns, placed: _Placed, most: int, useless: bool, style: dict[str, Any]
) -> list[str]:
    layers = [link for link in columns.links if link.layer is not None]
    near = [k for k in layers if placed.x[placed.dot_of[k.target[0]]] - placed.x[placed.dot_of[k.source[0]]] == 1]
    rng = np.random.default_rng(0)  # only to take a fair part of edges of equal weight
    drawn = {True: ([], []), False: ([], [])}  # type: dict[bool, tuple[list, list]]
    lines_all = lines_drawn = 0
    for link in near:
        good = columns.effective(link)
        for kind in (True, False) if useless else (True,):
            pairs = placed.dot_of[link.source[good == kind]] * len(placed.x) + placed.dot_of[link.target[good == kind]]
            keys, counts = np.unique(pairs, return_counts=True)
            chosen = np.lexsort((rng.random(len(keys)), -counts))[: max(most // (len(near) * (1 if kind else 4)), 1)]
            lines_all, lines_drawn = lines_all + len(keys), lines_drawn + len(chosen)
            ends = np.stack(np.divmod(keys[chosen], len(placed.x)), axis=1)
            drawn[kind][0].append(ends)
            drawn[kind][1].append(counts[chosen] / max(counts.max(initial=1), 1))
    points = np.column_stack([placed.x, placed.y])
    for kind, colour, label in ((False, _ORANGE, "kept, on no path"), (True, _BLUE, "effective")):
        if drawn[kind][0] and sum(map(len, drawn[kind][0])):
            ends, ink = np.concatenate(drawn[kind][0]), np.concatenate(drawn[kind][1])
            crossing = len(ends) / len(near) / (size_of(ax)[0] / (max(placed.x) + 1))  # lines per point of width
            crowd = np.clip(3 / crossing, 0.12, 0.8)
            look = {"linewidths": 0.25 + 0.5 * ink, "alpha": np.clip(crowd * (0.25 + 0.75 * ink), 0.05, 1), "zorder": 1}
            look |= {"colors": colour, "rasterized": len(ends) > 500, **(style if kind else {})}
            ax.add_collection(LineCollection(list(points[ends]), **look))
            key(ax, label, color=colour, linewidth=1)
    return (
        [f"{lines_drawn:,} of {lines_all:,} lines drawn, the heaviest of each layer"] if lines_drawn < lines_all else []
    )


def _draw_arcs(ax: Axes, columns: Columns, placed: _Placed, alive: np.ndarray) -> None:
    """What jumps over columns, identities and shortcut layers, once for each pair of columns."""
    seen = set()
    for link in columns.links:
        a, b = (int(c) for c in columns.column_of(np.array([link.source[0], link.target[0]])))
        kind = "skip (identity)" if link.layer is None else "skip (layer)"
        gap = columns.depth[b] - columns.depth[a]
        if (a, b, kind) in seen or (link.layer is not None and gap == 1):
            continue
        dead = not (alive[link.source] & alive[link.target]).any()
        x0, x1 = columns.depth[a], columns.depth[b]
        low = max(placed.top[a], placed.top[b]) + 0.02
        high = max(placed.top[c] for c in columns.order if x0 <= columns.depth[c] <= x1) + 0.06 + 0.02 * min(gap, 6)
        high = max(high, low + 0.05) + (0.05 if link.layer is not None else 0)
        path = Path(
            [(x0, placed.top[a] + 0.02), (x0 + 0.15 * gap, high), (x1 - 0.15 * gap, high), (x1, placed.top[b] + 0.02)],
            [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
        )
        colour = RED if dead else GREY if link.layer is None else _BLUE
        dashes: Any = "-" if link.layer is None else (0, (3, 1.5))
        look: dict[str, Any] = {"linewidth": 0.8, "linestyle": dashes, "zorder": 1, "fill": False, "clip_on": False}
        ax.add_patch(PathPatch(path, edgecolor=colour, **look))
        placed.peak = max(placed.peak, 0.75 * high + 0.125 * (placed.top[a] + placed.top[b] + 0.04))
        label = f"{kind}, dead" if dead else kind
        if label not in ax.get_legend_handles_labels()[1]:
            key(ax, label, color=colour, linewidth=1, linestyle=dashes)
        seen.add((a, b, kind))


def _draw_dots(ax: Axes, columns: Columns, placed: _Placed) -> None:
    width, height = size_of(ax)
    room = min(
        width / (len(set(columns.depth.values())) + 1),
        0.5 * height / max(np.bincount(np.array(placed.x, int)).max(), 1),
    )
    size = float(np.clip(0.62 * room, 1.0, 6.0))
    shades = mpl.colors.LinearSegmentedColormap.from_list("live", ["white", _BLUE])
    share = np.array(placed.share)
    edges = np.where(share[:, None] > 0, mpl.colors.to_rgba(_BLUE), mpl.colors.to_rgba("#999999"))
    aside = np.array(placed.bypassed)
    edges = np.where(aside[:, None], mpl.colors.to_rgba(_GOLD), edges)
    fills = np.where(aside[:, None], mpl.colors.to_rgba(_GOLD), shades(share))
    ax.scatter(
        placed.x,
        placed.y,
        s=size**2,
        c=fills,
        edgecolors=list(map(tuple, edges)),
        linewidths=min(0.5, size / 6),
        zorder=3,
    )
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
    key(ax, "live", **look, color=_BLUE)
    if aside.any():
        key(ax, "live by the skip alone", **look, color=_GOLD)
    if (share == 0).any() or ((share < 1) & (share > 0)).any():
        key(ax, "dead", **look, markerfacecolor="white", markeredgecolor="#999999")


def _draw_core(ax: Axes, graph: WiredGraph, columns: Columns, placed: _Placed) -> str:
    """Rings around the dots that hold units of the core, and what is to be said of it."""
    units = numbers(graph).units[core_units(graph)]
    if not len(units):
        return "no core: " + str(tau_core(graph).note)
    dots = np.unique(placed.dot_of[columns.drawn[units]])
    points = np.column_stack([placed.x, placed.y])[dots[dots >= 0]]
    ax.scatter(points[:, 0], points[:, 1], s=36, facecolors="none", edgecolors=RED, linewidths=0.8, zorder=4)
    key(ax, "core of paths", linestyle="none", marker="o", markersize=5, markerfacecolor="none", markeredgecolor=RED)
    score = h_score(graph).number
    return f"{len(units):,} units meet 90 % of paths, hourglass score {score:.2f}"


def _frame(ax: Axes, columns: Columns, placed: _Placed, said: str) -> None:
    depths = sorted(set(columns.depth.values()))
    names = []
    for depth in depths:
        together = [columns.names[c] for c in columns.order if columns.depth[c] == depth]
        names.append(together[0] if len(together) == 1 else f"{together[0]} +{len(together) - 1}")
    ax.set_xlim(-0.5, len(depths) - 0.5)
    counts = {c: f"{a:,}" if a == b else f"{a:,} of {b:,}" for c, (a, b) in placed.counts.items()}
    room = size_of(ax)[0] / len(depths)
    told = len(depths) == len(columns.order) and _fits(counts.values(), room)
    if told:
        for column, text in counts.items():
            look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": small(), "color": GREY}
            ax.annotate(
                text, (columns.depth[column], placed.bottom[column]), (0, -6), textcoords="offset points", **look
            )
    least = min(placed.bottom.values()) - (14 if told else 4) / (0.5 * size_of(ax)[1])
    ax.set_ylim(least, max(placed.peak, *placed.top.values()) + 0.03)
    ax.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        ax.spines[side].set_visible(False)
    rules = name_layers(ax, names)
    ax.tick_params(axis="x", length=0)
    remark(ax, "; ".join(filter(None, (f"{columns.graph.view} view", said, rules))))
    legend(ax)


def _fits(texts: Iterable[str], room: float) -> bool:
    return max(width_of(text, small()) for text in texts) + 0.5 * small() <= room
