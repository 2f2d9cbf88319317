"""The weights that go with a mask: the edge of chaos, and back to it after pruning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from topo._support.seeds import as_rng
from topo.errors import MaskError
from topo.masks import as_mask_set
from topo.models import prunable
from topo.models.modules.holders import Holder, write_weight


def _fan_in(part: nn.Linear | _ConvNd) -> int:
    """Weights that one output of a linear layer or convolution reads."""
    weight = part.weight
    first = part.in_channels // part.groups if isinstance(part, _ConvTransposeNd) else weight.shape[1]
    return int(first * math.prod(weight.shape[2:]))


@torch.no_grad()
def reinitialise(model: nn.Module, *, rng: int | np.random.Generator = 0, variance: float = 2.0) -> nn.Module:
    """Draw the weights of every linear layer and convolution anew, in place: N(0, variance / fan-in).

    Biases become 0, batch norms as new. With variance 2 and ReLU this is He's initialisation and the edge of chaos of
    Hayou et al. 2021 (sigma_w**2 = 2, sigma_b = 0), and it is how `topo.models` starts: the `reinitialise` ablation of
    Frankle et al. 2021. Returns the model.
    """
    draw = as_rng(rng)
    for path, part in model.named_modules():
        if isinstance(part, nn.Linear | _ConvNd):
            values = draw.standard_normal(tuple(part.weight.shape)) * math.sqrt(variance / _fan_in(part))
            write_weight(Holder(path, part, "weight"), torch.from_numpy(values))
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, _BatchNorm):
            part.reset_parameters()
    return model


@torch.no_grad()
def rescale(model: nn.Module, masks: Any, *, variance: float = 2.0) -> dict[str, float]:
    """Multiply each masked layer by rho so that fan_in * mean(rho**2 w**2 m) = variance, in place; return each rho.

    Pruning takes a network off the edge of chaos; this brings one with any mask back (Hayou et al. 2021, section 4):
    rho = sqrt(variance / (fan_in mean(w**2 m))), the mean over all places, pruned ones included. Once, after pruning
    and before training. Weights that are pruned are scaled too, and stay for the mask to hide.

    Raises MaskError for a layer that keeps no weight other than 0, or a mask that fits no layer.
    """
    masks = as_mask_set(masks)
    parts = {f"{name}.weight" if name else "weight": part for name, part in model.named_modules()}
    known = prunable(model)
    factors = {}
    for name in masks:
        if name not in known:
            raise MaskError(
                f"mask '{name}' is not a linear layer or convolution of the model; they are {', '.join(known)}"
            )
        part, mask = parts[name], torch.from_numpy(masks[name].copy())
        if isinstance(part, _ConvTransposeNd):
            mask = mask.transpose(0, 1)
        if mask.shape != part.weight.shape:
            raise MaskError(f"mask '{name}' has shape {tuple(mask.shape)}; the weight has {tuple(part.weight.shape)}")
        mean = float((part.weight.double().square() * mask.to(part.weight.device)).mean())
        if not mean:
            raise MaskError(f"layer '{name}' keeps no weight other than 0; no factor brings it back")
        factors[name] = math.sqrt(variance / (_fan_in(part) * mean))
        write_weight(Holder(name.rpartition(".")[0], part, "weight"), part.weight * factors[name])
    return factors
