"""Weights that people make from parameters, in ways of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.table import MAPS, TOKENS, conv, fc, odd, par

W = {"w": lambda: par(8, 8)}
WU = {**W, "u": lambda: par(8, 8)}


def made(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    odd("made", name, forward, *shapes, **{"parts": W, "only": "soft", **options})


made("rolled", lambda s, x: s.o(x @ s.w.roll(1, 0)))
made("rolled both ways", lambda s, x: s.o(x @ s.w.roll((1, 2), (0, 1))))
made("repeated rows", lambda s, x: s.o(F.linear(x, s.w.repeat(2, 1))), parts={"w": lambda: par(4, 8)})
made("repeated columns", lambda s, x: s.o(F.linear(x, s.w.repeat(1, 2))), parts={"w": lambda: par(8, 4)})
made("interleaved rows", lambda s, x: s.o(F.linear(x, s.w.repeat_interleave(2, 0))), parts={"w": lambda: par(4, 8)})
made("expanded columns", lambda s, x: s.o(F.linear(x, s.w.expand(8, 8))), parts={"w": lambda: par(8, 1)})
made("padded", lambda s, x: s.o(F.linear(x, F.pad(s.w, (1, 2, 2, 1)))), parts={"w": lambda: par(5, 5)})
made(
    "padded with ones",
    lambda s, x: s.o(F.linear(x, F.pad(s.w, (1, 2, 2, 1), value=1.0))),
    parts={"w": lambda: par(5, 5)},
)
made(
    "block diagonal",
    lambda s, x: s.o(x @ torch.block_diag(s.w, s.u)),
    parts={"w": lambda: par(3, 5), "u": lambda: par(5, 3)},
)
made("cat of rows", lambda s, x: s.o(x @ torch.cat([s.w, s.u])), parts={"w": lambda: par(3, 8), "u": lambda: par(5, 8)})
made("cat with zeros", lambda s, x: s.o(x @ torch.cat([s.w, torch.zeros(3, 8)])), parts={"w": lambda: par(5, 8)})
made(
    "cat with a buffer",
    lambda s, x: s.o(x @ torch.cat([s.w, s.z])),
    parts={"w": lambda: par(5, 8), "z": lambda: torch.eye(3, 8)},
)
made("mean of a stack", lambda s, x: s.o(x @ torch.stack([s.w, s.u]).mean(0)), parts=WU)
made("sum of a stack", lambda s, x: s.o(x @ s.w.sum(0)), parts={"w": lambda: par(3, 8, 8)})
made("rows that come twice", lambda s, x: s.o(x @ s.w[:, [0, 0, 1, 2, 3, 4, 5, 5]]))
made("two halves swapped", lambda s, x: s.o(x @ torch.cat(s.w.chunk(2, 1)[::-1], 1)))
made(
    "where of two",
    lambda s, x: s.o(x @ torch.where(s.m, s.w, s.u)),
    parts={**WU, "m": lambda: torch.eye(8).roll(1, 0) > 0},
)
made(
    "filled with zeros",
    lambda s, x: s.o(x @ s.w.masked_fill(s.m, 0.0)),
    parts={**W, "m": lambda: torch.ones(8, 8).tril() > 0},
)
made(
    "filled with ones",
    lambda s, x: s.o(x @ s.w.masked_fill(s.m, 1.0)),
    parts={**W, "m": lambda: torch.ones(8, 8).tril() > 0},
)
made(
    "three in a row",
    lambda s, x: s.o(x @ (s.w @ s.u @ s.v)),
    parts={"w": lambda: par(8, 3), "u": lambda: par(3, 4), "v": lambda: par(4, 8)},
)
made(
    "multi dot",
    lambda s, x: s.o(x @ torch.linalg.multi_dot([s.w, s.u, s.v])),
    parts={"w": lambda: par(8, 3), "u": lambda: par(3, 4), "v": lambda: par(4, 8)},
)
made(
    "low rank, scaled",
    lambda s, x: s.o(F.linear(x, s.a.weight + 0.5 * (s.u @ s.v))),
    parts={"u": lambda: par(8, 2), "v": lambda: par(2, 8)},
)
made(
    "low rank and a mask",
    lambda s, x: s.o(x @ ((s.u @ s.v) * s.m)),
    parts={"u": lambda: par(8, 2), "v": lambda: par(2, 8), "m": lambda: torch.ones(8, 8).tril()},
)
made("column times row", lambda s, x: s.o(x @ (s.u * s.v)), parts={"u": lambda: par(8, 1), "v": lambda: par(1, 8)})
made("product with itself", lambda s, x: s.o(x @ (s.w * s.w)))
made("product with its transpose", lambda s, x: s.o(x @ (s.w * s.w.T)))
made("gram", lambda s, x: s.o(x @ (s.w.T @ s.w)))
made("product, elementwise, of three", lambda s, x: s.o(x @ (s.w * s.u * s.v)), parts={**WU, "v": lambda: par(8, 8)})
made("product plus another", lambda s, x: s.o(x @ (s.w * s.u + s.v)), parts={**WU, "v": lambda: par(8, 8)})
made("gated weight", lambda s, x: s.o(x @ (s.w * torch.sigmoid(s.u))), parts=WU)
made("kron of an identity", lambda s, x: s.o(x @ torch.kron(torch.eye(2), s.w)), parts={"w": lambda: par(4, 4)})
made("kron, turned", lambda s, x: s.o(x @ torch.kron(s.w, torch.ones(2, 2))), parts={"w": lambda: par(4, 4)})
made(
    "sum of krons",
    lambda s, x: s.o(F.linear(x, torch.einsum("nij,nkl->nikjl", s.w, s.u).sum(0).reshape(8, 8))),
    parts={"w": lambda: par(2, 2, 2), "u": lambda: par(2, 4, 4)},
)
made("diagonal of a matrix", lambda s, x: s.o(x @ torch.diag(s.w.diagonal())))
made("diagonal embedded", lambda s, x: s.o(x @ torch.diag_embed(s.d)), parts={"d": lambda: par(8)})
made(
    "diagonal, block",
    lambda s, x: s.o((x.view(-1, 2, 4)[..., None, :] @ s.w).flatten(1)),
    parts={"w": lambda: par(2, 4, 4)},
)
made("softmax of a weight", lambda s, x: s.o(x @ s.w.softmax(0)))
made("over its sum", lambda s, x: s.o(x @ (s.w / (1 + s.w.sum(0, keepdim=True)))))
made("over its norm", lambda s, x: s.o(x @ (s.w / (1 + s.w.norm(dim=0, keepdim=True)))))
made("normalised", lambda s, x: s.o(F.linear(F.normalize(x), F.normalize(s.w))))
made("exponential", lambda s, x: s.o(x @ s.w.exp()))
made("sigmoid", lambda s, x: s.o(x @ s.w.sigmoid()))
made("tanh", lambda s, x: s.o(x @ s.w.tanh()))
made("clamped", lambda s, x: s.o(x @ s.w.clamp(-2, 2)))
made("plus an identity", lambda s, x: s.o(x @ (s.w + torch.eye(8))))
made("identity minus", lambda s, x: s.o(x @ (torch.eye(8) - s.w)))
made("lower, upper and an identity", lambda s, x: s.o(x @ ((s.w.tril(-1) + torch.eye(8)) @ s.u.triu())), parts=WU)
made("matrix exponential", lambda s, x: s.o(x @ torch.matrix_exp(s.w * 0.1)), more="matrix_exp")
made("inverse", lambda s, x: s.o(x @ torch.linalg.inv(s.w + 9 * torch.eye(8))), more="inv")
made("slimmable", lambda s, x: s.o(F.linear(x, s.w)) + s.o(F.pad(F.linear(x[:, :4], s.w[:4, :4]), (0, 4))))
made(
    "as a matrix and as a kernel",
    lambda s, x: s.o(F.linear(F.conv1d(x.unsqueeze(-1), s.w[..., None]).squeeze(-1), s.w)),
)
made("column as a gate", lambda s, x: s.o(s.a(x) * s.w[0]))
made("row added", lambda s, x: s.o(s.a(x) + s.w[0]), free=("w",))
made("mean as a gate", lambda s, x: s.o(s.a(x) * s.book.mean(0)), parts={"book": lambda: par(8, 8)}, unmasked=("book",))
made("a matrix as a gate", lambda s, x: s.o((s.a(x)[:, None] * s.w).flatten(1)[:, :8]))
made(
    "spread by an index",
    lambda s, x: s.o(x @ torch.zeros(8, 8, dtype=x.dtype).index_copy(0, torch.tensor([1, 3, 5]), s.w)),
    parts={"w": lambda: par(3, 8)},
)
made("written into zeros", lambda s, x: s.o(x @ written(s, x)), parts={"w": lambda: par(3, 8)})
made("gathered", lambda s, x: s.o(x @ s.w.gather(1, torch.arange(8).flip(0).expand(8, 8))))
made("taken", lambda s, x: s.o(x @ torch.take_along_dim(s.w, torch.arange(8).flip(0)[None], 1)))
made(
    "circulant",
    lambda s, x: s.o(F.linear(x, s.w[:, (torch.arange(8)[:, None] - torch.arange(8)) % 8][0])),
    parts={"w": lambda: par(1, 8)},
)
made("unfolded", lambda s, x: s.o(F.linear(x, s.w.unfold(1, 8, 1)[0])), parts={"w": lambda: par(1, 15)})
made(
    "parameter list",
    lambda s, x: s.o(F.relu(x @ s.list[0]) @ s.list[1]),
    parts={"list": lambda: nn.ParameterList([par(8, 6), par(6, 8)])},
)
made(
    "parameter dict",
    lambda s, x: s.o(F.relu(x @ s.held["one"]) @ s.held["two"]),
    parts={"held": lambda: nn.ParameterDict({"one": par(8, 6), "two": par(6, 8)})},
)
made(
    "called with another's weight",
    lambda s, x: s.o(torch.func.functional_call(s.a, {"weight": s.b.weight.T}, (x,))),
    parts={},
)
made("mapped over rows", lambda s, x: s.o(torch.vmap(s.a)(x)), parts={})
made(
    "mapped over weights", lambda s, x: s.o(torch.vmap(lambda w: x @ w)(s.w).sum(0)), parts={"w": lambda: par(3, 8, 8)}
)
made("weight norm, old", lambda s, x: s.o(s.p(x)), parts={"p": lambda: normed(0)}, unmasked=("p.",))
made("weight norm", lambda s, x: s.o(s.p(x)), parts={"p": lambda: normed(1)}, unmasked=("p.",))
made("spectral norm", lambda s, x: s.o(s.p(x)), parts={"p": lambda: normed(2)}, unmasked=("p.",))
made(
    "tensor train",
    lambda s, x: s.o(torch.einsum("bij,ikr,rjl->bkl", x.view(-1, 2, 4), s.w, s.u).flatten(1)),
    parts={"w": lambda: par(2, 2, 3), "u": lambda: par(3, 4, 4)},
    more="reads sums",
)
made(
    "monarch",
    lambda s, x: s.o(torch.einsum("bkj,jlk->blj", torch.einsum("bji,jki->bkj", x.view(-1, 2, 4), s.w), s.u).flatten(1)),
    parts={"w": lambda: par(2, 4, 4), "u": lambda: par(2, 4, 4)},
)
made("butterfly", lambda s, x: s.o(butterfly(s, x)), parts={"w": lambda: par(3, 4, 2, 2)})
made("einsum of a diagonal", lambda s, x: s.o(torch.einsum("bi,ii->bi", x, s.w)))
made("einsum with dots", lambda s, x: s.o(torch.einsum("...i,io->...o", x, s.w)), (2, 3, 8))
made("einsum without an arrow", lambda s, x: s.o(torch.einsum("bi,ij", x, s.w)))
made("einsum in the other order", lambda s, x: s.o(torch.einsum("oi,bi->bo", s.w, x)))
made("einsum of a sum", lambda s, x: s.o(torch.einsum("bi,oik->bo", x, s.w)), parts={"w": lambda: par(8, 8, 3)})
made("tensordot", lambda s, x: s.o(torch.tensordot(x, s.w, ([1], [1]))))
made(
    "tensordot of two axes",
    lambda s, x: s.o(torch.tensordot(x.view(-1, 2, 4), s.w, 2)),
    parts={"w": lambda: par(2, 4, 8)},
)
made("inner", lambda s, x: s.o(torch.inner(x, s.w)))
made("addmm", lambda s, x: s.o(torch.addmm(s.a(x), x, s.w)))
made("baddbmm", lambda s, x: s.o(torch.baddbmm(s.a(x), x, s.w.expand(2, 8, 8))), TOKENS)
made("addbmm", lambda s, x: s.o(torch.addbmm(x[0], x, s.w)), (2, 3, 8), parts={"w": lambda: par(2, 8, 8)})
made(
    "kernel of two branches",
    lambda s, x: s.c(F.conv2d(x, s.w + F.pad(s.u, (1, 1, 1, 1)), padding=1)),
    MAPS,
    parts={"w": lambda: par(4, 4, 3, 3), "u": lambda: par(4, 4, 1, 1), "c": lambda: conv(4, 2)},
)
made(
    "flipped kernel",
    lambda s, x: s.c(F.conv2d(x, s.w.flip(-1, -2), padding=1)),
    MAPS,
    parts={"w": lambda: par(4, 4, 3, 3), "c": lambda: conv(4, 2)},
)
made(
    "four turns of a kernel",
    lambda s, x: s.c(F.conv2d(x, torch.cat([s.w.rot90(k, (2, 3)) for k in range(4)]), padding=1)),
    MAPS,
    parts={"w": lambda: par(2, 4, 3, 3), "c": lambda: conv(8, 2)},
)
made(
    "middle of a kernel",
    lambda s, x: s.c(F.conv2d(x, s.w, padding=1) + F.conv2d(x, s.w[:, :, 1:2, 1:2])),
    MAPS,
    parts={"w": lambda: par(4, 4, 3, 3), "c": lambda: conv(4, 2)},
)
made(
    "masked kernel",
    lambda s, x: s.c(F.conv2d(x, s.w * s.m, padding=1)),
    MAPS,
    parts={
        "w": lambda: par(4, 4, 3, 3),
        "m": lambda: torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]),
        "c": lambda: conv(4, 2),
    },
)
made(
    "one kernel for each channel",
    lambda s, x: s.c(F.conv2d(x, s.w.expand(4, 1, 3, 3), padding=1, groups=4)),
    MAPS,
    parts={"w": lambda: par(1, 1, 3, 3), "c": lambda: conv(4, 2)},
)
made(
    "part of the kernels",
    lambda s, x: s.c(F.conv2d(x[:, :2], s.w[:4, :2], padding=1)),
    MAPS,
    parts={"w": lambda: par(6, 4, 3, 3), "c": lambda: conv(4, 2)},
)
made(
    "there and back",
    lambda s, x: F.conv_transpose2d(F.relu(F.conv2d(x, s.w)), s.w),
    MAPS,
    parts={"w": lambda: par(4, 4, 3, 3)},
)
made(
    "kernel by a product",
    lambda s, x: s.c(F.conv2d(x, (s.u @ s.v).view(4, 4, 3, 3), padding=1)),
    MAPS,
    parts={"u": lambda: par(4, 2), "v": lambda: par(2, 36), "c": lambda: conv(4, 2)},
)
made(
    "kernel of central differences",
    lambda s, x: s.c(F.conv2d(x, s.w, padding=1) - 0.7 * F.conv2d(x, s.w.sum((2, 3), keepdim=True))),
    MAPS,
    parts={"w": lambda: par(4, 4, 3, 3), "c": lambda: conv(4, 2)},
)
made(
    "separable kernel",
    lambda s, x: s.c(F.conv2d(x, s.u[..., None] * s.v[..., None, :], padding=1)),
    MAPS,
    parts={"u": lambda: par(4, 4, 3), "v": lambda: par(4, 4, 3), "c": lambda: conv(4, 2)},
)
made(
    "kernel of a linear layer",
    lambda s, x: s.c(F.conv2d(x, s.w.weight.view(4, 4, 1, 1))),
    MAPS,
    parts={"w": lambda: fc(4, 4), "c": lambda: conv(4, 2)},
)


def written(s: Any, x: Tensor) -> Tensor:
    z = torch.zeros(8, 8, dtype=x.dtype)
    z[2:5] = s.w
    return z


def normed(kind: int) -> nn.Module:
    how = (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)[kind]
    return how(fc())


def butterfly(s: Any, x: Tensor) -> Tensor:
    for level in range(3):
        x = torch.einsum("bpi,pio->bpo", x.view(-1, 4, 2), s.w[level]).transpose(1, 2).flatten(1)
    return x


WUV = {**WU, "v": lambda: par(8, 8)}
FEW, SOME = [1, 2], torch.tensor([1, 2])
made("product with itself, of matrices", lambda s, x: s.o(x @ (s.w @ s.w)))
made("square of its transpose", lambda s, x: s.o(x @ ((z := s.w.T) @ z)))
made("times the triangle of ones like it", lambda s, x: s.o(x @ (s.w * torch.ones_like(s.w).triu())))
made("sum and product", lambda s, x: s.o(x @ torch.addmm(s.w, s.u, s.v)), parts=WUV)
made("sum and product of entries", lambda s, x: s.o(x @ torch.addcmul(s.w, s.u, s.v)), parts=WUV)
made("sum and outer product", lambda s, x: s.o(x @ torch.addr(s.w, s.u[0], s.v[0])), parts=WUV)
made("mixed with another", lambda s, x: s.o(x @ torch.lerp(s.w, s.u, 0.3)), parts=WU)
made("mixed by a third", lambda s, x: s.o(x @ torch.lerp(s.w, s.u, s.v)), parts=WUV)
made("a row on a diagonal", lambda s, x: s.o(x @ torch.diag(s.w[0, :7], 1)))
made("sums on a diagonal", lambda s, x: s.o(x @ torch.diagflat(s.w.sum(0))))
made("seen by strides", lambda s, x: s.o(x @ s.w.T.as_strided((4, 8), (2, 8), 1).repeat(2, 1)))
made("a diagonal from another", lambda s, x: s.o(x @ torch.diagonal_scatter(s.w, s.u[0])), parts=WU)
made("where another is positive", lambda s, x: s.o(x @ (s.w * (s.u > 0))), parts=WU, more="'gt' chooses by what 'u'")
made("its largest", lambda s, x: s.o(x @ (s.w * (s.w >= s.w.amax(1)))), more="'ge' chooses by what 'w'")
made("times a sign", lambda s, x: s.o(x @ (s.w * s.u.sign())), parts=WU, more="'sign' lets no gradient")
made("times what is detached", lambda s, x: s.o(x @ (s.w * s.u.detach())), parts=WU, more="'detach' lets no gradient")
made("mapped beside a parameter", lambda s, x: s.o(torch.vmap(lambda v: v @ s.w)(x)))
made(
    "mapped over both",
    lambda s, x: s.o(torch.vmap(lambda v, w: v * w, in_dims=(None, 0), out_dims=1)(x, s.w).sum(-1)),
    more="recorded",
)


def after(name: str, write: Callable[[Any, Tensor], Any], **options: Any) -> None:
    """x times w, after something was written in place into it, or into what shares its memory."""

    def forward(s: Any, x: Tensor) -> Tensor:
        z = s.w.clone()
        write(s, z)
        return s.o(x @ z)

    made(f"after {name}", forward, **{"parts": WU, **options})


after("a product", lambda s, z: z.mul_(s.u))
after("sums", lambda s, z: z.sub_(s.u).addcmul_(s.u, s.u).lerp_(s.u, 0.3))
after("a sum and product", lambda s, z: z.addmm_(s.u, s.u))
after("halves", lambda s, z: (z[:4].mul_(s.u[:4]), z[4:].copy_(s.u[:4])))
after("part of a part", lambda s, z: z[2:6][:, 1:3].mul_(s.u[:4, :2]))
after("every second column", lambda s, z: z[:, ::2].copy_(s.u[:, :4]))
after("a column, as a row", lambda s, z: z.T[0].copy_(s.u[0]))
after("a flat view", lambda s, z: z.view(-1)[:10].copy_(s.u.reshape(-1)[:10]))
after("ones on the diagonal", lambda s, z: z.fill_diagonal_(1), parts=W)
after("zeros on the diagonal", lambda s, z: z.fill_diagonal_(0), parts=W)
after("the diagonal", lambda s, z: z.diagonal().copy_(s.u[0]))
after("strides", lambda s, z: z.as_strided((8,), (9,)).mul_(s.u[0]))
after("places by numbers", lambda s, z: z.index_put_((SOME, SOME + 3), s.u[0, :2]))
after("sums at places by numbers", lambda s, z: z.index_put_((SOME, SOME + 3), s.u[0, :2], accumulate=True))
after("rows by a list", lambda s, z: z.__setitem__(FEW, s.u[:2]))
after("places by a mask", lambda s, z: z.__setitem__(torch.eye(8) > 0, s.u[0]))
after("places of the flat tensor", lambda s, z: z.put_(SOME, s.u[0, :2]))
after("scattered entries", lambda s, z: z.scatter_(1, torch.tensor([[3]] * 8), s.u[:, :1]))
after("scattered sums", lambda s, z: z.scatter_add_(1, torch.tensor([[3, 4]] * 8), s.u[:, :2]))
after("copied and added rows", lambda s, z: z.index_copy_(0, SOME, s.u[:2]).index_add_(0, SOME, s.u[3:5]))
after("filled rows", lambda s, z: z.index_fill_(0, SOME, 0.0).masked_fill_(torch.eye(8) > 0, 0.0), parts=W)
after("entries in order", lambda s, z: z.masked_scatter_(torch.eye(8) > 0, s.u[0]))
after("a triangle", lambda s, z: z.tril_().t_(), parts=W)
made("a view of what is written", lambda s, x: s.o(x[:, :2] @ seen_later(s)), parts=WU)
made("a turn of what is written", lambda s, x: s.o(x @ turned_before(s)))


def seen_later(s: Any) -> Tensor:
    z = s.w.clone()
    part = z[2:4]
    z.mul_(s.u)
    return part


def turned_before(s: Any) -> Tensor:
    z = s.w.clone()
    turned = z.T
    z[2:3].zero_()
    return turned
