"""Processor time that `topo sweep` adds to the cells themselves, and that of showing the plan of 300 of them.

    python benchmarks/sweep_overhead.py [--write]

A cell is a mask of a small network, made and measured, and not trained. What it costs by itself is measured in the same
process, in turn with the sweep; the least of all rounds counts on both sides.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run import HERE, machine, rewrite

import topo
from topo.sweep import read_plan
from topo.sweep.cell import carry_out

MARKS = ("<!-- sweep: written by benchmarks/sweep_overhead.py -->", "<!-- end of sweep -->")
CELLS, ROUNDS = 300, 2
TOML = """[sweep]
model = "mlp:64-12-10"
seeds = "0-99"
[grid]
method = ["erk", "uniform", "npb"]
density = 0.1
[train]
data = "digits"
"""


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def shown(toml: Path) -> float:
    """User time of the whole command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "import sys; from topo.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, "sweep", str(toml), "--dry-run"], check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def swept(toml: Path, out: Path) -> None:
    """In parts, each with few enough cells to be carried out in this process, whose time is measured."""
    for n in range(1, 6):
        topo.sweep(toml, out / str(n), shard=f"{n}/5", workers=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "trained.toml").write_text(TOML)
        (folder / "masks.toml").write_text(TOML.partition("[train]")[0])
        cells = read_plan(folder / "masks.toml").cells
        assert len(cells) == CELLS
        carry_out(cells[:3])
        alone, whole = [], []
        for k in range(ROUNDS):
            alone.append(seconds(lambda: [carry_out([cell]) for cell in cells]))
            whole.append(seconds(lambda k=k: swept(folder / "masks.toml", folder / str(k))))
        added = (min(whole) - min(alone)) / CELLS
        plan = min(shown(folder / "trained.toml") for _ in range(2))
    lines = [
        "| task | ours | goal |",
        "|---|---:|---|",
        f"| a cell of `mlp:64-12-10`, made and measured | {1e3 * min(alone) / CELLS:.1f} ms |  |",
        f"| what the sweep adds to it | {1e3 * added:.1f} ms | < 20 ms |",
        f"| `topo sweep --dry-run` of {CELLS} cells, the whole command | {plan:.2f} s | < 2 s |",
    ]
    text = "\n".join([machine(), "", *lines])
    print(text)
    if args.write:
        rewrite(HERE / "README.md", MARKS, text)


if __name__ == "__main__":
    main()
