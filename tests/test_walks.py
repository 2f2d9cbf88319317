"""Five people's whole jobs, on an installed wheel outside the checkout, by the pages written for them. About 30 s.

Each script of tests/walks does what its page of docs says, in order, and looks at what the person would look at.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WALKS = sorted(path.stem for path in (ROOT / "tests" / "walks").glob("*.py") if path.stem != "steps")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The wheel of this checkout, installed into a folder of its own."""
    made, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = tmp_path_factory.mktemp("source")
    for name in ("topo", "kernels", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = made.glob("topo_masks-*.whl")
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(site), str(wheel)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return site


def test_there_is_a_walk_for_each_of_five_people():
    assert WALKS == ["engineer", "researcher", "reviewer", "student", "teacher"]


@pytest.mark.slow
@pytest.mark.parametrize("person", WALKS)
def test_a_walk(site, tmp_path, person):
    """Kernels as plain Python: networks are small, and an installation of its own would compile them anew."""
    known = {"PYTHONPATH": str(site), "NUMBA_DISABLE_JIT": "1", "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0"}
    script = ROOT / "tests" / "walks" / f"{person}.py"
    done = subprocess.run(
        [sys.executable, str(script), str(site), str(ROOT / "docs")],
        cwd=tmp_path, env={**os.environ, **known}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
