"""What shrinking takes away and what it saves: parameters, bytes, multiply-accumulates and measured time.

    python benchmarks/shrink.py resnet20 0.02 synflow erk

prints a row a method of masks. The ratios of time are of this machine; the docs page on shrinking has them.
"""

from __future__ import annotations

import sys
import time

import torch

import topo
from topo.shrinking.timing import timed


def main(name: str, density: float, methods: list[str]) -> None:
    print("method      parameters        bytes (KB)      MMACs           removed  stays  shrink s  times faster")
    for method in methods:
        torch.manual_seed(0)
        model = topo.models.build(name).eval()
        masks = topo.generate(method, model if method in ("synflow", "magnitude") else name, density=density, rng=0)
        start = time.perf_counter()
        small = topo.shrink(model, masks, check=1)
        taken = time.perf_counter() - start
        before, after = small.report["before"], small.report["after"]
        found = timed(model, small.model, ((torch.randn(1, *topo.models.input_shape(name)),), {}))
        pairs = [(key, scale) for key, scale in (("parameters", 1), ("bytes", 1e3), ("macs", 1e6))]
        row = "  ".join(f"{before[key] / scale:,.0f} -> {after[key] / scale:,.0f}" for key, scale in pairs)
        stays = sum(small.report["stays"].values())
        ratio = found["times_faster"]["shrunk"]
        print(f"{method:<10}  {row}  {small.report['removed']:>6} {stays:>6} {taken:>8.1f} {ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
