"""A run is known by its content, reports the accuracy of the weights it saves, and leaves modules in their modes."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import topo
from topo.cli.train import verdict
from topo.data import Dataset, load
from topo.errors import TrainingError
from topo.masks import MaskSet
from topo.train import Recipe
from topo.train.identity import structure

RECIPE = Recipe(epochs=2, batch=64, lr=0.05, padding=0, flip=False, schedule="constant")


class Net(nn.Module):
    def __init__(self, stop=None, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 8, 3, stride=stride, padding=1), nn.BatchNorm2d(8)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(8, 10)
        self.stop, self.calls = stop, 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return self.fc(self.drop(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


def masks_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return MaskSet({name: rng.random(tuple(p.shape)) < 0.5 for name, p in model.named_parameters() if p.dim() > 1})


def few():
    digits = load("digits")
    return changed(digits, train_images=digits.train_images[:640], train_labels=digits.train_labels[:640])


def changed(data, **parts):
    held = {name: getattr(data, name) for name in ("train_images", "train_labels", "test_images", "test_labels")}
    return Dataset(data.name, **(held | parts), classes=data.classes, flips=data.flips)


def test_a_run_is_not_resumed_on_other_data_or_another_module(tmp_path):
    digits = few()
    with pytest.raises(KeyboardInterrupt):
        topo.train(Net(15), digits, recipe=RECIPE, out=tmp_path)
    config = tomllib.loads((tmp_path / "config.toml").read_text())["run"]
    assert all(len(config[key]) == 64 for key in ("images", "labels", "structure"))
    one = digits.train_images.copy()
    one[7, 0, 3, 3] ^= 1
    for data, said in (
        (changed(digits, train_images=one), r"on other data \(images\)"),
        (changed(digits, train_labels=digits.train_labels[::-1].copy()), r"on other data \(labels\)"),
        (changed(digits, test_images=digits.test_images[::-1].copy()), r"on other data \(images\)"),
    ):
        with pytest.raises(TrainingError, match=said):
            topo.train(Net(), data, recipe=RECIPE, out=tmp_path, resume=True)
    with pytest.raises(TrainingError, match="a module of another structure"):
        topo.train(Net(stride=2), digits, recipe=RECIPE, out=tmp_path, resume=True)
    assert topo.train(Net(), changed(digits), recipe=RECIPE, out=tmp_path, resume=True).history[-1]["epoch"] == 2


def test_structures_differ_where_the_layers_do():
    def net(*parts, **how):
        return nn.Sequential(nn.Linear(4, 4, **how), *parts)

    nets = [net(nn.ReLU()), net(nn.GELU()), net(nn.ReLU(), bias=False), net(nn.ReLU()).double(), net(nn.Dropout(0.5)),
            net(nn.Dropout(0.1))]  # fmt: skip
    assert len({structure(net) for net in nets}) == len(nets)
    assert structure(nets[0]) == structure(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def accuracy_of(weights, data):
    model = Net()
    model.load_state_dict(weights)
    with torch.no_grad():
        scores = model.eval()(torch.from_numpy(data.normalised(data.test_images)))
    return float((scores.argmax(1).numpy() == data.test_labels).mean())


@pytest.mark.parametrize("ema", [0.0, 0.97])
def test_the_accuracy_reported_is_of_the_weights_saved(ema, tmp_path):
    digits, masks = few(), masks_of(Net())
    recipe = RECIPE.changed(ema=ema)
    run = topo.train(Net(), digits, masks=masks, recipe=recipe, out=tmp_path / "a")
    saved = load_file(tmp_path / "a" / "final.safetensors")
    assert set(saved) == set(Net().state_dict())
    assert all(torch.equal(saved[name], value) for name, value in run.model.state_dict().items())
    assert accuracy_of(saved, digits) == pytest.approx(run.final_accuracy, abs=1e-9)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["final_test_accuracy"] == run.final_accuracy
    for name in masks:
        np.testing.assert_array_equal(saved[name].numpy() != 0, masks[name])
    assert topo.read_masks(tmp_path / "a" / "final.safetensors") == masks
    with pytest.raises(KeyboardInterrupt):
        topo.train(Net(15), digits, masks=masks, recipe=recipe, out=tmp_path / "b")
    again = topo.train(Net(), digits, masks=masks, recipe=recipe, out=tmp_path / "b", resume=True)
    for other in (again.model.state_dict(), load_file(tmp_path / "b" / "final.safetensors")):
        assert all(torch.equal(saved[name], other[name]) for name in saved)
    held = topo.apply_masks(Net(), masks)  # masks on the model: plain names in the file all the same
    topo.train(held, digits, recipe=recipe, out=tmp_path / "c")
    assert all(torch.equal(saved[n], v) for n, v in load_file(tmp_path / "c" / "final.safetensors").items())


def test_the_moving_average_warms_up_and_has_statistics_of_its_own():
    """By hand: one batch an epoch; decays 1/10 and 2/11; batch norm's moments of the batches."""
    digits = load("digits")
    recipe = RECIPE.changed(batch=2000, ema=0.9, weight_decay=0.0, momentum=0.0)
    net, hand = Net(), Net()
    net.drop.p = hand.drop.p = 0.0
    run = topo.train(net, digits, recipe=recipe)
    x = torch.from_numpy(digits.normalised(digits.train_images))
    average = {name: p.detach().clone() for name, p in hand.named_parameters()}
    for decay in (1 / 10, 2 / 11):
        loss = nn.functional.cross_entropy(hand(x), torch.from_numpy(digits.train_labels))
        for (name, p), grad in zip(hand.named_parameters(), torch.autograd.grad(loss, list(hand.parameters()))):
            p.data -= 0.05 * grad
            average[name].lerp_(p.data, 1 - decay)
    hand.load_state_dict(average, strict=False)
    for name, value in average.items():
        torch.testing.assert_close(run.model.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        seen = hand.conv(x)
    torch.testing.assert_close(run.model.norm.running_mean, seen.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(run.model.norm.running_var, seen.var((0, 2, 3)), atol=1e-4, rtol=1e-3)


def test_modes_are_as_given():
    for frozen in (False, True):
        model = Net()
        if frozen:
            model.norm.eval()
            model.norm.requires_grad_(False)
        before = model.norm.running_mean.clone()
        modes = [part.training for part in model.modules()]
        topo.train(model, "digits", recipe=RECIPE.changed(ema=0.5), epochs=1)
        assert modes == [part.training for part in model.modules()]
        assert torch.equal(before, model.norm.running_mean) == frozen
        before = before if frozen else model.norm.running_mean.clone()
        topo.imp(model, "digits", density=0.5, fraction=0.5, recipe=RECIPE, epochs=1)
        assert modes == [part.training for part in model.modules()]
        assert torch.equal(before, model.norm.running_mean) == frozen
    evaluated = Net().eval()
    run = topo.train(evaluated, "digits", recipe=RECIPE, epochs=1)
    assert not any(part.training for part in evaluated.modules()) and evaluated.norm.num_batches_tracked > 0
    assert run.final_accuracy > 0.1


def test_the_best_epoch_is_chosen_on_the_validation_part(tmp_path):
    run = topo.train(Net(), "digits", recipe=RECIPE.changed(val=0.2, epochs=4), out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [row["val_accuracy"] for row in rows]
    assert run.best_epoch == 1 + values.index(max(values)) and "validation" in run.summary()["best_is"]
    assert run.best_accuracy == rows[run.best_epoch - 1]["test_accuracy"]
    assert accuracy_of(load_file(tmp_path / "best.safetensors"), load("digits")) == pytest.approx(run.best_accuracy)
    assert (tmp_path / "curves.csv").read_text().startswith("epoch,train_loss,train_accuracy,val_loss,val")
    assert verdict(run).count("chosen on the validation part") == 1
    flattering = topo.train(Net(), "digits", recipe=RECIPE.changed(val=0.2, best_on="test"))
    assert "chosen on the test set" in verdict(flattering)
    assert flattering.best_accuracy == max(row["test_accuracy"] for row in flattering.history)
    with pytest.raises(TrainingError, match="best_on = 'val'"):
        topo.train(Net(), "digits", recipe=RECIPE.changed(best_on="val"))
