"""Damaged files of every kind: a small whole one each, and mutations of it. The suite tries a few of them, `make fuzz`
many."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from topo import formats
from topo.containers.container import kinds
from topo.errors import TopoError

Seed = Callable[[Path], Path]
SEEDS: dict[str, Seed] = {}
MASK = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]], np.float32)
WORDS = [
    b"\xff" * 4,
    b"\xff" * 8,
    b"\0" * 4,
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\x7f",
    struct.pack("<Q", 1 << 40),
    b".",
    b"R",
]


def seed(*names: str) -> Callable[[Seed], Seed]:
    """Decorator: a function that writes a small whole file of these kinds into a folder, and gives its path."""

    def enter(write: Seed) -> Seed:
        SEEDS.update(dict.fromkeys(names, write))
        return write

    return enter


def _semi_structured(torch: object) -> object:
    """A 2:4 tensor in the layout of CUTLASS."""
    from torch.sparse import SparseSemiStructuredTensorCUTLASS
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    dense = torch.tensor([1.0, 0, 0, 2]).repeat(32, 16).half()  # type: ignore[attr-defined]
    packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
    others = dict(packed_t=None, meta_t=None, compressed_swizzled_bitmask=None)
    return SparseSemiStructuredTensorCUTLASS(dense.shape, packed=packed, meta=meta, **others)


def _torch_content() -> dict[str, object]:
    import torch

    weight = torch.from_numpy(0.5 * MASK)
    return {
        "state_dict": {"a.weight": weight, "a.bias": torch.ones(3), "half": weight.bfloat16()},
        "masks": [torch.from_numpy(MASK), None],
        "coo": weight.to_sparse(),
        "csr": weight.to_sparse_csr(),
        "csc": weight.to_sparse_csc(),
        "bsr": weight.to_sparse_bsr((1, 2)),
        "bsc": weight.to_sparse_bsc((1, 2)),
        "semi": _semi_structured(torch),
        "tensor": torch.quantize_per_tensor(weight, 0.1, 3, torch.quint8),
        "channel": torch.quantize_per_channel(weight, torch.full((3,), 0.1), torch.zeros(3), 0, torch.qint8),
        "array": MASK.astype(np.int8),
        "objects": np.array([{"x": 0.5 * MASK}, None], object),
        "args": Namespace(lr=0.1, path=Path("/data")),
        "epoch": 3,
    }


@seed("torch")
def _torch(folder: Path) -> Path:
    import torch

    torch.save(_torch_content(), folder / "m.pt")
    return folder / "m.pt"


@seed("torch_legacy")
def _legacy(folder: Path) -> Path:
    import torch

    torch.save(_torch_content(), folder / "m.pth", _use_new_zipfile_serialization=False)
    return folder / "m.pth"


@seed("torchscript")
def _script(folder: Path) -> Path:
    """As torch.jit.save lays it out; written by hand, as compiling takes seconds."""
    import torch

    held = io.BytesIO()
    torch.save({"weight": torch.from_numpy(MASK)}, held)
    root = b"\x80\x02c__torch__\nNet\n)\x81}(X\x08\0\0\0trainingq\0\x89X\5\0\0\0innerc__torch__\nInner\n)\x81"
    with zipfile.ZipFile(held) as archive, zipfile.ZipFile(folder / "s.pt", "w") as made:
        state = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        made.writestr("s/data.pkl", root + state[2:-1] + b"bub.")
        for name in archive.namelist():
            if "/data/" in name:
                made.writestr("s/data/" + name.rpartition("/")[2], archive.read(name))
        made.writestr("s/constants.pkl", b"\x80\x02).")
    return folder / "s.pt"


@seed("torch_export")
def _export(folder: Path) -> Path:
    config = (
        '{"config": {"a.weight": {"path_name": "weight_0", "is_param": true, "use_pickle": false, "tensor_meta": {'
        '"dtype": 7, "sizes": [{"as_int": 3}, {"as_int": 4}], "strides": [{"as_int": 4}, {"as_int": 1}], '
        '"storage_offset": {"as_int": 0}}}}}'
    )
    with zipfile.ZipFile(folder / "e.pt2", "w") as archive:
        archive.writestr("e/data/weights/weight_0", MASK.tobytes())
        archive.writestr("e/data/weights/model_weights_config.json", config)
    return folder / "e.pt2"


@seed("pickle")
def _pickle(folder: Path) -> Path:
    content = {"mask": {"a": MASK}, "score": {"x": MASK.astype(">f8")}, "args": Namespace(a=(1, "b")), "t": {1: 2.5}}
    (folder / "m.pkl").write_bytes(pickle.dumps(content, 4))
    return folder / "m.pkl"


@seed("npy")
def _npy(folder: Path) -> Path:
    np.save(folder / "m.npy", {"a": MASK, "b": [MASK]}, allow_pickle=True)
    return folder / "m.npy"


@seed("npz")
def _npz(folder: Path) -> Path:
    np.savez_compressed(
        folder / "m.npz", a=MASK, b=np.asfortranarray(MASK), objects=np.array([{"c": 0.5 * MASK}], object)
    )
    return folder / "m.npz"


@seed("scipy_npz")
def _scipy(folder: Path) -> Path:
    import scipy.sparse

    scipy.sparse.save_npz(folder / "m.npz", scipy.sparse.csr_matrix(MASK), compressed=False)
    return folder / "m.npz"


@seed("safetensors")
def _safetensors(folder: Path) -> Path:
    formats.write(topo_masks(), folder / "m.safetensors")
    return folder / "m.safetensors"


def topo_masks() -> object:
    from topo.masks import MaskSet

    return MaskSet({"a.weight": MASK, "b.weight": MASK[:2]})


@seed("shard_index")
def _index(folder: Path) -> Path:
    _safetensors(folder)
    (folder / "i.index.json").write_text('{"metadata": {}, "weight_map": {"a.weight": "m.safetensors"}}')
    return folder / "i.index.json"


@seed("folder")
def _folder(folder: Path) -> Path:
    (folder / "f").mkdir()
    for name in ("a.weight", "b.weight"):
        np.save(folder / "f" / f"{name}.npy", MASK)
    return folder / "f"


@seed("zip")
def _zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(_torch(folder), "x/m.pt")
        archive.writestr("x/readme.txt", "words")
    return folder / "m.zip"


PACKERS = {"gzip": (".gz", gzip), "bzip2": (".bz2", bz2), "xz": (".xz", lzma)}


@seed(*PACKERS)
def _packed(folder: Path, ending: str = ".gz", packer: object = gzip) -> Path:
    path = folder / f"m.pt{ending}"
    path.write_bytes(packer.compress(_torch(folder).read_bytes()))  # type: ignore[attr-defined]
    return path


SEEDS["bzip2"] = lambda folder: _packed(folder, *PACKERS["bzip2"])
SEEDS["xz"] = lambda folder: _packed(folder, *PACKERS["xz"])


@seed("onnx")
def _onnx(folder: Path) -> Path:
    def part(number: int, value: int | bytes) -> bytes:
        return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value

    first = part(1, 3) + part(1, 4) + part(2, 1) + part(8, b"a") + part(9, MASK.tobytes())
    second = part(1, 2) + part(2, 7) + part(8, b"ids") + part(7, 3) + part(7, 1)
    node = part(1, b"x") + part(1, b"a") + part(4, b"MatMul")
    graph = part(1, node) + part(5, first) + part(5, second)
    graph = bytes([7 << 3 | 2, len(graph) & 127 | 128, len(graph) >> 7]) + graph
    (folder / "m.onnx").write_bytes(part(1, 8) + graph)
    return folder / "m.onnx"


@seed("hdf5")
def _hdf5(folder: Path) -> Path:
    try:
        import h5py
    except ImportError:
        (folder / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(400))
        return folder / "m.h5"
    with h5py.File(folder / "m.h5", "w") as file:
        file["dense/kernel:0"] = MASK
        file.create_dataset("packed", data=MASK, compression="gzip", chunks=(1, 4))
        file.attrs["keras_version"] = "3"
    return folder / "m.h5"


def without_seed() -> list[str]:
    """Kinds that are read and have no small whole file here."""
    return [kind.name for kind in kinds() if not kind.refuses and kind.name not in SEEDS]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few random changes: bytes, words that are large numbers, pieces dropped, doubled and exchanged, the end cut."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, size = int(rng.integers(len(changed) + 1)), int(rng.integers(1, 12))
        match int(rng.integers(7)):
            case 0 | 1:
                if at < len(changed):
                    changed[at] = int(rng.integers(256))
            case 2:
                word = WORDS[int(rng.integers(len(WORDS)))]
                changed[at : at + len(word)] = word
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size] * int(rng.integers(1, 4))
            case 5:
                there = int(rng.integers(len(changed) + 1))
                changed[at : at + size] = changed[there : there + size]
            case _:
                if rng.random() < 0.2:
                    del changed[at:]
    return bytes(changed)


def _within(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    """A mutation of what is packed in a file, packed again: the checksums outside fit."""
    if kind in PACKERS:
        packer = PACKERS[kind][1]
        return packer.compress(_within_zip(packer.decompress(data), rng))  # type: ignore[attr-defined]
    return _within_zip(data, rng)


def _within_zip(data: bytes, rng: np.random.Generator) -> bytes:
    if data[:2] != b"PK":
        return mutated(data, rng)
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(held, "w") as made:
        chosen = archive.infolist()[int(rng.integers(len(archive.infolist())))].filename
        if rng.random() < 0.5:  # where most is decided
            chosen = next((n for n in archive.namelist() if n.endswith((".pkl", ".json"))), chosen)
        for entry in archive.infolist():
            content = archive.read(entry)
            content = _within_zip(content, rng) if entry.filename == chosen else content
            made.writestr(entry.filename, content, entry.compress_type)
    return held.getvalue()


def mutations(kind: str, folder: Path, count: int, first: int = 0) -> Iterator[Path]:
    """The path of the seed of a kind, with another mutation in place each time."""
    folder.mkdir(exist_ok=True)
    whole = SEEDS[kind](folder)
    path = next(iter(sorted(whole.iterdir()))) if whole.is_dir() else whole
    data = path.read_bytes()
    for number in range(first, first + count):
        rng = np.random.default_rng([number, sum(kind.encode())])
        other = folder / "other"
        other.write_bytes(_within(kind, data, rng) if rng.random() < 0.5 else mutated(data, rng))
        other.replace(path)  # a new file each time: the old one may still be mapped
        yield whole


def outcome(path: Path) -> str:
    """ "read" or "refused"; AssertionError for a message that is not one line that names the file."""
    try:
        formats.read(path)
    except TopoError as error:
        text = str(error)
        assert path.name in text, text
        assert text.isprintable(), text
        assert len(text) <= 1500, text
        assert "more memory than there is" not in text, text
        return "refused"
    return "read"
