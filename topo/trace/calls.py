"""What a model calls, block by block: whether each of its equal blocks is treated as those that are traced.

Equal modules say nothing of a forward that treats one of them by its number. So the model is run once on tensors
without numbers, the whole one and the short one, and every operation is written down with what it takes: by how far
back that was made, or as which parameter. Between two blocks the same must happen each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from topo.stranger import torch_kept

Calls = list[tuple[Any, ...]]


class _Recorder(TorchFunctionMode):
    """Writes down each operation: its name, where its tensors come from, its numbers, and the shapes that it gives."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.calls: Calls = []
        self.starts: list[int] = []
        held = (module.named_parameters, module.named_buffers)
        self.names = {id(t): name for named in held for name, t in named(remove_duplicate=False)}
        self.made: dict[int, int] = {}
        self.held: list[Any] = []  # so that no number of an object is given twice

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", str(function))
        if name == "__get__":
            if not isinstance(made, Tensor):
                return made
            name = f"get {function.__self__.__name__}"
        given = pytree.tree_leaves((args, kwargs))
        tensors = [value for value in pytree.tree_leaves(made) if isinstance(value, Tensor)]
        if not tensors and not any(isinstance(value, Tensor) for value in given):
            return made  # of torch itself, which asks for devices the first time
        taken = tuple(self._source(value) for value in given)
        self.calls.append((name, taken, tuple(tuple(t.shape) for t in tensors)))
        self.held += tensors
        self.made.update((id(t), len(self.calls) - 1) for t in tensors)
        return made

    def _source(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            plain = isinstance(value, bool | int | float | str | slice | None)
            return repr(value) if plain else type(value).__name__
        if id(value) in self.made:
            return self.made[id(value)]
        return self.names.get(id(value), str(tuple(value.shape)))


def treated_alike(run: Any, length: int, call: Callable[[], Any]) -> bool:
    """Whether the blocks of a run are called one after the other, and alike, as in the model with `length` of them.

    call: runs the model. False too where it cannot be run so.
    """
    try:
        whole = _recorded(run, list(run.blocks), call)
        with run.shortened(length):
            short = _recorded(run, list(run.blocks)[: run.first + length], call)
    except Exception:  # whatever the model's own code raises on tensors without numbers
        return False
    if whole is None or short is None:
        return False
    before, first, *middle, last = whole
    return [before, first, last] == [short[0], short[1], short[-1]] and all(part == short[2] for part in middle)


def _recorded(run: Any, blocks: list[nn.Module], call: Callable[[], Any]) -> list[Calls] | None:
    """The calls before the run, and of each of its blocks up to the next; None if they are not called in order."""
    recorder, order = _Recorder(run.module), []

    def entered(block: nn.Module, *_: Any) -> None:
        order.append(next(at for at, other in enumerate(blocks) if other is block))
        recorder.starts.append(len(recorder.calls))

    hooks = [block.register_forward_pre_hook(entered) for block in blocks[run.first :]]
    try:
        with recorder, torch.no_grad(), torch_kept():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    if order != list(range(run.first, len(blocks))):
        return None
    bounds = [0, *recorder.starts, len(recorder.calls)]
    return [
        [_relative(each, at, bounds, run) for each in recorder.calls[bounds[at] : bounds[at + 1]]]
        for at in range(len(bounds) - 1)
    ]


def _relative(call: tuple[Any, ...], part: int, bounds: list[int], run: Any) -> tuple[Any, ...]:
    """A call of a part, with what it takes by how many parts back, and where there, that was made.

    What comes from before the run has its own number.
    """
    name, taken, shapes = call

    def source(value: Any) -> Any:
        if isinstance(value, int):
            at = next(k for k in range(part, -1, -1) if bounds[k] <= value)
            return ("before", value) if at == 0 else (part - at, value - bounds[at])
        found = re.match(rf"{re.escape(run.prefix)}\.(\d+)\.(.*)", value) if isinstance(value, str) else None
        if found and int(found[1]) >= run.first:
            return (part - (int(found[1]) - run.first + 1), found[2])
        return value

    return name, tuple(source(value) for value in taken), shapes
