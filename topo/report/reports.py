"""Reports: those of many masks, as one sequence: tables, choices among them, summaries over seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from topo._support.atomic import write_text
from topo._support.names import unknown
from topo._support.text_files import read_text
from topo.errors import TopoError
from topo.report.report import (
    Report,
    frame,
    reports_from_json,
    reports_to_csv,
    reports_to_html,
    reports_to_json,
    wide_row,
)
from topo.report.summary import Summary, summarised
from topo.report.tidy import reports_from_table

if TYPE_CHECKING:
    import pandas


class Reports(Sequence[Report]):
    """Reports of several masks, in their order; immutable.

    errors: file -> why there is no report of it, for files that could not be analysed.

    >>> made = {name: topo.analyze({"fc": np.eye(n + 1, 4)}, mask_name=name) for n, name in enumerate("ab")}
    >>> reports = Reports(made.values())
    >>> [report.network["density"] for report in reports.filter(mask="b")]
    [0.25]
    """

    def __init__(self, reports: Iterable[Report], errors: Mapping[str, str] | None = None) -> None:
        self._reports = tuple(reports)
        self._errors = MappingProxyType(dict(errors or {}))

    @property
    def errors(self) -> Mapping[str, str]:
        """File -> the line that says why it has no report."""
        return self._errors

    def __len__(self) -> int:
        return len(self._reports)

    @overload
    def __getitem__(self, place: int) -> Report: ...
    @overload
    def __getitem__(self, place: slice) -> Reports: ...
    def __getitem__(self, place: int | slice) -> Report | Reports:
        return Reports(self._reports[place], self._errors) if isinstance(place, slice) else self._reports[place]

    def __iter__(self) -> Iterator[Report]:
        return iter(self._reports)

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} files failed (.errors)" if self.errors else ""
        names = "\n".join(f"  {report.headings[0]}" for report in self._reports[:8])
        more = f"\n  and {len(self) - 8} more" if len(self) > 8 else ""
        return f"Reports({len(self)} masks{failed})" + (f"\n{names}{more}" if names else "")

    def _repr_html_(self) -> str:
        from topo.report.text import html

        table = self.rows()[:200]
        header = list(dict.fromkeys(key for row in table for key in row))
        body = [[_short(row.get(key)) for key in header] for row in table]
        failed = [f"{name}: {error}" for name, error in self.errors.items()]
        more = [f"{len(self) - 200} more masks are not shown"] if len(self) > 200 else []
        return html([f"{len(self)} masks"], [(header, body)], [*failed, *more], ())

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each mask: mask, format, model, view, where it comes from, its name's fields, its numbers."""
        return [wide_row(report) for report in self]

    def filter(self, **wanted: Any) -> Reports:
        """The reports whose columns have these values; `errors` stay.

        A value is compared as it is (1 and 1.0 are equal); a list, tuple or set means any of its values, and a function
        says of a value whether it is wanted. Columns are those of `to_frame(wide=True)`.

        Raises TopoError for a column that no report has.
        """
        rows = self.rows()
        _check_columns(wanted, rows)

        def fits(row: Mapping[str, Any]) -> bool:
            return all(_is(row.get(name), value) for name, value in wanted.items())

        return Reports([report for report, row in zip(self, rows) if fits(row)], self.errors)

    def to_frame(self, *, wide: bool = False, level: str | None = None) -> pandas.DataFrame:
        """A pandas table.

        By default it is tidy: a row a number, with the columns mask, metric, layer, view, value (float64), unit, note,
        exact (counts of paths as decimal text; one beyond float64 is NaN in `value`, and the note says so) and where
        the masks come from. wide: a row a mask; a field of the files' names keeps its name, and a metric that is called
        like it is "measured_" and its name. level: "network" is wide, "layer" gives a row a layer of every mask.

        Raises TopoError where pandas is not installed.
        """
        return frame(self, wide=wide, level=level)

    def summary(self, by: str | Sequence[str] = ("method", "density"), metrics: Sequence[str] | None = None) -> Summary:
        """Means over the masks that are equal in the columns `by`, as over seeds: see `Summary`.

        metrics: those of the network that are summarised, by default all that are plain numbers.

        Raises TopoError for a column or metric that no report has.
        """
        rows = self.rows()
        names = [by] if isinstance(by, str) else list(by)
        _check_columns(names, rows)
        held = list(dict.fromkeys(metric for report in self for metric in report.network))
        for name in metrics or ():
            if name not in held:
                raise TopoError(unknown("metric", name, held))
        if metrics is None:
            metrics = [m for m in held if not any(isinstance(row.get(m), str) for row in rows)]
        keys = [tuple(row.get(name) for name in names) for row in rows]
        return summarised(names, keys, list(metrics), [report.network for report in self])

    def to_json(self, path: str | Path | None = None) -> str:
        """The JSON text of `topo analyze --json`; written to a file too if a path is given."""
        return _written(reports_to_json(self), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The tidy CSV text of `topo analyze --csv`; written to a file too if a path is given."""
        return _written(reports_to_csv(self), path)

    def to_html(self, path: str | Path | None = None, *, command: str | None = None) -> str:
        """One HTML page: offline, without a request, every number readable without its script and in print.

        It carries the JSON of `to_json`. command: what made the reports, for the head. Written to a file too if a path
        is given. The same reports give the same bytes. Raises TopoError where there is no report.
        """
        return reports_to_html(self, path, command=command)


def read_reports(path: str | Path) -> Reports:
    """The reports of a file, path, that `topo analyze --json` or `--csv` wrote, or `Reports.to_json` and `to_csv`.

    A table (.csv) knows no model, no null models, and of a layer how many weights it has, not its shape.

    >>> report = topo.analyze({"fc": np.eye(2)}, mask_name="a")
    >>> text = Reports([report]).to_json("all.json")
    >>> topo.read_reports("all.json")[0].network["density"]
    0.5

    Raises TopoError that says what the file is, if it is another.
    """
    text = read_text(path, "a report")
    try:
        if Path(path).suffix.lower() == ".csv":
            return Reports(reports_from_table(list(csv.DictReader(text.splitlines()))))
        return Reports(reports_from_json(text))
    except TopoError as error:
        raise error if str(path) in str(error) else TopoError(f"'{path}' {str(error).removeprefix('it ')}") from None


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_text(path, text)
    return text


def _check_columns(names: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
    known = list(dict.fromkeys(key for row in rows for key in row))
    for name in names:
        if rows and name not in known:
            raise TopoError(unknown("column", name, known))


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Callable):  # type: ignore[arg-type]
        return bool(wanted(value))
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(_is(value, one) for one in wanted)
    return bool(value == wanted)


def _short(value: Any) -> str:
    from topo.report.numerals import shown

    if value is None or isinstance(value, str):
        return "" if value is None else value if len(value) <= 40 else f"{value[:37]}..."
    return shown(value)
