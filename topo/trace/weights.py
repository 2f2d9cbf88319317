"""Weights that are made from parameters: what a product with them is, term by term.

A product is linear in its weight, so `W + W.T`, `W + B @ A` or a concatenation of weights is a sum of layers: an entry
is live if any of the places that it is made from is. Triangles, masks and padding close entries of a view
(`Weight.kept`). What is not a sum of views (kron, W * V, a softmax) is `Later`: if a product needs it, each
entry of its parameters becomes a unit, and the operations that make it are run on those as on activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topo.trace.nodes import (
    NORMS,
    REDUCTIONS,
    SATURATING,
    is_layout,
    is_pointwise,
    operation,
    parameters_behind,
    passes,
)
from topo.trace.units import LEARNED, Units, Weight, compact, filled, squash
from topo.wiring import CONSTANT, NOTHING

Literally = Callable[[Node, list[Any]], Any]


@dataclass(frozen=True)
class Chain:
    """A product of two matrices, left @ right, of which at least one is made from parameters."""

    left: Any
    right: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.left.shape[0], self.right.shape[1])

    def turned(self) -> Chain:
        return Chain(turned(self.right), turned(self.left))


@dataclass(frozen=True)
class Sum:
    """Terms of one shape that are added: views of parameters, chains, and ids of constants."""

    terms: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.terms[0].shape)


@dataclass(frozen=True, eq=False)
class Later:
    """Weights that are not a sum of views. find: gives the ids of their entries, when a product first needs them."""

    shape: tuple[int, ...]
    find: Callable[[], Tensor]

    @cached_property
    def ids(self) -> Tensor:
        return self.find()


Made = Weight | Sum | Chain | Later
_UNSEEN = Chain | Later  # no view of one parameter
_FEW_TERMS = 16


def entries(units: Units, value: Any) -> Tensor:
    """The ids of made weights, entry by entry: of units, one for each entry of a parameter."""
    if isinstance(value, Later):
        return value.ids
    if isinstance(value, Sum):
        ids = filled(value.shape, NOTHING)
        for term in value.terms:
            ids = units.add(ids, entries(units, term))
        return ids
    if isinstance(value, Chain):
        left, right = (entries(units, side) for side in (value.left, value.right))
        return units.product(left.unsqueeze(1), right.transpose(0, 1).unsqueeze(0), 0)
    if isinstance(value, Weight):
        return units.entries(value)
    return value


def terms_of(value: Any) -> tuple[Any, ...]:
    return value.terms if isinstance(value, Sum) else (value,)


def summed(terms: Sequence[Any]) -> Made:
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def turned(value: Any) -> Any:
    """The transpose of a matrix."""
    if isinstance(value, Sum):
        return Sum(tuple(turned(term) for term in value.terms))
    if isinstance(value, Later):
        return Later(value.shape[::-1], lambda: value.ids.transpose(0, 1))
    return value.turned() if isinstance(value, Chain) else mapped(value, lambda part: part.transpose(0, 1))


def mapped(value: Any, change: Callable[[Tensor], Tensor], missing: Callable[[Tensor], Tensor] | None = None) -> Any:
    """A layout operation on a view or on ids. missing: the same on `kept`, if it adds places that hold nothing."""
    if isinstance(value, Tensor):
        return squash((missing or change)(value))
    kept = value.kept
    if missing is not None and kept is None:
        kept = torch.ones((1,) * len(value.shape), dtype=torch.bool).expand(value.shape)
    held = None if kept is None else (missing or change)(kept)
    return replace(value, coords=tuple(squash(change(c)) for c in value.coords), kept=held)


def made_from(units: Units, node: Node, inputs: list[Any], shape: Any, literally: Literally) -> Any:
    """What an operation on constants makes of parameters, as weights; None if it is not followed."""
    name = operation(node).removeprefix("aten.")
    if is_layout(node):
        return _layout(node, inputs, literally)
    if name == "_weight_norm":
        return inputs[0]
    inputs = [
        [vector_as_constant(v) for v in i] if isinstance(i, list | tuple) else vector_as_constant(i) for i in inputs
    ]
    if not any(isinstance(v, Made) for i in inputs for v in (i if isinstance(i, list) else [i])):
        return None
    if isinstance(shape, list):
        norm = name == "_weight_norm_interface" or (name in NORMS and isinstance(inputs[0], Made))
        return [inputs[0], *map(filled, shape[1:])] if norm else None
    if name in NORMS and isinstance(inputs[0], Made):
        return inputs[0]  # standardised weights
    if name in ("cat", "concat", "concatenate"):
        return _cat(inputs[0], inputs[1], shape)
    if name == "stack":
        dim = inputs[1] % len(shape)
        return _cat([_unsqueezed(part, dim) for part in inputs[0]], dim, shape)
    if name in ("pad", "constant_pad_nd") and not any(isinstance(value, float) and value for value in inputs[2:]):
        sides = list(inputs[1])
        return _each(inputs[0], lambda term: _padded(term, sides))
    if name in ("index", "index_select"):
        return _indexed(units, node, name, inputs)
    if name in ("add", "sub", "rsub", "subtract"):
        return _added(units, node, inputs[:2], shape)
    if name in ("matmul", "mm") and len(shape) == 2:
        return Chain(*inputs[:2])
    if name == "addmm" and not any(isinstance(value, int | float) and not value for value in inputs[3:]):
        return _added(units, node, [inputs[0], Chain(*inputs[1:3])], shape)
    if name in ("tril", "triu"):
        kept = torch.ones(shape, dtype=torch.bool)
        kept = kept.tril(inputs[1]) if name == "tril" else kept.triu(inputs[1])
        return _each(inputs[0], lambda term: _closed(term, kept))
    if name in ("where", "masked_fill"):
        return _chosen(units, node, name, inputs, shape)
    if name in ("mul", "multiply", "div", "divide", "true_divide"):
        return _scaled(units, node, inputs, shape)
    if name in ("sum", "mean"):
        return _reduced(node, inputs, shape)
    if name in ("copy", "copy_"):
        return expanded(inputs[1], shape)
    given = [value for value in inputs if isinstance(value, Made | Tensor)]
    if "softmax" in name or len(given) != 1:
        return None
    if given[0].shape == shape and passes(node) and not is_pointwise(node):
        return given[0]
    if given[0].shape == shape and is_pointwise(node):
        if not isinstance(given[0], Weight):
            return None
        hard = units.gates == "hard" and name in SATURATING
        return Sum((given[0], filled(shape))) if units.not_zero_at_zero() and not hard else given[0]
    return None


def _reduced(node: Node, inputs: list[Any], shape: Sequence[int]) -> Any:
    """The sum of a few views."""
    value, dims = inputs[0], inputs[1] if len(inputs) > 2 else None
    if not isinstance(value, Made) or any(isinstance(term, _UNSEEN) for term in terms_of(value)):
        return None
    given = range(len(value.shape)) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    axes = sorted({d % len(value.shape) for d in given}, reverse=True)
    count = math.prod(value.shape[d] for d in axes)
    if count > _FEW_TERMS or len(shape) not in (len(value.shape), len(value.shape) - len(axes)):
        return None
    parts = [value]
    for axis in axes:
        parts = [_narrowed(part, axis, at) for part in parts for at in range(value.shape[axis])]
    terms = [term for part in parts for term in terms_of(part)]
    return summed([mapped(term, lambda c: c.reshape(shape)) for term in terms])


def _narrowed(part: Any, axis: int, at: int) -> Any:
    return _each(part, lambda term: mapped(term, lambda c: c.narrow(axis, at, 1)))


def vector_as_constant(value: Any) -> Any:
    """Parameters of fewer than two dimensions are not layers: learned constants."""
    if not isinstance(value, Weight) or len(value.size) > 1:
        return value
    ids = filled(value.shape, LEARNED)
    return ids if value.kept is None else squash(torch.where(value.kept, ids, NOTHING).to(torch.int32))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(value, Made):
        return None
    found = [change(term) for term in terms_of(value)]
    return None if any(term is None for term in found) else summed(found)


def _layout(node: Node, inputs: list[Any], literally: Literally) -> Any:
    if not isinstance(inputs[0], Made):
        return None
    name = operation(node).removeprefix("aten.")

    def change(term: Any) -> Any:
        if isinstance(term, Later):
            return None
        if isinstance(term, Chain):
            if name == "permute" and [d % 2 for d in inputs[1]] == [0, 1]:
                return term
            return term.turned() if name in _SWAPS and (name == "permute" or _swaps(inputs[1:3])) else None
        if isinstance(term, Tensor):
            return literally(node, [term, *inputs[1:]])
        parts = [literally(node, [coords, *inputs[1:]]) for coords in term.coords]
        kept = None if term.kept is None else literally(node, [term.kept, *inputs[1:]])
        if isinstance(parts[0], list):
            return [
                Weight(term.name, term.size, tuple(c[i] for c in parts), None if kept is None else kept[i])
                for i in range(len(parts[0]))
            ]
        return Weight(term.name, term.size, tuple(parts), kept)

    found = [change(term) for term in terms_of(inputs[0])]
    if any(term is None for term in found):
        return None
    if isinstance(found[0], list):
        return [summed(parts) for parts in zip(*found)]
    return summed(found)


_SWAPS = frozenset("t numpy_T mT mH adjoint transpose swapaxes swapdims permute".split())


def _swaps(dims: Sequence[Any]) -> bool:
    return not dims or sorted(d % 2 for d in dims) == [0, 1]


def _unsqueezed(value: Any, dim: int) -> Any:
    if isinstance(value, Made):
        return _each(
            value, lambda term: None if isinstance(term, _UNSEEN) else mapped(term, lambda c: c.unsqueeze(dim))
        )
    return value.unsqueeze(dim) if isinstance(value, Tensor) else value


def _cat(parts: Sequence[Any], dim: int, shape: Sequence[int]) -> Any:
    dim, at, terms = dim % len(shape), 0, []
    for part in parts:
        if part is None:
            return None
        before, after = at, shape[dim] - at - part.shape[dim]
        at += part.shape[dim]
        for term in terms_of(part):
            if isinstance(term, _UNSEEN):
                return None
            if isinstance(term, Weight) or not bool((compact(term)[0] == NOTHING).all()):
                terms.append(_padded(term, [*[0] * 2 * (len(shape) - 1 - dim), before, after]))
    return summed(terms)


def _padded(term: Any, sides: list[int]) -> Any:
    """A view beside zeros: what stands there is the first element along the axis, and not kept."""
    if isinstance(term, _UNSEEN):
        return None

    def repeated(c: Tensor) -> Tensor:
        for at in range(0, len(sides), 2):
            d = c.dim() - 1 - at // 2
            places = torch.arange(-sides[at], c.shape[d] + sides[at + 1]).clamp(0, c.shape[d] - 1)
            c = c.index_select(d, places) if any(sides[at : at + 2]) else c
        return c

    def beside(c: Tensor) -> Tensor:
        return torch.nn.functional.pad(c, sides, value=0 if c.dtype is torch.bool else NOTHING)

    return mapped(term, repeated, beside)


def _indexed(units: Units, node: Node, name: str, inputs: list[Any]) -> Any:
    """Rows by known numbers."""
    given: Any = node.args[1] if name == "index" else [None] * (inputs[1] % len(inputs[0].shape)) + [node.args[2]]
    known = [None if arg is None else units.known.get(arg) for arg in given]
    if any(arg is not None and at is None for arg, at in zip(given, known)):
        return None
    places = tuple(slice(None) if at is None else at for at in known)
    return _each(inputs[0], lambda term: None if isinstance(term, _UNSEEN) else mapped(term, lambda c: c[places]))


def _without_itself(units: Units, node: Node, terms: list[Any], of_first: int) -> list[Any]:
    """W - W.T is zero where an entry is taken from itself, and so is f(W) - f(W.T); where it may be, a note says so."""
    sides = [[term for term in side if isinstance(term, Weight)] for side in (terms[:of_first], terms[of_first:])]
    shared = [same for one in sides[0] for two in sides[1] if (same := _same_places(one, two)) is not None]
    shared = [same for same in shared if bool(same.any()) and not bool(same.all())]
    if not shared:
        _tell_of_both(units, node)
        return terms
    functions = [_function(arg) for arg in node.args[:2]]
    equal = functions[0] == functions[1] is not None
    scaled = any(value != 1 for value in (*node.args[2:], *node.kwargs.values()))
    takes = operation(node) != "aten.add"
    if takes and equal and not scaled and len(sides[0]) == len(sides[1]) == 1:
        return [_closed(term, ~shared[0]) if isinstance(term, Weight) else term for term in terms]
    if None in functions if takes else not equal and _turns_round(functions):
        units.note(
            f"a function of '{sides[0][0].name}' is taken off another at some of the same places: where these are "
            "equal, too many weights count"
        )
    return terms


def _tell_of_both(units: Units, node: Node) -> None:
    """A note where one product of a parameter is taken off another: (w + 1) * v - v is 0 where w is."""
    takes = operation(node) != "aten.add" or any(isinstance(a, Node) and operation(a) == "aten.neg" for a in node.args)
    behind = [parameters_behind(arg) for arg in node.args[:2]]
    both = behind[0] & behind[1]
    if takes and both and len(behind[0] | behind[1]) > 1:
        units.note(
            f"what is computed from '{min(both)}' and others is taken off something else of it: where both are equal, "
            "too many weights count"
        )


def _turns_round(functions: list[list[Any] | None]) -> bool:
    """Whether a sum of these may be a difference."""
    found = [step for function in functions for step in function or ()]
    return any("neg" in str(target) or "sub" in str(target) or any(map(_negative, args)) for target, args, _ in found)


def _negative(value: Any) -> bool:
    return isinstance(value, int | float) and value < 0


def _function(node: Any) -> list[Any] | None:
    """The element-wise operations that make a weight of one parameter, wherever its entries lie; None if there are
    others."""
    found: list[Any] = []
    while isinstance(node, Node) and node.op == "call_function":
        if len(node.all_input_nodes) != 1 or node.args[0] is not node.all_input_nodes[0]:
            return None
        name = operation(node).removeprefix("aten.")
        if not is_layout(node) and name not in ("clone", "contiguous", "tril", "triu"):
            if not is_pointwise(node):
                return None
            found.append((node.target, node.args[1:], tuple(node.kwargs.items())))
        node = node.args[0]
    return found


def _same_places(one: Any, two: Any) -> Tensor | None:
    """Where two views hold the same entry of one parameter."""
    if not (isinstance(one, Weight) and isinstance(two, Weight) and one.name == two.name):
        return None
    same = torch.ones((1,) * len(one.shape), dtype=torch.bool)
    for c, d in zip(one.coords, two.coords):
        same = same & (c == d)
    return same


def _is_statistic(units: Units, arg: Any, value: Any, other: Any) -> bool:
    """Whether `value` only rescales or shifts the weight that it is computed from: its mean, its norm. A note says so.

    By the convention of norms it is not a path.
    """
    if not isinstance(arg, Node) or not isinstance(value, Made | Tensor) or not isinstance(other, Made):
        return False
    own = {term.name for term in terms_of(other) if isinstance(term, Weight)}
    behind = parameters_behind(arg)
    if not behind or not behind <= own or math.prod(value.shape) >= math.prod(other.shape) or not _reduces(arg):
        return False
    units.note(f"the weight that is made of '{min(own)}' and what is computed from it is taken for it")
    return True


def _reduces(node: Node) -> bool:
    """Whether a sum, mean, norm or product takes part in computing `node`."""
    queue, seen = [node], set()
    while queue:
        at = queue.pop()
        if at not in seen:
            seen.add(at)
            queue.extend(at.all_input_nodes)
            name = operation(at).removeprefix("aten.") if at.op == "call_function" else ""
            if name in REDUCTIONS or name in ("mv", "dot", "vdot", "matmul", "mm"):
                return True
    return False


def expanded(value: Any, shape: Sequence[int]) -> Any:
    if not isinstance(value, Made):
        return value.expand(shape)
    if value.shape == tuple(shape):
        return value
    return _each(value, lambda term: None if isinstance(term, _UNSEEN) else mapped(term, lambda c: c.expand(shape)))


def _added(units: Units, node: Node, sides: list[Any], shape: Sequence[int]) -> Any:
    """W + V. What is computed from a weight itself (its mean, taken off) is not another term."""
    terms: list[Any] = []
    of_first = 0
    for side, other, arg in zip(sides, sides[::-1], node.args):
        of_first = of_first or len(terms)
        if _is_statistic(units, arg, side, other):
            continue
        if isinstance(side, Made):
            side = expanded(side, shape)
            if side is None:
                return None
            terms += terms_of(side)
        elif isinstance(side, Tensor):
            if isinstance(arg, Node) and parameters_behind(arg):
                return None
            if bool((compact(side)[0] != NOTHING).any()):
                terms.append(torch.where(side == NOTHING, NOTHING, CONSTANT).to(torch.int32).expand(tuple(shape)))
        elif side:
            terms.append(filled(shape))
    if 0 < of_first < len(terms):
        terms = _without_itself(units, node, terms, of_first)
    return summed(terms)


def _closed(term: Any, kept: Tensor) -> Any:
    """A term without the entries that are not kept."""
    if isinstance(term, _UNSEEN):
        return None
    shape = torch.broadcast_shapes(tuple(term.shape), kept.shape)
    if isinstance(term, Tensor):
        return squash(torch.where(kept, term, NOTHING).expand(shape))
    held = kept if term.kept is None else term.kept & kept
    whole = None if bool(held.all()) else held.expand(shape)
    return replace(term, coords=tuple(c.expand(shape) for c in term.coords), kept=whole)


def _scaled(units: Units, node: Node, inputs: list[Any], shape: Sequence[int]) -> Any:
    """W times a constant: without the entries that it is zero for. The product of two parameters is not linear."""
    one, two = inputs[:2]
    divides = "div" in operation(node)
    for value, other, arg in ((two, one, node.args[1]), (one, two, node.args[0])):
        if isinstance(other, Made) and tuple(other.shape) == tuple(shape) and _is_statistic(units, arg, value, other):
            return other
        if divides and isinstance(other, Tensor | int | float) and isinstance(value, Made) and value is two:
            return None
    if isinstance(one, Made) and isinstance(two, Made):
        weight = one if one.shape == tuple(shape) and not _varies(two) else two if not _varies(one) else None
        return weight if weight is not None and weight.shape == tuple(shape) else None
    weight, factor = (one, two) if isinstance(one, Made) else (two, one)
    if isinstance(factor, Tensor) and bool((compact(factor)[0] == NOTHING).any()) and not _is_pruning(node):
        kept = factor != NOTHING
        return _each(weight, lambda term: _closed(term, kept))
    if isinstance(factor, (int, float)) and factor == 0:
        return None
    return expanded(weight, shape) if isinstance(factor, Tensor) else weight


def _varies(value: Made) -> bool:
    """Whether a factor is a matrix of its own, and not a vector of scales."""
    return not isinstance(value, Weight) or len([n for n in value.size if n > 1]) > 1 or value.kept is not None


def _is_pruning(node: Node) -> bool:
    """Whether the factor is what torch.nn.utils.prune or topo put on the parameter: masks say that, not the wiring."""
    queue = list(node.all_input_nodes)
    while queue:
        arg = queue.pop()
        if arg.meta.get("pruning"):
            return True
        queue.extend(arg.all_input_nodes)
    return False


def _chosen(units: Units, node: Node, name: str, inputs: list[Any], shape: Sequence[int]) -> Any:
    """where and masked_fill with a known mask."""
    if _is_pruning(node):
        return next(value for value in inputs if isinstance(value, Made))
    at = 0 if name == "where" else 1
    known = units.known.get(node.args[at])
    if known is None:
        return None
    first, second = (inputs[1], inputs[2]) if name == "where" else (inputs[2], inputs[0])
    terms: list[Any] = []
    for side, kept in ((first, known), (second, ~known)):
        if isinstance(side, Made):
            found = [_closed(term, kept) for term in terms_of(side)]
            if any(term is None for term in found):
                return None
            terms += terms_of(expanded(summed(found), shape))
        elif isinstance(side, Tensor) and bool((compact(side)[0] != NOTHING).any()):
            terms.append(squash(torch.where(kept, side, NOTHING).to(torch.int32).expand(tuple(shape))))
        elif isinstance(side, (int, float)) and side:
            terms.append(squash(torch.where(kept, CONSTANT, NOTHING).to(torch.int32).expand(tuple(shape))))
    return summed(terms)
