"""`topo compare`: what two mask files share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from topo.cli import inputs
from topo.cli.options import check_outputs, command, network_options
from topo.cli.output import Progress, deliver, quiet
from topo.cli.tables import Page, Table
from topo.compare import compare
from topo.numerals import decimal, shown
from topo.report import Report, note_lines

_NETWORK = (
    "kept",
    "effective_params",
    "effective_nodes",
    "effective_units",
    "effective_paths",
    "log10_effective_paths",
)


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "compare",
        "what two masks of one network share: overlap and Hamming distance, layer by layer",
        "topo compare before.pt after.pt --model resnet20",
    )  # fmt: skip
    made.add_argument("a", metavar="A", help="a mask file or folder")
    made.add_argument("b", metavar="B", help="another")
    network_options(made)
    made.add_argument(
        "--json", metavar="OUT", help="write the numbers as JSON; - for standard output, and nothing else there"
    )


def run(args: argparse.Namespace) -> int:
    from topo.analyze import analyze

    check_outputs([args.a, args.b], {"--json": args.json})
    wiring = inputs.wiring_of(args)
    names = inputs.names_of([args.a, args.b])
    a, b = (inputs.read(path, args, wiring) for path in (args.a, args.b))
    found = compare(a, b)
    reports = []
    for masks, name in zip((a, b), names):
        wired, notes = inputs.network(masks, wiring, args)
        threads = getattr(args, "threads", None)
        with Progress(not quiet(args), f"{name}, ") as progress:
            report = analyze(masks, wired, metrics=_NETWORK, threads=threads, mask_name=name, progress=progress)
        reports.append(report.with_notes(notes))
    remarks = [{"metric": None, "layer": None, "note": line} for line in _remarks(reports)]
    found = replace(found, notes=(*remarks, *found.notes))
    wired_both = not any(math.isnan(report.network["effective_paths"]) for report in reports)
    network = {side: _numbers(report) for side, report in zip("ab", reports)} if wired_both else {}
    if args.json:
        deliver(found.to_json(a=names[0], b=names[1], network=network), args.json, args)
    if args.json != "-":
        page = Page()
        page.heading(f"A = {names[0]}, B = {names[1]}")
        if wired_both:
            page.table(_network_table(*reports))
        page.table(_layer_table(found.total, found.layers))
        page.notes(note_lines(found.notes))
    return 0


def _remarks(reports: list[Report]) -> list[str]:
    """What is to be said of the masks as a whole; what holds for both, once."""
    lines = [note_lines(note for note in report.notes if note["metric"] is None) for report in reports]
    sides = [(side, line) for side, said in zip("AB", lines) for line in said]
    shared = set(lines[0]) & set(lines[1])
    return list(dict.fromkeys(line if line in shared else f"{side}: {line}" for side, line in sides))


def _numbers(report: Report) -> dict[str, Any]:
    exact = {
        name: decimal(int(n)) for name, n in report.network.items() if name == "effective_paths" and math.isfinite(n)
    }
    return {name: number if math.isfinite(number) else None for name, number in report.network.items()} | exact


def _network_table(a: Report, b: Report) -> Table:
    units = {row.metric: (row.unit, row.view) for row in a.rows if row.layer is None}
    lines = [
        [name, shown(a.network[name], unit), shown(b.network[name], unit), unit, view]
        for name, (unit, view) in units.items()
        if name in b.network
    ]
    return Table(["network", "A", "B", "unit", "view"], lines, left=frozenset({3, 4}))


def _layer_table(total: Mapping[str, Any], layers: tuple[Mapping[str, Any], ...]) -> Table:
    def line(entry: Mapping[str, Any]) -> list[str]:
        return [
            entry.get("layer", "total"),
            "x".join(map(str, entry.get("shape", ()))),
            *(shown(entry[key]) for key in total),
        ]

    return Table(["layer", "shape", *total], [line(entry) for entry in (*layers, total)], keys=2)
