"""Path counts through one layer: a pull (each output sums its inputs) and a push (each input sums its outputs).

A layer comes as bit rows, one bit an edge, or as a matrix of multiplicities. Sums are of non-negative float64 numbers.
"""

from __future__ import annotations

import numba as nb
import numpy as np

# Byte columns whose tables (256 sums each) stay in the first-level cache together: 8 * 256 * 8 bytes = 16 KiB.
_GROUP = 8


@nb.njit(cache=True, nogil=True)
def pull_bits(codes, x, y):
    """codes (rows, g) uint8 (bit rows seen as bytes), x (8 g,) float64 -> y (rows,): y[i] = sum_j bit[i, j] x[j].

    The sums of all 256 subsets of 8 columns are tabulated, so a row costs a look-up a byte whatever its density.

    codes [[0b101]], x [1, 2, 4, 0, 0, 0, 0, 0] -> y [5]
    """
    rows, columns = codes.shape
    table = np.empty(_GROUP * 256)
    y[:] = 0.0
    for first in range(0, columns, _GROUP):
        many = min(_GROUP, columns - first)
        for g in range(many):
            base = g << 8
            table[base] = 0.0
            for bit in range(8):
                value = x[8 * (first + g) + bit]
                for code in range(1 << bit):
                    table[base + (1 << bit) + code] = table[base + code] + value
        for i in range(rows):
            total = 0.0
            for g in range(many):
                total += table[(g << 8) + int(codes[i, first + g])]
            y[i] += total


@nb.njit(cache=True, nogil=True)
def push_bits(codes, b, z):
    """codes (rows, g) uint8, b (rows,) float64 -> z (8 g,): z[j] = sum over rows i that have bit j of b[i].

    Rows are summed by byte value first; the 256 sums of a byte column are then folded into its 8 columns.

    codes [[0b101], [0b001]], b [2, 3] -> z [5, 0, 2, 0, 0, 0, 0, 0]
    """
    rows, columns = codes.shape
    table = np.empty(_GROUP * 256)
    for first in range(0, columns, _GROUP):
        many = min(_GROUP, columns - first)
        table[:] = 0.0
        for i in range(rows):
            value = b[i]
            if value != 0.0:
                for g in range(many):
                    table[(g << 8) + int(codes[i, first + g])] += value
        for g in range(many):
            base = g << 8
            for bit in range(7, -1, -1):
                half = 1 << bit
                total = 0.0
                for code in range(half):
                    total += table[base + half + code]
                    table[base + code] += table[base + half + code]
                z[8 * (first + g) + bit] = total


@nb.njit(cache=True, nogil=True)
def pull_counts(counts, rows_per_group, x, y):
    """counts (rows, c) uint16, x (groups * c,) float64 -> y (rows,): y[i] = sum_j counts[i, j] x[g c + j].

    Row i is of group g = i // rows_per_group.

    counts [[2, 1]], x [1, 3] -> y [5]
    """
    rows, columns = counts.shape
    for i in range(rows):
        base = (i // rows_per_group) * columns
        total = 0.0
        for j in range(columns):
            total += counts[i, j] * x[base + j]
        y[i] = total


@nb.njit(cache=True, nogil=True)
def push_counts(counts, rows_per_group, b, z):
    """counts (rows, c) uint16, b (rows,) float64 -> z (groups * c,): z[g c + j] = sum_i counts[i, j] b[i].

    The sum runs over the rows i of group g = i // rows_per_group.

    counts [[2, 1], [0, 1]], b [1, 3] -> z [2, 4]
    """
    rows, columns = counts.shape
    z[:] = 0.0
    for i in range(rows):
        base = (i // rows_per_group) * columns
        value = b[i]
        if value != 0.0:
            for j in range(columns):
                z[base + j] += counts[i, j] * value
