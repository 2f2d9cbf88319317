"""For every test: the same examples of properties on every run, no clock, fonts of matplotlib."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("topo", deadline=None, derandomize=True)
settings.load_profile("topo")

# A list of fonts of our own: the user's may have been made while an installation came or went, and without the fonts
# of formulas figures are not drawn as they should be.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="topo-matplotlib-")
atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

# A trace makes millions of objects that die young: looking for cycles as often as Python does is a tenth of the time.
gc.set_threshold(20_000, 10, 10)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no search for cycles goes through torch again."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m small` opens only the files that mark a test so: the others import torch, to select nothing."""
    words = config.option.markexpr.split(" and ")
    wanted = [word for word in words if word in ("small", "kernels")]
    if not wanted or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return not all(f"mark.{word}" in text for word in wanted) or None


@pytest.fixture(autouse=True, scope="session")
def no_progress() -> Iterator[None]:
    """A command says how far it is after two seconds: a slow machine would see lines that a fast one does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo.cli.output._PATIENCE", float("inf"))
        yield
