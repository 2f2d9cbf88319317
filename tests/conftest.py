"""For every test: the same examples of properties on every run, no clock, fonts of matplotlib, a cache of kernels."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("topo", deadline=None, derandomize=True)
settings.load_profile("topo")

# A list of fonts of our own: the user's may have been made while an installation came or went, and without the fonts
# of formulas figures are not drawn as they should be.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="topo-matplotlib-")
atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

# Of processes that compile one kernel for two types at the same moment, numba's cache may keep the code of one under
# the name of the other: each worker of pytest-xdist has a cache of its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    shared = os.environ.get("NUMBA_CACHE_DIR") or ROOT / ".pytest_cache" / "numba"
    os.environ["NUMBA_CACHE_DIR"] = str(Path(shared) / worker)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m small` opens only the files that mark a test so: the others import torch, to select nothing."""
    if not re.match(r"\(?small\b", config.option.markexpr) or collection_path.suffix != ".py":
        return None
    return "mark.small" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(autouse=True, scope="session")
def no_progress() -> Iterator[None]:
    """A command says how far it is after two seconds: a slow machine would see lines that a fast one does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo.cli.output._PATIENCE", float("inf"))
        yield
