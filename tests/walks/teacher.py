"""A teacher with slides: pictures are large, not empty, labelled, and their type can be read from the back."""

import re
from pathlib import Path

from PIL import Image
from steps import ink, labels, walk

made = walk("slides.md")
with Image.open("graph.png") as image:
    assert image.width == 3000 and image.height > 1500
assert ink("graph.png") > 20 and ink("matrix.png") > 5
assert {"ERK", "balance", "fc1", "fc2"} <= set(labels("densities.svg")), labels("densities.svg")
assert "share of all paths" in labels("flow.svg")
for name in ("densities.svg", "flow.svg"):
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:[a-z]+ )*([0-9.]+)px", Path(name).read_text())]
    assert sizes and min(sizes) >= 14, sizes
assert "<table" in made["html"] and "effective_paths" in made["html"]
