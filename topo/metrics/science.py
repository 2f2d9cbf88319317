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
from topo.graph.whole import WholeGraph, whole_graph
from topo.metrics import metric
from topo.metrics.motifs import co_degrees
from topo.metrics.whole import NO_EDGES
from topo.report import Value

ALONE = "says little alone: compare with null models that keep the degrees, as --nulls same_degrees:20"
BESIDE = {"same_degrees": 20}  # what is drawn where numbers of this group are asked for by name, and nulls not at all
_MOST_WORK = 1 << 31  # units x edges that are looked at
_MOST_EDGES = 8_000_000  # that communities are looked for among: some twenty seconds
_REFERENCES = 5
_WIDEST = 2_000  # units of the matrices of structural consistency
_REMOVALS = 5
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


# Small worlds.


@shared
def _small_world(graph: WiredGraph) -> tuple[float, float, float, float, float] | str:
    """Clustering and path length, both of references with the same degrees, clustering of a lattice; or why not."""
    from topo.graph.references import lattice, rewired

    whole = whole_graph(graph)
    if (1 + _REFERENCES) * whole.n * whole.size > _MOST_WORK:
        return _TOO_MANY
    rng = np.random.default_rng(0)
    if not whole.size:
        return NO_EDGES
    random = [rewired(whole, rng) for _ in range(_REFERENCES)]
    closed, lengths = (float(np.mean([of(one) for one in random])) for of in (closed_ways, mean_length))
    return closed_ways(whole), mean_length(whole), closed, lengths, closed_ways(lattice(whole, rng))


def _joined(graph: WiredGraph) -> str:
    """The note of small worlds: in how many parts the graph is, of which the shortest ways say nothing."""
    from topo.kernels import whole as kernels

    whole = whole_graph(graph)
    parts = int(kernels.components(*whole.both, np.empty(whole.n, np.int32))[0])
    parts -= int(np.count_nonzero(whole.degrees == 0))
    return f"in {parts:,} parts, lengths are of joined pairs alone; {ALONE}" if parts > 1 else ALONE


def closed_ways(whole: WholeGraph) -> float:
    """Share of the ways of three edges that close to a 4-cycle; 0.0 if there is no way.

    A network without skips has no triangles, so that this is its clustering. Source: Robins & Alexander 2004.
    """
    from topo.kernels import science as kernels

    cycles, ways = kernels.four_cycles(*whole.both)
    return 4 * int(cycles) / int(ways) if ways else 0.0


def mean_length(whole: WholeGraph) -> float:
    """Mean length of the shortest way between two units, over pairs that a way joins, of a graph with edges."""
    from topo.kernels import whole as kernels

    pairs, total, _ = kernels.distances(*whole.both)
    return int(total) / int(pairs)


@metric(
    group="science",
    scope="network",
    unit="ratio",
    source="Humphries & Gurney, Network Small-World-Ness, PLoS ONE 2008",
    ordered=True,
)
def small_world_sigma(graph: WiredGraph) -> Value:
    """Clustering over path length, each relative to 5 networks of the same degrees in each layer; above 1: small world.

    Clustering is the share of ways of three edges that close to a 4-cycle.
    """
    found = _small_world(graph)
    if isinstance(found, str):
        return Value(math.nan, found)
    clustering, length, at_random, lengths, _ = found
    if not at_random:
        return Value(math.nan, "networks of the same degrees have no 4-cycle")
    return Value(clustering / at_random / (length / lengths), _joined(graph))


@metric(
    group="science",
    scope="network",
    unit="difference",
    source="Telesford et al., The Ubiquity of Small-World Networks, Brain Connectivity 2011",
    ordered=True,
)
def small_world_omega(graph: WiredGraph) -> Value:
    """Path length of networks of the same degrees over the own, less the clustering over a lattice's.

    Near 0: a small world, near 1: random, near -1: a lattice.
    """
    found = _small_world(graph)
    if isinstance(found, str):
        return Value(math.nan, found)
    clustering, length, _, lengths, of_lattice = found
    if not of_lattice:
        return Value(math.nan, "the lattice of the same degrees has no 4-cycle")
    return Value(lengths / length - clustering / of_lattice, _joined(graph))


# Hubs.


@metric(
    group="science",
    scope="network",
    unit="fraction",
    source="Colizza et al., Detecting rich-club ordering in complex networks, Nature Physics 2006",
)
def rich_club(graph: WiredGraph) -> Value:
    """Density of edges among the tenth of the units with the highest degrees (with all that have the least of them)."""
    whole = whole_graph(graph)
    if not whole.size:
        return Value(math.nan, NO_EDGES)
    values, units = whole.many_of_each
    at_least = np.cumsum(units[::-1])[::-1]  # units of so many edges or more
    count = int(units[values > 0].sum())
    least = int(values[np.flatnonzero(at_least >= max(-(-count // 10), 2))[-1]])
    rich = whole.degrees >= least
    size = int(rich.sum())
    among = np.count_nonzero(rich[whole.begins] & rich[whole.outgoing[1]])
    return Value(2 * among / (size * (size - 1)), f"units of {least} edges and more, {size:,}; {ALONE}")


@metric(
    group="science",
    scope="network",
    unit="fraction",
    source="Freeman, A Set of Measures of Centrality Based on Betweenness, 1977",
)
def betweenness_share(graph: WiredGraph) -> Value:
    """Share of all betweenness that the tenth of the units with the most of it has; undirected."""
    from topo.kernels import science as kernels

    whole = whole_graph(graph)
    if whole.n * whole.size > _MOST_WORK:
        return Value(math.nan, _TOO_MANY)
    between = np.empty(whole.n)
    kernels.betweenness(*whole.both, between)
    if not between.any():
        return Value(math.nan, "no shortest way leads through a unit")
    top = np.sort(between)[::-1][: -(-whole.n // 10)]
    return Value(float(top.sum() / between.sum()), ALONE)


# Structure that a graph tells of itself.


@shared
def community_labels(graph: WiredGraph) -> np.ndarray | None:
    """int32 (N,): the community of each unit of the whole graph; None beyond memory."""
    from topo.graph.communities import MOST_SUMS, communities

    whole = whole_graph(graph)
    return communities(whole) if len(whole.of_layers) * whole.n <= MOST_SUMS else None


@metric(
    group="science",
    scope="network",
    unit="modularity",
    source="Barber, Modularity and community detection in bipartite networks, Phys. Rev. E 2007",
    ordered=True,
)
def modularity(graph: WiredGraph) -> Value:
    """Edges within communities beyond chance at the degrees of each layer, as a share of all: a lower bound.

    Communities are found greedily, from 3 starts. Of a single layer it is Barber's bipartite modularity.
    """
    from topo.graph.communities import modularity_of

    whole = whole_graph(graph)
    if not whole.size:
        return Value(math.nan, NO_EDGES)
    if whole.size > _MOST_EDGES:
        return Value(math.nan, f"{whole.size:,} edges; communities are looked for among up to {_MOST_EDGES:,}")
    labels = community_labels(graph)
    if labels is None:
        return Value(math.nan, f"{whole.n:,} units in {len(whole.of_layers):,} groups of layers: their sums do not fit")
    return Value(modularity_of(whole, labels), f"a lower bound; {ALONE}")


@metric(
    group="science",
    scope="network",
    unit="fraction",
    source="Lü, Pan, Zhou, Zhang & Stanley, Toward link predictability of complex networks, PNAS 2015",
    ordered=True,
)
def structural_consistency(graph: WiredGraph) -> Value:
    """Of a tenth of the edges of layers, taken out, the share that the eigenvectors of the rest rank first; of 5 draws.

    Ranked are the pairs of units that the same group of a layer could join.
    """
    from topo.graph.consistency import consistency

    whole = whole_graph(graph)
    edges = int(np.count_nonzero(whole.of_layers[whole.made_by]))
    if not edges:
        return Value(math.nan, NO_EDGES)
    if (count := np.count_nonzero(whole.degrees)) > _WIDEST:
        return Value(math.nan, f"{count:,} units have edges; eigenvectors are computed up to {_WIDEST:,}")
    rng, takes = np.random.default_rng(0), max(edges // 10, 1)
    of_layers = np.flatnonzero(whole.of_layers[whole.made_by])
    drawn = [rng.choice(of_layers, takes, replace=False) for _ in range(_REMOVALS)]
    share = float(np.mean([consistency(whole, taken) for taken in drawn]))
    if math.isnan(share):
        return Value(share, "layers join every pair of units that they could: no other can be ranked beside an edge")
    return Value(share, ALONE)
