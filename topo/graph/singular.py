"""The two largest singular values of a layer's biadjacency matrix, with a bound on their error.

Notation: B the matrix, its smaller side n, G = B B^T (n, n) with eigenvalues lambda_1 >= lambda_2 >= ..., sigma_i their
roots, E edges. The adjacency's own spectrum is symmetric, so the papers' "third largest |eigenvalue|" is sigma_2.

Connected components come one by one, and the two largest values of all are merged. A component whose largest row sum
of G, a bound of its lambda_1, does not reach the second value found is passed over. In a component lambda_1 is simple
(Perron-Frobenius), but it may agree with lambda_2 to ten digits: two near-copies of a block joined by a long path. A
Krylov space of one vector then holds one combination of the two eigenvectors and goes on to lambda_3. So what it found
is a lower bound (Courant-Fischer) until the upper bound is proved.

The proof: if m I - G + sum_k c_k y_k y_k^T has a Cholesky factor, it is positive definite: G is below m on all that is
orthogonal to the y_k. Rounding is counted (Higham, Accuracy and Stability of Numerical Algorithms, 2002, theorem 10.3):
(n + 1) units of the trace, and a few of the largest entries.
    by a gap, in float32: y the orthonormal vectors found for the two largest values, or for a few more (Y, k rows), and
        m between theta_2 and what comes next, 1 % apart at n = 512. For x > m as many eigenvalues of G are above x as
        of the k x k matrix Y G Y^T + R R^T / (x - m), R = Y G - Y G Y^T Y (Schur's complement): theta_2 is off by the
        square of a residual over a gap, whatever the other vectors are worth.
    by a level, in float64: y the first vector found. At most one eigenvalue of G is above m. With m just above theta_2
        that bounds lambda_2; lambda_1 is then the eigenvalue that the residual |G y - theta_1 y| puts beside theta_1.
Where no factor exists, something was missed: a second start orthogonal to what was found brings it, and at last all
eigenvalues do.

n <= 96 takes all eigenvalues, n <= 2048 Lanczos and the proof. Beyond, the proof would cost more than the spectrum
(n^3 / 3 operations): there a second start looks for what the first may have missed, the bound is that of the residuals,
and `TopTwo.proved` says that completeness was not proved.

Squaring costs nothing where edges count once or have multiplicities up to t: a component either has rank 1, which is
decided in integers (sigma_2 is then exactly 0), or it has a 2 x 2 minor that is not 0, whence sigma_2 >= 0.618 or
1 / (2 t).

By shape (measured on one AVX-512 core; a step is one product with G and one reorthogonalisation):
    n <= 96               popcount Gram and all its eigenvalues from LAPACK, 0.1 ms at 64 x 576; from n = 100 on Lanczos
                          is as fast
    n <= 96, `second`     Householder and bisection of the one value beyond n = 16: half the time of LAPACK
    n <= 8192             Gram by popcounts, or by lists where few rows meet, and Lanczos: 1 ms at 256 x 2304, 4 ms at
                          512 x 4608, 0.5 s at 4096 x 11008
    sparse                CSR and Lanczos, where its edges cost less than the products with the Gram
    n > 8192, not sparse  byte tables on the bits themselves: a Gram would take more than 256 MiB
Lanczos takes 45 to 70 steps for n up to 1024 and 65 to 130 for 4096, a third fewer where the proof follows: it may then
stop by the square of the residual over the gap. The proof
in float32 takes 0.3 ms at n = 256, 1.2 ms at 512; in float64 twice that, 15 ms at 1000.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from topo.graph.bipartite import Bipartite

# Aimed at, relative to sigma_1; `top_two` promises 1e-8. HOPED: by the squares of residuals, before the proof.
TOLERANCE, HOPED = 5e-9, 1e-10
SMALL, LARGEST_PROVED, LARGEST_GRAM = 96, 2048, 8192
# Up to here LAPACK, which compiles nothing, is as fast as the kernel of `second`; beyond, that takes half its time.
TINY = 16
# Beyond so many steps all eigenvalues are taken, up to a side at which that takes seconds.
MOST_STEPS, LARGEST_DENSE = 600, 4096
# So many vectors the proof may lift out of the way.
MOST_LIFTED = 6
# The proof in float32 is for gaps and values within this and one over it: no weight overflows there.
_SMALLEST = 1e-20
# float32 holds integers exactly up to here.
_EXACT = 1 << 24
_UNIT = 2.0**-53

Operator = Callable[[np.ndarray, np.ndarray], object]


@dataclass(frozen=True)
class TopTwo:
    """sigma1 >= sigma2, error: a bound on the absolute error of both, components: with at least one edge.

    proved: that no larger value was missed. Where it is False, error bounds the distance to singular values that there
    are, and a larger one may exist. A component with one unit on a side has sigma2 = 0. NaN where there is no edge.
    """

    sigma1: float
    sigma2: float
    error: float
    components: int
    proved: bool = True


class _Part(NamedTuple):
    """The one or two largest singular values of a part of the graph, a bound on their error, and if it is proved."""

    sigmas: tuple[float, ...]
    error: float
    proved: bool = True


def top_two(graph: Bipartite) -> TopTwo:
    """The two largest singular values of the biadjacency matrix, multiplicities or weights included.

    Deterministic: start vectors are fixed. error <= 1e-8 sigma1, save in components of more than 4096 units whose
    largest eigenvalues lie in a cluster of hundreds (long paths): there it says what was reached. proved wherever each
    component that counts has at most 2048 units on its smaller side.

    >>> top_two(Bipartite(np.array([[3], [6]], np.uint64), 3)).sigma1 ** 2  # rows 110, 011
    2.9999999999999996
    """
    from topo.kernels.components import components

    if graph.right > graph.left:
        graph = graph.turned
    labels = np.empty(graph.right, np.int64)
    count = components(graph.words, labels)
    if count == 0:
        return TopTwo(math.nan, math.nan, math.nan, 0)
    if count == 1 and labels.min() == 0:
        parts = [_connected(graph)]
    elif graph.right <= SMALL:
        parts = [_dense(graph)]
    else:
        parts = _by_components(graph, labels, count)
    sigmas = [*sorted((sigma for part in parts for sigma in part.sigmas), reverse=True), 0.0]
    error, proved = max(part.error for part in parts), all(part.proved for part in parts)
    return TopTwo(sigmas[0], sigmas[1], error, count, proved)


def second(graph: Bipartite, touched: int) -> tuple[float, bool]:
    """sigma2 of the whole graph and whether it is proved: as of `top_two`, whose components nobody asks for.

    The graph has rank 2 or more, no isolated right unit, and `touched` left units that are not isolated. One that is
    not connected takes one eigenvalue problem where the proof succeeds.

    >>> sigma2, proved = second(Bipartite(np.array([[3], [6]], np.uint64), 3), 3)  # rows 110, 011
    >>> round(sigma2, 12), proved
    (1.0, True)
    """
    if graph.right > touched:
        graph = graph.turned
        graph = graph.only_right(np.flatnonzero(graph.words.any(axis=1))) if graph.right > touched else graph
    if graph.values is None and graph.right <= LARGEST_PROVED:
        if graph.right <= SMALL:
            return math.sqrt(max(_second_eigenvalue(gram(graph)[0]), 0.0)), True
        through, levels = _sparse_or_not(graph)
        if (part := _hopeful(through, levels, 2 * (graph.right + graph.left) * _UNIT)) is not None:
            return part.sigmas[1], True
    top = top_two(graph)
    return top.sigma2, top.proved


def _second_eigenvalue(products: np.ndarray) -> float:
    matrix = products.astype(np.float64)
    if len(matrix) <= TINY:
        return float(np.linalg.eigvalsh(matrix)[-2])
    from topo.kernels.spectrum import second_largest

    return second_largest(matrix)


def _by_components(graph: Bipartite, labels: np.ndarray, count: int) -> list[_Part]:
    """The top two of each component that may hold one of the top two of all."""
    bounds = np.zeros(count)
    kept = labels >= 0
    np.maximum.at(bounds, labels[kept], _row_sums(graph)[kept])
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count + 1))
    parts: list[_Part] = []
    sigmas: list[float] = []
    for label in np.argsort(-bounds, kind="stable"):
        if len(sigmas) > 1 and bounds[label] <= sigmas[0] ** 2:
            break
        parts.append(_connected(graph.only_right(order[starts[label] : starts[label + 1]])))
        sigmas = sorted([*sigmas, *parts[-1].sigmas])[-2:]
    return parts


def _row_sums(graph: Bipartite) -> np.ndarray:
    """(n,): row sums of G, not smaller than the exact ones."""
    if graph.values is not None:
        values = graph.values.astype(np.float64)
        return (values @ values.sum(axis=0)) * (1 + 4 * sum(values.shape) * _UNIT)
    from topo.kernels.paths import pull_bits

    sums, columns = np.empty(graph.right), np.zeros(64 * graph.words.shape[1])
    columns[: graph.left] = graph.left_degrees
    pull_bits(graph.words, columns, sums)
    return sums


def _connected(graph: Bipartite) -> _Part:
    """The top two of a connected graph without empty rows; one alone if it has rank 1."""
    if graph.values is None:
        if (graph.words == graph.words[0]).all():
            edges = graph.right * int(np.bitwise_count(graph.words[0]).sum())
            return _Part((math.sqrt(edges),), math.sqrt(edges) * _UNIT)
    elif graph.right == 1:
        sigma = float(np.linalg.norm(graph.values[0].astype(np.float64)))
        return _Part((sigma,), 2 * graph.left * _UNIT * sigma)
    if graph.right <= SMALL:
        return _dense(graph)
    provable = graph.right <= LARGEST_PROVED
    if graph.values is None and graph.right > LARGEST_GRAM and not _sparse(graph):
        return _lanczos(graph, 2 * (graph.right + graph.left), _through_tables(graph))
    if graph.values is None and provable:
        return _lanczos(graph, graph.right + graph.left, *_sparse_or_not(graph))
    if graph.values is None and _sparse(graph):
        return _lanczos(graph, graph.right + graph.left, _Arrays.in_csr(graph))
    products, rounding = gram(graph)
    if graph.integer and graph.values is not None and _rank_one(products):
        return _of_rank_one(products)
    levels = _Levels(graph, products) if provable else None
    return _lanczos(graph, graph.right + rounding, _Arrays(products), levels)


def _sparse(graph: Bipartite) -> bool:
    """Does CSR beat the Gram? Nanoseconds: 0.14 a word of the Gram, 0.08 to 0.16 an entry, 1.1 an edge each step.

    The proof needs the Gram anyway, up to a side of LARGEST_PROVED.
    """
    n, edges = graph.right, int(graph.right_degrees.sum())
    steps = 40 if n <= 1024 else 120
    if n > LARGEST_GRAM:
        return 1.1 * edges < 8 * graph.words.size
    entry = 0.083 if n <= 600 else 0.16
    made = 0 if n <= LARGEST_PROVED else 0.07 * graph.words.shape[1]
    return edges * (1.5 + 1.1 * steps) < n * n * (made + entry * steps)


def gram(graph: Bipartite) -> tuple[np.ndarray, int]:
    """B B^T, float32 where that is exact, else float64; and how many units of rounding an entry may be off."""
    if graph.values is None:
        from topo.kernels.spectrum import gram as popcounts
        from topo.kernels.spectrum import gram_of_lists

        products = np.empty((graph.right, graph.right), np.float32)
        if _few_pairs(graph):
            gram_of_lists(*graph.lists, graph.starts, products)
        else:
            popcounts(graph.words, products)
        return products, 0
    if graph.integer:
        most = float(graph.values.max()) * float(graph.right_degrees.max())
        values = graph.values if most < _EXACT else graph.values.astype(np.float64)
        return values @ values.T, 0
    sums = np.zeros((graph.right, graph.right))
    for start in range(0, graph.left, 2048):  # bounds the memory of the copy
        part = graph.values[:, start : start + 2048].astype(np.float64)
        sums += part @ part.T
    return sums, graph.left


def _few_pairs(graph: Bipartite, kept: bool = True) -> bool:
    """Is it cheaper to count the pairs of rows that meet in columns? Nanoseconds: 0.1 a word and pair of rows, 27 an
    edge, 2 a pair that meets. Where the Gram is not `kept`, one that need not be written: 1 a pair of rows, 10 an edge.
    """
    n, edges, words = graph.right, int(graph.right_degrees.sum()), graph.words.shape[1]
    limit = (0.1 * words + (not kept)) * n * n - (27 if kept else 10) * edges
    if edges * edges > limit * graph.left:  # the fewest pairs that so many edges can make
        return False
    return float((graph.left_degrees.astype(np.float64) ** 2).sum()) < limit


def _rank_one(products: np.ndarray) -> bool:
    """Are all rows of B multiples of one of them? Equality in Cauchy-Schwarz, between integers."""
    squares = products.diagonal().astype(np.float64)
    one = int(np.argmax(squares))
    row = products[one].astype(np.float64)
    return bool((row * row == squares[one] * squares).all())


def _of_rank_one(products: np.ndarray) -> _Part:
    """sigma_1 = sqrt(tr G), and nothing else."""
    sigma = math.sqrt(float(np.trace(products, dtype=np.float64)))
    return _Part((sigma,), sigma * 2 * _UNIT)


# Small sides: all eigenvalues, so that nothing is missed whether connected or not.


def _dense(graph: Bipartite) -> _Part:
    products, rounding = gram(graph)
    if graph.integer and _rank_one(products):
        return _of_rank_one(products)
    eigenvalues = np.linalg.eigvalsh(products.astype(np.float64))[::-1][:2]
    unsure = (8 * graph.right + rounding) * _UNIT * float(eigenvalues[0])
    sigmas = tuple(math.sqrt(max(float(value), 0.0)) for value in eigenvalues)
    return _accepted(graph, _Part(sigmas, max(_off(s, s * s - unsure, s * s + unsure) for s in sigmas)))


def _off(sigma: float, below: float, above: float) -> float:
    """How far sigma is at most from the root of what lies between `below` and `above`."""
    low, high = math.sqrt(max(below, 0.0)), math.sqrt(max(above, 0.0))
    return max(sigma - low, high - sigma) + 2 * sigma * _UNIT


def _accepted(graph: Bipartite, part: _Part) -> _Part:
    """What was found; from all singular values where weights lie too close to rank 1 for squares."""
    if graph.values is None or part.error <= 2 * TOLERANCE * part.sigmas[0]:
        return part
    sigmas = np.linalg.svd(graph.values.astype(np.float64), compute_uv=False)[:2]
    unsure = 8 * (graph.right + graph.left) * _UNIT * float(sigmas[0])
    return _Part(tuple(map(float, sigmas)), unsure)


# Lanczos: G enters as an operator (x, y) -> None that fills y = G x.


@dataclass(frozen=True, eq=False)
class _Arrays:
    """The operator from the Gram, or from B in CSR where there are indices."""

    products: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    indptr: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    indices: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    columns: int = 0

    @classmethod
    def in_csr(cls, graph: Bipartite) -> _Arrays:
        indptr, indices = graph.lists
        return cls(indptr=indptr, indices=indices, columns=graph.left)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> None:
        from topo.kernels.spectrum import through_csr, through_gram

        if len(self.indices):
            through_csr(self.indptr, self.indices, x, np.empty(self.columns), y)
        else:
            through_gram(self.products, x, y)


@dataclass(frozen=True, eq=False)
class _Levels:
    """Forms level I - G + sum_k c_k y_k y_k^T, for the proof: from G, or from lists where few rows meet (None)."""

    graph: Bipartite
    products: np.ndarray | None

    @functools.cached_property
    def trace(self) -> float:
        """tr G."""
        if self.products is None:
            return float(self.graph.right_degrees.sum())
        return float(np.trace(self.products, dtype=np.float64))

    def formed(self, level: float, c: np.ndarray, vectors: np.ndarray, kind: type) -> tuple[np.ndarray, float]:
        """Its upper triangle, each entry rounded to `kind` once, and its trace. c (k,), vectors (k, n)."""
        from topo.kernels.spectrum import shifted, shifted_by_lists

        matrix: np.ndarray = np.empty((self.graph.right, self.graph.right), kind)
        if self.products is not None:
            return matrix, shifted(self.products, level, c, vectors, matrix)
        return matrix, shifted_by_lists(*self.graph.lists, self.graph.starts, level, c, vectors, matrix)


def _sparse_or_not(graph: Bipartite) -> tuple[_Arrays, _Levels]:
    """The operator, and what the proof needs, of a graph without values."""
    if not _sparse(graph):
        products, _ = gram(graph)
        return _Arrays(products), _Levels(graph, products)
    return _Arrays.in_csr(graph), _Levels(graph, None if _few_pairs(graph, kept=False) else gram(graph)[0])


def _through_tables(graph: Bipartite) -> Operator:
    from topo.kernels.paths import pull_bits, push_bits

    u = np.empty(64 * graph.words.shape[1])

    def through(x: np.ndarray, y: np.ndarray) -> None:
        push_bits(graph.words, x, u)
        pull_bits(graph.words, u, y)

    return through


def _lanczos(graph: Bipartite, rounding: int, through: Operator, levels: _Levels | None = None) -> _Part:
    """The top two of a connected graph. rounding: units of lambda_1 lost in G x. levels: where a proof is wanted.

    Near-copies come second: a start orthogonal to what was found brings what one vector cannot tell apart.
    """
    n, unsure = graph.right, 2 * rounding * _UNIT
    if levels is not None and (part := _hopeful(through, levels, unsure)) is not None:
        return _accepted(graph, part)
    krylov = _Krylov(through, n)
    krylov.run()
    ritz = _Ritz.of(through, krylov.vectors())
    second = _Krylov(through, n, away=ritz.vectors, largest=float(ritz.values[0]))
    second.run(beyond=ritz.values[1])
    ritz = _Ritz.of(through, np.vstack([ritz.vectors, second.vectors()]))
    part = ritz.proved(levels, unsure) if levels is not None else ritz.unproved(unsure)
    stuck = krylov.step == MOST_STEPS and n <= LARGEST_DENSE
    if part is None or (stuck and part.error > 2 * TOLERANCE * part.sigmas[0]):
        return _dense(graph)  # such as a cluster of thousands of eigenvalues, those of a long path
    return _accepted(graph, part)


def _hopeful(through: Operator, levels: _Levels, unsure: float) -> _Part | None:
    """What one start finds in as few steps as that takes if it misses nothing, and the proof; None without one."""
    from topo.kernels.spectrum import lanczos

    assert isinstance(through, _Arrays)
    n = levels.graph.right
    theta, vectors = np.empty(MOST_LIFTED + 1), np.empty((MOST_LIFTED, n))
    inner, across = np.empty((MOST_LIFTED, MOST_LIFTED)), np.empty((MOST_LIFTED, MOST_LIFTED))
    arrays = (through.products, through.indptr, through.indices, through.columns)
    wanted = 2.5 * _rounding_units(n, np.float32)
    k = lanczos(*arrays, _start(n, 0), TOLERANCE, HOPED, wanted, theta, vectors, inner, across)
    return _Ritz(vectors[:k], inner[:k, :k], across[:k, :k], float(theta[k])).proved(levels, unsure) if k else None


@functools.lru_cache(maxsize=256)
def _start(n: int, seed: int) -> np.ndarray:
    """(n,): a random unit vector."""
    start = np.random.default_rng(seed).standard_normal(n)
    return start / math.sqrt(float((start * start).sum()))


@dataclass(frozen=True)
class _Ritz:
    """Orthonormal vectors Y (k, n), k >= 2, near those of the largest eigenvalues of G, and what G makes of them.

    inner (k, k): Y G Y^T. across (k, k): R R^T of the residuals R = Y G - inner Y. beyond: about the largest eigenvalue
    to which none of the vectors belongs; inf where nothing is known of it.
    """

    vectors: np.ndarray
    inner: np.ndarray
    across: np.ndarray
    beyond: float = math.inf

    @classmethod
    def of(cls, through: Operator, basis: np.ndarray) -> _Ritz:
        """Of two vectors in the space of basis (m, n), m >= 2, nearly orthonormal."""
        for _ in range(2):  # Gram-Schmidt twice
            for k, row in enumerate(basis):
                row -= np.einsum("i,ij->j", np.einsum("ij,j->i", basis[:k], row), basis[:k])
                row /= math.sqrt(float((row * row).sum()))
        turned = np.empty_like(basis)
        for row, w in zip(basis, turned):
            through(row, w)
        values, rotation = np.linalg.eigh(np.einsum("ik,jk->ij", basis, turned))
        rotation, values = rotation[:, ::-1][:, :2].T, values[::-1][:2]
        vectors, turned = np.einsum("ij,jk->ik", rotation, basis), np.einsum("ij,jk->ik", rotation, turned)
        residuals = turned - values[:, None] * vectors
        return cls(vectors, np.diag(values), np.einsum("ik,jk->ij", residuals, residuals))

    @functools.cached_property
    def values(self) -> tuple[float, float]:
        """Lower bounds of the two largest eigenvalues (Courant-Fischer), the larger first."""
        return _largest_two(self.inner)

    @functools.cached_property
    def turned(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors y (2, n) of `values`, and |G y - theta y| (2,)."""
        rotation = np.linalg.eigh(self.inner)[1][:, ::-1][:, :2].T
        squares = np.einsum("ij,jk,ik->i", rotation, self.across, rotation)
        return np.einsum("ij,jk->ik", rotation, self.vectors), np.sqrt(np.maximum(squares, 0.0))

    def proved(self, levels: _Levels, unsure: float) -> _Part | None:
        """The values with a bound for which a proof succeeds, None if there is none: something larger was missed."""
        one, two = self.values
        if _SMALLEST < two - self.beyond and two <= one < 1 / _SMALLEST:
            part = self._by_gap(levels, unsure * one)
            if part is not None and part.error <= 2 * TOLERANCE * part.sigmas[0]:
                return part
        return self._by_level(levels, unsure * one)

    def _by_gap(self, levels: _Levels, lost: float) -> _Part | None:
        """In float32, half as dear: G on what is orthogonal to Y stays below a level between theta_2 and `beyond`."""
        one, two = self.values
        gap, c = two - self.beyond, self.inner.diagonal().copy()
        slack = _rounding_units(levels.graph.right, np.float32)
        slack *= levels.graph.right * two - levels.trace + float(c.sum())
        level = two - gap / 4 - slack - 2 * lost
        if level < self.beyond + gap / 4:
            return None
        added = _definite(levels, level, c, self.vectors, lost, np.float32)
        if added is None or two - lost <= (above := level + added):
            return None
        # Not more eigenvalues of G are above x > above than of inner + across / (x - above): Schur's complement.
        first = _largest_two(self.inner + self.across / (one - above))[0]
        second = _largest_two(self.inner + self.across / (two - above))[1]
        # The residuals are off by lost, too: |R + E| |R + E| <= |R| |R| + lost (2 |R| + lost).
        unsure = lost + lost * (2 * math.sqrt(float(self.across.trace())) + lost) / (two - above)
        sigma1, sigma2 = math.sqrt(one), math.sqrt(two)
        off = _off(sigma1, one - lost, first + unsure), _off(sigma2, two - lost, second + unsure)
        return _Part((sigma1, sigma2), max(off))

    def _by_level(self, levels: _Levels, lost: float) -> _Part | None:
        """In float64: one eigenvalue of G at most is above a level just over theta_2."""
        one, two = self.values
        sigma1, sigma2 = math.sqrt(one), math.sqrt(max(two, 0.0))
        level = two + max(0.7 * TOLERANCE * sigma1 * sigma2, 2 * lost)
        apart = one - lost > level + 2 * lost
        if not apart:  # both lie in one small interval
            level = one + max(0.7 * TOLERANCE * one, 2 * lost)
        vectors, residuals = self.turned
        slack = _definite(levels, level, np.array([2 * one if apart else 0.0]), vectors[:1], lost, np.float64)
        if slack is None:
            return None
        above = level + slack
        top = above
        if apart:
            if one - lost <= above:
                return None
            # lambda_1 alone is above, and theta_1 is a Rayleigh quotient there (Temple; Kato).
            r = float(residuals[0]) + lost
            top = one + min(r, r * r / (one - lost - above)) + lost
        return _Part((sigma1, sigma2), max(_off(sigma2, two - lost, above), _off(sigma1, one - lost, top)))

    def unproved(self, unsure: float) -> _Part:
        """The values with a bound on their distance from singular values, be they the largest or not."""
        lost = unsure * self.values[0]
        sigmas = tuple(math.sqrt(max(value, 0.0)) for value in self.values)
        around = [(value, float(r) + lost) for value, r in zip(self.values, self.turned[1])]
        return _Part(sigmas, max(_off(s, v - r, v + r) for s, (v, r) in zip(sigmas, around)), proved=False)


def _largest_two(matrix: np.ndarray) -> tuple[float, float]:
    """The two largest eigenvalues of a small symmetric matrix (k, k), k >= 2, the larger first.

    Two by two without LAPACK, whose call costs more than the rest of what is done with them.
    """
    if len(matrix) == 2:
        (a, b), (_, d) = matrix.tolist()
        return 0.5 * (a + d) + math.hypot(0.5 * (a - d), b), 0.5 * (a + d) - math.hypot(0.5 * (a - d), b)
    found = np.linalg.eigvalsh(matrix)
    return float(found[-1]), float(found[-2])


def _rounding_units(n: int, kind: type) -> float:
    """Over the trace of a matrix A (n, n), rounded to `kind` once: by how much a Cholesky factor may miss it."""
    return (n + 8) * 1.01 * float(np.finfo(kind).eps) / 2


def _definite(
    levels: _Levels, level: float, c: np.ndarray, vectors: np.ndarray, lost: float, kind: type
) -> float | None:
    """What to add to `level` so that A = level I - G + sum_k c_k y_k y_k^T is positive semidefinite for certain.

    None if it is not. A Cholesky factor R of A in floating point of unit u has |R^T R - A| <= (n + 2) u tr A in the
    spectral norm, and rounding A to it another u tr A; before that, A was formed in float64 with a few roundings an
    entry, of level, G and c y y^T. lost: what rounding may have shifted in G itself.
    """
    from scipy.linalg.lapack import dpotrf, spotrf

    matrix, trace = levels.formed(level, c, vectors, kind)
    _, failed = (spotrf if kind is np.float32 else dpotrf)(matrix.T, lower=1, overwrite_a=1, clean=0)
    if failed:
        return None
    return _rounding_units(len(matrix), kind) * trace + 8 * (level + 2 * float(c.sum())) * _UNIT + lost


class _Krylov:
    """Lanczos with full reorthogonalisation from one random vector, orthogonal to the rows of `away` and staying so.

    largest: the first eigenvalue of the whole operator, of whose size rounding is. Below that nothing is a direction.
    """

    def __init__(self, through: Operator, n: int, away: np.ndarray | None = None, largest: float = 0.0) -> None:
        self.through, self.n, self.away, self.largest = through, n, away, largest
        free = n - (0 if away is None else len(away))
        self.most, self.step, self.ended = min(free, MOST_STEPS), 0, False
        self.room = min(self.most, 80)
        self.basis, self.turned = np.empty((self.room, n)), np.empty((n, self.room))
        self.alpha, self.beta = np.zeros(self.most), np.zeros(self.most)
        start = _start(n, 0 if away is None else 1).copy()
        self._leave(start)
        self.basis[0] = self.turned[:, 0] = start / math.sqrt(float((start * start).sum()))
        self.w, self.of_tridiagonal = np.empty(n), np.ones((1, 1))

    def _leave(self, w: np.ndarray) -> None:
        if self.away is not None:
            for row in self.away:
                w -= float((row * w).sum()) * row

    def run(self, beyond: float = -math.inf) -> None:
        """Until both residuals pass, or nothing can come: the largest value and its residual stay below `beyond`."""
        check, before = self.step + min(24 if self.step == 0 else 3, self.most - self.step), (0, math.inf)
        while not self.ended:
            if self.step + 1 == self.room < self.most:
                self._widen()
            self._advance()
            if self.step != check and not self.ended:
                continue
            worst, bound = self._judge()
            if worst <= 1 or bound < beyond:
                break
            check, before = min(self.most, _next_check(self.step, worst, before)), (self.step, worst)

    def _advance(self) -> None:
        from topo.kernels.spectrum import orthogonalise

        step = self.step
        self.through(self.basis[step], self.w)
        self._leave(self.w)
        orthogonalise(self.basis, self.turned, step, self.w, self.alpha, self.beta)
        self.step += 1
        self.ended = self.step == self.most or self.beta[step] <= 1e-14 * max(self.largest, self.alpha[0]) * self.n

    def _judge(self) -> tuple[float, float]:
        """The larger residual of both roots over what is aimed at; the first value and its residual."""
        from topo.kernels.spectrum import top_of_tridiagonal

        k = min(2, self.step)
        values, vectors = np.empty(k), np.empty((k, self.step))
        top_of_tridiagonal(self.alpha[: self.step], self.beta[: self.step], values, vectors)
        self.of_tridiagonal = vectors
        residuals = abs(self.beta[self.step - 1] * vectors[:, -1])
        sigmas = np.sqrt(np.maximum(values, 1e-300))
        scale = sigmas * sigmas[0]
        worst = residuals / (TOLERANCE * scale)
        return float(worst.max()), float(values[0] + residuals[0])

    def vectors(self) -> np.ndarray:
        """(2, n): approximate eigenvectors of the two largest values at the last look; one where there is one."""
        return np.einsum("ij,jk->ik", self.of_tridiagonal[:2], self.basis[: self.of_tridiagonal.shape[1]])

    def _widen(self) -> None:
        self.room = min(self.most, 2 * self.room)
        self.basis = _longer(self.basis, self.room)
        self.turned = np.ascontiguousarray(_longer(self.turned.T, self.room).T)


def _next_check(step: int, worst: float, before: tuple[int, float]) -> int:
    """When the residual should pass, if it goes on falling as it did since the last look."""
    last, was = before
    fall = math.log(was / worst) / (step - last) if 0 < worst < was < math.inf else 0.0
    needed = math.log(worst) / fall if fall > 0 else math.inf
    return step + int(min(max(0.8 * needed, 3), 12))


def _longer(rows: np.ndarray, room: int) -> np.ndarray:
    longer = np.empty((room, rows.shape[1]))
    longer[: len(rows)] = rows
    return longer
