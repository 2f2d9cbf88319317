"""A network around each layer of torch: convolutions, activations, pools, norms, encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gradient_nets.table import conv, enter, fc, parts


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
