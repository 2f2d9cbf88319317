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
    fitted,
    legend,
    log_labels,
    name_x,
    name_y,
    new_figure,
    page_of,
    points,
    series,
    small,
    width_of,
)
from topo.plots.given import choice, labelled, number, report_of, same_network, short
from topo.plots.registry import plot
from topo.report import Report

Data = Sequence[MaskSet] | Mapping[str, MaskSet]
# Names beside an overlap: most that they take of the figure's shorter side. Points of the colour bar and its labels.
_NAMES, _BAR = 0.3, 62.0


@plot("masks")
def mask_overlap(
    data: Data, ax: Axes | None = None, *, layer: str | None = None, order: str = "cluster", **style: Any
) -> Axes:
    """What each pair of masks shares: intersection over union, and how many times what chance would.

    data: two masks of one network or more, or by label. layer: of one layer; by default of all. The colour says how
    many times the overlap is that of chance: masks that keep as many weights in every layer, at random places; white is
    once. order: "cluster" puts like masks side by side (average linkage of 1 - overlap), "given" leaves them. A mask
    with itself is left blank. Pairs that are both empty are crossed out; numbers stand in cells that have room for
    them. style: of the image.

    Raises TopoError if the masks are of different networks (the names or shapes of layers differ), or all are empty.
    """
    given = labelled(data, MaskSet, "an overlap")
    if len(given) < 2:
        raise TopoError("an overlap is drawn of two masks or more; one was given")
    same_network(given, "an overlap")
    choice("order", order, ("cluster", "given"))
    masks, names, n = list(given.values()), list(given) if isinstance(data, Mapping) else short(list(given)), len(given)
    overlap, lift = np.full((2, n, n), math.nan)
    for i in range(n):
        for j in range(n):
            overlap[i, j], lift[i, j] = _shared(masks[i], masks[j], layer)
    if np.isnan(overlap).all():
        within = "" if layer is None else f" in {layer}"
        raise TopoError(f"no mask keeps a parameter{within}: there is no overlap to draw")
    if order == "cluster" and n > 2:
        place = _clustered(overlap)
        overlap, lift, names = overlap[np.ix_(place, place)], lift[np.ix_(place, place)], [names[k] for k in place]
    ax = axes(ax)
    palette = mpl.colormaps["RdBu_r"].with_extremes(bad="#f4f4f4")
    apart = ~np.eye(n, dtype=bool)
    known = lift[apart & np.isfinite(lift) & (lift > 0)]
    far = max(2.0, float(max(known.max(), 1 / known.min()))) if known.size else 2.0
    look = {"cmap": palette, "norm": mpl.colors.LogNorm(1 / far, far), "aspect": "equal" if n > 2 else "auto"}
    shown = np.where(apart & np.isfinite(lift), np.clip(lift, 1 / far, far), math.nan)
    image = ax.imshow(shown, **{**look, **style})
    for i, j in np.argwhere(np.isnan(overlap) & apart).tolist():
        ax.plot([j], [i], "x", color=GREY)
    room = _NAMES * min(page_of(ax))
    if max(width_of(name, small()) for name in names) > room:
        names = clipped(short(names), room, small())
    longest = max(width_of(name, small()) for name in names)
    cell, upright = _cell(page_of(ax), n, longest)
    numbers = width_of("0.00", small()) + 2 <= cell[0] and 1.3 * small() <= cell[1]
    lifts = numbers and 2.6 * small() <= cell[1]
    for i, j in np.argwhere(~np.isnan(overlap) & apart).tolist() if numbers else []:
        text = f"{overlap[i, j]:.2f}" + (f"\n{_times(lift[i, j])}" if lifts and math.isfinite(lift[i, j]) else "")
        deep = abs(math.log(max(lift[i, j], 1e-9))) > 0.7 * math.log(far) if math.isfinite(lift[i, j]) else False
        ax.text(j, i, text, ha="center", va="center", fontsize=small(), color="w" if deep else "black")
    every = max(math.ceil(1.2 * small() / min(cell)), 1)
    ax.set_yticks(range(0, n, every), names[::every])
    ax.set_xticks(range(0, n, every), names[::every], rotation=90 if upright else 0)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if np.isnan(overlap[apart]).any():
        name_x(ax, "crossed out: neither keeps a parameter")
    where = "all layers" if layer is None else layer
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=25)
    said = "overlap (IoU), times chance" + (f"\n{where}; IoU above" if numbers and lifts else f", {where}")
    bar.set_label(fitted(said, n * cell[1], points(mpl.rcParams["axes.labelsize"])))
    ticks = [tick for tick in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100) if 0.999 / far <= tick <= 1.001 * far]
    bar.set_ticks(ticks, labels=[f"{tick:g}x" for tick in ticks])
    bar.ax.minorticks_off()
    return ax


def _clustered(overlap: np.ndarray) -> list[int]:
    """Places of masks, like ones side by side: leaves of average linkage of 1 - overlap, NaN as far as can be."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    apart = 1 - np.nan_to_num(overlap)
    np.fill_diagonal(apart, 0)
    return [int(k) for k in leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))]


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
_SHARES = ("exploration", "survived")


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
    the right, as a share of its largest unless it is a share itself; or exploration, survived or degree_drift
    (`topo.compare.trajectory`); it is NaN, with the reason below, where it needs a wiring and there is none. wiring: a
    Wiring, a model's name or a torch module. steps: where the masks stand on the axis. style: of the lines.

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
    half = width / 2
    left.bar(x[1:] - half / 2, born, half, color=colour(2), label="born")
    left.bar(x[1:] + half / 2, died, half, color=colour(1), hatch="///", edgecolor="white", linewidth=0, label="pruned")
    name_y(left, "share of weights, per step")
    left.set_ylim(bottom=0)
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
    name_y(right, "share" if drawn and "density" not in metric else "share of weights")
    look = {"marker": "^", "color": colour(3), "linestyle": ":", "markersize": mpl.rcParams["lines.markersize"] + 0.5}
    named = metric.replace("_", " ")
    if drawn:
        if "density" not in metric and metric not in _SHARES:  # one axis for all: as a share of the largest
            largest = float(np.nanmax(np.abs(values))) or 1.0
            values, named = values / largest, f"{named}, of {largest:.3g}"
        right.plot(x, values, **{**look, "label": named, **style})
    positive = [v for v in (*survivors, *(m.density for m in masks)) if v > 0]
    negative = drawn and bool((values[np.isfinite(values)] <= 0).any())
    if max(positive) > 20 * min(positive) and not negative:
        right.set_yscale("log")
        log_labels(right.yaxis)
    elif not negative:
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
