"""numpy's .npz: read entry by entry, each block by block."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from topo.containers.container import MEGABYTE, MOST_TENSORS, Container, File, container
from topo.containers.npy import npy_header
from topo.containers.pickle_file import read_objects
from topo.containers.rebuild import DEFLATED_ROW, Allowance
from topo.containers.tensors import Tensor
from topo.containers.zip import open_member
from topo.errors import FormatError

# An honest npz of masks seldom shrinks more than this many times; dense or empty masks do, and are small or refused.
_SHRINKS = 100
_FREE_BYTES = 512 * MEGABYTE
_FREE_OBJECTS = 16 * MEGABYTE


def lacks_arrays(file: File) -> str | None:
    if not file.is_zip:
        return "it is not a zip archive"
    if not file.entries or not all(entry.filename.endswith(".npy") for entry in file.entries):
        return "its entries are not all '*.npy'"
    return None


@container("npz", "numpy's .npz: arrays by name", recognise=lacks_arrays, before="zip")
def open_npz(file: File) -> Container:
    """The arrays of an npz by name; FormatError for a decompression bomb."""
    check_unpacked_size(file)
    if len(file.entries) > MOST_TENSORS:
        raise FormatError(f"it holds {len(file.entries):,} arrays; at most {MOST_TENSORS:,} are read")
    notes: list[str] = []
    allowance = Allowance(len(file.data), DEFLATED_ROW)
    tensors = {entry.filename.removesuffix(".npy"): member(file, entry, notes) for entry in file.entries}
    for tensor in tensors.values():
        if isinstance(tensor, Tensor):
            allowance.tensor(tensor.shape)
    return Container("npz", tensors, _comment(file), tuple(notes))


def _comment(file: File) -> dict[str, str]:
    """The texts by name that this project writes as the archive's comment; none where there is another comment."""
    try:
        found = json.loads(file.archive.comment)
    except (ValueError, RecursionError):
        return {}
    texts = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if texts else {}


def check_unpacked_size(file: File) -> None:
    """FormatError for an archive that promises far more than its bytes are likely to hold."""
    declared = sum(entry.file_size for entry in file.entries)
    if declared > max(_FREE_BYTES, _SHRINKS * len(file.data)):
        raise FormatError(
            f"its {len(file.data):,} bytes promise {declared:,} unpacked, more than {_SHRINKS} times as many: "
            "refused as a decompression bomb"
        )


def member(file: File, entry: zipfile.ZipInfo, notes: list[str]) -> Any:
    """One array of an npz: a Tensor that is unpacked block by block, or what an object array holds."""
    try:
        with open_member(file.archive, entry) as stream:
            shape, fortran, dtype, start = npy_header(stream)
            if dtype.hasobject:
                if entry.file_size > max(_FREE_OBJECTS, _SHRINKS * entry.compress_size):
                    raise FormatError(
                        f"it promises {entry.file_size:,} bytes of objects: refused as a decompression bomb"
                    )
                content, said = read_objects(stream.read(), shape)
                notes.extend(said)
                return content
    except FormatError as error:
        raise FormatError(f"its entry '{entry.filename}': {error}") from None
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise FormatError(f"its entry '{entry.filename}' is not an array ({error})") from None
    promised = start + prod(shape) * dtype.itemsize
    if promised != entry.file_size:
        raise FormatError(
            f"its entry '{entry.filename}' of shape {shape} promises {promised:,} bytes and has {entry.file_size:,}"
        )
    if dtype.kind not in "biuf":
        return Tensor(shape, dtype.name, _unread)
    held = np.dtype("u1") if dtype.kind == "b" else dtype

    def blocks(count: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        with open_member(file.archive, entry) as stream:
            stream.read(start)
            for first in range(0, shape[0] if shape else 1, count):
                block = (min(count, shape[0] - first), *shape[1:]) if shape else ()
                try:
                    values = stream.read(prod(block) * held.itemsize)
                except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
                    raise FormatError(f"its entry '{entry.filename}' is corrupt ({error})") from None
                if len(values) != prod(block) * held.itemsize:
                    raise FormatError(f"its entry '{entry.filename}' ends before its values do")
                yield np.frombuffer(values, held).reshape(block)

    if not fortran:
        return Tensor(shape, dtype.name, lambda count: blocks(count, shape))
    backwards = Tensor(shape[::-1], dtype.name, lambda count: blocks(count, shape[::-1]))
    return backwards.transposed(range(len(shape))[::-1])


def _unread(count: int) -> Any:
    raise FormatError("its values are text or records, which are not read")
