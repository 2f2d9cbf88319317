"""The bytes of a file: read into memory where they are few, else mapped. A mapped file that another program cuts short
is an error that is told, not a signal that ends the process."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from functools import cache
from mmap import ACCESS_READ, MADV_SEQUENTIAL, MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, PROT_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from topo.errors import FormatError

# Reading so much costs no more than mapping it and meeting each page for the first time.
IN_MEMORY = 8_000_000

_CHANGED = "the file changed while it was read; read it again when nothing writes to it"
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class Mapped(mmap):
    """A regular file, mapped for reading.

    Pages behind a new end of the file read as zeros once they are met, and `check` says so: whoever reads values calls
    it afterwards, before they are used.
    """

    path: Path
    seen: os.stat_result
    place: int
    cut: list[bool]

    def check(self) -> None:
        """FormatError if the bytes are no longer those that were mapped.

        A file that is replaced or removed stays as it was under the map. One that is written over or cut short does
        not.
        """
        if self.cut[0] or self.size() != len(self):
            raise FormatError(_CHANGED)
        try:
            now = os.stat(self.path)
        except OSError:
            return
        before = self.seen
        if now.st_ino == before.st_ino and now.st_dev == before.st_dev and now.st_mtime_ns != before.st_mtime_ns:
            raise FormatError(_CHANGED)

    def __del__(self) -> None:
        _maps.pop(getattr(self, "place", 0), None)


def bytes_of(path: Path, in_memory: int = IN_MEMORY) -> bytes | Mapped:
    """The bytes of a regular, non-empty file; FormatError with the reason for anything else, and for a file that
    changes while it is read into memory."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError(f"it is {_SPECIAL.get(stat.S_IFMT(mode), 'something else')}, not a file of masks")
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of what became a pipe since then, not for ever
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                raise FormatError("it is not a regular file")
            if seen.st_size == 0:
                raise FormatError("the file is empty")
            if seen.st_size > in_memory and _is_guarded():
                return _mapped(path, handle, seen)
            return _read(handle, seen)
        finally:
            os.close(handle)
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror}") from None


def _read(handle: int, seen: os.stat_result) -> bytes:
    pieces, size = [], 0
    while size < seen.st_size and (piece := os.pread(handle, min(seen.st_size - size, 1 << 30), size)):
        pieces.append(piece)
        size += len(piece)
    now = os.fstat(handle)
    if size != seen.st_size or (now.st_size, now.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
        raise FormatError(_CHANGED)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _mapped(path: Path, handle: int, seen: os.stat_result) -> Mapped:
    data = Mapped(handle, seen.st_size, access=ACCESS_READ)
    data.madvise(MADV_SEQUENTIAL)  # tensors are read from their first byte to their last
    data.path, data.seen, data.cut = path, seen, [False]
    data.place = int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])
    _maps[data.place] = len(data), data.cut
    return data


# Where a page of a map is no longer in its file, the system sends SIGBUS to the thread that meets it, which by itself
# ends the process. Copies by pread would be safe as well, and cost two fifths of reading a large file; a handler costs
# nothing. It runs on that thread, like a call in the place of the load that failed: it puts empty pages there, marks
# the map as cut, and the load is done again.
_maps: dict[int, tuple[int, list[bool]]] = {}
_ADDRESS = 16  # of the fault, in siginfo_t, on 64-bit Linux
_SA_SIGINFO = 4
_MAP_FIXED = 0x10


class _Action(ctypes.Structure):
    """struct sigaction of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_char * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Guard:
    """The handler, and what was there before it."""

    def __init__(self) -> None:
        self.libc: Any = ctypes.CDLL(None)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
        self.libc.sigaction.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self.fault)
        self.own = _Action(ctypes.cast(self.call, ctypes.c_void_p).value, flags=_SA_SIGINFO)
        self.before = _Action()

    def install(self) -> None:
        """Put the handler in place, unless it is; faulthandler and others may have come since."""
        now = _Action()
        self.libc.sigaction(signal.SIGBUS, None, ctypes.byref(now))
        if now.handler != self.own.handler:
            self.before = now
            self.libc.sigaction(signal.SIGBUS, ctypes.byref(self.own), None)

    def fault(self, number: int, about: int, context: int) -> None:
        address = ctypes.c_uint64.from_address(about + _ADDRESS).value
        for place, (size, cut) in list(_maps.items()):
            if place <= address < place + size:
                page = address - address % PAGESIZE
                rest = -(-(place + size - page) // PAGESIZE) * PAGESIZE
                cut[0] = True
                self.libc.mmap(page, rest, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
                return
        self.libc.sigaction(signal.SIGBUS, ctypes.byref(self.before), None)  # not ours: it comes again, to them


@cache
def _guard() -> _Guard:
    return _Guard()


def _is_guarded() -> bool:
    """Whether maps are safe here, after seeing to it; elsewhere files are read into memory."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    _guard().install()
    return True
