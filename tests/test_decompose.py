"""Bases and coefficients: collapsed masks and path counts by loops, the best approximation, and bad shapes."""

from __future__ import annotations

import numpy as np
import pytest

import topo
from topo.decompose import collapse, decompose
from topo.errors import TopoError

pytestmark = pytest.mark.small


@pytest.mark.parametrize("seed", range(4))
def test_collapse_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((3, 2, 3)) * (rng.random((3, 2, 3)) < 0.5)
    basis[1] = 0  # a kernel of the basis that reads nothing makes no edge
    kept = rng.random((5, 4, 3)) < 0.4
    found = collapse(basis, kept)
    for o, i in np.ndindex(5, 4):
        union, paths = np.zeros((2, 3), bool), 0
        for m in range(3):
            if kept[o, i, m]:
                union |= basis[m] != 0
                paths += np.count_nonzero(basis[m])
        assert np.array_equal(found.mask[o, i], union) and found.multiplicity[o, i] == paths
        assert (paths > 0) == any(kept[o, i, m] and basis[m].any() for m in range(3))


def test_a_basis_of_ones_and_all_coefficients_is_the_dense_mask() -> None:
    found = collapse(np.ones((1, 3, 3)), np.ones((8, 4, 1)))
    assert found.mask.shape == (8, 4, 3, 3) and found.mask.all() and (found.multiplicity == 9).all()


def test_both_forms_have_the_same_paths_where_supports_do_not_overlap() -> None:
    basis = np.zeros((2, 3, 3))
    basis[0, 0], basis[1, 1:] = 1, 1
    kept = np.random.default_rng(1).random((4, 3, 2)) < 0.5
    found = collapse(basis, kept)
    assert np.array_equal(found.multiplicity, found.mask.sum((2, 3)))
    # The decomposed form: three inputs, each read by both kernels, and a 1 x 1 convolution of what they give.
    depthwise = np.zeros((6, 3, 3, 3), bool)
    for i, m in np.ndindex(3, 2):
        depthwise[2 * i + m, i] = basis[m] != 0
    masks = topo.MaskSet({"spatial.weight": depthwise, "mix.weight": kept.reshape(4, 6)[:, :, None, None]})
    whole = topo.MaskSet({"conv.weight": found.mask})
    counts = [
        topo.analyze(m, topo.chain(m), metrics="effective_paths").network["effective_paths"] for m in (masks, whole)
    ]
    assert int(counts[0]) == int(counts[1]) == int(found.multiplicity.sum())


def test_decompose_gives_the_best_approximation() -> None:
    weight = np.random.default_rng(2).standard_normal((6, 5, 3, 3))
    scale = np.linalg.svd(weight.reshape(30, 9), compute_uv=False)
    for count in (1, 6, 9, 20):
        kernels, coefficients = decompose(weight, count)
        assert kernels.shape == (min(count, 9), 3, 3)
        left = weight - np.einsum("oim,mhw->oihw", coefficients, kernels)
        assert (left**2).sum() == pytest.approx((scale[count:] ** 2).sum(), abs=1e-10)
        np.testing.assert_allclose(np.einsum("ahw,bhw->ab", kernels, kernels), np.eye(len(kernels)), atol=1e-12)


def test_what_does_not_fit_gets_one_line() -> None:
    cases = {
        "does not fit coefficients (4, 2, 3)": lambda: collapse(np.ones((2, 3, 3)), np.ones((4, 2, 3))),
        "does not fit": lambda: collapse(np.ones(3), np.ones((4, 2, 3))),
        "has shape (out, in, *kernel), not (4, 2)": lambda: decompose(np.ones((4, 2))),
        "basis is 0": lambda: decompose(np.ones((4, 2, 3, 3)), 0),
        "not finite": lambda: decompose(np.full((4, 2, 3, 3), np.nan)),
    }
    for said, call in cases.items():
        with pytest.raises(TopoError) as caught:
            call()
        assert said in str(caught.value) and "\n" not in str(caught.value)
