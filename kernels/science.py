"""Network science on undirected edge lists: 4-cycles, betweenness, lattices, and communities by moves of single units.

ptr (n + 1,) int64, ends (2 edges,) int32: units joined to unit v are ends[ptr[v] : ptr[v + 1]], each edge both ways.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def four_cycles(ptr, ends):
    """(4-cycles, ways of three edges over four units); a unit's pairs of neighbours are looked at.

    a square 0-1-2-3-0 -> (1, 4)
    """
    n = ptr.size - 1
    common = np.zeros(n, np.int64)
    cycles, ways, triangles = 0, 0, 0
    for v in range(n):
        degree = ptr[v + 1] - ptr[v]
        for u in ends[ptr[v] : ptr[v + 1]]:
            ways += (degree - 1) * (ptr[u + 1] - ptr[u] - 1)
            for w in ends[ptr[u] : ptr[u + 1]]:
                if w > v:
                    cycles += common[w]
                    common[w] += 1
        for u in ends[ptr[v] : ptr[v + 1]]:
            if u > v:
                triangles += common[u]
        for u in ends[ptr[v] : ptr[v + 1]]:
            for w in ends[ptr[u] : ptr[u + 1]]:
                common[w] = 0
    return cycles // 2, ways // 2 - triangles


@nb.njit(cache=True, nogil=True)
def betweenness(ptr, ends, between):
    """between (n,) float64: over pairs of other units, the share of their shortest ways that a unit is on (Brandes).

    a path 0-1-2 -> [0, 1, 0]
    """
    n = ptr.size - 1
    depth, queue = np.empty(n, np.int32), np.empty(n, np.int32)
    ways, rest = np.empty(n), np.empty(n)
    between[:] = 0.0
    for root in range(n):
        depth[:] = -1
        depth[root], ways[root], rest[root] = 0, 1.0, 0.0
        queue[0] = root
        first, last = 0, 1
        while first < last:
            v = queue[first]
            first += 1
            for u in ends[ptr[v] : ptr[v + 1]]:
                if depth[u] < 0:
                    depth[u], ways[u], rest[u] = depth[v] + 1, 0.0, 0.0
                    queue[last] = u
                    last += 1
                if depth[u] == depth[v] + 1:
                    ways[u] += ways[v]
        for i in range(last - 1, 0, -1):
            v = queue[i]
            share = (1.0 + rest[v]) / ways[v]
            for u in ends[ptr[v] : ptr[v + 1]]:
                if depth[u] == depth[v] - 1:
                    rest[u] += ways[u] * share
            between[v] += rest[v] / 2


@nb.njit(cache=True, nogil=True)
def latticize(words, columns, rounds, rng):
    """words (rows, w) uint64 of `columns` columns, in place: pairs of edges trade ends where that brings them nearer.

    Rows and columns lie evenly on one ring; row and column sums stay. rounds: trades tried for each edge.
    """
    rows = words.shape[0]
    edges = 0
    for i in range(rows):
        for j in range(columns):
            edges += np.int64(words[i, j >> 6] >> np.uint64(j & 63)) & 1
    row, column = np.empty(edges, np.int64), np.empty(edges, np.int64)
    e = 0
    for i in range(rows):
        for j in range(columns):
            if words[i, j >> 6] >> np.uint64(j & 63) & np.uint64(1):
                row[e], column[e] = i, j
                e += 1
    for _ in range(rounds * edges):
        a, b = np.int64(rng.random() * edges), np.int64(rng.random() * edges)
        i, j, k, m = row[a], column[a], row[b], column[b]
        if i == k or j == m:
            continue
        before = _apart(i, j, rows, columns) + _apart(k, m, rows, columns)
        if _apart(i, m, rows, columns) + _apart(k, j, rows, columns) >= before:
            continue
        one, other = np.uint64(1) << np.uint64(j & 63), np.uint64(1) << np.uint64(m & 63)
        if words[i, m >> 6] & other or words[k, j >> 6] & one:
            continue
        words[i, j >> 6] ^= one
        words[k, j >> 6] ^= one
        words[i, m >> 6] ^= other
        words[k, m >> 6] ^= other
        column[a], column[b] = m, j


@nb.njit(cache=True, nogil=True)
def _apart(i, j, rows, columns):
    """How far row i and column j are on a ring of length 1."""
    apart = abs((i + 0.5) / rows - (j + 0.5) / columns)
    return min(apart, 1.0 - apart)


@nb.njit(cache=True, nogil=True)
def move_units(ptr, ends, kinds, weight, ahead, sums, order, labels, outs, ins):
    """labels (n,) int32, moved in place until no single move adds to the modularity; returns how many moves.

    Edges of kind s (kinds (2 edges,) int32, ahead: whether they leave the unit) weigh sums[s] in all. An edge within a
    label counts its weight, less what its kind gives by chance: sum over s of outs[s, l] ins[s, l] / sums[s], where
    outs, ins (kinds, n) float64 add up the weights that leave the units of a label and lead to them. Ends that are the
    unit itself count in these alone. Units are asked in `order`.
    """
    n, count = ptr.size - 1, sums.size
    linked, seen = np.zeros(n), np.full(n, -1, np.int32)
    near = np.empty(n, np.int32)
    out, into = np.zeros(count), np.zeros(count)
    touched, is_touched = np.empty(count, np.int32), np.zeros(count, np.bool_)
    moves, quiet, at = 0, 0, 0
    while quiet < n and moves < 50 * n:
        v = order[at]
        at = (at + 1) % n
        quiet += 1
        own = labels[v]
        found, some = 1, 0
        near[0], seen[own], linked[own] = own, v, 0.0
        for e in range(ptr[v], ptr[v + 1]):
            s = kinds[e]
            if not is_touched[s]:
                is_touched[s] = True
                touched[some] = s
                some += 1
            if ahead[e]:
                out[s] += weight[e]
            else:
                into[s] += weight[e]
            if ends[e] != v:
                label = labels[ends[e]]
                if seen[label] != v:
                    seen[label], linked[label] = v, 0.0
                    near[found] = label
                    found += 1
                linked[label] += weight[e]
        best, most = own, 0.0
        for c in range(found):
            label = near[c]
            gain = linked[label]
            for t in range(some):
                s = touched[t]
                mine_out, mine_in = (out[s], into[s]) if label == own else (0.0, 0.0)
                gain -= (out[s] * (ins[s, label] - mine_in) + into[s] * (outs[s, label] - mine_out)) / sums[s]
            if c == 0:
                most = gain + 1e-9 * max(1.0, abs(gain))
            elif gain > most:
                best, most = label, gain
        for t in range(some):
            s = touched[t]
            if best != own:
                outs[s, own] -= out[s]
                outs[s, best] += out[s]
                ins[s, own] -= into[s]
                ins[s, best] += into[s]
            out[s], into[s], is_touched[s] = 0.0, 0.0, False
        seen[own] = -1
        for c in range(found):
            seen[near[c]] = -1
        if best != own:
            labels[v] = best
            moves += 1
            quiet = 0
    return moves
