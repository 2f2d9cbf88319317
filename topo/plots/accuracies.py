"""Accuracy against sparsity and against metrics: tables of runs in, curves and correlations out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

from topo.errors import TopoError
from topo.plots import plot
from topo.plots.furniture import (
    GREY,
    MARKERS,
    STYLES,
    axes,
    columns_of,
    legend,
    log_ticks,
    new_figure,
    points,
    size_of,
    small,
    turn,
)
from topo.plots.given import choice, density_of, number, rows_of

Table = Any  # a list of rows (mappings), columns by name, or a pandas table
INTERVALS = ("t95", "sd", "range", "none")


@plot("rows")
def accuracy_sparsity(
    data: Table,
    ax: Axes | None = None,
    *,
    y: str = "accuracy",
    group: str = "method",
    interval: str = "t95",
    **style: Any,
) -> Axes:
    """Accuracy against sparsity, a curve for each method: the mean over seeds and an interval.

    data: rows with density or sparsity, the column `y` (a fraction) and the column `group`; a row for each run. Runs of
    density 1 are the dense baseline, a dashed line. interval: "t95" (95 % of the mean, Student), "sd", "range" (least
    to largest) or "none"; a single run has none. Runs without an accuracy are left out. style: of the curves.
    """
    choice("interval", interval, INTERVALS)
    rows = rows_of(data, (y,))
    if not any("density" in row or "sparsity" in row for row in rows):
        raise TopoError("the table has neither a column 'density' nor 'sparsity'")
    curves: dict[str, dict[float, list[float]]] = {}
    dense: list[float] = []
    for row in rows:
        density, value = density_of(row), number(row.get(y))
        if not (math.isfinite(density) and math.isfinite(value)) or not 0 < density <= 1:
            continue
        if density == 1.0:
            dense.append(value)
        else:
            curve = curves.setdefault(str(row.get(group, "runs")), {})
            curve.setdefault(float(f"{density:.4g}"), []).append(value)
    if not curves:
        raise TopoError(f"no row has both a density below 1 and a number in '{y}'")
    scale, named = _scale(y, [*dense, *(v for curve in curves.values() for values in curve.values() for v in values)])
    ax = axes(ax)
    for i, (label, curve) in enumerate(curves.items()):
        x = sorted(curve, reverse=True)
        mean = np.array([np.mean(curve[d]) for d in x]) * scale
        low, high = np.array([_interval(curve[d], interval) for d in x]).T * scale
        if scale == 100:
            low, high = np.clip(low, 0, 100), np.clip(high, 0, 100)
        look: dict[str, Any] = {"color": f"C{i}", "marker": turn(MARKERS, i), "linestyle": turn(STYLES, i)}
        ax.plot(x, mean, **{**look, "label": label, **style})
        if interval != "none" and len(x) > 1:
            ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
        elif interval != "none":
            ax.errorbar(x, mean, [mean - low, high - mean], color=look["color"], linewidth=0.8, capsize=2)
    if dense:
        ax.axhline(scale * float(np.mean(dense)), color=GREY, linestyle="--", linewidth=0.8, label="dense")
    _sparsity_axis(ax, [d for curve in curves.values() for d in curve])
    ax.set_ylabel(named)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    legend(ax)
    most = max(len(values) for curve in curves.values() for values in curve.values())
    said = {"t95": "95 % of the mean", "sd": "standard deviation", "range": "least to largest"}.get(interval)
    if said and most > 1:
        ax.set_xlabel(f"sparsity (bands: {said}, up to {most} runs)")
    return ax


def _scale(y: str, values: Sequence[float]) -> tuple[float, str]:
    """Accuracies are drawn in percent: the factor and the name of the axis; TopoError if they are no fractions."""
    if "accuracy" not in y:
        return 1.0, y.replace("_", " ")
    if not all(0 <= value <= 1 for value in values):
        odd = next(value for value in values if not 0 <= value <= 1)
        raise TopoError(f"column '{y}' holds {odd:g}; accuracies are fractions, 0 to 1")
    return 100.0, y.replace("_", " ") + " (%)"


def _interval(values: Sequence[float], kind: str) -> tuple[float, float]:
    """(low, high) around the mean; the mean itself of a single run."""
    mean = float(np.mean(values))
    if len(values) < 2 or kind == "none":
        return mean, mean
    if kind == "range":
        return min(values), max(values)
    half = float(np.std(values, ddof=1))
    if kind == "t95":
        from scipy.stats import t

        half *= float(t.ppf(0.975, len(values) - 1)) / math.sqrt(len(values))
    return mean - half, mean + half


def _sparsity_axis(ax: Axes, densities: Sequence[float]) -> None:
    """A logarithmic axis of densities, densest at the left, that is labelled with sparsities."""
    low, high = min(densities), max(densities)
    ax.set_xscale("log")
    ax.set_xlim(high * 1.15, low / 1.15)
    places = sorted(set(densities), reverse=True)
    room = 4.2 * points(mpl.rcParams["xtick.labelsize"]) / size_of(ax)[0] * math.log(high * 1.33 / low)
    chosen = [places[0]]
    for place in places[1:]:
        if math.log(chosen[-1] / place) >= room:
            chosen.append(place)
    if len(chosen) > 9:
        chosen = sorted(log_ticks(low, high), reverse=True)
    ax.set_xticks(chosen, [f"{100 - 100 * float(f'{d:.2g}'):.4g} %" for d in chosen])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("sparsity")


@plot("rows")
def metric_accuracy(
    data: Table,
    fig: Figure | SubFigure | None = None,
    *,
    metric: str,
    y: str = "accuracy",
    baseline: str = "mean_log_density",
    group: str = "method",
    cell: str = "sparsity",
    **style: Any,
) -> Figure | SubFigure:
    """A metric against accuracy, beside the density baseline that it must beat, with rank correlations.

    data: rows with the columns `metric`, `y`, `baseline` and `group`, one for each run or mask. Correlations are
    Spearman's within cells, rows of one value in the column `cell` (where there is one), and pooled over cells: ranks
    are taken within a cell and centred. The partial correlation is that of metric and accuracy given the baseline.
    Rows without a number are left out, and counted below. style: of the points.
    """
    rows = rows_of(data, (metric, y, baseline))
    numbers = np.array([[number(row.get(name)) for name in (metric, baseline, y)] for row in rows])
    known = np.isfinite(numbers).all(axis=1)
    if known.sum() < 3:
        raise TopoError(
            f"{int(known.sum())} rows have numbers in '{metric}', '{baseline}' and '{y}'; 3 or more are needed"
        )
    cells = np.array([str(row.get(cell, "")) for row in rows])[known]
    groups = [str(row.get(group, "masks")) for row, keep in zip(rows, known) if keep]
    numbers = numbers[known]
    ranks = _centred_ranks(numbers, cells)
    rho = _correlations(ranks)
    scale, named = _scale(y, numbers[:, 2].tolist())
    fig = new_figure(fig)
    panels = fig.subplots(1, 2, sharey=True)
    for column, (ax, name) in enumerate(zip(panels, (metric, baseline))):
        for i, label in enumerate(dict.fromkeys(groups)):
            mine = [k for k, g in enumerate(groups) if g == label]
            look: dict[str, Any] = {"color": f"C{i}", "marker": turn(MARKERS, i), "linestyle": "none", "alpha": 0.75}
            look |= {"markersize": mpl.rcParams["lines.markersize"], "rasterized": len(groups) > 2000}
            ax.plot(numbers[mine, column], scale * numbers[mine, 2], **{**look, "label": label, **style})
        ax.set_xlabel(name.replace("_", " "))
    panels[0].set_ylabel(named)
    texts = (
        f"$\\rho$ = {_shown(rho[0, 2])}\ngiven the baseline {_shown(_partial(rho))}",
        f"$\\rho$ = {_shown(rho[1, 2])}\nthe baseline itself",
    )
    for ax, text in zip(panels, texts):
        ax.set_title(text, fontsize=mpl.rcParams["legend.fontsize"], loc="left")
    count = len(set(cells.tolist()))
    within = f" within {count} cells of one {cell}" if count > 1 else ""
    left_out = f"; {int((~known).sum())} rows without a number left out" if not known.all() else ""
    fig.supxlabel(f"Spearman's $\\rho$ of {len(numbers)} rows{within}{left_out}", fontsize=small(), color=GREY)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        columns = columns_of(labels, 72 * fig.bbox.width / fig.dpi)
        fig.legend(handles, labels, loc="outside upper left", ncols=columns)
    return fig


def _centred_ranks(numbers: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Ranks within each cell, ties shared, less their mean, over the size of the cell."""
    from scipy.stats import rankdata

    ranks = np.zeros_like(numbers)
    for cell in np.unique(cells):
        mine = cells == cell
        ranks[mine] = (rankdata(numbers[mine], axis=0) - (mine.sum() + 1) / 2) / mine.sum()
    return ranks


def _correlations(ranks: np.ndarray) -> np.ndarray:
    """Matrix of correlations of columns that have mean 0; NaN where a column is constant."""
    products = ranks.T @ ranks
    scale = np.sqrt(np.diag(products))
    scale[scale < 1e-12] = math.nan
    return np.asarray(products / np.outer(scale, scale))


def _partial(rho: np.ndarray) -> float:
    """Correlation of metric and accuracy given the baseline: (r_my - r_mb r_by) / sqrt((1 - r_mb^2)(1 - r_by^2))."""
    my, mb, by = rho[0, 2], rho[0, 1], rho[1, 2]
    rest = (1 - mb**2) * (1 - by**2)
    return float((my - mb * by) / math.sqrt(rest)) if rest > 1e-12 else math.nan


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"
