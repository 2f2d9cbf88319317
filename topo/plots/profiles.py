"""Profiles: numbers of layers, in network order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from topo.errors import TopoError
from topo.masks import MaskSet
from topo.plots import plots
from topo.report import Report

Profiled = Report | MaskSet
Data = Profiled | Sequence[Profiled] | Mapping[str, Profiled]

_MARKERS = "osD^vP*h"
_STYLES = ("-", "--", ":", "-.")
# A logarithmic scale pays when the largest value is this many times the smallest.
_DECADES = 20.0
# Points; smaller type is not read on paper.
_SMALLEST_TYPE = 5.0
# Share of the figure's height that upright names may take.
_TALLEST_NAMES = 0.36
# Small hollow marks inside the full ones of the density, where all that is kept is effective.
_EFFECTIVE: dict[str, Any] = {"markerfacecolor": "white", "linestyle": "--"}
_INSIDE = 0.6
_RED, _GREY = "#b00020", "#777777"


@dataclass(frozen=True)
class _Profile:
    """Values of one metric for one mask, by layer; NaN is undefined. `collapsed`: no (effective) parameter is left."""

    label: str
    values: Mapping[str, float]
    collapsed: frozenset[str]

    def undefined(self, layers: Iterable[str]) -> set[str]:
        return {name for name in layers if not math.isfinite(self.values.get(name, math.nan))} - self.collapsed


Line = tuple[_Profile, dict[str, Any]]


@plots.add()
def layer_profile(data: Data, metric: str = "density", ax: Axes | None = None, **style: Any) -> Axes:
    """A number of each layer, in network order: one line for each mask.

    data: a Report or a MaskSet, several of them, or label -> one of them. metric: a metric of layers that the reports
    hold, or "effective_density" (effective_params / size); masks alone have kept, density and sparsity. The scale is
    logarithmic where values span decades. A layer without (effective) parameters has a red cross at the bottom, one
    where the metric is undefined a gap in the line and a grey circle at the bottom. style: of the lines.

    Raises TopoError if a report lacks the metric.
    """
    profiles = [_profile(label, item, metric) for label, item in _labelled(data).items()]
    several = len(profiles) > 1
    lines = [
        (
            profile,
            {"label": profile.label if several else None, "marker": _turn(_MARKERS, i), "linestyle": _turn(_STYLES, i)},
        )
        for i, profile in enumerate(profiles)
    ]
    return _draw(lines, metric, _axes(ax), style)


@plots.add()
def density_profile(data: Data, ax: Axes | None = None, **style: Any) -> Axes:
    """Density and effective density of each layer, in network order.

    The effective density, the share of parameters that lie on a path, is drawn where a report knows it.
    As `layer_profile`; the effective density is the dashed line with hollow marks.
    """
    given = _labelled(data)
    several = len(given) > 1
    lines: list[Line] = []
    for i, (label, item) in enumerate(given.items()):
        look = {"color": f"C{i}", "marker": _turn(_MARKERS, i)}
        effective = _has_effective(item)
        name = label if several else "density" if effective else None
        lines.append((_profile(label, item, "density"), {**look, "label": name, "linestyle": "-"}))
        if effective:
            look |= (
                {"label": None, **_EFFECTIVE}
                if several
                else {"label": "effective density", "color": "C1", **_EFFECTIVE}
            )
            lines.append((_profile(label, item, "effective_density"), look))
    ax = _draw(lines, "density", _axes(ax), style)
    if several and len(lines) > len(given):  # once for all masks
        ax.plot([], [], color=_GREY, marker="o", label="effective density", **_EFFECTIVE)
        _legend(ax)
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained").add_subplot()


def _labelled(data: Data) -> dict[str, Profiled]:
    """Label -> item. A Report is called by its mask, a MaskSet by its file; a name that comes twice is numbered."""
    if isinstance(data, Mapping) and not isinstance(data, MaskSet):
        return dict(data)
    items = [data] if isinstance(data, Profiled) else list(data)
    labelled: dict[str, Profiled] = {}
    for number, item in enumerate(items, 1):
        if not isinstance(item, Profiled):
            raise TopoError(f"a profile is drawn of a Report or a MaskSet, not of {type(item).__name__}")
        name = item.mask if isinstance(item, Report) else str(item.provenance.get("file", f"mask {number}"))
        labelled[f"{name} ({number})" if name in labelled else name] = item
    if not labelled:
        raise TopoError("a profile is drawn of one mask or more; none was given")
    return labelled


def _has_effective(item: Profiled) -> bool:
    """Whether a report knows the effective parameters of some layer."""
    return isinstance(item, Report) and any(
        math.isfinite(entry.get("effective_params", math.nan)) for entry in item.layers
    )


def _profile(label: str, item: Profiled, metric: str) -> _Profile:
    if isinstance(item, MaskSet):
        counts = {name: (item.rows(name).kept(), item.rows(name).size) for name in item}
        numbers = {
            "kept": {name: float(kept) for name, (kept, _) in counts.items()},
            "density": {name: kept / size for name, (kept, size) in counts.items()},
            "sparsity": {name: 1.0 - kept / size for name, (kept, size) in counts.items()},
        }
        if metric not in numbers:
            raise TopoError(f"masks alone have {', '.join(numbers)} of a layer; '{metric}' needs a report from analyze")
        return _Profile(label, numbers[metric], frozenset(name for name, (kept, _) in counts.items() if kept == 0))
    source = "effective_params" if metric == "effective_density" else metric
    entries = item.layers
    known = dict.fromkeys(key for entry in entries for key in entry if key not in ("layer", "shape"))
    if source not in known:
        raise TopoError(
            f"the report of '{label}' holds no '{source}' of layers; it holds: {', '.join(known) or 'none'}"
        )
    scale = {e["layer"]: math.prod(e["shape"]) if metric == "effective_density" else 1 for e in entries}
    values = {e["layer"]: _float(e.get(source, math.nan)) / scale[e["layer"]] for e in entries}
    collapsed = item.collapsed
    if metric == "density":  # a layer off all paths still has a density: its cross belongs to the effective one
        collapsed = tuple(name for name in collapsed if values[name] == 0)
    return _Profile(label, values, frozenset(collapsed))


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _turn(sequence: Sequence[Any], number: int) -> Any:
    return sequence[number % len(sequence)]


def _draw(lines: Sequence[Line], metric: str, ax: Axes, style: Mapping[str, Any]) -> Axes:
    profiles = [profile for profile, _ in lines]
    layers = list(dict.fromkeys(name for profile in profiles for name in profile.values))
    log = _spans_decades(profiles)
    if log:
        ax.set_yscale("log")
    for profile, look in lines:
        heights = np.array([profile.values.get(name, math.nan) for name in layers])
        size = min(mpl.rcParams["lines.markersize"], _size(ax)[0] / len(layers))
        look = {"markersize": size * (_INSIDE if "markerfacecolor" in look else 1), **look}
        drawable = np.isfinite(heights) & ((heights > 0) | (not log))
        ax.plot(range(len(layers)), np.where(drawable, heights, math.nan), **{**look, **style})
    collapsed = set().union(*(profile.collapsed for profile in profiles))
    undefined = set().union(*(profile.undefined(layers) for profile in profiles)) - collapsed
    _mark(ax, [x for x, name in enumerate(layers) if name in collapsed], "collapsed", marker="x", color=_RED)
    _mark(ax, [x for x, name in enumerate(layers) if name in undefined], "undefined", marker="o", color=_GREY)
    ax.set_ylabel(metric.replace("_", " "))
    ax.set_xlim(-0.5, len(layers) - 0.5)
    _name_layers(ax, layers)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    _legend(ax)
    return ax


def _spans_decades(profiles: Iterable[_Profile]) -> bool:
    """Whether a logarithmic scale shows more, and hides nothing but layers that are marked as collapsed."""
    values = np.array([v for p in profiles for name, v in p.values.items() if name not in p.collapsed])
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > _DECADES * values.min())


def _mark(ax: Axes, places: Sequence[int], label: str, **look: Any) -> None:
    """Marks on the lower edge of the axes."""
    if places:
        look |= {"linestyle": "none", "markerfacecolor": "white", "markeredgewidth": 1.3, "zorder": 5, "clip_on": False}
        ax.plot(places, [0.0] * len(places), transform=ax.get_xaxis_transform(), label=label, **look)


def _size(ax: Axes) -> tuple[float, float]:
    """Width of the axes and height of the figure, in points; roughly, for the layout is only known once it is drawn."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return 72 * figure.get_figwidth() * ax.get_position().width, 72 * figure.get_figheight()


def _points(size: Any) -> float:
    return FontProperties(size=size).get_size_in_points()


def _name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Names under the axis, without a last part that all share; upright where they would touch, else numbers."""
    ends = {name.rpartition(".")[2] for name in layers}
    names = [name.rpartition(".")[0] or name for name in layers] if len(ends) == 1 else list(layers)
    longest = 0.6 * max(map(len, names))  # times the size of the type
    width, height = _size(ax)
    room = width / len(names)
    upright = longest * _points(mpl.rcParams["xtick.labelsize"]) > room
    size = _points(mpl.rcParams["xtick.labelsize"])
    if upright:
        size = min(size, room / 1.15, _TALLEST_NAMES * height / longest)
    if size < _SMALLEST_TYPE:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("layer, by number from 0")
        return
    ax.set_xticks(range(len(names)), names, fontsize=size)
    if upright:
        ax.tick_params(axis="x", labelrotation=90)
    ax.set_xlabel("layer")


def _legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing, in as many columns as fit."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        widths = [_points(mpl.rcParams["legend.fontsize"]) * (0.55 * len(label) + 4.5) for label in labels]
        room = _size(ax)[0]
        columns = len(labels) if sum(widths) < room else max(1, int(room / max(widths)))
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            columnspacing=1.5,
            labelspacing=0.3,
        )
