"""Processor seconds of `topo.read_masks` on small files, by this version and by another one of the history, in turn.

    python benchmarks/read_files.py [--before REVISION] [--write]

Each version answers in a process of its own, a few readings at a time, so that both see the same machine; the least of
all counts. `fe6df10` is the last version that read one place of a file only: it looked at no other place, and counted
nothing that it left out.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from run import HERE, machine, rewrite

MARKS = ("<!-- reading: written by benchmarks/read_files.py -->", "<!-- end of reading -->")
WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import topo
for line in sys.stdin:
    best = 9.0
    for _ in range(8):
        start = time.process_time()
        topo.read_masks(line.strip())
        best = min(best, time.process_time() - start)
    print(best, flush=True)
"""


def files(folder: Path) -> dict[str, Path]:
    """ResNet-20 at 90 % in the layouts that people have."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    import topo

    state = topo.models.build("resnet20").state_dict()
    rng = np.random.default_rng(0)
    for tensor in state.values():
        if tensor.ndim >= 2:
            tensor *= torch.from_numpy((rng.random(tuple(tensor.shape)) < 0.1).astype(np.float32))
    found = {
        "zeros in a plain safetensors": folder / "plain.safetensors",
        "zeros in a torch file": folder / "plain.pt",
        "a dict of masks, safetensors": folder / "masks.safetensors",
        "a dict of masks, torch": folder / "masks.pt",
        "own safetensors": folder / "own.safetensors",
        "own npz": folder / "own.npz",
    }
    paths = list(found.values())
    save_file(state, paths[0])
    torch.save(state, paths[1])
    masks = topo.read_masks(paths[0])
    save_file({name: torch.from_numpy(masks[name].astype(np.uint8)) for name in masks}, paths[2])
    torch.save({name: torch.from_numpy(masks[name].astype(np.float32)) for name in masks}, paths[3])
    for path in paths[4:]:
        topo.write_masks(masks, path)
    return found


def worker(root: Path) -> subprocess.Popen[str]:
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [sys.executable, "-c", WORKER, str(root)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env={**os.environ, **one}, cwd=root)


def asked(process: subprocess.Popen[str], path: Path) -> float:
    assert process.stdin is not None and process.stdout is not None
    print(path, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="fe6df10")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    args = parser.parse_args()
    lines = ["| file | ours, ms | before, ms | ours over it | goal |", "|---|---:|---:|---:|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = subprocess.run(
            ["git", "archive", args.before, "topo", "kernels"], cwd=HERE.parent, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder / "before", filter="data")
        ours, before = worker(HERE.parent), worker(folder / "before")
        for text, path in files(folder).items():
            rows = [(asked(ours, path), asked(before, path)) for _ in range(30)]
            new, old = (1000 * min(column) for column in zip(*rows))
            lines.append(f"| {text} | {new:.2f} | {old:.2f} | {new / old:.2f}x | <= 1.05x |")
            print(lines[-1], flush=True)
        ours.kill()
        before.kill()
    if args.write:
        rewrite(HERE / "README.md", MARKS, f"{machine()}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
