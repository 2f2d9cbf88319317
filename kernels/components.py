"""Connected components of a bipartite graph, from its bit rows."""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic


@intrinsic
def _popcount(typing_context, word):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


if nb.config.DISABLE_JIT:

    def _popcount(word):
        return int(word).bit_count()


@nb.njit(cache=True, nogil=True)
def components(words, labels):
    """words (rows, w) uint64 -> labels (rows,) int64: the component of each row, -1 if it is empty; their number.

    Union-find over rows, with the first row of each column as its owner. Columns known to belong to the first row's
    component are kept as a bit set, so that a dense connected layer costs a few looks at each word, not one at each
    edge.

    words [[0b011], [0b100], [0b110]] -> 1, labels [0, 0, 0]
    """
    rows, width = words.shape
    parent, owner = np.empty(rows, np.int64), np.empty(64 * width, np.int64)
    inside = np.empty(width, np.uint64)  # columns of the first row's component
    for i in range(rows):
        parent[i] = i
    owner[:] = -1
    inside[:] = 0
    first = -1
    for i in range(rows):
        touches = False
        empty = True
        for w in range(width):
            word = words[i, w]
            if word:
                empty = False
                touches |= (word & inside[w]) != 0
        if empty:
            labels[i] = -1
            continue
        labels[i] = 0  # not empty; its number is found below
        if first < 0:
            first = i
        if touches:
            parent[i] = first
        for w in range(width):
            word = words[i, w] & ~inside[w]
            while word:
                rest = word & (word - np.uint64(1))
                column = 64 * w + _popcount((word ^ rest) - np.uint64(1))
                word = rest
                if owner[column] < 0:
                    owner[column] = i
                    continue
                a, b = i, owner[column]
                while parent[a] != a:
                    parent[a] = parent[parent[a]]
                    a = parent[a]
                while parent[b] != b:
                    parent[b] = parent[parent[b]]
                    b = parent[b]
                parent[max(a, b)] = min(a, b)
        a = i
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        if a == first:
            for w in range(width):
                inside[w] |= words[i, w]
    count = 0
    for i in range(rows):
        a = i
        while parent[a] != a:
            a = parent[a]
        if a < i:
            labels[i] = labels[a]
        elif labels[i] == 0:
            labels[i] = count
            count += 1
    return count
