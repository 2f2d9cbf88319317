"""What a trace must not lose without a word: layers that are dead in the dense network, parameters in no layer, and
kernels that are larger than their maps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_trace import Net
from torch import nn

import topo
from naive import reach as naive_reach
from topo.errors import TraceWarning
from topo.trace.guard import dead_when_dense
from topo.wiring import Join, Layer, Wiring

torch.set_num_threads(1)


def traced(net, shape):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wiring = topo.trace(net, shape)
    return wiring, [str(one.message) for one in caught if one.category is TraceWarning]


def test_a_sound_network_is_traced_without_a_word():
    net = topo.models.build("resnet20")
    wiring, said = traced(net, None)
    assert not said and not wiring.notes and not dead_when_dense(wiring)


def test_layers_that_the_trace_loses_are_named():
    def through_numpy(self, x):
        return self.b(torch.from_numpy(self.a(x).detach().numpy()) + x[:, :4])

    wiring, said = traced(Net(through_numpy, a=nn.Linear(6, 4), b=nn.Linear(4, 2)), (6,))
    (line,) = said
    assert "a.weight (24 of 24 weights)" in line and "dead in the dense network" in line and line in wiring.notes


def test_layers_that_the_network_loses_are_named_with_their_number_of_weights():
    def forward(self, x):
        return self.last(F.pad(self.first(x), (0, 3)))

    wiring, said = traced(Net(forward, first=nn.Linear(3, 4), last=nn.Linear(7, 2)), (3,))
    assert said == ["last.weight (6 of 14 weights) are dead in the dense network: the trace or the network loses them"]
    assert said[0] in wiring.notes


def test_layers_on_which_no_output_depends_are_not_called_lost():
    net = Net(lambda s, x: {"logits": s.a(x), "hidden": s.b(x)}, a=nn.Linear(4, 3), b=nn.Linear(4, 2))
    assert not traced(net, (4,))[1]


def adds(self, x):
    return self.fc(x) + self.table


def writes(self, x):
    y = torch.zeros(x.shape[0], 3, 2)
    y[:, 1:] += self.table[1:]
    return self.fc(x) + y.sum(2)


@pytest.mark.parametrize("forward, shape", [(adds, (1, 3)), (writes, (3, 2))])
def test_parameters_in_no_layer_are_named(forward, shape):
    net = Net(forward, fc=nn.Linear(4, 3), table=nn.Parameter(torch.ones(shape)), unused=nn.Linear(4, 3))
    net.scale = nn.Parameter(torch.ones(3))
    wiring, said = traced(net, (4,))
    (line,) = said
    assert f"table {shape}" in line and "unused" not in line and "scale" not in line and line in wiring.notes


def test_every_parameter_is_in_a_layer_or_named():
    """Whatever is done with a matrix: it is a layer, or a warning and a note name it."""

    def odd(self, x):
        return x @ torch.linalg.matrix_exp(self.w)

    ways = [
        odd,
        lambda self, x: x @ torch.fft.fft(self.w).real,
        lambda self, x: x * self.w.diagonal(),
        lambda self, x: x + self.w.sum(0),
        lambda self, x: torch.cdist(x, self.w),
        lambda self, x: F.linear(x, self.w.sort(1).values),
    ]
    for way in ways:
        net = Net(lambda s, x, way=way: s.fc(way(s, x)), w=nn.Parameter(torch.ones(4, 4)), fc=nn.Linear(4, 2))
        wiring, said = traced(net, (4,))
        named = [line for line in said if " w (4, 4)" in line and line in wiring.notes]
        assert "w" in wiring.names or named, (way, said)


@pytest.mark.parametrize(
    "conv, side, says",
    [
        (nn.Conv2d(2, 3, 3, padding=1), 1, "(1x1) are smaller than its kernel (3x3); 8 of 9 places"),
        (nn.Conv2d(2, 3, 3, padding=1), 2, "(2x2) are smaller than its kernel (3x3)"),
        (nn.Conv2d(2, 3, 3, padding=2, dilation=2), 2, "(2x2) are smaller than its kernel (3x3); 8 of 9 places"),
        (nn.Conv2d(2, 3, 3, padding="same"), 1, "8 of 9 places"),
        (nn.Conv2d(2, 3, 3, padding=1), 3, None),
        (nn.Conv2d(2, 3, 3, stride=2), 3, None),
    ],
)
def test_maps_smaller_than_their_kernel_are_a_note(conv, side, says):
    """The places that meet padding alone are those whose weights have no gradient."""
    wiring, said = traced(nn.Sequential(conv), (2, side, side))
    assert not said and [says in note for note in wiring.notes] == [True] * (says is not None)
    conv(torch.ones(1, 2, side, side)).sum().backward()
    dead = int((conv.weight.grad[0, 0] == 0).sum())
    assert dead == (8 if says and "places" in says else 0)


@pytest.mark.parametrize("seed", range(60))
def test_dead_when_dense_is_what_a_walk_over_dense_masks_finds(seed):
    """Random wirings with missing units, groups, parts of parameters, gates and scores."""
    rng = np.random.default_rng(seed)
    count, steps = int(rng.integers(2, 6)), []
    inputs = np.arange(count, dtype=np.int32)

    def some(n):
        return np.where(rng.random(n) < 0.3, -1, rng.integers(0, count, n)).astype(np.int32)

    for at in range(int(rng.integers(2, 7))):
        kind = rng.choice(["layer", "layer", "add", "gate", "score"])
        if kind == "layer":
            groups, out, into, k = (int(n) for n in rng.integers(1, 4, 4))
            part = np.flatnonzero(rng.random(out) < 0.7).astype(np.int32)
            part = part if groups == 1 and part.size and rng.random() < 0.5 else None
            shape = (out * groups, into, k)
            steps.append(Layer(f"w{at}", shape, some(into * groups), count, groups=groups, rows=part))
        else:
            width = int(rng.integers(1, 3)) if kind == "score" else 1
            n = int(rng.integers(1, 4)) * width
            steps.append(Join(str(kind), (some(n), some(n)), count, width))
        count = steps[-1].stop
    outputs = np.unique(rng.integers(steps[-1].start, count, 2)).astype(np.int32)
    wiring = Wiring(inputs, tuple(steps), outputs)
    found = naive_reach.effective(wiring, {})
    expected = {}
    for layer in wiring.layers:
        rows, columns = layer.part
        inside = found[layer.name][rows][:, columns]
        if not inside.all():
            expected[layer.name] = int((~inside).sum())
    assert dead_when_dense(wiring) == expected


def by_data(self, x):
    x = self.a(x) if x.sum() > 0 else self.b(x)
    return self.o(x)


def test_masks_of_the_branch_not_taken_are_reported_and_left_aside():
    net = Net(by_data, a=nn.Linear(4, 4), b=nn.Linear(4, 4), o=nn.Linear(4, 2))
    wiring, _ = traced(net, (4,))
    (taken,) = {"a.weight", "b.weight"} & set(wiring.names)
    (other,) = {"a.weight", "b.weight"} - set(wiring.names)
    assert wiring.unused == (other,) and "follows one way through the model" in wiring.notes[0]
    assert Wiring.from_json(wiring.to_json()).unused == wiring.unused
    masks = {name: np.ones(p.shape, bool) for name, p in net.named_parameters() if p.dim() > 1}
    report = topo.analyze(masks, wiring, metrics="paths")
    said = f"masks of layers that the traced way through the model does not use: {other} (16 parameters)"
    assert said in [note["note"] for note in report.notes]
    assert report.network["kept"] == 24 and {row["layer"] for row in report.layers} == {taken, "o.weight"}
    with pytest.raises(topo.TopoError, match=r"'c\.weight'"):
        topo.analyze({**masks, "c.weight": np.ones((4, 4))}, wiring)


NOWHERE = {
    "a sum": (lambda s, x: s.c(s.a(x) + s.b(x)), "q a b + c"),
    "one layer twice": (lambda s, x: s.c(s.c(s.a(x) + s.b(x))), "q a b + c"),
    "a chain": (lambda s, x: s.d(s.c(s.b(x))) + s.a(x), "q b c d a"),
    "a gate": (lambda s, x: s.d(torch.sigmoid(s.a(x)) * s.b(x)), "q a b + + d"),
    "behind a layer that is used": (lambda s, x: s.c(s.q(x) + s.a(x)), "q q a + c"),
    "parts": (lambda s, x: s.c(torch.cat([s.a(x)[:, :1], s.b(x)[:, :2]], 1)), "q a b c"),
    "a recurrence": (lambda s, x: s.c(torch.tanh(s.a(x) + s.c(torch.tanh(s.a(x[:, [1, 0, 2, 3]]))))), "q a a c"),
}


@pytest.mark.parametrize("branch", NOWHERE)
def test_layers_that_lead_nowhere_stay_with_what_leads_to_them(branch):
    """A layer keeps a use though nothing reads it, so that its mask has a place: all that this use reads is made."""
    run, steps = NOWHERE[branch]
    parts = {name: nn.Linear(4, 3) for name in "abq"} | {name: nn.Linear(3, 3) for name in "cd"}
    wiring, _ = traced(Net(lambda s, x: s.q(x) + 0 * run(s, x), **parts), (4,))
    assert [step.name[0] if isinstance(step, Layer) else "+" for step in wiring.steps] == steps.split()
    masks = {name: np.ones(wiring.shapes[name], bool) for name in wiring.names}
    assert topo.analyze(masks, wiring, metrics="paths").network["effective_params"] == 12


@pytest.mark.parametrize("lengths", [(3, 3), (3, 2)])
def test_packed_sequences_of_several_lengths_are_added_up_and_told(lengths):
    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
        return self.o(self.r(packed)[1][0][0])

    net = Net(forward, r=nn.LSTM(2, 2, batch_first=True), o=nn.Linear(2, 1))
    wiring = topo.trace(net, args=[torch.ones(2, 3, 2)])
    assert any("packed sequences of 2 to 3 steps" in note for note in wiring.notes) == (lengths == (3, 2))


@pytest.mark.parametrize(
    "between, reads",
    [
        (lambda y: y.cumsum(-1), [-1, 2, 2]),
        (lambda y: y.flip(-1), [-1, 2, -1]),
        (lambda y: y.roll(1, -1), [-1, -1, 2]),
        (lambda y: y.roll(1, 1) ** 2, [-1, 2, -1]),
    ],
)
def test_one_unit_among_zeros_lies_along_the_features_that_are_read_next(between, reads):
    net = Net(lambda s, x: s.o(between(F.pad(x[..., 2:3], (1, 1)))), o=nn.Linear(3, 2))
    wiring, _ = traced(net, (3, 4))
    assert wiring.layers[-1].reads.tolist() == reads
