"""The weights that go with a mask: the edge of chaos, back to it after pruning, and stable residual branches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from topo.errors import MaskError, TopoError
from topo.masks import as_mask_set
from topo.models import prunable
from topo.models.nets import cifar_resnet, mobilenet, resnet, wide_resnet


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
    draw = np.random.default_rng(rng)
    for part in model.modules():
        if isinstance(part, nn.Linear | _ConvNd):
            values = draw.standard_normal(tuple(part.weight.shape)) * math.sqrt(variance / _fan_in(part))
            part.weight.copy_(torch.from_numpy(values))
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
                f"mask '{name}' is no linear layer or convolution of the model; they are {', '.join(known)}"
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
        part.weight.mul_(factors[name])
    return factors


class ScaleOutput:
    """A forward hook that multiplies what a module gives by one number; it can be copied and pickled."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * self.factor


# Where the residual branch of each built-in block ends.
_BRANCH_ENDS = (
    (cifar_resnet.Block, "bn2"),
    (resnet.Basic, "bn2"),
    (resnet.Bottleneck, "bn3"),
    (wide_resnet.Block, "conv2"),
)


def scale_branches(model: nn.Module, ends: Sequence[str] | None = None) -> nn.Module:
    """Make a residual network stable, in place: y + L**-0.5 F(y) for its L branches (Hayou et al. 2021, section 5).

    The factor multiplies each branch after its last batch norm, before the sum, so that sensitivities are of one size
    at every depth. ends: names of the modules at which the branches end; those of the built-in residual networks are
    known. Parameters and their names do not change. Returns the model.

    Raises TopoError if there is no such module, or none is known.
    """
    modules = dict(model.named_modules())
    if ends is None:
        ends = [
            f"{name}.{end}" for name, part in modules.items() for kind, end in _BRANCH_ENDS if isinstance(part, kind)
        ] + [
            f"{name}.conv"
            for name, part in modules.items()
            if isinstance(part, mobilenet.InvertedResidual) and part.identity
        ]
        if not ends:
            raise TopoError(f"no residual branch of {type(model).__name__} is known; name the modules where they end")
    for name in ends:
        if name not in modules:
            raise TopoError(f"the model has no module '{name}'")
        modules[name].register_forward_hook(ScaleOutput(len(ends) ** -0.5))
    return model
