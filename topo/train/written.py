"""What is written into a masked weight reaches the parameter beneath.

A masked module computes its weight at each look, so that `layer.weight.data += delta` (merges of low-rank adapters),
`nn.init.normal_(layer.weight)` or `layer.weight[0] = 0` would change a tensor that nobody reads again. Here the tensor
that is given out, and every view of it, hands what is written into it on to the module. To all functions it is a plain
tensor; under compilers, exporters and transforms it is one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from topo.errors import WiringError


class MaskedWeight(Tensor):
    """The weight of a masked module, or a view of it. home: the module, the attribute, and the tensor that this is a
    view of; None once it leads a life of its own as a parameter."""

    home: tuple[nn.Module, str, MaskedWeight | None] | None

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            ours = [each for each in _tensors((args, kwargs)) if isinstance(each, MaskedWeight) and _home(each)]
            before = [each._version for each in ours]
            made = function(*args, **kwargs)
            if ours and function == _SET_DATA:
                _hand_on(ours[0])
            for each, version in zip(ours, before):
                if each._version != version:
                    _hand_on(each)
            for tensor in _tensors(made) if ours else ():
                if type(tensor) is Tensor and _same_memory(tensor, ours[0]):
                    _as_view(tensor, ours[0])
            if getattr(function, "__name__", "") == "requires_grad_" and ours and ours[0] is not _whole(ours[0]):
                ours[0].home = None  # nn.Parameter(layer.weight)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(_plain(self), memo)


_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


def _home(weight: MaskedWeight) -> Any:
    return weight.__dict__.get("home")


def _plain(weight: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return weight.as_subclass(Tensor)


def _whole(view: MaskedWeight) -> MaskedWeight:
    whole: MaskedWeight | None = view.__dict__["home"][2]
    return view if whole is None else whole


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments and results, in the order in which they stand."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    if a.layout != torch.strided or a.is_meta:
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _as_view(tensor: Tensor, of: MaskedWeight) -> None:
    module, attribute, _ = of.__dict__["home"]
    tensor.__class__ = MaskedWeight
    tensor.__dict__["home"] = module, attribute, _whole(of)


def _hand_on(view: MaskedWeight) -> None:
    module, attribute, _ = view.__dict__["home"]
    setattr(module, attribute, _plain(_whole(view)).detach())


def write_through(module: nn.Module, attribute: str) -> None:
    """Let a parametrized module hand on what is written into the weight that it gives out.

    `layer.weight = x` copies x into the parameter beneath, which stays the same object, whoever holds it.
    """
    given = vars(type(module))[attribute]

    def read(self: nn.Module) -> Tensor:
        weight: Tensor = given.fget(self)
        if type(weight) is Tensor and not _followed() and not _read_by_torch(sys._getframe(1)):
            weight.__class__ = MaskedWeight
            weight.__dict__["home"] = self, attribute, None
        return weight

    def write(self: nn.Module, value: Any) -> None:
        entry: Any = self.parametrizations[attribute]  # type: ignore[index]
        _write(entry, value, f"'{attribute}' of a masked {type(self).__name__.removeprefix('Parametrized')}")

    read.given = given  # type: ignore[attr-defined]
    kind = type(module)
    setattr(kind, attribute, property(read, write))
    kind.__setattr__ = _assigning(kind.__bases__[0])  # type: ignore[assignment, method-assign]


def _assigning(base: type) -> Callable[[nn.Module, str, Any], None]:
    """`layer.weight = nn.Parameter(x)` sets the masked weight, too: of itself, torch registers a second parameter."""

    def assign(self: nn.Module, name: str, value: Any) -> None:
        ours = vars(type(self)).get(name)
        if isinstance(ours, property) and hasattr(ours.fget, "given"):
            ours.__set__(self, value)
        else:
            base.__setattr__(self, name, value)  # type: ignore[call-arg, arg-type]

    return assign


def give_plainly(module: nn.Module, attribute: str) -> None:
    """Undo `write_through`."""
    setattr(type(module), attribute, vars(type(module))[attribute].fget.given)


@torch.no_grad()
def _write(entry: Any, value: Any, what: str) -> None:
    shape = tuple(entry().shape)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        held = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise WiringError(f"{what} has shape {shape}; {held} cannot take its place (strip_masks makes it plain)")
    for part in reversed(entry):
        if not hasattr(part, "right_inverse"):
            raise WiringError(f"{what} is computed by {type(part).__name__}, which takes no values; write to its parts")
        value = part.right_inverse(value)
    targets = [entry.original] if entry.is_tensor else [getattr(entry, f"original{i}") for i in range(entry.ntensors)]
    for target, source in zip(targets, [value] if isinstance(value, Tensor) else value):
        target.copy_(source)


def _read_by_torch(frame: FrameType) -> bool:
    """Whether a layer of torch reads its weight for its own forward pass, which writes into none: measured, a third of
    what a mask costs a layer is saved."""
    return frame.f_code.co_name == "forward" and frame.f_globals["__name__"].startswith("torch.nn.modules.")


def _followed() -> bool:
    """Whether something looks at operations on tensors by itself: compilers, exporters, transforms; or keeps no count
    of writes."""
    return bool(
        torch.compiler.is_compiling()
        or torch.is_inference_mode_enabled()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
