"""Random small networks over the operations that a trace has rules for, held against gradients.

`benchmarks/trace_random.py` runs as many as one asks for.

Many networks stand side by side in one module. Their graph comes from `quick_capture`, since torch.export would take
three quarters of the time. Some operations are left out because gradients vanish there for other reasons than
structure: a relu of a difference, the sum of a softmax, x - x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from gradients import Case, differences
from quick_capture import quick_capture
from torch import Tensor, nn

BATCH = 50
LINE, TOKENS, MAPS = (2, 5), (2, 3, 4), (1, 3, 6, 6)
KINDS = {"line": LINE, "tokens": TOKENS, "maps": MAPS}


class RandomNet(nn.Module):
    """A program of a few operations, drawn from a seed; every value that nothing reads goes into the output.

    Values are (batch, units), (batch, tokens, units) or (batch, units, height, width): `axis` is where the units are.
    """

    def __init__(self, seed: int, convention: str = "soft") -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.zeros = convention == "soft"  # the sigmoid of a fixed 0 is 1/2 in the network, but an identity of it is 0
        self.kind = ("line", "tokens", "maps")[int(self.rng.choice(3, p=(0.5, 0.3, 0.2)))]
        self.axis = 1 if self.kind == "maps" else -1
        self.widths = [KINDS[self.kind][self.axis]]
        self.unread = {0}
        self.three = 0  # convolutions with larger kernels: a map must not be shifted out of sight
        self.parts = nn.ModuleList()
        self.program: list[Callable[[list[Tensor]], Tensor]] = []
        self.text: list[str] = []
        for _ in range(int(self.rng.integers(3, 8))):
            menu = [*_ANY, *{"line": _LINES, "tokens": _TOKENS, "maps": _MAPS}[self.kind]]
            before = len(self.program)
            while len(self.program) == before:
                menu[int(self.rng.integers(len(menu)))](self)
        ends = sorted(self.unread)
        self.ends = [(at, self.part(_layer(self, self.widths[at], 2))) for at in ends]
        del self.rng

    # -- drawing

    def pick(self) -> int:
        """A value, rather a late one."""
        return max(int(self.rng.integers(len(self.widths))) for _ in range(2))

    def pair(self) -> tuple[int, int] | None:
        """Two values of the same width."""
        same = [(i, j) for i in range(len(self.widths)) for j in range(i) if self.widths[i] == self.widths[j]]
        return same[int(self.rng.integers(len(same)))] if same else None

    def part(self, module: nn.Module) -> int:
        self.parts.append(module)
        return len(self.parts) - 1

    def say(self, text: str, reads: Sequence[int], width: int, run: Callable[[list[Tensor]], Tensor]) -> None:
        self.text.append(f"{len(self.widths)} ({width}) = {text} of {', '.join(map(str, reads))}")
        self.unread -= set(reads)
        self.unread.add(len(self.widths))
        self.widths.append(width)
        self.program.append(run)

    def constant(self, *shape: int, zeros: float = 0.4) -> Tensor:
        """A fixed tensor, some of it zero."""
        values = (0.5 + self.rng.random(shape)) * (self.rng.random(shape) >= (zeros if self.zeros else 0.0))
        return torch.from_numpy(values)

    def along(self, values: Tensor) -> Tensor:
        """A vector over units, shaped to multiply a value."""
        return values.view(-1, 1, 1) if self.kind == "maps" else values

    # -- running

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for run in self.program:
            values.append(run(values))
        made = [self.parts[part](values[at]) for at, part in self.ends]
        if self.kind == "maps":
            made = [one.mean((2, 3)) for one in made]
        return torch.stack(made).sum(0)


class Weight(nn.Module):
    """A linear layer by hand, its weight a view of a parameter."""

    def __init__(self, how: Callable[[Tensor], Tensor], *shape: int, constant: Tensor | None = None) -> None:
        super().__init__()
        self.how, self.w = how, nn.Parameter(torch.rand(shape))
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.how(self.w if self.constant is None else self.w * self.constant)


def _layer(net: RandomNet, n: int, m: int) -> nn.Module:
    """A linear layer or convolution of n to m units, in one of many ways to write it."""
    if net.kind == "maps":
        if net.three < 2 and net.rng.random() < 0.4:
            net.three += 1
            return nn.Conv2d(n, m, 3, padding=1, bias=False)
        groups = [g for g in range(2, min(n, m) + 1) if n % g == 0 and m % g == 0]
        if groups and net.rng.random() < 0.3:
            return nn.Conv2d(n, m, 1, groups=groups[-1], bias=False)
        return nn.Conv2d(n, m, 1, bias=False)
    way = int(net.rng.integers(9))
    if way == 0:
        return Weight(lambda w: w, n, m)
    if way == 1:
        return Weight(lambda w: w.T, m, n)
    if way == 2:
        return Weight(lambda w: w.flip(0) * 2, n, m)
    if way == 3:
        return Weight(lambda w: w[1 : n + 1, :m], n + 2, m + 1)
    if way == 4:
        return Weight(lambda w: w[::2].T, 2 * m, n)
    return nn.Linear(n, m, bias=bool(net.rng.integers(2)))


# -- operations: each draws what it needs from net and enters itself, or does nothing where it does not fit


def layer(net: RandomNet) -> None:
    at, m = net.pick(), int(net.rng.integers(2, 7))
    part = net.part(_layer(net, net.widths[at], m))
    net.say(f"layer {type(net.parts[part]).__name__}", [at], m, lambda v: net.parts[part](v[at]))


def again(net: RandomNet) -> None:
    """A layer once more, on another value that fits."""
    layers = [i for i, part in enumerate(net.parts) if isinstance(part, nn.Linear)]
    fits = [(i, at) for i in layers for at, width in enumerate(net.widths) if net.parts[i].in_features == width]
    if fits:
        part, at = fits[int(net.rng.integers(len(fits)))]
        net.say(f"layer {part} again", [at], net.parts[part].out_features, lambda v: net.parts[part](v[at]))


def back(net: RandomNet) -> None:
    """A layer turned round, as in tied autoencoders."""
    layers = [i for i, part in enumerate(net.parts) if isinstance(part, nn.Linear)]
    fits = [(i, at) for i in layers for at, width in enumerate(net.widths) if net.parts[i].out_features == width]
    if fits:
        part, at = fits[int(net.rng.integers(len(fits)))]
        run = lambda v: F.linear(v[at], net.parts[part].weight.T)  # noqa: E731
        net.say(f"layer {part} turned", [at], net.parts[part].in_features, run)


def activation(net: RandomNet) -> None:
    at = net.pick()
    ways = (
        torch.tanh,
        torch.sigmoid,
        F.silu,
        F.gelu,
        F.softplus,
        F.leaky_relu,
        F.elu,
        torch.cos,
        lambda x: torch.exp(x / -3),
    )
    way = ways[int(net.rng.integers(len(ways)))]
    net.say(getattr(way, "__name__", "exp"), [at], net.widths[at], lambda v: way(v[at]))


def _two(text: str, join: Callable[[Tensor, Tensor], Tensor]) -> Callable[[RandomNet], None]:
    def enter(net: RandomNet) -> None:
        found = net.pair()
        if found:
            i, j = found if net.rng.random() < 0.5 else found[::-1]
            net.say(text, [i, j], net.widths[i], lambda v: join(v[i], v[j]))

    return enter


add = _two("sum", torch.add)
product = _two("product", torch.mul)
modulation = _two("x * (1 + y)", lambda x, y: x * (1 + y))
highway = _two("highway", lambda x, y: (1 - torch.sigmoid(y)) * x + torch.sigmoid(y) * torch.tanh(y))
quotient = _two("x / (2 + y y)", lambda x, y: x / (2 + y * y))
gated = _two("x * sigmoid(y)", lambda x, y: x * torch.sigmoid(y))
lerp = _two("lerp", lambda x, y: torch.lerp(x, y, 0.3))
addcmul = _two("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5))


def choice(net: RandomNet) -> None:
    found = net.pair()
    if found:
        i, j = found
        keep = net.along(torch.from_numpy(net.rng.random(net.widths[i]) < 0.5))
        net.say("where", [i, j], net.widths[i], lambda v: torch.where(keep, v[i], v[j]))


def join(net: RandomNet) -> None:
    i, j = net.pick(), net.pick()
    if net.widths[i] + net.widths[j] <= 9:
        net.say("cat", [i, j], net.widths[i] + net.widths[j], lambda v: torch.cat([v[i], v[j]], net.axis))


def part_of(net: RandomNet) -> None:
    at = net.pick()
    width = net.widths[at]
    if width > 2:
        start = int(net.rng.integers(0, width - 1))
        size = int(net.rng.integers(1, width - start + 1))
        net.say(f"{start} to {start + size}", [at], size, lambda v: v[at].narrow(net.axis, start, size))


def shuffle(net: RandomNet) -> None:
    at = net.pick()
    order = torch.from_numpy(net.rng.integers(0, net.widths[at], int(net.rng.integers(2, 7))))
    text = f"units {order.tolist()}"
    if net.rng.random() < 0.5:
        net.say(text, [at], len(order), lambda v: torch.index_select(v[at], net.axis, order))
    elif net.kind == "maps":
        net.say(text, [at], len(order), lambda v: v[at][:, order])
    else:
        net.say(text, [at], len(order), lambda v: v[at][..., order])


def turn(net: RandomNet) -> None:
    at, by = net.pick(), int(net.rng.integers(1, 3))
    flips = net.rng.random() < 0.5
    net.say("flip" if flips else f"roll {by}", [at], net.widths[at],
            lambda v: v[at].flip(net.axis) if flips else v[at].roll(by, net.axis))  # fmt: skip


def padded(net: RandomNet) -> None:
    # Not with 1: where 1 - y follows, it would cancel exactly.
    at, value = net.pick(), float(net.rng.choice([0.0, 0.0, 1.5])) if net.zeros else 1.5
    if net.widths[at] <= 6:
        sides = (0, 0, 0, 0, 1, 1) if net.kind == "maps" else (1, 1)
        net.say(f"padded with {value}", [at], net.widths[at] + 2, lambda v: F.pad(v[at], sides, value=value))


def scaled(net: RandomNet) -> None:
    at = net.pick()
    by = net.along(net.constant(net.widths[at]))
    net.say("times a constant", [at], net.widths[at], lambda v: v[at] * by)


def shifted(net: RandomNet) -> None:
    at = net.pick()
    by = net.along(net.constant(net.widths[at]))
    net.say("plus a constant", [at], net.widths[at], lambda v: v[at] + by)


def power(net: RandomNet) -> None:
    at = net.pick()
    net.say("square", [at], net.widths[at], lambda v: v[at] ** 2 if net.axis == 1 else v[at] * v[at])


def channel_gate(net: RandomNet) -> None:
    i, j = net.pick(), net.pick()
    part = net.part(_layer(net, net.widths[j], 1))
    # A sigmoid of more than 37 is 1, and flat.
    net.say("gate of all", [i, j], net.widths[i], lambda v: v[i] * torch.sigmoid(net.parts[part](v[j]) / 32))


def glu(net: RandomNet) -> None:
    at = net.pick()
    if net.widths[at] % 2 == 0:
        net.say("glu", [at], net.widths[at] // 2, lambda v: F.glu(v[at], net.axis))


def fixed(net: RandomNet) -> None:
    at, m = net.pick(), int(net.rng.integers(2, 6))
    by = net.constant(net.widths[at], m, zeros=0.6)
    net.say("a fixed matrix", [at], m, lambda v: v[at] @ by)


def soft(net: RandomNet) -> None:
    found = net.pair()
    if found:
        i, j = found
        net.say("softmax(x) * y", [i, j], net.widths[i], lambda v: v[i].softmax(-1) * v[j])


def outer(net: RandomNet) -> None:
    i, j = net.pick(), net.pick()
    if net.widths[i] * net.widths[j] <= 12:
        net.say("outer product", [i, j], net.widths[i] * net.widths[j],
                lambda v: (v[i].unsqueeze(-1) * v[j].unsqueeze(-2)).flatten(-2))  # fmt: skip


def experts(net: RandomNet) -> None:
    at, m = net.pick(), int(net.rng.integers(2, 5))
    router, one, two = (net.part(nn.Linear(net.widths[at], k, bias=False)) for k in (2, m, m))

    def run(v: list[Tensor]) -> Tensor:
        share = net.parts[router](v[at]).softmax(-1)
        return share[..., :1] * net.parts[one](v[at]) + share[..., 1:] * net.parts[two](v[at])

    net.say("soft experts", [at], m, run)


def masked_weight(net: RandomNet) -> None:
    at, m = net.pick(), int(net.rng.integers(2, 6))
    n = net.widths[at]
    way = int(net.rng.integers(4))
    made = (
        Weight(lambda w: w, n, m, constant=net.constant(n, m).sign()),
        Weight(lambda w: w.triu(), n, m),
        Weight(lambda w: w.tril(1), n, m),
        Weight(lambda w: w + w.flip(0), n, m),
    )[way]
    part = net.part(made)
    net.say(
        "a weight " + ("masked", "triu", "tril", "and itself flipped")[way], [at], m, lambda v: net.parts[part](v[at])
    )


def running(net: RandomNet) -> None:
    at = net.pick()
    net.say("cumsum", [at], net.widths[at], lambda v: v[at].cumsum(net.axis))


def grouped_product(net: RandomNet) -> None:
    at = net.pick()
    if net.widths[at] in (4, 6):
        half = net.widths[at] // 2
        net.say("prod", [at], half, lambda v: v[at].unflatten(-1, (half, 2)).prod(-1))


def attention(net: RandomNet) -> None:
    at, other = net.pick(), net.pick()
    heads = int(net.rng.integers(1, 3))
    d = 2 * heads
    q, k, v = (net.part(nn.Linear(net.widths[i], d, bias=False)) for i in (at, other, other))
    causal, fused = bool(net.rng.random() < 0.3), bool(net.rng.random() < 0.5)
    keep = torch.ones(TOKENS[1], TOKENS[1]).tril() if causal else None

    def run(values: list[Tensor]) -> Tensor:
        xs = [
            net.parts[p](values[i]).unflatten(-1, (heads, 2)).transpose(1, 2)
            for p, i in ((q, at), (k, other), (v, other))
        ]
        if fused:
            made = F.scaled_dot_product_attention(*xs, is_causal=causal)
        else:
            scores = xs[0] @ xs[1].transpose(-1, -2) / 1.5
            scores = scores if keep is None else scores.masked_fill(keep == 0, -torch.inf)
            made = F.softmax(scores, -1) @ xs[2]
        return made.transpose(1, 2).flatten(2)

    net.say(f"attention, {heads} heads{', causal' * causal}{', fused' * fused}", [at, other], d, run)


def linear_attention(net: RandomNet) -> None:
    i, j = net.pick(), net.pick()
    net.say("linear attention", [i, j], net.widths[j],
            lambda v: torch.sigmoid(v[i]) @ (torch.sigmoid(v[i]).transpose(-1, -2) @ v[j]))  # fmt: skip


def pooled(net: RandomNet) -> None:
    """Each token plus the mean of all."""
    at = net.pick()
    net.say("plus the mean of tokens", [at], net.widths[at], lambda v: v[at] + v[at].mean(1, keepdim=True))


def one_token(net: RandomNet) -> None:
    at, which = net.pick(), int(net.rng.integers(TOKENS[1]))
    net.say(f"times token {which}", [at], net.widths[at], lambda v: v[at] * v[at][:, which, None])


def moved(net: RandomNet) -> None:
    at = net.pick()
    net.say("tokens rolled", [at], net.widths[at], lambda v: v[at] + v[at].roll(1, 1))


def recurrence(net: RandomNet) -> None:
    at, m = net.pick(), int(net.rng.integers(2, 5))
    into, onto = net.part(nn.Linear(net.widths[at], m, bias=False)), net.part(nn.Linear(m, m, bias=False))

    def run(v: list[Tensor]) -> Tensor:
        h, made = torch.zeros(v[at].shape[0], m, dtype=v[at].dtype), []
        for t in range(TOKENS[1]):
            h = torch.tanh(net.parts[into](v[at][:, t]) + net.parts[onto](h))
            made.append(h)
        return torch.stack(made, 1)

    net.say("a recurrence", [at], m, run)


def excite(net: RandomNet) -> None:
    at = net.pick()
    part = net.part(nn.Conv2d(net.widths[at], net.widths[at], 1, bias=False))
    net.say("squeeze and excite", [at], net.widths[at],
            lambda v: v[at] * torch.sigmoid(net.parts[part](v[at].mean((2, 3), keepdim=True))))  # fmt: skip


def smoothed(net: RandomNet) -> None:
    at = net.pick()
    net.say("average pool", [at], net.widths[at], lambda v: F.avg_pool2d(v[at], 3, 1, 1))


def depthwise(net: RandomNet) -> None:
    at = net.pick()
    n = net.widths[at]
    if net.three < 2:
        net.three += 1
        part = net.part(nn.Conv2d(n, 2 * n, 3, padding=1, groups=n, bias=False))
        net.say("depthwise", [at], 2 * n, lambda v: net.parts[part](v[at]))


_ANY = (
    layer, layer, layer, activation, activation, add, product, modulation, highway, quotient, gated, lerp, addcmul,
    choice, join, part_of, shuffle, turn, padded, scaled, shifted, power, channel_gate, glu,
)  # fmt: skip
_VECTORS = (again, fixed, soft, outer, experts, back, masked_weight, running, grouped_product)
_LINES = _VECTORS
_TOKENS = (*_VECTORS, attention, attention, linear_attention, pooled, one_token, moved, recurrence)
_MAPS = (excite, smoothed, depthwise, running)


class Many(nn.Module):
    """Networks side by side."""

    def __init__(self, seeds: Sequence[int], convention: str) -> None:
        super().__init__()
        self.nets = nn.ModuleList(RandomNet(seed, convention) for seed in seeds)

    def forward(self, line: Tensor, tokens: Tensor, maps: Tensor) -> list[Tensor]:
        given = {"line": line, "tokens": tokens, "maps": maps}
        return [net(given[net.kind]) for net in self.nets]


def wrong(seeds: Sequence[int], convention: str) -> dict[int, list[str]]:
    """Seed -> what is wrong with the trace of its network; those with none are left out."""
    case = Case(lambda: Many(seeds, convention), (LINE, TOKENS, MAPS), densities=(0.6, 0.35))
    found: dict[int, list[str]] = {}
    try:
        lines = differences(case, convention, quick_capture)
    except Exception as error:  # of one of them: look for it
        if len(seeds) == 1:
            return {seeds[0]: [f"{type(error).__name__}: {error}"]}
        half = len(seeds) // 2
        return wrong(seeds[:half], convention) | wrong(seeds[half:], convention)
    for text in lines:
        _, at, *_ = text.split(".")
        found.setdefault(seeds[int(at)], []).append(text)
    return found


def program(seed: int, convention: str) -> str:
    """What the network of a seed does, a line each."""
    net = RandomNet(seed, convention)
    return "\n".join([net.kind, *net.text, f"out: {net.ends}", str(net.parts)])
