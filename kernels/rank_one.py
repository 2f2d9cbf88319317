"""The best layer for values F_i B_j, a fixed number of units, and rows and columns that must be covered (Theorem 3)."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def _sorted_usable(values, start, stop):
    """Indices of the positive values[start:stop], the largest first."""
    order = np.argsort(-values[start:stop], kind="mergesort") + start
    many = 0
    while many < order.size and values[order[many]] > 0:
        many += 1
    return order[:many]


@nb.njit(cache=True, nogil=True)
def _units(f, g, row_x, col_y, best, kernel_size, price):
    """Units of the optimal layer of one group at a price: see `rank_one`. f, g fall; row_x, col_y fall."""
    pairs = min(row_x.size, col_y.size)
    if price >= best:
        return max(row_x.size, col_y.size)
    total, j = 0, g.size
    for i in range(f.size):
        while j > 0 and f[i] * g[j - 1] <= price:
            j -= 1
        if j == 0:
            break
        total += kernel_size * j
    share = 1.0 - price / best
    for x in row_x:
        if x < share:
            break
        total += 1
    for y in col_y:
        if y < share:
            break
        total += 1
    for k in range(pairs):
        if row_x[k] * col_y[k] <= share:
            break
        total -= 1
    return total


@nb.njit(cache=True, nogil=True)
def rank_one(f, g, need_rows, need_cols, kernel_size, groups, units):
    """f (inputs,), g (outputs,) >= 0, need_* bool -> (sources, targets, counts, price): the kernels that hold units.

    maximise sum over kernels (i, j) of a group of f_i g_j M_ij, integers 0 <= M_ij <= kernel_size, sum M = units, every
    needing row and column with at least one unit. With a price l of a unit, the optimum is
        the kernels with f_i g_j > l, full (a staircase in sorted order);
        a needing row outside of them on the best column, a needing column on the best row;
        or both on one kernel, where (1 - f_i / f*) (1 - g_j / g*) > 1 - l / (f* g*): of two sorted lists, the largest
        with the largest, as the sum of products is largest (rearrangement inequality).
    Units fall with l: bisect, then fill what is worth exactly l. O((inputs + outputs) log) and the output.

    Needing rows and columns whose value is 0, or whose group has no usable partner, are left out. price is -1 if the
    units cannot cover the needing ones, -2 if they do not fit.

    f [2, 1], g [1], need_rows [True, True], need_cols [False], kernel_size 1, units 2 -> [0, 1], [0, 0], [1, 1], price
    1
    """
    a, b = f.size // groups, g.size // groups
    nothing = np.empty(0, np.int64)
    row_order = [nothing for _ in range(groups)]
    col_order = [nothing for _ in range(groups)]
    row_need = [nothing for _ in range(groups)]
    col_need = [nothing for _ in range(groups)]
    row_x = [np.empty(0) for _ in range(groups)]
    col_y = [np.empty(0) for _ in range(groups)]
    fs = [np.empty(0) for _ in range(groups)]
    gs = [np.empty(0) for _ in range(groups)]
    best = np.zeros(groups)
    room, least, top, bottom = 0, 0, 0.0, np.inf
    for k in range(groups):
        rows, cols = _sorted_usable(f, k * a, (k + 1) * a), _sorted_usable(g, k * b, (k + 1) * b)
        if rows.size == 0 or cols.size == 0:
            continue
        row_order[k], col_order[k], fs[k], gs[k] = rows, cols, f[rows], g[cols]
        row_need[k], col_need[k] = rows[::-1][need_rows[rows[::-1]]], cols[::-1][need_cols[cols[::-1]]]
        row_x[k], col_y[k] = 1.0 - f[row_need[k]] / f[rows[0]], 1.0 - g[col_need[k]] / g[cols[0]]
        best[k] = f[rows[0]] * g[cols[0]]
        room += kernel_size * rows.size * cols.size
        least += max(row_need[k].size, col_need[k].size)
        top = max(top, best[k])
        bottom = min(bottom, f[rows[-1]] * g[cols[-1]])
    if units < least:
        return nothing, nothing, nothing, -1.0
    if units > room:
        return nothing, nothing, nothing, -2.0

    high, low = top, 0.5 * bottom  # units(high) = least <= units; units(low) = room
    while high > low * (1.0 + 1e-15) and units < room:
        middle = np.sqrt(high) * np.sqrt(low) if high > 2.0 * low else 0.5 * (high + low)
        if middle <= low or middle >= high:
            break
        total = 0
        for k in range(groups):
            if best[k] > 0:
                total += _units(fs[k], gs[k], row_x[k], col_y[k], best[k], kernel_size, middle)
        if total <= units:
            high = middle
        else:
            low = middle
    if units == room:
        high = low

    sources, targets = np.empty(units, np.int64), np.empty(units, np.int64)
    counts = np.zeros(units, np.int64)
    row_edge, col_edge = np.full(f.size, -1), np.full(g.size, -1)
    reach = np.zeros(f.size, np.int64)  # of the sorted columns, how many are decided
    used, m = 0, 0
    paired = np.zeros(groups, np.int64)
    for k in range(groups):
        if best[k] == 0:
            continue
        for p in range(fs[k].size):
            i = row_order[k][p]
            while reach[i] < gs[k].size and fs[k][p] * gs[k][reach[i]] > high:
                sources[m], targets[m], counts[m] = i, col_order[k][reach[i]], kernel_size
                reach[i] += 1
                used += kernel_size
                m += 1
            if reach[i] == 0:
                break
        share = 1.0 - high / best[k]
        for q in range(min(row_need[k].size, col_need[k].size)):
            if high < best[k] and row_x[k][q] * col_y[k][q] <= share:
                break
            paired[k] += 1
            row_edge[row_need[k][q]], col_edge[col_need[k][q]] = m, m
            sources[m], targets[m], counts[m] = row_need[k][q], col_need[k][q], 1
            used += 1
            m += 1
        for q in range(paired[k], row_need[k].size):
            i = row_need[k][q]
            if reach[i] == 0:
                row_edge[i] = m
                sources[m], targets[m], counts[m] = i, col_order[k][0], 1
                used += 1
                m += 1
        for q in range(paired[k], col_need[k].size):
            j = col_need[k][q]
            if reach[row_order[k][0]] == 0 or f[row_order[k][0]] * g[j] <= high:
                edge = row_edge[row_order[k][0]]
                if edge >= 0 and targets[edge] == j:
                    continue
                col_edge[j] = m
                sources[m], targets[m], counts[m] = row_order[k][0], j, 1
                used += 1
                m += 1
    # What is worth the price: pairs that part, then kernels; the bound 0 catches what rounding may have left.
    for bound in (low, 0.0):
        for k in range(groups):
            if best[k] == 0:
                continue
            while used < units and paired[k] > 0:
                q = paired[k] - 1
                x, y = row_x[k][q], col_y[k][q]
                if x == 0 or y == 0 or (1.0 - x * y) * best[k] <= bound:
                    break
                paired[k] -= 1
                edge = row_edge[row_need[k][q]]
                targets[edge] = col_order[k][0]
                col_edge[col_need[k][q]] = m
                sources[m], targets[m], counts[m] = row_order[k][0], col_need[k][q], 1
                used += 1
                m += 1
            for p in range(fs[k].size):
                if used == units:
                    break
                i = row_order[k][p]
                while used < units and reach[i] < gs[k].size and fs[k][p] * gs[k][reach[i]] > bound:
                    j = col_order[k][reach[i]]
                    edge = row_edge[i] if row_edge[i] >= 0 and targets[row_edge[i]] == j else col_edge[j]
                    if edge < 0 or sources[edge] != i or targets[edge] != j:
                        edge = m
                        sources[m], targets[m] = i, j
                        m += 1
                    more = min(kernel_size - counts[edge], units - used)
                    counts[edge] += more
                    used += more
                    reach[i] += 1
    return sources[:m], targets[:m], counts[:m], high
