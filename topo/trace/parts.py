"""What an operation without a rule is made of: its own decomposition into operations that have rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from topo.trace.nodes import is_layout, is_pointwise, operation, outcome, passes, sizes
from topo.trace.rules import RULES
from topo.trace.units import NoRule


def parts_of(node: Node, env: Mapping[Node, Any], known: Any) -> tuple[GraphModule, list[Any]]:
    """The graph of the operations that `node` is made of, and what its placeholders hold; NoRule if it is but one."""
    from torch._decomp import decomposition_table
    from torch.fx.experimental.proxy_tensor import make_fx

    target: Any = node.target
    arguments = [arg for arg in node.all_input_nodes if isinstance(outcome(arg), Tensor)]
    examples = [torch.empty(sizes(outcome(arg).shape), dtype=outcome(arg).dtype) for arg in arguments]

    def call(*tensors: Tensor) -> Any:
        held = dict(zip(arguments, tensors))
        args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), lambda arg: held.get(arg, env.get(arg)))
        return target(*args, **kwargs)

    tables: list[dict[Any, Any]] = [{}, {target: decomposition_table[target]} if target in decomposition_table else {}]
    for table in tables:
        try:
            graph = make_fx(call, decomposition_table=table, tracing_mode="fake")(*examples)
        except Exception:  # whatever a decomposition raises on shapes that it does not know
            continue
        made = [part for part in graph.graph.nodes if part.op == "call_function"]
        if any(part.target is target for part in made) or not made:
            continue
        if other := _another_name(made):
            if other in decomposition_table and other not in table:
                tables.append({other: decomposition_table[other]})
            continue
        for part in graph.graph.nodes:
            for key in ("stack_trace", "nn_module_stack"):
                if key in node.meta:
                    part.meta[key] = node.meta[key]
        inner = [part for part in graph.graph.nodes if part.op == "placeholder"]
        for part, arg in zip(inner, arguments):
            value = known.get(arg)
            if value is not None:
                known[part] = value
        return graph, [env[arg] for arg in arguments]
    raise NoRule("it has no rule")


def _another_name(made: list[Node]) -> Any:
    """The one operation that there is but for layout and casts, if that has no rule either."""
    (first, *rest) = [part for part in made if not is_layout(part) and not passes(part)] or made
    known = rest or operation(first) in RULES or is_pointwise(first) or is_layout(first)
    return None if known else first.target
