"""Every kind of file, as its own library writes it, taken apart: the same tensors, or one line that says why not."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from argparse import Namespace

import fuzzing
import numpy as np
import pytest

from topo import formats
from topo.cli import main
from topo.containers.container import File, Kind, container, containers, kinds
from topo.containers.mapped import bytes_of
from topo.containers.opening import explain, kind_of, open_container
from topo.containers.safetensors import LARGEST_HEADER
from topo.containers.tensors import Tensor
from topo.errors import FormatError, TopoError

torch = pytest.importorskip("torch")
scipy_sparse = pytest.importorskip("scipy.sparse")


def weights(seed=0, shapes=None):
    """Pruned weights by name."""
    rng = np.random.default_rng(seed)
    shapes = shapes or {"stem.weight": (4, 3, 3, 3), "fc.weight": (6, 8), "fc.bias": (6,)}
    return {name: ((rng.random(s) < 0.4) * (1 + rng.random(s))).astype(np.float32) for name, s in shapes.items()}


def torch_weights():
    return {name: torch.from_numpy(array) for name, array in weights().items()}


def same(content, expected):
    """Whether the tensors by name are those expected."""
    assert content.keys() == expected.keys()
    for name, array in expected.items():
        assert isinstance(content[name], Tensor)
        np.testing.assert_array_equal(content[name].whole(), np.asarray(array))
        assert content[name].shape == tuple(array.shape)


# --- what torch saves


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
@pytest.mark.parametrize("zipped", [True, False])
def test_sparse_tensors_of_torch(tmp_path, layout, zipped):
    dense = torch.from_numpy(weights(1, {"w": (6, 8)})["w"])
    made = dense.to_sparse() if layout == "coo" else getattr(dense, f"to_sparse_{layout}")(
        *([(2, 4)] if layout.startswith("bs") else [])
    )  # fmt: skip
    torch.save({"w": made}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    same(open_container(tmp_path / "m.pt").content, {"w": dense.numpy()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_semi_structured_tensors_of_torch(tmp_path, dtype):
    """What torch's own conversion packs is read as the dense matrix was."""
    from torch.sparse import SparseSemiStructuredTensorCUTLASS
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    of, rng = 2 if dtype == torch.float32 else 4, np.random.default_rng(0)
    for rows, columns in ((32, 64), (96, 192)):
        order = rng.random((rows, columns // of, of)).argsort(-1)
        kept = order < rng.integers(0, of // 2 + 1, (rows, columns // of, 1))
        dense = torch.from_numpy(kept.reshape(rows, columns) * rng.integers(1, 99, (rows, columns))).to(dtype)
        packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
        parts = dict(packed_t=None, meta_t=None, compressed_swizzled_bitmask=None)
        made = SparseSemiStructuredTensorCUTLASS(dense.shape, packed=packed, meta=meta, **parts)
        for zipped in (True, False):
            held = {"a": made, "b": torch.nn.Parameter(made, requires_grad=False)}
            torch.save(held, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
            bits = dense.view(torch.uint16) if dtype == torch.bfloat16 else dense
            same(open_container(tmp_path / "m.pt").content, {"a": bits, "b": bits})
        for odd in (meta[:, :1], meta.reshape(-1), meta.float()):
            made = SparseSemiStructuredTensorCUTLASS(dense.shape, packed=packed, meta=odd, **parts)
            torch.save({"a": made}, tmp_path / "m.pt")
            with pytest.raises(FormatError, match=r"is not read; save its to_dense\(\)"):
                open_container(tmp_path / "m.pt")
        made = SparseSemiStructuredTensorCUTLASS(dense.shape, packed=packed, meta=None, **parts)  # as cuSPARSELt has it
        torch.save({"a": made}, tmp_path / "m.pt")
        with pytest.raises(FormatError, match=r"cuSPARSELt keeps it, which is not read; save plain values"):
            open_container(tmp_path / "m.pt")


SCHEMES = {
    "tensor quint8": lambda w: torch.quantize_per_tensor(w, 0.02, 7, torch.quint8),
    "tensor qint8": lambda w: torch.quantize_per_tensor(w, 0.02, -3, torch.qint8),
    "tensor qint32": lambda w: torch.quantize_per_tensor(w, 0.001, 5, torch.qint32),
    "channel 0": lambda w: torch.quantize_per_channel(
        w, torch.linspace(0.01, 0.03, 6), torch.arange(6), 0, torch.quint8
    ),
    "channel 1": lambda w: torch.quantize_per_channel(
        w, torch.linspace(0.01, 0.03, 8), torch.arange(8), 1, torch.qint8
    ),
    "float channel": lambda w: torch.quantize_per_channel(
        w, torch.linspace(0.01, 0.03, 6), torch.zeros(6), 0, torch.quint8
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantised_tensors_stand_for_their_values(tmp_path, scheme):
    dense = torch.from_numpy(weights(2, {"w": (6, 8)})["w"])
    made = SCHEMES[scheme](dense)
    torch.save({"w": made}, tmp_path / "m.pt")
    found = open_container(tmp_path / "m.pt").content["w"]
    np.testing.assert_allclose(found.whole(), made.dequantize().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(found.whole() != 0, made.dequantize().numpy() != 0)
    np.testing.assert_array_equal(np.concatenate(list(found.rows(4))), found.whole())


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3)
        self.inner = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5))

    def forward(self, x):
        return self.inner(self.stem(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_and_exported_programs_have_the_names_of_the_state_dict(tmp_path):
    net = Net().eval()
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    example = torch.zeros(1, 3, 8, 8)
    torch.jit.script(net).save(tmp_path / "s.pt")
    torch.jit.trace(net, example).save(tmp_path / "t.pt")
    torch.export.save(torch.export.export(net, (example,)), tmp_path / "e.pt2")
    for name, kind in (("s.pt", "torchscript"), ("t.pt", "torchscript"), ("e.pt2", "torch_export")):
        found = open_container(tmp_path / name)
        assert found.kind == kind
        same(found.content, state)
    torch.jit.freeze(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 3)).eval())).save(tmp_path / "f.pt")
    frozen = open_container(tmp_path / "f.pt")
    assert [tensor.shape for tensor in frozen.content.values()] == [(3, 4), (3,)]
    assert "without a parameter's name" in frozen.notes[0]


def test_an_old_export_holds_a_torch_file(tmp_path):
    held = io.BytesIO()
    torch.save(torch_weights(), held)
    with zipfile.ZipFile(tmp_path / "e.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", held.getvalue())
    same(open_container(tmp_path / "e.pt2").content, weights())


# --- objects beside tensors


class Odd:
    """What stands for omegaconf, schedulers and the like: a class with attributes, items and calls of its own."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class OddDict(dict):
    pass


OBJECTS = {
    "a Namespace": lambda: Namespace(lr=0.1, data=pathlib.PurePosixPath("/data"), nested=Namespace(a=[1, 2])),
    "a path": lambda: pathlib.PurePosixPath("/data/x"),
    "a date": lambda: datetime.datetime(2024, 1, 2),
    "a span": lambda: datetime.timedelta(3),
    "a class": lambda: torch.optim.lr_scheduler.StepLR,
    "a function": lambda: torch.nn.functional.relu,
    "an object": lambda: Odd(rate=0.1, when=datetime.date(2024, 1, 2)),
    "a dict of a class": lambda: OddDict(a=1),
    "a complex number": lambda: 1 + 2j,
    "a slice": lambda: slice(1, 2),
    "a range": lambda: range(3),
    "a loss": lambda: torch.nn.CrossEntropyLoss(),
    "an optimizer with its parameters": lambda: torch.optim.SGD([torch.ones(2, 2, requires_grad=True)], lr=0.1),
}


@pytest.mark.parametrize("what", OBJECTS)
@pytest.mark.parametrize("way", ["torch", "torch_legacy", "pickle", "pickle 0", "npy"])
def test_an_object_beside_tensors_is_left_out_with_a_note(tmp_path, what, way):
    content = {"odd": OBJECTS[what](), "masks": weights(), "epoch": 3, "inner": {"more": OBJECTS[what](), "x": 1}}
    path = tmp_path / "m.bin"
    if way.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=way == "torch")
    elif way.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, 0 if way.endswith("0") else 4))
    else:
        with open(path, "wb") as file:
            np.save(file, content, allow_pickle=True)
    found = open_container(path)
    same(found.content["masks"], weights())
    assert found.content["epoch"] == 3
    assert found.content["inner"] == {"x": 1}
    assert "odd" not in found.content
    (note,) = found.notes
    assert note.startswith("objects without masks left out")
    assert "'odd' (" in note
    assert "'more' (" in note


def test_tensors_in_an_object_are_not_left_out(tmp_path):
    torch.save({"a.weight": torch.eye(3), "pruner": Odd(masks={"a.weight": torch.eye(3)})}, tmp_path / "m.pt")
    with pytest.raises(FormatError, match=r"1 tensors in an object of class '.*Odd'"):
        open_container(tmp_path / "m.pt")
    torch.save({"a.weight": torch.eye(3), "net": torch.nn.Linear(2, 2)}, tmp_path / "n.pt")
    with pytest.raises(FormatError, match=r"a pickled module of class 'torch\.nn\.modules\.linear\.Linear'"):
        open_container(tmp_path / "n.pt")
    torch.save([torch.eye(3), Odd()], tmp_path / "l.pt")
    with pytest.raises(FormatError, match="Odd"):
        open_container(tmp_path / "l.pt")


def test_many_objects_of_one_thing_are_looked_at_once(tmp_path):
    shared = list(range(20_000))
    content = {f"o{i}": Odd(shared=shared) for i in range(2_000)} | {"w": np.eye(2)}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, 4))
    assert list(open_container(tmp_path / "m.pkl").content) == ["w"]


def test_a_tensor_of_a_class_is_refused_by_name(tmp_path):
    """As torch pickles its semi-structured tensors, which only a GPU makes."""
    name = b"ctorch.sparse.semi_structured\nSparseSemiStructuredTensorCUTLASS\n"
    rebuilt = b"ctorch._utils\n_rebuild_wrapper_subclass\n"
    data = b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(" + rebuilt + name + b")}tR."
    (tmp_path / "m.pkl").write_bytes(data)
    with pytest.raises(FormatError, match=r"class 'torch\.sparse.*CUTLASS', which is not read; .*to_dense"):
        open_container(tmp_path / "m.pkl")


# --- scipy


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool, np.int8])
def test_a_sparse_matrix_of_scipy_is_called_as_its_file(tmp_path, layout, dtype):
    dense = (weights(3, {"w": (6, 8)})["w"] != 0).astype(dtype)
    scipy_sparse.save_npz(tmp_path / "fc.weight.npz", scipy_sparse.csr_matrix(dense).asformat(layout))
    same(open_container(tmp_path / "fc.weight.npz").content, {"fc.weight": dense})
    assert np.array_equal(formats.read(tmp_path / "fc.weight.npz")["fc.weight"], dense != 0)


def test_sparse_matrices_that_do_not_add_up(tmp_path):
    good = {"format": np.array(b"csr"), "shape": np.array([2, 3]), "data": np.ones(2),
            "indices": np.array([0, 2]), "indptr": np.array([0, 1, 2])}  # fmt: skip
    for change in (
        {"indices": np.array([0, 3])}, {"indices": np.array([-1, 2])}, {"indptr": np.array([0, 2, 1])},
        {"indptr": np.array([0, 1, 9])}, {"indptr": np.array([1, 1, 2])}, {"shape": np.array([2, 0])},
        {"shape": np.array([1 << 20, 1 << 20])}, {"shape": np.array([2, 3, 4])}, {"format": np.array(b"xyz")},
        {"format": np.array(3)}, {"data": np.array(["a", "b"])}, {"indices": np.ones(2)}, {"data": np.ones((2, 5, 7))},
    ):  # fmt: skip
        np.savez(tmp_path / "m.npz", **(good | change))
        with pytest.raises(TopoError, match="as scipy_npz: "):
            open_container(tmp_path / "m.npz")


# --- files in files, and folders


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors", "pkl"])
def test_a_compressed_file_is_the_file(tmp_path, ending, kind):
    whole = save(tmp_path / f"m.{kind}", weights())
    (tmp_path / f"m.{kind}{ending}").write_bytes(PACKED[ending](whole.read_bytes()))
    found = open_container(tmp_path / f"m.{kind}{ending}")
    same(found.content, weights())
    assert found.kind == open_container(whole).kind


def save(path, arrays):
    """Arrays by name in a file of the kind that its ending says."""
    if path.suffix in (".pt", ".bin"):
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(arrays, 4))
    else:
        places, end, header = [], 0, {}
        for name, array in arrays.items():
            header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end := end + array.nbytes]}
            places.append(array.tobytes())
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(places))
    return path


def zipped(folder, path, top=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{top}{file.name}")
    return path


def one_npy_each(folder):
    for name, array in weights().items():
        np.save(folder / f"{name}.npy", array)


def one_torch_file(folder):
    save(folder / "net.pt", weights())
    (folder / "README.md").write_text("about")
    (folder / "config.json").write_text("{}")


def numbered(ending):
    def make(folder):
        for i, (name, array) in enumerate(weights().items()):
            save(folder / f"w-0000{i + 1}-of-00003.{ending}", {name: array})

    return make


def apart(folder):
    first, *rest = weights().items()
    save(folder / "a.npz", dict([first]))
    save(folder / "b.npz", dict(rest))


FOLDERS = {
    "one .npy for each layer": one_npy_each,
    "one torch file": one_torch_file,
    "safetensors shards": numbered("safetensors"),
    "bin shards": numbered("bin"),
    "two npz": apart,
}


@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("way", ["folder", "zip", "zip of a folder", "zip in gzip"])
def test_files_in_a_folder_or_a_zip_are_taken_together(tmp_path, case, way):
    folder = tmp_path / "it"
    folder.mkdir()
    FOLDERS[case](folder)
    path = folder if way == "folder" else zipped(folder, tmp_path / "it.zip", "top/" if "folder" in way else "")
    if way == "zip in gzip":
        (tmp_path / "it.zip.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "it.zip.gz"
    # all .npy in one zip are an npz, and its names those of the entries
    found = open_container(path)
    content = {name.removeprefix("top/"): tensor for name, tensor in found.content.items()}
    same({name: content[name] for name in weights()}, weights())


def test_two_checkpoints_in_a_folder_are_not_one(tmp_path):
    save(tmp_path / "epoch1.pt", weights())
    save(tmp_path / "epoch2.pt", weights(1))
    with pytest.raises(FormatError, match=r"'epoch1\.pt' and 'epoch2\.pt' both hold 'stem\.weight': give the one"):
        open_container(tmp_path)
    torch.save({"state_dict": torch_weights(), "epoch": 1}, tmp_path / "epoch2.pt")
    with pytest.raises(FormatError, match=r"'epoch2\.pt' is more than tensors by name"):
        open_container(tmp_path)


def test_what_a_folder_holds_besides_is_told(tmp_path):
    save(tmp_path / "model.safetensors", weights())
    save(tmp_path / "optimizer.pt", weights(1))
    found = open_container(tmp_path)
    same(found.content, weights())
    assert "'optimizer.pt' left aside" in found.notes[-1]


def test_a_missing_shard_is_named(tmp_path):
    numbered("bin")(tmp_path)
    (tmp_path / "w-00003-of-00003.bin").unlink()
    with pytest.raises(FormatError, match=r"lacks the shard 'w-00003-of-00003\.bin'"):
        open_container(tmp_path)


def test_a_zip_within_a_zip_within_a_zip(tmp_path):
    save(tmp_path / "a.pt", weights())
    path = tmp_path / "a.pt"
    for level in range(8):
        with zipfile.ZipFile(tmp_path / f"{level}.zip", "w") as archive:
            archive.write(path, path.name)
        path = tmp_path / f"{level}.zip"
    with pytest.raises(FormatError, match="files within files"):
        open_container(path)
    same(open_container(tmp_path / "1.zip").content, weights())


def test_a_bomb_in_gzip_and_in_zip(tmp_path):
    zeros = bytes(1 << 20)
    with gzip.open(tmp_path / "m.pt.gz", "wb") as file:
        for _ in range(200):
            file.write(zeros)
    with pytest.raises(FormatError, match="decompression bomb"):
        open_container(tmp_path / "m.pt.gz")
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.pt", "w") as file:
        for _ in range(200):
            file.write(zeros)
    with pytest.raises(FormatError, match="decompression bomb"):
        open_container(tmp_path / "m.zip")


# --- ONNX and HDF5


def field_of(number, value):
    """One field of a protobuf: a number, or bytes."""

    def varint(n):
        found = b""
        while n > 127:
            found, n = found + bytes([n & 127 | 128]), n >> 7
        return found + bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def initialiser(name, array, packed=False):
    dtypes = {"float32": 1, "int64": 7, "float16": 10, "int8": 3, "bool": 9}
    said = b"".join(field_of(1, n) for n in array.shape) + field_of(2, dtypes[array.dtype.name]) + field_of(8, name)
    if not packed:
        return said + field_of(9, array.tobytes())
    if array.dtype.name == "float32":
        return said + field_of(4, array.tobytes())
    integers = array.view(np.uint16) if array.dtype == np.float16 else array
    return said + b"".join(field_of(5, int(n)) for n in integers.reshape(-1).tolist())


def onnx_model(path, *fields):
    path.write_bytes(field_of(1, 8) + field_of(7, b"".join(fields)))
    return path


def test_the_initialisers_of_an_onnx_model(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "fc.weight": weights()["fc.weight"],
        "half": weights()["fc.weight"].astype(np.float16),
        "ids": np.array([3, 0], np.int64),
        "keep": rng.random((2, 3)) < 0.5,
    }
    for packed in (False, True):
        fields = [field_of(5, initialiser(name.encode(), array, packed)) for name, array in arrays.items()]
        same(open_container(onnx_model(tmp_path / "m.onnx", *fields)).content, arrays)
    same(open_container(onnx_model(tmp_path / "m.bin", *fields)).content, arrays)


def test_weights_that_onnx_multiplies_from_the_right_are_turned(tmp_path):
    array = weights()["fc.weight"]
    held = field_of(5, initialiser(b"w", array))
    product = field_of(1, b"x") + field_of(1, b"w") + field_of(4, b"MatMul")
    gemm = field_of(1, b"x") + field_of(1, b"w") + field_of(4, b"Gemm")
    turns = field_of(5, field_of(1, b"transB") + field_of(3, 1))
    for node, turned in ((product, True), (gemm, True), (gemm + turns, False)):
        found = open_container(onnx_model(tmp_path / "m.onnx", held, field_of(1, node)))
        same(found.content, {"w": array.T if turned else array})
        assert bool(found.notes) is turned


def test_onnx_models_that_do_not_add_up(tmp_path):
    array = weights()["fc.weight"]
    short = initialiser(b"w", array).replace(array.tobytes(), b"")
    twice = field_of(5, initialiser(b"w", array)) * 2
    external = field_of(5, initialiser(b"w", array[:0]) + field_of(14, 1))
    for fields, said in (
        ([field_of(5, field_of(1, 6) + field_of(2, 1) + field_of(9, b"abcd"))], "takes 24 bytes and has 4"),
        ([twice], "stands in it twice"),
        ([external], "lie in another file"),
        ([field_of(5, field_of(1, 1 << 40) + field_of(1, 1 << 40) + field_of(2, 1))], "memory bomb"),
        ([field_of(5, short)], "onnx"),
    ):
        with pytest.raises(FormatError, match=said):
            open_container(onnx_model(tmp_path / "m.onnx", *fields))


def test_hdf5_without_h5py_names_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FormatError, match="pip install h5py"):
        open_container(tmp_path / "m.h5")


def test_the_arrays_of_an_hdf5_file(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: HDF5 is read where it is")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["dense/kernel:0"] = weights()["fc.weight"]
        file.create_dataset("packed", data=weights()["stem.weight"], compression="gzip", chunks=(1, 3, 3, 3))
        file["text"] = "words"
        file["linked"] = h5py.SoftLink("/dense")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    found = open_container(tmp_path / "m.h5")
    same(found.content, {"dense/kernel:0": weights()["fc.weight"], "packed": weights()["stem.weight"]})
    assert "text" in found.notes[0]
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("huge", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1, 1))
    with pytest.raises(FormatError, match="memory bomb"):
        open_container(tmp_path / "bomb.h5")


# --- out of scope


OUT = {
    "m.gguf": (b"GGUF\3\0\0\0" + bytes(40), "GGUF .*safetensors checkpoint"),
    "m.tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite .*tf.lite.Interpreter"),
    "m.mat": (b"MATLAB 5.0 MAT-file, Platform" + bytes(200), "MATLAB .*scipy.io.loadmat"),
    "m.msgpack": (b"\x82\xa6params\x80", "msgpack .*msgpack_restore"),
    "m.pb": (b"\x0a\x10abc" + bytes(40), "frozen TensorFlow graph"),
    "m.pt.zst": (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd -d"),
    "m.tar": (bytes(257) + b"ustar\x0000" + bytes(300), "tar -xf"),
    "folder/saved_model.pb": (b"\x08\1" + bytes(40), "SavedModel,.*save_weights"),
    "folder/__0_0.distcp": (b"PK" + bytes(40), "dcp_to_torch"),
    "folder/manifest.ocdbt": (b"x" * 40, "orbax"),
    "folder/model.data-00000-of-00001": (b"x" * 40, "tf.train.load_checkpoint"),
}


@pytest.mark.parametrize("name", OUT)
def test_kinds_out_of_scope_name_the_way_out(tmp_path, name):
    data, said = OUT[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(FormatError, match=said) as caught:
        formats.read(path if path.parent == tmp_path else path.parent)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text.removeprefix(str(tmp_path))) < 400 + len(str(tmp_path))


# --- files that change, that are deep, that are many


@pytest.mark.parametrize("ending", ["pt", "safetensors", "npz"])
@pytest.mark.parametrize("change", ["shorter", "longer", "other bytes"])
def test_a_file_that_changes_under_its_reader(tmp_path, ending, change, monkeypatch):
    monkeypatch.setattr("topo.containers.container.IN_MEMORY", 0)  # as if it were large: mapped
    path = save(tmp_path / f"m.{ending}", weights())
    found = open_container(path)
    data = path.read_bytes()
    with open(path, "r+b") as file:  # in place, as a training run that writes its checkpoint again
        file.write(data[::-1] if change == "other bytes" else data)
        file.truncate(len(data) // 2 if change == "shorter" else len(data) + 5 if change == "longer" else len(data))
    with pytest.raises(FormatError, match="changed while it was read"):
        found.content["fc.weight"].whole()


_CUT_SHORT = """
import os, sys
from pathlib import Path
from topo.containers.mapped import bytes_of
from topo.errors import FormatError
path = Path(sys.argv[1])
for touch in (lambda data: data[-9:], lambda data: memoryview(data)[60_000], lambda data: data.rfind(b"PK")):
    path.write_bytes(bytes(1 << 16))
    data = bytes_of(path, 0)
    os.truncate(path, 5000)
    assert not touch(data) or touch(data) in (bytes(9), -1)
    try:
        data.check()
    except FormatError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_mapped_file_that_is_cut_short_does_not_end_the_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", _CUT_SHORT, str(tmp_path / "m.bin")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the file changed while it was read") == 3


@pytest.mark.parametrize("ending", ["pt", "safetensors", "npz", "pkl"])
def test_a_mapped_file_that_is_cut_while_it_is_taken_apart_says_so(tmp_path, ending, monkeypatch):
    path = save(tmp_path / f"m.{ending}", weights())
    mapped = bytes_of(path, 0)
    os.truncate(path, 100)
    monkeypatch.setattr("topo.containers.container.bytes_of", lambda *_: mapped)
    with pytest.raises(FormatError, match="the file changed while it was read"):
        open_container(path)


def test_a_file_that_is_small_is_read_once_and_stays_as_it_was(tmp_path):
    path = save(tmp_path / "m.pt", weights())
    found = open_container(path)
    path.write_bytes(bytes(5))
    same(found.content, weights())


def test_a_file_that_is_replaced_or_removed_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("topo.containers.container.IN_MEMORY", 0)
    path = save(tmp_path / "m.pt", weights())
    found = open_container(path)
    save(tmp_path / "new.pt", weights(1)).replace(path)
    same(found.content, weights())
    path.unlink()
    same(found.content, weights())


def test_a_tree_of_10_000_levels(tmp_path):
    deep = b"\x80\x04" + b"".join(b"}X\1\0\0\0a" for _ in range(10_000)) + b"N" + b"s" * 10_000 + b"."
    (tmp_path / "m.pkl").write_bytes(deep)
    with pytest.raises(FormatError, match="more than 64 levels"):
        open_container(tmp_path / "m.pkl")
    (tmp_path / "i.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="JSON"):
        open_container(tmp_path / "i.json")


@pytest.mark.slow
def test_more_keys_than_a_dict_may_have(tmp_path):
    content = {f"k{i}": i for i in range(600_000)}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, 4))
    torch.save(content, tmp_path / "m.pt")
    for name in ("m.pkl", "m.pt"):
        with pytest.raises(FormatError, match="a dict of more than 200,000 keys"):
            open_container(tmp_path / name)
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", LARGEST_HEADER + 1) + bytes(LARGEST_HEADER + 1))
    with pytest.raises(FormatError, match=r"the header of .* bytes is larger"):
        open_container(tmp_path / "m.safetensors")


# --- the door


@pytest.fixture
def door(monkeypatch):
    """Kinds registered in a test are gone after it."""
    len(containers)
    monkeypatch.setattr(containers, "_entries", dict(containers._entries))
    return containers


def test_every_kind_is_known_by_something_and_ordered():
    names = [kind.name for kind in kinds()]
    assert sorted(names) == sorted(containers)
    for kind in kinds():
        assert kind.name
        assert kind.about
        assert kind.starts_with or kind.suffix or kind.folder or kind.recognise
        assert all(names.index(kind.name) < names.index(other) for other in kind.before), kind.name


def test_every_kind_is_in_the_documentation():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "formats.md").read_text("utf-8")
    assert [kind.name for kind in kinds() if not kind.refuses and f"`{kind.name}`" not in page] == []


WORDS = {
    "magic": ({"magic": b"ab"}, "there is no magic="),
    "rank": ({"rank": 3}, "there is no rank="),
    "nothing": ({}, "say how it is known"),
    "text for bytes": ({"starts_with": "ab"}, "neither bytes nor several"),
    "empty bytes": ({"starts_with": b""}, "neither bytes nor several|say how"),
    "too long a start": ({"starts_with": b"a" * 600}, "longer than the 512"),
    "a suffix without its dot": ({"suffix": "csv"}, "neither an ending"),
    "a folder of bytes": ({"folder": b"*"}, "not a pattern of file names"),
    "recognise no function": ({"recognise": True}, "recognise is True; it is a function"),
    "before a number": ({"suffix": ".x", "before": 3}, "neither a name nor several"),
    "no name": ({"name": " ", "suffix": ".x"}, "its name is"),
    "an about of lines": ({"about": "a\nb", "suffix": ".x"}, "not one line"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_are_checked_when_registering(door, case):
    words, said = WORDS[case]
    words = {"name": "mine", "about": "a file of mine", **words}
    with pytest.raises(TopoError, match=said):
        container(words.pop("name"), words.pop("about"), **words)(lambda file: {})
    assert "mine" not in door
    with pytest.raises(TopoError, match="kind of file 'npz' is registered twice"):
        container("npz", "another", suffix=".npz")(lambda file: {})


GIVEN = {
    "an object": (object(), "its content holds a object"),
    "a set": ({"a": {1}}, "its content holds a set"),
    "text in an array": ({"a": np.array(["x"])}, "its content holds a ndarray"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_container_gives_is_checked(door, tmp_path, case):
    given, said = GIVEN[case]
    container("mine", "a file of mine", suffix=".mine")(lambda file: given)
    (tmp_path / "a.mine").write_text("x")
    with pytest.raises(FormatError, match=f"the container 'mine' is faulty: {said}"):
        open_container(tmp_path / "a.mine")


@pytest.mark.parametrize("lacks", [False, True, 3, b"no"])
def test_a_recognise_that_gives_neither_none_nor_a_text_is_named(door, tmp_path, lacks):
    container("mine", "a file of mine", recognise=lambda file: lacks)(lambda file: {})
    (tmp_path / "a.mine").write_text("x")
    with pytest.raises(FormatError, match="container 'mine' is faulty: recognise gives"):
        open_container(tmp_path / "a.mine")


def test_a_mistake_of_a_container_is_one_line_that_names_it(door, tmp_path):
    container("mine", "a file of mine", suffix=".mine")(lambda file: file.spam)
    (tmp_path / "a.mine").write_text("x")
    with pytest.raises(FormatError, match="the container 'mine' failed: AttributeError"):
        open_container(tmp_path / "a.mine")


def test_a_new_kind_is_asked_first_and_read_by_the_readers_there_are(door, tmp_path):
    @container("csv", "lines of 0 and 1", suffix=".csv")
    def open_csv(file):
        return {file.path.stem: np.loadtxt(file.path, delimiter=",", ndmin=2)}

    @container("csv_folder", "a .csv for each layer", folder="*.csv")
    def open_csvs(file):
        return {path.stem: np.loadtxt(path, delimiter=",", ndmin=2) for path in file.files}

    for name in ("a.weight", "b.weight"):
        np.savetxt(tmp_path / f"{name}.csv", np.eye(3), delimiter=",", fmt="%d")
    assert list(formats.read(tmp_path / "a.weight.csv")) == ["a.weight"]
    masks = formats.read(tmp_path)
    assert {name: masks[name].tolist() for name in masks} == dict.fromkeys(masks, np.eye(3, dtype=bool).tolist())
    assert list(masks) == ["a.weight", "b.weight"]
    assert kinds()[0].name == "csv_folder"
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / "a.weight.csv", tmp_path / "sub")
    assert isinstance(kind_of(File(tmp_path)), Kind)


def test_explain_says_what_each_kind_said(tmp_path):
    said = dict(explain(save(tmp_path / "m.pt", weights())))
    assert list(said) == [kind.name for kind in kinds()]
    assert said["torch"] is None
    assert said["npz"] == "its entries are not all '*.npy'"
    (tmp_path / "empty").touch()
    assert dict(explain(tmp_path / "empty"))["npy"] == "the file is empty"


def test_the_command_explains_a_file(tmp_path, capsys):
    assert main(["formats", "explain", str(save(tmp_path / "m.npz", weights()))]) == 0
    said = capsys.readouterr().out
    assert all(kind.name in said for kind in kinds())
    assert all(reader.name in said for reader in formats.readers())
    assert said.count("takes it") >= 2
    (tmp_path / "m.txt").write_text("words")
    assert main(["formats", "explain", str(tmp_path / "m.txt")]) == 1
    captured = capsys.readouterr()
    assert "takes it" not in captured.out
    assert captured.err.count("\n") == 1
    assert main(["formats", "explain", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().err


# --- hostile pickles within


@pytest.mark.parametrize("way", ["zip", "gzip", "folder", "torchscript", "constants", "torch_export", "old export"])
@pytest.mark.parametrize("beside", ["alone", "beside tensors"])
def test_what_a_pickle_would_run_does_not_run_wherever_it_lies(tmp_path, way, beside):
    ran = tmp_path / "ran"
    call = b"cposix\nsystem\nX" + struct.pack("<I", len(f"touch {ran}")) + f"touch {ran}".encode() + b"\x85R"
    array = pickle.dumps(np.eye(3), 2)[2:-1]
    evil = b"\x80\x02" + (call if beside == "alone" else b"}(X\1\0\0\0a" + array + b"X\1\0\0\0b" + call + b"u") + b"."
    path = tmp_path / "m.pt"
    if way == "folder":
        path = tmp_path / "folder"
        path.mkdir()
        (path / "m.pkl").write_bytes(evil)
    elif way == "gzip":
        path.write_bytes(gzip.compress(evil))
    else:
        members = {
            "zip": {"m.pkl": evil, "n.txt": b""},
            "torchscript": {"m/data.pkl": evil, "m/constants.pkl": b"\x80\x02)."},
            "constants": {"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": evil},
            "torch_export": {"m/data/weights/model_weights_config.json": b'{"config": {"a": {"path_name": "w", '
                             b'"use_pickle": true}}}', "m/data/weights/w": evil},
            "old export": {"serialized_state_dict.pt": evil},
        }[way]  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    with pytest.raises(FormatError, match=r"posix\.system|is pickled with its class"):
        open_container(path)
    assert not ran.exists()
    pickle.loads(evil)
    assert ran.exists()  # the payload is a real one


# --- damage


def test_every_kind_of_file_has_a_whole_one_to_damage():
    assert fuzzing.without_seed() == [], "write a small whole file of each of these under @seed in tests/fuzzing.py"


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", sorted(fuzzing.SEEDS))
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, kind):
    whole = fuzzing.SEEDS[kind](tmp_path)
    assert kind_of(File(whole)).name == kind
    outcomes = {fuzzing.outcome(path) for path in fuzzing.mutations(kind, tmp_path / "damaged", 60)}
    assert "refused" in outcomes
