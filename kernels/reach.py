"""Reachability through one layer on bit rows: booleans, never counts, so nothing underflows or overflows.

Columns of a grouped layer belong to its group; a layer without groups is one group.
"""

from __future__ import annotations

import numba as nb


@nb.njit(cache=True, nogil=True)
def reach_forward(words, flags, rows_per_group, live):
    """words (rows, w), flags (groups, w) uint64 -> live (rows,) bool: the row has a kept weight at a flagged column.

    words [[0b01], [0b10]], flags [[0b10]] -> live [False, True]
    """
    rows, width = words.shape
    for i in range(rows):
        g = i // rows_per_group
        live[i] = False
        for w in range(width):
            if words[i, w] & flags[g, w]:
                live[i] = True
                break


@nb.njit(cache=True, nogil=True)
def reach_backward(words, live, rows_per_group, flags):
    """words (rows, w) uint64, live (rows,) bool -> flags (groups, w): columns where a live row has a kept weight.

    words [[0b01], [0b10]], live [False, True] -> flags [[0b10]]
    """
    rows, width = words.shape
    flags[:] = 0
    for i in range(rows):
        if live[i]:
            g = i // rows_per_group
            for w in range(width):
                flags[g, w] |= words[i, w]


@nb.njit(cache=True, nogil=True)
def effective(words, flags, live, rows_per_group, out):
    """words (rows, w), flags (groups, w) uint64, live (rows,) bool -> out (rows, w): words[i] & flags, or 0.

    words [[0b11], [0b11]], flags [[0b10]], live [True, False] -> out [[0b10], [0]]
    """
    rows, width = words.shape
    for i in range(rows):
        if live[i]:
            g = i // rows_per_group
            for w in range(width):
                out[i, w] = words[i, w] & flags[g, w]
        else:
            out[i, :] = 0
