"""The oracle of a trace: a kept weight is effective if and only if its gradient is not zero, in the network itself.

The probe: kept weights positive and random, in float64, inputs positive and random, no biases, norms taken out (they
pass their units, by convention), every output with a positive weight of its own. A gradient at a weight is then a sum
over the paths through it. Two draws are taken, since a maximum chooses.

* soft: activations are left as they are, so that what is not 0 at 0 (sigmoid, softmax, ...) keeps a gate open. Two
  points at which gradients vanish for other reasons than structure are avoided: what a sigmoid or softmax reads is
  scaled to at most 1 (a sigmoid of 40 is 1 in numbers, and its gradient 0), and a softmax gets small fixed offsets, as
  of positions (dead scores would weigh all tokens alike: these become the same, and comparing them says nothing);
* hard: activations are identities, so that such a gate closes with its inputs; an attention is (q k^T) v.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

import topo
from topo.graph import build_graph
from topo.masks import MaskSet
from topo.metrics.paths import effective_masks
from topo.trace.capture import clean
from topo.wiring import Wiring

DENSITIES = (0.6, 0.3, 0.12)
DRAWS = 2
CONVENTIONS = ("soft", "hard")
_NORMS = frozenset("layer_norm group_norm batch_norm instance_norm rms_norm normalize local_response_norm".split())
_SATURATING = frozenset("sigmoid sigmoid_ softplus exp logsigmoid".split())
# Zero at zero, but flat further on, where gradients vanish for other reasons: identities under both conventions.
_FLAT = frozenset("hardtanh relu6 hardtanh_ relu6_ tanh tanh_".split())
_ACTIVATIONS = frozenset(
    """sigmoid sigmoid_ tanh tanh_ softmax log_softmax hardsigmoid softplus exp cos relu relu_ gelu silu elu celu selu
    leaky_relu mish hardswish prelu softsign logsigmoid""".split()
)
_NORM_MODULES = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d)


class Net(nn.Module):
    """A model whose forward is a function of itself and the inputs; attributes are parts, parameters or buffers."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


class Plain(nn.Module):
    """Stands where a norm was."""

    eps, weight, bias = 1e-5, torch.ones(1, dtype=torch.float64), None

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class Neutral(TorchFunctionMode):
    """Norms pass; under the hard convention activations do too."""

    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.hard = hard

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _NORMS or name in _FLAT:
            return args[0]
        if name == "scaled_dot_product_attention":
            return _attention(self.hard, *args, **kwargs)
        if self.hard and name == "glu":
            return torch.mul(*args[0].chunk(2, *args[1:2] or (kwargs.get("dim", -1),)))
        if self.hard and name in _ACTIVATIONS:
            return _identity(*args, **kwargs)
        if name.endswith("softmax"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            return function(_apart(args[0], -1 if dim is None else dim), *args[1:], **kwargs)
        if name in _SATURATING:
            return function(_small(args[0]), *args[1:], **kwargs)
        if name == "multi_head_attention_forward":  # the mode is off inside
            with mock.patch.object(F, "scaled_dot_product_attention", partial(_attention, self.hard)):
                with mock.patch.object(F, "softmax", _identity if self.hard else F.softmax):
                    return function(*args, **kwargs)
        return function(*args, **kwargs)


def _identity(input: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.where(torch.isinf(input), torch.zeros((), dtype=input.dtype), input)


def _small(scores: Tensor) -> Tensor:
    """Scores scaled to at most 1, by a constant: the same structure at another point. -inf stays."""
    most = scores.detach().abs()
    most = most[torch.isfinite(most) & (most < 1e30)]
    return scores / most.max().clamp(min=1.0) if most.numel() else scores


def _apart(scores: Tensor, dim: int) -> Tensor:
    """Small scores plus fixed offsets along `dim`, the axis of a softmax."""
    offsets = torch.cos(1.7 * torch.arange(scores.shape[dim], dtype=scores.dtype)) / 4
    return _small(scores) + offsets.view([-1 if d == dim % scores.dim() else 1 for d in range(scores.dim())])


def _attention(
    hard: bool, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Written out, so that keys that are dead get the gradients that mathematics gives them."""
    if k.shape[-3:-2] != q.shape[-3:-2]:
        k, v = (side.repeat_interleave(q.shape[-3] // side.shape[-3], -3) for side in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() if is_causal else None
    if attn_mask is not None:
        keep = attn_mask if attn_mask.dtype is torch.bool else torch.isfinite(attn_mask) & (attn_mask > -1e9)
        if attn_mask.is_floating_point():
            scores = scores + attn_mask.masked_fill(~keep, 0.0)
    if hard:
        scores = scores if keep is None else scores.masked_fill(~keep, 0.0)
    else:
        scores = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
        scores = _apart(scores, -1).softmax(-1)
    return scores @ v


def without_norms(model: nn.Module) -> nn.Module:
    for part in list(model.modules()):
        for name, child in part.named_children():
            if _is_norm(child):
                setattr(part, name, Plain())
    return model


def _is_norm(part: nn.Module) -> bool:
    kind = type(part).__name__
    return isinstance(part, _NORM_MODULES) or kind.endswith(("RMSNorm", "LayerNorm")) or "BatchNorm" in kind


@dataclass(frozen=True)
class Case:
    """A small network of the table.

    build: makes it. shapes: of its inputs, with the batch; a tensor stands for itself. kwargs: inputs by name. free:
    names of parameters (substrings) that are 0 in the probe, as biases are: learned constants that are added. more:
    topo may find more than gradients do, and a note holds this text; only: under this convention alone. missed: why the
    tracer is wrong here, so far. pick: the output that counts. unmasked: parameters without a mask. precision: of the
    probe, where an operation has no double.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[Any, ...]
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    more: str | None = None
    only: str | None = None
    missed: str | None = None
    pick: Callable[[Any], Any] = lambda made: made
    densities: tuple[float, ...] = DENSITIES
    unmasked: tuple[str, ...] = ()
    precision: torch.dtype = torch.float64


def inputs_of(case: Case, seed: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    drawn = torch.Generator().manual_seed(seed)

    def made(shape: Any) -> Tensor:
        if isinstance(shape, Tensor):
            return shape.to(case.precision) if shape.is_floating_point() else shape
        return (0.5 + torch.rand(shape, generator=drawn, dtype=torch.float64)).to(case.precision)

    return [made(shape) for shape in case.shapes], {key: made(value) for key, value in case.kwargs.items()}


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by the names that masks have for them; norms, which the probe takes out, left aside."""
    norms = [f"{name}." for name, part in model.named_modules() if _is_norm(part)]
    return {clean(name): p for name, p in model.named_parameters() if not name.startswith(tuple(norms))}


def _called(run: Callable[..., Any], *args: Any, **_: Any) -> Any:
    return run(*args)


def by_gradient(
    model: nn.Module, masks: Mapping[str, np.ndarray], case: Case, convention: str, draws: int = DRAWS
) -> dict[str, np.ndarray]:
    """Per masked parameter, laid out as the parameter: which kept weights have a gradient in some draw."""
    parameters = parameters_of(model)
    found = {name: np.zeros(mask.shape, bool) for name, mask in masks.items()}
    for draw in range(draws):
        drawn = torch.Generator().manual_seed(7 + draw)
        with torch.no_grad():
            for name, p in parameters.items():
                p.requires_grad_(True)  # some models freeze a part of themselves
                noise = 0.5 + torch.rand(p.shape, generator=drawn, dtype=torch.float64)
                if name in masks:
                    kept = torch.from_numpy(masks[name])
                    p.copy_(kept * noise * (kept.shape[0] / max(1, int(kept.sum()))) ** (p.dim() > 1))
                elif "bias" in name.rpartition(".")[2] or any(word in name for word in case.free):
                    p.zero_()
                else:
                    p.copy_(noise)
        model.zero_grad()
        args, kwargs = inputs_of(case, 11 + draw)
        # A checkpoint runs again where the mode is off.
        with Neutral(convention == "hard"), mock.patch.object(torch.utils.checkpoint, "checkpoint", _called):
            made = pytree.tree_leaves(case.pick(model(*args, **kwargs)))
        made = [out for out in made if isinstance(out, Tensor) and out.requires_grad]
        total = sum((out * (0.5 + torch.rand(out.shape, generator=drawn, dtype=out.dtype))).sum() for out in made)
        if isinstance(total, Tensor):
            total.backward()
        for name, mask in masks.items():
            grad = parameters[name].grad
            assert grad is None or bool(torch.isfinite(grad).all()), f"{name}: the probe's numbers are too large"
            found[name] |= mask & (grad.numpy() != 0 if grad is not None else False)
    return found


def as_parameter(wiring: Wiring, name: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask laid out as its parameter."""
    groups = wiring.input_first.get(name)
    if groups is None or (mask.shape == shape == mask.shape[::-1] and groups is None):
        return mask.reshape(shape)
    if len(shape) == 3 and mask.ndim == 2:
        experts, first, second = shape
        return mask.reshape(experts, second, first).transpose(0, 2, 1).copy()
    first, second, *rest = shape
    return np.swapaxes(mask.reshape(groups, second, first // groups, *rest), 1, 2).reshape(shape).copy()


_exported: dict[tuple[int, tuple[str, ...]], Any] = {}


def traced(case: Case, model: nn.Module, convention: str, capture: Callable[..., Any] | None = None) -> Wiring:
    """The wiring of a case. Its export, most of the time that a trace takes, is the same under both conventions: the
    last one is kept. capture: in place of the export."""
    trace_room = importlib.import_module("topo.trace")
    export = capture or trace_room.capture

    def once(module: nn.Module, *given: Any) -> Any:
        key = id(case), tuple(name for name, _ in module.named_parameters())
        if key not in _exported:
            captured = export(module, *given)
            _exported.clear()
            _exported[key] = case, captured  # which holds the case, so that no other gets its number
        return _exported[key][1]

    args, kwargs = inputs_of(case, 11)
    with warnings.catch_warnings(), mock.patch.object(trace_room, "capture", once):
        warnings.simplefilter("ignore")
        return topo.trace(model, args=args, kwargs=kwargs, gates=convention)


def differences(case: Case, convention: str, capture: Callable[..., Any] | None = None) -> list[str]:
    """What is wrong with the wiring of a case: a line for each layer and density at which topo and gradients differ.

    capture: a cheaper way than torch.export to its graph.
    """
    torch.manual_seed(0)
    model = case.build().to(case.precision).eval()
    shapes = {name: tuple(p.shape) for name, p in parameters_of(model).items()}
    wiring = traced(case, model, convention, capture)
    layers = [name for name in wiring.names if wiring.layer(name).kind != "embedding"]
    layers = [name for name in layers if not any(word in name for word in case.unmasked)]
    aside = (*case.unmasked, *case.free, "bias")
    known = {*wiring.names, *(name for name in shapes if any(word in name for word in aside))}
    by_gradient(model, {}, case, convention, draws=1)
    reaching = {name for name, p in parameters_of(model).items() if p.grad is not None and bool((p.grad != 0).any())}
    lost = [name for name in shapes if len(shapes[name]) > 1 and name in reaching - known]
    found = [f"{name} {shapes[name]} is in no layer" for name in lost]
    unsaid = [
        name
        for name in reaching - set(wiring.names)
        if len([n for n in shapes[name] if n > 1]) > 1 and not any(name in note for note in wiring.notes)
    ]
    found += [f"{name} is in no layer, and no note names it" for name in unsaid]
    if case.more is not None and not any(case.more in note for note in wiring.notes):
        found.append(f"no note says '{case.more}': {wiring.notes}")
    probed = without_norms(model)
    live = 0
    for seed, density in enumerate(case.densities):
        rng = np.random.default_rng(seed)
        masks = {name: rng.random(wiring.shapes[name]) < density for name in layers}
        for name, own in dict(probed.named_buffers()).items():  # masks that the model itself has on its parameters
            if (key := name.removesuffix("_mask")) != name and key in masks:
                masks[key] &= own.numpy() != 0
        stored = {name: as_parameter(wiring, name, mask, shapes[name]) for name, mask in masks.items()}
        effective = effective_masks(build_graph(MaskSet(masks), wiring))
        grads = by_gradient(probed, stored, case, convention)
        for name in layers:
            mine = as_parameter(wiring, name, np.asarray(effective[name]), shapes[name])
            few, count = int((grads[name] & ~mine).sum()), int((mine & ~grads[name]).sum())
            if few or (count and case.more is None):
                total = int(grads[name].sum())
                found.append(f"{name} at {density}: {few} too few, {count} too many; {total} by gradient")
            live += int(grads[name].sum())
    if not live:
        found.append("no weight is alive at any density")
    return found
