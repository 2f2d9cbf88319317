"""The numbers of paths, units and parameters in the unrolled view, where a unit is a place of a feature map.

A parameter is effective if there is a place where it joins a live unit to one that leads on: zero padding starves
corners of kernels that the channel view calls effective. A pool makes no units, what it adds are units of their own.
"""

from __future__ import annotations

import math

import numpy as np

from topo.graph import Block, WiredGraph, columns_to_inputs, paths
from topo.graph.unrolled import unrolled
from topo.metrics import flops, in_unrolled_view
from topo.metrics.paths import NO_PATH
from topo.report import Value


def _effective(graph: WiredGraph) -> dict[str, int]:
    return {name: int(np.bitwise_count(words).sum(dtype=np.int64)) for name, words in unrolled(graph).effective.items()}


@in_unrolled_view("network:effective_params")
def effective_params(graph: WiredGraph) -> Value:
    """Parameters with a place where they are on a path; the note says how many fewer than in the channel view."""
    found = sum(_effective(graph)[block.name] for block in graph.masked_blocks)
    words = paths.effective_words(graph)
    channel = sum(int(np.bitwise_count(words[b.name]).sum(dtype=np.int64)) for b in graph.masked_blocks)
    note = f"{channel - found:,} fewer than in the channel view: padding starves them" if channel > found else None
    return Value(found, note)


@in_unrolled_view("network:effective_density")
def effective_density(graph: WiredGraph) -> float:
    """effective_params / params."""
    return effective_params(graph).number / sum(block.size for block in graph.masked_blocks)


@in_unrolled_view("network:effective_sparsity")
def effective_sparsity(graph: WiredGraph) -> float:
    """1 - effective_density."""
    return 1 - effective_density(graph)


@in_unrolled_view("network:layer_collapse")
def layer_collapse(graph: WiredGraph) -> Value:
    """Layers without an effective parameter."""
    names = [block.name for block in graph.masked_blocks if not _effective(graph)[block.name]]
    return Value(len(names), f"no effective parameter in: {', '.join(names)}" if names else None)


@in_unrolled_view("network:units")
def units(graph: WiredGraph) -> int:
    """Places that a layer reads, through pools, or that the network gives."""
    return int(np.count_nonzero(unrolled(graph).read))


@in_unrolled_view("network:effective_units")
def effective_units(graph: WiredGraph) -> int:
    """Of `units`, those on a path from an input to an output."""
    found = unrolled(graph)
    ahead, behind = found.live
    return int(np.count_nonzero(found.read & (ahead & behind)[:-2]))


@in_unrolled_view("network:nodes")
def nodes(graph: WiredGraph) -> int:
    """Places that every layer but shortcuts reads, and the outputs: a stream counts for each layer that reads it."""
    found = unrolled(graph)
    return sum(len(np.unique(step.reads[step.reads >= 0])) for step in _node_layers(graph)) + len(found.maps.outputs)


@in_unrolled_view("network:effective_nodes")
def effective_nodes(graph: WiredGraph) -> int:
    """Of `nodes`, those that an effective weight of the layer reads at a place on a path, and live outputs."""
    from topo.graph.unrolled import effective_reads

    found = unrolled(graph)
    ahead, behind = found.live
    outputs = int(np.count_nonzero((ahead & behind)[found.maps.outputs]))
    return sum(effective_reads(found, step) for step in _node_layers(graph)) + outputs


def _node_layers(graph: WiredGraph):
    shortcuts = {graph.wiring.steps[index].name for index in graph.wiring.shortcuts}  # type: ignore[union-attr]
    return [step for step in unrolled(graph).layers if step.name not in shortcuts]


@in_unrolled_view("network:effective_paths")
def effective_paths(graph: WiredGraph) -> int:
    """Paths from a place of the input to an output, exact."""
    return unrolled(graph).exact


@in_unrolled_view("network:log10_effective_paths")
def log10_effective_paths(graph: WiredGraph) -> Value:
    """log10 of effective_paths, in floating numbers; -inf if there is none."""
    value = paths.log10(unrolled(graph).total)
    return Value(value, NO_PATH if value == -math.inf else None)


@in_unrolled_view("layer:effective_params")
def layer_effective_params(graph: WiredGraph, block: Block) -> int:
    """Parameters of the layer with a place where they are on a path."""
    return _effective(graph)[block.name]


@in_unrolled_view("layer:effective_out")
def layer_effective_out(graph: WiredGraph, block: Block) -> int:
    """Output channels of the layer with an effective weight."""
    return int(np.count_nonzero(unrolled(graph).effective[block.name].any(axis=1)))


@in_unrolled_view("layer:effective_in")
def layer_effective_in(graph: WiredGraph, block: Block) -> int:
    """Input channels of the layer with an effective weight."""
    words = unrolled(graph).effective[block.name]
    columns = np.bitwise_or.reduce(words.reshape(block.groups, -1, words.shape[1]), axis=1)
    return int(np.count_nonzero(columns_to_inputs(columns, block.shape[1], block.kernel_size)))


def _macs_effective(graph: WiredGraph) -> int:
    found = unrolled(graph)
    words = found.effective
    kept = (np.bitwise_count(words[step.name]).sum(dtype=np.int64) * step.positions for step in found.layers)
    return int(sum(kept))


@in_unrolled_view("network:macs_effective")
def macs_effective(graph: WiredGraph) -> int:
    """Multiply-accumulates of the effective weights on one example, borders of padding among them."""
    return _macs_effective(graph)


@in_unrolled_view("network:flops_effective")
def flops_effective(graph: WiredGraph) -> int:
    """2 x macs_effective."""
    return 2 * _macs_effective(graph)


for _same in ("macs_dense", "macs_kept", "flops_dense", "flops_kept"):
    in_unrolled_view(f"network:{_same}")(getattr(flops, _same))
