"""Residual branches scaled down by their number: networks that are stable at every depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from topo.errors import TopoError
from topo.models.nets import cifar_resnet, mobilenet, resnet, wide_resnet


class ScaleOutput:
    """A forward hook that multiplies what a module gives by one number; it can be copied and pickled."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * self.factor


# Where the residual branch of each built-in block ends.
_BRANCH_ENDS = (
    (cifar_resnet.Block, "bn2"),
    (resnet.Basic, "bn2"),
    (resnet.Bottleneck, "bn3"),
    (wide_resnet.Block, "conv2"),
)


def scale_branches(model: nn.Module, ends: Sequence[str] | None = None) -> nn.Module:
    """Make a residual network stable, in place: y + L**-0.5 F(y) for its L branches (Hayou et al. 2021, section 5).

    The factor multiplies each branch after its last batch norm, before the sum, so that sensitivities are of one size
    at every depth. ends: names of the modules at which the branches end; those of the built-in residual networks are
    known. Parameters and their names do not change. Returns the model.

    Raises TopoError if there is no such module, or none is known.
    """
    modules = dict(model.named_modules())
    if ends is None:
        ends = [
            f"{name}.{end}" for name, part in modules.items() for kind, end in _BRANCH_ENDS if isinstance(part, kind)
        ] + [
            f"{name}.conv"
            for name, part in modules.items()
            if isinstance(part, mobilenet.InvertedResidual) and part.identity
        ]
        if not ends:
            raise TopoError(f"no residual branch of {type(model).__name__} is known; name the modules where they end")
    for name in ends:
        if name not in modules:
            raise TopoError(f"the model has no module '{name}'")
        modules[name].register_forward_hook(ScaleOutput(len(ends) ** -0.5))
    return model
