"""Zip archives: npz files and torch files. Their directory is checked against their bytes before anything is
unpacked."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from mmap import mmap
from typing import Any, BinaryIO

import numpy as np

from topo.errors import FormatError
from topo.formats.container import MEGABYTE, Container
from topo.formats.tensors import Tensor

# An honest npz of masks seldom shrinks more than this many times; dense or empty masks do, and are small or refused.
_SHRINKS = 100
_FREE_BYTES = 512 * MEGABYTE
_FREE_OBJECTS = 16 * MEGABYTE
# zipfile keeps some ten times the size of the directory in memory; 64 MB are half a million entries.
_LARGEST_DIRECTORY = 64 * MEGABYTE


def open_archive(data: mmap) -> Container:
    """An npz or a torch file; FormatError if it is neither or its directory is not kept by its bytes."""
    entries = _entries(data)
    names = [entry.filename for entry in entries]
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        from topo.formats import torch_file

        return torch_file.open_zip(data, entries)
    if names and all(name.endswith(".npy") for name in names):
        return _open_npz(data, entries)
    listed = ", ".join(repr(name) for name in names[:4]) or "nothing"
    raise FormatError(f"it is neither a torch file nor an npz; it holds {listed}{', ...' if len(names) > 4 else ''}")


def _entries(data: mmap) -> list[zipfile.ZipInfo]:
    _check_directory(data)
    try:
        with zipfile.ZipFile(_Mapped(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"it is truncated or corrupt ({error})") from None
    if len({entry.filename for entry in entries}) != len(entries):
        raise FormatError("a name stands twice in its directory")
    if any(entry.flag_bits & 0x61 for entry in entries):
        raise FormatError("its entries are encrypted or patches of others")
    packed = sum(entry.compress_size for entry in entries)
    if packed > len(data):
        raise FormatError(f"its entries promise {packed:,} bytes and the file has {len(data):,}: they overlap")
    return entries


def _check_directory(data: mmap) -> None:
    """FormatError for a directory larger than is read; zipfile reads it whole."""
    end = data.rfind(b"PK\5\6", max(0, len(data) - 65_557))
    if end < 0 or end + 22 > len(data):
        raise FormatError("it is truncated: it has no directory at its end")
    (size,) = struct.unpack("<I", data[end + 12 : end + 16])
    if size == 0xFFFFFFFF and (wide := data.rfind(b"PK\6\6", max(0, end - 4096), end)) >= 0:
        (size,) = struct.unpack("<Q", data[wide + 40 : wide + 48].ljust(8, b"\xff"))
    if size > min(len(data), _LARGEST_DIRECTORY):
        raise FormatError(
            f"its directory promises {size:,} bytes; the file has {len(data):,}, and {_LARGEST_DIRECTORY:,} are read"
        )


class _Mapped:
    """A mapped file as zipfile wants it: readable and seekable, without moving the map's own position."""

    def __init__(self, data: mmap) -> None:
        self.data, self.place = data, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = max(0, offset + (0, self.place, len(self.data))[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, count: int = -1) -> bytes:
        stop = len(self.data) if count is None or count < 0 else self.place + count
        found = self.data[self.place : stop]
        self.place += len(found)
        return found


def stored_span(data: mmap, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """First and last + 1 byte of an entry that is stored as it is."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise FormatError(f"its entry '{entry.filename}' is compressed, which torch never does")
    header = data[entry.header_offset : entry.header_offset + 30]
    if len(header) != 30 or header[:4] != b"PK\3\4":
        raise FormatError(f"its entry '{entry.filename}' is not where the directory says")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + entry.file_size > len(data):
        raise FormatError(f"its entry '{entry.filename}' promises {entry.file_size:,} bytes and the file ends before")
    return start, start + entry.file_size


def _open_npz(data: mmap, entries: list[zipfile.ZipInfo]) -> Container:
    declared = sum(entry.file_size for entry in entries)
    if declared > max(_FREE_BYTES, _SHRINKS * len(data)):
        raise FormatError(
            f"its {len(data):,} bytes promise {declared:,} unpacked, more than {_SHRINKS} times as many: "
            "refused as a decompression bomb"
        )
    tensors = {entry.filename.removesuffix(".npy"): _member(data, entry) for entry in entries}
    return Container("npz", tensors)


def _open_member(data: mmap, entry: zipfile.ZipInfo) -> BinaryIO:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"its entry '{entry.filename}' is compressed in a way that npz does not use")
    return zipfile.ZipFile(_Mapped(data)).open(entry)  # type: ignore[return-value, arg-type]


def read_npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
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
        with _open_member(data, entry) as stream:
            shape, fortran, dtype, start = read_npy_header(stream)
            if dtype.hasobject:
                from topo.formats import pickled

                if entry.file_size > max(_FREE_OBJECTS, _SHRINKS * entry.compress_size):
                    raise FormatError(
                        f"it promises {entry.file_size:,} bytes of objects: refused as a decompression bomb"
                    )
                return pickled.read_objects(stream.read(), shape)
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
        with _open_member(data, entry) as stream:
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
