"""Many masks trained side by side: each net is what it is alone, and where that cannot be, one by one is said."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.errors import TopoError, TrainingError
from topo.masks import MaskSet
from topo.train.recipe import Recipe

RECIPE = Recipe(epochs=1, batch=128, lr=0.05, padding=1, flip=False, schedule="cosine")
MODEL = "mlp:64-16-10"
SHAPES = {"fc1.weight": (16, 64), "fc2.weight": (10, 16)}


def random_masks(shapes, density, seed):
    rng = np.random.default_rng(seed)
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


class Small(nn.Module):
    """A convolution, batch norm and a layer that is frozen."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.Linear(36, 10)
        self.fc.bias.requires_grad_(False)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def close(a, b, tolerance):
    for name, tensor in a.model.state_dict().items():
        torch.testing.assert_close(tensor, b.model.state_dict()[name], atol=tolerance, rtol=tolerance)
    for one, other in zip(a.history, b.history, strict=True):
        for key in one.keys() - {"seconds"}:
            assert one[key] == pytest.approx(other[key], abs=tolerance), key


@pytest.mark.parametrize(
    "changes, seeds",
    [
        ({}, 0),
        ({"clip": 0.5, "weight_decay": 1e-3, "nesterov": True, "label_smoothing": 0.1}, [3, 3, 4]),
        ({"optimizer": "adam", "lr": 0.01, "accumulate": 3, "init": "sparse_he", "val": 0.1}, [1, 2, 3]),
    ],
)
def test_each_net_is_what_it_is_alone_in_double_precision(changes, seeds):
    torch.manual_seed(0)
    model = Small().double()
    shapes = {"conv.weight": (4, 1, 3, 3), "fc.weight": (10, 36)}
    masks = [random_masks(shapes, 0.3, 0), None, random_masks({"fc.weight": (10, 36)}, 0.2, 1)]
    recipe = RECIPE.changed(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    runs = topo.train_many(model, masks, "digits", seeds=seeds, recipe=recipe)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for run, mask, seed in zip(runs, masks, [seeds] * 3 if isinstance(seeds, int) else seeds, strict=True):
        alone = topo.train(copy.deepcopy(model), "digits", masks=mask, recipe=recipe, rng=seed)
        assert run.masks == mask and run.seed == seed and run.notes == alone.notes
        close(run, alone, 1e-5)
        if mask is not None:
            assert topo.verify_masks(run.model, mask) == ()


def test_named_models_get_weights_of_their_seeds_and_go_in_parts():
    masks = [random_masks(SHAPES, 0.4, seed) for seed in range(3)]
    runs = topo.train_many(MODEL, masks, "digits", seeds=[0, 1, 2], recipe=RECIPE, at_once=2)
    for seed, run in enumerate(runs):
        close(run, topo.train(MODEL, "digits", masks=masks[seed], recipe=RECIPE, rng=seed), 1e-4)
    shapes = {"conv.weight": (4, 1, 3, 3)}
    convs = topo.train_many(Small(), [random_masks(shapes, 0.5, s) for s in range(2)], "digits", recipe=RECIPE)
    assert not torch.equal(convs[0].model.norm.running_mean, convs[1].model.norm.running_mean)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.drop = nn.Linear(64, 16), nn.Linear(16, 10), nn.Dropout(0.2)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.fc1(x.flatten(1)))))


def test_what_cannot_be_side_by_side_goes_one_by_one_and_says_so():
    masks = [random_masks(SHAPES, 0.4, seed) for seed in range(2)]
    for model, changes, said in (
        (Dropping(), {}, "one by one: they do not run side by side"),
        (MODEL, {"ema": 0.9}, "one by one: the recipe averages weights"),
        (MODEL, {"sparse": "set"}, "one by one: the recipe moves masks"),
    ):
        recipe = RECIPE.changed(**changes)
        runs = topo.train_many(model, masks, "digits", seeds=5, recipe=recipe)
        for run, mask in zip(runs, masks, strict=True):
            assert said in run.notes[-1]
            net = copy.deepcopy(model) if isinstance(model, nn.Module) else model
            close(run, topo.train(net, "digits", masks=mask, recipe=recipe, rng=5), 0)


def test_train_takes_several_masks_or_seeds():
    masks = [topo.generate("erk", "mlp:64-10", density=d) for d in (0.2, 0.5)]
    many = topo.train_many("mlp:64-10", masks, "digits", seeds=[0, 3], epochs=1)
    assert losses(topo.train("mlp:64-10", "digits", masks=masks, rng=[0, 3], epochs=1)) == losses(many)
    seeds = topo.train("mlp:64-10", "digits", masks=masks[1], rng=(0, 3), epochs=1)
    assert [run.seed for run in seeds] == [0, 3] and losses(seeds)[1] == losses(many)[1]
    for more in ({"out": "run"}, {"resume": True}, {"loss": print}, {"output": "a"}):
        with pytest.raises(TrainingError, match=f"{next(iter(more))} is for one network"):
            topo.train("mlp:64-10", "digits", masks=masks, epochs=1, **more)
    with pytest.raises(TrainingError, match="3 seeds for 2 masks"):
        topo.train("mlp:64-10", "digits", masks=masks, rng=[1, 2, 3], epochs=1)


def losses(runs):
    return [run.history[-1]["test_loss"] for run in runs]


def test_bad_input_is_one_line():
    masks = random_masks(SHAPES, 0.4, 0)
    for given, changes, said in (
        (masks, {}, "takes a list of masks"),
        ([], {}, "takes a list of masks"),
        ([masks, masks], {"seeds": [1]}, "there are 1 seeds for 2 masks"),
        ([masks], {"at_once": 0}, "at_once is 0"),
        ([masks], {"seeds": [-1]}, "rng is -1"),
        ([{"fc9.weight": np.eye(3)}], {}, "mask 'fc9.weight' is not a parameter"),
        ([masks, masks], {"recipe": RECIPE.changed(lr=1e6)}, "the loss of net 1 of 2 is not a finite number"),
    ):
        with pytest.raises(TopoError, match=said):
            topo.train_many(MODEL, given, "digits", **{"recipe": RECIPE, **changes})
