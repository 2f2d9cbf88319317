"""Cells: which runs may be compared with which, and rank correlations that never look across.

Sparsity moves every metric and accuracy alike, and so does the family of a method, so that pooled over either almost
any metric "predicts" accuracy. A cell holds the rows of one sparsity and one family; ranks are taken within it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from topo.errors import TopoError
from topo.plots.given import Row, density_of, told

# Columns of a cell that a table need not have: they follow from others.
_DERIVED = ("sparsity", "family")
# Significant digits of what is ranked: means of equal numbers over 3 and over 5 seeds differ in the sixteenth.
_DIGITS = 12


def cells_of(rows: Sequence[Row], columns: str, group: str) -> tuple[list[tuple[str, ...] | None], str, str]:
    """The cell of each row: its entries in the named columns (commas between); what these are, and what is unknown.

    "sparsity" follows from the density, to three digits; "family", where a row has none, from the method in the column
    `group`: see `family_of`. What no row tells is unknown, and makes no cells. A row has None for a cell if it lacks
    what others tell: it may be compared with none.

    Raises TopoError for another column that the table has not.
    """
    known = {key for row in rows for key in row}
    names = [name.strip() for name in columns.split(",") if name.strip()]
    for name in names:
        if name not in known and name not in _DERIVED:
            raise TopoError(f"the table has no column '{name}' for cells; it has: {', '.join(sorted(map(str, known)))}")
    entries = {name: [_entry(row, name, group) for row in rows] for name in names}
    used = [name for name, found in entries.items() if any(entry is not None for entry in found)]
    cells = []
    for k in range(len(rows)):
        cell = tuple(entry for name in used if (entry := entries[name][k]) is not None)
        cells.append(cell if len(cell) == len(used) else None)
    return cells, " and ".join(used), " or ".join(name for name in entries if name not in used)


def _entry(row: Row, name: str, group: str) -> str | None:
    if name == "sparsity":
        density = density_of(row)
        return f"{density:.3g}" if math.isfinite(density) else None
    if told(row, name):
        return str(row[name])
    return family_of(str(row[group])) if name == "family" and told(row, group) else None


@cache
def family_of(method: str) -> str:
    """How a method of `topo list methods` comes to its masks: "shapes", "masks", "optimized" or "scores".

    A method that is not on that list is a family of its own.
    """
    from topo.generate import find_method, is_pruner
    from topo.generators import generators

    if method in generators:
        return "masks" if generators[method].rewires else "shapes"
    try:
        return "scores" if is_pruner(find_method(method)) else "optimized"
    except TopoError:
        return method


def centred_ranks(numbers: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Ranks of (n, columns) numbers within each cell, ties shared, less their mean, over the size of the cell.

    Numbers that agree to 12 significant digits are ties. Over the size, so that ranks of a large cell are not larger
    than those of a small one.
    """
    from scipy.stats import rankdata

    numbers = np.array([float(f"{x:.{_DIGITS}g}") for x in numbers.flat]).reshape(numbers.shape)
    ranks = np.zeros_like(numbers)
    for cell in np.unique(cells):
        mine = cells == cell
        ranks[mine] = (rankdata(numbers[mine], axis=0) - (mine.sum() + 1) / 2) / mine.sum()
    return ranks


def correlations(ranks: np.ndarray) -> np.ndarray:
    """Matrix of correlations of columns that have mean 0; NaN where a column is constant."""
    products = ranks.T @ ranks
    scale = np.sqrt(np.diag(products))
    scale[scale < 1e-12] = math.nan
    return np.asarray(products / np.outer(scale, scale))


def partial(rho: np.ndarray, points: int, cells: int) -> float:
    """Correlation of columns 0 and 2 given column 1: (r_02 - r_01 r_12) / sqrt((1 - r_01^2)(1 - r_12^2)).

    It is the correlation of what column 1 leaves of the two. Centred in each cell, ranks of n points in c cells vary in
    n - c dimensions, and what the baseline leaves of them in n - c - 1: in one dimension two vectors are parallel, the
    correlation is 1 or -1 whatever the numbers are (n - c - 2 degrees of freedom of its t test are 0). NaN unless
    points - cells >= 3, and where a column is constant or column 1 leaves nothing.
    """
    if points - cells < 3:
        return math.nan
    r02, r01, r12 = rho[0, 2], rho[0, 1], rho[1, 2]
    rest = (1 - r01**2) * (1 - r12**2)
    return float((r02 - r01 * r12) / math.sqrt(rest)) if rest > 1e-12 else math.nan
