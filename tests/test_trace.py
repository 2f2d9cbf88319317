"""Wirings of small models with known answers: units, joins, names; what is left untouched; what failures say."""

from __future__ import annotations

import io
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import topo
from topo.errors import TraceError, TraceWarning
from topo.graph import build_graph
from topo.masks import MaskSet
from topo.metrics.paths import effective_masks
from topo.wiring import Join, Layer

torch.set_num_threads(1)


class Net(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def steps(wiring):
    return [step.name if isinstance(step, Layer) else step.kind for step in wiring.steps]


def joins(wiring):
    return [step for step in wiring.steps if isinstance(step, Join)]


def made(layer):
    return list(range(layer.start, layer.stop))


# -- inputs and flattening


def test_features_are_units():
    wiring = topo.trace(nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10)), (784,))
    assert wiring.inputs.tolist() == list(range(784)) and wiring.input_shape == (784,)
    first, second = wiring.layers
    assert first.reads.tolist() == list(range(784)) and second.reads.tolist() == made(first)
    assert wiring.outputs.tolist() == made(second)
    assert wiring.parameters == ("0.weight", "2.weight") and first.positions == second.positions == 1


def test_a_flattened_image_has_one_unit_per_channel():
    wiring = topo.trace(nn.Sequential(nn.Flatten(), nn.Linear(784, 30)), (1, 28, 28))
    assert wiring.inputs.tolist() == [0] and wiring.layers[0].reads.tolist() == [0] * 784


@pytest.mark.parametrize("last", [False, True])
def test_flattened_maps_keep_their_order(last):
    def forward(self, x):
        x = self.conv(x)
        return self.fc((x.permute(0, 2, 3, 1) if last else x).flatten(1))

    wiring = topo.trace(Net(forward, conv=nn.Conv2d(3, 5, 3), fc=nn.Linear(5 * 16, 2)), (3, 6, 6))
    conv, fc = wiring.layers
    expected = made(conv) * 16 if last else np.repeat(made(conv), 16).tolist()
    assert fc.reads.tolist() == expected
    assert conv.positions == 16 and conv.kind == "conv" and (conv.stride, conv.padding) == ((1, 1), (0, 0))


def test_channels_last_images_and_sequences():
    wiring = topo.trace(Net(lambda s, x: s.conv(x.permute(0, 3, 1, 2)), conv=nn.Conv2d(3, 5, 3)), (8, 9, 3))
    assert len(wiring.inputs) == 3 and wiring.layers[0].positions == 42
    assert topo.trace(nn.Linear(4, 2), (6, 4)).inputs.tolist() == [0, 1, 2, 3]
    assert topo.trace(nn.Linear(4, 2), (6, 4)).layers[0].positions == 6
    assert topo.trace(nn.Conv1d(4, 2, 3), (4, 9)).inputs.tolist() == [0, 1, 2, 3]


def test_a_batch_does_not_count():
    wiring = topo.trace(nn.Linear(4, 2), args=(torch.zeros(5, 6, 4),))
    assert wiring.layers[0].positions == 6 and wiring.input_shape == (6, 4)


# -- layout


def test_split_chunk_and_shuffles():
    def forward(self, x):
        x = F.channel_shuffle(self.first(x), 2)
        a, b = x.chunk(2, 1)
        c, d, e = b.split([1, 1, 2], 1)
        return self.last(torch.cat([e, c, a, d], 1))

    wiring = topo.trace(Net(forward, first=nn.Conv2d(4, 8, 1, groups=2), last=nn.Conv2d(8, 4, 1, groups=4)), (4, 4, 4))
    first, last = wiring.layers
    shuffled = [first.start + i for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    a, (c, d, *e) = shuffled[:4], shuffled[4:]
    assert last.reads.tolist() == [*e, c, *a, d]
    assert (first.groups, first.shape, last.groups, last.shape) == (2, (8, 2, 1, 1), 4, (4, 2, 1, 1))


def test_fixed_filters_pass_the_units_of_their_group():
    """Blur pools and other filters that are not parameter."""

    def forward(self, x):
        return self.last(F.conv2d(self.first(x), torch.ones(4, 1, 3, 3), groups=4, padding=1))

    wiring = topo.trace(Net(forward, first=nn.Conv2d(3, 4, 1), last=nn.Conv2d(4, 2, 1)), (3, 4, 4), strict=True)
    first, last = wiring.layers
    assert not joins(wiring) and last.reads.tolist() == made(first)


def test_an_add_where_some_units_are_the_same():
    """x + [x, f(x)]: x + x is x, so it carries each path once."""

    def forward(self, x):
        x = self.first(x)
        return self.last(x + torch.cat([x[:, :2], self.middle(x)], 1))

    parts = {"first": nn.Linear(3, 4), "middle": nn.Linear(4, 2), "last": nn.Linear(4, 1)}
    wiring = topo.trace(Net(forward, **parts), (3,))
    first, middle, last = wiring.layers
    (join,) = joins(wiring)
    start = first.start
    assert [sorted(int(o[i]) for o in join.operands if o[i] >= 0) for i in range(join.outputs)] == [
        [start], [start + 1], [start + 2, middle.start], [start + 3, middle.start + 1]
    ]  # fmt: skip
    assert last.reads.tolist() == list(range(join.start, join.stop))


def test_a_batch_of_matrices_makes_groups():
    """Experts that each read features of their own: (e, k) times (e, k, n)."""
    net = Net(lambda s, x: torch.einsum("bek,ekn->ben", s.first(x).unflatten(1, (2, 3)), s.experts).flatten(1))
    net.first, net.experts = nn.Linear(4, 6), nn.Parameter(torch.ones(2, 3, 5))
    first, experts = topo.trace(net, (4,), strict=True).layers
    assert (experts.shape, experts.groups, experts.reads.tolist()) == ((10, 3), 2, made(first))


def test_pixel_shuffle_adds_what_shares_a_channel():
    net = Net(lambda s, x: s.last(F.pixel_shuffle(s.first(x), 2)), first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(2, 1, 1))
    wiring = topo.trace(net, (3, 4, 4))
    first, last = wiring.layers
    (join,) = joins(wiring)
    assert np.stack(join.operands).T.tolist() == [made(first)[:4], made(first)[4:]]
    assert last.reads.tolist() == made(join)


def test_zero_channels_carry_no_unit_and_borders_make_none():
    def forward(self, x):
        y = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        return self.last(F.pad(self.conv(F.pad(x, (1, 1, 1, 1))), (0, 1, 0, 1))[:, :, :4, :4] + y)

    wiring = topo.trace(Net(forward, conv=nn.Conv2d(3, 6, 3, stride=2), last=nn.Conv2d(6, 2, 1)), (3, 8, 8))
    (join,) = joins(wiring)
    assert join.kind == "add" and [o.tolist() for o in join.operands] == [made(wiring.layers[0]), [-1, 0, 1, 2, -1, -1]]
    assert wiring.layers[1].reads.tolist() == made(join)


def test_writing_into_a_slice():
    def forward(self, x):
        y = torch.zeros(x.shape[0], 6, 4, 4)
        y[:, 1:4] = self.conv(x)
        y[:, 2:5] += x
        return self.last(y)

    wiring = topo.trace(Net(forward, conv=nn.Conv2d(3, 3, 1), last=nn.Conv2d(6, 2, 1)), (3, 4, 4))
    conv, last = wiring.layers
    (join,) = joins(wiring)
    assert [o.tolist() for o in join.operands] == [[conv.start + 1, conv.start + 2, -1], [0, 1, 2]]
    assert last.reads.tolist() == [-1, conv.start, *made(join), -1]


def test_a_known_permutation_is_followed_and_an_unknown_pick_is_not():
    order = torch.tensor([2, 0, 1])
    net = Net(lambda s, x: s.fc(x[:, s.order]), fc=nn.Linear(3, 2))
    net.register_buffer("order", order)
    assert topo.trace(net, (3,)).layers[0].reads.tolist() == [2, 0, 1]
    net = Net(lambda s, x: s.fc(x[:, x.argsort(1)[0]]), fc=nn.Linear(3, 2))
    wiring = topo.trace(net, (3,))
    assert wiring.layers[0].reads.tolist() == made(joins(wiring)[0]) * 3


def test_transposed_convolutions_are_output_first():
    wiring = topo.trace(
        nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.ConvTranspose2d(6, 5, 3)), (4, 5, 5)
    )
    first, second = wiring.layers
    assert (first.shape, first.groups, first.transposed, first.stride) == ((6, 2, 2, 2), 2, True, (2, 2))
    assert (second.shape, second.reads.tolist(), second.positions) == ((5, 6, 3, 3), made(first), 100)


# -- sums


def test_a_residual_stream_is_one_range():
    def forward(self, x):
        for part in self.parts:
            x = x + part(x)
        return x

    wiring = topo.trace(Net(forward, parts=nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))), (4, 6, 6))
    assert steps(wiring) == ["parts.0.weight", "add", "parts.1.weight", "add", "parts.2.weight", "add"]
    stream = [0, 1, 2, 3]
    for layer, join in zip(wiring.layers, joins(wiring)):
        assert layer.reads.tolist() == stream
        assert [o.tolist() for o in join.operands] == [stream, made(layer)]
        stream = made(join)
    assert wiring.outputs.tolist() == stream


SUMS = {
    "in place": lambda s, x: s.a(x).add_(s.b(x)),
    "minus": lambda s, x: s.a(x) - s.b(x),
    "where": lambda s, x: torch.where(x.sum() > 0, s.a(x), s.b(x)),
    "maximum": lambda s, x: torch.maximum(s.a(x), s.b(x)),
    "weighted": lambda s, x: torch.lerp(s.a(x), s.b(x), 0.3),
    "three dots": lambda s, x: 2 * s.a(x) + 1 + s.b(x) / 3,
    "stacked": lambda s, x: torch.stack([s.a(x), s.b(x)]).sum(0),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_two_branches(name):
    wiring = topo.trace(Net(SUMS[name], a=nn.Linear(4, 3), b=nn.Linear(4, 3)), (4,), strict=True)
    a, b = wiring.layers
    (join,) = joins(wiring)
    assert join.kind == "add" and [o.tolist() for o in join.operands] == [made(a), made(b)]
    assert wiring.outputs.tolist() == made(join)


PASSES = {
    "constant": lambda s, x: s.a(x) + s.c,
    "itself": lambda s, x: (lambda y: y + y)(s.a(x)),
    "itself, activated": lambda s, x: (lambda y: y + F.relu(y))(s.a(x)),
    "swish by hand": lambda s, x: (lambda y: y * torch.sigmoid(1.7 * y))(s.a(x)),
    "scale": lambda s, x: s.a(x) * s.c,
    "mean square": lambda s, x: (lambda y: y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))(s.a(x)),
    "layer norm by hand": lambda s, x: (lambda y: (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True))(s.a(x)),
    "softmax by hand": lambda s, x: (lambda y: y.exp() / y.exp().sum(-1, keepdim=True))(s.a(x)),
    "normalised": lambda s, x: F.normalize(s.a(x), dim=-1),
}


@pytest.mark.parametrize("name", PASSES)
def test_what_makes_no_unit(name):
    net = Net(PASSES[name], a=nn.Linear(4, 3), c=nn.Parameter(torch.randn(3)))
    wiring = topo.trace(net, (4,), strict=True)
    assert steps(wiring) == ["a.weight"] and wiring.outputs.tolist() == made(wiring.layers[0])


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum, torch.amax])
def test_a_mean_over_channels_that_is_the_value_adds_them(reduce):
    net = Net(lambda s, x: s.b(reduce(s.a(x), -1, keepdim=True)), a=nn.Linear(4, 3), b=nn.Linear(1, 2))
    wiring = topo.trace(net, (4,))
    (join,) = joins(wiring)
    assert [o.tolist() for o in join.operands] == [[unit] for unit in made(wiring.layers[0])]
    assert wiring.layers[1].reads.tolist() == made(join)


# -- products

GATES = {
    "gated unit": (lambda s, x: F.silu(s.a(x)) * s.b(x), "ba"),
    "gated unit, other order": (lambda s, x: s.b(x) * F.silu(s.a(x)), "ba"),
    "glu": (lambda s, x: F.glu(torch.cat([s.b(x), s.a(x)], -1)), "ba"),
    "sigmoid after a cast and a scale": (lambda s, x: (torch.sigmoid(s.a(x)) * 2).clone() * s.b(x), "ba"),
    "hard sigmoid by hand": (lambda s, x: F.relu6(s.a(x) + 3) / 6 * s.b(x), "ba"),
    "two branches alike": (lambda s, x: s.a(x) * s.b(x), "ab"),
    "both activated": (lambda s, x: torch.tanh(s.b(x)) * torch.sigmoid(s.a(x)), "ba"),
    "quotient": (lambda s, x: s.a(x) / (s.b(x) + 1), "ab"),
}


NEVER_ZERO = ("glu", "sigmoid after a cast and a scale", "hard sigmoid by hand", "both activated", "quotient")


@pytest.mark.parametrize("name", GATES)
def test_the_value_branch_of_a_product(name):
    forward, order = GATES[name]
    wiring = topo.trace(Net(forward, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), (4,), strict=True)
    by_name = {layer.name[0]: made(layer) for layer in wiring.layers}
    *beside, join = joins(wiring)
    value, by = (by_name[letter] for letter in order)
    if name in NEVER_ZERO:
        (always,) = beside
        assert [o.tolist() for o in always.operands] == [by, [-2] * 3]
        by = made(always)
    assert join.kind == "gate" and [o.tolist() for o in join.operands] == [value, by]


@pytest.mark.parametrize("act", [F.relu, lambda x: x])
def test_squeeze_and_excite_gates_the_map(act):
    def forward(self, x):
        y = act(self.conv(x))
        return act(self.fc(y.mean((2, 3))))[:, :, None, None] * y

    wiring = topo.trace(Net(forward, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 4)), (3, 5, 5))
    conv, fc = wiring.layers
    assert [o.tolist() for o in joins(wiring)[0].operands] == [made(conv), made(fc)]


# -- attention


class Attention(nn.Module):
    def __init__(self, heads, key_heads, width, eager):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, n * width) for n in (heads, key_heads, key_heads))
        self.o = nn.Linear(heads * width, 8)
        self.heads, self.key_heads, self.width, self.eager = heads, key_heads, width, eager

    def forward(self, x):
        def split(y):
            return y.view(*x.shape[:2], -1, self.width).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        if not self.eager:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            k, v = (y.repeat_interleave(self.heads // self.key_heads, 1) for y in (k, v))
            y = F.softmax(q @ k.transpose(-1, -2) / self.width**0.5 + torch.ones(4, 4).triu(), -1) @ v
        return self.o(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_attention(eager, key_heads):
    wiring = topo.trace(Attention(4, key_heads, 3, eager), (4, 8), strict=True)
    q, k, v, o = wiring.layers
    score, always, gate = joins(wiring)
    assert (score.kind, score.width, score.outputs, gate.kind) == ("score", 3, 4, "gate")
    assert [x.tolist() for x in always.operands] == [made(score), [-2] * 4]
    repeated = [np.repeat(np.reshape(made(layer), (-1, 3)), 4 // key_heads, 0).ravel().tolist() for layer in (k, v)]
    assert [x.tolist() for x in score.operands] == [made(q), repeated[0]]
    assert [x.tolist() for x in gate.operands] == [repeated[1], np.repeat(made(always), 3).tolist()]
    assert o.reads.tolist() == made(gate)


@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention_of_torch(weights):
    net = Net(lambda s, x: s.a(x, x, x, need_weights=weights)[0], a=nn.MultiheadAttention(8, 2, batch_first=True))
    wiring = topo.trace(net, (5, 8), strict=True)
    assert steps(wiring) == ["a.in_proj_weight", "score", "add", "gate", "a.out_proj.weight"]
    units = made(wiring.layers[0])
    assert [x.tolist() for x in joins(wiring)[0].operands] == [units[:8], units[8:16]]
    assert joins(wiring)[2].operands[0].tolist() == units[16:]


def test_part_of_a_parameter_is_the_whole_layer():
    net = Net(lambda s, x, y: s.a(x, y, y)[0], a=nn.MultiheadAttention(8, 2, batch_first=True))
    wiring = topo.trace(net, args=(torch.zeros(1, 3, 8), torch.zeros(1, 5, 8)))
    queries, keys, _ = wiring.layers
    assert queries.name == keys.name == "a.in_proj_weight" and queries.shape == keys.shape == (24, 8)
    assert queries.reads.tolist() == list(range(8)) and keys.reads.tolist() == list(range(8, 16))
    assert queries.rows.tolist() == list(range(8)) and keys.rows.tolist() == list(range(8, 24))
    assert (queries.used, keys.used, queries.positions, keys.positions) == (64, 128, 3, 5)
    assert [x.tolist() for x in joins(wiring)[0].operands] == [made(queries)[:8], made(keys)[8:16]]


def test_slices_that_read_the_same_units_are_one_layer():
    def forward(self, x):
        first, rest = F.linear(x, self.fc.weight[:3]), F.linear(x, self.fc.weight[3:])
        return self.out(torch.cat([rest, first], -1))

    wiring = topo.trace(Net(forward, fc=nn.Linear(6, 8), out=nn.Linear(8, 2)), (6,), strict=True)
    first, out = wiring.layers
    assert first.rows is None and first.used == 48
    assert out.reads.tolist() == [*made(first)[3:], *made(first)[:3]]
    masks = {name: np.ones(shape, bool) for name, shape in wiring.shapes.items()}
    numbers = topo.analyze(masks, wiring, metrics="paths").network
    assert (numbers["nodes"], numbers["macs_dense"], numbers["effective_paths"]) == (6 + 8 + 2, 48 + 16, 96)
    assert numbers["balance_gap"] == pytest.approx(0, abs=1e-12)
    twice = Net(lambda s, x: F.linear(x, s.fc.weight[:3]) + F.linear(x, s.fc.weight[:3]), fc=nn.Linear(6, 8))
    assert [layer.used for layer in topo.trace(twice, (6,)).layers] == [18, 18]


def test_part_of_an_embedding_is_a_layer_of_it():
    net = Net(lambda s, i: s.fc(F.embedding(i, s.e.weight[:5])), e=nn.Embedding(9, 4), fc=nn.Linear(4, 2))
    wiring = topo.trace(net, args=(torch.arange(5)[None],), strict=True)
    table = wiring.layer("e.weight")
    assert (table.kind, table.used, len(wiring.inputs)) == ("embedding", 20, 5)


def test_a_view_of_a_parameter_that_mixes_its_axes_is_followed_entry_by_entry():
    net = Net(lambda s, x: F.linear(x, s.w.reshape(4, 3)), w=nn.Parameter(torch.ones(3, 4)))
    wiring = topo.trace(net, (3,), strict=True)
    assert wiring.shapes == {"w": (3, 4)}
    kept = np.random.default_rng(0).random((3, 4)) < 0.5
    assert np.array_equal(effective_masks(build_graph(MaskSet({"w": kept}), wiring))["w"], kept)


def test_batched_matrices_cost_what_torch_counts():
    net = Net(lambda s, x: torch.einsum("bgi,goi->bgo", x.view(-1, 4, 5), s.w), w=nn.Parameter(torch.ones(4, 6, 5)))
    wiring = topo.trace(net, (20,), strict=True)
    assert [(layer.used, layer.positions) for layer in wiring.layers] == [(120, 1)]


def test_a_use_of_other_rows_reads_its_own_units():
    def forward(self, x, y):
        return self.o(F.linear(F.pad(x, (2, 0)), self.a.weight[:4]) + F.linear(y, self.a.weight[4:]))

    net = Net(forward, a=nn.Linear(5, 8, bias=False), o=nn.Linear(4, 2, bias=False))
    wiring = topo.trace(net, args=(torch.zeros(1, 3), torch.zeros(1, 5)))
    masks = {name: np.ones(shape, bool) for name, shape in wiring.shapes.items()}
    for rows, kernels, units in ((8, 40, 8), (4, 28, 5)):
        masks["a.weight"][: 8 - rows] = False
        report = topo.analyze(masks, wiring, metrics="paths")
        assert (report.network["effective_kernels"], report.layers[0]["effective_in"]) == (kernels, units)


def test_slices_of_columns_take_their_own_weights():
    net = Net(lambda s, x, y: F.linear(x, s.w.weight[:, :2]) + F.linear(y, s.w.weight[:, 2:]), w=nn.Linear(5, 4))
    wiring = topo.trace(net, args=(torch.zeros(1, 2), torch.zeros(1, 3)))
    assert [layer.columns.tolist() for layer in wiring.layers] == [[0, 1], [2, 3, 4]]
    mask = np.zeros((4, 5), bool)
    mask[:, 1:4] = True
    report = topo.analyze({"w.weight": mask}, wiring, metrics="paths")
    assert (report.network["macs_dense"], report.network["macs_kept"], report.network["effective_paths"]) == (
        20,
        12,
        12,
    )
    assert report.layers[0]["effective_in"] == 3


def test_multiply_accumulates_of_a_decoder_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    parts = {"into": nn.Linear(4, 8), "layer": nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)}
    net = Net(lambda s, x: s.out(s.layer(s.into(x), x.repeat(1, 1, 2))), **parts, out=nn.Linear(8, 3))
    wiring = topo.trace(net, (5, 4))
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        net.train()(torch.rand(1, 5, 4))
    masks = {name: np.ones(shape, bool) for name, shape in wiring.shapes.items()}
    numbers = topo.analyze(masks, wiring, metrics="paths").network
    scores = 2 * (2 * 2 * 5 * 5 * 8)  # two attentions, each of two products of 5 x 5 tokens and 8 features
    assert numbers["flops_dense"] == counter.get_total_flops() - scores
    assert numbers["balance_gap"] == pytest.approx(0, abs=1e-12)


def test_a_class_token_takes_the_units_of_its_channel():
    def forward(self, x):
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.patch(x).flatten(2).transpose(1, 2)], 1) + self.pos
        return self.fc(x + self.mix(x))[:, 0]

    parts = {"cls": nn.Parameter(torch.zeros(1, 1, 6)), "pos": nn.Parameter(torch.zeros(1, 5, 6))}
    net = Net(forward, patch=nn.Conv2d(3, 6, 4, 4), mix=nn.Linear(6, 6), fc=nn.Linear(6, 2), **parts)
    wiring = topo.trace(net, (3, 8, 8), strict=True)
    assert steps(wiring) == ["patch.weight", "mix.weight", "add", "fc.weight"]
    assert [layer.positions for layer in wiring.layers] == [4, 5, 5]


# -- parameters


def test_embeddings_read_their_vocabulary():
    wiring = topo.trace(Net(lambda s, x: s.o(s.e(x)), e=nn.Embedding(20, 6), o=nn.Linear(6, 4)), (5,))
    embedding, out = wiring.layers
    assert (embedding.kind, embedding.shape, embedding.transposed, embedding.positions) == (
        "embedding",
        (6, 20),
        True,
        5,
    )
    assert wiring.inputs.tolist() == embedding.reads.tolist() == list(range(20))
    assert out.reads.tolist() == made(embedding)


def test_an_output_head_tied_to_the_embedding():
    net = Net(lambda s, x: s.o(s.e(x)), e=nn.Embedding(20, 6), o=nn.Linear(6, 20, bias=False))
    net.o.weight = net.e.weight
    wiring = topo.trace(net, args=(torch.zeros(1, 5, dtype=torch.long),))
    embedding, head = wiring.layers
    assert (embedding.name, embedding.shape, embedding.reads.tolist()) == ("e.weight", (6, 20), list(range(20)))
    assert (head.name, head.shape, head.reads.tolist()) == ("e.weight", (20, 6), made(embedding))
    assert wiring.shapes == {"e.weight": (20, 6)}


def test_a_shared_layer_stands_twice_under_its_first_name():
    fc = nn.Linear(6, 6)
    wiring = topo.trace(nn.Sequential(fc, nn.ReLU(), fc), (6,))
    assert [layer.name for layer in wiring.layers] == ["0.weight", "0.weight"] and wiring.parameters == ("0.weight",)
    assert wiring.layers[1].reads.tolist() == made(wiring.layers[0])


def test_raw_parameters_by_product_and_einsum():
    parts = {"w": nn.Parameter(torch.randn(5, 6)), "v": nn.Parameter(torch.randn(7, 6))}
    net = Net(lambda s, x: torch.einsum("bti,oi->bto", x @ s.w, s.v) @ torch.ones(7, 7), **parts)
    wiring = topo.trace(net, (3, 5), strict=True)
    w, v = wiring.layers
    assert (w.shape, w.transposed, v.shape, v.transposed) == ((6, 5), True, (7, 6), False)
    assert v.reads.tolist() == made(w) and [len(o) for o in joins(wiring)[0].operands] == [1] * 7


def wrapped():
    pruned = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 5))
    prune.random_unstructured(pruned[0], "weight", 0.5)
    prune.random_unstructured(pruned[2], "weight", 0.5)
    normed = nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(3, 8, 3)),
        nn.Flatten(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(32, 6)),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
    )
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 5))
    return {"pruned": pruned, "normed": normed, "parallel": nn.DataParallel(plain), "compiled": torch.compile(plain)}


@pytest.mark.parametrize("kind", ["pruned", "normed", "parallel", "compiled"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_names_under_wrappers(kind):
    wiring = topo.trace(wrapped()[kind], (3, 4, 4), strict=True)
    assert wiring.parameters == (("0.weight", "2.weight", "3.weight") if kind == "normed" else ("0.weight", "2.weight"))
    assert joins(wiring) == [] and wiring.layers[1].reads.tolist() == np.repeat(made(wiring.layers[0]), 4).tolist()


def test_a_learned_constant_is_an_input():
    queries = nn.Parameter(torch.randn(1, 3, 8))
    attend = F.scaled_dot_product_attention
    net = Net(lambda s, x: attend(s.q(s.p), s.k(x), s.k(x)), p=queries, q=nn.Linear(8, 8), k=nn.Linear(4, 8))
    wiring = topo.trace(net, (6, 4), strict=True)
    assert len(wiring.inputs) == 12 and wiring.layer("q.weight").reads.tolist() == list(range(4, 12))
    assert "learned or fixed constant" in wiring.notes[0]


def test_module_order_differs_from_running_order():
    net = Net(lambda s, x: s.a(s.b(x)), a=nn.Linear(3, 2), b=nn.Linear(4, 3))
    wiring = topo.trace(net, (4,))
    assert wiring.names == ("b.weight", "a.weight") and wiring.parameters == ("a.weight", "b.weight")


# -- operations without a rule


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.b(torch.fft.fft(self.a(x)).real)


def test_unknown_operation_is_named_with_its_line():
    net = Spectrum()
    with pytest.warns(TraceWarning) as caught:
        wiring = topo.trace(net, (4,))
    (text,) = {str(one.message) for one in caught if one.category is TraceWarning}
    line = Spectrum.forward.__code__.co_firstlineno + 1
    assert text.startswith(f"aten.fft_fft at {__file__}, line {line}, in forward: `return self.b(torch.fft.fft(")
    assert wiring.notes == (text,)
    (join,) = joins(wiring)
    assert join.kind == "add" and [o.tolist() for o in join.operands] == [[unit] for unit in made(wiring.layers[0])]
    assert wiring.layers[1].reads.tolist() == made(join) * 3
    with pytest.raises(TraceError, match=r"aten\.fft_fft at "):
        topo.trace(net, (4,), strict=True)


def test_parameters_lost_in_an_unknown_operation_are_named():
    net = Net(lambda s, x: s.o(torch.cdist(x, s.c)), c=nn.Parameter(torch.rand(3, 4)), o=nn.Linear(3, 2))
    with pytest.warns(TraceWarning, match=r"aten\.cdist .* and c are not layers"):
        wiring = topo.trace(net, (5, 4))
    assert wiring.parameters == ("o.weight",)


@torch.library.custom_op("topo_tests::shift", mutates_args=())
def shift(x: torch.Tensor, by: int) -> torch.Tensor:
    return x.roll(by, 1)


@shift.register_fake
def _(x, by):
    return torch.empty_like(x)


def test_a_rule_of_ones_own():
    from topo.trace.rules import RULES

    net = Net(lambda s, x: s.fc(torch.ops.topo_tests.shift(x, 1)), fc=nn.Linear(3, 2))
    with pytest.warns(TraceWarning, match=r"topo_tests\.shift .*it has no rule"):
        topo.trace(net, (3,))

    @topo.rule("topo_tests::shift")
    def follow(units, inputs, shape):
        ids, by = inputs
        assert tuple(ids.shape) == shape == (1, 3) and ids.dtype is torch.int32
        return ids.roll(by, 1)

    try:
        assert topo.trace(net, (3,), strict=True).layers[0].reads.tolist() == [2, 0, 1]
        topo.rule("topo_tests.shift")(lambda units, inputs, shape: inputs[0][:, :2])
        with pytest.raises(TraceError, match=r"its rule gives ids of shape \(1, 2\) where the output has \(1, 3\)"):
            topo.trace(net, (3,), strict=True)
    finally:
        del RULES["topo_tests.shift"]


# -- capture


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_model_is_left_untouched():
    net = wrapped()["pruned"]
    net.append(nn.BatchNorm1d(5))
    net[2].eval()
    net(torch.randn(2, 3, 4, 4)).sum().backward()
    flags = [part.training for part in net.modules()]
    before = [{key: id(thing) for key, thing in part.__dict__.items()} for part in net.modules()]
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    random = torch.get_rng_state()
    topo.trace(net, (3, 4, 4))
    assert [part.training for part in net.modules()] == flags
    assert [{key: id(thing) for key, thing in part.__dict__.items()} for part in net.modules()] == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(net.parameters(), grads))
    assert torch.equal(torch.get_rng_state(), random) and torch.is_grad_enabled()


def test_meta_models_and_half_precision():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).bfloat16()
    assert topo.trace(net, (3, 6, 6)).shapes == {"0.weight": (4, 3, 3, 3), "3.weight": (2, 64)}


def by_data(self, x):
    return self.b(x) if x.sum() > 0 else self.a(x)


def through_numpy(self, x):
    return self.b(torch.from_numpy(self.a(x).detach().numpy() + 1))


def by_items(self, x):
    for value in x[0].tolist():
        x = self.a(x) if value > 0 else self.b(x)
    return x


@pytest.mark.parametrize(
    "forward, kept, way",
    [
        (by_data, ["a.weight"], "torch.export.draft_export"),
        (through_numpy, ["a.weight", "b.weight"], "a recorded forward pass"),
        (by_items, ["b.weight"] * 4, ""),
    ],
)
def test_what_export_cannot_capture(forward, kept, way, capfd):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wiring = topo.trace(Net(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), (4,))
    assert ["a.weight (16 of 16 weights) are dead" in str(one.message) for one in said] == [True] * (
        forward is through_numpy
    )
    assert sorted(layer.name for layer in wiring.layers) == kept
    assert wiring.notes[0].startswith("captured by") and way in wiring.notes[0]
    assert capfd.readouterr() == ("", ""), "the library is silent"


@pytest.mark.parametrize(
    "model, shape, says",
    [
        (nn.Conv2d(3, 4, 3), (4, 8, 8), r"Conv2d could not be captured\..* to have 3 channels.*Check the input shape"),
        (
            nn.Linear(3, 4),
            None,
            r"tracing a Linear needs an example of its argument 'input': the shape of one input, such as \(3, 32, 32\)",
        ),
        (Net(lambda s, x: torch.zeros(1, 3)), (3,), "no output of the model depends on an input"),
        ("resnet20", (3,), "a str cannot be traced"),
    ],
)
def test_what_cannot_be_traced(model, shape, says):
    with pytest.raises(TraceError, match=says) as error:
        topo.trace(model, shape)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part_is_looked_through_and_left_as_it_was():
    part = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    model = nn.Sequential(nn.Linear(5, 4), part)
    assert topo.trace(model, (5,)).names == ("0.weight", "1.0.weight") and part.training


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused():
    with pytest.raises(TraceError, match=r"cannot be traced; trace takes a torch\.nn\.Module in Python"):
        topo.trace(torch.jit.script(nn.Linear(3, 4)), (3,))


Pair = namedtuple("Pair", "logits hidden")


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: {"hidden": b, "logits": a},
        lambda a, b: Pair(a, b),
        lambda a, b: {"last_hidden_state": a, "mask": b},
    ],
)
def test_logits_are_the_outputs(pack):
    net = Net(lambda s, x: pack(s.a(x), s.b(x)), a=nn.Linear(4, 3), b=nn.Linear(4, 2))
    wiring = topo.trace(net, (4,))
    assert wiring.outputs.tolist() == made(wiring.layer("a.weight"))


def test_else_all_outputs_count():
    net = Net(lambda s, x: (s.a(x), [s.b(x), x > 0]), a=nn.Linear(4, 3), b=nn.Linear(4, 2))
    wiring = topo.trace(net, (4,))
    assert wiring.outputs.tolist() == [*made(wiring.layer("a.weight")), *made(wiring.layer("b.weight"))]


def test_json_round_trip():
    wiring = topo.trace(Attention(4, 2, 3, True), (4, 8))
    again = topo.Wiring.from_json(wiring.to_json())
    assert again.to_json() == wiring.to_json() and again.parameters == wiring.parameters
    assert all(np.array_equal(a.operands, b.operands) for a, b in zip(joins(wiring), joins(again)))


# -- transformers


def test_a_large_language_model_costs_no_memory():
    """Two layers of Llama-7B's size (1.4 GB of weights if they were there), written JSON of a few kilobytes."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        net = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=2))
    wiring = topo.trace(net, strict=True)
    assert len(wiring.layers) == 16 and wiring.parameters == tuple(n for n, p in net.named_parameters() if p.dim() > 1)
    assert wiring.layer("lm_head.weight").shape == (32000, 4096)
    assert len(wiring.notes) == 1 and wiring.notes[0].startswith("gates are soft")
    kinds = [join.kind for join in joins(wiring)]
    assert (kinds.count("score"), kinds.count("gate"), kinds.count("add")) == (2, 4, 10)
    assert len(io.StringIO(wiring.to_json()).getvalue()) < 50_000


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_ways_of_attention_agree(way):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 40,
    }
    net = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_key_value_heads=2, attn_implementation=way, **sizes)
    )
    wiring = topo.trace(net, strict=True)
    kinds = [join.kind for join in joins(wiring)]
    assert kinds == ["add", "add", "score", "add", "gate", "add", "gate", "add"]
    assert wiring.inputs.tolist() == list(range(40)) and wiring.outputs.tolist() == made(wiring.layer("lm_head.weight"))


def test_experts_are_added():
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 40,
    }
    net = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(num_key_value_heads=2, num_local_experts=4, **sizes)
    )
    wiring = topo.trace(net, strict=True)
    down = wiring.layer("model.layers.0.mlp.experts.down_proj")
    assert down.shape == (4 * 32, 48) and wiring.shapes[down.name] == (4, 32, 48)
    tokens = wiring.layer("model.layers.0.self_attn.q_proj.weight").positions
    assert down.positions == -(-2 * tokens // 4)  # two of four experts see each token
    (join,) = [join for join in joins(wiring) if len(join.operands) == 4 and down.start in join.operands[0]]
    assert [o.tolist() for o in join.operands] == np.reshape(made(down), (4, 32)).tolist()
