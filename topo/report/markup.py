"""Pieces of the HTML page: text that stays text, cells that sort as numbers, tables with their tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from topo._support.screen import printable
from topo.report.numerals import decimal, shown

Known = Mapping[str, tuple[str, str, str]]  # metric -> (definition, source, group)


def text(value: Any) -> str:
    """Any value as text of the page, whatever it holds."""
    return escape(printable(str(value)))


def cell(value: Any, unit: str, bar: bool = False) -> str:
    """A number as text, and as it is for sorting; what is undefined has none."""
    if value is None or value == "":
        return '<td class=n data-v=""></td>'
    if isinstance(value, str):
        return f'<td class=n data-v="{text(value)}">{text(value)}</td>'
    raw = "" if value != value else decimal(value) if isinstance(value, int) else repr(value)
    style = ""
    if bar and unit == "fraction" and value == value and 0 <= value <= 1:
        style = f' style="--p:{100 * value:.3g}%" class="n bar"'
    return f'<td{style or " class=n"} data-v="{raw}">{text(shown(value, unit))}</td>'


def named(metric: str, known: Known, tag: str = "td") -> str:
    doc, source, _ = known.get(metric, ("", "", ""))
    hover = f' title="{text(doc)} [{text(source)}]"' if doc else ""
    return f"<{tag}{hover}>{text(metric)}</{tag}>"


def table(header: Sequence[str], rows: Sequence[str], title: str, place: str, ready: bool = False) -> str:
    """header: names of columns, or with `ready` cells of HTML."""
    cells = "".join(header) if ready else "".join(f"<th>{text(cell)}</th>" for cell in header)
    return (
        f"<h3>{text(title)}</h3><div class=tools></div><div class=wide>"
        f'<table id="{place}" class=data><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
