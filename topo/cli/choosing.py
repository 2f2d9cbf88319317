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
            return fnmatchcase(str(entry), self.value)
        try:
            return _COMPARE[self.sign](entry if isinstance(entry, int | float) else float(entry), float(self.value))
        except (ValueError, OverflowError):
            if self.sign in ("=", "!="):
                return _COMPARE[self.sign](str(entry), self.value)
            return False


def condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a condition; write COLUMN<VALUE, with <, <=, >, >=, =, != or ~"
        )
    return Condition(*found.groups())


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


def check_columns(args: argparse.Namespace, known: Sequence[str], shown: Sequence[str]) -> None:
    """UsageError for a column of --filter or --sort that is not `known`, and for one of --columns that is not shown."""
    _check_lines(args, known)
    for name in _listed(args.columns):
        _check(name, shown)


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
    wanted = [name for name in _listed(args.columns) if name in header or name not in above]
    for name in wanted:
        _check(name, header)
    return [*range(keys), *(place for name in wanted if (place := list(header).index(name)) >= keys)]


def _check_lines(args: argparse.Namespace, known: Sequence[str]) -> None:
    for name in [wanted.column for wanted in args.filter] + ([args.sort.removeprefix("-")] if args.sort else []):
        _check(name, known)


def _listed(columns: str | None) -> list[str]:
    return [name for part in (columns or "").split(",") if (name := part.strip())]


def _check(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(unknown("column", name, known))


def _defined(value: Any) -> bool:
    return value is not None and value == value


def _order(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
