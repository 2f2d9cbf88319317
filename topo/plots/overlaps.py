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
from matplotlib.ticker import MaxNLocator, NullFormatter

from topo.compare import compare
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.plots import plot
from topo.plots.furniture import GREY, axes, legend, log_ticks, new_figure, small
from topo.plots.given import labelled, report_of, short
from topo.report import Report

Data = Sequence[MaskSet] | Mapping[str, MaskSet]
# More masks than this have no room for numbers in their cells.
_NUMBERS = 12


@plot("masks")
def mask_overlap(data: Data, ax: Axes | None = None, *, layer: str | None = None, **style: Any) -> Axes:
    """How much each pair of masks shares: intersection over union, and how many times what chance would share.

    data: two masks of one network or more, or by label. layer: of one layer; by default of all. Chance: masks that keep
    as many weights in every layer, at random places. Pairs that are both empty are crossed out. style: of the image.
    """
    given = labelled(data, MaskSet, "an overlap")
    if len(given) < 2:
        raise TopoError("an overlap is drawn of two masks or more; one was given")
    ax = axes(ax)
    masks, names, n = list(given.values()), list(given) if isinstance(data, Mapping) else short(list(given)), len(given)
    overlap, lift = np.full((2, n, n), math.nan)
    for i in range(n):
        for j in range(n):
            overlap[i, j], lift[i, j] = _shared(masks[i], masks[j], layer)
    palette = mpl.colormaps["cividis"].with_extremes(bad="white")
    look = {"cmap": palette, "vmin": 0, "vmax": 1, "aspect": "equal" if n > 2 else "auto"}
    image = ax.imshow(overlap, **{**look, **style})
    for i, j in np.argwhere(np.isnan(overlap)).tolist():
        ax.plot([j], [i], "x", color=GREY)
    if n <= _NUMBERS:
        size = min(small(), 60 / n)
        for i, j in np.argwhere(~np.isnan(overlap)).tolist():
            text = f"{overlap[i, j]:.2f}" + (f"\n{_times(lift[i, j])}" if i != j and n <= 8 else "")
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color="black" if overlap[i, j] > 0.5 else "w")
    longest = max(map(len, names))
    ax.set_yticks(range(n), names)
    upright = longest * n > 36
    ax.set_xticks(range(n), names, rotation=90 if upright else 0)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    where = "all layers" if layer is None else layer
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=25)
    bar.set_label(f"overlap (IoU), {where}" + ("\nbelow it: times chance" if n <= 8 else ""))
    return ax


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
    """How masks change over rounds or epochs: weights born and pruned at each step, what is left, and a metric.

    data: two masks of one network or more, in order; labels that are numbers are the steps. metric: of the network, on
    the right; it is NaN, with the reason below, where it needs a wiring and there is none. wiring: a Wiring, a model's
    name or a torch module. steps: where the masks stand on the axis. style: of the lines.
    """
    given = labelled(data, MaskSet, "a course of masks")
    if len(given) < 2:
        raise TopoError("a course is drawn of two masks or more; one was given")
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
    left.bar(x[1:], born, width, color="C2", label="born")
    left.bar(x[1:], -died, width, color="C1", hatch="///", edgecolor="white", linewidth=0, label="pruned")
    left.axhline(0, color=GREY, linewidth=0.6)
    left.set_ylabel("share of weights, per step")
    left.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.3g}")
    legend(left)
    survivors = [compare(masks[0], m).total["both"] / size for m in masks]
    reports: list[Report] = [report_of(m, f"density,{metric}", wiring) for m in masks]
    values = np.array([float(r.network.get(metric, math.nan)) for r in reports])
    right.plot(x, [m.density for m in masks], **{"marker": "o", "color": "C0", "label": "kept", **style})
    look = {"marker": "s", "color": "C4", "linestyle": "--", "markerfacecolor": "white"}
    right.plot(x, survivors, **{**look, "label": "from the first mask", **style})
    right.set_ylabel("share of weights")
    if "density" in metric:
        extra = right
    else:
        extra = right.twinx()
        extra.spines["right"].set_visible(True)
        extra.set_ylabel(metric.replace("_", " "))
    look = {"marker": "^", "color": "C3", "linestyle": ":", "markersize": mpl.rcParams["lines.markersize"] + 0.5}
    if np.isfinite(values).any() and metric != "density":
        extra.plot(x, np.where(np.isfinite(values), values, math.nan), **{**look, **style})
        right.plot([], [], **look, label=metric.replace("_", " "))
    positive = [v for v in (*survivors, *(m.density for m in masks)) if v > 0]
    if max(positive) > 20 * min(positive):
        right.set_yscale("log")
        ticks = log_ticks(min(positive), max(positive))
        right.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
        right.yaxis.set_minor_formatter(NullFormatter())
    else:
        right.set_ylim(bottom=0)
    legend(right)
    for ax in (left, right):
        ax.set_xlim(x[0] - 0.7 * width, x[-1] + 0.7 * width)
        missing = not np.isfinite(values).any() and metric != "density" and ax is right
        ax.set_xlabel("step" + (f" ({metric.replace('_', ' ')}: undefined)" if missing else ""))
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=bool((x == np.round(x)).all())))
    return fig


def _steps(labels: Sequence[str]) -> list[float]:
    try:
        return [float(label) for label in labels]
    except ValueError:
        return [float(i) for i in range(len(labels))]
