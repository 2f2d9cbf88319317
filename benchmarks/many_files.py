"""`topo.analyze_files` over 300 masks of ResNet-20, with its bar: seconds, processor seconds, and those of one page.

python benchmarks/many_files.py [--files N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import islice, product
from pathlib import Path

import topo

METHODS, DENSITIES = ("erk", "uniform", "random"), (0.01, 0.02, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=300)
    count = parser.parse_args().files
    wiring = topo.trace(topo.models.build("resnet20"))
    with tempfile.TemporaryDirectory() as name:
        for seed, density, method in islice(product(range(count), DENSITIES, METHODS), count):
            masks = topo.generate(method, wiring, density=density, rng=seed)
            topo.write_masks(masks, Path(name) / f"{method}_d{density}_s{seed}.safetensors")
        one = str(Path(name) / "erk_d0.1_s0.safetensors")
        topo.analyze_files(one, "resnet20")  # compiles
        began, used = time.perf_counter(), time.process_time()
        pattern = "{method}_d{density:g}_s{seed:d}"
        reports = topo.analyze_files(f"{name}/*.safetensors", "resnet20", pattern=pattern, progress=True)
        wall, processor = time.perf_counter() - began, time.process_time() - used
        print(f"{len(reports)} files, {os.cpu_count()} cores: {wall:.1f} s, {processor:.1f} s of processor")
        used = time.process_time()
        size = len(reports.to_html())
        print(f"their page: {size / 1e6:.1f} MB, {time.process_time() - used:.1f} s of processor")


if __name__ == "__main__":
    main()
