"""Zip archives, which npz and torch files are too: their directory is checked against their bytes before anything is
unpacked."""

from __future__ import annotations

import struct
import zipfile
from mmap import mmap
from typing import IO

from topo.errors import FormatError

# zipfile keeps some ten times the size of the directory in memory; 64 MB are half a million entries.
_LARGEST_DIRECTORY = 64_000_000


def archive_of(data: bytes | mmap) -> zipfile.ZipFile:
    """A zip file, its directory read; FormatError if that is not kept by its bytes.

    To be opened once and kept: each opening reads the whole directory.
    """
    stream = _Bytes(data)
    try:
        archive = zipfile.ZipFile(stream)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, OSError) as error:
        raise FormatError(f"it is truncated or corrupt ({error})") from None
    stream.most = len(data)
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries):
        raise FormatError("a name stands twice in its directory")
    if any(entry.flag_bits & 0x61 for entry in entries):
        raise FormatError("its entries are encrypted or patches of others")
    packed = sum(entry.compress_size for entry in entries)
    if packed > len(data):
        raise FormatError(f"its entries promise {packed:,} bytes and the file has {len(data):,}: they overlap")
    return archive


class _Bytes:
    """Bytes as zipfile wants them: readable and seekable, without a copy of the whole or moving a map's own position.

    most: how much is read at once; of a directory, whichever of its records zipfile believes about its size.
    """

    def __init__(self, data: bytes | mmap) -> None:
        self.data, self.place, self.most = data, 0, _LARGEST_DIRECTORY

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = max(0, offset + (0, self.place, len(self.data))[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, count: int = -1) -> bytes:
        if count is not None and count > self.most:
            raise FormatError(f"its directory promises {count:,} bytes, and {self.most:,} are read")
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


def open_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """One entry as a stream that unpacks while it is read."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"its entry '{entry.filename}' is compressed in a way that is not read; zip it anew with deflate"
        )
    return archive.open(entry)
