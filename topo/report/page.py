"""Reports as one HTML page: offline, without a request, every number readable without its script and in print.

The script (page.js, graph.js) only sorts, filters, selects and draws what the page's own tables and JSON hold; the
policy in the page's head names it by its hash, so that nothing else can run, whatever names a mask file brings along.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from topo._version import __version__
from topo.report.coverage import left_out_line
from topo.report.markup import Known, cell, named, table, text
from topo.report.masks_page import MOST_CELLS, compared
from topo.report.network_page import network
from topo.report.numerals import shown
from topo.report.page_figures import figures, forest

Report = Any  # topo.report.Report, which hands itself on to this page

STYLE, _PAGE, _GRAPH = (
    Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js", "graph.js")
)
SCRIPT = _PAGE + _GRAPH
# Networks that are drawn as graphs, of several masks: each takes up to half a megabyte.
MOST_GRAPHS = 4
_NO_ROOM = f"<p class=note>The graphs of the first {MOST_GRAPHS} masks are drawn; this one's is not.</p>"
_TILES = (
    ("density", "of the masked parameters are kept"),
    ("effective_density", "of the masked parameters lie on a path from input to output"),
    ("effective_units", "units are alive: some input reaches them, and they reach some output"),
    ("log10_effective_paths", "is the base-10 logarithm of the number of paths from input to output"),
)


def page(reports: Sequence[Report], data: str, *, command: str | None = None) -> str:
    """The page of some reports. data: their JSON, which the page carries as it is. command: what made them.

    The same reports give the same bytes: no date and no path of a folder is in it.
    """
    known = _definitions()
    title = reports[0].mask if len(reports) == 1 else f"{len(reports)} masks"
    parts = [_head(title, command)]
    if len(reports) > 1:
        parts.append(compared(reports, known))
    shown_layers, cells, graphs = 0, 0, []
    for place, report in enumerate(reports):
        cells += sum(row.layer is not None for row in report.rows)
        if place and cells > MOST_CELLS:
            break
        section, drawn = network(report, place) if place < MOST_GRAPHS else (_NO_ROOM, "")
        graphs.append(drawn)
        parts.append(_one(report, place, known, section, alone=len(reports) == 1))
        shown_layers += 1
    if shown_layers < len(reports):
        left = len(reports) - shown_layers
        parts.append(f"<p class=note>The layers of {left} more masks are in the JSON of this page alone.</p>")
    used = {row.metric for report in reports for row in report.rows}
    parts.append(_defined({name: about for name, about in known.items() if name in used}))
    held = data.replace("<", "\\u003c")
    parts += [f'<script type="application/json" id="data">{held}</script>', *graphs]
    parts.append(f"<script>{SCRIPT}</script></body></html>\n")
    return "".join(parts)


def policy() -> str:
    """The Content-Security-Policy of the page: no request, no script but its own."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"


def _definitions() -> dict[str, tuple[str, str, str]]:
    """Metric -> (definition, source, group)."""
    import topo

    return {entry.name: (entry.doc, entry.source, entry.group) for entry in topo.metrics.metrics.values()}


def _head(title: str, command: str | None) -> str:
    made = (
        f"<p class=made>topo {text(__version__)}"
        + (f", made by <code>{text(command)}</code>" if command else "")
        + "</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy())}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} – topo</title><style>{STYLE}</style></head><body><h1>{text(title)}</h1>{made}"
    )


def _one(report: Report, place: int, known: Known, graph: str, alone: bool) -> str:
    """The sections of one mask. graph: that of its network."""
    about = [("format", _reader(report.format)), ("model", report.model), ("view", report.view)]
    about += [(key.replace("_", " "), value) for key, value in report.columns.items()]
    facts = "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in about if value is not None)
    title = "" if alone else f"<h2>{text(report.mask)}</h2>"
    whole = [note["note"] for note in report.notes if note["metric"] is None and note["layer"] is None]
    first = left_out_line(report.coverage)
    assumed = dict.fromkeys([*([first] if first else []), *map(str, whole)])
    parts = [f'<section id="mask{place}">{title}<dl class=facts>{facts}</dl>']
    parts += ["<ul class=assumed>" + "".join(f"<li>{text(line)}</li>" for line in assumed) + "</ul>" if assumed else ""]
    parts.append(_tiles(report))
    parts.append(_numbers(report, place, known))
    if report.layers and any(row.layer is not None for row in report.rows):
        parts += [figures(report, place), _layers(report, place, known)]
    parts.append(graph)
    if report.groups:
        parts.append(_groups(report, place, known))
    if report.nulls:
        parts += [forest(report, place), _nulls(report, place)]
    rest = [line for line in report.remarks() if line not in assumed]
    if rest:
        parts.append("<h3>Notes</h3><ul>" + "".join(f"<li>{text(line)}</li>" for line in rest) + "</ul>")
    return "".join(parts) + "</section>"


def _reader(name: str | None) -> str | None:
    """The reader that understood the file, and what it takes files for."""
    import topo

    known = topo.formats.formats
    return name if name is None or name not in known else f"{name}: {known[name].about}"


def _numbers(report: Report, place: int, known: Known) -> str:
    """The network's numbers: group, how many layers a mean is of, and z against each null model."""
    units = {row.metric: row.unit for row in report.rows if row.layer is None}
    if not units:
        return ""
    counts = {metric for metric in units if metric.endswith("_layers") and metric.removesuffix("_layers") in units}
    z = {(entry["null"], entry["metric"]): entry for entry in report.nulls if entry["layer"] is None}
    kinds = list(dict.fromkeys(kind for kind, _ in z))
    body = []
    for metric, unit in units.items():
        if metric in counts:
            continue
        of = report.network[f"{metric}_layers"] if f"{metric}_layers" in counts else None
        line = f"{named(metric, known)}{cell(report.network[metric], unit)}<td>{text(unit)}</td>"
        line += f"<td>{text(known.get(metric, ('', '', ''))[2])}</td>" + (cell(of, "layers") if counts else "")
        body.append(f"<tr>{line}{''.join(_z(z.get((kind, metric))) for kind in kinds)}</tr>")
    header = ["metric", "value", "unit", "group", *(["layers"] if counts else ()), *(f"z, {k}" for k in kinds)]
    return table(header, body, "Network", f"network{place}")


def _z(entry: Mapping[str, Any] | None) -> str:
    """z, with the null model's mean, spread and p where a pointer rests."""
    if entry is None or entry["z"] is None or entry["z"] != entry["z"]:
        return cell(None, "")
    about = ", ".join(f"{key} {shown(entry[key])}" for key in ("mean", "std", "p") if entry[key] is not None)
    return cell(entry["z"], "").replace("<td", f'<td title="{text(about)}, {entry["samples"]} samples"', 1)


def _tiles(report: Report) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is None}
    tiles = [
        f"<div class=tile><b>{text(shown(report.network[name], units[name]))}</b> <span>{said}</span></div>"
        for name, said in _TILES
        if name in units
    ]
    if any(row.metric in ("kept", "effective_params") and row.layer for row in report.rows):
        count = len(report.collapsed)
        said = f"of {len(report.shapes)} layers have collapsed: nothing passes through them"
        tiles.append(f"<div class='tile{' bad' if count else ''}'><b>{count}</b> <span>{said}</span></div>")
    return f"<div class=tiles>{''.join(tiles)}</div>" if tiles else ""


def _layers(report: Report, place: int, known: Known) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is not None}
    header = ["<th>layer</th>", "<th>shape</th>", *(named(metric, known, "th") for metric in units)]
    rows = []
    for number, entry in enumerate(report.layers):
        dead = " class=dead" if entry["layer"] in report.collapsed else ""
        cells = "".join(cell(entry.get(metric), unit, bar=True) for metric, unit in units.items())
        shape = "x".join(map(str, entry["shape"]))
        rows.append(f"<tr data-k={number}{dead}><td>{text(entry['layer'])}</td><td>{shape}</td>{cells}</tr>")
    return table(header, rows, "Layers", f"layers{place}", ready=True)


def _groups(report: Report, place: int, known: Known) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is not None}
    columns = [name for name in units if any(name in entry for entry in report.groups)]
    header = ["<th>group</th><th>layers</th><th>params</th>", *(named(metric, known, "th") for metric in columns)]
    rows = [
        f"<tr><td>{text(entry['group'])}</td>{cell(entry['layers'], '')}{cell(entry['params'], '')}"
        + "".join(cell(entry.get(metric), units[metric], bar=True) for metric in columns)
        + "</tr>"
        for entry in report.groups
    ]
    return table(header, rows, "Groups", f"groups{place}", ready=True)


def _nulls(report: Report, place: int) -> str:
    columns = [key for key in report.nulls[0] if key not in ("null", "metric", "layer", "samples")]
    rows = [
        f"<tr><td>{text(entry['null'])}</td><td>{text(entry['metric'])}</td><td>{text(entry['layer'] or '')}</td>"
        f"{cell(entry['samples'], '')}" + "".join(cell(entry.get(key), "") for key in columns) + "</tr>"
        for entry in report.nulls
    ]
    return table(["null", "metric", "layer", "samples", *columns], rows, "Null models", f"nulls{place}")


def _defined(known: Known) -> str:
    said = [
        f"<dt>{text(metric)}</dt><dd>{text(doc)} <i>[{text(source)}]</i></dd>"
        for metric, (doc, source, _) in known.items()
    ]
    return f"<section><h2>Definitions</h2><dl>{''.join(said)}</dl></section>" if known else ""
