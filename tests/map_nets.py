"""Small networks of maps, drawn from a seed, that can count their own paths: the unrolled view is held against them.

A network runs in one of three ways. "net": as it is, to be traced. "live": a sum of products without a negative term,
where activations and norms are left out, pools are sums and constants are 1: a derivative is not 0 just where there is
a way. "paths": the same, but constants are 0 and a gate is 1 where it is fed, so that its value is the number of paths.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import topo
import toys
from topo.graph import build_graph
from topo.graph.unrolled import Unrolled, unrolled
from topo.graph.whole import WholeGraph, whole_graph
from topo.wiring.maps import MapLayer

_CONVS, _TURNED = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_LARGEST = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_MODES = ("zeros", "zeros", "zeros", "circular", "reflect", "replicate")


def added(x: Tensor, windows: list[list[list[int]]]) -> Tensor:
    """Sums over windows, (places of each output place) for each axis of the maps."""
    made = []
    for places in product(*windows):
        at = [torch.from_numpy(index) for index in np.ix_(*(np.array(one, np.int64) for one in places))]
        made.append(x[(..., *at)].sum(tuple(range(2, x.dim()))))
    return torch.stack(made, -1).reshape(*x.shape[:2], *(len(axis) for axis in windows))


def windows(module: nn.Module, size: int, out: int, axis: int) -> list[list[int]]:
    """The places that each output place of a pool adds, along one axis."""
    if "Adaptive" in type(module).__name__:
        return [list(range(y * size // out, -(-(y + 1) * size // out))) for y in range(out)]
    kernel, stride, padding = (
        n if isinstance(n, int) else n[axis] for n in (module.kernel_size, module.stride, module.padding)
    )
    return [
        [at for at in range(y * stride - padding, y * stride - padding + kernel) if 0 <= at < size] for y in range(out)
    ]


class Drawn(nn.Module):
    """A network of maps with one, two or three axes and two to five steps, then a linear layer over what is left."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.space = int(self.rng.choice(3, p=(0.25, 0.6, 0.15)))
        side = (9, 6, 4)[self.space]
        self.shape = (int(self.rng.integers(1, 4)), *(side - int(self.rng.integers(3)) for _ in range(self.space + 1)))
        self.parts, self.program, self.way, self.fed = nn.ModuleList(), [], "net", []
        x = torch.zeros(1, *self.shape, dtype=torch.float64)
        for _ in range(int(self.rng.integers(2, 6))):
            x = self.step(x)
        if self.rng.random() < 0.3:
            x = self.do(x, "mean")
        width = x[0].numel()
        self.do(x.flatten(1), self.part(nn.Linear(width, int(self.rng.integers(1, 4)))))
        del self.rng

    # -- drawing

    def part(self, module: nn.Module) -> int:
        self.parts.append(module.double().eval())
        return len(self.parts) - 1

    def do(self, x: Tensor, *step: object) -> Tensor:
        """Add a step to the program, and what it makes of x; the program stays as it was where it cannot run."""
        self.program.append(step)
        return self.run(x, step)

    def conv(self, x: Tensor, out: int | None = None, *, same: bool = False) -> int:
        rng, many = self.rng, x.shape[1]
        groups = int(rng.choice([n for n in (1, 2, 3) if many % n == 0]))
        out = out or groups * int(rng.integers(1, 4))
        groups = groups if out % groups == 0 else 1
        kernel = [1 if same and rng.random() < 0.5 else int(rng.integers(1, 4)) for _ in range(self.space + 1)]
        if same:
            kernel = [n | 1 for n in kernel]
            padding = [n // 2 for n in kernel]
            return self.part(_CONVS[self.space](many, out, kernel, padding=padding, groups=groups))
        stride, dilation = ([int(rng.integers(1, 3)) for _ in kernel] for _ in range(2))
        padding, mode = [int(rng.integers(n)) for n in kernel], str(rng.choice(_MODES))
        if mode == "reflect":
            padding = [min(p, n - 1) for p, n in zip(padding, x.shape[2:])]
        kind = _CONVS[self.space]
        return self.part(kind(many, out, kernel, stride, padding, dilation, groups, padding_mode=mode))

    def step(self, x: Tensor) -> Tensor:
        """What one more step makes of x."""
        for _ in range(20):
            before = len(self.parts), len(self.program)
            try:
                made = self.one(x)
            except RuntimeError:  # a kernel larger than the map, and the like
                made = None
            if made is not None and made[0].numel() and max(made.shape[2:]) <= 9:
                return made
            del self.parts[before[0] :], self.program[before[1] :]
        return x

    def one(self, x: Tensor) -> Tensor:
        rng, many, size = self.rng, x.shape[1], x.shape[2:]
        kind = str(
            rng.choice(["conv"] * 4 + "turned pool adaptive skip twice join order norm grow gate constant".split())
        )
        if kind == "conv":
            return self.do(x, self.conv(x))
        if kind == "turned":
            groups = int(rng.choice([n for n in (1, 2) if many % n == 0]))
            kernel, stride, padding = int(rng.integers(2, 4)), int(rng.integers(1, 3)), int(rng.integers(2))
            more, dilation = int(rng.integers(stride)), int(rng.integers(1, 3))
            made = _TURNED[self.space](many, 2 * groups, kernel, stride, padding, more, groups, dilation=dilation)
            return self.do(x, self.part(made))
        if kind == "pool":
            kernel = int(rng.integers(2, 4))
            given = kernel, int(rng.integers(1, 3)), int(rng.integers(kernel // 2 + 1))
            either = (_LARGEST, _AVERAGES)[int(rng.integers(2))][self.space]
            return self.do(x, self.part(either(*given, ceil_mode=bool(rng.random() < 0.4))))
        if kind == "adaptive":
            return self.do(x, self.part(_ADAPTIVE[self.space](tuple(int(rng.integers(1, n + 1)) for n in size))))
        if kind in ("skip", "gate", "join"):
            made = self.conv(x, many, same=True)
            other = self.conv(x, many, same=True) if kind == "skip" and rng.random() < 0.4 else -1
            return self.do(x, kind, made, 1 if kind == "gate" and rng.random() < 0.5 else other)
        if kind == "twice":
            made = self.conv(x, many, same=True)
            return self.do(self.do(x, made), made)
        if kind == "order":
            return self.do(x, "order", int(rng.integers(3)))
        if kind == "norm":
            return self.do(x, "norm", self.part((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[self.space](many)))
        return self.do(x, kind)

    # -- running

    def run(self, x: Tensor, step: tuple) -> Tensor:
        kind = step[0]
        if isinstance(kind, int):
            module = self.parts[kind]
            if "Pool" in type(module).__name__ and self.way != "net":
                outs = module(x.detach()).shape[2:]
                return added(x, [windows(module, n, m, k) for k, (n, m) in enumerate(zip(x.shape[2:], outs))])
            made = module(x)
            return made if self.way != "net" else torch.relu(made)
        if kind == "skip":
            return self.parts[step[1]](x) + (x if step[2] < 0 else self.parts[step[2]](x))
        if kind == "join":
            return torch.cat([self.parts[step[1]](x), x], 1)
        if kind == "order":
            return (x.flip(1), torch.roll(x, 1, 2), x.transpose(1, 2).reshape(x.shape))[step[1]]
        if kind == "norm":
            return self.parts[step[1]](x) if self.way == "net" else x
        if kind == "grow":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if kind == "constant":
            return torch.cat([x, torch.full_like(x[:, :1], 0.0 if self.way == "paths" else 1.0)], 1)
        if kind == "gate":
            gate = self.parts[step[1]](x)
            if step[2] < 0:  # a sigmoid is never 0
                return x * (torch.sigmoid(gate) if self.way == "net" else gate + 1 if self.way == "live" else 1)
            if self.way == "paths":
                return x * self.fed.pop(0)
            self.fed = [*self.fed, (gate > 0).double().detach()] if self.way == "live" else []
            return x * (torch.relu(gate) if self.way == "net" else gate)
        total = tuple(range(2, x.dim()))
        return x.mean(total) if self.way == "net" else x.sum(total)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.program:
            x = self.run(
                x.flatten(1) if isinstance(step[0], int) and isinstance(self.parts[step[0]], nn.Linear) else x, step
            )
        return x


class SideBySide(nn.Module):
    """Many networks in one, so that they are traced at once: each reads its own part of one long input."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Drawn(seed) for seed in seeds)
        self.sizes = [math.prod(net.shape) for net in self.nets]

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.sizes, 1)
        return torch.cat([net(part.reshape(-1, *net.shape)) for net, part in zip(self.nets, parts)], 1)

    def counted(self, way: str) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
        """Its value at ones in this way, and its derivatives by each weight and each place of the input."""
        for net in self.nets:
            net.way = way
        self.zero_grad()
        x = torch.ones(1, sum(self.sizes), dtype=torch.float64, requires_grad=True)
        total = self(x).sum()
        total.backward()
        for net in self.nets:
            net.way = "net"
        found = {
            name: p.grad.numpy().copy() for name, p in self.named_parameters() if p.dim() > 1 and p.grad is not None
        }
        return float(total.detach()), found, x.grad.numpy().reshape(-1)


def turned(mask: np.ndarray, groups: int) -> np.ndarray:
    out, per_group = mask.shape[:2]
    turned = mask.reshape(groups, out // groups, per_group, *mask.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(turned.reshape(groups * per_group, out // groups, *mask.shape[2:]))


def of_weights(found: Unrolled, step: MapLayer) -> np.ndarray:
    """Paths through each weight of a use of a layer, 0 of those that are pruned."""
    values, exponent = found.edge_paths(step)
    kept = found.rows[step.name].unpack()
    whole = np.zeros(kept.shape)
    whole[kept] = np.ldexp(values, exponent)
    return whole


def output_first(gradient: np.ndarray, wiring: topo.Wiring, key: str) -> np.ndarray:
    """A derivative by a parameter, laid out as its mask."""
    if key not in wiring.input_first:
        return gradient
    groups, layer = wiring.input_first[key], wiring.layer(key)
    gradient = gradient.reshape(groups, -1, layer.shape[0] // layer.groups, *gradient.shape[2:]).swapaxes(1, 2)
    return gradient.reshape(wiring.shapes[key])


def effective_weights(found: Unrolled, key: str) -> np.ndarray:
    rows = found.rows[key]
    bits = np.unpackbits(found.effective[key].view(np.uint8), axis=1, count=rows.columns, bitorder="little")
    return bits.reshape(rows.shape).astype(bool)


def wrong(seeds: Sequence[int], density: float) -> list[str]:
    """What the unrolled view counts otherwise than these networks do, side by side under one random mask set."""
    net = SideBySide(seeds)
    wiring = topo.trace(net, (sum(net.sizes),))
    masks = toys.sparse(wiring, density, seeds[0])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_()
            if name in masks:
                mask = masks[name]
                if name in wiring.input_first:
                    mask = turned(mask, wiring.input_first[name])
                parameter.copy_(torch.from_numpy(mask.copy()).double())
    live = net.counted("live")[1]
    total, through, of_inputs = net.counted("paths")
    graph = build_graph(masks, wiring, "unrolled")
    found, bad = unrolled(graph), []
    if not found.exact == total == _along_edges(whole_graph(graph)):
        bad.append(f"paths: {found.exact}, {total}, {_along_edges(whole_graph(graph))}")
    counted = {name: np.zeros(masks[name].shape) for name in masks}
    for step in found.layers:
        counted[step.name] += of_weights(found, step)
    for name in masks:
        for what, given, own in (
            ("paths", through, counted[name]),
            ("effective", live, effective_weights(found, name)),
        ):
            expected = np.zeros(masks[name].shape)
            if name in given:
                expected = np.where(masks[name], output_first(given[name], wiring, name), 0.0)
            expected = expected > 0 if what == "effective" else expected
            if not np.allclose(own, expected, rtol=1e-12, atol=0):
                bad.append(f"{what} of {name}")
    values, exponent = found.backward.take(found.maps.inputs)
    if not np.allclose(np.ldexp(values, exponent), of_inputs, rtol=1e-12, atol=0):
        bad.append("paths from places of the input")
    return bad


def _along_edges(whole: WholeGraph) -> float:
    """All paths, by the list of edges."""
    ptr, ends, many = whole.outgoing
    ahead = np.where(whole.inputs, 1.0, 0.0)
    for unit in range(whole.n):
        here = slice(ptr[unit], ptr[unit + 1])
        np.add.at(ahead, ends[here], many[here] * ahead[unit])
    return float(ahead[whole.outputs].sum())


if __name__ == "__main__":
    for first in range(0, int(sys.argv[1]), 10):
        print(first, wrong(range(first, first + 10), density=(0.9, 0.6, 0.4)[first // 10 % 3]), flush=True)
