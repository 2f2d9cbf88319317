"""The copy that is worked on: plain weights with zeros where masks prune, no hooks, eval mode; the original is left."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from topo.errors import ShrinkError
from topo.models.modules.holders import every_holder, made_plain

_HOOKS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}


def working_copy(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy in eval mode whose weights are plain parameters, sharing the tensors that stay; what was taken off it.

    ShrinkError for a hook that may change what the model computes, and for tensors without values.
    """
    empty = next((name for name, tensor in tensors_of(model) if tensor.is_meta), None)
    if empty is not None:
        raise ShrinkError(f"'{empty}' is on the meta device and holds no values; load the model's weights first")
    shared: dict[int, Any] = {id(tensor): tensor for _, tensor in tensors_of(model)}
    for module in model.modules():
        for value in vars(module).values():
            for tensor in value if isinstance(value, list) else (value,):
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    shared[id(tensor)] = tensor.detach().clone()
    made = copy.deepcopy(model, shared)
    notes: list[str] = []
    if any(module.training for module in made.modules()):
        notes.append("the model is in training mode; it is made smaller as it computes in eval mode")
    made.eval()
    for place in list(every_holder(made)):
        if not place.is_plain and (place.is_parametrized or place.hook is not None):
            made_plain(made, place.name)
            notes.append(f"'{place.name}' was computed (masks, a norm, ...); it is a plain parameter now")
    for path, module in made.named_modules():
        for attribute, what in _HOOKS.items():
            for hook in getattr(module, attribute).values():
                name = getattr(hook, "__qualname__", type(hook).__name__)
                raise ShrinkError(
                    f"module '{path or type(module).__name__}' has a {what} ({name}), which may change what it gives; "
                    "remove it, shrink, and put it on the smaller model"
                )
        for attribute in ("_backward_hooks", "_backward_pre_hooks"):
            if held := getattr(module, attribute, None):
                held.clear()
                notes.append(f"backward hooks of module '{path}' are not on the smaller model")
    return made, notes


def masked(model: nn.Module, masks: Iterable[tuple[str, Tensor]]) -> None:
    """In place: parameters are exactly 0 where their mask (by name; bool, laid out as they are) is not set. Those that
    were already stay the tensors that they are."""
    done: dict[int, nn.Parameter] = {}
    by_name = dict(tensors_of(model))
    for name, mask in masks:
        old = by_name[name]
        made = torch.where(mask, old.detach(), 0)
        if not torch.equal(made, old.detach()):
            done[id(old)] = nn.Parameter(made, old.requires_grad)
    for module in model.modules():
        for key, tensor in module._parameters.items():
            if tensor is not None and id(tensor) in done:
                module._parameters[key] = done[id(tensor)]
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()


def independent(model: nn.Module, of: nn.Module) -> None:
    """In place: tensors that the model shares with another become its own."""
    theirs = {id(tensor) for _, tensor in tensors_of(of)}
    done: dict[int, Any] = {}
    for module in model.modules():
        for group in (module._parameters, module._buffers):
            for key, tensor in group.items():
                if tensor is not None and id(tensor) in theirs:
                    own = tensor.detach().clone()
                    wrapped = nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
                    group[key] = done.setdefault(id(tensor), wrapped)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, under every name that they have."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
