"""`topo trace`: the wiring of a network as a table of steps, joins and notes."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from topo.cli.inputs import wiring_of
from topo.cli.options import UsageError, check_outputs, command, network_options
from topo.cli.output import wrote
from topo.cli.tables import Page, Table
from topo.wiring import CONSTANT, Layer, Step, Wiring

_MOST_NAMES = 3  # of the steps that another reads from


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "trace",
        "trace who feeds whom in a network, and show it as a table, or write it as JSON for later analyses",
        "topo trace --show resnet20 --json resnet20.json",
    )  # fmt: skip
    made.add_argument("--show", metavar="M", help="the network whose steps are shown; as --model")
    network_options(made)
    made.add_argument("--json", metavar="OUT", help="write the wiring to this file, which --model takes in its place")


def run(args: argparse.Namespace) -> int:
    check_outputs([], {"--json": args.json})
    shown = args.show if args.show is not None else args.model
    if shown is None:
        raise UsageError("topo trace needs a network: --show M")
    if args.show is not None and args.model is not None:
        raise UsageError("--show and --model both name the network; give one of them")
    args.model = shown
    wiring = wiring_of(args)
    assert wiring is not None
    page = Page()
    joins = len(wiring.steps) - len(wiring.layers)
    page.heading(
        f"{shown}: {len(wiring.layers)} layers, {joins} joins, {len(wiring.inputs):,} inputs, "
        f"{len(wiring.outputs):,} outputs, {wiring.n_units:,} units"
    )
    page.table(_steps(wiring))
    page.notes(list(wiring.notes))
    if args.json is not None:
        wiring.save(args.json)
        wrote(args.json, args)
    return 0


def _steps(wiring: Wiring) -> Table:
    """A line a step: what it is, which units it makes, and from which steps it reads."""
    names = [
        "inputs",
        *(step.name if isinstance(step, Layer) else f"step {at}" for at, step in enumerate(wiring.steps)),
    ]
    lines = []
    for at, step in enumerate(wiring.steps):
        layer = isinstance(step, Layer)
        lines.append(
            [
                str(at),
                step.kind,
                step.name if isinstance(step, Layer) else "",
                "x".join(map(str, step.shape)) if isinstance(step, Layer) else "",
                str(step.groups) if isinstance(step, Layer) and step.groups > 1 else "",
                f"{step.start}-{step.stop - 1}" if step.stop > step.start else "none",
                " * ".join(_read(wiring, units, names) for units in step.operands) if not layer and step.kind != "add"
                else " + ".join(_read(wiring, units, names) for units in step.operands),
                _positions(step),
            ]
        )  # fmt: skip
    header = ["step", "kind", "layer", "shape", "groups", "units", "from", "positions"]
    return Table(header, lines, left=frozenset({1, 2, 3, 5, 6}))


def _read(wiring: Wiring, units: np.ndarray, names: list[str]) -> str:
    """The steps that make these units, and the constants and zeros among them."""
    found = [names[group] for group in np.unique(wiring.groups.of_unit[units[units >= 0]]).tolist()]
    said = [*found[:_MOST_NAMES], *([f"{len(found) - _MOST_NAMES} more"] if len(found) > _MOST_NAMES else [])]
    said += [word for word, there in (("constant", (units == CONSTANT).any()), ("zero", (units == -1).any())) if there]
    return ", ".join(said)


def _positions(step: Step) -> str:
    return "" if not isinstance(step, Layer) or step.positions is None else str(step.positions)
