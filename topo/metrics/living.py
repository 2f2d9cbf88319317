"""STRUCTURE group: what sparse units lose whatever their weights are: ReLUs that never fire, pairs without a path."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from topo.graph import Block, WiredGraph, paths
from topo.metrics import metric
from topo.metrics.paths import NO_PATH
from topo.report import Value

SOURCE = "docs/theory.md, Why a degree floor"
_network = partial(metric, group="structure", scope="network", source=SOURCE)
_INPUTS_AT_ONCE = 256


def _counts(block: Block) -> np.ndarray:
    """int64 (out, in / groups): kept weights of each kernel of a use of a layer."""
    layer = block.use
    counts = block.rows.unpack().reshape(layer.outputs, layer.shape[1], -1).sum(axis=2, dtype=np.int64)
    if layer.used < layer.size:
        counts *= np.outer(*layer.part)
    return counts


@_network(unit="share of the live hidden units")
def expected_dead_relu_share(graph: WiredGraph) -> Value:
    """Mean of 2^-d over live hidden units, d their weights from live units: so many ReLUs are dead for all data.

    On inputs that are not negative, without bias and with weights of either sign at random, a unit whose d weights are
    all negative never fires. Outputs of the network are not hidden.
    """
    live = paths.live(graph)
    hidden = live.effective.copy()
    hidden[graph.wiring.outputs] = False
    shares = []
    for _, block in graph.uses:
        layer = block.use
        rows = hidden[layer.start : layer.stop]
        if not rows.any():
            continue
        read = live.effective[layer.reads].reshape(layer.groups, 1, -1)
        fan_in = (_counts(block).reshape(layer.groups, -1, layer.shape[1]) * read).sum(axis=2).reshape(-1)
        shares.append(np.ldexp(1.0, -np.minimum(fan_in[rows], 1000).astype(np.int32)))
    if not shares:
        return Value(math.nan, "no hidden unit is live")
    return Value(float(np.concatenate(shares).mean()), None)


@_network(unit="share of the pairs")
def pairs_joined(graph: WiredGraph) -> Value:
    """Share of the pairs (live input, live output) with a path between them.

    With lambda paths for a pair on average, regular masks leave about e^-lambda of the pairs unread.
    """
    wiring, live = graph.wiring, paths.live(graph)
    blocks = [step for step in graph.steps if isinstance(step, Block) and step.source]
    sources = [np.arange(block.use.start, block.use.stop) for block in blocks]
    starts = np.unique(np.concatenate([wiring.inputs, *sources]))
    starts, ends = starts[live.effective[starts]], np.unique(wiring.outputs)
    ends = ends[live.effective[ends]]
    if len(starts) == 0 or len(ends) == 0:
        return Value(math.nan, NO_PATH)
    joins = {
        index: (_counts(step) > 0).astype(np.float32)
        for index, step in enumerate(graph.steps)
        if isinstance(step, Block) and not step.source
    }
    joined = 0
    for first in range(0, len(starts), _INPUTS_AT_ONCE):
        chosen = starts[first : first + _INPUTS_AT_ONCE]
        reach = np.zeros((len(chosen), wiring.n_units + 2), bool)
        reach[np.arange(len(chosen)), chosen] = True
        for index, step in enumerate(graph.steps):
            made: Any
            if isinstance(step, Block):
                if step.source:
                    continue
                layer = step.use
                read = reach[:, layer.reads].reshape(len(chosen), layer.groups, -1).transpose(1, 0, 2)
                weights = joins[index].reshape(layer.groups, -1, layer.shape[1]).transpose(0, 2, 1)
                made = (read.astype(np.float32) @ weights > 0).transpose(1, 0, 2).reshape(len(chosen), -1)
                units = slice(layer.start, layer.stop)
            else:
                if step.kind == "score":
                    continue
                operands = step.operands if step.kind == "add" else step.operands[:1]
                made = np.stack([reach[:, operand] for operand in operands]).any(axis=0)
                made = made.reshape(len(chosen), -1, step.width).any(axis=2)
                units = slice(step.start, step.stop)
            reach[:, units] |= made & live.effective[units]
        joined += int(reach[:, ends].sum())
    return Value(joined / (len(starts) * len(ends)), None)
