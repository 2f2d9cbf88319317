"""Scores from the weights alone, or from nothing."""

from __future__ import annotations

import numpy as np
import torch

from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores


@pruner(data="none", cost="none", source="definition")
def random(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """Random scores: the same density in every layer, in expectation."""
    return {name: torch.from_numpy(rng.random(tuple(weight.shape))) for name, weight in net.weights.items()}


@pruner(data="none", cost="none", source="Han et al. 2015")
def magnitude(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """|w|. Globally and at the start it only ranks layers by their spread, 1 / sqrt(fan-in), and empties wide ones.

    From torch's own bounded start, U(-1, 1) / sqrt(fan-in), a ResNet-18 at density 10**-1.5 loses seven layers whole;
    from normal weights their tails keep a few weights in each.
    """
    return {name: weight.abs() for name, weight in net.weights.items()}


@pruner(data="none", cost="a sort", source="Lee et al. 2021, eq. 2")
def lamp(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """w**2 over the sum of the squares in its layer that are not smaller: magnitude, with layers made comparable.

    Of equal squares one goes before the other by lot, not by place.
    """
    scores = {}
    for name, weight in net.weights.items():
        lot = torch.from_numpy(rng.permutation(weight.numel())).to(weight.device)
        squares, order = weight.double().square().view(-1)[lot].sort(descending=True, stable=True)
        shares = squares / squares.cumsum(0).clamp_min(1e-300)
        scores[name] = torch.empty_like(squares).scatter_(0, lot[order], shares).view(weight.shape)
        net.by_lot[name] = weight.detach().double().abs()
    return scores
