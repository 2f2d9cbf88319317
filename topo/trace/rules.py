"""What each operation does to unit ids.

A rule is a function (units, inputs, shape) -> ids. `inputs` are the operation's arguments in the order of its schema,
defaults filled in, with an int32 id tensor (-1: zero, -2: a constant; see `topo.trace.units`) in place of every
activation, a `Weight` in place of every parameter; `shape` is the output's (a list of shapes where there are several
outputs). `units` (of `topo.trace.units`) makes units: `units.add(x, y)`, `units.gate(value, by)`,
`units.reduce(ids, dims)`. Layout operations need no rule: they run literally on the ids.

    @topo.rule("mylib.shift")
    def shift(units, inputs, shape):
        return inputs[0].roll(1, dims=1)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topo._support.doors import check_function
from topo.errors import TopoError, TraceError
from topo.trace.nodes import (
    ACTIVATIONS,
    CASTS,
    NORMS,
    SATURATING,
    activated,
    extent,
    feature_axis,
    leaves,
    operation,
    parameters_behind,
    root,
)
from topo.trace.units import (
    BESIDE,
    LEARNED,
    NoRule,
    Units,
    Weight,
    bare,
    carried,
    compact,
    filled,
    is_open,
    squash,
    tracked,
)
from topo.trace.weights import Chain, Later, Made, Sum, entries, mapped
from topo.wiring import CONSTANT, NOTHING, Layer

Rule = Callable[[Units, list[Any], Any], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule of an operation, by name without overload: "aten.foo", "aten::foo", "mylib.shift".

    A later rule for the same name takes the place of the earlier one. This module's docstring says what a rule gets and
    gives.
    Raises TopoError for names that are not of this form and for functions that cannot be called so.

    >>> @topo.rule("mylib.double")
    ... def units_of_double(units, inputs, shape):
    ...     return inputs[0]
    >>> RULES["mylib.double"] is units_of_double
    True
    """

    for name in names or (None,):
        if not isinstance(name, str) or not re.fullmatch(r"\w+(::|\.)\w+", name):
            raise TopoError(f"a rule of a trace is for {name!r}; it is for operations by name: 'mylib.shift'")

    def enter(function: Rule) -> Rule:
        check_function(f"the rule of {', '.join(names)}", function, "units, inputs, shape", documented=False)
        RULES.update((name.replace("::", "."), function) for name in names)
        return function

    return enter


def fault_of(function: Rule, made: Any, shape: Any, count: int) -> str | None:
    """What is wrong with the ids that a rule of one's own gave, beside their shape; `count` units were made so far."""
    if (getattr(function, "__module__", None) or "").startswith("topo."):
        return None
    parts = made if isinstance(shape, list) else [made]
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Tensor) for part in parts):
        expected = "a list of tensors" if parts is made else "a tensor"
        return f"its rule gives {type(made).__name__} where {expected} of ids goes"
    for ids in parts:
        if ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
            return f"its rule gives {str(ids.dtype).removeprefix('torch.')} where ids are whole numbers"
        if ids.numel() and not (LEARNED <= int(ids.min()) and int(bare(ids).max()) < count):
            return f"its rule gives ids from {int(ids.min())} to {int(bare(ids).max())}; there are {count} units so far"
    return None


def aten(*names: str) -> Callable[[Rule], Rule]:
    return rule(*(f"aten.{name}" for name in names))


def plain(value: Any, shape: Sequence[int] | None = None) -> Tensor:
    """Ids of any value: a parameter used as data, or a number, carries no unit. 0 and None are nothing."""
    if isinstance(value, Made):
        return filled(value.shape, LEARNED)
    if isinstance(value, Tensor):
        return value
    return filled(shape or (), NOTHING if value is None or value == 0 else CONSTANT)


def _positions(units: Units, shape: Sequence[int], features: int) -> int:
    if not features:
        raise TraceError("a layer has no units: a side of its weight is 0")
    return max(1, extent(shape) // (features * units.batch))


# -- what passes


@aten(*NORMS)
def norm(units: Units, inputs: list[Any], shape: Any) -> Any:
    """The units pass; with `biases="live"` beside the norm's bias."""
    names = [argument.name for argument in units.node.target._schema.arguments]
    bias = inputs[names.index("bias")] if "bias" in names else None
    x = plain(inputs[0])
    entries_each = _normed_together(operation(units.node).removeprefix("aten."), x.shape, inputs)
    if entries_each == 1:
        x = filled(x.shape, NOTHING)  # an entry less itself
    ids = biased(units, x, bias)
    if isinstance(shape, list):
        return [ids.expand(shape[0]), *(filled(other) for other in shape[1:])]
    return ids.expand(shape)


def _normed_together(name: str, shape: Sequence[int], inputs: list[Any]) -> int | None:
    """Of how many entries a norm takes off the mean, where that is settled by the shape."""
    if name in ("layer_norm", "native_layer_norm"):
        return extent(inputs[1])
    return extent(shape[1:]) // inputs[1] if name == "group_norm" else None


def biased(units: Units, ids: Tensor, bias: Any) -> Tensor:
    """The units of a layer or norm that adds a bias: beside it if biases are live, else as if there were none."""
    if bias is None or (units.biases != "live" and not tracked(bias)):
        return ids
    return units.add(ids, plain(bias) if tracked(bias) else filled((1,) * ids.dim()))


@aten(*CASTS, *ACTIVATIONS)
def first_input_passes(units: Units, inputs: list[Any], shape: Any) -> Any:
    ids = lifted(units, plain(inputs[0]))
    if isinstance(shape, list):
        return [ids.expand(shape[0]), *(filled(other) for other in shape[1:])]
    return ids.expand(shape)


def lifted(units: Units, ids: Tensor) -> Tensor:
    """The units of f(x): beside a constant where f(0) is none.

    Saturations (sigmoid, softplus, exp, cos, ...) pass their units alone if gates are hard.
    """
    if not units.not_zero_at_zero():
        return ids
    small = compact(ids)[0]
    saturating = operation(units.node).removeprefix("aten.") in SATURATING
    units.saturated |= saturating and tracked(ids)
    hard = units.gates == "hard" and saturating
    live = torch.where(small >= 0, small if hard else small | BESIDE, small)
    return torch.where(small == NOTHING, CONSTANT, live).to(torch.int32).expand(ids.shape)


@aten("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax")
def softmax(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Equal scores are spread evenly: no output is ever zero, and each depends on all that are compared."""
    ids = inputs[0]
    units.saturated = True
    if units.gates == "hard":
        return ids.expand(shape)
    dim = inputs[1] % ids.dim() if ids.dim() else 0
    if not ids.dim() or ids.shape[dim] == 1:  # of one score: 1, whatever it is
        return filled(shape, NOTHING if "log" in operation(units.node) else CONSTANT)
    live = units.add(ids, filled((1,) * ids.dim()))
    if carried(ids).shape[dim] > 1 and not leaves(units.node):
        live = units.gate(live, units.add(units.reduce(ids, [dim], keepdim=True), filled((1,) * ids.dim())))
    return live.expand(shape)


def pointwise(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Any element-wise operation: the units of all its tensors, added."""
    tensors = [value for value in inputs if isinstance(value, Tensor | Made)]
    if len(tensors) == 1:
        return lifted(units, plain(tensors[0])).expand(shape)
    name, closed = operation(units.node).removeprefix("aten."), units.closed_by()
    if any(closed) and len(closed) == len(tensors) == 2:
        sides = [plain(value).expand(shape) for value in tensors]
        first, by = sides if closed[0] else sides[::-1]
        return units.gate(first, by if all(closed) else units.add(by, filled(shape)))
    if sum(map(tracked, tensors)) > 1:
        units.note(f"'{name}' of two branches is taken for their sum")
    ids = filled(shape, CONSTANT if closed and units.not_zero_at_zero(several=True) else NOTHING)
    for value in tensors:
        ids = units.add(ids, plain(value).expand(shape))
    return ids


@aten("add", "sub", "subtract", "rsub")
def add(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Sums; of a constant only whether it is zero counts. A bias added by hand is a bias."""
    x, y = (
        filled(value.shape, NOTHING) if isinstance(value, Weight) and _is_bias(units, value) else plain(value)
        for value in inputs[:2]
    )
    x, y = _over_places(units, x, y, shape), _over_places(units, y, x, shape)
    return units.add(x.expand(shape), y.expand(shape))


def _is_bias(units: Units, value: Weight) -> bool:
    return units.biases != "live" and "bias" in value.name.rpartition(".")[2]


def _over_places(units: Units, fixed: Tensor, other: Tensor, shape: Sequence[int]) -> Tensor:
    """A table of constants (positions, sines) beside units that are the same at all places: zero where it always is."""
    if tracked(fixed) or not tracked(other) or not fixed.dim():
        return fixed
    small = carried(other.expand(shape))
    dims = [d for d in range(fixed.dim()) if small.shape[d - fixed.dim()] == 1 and fixed.shape[d] > 1]
    if small.numel() == 1 and dims:
        axis = -1 if len(shape) < 3 else feature_axis(units.node, units.roots)
        dims = [d for d in dims if d - fixed.dim() != axis]
    return units.reduce(fixed, dims, keepdim=True).expand(fixed.shape) if dims else fixed


@aten("where")
def where(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Literal where the condition is known while tracing; else either may be meant, so that they are added."""
    known = units.known.get(units.node.args[0])
    x, y = (plain(value) for value in inputs[1:])
    if known is None:
        if tracked(x) and tracked(y):
            units.note("'where' chooses by what the data hold: each output is taken to depend on both branches")
        return units.add(x.expand(shape), y.expand(shape))
    if tracked(x) != tracked(y) and _is_mask_value(
        units, inputs[2] if tracked(x) else inputs[1], 2 if tracked(x) else 1
    ):
        return (x if tracked(x) else y).expand(shape)  # -inf before a softmax
    return squash(torch.where(known, x, y).expand(shape))


def _is_mask_value(units: Units, value: Any, at: int) -> bool:
    """Whether this is a number so far below zero that a softmax makes it nothing."""
    given = units.known.get(units.node.args[at]) if isinstance(units.node.args[at], Node) else value
    return given is not None and not isinstance(given, Weight) and bool((torch.as_tensor(given) < -1e4).all())


@aten("masked_fill")
def masked_fill(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """As where: zeros or other numbers at places of a known mask; -inf, and unknown places, leave the units."""
    x, known = plain(inputs[0]).expand(shape), units.known.get(units.node.args[1])
    value = units.known.get(units.node.args[2]) if isinstance(units.node.args[2], Node) else inputs[2]
    if value is None or isinstance(value, Weight) or bool((torch.as_tensor(value) < -1e4).all()):
        return x
    fill = plain(inputs[2])
    if known is None:
        return units.add(x, fill.expand(shape))
    return squash(torch.where(known, fill, x))


# -- products


def _side(units: Units, x: Any, y: Any) -> int | None:
    """Which of two factors is the value branch, if the other is plainly the gate.

    The gate is the one that holds attention scores, or came last through an activation, if only one does.
    """

    def gates(value: Tensor, arg: Any) -> bool:
        small = bare(compact(value)[0])
        return units.scores.issuperset(small[small >= 0].tolist()) or activated(arg, units.roots)

    args = units.node.args[0] if isinstance(units.node.args[0], (list, tuple)) else units.node.args
    if operation(units.node) == "aten.einsum":
        args = units.node.args[1]
    marks = [gates(value, arg) for value, arg in zip((x, y), args)]
    return marks.index(False) if marks.count(True) == 1 else None


@aten("mul", "multiply")
def mul(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """A product of two branches is a gate.

    Its value branch is the factor that did not come last through an activation or saturation (sigmoid, silu, gelu,
    softmax, relu, ...) if only one did; else the one that may be zero, if the other never is (1 + scale); else the one
    that is not broadcast; else the first.
    """
    for value, weight in (inputs[:2], inputs[1::-1]):
        if isinstance(weight, Weight) and tracked(value) and is_matrix(weight) and not units.mapped:
            return _times(units, value, weight, shape)
    x, y = plain(inputs[0]), plain(inputs[1])
    if not (tracked(x) and tracked(y)):
        x, y = _of_table(units, x, y, 0, shape), _of_table(units, y, x, 1, shape)
        return units.gate(x.expand(shape), y.expand(shape))
    side = _side(units, x, y)
    if side is None and is_open(x) != is_open(y):
        side = 1 if is_open(x) else 0
    if side is None:
        side = 1 if y.numel() > x.numel() else 0
    value, by = (y, x) if side else (x, y)
    return units.gate(value.expand(shape), by.expand(shape))


def _times(units: Units, x: Tensor, weight: Weight, shape: Any) -> Tensor:
    """Each entry of a parameter times a unit of its own: a layer of one input for each output."""
    of_x, of_w = ([d for d in range(len(shape)) if has_axis(side.shape, d, shape)] for side in (x, weight))
    x = x.reshape([shape[d] for d in of_x]) if len(of_x) < x.dim() else x
    if len(of_w) < len(weight.shape):
        weight = mapped(weight, lambda c: c.reshape([shape[d] for d in of_w]))
    return contract(units, x, weight, (of_x, of_w, list(range(len(shape)))), tuple(shape))


def has_axis(shape: Sequence[int], d: int, whole: Sequence[int]) -> bool:
    """Whether a tensor of this shape, broadcast to `whole`, has the axis d itself."""
    at = d - (len(whole) - len(shape))
    return at >= 0 and (shape[at] > 1 or whole[d] == 1)


def _of_table(units: Units, fixed: Tensor, other: Tensor, at: int, shape: Sequence[int]) -> Tensor:
    """A factor that is a mask closes what it is zero for; one of many values (sines, decays) places where it always is.

    The sine of position 0 is zero, but no other.
    """
    arg = units.node.args[at]
    value = units.known.get(arg)
    if value is None and isinstance(arg, Node) and root(arg, units.roots) is None:  # of buffers without values
        return _over_places(units, fixed, other, shape)
    if tracked(fixed) or value is None or not bool((value == 0).any()):
        return fixed
    kept = value[value != 0]
    return fixed if not kept.numel() or bool((kept == kept[0]).all()) else _over_places(units, fixed, other, shape)


@aten("div", "divide", "true_divide")
def quotient(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """x / y: the numerator is the value, the other gates it."""
    x, y = plain(inputs[0]), plain(inputs[1])
    return units.gate(x.expand(shape), y.expand(shape))


@aten("pow", "float_power")
def power(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """x ** y: the base is the value, the other gates it; with a fixed base it is an exponential, never zero."""
    x, y = plain(inputs[0]), plain(inputs[1])
    if tracked(y) and not tracked(x):
        return lifted(units, y).expand(shape)
    return units.gate(x.expand(shape), y.expand(shape)) if tracked(y) else x.expand(shape)


@aten("addcmul", "addcdiv")
def addcmul(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, y, z = (plain(value).expand(shape) for value in inputs[:3])
    return units.add(x, units.gate(y, z))


@aten("lerp")
def lerp(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """x + w (y - x)."""
    x, y, w = (plain(value).expand(shape) for value in inputs[:3])
    return units.add(x, units.gate(units.add(x, y), w) if tracked(w) else y)


@aten("glu")
def glu(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """The second half, through a sigmoid, gates the first."""
    value, by = inputs[0].chunk(2, inputs[1])
    units.saturated = True
    return units.gate(value, by if units.gates == "hard" else units.add(by, filled((1,) * by.dim())))


def contract(
    units: Units, x: Any, y: Any, axes: tuple[Sequence[Any], Sequence[Any], Sequence[Any]], shape: Any
) -> Tensor:
    """The product of two tensors with axes named as in einsum: x, y and the result. A parameter makes it a layer."""
    of_x, of_y, of_out = axes
    if isinstance(x, Made) and isinstance(y, Made):
        raise NoRule("a product of two parameters")
    if isinstance(x, Made) or (tracked(y) and not tracked(x)):
        return contract(units, y, x, (of_y, of_x, of_out), shape)
    if isinstance(y, Later):
        return _pairwise(units, x, y.ids, axes, shape, 0)
    if isinstance(y, Sum):
        ids = filled(shape, NOTHING)
        for term in y.terms:
            if isinstance(term, Tensor):
                made = _by_constant(units, x, term, axes, shape, True) if tracked(x) else filled(shape, LEARNED)
            else:
                made = contract(units, x, term, axes, shape)
            ids = units.add(ids, made.expand(shape))
        return ids
    summed = any(a in of_x and a not in of_out for a in of_y)
    if isinstance(y, Chain) or (isinstance(y, Weight) and (is_matrix(y) or (summed and len(y.size) > 1))):
        try:
            return _by_chain(units, x, y, axes, shape) if isinstance(y, Chain) else _weigh(units, x, y, axes, shape)
        except NoRule:
            return _pairwise(units, x, entries(units, y), axes, shape, 0)
    y = plain(y)
    if not tracked(y):
        return _by_constant(units, x, y, axes, shape)
    return _pairwise(units, x, y, axes, shape, _side(units, x, y))


def is_matrix(weight: Weight) -> bool:
    """Whether this is of a parameter of two or more axes that are longer than 1; others are vectors, and no layers."""
    return len(weight.shape) > 0 and len([n for n in weight.size if n > 1]) > 1


def _pairwise(units: Units, x: Tensor, y: Tensor, axes: Any, shape: Any, value: int | None) -> Tensor:
    """The product of two tensors of ids: of all pairs of units that it multiplies."""
    of_x, of_y, of_out = axes
    (x, of_x), (y, of_y) = (
        _summed_alone(units, ids, own, {*of_out, *other}) for ids, own, other in ((x, of_x, of_y), (y, of_y, of_x))
    )
    summed = [a for a in of_x if a not in of_out]
    if set(summed) != {a for a in of_y if a not in of_out}:
        raise NoRule("a product that sums an axis of one factor only")
    wide = torch.broadcast_tensors(*(_aligned(v, own, [*of_out, *summed]) for v, own in ((x, of_x), (y, of_y))))
    left, right = (side.reshape(*side.shape[: len(of_out)], -1) for side in wide)
    return units.product(left, right, value).expand(shape)


def _summed_alone(units: Units, ids: Tensor, own: Sequence[Any], others: set[Any]) -> tuple[Tensor, list[Any]]:
    """ids without the axes that are summed over in this factor alone."""
    alone = [at for at, axis in enumerate(own) if axis not in others]
    return (units.reduce(ids, alone) if alone else ids), [axis for axis in own if axis in others]


def _by_chain(units: Units, x: Tensor, y: Chain, axes: Any, shape: Any) -> Tensor:
    """x times a product of matrices: first the factor that shares the summed axis, then the other."""
    of_x, (row, column), of_out = axes
    from_right = column in of_x  # told by axes, since both factors may be one weight
    first, second, into, out = (y.right, y.left, column, row) if from_right else (y.left, y.right, row, column)
    if into in of_out or out not in of_out or out in of_x:
        raise NoRule("a product with a product of parameters, of another form")
    middle = object()
    between = [middle if a == into else a for a in of_x]
    sides = [y.left.shape[1] if a is middle else n for a, n in zip(between, x.shape)]
    names = [
        (middle, into) if from_right else (into, middle),
        (out, middle) if from_right else (middle, out),
    ]
    inner = contract(units, x, first, (of_x, names[0], between), tuple(sides))
    return contract(units, inner, second, (between, names[1], of_out), shape)


def _aligned(ids: Tensor, own: Sequence[Any], axes: Sequence[Any]) -> Tensor:
    """ids with axes `own` as a tensor with `axes`, of length 1 where it has none."""
    ids = ids.permute([own.index(a) for a in axes if a in own])
    for at, axis in enumerate(axes):
        if axis not in own:
            ids = ids.unsqueeze(at)
    return ids


def _by_constant(units: Units, x: Tensor, y: Tensor, axes: Any, shape: Any, term: bool = False) -> Tensor:
    """A product with something that is neither an activation nor a parameter: every output adds what it sums over.

    What it is known to be zero for does not pass. term: it is one term of a weight, whose others are followed.
    """
    of_x, of_y, of_out = axes
    summed = [at for at, axis in enumerate(of_x) if axis not in of_out]
    small = carried(x)
    if bool((compact(y)[0] == NOTHING).any()):
        axes = [*of_out, *(of_x[at] for at in summed)]
        wide = torch.broadcast_tensors(*(_aligned(v, own, axes) for v, own in ((x, of_x), (y, of_y))))
        left, right = (side.reshape(*side.shape[: len(of_out)], -1) for side in wide)
        return units.product(left, right, 0).expand(shape)
    if any(small.shape[at] > 1 for at in summed):
        if not term and any(parameters_behind(arg) for arg in units.node.all_input_nodes if not _carries(units, arg)):
            raise NoRule("its weight is computed from parameters in a way that cannot be followed")
        x = units.reduce(x, summed, keepdim=True)
    x = x.permute([*(at for at in range(len(of_x)) if at not in summed), *summed])
    for _ in summed:
        x = x.select(-1, 0)
    return _aligned(x, [a for a in of_x if a in of_out], of_out).expand(shape)


def _carries(units: Units, arg: Any) -> bool:
    return arg in units.env and any(tracked(v) for v in (units.env[arg], *_listed(units.env[arg])))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _weigh(units: Units, x: Tensor, w: Weight, axes: Any, shape: Any) -> Tensor:
    of_x, of_w, of_out = axes
    both = [a for a in of_w if a in of_x]
    flat = [a for a in both if a in of_out and not any(w.over([of_w.index(a)], k) for k in range(len(w.size)))]
    if flat:
        for a in flat:
            w = Weight(w.name, w.size, tuple(c.select(of_w.index(a), 0) for c in w.coords))
            of_w = [b for b in of_w if b != a]
    shared = [a for a in of_w if a in of_x and a in of_out]
    into = [a for a in of_w if a in of_x and a not in of_out]
    out = [a for a in of_w if a not in of_x]
    if any(a not in of_out for a in out) or any(a not in of_out and a not in of_w for a in of_x):
        raise NoRule("a product that sums an axis of one factor only")
    length = {a: n for a, n in zip(of_w, w.shape)}
    x = x.expand([length.get(a, n) for a, n in zip(of_x, x.shape)])
    before = units.count
    reads = units.reduce(x, [of_x.index(a) for a in of_x if a not in shared and a not in into])
    if units.count > before:
        units.note(_sums(f"layer '{w.name}'"))
    kept = [a for a in of_x if a in shared or a in into]
    reads = reads.permute([kept.index(a) for a in (*shared, *into)]).reshape(-1)
    at_out, at_in, at_shared = ([of_w.index(a) for a in letters] for letters in (out, into, shared))
    positions = _positions(units, shape, extent(length[a] for a in (*out, *shared)))
    ids = units.layer(w, reads, out=at_out, into=at_in, shared=at_shared, positions=positions)
    ids = ids.permute([[*shared, *out].index(a) for a in of_out if a in shared or a in out])
    return _aligned(ids, [a for a in of_out if a in shared or a in out], of_out).expand(shape)


def _sums(layer: str) -> str:
    return f"{layer} reads sums of units: several stand at each of its inputs, as in token mixing"


@aten("linear")
def linear(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, weight = inputs[0], inputs[1]
    if len(weight.shape) == 1:
        return matmul(units, [x, weight], shape)
    lead = list(range(len(x.shape) - 1))
    made = contract(
        units, plain(x) if isinstance(weight, Made) else x, weight, ([*lead, "i"], ["o", "i"], [*lead, "o"]), shape
    )
    return biased(units, made, inputs[2]).expand(shape)


@aten("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner_product", "linalg_vecdot")
def matmul(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, y = inputs[:2]
    dims_x, dims_y = len(x.shape), len(y.shape)
    batch = list(range(max(dims_x, dims_y, 2) - 2))
    of_x = ["k"] if dims_x == 1 else [*batch[len(batch) - dims_x + 2 :], "i", "k"]
    of_y = ["k"] if dims_y == 1 else [*batch[len(batch) - dims_y + 2 :], "k", "j"]
    of_out = [*batch, *(["i"] if dims_x > 1 else []), *(["j"] if dims_y > 1 else [])]
    return contract(units, x, y, (of_x, of_y, of_out), shape)


@aten("addbmm")
def addbmm(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """x + the sum over a batch of products."""
    made = contract(units, inputs[1], inputs[2], ("bik", "bkj", "ij"), shape)
    return biased(units, made, plain(inputs[0]).expand(shape)).expand(shape)


@aten("cosine_similarity")
def cosine_similarity(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """A sum of products of pairs, over the lengths of both."""
    x, y = torch.broadcast_tensors(plain(inputs[0]), plain(inputs[1]))
    x, y = (side.movedim(inputs[2], -1) for side in (x, y))
    lengths = units.gate(units.reduce(x, [-1]), units.reduce(y, [-1]))
    return units.gate(units.product(x, y, None), lengths).expand(shape)


@aten("complex", "polar")
def complex_(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Both parts of a complex number are taken for one unit."""
    units.note("the real and the imaginary part of complex numbers are taken for one unit")
    return units.add(plain(inputs[0]), plain(inputs[1])).expand(shape)


@aten("addmm", "addmv", "baddbmm")
def addmm(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x = inputs[1] if tracked(inputs[1]) or isinstance(inputs[1], Made) else plain(inputs[1])
    made = matmul(units, [x, inputs[2]], shape)
    return biased(units, made, plain(inputs[0]).expand(shape)).expand(shape)


@aten("einsum")
def einsum(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    equation, operands = inputs[0].replace(" ", ""), inputs[1]
    left, arrow, of_out = equation.partition("->")
    if not arrow:
        seen = left.replace(",", "").replace("...", "")
        of_out = "..." * ("..." in left) + "".join(sorted(a for a in set(seen) if seen.count(a) == 1))
    terms = [_letters(term, len(value.shape)) for term, value in zip(left.split(","), operands)]
    out = _letters(of_out, len(shape))
    pairs = [_without_repeats(value, term) for value, term in zip(operands, terms)]
    operands, terms = [value for value, _ in pairs], [term for _, term in pairs]
    if len(operands) == 1:
        return _by_constant(units, operands[0], filled(()), (terms[0], [], out), shape)
    length = {a: n for term, value in zip(terms, operands) for a, n in zip(term, value.shape)}
    x, of_x = operands[0], terms[0]
    for at in range(1, len(operands)):
        needed = {*out, *(a for term in terms[at + 1 :] for a in term)}
        here = [a for a in dict.fromkeys([*of_x, *terms[at]]) if a in needed] if at + 1 < len(operands) else out
        x = contract(units, x, operands[at], (of_x, terms[at], here), tuple(length[a] for a in here))
        of_x = here
    return x.expand(shape)


@aten("bilinear")
def bilinear(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """x W y: the layer of W reads the products of all pairs."""
    x, y = (plain(value) for value in inputs[:2])
    if not isinstance(inputs[2], Made):
        raise NoRule("its weight is not a parameter")
    pairs = units.gate(x.unsqueeze(-1), y.unsqueeze(-2))
    lead = list(range(x.dim() - 1))
    made = contract(units, pairs, inputs[2], ([*lead, "i", "j"], ["o", "i", "j"], [*lead, "o"]), shape)
    return biased(units, made, inputs[3]).expand(shape)


@aten("_grouped_mm")
@rule("transformers.grouped_mm_fallback")
def experts(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Mixture of experts: rows (s, k) times one of matrices (e, k, n) each; which is unknown: all are added."""
    x, weight = inputs[:2]
    if not isinstance(weight, Weight) or len(weight.shape) != 3 or len(x.shape) != 2:
        raise NoRule("a grouped product of another form")
    each = (weight.shape[0], *shape)
    before = len(units.steps)
    made = contract(units, plain(x), weight, ("sk", "ekn", "esn"), each)
    units.share(before, weight.shape[0])
    return units.reduce(made, [0]).expand(shape)


def _diagonal(one: int, two: int) -> Callable[[Any], Any]:
    return lambda c: c.diagonal(dim1=one, dim2=two)


def _without_repeats(value: Any, term: list[str]) -> tuple[Any, list[str]]:
    """ "ii" is the diagonal: "i"."""
    while len(set(term)) < len(term):
        letter = next(a for a in term if term.count(a) > 1)
        one, two = [at for at, a in enumerate(term) if a == letter][:2]
        rest = [a for at, a in enumerate(term) if at not in (one, two)]
        if isinstance(value, Made) and not isinstance(value, Weight):
            raise NoRule("an einsum of a diagonal of such a weight")
        value = mapped(value, _diagonal(one, two))
        term = [*rest, letter]
    return value, term


def _letters(term: str, dims: int) -> list[str]:
    if "..." in term:
        before, after = term.split("...")
        hidden = dims - len(before) - len(after)
        return [*before, *(f"...{hidden - i}" for i in range(hidden)), *after]
    return list(term)


@aten("scaled_dot_product_attention")
def attention(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Per query head one score of its query and key units, which gates its value units; key heads may be fewer."""
    q, k, v, mask = (plain(value) for value in inputs[:4])
    if q.dim() == 4 and k.shape[1] != q.shape[1]:
        k, v = (side.repeat_interleave(q.shape[1] // side.shape[1], 1) for side in (k, v))
    scores = units.product(squash(q).unsqueeze(-2), squash(k).unsqueeze(-3), None)
    if tracked(mask):
        scores = units.add(scores, mask.expand(scores.shape))
    units.saturated = True
    if units.gates == "soft":
        one = k.shape[-2] == 1  # of one key: 1, whatever its score is
        scores = filled(scores.shape) if one else units.add(scores, filled((1,) * scores.dim()))
    return units.product(squash(v).transpose(-1, -2).unsqueeze(-3), scores.unsqueeze(-2), 0).expand(shape)


# -- layers


@aten("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    name = operation(units.node)
    if name == "aten.convolution":
        x, weight, _, stride, padding, dilation, transposed, _, groups = inputs[:9]
    elif "transpose" in name:
        x, weight, _, stride, padding, _, groups, dilation = inputs[:8]
        transposed = True
    else:
        x, weight, _, stride, padding, dilation, groups = inputs[:7]
        transposed = False
    x = plain(x)
    if isinstance(weight, Sum):
        ids = filled(shape, NOTHING)
        for term in weight.terms:
            ids = units.add(ids, convolution(units, [x, term, None, *inputs[3:]], shape))
        return biased(units, ids, inputs[2]).expand(shape)
    if isinstance(weight, Chain | Later):
        weight = entries(units, weight)
    axis, space = len(shape) - len(weight.shape) + 1, len(weight.shape) - 2
    before = units.count
    units_in = units.channels(x, axis)
    if units.count > before:
        units.note(_sums(f"layer '{weight.name}'" if isinstance(weight, Weight) else "a convolution"))
    if tracked(weight):
        made = _by_kernels(units, units_in, weight, groups, transposed)
    elif not isinstance(weight, Weight):
        made = _fixed_filter(units, units_in.view(groups, -1), shape[axis], weight, transposed)
    else:
        stride, dilation = (tuple(v) * (space if len(v) == 1 else 1) for v in (stride, dilation))
        if isinstance(padding, str):
            padding = [d * (n - 1) // 2 if padding == "same" else 0 for d, n in zip(dilation, weight.shape[2:])]
        made = _of_kernels(
            units,
            weight,
            units_in,
            out=[1] if transposed else [0],
            into=[0] if transposed else [1],
            kind="conv",
            groups=groups,
            stride=stride,
            padding=tuple(padding) * (space if len(padding) == 1 else 1),
            dilation=dilation,
            positions=max(1, extent((x.shape if transposed else shape)[axis + 1 :])),
        )
    return biased(units, made.view([-1, *[1] * space]), inputs[2]).expand(shape)


def _of_kernels(units: Units, weight: Weight, reads: Tensor, **how: Any) -> Tensor:
    """The layer of a parameter; of its entries, where the view of it is not such a layer."""
    try:
        return units.layer(weight, reads, **how)
    except NoRule:
        return _by_kernels(units, reads, units.entries(weight), how["groups"], how["out"] == [1])


def _by_kernels(units: Units, reads: Tensor, kernels: Tensor, groups: int, transposed: bool) -> Tensor:
    """reads (in,) -> (out,): a convolution by kernels that are activations or entries of weights."""
    kernels = kernels.flatten(2).unflatten(0, (groups, -1))  # (groups, out, in, places), or in before out
    kernels = kernels.transpose(1, 2) if transposed else kernels
    by = reads.view(groups, 1, -1, 1).expand(kernels.shape)
    return units.product(by.flatten(2), kernels.flatten(2), 0).reshape(-1)


def _fixed_filter(units: Units, reads: Tensor, outputs: int, kernels: Any, transposed: bool) -> Tensor:
    """reads (groups, in): the units of each output of a filter that is not a parameter; its zero kernels pass none."""
    groups, each = len(reads), outputs // len(reads)
    if not isinstance(kernels, Tensor) or not bool((compact(kernels)[0] == NOTHING).any()):
        return units.merge(reads).repeat_interleave(each)
    whole = units.reduce(kernels, range(2, kernels.dim()))
    if transposed:  # (in, out / groups) of each group
        whole = whole.reshape(groups, -1, each).transpose(1, 2)
    return units.merge(units.gate(reads[:, None], whole.reshape(groups, each, -1)).reshape(outputs, -1))


@aten("embedding")
def embedding(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    weight = inputs[0]
    if not isinstance(weight, Made):
        raise NoRule("its weight is not a parameter")
    return looked_up(units, weight, shape)


def looked_up(units: Units, weight: Any, shape: Any) -> Tensor:
    """A row of a table for each number of an input; the rows are new input units."""
    width = tuple(weight.shape[1:])
    positions = _positions(units, shape, extent(width))
    if isinstance(weight, Weight) and weight.shape == weight.size and len(weight.size) == 2 and weight.kept is None:
        return torch.from_numpy(units.embedding(weight, positions)).expand(shape)
    reads, before = torch.from_numpy(units.source(weight.shape[0])), len(units.steps)
    letters = list(range(len(width)))
    made = contract(units, reads, weight, (["row"], ["row", *letters], letters), width)
    for at, step in enumerate(units.steps[before:], before):
        if isinstance(step, Layer) and len(step.reads) and step.reads.max() >= 0:
            units.steps[at] = replace(step, kind="embedding", positions=positions)
    return made.expand(shape)


@aten("embedding_bag", "_embedding_bag")
def embedding_bag(units: Units, inputs: list[Any], shape: Any) -> list[Tensor]:
    return [embedding(units, inputs, shape[0]), *(filled(other) for other in shape[1:])]
