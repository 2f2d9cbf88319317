"""Pruners: exact budgets, scores against finite differences, conservation, collapse, walks without a dead end."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import topo
from topo.errors import MaskError, TopoError
from topo.masks import MaskSet
from topo.models import build, prunable

torch = pytest.importorskip("torch")

from torch.nn.utils import prune as torch_prune  # noqa: E402

from topo.networks import find_wiring  # noqa: E402
from topo.pruners import prune, pruners, reinitialise, rescale, scale_branches  # noqa: E402
from topo.pruners.blocks import Block  # noqa: E402
from topo.pruners.network import Network, placed, read_batches, working_copy  # noqa: E402
from topo.pruners.predicted import fit, write_survival  # noqa: E402
from topo.pruners.selection import layer_budgets, top, totals  # noqa: E402
from topo.pruners.signal import Signal  # noqa: E402
from topo.quotas import budgets  # noqa: E402

nn = torch.nn
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors: threads cost more than they give, and sums keep one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Small(nn.Module):
    """Two convolutions beside a shortcut, a pool, a linear layer; 1 x 8 x 8 images, 4 classes."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.a, self.b = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.side = nn.Conv2d(6, 8, 1, stride=2, bias=False)
        self.act, self.fc = act(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = self.act(self.b(self.act(self.a(x))) + self.side(x))
        return self.fc(x.mean((2, 3)))


SHAPE = (1, 8, 8)


def small(seed: int = 0, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    return reinitialise(Small(act), rng=seed)


def batches(count: int = 2, size: int = 6, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((size, *SHAPE), dtype=np.float32), rng.integers(0, 4, size)) for _ in range(count)]


def network(model: nn.Module, precision: str = "float64") -> Network:
    net = working_copy(model, precision, SHAPE)
    net.module.eval()
    net.dense = {name: weight.detach().clone() for name, weight in net.weights.items()}
    return net


# -- what holds for every pruner


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A predictor of survival that has learned a little."""
    path = tmp_path_factory.mktemp("predictor") / "p.safetensors"
    value, slope = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    write_survival(path.with_name("s.safetensors"), {"w": (value, slope, (value > 0).short())}, {})
    fit([path.with_name("s.safetensors")], path, epochs=1)
    return str(path)


@pytest.mark.parametrize("method", list(pruners))
def test_contract(method: str, predictor: str) -> None:
    model = small()
    model.fc.bias.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    how = pruners[method]
    given_ = {"batches": batches()} if how.data == "batches" else {"input_shape": SHAPE}
    if how.rounds > 1:
        given_["rounds"] = 12
    if "epochs" in how.options:
        given_["epochs"] = 7
    if "predictor" in how.options:
        given_["predictor"] = predictor
    size = sum(math.prod(shape) for shape in prunable(model).values())
    for density in (0.03, 0.37, 1.0):
        masks = prune(method, model, density=density, rng=5, **given_)
        assert masks.kept == round(density * size) or how.keeps
        assert masks.provenance.get("asked", masks.kept) == round(density * size)
        assert masks.shapes == prunable(model) and list(masks) == list(prunable(model))
        assert masks == prune(method, model, sparsity=1 - density, rng=5, **given_)
    assert masks.provenance["method"] == method and masks.provenance["seed"] == 5
    assert masks.provenance["input_shape"] == list(SHAPE)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert model.training and model.norm.training and not model.fc.bias.requires_grad
    assert model.stem.weight.grad is None and bool((model.fc.weight.grad == 1).all())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert how.data in ("none", "batches") and how.cost and how.source and how.description and how.options


@pytest.mark.parametrize("method", ["random", "phew", "sbp"])
def test_other_seeds_give_other_masks(method: str) -> None:
    first, second = (prune(method, small(), density=0.2, batches=batches(), input_shape=SHAPE, rng=s) for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("method", [name for name in pruners if pruners[name].shared_ranking])
def test_quotas_by_layer(method: str, predictor: str) -> None:
    how = {"batches": batches(), "input_shape": SHAPE, "rounds": 3}
    if "predictor" in pruners[method].options:
        how["predictor"] = predictor
    masks = prune(method, small(), density=0.1, quota="erk", **how)
    wanted = budgets("erk", prunable(small()), density=0.1)
    assert {name: masks.rows(name).kept() for name in masks} == wanted
    counts = {**dict.fromkeys(wanted, 7), "fc.weight": 0}
    kept = prune(method, small(), density=28 / masks.size, quota=counts, **how)
    assert {name: kept.rows(name).kept() for name in kept} == counts


def test_bad_input_is_named() -> None:
    model, data = small(), batches()
    for match, call in {
        "no pruner is called 'snap'": {"method": "snap"},
        "needs data": {"method": "snip", "batches": None},
        "needs data: batches": {"method": "snip", "batches": []},
        "batch 0 is not a pair": {"method": "snip", "batches": [data[0][0]]},
        "x of type torch.uint8": {"method": "snip", "batches": [(data[0][0].astype(np.uint8), data[0][1])]},
        "y holds the class": {"method": "snip", "batches": [(data[0][0], data[0][1][:2])]},
        "has no option 'temperature'": {"method": "snip", "temperature": 3},
        "option 'rounds' of pruner 'snip' holds 0": {"method": "snip", "rounds": 0},
        "one of exponential, linear": {"method": "snip", "schedule": "cubic"},
        "one of eval, train, statistics": {"method": "snip", "mode": "test"},
        "has no option 'mode'": {"method": "synflow", "mode": "train"},
        "it takes no quota": {"method": "phew", "quota": "erk"},
        "shape of one input": {"method": "synflow", "input_shape": None, "batches": None},
        "a budget is": {"method": "magnitude", "sparsity": 0.9},
        "smaller than a path": {"method": "phew", "density": 0.002},
        "keeps 7 of": {"method": "magnitude", "quota": {**dict.fromkeys(prunable(model), 1), "a.weight": 3}},
    }.items():
        given_ = {"density": 0.1, "batches": data, "input_shape": SHAPE, **call}
        with pytest.raises(TopoError, match=match):
            prune(given_.pop("method"), model, **given_)
    with pytest.raises(TopoError, match="a budget is needed"):
        prune("magnitude", model)
    with pytest.raises(TopoError, match="no linear layer or convolution"):
        prune("magnitude", nn.ReLU(), density=0.1)
    with torch.device("meta"), pytest.raises(TopoError, match="meta device"):
        prune("magnitude", Small(), density=0.1)


def test_scores_that_are_not_finite_name_their_layer() -> None:
    model = small()
    with torch.no_grad():
        model.a.weight[1, 0, 0, 0] = math.nan
    with pytest.raises(TopoError, match=r"'magnitude': 1 of 432 scores of 'a.weight' are not finite .*nan"):
        prune("magnitude", model, density=0.1)
    with pytest.raises(TopoError, match=r"scores of '.*' are not finite"):
        prune("synflow", _deep(0), density=0.1, precision="float32", input_shape=(8,))


# -- selection


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(0, 3),
)
def test_top_is_exact_whatever_the_ties(values: list[int], count: int, seed: int) -> None:
    scores, count = np.array(values, float), min(count, len(values))
    keep = top(scores, count, np.random.default_rng(seed))
    assert keep.sum() == count
    if 0 < count < len(values):
        assert scores[keep].min() >= scores[~keep].max()


def test_ties_are_drawn_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = sum(top(np.zeros(10), 3, rng).astype(int) for _ in range(2000))
    assert abs(drawn - 600).max() < 5 * math.sqrt(2000 * 0.3 * 0.7)


def test_schedules() -> None:
    assert totals(1000, 10, 4, "exponential") == [316, 100, 32, 10]
    assert totals(1000, 10, 4, "linear") == [752, 505, 258, 10]
    shapes = {"a": (10, 10), "b": (5, 10), "c": (2, 5)}
    steps = layer_budgets("erk", shapes, totals(160, 16, 10, "exponential"))
    assert all(later[name] <= earlier[name] for earlier, later in pairwise(steps) for name in shapes)
    assert steps[-1] == budgets("erk", shapes, total=16)


# -- scores against first principles


def loss(model: nn.Module, data: list, temperature: float = 1.0) -> torch.Tensor:
    x, y = (torch.from_numpy(np.concatenate(part)) for part in zip(*data))
    return nn.functional.cross_entropy(model(x.double()) / temperature, y)


def test_snip_is_the_derivative_by_the_mask() -> None:
    model, data, step = small(act=nn.Tanh), batches(), 1e-5
    net = network(model)
    scores = pruners["snip"].score(net, placed(read_batches(data, "snip"), net), rng=None)
    plain = copy.deepcopy(model).double().eval()
    rng = np.random.default_rng(0)
    for name, parameter in plain.named_parameters():
        if parameter.ndim < 2:
            continue
        for place in rng.choice(parameter.numel(), 8, replace=False):
            values = parameter.data.view(-1)
            whole, found = float(values[place]), []
            for mask in (1 + step, 1 - step):
                values[place] = whole * mask
                found.append(float(loss(plain, data).detach()))
            values[place] = whole
            slope = abs(found[0] - found[1]) / (2 * step)
            assert float(scores[name].detach().view(-1)[place]) == pytest.approx(slope, rel=1e-5, abs=1e-10)


def test_grasp_is_the_weight_times_hessian_times_gradient() -> None:
    """H g by a central difference of gradients along g, at temperature 200 on the logits."""
    model, data = small(act=nn.Tanh), batches()
    net = network(model)
    scores = pruners["grasp"].score(net, placed(read_batches(data, "grasp"), net), rng=None, temperature=200.0)
    plain = copy.deepcopy(model).double().eval()
    weights = {name: p for name, p in plain.named_parameters() if name in scores}

    def gradient() -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss(plain, data, 200.0), list(weights.values())))

    slope, ends = gradient(), []
    step = 1e-4 / max(float(g.abs().max()) for g in slope)
    for sign in (1, -1):
        for weight, g in zip(weights.values(), slope):
            weight.data += sign * step * g
        ends.append(gradient())
        for weight, g in zip(weights.values(), slope):
            weight.data -= sign * step * g
    for (name, weight), up, down in zip(weights.items(), *ends):
        expected = weight.detach() * (up - down) / (2 * step)
        assert torch.allclose(scores[name].detach(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_scores_do_not_depend_on_how_examples_are_batched() -> None:
    data = batches(3, 4)
    one = [tuple(np.concatenate(part) for part in zip(*data))]
    for method in ("snip", "grasp", "force"):
        first, second = (prune(method, small(), density=0.2, batches=b, precision="float64") for b in (data, one))
        assert first == second


def test_batch_norm_modes() -> None:
    model, data = small(), batches(1)
    found = {
        mode: prune("snip", model, density=0.1, batches=data, mode=mode) for mode in ("eval", "train", "statistics")
    }
    assert found["eval"] != found["train"] and found["eval"] != found["statistics"]
    assert found["train"].provenance["options"]["mode"] == "train"


@pytest.mark.parametrize("spec", ["resnet20", "vgg16"])
def test_magnitude_keeps_what_normal_tails_say(spec: str) -> None:
    """P(|N(0, 2 / fan_in)| > t) in every layer, t the common threshold."""
    torch.manual_seed(0)
    model = build(spec)
    masks = prune("magnitude", model, density=0.1)
    weights = dict(model.named_parameters())
    threshold = min(float(weights[n].detach().abs().numpy()[masks[n]].min()) for n in masks if masks[n].any())
    for name, shape in masks.shapes.items():
        fan_in = math.prod(shape[1:])
        expected = math.erfc(threshold / math.sqrt(2 * 2 / fan_in))
        spread = math.sqrt(expected * (1 - expected) / math.prod(shape))
        assert masks[name].mean() == pytest.approx(expected, abs=5 * spread + 1e-12)


def test_lamp_by_its_definition() -> None:
    net = network(small())
    scores = pruners["lamp"].score(net, (), rng=np.random.default_rng(0))
    for name, weight in net.weights.items():
        squares = weight.detach().numpy().reshape(-1) ** 2
        found = scores[name].detach().numpy().reshape(-1)
        expected = [w / squares[squares >= w].sum() for w in squares]
        assert found == pytest.approx(expected, rel=1e-12)


# -- rounds


def rounds_of(method: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[dict[str, np.ndarray]]:
    """Which weights of the working copy are not 0 whenever the method is asked for scores."""
    how, seen = pruners[method], []

    def spy(net: Network, data: object, *, rng: np.random.Generator) -> object:
        seen.append({name: weight.detach().numpy() != 0 for name, weight in net.weights.items()})
        return how.score(net, data, rng=rng)

    monkeypatch.setitem(pruners._entries, method, dataclasses.replace(how, score=spy))
    last = prune(method, small(), density=0.05, batches=batches(), input_shape=SHAPE, **options)
    return [*seen, dict(last)]


def test_force_may_regrow_and_iterative_snip_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def returned(states: list[dict[str, np.ndarray]]) -> int:
        return sum(int((now[n] & ~before[n]).sum()) for before, now in pairwise(states) for n in now)

    assert returned(rounds_of("iter_snip", monkeypatch, rounds=8)) == 0
    assert returned(rounds_of("synflow", monkeypatch, rounds=8)) == 0
    force = rounds_of("force", monkeypatch, rounds=8)
    assert returned(force) > 0
    kept = [sum(int(flags.sum()) for flags in state.values()) for state in force]
    assert kept[1:] == totals(kept[0], kept[-1], 8, "exponential", 0.05)


def test_inverted_scores_keep_the_lowest() -> None:
    model = small()
    high, low = (prune("magnitude", model, density=0.5, invert=flag) for flag in (False, True))
    assert all(np.array_equal(high[name], ~low[name]) for name in high)


# -- SynFlow


def plain_synflow(model: nn.Module, shape: tuple[int, ...], density: float, rounds: int) -> dict[str, np.ndarray]:
    """The loop as it is released, in float64, with exact counts."""
    net = copy.deepcopy(model).double().eval()
    weights = {name: p for name, p in net.named_parameters() if p.ndim > 1}
    for values in net.state_dict().values():
        values.abs_()
    size = sum(weight.numel() for weight in weights.values())
    for done in range(1, rounds + 1):
        total = round(size * density ** (done / rounds))
        net.zero_grad()
        net(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        scores = torch.cat([(p.grad * p).detach().reshape(-1) for p in weights.values()])
        threshold = torch.kthvalue(scores, size - total).values
        for weight in weights.values():
            weight.data[weight.grad * weight <= threshold] = 0
    return {name: (weight != 0).detach().numpy() for name, weight in weights.items()}


def test_synflow_equals_the_plain_loop() -> None:
    torch.manual_seed(1)
    model = build("resnet20")
    for density, rounds in ((0.1, 10), (0.02, 20)):
        masks = prune("synflow", model, density=density, rounds=rounds, input_shape=(3, 32, 32))
        assert masks == MaskSet(plain_synflow(model, (3, 32, 32), density, rounds))
        assert masks == prune("synflow", model, sparsity=1 - density, rounds=rounds, input_shape=(3, 32, 32))


class Tied(nn.Module):
    """A weight large enough for a block, read by two convolutions and by a product beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.fc = nn.Conv2d(2, 128, 3), nn.Conv2d(128, 128, 3, padding=1), nn.Linear(128, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(torch.relu(self.wide(torch.relu(self.first(x)))))
        return self.fc(torch.relu(x.mean((2, 3)) + self.wide.weight.mean((1, 2, 3))))


@pytest.mark.parametrize("how", [{}, {"degree_decay": 5.0}, {"quota": "erk"}])
def test_blocks_of_live_weights_change_no_mask(how: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    model = Tied()
    with torch.no_grad():
        model.wide.weight[:, 64:] *= 1e-3  # inputs that go first, so that a block is left
    many = {"density": 0.02, "rounds": 12, "input_shape": (2, 12, 12), **how}
    narrowed: list[int] = []
    shrink = Block._shrink
    monkeypatch.setattr(
        Block, "_shrink", lambda self, w: (shrink(self, w), narrowed.append(0 if self.live is None else 1))[0]
    )
    masks = prune("synflow", model, **many)
    assert sum(narrowed) >= 5
    monkeypatch.setattr("topo.pruners.blocks.STARTS", -1.0)  # none is kept
    count = len(narrowed)
    assert prune("synflow", model, **many) == masks
    assert len(narrowed) == count
    if not how:
        assert masks == MaskSet(plain_synflow(model, (2, 12, 12), 0.02, 12))


class Varied(nn.Module):
    """What convolutions can do: strides, dilation, groups, pools, concatenation, a pad, a saturating activation."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(2, 8, 5, stride=1, padding=2), nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.c3, self.c4 = nn.Conv2d(8, 6, (3, 1), stride=(2, 1), padding=(1, 0)), nn.Conv2d(8, 6, 1, stride=(2, 1))
        self.c5, self.fc = nn.Conv2d(20, 4, 3), nn.Linear(4 * 7 * 17, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        x = f.max_pool2d(torch.relu(self.n1(self.c1(x))), 3, 2, 1)
        y = self.c2(x) + x
        a, b = self.c3(y), self.c4(y)
        a += b
        x = f.pad(torch.cat([a, 0.5 * b, f.avg_pool2d(y, 1, (2, 1))], 1), (1, 0, 0, 0))
        return self.fc(f.dropout(self.c5(x), 0.5, self.training).flatten(1))


@pytest.mark.parametrize("spec", ["varied", "resnet20", "resnet20:shortcut=pad", "vgg11", "lenet5", "wrn28:width=1"])
def test_a_signal_gives_the_gradients_of_the_whole_image(spec: str) -> None:
    torch.manual_seed(0)
    model, shape = (Varied(), (2, 33, 35)) if spec == "varied" else (build(spec), topo.models.input_shape(spec))
    model = model.double().eval()
    for values in model.state_dict().values():
        values.abs_() if values.is_floating_point() else None
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean += 0.01
            part.bias.data += 0.02
    parameters, image = list(model.parameters()), torch.ones(1, *shape, dtype=torch.float64)
    output = model(Signal.ones(image))
    assert isinstance(output, Signal)
    found = torch.autograd.grad(output.stored.sum(), parameters)
    wanted = torch.autograd.grad(model(image).sum(), parameters)
    for mine, other in zip(found, wanted):
        assert torch.allclose(mine, other, rtol=1e-12, atol=0)


def test_saturating_activations_let_the_flow_pass() -> None:
    """ReLU6, taken literally, has slope 0 above 6 and stops SynFlow in every deep MobileNetV2."""
    masks = prune("synflow", small(act=nn.ReLU6), density=0.2, input_shape=SHAPE)
    assert masks == prune("synflow", small(), density=0.2, input_shape=SHAPE)


def flows(model: nn.Module, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    net = working_copy(model, "float64", shape)
    net.module.eval()
    pruners["synflow"].prepare(net.module, rng=None)
    return {name: scores.numpy() for name, scores in pruners["synflow"].score(net, (), rng=None).items()}


def test_synflow_is_conserved() -> None:
    """Layers that all paths cross carry the same flow, and a unit gives out what it takes in (Tanaka et al., thm 1)."""
    torch.manual_seed(0)
    scores = list(flows(build("mlp:20-30-25-5"), (20,)).values())
    for before, after in pairwise(scores):
        assert before.sum(axis=1) == pytest.approx(after.sum(axis=0), rel=1e-9)
    vgg = flows(build("vgg11"), (3, 32, 32))
    total = next(iter(vgg.values())).sum()
    assert [scores.sum() for scores in vgg.values()] == pytest.approx([total] * len(vgg), rel=1e-9)
    resnet = flows(build("resnet56"), (3, 32, 32))
    assert resnet["conv.weight"].sum() == pytest.approx(resnet["fc.weight"].sum(), rel=1e-9)


def _deep(seed: int) -> nn.Module:
    """R about 1e390: no float holds it."""
    layers = [nn.Linear(8, 8, bias=False) for _ in range(130)]
    return reinitialise(nn.Sequential(*layers, nn.Linear(8, 2)), rng=seed, variance=8e5)


def test_synflow_beyond_float64() -> None:
    deep = _deep(0)
    assert not math.isfinite(float(_absolute(deep)(torch.ones(1, 8, dtype=torch.float64)).sum().detach()))
    scores = flows(deep, (8,))
    total = next(iter(scores.values())).sum()
    assert 0 < total < math.inf
    assert [found.sum() for found in scores.values()] == pytest.approx([total] * len(scores), rel=1e-9)
    tame = reinitialise(_deep(0), rng=0)  # the same draws, each layer divided by one number: no rank changes
    assert prune("synflow", deep, density=0.3, rounds=3, input_shape=(8,)) == prune(
        "synflow", tame, density=0.3, rounds=3, input_shape=(8,)
    )


def _absolute(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    return model


def test_float32_loses_deep_networks_and_says_so() -> None:
    torch.manual_seed(0)
    model = build("resnet56")
    with pytest.raises(TopoError, match=r"scores of '0.conv.weight' are not finite"):
        prune("synflow", nn.Sequential(model, nn.Softplus(), nn.LayerNorm(10)), density=0.1, precision="float32",
              rounds=1, input_shape=(3, 32, 32))  # fmt: skip


def test_synflow_l2_is_the_path_kernel_saliency() -> None:
    """w**2 dR/d(w**2) of one linear chain, summed over paths by hand."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    net = working_copy(model, "float64", (3,))
    pruners["synflow_l2"].prepare(net.module, rng=None)
    first, second = (s.numpy() for s in pruners["synflow_l2"].score(net, (), rng=None).values())
    a, b = (part.weight.detach().numpy() ** 2 for part in model)
    assert first == pytest.approx(a * b.sum(axis=0)[:, None], rel=1e-12)
    assert second == pytest.approx(b * a.sum(axis=1)[None], rel=1e-12)


# -- facts of the papers


@pytest.mark.slow
def test_one_round_of_synflow_collapses_and_several_do_not() -> None:
    """ResNet-18 at 10**-1.5: one round empties whole layers, and no path is left. Three leave no gap in the chain."""
    torch.manual_seed(0)
    model = build("resnet18:stem=cifar")
    wiring = topo.trace(model, (3, 32, 32))
    once = prune("synflow", model, density=10**-1.5, rounds=1, input_shape=(3, 32, 32))
    assert topo.analyze(once, wiring).network["effective_params"] == 0
    assert once.rows("layer4.1.conv2.weight").kept() == 0
    again = prune("synflow", model, density=10**-1.5, rounds=3, input_shape=(3, 32, 32))
    report = topo.analyze(again, wiring)
    assert report.network["effective_params"] > 0.99 * again.kept
    empty = [row["layer"] for row in report.layers if not row["effective_params"]]
    assert empty == [f"layer{k}.0.downsample.0.weight" for k in (2, 3, 4)]  # beside the stronger branch


def test_global_magnitude_collapses_from_torchs_own_start() -> None:
    """ResNet-18 at 10**-1.5: U(-1, 1) / sqrt(fan-in) is bounded, so that whole layers lie below the threshold.

    From normal weights of the same rule no layer is empty yet: the published collapse is one of the initialisation.
    """
    torch.manual_seed(0)
    model = build("resnet18:stem=cifar")
    normal = prune("magnitude", model, density=10**-1.5)
    assert all(normal.rows(name).kept() for name in normal)
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.reset_parameters()
    uniform = prune("magnitude", model, density=10**-1.5)
    assert sum(not uniform.rows(name).kept() for name in uniform) == 7
    assert all(not uniform.rows(name).kept() for name in uniform if name.startswith("layer4") and "conv2" in name)


def test_critical_compression_of_vgg16_as_published() -> None:
    """The last compression without an empty layer, in steps of 10**0.25: magnitude 10**2.75, random 10**3.25.

    Published for VGG-16 with 100 classes by Tanaka et al. 2020 (their notebook); a step to either side for the seed.
    """
    torch.manual_seed(0)
    model = build("vgg16:classes=100")
    for method, last in (("magnitude", 2.75), ("random", 3.25)):
        whole = {}
        for exponent in np.arange(last - 0.25, last + 0.75, 0.25):
            masks = prune(method, model, density=10**-exponent)
            whole[exponent] = min(masks.rows(name).kept() for name in masks) > 0
        critical = max(exponent for exponent in whole if whole[exponent])
        assert abs(critical - last) <= 0.25 and not whole[last + 0.5]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared reference masks are not beside this checkout")
def test_synflow_densities_of_the_reference() -> None:
    """The published code's masks of ResNet-20, 100 rounds, another seed."""
    reference = topo.read_masks(DATA / "synflow_family_resnet20_d0.02.pt")
    torch.manual_seed(0)
    ours = prune("synflow", build("resnet20"), density=0.02, input_shape=(3, 32, 32))
    assert reference.kept == 5418
    _alike(ours, reference)


def _alike(ours: MaskSet, reference: MaskSet) -> None:
    """Equal budgets, densities within five per cent in each layer and 1.5 per cent on average."""
    assert ours.shapes == reference.shapes and ours.kept == reference.kept
    apart = [abs(float(ours[name].mean() - reference[name].mean())) for name in ours]
    assert max(apart) < 0.05 and np.mean(apart) < 0.015


@functools.cache
def drawn(spec: str, seed: int) -> nn.Module:
    """A network of the zoo with its weights: fifteen million of them are drawn once for several tests."""
    torch.manual_seed(seed)
    return build(spec)


@pytest.mark.slow
def test_synflow_of_vgg16_against_the_plain_loop() -> None:
    """Equal masks from the same weights, densities alike from others."""
    masks, loops = [], []
    for seed in (0, 1):
        model = drawn("vgg16", seed)
        masks.append(prune("synflow", model, density=0.02, rounds=4, input_shape=(3, 32, 32)))
        loops.append(MaskSet(plain_synflow(model, (3, 32, 32), 0.02, 4)))
    assert masks == loops and masks[0] != masks[1]
    _alike(masks[0], loops[1])


@pytest.mark.parametrize("spec", ["resnet20", "vgg16"])
def test_magnitude_against_torch_prune(spec: str) -> None:
    """torch.nn.utils.prune's global L1: equal masks from the same weights, densities alike from others."""
    masks, reference = [], []
    for seed in (0, 1):
        model = copy.deepcopy(drawn(spec, seed))
        masks.append(prune("magnitude", model, density=0.05))
        layers = {f"{name}.weight": layer for name, layer in model.named_modules() if name + ".weight" in masks[-1]}
        places = [(layer, "weight") for layer in layers.values()]
        torch_prune.global_unstructured(places, torch_prune.L1Unstructured, amount=masks[-1].size - masks[-1].kept)
        reference.append(MaskSet({name: layer.weight_mask for name, layer in layers.items()}))
    assert masks == reference and masks[0] != masks[1]
    _alike(masks[0], reference[1])


# -- walks


@pytest.mark.parametrize(
    "spec, density",
    [("resnet20", 0.01), ("resnet20", 0.1), ("resnet20", 1.0), ("lenet5", 0.01), ("mobilenetv2:stem=cifar", 0.02)],
)
def test_phew_leaves_no_ineffective_parameter(spec: str, density: float) -> None:
    shape = topo.models.input_shape(spec)
    torch.manual_seed(0)
    model = build(spec)
    masks = prune("phew", model, density=density, input_shape=shape)
    report = topo.analyze(masks, topo.trace(model, shape)).network
    assert report["effective_params"] == masks.kept == round(density * masks.size)


def test_phew_steps_in_proportion_to_weights() -> None:
    """Three inputs, two outputs, one kernel of two weights: both directions against their probabilities."""
    from topo.pruners.phew import _Table
    from topo.wiring import Layer

    weights = np.array([[[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]], [[3.0, 0.0], [5.0, 2.0], [1.0, 1.0]]])
    table = _Table.of(Layer("l", (2, 3, 1, 2), np.arange(3), 3, "conv"), weights.reshape(2, 3, 1, 2))
    rng, draws = np.random.default_rng(0), 20_000
    for backwards, rows in ((False, 3), (True, 2)):
        for row in range(rows):
            there, places = table.step(np.full(draws, row), rng, backwards)
            chosen = np.zeros((2, 3, 2), bool)
            chosen[(row,) if backwards else (slice(None), row)] = True
            expected = np.where(chosen, weights, 0).reshape(-1) / weights[chosen].sum()
            counts = np.bincount(places, minlength=12)
            assert counts[expected == 0].sum() == 0
            chi = ((counts - draws * expected)[expected > 0] ** 2 / (draws * expected[expected > 0])).sum()
            assert chi < 25  # 4 or 5 degrees of freedom: one in ten thousand
            assert np.array_equal(there, places // 2 % 3 if backwards else places // 6)


def test_phew_reads_no_zero_padding_and_fills_by_rate() -> None:
    """Weights on zero padding are never walked; the last weights are drawn as often as their forward probabilities."""
    from topo.pruners.phew import _Collected, _fill, _Table, _Walker
    from topo.wiring import Layer, Wiring

    weights = np.array([[1.0, 50.0, 2.0], [3.0, 50.0, 6.0]])
    rng = np.random.default_rng(0)
    padded = _Table.of(Layer("l", (2, 3), np.array([0, -1, 1]), 2), weights)
    there, _ = padded.step(np.repeat([0, 1], 500), rng, True)
    assert set(there.tolist()) == {0, 2}
    wiring = Wiring(np.arange(2), (Layer("l", (3, 2), np.arange(2), 2),), np.arange(2, 5))
    shares = np.array([[1.0, 4.0], [2.0, 1.0], [1.0, 3.0]])
    chosen, crossed = np.zeros((3, 2)), np.ones(wiring.n_units + 1, bool)
    for _ in range(4000):
        kept = _Collected({"l": shares}, 1)
        _fill(_Walker(wiring, {"l": shares}, rng), kept, crossed, rng)
        chosen += kept.flags()["l"]
    expected = 4000 * shares / shares.sum(axis=0) / 2  # the rates of each input's weights sum to 1
    assert ((chosen - expected) ** 2 / expected).sum() < 25  # 5 degrees of freedom


def test_phew_takes_a_wiring_that_fits() -> None:
    """A wiring given gives the masks of the traced one; that of another network is refused, and so is a NaN."""
    torch.manual_seed(0)
    model, wiring = build("resnet20"), find_wiring("resnet20")
    traced = prune("phew", model, density=0.02, input_shape=(3, 32, 32))
    assert prune("phew", model, density=0.02, input_shape=(3, 32, 32), wiring=wiring) == traced
    with pytest.raises(TopoError, match=r"has shape .* but the wiring's layer has"):
        prune("phew", build("resnet20:classes=100"), density=0.1, input_shape=(3, 32, 32), wiring=wiring)
    stack, told = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), []
    with pytest.raises(TopoError, match=r"'2.weight' of the model is not a layer .* its layers are: 0.weight"):
        prune("phew", stack, density=0.5, wiring=topo.trace(stack[:1], (6,)))
    prune("phew", stack, density=0.5, input_shape=(6,), progress=lambda *what: told.append(what))
    assert told == [(0, 1, "25 parameters"), (1, 1, "done")]
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(TopoError, match=r"'conv\.weight' holds weights that are not finite"):
        prune("phew", model, density=0.1, input_shape=(3, 32, 32))


def test_phew_does_not_walk_through_products() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) * torch.sigmoid(self.b(x))

    with pytest.raises(TopoError, match="multiplies"):
        prune("phew", Gated(), density=0.5, input_shape=(4,))


def test_transposed_convolutions_have_output_first_masks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 2, 1))
    wiring = topo.trace(model, (2, 6, 6))
    for method in ("magnitude", "synflow", "phew"):
        masks = prune(method, model, density=0.5, input_shape=(2, 6, 6))
        assert masks.shapes == wiring.shapes
        wiring.check(masks)
    assert topo.analyze(masks, wiring).network["effective_params"] == masks.kept
    kept = np.sort(np.abs(model[1].weight.detach().numpy().reshape(-1)))[::-1][:8]
    magnitude = prune("magnitude", model[1], density=8 / model[1].weight.numel())
    turned = model[1].weight.detach().numpy().reshape(2, 2, 3, 2, 2).swapaxes(1, 2).reshape(6, 2, 2, 2)
    assert np.allclose(np.sort(np.abs(turned[magnitude["weight"]]))[::-1], kept)


# -- weights to go with a mask, and ablations


def test_rescaling_brings_any_mask_back_to_the_edge_of_chaos() -> None:
    model = small()
    masks = prune("random", model, density=0.4, rng=1)
    factors = rescale(model, masks)
    for name, mask in masks.items():
        weight = dict(model.named_parameters())[name].detach().numpy()
        assert math.prod(weight.shape[1:]) * (weight**2 * mask).mean() == pytest.approx(2, rel=1e-5)
        assert factors[name] == pytest.approx(1 / math.sqrt(mask.mean()), rel=0.5)
    with pytest.raises(MaskError, match="keeps no weight other than 0"):
        rescale(model, {"fc.weight": np.zeros((4, 8))})
    with pytest.raises(MaskError, match="not a linear layer"):
        rescale(model, {"fc": np.ones((4, 8))})
    with pytest.raises(MaskError, match=r"shape \(8, 4\)"):
        rescale(model, {"fc.weight": np.ones((8, 4))})


def test_sbp_is_snip_on_redrawn_weights() -> None:
    data, model = batches(), small(3)
    assert prune("sbp", model, density=0.1, batches=data, rng=9) == prune(
        "snip", reinitialise(copy.deepcopy(model), rng=9), density=0.1, batches=data, rng=9
    )


def test_stable_branches() -> None:
    """y + L**-0.5 F(y): on a cifar ResNet every last batch norm is followed by the factor, and no name changes."""
    torch.manual_seed(0)
    model = build("resnet20").eval()
    plain = copy.deepcopy(model)
    stable = copy.deepcopy(scale_branches(model))
    for block in plain.blocks:
        block.bn2.weight.data *= 9**-0.5
        block.bn2.bias.data *= 9**-0.5
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(stable(x), plain(x), rtol=1e-4, atol=1e-5)
    assert list(stable.state_dict()) == list(plain.state_dict())
    named = build("resnet20:branches=stable").eval()
    named.load_state_dict(model.state_dict())
    assert torch.equal(named(x), stable(x))
    for name, branches in (("resnet18:stem=cifar", 8), ("resnet50:stem=cifar", 16), ("wrn28:width=1", 12)):
        spec = f"{name},branches=stable"
        with torch.device("meta"):
            assert sum(len(part._forward_hooks) for part in build(spec).modules()) == branches
        assert find_wiring(spec).named(None).to_json() == find_wiring(name).named(None).to_json()
    ends = [name for name, _ in small().named_modules() if name == "b"]
    assert scale_branches(small(), ends) is not None
    for bad in (None, ["nowhere"]):
        with pytest.raises(TopoError, match=r"residual branch|no module"):
            scale_branches(small(), bad)


# -- through topo.generate and the command line


def test_generate_takes_a_module_or_a_name() -> None:
    model = small()
    masks = topo.generate("synflow", model, sparsity=0.9, input_shape=SHAPE, rounds="5")
    assert masks == prune("synflow", model, sparsity=0.9, input_shape=SHAPE, rounds=5)
    assert masks.provenance["model"] == "Small" and masks.provenance["created_by"].startswith("topo ")
    named = topo.generate("magnitude", "lenet5", density=0.1, rng=3)
    assert named == topo.generate("magnitude", "lenet5", density=0.1, rng=3)
    assert named != topo.generate("magnitude", "lenet5", density=0.1, rng=4)
    assert named.provenance["model"] == "lenet5" and named.provenance["seed"] == 3
    counts = dict.fromkeys(named, 9)
    assert set(counts.values()) == {topo.generate("lamp", "lenet5", budgets=counts).rows(n).kept() for n in counts}
    with pytest.raises(TopoError, match="which a wiring has not"):
        topo.generate("magnitude", topo.trace(model, SHAPE), density=0.1)
    with pytest.raises(TopoError, match="takes no source"):
        topo.generate("magnitude", model, density=0.1, source=named)
    with pytest.raises(TopoError, match="takes no batches"):
        topo.generate("erk", "lenet5", density=0.1, batches=batches())
    with pytest.raises(TopoError, match="quota cannot be given too"):
        topo.generate("magnitude", "lenet5", budgets=counts, quota="erk")


@pytest.mark.parametrize("method", ["random"])
def test_the_random_pruner_and_the_generator_have_one_law(method: str) -> None:
    """Layer counts of both are hypergeometric: the generator needs no model."""
    model, shapes = build("lenet5"), prunable(build("lenet5"))
    size = sum(math.prod(shape) for shape in shapes.values())
    for masks in (prune(method, model, density=0.1), topo.generate(method, "lenet5", density=0.1)):
        assert masks.kept == round(0.1 * size)
        for name, shape in shapes.items():
            n = math.prod(shape)
            spread = math.sqrt(n * 0.09 * (size - n) / (size - 1))
            assert abs(masks.rows(name).kept() - 0.1 * n) < 5 * spread + 1


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from topo.cli import main

    monkeypatch.chdir(tmp_path)
    base = ["--model", "mlp:64-30-10", "--sparsity", "0.9", "--quiet"]
    assert main(["generate", "synflow", *base, "-O", "rounds=20", "-o", "synflow.safetensors"]) == 0
    assert main(["generate", "snip", *base, "--data", "digits", "--examples", "3", "-o", "snip.safetensors"]) == 0
    assert main(["generate", "shuffle", *base[:2], "--from", "snip.safetensors", "-o", "shuffled.npz", "--quiet"]) == 0
    kept = round(0.1 * (64 * 30 + 30 * 10))
    for name in ("synflow.safetensors", "snip.safetensors", "shuffled.npz"):
        assert topo.read_masks(name).kept == kept
    found = topo.read_masks("snip.safetensors").provenance
    assert found["method"] == "snip" and found["model"] == "mlp:64-30-10" and found["options"]["mode"] == "eval"
    capsys.readouterr()
    assert main(["compare", "synflow.safetensors", "snip.safetensors", "shuffled.npz", "--json", "-"]) == 0
    several = json.loads(capsys.readouterr().out)
    assert several["masks"] == ["synflow.safetensors", "snip.safetensors", "shuffled.npz"]
    assert [entry["kept"] for entry in several["network"]] == [kept] * 3
    assert several["overlap"][0][0] == 1 and several["overlap"][1][2] == several["overlap"][2][1] < 1
    assert several["layers"][0]["density"][1] == several["layers"][0]["density"][2]
    assert main(["compare", "synflow.safetensors", "snip.safetensors", "shuffled.npz"]) == 0
    assert "density of layer" in capsys.readouterr().out
    for line, code, says in (
        (["generate", "snip", *base], 2, "needs --data"),
        (["generate", "synflow", *base, "--data", "digits"], 2, "looks at no data"),
        (["generate", "snip", *base, "-O", "rounds=none", "--data", "digits"], 1, "whole number"),
        (["generate", "snip", "--model", "resnet20", *base[2:], "--data", "digits"], 1, "the model takes (3, 32, 32)"),
    ):
        assert main(line) == code
        assert says in capsys.readouterr().err
    assert main(["list", "methods"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert all(method in listed for method in pruners) and "cost: " in listed and "Tanaka et al. 2020" in listed
