"""The walk of a trace: a captured graph is run on unit ids, node by node.

Layout operations run literally, the others by their rules (`rules`); what has none, by the operations that it is made
of, or conservatively and with a warning. What is made of parameters and constants alone becomes weights or known
tensors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from topo.errors import TopoError, TraceError
from topo.trace.at_zero import Chains
from topo.trace.known import OF_SHAPES, Known, ids_of
from topo.trace.maps import MapUnits, map_rule
from topo.trace.memory import Memory
from topo.trace.nodes import (
    STOPS,
    is_layout,
    is_pointwise,
    line,
    operation,
    outcome,
    parameters_behind,
    passes,
    root,
    sizes,
    written,
)
from topo.trace.parts import parts_of
from topo.trace.places import pool  # noqa: F401 (its rules)
from topo.trace.recurrent import recurrent  # noqa: F401 (its rules)
from topo.trace.rules import RULES, fault_of, plain, pointwise
from topo.trace.units import LEARNED, NoRule, Units, Weight, bare, compact, filled, squash, tracked
from topo.trace.weights import Later, Made, entries, made_from, vector_as_constant
from topo.wiring import CONSTANT, NOTHING

# These read a constant as data (learned queries, time steps); other products of constants prepare weights.
_READS_CONSTANTS = frozenset(
    """linear addmm embedding conv1d conv2d conv3d conv_transpose1d conv_transpose2d lstm gru rnn_tanh rnn_relu
    embedding_bag _embedding_bag lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell""".split()
)
# Rules that hold for constants as well: they carry zeros.
_OF_CONSTANTS = frozenset(
    f"aten.{name}" for name in "mul add sub rsub cat stack where pad constant_pad_nd copy zeros_like new_zeros".split()
)
_PRODUCTS = frozenset(f"aten.{name}" for name in "matmul mm bmm mv dot einsum linear".split())
# These tell themselves what they make of a choice.
_CHOOSE = ("where", "masked_fill", "masked_scatter", "index", "gather", "scatter", "take", "embedding")
# What the code of a rule, or of torch on ids of odd shapes, may raise.
_FAILURES = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
_MOST_NESTED = 4
# Operations that carry graphs, which are run inline.
_CARRIERS = frozenset(
    "wrap_with_set_grad_enabled wrap_with_autocast cond tag_activation_checkpoint invoke_subgraph".split()
)


class Tracer:
    """Runs a graph on unit ids, node by node."""

    def __init__(self, units: Units, strict: bool, first_names: Mapping[str, str]) -> None:
        self.units, self.strict, self.first_names = units, strict, first_names
        self.warned: dict[str, None] = {}
        self.nested = 0
        self.memory = Memory()
        self.left: list[Any] = []  # what the placeholders of the graph that was run last hold at its end
        units.known = Known()
        self.chains = Chains(units)

    def run(self, graph: GraphModule, values: Sequence[Any]) -> Any:
        """values: what each placeholder holds; None for those that their own meta describes. Gives the outputs."""
        env: dict[Node, Any] = {}
        given, outer = iter(values), self.memory
        memory = self.memory = Memory()
        for node in graph.graph.nodes:
            self.units.node, self.units.env = node, env
            if node.op == "placeholder":
                value = next(given)
                env[node] = self._entry(node) if value is None else value
                node.meta.setdefault("input", value is not None and not isinstance(value, Made))
            elif node.op == "get_attr":
                value = operator.attrgetter(node.target)(graph)
                env[node] = self._entry(node) if isinstance(value, Tensor) else value
            elif node.op == "call_function":
                self.units.known.run(node, env)
                env[node] = self.chains.settled(node, self._call(node, env), env)
                for target in written(node):
                    memory.write(self.units, node, target, env[node], env)
            elif node.op == "output":
                self.memory = outer
                self.left = [env[node] for node in graph.graph.nodes if node.op == "placeholder"]
                return map_arg(node.args[0], lambda arg: env[arg])
            memory.enter(node)
        raise TraceError("the captured graph has no output")

    def _entry(self, node: Node) -> Any:
        value = outcome(node)
        if not isinstance(value, Tensor):
            return value
        shape = sizes(value.shape)
        if "parameter" in node.meta:
            name = node.meta["parameter"]
            name = self.first_names.get(name, name)
            return Weight.whole(name, shape)
        if not node.meta.get("input"):
            self.units.known.lend(node, node.meta.get("constant"))
            known = self.units.known.get(node)
            return filled(shape) if known is None else ids_of(known)
        if not value.is_floating_point() or not shape:
            return filled(shape)
        if self.units.mapped:
            return torch.from_numpy(self.units.source(math.prod(shape[1:]))).view(1, *shape[1:]).expand(shape)
        axis = self._input_axis(node, shape)
        made = torch.from_numpy(self.units.source(shape[axis]))
        return made.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(shape)

    def _input_axis(self, node: Node, shape: tuple[int, ...]) -> int:
        """Axis 1 if the first layer finds one unit per feature that way, and all of them, else the last.

        A layer of the first token alone finds one of axis 1 at all its features.
        """
        path, found = _way_to_layer(node), dict[int, int]()
        for axis in dict.fromkeys((1 % len(shape), len(shape) - 1)) if path else ():
            ids = torch.arange(shape[axis], dtype=torch.int32).view([-1 if d == axis else 1 for d in range(len(shape))])
            ids = self._along(node, path[:-1], ids.expand(shape))
            weight: Any = path[-1].args[1]
            features = ids.dim() - outcome(weight).dim() + 1 if "conv" in operation(path[-1]) else -1
            rows = ids.movedim(features, 0).reshape(ids.shape[features], -1)
            if bool(((rows == rows.amax(1, keepdim=True)) | (rows < 0)).all()):
                found[axis] = len({unit for unit in rows.amax(1).tolist() if unit >= 0})
                if found[axis] == shape[axis]:
                    return axis
        return max(found, key=lambda axis: found[axis], default=1 if len(shape) >= 4 else len(shape) - 1)

    def _along(self, node: Node, path: list[Node], ids: Tensor) -> Tensor:
        """ids of `node`, run through the operations of `path`; no step is written."""
        trial = Tracer(Units(), False, self.first_names)
        for step in path:
            values = {arg: outcome(arg) for arg in step.all_input_nodes}
            env = {arg: filled(sizes(v.shape)) if isinstance(v, Tensor) else v for arg, v in values.items()}
            env[node] = ids
            trial.units.node, trial.units.env = step, env
            node, ids = step, trial._call(step, env)
        return ids

    def _call(self, node: Node, env: dict[Node, Any]) -> Any:
        args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), lambda arg: env[arg])
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._subgraphs(node, args)
        if not isinstance(target, torch._ops.OpOverload):
            return self._python(node, target, args, kwargs)
        value = outcome(node)
        if not any(isinstance(v, Tensor) for v in pytree.tree_leaves(value)):
            return self._scalar(node, args, kwargs)
        several = isinstance(value, (list, tuple))
        shape: Any = [sizes(v.shape) if isinstance(v, Tensor) else () for v in value] if several else sizes(value.shape)
        inputs = _in_schema_order(target, args, kwargs)
        leaves = _leaves(inputs)
        try:
            if operation(node) == "aten.as_strided":
                return self.memory.strided(self.units, node, env)
            return self._apply(node, inputs, leaves, shape, value)
        except NoRule as error:
            reason = str(error)
        except TopoError:
            raise
        except Exception as error:  # whatever a rule raises, one's own among them
            reason = f"its rule failed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        return self._unknown(node, leaves, shape, reason)

    def _apply(self, node: Node, inputs: list[Any], leaves: list[Any], shape: Any, value: Any) -> Any:
        name, several = operation(node), isinstance(shape, list)
        self._tell_choices(node, name, leaves)
        if not any(tracked(leaf) for leaf in leaves):
            weights = [leaf for leaf in leaves if isinstance(leaf, Made)]
            if not (weights and _is_float(value) and self._reads_constants(node, name)):
                return self._of_constants(node, inputs, weights, shape)
        elif not several and not _is_float(value):
            node.meta["chosen"] = True
            return filled(shape)
        made = self._of_ids(node, inputs, shape)
        if name in RULES and (fault := fault_of(RULES[name], made, shape, self.units.count)):
            raise NoRule(fault)
        given = [tuple(part.shape) for part in made] if several else tuple(made.shape)
        if given != shape:
            raise NoRule(f"its rule gives ids of shape {given} where the output has {shape}")
        return made

    def _tell_choices(self, node: Node, name: str, leaves: list[Any]) -> None:
        """A note where no gradient passes: by comparisons and steps, whose outcomes become factors."""
        short, is_float = name.removeprefix("aten."), _is_float(outcome(node))
        matrices = any(isinstance(vector_as_constant(leaf), Made) for leaf in leaves)
        if matrices and not is_float and short not in OF_SHAPES:
            names = sorted({name for arg in node.all_input_nodes for name in parameters_behind(arg)})
            self.units.note(
                f"'{short}' chooses by what {', '.join(map(repr, names))} hold, and no gradient passes by it: what it "
                "chooses is counted as if it were multiplied by them, or as never zero"
            )
        elif short in STOPS and (matrices or any(map(tracked, leaves))):
            self.units.note(f"'{short}' lets no gradient pass: paths through it are counted as if it did")
        if not any(arg.meta.get("chosen") for arg in node.all_input_nodes):
            return
        if not is_float:
            node.meta["chosen"] = True
        elif not short.startswith(_CHOOSE):
            self.units.note(f"'{short}' takes what the data choose for something that is never zero")

    def _of_ids(self, node: Node, inputs: list[Any], shape: Any) -> Any:
        """What an operation makes of ids: literally if it is layout, by its rule, or by those of what it is made of."""
        if operation(node) not in RULES and is_layout(node):
            return _literally(node, inputs)
        if self.units.mapped or operation(node) in RULES or is_pointwise(node):
            return self._by_rule(node, inputs, shape)
        return self._in_parts(node)

    def _reads_constants(self, node: Node, name: str) -> bool:
        """Whether an operation on constants and parameters is a layer: it reads data, if without a unit."""
        if name == "aten.addmm":
            added, left = node.all_input_nodes[:2]
            if outcome(added).dim() > 1 and root(left, self.units.roots) is None:
                return False  # a weight plus the product of two
        if name.removeprefix("aten.") in _READS_CONSTANTS:
            return True
        if name in ("aten.index", "aten.index_select"):
            return any(root(arg, self.units.roots) is not None for arg in node.all_input_nodes)
        return name in _PRODUCTS and any(root(arg, self.units.roots) is not None for arg in node.all_input_nodes)

    def _python(self, node: Node, target: Any, args: Any, kwargs: Any) -> Any:
        """Picking from a list, arithmetic on sizes; a number that depends on data is 2."""
        if target is operator.getitem or target.__module__ in ("_operator", "math"):
            return target(*args, **kwargs)
        return None if outcome(node) is None else 2

    def _scalar(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Sizes and assertions: taken from the ids, which have the true shapes; a number that depends on data is 2."""
        if operation(node).startswith("aten.sym_"):
            target: Any = node.target
            return target(*(arg.coords[0] if isinstance(arg, Weight) else arg for arg in args), **kwargs)
        return None if outcome(node) is None else 2

    def _of_constants(self, node: Node, inputs: list[Any], weights: list[Any], shape: Any) -> Any:
        """An operation on parameters and constants: weights made from parameters, or zeros and constants."""
        known = self.units.known.get(node)
        if known is not None:
            return [ids_of(part) for part in known] if isinstance(known, list) else ids_of(known)
        if weights:
            made = made_from(self.units, node, inputs, shape, _literally)
            if made is not None:
                return made
            if operation(node).removeprefix("aten.") in OF_SHAPES:
                return self._by_rule(node, inputs, shape)
            if self._makes_weights(node, inputs) and not self.units.mapped:
                return self._later(node, inputs, shape)
        if is_layout(node) and not weights:
            return _literally(node, inputs)
        name = operation(node)
        if name in _OF_CONSTANTS or (not weights and _is_float(outcome(node))):
            try:
                return self._by_rule(node, inputs, shape)
            except (NoRule, *_FAILURES):
                pass  # no more is known of it then
        if isinstance(shape, list):
            return [self._fixed(node, inputs, side) for side in shape]
        return _literally(node, inputs) if is_layout(node) else self._fixed(node, inputs, shape)

    @staticmethod
    def _makes_weights(node: Node, inputs: list[Any]) -> bool:
        matrices = [vector_as_constant(leaf) for leaf in _leaves(inputs)]
        return _is_float(outcome(node)) and any(isinstance(leaf, Made) for leaf in matrices)

    def _later(self, node: Node, inputs: list[Any], shape: Any) -> Any:
        """Weights that are not sums of views: if a product needs them, the operation runs on units of their entries."""
        env = self.units.env
        args = {arg: env[arg] for arg in node.all_input_nodes}  # as they are now: what writes in place changes them

        def run() -> Any:
            held = self.units.node, self.units.env
            given = {
                arg: entries(self.units, value) if isinstance(value, Made) else value for arg, value in args.items()
            }
            self.units.node, self.units.env = node, {**env, **given}
            ids = pytree.tree_map(lambda v: entries(self.units, v), inputs, is_leaf=lambda v: isinstance(v, Made))
            try:
                made = self._of_ids(node, ids, shape)
                sizes = [tuple(part.shape) for part in made] if isinstance(shape, list) else tuple(made.shape)
                if sizes != shape:
                    raise NoRule(f"its rule gives ids of shape {sizes} where the output has {shape}")
                return made
            except NoRule as error:
                reason = str(error)
            except TopoError:
                raise
            except Exception as error:
                reason = f"its rule failed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
            finally:
                self.units.node, self.units.env = held
            return self._unknown(node, _leaves(ids), shape, reason, open=True)

        if not isinstance(shape, list):
            return Later(shape, run)
        once = cache(run)
        return [Later(side, partial(lambda at: once()[at], at)) for at, side in enumerate(shape)]

    def _in_parts(self, node: Node) -> Any:
        """An operation without a rule, by the operations that it is made of."""
        if self.nested > _MOST_NESTED:
            raise NoRule("it has no rule")
        graph, operands = parts_of(node, self.units.env, self.units.known)
        env, at = self.units.env, self.units.node
        self.nested += 1
        try:
            return self.run(graph, operands)
        finally:
            self.nested -= 1
            self.units.node, self.units.env = at, env

    def _by_rule(self, node: Node, inputs: list[Any], shape: Any) -> Any:
        name = operation(node)
        if isinstance(self.units, MapUnits):
            return map_rule(self.units, inputs, shape)
        if name in RULES:
            return RULES[name](self.units, inputs, shape)
        if is_pointwise(node):
            return pointwise(self.units, inputs, shape)
        raise NoRule("it has no rule")

    def _fixed(self, node: Node, inputs: list[Any], shape: Any) -> Tensor:
        """A constant of which no more is known; a product with nothing is nothing."""
        leaves = _leaves(inputs)
        if operation(node) in _PRODUCTS and any(
            isinstance(leaf, Tensor) and bool((compact(leaf)[0] == NOTHING).all()) for leaf in leaves
        ):
            return filled(shape, NOTHING)
        learned = any(
            isinstance(leaf, Made) or (isinstance(leaf, Tensor) and bool((compact(leaf)[0] == LEARNED).any()))
            for leaf in leaves
        )
        return filled(shape, LEARNED if learned else CONSTANT)

    def _subgraphs(self, node: Node, args: Sequence[Any]) -> Any:
        """Operations that carry graphs (autocast, no_grad, checkpointing, cond): run inline; branches are added."""
        graphs = [arg for arg in args if isinstance(arg, GraphModule)]
        value = outcome(node)
        several = isinstance(value, (list, tuple))
        shape = [sizes(v.shape) for v in value] if several else sizes(value.shape) if isinstance(value, Tensor) else ()
        if operation(node) not in _CARRIERS or not graphs:
            return self._unknown(node, _leaves(args), shape, "it has no rule")
        env, last = self.units.env, max(at for at, arg in enumerate(args) if isinstance(arg, GraphModule))
        operands = list(args[last + 1 :])
        given: Any = node.args[last + 1 :]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands, given = list(operands[0]), given[0]
        results = []
        for graph in graphs:
            results.append(self.run(graph, operands))
            self.units.node, self.units.env = node, env
            for arg, before, after in zip(given, operands, self.left):
                if after is not before:
                    self.memory.write(self.units, node, arg, after, env)
        merged = results[0]
        for other in results[1:]:
            merged = [self.units.add(a, b) if isinstance(a, Tensor) else a for a, b in zip(merged, other)]
        return merged

    def _unknown(self, node: Node, leaves: Sequence[Any], shape: Any, reason: str, open: bool = False) -> Any:
        """The conservative rule: one unit that adds all units of all inputs, at every output.

        open: it makes weights, and is taken to be never zero.
        """
        name = operation(node)
        weights = [arg for arg in node.all_input_nodes if root(arg, self.units.roots) is None]
        lost = (
            []
            if open
            else sorted({self.first_names.get(key, key) for arg in weights for key in parameters_behind(arg)})
        )
        text = f"{name} at {line(node)}: {reason}; every output is taken to depend on every input"
        text += f", and {', '.join(lost)} are not layers of the wiring" if lost else ""
        text += f" (a rule for it: @topo.rule('{name}'))"
        if self.strict:
            raise TraceError(text)
        self.warned.setdefault(text)
        self.units.note(text)
        ids = [np.unique(bare(compact(leaf)[0]).reshape(-1).numpy()) for leaf in leaves if tracked(leaf)]
        row = np.unique(np.concatenate([np.full(1, NOTHING, np.int32), *ids]))
        unit = self.units.merge(torch.from_numpy(row)[None]) if (row >= 0).any() else filled((1,))
        unit = self.units.add(unit, filled((1,))) if open else unit
        values, sides = outcome(node), shape if isinstance(shape, list) else [shape]
        made = [
            unit.view([1] * len(side)).expand(side) if _is_float(value) else filled(side)
            for side, value in zip(sides, values if isinstance(shape, list) else [values])
        ]
        return made if isinstance(shape, list) else made[0]


def _way_to_layer(node: Node) -> list[Node]:
    """The operations from an input to the first layer, that layer last; none if they branch into something else."""
    path: list[Node] = []
    while True:
        users = [user for user in node.users if user.op == "call_function" and hasattr(user.target, "_schema")]
        users = [user for user in users if isinstance(outcome(user), Tensor)]
        for user in users:
            if any(word in operation(user) for word in ("linear", "conv", "addmm")):
                return [*path, user] if user.all_input_nodes[0] is node or "addmm" in operation(user) else []
        onward = [
            user for user in users if is_layout(user) or passes(user) or is_pointwise(user) or "pad" in operation(user)
        ]
        if not onward:
            return []
        path.append(onward[0])
        node = onward[0]


def _leaves(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_leaves(value) if isinstance(value, (list, tuple)) else [value])
    return found


def _is_float(value: Any) -> bool:
    return any(isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex()) for v in pytree.tree_leaves(value))


def _in_schema_order(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    inputs = list(args)
    for argument in target._schema.arguments[len(args) :]:
        given = kwargs.get(argument.name, argument.default_value if argument.has_default_value() else None)
        inputs.append(None if argument.is_out else given)
    return inputs


def _literally(node: Node, inputs: list[Any], keep: bool = False) -> Any:
    """Run a layout operation on ids. keep: give a view of the same memory, to write into."""
    target: Any = node.target
    first = torch.ops.aten.alias(inputs[0]) if isinstance(inputs[0], Tensor) else inputs[0]
    if target.overloadpacket in (torch.ops.aten.view, torch.ops.aten._unsafe_view, torch.ops.aten.reshape):
        if not isinstance(inputs[1], torch.dtype):
            return first.view(inputs[1]) if keep else squash(first.reshape(inputs[1]))
    given = zip(target._schema.arguments, [first, *inputs[1:]])
    made = target(*(plain(v) if isinstance(v, Made) else v for argument, v in given if not argument.kwarg_only))
    if keep:
        return made
    return squash(made) if isinstance(made, Tensor) else [squash(part) for part in made]
