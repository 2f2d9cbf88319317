"""The notebooks: pairs in step, without outputs, and every cell runs once; their assertions are tests of known answers.

On one core: generate_and_train 25 s, the others under 15 s each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
IN_JUPYTER = "figures_for_a_paper"
NAMES = ("analyze_saved_masks", IN_JUPYTER, "generate_and_train")
# A notebook runs from its own folder and from the root of the repository.
MASKS = 'MASKS = Path("masks") if Path("masks").is_dir() else Path("notebooks/masks")\n'


def cells(path: Path) -> list[tuple[str, str]]:
    """(kind, text) of every cell."""
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def test_every_notebook_is_a_pair() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_in_step(name: str) -> None:
    """If not: jupytext --sync notebooks/*.ipynb"""
    assert cells(FOLDER / f"{name}.py") == cells(FOLDER / f"{name}.ipynb")


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_hold_no_output(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert {cell.cell_type for cell in notebook.cells} == {"code", "markdown"}
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.source
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_the_site_shows_every_cell_and_what_it_gave(name: str) -> None:
    """If not: python docs/notebooks.py NAME"""
    place = ROOT / "docs" / "worked" / f"{name}.md"
    page, rest = place.read_text("utf-8"), place.read_text("utf-8")
    for kind, source in cells(FOLDER / f"{name}.ipynb"):
        found = f"```py\n{source}\n```" if kind == "code" else source
        assert found in rest, source
        rest = rest.partition(found)[2]
    assert page.count("```text") + page.count("](figures") > 2 and "Traceback" not in page
    pictures = {path.name for path in place.parent.glob(f"{name}_*.png")}
    assert pictures == {
        part.partition(")")[0] for part in page.split("](")[1:] if part.partition(")")[0].endswith("png")
    }


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_found_by_the_same_line(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    assert (MASKS in text) == ("MASKS" in text)


@pytest.mark.parametrize("name", [name for name in NAMES if name != IN_JUPYTER])
def test_notebooks_run_as_scripts(name: str, tmp_path: Path) -> None:
    """From top to bottom, beside a folder `masks`; what they write goes to the temporary folder."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    (here / "masks").symlink_to(FOLDER / "masks")
    quiet = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    ran = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=here,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in here.iterdir()] == ["masks"]


def test_a_notebook_runs_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a root with a folder `notebooks`, with the figures shown; what it writes goes to the temporary folder."""
    (root := tmp_path / "root").mkdir()
    (root / "notebooks").symlink_to(FOLDER)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(FOLDER / f"{IN_JUPYTER}.ipynb", as_version=4)
    drawing = [number for number, cell in enumerate(notebook.cells) if "plt.show()" in cell.source]
    NotebookClient(notebook, resources={"metadata": {"path": str(root)}}).execute()
    assert [path.name for path in root.iterdir()] == ["notebooks"]
    for number in drawing:
        shown = [output for output in notebook.cells[number].outputs if "image/png" in output.get("data", {})]
        assert len(shown) == 1, notebook.cells[number].source
