"""SynFlow: synaptic flow, one pass of ones through the absolute values of the weights.

Patent note: the method is the subject of a United States patent, US 12,406,185 (granted 2025-09-02, NTT Research and
Stanford University). This is not legal advice; whoever uses `synflow` in the United States may want to read its claims.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from topo.pruners import pruner
from topo.pruners.blocks import begin, block_of
from topo.pruners.network import Batches, Network, Scores
from topo.pruners.signal import Signal


@torch.no_grad()
def absolute(module: nn.Module, *, rng: np.random.Generator) -> None:
    """Every parameter and floating-point buffer, batch-norm statistics included, by its absolute value, in place."""
    for values in module.state_dict().values():
        if values.is_floating_point():
            values.abs_()


@torch.no_grad()
def squared(module: nn.Module, *, rng: np.random.Generator) -> None:
    """Every parameter squared, every floating-point buffer by its absolute value, in place."""
    absolute(module, rng=rng)
    for parameter in module.parameters():
        parameter.square_()


@pruner(
    data="none", cost="a pass of one example a round", rounds=100, double=True, prepare=absolute, modes=("eval",),
    source="Tanaka et al. 2020, algorithm 1; patented in the US",
)  # fmt: skip
def synflow(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """|w| dR/d|w|, R the sum of the outputs for an input of ones through absolute weights.

    R is linear in each layer, so the scores of a layer that all paths cross sum to R, and what a unit takes in it gives
    out (without biases): pruning in rounds therefore empties no layer before the others, which one round may. Float32
    is not enough from ResNet-32 on, where R passes 3e38; where even float64 is not, a power of two is kept beside the
    numbers (`topo.pruners.signal`). In batch norm's train mode the input of ones would be normalised away.

    US patent 12,406,185 covers iterative synaptic flow pruning; see the top of this file.
    """
    return flow(net)


@pruner(
    data="none", cost="a pass of one example a round", rounds=100, double=True, prepare=squared, modes=("eval",),
    source="Tanaka et al. 2020; Patil & Dovrolis 2021, section 3",
)  # fmt: skip
def synflow_l2(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """w**2 dR/d(w**2): SynFlow of the squared weights, the saliency of the path kernel's trace.

    Some released code multiplies the same derivative by |w| instead.
    """
    return flow(net)


def flow(net: Network) -> Scores:
    """w dR/dw for weights that are not negative, R the sum of the outputs for an input of ones.

    All of it divided by one power of two, where the numbers would grow too large. Where the network keeps blocks, the
    scores are those of live weights.
    """
    for name, places in (net.alive or {}).items():
        if block_of(weight := net.weights[name]) is None:
            begin(weight, torch.from_numpy(places).to(weight.device))
    output = net.logits_with({}, Signal.ones(net.ones()))
    total = (output.stored if isinstance(output, Signal) else output).sum()
    blocks = {name: block for name, weight in net.weights.items() if (block := block_of(weight)) is not None}
    inner = [(name, block.values) for name, block in blocks.items() if block.values is not None]
    slopes = net.found_slopes(total, [*net.weights.items(), *inner])
    whole, narrow = dict(zip(net.weights, slopes)), dict(zip((name for name, _ in inner), slopes[len(net.weights) :]))
    scores = {}
    for name, weight in net.weights.items():
        slope, block = whole[name], blocks.get(name)
        if block is None:
            scores[name] = torch.zeros_like(weight) if slope is None else slope.mul_(weight.detach())
            continue
        scores[name] = block.scores(narrow.get(name) if name in narrow else slope)
        if name in narrow and slope is not None:  # it is also read by something else than a convolution
            scores[name] += (slope * weight.detach()).reshape(-1)[block.places(weight)]
    return scores
