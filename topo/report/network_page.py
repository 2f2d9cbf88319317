"""The network in the HTML page: a table of its columns of units, a picture of them, and the script's data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from topo._support.screen import printable

Report = Any  # topo.report.Report
_WIDE, _HIGH = 1000, 240


def network(report: Report, place: int) -> tuple[str, str]:
    """The section of one mask, and the data that the script draws; without a network, a line that says why."""
    if report.drawing is None:
        why = (
            "<p class=note>The graph of units is drawn where the page is made from masks on their network, as by "
            "topo analyze FILE --model M --html OUT; this report was made without, or read from a file.</p>"
        )
        return f"<section><h3>Graph</h3>{why}</section>", ""
    found = report.drawing()
    order = {name: number for number, name in enumerate(report.shapes)}
    links = [
        {"k": order.get(link["layer"], -1), "skip": link["layer"] is None, "from": link["from"], "to": link["to"],
         "lines": link["lines"]}
        for link in found["links"]
    ]  # fmt: skip
    columns = [{**column, "name": printable(column["name"])} for column in found["columns"]]
    data = json.dumps({**found, "columns": columns, "links": links}, separators=(",", ":")).replace("<", "\\u003c")
    view = "" if report.view == found["view"] else f" of the {found['view']} view"
    made = (
        f"<section><h3>Graph{view}</h3><p class=legend>Units as dots, a column for each layer, those with most paths "
        "in the middle; blue lines lie on a path from input to output, orange ones on none, grey ones are identities. "
        "A layer that ends in a sum shows the units of the sum; gold ones live by the skip alone.</p>"
        f"<div class=tools></div><div id=graph{place} class=graph>{_picture(found)}</div>{_table(found, place)}"
        "</section>"
    )
    return made, f'<script type="application/json" data-graph="{place}">{data}</script>'


def _t(value: Any) -> str:
    return escape(printable(str(value)))


def _table(found: Mapping[str, Any], place: int) -> str:
    """The numbers of the picture: a row for each column of units."""
    stops = [found["stops"].index(stop) for stop in (50, 90, 99)]
    heads = [
        "units of",
        "units",
        "live",
        "by the skip alone",
        *(f"carry {found['stops'][stop]} % of its paths" for stop in stops),
    ]
    rows = "".join(
        f"<tr><td>{_t(column['name'])}</td>"
        + "".join(
            f'<td class=n data-v="{n}">{n:,}</td>'
            for n in (column["units"], column["live"], column["by_skip"], *(column["fewest"][stop] for stop in stops))
        )
        + "</tr>"
        for column in found["columns"]
    )
    return (
        "<details><summary>units, layer by layer</summary><div class=tools></div><div class=wide>"
        f"<table id=units{place} class=data><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _picture(found: Mapping[str, Any]) -> str:
    """What is seen without a script: a bar for each column, filled as far as its units live, and who feeds whom."""
    columns, deepest = found["columns"], max(column["depth"] for column in found["columns"]) or 1
    widest = max(column["units"] for column in columns)
    x = [20 + (_WIDE - 40) * column["depth"] / deepest for column in columns]
    parts = []
    for link in found["links"]:
        if link["from"] != link["to"]:
            kind = "alive" if any(link["lines"][2::3]) else "off"
            a, b = x[link["from"]], x[link["to"]]
            far = columns[link["to"]]["depth"] - columns[link["from"]]["depth"]
            bend = _HIGH / 2 if far == 1 else _HIGH / 2 - 40 - 30 * min(far, 5)
            parts.append(
                f'<path class="{kind}" d="M{a:.1f} {_HIGH / 2:.0f}Q{(a + b) / 2:.1f} {bend:.0f} {b:.1f} 120"/>'
            )
    wide = max(1.0, min(12.0, 0.5 * (_WIDE - 40) / deepest))
    for column, middle in zip(columns, x):
        tall = 10 + 90 * column["units"] / widest
        live = tall * column["live"] / max(column["units"], 1)
        skip = f", {column['by_skip']:,} by the skip alone" if column["by_skip"] else ""
        said = f"{column['name']}: {column['live']:,} of {column['units']:,} units live{skip}"
        left, base = middle - wide / 2, (_HIGH + tall) / 2
        parts.append(
            f'<g><title>{_t(said)}</title><rect class=all x="{left:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}"/><rect class=alive x="{left:.1f}" y="{base - live:.1f}" width="{wide:.1f}" '
            f'height="{live:.1f}"/></g>'
        )
    return f'<svg role="img" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}">{"".join(parts)}</svg>'
