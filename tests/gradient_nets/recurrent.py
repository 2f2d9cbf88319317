"""Recurrent networks: torch's layers and cells, and the same mathematics step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.table import enter, fc, par, parts


def recurrent(name: str, build: Callable[[], nn.Module], *shapes: Any, **options: Any) -> None:
    # What is inside torch's own layers cannot be made identities.
    fused = any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in build().modules())
    enter("recurrent", name, build, *(shapes or ((2, 4, 6),)), **{"only": "soft"} if fused else {}, **options)


def read(cell: Callable[[], nn.Module], m: int = 8) -> Callable[[], nn.Module]:
    return parts(lambda s, x: s.o(s.r(x)[0]), r=cell, o=lambda: fc(m, 4))


def last(cell: Callable[[], nn.Module], m: int = 8) -> Callable[[], nn.Module]:
    return parts(lambda s, x: s.o(s.r(x)[0][:, -1]), r=cell, o=lambda: fc(m, 4))


def stepped(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = s.cell(x[:, t], h)
    return s.o(h)


def stepped_lstm(s: Any, x: Tensor) -> Tensor:
    h = c = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        h, c = s.cell(x[:, t], (h, c))
    return s.o(h)


def elman(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = torch.tanh(s.i(x[:, t]) + s.h(h))
    return s.o(h)


def gru(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        z, r = torch.sigmoid(s.iu(x[:, t]) + s.hu(h)), torch.sigmoid(s.ir(x[:, t]) + s.hr(h))
        n = torch.tanh(s.i(x[:, t]) + r * s.h(h))
        h = (1 - z) * n + z * h
    return s.o(h)


def minimal(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        f = torch.sigmoid(s.iu(x[:, t]) + s.hu(h))
        h = (1 - f) * h + f * torch.tanh(s.i(x[:, t]) + s.h(f * h))
    return s.o(h)


def lstm(s: Any, x: Tensor) -> Tensor:
    h = c = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        i, f, g, o = (s.wi(x[:, t]) + s.wh(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return s.o(h)


def simple(s: Any, x: Tensor) -> Tensor:
    f, r = torch.sigmoid(s.iu(x)), torch.sigmoid(s.ir(x))
    c, outs = torch.zeros(x.shape[0], 8, dtype=x.dtype), []
    for t in range(x.shape[1]):
        c = f[:, t] * c + (1 - f[:, t]) * s.i(x[:, t])
        outs.append(r[:, t] * torch.tanh(c))
    return s.o(torch.stack(outs, 1))


def independent(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = F.relu(s.i(x[:, t]) + s.u * h)
    return s.o(h)


def scan(s: Any, x: Tensor) -> Tensor:
    """A selective state space, unrolled: h = a h + b x, y = c h."""
    u = s.i(x)
    step, b, c = F.softplus(s.dt(u)), s.wb(u), s.wc(u)
    h, outs = torch.zeros(x.shape[0], 8, 3, dtype=x.dtype), []
    for t in range(x.shape[1]):
        h = torch.exp(-step[:, t, :, None] * s.loga.exp()) * h + (step[:, t] * u[:, t])[..., None] * b[:, t, None]
        outs.append((h * c[:, t, None]).sum(-1))
    return s.o(torch.stack(outs, 1))


def by_hand(forward: Callable[..., Any], *names: str) -> Callable[[], nn.Module]:
    makers = {name: (lambda: fc(6, 8)) if name.startswith("i") else fc for name in names}
    return parts(forward, **makers, o=lambda: fc(8, 4))


for cell in ("LSTM", "GRU", "RNN"):
    make = getattr(nn, cell)
    recurrent(cell.lower(), read(lambda make=make: make(6, 8, batch_first=True)))
    recurrent(f"{cell.lower()}, last step", last(lambda make=make: make(6, 8, batch_first=True)))
    recurrent(f"{cell.lower()}, stacked", read(lambda make=make: make(6, 8, num_layers=2, batch_first=True)))
    recurrent(
        f"{cell.lower()}, both ways", read(lambda make=make: make(6, 8, bidirectional=True, batch_first=True), 16)
    )
    recurrent(f"{cell.lower()}, time first", read(lambda make=make: make(6, 8)))
    recurrent(f"{cell.lower()}, one step", read(lambda make=make: make(6, 8, batch_first=True)), (2, 1, 6))
recurrent("lstm, projected", read(lambda: nn.LSTM(6, 8, proj_size=5, batch_first=True), 5))
recurrent("rnn, relu", read(lambda: nn.RNN(6, 8, nonlinearity="relu", batch_first=True)))
recurrent(
    "lstm, final state",
    parts(lambda s, x: s.o(s.r(x)[1][0][-1]), r=lambda: nn.LSTM(6, 8, batch_first=True), o=lambda: fc(8, 4)),
)
recurrent(
    "gru, given state",
    parts(
        lambda s, x, h: s.o(s.r(x, s.h(h)[None])[0]),
        r=lambda: nn.GRU(6, 8, batch_first=True),
        h=lambda: fc(8, 8),
        o=lambda: fc(8, 4),
    ),
    (2, 4, 6),
    (2, 8),
)
recurrent(
    "lstm after a layer",
    parts(
        lambda s, x: s.o(s.r(F.relu(s.a(x)))[0]),
        a=lambda: fc(6, 6),
        r=lambda: nn.LSTM(6, 8, batch_first=True),
        o=lambda: fc(8, 4),
    ),
)
recurrent("lstm cell", parts(stepped_lstm, cell=lambda: nn.LSTMCell(6, 8), o=lambda: fc(8, 4)))
recurrent("gru cell", parts(stepped, cell=lambda: nn.GRUCell(6, 8), o=lambda: fc(8, 4)))
recurrent("rnn cell", parts(stepped, cell=lambda: nn.RNNCell(6, 8), o=lambda: fc(8, 4)))
recurrent("elman by hand", by_hand(elman, "i", "h"))
recurrent("gru by hand", by_hand(gru, "iu", "ir", "i", "hu", "hr", "h"))
recurrent("lstm by hand", parts(lstm, wi=lambda: fc(6, 32), wh=lambda: fc(8, 32), o=lambda: fc(8, 4)))
recurrent("minimal gated unit", by_hand(minimal, "iu", "i", "hu", "h"))
recurrent("simple recurrent unit", by_hand(simple, "iu", "ir", "i"))
recurrent("independent units", parts(independent, i=lambda: fc(6, 8), u=lambda: par(8), o=lambda: fc(8, 4)))
recurrent(
    "selective state space",
    parts(
        scan,
        i=lambda: fc(6, 8),
        dt=fc,
        wb=lambda: fc(8, 3),
        wc=lambda: fc(8, 3),
        loga=lambda: par(8, 3),
        o=lambda: fc(8, 4),
    ),
    unmasked=("loga",),
)
recurrent(
    "echo state",
    parts(
        lambda s, x: s.o(torch.tanh(s.i(x[:, 1]) + torch.tanh(s.i(x[:, 0])) @ s.z)),
        i=lambda: fc(6, 8),
        z=lambda: torch.eye(8).roll(1, 0),
        o=lambda: fc(8, 4),
    ),
)


def packed(s: Any, x: Tensor, ordered: bool = True) -> Any:
    lengths = torch.tensor([4, 3] if ordered else [2, 4])
    return s.r(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered))


LSTM, GRU = partial(nn.LSTM, batch_first=True, bias=False), partial(nn.GRU, batch_first=True, bias=False)
recurrent(
    "lstm, packed",
    parts(
        lambda s, x: s.o(nn.utils.rnn.pad_packed_sequence(packed(s, x)[0], batch_first=True)[0]),
        r=lambda: LSTM(6, 8, bidirectional=True),
        o=lambda: fc(16, 4),
    ),
)
recurrent(
    "gru, packed in any order, states",
    parts(lambda s, x: s.o(packed(s, x, False)[1]), r=lambda: GRU(6, 8, 2, bidirectional=True), o=lambda: fc(8, 4)),
)
recurrent("lstm, cell state", parts(lambda s, x: s.o(s.r(x)[1][1]), r=lambda: LSTM(6, 8, 2), o=lambda: fc(8, 4)))
