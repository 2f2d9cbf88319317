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
def count(keys, counts):
    """counts (n,) grow by how often each number below n stands in keys."""
    for k in keys:
        counts[k] += 1


@nb.njit(cache=True, nogil=True)
def turned(ptr, ends, many, back_ptr, back, back_many):
    """Outgoing edges -> incoming ones, in order of where they come from: back_ptr (n + 1,), back, back_many: filled."""
    n = ptr.size - 1
    back_ptr[:] = 0
    for u in ends:
        back_ptr[u + 1] += 1
    for v in range(n):
        back_ptr[v + 1] += back_ptr[v]
    for v in range(n):
        for e in range(ptr[v], ptr[v + 1]):
            place = back_ptr[ends[e]]
            back[place], back_many[place] = v, many[e]
            back_ptr[ends[e]] += 1
    for v in range(n, 0, -1):
        back_ptr[v] = back_ptr[v - 1]
    back_ptr[0] = 0


@nb.njit(cache=True, nogil=True)
def both_ways(ptr, ends, both_ptr, both):
    """Outgoing edges -> edges both ways, of each unit those that leave it first: both_ptr (n + 1,) and both, filled."""
    n = ptr.size - 1
    both_ptr[:] = 0
    for u in ends:
        both_ptr[u + 1] += 1
    for v in range(n):
        both_ptr[v + 1] += both_ptr[v] + ptr[v + 1] - ptr[v]
    for v in range(n):
        for e in range(ptr[v], ptr[v + 1]):
            both[both_ptr[v]] = ends[e]
            both_ptr[v] += 1
    for v in range(n):
        for e in range(ptr[v], ptr[v + 1]):
            both[both_ptr[ends[e]]] = v
            both_ptr[ends[e]] += 1
    for v in range(n, 0, -1):
        both_ptr[v] = both_ptr[v - 1]
    both_ptr[0] = 0


@nb.njit(cache=True, nogil=True)
def twins(ptr, ends, keys, first):
    """Undirected edges, both ways, each pair once -> first (n,) int32: the first unit with the same ends.

    Leaves are looked up by the unit that they hang on. Of the others those of one fingerprint, what the keys (n,)
    uint64 of their ends xor to, are compared end by end, so that units which share it by chance are never one.
    """
    n = ptr.size - 1
    leaf = np.full(n, -1, np.int32)
    others = 0
    for v in range(n):
        first[v] = v
        if ptr[v + 1] - ptr[v] == 1:
            hub = ends[ptr[v]]
            if leaf[hub] < 0:
                leaf[hub] = v
            first[v] = leaf[hub]
        elif ptr[v + 1] > ptr[v]:
            others += 1
    units, prints = np.empty(others, np.int32), np.zeros(others, np.uint64)
    at = 0
    for v in range(n):
        if ptr[v + 1] - ptr[v] > 1:
            units[at] = v
            for u in ends[ptr[v] : ptr[v + 1]]:
                prints[at] ^= keys[u]
            at += 1
    marked = leaf
    marked[:] = -1
    head, known = -1, np.uint64(0)
    for place in np.argsort(prints, kind="mergesort"):
        v = units[place]
        same = head >= 0 and prints[place] == known and ptr[v + 1] - ptr[v] == ptr[head + 1] - ptr[head]
        if same:
            for u in ends[ptr[v] : ptr[v + 1]]:
                same = same and marked[u] == head
        if same:
            first[v] = head
        else:
            head, known = v, prints[place]
            for u in ends[ptr[v] : ptr[v + 1]]:
                marked[u] = v


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
    """Undirected edges, both ways -> core (n,) int32, the largest k whose k-core holds the unit (bucket queue)."""
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
def _close(unit, ptr, ends, many, step, counts, lost):
    """Take what comes through `unit` from counts (n,), exact; step: 1 along outgoing edges, -1 along incoming ones.

    lost (n,): zeros, and zeros again. A unit that was closed before has a count of 0. Returns what was looked at.
    """
    lost[unit] = counts[unit]
    waiting, v, work = 1, unit, 0
    while waiting:
        work += 1
        gone = lost[v]
        if gone:
            waiting -= 1
            lost[v] = 0.0
            counts[v] -= gone
            work += ptr[v + 1] - ptr[v]
            for e in range(ptr[v], ptr[v + 1]):
                u = ends[e]
                if many[e] and counts[u]:
                    waiting += lost[u] == 0
                    lost[u] += many[e] * gone
        v += step
    return work


@nb.njit(cache=True, nogil=True)
def _first_of_most(ahead, behind):
    """The first unit on the most paths, to 1e-9."""
    most = 0.0
    for v in range(ahead.size):
        most = max(most, ahead[v] * behind[v])
    for v in range(ahead.size):
        if ahead[v] * behind[v] >= most * (1 - 1e-9):
            return v
    return -1


@nb.njit(cache=True, nogil=True)
def exact_core(out_ptr, out_ends, out_many, in_ptr, in_ends, in_many, ahead, behind, left, enough, most_work, taken):
    """Units on most paths, one by one, while more than `enough` of the `left` paths meet none: how many; taken: filled.

    ahead, behind (n,): paths to each unit and from it, whole numbers below 2**53; used up. A unit that is taken is
    closed, and what goes through it is taken off what it leads to, no more. -1 where more than `most_work` units and
    edges would be looked at.
    """
    lost = np.zeros(ahead.size)
    count, work = 0, 0
    while left > enough:
        work += ahead.size
        if work > most_work:
            return -1
        unit = _first_of_most(ahead, behind)
        left -= ahead[unit] * behind[unit]
        taken[count] = unit
        count += 1
        work += _close(unit, out_ptr, out_ends, out_many, 1, ahead, lost)
        work += _close(unit, in_ptr, in_ends, in_many, -1, behind, lost)
    return count


@nb.njit(cache=True, nogil=True)
def joined_by_paths(
    starts, share, ptr, ends, many, mantissa, exponent, step, place, most_work, found_ptr, others, shares
):
    """For each of `starts`, the ends of its paths and what share of all paths leads there; -1 for too much work.

    share (starts,): of all paths, how many begin there. mantissa, exponent (n,): the paths that go on from each unit,
    see `paths_to`. step: 1 along outgoing edges, -1 along incoming ones. place (n,): number of the unit among the ends,
    -1 of others. found_ptr (starts + 1,), others, shares: filled; -2 where they are too short.

    A share goes on from a unit in parts, as the paths do: no number but of at most 1 is added.
    """
    parts = np.zeros(ptr.size - 1)
    size, work = 0, 0
    found_ptr[0] = 0
    for row in range(starts.size):
        parts[starts[row]] = share[row]
        waiting, v = share[row] > 0, starts[row]
        while waiting:
            work += 1
            part = parts[v]
            if part > 0.0:
                waiting -= 1
                parts[v] = 0.0
                if place[v] >= 0:
                    if size == others.size:
                        return -2
                    others[size] = place[v]
                    shares[size] = part * math.ldexp(1.0 / mantissa[v], int(max(-exponent[v], -2000)))
                    size += 1
                work += ptr[v + 1] - ptr[v]
                for e in range(ptr[v], ptr[v + 1]):
                    u = ends[e]
                    if many[e] and mantissa[u] > 0.0:
                        more = part * many[e] * (mantissa[u] / mantissa[v])
                        if exponent[u] != exponent[v]:
                            more = math.ldexp(more, int(max(exponent[u] - exponent[v], -2000)))
                        if more > 0.0:
                            waiting += parts[u] == 0.0
                            parts[u] += more
            v += step
        found_ptr[row + 1] = size
        if work > most_work:
            return -1
    return size


@nb.njit(cache=True, nogil=True)
def flat_core(ptr, ends, shares, back_ptr, back, others_first, enough, most_work):
    """Size of the core of a network of single edges: edges of `one` are ptr[one]:ptr[one + 1], with ends and shares.

    back_ptr, back: the numbers of the edges by their end. others_first: of units on equally many paths, those at the
    ends of the edges come before those where they begin. shares (edges,): used up. -1 for too much work.
    """
    ones, others = np.zeros(ptr.size - 1), np.zeros(back_ptr.size - 1)
    begins = np.empty(ends.size, np.int32)
    for row in range(ones.size):
        for e in range(ptr[row], ptr[row + 1]):
            begins[e] = row
            ones[row] += shares[e]
            others[ends[e]] += shares[e]
    size, work, left = 0, 0, 1.0
    while left > enough:
        work += ones.size + others.size
        if work > most_work:
            return -1
        most = 0.0
        for share in ones:
            most = max(most, share)
        for share in others:
            most = max(most, share)
        chosen, of_ones = -1, False
        for turn in range(2):
            of_ones = (turn == 0) != others_first
            side = ones if of_ones else others
            for at in range(side.size):
                if side[at] >= most * (1 - 1e-9):
                    chosen = at
                    break
            if chosen >= 0:
                break
        size += 1
        if of_ones:
            left -= ones[chosen]
            ones[chosen] = 0.0
            for e in range(ptr[chosen], ptr[chosen + 1]):
                others[ends[e]] -= shares[e]
                shares[e] = 0.0
        else:
            left -= others[chosen]
            others[chosen] = 0.0
            for at in range(back_ptr[chosen], back_ptr[chosen + 1]):
                e = back[at]
                ones[begins[e]] -= shares[e]
                shares[e] = 0.0
    return size


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
