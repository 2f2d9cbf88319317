"""Rewiring bit rows at fixed row and column sums: curveball trades (Strona et al. 2014; Carstens et al. 2018).

Two rows trade: the columns that exactly one of them has are dealt anew, uniformly among all ways that leave both row
sums as they are. Column sums cannot change. Repeated over random pairs, every matrix of these sums becomes equally
likely. `rng` is a numpy Generator; see `topo.kernels.biregular` for how exact its draws are.
"""

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
def _in_turn(words, i, j, due, left, rng):
    """Deal the `left` differing bits of rows i and j one by one: to i with chance due / left, as long as it is due."""
    for w in range(words.shape[1]):
        differing, both = words[i, w] ^ words[j, w], words[i, w] & words[j, w]
        mine, rest = np.uint64(0), differing
        while rest != 0:
            bit = rest & (~rest + np.uint64(1))
            rest ^= bit
            if rng.random() * left < due:
                mine |= bit
                due -= 1
            left -= 1
        words[i, w], words[j, w] = both | mine, both | (differing ^ mine)


@nb.njit(cache=True, nogil=True)
def _by_coins(words, i, j, due, rng, mine):
    """Deal the differing bits of rows i and j by fair coins, 64 at a time, then move random ones until i has `due`.

    Given how many came up, all sets of that size are equally likely; a uniform move keeps it so.
    """
    width = words.shape[1]
    for w in range(width):
        high, low = np.uint64(rng.random() * 4294967296.0), np.uint64(rng.random() * 4294967296.0)
        mine[w] = (words[i, w] ^ words[j, w]) & (high << np.uint64(32) | low)
        due -= np.int64(_popcount(mine[w]))
    while due != 0:
        place = np.int64(rng.random() * (64 * width))
        w, bit = place >> 6, np.uint64(1) << np.uint64(place & 63)
        if (words[i, w] ^ words[j, w]) & bit != 0 and (mine[w] & bit == 0) == (due > 0):
            mine[w] ^= bit
            due -= 1 if due > 0 else -1
    for w in range(width):
        differing, both = words[i, w] ^ words[j, w], words[i, w] & words[j, w]
        words[i, w], words[j, w] = both | mine[w], both | (differing ^ mine[w])


@nb.njit(cache=True, nogil=True)
def trade(words, rounds, rng):
    """words (rows, w) uint64, traded in place: `rounds` times all rows in random pairs; returns the bits dealt.

    Where rows have about equal sums the overlap with the start, beyond chance, halves with each round; a row of many
    bits among rows of few loses one or so a round (`topo.generators.rewiring` trades columns too). Dealing bit by
    bit costs one draw a bit, by coins some 64 w / sqrt(bits) draws; measured, they cross near bits**1.5 = 128 w.

    words [[0b0011], [0b0110]], rounds 1 -> the same, or [[0b0110], [0b0011]]; 2 bits dealt
    """
    rows, width = words.shape
    order, mine, dealt = np.arange(rows), np.empty(width, np.uint64), 0
    for _ in range(rounds):
        for last in range(rows - 1, 0, -1):
            other = int(rng.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
        for pair in range(rows // 2):
            i, j = order[2 * pair], order[2 * pair + 1]
            due, left = np.int64(0), np.int64(0)
            for w in range(width):
                differing = words[i, w] ^ words[j, w]
                left += np.int64(_popcount(differing))
                due += np.int64(_popcount(differing & words[i, w]))
            if due == 0 or due == left:
                continue
            dealt += left
            if left * np.sqrt(left) < 128 * width:
                _in_turn(words, i, j, due, left, rng)
            else:
                _by_coins(words, i, j, due, rng, mine)
    return dealt


@nb.njit(cache=True, nogil=True)
def gather(words, of_row, of_column, excess, rng):
    """words (rows, w) uint64, rewired in place: swaps of ends of two edges, of those that join different clusters.

    of_row, of_column int64: each row's and column's cluster. A swap is made if one more edge at least then lies within
    a cluster and neither is there already; row and column sums stay. Ends when `excess` of the edges between clusters
    has gone, or when a long run of random pairs finds no swap. Returns the edges within clusters.

    words [[0b10], [0b01]], clusters [0, 1] and [0, 1], excess 1 -> [[0b01], [0b10]]; 2 within
    """
    rows, one, inside, count = len(words), np.uint64(1), 0, 0
    most = 0
    for i in range(rows):
        for w in range(words.shape[1]):
            most += np.int64(_popcount(words[i, w]))
    row, column = np.empty(most, np.int64), np.empty(most, np.int64)
    for i in range(rows):
        for j in range(len(of_column)):
            if words[i, j >> 6] >> np.uint64(j & 63) & one:
                if of_row[i] == of_column[j]:
                    inside += 1
                else:
                    row[count], column[count] = i, j
                    count += 1
    goal, vain = inside + excess * count, 0
    while inside < goal and vain < 64 * count + 1024:
        a, b = int(rng.random() * count), int(rng.random() * count)
        i, j, k, m = row[a], column[a], row[b], column[b]
        gain = int(of_row[i] == of_column[m]) + int(of_row[k] == of_column[j])
        there = words[i, m >> 6] >> np.uint64(m & 63) & one or words[k, j >> 6] >> np.uint64(j & 63) & one
        if i == k or j == m or gain == 0 or there:
            vain += 1
            continue
        words[i, j >> 6] ^= one << np.uint64(j & 63)
        words[k, m >> 6] ^= one << np.uint64(m & 63)
        words[i, m >> 6] ^= one << np.uint64(m & 63)
        words[k, j >> 6] ^= one << np.uint64(j & 63)
        column[a], column[b] = m, j
        inside, vain = inside + gain, 0
        for place in (max(a, b), min(a, b)):
            if of_row[row[place]] == of_column[column[place]]:
                count -= 1
                row[place], column[place] = row[count], column[count]
    return inside
