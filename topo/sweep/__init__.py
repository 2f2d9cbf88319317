"""Sweeps: one file names networks, methods, densities and seeds; each combination is a cell, carried out once."""

from topo.sweep.plan import Cell, Plan, read_plan
from topo.sweep.run import Results, sweep

__all__ = ["Cell", "Plan", "Results", "read_plan", "sweep"]
