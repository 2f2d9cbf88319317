"""evaluate: which numbers of masks go with accuracy, beyond what the density of the layers says already.

Rows are masks with an accuracy; a cell is what is compared (one network, data set and density), a family is what made
the masks. Rules: docs/evaluate.md.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo._support.screen import screen
from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.evidence import Interval, Table, cluster_bootstrap, controlled, left_out, ranked, spearman, table_of
from topo.evidence.table import LAYER
from topo.report.holm import holm

LEAST_ROWS = 6
_MANY = 10  # clusters; of fewer, 95 % intervals hold the mean less than nine times in ten (normal values)
COMPONENTS = 3
_FLOOR = 1e-6  # of layer densities, before their logarithm
_BASELINES = ("mean_log_density", "mld")
# Columns that say how a run went or how it was set up, by these parts of their names: no metric of a mask.
_NO_METRIC = ("accuracy", "loss", "seed", "seconds", "epoch")
# Columns of a sweep that tell masks of one method apart which are not seeds of each other.
_VARIANTS = ("options", "quota", "null", "density_effective")
_WIDTH_OF_DENSITY = ("density", "sparsity")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found.

    rows, cells, clusters: how many the table has; clusters are what the bootstrap draws. ceiling: the mean correlation
    of accuracy with other rows of the same family, NaN where there are none. baseline: the metric that partial
    correlations hold fixed. metrics: a mapping for each, the strongest first. left_out: prediction for families left
    out, by features. notes: what a reader has to know.

    >>> table = {"accuracy": [1, 2, 3, 4, 5, 6], "units": [1, 2, 3, 5, 4, 6]}
    >>> found = evaluate(table, cell=None, family=None)
    >>> found.rows, found.metrics[0]["metric"], round(found.to_dict()["metrics"][0]["rho"], 3)
    (6, 'units', 0.943)
    """

    rows: int
    cells: int
    clusters: int
    ceiling: float
    baseline: str | None
    metrics: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        def shown(value: float) -> str:
            return "" if math.isnan(value) else f"{value:+.3f}"

        first = f"Evaluation({self.rows:,} rows, {self.cells} cells of {self.clusters} clusters)"
        keys = ("rho", "low", "high", "partial")
        lines = [[entry["metric"], *(shown(entry[key]) for key in keys)] for entry in self.metrics]
        return screen(first, ["metric", *keys], lines)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `topo evaluate --json`: numbers are finite or None."""
        return {
            "rows": self.rows,
            "cells": self.cells,
            "clusters": self.clusters,
            "ceiling": _finite(self.ceiling),
            "baseline": self.baseline,
            "metrics": [_plain(entry) for entry in self.metrics],
            "left_out": [_plain(entry) for entry in self.left_out],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1) + "\n"


def evaluate(
    frame: Any,
    accuracy: str = "accuracy",
    cell: Sequence[str] | None = ("network", "data", "density"),
    family: str | None = "method",
    baseline: str | None = "mean_log_density",
    *,
    metrics: Sequence[str] | None = None,
    primary: str | None = None,
    draws: int = 2000,
    rng: int | np.random.Generator = 0,
) -> Evaluation:
    """Correlate each metric of masks with their accuracy within cells, raw and given the density of the layers.

    frame: a pandas table, rows or columns by name: one row a mask. accuracy, cell, family, baseline: its columns; a
    cell counts with at least 6 rows. cell=None takes all rows together, family=None takes no notice of what made the
    masks: neither is done unasked. Where there is no column `mean_log_density`, `mld` is the default baseline.
    metrics: the columns to look at, by default all of numbers that do not say how a run went. primary: the metric
    named beforehand, whose p is its own; the others' are adjusted by Holm's rule. draws, rng: of the bootstrap.

    For each metric: `rho`, the unweighted mean over cells of Spearman's correlation with average ranks, its 95 %
    cluster bootstrap `low` to `high` (clusters are the cells' columns but for density or sparsity) and `p_holm`; the
    same of `partial`, given the ranks of the baseline; `partial_components`, given the first three principal
    components of the log layer densities (columns `density:LAYER`, floor 1e-6); `means`, with the families' means as
    units; `undefined` rows. `ceiling`: the mean correlation of accuracy with the mean of the same family's other rows
    of the cell, which differ by seed. `left_out`: `topo.evidence.left_out`. -inf, as of the mean log density with an
    empty layer, is the lowest rank.

    >>> table = {"network": ["a"] * 6, "data": ["d"] * 6, "density": [0.1] * 6, "method": list("xxyyzz"),
    ...          "accuracy": [1, 2, 3, 4, 5, 6], "paths": [1, 2, 3, 4, 6, 5]}
    >>> round(evaluate(table).metrics[0]["rho"], 3)
    0.943

    Raises TopoError for a missing column (with the nearest name), an entry that is empty in a cell or family or no
    number in accuracy, and where no cell has six rows.
    """
    table = table_of(frame)
    keys = list(cell or ())
    if isinstance(cell, str):
        raise TopoError(f"cell is '{cell}'; it is names of columns in a list, or None for all rows together")
    for what, name in [("accuracy", accuracy), *(("cell", key) for key in keys), ("family", family)]:
        _column(table, what, name)
    target = table.numbers(accuracy)
    if target is None:
        raise TopoError(f"the column '{accuracy}' does not hold numbers; it is to hold accuracies")
    known = np.isfinite(target)
    notes = []
    if lacking := int((~known).sum()):
        notes.append(f"{lacking} of {len(table)} rows have no accuracy and are left out")
        table, target = table.only(np.flatnonzero(known)), target[known]
    study = _Study.of(table, target, keys, family, notes)
    base = _baseline(table, baseline, notes)
    names = _metrics(table, metrics, {accuracy, *keys, family or ""}, notes)
    if primary is not None and primary not in names:
        raise TopoError(f"primary is '{primary}', which is not among the metrics: {', '.join(names)}")
    seed = int(as_rng(rng).integers(2**63))
    rows = [study.metric(name, base, draws, seed) for name in names]
    _adjust(rows, primary)
    rows.sort(key=lambda entry: (math.isnan(entry["rho"]), -abs(entry["rho"])))
    if study.clusters < 2:
        notes.append("all cells are of one cluster: nothing says how far clusters differ, so there is no interval")
    elif study.clusters < _MANY:
        notes.append(f"{study.clusters} clusters: the bootstrap of so few gives intervals that are too narrow")
    if base is None:
        notes.append("there is no column of mean log densities, so nothing is partial: name one as the baseline")
    return Evaluation(
        len(target), len(study.cells), study.clusters, study.ceiling(), base, tuple(rows),
        tuple(study.left_out(base, names)), tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class _Study:
    """Rows in their cells. cells: rows of each, with their cluster. family: a number for each row, None without. kind:
    a number that tells the variants of a family apart, too."""

    table: Table
    accuracy: np.ndarray
    cells: list[np.ndarray]
    cluster: list[tuple[str, ...]]
    family: np.ndarray | None
    kind: np.ndarray | None
    layers: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, table: Table, accuracy: np.ndarray, keys: list[str], family: str | None, notes: list[str]) -> _Study:
        around = [k for k, key in enumerate(keys) if key not in _WIDTH_OF_DENSITY] or list(range(len(keys)))
        places: dict[tuple[str, ...], list[int]] = {}
        for row, entry in enumerate(zip(*(table.columns[key] for key in keys)) if keys else [()] * len(table)):
            places.setdefault(tuple(entry), []).append(row)
        cells = {entry: np.array(rows) for entry, rows in places.items() if len(rows) >= LEAST_ROWS}
        small = [len(rows) for rows in places.values() if len(rows) < LEAST_ROWS]
        if not cells:
            raise TopoError(
                f"no cell ({', '.join(keys) or 'all rows'}) has {LEAST_ROWS} rows; the largest of {len(places)} has "
                f"{max(small, default=0)}. Give --cell fewer columns, or more masks"
            )
        if small:
            notes.append(f"{len(small)} cells of fewer than {LEAST_ROWS} rows are left out ({sum(small)} rows)")
        twice = len(table) - len(set(zip(*table.columns.values())))
        if twice:
            notes.append(f"{twice} rows are equal to another in every column: if they are copies, remove them")
        number = kind = None
        if family is not None:
            number = np.unique(np.array(table.columns[family]), return_inverse=True)[1]
            told = [family, *(name for name in _VARIANTS if name in table.columns)]
            kinds = list(zip(*(table.columns[name] for name in told)))
            known = {entry: k for k, entry in enumerate(dict.fromkeys(kinds))}
            kind = np.array([known[entry] for entry in kinds])
        cluster = [tuple(entry[k] for k in around) for entry in cells]
        layers = {name: values for name in table.columns if name.startswith(LAYER)
                  if (values := table.numbers(name)) is not None}  # fmt: skip
        return cls(table, accuracy, list(cells.values()), cluster, number, kind, layers)

    @property
    def clusters(self) -> int:
        return len(set(self.cluster))

    def metric(self, name: str, base: str | None, draws: int, seed: int) -> dict[str, Any]:
        values, given = self._numbers(name), None if base in (None, name) else self._numbers(str(base))
        raw, partial, components, means = [], [], [], []
        for rows in self.cells:
            defined = rows[~np.isnan(values[rows])]
            enough = len(defined) >= LEAST_ROWS
            x, y = values[defined], self.accuracy[defined]
            raw.append(spearman(x, y) if enough else math.nan)
            partial.append(self._given(defined, values, given) if given is not None else math.nan)
            components.append(self._given_layers(defined, x, y) if enough and self.layers else math.nan)
            means.append(self._of_means(defined, x, y) if enough else math.nan)
        found, left, third, mean = (self._pooled(side, draws, seed) for side in (raw, partial, components, means))
        undefined = sum(int(np.isnan(values[rows]).sum()) for rows in self.cells)
        return {
            "metric": name, "cells": found.cells,
            "rho": found.mean, "low": found.low, "high": found.high,
            "partial": left.mean, "partial_low": left.low, "partial_high": left.high,
            "partial_components": third.mean, "means": mean.mean, "undefined": undefined,
            "p": found.p, "p_holm": found.p, "partial_p": left.p, "partial_p_holm": left.p,
        }  # fmt: skip

    def _pooled(self, values: list[float], draws: int, seed: int) -> Interval:
        return cluster_bootstrap(values, self.cluster, draws=draws, rng=np.random.default_rng(seed))

    def _numbers(self, name: str) -> np.ndarray:
        found = self.table.numbers(name)
        assert found is not None
        return found

    def _given(self, rows: np.ndarray, values: np.ndarray, given: np.ndarray) -> float:
        rows = rows[~np.isnan(given[rows])]
        if len(rows) < LEAST_ROWS:
            return math.nan
        return controlled(values[rows], self.accuracy[rows], given[rows, None])

    def _given_layers(self, rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        """Given the first principal components of the log densities of the layers that all rows have."""
        densities = np.array([column[rows] for column in self.layers.values() if not np.isnan(column[rows]).any()]).T
        if not densities.size:
            return math.nan
        logs = np.log10(np.maximum(densities, _FLOOR))
        left, sizes, _ = np.linalg.svd(logs - logs.mean(axis=0), full_matrices=False)
        kept = sizes > 1e-9 * max(1.0, sizes[0])
        scores = (left * sizes)[:, kept][:, :COMPONENTS]
        return controlled(x, y, np.round(scores, 12))

    def _of_means(self, rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        """Spearman's correlation of the families' means, of at least six families."""
        if self.family is None or np.isinf(x).any():
            return math.nan
        families = np.unique(self.family[rows])
        if len(families) < LEAST_ROWS:
            return math.nan
        mine = [self.family[rows] == one for one in families]
        return spearman(np.array([x[m].mean() for m in mine]), np.array([y[m].mean() for m in mine]))

    def ceiling(self) -> float:
        """Mean over cells of the correlation of accuracy with the mean of the same family's other rows."""
        if self.kind is None:
            return math.nan
        found = []
        for rows in self.cells:
            others = np.full(len(rows), math.nan)
            for one in np.unique(self.kind[rows]):
                mine = np.flatnonzero(self.kind[rows] == one)
                if len(mine) > 1:
                    y = self.accuracy[rows[mine]]
                    others[mine] = (y.sum() - y) / (len(mine) - 1)
            known = ~np.isnan(others)
            if known.sum() >= LEAST_ROWS:
                found.append(spearman(others[known], self.accuracy[rows[known]]))
        found = [value for value in found if not math.isnan(value)]
        return float(np.mean(found)) if found else math.nan

    def left_out(self, base: str | None, names: Sequence[str]) -> list[dict[str, Any]]:
        """Sets of features, one family left out at a time: the baseline, each metric with it, and all together."""
        if self.family is None:
            return []
        wanted = [[base]] if base else []
        wanted += [[base, name] if base else [name] for name in names if name != base]
        target, made = self._within(self.accuracy), {name: self._within(self._numbers(name)) for name in {*names, base}
                                                     if name}  # fmt: skip
        found = []
        for features in wanted:
            held = np.column_stack([made[str(name)] for name in features])
            r2, pairs, rows = left_out(held, target, self.cells, self.family)
            alone = math.nan
            if base and len(features) > 1:  # the baseline on the rows on which the others are defined, too
                same = np.where(np.isnan(held).any(axis=1), math.nan, held[:, 0])
                alone = left_out(same[:, None], target, self.cells, self.family)[0]
            found.append({"features": features, "r2": r2, "pairs": pairs, "rows": rows, "gain": r2 - alone})
        return found

    def _within(self, values: np.ndarray) -> np.ndarray:
        """Ranks within cells, scaled to -1/2 .. 1/2; NaN where a value is undefined, or its row is in no cell."""
        found = np.full(len(values), math.nan)
        for rows in self.cells:
            defined = rows[~np.isnan(values[rows])]
            if len(defined):
                found[defined] = (ranked(values[defined]) - (len(defined) + 1) / 2) / len(defined)
        return found


def _column(table: Table, what: str, name: str | None) -> None:
    """TopoError unless the table has the column, and an entry in each row of it (but for accuracy)."""
    if name is None:
        return
    if name not in table.columns:
        near = difflib.get_close_matches(str(name), list(table.columns), 1, 0.6)
        ways = {"cell": "; cell=None (--cell none) takes all rows together",
                "family": "; family=None (--family none) takes no notice of what made the masks"}  # fmt: skip
        hint = f", the nearest is '{near[0]}'" if near else ""
        raise TopoError(
            f"the table has no column '{name}' ({what}){hint}{ways.get(what, '')}; it has: {_listing(table)}"
        )
    empty = sum(entry == "" for entry in table.columns[name])
    if empty and what != "accuracy":
        raise TopoError(f"{empty} of {len(table)} rows have no entry in '{name}' ({what}), so they cannot be placed")


def _listing(table: Table) -> str:
    names = list(table.columns)
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")


def _baseline(table: Table, wanted: str | None, notes: list[str]) -> str | None:
    if wanted is None:
        return None
    names = _BASELINES if wanted == _BASELINES[0] else (wanted,)
    found = next((name for name in names if name in table.columns), None)
    if found is None and wanted != _BASELINES[0]:
        _column(table, "baseline", wanted)
    if found is None:
        return None
    if table.numbers(found) is None:
        raise TopoError(f"the column '{found}' (baseline) does not hold numbers")
    if found != wanted:
        notes.append(f"the baseline is the column '{found}'")
    return found


def _metrics(table: Table, wanted: Sequence[str] | None, others: set[str], notes: list[str]) -> list[str]:
    if wanted is not None:
        for name in wanted:
            _column(table, "metric", name) if name not in table.columns else None
            if table.numbers(name) is None:
                raise TopoError(f"the column '{name}' (metric) does not hold numbers")
        return list(dict.fromkeys(wanted))
    found, passed = [], []
    for name in table.columns:
        if name in others or name.startswith(LAYER):
            continue
        if any(part in name.lower() for part in _NO_METRIC) or table.numbers(name) is None:
            passed.append(name)
        else:
            found.append(name)
    if passed:
        notes.append(f"no metrics of masks, and not looked at: {', '.join(passed)}")
    if not found:
        raise TopoError(f"the table has no column of numbers beside accuracy, cell and family: {_listing(table)}")
    return found


def _adjust(rows: list[dict[str, Any]], primary: str | None) -> None:
    """Holm's rule over the metrics, but for the primary one."""
    others = [entry for entry in rows if entry["metric"] != primary]
    for key in ("p", "partial_p"):
        for entry, value in zip(others, holm([entry[key] for entry in others])):
            entry[f"{key}_holm"] = value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _finite(value) if isinstance(value, float) else value for key, value in entry.items()}
