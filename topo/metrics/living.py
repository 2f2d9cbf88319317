"""STRUCTURE group: what sparse units lose whatever their weights are: ReLUs that never fire, pairs without a path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from topo._support.distinct import distinct
from topo.graph import Block, WiredGraph, paths
from topo.masks import kernel_counts
from topo.metrics import metric
from topo.metrics.paths import NO_PATH
from topo.report import Value
from topo.wiring import Join

SOURCE = "docs/theory.md, Why a degree floor"
_network = partial(metric, group="structure", scope="network", source=SOURCE)
_AT_ONCE, _FLAGS = 256, 1 << 24  # ends whose units are looked for together, and flags of units that this may take


def _counts(block: Block) -> np.ndarray:
    """uint16 (out, in / groups): kept weights of each kernel of a use of a layer."""
    layer = block.use
    counts = kernel_counts(block.rows.words, block.rows.columns, block.kernel_size)
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
        counts = _counts(block).reshape(layer.groups, -1, layer.shape[1])
        fan_in = counts.sum(axis=2, where=read, dtype=np.int64).reshape(-1)
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
    starts = distinct(np.concatenate([wiring.inputs, *sources]))
    starts, ends = starts[live.effective[starts]], distinct(wiring.outputs)
    ends = ends[live.effective[ends]]
    if len(starts) == 0 or len(ends) == 0:
        return Value(math.nan, NO_PATH)
    backwards = len(ends) < len(starts)
    few, many = (ends, starts) if backwards else (starts, ends)
    at_once = max(1, min(_AT_ONCE, _FLAGS // wiring.n_units))
    joined = 0
    for first in range(0, len(few), at_once):
        chosen = few[first : first + at_once]
        reach = np.zeros((len(chosen), wiring.n_units + 2), np.bool_)
        reach[np.arange(len(chosen)), chosen] = True
        for step in reversed(graph.steps) if backwards else graph.steps:
            for operand, units, joins in _joined(step):
                if backwards:
                    _add(reach, operand, _behind(reach[:, units] & live.effective[units], joins))
                else:
                    reach[:, units] |= _ahead(reach[:, operand], joins) & live.effective[units]
        joined += int(np.count_nonzero(reach[:, many]))
    return Value(joined / (len(starts) * len(ends)), None)


def _joined(step: Block | Join) -> Iterator[tuple[np.ndarray, slice, np.ndarray | int]]:
    """(units read, units made, bool (groups, made / groups, read / groups) which are joined) for each way that paths
    take; of a join the number of units read for each that is made."""
    if isinstance(step, Block):
        if not step.source:
            layer = step.use
            kept = (_counts(step) > 0).reshape(layer.groups, -1, layer.shape[1])
            yield layer.reads, slice(layer.start, layer.stop), kept
    elif step.kind != "score":
        for operand in step.operands if step.kind == "add" else step.operands[:1]:
            yield operand, slice(step.start, step.stop), step.width


def _ahead(flags: np.ndarray, joins: np.ndarray | int) -> np.ndarray:
    """bool (k, read) -> (k, made): which units read a flagged one."""
    if isinstance(joins, int):
        return np.asarray(flags.reshape(len(flags), -1, joins).any(axis=2))
    return _through(flags, joins)


def _behind(flags: np.ndarray, joins: np.ndarray | int) -> np.ndarray:
    """bool (k, made) -> (k, read): which units are read by a flagged one."""
    if isinstance(joins, int):
        return np.repeat(flags, joins, axis=1)
    return _through(flags, joins.transpose(0, 2, 1))


def _through(flags: np.ndarray, joins: np.ndarray) -> np.ndarray:
    """flags (k, n) bool, joins (groups, m, n / groups) bool -> (k, groups * m) bool: who has a flagged one."""
    groups, made, read = joins.shape
    grouped = flags.reshape(len(flags), groups, read).transpose(1, 0, 2).astype(np.float32)
    found = np.empty((len(flags), groups, made), np.bool_)
    rows = max(1, _FLAGS // (groups * read))
    for first in range(0, made, rows):  # floats of all pairs of a large layer would be 32 times its mask
        part = joins[:, first : first + rows].astype(np.float32)
        found[:, :, first : first + rows] = (grouped @ part.transpose(0, 2, 1) > 0).transpose(1, 0, 2)
    return found.reshape(len(flags), groups * made)


def _add(reach: np.ndarray, units: np.ndarray, flags: np.ndarray) -> None:
    """Flags of what is read to the units that are read, some of them several times, and nothing among them."""
    there = distinct(units)
    if len(there) < len(units):
        order = np.argsort(units, kind="stable")
        flags = np.logical_or.reduceat(flags[:, order], np.searchsorted(units[order], there), axis=1)
        units = there
    real = units >= 0
    if real.all():
        reach[:, units] |= flags
    else:
        reach[:, units[real]] |= flags[:, real]
