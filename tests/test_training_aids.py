"""Aids of sparse training: GradInit, ghosts (ToST), smoothed labels, signed weights, the linear schedule."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import topo
from topo.data import Dataset
from topo.errors import TopoError, TrainingError
from topo.models.modules.calling import Batch
from topo.train.ghosts import Ghosts, strength
from topo.train.gradinit import gradinit
from topo.train.recipe import Recipe
from topo.train.schedule import learning_rate
from topo.train.task import Task, smoothed

RECIPE = {"epochs": 4, "batch": 16, "lr": 0.05, "schedule": "constant", "padding": 0, "flip": False}


def images(count: int = 48) -> Dataset:
    rng = np.random.default_rng(0)
    held = rng.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
    labels = (held[:, 0, :, :3].mean((1, 2)) > held[:, 0, :, 3:].mean((1, 2))).astype(np.int64)
    return Dataset("halves", held[12:], labels[12:], held[:12], labels[:12], ("left", "right"), flips=False)


class Functional(nn.Module):
    """relu in every way that it is written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 3, 3, stride=2), nn.Conv2d(3, 4, 2, padding=1)
        self.thin, self.act, self.out = nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Linear(36, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(F.relu(self.act(self.one(x)))).relu()
        return self.out(torch.relu_(self.thin(self.two(x))).flatten(1))


# -- GradInit


def of_linear(model):
    return lambda running, batch: F.cross_entropy(running(batch.inputs), batch.targets)


@pytest.mark.parametrize("scale", [0.05, 30.0])  # the gradient's norm is below 1, and above
def test_one_step_of_gradinit_goes_where_finite_differences_say(scale):
    """Adam's first step is the sign of the derivative; both aims of the algorithm, written anew in numpy's float64."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        model[2].weight.mul_(scale)
    mask = torch.rand(4, 5) < 0.6
    x, y = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 3
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    start["0.weight"] *= mask

    def aim(factors):
        weights = {name: (factors[name] * value).requires_grad_() for name, value in start.items()}

        def loss(given, rows):
            hidden = torch.tanh(x[rows] @ given["0.weight"].T + given["0.bias"])
            return F.cross_entropy(hidden @ given["2.weight"].T + given["2.bias"], y[rows])

        slopes = dict(zip(weights, torch.autograd.grad(loss(weights, slice(0, 4)), list(weights.values()))))
        slopes["0.weight"] = slopes["0.weight"] * mask
        norm = sum(float((slope**2).sum()) for slope in slopes.values()) ** 0.5
        if norm > 1:
            return norm
        return float(loss({n: weights[n] - 0.1 * slopes[n] / norm for n in weights}, slice(4, 8))) / 0.1

    found = gradinit(model, {"0.weight": mask}, lambda i: Batch(x, y, 8), of_linear(model), iterations=1)
    ones = dict.fromkeys(start, 1.0)
    for name, factor in found.items():
        slope = aim(ones | {name: 1 + 1e-5}) - aim(ones | {name: 1 - 1e-5})
        assert factor == pytest.approx(1 - 0.01 * np.sign(slope), abs=1e-6)
        assert torch.equal(dict(model.named_parameters())[name], start[name] * torch.tensor(factor).double()) or (
            torch.allclose(dict(model.named_parameters())[name], start[name] * factor, rtol=1e-6)
        )


def test_gradinit_brings_back_a_network_that_begins_too_large():
    """Ten times too large weights lose a factor of two or more, no pruned weight comes alive, and equal seeds agree."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(10)
    masks = {"1.weight": np.random.default_rng(0).random((16, 36)) < 0.5}
    before = copy.deepcopy(model)
    runs = [
        topo.train(copy.deepcopy(model), images(), masks=masks, recipe=RECIPE | {"init": "gradinit", "lr": 1e-9})
        for _ in range(2)
    ]
    plain = topo.train(before, images(), masks=masks, recipe=RECIPE | {"lr": 1e-9})
    ratio = runs[0].model[3].weight.norm() / plain.model[3].weight.norm()
    assert 0 < ratio < 0.5 and runs[0].history[0]["train_loss"] < plain.history[0]["train_loss"] / 2
    assert all(torch.equal(a, b) for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters()))
    assert topo.verify_masks(runs[0].model, masks) == ()


def test_gradinit_of_nothing_to_learn_is_one_line():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    with pytest.raises(TopoError, match="gradinit: the gradient of the loss has norm 0 at the start"):
        gradinit(model, {}, lambda i: Batch(torch.zeros(4, 36), torch.tensor([0, 1, 0, 1]), 4), of_linear(model))


# -- ghosts


def test_ghosts_without_strength_are_the_plain_network_bit_for_bit():
    model, x = Functional(), torch.randn(4, 1, 6, 6)
    ghosts = Ghosts(model, "mish", 1.0, torch.Generator().manual_seed(0))
    plain = model(x)
    ghosts.alpha = 0.0
    with ghosts.awake():
        assert torch.equal(model(x), plain)
    ghosts.alpha = 0.5
    with ghosts.awake():
        ghosts.alpha = 0.0  # it falls while they are awake
        assert torch.equal(model(x), plain)
        ghosts.alpha = 0.5
        assert not torch.equal(model(x), plain)
    assert torch.equal(model(x), plain) and not model.one._forward_hooks


@pytest.mark.parametrize("kind, soft", [
    ("swish", lambda x: x / (1 + np.exp(-x))),
    ("sharp_swish", lambda x: x / (1 + np.exp(-2 * x))),
    ("mish", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
])  # fmt: skip
def test_soft_activations_are_their_formula(kind, soft):
    """Wherever relu is written, and its derivative too."""
    ghosts = Ghosts(nn.Identity(), kind, 0.0, torch.Generator())
    ghosts.alpha = 0.3
    ways = (F.relu, torch.relu, torch.Tensor.relu, lambda x: torch.relu_(x + 0), nn.ReLU(inplace=True), nn.ReLU())
    for way in ways:
        x = torch.linspace(-3, 3, 40, dtype=torch.float64, requires_grad=True)
        with ghosts.awake():
            found = way(x * 1)
        values = x.detach().numpy()
        np.testing.assert_allclose(found.detach().numpy(), 0.7 * np.maximum(values, 0) + 0.3 * soft(values), atol=1e-12)
        slopes = (soft(values + 1e-6) - soft(values - 1e-6)) / 2e-6
        np.testing.assert_allclose(
            torch.autograd.grad(found.sum(), x)[0].numpy(), 0.7 * (values > 0) + 0.3 * slopes, atol=1e-6
        )


def test_ghost_skips_are_their_formula():
    model, x = Functional(), torch.randn(4, 1, 6, 6)
    ghosts = Ghosts(model, "off", 0.5, torch.Generator().manual_seed(3))
    assert list(ghosts.parts) == ["one", "two"]  # not beside the convolution of one tap
    ghosts.alpha = 0.2
    with ghosts.awake():
        found = model.one(x)
    weight = ghosts.parts["one"][0].weight
    thin = F.adaptive_avg_pool2d(F.batch_norm(F.conv2d(x, weight, stride=2), None, None, training=True), (2, 2))
    expected = F.conv2d(x, model.one.weight, model.one.bias, stride=2) + 0.5 * 0.2 * thin
    torch.testing.assert_close(found, expected)
    assert np.linalg.matrix_rank(ghosts.parts["two"][0].weight.detach().flatten(1).numpy()) == 3


def test_strength_falls_to_nothing_in_the_first_half():
    falls = [strength(step, 100) for step in range(100)]
    assert falls[0] == 1 and falls[25] == pytest.approx(0.5) and falls[50:] == [0] * 50
    assert all(a > b for a, b in pairwise(falls[:51]))


def test_a_haunted_run_ends_plain_and_resumes_bit_for_bit(tmp_path):
    recipe = RECIPE | {"ghost_activation": "swish", "ghost_skip": 1.0, "ema": 0.9, "clip": 1.0}
    masks = {"two.weight": np.random.default_rng(0).random((4, 3, 2, 2)) < 0.5}

    def killed(done, total, label):
        if label.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        topo.train(model := Functional(), images(), masks=masks, recipe=recipe, out=tmp_path / "run", progress=killed)
    assert not model.one._forward_hooks
    gone_on = topo.train(Functional(), images(), masks=masks, recipe=recipe, out=tmp_path / "run", resume=True)
    whole = topo.train(Functional(), images(), masks=masks, recipe=recipe)
    plain = topo.train(Functional(), images(), masks=masks, recipe=RECIPE | {"ema": 0.9, "clip": 1.0})
    assert list(whole.model.state_dict()) == list(Functional().state_dict())
    assert topo.verify_masks(whole.model, masks) == ()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, gone_on.model.state_dict()[name])
    assert not torch.equal(whole.model.one.weight, plain.model.one.weight)
    data = images()
    x = torch.from_numpy(data.normalised(data.test_images))
    with torch.no_grad():
        right = (whole.model.eval()(x).argmax(1).numpy() == data.test_labels).mean()
    assert whole.final_accuracy == right  # what is reported is of the plain network


# -- labels, weights, rates


def test_labels_smoothed_over_the_other_classes():
    scores, wanted = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 5
    target = torch.full((7, 5), 0.1 / 4, dtype=torch.float64).scatter(1, wanted[:, None], 0.9)
    expected = -(target * scores.log_softmax(1)).sum()
    found = Task().judge(scores, Batch(scores, wanted, 7), 0.1, True).loss
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    assert smoothed(0.1, 5, False) == 0.1 and smoothed(0.1, 1, True) == 0.1
    runs = topo.train_many(
        "mlp:36-2", [None], images(), recipe=RECIPE | {"label_smoothing": 0.1, "smoothing": "others"}
    )
    alone = topo.train("mlp:36-2", images(), recipe=RECIPE | {"label_smoothing": 0.1, "smoothing": "others"})
    assert runs[0].history[-1]["train_loss"] == pytest.approx(alone.history[-1]["train_loss"], rel=1e-5)


def test_signed_weights_are_gem_miners():
    run = topo.train("mlp:36-4-2", images(), recipe=RECIPE | {"init": "signed", "lr": 1e-9, "weight_decay": 0.0})
    before = topo.train("mlp:36-4-2", images(), recipe=RECIPE | {"lr": 1e-9, "weight_decay": 0.0})
    for name, weight in run.model.named_parameters():
        if weight.dim() > 1:
            drawn = before.model.get_parameter(name)
            torch.testing.assert_close(weight, drawn.sign() * (2 / weight.shape[1]) ** 0.5, atol=1e-5, rtol=1e-5)


def test_a_linear_schedule_falls_to_nothing():
    recipe = Recipe(epochs=4, warmup=1, schedule="linear", lr=1.0)
    assert [learning_rate(recipe, step, 2) for step in range(8)] == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6,
                                                                                  2 / 6, 1 / 6])  # fmt: skip


def test_bad_values_are_one_line():
    for recipe, said in (
        ({"ghost_activation": "gelu"}, "one of off, swish, sharp_swish, mish"),
        ({"ghost_skip": -1.0}, "a number from 0"),
        ({"ghost_skip": 1.0, "compile": "default"}, "off with ghosts"),
        ({"smoothing": "most"}, "one of all, others"),
    ):
        with pytest.raises(TrainingError, match=said):
            Recipe(**recipe)
    runs = topo.train_many("mlp:36-2", [None], images(), recipe=RECIPE | {"ghost_activation": "mish"})
    assert "one by one: the recipe has ghosts" in runs[0].notes[-1]
