"""Experts, choices, sets, and what is written to places by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradient_nets.table import TOKENS, fc, odd, par

C = {"c": fc, "r": lambda: fc(8, 3)}


def chosen(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    odd("chosen", name, forward, *shapes, **{"parts": C, **options})


def experts(s: Any, x: Tensor) -> Tensor:
    return torch.stack([s.a(x), s.b(x), s.c(x)], 1)


chosen("all experts", lambda s, x: s.o((s.r(x).softmax(-1)[..., None] * experts(s, x)).sum(1)))
chosen(
    "top experts, zeros written", lambda s, x: s.o((top_zeros(s.r(x))[..., None] * experts(s, x)).sum(1)), more="topk"
)
chosen("top experts, gathered", lambda s, x: s.o(top_gathered(s, x)), more="topk")
chosen("top experts, one by one", lambda s, x: s.o(one_by_one(s, x)), more="topk")
chosen("hard choice", lambda s, x: s.o(torch.where(s.r(x)[:, :1] > 0.5, s.a(x), s.b(x))), more="where")
chosen("mixture of softmaxes", lambda s, x: (s.r(x).softmax(-1)[..., None] * experts(s, x).softmax(-1)).sum(1))
chosen(
    "straight-through choice",
    lambda s, x: s.o((straight(s.r(x).softmax(-1))[..., None] * experts(s, x)).sum(1)),
    more="never zero",
)
chosen("best of a set", lambda s, x: s.o(F.relu(s.a(x)).amax(1)), TOKENS)
chosen("deep set, spread", lambda s, x: s.o(F.relu(s.a(x) + s.b(x.mean(1, keepdim=True)))), TOKENS)
chosen(
    "largest units",
    lambda s, x: s.o(s.a(x).masked_fill(s.b(x) < s.b(x).topk(3, -1).values[..., -1:], 0)),
    only="hard",
    more="topk",
)
chosen("top values", lambda s, x: s.p(s.a(x).topk(4, -1).values), parts={"p": lambda: fc(4, 2)}, more="topk")
chosen("middle value", lambda s, x: s.o(s.a(x).median(1).values), TOKENS)
chosen("norm of a set", lambda s, x: s.o(s.a(x).norm(dim=1)), TOKENS)
chosen("minimum with a constant", lambda s, x: s.o(s.a(x).clamp(max=100.0)))
chosen("log of a sum", lambda s, x: s.o(torch.logsumexp(s.a(x), 1)), TOKENS)
chosen(
    "products of pairs",
    lambda s, x: s.p(((y := s.a(x))[:, :, None] * y[:, None])[:, *torch.triu_indices(8, 8, 1)]),
    parts={"p": lambda: fc(28, 2)},
)
chosen(
    "factorisation machine",
    lambda s, x: s.o(x) + 0.5 * ((x @ s.w) ** 2 - x**2 @ s.w**2).sum(1, keepdim=True),
    parts={"w": lambda: par(8, 3)},
    densities=(0.6,),
)
chosen("cross layers", lambda s, x: s.o(x * s.b(y := x * s.a(x) + x) + y))
chosen(
    "edges added",
    lambda s, x: s.o(torch.zeros_like(x).index_add(1, torch.tensor([1, 2, 3, 3]), s.a(x)[:, [0, 1, 2, 4]])),
    TOKENS,
)
chosen("units added by an index", lambda s, x: s.o(x.index_add(1, torch.tensor([1, 3, 3]), s.a(x)[:, :3])))
chosen("units copied by an index", lambda s, x: s.o(x.index_copy(1, torch.tensor([6, 0, 4]), s.a(x)[:, :3])))
chosen("units scattered", lambda s, x: s.o(x.scatter(1, torch.tensor([[6, 0, 4]]).expand(3, 3), s.a(x)[:, :3])))
chosen(
    "units scattered and added",
    lambda s, x: s.o(x.scatter_add(1, torch.tensor([[6, 6, 4]]).expand(3, 3), s.a(x)[:, :3])),
)
chosen(
    "units scattered into zeros",
    lambda s, x: s.o(torch.zeros_like(x).scatter_(1, torch.tensor([[6, 0, 4]]).expand(3, 3), s.a(x)[:, :3])),
)
chosen(
    "units reduced by an index",
    lambda s, x: s.p(
        torch.zeros(3, 3, dtype=x.dtype).scatter_reduce(
            1, torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2]]).expand(3, 8), s.a(x), "sum"
        )
    ),
    parts={"p": lambda: fc(3, 2)},
)
chosen(
    "units put",
    lambda s, x: s.o(x.index_put((torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1])), s.a(x)[:, 0])),
)
chosen(
    "units put and added",
    lambda s, x: s.o(torch.zeros_like(x).T.index_put((torch.tensor([0, 1, 1]),), s.a(x).T[:3], accumulate=True).T),
)
chosen("units filled", lambda s, x: s.o(s.a(x).index_fill(1, torch.tensor([0, 3]), 0.0)))
chosen(
    "units masked and scattered",
    lambda s, x: s.o(x.masked_scatter(s.m.expand_as(x), s.a(x))),
    parts={"m": lambda: torch.tensor([True, False] * 4)},
    more="masked_scatter",
)
chosen("real part", lambda s, x: s.o(torch.complex(s.a(x), s.b(x)).real), more="imaginary")
chosen(
    "imaginary part of a product",
    lambda s, x: s.o((torch.complex(s.a(x), s.b(x)) * torch.complex(s.c(x), torch.zeros_like(x))).imag),
    more="imaginary",
)
chosen("length of complex numbers", lambda s, x: s.o(torch.complex(s.a(x), s.b(x)).abs()))
chosen("triangle of pairs", lambda s, x: s.o(torch.cummax(s.a(x), 1).values), TOKENS)
chosen("differences", lambda s, x: s.p(s.a(x).diff(dim=-1)), parts={"p": lambda: fc(7, 2)})
chosen("running mean", lambda s, x: s.o(s.a(x).cumsum(1) / torch.arange(1, 6)[:, None]), TOKENS)
chosen(
    "strided view",
    lambda s, x: s.p(s.a(x).as_strided((3, 4), (8, 2))),
    parts={"p": lambda: fc(4, 2)},
)
chosen("rolled by slices", lambda s, x: s.o(torch.cat([(y := s.a(x))[:, 3:], y[:, :3]], 1)))
chosen(
    "cross product",
    lambda s, x: s.p(torch.linalg.cross(s.a(x)[:, :3], s.b(x)[:, :3])),
    parts={"p": lambda: fc(3, 2)},
)
chosen(
    "cross product, by another name",
    lambda s, x: s.p(torch.cross(s.a(x)[:, :3], s.b(x)[:, :3], dim=1)),
    parts={"p": lambda: fc(3, 2)},
)
chosen(
    "cosine similarity",
    lambda s, x: s.p(F.cosine_similarity(s.a(x)[:, None], experts(s, x), dim=-1)),
    parts={**C, "p": lambda: fc(3, 2)},
)
chosen(
    "prototypes",
    lambda s, x: -torch.cdist(s.a(x), s.book),
    parts={"book": lambda: par(5, 8)},
    more="cdist",
    unmasked=("book",),
)
chosen(
    "radial units",
    lambda s, x: s.p(torch.exp(-((s.a(x)[:, None] - s.book) ** 2).sum(-1))),
    parts={"book": lambda: par(5, 8), "p": lambda: fc(5, 2)},
    unmasked=("book",),
)
chosen(
    "code book",
    lambda s, x: s.o(quantised(s.a(x), s.book)),
    parts={"book": lambda: par(6, 8)},
    more="cdist",
    unmasked=("book",),
)


def top_zeros(x: Tensor) -> Tensor:
    values, at = x.softmax(-1).topk(2, -1)
    return torch.zeros_like(x).scatter(-1, at, values)


def top_gathered(s: Any, x: Tensor) -> Tensor:
    values, at = s.r(x).topk(2, -1)
    return (values.softmax(-1)[..., None] * experts(s, x).gather(1, at[..., None].expand(-1, -1, 8))).sum(1)


def one_by_one(s: Any, x: Tensor) -> Tensor:
    values, at = s.r(x).topk(2, -1)
    out = torch.zeros_like(x)
    for number, expert in enumerate((s.a, s.b, s.c)):
        out = out + expert(x) * (values * (at == number)).sum(-1, keepdim=True)
    return out


def straight(x: Tensor) -> Tensor:
    return (F.one_hot(x.argmax(-1), 3).to(x.dtype) - x).detach() + x


def quantised(x: Tensor, book: Tensor) -> Tensor:
    taken = book[torch.cdist(x, book).argmin(-1)]
    return x + (taken - x).detach()
