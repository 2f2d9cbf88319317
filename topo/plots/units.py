"""Units that do nothing: how many of each layer have no edge, or edges that lie on no path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo.graph import LayeredGraph
from topo.masks import MaskSet
from topo.plots.axes import RED, axes, colour, legend, name_layers, name_x, name_y, nothing, series, whole_ticks
from topo.plots.given import choice, labelled, report_of, same_network
from topo.plots.registry import plot
from topo.plots.seeds import check_spread, draw_spread, said_of, series_of
from topo.report import Report

_METRICS = "kept,density,effective_params,dead_in,dead_out,effective_in,effective_out"
SIDES = ("out", "in")


@plot("reports", _METRICS)
def dead_units(
    data: Any,
    ax: Axes | None = None,
    *,
    side: str = "out",
    group: str = "auto",
    interval: str = "t95",
    show: str = "bars",
    wiring: Any = None,
    **style: Any,
) -> Axes:
    """Units of each layer that do nothing: without an edge, and with edges that lie on no path.

    data: reports with dead_out and effective_out (dead_in, effective_in), or masks, one or several or by label. side:
    "out", output units of each layer, or "in", its input units. One mask has bars; several have a line each, masks that
    differ in their seed one of means (group, interval, show: as of `layer_profile`). Output units off all paths take
    the wiring and the shapes of layers; where these are not known (reports in .csv), and of inputs, only units without
    an edge are drawn, and that is said. wiring: of masks that are not a plain chain. style: of bars or lines.

    Raises TopoError if the masks are of different networks.
    """
    choice("side", side, SIDES)
    check_spread(interval, show)
    given = labelled(data, Report | MaskSet | LayeredGraph, "a figure of dead units")
    same_network(given, "a figure of dead units")
    reports = {label: report_of(item, _METRICS, wiring) for label, item in given.items()}
    grouped = series_of(reports, data, group, "dead units")
    layers = [entry["layer"] for entry in next(iter(reports.values())).layers]
    counts = {label: [_counts(report, side) for report in held] for label, held in grouped.items()}
    known = all(np.isfinite(off).all() for held in counts.values() for _, off in held)
    ax = axes(ax)
    x = range(len(layers))
    if len(counts) == 1 and len(next(iter(counts.values()))) == 1:
        none, off = next(iter(counts.values()))[0]
        ax.bar(x, none, **{"color": colour(1), "width": 0.7, "label": "no edge", **style})
        if known:
            more = {"color": colour(4), "width": 0.7, "label": "edges, but on no path", "hatch": "///"}
            ax.bar(x, off, bottom=none, edgecolor="white", linewidth=0, **{**more, **style})
    else:
        for i, (label, held) in enumerate(counts.items()):
            values = [[float(a[k] + (b[k] if known else 0)) for a, b in held] for k in x]
            look: dict[str, Any] = series(i)
            ax.plot(x, [float(np.mean(found)) for found in values], **{**look, "label": label, **style})
            draw_spread(ax, x, values, interval, show, look["color"])
    sums = [float(a[k] + (b[k] if known else 0)) for held in counts.values() for a, b in held for k in x]
    every = [number for number in sums if math.isfinite(number)]
    unknown = [k for k in x if not all(math.isfinite(a[k]) for held in counts.values() for a, _ in held)]
    whole_ticks(ax.yaxis, every)
    ax.set_xlim(-0.6, len(layers) - 0.4)
    ax.set_ylim(bottom=0, top=1.05 * max(every) if any(every) else 1)
    if not any(every):
        none_known = "nothing to draw: undefined in every layer"
        said = "no unit is dead" + (" where that is known" if unknown else "")
        nothing(ax, none_known if len(unknown) == len(layers) else said)
    name_layers(ax, layers)
    most = max(map(len, counts.values()))
    said = said_of(interval, show, most)
    told = [f"{said} masks"] if said else []
    told += [] if known else ["units off all paths are not known"]
    told += [f"undefined in {len(unknown):,} of {len(layers):,} layers"] if 0 < len(unknown) < len(layers) else []
    if told:
        name_x(ax, f"{ax.get_xlabel()} ({'; '.join(told)})")
    name_y(ax, f"dead {'output' if side == 'out' else 'input'} units")
    collapsed = {name for report in reports.values() for name in report.collapsed}
    places = [place for place, name in enumerate(layers) if name in collapsed]
    if places:
        ax.plot(places, [0] * len(places), transform=ax.get_xaxis_transform(), linestyle="none", marker="x", color=RED,
                label="collapsed", clip_on=False, zorder=5)  # fmt: skip
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    legend(ax, list(counts))
    return ax


def _counts(report: Report, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each layer: units without an edge; others that lie on no path; both NaN where they are not known.

    How many inputs a layer has, its shape does not say: it may be in groups.
    """
    none, off = [], []
    for entry in report.layers:
        none.append(float(entry.get(f"dead_{side}", math.nan)))
        units = entry["shape"][0] if side == "out" and len(entry["shape"]) > 1 else math.nan
        rest = units - none[-1] - float(entry.get(f"effective_{side}", math.nan))
        off.append(rest if rest >= 0 else math.nan)
    return np.array(none), np.array(off)
