"""check: yes is an empty list, no names the first place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo.check import check, over_n_m
from topo.errors import TopoError
from topo.masks import BitRows, MaskSet
from topo.n_m import parse_n_m
from topo.report import Report, Row


def _masks(seed=0, density=0.2):
    rng = np.random.default_rng(seed)
    shapes = {"layer1.0.conv1.weight": (8, 16, 3, 3), "layer1.0.conv2.weight": (8, 8, 3, 3), "fc.weight": (10, 70)}
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


def _changed(masks, name, *places, to=True):
    arrays = {n: masks[n].copy() for n in masks}
    for place in places:
        arrays[name][place] = to
    return MaskSet(arrays)


@pytest.mark.small
def test_a_mask_contains_itself_and_what_prunes_less():
    masks = _masks()
    assert check(masks, contains=masks) == []
    more_pruned = _changed(masks, "fc.weight", np.s_[3, :], to=False)
    assert check(more_pruned, contains=masks) == []
    assert check(masks, contains=more_pruned) != []


@pytest.mark.small
def test_revived_parameters_are_found_first_place_first():
    before = _changed(_masks(), "layer1.0.conv1.weight", np.s_[0, :4], to=False)
    after = _changed(before, "layer1.0.conv1.weight", (0, 3, 1, 1), (0, 3, 2, 2))
    after = _changed(after, "fc.weight", *[(9, j) for j in range(70)])
    found = check(after, contains=before)
    assert [finding.layer for finding in found] == ["layer1.0.conv1.weight", "fc.weight"]
    assert found[0].index == (0, 3, 1, 1)
    assert found[0].count == 2
    assert found[0].message == ("'layer1.0.conv1.weight' keeps 2 parameters that B prunes, the first at (0, 3, 1, 1)")
    assert found[1].count == int((~before["fc.weight"][9]).sum())
    one = check(_changed(before, "layer1.0.conv1.weight", (0, 0, 0, 1)), contains=before)[0]
    assert one.message == "'layer1.0.conv1.weight' keeps 1 parameter that B prunes at (0, 0, 0, 1)"


@pytest.mark.small
@given(st.integers(0, 10**6))
def test_the_first_revived_parameter_is_numpys(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(2, 5)))
    a, b = (rng.random(shape) < 0.7 for _ in range(2))
    found = check(MaskSet({"w": a}), contains=MaskSet({"w": b}))
    revived = np.argwhere(a & ~b)
    assert bool(found) == bool(len(revived))
    if found:
        assert found[0].index == tuple(revived[0])
        assert found[0].count == len(revived)


@pytest.mark.small
def test_missing_layers_and_other_shapes():
    masks = _masks()
    without = MaskSet({name: masks[name] for name in masks if name != "fc.weight"})
    found = check(without, contains=masks)
    assert "no mask 'fc.weight' (10, 70), where B prunes" in found[0].message
    dense = MaskSet({**without, "fc.weight": np.ones((10, 70))})
    assert check(without, contains=dense) == []
    other = MaskSet({**without, "fc.weight": np.ones((10, 71))})
    assert check(other, contains=masks)[0].message == "'fc.weight' has shape (10, 71) but (10, 70) in B"
    assert check(without, contains=masks, layers="layer1*") == []


@pytest.mark.small
def test_n_m_along_the_inputs_of_a_linear_layer():
    mask = np.zeros((3, 10), bool)
    mask[:, [0, 1, 5, 6, 8, 9]] = True
    assert check(MaskSet({"w": mask}), n_m="2:4") == []
    mask[1, 7] = True
    finding = check(MaskSet({"w": mask}), n_m="2:4")[0]
    assert finding.message == "'w' keeps 3 of 4 in row 1, inputs 4-7; 2:4 allows 2"
    assert finding.index == (1, 4)
    assert check(MaskSet({"w": mask}), n_m="3:4") == []


@pytest.mark.small
def test_n_m_of_a_convolution_is_along_its_channels_at_each_kernel_position():
    mask = np.zeros((2, 8, 3, 3), bool)
    mask[:, :2] = True  # eighteen in a row of the flattened kernel, two of four channels
    assert check(MaskSet({"w": mask}), n_m="2:4") == []
    mask[1, 4:7, 2, 0] = True
    mask[1, 4:8, 2, 1] = True
    finding = check(MaskSet({"w": mask}), n_m="2:4")[0]
    assert finding.message == (
        "'w' keeps 3 of 4 in row 1, inputs 4-7, kernel position (2, 0); 2:4 allows 2; "
        "2 groups of this layer keep more than 2"
    )
    assert finding.index == (1, 4, 2, 0)


@pytest.mark.small
def test_the_last_incomplete_group_obeys_the_same_bound():
    mask = np.zeros((1, 7), bool)
    mask[0, 4:7] = True
    assert "keeps 3 of 3 in row 0, inputs 4-6; 2:4" in check(MaskSet({"w": mask}), n_m="2:4")[0].message
    mask[0, 5] = False
    assert check(MaskSet({"w": mask}), n_m="2:4") == []


@pytest.mark.small
@given(st.integers(0, 10**6))
def test_n_m_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 8, rng.integers(2, 5)))
    m = int(rng.integers(1, 6))
    n = int(rng.integers(1, m + 1))
    mask = rng.random(shape) < 0.6
    flat = mask.reshape(shape[0], shape[1], -1)
    over = [
        (row, start, position)
        for row in range(shape[0])
        for start in range(0, shape[1], m)
        for position in range(flat.shape[2])
        if flat[row, start : start + m, position].sum() > n
    ]
    found = over_n_m("w", BitRows.of_mask(mask), n, m)
    assert bool(found) == bool(over)
    if found:
        row, start, position = over[0]
        assert found.count == len(over)
        assert found.index == (row, start, *np.unravel_index(position, shape[2:]))


@pytest.mark.small
def test_n_m_by_parts_finds_the_same(monkeypatch):
    mask = np.zeros((9, 8), bool)
    mask[7, :3] = True
    whole = over_n_m("w", BitRows.of_mask(mask), 2, 4)
    monkeypatch.setattr("topo.n_m._CHUNK", 16)
    assert over_n_m("w", BitRows.of_mask(mask), 2, 4) == whole
    assert whole.index == (7, 0)


@pytest.mark.small
@pytest.mark.parametrize("text", ["4:2", "0:4", "x", "2", "2:", "2:4:8", "-1:4", "1.5:4", ""])
def test_what_is_no_n_m(text):
    with pytest.raises(TopoError, match="is not an N:M pattern; N:M is two whole numbers"):
        parse_n_m(text)


@pytest.mark.small
def test_max_density_allows_what_a_budget_rounds_to():
    masks = MaskSet({"a": np.arange(270).reshape(10, 27) < 5})  # 5 of 270; 0.02 * 270 = 5.4
    assert check(masks, max_density=0.02) == []
    assert check(_changed(masks, "a", (9, 9)), max_density=0.02)[0].check == "max-density"
    rounded_up = MaskSet({"a": np.arange(280).reshape(10, 28) < 6})  # 0.02 * 280 = 5.6
    assert check(rounded_up, max_density=0.02) == []
    found = check(MaskSet({"a": np.ones((2, 2)), "b": np.eye(4)}), max_density=0.2)
    assert found[0].message == ("density 0.4 is over 0.2 (8 of 20 parameters kept); the densest layer is 'a' with 1")
    assert check(MaskSet({"a": np.ones((2, 2)), "b": np.eye(4)}), max_density=0.25, layers="b") == []


def _report_of(masks, effective, paths):
    rows = [Row("m", "effective_params", name, "channel", number) for name, number in zip(masks, effective)]
    rows.append(Row("m", "effective_paths", None, "channel", paths, "paths"))
    return Report("m", None, None, "channel", masks.shapes, rows)


@pytest.mark.small
def test_layer_collapse():
    masks = MaskSet({"a": np.eye(2), "b": np.zeros((2, 2)), "c": np.ones((2, 2))})
    assert [finding.layer for finding in check(masks, fail_on=["layer-collapse"])] == ["b"]
    found = check(masks, fail_on=["layer-collapse"], report=_report_of(masks, [0, 0, 1], 0))
    assert [(finding.layer, finding.count) for finding in found] == [("b", 0), ("a", 2)]
    assert "keeps 2 parameters, none of which lies on a path" in found[1].message


@pytest.mark.small
def test_no_paths():
    masks = MaskSet({"a": np.ones((2, 2))})
    assert check(masks, fail_on=["no-paths"], report=_report_of(masks, [4], 4)) == []
    assert check(masks, fail_on=["no-paths"], report=_report_of(masks, [0], 0))[0].check == "no-paths"
    with pytest.raises(TopoError, match="'no-paths' cannot be answered"):
        check(masks, fail_on=["no-paths"])


@pytest.mark.small
def test_what_cannot_be_asked():
    with pytest.raises(TopoError, match="no layer matches 'nothing'"):
        check(_masks(), layers="nothing", max_density=1.0)
    with pytest.raises(TopoError, match="no answer to fail on is called 'typo'"):
        check(_masks(), fail_on=["typo"])
