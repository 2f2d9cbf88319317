"""GraSP: keep the gradient flow."""

from __future__ import annotations

import numpy as np
import torch

from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores


@pruner(data="batches", cost="two passes and a second derivative a batch", source="Wang et al. 2020, eq. 8")
def grasp(net: Network, batches: Batches, *, rng: np.random.Generator, temperature: float = 200.0) -> Scores:
    """w (H g), H the Hessian and g the gradient of the loss: taking the lowest away raises |g| most.

    The loss has logits / temperature; dividing the log-softmax, as is also seen, is another function. H g is the
    gradient of <stop(g), g>, summed over batches. The paper writes -w H g and removes the largest, which is the same.
    """
    if not temperature > 0:
        raise TopoError(f"temperature is {temperature!r}; it is a positive number")
    slopes = net.gradients(batches, temperature)
    curved = {name: torch.zeros_like(weight) for name, weight in net.weights.items()}
    for loss in net.losses(batches, temperature):
        again = net.derivative(loss, create_graph=True)
        along = torch.stack([(slopes[name] * slope).sum() for name, slope in zip(net.weights, again)]).sum()
        for held, found in zip(curved.values(), net.derivative(along)):
            held += found
    return {name: net.weights[name] * curved[name] for name in net.weights}
