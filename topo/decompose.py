"""Convolutions as a small basis of kernels and coefficients (ESCALATE): what each form of one says of the other.

W[o, i] ~ sum_m C[o, i, m] B[m]: first every input channel is read by every kernel of the basis (depthwise), then the
coefficients mix what they give, as a 1 x 1 convolution does. The coefficients are what is pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from topo.errors import TopoError


@dataclass(frozen=True, eq=False)
class Collapsed:
    """One convolution in place of the two stages.

    mask: bool (out, in, *kernel), the positions that some kept coefficient's basis kernel reads. multiplicity: int64
    (out, in), paths from input i to output o through both stages.
    """

    mask: np.ndarray
    multiplicity: np.ndarray


def collapse(basis: Any, coefficient_mask: Any) -> Collapsed:
    """The mask of the convolution that a basis and pruned coefficients make, and how many paths each channel edge has.

    basis: (M, *kernel), numbers or flags, of which only what is not 0 counts. coefficient_mask: (out, in, M), likewise.
    There is an edge i -> o iff some C[o, i, m] with B[m] != 0 is kept; its taps are the union of supp B[m] over these
    m, its multiplicity sum_m |supp B[m]| [C[o, i, m] != 0]. Low-rank and depthwise-separable layers are of this form.

    >>> bool(collapse(np.ones((1, 3, 3)), np.ones((4, 2, 1))).mask.all())
    True

    Source: Li et al. 2021 (ESCALATE), section 3. TopoError if the two do not fit each other.
    """
    support, kept = np.asarray(basis) != 0, np.asarray(coefficient_mask) != 0
    if support.ndim < 2 or kept.ndim != 3 or kept.shape[2] != len(support):
        raise TopoError(
            f"a basis {support.shape} does not fit coefficients {kept.shape}: they are (M, *kernel) and (out, in, M)"
        )
    flat = support.reshape(len(support), -1)
    # In integers: a product of bools would saturate, of floats lose counts beyond 2**53.
    taps = kept.reshape(-1, len(support)).astype(np.int64) @ flat.astype(np.int64)
    return Collapsed((taps > 0).reshape(*kept.shape[:2], *support.shape[1:]), taps.sum(1).reshape(kept.shape[:2]))


def decompose(weight: Any, basis: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """The best basis of so many kernels for a bank of them: (B (M, *kernel), C (out, in, M)), by singular vectors.

    weight: (out, in, *kernel). sum_m C[o, i, m] B[m] has the least squared error of all such sums, the sum of the
    squared singular values from M on; the kernels of B are orthonormal. M is at most the number of kernel positions,
    and of kernels.

    >>> weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    >>> kernels, coefficients = decompose(weight, 9)
    >>> np.allclose(np.einsum("oim,mhw->oihw", coefficients, kernels), weight)
    True

    TopoError for an array of other dimensions, numbers that are not finite, and a basis below 1.
    """
    values = np.asarray(weight, float)
    if values.ndim < 3 or not values.size:
        raise TopoError(f"a bank of kernels has shape (out, in, *kernel), not {values.shape}")
    if isinstance(basis, bool) or not isinstance(basis, int | np.integer) or basis < 1:
        raise TopoError(f"basis is {basis!r}; it is a whole number of kernels, at least 1")
    if not np.isfinite(values).all():
        raise TopoError("the kernels hold a number that is not finite")
    rows = values.reshape(-1, int(np.prod(values.shape[2:])))
    left, scale, right = np.linalg.svd(rows, full_matrices=False)
    count = min(int(basis), len(scale))
    coefficients = (left[:, :count] * scale[:count]).reshape(*values.shape[:2], count)
    return right[:count].reshape(count, *values.shape[2:]), coefficients
