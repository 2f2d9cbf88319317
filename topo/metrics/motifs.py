"""Motifs of single layers, read off co-degrees: how many neighbours two units share."""

from __future__ import annotations

import numpy as np

from topo.graph import Block, LayeredGraph
from topo.graph.bipartite import Bipartite, of_block
from topo.graph.singular import gram
from topo.metrics import metric


def co_degrees(graph: Bipartite) -> np.ndarray:
    """float32 (n, n): how many neighbours two units of the smaller side share; a unit's degree on the diagonal.

    Each joined pair counts once, whatever its multiplicity. Exact: degrees are below 2**24.
    """
    simple = Bipartite(graph.words, graph.left)
    return gram(simple if simple.right <= simple.left else simple.turned)[0]


@metric(
    group="structure",
    scope="layer",
    unit="4-cycles",
    source="Milo et al., Network Motifs, Science 2002 (bi-fan)",
    wired=False,
    view="layer",
)
def layer_four_cycles(graph: LayeredGraph, block: Block) -> int:
    """Bi-fans: pairs of left units that two right units share, sum over pairs of right units of C(co-degree, 2)."""
    shared, total = co_degrees(of_block(block)), 0
    for unit in range(1, len(shared)):  # row by row: whole integer copies of a large matrix would not fit
        count = shared[unit, :unit].astype(np.int64)
        total += int((count * (count - 1) // 2).sum())
    return total
