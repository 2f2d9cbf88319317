"""SCIENCE: what network science asks of a graph. Alone such a number says little: each carries a note that says so.

Sparse graphs of any kind have short ways and random bipartite ones have 4-cycles: compare with samples that keep the
degrees, `--nulls same_degrees:20`.
"""

from __future__ import annotations

import math

import numpy as np

from topo.graph import Block, LayeredGraph, WiredGraph
from topo.graph.bipartite import of_block
from topo.graph.memo import shared
from topo.graph.whole import whole_graph
from topo.metrics import metric
from topo.metrics.motifs import co_degrees
from topo.metrics.whole import NO_EDGES
from topo.report import Value

ALONE = "says little alone: compare with null models that keep the degrees, as --nulls same_degrees:20"
_MOST_WORK = 1 << 35  # units x edges that are looked at
_LATORA = "Latora & Marchiori, Efficient Behavior of Small-World Networks, 2001"


@metric(
    group="science",
    scope="layer",
    unit="fraction",
    source="Robins & Alexander, Small Worlds Among Interlocking Directors, 2004",
    wired=False,
    view="layer",
)
def layer_bipartite_clustering(graph: LayeredGraph, block: Block) -> Value:
    """Share of ways of three edges that close to a 4-cycle: 4 x 4-cycles / ways."""
    common = co_degrees(of_block(block))  # a way of three edges leaves a unit for another of its side, then goes on
    degrees = np.diag(common).astype(np.int64)
    cycles = ways = 0
    for unit in range(len(common)):
        count = common[unit].astype(np.int64)
        count[unit] = 0
        cycles += int((count * (count - 1)).sum())  # each 4-cycle four times
        ways += int((degrees[unit] - 1) * count.sum())
    return Value(cycles / ways, ALONE) if ways else Value(math.nan, "no way of three edges")


@shared
def _distances(graph: WiredGraph) -> tuple[int, int, float] | None:
    from topo.kernels import whole as kernels

    whole = whole_graph(graph)
    if whole.n * whole.size > _MOST_WORK:
        return None
    pairs, total, inverse = kernels.distances(*whole.both)
    return int(pairs), int(total), float(inverse)


_TOO_MANY = f"all pairs of units take more than {_MOST_WORK:,} steps along edges"


@metric(group="science", scope="network", unit="edges", source="Watts & Strogatz 1998")
def path_length(graph: WiredGraph) -> Value:
    """Mean length of the shortest way between two units, over pairs that a way joins; undirected."""
    found = _distances(graph)
    if found is None:
        return Value(math.nan, _TOO_MANY)
    return Value(found[1] / found[0], ALONE) if found[0] else Value(math.nan, NO_EDGES)


@metric(group="science", scope="network", unit="fraction", source=_LATORA)
def global_efficiency(graph: WiredGraph) -> Value:
    """Mean over all pairs of units of 1 / the length of the shortest way, 0 where there is none; undirected."""
    found, n = _distances(graph), whole_graph(graph).n
    if found is None:
        return Value(math.nan, _TOO_MANY)
    return Value(2 * found[2] / (n * (n - 1)), ALONE) if n > 1 else Value(math.nan, "the graph has no two units")


@metric(
    group="science",
    scope="network",
    unit="fraction",
    source="Zhang et al., Epitopological learning and Cannistraci-Hebb network shape intelligence, ICLR 2024",
)
def active_neuron_rate(graph: WiredGraph) -> Value:
    """Share of units on a way from an input to an output: what is left when units that lead nowhere are taken away."""
    from topo.graph.whole import units_on_paths

    whole = whole_graph(graph)
    return Value(units_on_paths(whole) / whole.n, ALONE) if whole.n else Value(math.nan, "the graph has no units")
