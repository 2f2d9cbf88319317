"""The rules of recurrent layers: a hidden unit is a row of every gate, in every layer and direction of the module."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from topo.shrinking.flow import Flow, NotFollowed, rule_for
from topo.shrinking.rules import joined_by, kept_of
from topo.shrinking.seen import Seen, of, varying
from topo.shrinking.slots import Axis
from topo.trace.nodes import operation, sizes

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_STATE = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}  # the gate without which a state stays 0
_TIME = "its state changes over time"


@rule_for("lstm gru rnn_tanh rnn_relu")
def recurrent(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Any:
    kind = operation(node).removeprefix("aten.")
    x, states, weights = inputs[0], inputs[1], list(inputs[2])
    if not isinstance(x, Seen) or isinstance(weights[0], bool) or not isinstance(inputs[3], bool):
        raise NotFollowed("packed sequences")
    biased, layers, both = bool(inputs[3]), int(inputs[4]), bool(inputs[7])
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    ways, each = 1 + both, 4 if biased else 2
    width = weights[1].shape[1]
    if len(weights) != layers * ways * each or width == 1 or weights[1].shape[0] != _GATES[kind] * width:
        raise NotFollowed("projected or single states")
    units = flow.slots.new(width)
    still = all(s.fixed and not bool(s.varies.any()) and not bool((s.value != 0).any()) for s in states)
    for state in states:
        if state.fixed:
            flow.note_size(node, units, width)
        else:
            flow.tie(units, state.axes[-1], "")
    seen = x
    for layer in range(layers):
        made = []
        for way in range(ways):
            cell = weights[(layer * ways + way) * each :][:each]
            made.append(_cell(flow, node, kind, seen, units, cell, still))
        zero = np.concatenate(made)
        shape = (*x.shape[:-1], ways * width)
        flags = _last(~zero, len(shape))
        axes: list[Axis] = [*seen.axes[:-1], np.tile(units, ways)]
        seen = of(shape, axes, flags, flags.to(float) * 0)
    last = [varying(sizes(v.shape), [None] * (len(v.shape) - 1) + [units]) for v in value[1:]]
    return [seen, *last]


def _cell(flow: Flow, node: Node, kind: str, x: Seen, units: np.ndarray, cell: list[Seen], still: bool) -> np.ndarray:
    """One layer in one direction: its slots tied, its two weights entered. bool (width,): units that are 0 always."""
    into, own, *biases = cell
    gates, width = _GATES[kind], len(units)
    assert into.axes[0] is not None and own.axes[0] is not None and own.axes[1] is not None
    flow.slots.together(into.axes[0].reshape(gates, width).T)
    flow.slots.tie(into.axes[0], own.axes[0])
    flow.slots.tie(own.axes[1], units)
    flow.slots.tie(into.axes[0][:width], units)
    for bias in biases:
        flow.tie(into.axes[0], bias.axes[0], "")
    if x.shape[-1] > 1:
        flow.tie(x.axes[-1], into.axes[1], "")
    rows = slice(_STATE[kind] * width, (_STATE[kind] + 1) * width)
    read = x.only(-1)
    feeds, carries = kept_of(into).numpy(), kept_of(own).numpy()
    zero = np.full(width, still)
    zero &= ~(feeds[rows] & ~(read[0] & (read[1] == 0))).any(1)
    for bias in biases:
        zero &= bias.whole().numpy()[rows] == 0
    while True:
        held = zero & ~(carries[rows] & ~zero).any(1)
        if np.array_equal(held, zero):
            break
        zero = held
    flow.use(
        node,
        into,
        joined_by(kept_of(into)),
        into.axes[1],
        into.axes[0],
        into.whole(),
        read,
        None,
        biases[0] if biases else None,
    )
    nothing = (zero, np.zeros(width), zero)
    flow.use(node, own, joined_by(kept_of(own)), own.axes[1], own.axes[0], own.whole(), nothing, _TIME, None)
    return zero


@rule_for("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def one_step(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Any:
    """A step of a state that the model's own code carries."""
    kind = operation(node).removeprefix("aten.").removesuffix("_cell")
    x, states, cell = inputs[0], inputs[1], [c for c in inputs[2:6] if isinstance(c, Seen)]
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    width = cell[1].shape[1]
    if width == 1:
        raise NotFollowed("a single state")
    units = flow.slots.new(width)
    for state in states:
        if state.fixed and not bool((state.value != 0).any()):
            flow.note_size(node, units, width)
        else:
            flow.tie(units, state.axes[-1], "")
    _cell(flow, node, kind, x, units, cell, False)
    made = [
        varying(sizes(v.shape), [None] * (len(v.shape) - 1) + [units]) for v in (value if kind == "lstm" else [value])
    ]
    return made if kind == "lstm" else made[0]


def _last(row: np.ndarray, dims: int) -> Any:
    import torch

    return torch.from_numpy(row).view([1] * (dims - 1) + [-1])
