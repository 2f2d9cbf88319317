"""Prediction out of sample: a method is left out, a line is fitted to the others, and tried on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def left_out(
    features: np.ndarray, accuracy: np.ndarray, cells: Sequence[np.ndarray], family: np.ndarray
) -> tuple[float, float, int]:
    """(R2, share of pairs in the right order, rows) of lines on within-cell ranks, one family left out at a time.

    features: ranks within cells, scaled to -1/2 .. 1/2, (n, k), NaN where undefined: such rows are left out. accuracy:
    the same of accuracies, (n,). cells: the rows of each. family: a number for each row's family, (n,). R2 is 1 minus
    squared errors over squares of the ranks about their cells' means, of each row when its family is left out: a line
    that knows nothing has 0 or less. Pairs are a row of the left-out family and one of another in the same cell with
    another accuracy; equal predictions count a half. NaN with fewer than two families.
    """
    usable = ~np.isnan(features).any(axis=1) & ~np.isnan(accuracy)
    families = np.unique(family[usable])
    if len(families) < 2:
        return math.nan, math.nan, int(usable.sum())
    design = np.column_stack([np.ones(len(accuracy)), np.nan_to_num(features)])
    errors = squares = right = pairs = 0.0
    middle = np.zeros(len(accuracy))
    for rows in cells:
        middle[rows] = np.nanmean(accuracy[rows]) if usable[rows].any() else 0.0
    for one in families:
        out = usable & (family == one)
        learn = usable & ~out
        if learn.sum() < 2:
            continue
        slopes = np.linalg.lstsq(design[learn], accuracy[learn], rcond=None)[0]
        predicted = design @ slopes
        errors += float(((accuracy - predicted)[out] ** 2).sum())
        squares += float(((accuracy - middle)[out] ** 2).sum())
        for rows in cells:
            mine, others = rows[out[rows]], rows[learn[rows]]
            truth = np.sign(accuracy[mine, None] - accuracy[others])
            gap = predicted[mine, None] - predicted[others]
            said = np.where(np.abs(gap) < 1e-12, 0.0, np.sign(gap))
            counted = truth != 0
            pairs += float(counted.sum())
            right += float((counted * (1 + truth * said) / 2).sum())
    r2 = 1 - errors / squares if squares > 0 else math.nan
    return r2, right / pairs if pairs else math.nan, int(usable.sum())
