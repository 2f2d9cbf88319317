"""What a trace must not lose: checks of a wiring against the graph that it was made from.

* In the dense network every weight of every layer lies on a path: what does not, the trace or the network loses.
* Every parameter of two or more dimensions on which an output depends is in a layer.
* Every place of a kernel meets the map somewhere: one that meets padding alone never matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import GraphModule, Node

from topo.trace.nodes import in_place, is_layout, operation, outcome
from topo.wiring import Layer, Wiring


def lost(
    wiring: Wiring, graph: GraphModule, used: Iterable[int], kept: Iterable[int], name: Callable[[str], str]
) -> list[str]:
    """Warnings, a line each: layers that are dead in the dense network, and parameters in no layer.

    kept: which of the graph's flat outputs are the model's; used: which of them count. Layers of the others are not
    lost. name: parameter -> the first name of it.
    """
    found = []
    shapes, every = ({name(k): shape for k, shape in reaching(graph, ends).items()} for ends in (used, kept))
    dead = {key: count for key, count in dead_when_dense(wiring).items() if key in shapes or key not in every}
    if dead:
        listed = [f"{key} ({count:,} of {wiring.layer(key).size:,} weights)" for key, count in dead.items()]
        found.append(f"{', '.join(listed)} are dead in the dense network: the trace or the network loses them")
    # The g of weight norm scales the rows of its layer.
    held = {*wiring.shapes, *(f"{key}_g" for key in wiring.shapes)}
    missing = [f"{key} {shape}" for key, shape in shapes.items() if len(shape) > 1 and key not in held]
    if missing:
        found.append(
            f"parameters that reach an output and are in no layer, so that masks of them count for nothing: "
            f"{', '.join(missing)}"
        )
    return found


def unused(
    wiring: Wiring, parameters: Iterable[tuple[str, Tensor]], graph: GraphModule, kept: Iterable[int], name: Callable
) -> tuple[str, ...]:
    """Names of parameters of two or more dimensions on which no output of the captured graph depends."""
    reached = {name(key) for key in reaching(graph, kept)}
    found = dict.fromkeys(name(key) for key, p in parameters if p.dim() > 1)
    return tuple(key for key in found if key not in reached and key not in wiring.shapes)


# -- the dense network


def dead_when_dense(wiring: Wiring) -> dict[str, int]:
    """Layer -> how many of its weights are on no path of the dense network; layers with none are left out.

    Weights outside the part of a parameter that is used (`Layer.rows`, `Layer.columns`) do not count.
    """
    live = np.zeros(wiring.n_units + 2, np.bool_)  # the last entry, -1, is nothing; -2 is a constant that is not zero
    live[wiring.inputs] = live[-2] = True
    for step in wiring.steps:
        made = slice(step.start, step.stop)
        if isinstance(step, Layer):
            live[made] = step.fed(live[step.reads])
        else:
            live[made] = _joined(step.kind, [live[o].reshape(-1, step.width) for o in step.operands])
    wanted = np.zeros(wiring.n_units + 2, np.bool_)
    wanted[wiring.outputs] = True
    dead: dict[str, dict[bytes, int]] = {}  # of each part of a parameter; one that is used twice may be dead once
    for step in reversed(wiring.steps):
        want = wanted[step.start : step.stop]
        if isinstance(step, Layer):
            rows, columns = step.part
            requested = (want & rows).reshape(step.groups, -1)
            source = live[step.reads].reshape(step.groups, -1) & columns
            fed = int((requested.sum(1) * source.sum(1)).sum()) * step.kernel_size
            if step.pattern is not None:
                kept = step.pattern.unpack().reshape(*requested.shape, step.shape[1], -1)
                fed = int((kept & requested[:, :, None, None] & source[:, None, :, None]).sum())
            missing = step.used - fed
            uses, part = dead.setdefault(step.name, {}), repr((step.axes, rows.tobytes(), columns.tobytes())).encode()
            uses[part] = min(uses.get(part, missing), missing)
            wanted[step.reads[step.wanted(want) & np.tile(columns, step.groups)]] = True
        else:
            wide = np.repeat(want, step.width)
            for at, operand in enumerate(step.operands):
                others = [live[o] for i, o in enumerate(step.operands) if i != at]
                wanted[operand[wide if step.kind == "add" else wide & np.all(others, axis=0)]] = True
        wanted[-2:] = False
    counts = {name: sum(dead[name].values()) for name in wiring.names}
    return {name: count for name, count in counts.items() if count}


def _joined(kind: str, operands: list[np.ndarray]) -> np.ndarray:
    """Which units of a join are live: add is OR, gate is AND, a score an OR over its pairs of ANDs."""
    if kind == "add":
        return np.any(operands, axis=0)[:, 0]
    return np.all(operands, axis=0).any(1)


# -- the graph


def reaching(graph: GraphModule, kept: Iterable[int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter on which one of the outputs `kept` depends."""
    (end,) = [node for node in graph.graph.nodes if node.op == "output"]
    flat = list(_nodes(end.args[0]))
    wanted = (
        [flat[at] for at in kept if at < len(flat)] if all(isinstance(n, Node) or n is None for n in flat) else flat
    )
    todo, seen = [node for node in wanted if isinstance(node, Node)], set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        todo += node.all_input_nodes
        todo += _written(node)
    return {
        node.meta["parameter"]: tuple(int(n) for n in outcome(node).shape)
        for node in graph.graph.nodes
        if node in seen and "parameter" in node.meta and isinstance(outcome(node), Tensor)
    }


def _nodes(values: Any) -> Iterator[Any]:
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, list | tuple):
            yield from _nodes(value)
        else:
            yield value


def _written(node: Node) -> list[Node]:
    """The operations that write in place into this tensor or into a view of it."""
    found, views = [], [node]
    while views:
        view = views.pop()
        for user in view.users:
            if user.op == "call_function" and user.args and user.args[0] is view:
                if in_place(user):
                    found.append(user)
                elif is_layout(user):
                    views.append(user)
    return found


def small_maps(graph: GraphModule, name: Callable[[str], str]) -> dict[str, str]:
    """Layer -> a note, of convolutions whose maps are smaller than their kernel or miss some of its places."""
    notes: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or operation(node) not in _CONVOLUTIONS:
            continue
        x, weight = (outcome(arg) for arg in node.args[:2])
        key = node.args[1].meta.get("parameter")
        if key is None or not isinstance(x, Tensor) or not isinstance(outcome(node), Tensor):
            continue
        space = weight.dim() - 2
        sizes = [[int(n) for n in value.shape[-space:]] for value in (x, weight, outcome(node))]
        stride, padding, dilation = (_each(_argument(node, key, at), space) for key, at in _GEOMETRY.items())
        missed = [_missed(*one) for one in zip(*sizes, stride, padding, dilation)]
        smaller = any(side < (k - 1) * d + 1 for side, k, d in zip(sizes[0], sizes[1], dilation))
        if not smaller and not any(missed):
            continue
        never = math.prod(sizes[1]) - math.prod(k - n for k, n in zip(sizes[1], missed))
        maps, kernel = ("x".join(map(str, side)) for side in sizes[:2])
        text = f"layer '{name(key)}': its maps ({maps}) are smaller than its kernel ({kernel})"
        if never:
            text += f"; {never} of {math.prod(sizes[1])} places of each kernel meet padding alone, and are counted too"
        notes.setdefault(name(key), text)
    return notes


_CONVOLUTIONS = ("aten.conv1d", "aten.conv2d", "aten.conv3d")
_GEOMETRY = {"stride": 3, "padding": 4, "dilation": 5}


def _argument(node: Node, name: str, at: int) -> Any:
    default = 0 if name == "padding" else 1
    return node.args[at] if len(node.args) > at else node.kwargs.get(name, default)


def _each(value: Any, space: int) -> list[Any]:
    if isinstance(value, list | tuple):
        return [*value] * (space if len(value) == 1 else 1)
    return [value] * space


def _missed(side: int, kernel: int, out: int, stride: int, padding: Any, dilation: int) -> int:
    """How many places of a kernel along one axis never meet the map."""
    if padding == "same":
        padding = dilation * (kernel - 1) // 2
    padding = 0 if padding == "valid" else padding
    starts = np.arange(out) * stride - padding
    return sum(not ((starts + k * dilation >= 0) & (starts + k * dilation < side)).any() for k in range(kernel))
