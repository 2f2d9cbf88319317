"""What an interactive session shows of an object: one screen of text, or a table that folds out in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

LINES = 20


def printable(text: str) -> str:
    """Control characters, as in names from a stranger's file, become escapes: no terminal ever acts on them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def screen(first: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A line, and under it a table of text, in at most 23 lines: the middle of a long one is left out.

    >>> print(screen("Two things", ["name", "size"], [["a", 1], ["bb", 20]]))
    Two things
      name  size
      a        1
      bb      20
    """
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    if len(rows) > LINES:
        half = LINES // 2
        gap = [f"... {len(rows) - 2 * half + 1} more", *([""] * (len(header) - 1))]
        cells = [*cells[: half + 1], gap, *cells[len(cells) - half + 1 :]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def aligned(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])

    return "\n".join([first, *(f"  {aligned(row)}".rstrip() for row in cells)])


def folding(first: str, header: Sequence[str], rows: Sequence[Sequence[object]], what: str) -> str:
    """The same as HTML: the line, and the table folded under it. what: the kind of a row."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"{len(rows)} {what}{'s' * (len(rows) != 1)}"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><b>{escape(first)}</b></p><details><summary>{title}</summary>{table}</details>"
