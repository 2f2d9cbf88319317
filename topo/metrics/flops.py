"""PATHS group: multiply-accumulates and FLOPs of one example, of the network and of each layer; one is two FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from topo.graph import Block, WiredGraph, paths
from topo.metrics import metric
from topo.metrics.parameters import effective_by_layer
from topo.report import Value
from topo.wiring import Layer

_network = partial(metric, group="paths", scope="network")
# Of layers they are numbers of their size, not six columns of every table.
_layer = partial(metric, group="structure", scope="layer")


Weights = Callable[[Block, Layer], int]


def _macs(graph: WiredGraph, weights: Weights, name: str | None = None) -> Value:
    """Sum over all uses of layers, or of one, of the weights that take part, times output positions."""
    total = 0
    for step in graph.steps:
        if not isinstance(step, Block) or step.layer is None or step.layer.kind == "embedding":
            continue
        if name is not None and step.name != name:
            continue
        if step.layer.positions is None:
            return Value(math.nan, f"output size of '{step.name}' is unknown: give the model and its input shape")
        total += weights(step, step.layer) * step.layer.positions
    return Value(total, None)


def _twice(value: Value) -> Value:
    return Value(2 * value.number, value.note)


def _dense(graph: WiredGraph) -> Weights:
    return lambda step, layer: layer.used


def _kept(graph: WiredGraph) -> Weights:
    return lambda step, layer: step.kept


def _effective(graph: WiredGraph) -> Weights:
    """Of any use: a weight that is kept for one is multiplied by in all."""
    words = paths.effective_words(graph)

    def effective(step: Block, layer: Layer) -> int:
        if layer.used == layer.size:
            return effective_by_layer(graph)[step.name]
        return int(np.bitwise_count(words[step.name] & step.rows.words).sum(dtype=np.int64))

    return effective


@_network(unit="multiply-accumulates")
def macs_dense(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the dense layers on one example: weights x output positions."""
    return _macs(graph, _dense(graph))


@_network(unit="multiply-accumulates")
def macs_kept(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the kept weights on one example: weights x output positions."""
    return _macs(graph, _kept(graph))


@_network(unit="multiply-accumulates")
def macs_effective(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the effective weights on one example: weights x output positions."""
    return _macs(graph, _effective(graph))


@_network(unit="FLOPs")
def flops_dense(graph: WiredGraph) -> Value:
    """2 x macs_dense."""
    return _twice(macs_dense(graph))


@_network(unit="FLOPs")
def flops_kept(graph: WiredGraph) -> Value:
    """2 x macs_kept."""
    return _twice(macs_kept(graph))


@_network(unit="FLOPs")
def flops_effective(graph: WiredGraph) -> Value:
    """2 x macs_effective."""
    return _twice(macs_effective(graph))


@_layer(unit="multiply-accumulates")
def layer_macs_dense(graph: WiredGraph, block: Block) -> Value:
    """Multiply-accumulates of the dense layer on one example, in all uses: weights x output positions."""
    return _macs(graph, _dense(graph), block.name)


@_layer(unit="multiply-accumulates")
def layer_macs_kept(graph: WiredGraph, block: Block) -> Value:
    """Multiply-accumulates of its kept weights on one example, in all uses: weights x output positions."""
    return _macs(graph, _kept(graph), block.name)


@_layer(unit="multiply-accumulates")
def layer_macs_effective(graph: WiredGraph, block: Block) -> Value:
    """Multiply-accumulates of its effective weights on one example, in all uses: weights x output positions."""
    return _macs(graph, _effective(graph), block.name)


@_layer(unit="FLOPs")
def layer_flops_dense(graph: WiredGraph, block: Block) -> Value:
    """2 x macs_dense of the layer."""
    return _twice(layer_macs_dense(graph, block))


@_layer(unit="FLOPs")
def layer_flops_kept(graph: WiredGraph, block: Block) -> Value:
    """2 x macs_kept of the layer."""
    return _twice(layer_macs_kept(graph, block))


@_layer(unit="FLOPs")
def layer_flops_effective(graph: WiredGraph, block: Block) -> Value:
    """2 x macs_effective of the layer."""
    return _twice(layer_macs_effective(graph, block))
