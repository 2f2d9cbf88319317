"""Whole and damaged files by the thousand, read by us, by torch and by the safetensors package: `--count 5000`.

Prints who accepts how many of each kind; exits 1 if a file that both accept is not equal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import rival_readers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000, help="files of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    args = parser.parse_args()
    differ = 0
    for kind in rival_readers.KINDS:
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            for number, path in enumerate(rival_readers.files(kind, Path(folder), args.count, args.first)):
                try:
                    found[rival_readers.outcome(kind, path)] += 1
                except AssertionError as error:
                    differ += 1
                    print(f"{kind} {args.first + number}: {str(error)[:500]}", flush=True)
        print(f"{kind}: {dict(found)}", flush=True)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
