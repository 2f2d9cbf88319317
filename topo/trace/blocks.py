"""Equal blocks of a language model, traced once: the wiring of a short model, with its last block but one repeated.

Where the config of a transformers model says how many blocks there are, and a run of them up to the last is made of
the same modules, the model is traced with three and with four of the run. The wiring of three, with one block repeated,
must be that of four, step by step; then the others are repeated likewise. A run of the whole model on tensors without
numbers (`calls`) tells whether one of the others is treated by its number. Else the whole model is traced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo.wiring import Layer, Step, Wiring

_FEWEST = 8  # equal blocks; of fewer all are traced
TRIED = 3


@dataclass(frozen=True)
class Run:
    """Equal blocks `first` and later of a list of them: `parent.name`, which is called `prefix` in the model."""

    module: nn.Module
    parent: nn.Module
    name: str
    prefix: str
    blocks: nn.ModuleList
    first: int

    @contextmanager
    def shortened(self, length: int) -> Iterator[None]:
        """The model with so many blocks of the run."""
        setattr(self.parent, self.name, nn.ModuleList(list(self.blocks)[: self.first + length]))
        try:
            yield
        finally:
            setattr(self.parent, self.name, self.blocks)


def equal_blocks(module: nn.Module) -> Run | None:
    """The run of equal blocks of a model whose config says how many blocks it has."""
    wanted = getattr(getattr(module, "config", None), "num_hidden_layers", None)
    lists = [(key, part) for key, part in module.named_modules() if isinstance(part, nn.ModuleList)]
    found = [(key, part) for key, part in lists if len(part) == wanted]
    if len(found) != 1:
        return None
    prefix, blocks = found[0]
    at = len(blocks) - 1
    while at and _alike(blocks[at - 1], blocks[-1], (at - 1, len(blocks) - 1)):
        at -= 1
    if len(blocks) - at < _FEWEST:
        return None
    parent, _, name = prefix.rpartition(".")
    return Run(module, module.get_submodule(parent), name, prefix, blocks, at)


def _alike(one: nn.Module, two: nn.Module, places: tuple[int, int]) -> bool:
    """Whether two blocks are of the same modules, shapes and settings; numbers that say which block it is aside."""
    pairs = list(zip(one.named_modules(), two.named_modules(), strict=False))
    if len(pairs) != sum(1 for _ in one.modules()) or len(pairs) != sum(1 for _ in two.modules()):
        return False
    for (key, a), (other, b) in pairs:
        if key != other or type(a) is not type(b) or a.__dict__.keys() != b.__dict__.keys():
            return False
        for name, value in a.__dict__.items():
            if name == "_modules":
                continue
            if name in ("_parameters", "_buffers"):
                same = _same_tensors(value, b.__dict__[name], name == "_buffers")
            else:
                same = _same(value, b.__dict__[name], places)
            if not same:
                return False
    return True


def _same_tensors(one: Mapping[str, Any], two: Mapping[str, Any], values: bool) -> bool:
    if one.keys() != two.keys():
        return False
    for a, b in ((one[key], two[key]) for key in one):
        if (a is None) != (b is None) or (a is not None and (a.shape != b.shape or a.dtype != b.dtype)):
            return False
        if values and a is not None and not a.is_meta and not torch.equal(a, b):
            return False
    return True


def _same(a: Any, b: Any, places: tuple[int, int]) -> bool:
    if a is b or (type(a) is int and (a, b) == places):
        return True
    if isinstance(a, Tensor) or type(a) is not type(b):
        return False
    try:
        return bool(a == b)
    except Exception:  # a comparison of the model's own
        return False


def traced_once(run: Run, trace: Callable[[], Wiring], parameters: list[str]) -> Wiring | None:
    """The wiring of the whole model, from two of short ones; None if they do not agree."""
    short = []
    for length in (TRIED, TRIED + 1):
        with run.shortened(length):
            short.append(trace())
    once = _repeated(run, short[0], 1)
    if once is None or not _equal(once, short[1]):
        return None
    more = len(run.blocks) - run.first - TRIED - 1
    whole = _repeated(run, short[1], more)
    if whole is None:
        return None
    notes = _notes(run, short[1].notes, more)
    if notes is None or short[1].unused:
        return None
    last = len(run.blocks) - 1
    note = f"blocks {run.first} to {last} of '{run.prefix}' are equal: a few are traced, the others repeated"
    used = set(whole.names)
    return replace(whole, notes=(*notes, note), parameters=tuple(key for key in parameters if key in used))


def _repeated(run: Run, wiring: Wiring, times: int) -> Wiring | None:
    """The wiring with the second block of the run so many times more; None if the blocks are not alike."""
    starts = [_first_step(wiring, f"{run.prefix}.{run.first + at}.") for at in range(TRIED)]
    if any(at is None for at in starts):
        return None
    one, two, three = (int(at) for at in starts if at is not None)
    period = two - one
    if period <= 0 or three - two != period:
        return None
    pattern = wiring.steps[two:three]
    begin, end = wiring.steps[two].start, wiring.steps[three].start
    shift = end - begin
    source, target = f"{run.prefix}.{run.first + 1}.", f"{run.prefix}.{run.first + 2}."
    following = wiring.steps[three : three + period]
    if len(following) < period or not all(
        _equal_steps(_moved(step, shift, begin - shift, source, target), other)
        for step, other in zip(pattern, following)
    ):
        return None
    steps = list(wiring.steps[:three])
    for at in range(1, times + 1):
        name = f"{run.prefix}.{run.first + 1 + at}."
        steps += [_moved(step, at * shift, begin - shift, source, name) for step in pattern]
    last = sum(1 for _ in _blocks_of(run, wiring))
    renamed = {f"{run.prefix}.{at}.": f"{run.prefix}.{at + times}." for at in range(run.first + 2, run.first + last)}
    for step in wiring.steps[three:]:
        old = next((key for key in renamed if isinstance(step, Layer) and step.name.startswith(key)), "")
        steps.append(_moved(step, times * shift, begin, old, renamed.get(old, "")))
    outputs = np.where(wiring.outputs >= begin, wiring.outputs + times * shift, wiring.outputs)
    return replace(wiring, steps=tuple(steps), outputs=outputs, parameters=())


def _notes(run: Run, notes: Sequence[str], times: int) -> list[str] | None:
    """The notes of the whole model; None if one of them is of several blocks."""
    found: list[str] = []
    for note in notes:
        named = {int(at) for at in re.findall(rf"(?<![\w.]){re.escape(run.prefix)}\.(\d+)\.", note)}
        if len(named) > 1:
            return None
        at = max(named, default=run.first)
        first = at + times if at > run.first + 1 else at
        for to in range(first, first + 1 + times * (at == run.first + 1)):
            found.append(note.replace(f"{run.prefix}.{at}.", f"{run.prefix}.{to}."))
    return found


def _blocks_of(run: Run, wiring: Wiring) -> Iterator[int]:
    at = run.first
    while _first_step(wiring, f"{run.prefix}.{at}.") is not None:
        yield at
        at += 1


def _first_step(wiring: Wiring, prefix: str) -> int | None:
    return next((i for i, s in enumerate(wiring.steps) if isinstance(s, Layer) and s.name.startswith(prefix)), None)


def _moved(step: Step, shift: int, since: int, old: str, new: str) -> Step:
    """A step whose units, and those from `since` on that it reads, are `shift` later, and whose name begins anew."""
    operands = [np.where(units >= since, units + shift, units).astype(np.int32) for units in step.operands]
    if not isinstance(step, Layer):
        return replace(step, operands=tuple(operands), start=step.start + shift)
    name = new + step.name.removeprefix(old) if old else step.name
    return replace(step, name=name, reads=operands[0], start=step.start + shift)


def _equal(one: Wiring, two: Wiring) -> bool:
    return (
        len(one.steps) == len(two.steps)
        and np.array_equal(one.inputs, two.inputs)
        and np.array_equal(one.outputs, two.outputs)
        and all(_equal_steps(a, b) for a, b in zip(one.steps, two.steps))
    )


def _equal_steps(a: Step, b: Step) -> bool:
    if type(a) is not type(b):
        return False
    for entry in fields(a):
        x, y = getattr(a, entry.name), getattr(b, entry.name)
        if entry.name == "operands":
            if len(x) != len(y) or not all(map(np.array_equal, x, y)):
                return False
        elif isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
            if x is None or y is None or not np.array_equal(x, y):
                return False
        elif entry.name == "pattern":
            if (x is None) != (y is None) or (x is not None and not np.array_equal(x.unpack(), y.unpack())):
                return False
        elif x != y:
            return False
    return True
