"""Masks become trained networks: `train`, `train_many`, `imp`, `irp`; masks on models: `apply_masks`, ...

The names load on first use: a recipe is read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo._support.lazy import load

if TYPE_CHECKING:
    from topo.train.callback import MaskCallback
    from topo.train.lottery import Tickets, imp
    from topo.train.many import train_many
    from topo.train.masking import Drift, apply_masks, strip_masks, verify_masks
    from topo.train.recipe import Recipe, recipes
    from topo.train.run import Run, train
    from topo.train.survival import Survival, irp

_HOME = {
    "Drift": "topo.train.masking",
    "MaskCallback": "topo.train.callback",
    "Recipe": "topo.train.recipe",
    "Run": "topo.train.run",
    "Survival": "topo.train.survival",
    "Tickets": "topo.train.lottery",
    "apply_masks": "topo.train.masking",
    "imp": "topo.train.lottery",
    "irp": "topo.train.survival",
    "recipes": "topo.train.recipe",
    "strip_masks": "topo.train.masking",
    "train": "topo.train.run",
    "train_many": "topo.train.many",
    "verify_masks": "topo.train.masking",
}

__all__ = [
    "Drift",
    "MaskCallback",
    "Recipe",
    "Run",
    "Survival",
    "Tickets",
    "apply_masks",
    "imp",
    "irp",
    "recipes",
    "strip_masks",
    "train",
    "train_many",
    "verify_masks",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)
