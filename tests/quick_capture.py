"""A forward pass recorded as the graph that torch.export gives, at a tenth of its price.

For tests that hold thousands of small networks: torch.export takes 3 ms an operation. This keeps the operations that
arrive before dispatch, as export does, of a run with numbers. `test_trace_random.py` holds that the graphs are the
same.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from topo.trace.capture import Captured, clean


class _Recorder(ProxyTorchDispatchMode):
    """Enters each operation into a graph; torch takes no other class of modes before dispatch."""

    def __init__(self, module: nn.Module) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.graph = Graph()
        self.names = {id(p): clean(name) for name, p in reversed(list(module.named_parameters()))}
        self.held: dict[int, tuple[Tensor, Node]] = {}  # with the tensor, so that no other gets its number
        self.fresh: dict[int, Node] = {}  # by their memory: torch.zeros and the like give another tensor than this sees
        self.last: Node | None = None

    def __enter__(self) -> Any:
        return TorchDispatchMode.__enter__(self)

    def __exit__(self, *error: Any) -> Any:
        return TorchDispatchMode.__exit__(self, *error)

    def place(self, value: Tensor, **meta: Any) -> Node:
        """A placeholder for an input, a parameter or a constant, before all operations."""
        with self.graph.inserting_after(self.last) if self.last else self.graph.inserting_before():
            node = self.last = self.graph.placeholder(f"given_{len(self.held)}")
        node.meta = {"val": value, **meta}
        self.held[id(value)] = value, node
        return node

    def node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.held and value.data_ptr() in self.fresh:
            return self.fresh[value.data_ptr()]
        if id(value) not in self.held:
            name = self.names.get(id(value))
            return self.place(value, **({"constant": value} if name is None else {"parameter": name}))
        return self.held[id(value)][1]

    def keep(self, value: Any, node: Node) -> None:
        node.meta["val"] = value
        if isinstance(value, Tensor):
            self.held[id(value)] = value, node
        elif isinstance(value, (list, tuple)):
            for at, part in enumerate(value):
                self.keep(part, self.graph.call_function(operator.getitem, (node, at)))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.tree_map(self.node, (args, kwargs or {}))
        made = function(*args, **(kwargs or {}))
        node = self.graph.call_function(function, *given)
        self.keep(made, node)
        if isinstance(made, Tensor) and not node.all_input_nodes:
            self.fresh[made.data_ptr()] = node
        return made


def quick_capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    recorder = _Recorder(module)
    for value in pytree.tree_leaves((args, kwargs)):
        recorder.place(value, input=True)
    with torch.no_grad(), enable_python_dispatcher(), recorder:
        flat, spec = pytree.tree_flatten(module.eval()(*args, **kwargs))
    recorder.graph.output(tuple(recorder.node(value) for value in flat))
    return Captured(GraphModule(nn.Module(), recorder.graph), list(range(len(flat))), spec)
