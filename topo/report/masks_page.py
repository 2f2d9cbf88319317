"""Several masks in the HTML page: a row each, means over groups of them, a heat map of their layers, a scatter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from topo.report.markup import Known, cell, named, table, text
from topo.report.numerals import shown
from topo.report.summary import summarised

Report = Any  # topo.report.Report
# Cells of all layer tables together: beyond that many a browser takes seconds; the JSON in the page holds every layer.
MOST_CELLS = 60_000


def compared(reports: Sequence[Report], known: Known) -> str:
    """Several masks: a row each, a heat map of their layers' densities, a place for a scatter of two numbers."""
    rows = [{"mask": report.mask, **report.columns} for report in reports]
    about = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("mask", "file", "sha256")]
    units = {row.metric: row.unit for report in reports for row in report.rows if row.layer is None}
    header = ["<th>mask</th>", *(f"<th>{text(key)}</th>" for key in about)]
    header += [named(metric, known, "th").replace("<th", "<th data-m", 1) for metric in units]
    body = []
    for number, (report, row) in enumerate(zip(reports, rows)):
        cells = "".join(cell(row.get(key), "") for key in about)
        cells += "".join(cell(report.network.get(metric), unit) for metric, unit in units.items())
        dead = " class=dead" if report.collapsed else ""
        body.append(f'<tr data-k={number}{dead}><td><a href="#mask{number}">{text(report.mask)}</a></td>{cells}</tr>')
    made = _grouped(reports, known) + "<div id=scatter></div>" + table(header, body, "Masks", "masks", ready=True)
    names = list(dict.fromkeys(layer for report in reports for layer in report.shapes))
    if not names:
        return made
    if len(names) * len(reports) > MOST_CELLS:
        return made + "<p class=note>The heat map of layers is left out: it would hold too many cells.</p>"
    held = [{entry["layer"]: entry.get("density") for entry in report.layers} for report in reports]
    lines = []
    for report, of_layers in zip(reports, held):
        cells = "".join(_heat(of_layers.get(layer)) for layer in names)
        lines.append(f"<tr><td>{text(report.mask)}</td>{cells}</tr>")
    return made + table(["mask", *names], lines, "Density of layers", "heat")


def _heat(value: Any) -> str:
    if value is None or value != value:
        return '<td class=n data-v=""></td>'
    return f'<td class="n heat" style="--h:{min(1.0, float(value)) ** 0.5:.3g}" data-v="{value!r}">{shown(value)}</td>'


def _grouped(reports: Sequence[Report], known: Known) -> str:
    """Means over the masks of a method and density, with Student's intervals; the script groups by other columns."""
    columns = [report.columns for report in reports]
    by = [key for key in ("method", "density_asked", "density") if any(key in held for held in columns)][:2]
    if not by:
        return ""
    keys = [tuple(held.get(key) for key in by) for held in columns]
    if len(set(keys)) == len(keys):
        return ""
    networks = [report.network for report in reports]
    units = {row.metric: row.unit for report in reports for row in report.rows if row.layer is None}
    metrics = [m for m in units if not any(isinstance(network.get(m), str) for network in networks)]
    metrics = [m for m in metrics if m != "effective_paths"]
    said = [Counter(_said(value) for value in {key[place] for key in keys}) for place in range(len(by))]
    lines: dict[tuple[Any, ...], list[str]] = {}
    for row in summarised(by, keys, metrics, networks):
        key = tuple(row[name] for name in by)
        if key not in lines:
            # Values that look alike when they are rounded are shown whole.
            of_key = [str(value) if said[i][_said(value)] > 1 else value for i, value in enumerate(key)]
            lines[key] = ["".join(cell(value, "") for value in of_key), cell(row["masks"], "")]
        lines[key].append(_mean(row, units[row["metric"]]))
    header = [*(f"<th>{text(key)}</th>" for key in by), "<th>masks</th>", *(named(m, known, "th") for m in metrics)]
    body = [f"<tr>{''.join(cells)}</tr>" for cells in lines.values()]
    note = "<p class=note>Means over the masks of a group, ± half the 95 % interval of the mean (Student's t).</p>"
    made = table(header, body, "Groups of masks", "grouped", ready=True)
    return made.replace("<table", f"<table data-by='{text(json.dumps(by))}'", 1) + note


def _said(value: Any) -> str:
    return shown(value) if isinstance(value, int | float) else str(value)


def _mean(row: Mapping[str, Any], unit: str) -> str:
    mean, half = row["mean"], row["t95"]
    if mean is None or mean != mean:
        return cell(None, "")
    around = f" ± {shown(half, unit)}" if half is not None and half > 0 else ""
    return f'<td class="n pm" data-v="{mean!r}">{text(shown(mean, unit))}{around}</td>'
