"""Orthogonal weights inside a mask: a largest matching of its rows and columns, mixed by plane rotations.

The entries of a matching, 1 or -1 each, are a partial isometry: their singular values are 0 and 1. A Givens rotation of
two rows (or columns) keeps singular values, and mixes the entries of both; it is done where both keep all of these
places, so that no weight leaves the mask. What comes of it is exact for every mask, and spread where the mask allows.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

_TRIED = 8  # partners that a line is offered in each sweep
_SWEEPS = 2


def orthogonal(kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A partial isometry W inside a mask, bool (n, m) -> float64 (n, m).

    The singular values of W are 1, as often as a largest matching of rows and columns has pairs, and 0. So W W^T = I
    where every row can have a column of its own, W^T W = I where every column can have a row. Every row with a kept
    entry has one that is not 0.

    >>> w = orthogonal(np.tri(3, dtype=bool), np.random.default_rng(0))  # a triangle leaves signs alone
    >>> np.abs(w).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    n, m = kept.shape
    over_rows, over_columns = rng.permutation(n), rng.permutation(m)  # which of the largest matchings is drawn, too
    pairs = maximum_bipartite_matching(csr_array(kept[over_rows][:, over_columns]), perm_type="column")
    weights = np.zeros((n, m))
    rows = np.flatnonzero(pairs >= 0)
    weights[over_rows[rows], over_columns[pairs[rows]]] = rng.choice([-1.0, 1.0], len(rows))
    for side, mask in ((weights, kept), (weights.T, kept.T)):
        _share(side, mask, rng)
    for _ in range(_SWEEPS):
        for side, mask in ((weights, kept), (weights.T, kept.T)):
            _mix(side, mask, rng)
    return weights


def _share(weights: np.ndarray, kept: np.ndarray, rng: np.random.Generator) -> None:
    """Give every empty row with a kept entry a share of the row that has this column, whose only entry it is."""
    owner = np.where(weights.any(0), np.abs(weights).argmax(0), -1)
    for row in np.flatnonzero(kept.any(1) & ~weights.any(1)).tolist():
        owners = owner[kept[row] & (owner >= 0)].tolist()
        if fitting := [other for other in owners if _fits(weights, kept, row, other)]:
            _rotate(weights, row, fitting[rng.integers(len(fitting))], rng)


def _mix(weights: np.ndarray, kept: np.ndarray, rng: np.random.Generator) -> None:
    """Rotate each row with one of a few others with which it may be."""
    alive = weights.any(1)  # a rotation leaves two rows that are not 0
    for row in rng.permutation(np.flatnonzero(alive)).tolist():
        column = rng.choice(np.flatnonzero(weights[row]))
        partners = np.flatnonzero(kept[:, column] & alive)
        partners = rng.permutation(partners[partners != row])[:_TRIED].tolist()
        fitting = [other for other in partners if _fits(weights, kept, row, other)]
        if fitting:
            _rotate(weights, row, fitting[0], rng)


def _fits(weights: np.ndarray, kept: np.ndarray, one: int, other: int) -> bool:
    """Whether all that both rows hold is kept in both."""
    held = (weights[one] != 0) | (weights[other] != 0)
    return bool((kept[one] & kept[other])[held].all())


def _rotate(weights: np.ndarray, one: int, other: int, rng: np.random.Generator) -> None:
    angle = rng.uniform(pi / 8, 3 * pi / 8)  # neither is left as it was
    c, s = cos(angle), sin(angle)
    weights[[one, other]] = c * weights[one] - s * weights[other], s * weights[one] + c * weights[other]
