"""numpy's own files: .npy, and .npz read entry by entry, each block by block."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from mmap import mmap
from typing import Any

import numpy as np

from topo.containers.container import MEGABYTE, Container
from topo.containers.pickle_file import read_objects
from topo.containers.tensors import Tensor
from topo.containers.zip import open_member
from topo.errors import FormatError

# An honest npz of masks seldom shrinks more than this many times; dense or empty masks do, and are small or refused.
_SHRINKS = 100
_FREE_BYTES = 512 * MEGABYTE
_FREE_OBJECTS = 16 * MEGABYTE


def open_npy(data: mmap) -> Container:
    """One array, or the dict or list in an array of objects."""
    head = io.BytesIO(data[: 1 << 16])
    shape, fortran, dtype, start = _header(head)
    if dtype.hasobject:
        return Container("npy", read_objects(data, shape, start))
    promised = start + prod(shape) * dtype.itemsize
    if promised != len(data):
        raise FormatError(f"an array of shape {shape} promises {promised:,} bytes and the file has {len(data):,}")
    if dtype.kind not in "biuf" or not prod(shape):
        raise FormatError(f"it holds one array of type {dtype} and shape {shape}, which is no mask")
    held = np.dtype("u1") if dtype.kind == "b" else dtype
    array = np.frombuffer(data, held, prod(shape), start).reshape(shape, order="F" if fortran else "C")
    return Container("npy", [Tensor.of(array, dtype.name)])


def open_npz(data: mmap, entries: list[zipfile.ZipInfo]) -> Container:
    """The arrays of an npz by name; FormatError for a decompression bomb."""
    declared = sum(entry.file_size for entry in entries)
    if declared > max(_FREE_BYTES, _SHRINKS * len(data)):
        raise FormatError(
            f"its {len(data):,} bytes promise {declared:,} unpacked, more than {_SHRINKS} times as many: "
            "refused as a decompression bomb"
        )
    tensors = {entry.filename.removesuffix(".npy"): _member(data, entry) for entry in entries}
    return Container("npz", tensors)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """shape, column-major or not, dtype and length of an .npy header; ValueError if it is none."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():  # of headers by Python 2, and of odd escapes in corrupt ones
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read(stream)
    except Exception as error:  # numpy lets out whatever Python's tokenizer and parser say of the text
        raise ValueError(f"{type(error).__name__}: {str(error)[:100]}") from None
    if any(n < 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype, stream.tell()


def _member(data: mmap, entry: zipfile.ZipInfo) -> Any:
    """One array of an npz: a Tensor that is unpacked block by block, or what an object array holds."""
    try:
        with open_member(data, entry) as stream:
            shape, fortran, dtype, start = _header(stream)
            if dtype.hasobject:
                if entry.file_size > max(_FREE_OBJECTS, _SHRINKS * entry.compress_size):
                    raise FormatError(
                        f"it promises {entry.file_size:,} bytes of objects: refused as a decompression bomb"
                    )
                return read_objects(stream.read(), shape)
    except FormatError as error:
        raise FormatError(f"its entry '{entry.filename}': {error}") from None
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise FormatError(f"its entry '{entry.filename}' is no array ({error})") from None
    promised = start + prod(shape) * dtype.itemsize
    if promised != entry.file_size:
        raise FormatError(
            f"its entry '{entry.filename}' of shape {shape} promises {promised:,} bytes and has {entry.file_size:,}"
        )
    if dtype.kind not in "biuf":
        return Tensor(shape, dtype.name, _unread)
    held = np.dtype("u1") if dtype.kind == "b" else dtype

    def blocks(count: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        with open_member(data, entry) as stream:
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
