"""A researcher with three hundred masks: one bad file ends nothing, means are means, figures have intervals."""

import csv
import json
from pathlib import Path
from statistics import mean

from steps import interactive, labels, walk

made = walk("many_masks.md")
reports = made["reports"]
assert len(reports) == 300 and [Path(name).name for name in reports.errors] == ["broken_d0.2_s0.safetensors"]
held = json.loads(Path("all.json").read_text())["reports"]
nodes = [r["network"]["effective_nodes"] for r in held if r["provenance"]["fields"] ["method"] == "erk"
         and r["provenance"]["fields"]["density"] == 0.2]  # fmt: skip
with open("summary.csv", newline="") as file:
    [row] = [
        r for r in csv.DictReader(file) if (r["method"], r["density"], r["metric"]) == ("erk", "0.2", "effective_nodes")
    ]
assert len(nodes) == 50 == int(row["n"]) and abs(mean(nodes) - float(row["mean"])) < 1e-9
assert "\\textbf" in Path("table.tex").read_text()
for name in ("nodes.svg", "same.svg"):
    found = " ".join(labels(name))
    assert "erk" in found and "uniform" in found and "95 % interval of the mean, up to 50 masks" in found, found
assert "erk, 20 %" in labels("layers.svg") and "mean rank of effective nodes, 1 is best" in " ".join(
    labels("ranking.svg")
)
assert "uniform_d0.5_s49" in interactive("all.html")
