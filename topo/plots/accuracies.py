"""Accuracy against sparsity and against metrics: tables of runs in, curves and correlations out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from topo._support.names import unknown
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.plots.axes import (
    GREY,
    axes,
    figure_legend,
    fitted,
    headline,
    legend,
    log_labels,
    log_ticks,
    name_x,
    name_y,
    new_figure,
    points,
    series,
    size_of,
    small,
    width_of,
)
from topo.plots.comparable_runs import cells_of, centred_ranks, correlations, partial
from topo.plots.given import Found, Row, density_of, number, report_of, rows_of, told, worded
from topo.plots.registry import plot
from topo.plots.seeds import check_spread, draw_spread, said_of
from topo.plots.settings import settled
from topo.report import Report

Table = Any  # a list of rows (mappings), columns by name, or a pandas table
# Column of a name that all dense runs share, whatever method they are put down to.
_DENSE = "dense run"
# Factor between the places of neighbouring curves, whose bars or dots would hide each other.
_DODGE = 1.035
# Of dense runs that were trained in different ways.
_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 1)))


@plot("rows")
def accuracy_sparsity(
    data: Table,
    ax: Axes | None = None,
    *,
    y: str = "accuracy",
    group: str = "method",
    interval: str = "t95",
    show: str = "band",
    chance: float | None = None,
    **style: Any,
) -> Axes:
    """Accuracy against sparsity, a curve for each method: the mean over seeds and an interval.

    data: rows with density or sparsity (of a row with both, density counts), the column `y` (a fraction) and the column
    `group`; a row for each run. Runs of density 1 are the dense baseline, a dashed line. interval: "t95" (95 % of the
    mean, Student), "sd", "range" (least to largest) or "none"; a single run has none, unless the table holds means with
    columns "accuracy_t95" or "accuracy_sd". show: as a "band", as "bars" side by side, or each run as one of "dots".
    chance: accuracy of guessing, a dotted line; by default 1 / classes of data that are known by name, where a mean is
    below three times that. Runs without an accuracy or a density are left out, and counted below, unfinished ones (a
    run folder without summary.json) apart. style: of the curves.

    Only runs that differ in nothing but their seed are averaged: where runs of one group were trained otherwise
    (`topo.plots.settings.SETTINGS`: keys of the recipe, model, data, rewinding, as columns), each way has a curve of
    its own, called by the keys in which they differ, "erk, init=kaiming_normal".
    """
    rows = rows_of(data, (y,))
    found = _curves(rows, y, group)
    ax = _draw_curves(rows, found, y, interval, show, axes(ax), style, _scale(y, found.numbers))
    guess = _chance(rows) if chance is None else chance
    lowest = min(float(np.mean(values)) for curve in found.curves.values() for values in curve.values())
    if guess and (chance is not None or lowest < 3 * guess):
        ax.axhline(100 * guess, color=GREY, linestyle=(0, (1, 2)), linewidth=0.8, label="chance")
        legend(ax, list(found.curves))
    return ax


@plot("reports,rows")
def metric_sparsity(
    data: Any,
    ax: Axes | None = None,
    *,
    metric: str = "effective_density",
    group: str = "method",
    interval: str = "t95",
    show: str = "band",
    **style: Any,
) -> Axes:
    """A number of networks against sparsity, a curve for each method: the mean over seeds.

    As `accuracy_sparsity`, of any column. data: reports that hold the metric of the network, one or several, or by
    label; or rows of a table. A group is the method of the provenance, or the label; masks that tell neither are one
    group. group, interval, show: as there. The scale is logarithmic where positive numbers span decades.
    """
    rows = rows_of(_as_rows(data, metric, group), (metric,))
    found = _curves(rows, metric, group)
    ax = axes(ax)
    values = np.array(found.numbers)
    if values.min() > 0 and values.max() > _DECADES * values.min():
        ax.set_yscale("log")
    ax = _draw_curves(rows, found, metric, interval, show, ax, style, (1.0, worded(metric)))
    if ax.get_yscale() == "log":
        log_labels(ax.yaxis)
    return ax


def _as_rows(data: Any, metric: str, group: str) -> Any:
    """Reports as rows; a label stands in for the method where a user chose it."""
    if isinstance(data, Report | MaskSet):
        data = [data]
    items = list(data.values()) if isinstance(data, Mapping) else list(data) if isinstance(data, Sequence) else []
    if not items or not all(isinstance(item, Report | MaskSet) for item in items):
        return data
    labels = list(data) if isinstance(data, Mapping) and not isinstance(data, Found) else [None] * len(items)
    rows = []
    for label, item in zip(labels, items):
        report = report_of(item, ",".join(dict.fromkeys(("density", metric))))
        if metric not in report.network:
            raise TopoError(unknown(f"metric of networks in the report of '{report.mask}'", metric, report.network))
        row = {**report.columns, "density": report.network.get("density"), metric: report.network[metric]}
        rows.append({**row, group: label} if label is not None else row)
    return rows


# A logarithmic scale pays when the largest value is this many times the smallest.
_DECADES = 20.0
# Names of data whose classes are known, and how many there are.
_CLASSES = {"digits": 10, "mnist1d": 10, "mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}


def _chance(rows: Sequence[Row]) -> float:
    """Accuracy of guessing among equally frequent classes, where all rows are of data that are known; otherwise 0."""
    guesses = {1 / _CLASSES[name] if (name := str(row.get("data"))) in _CLASSES else 0.0 for row in rows}
    return guesses.pop() if len(guesses) == 1 else 0.0


@dataclass(frozen=True)
class _Curves:
    """Name -> density -> numbers; those of dense runs by name; halves of intervals that a table of means holds."""

    curves: Mapping[str, Mapping[float, Sequence[float]]]
    dense: Mapping[str, Sequence[float]]
    halves: Mapping[tuple[str, float], Row]
    numbers: Sequence[float]
    known: int


def _curves(rows: Sequence[Row], y: str, group: str) -> _Curves:
    if not any("density" in row or "sparsity" in row for row in rows):
        raise TopoError("the table has neither a column 'density' nor 'sparsity'")
    known = [row for row in rows if 0 < density_of(row) <= 1 and math.isfinite(number(row.get(y)))]
    masked = [row for row in known if density_of(row) < 1]
    if not masked:
        raise TopoError(_none_left(rows, f"no row has both a density below 1 and a number in '{y}'"))
    curves: dict[str, dict[float, list[float]]] = {}
    halves: dict[tuple[str, float], Row] = {}
    for name, row in zip(settled(masked, group, "runs", (y,)), masked):
        density = float(f"{density_of(row):.4g}")
        curves.setdefault(name, {}).setdefault(density, []).append(number(row[y]))
        halves[name, density] = row
    halves = {place: row for place, row in halves.items() if len(curves[place[0]][place[1]]) == 1}
    dense: dict[str, list[float]] = {}
    whole = [{**row, _DENSE: "dense"} for row in known if density_of(row) == 1]
    for name, row in zip(settled(whole, _DENSE, "dense", (y,)), whole):
        dense.setdefault(name, []).append(number(row[y]))
    return _Curves(curves, dense, halves, [number(row[y]) for row in known], len(known))


def _draw_curves(
    rows: Sequence[Row],
    found: _Curves,
    y: str,
    interval: str,
    show: str,
    ax: Axes,
    style: Mapping[str, Any],
    scaled: tuple[float, str],
) -> Axes:
    check_spread(interval, show)
    scale, named = scaled
    most, several = 1, len(found.curves)
    _sparsity_axis(ax, [d for curve in found.curves.values() for d in curve])
    for i, (label, curve) in enumerate(found.curves.items()):
        x = sorted(curve, reverse=True)
        values = [[scale * value for value in curve[d]] for d in x]
        look = series(i)
        shift = _DODGE ** (i - (several - 1) / 2) if show != "band" and several > 1 else 1.0
        places = [d / shift for d in x]
        ax.plot(places, [float(np.mean(found)) for found in values], **{**look, "label": label, **style})
        halves = {}
        for k, density in enumerate(x):
            half = number((found.halves.get((label, density)) or {}).get(f"{y}_{interval}"))
            if math.isfinite(half):
                halves[k] = scale * half
                most = max(most, int(number(found.halves[label, density].get("n")) or 0))
        draw_spread(ax, places, values, interval, show, look["color"], halves)
        most = max(most, *map(len, values))
    for i, (label, held) in enumerate(found.dense.items()):
        dashes = _DASHES[i % len(_DASHES)]
        ax.axhline(scale * float(np.mean(held)), color=GREY, linestyle=dashes, linewidth=0.8, label=label)
    if scale == 100:
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0.0) if low < 0 else low, min(high, 100.5))
    name_y(ax, named)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    legend(ax, list(found.curves))
    said = said_of(interval, show, most)
    told = [f"{said} {'runs' if 'accuracy' in y else 'masks'}"] if said else []
    told += _missing(rows, found.known, "without numbers")
    name_x(ax, f"sparsity ({'; '.join(told)})" if told else "sparsity")
    return ax


def _missing(rows: Sequence[Row], known: int, why: str, what: str = "run") -> list[str]:
    """How many rows are left out because they are unfinished runs, and how many for another reason, in words."""
    unfinished = _unfinished(rows)
    others = len(rows) - known - unfinished
    said = [f"{unfinished} run{'s' * (unfinished > 1)} unfinished, left out"] if unfinished else []
    return said + ([f"{others} {what}{'s' * (others > 1)} {why} left out"] if others else [])


def _unfinished(rows: Sequence[Row]) -> int:
    """How many rows are of run folders without summary.json: see `topo.plots.reading`."""
    return sum(row.get("unfinished") is True for row in rows)


def _none_left(rows: Sequence[Row], otherwise: str) -> str:
    """Why nothing can be drawn."""
    if _unfinished(rows) < len(rows):
        return otherwise
    return f"no run is finished: none of {len(rows)} run folders has a summary.json (topo train --resume goes on)"


def _scale(y: str, values: Sequence[float]) -> tuple[float, str]:
    """Accuracies are drawn in percent: the factor and the name of the axis; TopoError if they are not fractions."""
    if "accuracy" not in y:
        return 1.0, worded(y)
    if not all(0 <= value <= 1 for value in values):
        odd = next(value for value in values if not 0 <= value <= 1)
        raise TopoError(f"column '{y}' holds {odd:g}; accuracies are fractions, 0 to 1")
    return 100.0, worded(y) + " (%)"


def _sparsity_axis(ax: Axes, densities: Sequence[float]) -> None:
    """A logarithmic axis of densities, densest at the left, that is labelled with sparsities."""
    low, high = min(densities), max(densities)
    ax.set_xscale("log")
    ax.set_xlim(high * 1.15, low / 1.15)
    places, size = sorted(set(densities), reverse=True), points(mpl.rcParams["xtick.labelsize"])
    point = math.log(high * 1.33 / low) / size_of(ax)[0]
    chosen = _spaced(places, 4.2 * size * point)
    if len(chosen) > 9:
        chosen = sorted(log_ticks(low, high), reverse=True)
    longest = max(width_of(text, size) for text in _sparsities(chosen))
    if longest > 4.2 * size:
        chosen = _spaced(chosen, (longest + 0.5 * size) * point)
    ax.set_xticks(chosen, _sparsities(chosen))
    ax.xaxis.set_minor_locator(NullLocator())


def _spaced(places: Sequence[float], room: float) -> list[float]:
    """Of falling places the first, and each next one that is so far from the last in logarithm."""
    chosen = [places[0]]
    for place in places[1:]:
        if math.log(chosen[-1] / place) >= room:
            chosen.append(place)
    return chosen


def _sparsities(densities: Sequence[float]) -> list[str]:
    """Sparsities in percent, of four digits or of as many as tell them apart, and from 100 %.

    >>> _sparsities([0.1, 0.02]), _sparsities([0.00012, 0.0001, 0.00005])
    (['90 %', '98 %'], ['99.988 %', '99.99 %', '99.995 %'])
    """
    for digits in range(4, 16):
        texts = [f"{100 - 100 * float(f'{d:.{digits - 2}g}'):.{digits}g} %" for d in densities]
        if len(set(texts)) == len(set(densities)) and "100 %" not in texts:
            break
    return texts


@plot("rows")
def metric_accuracy(
    data: Table,
    fig: Figure | SubFigure | None = None,
    *,
    metric: str,
    y: str = "accuracy",
    baseline: str = "mean_log_density",
    group: str = "method",
    cell: str = "sparsity,family",
    means: bool = True,
    **style: Any,
) -> Figure | SubFigure:
    """A metric against accuracy, beside the density baseline that it must beat; ranks within cells.

    data: rows with the columns `metric`, `y`, `baseline` and `group`, one for each run or mask. cell: columns with
    commas between; rows that agree in all of them are a cell, and only they are compared: ranks are taken within cells,
    centred, divided by the size of the cell, and correlated (Spearman) over all cells of two points or more. Numbers
    that agree to 12 digits are ties. "family" is a column of the table, or follows from the method:
    `topo.plots.comparable_runs`. The partial correlation is that of metric and accuracy given the baseline, of the same
    ranks; it takes three points more than there are cells, for with fewer it is 1 or -1 whatever the numbers are.
    means: a point is the mean of the rows of a group in a cell, so that seeds are not evidence of their own; otherwise
    a row. Rows of one group that were trained otherwise (`topo.plots.settings.SETTINGS`) are groups of their own,
    called by the keys in which they differ, "erk, init=kaiming_normal".
    Grey lines join the points of a cell; a point alone in its cell is hollow and not counted. Rows without a number,
    and rows that lack a column of cells which others have, are left out; how many points, cells and rows there are is
    said below, and above, why a correlation is undefined. style: of the points.
    """
    rows = rows_of(data, (metric, y, baseline))
    numbers = np.array([[number(row.get(name)) for name in (metric, baseline, y)] for row in rows])
    known = np.isfinite(numbers).all(axis=1)
    if not known.any():
        empty = [name for name, found in zip((metric, baseline, y), np.isfinite(numbers).any(axis=0)) if not found]
        named = " and ".join(f"'{name}'" for name in empty) or f"'{metric}', '{baseline}' and '{y}' at once"
        raise TopoError(_none_left(rows, f"no row has a number in {named}"))
    cells, used, unknown = cells_of(rows, cell, group)
    besides = (metric, y, baseline, *(name.strip() for name in cell.split(",")))
    used_rows = [rows[k] for k in np.flatnonzero(known)]
    names = dict(zip(np.flatnonzero(known).tolist(), settled(used_rows, group, "masks", besides)))
    points = _points(rows, cells, numbers, group, names, means)
    if not points:
        raise TopoError(f"no row has numbers in '{metric}', '{baseline}' and '{y}' and tells its {used}")
    fig = new_figure(fig)
    panels = fig.subplots(1, 2, sharey=True)
    named = _scatter(panels, points, y, style)
    texts, said = _told(points, used, (metric, baseline, y))
    for ax, name, text in zip(panels, (metric, baseline), texts):
        headline(ax, text, 0.38 * 72 * fig.bbox.width / fig.dpi)
        name_x(ax, worded(name))
    name_y(panels[0], named)
    if unknown:
        said += f"; the table does not tell {unknown}"
    astray = sum(cells[k] is None for k in np.flatnonzero(known))
    said += "".join(f"; {text}" for text in _missing(rows, int(known.sum()), "without a number", "row"))
    said += f"; {astray} row{'s' * (astray > 1)} of unknown {used} left out" if astray else ""
    room = 72 * fig.bbox.width / fig.dpi
    fig.supxlabel(fitted(said, 0.95 * room, small()), fontsize=small(), color=GREY)
    figure_legend(fig, panels[0])
    return fig


@dataclass(frozen=True)
class _Point:
    """The mean of `rows` rows of a group in a cell. place: metric, baseline, accuracy."""

    group: str
    cell: tuple[str, ...]
    place: np.ndarray
    rows: int


def _points(
    rows: Sequence[Row],
    cells: Sequence[tuple[str, ...] | None],
    numbers: np.ndarray,
    group: str,
    names: Mapping[int, str],
    means: bool,
) -> list[_Point]:
    """Points of the rows that have a cell and finite numbers (rows, 3). names: what these rows are called."""
    found: dict[Any, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(numbers).all(axis=1)).tolist():
        if cells[k] is not None:
            own = names[k] if means and told(rows[k], group) else k
            found.setdefault((cells[k], own), []).append(k)
    return [_Point(names[mine[0]], cell, numbers[mine].mean(axis=0), len(mine)) for (cell, _), mine in found.items()]


def _scatter(panels: Sequence[Axes], points: Sequence[_Point], y: str, style: Mapping[str, Any]) -> str:
    """Draw the points in both panels; the name of the y axis."""
    scale, named = _scale(y, [float(point.place[2]) for point in points])
    sizes = Counter(point.cell for point in points)
    count = len(points) > 2000
    for column, ax in enumerate(panels):
        for cell in [c for c, size in sizes.items() if size > 1] if len(sizes) > 1 and not count else []:
            mine = sorted((p.place[column], scale * p.place[2]) for p in points if p.cell == cell)
            ax.plot(*zip(*mine), "-", marker="none", color=GREY, alpha=0.35, linewidth=0.5, zorder=1)
        for i, group in enumerate(dict.fromkeys(point.group for point in points)):
            counted = [p.place for p in points if p.group == group and sizes[p.cell] > 1]
            alone = [p.place for p in points if p.group == group and sizes[p.cell] == 1]
            look = {**series(i), "linestyle": "none", "alpha": 0.8, "rasterized": count}
            for places, more in ((counted, {"label": group}), (alone, {"markerfacecolor": "none"})):
                if not counted and places is alone:
                    more |= {"label": group}
                if places:
                    ax.plot([p[column] for p in places], [scale * p[2] for p in places], **{**look, **more, **style})
    return named


def _told(points: Sequence[_Point], cell: str, names: tuple[str, str, str]) -> tuple[tuple[str, str], str]:
    """What is said above the two panels, and below both."""
    sizes = Counter(point.cell for point in points)
    counted = [point for point in points if sizes[point.cell] > 1]
    used = len({point.cell for point in counted})
    said = f"Spearman's $\\rho$ of {len(counted)} points"
    if any(point.rows > 1 for point in points):
        said += ", means of up to " + str(max(point.rows for point in points)) + " runs,"
    of = f" of one {cell}" if len(sizes) > 1 else ""
    said += f" within {used} cell{'s' * (used != 1)}{of}"
    if len(points) > len(counted):
        said += f"; {len(points) - len(counted)} alone in their cell (hollow) not counted"
    if len(counted) < 3:
        why = "undefined, fewer than 3 points share a cell"
        return (f"$\\rho$ {why}", f"$\\rho$ {why}"), said
    places = {c: k for k, c in enumerate(sizes)}
    ranks = centred_ranks(np.array([p.place for p in counted]), np.array([places[p.cell] for p in counted]))
    rho, constant = correlations(ranks), (ranks == 0).all(axis=0)
    shown = []
    for column in (0, 1):
        odd = next((names[c] for c in (column, 2) if constant[c]), None)
        shown.append(f"undefined, {odd.replace('_', ' ')} is constant in cells" if odd else f"= {rho[column, 2]:.2f}")
    rest = partial(rho, len(counted), used)
    given = f"{rest:.2f}"
    if math.isnan(rest):
        given = "undefined" + _why_not(len(counted), used, constant, rho, names)
    return (f"$\\rho$ {shown[0]}\ngiven the baseline: {given}", f"$\\rho$ {shown[1]}\nthe baseline itself"), said


def _why_not(points: int, cells: int, constant: np.ndarray, rho: np.ndarray, names: tuple[str, str, str]) -> str:
    """Why a partial correlation is undefined; nothing where the correlation above it is, for the same reason."""
    if constant[[0, 2]].any():
        return ""
    if constant[1]:
        return ", it is constant in cells"
    if points - cells < 3:
        return f", {points} points less {cells} cell{'s' * (cells > 1)} are under 3"
    same = names[0] if abs(rho[0, 1]) >= abs(rho[1, 2]) else names[2]
    return f", it fixes {same.replace('_', ' ')}"
