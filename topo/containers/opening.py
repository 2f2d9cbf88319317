"""Which kind of file it is, by its first bytes, and taking it apart."""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from pathlib import Path

from topo.containers.container import Container, map_file
from topo.containers.npz import open_npy, open_npz
from topo.containers.pickle_file import is_pickle, open_pickle
from topo.containers.safetensors import open_safetensors
from topo.containers.shards import open_folder, open_index
from topo.containers.torch_file import is_legacy, open_legacy, open_zip
from topo.containers.zip import entries_of
from topo.errors import FormatError


def open_container(path: Path) -> Container:
    """Take a file, or a folder of safetensors shards, apart.

    Raises FormatError with the reason, not naming the file.
    """
    if path.is_dir():
        return open_folder(path, open_container)
    data = map_file(path)
    kind, parse = _sniff(data, path)
    try:
        return parse(data)
    except FormatError as error:
        raise FormatError(f"as {kind}: {error}") from None
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise FormatError(f"as {kind}: it is corrupt ({type(error).__name__}: {error})") from None


def _sniff(data: mmap, path: Path) -> tuple[str, Callable[[mmap], Container]]:
    """What the first bytes say the file is, and the function that takes it apart."""
    start = data[:16]
    if start.startswith(b"PK"):
        return "a zip archive", _open_archive
    if start.startswith(b"\x93NUMPY"):
        return "a numpy array", open_npy
    if is_legacy(data):
        return "a torch file", open_legacy
    if path.name.endswith(".json"):
        return "a shard index", lambda mapped: open_index(mapped, path.parent, open_container)
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and start[4:8] == b"\0\0\0\0"):
        return "safetensors", open_safetensors
    if is_pickle(data):
        return "a pickle", open_pickle
    if start[8:9] == b"{":
        return "safetensors", open_safetensors
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise FormatError(f"it is {name}; unpack it, or export the masks from it")
    raise FormatError(
        f"it starts with {bytes(start[:8])!r}: neither safetensors, a torch file, npz, npy, a shard index nor a pickle"
    )


def _open_archive(data: mmap) -> Container:
    """An npz or a torch file; FormatError if it is neither or its directory is not kept by its bytes."""
    entries = entries_of(data)
    names = [entry.filename for entry in entries]
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return open_zip(data, entries)
    if names and all(name.endswith(".npy") for name in names):
        return open_npz(data, entries)
    listed = ", ".join(repr(name) for name in names[:4]) or "nothing"
    raise FormatError(f"it is neither a torch file nor an npz; it holds {listed}{', ...' if len(names) > 4 else ''}")


_OTHERS = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"\x89HDF": "an HDF5 file",
    b"\x08": "perhaps an ONNX model",
}
