"""Layers as pictures that do not depend on how units are numbered, and sequences of degrees."""

from __future__ import annotations

import numpy as np

from topo.masks import BitRows, MaskSet, kernel_counts

GRID = 10


def _counts(rows: BitRows, groups: int) -> np.ndarray:
    """float64 (out, in): kept weights of each kernel, 0 between groups."""
    size = rows.columns // rows.shape[1]
    found = rows.unpack().reshape(len(rows.words), -1) if size == 1 else kernel_counts(rows.words, rows.columns, size)
    if groups == 1:
        return found.astype(np.float64)
    per_group = len(found) // groups
    spread = np.zeros((groups, per_group, groups, rows.shape[1]))
    place = np.arange(groups)
    spread[place, :, place] = found.reshape(groups, per_group, -1)
    return spread.reshape(len(found), -1)


def _spread(degrees: np.ndarray, grid: int) -> np.ndarray:
    """(n, grid): how much of each cell a unit takes, largest degrees first; units of one degree share their places."""
    n = len(degrees)
    order = np.argsort(-degrees, kind="stable")
    edges = np.arange(grid + 1) * (n / grid)
    ranks = np.arange(n)[:, None]
    cover = np.clip(np.minimum(ranks + 1, edges[1:]) - np.maximum(ranks, edges[:-1]), 0, None) * (grid / n)
    _, equal = np.unique(-degrees[order], return_inverse=True)
    sums = np.zeros((int(equal.max()) + 1, grid))
    np.add.at(sums, equal, cover)
    found = np.empty((n, grid))
    found[order] = (sums / np.bincount(equal)[:, None])[equal]
    return found


def picture(rows: BitRows, groups: int = 1, grid: int = GRID) -> np.ndarray:
    """float64 (grid, grid): mean densities of a layer, outputs by input channels, both in the order of their degrees.

    Source: Pham et al. 2025 (the graphon of a mask).
    """
    counts = _counts(rows, groups)
    density = counts / (rows.columns // rows.shape[1])
    return _spread(counts.sum(axis=1), grid).T @ density @ _spread(counts.sum(axis=0), grid)


def layer_distances(a: BitRows, b: BitRows, groups: int = 1) -> dict[str, float]:
    """graphon_distance, fan_in_distance and fan_out_distance of masks of one shape, see `topo.compare.distances`."""
    found = {"graphon_distance": float(np.sqrt(np.mean((picture(a, groups) - picture(b, groups)) ** 2)))}
    one, other = _counts(a, groups), _counts(b, groups)
    for name, axis in (("fan_in_distance", 1), ("fan_out_distance", 0)):
        most = a.columns if axis else a.size // a.shape[1] // groups
        apart = np.abs(np.sort(one.sum(axis=axis)) - np.sort(other.sum(axis=axis)))
        found[name] = float(apart.mean() / most)
    return found


def degree_drift(first: MaskSet, masks: MaskSet, groups: dict[str, int]) -> float:
    """Mean difference of fan-ins and fan-outs, unit by unit, from those of the first, over their mean there.

    groups: of layers that have several.
    """
    apart = total = 0.0
    for name in first:
        one, other = (_counts(these.rows(name), groups.get(name, 1)) for these in (first, masks))
        for axis in (0, 1):
            apart += float(np.abs(one.sum(axis=axis) - other.sum(axis=axis)).sum())
            total += float(one.sum())
    return apart / total if total else float("nan")
