"""Figures: every one is `plot(data, ax=None, **style) -> ax`; the caller saves.

A figure is a function under `@plot(...)` in a file of this folder, called as `topo.plots.<its name>`. A file is
not named like its figure, or it would hide the figure. matplotlib loads when the first figure is asked for. Figures of
several panels take `fig=None` and return the figure.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from topo.plots.registry import plot, plots, takes

if TYPE_CHECKING:
    from topo.plots.accuracies import accuracy_sparsity, metric_accuracy, metric_sparsity
    from topo.plots.balance import nodes_paths
    from topo.plots.courses import training_curves
    from topo.plots.flows import path_flow
    from topo.plots.forests import null_forest, ranking
    from topo.plots.fronts import frontier
    from topo.plots.heatmaps import metric_heatmap
    from topo.plots.network import layered_graph
    from topo.plots.overlaps import mask_dynamics, mask_overlap
    from topo.plots.profiles import density_profile, layer_profile, ramanujan_profile
    from topo.plots.spectra import degree_distribution, mask_matrix, spectrum
    from topo.plots.style import VENUES, figure, paper, save
    from topo.plots.units import dead_units

_STYLE = ("VENUES", "figure", "paper", "save")

__all__ = [
    "VENUES",
    "accuracy_sparsity",
    "dead_units",
    "degree_distribution",
    "density_profile",
    "figure",
    "frontier",
    "layer_profile",
    "layered_graph",
    "mask_dynamics",
    "mask_matrix",
    "mask_overlap",
    "metric_accuracy",
    "metric_heatmap",
    "metric_sparsity",
    "nodes_paths",
    "null_forest",
    "paper",
    "path_flow",
    "plot",
    "plots",
    "ramanujan_profile",
    "ranking",
    "save",
    "spectrum",
    "takes",
    "training_curves",
]


def __getattr__(name: str) -> Any:
    if name in _STYLE:
        return getattr(importlib.import_module("topo.plots.style"), name)
    if not name.startswith("_") and name in plots:
        return plots[name]
    raise AttributeError(f"module 'topo.plots' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*_STYLE, "plot", "plots", "takes", *plots})
