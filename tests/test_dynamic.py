"""Masks that move while a network trains: how many weights go and come, where they grow, what stays as it is."""

from __future__ import annotations

import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.cli import main
from topo.errors import TopoError, TrainingError
from topo.masks import MaskSet
from topo.models.modules.stored import natural
from topo.train import recipe
from topo.train.dynamic import Dynamics, Layer, dynamics, evened, highest, link_scores
from topo.train.folder import Folder
from topo.train.recipe import Recipe

MODEL = "mlp:64-32-10"
RECIPE = Recipe(epochs=3, batch=64, lr=0.05, padding=0, flip=False, schedule="cosine", update_every=10)


def random_masks(shapes, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


MASKS = random_masks({"fc1.weight": (32, 64), "fc2.weight": (10, 32)})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Layers stored in every way that a mask can be turned, grouped ones among them.
LAYERS = {
    "linear": lambda: nn.Linear(12, 8),
    "conv": lambda: nn.Conv2d(4, 6, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
}


def moved(kind, rule, density=0.3, seed=0, alpha=0.6, step=5):
    """A layer, its masks before and after one move, and what the move was given."""
    torch.manual_seed(seed)
    model = nn.Sequential(LAYERS[kind]())
    how = natural(model[0].weight.shape, model[0])
    masks = random_masks({"0.weight": how.mask_shape}, density, seed)
    if dynamics[rule].even:
        masks, _ = evened(masks, seed)
    laid = {"0.weight": torch.from_numpy(how.parameter(masks["0.weight"]).copy())}
    model[0].weight.data.mul_(laid["0.weight"])
    old = how.mask(model[0].weight.detach().numpy().copy())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model[0].weight.grad = torch.randn_like(model[0].weight)
    optimizer.state[model[0].weight]["momentum_buffer"] = torch.ones_like(model[0].weight)
    slope = how.mask(model[0].weight.grad.numpy())
    moving = Dynamics(
        rule, model, masks, {"0.weight": how}, laid, every=step, alpha=alpha, end=2 * step, seed=seed
    )  # at half of T_end: f = alpha / 2
    moving.move(step, optimizer)
    momentum = how.mask(optimizer.state[model[0].weight]["momentum_buffer"].numpy())
    new = how.mask(model[0].weight.detach().numpy())
    return masks["0.weight"], moving.masks()["0.weight"], old, new, slope, momentum


@pytest.mark.parametrize("rule", list(dynamics))
@pytest.mark.parametrize("kind", list(LAYERS))
def test_exactly_as_many_grow_as_go_and_the_smallest_go(kind, rule):
    before, after, old, new, slope, momentum = moved(kind, rule)
    count = math.floor(0.3 * before.sum())
    gone, grown, stay = before & ~after, after & ~before, before & after
    assert gone.sum() == grown.sum() == count and after.sum() == before.sum()
    assert np.abs(old[gone]).max() <= np.abs(old[stay]).min()
    assert (new[stay] == old[stay]).all() and not new[~stay].any()
    assert (momentum == stay).all()
    if rule == "rigl":
        assert np.abs(slope[grown]).min() >= np.abs(slope[~before & ~after]).max()
    if rule == "rigl_constant":
        fans = after.reshape(len(after), -1).sum(1)
        assert fans.max() - fans.min() <= 1 and (fans == before.reshape(len(before), -1).sum(1)).all()
        for unit in range(len(after)):
            if grown[unit].any():
                assert np.abs(slope[unit][grown[unit]]).min() >= np.abs(slope[unit][~before[unit] & ~after[unit]]).max()


@pytest.mark.parametrize("rule", list(dynamics))
def test_a_layer_without_room_keeps_its_count(rule):
    before, after, *_ = moved("linear", rule, density=0.95, alpha=1.0)
    assert after.sum() == before.sum()
    assert (~before & after).sum() == (~before).sum()  # every empty place grew


def test_link_scores_are_those_of_every_path_counted():
    mask = random_masks({"w": (7, 9)}, 0.4)["w"]
    graph = nx.Graph()
    graph.add_nodes_from([*(("u", i) for i in range(7)), *(("v", j) for j in range(9))])
    graph.add_edges_from((("u", i), ("v", j)) for i, j in zip(*np.nonzero(mask)))
    found = link_scores(torch.tensor(mask))
    for i, j in zip(*np.nonzero(~mask)):
        u, v = ("u", i), ("v", j)
        paths = [(a, b) for a in graph[u] for b in graph[v] if graph.has_edge(a, b)]
        on = {u, v} | {node for path in paths for node in path}
        outside = {z: sum(other not in on for other in graph[z]) for z in on}
        due = sum(((1 + outside[a]) * (1 + outside[b])) ** -0.5 for a, b in paths)
        assert found[i, j].item() == pytest.approx(due, rel=1e-5)


def test_cht_draws_with_odds_by_the_score():
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    odds = torch.where(mask, 0.0, link_scores(mask))
    counts, draw = torch.zeros(mask.shape), torch.Generator().manual_seed(0)
    for _ in range(2000):
        layer = Layer(mask, torch.zeros(mask.shape), 1, draw)
        counts += highest(dynamics["cht"].score(layer), 1, ~mask, draw)
    torch.testing.assert_close(counts / 2000, odds / odds.sum(), atol=0.04, rtol=0)


def test_equal_scores_are_drawn_by_the_seed():
    scores, among = torch.zeros(50), torch.ones(50, dtype=torch.bool)
    drawn = [highest(scores, 20, among, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2]) and drawn[2].sum() == 20


def test_the_share_falls_by_a_cosine_and_ends():
    model = nn.Sequential(nn.Linear(3, 2))
    mask = {"0.weight": torch.ones(2, 3, dtype=torch.bool)}
    held = {"0.weight": natural((2, 3), model[0])}
    masks = MaskSet({"0.weight": np.ones((2, 3))})
    moving = Dynamics("set", model, masks, held, mask, every=10, alpha=0.3, end=75, seed=0)
    assert moving.share(0) == pytest.approx(0.3) and moving.share(37.5) == pytest.approx(0.15)
    assert [moving.share(step) for step in (75, 76, 1000)] == [0, 0, 0]
    assert [step for step in range(1, 200) if moving.due(step)] == [10, 20, 30, 40, 50, 60, 70]


@pytest.mark.parametrize("rule", list(dynamics))
def test_training_keeps_counts_and_remembers_masks(rule, tmp_path):
    recipe = RECIPE.changed(sparse=rule, mask_epochs=[0, 1, 3])
    done = topo.train(MODEL, "digits", masks=MASKS, recipe=recipe, out=tmp_path / "run")
    kept = [topo.read_masks(tmp_path / "run" / "masks" / f"epoch_{epoch:04d}.safetensors") for epoch in (0, 1, 3)]
    assert len(list((tmp_path / "run" / "masks").iterdir())) == 3
    for masks in (*kept, done.masks):
        assert [masks[name].sum() for name in masks] == [MASKS[name].sum() for name in MASKS]
    assert kept[2] == done.masks == topo.read_masks(tmp_path / "run" / "masks.safetensors") != kept[0]
    assert kept[0] == (evened(MASKS, 0)[0] if dynamics[rule].even else MASKS)
    assert topo.verify_masks(done.model, done.masks) == () and done.final_accuracy > 0.7
    assert any("to keep as many" in note for note in done.notes) == dynamics[rule].even
    assert done.masks.provenance["sparse"] == rule


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_alpha_0_is_static_training_bit_for_bit(optimizer):
    recipe = RECIPE.changed(optimizer=optimizer, lr=0.01, ema=0.9, clip=1.0)
    still = topo.train(MODEL, "digits", masks=MASKS, recipe=recipe)
    moving = topo.train(MODEL, "digits", masks=MASKS, recipe=recipe.changed(sparse="rigl", alpha=0.0))
    assert same(still.model.state_dict(), moving.model.state_dict()) and moving.masks == MASKS


class Interrupting(nn.Module):
    def __init__(self, stop=None):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(64, 32), nn.Linear(32, 10)
        self.stop, self.calls = stop, 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == self.stop:
            raise KeyboardInterrupt
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


@pytest.mark.parametrize(
    "rule, optimizer", [("set", "adam"), ("rigl", "sgd"), ("rigl_constant", "sgd"), ("cht", "sgd")]
)
def test_an_interrupted_run_goes_on_bit_for_bit(rule, optimizer, tmp_path):
    recipe = RECIPE.changed(sparse=rule, optimizer=optimizer, lr=0.01, ema=0.9)
    straight = topo.train(Interrupting(), "digits", masks=MASKS, recipe=recipe, rng=2)
    with pytest.raises(KeyboardInterrupt):
        topo.train(Interrupting(40), "digits", masks=MASKS, recipe=recipe, rng=2, out=tmp_path)
    assert Folder(tmp_path).read_checkpoint()["epoch"] == 1  # 23 steps an epoch
    resumed = topo.train(Interrupting(), "digits", masks=MASKS, recipe=recipe, rng=2, out=tmp_path, resume=True)
    assert same(straight.model.state_dict(), resumed.model.state_dict()) and straight.masks == resumed.masks
    assert topo.verify_masks(resumed.model, resumed.masks) == ()  # of the averaged weights, too


def test_masks_on_the_model_move_and_are_put_back_as_moved():
    model = topo.apply_masks(topo.models.build(MODEL), MASKS)
    done = topo.train(model, "digits", recipe=RECIPE.changed(sparse="set"))
    assert done.masks != MASKS and topo.read_masks(done.model) == done.masks
    alone = topo.train(topo.models.build(MODEL), "digits", masks=MASKS, recipe=RECIPE.changed(sparse="set"))
    assert topo.verify_masks(alone.model, alone.masks) == ()


def test_the_command_starts_from_erk_masks_of_a_density(tmp_path, capsys):
    line = ["train", "dense", "--model", "digits_conv", "--data", "digits", "--epochs", "1", "-O", "update_every=5"]
    line += ["-O", "sparse=rigl", "-O", "mask_epochs=[0]"]
    assert main([*line, "-O", "density=0.1", "-o", str(tmp_path / "run")]) == 0
    end, start = (
        topo.read_masks(tmp_path / "run" / name) for name in ("masks.safetensors", "masks/epoch_0000.safetensors")
    )
    due = topo.quotas.budgets("erk", start.shapes, density=0.1)
    for masks in (start, end):
        assert {name: int(masks[name].sum()) for name in masks} == due
    assert start != end
    capsys.readouterr()
    assert main([*line, "-o", str(tmp_path / "none")]) == 1
    assert "moves masks and there are none; give some, or density = 0.1" in capsys.readouterr().err


def test_what_cannot_move():
    tied = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10))
    tied[2].weight = tied[1].weight
    frozen = topo.models.build(MODEL)
    frozen.fc1.weight.requires_grad_(False)
    normed = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 10)))
    eye = np.eye(64)
    for model, masks, changes, said in (
        (MODEL, MASKS, {"sparse": "rigel"}, "it should be one of static, set, rigl, rigl_constant, cht"),
        (MODEL, MASKS, {"density": 0.1}, "left out unless sparse names a method"),
        (MODEL, MASKS, {"mask_epochs": [1]}, "left out unless sparse names a method"),
        (MODEL, MASKS, {"sparse": "set", "mask_epochs": [4]}, "it should be epochs from 0 to 3"),
        (MODEL, MASKS, {"sparse": "set", "mask_epochs": [0.5]}, "a list of epochs, whole numbers"),
        (MODEL, MASKS, {"sparse": "set", "alpha": 1.5}, "alpha = 1.5; it should be a number from 0, at most 1"),
        (MODEL, MASKS, {"sparse": "set", "density": 0.1}, "masks are given; leave one of them out"),
        (MODEL, None, {"sparse": "set"}, "there are none"),
        (tied, {"1.weight": eye, "2.weight": eye}, {"sparse": "set"}, "'1.weight' and '2.weight' are one weight"),
        (frozen, MASKS, {"sparse": "set"}, "'fc1.weight' is frozen"),
        (normed, {"1.weight": np.eye(10, 64)}, {"sparse": "set"}, "'1.weight' is computed by a parametrization"),
    ):
        with pytest.raises(TopoError, match=said):
            topo.train(model, "digits", masks=masks, recipe=RECIPE.table() | changes)
    with pytest.raises(TrainingError, match="moves masks, which imp's levels hold"):
        topo.imp(MODEL, "digits", density=0.5, recipe=RECIPE.changed(sparse="set"))


def test_every_method_has_its_place_on_the_page():
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    part = page.partition("## Masks that move")[2].partition("\n## ")[0]
    for name in dynamics:
        said = part.partition(f"### {name}\n")[2].partition("###")[0]
        assert all(word in said for word in ("Needs:", "Cost:", "Source:")), name


def test_rules_that_recipes_know_without_torch_are_those_of_this_project():
    own = [name for name, rule in dynamics.items() if rule.score.__module__ == "topo.train.dynamic"]
    assert sorted(own) == sorted(recipe._OWN)
