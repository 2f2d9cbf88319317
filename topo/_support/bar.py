"""How far work is, with the time left: rich's bar on a terminal, tqdm's in a notebook; gone when it is done."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from topo._support.screen import printable


def in_notebook() -> bool:
    """Whether a notebook shows what this process prints."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or a notebook shows it."""
    return sys.stderr.isatty() or in_notebook()


class Bar:
    """A bar on standard error; it appears with the first number or line that is told."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._counted = False
        self._at = (0, 0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def show(self, done: int, total: int, label: str) -> None:
        """done of total, and the label beside it."""
        bar = self._ready(counted=True)
        if total != self._at[1] or done < self._at[0]:  # another piece of work, with a pace of its own
            bar.reset(0, total=total)
        self._at = (done, total)
        bar.update(0, completed=done, description=printable(label))

    def line(self, text: str) -> None:
        """A line in one's own words, where nothing is counted."""
        self._ready(counted=False).update(0, description=printable(text))

    def _ready(self, counted: bool) -> Any:
        if self._bar is None or self._counted != counted:
            self.close()
            self._counted, self._at = counted, (0, 0)
            self._bar = _Tqdm() if in_notebook() else _rich(counted)
        return self._bar


def _rich(counted: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    said = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    numbers = (BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn()) if counted else (SpinnerColumn(),)
    bar = Progress(*numbers, said, console=Console(file=sys.stderr), transient=True)
    bar.add_task("", total=None)
    bar.start()
    return bar


class _Tqdm:
    """tqdm's bar by the calls of rich's that are used here."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets it is text, and says so at length
            self._bar = tqdm(leave=False, file=sys.stderr)

    def reset(self, task: int, *, total: int) -> None:
        self._bar.reset(total)

    def update(self, task: int, *, description: str, completed: int = 0) -> None:
        self._bar.set_description_str(description, refresh=False)
        self._bar.n = completed
        self._bar.refresh()

    def stop(self) -> None:
        self._bar.close()
