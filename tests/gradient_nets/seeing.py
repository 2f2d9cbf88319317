"""Kinds of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.attention import attend, heads, merged
from gradient_nets.table import ROWS, TOKENS, enter, fc, par, parts


def seeing(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    more = options.pop("parts", {})
    made = parts(forward, **{"q": fc, "k": fc, "v": fc, "o": lambda: fc(8, 4), **more})
    enter("seeing", name, made, *(shapes or (TOKENS,)), **options)


def scores(s: Any, x: Tensor) -> Tensor:
    return heads(s.q(x)) @ heads(s.k(x)).transpose(-1, -2) / 2


def answer(s: Any, weights: Tensor, x: Tensor) -> Tensor:
    return s.o(merged(weights @ heads(s.v(x))))


SLOPES = -(torch.arange(5)[:, None] - torch.arange(5)).abs() * torch.tensor([0.5, 0.25])[:, None, None]
seeing(
    "alibi",
    lambda s, x: answer(s, (scores(s, x) + s.slopes).softmax(-1), x),
    parts={"slopes": lambda: SLOPES},
    only="soft",
)
seeing("sliding window", lambda s, x: s.o(attend(s.q(x), s.k(x), s.v(x), torch.ones(5, 5).tril(1).triu(-1))))
seeing("capped scores", lambda s, x: answer(s, (5 * torch.tanh(scores(s, x) / 5)).softmax(-1), x))
seeing(
    "difference of two",
    lambda s, x: s.o(attend(s.q(x), s.k(x), s.v(x)) - 0.3 * attend(s.r(x), s.l(x), s.v(x))),
    parts={"r": fc, "l": fc},
)
seeing(
    "a sink",
    lambda s, x: answer(s, torch.cat([scores(s, x), s.sink.expand(2, 2, 5, 1)], -1).softmax(-1)[..., :-1], x),
    parts={"sink": lambda: par(1, 2, 1, 1)},
    unmasked=("sink",),
    only="soft",
)
seeing(
    "learned keys before",
    lambda s, x: s.o(
        attend(
            s.q(x),
            torch.cat([s.before_k.expand(2, -1, -1), s.k(x)], 1),
            torch.cat([s.before_v.expand(2, -1, -1), s.v(x)], 1),
        )
    ),
    parts={"before_k": lambda: par(1, 2, 8), "before_v": lambda: par(1, 2, 8)},
    unmasked=("before",),
    only="soft",
)
seeing("one plus elu", lambda s, x: s.o(kernelled(F.elu(s.q(x)) + 1, F.elu(s.k(x)) + 1, s.v(x))))
seeing("one plus elu, causal", lambda s, x: s.o(kernelled_causal(F.elu(s.q(x)) + 1, F.elu(s.k(x)) + 1, s.v(x))))
seeing(
    "random features",
    lambda s, x: s.o(kernelled((s.q(x) @ s.z).exp(), (s.k(x) @ s.z).exp(), s.v(x))),
    parts={"z": lambda: torch.rand(8, 5)},
)
seeing(
    "external memory",
    lambda s, x: s.o(s.n(F.normalize(s.m(s.q(x)).softmax(1), p=1, dim=-1))),
    parts={"m": lambda: fc(8, 6), "n": lambda: fc(6, 8)},
)
seeing(
    "latent keys",
    lambda s, x: s.o(attend(s.q(x), s.k(c := s.d(x)), s.v(c))),
    parts={"d": lambda: fc(8, 3), "k": lambda: fc(3, 8), "v": lambda: fc(3, 8)},
)
seeing(
    "inducing points",
    lambda s, x: s.o(attend(s.q(x), s.k(h := attend(s.points.expand(2, -1, -1), s.r(x), s.l(x))), s.v(h))),
    parts={"points": lambda: par(1, 3, 8), "r": fc, "l": fc},
    unmasked=("points",),
    only="soft",
)
seeing(
    "axial",
    lambda s, x: s.o(attend(s.q(y := attend(s.q(x), s.k(x), s.v(x)).transpose(1, 2)), s.k(y), s.v(y))),
    (2, 3, 4, 8),
)
seeing(
    "retention",
    lambda s, x: s.o((s.q(x) @ s.k(x).transpose(-1, -2) * s.decay) @ s.v(x)),
    parts={"decay": lambda: 0.9 ** (torch.arange(5)[:, None] - torch.arange(5)).clamp(0) * torch.ones(5, 5).tril()},
)
seeing(
    "without queries",
    lambda s, x: s.o(
        torch.sigmoid(s.q(x)) * ((s.k(x).exp() * s.v(x)).sum(1, keepdim=True) / s.k(x).exp().sum(1, keepdim=True))
    ),
    only="soft",
)
seeing(
    "bilinear scores",
    lambda s, x: s.o((x @ s.w @ x.transpose(1, 2)).softmax(-1) @ s.v(x)),
    parts={"w": lambda: par(8, 8)},
)
seeing(
    "heads by parameters",
    lambda s, x: s.o(
        torch.einsum(
            "bhtd,hdo->bto",
            attend(
                torch.einsum("bti,hid->bhtd", x, s.wq),
                torch.einsum("bti,hid->bhtd", x, s.wk),
                torch.einsum("bti,hid->bhtd", x, s.wv),
            ),
            s.wo,
        )
    ),
    parts={**{name: lambda: par(2, 8, 4) for name in ("wq", "wk", "wv")}, "wo": lambda: par(2, 4, 8)},
)
seeing(
    "positions turned, complex",
    lambda s, x: s.o(attend(turned(s.q(x)), turned(s.k(x)), s.v(x))),
    only="soft",
    more="imaginary",
)
seeing(
    "relative by skewing",
    lambda s, x: s.o((s.q(x) @ s.k(x).transpose(1, 2) + skewed(s.q(x) @ s.e.T)).softmax(-1) @ s.v(x)),
    parts={"e": lambda: par(5, 8)},
)
seeing("top keys", lambda s, x: s.o(top_keys(s.q(x) @ s.k(x).transpose(1, 2)).softmax(-1) @ s.v(x)))
seeing("hopfield", lambda s, x: s.o((s.q(x) @ s.p.T).softmax(-1) @ s.p), parts={"p": lambda: par(6, 8)})
seeing("slots", lambda s, x: s.o(slots(s, x)), parts={"g": lambda: nn.GRUCell(8, 8)}, only="soft")
seeing("fourier mixing", lambda s, x: s.o(torch.fft.fft2(s.v(x)).real), more="fft")
seeing(
    "spatial gating",
    lambda s, x: s.p((y := s.q(x))[..., :4] * s.t(y[..., 4:].transpose(1, 2)).transpose(1, 2)),
    parts={"t": lambda: fc(5, 5), "p": lambda: fc(4, 3)},
    more="reads sums",
)
seeing("pointer", lambda s, x: (s.q(x)[:, :1] @ s.k(x).transpose(1, 2)).log_softmax(-1))
seeing("memory network", lambda s, x: s.o(hops(s, x)), parts={"h": fc})
seeing("two towers", lambda s, x, y: F.normalize(s.q(x)) @ F.normalize(s.k(y)).T, ROWS, ROWS)
seeing(
    "checkpointed",
    lambda s, x: s.o(
        torch.utils.checkpoint.checkpoint(lambda y: attend(s.q(y), s.k(y), s.v(y)), x, use_reentrant=False)
    ),
    only="soft",
)
seeing("autocast", lambda s, x: s.o(cast(s, x)))
seeing(
    "key mask of an input", lambda s, x, m: s.o(attend(s.q(x), s.k(x), s.v(x), m[:, None])), TOKENS, torch.ones(2, 5)
)


def kernelled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ (k.transpose(-1, -2) @ v)) / (q @ k.sum(-2, keepdim=True).transpose(-1, -2))


def kernelled_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    state = (k[..., :, None] * v[..., None, :]).cumsum(1)
    return torch.einsum("btd,btde->bte", q, state) / (q * k.cumsum(1)).sum(-1, keepdim=True)


def turned(x: Tensor) -> Tensor:
    turn = torch.polar(torch.ones(x.shape[1], 4, dtype=x.dtype), torch.rand(x.shape[1], 4, dtype=x.dtype) + 0.2)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2))) * turn).flatten(-2)


def skewed(x: Tensor) -> Tensor:
    b, t, n = x.shape
    return F.pad(x, (1, 0)).view(b, n + 1, t)[:, 1:].reshape(b, t, n)


def top_keys(x: Tensor) -> Tensor:
    return x.masked_fill(x < x.topk(3, -1).values[..., -1:], -torch.inf)


def slots(s: Any, x: Tensor) -> Tensor:
    h = s.q(x[:, :3])
    for _ in range(2):
        w = (s.k(x) @ h.transpose(1, 2)).softmax(-1)
        w = w / w.sum(1, keepdim=True)
        h = s.g((w.transpose(1, 2) @ s.v(x)).flatten(0, 1), h.flatten(0, 1)).view(2, 3, 8)
    return h


def hops(s: Any, x: Tensor) -> Tensor:
    u = s.q(x[:, 0])
    for _ in range(2):
        p = (s.k(x) @ u.unsqueeze(-1)).squeeze(-1).softmax(-1)
        u = s.h(u) + (p.unsqueeze(-1) * s.v(x)).sum(1)
    return u


def cast(s: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = s.q(x)
        with torch.autocast("cpu", enabled=False):
            return attend(y, s.k(x), s.v(x))
