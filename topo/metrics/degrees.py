"""DEGREES: how evenly the weights of a layer are spread over its units, side by side, in the view of single layers.

The fan-in of a right unit (an output) and the fan-out of a left unit (an input) count kept weights, multiplicities
included. Left units are pairs (input channel, kernel position) in the kernel view, input channels or features in the
others; in the unit view the kept weights of one kernel are one edge. Every unit counts, also one without an edge: a
side of n units with E edges has the mean E / n, and dead units make it uneven. Convolutions with groups have their own
left units in each group.

Notation: x_1 <= ... <= x_n the degrees of one side, E their sum.
"""

from __future__ import annotations

import math

import numpy as np

from topo.graph import Block, LayeredGraph
from topo.graph.memo import shared
from topo.metrics import metric
from topo.report import Value

_PROFILES = "Tomczak, fan-in profiles of sparse networks, arXiv 2604.10560"
_NEWMAN = "Newman, Assortative Mixing in Networks, PRL 89, 2002"
_EMPTY = Value(math.nan, "the layer keeps no weight")


def _layer(unit: str, source: str = "definition"):
    return metric(group="degrees", scope="layer", unit=unit, source=source, wired=False, view="layer")


@shared
def _fan_ins(graph: LayeredGraph) -> dict[str, np.ndarray]:
    return {block.name: block.layer_edges.fan_in() for block in graph.masked_blocks}


@shared
def _fan_outs(graph: LayeredGraph) -> dict[str, np.ndarray]:
    return {block.name: block.layer_edges.fan_out() for block in graph.masked_blocks}


def fan_in(graph: LayeredGraph, block: Block) -> np.ndarray:
    """int64 (out,): edges of each right unit of a masked layer, in the layer view."""
    return _fan_ins(graph)[block.name]


def fan_out(graph: LayeredGraph, block: Block) -> np.ndarray:
    """int64 (left units,): edges of each left unit of a masked layer, in the layer view."""
    return _fan_outs(graph)[block.name]


# Of a list of degrees, or of any numbers that are not negative. Sums are exact, so that equal degrees give exactly 0.


def variation(degrees: np.ndarray) -> float:
    """Coefficient of variation: standard deviation over mean, sqrt(n sum x^2 - E^2) / E; NaN where E = 0.

    >>> variation(np.array([0, 2])), variation(np.array([3, 3, 3]))
    (1.0, 0.0)
    """
    total, squares = int(degrees.sum()), int((degrees * degrees).sum())
    return math.sqrt(len(degrees) * squares - total**2) / total if total else math.nan


def gini(degrees: np.ndarray) -> float:
    """Gini coefficient: sum_i (2 i - n - 1) x_i / (n E); NaN where E = 0.

    0 where all degrees are equal, 1 - 1 / n where one unit has all edges.

    >>> gini(np.array([0, 0, 0, 7])), gini(np.array([3, 3, 3]))
    (0.75, 0.0)
    """
    n, total = len(degrees), int(degrees.sum())
    ranks = 2 * np.arange(1, n + 1, dtype=np.int64) - n - 1
    return int((ranks * np.sort(degrees)).sum()) / (n * total) if total else math.nan


def peak(degrees: np.ndarray) -> float:
    """Largest over mean: n x_n / E; NaN where E = 0.

    >>> peak(np.array([0, 0, 0, 7]))
    4.0
    """
    total = int(degrees.sum())
    return len(degrees) * int(degrees.max()) / total if total else math.nan


def _defined(number: float) -> Value:
    return _EMPTY if math.isnan(number) else Value(number)


# Outputs.


@_layer("edges")
def layer_fan_in_mean(graph: LayeredGraph, block: Block) -> float:
    """Mean fan-in over all right units, dead ones too: E / n."""
    return float(fan_in(graph, block).mean())


@_layer("ratio", _PROFILES)
def layer_fan_in_cv(graph: LayeredGraph, block: Block) -> Value:
    """Coefficient of variation of the fan-ins: standard deviation over mean, 0 where all are equal."""
    return _defined(variation(fan_in(graph, block)))


@_layer("ratio")
def layer_fan_in_gini(graph: LayeredGraph, block: Block) -> Value:
    """Gini coefficient of the fan-ins: 0 where all are equal, 1 - 1/n where one unit has all edges."""
    return _defined(gini(fan_in(graph, block)))


@_layer("edges")
def layer_fan_in_max(graph: LayeredGraph, block: Block) -> int:
    """Largest fan-in of a right unit."""
    return int(fan_in(graph, block).max())


@_layer("ratio")
def layer_fan_in_max_ratio(graph: LayeredGraph, block: Block) -> Value:
    """Largest fan-in over the mean: the imbalance of the rows, which bounds what a parallel product can gain."""
    return _defined(peak(fan_in(graph, block)))


# Inputs.


@_layer("edges")
def layer_fan_out_mean(graph: LayeredGraph, block: Block) -> float:
    """Mean fan-out over all left units, dead ones too: E / n."""
    return float(fan_out(graph, block).mean())


@_layer("ratio")
def layer_fan_out_cv(graph: LayeredGraph, block: Block) -> Value:
    """Coefficient of variation of the fan-outs: standard deviation over mean, 0 where all are equal."""
    return _defined(variation(fan_out(graph, block)))


@_layer("ratio")
def layer_fan_out_gini(graph: LayeredGraph, block: Block) -> Value:
    """Gini coefficient of the fan-outs: 0 where all are equal, 1 - 1/n where one unit has all edges."""
    return _defined(gini(fan_out(graph, block)))


@_layer("edges")
def layer_fan_out_max(graph: LayeredGraph, block: Block) -> int:
    """Largest fan-out of a left unit."""
    return int(fan_out(graph, block).max())


@_layer("ratio")
def layer_fan_out_max_ratio(graph: LayeredGraph, block: Block) -> Value:
    """Largest fan-out over the mean."""
    return _defined(peak(fan_out(graph, block)))


@_layer("units")
def layer_dead_columns(graph: LayeredGraph, block: Block) -> int:
    """Left units without an edge: dead_in, but in the kernel view pairs (input channel, kernel position)."""
    return int(np.count_nonzero(fan_out(graph, block) == 0))


# Both.


@_layer("correlation", _NEWMAN)
def layer_degree_assortativity(graph: LayeredGraph, block: Block) -> Value:
    """Pearson correlation, over the edges, of the degrees of their two ends; above 0 hubs are joined to hubs.

    An edge of multiplicity m counts m times. Undefined where a side is regular: all its units that have an edge have
    the same degree.
    """
    left, right = fan_out(graph, block), fan_in(graph, block)
    edges = int(left.sum())
    if edges == 0:
        return _EMPTY
    for side, degrees in (("left", left), ("right", right)):
        used = degrees[degrees > 0]
        if used.min() == used.max():
            return Value(math.nan, f"no variance: every {side} unit that has an edge has {used[0]}")
    centred = [degrees - float(degrees @ degrees) / edges for degrees in (left, right)]
    covariance = float(centred[1] @ block.layer_edges.pull(centred[0]))
    variances = [float(degrees @ (offset * offset)) for degrees, offset in zip((left, right), centred)]
    return Value(covariance / math.sqrt(variances[0] * variances[1]))
