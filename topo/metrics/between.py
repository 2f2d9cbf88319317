"""SPECTRAL, between layers: how well the connections of one layer meet those of the next that reads it.

Of the released code of Hoang et al. (ICLR 2023), in the kernel view whatever view is asked for. A pair of layers is one
in which the second reads units that the first makes, with no join between them. Degrees are taken over all units, so
that isolated units at the end of a layer shift nothing (in the released code they do).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from topo._support.doors import summary
from topo.graph import Block, LayeredGraph
from topo.graph.bipartite import Bipartite, of_block
from topo.graph.memo import shared
from topo.metrics import metric
from topo.metrics.spectral import bipartites
from topo.report import Value

_VITA = "released code of Hoang et al., Revisiting Pruning at Initialization, ICLR 2023 (scores.py)"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers of which the second reads the first.

    kernel_size: int64 (t,), the columns of the second's weight matrix that read the first; made: int64 (t,), ascending,
    the output of the first that each of them reads.
    """

    first: Block
    second: Block
    before: Bipartite
    after: Bipartite
    kernel_size: np.ndarray
    made: np.ndarray


@shared
def pairs(graph: LayeredGraph) -> list[Pair]:
    """Pairs of masked layers of a wired graph, in running order of the second."""
    steps = [step for step in graph.steps if isinstance(step, Block)]
    whole = [block for block in graph.masked_blocks if block.layer_view == "kernel"]
    seen = {(id(block.rows), block.groups): bipartites(graph)[block.name] for block in whole}

    def of_kernels(block: Block) -> Bipartite:  # of the part that is used; whole uses of a parameter share their rows
        key = (id(block.rows), block.groups)
        if key not in seen:
            seen[key] = of_block(replace(block, layer_view="kernel"))
        return seen[key]

    found = []
    starts = np.array([step.layer.start for step in steps if step.layer is not None], np.int64)
    stops = np.array([step.layer.stop for step in steps if step.layer is not None], np.int64)
    for place, second in enumerate(steps):
        units, reads = np.repeat(second.reads, second.kernel_size), np.sort(second.reads)
        read = np.searchsorted(reads, starts[:place]) < np.searchsorted(reads, stops[:place])
        for first in map(steps.__getitem__, np.flatnonzero(read)):
            if first.masked and second.masked:
                kernel_size = np.flatnonzero((units >= first.use.start) & (units < first.use.stop))
                made = units[kernel_size] - first.use.start
                order = np.argsort(made, kind="stable")
                found.append(
                    Pair(first, second, of_kernels(first), of_kernels(second), kernel_size[order], made[order])
                )
    return found


def copeland(pair: Pair) -> float:
    """Mean over outputs c of the first layer and the kernel_size t that read them of b_ct / a_c.

    a_c: in-degree of c over the left units of the first layer that are not isolated; b_ct: out-degree of t over the
    right units of the second that are not. Outputs without an edge are skipped; NaN if none is left.
    """
    left, right = np.count_nonzero(pair.before.left_degrees), np.count_nonzero(pair.after.right_degrees)
    fed = pair.before.right_degrees[pair.made] > 0
    if not fed.any() or not right:
        return math.nan
    a = pair.before.right_degrees[pair.made[fed]] / left
    return float(np.mean(pair.after.left_degrees[pair.kernel_size[fed]] / right / a))


def overlap_coefficient(pair: Pair) -> float:
    """Mean over outputs c of |intersection of the right neighbours of the kernel_size that read c| / the smallest of
    them.

    Outputs with a tap without neighbours are skipped; NaN if none is left.
    """
    starts = np.flatnonzero(np.diff(pair.made, prepend=-1))
    least = np.minimum.reduceat(pair.after.left_degrees[pair.kernel_size], starts)
    if not least.any():
        return math.nan
    common = np.bitwise_and.reduceat(pair.after.turned.words[pair.kernel_size], starts, axis=0)
    sizes = np.bitwise_count(common).sum(axis=1, dtype=np.int64)
    return float(np.mean(sizes[least > 0] / least[least > 0]))


def compatibility(pair: Pair) -> float:
    """Share of the outputs that are read and have an edge in the first layer that have one in the second; or NaN."""
    starts = np.flatnonzero(np.diff(pair.made, prepend=-1))
    fed = pair.before.right_degrees[pair.made[starts]] > 0
    if not fed.any():
        return math.nan
    leading = np.maximum.reduceat(pair.after.left_degrees[pair.kernel_size], starts) > 0
    return float(np.mean(leading[fed]))


def _enter(function: Callable[[Pair], float]) -> None:
    def mean(graph: LayeredGraph) -> float | Value:
        values = [value for value in map(function, pairs(graph)) if not math.isnan(value)]
        if values:
            return math.fsum(values) / len(values)
        return Value(
            math.nan, "no layer reads another's outputs directly" if not pairs(graph) else "no pair has it defined"
        )

    mean.__name__ = function.__name__
    mean.__doc__ = f"Mean over pairs of layers, one reading the other: {summary(function)}"
    metric(group="spectral", scope="network", unit="ratio", source=_VITA, wired=True, view="layer")(mean)


for _function in (copeland, overlap_coefficient, compatibility):
    _enter(_function)
