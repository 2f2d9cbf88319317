"""The table of small networks whose traces are held against gradients: `TABLE`, family/name -> Case."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gradients import Case, Net
from torch import Tensor, nn
from torch.nn.utils import parametrize

TABLE: dict[str, Case] = {}


# What the tracer does not get right yet; the tests expect these rows to fail.
_LOST = "the weight is in no layer, which a warning and a note say"
_ZEROS = "a mask that pruning put on a parameter is a mask, and not part of the wiring"
MISSED = {
    _LOST: "hand/capsules; weights/product of two, elementwise; weights/kron; weights/diagonal",
    _ZEROS: "weights/pruned by torch",
}
MISSED["values that are padded where the attention is 0 count as constants"] = "transformers/LongformerModel"
_REASONS = {name.strip(): reason for reason, names in MISSED.items() for name in names.split(";")}


def enter(family: str, name: str, build: Callable[[], nn.Module], *shapes: Any, **options: Any) -> None:
    key = f"{family}/{name}"
    assert key not in TABLE, key
    TABLE[key] = Case(build, shapes, missed=_REASONS.get(key), **options)


def fc(n: int = 8, m: int = 8) -> nn.Module:
    return nn.Linear(n, m, bias=False)


def conv(n: int = 4, m: int = 4, k: int = 1, **how: Any) -> nn.Module:
    return nn.Conv2d(n, m, k, padding=how.pop("padding", k // 2), bias=False, **how)


def par(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*shape))


def parts(forward: Callable[..., Any], **makers: Callable[[], Any]) -> Callable[[], nn.Module]:
    """A network of these parts, made anew at each call."""
    return lambda: Net(forward, **{name: make() for name, make in makers.items()})


def three(forward: Callable[..., Any], **more: Callable[[], Any]) -> Callable[[], nn.Module]:
    """Layers a, b of 8 to 8 and o of 8 to 4, and more."""
    return parts(forward, **{"a": fc, "b": fc, "o": lambda: fc(8, 4), **more})


# -- hand-written


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


def into_slice(s: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:5] = s.a(x)[:, :4]
    y[:, 3:] += s.b(x)[:, 3:]
    return y


# -- layers of torch


def layer(name: str, build: Callable[[], nn.Module], *shapes: Any, **options: Any) -> None:
    enter("layers", name, build, *shapes, **options)


def between(middle: Callable[[], nn.Module], n: int = 4, m: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(conv(3, n), middle(), conv(m, 2))


def lined(middle: Callable[[], nn.Module], n: int = 8, m: int = 8) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(fc(8, n), middle(), fc(m, 4))


MAPS, LINE = (2, 3, 6, 6), (3, 8)
layer(
    "conv1d", lambda: nn.Sequential(nn.Conv1d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv1d(5, 2, 3, stride=2)), (2, 3, 9)
)
layer("conv3d", lambda: nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1)), (1, 2, 4, 4, 4))
layer(
    "conv2d, strides and dilation",
    lambda: nn.Sequential(conv(3, 4, 3, stride=2), conv(4, 2, 3, dilation=2, padding=2)),
    (2, 3, 12, 12),
)
layer("grouped", lambda: nn.Sequential(conv(4, 6, 3, groups=2), nn.ReLU(), conv(6, 3, groups=3)), (2, 4, 5, 5))
layer("depthwise", lambda: nn.Sequential(conv(4, 8, 3, groups=4), nn.ReLU(), conv(8, 2)), (2, 4, 5, 5))
layer(
    "transposed",
    lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3)),
    (2, 3, 4, 4),
)
layer(
    "transposed, grouped",
    lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), conv(6, 2)),
    (2, 4, 4, 4),
)
layer("transposed, 1d", lambda: nn.Sequential(nn.ConvTranspose1d(3, 4, 3, stride=2), nn.Conv1d(4, 2, 1)), (2, 3, 5))
layer(
    "bilinear",
    parts(
        lambda s, x, y: s.o(s.m(s.a(x), s.c(y))),
        a=lambda: fc(8, 3),
        c=lambda: fc(5, 4),
        m=lambda: nn.Bilinear(3, 4, 5),
        o=lambda: fc(5, 2),
    ),
    (3, 8),
    (3, 5),
)
layer(
    "embedding bag",
    parts(lambda s, x: s.o(s.e(x)), e=lambda: nn.EmbeddingBag(12, 8), o=lambda: fc(8, 4)),
    torch.arange(10).view(2, 5),
)
for name, middle in {
    "relu": nn.ReLU,
    "prelu": lambda: nn.PReLU(4),
    "leaky relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "max pool": lambda: nn.MaxPool2d(2),
    "average pool": lambda: nn.AvgPool2d(3, 2, 1),
    "adaptive pool": lambda: nn.AdaptiveAvgPool2d(2),
    "adaptive max pool": lambda: nn.AdaptiveMaxPool2d(2),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bilinear upsampling": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "zero padding": lambda: nn.ZeroPad2d(1),
    "reflection": lambda: nn.ReflectionPad2d(1),
    "replication": lambda: nn.ReplicationPad2d(1),
    "constant padding": lambda: nn.ConstantPad2d(1, 2.0),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "dropout": nn.Dropout,
    "identity": nn.Identity,
}.items():
    layer(name, between(middle), MAPS)
layer("softmax over channels", between(lambda: nn.Softmax(1)), MAPS)
layer("glu", lined(lambda: nn.GLU(), 16), LINE)
layer("layer norm", lined(lambda: nn.LayerNorm(8)), LINE)
layer("rms norm", lined(lambda: nn.RMSNorm(8)), LINE)
layer(
    "unflatten and fold",
    parts(lambda s, x: s.o(F.unfold(s.a(x), 2, stride=2).transpose(1, 2)), a=lambda: conv(3, 2), o=lambda: fc(8, 3)),
    (2, 3, 4, 4),
)
layer("encoder layer", lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (2, 4, 8))
layer("decoder layer", lambda: nn.TransformerDecoderLayer(8, 2, 12, batch_first=True), (2, 4, 8), (2, 3, 8))
layer(
    "multihead attention",
    parts(
        lambda s, x: s.o(s.m(x, x, x, need_weights=False)[0]),
        m=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        o=lambda: fc(8, 4),
    ),
    (2, 4, 8),
)
layer(
    "multihead attention with weights",
    parts(
        lambda s, x, y: s.o(s.m(x, y, y)[0]),
        m=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        o=lambda: fc(8, 4),
    ),
    (2, 4, 8),
    (2, 3, 8),
)
layer(
    "attention of other widths",
    parts(
        lambda s, x, y: s.o(s.m(x, y, y, need_weights=False)[0]),
        m=lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True),
        o=lambda: fc(8, 4),
    ),
    (2, 4, 8),
    (2, 3, 6),
)


# -- weights made from parameters


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
weights("diagonal", lambda s, x: s.o(x * s.w.diagonal()), more="w")
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
weights("pruned by torch", lambda s, x: s.o(s.p(x)), parts={"p": lambda: pruned()}, densities=(0.6,))


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    torch.manual_seed(3)
    return prune.random_unstructured(fc(), "weight", 0.3)


# -- gates and modulation


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


# -- attention


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


# -- recurrent


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


# -- networks of the papers, and of the transformers library


def image(side: int) -> tuple[int, ...]:
    return (1, 3, side, side)


def named(spec: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import topo.models

        return topo.models.build(spec)

    return build


enter("papers", "resnet20", named("resnet20"), image(32), densities=(0.2, 0.02, 0.005))
enter("papers", "resnet20, padded shortcuts", named("resnet20:shortcut=pad"), image(32), densities=(0.2, 0.02))
enter("papers", "resnet50", named("resnet50:classes=10"), image(64), densities=(0.02,))
enter("papers", "mobilenetv2", named("mobilenetv2"), image(64), densities=(0.5, 0.02))

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 16}
SMALL_DECODER = {**SMALL_TEXT, "use_cache": False, "num_key_value_heads": 1, "pad_token_id": 0}
BOTH = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BOTH |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "vocab_size": 20, "use_cache": False}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
IDS = torch.tensor([[1, 4, 7, 5, 9, 6]])
PIXELS = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
TOKENS = {"input_ids": IDS}


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


ADDED = ("position", "cls_token", "token_type")


def transformer(
    config: str,
    model: str,
    options: dict[str, Any],
    inputs: dict[str, Tensor] = TOKENS,
    added: tuple[str, ...] = ADDED,
    free: tuple[str, ...] = (),
    **more: Any,
) -> None:
    """A model of the library by the names of its config and class. added, free: learned constants, which are 0."""

    def build() -> nn.Module:
        import transformers

        made = getattr(transformers, config)(**options)
        made.use_cache = False
        return getattr(transformers, model)(made)

    def pick(made: Any) -> Any:
        found = [made[key] for key in made if "logits" in key or key.startswith("pred_")]
        return found or made["last_hidden_state"]

    how = {"free": (*added, *free), "pick": pick, "kwargs": inputs, "densities": (0.6, 0.25), **more}
    enter("transformers", model, build, **how)


def patches(made: Any) -> Tensor:
    """What a vision transformer gives but for its class token, which starts as a learned constant."""
    return made.last_hidden_state[:, 1:]


UNTIED = {"tie_word_embeddings": False}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 20, **UNTIED}
OPT = {**SMALL_TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16, **UNTIED}
RESNET = {"embedding_size": 8, "hidden_sizes": [12, 16], "depths": [1, 1]}
MAMBA = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 20, "time_step_rank": 2, **UNTIED}
RWKV = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 20, "context_length": 16, **UNTIED}
HEADS = {"num_self_attention_heads": 2, "num_cross_attention_heads": 2, "num_self_attends_per_block": 1}
PERCEIVER = {"num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "qk_channels": 16, "v_channels": 16}
PERCEIVER |= {**HEADS, "vocab_size": 20, "max_position_embeddings": 6}
MOBILEVIT = {"hidden_sizes": [16] * 3, "neck_hidden_sizes": [8, 8, 8, 12, 12, 12, 16], "num_attention_heads": 2}
MOBILEVIT |= {"image_size": 32, "patch_size": 2}
WHISPER = {**BOTH, **ENDS, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 8, **UNTIED}
CLIP_TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
WAV2VEC2 = {**SMALL, "vocab_size": 20, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
WAV2VEC2 |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
DETR = {**BOTH, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_queries": 3}
DETR |= {"backbone_config": {"model_type": "resnet", "out_features": ["stage2"], **RESNET}}
DEEPSEEK = {"moe_intermediate_size": 12, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
DEEPSEEK |= {"first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "n_group": 1}
DEEPSEEK |= {**SMALL_DECODER, "num_key_value_heads": 2, "qk_nope_head_dim": 4, "v_head_dim": 4, "topk_group": 1}
MIXTRAL = {**SMALL_DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}
# Experts are chosen by values; the operation that multiplies them knows no double.
MIXED = {"more": "experts", "precision": torch.float32}

# only="soft": without softmax, products of scores grow out of range.
transformer("BertConfig", "BertForSequenceClassification", SMALL_TEXT)
transformer("GPT2Config", "GPT2LMHeadModel", GPT2)
transformer("LlamaConfig", "LlamaForCausalLM", SMALL_DECODER)
transformer("OPTConfig", "OPTForCausalLM", OPT)
transformer("ViTConfig", "ViTModel", VISION, {"pixel_values": PIXELS}, pick=patches)
transformer("ResNetConfig", "ResNetForImageClassification", RESNET, {"pixel_values": drawn(1, 3, 32, 32)})
transformer("MambaConfig", "MambaForCausalLM", MAMBA, free=("A_log",))
transformer("RwkvConfig", "RwkvForCausalLM", RWKV, unmasked=("time_mix",), only="soft")
transformer(
    "PerceiverConfig", "PerceiverForMaskedLM", PERCEIVER, {"inputs": IDS}, (), unmasked=("latents", "position", "bias")
)
transformer(
    "ConvBertConfig", "ConvBertModel", {**SMALL_TEXT, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1}
)
transformer(
    "TimesformerConfig",
    "TimesformerModel",
    {**VISION, "num_frames": 2},
    {"pixel_values": drawn(1, 2, 3, 16, 16)},
    free=("time_embeddings",),
    pick=patches,
)
transformer(
    "LongformerConfig", "LongformerModel", {**SMALL_TEXT, "attention_window": 4, "pad_token_id": 0}, only="soft"
)
transformer(
    "MobileViTConfig",
    "MobileViTForImageClassification",
    MOBILEVIT,
    {"pixel_values": drawn(1, 3, 128, 128)},
    only="soft",
)
transformer(
    "WhisperConfig",
    "WhisperForConditionalGeneration",
    WHISPER,
    {"input_features": drawn(1, 8, 16), "decoder_input_ids": IDS},
)
transformer(
    "CLIPConfig",
    "CLIPModel",
    {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 8},
    {"input_ids": IDS, "pixel_values": PIXELS},
    free=("class_embedding",),
    only="soft",
)
# The convolution under weight norm is left aside: norms pass, by convention, but its gradients go through the norm.
transformer("Wav2Vec2Config", "Wav2Vec2ForCTC", WAV2VEC2, {"input_values": drawn(1, 60)}, unmasked=("pos_conv",))
transformer(
    "T5Config",
    "T5ForConditionalGeneration",
    T5,
    {**TOKENS, "decoder_input_ids": IDS},
    free=("relative_attention_bias",),
    unmasked=("shared",),
)
transformer(
    "DetrConfig", "DetrForObjectDetection", DETR, {"pixel_values": drawn(1, 3, 32, 32)}, (), unmasked=("position",)
)
transformer("DeepseekV3Config", "DeepseekV3ForCausalLM", DEEPSEEK, **MIXED)
transformer("MixtralConfig", "MixtralForCausalLM", MIXTRAL, **MIXED)
transformer(
    "GptOssConfig", "GptOssForCausalLM", {**MIXTRAL, "intermediate_size": 12, "head_dim": 8}, **MIXED, only="soft"
)
