"""Forests: a line a number, with where it stands: null models' z of metrics, ranks of methods, evidence of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo.analyze import analyze
from topo.errors import TopoError
from topo.evaluate import Evaluation
from topo.graph import LayeredGraph
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.plots.axes import GREY, axes, headline, key, legend, name_x, name_y, nothing, series, size_of, small, width_of
from topo.plots.comparable_runs import cells_of
from topo.plots.evidence import draw_evidence
from topo.plots.given import called, labelled, number, rows_of, worded
from topo.plots.registry import plot
from topo.plots.seeds import check_spread, interval_of, said_of
from topo.report import Report

_NOISE = 1.96  # |z| of a normal number that 5 % pass
_P = 0.05
_LINEAR = 3.0  # z up to which the scale is linear
_MOST = 24  # lines
_LINES = 0.72  # of the figure's height that they may take
_APART = 0.6  # of a line, over which its marks are spread


@plot("reports", "default")
def null_forest(
    data: Any,
    ax: Axes | None = None,
    *,
    metrics: str = "",
    null: str = "same_layers:40,same_rows:40",
    wiring: Any = None,
    rng: int | np.random.Generator = 0,
    **style: Any,
) -> Axes:
    """How far each number of a network is from null models: z, a mark for each null model.

    data: reports with null models (`topo analyze --nulls`), or masks, of which `null` draws them: KIND:N with commas
    between (`topo list nulls`). Full marks are numbers whose rank among the samples is extreme (p < 0.05), hollow ones
    are within noise: what the null model keeps is enough to explain them. Grey: |z| < 1.96. Beyond 3 the scale is
    logarithmic. Of several masks the mark is the mean z, full if all are extreme, with a line from the least to the
    largest. metrics: names with commas between; by default those farthest from null models, as many as have room.
    wiring: of masks that are not a plain chain. style: of the marks.

    Raises TopoError if no report holds null models, or none a metric.
    """
    if not isinstance(null, str):
        raise TopoError("null is KIND:N with commas between, as in same_layers:40; null models are drawn of the masks")
    given = labelled(data, Report | MaskSet | LayeredGraph, "a forest")
    net = None if wiring is None else find_wiring(wiring)
    reports = {label: _with_nulls(item, net, null, metrics, rng) for label, item in given.items()}
    z: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for report in reports.values():
        for entry in report.nulls:
            if entry["layer"] is None and math.isfinite(entry["z"]):
                z.setdefault(entry["metric"], {}).setdefault(entry["null"], []).append((entry["z"], entry["p"]))
    if not any(report.nulls for report in reports.values()):
        raise TopoError("no report holds null models: topo analyze --nulls same_layers:40, or give the masks")
    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted:
        if name not in z:
            raise TopoError(f"no null model has a finite z of '{name}'; there are: {', '.join(z) or 'none'}")
    far = {name: max(abs(value) for found in nulls.values() for value, _ in found) for name, nulls in z.items()}
    ax = axes(ax)
    room = int(_LINES * size_of(ax)[1] / (1.2 * small()))
    shown = wanted or sorted(sorted(far, key=lambda name: -far[name])[: min(_MOST, room)], key=list(z).index)
    kinds = list(dict.fromkeys(null for name in shown for null in z[name]))
    for i, kind in enumerate(kinds):
        look = {**series(i), "linestyle": "none"}
        shift = _APART * ((i + 0.5) / len(kinds) - 0.5)
        for full in (True, False):
            places = []
            for line, name in enumerate(shown):
                found = z[name].get(kind, [])
                if found and all(p < _P for _, p in found) == full:
                    values = [value for value, _ in found]
                    places.append((float(np.mean(values)), line + shift))
                    if len(values) > 1:
                        ends = [min(values), max(values)]
                        ax.plot(ends, [line + shift] * 2, "-", marker="none", color=look["color"], linewidth=0.8)
            more = {} if full else {"markerfacecolor": "white"}
            if places:
                ax.plot(*zip(*places), **{**look, **more, **style})
        key(ax, kind, **{k: v for k, v in look.items() if k != "linestyle"}, linestyle="none")
    key(ax, f"p $\\geq$ {_P:g}", color=GREY, marker="o", markerfacecolor="white", linestyle="none")
    ax.axvspan(-_NOISE, _NOISE, color="#eeeeee", zorder=0, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.6)
    widest = max([far[name] for name in shown], default=0.0)
    if widest > 2 * _LINEAR:
        ax.set_xscale("symlog", linthresh=_LINEAR, linscale=1.0)
        _symlog_ticks(ax, widest)
    beside = _lines(ax, [name.replace("_", " ") for name in shown])
    if not shown:
        nothing(ax, "no number of the network differs from a null model's")
    samples = sorted({entry["samples"] for report in reports.values() for entry in report.nulls})
    told = [f"of {samples[0]:,} samples" if len(samples) == 1 else f"of {samples[0]:,} to {samples[-1]:,} samples"]
    told += [f"mean and range of {len(reports)} masks"] if len(reports) > 1 else []
    told += [f"{len(z) - len(shown)} nearer ones left out"] if len(shown) < len(z) and not wanted else []
    name_x(ax, f"z against null models ({'; '.join(told)})", beside)
    legend(ax, beside=beside)
    return ax


def _with_nulls(item: Any, wiring: Any, null: str, metrics: str, rng: Any) -> Report:
    if isinstance(item, Report):
        return item
    nulls = {}
    for part in null.split(","):
        kind, _, count = part.strip().partition(":")
        if not count.isdecimal():
            raise TopoError(f"null is '{null}'; it is KIND:N with commas between, as in same_layers:40")
        nulls[kind] = int(count)
    masks, own = (item.masks, item.wiring) if isinstance(item, LayeredGraph) else (item, wiring)
    return analyze(masks, own, metrics=metrics or "default", nulls=nulls, rng=rng)


def _symlog_ticks(ax: Axes, widest: float) -> None:
    powers = [10.0**k for k in range(1, 12) if 10.0**k <= 1.5 * widest]
    powers = powers[:: math.ceil(len(powers) / 3)] if powers else []
    ticks = sorted({0.0, *powers, *(-p for p in powers)} | ({-_LINEAR, _LINEAR} if len(powers) < 3 else set()))
    ax.set_xlim(-1.4 * widest, 1.4 * widest)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(_none())


def _none() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _lines(ax: Axes, names: Sequence[str]) -> float:
    """A line each, with its name at the left; points that the longest takes."""
    ax.set_yticks(range(len(names)), names, fontsize=small())
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return max((width_of(name, small()) for name in names), default=0.0)


@plot("evaluation,rows")
def ranking(
    data: Any,
    ax: Axes | None = None,
    *,
    y: str = "accuracy",
    group: str = "method",
    cell: str = "model,data,density_asked,density,seed,train_seed",
    interval: str = "t95",
    lower: bool = False,
    **style: Any,
) -> Axes:
    """Which is best: methods by their mean rank, or metrics by how they go with accuracy.

    data: rows with the columns `y` and `group`: within each cell (rows that agree in those of the columns `cell` that
    the table has) the groups are ranked, 1 the best, ties shared, and a line is a group's mean rank over the cells that
    hold every group, with an interval ("t95", "sd", "range", "none") over cells (Demsar 2006). Groups that stand in too
    few cells are left out, and named. lower: little is good. Or an Evaluation, or JSON of `topo evaluate`: metrics by
    their rank correlation with accuracy, raw and given the density of the layers. style: of the marks.

    Raises TopoError for a missing column, fewer than two groups, and where no cell holds two.
    """
    check_spread(interval, "bars")
    if isinstance(data, Evaluation) or (isinstance(data, Mapping) and "metrics" in data and "ceiling" in data):
        return draw_evidence(_evaluation(data), axes(ax))
    rows = [row for row in rows_of(data, (y,)) if math.isfinite(number(row.get(y)))]
    if not rows:
        raise TopoError(f"no row has a number in '{y}'")
    names = [called(row, group, "masks") for row in rows]
    columns = {key for row in rows for key in row}
    used = [name.strip() for name in cell.split(",") if name.strip() in columns and name.strip() != group]
    if "density_asked" in used and "density" in used:
        used.remove("density")
    cells, _, _ = cells_of(rows, ",".join(used), group) if used else ([()] * len(rows), "", "")
    held: dict[Any, dict[str, list[float]]] = {}
    for row, name, place in zip(rows, names, cells):
        if place is not None:
            held.setdefault(place, {}).setdefault(name, []).append(number(row[y]))
    every = list(dict.fromkeys(names))
    whole, left_out = _complete(held, every)
    if len(whole) < 2:
        raise TopoError(f"a ranking takes two groups of '{group}' or more in one cell; there are: {', '.join(every)}")
    ranks = _ranks(held, whole, lower)
    order = sorted(whole, key=lambda name: float(np.mean(ranks[name])))
    ax = axes(ax)
    count = len(next(iter(ranks.values())))
    for line, name in enumerate(order):
        look = {**series(0), "linestyle": "none"}
        low, high = interval_of(ranks[name], interval)
        mean = float(np.mean(ranks[name]))
        if high > low:
            ax.plot([max(low, 1.0), min(high, len(whole))], [line] * 2, "-", marker="none", color=look["color"])
        ax.plot([mean], [line], **{**look, **style})
    beside = _lines(ax, order)
    ax.set_xlim(0.7, len(whole) + 0.3)
    ax.xaxis.set_major_locator(_whole())
    said = said_of(interval, "bars", count)
    told = [f"over {count} cell{'s' * (count > 1)}", *([said.partition(", up to")[0]] if said else [])]
    name_x(ax, f"mean rank of {worded(y)}, 1 is best ({'; '.join(told)})", beside)
    name_y(ax, worded(group))
    if left_out:
        headline(ax, f"left out, not in every cell: {', '.join(left_out)}")
    return ax


def _whole() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(8, integer=True)


def _complete(held: Mapping[Any, Mapping[str, Any]], every: Sequence[str]) -> tuple[list[str], list[str]]:
    """Groups that share cells, those in most cells first; and those that would leave no cell that holds all."""
    times = {name: sum(name in cell for cell in held.values()) for name in every}
    whole: list[str] = []
    for name in sorted(every, key=lambda name: -times[name]):
        shared = sum(all(one in cell for one in [*whole, name]) for cell in held.values())
        if shared and (not whole or shared >= 0.5 * max(times.values())):
            whole.append(name)
    return whole, [name for name in every if name not in whole]


def _ranks(held: Mapping[Any, Mapping[str, Sequence[float]]], whole: Sequence[str], lower: bool) -> dict[str, Any]:
    from scipy.stats import rankdata

    found: dict[str, list[float]] = {name: [] for name in whole}
    for cell in held.values():
        if all(name in cell for name in whole):
            values = np.array([float(np.mean(cell[name])) for name in whole])
            for name, rank in zip(whole, rankdata(values if lower else -values)):
                found[name].append(float(rank))
    return found


def _evaluation(data: Any) -> Evaluation:
    if isinstance(data, Evaluation):
        return data
    try:
        entries = tuple({key: math.nan if value is None else value for key, value in entry.items()}
                        for entry in data["metrics"])  # fmt: skip
        return Evaluation(
            data["rows"], data["cells"], data.get("clusters", 0), number(data["ceiling"]), data.get("baseline"),
            entries, tuple(data.get("left_out", ())), tuple(data.get("notes", ())),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise TopoError(f"it is not whole JSON of topo evaluate: {error}") from None
