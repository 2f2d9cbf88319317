"""A file taken apart once, without reading its arrays: what kind it is, and its content as dicts and lists of
Tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from topo.errors import FormatError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Container:
    """kind: "safetensors", "npz", "npy", "torch" or "pickle". content: dicts, lists, plain values and Tensors, as
    stored.
    metadata: a safetensors file's text entries. notes: what was assumed, a line each."""

    kind: str
    content: Any
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def map_file(path: Path) -> mmap:
    """The bytes of a regular, non-empty file; FormatError with the reason for anything else."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError(f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}, not a file of masks")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError("the file is empty")
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror}") from None


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def open_container(path: Path) -> Container:
    """Take a file, or a folder of safetensors shards, apart.

    Raises FormatError with the reason, not naming the file.
    """
    from topo.formats import shards

    if path.is_dir():
        return shards.open_folder(path)
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
    from topo.formats import archive, pickled, safetensors, shards, torch_file

    start = data[:16]
    if start.startswith(b"PK"):
        return "a zip archive", archive.open_archive
    if start.startswith(b"\x93NUMPY"):
        return "a numpy array", pickled.open_npy
    if torch_file.is_legacy(data):
        return "a torch file", torch_file.open_legacy
    if path.name.endswith(".json"):
        return "a shard index", lambda mapped: shards.open_index(mapped, path.parent)
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and start[4:8] == b"\0\0\0\0"):
        return "safetensors", safetensors.open_safetensors
    if pickled.is_pickle(data):
        return "a pickle", pickled.open_pickle
    if start[8:9] == b"{":
        return "safetensors", safetensors.open_safetensors
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise FormatError(f"it is {name}; unpack it, or export the masks from it")
    raise FormatError(
        f"it starts with {bytes(start[:8])!r}: neither safetensors, a torch file, npz, npy, a shard index nor a pickle"
    )


_OTHERS = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"\x89HDF": "an HDF5 file",
    b"\x08": "perhaps an ONNX model",
}
