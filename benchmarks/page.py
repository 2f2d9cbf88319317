"""The HTML page of ResNet-50, and of 500 layers, in headless Chromium: size, ms until it is drawn, sorted and lit.

python benchmarks/page.py [--chromium PATH]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

import topo

# Sorts the table of layers by each column and lights the paths of a unit; the title tells when that was done.
_ACTS = """
var opened=Math.round(performance.now());
Array.from(document.getElementById('layers0').tHead.rows[0].cells).forEach(function(h){h.click()});
var sorted=Math.round(performance.now());
document.querySelectorAll('#graph0 circle')[500].dispatchEvent(new MouseEvent('click',{bubbles:true}));
document.title=[opened,sorted,Math.round(performance.now())].join();
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chromium", default="chromium")
    browser = [parser.parse_args().chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    deep = "mlp:" + "-".join(["16"] * 501)
    digest = base64.b64encode(hashlib.sha256(_ACTS.encode()).digest()).decode()
    for model, density in (("resnet50", 0.02), ("resnet50", 0.1), ("resnet50", 0.5), (deep, 0.3)):
        wiring = topo.trace(topo.models.build(model))
        text = topo.analyze(topo.generate("erk", wiring, density=density, rng=0), wiring).to_html()
        acting = text.replace("; img-src", f" &#x27;sha256-{digest}&#x27;; img-src", 1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            path.write_text(acting.replace("</body>", f"<script>{_ACTS}</script></body>"))
            command = [*browser, "--dump-dom", path.as_uri()]
            done = [subprocess.run(command, capture_output=True, text=True, timeout=120) for _ in range(3)]
        opened, ordered, lit = min(
            [int(ms) for ms in re.search(r"<title>(\d+),(\d+),(\d+)", run.stdout).groups()] for run in done
        )
        print(
            f"{model[:8]}, {len(wiring.names)} layers, density {density}: {len(text) / 1e6:.2f} MB, "
            f"drawn after {opened} ms, every column sorted after {ordered} ms, a unit's paths lit after {lit} ms"
        )


if __name__ == "__main__":
    main()
