"""Pythons and installations as people have them: without docstrings and asserts, read-only, with threads and forks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


_AT_ONCE = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
import topo

def text(threads):
    masks = topo.read_masks("a.npz")
    report = topo.analyze(masks, metrics="default,size", nulls="same_layers:4", threads=threads)
    return report.to_json()

with ThreadPoolExecutor(4) as pool:  # the first calls of all: kernels are found and compiled by several at once
    found = list(pool.map(text, [4] * 4))
with multiprocessing.get_context("fork").Pool(2) as pool:  # of a process that ran threads
    found += pool.map(text, [3, 3, 1])
assert len(set(found)) == 1 and len(found) == 7, found
print(found[0])
"""


@pytest.fixture
def masks(folder):
    rng = np.random.default_rng(1)
    masks = MaskSet({"fc1.weight": rng.random((40, 90)) < 0.3, "fc2.weight": rng.random((30, 40)) < 0.4})
    topo.write_masks(masks, "a.npz")
    return topo.read_masks("a.npz")


@pytest.mark.slow
def test_threads_at_once_and_forks_after_threads_report_the_same(masks):
    """Forks of a process whose threads held locks (of kernels, of the cache, of the wirings) must not wait for them."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _AT_ONCE], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    alone = topo.analyze(masks, metrics="default,size", nulls="same_layers:4", threads=1)
    assert json.loads(done.stdout) == json.loads(alone.to_json())


_PACKED = """
import tempfile
if NOWHERE:
    tempfile.mkdtemp = lambda *_, **__: open("/proc/none", "w")
import numpy as np, topo.kernels.bits as bits
words = np.zeros((2, 1), np.uint64)
bits.pack(np.eye(2, 5, dtype=np.float32), words, False, 0)
assert words.tolist() == [[1], [2]]
"""


@pytest.mark.slow
def test_an_installation_and_a_home_that_cannot_be_written_to(folder, masks):
    """Files stand where folders would be made, which stops root too. Nothing is said, and the numbers are equal."""
    here = Path(topo.__file__).parent
    for source, name in ((here, "topo"), (here.parent / "kernels", "topo/kernels")):
        shutil.copytree(source, folder / "site" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for inside in [folder / "site", *(path for path in (folder / "site").rglob("*") if path.is_dir())]:
        (inside / "__pycache__").write_text("no folder")
    nowhere = folder / "a.npz" / "home"  # below a file
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "TOPO", "XDG"))}
    environment |= {"HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere / "cache"), "PYTHONPATH": str(folder / "site")}
    line = ["analyze", "a.npz", "--model", "mlp:90-40-30", "--metrics", "default", "--json", "-", "--quiet"]
    command = [sys.executable, "-c", f"import topo.cli, sys; print(topo.__file__); sys.exit(topo.cli.main({line}))"]
    # As it is compiled it is asked of one kernel below: compiling all of these takes 15 s.
    done = subprocess.run(
        command, env={**environment, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    used, text = done.stdout.split("\n", 1)
    assert Path(used).parent == folder / "site" / "topo"
    assert json.loads(text) == json.loads(topo.analyze(masks, "mlp:90-40-30").to_json())
    for anywhere in (True, False):
        code = _PACKED.replace("NOWHERE", str(not anywhere))
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), anywhere
