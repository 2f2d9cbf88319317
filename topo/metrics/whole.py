"""GRAPH: the whole network as one graph of units and edges, `topo.graph.whole`; each number counts what it says.

N units, E edges, each joined pair once. `sinks`, `removable_in` and the like are what a mask leaves behind that no
signal needs; the others are undirected unless they say otherwise. NAME_normalised divides as the paper does, by N or by
E. Directed spectral gaps are not here: they are 0 of every network without cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from topo.graph import WiredGraph
from topo.graph.memo import shared
from topo.graph.twins import Kinds, kinds_of_units
from topo.graph.whole import WholeGraph, whole_graph
from topo.metrics import metric
from topo.metrics.paths import NO_PATH
from topo.metrics.weighted import why_no_weights
from topo.report import Value

_CUNEGATTI = "Cunegatti et al., Understanding Sparse Neural Networks from their Topology, TMLR 2024"
_SABRIN = "Sabrin & Dovrolis, The hourglass effect in hierarchical dependency networks, Network Science 2017"
TAU = 0.9
_DENSE = 400  # units up to which eigenvalues are computed of the whole matrix
_WIDEST = 3_000_000  # units whose 40 vectors of the eigenvalue problem stay within 1 GB
_MOST_WORK = 1 << 34  # edges looked at while a core grows
NO_EDGES = "the graph has no edges"
_network = partial(metric, group="graph", scope="network")


def _per(count: int | float, by: int, what: str) -> Value:
    return Value(count / by, None) if by else Value(math.nan, f"the graph has no {what}")


def _by_units(graph: WiredGraph, number: Callable[[WiredGraph], int]) -> Value:
    return _per(number(graph), whole_graph(graph).n, "units")


def _by_edges(graph: WiredGraph, number: Callable[[WiredGraph], int | float | Value]) -> Value:
    found = number(graph)
    if isinstance(found, Value):
        if math.isnan(found.number):
            return found
        found = found.number
    return _per(found, whole_graph(graph).size, "edges")


# Units that no signal needs.


def _sinks(whole: WholeGraph) -> np.ndarray:
    return (whole.out_degrees == 0) & (whole.in_degrees > 0) & ~whole.outputs


def _sources(whole: WholeGraph) -> np.ndarray:
    return (whole.in_degrees == 0) & (whole.out_degrees > 0) & ~whole.inputs


@_network(unit="units", source=_CUNEGATTI)
def sinks(graph: WiredGraph) -> int:
    """Units that are fed and feed nothing, outputs left out."""
    return int(np.count_nonzero(_sinks(whole_graph(graph))))


@_network(unit="fraction", source=_CUNEGATTI)
def sinks_normalised(graph: WiredGraph) -> Value:
    """sinks / N."""
    return _by_units(graph, sinks)


@_network(unit="units", source=_CUNEGATTI)
def sources(graph: WiredGraph) -> int:
    """Units that feed others and are not fed, inputs left out."""
    return int(np.count_nonzero(_sources(whole_graph(graph))))


@_network(unit="fraction", source=_CUNEGATTI)
def sources_normalised(graph: WiredGraph) -> Value:
    """sources / N."""
    return _by_units(graph, sources)


@_network(unit="units", source=_CUNEGATTI)
def disconnected(graph: WiredGraph) -> int:
    """Units without an edge."""
    whole = whole_graph(graph)
    return whole.n - int(np.count_nonzero(whole.degrees))


@_network(unit="fraction", source=_CUNEGATTI)
def disconnected_normalised(graph: WiredGraph) -> Value:
    """disconnected / N."""
    return _by_units(graph, disconnected)


@_network(unit="edges", source=_CUNEGATTI)
def removable_in(graph: WiredGraph) -> int:
    """Edges that leave `sources`: they carry nothing."""
    whole = whole_graph(graph)
    return int(whole.out_degrees[_sources(whole)].sum())


@_network(unit="fraction", source=_CUNEGATTI)
def removable_in_normalised(graph: WiredGraph) -> Value:
    """removable_in / E."""
    return _by_edges(graph, removable_in)


@_network(unit="edges", source=_CUNEGATTI)
def removable_out(graph: WiredGraph) -> int:
    """Edges that lead into `sinks`: what they carry ends there."""
    whole = whole_graph(graph)
    return int(whole.in_degrees[_sinks(whole)].sum())


@_network(unit="fraction", source=_CUNEGATTI)
def removable_out_normalised(graph: WiredGraph) -> Value:
    """removable_out / E."""
    return _by_edges(graph, removable_out)


# Neighbourhoods.


@_network(unit="units", source=_CUNEGATTI)
def one_hop(graph: WiredGraph) -> Value:
    """Mean number of units that a unit reaches along at most one edge, itself counted: 1 + E / N."""
    whole = whole_graph(graph)
    return _per(whole.n + whole.size, whole.n, "units")


@_network(unit="units / edge", source=_CUNEGATTI)
def one_hop_normalised(graph: WiredGraph) -> Value:
    """one_hop / E."""
    return _by_edges(graph, one_hop)


@_network(unit="units", source=_CUNEGATTI)
def two_hop(graph: WiredGraph) -> Value:
    """Mean number of units that a unit reaches along at most two edges, itself counted."""
    return _per(_two_hops(graph), whole_graph(graph).n, "units")


@shared
def _two_hops(graph: WiredGraph) -> int:
    from topo.kernels import whole as kernels

    return int(kernels.two_hop(*whole_graph(graph).outgoing[:2]))


@_network(unit="units / edge", source=_CUNEGATTI)
def two_hop_normalised(graph: WiredGraph) -> Value:
    """two_hop / E."""
    return _by_edges(graph, two_hop)


@_network(unit="paths", source=_CUNEGATTI)
def two_paths(graph: WiredGraph) -> int:
    """Undirected paths of two edges: sum over units of C(degree, 2)."""
    degrees, units = whole_graph(graph).many_of_each
    return int((degrees * (degrees - 1) // 2) @ units)


@_network(unit="paths / edge", source=_CUNEGATTI)
def two_paths_normalised(graph: WiredGraph) -> Value:
    """two_paths / E."""
    return _by_edges(graph, two_paths)


@_network(unit="weight", source=_CUNEGATTI)
def mean_strength(graph: WiredGraph) -> Value:
    """Mean over units of the sum of |w| on their edges, 2 sum |w| / N; an edge without a weight (a skip) weighs 1.

    It takes the weights of every layer; a parameter that is used twice counts for each use.
    """
    if why := why_no_weights(graph):
        return Value(math.nan, why)
    return _per(2 * _weight(graph), whole_graph(graph).n, "units")


@shared
def _weight(graph: WiredGraph) -> float:
    from topo.graph.whole import total_weight

    return total_weight(graph)


@_network(unit="weight / edge", source=_CUNEGATTI)
def mean_strength_normalised(graph: WiredGraph) -> Value:
    """mean_strength / E."""
    return _by_edges(graph, mean_strength)


@_network(unit="degree", source=_CUNEGATTI)
def mean_coreness(graph: WiredGraph) -> Value:
    """Mean over units of the largest k whose k-core holds the unit."""
    return _per(_cores(graph), whole_graph(graph).n, "units")


@shared
def _cores(graph: WiredGraph) -> int:
    from topo.kernels import whole as kernels

    whole = whole_graph(graph).joined[0]
    found = np.empty(whole.n, np.int32)
    kernels.coreness(*whole.both, found)
    return int(found.sum(dtype=np.int64))


@_network(unit="degree / edge", source=_CUNEGATTI)
def mean_coreness_normalised(graph: WiredGraph) -> Value:
    """mean_coreness / E."""
    return _by_edges(graph, mean_coreness)


# Connectedness.


@shared
def _components(graph: WiredGraph) -> tuple[int, int]:
    from topo.kernels import whole as kernels

    n, whole = whole_graph(graph).n, whole_graph(graph).joined[0]
    count, largest = kernels.components(*whole.both, np.empty(whole.n, np.int32))
    return int(count) + n - whole.n, max(int(largest), min(n, 1))


@_network(unit="components", source=_CUNEGATTI)
def connected_components(graph: WiredGraph) -> int:
    """Weakly connected components, units without an edge among them."""
    return _components(graph)[0]


@_network(unit="units")
def largest_component(graph: WiredGraph) -> int:
    """Units of the largest weakly connected component."""
    return _components(graph)[1]


@_network(unit="fraction")
def largest_component_normalised(graph: WiredGraph) -> Value:
    """largest_component / N."""
    return _by_units(graph, largest_component)


@shared
def _cuts(graph: WiredGraph) -> tuple[int, int]:
    from topo.kernels import whole as kernels

    bridges, points = kernels.cuts(*whole_graph(graph).joined[0].both)
    return int(bridges), int(points)


@_network(unit="edges", source=_CUNEGATTI)
def cut_edges(graph: WiredGraph) -> int:
    """Bridges: edges without which there are more components."""
    return _cuts(graph)[0]


@_network(unit="fraction", source=_CUNEGATTI)
def cut_edges_normalised(graph: WiredGraph) -> Value:
    """cut_edges / E."""
    return _by_edges(graph, cut_edges)


@_network(unit="units", source=_CUNEGATTI)
def cut_nodes(graph: WiredGraph) -> int:
    """Articulation points: units without which there are more components."""
    return _cuts(graph)[1]


@_network(unit="units / edge", source=_CUNEGATTI)
def cut_nodes_normalised(graph: WiredGraph) -> Value:
    """cut_nodes / E."""
    return _by_edges(graph, cut_nodes)


# The core that paths pass.


@shared
def _core(graph: WiredGraph) -> tuple[list[int] | None, str | None]:
    """(units of the core, why not)."""
    from topo.graph.whole import core_of_paths

    found = core_of_paths(whole_graph(graph), TAU, _MOST_WORK)
    if found is None:
        return None, f"the core has so many units that more than {_MOST_WORK:,} edges would be looked at"
    return (found, None) if found else (None, NO_PATH)


def core_units(graph: WiredGraph) -> list[int]:
    """The units of the tau-core in the order in which they were taken, as numbers of the whole graph; [] if undefined.

    Source: Sabrin & Dovrolis, Network Science 2017.
    """
    return _core(graph)[0] or []


@_network(unit="units", source=_SABRIN, ordered=True)
def tau_core(graph: WiredGraph) -> Value:
    """Units that together meet 90 % of all paths: the one on most is taken, paths are counted anew, and so on.

    Inputs and outputs may be taken. Of units on equally many paths the first in running order is.
    """
    units, why = _core(graph)
    return Value(math.nan, why) if units is None else Value(len(units), None)


@_network(unit="fraction", source=_SABRIN, ordered=True)
def tau_core_share(graph: WiredGraph) -> Value:
    """tau_core / N."""
    units, why = _core(graph)
    return Value(math.nan, why) if units is None else _per(len(units), whole_graph(graph).n, "units")


@_network(unit="score", source=_SABRIN, ordered=True)
def h_score(graph: WiredGraph) -> Value:
    """1 - tau_core / that of the flat network, where each path is an edge from its input to its output.

    Near 1 of an hourglass, whose waist all paths pass; 0 where inputs and outputs are the waist.
    """
    from topo.graph.whole import flat_core

    units, why = _core(graph)
    if units is None:
        return Value(math.nan, why)
    flat = flat_core(whole_graph(graph), TAU, _MOST_WORK)
    if flat is None:
        why = "too many inputs and outputs are joined by paths, or by too many edges, to take the flat core"
        return Value(math.nan, why)
    return Value(1 - len(units) / flat, None)


# Spectra of the undirected graph.


@shared
def _kinds(graph: WiredGraph) -> Kinds:
    return kinds_of_units(whole_graph(graph))


def _too_wide(count: int) -> str | None:
    if count > _WIDEST:
        return f"{count:,} units have edges, no two the same ones; eigenvalues are computed up to {_WIDEST:,}"
    return None


def _no_spectrum(graph: WiredGraph) -> str | None:
    """Why the eigenvalues of this graph are not computed."""
    return _too_wide(len(_kinds(graph).sizes)) if whole_graph(graph).size else NO_EDGES


def _largest(kinds: Kinds, laplacian: bool, count: int) -> np.ndarray:
    """The largest eigenvalues of the adjacency matrix, or of the Laplacian, falling; to 1e-8 of the largest."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n, degrees = len(kinds.sizes), kinds.degrees
    if n <= _DENSE:
        matrix = kinds.matrix()
        found = np.linalg.eigvalsh(np.diag(degrees) - matrix if laplacian else matrix)
    else:

        def times(x: np.ndarray) -> np.ndarray:
            x = x.reshape(-1)
            return degrees * x - kinds.times(x) if laplacian else kinds.times(x)

        first = np.random.default_rng(0).random(n) + 0.5
        operator = LinearOperator((n, n), matvec=times, dtype=np.float64)
        basis = min(40, max(12, 10**6 // n))  # vectors: with 40 of millions of units they would take gigabytes
        found = eigsh(operator, count, which="LA", v0=first, ncv=basis, tol=1e-8, return_eigenvectors=False)
    found = np.append(found, np.zeros(min(kinds.left_out, 1)))  # of units without an edge, and of twins
    return np.sort(found)[::-1][:count]


@_network(unit="eigenvalue", source=_CUNEGATTI)
def laplacian_radius(graph: WiredGraph) -> Value:
    """Largest eigenvalue of the Laplacian, degrees minus adjacency."""
    if reason := _no_spectrum(graph):
        return Value(math.nan, reason)
    return Value(float(_largest(_kinds(graph), True, 1)[0]), None)


@_network(unit="eigenvalue", source=_CUNEGATTI)
def graph_spectral_gap(graph: WiredGraph) -> Value:
    """The largest eigenvalue of the adjacency matrix less the second: 0 where two components are equally dense."""
    if reason := _no_spectrum(graph):
        return Value(math.nan, reason)
    first, second = _largest(_kinds(graph), False, 2)
    return Value(float(first - second), None)


# Spectra of the undirected graph whose edges weigh the sum of |w| behind them.


@shared
def _weighted_largest(graph: WiredGraph) -> tuple[float, float, str | None]:
    """(gap of the adjacency matrix, largest eigenvalue of the Laplacian, why not)."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import eigsh

    from topo.graph.whole import weighted_graph

    if why := why_no_weights(graph):
        return math.nan, math.nan, why
    if graph.view == "unrolled":
        return math.nan, math.nan, "edges are weighted in the channel and the unit view; strengths in the unrolled one"
    whole = weighted_graph(graph)
    if not whole.size:
        return math.nan, math.nan, NO_EDGES
    if why := _too_wide(int(np.count_nonzero(whole.degrees))):
        return math.nan, math.nan, why
    weights = whole.outgoing[2]
    if not (scale := float(weights.max())):
        return 0.0, 0.0, None
    half = coo_array((weights / scale, (whole.begins, whole.outgoing[1])), shape=(whole.n, whole.n)).tocsr()
    matrix = half + half.T
    strengths = np.asarray(matrix.sum(axis=1)).reshape(-1)
    found = []
    for operator, count in ((matrix, 2), (diags_array(strengths) - matrix, 1)):
        if whole.n <= _DENSE:
            values = np.linalg.eigvalsh(operator.toarray())
        else:
            first = np.random.default_rng(0).random(whole.n) + 0.5
            basis = min(40, max(12, 10**6 // whole.n))
            values = eigsh(operator, count, which="LA", v0=first, ncv=basis, tol=1e-8, return_eigenvectors=False)
        found.append(np.sort(values)[::-1])
    return scale * float(found[0][0] - found[0][1]), scale * float(found[1][0]), None


@_network(unit="eigenvalue", source=_CUNEGATTI, weighted=True)
def weighted_graph_spectral_gap(graph: WiredGraph) -> Value:
    """graph_spectral_gap of the graph whose edges weigh the sum of |w| of the kept weights behind them, a skip's 1.

    It takes the weights of every layer. In the unrolled view it is undefined.
    """
    gap, _, why = _weighted_largest(graph)
    return Value(gap, why)


@_network(unit="eigenvalue", source=_CUNEGATTI, weighted=True)
def weighted_laplacian_radius(graph: WiredGraph) -> Value:
    """Largest eigenvalue of the Laplacian, strengths minus adjacency, of the graph of weighted_graph_spectral_gap."""
    _, radius, why = _weighted_largest(graph)
    return Value(radius, why)
