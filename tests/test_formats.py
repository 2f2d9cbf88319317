"""Readers on files made as the peers' own code makes them, the real files, and round trips of what is written."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topo
from topo import formats
from topo.errors import FormatError, MaskError, TopoError, WiringError
from topo.masks import MaskSet
from topo.wiring import Layer, Wiring, chain

torch = pytest.importorskip("torch")
DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real mask files are not beside this checkout")

SHAPES = {"conv.weight": (4, 3, 3, 3), "blocks.0.conv1.weight": (6, 4, 3, 3), "fc.weight": (5, 6)}


def some_masks(seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {name: (rng.random(shape) < 0.4).astype(np.float32) for name, shape in shapes.items()}


def some_weights(seed=1, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def tensors(arrays, dtype=None):
    return {name: torch.from_numpy(array).to(dtype or torch.float32) for name, array in arrays.items()}


def layers(shapes, **more):
    """A wiring whose layers each read units of their own: enough where only names, shapes and order matter."""
    steps, start = [], 0
    inputs = np.arange(
        sum(shape[1] * more.get(name, {}).get("groups", 1) for name, shape in shapes.items()), dtype=np.int32
    )
    unit = len(inputs)
    for name, shape in shapes.items():
        extra = more.get(name, {})
        count = shape[1] * extra.get("groups", 1)
        kind = "conv" if len(shape) > 2 else "linear"
        steps.append(Layer(name, shape, inputs[start : start + count], unit, kind, **extra))
        start, unit = start + count, unit + shape[0]
    return Wiring(inputs, tuple(steps), np.arange(unit - 1, unit, dtype=np.int32))


def resnet20_layers():
    """Names and shapes of the CIFAR ResNet-20 in module order."""
    shapes, width = {"conv.weight": (16, 3, 3, 3)}, 16
    for block in range(9):
        out = 16 << (block // 3)
        shapes[f"blocks.{block}.conv1.weight"] = (out, width, 3, 3)
        shapes[f"blocks.{block}.conv2.weight"] = (out, out, 3, 3)
        if out != width:
            shapes[f"blocks.{block}.shortcut.0.weight"] = (out, width, 1, 1)
        width = out
    return {**shapes, "fc.weight": (10, 64)}


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


def expect(masks, found, format):
    assert found == MaskSet(masks)
    assert found.provenance["format"] == format
    return found


# --- the real files


@needs_data
@pytest.mark.parametrize(
    ("file", "format"),
    [
        ("synflow_family_resnet20_d0.02.pt", "synflow"),
        ("openlth_mask_resnet20_d0.02.pth", "openlth"),
        ("torch_prune_resnet20_d0.02.pt", "torch_prune"),
        ("zeros_in_weights_resnet20_d0.02.safetensors", "zeros"),
    ],
)
def test_the_same_masks_from_four_real_files(file, format):
    found = formats.read(DATA / file)
    assert (len(found), found.size, found.kept) == (22, 270_896, 5_418)
    assert (found.provenance["format"], found.provenance["file"]) == (format, file)
    reference = torch.load(DATA / "openlth_mask_resnet20_d0.02.pth", weights_only=True)
    assert found == MaskSet(reference)
    assert found.content_hash == MaskSet(reference).content_hash
    assert found.shapes == resnet20_layers()


@needs_data
def test_the_notes_of_the_real_files():
    synflow = formats.read(DATA / "synflow_family_resnet20_d0.02.pt")
    assert list(synflow.provenance["notes"]) == ["50 all-ones masks of biases, normalisation and scale layers ignored"]
    zeros = formats.read(DATA / "zeros_in_weights_resnet20_d0.02.safetensors")
    assert list(zeros.provenance["notes"]) == ["masks inferred from zeros; 0 of 22 layers hold no zero"]


@needs_data
def test_the_real_list_is_named_by_the_wiring():
    file = DATA / "npb_list_resnet20_d0.02.pkl"
    wiring = layers(resnet20_layers())
    found = formats.read(file, wiring)
    with open(file, "rb") as stream:
        arrays = pickle.load(stream)
    expect(dict(zip(resnet20_layers(), arrays)), found, "ordered_list")
    with pytest.raises(FormatError, match=r"npb_list.*22 masks without names need a model"):
        formats.read(file)


@needs_data
def test_the_real_list_in_the_order_of_the_built_in_model():
    networks = pytest.importorskip("topo.networks")
    wiring = networks.find_wiring("resnet20")
    found = formats.read(DATA / "npb_list_resnet20_d0.02.pkl", wiring)
    assert found.size == 270_896
    assert list(found) == list(wiring.names)
    by_hand = formats.read(DATA / "npb_list_resnet20_d0.02.pkl", layers(resnet20_layers()))
    assert found == by_hand
    for file in ("synflow_family_resnet20_d0.02.pt", "zeros_in_weights_resnet20_d0.02.safetensors"):
        assert list(formats.read(DATA / file, wiring)) == list(wiring.names)


# --- what is written


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1, max_size=12)
shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)


@st.composite
def mask_sets(draw):
    found = draw(st.dictionaries(names.filter(lambda name: name != "__metadata__"), shapes, min_size=1, max_size=4))
    return MaskSet(
        {
            name: np.array(draw(st.lists(st.integers(0, 1), min_size=(n := int(np.prod(shape))), max_size=n))).reshape(
                shape
            )
            for name, shape in found.items()
        }
    )


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
@given(masks=mask_sets())
@settings(max_examples=25, deadline=None)
def test_a_round_trip_keeps_masks_and_order(ending, masks, tmp_path_factory):
    path = tmp_path_factory.mktemp("trip") / f"masks{ending}"
    formats.write(masks, path)
    found = formats.read(path)
    assert found == masks
    assert list(found) == list(masks)
    first = path.read_bytes()
    formats.write(masks, path)
    assert path.read_bytes() == first


def test_every_writer_round_trips_and_every_reader_has_a_line(tmp_path):
    masks = MaskSet(some_masks())
    endings = []
    for name, reader in formats.formats.items():
        assert reader.name == name
        assert reader.about
        assert "\n" not in reader.about
        if reader.write:
            endings.append(reader.ending)
            formats.write(masks, tmp_path / f"a{reader.ending}")
            again = formats.read(tmp_path / f"a{reader.ending}", format=name)
            assert (again, again.provenance["format"]) == (masks, name)
    assert sorted(endings) == [".npz", ".safetensors"]


def test_every_reader_refuses_random_bytes(tmp_path):
    path = tmp_path / "noise.pt"
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(500))
        for name in formats.formats:
            with pytest.raises(FormatError, match=r"noise\.pt"):
                formats.read(path, format=name)


def test_provenance_survives_the_project_s_own_format(tmp_path):
    known = {
        "model": "resnet20",
        "input_shape": [3, 32, 32],
        "method": "synflow",
        "options": {"rounds": 100},
        "seed": 7,
        "extra": {"a": [1, 2]},
        "notes": ["made in a test"],
    }
    masks = MaskSet(some_masks(), provenance=known)
    path = tmp_path / "m.safetensors"
    formats.write(masks, path)
    found = formats.read(path).provenance
    assert {key: found[key] for key in known} == known
    assert (found["format"], found["file"]) == ("topo", "m.safetensors")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata = file.metadata()
        assert metadata["topo_schema"] == "topo-masks/1"
        assert metadata["input_shape"] == "3x32x32"
        assert float(metadata["density"]) == masks.density
        assert metadata["seed"] == "7"
        assert json.loads(metadata["options"]) == {"rounds": 100}
        assert metadata["created_by"].startswith("topo ")
        for name in masks:
            assert file.get_tensor(name).dtype == np.uint8
            assert (file.get_tensor(name) == masks[name]).all()


def test_a_conversion_remembers_where_the_masks_came_from(tmp_path):
    masks = some_masks()
    source = save(tmp_path / "mask.pth", tensors(masks, torch.int32))
    formats.write(formats.read(source), tmp_path / "a.safetensors")
    formats.write(formats.read(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    found = formats.read(tmp_path / "b.safetensors")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert found.provenance["source"] == {"format": "openlth", "file": "mask.pth", "sha256": digest}
    assert found == MaskSet(masks)


def test_npz_is_read_by_numpy_without_pickles(tmp_path):
    masks = MaskSet(some_masks())
    formats.write(masks, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert list(file) == list(masks)
        assert all((file[name] == masks[name]).all() and file[name].dtype == np.bool_ for name in masks)


def test_writing_elsewhere_is_refused(tmp_path):
    masks = MaskSet(some_masks())
    with pytest.raises(FormatError, match=r"x\.pt.*\.npz or \.safetensors|x\.pt.*\.safetensors or \.npz"):
        formats.write(masks, tmp_path / "x.pt")
    with pytest.raises(TopoError, match="nowhere"):
        formats.write(masks, tmp_path / "nowhere" / "x.npz")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(TopoError, match="folder"):
        formats.write(masks, tmp_path / "d.npz")


# --- the peers' formats


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_prune(tmp_path, zipped):
    from torch.nn.utils import prune

    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), torch.nn.Linear(4, 2))
    prune.random_unstructured(model[0], "weight", 0.5)
    prune.random_unstructured(model[0], "bias", 0.5)
    prune.random_unstructured(model[2], "weight", 0.3)
    path = save(tmp_path / "m.pt", model.state_dict(), _use_new_zipfile_serialization=zipped)
    masks = {"0.weight": model[0].weight_mask, "2.weight": model[2].weight_mask}
    found = expect(masks, formats.read(path), "torch_prune")
    assert any("1 mask of biases" in note for note in found.provenance["notes"])
    assert any("1 weight without a mask left out: '3.weight'" in note for note in found.provenance["notes"])


def test_synflow_with_scale_layers_under_wrappers(tmp_path):
    masks, weights = some_masks(), some_weights()
    state = {}
    for name in masks:
        state[f"module._orig_mod.{name}"] = torch.from_numpy(weights[name])
        state[f"module._orig_mod.{name}_mask"] = torch.from_numpy(masks[name])
    state["module._orig_mod.shortcut.weight_mask"] = torch.ones(4, 1, 1)
    state["module._orig_mod.bn.weight_mask"] = torch.ones(4)
    found = expect(masks, formats.read(save(tmp_path / "m.pt", {"epoch": 3, "state_dict": state})), "synflow")
    assert "2 all-ones masks of biases, normalisation and scale layers ignored" in found.provenance["notes"]


def test_masks_alone(tmp_path):
    masks = some_masks()
    state = {f"{name}_mask": tensor for name, tensor in tensors(masks).items()}
    expect(masks, formats.read(save(tmp_path / "mask.pt", state)), "synflow")


def test_shrinkbench(tmp_path):
    masks, weights = some_masks(), some_weights()
    state = tensors({name: weights[name] * masks[name] for name in masks})
    state |= {f"{name}_mask": tensor for name, tensor in tensors(masks).items()}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2, 2))]).state_dict()
    path = save(tmp_path / "checkpoint-1.pt", {"model_state_dict": state, "optim_state_dict": optimizer})
    expect(masks, formats.read(path), "shrinkbench")


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float32, torch.bfloat16, torch.float16])
def test_openlth_masks_of_any_type(tmp_path, dtype):
    masks = some_masks()
    named = "openlth" if dtype == torch.int32 else "mask_dict"  # a dict of one's own is not said to be open_lth's
    expect(masks, formats.read(save(tmp_path / "mask.pth", tensors(masks, dtype))), named)


def test_openlth_buffers(tmp_path):
    masks, weights = some_masks(), some_weights()
    state = {f"model.{name}": torch.from_numpy(array) for name, array in weights.items()}
    state |= {"mask_" + name.replace(".", "___"): torch.from_numpy(array).int() for name, array in masks.items()}
    expect(masks, formats.read(save(tmp_path / "model_ep160_it0.pth", state)), "openlth")


def test_torch_ao_sparsifier_and_its_squashed_model(tmp_path):
    from torch.ao.pruning import WeightNormSparsifier

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight"}])
    sparsifier.step()
    masks = {f"{i}.weight": model[i].parametrizations.weight[0].mask.clone() for i in (0, 1)}
    assert 0 < sum(float(mask.sum()) for mask in masks.values()) < 96
    state = sparsifier.state_dict()
    expect(masks, formats.read(save(tmp_path / "s.pt", state)), "torch_ao")
    both = {"model": model.state_dict(), "sparsifier": state}
    expect(masks, formats.read(save(tmp_path / "both.pt", both)), "torch_ao")
    sparsifier.squash_mask()
    expect(masks, formats.read(save(tmp_path / "squashed.pt", model.state_dict())), "zeros")


def test_gem_miner(tmp_path):
    rng = np.random.default_rng(0)
    scores = {name: rng.random(shape).astype(np.float32) for name, shape in SHAPES.items()}
    flags = some_masks(3)
    state = {}
    for name, weight in tensors(some_weights()).items():
        module = name.removesuffix(".weight")
        state |= {
            name: weight,
            f"{module}.scores": torch.from_numpy(scores[name]),
            f"{module}.flag": torch.from_numpy(flags[name]),
        }
        state |= {f"{module}.bias_scores": torch.rand(4), f"{module}.bias_flag": torch.ones(4)}
        scores[name].flat[:4] = 0.5  # its layers keep what is above the half, not at it
    masks = {name: flags[name] * (scores[name] > 0.5) for name in SHAPES}
    expect(masks, formats.read(save(tmp_path / "hc_ckpt_at_sparsity_5.pt", state)), "gem_miner")


def rigl_checkpoint(masks, weights):
    pruner = {"S": [0.0, 0.9, 0.9], "N": [9, 9, 9], "backward_masks": masks, "_linear_layers_mask": [0, 0, 1]}
    return {"epoch": 1, "arch": "resnet", "state_dict": weights, "best_acc1": torch.tensor(1.0), "pruner": pruner}


def test_rigl_names_its_list_by_the_checkpoint_s_weights(tmp_path):
    masks = some_masks()
    masks["conv.weight"][:] = 1
    weights = {f"module.{name}": tensor for name, tensor in tensors(some_weights()).items()} | {
        "module.bn.weight": torch.ones(4)
    }
    entries = [None, *(torch.from_numpy(masks[name]).bool() for name in list(masks)[1:])]
    found = expect(masks, formats.read(save(tmp_path / "c.pt", rigl_checkpoint(entries, weights))), "rigl")
    assert "1 of 3 layers have no mask and are dense" in found.provenance["notes"]
    bare = save(tmp_path / "bare.pt", rigl_checkpoint(entries, {}))
    expect(masks, formats.read(bare, layers(SHAPES)), "rigl")
    with pytest.raises(FormatError, match=r"bare\.pt.*rigl.*need a model"):
        formats.read(bare)
    swapped = save(tmp_path / "swapped.pt", rigl_checkpoint([None, entries[2], entries[1]], weights))
    with pytest.raises(
        FormatError, match=r"mask 1 of the list has shape \(5, 6\).*'module.blocks.0.conv1.weight' has \(6, 4, 3, 3\)"
    ):
        formats.read(swapped)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda arrays: arrays, lambda arrays: {"mask": arrays, "score": [torch.rand(2, 3)]}])
def test_ordered_lists_of_every_pickle_protocol(tmp_path, protocol, wrap):
    masks = some_masks()
    path = tmp_path / "npb.pkl"
    path.write_bytes(pickle.dumps(wrap([np.ones(3, np.float32), *masks.values()]), protocol=protocol))
    found = expect(masks, formats.read(path, layers(SHAPES)), "ordered_list")
    assert "1 array of fewer than two dimensions ignored" in found.provenance["notes"]


def test_a_list_pickled_by_python_2(tmp_path):
    """Protocol 2 as Python 2 wrote it: bytes as text, numpy.core names."""
    data = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    raw = data.tobytes()
    text = (
        b"\x80\x02]q\x00cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06"
        b"(K\x01K\x03K\x02\x86q\x07cnumpy\ndtype\nq\x08U\x02f4q\tK\x00K\x01\x87q\nRq\x0b(K\x03U\x01<q\x0cNNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tq\rb\x89U" + bytes([len(raw)]) + raw + b"q\x0etq\x0fba."
    )
    (tmp_path / "old.pkl").write_bytes(text)
    expect({"fc.weight": data}, formats.read(tmp_path / "old.pkl", layers({"fc.weight": (3, 2)})), "ordered_list")


def test_a_list_that_does_not_fit_names_the_first_place(tmp_path):
    path = tmp_path / "npb.pkl"
    path.write_bytes(pickle.dumps(list(some_masks().values())))
    wrong = layers({**SHAPES, "blocks.0.conv1.weight": (6, 4, 1, 1)})
    with pytest.raises(
        FormatError,
        match=r"mask 1 of the list has shape \(6, 4, 3, 3\) but .*'blocks.0.conv1.weight' has \(6, 4, 1, 1\)",
    ):
        formats.read(path, wrong)
    with pytest.raises(FormatError, match=r"the list has 3 masks but the model's layers are 4.*'more.weight'"):
        formats.read(path, layers({**SHAPES, "more.weight": (2, 5)}))


def test_a_list_is_matched_in_module_order_first(tmp_path):
    """The shortcut of a residual block runs before conv2 and stands after it: lists are written in module order."""
    running = layers({"a": (4, 4), "short": (2, 4), "b": (2, 4)})
    wiring = Wiring(running.inputs, running.steps, running.outputs, parameters=("a", "b", "short"))
    masks = some_masks(shapes={"a": (4, 4), "b": (2, 4), "short": (2, 4)})
    path = tmp_path / "l.pkl"
    path.write_bytes(pickle.dumps(list(masks.values())))
    found = expect(masks, formats.read(path, wiring), "ordered_list")
    assert list(found) == ["a", "short", "b"]
    assert any("module order is what released code writes" in note for note in found.provenance["notes"])
    assert Wiring.from_json(wiring.to_json()).parameters == ("a", "b", "short")
    assert running.parameters == running.names
    with pytest.raises(WiringError, match="module order must be those of the layers"):
        Wiring(running.inputs, running.steps, running.outputs, parameters=("a", "b"))


def test_dicts_of_masks_in_pickles_and_object_arrays(tmp_path):
    masks = some_masks()
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(masks))
    expect(masks, formats.read(tmp_path / "m.pkl"), "mask_dict")
    np.save(tmp_path / "round_1_mask.npy", tensors(masks), allow_pickle=True)
    expect(masks, formats.read(tmp_path / "round_1_mask.npy"), "mask_dict")
    listed = np.empty(3, object)
    listed[:] = list(masks.values())
    np.save(tmp_path / "list.npy", listed, allow_pickle=True)
    expect(masks, formats.read(tmp_path / "list.npy", layers(SHAPES)), "ordered_list")
    np.savez(tmp_path / "unnamed.npz", *masks.values())
    expect(masks, formats.read(tmp_path / "unnamed.npz", layers(SHAPES)), "ordered_list")


def test_npz_of_any_numbers_and_order_of_axes(tmp_path):
    masks = some_masks()
    arrays = {
        name: np.asfortranarray(array.astype(kind)) for (name, array), kind in zip(masks.items(), ("i8", "?", ">f4"))
    }
    np.savez(tmp_path / "m.npz", **arrays)
    expect(masks, formats.read(tmp_path / "m.npz"), "npz")


def test_flax_trees(tmp_path):
    kernel = (np.random.default_rng(0).random((3, 3, 4, 6)) < 0.5).astype(np.uint8)
    dense = (np.random.default_rng(1).random((6, 5)) < 0.5).astype(np.uint8)
    masks = {"Conv_0.kernel": kernel.transpose(3, 2, 0, 1), "Dense_0.kernel": dense.T}
    weights = {
        "params/Conv_0/kernel": kernel * 0.5,
        "params/Dense_0/kernel": dense * 2.0,
        "params/Dense_0/bias": np.ones(5),
    }
    np.savez(tmp_path / "zeros.npz", **weights)
    assert "masks inferred" in expect(masks, formats.read(tmp_path / "zeros.npz"), "flax").provenance["notes"][0]
    np.savez(tmp_path / "masks.npz", **{"masks/Conv_0/kernel": kernel, "masks/Dense_0/kernel": dense})
    expect(masks, formats.read(tmp_path / "masks.npz"), "flax")
    packed = {"masks/Conv_0/kernel": np.packbits(kernel), "masks/Dense_0/kernel": np.packbits(dense)}
    np.savez(tmp_path / "packed.npz", **packed, **{name: np.ones_like(array) for name, array in weights.items()})
    expect(masks, formats.read(tmp_path / "packed.npz"), "flax")
    wiring = layers({"Conv_0.weight": (6, 4, 3, 3), "Dense_0.weight": (5, 6)})
    named = {name.replace("kernel", "weight"): mask for name, mask in masks.items()}
    expect(named, formats.read(tmp_path / "masks.npz", wiring), "flax")


def safetensors(path, arrays, metadata=None):
    """A file as the safetensors package writes it; bfloat16 and float8 through torch."""
    from safetensors.torch import save_file

    save_file({name: torch.as_tensor(array).contiguous() for name, array in arrays.items()}, path, metadata)
    return path


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_zeros_of_every_float_type(tmp_path, dtype, kind):
    masks = some_masks()
    weights = {name: (torch.from_numpy(masks[name] * np.sign(some_weights()[name]) * 1.5)).to(dtype) for name in masks}
    weights["conv.weight"][0, 0, 0, 0] = -0.0
    masks["conv.weight"][0, 0, 0, 0] = 0
    weights["fc.bias"] = torch.ones(5)
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        safetensors(path, weights)
    else:
        save(path, weights, _use_new_zipfile_serialization=kind == "zip")
    expect(masks, formats.read(path), "zeros")


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_nan_weights_count_as_kept_and_are_told(tmp_path, kind):
    for dtype in DTYPES:
        weight = torch.ones(4, 4).to(dtype)
        weight[0, 0], weight[1, 2] = 0, float("nan")
        path = tmp_path / "w.bin"
        safetensors(path, {"a.weight": weight}) if kind == "safetensors" else save(path, {"a.weight": weight})
        masks = formats.read(path)
        assert masks.kept == 15 and masks["a.weight"][1, 2]
        assert "1 weight is NaN, and counts as kept, in 1 layer: 'a.weight'" in masks.provenance["notes"]


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support")
def test_views_shared_and_sparse_tensors_of_torch_files(tmp_path):
    base = (torch.rand(6, 4, 3, 3) < 0.5).float()
    state = {
        "channels_last.weight": base.to(memory_format=torch.channels_last),
        "turned.weight": base[:, :, 0, 0].t(),
        "part.weight": base[2:5],
        "tied.weight": base,
        "expanded.weight": torch.ones(1, 1).expand(7, 9),
        "coo.weight": base[:, 0, 0].to_sparse(),
        "csr.weight": base[:, 0, 0].to_sparse_csr(),
        "csc.weight": base[:, 0, 0].to_sparse_csc(),
        "parameter.weight": torch.nn.Parameter(base),
    }
    for zipped in (True, False):
        path = save(tmp_path / "views.pt", state, _use_new_zipfile_serialization=zipped)
        found = expect({name: tensor.detach() for name, tensor in state.items()}, formats.read(path), "mask_dict")
        assert found == MaskSet({name: t.to_dense() for name, t in torch.load(path, weights_only=True).items()})


def test_a_checkpoint_with_an_optimizer_and_plain_values(tmp_path):
    from collections import Counter, OrderedDict, defaultdict

    masks = some_masks()
    state = OrderedDict(tensors({name: masks[name] * 3 for name in masks}))
    state._metadata = OrderedDict(version=1)
    checkpoint = {
        "net": {"model": state},
        "acc": np.float64(91.2),
        "scheduler": {"milestones": Counter([80, 120]), "flags": {1, 2}},
        "history": defaultdict(list, loss=[0.1] * 10),
        "size": torch.Size([3, 32, 32]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    expect(masks, formats.read(save(tmp_path / "c.pt", checkpoint)), "zeros")


def test_zeros_without_a_wiring_leave_embeddings_out(tmp_path):
    weights = {"transformer.wte.weight": torch.zeros(9, 4), "h.0.weight": 2 * torch.eye(4), "ln.weight": torch.ones(4)}
    found = formats.read(safetensors(tmp_path / "m.safetensors", weights))
    assert list(found) == ["h.0.weight"]
    assert any("1 embedding left out: 'transformer.wte.weight'" in note for note in found.provenance["notes"])


def test_zeros_of_embeddings_alone_are_read(tmp_path):
    found = formats.read(safetensors(tmp_path / "m.safetensors", {"wte.weight": torch.eye(4) * 2}))
    assert list(found) == ["wte.weight"] and found.kept == 4


def test_zeros_with_a_wiring_read_its_layers_only(tmp_path):
    weights = {f"{name}.weight": 2 * torch.eye(4) for name in ("model.a", "model.b", "lm_head")}
    path = safetensors(tmp_path / "m.safetensors", weights)
    found = formats.read(path, layers({"lm_head.weight": (4, 4), "b.weight": (4, 4), "c.weight": (4, 4)}))
    assert list(found) == ["lm_head.weight", "b.weight"]
    assert "1 layer of the model without a mask: 'c.weight'" in found.provenance["notes"]
    assert list(formats.read(path, layers({"model.a.weight": (4, 4)}))) == ["model.a.weight"]
    with pytest.raises(FormatError, match="none of the model's layers is in it"):
        formats.read(path, layers({"other": (4, 4)}))
    with pytest.raises(WiringError, match=r"m\.safetensors.*'model.b.weight' has shape \(4, 4\) but .* \(5, 4\)"):
        formats.read(path, layers({"b.weight": (5, 4)}))


def test_the_prefix_model_goes_only_if_all_have_it(tmp_path):
    every = {"model.model.a.weight": torch.eye(4), "model.model.b.weight": torch.eye(4)}
    assert list(formats.read(safetensors(tmp_path / "a.safetensors", every))) == ["a.weight", "b.weight"]
    some = {"model.a.weight": torch.eye(4), "lm_head.weight": torch.eye(4)}
    assert set(formats.read(safetensors(tmp_path / "b.safetensors", some))) == {"model.a.weight", "lm_head.weight"}
    both = {"module.a.weight": torch.eye(4), "a.weight": torch.eye(4)}
    with pytest.raises(
        FormatError, match=r"'(module\.)?a.weight' and '(module\.)?a.weight' are both the parameter 'a.weight'"
    ):
        formats.read(safetensors(tmp_path / "c.safetensors", both))


def test_input_first_layers_are_turned(tmp_path):
    """GPT-2's Conv1D, an embedding, square or not, and a transposed convolution in two groups."""
    rng = np.random.default_rng(0)
    stored = {
        "c_attn.weight": rng.random((4, 12)) < 0.5,
        "c_proj.weight": rng.random((4, 4)) < 0.5,
        "wte.weight": rng.random((9, 4)) < 0.5,
        "up.weight": rng.random((6, 2, 3, 3)) < 0.5,
    }
    up = np.zeros((4, 3, 3, 3), bool)
    for group in range(2):
        for i in range(3):
            for o in range(2):
                up[2 * group + o, i] = stored["up.weight"][3 * group + i, o]
    masks = {name: array.T for name, array in stored.items() if name != "up.weight"} | {"up.weight": up}
    wiring = layers(
        {name: mask.shape for name, mask in masks.items()},
        **{name: {"transposed": True, "groups": 2 if name == "up.weight" else 1} for name in masks},
    )
    weights = {name: torch.from_numpy(array * 2.5) for name, array in stored.items()}
    expect(masks, formats.read(safetensors(tmp_path / "w.safetensors", weights), wiring), "zeros")
    expect(
        masks,
        formats.read(save(tmp_path / "m.pth", {n: torch.from_numpy(a) for n, a in stored.items()}), wiring),
        "mask_dict",
    )
    # Once read, masks are output-first: what is written from them is not turned again.
    for file in ("own.safetensors", "own.npz"):
        formats.write(MaskSet(masks), tmp_path / file)
        assert formats.read(tmp_path / file, wiring) == MaskSet(masks)
    np.savez(tmp_path / "stored.npz", **stored)
    expect(masks, formats.read(tmp_path / "stored.npz", wiring), "npz")


def test_own_files_lay_masks_out_as_parameters(tmp_path):
    """Any safetensors reader may multiply weight and mask, square layers and groups included; topo reads them back."""
    from safetensors.numpy import load_file

    up, square = torch.nn.ConvTranspose2d(6, 4, 3, groups=2), torch.nn.ConvTranspose2d(4, 4, 3)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), up, torch.nn.Conv2d(4, 4, 1), square)
    wiring = topo.trace(model, (3, 8, 8))
    masks = topo.generate("random", wiring, density=0.4, rng=0)
    assert masks.provenance["input_first"] == {"1.weight": 2, "3.weight": 1}
    again = topo.generate("shuffle", source=topo.generate("shuffle", source=masks))
    pruned = topo.pruners.prune("magnitude", model, density=0.4)
    for number, made in enumerate((masks, again, pruned)):
        path = tmp_path / f"{number}.safetensors"
        topo.write_masks(made, path)
        stored = load_file(path)
        applied = topo.strip_masks(topo.apply_masks(copy.deepcopy(model), made))
        for name, mask in stored.items():
            assert torch.equal(torch.from_numpy(mask) * model.get_parameter(name), applied.get_parameter(name))
        for found in (topo.read_masks(path), topo.read_masks(path, wiring)):
            assert found == made and found.provenance["input_first"] == masks.provenance["input_first"]
            topo.write_masks(found, tmp_path / "again.safetensors")
            for name, mask in load_file(tmp_path / "again.safetensors").items():
                np.testing.assert_array_equal(mask, stored[name])
    text = path.read_bytes()
    path.write_bytes(text.replace(b'\\"1.weight\\": 2', b'\\"1.weight\\": 5'))
    with pytest.raises(MaskError, match="which 5 groups do not divide"):
        topo.read_masks(path)
    path.write_bytes(text.replace(b'\\"1.weight\\": 2', b'\\"1.weight\\": 0'))
    with pytest.raises(FormatError, match="its metadata is corrupt"):
        topo.read_masks(path)


def test_a_square_layer_keeps_its_layout_through_a_conversion_without_the_model(tmp_path):
    """Nothing in its shape says how it is stored; where the masks came from does."""
    layers = torch.nn.Conv2d(3, 4, 1), torch.nn.ConvTranspose2d(4, 4, 2, stride=2), torch.nn.Conv2d(4, 2, 1)
    model = torch.nn.Sequential(*layers)
    wiring = topo.trace(model, (3, 4, 4))
    for layer in layers:
        torch.nn.utils.prune.random_unstructured(layer, "weight", 0.5)
    path = save(tmp_path / "pruned.pt", model.state_dict())
    masks = topo.read_masks(path, wiring)
    assert not (masks["1.weight"] == masks["1.weight"].swapaxes(0, 1)).all() and masks.provenance["notes"] == []
    topo.write_masks(topo.read_masks(path), tmp_path / "own.safetensors")
    own = topo.read_masks(tmp_path / "own.safetensors", wiring)
    assert own == masks and own.provenance["notes"] == []
    topo.write_masks(topo.read_masks(path), tmp_path / "plain.npz")
    plain = topo.read_masks(tmp_path / "plain.npz", wiring).provenance["notes"]
    assert plain == ["square layers that torch stores input-first, taken as (out, in): '1.weight'"]
    for method in ("invert", "configuration"):  # made without the model: laid out as what they were made from
        for start in (path, tmp_path / "own.safetensors"):
            topo.write_masks(topo.generate(method, source=topo.read_masks(start)), tmp_path / "made.safetensors")
            made = topo.read_masks(tmp_path / "made.safetensors", wiring)["1.weight"].sum(axis=(2, 3))
            kept = masks["1.weight"].sum(axis=(2, 3))
            degrees = np.concatenate([kept.sum(axis=0), kept.sum(axis=1)])
            if method == "configuration":
                assert np.concatenate([made.sum(axis=0), made.sum(axis=1)]).tolist() == degrees.tolist()
            else:
                assert (made + kept).max() <= 4
    for odd in ("spam", 3, [1]):  # what a stranger may write
        known = topo.read_masks(path).with_provenance(source={"format": odd}, format="topo", file="x")
        topo.write_masks(known, tmp_path / "odd.safetensors")
        assert topo.read_masks(tmp_path / "odd.safetensors", wiring) != masks


def test_shards_and_folders(tmp_path):
    masks = some_masks()
    weights = tensors({name: masks[name] * 2 for name in masks}, torch.bfloat16)
    places = {}
    for i, name in enumerate(weights):
        shard = f"model-0000{i + 1}-of-00003.safetensors"
        safetensors(tmp_path / shard, {name: weights[name]})
        places[name] = shard
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    for path in (index, tmp_path):
        found = expect(masks, formats.read(path), "zeros")
        assert found.provenance["file"] == path.name
        assert list(found) == list(masks)
    index.unlink()
    found = expect(masks, formats.read(tmp_path), "zeros")
    assert any("3 files of the folder" in note for note in found.provenance["notes"])
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FormatError, match=r"lacks the shard 'model-00002-of-00003\.safetensors'"):
        formats.read(tmp_path)


def test_compressed_tensors_bitmasks(tmp_path):
    masks = {"a.weight": some_masks()["fc.weight"], "q.weight": np.tile([1.0, 0, 0, 1, 0, 1, 1, 0], (3, 2))}
    for suffix in ("", ".weight"):
        arrays = {"lm_head.weight": np.ones((2, 2), np.float32), "norm.weight": np.ones(4, np.float32)}
        for name, mask in masks.items():
            key = name.removesuffix(".weight") + suffix
            arrays[f"{key}.shape"] = (
                np.array(mask.shape, np.int64).reshape(-1, 1) if name[0] == "q" else np.array(mask.shape)
            )
            arrays[f"{key}.bitmask"] = np.packbits(mask != 0, axis=-1, bitorder="little")
            kept = np.full(int(mask.sum()), 0.5, np.float16)
            arrays[f"{key}.compressed"] = kept.reshape(3, -1) if name[0] == "q" else kept
            arrays[f"{key}.row_offsets"] = np.cumsum([0, *mask.sum(1)[:-1]]).astype(np.int64)
        path = safetensors(tmp_path / f"c{suffix}.safetensors", arrays)
        expect(masks, formats.read(path), "bitmask")
    arrays["a.weight.compressed"] = np.ones(3, np.float16)
    with pytest.raises(FormatError, match=r"keeps \d+ weights but 'a.weight.compressed' holds 3"):
        formats.read(safetensors(tmp_path / "wrong.safetensors", arrays))


def test_unaligned_and_unknown_safetensors_entries(tmp_path):
    weight = np.array([[1, 0, 2.5]], np.float32)
    header = {
        "a.weight": {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 12]},
        "scale": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [12, 14]},
        "none.weight": {"dtype": "F32", "shape": [0, 3], "data_offsets": [14, 14]},
    }
    text = json.dumps(header).encode()
    text += b" " * ((1 - len(text)) % 4)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + weight.tobytes() + b"\1\2")
    with pytest.raises(MaskError, match=r"'none.weight' has shape \(0, 3\)"):
        formats.read(path)
    found = formats.read(path, layers({"a.weight": (1, 3)}))
    assert found["a.weight"].tolist() == [[True, False, True]]


def test_a_large_layer_is_packed_in_blocks(tmp_path, monkeypatch):
    from topo.containers import tensors as module

    mask = (np.random.default_rng(0).random((37, 70)) < 0.3).astype(np.float32)
    weight = torch.from_numpy(mask * 2).to(torch.bfloat16)
    monkeypatch.setattr(module, "BLOCK", 300)
    expect({"a.weight": mask}, formats.read(safetensors(tmp_path / "w.safetensors", {"a.weight": weight})), "zeros")
    np.savez_compressed(tmp_path / "m.npz", a=mask)
    expect({"a": mask}, formats.read(tmp_path / "m.npz"), "npz")
    turned = layers({"a": (70, 37)}, a={"transposed": True})
    expect({"a": mask.T}, formats.read(tmp_path / "m.npz", turned), "npz")
    mask[36, 69] = 2
    np.savez(tmp_path / "bad.npz", a=mask.astype(np.int8))
    with pytest.raises(MaskError, match=r"bad\.npz.*mask 'a' holds 2"):
        formats.read(tmp_path / "bad.npz")


@pytest.mark.slow
def test_reading_brings_no_torch(tmp_path):
    masks = MaskSet(some_masks())
    formats.write(masks, tmp_path / "a.safetensors")
    formats.write(masks, tmp_path / "b.npz")
    save(tmp_path / "c.pt", tensors(some_masks()))
    code = (
        "import sys, topo.formats as f; [f.read(p) for p in sys.argv[1:]]; "
        "assert not {'torch', 'scipy', 'networkx', 'matplotlib', 'safetensors'} & set(sys.modules)"
    )
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.npz", "c.pt")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)


@pytest.mark.slow
def test_memory_stays_within_a_byte_and_a_half_a_parameter(tmp_path):
    """Beyond the file's own bytes: 16 M float32 weights in one layer, in a process of its own."""
    path = tmp_path / "w.npz"
    size = 4096 * 4096
    header = {"a.weight": {"dtype": "F32", "shape": [4096, 4096], "data_offsets": [0, 4 * size]}}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        np.ones(size, np.float32).tofile(file)
    code = (
        "import resource, sys, topo.formats as f, topo.kernels.bits, numpy as np\n"
        "f.read(sys.argv[1])\n"
        "top = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = top(); masks = f.read(sys.argv[2]); print(top() - before, masks.kept)"
    )
    small = tmp_path / "s.npz"
    formats.write(MaskSet({"a": np.ones((2048, 1024))}), small)
    run = subprocess.run([sys.executable, "-c", code, small, path], check=True, capture_output=True, text=True)
    grown, kept = map(int, run.stdout.split())
    assert kept == size
    assert grown <= path.stat().st_size + 1.5 * size


def test_a_chain_can_be_read_and_wired(tmp_path):
    masks = {"a": np.ones((3, 2)), "b": np.ones((2, 3))}
    formats.write(MaskSet(masks), tmp_path / "c.npz")
    found = formats.read(tmp_path / "c.npz")
    assert formats.read(tmp_path / "c.npz", chain(found)) == found


def test_zip_timestamps_do_not_enter_the_bytes(tmp_path):
    formats.write(MaskSet(some_masks()), tmp_path / "m.npz")
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [name for name in os.listdir(tmp_path)] == ["m.npz"]


def test_stacked_experts_are_laid_flat(tmp_path) -> None:
    """A parameter (experts, out, in) is one layer of (experts * out, in) in a wiring."""
    experts = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    up = Layer("up", (12, 5), np.tile(np.arange(5), 3), 5, groups=3)
    wiring = Wiring(np.arange(5), (up,), np.arange(5, 17))
    topo_npz = tmp_path / "experts.npz"
    np.savez(topo_npz, up=experts)
    masks = formats.read(topo_npz, wiring)
    assert masks.shapes == {"up": (12, 5)} and (masks["up"] == experts.reshape(12, 5)).all()
