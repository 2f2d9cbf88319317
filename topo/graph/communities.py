"""Communities of a whole graph: labels of units, by greedy moves of units and then of whole communities.

The modularity is that of the layers: of each group of a layer the share of its edges within communities, less what its
degrees give by chance (Barber 2007), weighted by its edges; joins count as layers. Of one layer it is Barber's.
"""

from __future__ import annotations

import numpy as np

from topo.graph.whole import WholeGraph

_STARTS = 3
MOST_SUMS = 1 << 27  # what makes edges x units


def modularity_of(whole: WholeGraph, labels: np.ndarray) -> float:
    """The modularity of labels, one a unit, of a graph with edges.

    Source: Barber, Modularity and community detection in bipartite networks, Phys. Rev. E 2007.
    """
    begin, end, number = labels[whole.begins], labels[whole.outgoing[1]], whole.made_by
    inside = np.bincount(number[begin == end], minlength=len(whole.of_layers))
    every = np.bincount(number, minlength=len(whole.of_layers))
    count = int(labels.max()) + 1
    outs, ins = (np.bincount(number * np.int64(count) + side, minlength=len(every) * count) for side in (begin, end))
    chance = (outs.astype(np.float64) * ins).reshape(len(every), count).sum(axis=1)
    return float((inside - chance / np.maximum(every, 1)).sum() / whole.size)


def communities(whole: WholeGraph) -> np.ndarray:
    """int32 (n,): the labels of highest modularity of a few starts, each with another order of units."""
    found = [_once(whole, np.random.default_rng(start)) for start in range(_STARTS)]
    return max(found, key=lambda labels: modularity_of(whole, labels))


def _once(whole: WholeGraph, rng: np.random.Generator) -> np.ndarray:
    from topo.graph.whole import in_buckets
    from topo.kernels import science

    begin, end, kinds = whole.begins, whole.outgoing[1], whole.made_by
    weight: np.ndarray = np.ones(whole.size)
    sums = np.maximum(np.bincount(kinds, minlength=len(whole.of_layers)), 1).astype(np.float64)
    labels: np.ndarray = np.arange(whole.n, dtype=np.int32)
    n = whole.n
    while True:
        ptr, order = in_buckets(np.concatenate([begin, end]), n)
        ahead = order < len(begin)
        ends, twice = np.concatenate([end, begin])[order], np.concatenate([kinds, kinds])[order]
        own: np.ndarray = np.arange(n, dtype=np.int32)
        outs, ins = (
            np.bincount(kinds * np.int64(n) + side, weight, len(sums) * n).reshape(-1, n) for side in (begin, end)
        )
        asked = rng.permutation(n)
        both = np.concatenate([weight, weight])[order]
        if not science.move_units(ptr, ends, twice, both, ahead, sums, asked, own, outs, ins):
            return labels
        named, own = np.unique(own, return_inverse=True)
        labels, n = own.astype(np.int32)[labels], len(named)
        pairs = np.stack([kinds, own[begin], own[end]]).astype(np.int64)
        joined, place = np.unique((pairs[0] * n + pairs[1]) * n + pairs[2], return_inverse=True)
        weight = np.bincount(place, weight, len(joined))
        kinds, rest = np.divmod(joined, n * n)
        begin, end = (side.astype(np.int32) for side in np.divmod(rest, n))
        kinds = kinds.astype(np.int32)
