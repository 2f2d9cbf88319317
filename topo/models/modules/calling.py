"""How a module is given a batch and what is taken from its answer: tensors, tuples, dicts, outputs of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy as is_uninitialised

from topo._support.trees import require_tree
from topo.errors import TopoError, TrainingError

_LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """What a module is called with, what it should answer (None where it knows its own loss), and how many examples."""

    inputs: Any
    targets: Any
    examples: int

    @classmethod
    def of(cls, held: Any) -> Batch:
        """(inputs, targets), or a dict whose targets are called labels, label, targets, target or y.

        inputs may be a tensor, a tuple of them (arguments in order) or a dict (arguments by name).

        TrainingError for anything else.
        """
        if isinstance(held, Mapping):
            key = next((name for name in _LABELS if name in held), None)
            inputs, targets = {name: held[name] for name in held if name != key}, None if key is None else held[key]
        elif isinstance(held, tuple | list) and len(held) == 2:
            inputs, targets = held
        else:
            kind = f"{type(held).__name__} of {len(held)}" if isinstance(held, tuple | list) else type(held).__name__
            raise TrainingError(f"a batch is a {kind}; it should be a pair (inputs, targets) or a dict with labels")
        first = next(iter(_tensors(inputs)), None)
        if first is None or not first.dim() or not len(first):
            raise TrainingError("a batch holds no example: its inputs hold no tensor with a row for each")
        return cls(inputs, targets, len(first))

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(_moved(self.inputs, device), _moved(self.targets, device), self.examples)


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """The module's answer: a tuple or list gives its arguments in order, a dict by name."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def scores_of(answer: Any, output: str | int | None = None) -> Tensor | None:
    """The tensor that is judged: `output` of a dict, object or tuple; else the logits, else the first floating tensor.

    None if there is none. TrainingError that names what there is, if `output` is not among it.
    """
    if output is not None:
        found = _entry(answer, output)
        if not isinstance(found, Tensor):
            raise TrainingError(f"output={output!r} is not a tensor of what the model gives: {_described(answer)}")
        return found
    named = _entry(answer, "logits")
    if isinstance(named, Tensor):
        return named
    if isinstance(answer, Mapping) and isinstance(answer.get("loss"), Tensor):
        answer = {name: value for name, value in answer.items() if name != "loss"}
    return next((tensor for tensor in _tensors(answer) if tensor.is_floating_point()), None)


def loss_of(answer: Any) -> Tensor | None:
    """The loss that the module computed by itself, if there is one."""
    found = _entry(answer, "loss")
    return found if isinstance(found, Tensor) and found.dim() == 0 else None


def _entry(answer: Any, key: str | int) -> Any:
    if isinstance(answer, Tensor) or answer is None:
        return None
    if isinstance(answer, Mapping) and key in answer:
        return answer[key]
    if isinstance(key, int):
        return answer[key] if isinstance(answer, tuple | list) and -len(answer) <= key < len(answer) else None
    return getattr(answer, key, None)


def _tensors(held: Any) -> list[Tensor]:
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, Mapping):
        held = list(held.values())
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, tuple | list) else []


def _moved(held: Any, device: torch.device) -> Any:
    if isinstance(held, Mapping):
        return {name: _moved(value, device) for name, value in held.items()}
    if isinstance(held, tuple | list):
        return type(held)(_moved(value, device) for value in held) if type(held) in (tuple, list) else held
    if isinstance(held, Tensor):
        return held.to(device, non_blocking=True)
    return torch.as_tensor(held).to(device) if hasattr(held, "__array__") else held


def _described(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"a dict with {', '.join(map(repr, answer))}"
    if isinstance(answer, tuple | list):
        return f"a {type(answer).__name__} of {len(answer)}"
    return f"a {type(answer).__name__}"


def is_lazy(model: nn.Module) -> bool:
    """Whether a layer waits for its first batch to know its shape."""
    return any(map(is_uninitialised, [*model.parameters(), *model.buffers()]))


def require_shapes(model: nn.Module) -> None:
    """TopoError for a model with lazy layers, or with a module that holds itself."""
    require_tree(model)
    if is_lazy(model):
        raise TopoError(
            f"the model {type(model).__name__} has lazy layers, of shapes not known yet; send one batch through it"
        )


def takes(model: nn.Module, name: str) -> bool:
    """Whether `forward` has an argument of this name."""
    import inspect

    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
