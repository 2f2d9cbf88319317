"""The safetensors container, read and written without the safetensors package, so that 16- and 8-bit floats and
booleans work in numpy, no tensor is copied, and a header that promises more than the file holds is refused before
memory is taken."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from math import prod
from mmap import mmap
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.atomic import replacing
from topo.containers.container import MEGABYTE, MOST_TENSORS, Container, File, container
from topo.containers.tensors import Tensor, numpy_dtype
from topo.errors import FormatError

# 100 000 tensors take some 12 MB; parsed JSON takes up to twenty times its text.
LARGEST_HEADER = 25 * MEGABYTE

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}
_HELD = {dtype: numpy_dtype(name) for dtype, name in _DTYPES.items()}


def _recognise(file: File) -> str | None:
    if file.path.suffix == ".safetensors" or file.start[4:9] == b"\0\0\0\0{":
        return None
    return "its name does not end in '.safetensors', and no header in JSON starts at byte 8"


@container("safetensors", "safetensors: tensors by name", recognise=_recognise, before="pickle")
def open_safetensors(file: File) -> Container:
    """Tensors by name, in the order of their bytes; FormatError for a header that the file does not keep."""
    data = file.data
    if len(data) < 8:
        raise FormatError(f"the file is truncated: it has {len(data)} bytes")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise FormatError(f"the header promises {length:,} bytes and {len(data) - 8:,} follow")
    if length > LARGEST_HEADER:
        raise FormatError(f"the header of {length:,} bytes is larger than the {LARGEST_HEADER:,} that are read")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("the header's metadata is not a map of texts")
    if len(header) > MOST_TENSORS:
        raise FormatError(f"it holds {len(header):,} tensors; at most {MOST_TENSORS:,} are read")
    base, room = 8 + length, len(data) - 8 - length
    entries = [(name, *_entry(name, entry, room)) for name, entry in header.items()]
    entries.sort(key=itemgetter(3))
    for before, after in pairwise(entries):
        if after[3] < before[4]:
            raise FormatError(f"tensors '{before[0]}' and '{after[0]}' overlap")
    tensors = {name: _tensor(data, dtype, shape, base + start) for name, dtype, shape, start, _ in entries}
    return Container("safetensors", tensors, metadata)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands in it twice")
    return result


def _entry(name: str, entry: Any, room: int) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first and last + 1 byte of one tensor, checked against the bytes there are."""
    if not isinstance(entry, dict):
        raise FormatError(f"tensor '{name}' has no entry")
    dtype, shape, offsets = entry.get("dtype"), _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or len(shape) > 32 or offsets is None or len(offsets) != 2:
        raise FormatError(f"tensor '{name}' is described as {str(entry)[:200]}")
    start, stop = offsets
    if not start <= stop <= room:
        raise FormatError(f"tensor '{name}' promises bytes {start:,} to {stop:,} and the file holds {room:,}")
    if dtype in _HELD:
        needed = prod(shape) * _HELD[dtype].itemsize
        if needed != stop - start:
            raise FormatError(
                f"tensor '{name}' of shape {tuple(shape)} takes {needed:,} bytes and has {stop - start:,}"
            )
    return dtype, tuple(shape), start, stop


def _naturals(values: Any) -> list[int] | None:
    if not isinstance(values, list):
        return None
    for value in values:  # a generator in all() takes three times as long
        if type(value) is not int or value < 0:
            return None
    return values


def _tensor(data: bytes | mmap, dtype: str, shape: tuple[int, ...], start: int) -> Tensor:
    if dtype not in _HELD:  # packed types: no mask can be read from them, and other tensors of the file still can
        return Tensor(shape, dtype.lower(), _unknown)
    if 0 in shape:
        return Tensor(shape, _DTYPES[dtype], lambda count: iter(()))

    return Tensor(shape, _DTYPES[dtype], partial(_rows, data, _HELD[dtype], shape, start))


def _rows(data: bytes | mmap, held: np.dtype, shape: tuple[int, ...], start: int, count: int) -> Iterator[np.ndarray]:
    """An array when it is read: most tensors of a checkpoint never are."""
    array = np.ndarray(shape, held, data, start)
    if not shape:
        yield array
        return
    for first in range(0, shape[0], count):
        yield array[first : first + count]


def _unknown(count: int) -> Any:
    raise FormatError("its values are of a packed type that is not read")


def save(
    path: str | Path, tensors: Iterable[tuple[str, tuple[int, ...]]], values: Any, metadata: Mapping[str, str]
) -> None:
    """Write uint8 tensors: `tensors` names and shapes in order, values(name) their arrays, asked for one at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for name, shape in tensors:
        if name in header:
            raise FormatError(f"a safetensors file cannot hold a tensor that is called '{name}'")
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [place, place + prod(shape)]}
        place += prod(shape)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in header:
            if name != "__metadata__":
                file.write(np.ascontiguousarray(values(name), np.uint8).data)


def steady(path: str | Path) -> None:
    """Sort the metadata of a file that the official package wrote, which orders them anew each time: the same bytes."""
    with open(path, "r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text + b" " * (size - len(text)))
