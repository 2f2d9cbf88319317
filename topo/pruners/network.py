"""The working copy of a model that a scoring function sees, and the batches that it is given."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from topo import layout
from topo.errors import TopoError
from topo.input_spec import input_text, plain_shape, read_inputs
from topo.models import prunable
from topo.trace.inputs import carried_shape
from topo.wiring import Wiring

Batches = Sequence[tuple[Tensor, Tensor]]
Scores = Mapping[str, Tensor]


@dataclass(eq=False)
class Network:
    """A copy of the user's model to work on.

    module: in the mode and precision asked for; of its parameters only the prunable weights require gradients.
    weights: prunable parameters by name, in network order; what earlier rounds pruned is 0 in them. dense: their values
    before any pruning (the same memory, if there is one round). input_shape: of one example, None if unknown. keep:
    parameters that this round keeps. known_wiring: None if the module is to be traced.
    """

    module: nn.Module
    weights: dict[str, nn.Parameter]
    dense: dict[str, Tensor]
    input_shape: tuple[int, ...] | None
    keep: int
    known_wiring: Wiring | None = None

    def ones(self) -> Tensor:
        """One example of ones, of the model's precision; TopoError if the input shape is not known."""
        first = next(iter(self.weights.values()))
        return torch.ones(1, *self.known_shape(), dtype=first.dtype, device=first.device)

    def known_shape(self) -> tuple[int, ...]:
        """`input_shape`; TopoError if it is not known."""
        if self.input_shape is None:
            raise TopoError("this pruner needs the shape of one input without the batch, such as (3, 32, 32)")
        return self.input_shape

    def losses(self, batches: Batches, temperature: float = 1.0) -> Iterable[Tensor]:
        """Cross-entropy of logits / temperature, batch by batch; together they sum to the mean over all examples."""
        examples = sum(len(y) for _, y in batches)
        for x, y in batches:
            found = logits(self.module(x))
            if found.ndim != 2 or int(y.max()) >= found.shape[1] or int(y.min()) < 0:
                raise TopoError(
                    f"the model gives {tuple(found.shape)} for classes {int(y.min())} to {int(y.max())}; "
                    "it should give a number for each class"
                )
            yield F.cross_entropy(found / temperature, y, reduction="sum") / examples

    def gradients(self, batches: Batches, temperature: float = 1.0) -> dict[str, Tensor]:
        """Gradient of the mean loss over all examples with respect to each prunable weight."""
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        for loss in self.losses(batches, temperature):
            for held, found in zip(total.values(), self.derivative(loss)):
                held += found
        return total

    def derivative(self, value: Tensor, **how: Any) -> tuple[Tensor, ...]:
        """Gradient of a number with respect to the prunable weights; zeros for a weight that it does not depend on."""
        weights = list(self.weights.values())
        found = torch.autograd.grad(value, weights, allow_unused=True, **how)
        return tuple(torch.zeros_like(w) if g is None else g for g, w in zip(found, weights))

    @cached_property
    def wiring(self) -> Wiring:
        """As given, or traced from the module."""
        if self.known_wiring is not None:
            return self.known_wiring
        from topo.trace import trace

        return trace(self.module, self.known_shape())


def logits(output: Any) -> Tensor:
    """What a module returns, its `logits` (transformers) or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", output)
    return found if isinstance(found, Tensor) else found[0]


def working_copy(
    model: nn.Module, precision: str, input_shape: Sequence[int] | None, wiring: Wiring | None = None
) -> Network:
    """A deep copy of the model without gradients; TopoError for a meta model or one without prunable layers.

    A weight that two layers share is held once, under its first name.
    """
    held = dict(model.named_parameters())
    names = [name for name in prunable(model) if name in held]
    if not names:
        raise TopoError(f"the model {type(model).__name__} has no linear layer or convolution to prune")
    if any(held[name].is_meta for name in names):
        raise TopoError(f"'{names[0]}' is on the meta device and has no values; scores need a model with weights")
    module = copy.deepcopy(model)
    if precision != "model":
        module.to(getattr(torch, precision))
    parameters = dict(module.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    for name in names:
        parameters[name].requires_grad_(True)
    weights = {name: parameters[name] for name in names}
    inputs = read_inputs(input_shape) if input_shape is not None else ()
    shape = plain_shape(inputs) if inputs else carried_shape(model)
    if inputs and shape is None:
        raise TopoError(
            f"pruners send one input of numbers through the network, such as 3x32x32; not {input_text(inputs)}"
        )
    return Network(module, weights, {}, shape, 0, wiring)


def read_batches(batches: Iterable[Any] | None, net: Network, method: str) -> Batches:
    """(x, y) pairs of arrays or tensors as tensors where the model is, x in its precision, y whole numbers.

    TopoError if there is none, a batch is no pair, x and y differ in length, or x holds bytes (images that are not yet
    normalised).
    """
    first = next(iter(net.weights.values()))
    found = []
    for number, batch in enumerate(batches or ()):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TopoError(f"batch {number} is no pair (x, y)")
        x, y = (torch.as_tensor(np.asarray(part) if isinstance(part, list) else part) for part in batch)
        if not x.is_floating_point():
            raise TopoError(f"batch {number} holds x of type {x.dtype}; x is normalised and of a floating type")
        if y.is_floating_point() or y.ndim != 1 or len(x) != len(y) or not len(y):
            raise TopoError(
                f"batch {number} holds x {tuple(x.shape)} and y {tuple(y.shape)} of type {y.dtype}; "
                "y holds the class, a whole number, of each example of x"
            )
        found.append((x.to(first.device, first.dtype), y.to(first.device, torch.int64)))
        if net.input_shape is None:
            net.input_shape = tuple(x.shape[1:])
        elif x[0].numel() != math.prod(net.input_shape):  # a flatten may take images of any shape
            raise TopoError(f"batch {number} holds x of shape {tuple(x.shape[1:])}; the model takes {net.input_shape}")
    if not found:
        raise TopoError(f"pruner '{method}' needs data: batches, an iterable of (x, y)")
    return found


def set_mode(module: nn.Module, mode: str, batches: Batches) -> None:
    """Batch norm by its running statistics (eval), by those of each batch (train), or by those of all batches.

    statistics: the running statistics are first set to the averages over the batches; no weight changes.
    """
    module.eval()
    if mode == "eval":
        return
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    if mode == "train":
        module.train()
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for x, _ in batches:
            module(x)
    module.eval()


def output_first(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by parameter as topo holds masks, a row per output: those of transposed convolutions are turned."""
    parts = _parts(module)
    turned = {}
    for name, array in arrays.items():
        part = parts[name]
        if isinstance(part, _ConvTransposeNd):
            array = layout.output_first(array, part.groups)
        turned[name] = array
    return turned


def stored_input_first(module: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Name -> groups of those parameters that are stored (in, out / groups, ...), unlike their mask."""
    parts = {name: _parts(module)[name] for name in names}
    return {name: part.groups for name, part in parts.items() if isinstance(part, _ConvTransposeNd)}


def input_first(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back: arrays as torch holds the parameters."""
    parts = _parts(module)
    turned = {}
    for name, array in arrays.items():
        part = parts[name]
        if isinstance(part, _ConvTransposeNd):
            array = layout.input_first(array, part.groups)
        turned[name] = array
    return turned


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    return {f"{name}.weight" if name else "weight": part for name, part in module.named_modules()}
