"""compare: overlap and Hamming distance against plain numpy, and what cannot be compared."""

import json
import math

import numpy as np
import pytest

from topo.compare import compare
from topo.errors import MaskError
from topo.masks import MaskSet


def _masks(seed, shapes=None, density=0.3):
    rng = np.random.default_rng(seed)
    shapes = shapes or {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 70)}
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


@pytest.mark.small
def test_equals_the_definition():
    a, b = _masks(0), _masks(1)
    found = compare(a, b)
    for entry in found.layers:
        x, y = a[entry["layer"]], b[entry["layer"]]
        assert entry["shape"] == x.shape
        assert entry["size"] == x.size
        assert (entry["kept_a"], entry["kept_b"]) == (x.sum(), y.sum())
        assert entry["both"] == (x & y).sum()
        assert entry["only_a"] == (x & ~y).sum()
        assert entry["only_b"] == (~x & y).sum()
        assert entry["overlap"] == (x & y).sum() / (x | y).sum()
        assert entry["hamming"] == (x != y).sum()
        assert entry["hamming_share"] == (x != y).mean()
    x, y = (np.concatenate([m[name].ravel() for name in m]) for m in (a, b))
    assert found.total["overlap"] == (x & y).sum() / (x | y).sum()
    assert found.total["hamming"] == (x != y).sum()
    assert not found.notes


@pytest.mark.small
def test_a_mask_and_itself():
    found = compare(_masks(0), _masks(0))
    assert found.total["overlap"] == 1.0
    assert found.total["hamming"] == 0


@pytest.mark.small
def test_two_empty_masks_have_no_overlap_to_speak_of():
    a = MaskSet({"a": np.zeros((2, 3)), "b": np.ones((2, 2))})
    found = compare(a, a)
    assert math.isnan(found.layers[0]["overlap"])
    assert found.layers[0]["hamming"] == 0
    assert found.total["overlap"] == 1.0
    assert [note["layer"] for note in found.notes] == ["a"]
    document = json.loads(found.to_json(a="x", b="y"))
    assert document["schema"] == "topo-compare/1"
    assert document["layers"][0]["overlap"] is None
    assert document["layers"][0]["shape"] == [2, 3]
    assert (document["a"], document["b"]) == ("x", "y")


@pytest.mark.small
def test_layers_of_one_side_only_are_named():
    a = _masks(0, {"x": (2, 3), "y": (4, 4)})
    b = _masks(1, {"y": (4, 4), "z": (2, 2)})
    found = compare(a, b)
    assert [entry["layer"] for entry in found.layers] == ["y"]
    assert [(note["layer"], note["note"][:9]) for note in found.notes] == [("x", "only in A"), ("z", "only in B")]


@pytest.mark.small
def test_what_cannot_be_compared():
    with pytest.raises(MaskError, match=r"'y' has shape \(4, 4\) in A but \(4, 5\) in B"):
        compare(_masks(0, {"y": (4, 4)}), _masks(0, {"y": (4, 5)}))
    with pytest.raises(MaskError, match="share no layer"):
        compare(_masks(0, {"y": (4, 4)}), _masks(0, {"z": (4, 4)}))
