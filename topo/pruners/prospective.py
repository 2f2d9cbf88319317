"""ProsPr: the loss after the first steps of training, differentiated through these steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils import _pytree as pytree

from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores


@pruner(
    data="batches", cost="a backward pass through all inner steps; memory grows with them",
    modes=("train", "eval", "statistics"), source="Alizadeh et al. 2022, algorithm 1",
)  # fmt: skip
def prospr(
    net: Network,
    batches: Batches,
    *,
    rng: np.random.Generator,
    steps: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    first_order: bool = False,
) -> Scores:
    """|dL'/dm|, L' the loss on new data after `steps` steps of SGD from the weights w m, with m = 1.

    Each step has a batch of its own and moves every parameter, biases and norms too; what m takes from a weight is felt
    through all of them (second derivatives), or through the start alone (`first_order`). With no steps this is `snip`.
    The batches before the last ones are for the steps; where there are too few, all examples are shared out evenly.
    Batch norm uses each batch's statistics, as in training.
    """
    if steps < 0 or not lr >= 0 or not 0 <= momentum < 1:
        raise TopoError(
            f"prospr has steps={steps}, lr={lr}, momentum={momentum}; none is negative, momentum is under 1"
        )
    parts = list(batches) if len(batches) > steps else shared_out(batches, steps + 1)
    alive = {name: torch.ones_like(weight).requires_grad_(True) for name, weight in net.weights.items()}
    fast = {
        name: parameter * alive[name] if name in alive else parameter.detach().requires_grad_(True)
        for name, parameter in net.module.named_parameters()
        if parameter.is_floating_point()
    }
    speed = {name: torch.zeros_like(value) for name, value in fast.items()}
    for part in parts[:steps]:
        slopes = torch.autograd.grad(
            _loss(net, [part], fast), list(fast.values()), create_graph=not first_order, allow_unused=True,
            retain_graph=True,
        )  # fmt: skip
        for (name, value), slope in zip(list(fast.items()), slopes):
            if slope is not None:
                speed[name] = momentum * speed[name] + slope
                fast[name] = value - lr * speed[name]
    found = net.slopes(_loss(net, parts[steps:], fast), alive)
    return {name: slope.abs() for name, slope in zip(alive, found)}


def _loss(net: Network, parts: Batches, values: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over the examples of these batches with these parameters."""
    module = net.module
    net.module = _With(module, values)  # type: ignore[assignment]
    try:
        return torch.stack(list(net.losses(parts))).sum()
    finally:
        net.module = module


class _With:
    """The module with other parameters."""

    def __init__(self, module: torch.nn.Module, values: dict[str, Tensor]) -> None:
        self.module, self.values = module, values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.module, self.values, args, kwargs)


def shared_out(batches: Batches, count: int) -> Sequence[tuple[Any, Tensor]]:
    """All examples in `count` batches, every count-th in one, so that classes that come in order are in each.

    TopoError if there are fewer examples than batches.
    """
    total = sum(len(y) for _, y in batches)
    if total < count:
        raise TopoError(f"the data are {total} examples; {count} batches take at least one each")
    parts: list[list[tuple[Any, Tensor]]] = [[] for _ in range(count)]
    first = 0
    for x, y in batches:
        for number, part in enumerate(parts):
            at = slice((number - first) % count, None, count)
            if len(y[at]):
                part.append((pytree.tree_map(lambda values: values[at], x), y[at]))  # noqa: B023
        first += len(y)
    return [_joined(part) for part in parts]


def _joined(parts: list[tuple[Any, Tensor]]) -> tuple[Any, Tensor]:
    x = pytree.tree_map(lambda *values: torch.cat(values), *[x for x, _ in parts])
    return x, torch.cat([y for _, y in parts])
