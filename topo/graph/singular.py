"""The two largest singular values of a layer's biadjacency matrix, with a bound on their error.

Notation: B the matrix, its smaller side n, G = B B^T (n, n) with eigenvalues lambda_1 >= lambda_2 >= ..., sigma_i their
roots, E edges. The adjacency's own spectrum is symmetric, so the papers' "third largest |eigenvalue|" is sigma_2.

Completeness comes from connected components: in each of them lambda_1 is simple (Perron-Frobenius), so that a Krylov
space of one vector cannot miss a copy of it; the two largest of all components are then merged. A component whose
largest row sum of G, a bound of its lambda_1, does not reach the second value found is passed over. `nothing_missed`
proves the same by inertia.

Accuracy comes from residuals: |G y - theta y| <= r for a unit vector y puts an eigenvalue within r of theta, and
sigma within theta^(1/2) - (theta - r)^(1/2). r holds what was measured and what rounding may have hidden. Squaring
costs nothing where edges count once or have multiplicities up to t: a component either has rank 1, which is decided in
integers (sigma_2 is then exactly 0), or it has a 2 x 2 minor that is not 0, whence sigma_2 >= 0.618 or 1 / (2 t).

By shape (measured on one AVX-512 core; a step is one product with G and one reorthogonalisation):
    n <= 96               popcount Gram and all its eigenvalues from LAPACK, 0.1 ms at 64 x 576; from n = 100 on Lanczos
                          is as fast, and it is free of BLAS threads
    n <= 8192             popcount Gram and Lanczos: 1 ms at 256 x 2304, 4 ms at 512 x 4608, 0.5 s at 4096 x 11008
    sparse                CSR and Lanczos, where its edges cost less than the Gram and its products: below a density of
                          1 to 1.5 % at 256 x 2304 and 512 x 4608, 2.5 % at 512 x 2048, 8 % at 4096 x 11008
    n > 8192, not sparse  byte tables on the bits themselves: a Gram would take more than 256 MiB
Lanczos takes 45 to 70 steps for n up to 1024 and 65 to 130 for 4096.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topo.graph.bipartite import Bipartite

# Aimed at, relative to sigma_1; the guarantee is 1e-8.
TOLERANCE = 5e-9
SMALL, LARGEST_GRAM = 96, 8192
# Beyond so many steps all eigenvalues are taken, up to a side at which that takes seconds.
MOST_STEPS, LARGEST_DENSE = 600, 4096
# float32 holds integers exactly up to here.
_EXACT = 1 << 24
_UNIT = 2.0**-53

Operator = Callable[[np.ndarray, np.ndarray], object]


@dataclass(frozen=True)
class TopTwo:
    """sigma1 >= sigma2, error: a bound on the absolute error of both, components: with at least one edge.

    A component with one unit on a side has sigma2 = 0. NaN where there is no edge.
    """

    sigma1: float
    sigma2: float
    error: float
    components: int


def top_two(graph: Bipartite) -> TopTwo:
    """The two largest singular values of the biadjacency matrix, multiplicities or weights included.

    Deterministic: start vectors are fixed. error <= 1e-8 sigma1, save in components of more than 4096 units whose
    largest eigenvalues lie in a cluster of hundreds (long paths): there it says what was reached.
    """
    from topo.kernels.components import components

    if graph.right > graph.left:
        graph = graph.turned
    labels = np.empty(graph.right, np.int64)
    count = components(graph.words, labels)
    if count == 0:
        return TopTwo(math.nan, math.nan, math.nan, 0)
    if count == 1 and labels.min() == 0:
        found = _connected(graph)
    elif graph.right <= SMALL:
        found = _dense(graph)
    else:
        found = _by_components(graph, labels, count)
    pairs = sorted(found, reverse=True)[:2]
    sigma1, sigma2 = pairs[0][0], pairs[1][0] if len(pairs) > 1 else 0.0
    return TopTwo(sigma1, sigma2, max(error for _, error in found), count)


def nothing_missed(graph: Bipartite, top: TopTwo) -> bool:
    """Proof by inertia: at most one singular value is above sigma2 + error, with multiplicity, in the whole graph.

    By Sylvester's law m I - G has as many negative eigenvalues as the D of its factors L D L^T; m lies above
    (sigma2 + error)^2 by what rounding may shift, n^2 units of sigma1^2 at most. n^3 / 3 operations: 5 ms for n = 512,
    1 s for 4096; `top_two` does without.
    """
    from scipy.linalg import ldl

    if graph.right > graph.left:
        graph = graph.turned
    products, rounding = gram(graph)
    n = graph.right
    level = (top.sigma2 + top.error) ** 2 + (n * n + rounding) * _UNIT * top.sigma1**2
    _, blocks, _ = ldl(np.eye(n) * level - products, overwrite_a=True, check_finite=False)
    pairs = np.append(np.diagonal(blocks, -1) != 0, False)  # 2 x 2 blocks have one negative eigenvalue each
    single = ~(pairs | np.roll(pairs, 1))
    return int(np.count_nonzero(np.diagonal(blocks)[single] < 0) + np.count_nonzero(pairs)) <= 1


Found = list[tuple[float, float]]  # (sigma, bound of its error)


def _by_components(graph: Bipartite, labels: np.ndarray, count: int) -> Found:
    """The top two of each component that may hold one of the top two of all."""
    bounds = np.zeros(count)
    kept = labels >= 0
    np.maximum.at(bounds, labels[kept], _row_sums(graph)[kept])
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count + 1))
    found: Found = []
    for label in np.argsort(-bounds, kind="stable"):
        if len(found) > 1 and bounds[label] <= sorted(found)[-2][0] ** 2:
            break
        found += _connected(graph.only_right(order[starts[label] : starts[label + 1]]))
        found = sorted(found)[-2:] if len(found) > 2 else found
    return found


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


def _connected(graph: Bipartite) -> Found:
    """The top two of a connected graph without empty rows; one alone if it has rank 1."""
    if graph.values is None:
        if (graph.words == graph.words[0]).all():
            edges = graph.right * int(np.bitwise_count(graph.words[0]).sum())
            return [(math.sqrt(edges), math.sqrt(edges) * _UNIT)]
    elif graph.right == 1:
        sigma = float(np.linalg.norm(graph.values[0].astype(np.float64)))
        return [(sigma, 2 * graph.left * _UNIT * sigma)]
    if graph.right <= SMALL:
        return _dense(graph)
    if graph.values is None and graph.right > LARGEST_GRAM and not _sparse(graph):
        return _lanczos(graph, _through_tables(graph), 2 * (graph.right + graph.left))
    if graph.values is None and _sparse(graph):
        return _lanczos(graph, _through_csr(graph), graph.right + graph.left)
    products, rounding = gram(graph)
    if graph.integer and graph.values is not None and _rank_one(products):
        return _of_rank_one(products)
    return _lanczos(graph, _through_gram(products), graph.right + rounding)


def _sparse(graph: Bipartite) -> bool:
    """Does CSR beat the Gram? Nanoseconds: 0.14 a word of the Gram, 0.08 to 0.16 an entry, 1.1 an edge each step."""
    n, edges = graph.right, int(graph.right_degrees.sum())
    steps = 60 if n <= 1024 else 120
    if n > LARGEST_GRAM:
        return 1.1 * edges < 8 * graph.words.size
    entry = 0.083 if n <= 600 else 0.16
    return edges * (1.5 + 1.1 * steps) < n * n * (0.07 * graph.words.shape[1] + entry * steps)


def gram(graph: Bipartite) -> tuple[np.ndarray, int]:
    """B B^T, float32 where that is exact, else float64; and how many units of rounding an entry may be off."""
    if graph.values is None:
        from topo.kernels.spectrum import gram as popcounts

        products = np.empty((graph.right, graph.right), np.float32)
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


def _rank_one(products: np.ndarray) -> bool:
    """Are all rows of B multiples of one of them? Equality in Cauchy-Schwarz, between integers."""
    squares = products.diagonal().astype(np.float64)
    one = int(np.argmax(squares))
    row = products[one].astype(np.float64)
    return bool((row * row == squares[one] * squares).all())


def _of_rank_one(products: np.ndarray) -> Found:
    """sigma_1 = sqrt(tr G), and nothing else."""
    sigma = math.sqrt(float(np.trace(products, dtype=np.float64)))
    return [(sigma, sigma * 2 * _UNIT)]


# Small sides: all eigenvalues, so that nothing is missed whether connected or not.


def _dense(graph: Bipartite) -> Found:
    products, rounding = gram(graph)
    if graph.integer and _rank_one(products):
        return _of_rank_one(products)
    eigenvalues = np.linalg.eigvalsh(products.astype(np.float64))[::-1][:2]
    unsure = (8 * graph.right + rounding) * _UNIT * float(eigenvalues[0])
    return _accepted(graph, [_root(float(value), unsure) for value in eigenvalues])


def _root(theta: float, r: float) -> tuple[float, float]:
    """sigma and the bound of its error where an eigenvalue of G lies within r of theta."""
    sigma = math.sqrt(max(theta, 0.0))
    below, above = math.sqrt(max(theta - r, 0.0)), math.sqrt(max(theta + r, 0.0))
    return sigma, max(sigma - below, above - sigma) + sigma * _UNIT


def _accepted(graph: Bipartite, found: Found) -> Found:
    """What was found; from all singular values where weights lie too close to rank 1 for squares."""
    if graph.integer or max(error for _, error in found) <= 2 * TOLERANCE * found[0][0]:
        return found
    assert graph.values is not None
    sigmas = np.linalg.svd(graph.values.astype(np.float64), compute_uv=False)[:2]
    unsure = 8 * (graph.right + graph.left) * _UNIT * float(sigmas[0])
    return [(float(sigma), unsure) for sigma in sigmas]


# Lanczos: G enters as an operator (x, y) -> None that fills y = G x.


def _through_gram(products: np.ndarray) -> Operator:
    from topo.kernels.spectrum import through_gram

    return lambda x, y: through_gram(products, x, y)


def _through_csr(graph: Bipartite) -> Operator:
    from topo.kernels.spectrum import through_csr, to_csr

    indptr = np.concatenate([[0], np.cumsum(graph.right_degrees)])
    indices = np.empty(indptr[-1], np.int32)
    to_csr(graph.words, indptr, indices)
    u = np.empty(graph.left)
    return lambda x, y: through_csr(indptr, indices, x, u, y)


def _through_tables(graph: Bipartite) -> Operator:
    from topo.kernels.paths import pull_bits, push_bits

    u = np.empty(64 * graph.words.shape[1])

    def through(x: np.ndarray, y: np.ndarray) -> None:
        push_bits(graph.words, x, u)
        pull_bits(graph.words, u, y)

    return through


def _lanczos(graph: Bipartite, through: Operator, rounding: int) -> Found:
    """Lanczos with full reorthogonalisation until both residuals pass; rounding: units of lambda_1 lost in G x."""
    from topo.kernels.spectrum import orthogonalise, top_of_tridiagonal

    n = graph.right
    most = min(n, MOST_STEPS)
    room = min(most, 80)
    basis, turned = np.empty((room, n)), np.empty((n, room))
    alpha, beta = np.zeros(most), np.zeros(most)
    start = np.random.default_rng(0).standard_normal(n)
    basis[0] = turned[:, 0] = start / math.sqrt(float((start * start).sum()))
    w = np.empty(n)
    step, check, before = 0, min(24, most), (0, math.inf)
    while True:
        if step + 1 == room < most:
            room = min(most, 2 * room)
            basis, turned = _longer(basis, room), np.ascontiguousarray(_longer(turned.T, room).T)
        through(basis[step], w)
        orthogonalise(basis, turned, step, w, alpha, beta)
        step += 1
        ended = step == most or beta[step - 1] <= 1e-14 * alpha[0] * n
        if step == check or ended:
            k = min(2, step)
            values, vectors = np.empty(k), np.empty((k, step))
            top_of_tridiagonal(alpha[:step], beta[:step], values, vectors)
            residuals = abs(beta[step - 1] * vectors[:, -1])
            sigmas = np.sqrt(np.maximum(values, 1e-300))
            worst = float((residuals / sigmas).max() / sigmas[0])
            if ended or worst <= TOLERANCE:
                break
            check, before = min(most, _next_check(step, worst, before)), (step, worst)
    ritz = vectors @ basis[:step]
    found = []
    for value, y in zip(values, ritz):
        through(y, w)
        r = math.sqrt(float(((w - value * y) ** 2).sum()) / float((y * y).sum()))
        found.append(_root(float(value), r + 2 * rounding * _UNIT * float(values[0])))
    if step == MOST_STEPS and n <= LARGEST_DENSE and max(error for _, error in found) > 2 * TOLERANCE * found[0][0]:
        return _dense(graph)  # thousands of eigenvalues in a cluster, such as those of a long path
    return _accepted(graph, found)


def _next_check(step: int, worst: float, before: tuple[int, float]) -> int:
    """When the residual should pass, if it goes on falling as it did since the last look."""
    last, was = before
    fall = math.log(was / worst) / (step - last) if 0 < worst < was < math.inf else 0.0
    needed = math.log(worst / TOLERANCE) / fall if fall > 0 else math.inf
    return step + int(min(max(0.8 * needed, 3), 12))


def _longer(rows: np.ndarray, room: int) -> np.ndarray:
    longer = np.empty((room, rows.shape[1]))
    longer[: len(rows)] = rows
    return longer
