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
        turned = wiring.input_first
        stored = {name: m.swapaxes(0, 1).copy() if name in turned else m for name, m in masks.items()}
        grads = by_gradient(model, stored, args)
        grads = {name: grad.swapaxes(0, 1) if name in turned else grad for name, grad in grads.items()}
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


def weight(*shape):
    return lambda: nn.Parameter(torch.rand(*shape))


def made(forward, *shapes, **parts):
    """(a function that builds the network, the shapes of its inputs)"""
    return lambda: Net(forward, **{name: part() for name, part in parts.items()}), shapes or ((3, 8),)


SQUARE = {"a": fc, "w": weight(8, 8), "o": fc}
WEIGHTS = {
    "symmetric": made(lambda s, x: s.o(F.linear(s.a(x), s.w + s.w.T)), **SQUARE),
    "symmetric from a triangle": made(lambda s, x: s.o(F.linear(s.a(x), s.w.triu() + s.w.triu(1).T)), **SQUARE),
    "skew": made(lambda s, x: s.o(F.linear(s.a(x).relu(), s.w.triu(1) + 0.5 * s.w.tril(-1).T)), **SQUARE),
    "upper triangle": made(lambda s, x: s.o(F.linear(s.a(x), s.w.triu())), **SQUARE),
    "lower triangle by a mask": made(lambda s, x: s.o(s.a(x) @ (s.w * torch.ones(8, 8).tril(-2)).T), **SQUARE),
    "masked_fill": made(lambda s, x: s.o(s.a(x) @ s.w.masked_fill(torch.eye(8) == 1, 0.0)), **SQUARE),
    "where": made(lambda s, x: s.o(s.a(x) @ torch.where(torch.eye(8) == 1, 0.0, s.w)), **SQUARE),
    "low rank beside": made(
        lambda s, x: s.o(F.linear(s.a(x), s.w + s.b @ s.c)), b=weight(8, 3), c=weight(3, 8), **SQUARE
    ),
    "low rank, turned": made(
        lambda s, x: s.o(s.a(x) @ (s.b @ s.c).T), b=weight(8, 3), c=weight(3, 8), a=fc, o=fc
    ),
    "rows of two": made(
        lambda s, x: s.o(F.linear(s.a(x), torch.cat([s.b, s.c]))), b=weight(3, 8), c=weight(5, 8), a=fc, o=fc
    ),
    "columns of two": made(
        lambda s, x: s.o(F.linear(s.a(x), torch.cat([s.b, s.c], 1))), b=weight(8, 3), c=weight(8, 5), a=fc, o=fc
    ),
    "padded": made(lambda s, x: s.o(F.linear(s.a(x), F.pad(s.b, (1, 2, 2, 0)))), b=weight(6, 5), a=fc, o=fc),
    "expanded along its inputs": made(lambda s, x: s.o(F.linear(s.a(x), s.b.expand(8, 8))), b=weight(8, 1), a=fc, o=fc),
    "sum of two": made(lambda s, x: s.o(F.linear(s.a(x), s.w + 2 * s.b)), b=weight(8, 8), **SQUARE),
    "times a fixed matrix": made(
        lambda s, x: s.o(F.linear(s.a(x), s.w @ torch.eye(8, dtype=x.dtype).roll(1, 0).tril())), **SQUARE
    ),
    "scaled by rows": made(lambda s, x: s.o(F.linear(s.a(x), s.w * s.g)), g=weight(8, 1), **SQUARE),
    "tied autoencoder": made(lambda s, x: F.linear(F.linear(s.a(x), s.w).relu(), s.w.T), a=fc, w=weight(5, 8)),
    "tied, then another": made(lambda s, x: s.o(F.linear(s.a(x) @ s.w, s.w)), a=fc, w=weight(8, 5), o=fc),
    "used twice alike": made(lambda s, x: s.o(F.linear(F.linear(s.a(x), s.w), s.w)), **SQUARE),
    "per-head einsum": made(
        lambda s, x: s.o(torch.einsum("bhd,hdk->bhk", s.a(x).unflatten(-1, (2, 4)), s.w).flatten(1)),
        a=fc, w=weight(2, 4, 4), o=fc,
    ),
    "heads not first": made(
        lambda s, x: s.o(torch.einsum("bd,dhk->bhk", s.a(x), s.w).flatten(1)), a=fc, w=weight(8, 2, 4), o=fc
    ),
    "matrices that do not stand one by one": made(
        lambda s, x: s.o(torch.einsum("bhd,dhk->bhk", s.a(x).unflatten(-1, (2, 4)), s.w).flatten(1)),
        a=fc, w=weight(4, 2, 4), o=fc,
    ),
    "splines": made(
        lambda s, x: s.o(torch.einsum("big,iog->bo", torch.stack([s.a(x), s.b(x)], -1), s.w)),
        a=fc, b=fc, w=weight(8, 8, 2), o=fc,
    ),
    "einsum of three": made(
        lambda s, x: torch.einsum("bi,ij,jk->bk", s.a(x), s.w, s.b), a=fc, w=weight(8, 5), b=weight(5, 4)
    ),
    "bilinear": made(lambda s, x: s.w(s.a(x)[:, :3], s.b(x)[:, :4]), a=fc, b=fc, w=lambda: nn.Bilinear(3, 4, 5)),
    "locally connected": made(lambda s, x: (s.a(x)[:, None] * s.w).sum(-1), a=fc, w=weight(5, 8)),
    "locally connected, in blocks": made(
        lambda s, x: (s.a(x).unflatten(1, (4, 2)) * s.w).sum(-1), a=fc, w=weight(4, 2)
    ),
    "a convolution's triangle": made(
        lambda s, x: F.conv2d(s.a(x), s.w * torch.ones(3, 3).triu(), padding=1), (2, 3, 6, 6),
        a=lambda: nn.Conv2d(3, 4, 1), w=weight(5, 4, 3, 3),
    ),
    "the middle of a kernel": made(
        lambda s, x: F.conv2d(s.a(x), s.w[:, :, 1:2, :2], padding=(0, 1)), (2, 3, 6, 6),
        a=lambda: nn.Conv2d(3, 4, 1), w=weight(5, 4, 3, 3),
    ),
    "matrices of every other axis": made(
        lambda s, x: sum(F.linear(s.a(x), w) for w in s.w.unbind(1)), a=fc, w=weight(5, 3, 8)
    ),
    "convolutions, summed": made(
        lambda s, x: F.conv2d(s.a(x), s.w + s.b, padding=1), (2, 3, 6, 6),
        a=lambda: nn.Conv2d(3, 4, 1), w=weight(5, 4, 3, 3), b=weight(5, 4, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_made_from_parameters(name):
    """Masks have the parameters' own shapes; every entry is live if any of its places is."""
    build, shapes = WEIGHTS[name]
    wiring = compare(build, *shapes)
    model = build()
    named = {key: tuple(p.shape) for key, p in model.named_parameters() if p.dim() > 1}
    turned = wiring.input_first
    kept = {key: (s[1], s[0], *s[2:]) if key in turned else s for key, s in wiring.shapes.items()}
    assert all(kept[key] == named[key] for key in kept) and set(kept) | {"g"} >= set(named)
    again = Wiring.from_json(wiring.to_json())
    masks = MaskSet({key: np.random.default_rng(0).random(shape) < 0.4 for key, shape in wiring.shapes.items()})
    one, other = build_graph(masks, wiring), build_graph(masks, again)
    assert paths.exact_paths(one) == paths.exact_paths(other) == paths.exact_paths(one, direction="backward")
    naive = reach.effective(wiring, {key: np.asarray(masks[key]) for key in masks})
    assert all(np.array_equal(mask, naive[key]) for key, mask in effective_masks(masks, wiring).items())


RULES = {
    "prod": two(lambda s, x: s.o(torch.stack([s.a(x), s.b(x)]).prod(0))),
    "cumsum": two(lambda s, x: s.o(s.a(x).cumsum(-1))),
    "cumprod": two(lambda s, x: s.o(s.a(x).cumprod(-1))),
    "index_select": two(lambda s, x: s.o(s.a(x).index_select(1, torch.tensor([3, 3, 0, 1, 7, 7, 6, 2])))),
    "gather": two(lambda s, x: s.o(s.a(x).gather(1, torch.tensor([[3, 3, 0, 1, 7, 7, 6, 2]] * 3)))),
    "indexed by literals": two(lambda s, x: s.o(s.a(x)[:, torch.tensor([3, 3, 0, 1, 7, 7, 6, 2])])),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    compare(RULES[name], (3, 8), densities=(0.9, 0.6, 0.3))


def test_an_operation_on_weights_without_a_rule_is_named_and_joined():
    net = Net(lambda s, x: s.o(F.linear(s.a(x), torch.matrix_exp(s.b))), a=fc(), b=weight(8, 8)(), o=fc())
    with pytest.warns(topo.errors.TraceWarning, match="matrix_exp .* it has no rule"):
        wiring = topo.trace(net, (8,))
    assert wiring.shapes["b"] == (8, 8) and any("matrix_exp" in note for note in wiring.notes)
    with pytest.raises(topo.errors.TraceError, match="matrix_exp"):
        topo.trace(net, (8,), strict=True)


def test_an_embedding_tied_to_a_head_is_one_mask():
    """Of the head's shape; unmasked, the embedding is where paths start; methods take it as before."""
    net = Net(lambda s, x: F.linear(s.a(s.e(x)), s.e.weight), e=nn.Embedding(20, 8), a=fc())
    wiring = topo.trace(net, args=(torch.arange(5)[None],))
    assert wiring.shapes == {"e.weight": (20, 8), "a.weight": (8, 8)} and not wiring.input_first
    embedding, _, head = wiring.layers
    assert (embedding.kind, embedding.axes, embedding.shape) == ("embedding", (1, 0), (8, 20))
    assert (head.kind, head.axes, wiring.layer("e.weight")) == ("linear", None, head)
    masks = {
        "e.weight": np.random.default_rng(0).random((20, 8)) < 0.3,
        "a.weight": np.random.default_rng(1).random((8, 8)) < 0.3,
    }
    model = net.double()
    grads = by_gradient(model, masks, (torch.arange(20)[None],))
    found = effective_masks(masks, wiring)
    assert all(np.array_equal(found[name], grads[name]) for name in masks)
    made = topo.generate("balance", wiring, density=0.4, rng=0)
    assert made.density == pytest.approx(0.4, abs=0.01) and made.shapes == wiring.shapes


@pytest.mark.parametrize("name", ["tied autoencoder", "splines", "heads not first", "symmetric", "upper triangle"])
def test_generators_nulls_and_json_take_odd_layouts(name):
    build, shapes = WEIGHTS[name]
    wiring = topo.trace(build(), shapes[0][1:])
    masks = topo.generate("erk", wiring, density=0.4, rng=0)
    assert masks.shapes == wiring.shapes
    for null in ("same_layers", "same_degrees", "relabelled"):
        drawn = topo.nulls.nulls[null](masks, 0, wiring)
        assert drawn.shapes == wiring.shapes and drawn.kept == masks.kept
        if null == "relabelled":
            assert paths.exact_paths(build_graph(drawn, wiring)) == paths.exact_paths(build_graph(masks, wiring))
    numbers = topo.analyze(masks, wiring).network
    assert numbers["params"] == masks.size and numbers["effective_params"] <= masks.kept
    refused = dict.fromkeys(("tied autoencoder", "symmetric"), "'w' is used in two") | {"upper triangle": "of 'w' take"}
    if name in refused:
        with pytest.raises(WiringError, match=refused[name]):
            topo.generate("balance", wiring, density=0.4)
    else:
        assert topo.generate("balance", wiring, density=0.4, rng=0).shapes == wiring.shapes


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
