"""Small files that promise much: of every kind, none above 600 kB, each read by `topo` in one process.

Prints a JSON line for each: how it ended, what it said, by how much the memory grew, seconds. Exits 1 if one ends in
anything but a result or one line, takes more than 300 MB, or more than 10 seconds. A number begins with that file.

Each file is written into a folder of its own by a function that gives back the line of `topo` that reads it; the peak
of the memory is reset before each.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import pickle
import pkgutil
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

LARGEST = 600_000  # bytes of a file
BOMBS: dict[str, Callable[[Path], list[str]]] = {}
_ZEROS = 500 << 20


def bomb(write: Callable[[Path], Path | list[str]]) -> Callable:
    """Enter a function that writes a file into a folder: its path, which `topo analyze` reads, or another line."""

    def line(folder: Path) -> list[str]:
        made = write(folder)
        return made if isinstance(made, list) else ["analyze", str(made)]

    BOMBS[write.__name__.strip("_")] = line
    return write


def _torch(folder: Path, content: object) -> Path:
    import torch

    torch.save(content, folder / "m.pt")
    return folder / "m.pt"


def _npy(shape: object, data: bytes = b"", descr: str = "|b1") -> bytes:
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + data


def _zeros(make: Callable[[], object], feed: str = "compress", ending: str = "flush") -> bytes:
    """Half a gigabyte of zeros, packed."""
    packer = make()
    parts = [getattr(packer, feed)(bytes(1 << 20)) for _ in range(_ZEROS >> 20)]
    return b"".join([*parts, getattr(packer, ending)()])


def _deflated() -> bytes:
    return _zeros(lambda: zlib.compressobj(9, zlib.DEFLATED, -15))


def _zip(path: Path, entries: dict[str, tuple[bytes, int, int]]) -> Path:
    """Entries (deflated bytes, checksum, promised size), written by hand: the size may be a lie."""
    body, directory = b"", b""
    for name, (data, crc, size) in entries.items():
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(data), size, len(name), 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\3\4" + fields + name.encode() + data
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def _safetensors(folder: Path, header: object, data: bytes = bytes(16)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder / "m.safetensors"


# --- torch and pickles


@bomb
def torch_expanded_square(folder: Path) -> Path:
    import torch

    return _torch(folder, {"a.weight": torch.zeros(1).expand(1 << 13, 1 << 13)})


@bomb
def torch_expanded_below_the_bound(folder: Path) -> Path:
    import torch

    return _torch(folder, {"a.weight_mask": torch.ones(1).expand(1 << 12, 1 << 12)})


@bomb
def torch_expanded_column(folder: Path) -> Path:
    import torch

    return _torch(folder, {"a.weight_mask": torch.ones(1).expand(1 << 19, 1)})


@bomb
def torch_expanded_row(folder: Path) -> Path:
    import torch

    return _torch(folder, {"a.weight_mask": torch.ones(1).expand(1, 1 << 22)})


@bomb
def torch_expanded_kernels(folder: Path) -> Path:
    import torch

    return _torch(folder, {"a.weight_mask": torch.ones(1).expand(1 << 10, 1 << 10, 3, 3)})


@bomb
def torch_many_names_of_one_storage(folder: Path) -> Path:
    import torch

    wide = torch.ones(1).expand(1 << 11, 1 << 11)
    return _torch(folder, {f"l{at}.weight_mask": wide for at in range(40)})


@bomb
def torch_many_views(folder: Path) -> Path:
    import torch

    line = torch.ones(2000)
    return _torch(folder, {f"l{at}.weight_mask": line.as_strided((2000, 2000), (0, 1)) for at in range(500)})


@bomb
def torch_coo_far_places(folder: Path) -> Path:
    import torch

    places = torch.tensor([[0, (1 << 30) - 1], [0, (1 << 30) - 1]])
    return _torch(folder, {"a.weight": torch.sparse_coo_tensor(places, torch.ones(2), (1 << 30, 1 << 30))})


@bomb
def torch_csr_wide(folder: Path) -> Path:
    import torch

    empty = torch.zeros(0, dtype=torch.int64)
    made = torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.int64), empty, torch.zeros(0), (1, 1 << 40))
    return _torch(folder, {"a.weight": made})


@bomb
def torch_storage_deflated(folder: Path) -> Path:
    import torch

    held = io.BytesIO()
    torch.save({"a.weight": torch.zeros(4, 4)}, held)
    data = _deflated()
    entries = {}
    with zipfile.ZipFile(held) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(content) + packer.flush()
            lies = name.endswith("data/0")
            entries[name] = (data, 0, _ZEROS) if lies else (packed, zlib.crc32(content), len(content))
    return _zip(folder / "m.pt", entries)


@bomb
def torch_script_deep(folder: Path) -> Path:
    deep = b"c__torch__\nNet\n)\x81}(X\1\0\0\0a" * 20_000
    with zipfile.ZipFile(folder / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s/data.pkl", b"\x80\x02" + deep + b"N" + b"ub" * 20_000 + b".")
        archive.writestr("s/constants.pkl", b"\x80\x02).")
    return folder / "m.pt"


@bomb
def torch_export_sizes(folder: Path) -> Path:
    sizes = [{"as_int": 1 << 16}, {"as_int": 1 << 16}]
    meta = {"dtype": 7, "sizes": sizes, "strides": [{"as_int": 0}] * 2, "storage_offset": {"as_int": 0}}
    about = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
    with zipfile.ZipFile(folder / "e.pt2", "w") as archive:
        archive.writestr("e/data/weights/weight_0", bytes(4))
        config = json.dumps({"config": {f"l{at}.weight": about for at in range(500)}})
        archive.writestr("e/data/weights/model_weights_config.json", config)
    return folder / "e.pt2"


def _pickle(name: str, data: bytes) -> None:
    def write(folder: Path) -> Path:
        (folder / "m.pkl").write_bytes(data)
        return folder / "m.pkl"

    write.__name__ = f"pickle_{name}"
    bomb(write)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


_pickle(
    "laughs",
    b"\x80\x02]q\0"
    + b"".join(
        b"]r" + struct.pack("<I", at) + b"(" + (b"j" + struct.pack("<I", at - 1)) * 10 + b"e" for at in range(1, 3000)
    )
    + b".",
)
_pickle(
    "one array a hundred thousand times",
    pickle.dumps([np.ones((300, 300), np.uint8)] * 1, 2)[:-2] + b"q\xff(" + b"h\xff" * 100_000 + b"e.",
)
_pickle("memo far away", b"\x80\x02Nr\xff\xff\xff\xff.")
_pickle(
    "memo everywhere",
    b"\x80\x02" + b"".join(b"Nr" + struct.pack("<I", at * 40_000) + b"0" for at in range(80_000)) + b"N.",
)
_pickle("memoized forms", b"\x80\x04" + b"N\x94" * 250_000 + b".")
_pickle("frames", b"\x80\x04" + b"\x95" + struct.pack("<Q", 1 << 60) + b"N.")
_pickle("text of its own length", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.")
_pickle("marks", b"\x80\x02" + b"(" * 500_000 + b".")
_pickle("empty dicts", b"\x80\x02(" + b"}" * 500_000 + b"l.")
_pickle("numbers in decimal", b"L" + b"9" * 500_000 + b"L\n.")
_pickle("keys", b"\x80\x02}(" + b"".join(_text(f"k{at}") + b"N" for at in range(40_000)) + b"u.")
_pickle("names that grow", b"\x80\x02}" + b"".join(_text("a" * 100) + b"}s"[:0] + b"(" for _ in range(1000)) + b".")


# --- numpy


@bomb
def npy_shape(folder: Path) -> Path:
    (folder / "m.npy").write_bytes(_npy((1 << 31, 1 << 31)))
    return folder / "m.npy"


@bomb
def npy_many_dimensions(folder: Path) -> Path:
    (folder / "m.npy").write_bytes(_npy((1,) * 9000 + (2, 2), bytes(4)))
    return folder / "m.npy"


@bomb
def npy_items_of_no_size(folder: Path) -> Path:
    (folder / "m.npy").write_bytes(_npy((1 << 40, 1 << 20), descr="|V0"))
    return folder / "m.npy"


@bomb
def npy_header_of_code(folder: Path) -> Path:
    (folder / "m.npy").write_bytes(_npy("9**9**9"))
    return folder / "m.npy"


@bomb
def npz_zeros(folder: Path) -> Path:
    return _zip(folder / "m.npz", {"a.npy": (_deflated(), 0, _ZEROS)})


@bomb
def npz_zeros_that_promise_little(folder: Path) -> Path:
    return _zip(folder / "m.npz", {"a.npy": (_deflated(), 0, 1000)})


@bomb
def npz_overlapping(folder: Path) -> Path:
    """Ten thousand names of one entry: the directory counts it each time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = _npy((1000, 1000), bytes(10**6))
    data = packer.compress(content) + packer.flush()
    fields = struct.pack("<HHHHHIII", 20, 0, 8, 0, 33, zlib.crc32(content), len(data), len(content))
    body = b"PK\3\4" + fields + struct.pack("<HH", 5, 0) + b"0.npy" + data
    directory = b""
    for at in range(7000):
        name = f"{at}.npy".encode()
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
        directory += name
    end = struct.pack("<HHHHIIH", 0, 0, 7000, 7000, len(directory), len(body), 0)
    (folder / "m.npz").write_bytes(body + directory + b"PK\5\6" + end)
    return folder / "m.npz"


@bomb
def npz_many_small(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.npz", "w") as archive:
        for at in range(2000):
            archive.writestr(f"{at}.npy", _npy((1, 1), b"\1"))
    return folder / "m.npz"


@bomb
def npz_scipy_shape(folder: Path) -> Path:
    np.savez(
        folder / "m.npz", format=np.array(b"csr"), shape=np.array([1 << 40, 1 << 40]), data=np.ones(1),
        indices=np.zeros(1, np.int64), indptr=np.array([0, 1]),
    )  # fmt: skip
    return folder / "m.npz"


@bomb
def npz_scipy_coo(folder: Path) -> Path:
    np.savez(
        folder / "m.npz", format=np.array(b"coo"), shape=np.array([1 << 15, 1 << 15]), data=np.ones(1),
        row=np.array([5]), col=np.array([7]),
    )  # fmt: skip
    return folder / "m.npz"


# --- safetensors, shards


@bomb
def safetensors_no_rows(folder: Path) -> Path:
    return _safetensors(folder, {"a": {"dtype": "F32", "shape": [0, 1 << 60], "data_offsets": [0, 0]}}, b"")


@bomb
def safetensors_dimensions(folder: Path) -> Path:
    return _safetensors(folder, {"a": {"dtype": "U8", "shape": [1] * 100_000, "data_offsets": [0, 1]}}, b"\1")


@bomb
def safetensors_names(folder: Path) -> Path:
    entries = {f"{at}": {"dtype": "U8", "shape": [1, 1], "data_offsets": [at, at + 1]} for at in range(8000)}
    return _safetensors(folder, entries, bytes(8000))


@bomb
def safetensors_nested(folder: Path) -> Path:
    return _safetensors(folder, b'{"a":' * 90_000)


@bomb
def safetensors_digits(folder: Path) -> Path:
    return _safetensors(folder, b'{"a": ' + b"9" * 500_000 + b"}")


@bomb
def safetensors_bitmask(folder: Path) -> Path:
    bits = {"dtype": "U8", "shape": [1, 1], "data_offsets": [0, 1]}
    shape = {"dtype": "I64", "shape": [2], "data_offsets": [1, 17]}
    data = b"\1" + struct.pack("<qq", 1 << 31, 1 << 31)
    return _safetensors(folder, {"a.bitmask": bits, "a.shape": shape}, data)


@bomb
def safetensors_metadata(folder: Path) -> Path:
    about = {"topo_schema": "topo-masks/1", "order": "[" * 200_000, "provenance": '{"a":' * 30_000}
    entry = {"dtype": "U8", "shape": [4, 4], "data_offsets": [0, 16]}
    return _safetensors(folder, {"__metadata__": about, "a.weight": entry})


@bomb
def shards_of_many_names(folder: Path) -> Path:
    _safetensors(folder, {"a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}})
    (folder / "i.index.json").write_text(
        json.dumps({"weight_map": {f"w{at}": "m.safetensors" for at in range(15_000)}})
    )
    return folder / "i.index.json"


# --- packed files


def _packed(name: str, ending: str, make: Callable[[], bytes]) -> None:
    def write(folder: Path) -> Path:
        (folder / f"m.{ending}").write_bytes(make())
        return folder / f"m.{ending}"

    write.__name__ = name
    bomb(write)


_packed("gzip of zeros", "pt.gz", lambda: gzip.compress(bytes(1 << 20)) * 400)
_packed("gzip in gzip", "pt.gz.gz", lambda: gzip.compress(gzip.compress(bytes(1 << 20)) * 400))
_packed("bzip2 of zeros", "pt.bz2", lambda: bz2.compress(bytes(1 << 20)) * 1000)
_packed("xz of zeros", "pt.xz", lambda: lzma.compress(bytes(1 << 24)) * 100)
_packed("xz of a huge dictionary", "pt.xz", lambda: lzma.compress(
    bytes(1000), lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 30}]))  # fmt: skip
_packed("xz with a dictionary of 1.5 GB", "pt.xz", lambda: lzma.compress(
    bytes(1 << 22), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]
).replace(b"\x21\x01\x12", b"\x21\x01\x27"))  # fmt: skip


@bomb
def zip_of_zeros(folder: Path) -> Path:
    return _zip(folder / "m.zip", {"m.pt": (_deflated(), 0, _ZEROS)})


@bomb
def zip_in_zip(folder: Path) -> Path:
    inner = _zip(folder / "i.zip", {f"{at}.pt": (zlib.compress(bytes(1 << 20))[2:-4], 0, 1 << 20) for at in range(99)})
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(99):
            archive.write(inner, f"{at}.zip")
    inner.unlink()
    return folder / "m.zip"


# --- HDF5 and ONNX


@bomb
def hdf5_empty_chunks(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        file.create_dataset("a/kernel", (1 << 30, 1 << 30), "f4", chunks=(1 << 10, 1 << 10), compression="gzip")
    return folder / "m.h5"


@bomb
def hdf5_below_the_bound(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        for at in range(50):
            file.create_dataset(f"l{at}/kernel", (1 << 11, 1 << 11), "f4", chunks=(1 << 11, 1 << 11))
    return folder / "m.h5"


@bomb
def hdf5_deep(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        file["/".join("a" * 300)] = np.ones((2, 2))
    return folder / "m.h5"


@bomb
def hdf5_circle(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        group = file.create_group("a")
        for at in range(50):
            group[f"b{at}"] = file["/"]
        file["kernel"] = np.ones((2, 2))
    return folder / "m.h5"


@bomb
def hdf5_chunk_of_half_a_gigabyte(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "m.h5", "w") as file:
        made = file.create_dataset("kernel", (1 << 14, 1 << 15), "u1", chunks=(1 << 14, 1 << 15), compression="gzip")
        made.id.write_direct_chunk((0, 0), _zeros(lambda: zlib.compressobj(9)))
    return folder / "m.h5"


def _onnx(folder: Path, tensors: list[bytes]) -> Path:
    def part(number: int, value: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(value)) + value

    graph = b"".join(part(5, tensor) for tensor in tensors)
    (folder / "m.onnx").write_bytes(b"\x08\x08" + part(7, graph))
    return folder / "m.onnx"


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


@bomb
def onnx_dimensions(folder: Path) -> Path:
    huge = b"\x08" + _varint(1 << 40)
    return _onnx(folder, [huge + huge + b"\x10\x01\x42\x01a"])


@bomb
def onnx_many_dimensions(folder: Path) -> Path:
    return _onnx(folder, [b"\x08\x01" * 100_000 + b"\x10\x01\x42\x01a\x4a\x04abcd"])


@bomb
def onnx_many_tensors(folder: Path) -> Path:
    return _onnx(folder, [b"\x08\x01\x08\x01\x10\x02\x42\x01a\x4a\x01\x01"] * 20_000)


@bomb
def onnx_packed_numbers(folder: Path) -> Path:
    numbers = b"\x3a" + _varint(400_000) + b"\1" * 400_000
    return _onnx(folder, [b"\x08" + _varint(1000) + b"\x08" + _varint(400) + b"\x10\x07\x42\x01a" + numbers])


# --- folders


@bomb
def folder_of_links(folder: Path) -> Path:
    inner = folder / "f"
    inner.mkdir()
    np.save(inner / "a.npy", np.ones((2, 2), bool))
    for at in range(2000):
        (inner / f"b{at}.npy").symlink_to(inner / "a.npy")
    return inner


@bomb
def folder_deep(folder: Path) -> Path:
    inner = folder / "f"
    place = inner
    for _ in range(300):
        place = place / "d"
    place.mkdir(parents=True)
    np.save(inner / "a.npy", np.ones((2, 2), bool))
    return inner


# --- texts


def _masks(folder: Path) -> str:
    np.savez(folder / "a.npz", w=np.eye(3, 4, dtype=bool))
    return str(folder / "a.npz")


def _written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


_WIRING = {"schema": "topo-wiring/2", "model": None, "input_shape": None, "notes": [], "parameters": []}


def _wiring(name: str, **fields: object) -> None:
    def write(folder: Path) -> list[str]:
        text = json.dumps({**_WIRING, "inputs": [[0, 4, 1]], "outputs": [[4, 3, 1]], "steps": [], **fields})
        return ["analyze", _masks(folder), "--model", _written(folder, "w.json", text)]

    write.__name__ = f"wiring_{name}"
    bomb(write)


_LAYER = {
    "step": "layer",
    "name": "w",
    "kind": "linear",
    "shape": [3, 4],
    "reads": [[0, 4, 1]],
    "start": 4,
    "groups": 1,
}
_wiring("units", inputs=[[0, 1 << 60, 1]])
_wiring("units below the bound", inputs=[[0, 1 << 22, 1]] * 8, steps=[{**_LAYER, "reads": [[0, 1 << 22, 1]] * 8}])
_wiring("a layer without a mask", steps=[_LAYER, {**_LAYER, "name": "v", "shape": [1 << 17, 1 << 17], "start": 9}])
_wiring("a start far away", steps=[{**_LAYER, "start": 1 << 62}])
_wiring("many groups", steps=[{**_LAYER, "groups": 1 << 40}])
_wiring("positions", steps=[{**_LAYER, "positions": 10**4000}])
_wiring("many joins", steps=[{"step": "add", "operands": [[[0, 4, 1]]] * 20_000, "start": 4, "width": 1}])


@bomb
def wiring_pattern(folder: Path) -> list[str]:
    import base64

    packed = base64.b64encode(_zeros(lambda: zlib.compressobj(9))[:440_000]).decode()
    layer = {**_LAYER, "shape": [1 << 26, 64], "pattern": packed}
    text = json.dumps({**_WIRING, "inputs": [[0, 4, 1]], "outputs": [[4, 3, 1]], "steps": [layer]})
    return ["analyze", _masks(folder), "--model", _written(folder, "w.json", text)]


def _texts(name: str, text: Callable[[], str]) -> None:
    """A text in the place of each that is read."""
    places = {
        "wiring": ("w.json", lambda folder, path: ["analyze", _masks(folder), "--model", path]),
        "report": ("r.json", lambda folder, path: ["report", path, "-o", str(folder / "o.html")]),
        "table": ("t.csv", lambda folder, path: ["evaluate", path]),
        "plot": ("t.csv", lambda folder, path: ["plot", "metric_accuracy", path, "-o", str(folder / "p.svg")]),
        "recipe": ("r.toml", lambda folder, path: [
            *("train", "dense", "--model", "mlp:64-10", "--data", "digits", "--recipe", path),
            *("-o", str(folder / "run")),
        ]),
        "sweep": ("s.toml", lambda folder, path: ["sweep", path, "-o", str(folder / "out")]),
    }  # fmt: skip
    for place, (file, line) in places.items():

        def write(folder: Path, file: str = file, line: Callable = line) -> list[str]:
            return line(folder, _written(folder, file, text()))

        write.__name__ = f"{place}_{name}"
        bomb(write)


_texts("nested", lambda: "[" * 500_000)
_texts("digits", lambda: '{"a": ' + "9" * 500_000 + "}")
_texts("exponent", lambda: '{"network": {"kept": 1e999999999}}')
_texts("one line", lambda: ",".join("a" * 250_000))
_texts("lines", lambda: "a\n" * 250_000)
_texts("tables", lambda: "[a]\n" + "".join(f"[a.b{at}]\n" for at in range(30_000)))
_texts("deep values", lambda: "a = " + "[" * 200_000 + "\n")
_texts("dotted", lambda: ".".join("a" * 200_000) + " = 1\n")


def _sweep(name: str, text: str) -> None:
    def write(folder: Path) -> list[str]:
        return ["sweep", _written(folder, "s.toml", text), "-o", str(folder / "out")]

    write.__name__ = f"sweep_{name}"
    bomb(write)


_sweep("seeds", '[sweep]\nmodel = "mlp:6-5-3"\nseeds = "0-999999999999"\n[grid]\nmethod = ["er"]\ndensity = [0.5]\n')
_sweep("cells", '[sweep]\nmodel = "mlp:6-5-3"\nseeds = "0-9999"\n[grid]\nmethod = ["er"]\ndensity = ['
       + ", ".join(f"0.{at}" for at in range(10000, 40000)) + "]\n")  # fmt: skip
_sweep("model", '[sweep]\nmodel = "mlp:1000000-1000000-3"\n[grid]\nmethod = ["er"]\ndensity = [0.5]\n')


# --- names of models, which people paste from elsewhere


def _model(name: str, spec: str) -> None:
    def write(folder: Path) -> list[str]:
        return ["trace", "--show", spec]

    write.__name__ = f"model_{name}"
    bomb(write)


_model("units", "mlp:1000000000000-10")
_model("layers", "mlp:" + "-".join(["9"] * 100_000))
_model("weights", "mlp:99999999-99999999")


# --- the measurement


def _status(word: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(word)).split()[1]) << 10


def main() -> int:
    import topo.kernels
    from topo.cli import main as topo_main

    for module in pkgutil.iter_modules(topo.kernels.__path__):
        importlib.import_module(f"topo.kernels.{module.name}")
    names = list(BOMBS)[int(sys.argv[1]) if len(sys.argv) > 1 else 0 :]
    failures = 0
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)
        warm = Path(root) / "warm"
        warm.mkdir()
        _torch(warm, {"a.weight": __import__("torch").eye(5)})
        for line in (["analyze", "warm/m.pt"], ["sweep", "none.toml", "-o", "x"], ["trace", "--show", "mlp:2-2"],
                     ["plot", "density_profile", "warm/m.pt", "-o", "warm/p.svg"], ["evaluate", "none.csv"],
                     ["train", "dense", "--model", "mlp:64-10", "--data", "digits", "--epochs", "1", "-o", "warm/r"],
                     ["report", "none.json"]):  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                topo_main(line)
        for name in names:
            folder = Path(root) / "here"
            folder.mkdir()
            line = BOMBS[name](folder)
            size = max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if any(
                folder.iterdir()) else 0  # fmt: skip
            Path("/proc/self/clear_refs").write_text("5")
            before, start = _status("VmRSS"), time.process_time()
            said, shown = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
                try:
                    code = topo_main([*line, "--quiet"])
                except BaseException as error:
                    code = f"{type(error).__name__}: {error}"[:200]
            told = {
                "bomb": name, "size": size, "code": code, "said": said.getvalue()[-1500:],
                "grew": _status("VmHWM") - before, "seconds": round(time.process_time() - start, 2),
            }  # fmt: skip
            odd = code not in (0, 1, 2) or told["grew"] > 300_000_000 or told["seconds"] > 10
            failures += odd
            print("FAILED " * odd + json.dumps(told), flush=True)
            os.rename(folder, Path(root) / f"done{names.index(name)}")
    print(f"{len(names)} files, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
