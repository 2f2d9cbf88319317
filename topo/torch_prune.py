"""The bridge to torch.nn.utils.prune, for users of that API."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from topo.errors import MaskError
from topo.masks import BitRows

__all__ = ["FromMask"]


class FromMask(prune.BasePruningMethod):
    """Prune one parameter by a given mask: `FromMask.apply(model.fc, "weight", masks["fc.weight"])`.

    The type is "global": a container of several methods would hand an "unstructured" one only the entries that are
    still kept, and a full mask then has the wrong shape (torch 2.13). torch keeps `weight_orig` and `weight_mask`, and
    `prune.remove` bakes the mask in and forgets it.
    """

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any) -> None:
        self.mask = torch.from_numpy(BitRows.of_mask(mask).unpack().copy())

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """default_mask where mask, else 0."""
        return default_mask * self.mask.to(default_mask)

    @classmethod
    def apply(cls, module: nn.Module, name: str, mask: Any) -> FromMask:  # type: ignore[override]
        """Prune `module.<name>` by `mask`: an array or tensor of 0 and 1 of the parameter's shape.

        MaskError for another shape or other values. Unlike torch's own methods, the module can be copied at once.
        """
        shape = tuple(getattr(module, name).shape)
        given = BitRows.of_mask(mask, name)
        if given.shape != shape:
            raise MaskError(f"the mask has shape {given.shape} but '{name}' of {type(module).__name__} has {shape}")
        method = super().apply(module, name, mask=mask)
        # Until the next forward pass makes it anew: with a history, copy.deepcopy of the module would fail.
        setattr(module, name, getattr(module, name).detach())
        return method
