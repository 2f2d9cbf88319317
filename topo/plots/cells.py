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
from topo.plots.given import Row, density_of

# Columns of a cell that a table need not have: they follow from others.
_DERIVED = ("sparsity", "family")


def cells_of(rows: Sequence[Row], columns: str, group: str) -> tuple[list[tuple[str, ...]], str, str]:
    """The cell of each row: its entries in the named columns (commas between); what these are, and what is unknown.

    "sparsity" follows from the density, to three digits; "family", where the table has no such column, from the method
    in the column `group`: see `family_of`.

    Raises TopoError for another column that the table has not.
    """
    known = {key for row in rows for key in row}
    names = [name.strip() for name in columns.split(",") if name.strip()]
    for name in names:
        if name not in known and name not in _DERIVED:
            raise TopoError(f"the table has no column '{name}' for cells; it has: {', '.join(sorted(map(str, known)))}")
    told = {"family": {"family", group}, "sparsity": {"density", "sparsity"}}
    unknown = [name for name in names if not known & told.get(name, {name})]
    used = [name for name in names if name not in unknown]
    cells = [tuple(_entry(row, name, group) for name in used) for row in rows]
    return cells, " and ".join(used), " or ".join(unknown)


def _entry(row: Row, name: str, group: str) -> str:
    if name == "sparsity":
        return f"{density_of(row):.3g}"
    if name == "family" and name not in row:
        return family_of(str(row.get(group)))
    return str(row.get(name))


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
    """Ranks of (n, columns) numbers within each cell, ties shared, less their mean, over the size of the cell."""
    from scipy.stats import rankdata

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


def partial(rho: np.ndarray) -> float:
    """Correlation of columns 0 and 2 given column 1: (r_02 - r_01 r_12) / sqrt((1 - r_01^2)(1 - r_12^2))."""
    r02, r01, r12 = rho[0, 2], rho[0, 1], rho[1, 2]
    rest = (1 - r01**2) * (1 - r12**2)
    return float((r02 - r01 * r12) / math.sqrt(rest)) if rest > 1e-12 else math.nan
