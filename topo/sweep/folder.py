"""The folder RESULTS: what is done, what failed, and the tables that are written from it.

sweep.json     the sweep as understood, with the code's version
plan.csv       id, state (done, failed, open), error, and the settings of every cell
cells/ID.json  the row of a cell, and its layers; written last, so that a cell is done when it is there
masks/ID.safetensors  reports/ID.json  runs/ID/
results.csv    a row a cell that is done; layers.csv; summary.csv over seeds; failures.csv
results.parquet  the same rows, where pyarrow is installed
report.html    the cells that are done, as a page: settings, outcomes and the first numbers of each network
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from topo._support.atomic import made_folder, replacing, write_text
from topo._version import __version__
from topo.errors import TopoError
from topo.report import Report, Reports
from topo.sweep.cell import Outcome
from topo.sweep.plan import Cell, Plan

_ON_THE_PAGE = (
    "kept", "effective_params", "effective_density", "effective_nodes", "effective_units", "log10_effective_paths",
    "path_entropy_width", "balance_gap", "mean_log_density", "sigma2", "ramanujan_gap", "imdb", "macs_effective",
)  # fmt: skip
_OUTCOMES = ("accuracy", "val_accuracy", "loss", "train_accuracy", "train_loss")
_OF_SEEDS = ("id", "seed", "train_seed", "file", "seconds")


class Folder:
    """RESULTS of a plan. TopoError for a folder that holds anything, unless it is this sweep's and is resumed."""

    def __init__(self, path: str | Path, plan: Plan, resume: bool) -> None:
        self.path, self.plan = made_folder(path, "the folder of results"), plan
        if any(self.path.iterdir()):
            if not resume:
                raise TopoError(f"'{path}' holds files already; --resume goes on with a sweep, or name another folder")
            self._check()
        try:
            for name in ("cells", "masks", "reports"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TopoError(f"cannot make the folder '{path}': {error.strerror}") from None
        write_text(self.path / "sweep.json", json.dumps(plan.document, indent=1) + "\n")
        self.failed = {cell.id: text for cell in plan.cells if (text := self._failure(cell)) is not None}

    def _check(self) -> None:
        place = self.path / "sweep.json"
        try:
            held = json.loads(place.read_text("utf-8"))
            before, code = {line["id"] for line in _rows(self.path / "plan.csv")}, held["code"]
        except (OSError, ValueError, KeyError, TypeError):
            raise TopoError(f"'{self.path}' is not the folder of a sweep; nothing in it is overwritten") from None
        if code != __version__:
            raise TopoError(
                f"'{self.path}' was made by topo {code}, and this is {__version__}: its cells would not be the same; "
                "name another folder"
            )
        if before and not before & {cell.id for cell in self.plan.cells}:
            raise TopoError(f"'{self.path}' is the folder of another sweep: it shares no cell with this one")

    def done(self, cell: Cell) -> bool:
        """Whether the cell's files are there and whole."""
        return self._held(cell) is not None

    def _held(self, cell: Cell) -> dict[str, Any] | None:
        """What came of a cell; None unless all its files are there."""
        try:
            found = json.loads((self.path / "cells" / f"{cell.id}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("id") != cell.id:
            return None
        return found if all((self.path / name).is_file() for name in found.get("files", ())) else None

    def _failure(self, cell: Cell) -> str | None:
        try:
            return (self.path / "cells" / f"{cell.id}.failed").read_text("utf-8")
        except OSError:
            return None

    def keep(self, cell: Cell, outcome: Outcome) -> None:
        """Write what came of a cell; the file that says that it is done comes last."""
        mark = self.path / "cells" / f"{cell.id}.failed"
        if outcome.error is not None:
            self.failed[cell.id] = outcome.error
            write_text(mark, outcome.error)
            return
        for name, data in outcome.files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path / name) as temporary:
                temporary.write_bytes(data)
        held = {"id": cell.id, "files": list(outcome.files), "row": _plain(outcome.row),
                "layers": [_plain(layer) for layer in outcome.layers]}  # fmt: skip
        write_text(self.path / "cells" / f"{cell.id}.json", json.dumps(held) + "\n")
        self.failed.pop(cell.id, None)
        mark.unlink(missing_ok=True)

    def tables(self) -> list[dict[str, Any]]:
        """Write the tables; return the rows of results.csv."""
        rows, layers, states = [], [], []
        for cell in self.plan.cells:
            held = self._held(cell)
            state = "done" if held is not None else "failed" if cell.id in self.failed else "open"
            error = self.failed.get(cell.id, "") if state == "failed" else ""
            states.append({"id": cell.id, "state": state, "error": error, **cell.settings})
            if held is not None:
                rows.append({"id": cell.id, **cell.settings, **held["row"]})
                layers += [{"id": cell.id, **layer, "shape": "x".join(map(str, layer["shape"]))}
                           for layer in held["layers"]]  # fmt: skip
        self._write("plan.csv", states, ["id", "state", "error"])
        self._write("failures.csv", [line for line in states if line["state"] == "failed"], ["id", "state", "error"])
        order = list(dict.fromkeys(key for row in rows for key in row if key != "seconds"))
        self._write("results.csv", rows, [*order, "seconds"] if rows else ["id"])
        self._parquet(rows)
        self._write("layers.csv", layers, ["id", "layer"])
        self._write("summary.csv", _summary(rows, self.plan.columns), ["n"])
        return rows

    def _parquet(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """results.parquet where pyarrow is installed: columns of whole numbers, numbers or text."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            return
        names = dict.fromkeys(key for row in rows for key in row)
        table = pyarrow.table({name: _column([row.get(name) for row in rows]) for name in names})
        with replacing(self.path / "results.parquet") as temporary:
            parquet.write_table(table, temporary)

    def page(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write report.html of these rows of results.csv: settings, outcomes and the first numbers of each mask."""
        if not rows:
            return
        reports = []
        for row in rows:
            report = Report.from_json((self.path / "reports" / f"{row['id']}.json").read_bytes())
            lines = [line for line in report.rows if line.layer is None and line.metric in _ON_THE_PAGE]
            fields = {key: row[key] for key in (*self.plan.columns, *_OUTCOMES) if row.get(key) not in ("", None)}
            alone = replace(report, rows=lines, shapes={}, notes=(), nulls=(), coverage=None, provenance={})
            reports.append(alone.with_fields(fields))
        write_text(self.path / "report.html", Reports(reports).to_html(command="topo sweep"))

    def _write(self, name: str, rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> None:
        names = list(dict.fromkeys([*first, *(key for row in rows for key in row)]))
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if row.get(key) is None else row.get(key) for key in names] for row in rows])
        write_text(self.path / name, text.getvalue())


def _summary(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[dict[str, Any]]:
    """Over seeds: n, and of each number its mean, of accuracies and losses also sd and the half-width of a 95 % t."""
    keys = [key for key in settings if key not in _OF_SEEDS]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    found = []
    for group, held in groups.items():
        line: dict[str, Any] = dict(zip(keys, group)) | {"n": len(held)}
        for key in dict.fromkeys(key for row in held for key in row):
            if key in (*settings, *_OF_SEEDS):
                continue
            numbers = [value for row in held if (value := _number(row.get(key))) is not None]
            line[f"{key}_mean"] = float(np.mean(numbers)) if numbers else None
            if key in _OUTCOMES:
                many = len(numbers) > 1
                spread = float(np.std(numbers, ddof=1)) if many else None
                line[f"{key}_sd"] = spread
                line[f"{key}_t95"] = (float(stats.t.ppf(0.975, len(numbers) - 1)) * float(spread or 0)
                                      / math.sqrt(len(numbers))) if many else None  # fmt: skip
        found.append(line)
    return found


def _column(values: Sequence[Any]) -> list[Any]:
    """Entries of one type, None where there is none; exact integers that are text keep a column text."""
    held = [None if value in ("", None) else value for value in values]
    there = [value for value in held if value is not None]
    if all(isinstance(value, int) for value in there):
        return held
    if all(isinstance(value, int | float) or value in ("inf", "-inf") for value in there):
        return [None if value is None else float(value) for value in held]
    return [None if value is None else str(value) for value in held]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON holds them: exact integers beyond 2**53 as text, minus infinity as text, undefined as None."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, bool | np.bool_):
            value = int(value)
        elif isinstance(value, int | np.integer):
            value = int(value) if abs(int(value)) < 2**53 else _decimal(int(value))
        elif isinstance(value, float | np.floating):
            number = float(value)
            value = None if math.isnan(number) else number if math.isfinite(number) else str(number)
        elif isinstance(value, tuple):
            value = list(value)
        found[key] = value
    return found


def _decimal(value: int) -> str:
    from topo.report.numerals import decimal

    return decimal(value)


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
