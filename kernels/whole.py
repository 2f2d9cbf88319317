"""Whole networks as edge lists: hops, cores, components, bridges, and paths that avoid a set of units.

Units are numbered so that every edge leads from a lower number to a higher. ptr (n + 1,) int64, ends (edges,) int32:
the units joined to unit v are ends[ptr[v] : ptr[v + 1]]. No kernel recurses; each is linear in units and edges, but
`two_hop`.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def in_buckets(keys, n, ptr, order):
    """keys (e,) int32 below n -> ptr (n + 1,), where each key's entries begin, and order (e,): a stable argsort."""
    ptr[:] = 0
    for k in keys:
        ptr[k + 1] += 1
    for v in range(n):
        ptr[v + 1] += ptr[v]
    for e in range(keys.size):
        k = keys[e]
        order[ptr[k]] = e
        ptr[k] += 1
    for v in range(n, 0, -1):
        ptr[v] = ptr[v - 1]
    ptr[0] = 0


@nb.njit(cache=True, nogil=True)
def two_hop(ptr, ends):
    """Sum over units of how many they reach along at most two edges, themselves counted."""
    n = ptr.size - 1
    seen = np.full(n, -1, np.int32)
    total = 0
    for v in range(n):
        seen[v] = v
        found = 1
        for a in ends[ptr[v] : ptr[v + 1]]:
            if seen[a] != v:
                seen[a] = v
                found += 1
            for b in ends[ptr[a] : ptr[a + 1]]:
                if seen[b] != v:
                    seen[b] = v
                    found += 1
        total += found
    return total


@nb.njit(cache=True, nogil=True)
def coreness(ptr, ends, core):
    """Undirected edges, both ways -> core (n,) int64, the largest k whose k-core holds the unit (bucket queue)."""
    n = ptr.size - 1
    most = 0
    for v in range(n):
        core[v] = ptr[v + 1] - ptr[v]
        most = max(most, core[v])
    start = np.zeros(most + 2, np.int64)
    for v in range(n):
        start[core[v] + 1] += 1
    for d in range(most + 1):
        start[d + 1] += start[d]
    queue, place = np.empty(n, np.int32), np.empty(n, np.int32)
    fill = start.copy()
    for v in range(n):
        place[v] = fill[core[v]]
        queue[place[v]] = v
        fill[core[v]] += 1
    for i in range(n):
        v = queue[i]
        for u in ends[ptr[v] : ptr[v + 1]]:
            if core[u] > core[v]:
                first = start[core[u]]  # u trades places with the first of its degree, and has one less
                other = queue[first]
                queue[first], queue[place[u]] = u, other
                place[other], place[u] = place[u], first
                start[core[u]] += 1
                core[u] -= 1


@nb.njit(cache=True, nogil=True)
def components(ptr, ends, labels):
    """Undirected edges, both ways -> how many components, and the units of the largest; labels (n,) int32."""
    n = ptr.size - 1
    labels[:] = -1
    queue = np.empty(n, np.int32)
    count, largest = 0, 0
    for root in range(n):
        if labels[root] >= 0:
            continue
        labels[root] = count
        queue[0] = root
        first, last = 0, 1
        while first < last:
            v = queue[first]
            first += 1
            for u in ends[ptr[v] : ptr[v + 1]]:
                if labels[u] < 0:
                    labels[u] = count
                    queue[last] = u
                    last += 1
        count += 1
        largest = max(largest, last)
    return count, largest


@nb.njit(cache=True, nogil=True)
def cuts(ptr, ends):
    """Undirected edges, both ways, each pair once -> (bridges, articulation points), by one walk in depth (Tarjan)."""
    n = ptr.size - 1
    seen, low = np.full(n, -1, np.int32), np.empty(n, np.int32)
    parent, at = np.empty(n, np.int32), ptr[:-1].copy()
    cut = np.zeros(n, np.bool_)
    clock, bridges = 0, 0
    for root in range(n):
        if seen[root] >= 0:
            continue
        seen[root] = low[root] = clock
        clock += 1
        parent[root] = -1
        children = 0
        v = root
        while v >= 0:
            if at[v] < ptr[v + 1]:
                u = ends[at[v]]
                at[v] += 1
                if seen[u] < 0:
                    parent[u] = v
                    seen[u] = low[u] = clock
                    clock += 1
                    children += v == root
                    v = u
                elif u != parent[v]:
                    low[v] = min(low[v], seen[u])
                continue
            above = parent[v]
            if above >= 0:
                low[above] = min(low[above], low[v])
                bridges += low[v] > seen[above]
                if above != root and low[v] >= seen[above]:
                    cut[above] = True
            v = above
        cut[root] = children > 1
    return bridges, np.count_nonzero(cut)


@nb.njit(cache=True, nogil=True)
def adjacent(ptr, ends, x, y):
    """y = A x for the adjacency matrix of undirected edges, both ways."""
    for v in range(y.size):
        total = 0.0
        for u in ends[ptr[v] : ptr[v + 1]]:
            total += x[u]
        y[v] = total


@nb.njit(cache=True, nogil=True)
def paths_to(ptr, ends, many, begin, closed, backwards, mantissa, exponent):
    """Paths to each unit from where `begin` is True, along edges whose `many` (paths an edge) is not 0.

    Edges lead to each unit from its `ends`: incoming edges for paths from the inputs, outgoing with `backwards` for
    paths to the outputs. closed (n,) bool: units that no path may meet. mantissa, exponent (n,): filled, the number is
    mantissa * 2**exponent, with mantissa 0 or in [.5, 1).
    """
    n = ptr.size - 1
    for i in range(n):
        v = n - 1 - i if backwards else i
        mantissa[v], exponent[v] = 0.0, 0
        if closed[v]:
            continue
        top = 1 if begin[v] else -(1 << 60)
        for e in range(ptr[v], ptr[v + 1]):
            u = ends[e]
            if many[e] and mantissa[u] and exponent[u] > top:
                top = exponent[u]
        total = math.ldexp(1.0, int(max(-top, -2000))) if begin[v] else 0.0
        for e in range(ptr[v], ptr[v + 1]):
            u = ends[e]
            if many[e] and mantissa[u]:
                lower = exponent[u] - top
                if lower == 0:
                    total += many[e] * mantissa[u]
                elif lower > -1070:
                    total += many[e] * math.ldexp(mantissa[u], int(lower))
        if total > 0.0:
            mantissa[v], more = math.frexp(total)
            exponent[v] = top + more


@nb.njit(cache=True, nogil=True)
def distances(ptr, ends):
    """Undirected edges, both ways -> over pairs of units that a way joins: how many, sum of d, sum of 1 / d."""
    n = ptr.size - 1
    depth, queue = np.empty(n, np.int32), np.empty(n, np.int32)
    pairs, total, inverse = 0, 0, 0.0
    for root in range(n):
        depth[:] = -1
        depth[root] = 0
        queue[0] = root
        first, last = 0, 1
        while first < last:
            v = queue[first]
            first += 1
            for u in ends[ptr[v] : ptr[v + 1]]:
                if depth[u] < 0:
                    depth[u] = depth[v] + 1
                    queue[last] = u
                    last += 1
                    if u > root:
                        pairs += 1
                        total += depth[u]
                        inverse += 1.0 / depth[u]
    return pairs, total, inverse
