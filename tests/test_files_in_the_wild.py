"""Files as people have them: every reader's layout inside whatever is put around it, and live objects.

The rule: the true masks, or a refusal, never dense, never fewer layers without a word.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import json
import os
import pathlib
import pickle
import re
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import topo
from topo import formats
from topo.cli import main
from topo.errors import FormatError, MaskError, TopoError
from topo.masks import MaskSet
from topo.wiring import Layer, Wiring

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")

SHAPES = {"stem.weight": (4, 3, 3, 3), "body.weight": (6, 4, 3, 3), "head.weight": (5, 6)}
RNG = np.random.default_rng(0)
MASKS = {name: (RNG.random(shape) < 0.4).astype(np.float32) for name, shape in SHAPES.items()}
CHANNELS = {name: (np.arange(shape[0]) % 2).astype(np.float32) for name, shape in SHAPES.items()}
ROWS = {
    name: np.broadcast_to(v.reshape(-1, *[1] * (len(SHAPES[name]) - 1)), SHAPES[name]) for name, v in CHANNELS.items()
}
WEIGHTS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def wiring(shapes=None, **more):
    """Layers that each read units of their own: enough where only names, shapes and order matter."""
    steps, start, shapes = [], 0, shapes or SHAPES
    inputs = np.arange(sum(shape[1] for shape in shapes.values()), dtype=np.int32)
    unit = len(inputs)
    for name, shape in shapes.items():
        kind = "conv" if len(shape) > 2 else "linear"
        steps.append(Layer(name, shape, inputs[start : start + shape[1]], unit, kind, **more.get(name, {})))
        start, unit = start + shape[1], unit + shape[0]
    return Wiring(inputs, tuple(steps), np.arange(unit - 1, unit, dtype=np.int32))


WIRING = wiring()


def tensors(arrays, dtype=None):
    return {name: torch.from_numpy(np.array(array)).to(dtype or torch.float32) for name, array in arrays.items()}


def dense(prefix=""):
    biases = {name.replace("weight", "bias"): np.ones(shape[0], np.float32) for name, shape in SHAPES.items()}
    return {prefix + name: tensor for name, tensor in tensors({**WEIGHTS, **biases}).items()}


def beside(masks, ending="_mask", weight=""):
    state = dense()
    for name in masks:
        state[name + weight] = state.pop(name)
        state[name + ending] = torch.from_numpy(np.array(masks[name]))
    return state


def gem_miner():
    state = dense()
    for name, mask in MASKS.items():
        module = name.removesuffix(".weight")
        state |= {f"{module}.scores": torch.from_numpy(mask) * 0.9, f"{module}.flag": torch.ones(mask.shape)}
    return state


def bitmasks():
    state = {}
    for name, mask in MASKS.items():
        state[f"{name}.shape"] = torch.tensor(mask.shape)
        state[f"{name}.bitmask"] = torch.from_numpy(np.packbits(mask != 0, axis=-1, bitorder="little"))
        state[f"{name}.compressed"] = torch.full((int(mask.sum()),), 0.5)
    return state


# reader -> its layout, as the tree that its author saves, and the masks that it says
LAYOUTS = {
    "torch_prune": lambda: beside(MASKS, weight="_orig"),
    "synflow": lambda: beside(MASKS),
    "shrinkbench": lambda: {"model_state_dict": beside(MASKS)},
    "gem_miner": gem_miner,
    "scores": lambda: dense() | {name.replace("weight", "scores"): torch.rand(shape) for name, shape in SHAPES.items()},
    "mask_buffers": lambda: dense() | {n.replace("weight", "mask"): t.bool() for n, t in tensors(MASKS).items()},
    "openlth": lambda: tensors(MASKS, torch.int32),
    "mask_dict": lambda: tensors(MASKS),
    "npz": lambda: {name: mask.astype(np.uint8) for name, mask in MASKS.items()},
    "channel_masks": lambda: tensors(CHANNELS),
    "rigl": lambda: {"backward_masks": [t.bool() for t in tensors(MASKS).values()], "S": [0.9]},
    "torch_ao": lambda: {"state": {name: {"mask": t, "sparsity": 0.5} for name, t in tensors(MASKS).items()}},
    "bitmask": bitmasks,
    "flax": lambda: {"masks": {name.split(".")[0]: {"weight": t} for name, t in tensors(MASKS).items()}},
    "zeros": lambda: tensors({name: WEIGHTS[name] * MASKS[name] for name in MASKS}),
    "ordered_list": lambda: list(tensors(MASKS).values()),
}
MORE = {
    "NNI": lambda: {n.split(".")[0]: {"weight": t, "bias": None} for n, t in tensors(MASKS).items()},
    "module names": lambda: {n.split(".")[0]: t for n, t in tensors(MASKS).items()},
    "pairs": lambda: list(tensors(MASKS).items()),
    "numbers": lambda: dict(enumerate(tensors(MASKS).values())),
    "mask_weight": lambda: dense() | {n.replace("weight", "mask_weight"): t for n, t in tensors(MASKS).items()},
    "weight_m": lambda: beside(MASKS, "_m"),
    "NNCF": lambda: dense()
    | {n.replace("weight", "pre_ops.0.op._binary_mask"): t.bool() for n, t in tensors(MASKS).items()},
    "parametrizations": lambda: {n.replace("weight", "parametrizations.weight.original"): torch.rand(t.shape)
                                 for n, t in tensors(MASKS).items()}
    | {n.replace("weight", "parametrizations.weight.0.mask"): t.bool() for n, t in tensors(MASKS).items()},
    "weight norm": lambda: {n.replace("weight", "weight_v"): t * 2 for n, t in tensors(MASKS).items()}
    | {n.replace("weight", "weight_g"): torch.ones(t.shape[0], *[1] * (t.ndim - 1))
       for n, t in tensors(MASKS).items()},
}  # fmt: skip
TRUTH = {"channel_masks": ROWS}


def test_every_reader_has_a_layout_here():
    # keras: HDF5 alone, which nobody wraps in a checkpoint; tests/test_readers.py has its layouts
    # factorised: its masks are of what basis and coefficients make; tests/test_decompose.py has its layouts
    assert set(LAYOUTS) | {"topo", "keras", "factorised"} >= set(formats.formats), (
        "write the new reader's layout into LAYOUTS"
    )


def plain(name):
    return name.removesuffix(".weight").removesuffix(".kernel")


def judged(source, truth, model=None, **more):
    """None for a refusal, else the masks, which are the true ones or named among what was left out."""
    try:
        found = topo.read_masks(source, model, **more)
    except TopoError as error:
        assert len(str(error)) <= 400 and "\n" not in str(error), str(error)
        return None
    ends = {plain(name): name for name in found}
    missing = [plain(name) for name in found.provenance["coverage"]["names"]]
    for name, mask in truth.items():
        end = plain(name)
        match = next((ends[e] for e in ends if e == end or e.endswith(f".{end}")), None)
        if match is None:
            assert any(e == end or e.endswith(f".{end}") for e in missing), f"'{name}' vanished: {found!r}"
        else:
            np.testing.assert_array_equal(found[match], mask != 0, err_msg=name)
    assert found.density < 1
    return found


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.", "_forward_module.",
            "net.", "model.", "student.", "base_model.model."]  # fmt: skip
names = st.sampled_from(["a", "run", "checkpoint", "result", "best"])


@st.composite
def wrapped(draw):
    layout = draw(st.sampled_from([*LAYOUTS, *MORE]))
    tree = {**LAYOUTS, **MORE}[layout]()
    prefix = draw(st.sampled_from(PREFIXES))
    if prefix and isinstance(tree, dict) and all(isinstance(v, torch.Tensor) for v in tree.values()):
        if all(isinstance(key, str) for key in tree):
            tree = {prefix + name: value for name, value in tree.items()}
    how = draw(st.sampled_from(["alone", "beside dense", "list", "two dicts"]))
    if how == "beside dense":
        key = draw(st.sampled_from(["masks", "mask", "pruner", "compression", "pruning_masks", "keep_masks"]))
        tree = {draw(st.sampled_from(["model", "state_dict", "net", "weights"])): dense(prefix), key: tree}
    elif how == "list":
        tree = [3, tree]
    elif how == "two dicts":
        tree = {draw(names): {"x": {draw(st.sampled_from(["masks", "pruner", "y"])): tree}}}
    if draw(st.booleans()) and isinstance(tree, dict) and not any(isinstance(k, int) for k in tree):
        tree = {**tree, "epoch": 3} if how != "alone" else tree
        tree = tree if how == "alone" else {**tree, "args": argparse.Namespace(lr=0.1)}
    if draw(st.booleans()) and how in ("beside dense", "two dicts"):
        parameters = [torch.nn.Parameter(t) for t in dense().values()]
        optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
        sum(p.sum() * 0 for p in parameters).backward()
        optimizer.step()
        tree["optimizer"] = optimizer.state_dict()
    return layout, tree


@given(wrapped(), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@example(("mask_dict", {"model": dense(), "masks": LAYOUTS["mask_dict"]()}), False)
@example(("ordered_list", {"net": dense(), "mask": LAYOUTS["ordered_list"]()}), False)
def test_whatever_is_put_around_a_layout(case, with_model):
    layout, tree = case
    judged(tree, TRUTH.get(layout, MASKS), WIRING if with_model else None)


@pytest.mark.parametrize("layout", [*LAYOUTS, *MORE])
@pytest.mark.parametrize("key", ["masks", "pruner"])
def test_masks_beside_dense_weights_are_read_with_the_model(layout, key, tmp_path):
    """What has to be read, not refused, from a file."""
    tree = {"state_dict": dense(), key: {**LAYOUTS, **MORE}[layout](), "epoch": 1}
    torch.save(tree, tmp_path / "c.pt")
    more = {"topk": 0.5} if layout == "scores" else {}
    truth = {} if layout == "scores" else TRUTH.get(layout, MASKS)
    found = judged(tmp_path / "c.pt", truth, WIRING, **more)
    assert found is not None and list(found) == list(SHAPES)


# -- the one place that is meant


def test_different_masks_need_a_key(tmp_path):
    other = {name: 1 - mask for name, mask in MASKS.items()}
    torch.save({0: tensors(MASKS), 1: tensors(other)}, tmp_path / "levels.pt")
    with pytest.raises(FormatError, match=r"different masks in 2 places: '0', '1'; --key says which"):
        topo.read_masks(tmp_path / "levels.pt")
    assert topo.read_masks(tmp_path / "levels.pt", key="1") == MaskSet(other)
    with pytest.raises(FormatError, match=r"no key 'x'; tensors are under: '0', '1'"):
        topo.read_masks(tmp_path / "levels.pt", key="x")
    for layers in ({"0": {"W": MASKS["head.weight"]}, "1": {"W": MASKS["head.weight"]}}, [tensors(MASKS)] * 2):
        with pytest.raises(FormatError, match=r"it holds masks in 2 places: '0', '1'; --key says which"):
            topo.read_masks(layers)  # two layers, or one twice
    same = {"state_dict": beside(MASKS), "masks": tensors(MASKS)}
    assert topo.read_masks(same) == MaskSet(MASKS)
    two = {"generator": LAYOUTS["zeros"](), "discriminator": dense()}
    notes = topo.read_masks(two).provenance["notes"]
    assert any("read from 'generator'; also in the file: 'discriminator'" in note for note in notes)


def test_an_average_stands_behind_the_weights_and_is_told():
    other = tensors({name: WEIGHTS[name] * (1 - MASKS[name]) for name in MASKS})
    both = {"model": LAYOUTS["zeros"](), "model_ema": other}
    found = topo.read_masks(both)
    assert found == MaskSet(MASKS)
    assert any("those of 'model_ema' differ" in note for note in found.provenance["notes"])
    assert topo.read_masks(both, key="model_ema") == MaskSet({n: 1 - m for n, m in MASKS.items()})
    sparse_average = topo.read_masks({"model": dense(), "ema": LAYOUTS["zeros"]()})
    assert sparse_average == MaskSet(MASKS)
    assert any("read from 'ema'; also in the file: 'model'" in note for note in sparse_average.provenance["notes"])


def test_masks_that_disagree_with_weights_are_told():
    notes = topo.read_masks({"model": dense(), "masks": tensors(MASKS)}).provenance["notes"]
    assert "masks taken from 'masks'; the weights under 'model' differ: none of them is zero" in notes
    agree = topo.read_masks({"model": LAYOUTS["zeros"](), "masks": tensors(MASKS)}).provenance["notes"]
    assert not any("differ" in note for note in agree)
    ones = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    state = LAYOUTS["zeros"]() | {f"{name}_mask": t for name, t in tensors(ones).items()}
    notes = topo.read_masks(state).provenance["notes"]
    assert any("the weights hold zeros that the masks keep, in 3 layers" in note for note in notes)


def test_masks_of_some_layers_beside_the_weights_of_all():
    size = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    some = {"body.weight": tensors(MASKS)["body.weight"], "head.weight": None}  # distiller's masks_dict
    for tree, prefix in (
        ({"masks": some}, ""),
        ({"compression_sched": {"masks_dict": some}}, ""),
        ({"m": some}, "net."),
    ):
        covered = topo.read_masks({"state_dict": dense(prefix), **tree}).provenance["coverage"]
        assert covered["names"] == [f"{prefix}stem.weight", f"{prefix}head.weight"]
        assert covered["left_out"] == size["stem.weight"] + size["head.weight"]


def test_zeros_and_ones_that_are_no_masks_of_the_network():
    """Labels, batches, graphs, gradients and moments beside weights."""
    odd = {"labels": torch.eye(10), "batch": {"x": torch.eye(7)}, "grads": LAYOUTS["zeros"](),
           "adam": {"state": {0: {"exp_avg": torch.eye(5), "exp_avg_sq": torch.eye(5)}}}}  # fmt: skip
    for name, value in odd.items():
        assert topo.read_masks({"model": LAYOUTS["zeros"](), name: value}) == MaskSet(MASKS), name
        with pytest.raises(FormatError, match="is zero"):
            topo.read_masks({"model": dense(), name: value})


# -- inference needs evidence


def test_dense_weights_are_no_masks():
    with pytest.raises(FormatError, match=r"no weight of its 3 layers is zero.*--format zeros reads it as dense"):
        topo.read_masks(dense())
    assert topo.read_masks(dense(), format="zeros").density == 1
    with pytest.raises(FormatError, match="only -1 and 1"):
        topo.read_masks({name: 2 * t - 1 for name, t in tensors(MASKS).items()})
    signs = {"model": LAYOUTS["zeros"](), "masks": {name: 2 * t - 1 for name, t in tensors(MASKS).items()}}
    with pytest.raises(FormatError, match="'masks' holds -1 and 1, so no masks"):
        topo.read_masks(signs)


def test_scores_need_a_rule(tmp_path):
    scores = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    state = dense() | {name.replace("weight", "scores"): torch.from_numpy(s) for name, s in scores.items()}
    torch.save({"state_dict": state}, tmp_path / "s.pth")
    with pytest.raises(FormatError, match=r"-O topk=0.5 .*-O threshold=0"):
        topo.read_masks(tmp_path / "s.pth")
    kept = topo.read_masks(tmp_path / "s.pth", topk=0.3)
    for name, score in scores.items():  # GetSubnet of the released code
        order = np.abs(score).reshape(-1).argsort(kind="stable")
        mask = np.ones(score.size)
        mask[order[: int(0.7 * score.size)]] = 0
        np.testing.assert_array_equal(kept[name], mask.reshape(score.shape) != 0)
    above = topo.read_masks(tmp_path / "s.pth", threshold=0)
    assert above == MaskSet({name: score > 0 for name, score in scores.items()})
    signed = dense() | {name.replace("weight", "mask_scores"): torch.from_numpy(s) for name, s in scores.items()}
    half = topo.read_masks(signed, topk=0.5)["head.weight"]
    assert half.sum() == 15 and scores["head.weight"][half].min() >= scores["head.weight"][~half].max()
    for wrong in ({"topk": 2}, {"topk": 0.5, "threshold": 0}, {"threshold": float("nan")}):
        with pytest.raises(TopoError, match=r"topk|threshold"):
            topo.read_masks(tmp_path / "s.pth", **wrong)
    with pytest.raises(FormatError, match="makes masks of scores"):
        topo.read_masks(tensors(MASKS), topk=0.5)


def test_what_is_no_network_is_refused_with_the_way_out():
    adapter = {f"base_model.model.q.lora_{side}.weight": torch.zeros(4, 4) for side in "AB"}
    with pytest.raises(FormatError, match="LoRA adapter alone"):
        topo.read_masks(adapter)
    packed = {"l.qweight": torch.zeros(8, 2, dtype=torch.int32), "l.scales": torch.ones(1, 16)}
    with pytest.raises(FormatError, match="packed integers"):
        topo.read_masks(packed)
    hidden = {"a.parametrizations.weight.original": torch.rand(4, 4) + 1, "b.weight": torch.eye(4)}
    with pytest.raises(FormatError, match=r"save sparsifier.state_dict\(\), or squash_mask"):
        topo.read_masks(hidden)
    for odd in ({}, [], {"epoch": 3}, {"x" * 3000: torch.ones(3)}, [torch.rand(4, 4)], {"a": {"b": ["c"] * 9}}):
        with pytest.raises(FormatError, match=r"topo.MaskSet\(.*topo.write_masks\(") as refusal:
            topo.read_masks(odd)
        assert len(str(refusal.value)) <= 400


def test_a_tree_too_deep_and_one_too_wide():
    deep = inner = {}
    for _ in range(10_000):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(FormatError, match="64 levels"):
        topo.read_masks(deep)
    with pytest.raises(FormatError, match="no masks found"):
        topo.read_masks({f"k{i}": i for i in range(200_000)})
    with pytest.raises(FormatError, match="places"):
        topo.read_masks({f"k{i}": {"w.w": torch.eye(2)} for i in range(501)})


# -- nothing is left out without a word


def test_what_has_no_mask_is_counted_and_named(tmp_path, capsys):
    state = beside({"body.weight": MASKS["body.weight"]}, weight="_orig")
    torch.save(state, tmp_path / "part.pt")
    found = topo.read_masks(tmp_path / "part.pt")
    size = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    left = size["stem.weight"] + size["head.weight"]
    assert found.provenance["coverage"] == {
        "read": size["body.weight"], "left_out": left, "names": ["stem.weight", "head.weight"]
    }  # fmt: skip
    line = "note: 2 weights without a mask left out: 'stem.weight', 'head.weight'"
    part = str(tmp_path / "part.pt")
    assert main(["analyze", part, "--json", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr().out
    assert said.index(line) < said.index("network") and said.count("weights without a mask") == 1
    report = json.loads((tmp_path / "r.json").read_text())["reports"][0]
    assert report["coverage"]["names"] == ["stem.weight", "head.weight"]
    assert main(["compare", part, part, "--json", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr().out
    assert said.index("A: 2 weights without a mask left out") < said.index("layer")
    assert json.loads((tmp_path / "c.json").read_text())["coverage"][1]["left_out"] == left
    assert main(["convert", part, str(tmp_path / "o.safetensors")]) == 0
    assert capsys.readouterr().out.startswith(line)
    again = topo.read_masks(tmp_path / "o.safetensors").provenance["coverage"]
    assert again["left_out"] == left, "a conversion does not make a part the whole"


def test_check_never_says_yes_over_a_part(tmp_path, capsys):
    part, whole = str(tmp_path / "part.pt"), str(tmp_path / "whole.pt")
    torch.save(beside({"body.weight": MASKS["body.weight"]}, weight="_orig"), part)
    torch.save(tensors(MASKS), whole)
    assert main(["check", part, "--max-density", "0.9"]) == 1
    assert "no yes over a part" in capsys.readouterr().err
    assert main(["check", part, "--max-density", "0.1"]) == 3
    for meant in (["--partial"], ["--layers", "body*"]):
        assert main(["check", part, "--max-density", "0.9", *meant]) == 0
    assert main(["check", whole, "--max-density", "0.9"]) == 0
    assert main(["check", whole, "--contains", part]) == 1
    assert main(["check", whole, "--contains", part, "--partial"]) == 0
    capsys.readouterr()
    assert main(["check", whole, "--max-density", "0.9", "--layers", "head*"]) == 0
    kept = int(MASKS["head.weight"].sum())
    assert f"(1 layer, {kept} of 30 parameters kept)" in capsys.readouterr().out


def test_weights_under_other_names_are_read():
    rnn = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    with torch.no_grad():
        for parameter in rnn.parameters():
            if parameter.ndim == 2:
                parameter[0] = 0
    found = topo.read_masks({f"rnn.{name}": tensor for name, tensor in rnn.state_dict().items()})
    assert len(found) == 8 and not any(mask[0].any() for mask in found.values())
    bare = topo.read_masks({"W1": torch.eye(3) * 2, "pos_embed": torch.zeros(1, 3, 4), "fc.weight": torch.eye(3)})
    assert set(bare) == {"W1", "fc.weight"}
    assert bare.provenance["coverage"]["names"] == ["pos_embed"]
    experts = {"mlp.experts.gate_up_proj": torch.eye(4).repeat(2, 1, 1), "q.weight": torch.eye(4)}
    assert topo.read_masks(experts).shapes["mlp.experts.gate_up_proj"] == (2, 4, 4)


def test_quantised_weights_are_told():
    integers = torch.round(torch.from_numpy(RNG.normal(size=(32, 64))) * 2).clamp(-8, 7)
    notes = topo.read_masks({"fc.weight": integers.float() * 0.013}).provenance["notes"]
    assert any("quantisation makes such zeros" in note for note in notes)
    pruned = torch.randn(32, 64) * (torch.rand(32, 64) < 0.8)
    assert not any("quantis" in note for note in topo.read_masks({"fc.weight": pruned}).provenance["notes"])
    eight = (integers * 10).to(torch.int8)
    found = topo.read_masks({"fc.weight": eight, "fc.weight_scale": torch.ones(32)})
    np.testing.assert_array_equal(found["fc.weight"], eight.numpy() != 0)


def test_a_stored_zero_of_a_bitmask_is_not_kept():
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
    stored = torch.tensor([[0.5, 0.0], [0.25, -0.0]])
    state = {
        "a.shape": torch.tensor([[2], [4]]),
        "a.bitmask": torch.from_numpy(np.packbits(mask, axis=-1, bitorder="little")),
        "a.compressed": stored,
    }
    assert topo.read_masks(state)["a.weight"].astype(int).tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_layers_pruned_for_good_stand_beside_masks():
    state = LAYOUTS["zeros"]()
    state["head.weight_orig"] = state.pop("head.weight")
    state["head.weight_mask"] = tensors(MASKS)["head.weight"]
    found = topo.read_masks(state)
    assert found == MaskSet(MASKS)
    assert any("read by zeros, as pruned for good" in note for note in found.provenance["notes"])


# -- names


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_go_by_the_model_s_names(prefix, tmp_path, capsys):
    state = {prefix + name: tensor for name, tensor in LAYOUTS["zeros"]().items()}
    assert topo.read_masks(state, WIRING) == MaskSet(MASKS)
    torch.save(state, tmp_path / "a.pt")
    torch.save({name.removesuffix(".weight"): t for name, t in tensors(MASKS).items()}, tmp_path / "b.pt")
    assert topo.compare.compare(topo.read_masks(state), MaskSet(MASKS)).total["hamming"] == 0
    for pair in ("ab", "ba"):
        first, second = (str(tmp_path / f"{name}.pt") for name in pair)
        assert main(["check", first, "--contains", second]) == 0, capsys.readouterr()
        assert main(["compare", first, second]) == 0


def test_two_prefixes_that_fit_alike_are_refused():
    both = {f"{side}.{name}": t for side in ("student", "teacher") for name, t in LAYOUTS["zeros"]().items()}
    with pytest.raises(FormatError, match="several prefixes: 'student', 'teacher'; --key takes one"):
        topo.read_masks(both, WIRING)
    assert topo.read_masks(both, WIRING, key="teacher") == MaskSet(MASKS)


def test_the_names_of_the_file_decide_not_those_of_its_masks():
    state = {
        "model.a.weight_orig": torch.rand(4, 4),
        "model.a.weight_mask": torch.eye(4),
        "lm_head.weight": torch.rand(2, 4),
    }
    plain_file = {"model.a.weight": torch.eye(4), "lm_head.weight": torch.rand(2, 4)}
    assert list(topo.read_masks(state)) == ["model.a.weight"]
    assert "model.a.weight" in topo.read_masks(plain_file)


def test_what_cannot_be_compared_is_no_no(tmp_path, capsys):
    torch.save(tensors(MASKS), tmp_path / "a.pt")
    torch.save({"x.weight": torch.eye(7)}, tmp_path / "b.pt")
    torch.save({**tensors(MASKS), "head.weight": torch.eye(5)}, tmp_path / "c.pt")
    for other in "bc":
        assert main(["check", str(tmp_path / "a.pt"), "--contains", str(tmp_path / f"{other}.pt")]) == 1
        assert "cannot be compared" in capsys.readouterr().err
        assert main(["compare", str(tmp_path / "a.pt"), str(tmp_path / f"{other}.pt")]) == 1


def test_experts_under_both_names():
    rng = np.random.default_rng(1)
    gates, ups, downs = ((rng.random((2, *shape)) < 0.5).astype(np.float32) for shape in ((3, 4), (3, 4), (4, 3)))
    head = "model.layers.0.block_sparse_moe.experts."
    apart = {}
    for e in range(2):
        apart |= {f"{head}{e}.w1.weight": gates[e], f"{head}{e}.w3.weight": ups[e], f"{head}{e}.w2.weight": downs[e]}
    fused = {
        "layers.0.mlp.experts.gate_up_proj": np.concatenate([gates, ups], axis=1),
        "layers.0.mlp.experts.down_proj": downs,
    }
    flat = {name: mask.reshape(-1, mask.shape[2]) for name, mask in fused.items()}
    traced = wiring({name: mask.shape for name, mask in flat.items()})
    for kind in (tensors, lambda arrays: tensors({n: a * 2.5 for n, a in arrays.items()})):
        assert topo.read_masks(kind(apart), traced) == MaskSet(flat)
        assert topo.read_masks(kind(fused), wiring({n: m.shape for n, m in apart.items()})) == MaskSet(apart)
    assert topo.compare.compare(MaskSet(fused), MaskSet(apart)).total["hamming"] == 0
    partial = {name: mask for name, mask in apart.items() if "1.w3" not in name}
    with pytest.raises(TopoError, match="is not a layer of the model"):
        topo.read_masks(tensors(partial), traced)


# -- live objects


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 6, 3)
        self.head = torch.nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).relu().mean((2, 3)))


def pruned_by_torch(model):
    for name, mask in tensors(MASKS).items():
        torch.nn.utils.prune.custom_from_mask(model.get_submodule(plain(name)), "weight", mask)
    return model


def pruned_by_topo(model):
    return topo.apply_masks(model, MaskSet(MASKS))


def pruned_to_zeros(model):
    return topo.strip_masks(topo.apply_masks(model, MaskSet(MASKS)))


@pytest.mark.parametrize("prune", [pruned_by_torch, pruned_by_topo, pruned_to_zeros])
def test_masks_on_a_module(prune, tmp_path):
    model = prune(Net())
    assert topo.read_masks(model) == MaskSet(MASKS)
    assert topo.read_masks(model.state_dict()) == MaskSet(MASKS)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert topo.read_masks(tmp_path / "m.pt") == MaskSet(MASKS)
    report = topo.analyze(model, input_shape=(3, 8, 8))
    expected = topo.analyze(MaskSet(MASKS), topo.trace(Net(), (3, 8, 8)))
    assert report.network["effective_paths"] == expected.network["effective_paths"]
    assert report.coverage["left_out"] == 0
    untraced = topo.analyze(copy.deepcopy(model) if prune is pruned_to_zeros else model)
    assert any("not traced" in note["note"] for note in untraced.notes)


@pytest.mark.filterwarnings("ignore")
def test_a_sparsifier_and_its_module():
    from torch.ao.pruning import WeightNormSparsifier

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight"}])
    sparsifier.step()
    masks = MaskSet({f"{i}.weight": model[i].parametrizations.weight[0].mask for i in (0, 1)})
    assert masks.density < 1
    assert topo.read_masks(sparsifier) == topo.read_masks(sparsifier.state_dict()) == topo.read_masks(model) == masks
    with pytest.raises(FormatError, match="squash_mask"):
        topo.read_masks(model.state_dict())
    sparsifier.squash_mask()
    assert topo.read_masks(model) == masks


@pytest.mark.filterwarnings("ignore")
def test_recurrent_layers_of_a_module():
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = torch.nn.GRU(3, 4), torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    model = Tagger()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        torch.nn.utils.prune.random_unstructured(model.rnn, name, 0.5)
    torch.nn.utils.prune.random_unstructured(model.out, "weight", 0.5)
    found = topo.read_masks(model)
    assert list(found) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"]
    assert set(topo.analyze(model, input_shape=(5, 3)).shapes) == set(found)


def test_what_is_no_source():
    for odd in (3, None, object()):
        with pytest.raises(FormatError, match="masks are read from a file, a module, a state dict or a sparsifier"):
            topo.read_masks(odd)
    with pytest.raises(FormatError, match="meta device"):
        topo.read_masks(torch.nn.Linear(3, 3, device="meta"))
    with pytest.raises(MaskError, match="holds 2"):
        topo.read_masks({"a.weight_mask": torch.full((2, 2), 2)})


@pytest.mark.parametrize("command", ["analyze", "compare", "check", "convert"])
def test_every_command_takes_a_key_and_a_rule(command, tmp_path, capsys):
    scores = {name.replace("weight", "scores"): torch.randn(shape) for name, shape in SHAPES.items()}
    torch.save({"first": dense() | scores, "second": dense() | scores}, tmp_path / "s.pt")
    path = str(tmp_path / "s.pt")
    more = {"compare": [path], "check": ["--max-density", "0.6"], "convert": [str(tmp_path / "o.npz")]}.get(command, [])
    options = ["--key", "second", "-O", "topk=0.5"]
    assert main([command, path, *more, *options]) == 0, capsys.readouterr().err
    assert main([command, path, *more, "-O", "topk=half"]) == 2
    assert main([command, path, *more, "--key", "third"]) == 1
    assert "no key 'third'" in capsys.readouterr().err


def _dense_and_mask() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(0)
    weights = {f"{k}.weight": torch.randn(4, 6, generator=draws) for k in range(2)}
    return weights, {name: (torch.rand(4, 6, generator=draws) < 0.4).float() for name in weights}


def test_a_tree_of_what_was_pruned_is_not_read_as_what_was_kept(tmp_path):
    weights, masks = _dense_and_mask()
    for key in ("pruned", "removed", "is_pruned", "zeroed_weights", "Dropped"):
        torch.save({"state_dict": weights, key: {n: 1 - m for n, m in masks.items()}}, tmp_path / "a.pt")
        with pytest.raises(FormatError, match=f"under '{key}' 1 may stand for what was pruned; --key {key}"):
            topo.read_masks(tmp_path / "a.pt")
        assert topo.read_masks(tmp_path / "a.pt", key=key).kept == sum(int((1 - m).sum()) for m in masks.values())


def test_a_tensor_of_0_and_1_beside_a_weight_is_its_mask_under_any_name(tmp_path):
    weights, masks = _dense_and_mask()
    for last in ("gate", "z", "alive", "score_hard"):
        torch.save({**weights, **{n.replace("weight", last): m for n, m in masks.items()}}, tmp_path / "a.pt")
        read = topo.read_masks(tmp_path / "a.pt")
        assert {n: read[n].tolist() for n in read} == {n: m.bool().tolist() for n, m in masks.items()}
        assert read.provenance["coverage"]["left_out"] == 0
        assert any(f"taken for masks {BY}: '0.{last}' for '0.weight'" in n for n in read.provenance["notes"])


BY = "by their names, shapes and values of 0 and 1"
# What a mask of `stem.weight` is called beside it, and what stands in its place.
CALLED = {
    "mask_stem.weight": "mask_{name}", "mask_stem": "mask_{module}", "mask_stem_weight": "mask_{flat}",
    "stem_mask": "{module}_mask", "masks.stem.weight": "masks.{name}", "mask.stem": "mask.{module}",
    "pruner.masks.stem.weight": "pruner.masks.{name}", "keep.stem.weight": "keep.{name}", "stem.mask.mask":
    "{module}.mask.mask", "stem.mask_layer.mask": "{module}.mask_layer.mask", "masks/stem": "masks/{module}",
    "stem.weight_quantizer.mask": "{module}.weight_quantizer.mask", "stem.gate": "{module}.gate",
    "nncf": "nncf_module.{module}.pre_ops.0.op._binary_mask", "number": "masks.{number}", "Mask": "{module}.Mask",
    "stem.keep_mask": "{module}.keep_mask", "stem.w_mask": "{module}.w_mask", "stem.masks": "{module}.masks",
}  # fmt: skip


def called(style, masks):
    names = {name: dict(name=name, module=name.removesuffix(".weight"), flat=name.replace(".", "_"), number=number)
             for number, name in enumerate(MASKS)}  # fmt: skip
    return {CALLED[style].format(**names[name]): mask for name, mask in masks.items()}


@pytest.mark.parametrize("style", CALLED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int8])
def test_masks_beside_weights_in_one_dict_whatever_they_are_called(style, dtype):
    """Never dense: the masks, or those of them that are there and the rest told."""
    masks = tensors(MASKS, dtype)
    for model in (None, WIRING):
        for state in (dense() | called(style, masks), called(style, masks) | dense()):
            found = judged(state, MASKS, model)
            assert found is not None and found == MaskSet(MASKS)
        assert judged(dense() | called(style, {"body.weight": masks["body.weight"]}), MASKS, model) or style == "number"
    ones = called(style, tensors({name: np.ones(shape) for name, shape in SHAPES.items()}, dtype))
    with pytest.raises(TopoError, match="is zero") if style in ("stem.gate", "keep.stem.weight") else nullcontext():
        assert topo.read_masks(dense() | ones).density == 1  # called masks, and full


def test_a_mask_that_is_not_known_to_be_whose_is_no_reason_to_read_the_weights():
    square = {f"{name}.weight": torch.rand(4, 4) + 1 for name in "ab"}
    square["b.weight"][0] = 0
    with pytest.raises(FormatError, match=r"'x_mask' holds 0 and 1 in the shape of 'b.weight', .*whose mask it is"):
        topo.read_masks(square | {"x_mask": torch.eye(4)})
    for odd in ("attn_mask", "x.causal_mask", "token_mask"):
        assert topo.read_masks(square | {odd: torch.eye(4).bool()}).kept == 28, odd
    with pytest.raises(FormatError, match=r"in 'a.pruned' 1 may stand for what was pruned; --format mask_buffers"):
        topo.read_masks(square | {"a.pruned": torch.eye(4)})
    assert topo.read_masks(square | {"a.gone": torch.zeros(4, 4)}).kept == 28  # of 0 alone: no mask
    blocks = {"layer.conv.weight": torch.zeros(4, 4), "conv.weight": torch.rand(4, 4)}
    assert topo.read_masks(blocks).kept == 16  # a layer pruned away is no mask of the one with its last words


def test_momenta_of_zero_are_no_masks():
    for key in ("momentum", "velocity", "history", "delta"):
        tree = {"state_dict": LAYOUTS["zeros"](), key: tensors({n: np.zeros(s) for n, s in SHAPES.items()})}
        assert topo.read_masks(tree) == MaskSet(MASKS), key
        with pytest.raises(FormatError, match="is zero"):
            topo.read_masks({**tree, "state_dict": dense()})


@pytest.mark.parametrize("model", [None, WIRING], ids=["alone", "model"])
def test_masks_under_the_names_of_a_module_dict_and_by_number(model):
    for rename in ("stem_weight", "stem-weight", "stem/weight", "masks.stem_weight"):
        styled = {rename.replace("stem", name.removesuffix(".weight")): t for name, t in tensors(MASKS).items()}
        found = judged({"state_dict": dense(), "pruner": styled}, MASKS, model)
        assert found == MaskSet(MASKS) and not found.provenance["coverage"]["left_out"], rename
    numbers = {str(number): t for number, t in enumerate(tensors(MASKS).values())}
    found = judged({"state_dict": dense(), "masks": numbers}, MASKS, model)
    assert found == MaskSet(MASKS) and not found.provenance["coverage"]["left_out"]
    with pytest.raises(FormatError, match=r"mask 0 of the list has shape \(6, 4, 3, 3\) but"):
        topo.read_masks({"state_dict": dense(), "masks": dict(zip("012", list(tensors(MASKS).values())[1:]))}, model)
    modules = {f"{place}.weight": torch.rand(4, 4) for place in (0, 2, 4)}
    masks = {str(place): (torch.rand(4, 4) < 0.5).float() for place in (4, 2, 0)}
    found = topo.read_masks({"state_dict": modules, "masks": masks})
    assert all((found[f"{place}.weight"] == masks[str(place)].numpy()).all() for place in (0, 2, 4))


@pytest.mark.parametrize("model", [None, WIRING], ids=["alone", "model"])
def test_masks_smaller_than_their_weights_are_spread_over_them(model):
    flat = {name: mask.reshape(len(mask), -1) for name, mask in MASKS.items()}
    found = judged({"state_dict": dense(), "masks": tensors(flat)}, MASKS, model)
    assert found == MaskSet(MASKS)
    kernels = {name: mask.reshape(*mask.shape[:2], -1)[..., 0] for name, mask in MASKS.items()}
    truth = {name: np.broadcast_to(kernels[name].reshape(*mask.shape[:2], *[1] * (mask.ndim - 2)), mask.shape)
             for name, mask in MASKS.items()}  # fmt: skip
    full = {name: kernels[name].reshape(*mask.shape[:2], *[1] * (mask.ndim - 2)) for name, mask in MASKS.items()}
    column = {name: v.reshape(-1, *[1] * (len(SHAPES[name]) - 1)) for name, v in CHANNELS.items()}
    mixed = {**MASKS, "stem.weight": CHANNELS["stem.weight"]}
    for tree, right in ((kernels, truth), (full, truth), (column, ROWS), (mixed, {**MASKS, "stem.weight":
                                                                                  ROWS["stem.weight"]})):  # fmt: skip
        found = judged({"state_dict": dense(), "masks": tensors(tree)}, right, model)
        assert found == MaskSet(right) and not found.provenance["coverage"]["left_out"]
        assert any("smaller than the weight" in note for note in found.provenance["notes"])
    buffers = dense() | {name.replace("weight", "mask"): t for name, t in tensors(CHANNELS).items()}
    assert judged(buffers, ROWS, model) == MaskSet(ROWS)
    if model is None:
        with pytest.raises(FormatError, match="one entry per output channel lack the layers' shapes: give the model"):
            topo.read_masks(tensors(column))
    else:
        assert judged(tensors(column), ROWS, model) == MaskSet(ROWS)


# -- weights in integers


PACKED = {  # a layer of 12 x 64 whose zeros only its library knows
    "GPTQ": {"qweight": torch.ones(8, 12, dtype=torch.int32), "scales": torch.ones(1, 12), "g_idx": torch.arange(64)},
    "GPTQ of 3 bits": {"qweight": torch.ones(6, 12, dtype=torch.int32), "scales": torch.ones(1, 12),
                       "g_idx": torch.arange(64)},
    "AWQ": {"qweight": torch.ones(12, 8, dtype=torch.int32), "scales": torch.ones(1, 64)},
    "compressed-tensors": {"weight_packed": torch.ones(12, 9, dtype=torch.int32),
                           "weight_shape": torch.tensor([12, 64])},
    "bitsandbytes": {"weight": torch.full((384, 1), 7, dtype=torch.uint8), "weight.absmax": torch.ones(12),
                     "weight.quant_state.bitsandbytes__nf4": torch.zeros(20, dtype=torch.uint8)},
    "HQQ": {"W_q": torch.full((6, 64), 7, dtype=torch.uint8), "scale": torch.ones(12, 1)},
    "MXFP4": {"proj_blocks": torch.full((12, 2, 16), 7, dtype=torch.uint8),
              "proj_scales": torch.full((12, 2), 7, dtype=torch.uint8)},
    "QuIP#": {"Qidxs": torch.full((12, 8), 7, dtype=torch.int16), "SU": torch.ones(64), "SV": torch.ones(12)},
    "AQLM": {"codes": torch.full((12, 8, 1), 7, dtype=torch.int8), "codebooks": torch.ones(1, 16, 1, 8)},
    "VPTQ": {"indices": torch.full((1, 12, 8), 7, dtype=torch.int32), "centroids.weight": torch.ones(1, 512)},
    "Marlin 2:4": {"B_24": torch.full((4, 24), 7, dtype=torch.int32), "B_meta": torch.ones(12, 4, dtype=torch.int16)},
    "NVFP4": {"weight": torch.full((12, 32), 7, dtype=torch.uint8),
              "weight_scale": torch.ones(12, 4).to(torch.float8_e4m3fn)},
}  # fmt: skip


@pytest.mark.parametrize("library", PACKED)
def test_packed_integers_are_refused_alone_and_counted_beside_others(library):
    state = {f"layer.{name}": tensor for name, tensor in PACKED[library].items()}
    with pytest.raises(FormatError, match=r"packed integers.*dequantise"):
        topo.read_masks(state)
    covered = topo.read_masks(state | {"head.weight": torch.eye(4)}).provenance["coverage"]
    assert covered["left_out"] == 12 * 64 and len(covered["names"]) == 1


def test_integers_are_held_to_their_zero_point():
    kept = RNG.random((6, 8)) < 0.5
    values = torch.from_numpy(np.where(kept, RNG.integers(1, 90, (6, 8)), 0))
    for zero in (torch.tensor(9), torch.arange(6), torch.arange(6).reshape(6, 1), torch.arange(12).reshape(6, 2)):
        whole = zero.reshape(1, 1) if zero.ndim == 0 else zero.reshape(6, -1).repeat_interleave(48 // zero.numel(), 1)
        state = {"a.weight": (values + whole).to(torch.int8), "a.weight_scale": torch.ones(6, 1),
                 "a.weight_zero_point": zero.to(torch.int8)}  # fmt: skip
        found = topo.read_masks(state)
        assert list(found) == ["a.weight"] and (found["a.weight"] == kept).all()
    state["a.weight_zero_point"] = torch.ones(5, dtype=torch.int8)
    with pytest.raises(FormatError, match=r"zero points of 'a.weight' have shape \(5,\).*dequantise"):
        topo.read_masks(state)
    quanto = {"a.weight._data": values.to(torch.int8), "a.weight._scale": torch.ones(6, 1)}
    assert list(topo.read_masks(quanto)) == ["a.weight"]


def test_adapters_of_every_kind_are_no_network():
    for names in ("lora_A.weight lora_B.weight", "lora_down.weight lora_up.weight", "hada_w1_a hada_w1_b", "ia3_l",
                  "lokr_w1 lokr_w2", "lora_A.default.weight lora_magnitude_vector"):  # fmt: skip
        for value in (torch.zeros, torch.ones):
            with pytest.raises(FormatError, match="adapter"):
                topo.read_masks({f"base_model.model.layer.{name}": value(4, 4) for name in names.split()})


# --- state dicts, keys


def two_places(tmp_path):
    """One network at two times, under two keys of one file: "model" and "ema"."""
    times = {}
    for seed, key in enumerate(("model", "ema")):
        rng = np.random.default_rng(seed)
        arrays = {name: (rng.random(shape) < 0.5) * (1 + rng.random(shape)) for name, shape in CHAIN.items()}
        times[key] = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    torch.save(times, tmp_path / "run.pt")
    return tmp_path / "run.pt", times


CHAIN = {"0.weight": (4, 6), "2.weight": (2, 4)}


def test_a_state_dict_is_analysed_as_its_model_is():
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    prune = pytest.importorskip("torch.nn.utils.prune")
    for layer in (net[0], net[2]):
        prune.random_unstructured(layer, "weight", 0.5)
    whole = topo.analyze(net, input_shape=(6,))
    for state in (net.state_dict(), {f"module.{name}": value for name, value in net.state_dict().items()}):
        for report in (topo.analyze(state), topo.analyze(state, net, input_shape=(6,))):
            assert report.network == whole.network
            assert report.format == "torch_prune"
    for layer in (net[0], net[2]):
        prune.remove(layer, "weight")
    zeros = topo.analyze(net.state_dict())
    assert zeros.network == whole.network
    assert any("inferred from zeros" in note["note"] for note in zeros.notes)
    assert topo.analyze({"state": net.state_dict()}).network == whole.network
    with pytest.raises(TopoError, match="no weight of its 1 layer is zero"):
        topo.analyze({"fc.weight": torch.ones(2, 2) / 2})


def test_a_mapping_of_masks_is_taken_as_it_is():
    masks = {"module.a_mask": np.array([[1, 0], [1, 1]]), "b": np.array([[1.0, 1.0]])}
    assert [layer["layer"] for layer in topo.analyze(masks).layers] == list(masks)
    with pytest.raises(topo.errors.MaskError, match="holds 2"):
        topo.analyze({"a": np.array([[2, 1]])})


def test_weights_of_a_key(tmp_path):
    path, times = two_places(tmp_path)
    for key, state in times.items():
        masks = topo.read_masks(path, key=key)
        found = topo.read_weights(path, masks, key=key)
        assert all((found[name] == state[name].numpy()).all() for name in CHAIN)
        assert all(array.flags.owndata for array in found.values())
    with pytest.raises(TopoError, match="no key 'swa'"):
        topo.read_weights(path, masks, key="swa")


def test_two_keys_of_one_file_are_compared(tmp_path, capsys):
    path, times = two_places(tmp_path)
    for key in times:
        topo.write_masks(topo.read_masks(path, key=key), tmp_path / f"{key}.npz")
    assert main(["compare", str(path), str(path), "--key", "model", "--key", "ema", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["compare", str(tmp_path / "model.npz"), str(tmp_path / "ema.npz"), "--json", "-"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found["layers"] == alone["layers"]
    assert found["total"] == alone["total"]
    assert (found["a"], found["b"]) == ("run.pt model", "run.pt ema")
    assert main(["compare", str(path), str(path), "--key", "model"]) == 0
    assert "A = run.pt, B = run.pt" in capsys.readouterr().out
    assert main(["compare", *[str(path)] * 3, "--key", "model", "--key", "ema"]) == 2
    assert "--key is given 2 times for 3 files" in capsys.readouterr().err


def test_names_that_fit_several_parts_of_a_model_are_refused(tmp_path):
    """Which of nine `conv2` is meant no shape tells; it was one of them, another in each process."""
    wiring = topo.networks.find_wiring("resnet20")
    rng = np.random.default_rng(0)
    for names in (["conv2.weight"], ["conv1.weight", "conv2.weight"], ["conv1", "conv2"], ["module.conv2.weight"]):
        shapes = {"conv1": (64, 64, 3, 3), "conv2": (64, 64, 3, 3)}
        masks = {name: rng.random(shapes[re.search(r"conv\d", name)[0]]) < 0.5 for name in names}
        np.savez(tmp_path / "masks.npz", **masks)
        with pytest.raises(FormatError, match=r"fit 9 parts of the model: 'blocks\.0', 'blocks\.1'.*'blocks\.0\.conv"):
            topo.read_masks(tmp_path / "masks.npz", wiring)
    whole = topo.generate("erk", wiring, density=0.1, rng=0)  # all of the model's names under a prefix still fit
    np.savez(tmp_path / "masks.npz", **{f"net.{name}": mask for name, mask in whole.items()})
    assert topo.read_masks(tmp_path / "masks.npz", wiring) == whole


# --- whose mask it is: by words, prefixes and families


FULL = {"ones": np.ones_like, "zeros": np.zeros_like, "both": np.copy}


@pytest.mark.parametrize("model", [None, WIRING], ids=["alone", "model"])
@pytest.mark.parametrize("style", CALLED)
def test_masks_are_those_of_their_weights_whatever_stands_in_front(style, model):
    """Weights under prefixes, masks under them or not, one mask of a family full or empty, in one dict or beside."""
    for number, (prefix, fill) in enumerate(itertools.product(("", "module.", "net."), FULL.values())):
        truth = MASKS | {"body.weight": fill(MASKS["body.weight"])}
        for own in {"", prefix}:
            masks = {own + name: tensor for name, tensor in called(style, tensors(truth)).items()}
            trees = [dense(prefix) | masks]
            if own == prefix and style != "stem.gate" and number % 2:  # of two dicts, gates are not called masks
                trees.append({"state_dict": dense(prefix), "masks": masks})
            for tree in trees:
                found = topo.read_masks(tree, model)
                assert {plain(name).removeprefix("net.") for name in found} == {plain(name) for name in truth}
                assert found.provenance["coverage"]["left_out"] == 0
                for name, mask in found.items():
                    assert (mask == truth[f"{plain(name).removeprefix('net.')}.weight"]).all(), name


def test_two_masks_of_one_weight(tmp_path):
    weights, masks = _dense_and_mask()
    other = {name: 1 - mask for name, mask in masks.items()}
    for first, second in (("keep_mask", "old_mask"), ("mask_a", "mask_b"), ("train.mask", "eval.mask")):
        tree = weights | {n.replace("weight", first): m for n, m in masks.items()}
        tree |= {n.replace("weight", second): m for n, m in other.items()}
        with pytest.raises(FormatError, match=r"may both be the mask of '0.weight'|second mask|different masks"):
            found = topo.read_masks(tree)
            raise FormatError(str(found.provenance["notes"]))  # the other is told
    # Called a mask goes before what is not; the fewest words beside the weight's go before more.
    tree = weights | {n.replace("weight", "mask"): m for n, m in masks.items()}
    for last in ("gate", "z"):
        found = topo.read_masks(tree | {n.replace("weight", last): m for n, m in other.items()})
        assert all((found[name] == masks[name].numpy().astype(bool)).all() for name in masks), last


@pytest.mark.parametrize("last", ["pruned", "removed", "dropped", "zeroed", "deleted", "dead", "cut", "inverse_mask",
                                  "pruned_mask", "masked_out", "is_pruned", "inverted", "zero_mask", "is_zero",
                                  "zeros", "not_mask", "neg_mask", "prune_idx", "to_remove", "complement"])  # fmt: skip
def test_what_is_gone_is_not_read_as_kept(last):
    weights, masks = _dense_and_mask()
    gone = {n.replace("weight", last): 1 - m for n, m in masks.items()}
    for model in (None, wiring({name: (4, 6) for name in weights})):
        with pytest.raises(FormatError, match="1 may stand for what was pruned; --format mask_buffers reads 1 as kept"):
            topo.read_masks(weights | gone, model)
        found = topo.read_masks(weights | gone, model, format="mask_buffers")
        assert found.kept == sum(int(tensor.sum()) for tensor in gone.values())
    with pytest.raises(FormatError, match="1 may stand for what was pruned"):
        topo.read_masks({"state_dict": weights, last: {n: 1 - m for n, m in masks.items()}})


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("key", ["mask", "mask_a", "weight_mask_", "sieve"])
def test_masks_that_are_1_where_the_weights_are_0_say_what_was_pruned(flat, key):
    """Whatever they are called: the zeros of the weights tell, to the one."""
    weights, masks = _dense_and_mask()
    sparse = {name: weight * masks[name] for name, weight in weights.items()}
    for gone in (True, False):
        held = {name: 1 - mask if gone else mask for name, mask in masks.items()}
        tree = sparse | {n.replace("weight", key): m for n, m in held.items()} if flat else {"net": sparse, key: held}
        for model in (None, wiring({name: (4, 6) for name in weights})):
            if gone and (key != "sieve" or not flat):
                with pytest.raises(
                    FormatError, match=r"1 stands for what was pruned; --format zeros|is not called mas"
                ):
                    topo.read_masks(tree, model)
                continue
            found = topo.read_masks(tree, model)  # by the zeros, where the others contradict them and are no masks
            assert set(found) == set(masks)
            assert all((found[name] == masks[name].numpy().astype(bool)).all() for name in masks)


def test_masks_that_are_added_are_not_read_as_weights():
    weights, masks = _dense_and_mask()
    for gone in (float("-inf"), -1e9, -10000.0):
        added = {name: torch.where(mask > 0, 0.0, gone) for name, mask in masks.items()}
        for tree in ({"state_dict": weights, "masks": added}, {"mask": added}):
            with pytest.raises(FormatError, match="holds 0 where a weight is kept"):
                topo.read_masks(tree)
    scaled = {name: 255.0 * mask for name, mask in masks.items()}
    assert topo.read_masks({"state_dict": weights, "masks": scaled}).kept == sum(int(m.sum()) for m in masks.values())


def test_a_tree_of_0_and_1_that_is_not_called_masks_beside_sparse_weights_is_not_chosen():
    weights, masks = _dense_and_mask()
    sparse = {name: weight * masks[name] for name, weight in weights.items()}
    other = {name: masks[name].flip(0) for name in masks}
    for key in ("frozen", "trainable", "anything"):
        with pytest.raises(FormatError, match=f"'{key}' holds 0 and 1 and is not called masks"):
            topo.read_masks({"model": sparse, key: other})
        for chosen, truth in (("model", masks), (key, other)):
            found = topo.read_masks({"model": sparse, key: other}, key=chosen)
            assert all((found[name] == truth[name].numpy().astype(bool)).all() for name in masks)
        weights["0.weight"][0, 0] = 0  # of itself: the masks are of these weights
        assert topo.read_masks({"model": weights, key: masks}).kept == sum(int(m.sum()) for m in masks.values())


@pytest.mark.parametrize("last", ["channel_mask", "out_mask", "filter_mask", "output_mask", "neuron_mask", "mask"])
def test_vectors_of_channels_beside_weights_under_their_names(last):
    tree = dense() | {name.replace("weight", last): tensor for name, tensor in tensors(CHANNELS).items()}
    for model in (None, WIRING):
        found = topo.read_masks(tree, model)
        assert all((found[name] == (ROWS[name] != 0)).all() for name in SHAPES)


def test_what_is_called_a_mask_and_not_understood_is_named(tmp_path):
    """In the refusal of dense weights, and in a note where the weights have zeros."""
    flat = {name.replace("weight", "mask"): tensor.reshape(-1) for name, tensor in tensors(MASKS).items()}
    with pytest.raises(FormatError, match=r"elsewhere \('stem.mask', float32 108, is called a mask\); --format zeros"):
        topo.read_masks(dense() | flat)
    indices = {name: torch.from_numpy(np.flatnonzero(mask)) for name, mask in MASKS.items()}
    with pytest.raises(FormatError, match=r"elsewhere \('masks/stem.weight', int64 \d+, is called a mask\)"):
        topo.read_masks({"state_dict": dense(), "masks": indices})
    sparse = dense() | {name: tensor * torch.from_numpy(MASKS[name]) for name, tensor in tensors(WEIGHTS).items()}
    notes = topo.read_masks(sparse | flat).provenance["notes"]
    assert any("not used: 'stem.mask float32 108'" in note for note in notes), notes
    for weights in (dense(), sparse):
        for file, tree in (("model.safetensors", weights), ("masks.safetensors", tensors(MASKS))):
            pytest.importorskip("safetensors.torch").save_file(tree, tmp_path / file)
        with pytest.raises(FormatError, match=r"'masks.safetensors': masks beside weights are files of their own"):
            topo.read_masks(tmp_path)
    assert topo.read_masks(tmp_path / "masks.safetensors").kept == sum(int(m.sum()) for m in MASKS.values())


@pytest.mark.parametrize("style", ["ema.{}", "model_ema.{}", "ema_model.module.{}", "net.shadow.{}", "model_ema.{bare}",
                                   "swa_model.{}", "{}_grad", "{}_old", "{}.momentum", "{}_init"])  # fmt: skip
@pytest.mark.parametrize("layout", ["zeros", "synflow", "torch_prune"])
def test_copies_of_weights_beside_them_are_no_layers(style, layout):
    """Averages under a prefix, with or without dots, gradients and former values: told, counted, and not read."""
    copied = {
        style.format(name, bare=name.replace(".", "")): (tensor * (torch.rand(tensor.shape) < 0.5)) + 0.0
        for name, tensor in tensors(WEIGHTS).items()
    }
    state = LAYOUTS[layout]()
    if layout == "torch_prune" and style.startswith("{}"):  # which leaves no weight of that name
        return
    found = topo.read_masks(state | copied)
    assert set(found) == set(SHAPES) and all((found[name] == (MASKS[name] != 0)).all() for name in SHAPES)
    covered = found.provenance["coverage"]
    assert set(covered["names"]) == set(copied) and covered["left_out"] == covered["read"]
    assert any(note.startswith("not read, as copies of weights beside them") for note in found.provenance["notes"])


_ROLES = [("student", "teacher"), ("online", "target"), ("generator", "discriminator"), ("actor", "critic"),
          ("model_a", "model_b"), ("encoder_q", "encoder_k"), ("policy_net", "target_net"),
          ("net.student", "net.teacher"), ("module.student", "module.teacher"),
          ("model.actor", "model.actor_target")]  # fmt: skip


@pytest.mark.parametrize("roles", _ROLES, ids=lambda roles: roles[0])
@pytest.mark.parametrize("layout", ["zeros", "masks", "torch_prune"])
def test_two_whole_networks_under_prefixes_of_one_dict_are_not_read_as_one(roles, layout):
    one, other = ({name: tensor.clone() for name, tensor in tensors(MASKS).items()} for _ in range(2))
    other = {name: 1 - tensor for name, tensor in other.items()}
    if layout == "zeros":
        one, other = ({n: m * (tensors(WEIGHTS)[n].abs() + 1) for n, m in part.items()} for part in (one, other))
    if layout == "torch_prune":
        one, other = (
            {n + end: t for n, m in part.items() for end, t in (("_mask", m), ("_orig", m + 0.5))}
            for part in (one, other)
        )
    state = {f"{role}.{name}": t for role, part in zip(roles, (one, other)) for name, t in part.items()}
    with pytest.raises(FormatError, match=f"2 networks of the same names and shapes .*--key {roles[0]} reads one"):
        topo.read_masks(state)
    assert topo.read_masks(state, key=roles[0]) == MaskSet(MASKS)
    plain = [role.removeprefix("module.") for role in roles]
    known = wiring({f"{role}.{name}": shape for role in plain for name, shape in SHAPES.items()})
    assert len(topo.read_masks(state, known)) == 2 * len(SHAPES)
    more = "_orig _mask".split() if layout == "torch_prune" else [""]
    beside = topo.read_masks(state | {f"proj.weight{end}": torch.eye(3) for end in more})
    if "." not in roles[0]:  # beside others they may be parts of one network: told
        assert any("each may be one of its own" in note for note in beside.provenance["notes"])


def test_parts_of_one_network_are_read_as_one():
    """Numbered blocks without a word, towers with a note; the numbers stay."""
    for prefixes, told in ((("layer.0", "layer.1"), 0), (("block1", "block2"), 0), (("left", "right"), 1)):
        state = {f"{prefix}.{name}": tensor for prefix in prefixes for name, tensor in LAYOUTS["zeros"]().items()}
        found = topo.read_masks(state)
        assert len(found) == 2 * len(SHAPES)
        assert told == sum("each may be one of its own" in note for note in found.provenance["notes"]), prefixes
    told = topo.read_masks({f"encoder_{which}.weight": torch.eye(4) / 3 for which in "qk"})
    assert len(told) == 2 and any("each may be one of its own" in note for note in told.provenance["notes"])
    for names in (("q_proj", "k_proj", "v_proj"), ("attn.query", "attn.key", "attn.value"), ("fc1", "fc2")):
        notes = topo.read_masks({f"{name}.weight": torch.eye(4) / 3 for name in names}).provenance["notes"]
        assert not any("each may be one of its own" in note for note in notes)


@pytest.mark.parametrize("keys", ["params/{}/kernel", "params.{}.kernel", "{}.kernel", "tree"])
@pytest.mark.parametrize("end", ["npz", "pkl", "safetensors"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_flax_tree_is_one_network_in_every_container(keys, end, binary, tmp_path):
    """Kernels are (height, width, in, out), whatever they lie in."""
    names = dict(zip(SHAPES, ("Conv_0", "Conv_1", "Dense_0")))
    arrays = {names[n]: (m if binary else m * (np.abs(WEIGHTS[n]) + 1)) for n, m in MASKS.items()}
    kernels = {name: np.ascontiguousarray(np.moveaxis(a, (1, 0), (-2, -1))) for name, a in arrays.items()}
    tree = {keys.format(name): kernel for name, kernel in kernels.items()}
    path, save_file = tmp_path / f"a.{end}", pytest.importorskip("safetensors.numpy").save_file
    if keys == "tree":
        tree = {"params": {name: {"kernel": kernel, "bias": kernel[0].ravel()} for name, kernel in kernels.items()}}
        if binary:
            tree = {"masks": {name: {"kernel": kernel} for name, kernel in kernels.items()},
                    "params": {name: {"kernel": kernel + 2} for name, kernel in kernels.items()}}  # fmt: skip
    if end == "pkl":
        path.write_bytes(pickle.dumps(tree))
    elif keys == "tree":
        return
    else:
        write = np.savez if end == "npz" else lambda file, **held: save_file(held, file)
        write(path, **tree)
    found = topo.read_masks(path)
    assert found == MaskSet({f"{names[name]}.kernel": mask for name, mask in MASKS.items()})
    assert found.provenance["coverage"]["left_out"] == 0
    assert not any("has shape" in note for note in found.provenance["notes"])


@pytest.mark.parametrize("end", ["npz", "pkl", "safetensors"])
@pytest.mark.parametrize("join", ["/", "."])
def test_kernels_of_flax_beside_their_masks_and_those_of_optimizers(end, join, tmp_path):
    """`masks` say which weights are kept; averages and moments are no layers, and are counted."""
    names = dict(zip(SHAPES, ("stem", "body", "head")))
    turned = {names[n]: np.ascontiguousarray(np.moveaxis(m, (1, 0), (-2, -1))) for n, m in MASKS.items()}
    arrays = {join.join(("params", name, "kernel")): mask + 2.5 for name, mask in turned.items()}
    arrays |= {join.join(("masks", name, "kernel")): mask for name, mask in turned.items()}
    places = [(place, name) for place in ("mu", "ema_params") for name in turned]
    moments = {join.join((place, name, "kernel")): turned[name] + 0.5 for place, name in places}
    save_file = pytest.importorskip("safetensors.numpy").save_file
    write = {
        "npz": lambda held: np.savez(path, **held),
        "pkl": lambda held: path.write_bytes(pickle.dumps(held)),
        "safetensors": lambda held: save_file(held, path),
    }[end]
    path = tmp_path / f"a.{end}"
    for beside in ({}, moments):
        write(arrays | beside)
        found = topo.read_masks(path)
        assert found == MaskSet({f"{names[name]}.kernel": mask for name, mask in MASKS.items()})
        assert found.provenance["format"] == "flax"
        assert found.provenance["coverage"]["left_out"] == sum(held.size for held in beside.values())


def test_no_yes_over_one_shard_of_several(tmp_path, capsys):
    for name, tensor in zip("12", LAYOUTS["zeros"]().values()):
        torch.save({f"l{name}.weight": tensor}, tmp_path / f"pytorch_model-0000{name}-of-00002.bin")
    shard = str(tmp_path / "pytorch_model-00001-of-00002.bin")
    assert main(["check", shard, "--max-density", "1"]) == 1
    assert "one shard of 2 by its name" in capsys.readouterr().err
    for more in (["--partial"], ["--layers", "l1*"]):
        assert main(["check", shard, "--max-density", "1", *more]) == 0
    assert main(["check", str(tmp_path), "--max-density", "1"]) == 0


def test_a_sha256_is_that_of_the_bytes_that_were_read_or_none(tmp_path):
    """Taken when it is asked for: by then the file may be another, gone, or written anew in the same place."""
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(path, **{"fc.weight": np.eye(4) / 2})
    np.savez(other, **{"fc.weight": np.eye(4) / 3})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    masks = topo.read_masks(path)
    assert topo.analyze(masks).provenance["sha256"] == masks.provenance["sha256"] == digest
    assert topo.read_masks(path).with_provenance(seed=1).provenance["sha256"] == digest
    for spoil in (lambda: path.unlink(), lambda: path.write_bytes(other.read_bytes()), lambda: other.replace(path)):
        np.savez(path, **{"fc.weight": np.eye(4) / 2})
        os.utime(path, ns=(1, 1))
        masks = topo.read_masks(path)
        spoil()
        report = topo.analyze(masks)
        assert "sha256" not in report.provenance and "sha256" not in masks.provenance
        assert any("its SHA-256 is not known" in note["note"] for note in report.notes)
        topo.write_masks(masks, tmp_path / "again.safetensors")
    assert "sha256" not in topo.read_masks({"fc.weight": torch.eye(4)}).provenance


def test_masks_by_number_go_by_their_numbers_not_by_their_places():
    square = {f"l{k}.weight": torch.rand(5, 5) + 1 for k in range(12)}
    masks = {k: (torch.rand(5, 5) < 0.5).float() for k in range(12)}
    for order in (range(12), range(11, -1, -1), sorted(range(12), key=str)):
        for keys in (int, str):
            found = topo.read_masks({"net": square, "masks": {keys(k): masks[k] for k in order}})
            assert all((found[f"l{k}.weight"] == masks[k].numpy().astype(bool)).all() for k in masks), (order, keys)


def test_a_tree_of_0_and_1_of_other_names_is_no_mask_of_dense_weights():
    weights, masks = _dense_and_mask()
    with pytest.raises(FormatError, match="no weight of its 2 layers is zero"):
        topo.read_masks({"net": weights, "adjacency": masks["0.weight"], "epoch": 3})
    notes = topo.read_masks({"net": weights, "masks": {"m0": masks["0.weight"], "m1": masks["1.weight"]}}).provenance
    assert any("not called as the weights beside them are: '0.weight'" in note for note in notes["notes"])


def test_a_shard_alone_is_not_told_as_the_network(tmp_path):
    save = pytest.importorskip("safetensors.torch").save_file
    shard = tmp_path / "model-00001-of-00002.safetensors"
    save({"stem.weight": torch.from_numpy(WEIGHTS["stem.weight"] * MASKS["stem.weight"])}, shard)
    with pytest.raises(FormatError, match=r"lacks the shard 'model-00002-of-00002.safetensors'"):
        topo.read_masks(tmp_path)
    assert any(n.startswith("one shard of 2 by its name") for n in topo.read_masks(shard).provenance["notes"])


def test_two_files_with_prefixes_of_their_own_are_aligned(tmp_path, capsys):
    for file, prefix in (("a.pt", "net."), ("b.pt", "base_model.model.")):
        torch.save({prefix + name: tensor for name, tensor in tensors(MASKS).items()}, tmp_path / file)
    a, b = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    assert main(["check", a, "--contains", b]) == 0 and main(["compare", a, b, "--json", "-"]) == 0
    layers = json.loads(capsys.readouterr().out.split("\n", 1)[1])["layers"]
    assert [layer["layer"] for layer in layers] == [f"net.{name}" for name in SHAPES]


def test_complex_weights_are_left_out_by_name():
    tree = dense() | {name: tensor * torch.from_numpy(MASKS[name]) for name, tensor in tensors(WEIGHTS).items()}
    tree["body.weight"] = tree["body.weight"].to(torch.complex64)
    assert topo.read_masks(tree).provenance["coverage"]["names"] == ["body.weight"]


@pytest.mark.parametrize("prefix", ["nets/", "policy:", "a/b."])
def test_prefixes_of_other_signs_go_by_the_model_s_names(prefix):
    for tree in (
        {prefix + name: tensor for name, tensor in beside(MASKS).items()},
        {f"w/{name}": tensor for name, tensor in dense().items()}
        | {f"masks/{n}": m for n, m in tensors(MASKS).items()},
    ):
        found = topo.read_masks(tree, WIRING)
        assert list(found) == list(SHAPES) and all((found[name] == (MASKS[name] != 0)).all() for name in SHAPES)


def test_a_dict_of_each_weight_has_the_weight_s_name():
    tree = {
        name: {"weight": tensor, "mask": torch.from_numpy(MASKS[name])} for name, tensor in tensors(WEIGHTS).items()
    }
    found = topo.read_masks(tree)
    assert list(found) == list(SHAPES) and all((found[name] == (MASKS[name] != 0)).all() for name in SHAPES)


def test_a_mask_that_fits_two_axes_is_refused():
    for shape, mask in (((4, 5, 4, 5), (4, 5)), ((3, 3, 3, 3), (3, 3, 3)), ((6, 6, 6, 6), (6, 6))):
        tree = {
            "state_dict": {"a.weight": torch.rand(shape) + 1},
            "masks": {"a.weight": (torch.rand(mask) < 0.5).float()},
        }
        for model in (None, wiring({"a.weight": shape})):
            with pytest.raises(
                FormatError, match=f"may stand for the first axes or for the last; give it {len(shape)} dim"
            ):
                topo.read_masks(tree, model)
        tree["masks"]["a.weight"] = tree["masks"]["a.weight"].reshape(*mask, *[1] * (len(shape) - len(mask)))
        assert topo.read_masks(tree)["a.weight"].shape == shape


@pytest.mark.parametrize("start", ["masks.", "mask", "mask_", "pruner.masks.", "net.masks."])
@pytest.mark.parametrize("beside", [False, True])
def test_numbered_masks_of_one_prefix_go_by_the_order_of_the_weights(start, beside):
    listed = {f"{start}{number}": mask for number, mask in enumerate(tensors(MASKS).values())}
    tree = {"state_dict": dense(), "pruner": listed} if beside else dense() | listed
    for model in (None, WIRING):
        found = judged(tree, MASKS, model)
        assert found == MaskSet(MASKS) and not found.provenance["coverage"]["left_out"]
    # Two families of numbers: which of them masks is not known.
    two = {**listed, **{f"other_{name}": 1 - mask for name, mask in listed.items()}}
    if not beside:
        with pytest.raises(FormatError):
            topo.read_masks(dense() | two)


def test_a_mask_of_a_student_or_a_teacher_and_masks_beside_weights_of_0_and_1():
    mask = (torch.rand(4, 6) < 0.5).float()
    zero = torch.rand(4, 6) + 1
    zero[0] = 0
    for student in (zero, zero + 1):
        tree = {"student.fc.weight": student, "teacher.fc.weight": torch.rand(4, 6) + 1, "mask.fc.weight": mask}
        for model in (None, wiring({"fc.weight": (4, 6)})):
            with pytest.raises(
                FormatError, match=r"'mask\.fc\.weight' holds 0 and 1 in the shape of .*whose mask it is"
            ):
                topo.read_masks(tree, model)
    binary = {name: (torch.rand(shape) < 0.5).float() for name, shape in SHAPES.items()}
    for style in ("mask_stem.weight", "mask.stem", "stem.mask.mask", "masks.stem.weight", "stem.keep_mask"):
        found = topo.read_masks(binary | called(style, tensors(MASKS)))
        assert found == MaskSet(MASKS), style
        assert any("hold zeros that the masks keep" in note for note in found.provenance["notes"])
    with pytest.raises(FormatError, match=r"'stem.weight' and 'stem.gate' both hold 0 and 1"):
        topo.read_masks(binary | called("stem.gate", tensors(MASKS)))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint8, torch.int8])
@pytest.mark.parametrize("last", ["stuff", "codes_q", "weight_q", "packed", "blob"])
def test_integers_that_nobody_knows_are_named(dtype, last):
    odd = {f"layer.{last}": torch.arange(96).reshape(12, 8).to(dtype)}
    half = {"head.weight": torch.eye(4) / 2}
    for tree in (odd | half, {"state_dict": odd | half, "masks": {"head.weight": torch.eye(4)}}):
        covered = topo.read_masks(tree).provenance["coverage"]
        assert (covered["read"], covered["left_out"], covered["names"]) == (16, 96, [f"layer.{last}"])
    with pytest.raises(TopoError):
        topo.read_masks(odd)
    places = {"relative_position_index": torch.arange(64).reshape(8, 8), "attn.bias": torch.eye(8).bool()}
    places |= {"x.position_ids": torch.arange(64).reshape(1, 64), "y.token_type_ids": torch.zeros(2, 8).long()}
    assert topo.read_masks(half | places).provenance["coverage"]["left_out"] == 0


def test_errors_name_what_the_file_holds():
    two = torch.ones(5, 6, dtype=torch.int32)
    two[0] = 2
    half = torch.rand(5, 6)
    half[0] = 0
    for tree, own in (
        ({"module.a.weight_orig": half, "module.a.weight_mask": two}, "module.a.weight_mask"),
        ({"model.a.mask": two, "model.a.weight": half}, "model.a.mask"),
        ({"model.module.a.weight": two}, "model.module.a.weight"),
        ({"masks": {"0": two}, "state": {"a.weight": half + 1}}, "0"),
    ):
        for model in (None, wiring({"a.weight": (5, 6)})):
            with pytest.raises(MaskError, match=rf"mask '{re.escape(own)}'.* holds 2"):
                topo.read_masks(tree, model)
    with pytest.raises(TopoError, match=r"mask 'module\.net\.a\.weight' .*\(5, 6\) but the model's layer has \(6, 6\)"):
        topo.read_masks({"module.net.a.weight": half}, wiring({"a.weight": (6, 6)}))


@pytest.mark.parametrize(("one", "two", "repeats"), [
    ("fc.weight", "fc.weight_2", False), ("fc.weight", "fc.weight_imag", False), ("fc.weight", "ema.weight", False),
    ("in_proj_weight", "in_proj_weight_k", False), ("fc.kernel", "ema.kernel", False),
    ("c.weight", "ema.c.weight", True), ("main.c.weight", "shadow.c.weight", True), ("c.weight", "c.weight_old", True),
    ("l.weight_ih_l0", "ema.l.weight_ih_l0", True), ("l.weight_ih_l0", "ema.lweight_ih_l0", True),
])  # fmt: skip
def test_a_weight_of_its_own_is_no_copy_of_another(one, two, repeats):
    """By its name alone, or by the model, which has a layer of that name."""
    tree = {name: _half() for name in (one, two)}
    assert set(topo.read_masks(tree)) == ({one} if repeats else {one, two})
    for prefix in ("", "module.", "net."):
        wrapped = {prefix + name: tensor for name, tensor in tree.items()}
        assert len(topo.read_masks(wrapped, wiring(dict.fromkeys(tree, (4, 6))))) == 2
        alone = topo.read_masks(wrapped, wiring({one: (4, 6)})).provenance
        assert repeats or alone["coverage"]["left_out"] == 24
        assert any(two in note for note in alone["notes"]), alone["notes"]


def _half():
    tensor = torch.rand(4, 6) + 1
    tensor[torch.rand(4, 6) < 0.4] = 0
    tensor[0] = torch.tensor([0, 2, 3, 4, 0, 5])
    return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int64, torch.bfloat16])
def test_tensors_of_0_and_1_that_are_no_one_s_mask_are_named_and_counted(dtype):
    odd = (_half() != 0).to(dtype)
    for tree in ({"fc.weight": _half(), "l.kernel": odd},
                 {"a": {"fc.weight": _half() + 1, "l.kernel": odd}, "masks": {"fc.weight": _half() != 0}}):  # fmt: skip
        for model in (None, wiring({"fc.weight": (4, 6)})):
            about = topo.read_masks(tree, model).provenance
            assert about["coverage"] == {"read": 24, "left_out": 24, "names": ["l.kernel"]}
            assert "of 0 and 1, so masks or weights, and not read: 'l.kernel'" in about["notes"]
    attention = {name: torch.tril(torch.ones(4, 4)).to(dtype) for name in ("h.attn.bias", "h.tril", "attn_mask")}
    assert topo.read_masks({"fc.weight": _half(), **attention}).provenance["coverage"]["left_out"] == 0


@pytest.mark.parametrize(("name", "embeds"), [
    ("time_emb_proj.weight", False), ("emb_layers.1.weight", False), ("x.emb.0.weight", False),
    ("tok_emb.weight", True), ("emb.weight", True), ("h.embs.weight", True),
])  # fmt: skip
def test_layers_behind_embeddings_are_no_embeddings(name, embeds):
    covered = topo.read_masks({"fc.weight": _half(), name: _half()}).provenance["coverage"]
    assert covered["names"] == [name] * embeds


def test_layers_that_are_wholly_pruned_are_read_as_such():
    none, dense_one = torch.zeros(4, 6), _half() + 1
    for tree in ({"a.weight_orig": dense_one, "a.weight_mask": none}, {"a.weight": dense_one, "a.mask": none},
                 {"net": {"a.weight": dense_one}, "masks": {"a.weight": none}}):  # fmt: skip
        assert topo.read_masks(tree).kept == 0
    sparse = _half()
    turned = {"b.weight_orig": sparse, "b.weight_mask": (sparse == 0).float()}
    with pytest.raises(FormatError, match="its masks are 1 where the weights are 0, in 1 layer:"):
        topo.read_masks({"a.weight_orig": dense_one, "a.weight_mask": none} | turned)


@pytest.mark.parametrize("word", ["not", "neg", "negative", "complement", "inverse", "cut", "dead"])
def test_modules_that_are_called_the_opposite_have_masks_like_others(word):
    mask = (_half() != 0).float()
    for weight, last in ((f"{word}.0.weight", f"{word}.0.mask"), (f"{word}.weight", f"mask.{word}")):
        assert (topo.read_masks({weight: _half() + 1, last: mask})[weight] == mask.numpy()).all()
    for last in (f"fc.{word}", f"fc.{word}_mask", f"fc.mask_{word}", f"fc.{word}.mask"):
        with pytest.raises(FormatError, match="1 may stand for what was pruned"):
            topo.read_masks({"fc.weight": _half() + 1, last: mask})


def test_two_masks_of_one_weight_are_refused_and_masks_of_no_weight_named():
    """In any order: neither is taken for the whole."""
    full = torch.ones(4, 4, 3, 3)
    full[1] = 0
    outs, ins = torch.tensor([1.0, 0, 0, 1]), torch.tensor([1.0, 1, 0, 1])
    for weight, one, two in itertools.product(
        (torch.rand(4, 4, 3, 3) + 1, torch.rand(4, 3, 3, 3) + 1), ("filter_mask", "mask"), ("channel_mask", "unit_mask")
    ):
        wide = weight.shape[1]
        for first in (outs, full[:, :wide]):
            held = {f"c.{one}": first, f"c.{two}": ins[:wide]}
            for masks in (held, dict(reversed(held.items()))):
                said = " and ".join(f"'{name}'" for name in masks)
                with pytest.raises(FormatError, match=f"{said} may both be the mask of 'c.weight'"):
                    topo.read_masks({"c.weight": weight, **masks})
    tree = {"c.weight": torch.rand(4, 2, 3, 3) + 1, "c.channel_mask": outs, "d.weight": torch.rand(3, 4) + 1}
    about = topo.read_masks(tree | {"d.channel_mask": ins}).provenance
    assert about["coverage"]["names"] == ["d.weight"]
    assert any("not used: 'd.channel_mask float32 4'" in note for note in about["notes"]), about["notes"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("least", [-float("inf"), -10000.0])
def test_masks_that_are_added_are_refused_wherever_they_stand(dtype, least):
    added = {f"{name}.weight": torch.where(_half() > 0, 0.0, least).to(dtype) for name in "ab"}
    for tree in (added, {"masks": added}, {"x": added}, added | {"c.weight": _half()},
                 {"net": {name: _half() + 1 for name in added}, "masks": added}):  # fmt: skip
        for model in (None, wiring(dict.fromkeys(added, (4, 6)))):
            with pytest.raises(FormatError, match="holds 0 where a weight is kept, as masks that are added do"):
                topo.read_masks(tree, model)
    few = {"a.weight": torch.where(_half() > 0, 0.0, -3.0).to(dtype)}  # weights of one value
    assert topo.read_masks(few).shapes == {"a.weight": (4, 6)}


@pytest.mark.parametrize("dtype, least", [(torch.float8_e4m3fn, -448.0), (torch.float8_e5m2, -float("inf"))])
def test_masks_of_a_byte_that_are_added_are_refused(dtype, least):
    from topo.formats.choosing import _FLOAT8

    numbers = torch.arange(256, dtype=torch.uint8).view(dtype).double().numpy()
    finite = np.isfinite(numbers)
    assert (_FLOAT8[str(dtype).removeprefix("torch.")][finite] == numbers[finite]).all()
    for tree in ({"masks": {"a.weight": torch.where(_half() > 0, 0.0, least).to(dtype)}},
                 {"a.weight": torch.where(_half() > 0, 0.0, least).to(dtype)}):  # fmt: skip
        with pytest.raises(FormatError, match="holds 0 where a weight is kept, as masks that are added do"):
            topo.read_masks(tree)


# --- the table of the documentation


def _peft():
    return {f"base_model.model.layer.lora_{part}.weight": torch.rand(4, 4) for part in "AB"}


def _buffers(last):
    return dense() | {name.replace("weight", last): t.bool() for name, t in tensors(MASKS).items()}


INT8 = {name: (torch.from_numpy(mask) * 9).to(torch.int8) for name, mask in MASKS.items()}
# Each row of docs/formats.md by how it begins -> what it speaks of.
TABLE = {
    "`X_orig` + `X_mask`": lambda: [LAYOUTS["torch_prune"](), MORE["weight norm"]()],
    "`X.weight` + `X.weight_mask`": lambda: [LAYOUTS["synflow"](), *map(_buffers, ("mask", "mask_weight")),
                                             MORE["weight_m"](), MORE["NNCF"]()],
    "`mask_X.weight`, `masks.X`": lambda: [dense() | called(style, tensors(MASKS)) for style in
                                           ("mask_stem.weight", "mask.stem", "stem_mask", "stem.gate")],
    "`X.pruned`, `{": lambda: [_buffers("pruned"), {"state_dict": dense(), "removed": tensors(MASKS)}],
    "masks that are 1 exactly where": lambda: [
        {"net": LAYOUTS["zeros"](), "masks": {name: t == 0 for name, t in tensors(MASKS).items()}}],
    "masks of 0 and -inf": lambda: [{"state_dict": dense(), "masks": {name: t.log() for name, t in
                                                                     tensors(MASKS).items()}}],
    "a tree of 0 and 1 that no key": lambda: [{"model": LAYOUTS["zeros"](), "frozen": {
        name: t.flip(0) for name, t in tensors(MASKS).items()}}],
    "`X.parametrizations.weight.0.mask`": lambda: [MORE["parametrizations"](), LAYOUTS["torch_ao"]()],
    "`X.parametrizations.weight.original`": lambda: [
        {n.replace("weight", "parametrizations.weight.original"): t for n, t in dense().items() if "bias" not in n}],
    "`{name: mask}`, `{module: mask}`": lambda: [LAYOUTS["mask_dict"](), MORE["module names"](), MORE["NNI"](),
                                                 MORE["pairs"](), {"any": {"key": LAYOUTS["mask_dict"]()}}],
    "`layer1_0_conv`": lambda: [{"state_dict": dense(), "masks": called("mask_stem_weight", tensors(MASKS))}],
    "`ema.X`, `model_ema.X`": lambda: [LAYOUTS["zeros"]() | {style + name: tensor for name, tensor in
                                       tensors(WEIGHTS).items()} for style in ("ema.", "model_ema.")],
    "`student.X` and `teacher.X`": lambda: [{f"{role}.{name}": tensor for role in roles for name, tensor in
                                             LAYOUTS["zeros"]().items()} for roles in _ROLES[:2]],
    "a list of masks": lambda: [LAYOUTS["ordered_list"](), MORE["numbers"](),
                                {str(n): t for n, t in MORE["numbers"]().items()}],
    "an entry per output channel": lambda: [{"state_dict": dense(), "masks": LAYOUTS["channel_masks"]()},
                                            LAYOUTS["channel_masks"](), dense() | {
        n.replace("weight", "channel_mask"): t for n, t in LAYOUTS["channel_masks"]().items()}],
    "masks of several levels": lambda: [{"level_0": tensors(MASKS), "level_1": tensors({n: 1 - m for n, m in
                                                                                        MASKS.items()})}],
    "`X.scores` (edge-popup)": lambda: [LAYOUTS["scores"]()],
    "trees of -1 and 1": lambda: [{name: 2 * t - 1 for name, t in tensors(MASKS).items()}],
    "zeros in weights": lambda: [LAYOUTS["zeros"](), INT8],
    '`{"module": ...}` (DeepSpeed)': lambda: [{key: LAYOUTS["zeros"]()} for key in
                                              ("module", "ema", "params", "network", "model_state")],
    "a LoRA, LoHa": lambda: [_peft()],
    "GPTQ, AWQ": lambda: [{f"layer.{name}": t for name, t in library.items()} for library in PACKED.values()],
    "int8 weights": lambda: [INT8, {name.replace("weight", "weight._data"): t for name, t in INT8.items()}],
    "compressed-tensors bitmasks": lambda: [LAYOUTS["bitmask"]()],
    "Keras' `get_weights()`": lambda: [],  # an npz without names: the file is written below
    "objects of a program": lambda: [],  # tests of live objects above
}  # fmt: skip


def _table_of_layouts():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "formats.md").read_text("utf-8")
    lines = page.split("## Layouts, and the way out")[1].split("\n\n")[1].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def test_the_table_of_layouts_has_these_rows():
    rows = [row[0] for row in _table_of_layouts()]
    assert len(rows) == len(TABLE)
    assert [start for start in TABLE if sum(row.startswith(start) for row in rows) != 1] == []


@pytest.mark.parametrize("row", TABLE)
def test_a_row_of_the_table_says_what_is_done(row, tmp_path, capsys):
    """Read means the true masks, with the model at least; refused means one line, by every command."""
    said = next(cells[1] for cells in _table_of_layouts() if cells[0].startswith(row))
    WIRING.save(tmp_path / "w.json")
    topo.write_masks(MaskSet(MASKS), tmp_path / "own.npz")
    if row == "Keras' `get_weights()`":
        np.savez(tmp_path / "tree.npz", *WEIGHTS.values())
    for tree in TABLE[row]() or [None] * (tmp_path / "tree.npz").exists():
        path = tmp_path / ("tree.npz" if tree is None else "tree.pt")
        if tree is not None:
            torch.save(tree, path)
        model = ["--model", str(tmp_path / "w.json")]
        truth = ROWS if row.startswith("an entry per") else MASKS
        copied = sum(map(np.size, MASKS.values())) if said.startswith("left out") else 0
        if said.startswith("refused"):
            with pytest.raises(TopoError):
                topo.read_masks(path)
            model = []
        else:
            found = judged(path, truth, WIRING)
            assert found is not None and list(found) == list(SHAPES), tree.keys()
            assert found.provenance["coverage"]["left_out"] == copied
        codes, seen = {}, []
        for command in (["analyze"], ["check", "--max-density", "1"], ["compare", str(tmp_path / "own.npz")],
                        ["plot", "density_profile", "-o", str(tmp_path / "p.svg")]):  # fmt: skip
            output = ["--json", str(tmp_path / "o.json")] if command[0] != "plot" else []
            codes[command[0]] = main([command[0], *command[1:], str(path), *model, *output, "--quiet"])
            text = capsys.readouterr().err
            assert "Traceback" not in text and "internal error" not in text, text
            if said.startswith("refused"):
                assert text.startswith("topo: ") and text.count("\n") == 1, text
            elif command[0] == "analyze":
                seen += [report["coverage"] for report in json.loads((tmp_path / "o.json").read_text())["reports"]]
        expected = dict.fromkeys(codes, int(said.startswith("refused"))) | ({"check": 1} if copied else {})
        assert codes == expected, (codes, tree and tree.keys())
        assert all(covered["left_out"] == copied for covered in seen)
