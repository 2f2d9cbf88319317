"""Files that this project writes come back as they were written, whatever the masks are called."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo import formats
from topo._support.text_files import read_text
from topo.errors import FormatError, TopoError, WiringError
from topo.masks import MaskSet
from topo.wiring import Wiring

# Parts of names that mean something in other files.
MEANT = [
    "kernel", "mask", "weight_mask", "mask_weight", "module", "_orig_mod", "model", "arr_0", "0", "bias", "weight",
    "weight_orig", "scores", "weight_v", "weight_g", "original0", "parametrizations", "optimizer", "exp_avg", "grad",
    "format", "shape", "data", "indices", "lora_A", "qweight", "embed", "state_dict", "experts", "w1", "x.npy",
]  # fmt: skip
NAMES = st.one_of(
    st.lists(st.sampled_from(MEANT), min_size=1, max_size=4).flatmap(
        lambda parts: st.sampled_from("./_").map(lambda dot: dot.join(parts))
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
)
SHAPES = st.one_of(
    st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple), st.sampled_from([(1, 1, 1), (3, 1, 1), (130, 1)])
)


@st.composite
def mask_sets(draw):
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    density = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return MaskSet({name: rng.random(draw(SHAPES)) < density for name in names})


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@settings(max_examples=120)
@given(masks=mask_sets())
def test_any_names_and_shapes_come_back(tmp_path_factory, ending, masks):
    path = tmp_path_factory.getbasetemp() / f"own{ending}"
    formats.write(masks, path)
    found = formats.read(path)
    assert dict(found.shapes) == dict(masks.shapes)
    assert found == masks
    assert list(found) == list(masks)
    assert found.provenance["notes"] == []
    assert found.provenance["coverage"] == {"read": masks.size, "left_out": 0, "names": []}
    again = path.with_name(f"again{ending}")
    formats.write(masks, again)
    assert again.read_bytes() == path.read_bytes()


def test_numpy_reads_an_npz_of_our_own(tmp_path):
    masks = MaskSet({"a.kernel": np.eye(3), "module.b_mask": np.ones((2, 1, 1))})
    formats.write(masks, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {name: masks[name].tolist() for name in masks}


def test_names_that_a_file_cannot_hold_are_refused(tmp_path):
    for name in ("a\0b", "\ud800", "x" * 70_000):
        with pytest.raises(FormatError, match=r"cannot hold the name .* write the masks as \.safetensors"):
            formats.write(MaskSet({name: np.eye(2)}), tmp_path / "m.npz")
        formats.write(MaskSet({name: np.eye(2)}), tmp_path / "m.safetensors")
        assert list(formats.read(tmp_path / "m.safetensors")) == [name]
    with pytest.raises(FormatError, match="called '__metadata__'"):
        formats.write(MaskSet({"__metadata__": np.eye(2)}), tmp_path / "n.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors"]


# --- what a stranger's file says of itself


def own(path: Path, **metadata: str) -> Path:
    text = {"topo_schema": "topo-masks/1", **metadata}
    entry = {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": text, "a.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes([1, 0, 0, 1]))
    return path


ODD = [None, True, -1, 1.5, 10**30, "x", [], {}, [1], {"a": None}, [["x"]], {"a": {"b": [None]}}, "\x1b[31m"]
RAW = ["NaN", "[Infinity]", "1e999", "[" * 5000, '{"a":' * 100 + "1" + "}" * 100, "{", "\x1b", "1" * 5000]


@pytest.mark.parametrize("word", ["provenance", "order", "options", "input_shape", "seed", "input_first", "model"])
def test_values_of_metadata_are_checked(tmp_path, word):
    """Read with values that are told and written on, or refused in one line."""
    for text in (*map(json.dumps, ODD), *(str(value) for value in ODD), *RAW):
        path = own(tmp_path / "m.safetensors", **{word: text})
        try:
            masks = formats.read(path)
        except FormatError as error:
            assert "its metadata is corrupt" in str(error), text
            assert str(error).isprintable()
            assert len(str(error)) <= 400
            continue
        assert masks["a.weight"].tolist() == [[True, False], [False, True]]
        told = json.dumps(dict(masks.provenance), allow_nan=False)
        assert "\\u001b" not in told.replace("\\\\u001b", "")  # but for a backslash and a u
        formats.write(masks, tmp_path / "again.safetensors")


@pytest.mark.parametrize("name", ["notes", "coverage", "input_shape", "source", "file", "format", "input_first"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_values_within_the_provenance_are_checked(tmp_path, name, value):
    path = own(tmp_path / "m.safetensors", provenance=json.dumps({name: value}))
    try:
        masks = formats.read(path)
    except FormatError as error:
        assert "its metadata is corrupt" in str(error)
        return
    told = json.dumps(dict(masks.provenance), allow_nan=False)
    assert "\\u001b" not in told
    formats.write(masks, tmp_path / "again.safetensors")
    assert formats.read(tmp_path / "again.safetensors") == masks


# --- texts that users name


def test_texts_are_files_of_bounded_size(tmp_path):
    (tmp_path / "a.json").write_text("{}\u00e9", "utf-8")
    assert read_text(tmp_path / "a.json") == "{}\u00e9"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 64_000_001)
    said = {
        "pipe": "is not a regular file", "folder": "is a folder", "missing": "cannot read", "odd": "is not text",
        "large": "64,000,001 bytes, more than the 64,000,000", "/dev/zero": "not a regular file", "a\0b": "cannot read",
    }  # fmt: skip
    for name, text in said.items():
        with pytest.raises(WiringError, match=text) as caught:
            read_text(str(tmp_path / name), "wiring", WiringError)
        assert str(caught.value).isprintable()


def test_no_reader_of_texts_waits_for_a_pipe(tmp_path):
    """All that take a path of a text refuse a pipe at once."""
    from topo.plots.reading import read_frontier
    from topo.train.recipe import find_recipe

    for ending, read in ((".json", Wiring.load), (".toml", find_recipe), (".json", read_frontier)):
        pipe = tmp_path / f"{read.__name__}{ending}"
        os.mkfifo(pipe)
        with pytest.raises(TopoError, match="not a regular file"):
            read(pipe)
