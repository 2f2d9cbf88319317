"""`topo report`: the HTML page of reports that were saved as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from topo.cli.options import check_outputs, command
from topo.cli.output import deliver
from topo.report import Reports, read_reports


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "report",
        "one HTML page of reports that topo analyze --json wrote: offline, to sort, filter and compare",
        "topo report all.json -o report.html",
    )  # fmt: skip
    made.add_argument("files", nargs="+", metavar="FILE", help="a .json of topo analyze; several make one page")
    made.add_argument("-o", dest="out", required=True, metavar="OUT", help="the page to write; - for standard output")


def run(args: argparse.Namespace) -> int:
    check_outputs(args.files, {"-o": args.out})
    reports = Reports(report for path in args.files for report in read_reports(path))
    deliver(reports.to_html(command=args.typed), args.out, args)
    return 0
