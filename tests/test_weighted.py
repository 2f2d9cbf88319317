"""Path norm, path-kernel trace and synaptic flow: against enumerated paths, autograd, and networks of any scale."""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
import topo
import toys
from naive.weighted import WeightedNet, exact_flow, exact_trace, log10
from topo.errors import TopoError
from topo.graph import build_graph, floating
from topo.graph.floating import Floating
from topo.masks import MaskSet
from topo.metrics import GROUPS, chosen, metrics, weighted
from topo.wiring import Join, Layer, Wiring, chain

pytestmark = pytest.mark.kernels

NAMES = ("path_norm", "path_kernel_trace", "synflow_flow")
ALL = [name for each in NAMES for name in (each, f"log10_{each}")]

WIRINGS = {
    "chain": toys.complete(2, 3, 3, 2)[1],
    "residual": toys.residual(width=2, blocks=2, kernel=2, inputs=2, classes=2),
    "branching": toys.branching(),
    "gated": toys.gated(),
    "sliced": toys.sliced(),
    "words": toys.embedded(),
}


def drawn(masks: MaskSet, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: scale * rng.standard_normal(shape) for name, shape in masks.shapes.items()}


def numbers(masks: MaskSet, wiring: Wiring, weights, **how) -> dict[str, float]:
    return dict(topo.analyze(masks, wiring, metrics="weighted", weights=weights, **how).network)


# Definitions.


@pytest.mark.small
@pytest.mark.parametrize("density, seed", [(0.6, 0), (0.4, 1), (0.2, 3), (0.0, 0)])
@pytest.mark.parametrize("name", WIRINGS)
def test_equal_to_enumerated_paths(name: str, density: float, seed: int) -> None:
    """In every view: groups, flattened and padded inputs, gates, skips, a parameter used twice, weights of 0."""
    wiring = WIRINGS[name]
    masks = toys.sparse(wiring, density if name != "branching" else 0.6 * density, seed)
    weights = drawn(masks, seed)
    weights[next(iter(weights))].flat[::3] = 0.0
    net = WeightedNet(masks, wiring, weights)
    expected = {metric: naive.twin(metric)(net) for metric in ALL}
    for view in ("channel", "unit", "kernel"):
        assert numbers(masks, wiring, weights, view=view) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.small
@pytest.mark.parametrize("name", WIRINGS)
def test_weights_of_one_count_paths(name: str) -> None:
    masks = toys.sparse(WIRINGS[name], 0.5, 2)
    report = topo.analyze(masks, WIRINGS[name], metrics="weighted,effective_paths", weights=dict(masks))
    count = report.network["effective_paths"]
    assert count > 0
    assert report.network["path_norm"] == report.network["synflow_flow"] == count
    # Every path of a chain crosses each of its layers once.
    if name == "chain":
        assert report.network["path_kernel_trace"] == len(masks) * count


@pytest.mark.small
def test_known_numbers() -> None:
    """(2 + 3) * 5 and, per edge, what stands beside it, squared: 5**2 twice and 2**2 + 3**2."""
    masks = MaskSet({"a": np.ones((1, 2)), "b": np.ones((1, 1))})
    found = numbers(masks, chain(masks), {"a": np.array([[2.0, -3.0]]), "b": np.array([[-5.0]])})
    assert found["path_norm"] == found["synflow_flow"] == 25.0
    assert found["path_kernel_trace"] == 2 * 25.0 + 13.0
    assert found["log10_path_norm"] == pytest.approx(math.log10(25))


@pytest.mark.small
@given(seed=st.integers(0, 10**6), c=st.floats(1e-100, 1e100))
def test_rescaling_a_hidden_unit_keeps_the_path_norm(seed: int, c: float) -> None:
    masks = toys.sparse(toys.complete(3, 4, 3, 2)[1], 0.7, seed)
    wiring, weights = chain(masks), drawn(masks, seed)
    before = numbers(masks, wiring, weights)
    weights["fc1"][1] *= c
    weights["fc2"][:, 1] /= c
    after = numbers(masks, wiring, weights)
    assert after["log10_path_norm"] == pytest.approx(before["log10_path_norm"], rel=1e-12, abs=1e-12)


@pytest.mark.small
def test_relabelling_hidden_units_changes_nothing_and_pruned_weights_do_not_count() -> None:
    masks = toys.sparse(toys.complete(5, 7, 4)[1], 0.5, 1)
    weights, order = drawn(masks), np.random.default_rng(0).permutation(7)
    moved = MaskSet({"fc1": masks["fc1"][order], "fc2": masks["fc2"][:, order]})
    noise = {name: np.where(masks[name], weights[name], 1e9) for name in masks}
    there = {"fc1": noise["fc1"][order], "fc2": noise["fc2"][:, order]}
    one, two = numbers(masks, chain(masks), weights), numbers(moved, chain(moved), there)
    assert two == pytest.approx(one, rel=1e-13)


@pytest.mark.small
def test_trace_by_finite_differences() -> None:
    """R2 is linear in each theta**2 of a network without shared parameters: a difference of any size is exact."""
    wiring = toys.residual(width=2, blocks=1, kernel=2, inputs=2, classes=2)
    masks = toys.sparse(wiring, 0.5, 4)
    squares = {name: values**2 for name, values in drawn(masks).items()}
    net = {name: np.where(masks[name], squares[name], 0.0) for name in masks}
    base, total = numbers(masks, wiring, net)["path_norm"], 0.0
    for name in masks:
        for place in zip(*np.nonzero(masks[name])):
            more = {**net, name: net[name].copy()}
            more[name][place] += 0.5
            total += (numbers(masks, wiring, more)["path_norm"] - base) / 0.5
    found = numbers(masks, wiring, {name: np.sqrt(values) for name, values in net.items()})
    assert found["path_kernel_trace"] == pytest.approx(total, rel=1e-9)


def test_equal_to_autograd_and_to_the_pruner_on_models_without_pixels() -> None:
    """SynFlow's R of a residual network of 1 x 1 images: its scores of a layer that all paths cross sum to R."""
    torch = pytest.importorskip("torch")
    from topo.pruners import pruners
    from topo.pruners.network import working_copy

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = torch.nn.Conv2d
            self.stem, self.mid = conv(3, 8, 1, bias=False), conv(8, 8, 1, groups=4, bias=False)
            self.side, self.fc = conv(8, 8, 1, bias=False), torch.nn.Linear(8, 5, bias=False)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = x + torch.relu(self.side(torch.relu(self.mid(x))))
            return self.fc(x.flatten(1))

    torch.manual_seed(0)
    model, shape = Residual().double(), (3, 1, 1)
    wiring = topo.trace(model, shape)
    masks, state = toys.sparse(wiring, 0.6, 0), model.state_dict()
    weights = {name: np.where(masks[name], state[name].numpy(), 0.0) for name in masks}
    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    found = numbers(masks, wiring, weights)

    def flow(method: str):
        net = working_copy(model, "float64", shape)
        pruners[method].prepare(net.module, rng=None)
        return net, net.module(torch.ones(1, *shape, dtype=torch.float64)).sum()

    net, flow_of_ones = flow("synflow")
    assert found["synflow_flow"] == found["path_norm"] == pytest.approx(flow_of_ones.item(), rel=1e-12)
    scores = pruners["synflow"].score(net, (), rng=None)
    assert scores["stem.weight"].sum().item() == pytest.approx(found["synflow_flow"], rel=1e-12)
    net, flow_of_squares = flow("synflow_l2")
    slopes = dict(zip(net.weights, net.derivative(flow_of_squares)))  # with respect to theta**2
    trace = sum(float((slopes[name].numpy() * masks[name]).sum()) for name in masks)
    assert found["path_kernel_trace"] == pytest.approx(trace, rel=1e-12)


# Scales.


@pytest.mark.small
@pytest.mark.parametrize("size", [1e-3, 1e3, 1e-300, 1e300])
def test_two_hundred_layers(size: float) -> None:
    """Width 3: 3**201 paths of size**200, which no float holds; log10 does."""
    masks, wiring = toys.complete(*[3] * 201)
    weights = {name: np.full((3, 3), -size) for name in masks}
    report = topo.analyze(masks, wiring, metrics="weighted", weights=weights)
    flow = 3**201 * Fraction(size) ** 200
    trace = 200 * 3**201 * Fraction(size) ** 398
    for name, exact in zip(NAMES, (flow, trace, flow)):
        assert report.network[f"log10_{name}"] == pytest.approx(log10(exact), rel=1e-13)
        assert math.isnan(report.network[name])
        assert any(n["metric"] == name and f"see log10_{name}" in n["note"] for n in report.notes)
    held = json.loads(report.to_json())["reports"][0]["network"]
    assert held["path_norm"] is None and math.isfinite(held["log10_path_norm"])


@pytest.mark.small
def test_a_stream_that_is_small_half_way_is_not_lost() -> None:
    """Two streams, 1e3 then 1e-3 and the other way round: 1e600 apart in the middle, equal at the end."""
    masks = MaskSet({f"fc{k}": np.eye(2) for k in range(200)})
    first, second = np.diag([1e3, 1e-3]), np.diag([1e-3, 1e3])
    weights = {name: first if k < 100 else second for k, name in enumerate(masks)}
    found, net = numbers(masks, chain(masks), weights), WeightedNet(masks, chain(masks), weights)
    assert found["path_norm"] == pytest.approx(2.0, rel=1e-9)
    assert found["path_norm"] == pytest.approx(float(exact_flow(net)), rel=1e-13)
    assert found["log10_path_kernel_trace"] == pytest.approx(log10(exact_trace(net)), rel=1e-13)


@pytest.mark.small
@pytest.mark.parametrize("groups", [1, 2])
def test_weights_of_every_size_in_one_layer(groups: int) -> None:
    """Subnormal to the largest: squares of neither fit in a float, and paths of both meet."""
    sizes = np.array([5e-324, 1e-310, 1e-160, 1e-80, 1.0, 1e80, 1e160, 1.7e308])
    rng = np.random.default_rng(groups)
    steps, start = [], 4
    for k in range(3):
        steps.append(Layer(f"{k}", (4, 4 // groups, 2, 1), np.arange(start - 4, start), start, "conv", groups=groups))
        start += 4
    wiring = Wiring(np.arange(4), tuple(steps), np.arange(start - 4, start))
    for seed in range(4):
        masks = toys.sparse(wiring, 0.5, seed)
        weights = {name: rng.choice(sizes, shape) for name, shape in masks.shapes.items()}
        net, found = WeightedNet(masks, wiring, weights), numbers(masks, wiring, weights)
        assert net.paths
        assert found["log10_path_norm"] == pytest.approx(log10(exact_flow(net)), rel=1e-12)
        assert found["log10_path_kernel_trace"] == pytest.approx(log10(exact_trace(net)), rel=1e-12)


@pytest.mark.small
@pytest.mark.parametrize("groups", [1, 4])
def test_pieces_of_a_layer_add_up(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = Wiring(
        np.arange(8), (Layer("a", (12, 8 // groups, 3, 3), np.arange(8), 8, "conv", groups=groups),), np.arange(8, 20)
    )
    masks = toys.sparse(wiring, 0.4)
    weights = drawn(masks)
    whole = numbers(masks, wiring, weights)
    monkeypatch.setattr(weighted, "_SLAB", 50)
    assert numbers(masks, wiring, weights) == pytest.approx(whole, rel=1e-14)
    kept = np.where(masks["a"], np.abs(weights["a"]), 0.0)
    assert whole["path_norm"] == pytest.approx(kept.sum(), rel=1e-13)
    assert whole["path_kernel_trace"] == masks.kept


@pytest.mark.small
def test_powers_of_a_layer_are_matrices() -> None:
    rng = np.random.default_rng(0)
    masks = MaskSet({"a": rng.random((5, 4, 2, 2)) < 0.5})
    block, w = build_graph(masks).blocks[0], rng.standard_normal((5, 4, 2, 2))
    x, b = rng.random(4), rng.random(5)
    for power in (0, 1, 2):
        matrix = (np.abs(w) ** power * masks["a"]).sum(axis=(2, 3))
        edges = weighted.Powers(block, w, power)
        for made, expected in ((edges.pull(Floating(x)), matrix @ x), (edges.push(Floating(b)), matrix.T @ b)):
            assert np.ldexp(made.mantissa, made.exponent) == pytest.approx(expected, rel=1e-14)


@pytest.mark.small
def test_bands_hold_every_entry_once() -> None:
    values = np.array([0.0, 5e-324, 1e-310, 1e-200, 1.0, 3.0, 1e200, 1.7e308])
    pieces = list(floating.bands(values))
    assert 2 < len(pieces) < 12 and list(floating.bands(np.zeros(3))) == []
    total = [sum(Fraction(float(band[i])) * Fraction(2) ** e for band, e in pieces) for i in range(len(values))]
    assert total == [Fraction(float(v)) for v in values]
    assert all(((band == 0) | (band >= 2.0**-floating.SQUARED)).all() and band.max() < 1 for band, _ in pieces)
    far = Floating(np.array([0.75, 0.5, 0.0, 0.5]), np.array([10_000, -10_000, 0, 9_700]))
    found = list(far.bands())
    assert [e for _, e in found] == [10_000, -10_000]
    assert found[0][0].tolist() == [0.75, 0.0, 0.0, 2.0**-301] and found[1][0].tolist() == [0.0, 0.5, 0.0, 0.0]


# Undefined, and how they are asked for.


@pytest.mark.small
def test_undefined_with_the_reason() -> None:
    wiring = toys.residual(width=2, blocks=1, kernel=2, inputs=2, classes=2)
    masks = toys.sparse(wiring, 0.5, 0)
    weights = drawn(masks)
    partial = toys.sparse(wiring, 0.5, 0, leave_out=("fc",))
    broken = {**weights, "fc": np.full((2, 2), np.inf)}
    alone = MaskSet({"a": np.ones((2, 3)), "b": np.ones((2, 5))})
    whole = MaskSet({**partial, "fc": np.ones_like(masks["fc"])})
    assert numbers(partial, wiring, weights) == numbers(whole, wiring, weights)
    cases = {
        "needs weights": topo.analyze(masks, wiring, metrics=ALL),
        "there are none of stem": topo.analyze(
            masks, wiring, metrics=ALL, weights={k: v for k, v in weights.items() if k != "stem"}
        ),
        "there are none of fc": topo.analyze(
            partial, wiring, metrics=ALL, weights={k: v for k, v in weights.items() if k != "fc"}
        ),
        "not all finite numbers: fc": topo.analyze(masks, wiring, metrics=ALL, weights=broken),
        "needs the network's wiring": topo.analyze(alone, metrics=ALL, weights=drawn(alone)),
    }
    for reason, report in cases.items():
        assert list(report.network) == ALL
        for name in ALL:
            assert math.isnan(report.network[name])
            assert [n["note"] for n in report.notes if n["metric"] == name and reason in n["note"]], (reason, name)


@pytest.mark.small
def test_nothing_is_zero_with_a_reason() -> None:
    masks, wiring = toys.complete(2, 2, 2, 2)
    weights = drawn(masks)
    cut = {**weights, "fc2": np.zeros((2, 2))}
    graph = build_graph(masks, wiring, weights=cut)
    assert metrics["network:path_norm"](graph).number == 0
    logarithm = metrics["network:log10_path_norm"](graph)
    assert logarithm.number == -math.inf and logarithm.note == "every path crosses weights of 0"
    # The weights of 0 have derivatives, the others have none.
    ahead, behind = np.square(weights["fc1"]).sum(axis=1), np.square(weights["fc3"]).sum(axis=0)
    expected = ahead.sum() * behind.sum()
    assert metrics["network:path_kernel_trace"](graph).number == pytest.approx(expected, rel=1e-13)
    none = MaskSet({name: masks[name] & (name != "fc2") for name in masks})
    empty = build_graph(none, wiring, weights=weights)
    for name in NAMES:
        assert metrics[f"network:{name}"](empty).number == 0
        logarithm = metrics[f"network:log10_{name}"](empty)
        assert logarithm.number == -math.inf and "no path" in logarithm.note


@pytest.mark.small
def test_gates_open_by_the_mask_and_embeddings_without_one_start_paths() -> None:
    wiring = toys.gated()
    masks = MaskSet({name: np.ones(shape) for name, shape in wiring.shapes.items()})
    weights = drawn(masks)
    found = numbers(masks, wiring, weights)
    other = numbers(masks, wiring, {**weights, "query": np.zeros((4, 4)), "gate": 7 * weights["gate"]})
    assert other == pytest.approx(found)
    closed = MaskSet({name: masks[name] & (name != "gate") for name in masks})
    assert numbers(closed, wiring, weights)["path_norm"] == 0
    head = MaskSet({"head": np.ones((2, 3))})
    values = drawn(head)
    found = numbers(head, toys.embedded(), values)
    assert found["path_norm"] == pytest.approx(np.abs(values["head"]).sum())
    assert found["path_kernel_trace"] == 6


@pytest.mark.small
def test_the_group() -> None:
    assert GROUPS[-1] == "weighted"
    assert [entry.name for entry in chosen("weighted")] == ALL
    assert [entry.name for entry in chosen("weighted", weights=False)] == ALL
    assert not {entry.name for entry in chosen("all", weights=False)} & set(ALL)
    assert set(ALL) <= {entry.name for entry in chosen("all")}
    with pytest.raises(TopoError, match="did you mean 'weighted"):
        chosen("weightd")


@pytest.mark.small
def test_half_precision_and_whole_numbers() -> None:
    masks = MaskSet({"a": np.ones((2, 2)), "b": np.ones((1, 2))})
    for kind in (np.float16, np.float32, np.int8):
        weights = {"a": np.full((2, 2), 100, kind), "b": np.full((1, 2), -128, kind)}
        assert numbers(masks, chain(masks), weights)["path_norm"] == 4 * 100 * 128


@pytest.mark.small
def test_additions_sum_their_branches() -> None:
    """stem, then a skip and a branch: 2 * (1 + 3) * 5."""
    wiring = Wiring(
        np.arange(1),
        (
            Layer("stem", (1, 1), np.array([0]), 1),
            Layer("branch", (1, 1), np.array([1]), 2),
            Join("add", (np.array([1]), np.array([2])), 3),
            Layer("head", (1, 1), np.array([3]), 4),
        ),
        np.array([4]),
    )
    masks = MaskSet({name: np.ones((1, 1)) for name in wiring.names})
    found = numbers(masks, wiring, {"stem": [[2.0]], "branch": [[-3.0]], "head": [[5.0]]})
    assert found["path_norm"] == 40.0
    assert found["path_kernel_trace"] == pytest.approx(10 * 25 + 4 * 25 + 4 * 10)


def test_weights_are_arrays_by_name() -> None:
    masks, wiring = toys.complete(3, 2)
    with pytest.raises(TopoError, match=r"weights are arrays by parameter name, not 'w\.npz'; topo\.read_weights"):
        topo.analyze(masks, wiring, weights="w.npz")


def test_tensors_of_input_first_layers_are_parameters(tmp_path) -> None:
    """A square layer does not show how it is stored: a tensor is the parameter, an array is laid out as the mask."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 1), torch.nn.ConvTranspose2d(4, 4, 1), torch.nn.Conv2d(4, 3, 1))
    wiring = topo.trace(model, (2, 1, 1))
    masks = topo.generate("random", wiring, density=0.6, rng=1)
    net = topo.strip_masks(topo.apply_masks(copy.deepcopy(model), masks))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(parameter.abs() if name.endswith("weight") else torch.zeros_like(parameter))
        total = float(net.double()(torch.ones(1, 2, 1, 1, dtype=torch.float64)).sum())

    def norm(masks: MaskSet, **more) -> float:
        return topo.analyze(masks, wiring, metrics="path_norm", **more).network["path_norm"]

    state = model.state_dict()
    assert norm(masks, weights=state) == pytest.approx(total, rel=1e-6)
    arrays = {name: state[name].numpy() for name in masks}
    turned = {**arrays, "1.weight": arrays["1.weight"].swapaxes(0, 1)}
    assert norm(masks, weights=turned) == pytest.approx(total, rel=1e-6)
    assert norm(masks, weights=arrays) != pytest.approx(total, rel=1e-3)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    topo.write_masks(masks, tmp_path / "m.safetensors")
    for found in (masks, topo.read_masks(tmp_path / "m.safetensors")):
        for net_of in (None, wiring):
            weights = topo.read_weights(tmp_path / "w.safetensors", found, net_of)
            assert norm(found, weights=weights) == pytest.approx(total, rel=1e-6)
