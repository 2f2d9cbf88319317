"""Reports as one HTML page: offline, without a request, every number readable without its script and in print.

The script (page.js, graph.js) only sorts, filters, selects and draws what the page's own tables and JSON hold; the
policy in the page's head names it by its hash, so that nothing else can run, whatever names a mask file brings along.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from topo._support.screen import printable
from topo._version import __version__
from topo.report.coverage import left_out_line
from topo.report.network_page import network
from topo.report.numerals import decimal, shown

Report = Any  # topo.report.Report, which hands itself on to this page

STYLE, _PAGE, _GRAPH = (
    Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js", "graph.js")
)
SCRIPT = _PAGE + _GRAPH
# Cells of all layer tables together: beyond that many a browser takes seconds; the JSON in the page holds every layer.
_MOST_CELLS = 60_000
# Networks that are drawn as graphs, of several masks: each takes up to half a megabyte.
MOST_GRAPHS = 4
_NO_ROOM = f"<p class=note>The graphs of the first {MOST_GRAPHS} masks are drawn; this one's is not.</p>"
_TILES = (
    ("density", "of the masked parameters are kept"),
    ("effective_density", "of the masked parameters lie on a path from input to output"),
    ("effective_units", "units are alive: some input reaches them, and they reach some output"),
    ("log10_effective_paths", "is the base-10 logarithm of the number of paths from input to output"),
)


def page(reports: Sequence[Report], text: str, *, command: str | None = None) -> str:
    """The page of some reports. text: their JSON, which the page carries as it is. command: what made them.

    The same reports give the same bytes: no date and no path of a folder is in it.
    """
    known = _definitions()
    title = reports[0].mask if len(reports) == 1 else f"{len(reports)} masks"
    parts = [_head(title, command)]
    if len(reports) > 1:
        parts.append(_compared(reports, known))
    shown_layers, cells, graphs = 0, 0, []
    for place, report in enumerate(reports):
        cells += sum(row.layer is not None for row in report.rows)
        if place and cells > _MOST_CELLS:
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
    data = text.replace("<", "\\u003c")
    parts += [f'<script type="application/json" id="data">{data}</script>', *graphs]
    parts.append(f"<script>{SCRIPT}</script></body></html>\n")
    return "".join(parts)


def policy() -> str:
    """The Content-Security-Policy of the page: no request, no script but its own."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"


def _definitions() -> dict[str, tuple[str, str]]:
    """Metric -> (definition, source)."""
    import topo

    return {entry.name: (entry.doc, entry.source) for entry in topo.metrics.metrics.values()}


def _t(value: Any) -> str:
    return escape(printable(str(value)))


def _head(title: str, command: str | None) -> str:
    made = (
        f"<p class=made>topo {_t(__version__)}" + (f", made by <code>{_t(command)}</code>" if command else "") + "</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy())}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_t(title)} – topo</title><style>{STYLE}</style></head><body><h1>{_t(title)}</h1>{made}"
    )


def _one(report: Report, place: int, known: Mapping[str, tuple[str, str]], graph: str, alone: bool) -> str:
    """The sections of one mask. graph: that of its network."""
    about = [("format", report.format), ("model", report.model), ("view", report.view)]
    about += [(key.replace("_", " "), value) for key, value in report.columns.items()]
    facts = "".join(f"<dt>{_t(key)}</dt><dd>{_t(value)}</dd>" for key, value in about if value is not None)
    title = "" if alone else f"<h2>{_t(report.mask)}</h2>"
    whole = [note["note"] for note in report.notes if note["metric"] is None and note["layer"] is None]
    first = left_out_line(report.coverage)
    assumed = dict.fromkeys([*([first] if first else []), *map(str, whole)])
    parts = [f'<section id="mask{place}">{title}<dl class=facts>{facts}</dl>']
    parts += ["<ul class=assumed>" + "".join(f"<li>{_t(line)}</li>" for line in assumed) + "</ul>" if assumed else ""]
    parts.append(_tiles(report))
    units = {row.metric: row.unit for row in report.rows if row.layer is None}
    if units:
        body = [
            f"<tr>{_name(metric, known)}{_cell(report.network[metric], unit)}<td>{_t(unit)}</td></tr>"
            for metric, unit in units.items()
        ]
        parts.append(_table(["metric", "value", "unit"], body, "Network", f"network{place}"))
    if report.layers and any(row.layer is not None for row in report.rows):
        parts += [_bars(report, place), _layers(report, place, known)]
    parts.append(graph)
    if report.groups:
        parts.append(_groups(report, place, known))
    if report.nulls:
        parts.append(_nulls(report, place))
    rest = [line for line in report.remarks() if line not in assumed]
    if rest:
        parts.append("<h3>Notes</h3><ul>" + "".join(f"<li>{_t(line)}</li>" for line in rest) + "</ul>")
    return "".join(parts) + "</section>"


def _tiles(report: Report) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is None}
    tiles = [
        f"<div class=tile><b>{_t(shown(report.network[name], units[name]))}</b> <span>{said}</span></div>"
        for name, said in _TILES
        if name in units
    ]
    if any(row.metric in ("kept", "effective_params") and row.layer for row in report.rows):
        count = len(report.collapsed)
        said = f"of {len(report.shapes)} layers have collapsed: nothing passes through them"
        tiles.append(f"<div class='tile{' bad' if count else ''}'><b>{count}</b> <span>{said}</span></div>")
    return f"<div class=tiles>{''.join(tiles)}</div>" if tiles else ""


def _cell(value: Any, unit: str, bar: bool = False) -> str:
    """A number as text, and as it is for sorting; what is undefined has none."""
    if value is None or value == "":
        return '<td class=n data-v=""></td>'
    if isinstance(value, str):
        return f'<td class=n data-v="{_t(value)}">{_t(value)}</td>'
    raw = "" if value != value else decimal(value) if isinstance(value, int) else repr(value)
    style = ""
    if bar and unit == "fraction" and value == value and 0 <= value <= 1:
        style = f' style="--p:{100 * value:.3g}%" class="n bar"'
    return f'<td{style or " class=n"} data-v="{raw}">{_t(shown(value, unit))}</td>'


def _name(metric: str, known: Mapping[str, tuple[str, str]], tag: str = "td") -> str:
    doc, source = known.get(metric, ("", ""))
    hover = f' title="{_t(doc)} [{_t(source)}]"' if doc else ""
    return f"<{tag}{hover}>{_t(metric)}</{tag}>"


def _table(header: Sequence[str], rows: Sequence[str], title: str, name: str, ready: bool = False) -> str:
    """header: names of columns, or with `ready` cells of HTML."""
    cells = "".join(header) if ready else "".join(f"<th>{_t(cell)}</th>" for cell in header)
    return (
        f"<h3>{_t(title)}</h3><div class=tools></div><div class=wide>"
        f'<table id="{name}" class=data><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _layers(report: Report, place: int, known: Mapping[str, tuple[str, str]]) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is not None}
    header = ["<th>layer</th>", "<th>shape</th>", *(_name(metric, known, "th") for metric in units)]
    rows = []
    for number, entry in enumerate(report.layers):
        dead = " class=dead" if entry["layer"] in report.collapsed else ""
        cells = "".join(_cell(entry.get(metric), unit, bar=True) for metric, unit in units.items())
        shape = "x".join(map(str, entry["shape"]))
        rows.append(f"<tr data-k={number}{dead}><td>{_t(entry['layer'])}</td><td>{shape}</td>{cells}</tr>")
    return _table(header, rows, "Layers", f"layers{place}", ready=True)


def _groups(report: Report, place: int, known: Mapping[str, tuple[str, str]]) -> str:
    units = {row.metric: row.unit for row in report.rows if row.layer is not None}
    columns = [name for name in units if any(name in entry for entry in report.groups)]
    header = ["<th>group</th><th>layers</th><th>params</th>", *(_name(metric, known, "th") for metric in columns)]
    rows = [
        f"<tr><td>{_t(entry['group'])}</td>{_cell(entry['layers'], '')}{_cell(entry['params'], '')}"
        + "".join(_cell(entry.get(metric), units[metric], bar=True) for metric in columns)
        + "</tr>"
        for entry in report.groups
    ]
    return _table(header, rows, "Groups", f"groups{place}", ready=True)


def _nulls(report: Report, place: int) -> str:
    columns = [key for key in report.nulls[0] if key not in ("null", "metric", "layer", "samples")]
    rows = [
        f"<tr><td>{_t(entry['null'])}</td><td>{_t(entry['metric'])}</td><td>{_t(entry['layer'] or '')}</td>"
        f"{_cell(entry['samples'], '')}" + "".join(_cell(entry.get(key), "") for key in columns) + "</tr>"
        for entry in report.nulls
    ]
    return _table(["null", "metric", "layer", "samples", *columns], rows, "Null models", f"nulls{place}")


def _bars(report: Report, place: int) -> str:
    """A figure: the density of each layer, and the share of it on paths, as bars."""
    found = [(entry["layer"], _share(entry, "kept"), _share(entry, "effective_params")) for entry in report.layers]
    if not any(kept is not None for _, kept, _ in found):
        return ""
    step = 14
    width, height = max(240, step * len(found) + 20), 150
    bars = []
    for number, (name, kept, alive) in enumerate(found):
        x = 10 + step * number
        said = f"{name}: density {shown(kept) if kept is not None else '–'}"
        said += f", effective {shown(alive)}" if alive is not None else ""
        inner = f"<title>{_t(said)}</title>"
        for share, kind in ((kept, "kept"), (alive, "alive")):
            if share is not None:
                tall = 130 * share
                inner += f'<rect class={kind} x="{x}" y="{140 - tall:.2f}" width="10" height="{tall:.2f}"/>'
        bars.append(f"<g data-k={number}>{inner}</g>")
    return (
        "<h3>Density, layer by layer</h3><p class=legend><i class=kept></i> kept <i class=alive></i> of it on a path"
        f'</p><div class=wide><svg id="bars{place}" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><path class=axis d="M5 10V140H{width - 5}"/>{"".join(bars)}</svg></div>'
    )


def _share(entry: Mapping[str, Any], metric: str) -> float | None:
    value = entry.get(metric)
    if value is None or value != value:
        return None
    return value / math.prod(entry["shape"])


def _compared(reports: Sequence[Report], known: Mapping[str, tuple[str, str]]) -> str:
    """Several masks: a row each, a heat map of their layers' densities, a place for a scatter of two numbers."""
    rows = [{"mask": report.mask, **report.columns} for report in reports]
    about = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("mask", "file", "sha256")]
    units = {row.metric: row.unit for report in reports for row in report.rows if row.layer is None}
    header = ["<th>mask</th>", *(f"<th>{_t(key)}</th>" for key in about)]
    header += [_name(metric, known, "th") for metric in units]
    body = []
    for number, (report, row) in enumerate(zip(reports, rows)):
        cells = "".join(_cell(row.get(key), "") for key in about)
        cells += "".join(_cell(report.network.get(metric), unit) for metric, unit in units.items())
        dead = " class=dead" if report.collapsed else ""
        body.append(f'<tr data-k={number}{dead}><td><a href="#mask{number}">{_t(report.mask)}</a></td>{cells}</tr>')
    made = _table(header, body, "Masks", "masks", ready=True) + "<div id=scatter></div>"
    names = list(dict.fromkeys(name for report in reports for name in report.shapes))
    if not names:
        return made
    if len(names) * len(reports) > _MOST_CELLS:
        return made + "<p class=note>The heat map of layers is left out: it would hold too many cells.</p>"
    held = [{entry["layer"]: entry.get("density") for entry in report.layers} for report in reports]
    lines = []
    for report, of_layers in zip(reports, held):
        cells = "".join(_heat(of_layers.get(name)) for name in names)
        lines.append(f"<tr><td>{_t(report.mask)}</td>{cells}</tr>")
    return made + _table(["mask", *names], lines, "Density of layers", "heat")


def _heat(value: Any) -> str:
    if value is None or value != value:
        return '<td class=n data-v=""></td>'
    return f'<td class="n heat" style="--h:{min(1.0, float(value)) ** 0.5:.3g}" data-v="{value!r}">{shown(value)}</td>'


def _defined(known: Mapping[str, tuple[str, str]]) -> str:
    said = [f"<dt>{_t(name)}</dt><dd>{_t(doc)} <i>[{_t(source)}]</i></dd>" for name, (doc, source) in known.items()]
    return f"<section><h2>Definitions</h2><dl>{''.join(said)}</dl></section>" if known else ""
