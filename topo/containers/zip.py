"""Zip archives, which npz and torch files are too: their directory is checked against their bytes before anything is
unpacked."""

from __future__ import annotations

import struct
import zipfile
from mmap import mmap
from typing import BinaryIO

from topo.errors import FormatError

# zipfile keeps some ten times the size of the directory in memory; 64 MB are half a million entries.
_LARGEST_DIRECTORY = 64_000_000


def entries_of(data: bytes | mmap) -> list[zipfile.ZipInfo]:
    """The entries of a zip file; FormatError if its directory is not kept by its bytes."""
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


def _check_directory(data: bytes | mmap) -> None:
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

    def __init__(self, data: bytes | mmap) -> None:
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


def stored_span(data: bytes | mmap, entry: zipfile.ZipInfo) -> tuple[int, int]:
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


def open_member(data: bytes | mmap, entry: zipfile.ZipInfo) -> BinaryIO:
    """One entry as a stream that unpacks while it is read."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"its entry '{entry.filename}' is compressed in a way that is not read; zip it anew with deflate"
        )
    return zipfile.ZipFile(_Mapped(data)).open(entry)  # type: ignore[return-value, arg-type]
