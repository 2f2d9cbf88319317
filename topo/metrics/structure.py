"""STRUCTURE: patterns that hardware can use, how many masks there are like this one, and the profile of densities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from topo.errors import TopoError
from topo.graph import Block, LayeredGraph
from topo.masks import BitRows
from topo.metrics import metric
from topo.metrics.diversity import log2_choices
from topo.n_m import kept_in_groups
from topo.quotas import budgets
from topo.report import Value

_HUBARA = "Hubara et al., Accelerated Sparse Neural Training, NeurIPS 2021"
_EVCI = "Evci et al., Rigging the Lottery, ICML 2020"
_VK = "Vysogorets & Kempe, Connectivity Matters, arXiv 2107.02306"


def _layer(unit: str, source: str = "definition", *, ordered: bool = False):
    return metric(
        group="structure", scope="layer", unit=unit, source=source, wired=False, view="layer", ordered=ordered
    )


def _network(unit: str, source: str = "definition"):
    return metric(group="structure", scope="network", unit=unit, source=source, wired=False)


# Patterns: they depend on the order of the units.


def n_m_compliance(mask: Any, n: int, m: int) -> float:
    """Share of the groups of m consecutive inputs that keep at most n, see `topo.n_m`; 1 means that the mask is N:M.

    mask: BitRows, or an array or tensor of 0 and 1, (out, in, ...). A last, incomplete group obeys the same bound.

    >>> n_m_compliance(np.array([[1, 1, 0, 0, 1, 1, 1, 0]]), 2, 4)
    0.5

    Raises TopoError unless 1 <= n <= m, MaskError for what is not a mask.
    """
    if not 1 <= n <= m:
        raise TopoError(f"{n}:{m} is not an N:M pattern; N:M is two whole numbers with 1 <= N <= M, as in 2:4")
    rows = mask if isinstance(mask, BitRows) else BitRows.of_mask(mask)
    over = sum(int(np.count_nonzero(kept > n)) for _, kept in kept_in_groups(rows, m))
    groups = rows.shape[0] * -(-rows.shape[1] // m) * (rows.columns // rows.shape[1])
    return (groups - over) / groups


def block_occupancy(mask: Any, height: int = 4, width: int = 4) -> float:
    """Share of the height x width blocks of a mask that hold a kept weight; incomplete blocks at the edges count.

    mask: BitRows, or an array or tensor of 0 and 1, seen as a matrix (out, in / groups * kernel positions).

    >>> block_occupancy(np.eye(8, dtype=bool))
    0.5

    Raises TopoError for a side below 1, MaskError for what is not a mask.
    """
    if height < 1 or width < 1:
        raise TopoError(f"blocks of {height} x {width} weights are none; each side is at least 1")
    rows = mask if isinstance(mask, BitRows) else BitRows.of_mask(mask)
    joined = np.bitwise_or.reduceat(rows.words, np.arange(0, rows.shape[0], height), axis=0)
    columns = BitRows((len(joined), rows.columns), joined).unpack()
    return float(np.logical_or.reduceat(columns, np.arange(0, rows.columns, width), axis=1).mean())


@_layer("fraction", _HUBARA, ordered=True)
def layer_n_m_2_4(graph: LayeredGraph, block: Block) -> float:
    """Share of groups of 4 consecutive inputs that keep at most 2; 1 is a 2:4 mask."""
    return n_m_compliance(block.rows, 2, 4)


@_layer("fraction", _HUBARA, ordered=True)
def layer_n_m_4_8(graph: LayeredGraph, block: Block) -> float:
    """Share of groups of 8 consecutive inputs that keep at most 4; 1 is a 4:8 mask."""
    return n_m_compliance(block.rows, 4, 8)


@_layer("fraction", ordered=True)
def layer_block_occupancy(graph: LayeredGraph, block: Block) -> float:
    """Share of the 4 x 4 blocks of the matrix (out, in * kernel positions) that hold a kept weight."""
    return block_occupancy(block.rows)


@_layer("bits", _HUBARA)
def layer_mask_diversity_bits(graph: LayeredGraph, block: Block) -> float:
    """log2 of the number of masks of the layer with as many kept weights, per weight: log2 C(n, k) / n, at most 1."""
    return log2_choices(block.size, block.kept) / block.size


# The profile of densities.


def _densities(graph: LayeredGraph) -> np.ndarray:
    return np.array([block.kept / block.size for block in graph.masked_blocks])


@_network("fraction")
def mean_density(graph: LayeredGraph) -> float:
    """Mean over the layers of their density; every layer weighs the same, unlike in `density`."""
    return float(_densities(graph).mean())


@_network("fraction")
def min_density(graph: LayeredGraph) -> float:
    """Density of the sparsest layer."""
    return float(_densities(graph).min())


@_network("nats")
def mean_log_density(graph: LayeredGraph) -> Value:
    """Mean over the layers of ln density: the baseline that a topology metric must beat before it is believed."""
    empty = [block.name for block in graph.masked_blocks if block.kept == 0]
    if empty:
        return Value(-math.inf, f"no weight is kept in: {', '.join(empty)}")
    return Value(float(np.log(_densities(graph)).mean()))


def _distance(graph: LayeredGraph, quota: str) -> float:
    """Root mean square over the layers of their density minus the one this quota gives them for the same total."""
    shapes = {block.name: block.shape for block in graph.masked_blocks}
    wanted = budgets(quota, shapes, total=sum(block.kept for block in graph.masked_blocks))
    offsets = np.array([(block.kept - wanted[block.name]) / block.size for block in graph.masked_blocks])
    return float(np.sqrt((offsets * offsets).mean()))


@_network("fraction")
def uniform_distance(graph: LayeredGraph) -> float:
    """Root mean square over the layers of density minus that of the uniform quota for the same total."""
    return _distance(graph, "uniform")


@_network("fraction", _EVCI)
def erk_distance(graph: LayeredGraph) -> float:
    """Root mean square over the layers of density minus that of the ERK quota for the same total."""
    return _distance(graph, "erk")


@_network("fraction", _VK)
def igq_distance(graph: LayeredGraph) -> float:
    """Root mean square over the layers of density minus that of the ideal gas quota for the same total."""
    return _distance(graph, "igq")
