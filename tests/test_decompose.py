"""Bases and coefficients: collapsed masks and path counts by loops, the best approximation, and bad shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

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


class Two(nn.Module):
    """Kernels of 3 x 3, in two groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.a, self.b, self.out = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Linear(6 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.b(self.a(x)).flatten(1))


@pytest.mark.parametrize("basis, density", [(1, 0.5), (6, 0.123), (9, 0.01), (6, 1.0)])
def test_escalate_keeps_the_largest_coefficients(basis: int, density: float) -> None:
    """A naive twin: right singular vectors as eigenvectors, and a sort of all coefficients."""
    model = Two()
    found = topo.generate("escalate", model, density=density, input_shape=(2, 6, 6), basis=basis)
    sizes, places = [], []
    for name in found:
        weight = model.get_parameter(name).detach().double().numpy()
        rows = weight.reshape(weight.shape[0] * weight.shape[1], -1)
        kernels = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, : min(basis, rows.shape[1], rows.shape[0])]
        for row, m in np.ndindex(len(rows), kernels.shape[1]):
            sizes.append(abs(rows[row] @ kernels[:, m]))
            places.append((name, row))
    keep = round(density * len(sizes))
    left = {name: np.zeros(np.prod(found[name].shape[:2]), bool) for name in found}
    for place in np.argsort(sizes)[::-1][:keep]:
        name, row = places[place]
        left[name][row] = True
    for name in found:
        assert np.array_equal(found[name].reshape(len(left[name]), -1).all(1), left[name])
        assert np.array_equal(found[name].reshape(len(left[name]), -1).any(1), left[name])
    said = f"{keep:,} of {len(sizes):,} coefficients of bases of at most {basis} kernels are kept"
    assert said in found.provenance["notes"] and found.provenance["keeps"].startswith("as many coefficients")


def test_one_kernel_for_all_makes_channel_masks() -> None:
    """W[o, i] = C[o, i] B: a basis of one is exact, and the order of |C| is known."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3))
    scale = torch.arange(1.0, 16.0).view(5, 3)[:, :, None, None]
    with torch.no_grad():
        model[0].weight.copy_(scale * torch.ones(3, 3))
    found = topo.generate("escalate", model, density=0.4, input_shape=(3, 6, 6), basis=1)
    assert np.array_equal(found["0.weight"], np.broadcast_to(scale.numpy() > 9, (5, 3, 3, 3)))


def test_escalate_takes_no_budget_of_another_kind(tmp_path: Path) -> None:
    for more, said in (({"quota": "erk"}, "takes no quota"), ({"basis": 0}, "basis"), ({"source": {}}, "source"),
                       ({"density": 1e-9}, "keeps none")):  # fmt: skip
        with pytest.raises(TopoError, match=said):
            topo.generate("escalate", Two(), input_shape=(2, 6, 6), **{"density": 0.5, **more})


def test_factorised_checkpoints_are_read_as_what_they_make(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((2, 3, 3)) * (rng.random((2, 3, 3)) < 0.5)
    mixed = rng.standard_normal((4, 3, 2)) * (rng.random((4, 3, 2)) < 0.5)
    linear = rng.standard_normal((5, 4)) * (rng.random((5, 4)) < 0.5)
    state = {"conv.basis": basis, "conv.coefficients": mixed, "fc.weight": linear}
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "f.pt")
    masks = topo.read_masks(tmp_path / "f.pt")
    assert masks.provenance["format"] == "factorised" and set(masks) == {"conv.weight", "fc.weight"}
    assert np.array_equal(masks["conv.weight"], collapse(basis, mixed).mask)
    assert np.array_equal(masks["fc.weight"], linear != 0)
    half = {name: torch.tensor(value).bfloat16() for name, value in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    assert topo.read_masks(tmp_path / "half.safetensors") == masks
    for change, said in (
        ({"conv.coefficients": mixed[:, :, :1]}, "does not fit"),
        ({"other.basis": basis}, "1 layer with a basis and without coefficients: 'other'"),
        ({"conv.basis": basis[0, 0]}, "are numbers of shape"),
    ):
        torch.save({name: torch.tensor(value) for name, value in (state | change).items()}, tmp_path / "bad.pt")
        with pytest.raises(TopoError, match=said):
            topo.read_masks(tmp_path / "bad.pt")


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
