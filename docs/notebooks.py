"""Run the notebooks and write each, with what its cells gave, as a page of the site: docs/worked/NAME.md and pictures.

python docs/notebooks.py [NAME ...]        a few minutes; tests/test_notebooks.py holds the pages to the cells
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from topo._support.atomic import replacing, write_text

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
HERE = Path(__file__).parent / "worked"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Folders that are called differently each time.
_FOLDER = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp\w+")


def run(name: str) -> Any:
    """The notebook with the outputs of its cells, run in a folder of its own beside the masks."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "masks").symlink_to(NOTEBOOKS / "masks")
        NotebookClient(notebook, resources={"metadata": {"path": folder}}, timeout=None).execute()
    return notebook


def page(name: str, notebook: Any) -> str:
    """Its cells and their outputs as Markdown; pictures are written beside it."""
    lines: list[str] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```py", cell.source, "```", ""]
        for place, output in enumerate(cell.outputs):
            lines += _shown(output, f"{name}_{number}_{place}.png")
    lines += [f"This page is `notebooks/{name}.ipynb`, run by `docs/notebooks.py`.", ""]
    return "\n".join(lines)


def _shown(output: Any, picture: str) -> Iterator[str]:
    """What a cell printed or gave: text, or a picture."""
    data = output.get("data", {})
    if "image/png" in data:
        _write_picture(base64.b64decode(data["image/png"]), HERE / picture)
        yield from [f"![what the cell above draws]({picture})", ""]
        return
    text = _COLOURS.sub("", output.get("text", data.get("text/plain", ""))).rstrip()
    text = _FOLDER.sub("/tmp/...", text)
    if text and output.get("name") != "stderr":
        yield from ["```text", text, "```", ""]


def _write_picture(png: bytes, path: Path) -> None:
    """A picture in few colours, so that it stays small."""
    with Image.open(io.BytesIO(png)) as image, replacing(path) as temporary:
        few = image.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(temporary, "PNG", optimize=True)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for name in sys.argv[1:] or known:
        if name not in known:
            raise SystemExit(f"'{name}' is not a notebook; there are: {', '.join(known)}")
        write_text(HERE / f"{name}.md", page(name, run(name)))


if __name__ == "__main__":
    main()
