"""Files that figures are drawn from, besides masks: reports of `topo analyze --json`, tables, runs, frontiers.

A row of a run folder holds what summary.json says, the settings of config.toml (`topo.plots.settings`), the final
accuracy, the density and the method. A run that is not finished has no summary.json: its row is marked `unfinished`.
"""

from __future__ import annotations

import csv
import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topo._support.doors import kind_of
from topo._support.names import nearest
from topo._support.text_files import read_text, tables_of
from topo.errors import TopoError
from topo.plots.settings import SETTINGS
from topo.report import SCHEMA, Report, reports_from_json

TABLES = (".csv", ".jsonl")
_FRONTIER = "topo-frontier/1"
# What JSON files are, by their schema, and what is drawn of them.
_KINDS = {
    SCHEMA: "a report of topo analyze --json",
    _FRONTIER: "a frontier, which topo plot frontier draws",
    "topo-compare/1": "a comparison of topo compare --json; the masks themselves can be drawn",
    "topo-run/1": "the summary of a run; a run is given as its folder",
    "topo-run/2": "the summary of a run; a run is given as its folder",
    "topo-wiring/1": "a wiring, which --model takes",
    "topo-wiring/2": "a wiring, which --model takes",
    "topo-check/1": "answers of topo check --json; the masks themselves can be drawn",
    "topo-shrink/1": "a map of topo shrink; the masks themselves can be drawn",
}
_NOT_REWOUND = "none"
# Given in Python only, or by options of the command of their own.
_NOT_OPTIONS = frozenset({"ax", "fig", "wiring", "rng", "steps", "style"})
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def options_of(draw: Callable) -> dict[str, inspect.Parameter]:
    """Options of a figure that can be written as text, by name; what is drawn comes first, under any name."""
    _, *parameters = inspect.signature(draw).parameters.items()
    return {name: p for name, p in parameters if name not in _NOT_OPTIONS}


def read_options(name: str, draw: Callable, given: Mapping[str, str]) -> dict[str, Any]:
    """Options as values of their type; TopoError for one that the figure does not take, or that cannot be read."""
    known = options_of(draw)
    for key in given:
        if key not in known:
            takes = ", ".join(str(p).partition(":")[0] for p in known.values()) or "none"
            near = nearest(key, known)
            meant = f"; did you mean '{near[0]}'?" if near else ";"
            raise TopoError(f"plot '{name}' has no option '{key}'{meant} it takes: {takes}")
    missing = [key for key, p in known.items() if p.default is p.empty and key not in given]
    if missing:
        raise TopoError(f"plot '{name}' needs the option '{missing[0]}': -O {missing[0]}=...")
    return {key: _value(name, key, known[key].annotation, text) for key, text in given.items()}


def _value(name: str, key: str, annotation: Any, text: str) -> Any:
    kind = kind_of(annotation)
    try:
        if kind == "bool":
            return _WORDS[text.lower()]
        return int(text) if kind == "int" else _finite(text) if kind == "float" else text
    except (KeyError, ValueError):
        raise TopoError(f"option '{key}' of plot '{name}' is '{text}'; it is of type {kind}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def reports_in(path: str | Path) -> list[Report]:
    """The reports of a file that `topo analyze --json` wrote; TopoError that says what it is, if it is another."""
    held = document(path)
    if held.get("schema") != SCHEMA:
        raise TopoError(f"'{path}' is not a report of topo analyze --json, but {kind_of_document(held)}")
    try:
        return reports_from_json(held)
    except TopoError as error:
        raise TopoError(f"'{path}' {str(error).removeprefix('it ')}") from None


def kind_of_document(held: Mapping[str, Any]) -> str:
    """What a JSON document is, by its schema."""
    schema = held.get("schema")
    return _KINDS.get(str(schema), "JSON without a schema" if schema is None else f"JSON of the schema '{schema}'")


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a training run, begun or finished."""
    begun = all((Path(path) / name).is_file() for name in ("config.toml", "environment.json"))
    return begun or (Path(path) / "metrics.jsonl").is_file()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a .csv or .jsonl table, or one row for a run folder; TopoError if it is neither."""
    if is_run(path):
        return [_run(Path(path))]
    ending = Path(path).suffix.lower()
    if ending not in TABLES:
        raise TopoError(f"'{path}' is not a table; a table ends in {', '.join(TABLES)}, or is the folder of a run")
    text = _text(path)
    if ending == ".csv":
        rows: list[dict[str, Any]] = [dict(row) for row in csv.DictReader(text.splitlines())]
    else:
        rows = [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise TopoError(f"the table '{path}' holds no row")
    return rows


def _line(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise TopoError(f"line {number} of '{path}' is not a JSON object")
    return row


def _run(folder: Path) -> dict[str, Any]:
    row = _config(folder)
    found = folder / "summary.json"
    summary = document(found) if found.is_file() else {}
    row |= {key: value for key, value in summary.items() if not isinstance(value, dict | list)}
    masks = folder / "masks.safetensors"
    row["method"], row["density"] = "dense", 1.0
    if masks.is_file():
        from topo.files import read_masks

        held = read_masks(masks)
        row["density"] = held.density
        made = "imp" if row["rewind"] != _NOT_REWOUND else held.provenance.get("method", "masked")
        row["method"] = "dense" if held.density == 1 else made
    row["accuracy"] = summary.get("final_test_accuracy")
    if not summary:
        row["unfinished"] = True
    return row


def _config(folder: Path) -> dict[str, Any]:
    """The settings of a run. Level 0 of iterative magnitude pruning is trained as any run is: nothing was rewound."""
    path = folder / "config.toml"
    tables = tables_of(_text(path), f"'{path}'") if path.is_file() else {}
    given = {name: table for name, table in tables.items() if isinstance(table, dict)}
    pruned = given.get("imp", {})
    rewound = pruned if pruned.get("level") else {}
    recipe = given.get("recipe", {})
    entries = {"seed": None, **recipe, **given.get("run", {}), "rewind": _NOT_REWOUND, **rewound}
    row = {key: entries[key] for key in ("seed", *SETTINGS) if key in entries}
    return {**row, "recipe": recipe.get("name")}


def read_frontier(path: str | Path) -> Any:
    """The Frontier of a JSON file; TopoError that says what it is, if it is another."""
    from topo.optimize import Frontier

    held = document(path)
    if held.get("schema") != _FRONTIER:
        raise TopoError(f"'{path}' is not a frontier of topo generate --frontier, but {kind_of_document(held)}")
    return Frontier.from_json(_text(path))


def _text(path: str | Path) -> str:
    return read_text(path, "numbers to plot")


def document(path: str | Path) -> dict[str, Any]:
    """The object of a JSON file; TopoError for other files."""
    try:
        held = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise TopoError(f"'{path}' is not JSON") from None
    if not isinstance(held, dict):
        raise TopoError(f"'{path}' holds a {type(held).__name__} of JSON; it should hold an object")
    return held
