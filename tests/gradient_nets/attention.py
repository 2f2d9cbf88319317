"""Attention in its ways: by hand, fused, in windows, linear, with a table of positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradient_nets.table import enter, fc, par, parts


def attention(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    more = options.pop("parts", {})
    made = parts(forward, **{"q": fc, "k": fc, "v": fc, "o": lambda: fc(8, 4), **more})
    enter("attention", name, made, *(shapes or ((2, 5, 8),)), **options)


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores if keep is None else scores.masked_fill(keep == 0, -torch.inf)
    return F.softmax(scores, -1) @ v


def heads(x: Tensor, n: int = 2) -> Tensor:
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def stacked(s: Any, x: Tensor) -> Tensor:
    q, k, v = s.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    return s.o(merged(F.scaled_dot_product_attention(q, k, v)))


def lite(s: Any, x: Tensor) -> Tensor:
    q, k, v = F.relu(s.q(x)), F.relu(s.k(x)), F.pad(s.v(x), (0, 1), value=1.0)
    out = q @ (k.transpose(-1, -2) @ v)
    return s.o(out[..., :-1] / (out[..., -1:] + 1e-6))


def windows(s: Any, x: Tensor) -> Tensor:
    y = x.roll(1, 1).unflatten(1, (3, 2)).flatten(0, 1)
    return s.o(attend(s.q(y), s.k(y), s.v(y)).unflatten(0, (-1, 3)).flatten(1, 2).roll(-1, 1))


def rotary(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * 0.1 + 0.2
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * torch.cos(angle) + turned * torch.sin(angle)


def additive(s: Any, x: Tensor) -> Tensor:
    scores = s.w(torch.tanh(s.q(x)[:, :, None] + s.k(x)[:, None])).squeeze(-1)
    return s.o(scores.softmax(-1) @ s.v(x))


def pooled(s: Any, x: Tensor) -> Tensor:
    return s.o((s.w(x).softmax(1) * s.v(x)).sum(1))


def unit(s: Any, x: Tensor) -> Tensor:
    z = F.silu(s.q(x))
    a = F.relu((z * s.g) @ (z * s.h).transpose(-1, -2)) ** 2
    return s.o(F.silu(s.k(x)) * (a @ s.v(x)))


attention("by hand", lambda s, x: s.o(attend(s.q(x), s.k(x), s.v(x))))
attention("causal", lambda s, x: s.o(attend(s.q(x), s.k(x), s.v(x), torch.ones(5, 5).tril())))
attention("heads", lambda s, x: s.o(merged(attend(heads(s.q(x)), heads(s.k(x)), heads(s.v(x))))))
attention(
    "heads by einsum",
    lambda s, x: s.o(
        torch.einsum(
            "bhqk,bkhd->bqhd",
            torch.einsum("bqhd,bkhd->bhqk", *(p(x).unflatten(-1, (2, 4)) for p in (s.q, s.k))).softmax(-1),
            s.v(x).unflatten(-1, (2, 4)),
        ).flatten(2)
    ),
)
attention(
    "fused", lambda s, x: s.o(merged(F.scaled_dot_product_attention(heads(s.q(x)), heads(s.k(x)), heads(s.v(x)))))
)
attention(
    "fused, causal",
    lambda s, x: s.o(
        merged(F.scaled_dot_product_attention(heads(s.q(x)), heads(s.k(x)), heads(s.v(x)), is_causal=True))
    ),
)
attention(
    "grouped queries",
    lambda s, x: s.o(
        merged(F.scaled_dot_product_attention(heads(s.q(x), 4), heads(s.k(x)), heads(s.v(x)), enable_gqa=True))
    ),
    parts={"k": lambda: fc(8, 4), "v": lambda: fc(8, 4)},
)
attention(
    "one key head",
    lambda s, x: s.o(merged(attend(heads(s.q(x)), s.k(x)[:, None], s.v(x)[:, None]))),
    parts={"k": lambda: fc(8, 4), "v": lambda: fc(8, 4)},
)
attention("stacked projection", stacked, parts={"qkv": lambda: fc(8, 24)})
attention("cross", lambda s, x, y: s.o(attend(s.q(x), s.k(y), s.v(y))), (2, 5, 8), (2, 3, 8))
attention("with a residual", lambda s, x: s.o(x + attend(s.q(x), s.k(x), s.v(x))))
attention("linear", lite)
attention(
    "linear, softmax on each side",
    lambda s, x: s.o(s.q(x).softmax(-1) @ (s.k(x).softmax(1).transpose(-1, -2) @ s.v(x))),
)
attention("windows, shifted", windows, (2, 6, 8))
attention("rotary", lambda s, x: s.o(attend(rotary(s.q(x)), rotary(s.k(x)), s.v(x))), only="soft")
attention("additive", additive, parts={"w": lambda: fc(8, 1)})
attention("pooling", pooled, parts={"w": lambda: fc(8, 1)})
attention(
    "pooling by a query",
    lambda s, x: s.o((s.k(x) @ s.u).softmax(1).unsqueeze(-1).mul(s.v(x)).sum(1)),
    parts={"u": lambda: par(8)},
)
attention(
    "learned queries",
    lambda s, x: s.o(attend(s.latents, s.k(x), s.v(x))),
    parts={"latents": lambda: par(3, 8)},
    unmasked=("latents",),
)
attention("gated unit", unit, parts={"g": lambda: par(8), "h": lambda: par(8)})
attention(
    "relative positions",
    lambda s, x: s.o((s.q(x) @ s.k(x).transpose(-1, -2) + s.table).softmax(-1) @ s.v(x)),
    parts={"table": lambda: par(5, 5)},
    unmasked=("table",),
    only="soft",
)
attention(
    "talking heads",
    lambda s, x: s.o(
        merged(
            s.t((heads(s.q(x)) @ heads(s.k(x)).transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
            @ heads(s.v(x))
        )
    ),
    parts={"t": lambda: fc(2, 2)},
)
attention("cosine", lambda s, x: s.o(attend(F.normalize(s.q(x), dim=-1), F.normalize(s.k(x), dim=-1), s.v(x))))
attention("sigmoid", lambda s, x: s.o(torch.sigmoid(s.q(x) @ s.k(x).transpose(-1, -2)) @ s.v(x)))
attention(
    "graph",
    lambda s, x: s.o(F.relu(s.adjacency @ s.v(x))),
    parts={"adjacency": lambda: torch.eye(5).roll(1, 0) + torch.eye(5)},
)
attention(
    "of graphs",
    lambda s, x: s.o(
        (F.leaky_relu((s.q(x) * s.u).sum(-1)[:, :, None] + (s.k(x) * s.u).sum(-1)[:, None]).softmax(-1)) @ s.v(x)
    ),
    parts={"u": lambda: par(8)},
)
