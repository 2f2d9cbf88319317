"""MaskSet: what it admits, what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from topo.errors import MaskError
from topo.masks import BitRows, MaskSet, as_mask_set

pytestmark = pytest.mark.small
shapes = hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)


@given(hnp.arrays(bool, shapes))
def test_masks_come_back_as_they_went_in(mask: np.ndarray) -> None:
    masks = MaskSet({"w": mask})
    assert masks["w"].dtype == bool and (masks["w"] == mask).all() and masks["w"].shape == mask.shape
    assert masks.kept == mask.sum() and masks.size == mask.size
    assert masks.density == pytest.approx(mask.mean()) and masks.sparsity == pytest.approx(1 - mask.mean())


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64, ">f4", ">i2"]
)
def test_any_type_of_zeros_and_ones_is_the_same_mask(dtype) -> None:
    mask = np.random.default_rng(0).random((5, 70)) < 0.5
    assert MaskSet({"w": mask.astype(dtype)}) == MaskSet({"w": mask})
    assert MaskSet({"w": np.asfortranarray(mask.astype(dtype))}) == MaskSet({"w": mask})


def test_torch_tensors_are_masks_too() -> None:
    torch = pytest.importorskip("torch")
    mask = np.random.default_rng(0).random((4, 3, 3, 3)) < 0.5
    tensor = torch.from_numpy(mask)
    for made in (
        tensor,
        tensor.float().requires_grad_(),
        tensor.to(torch.bfloat16),
        tensor.to(torch.int32),
        tensor.permute(0, 1, 3, 2).permute(0, 1, 3, 2),
    ):
        assert MaskSet({"w": made}) == MaskSet({"w": mask})
    matrix = torch.eye(5)
    assert MaskSet({"w": matrix.to_sparse()}) == MaskSet({"w": np.eye(5)})


@pytest.mark.parametrize(
    "values, message",
    [
        ([[0, 2]], "mask 'fc.weight' holds 2; a mask holds only 0 and 1"),
        ([[0.0, np.nan]], "mask 'fc.weight' holds nan"),
        ([[0.5, 1]], "mask 'fc.weight' holds 0.5"),
        ([[-1, 1]], "holds -1"),
        ([1, 0], r"mask 'fc.weight' has shape \(2,\); a mask has 2 or more dimensions"),
        (np.zeros((3, 0)), r"has shape \(3, 0\): it holds no parameter"),
        ([["a", "b"]], "holds values of type"),
        ([[1 + 0j]], "holds values of type complex128"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(values, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        MaskSet({"fc.weight": np.array(values)})


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(MaskError, match="at least one mask"):
        MaskSet({})
    with pytest.raises(MaskError, match="not list"):
        as_mask_set([np.ones((2, 2))])


def test_masks_are_read_only_and_detached_from_their_source() -> None:
    source = np.ones((2, 3), bool)
    masks = MaskSet({"w": source})
    source[:] = False
    assert masks.kept == 6
    with pytest.raises(ValueError, match="read-only"):
        masks["w"][0, 0] = False
    with pytest.raises(ValueError, match="read-only"):
        masks.rows("w").words[0, 0] = 0
    with pytest.raises(TypeError):
        masks.provenance["seed"] = 1  # type: ignore[index]
    with pytest.raises(KeyError, match="no mask is called 'v'"):
        masks["v"]


def test_equality_and_hash_look_at_names_shapes_and_bits_alone() -> None:
    one, two = np.eye(3, dtype=bool), ~np.eye(3, dtype=bool)
    a = MaskSet({"x": one, "y": two}, provenance={"format": "a"})
    b = MaskSet({"y": two.astype(np.float32), "x": one.astype(np.int64)}, provenance={"format": "b"})
    assert a == b and a.content_hash == b.content_hash and hash(a) == hash(b)
    different = [{"x": one, "z": two}, {"x": two, "y": one}, {"x": one}, {"x": one, "y": two.reshape(1, 9)}]
    assert all(a != MaskSet(other) and a.content_hash != MaskSet(other).content_hash for other in different)
    assert a != {"x": one}


def test_order_is_kept_and_can_be_changed() -> None:
    masks = MaskSet({"b": np.eye(2), "a": np.eye(2), "c": np.eye(2)})
    assert list(masks) == ["b", "a", "c"]
    assert list(masks.in_order(["c", "missing", "a"])) == ["c", "a", "b"]
    provenance = masks.with_provenance(seed=3).provenance
    assert dict(provenance) == provenance.copy() == {"seed": 3}
    assert provenance | {"a": 1} == {"a": 1} | provenance == {"seed": 3, "a": 1}


def test_weights_are_kept_where_they_are_not_zero() -> None:
    weights = np.array([[0.0, -0.0, 1e-30, -2.0]], np.float32)
    assert BitRows.of_weights(weights).unpack().tolist() == [[False, False, True, True]]
    halves = np.array([[0x0000, 0x8000, 0x0001, 0x3F80]], np.uint16)  # bfloat16
    assert BitRows.of_weights(halves).unpack().tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16"])
def test_nan_weights_are_refused_and_infinite_ones_are_not(dtype) -> None:
    if dtype == "bfloat16":
        bad, good = np.full((2, 2), 0x7FC0, np.uint16), np.full((2, 2), 0x7F80, np.uint16)
    else:
        bad, good = np.array([[1e4, np.nan]], dtype), np.array([[np.inf, -np.inf], [6e4, 6e4]], dtype)
    with pytest.raises(MaskError, match="'w' holds NaN"):
        BitRows.of_weights(bad, "w")
    assert BitRows.of_weights(good, "w").kept() == 4


def test_a_mask_has_a_name_and_values() -> None:
    for name in ("", 1, None):
        with pytest.raises(MaskError, match=f"called by its parameter's name, not {name!r}"):
            MaskSet({name: [[1]]})
    torch = pytest.importorskip("torch")
    with pytest.raises(MaskError, match="meta device holds no values"):
        MaskSet({"fc": torch.ones(2, 2, device="meta")})
