"""Scores that look at data or at noise: closed forms, finite differences, hand-made paths; layers kept dense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

import topo
from topo.errors import TopoError
from topo.quotas import budgets, quotas

torch = pytest.importorskip("torch")

from test_pruners import SHAPE, Small, batches, network, small  # noqa: E402

from topo.pruners import prune, pruners  # noqa: E402
from topo.pruners.degree_decay import degree_decay  # noqa: E402
from topo.pruners.network import Network, placed, read_batches  # noqa: E402
from topo.pruners.prospective import shared_out  # noqa: E402
from topo.pruners.tangent import moved_apart  # noqa: E402

nn = torch.nn


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain(positive: bool, seed: int = 0, sizes: tuple[int, ...] = (5, 6, 4, 3)) -> nn.Module:
    """A chain of linear layers with ReLU between them, without biases; float64."""
    draw = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        values = torch.randn(outputs, inputs, generator=draw, dtype=torch.float64)
        layer.weight.data = values.abs() if positive else values
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def seen(model: nn.Module, x: np.ndarray, classes: int = 3) -> tuple:
    from topo.pruners.network import working_copy

    net = working_copy(model, "float64", x.shape[1:])
    net.dense = {name: weight.detach().clone() for name, weight in net.weights.items()}
    return net, placed(read_batches([(x, np.arange(len(x)) % classes)], "px"), net)


# -- path exclusion


def test_px_with_every_gate_open_is_synflow_l2_times_the_sum_of_j() -> None:
    model, x = plain(positive=True), np.random.default_rng(0).random((7, 5)) + 0.1
    net, data = seen(model, x)
    found = pruners["px"].score(net, data, rng=None)
    again, _ = seen(model, x)
    pruners["synflow_l2"].prepare(again.module, rng=None)
    for name, scores in pruners["synflow_l2"].score(again, (), rng=None).items():
        torch.testing.assert_close(found[name], scores)  # J is one number for all classes: divided by its largest, 1


def test_px_counts_the_paths_that_data_open_by_hand() -> None:
    model, x = plain(positive=False, sizes=(3, 4, 2)), np.random.default_rng(1).standard_normal((5, 3))
    first, second = model[0].weight.data, model[2].weight.data
    second[0, :3] = 0  # pruned: one class has fewer open paths than the other
    net, data = seen(model, x, classes=2)
    found = pruners["px"].score(net, data, rng=None)
    opened = np.zeros(2)
    for row in x:
        gates = first.numpy() @ row > 0
        opened += [sum((row**2).sum() * gates[h] * bool(second[c, h] != 0) for h in range(4)) for c in range(2)]
    assert opened[0] != opened[1]
    expected = {"0.weight": np.zeros((4, 3)), "2.weight": np.zeros((2, 4))}
    for c in range(2):
        for h in range(4):
            for i in range(3):
                path = opened[c] / opened.max() * float(second[c, h] ** 2 * first[h, i] ** 2)
                expected["0.weight"][h, i] += path
                expected["2.weight"][c, h] += path
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-12)


def test_px_counts_paths_beyond_the_largest_float() -> None:
    model = plain(positive=True, sizes=(40, *[40] * 250, 3))
    with torch.no_grad():
        for part in model[::2]:
            part.weight /= 7  # squares sum to about 1: only the count of paths grows, to 40**250
    weights = {name: parameter for name, parameter in model.named_parameters()}
    net = Network(model, weights, weights, (40,), 0)
    found = pruners["px"].score(net, [(torch.ones(2, 40, dtype=torch.float64), torch.tensor([0, 1]))], rng=None)
    sums = [float(scores.sum()) for scores in found.values()]
    assert min(sums) > 0 and max(sums) == pytest.approx(min(sums))  # every layer is crossed by all paths


# -- NTK-SAP


def test_ntk_sap_of_a_linear_layer_is_its_closed_form() -> None:
    net, _ = seen(nn.Linear(5, 3, bias=False), np.zeros((2, 5)))
    draw = torch.Generator().manual_seed(3)
    drawn, moved = (torch.randn(3, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    x, apart = torch.randn(9, 5, generator=draw, dtype=torch.float64), drawn - moved
    (found,) = moved_apart(net, x, {"weight": drawn}, {"weight": moved})
    torch.testing.assert_close(found, 2 * (x @ apart.T).T @ x * apart)  # 2 sum_x ((A x)_i A_ij x_j)


def test_ntk_sap_is_the_derivative_of_the_distance_between_both_networks() -> None:
    net = network(small())
    with torch.no_grad():
        net.weights["a.weight"].view(-1)[:40] = 0  # pruned
    draw = torch.Generator().manual_seed(0)
    drawn = {n: torch.randn(w.shape, generator=draw, dtype=torch.float64) for n, w in net.weights.items()}
    moved = {n: w + 0.3 * torch.randn(w.shape, generator=draw, dtype=torch.float64) for n, w in drawn.items()}
    x = torch.randn(6, *SHAPE, generator=draw, dtype=torch.float64)
    slopes = dict(zip(net.weights, moved_apart(net, x, drawn, moved)))
    alive = {n: ((w != 0) | (net.dense[n] == 0)).double() for n, w in net.weights.items()}
    # A batch norm that keeps this batch's statistics of the unmoved network, variance unbiased as torch keeps it.
    stem = nn.functional.conv2d(x, drawn["stem.weight"], padding=1)
    mean, variance = stem.mean((0, 2, 3)), stem.var((0, 2, 3), unbiased=True)

    def apart(name: str, place: int, step: float) -> float:
        masks = {n: m.clone() for n, m in alive.items()}
        masks[name].view(-1)[place] += step
        made = []
        for weights in (drawn, moved):
            model = Small().double().eval()
            values = {n: w * masks[n] for n, w in weights.items()}
            values |= {"norm.running_mean": mean, "norm.running_var": variance}
            values |= {n: p for n, p in net.module.named_parameters() if n.endswith("bias")}
            model.load_state_dict({**model.state_dict(), **values})
            made.append(model(x))
        return float((made[0] - made[1]).detach().square().sum())

    for name in ("a.weight", "side.weight", "fc.weight"):
        for place in (0, 39, 5) if name == "a.weight" else (0, 7):
            expected = (apart(name, place, 1e-6) - apart(name, place, -1e-6)) / 2e-6
            assert float(slopes[name].reshape(-1)[place]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


# -- ProsPr


def test_prospr_without_steps_is_snip() -> None:
    data = batches(3)
    for mode in ("eval", "train"):
        first, second = (network(small()) for _ in range(2))
        for net in (first, second):
            net.module.train(mode == "train")
        given = placed(read_batches(data, "snip"), first)
        found = pruners["prospr"].score(first, given, rng=None, steps=0)
        for name, scores in pruners["snip"].score(second, given, rng=None).items():
            torch.testing.assert_close(found[name], scores, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 3])
def test_prospr_is_the_derivative_through_the_steps(steps: int) -> None:
    model = plain(positive=False, sizes=(4, 5, 3))
    model.insert(1, nn.Tanh())  # smooth
    rng = np.random.default_rng(2)
    data = [(rng.standard_normal((6, 4)), rng.integers(0, 3, 6)) for _ in range(steps + 1)]
    net, _ = seen(model, data[0][0])
    given = placed(read_batches(data, "prospr"), net)
    found = pruners["prospr"].score(net, given, rng=None, steps=steps, lr=0.5, momentum=0.9)

    def loss_after(name: str, place: tuple[int, int], step: float) -> float:
        weights = {n: w.detach().clone() for n, w in net.weights.items()}
        weights[name][place] *= 1 + step
        speed = {n: torch.zeros_like(w) for n, w in weights.items()}
        for number, (x, y) in enumerate(given):
            held = {n: w.clone().requires_grad_(True) for n, w in weights.items()}
            loss = nn.functional.cross_entropy(torch.func.functional_call(model, held, (x,)), y)
            if number == steps:
                return float(loss.detach())
            for (n, w), slope in zip(held.items(), torch.autograd.grad(loss, list(held.values()))):
                speed[n] = 0.9 * speed[n] + slope
                weights[n] = w.detach() - 0.5 * speed[n]
        raise AssertionError

    for name, place in (("0.weight", (1, 2)), ("0.weight", (4, 0)), ("3.weight", (2, 3))):
        expected = (loss_after(name, place, 1e-5) - loss_after(name, place, -1e-5)) / 2e-5
        assert float(found[name][place]) == pytest.approx(abs(expected), rel=1e-4)


def test_prospr_shares_out_all_examples_where_batches_are_few() -> None:
    data = [(torch.arange(7.0)[:, None], torch.arange(7)), (torch.arange(7.0, 10)[:, None], torch.arange(7, 10))]
    parts = shared_out(data, 3)
    assert [y.tolist() for _, y in parts] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert all(torch.equal(x[:, 0], y.float()) for x, y in parts)
    with pytest.raises(TopoError, match="10 examples; 11 batches"):
        shared_out(data, 11)


# -- GraSP-It, and the decay by degrees


def test_grasp_it_is_the_squared_gradient() -> None:
    net = network(small())
    data = placed(read_batches(batches(), "snip"), net)
    slopes = net.gradients(data)
    for name, scores in pruners["grasp_it"].score(net, data, rng=None).items():
        torch.testing.assert_close(scores, slopes[name] ** 2)


@pytest.mark.parametrize("groups", [1, 2])
def test_degree_decay_divides_by_the_degrees_of_both_ends(groups: int) -> None:
    rng = np.random.default_rng(groups)
    alive = rng.random((6, 4, 2)) < 0.4
    found = degree_decay(alive, groups, 0.1, 5.0)
    for out, channel, tap in np.ndindex(6, 4, 2):
        beside = [o for o in range(6) if o // (6 // groups) == out // (6 // groups)]
        k_in, k_out = alive[out].sum(), sum(alive[o, channel].sum() for o in beside)
        assert found[out, channel, tap] == pytest.approx((max(k_in, 1) * max(k_out, 1)) ** (-1 / 5))
    assert (degree_decay(alive, groups, 1.0, 5.0) == 1).all()


def test_degree_decay_keeps_units_that_magnitude_forgets() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 4))
    with torch.no_grad():
        model[0].weight[:20] *= 0.1  # half the units have small weights
    how = {"density": 0.1, "rounds": 20, "input_shape": (30,)}
    read = [
        int(prune("magnitude", model, **how, **more)["2.weight"].any(0).sum()) for more in ({}, {"degree_decay": 2})
    ]
    assert read[0] < 15 and read[1] > 30  # units that the last layer reads
    one = prune("magnitude", model, density=0.1, input_shape=(30,))
    assert one == prune(
        "magnitude", model, density=0.1, input_shape=(30,), degree_decay=2
    )  # the dense network: kappa 0


# -- dense layers


SHARED = [name for name in pruners if pruners[name].shared_ranking and name != "autosparse"]  # which needs a file


# Quotas share out the same way for every method: two of them try one.
@pytest.mark.parametrize(("method", "quota"), [*((m, "global") for m in SHARED), ("snip", "erk"), ("force", "erk")])
def test_scores_leave_layers_dense_within_the_budget(method: str, quota: str) -> None:
    how = {"batches": batches(), "input_shape": SHAPE, "rounds": 3, "dense": "stem.*, fc.weight"}
    masks = prune(method, small(), density=0.2, quota=quota, **how)
    assert masks.kept == round(0.2 * masks.size)
    assert masks["stem.weight"].all() and masks["fc.weight"].all() and not masks["b.weight"].all()
    assert masks.provenance["options"]["dense"] == "stem.*, fc.weight"


@pytest.mark.parametrize("method", ["uniform", "igq", "block", "smart_ratio"])
def test_generators_leave_layers_dense_within_the_budget(method: str) -> None:
    layers = list(topo.generate("uniform", "mlp:30-20-10-5", density=0.5))
    masks = topo.generate(method, "mlp:30-20-10-5", density=0.5, dense=layers[1])
    assert masks.kept == round(0.5 * masks.size)
    assert masks[layers[1]].all() and not masks[layers[0]].all()


@pytest.mark.parametrize("quota", list(quotas))
def test_quotas_beside_dense_layers(quota: str) -> None:
    shapes = {"a": (8, 6), "b": (12, 8, 3, 3), "c": (6, 12), "d": (4, 6)}
    options = {"given": {"densities": dict.fromkeys(shapes, 0.5)}, "owl": {"outliers": dict(zip(shapes, (1, 4, 2, 3)))}}
    options |= {"alpha": {"exponents": dict(zip(shapes, (1.5, 4, 2, 3)))}}
    for total in (300, 517, 900):
        found = budgets(quota, shapes, total=total, dense="a, c", **options.get(quota, {}))
        assert sum(found.values()) == total and found["a"] == 48 and found["c"] == 72
        rest = {name: shapes[name] for name in ("b", "d")}
        own = {key: {n: v[n] for n in rest} for key, v in options.get(quota, {}).items()}
        assert {name: found[name] for name in rest} == budgets(quota, rest, total=total - 120, **own)


@pytest.mark.parametrize(
    ("said", "call"),
    {
        "no layer is called 'conv9'": lambda: prune(
            "magnitude", small(), density=0.5, input_shape=SHAPE, dense="conv9"
        ),
        "kept dense (a.weight) hold": lambda: prune("magnitude", small(), density=0.1, input_shape=SHAPE, dense="a.*"),
        "kept dense (a) hold 16": lambda: budgets("erk", {"a": (4, 4)}, total=8, dense="a"),
        "random' takes no dense": lambda: topo.generate("random", "mlp:8-4-2", density=0.5, dense="fc1*"),
        "not negative; those of 'grasp'": lambda: prune(
            "grasp", small(), density=0.5, batches=batches(), rounds=2, degree_decay=5
        ),
        "a number of at least 0": lambda: prune("magnitude", small(), density=0.5, input_shape=SHAPE, degree_decay=-1),
        "quota 'owl' looks at activations": lambda: prune(
            "magnitude", small(), density=0.5, input_shape=SHAPE, quota="owl"
        ),
        "prospr has steps=-1": lambda: prune("prospr", small(), density=0.5, batches=batches(), steps=-1),
        "ntk_sap has draws=0": lambda: prune("ntk_sap", small(), density=0.5, input_shape=SHAPE, draws=0),
        "needs data": lambda: prune("px", small(), density=0.5, input_shape=SHAPE),
    }.items(),
)
def test_bad_input_gets_one_line(said: str, call) -> None:
    with pytest.raises(TopoError) as caught:
        call()
    assert said in str(caught.value) and "\n" not in str(caught.value)


# -- quotas of this family


def test_balanced_pyramidal_and_smart_ratios_by_their_definitions() -> None:
    shapes = {"a": (10, 10), "b": (20, 10), "c": (5, 4), "d": (40, 20)}
    assert budgets("balanced", shapes, total=230) == {"a": 70, "b": 70, "c": 20, "d": 70}
    sizes = [math.prod(shape) for shape in shapes.values()]
    found = budgets("pyramidal", shapes, total=200)
    rates = [kept / size for kept, size in zip(found.values(), sizes)]
    assert all(b == pytest.approx(rates[0] ** (i + 1), abs=1.5 / sizes[i]) for i, b in enumerate(rates))
    found = budgets("smart_ratio", {"a": (100, 100), "b": (100, 100), "c": (10, 100)}, total=2100)
    assert found == {"a": 1200, "b": 600, "c": 300}  # 3^2 + 3 : 2^2 + 2, and 30 % of the last
    found = budgets("smart_ratio", {"a": (100, 100), "b": (100, 100), "c": (10, 100)}, total=1500, squares=True)
    assert found == {"a": round(1200 * 8 / 9), "b": round(1200 / 9), "c": 300}
    with pytest.raises(TopoError, match="keeps 300 parameters of the last layer 'c'"):
        budgets("smart_ratio", {"a": (100, 100), "c": (10, 100)}, total=200)


def test_owl_and_alpha_pruning_by_their_definitions() -> None:
    shapes = {"a": (10, 100), "b": (10, 100), "c": (10, 100)}
    found = budgets("owl", shapes, density=0.5, outliers={"a": 1, "b": 3, "c": 5})
    assert found == {"a": 420, "b": 500, "c": 580}  # 2 lambda (D - min) / (max - min), shifted to the mean
    found = budgets("alpha", shapes, density=0.5, exponents={"a": 2, "b": 3, "c": 4})
    assert found == {"a": 650, "b": 500, "c": 350}  # sparsities .35, .5, .65
    even = dict.fromkeys(shapes, 2.0)
    assert budgets("owl", shapes, density=0.5, outliers=even) == budgets("uniform", shapes, density=0.5)
    assert budgets("alpha", shapes, density=0.5, exponents=even) == budgets("uniform", shapes, density=0.5)
    for density in (0.0, 0.01, 0.99, 1.0):
        for quota, option in (("owl", "outliers"), ("alpha", "exponents")):
            found = budgets(quota, shapes, density=density, **{option: {"a": 1, "b": 8, "c": 90}}, span=0.9)
            assert sum(found.values()) == round(3000 * density) and max(found.values()) <= 1000
