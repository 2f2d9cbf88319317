"""Heat maps: a number of each layer of many masks."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.plots.axes import GREY, RED, axes, clipped, name_layers, name_x, page_of, size_of, small, width_of
from topo.plots.given import labelled, same_network, worded
from topo.plots.profiles import analysed, mean_profiles
from topo.plots.registry import plot
from topo.report import Report

_DECADES = 20.0
# Most that names of masks take of the page's width, and the room of a line of type, times its size.
_NAMES, _LINE = 0.32, 1.25


@plot("reports")
def metric_heatmap(
    data: Any,
    ax: Axes | None = None,
    *,
    metric: str = "density",
    group: str = "none",
    wiring: Any = None,
    **style: Any,
) -> Axes:
    """A number of each layer (across) of each mask (down), as colour.

    data: reports or masks of one network, several or by label. metric: of layers, as of `layer_profile`. The colours
    are logarithmic where positive numbers span decades. A red cross is a layer without (effective) parameters, a grey
    point one where the number is undefined. group: "none", a line a mask; "auto" means over masks that differ in their
    seed; or columns of the provenance with commas between, of which a line is the mean. wiring: of masks that are not a
    plain chain. style: of the image.

    Raises TopoError if the masks are of different networks, or a report lacks the metric.
    """
    given = labelled(data, Report | MaskSet, "a heat map")
    same_network(given, "a heat map")
    net = None if wiring is None else find_wiring(wiring)
    seen = {label: analysed(item, metric, net) for label, item in given.items()}
    profiles = mean_profiles(seen, data, metric, group, "heat maps")
    layers = list(dict.fromkeys(name for profile in profiles for name in profile.values))
    cells = np.array([[profile.values.get(name, math.nan) for name in layers] for profile in profiles])
    finite = cells[np.isfinite(cells)]
    positive = finite[finite > 0]
    log = positive.size and (finite >= 0).all() and positive.max() > _DECADES * positive.min()
    ax = axes(ax)
    norm = mpl.colors.LogNorm(positive.min(), positive.max()) if log else None
    palette = mpl.colormaps["cividis"].with_extremes(bad="white")
    shown = np.where(np.isfinite(cells) & ((cells > 0) | (not log)), cells, math.nan)
    look = {"cmap": palette, "norm": norm, "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(shown, **{**look, **style})
    told = _marks(ax, profiles, layers, shown)
    names = [profile.label for profile in profiles]
    room = _NAMES * page_of(ax)[0]
    if max(width_of(name, small()) for name in names) > room:
        names = clipped(names, room, small())
    every = math.ceil(len(names) * _LINE * small() / (0.6 * size_of(ax)[1]))
    ax.set_yticks(range(0, len(names), every), names[::every], fontsize=small())
    name_layers(ax, layers)
    told += [f"one mask in {every} named"] if every > 1 else []
    if told:
        name_x(ax, f"{ax.get_xlabel()} ({'; '.join(told)})".replace(") (", "; "))
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if finite.size:
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=25)
        bar.set_label(worded(metric))
        if log:
            _plain(bar)
    return ax


def _marks(ax: Axes, profiles: Any, layers: Any, shown: np.ndarray) -> list[str]:
    """Crosses of collapsed layers and points of undefined numbers; what they are, in words."""
    collapsed = [(x, y) for y, p in enumerate(profiles) for x, name in enumerate(layers) if name in p.collapsed]
    undefined = [(x, y) for y, x in np.argwhere(np.isnan(shown)).tolist() if (x, y) not in set(collapsed)]
    told = []
    for places, marker, color, word in ((collapsed, "x", RED, "cross: collapsed"),
                                        (undefined, ".", GREY, "point: undefined")):  # fmt: skip
        if places:
            ax.plot(*zip(*places), linestyle="none", marker=marker, color=color, markersize=3, clip_on=False)
            told.append(word)
    return told


def _plain(bar: Any) -> None:
    """Ticks of a logarithmic colour bar as plain numbers where these are short."""
    from topo.plots.axes import log_ticks

    low, high = bar.vmin, bar.vmax
    if 1e-4 <= low and high <= 1e5:
        ticks = log_ticks(low, high)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
