"""Where a model holds a weight: every module that has it, and what it is computed from where it is not a parameter.

A weight may be tied (several modules hold one tensor), parametrized (weight norm, masks), computed by a hook of an
older kind, or a buffer. Whoever masks, scores or verifies weights by name asks here, so that all of them mean the same
tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from topo._support.doors import first_line
from topo.errors import WiringError

_ENDINGS = ("_orig", "_g", "_v")  # of the parameters from which a hook computes a weight


@dataclass(frozen=True, eq=False)
class Holder:
    """A module that holds a weight, and under which name; path is the module's in the model."""

    path: str
    module: nn.Module
    attribute: str

    @property
    def name(self) -> str:
        """The weight's full name here."""
        return f"{self.path}.{self.attribute}" if self.path else self.attribute

    @property
    def weight(self) -> Tensor:
        """The weight as a forward pass reads it."""
        return cast(Tensor, getattr(self.module, self.attribute))

    @property
    def is_parametrized(self) -> bool:
        """Whether torch.nn.utils.parametrize computes the weight."""
        return parametrize.is_parametrized(self.module, self.attribute)

    @property
    def is_plain(self) -> bool:
        """Whether the weight is a parameter or a buffer itself."""
        return any(key == self.attribute for key, _ in _tensors(self.module))

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """The tensors that the weight is, or is computed from; empty where it is neither parameter nor buffer."""
        if self.is_parametrized:
            entry = cast(nn.Module, self.module.parametrizations[self.attribute])  # type: ignore[index]
            return tuple(value for key, value in _tensors(entry) if key.startswith("original"))
        own = dict(_tensors(self.module))
        names = [name for name in (self.attribute, *_sources(self.attribute)) if name in own]
        return tuple(own[name] for name in (names[:1] if names[:1] == [self.attribute] else names))

    @property
    def hook(self) -> Any:
        """What computes the weight before each forward pass, if it is of the older kind: pruning, weight or spectral
        norm of torch.nn.utils."""
        return _hook(self.module, self.attribute)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The module's own parameters and buffers."""
    for group in (module._parameters, module._buffers):
        yield from ((key, value) for key, value in group.items() if value is not None)


def _sources(attribute: str) -> tuple[str, ...]:
    return tuple(f"{attribute}{ending}" for ending in _ENDINGS)


def _hook(module: nn.Module, attribute: str) -> Any:
    for hook in module._forward_pre_hooks.values():
        name = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else getattr(hook, "name", None)
        if name == attribute and isinstance(hook, prune.BasePruningMethod | WeightNorm | SpectralNorm):
            return hook
    return None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = cast(nn.Module, model._orig_mod)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def holder(model: nn.Module, name: str) -> Holder:
    """The module that holds the weight `name`; WiringError if there is none, or if it has no shape yet."""
    path, _, attribute = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    found = getattr(module, attribute, None) if module is not None else None
    if module is None or not isinstance(found, Tensor):
        known = [key for key, parameter in model.named_parameters() if not _is_lazy(parameter) and parameter.dim() > 1]
        raise WiringError(f"mask '{name}' is not a parameter of the model; it has {', '.join(known[:6])}, ...")
    if _is_lazy(found):
        raise WiringError(f"'{name}' has no shape yet; run one batch through the model first")
    return Holder(path, module, attribute)


def _is_lazy(tensor: Tensor) -> bool:
    return bool(nn.parameter.is_lazy(tensor))


def every_holder(model: nn.Module) -> Iterator[Holder]:
    """Every parameter and buffer of a model as its modules read them, each use of a tied one by itself."""
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        for key, _ in _tensors(module):
            base = next((key.removesuffix(ending) for ending in _ENDINGS if key.endswith(ending)), key)
            yield Holder(path, module, base if _hook(module, base) is not None else key)
        if parametrize.is_parametrized(module):
            for key in list(module.parametrizations):  # type: ignore[arg-type]
                yield Holder(path, module, key)


def holders(model: nn.Module, first: Holder) -> tuple[Holder, ...]:
    """Every module that holds the same weight, `first` before the others.

    WiringError if a module keeps it where it is neither a parameter nor a buffer (in a list, say): nothing that is
    done to modules reaches it there.
    """
    own = {id(tensor) for tensor in first.stored}
    if not own:
        raise WiringError(f"'{first.name}' is neither a parameter nor a buffer of its module, but a plain attribute")
    found = {(id(first.module), first.attribute): first}
    for each in every_holder(model):
        if any(id(tensor) in own for tensor in each.stored):
            found.setdefault((id(each.module), each.attribute), each)
    for path, module in model.named_modules():
        place = next((key for key, value in vars(module).items() if _keeps(module, key, value, own)), None)
        if place is not None:
            raise WiringError(
                f"'{first.name}' is also kept in the attribute '{place}' of module '{path}', where no mask reaches it; "
                "register it as a parameter there, or read it from the module that has it"
            )
    return tuple(found.values())


def _keeps(module: nn.Module, key: str, value: object, own: set[int]) -> bool:
    """Whether an attribute that is not a parameter, buffer or submodule keeps one of these tensors."""
    if key in ("_parameters", "_buffers", "_modules") or (isinstance(module, nn.RNNBase) and key == "_flat_weights"):
        return False
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return any(id(each) in own for each in values)


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    A copy.deepcopy shares torch's generated class with the original, and removing or adding a parametrization on one
    then takes `weight` from the other (torch 2.13).
    """
    if parametrize.is_parametrized(module):
        kind = type(module)
        body = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, body)


@torch.no_grad()
def write_weight(place: Holder, values: Tensor) -> None:
    """Give a weight these values, also where it is computed: a copy into what it is computed from would be lost.

    WiringError for a weight that a hook of the older kind writes.
    """
    hook = place.hook
    if hook is not None:
        raise WiringError(
            f"'{place.name}' is written anew before each forward pass by torch.nn.utils ({type(hook).__name__}); "
            "it takes no values while that is on"
        )
    if place.is_parametrized:
        setattr(place.module, place.attribute, values.to(place.weight))
    else:
        place.weight.copy_(values)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model whose hooks have left computed weights behind, which torch does not copy.

    WiringError for a model that holds what cannot be copied (a lock, a generator, a sparse weight).
    """
    left: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            for tensor in value if isinstance(value, list) else (value,):
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    left[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(model, left)
    except Exception as error:  # whatever is held, or its own __deepcopy__, raises
        said = first_line(error)
        raise WiringError(
            f"the model {type(model).__name__} cannot be copied, and is not worked on itself: "
            f"{type(error).__name__}: {said}"
        ) from error


@torch.no_grad()
def made_plain(model: nn.Module, name: str) -> nn.Parameter:
    """Make a weight a plain parameter at every module that holds it, with the values that it had; gives the parameter.

    For working copies: masks, norms and other parametrizations of the weight are gone afterwards. The model should be
    in eval mode, so that nothing is drawn or moved on while the values are taken.
    WiringError if modules that share what it is computed from compute different weights.
    """
    places = holders(model, holder(model, name))
    if all(place.is_plain for place in places) and isinstance(places[0].stored[0], nn.Parameter):
        return places[0].stored[0]
    for place in places:
        hook = place.hook
        if isinstance(hook, WeightNorm):
            remove_weight_norm(place.module, place.attribute)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(place.module, place.attribute)
        elif hook is not None:
            prune.remove(place.module, place.attribute)
    values = [place.weight.detach().clone() for place in places]
    for place, value in zip(places, values):
        if not torch.allclose(value, values[0], rtol=0, atol=0, equal_nan=True):
            raise WiringError(
                f"'{name}' and '{place.name}' share parameters but are different weights; name layers without them"
            )
    parameter = nn.Parameter(values[0])
    for place in places:
        if place.is_parametrized:
            own_class(place.module)
            parametrize.remove_parametrizations(place.module, place.attribute)
        place.module._buffers.pop(place.attribute, None)
        place.module._parameters[place.attribute] = parameter
        if isinstance(place.module, nn.RNNBase):
            place.module._init_flat_weights()
    return parameter
