"""PATHS group: nodes, units and kernels that lie on a path from an input to an output."""

from __future__ import annotations

from functools import partial

import numpy as np

from topo._support.distinct import distinct
from topo.graph import Block, WiredGraph, columns_to_inputs, paths, shared, used_bits, views
from topo.masks import BitRows
from topo.metrics import metric

NPB = "Pham et al., Towards Data-Agnostic Pruning At Initialization, NeurIPS 2023"
_network = partial(metric, group="paths", scope="network")
_layer = partial(metric, group="paths", scope="layer")


@shared
def _uses(graph: WiredGraph) -> dict[str, list[tuple[Block, np.ndarray]]]:
    """Parameter -> (use, effective bits that it is the first to take), for each use that is the first to take any."""
    found: dict[str, list[tuple[Block, np.ndarray]]] = {}
    left = dict(paths.effective_words(graph))
    last = {block.name: index for index, block in graph.uses}
    for index, block in graph.uses:
        if block.name not in found or left[block.name].any():
            words = used_bits(BitRows(block.shape, left[block.name]), block.use).words
            found.setdefault(block.name, []).append((block, words))
            if index < last[block.name]:  # after the last use nothing takes what is left
                left[block.name] = left[block.name] & ~words
    return found


@_layer(unit="units")
def layer_effective_in(graph: WiredGraph, block: Block) -> int:
    """Input units of the layer with an effective weight in it (a unit that is read several times counts once).

    A weight that several uses of the parameter take counts in the first.
    """
    read = [_effective_inputs(words, step) for step, words in _uses(graph)[block.name]]
    return len(_distinct(np.concatenate(read)))


@_layer(unit="units")
def layer_effective_out(graph: WiredGraph, block: Block) -> int:
    """Output units of the layer with an effective weight in it."""
    return int(np.count_nonzero(paths.effective_words(graph)[block.name].any(axis=1)))


def _effective_inputs(words: np.ndarray, block: Block) -> np.ndarray:
    """Units that the layer reads with one of the weights in `words`."""
    columns = np.bitwise_or.reduce(words.reshape(block.groups, -1, words.shape[1]), axis=1)
    used = block.reads[columns_to_inputs(columns, block.shape[1], block.kernel_size)]
    return _distinct(used)


def _distinct(units: np.ndarray) -> np.ndarray:
    """The units of an array, each once, in rising order, without "no unit"."""
    if units.size and units[0] >= 0 and (units[1:] > units[:-1]).all():
        return units
    return distinct(units[units >= 0])


@shared
def node_layers(graph: WiredGraph) -> list[tuple[int, Block]]:
    """Steps whose inputs are nodes in the papers' convention: not shortcut layers, not unmasked embeddings."""
    return [(index, block) for index, block in graph.uses if index not in graph.wiring.shortcuts]


@_network(unit="nodes", source=NPB)
def nodes(graph: WiredGraph) -> int:
    """Input units of every layer but shortcuts, plus the outputs: a stream counts once for each layer that reads it."""
    read = sum(len(_distinct(step.reads)) for _, step in node_layers(graph))
    return read + len(graph.wiring.outputs)


@_network(unit="nodes", source=NPB)
def effective_nodes(graph: WiredGraph) -> int:
    """Of `nodes`, those with an effective weight in the layer that reads them; effective outputs (ResNet-20: 701)."""
    state, outputs = paths.live(graph), graph.wiring.outputs
    live_outputs = int(np.count_nonzero(state.forward[outputs] & state.backward[outputs]))
    read = paths.effective_by_step(graph).read.tolist()
    return sum(read[index] for index, _ in node_layers(graph)) + live_outputs


@shared
def _units(graph: WiredGraph) -> np.ndarray:
    """Units that a layer reads or the network gives, each once."""
    reads = [block.reads for _, block in graph.uses]
    return _distinct(np.concatenate([*reads, graph.wiring.outputs]))


@_network(unit="units")
def units(graph: WiredGraph) -> int:
    """Distinct units that a layer reads or the network gives: each tensor counts once."""
    return len(_units(graph))


@_network(unit="units")
def effective_units(graph: WiredGraph) -> int:
    """Of `units`, those on a path from an input to an output."""
    return int(np.count_nonzero(paths.live(graph).effective[_units(graph)]))


@_network(unit="kernels")
def effective_kernels(graph: WiredGraph) -> int:
    """Pairs (input unit, output unit) of a layer that an effective weight joins: k x k kernels that are not empty.

    A weight that several uses of the parameter take counts in the first.
    """
    total = 0
    for block in graph.masked_blocks:
        for step, words in _uses(graph)[block.name]:
            edges = views.unit(BitRows(step.shape, words), step.reads, step.groups)
            total += edges.total
            if (edges.reads < 0).any():
                total -= int(edges.fan_out()[edges.reads < 0].sum())
    return total
