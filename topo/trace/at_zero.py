"""What element-wise functions give where all that they are computed from is zero.

A unit is always live beside a constant where a function of it is not 0 at 0: `exp(x)`, `1 + scale`. A chain of such
functions may be 0 at 0 all the same: `exp(x) - 1`, `2 * sigmoid(x) - 1`, `softplus(x) - log(2)`, `(w + 1) ** 2 - 1`. No
rule of a single operation can see this. So the chain is run at 0 as it was recorded, in double precision and in the
model's own (a log(2) that was rounded to float32 cancels there alone), and where either gives 0 nothing stands beside
the unit.

Of activations one number is known (functions that differ from place to place end a chain), of weights that are made
from parameters one for each entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from topo.trace.nodes import (
    ACTIVATIONS,
    CASTS,
    SATURATING,
    is_layout,
    is_pointwise,
    operation,
    outcome,
)
from topo.trace.units import Units, Weight, bare, compact, marks, squash
from topo.trace.weights import Chain, Later, Made, entries, expanded, summed, terms_of, vector_as_constant
from topo.wiring import CONSTANT, NOTHING

_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError)
_SUMS = frozenset("add sub subtract rsub".split())
_CLOSE = frozenset("mul multiply where masked_fill".split())  # some of the entries
_UNKNOWN, _UNIT, _NOTHING = 0, 1, 2
_MOST = 1 << 21  # entries of a constant that are looked at


@dataclass(frozen=True)
class AtZero:
    """value: where all is dead; of weights with the axes of the tensor, or none. kinds: what an entry of ids is.

    An entry is a unit, nothing, or not known. own: the value in the type of the model, 0 where `value` is; None if it
    is the same.
    """

    value: Tensor
    kinds: Tensor | None = None
    own: Tensor | None = None


class Chains:
    """For ids and weights that element-wise functions made: their value at zero. Others begin a chain, if they are 0
    where all is dead."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self._found: dict[int, tuple[Any, AtZero]] = {}  # by object, which is held so that no other gets its number

    def settled(self, node: Node, made: Any, env: dict[Node, Any]) -> Any:
        """What the operation of `node` made, without the constants that cancel."""
        if node.op != "call_function" or not _follows(node, self.units.gates == "hard"):
            return made
        if is_layout(node):
            self._moved(node, made, env)
            return made
        if not isinstance(made, Tensor | Made):
            return made
        at_zero = self._run(node, made, env)
        if at_zero is None:
            return made
        if isinstance(made, Made):
            made = self._weights(node, made, at_zero.value, env)
        elif at_zero.kinds is not None:
            made = _without_marks(made, at_zero)
            made = made.expand(made.shape) if id(made) in self._found else made
        self._found[id(made)] = made, at_zero
        return made

    def _of(self, value: Any) -> AtZero | None:
        """What is known of a value; of one that no chain made, that it is 0 where its units are."""
        if id(value) in self._found:
            return self._found[id(value)][1]
        zero = torch.zeros((), dtype=torch.float64)
        if isinstance(value, Tensor):
            small = compact(value)[0]
            kinds = torch.where((small >= 0) & (marks(small) == 0), _UNIT, _UNKNOWN)
            kinds = torch.where(small == NOTHING, _NOTHING, kinds).to(torch.int8)
            if not bool(kinds.any()):
                return None
            same = kinds.numel() and bool((kinds == kinds.reshape(-1)[0]).all())
            return AtZero(zero, kinds.reshape(-1)[0] if same else kinds.expand(value.shape))
        parts = terms_of(vector_as_constant(value))
        return AtZero(zero) if all(isinstance(part, Weight | Chain) for part in parts) else None

    def _moved(self, node: Node, made: Any, env: dict[Node, Any]) -> None:
        """Through an operation that moves entries."""
        arg = node.args[0]
        if not isinstance(arg, Node) or id(env[arg]) not in self._found:
            return
        found, shape = self._found[id(env[arg])][1], tuple(env[arg].shape)
        rest, named = map_arg((tuple(node.args[1:]), dict(node.kwargs)), lambda a: env[a])
        several = isinstance(made, list | tuple)
        parts = list(made) if several else [made]

        def change(part: Tensor | None) -> list[Tensor | None]:
            if part is None or not part.dim():
                return [part] * len(parts)
            moved = node.target(part.expand(shape), *rest, **named)  # type: ignore[operator]
            return [squash(side) for side in (moved if several else [moved])]

        try:
            values, kinds, owned = change(found.value), change(found.kinds), change(found.own)
        except _FAILURES:
            return
        for part, value, kind, own in zip(parts, values, kinds, owned):
            if isinstance(value, Tensor) and id(part) not in self._found:
                self._found[id(part)] = part, AtZero(value, kind, own)

    def _run(self, node: Node, made: Any, env: dict[Node, Any]) -> AtZero | None:
        """An element-wise operation, run on what it takes at zero; None if that is not known."""
        taken: dict[Node, Tensor] = {}
        owned: dict[Node, Tensor] = {}
        chains: list[AtZero] = []
        unknown = []
        for arg in node.all_input_nodes:
            value, known = env.get(arg), self.units.known.get(arg)
            if isinstance(known, Tensor) and not known.is_complex() and 0 < known.numel() <= _MOST:
                known = squash(known)
                first = known.reshape(-1)[0]
                known = first if bool((known == first).all()) else known
                taken[arg] = known.double() if known.is_floating_point() else known
                owned[arg] = known
            elif isinstance(value, Tensor | Made):
                found = self._of(value)
                if found is None or isinstance(value, Made) != isinstance(made, Made):
                    unknown.append(arg)
                else:
                    taken[arg] = found.value
                    owned[arg] = (found.value if found.own is None else found.own).to(outcome(arg).dtype)
                    chains.append(found)
        cancels = any(bool((found.value != 0).any()) for found in chains)
        if unknown and cancels:
            self._tell_unknown(node, unknown)
        value = None if unknown or not chains else _result(node, taken, env)
        if value is None:
            return None
        own = _result(node, owned, env) if outcome(node).dtype != torch.float64 else None
        if own is not None and own.shape == value.shape:
            value, own = torch.where(own == 0, 0.0, value), torch.where(value == 0, 0.0, own).to(own.dtype)
        else:
            own = None
        if isinstance(made, Made):
            return AtZero(value, None, own)
        if value.dim():
            marked = isinstance(made, Tensor) and bool((marks(compact(made)[0]) != 0).any())
            if cancels and marked and bool((value == 0).any()):
                self._note(node, "a constant that cancels it at some places")
            return None
        return AtZero(value, _joined([found.kinds for found in chains if found.kinds is not None]), own)

    def _tell_unknown(self, node: Node, unknown: list[Node]) -> None:
        """Where a constant without values (of a model on the meta device) is added to what is not 0 at 0."""
        fixed = [arg for arg in unknown if arg.op != "call_function" and "parameter" not in arg.meta]
        if operation(node).removeprefix("aten.") in _SUMS and any(not arg.meta.get("input") for arg in fixed):
            self._note(node, "a constant whose values are not known")

    def _note(self, node: Node, what: str) -> None:
        name = operation(node).removeprefix("aten.")
        self.units.note(
            f"'{name}' adds {what} to something that is not 0 at 0: it counts as never zero, which may be too many"
        )

    def _weights(self, node: Node, made: Made, value: Tensor, env: dict[Node, Any]) -> Made:
        """Weights whose constants are those at zero, and no others."""
        shape = tuple(made.shape)
        given = [env[arg] for arg in node.all_input_nodes if isinstance(env.get(arg), Made)]
        if isinstance(made, Later) and len(given) == 1 and operation(node).removeprefix("aten.") not in _CLOSE:
            terms = [None if isinstance(t, Later) else expanded(t, shape) for t in terms_of(given[0]) if _holds(t)]
            made = summed(terms) if terms and all(term is not None for term in terms) else made
        if any(isinstance(term, Later) for term in terms_of(made)):
            return Later(shape, lambda: _zero_where(entries(self.units, made), value))
        terms = [term for term in terms_of(made) if _holds(term)]
        if bool((value != 0).any()):
            constant = torch.where(value != 0, CONSTANT, NOTHING).to(torch.int32)
            terms.append(squash(constant.expand(shape)))
        elif not terms or len(terms) == len(terms_of(made)):
            return made
        return summed(terms)


def _holds(term: Any) -> bool:
    """Whether a term of a weight is of parameters, and no constant."""
    return not isinstance(term, Tensor)


def _follows(node: Node, hard: bool) -> bool:
    """Whether the operation changes entries one by one, by a function of theirs, or moves them."""
    name = operation(node).removeprefix("aten.")
    if is_layout(node):
        return True
    if "softmax" in name or name.startswith("_weight_norm") or (hard and name in SATURATING):
        return False
    value = outcome(node)
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and name not in CASTS
    return is_float and not drawn and (is_pointwise(node) or name in ACTIVATIONS or name in CASTS)


def _result(node: Node, taken: dict[Node, Tensor], env: dict[Node, Any]) -> Tensor | None:
    """The operation on these values; None if it fails, or what it gives is not finite."""
    name, target = operation(node).removeprefix("aten."), node.target
    if name in CASTS and name != "nan_to_num":
        return taken[node.args[0]]  # type: ignore[index]
    if "out" in node.kwargs:
        return None
    args, kwargs = map_arg(
        (tuple(node.args), dict(node.kwargs)), lambda arg: taken[arg].clone() if arg in taken else env[arg]
    )
    try:
        with torch.no_grad():
            value = target(*args, **kwargs)  # type: ignore[operator]
    except _FAILURES:
        return None
    finite = isinstance(value, Tensor) and value.is_floating_point() and bool(torch.isfinite(value).all())
    return squash(value) if finite else None


def _joined(kinds: list[Tensor]) -> Tensor:
    """Of several tensors: a unit where one has any, nothing where none has, not known where one is not."""
    found = kinds[0]
    for other in kinds[1:]:
        known = (found != _UNKNOWN) & (other != _UNKNOWN)
        found = torch.where(known, torch.minimum(found, other), _UNKNOWN).to(torch.int8)
    return found


def _without_marks(ids: Tensor, at_zero: AtZero) -> Tensor:
    """Ids of which nothing stands beside units whose function is 0 at 0."""
    if bool(at_zero.value != 0):
        return ids
    assert at_zero.kinds is not None
    small, kinds = compact(*torch.broadcast_tensors(ids, at_zero.kinds))
    found = torch.where((kinds == _UNIT) & (small >= 0), bare(small), small)
    found = torch.where((kinds == _NOTHING) & (small < 0), NOTHING, found).to(torch.int32)
    return ids if torch.equal(found, small) else found.expand(ids.shape)


def _zero_where(ids: Tensor, value: Tensor) -> Tensor:
    """Ids of entries of weights, of which nothing stands beside units where the value at zero is 0."""
    return torch.where((value == 0) & (ids >= 0), bare(ids), ids).to(torch.int32)
