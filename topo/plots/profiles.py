"""Profiles: numbers of layers, in network order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.networks import find_wiring
from topo.plots.axes import (
    GREY,
    RED,
    axes,
    colour,
    key,
    legend,
    log_labels,
    mark,
    name_layers,
    name_x,
    name_y,
    nothing,
    series,
    size_of,
    whole_ticks,
)
from topo.plots.given import labelled, one, report_of, same_network, worded
from topo.plots.nulls import Null, band, named, sampled, wanted
from topo.plots.registry import plot
from topo.plots.seeds import check_spread, draw_spread, said_of, series_of
from topo.report import Report
from topo.wiring import Wiring

Profiled = Report | MaskSet
Data = Profiled | Sequence[Profiled] | Mapping[str, Profiled]

# A logarithmic scale pays when the largest value is this many times the smallest.
_DECADES = 20.0
# What a Ramanujan profile is drawn of.
_SPECTRA = "kept,ramanujan_gap,imdb"
# Metrics of layers that masks alone have.
_COUNTED = ("kept", "density", "sparsity")
# Counts of weights are the same in every view.
_WITHOUT_VIEW = ("kept", "density", "sparsity", "effective_params")
# Small hollow marks inside the full ones of the density, where all that is kept is effective.
_EFFECTIVE: dict[str, Any] = {"markerfacecolor": "white", "linestyle": "--"}
_INSIDE = 0.6
# Layers beside the main road: a line through them would be a spike without meaning.
_SHORTCUT = re.compile(r"(^|[._])(shortcut|downsample|skip)([._]|$)")


@dataclass(frozen=True)
class Profile:
    """Values of one metric for one mask, by layer; NaN is undefined. `collapsed`: no (effective) parameter is left.

    Of several seeds the values are means, and `every` holds what they are means of.
    """

    label: str
    values: Mapping[str, float]
    collapsed: frozenset[str]
    every: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def undefined(self, layers: Iterable[str]) -> set[str]:
        return {name for name in layers if not math.isfinite(self.values.get(name, math.nan))} - self.collapsed


Line = tuple[Profile, dict[str, Any]]


@plot("reports")
def layer_profile(
    data: Data,
    metric: str = "density",
    ax: Axes | None = None,
    *,
    null: str | Sequence[Profiled] | Mapping[str, Profiled] | None = None,
    wiring: Wiring | str | Any | None = None,
    rng: int | np.random.Generator = 0,
    group: str = "auto",
    interval: str = "t95",
    show: str = "band",
    **style: Any,
) -> Axes:
    """A number of each layer, in network order: a line for each mask, or the mean of several seeds.

    data: a Report or a MaskSet, several of them, or label -> one of them. metric: a metric of layers that the reports
    hold, or "effective_density" (effective_params / size); of masks it is computed, with the wiring where it needs one.
    The scale is logarithmic where values span decades. A layer without (effective) parameters has a red cross at the
    bottom, one where the metric is undefined a gap in the line and a grey circle at the bottom. null: a grey band of
    what the metric is by chance: "METHOD:N", N masks that a method which rewires masks at random (shuffle,
    configuration) or a null model of `topo.nulls` (same_layers) makes of the first ones given; or masks or their
    reports, drawn already. It goes from the 5 % to the 95 % quantile, of fewer than 20 finite samples of a layer from
    the least to the largest. wiring: of masks that are not a plain chain; a Wiring, a model's name or a torch module.
    rng: of the null. group: "auto" averages masks of one method and density whose seeds differ, unless they are given
    by label; "none" nothing; or columns of the provenance with commas between. interval: "t95" (95 % of the mean,
    Student), "sd", "range" or "none", shown as a "band", "bars" or "dots" (each mask). style: of the lines.

    Beside several masks the band's name says whose null it is; of one that was given, that it was. Masks that keep
    nothing are named below.

    Raises TopoError if the masks are of different networks (the names or shapes of layers differ), a report lacks the
    metric, a null is to be drawn from a report, which holds no masks, or more than 8 masks are neither labelled nor
    grouped.
    """
    check_spread(interval, show)
    given = labelled(data, Profiled, "a profile")
    same_network(given, "a profile")
    net = None if wiring is None else find_wiring(wiring)
    given = {label: analysed(item, metric, net) for label, item in given.items()}
    nulls = _nulls(wanted(null), given, metric, net, rng)
    profiles = mean_profiles(given, data, metric, group, "layer profiles")
    several = len(profiles) > 1
    lines: list[Line] = [
        (profile, {"label": profile.label if several else None, **series(i)}) for i, profile in enumerate(profiles)
    ]
    ax = _draw(lines, metric, axes(ax), style, beside=nulls[1] if nulls else (), spread=(interval, show))
    views = {
        row.view
        for _, p in given.values()
        if isinstance(p, Report)
        for row in p.rows
        if row.metric == metric and row.layer and row.view
    }
    if len(views) == 1 and metric not in _WITHOUT_VIEW:
        name_y(ax, f"{_title(metric)} ({views.pop()}\N{NO-BREAK SPACE}view)")
    _say_empty(ax, {label: item if masks is None else masks for label, (masks, item) in given.items()})
    if nulls is not None:
        layers = list(dict.fromkeys(name for profile in profiles for name in profile.values))
        values = [[profile.values.get(name, math.nan) for name in layers] for profile in nulls[1]]
        band(ax, range(len(layers)), np.array(values), nulls[0])
        legend(ax, [profile.label for profile in profiles])
    return ax


def mean_profiles(
    given: Mapping[str, tuple[MaskSet | None, Profiled]], data: Any, metric: str, group: str, what: str
) -> list[Profile]:
    """A profile of each series of `series_of`: label -> what `analysed` made of an item."""
    drawn = {id(masks or item): item for masks, item in given.values()}
    found = series_of({label: masks or item for label, (masks, item) in given.items()}, data, group, what)
    return [_mean(name, [_profile(name, drawn[id(one)], metric) for one in items]) for name, items in found.items()]


def _mean(label: str, found: Sequence[Profile]) -> Profile:
    """One profile as it is, called so; of several the means of what is defined. Collapsed is what is so in any."""
    if len(found) == 1:
        return replace(found[0], label=label)
    layers = dict.fromkeys(name for profile in found for name in profile.values)
    every = {name: [v for p in found if math.isfinite(v := p.values.get(name, math.nan))] for name in layers}
    means = {name: float(np.mean(values)) if values else math.nan for name, values in every.items()}
    return Profile(label, means, frozenset().union(*(profile.collapsed for profile in found)), every)


def analysed(
    item: Profiled, metric: str, wiring: Wiring | None, besides: str = "kept,density,effective_params,"
) -> tuple[MaskSet | None, Profiled]:
    """The masks, if they are given, and what is drawn: a report of them if the metric takes more than counting.

    besides: metrics that tell collapsed layers; a null does without.
    """
    if isinstance(item, Report):
        return None, item
    source = "effective_params" if metric == "effective_density" else metric
    if source in _COUNTED or f"layer:{source}" not in metrics:
        return item, item
    return item, report_of(item, f"{besides}{source}", wiring)


def _nulls(
    null: Null, given: Mapping[str, tuple[MaskSet | None, Profiled]], metric: str, wiring: Wiring | None, rng: Any
) -> tuple[str, list[Profile]] | None:
    """What drew the samples, and their profiles."""
    if null is None:
        return None
    first, (masks, item) = next(iter(given.items()))
    if isinstance(null, str):
        if masks is None:
            raise TopoError(f"null '{null}' is drawn from masks; a report holds none: give the masks themselves")
        drawn: Mapping[str, Any] = labelled(sampled(null, masks, wiring, rng), MaskSet, "a band")
    else:
        drawn = labelled(null, Profiled, "a band")
        for label, sample in drawn.items():
            same_network({first: item, f"null {label}": sample}, "a band")
    found = {label: analysed(item, metric, wiring, "")[1] for label, item in drawn.items()}
    name = named(drawn.values(), null, list(given))
    return name, [_profile(label, item, metric) for label, item in found.items()]


@plot("reports", "kept,density,effective_params")
def density_profile(
    data: Data,
    ax: Axes | None = None,
    *,
    group: str = "auto",
    interval: str = "t95",
    show: str = "band",
    **style: Any,
) -> Axes:
    """Density and effective density of each layer, in network order.

    The effective density, the share of parameters that lie on a path, is drawn where a report knows it.
    As `layer_profile`; the effective density is the dashed line with hollow marks.

    Raises TopoError if the masks are of different networks, or more than 8 are neither labelled nor grouped.
    """
    check_spread(interval, show)
    given = labelled(data, Profiled, "a profile")
    same_network(given, "a profile")
    grouped = series_of(given, data, group, "density profiles")
    several = len(grouped) > 1
    lines: list[Line] = []
    for i, (label, items) in enumerate(grouped.items()):
        look = {**series(i), "linestyle": "-"}
        effective = all(map(_has_effective, items))
        name = label if several else "density" if effective else None
        lines.append((_mean(label, [_profile(label, item, "density") for item in items]), {**look, "label": name}))
        if effective:
            look |= (
                {"label": None, **_EFFECTIVE}
                if several
                else {"label": "effective density", "color": colour(1), **_EFFECTIVE}
            )
            lines.append((_mean(label, [_profile(label, item, "effective_density") for item in items]), look))
    ax = _draw(lines, "density", axes(ax), style, spread=(interval, show))
    if several and len(lines) > len(grouped):  # once for all masks
        key(ax, "effective density", color=GREY, marker="o", **_EFFECTIVE)
        legend(ax, list(grouped))
    _say_empty(ax, given)
    return ax


@plot("reports", _SPECTRA)
def ramanujan_profile(
    data: Profiled, ax: Axes | None = None, *, wiring: Wiring | str | Any | None = None, **style: Any
) -> Axes:
    """Ramanujan gap and IMDB of each layer; above 0 it expands as well as a Ramanujan graph.

    The IMDB is the mean gap of classes of units with equal degrees.
    data: one Report with the metrics ramanujan_gap and, if it is to be drawn, imdb; or a MaskSet. Where one is
    undefined (too few edges, or no class of units with equal degrees) its hollow mark stands at the bottom; a layer
    without parameters has a red cross there. wiring: of masks, for the groups of convolutions. As `layer_profile`.
    """
    report = report_of(one(data, Profiled, "a Ramanujan profile"), _SPECTRA, wiring)
    requested = {"ramanujan_gap": "gap $\\Delta_r$ = bound $-\\,\\sigma_2$"}
    if any("imdb" in entry for entry in report.layers):
        requested["imdb"] = "IMDB"
    looks = (series(0), {**series(1), **_EFFECTIVE})
    lines: list[Line] = [
        (_profile(report.mask, report, metric), {**look, "label": label})
        for (metric, label), look in zip(requested.items(), looks)
    ]
    ax = _draw(lines, "", axes(ax), style, gaps=True)
    name_y(ax, f"singular value{_view(report)}")
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    low, high = ax.get_ylim()
    ax.axhspan(0, max(high, 0.1), color=colour(0), alpha=0.07, linewidth=0, zorder=0)
    ax.set_ylim(low - 0.16 * (high - low), max(high, 0.1))
    layers = list(lines[0][0].values)
    for height, ((profile, look), name) in enumerate(zip(lines, ("gap", "IMDB"))):
        missing = profile.undefined(layers)
        places = [x for x, layer in enumerate(layers) if layer in missing]
        mark(ax, places, f"{name} undefined", 0.07 * height, marker=look["marker"], color=GREY)
    legend(ax)
    _say_empty(ax, {report.mask: report})
    return ax


def _say_empty(ax: Axes, given: Mapping[str, Profiled]) -> None:
    """Under the axes, of masks that keep nothing, or nothing on a path: that it is so."""
    said: dict[str, list[str]] = {}
    for label, item in given.items():
        if what := _emptiness(item):
            said.setdefault(what, []).append(label)
    texts = [what if len(given) == 1 else f"{what} in {', '.join(labels)}" for what, labels in said.items()]
    if texts:
        name_x(ax, "; ".join([ax.get_xlabel().replace("\n", " "), *texts]))


def _emptiness(item: Profiled) -> str:
    """What a mask set without any (effective) parameter is, in words; nothing of another."""
    if isinstance(item, MaskSet):
        return "" if item.kept else "no parameter is kept"
    if set(item.collapsed) < set(item.shapes):
        return ""
    kept = [entry.get("kept", entry.get("density", math.nan)) for entry in item.layers]
    return "no parameter is kept" if not any(kept) else "no parameter is on a path"


def _view(report: Report) -> str:
    views = {row.view for row in report.rows if row.metric == "ramanujan_gap" and row.layer and row.view}
    return f" ({views.pop()}\N{NO-BREAK SPACE}view)" if len(views) == 1 else ""


def _has_effective(item: Profiled) -> bool:
    """Whether a report knows the effective parameters of some layer."""
    return isinstance(item, Report) and any(
        math.isfinite(entry.get("effective_params", math.nan)) for entry in item.layers
    )


def _profile(label: str, item: Profiled, metric: str) -> Profile:
    if isinstance(item, MaskSet):
        counts = {name: (item.rows(name).kept(), item.rows(name).size) for name in item}
        numbers = {
            "kept": {name: float(kept) for name, (kept, _) in counts.items()},
            "density": {name: kept / size for name, (kept, size) in counts.items()},
            "sparsity": {name: 1.0 - kept / size for name, (kept, size) in counts.items()},
        }
        if metric not in numbers:
            raise TopoError(f"no metric of masks is called '{metric}' (topo list metrics): '{metric}' needs a report")
        return Profile(label, numbers[metric], frozenset(name for name, (kept, _) in counts.items() if kept == 0))
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
    return Profile(label, values, frozenset(collapsed))


def _title(metric: str) -> str:
    return worded(metric).replace("ramanujan", "Ramanujan")


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _draw(
    lines: Sequence[Line],
    metric: str,
    ax: Axes,
    style: Mapping[str, Any],
    gaps: bool = False,
    beside: Sequence[Profile] = (),
    spread: tuple[str, str] = ("none", "band"),
) -> Axes:
    """Lines and marks of profiles. gaps: gaps of the lines have marks of their own. beside: what will be drawn, too.

    spread: interval and how it is shown, of profiles that are means.
    """
    profiles = [profile for profile, _ in lines]
    layers = list(dict.fromkeys(name for profile in profiles for name in profile.values))
    log = not gaps and _spans_decades([*profiles, *beside])
    if log:
        ax.set_yscale("log")
    aside = [x for x, name in enumerate(layers) if _SHORTCUT.search(name)]
    main = [x for x in range(len(layers)) if x not in set(aside)]
    if not main:
        main, aside = aside, []
    for profile, look in lines:
        heights = np.array([profile.values.get(name, math.nan) for name in layers])
        size = min(mpl.rcParams["lines.markersize"], size_of(ax)[0] / len(layers))
        look = {"markersize": size * (_INSIDE if "markerfacecolor" in look else 1), **look}
        drawable = np.isfinite(heights) & ((heights > 0) | (not log))
        heights = np.where(drawable, heights, math.nan)
        ax.plot(main, heights[main], **{**look, **style})
        if aside:
            ax.plot(aside, heights[aside], **{**look, "linestyle": "none", **style, "label": None})
        if profile.every:
            draw_spread(ax, range(len(layers)), [profile.every[name] for name in layers], *spread, look["color"])
    collapsed = set().union(*(profile.collapsed for profile in profiles))
    missing = set().union(*(profile.undefined(layers) for profile in profiles)) - collapsed
    mark(ax, [x for x, name in enumerate(layers) if name in collapsed], "collapsed", marker="x", color=RED)
    if not gaps:
        mark(ax, [x for x, name in enumerate(layers) if name in missing], "undefined", marker="o", color=GREY)
    name_y(ax, _title(metric))
    every = [[profile.values.get(name, math.nan) for name in layers] for profile in (*profiles, *beside)]
    if log:
        log_labels(ax.yaxis)
    elif not np.isfinite(every).any():
        nothing(ax, "nothing to draw: undefined in every layer")
    else:
        whole_ticks(ax.yaxis, every)
    ax.set_xlim(-0.5, len(layers) - 0.5)
    name_layers(ax, layers)
    if aside:
        name_x(ax, f"{ax.get_xlabel()} (shortcuts apart from the line)".replace(") (", "; "))
    most = max((len(values) for profile in profiles for values in profile.every.values()), default=1)
    if said := said_of(*spread, most):
        name_x(ax, f"{ax.get_xlabel()} ({said} masks)".replace(") (", "; "))
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    legend(ax, [profile.label for profile in profiles])
    return ax


def _spans_decades(profiles: Iterable[Profile]) -> bool:
    """Whether a logarithmic scale shows more, and hides nothing but layers that are marked as collapsed."""
    values = np.array([v for p in profiles for name, v in p.values.items() if name not in p.collapsed])
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > _DECADES * values.min())
