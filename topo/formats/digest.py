"""The SHA-256 of a file that was read. It takes a third of the time that reading takes, so that it is taken when a
report, or a file that is written of the masks, names it."""

from __future__ import annotations

import hashlib
import os
import stat
from functools import cached_property
from pathlib import Path

# Hashing takes half a second a gigabyte, beside a pass over the same bytes.
_HASHED = 1 << 28


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


class Digest:
    """Called, it gives the SHA-256 of a file in hexadecimal digits; None once the file is gone or was written anew.

    path: of the file. before: what `os.stat` said of it ahead of the reading.
    """

    def __init__(self, path: Path, before: os.stat_result) -> None:
        self._path, self._before = path.absolute(), _identity(before)

    def __call__(self) -> str | None:
        return self._found

    @cached_property
    def _found(self) -> str | None:
        try:
            with open(self._path, "rb") as file:
                if _identity(os.fstat(file.fileno())) != self._before:
                    return None
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return digest if _identity(os.fstat(file.fileno())) == self._before else None
        except OSError:
            return None


def digest_of(path: Path) -> Digest | None:
    """Of a file of up to 256 MB that is about to be read; None for a larger one and for a folder."""
    seen = os.stat(path)
    return Digest(path, seen) if stat.S_ISREG(seen.st_mode) and seen.st_size <= _HASHED else None
