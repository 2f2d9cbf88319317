"""`topo irp`: how many rounds of pruning and rewinding each weight survives; what `topo autosparse fit` learns from."""

from __future__ import annotations

import argparse
from typing import Any

from topo.cli.options import at_least, command, fraction, layers_option
from topo.cli.output import Progress, printable, quiet, say, wrote
from topo.cli.train import prepared, training_options, verdict


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "irp",
        "prune in rounds, rewinding all state, and count the rounds that each weight survives",
        "topo irp --model mlp:64-32-10 --data digits --density 0.05 --rounds 5 -o survival",
    )  # fmt: skip
    made.add_argument(
        "--density", type=fraction, default=0.01, metavar="D", help="fraction of the weights to keep (default 0.01)"
    )
    made.add_argument("--rounds", type=at_least(1), default=20, metavar="T", help="rounds of training (default 20)")
    made.add_argument(
        "--schedule", choices=("num", "pct"), default="num",
        help="num: as many weights go in each round (default); pct: the same share of those that are left",
    )  # fmt: skip
    layers_option(made)
    training_options(made)


def run(args: argparse.Namespace) -> int:
    data, shared = prepared(args)
    from topo.train import irp

    with Progress(not quiet(args)) as progress:
        found = irp(
            args.model, data, density=args.density, rounds=args.rounds, schedule=args.schedule, layers=args.layers,
            progress=progress, **shared,
        )  # fmt: skip
    for number, record in enumerate(found.rounds, 1):
        assert record.masks is not None
        say(printable(f"round {number}, density {record.masks.density:.4g}: {verdict(record)}") + "\n")
    say(f"{found.masks.kept:,} of {found.masks.size:,} parameters survive all {args.rounds} rounds\n")
    wrote(f"{args.out}/survival.safetensors", args)
    return 0
