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
    used = np.zeros(int(labels.max()) + 1, np.bool_)
    used[begin] = used[end] = True
    place = np.cumsum(used, dtype=np.int32) - np.int32(1)  # of ten million units most may have no edge
    begin, end, count = place[begin], place[end], int(np.count_nonzero(used))
    inside = np.bincount(number[begin == end], minlength=len(whole.of_layers))
    every = np.bincount(number, minlength=len(whole.of_layers))
    outs, ins = (np.bincount(number * np.int64(count) + side, minlength=len(every) * count) for side in (begin, end))
    chance = (outs.astype(np.float64) * ins).reshape(len(every), count).sum(axis=1)
    return float((inside - chance / np.maximum(every, 1)).sum() / whole.size)


def communities(whole: WholeGraph) -> np.ndarray:
    """int32 (n,): the labels of highest modularity of a few starts, each with another order of units.

    Of a graph that is stars and nothing else each star is a community: no start can find better.
    """
    if (labels := _stars(whole)) is not None:
        return labels
    found = [_once(whole, np.random.default_rng(start)) for start in range(_STARTS)]
    return max(found, key=lambda labels: modularity_of(whole, labels))


def _stars(whole: WholeGraph) -> np.ndarray | None:
    """The hub of each unit, of a graph whose every edge leads from or to a unit that has no other edge; else None.

    A leaf adds 1 - s / e >= 0 to the community of its hub, e the edges of its layer and s those that lead from or to
    this community; stars that are not joined add nothing to one another.
    """
    leaf, ends, begins = whole.degrees == 1, whole.outgoing[1], whole.begins
    leads_to_leaf = leaf[ends]
    if not (leads_to_leaf | leaf[begins]).all():
        return None
    labels: np.ndarray = np.arange(whole.n, dtype=np.int32)
    labels[ends[leads_to_leaf]] = begins[leads_to_leaf]
    labels[begins[~leads_to_leaf]] = ends[~leads_to_leaf]
    return labels


def _once(whole: WholeGraph, rng: np.random.Generator) -> np.ndarray:
    from topo.graph.whole import in_buckets
    from topo.kernels import science

    begin, end, kinds = whole.begins, whole.outgoing[1], whole.made_by.astype(np.int32)
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
