"""--columns, --filter and --sort: which columns and lines of a table are shown, and in what order."""

from __future__ import annotations

import argparse
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from topo._support.names import unknown
from topo.cli.options import UsageError

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|<|>|=|~)\s*(.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """COLUMN OP VALUE: numbers are compared as numbers; ~ matches text with a pattern; what is undefined fits none."""

    column: str
    sign: str
    value: str

    def fits(self, entry: Any) -> bool:
        if entry is None or entry != entry:
            return False
        if self.sign == "~":
            return fnmatchcase(_text(entry), self.value)
        try:
            return _COMPARE[self.sign](entry if isinstance(entry, int | float) else float(entry), float(self.value))
        except (ValueError, OverflowError):
            if self.sign in ("=", "!="):
                return _COMPARE[self.sign](_text(entry), self.value)
            return False

    def check(self, entries: Sequence[Any]) -> None:
        """UsageError for a value that the column cannot hold, which would leave no line, or with != every one.

        entries: of the column, those that are defined.
        """
        if not entries:
            return
        if self.sign == "~":
            if not any(self.fits(entry) for entry in entries):
                raise UsageError(unknown(self.column, self.value, dict.fromkeys(map(_text, entries))))
        elif self.sign in ("=", "!=") and _number(self.value) is None:
            if all(isinstance(entry, int | float) for entry in entries):
                raise UsageError(
                    f"'{self.column}{self.sign}{self.value}': {self.column} is a number, '{self.value}' none"
                )
            texts = dict.fromkeys(map(_text, entries))
            if self.value not in texts:
                raise UsageError(unknown(self.column, self.value, texts))


def condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a condition; write COLUMN<VALUE, with <, <=, >, >=, =, != or ~"
        )
    made = Condition(*found.groups())
    if made.sign not in ("=", "!=", "~") and _number(made.value) is None:
        raise argparse.ArgumentTypeError(f"'{text}' compares with '{made.value}', which is not a number")
    return made


def _number(text: str) -> float | None:
    """The number that a text is; None of other texts, and of NaN, which nothing compares with."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value != value else value


def _text(entry: Any) -> str:
    """An entry as a table shows it: shapes as 16x3x3x3."""
    return "x".join(map(str, entry)) if isinstance(entry, list | tuple) else str(entry)


def choosing_options(made: argparse.ArgumentParser) -> None:
    """--columns, --filter and --sort."""
    made.add_argument(
        "--columns", metavar="LIST", help="the columns of the table of layers (of masks, where there are several)"
    )
    made.add_argument(
        "--filter", action="append", default=[], type=condition, metavar="COND",
        help="only its lines that fit, as in 'density<0.1' or 'layer~blocks.*'; again for another condition",
    )  # fmt: skip
    made.add_argument(
        "--sort",
        metavar="COL",
        help="its lines in the order of a column, the undefined last; --sort=-COL downwards",
    )


def check_columns(args: argparse.Namespace, known: Sequence[str]) -> None:
    """UsageError for a column of --filter, --sort or --columns that is not known."""
    _check_lines(args, known)
    for name in listed(args.columns):
        _check(name, known)


def check_values(args: argparse.Namespace, entries: Sequence[Mapping[str, Any]]) -> None:
    """UsageError for a value of --filter that its column cannot hold; see `Condition.check`."""
    for wanted in args.filter:
        wanted.check([entry[wanted.column] for entry in entries if _defined(entry.get(wanted.column))])


def left_line(shown: int, every: int, what: str) -> list[str]:
    """ "3 of 6 layers shown", of a table of which --filter left out lines; otherwise nothing."""
    return [f"{shown:,} of {every:,} {what} shown (--filter)"] if shown < every else []


def lines_of(entries: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> list[int]:
    """Places of the lines that --filter leaves, in the order of --sort; UsageError for a column that is not there."""
    known = list(dict.fromkeys(key for entry in entries for key in entry))
    kept = list(range(len(entries)))
    _check_lines(args, known)
    for wanted in args.filter:
        kept = [place for place in kept if wanted.fits(entries[place].get(wanted.column))]
    if args.sort:
        name = args.sort.removeprefix("-")
        down = args.sort.startswith("-")
        defined = [place for place in kept if _defined(entries[place].get(name))]
        defined.sort(key=lambda place: _order(entries[place][name]), reverse=down)
        kept = defined + [place for place in kept if not _defined(entries[place].get(name))]
    return kept


def columns_of(
    header: Sequence[str], keys: int, args: argparse.Namespace, above: Sequence[str] = ()
) -> list[int] | None:
    """Places of the columns of --columns, the first `keys` in front; None without it. above: said above the table."""
    if args.columns is None:
        return None
    wanted = [name for name in listed(args.columns) if name in header or name not in above]
    for name in wanted:
        _check(name, header)
    return [*range(keys), *(place for name in wanted if (place := list(header).index(name)) >= keys)]


def _check_lines(args: argparse.Namespace, known: Sequence[str]) -> None:
    for name in [wanted.column for wanted in args.filter] + ([args.sort.removeprefix("-")] if args.sort else []):
        _check(name, known)


def listed(columns: str | None) -> list[str]:
    """The names in a value of --columns."""
    return [name for part in (columns or "").split(",") if (name := part.strip())]


def _check(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(unknown("column", name, known))


def _defined(value: Any) -> bool:
    return value is not None and value == value


def _order(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
