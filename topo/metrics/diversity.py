"""Mask diversity: how many masks a kind of sparsity admits, in bits per weight (Hubara et al., NeurIPS 2021).

A kind that admits more masks leaves a pruner more freedom; the count was found to go with accuracy.

    unstructured       k of n weights                        log2 C(n, k) / n -> h(k / n), h the binary entropy
    N:M                N of every M                          log2 C(M, N) / M
    transposable N:M   M x M blocks, N in each row and       log2 t(M, N) / M^2, t the number of 0/1 matrices with
                       each column                           these row and column sums
    A x B blocks       whole blocks kept or not              h(density) / (A B)
"""

from __future__ import annotations

import math
import re
from functools import cache

from topo.errors import TopoError
from topo.n_m import parse_n_m

# Measured: t(8, 4) takes 3 ms, t(14, 7) 2 s, t(16, 8) half a minute.
_LARGEST_TRANSPOSABLE = 14
# Below this many kept (or pruned) the binomial is exact; above, Stirling's series is right to a few units of rounding.
_EXACT = 1000


def diversity_bits(kind: str, density: float | None = None) -> float:
    """Bits per weight of an infinitely large mask: log2 of the number of masks of this kind, over their weights.

    kind: "unstructured", "2:4" (any N:M), "transposable 2:4", "4x4 blocks" (any size). density: of unstructured and
    block masks; an N:M mask keeps N / M.

    >>> [round(diversity_bits(kind), 3) for kind in ("8:16", "4:8", "2:4", "transposable 4:8", "transposable 2:4")]
    [0.853, 0.766, 0.646, 0.574, 0.406]
    >>> diversity_bits("unstructured", 0.5), diversity_bits("4x4 blocks", 0.5)
    (1.0, 0.0625)

    Raises TopoError for a kind that it does not know, for a density out of range, missing or too much, and for
    transposable patterns with M above 14.
    """
    blocks = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5}) blocks", kind)
    if kind == "unstructured" or blocks:
        if density is None or not 0 <= density <= 1:
            raise TopoError(f"masks of kind '{kind}' need a density from 0 to 1, not {density!r}")
        return _entropy(density) / (int(blocks[1]) * int(blocks[2]) if blocks else 1)
    pattern = kind.removeprefix("transposable ")
    if not re.fullmatch(r"\d+:\d+", pattern):
        raise TopoError(f"'{kind}' is not a kind of mask: unstructured, N:M, transposable N:M, or AxB blocks")
    n, m = parse_n_m(pattern)
    if density is not None:
        raise TopoError(f"masks of kind '{kind}' have density {n}/{m}; none is to be given")
    if pattern == kind:
        return log2_choices(m, n) / m
    if m > _LARGEST_TRANSPOSABLE:
        raise TopoError(f"transposable patterns are counted up to M = {_LARGEST_TRANSPOSABLE}, not for '{kind}'")
    return math.log2(square_fillings(m, n)) / m**2


def log2_choices(n: int, k: int) -> float:
    """log2 of C(n, k), the number of masks of n weights that keep k; relative error below 1e-10, by Stirling's series.

    >>> log2_choices(4, 2) == math.log2(6)
    True
    """
    if min(k, n - k) < _EXACT:
        return math.log2(math.comb(n, k))
    rest = n - k
    nats = k * math.log(n / k) + rest * math.log1p(k / rest) + 0.5 * math.log(n / (2 * math.pi * k) / rest)
    return (nats + _stirling(n) - _stirling(k) - _stirling(rest)) / math.log(2)


def _stirling(x: int) -> float:
    """log x! less (x + 1/2) log x - x + log(2 pi) / 2: no difference of large logarithms enters."""
    return 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)


def square_fillings(m: int, n: int) -> int:
    """Number of m x m matrices of 0 and 1 with n ones in each row and each column.

    >>> square_fillings(4, 2), square_fillings(8, 4)
    (90, 116963796250)
    """
    return _fillings(m, n, (*[0] * n, m))


@cache
def _fillings(rows: int, n: int, columns: tuple[int, ...]) -> int:
    """Ways to fill `rows` rows with n ones each, where columns[r] columns still need r ones.

    A row takes c_r of the columns that need r, in prod C(columns[r], c_r) ways; these then need r - 1.
    """
    if rows == 0:
        return 1
    if sum(need * count for need, count in enumerate(columns)) != rows * n:
        return 0

    def deal(need: int, left: int, after: tuple[int, ...]) -> int:
        """Ways to take `left` more ones from columns that need `need` or less; `after` starts at the count of need."""
        if need == 0:
            return 0 if left else _fillings(rows - 1, n, (columns[0] + after[0], *after[1:]))
        ways = 0
        for taken in range(min(left, columns[need]) + 1):
            rest = (taken, columns[need] - taken + after[0], *after[1:])
            ways += math.comb(columns[need], taken) * deal(need - 1, left - taken, rest)
        return ways

    return deal(len(columns) - 1, n, (0,))


def _entropy(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q)
