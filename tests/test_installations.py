"""Pythons and installations as people have them: without docstrings and asserts."""

import os
import subprocess
import sys

import numpy as np
import pytest

import topo
from topo.cli.listing import _LISTS
from topo.masks import MaskSet

# Only two that load torch or matplotlib: Python compiles all of those anew without docstrings, ten seconds. (Wirings
# come from the cache.)
_LINES = [
    *(["list", what] for what in _LISTS),
    ["analyze", "a.npz", "--metrics", "paths,degrees,size", "--nulls", "same_layers:3", "--json", "-"],
    ["analyze", "a.npz", "--model", "mlp:6-4-3", "--metrics", "paths"],
    ["compare", "a.npz", "b.npz", "--json", "-"],
    ["check", "a.npz", "--max-density", "0.9"],
    ["convert", "a.npz", "c.safetensors"],
    ["generate", "balance", "--model", "mlp:6-4-3", "--density", "0.5", "-o", "d.npz"],
    ["trace", "--show", "resnet20"],
    ["formats", "explain", "a.npz"],
    ["plot", "nothing", "a.npz", "-o", "b.svg"],
    ["generate", "er", "--model", "mlp:6-4-3", "--density", "2"],
    ["analyze", "none.npz"],
]
_RUN = """
import sys
from topo.cli import main
for line in eval(sys.argv[1]):
    print("==", main(line))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_without_docstrings_and_asserts_everything_is_as_with_them(folder):
    rng = np.random.default_rng(0)
    said = []
    for optimize in ("", "2"):
        (folder / f"in{optimize}").mkdir()
        os.chdir(folder / f"in{optimize}")
        for name in ("a.npz", "b.npz"):
            masks = MaskSet({"fc1.weight": np.eye(4, 6), "fc2.weight": rng.random((3, 4)) < 2})
            topo.write_masks(masks, name)
        done = subprocess.run(
            [sys.executable, "-c", _RUN, repr([[*line, "--quiet"] for line in _LINES])],
            # Kernels are not what is asked here, and numba would compile them anew for other bytecode: 16 s.
            env={**os.environ, "PYTHONOPTIMIZE": optimize, "NUMBA_DISABLE_JIT": "1"},
            capture_output=True,
            text=True,
        )
        lines = (done.stdout + done.stderr).splitlines()
        said.append(lines)
    assert said[0] == said[1]
    assert [line for line in said[0] if line.startswith("== ")] == ["== 0"] * (len(_LINES) - 3) + [
        "== 1",
        "== 2",
        "== 1",
    ]
    for path in (folder / "in").iterdir():
        if path.is_file():
            assert path.read_bytes() == (folder / "in2" / path.name).read_bytes(), path
