"""A file that is compressed as a whole: gzip, bzip2 and xz around anything that is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from mmap import mmap
from pathlib import PurePath
from typing import Any

from topo.containers.container import Container, File, container
from topo.containers.opening import take_apart
from topo.containers.unpacking import Stream, unpacked
from topo.errors import FormatError


def _opens(name: str, start: bytes, endings: tuple[str, ...], stream: Callable[[Any], Stream]) -> None:
    @container(name, f"a file of any kind compressed with {name}", starts_with=start)
    def open_compressed(file: File) -> Container:
        inner = PurePath(file.path.name)
        inner = PurePath(inner.stem) if inner.suffix.lower() in endings else inner
        try:
            data = unpacked(stream(_Reader(file.data)), len(file.data))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise FormatError(f"it is truncated or corrupt ({error})") from None
        return take_apart(file.part(inner.name, data))


class _Reader(io.RawIOBase):
    """A mapped file as a stream, without a copy of the whole."""

    def __init__(self, data: bytes | mmap) -> None:
        self.data, self.place = data, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self.data[self.place : self.place + len(buffer)]
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)


_opens("gzip", b"\x1f\x8b", (".gz", ".gzip"), lambda raw: gzip.GzipFile(fileobj=io.BufferedReader(raw)))
_opens("bzip2", b"BZh", (".bz2",), lambda raw: bz2.BZ2File(io.BufferedReader(raw)))
_opens("xz", b"\xfd7zXZ\0", (".xz",), lambda raw: lzma.LZMAFile(io.BufferedReader(raw)))
