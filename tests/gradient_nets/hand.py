"""Small networks written by hand: residuals, branches, shared layers, mixers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradient_nets.table import conv, enter, fc, par, parts, three


def hand(name: str, build: Callable[[], nn.Module], *shapes: Any, **options: Any) -> None:
    enter("hand", name, build, *(shapes or ((3, 8),)), **options)


def dense(s: Any, x: Tensor) -> Tensor:
    y = F.relu(s.a(x))
    z = F.relu(s.b(torch.cat([x, y], 1)))
    return s.o(torch.cat([x, y, z], 1))


def unet(s: Any, x: Tensor) -> Tensor:
    down = F.relu(s.a(x))
    deep = F.relu(s.b(F.max_pool2d(down, 2)))
    up = F.interpolate(deep, scale_factor=2)
    return s.o(torch.cat([up, down], 1))


def ghost(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return s.o(torch.cat([y, s.d(y)], 1)[:, :6])


def excite(s: Any, x: Tensor) -> Tensor:
    gate = torch.sigmoid(s.up(F.relu(s.down(F.adaptive_avg_pool2d(x, 1)))))
    return s.o(x * gate)


def invert(s: Any, x: Tensor) -> Tensor:
    return s.o(x + s.narrow(F.relu6(s.deep(F.relu6(s.wide(x))))))


def mixer(s: Any, x: Tensor) -> Tensor:
    x = x + s.tokens(x.transpose(1, 2)).transpose(1, 2)
    return s.o(x + s.a(x))


def caps(s: Any, x: Tensor) -> Tensor:
    u = torch.einsum("bi,iod->biod", s.a(x), s.w)
    return s.o(u.sum(1).flatten(1))


hand("mlp", lambda: nn.Sequential(fc(), nn.ReLU(), fc(), nn.ReLU(), fc(8, 4)))
hand("residual", three(lambda s, x: s.o(x + s.b(F.relu(s.a(x))))))
hand("residual, scaled", three(lambda s, x: s.o(0.5 * x + s.b(F.relu(s.a(x))) / 3)))
hand("dense", parts(dense, a=fc, b=lambda: fc(16), o=lambda: fc(24, 4)))
hand("two branches", three(lambda s, x: s.o(F.relu(s.a(x)) + torch.tanh(s.b(x)))))
hand("difference", three(lambda s, x: s.o(s.a(x) - s.b(x))))
hand("shared layer", three(lambda s, x: s.o(s.a(s.a(x)) + s.b(x))))
hand("siamese", three(lambda s, x, y: s.o(s.a(x) + s.b(s.a(y)))), (3, 8), (3, 8))
hand(
    "two inputs", three(lambda s, x, y: s.o(torch.cat([s.a(x)[:, :4], s.c(y)], 1)), c=lambda: fc(5, 4)), (3, 8), (3, 5)
)
hand("two outputs", three(lambda s, x: {"one": s.a(x), "two": (s.o(s.b(x)),)}))
hand("rows of ones skipped", three(lambda s, x: s.o(F.pad(x[:, 2:6], (1, 3)) + s.a(x))))
hand("set", three(lambda s, x: s.o(s.b(F.relu(s.a(x)).sum(1)))), (2, 5, 8))
hand("mean of tokens", three(lambda s, x: s.o(F.relu(s.a(x)).mean(1))), (2, 5, 8))
hand("first token", three(lambda s, x: s.o((x + s.b(F.relu(s.a(x))))[:, 0])), (2, 5, 8))
hand("token mixing", parts(mixer, tokens=lambda: fc(5, 5), a=fc, o=lambda: fc(8, 4)), (2, 5, 8), more="reads sums")
hand("capsules", parts(caps, a=lambda: fc(8, 6), w=lambda: par(6, 3, 2), o=lambda: fc(6, 2)))
hand(
    "squeeze and excite",
    parts(excite, down=lambda: conv(4, 2), up=lambda: conv(2, 4), o=lambda: conv(4, 3)),
    (2, 4, 5, 5),
)
hand(
    "inverted bottleneck",
    parts(
        invert,
        wide=lambda: conv(4, 12),
        deep=lambda: conv(12, 12, 3, groups=12),
        narrow=lambda: conv(12, 4),
        o=lambda: conv(4, 3),
    ),
    (2, 4, 5, 5),
)
hand("u-net", parts(unet, a=lambda: conv(3, 4, 3), b=lambda: conv(4, 5, 3), o=lambda: conv(9, 2)), (2, 3, 8, 8))
hand(
    "ghost module",
    parts(ghost, a=lambda: conv(4, 4), d=lambda: conv(4, 4, 3, groups=4), o=lambda: conv(6, 2)),
    (2, 4, 5, 5),
)
hand(
    "channel shuffle",
    lambda: nn.Sequential(
        conv(4, 8, groups=2),
        nn.ChannelShuffle(2),
        nn.ReLU(),
        conv(8, 8, groups=4),
        nn.ChannelShuffle(4),
        conv(8, 4, groups=2),
    ),
    (2, 4, 3, 3),
)
hand("pixel shuffle", lambda: nn.Sequential(conv(3, 8), nn.PixelShuffle(2), conv(2, 3)), (2, 3, 4, 4))
hand("pixel unshuffle", lambda: nn.Sequential(conv(3, 2), nn.PixelUnshuffle(2), conv(8, 3)), (2, 3, 4, 4))
hand(
    "inception",
    parts(
        lambda s, x: s.o(torch.cat([s.a(x), s.c(F.relu(s.b(x))), s.d(F.max_pool2d(x, 3, 1, 1))], 1)),
        a=lambda: conv(4, 3),
        b=lambda: conv(4, 3),
        c=lambda: conv(3, 4, 3),
        d=lambda: conv(4, 2),
        o=lambda: conv(9, 3),
    ),
    (2, 4, 6, 6),
)
hand(
    "flattened maps", lambda: nn.Sequential(conv(2, 3, 3, padding=0), nn.ReLU(), nn.Flatten(), fc(12, 4)), (2, 2, 4, 4)
)
hand("layer scale", three(lambda s, x: s.o(x + s.gamma * s.b(F.gelu(s.a(x)))), gamma=lambda: par(8)))
hand("written into a slice", three(lambda s, x: s.o(into_slice(s, x))))
hand(
    "tokens",
    parts(lambda s, x: s.o(F.relu(s.a(s.e(x)).mean(1))), e=lambda: nn.Embedding(12, 8), a=fc, o=lambda: fc(8, 4)),
    torch.arange(10).view(2, 5),
)

hand("ones written on a diagonal", three(lambda s, x: s.o(s.a(x).fill_diagonal_(1))), (8, 8))
hand("written by strides", three(lambda s, x: s.o(by_strides(s.a(x), s.b(x)))))
hand("halves that change places", three(lambda s, x: s.o(changed_places(s.a(x)))))
hand("columns added in a row", three(lambda s, x: s.o(added_in_a_row(s.a(x)))))
hand("a view of what is written", three(lambda s, x: s.o(seen_later(s.a(x), s.b(x)))))
hand("a turn of what is written", three(lambda s, x: s.o(turned_before(s.a(x)))))
hand("the first token alone", three(lambda s, x: s.o(s.a(x[:, 0]))), (2, 5, 8))
hand("the first place alone", three(lambda s, x: s.o(s.a(x[..., 0, 0]))), (2, 8, 3, 4))
hand("the last of a line", three(lambda s, x: s.o(s.a(x[..., -1]))), (2, 8, 5))
hand(
    "one channel of two that are one",
    parts(lambda s, x: s.o(F.pad(s.a(x)[:, [0, 0]], (0, 0, 0, 0, 1, 1))), a=lambda: conv(4, 1), o=lambda: conv(4, 3)),
    (2, 4, 5, 5),
)
hand(
    "a masked channel of three that are one",
    parts(
        lambda s, x: s.o(s.a(x)[:, [0, 0, 0]] * torch.tensor([0.0, 1, 2]).view(3, 1, 1).to(x.dtype)),
        a=lambda: conv(4, 1),
        o=lambda: conv(3, 3),
    ),
    (2, 4, 5, 5),
)
hand("squeezed in place", three(lambda s, x: s.o((s.a(x)[:, None] + 0).squeeze_(1))))


def into_slice(s: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:5] = s.a(x)[:, :4]
    y[:, 3:] += s.b(x)[:, 3:]
    return y


def by_strides(y: Tensor, z: Tensor) -> Tensor:
    y = y.clone()
    y.as_strided((3, 4), (8, 1)).mul_(z[:, :4])
    return y


def changed_places(y: Tensor) -> Tensor:
    half = y[:, :4]
    y[:, :4] = y[:, 4:]
    y[:, 4:] = half  # which holds the other by now
    return y


def added_in_a_row(y: Tensor) -> Tensor:
    columns = [y[:, at : at + 1] for at in range(8)]
    for before, column in pairwise(columns):
        column.add_(before)
    return y


def seen_later(y: Tensor, z: Tensor) -> Tensor:
    part = y[:, :4]
    y.mul_(z)
    return torch.cat([part, part], 1)


def turned_before(y: Tensor) -> Tensor:
    turned = y.t()
    y.view(-1)[::9].zero_()
    return turned.t()
