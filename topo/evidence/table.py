"""Tables of results as columns: from files, from pandas, from rows or columns; what is a number, and what is not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.text_files import LARGEST, read_text
from topo.errors import TopoError

LAYER = "density:"  # columns of layer densities begin so
_EMPTY = ("", "None", "none", "null", "nan", "NaN", "NA", "<NA>", "NaT")
# Rows that name columns of their own make a table of their product: so many cells, or so many times the entries.
_CELLS, _EMPTY_CELLS = 1_000_000, 50
_TRUTH = {"True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0}


@dataclass(frozen=True, eq=False)
class Table:
    """n rows as columns of text, by name; an entry that is empty, None or NaN is ""."""

    columns: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def numbers(self, name: str) -> np.ndarray | None:
        """A column as float64, NaN where it is empty; None if an entry is not a number, or all are empty."""
        found = np.full(len(self), math.nan)
        for row, entry in enumerate(self.columns[name]):
            if entry:
                try:
                    found[row] = _TRUTH[entry] if entry in _TRUTH else float(entry)
                except ValueError:
                    return None
        return None if np.isnan(found).all() else found

    def only(self, rows: np.ndarray) -> Table:
        """These rows."""
        return Table({name: tuple(column[row] for row in rows) for name, column in self.columns.items()})


def table_of(data: Any) -> Table:
    """A Table of a pandas table, of rows (mappings) or of columns by name; TopoError for others, and for none."""
    if isinstance(data, Table):
        return data
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        rows: list[Any] = data.to_dict("records")
    elif isinstance(data, Mapping):
        lengths = {name: len(column) if _listed(column) else -1 for name, column in data.items()}
        if len(set(lengths.values())) != 1 or -1 in lengths.values():
            said = ", ".join(f"{name}: {'no column' if n < 0 else n}" for name, n in lengths.items())
            raise TopoError(f"a table is columns of one length by name; these have {said or 'no column'}")
        rows = [dict(zip(data, entries)) for entries in zip(*data.values())]
    elif _listed(data):
        rows = list(data)
    else:
        raise TopoError(f"a table is rows, columns by name or a pandas table, not {type(data).__name__}")
    for row in rows:
        if not isinstance(row, Mapping):
            raise TopoError(f"a table holds rows, which are mappings, not {type(row).__name__}")
    return _of_rows(rows, "the table")


def read_table(path: str | Path) -> Table:
    """The table of a .csv, .csv.gz, .jsonl or .parquet file, or `results.csv` of a folder.

    TopoError that names what is wrong.
    """
    place = Path(path)
    if place.is_dir():
        if not (place / "results.csv").is_file():
            raise TopoError(f"'{path}' is a folder without results.csv, the table that topo sweep writes")
        return _with_layers(read_table(place / "results.csv"), place / "layers.csv")
    name = place.name.lower()
    if name.endswith(".parquet"):
        return _of_rows(_parquet(place), f"'{path}'")
    if not name.endswith((".csv", ".csv.gz", ".jsonl")):
        raise TopoError(
            f"'{path}' is not a table; tables end in .csv, .csv.gz, .jsonl or .parquet, or are folders of sweeps"
        )
    text = _unpacked(place) if name.endswith(".gz") else read_text(place, "a table of results")
    text = text.removeprefix("\ufeff")  # which spreadsheets put first
    if name.endswith(".jsonl"):
        return _of_rows([_json(path, number, line) for number, line in _lines(text)], f"'{path}'")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        if not header:
            raise TopoError(f"'{path}' is empty; a table begins with the names of its columns")
        if len(header) == 1 and (other := next((sign for sign in ";\t|" if sign in header[0]), None)):
            raise TopoError(f"'{path}' divides its entries by {other!r}; a table divides them by commas")
        if len(set(header)) < len(header):
            twice = next(column for column, times in Counter(header).items() if times > 1)
            raise TopoError(f"'{path}' has two columns '{twice}'")
        rows = []
        for line in reader:
            if line and len(line) != len(header):
                what = f"line {reader.line_num} of '{path}' has {len(line)} entries"
                raise TopoError(f"{what}; its header names {len(header)} columns")
            if line:
                rows.append(dict(zip(header, line)))
    except csv.Error as error:
        raise TopoError(f"'{path}' is not CSV: {error}") from None
    return _of_rows(rows, f"'{path}'")


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise TopoError(f"'{path}' needs pyarrow: pip install 'topo-masks[parquet]', or give results.csv") from None
    try:
        found: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise TopoError(f"'{path}' is not a Parquet table: {' '.join(str(error).split())[:200]}") from None
    return found


def _with_layers(table: Table, path: Path) -> Table:
    """The table of a sweep with a column `density:LAYER` for each layer of its layers.csv."""
    if not path.is_file() or "id" not in table.columns:
        return table
    layers, place = read_table(path), {name: row for row, name in enumerate(table.columns["id"])}
    found: dict[str, list[str]] = {}
    for cell, layer, density in zip(*(layers.columns[name] for name in ("id", "layer", "density"))):
        if cell in place:
            found.setdefault(f"{LAYER}{layer}", [""] * len(table))[place[cell]] = density
    return Table({**table.columns, **{name: tuple(column) for name, column in found.items()}})


def _of_rows(rows: Sequence[Mapping[Any, Any]], what: str) -> Table:
    names = dict.fromkeys(str(name) for row in rows for name in row)
    if not rows or not names:
        raise TopoError(f"{what} holds no row")
    if len(rows) * len(names) > max(_CELLS, _EMPTY_CELLS * sum(map(len, rows))):
        raise TopoError(f"{what} names {len(names):,} columns in {len(rows):,} rows, nearly all of them empty")
    held = [{str(name): value for name, value in row.items()} for row in rows]
    return Table({name: tuple(_entry(row.get(name)) for row in held) for name in names})


def _entry(value: Any) -> str:
    """An entry as text; float64 keep all their digits."""
    text = repr(float(value)) if isinstance(value, float | np.floating) else str(value).strip()
    return "" if text in _EMPTY else text


def _listed(data: Any) -> bool:
    return isinstance(data, Iterable) and hasattr(data, "__len__") and not isinstance(data, str | bytes | Mapping)


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _json(path: str | Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise TopoError(f"line {number} of '{path}' is not a JSON object")
    return row


def _unpacked(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise TopoError(f"'{path}' unpacks to more than the {LARGEST:,} bytes that are read as a table")
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TopoError(f"cannot read '{path}' as a packed table: {error}") from None
