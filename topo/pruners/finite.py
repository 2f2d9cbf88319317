"""Where numbers stop being finite: the layer, or the batch, in which a NaN or an infinity first stands."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from topo.pruners.network import Batches, Network


@torch.no_grad()
def not_finite(net: Network, batches: Batches) -> str:
    """ "; it begins in ...": a parameter or buffer, else a batch, else the module whose output is the first that is not
    finite; "" if all of these are finite, so that only the derivatives are not."""
    for kind, tensors in (("parameter", net.module.named_parameters()), ("buffer", net.module.named_buffers())):
        for name, tensor in tensors:
            if not _finite(tensor):
                return f"; it begins in the {kind} '{name}', which holds {_first(tensor)}"
    for number, (x, _) in enumerate(batches):
        if bad := [part for part in pytree.tree_leaves(x) if not _finite(part)]:
            return f"; it begins in batch {number}, which holds {_first(bad[0])}"
    for number, (x, _) in enumerate(batches):
        if (place := _first_module(net, x)) is not None:
            return f"; it begins in the output of {place} for batch {number}"
    return ""


def _first_module(net: Network, x: Any) -> str | None:
    found: list[str] = []

    def look(name: str, module: nn.Module) -> Any:
        def hook(part: nn.Module, given: Any, made: Any) -> None:
            bad = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor) and not _finite(leaf)]
            if bad and not found:
                found.append(f"'{name}' ({type(module).__name__}), which holds {_first(bad[0])}")

        return module.register_forward_hook(hook)

    hooks = [look(name, module) for name, module in net.module.named_modules() if name]
    try:
        net.logits(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(tensor: Any) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _first(tensor: Tensor) -> float:
    return float(tensor[~torch.isfinite(tensor)][0])
