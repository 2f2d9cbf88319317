"""Reports read back from tables: the tidy one of `topo analyze --csv`, and those with a row a layer.

A table knows less than JSON: no model, no null models, and of a layer how many weights it has, not its shape (unless a
column says it).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from topo.errors import TopoError
from topo.report.numerals import whole
from topo.report.report import COLUMNS, ORIGIN, Report, Row

_EMPTY = ("", "None", "nan", "NaN", "<NA>")
_ASKED = {"density_asked": "density"}
_COVERAGE = ("read", "left_out", "names")
# Columns of tables with a row a layer that do not count it.
_KEYS = ("id", "mask", "layer", "shape")
_OF_TIDY = frozenset(("mask", "metric", "layer", "value"))


def holds_reports(columns: Sequence[str]) -> bool:
    """Whether a table of these columns is one that reports can be read from."""
    known = set(columns)
    return known >= _OF_TIDY or ("layer" in known and bool(known & {"mask", "id"}))


def reports_from_table(rows: Sequence[Mapping[str, Any]]) -> list[Report]:
    """The reports of a table's rows, in their order; see `holds_reports`. TopoError for a table without them.

    >>> report = topo.analyze({"fc.weight": np.eye(2)}, mask_name="a")
    >>> import csv
    >>> table = csv.DictReader(report.to_csv().splitlines())
    >>> reports_from_table(list(table))[0].layers[0]["density"]
    0.5
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not holds_reports(columns):
        raise TopoError("the table has neither the columns mask, metric, layer, value nor a row a layer of each mask")
    tidy = set(columns) >= _OF_TIDY
    key = "mask" if "mask" in columns else "id"
    masks: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        masks.setdefault(str(row[key]), []).append(row)
    return [(_tidy if tidy else _layered)(name, found) for name, found in masks.items()]


def _tidy(mask: str, found: Sequence[Mapping[str, Any]]) -> Report:
    rows: list[Row] = []
    sizes: dict[str, dict[str, Any]] = {}
    for entry in found:
        if _told(entry.get("group")) and not _told(entry["layer"]):  # a number of a group of layers
            continue
        layer = str(entry["layer"]) if _told(entry["layer"]) else None
        value = _number(entry.get("exact") if _told(entry.get("exact")) else entry["value"])
        note = str(entry["note"]) if _told(entry.get("note")) else None
        rows.append(Row(mask, str(entry["metric"]), layer, str(entry.get("view") or ""), value,
                        str(entry.get("unit") or ""), note))  # fmt: skip
        if layer is not None:
            sizes.setdefault(layer, {})[str(entry["metric"])] = value
    views = Counter(row.view for row in rows if row.layer is None) or Counter(row.view for row in rows)
    shapes = {layer: (_size(numbers),) for layer, numbers in sizes.items()}
    known, coverage = _origin(found[0], (*COLUMNS, "exact", "group"))
    return Report(mask, None, None, views.most_common(1)[0][0], shapes, rows, coverage=coverage, provenance=known)


def _layered(mask: str, found: Sequence[Mapping[str, Any]]) -> Report:
    columns = dict.fromkeys(key for row in found for key in row)
    origin = {*ORIGIN, *_ASKED, *_COVERAGE, *_KEYS}
    if "measured_density" not in columns:  # otherwise `density` is a field of the file's name
        origin -= {"density"}
    metrics = [key for key in columns if key not in origin]
    numeric = [key for key in metrics if all(_readable(row.get(key)) for row in found)]
    rows, shapes = [], {}
    for entry in found:
        layer = str(entry["layer"])
        values = {key.removeprefix("measured_"): _number(entry.get(key)) for key in numeric}
        rows += [Row(mask, metric, layer, "", value) for metric, value in values.items()]
        shape = [int(n) for n in str(entry.get("shape") or "").split("x") if n.isdecimal()]
        shapes[layer] = tuple(shape) or (_size(values),)
    known, coverage = _origin(found[0], (*metrics, *_KEYS))
    return Report(mask, None, None, "", shapes, rows, coverage=coverage, provenance=known)


def _origin(row: Mapping[str, Any], besides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Provenance and coverage; columns that are neither, nor `besides`, are fields of the file's name."""
    told = {str(key): _plain(value) for key, value in row.items() if _told(value)}
    known: dict[str, Any] = {}
    for key in (*ORIGIN, *_ASKED):
        if key in told and (key not in besides or key in _ASKED):
            known[_ASKED.get(key, key)] = told[key]
    if isinstance(known.get("options"), str):
        try:
            known["options"] = json.loads(known["options"])
        except ValueError:
            pass
    coverage = {key: told[key] for key in _COVERAGE if key in told} or None
    fields = {key: value for key, value in told.items() if key not in (*ORIGIN, *_ASKED, *_COVERAGE, *besides)}
    return (known | {"fields": fields} if fields else known), coverage


def _size(numbers: Mapping[str, Any]) -> int:
    """Weights of a layer, from what it keeps and its density; 0 where it keeps none."""
    kept, density = (float(numbers.get(key, math.nan)) for key in ("kept", "density"))
    return round(kept / density) if density > 0 and math.isfinite(kept) else 0


def _told(value: Any) -> bool:
    return value is not None and str(value).strip() not in _EMPTY


def _readable(value: Any) -> bool:
    try:
        return not _told(value) or bool(str(float(value)))
    except (TypeError, ValueError):
        return False


def _number(value: Any) -> int | float:
    """A cell as a number: whole ones exact, NaN where it is empty."""
    if not _told(value):
        return math.nan
    text = str(value).strip()
    try:
        return whole(text) if text.lstrip("-").isdecimal() else float(text)
    except (TypeError, ValueError):
        raise TopoError(f"the table holds '{text[:40]}' where a number should be") from None


def _plain(value: Any) -> Any:
    text = str(value)
    if text.lstrip("-").isdecimal() and len(text) < 19 and str(int(text)) == text:
        return int(text)
    try:
        return float(text) if any(c in text for c in ".e") and math.isfinite(float(text)) else value
    except ValueError:
        return value
