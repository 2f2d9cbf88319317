"""SCIENCE of single layers: what is asked of a whole network, asked of the bipartite graph of each layer in its view.

A layer stands alone: its left units are the inputs of a network of one layer, its right units the outputs. Numbers that
look at all pairs are computed of smaller layers than networks, since there are many of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from topo._support.doors import summary
from topo.graph import Block, LayeredGraph, WiredGraph, build_graph
from topo.graph.memo import shared
from topo.masks import BitRows, MaskSet, kernel_counts
from topo.metrics import metric, science
from topo.report import Value
from topo.wiring import Layer, Wiring

_MOST_EDGES = 1 << 17
_MOST_STEPS = 1 << 26  # units x edges that are looked at, for numbers of all pairs: a second


@shared
def _alone(graph: LayeredGraph) -> dict[int, WiredGraph]:
    """Layers that were looked at, by the identity of their blocks."""
    return {}


def alone(graph: LayeredGraph, block: Block) -> WiredGraph:
    """A layer as a network: its columns (or input channels, as its view says) feed its rows."""
    found = _alone(graph)
    if id(block) not in found:
        if block.layer_view == "kernel" or block.kernel_size == 1:
            rows = BitRows((block.shape[0], block.rows.columns), block.rows.words)
        else:
            rows = BitRows.of_mask(kernel_counts(block.rows.words, block.rows.columns, block.kernel_size) != 0)
        left = block.groups * rows.columns
        layer = Layer(block.name, rows.shape, np.arange(left), left, groups=block.groups)
        wiring = Wiring(np.arange(left), (layer,), left + np.arange(len(rows.words)))
        found[id(block)] = build_graph(MaskSet({block.name: rows}), wiring, "channel")
    return found[id(block)]


def _of_layers(
    function: Callable[[WiredGraph], Value],
    unit: str,
    source: str,
    *,
    steps: int | None = None,
    ordered: bool = False,
) -> None:
    """Register a number of networks for layers, of up to so many units x edges."""

    def of_layer(graph: LayeredGraph, block: Block) -> Value:
        every = block.shape[0] + block.groups * block.rows.columns
        if block.kept > _MOST_EDGES:
            return Value(math.nan, f"{block.kept:,} edges; of layers it is computed up to {_MOST_EDGES:,}")
        if steps is not None and every * block.kept > steps:
            return Value(
                math.nan, f"units x edges are {every * block.kept:,}; of layers, up to {steps:,} are looked at"
            )
        return function(alone(graph, block))

    of_layer.__name__ = of_layer.__qualname__ = f"layer_{function.__name__}"
    of_layer.__doc__ = f"Of the layer alone: {(function.__doc__ or summary(function)).strip()}"
    metric(group="science", scope="layer", unit=unit, source=source, wired=False, view="layer", ordered=ordered)(
        of_layer
    )


_worlds = _MOST_STEPS // 6  # with the references of a small world
_of_layers(science.path_length, "edges", "Watts & Strogatz 1998", steps=_MOST_STEPS)
_of_layers(science.global_efficiency, "fraction", "Latora & Marchiori 2001", steps=_MOST_STEPS)
_of_layers(science.active_neuron_rate, "fraction", "Zhang et al., ICLR 2024")
_of_layers(science.small_world_sigma, "ratio", "Humphries & Gurney 2008", steps=_worlds, ordered=True)
_of_layers(science.small_world_omega, "difference", "Telesford et al. 2011", steps=_worlds, ordered=True)
_of_layers(science.rich_club, "fraction", "Colizza et al. 2006")
_of_layers(science.betweenness_share, "fraction", "Freeman 1977", steps=_MOST_STEPS)
_of_layers(science.modularity, "modularity", "Barber 2007", ordered=True)
