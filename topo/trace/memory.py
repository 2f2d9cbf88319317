"""Tensors that share memory: what a write in place does to the views of the tensor that it is written into.

The fake tensors of a captured graph have storages as real ones do, so that two nodes share memory if their storages are
one, and strides say which element of it each place of a view is. Views by any operation are followed so: slices, turns,
diagonals, `detach`, a `reshape` that did not copy, `as_strided`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topo.trace.nodes import is_layout, operation, outcome, sizes
from topo.trace.units import NoRule, Units, Weight, squash
from topo.trace.weights import Later, Made, Sum, entries, mapped

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]


class Memory:
    """The nodes of a graph by the memory that their tensors lie in; `enter` adds one as soon as it has a value."""

    def __init__(self) -> None:
        self._sharing: dict[int, list[Node]] = defaultdict(list)
        self._geometry: dict[Node, Geometry] = {}

    def enter(self, node: Node) -> None:
        value = outcome(node)
        if isinstance(value, Tensor) and (found := _geometry(value)) is not None:
            self._sharing[value.untyped_storage()._cdata].append(node)
            self._geometry[node] = found

    def strided(self, units: Units, node: Node, env: dict[Node, Any]) -> Any:
        """What `as_strided` sees: entries of the memory of its input."""
        whole, seen = self._whole(node), _geometry(outcome(node))
        if whole is None or seen is None or not isinstance(env.get(whole), Tensor | Made):
            raise NoRule("it looks at memory that is known in part")
        return _taken(units, env[whole], _places(seen))

    def write(self, units: Units, by: Node, target: Any, made: Any, env: dict[Node, Any]) -> None:
        """After the operation `by` wrote `made` into `target`: all that share its memory hold it."""
        if (
            not isinstance(target, Node)
            or not isinstance(made, Tensor | Made)
            or not isinstance(outcome(target), Tensor)
        ):
            return
        before, env[target] = env.get(target), made
        if target not in self._geometry:
            return
        if is_layout(by):  # x.t_() turns x, and moves nothing
            self._geometry[target] = self._geometry.get(by, self._geometry[target])
            return
        sharing = self._sharing[outcome(target).untyped_storage()._cdata]
        at = self._geometry[target]
        others = [node for node in sharing if node is not target and isinstance(env.get(node), Tensor | Made)]
        for node in others:
            if self._geometry[node] == at:
                env[node] = made
        others = [node for node in others if self._geometry[node] != at and any(user not in env for user in node.users)]
        base = self._whole(target)
        if base is not None and base is not target and base not in others and self._geometry[base] != at:
            others.append(base)
        if not others:
            return
        if base is None:
            units.note(f"'{operation(by).removeprefix('aten.')}' writes into memory that is known in part")
            for node in others:
                if isinstance(env[node], Tensor) and isinstance(made, Tensor):
                    every = units.reduce(made, range(made.dim()))
                    env[node] = units.add(env[node], every.expand(env[node].shape))
            return
        old = before if base is target else env[base]
        if self._geometry[base] == at:
            for node in others:
                env[node] = _taken(units, made, _places(self._geometry[node]))
            return

        def written() -> Tensor:
            flat = entries(units, old).reshape(-1).clone()
            flat[_places(at).reshape(-1)] = entries(units, made).expand(at[0]).reshape(-1)
            return flat

        if any(isinstance(value, Made) for value in (old, made)):
            once = cache(written)
            for node in others:
                env[node] = Later(self._geometry[node][0], partial(_of_flat, once, self._geometry[node]))
        else:
            flat = written()
            for node in others:
                env[node] = squash(flat[_places(self._geometry[node])])

    def _whole(self, node: Node) -> Node | None:
        """The first node that lies over all of the memory of `node`, in order."""
        value = outcome(node)
        for other in self._sharing.get(value.untyped_storage()._cdata, ()):
            shape, strides, offset = self._geometry[other]
            if offset == 0 and outcome(other).is_contiguous() and _in_order(shape, strides):
                if math.prod(shape) * outcome(other).element_size() == value.untyped_storage().nbytes():
                    return other if outcome(other).element_size() == value.element_size() else None
        return None


def _in_order(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie one after the other."""
    step = 1
    for n, stride in zip(reversed(shape), reversed(strides)):
        if n > 1 and stride != step:
            return False
        step *= n
    return True


def _geometry(value: Tensor) -> Geometry | None:
    if value.layout != torch.strided:  # a pretended sparse tensor tells strides, too
        return None
    try:
        return sizes(value.shape), sizes(value.stride()), sizes((value.storage_offset(),))[0]
    except (RuntimeError, AttributeError, TypeError):  # of sparse tensors, and sizes that depend on data
        return None


def _places(geometry: Geometry) -> Tensor:
    """Which element of the memory each place of a view is."""
    shape, strides, offset = geometry
    at = torch.full((1,) * len(shape), offset)
    for d, (n, stride) in enumerate(zip(shape, strides)):
        at = at + (torch.arange(n) * stride).view([-1 if k == d else 1 for k in range(len(shape))])
    return at.expand(shape)


def _of_flat(find: Any, geometry: Geometry) -> Tensor:
    return squash(find()[_places(geometry)])


def _taken(units: Units, value: Any, places: Tensor) -> Any:
    """The entries at these places, in the order of memory, of ids or of weights."""
    if isinstance(value, Tensor):
        return squash(value.reshape(-1)[places])
    if isinstance(value, Sum) and all(isinstance(term, Tensor | Weight) for term in value.terms):
        return replace(value, terms=tuple(_taken(units, term, places) for term in value.terms))
    if isinstance(value, Weight):
        return mapped(value, lambda c: c.reshape(-1)[places])
    return Later(tuple(places.shape), lambda: squash(entries(units, value).reshape(-1)[places]))
