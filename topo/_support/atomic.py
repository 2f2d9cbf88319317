"""Files are written beside their place and renamed into it: a reader never sees half a file, a failure leaves none.

What cannot be renamed into is written through: a device, a pipe, and standard output under any of its names.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from topo.errors import TopoError

PREFIX = ".topo-"  # of temporary files: a killed process leaves one, and whoever owns the folder may remove it
_MOST_LINKS = 40  # Linux follows as many
_LONGEST_ENDING = 32
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd")
_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success rename it to `path`, on any failure remove it.

    The temporary file ends as `path` does, for writers that look at the ending. Its content is on the disk before it
    gets its name, so that a power cut leaves the old file or the new one. A link stays and what it points to is
    replaced, with its permissions. A process that is told to end while it writes removes the temporary file first.

    Raises TopoError where `path` cannot be written: see `writable`.
    """
    target = writable(path)
    through = _descriptor(target) is not None or _special(target)
    folder = Path(tempfile.gettempdir()) if through else target.parent
    ending = target.suffix if len(target.suffix) <= _LONGEST_ENDING else ""
    temporary = folder / f"{PREFIX}{secrets.token_hex(6)}{ending}"
    with _removed(temporary):
        try:
            # what only its owner may read is never open to others, not even while it is written
            mode = 0o600 if through else stat.S_IMODE(target.stat().st_mode) if target.exists() else None
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode | 0o600))
            yield temporary
            if through:
                _pass_on(temporary, target)
            else:
                _to_disk(temporary)
                if mode is not None:
                    os.chmod(temporary, mode)
                os.replace(temporary, target)
        except OSError as error:
            _refuse(path, error)
        except Exception as error:  # safetensors is written in Rust and has a name of its own for a full disk
            if type(error).__name__ != "SafetensorError":
                raise
            _refuse(path, error)


def writable(path: str | Path) -> Path:
    """Where writing to `path` ends, its links followed; TopoError if that is a folder, read-only or in no folder."""
    if not str(path):
        raise TopoError("cannot write '': it is not the name of a file")
    try:
        target = _followed(Path(path))
        if _descriptor(target) is not None:
            return target
        if target.is_dir():
            raise TopoError(f"cannot write '{path}': it is a folder")
        if not target.parent.is_dir():
            missing = target.parent if Path(path).is_symlink() else Path(path).parent
            raise TopoError(f"cannot write '{path}': there is no folder '{missing}'")
        if target.exists() and not os.access(target, os.W_OK):
            raise TopoError(f"cannot write '{path}': it is read-only, or not yours to write")
        if not _special(target) and not os.access(target.parent, os.W_OK | os.X_OK):
            raise TopoError(f"cannot write '{path}': its folder is read-only, or not yours to write in")
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long, a zero byte
        _refuse(path, error)
    return target


def made_folder(path: str | Path, what: str) -> Path:
    """The folder, made if it is not there; TopoError, naming `what` it is, where none can be."""
    try:
        if not (folder := os.fspath(path)):
            raise ValueError("its name is empty")
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        said = "it is a link that leads nowhere" if Path(path).is_symlink() else "it is a file"
        raise TopoError(f"cannot make {what} '{path}': {said}") from None
    except (OSError, TypeError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise TopoError(f"cannot make {what} '{path!s:.100}': {said}") from None
    return Path(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _refuse(path: str | Path, error: Exception) -> NoReturn:
    raise TopoError(f"cannot write '{path}': {getattr(error, 'strerror', None) or error}") from None


def _followed(path: Path) -> Path:
    """The end of a chain of links, which may be missing; a descriptor of this process stays as it is called."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name if path.name != ".." else Path(os.path.realpath(path))
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise OSError(None, "its links go in a circle")


def _descriptor(path: Path) -> int | None:
    """The open file that a path such as /dev/stdout leads to, if it is one of this process."""
    found = _DESCRIPTORS.fullmatch(str(path.parent))
    if found is None or not path.name.isdecimal() or found[1] not in (None, str(os.getpid())):
        return None
    return int(path.name)


def _special(path: Path) -> bool:
    """Whether it is there and neither a file nor a folder: a device, a pipe, a socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _pass_on(temporary: Path, target: Path) -> None:
    number = _descriptor(target)
    if number is None:
        opened = os.open(target, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    else:
        if number == 1 and sys.__stdout__ is not None:
            sys.__stdout__.flush()  # what was said before comes before
        opened = os.dup(number)
    with open(temporary, "rb") as source, open(opened, "wb") as file:
        shutil.copyfileobj(source, file)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


_unfinished: set[Path] = set()


def _end(number: int, frame: Any) -> None:
    """The handler of a signal that ends a process: it ends as it would have, but for its temporary files."""
    for temporary in _unfinished:
        temporary.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def _removed(temporary: Path) -> Iterator[None]:
    """At its end the file is gone, also where the process is told to end within it."""
    ours = []
    if threading.current_thread() is threading.main_thread():  # no other thread can take signals
        ours = [number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL]
    _unfinished.add(temporary)
    try:
        for number in ours:
            signal.signal(number, _end)
        yield
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
