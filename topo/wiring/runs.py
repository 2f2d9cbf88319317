"""Lists of units as they are written: runs [first, count, repeat] of `count` units in a row, each `repeat` times.

All units of a feature map are one run, and so is a flatten, which reads each channel height * width times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from topo.errors import WiringError

# Llama-3 405B has some 30 million units. A wiring file is short whatever it asks for: what it may ask for is bounded.
MOST_UNITS = 1 << 27


def whole(value: Any, least: int = 0) -> bool:
    """Whether this is an integer of at least `least`; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def runs_of(units: np.ndarray) -> list[list[int]]:
    """int32 (n,) -> its runs.

    >>> runs_of(np.array([3, 3, 4, 4, 9, -1]))
    [[3, 2, 2], [9, 1, 1], [-1, 1, 1]]
    """
    if units.size == 0:
        return []
    edges = np.flatnonzero(np.diff(units)) + 1
    values = units[np.concatenate(([0], edges))]
    repeats = np.diff(np.concatenate(([0], edges, [units.size])))
    breaks = np.flatnonzero((np.diff(values) != 1) | (np.diff(repeats) != 0) | (values[1:] <= 0)) + 1
    starts = np.concatenate(([0], breaks))
    counts = np.diff(np.concatenate((starts, [values.size])))
    return [[int(values[s]), int(n), int(repeats[s])] for s, n in zip(starts, counts)]


def units_of(runs: Iterable[Sequence[int]]) -> np.ndarray:
    """What `runs_of` was given: int32 (n,)."""
    parts = [np.repeat(np.arange(first, first + count, dtype=np.int32), repeat) for first, count, repeat in runs]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def count_units(runs: Iterable[Any]) -> int:
    """How many units runs stand for, found without writing them out; WiringError if they are not runs."""
    total = 0
    for run in runs:
        if not (isinstance(run, list) and len(run) == 3 and whole(run[0], -2) and whole(run[1]) and whole(run[2])):
            raise WiringError(f"{run!r:.80} is not a run of units; it is [first, count, repeat], whole numbers")
        if run[0] + run[1] > MOST_UNITS:
            raise WiringError(f"the run {run} names a unit over {MOST_UNITS:,}")
        total += run[1] * run[2]
    return total
