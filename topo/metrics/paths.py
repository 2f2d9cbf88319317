"""PATHS group: collapsed layers, the number of paths, and the share of all paths that meet a unit or an edge.

Notation: F_i paths from the inputs to unit i, B_j paths from unit j to the outputs, M_ij kept weights from i to j, P
all paths.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from topo._support.names import unknown
from topo.errors import TopoError
from topo.graph import Block, WiredGraph, paths, shared
from topo.graph.paths import unit_centrality
from topo.metrics import metric
from topo.metrics.nodes import NPB
from topo.metrics.parameters import effective_by_layer, effective_masks
from topo.report import Value

NO_PATH = "no path from the inputs to the outputs is left"
_network = partial(metric, group="paths", scope="network")

__all__ = ["edge_centrality", "effective_masks", "first_use_on_paths", "has_paths", "unit_centrality"]


@_network(unit="layers")
def layer_collapse(graph: WiredGraph) -> Value:
    """Number of masked layers without an effective parameter; the note names them."""
    by_layer = effective_by_layer(graph)
    names = [block.name for block in graph.masked_blocks if by_layer[block.name] == 0]
    return Value(len(names), f"no effective parameter in: {', '.join(names)}" if names else None)


@_network(unit="paths", source=NPB)
def effective_paths(graph: WiredGraph) -> int:
    """P: paths from an input unit to an output unit along kept weights, exact."""
    return paths.exact_paths(graph)


@_network(unit="log10 paths", source=NPB)
def log10_effective_paths(graph: WiredGraph) -> Value:
    """log10 P, -inf if no path is left; by mantissa and exponent, on any depth."""
    value = paths.log10(paths.effective_counts(graph).forward_total())
    return Value(value, NO_PATH if value == -math.inf else None)


def edge_centrality(graph: WiredGraph, name: str) -> np.ndarray:
    """F_i M_ij B_j / P, the share of all paths on each edge of a layer: float64 (out, in / groups), NaN if none.

    The layer is the first use of the parameter `name` that a path could meet; its columns are the input channels of
    each group, in order.
    """
    walk = paths.effective_counts(graph)
    mantissa, exponent = walk.forward_total()
    if name not in first_use_on_paths(graph):
        raise TopoError(unknown("layer", name, first_use_on_paths(graph)))
    index = first_use_on_paths(graph)[name]
    step = graph.steps[index]
    assert isinstance(step, Block)
    rows, columns = step.shape[0], step.shape[1]
    if not mantissa or step.source:
        return np.full((rows, columns), np.nan)
    ahead, behind = walk.gather(step.reads), walk.backward[index + 1]
    shift = int(np.clip(ahead.exponent + behind.exponent - exponent, -2000, 2000))
    kept_ = step.rows.unpack().reshape(rows, columns, -1).sum(axis=2)
    per_group = ahead.mantissa.reshape(step.groups, columns).repeat(rows // step.groups, axis=0)
    return np.ldexp(kept_ * per_group * behind.mantissa[:, None] / mantissa, shift)


@shared
def first_use_on_paths(graph: WiredGraph) -> dict[str, int]:
    """Parameter -> the first step that uses it and that a path could meet; where none could, the first."""
    ahead, behind = graph.wiring.reachable
    found: dict[str, int] = {}
    for index, step in enumerate(graph.steps):
        if isinstance(step, Block) and step.layer is not None and step.name not in found:
            made = (behind[step.layer.start : step.layer.stop] & step.layer.part[0]).reshape(step.groups, -1)
            if (made.any(axis=1) & ahead[step.reads].reshape(step.groups, -1).any(axis=1)).any():
                found[step.name] = index
    first = {step.name: index for index, step in reversed(list(enumerate(graph.steps))) if isinstance(step, Block)}
    return first | found


def has_paths(graph: WiredGraph) -> bool:
    """Whether any path leads from an input to an output."""
    return paths.effective_counts(graph).forward_total()[0] > 0
