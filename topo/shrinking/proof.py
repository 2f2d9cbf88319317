"""The proof by numbers: both models on the same random inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from topo.errors import ShrinkError
from topo.stranger import torch_kept

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_MOST_AT_ONCE = 1 << 24  # weights of half precision that are widened together: 64 MB
_HALF = (torch.float16, torch.bfloat16)
_DOUBLE_AT_MOST = 1 << 28  # parameters: beyond, a copy in double precision does not fit beside the model


@dataclass(frozen=True, eq=False)
class Reference:
    """What the masked model gives. outputs: the floating-point tensors of each input, in double precision where the
    model computes in it."""

    inputs: tuple[Any, ...]
    outputs: tuple[list[Tensor], ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, model: nn.Module, example: Any, count: int, seed: int) -> tuple[Reference, nn.Module]:
        """Of `count` random inputs like the example; and the model that gave it, in the same precision."""
        size = sum(p.numel() for p in model.parameters())
        inputs = tuple(_like(example, model, seed + i) for i in range(max(count, 1)))
        for dtype in (torch.float64, torch.float32) if size <= _DOUBLE_AT_MOST else (torch.float32,):
            try:
                exact = copy.deepcopy(model).double() if dtype == torch.float64 else model
                return cls(inputs, tuple(run(exact, inputs, dtype)), dtype), exact
            except (RuntimeError, ValueError) as error:
                failed = error
        held = {p.dtype for p in model.parameters()} & set(_HALF)
        if held:
            kind = str(held.pop()).removeprefix("torch.")
            raise ShrinkError(f"the model's {kind} cannot be computed in float32 ({failed}); shrink model.float()")
        raise failed

    def difference(self, model: nn.Module) -> tuple[float, float] | None:
        """Largest |f(x) - g(x)|, and that over the largest |f(x)|; None if the model gives other shapes or fails."""
        try:
            made = run(model, self.inputs, self.dtype)
        except Exception:  # whatever the user's code raises at sizes that it does not expect
            return None
        largest, scale = 0.0, 0.0
        for old, new in zip(self.outputs, made):
            if [t.shape for t in old] != [t.shape for t in new]:
                return None
            for a, b in zip(old, new):
                if a.numel():
                    both_odd = ~torch.isfinite(a) & ((a == b) | (a.isnan() & b.isnan()))
                    gap = torch.where(both_odd, 0.0, (a - b).abs())
                    largest = max(largest, float(gap.nan_to_num(float("inf")).max()))
                    scale = max(scale, float(torch.where(torch.isfinite(a), a, 0.0).abs().max()))
        return largest, largest / scale if scale else (0.0 if largest == 0 else float("inf"))

    def agrees(self, found: tuple[float, float] | None) -> bool:
        """Whether a difference is one of rounding alone."""
        return found is not None and found[1] <= TOLERANCE[self.dtype]


class _Single(TorchFunctionMode):
    """Half precision is computed in float32: a large model of it beside its own weights, piece by piece."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("__get__", "__set__", "size", "dim"):
            return func(*args, **kwargs)
        if func is F.embedding:
            return _wide(func(*args, **kwargs))
        if func is F.linear and args[1].dtype in _HALF:
            x, weight, bias = (*args, kwargs.get("bias"))[:3]
            parts = [F.linear(_wide(x), _wide(part)) for part in weight.split(_rows(weight))]
            made = torch.cat(parts, -1)
            return made if bias is None else made + _wide(bias)
        args, kwargs = pytree.tree_map(_wide, (args, kwargs))
        return func(*args, **kwargs)


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value


def _rows(weight: Tensor) -> int:
    return max(_MOST_AT_ONCE // max(weight.shape[1], 1), 1)


def run(model: nn.Module, inputs: Sequence[Any], dtype: torch.dtype) -> list[list[Tensor]]:
    """The floating-point outputs for each input; of a model in double precision, inputs are, too."""
    if dtype == torch.float64:  # a copy but of its parameters: what it changes as it computes is not the model's
        model = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    half = dtype == torch.float32 and any(parameter.dtype in _HALF for parameter in model.parameters())
    made = []
    with torch.no_grad(), torch_kept(), _Single() if half else nullcontext():
        for args, kwargs in inputs:
            args, kwargs = pytree.tree_map_only(
                Tensor, lambda t: t.to(dtype) if t.is_floating_point() and dtype == torch.float64 else t, (args, kwargs)
            )
            torch.manual_seed(0)
            leaves = pytree.tree_leaves(model(*args, **kwargs))
            made.append([t.detach().to(torch.float64) for t in leaves if isinstance(t, Tensor) and not t.is_complex()])
    return made


def _like(example: Any, model: nn.Module, seed: int) -> Any:
    """Random numbers where the example has numbers, random tokens where it has tokens."""
    rng = torch.Generator().manual_seed(seed)
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    known = min(tables, default=2)

    def drawn(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=rng, dtype=torch.float64).to(tensor.dtype)
        if tensor.dtype == torch.int64 and tensor.dim() == 2 and tables:
            return torch.randint(0, known, tensor.shape, generator=rng)
        return tensor

    args, kwargs = example
    fixed = ("attention_mask", "position_ids", "token_type_ids", "cache_position")
    return (
        pytree.tree_map(drawn, args),
        {key: value if key in fixed else pytree.tree_map(drawn, value) for key, value in kwargs.items()},
    )
