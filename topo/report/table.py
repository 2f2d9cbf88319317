"""Tables of text: cut into parts that fit a width, aligned, without colour or lines."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from topo._support.screen import printable

# Width of plain text, and of the longest cell before its middle is left out.
WIDTH, _LONGEST = 120, 56
_GAP = 2


@dataclass(frozen=True)
class Table:
    """header and lines of cells.

    keys: the first columns, which are text, and stand in front of every part when the table is too wide. left: other
    columns of text. marks: number of a line -> the word that makes it stand out.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    keys: int = 1
    left: frozenset[int] = frozenset()
    marks: Mapping[int, str] = field(default_factory=dict)

    def parts(self, width: int) -> list[Table]:
        """The same table cut into parts that fit `width` columns of text."""
        table = Table(
            [printable(cell) for cell in self.header],
            [[_shorter(printable(cell)) for cell in line] for line in self.lines],
            self.keys, self.left, self.marks,
        )  # fmt: skip
        widths = table.widths()
        mark = max((len(word) + _GAP for word in self.marks.values()), default=0)
        fixed = sum(widths[: self.keys]) + _GAP * (self.keys - 1) + mark
        chosen: list[list[int]] = [[]]
        used = fixed
        for column in range(self.keys, len(self.header)):
            if chosen[-1] and used + _GAP + widths[column] > width:
                chosen.append([])
                used = fixed
            chosen[-1].append(column)
            used += _GAP + widths[column]
        return [table.only([*range(self.keys), *columns]) for columns in chosen]

    def only(self, columns: Sequence[int]) -> Table:
        """These columns, keys first."""
        left = frozenset(i for i, c in enumerate(columns) if c in self.left)
        lines = [[line[c] for c in columns] for line in self.lines]
        return Table([self.header[c] for c in columns], lines, self.keys, left, self.marks)

    def wrapped(self, width: int) -> Table:
        """The same table in `width` columns of text, the last column broken into as many lines as it takes."""
        room = max(20, width - sum(w + _GAP for w in self.widths()[:-1]))
        lines: list[list[str]] = []
        for *cells, text in self.lines:
            for number, piece in enumerate(textwrap.wrap(text, room) or [""]):
                lines.append([*(cells if number == 0 else [""] * len(cells)), piece])
        return Table(self.header, lines, self.keys, self.left)

    def widths(self) -> list[int]:
        return [max(map(len, [*self.head(column), *self.column(column)])) for column in range(len(self.header))]

    def column(self, column: int) -> list[str]:
        return [line[column] for line in self.lines]

    def head(self, column: int) -> list[str]:
        """The header of a column in lines not wider than need be, broken behind underscores."""
        words = [part + "_" for part in self.header[column].split("_")]
        words[-1] = words[-1][:-1]
        room = max(map(len, [*words, *self.column(column)]))
        lines = [words[0]]
        for word in words[1:]:
            if len(lines[-1]) + len(word) <= room:
                lines[-1] += word
            else:
                lines.append(word)
        return lines

    def aligned(self, column: int, cell: str, width: int) -> str:
        return cell.ljust(width) if column < self.keys or column in self.left else cell.rjust(width)


def _shorter(cell: str) -> str:
    """A long name without its middle."""
    if len(cell) <= _LONGEST or " " in cell:
        return cell
    half = (_LONGEST - 3) // 2
    return f"{cell[:half]}...{cell[-half:]}"


def plain(table: Table, width: int = WIDTH) -> str:
    """Aligned text, without colour or lines."""
    texts = []
    for part in table.parts(width):
        widths = part.widths()
        heads = [part.head(column) for column in range(len(part.header))]
        height = max(map(len, heads))
        rows = [[[""] * (height - len(head)) + head for head in heads]]
        lines = [[column[i] for column in rows[0]] for i in range(height)] + [list(line) for line in part.lines]
        text = []
        for number, line in enumerate(lines, -height):
            cells = [part.aligned(column, cell, widths[column]) for column, cell in enumerate(line)]
            mark = part.marks.get(number, "") if number >= 0 else ""
            text.append((" " * _GAP).join([*cells, mark] if mark else cells).rstrip())
        texts.append("\n".join(text) + "\n")
    return "\n".join(texts)
