"""PATHS group: parameters kept and effective, densities, dead channels of single layers."""

from __future__ import annotations

from functools import partial

import numpy as np

from topo.graph import Block, LayeredGraph, WiredGraph, paths, shared
from topo.masks import BitRows, MaskSet
from topo.metrics import metric

VK = "Vysogorets & Kempe, Connectivity Matters, arXiv 2107.02306"
_network = partial(metric, group="paths", scope="network")
_layer = partial(metric, group="paths", scope="layer")


@_network(unit="parameters", wired=False)
def params(graph: LayeredGraph) -> int:
    """Number of masked parameters, kept or not."""
    return graph.masks.size


@_network(unit="parameters", wired=False)
def kept(graph: LayeredGraph) -> int:
    """Number of kept parameters."""
    return sum(block.kept for block in graph.masked_blocks)


@_network(unit="fraction", wired=False)
def density(graph: LayeredGraph) -> float:
    """kept / params."""
    return kept(graph) / params(graph)


@_network(unit="fraction", wired=False)
def sparsity(graph: LayeredGraph) -> float:
    """1 - density."""
    return 1.0 - density(graph)


@_layer(unit="parameters", wired=False)
def layer_kept(graph: LayeredGraph, block: Block) -> int:
    """Number of kept parameters of the layer."""
    return block.kept


@_layer(unit="fraction", wired=False)
def layer_density(graph: LayeredGraph, block: Block) -> float:
    """Kept over all parameters of the layer."""
    return block.kept / block.size


@_layer(unit="fraction", wired=False)
def layer_sparsity(graph: LayeredGraph, block: Block) -> float:
    """1 - density of the layer."""
    return 1.0 - block.kept / block.size


@_layer(unit="units", wired=False)
def layer_dead_in(graph: LayeredGraph, block: Block) -> int:
    """Input channels of the layer without a kept weight (fan-out 0)."""
    return int(np.count_nonzero(~block.used_inputs))


@_layer(unit="units", wired=False)
def layer_dead_out(graph: LayeredGraph, block: Block) -> int:
    """Output units of the layer without a kept weight (fan-in 0)."""
    return int(np.count_nonzero(~block.used_outputs))


@shared
def effective_by_layer(graph: WiredGraph) -> dict[str, int]:
    return {
        name: int(np.bitwise_count(words).sum(dtype=np.int64)) for name, words in paths.effective_words(graph).items()
    }


def effective_masks(graph: WiredGraph) -> MaskSet:
    """The masks reduced to their effective parameters: the same paths, nothing useless."""
    words = paths.effective_words(graph)
    rows = {block.name: BitRows(block.shape, words[block.name]) for block in graph.masked_blocks}
    plain = {name: graph.wiring.layer(name).as_mask(held) for name, held in rows.items()}
    masks = MaskSet(plain, provenance=graph.masks.provenance)
    return masks if graph.own is None else graph.own.own_masks(masks)


@_network(unit="parameters", source=VK)
def effective_params(graph: WiredGraph) -> int:
    """Kept parameters on a path from an input to an output."""
    by_layer = effective_by_layer(graph)
    return sum(by_layer[block.name] for block in graph.masked_blocks)


@_network(unit="fraction", source=VK)
def effective_density(graph: WiredGraph) -> float:
    """effective_params / params."""
    return effective_params(graph) / params(graph)


@_network(unit="fraction", source=VK)
def effective_sparsity(graph: WiredGraph) -> float:
    """1 - effective_density."""
    return 1.0 - effective_density(graph)


@_layer(unit="parameters", source=VK)
def layer_effective_params(graph: WiredGraph, block: Block) -> int:
    """Kept parameters of the layer on a path from an input to an output."""
    return effective_by_layer(graph)[block.name]
