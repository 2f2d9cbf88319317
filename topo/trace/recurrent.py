"""Rules of recurrent layers: nn.LSTM, nn.GRU, nn.RNN and their cells, unrolled over the steps of the example input.

Each step is what it is in a loop written by hand: the input's and the state's layer, which share their parameters over
all steps, sums, and gates. A state that begins at zero is nothing at first. So a unit of the state is live from the
step on that makes it live, and paths are counted over the sequence length of the input that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from topo.trace.nodes import operation
from topo.trace.rules import aten, biased, contract, plain
from topo.trace.units import NoRule, Units, carried, filled, squash
from topo.trace.weights import Made
from topo.wiring import CONSTANT, NOTHING

State = tuple[Tensor, ...]
Cell = Callable[[Units, Tensor, Tensor, State], State]


def _sigmoid(units: Units, ids: Tensor) -> Tensor:
    units.saturated = True
    return ids if units.gates == "hard" else units.add(ids, filled((1,)))


def _lstm(units: Units, x: Tensor, h: Tensor, state: State) -> State:
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c')."""
    i, f, g, o = units.add(x, h).chunk(4)
    kept = units.gate(state[1], _sigmoid(units, f))
    c = units.add(kept, units.gate(g, _sigmoid(units, i)))
    return units.gate(c, _sigmoid(units, o)), c


def _gru(units: Units, x: Tensor, h: Tensor, state: State) -> State:
    """n = tanh(x_n + sigmoid(r) h_n), h' = (1 - z) n + z h."""
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3), h.chunk(3)
    z = _sigmoid(units, units.add(x_z, h_z))
    n = units.add(x_n, units.gate(h_n, _sigmoid(units, units.add(x_r, h_r))))
    one_minus_z = units.add(z, filled((1,)))
    return (units.add(units.gate(n, one_minus_z), units.gate(state[0], z)),)


def _plain_rnn(units: Units, x: Tensor, h: Tensor, state: State) -> State:
    return (units.add(x, h),)


CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _plain_rnn, "rnn_relu": _plain_rnn}


def _linear(units: Units, weight: Any, bias: Any, ids: Tensor, positions: int = 1) -> Tensor:
    """(in,) -> (out,): one use of a weight, at so many steps."""
    if not isinstance(weight, Made):
        raise NoRule("its weights are computed from parameters in a way that cannot be followed")
    spread = ids.expand(units.batch, positions, -1)
    made = contract(units, spread, weight, ("bti", "oi", "bto"), (units.batch, positions, weight.shape[0]))
    return biased(units, made[0, 0], bias)


def _run(units: Units, cell: Cell, x: list[Tensor], parts: Sequence[Any], state: State) -> list[State]:
    """The state after each step. x: units of the input at each step."""
    w_ih, w_hh, b_ih, b_hh, w_hr = parts
    same = all(torch.equal(one, x[0]) for one in x[1:])
    read = [_linear(units, w_ih, b_ih, x[0], len(x))] * len(x) if same else []
    made = []
    for at, ids in enumerate(x):
        given = read[at] if same else _linear(units, w_ih, b_ih, ids)
        state = cell(units, given, _linear(units, w_hh, b_hh, state[0]), state)
        if w_hr is not None:
            state = (_linear(units, w_hr, None, state[0]), *state[1:])
        made.append(state)
    return made


def _state(units: Units, given: Any, row: int) -> Tensor:
    """(width,): the units of the state that a layer and direction begins with."""
    ids = plain(given)
    return units.channels(ids.select(0, row), -1)


@aten("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(units: Units, inputs: list[Any], shape: Any) -> list[Tensor]:
    """A stack of recurrent layers, of one or both directions."""
    if isinstance(inputs[2], Tensor) or (isinstance(inputs[1], Tensor) and isinstance(inputs[3], (list, tuple))):
        return _of_packed(units, inputs, shape)
    x, hx, params, has_biases, layers, _, _, both, batch_first = inputs[:9]
    x = plain(x)
    time = 1 if batch_first and x.dim() == 3 else 0
    rows = x.movedim(time, 0)
    length = rows.shape[0]
    small = carried(rows)
    ids = [units.channels(rows[t], -1) for t in range(length)] if small.shape[0] > 1 else []
    ids = ids or [units.channels(rows[0], -1)] * length
    ids, ends = _stacked(units, ids, hx, params, has_biases, layers, both)
    whole = torch.stack(ids) if x.dim() == 2 else torch.stack(ids).unsqueeze(1 - time).expand(shape[0])
    found = [squash(whole)]
    for part, side in enumerate(shape[1:]):
        rest = torch.stack([steps[-1][part] for steps in ends])
        found.append(squash(rest if x.dim() == 2 else rest.unsqueeze(1).expand(side)))
    return found


def _stacked(
    units: Units, ids: list[Tensor], hx: Any, params: Sequence[Any], has_biases: bool, layers: int, both: bool
) -> tuple[list[Tensor], list[list[State]]]:
    """The units that come out at each step, and the states of each layer and direction, in the order of its steps."""
    given = list(hx) if isinstance(hx, (list, tuple)) else [hx]
    name, per = operation(units.node).removeprefix("aten."), len(params) // (layers * (1 + both))
    ends: list[list[State]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(1 + both):
            at = layer * (1 + both) + direction
            mine = list(params[at * per : (at + 1) * per])
            w_hr = mine.pop() if per in (3, 5) else None
            parts = [*mine[:2], *(mine[2:] if has_biases else (None, None)), w_hr]
            state = tuple(_state(units, one, at) for one in given)
            ends.append(_run(units, CELLS[name], ids[::-1] if direction else ids, parts, state))
            made = [state[0] for state in ends[-1]]
            outputs.append(made[::-1] if direction else made)
        ids = [squash(torch.cat(parts)) for parts in zip(*outputs)]
    units.note(f"'{name}' is unrolled over the {len(ids)} steps of the input given: paths are counted over that length")
    return ids, ends


def _of_packed(units: Units, inputs: list[Any], shape: Any) -> list[Tensor]:
    """Sequences of several lengths, packed: unrolled over the longest. A shorter one ends, or begins, on its way."""
    sizes = _known(units, 1).tolist()
    x, hx, params, has_biases, layers, _, _, both = plain(inputs[0]), *inputs[2:9]
    ids = [units.channels(rows, -1) for rows in x.split(sizes)]
    ids, ends = _stacked(units, ids, hx, params, has_biases, layers, both)
    found = [squash(torch.cat([one.expand(size, -1) for one, size in zip(ids, sizes)]))]
    lengths = [sum(size > row for size in sizes) for row in range(sizes[0])]
    if min(lengths) < max(lengths):
        units.note(
            f"packed sequences of {min(lengths)} to {max(lengths)} steps: paths of all of them are added up; one "
            "sequence as the example counts those of its length"
        )
    for part in range(len(shape) - 1):
        rows = [
            torch.stack([steps[-1 if both and at % 2 else length - 1][part] for length in lengths])
            for at, steps in enumerate(ends)
        ]
        found.append(squash(torch.stack(rows)))
    return found


@aten("_pack_padded_sequence")
def packed(units: Units, inputs: list[Any], shape: Any) -> list[Tensor]:
    """Literally, if the lengths are known."""
    made, sizes = torch._VF._pack_padded_sequence(plain(inputs[0]), _known(units, 1), inputs[2])
    units.known[units.node] = [None, sizes]
    return [squash(made), filled(shape[1])]


@aten("_pad_packed_sequence")
def unpacked(units: Units, inputs: list[Any], shape: Any) -> list[Tensor]:
    """Literally; the padding is nothing if it is 0."""
    _, _, batch_first, padding, total = inputs[:5]
    fill = CONSTANT if padding else NOTHING
    made, lengths = torch._VF._pad_packed_sequence(plain(inputs[0]), _known(units, 1), batch_first, fill, total)
    units.known[units.node] = [None, lengths]
    return [squash(made), filled(shape[1])]


def _known(units: Units, at: int) -> Tensor:
    """The lengths of packed sequences."""
    value = units.known.get(units.node.args[at])
    if value is None:
        raise NoRule("packed sequences whose lengths are not known")
    return value


@aten("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(units: Units, inputs: list[Any], shape: Any) -> Any:
    """One step of a recurrent layer; a loop over it is unrolled by the export."""
    name = operation(units.node).removeprefix("aten.").removesuffix("_cell")
    x, hx, w_ih, w_hh, b_ih, b_hh = inputs[:6]
    state = tuple(units.channels(plain(one), -1) for one in (hx if isinstance(hx, (list, tuple)) else [hx]))
    *_, ends = _run(units, CELLS[name], [units.channels(plain(x), -1)], (w_ih, w_hh, b_ih, b_hh, None), state)
    sides = shape if isinstance(shape, list) else [shape]
    made = [end.expand(side) for end, side in zip(ends, sides)]
    return made if isinstance(shape, list) else made[0]
