"""PX, path exclusion: the paths of the squared weights, counted as often as data open them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores
from topo.pruners.signal import Signal

ACTIVATIONS = frozenset(
    "relu relu_ leaky_relu leaky_relu_ relu6 elu elu_ silu gelu hardtanh hardtanh_ hardswish mish celu celu_ selu "
    "selu_ softplus tanh sigmoid hardsigmoid prelu rrelu".split()
)


class Gates(TorchFunctionMode):
    """Within it every activation is noted: where what it is given is positive. On replay, it is a gate there instead.

    Activations are met in the same order in each pass of one module, which is how they are told apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Tensor] = []
        self.replayed: int | None = None

    def replay(self) -> Gates:
        """The same gates, to be applied from the first on."""
        self.replayed = 0
        return self

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") not in ACTIVATIONS or not args or not isinstance(args[0], Tensor):
            return function(*args, **(kwargs or {}))
        x = args[0]
        if self.replayed is None:
            self.held.append(x.detach() > 0)
            return function(*args, **(kwargs or {}))
        gate = self.held[self.replayed]
        self.replayed += 1
        return x * gate


@pruner(
    data="batches", cost="two passes a batch and a backward pass of one example, each round", rounds=100, double=True,
    modes=("eval",), source="Iurada et al. 2024, section 4",
)  # fmt: skip
def px(net: Network, batches: Batches, *, rng: np.random.Generator) -> Scores:
    """w**2 |dR/d(w**2)|, R = sum of J K over classes: an upper bound of the trace of the tangent kernel.

    J is a class's sum over examples of the network with weights 1 (0 where they are pruned), no shifts and neutral
    norms, for the squared pixels, with each activation replaced by the gate, open or not, that the network itself has
    for that example; it is held constant. K is the network of squared weights for ones, activations linear, as in
    `synflow_l2`. With every gate open and nothing pruned the scores are those of `synflow_l2` times a number.

    The released code sums squares of the batches' derivatives; here R is summed over all examples, as in the paper.
    """
    opened = torch.stack([_open_paths(net, x) for x, _ in batches]).sum(0)
    peak = opened.max()
    if not bool(torch.isfinite(peak)):
        raise TopoError("px: the count of open paths passes the largest float64")
    if not float(peak) > 0:
        raise TopoError("px: no path is open from the data to an output; is the data normalised, the model not dead?")
    squares = {name: weight.detach().square().requires_grad_(True) for name, weight in net.weights.items()}
    values = {name: parameter.square() for name, parameter in net.module.named_parameters() if name not in net.weights}
    values |= {name: buffer.abs() for name, buffer in net.module.named_buffers() if buffer.is_floating_point()}
    made = net.logits_with({**values, **squares}, Signal.ones(net.ones()))
    kernel = made.stored if isinstance(made, Signal) else made
    slopes = net.slopes((kernel * (opened / peak).view_as(kernel)).sum(), squares)
    return {name: slope * square.detach() for (name, square), slope in zip(squares.items(), slopes)}


@torch.no_grad()
def _open_paths(net: Network, x: Any) -> Tensor:
    """J, one number an output, summed over the examples of a batch and divided by a power of ten that is always the
    same: the counts of deep networks pass 1e308."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TopoError("px squares what goes in: it takes one input of numbers, such as images")
    with Gates() as gates:
        net.logits(x)
    small = torch.finfo(x.dtype).tiny ** 0.75
    with gates.replay():
        return net.logits_with(neutral(net), x.square() * small).sum(0)


def neutral(net: Network) -> dict[str, Tensor]:
    """Every tensor of the module such that it counts paths: weights 1 where there are any, no shifts, neutral norms."""
    values: dict[str, Tensor] = {}
    seen: set[int] = set()  # a tied parameter is given once
    for path, part in net.module.named_modules():
        for key, parameter in part.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            values[f"{path}.{key}" if path else key] = _neutral(parameter, key, isinstance(part, _NormBase))
        if isinstance(part, _NormBase) and part.running_mean is not None and part.running_var is not None:
            values[f"{path}.running_mean"] = torch.zeros_like(part.running_mean)
            values[f"{path}.running_var"] = torch.ones_like(part.running_var)
    return values


def _neutral(parameter: nn.Parameter, key: str, is_norm: bool) -> Tensor:
    if is_norm:
        return torch.ones_like(parameter) if key == "weight" else torch.zeros_like(parameter)
    return (parameter != 0).to(parameter.dtype) if parameter.dim() > 1 else torch.zeros_like(parameter)
