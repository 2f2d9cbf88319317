"""Masks become trained networks: `train`, `train_many`, `imp`, `irp`; masks on models: `apply_masks`, ..."""

from __future__ import annotations

from topo.train.callback import MaskCallback
from topo.train.lottery import Tickets, imp
from topo.train.many import train_many
from topo.train.masking import Drift, apply_masks, strip_masks, verify_masks
from topo.train.recipe import Recipe, recipes
from topo.train.run import Run, train
from topo.train.survival import Survival, irp

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
