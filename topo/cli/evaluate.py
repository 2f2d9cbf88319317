"""`topo evaluate`: which numbers of masks go with accuracy, from a table of masks."""

from __future__ import annotations

import argparse
from typing import Any

from topo.cli.options import check_outputs, command, plot_file
from topo.cli.output import deliver, wrote
from topo.cli.tables import Page, Table
from topo.evaluate import Evaluation, evaluate
from topo.evidence import read_table
from topo.report.numerals import shown

_NONE = "none"


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "evaluate",
        "which metrics of masks go with accuracy: within cells, given layer densities, and for methods left out",
        "topo evaluate RESULTS --json evidence.json --plot evidence.pdf\n"
        "  topo evaluate runs.csv --cell model,dataset,sparsity --family pruning --metrics sinks,cut_nodes",
    )  # fmt: skip
    made.add_argument("table", metavar="TABLE", help="a .csv, .csv.gz or .jsonl with a row a mask, or a sweep's folder")
    made.add_argument("--accuracy", metavar="COL", default="accuracy", help="the column of accuracies")
    made.add_argument(
        "--cell", metavar="A,B,C", type=_names, default="network,data,density",
        help="the columns within which masks are compared (default network,data,density); none: all rows together",
    )  # fmt: skip
    made.add_argument(
        "--family", metavar="COL", default="method", help="the column of what made a mask (default method), or none"
    )
    made.add_argument(
        "--baseline", metavar="COL", default="mean_log_density",
        help="what partial correlations are given (default mean_log_density, else mld), or none",
    )  # fmt: skip
    made.add_argument("--metrics", metavar="A,B,C", type=_names, help="columns to look at (default: all of numbers)")
    made.add_argument("--primary", metavar="COL", help="the metric named beforehand: its p is not adjusted")
    made.add_argument("--json", metavar="OUT", help="write the numbers as JSON; - for standard output alone")
    made.add_argument("--plot", metavar="OUT", type=plot_file, help="draw the correlations, raw and partial")


def run(args: argparse.Namespace) -> int:
    check_outputs([args.table], {"--json": args.json, "--plot": args.plot})
    found = evaluate(
        read_table(args.table),
        args.accuracy,
        _given(args.cell),
        _given(args.family),
        _given(args.baseline),
        metrics=args.metrics,
        primary=args.primary,
        rng=getattr(args, "seed", 0),
    )
    if args.plot:
        from topo.plots.evidence import draw_evidence
        from topo.plots.style import figure, paper, save

        with paper(ratio=0.25 + 0.055 * len(found.metrics)):
            drawn = figure()
            draw_evidence(found, drawn.add_subplot())
            save(drawn, args.plot)
        wrote(args.plot, args)
    if args.json:
        deliver(found.to_json(), args.json, args)
    if args.json != "-":
        _show(found)
    return 0


def _show(found: Evaluation) -> None:
    page = Page()
    page.heading(
        f"{found.rows:,} masks in {found.cells} cells of {found.clusters} clusters; ceiling {shown(found.ceiling)}"
    )
    header = ["metric", "cells", "rho", "95 %", "p (Holm)", f"given {found.baseline or 'nothing'}", "95 %", "p (Holm)"]
    lines = [
        [
            str(entry["metric"]), str(entry["cells"]),
            shown(entry["rho"]), _interval(entry["low"], entry["high"]), shown(entry["p_holm"]),
            shown(entry["partial"]), _interval(entry["partial_low"], entry["partial_high"]),
            shown(entry["partial_p_holm"]),
        ]
        for entry in found.metrics
    ]  # fmt: skip
    page.table(Table(header, lines))
    if found.left_out:
        header = ["one family left out: features", "R2", "gain over the first", "pairs in order"]
        best = sorted(found.left_out[1:], key=lambda entry: -entry["r2"] if entry["r2"] == entry["r2"] else 9.0)
        lines = [
            [" + ".join(entry["features"]), shown(entry["r2"]), shown(entry["gain"]), shown(entry["pairs"])]
            for entry in (found.left_out[0], *best)
        ]
        page.table(Table(header, lines))
    page.notes(found.notes)


def _interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}" if low == low else ""


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}' should be names of columns with commas between")
    return names


def _given(value: Any) -> Any:
    """None for none."""
    return None if value in (_NONE, [_NONE]) else value
