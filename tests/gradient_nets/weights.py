"""Weights that a network makes from its parameters: turned, cut, joined, multiplied, tied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradient_nets.table import conv, enter, fc, par, three


def weights(
    name: str, forward: Callable[..., Any], *shapes: Any, w: Callable[[], Any] = lambda: par(8, 8), **options: Any
) -> None:
    more = options.pop("parts", {})
    enter("weights", name, three(forward, w=w, **more), *(shapes or ((3, 8),)), **options)


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


class Skew(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu(1) - x.triu(1).transpose(-1, -2)


def parametrized(how: nn.Module) -> nn.Module:
    part = fc()
    parametrize.register_parametrization(part, "weight", how)
    return part


weights("plain", lambda s, x: s.o(F.relu(x @ s.w)))
weights("turned", lambda s, x: s.o(F.relu(x @ s.w.T)))
weights("reshaped", lambda s, x: s.o(F.relu(x @ s.w.reshape(8, 8))), w=lambda: par(4, 2, 8))
weights("flipped", lambda s, x: s.o(x @ s.w.flip(0)))
weights("rows by numbers", lambda s, x: s.o(x @ s.w[[3, 1, 2, 0, 7, 5, 6, 4]]))
weights("rows by slices", lambda s, x: s.o(x @ s.w[::2]), w=lambda: par(16, 8))
weights("columns of a larger one", lambda s, x: s.o(x @ s.w[:, 2:10]), w=lambda: par(8, 12))
weights("scaled", lambda s, x: s.o(x @ (2.0 * s.w / 3)))
weights("scaled by a vector", lambda s, x: s.o(x @ (s.w * s.g)), parts={"g": lambda: par(8)})
weights("negated", lambda s, x: s.o(x @ -s.w))
weights("masked by a buffer", lambda s, x: s.o(x @ (s.w * s.m)), parts={"m": lambda: torch.ones(8, 8).tril()})
weights("triu", lambda s, x: s.o(x @ s.w.triu()))
weights("tril", lambda s, x: s.o(x @ s.w.tril(-1)))
weights("plus its transpose", lambda s, x: s.o(x @ (s.w + s.w.T)))
weights("minus its transpose", lambda s, x: s.o(x @ (s.w - s.w.T)))
weights("symmetric", lambda s, x: s.o(s.p(x)), parts={"p": lambda: parametrized(Symmetric())})
weights("skew", lambda s, x: s.o(s.p(x)), parts={"p": lambda: parametrized(Skew())})
weights(
    "low rank beside", lambda s, x: s.o(x @ s.w + x @ s.u @ s.v), parts={"u": lambda: par(8, 2), "v": lambda: par(2, 8)}
)
weights(
    "low rank added",
    lambda s, x: s.o(x @ (s.w + s.u @ s.v)),
    parts={"u": lambda: par(8, 2), "v": lambda: par(2, 8)},
)
weights("sum of two", lambda s, x: s.o(x @ (s.w + s.u)), parts={"u": lambda: par(8, 8)})
weights("product of two, elementwise", lambda s, x: s.o(x @ (s.w * s.u)), parts={"u": lambda: par(8, 8)})
weights("joined", lambda s, x: s.o(x @ torch.cat([s.w, s.u], 1)), w=lambda: par(8, 3), parts={"u": lambda: par(8, 5)})
weights("stacked", lambda s, x: s.o((x @ torch.stack([s.w, s.u])).sum(0)), parts={"u": lambda: par(8, 8)})
weights("one row for all outputs", lambda s, x: s.o(F.linear(x, s.w.expand(8, 8))), w=lambda: par(1, 8))
weights("kron", lambda s, x: s.o(x @ torch.kron(s.w, s.u)), w=lambda: par(2, 4), parts={"u": lambda: par(4, 2)})
weights("absolute", lambda s, x: s.o(x @ s.w.abs()))
weights("squared", lambda s, x: s.o(x @ s.w**2))
weights("rectified", lambda s, x: s.o(x @ F.relu(s.w)))
weights("tied autoencoder", lambda s, x: F.linear(F.relu(F.linear(x, s.w)), s.w.T), w=lambda: par(5, 8))
weights("tied, thrice", lambda s, x: s.o(F.linear(F.linear(F.linear(x, s.w), s.w.T), s.w)))
weights(
    "tied head",
    lambda s, x: F.linear(F.relu(s.a(s.e(x)).mean(1)), s.e.weight),
    torch.arange(12).view(2, 6),
    parts={"e": lambda: nn.Embedding(12, 8)},
)
weights("diagonal", lambda s, x: s.o(x * s.w.diagonal()))
weights("locally connected", lambda s, x: s.o((x[:, None, :] * s.w).sum(-1)))
weights("locally connected, turned", lambda s, x: s.o((x[:, :, None] * s.w).sum(1)))
weights("linear by hand, einsum", lambda s, x: s.o(torch.einsum("bi,io->bo", x, s.w)))
weights("heads by einsum", lambda s, x: s.o(torch.einsum("bi,hid->bhd", x, s.w).flatten(1)), w=lambda: par(2, 8, 4))
weights(
    "heads gathered by einsum",
    lambda s, x: torch.einsum("bhd,hdo->bo", s.a(x).unflatten(1, (2, 4)), s.w),
    w=lambda: par(2, 4, 5),
)
weights(
    "einsum of three",
    lambda s, x: s.o(torch.einsum("bi,ir,ro->bo", x, s.u, s.w)),
    w=lambda: par(3, 8),
    parts={"u": lambda: par(8, 3)},
)
weights(
    "experts, one each",
    lambda s, x: s.o(torch.bmm(s.a(x).view(-1, 2, 4).transpose(0, 1), s.w).transpose(0, 1).flatten(1)),
    w=lambda: par(2, 4, 4),
)
weights(
    "soft experts",
    lambda s, x: s.o(torch.einsum("be,bi,eio->bo", s.r(x).softmax(-1), x, s.w)),
    w=lambda: par(3, 8, 8),
    parts={"r": lambda: fc(8, 3)},
)
weights(
    "kan", lambda s, x: s.o(torch.einsum("bik,oik->bo", torch.stack([x, x**2, x**3], -1), s.w)), w=lambda: par(8, 8, 3)
)
weights(
    "kernel as a matrix",
    lambda s, x: s.c(F.conv2d(x, s.w.view(4, 3, 1, 1))),
    (2, 3, 4, 4),
    w=lambda: par(4, 3),
    parts={"c": lambda: conv(4, 2)},
)
weights(
    "matrix as a kernel",
    lambda s, x: s.o(F.linear(x, s.c.weight.flatten(1))),
    parts={"c": lambda: nn.Conv2d(2, 8, 2, bias=False)},
)
weights(
    "standardised kernel",
    lambda s, x: s.d(F.conv2d(x, s.c.weight - s.c.weight.mean((1, 2, 3), keepdim=True))),
    (2, 3, 4, 4),
    parts={"c": lambda: conv(3, 4), "d": lambda: conv(4, 2)},
    more="is taken for it",
)
weights("quantised, straight through", lambda s, x: s.o(x @ (s.w + (s.w.sign() - s.w).detach())))
weights(
    "tokens pooled, unit by unit",
    lambda s, x: s.o(torch.einsum("btc,tc->bc", s.a(x), s.w)),
    (2, 5, 8),
    w=lambda: par(5, 8),
)
weights("tokens pooled, a square", lambda s, x: s.o(torch.einsum("btc,tc->bc", s.a(x), s.w)), (2, 8, 8))
weights("tokens pooled, the other way", lambda s, x: s.o(torch.einsum("btc,ct->bc", s.a(x), s.w)), (2, 8, 8))
weights(
    "one matrix for each last entry",
    lambda s, x: s.o(torch.einsum("bih,ioh->bho", s.a(x).view(-1, 4, 2), s.w).flatten(1)),
    w=lambda: par(4, 4, 2),
)
weights(
    "four factors",
    lambda s, x: s.o(torch.einsum("bij,ir,jr,ro->bo", x.view(-1, 2, 4), s.u, s.v, s.w)),
    w=lambda: par(3, 8),
    parts={"u": lambda: par(2, 3), "v": lambda: par(4, 3)},
    more="reads sums",
)
weights(
    "standardised by a norm, scaled",
    lambda s, x: s.d(
        F.conv2d(x, F.batch_norm(s.c.weight.view(1, 4, -1), None, None, s.g, training=True).view(4, 3, 1, 1))
    ),
    (2, 3, 4, 4),
    parts={"c": lambda: conv(3, 4), "d": lambda: conv(4, 2), "g": lambda: par(4)},
)
weights("pruned by torch", lambda s, x: s.o(s.p(x)), parts={"p": lambda: pruned()}, densities=(0.6,))


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    torch.manual_seed(3)
    return prune.random_unstructured(fc(), "weight", 0.3)
