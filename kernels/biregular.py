"""Random bipartite graphs as bit rows: cells of a matrix draw their columns from shuffled decks.

`rng` is a numpy Generator, and draws are the same compiled or not. A number below n is floor(n u), u of 53 bits: each
comes with probability 1 / n to within 2**-53.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def deal(counts, per_row, width, columns, balanced, rng, words):
    """counts (cells,) int64 -> words (rows, w) uint64, zero before: cell t gets counts[t] distinct random columns.

    Cell t lies in row t // per_row and has `width` columns from (t % per_row) * width on, fewer where they would pass
    `columns`; counts[t] is at most what it has. balanced: the cells deal in turn from one deck of `width` columns after
    another, each shuffled while it is dealt, so that over all cells no column is set more than once more than any
    other; a cell that empties a deck gets no card of the next that it holds already. Otherwise every cell draws from
    the whole deck, uniformly and independently. Cells that share a deck share no column, so that a balanced deal is
    even but not uniform: trades (`topo.kernels.rewire`) make it so.

    counts [1, 1], per_row 1, width 2, columns 2, balanced -> words [[0b01], [0b10]] or [[0b10], [0b01]]
    """
    deck = np.arange(width)
    top = 0
    for t in range(counts.size):
        row, begin = t // per_row, (t % per_row) * width
        end = width  # cards from here on wait: this cell holds them
        if not balanced:
            top = 0
        for dealt in range(counts[t]):
            if top == width:
                top, end = 0, width - dealt
            j = top + int(rng.random() * (end - top))
            while begin + deck[j] >= columns:
                j = top + int(rng.random() * (end - top))
            card = deck[j]
            deck[j] = deck[top]
            deck[top] = card
            top += 1
            words[row, (begin + card) >> 6] |= np.uint64(1) << np.uint64((begin + card) & 63)
