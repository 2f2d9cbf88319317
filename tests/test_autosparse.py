"""IRP and AutoSparse: shares, counts, rewinding, what a predictor learns of layers that it has not seen, its files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import rankdata, spearmanr
from torch import nn

import topo
from topo.cli import main
from topo.data import batches, load
from topo.errors import TopoError
from topo.pruners import prune
from topo.pruners.predicted import fit, fit_predictor, read_survival, standardised, write_survival
from topo.train import irp
from topo.train.recipe import Recipe
from topo.train.survival import shares

RECIPE = Recipe(epochs=1, batch=128, lr=0.05, padding=0, flip=False, schedule="constant")


@pytest.mark.parametrize("schedule", ["num", "pct"])
@pytest.mark.parametrize("rounds, density", [(1, 0.3), (7, 0.2), (20, 0.01)])
def test_the_shares_multiply_to_the_density(schedule, rounds, density):
    found = shares(rounds, density, schedule)
    assert len(found) == rounds and math.prod(found) == pytest.approx(density, rel=1e-12)
    left = np.cumprod([1, *found])
    if schedule == "num":
        assert np.allclose(np.diff(left), -(1 - density) / rounds)  # as many in each round


def test_a_planted_rule_is_found_in_layers_that_were_not_seen():
    rng = torch.Generator().manual_seed(0)

    def layer(count, scale):
        value, slope = torch.randn(2, count, generator=rng) * torch.tensor([[scale], [3 * scale]])
        return value, slope, torch.tensor(rankdata((value * slope).abs().numpy()) / count)

    module = fit_predictor([layer(10_000, 0.1), layer(10_000, 0.02)], epochs=5, batch=256)
    value, slope, wanted = layer(5_000, 0.5)
    with torch.no_grad():
        said = module(standardised(value, slope))[:, 0]
    assert spearmanr(said.numpy(), wanted.numpy()).statistic > 0.95


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.Linear(36, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def test_counts_are_those_of_nested_masks_and_a_stopped_run_goes_on(tmp_path):
    found = irp(Net(), "digits", density=0.1, rounds=3, recipe=RECIPE, out=tmp_path / "whole")
    size = 36 + 360
    kept = [sum(int((count >= n).sum()) for count in found.survived.values()) for n in (1, 2, 3)]
    assert kept == [round(size * 0.7), round(size * 0.4), round(size * 0.1)]
    assert all((found.masks[name] == (count == 3)).all() for name, count in found.survived.items())
    assert [run.masks.kept for run in found.rounds] == [size, kept[0], kept[1]]
    assert topo.read_masks(tmp_path / "whole" / "masks.safetensors") == found.masks

    calls = []

    def stop(done, total, label):
        calls.append(label)
        if label.startswith("round 3"):
            raise KeyboardInterrupt

    how = {"density": 0.1, "rounds": 3, "recipe": RECIPE, "out": tmp_path / "stopped"}
    with pytest.raises(KeyboardInterrupt):
        irp(Net(), "digits", progress=stop, **how)
    again = irp(Net(), "digits", resume=True, **how)
    assert all((again.survived[name] == count).all() for name, count in found.survived.items())
    first, second = (load_file(tmp_path / folder / "survival.safetensors") for folder in ("whole", "stopped"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    values = read_survival(tmp_path / "whole" / "survival.safetensors")
    model = Net()
    assert torch.equal(values["conv.weight"][0], model.conv.weight.detach())
    data = load("digits")
    x = torch.from_numpy(np.array(data.train_images)).float().div(255)
    mean, std = (torch.tensor(side)[:, None, None] for side in (data.mean, data.std))
    labels = torch.from_numpy(np.array(data.train_labels)).long()
    loss = nn.functional.cross_entropy(model.eval()((x - mean) / std), labels)
    for name, weight in (("conv.weight", model.conv.weight), ("fc.weight", model.fc.weight)):
        slope = torch.autograd.grad(loss, weight, retain_graph=True)[0]
        torch.testing.assert_close(values[name][1], slope, atol=1e-6, rtol=1e-4)


def test_from_pruned_networks_to_masks_of_another(tmp_path, capsys):
    train = ["--model", "mlp:64-24-10", "--data", "digits", "--epochs", "1", "--rounds", "3", "--density", "0.1"]
    assert main(["irp", *train, "-o", str(tmp_path / "irp")]) == 0
    predictor = str(tmp_path / "p.safetensors")
    assert main(["autosparse", "fit", str(tmp_path / "irp"), "--epochs", "3", "-o", predictor]) == 0
    line = ["generate", "autosparse", "--model", "digits_conv", "--data", "digits", "--density", "0.1"]
    assert main([*line, "-O", f"predictor={predictor}", "-o", str(tmp_path / "m.safetensors")]) == 0
    masks = topo.read_masks(tmp_path / "m.safetensors")
    assert masks.kept == round(0.1 * masks.size)
    again = fit([tmp_path / "irp" / "survival.safetensors"], tmp_path / "q.safetensors", 3)
    read = load_file(predictor)
    assert all(torch.equal(tensor, read[name]) for name, tensor in again.state_dict().items())
    capsys.readouterr()
    for words, said in (
        (line, "autosparse needs -O predictor=FILE"),
        ([*line, "-O", "predictor=none.safetensors"], "cannot read 'none.safetensors'"),
        ([*line, "-O", f"predictor={tmp_path / 'm.safetensors'}"], "holds no predictor"),
        (["autosparse", "fit", predictor, "-o", str(tmp_path / "x.safetensors")], "holds no survival counts"),
        (["autosparse", "fit", "none", "-o", str(tmp_path / "x.safetensors")], "cannot read 'none'"),
    ):
        assert main(words) == 1 and said in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_files_that_are_not_meant(tmp_path):
    seen = list(batches(load("digits"), 20, 0, per_class=2, count=1))
    path = tmp_path / "p.safetensors"
    save_file({"0.weight": torch.ones(2)}, path, {"format": "topo-autosparse/1", "features": "magnitude"})
    with pytest.raises(TopoError, match="sees other features: magnitude"):
        prune("autosparse", topo.models.build("mlp:64-10"), density=0.5, batches=seen, predictor=str(path))
    save_file({"a:value": torch.ones(2), "a:gradient": torch.ones(2)}, path, {"format": "topo-irp/1"})
    with pytest.raises(TopoError, match="lacks 'a:survived'"):
        fit([path], tmp_path / "out")
    same = {"a:value": torch.ones(2), "a:gradient": torch.ones(2), "a:survived": torch.ones(2)}
    save_file(same, path, {"format": "topo-irp/1"})
    with pytest.raises(TopoError, match="every weight survived 1 rounds"):
        fit([path], tmp_path / "out")


def test_what_irp_refuses():
    for changes, said in (
        ({"density": 0}, "density 0 is none to prune to"),
        ({"density": 1e-6}, "keeps none of 640 weights"),
        ({"rounds": 0}, "rounds is 0"),
        ({"schedule": "half"}, "it should be one of num, pct"),
        ({"recipe": RECIPE.changed(sparse="set")}, "moves masks, which the rounds of irp hold"),
    ):
        with pytest.raises(TopoError, match=said):
            irp("mlp:64-10", "digits", **{"recipe": RECIPE, **changes})
    masked = topo.apply_masks(topo.models.build("mlp:64-10"), {"fc1.weight": np.eye(10, 64)})
    with pytest.raises(TopoError, match="masked already"):
        irp(masked, "digits", recipe=RECIPE)


def test_a_fit_that_was_killed_goes_on_bit_for_bit(tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    value, slope = torch.randn(1500, generator=rng), torch.randn(1500, generator=rng)
    counts = (value * slope).abs().argsort().argsort() // 500
    write_survival(tmp_path / "s.safetensors", {"a": (value, slope, counts)}, {})
    fit([tmp_path / "s.safetensors"], tmp_path / "whole.safetensors", epochs=3)
    steps, real = [], torch.optim.Adam.step

    def dying(self, *given):
        steps.append(0)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(self, *given)

    out = tmp_path / "p.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            fit([tmp_path / "s.safetensors"], out, epochs=3)
    fit([tmp_path / "s.safetensors"], out, epochs=3, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not (tmp_path / "p.safetensors.state").exists()
