"""`topo autosparse fit`: a predictor of survival, from the counts of `topo irp`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topo.cli.options import at_least, check_outputs, command
from topo.cli.output import say, wrote


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "autosparse",
        "learn from `topo irp` which weights survive; method autosparse then scores any network",
        "topo autosparse fit survival -o predictor.safetensors\n"
        "  topo generate autosparse --model digits_conv --data digits --density 0.05 "
        "-O predictor=predictor.safetensors",
    )  # fmt: skip
    made.add_argument("action", choices=("fit",), metavar="fit", help="the word fit")
    made.add_argument("data", nargs="+", metavar="DATA", help="survival.safetensors files of topo irp, or its folders")
    made.add_argument(
        "--epochs", type=at_least(1), default=10, metavar="N", help="epochs over all weights (default 10)"
    )
    made.add_argument(
        "--resume", action="store_true", help="go on with the fit that was stopped, from FILE.state beside -o FILE"
    )
    made.add_argument("-o", dest="out", required=True, metavar="FILE", help="the predictor to write, .safetensors")


def run(args: argparse.Namespace) -> int:
    from topo.pruners.predicted import fit

    files = [str(path / "survival.safetensors") if (path := Path(each)).is_dir() else each for each in args.data]
    check_outputs(files, {"-o": args.out})
    fit(files, args.out, args.epochs, getattr(args, "seed", 0), args.resume)
    say(f"learned from {len(files)} network{'s' * (len(files) != 1)}\n")
    wrote(args.out, args)
    return 0
