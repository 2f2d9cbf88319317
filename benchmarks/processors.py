"""The kernels as other processors run them: this one, the same without AVX-512, and without AVX.

    python benchmarks/processors.py [--write]

numba compiles for the processor that NUMBA_CPU_NAME names, in a process each; NUMBA_CPU_FEATURES must be empty, or the
features of this machine are added to it. Ratios of processor seconds on one thread, minimum of several calls, so that
other work on the machine counts little. --write puts the table into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import run

NAMES = {"this one": None, "x86-64-v3 (AVX2)": "x86-64-v3", "x86-64-v2 (SSE4.2)": "x86-64-v2"}
MARKS = ("<!-- processors: written by benchmarks/processors.py -->", "<!-- end of processors -->")
GOALS = {
    "pack 4096 x 11008 float32 against one plain read": ">= 0.8x",
    "the same against np.packbits(x != 0)": ">= 1.5x",
    "resnet18:stem=tiny: floats -> bits -> counts, nodes, masks against one plain read": ">= 0.3x",
    "resnet18: floats -> bits -> number of paths against networkx": ">= 400x",
}


def cost(function: Callable[[], object], repeats: int = 25) -> float:
    """Processor seconds of the best of several calls; the first one compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def ratios() -> list[float]:
    """Of the tasks of GOALS, in this process."""
    import numpy as np

    from topo.kernels.bits import pack

    weights = np.random.default_rng(0).standard_normal((4096, 11008), dtype=np.float32)
    weights[np.random.default_rng(1).random(weights.shape, dtype=np.float32) < 0.9] = 0
    words = np.zeros((4096, 172), np.uint64)
    packed = cost(lambda: pack(weights, words, False, 0))
    read = cost(lambda: weights.view(np.uint32).max())
    found = [read / packed, cost(lambda: np.packbits(weights != 0, axis=1, bitorder="little"), 7) / packed]
    masks, wiring = run.network("resnet18:stem=tiny", 0.1)
    read = cost(lambda: [mask.view(np.uint32).max() for mask in masks.values()])
    found.append(read / cost(lambda: run.count(masks, wiring)))
    masks, wiring = run.network("resnet18", 0.1)
    ours = cost(lambda: run.forward_total(masks, wiring))
    start = time.process_time()
    run.networkx_paths(masks, wiring)
    return [*found, (time.process_time() - start) / ours]


def on(name: str | None) -> list[float]:
    """The ratios in a process that compiles for the processor of this name."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = {} if name is None else {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
        environment = {**os.environ, **chosen, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, __file__, "--here"], env=environment, stdout=subprocess.PIPE, check=True)
    return [float(ratio) for ratio in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--here", action="store_true", help="print the ratios of this process alone, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(ratios()))
        return
    columns = [on(name) for name in NAMES.values()]
    lines = [f"| task | {' | '.join(NAMES)} | goal with AVX2 |", f"|---|{'---:|' * len(NAMES)}---|"]
    for (task, goal), row in zip(GOALS.items(), zip(*columns)):
        lines.append(f"| {task} | {' | '.join(f'{x:.2f}x' if x < 10 else f'{x:.0f}x' for x in row)} | {goal} |")
    text = "\n".join([run.machine(), "", *lines])
    print(text)
    if options.write:
        run.rewrite(run.HERE / "README.md", MARKS, text)


if __name__ == "__main__":
    main()
