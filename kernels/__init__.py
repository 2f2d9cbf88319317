"""Numba kernels, installed as `topo.kernels`: numpy arrays in and out; they never raise, print or see a name."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numba
from numba.core import dispatcher
from numba.core.caching import Cache, IndexDataCacheFile
from numba.np import linalg


def _without_blas() -> None:
    """numba's functions on arrays, without the linear algebra of scipy.

    numba imports that to see if it is there, for np.dot in compiled functions, which no kernel here has: a tenth of
    the processor seconds of a small command. Functions of others that need it import it when they are compiled.
    """
    asked, linalg.ensure_blas = linalg.ensure_blas, lambda: None
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        linalg.ensure_blas = asked


_without_blas()


def _private_cache(folders: Iterable[Path]) -> str | None:
    """None if one of `folders` can hold files, or no folder can; else a new temporary folder of this process.

    numba raises, instead of compiling without a cache, where it can write neither beside the code nor in the user's
    cache: an installation and a home that are both read-only. The folder is private and goes with the process, since
    what it holds is code.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return None
        except OSError:
            continue
    try:
        made = tempfile.mkdtemp(prefix="topo-kernels-")
    except OSError:  # nothing at all can be written: every process compiles what it calls
        setattr(dispatcher.Dispatcher, "enable_caching", lambda self: None)  # noqa: B010
        return None
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


_users = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or os.sep) / ".cache")
_asked = [Path(_dir)] if (_dir := os.environ.get("NUMBA_CACHE_DIR")) else []
if (_made := _private_cache([*_asked, Path(__file__).parent / "__pycache__", _users / "numba"])) is not None:
    os.environ["NUMBA_CACHE_DIR"] = _made
    numba.config.__dict__["CACHE_DIR"] = _made


# numba numbers the files of a kernel's types of arguments by an index that it reads, and writes before the file. Two
# processes that compile at once could each give the same number to another type: a third would then run code that was
# compiled for other arrays. One at a time they do not.


_PATIENCE = 20.0  # seconds; the lock is held for milliseconds, unless a process was forked or stopped within


@contextmanager
def _alone(folder: str, operation: int) -> Iterator[bool]:
    """Within it no other process writes in this cache (LOCK_SH), or looks into it (LOCK_EX); it dies with its process.

    False where another process keeps the lock. A folder that cannot be written to, or that has no locks, is used
    without.
    """
    try:
        file = open(os.path.join(folder, "topo.lock"), "a")
    except OSError:
        yield True
        return
    with file:
        yield _taken(file, operation)


def _taken(file: TextIO, operation: int) -> bool:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        except OSError:
            return True


_DAMAGED = (EOFError, pickle.UnpicklingError, AttributeError, ImportError, LookupError, TypeError, ValueError)


def _locked(method: Callable[..., Any], operation: int) -> Callable[..., Any]:
    """None instead, which to numba is an empty cache, where the lock cannot be had: compiling is slow, not wrong."""
    # Imported twice in a process, the second would wait for the first for ever.
    method = getattr(method, "__wrapped__", method)

    @functools.wraps(method)
    def alone(self: IndexDataCacheFile, *args: Any) -> Any:
        with _alone(os.path.dirname(self._index_path), operation) as free:
            if not free:
                return None
            try:
                return method(self, *args)
            except _DAMAGED:  # what pickle makes of a file that was cut short: as good as none
                self.flush()
                return None

    return alone


@contextmanager
def _kept_if_possible(self: Cache) -> Iterator[None]:
    """A cache that became full or unwritable, or that went away, costs compiling again, and no result."""
    try:
        yield
    except OSError:
        pass


setattr(Cache, "_guard_against_spurious_io_errors", _kept_if_possible)  # noqa: B010
for _name, _operation in (("save", fcntl.LOCK_EX), ("load", fcntl.LOCK_SH)):
    setattr(IndexDataCacheFile, _name, _locked(getattr(IndexDataCacheFile, _name), _operation))
