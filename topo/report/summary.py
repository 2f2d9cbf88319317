"""Means over masks that differ in a seed alone: mean, standard deviation, how many, and Student's interval."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from topo._support.atomic import write_text
from topo._support.names import unknown
from topo.errors import TopoError
from topo.report.numerals import shown
from topo.report.text import latex_cell

if TYPE_CHECKING:
    import pandas

Number = int | float
_NUMBERS = ("masks", "n", "mean", "sd", "t95")
_BEST = ("bold", "underline")


class Summary(Sequence[dict[str, Any]]):
    """A row for each group and metric: the columns of the group, "metric", "masks", "n", "mean", "sd", "t95".

    masks: in the group. n: those of them where the number is defined and finite; the others are left out of the mean.
    sd: sqrt(sum((x - mean)^2) / (n - 1)). t95: half the width of the 95 % interval of the mean, t(0.975, n - 1) sd /
    sqrt(n) (Student 1908); both are NaN for n = 1.

    `summary[0]` is a row, `summary["mean"]` a column.
    """

    def __init__(self, by: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        self.by = tuple(by)
        self._rows = tuple(dict(row) for row in rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*self.by, "metric", *_NUMBERS)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Summary: ...
    @overload
    def __getitem__(self, place: str) -> list[Any]: ...
    def __getitem__(self, place: int | slice | str) -> dict[str, Any] | Summary | list[Any]:
        if isinstance(place, str):
            if place not in self.columns:
                raise TopoError(unknown("column", place, self.columns))
            return [row[place] for row in self._rows]
        return Summary(self.by, self._rows[place]) if isinstance(place, slice) else dict(self._rows[place])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(row) for row in self._rows)

    def __repr__(self) -> str:
        groups = len({tuple(row[name] for name in self.by) for row in self._rows})
        metrics = list(dict.fromkeys(row["metric"] for row in self._rows))
        return f"Summary({groups} groups by {', '.join(self.by)}; {len(metrics)} metrics: {', '.join(metrics[:6])})"

    def _repr_html_(self) -> str:
        from topo.report.text import html

        header, body = self._table(list(dict.fromkeys(row["metric"] for row in self._rows)))
        return html([repr(self)], [(header, body)], (), ())

    def to_frame(self) -> pandas.DataFrame:
        """A pandas table; TopoError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise TopoError("to_frame() needs pandas: pip install 'topo-masks[pandas]'") from None
        return pandas.DataFrame(list(self._rows), columns=list(self.columns))

    def to_csv(self, path: str | Path | None = None) -> str:
        """CSV text; an undefined number is an empty field. Written to a file too if a path is given."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self._rows:
            cells = [row[name] for name in self.columns]
            writer.writerow(["" if cell is None or cell != cell else cell for cell in cells])
        if path is not None:
            write_text(path, lines.getvalue())
        return lines.getvalue()

    def to_latex(
        self, metrics: Sequence[str] | None = None, *, best: str | None = None, lower: Sequence[str] = ()
    ) -> str:
        """A booktabs table: a row a group, a column a metric, mean and t95 in each cell.

        metrics: these columns. best: "bold" or "underline" marks the best mean of each metric among the groups that are
        equal in all columns but the first (the methods at one density); equal means are all marked. The greatest is the
        best, of metrics in `lower` the least.

        Raises TopoError for a metric that is not there.
        """
        held = list(dict.fromkeys(row["metric"] for row in self._rows))
        for name in [*(metrics or ()), *lower]:
            if name not in held:
                raise TopoError(unknown("metric", name, held))
        if best is not None and best not in _BEST:
            raise TopoError(f"best is '{best}'; it is one of {', '.join(_BEST)}")
        names = list(metrics or held)
        header, body = self._table(names)
        marked = self._best(names, lower) if best else set()
        command = "textbf" if best == "bold" else "underline"
        lines = ["% needs \\usepackage{booktabs}"]
        lines += [f"\\begin{{tabular}}{{{'l' * len(self.by)}{'r' * len(names)}}}", "\\toprule"]
        lines += [" & ".join(map(latex_cell, header)) + " \\\\", "\\midrule"]
        for place, cells in enumerate(body):
            made = [_latex_interval(cell) if c >= len(self.by) else latex_cell(cell) for c, cell in enumerate(cells)]
            for column, name in enumerate(names, len(self.by)):
                if (place, name) in marked:
                    made[column] = f"\\{command}{{{made[column]}}}"
            lines.append(" & ".join(made) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

    def _groups(self) -> dict[tuple[Any, ...], dict[str, Mapping[str, Any]]]:
        """Key -> metric -> row."""
        found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
        for row in self._rows:
            found.setdefault(tuple(row[name] for name in self.by), {})[row["metric"]] = row
        return found

    def _table(self, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        body = [
            [_key(value) for value in key] + [_interval(held[name]) if name in held else "" for name in metrics]
            for key, held in self._groups().items()
        ]
        return [*self.by, *metrics], body

    def _best(self, metrics: Sequence[str], lower: Sequence[str]) -> set[tuple[int, str]]:
        """(row of the table, metric) of the best means."""
        rivals: dict[tuple[Any, ...], list[tuple[int, Mapping[str, Mapping[str, Any]]]]] = {}
        for place, (key, held) in enumerate(self._groups().items()):
            rivals.setdefault(key[1:], []).append((place, held))
        found = set()
        for group in rivals.values():
            for name in metrics:
                means = {place: held[name]["mean"] for place, held in group if name in held}
                means = {place: mean for place, mean in means.items() if mean == mean}
                if len(means) > 1:
                    top = min(means.values()) if name in lower else max(means.values())
                    found |= {(place, name) for place, mean in means.items() if mean == top}
        return found


def summarised(
    by: Sequence[str],
    keys: Sequence[tuple[Any, ...]],
    metrics: Sequence[str],
    numbers: Sequence[Mapping[str, Number]],
) -> Summary:
    """The summary of numbers (metric -> number, of each mask), grouped by `keys`; groups in sorted order."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Number]]] = {}
    for key, held in zip(keys, numbers):
        groups.setdefault(key, []).append(held)
    rows = []
    for key in sorted(groups, key=lambda key: [_order(value) for value in key]):
        for metric in metrics:
            values = [value for held in groups[key] if metric in held if (value := _float(held[metric])) is not None]
            about = {**dict(zip(by, key)), "metric": metric, "masks": len(groups[key])}
            rows.append({**about, **_moments(values)})
    return Summary(by, rows)


def _float(value: Number) -> float | None:
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _moments(values: Sequence[float]) -> dict[str, Number]:
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return {"n": n, "mean": mean, "sd": sd, "t95": t95(sd, n)}


def t95(sd: float, n: int) -> float:
    """Half the width of Student's 95 % interval of a mean of n numbers with this standard deviation; NaN for n < 2."""
    if n < 2:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)


def _order(value: Any) -> tuple[int, Any]:
    """Numbers before texts, what is not known last."""
    if value is None:
        return 2, ""
    return (0, value) if isinstance(value, int | float) else (1, str(value))


def _key(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _interval(row: Mapping[str, Any]) -> str:
    mean = shown(row["mean"])
    return f"{mean} ± {shown(row['t95'])}" if row["t95"] == row["t95"] else mean


def _latex_interval(cell: str) -> str:
    mean, sign, half = cell.partition(" ± ")
    return f"{latex_cell(mean)} $\\pm$ {latex_cell(half)}" if sign else latex_cell(mean)
