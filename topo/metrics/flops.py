"""PATHS group: multiply-accumulates and FLOPs of one example; one multiply-accumulate is two FLOPs."""

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


def _macs(graph: WiredGraph, weights: Callable[[Block, Layer], int]) -> Value:
    """Sum over all uses of layers of the weights that take part, times output positions."""
    total = 0
    for step in graph.steps:
        if not isinstance(step, Block) or step.layer is None or step.layer.kind == "embedding":
            continue
        if step.layer.positions is None:
            return Value(math.nan, f"output size of '{step.name}' is unknown: give the model and its input shape")
        total += weights(step, step.layer) * step.layer.positions
    return Value(total, None)


def _twice(value: Value) -> Value:
    return Value(2 * value.number, value.note)


@_network(unit="multiply-accumulates")
def macs_dense(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the dense layers on one example: weights x output positions."""
    return _macs(graph, lambda step, layer: layer.used)


@_network(unit="multiply-accumulates")
def macs_kept(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the kept weights on one example."""
    return _macs(graph, lambda step, layer: step.kept)


@_network(unit="multiply-accumulates")
def macs_effective(graph: WiredGraph) -> Value:
    """Multiply-accumulates of the effective weights on one example."""
    words = paths.effective_words(graph)  # of any use: a weight that is kept for one is multiplied by in all

    def effective(step: Block, layer: Layer) -> int:
        if layer.used == layer.size:
            return effective_by_layer(graph)[step.name]
        return int(np.bitwise_count(words[step.name] & step.rows.words).sum(dtype=np.int64))

    return _macs(graph, effective)


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
