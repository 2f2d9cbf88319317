"""Random networks whose traces are held against gradients (tests/random_nets.py), as many as one asks for.

python benchmarks/trace_random.py 50000             as many, from seed 0 on
python benchmarks/trace_random.py 1 --seed 1234     one of them, with its program
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gradients import CONVENTIONS
from random_nets import BATCH, program, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began, failures, end = time.perf_counter(), 0, args.seed + args.count
    for start in range(args.seed, end, BATCH):
        convention = CONVENTIONS[start // BATCH % 2]
        for seed, lines in wrong(range(start, min(start + BATCH, end)), convention).items():
            failures += 1
            print(f"seed {seed}, {convention}:", *lines, program(seed, convention), sep="\n    ", flush=True)
    seconds, day = time.perf_counter() - began, time.strftime("%Y-%m-%d")
    print(f"{args.count} networks, {failures} wrong, {seconds:.0f} s on {day}, torch {torch.__version__}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
