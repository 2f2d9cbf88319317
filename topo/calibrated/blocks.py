"""A model as a chain of blocks, each of which reads what the one before it gives: run one block at a time.

Which modules are the chain is not read from names: candidates are lists of modules, and a list is the chain if in one
call each of its modules runs once, in order, its first argument what the module before gave, and if running them one
by one, with the other arguments that each was given, gives what the model itself computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from topo._support.doors import said
from topo.calibrated.calibration import Call
from topo.errors import TopoError
from topo.stranger import PassKept

_NAMES = ("hidden_states", "x", "input", "inputs")


class _Enough(Exception):
    """Stops a forward pass; no error."""


def run(model: nn.Module, call: Call) -> Any:
    """The model's answer, without a cache of keys and values. TopoError for what the model does not take."""
    args, kwargs = call
    with PassKept(), _in_one_line():
        return model(*args, **kwargs)


@contextmanager
def _in_one_line() -> Any:
    try:
        yield
    except (TopoError, MemoryError, torch.OutOfMemoryError, _Enough):
        raise
    except Exception as error:
        raise TopoError(f"the model does not take the calibration data: {said(error)}") from error


@contextmanager
def without_cache(model: nn.Module) -> Any:
    """Within it a transformers model keeps no keys and values."""
    config = getattr(model, "config", None)
    before = getattr(config, "use_cache", None)
    if config is not None and before is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if config is not None and before is not None:
            config.use_cache = before


@dataclass(eq=False)
class Chain:
    """Blocks in order, and for each call what every block is given beside the hidden states: (args, kwargs)."""

    blocks: tuple[nn.Module, ...]
    given: list[list[Call]]

    def through(self, number: int, call: int, hidden: Tensor) -> Tensor:
        """What block `number` gives for one call's hidden states."""
        args, kwargs = self.given[call][number]
        with _in_one_line():
            return _first(self.blocks[number](*_filled(args, hidden), **_named(kwargs, hidden)))


class _Here:
    """Stands for the hidden states among arguments."""


_HERE = _Here()


def _filled(args: Sequence[Any], hidden: Tensor) -> tuple[Any, ...]:
    return tuple(hidden if value is _HERE else value for value in args)


def _named(kwargs: dict[str, Any], hidden: Tensor) -> dict[str, Any]:
    return {key: hidden if value is _HERE else value for key, value in kwargs.items()}


def _first(made: Any) -> Any:
    return (
        made if isinstance(made, Tensor) else next((t for t in pytree.tree_leaves(made) if isinstance(t, Tensor)), None)
    )


def _taken_out(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor | None, Call]:
    """The hidden states among a block's arguments, and the arguments without them."""
    if args and isinstance(args[0], Tensor):
        return args[0], ((_HERE, *args[1:]), kwargs)
    for name in _NAMES:
        if isinstance(kwargs.get(name), Tensor):
            return kwargs[name], (args, {**kwargs, name: _HERE})
    return None, (args, kwargs)


@torch.no_grad()
def find_chain(
    model: nn.Module, calls: Sequence[Call], is_layer: Callable[[nn.Module], bool]
) -> tuple[Chain, list[Tensor]] | None:
    """The chain that holds most of the weights, if one holds half of them, and what its first block reads, by call."""
    whole = _weights(model, is_layer)
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) > 1]
    for candidate in sorted(lists, key=lambda part: -_weights(part, is_layer)):
        if 2 * _weights(candidate, is_layer) < whole:
            break
        blocks = tuple(candidate)
        if len({id(block) for block in blocks}) == len(blocks) and (found := _followed(model, blocks, calls)):
            return found
    return None


def _weights(part: nn.Module, is_layer: Callable[[nn.Module], bool]) -> int:
    weights = {id(module.weight): module.weight for module in part.modules() if is_layer(module)}
    return sum(int(cast(Tensor, weight).numel()) for weight in weights.values())


def _followed(
    model: nn.Module, blocks: tuple[nn.Module, ...], calls: Sequence[Call]
) -> tuple[Chain, list[Tensor]] | None:
    """The chain and its first inputs; None if the blocks are not a chain for the first call, or do not take others."""
    order: list[int] = []
    read: list[Tensor | None] = []
    made: list[Any] = []
    number = {id(block): i for i, block in enumerate(blocks)}

    def before(part: nn.Module, args: Any, kwargs: Any) -> None:
        order.append(number[id(part)])
        read.append(_taken_out(args, kwargs)[0])

    def after(part: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        made.append(answer)

    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(after, with_kwargs=True) for block in blocks]
    try:
        run(model, calls[0])
    finally:
        for hook in hooks:
            hook.remove()
    if order != list(range(len(blocks))) or any(x is None for x in read):
        return None
    if any(_first(answer) is not x for answer, x in zip(made, read[1:])):
        return None
    caught = [_caught(model, blocks, call, made) for call in calls]
    if any(found is None for found in caught):
        return None
    chain = Chain(blocks, [given for _, given in caught])  # type: ignore[misc]
    hidden = caught[0][0]  # type: ignore[index]
    for place in range(len(blocks)):
        hidden = chain.through(place, 0, hidden)
    last = _first(made[-1])
    same = hidden.shape == last.shape and torch.allclose(hidden, last, rtol=1e-3, atol=1e-3, equal_nan=True)
    return (chain, [x for x, _ in caught]) if same else None  # type: ignore[misc]


def _caught(
    model: nn.Module, blocks: tuple[nn.Module, ...], call: Call, made: Sequence[Any]
) -> tuple[Tensor, list[Call]] | None:
    """What the first block reads, and what each is given beside it: blocks answer with what they read, uncomputed.

    The last one stops the pass. None if the model cannot go on with such answers.
    """
    given: list[Call] = []
    inputs: list[Tensor] = []
    own = [block.__dict__.get("forward") for block in blocks]

    def standing_in(place: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden, beside = _taken_out(args, kwargs)
            if hidden is None or place != len(given):
                raise _Enough
            given.append(beside)
            if not place:
                inputs.append(hidden)
            if place == len(blocks) - 1:
                raise _Enough
            shape = _first(made[place]).shape[1:]
            answer = hidden if hidden.shape[1:] == shape else hidden.new_zeros(len(hidden), *shape)
            return answer if isinstance(made[place], Tensor) else (answer, *[None] * (len(tuple(made[place])) - 1))

        return forward

    try:
        for place, block in enumerate(blocks):
            block.forward = standing_in(place)  # type: ignore[method-assign]
        run(model, call)
    except _Enough:
        pass
    finally:
        for block, forward in zip(blocks, own):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.forward = forward  # type: ignore[method-assign]
    return (inputs[0], given) if len(given) == len(blocks) else None
