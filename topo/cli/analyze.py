"""`topo analyze`: the topology of mask files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from topo.cli import inputs
from topo.cli.options import check_outputs, command, network_options, plot_file
from topo.cli.output import Progress, deliver, quiet, wrote
from topo.cli.tables import Page, Table
from topo.numerals import shown
from topo.report import Report, note_lines, reports_to_csv, reports_to_json


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    from topo.views import VIEWS

    made = command(
        commands, parents, run, "analyze",
        "the exact topology of mask files: effective paths, nodes and parameters, layer by layer",
        "topo analyze mask.pt --model resnet20 --json mask.json --plot mask.pdf",
    )  # fmt: skip
    made.add_argument(
        "files", nargs="+", metavar="FILE", help="a mask file or folder, written by any pruner; several make one table"
    )
    network_options(made)
    made.add_argument(
        "--view", choices=VIEWS, help="the graph of a convolution (default: channel, and kernel for single layers)"
    )
    made.add_argument(
        "--metrics",
        default="default",
        metavar="LIST",
        help="default, all, or names and groups with commas between (topo list metrics)",
    )
    made.add_argument(
        "--json", metavar="OUT", help="write the report as JSON; - for standard output, and nothing else there"
    )
    made.add_argument(
        "--csv", metavar="OUT", help="write a tidy CSV table; - for standard output, and nothing else there"
    )
    made.add_argument(
        "--plot", type=plot_file, metavar="OUT", help="draw densities layer by layer, as .pdf, .svg or .png"
    )


def run(args: argparse.Namespace) -> int:
    check_outputs(args.files, {"--json": args.json, "--csv": args.csv, "--plot": args.plot})
    wiring = inputs.wiring_of(args)
    reports = []
    for number, (path, name) in enumerate(zip(args.files, inputs.names_of(args.files)), 1):
        prefix = f"{name} ({number} of {len(args.files)}), " if len(args.files) > 1 else ""
        with Progress(not quiet(args), prefix) as progress:
            reports.append(report_of(path, name, args, wiring, progress, args.metrics, args.view))
    if args.plot:
        _plot(reports, args)
    texts = {"json": reports_to_json, "csv": reports_to_csv}
    for form, text in sorted(texts.items(), key=lambda item: getattr(args, item[0]) == "-"):
        if getattr(args, form):
            deliver(text(reports), getattr(args, form), args)
    if "-" not in (args.json, args.csv):
        page = Page()
        show(reports[0], page) if len(reports) == 1 else show_several(reports, page)
    return 0


def report_of(
    path: str, name: str, args: argparse.Namespace, wiring: Any, progress: Any, metrics: str, view: str = "channel"
) -> Report:
    """Read one file, find its network, analyse it."""
    from topo.analyze import analyze

    masks = inputs.read(path, args, wiring)
    found, notes = inputs.network(masks, wiring, args)
    threads = getattr(args, "threads", None)
    report = analyze(masks, found, metrics=metrics, view=view, threads=threads, mask_name=name, progress=progress)
    return report.with_notes(notes)


def show(report: Report, page: Page) -> None:
    """One mask: the network's numbers, then the layers', then the notes."""
    for line in report.headings:
        page.heading(line)
    for header, lines in report.tables():
        if header[0] == "network":
            page.table(Table(header, lines, left=frozenset({2, 3})))
        else:
            marks = {i: "collapsed" for i, line in enumerate(lines) if line[0] in report.collapsed}
            shown_columns = [c for c, name in enumerate(header) if name != "sparsity" or "density" not in header]
            table = Table(header, lines, keys=2, marks=marks)
            page.table(table.only(shown_columns))
    page.notes(note_lines(report.notes))


def show_several(reports: Sequence[Report], page: Page) -> None:
    """A row for each mask, the network's numbers as columns; what holds for all is said once."""
    common = [f"{len(reports)} masks"]
    keys = {"mask": [report.mask for report in reports]}
    for name in ("format", "model", "view"):
        values = [getattr(report, name) or "" for report in reports]
        if len(set(values)) > 1:
            keys[name] = values
        elif values[0]:
            common.append(f"{name} {values[0]}")
    page.heading(", ".join(common))
    units = {row.metric: row.unit for report in reports for row in report.rows if row.layer is None}
    lines = [
        [values[i] for values in keys.values()]
        + [shown(report.network[m], unit) if m in report.network else "" for m, unit in units.items()]
        for i, report in enumerate(reports)
    ]
    marks = {i: "collapsed" for i, report in enumerate(reports) if report.collapsed}
    page.table(Table([*keys, *units], lines, keys=len(keys), marks=marks))
    page.notes(_notes_of_several(reports))


def _notes_of_several(reports: Sequence[Report]) -> list[str]:
    """Notes on networks, with the masks that they are about unless all; notes on layers are left out here."""
    masks: dict[str, list[str]] = {}
    for report in reports:
        for line in note_lines(note for note in report.notes if note["layer"] is None):
            masks.setdefault(line, []).append(report.mask)
    return [line if len(names) == len(reports) else f"{', '.join(names)}: {line}" for line, names in masks.items()]


def _plot(reports: Sequence[Report], args: argparse.Namespace) -> None:
    from topo import plots

    with plots.paper():
        figure = plots.figure()
        plots.density_profile(list(reports), ax=figure.add_subplot())
        plots.save(figure, args.plot)
    wrote(args.plot, args)
