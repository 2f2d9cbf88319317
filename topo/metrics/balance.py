"""PATHS group: how evenly paths use parameters and nodes, by entropies of a uniformly random path, in nats.

Notation: F_i paths from the inputs to unit i, B_j paths from unit j to the outputs, M_ij kept weights from i to j, P
all paths.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from topo._support.distinct import distinct
from topo.graph import Block, WiredGraph, paths, shared
from topo.metrics import metric
from topo.metrics.nodes import node_layers
from topo.metrics.paths import NO_PATH, first_use_on_paths, has_paths
from topo.report import Value

BALANCE = "node-path balance law: log P + sum H(V) = sum H(pi) <= sum log n"
_network = partial(metric, group="paths", scope="network")
_layer = partial(metric, group="paths", scope="layer")


_AT_ONCE = 1 << 20  # units whose logarithms are taken together


def _sum_of_logs(weights: np.ndarray, by: np.ndarray) -> float:
    """Sum of w log w b over weights w above 0, some at a time: of ten million units three more vectors were held."""
    total = 0.0
    for first in range(0, len(weights), _AT_ONCE):
        part, times = weights[first : first + _AT_ONCE], by[first : first + _AT_ONCE]
        inside = part > 0
        total += float((part[inside] * np.log(part[inside])) @ times[inside])
    return total


def _entropy(weights: np.ndarray) -> float:
    """Shannon entropy of weights / sum(weights); 0 if they are all 0."""
    total = weights.sum()
    if total <= 0:
        return 0.0
    found = 0.0
    for first in range(0, len(weights), _AT_ONCE):
        share = weights[first : first + _AT_ONCE]
        share = share[share > 0] / total
        found -= float((share * np.log(share)).sum())
    return found


def _width(weights: np.ndarray) -> float:
    """exp of the entropy (Hill number): how many units share the paths; 0 if no path comes by."""
    return math.exp(_entropy(weights)) if weights.sum() > 0 else 0.0


@shared
def _widths(graph: WiredGraph) -> dict[int, float]:
    """Step -> width of the layer's inputs: the Hill number of F_i sum_j M_ij B_j over its input units."""
    walk = paths.effective_counts(graph)
    found = {}
    for index, read in walk.read.items():
        step = graph.steps[index]
        assert isinstance(step, Block)
        reads, through = step.edges.reads, read.mantissa * walk.pushed[index].mantissa
        if len(distinct(reads)) < len(reads):
            _, places = np.unique(reads, return_inverse=True)
            through = np.bincount(places, through)
        found[index] = _width(through)
    return found


@_network(unit="nodes", source=BALANCE)
def path_entropy_width(graph: WiredGraph) -> Value:
    """Effective number of nodes: sum over layers (as `nodes`) of exp H of the unit that a random path visits."""
    if not has_paths(graph):
        return Value(math.nan, NO_PATH)
    walk, widths = paths.effective_counts(graph), _widths(graph)
    return Value(
        sum(widths[index] for index, _ in node_layers(graph)) + _width(walk.gather(graph.wiring.outputs).mantissa),
        None,
    )


@_layer(unit="nodes", source=BALANCE)
def layer_path_entropy_width(graph: WiredGraph, block: Block) -> Value:
    """exp of the Shannon entropy of the input unit that a random path through the layer visits; 0 if none passes.

    Of a parameter that is used several times, in the first use that a path could meet.
    """
    if not has_paths(graph):
        return Value(math.nan, NO_PATH)
    return Value(_widths(graph)[first_use_on_paths(graph)[block.name]], None)


def entropy_bound(graph: WiredGraph) -> float:
    """Sum over layers of log n, n the kept parameters that a path could meet: what path_entropy reaches at most.

    Parameters that only gate (queries, keys), or lead nowhere in this wiring, are left out: see `Wiring.reachable`.
    """
    ahead, behind = graph.wiring.reachable
    bound = 0.0
    for _, block in graph.uses:
        fed, used = ahead[block.edges.reads], behind[block.use.start : block.use.stop]
        every = fed.all() and used.all()
        total = block.edges.total if every else float(block.edges.pull(fed.astype(np.float64)) @ used)
        bound += math.log(total) if total else 0.0
    return bound


@shared
def _path_entropy(graph: WiredGraph) -> float:
    """Sum over layers of the entropy H of the parameter on a random path through it; 0 of one that no path meets.

    With p_ij = F_i B_j / P_e for each of M_ij parameters, P_e = sum F_i M_ij B_j:
    H = log P_e - [ sum_i F_i log F_i (M^T B)_i + sum_j B_j log B_j (M F)_j ] / P_e, free of the scales of F and B.
    """
    walk = paths.effective_counts(graph)
    found = 0.0
    for index, read in walk.read.items():
        step = graph.steps[index]
        assert isinstance(step, Block)
        ahead, behind = read.mantissa, walk.backward[index + 1].mantissa
        given, taken = walk.forward[index + 1].mantissa, walk.pushed[index].mantissa
        # Both sums run over the same paths: each is divided by its own total, so that the scales cancel.
        total_in, total_out = float(ahead @ taken), float(given @ behind)
        if total_in <= 0 or total_out <= 0:
            continue
        mean_ahead = _sum_of_logs(ahead, taken) / total_in
        mean_behind = _sum_of_logs(behind, given) / total_out
        log_total = math.log(total_in) + (walk.pushed[index].exponent - walk.backward[index + 1].exponent) * math.log(
            2.0
        )
        found += max(log_total - mean_ahead - mean_behind, 0.0)
    return found


@_network(unit="nats", source=BALANCE)
def path_entropy(graph: WiredGraph) -> Value:
    """U = sum over layers of the entropy of the parameter that a random path through the layer uses."""
    return Value(_path_entropy(graph), None) if has_paths(graph) else Value(math.nan, NO_PATH)


@_network(unit="fraction", source=BALANCE)
def balance_gap(graph: WiredGraph) -> Value:
    """1 - U / sum over layers of log n, n kept weights: 0 iff every parameter of a layer lies on equally many paths.

    A layer whose paths are all cut wastes its n parameters; those that no path could meet, as they only gate or lead
    nowhere, count in neither sum.
    """
    if not has_paths(graph):
        return Value(math.nan, NO_PATH)
    bound = entropy_bound(graph)
    if bound == 0:
        return Value(math.nan, "every layer keeps a single parameter: the bound is 0")
    return Value(max(1.0 - _path_entropy(graph) / bound, 0.0), None)
