"""What a whole graph is held against: the same degrees at random, and a lattice of the same degrees.

Edges of one group of a layer trade ends among themselves, so that every unit keeps its degree in each layer and the
network stays a network of these layers. Edges of joins, which no mask has, stay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topo.generators.rewiring import rewire
from topo.graph.whole import WholeGraph
from topo.masks import BitRows

_ROUNDS = 10  # of trades of all rows and of all columns: `mixing` asks for 8, of hubs and of SynFlow's layers too
_NEARER = 30  # trades tried for each edge of a lattice

Change = Callable[[np.ndarray, int], None]  # of bit rows of so many columns, in place


def rewired(whole: WholeGraph, rng: np.random.Generator) -> WholeGraph:
    """Near uniform over the graphs of the same degrees in each layer, by curveball trades."""
    return _changed(whole, lambda words, columns: rewire(words, columns, 1, _ROUNDS, rng))


def lattice(whole: WholeGraph, rng: np.random.Generator) -> WholeGraph:
    """Edges join units that lie near each other, where both sides of a layer are spread evenly on one ring."""
    from topo.kernels import science

    return _changed(whole, lambda words, columns: science.latticize(words, columns, _NEARER, rng))


def _changed(whole: WholeGraph, change: Change) -> WholeGraph:
    begin, end = whole.begins.copy(), whole.outgoing[1].copy()
    order = np.argsort(whole.made_by, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(whole.made_by, minlength=len(whole.of_layers)))])
    for number in np.flatnonzero(whole.of_layers):
        here = order[bounds[number] : bounds[number + 1]]
        left, of_left = np.unique(begin[here], return_inverse=True)
        right, of_right = np.unique(end[here], return_inverse=True)
        if len(left) < 2 or len(right) < 2:
            continue
        mask = np.zeros((len(right), len(left)), np.bool_)
        mask[of_right, of_left] = True
        words = BitRows.of_mask(mask).words.copy()
        change(words, len(left))
        drawn = np.unpackbits(words.view(np.uint8), axis=1, count=len(left), bitorder="little")
        rows, columns = np.nonzero(drawn)
        begin[here], end[here] = left[columns], right[rows]
    edges = (begin, end, whole.outgoing[2], whole.made_by)
    return WholeGraph.of_edges(whole.n, edges, whole.inputs, whole.outputs, whole.of_layers)
