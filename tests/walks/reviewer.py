"""A reviewer with a figure: it says how it was made, and made again it is the same, byte for byte."""

import json
import shlex
from pathlib import Path

from steps import ink, walk

made = walk("figure_review.md")
assert made["said"]["command"].startswith("topo plot null_forest report.json") and ink("forest.png") > 10
from topo.cli import main  # noqa: E402

first = Path("forest.png").read_bytes()
Path("forest.png").unlink()
assert main(shlex.split(made["said"]["command"])[1:]) == 0
assert Path("forest.png").read_bytes() == first
[report] = json.loads(Path("report.json").read_text())["reports"]
import hashlib  # noqa: E402

assert hashlib.sha256(Path("erk.safetensors").read_bytes()).hexdigest() == report["provenance"]["sha256"]
