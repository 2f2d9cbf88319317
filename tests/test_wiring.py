"""Wiring: its checks, its JSON, chains and shortcut layers."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re

import numpy as np
import pytest

import naive
import topo
import toys
from topo.errors import WiringError
from topo.graph import build_graph
from topo.graph import paths as flow
from topo.masks import MaskSet
from topo.wiring import Join, Layer, Wiring, chain

pytestmark = pytest.mark.small
EVERY = [toys.complete(3, 4, 2)[1], toys.residual(), toys.branching(), toys.gated(), toys.sliced(), toys.embedded()]


@pytest.mark.parametrize("wiring", EVERY)
def test_json_round_trip(wiring: Wiring, tmp_path) -> None:
    wiring.save(tmp_path / "wiring.json")
    other = Wiring.load(tmp_path / "wiring.json")
    assert other.to_json() == wiring.to_json()
    assert [type(step) for step in other.steps] == [type(step) for step in wiring.steps]
    for one, two in zip(wiring.layers, other.layers):
        assert one.shape == two.shape and (one.reads == two.reads).all() and one.positions == two.positions
        assert all(map(np.array_equal, one.part, two.part)) and one.used == two.used
    assert (other.inputs == wiring.inputs).all() and (other.outputs == wiring.outputs).all()


@pytest.mark.parametrize("wiring", [*EVERY, toys.grouped(), toys.strange()])
def test_what_paths_can_reach_is_what_searches_find(wiring: Wiring) -> None:
    ahead, behind = naive.reachable(wiring, wiring.names)
    found = [set(np.flatnonzero(flags).tolist()) for flags in wiring.reachable]
    assert found == [ahead, behind]


def test_what_no_path_can_meet_is_in_no_bound() -> None:
    wiring = toys.strange()
    masks = MaskSet({name: np.ones(shape, bool) for name, shape in wiring.shapes.items()})
    gap = topo.analyze(masks, wiring, metrics="balance_gap").network["balance_gap"]
    assert gap == pytest.approx(naive.balance_gap(naive.Net(masks, wiring)), abs=1e-12)


def test_columns_outside_a_use_read_nothing() -> None:
    layer = Layer("a", (2, 6), np.arange(6), 6, columns=[0, 1, 2])
    assert layer.reads.tolist() == [0, 1, 2, -1, -1, -1] and layer.used == 6
    steps = (Layer("z", (3, 3), np.arange(3), 3), layer, Layer("b", (2, 2), np.arange(6, 8), 8))
    masks = MaskSet({step.name: np.ones(step.shape) for step in steps})
    found = topo.analyze(masks, Wiring(np.arange(3), steps, np.arange(8, 10)), metrics="nodes,balance_gap").network
    assert dict(found) == {"nodes": 3 + 3 + 2 + 2, "balance_gap": pytest.approx(0, abs=1e-12)}


def test_flatten_is_short_in_json() -> None:
    masks = MaskSet({"conv": np.ones((512, 3, 1, 1)), "fc": np.ones((10, 512 * 49))})
    text = chain(masks).to_json()
    assert "[3,512,49]" in text and len(text) < 1000


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "topo-wiring/1"}', '{"schema": "other"}', "null", "[" * 100_000, "9" * 5_000],
)
def test_text_that_is_no_wiring_is_refused(text: str) -> None:
    with pytest.raises(WiringError):
        Wiring.from_json(text)


FC = {"step": "layer", "name": "fc", "kind": "linear", "shape": [3, 4], "reads": [[0, 4, 1]], "start": 4}


def document(**changed) -> str:
    """One linear layer as JSON, with other entries of the document or of its layer."""
    step = {
        **FC,
        **{key: value for key, value in changed.items() if key in (*FC, "groups", "positions", "rows", "columns")},
    }
    whole = {"schema": "topo-wiring/1", "model": None, "input_shape": None, "notes": []}
    whole |= {"inputs": [[0, 4, 1]], "outputs": [[4, 3, 1]], "steps": [step]}
    return json.dumps({**whole, **{key: value for key, value in changed.items() if key in whole}})


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"inputs": [[0, 10**12, 1]]}, "names a unit over"),
        ({"inputs": [[2**40, 4, 1]]}, "names a unit over"),
        ({"inputs": [[-3, 4, 1]]}, r"\[-3, 4, 1\] is not a run of units"),
        ({"inputs": [[0, 4, 1], [0, 4, 1]]}, "inputs are units, each once"),
        ({"outputs": [[4, 3, 2]]}, "outputs are units, each once"),
        ({"outputs": [["4", 3, 1]]}, "is not a run of units"),
        ({"reads": [[0, 4, 10**10]]}, "asks for lists of 40,000,000,007 units"),
        ({"reads": [[-9, 4, 1]]}, "is not a run of units"),
        ({"reads": [4, 4, 1]}, "is not a run of units"),
        ({"rows": [[0, 2, 10**10]]}, "asks for lists of 20,000,000,011 units"),
        ({"rows": [[0, 2, 2]]}, r"layer 'fc' uses rows \[0, 0, 1, 1\]; they are ascending whole numbers below 3"),
        ({"rows": [[2, 2, 1]]}, r"uses rows \[2, 3\]; they are ascending whole numbers below 3"),
        ({"rows": [0]}, "is not a run of units"),
        ({"shape": [2**40, 4], "columns": [[0, 1, 1]]}, "numbers 1,099,511,627,780 units"),
        ({"start": 10**12}, "numbers 1,000,000,000,003 units"),
        ({"start": -4}, "layer 'fc' makes units from -4 on"),
        ({"start": "4"}, "layer 'fc' makes units from '4' on"),
        ({"shape": [3, 4, 2**40, 2**40]}, "layer 'fc' has shape"),
        ({"shape": [2**31, 4]}, "numbers 2,147,483,652 units"),
        ({"groups": 0}, "0 groups"),
        ({"groups": 0.5}, "0.5 groups"),
        ({"positions": "many"}, "positions 'many'"),
        ({"positions": -5}, "positions -5"),
        ({"positions": math.nan}, "positions nan"),
        ({"name": ["x"]}, "a name is text"),
        ({"model": [1]}, "are text"),
        ({"notes": [{"a": 1}]}, "are text"),
        ({"input_shape": ["a"]}, "has input_shape"),
    ],
)
def test_json_of_a_stranger_is_refused_before_memory_is_taken(changed, message: str) -> None:
    assert Wiring.from_json(document()).names == ("fc",)
    with pytest.raises(WiringError, match=message):
        Wiring.from_json(document(**changed))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Layer("w", (1, 2), [0, -3], 2), "layer 'w' reads something other than units"),
        (lambda: Layer("w", (1, 2), [0, 0.5], 2), "layer 'w' reads something other than units"),
        (lambda: Join("add", ([0], [-3]), 1), "a join of kind 'add' reads something other than units"),
        (lambda: Join("add", ([0], [1]), -2), "a join of kind 'add' makes units from -2 on"),
        (lambda: Layer("w", (2, 3), [0, 1], 2), "layer 'w' takes 3 inputs but reads 2 units"),
        (lambda: Layer("w", (3, 2), [0, 1, 2, 3], 4, groups=2), "makes 3 units in 2 groups"),
        (lambda: Layer("w", (3,), [0], 1), r"layer 'w' has shape \(3,\)"),
        (lambda: Layer("w", (1, 1), [0], 1, kind="pool"), "is of kind 'pool'"),
        (lambda: Join("xor", ([0], [1]), 2), "a join is of kind 'xor'"),
        (lambda: Join("add", ([0], [1, 2]), 3), "two or more of equal length"),
        (lambda: Join("add", ([0],), 1), "two or more of equal length"),
        (lambda: Join("score", ([0, 1, 2], [3, 4, 5]), 6, width=2), "cannot have width 2"),
        (lambda: Wiring([0], (Layer("w", (1, 1), [5], 1),), [1]), "layer 'w' reads a unit that no input"),
        (lambda: Wiring([0], (Layer("w", (2, 1), [0], 0),), [1]), "layer 'w' makes units 0 to 1, some of which exist"),
        (lambda: Wiring([0], (), [3]), "outputs are units that no step makes"),
        (
            lambda: Wiring([0], (Layer("w", (1, 1), [0], 1), Layer("w", (2, 1), [1], 2)), [2, 3]),
            r"'w' is used with masks of shapes \(1, 1\) and \(2, 1\)",
        ),
    ],
)
def test_wirings_that_cannot_be_are_refused(build, message: str) -> None:
    with pytest.raises(WiringError, match=message):
        build()


def test_masks_that_do_not_fit_name_the_first_layer_with_both_shapes() -> None:
    wiring = toys.residual(width=4)
    masks = dict(toys.sparse(wiring, 0.5))
    with pytest.raises(
        WiringError, match=re.escape("mask '0.conv2' has shape (4, 5, 3, 3) but the model's layer has (4, 4, 3, 3)")
    ):
        build_graph(MaskSet({**masks, "fc": np.ones((9, 9)), "0.conv2": np.ones((4, 5, 3, 3))}), wiring)
    with pytest.raises(
        WiringError, match=r"mask 'conv9' \(2, 2\) is not a layer of the model; its layers are: stem, 0.conv1"
    ):
        build_graph(MaskSet({**masks, "conv9": np.ones((2, 2))}), wiring)
    with pytest.raises(WiringError, match="stored input-first"):
        build_graph(MaskSet({"words": np.ones((5, 3))}), toys.embedded())


def test_chain_of_a_plain_stack_with_flatten_and_depthwise() -> None:
    masks = MaskSet(
        {"a": np.ones((4, 3, 3, 3)), "b": np.ones((8, 1, 3, 3)), "c": np.ones((5, 8 * 4)), "d": np.ones((2, 5))}
    )
    wiring = chain(masks)
    assert [layer.groups for layer in wiring.layers] == [1, 4, 1, 1]
    assert wiring.layer("c").reads.tolist() == np.repeat(np.arange(7, 15), 4).tolist()
    assert "plain chain" in wiring.notes[0]


@pytest.mark.parametrize(
    "shapes, message",
    [
        ([(64, 3, 3, 3), (8, 32, 3, 3)], "'l1' takes 32 inputs but the layer before it, 'l0', gives 64"),
        ([(4, 3), (5, 7)], "'l1' takes 7 inputs but the layer before it, 'l0', gives 4"),
        ([(4, 3, 3, 3), (4, 8, 3, 3)], "'l1' takes 8 inputs"),
    ],
)
def test_chain_names_the_two_layers_that_do_not_fit(shapes, message: str) -> None:
    with pytest.raises(WiringError, match=message):
        chain(MaskSet({f"l{k}": np.ones(shape) for k, shape in enumerate(shapes)}))


def test_shortcuts_are_found_by_structure_not_by_name() -> None:
    assert [toys.residual(blocks=3).steps[i].name for i in toys.residual(blocks=3).shortcuts] == ["2.shortcut"]
    assert toys.residual(blocks=3).shortcuts == toys.residual(blocks=3).shortcuts
    two_short_branches = Wiring(
        [0], (Layer("a", (1, 1), [0], 1), Layer("b", (1, 1), [0], 2), Join("add", ([1], [2]), 3)), [3]
    )
    assert not two_short_branches.shortcuts
    assert not toys.gated().shortcuts


def test_a_dense_layer_beyond_memory_is_refused() -> None:
    huge = Layer("huge", (1 << 20, 1 << 20), np.zeros(1 << 20, np.int32), 1)
    wiring = Wiring([0], (huge, Layer("fc", (1, 1), [0], 1 + (1 << 20))), [1 + (1 << 20)])
    with pytest.raises(WiringError, match="up to 68,719,476,736 dense weights are held"):
        build_graph(MaskSet({"fc": [[1]]}), wiring)


def test_the_first_mask_that_differs_is_named() -> None:
    wiring = chain(MaskSet({"a": np.ones((3, 2)), "b": np.ones((4, 3))}))
    with pytest.raises(WiringError, match="mask 'other'"):
        wiring.check(MaskSet({"other": np.ones((3, 2)), "b": np.ones((5, 3))}))
    with pytest.raises(WiringError, match=r"mask 'b' has shape \(5, 3\) but the model's layer has \(4, 3\)"):
        wiring.check(MaskSet({"b": np.ones((5, 3)), "other": np.ones((3, 2))}))


def test_copies_are_made_anew() -> None:
    """Cached parts know arrays by their place in memory; a copy has other arrays."""
    wiring = toys.residual(width=4)
    masks = toys.sparse(wiring, 0.5)
    paths = flow.exact_paths(build_graph(masks, wiring))
    for copied in (pickle.loads(pickle.dumps(wiring)), copy.deepcopy(wiring), copy.copy(wiring)):
        assert not {"groups", "table"} & vars(copied).keys()
        assert copied.to_json() == wiring.to_json() and not copied.inputs.flags.writeable
        assert flow.exact_paths(build_graph(masks, copied)) == paths
