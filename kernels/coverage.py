"""How large the norm of a layer can be that keeps units alive: bounds of docs/theory.md, "A bound that knows coverage".

A layer is a matrix M of A0 x B0 whole numbers, 0 <= M <= K, with n units in all, at least a rows and b columns of which
are not empty.
"""

from __future__ import annotations

import numba as nb
import numpy as np

# Above so many kernels staircases are not enumerated.
_LARGEST = 20000


@nb.njit(cache=True, nogil=True)
def _fourth(core, rows, columns, p, q, K):
    """Bound on sigma1^2 of a staircase: core units in rows x columns, p rows and q columns hung on it by one unit.

    sigma1^4 <= e^2 - 2 E2, e = |M|_F^2 and E2 at most the sum of the squared 2 x 2 minors (Cauchy-Binet).
    """
    cells = core // K
    part = core - K * cells
    e = float(K * K * cells + part * part + p + q)
    least = np.inf
    for where in range(3 if part > 0 else 1):  # the partly filled cell lies inside, or is all of a row, or of a column
        a, b = rows - (1 if where == 1 else 0), columns - (1 if where == 2 else 0)
        minors = 0.0
        if cells > 0 and a > 0 and b > 0:
            missing = a * b - cells - (1 if part > 0 and where == 0 else 0)
            minors = float(K) ** 4 * max(missing, 0)
            minors += float(K) ** 2 * (p * max(cells - a, 0) + q * max(cells - b, 0))
        least = min(least, minors + float(p) * q)
    return np.sqrt(max(e * e - 2.0 * least, 0.0))


@nb.njit(cache=True, nogil=True)
def _staircases(n, a, b, A0, B0, K):
    """The largest bound on sigma1^2 over all staircases and pairs; -1 if there is none."""
    best = -1.0
    for rows in range(1, A0 + 1):
        short = max(a - rows, 0)
        for columns in range(1, B0 + 1):
            narrow = max(b - columns, 0)
            first = max(0, narrow - short)
            for q in range(first, narrow + 1):
                t = narrow - q
                p = short - t
                core = n - p - q - t
                if core <= 0:
                    break
                cells = (core + K - 1) // K
                if cells > rows * columns:
                    continue
                if cells < rows + columns - 1:
                    break
                # a cell of the core for K hung rows and K hung columns is never worse from three cells on
                if K >= 4 and q > first + K and cells > 3:
                    continue
                best = max(best, _fourth(core, rows, columns, p, q, K))
    return best


@nb.njit(cache=True, nogil=True)
def _single(n, a, b, A0, B0):
    """`_staircases` for K = 1, where what hangs on the core is part of it: only pairs stand apart."""
    best = -1.0
    for t in range(1, min(a, b) + 1):
        rows, columns, core = a - t, b - t, n - t
        if rows == 0 or columns == 0:
            if rows == 0 and columns == 0 and core == 0:
                best = max(best, 1.0)
        elif rows + columns - 1 <= core <= rows * columns:
            best = max(best, np.sqrt(max(float(core) * core - 2.0 * (rows * columns - core), 0.0)))
    for rows in range(max(a, 1), A0 + 1):
        for columns in range(max(b, 1), B0 + 1):
            if rows + columns - 1 <= n <= rows * columns:
                best = max(best, np.sqrt(max(float(n) * n - 2.0 * (rows * columns - n), 0.0)))
    return best


@nb.njit(cache=True, nogil=True)
def _rough(n, a, b, K):
    """Bound on |M|_F^2: a core of c cells has at most c + 1 rows and columns, and a single unit covers two at most."""
    low, high = 0, n
    while low < high:  # the most units in the core
        core = (low + high + 1) // 2
        cells = (core + K - 1) // K
        if core + max(0, (a + b - cells - 1 + 1) // 2) <= n:
            low = core
        else:
            high = core - 1
    return float(K * low + (n - low))


@nb.njit(cache=True, nogil=True)
def norms(ns, a, b, A0, B0, K):
    """ns (m,) int64, rising -> float64 (m,): bound on the largest singular value; -1 where no matrix is."""
    out = np.full(ns.size, -1.0)
    for k in range(ns.size):
        n = ns[k]
        if n < max(a, b, 1) or n > K * A0 * B0:
            continue
        if a == 0 and b == 0:
            out[k] = np.sqrt(float(K * n))
            continue
        if A0 * B0 > _LARGEST or (K in (2, 3) and A0 * B0 * min(a, b) > 50 * _LARGEST):
            best = _rough(n, a, b, K)
        elif K == 1:
            best = _single(n, a, b, A0, B0)
        else:
            best = _staircases(n, a, b, A0, B0, K)
        if best > 0:
            out[k] = np.sqrt(max(min(best, float(K * n)), 1.0))
    return out


@nb.njit(cache=True, nogil=True)
def column_norms(ns, a, b, A0, B0, K):
    """ns (m,) -> float64 (m,): the largest Euclidean norm of the column sums, exactly; -1 where no matrix is.

    Of a sum of squares of numbers between 1 and K A0 the largest is reached where all but one are at an end.
    """
    out, cap = np.full(ns.size, -1.0), K * A0
    for k in range(ns.size):
        n = ns[k]
        for live in range(max(b, 1), B0 + 1):
            if n < max(a, live) or n > cap * live:
                continue
            full, rest = (n - live) // (cap - 1) if cap > 1 else 0, 0
            rest = (n - live) - full * (cap - 1)
            value = float(full) * cap * cap + max(live - full - 1, 0)
            if full < live:
                value += float(rest + 1) ** 2
            out[k] = max(out[k], np.sqrt(value))
    return out
