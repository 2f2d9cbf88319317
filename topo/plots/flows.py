"""Where the paths of a network run: the share of all paths through each unit, as a flow from column to column."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from topo.errors import TopoError
from topo.graph import Block, WiredGraph, paths
from topo.graph.columns import Columns, Link
from topo.metrics.paths import unit_centrality
from topo.plots.axes import GREY, axes, key, legend, name_layers, remark, size_of, small, width_of
from topo.plots.given import Masked, one, wired
from topo.plots.registry import plot
from topo.wiring import Wiring

_CORE, _REST, _SKIP = "#0072B2", "#9ecae1", "#E69F00"
# Columns of fewer points are drawn without gaps between their bars.
_GAPS = 14.0
_DEEP = 9  # columns; more are drawn with fewer bars
_BAR = 0.07  # half the width of a column


@dataclass
class _Bars:
    """The bars of a column, from below: units that are drawn one by one, the rest of the core, the rest."""

    shares: np.ndarray
    core: np.ndarray
    units: int
    core_units: int
    low: np.ndarray = field(default_factory=lambda: np.zeros(0))


@plot("graphs")
def path_flow(
    data: Masked,
    ax: Axes | None = None,
    *,
    wiring: Wiring | str | Any | None = None,
    tau: float = 0.9,
    most_units: int | None = None,
    **style: Any,
) -> Axes:
    """The share of all paths through each unit, layer by layer, and the core of units that carry most.

    Every column of the picture adds up to all paths from inputs to outputs. Dark are the fewest units of a column that
    carry the share `tau` of its paths, light the others; the `most_units` largest (5 in deep networks, 12 in others,
    unless given) are bars of their own. Ribbons are the paths between two bars; what passes a column by, a skip, runs
    above it.
    data: masks or a graph. wiring: of masks that are not a plain chain. style: of the ribbons.

    Raises TopoError if no path is left.
    """
    if not 0 < tau <= 1:
        raise TopoError(f"tau is {tau}; it is a share over 0, up to 1")
    if most_units is not None and most_units < 1:
        raise TopoError(f"most_units is {most_units}; it is 1 or more")
    graph = wired(one(data, Masked, "a flow of paths"), wiring, "a flow of paths")
    centrality = unit_centrality(graph)
    if np.isnan(centrality).any():
        raise TopoError("no path from the inputs to the outputs is left: there is no flow to draw")
    columns = Columns(graph)
    if most_units is None:
        most_units = 12 if max(columns.depth.values()) < _DEEP else 5
    share = np.append(centrality, 0.0)
    bars: dict[int, _Bars] = {}
    bar_of = np.zeros(len(share), int)
    for column in columns.order:
        bars[column], places = _bars(share[columns.units[column]], tau, most_units)
        bar_of[columns.units[column]] = places
    flows = _flows(columns, share, bar_of, bars)
    ax = axes(ax)
    passing = _stack(columns, bars, flows)
    _draw(ax, columns, bars, flows, passing, style)
    _frame(ax, columns, bars, tau)
    return ax


def _bars(shares: np.ndarray, tau: float, most: int) -> tuple[_Bars, np.ndarray]:
    """The bars of a column, and for each unit the number of its bar."""
    order = np.argsort(-shares, kind="stable")
    running = np.cumsum(shares[order])
    core_units = int(np.searchsorted(running, tau * running[-1] * (1 - 1e-12))) + 1 if running[-1] > 0 else 0
    alone = min(most, int(np.count_nonzero(shares)))
    place = np.empty(len(shares), int)
    ranks = np.arange(len(shares))
    place[order] = np.where(ranks < alone, ranks, np.where(ranks < core_units, alone, alone + 1))
    sums = np.bincount(place, shares, alone + 2)
    core = np.append(np.arange(alone) < core_units, [True, False])
    return _Bars(sums, core, int(np.count_nonzero(shares)), core_units), place


Flow = tuple[int, int, np.ndarray]  # from column, to column, shares by (bar, bar)


def _flows(columns: Columns, share: np.ndarray, bar_of: np.ndarray, bars: dict[int, _Bars]) -> list[Flow]:
    summed: dict[tuple[int, int], np.ndarray] = {}
    for link in columns.links:
        amounts = _amounts(columns.graph, link)
        if amounts is None:
            continue
        ends = np.stack([columns.column_of(link.source), columns.column_of(link.target)])
        for a, b in np.unique(ends, axis=1).T.tolist():
            mine = (ends[0] == a) & (ends[1] == b)
            shape = (len(bars[a].shares), len(bars[b].shares))
            table = summed.setdefault((a, b), np.zeros(shape))
            np.add.at(table, (bar_of[link.source[mine]], bar_of[link.target[mine]]), amounts[mine])
    return [(a, b, table) for (a, b), table in summed.items() if table.sum() > 1e-12]


def _amounts(graph: WiredGraph, link: Link) -> np.ndarray | None:
    """Share of all paths along each edge of a link: F_i M_ij B_j / P; of a gate only the value branch carries paths."""
    walk = paths.counts(graph)
    mantissa, exponent = walk.forward_total()
    step = graph.steps[link.step]
    behind = walk.backward[link.step + 1]
    if isinstance(step, Block):
        ahead = walk.gather(step.reads)
        multiplicity = step.rows.unpack().reshape(step.shape[0], step.shape[1], -1).sum(axis=2)
        if graph.view == "unit":
            multiplicity = np.minimum(multiplicity, 1)
        group = link.rows // (step.shape[0] // step.groups)
        before = ahead.mantissa[group * step.shape[1] + link.columns]
        made = before * multiplicity[link.rows, link.columns] * behind.mantissa[link.rows] / mantissa
    else:
        if step.kind == "score":
            return None
        if step.kind == "gate" and link.read is not step.operands[0]:
            return None
        ahead = walk.gather(link.read)
        made = ahead.mantissa[link.rows] * behind.mantissa[link.rows] / mantissa
    shift = int(np.clip(ahead.exponent + behind.exponent - exponent, -2000, 2000))
    return np.asarray(np.ldexp(made, shift))


def _stack(columns: Columns, bars: dict[int, _Bars], flows: list[Flow]) -> dict[tuple[int, int, int], float]:
    """Heights: bars of each column from below, then what passes it by; (from, to, depth) -> where a skip begins."""
    passing: dict[tuple[int, int, int], float] = {}
    for depth in sorted(set(columns.depth.values())):
        level = 0.0
        for column in (c for c in columns.order if columns.depth[c] == depth):
            bars[column].low = level + np.concatenate([[0.0], np.cumsum(bars[column].shares)[:-1]])
            level += float(bars[column].shares.sum()) + 0.03 * (bars[column].units > 0)
        for a, b, table in sorted(flows, key=lambda f: (columns.depth[f[1]], columns.depth[f[0]])):
            if columns.depth[a] < depth < columns.depth[b]:
                passing[a, b, depth] = level
                level += float(table.sum())
    return passing


def _draw(
    ax: Axes,
    columns: Columns,
    bars: dict[int, _Bars],
    flows: list[Flow],
    passing: dict[tuple[int, int, int], float],
    style: dict[str, Any],
) -> None:
    out = {c: b.low.copy() for c, b in bars.items()}
    into = {c: b.low.copy() for c, b in bars.items()}
    ribbons: dict[str, list[np.ndarray]] = {_CORE: [], _REST: [], _SKIP: []}
    for a, b, table in sorted(flows, key=lambda f: columns.depth[f[1]] - columns.depth[f[0]]):
        stops = range(columns.depth[a] + 1, columns.depth[b])
        if not len(stops):
            for i, j in np.argwhere(table > 2e-4).tolist():
                colour = _CORE if bars[a].core[i] and bars[b].core[j] else _REST
                ends = (columns.depth[a] + _BAR, out[a][i], columns.depth[b] - _BAR, into[b][j])
                ribbons[colour].append(_ribbon(*ends, float(table[i, j])))
                out[a][i] += table[i, j]
                into[b][j] += table[i, j]
            continue
        for i, amount in enumerate(table.sum(axis=1).tolist()):
            if amount > 2e-4:
                low = passing[a, b, stops[0]] + float(table.sum(axis=1)[:i].sum())
                ribbons[_SKIP].append(_ribbon(columns.depth[a] + _BAR, out[a][i], stops[0], low, amount))
                out[a][i] += amount
        for left, right in pairwise(stops):
            ends = (left, passing[a, b, left], right, passing[a, b, right])
            ribbons[_SKIP].append(_ribbon(*ends, float(table.sum())))
        for j, amount in enumerate(table.sum(axis=0).tolist()):
            if amount > 2e-4:
                low = passing[a, b, stops[-1]] + float(table.sum(axis=0)[:j].sum())
                ribbons[_SKIP].append(_ribbon(stops[-1], low, columns.depth[b] - _BAR, into[b][j], amount))
                into[b][j] += amount
    count = sum(map(len, ribbons.values())) > 300
    for colour, label in ((_REST, None), (_CORE, None), (_SKIP, "skips")):
        if ribbons[colour]:
            look = {"facecolors": colour, "linewidths": 0, "alpha": 0.3, "zorder": 1, "rasterized": count, **style}
            ax.add_collection(PolyCollection(ribbons[colour], label=label, **look))
    wide = size_of(ax)[0] / (max(columns.depth.values()) + 1) >= _GAPS
    for column in columns.order:
        x = columns.depth[column] - _BAR
        for low, height, core in zip(bars[column].low, bars[column].shares, bars[column].core):
            if height > 1e-6:
                look = {"facecolor": _CORE if core else _REST, "edgecolor": "white", "zorder": 3}
                ax.add_patch(
                    Rectangle((x, low), 2 * _BAR, height, linewidth=0.3 if height > 0.01 and wide else 0, **look)
                )


def _ribbon(x0: float, y0: float, x1: float, y1: float, height: float) -> np.ndarray:
    """Corners of a band of equal height that leaves and arrives level."""
    t = np.linspace(0, 1, 17)
    x, y = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t * t * (3 - 2 * t)
    return np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([y, y[::-1] + height])])


def _frame(ax: Axes, columns: Columns, bars: dict[int, _Bars], tau: float) -> None:
    depths = sorted(set(columns.depth.values()))
    names: list[str] = []
    for depth in depths:
        every = [c for c in columns.order if columns.depth[c] == depth]
        together = [c for c in every if bars[c].units] or every
        names.append(columns.names[together[0]] + (f" +{len(together) - 1}" if len(together) > 1 else ""))
    ax.set_xlim(-0.5, len(depths) - 0.5)
    ax.set_ylim(0, max(float(b.low[-1] + b.shares[-1]) for b in bars.values()) + 0.08)
    ax.set_ylim(top=max(1.06, ax.get_ylim()[1]))
    ax.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.set_ylabel("share of all paths")
    key(ax, f"core: the fewest with {100 * tau:g} % of the paths", marker="s", linestyle="none", color=_CORE)
    key(ax, "other units", marker="s", linestyle="none", color=_REST)
    name_layers(ax, names)
    ax.tick_params(axis="x", length=0)
    said = _counts(ax, columns, bars, size_of(ax)[0] / len(depths))
    remark(ax, "; ".join(filter(None, (f"{columns.graph.view} view", said, name_layers(ax, names)))))
    legend(ax)


def _counts(ax: Axes, columns: Columns, bars: dict[int, _Bars], room: float) -> str:
    """Over each place the units of its core, of how many if `room` points hold it; in words, what it is."""
    stacked: dict[int, list[_Bars]] = {}
    for column in columns.order:
        if bars[column].units:
            stacked.setdefault(columns.depth[column], []).append(bars[column])
    core = {depth: sum(b.core_units for b in found) for depth, found in stacked.items()}
    top = {depth: max(float(b.low[0] + b.shares.sum()) for b in found) for depth, found in stacked.items()}
    long = {depth: f"{core[depth]:,} of {sum(b.units for b in found):,}" for depth, found in stacked.items()}
    brief = {depth: f"{units:,}" for depth, units in core.items()}
    for texts, said in ((long, "above: units in the core, of all live ones"), (brief, "above: units in the core")):
        if max(width_of(text, small()) for text in texts.values()) + 0.5 * small() <= room:
            for depth, text in texts.items():
                look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": small(), "color": GREY}
                ax.annotate(text, (depth, top[depth]), (0, 2), textcoords="offset points", **look)
            return said
    return ""
