"""A file taken apart once, without reading its arrays: what kind it is, and its content as dicts and lists of
Tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
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
