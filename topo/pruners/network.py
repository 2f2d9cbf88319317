"""The working copy of a model that a scoring function sees, and the batches that it is given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from topo._support.doors import drawn, said
from topo.errors import TopoError
from topo.input_spec import input_text, plain_shape, read_inputs
from topo.models.modules.holders import copied, made_plain, unwrapped
from topo.models.modules.stored import Storage
from topo.pruners.parameters import Example, masked_parameters
from topo.stranger import PassKept
from topo.trace.inputs import carried_shape
from topo.wiring import Wiring

Batches = Sequence[tuple[Any, Tensor]]
Scores = Mapping[str, Tensor]
IGNORED = -100  # the label of a token that does not count, as everywhere in torch


@dataclass(eq=False)
class Network:
    """A copy of the user's model to work on.

    module: in the mode and precision asked for; of its parameters only the masked weights require gradients. Masks and
    norms on these are computed into them: they are plain parameters.
    weights: masked parameters by name, in network order; what earlier rounds pruned is 0 in them. dense: their values
    before any pruning (the same memory, if there is one round). input_shape: of one example, None if unknown. keep:
    parameters that this round keeps. known_wiring: None if the module is to be traced. held: how each weight holds its
    mask. output: the key of the output that counts, "" for the logits or the first tensor. reached: the weights on
    which some derivative depended; None before there was one. told: notes on how the weights were found. density:
    that was asked for, if one was. passes: what a forward pass left of torch's settings. alive: the places of each
    weight that live, where what is pruned stays pruned: blocks may then be kept (`topo.pruners.blocks`), and the scores
    of a weight that has one be of its live entries alone. by_lot: of a method whose scores order equals by lot, what is
    equal: by weight, laid out as it.
    """

    module: nn.Module
    weights: dict[str, nn.Parameter]
    dense: dict[str, Tensor]
    input_shape: tuple[int, ...] | None
    keep: int
    known_wiring: Wiring | None = None
    held: Mapping[str, Storage] = field(default_factory=dict)
    output: str = ""
    reached: set[str] | None = None
    told: tuple[str, ...] = ()
    density: float | None = None
    passes: PassKept = field(default_factory=PassKept)
    alive: Mapping[str, np.ndarray] | None = None
    by_lot: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Mask shapes by name: what quotas share a budget out by."""
        return {name: storage.mask_shape for name, storage in self.held.items()}

    def logits(self, x: Any) -> Tensor:
        """What the module gives for an input, several of them (a tuple), or named ones (a dict)."""
        with self.passes:
            if isinstance(x, Tensor):
                made = self.module(x)
            else:
                made = self.module(**x) if isinstance(x, dict) else self.module(*x)
        return logits(made, self.output)

    def logits_with(self, values: Mapping[str, Tensor], x: Any) -> Tensor:
        """The same with other parameters and buffers, for one input."""
        with self.passes:
            made = functional_call(self.module, dict(values), (x,))
        return logits(made, self.output)

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
        examples = sum(int((y != IGNORED).sum()) for _, y in batches)
        for x, y in batches:
            found = self.logits(x)
            if found.ndim == y.ndim + 1 and found.ndim > 2 and found.shape[:-1] == y.shape:
                found = found.movedim(-1, 1)  # a class for each token
            fits = found.ndim == y.ndim + 1 and found.shape[:1] + found.shape[2:] == y.shape
            classes = y[y != IGNORED]
            if not fits or not classes.numel() or int(classes.max()) >= found.shape[1] or int(classes.min()) < 0:
                span = f"{int(classes.min())} to {int(classes.max())}" if classes.numel() else "none"
                raise TopoError(
                    f"the model gives {tuple(found.shape)} for classes {span}; it should give a number for each class"
                )
            yield F.cross_entropy(found / temperature, y, reduction="sum", ignore_index=IGNORED) / max(examples, 1)

    def gradients(self, batches: Batches, temperature: float = 1.0) -> dict[str, Tensor]:
        """Gradient of the mean loss over all examples with respect to each prunable weight."""
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        for loss in self.losses(batches, temperature):
            for held, found in zip(total.values(), self.derivative(loss)):
                held += found
        return total

    def derivative(self, value: Tensor, **how: Any) -> tuple[Tensor, ...]:
        """Gradient of a number with respect to the prunable weights; zeros for a weight that it does not depend on."""
        return self.slopes(value, self.weights, **how)

    def slopes(self, value: Tensor, places: Mapping[str, Tensor], **how: Any) -> tuple[Tensor, ...]:
        """Gradient of a number with respect to tensors that stand for the prunable weights, by their names.

        TopoError for a number that has none, as one of a model that turns gradients off.
        """
        found = self.found_slopes(value, list(places.items()), **how)
        return tuple(torch.zeros_like(w) if g is None else g for g, w in zip(found, places.values()))

    def found_slopes(
        self, value: Tensor, places: Sequence[tuple[str, Tensor]], **how: Any
    ) -> tuple[Tensor | None, ...]:
        """The same for pairs of a name and a tensor; None where the number does not depend on it."""
        if not value.requires_grad:
            raise TopoError(f"no weight can be scored by a gradient: {self.passes.why_no_gradient()}")
        found = torch.autograd.grad(value, [tensor for _, tensor in places], allow_unused=True, **how)
        self.reached = (self.reached or set()) | {n for (n, _), slope in zip(places, found) if slope is not None}
        return found

    def notes(self) -> list[str]:
        """How the weights were found, if that should be told; and a line on those that derivatives never reached, with
        their share: all their scores are 0."""
        lost = [name for name in self.weights if self.reached is not None and name not in self.reached]
        said = [*self.told, *self.passes.notes]
        if not lost:
            return said
        share = sum(self.weights[name].numel() for name in lost) / sum(w.numel() for w in self.weights.values())
        named = ", ".join(f"'{name}'" for name in lost[:3]) + (", ..." if len(lost) > 3 else "")
        unreached = f"the output that counts does not depend on {named} ({share:.1%} of the parameters)"
        return [*said, f"{unreached}: all scores are 0"]

    @cached_property
    def wiring(self) -> Wiring:
        """As given, or traced from the module."""
        if self.known_wiring is not None:
            return self.known_wiring
        from topo.trace import trace

        return trace(self.module, self.known_shape())


def logits(output: Any, key: str = "") -> Tensor:
    """What a module returns, if it is a tensor; else the output of this key, its `logits`, or its first tensor of a
    floating type. TopoError if there is none."""
    if key:
        if isinstance(output, Mapping):
            found = output.get(key)
        elif isinstance(output, tuple | list) and key.isdigit() and int(key) < len(output):
            found = output[int(key)]
        else:
            found = getattr(output, key, None)
        if not isinstance(found, Tensor):
            raise TopoError(f"the model gives no tensor under output '{key}'; it gives {_described(output)}")
        return found
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not tensors:
        raise TopoError(f"the model gives {_described(output)}, no tensor of a floating type")
    return tensors[0]


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(map(str, output)) or 'nothing'}"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")


def with_doubles(module: nn.Module) -> nn.Module:
    """The module; moved to the CPU from an Apple GPU, which has no doubles: scores are compared and summed as such."""
    if any(parameter.device.type == "mps" for parameter in module.parameters()):
        module.cpu()
    return module


def working_copy(
    model: nn.Module,
    precision: str,
    input_shape: Sequence[int] | None,
    wiring: Wiring | None = None,
    layers: str | Sequence[str] | None = None,
    example: Example | None = None,
) -> Network:
    """A deep copy of the model without gradients; TopoError for a meta model or one without layers to mask.

    Its masked weights are those of `masked_parameters`. A weight that two layers share is held once, under its first
    name.
    """
    model = unwrapped(model)
    how = {"wiring": wiring, "input_shape": input_shape, "layers": layers, "example": example}
    held, found, told = masked_parameters(model, **how)  # type: ignore[arg-type]
    module = copied(model)
    try:
        with_doubles(module).eval()
        if precision != "model":
            module.to(getattr(torch, precision))
    except Exception as error:  # of a class of one's own
        raise TopoError(
            f"the model {type(model).__name__} does not go into eval mode, or {precision}: {said(error)}"
        ) from error
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    weights = {name: made_plain(module, name) for name in held}
    for name, weight in weights.items():
        if weight.is_meta:
            raise TopoError(f"'{name}' is on the meta device and has no values; scores need a model with weights")
        if not weight.is_floating_point():
            raise TopoError(f"'{name}' holds values of type {weight.dtype}; scores need weights of a floating type")
        weight.data = weight.data.contiguous()  # methods look at it as a vector
        weight.requires_grad_(True)
    inputs = read_inputs(input_shape) if input_shape is not None else ()
    shape = plain_shape(inputs) if inputs else carried_shape(model)
    if inputs and shape is None and example is None:
        raise TopoError(
            f"pruners send one input of numbers through the network, such as 3x32x32; not {input_text(inputs)}"
        )
    return Network(module, weights, {}, shape, 0, found, held, told=tuple(told))


def read_batches(batches: Iterable[Any] | None, method: str) -> list[tuple[Any, Tensor]]:
    """(x, y) pairs of arrays or tensors as tensors; x may be several inputs, a tuple or a dict of them.

    A batch may also be a dict that holds its labels beside its inputs. TopoError if there is none, a batch is not a
    pair, x and y differ in length, or x holds bytes (images that are not yet normalised).
    """
    found = [_pair(batch, number) for number, batch in enumerate(drawn(batches, "the batches"))]
    if not found:
        raise TopoError(f"pruner '{method}' needs data: batches, an iterable of (x, y)")
    return found


def _pair(batch: Any, number: int) -> tuple[Any, Tensor]:
    if isinstance(batch, Mapping) and "labels" in batch:
        batch = {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TopoError(f"batch {number} is not a pair (x, y)")
    given, y = batch[0], _tensor(batch[1])
    if y.is_floating_point() or not y.ndim or not len(y):
        y_is = f"y {tuple(y.shape)} of type {y.dtype}"
        raise TopoError(f"batch {number} holds {y_is}; y holds the class, a whole number, of each example of x")
    several = isinstance(given, tuple | list) and all(
        isinstance(part, Tensor | np.ndarray) and part.ndim and len(part) == len(y) for part in given
    )
    x: Any
    if isinstance(given, Mapping):
        x = {str(key): _tensor(part) for key, part in given.items()}
    else:
        x = tuple(map(_tensor, given)) if several else _tensor(given)
    for part in [x] if isinstance(x, Tensor) else list(x.values() if isinstance(x, dict) else x):
        if part.is_meta or part.layout != torch.strided or part.is_nested:
            kind = "on the meta device" if part.is_meta else "a nested tensor" if part.is_nested else part.layout
            raise TopoError(f"batch {number} holds x that is {kind}; x is a plain tensor of numbers")
        if part.dtype == torch.uint8 or part.is_complex():
            raise TopoError(f"batch {number} holds x of type {part.dtype}; x is normalised and of a floating type")
        if not part.ndim or len(part) != len(y):
            raise TopoError(
                f"batch {number} holds x {tuple(part.shape)} and y {tuple(y.shape)} of type {y.dtype}; "
                "y holds the class, a whole number, of each example of x"
            )
    return x, y.to(torch.int64)


def _tensor(values: Any) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(values) if isinstance(values, list) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise TopoError(f"a batch holds a {type(values).__name__} that is not an array of numbers: {why}") from None


def first_example(batches: Batches) -> Example:
    """The first example of the first batch, as arguments of the model."""
    x = batches[0][0]
    if isinstance(x, dict):
        return (), {key: part[:1] for key, part in x.items()}
    return tuple(part[:1] for part in ([x] if isinstance(x, Tensor) else x)), {}


def placed(batches: Batches, net: Network) -> Batches:
    """Batches where the model is, floating-point inputs in its precision; TopoError if they do not fit its shape."""
    first = next(iter(net.weights.values()))

    def there(part: Tensor) -> Tensor:
        return part.to(first.device, first.dtype if part.is_floating_point() else part.dtype)

    found = []
    for number, (x, y) in enumerate(batches):
        if isinstance(x, Tensor) and net.input_shape is None:
            net.input_shape = tuple(x.shape[1:])
        elif isinstance(x, Tensor) and net.input_shape and x[0].numel() != math.prod(net.input_shape):
            # a flatten may take images of any shape
            raise TopoError(f"batch {number} holds x of shape {tuple(x.shape[1:])}; the model takes {net.input_shape}")
        found.append((pytree.tree_map(there, x), y.to(first.device)))
    return found


def set_mode(net: Network, mode: str, batches: Batches) -> None:
    """Batch norm by its running statistics (eval), by those of each batch (train), or by those of all batches.

    statistics: the running statistics are first set to the averages over the batches; no weight changes.
    """
    module = net.module.eval()
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
            net.logits(x)
    module.eval()
