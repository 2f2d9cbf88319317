"""A student with her own model and mask: are the numbers hers, do the pictures name her layers, does the page open?"""

import csv
import json
from pathlib import Path

from steps import interactive, labels, walk

made = walk("own_model.md")
import torch  # noqa: E402

[report] = json.loads(Path("report.json").read_text())["reports"]
state = torch.load("mask.pt", weights_only=True)
masks = {name.removesuffix("_mask"): value for name, value in state.items() if name.endswith("_mask")}
assert {layer["layer"]: layer["kept"] for layer in report["layers"]} == {k: int(m.sum()) for k, m in masks.items()}
# Paths by hand: matrices of edges, with the skip as the identity.
first, second, head = (m.flatten(2).sum(2) if m.dim() > 2 else m for m in (masks[f"{n}.weight"] for n in
                                                                            ("first", "second", "head")))  # fmt: skip
paths = head.double() @ (torch.eye(6).double() + second.double()) @ first.double()
assert report["network"]["effective_paths"] == str(int(paths.sum())), (report["network"], paths.sum())
assert made["report"].network["effective_paths"] == int(paths.sum())
with open("report.csv", newline="") as file:
    rows = {(row["metric"], row["layer"]): row["value"] for row in csv.DictReader(file)}
assert rows["kept", "first.weight"] == str(int(masks["first.weight"].sum()))
assert {"first", "second", "head"} <= set(labels("network.svg")) and "dead output units" in labels("dead.svg")
page = interactive("report.html")
assert "first.weight" in page and str(int(paths.sum())) in page
