"""Numba kernels, installed as `topo.kernels`: numpy arrays in and out; they never raise, print or see a name."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path


def _private_cache(folders: Iterable[Path]) -> str | None:
    """None if one of `folders` can hold files, else a new temporary folder of this process.

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
    made = tempfile.mkdtemp(prefix="topo-kernels-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


if not os.environ.get("NUMBA_CACHE_DIR"):
    _users = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or os.sep) / ".cache")
    if (_made := _private_cache([Path(__file__).parent / "__pycache__", _users / "numba"])) is not None:
        os.environ["NUMBA_CACHE_DIR"] = _made
        if "numba" in sys.modules:
            sys.modules["numba"].config.CACHE_DIR = _made
