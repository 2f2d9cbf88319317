"""Figures: every one is `plot(data, ax=None, **style) -> ax`; the caller saves.

A figure is a function under `@plots.add()` in a file of this folder, called as `topo.plots.<its name>`. A file is
not named like its figure, or it would hide the figure. matplotlib loads when the first figure is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from topo.registry import Registry

if TYPE_CHECKING:
    from topo.plots.profiles import density_profile, layer_profile
    from topo.plots.style import VENUES, figure, paper, save

plots = Registry("plot", __name__)

_STYLE = ("VENUES", "figure", "paper", "save")

__all__ = ["VENUES", "density_profile", "figure", "layer_profile", "paper", "plots", "save"]


def __getattr__(name: str) -> Any:
    if name in _STYLE:
        return getattr(importlib.import_module("topo.plots.style"), name)
    if not name.startswith("_") and name in plots:
        return plots[name]
    raise AttributeError(f"module 'topo.plots' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*_STYLE, "plots", *plots})
