"""Scores from the loss's first derivative: how much it changes if a weight is taken away."""

from __future__ import annotations

import numpy as np

from topo.pruners import pruner
from topo.pruners.initial import reinitialise
from topo.pruners.network import Batches, Network, Scores


@pruner(data="batches", cost="a backward pass a batch", source="Lee et al. 2019, eq. 5")
def snip(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """|w dL/dw|, the gradient of the mean loss over all batches, the absolute value taken last.

    The paper divides by the sum of all scores, which changes no rank. It takes one batch; most released code, and the
    published comparisons, ten examples of each class.
    """
    return {name: (net.weights[name] * slope).abs() for name, slope in net.gradients(batches).items()}


@pruner(
    data="batches", cost="a backward pass a batch and round", rounds=60, schedule="exponential", double=True,
    source="de Jorge et al. 2021, section 4.2",
)  # fmt: skip
def iter_snip(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """SNIP in rounds; what is pruned stays so."""
    return snip(net, batches, rng=rng)


@pruner(
    data="batches", cost="a backward pass a batch and round", rounds=60, schedule="exponential", regrow=True,
    double=True, source="de Jorge et al. 2021, section 4.1",
)  # fmt: skip
def force(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """|w dL/dw| in rounds, w the dense weight and the gradient taken where pruned weights are 0: they may come back."""
    return {name: (net.dense[name] * slope).abs() for name, slope in net.gradients(batches).items()}


@pruner(
    data="batches", cost="a backward pass a batch and round", rounds=60, schedule="exponential",
    source="de Jorge et al. 2021, appendix (GRASP-It)",
)  # fmt: skip
def grasp_it(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """(dL/dw)**2 in rounds, the gradient taken where pruned weights are 0: what is left of the gradient's norm.

    In small steps the part that a weight has in |g|**2 says what taking it away costs, without a second derivative.
    What is pruned stays so.
    """
    return {name: slope.square() for name, slope in net.gradients(batches).items()}


@pruner(
    data="batches", cost="a backward pass a batch", source="Hayou et al. 2021, section 3", prepare=reinitialise
)  # fmt: skip
def sbp(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """SNIP on weights drawn on the edge of chaos, where gradients neither vanish nor explode with depth.

    The weights are those that `reinitialise(model, rng=seed)` gives a model under the same seed: train from them, after
    `rescale(model, masks)`, since pruning leaves the edge; or use a stable ResNet (`resnet20:branches=stable`), which
    needs no rescaling.
    """
    return snip(net, batches, rng=rng)
