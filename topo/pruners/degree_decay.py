"""WideTopo's decay: scores divided by a power of the degrees at both ends, so that no unit loses its last weights."""

from __future__ import annotations

import math

import numpy as np


def degree_decay(alive: np.ndarray, groups: int, density: float, scale: float) -> np.ndarray:
    """(k_out k_in)^(-kappa / scale) for every weight of a layer, kappa = -log10(density) of the whole network now.

    alive: bool (out, in / groups, ...), the weights that are left. k_out: how many of them read the weight's input
    channel; k_in: how many its output channel reads; at least 1. The sparser the network, the more a weight counts
    whose units have few others. Deng et al. 2026; their scale is 5.

    >>> degree_decay(np.array([[True, True], [True, False]]), 1, 0.01, 2.0)
    array([[0.25, 0.5 ],
           [0.5 , 1.  ]])
    """
    if density >= 1:
        return np.ones(alive.shape)
    out, per_group = alive.shape[0], alive.shape[1]
    kernels = alive.reshape(groups, out // groups, per_group, -1).sum(3)
    k_in = np.maximum(kernels.sum(2, keepdims=True), 1)
    k_out = np.maximum(kernels.sum(1, keepdims=True), 1)
    factor = (k_in * k_out).astype(float) ** (math.log10(density) / scale)
    return np.broadcast_to(factor.reshape(out, per_group, *[1] * (alive.ndim - 2)), alive.shape).copy()
