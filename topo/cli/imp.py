"""`topo imp`: masks by iterative magnitude pruning, which needs training."""

from __future__ import annotations

import argparse
from typing import Any

from topo.cli.options import command, fraction, layers_option
from topo.cli.output import Progress, printable, quiet, say, wrote
from topo.cli.train import first_process, prepared, speak_notes, training_options, verdict


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "imp",
        "iterative magnitude pruning: train, prune, rewind, level by level down to a density",
        "topo imp --model digits_conv --data digits --density 0.1 --rewind-epoch 1 -o tickets",
    )  # fmt: skip
    made.add_argument("--density", type=fraction, required=True, metavar="D", help="fraction of the weights to keep")
    made.add_argument(
        "--fraction", type=fraction, default=0.2, metavar="F", help="pruned of what is left at each level (default 0.2)"
    )
    made.add_argument(
        "--rewind", choices=("weights", "learning_rate"), default="weights",
        help="weights: back to their early values (default); learning_rate: only the schedule is replayed",
    )  # fmt: skip
    made.add_argument(
        "--rewind-epoch", type=int, default=0, metavar="K", help="the epoch to go back to (default 0, the start)"
    )
    layers_option(made)
    training_options(made)


def run(args: argparse.Namespace) -> int:
    ties = [value for key, value in args.changes if key == "ties"]
    args.changes = [(key, value) for key, value in args.changes if key != "ties"]
    data, shared = prepared(args)
    from topo.train import imp

    with Progress(not quiet(args)) as progress:
        found = imp(
            args.model, data, density=args.density, fraction=args.fraction, rewind=args.rewind,
            rewind_epoch=args.rewind_epoch, layers=args.layers, progress=progress,
            ties=ties[0] if ties else "few", **shared,
        )  # fmt: skip
    if first_process():
        speak_notes(found.levels[0], data, args)
        for level, record in enumerate(found.levels):
            assert record.masks is not None
            say(printable(f"level {level}, density {record.masks.density:.4g}: {verdict(record)}") + "\n")
        wrote(f"{args.out}/masks.safetensors", args)
    return 0
