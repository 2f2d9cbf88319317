"""What spectra are made of: Gram matrices and transposes of bit rows, CSR, one step of Lanczos, small tridiagonals.

No loop here is a reduction over floats where it can be a sum of vectors: without reassociation only those vectorise,
and their order, hence every bit of the result, is the same on any machine.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

_LANES = 8  # divisions side by side: of 512 bits two instructions, and eight steps that do not wait for each other


@intrinsic
def _popcount(typing_context, word):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


if nb.config.DISABLE_JIT:

    def _popcount(word):
        return int(word).bit_count()


@nb.njit(cache=True, nogil=True)
def _mirror(products):
    """The lower triangle into the upper one, in tiles of whole cache lines that are written line by line: measured at
    512, where rows lie a power of two apart, 0.12 ms; 0.42 ms in stripes.

    products [[1, .], [2, 3]] -> [[1, 2], [2, 3]]
    """
    rows = products.shape[0]
    for first in range(0, rows, 16):
        for start in range(0, first + 1, 16):
            for j in range(start, min(start + 16, rows)):
                for i in range(max(first, j + 1), min(first + 16, rows)):
                    products[j, i] = products[i, j]


@nb.njit(cache=True, nogil=True)
def gram(words, products):
    """words (rows, w) uint64 -> products (rows, rows) float32: columns that rows i and j share, exact below 2**24.

    Tiles of 32 rows stay in the second-level cache, and a word that is read meets four rows: measured, 170 ms instead
    of 290 at 4096 x 11008.

    words [[0b011], [0b110]] -> products [[2, 1], [1, 2]]
    """
    rows, width = words.shape
    for start in range(0, rows, 32):
        for i in range(start, rows):
            stop = min(start + 32, i + 1)
            whole = stop - (stop - start) % 4
            for j in range(start, whole, 4):
                a, b, c, d = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
                for w in range(width):
                    word = words[i, w]
                    a += _popcount(word & words[j, w])
                    b += _popcount(word & words[j + 1, w])
                    c += _popcount(word & words[j + 2, w])
                    d += _popcount(word & words[j + 3, w])
                products[i, j], products[i, j + 1], products[i, j + 2], products[i, j + 3] = a, b, c, d
            for j in range(whole, stop):
                a = np.uint64(0)
                for w in range(width):
                    a += _popcount(words[i, w] & words[j, w])
                products[i, j] = a
    _mirror(products)


@nb.njit(cache=True, nogil=True)
def gram_of_lists(indptr, indices, starts, products):
    """CSR, starts (columns + 1,) int64, degrees of columns summed up -> products (rows, rows) float32 as in `gram`.

    A column of d rows adds 1 to d (d + 1) / 2 entries: measured, 0.2 ms at 512 x 1024 with 10,000 edges, where `gram`
    takes 0.6 ms.

    rows {0, 1} and {1, 2} -> products [[2, 1], [1, 2]]
    """
    rows, columns = products.shape[0], starts.size - 1
    place, members = np.empty(columns, np.int64), np.empty(starts[columns], np.uint32)
    for c in range(columns):
        place[c] = starts[c]
    for i in range(rows):
        row = products[i]
        for j in range(i):
            row[j] = 0.0
        row[i] = indptr[i + 1] - indptr[i]
        for k in range(indptr[i], indptr[i + 1]):
            c = indices[k]
            stop = place[c]
            for before in range(starts[c], stop):  # the rows above that have this column, too
                row[members[before]] += np.float32(1.0)
            members[stop] = i
            place[c] = stop + 1
    _mirror(products)


@nb.njit(cache=True, nogil=True)
def transpose(words, turned):
    """words (rows, ceil(columns / 64)) uint64 -> turned (columns, ceil(rows / 64)): bit i of row j is bit j of row i.

    words [[0b11], [0b10]] -> turned [[0b01], [0b11]]
    """
    rows, width = words.shape
    columns = turned.shape[0]
    block = np.empty(64, np.uint64)
    for start in range(0, rows, 64):
        for w in range(width):
            for k in range(64):
                block[k] = words[start + k, w] if start + k < rows else np.uint64(0)
            half, mask = 32, np.uint64(0xFFFFFFFF)
            while half:  # swap the two squares off the diagonal, at every scale
                shift = np.uint64(half)
                for base in range(0, 64, 2 * half):
                    for k in range(base, base + half):
                        swap = ((block[k] >> shift) ^ block[k + half]) & mask
                        block[k] ^= swap << shift
                        block[k + half] ^= swap
                half >>= 1
                mask ^= mask << np.uint64(half)
            for k in range(min(64, columns - 64 * w)):
                turned[64 * w + k, start >> 6] = block[k]


@nb.njit(cache=True, nogil=True)
def to_csr(words, indptr, indices):
    """words (rows, w) uint64, indptr (rows + 1,) int64 from the row degrees -> indices int32: set columns, row by row.

    words [[0b101], [0b010]] -> indices [0, 2, 1]
    """
    rows, width = words.shape
    for i in range(rows):
        place = indptr[i]
        for w in range(width):
            word = words[i, w]
            while word:
                rest = word & (word - np.uint64(1))
                indices[place] = 64 * w + _popcount((word ^ rest) - np.uint64(1))
                place += 1
                word = rest


@nb.njit(cache=True, nogil=True)
def spread_groups(words, rows_per_group, columns, spread):
    """words (rows, w) uint64 of `columns` columns a group -> spread (rows, w2): the block-diagonal matrix, w2 from 0.

    words [[0b11], [0b01]], one row a group, 2 columns -> spread [[0b0011], [0b0100]]
    """
    rows, width = words.shape
    for i in range(rows):
        first = (i // rows_per_group) * columns
        place, shift = first >> 6, np.uint64(first & 63)
        for w in range(width):
            spread[i, place + w] |= words[i, w] << shift
            high = words[i, w] >> np.uint64(1) >> (np.uint64(63) - shift)
            if high:
                spread[i, place + w + 1] |= high


@nb.njit(cache=True, nogil=True)
def through_gram(products, x, y):
    """products (n, n) float32 or float64, symmetric, x (n,) float64 -> y = products x.

    Four rows at a time, so that y is read and written once for four.

    products [[2, 1], [1, 2]], x [1, 2] -> y [4, 5]
    """
    n = products.shape[0]
    whole = n - n % 4
    y[:] = 0.0
    for j in range(0, whole, 4):
        a, b, c, d = x[j], x[j + 1], x[j + 2], x[j + 3]
        for i in range(n):
            y[i] += (a * products[j, i] + b * products[j + 1, i]) + (c * products[j + 2, i] + d * products[j + 3, i])
    for j in range(whole, n):
        for i in range(n):
            y[i] += x[j] * products[j, i]


@nb.njit(cache=True, nogil=True)
def _lifted(c, vectors, i, row):
    """c (k,), k >= 1, vectors (k, n) -> row (n - i,): row i of sum_k c_k y_k y_k^T from column i on.

    Views that begin at i and loops that begin at 0: others do not vectorise, measured four times as slow.
    """
    here, vector = c[0] * vectors[0, i], vectors[0, i:]
    for j in range(row.size):
        row[j] = here * vector[j]
    for k in range(1, c.size):
        here, vector = c[k] * vectors[k, i], vectors[k, i:]
        for j in range(row.size):
            row[j] += here * vector[j]


@nb.njit(cache=True, nogil=True)
def shifted(products, level, c, vectors, matrix):
    """products (n, n) symmetric, c (k,), vectors (k, n) -> level I - products + sum_k c_k y_k y_k^T, upper triangle, in
    matrix, formed in float64 and rounded once; its trace.

    products [[2, 1], [1, 2]], level 4, c [1], vectors [[1, 1]] -> matrix [[3, 0], [..., 3]], trace 6
    """
    n = products.shape[0]
    row, trace = np.empty(n), 0.0
    for i in range(n):
        rest, one, two = row[i:], products[i, i:], matrix[i, i:]
        _lifted(c, vectors, i, rest)
        rest[0] += level
        for j in range(rest.size):
            two[j] = rest[j] - one[j]
        trace += matrix[i, i]
    return trace


@nb.njit(cache=True, nogil=True)
def shifted_by_lists(indptr, indices, starts, level, c, vectors, matrix):
    """As `shifted`, for the Gram of a CSR matrix, starts (columns + 1,) int64, degrees of columns summed up: as in
    `gram_of_lists`, without the Gram.

    rows {0, 1} and {1, 2}, level 4, c [1], vectors [[1, 1]] -> matrix [[3, 0], [..., 3]], trace 6
    """
    n, columns = indptr.size - 1, starts.size - 1
    place, members = np.empty(columns, np.int64), np.empty(starts[columns], np.uint32)
    for column in range(columns):
        place[column] = starts[column]
    row, trace = np.empty(n), 0.0
    for i in range(n - 1, -1, -1):
        rest, two = row[i:], matrix[i, i:]
        _lifted(c, vectors, i, rest)
        rest[0] += level - (indptr[i + 1] - indptr[i])
        for k in range(indptr[i], indptr[i + 1]):
            column = indices[k]
            stop = place[column]
            for before in range(starts[column], stop):  # the rows below that have this column, too
                row[members[before]] -= 1.0
            members[stop] = i
            place[column] = stop + 1
        for j in range(rest.size):
            two[j] = rest[j]
        trace += matrix[i, i]
    return trace


@nb.njit(cache=True, nogil=True)
def through_csr(indptr, indices, x, u, y):
    """B (rows, len(u)) of 0 and 1 in CSR, x (rows,) -> y = B (B^T x); u = B^T x on the way.

    rows {0, 1} and {1}, x [1, 2] -> u [1, 3], y [4, 3]
    """
    rows = indptr.size - 1
    u[:] = 0.0
    for i in range(rows):
        value = x[i]
        for k in range(indptr[i], indptr[i + 1]):
            u[indices[k]] += value
    for i in range(rows):
        k, stop = indptr[i], indptr[i + 1]
        one, two, three, four = 0.0, 0.0, 0.0, 0.0
        while k + 4 <= stop:
            one += u[indices[k]]
            two += u[indices[k + 1]]
            three += u[indices[k + 2]]
            four += u[indices[k + 3]]
            k += 4
        while k < stop:
            one += u[indices[k]]
            k += 1
        y[i] = (one + two) + (three + four)


@nb.njit(cache=True, nogil=True)
def orthogonalise(basis, turned, step, w, alpha, beta):
    """One step of Lanczos: w = A q (n,) for q = basis[step] -> alpha[step], beta[step], basis[step + 1].

    basis (m, n) holds the orthonormal vectors q, turned (n, m) the same transposed. First the three-term recurrence,
    then one pass against all of them, so that rounding does not bring copies of what has converged:
        alpha = w . q,  w <- w - alpha q - beta' q',  w <- w - sum_k (w . q_k) q_k,  beta = |w|,  next q = w / beta.
    """
    n, m = turned.shape
    a, b = 0.0, beta[step - 1] if step else 0.0
    before = max(step - 1, 0)
    for i in range(n):
        a += w[i] * basis[step, i]
    for i in range(n):
        w[i] -= a * basis[step, i] + b * basis[before, i]
    alpha[step] = a
    dots = np.zeros(step + 1)
    for i in range(n):
        value = w[i]
        for k in range(step + 1):
            dots[k] += value * turned[i, k]
    whole = (step + 1) - (step + 1) % 4
    for k in range(0, whole, 4):
        a, b, c, d = dots[k], dots[k + 1], dots[k + 2], dots[k + 3]
        for i in range(n):
            w[i] -= (a * basis[k, i] + b * basis[k + 1, i]) + (c * basis[k + 2, i] + d * basis[k + 3, i])
    for k in range(whole, step + 1):
        for i in range(n):
            w[i] -= dots[k] * basis[k, i]
    total = 0.0
    for i in range(n):
        total += w[i] * w[i]
    beta[step] = math.sqrt(total)
    if step + 1 < m and beta[step] > 0.0:
        for i in range(n):
            value = w[i] / beta[step]
            basis[step + 1, i] = value
            turned[i, step + 1] = value


@nb.njit(cache=True, nogil=True)
def _bracketed(alpha, beta, number, under, above, tiny):
    """The eigenvalue of T with `number` larger ones, known to lie in [under, above], to an interval of `tiny`.

    Sturm: as many pivots of T - x I are positive as there are eigenvalues above x. _LANES points at once, whose
    divisions are one instruction (bisection took 66 us at n = 45, a third of all of Lanczos up to 256 rows).
    """
    n = alpha.size
    points, pivots, larger = np.empty(_LANES), np.empty(_LANES), np.empty(_LANES)
    while above - under > tiny:
        part = (above - under) / (_LANES + 1)
        if under + part == under or above - part == above:
            break
        for k in range(_LANES):
            points[k], pivots[k], larger[k] = under + (k + 1) * part, 1.0, 0.0
        for i in range(n):
            a, b = alpha[i], beta[i - 1] * beta[i - 1] if i else 0.0
            for k in range(_LANES):
                pivot = (a - points[k]) - b / pivots[k]
                pivots[k] = pivot if pivot != 0.0 else -1e-290
                larger[k] += 1.0 if pivot > 0.0 else 0.0
        for k in range(_LANES):
            if larger[k] > number:
                under = max(under, points[k])
            else:
                above = min(above, points[k])
    return 0.5 * (under + above)


@nb.njit(cache=True, nogil=True)
def _span(alpha, beta):
    """Gershgorin: all eigenvalues of T lie in [low, high]."""
    n = alpha.size
    low, high = alpha[0], alpha[0]
    for i in range(n):
        radius = (abs(beta[i - 1]) if i else 0.0) + (abs(beta[i]) if i + 1 < n else 0.0)
        low, high = min(low, alpha[i] - radius), max(high, alpha[i] + radius)
    return low, high


@nb.njit(cache=True, nogil=True)
def top_of_tridiagonal(alpha, beta, values, vectors):
    """Symmetric tridiagonal T, alpha (n,), beta (n - 1 used) -> its len(values) <= n largest eigenvalues, descending.

    vectors (len(values), n): unit eigenvectors. Bisection to eight digits, three inverse iterations from there, and the
    Rayleigh quotient, whose error is the square of the vector's.

    alpha [1, 1], beta [1] -> values [2, 0]
    """
    n = alpha.size
    low, high = _span(alpha, beta)
    scale = max(abs(low), abs(high))
    tiny = 2.3e-16 * scale + 1e-300
    diagonal, upper, second = np.empty(n), np.empty(n), np.empty(n)
    for number in range(values.size):
        value = _bracketed(alpha, beta, number, low, high, 1e-8 * scale + 1e-300)
        x = vectors[number]
        for i in range(n):
            x[i] = 1.0 + 0.5 * ((i * 7) % 11)  # any start that is not orthogonal to what is sought
        for _ in range(3):
            # Gaussian elimination with partial pivoting: rows have at most two entries right of the diagonal.
            here, right = alpha[0] - value, beta[0] if n > 1 else 0.0
            for i in range(n - 1):
                below = beta[i]
                across = alpha[i + 1] - value
                beyond = beta[i + 1] if i + 2 < n else 0.0
                if abs(below) > abs(here):
                    diagonal[i], upper[i], second[i] = below, across, beyond
                    factor = here / below
                    here, right = right - factor * across, -factor * beyond
                    x[i], x[i + 1] = x[i + 1], x[i] - factor * x[i + 1]
                else:
                    pivot = here if here != 0.0 else tiny
                    diagonal[i], upper[i], second[i] = pivot, right, 0.0
                    factor = below / pivot
                    here, right = across - factor * right, beyond
                    x[i + 1] -= factor * x[i]
            diagonal[n - 1] = here if abs(here) > tiny else tiny
            for i in range(n - 1, -1, -1):
                if i + 1 < n:
                    x[i] -= upper[i] * x[i + 1]
                if i + 2 < n:
                    x[i] -= second[i] * x[i + 2]
                x[i] /= diagonal[i]
            for other in range(number):  # close eigenvalues: stay away from the vectors that are found
                dot = 0.0
                for i in range(n):
                    dot += vectors[other, i] * x[i]
                for i in range(n):
                    x[i] -= dot * vectors[other, i]
            total = 0.0
            for i in range(n):
                total += x[i] * x[i]
            total = math.sqrt(total)
            for i in range(n):
                x[i] /= total
        value = 0.0
        for i in range(n):
            value += x[i] * (alpha[i] * x[i])
            if i + 1 < n:
                value += 2.0 * x[i] * (beta[i] * x[i + 1])
        values[number] = value


@nb.njit(cache=True, nogil=True)
def second_largest(matrix):
    """matrix (n, n) float64, n >= 2, symmetric, overwritten -> its second largest eigenvalue.

    Householder's reflections make it tridiagonal, row by row: twice as fast as LAPACK's blocks at n <= 64.

    matrix [[2, 1], [1, 2]] -> 1
    """
    n = matrix.shape[0]
    alpha, beta, v, w = np.empty(n), np.zeros(n), np.empty(n), np.empty(n)
    for k in range(n - 2):
        alpha[k], first, rest = matrix[k, k], matrix[k, k + 1], 0.0
        for i in range(k + 2, n):
            rest += matrix[k, i] * matrix[k, i]
        if rest == 0.0:
            beta[k] = first
            continue
        # I - tau v v^T takes row k, right of the diagonal, to (beta, 0, ..., 0); here in places 0 to m - 1.
        norm, m = math.sqrt(first * first + rest), n - k - 1
        beta[k] = -norm if first > 0.0 else norm
        tau = 1.0 / (norm * (norm + abs(first)))
        for i in range(m):
            v[i], w[i] = matrix[k, k + 1 + i], 0.0
        v[0] = first - beta[k]
        whole = m - m % 4
        for j in range(0, whole, 4):
            a, b, c, d = v[j], v[j + 1], v[j + 2], v[j + 3]
            one, two, three, four = matrix[k + 1 + j], matrix[k + 2 + j], matrix[k + 3 + j], matrix[k + 4 + j]
            for i in range(m):
                w[i] += (a * one[k + 1 + i] + b * two[k + 1 + i]) + (c * three[k + 1 + i] + d * four[k + 1 + i])
        for j in range(whole, m):
            a, one = v[j], matrix[k + 1 + j]
            for i in range(m):
                w[i] += a * one[k + 1 + i]
        dot = 0.0
        for i in range(m):
            w[i] *= tau
            dot += w[i] * v[i]
        dot *= 0.5 * tau
        for i in range(m):
            w[i] -= dot * v[i]
        for j in range(m):
            a, b, one = v[j], w[j], matrix[k + 1 + j]
            for i in range(m):
                one[k + 1 + i] -= a * w[i] + b * v[i]
    alpha[n - 2], beta[n - 2], alpha[n - 1] = matrix[n - 2, n - 2], matrix[n - 2, n - 1], matrix[n - 1, n - 1]
    low, high = _span(alpha, beta)
    return _bracketed(alpha, beta, 1, low, high, 2.3e-16 * max(abs(low), abs(high)) + 1e-300)


@nb.njit(cache=True, nogil=True)
def lanczos(products, indptr, indices, columns, start, tolerance, hoped, wanted, theta, vectors, inner, across):
    """Orthonormal vectors (k, n) near those of the k >= 2 largest eigenvalues of G, on a Krylov space.

    G is products (n, n), or B B^T for B (n, columns) in CSR where indices are given. start (n,): a unit vector. Ends
    when both residuals r of the largest two are below tolerance, or 2 r^2 / gap below hoped (which holds if nothing was
    missed), relative to sqrt(value) sqrt(largest value); or after n or 200 steps. k is the least for which the second
    value is apart from the one after the k-th by wanted times what n times the second exceeds the trace of G by, and 2
    if there is none up to len(vectors). -> k, 0 where there are not two; theta (len(vectors) + 1,): the k largest
    values on the space and one more, 0 where there is none.
    inner (k, k): Y G Y^T; across (k, k): R R^T for the residuals R = Y G - inner Y.
    """
    n = start.size
    most = min(n, 200)
    basis, turned = np.empty((most, n)), np.empty((n, most))
    alpha, beta, w, u = np.zeros(most), np.zeros(most), np.empty(n), np.empty(columns)
    of_tridiagonal = np.empty((0, 0))
    for i in range(n):
        basis[0, i] = turned[i, 0] = start[i]
    step, check, last, before, k = 0, min(24, most), 0, math.inf, 0
    while True:
        if indices.size:
            through_csr(indptr, indices, basis[step], u, w)
        else:
            through_gram(products, basis[step], w)
        orthogonalise(basis, turned, step, w, alpha, beta)
        step += 1
        ended = step == most or beta[step - 1] <= 1e-14 * alpha[0] * n
        if step < check and not ended:
            continue
        k = min(3, step)
        of_tridiagonal = np.empty((k, step))
        top_of_tridiagonal(alpha[:step], beta[:step], theta[:k], of_tridiagonal)
        worst = 0.0
        for j in range(min(2, k)):
            residual = abs(beta[step - 1] * of_tridiagonal[j, step - 1])
            scale = math.sqrt(max(theta[j], 1e-300)) * math.sqrt(max(theta[0], 1e-300))
            error = residual / (tolerance * scale)
            gap = theta[j] - theta[j + 1] if j + 1 < k else 0.0
            if gap > 4.0 * residual:
                error = min(error, 2.0 * residual * residual / (gap * hoped * scale))
            worst = max(worst, error)
        if worst <= 1.0 or ended:
            break
        # When the error should pass, if it goes on falling as it did since the last look.
        fall = math.log(before / worst) / (step - last) if worst < before and before < math.inf else 0.0
        needed = 0.8 * math.log(worst) / fall if fall > 0.0 else 12.0
        check, last, before = min(most, step + int(min(max(needed, 3.0), 12.0))), step, worst
    if k < 2:
        return 0
    if k < 3:
        theta[2] = 0.0
    trace = float(indices.size)
    for i in range(products.shape[0]):
        trace += products[i, i]
    apart = wanted * (n * theta[1] - trace)
    if theta[1] - theta[2] < apart and theta.size > 3:
        k = min(theta.size, step)
        of_tridiagonal = np.empty((k, step))
        top_of_tridiagonal(alpha[:step], beta[:step], theta[:k], of_tridiagonal)
        for j in range(k, theta.size):
            theta[j] = 0.0
        for j in range(3, theta.size):
            if theta[1] - theta[j] >= apart:
                k = j
                break
        else:
            k = 2
    else:
        k = 2
    for j in range(k):
        vectors[j] = 0.0
        for m in range(step):
            weight = of_tridiagonal[j, m]
            for i in range(n):
                vectors[j, i] += weight * basis[m, i]
    for _ in range(2):  # Gram-Schmidt twice
        for j in range(k):
            for m in range(j):
                dot = 0.0
                for i in range(n):
                    dot += vectors[m, i] * vectors[j, i]
                for i in range(n):
                    vectors[j, i] -= dot * vectors[m, i]
            total = 0.0
            for i in range(n):
                total += vectors[j, i] * vectors[j, i]
            total = math.sqrt(total)
            for i in range(n):
                vectors[j, i] /= total
    images = np.empty((k, n))
    for j in range(k):
        if indices.size:
            through_csr(indptr, indices, vectors[j], u, images[j])
        else:
            through_gram(products, vectors[j], images[j])
    for j in range(k):
        for m in range(j, k):
            dot = 0.0
            for i in range(n):
                dot += vectors[j, i] * images[m, i]
            inner[j, m] = inner[m, j] = dot
    for j in range(k):
        for m in range(k):
            for i in range(n):
                images[j, i] -= inner[j, m] * vectors[m, i]
    for j in range(k):
        for m in range(j, k):
            dot = 0.0
            for i in range(n):
                dot += images[j, i] * images[m, i]
            across[j, m] = across[m, j] = dot
    return k
