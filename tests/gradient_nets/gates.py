"""Products, quotients, choices and other gates, which open or close with the units that are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradient_nets.table import conv, enter, fc, par, three


def gate(name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    more = options.pop("parts", {})
    enter("gates", name, three(forward, c=fc, **more), *(shapes or ((3, 8),)), **options)


def highway(s: Any, x: Tensor) -> Tensor:
    t = torch.sigmoid(s.b(x))
    return s.o(t * F.relu(s.a(x)) + (1 - t) * x)


def adaptive(s: Any, x: Tensor, c: Tensor) -> Tensor:
    shift, scale, open = s.m(c).chunk(3, -1)
    y = F.layer_norm(x, (8,)) * (1 + scale) + shift
    return s.o(x + open * s.a(y))


gate("product", lambda s, x: s.o(s.a(x) * s.b(x)))
gate("product of three", lambda s, x: s.o(s.a(x) * s.b(x) * s.c(x)))
gate("swiglu", lambda s, x: s.o(F.silu(s.a(x)) * s.b(x)))
gate("geglu", lambda s, x: s.o(F.gelu(s.a(x)) * s.b(x)))
gate("reglu", lambda s, x: s.o(F.relu(s.a(x)) * s.b(x)))
gate("sigmoid gate", lambda s, x: s.o(torch.sigmoid(s.a(x)) * s.b(x)))
gate("tanh gate", lambda s, x: s.o(torch.tanh(s.a(x)) * s.b(x)))
gate("exponential gate", lambda s, x: s.o(torch.exp(-s.a(x)) * s.b(x)))
gate("softplus gate", lambda s, x: s.o(F.softplus(s.a(x)) * s.b(x)))
gate("cosine gate", lambda s, x: s.o(torch.cos(s.a(x)) * s.b(x)))
gate("softmax gate", lambda s, x: s.o(s.a(x).softmax(-1) * s.b(x)))
gate("modulation", lambda s, x: s.o(x * (1 + s.a(x))))
gate("modulation of a layer", lambda s, x: s.o(s.b(x) * (1 + s.a(x))))
gate("film", lambda s, x, c: s.o(s.a(x) * (1 + s.b(c)) + s.c(c)), (3, 8), (3, 8))
gate("adaptive norm", adaptive, (3, 8), (3, 8), parts={"m": lambda: fc(8, 24)})
gate("highway", highway)
gate("one minus", lambda s, x: s.o((1 - s.a(x)) * s.b(x)))
gate("both open", lambda s, x: s.o((2 + s.a(x)) * (3 + s.b(x))))
gate("learned offset", lambda s, x: s.o(s.a(x) * (s.g + s.b(x))), parts={"g": lambda: par(8)})
gate("learned scale", lambda s, x: s.o(s.a(x) * s.g), parts={"g": lambda: par(8)})
gate("scalar gate", lambda s, x: s.o(s.a(x) * torch.sigmoid(s.k(x))), parts={"k": lambda: fc(8, 1)})
gate("quotient", lambda s, x: s.o(s.a(x) / (s.b(x) + 1e-2)))
gate("quotient by a sum", lambda s, x: s.o(s.a(x) / (1 + s.b(x).sum(-1, keepdim=True))))
gate("gate by the mean", lambda s, x: s.o((y := s.a(x)) * y.mean(-1, keepdim=True)))
gate("plus the mean", lambda s, x: s.o((y := s.a(x)) + y.mean(-1, keepdim=True)))
gate("centred", lambda s, x: s.o((y := s.a(x)) - y.mean(-1, keepdim=True)))
gate("square", lambda s, x: s.o(s.a(x) ** 2))
gate("times itself", lambda s, x: s.o(s.a(x) * s.a(x)))
gate("swish by hand", lambda s, x: s.o(s.a(x) * torch.sigmoid(s.a(x))))
gate("product over an axis", lambda s, x: s.o(s.a(x).unflatten(-1, (4, 2)).prod(-1).repeat(1, 2)))
gate("cumulative sum", lambda s, x: s.o(s.a(x).cumsum(-1)))
gate("cumulative logarithm of sums", lambda s, x: s.o(torch.logcumsumexp(s.a(x) / 64, -1)))
gate("remainder", lambda s, x: s.o(torch.fmod(8 * s.a(x), 0.1 + s.b(x) / 64)))
gate("sign of another", lambda s, x: s.o(torch.copysign(s.a(x), x)))
gate("two to the power", lambda s, x: s.o(torch.ldexp(s.a(x), torch.tensor(2))))
gate("logarithm of two exponentials", lambda s, x: s.o(torch.logaddexp(s.a(x) / 40, s.b(x) / 40)))
gate("angle", lambda s, x: s.o(torch.atan2(s.a(x), 1 + s.b(x))), more="sum")
gate("cumulative product", lambda s, x: s.o((1 + s.a(x)).cumprod(-1)))
gate(
    "outer product",
    lambda s, x: s.p((s.a(x)[:, :3, None] * s.b(x)[:, None, :4]).flatten(1)),
    parts={"p": lambda: fc(12, 3)},
)
gate("addcmul", lambda s, x: s.o(torch.addcmul(s.a(x), s.b(x), s.c(x), value=0.5)))
gate("addcdiv", lambda s, x: s.o(torch.addcdiv(s.a(x), s.b(x), 1 + s.c(x))))
gate("lerp", lambda s, x: s.o(torch.lerp(s.a(x), s.b(x), torch.sigmoid(s.c(x)))))
gate("lerp by a number", lambda s, x: s.o(torch.lerp(s.a(x), s.b(x), 0.3)))
gate(
    "where, known",
    lambda s, x: s.o(torch.where(s.m > 0, s.a(x), s.b(x))),
    parts={"m": lambda: torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0])},
)
gate("maximum of two", lambda s, x: s.o(torch.maximum(s.a(x), s.b(x))), more="maximum")
gate("zeros", lambda s, x: s.o(s.a(x) + 0 * s.b(x)))
gate("zeros of a buffer", lambda s, x: s.o(s.a(x) + s.z * s.b(x)), parts={"z": lambda: torch.zeros(8)})
gate(
    "a buffer opens some", lambda s, x: s.o(s.a(x) * s.z), parts={"z": lambda: torch.tensor([1.0, 0, 2, 0, 0, 3, 1, 0])}
)
gate("a fixed matrix", lambda s, x: s.o(s.a(x) @ s.z), parts={"z": lambda: torch.eye(8).roll(1, 0).tril()})
gate(
    "gates of channels",
    lambda s, x: s.q(s.p(x) * torch.sigmoid(s.r(x).mean((2, 3), keepdim=True))),
    (2, 3, 4, 4),
    parts={"p": lambda: conv(3, 4), "r": lambda: conv(3, 4), "q": lambda: conv(4, 2)},
)
gate(
    "gates of places",
    lambda s, x: s.q(s.p(x) * torch.sigmoid(s.r(x))),
    (2, 3, 4, 4),
    parts={"p": lambda: conv(3, 4), "r": lambda: conv(3, 1, 3), "q": lambda: conv(4, 2)},
)
gate("padded with ones", lambda s, x: s.o(F.pad(s.a(x)[:, :5], (1, 2), value=1.0) * s.b(x)))
gate("one unit, padded with zeros", lambda s, x: s.p(F.pad(s.a(x)[:, :1], (1, 1))), parts={"p": lambda: fc(3, 2)})
gate("index by a literal", lambda s, x: s.o(s.a(x)[:, torch.tensor([7, 0, 3, 3, 1, 2, 6, 5])]))
gate("index_select", lambda s, x: s.o(torch.index_select(s.a(x), 1, torch.tensor([7, 0, 3, 3, 1, 2, 6, 5]))))
gate(
    "boolean index",
    lambda s, x: s.p(s.a(x)[:, s.m]),
    parts={"m": lambda: torch.tensor([True, False] * 4), "p": lambda: fc(4, 2)},
)
gate(
    "gather, known",
    lambda s, x: s.p(s.a(x).gather(1, torch.tensor([[7, 0, 3]]).expand(x.shape[0], 3))),
    parts={"p": lambda: fc(3, 2)},
)
gate("sorted units", lambda s, x: s.o(s.a(x).sort(-1).values), more="sort")
gate(
    "soft experts",
    lambda s, x: s.o((s.r(x).softmax(-1)[:, None] * torch.stack([s.a(x), s.b(x)], -1)).sum(-1)),
    parts={"r": lambda: fc(8, 2)},
)
gate(
    "rms norm by hand",
    lambda s, x: s.o(s.a(x) * torch.rsqrt(s.k * s.a(x).pow(2).mean(-1, keepdim=True) + 1)),
    parts={"k": lambda: torch.tensor(0.0)},
    only="hard",
)
gate(
    "distances", lambda s, x: s.o(torch.cdist(s.a(x)[:, None], s.b(x)[:, None]).flatten(1).expand(-1, 8)), more="cdist"
)
gate("fourier", lambda s, x: s.o(torch.fft.fft(s.a(x)).real), more="fft")
