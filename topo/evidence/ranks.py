"""Ranks, rank correlations, and rank correlations with other ranks taken out."""

from __future__ import annotations

import math

import numpy as np

_EXACT = 1e-9  # of a column's length: what a regression leaves below this is rounding


def ranked(values: np.ndarray) -> np.ndarray:
    """Average ranks from 1 of values (n,), which may be infinite: equal values share the mean of their places.

    >>> ranked(np.array([5.0, -np.inf, 5.0, 9.0])).tolist()
    [2.5, 1.0, 2.5, 4.0]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of the average ranks of x and y (n,); NaN where one of them is constant.

    >>> round(spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])), 6)
    0.8
    """
    return _pearson(_centred(ranked(x)), _centred(ranked(y)))


def controlled(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Partial rank correlation of x and y (n,) given the columns of `given` (n, k).

    Ranks of x and of y are each regressed on the ranks of the columns, with an intercept; the correlation of what the
    regressions leave. NaN where they leave nothing of x or of y, and where n - k - 2 is below 1.

    >>> z = np.array([1.0, 2, 3, 4, 5, 6])
    >>> controlled(z, np.array([2.0, 1, 3, 4, 6, 5]), z[:, None])
    nan
    """
    if len(x) - given.shape[1] < 3:
        return math.nan
    design = np.column_stack([np.ones(len(x)), *(_centred(ranked(column)) for column in given.T)])
    left = []
    for values in (x, y):
        ranks = _centred(ranked(values))
        rest = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
        left.append(
            rest if np.linalg.norm(rest) > _EXACT * max(1.0, float(np.linalg.norm(ranks))) else np.zeros(len(x))
        )
    return _pearson(*left)


def _centred(values: np.ndarray) -> np.ndarray:
    centred: np.ndarray = values - values.mean()
    return centred


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Of centred values."""
    size = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / size)) if size > 0 else math.nan
