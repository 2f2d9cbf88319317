"""Masks on a model: pruned weights are exactly zero, whatever optimizer works on it.

Two ways, by measurement (one thread, step time against the dense net: mlp:784-300-100-10 / ResNet-20 / ResNet-18):
a parametrization, which masks in every forward pass (+22 % / +8 % / +18 %), and one fused multiplication of all weights
after every optimizer step (+6 % / +1 % / +9 %). `apply_masks` uses the first: it needs no say over the optimizer and
goes wherever the module goes. `topo.train` owns its loop and uses the second; on a GPU that is one kernel a step
instead of two a layer (benchmarks/train_gpu.py measures both).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from topo.errors import WiringError
from topo.masks import MaskSet, as_mask_set
from topo.train.stored import Storage, storage

if TYPE_CHECKING:
    from topo.wiring import Wiring


class Masked(nn.Module):
    """The parametrization: weight where mask, else exactly 0 (and no gradient there). The mask is a bool buffer."""

    mask: Tensor

    def __init__(self, mask: Tensor, held: Storage) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.held = held

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)  # not weight * mask, which keeps NaN, infinities and -0.0


@dataclass(frozen=True)
class Drift:
    """A parameter whose pruned weights are not all zero.

    count: how many. index: of the first, in the parameter. largest: the largest magnitude among them.
    """

    name: str
    count: int
    index: tuple[int, ...]
    largest: float

    def __str__(self) -> str:
        what = "pruned weight that is not 0" if self.count == 1 else "pruned weights that are not 0"
        return f"'{self.name}' holds {self.count:,} {what}, the first at {self.index}, the largest {self.largest:.3g}"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter `name`, and its name there; WiringError if there is none."""
    path, _, attribute = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    held = isinstance(getattr(module, attribute, None), Tensor) if module is not None else False
    if module is None or not held:
        known = [key for key, parameter in model.named_parameters() if parameter.dim() > 1]
        raise WiringError(f"mask '{name}' is no parameter of the model; it has {', '.join(known[:6])}, ...")
    return module, attribute


def fitted(model: nn.Module, masks: MaskSet, wiring: Wiring | None = None) -> dict[str, Storage]:
    """How each masked parameter holds its mask; WiringError that names the first that does not fit."""
    found = {}
    for name in masks:
        module, attribute = owner(model, name)
        shape = getattr(module, attribute).shape
        found[name] = storage(name, masks.rows(name).shape, shape, module, wiring)
    return found


def tensor_of(mask: np.ndarray, held: Storage, device: torch.device | str) -> Tensor:
    """A mask as a bool tensor laid out as its parameter."""
    return torch.from_numpy(np.array(held.parameter(mask), np.bool_, order="C")).to(device)


def apply_masks(model: nn.Module, masks: MaskSet | Mapping[str, Any], wiring: Wiring | None = None) -> nn.Module:
    """Mask a model in place and give it back: from now on its pruned weights are exactly zero.

    They stay so through any optimizer, momentum, weight decay, AMP, torch.compile, deepcopy, state_dict round trips and
    DDP (mask before wrapping). Parameters without a mask are left dense; masks that were applied before are replaced;
    a parameter that several modules share is masked in each. wiring: needed only where shapes do not tell whether a
    parameter is stored input-first.

    The masks are bool buffers of a parametrization, so a state dict holds `<name's module>.parametrizations.weight.0
    .mask` and `.original`; `strip_masks` gives plain weights with zeros.

    Raises WiringError for a mask that fits no parameter; MaskError for values other than 0 and 1.
    """
    inner, masks = unwrapped(model), as_mask_set(masks)
    held = fitted(inner, masks, wiring)
    places = {name: owner(inner, name) for name in masks}
    for name, (module, attribute) in places.items():
        hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, prune.BasePruningMethod)]
        if any(hook._tensor_name == attribute for hook in hooks):
            raise WiringError(f"'{name}' is already pruned by torch.nn.utils.prune; strip_masks(model) bakes that in")
        weight = getattr(module, attribute)
        mask = tensor_of(masks[name], held[name], weight.device)
        before = applied(module, attribute)
        original = _original(module, attribute)
        with torch.no_grad():
            if original is not None:
                original.copy_(torch.where(mask, original, 0.0))
        if before is not None:
            before.mask, before.held = mask, held[name]
            continue
        sharing = [(module, attribute)] if original is None else _sharing(inner, original)
        for other, key in sharing:
            _own_class(other)
            parametrize.register_parametrization(other, key, Masked(mask, held[name]))
            if isinstance(other, nn.RNNBase):
                type(other)._flat_weights = _FLAT_WEIGHTS  # type: ignore[assignment]
    return model


def _masked_flat_weights(module: nn.RNNBase) -> list[Tensor]:
    return [getattr(module, name) for name in module._flat_weights_names if hasattr(module, name)]


# A recurrent layer keeps a list of its parameters beside them and computes with that: of a masked one it is made anew
# each time. What torch writes into the list (on moving the module) are the same parameters.
_FLAT_WEIGHTS = property(_masked_flat_weights, lambda module, value: None)


def _original(module: nn.Module, attribute: str) -> Tensor | None:
    """The parameter that the optimizer sees; None if there is no single one (weight norm)."""
    if parametrize.is_parametrized(module, attribute):
        return getattr(module.parametrizations[attribute], "original", None)  # type: ignore[union-attr, index]
    return getattr(module, attribute)


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    A copy.deepcopy shares torch's generated class with the original, and removing or adding a parametrization on one
    then takes `weight` from the other (torch 2.13).
    """
    if parametrize.is_parametrized(module):
        kind = type(module)
        body = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, body)


def _sharing(model: nn.Module, parameter: Tensor) -> list[tuple[nn.Module, str]]:
    """Every module that holds this parameter under a name of its own (tied weights)."""
    return [
        (module, key)
        for module in list(model.modules())
        for key, value in module._parameters.items()
        if value is parameter
    ] or [
        (module, key)
        for module in list(model.modules())
        if parametrize.is_parametrized(module)
        for key, entry in module.parametrizations.items()  # type: ignore[union-attr, operator]
        if getattr(entry, "original", None) is parameter
    ]


def applied(module: nn.Module, attribute: str) -> Masked | None:
    """The mask that `apply_masks` put on a parameter, if there is one."""
    if not parametrize.is_parametrized(module, attribute):
        return None
    parts = module.parametrizations[attribute]  # type: ignore[index]
    return next((part for part in parts if isinstance(part, Masked)), None)  # type: ignore[union-attr]


def _all_applied(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Masked]]:
    for path, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            for attribute in list(module.parametrizations):  # type: ignore[arg-type]
                if (mask := applied(module, attribute)) is not None:
                    yield (f"{path}.{attribute}" if path else attribute), module, attribute, mask


def applied_masks(model: nn.Module) -> MaskSet | None:
    """The masks that `apply_masks` put on a model; None if there are none."""
    found = {name: m.held.mask(m.mask.cpu().numpy()) for name, _, _, m in _all_applied(unwrapped(model))}
    return MaskSet(found) if found else None


def strip_masks(model: nn.Module) -> nn.Module:
    """Bake the masks in and give the model back: plain parameters again, zero where they were pruned.

    Undoes `apply_masks` and torch.nn.utils.prune alike. Nothing holds the weights at zero afterwards.
    """
    inner = unwrapped(model)
    for _, module, attribute, _ in list(_all_applied(inner)):
        _own_class(module)
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
        if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
            module.__dict__["_flat_weights"] = _masked_flat_weights(module)
    for module in inner.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return model


def verify_masks(
    model: nn.Module, masks: MaskSet | Mapping[str, Any], wiring: Wiring | None = None
) -> tuple[Drift, ...]:
    """Where the model's weights are not zero though the masks prune them, parameter by parameter; empty if nowhere.

    What people need after fine-tuning, merging or exporting. NaN counts as not zero. A Drift prints as one line.
    Raises WiringError for a mask that fits no parameter.
    """
    inner, masks = unwrapped(model), as_mask_set(masks)
    found = []
    for name, held in fitted(inner, masks, wiring).items():
        module, attribute = owner(inner, name)
        with torch.no_grad():
            weight = getattr(module, attribute).detach()
            revived = ~tensor_of(masks[name], held, weight.device) & (weight != 0)
            count = int(revived.sum())
            if count:
                first = int(revived.reshape(-1).int().argmax())
                index = tuple(map(int, np.unravel_index(first, held.shape)))
                found.append(Drift(name, count, index, float(weight[revived].abs().max())))
    return tuple(found)


class FusedMasks:
    """One multiplication for all masked parameters of a plain model, to be called after each optimizer step.

    The masks have the weights' type and memory layout, or the multiplication would not be one kernel.
    """

    def __init__(self, weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        self.masks = [torch.empty_like(weight).copy_(mask) for weight, mask in zip(weights, masks)]

    @classmethod
    def of(cls, model: nn.Module, masks: Mapping[str, Tensor]) -> FusedMasks:
        """masks: name -> bool tensor in the parameter's layout. WiringError for a weight that is none itself."""
        places = {name: owner(model, name) for name in masks}
        for name, (module, attribute) in places.items():
            if attribute not in module._parameters:
                raise WiringError(
                    f"'{name}' is computed by a parametrization or by torch.nn.utils.prune; to be trained under masks "
                    "it should be a plain parameter (strip_masks makes masked weights so)"
                )
        return cls([getattr(*place).detach() for place in places.values()], list(masks.values()))

    @torch.no_grad()
    def __call__(self) -> None:
        if self.weights:
            torch._foreach_mul_(self.weights, self.masks)
