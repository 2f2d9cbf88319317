"""An interval for a mean over cells whose cells come in clusters: whole clusters are drawn again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """mean, the 95 % interval low .. high, and the two-sided p value of 0; NaN where one cluster leaves them open."""

    mean: float
    low: float
    high: float
    p: float
    cells: int
    clusters: int


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable], *, draws: int, rng: np.random.Generator
) -> Interval:
    """The unweighted mean of the values that are numbers, with percentiles 2.5 and 97.5 of its bootstrap.

    values: one a cell; NaN does not count. clusters: of each cell. A draw takes as many clusters as there are, with
    replacement, and is the mean over their cells. p is twice the smaller share of draws on one side of 0, both ends
    counted in: (1 + draws there) / (1 + draws), at most 1 (Davison & Hinkley 1997, section 4.2). With fewer than two
    clusters nothing says how much clusters differ: low, high and p are NaN.

    >>> found = cluster_bootstrap([0.5, 0.7, 0.3], ["a", "a", "b"], draws=200, rng=np.random.default_rng(0))
    >>> round(found.mean, 3), found.low, found.clusters
    (0.5, 0.3, 2)
    """
    kept = [(value, cluster) for value, cluster in zip(values, clusters) if not math.isnan(value)]
    names = list(dict.fromkeys(cluster for _, cluster in kept))
    if not kept:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0, 0)
    mean = float(np.mean([value for value, _ in kept]))
    if len(names) < 2:
        return Interval(mean, math.nan, math.nan, math.nan, len(kept), len(names))
    place = {name: k for k, name in enumerate(names)}
    at = np.array([place[cluster] for _, cluster in kept])
    sums = np.bincount(at, [value for value, _ in kept])
    counts = np.bincount(at)
    chosen = rng.integers(len(names), size=(draws, len(names)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    side = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Interval(mean, float(low), float(high), min(1.0, 2 * side / (1 + draws)), len(kept), len(names))
