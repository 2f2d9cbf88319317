"""Running a captured model on what is known of its tensors: every operation ties slots and says what still varies.

Layout operations run literally on the slots, on the flags and on the values; element-wise ones tie what they pair and
run literally on the values; weighted ones have rules. An operation without a rule pins all that it reads.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.nn.modules.conv import _ConvNd

from topo.shrinking.seen import Seen, of, small, varying
from topo.shrinking.slots import PINNED, Axis, Slots
from topo.trace.nodes import CASTS, REDUCTIONS, in_place, is_layout, is_pointwise, operation, outcome, sizes

# Layout operations that shift or repeat by numbers: what they touch stays.
_BY_NUMBERS = frozenset("roll repeat tile unfold rot90 diagonal meshgrid flip fliplr flipud".split())
# Layout operations that take some units along the dimension that stands at this place of their arguments.
_TAKING = {"slice": 1, "narrow": 1, "select": 1, "unbind": 1, "tensor_split": 2}
_VIEWS = frozenset(f"aten.{name}" for name in ("view", "_unsafe_view", "reshape", "unflatten"))
_CARRIERS = frozenset("wrap_with_set_grad_enabled wrap_with_autocast tag_activation_checkpoint invoke_subgraph".split())


class NotFollowed(Exception):
    """A rule cannot follow an operation as it is called here."""


Joined = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Use:
    """A weight that joins what it reads to what it makes.

    inputs, outputs: slots (in,), (out,), 0 where nothing can go. joined: of some outputs, bool (out,), the inputs
    that a kept weight joins to one of them, bool (in,).
    weight: gives (out, in, ...) of the parameter. foldable: bool (in,), the input is a constant that a bias can take
    over; constants: its value. why: what prevents that where the input is constant and `foldable` is not set.
    bias: the name of the bias parameter; None where the layer has none, or it is not a plain parameter.
    """

    name: str | None
    inputs: np.ndarray
    outputs: np.ndarray
    joined: Joined
    weight: Callable[[], Tensor]
    foldable: np.ndarray
    constants: np.ndarray
    constant: np.ndarray
    why: str
    bias: str | None = None
    path: str = ""


@dataclass(frozen=True, eq=False)
class Written:
    """A size that an operation takes as a number: `axis` of `slots` has it. path: the module whose code says it.

    place: the module's class and the line of its code, which all modules of that class share.
    """

    path: str
    place: str
    slots: np.ndarray
    size: int


@dataclass
class Found:
    """All that a run finds."""

    slots: Slots = field(default_factory=Slots)
    uses: list[Use] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    dead: bool = False


Rule = Callable[["Flow", Node, list[Any], Any], Any]
RULES: dict[str, Rule] = {}


def rule_for(names: str) -> Callable[[Rule], Rule]:
    """The rule of these operations of torch.ops.aten."""

    def enter(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), made))
        return made

    return enter


class Flow:
    """One run. tensors: name -> what is known of each parameter and buffer."""

    def __init__(self, model: nn.Module, tensors: Mapping[str, Seen], found: Found) -> None:
        self.model, self.tensors, self.found, self.slots = model, tensors, found, found.slots
        self.read: set[int] = set()

    # -- the graph

    def run(self, graph: GraphModule, given: Sequence[Any] | None = None) -> Any:
        """given: what the placeholders hold, where the graph is a part of another."""
        env: dict[Node, Any] = {}
        queue = iter(given or ())
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                env[node] = self._entry(node) if given is None else next(queue)
            elif node.op == "get_attr":
                value = operator.attrgetter(node.target)(graph)
                env[node] = self._constant(node, value) if isinstance(value, Tensor) else value
            elif node.op == "call_function":
                env[node] = self._call(node, env)
                if in_place(node):
                    self._write_back(node, env)
            elif node.op == "output":
                return map_arg(node.args[0], lambda arg: env[arg])
        raise NotFollowed("the graph has no output")

    def _entry(self, node: Node) -> Any:
        value = outcome(node)
        if not isinstance(value, Tensor):
            return value
        name = node.meta.get("parameter") or node.meta.get("buffer") or ""
        if name in self.tensors:
            return self._named(name)
        if node.meta.get("input") or not isinstance(node.meta.get("constant"), Tensor):
            return varying(sizes(value.shape))
        return self._constant(node, node.meta["constant"])

    def _named(self, name: str) -> Seen:
        self.read.add(id(self.tensors[name]))
        return self.tensors[name]

    def pin_unread(self) -> None:
        """Parameters and buffers that the model never reads stay as they are."""
        for seen in self.tensors.values():
            for axis in seen.axes if id(seen) not in self.read else ():
                self.slots.pin(axis)

    def _constant(self, node: Node, value: Tensor) -> Seen:
        name = node.meta.get("parameter") or ""
        if name in self.tensors:
            return self._named(name)
        held = value.detach().to(torch.float64) if value.numel() < 1 << 22 and not value.is_complex() else None
        shape = tuple(value.shape)
        if held is None or held.is_meta:
            return varying(shape)
        flags = torch.zeros((1,) * len(shape), dtype=torch.bool)
        return of(shape, (None,) * len(shape), flags, held, fixed=True)

    def _write_back(self, node: Node, env: dict[Node, Any]) -> None:
        """An in-place operation changes its first operand; of a view it changes more than can be followed."""
        target = node.args[0]
        if not isinstance(target, Node):
            return
        base = target
        while base.op == "call_function" and is_layout(base) and base.all_input_nodes:
            base = base.all_input_nodes[0]
        if base is not target and isinstance(env.get(base), Seen):
            for axis in env[base].axes:
                self.slots.pin(axis, "a part of a tensor is written in place")
            env[base] = varying(env[base].shape, env[base].axes)
        env[target] = env[node]

    # -- one operation

    def _call(self, node: Node, env: dict[Node, Any]) -> Any:
        given: Any = map_arg((tuple(node.args), dict(node.kwargs)), lambda arg: env[arg])
        args, kwargs = given
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            graphs = [arg for arg in args if isinstance(arg, GraphModule)]
            if operation(node) in _CARRIERS and len(graphs) == 1:
                at = max(i for i, arg in enumerate(args) if isinstance(arg, GraphModule))
                return self.run(graphs[0], list(args[at + 1 :]))
            return self.unknown(node, _tensors(args))
        if not isinstance(target, torch._ops.OpOverload):
            if target is operator.getitem or getattr(target, "__module__", "") in ("_operator", "math"):
                return target(*args, **kwargs)
            return None if outcome(node) is None else 2
        value = outcome(node)
        if operation(node).startswith("aten.sym_"):
            seen, dim = args[0], args[1] if len(args) > 1 else None
            return seen.shape[dim] if isinstance(dim, int) else int(np.prod(seen.shape))
        if not any(isinstance(v, Tensor) for v in (value if isinstance(value, (list, tuple)) else (value,))):
            return value if isinstance(value, int | float | bool) else None if value is None else 2
        inputs = _in_order(target, args, kwargs)
        name = operation(node).removeprefix("aten.")
        try:
            if not _tensors(inputs):
                return self._made(node, inputs, value)
            if name in RULES:
                return RULES[name](self, node, inputs, value)
            if name in _BY_NUMBERS:
                for seen in _tensors(inputs):
                    for axis in seen.axes:
                        self.slots.pin(axis, f"{name} moves units by numbers that are written in the code")
                return self.literal(node, inputs)
            if is_layout(node):
                return self.literal(node, inputs)
            if name in CASTS:
                return replace(_tensors(inputs)[0], name=None)
            if name in REDUCTIONS:
                return self.reduced(node, inputs, value)
            if is_pointwise(node):
                return self.pointwise(node, inputs, value)
        except (NotFollowed, IndexError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            self.found.notes.setdefault(f"{operation(node)} is not followed ({str(error).splitlines()[0][:120]})")
        return self.unknown(node, _tensors(inputs))

    def _made(self, node: Node, inputs: list[Any], value: Any) -> Any:
        """A constant that the code makes of numbers."""
        if not isinstance(value, Tensor):
            return self.unknown(node, [])
        kwargs = {k: v for k, v in node.kwargs.items() if k in ("dtype",)}
        target: Any = node.target
        made = target(*node.args, **kwargs)
        return self._constant(node, made)

    def unknown(self, node: Node, leaves: Sequence[Seen]) -> Any:
        """All that comes in stays, and all that comes out varies."""
        for seen in leaves:
            for axis in seen.axes:
                self.slots.pin(axis, f"{operation(node)} cannot be followed")
        value = outcome(node)
        if isinstance(value, (list, tuple)):
            return [varying(sizes(v.shape)) if isinstance(v, Tensor) else v for v in value]
        return varying(sizes(value.shape)) if isinstance(value, Tensor) else value

    # -- layout

    def literal(self, node: Node, inputs: list[Any]) -> Any:
        """A layout operation, run on slots, flags and values."""
        target: Any = node.target
        if operation(node) in ("aten.view", "aten._unsafe_view") and not isinstance(inputs[1], torch.dtype):
            target = torch.ops.aten.reshape.default  # expanded tensors have no views of other shapes

        def run(of_each: Callable[[Seen], Tensor]) -> list[Tensor]:
            made = target(*_replaced(inputs, of_each, target))
            return list(made) if isinstance(made, (list, tuple)) else [made]

        sources = _tensors(inputs)
        flags, values = run(lambda s: s.whole("varies")), run(lambda s: s.whole())
        dims = max(s.dim for s in sources)
        axes: list[list[Axis]] = [[None] * part.dim() for part in flags]
        for axis in range(dims):
            if all(s.dim <= axis or s.axes[axis] is None for s in sources):
                continue
            for part, laid in enumerate(run(lambda s: _along(s, axis))):  # noqa: B023 (used at once)
                self._lay(laid, axes[part], operation(node))
        kept = run(lambda s: s.mask) if all(s.kept is not None for s in sources) else None  # type: ignore[arg-type,return-value]
        made = []
        for i, (flag, value) in enumerate(zip(flags, values)):
            shape = tuple(flag.shape)
            if kept is not None:
                name = sources[0].name if len(sources) == 1 and shape == sources[0].shape else None
                made.append(Seen(shape, tuple(axes[i]), small(flag), value, kept[i], name, True))
            else:
                made.append(of(shape, axes[i], flag, value, all(s.fixed for s in sources)))
            self._sizes(node, inputs, made[-1])
        return made if isinstance(outcome(node), (list, tuple)) else made[0]

    def _lay(self, laid: Tensor, axes: list[Axis], name: str) -> None:
        """Slots as they lie after the operation, given to the axis along which they change; they are tied along others.

        Of a view as (3, heads, width) the heads carry them, not the 3.
        """
        laid = small(laid)
        changing = [d for d in range(laid.dim()) if laid.shape[d] > 1]
        if not changing:
            if laid.numel():
                self.slots.pin(laid.reshape(-1)[:1].numpy(), "one unit of a tensor is taken by its number")
            return
        carrier = changing[0]
        if len(changing) > 2 and laid.shape[carrier] <= 4 and name in _VIEWS:
            carrier = changing[1]
        rows = laid.movedim(carrier, 0).reshape(laid.shape[carrier], -1).numpy()
        self.slots.together(rows)
        if axes[carrier] is not None:
            self.slots.pin(axes[carrier], "two axes are laid into one")
            self.slots.pin(rows[:, 0], "two axes are laid into one")
            return
        axes[carrier] = rows[:, 0].copy()

    def _sizes(self, node: Node, inputs: list[Any], made: Seen) -> None:
        """Note the sizes that the operation may have been given as numbers."""
        name, seen = operation(node).removeprefix("aten."), inputs[0]
        if name in _TAKING and isinstance(seen, Seen):
            dim = int(inputs[_TAKING[name]]) % seen.dim
            slots, size = seen.axes[dim], seen.shape[dim]
            if slots is None or made.shape == seen.shape:
                return
            if name != "slice" or inputs[4] != 1 or seen.fixed:
                self.slots.pin(slots, "units are taken by their numbers")
                return
            for end in (inputs[2] or 0, size if inputs[3] is None else inputs[3]):
                end = max(end + size, 0) if end < 0 else min(end, size)
                self.note_size(node, slots[:end], end)
            self.note_size(node, slots, size)
            return
        numbers = {arg for arg in _flat(node.args[1:]) if isinstance(arg, int)}
        for slots, size in zip(made.axes, made.shape):
            if size in numbers and size > 1:
                self.note_size(node, slots, size)

    def note_size(self, node: Node, slots: Axis, size: int) -> None:
        """A size that the operation takes as a number follows from these slots."""
        if slots is not None and size:
            self.found.written.append(Written(*where(node), slots, size))

    # -- element by element

    def pointwise(self, node: Node, inputs: list[Any], value: Any) -> Any:
        """Each entry of what comes out depends on the entries at its own place."""
        sources = _tensors(inputs)
        if not isinstance(value, Tensor) or not sources:
            return self.unknown(node, sources)
        shape = sizes(value.shape)
        dims = len(shape)
        wide = [s if s.dim == dims else _padded(s, dims) for s in sources]
        axes = [
            self.slots.tie_axes([(s.axes[d], s.shape[d]) for s in wide], "it meets a tensor of a size that is written")
            if shape[d] > 1
            else None
            for d in range(dims)
        ]
        flags = wide[0].varies
        for other in wide[1:]:
            flags = flags | other.varies
        if operation(node) in ("aten.mul", "aten.multiply") and len(wide) == 2:
            for seen in wide:
                if not seen.fixed:
                    flags = flags & ~(~seen.varies & (seen.value == 0))
        fixed = all(s.fixed for s in sources)
        by = dict(zip(map(id, sources), wide))
        values = self._values(node, inputs, lambda s: by[id(s)].value.to(torch.float64))
        if values is None or values.dim() != dims:
            return varying(shape, axes)
        return of(shape, axes, flags, values, fixed)

    def _values(self, node: Node, inputs: list[Any], of_each: Callable[[Seen], Tensor]) -> Tensor | None:
        """The operation on numbers; None where it does not take them."""
        target: Any = _out_of_place(node)
        if target is None:
            return None
        try:
            made = target(*_replaced(inputs[: len(target._schema.arguments)], of_each, target))
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
        return made if isinstance(made, Tensor) and not made.is_complex() else None

    # -- reductions

    def reduced(self, node: Node, inputs: list[Any], value: Any) -> Any:
        """Sums, means, largest: what is reduced over stays."""
        seen, name = inputs[0], operation(node).removeprefix("aten.")
        if not isinstance(value, Tensor) or not isinstance(seen, Seen) or len(_tensors(inputs)) != 1:
            return self.unknown(node, _tensors(inputs))
        at = 2 if name in ("norm", "linalg_vector_norm") else 1
        dims = inputs[at] if len(inputs) > at else None
        dims = [dims] if isinstance(dims, int) else dims
        over = sorted({d % seen.dim for d in dims}) if isinstance(dims, (list, tuple)) and dims else range(seen.dim)
        for d in over:
            self.slots.pin(seen.axes[d], f"{name} runs over all units")
        shape = sizes(value.shape)
        keep = len(shape) == seen.dim
        axes = [None if d in over else seen.axes[d] for d in range(seen.dim) if keep or d not in over]
        flags = seen.varies.amax(list(over), keepdim=keep) if seen.dim else seen.varies
        full = along_whole(seen, over)
        values = self._values(node, [full, *inputs[1:]], lambda s: s.value)
        if values is None or values.dim() != len(shape):
            return varying(shape, axes)
        return of(shape, axes, flags, values, seen.fixed)

    # -- for rules

    def use(
        self,
        node: Node,
        weight: Seen,
        joined: Joined,
        inputs: Axis,
        outputs: Axis,
        laid: Tensor,
        read: tuple[np.ndarray, np.ndarray, np.ndarray],
        only_zero: str | None,
        bias: Any,
        gives: Callable[[], Tensor] | None = None,
    ) -> None:
        """Enter a use of a weight. read: `Seen.only` of its inputs. only_zero: why no other constant folds.

        gives: makes `laid` anew, of a weight that is too large to be kept.
        """
        uniform, constants, constant = read
        foldable = uniform & (constants == 0) if only_zero else uniform
        named = isinstance(bias, Seen) and bias.name is not None
        path = where(node)[0]
        if not named and (bias is not None or not self._takes_bias(path, weight.name)):
            foldable = foldable & (constants == 0)
        none = np.zeros(laid.shape[1], np.int64), np.zeros(laid.shape[0], np.int64)
        self.found.uses.append(
            Use(
                name=weight.name,
                inputs=none[0] if inputs is None else inputs,
                outputs=none[1] if outputs is None else outputs,
                joined=joined,
                weight=gives or (lambda: laid),
                foldable=foldable,
                constants=constants,
                constant=constant,
                why=only_zero or "its constant value has no bias to go into",
                bias=bias.name if named else None,
                path=path,
            )
        )

    def _takes_bias(self, path: str, weight: str | None) -> bool:
        """Whether a layer without a bias can be given one."""
        if weight is None or weight.rpartition(".")[0] != path:
            return False
        return isinstance(self.model.get_submodule(path), nn.Linear | _ConvNd)

    def tie(self, left: Axis, right: Axis, what: str) -> None:
        """Two axes of one length that an operation pairs; one that is not known pins the other."""
        if left is not None and right is not None:
            self.slots.tie(left, right)
        else:
            for known in (left, right):
                self.slots.pin(known, what or None)


def where(node: Node) -> tuple[str, str]:
    """The module whose code calls the operation, and its class with the line, which modules of one class share."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = (str(stack[-1][0]), str(stack[-1][1])) if stack else ("", "")
    text = node.meta.get("stack_trace") or ""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("File")]
    return path.removeprefix("L['self'].").removeprefix("L['self']"), f"{kind} {lines[-1] if lines else node.name}"


def along_whole(seen: Seen, dims: Container[int]) -> Tensor:
    """Its value in double precision, with its full length along some axes."""
    return seen.value.to(torch.float64).expand(
        [seen.shape[d] if d in dims else n for d, n in enumerate(seen.value.shape)]
    )


def _padded(seen: Seen, dims: int) -> Seen:
    ahead = dims - seen.dim
    side = (1,) * ahead
    return replace(
        seen,
        shape=side + seen.shape,
        axes=(None,) * ahead + seen.axes,
        varies=seen.varies.reshape(side + tuple(seen.varies.shape)),
        value=seen.value.reshape(side + tuple(seen.value.shape)),
    )


def _along(seen: Seen, axis: int) -> Tensor:
    """The slots of one axis at every element, 0 where there are none."""
    slots = seen.axes[axis] if axis < seen.dim else None
    if slots is None:
        return torch.full((1,) * seen.dim, PINNED, dtype=torch.int64).expand(seen.shape)
    return torch.from_numpy(slots).view([-1 if d == axis else 1 for d in range(seen.dim)]).expand(seen.shape)


def _tensors(values: Any) -> list[Seen]:
    return [value for value in _flat(values) if isinstance(value, Seen)]


def _flat(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (list, tuple)) else [value])
    return found


def _replaced(values: Sequence[Any], of_each: Callable[[Seen], Tensor], target: Any = None) -> list[Any]:
    """The arguments with tensors in place of what is known of them; of a target, without keyword-only ones."""
    schema = target._schema.arguments if target is not None else ()
    made: list[Any] = []
    for at, value in enumerate(values):
        if schema and schema[at].kwarg_only:
            break
        if isinstance(value, Seen):
            made.append(of_each(value))
        else:
            made.append(_replaced(value, of_each) if isinstance(value, (list, tuple)) else value)
    return made


def _in_order(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    inputs = list(args)
    for argument in target._schema.arguments[len(args) :]:
        inputs.append(kwargs.get(argument.name, argument.default_value if argument.has_default_value() else None))
    return inputs


def _out_of_place(node: Node) -> Any:
    """The operation that gives a new tensor."""
    target: Any = node.target
    if not in_place(node):
        return target
    packet = getattr(torch.ops.aten, operation(node).removeprefix("aten."), None)
    return getattr(packet, target._overloadname, None)
