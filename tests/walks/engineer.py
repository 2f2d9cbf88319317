"""An engineer with a gate in CI: it opens for a good mask, shuts for a collapsed one, and says which and why."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from steps import DOCS, walk

import topo

Path("masks").mkdir()
masks = topo.generate("erk", "mlp:12-10-6", density=0.3, rng=0)
topo.write_masks(masks, "masks/good.safetensors")
empty = {name: mask if k else np.zeros(mask.shape, bool) for k, (name, mask) in enumerate(masks.items())}
topo.write_masks(topo.MaskSet(empty), "masks/collapsed.safetensors")
walk("gate.md", answers={1: 3})
suites = ElementTree.parse("masks.xml").getroot()
cases = [case for case in suites.iter("testcase")]
failed = {case.get("classname") or case.get("name") for case in cases if case.find("failure") is not None}
assert cases and failed and all("collapsed" in name for name in failed), failed
assert "collapsed" in json.dumps(json.loads(Path("masks.json").read_text()))
# The workflow of the page is the one of the page on the command line, and its options exist.
workflow = (DOCS / "gate.md").read_text().partition("```yaml")[2].partition("```")[0]
for option in ("--max-density", "--min-density", "--max-layer-density", "--fail-on", "--junit"):
    assert option in workflow
