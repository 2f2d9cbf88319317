"""Metrics of the masks of runs, where a table of runs lacks them: computed from the run folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topo.analyze import analyze
from topo.errors import TopoError
from topo.files import read_masks
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.plots.given import told
from topo.report import Report
from topo.wiring import Wiring

# Masks -> the wiring of the model that their provenance names, None if it cannot be had, and what is to be said.
FindWiring = Callable[[MaskSet], tuple[Wiring | None, list[str]]]


def measure(
    runs: Mapping[str, dict[str, Any]], rows: Sequence[Mapping[str, Any]], wanted: Sequence[str], find: FindWiring
) -> None:
    """Write into the rows of runs those of the wanted numbers that they lack: metrics of their masks as networks.

    runs: run folder -> its row. rows: all of the table. Equal masks of one model are measured once. A run without masks
    has none of these numbers, an unfinished one is not measured: NaN.

    Raises TopoError for a number that no row holds and no metric of networks is called like, for one of weights, and
    where the wiring that a metric needs cannot be had.
    """
    lacking = [name for name in dict.fromkeys(wanted) if any(not told(row, name) for row in runs.values())]
    for name in lacking:
        if f"network:{name}" not in metrics and not any(told(row, name) for row in rows):
            layers = ", but one of layers" if f"layer:{name}" in metrics else ""
            raise TopoError(
                f"no run holds a number '{name}', and no metric of networks is called so{layers} (topo list metrics)"
            )
    names = [name for name in lacking if f"network:{name}" in metrics]
    for name in names:
        if metrics[f"network:{name}"].weighted:
            raise TopoError(
                f"'{name}' is a number of weights, and runs are measured by their masks: topo.analyze(..., weights=)"
            )
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path, row in runs.items():
        row |= {name: math.nan for name in names if not told(row, name)}
        file = Path(path) / "masks.safetensors"
        missing = [name for name in names if not told(row, name)]
        if row.get("unfinished") or not missing or not file.is_file():
            continue
        masks = read_masks(file)
        key = (masks.content_hash, str(row.get("model")))
        if key not in known:
            known[key] = _report(path, masks, row, names, find).network
        row |= {name: known[key][name] for name in missing}


def _report(path: str, masks: MaskSet, row: Mapping[str, Any], names: Sequence[str], find: FindWiring) -> Report:
    """The numbers of a run's masks on the model that config.toml names, or the masks do."""
    models = [model for model in (row.get("model"), masks.provenance.get("model")) if model]
    wiring, said = None, f"'{path}' names no model"
    for model in dict.fromkeys(models):
        wiring, notes = find(masks.with_provenance(model=model))
        if wiring is not None:
            break
        said = next(iter(notes), said)
    report = analyze(masks, wiring, metrics=names)
    needs = [r.metric for r in report.rows if r.layer is None and r.note == "needs the network's wiring"]
    if needs:
        raise TopoError(f"'{needs[0]}' of the run '{path}' needs the network's wiring: {said}; give --model")
    return report
