"""Weights at the start of training, drawn by an own generator."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from topo.models.modules.holders import Holder, write_weight


def initialise(model: nn.Module, kind: str, masks: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Redraw the weights of linear layers and convolutions in place; as_built, rescaled and gradinit leave them.

    kaiming_normal: N(0, 2 / fan_in), zero biases, batch norms 1 and 0 (He et al. 2015, eq. 10). open_lth: the same with
    batch-norm scales from U[0, 1] (Frankle et al.). sparse_he: as kaiming_normal, but every output unit with the fan-in
    that its mask keeps, N(0, 2 / kept), so that variances survive sparsity (Evci et al. 2022, section 3.1). living: as
    sparse_he, and the largest kept weight of every output unit that keeps at most 16 is positive: on inputs that are
    not negative a ReLU whose d weights are all negative is dead for all data, which happens to 2^-d of the units.
    signed: sign(w) sqrt(2 / fan_in) of the weights that are there, the ones that Gem-Miner and edge-popup search
    (Ramanujan et al. 2020, signed Kaiming constant); biases and batch norms stay. orthogonal: sqrt(2) times a partial
    isometry inside the mask (`topo.train.orthogonal`), a convolution seen as the matrix of its outputs by channels and
    places of the kernel; biases and batch norms as kaiming_normal.
    masks: name -> bool tensor in the parameter's layout; a layer without one is dense.
    generator: on the CPU, so that every device starts from the same weights.
    """
    if kind in ("as_built", "rescaled", "gradinit"):
        return
    with torch.no_grad():
        for path, part in model.named_modules():
            if isinstance(part, nn.Linear | _ConvNd):
                name = f"{path}.weight" if path else "weight"
                mask = masks.get(name) if kind in ("sparse_he", "living") else None
                if kind == "signed":
                    fan_in = part.weight.numel() // _outputs(part.weight, part)
                    signs = torch.where(part.weight.detach().cpu() < 0, -1.0, 1.0)
                    write_weight(Holder(path, part, "weight"), signs * (2 / max(fan_in, 1)) ** 0.5)
                    continue
                drawn = _he_normal(part.weight, mask, part, generator)
                if kind == "orthogonal":
                    drawn = _orthogonal(part.weight, masks.get(name), part, generator)
                elif kind == "living" and mask is not None:
                    drawn = _living(drawn, mask.cpu(), part)
                write_weight(Holder(path, part, "weight"), drawn)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, _BatchNorm) and part.affine:
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
                if kind == "open_lth":
                    part.weight.copy_(torch.rand(part.weight.shape, generator=generator))


def _he_normal(weight: Tensor, mask: Tensor | None, part: nn.Module, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(weight.shape, generator=generator)
    if mask is None:
        fan_in = weight.numel() // _outputs(weight, part)
        return drawn * (2 / fan_in) ** 0.5
    kept = mask.cpu()
    return torch.where(kept, drawn * (2 / _fan_in(kept, part).clamp(min=1)).sqrt(), 0.0)


def _orthogonal(weight: Tensor, mask: Tensor | None, part: nn.Module, generator: torch.Generator) -> Tensor:
    """Group by group; a full matrix is the orthogonal factor of a normal one."""
    from topo.train.orthogonal import orthogonal

    kept = torch.ones(weight.shape, dtype=torch.bool) if mask is None else mask.cpu()
    found = []
    for rows in _by_output(kept, part).chunk(getattr(part, "groups", 1)):
        if rows.all():
            normal = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
            tall = normal if len(rows) >= rows.shape[1] else normal.T
            q, r = torch.linalg.qr(tall)
            q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)  # Haar: the signs are not the decomposition's
            found.append(q if len(rows) >= rows.shape[1] else q.T)
        else:
            seed = int(torch.randint(2**62, (), generator=generator))
            found.append(torch.from_numpy(orthogonal(rows.numpy(), np.random.default_rng(seed))))
    return _from_output(2**0.5 * torch.cat(found), weight, part).to(torch.float32)


# Above, one ReLU in 65,536 is dead.
_SMALL_FAN_IN = 16


def _living(weight: Tensor, kept: Tensor, part: nn.Module) -> Tensor:
    """The weight with the largest kept entry of every output unit of small fan-in made positive."""
    rows = _by_output(weight.clone(), part)
    small = _by_output(kept, part).sum(dim=1) <= _SMALL_FAN_IN
    place = rows.abs().argmax(dim=1, keepdim=True)
    largest = rows.gather(1, place)
    rows.scatter_(1, place, torch.where(small[:, None], largest.abs(), largest))
    return _from_output(rows, weight, part)


def _by_output(weight: Tensor, part: nn.Module) -> Tensor:
    """(out, weights of an output unit): a transposed convolution holds (in, out / groups, ...)."""
    if isinstance(part, _ConvNd) and part.transposed:
        parts = weight.reshape(part.groups, -1, *weight.shape[1:]).transpose(1, 2)
        return parts.reshape(part.groups * weight.shape[1], -1)
    return weight.reshape(weight.shape[0], -1)


def _from_output(rows: Tensor, weight: Tensor, part: nn.Module) -> Tensor:
    """What `_by_output` took apart."""
    if isinstance(part, _ConvNd) and part.transposed:
        each = weight.shape[0] // part.groups
        return rows.reshape(part.groups, weight.shape[1], each, *weight.shape[2:]).transpose(1, 2).reshape(weight.shape)
    return rows.reshape(weight.shape)


def _outputs(weight: Tensor, part: nn.Module) -> int:
    if isinstance(part, _ConvNd) and part.transposed:
        return weight.shape[1] * part.groups
    return weight.shape[0]


def _fan_in(kept: Tensor, part: nn.Module) -> Tensor:
    """Kept weights into each output unit, in a shape that broadcasts over the weight."""
    if isinstance(part, _ConvNd) and part.transposed:  # (in, out / groups, ...): inputs of a group are consecutive rows
        groups, rest = part.groups, prod(kept.shape[2:])
        counts = kept.reshape(groups, -1, kept.shape[1], rest).sum(dim=(1, 3))
        counts = counts.repeat_interleave(kept.shape[0] // groups, dim=0)
        return counts.reshape(*counts.shape, *[1] * (kept.dim() - 2)).float()
    return kept.sum(dim=tuple(range(1, kept.dim())), keepdim=True).float()
