"""What comes in is a unit, a constant, nothing, or a unit beside a constant: effective weights against gradients.

The networks are as they are: with their sigmoids and softmaxes, random positive weights in float64, no biases, random
positive inputs. A weight is effective if and only if it is kept and its gradient is not zero.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import topo
from naive import reach
from topo.errors import TraceError, WiringError
from topo.graph import build_graph, paths
from topo.masks import MaskSet
from topo.metrics.paths import effective_masks as of_graph
from topo.wiring import CONSTANT, Join, Layer, Wiring

torch.set_num_threads(1)
DENSITIES = (0.6, 0.3, 0.12)


def effective_masks(masks, wiring):
    return of_graph(build_graph(masks if isinstance(masks, MaskSet) else MaskSet(masks), wiring))


class Net(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def by_gradient(model, masks, args):
    """Per masked parameter, which kept weights have a gradient, summed over a few draws of weights and outputs."""
    drawn = torch.Generator().manual_seed(5)
    found = {name: np.zeros(mask.shape, bool) for name, mask in masks.items()}
    parameters = dict(model.named_parameters())
    for _ in range(2):
        with torch.no_grad():
            for name, p in parameters.items():
                if name in masks:
                    p.copy_(torch.from_numpy(masks[name]) * (0.3 + torch.rand(p.shape, generator=drawn)))
                elif "bias" in name.rpartition(".")[2]:
                    p.zero_()
                else:
                    p.copy_(0.5 + torch.rand(p.shape, generator=drawn))
        made = model(*args)
        model.zero_grad()
        (made * (0.5 + torch.rand(made.shape, generator=drawn))).sum().backward()
        for name, mask in masks.items():
            grad = parameters[name].grad
            found[name] |= mask & (grad.numpy() != 0 if grad is not None else False)
    return found


def compare(build, *shapes, densities=DENSITIES, masked=None, some=True, **options):
    """Every kept weight at every density, by the naive walk and by the kernels; gives the wiring."""
    torch.manual_seed(0)
    model = build().double().eval()
    drawn = torch.Generator().manual_seed(2)
    args = tuple(0.5 + torch.rand(shape, generator=drawn, dtype=torch.float64) for shape in shapes)
    wiring = topo.trace(model, args=args, strict=True, **options)
    names = [name for name in wiring.names if masked is None or name in masked]
    total = 0
    for seed, density in enumerate(densities):
        rng = np.random.default_rng(seed)
        masks = {name: rng.random(wiring.shapes[name]) < density for name in names}
        grads = by_gradient(model, masks, args)
        found = effective_masks(masks, wiring)
        for name in names:
            assert np.array_equal(np.asarray(found[name]), grads[name]), (
                f"{name} at {density}: {int(found[name].sum())} effective, {int(grads[name].sum())} by gradient"
            )
        total += sum(int(mask.sum()) for mask in grads.values())
    assert total > 0 or not some
    return wiring


def fc(n=8, m=8):
    return nn.Linear(n, m)


def two(forward, **more):
    return lambda: Net(forward, a=fc(), b=fc(), o=fc(8, 4), **{key: part() for key, part in more.items()})


def highway(s, x):
    t = torch.sigmoid(s.b(x))
    return s.o(t * torch.relu(s.a(x)) + (1 - t) * x)


def gru(s, x):
    h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for _ in range(3):
        z, r = torch.sigmoid(s.a(x) + s.c(h)), torch.sigmoid(s.b(x) + s.d(h))
        n = torch.tanh(s.e(x) + r * s.f(h))
        h = (1 - z) * n + z * h
    return s.o(h)


def lstm(s, x):
    h = c = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    for _ in range(3):
        i, f, g, o = (s.a(x) + s.b(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return s.o(h)


def attend(s, x, keep=None):
    q, k, v = s.q(x), s.k(x), s.v(x)
    scores = q @ k.transpose(-1, -2) / math.sqrt(8)
    if keep is not None:
        scores = scores.masked_fill(keep == 0, -torch.inf)
    return s.o(F.softmax(scores, -1) @ v)


FAMILY = {
    "modulation": two(lambda s, x: s.o(x * (1 + s.b(x)))),
    "modulation, the scale first": two(lambda s, x: s.o((1 + s.b(x)) * s.a(x))),
    "adaptive norm": two(lambda s, x: s.o(s.a(x) * (1 + s.b(x)) + s.c(x)), c=fc),
    "one minus": two(lambda s, x: s.o(s.a(x) * (1 - s.b(x)))),
    "both beside": two(lambda s, x: s.o((2 + s.a(x)) * (3 + s.b(x)))),
    "quotient": two(lambda s, x: s.o(s.a(x) / (s.b(x) + 1e-3))),
    "a learned offset opens": two(lambda s, x: s.o(s.a(x) * (s.g + s.b(x))), g=lambda: nn.Parameter(torch.ones(8))),
    "a plain product closes": two(lambda s, x: s.o(s.a(x) * s.b(x))),
    "times zero": two(lambda s, x: s.o(s.a(x) + 0 * s.b(x))),
    "times zeros": two(lambda s, x: s.o(s.a(x) + s.b(x) * torch.zeros(8, dtype=x.dtype))),
    "a mask of channels": two(lambda s, x: s.o(s.a(x) + s.b(x) * torch.tensor([0.0, 2, 0, 2, 2, 0, 0, 2]))),
    "a mask built in place": two(lambda s, x: s.o(s.a(x) + s.b(x) * half(x))),
    "channels masked out": two(lambda s, x: s.o(s.a(x).masked_fill(half(x) == 0, 0.0))),
    "channels replaced": two(lambda s, x: s.o(s.a(x).masked_fill(half(x) == 0, 2.0))),
    "where": two(lambda s, x: s.o(torch.where(half(x) == 0, s.a(x), s.b(x)))),
    "where, else zero": two(lambda s, x: s.o(torch.where(half(x) == 0, s.a(x), torch.zeros(())))),
    "padded with zeros": two(lambda s, x: s.o(F.pad(s.a(x)[:, :5], (1, 2)) + s.b(x))),
    "padded with ones": two(lambda s, x: s.o(F.pad(s.a(x)[:, :5], (1, 2), value=1.0))),
    "padded with ones, a factor": two(lambda s, x: s.o(F.pad(s.a(x)[:, :5], (1, 2), value=1.0) * s.b(x))),
    "constants beside units": two(lambda s, x: s.o(torch.cat([s.a(x)[:, :5], torch.ones(x.shape[0], 3)], 1))),
    "zeros beside units": two(lambda s, x: s.o(torch.cat([s.a(x)[:, :5], torch.zeros(x.shape[0], 3)], 1))),
    "a sigmoid's layer": two(lambda s, x: s.o(torch.sigmoid(s.a(x)))),
    "softplus": two(lambda s, x: s.o(F.softplus(s.a(x)))),
    "cosine features": two(lambda s, x: s.o(torch.cat([torch.cos(s.a(x))[:, :4], torch.sin(s.b(x))[:, :4]], 1))),
    "exponential": two(lambda s, x: s.o(torch.exp(-s.a(x)))),
    "power of a number": two(lambda s, x: s.o(2.0 ** s.a(x))),
    "clamped from below": two(lambda s, x: s.o(s.a(x) / s.b(x).clamp(min=0.01))),
    "silu": two(lambda s, x: s.o(F.silu(s.a(x)) * s.b(x))),
    "glu": two(lambda s, x: s.o(F.glu(torch.cat([s.a(x), s.b(x)], -1)))),
    "squeeze and excite": two(lambda s, x: s.o(x * torch.sigmoid(s.b(torch.relu(s.a(x)))))),
    "hard sigmoid": two(lambda s, x: s.o(s.a(x) * F.hardsigmoid(s.b(x) / 9))),
    "highway": two(highway),
    "a softmax over units": two(lambda s, x: s.o(F.softmax(s.a(x), -1))),
    "soft choice of branches": two(
        lambda s, x: s.o((F.softmax(s.r(x), -1)[:, None] * torch.stack([s.a(x), s.b(x)], -1)).sum(-1)),
        r=lambda: fc(8, 2),
    ),
    "a fixed matrix": two(lambda s, x: s.o(s.a(x) @ torch.eye(8, dtype=x.dtype).tril(1).roll(1, 0).triu(-1))),
    "gru by hand": two(gru, **{name: fc for name in "cdef"}),
    "lstm by hand": lambda: Net(lstm, a=fc(8, 32), b=fc(8, 32), o=fc(8, 4)),
}


def half(x):
    """A mask made in place: ones, the last and every third channel closed."""
    keep = torch.ones(8, dtype=x.dtype)
    keep[::3] = 0
    keep[7].zero_()
    return keep


@pytest.mark.parametrize("name", FAMILY)
def test_effective_weights_are_those_with_a_gradient(name):
    compare(FAMILY[name], (3, 8))


def attention(forward=attend):
    return lambda: Net(forward, q=fc(), k=fc(), v=fc(), o=fc(8, 4))


def in_heads(s, x):
    q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (s.q, s.k, s.v))
    return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def linear_attention(s, x):
    """EfficientViT's: keys and values are summed over tokens, a row of ones counts."""
    q, k, v = torch.relu(s.q(x)), torch.relu(s.k(x)), s.v(x)
    v = F.pad(v, (0, 1), value=1.0)
    summed = k.transpose(-1, -2) @ v
    out = q @ summed
    return s.o(out[..., :-1] / (out[..., -1:] + 1e-6))


ATTENTION = {
    "by hand": attention(),
    "causal": attention(lambda s, x: attend(s, x, torch.ones(5, 5).tril())),
    "sdpa": attention(in_heads),
    "linear": attention(linear_attention),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_as_it_is(name):
    compare(ATTENTION[name], (2, 5, 8), densities=(0.6, 0.3, 0.15))


def test_hard_gates_close_with_their_inputs():
    """As today, and as in a network whose saturations are identities."""
    hard = compare(two(lambda s, x: s.o(s.a(x) * s.b(x))), (3, 8))
    net = two(lambda s, x: s.o(s.a(x) * torch.sigmoid(s.b(x))))().double()
    gates = topo.trace(net, (8,), gates="hard")
    assert [step.kind for step in gates.steps if isinstance(step, Join)] == ["gate"]
    for one, other in zip(gates.steps, hard.steps):
        reads = (one.operands, other.operands) if isinstance(one, Join) else ((one.reads,), (other.reads,))
        assert all(map(np.array_equal, *reads))
    assert any(note.startswith("gates are hard") for note in gates.notes)
    assert not any("gates" in note for note in hard.notes)


def test_biases_close_by_convention_and_are_live_when_asked():
    """With biases the unit of a dead row is not zero: what it gates passes, what reads it is fed."""
    net = Net(lambda s, x: s.o(s.a(x) * s.b(x)), a=fc(2, 2), b=fc(2, 2), o=fc(2, 1))
    masks = {"a.weight": np.ones((2, 2)), "b.weight": np.array([[0, 0], [1, 1]]), "o.weight": np.ones((1, 2))}
    closed = effective_masks(masks, topo.trace(net, (2,)))
    live = effective_masks(masks, topo.trace(net, (2,), biases="live"))
    assert np.asarray(closed["a.weight"]).tolist() == [[False, False], [True, True]]
    assert np.asarray(live["a.weight"]).all() and np.asarray(live["o.weight"]).all()
    unbiased = Net(net.run, a=fc(2, 2), b=nn.Linear(2, 2, bias=False), o=fc(2, 1))
    assert not np.asarray(effective_masks(masks, topo.trace(unbiased, (2,), biases="live"))["a.weight"])[0].any()


@pytest.mark.parametrize("option", [{"gates": "open"}, {"biases": True}])
def test_unknown_conventions_are_refused(option):
    with pytest.raises(TraceError, match="it is '"):
        topo.trace(fc(), (8,), **option)


def test_paths_follow_the_unit_alone():
    """x * (1 + scale): one path for each of x, whether the scale lives or not; exact and in floats."""
    wiring = topo.trace(Net(lambda s, x: s.o((1 + s.b(x)) * s.a(x)), a=fc(3, 4), b=fc(3, 4), o=fc(4, 2)), (3,))
    masks = {"a.weight": np.ones((4, 3)), "b.weight": np.zeros((4, 3)), "o.weight": np.ones((2, 4))}
    graph = build_graph(MaskSet(masks), wiring)
    assert paths.exact_paths(graph) == paths.exact_paths(graph, direction="backward") == 24
    assert paths.counts(graph).forward_total() == paths.counts(graph).backward_total() == (0.75, 5)
    assert np.asarray(effective_masks(masks, wiring)["a.weight"]).all()


def test_a_position_table_leaves_layers_as_they_are():
    """x + positions: by convention no source for the layer, but no closed gate either."""
    parts = {"pos": nn.Parameter(torch.ones(5, 8)), "table": torch.zeros(5, 8)}
    for name in parts:
        net = Net(lambda s, x: s.o(x + getattr(s, name)), o=fc(8, 4))  # noqa: B023
        net.register_buffer("table", parts["table"])
        net.pos = parts["pos"]
        wiring = topo.trace(net, (5, 8))
        assert [type(step) for step in wiring.steps] == [Layer]


def test_constants_are_written_and_read():
    wiring = topo.trace(FAMILY["constants beside units"](), (8,))
    assert (wiring.layer("o.weight").reads == CONSTANT).sum() == 3
    again = Wiring.from_json(wiring.to_json())
    assert '"schema":"topo-wiring/2"' in wiring.to_json()
    for one, other in zip(wiring.steps, again.steps):
        reads = (one.operands, other.operands) if isinstance(one, Join) else ((one.reads,), (other.reads,))
        assert all(map(np.array_equal, *reads))


def test_a_wiring_of_the_first_version_is_read_and_one_of_the_future_refused():
    text = topo.trace(fc(), (8,)).to_json()
    assert Wiring.from_json(text.replace("topo-wiring/2", "topo-wiring/1")).names == ("weight",)
    with pytest.raises(WiringError, match=r"topo-wiring/9.*'topo-wiring/2' or 'topo-wiring/1'"):
        Wiring.from_json(text.replace("topo-wiring/2", "topo-wiring/9"))


@pytest.mark.parametrize("name", ["modulation", "highway", "lstm by hand", "a sigmoid's layer"])
def test_kernels_nulls_and_networkx_agree_on_constants(name):
    """The kernels and the naive walk; a relabelled mask is as effective as the mask; every unit has its own node."""
    wiring = topo.trace(FAMILY[name](), (8,))
    rng = np.random.default_rng(0)
    masks = MaskSet({name: rng.random(shape) < 0.3 for name, shape in wiring.shapes.items()})
    fast = effective_masks(masks, wiring)
    naive = reach.effective(wiring, {name: np.asarray(masks[name]) for name in masks})
    assert all(np.array_equal(fast[name], naive[name]) for name in masks)
    graph = build_graph(masks, wiring)
    assert paths.exact_paths(graph) == paths.exact_paths(graph, direction="backward")
    relabelled = topo.nulls.nulls["relabelled"](masks, np.random.default_rng(1), wiring)
    kept = {name: int(np.asarray(mask).sum()) for name, mask in effective_masks(relabelled, wiring).items()}
    assert kept == {name: int(np.asarray(fast[name]).sum()) for name in masks}
    assert paths.exact_paths(build_graph(relabelled, wiring)) == paths.exact_paths(graph)
