"""Sweeps: one file names networks, methods, densities and seeds; each combination is a cell, carried out once.

What carries cells out loads on first use: a plan is read without torch and scipy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo._support.lazy import load
from topo.sweep.plan import Cell, Plan, read_plan

if TYPE_CHECKING:
    from topo.sweep.run import Results, sweep

__all__ = ["Cell", "Plan", "Results", "read_plan", "sweep"]

_HOME = {"Results": "topo.sweep.run", "sweep": "topo.sweep.run"}


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)
