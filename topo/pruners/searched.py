"""Masks that are trained while the weights stay as they were drawn: edge-popup and Gem-Miner."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores
from topo.pruners.search_state import SearchState, as_tensors, of_generator, to_generator
from topo.pruners.selection import top
from topo.quotas import budgets


@pruner(
    data="batches", cost="a forward and backward pass a batch and epoch", source="Ramanujan et al. 2020, section 3",
    modes=("train", "statistics", "eval"), shared_ranking=False,
)  # fmt: skip
def edge_popup(
    net: Network,
    batches: Batches,
    *,
    rng: np.random.Generator,
    epochs: int = 100,
    lr: float = 0.1,
    weights: str = "signed",
    share: str = "uniform",
    state: str = "",
) -> Scores:
    """A score for each weight is trained, and the highest are kept; the weights themselves never change.

    Scores s begin Kaiming-uniform (a = sqrt 5). At each step the largest |s| are kept, and the gradient goes to all,
    straight through: dL/ds = dL/dw theta sign(s). SGD with momentum .9, weight decay 1e-4, cosine. weights: signed,
    theta = sign(w) gain / sqrt(fan in), or model, as they are. share: a quota by which each layer keeps its own
    largest; global; or gradual, which is global with a density that falls to the one asked for. state: a file that
    keeps what was reached after each epoch; a search that was killed goes on from it, bit for bit on the same device.
    """
    theta, draw = _theta(net, weights), _generator(rng)
    _check(epochs, 1, "edge_popup")
    scores = {}
    for name, weight in net.weights.items():
        bound = 1 / math.sqrt(_fan_in(net, name))
        scores[name] = (torch.rand(weight.shape, generator=draw) * 2 - 1).mul_(bound).to(weight)
    optimizer = torch.optim.SGD(list(scores.values()), lr, 0.9, weight_decay=1e-4)
    size = sum(weight.numel() for weight in net.weights.values())
    words = ["edge_popup", epochs, lr, weights, share, net.keep, net.module.training, of_generator(rng)]
    kept = SearchState(state, words, as_tensors([theta, list(batches)]))
    start = 0
    if (held := kept.read()) is not None:
        start = _taken_up(held, scores, optimizer, draw, rng)
    for epoch in range(start, epochs):
        _rate(optimizer, lr, epoch, epochs)
        keep = round(size * (net.keep / size) ** ((epoch + 1) / epochs)) if share == "gradual" else net.keep
        for place in torch.randperm(len(batches), generator=draw).tolist():
            for name, flags in _highest(net, scores, keep, share, rng=None).items():
                net.weights[name].data.copy_(theta[name] * flags)
            for name, slope in net.gradients([batches[place]]).items():
                scores[name].grad = slope * theta[name] * scores[name].sign()
            optimizer.step()
        kept.write(**_reached(epoch + 1, scores, optimizer, draw, rng))
    return _highest(net, scores, net.keep, share, rng)


@pruner(
    data="batches", cost="a forward and backward pass a batch and epoch", source="Sreenivasan et al. 2022, section 4",
    modes=("train", "statistics", "eval"), shared_ranking=False,
)  # fmt: skip
def gem_miner(
    net: Network,
    batches: Batches,
    *,
    rng: np.random.Generator,
    epochs: int = 150,
    every: int = 5,
    lr: float = 0.1,
    penalty: float = 3e-5,
    weights: str = "signed",
    state: str = "",
) -> Scores:
    """A probability p for each weight is trained under a penalty, and the smallest are frozen to 0 bit by bit.

    p begins in U[0, 1]; a weight counts where p > 1/2, and the gradient goes straight through: dL/dp = dL/dw theta + 2
    penalty p. SGD with momentum .9, cosine; p stays in [0, 1]. After every `every` epochs the ceil(q live) smallest
    live p are 0 for ever, q = 1 - density^(1 / floor((epochs - 1) / every)), until exactly the budget is live: the
    mask. weights, state: as in edge_popup. The released code then drops live weights of p <= 1/2, too, and falls short
    of the budget; here they stay. Train from sign(w) gain / sqrt(fan in) to finetune as the paper does.
    """
    theta, draw = _theta(net, weights), _generator(rng)
    _check(epochs, every + 1, "gem_miner")
    _check(every, 1, "gem_miner", "every")
    chances = {name: torch.rand(w.shape, generator=draw).to(w) for name, w in net.weights.items()}
    live = {name: torch.ones_like(chance, dtype=torch.bool) for name, chance in chances.items()}
    left = size = sum(chance.numel() for chance in chances.values())
    gone = 1 - (net.keep / size) ** (1 / ((epochs - 1) // every))
    optimizer = torch.optim.SGD(list(chances.values()), lr, 0.9)
    words = ["gem_miner", epochs, every, lr, penalty, weights, net.keep, net.module.training, of_generator(rng)]
    kept = SearchState(state, words, as_tensors([theta, list(batches)]))
    start = 0
    if (held := kept.read()) is not None:
        start, left = _taken_up(held, chances, optimizer, draw, rng), held["left"]
        live = {name: flags.to(chances[name].device) for name, flags in held["live"].items()}
    for epoch in range(start + 1, epochs + 1):
        _rate(optimizer, lr, epoch - 1, epochs)
        for place in torch.randperm(len(batches), generator=draw).tolist():
            for name, chance in chances.items():
                chance.clamp_(0, 1).mul_(live[name])
                net.weights[name].data.copy_(theta[name] * (chance > 0.5))
            for name, slope in net.gradients([batches[place]]).items():
                chances[name].grad = (slope * theta[name] + 2 * penalty * chances[name]) * live[name]
            optimizer.step()
        for name, chance in chances.items():
            chance.clamp_(0, 1).mul_(live[name])
        if epoch % every == 0 and epoch < epochs:
            left -= min(math.ceil(gone * left), left - net.keep)
            ranked = {name: torch.where(live[name], chance, -1.0) for name, chance in chances.items()}
            live = _flags(ranked, left, rng)
        kept.write(**_reached(epoch, chances, optimizer, draw, rng), live=live, left=left)
    return live


def _reached(
    epoch: int,
    values: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    draw: torch.Generator,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What both searches keep after an epoch."""
    found = {"epoch": epoch, "values": values, "optimizer": optimizer.state_dict(), "draw": draw.get_state()}
    return {**found, "rng": of_generator(rng)}


def _taken_up(
    held: dict[str, Any],
    values: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    draw: torch.Generator,
    rng: np.random.Generator,
) -> int:
    """Bring everything to where an earlier process left it; the epochs that are done."""
    for name, value in values.items():
        value.copy_(held["values"][name])
    optimizer.load_state_dict(held["optimizer"])
    draw.set_state(held["draw"])
    to_generator(rng, held["rng"])
    return int(held["epoch"])


def _theta(net: Network, weights: str) -> dict[str, Tensor]:
    """The weights that stay: sign(w) gain / sqrt(fan in), of equal variance with He's, or as they are."""
    if weights not in ("signed", "model"):
        raise TopoError(f"weights is {weights!r}; it is signed or model")
    if weights == "model":
        return {name: weight.detach().clone() for name, weight in net.weights.items()}
    return {
        name: torch.where(weight.detach() < 0, -1.0, 1.0).to(weight) * math.sqrt(2 / _fan_in(net, name))
        for name, weight in net.weights.items()
    }


def _fan_in(net: Network, name: str) -> int:
    """How many weights an output unit has."""
    return max(1, math.prod(net.held[name].mask_shape[1:]))


def _highest(
    net: Network, scores: dict[str, Tensor], keep: int, share: str, rng: np.random.Generator | None
) -> dict[str, Tensor]:
    """Flags of the largest |s|, of all layers or by the quota's counts; without a generator the first of equal ones."""
    found = {name: score.abs() for name, score in scores.items()}
    if share in ("global", "gradual"):
        return _flags(found, keep, rng)
    counts = budgets(share, net.shapes, total=keep)
    return {name: _flags({name: score}, counts[name], rng)[name] for name, score in found.items()}


def _flags(scores: dict[str, Tensor], keep: int, rng: np.random.Generator | None) -> dict[str, Tensor]:
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    if rng is None:
        flags = torch.zeros_like(flat, dtype=torch.bool)
        flags[flat.topk(keep, sorted=False).indices] = True
    else:
        flags = torch.from_numpy(top(flat.double().cpu().numpy(), keep, rng)).to(flat.device)
    parts = flags.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts)}


def _rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int, epochs: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


def _check(value: int, least: int, method: str, option: str = "epochs") -> None:
    if value < least:
        raise TopoError(f"option '{option}' of pruner '{method}' is {value}; it is a whole number from {least}")
