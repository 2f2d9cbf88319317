"""Tables on standard output: rich ones on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from topo._support.screen import printable
from topo.cli.output import say, stdout
from topo.report.table import WIDTH, Table, plain

__all__ = ["Page", "Table"]


class Page:
    """Where a command shows its results."""

    def __init__(self) -> None:
        self._terminal = stdout().isatty()
        self._empty = True
        self._console: Any = None
        if self._terminal:
            from rich.console import Console

            self._console = Console(file=stdout(), highlight=False)
        self.width = self._console.width - 2 if self._console else WIDTH

    def heading(self, line: str) -> None:
        self._space()
        if self._terminal:
            from rich.text import Text

            self._console.print(Text(printable(line), style="bold"), soft_wrap=True)
        else:
            say(printable(line) + "\n")

    def table(self, table: Table) -> None:
        self._space()
        if self._terminal:
            self._rich(table)
        else:
            say(plain(table))

    def notes(self, notes: Sequence[str]) -> None:
        """Notes under the tables."""
        if notes:
            self._space()
        for note in notes:
            lines = textwrap.wrap(
                printable(f"note: {note}"), self.width, subsequent_indent="      ", break_long_words=False
            )
            say("\n".join(lines) + "\n")

    def _space(self) -> None:
        """An empty line between what stands on the page."""
        if not self._empty:
            say("\n")
        self._empty = False

    def _rich(self, table: Table) -> None:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        for number, part in enumerate(table.parts(self.width)):
            if number:
                self._space()
            # Padding of 1 beside the divider's column of 1 is the gap that the widths were counted with.
            made = RichTable(
                box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
            )
            for column in range(len(part.header)):
                text = column < part.keys or column in part.left
                head = Text("\n".join(part.head(column)))
                made.add_column(head, justify="left" if text else "right", no_wrap=True, vertical="bottom")
            if part.marks:
                made.add_column("", no_wrap=True)
            for place, line in enumerate(part.lines):
                mark = part.marks.get(place)
                cells = [Text(cell) for cell in [*line, mark or ""][: len(made.columns)]]
                made.add_row(*cells, style="bold red" if mark else None)
            self._console.print(made)
