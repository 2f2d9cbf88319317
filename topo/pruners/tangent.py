"""NTK-SAP: how much of the tangent kernel's trace hangs on each weight, without data and for any weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores


@pruner(
    data="none", cost="four passes and a backward pass of noise a draw and round", rounds=20, double=True,
    modes=("eval",), source="Wang et al. 2023, algorithm 1",
)  # fmt: skip
def ntk_sap(
    net: Network,
    batches: Batches,
    *,
    rng: np.random.Generator,
    draws: int = 5,
    examples: int = 128,
    epsilon: float = 0.01,
) -> Scores:
    """|d/dm sum over x of |f(x; w m) - f(x; (w + epsilon D) m)|^2|: the trace of the tangent kernel, by one probe.

    Each of `draws` batches has new weights w, N(0, 2 / fan-in), a direction D ~ N(0, 1) and `examples` inputs x ~
    N(0, 1) of the data's shape; the derivatives at m = 1 are summed, their absolute value is taken last. Batch norms
    are as new and use the batch's statistics of the unmoved network in both copies. The model's own weights do not
    count, only their shapes, and what of them is pruned. 5 draws and 20 rounds are the paper's for ResNet-20; its
    larger networks have `-O draws=1 -O rounds=100`. The difference of two outputs needs float64, the default here.
    """
    if draws < 1 or examples < 2 or not epsilon > 0:
        raise TopoError(
            f"ntk_sap has draws={draws}, examples={examples}, epsilon={epsilon}; "
            "it takes at least 1 draw, 2 examples and a positive epsilon"
        )
    total = {name: torch.zeros_like(weight) for name, weight in net.weights.items()}
    like = next(iter(net.weights.values()))
    for _ in range(draws):
        drawn = {name: torch.randn_like(weight) * _spread(net, name) for name, weight in net.weights.items()}
        moved = {name: drawn[name] + epsilon * torch.randn_like(weight) for name, weight in drawn.items()}
        x = torch.randn(examples, *net.known_shape(), dtype=like.dtype, device=like.device)
        for held, slope in zip(total.values(), moved_apart(net, x, drawn, moved)):
            held += slope
    return {name: slope.abs() for name, slope in total.items()}


def _spread(net: Network, name: str) -> float:
    """Standard deviation of He's initialisation."""
    return math.sqrt(2 / math.prod(net.held[name].mask_shape[1:]))


def moved_apart(net: Network, x: Tensor, drawn: dict[str, Tensor], moved: dict[str, Tensor]) -> list[Tensor]:
    """d/dm of sum |f(x; drawn m) - f(x; moved m)|^2 where m is 1, and 0 for what is pruned, by weight."""
    alive = {
        name: (~((weight == 0) & (net.dense[name] != 0))).to(x.dtype).requires_grad_(True)
        for name, weight in net.weights.items()
    }
    norms = _norms_as_new(net)
    for norm in norms:
        norm.train()
    with torch.no_grad():
        _given(net, drawn, alive, x)
    for norm in norms:
        norm.eval()
    apart = (_given(net, drawn, alive, x) - _given(net, moved, alive, x)).square().sum()
    return list(net.slopes(apart, alive))


def _given(net: Network, weights: dict[str, Tensor], alive: dict[str, Tensor], x: Tensor) -> Tensor:
    return net.logits_with({n: w * alive[n] for n, w in weights.items()}, x)


@torch.no_grad()
def _norms_as_new(net: Network) -> list[_BatchNorm]:
    """The batch norms of the working copy, without scale and shift, that take on a batch's statistics at once."""
    norms = [part for part in net.module.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        norm.reset_parameters()
        norm.momentum = 1.0
    return norms
