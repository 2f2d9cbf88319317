"""Networks of several parts: hypernetworks, flows, graphs, tables, routing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.table import ROWS, TOKENS, fc, odd, par


class Pair(NamedTuple):
    one: Tensor
    two: Tensor


def net(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    odd("nets", name, forward, *shapes, **options)


IDS = torch.tensor([[1, 4, 2], [3, 0, 5]])
net(
    "hypernetwork",
    lambda s, x, z: s.o(torch.einsum("bi,bio->bo", s.a(x), s.h(z).view(-1, 8, 8))),
    ROWS,
    (3, 5),
    parts={"h": lambda: fc(5, 64)},
)
net(
    "hypernetwork of rank one",
    lambda s, x, z: s.o((s.a(x) * s.u(z)).sum(-1, keepdim=True) * s.v(z)),
    ROWS,
    (3, 5),
    parts={"u": lambda: fc(5, 8), "v": lambda: fc(5, 8)},
)
net(
    "hypernetwork by linear",
    lambda s, x, z: s.o(F.linear(s.a(x), s.h(z)[0].view(8, 8))),
    ROWS,
    (1, 5),
    parts={"h": lambda: fc(5, 64)},
)
net(
    "weights and a hypernetwork",
    lambda s, x, z: s.o(F.linear(s.a(x), s.base + s.h(z)[0].view(8, 8))),
    ROWS,
    (1, 5),
    parts={"h": lambda: fc(5, 64), "base": lambda: par(8, 8)},
    unmasked=("base",),
)
net(
    "weights scaled by a layer",
    lambda s, x, z: s.o(F.linear(s.a(x), s.w * s.h(z)[0])),
    ROWS,
    (1, 5),
    parts={"h": lambda: fc(5, 8), "w": lambda: par(8, 8)},
)
net(
    "modulated and demodulated",
    lambda s, x, z: s.o(torch.einsum("bi,boi->bo", s.a(x), s.w * s.h(z)[:, None])),
    ROWS,
    (3, 5),
    parts={"h": lambda: fc(5, 8), "w": lambda: par(8, 8)},
)
net("early exit", lambda s, x: (s.p(y := F.relu(s.a(x))), s.o(F.relu(s.b(y)))), parts={"p": lambda: fc(8, 2)})
net("named outputs", lambda s, x: Pair(s.o(s.a(x)), s.b(x)[:, :3]))
net(
    "dict in, dict out", lambda s, x: {"deep": {"y": s.o(s.a(x["one"]) + s.b(x["two"]))}}, parts={}, kwargs={}
) if False else None
net("stepped solver", lambda s, x: s.o(euler(s, x)))
net("fixed point", lambda s, x: s.o(equilibrium(s, x)))
net("reversible", lambda s, x: s.o(reversible(s, x)), parts={"f": lambda: fc(4, 4), "g": lambda: fc(4, 4)})
net("coupling", lambda s, x: s.o(coupling(s, x)), parts={"t": lambda: fc(4, 4), "c": lambda: fc(4, 4)})
net(
    "autoregressive masks",
    lambda s, x: s.o(F.relu(F.linear(x, s.a.weight * s.m))),
    parts={"m": lambda: torch.ones(8, 8).tril(-1)},
)
net(
    "plu",
    lambda s, x: s.o(F.linear(x, s.p @ (s.w * s.m + torch.eye(8)) @ (s.u * s.m.T + torch.diag(s.d)))),
    parts={
        "p": lambda: torch.eye(8)[torch.arange(8).flip(0)],
        "m": lambda: torch.ones(8, 8).tril(-1),
        "w": lambda: par(8, 8),
        "u": lambda: par(8, 8),
        "d": lambda: par(8),
    },
)
net(
    "graph convolution",
    lambda s, x: s.o(F.relu(s.adj @ s.a(x))),
    (5, 8),
    parts={"adj": lambda: (torch.eye(5) + torch.eye(5).roll(1, 0)) / 2},
)
net("graph of given edges", lambda s, x: s.o(messages(s, x)), (5, 8))
net("graph attention", lambda s, x: s.o(gat(s, x)), (5, 8), parts={"u": lambda: par(8), "v": lambda: par(8)})
net(
    "matrix factorisation",
    lambda s, x: (s.e(x[:, 0]) * s.f(x[:, 1])).sum(-1),
    IDS,
    parts={"e": lambda: nn.Embedding(6, 4), "f": lambda: nn.Embedding(6, 4)},
) if False else None
net("table by an index", lambda s, x: s.o(s.a(s.w[x]).mean(1)), IDS, parts={"w": lambda: par(6, 8)})
net("table by one-hot", lambda s, x: s.o(F.one_hot(x, 6).to(s.w.dtype) @ s.w), IDS, parts={"w": lambda: par(6, 8)})
net("table, turned", lambda s, x: s.o(F.embedding(x, s.w.T).mean(1)), IDS, parts={"w": lambda: par(8, 6)})
net(
    "table of two",
    lambda s, x: s.o(F.embedding(x, torch.cat([s.w, s.u])).mean(1)),
    IDS,
    parts={"w": lambda: par(3, 8), "u": lambda: par(3, 8)},
)
net("table, scaled", lambda s, x: s.o(F.embedding(x, s.w * 2.0).mean(1)), IDS, parts={"w": lambda: par(6, 8)})
net(
    "table and part of it", lambda s, x: s.o(F.embedding(x, s.w)[..., :8].mean(1)), IDS, parts={"w": lambda: par(6, 12)}
)
net("table by index_select", lambda s, x: s.o(s.w.index_select(0, x.flatten())), IDS, parts={"w": lambda: par(6, 8)})
net("bags of the largest", lambda s, x: s.o(s.e(x)), IDS, parts={"e": lambda: nn.EmbeddingBag(6, 8, mode="max")})
net(
    "bags with weights",
    lambda s, x, w: s.o(s.e(x, per_sample_weights=w)),
    IDS,
    (2, 3),
    parts={"e": lambda: nn.EmbeddingBag(6, 8, mode="sum")},
)
net(
    "bilinear form",
    lambda s, x, y: torch.einsum("bi,ijo,bj->bo", s.a(x), s.w, s.b(y)),
    ROWS,
    ROWS,
    parts={"w": lambda: par(8, 8, 4)},
)
net(
    "cubic form",
    lambda s, x, y: torch.einsum("bi,bj,ijo->bo", s.a(x), s.b(y), s.w),
    ROWS,
    ROWS,
    parts={"w": lambda: par(8, 8, 4)},
)
net("low rank bilinear", lambda s, x, y: s.o(s.a(x) * s.b(y)), ROWS, ROWS)
net(
    "neural tensor",
    lambda s, x, y: s.o(torch.tanh(s.m(s.a(x), s.b(y)) + s.c(torch.cat([x, y], 1)))),
    ROWS,
    ROWS,
    parts={"m": lambda: nn.Bilinear(8, 8, 8, bias=False), "c": lambda: fc(16, 8)},
)
net("sines", lambda s, x: s.o(torch.sin(30 * s.a(x))))
net(
    "fourier features",
    lambda s, x: s.p(torch.cat([torch.sin(x @ s.z), torch.cos(x @ s.z)], 1)),
    parts={"p": lambda: fc(12, 4), "z": lambda: torch.rand(8, 6)},
)
net(
    "splines",
    lambda s, x: s.o(torch.einsum("bik,oik->bo", torch.exp(-((x[..., None] - s.grid) ** 2)), s.w) + s.a(F.silu(x))),
    parts={"w": lambda: par(8, 8, 5), "grid": lambda: torch.linspace(0, 2, 5)},
)
net("routing", lambda s, x: s.o(routed(s, x)), parts={"w": lambda: par(4, 3, 2, 8)}, only="soft")
net("squash", lambda s, x: s.o(squash(s.a(x).view(-1, 4, 2)).flatten(1)))
net(
    "turing tape",
    lambda s, x: s.o(tape(s, x)),
    TOKENS,
    parts={"k": fc, "e": fc, "start": lambda: torch.rand(1, 3, 8)},
    densities=(0.6, 0.3),
)
net(
    "centre of a loss",
    lambda s, x: (s.o(y := s.a(x)), ((y - s.book[:3]) ** 2).sum(-1)),
    parts={"book": lambda: par(4, 8)},
    unmasked=("book",),
)
net("angular margin", lambda s, x: F.linear(F.normalize(s.a(x)), F.normalize(s.w)), parts={"w": lambda: par(5, 8)})
net(
    "multi-task",
    lambda s, x: [s.o(F.relu(s.a(x) * s.g)), s.p(F.relu(s.a(x) * (1 - s.g)))],
    parts={"g": lambda: torch.tensor([1.0, 0] * 4), "p": lambda: fc(8, 2)},
)
net("attention on units", lambda s, x: s.o(x * s.a(x).softmax(-1) * 8))
net("residual of a residual", lambda s, x: s.o((y := x + s.a(x)) + s.b(y) + x))
net("learned residual weights", lambda s, x: s.o(s.g[0] * x + s.g[1] * s.a(x)), parts={"g": lambda: par(2)})
net(
    "architecture weights",
    lambda s, x: s.o((s.g.softmax(0)[:, None, None] * torch.stack([x, s.a(x), s.b(x)])).sum(0)),
    parts={"g": lambda: par(3)},
)
net("hyperconnections", lambda s, x: s.o(hyper(s, x)), parts={"m": lambda: par(3, 3)}, unmasked=("m",), more="m")
net(
    "sum over heads of outer products",
    lambda s, x: s.o(torch.einsum("bhi,bho->bio", s.a(x).view(-1, 2, 4), s.b(x).view(-1, 2, 4)).flatten(1)[:, :8]),
)
net(
    "convolution as a product of spectra",
    lambda s, x: s.o(torch.fft.irfft(torch.fft.rfft(s.a(x), dim=1) * torch.fft.rfft(s.book, dim=0), n=5, dim=1)),
    TOKENS,
    parts={"book": lambda: par(5, 8)},
    more="fft",
    unmasked=("book",),
)
net(
    "data in complex",
    lambda s, x: s.o(
        torch.view_as_real(
            torch.view_as_complex(s.a(x).view(-1, 4, 2)) * torch.view_as_complex(s.b(x).view(-1, 4, 2))
        ).flatten(1)
    ),
    more="imaginary",
)
net("detached branch", lambda s, x: s.o(s.a(x) + s.b(x).detach() * 0))
net("rows chosen by booleans", lambda s, x: s.o(s.a(x)[x.sum(1) > 0]))
net("units chosen by booleans of data", lambda s, x: s.o(s.a(x) * (s.b(x) > 0)), more="")
net("batch of one squeezed", lambda s, x: s.o(s.a(x).squeeze(0)), (1, 8))
net("plain vectors", lambda s, x: s.o(F.relu(s.a(x))), (8,))
net("five axes", lambda s, x: s.o(s.a(x).mean((1, 2, 3))), (2, 2, 3, 2, 8))
net("chunks permuted", lambda s, x: s.o(torch.cat([c for c in s.a(x).chunk(4, -1)][::-1], -1)))
net(
    "meshes",
    lambda s, x: s.p(torch.cartesian_prod(s.a(x)[0, :3], s.b(x)[0, :2]).flatten()[None]),
    parts={"p": lambda: fc(12, 2)},
)
net("outer", lambda s, x: s.p(torch.outer(s.a(x)[0], s.b(x)[0]).flatten()[None]), parts={"p": lambda: fc(64, 2)})
net("kron of units", lambda s, x: s.p(torch.kron(s.a(x)[:, :3], s.b(x)[:, :2])), parts={"p": lambda: fc(6, 2)})
net(
    "diagonal of units",
    lambda s, x: s.p(torch.diagonal(s.a(x)[:, :, None] * s.b(x)[:, None], dim1=1, dim2=2)),
    parts={"p": lambda: fc(8, 2)},
)
net(
    "trace of units", lambda s, x: s.p(torch.diag_embed(s.a(x)).diagonal(dim1=1, dim2=2)), parts={"p": lambda: fc(8, 2)}
)
net(
    "determinant",
    lambda s, x: s.p(torch.linalg.det(s.a(x)[:, :4].view(-1, 2, 2))[:, None]),
    parts={"p": lambda: fc(1, 2)},
    more="det",
)


def euler(s: Any, x: Tensor) -> Tensor:
    for _ in range(4):
        x = x + 0.1 * torch.tanh(s.b(F.relu(s.a(x))))
    return x


def equilibrium(s: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(3):
        z = torch.tanh(s.a(z) + s.b(x))
    return z


def reversible(s: Any, x: Tensor) -> Tensor:
    one, two = x.chunk(2, -1)
    one = one + s.f(two)
    return torch.cat([one, two + s.g(one)], -1)


def coupling(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).chunk(2, -1)
    return torch.cat([one, two * torch.exp(torch.tanh(s.c(one))) + s.t(one)], -1)


EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 4, 4]])


def messages(s: Any, x: Tensor) -> Tensor:
    sent = F.relu(s.a(x[EDGES[0]]) + s.b(x[EDGES[1]]))
    return torch.zeros_like(x).index_add(0, EDGES[1], sent)


def gat(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    e = F.leaky_relu((h @ s.u)[EDGES[0]] + (h @ s.v)[EDGES[1]]).exp()
    below = torch.zeros(5, dtype=x.dtype).index_add(0, EDGES[1], e)
    return torch.zeros_like(x).index_add(0, EDGES[1], h[EDGES[0]] * (e / (below[EDGES[1]] + 1e-9))[:, None])


def squash(x: Tensor) -> Tensor:
    n = (x**2).sum(-1, keepdim=True)
    return x * n / (1 + n) / torch.sqrt(n + 1e-8)


def routed(s: Any, x: Tensor) -> Tensor:
    u = torch.einsum("bi,kjdi->bkjd", s.a(x), s.w)
    logits = torch.zeros(u.shape[:3], dtype=x.dtype)
    v = u.sum(1)
    for _ in range(2):
        v = (logits.softmax(2)[..., None] * u).sum(1)
        logits = logits + (u * v[:, None]).sum(-1)
    return F.pad(v.flatten(1), (0, 2))


def tape(s: Any, x: Tensor) -> Tensor:
    memory, h = s.start.expand(2, 3, 8), torch.zeros(2, 8, dtype=x.dtype)
    for t in range(3):
        h = torch.tanh(s.a(x[:, t]) + s.b(h))
        w = (memory @ s.k(h)[..., None]).softmax(1)
        memory = memory * (1 - w) + w * s.e(h)[:, None]
        h = h + (w * memory).sum(1)
    return h


def hyper(s: Any, x: Tensor) -> Tensor:
    streams = torch.stack([x, x, x], 1)
    streams = torch.einsum("nm,bmd->bnd", s.m, streams)
    return (streams + s.a(streams[:, 0])[:, None]).sum(1)
