"""Random walks by weight: sums of |w| by kernel, running shares, and one draw for each walk."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def kernel_sums(weights, sums):
    """weights (kernels, kernel_size) float32 or float64 -> sums (kernels,) float64: sum over kernel_size of |w|.

    Four kernels at a time: their additions do not wait for one another.

    weights [[1, -2], [0, 3]] -> sums [3, 3]
    """
    kernels, kernel_size = weights.shape
    for first in range(0, kernels - 3, 4):
        a = b = c = d = 0.0
        for t in range(kernel_size):
            a += abs(np.float64(weights[first, t]))
            b += abs(np.float64(weights[first + 1, t]))
            c += abs(np.float64(weights[first + 2, t]))
            d += abs(np.float64(weights[first + 3, t]))
        sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = a, b, c, d
    for k in range(kernels - kernels % 4, kernels):
        total = 0.0
        for t in range(kernel_size):
            total += abs(np.float64(weights[k, t]))
        sums[k] = total


@nb.njit(cache=True, nogil=True)
def running_shares(sums, shares):
    """sums (rows, columns) float64 -> shares (rows, columns): sum of the row up to here over the sum of the row.

    A row of zeros has shares of 1.

    sums [[1, 3]] -> shares [[0.25, 1]]
    """
    rows, columns = sums.shape
    for i in range(rows):
        total = 0.0
        for j in range(columns):
            total += sums[i, j]
            shares[i, j] = total
        if total > 0.0:
            for j in range(columns):
                shares[i, j] /= total
        else:
            shares[i] = 1.0


@nb.njit(cache=True, nogil=True)
def draw_columns(shares, rows, chances, columns):
    """shares (r, c), rows (n,) int64, chances (n,) in [0, 1) -> columns (n,) int64: the first whose share is larger.

    Column j of a row comes with probability shares[row, j] - shares[row, j - 1].

    shares [[0.25, 1]], rows [0, 0], chances [0.2, 0.25] -> columns [0, 1]
    """
    last = shares.shape[1] - 1
    for n in range(len(rows)):
        row, low, high = shares[rows[n]], 0, last
        while low < high:
            middle = (low + high) // 2
            if row[middle] > chances[n]:
                high = middle
            else:
                low = middle + 1
        columns[n] = low


@nb.njit(cache=True, nogil=True)
def draw_taps(weights, kernels, chances, kernel_size):
    """weights (k, t), kernels (n,) int64, chances (n,) in [0, 1) -> kernel_size (n,) int64, each in proportion to |w|.

    weights [[1, -3]], kernels [0, 0], chances [0.2, 0.25] -> kernel_size [0, 1]
    """
    for n in range(len(kernels)):
        row = weights[kernels[n]]
        total = 0.0
        for t in range(len(row)):
            total += abs(np.float64(row[t]))
        left, tap = chances[n] * total, 0
        for t in range(len(row)):
            size = abs(np.float64(row[t]))
            if size > 0.0:
                tap = t
            left -= size
            if left < 0.0:
                break
        kernel_size[n] = tap
