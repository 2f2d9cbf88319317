"""Ghosts: soft activations and skips that help a sparse network through its first epochs, and then are gone.

Jaiswal et al. 2022, "Training Your Sparse Neural Network Better with Any Mask" (ToST). The network itself is never
changed: activations are answered otherwise while it runs, and skips hang on its convolutions from outside, so that
neither its state dict nor its modules know of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SLOPE = {"swish": 1.0, "sharp_swish": 2.0}
_IN_PLACE = {torch.relu_, F.relu_, Tensor.relu_}
_RELUS = {F.relu, torch.relu, Tensor.relu} | _IN_PLACE


def strength(step: float, steps: float) -> float:
    """From 1 at the first step to 0 at half of all and after: (1 + cos(2 pi t / T)) / 2."""
    return 0.0 if 2 * step >= steps else (1 + cos(2 * pi * step / steps)) / 2


class _SoftRelu(TorchFunctionMode):
    """Within it relu(x) is (1 - alpha) relu(x) + alpha ghost(x)."""

    def __init__(self, ghosts: Ghosts) -> None:
        super().__init__()
        self.ghosts = ghosts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        alpha, named = self.ghosts.alpha, kwargs or {}
        if function not in _RELUS or not alpha:
            return function(*args, **named)
        given = args[0] if args else named["input"]
        within = function in _IN_PLACE
        x = given.clone() if within else given
        soft = F.mish(x) if self.ghosts.activation == "mish" else x * torch.sigmoid(_SLOPE[self.ghosts.activation] * x)
        found = torch.lerp(x.clamp(min=0), soft, alpha)
        return given.copy_(found) if within else found


class Ghosts:
    """The ghosts of one network.

    model: plain. activation: off, or what relu is softened to: swish (x sigma(x)), sharp_swish (x sigma(2 x)), mish.
    skip: the strength that ghost skips begin with, 0 for none: beside each 2d convolution of more than one tap, out +
    skip alpha BN(conv1x1(x)), the 1x1 convolutions drawn as He's by `generator`. alpha is `strength`.
    """

    def __init__(self, model: nn.Module, activation: str, skip: float, generator: torch.Generator) -> None:
        self.activation, self.skip, self.alpha = activation, skip, 1.0
        self.parts: dict[str, nn.Sequential] = {}
        self.places: list[tuple[nn.Conv2d, nn.Sequential]] = []
        for path, part in model.named_modules() if skip else ():
            if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1):
                self.parts[path] = _beside(part, generator)
                self.places.append((part, self.parts[path]))

    def _hook(self, ghost: nn.Sequential) -> Any:
        def beside(part: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if not self.alpha:
                return out
            ghost.train(part.training)
            added = ghost(given[0])
            if added.shape != out.shape:  # strides and paddings that do not keep the size
                added = F.adaptive_avg_pool2d(added, (out.shape[-2], out.shape[-1]))
            return out + self.skip * self.alpha * added

        return beside

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Under names that no network has."""
        for path, ghost in self.parts.items():
            for name, parameter in ghost.named_parameters():
                yield f"ghost:{path}:{name}", parameter

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Within it the network is haunted; outside, and once alpha is 0, it is what it was."""
        if not self.alpha:
            yield
            return
        hooks = [part.register_forward_hook(self._hook(ghost)) for part, ghost in self.places]
        try:
            with nullcontext() if self.activation == "off" else _SoftRelu(self):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of them."""
        return {
            f"{path}:{name}": value.detach().cpu()
            for path, ghost in self.parts.items()
            for name, value in ghost.state_dict().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for path, ghost in self.parts.items():
            start = f"{path}:"
            ghost.load_state_dict({name.removeprefix(start): value for name, value in state.items()
                                   if name.startswith(start)})  # fmt: skip


def _beside(part: nn.Conv2d, generator: torch.Generator) -> nn.Sequential:
    """1x1 convolution and batch norm, from the inputs of a convolution to the shape of its outputs."""
    weight = part.weight
    stride: Any = part.stride
    thin = nn.Conv2d(part.in_channels, part.out_channels, 1, stride, bias=False)
    with torch.no_grad():
        thin.weight.copy_(torch.randn(thin.weight.shape, generator=generator) * (2 / part.in_channels) ** 0.5)
    made = nn.Sequential(thin, nn.BatchNorm2d(part.out_channels))
    return made.to(device=weight.device, dtype=weight.dtype)
