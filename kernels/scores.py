"""Scores that are trained: one step of Adam, uphill."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def ascend(scores, mean, square, slopes, rate, step):
    """scores, mean, square (kernels, kernel_size) float32, slopes (kernels,) float64 of |score| -> all three, one step
    on.

    Adam (beta 0.9, 0.999, eps 1e-8) on s with gradient slopes * sign(s). `step` counts from 1.

    scores [[1, -1]], mean and square 0, slopes [2], rate 0.1, step 1 -> scores [[1.1, -1.1]]
    """
    first, second = 1.0 - 0.9**step, 1.0 - 0.999**step
    for k in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            g = slopes[k] if scores[k, t] >= 0 else -slopes[k]
            mean[k, t] = 0.9 * mean[k, t] + 0.1 * g
            square[k, t] = 0.999 * square[k, t] + 0.001 * g * g
            scores[k, t] += rate * (mean[k, t] / first) / (np.sqrt(square[k, t] / second) + 1e-8)
