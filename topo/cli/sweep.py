"""`topo sweep`: networks, methods, densities and seeds of one file, carried out, resumed, shared between machines."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.cli.options import UsageError, command
from topo.cli.output import Progress, clock, printable, quiet, say, speak, wrote
from topo.cli.tables import Page, Table

if TYPE_CHECKING:
    from topo.sweep import Plan

_SHOWN = 10  # failures on the page


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "sweep",
        "every combination of networks, methods, densities and seeds that a file names: made, measured, trained",
        "topo sweep sweeps/digits.toml --dry-run\n"
        "  topo sweep sweeps/digits.toml -o results && topo evaluate results",
    )  # fmt: skip
    made.add_argument("toml", metavar="SWEEP.toml", help="what to carry out (docs/sweeps.md)")
    made.add_argument("-o", dest="out", metavar="RESULTS", help="the folder of the results")
    made.add_argument("--engine", choices=("local", "dask"), default="local", help="where cells are carried out")
    made.add_argument(
        "--address", metavar="TCP", help="a dask scheduler, as tcp://host:8786 (default: local processes)"
    )
    made.add_argument("--resume", action="store_true", help="go on in a folder: leave what is done, try what failed")
    made.add_argument("--dry-run", action="store_true", help="show the plan and do nothing")
    made.add_argument("--only", metavar="K=V", action="append", default=[], help="cells with this setting alone; again")
    made.add_argument("--shard", metavar="I/N", help="every N-th cell from the I-th, for N machines")
    made.add_argument("--fail-fast", action="store_true", help="stop at the first cell that fails")


def run(args: argparse.Namespace) -> int:
    from topo.sweep import read_plan  # numba, which no other command waits for

    plan = read_plan(args.toml, shown=args.dry_run)
    if args.dry_run:
        _show(plan, args)
        return 0
    from topo.sweep import sweep  # seconds of torch and scipy, which no plan waits for

    if not args.out:
        raise UsageError("-o names the folder of the results; it is needed")
    with Progress(not quiet(args), "sweep, ") as progress:
        found = sweep(
            args.toml, args.out, engine=args.engine, address=args.address, resume=args.resume, only=args.only,
            shard=args.shard, fail_fast=args.fail_fast, workers=getattr(args, "threads", None), progress=progress,
        )  # fmt: skip
    say(f"{len(found.rows)} cells done, {len(found.failures)} failed, {found.left} left of {len(plan.cells)}\n")
    for number, (cell, error) in enumerate(found.failures.items()):
        if number < _SHOWN:
            speak(f"topo: cell {cell} failed: {printable(error)}")
    if len(found.failures) > _SHOWN:
        speak(f"topo: {len(found.failures) - _SHOWN} more failed; failures.csv has all")
    wrote(found.folder / "results.csv", args)
    return 1 if found.failures else 0


def _show(plan: Plan, args: argparse.Namespace) -> None:
    """How many cells of each network and method there are, how many are done, and how long the others may take."""
    chosen = plan.chosen(args.only, args.shard)
    took = _took(Path(args.out)) if args.out else {}
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in chosen:
        groups.setdefault(tuple(str(cell.settings[key]) for key in ("network", "method", "null")), []).append(cell.id)
    ended = {key: [took[cell] for cell in cells if cell in took] for key, cells in groups.items()}
    done = sum(map(len, ended.values()))
    page = Page()
    missing = [f"{plan.lacks}: the sweep cannot be carried out before it is there"] if plan.lacks else []
    trains = chosen[0].work["recipe"] is not None
    what = f"trained on {chosen[0].work['data']}" if trains else "not trained"
    page.heading(f"{len(chosen)} cells of {len(plan.cells)}, {what}; {done} done")
    lines = [
        [*key, str(len(cells)), str(len(ended[key])), f"{statistics.median(ended[key]):.2g}" if ended[key] else ""]
        for key, cells in groups.items()
    ]
    page.table(Table(["network", "method", "null", "cells", "done", "seconds each"], lines, keys=3))
    if done:
        typical = statistics.median(took.values())
        left = sum(
            (len(cells) - len(ended[key])) * (statistics.median(ended[key]) if ended[key] else typical)
            for key, cells in groups.items()
        )
        known = "by the median of done cells of the same network, method and null, or else of all"
        page.notes([f"about {clock(left)} left in one process, {known}", *missing])
    else:
        how = "how long a cell takes is known once some are done: --only method=..., then --dry-run -o RESULTS"
        page.notes([how, *missing])


def _took(folder: Path) -> dict[str, float]:
    """Id of each done cell -> seconds."""
    import csv

    if not (folder / "results.csv").is_file():
        return {}
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: float(row["seconds"]) for row in csv.DictReader(file) if row.get("seconds")}
