"""The door of the formats: what a reader may be, in which order readers are asked, and what they may give back."""

from __future__ import annotations

import numpy as np
import pytest

from topo import formats
from topo._support.order import in_order
from topo.errors import TopoError
from topo.formats.source import reader


@pytest.fixture
def door(monkeypatch):
    """Readers registered in a test are gone after it."""
    len(formats.formats)
    monkeypatch.setattr(formats.formats, "_entries", dict(formats.formats._entries))
    return formats.formats


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "m.npz", **{"a.weight": np.eye(3)})
    return tmp_path / "m.npz"


def never(source):
    return "it never is"


def test_readers_come_before_those_they_name():
    names = [entry.name for entry in formats.readers()]
    assert sorted(names) == sorted(formats.formats)
    for entry in formats.readers():
        assert all(names.index(entry.name) < names.index(other) for other in entry.before), entry.name
    assert names[0] == "topo"


def test_an_order_is_a_partial_one():
    assert in_order("toy", {"a": ("b",), "b": (), "plugin": ()}) == ["plugin", "a", "b"]
    assert in_order("toy", {}) == []
    with pytest.raises(TopoError, match="toy 'a' goes before 'x', which is not a toy; there are: a, b"):
        in_order("toy", {"a": ("x",), "b": ()})
    with pytest.raises(TopoError, match="toys that go before each other in a circle: b, a"):
        in_order("toy", {"a": ("b",), "b": ("a",), "c": ()})


WORDS = {
    "rank": ({"rank": 3}, "there is no rank="),
    "before a number": ({"before": 3}, "before=3 is neither a name nor several"),
    "before numbers": ({"before": (3,)}, "neither a name nor several"),
    "no function": ({"recognise": "yes"}, "recognise is 'yes'; it is a function"),
    "an ending without write": ({"ending": ".npz"}, "ending .* and write are given together"),
    "write without an ending": ({"write": print}, "ending .* and write are given together"),
    "an ending without a dot": ({"ending": "npz", "write": print}, "ending"),
    "output_first as text": ({"output_first": "yes"}, "output_first is 'yes', not True or False"),
    "no name": ({"name": ""}, "its name is ''"),
    "an about of lines": ({"about": "a\nb"}, "not one line"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_are_checked_when_registering(door, case):
    words, said = WORDS[case]
    words = {"name": "mine", "about": "a file of mine", "recognise": never, **words}
    with pytest.raises(TopoError, match=said):
        reader(words.pop("name"), words.pop("about"), **words)(lambda source: {})
    assert "mine" not in door


def test_a_name_is_taken_once(door):
    with pytest.raises(TopoError, match="format 'zeros' is registered twice"):
        reader("zeros", "another", recognise=never)(lambda source: {})
    with pytest.raises(TopoError, match="stands over a function"):
        reader("mine", "a file of mine", recognise=never)({})


@pytest.mark.parametrize("lacks", [False, True, 3, b"no", ["no"], ""])
def test_a_recognise_that_gives_neither_none_nor_a_text_is_named(door, file, lacks):
    reader("mine", "a file of mine", recognise=lambda source: lacks)(lambda source: {})
    with pytest.raises(TopoError, match="reader 'mine' is faulty: recognise gives"):
        formats.read(file)


GIVEN = {
    "nothing": (None, "read gives a NoneType"),
    "a list": ([np.eye(2)], "read gives a list"),
    "text": ({"a": "0101"}, "for 'a' it gives a str, which is not an array"),
    "lists": ({"a": [[0, 1]]}, "for 'a' it gives a list"),
    "numbers for names": ({3: np.eye(2)}, "it names a mask 3, which is not a text"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_reader_gives_is_checked(door, file, case):
    given, said = GIVEN[case]
    reader("mine", "a file of mine", recognise=lambda source: None)(lambda source: given)
    with pytest.raises(TopoError, match=f"reader 'mine' is faulty: .*{said}"):
        formats.read(file)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", ">f4"])
def test_a_reader_may_give_arrays(door, file, dtype):
    reader("mine", "a file of mine", recognise=lambda source: None)(lambda source: {"a": np.eye(3).astype(dtype)})
    assert formats.read(file)["a"].tolist() == np.eye(3, dtype=bool).tolist()


def test_a_mistake_of_a_reader_is_one_line_that_names_it(door, file):
    reader("mine", "a file of mine", recognise=lambda source: None)(lambda source: source.spam)
    with pytest.raises(TopoError, match="the reader 'mine' failed: AttributeError"):
        formats.read(file)
    reader("other", "a file of mine", recognise=lambda source: 1 / 0)(lambda source: {})
    with pytest.raises(TopoError, match="the reader 'other' failed: ZeroDivisionError"):
        formats.read(file)


KERAS = {
    "Keras 2": {"dense/dense/kernel:0": (4, 3), "conv/conv/kernel:0": (3, 3, 2, 5), "conv/conv/bias:0": (5,)},
    "a whole model": {"model_weights/dense/dense/kernel:0": (4, 3), "model_weights/conv/conv/kernel:0": (3, 3, 2, 5)},
    "Keras 3": {"layers/dense/vars/0": (4, 3), "layers/conv/vars/0": (3, 3, 2, 5), "layers/conv/vars/1": (5,)},
}


@pytest.mark.parametrize("layout", KERAS)
@pytest.mark.parametrize("masks", [True, False])
def test_kernels_of_keras_are_turned(tmp_path, layout, masks):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: HDF5 is read where it is")
    rng = np.random.default_rng(0)
    arrays = {path: rng.random(shape) < 0.5 for path, shape in KERAS[layout].items()}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for path, array in arrays.items():
            file[path] = array.astype("f4") * (1 if masks else 0.3)
    found = formats.read(tmp_path / "m.h5")
    dense, conv = list(arrays.values())[:2]
    assert found.provenance["format"] == "keras"
    assert {name: found[name].tolist() for name in found} == {
        "dense.kernel": dense.T.tolist(),
        "conv.kernel": conv.transpose(3, 2, 0, 1).tolist(),
    }


def test_other_layers_of_keras(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: HDF5 is read where it is")
    depthwise = np.random.default_rng(0).random((3, 3, 2, 2)) < 0.5
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["d/d/depthwise_kernel:0"] = depthwise.astype("f4")
        file["l/l/recurrent_kernel:0"] = np.eye(2, 8, dtype="f4")
        file["e/e/embeddings:0"] = np.ones((9, 2), "f4")
    found = formats.read(tmp_path / "m.h5")
    assert list(found) == ["d.depthwise_kernel", "l.recurrent_kernel"]
    assert all(
        (found["d.depthwise_kernel"][2 * i + j, 0] == depthwise[:, :, i, j]).all() for i in (0, 1) for j in (0, 1)
    )
    assert any("embeddings" in note for note in found.provenance["notes"])
    with h5py.File(tmp_path / "n.h5", "w") as file:
        file["a/kernel:0"] = np.full((3, 2), 0.5, "f4")
    with pytest.raises(TopoError, match="none of its kernels holds a zero"):
        formats.read(tmp_path / "n.h5")
