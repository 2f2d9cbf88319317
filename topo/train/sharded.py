"""FSDP2 (`fully_shard`) and masks: what shards a model remembers in which module each parameter lies.

A mask moves a parameter: `layer.weight` becomes `layer.parametrizations.weight.original`, and back when it is
stripped. FSDP2 would go on to write the gathered weight into the module where it was. torch has no public way to tell
it; where the private one is not there, sharded models take no new masks and are not stripped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor (whose module takes long to import)."""
    return hasattr(tensor, "full_tensor")


def laid_as(values: Tensor, weight: Tensor) -> Tensor:
    """A mask beside a weight: on its device, and sharded as it is."""
    if not is_sharded(weight):
        return values.to(weight.device)
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = weight
    return distribute_tensor(values.to(weight.device), sharded.device_mesh, sharded.placements)


def _known(model: nn.Module) -> list[Any] | None:
    """What FSDP2 remembers of each parameter that it shards; None where this torch keeps it in another way."""
    found: list[Any] = []
    modules: Any = model.modules()
    for module in modules:
        if not hasattr(module, "_get_fsdp_state"):
            continue
        for group in getattr(module._get_fsdp_state(), "_fsdp_param_groups", (None,)):
            for held in getattr(group, "fsdp_params", (None,)):
                place = getattr(held, "_module_info", None)
                if not all(hasattr(place, name) for name in ("module", "param_name", "shared_modules")):
                    return None
                found.append(place)
    return found


def can_move(model: nn.Module) -> bool:
    """Whether parameters of the model may move to other modules, as masks move them."""
    return _known(model) is not None


@contextmanager
def moves_told(model: nn.Module) -> Iterator[None]:
    """Within it parameters move to other modules; what shards the model knows where they are afterwards."""
    for module in model.modules():
        if hasattr(module, "_get_fsdp_state"):
            cast(Any, module).reshard()
    held = [(place, place.module._parameters[place.param_name]) for place in _known(model) or ()]
    try:
        yield
    finally:
        where: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in model.modules() if held else ():
            for name, parameter in module._parameters.items():
                where.setdefault(id(parameter), []).append((module, name))
        for place, parameter in held:
            (place.module, place.param_name), *others = where[id(parameter)]
            place.shared_modules = [module for module, _ in others]
            place.shared_param_names = [name for _, name in others]


@contextmanager
def class_beneath(module: nn.Module) -> Iterator[None]:
    """Within it a module is of the class that it had when `fully_shard` put its own above; so masks that were there
    before can be taken off."""
    above = type(module)
    found = above.__bases__[1:] if hasattr(module, "_get_fsdp_state") and len(above.__bases__) == 2 else ()
    for beneath in found:
        module.__class__ = beneath
    try:
        yield
    finally:
        if found and type(module) is found[0]:
            module.__class__ = above
        elif found:
            own = {name: value for name, value in vars(above).items() if name == "__deepcopy__"}
            module.__class__ = type(f"FSDP{type(module).__name__}", (above.__bases__[0], type(module)), own)
