"""Several masks of one network beside each other: how much they share, and how they change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from topo.compare import compare, trajectory
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.plots.axes import (
    GREY,
    axes,
    clipped,
    colour,
    key,
    legend,
    log_labels,
    name_x,
    name_y,
    new_figure,
    page_of,
    series,
    small,
    width_of,
)
from topo.plots.given import labelled, number, report_of, same_network, short
from topo.plots.registry import plot
from topo.report import Report

Data = Sequence[MaskSet] | Mapping[str, MaskSet]
# Names beside an overlap: most that they take of the figure's shorter side. Points of the colour bar and its labels.
_NAMES, _BAR = 0.3, 62.0


@plot("masks")
def mask_overlap(data: Data, ax: Axes | None = None, *, layer: str | None = None, **style: Any) -> Axes:
    """What each pair of masks shares: intersection over union, and how many times what chance would.

    data: two masks of one network or more, or by label. layer: of one layer; by default of all. Chance: masks that keep
    as many weights in every layer, at random places. Pairs that are both empty are crossed out; numbers stand in cells
    that have room for them. style: of the image.

    Raises TopoError if the masks are of different networks (the names or shapes of layers differ), or all are empty.
    """
    given = labelled(data, MaskSet, "an overlap")
    if len(given) < 2:
        raise TopoError("an overlap is drawn of two masks or more; one was given")
    same_network(given, "an overlap")
    masks, names, n = list(given.values()), list(given) if isinstance(data, Mapping) else short(list(given)), len(given)
    overlap, lift = np.full((2, n, n), math.nan)
    for i in range(n):
        for j in range(n):
            overlap[i, j], lift[i, j] = _shared(masks[i], masks[j], layer)
    if np.isnan(overlap).all():
        within = "" if layer is None else f" in {layer}"
        raise TopoError(f"no mask keeps a parameter{within}: there is no overlap to draw")
    ax = axes(ax)
    palette = mpl.colormaps["cividis"].with_extremes(bad="white")
    look = {"cmap": palette, "vmin": 0, "vmax": 1, "aspect": "equal" if n > 2 else "auto"}
    image = ax.imshow(overlap, **{**look, **style})
    for i, j in np.argwhere(np.isnan(overlap)).tolist():
        ax.plot([j], [i], "x", color=GREY)
    room = _NAMES * min(page_of(ax))
    if max(width_of(name, small()) for name in names) > room:
        names = clipped(short(names), room, small())
    longest = max(width_of(name, small()) for name in names)
    cell, upright = _cell(page_of(ax), n, longest)
    numbers = width_of("0.00", small()) + 2 <= cell[0] and 1.3 * small() <= cell[1]
    lifts = numbers and 2.6 * small() <= cell[1]
    for i, j in np.argwhere(~np.isnan(overlap)).tolist() if numbers else []:
        against = i != j and lifts and math.isfinite(lift[i, j])
        text = f"{overlap[i, j]:.2f}" + (f"\n{_times(lift[i, j])}" if against else "")
        ax.text(j, i, text, ha="center", va="center", fontsize=small(), color="black" if overlap[i, j] > 0.5 else "w")
    every = max(math.ceil(1.2 * small() / min(cell)), 1)
    ax.set_yticks(range(0, n, every), names[::every])
    ax.set_xticks(range(0, n, every), names[::every], rotation=90 if upright else 0)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if np.isnan(overlap).any():
        name_x(ax, "crossed out: neither keeps a parameter")
    where = "all layers" if layer is None else layer
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=25)
    bar.set_label(f"overlap (IoU), {where}" + ("\nbelow it: times chance" if lifts else ""))
    return ax


def _cell(page: tuple[float, float], n: int, longest: float) -> tuple[tuple[float, float], bool]:
    """Width and height of a cell in points, roughly, and whether names that are `longest` points stand upright."""
    across = (page[0] - longest - _BAR) / n
    upright = longest + small() > min(across, (page[1] - 3 * small()) / n if n > 2 else across)
    up = (page[1] - small() - (longest if upright else 2 * small())) / n
    return (min(across, up), min(across, up)) if n > 2 else (across, up), upright


def _times(lift: float) -> str:
    return f"{lift:.0f}x" if lift >= 10 else f"{lift:.1f}x"


def _shared(a: MaskSet, b: MaskSet, layer: str | None) -> tuple[float, float]:
    """Overlap, and overlap over that of random masks with the same layer densities."""
    found = compare(a, b)
    layers = found.layers
    if layer is not None:
        layers = tuple(e for e in layers if e["layer"] in (layer, f"{layer}.weight"))
        if not layers:
            known = ", ".join(e["layer"] for e in found.layers)
            raise TopoError(f"no layer is called '{layer}' in both masks; there are: {known}")
    both, kept = sum(e["both"] for e in layers), sum(e["kept_a"] + e["kept_b"] for e in layers)
    chance = sum(e["kept_a"] * e["kept_b"] / e["size"] for e in layers)
    if kept == both:  # nothing is kept
        return math.nan, math.nan
    overlap = both / (kept - both)
    return overlap, overlap / (chance / (kept - chance)) if chance else math.nan


_OF_SERIES = ("exploration", "degree_drift", "survived")


@plot("masks")
def mask_dynamics(
    data: Data,
    fig: Figure | SubFigure | None = None,
    *,
    metric: str = "effective_density",
    wiring: Any = None,
    steps: Sequence[float] | None = None,
    **style: Any,
) -> Figure | SubFigure:
    """How masks change over rounds or epochs: weights born and pruned, what is left, and a metric.

    data: two masks of one network or more, in order; labels that are numbers are the steps. metric: of the network, on
    the right, or exploration, survived or degree_drift (`topo.compare.trajectory`); it is NaN, with the reason below,
    where it needs a wiring and there is none. wiring: a Wiring, a model's name or a torch module. steps: where the
    masks stand on the axis. style: of the lines.

    Raises TopoError if the masks are of different networks (the names or shapes of layers differ), or all are empty.
    """
    given = labelled(data, MaskSet, "a course of masks")
    if len(given) < 2:
        raise TopoError("a course is drawn of two masks or more; one was given")
    same_network(given, "a course")
    if not any(item.kept for item in given.values()):
        raise TopoError("no mask keeps a parameter: there is no course to draw")
    masks = list(given.values())
    x = np.asarray(_steps(list(given)) if steps is None else steps, float)
    if len(x) != len(masks):
        raise TopoError(f"there are {len(x)} steps for {len(masks)} masks")
    fig = new_figure(fig)
    left, right = fig.subplots(1, 2)
    found = [compare(a, b).total for a, b in pairwise(masks)]
    size = masks[0].size
    born, died = (np.array([entry[key] for entry in found]) / size for key in ("only_b", "only_a"))
    width = 0.6 * float(np.diff(x).min())
    left.bar(x[1:], born, width, color=colour(2), label="born")
    left.bar(x[1:], -died, width, color=colour(1), hatch="///", edgecolor="white", linewidth=0, label="pruned")
    left.axhline(0, color=GREY, linewidth=0.6)
    name_y(left, "share of weights, per step")
    left.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.3g}")
    legend(left)
    survivors = [compare(masks[0], m).total["both"] / size for m in masks]
    if metric in _OF_SERIES:
        course = trajectory(dict(enumerate(masks)), None if wiring is None else find_wiring(wiring))  # type: ignore[arg-type]
        values = np.array([entry[metric] for entry in course])
    else:
        reports: list[Report] = [report_of(m, f"density,{metric}", wiring) for m in masks]
        values = np.array([number(r.network.get(metric)) for r in reports])
    values[~np.isfinite(values)] = math.nan
    drawn = metric != "density" and not np.isnan(values).all()
    look: dict[str, Any] = {**series(0), "label": "kept"}
    right.plot(x, [m.density for m in masks], **{**look, **style})
    look = {"marker": "s", "color": colour(4), "linestyle": "--", "markerfacecolor": "white"}
    right.plot(x, survivors, **{**look, "label": "of the first", **style})
    name_y(right, "share of weights")
    look = {"marker": "^", "color": colour(3), "linestyle": ":", "markersize": mpl.rcParams["lines.markersize"] + 0.5}
    if drawn:
        extra = right
        if "density" not in metric:
            extra = right.twinx()
            extra.spines["right"].set_visible(True)
            name_y(extra, metric.replace("_", " "))
        extra.plot(x, values, **{**look, **style})
        key(right, metric.replace("_", " "), **look)
    positive = [v for v in (*survivors, *(m.density for m in masks)) if v > 0]
    if max(positive) > 20 * min(positive):
        right.set_yscale("log")
        log_labels(right.yaxis)
    else:
        right.set_ylim(bottom=0)
    legend(right)
    for ax in (left, right):
        ax.set_xlim(x[0] - 0.7 * width, x[-1] + 0.7 * width)
        missing = ax is right and np.isnan(values).all()
        name_x(ax, "step" + (f" ({metric.replace('_', ' ')}: undefined)" if missing else ""))
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=bool((x == np.round(x)).all())))
    return fig


def _steps(labels: Sequence[str]) -> list[float]:
    try:
        return [float(label) for label in labels]
    except ValueError:
        return [float(i) for i in range(len(labels))]
