"""Masks that are trained while weights stay: budgets, flags that never return, and nets that know digits untrained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.data import batches, load
from topo.errors import TopoError
from topo.pruners import prune, searched
from topo.quotas import budgets

SEEN = list(batches(load("digits"), 200, 0, per_class=40, count=2))


def accuracy(masks, model) -> float:
    """Of the signed weights under masks, on the test part, with the statistics of each batch."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                fan = math.prod(weight.shape[1:])
                signed = torch.where(weight < 0, -1.0, 1.0) * (2 / fan) ** 0.5
                weight.copy_(signed * torch.tensor(masks[name]))
        data = load("digits")
        x = torch.from_numpy(data.test_images).float().div(255)
        mean, std = (torch.tensor(side)[:, None, None] for side in (data.mean, data.std))
        answers = model.train()((x - mean) / std)
    return (answers.argmax(1) == torch.from_numpy(np.array(data.test_labels))).float().mean().item()


def build():
    torch.manual_seed(0)
    return topo.models.build("mlp:64-128-10")


@pytest.mark.parametrize("method, options", [("edge_popup", {"epochs": 25}), ("gem_miner", {"epochs": 41})])
def test_untrained_weights_under_found_masks_know_the_digits(method, options):
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = prune(method, model, density=0.3, batches=SEEN, **options)
    assert masks.kept == round(0.3 * masks.size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert prune(method, model, density=0.3, batches=SEEN, **options) == masks
    assert accuracy(masks, build()) > 0.5
    chance = topo.generate("random", "mlp:64-128-10", density=0.3, rng=1)
    assert accuracy(chance, build()) < 0.35


@pytest.mark.parametrize("share", ["uniform", "erk", "global", "gradual"])
def test_edge_popup_keeps_what_the_share_says(share):
    masks = prune("edge_popup", build(), density=0.11, batches=SEEN, epochs=3, share=share)
    assert masks.kept == round(0.11 * masks.size)
    if share in ("uniform", "erk"):
        due = budgets(share, masks.shapes, total=masks.kept)
        assert {name: int(masks[name].sum()) for name in masks} == due


def test_gem_miner_freezes_the_smallest_for_ever(monkeypatch):
    seen, flags = [], searched._flags

    def watched(scores, keep, rng):
        found = flags(scores, keep, rng)
        seen.append((scores, keep, found))
        return found

    monkeypatch.setattr(searched, "_flags", watched)
    prune("gem_miner", build(), density=0.0372, batches=SEEN, epochs=31)
    size = 64 * 128 + 128 * 10
    left, q = size, 1 - (round(0.0372 * size) / size) ** (1 / 6)
    assert len(seen) == 6
    for number, (scores, keep, found) in enumerate(seen):
        left -= min(math.ceil(q * left), left - round(0.0372 * size))
        assert keep == left == sum(int(each.sum()) for each in found.values())
        kept = torch.cat([scores[name][found[name]] for name in scores])
        gone = torch.cat([scores[name][~found[name]] for name in scores])
        assert kept.min() >= gone.max() and kept.min() >= 0
        if number:
            assert all(not (found[name] & ~seen[number - 1][2][name]).any() for name in found)
    assert left == round(0.0372 * size)


def test_one_step_of_edge_popup_is_its_formula():
    """Of one linear layer: |s| is moved by lr dL/dw theta sign(s)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    moved = {}
    real = torch.optim.SGD.step

    def step(self, *given):
        moved["scores"] = self.param_groups[0]["params"][0]
        moved["grad"] = moved["scores"].grad.clone()
        moved["before"] = moved["scores"].clone()
        return real(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        prune("edge_popup", model, density=0.5, batches=SEEN[:1], epochs=1)
    x, y = (torch.as_tensor(part) for part in SEEN[0])
    theta = torch.where(model[1].weight < 0, -1.0, 1.0) * (2 / 64) ** 0.5
    scores = moved["before"].clone().requires_grad_()
    keep = torch.zeros(640, dtype=torch.bool)
    keep[scores.detach().abs().flatten().topk(320).indices] = True
    flags = keep.view(10, 64) + scores.abs() - scores.abs().detach()
    loss = nn.functional.cross_entropy(x.flatten(1) @ (theta.detach() * flags).T, y.long())
    torch.testing.assert_close(moved["grad"], torch.autograd.grad(loss, scores)[0])


def test_bad_options_are_one_line():
    for method, options, said in (
        ("gem_miner", {"epochs": 5}, "'epochs' of pruner 'gem_miner' is 5; it is a whole number from 6"),
        ("edge_popup", {"epochs": 0}, "'epochs' of pruner 'edge_popup' is 0"),
        ("edge_popup", {"weights": "own"}, "weights is 'own'; it is signed or model"),
        ("edge_popup", {"share": "half"}, "half"),
    ):
        with pytest.raises(TopoError, match=said):
            prune(method, build(), density=0.3, batches=SEEN, **options)
    with pytest.raises(TopoError, match="needs data"):
        prune("gem_miner", build(), density=0.3)


@pytest.mark.parametrize("method, options", [
    ("edge_popup", {"epochs": 5}), ("gem_miner", {"epochs": 7, "every": 2}),
])  # fmt: skip
def test_a_search_that_was_killed_goes_on_bit_for_bit(method, options, tmp_path, monkeypatch):
    """With dropout, which draws from torch's own generator, and killed inside an epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(0.3), nn.ReLU(), nn.Linear(20, 10))
    how = {"density": 0.2, "batches": SEEN, "rng": 3, **options}
    whole = prune(method, net, **how)
    steps, real = [], torch.optim.SGD.step

    def dying(self, *given):
        steps.append(0)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return real(self, *given)

    state = tmp_path / "search.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            prune(method, net, state=str(state), **how)
    gone_on = prune(method, net, state=str(state), **how)
    assert gone_on == whole and gone_on.provenance["options"] == whole.provenance["options"] | {}
    assert prune(method, net, state=str(state), **how) == whole  # a search that is done is read
    for other in ({"rng": 4}, {"density": 0.3}, {"batches": SEEN[:1]}, {"lr": 0.2}):
        with pytest.raises(TopoError, match="a search with other options, weights or data"):
            prune(method, net, state=str(state), **how | other)
    state.write_bytes(b"x")
    with pytest.raises(TopoError, match="is not a state of a search"):
        prune(method, net, state=str(state), **how)
