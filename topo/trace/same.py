"""What cancels: a value that is taken off itself, or divided by itself, is a constant, and no path.

Each value is kept as a sum of values with numbers before them, along sums, signs, factors that are numbers and
operations that only give it another shape: `x + (-x)`, `(x + y) - x` and `x * 1 - x` are 0, y and 0. The same
operation on the same values gives the same value, so that `relu(x) - relu(x)` is 0, too. What else cancels (products
that are multiplied out, softmax by hand over two entries) is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topo.trace.nodes import extent, operation, outcome, sizes, written
from topo.trace.units import Units, filled, squash, tracked
from topo.trace.weights import Made
from topo.wiring import CONSTANT, NOTHING

# These give the same entries in the same order.
_SAME = frozenset(
    """to _to_copy type_as contiguous clone alias lift_fresh_copy lift_fresh lift cpu cuda requires_grad_ resolve_conj
    resolve_neg view _unsafe_view reshape view_as reshape_as unsqueeze squeeze flatten unflatten ravel
    positive""".split()
)
_SAME_OF_ONE = frozenset("sum mean nansum nanmean amax amin prod logsumexp".split())  # over axes of one entry
_SPREAD = frozenset("expand expand_as broadcast_to".split())
_DROPOUT = frozenset("dropout feature_dropout alpha_dropout feature_alpha_dropout".split())
_SUMS = frozenset("add sub subtract rsub".split())
_FACTORS = frozenset("mul multiply div divide true_divide".split())
_ARITHMETIC = _SUMS | _FACTORS
_ONE = "1"  # in place of a value: the number before it is added
Terms = Mapping[Any, float]


class Same:
    """The terms of each value of a graph, node by node, in order. What is written in place is a new value after it."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self._terms: dict[Node, Terms] = {}
        self._number: dict[Any, int] = {}  # of a value, by what made it
        self._first: dict[int, Node] = {}  # the first node that holds the value of a number

    def ids(self, node: Node, env: Mapping[Node, Any]) -> Tensor | None:
        """The ids of what is left of an operation in which something cancels; None if nothing does."""
        value, terms = outcome(node), self._enter(node)
        if terms is None:
            return None
        given = [env.get(arg) for arg in node.all_input_nodes]
        if not any(map(tracked, given)) or all(isinstance(one, Made) for one in given):
            return None
        taken = [arg for arg in node.all_input_nodes if isinstance(outcome(arg), Tensor)]
        gone = {key for arg in taken for key in self._of(arg, value)} - set(terms) - {_ONE}
        return self._left(terms, sizes(value.shape), env) if gone else None

    def _left(self, terms: Terms, shape: tuple[int, ...], env: Mapping[Node, Any]) -> Tensor | None:
        made = filled(shape, CONSTANT if _ONE in terms else NOTHING)
        for key in terms:
            if key != _ONE:
                number, *spread = key if isinstance(key, tuple) else (key,)
                ids = env.get(self._first[number])
                if not isinstance(ids, Tensor):
                    return None
                for before, after in spread:
                    ids = squash(ids.reshape(before)).expand(after)
                made = self.units.add(made, squash(ids.reshape(shape)))
        return made

    def _enter(self, node: Node) -> Terms | None:
        """Note the terms of a node; None unless it is arithmetic, in which something may cancel."""
        value, writes = outcome(node), written(node)
        terms = self._sum(node, value) if isinstance(node.target, torch._ops.OpOverload) else None
        if writes or isinstance(node.target, torch._ops.HigherOrderOperator):
            self._terms.clear()  # of views of what is written, and of what graphs within the graph write
            self._number.clear()
        elif isinstance(value, Tensor):
            self._terms[node] = self._alone(node) if terms is None else terms
        return terms if operation(node).removeprefix("aten.") in _ARITHMETIC else None

    def _of(self, arg: Any, value: Tensor) -> Terms:
        """The terms of what an operation takes, spread to the shape of what it gives."""
        known = self.units.known.get(arg)
        if isinstance(known, Tensor) and known.numel() == 1 and not known.is_complex():
            return _clean({_ONE: float(known)})
        if arg not in self._terms:
            self._terms[arg] = self._alone(arg)
        terms, given = self._terms[arg], outcome(arg)
        before, after = sizes(given.shape), sizes(value.shape)
        if extent(before) == extent(after):
            return terms
        return {key if key == _ONE else _spread(key, before, after): factor for key, factor in terms.items()}

    def _sum(self, node: Node, value: Any) -> Terms | None:
        """The terms of a sum, or of what gives the same; None for any other operation."""
        name = operation(node).removeprefix("aten.")
        tensors = [arg for arg in node.all_input_nodes if isinstance(outcome(arg), Tensor)]
        if not tensors or not isinstance(value, Tensor):
            return None
        if not all(one.is_floating_point() for one in (value, *map(outcome, tensors))):
            return None
        first, *others = (*node.args, None)
        if not isinstance(first, Node | int | float):
            return None
        if name in _SPREAD:
            return self._of(first, value)
        whole = isinstance(first, Node) and extent(outcome(first).shape) == extent(value.shape)
        kept = name in _SAME and not (others and isinstance(others[0], torch.dtype) and "view" in name)
        if whole and (kept or name in _SAME_OF_ONE or (name in _DROPOUT and others[1] is False)):
            return self._of(first, value)
        if name == "neg":
            return _clean({key: -factor for key, factor in self._of(first, value).items()})
        second = others[0]
        if not isinstance(second, Node | int | float):
            return None
        if name in _SUMS:
            alpha = node.kwargs.get("alpha", others[1] if len(others) > 2 else 1)
            if not isinstance(alpha, int | float):
                return None
            left, right = (self._given(side, value) for side in (first, second))
            of_left = -alpha if name == "rsub" else 1
            of_right = {"add": alpha, "rsub": 1}.get(name, -alpha)
            keys = dict.fromkeys((*left, *right))
            return _clean({key: of_left * left.get(key, 0) + of_right * right.get(key, 0) for key in keys})
        if name in _FACTORS and not node.kwargs:
            return self._scaled(name, self._given(first, value), self._given(second, value))
        return None

    def _given(self, side: Any, value: Tensor) -> Terms:
        return self._of(side, value) if isinstance(side, Node) else _clean({_ONE: float(side)})

    @staticmethod
    def _scaled(name: str, left: Terms, right: Terms) -> Terms | None:
        """A product with a number, or what is divided by one or by itself."""
        if name.startswith("mul"):
            if set(left) == {_ONE}:
                left, right = right, left
            return _clean({key: factor * right[_ONE] for key, factor in left.items()}) if set(right) == {_ONE} else None
        if set(right) == {_ONE}:
            return _clean({key: factor / right[_ONE] for key, factor in left.items()})
        if left and set(left) == set(right):
            ratios = [left[key] / right[key] for key in left]
            if all(math.isclose(ratio, ratios[0], rel_tol=1e-12) for ratio in ratios):
                return _clean({_ONE: ratios[0]})
        return None

    def _alone(self, node: Node) -> Terms:
        """A value that is not a sum of others: itself, or an earlier one that the same operation made of the same."""
        key = self._made_by(node)
        number = self._number.setdefault(key, len(self._first))
        if number == len(self._first):
            self._first[number] = node
        return {number: 1.0}

    def _made_by(self, node: Node) -> Any:
        """What two nodes share that hold the same value; the node itself where that is not known."""
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not node.all_input_nodes or target._schema.is_mutable:
            return node
        if torch.Tag.nondeterministic_seeded in target.tags:
            return node
        return target, self._frozen(node.args), self._frozen(node.kwargs)

    def _frozen(self, given: Any) -> Any:
        if isinstance(given, Node):
            value = outcome(given)
            if isinstance(value, Tensor):
                terms = self._of(given, value)
                return sizes(value.shape), value.dtype, frozenset(terms.items()), given if _ONE in terms else None
            return given
        if isinstance(given, Mapping):
            return tuple((name, self._frozen(one)) for name, one in given.items())
        if isinstance(given, list | tuple):
            return tuple(map(self._frozen, given))
        return type(given), str(given)


def _spread(key: Any, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    number, *way = key if isinstance(key, tuple) else (key,)
    return (number, *way, (before, after))


def _clean(terms: Terms) -> Terms:
    """Without the terms whose numbers cancel, up to rounding."""
    return {key: factor for key, factor in terms.items() if abs(factor) > 1e-12}
