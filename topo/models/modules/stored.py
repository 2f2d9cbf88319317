"""Masks are output-first; parameters are not always. How one is laid out as the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from topo.errors import WiringError
from topo.layout import input_first, output_first, output_first_shape

if TYPE_CHECKING:
    from topo.wiring import Wiring


@dataclass(frozen=True)
class Storage:
    """How a parameter of `shape` holds a mask.

    turned: input-first, (in, out / groups, ...) for a mask (out, in / groups, ...). stacked: three dimensions, one
    matrix an expert, for a mask (experts * out, in).

    >>> Storage((2, 3), turned=True).mask_shape
    (3, 2)
    """

    shape: tuple[int, ...]
    turned: bool = False
    stacked: bool = False
    groups: int = 1

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Shape of the mask, output-first."""
        if self.stacked:
            experts, first, second = self.shape
            return (experts * second, first) if self.turned else (experts * first, second)
        return output_first_shape(self.shape, self.groups) if self.turned else self.shape

    def parameter(self, mask: np.ndarray) -> np.ndarray:
        """A mask laid out as the parameter."""
        if not self.turned:
            return mask.reshape(self.shape)
        if self.stacked:
            experts, first, second = self.shape
            return mask.reshape(experts, second, first).transpose(0, 2, 1)
        return input_first(mask, self.groups)

    def mask(self, parameter: np.ndarray) -> np.ndarray:
        """What is laid out as the parameter, as a mask; the inverse of `parameter`."""
        if not self.turned:
            return parameter.reshape(self.mask_shape)
        if self.stacked:
            return parameter.transpose(0, 2, 1).reshape(self.mask_shape)
        return output_first(parameter, self.groups)


def storage(
    name: str,
    mask_shape: Sequence[int],
    shape: Sequence[int],
    module: nn.Module,
    wiring: Wiring | None = None,
    as_stored: bool = False,
    recorded: bool = False,
) -> Storage:
    """How the parameter `name` of `module` holds a mask of `mask_shape`, output-first unless as_stored.

    The wiring says whether a layer is stored input-first, else the module's type. Only where neither knows do the
    shapes say, and of square ones what the masks have on record: recorded, that their parameter is input-first.

    WiringError if the mask fits in no way, or in two ways and nothing says which.
    """
    mask_shape, shape = tuple(mask_shape), tuple(shape)
    fits, told = _fits(mask_shape, shape, module), _told(name, module, wiring)
    due = told and not as_stored
    if not fits or (told is not None and due not in fits):
        lies = "input-first" if not due else "as the weight"
        turned = f"; it lies {lies}: transpose the masks, of square layers too" if fits else ""
        raise WiringError(f"mask '{name}' has shape {mask_shape} but the model's parameter has {shape}{turned}")
    if told is not None:
        return fits[bool(due)]
    if len(fits) == 1:
        return next(iter(fits.values()))
    if recorded and not as_stored:
        return fits[True]
    raise WiringError(
        f"mask '{name}' {mask_shape} fits the parameter {shape} both output-first and input-first; "
        "give the model's wiring (topo.trace), which tells"
    )


def _fits(mask_shape: tuple[int, ...], shape: tuple[int, ...], module: nn.Module) -> dict[bool, Storage]:
    """The ways in which a mask fits by its shape, turned or not."""
    stacked = len(shape) == 3 and len(mask_shape) == 2
    groups = module.groups if isinstance(module, _ConvTransposeNd) else 1
    ways = (Storage(shape, turned, stacked, groups) for turned in (False, True))
    return {way.turned: way for way in ways if len(shape) > 1 and way.mask_shape == mask_shape}


def _told(name: str, module: nn.Module, wiring: Wiring | None) -> bool | None:
    """Whether the parameter is input-first, by the wiring, else by the module's type; None if neither knows."""
    return wiring.layer(name).transposed if wiring is not None and name in wiring.shapes else _input_first(module)


def output_first_by_shape(
    name: str, mask_shape: Sequence[int], shape: Sequence[int], module: nn.Module, wiring: Wiring | None = None
) -> bool | None:
    """Whether a mask lies (out, in) rather than (in, out); None where its shape or its layer does not tell."""
    fits, told = _fits(tuple(mask_shape), tuple(shape), module), _told(name, module, wiring)
    return None if told is None or len(fits) != 1 else told in fits


def natural(shape: Sequence[int], module: nn.Module) -> Storage:
    """How a module of a known type holds the mask of its weight."""
    groups = module.groups if isinstance(module, _ConvTransposeNd) else 1
    return Storage(tuple(shape), bool(_input_first(module)), groups=groups)


def _input_first(module: nn.Module) -> bool | None:
    """Whether this type of module stores its weight (in, out); None if it is not known."""
    if isinstance(module, _ConvTransposeNd | nn.Embedding):
        return True
    if isinstance(module, nn.Linear | nn.Bilinear | _ConvNd | nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase):
        return False
    kinds = type(module).__mro__  # a parametrized module's own class comes before its layer's
    return True if any(k.__name__ == "Conv1D" and k.__module__.startswith("transformers.") for k in kinds) else None
