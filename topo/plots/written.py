"""What topo writes, as figures take it: reports, rows of a table, masks, courses of training, evidence, frontiers.

Each file or folder has one kind (`kind_of`), and gives what a figure is made of wherever its kind holds that: reports
are rows of a table too, a run holds masks, a sweep holds everything. What does not fit is refused in one line that says
what the figure takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from topo.errors import TopoError
from topo.plots.given import number, told
from topo.plots.reading import TABLES, document, is_run, kind_of_document, read_rows, reports_in
from topo.report import Report, holds_reports, reports_from_table
from topo.report.report import wide_row

# Kinds of what is written, in words.
KINDS = {
    "masks": "a mask file",
    "reports": "a file of reports",
    "rows": "a table of masks or runs",
    "run": "the folder of a run",
    "rounds": "the folder of several rounds of pruning",
    "sweep": "the folder of a sweep",
    "course": "the epochs of a run",
    "evaluation": "JSON of topo evaluate",
    "frontier": "a frontier, which topo plot frontier draws",
}
# What a figure is made of -> the kinds that hold it.
HOLDERS = {
    "masks": ("masks", "run", "rounds", "sweep"),
    "graphs": ("masks", "run", "rounds", "sweep"),
    "reports": ("masks", "reports", "run", "rounds", "sweep"),
    "rows": ("rows", "reports", "run", "rounds", "sweep"),
    "courses": ("run", "rounds", "sweep", "course"),
    "evaluation": ("evaluation",),
    "frontiers": ("frontier",),
}
# How each kind is called in the line that says what a figure takes.
_TAKEN = {
    "masks": "mask files",
    "reports": "reports (.json, .csv of topo analyze)",
    "rows": "tables (.csv, .jsonl)",
    "run": "run folders",
    "rounds": "folders of topo imp and irp",
    "sweep": "folders of topo sweep",
    "course": "metrics.jsonl and curves.csv of runs",
    "evaluation": "JSON of topo evaluate",
    "frontier": "JSON of topo generate --frontier",
}
_ROUND = re.compile(r"(level|round)_\d+")
# Columns that a table of the epochs of a run has.
_EPOCHS = ("epoch", "train_loss")
_TIED = ("_mean", "_sd", "_t95")


def kind_of(path: str | Path) -> str:
    """The kind of a file or folder that exists, see KINDS; what is nothing else is a mask file, which readers open.

    Raises TopoError for JSON of topo that no figure is drawn of, with a line that says what it is.
    """
    place = Path(path)
    if place.is_dir():
        if (place / "sweep.json").is_file() and (place / "plan.csv").is_file():
            return "sweep"
        return "run" if is_run(place) else "rounds" if _rounds(place) else "masks"
    ending = place.suffix.lower()
    if ending == ".json":
        return _kind_of_json(place)
    if ending not in TABLES:
        return "masks"
    columns = list(read_rows(place)[0])
    if set(columns) >= set(_EPOCHS):
        return "course"
    return "reports" if holds_reports(columns) else "rows"


def _kind_of_json(place: Path) -> str:
    held = document(place)
    schema = str(held.get("schema"))
    if schema.startswith("topo/"):
        return "reports"
    if schema.startswith("topo-frontier/"):
        return "frontier"
    if {"metrics", "cells", "ceiling"} <= set(held):
        return "evaluation"
    raise TopoError(f"'{place}' is {kind_of_document(held)}: no figure is drawn of it")


def refused(figure: str, of: Sequence[str], path: str, kind: str) -> TopoError:
    """The error of an input that does not hold what a figure is made of."""
    takes = dict.fromkeys(_TAKEN[held] for part in of for held in HOLDERS[part])
    return TopoError(f"plot '{figure}' takes {listed(list(takes))}; '{path}' is {KINDS[kind]}")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def reports_of(path: str | Path, kind: str) -> list[Report]:
    """The reports that are written there: of `topo analyze`, or of a sweep's cells with their settings."""
    if kind == "sweep":
        return _reports_of_sweep(Path(path))
    if Path(path).suffix.lower() == ".json":
        return reports_in(path)
    return reports_from_table(read_rows(path))


def masks_in(path: str | Path, kind: str, every: bool = False) -> dict[str, str]:
    """Name -> mask file of a run, of the rounds of a pruning, or of a sweep; TopoError where there is none.

    every: of a run whose masks move those of each epoch that was kept, not those at the end.
    """
    place = Path(path)
    if kind == "masks":
        return {"": str(path)}
    if kind == "run":
        moved = sorted((place / "masks").glob("epoch_*.safetensors")) if every else []
        found = {str(int(file.stem.rpartition("_")[2])): str(file) for file in moved}
        if not found and (place / "masks.safetensors").is_file():
            found = {"": str(place / "masks.safetensors")}
    elif kind == "rounds":
        files = {folder.name: folder / "masks.safetensors" for folder in _rounds(place)}
        found = {str(int(name.rpartition("_")[2])): str(file) for name, file in files.items() if file.is_file()}
    else:
        found = {_cell_named(row): str(place / "masks" / f"{row['id']}.safetensors") for row in _cells(place)}
        found = {name: file for name, file in found.items() if Path(file).is_file()}
    if not found:
        raise TopoError(f"'{path}' is {KINDS[kind]} without masks: it was trained dense, or nothing is done yet")
    return found


def rows_of_file(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a table; of reports a row a mask; of rounds a row each; of a sweep those of results.csv.

    Means of `topo sweep` (summary.csv) and of `Reports.summary` come as one row a group, with "NAME_sd" and "NAME_t95".
    """
    place = Path(path)
    if kind == "sweep":
        return _cells(place)
    if kind == "rounds":
        return [row for folder in runs_in(place, kind) for row in read_rows(folder)]
    if kind == "reports":
        return [row_of(report) for report in reports_of(path, kind)]
    return _settled(_means(read_rows(path)))


def row_of(report: Report) -> dict[str, Any]:
    """A report as a row, with the masks' own density, not that of the file's name."""
    row = wide_row(report)
    return {**row, "density": row["measured_density"]} if "measured_density" in row else row


def courses_of(path: str | Path, kind: str) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """(what is known of the run, its epochs) of each run that is written there."""
    place = Path(path)
    if kind == "course":
        return [({"method": place.parent.name or place.stem}, read_rows(place))]
    if kind == "sweep":
        known = {str(row["id"]): row for row in _cells(place)}
        folders = [(known.get(folder.name, {}), folder) for folder in sorted((place / "runs").glob("*"))]
        if not folders:
            raise TopoError(f"'{path}' is the folder of a sweep that trains nothing: it has no epochs to draw")
    else:
        folders = [({**read_rows(run)[0], "round": run.name if kind == "rounds" else None}, run)
                   for run in runs_in(place, kind)]  # fmt: skip
    return [(row, _epochs(run)) for row, run in folders if (run / "metrics.jsonl").is_file()]


def _epochs(run: Path) -> list[dict[str, Any]]:
    text = (run / "metrics.jsonl").read_text("utf-8")
    if not text.strip():
        return []
    return read_rows(run / "metrics.jsonl")


def evaluation_in(path: str | Path) -> dict[str, Any]:
    """JSON of `topo evaluate`."""
    return document(path)


def runs_in(path: str | Path, kind: str) -> list[Path]:
    """The folders of runs that are written there: a run itself, or each round of a pruning."""
    return _rounds(Path(path)) if kind == "rounds" else [Path(path)]


def _rounds(place: Path) -> list[Path]:
    return sorted(folder for folder in place.glob("*_*") if _ROUND.fullmatch(folder.name) and is_run(folder))


def _cells(place: Path) -> list[dict[str, Any]]:
    """The rows of a sweep's results.csv: the density is that of the masks, the one asked for stands beside."""
    return _settled(read_rows(place / "results.csv"))


def _settled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of results.csv as figures know them; rows of other tables as they are."""
    for row in rows:
        if told(row, "density_kept"):
            row["density_asked"], row["density"] = row.get("density"), row["density_kept"]
        if told(row, "null"):
            row["method"] = f"{row['null']} of {row.get('method') or 'masks'}"
    return rows


def _cell_named(row: Mapping[str, Any]) -> str:
    """A name of a cell that a reader knows: what differs between cells, as far as it goes."""
    parts = [str(row[key]) for key in ("method", "options") if told(row, key)]
    parts += [f"d{number(row['density_asked']):g}"] if told(row, "density_asked") else []
    parts += [f"s{row['seed']}"] if told(row, "seed") else []
    return " ".join(parts) or str(row["id"])


def _reports_of_sweep(place: Path) -> list[Report]:
    found = []
    for row in _cells(place):
        file = place / "reports" / f"{row['id']}.json"
        if file.is_file():
            known = {key: row[key] for key in ("method", "seed", "options", "model") if told(row, key)}
            known |= {"density": number(row["density_asked"])} if told(row, "density_asked") else {}
            for report in reports_in(file):
                known = {**report.provenance, **known}
                found.append(replace(report, mask=_cell_named(row), provenance=known))
    if not found:
        raise TopoError(f"'{place}' is the folder of a sweep without reports: nothing is done yet")
    return found


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables of means as rows that figures know; other tables as they are."""
    columns = set(rows[0])
    if {"metric", "mean", "sd", "t95"} <= columns:  # of Reports.summary: a row a group and metric
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        by = [key for key in rows[0] if key not in ("metric", "masks", "n", "mean", "sd", "t95")]
        for row in rows:
            group = groups.setdefault(tuple(row[key] for key in by), {key: row[key] for key in by})
            group |= {row["metric"]: row["mean"], **{f"{row['metric']}{end}": row[end[1:]] for end in _TIED[1:]}}
            group["n"] = row["n"]
        rows = list(groups.values())
    elif "n" in columns and any(key.endswith("_mean") for key in columns):  # of a sweep: summary.csv
        rows = [{key.removesuffix("_mean"): value for key, value in _unhidden(row).items()} for row in rows]
    else:
        return rows
    return [{**row, "density": row["density_asked"]} if not told(row, "density") and told(row, "density_asked")
            else row for row in rows]  # fmt: skip


def _unhidden(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without settings that a mean is called like."""
    return {key: value for key, value in row.items() if f"{key}_mean" not in row}
