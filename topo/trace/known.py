"""Tensors that are known while tracing: what is computed from constants and buffers alone, run as it stands.

Masks, index tensors and zero states are built by ordinary operations, also in place. They are run in order, on the CPU
and outside the model, so that rules can look at their values. What is not on this machine (meta buffers), what is drawn
at random and what is large stays unknown.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from topo.trace.nodes import extent, outcome, written
from topo.trace.units import squash
from topo.wiring import CONSTANT, NOTHING

_MOST = 1 << 24  # elements
# Operations that take the shape of their first tensor alone.
OF_SHAPES = frozenset("zeros_like ones_like full_like new_zeros new_ones new_full".split())


class Known(dict[Node, Any]):
    """Node -> its tensor (or list of tensors), for the nodes whose values are known; `run` adds one."""

    def __init__(self) -> None:
        super().__init__()
        self._lent: set[int] = set()
        self._lost: set[int] = set()

    def lend(self, node: Node, value: Any) -> None:
        """A buffer or literal of the model, which is read and never written."""
        if type(value) is Tensor and value.device.type != "meta" and value.numel() < _MOST:
            self[node] = value.detach().cpu()
            self._lent.add(self[node].untyped_storage().data_ptr())

    def get(self, node: Any, default: Any = None) -> Any:
        """The tensor of a node, if it is known and has not been overwritten by something unknown."""
        value = super().get(node, default) if isinstance(node, Node) else default
        if isinstance(value, Tensor) and value.numel() and value.untyped_storage().data_ptr() in self._lost:
            return default
        return value

    def run(self, node: Node, env: Mapping[Node, Any]) -> None:
        """Run an operation if all that it takes is known."""
        target: Any = node.target
        if target is operator.getitem:
            held = self.get(node.args[0])
            if isinstance(held, (list, tuple)):
                self[node] = held[node.args[1]]  # type: ignore[index]
            return
        if not isinstance(target, torch._ops.OpOverload):
            return
        shape_of = node.args[0] if target.overloadpacket.__name__ in OF_SHAPES else None

        def given(arg: Node) -> Any:
            value = self._given(arg, env)
            return _stand_in(outcome(arg)) if arg is shape_of and not isinstance(env.get(arg), Tensor) else value

        taken = [given(arg) for arg in node.all_input_nodes]
        writes = written(node)
        made = outcome(node)
        tensors = [value for value in pytree.tree_leaves(made) if isinstance(value, Tensor)]
        if (
            any(value is None for value in taken)
            or not tensors
            or any(extent(value.shape) > _MOST for value in tensors)
            or torch.Tag.nondeterministic_seeded in target.tags
            or any(self._storage(target) in self._lent for target in writes)
        ):
            self._lost.update(self._storage(target) for target in writes if self.get(target) is not None)
            return
        args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), given)
        kwargs = {**kwargs, "device": torch.device("cpu")} if "device" in kwargs else kwargs
        args = pytree.tree_map(lambda arg: torch.device("cpu") if isinstance(arg, torch.device) else arg, args)
        try:
            value = target(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return
        self[node] = list(value) if isinstance(value, (list, tuple)) else value

    def _given(self, node: Node, env: Mapping[Node, Any]) -> Any:
        value = env.get(node)
        return value if isinstance(value, (bool, int, float)) else self.get(node)

    def _storage(self, node: Any) -> int:
        value = self.get(node)
        return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else -1


def _stand_in(value: Any) -> Tensor | None:
    """A tensor of the shape and type of a weight, of which nothing else is asked."""
    return torch.zeros((), dtype=value.dtype).expand(value.shape) if isinstance(value, Tensor) else None


def ids_of(value: Tensor) -> Tensor:
    """The ids of a known tensor: nothing where it is zero."""
    return squash(torch.where(value.resolve_conj().resolve_neg() == 0, NOTHING, CONSTANT).to(torch.int32))
