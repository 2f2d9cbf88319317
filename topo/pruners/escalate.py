"""ESCALATE: convolutions as a small basis of kernels, of whose coefficients the largest are kept."""

from __future__ import annotations

import math

import numpy as np
import torch

from topo.decompose import collapse, decompose
from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores
from topo.pruners.selection import top


@pruner(
    data="none", cost="a singular value decomposition a convolution", source="Li et al. 2021, section 3",
    shared_ranking=False, keeps="as many coefficients as asked for, and of each the whole kernel that it scales",
)  # fmt: skip
def escalate(net: Network, batches: Batches, *, rng: np.random.Generator, basis: int = 6) -> Scores:
    """The kernels of each convolution are written in a basis of six, and the largest coefficients are kept.

    W[o, i] ~ sum_m C[o, i, m] B[m], B of the largest singular vectors (`topo.decompose.decompose`), at most `basis` of
    them. Of all N coefficients C, those of linear layers and 1x1 convolutions being their weights, exactly
    round(density N) of the largest magnitude stay. The masks are those of the convolutions that are left: a kernel is
    there iff one of its coefficients is (`topo.decompose.collapse`). A note gives both counts.
    """
    if basis < 1:
        raise TopoError(f"option 'basis' of pruner 'escalate' is {basis}; it is a whole number from 1")
    bases, coefficients = {}, {}
    for name, storage in net.held.items():
        weight = storage.mask(net.weights[name].detach().double().cpu().numpy())
        if weight.ndim > 2 and math.prod(weight.shape[2:]) > 1:
            bases[name], coefficients[name] = decompose(weight, basis)
        else:
            coefficients[name] = weight.reshape(*weight.shape[:2], 1)
    flat = np.concatenate([np.abs(mixed).reshape(-1) for mixed in coefficients.values()])
    size = sum(weight.numel() for weight in net.weights.values())
    share = net.keep / size if net.density is None else net.density
    keep = round(share * flat.size)
    if keep < 1:
        raise TopoError(f"density {share:g} keeps none of {flat.size:,} coefficients; at least one should stay")
    chosen = np.split(top(flat, keep, rng), np.cumsum([mixed.size for mixed in coefficients.values()])[:-1])
    found = {}
    for (name, mixed), flags in zip(coefficients.items(), chosen):
        shape = net.held[name].mask_shape
        kept = flags.reshape(mixed.shape)
        mask = collapse(bases[name], kept).mask if name in bases else kept.reshape(shape)
        found[name] = torch.from_numpy(np.ascontiguousarray(net.held[name].parameter(mask)))
    net.told = (*net.told, f"{keep:,} of {flat.size:,} coefficients of bases of at most {basis} kernels are kept")
    return found
