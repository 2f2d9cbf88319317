"""Masks become trained networks: `train`, `apply_masks`, `strip_masks`, `verify_masks`, `MaskCallback`, `imp`."""

from __future__ import annotations

from topo.train.callback import MaskCallback
from topo.train.lottery import Tickets, imp
from topo.train.masking import Drift, apply_masks, strip_masks, verify_masks
from topo.train.recipe import Recipe, recipes
from topo.train.run import Run, train

__all__ = [
    "Drift",
    "MaskCallback",
    "Recipe",
    "Run",
    "Tickets",
    "apply_masks",
    "imp",
    "recipes",
    "strip_masks",
    "train",
    "verify_masks",
]
