"""Convolutions and maps, as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.attention import attend
from gradient_nets.table import MAPS, conv, enter, fc, par, parts


def mapped(family: str, name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    """The same of convolutions: a, b (4 to 4) and o (4 to 2)."""
    more = options.pop("parts", {})
    makers = {"a": conv, "b": conv, "o": lambda: conv(4, 2), **more}
    enter(family, name, parts(forward, **makers), *(shapes or (MAPS,)), **options)


V = {"c": lambda: conv(4, 4, 3)}
mapped("maps", "padded by hand", lambda s, x: s.o(F.conv2d(F.pad(s.a(x), (1, 1, 1, 1)), s.c.weight)), parts=V)
mapped("maps", "padding same", lambda s, x: s.o(F.relu(s.c(x))), parts={"c": lambda: conv(4, 4, 3, padding="same")})
mapped(
    "maps",
    "circular padding",
    lambda s, x: s.o(s.c(s.a(x))),
    parts={"c": lambda: conv(4, 4, 3, padding_mode="circular")},
)
mapped(
    "maps",
    "transposed, dilated",
    lambda s, x: s.o(s.c(s.a(x))),
    parts={"c": lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, dilation=2, bias=False)},
)
enter(
    "maps",
    "transposed, 3d",
    lambda: nn.Sequential(nn.ConvTranspose3d(2, 4, 2, groups=2), nn.ReLU(), nn.Conv3d(4, 2, 1, groups=2)),
    (1, 2, 3, 3, 3),
)
enter(
    "maps",
    "grouped, 1d",
    lambda: nn.Sequential(nn.Conv1d(4, 6, 3, groups=2, padding=1), nn.GLU(1), nn.Conv1d(3, 2, 1)),
    (2, 4, 7),
)
mapped("maps", "without a batch", lambda s, x: s.o(F.relu(s.a(x[0]))), (1, 4, 6, 6))
mapped("maps", "resized", lambda s, x: s.o(F.interpolate(s.a(x), size=(9, 5), mode="bicubic")))
mapped(
    "maps",
    "unshuffled",
    lambda s, x: s.o(F.pixel_shuffle(s.p(F.pixel_unshuffle(s.a(x), 2)), 2)),
    parts={"p": lambda: conv(16, 16)},
)
mapped("maps", "unfolded and folded", lambda s, x: s.o(F.fold(F.unfold(s.a(x), 2, stride=2), (6, 6), 2, stride=2)))
mapped(
    "maps",
    "convolution by unfold",
    lambda s, x: s.o((s.w @ F.unfold(s.a(x), 3, padding=1)).view(-1, 4, 6, 6)),
    parts={"w": lambda: par(4, 36)},
)
mapped(
    "maps",
    "coordinates",
    lambda s, x: s.o(s.p(torch.cat([s.a(x), s.xy.expand(x.shape[0], -1, -1, -1)], 1))),
    parts={"p": lambda: conv(6, 4), "xy": lambda: torch.rand(1, 2, 6, 6) + 0.1},
)
mapped(
    "maps",
    "channel and spatial attention",
    lambda s, x: s.o(cbam(s, s.a(x))),
    parts={"d": lambda: conv(4, 2), "u": lambda: conv(2, 4), "p": lambda: conv(2, 1, 3)},
    more="amax",
)
mapped(
    "maps",
    "channel attention by a convolution",
    lambda s, x: s.o(x * torch.sigmoid(s.p(s.a(x).mean((2, 3))[:, None])[:, 0, :, None, None])),
    parts={"p": lambda: nn.Conv1d(1, 1, 3, padding=1, bias=False)},
    more="reads sums",
)
mapped(
    "maps",
    "non-local",
    lambda s, x: s.o(
        x + attend(*(p(x).flatten(2).transpose(1, 2) for p in (s.a, s.b, s.v))).transpose(1, 2).view_as(x)
    ),
    parts={"v": conv},
)
mapped(
    "maps",
    "selective kernels",
    lambda s, x: s.o(selected(s, x)),
    parts={"c": lambda: conv(4, 4, 3), "d": lambda: fc(4, 3), "u": lambda: fc(3, 8)},
)
mapped("maps", "split and joined", lambda s, x: s.o(res2(s, x)), parts={"p": lambda: conv(2, 2, 3), "q": conv})
mapped(
    "maps",
    "sampled by a grid",
    lambda s, x: s.o(
        F.grid_sample(
            s.a(x),
            F.affine_grid(0.05 * s.t(s.b(x).mean((2, 3))).view(-1, 2, 3), list(x.shape), align_corners=False),
            align_corners=False,
        )
    ),
    parts={"t": lambda: fc(4, 6)},
)
mapped("maps", "involution", lambda s, x: s.o(involution(s, x)), parts={"k": lambda: conv(4, 9)})
mapped(
    "maps",
    "global response norm",
    lambda s, x: s.o(
        (y := s.a(x))
        + s.scales
        * y
        * (y.norm(dim=(2, 3), keepdim=True) / (y.norm(dim=(2, 3), keepdim=True).mean(1, keepdim=True) + 1e-6))
    ),
    parts={"scales": lambda: par(1, 4, 1, 1)},
    unmasked=("scales",),
)
mapped(
    "maps",
    "maximum out",
    lambda s, x: s.o(s.p(x).unflatten(1, (4, 2)).amax(2)),
    parts={"p": lambda: conv(4, 8)},
    more="amax",
)
mapped(
    "maps",
    "concatenated rectifier",
    lambda s, x: s.p(F.relu(torch.cat([y := s.a(x), -y], 1))),
    parts={"p": lambda: conv(8, 2)},
    only="hard",
)
mapped(
    "maps",
    "global pools",
    lambda s, x: s.f(torch.cat([(y := s.a(x)).amax((2, 3)), y.mean((2, 3)), y.std((2, 3))], 1)),
    parts={"f": lambda: fc(12, 3)},
)
mapped("maps", "temporal shift", lambda s, x: s.o(torch.cat([(y := s.a(x))[:, :2].roll(1, 0), y[:, 2:]], 1)))
mapped(
    "maps",
    "stochastic depth",
    lambda s, x: s.o(x + s.b(F.relu(s.a(x))) * (torch.rand(x.shape[0], 1, 1, 1) < 0.5 if s.training else 1.0)),
)
mapped(
    "maps",
    "hypernetwork of kernels",
    lambda s, x, z: s.o(F.conv2d(s.a(x), s.h(z).view(4, 4, 3, 3), padding=1)),
    MAPS,
    (1, 8),
    parts={"h": lambda: fc(8, 144)},
)
mapped(
    "maps",
    "mixture of kernels",
    lambda s, x, z: s.o(F.conv2d(s.a(x), torch.einsum("e,eoikl->oikl", s.r(z)[0].softmax(0), s.w), padding=1)),
    MAPS,
    (1, 8),
    parts={"r": lambda: fc(8, 3), "w": lambda: par(3, 4, 4, 3, 3)},
)
mapped(
    "maps",
    "causal in time",
    lambda s, x: s.p(F.pad(torch.tanh(s.q(F.pad(x.flatten(2), (2, 0)))), (2, 0))),
    parts={"q": lambda: nn.Conv1d(4, 4, 3, bias=False), "p": lambda: nn.Conv1d(4, 2, 3, bias=False)},
)
mapped(
    "maps",
    "gated stack",
    lambda s, x: s.o(x + s.b(torch.tanh(s.p(x)[:, :4]) * torch.sigmoid(s.p(x)[:, 4:]))),
    parts={"p": lambda: conv(4, 8, 3)},
)


def cbam(s: Any, x: Tensor) -> Tensor:
    one = torch.sigmoid(sum(s.u(F.relu(s.d(y))) for y in (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))))
    x = x * one
    return x * torch.sigmoid(s.p(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def selected(s: Any, x: Tensor) -> Tensor:
    branches = torch.stack([s.a(x), s.c(x)], 1)
    weights = s.u(F.relu(s.d(branches.sum(1).mean((2, 3))))).view(-1, 2, 4).softmax(1)
    return (branches * weights[..., None, None]).sum(1)


def res2(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).chunk(2, 1)
    two = s.p(two + one)
    return s.q(torch.cat([one, two], 1)) + x


def involution(s: Any, x: Tensor) -> Tensor:
    kernels = s.k(x).view(-1, 1, 9, 6, 6)
    return (F.unfold(s.a(x), 3, padding=1).view(-1, 4, 9, 6, 6) * kernels).sum(2)
