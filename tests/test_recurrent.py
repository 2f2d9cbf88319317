"""Recurrent layers: weights against gradients, paths against those of the loop written by hand, masks on them."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from test_trace_sources import Net, compare
from torch import nn
from torch.nn.utils import prune

import topo
from topo.errors import TraceError
from topo.graph import build_graph, paths
from topo.masks import MaskSet

torch.set_num_threads(1)


def last(s, x):
    return s.o(s.r(x)[0][:, -1])


def every(s, x):
    return s.o(s.r(x)[0])


def net(kind, forward=last, both=False, **more):
    return lambda: Net(
        forward, r=kind(4, 6, batch_first=True, bidirectional=both, **more), o=nn.Linear(12 if both else 6, 3)
    )


KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@pytest.mark.parametrize("layers, both", [(1, False), (2, False), (1, True), (2, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_effective_weights_are_those_with_a_gradient(kind, layers, both):
    wiring = compare(
        net(KINDS[kind], every if both else last, both, num_layers=layers), (2, 3, 4), densities=(0.5, 0.25)
    )
    assert {name for name in wiring.names if "_hh_" in name} == {
        f"r.weight_hh_l{k}{end}" for k in range(layers) for end in (("", "_reverse") if both else ("",))
    }
    assert any("over the 3 steps" in note for note in wiring.notes)


def test_other_forms():
    """The last state, a projected state, time first, no biases, a state that is given, one step."""
    compare(lambda: Net(lambda s, x: s.o(s.r(x)[1][0][-1]), r=nn.LSTM(4, 6), o=nn.Linear(6, 3)), (3, 2, 4))
    compare(lambda: Net(last, r=nn.LSTM(4, 7, batch_first=True, proj_size=6), o=nn.Linear(6, 3)), (2, 3, 4))
    compare(net(nn.GRU, bias=False), (2, 3, 4))
    compare(net(nn.RNN, nonlinearity="relu"), (2, 3, 4))
    compare(net(nn.GRU), (2, 1, 4))

    def with_state():
        return Net(lambda s, x, h: s.o(s.r(x, h)[0][:, -1]), r=nn.GRU(4, 6, batch_first=True), o=nn.Linear(6, 3))

    wiring = compare(with_state, (2, 3, 4), (1, 2, 6))
    assert len(wiring.inputs) == 4 + 6


def cells(kind):
    def forward(s, x):
        h = None
        for t in range(x.shape[1]):
            h = s.r(x[:, t], h)
        return s.o(h[0] if isinstance(h, tuple) else h)

    return lambda: Net(forward, r=kind(4, 6), o=nn.Linear(6, 3))


PAIRS = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell), "rnn": (nn.RNN, nn.RNNCell)}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_layer_and_a_loop_over_its_cell_are_the_same_network(kind):
    """Effective weights against gradients, and exact paths of both ways of writing it, at several lengths."""
    whole, cell = PAIRS[kind]
    compare(cells(cell), (2, 3, 4), densities=(0.5, 0.25))
    for length in (1, 2, 5):
        one, other = topo.trace(net(whole)(), (length, 4)), topo.trace(cells(cell)(), (length, 4))
        rng = np.random.default_rng(0)
        masks = {name: rng.random(shape) < 0.4 for name, shape in one.shapes.items()}
        renamed = {name.removesuffix("_l0"): mask for name, mask in masks.items()}
        counts = [paths.exact_paths(build_graph(MaskSet(m), w)) for m, w in ((masks, one), (renamed, other))]
        assert counts[0] == counts[1] > 0


def test_paths_of_a_plain_network_are_the_powers_of_its_matrix():
    """sum over t of |O| |H|^(T - t) |I|, entries counted: exact integers, in both directions, and in floats."""
    length = 40
    wiring = topo.trace(net(nn.RNN)(), (length, 4))
    rng = np.random.default_rng(1)
    masks = {name: rng.random(shape) < 0.6 for name, shape in wiring.shapes.items()}
    i, h, o = (masks[name].astype(int).astype(object) for name in ("r.weight_ih_l0", "r.weight_hh_l0", "o.weight"))
    state = i.sum(1) * 0
    for _ in range(length):
        state = i.sum(1) + h @ state
    expected = int((o @ state).sum())
    graph = build_graph(MaskSet(masks), wiring)
    assert paths.exact_paths(graph) == paths.exact_paths(graph, direction="backward") == expected > 10**15
    mantissa, exponent = paths.counts(graph).forward_total()
    assert mantissa * 2.0**exponent == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_on_recurrent_layers_are_exact_zeros_and_used(kind):
    torch.manual_seed(0)
    model = net(KINDS[kind], num_layers=2)()
    wiring = topo.trace(model, (3, 4))
    masks = topo.generate("erk", wiring, density=0.3, rng=0)
    x = torch.rand(2, 3, 4)
    zeroed = net(KINDS[kind], num_layers=2)()
    zeroed.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, p in zeroed.named_parameters():
            if name in masks:
                p.mul_(torch.from_numpy(np.asarray(masks[name])))
    dense = model(x)
    topo.apply_masks(model, masks)
    assert torch.equal(model(x), zeroed(x)) and not torch.equal(model(x), dense)
    step = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        step.zero_grad()
        model(x).square().sum().backward()
        step.step()
    assert not torch.equal(model(x), zeroed(x))
    for name in masks:
        module, _, attribute = name.rpartition(".")
        held = getattr(model.get_submodule(module), attribute)
        assert not held[~torch.from_numpy(np.array(masks[name]))].any()
    masked = model(x)
    topo.strip_masks(model)
    assert torch.equal(model(x), masked)
    assert all(not p[~torch.from_numpy(np.array(masks[n]))].any() for n, p in model.named_parameters() if n in masks)


def test_pruned_by_torch_and_trained_by_topo(tmp_path):
    """Names and reads under torch.nn.utils.prune; masks that stay through topo's own training loop."""
    plain, pruned = net(nn.LSTM, num_layers=2)(), net(nn.LSTM, num_layers=2)()
    for name in ("weight_ih_l0", "weight_hh_l1"):
        prune.random_unstructured(pruned.r, name, amount=0.5)
    one, other = topo.trace(plain, (3, 4)), topo.trace(pruned, (3, 4))
    assert one.shapes == other.shapes and one.names == other.names
    assert all(np.array_equal(a, b) for x, y in zip(one.steps, other.steps) for a, b in zip(x.operands, y.operands))
    rows = Net(lambda s, x: s.o(s.r(x[:, 0])[0][:, -1]), r=nn.GRU(8, 6, batch_first=True), o=nn.Linear(6, 10))
    masks = topo.generate("erk", topo.trace(rows, (1, 8, 8)), density=0.3, rng=0)
    run = topo.train(rows, "digits", masks=masks, recipe="quick", epochs=1, out=tmp_path / "run")
    assert run is not None and not topo.verify_masks(rows, masks)


@pytest.mark.parametrize("method", ["random", "er", "balance", "configuration"])
def test_generators_make_masks_for_recurrent_layers(method):
    wiring = topo.trace(net(nn.LSTM, num_layers=2)(), (5, 4))
    more = {"source": topo.generate("random", wiring, density=0.4, rng=0)} if method == "configuration" else {}
    density = {} if more else {"density": 0.4}
    masks = topo.generate(method, wiring, rng=0, **density, **more)
    assert masks.density == pytest.approx(0.4, abs=0.01)
    report = topo.analyze(masks, wiring)
    assert report.network["effective_params"] > 0


def by_hand(s, x):
    h = torch.zeros(x.shape[0], 8)
    for t in range(x.shape[1]):
        h = torch.tanh(s.i(x[:, t]) + s.h(h))
    return h


def test_a_sequence_that_is_too_long_is_one_line_with_the_way_out(monkeypatch):
    lstm = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
    with pytest.raises(
        TraceError, match=r"over the 100,000 steps of the example, 400,000 in its 4 .* 512 steps or fewer"
    ):
        topo.trace(lstm, (100_000, 6))
    monkeypatch.setattr(import_module("topo.trace.capture"), "MOST_OPERATIONS", 50)
    with pytest.raises(
        TraceError, match=r"shape \(1, 100, 6\), calls more than 50 operations.* shorter example"
    ) as caught:
        topo.trace(Net(by_hand, i=nn.Linear(6, 8), h=nn.Linear(8, 8)), (100, 6))
    assert "\n" not in str(caught.value)


def test_what_torch_asks_while_it_captures_is_no_operation(monkeypatch):
    """Ten layers are forty operations, whatever is asked of their strides: a net of 500 was refused as a long loop."""
    monkeypatch.setattr(import_module("topo.trace.capture"), "MOST_OPERATIONS", 80)
    assert len(topo.trace(topo.models.build("mlp:" + "-".join(["4"] * 11))).names) == 10
