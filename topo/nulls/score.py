"""A number of masks against the same number of samples of a null model: mean, deviation, z and p."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topo.report.numerals import finite

Number = int | float
# Singular values are promised to 1e-8 of the largest. Differences of numbers near 1 round at 1e-16 whatever is left.
_ROUNDING, _FLOOR = 1e-8, 1e-14


@dataclass(frozen=True)
class Score:
    """One number against samples of a null model.

    samples: those with a finite number. std: with samples - 1 in the denominator. z: (observed - mean) / std.
    p: (1 + samples at least as far from the mean as the observed number) / (1 + samples), two-sided. What is
    undefined is NaN, and the note says why.
    """

    samples: int
    mean: float = math.nan
    std: float = math.nan
    z: float = math.nan
    p: float = math.nan
    note: str | None = None


def score(observed: Number, drawn: Sequence[Number]) -> Score:
    """The observed number against those of samples; samples whose number is not finite are left out.

    Of numbers that are no integers, differences below 1e-8 of the largest, or below 1e-14, are taken for rounding.

    >>> score(5, [1, 2, 3])
    Score(samples=3, mean=2.0, std=1.0, z=3.0, p=0.25, note=None)
    """
    numbers = [number for number in drawn if finite(number)]
    count = len(numbers)
    if not count:
        return Score(0, note=f"none of {len(drawn)} samples has a finite number")
    known = finite(observed)
    try:
        values, seen = np.array([float(n) for n in numbers]), float(observed) if known else math.nan
    except OverflowError:
        return Score(count, note="numbers are beyond float64; see their logarithm")
    exact = all(isinstance(number, int) for number in (*numbers, observed) if finite(number))
    unit = math.ldexp(1.0, math.frexp(float(np.abs(values).max()))[1] - 1)  # what float64 holds has squares beyond it
    small = 0.0 if exact else max(_ROUNDING, _FLOOR / unit)
    parts, place = values / unit, seen / unit
    mean = float(parts.mean())
    if float(np.ptp(parts)) <= small:  # all samples are one number
        same = known and abs(seen - values[0]) <= small * max(unit, abs(seen))
        p = math.nan if not known else 1.0 if same else 1 / (1 + count)
        if count < 2:
            return Score(count, mean * unit, p=p, note=_too_few(count, len(drawn)))
        why = "every sample has the observed number" if same else "all samples have the same number"
        return Score(count, seen if same else mean * unit, 0.0, p=p, note=f"{why}, z is undefined")
    std = float(parts.std(ddof=1))
    if not known:
        return Score(count, mean * unit, std * unit, note="the number of the masks themselves is not finite")
    far = int((np.abs(parts - mean) >= abs(place - mean) - max(small, 1e-12)).sum())
    return Score(count, mean * unit, std * unit, (place - mean) / std, (1 + far) / (1 + count))


def _too_few(count: int, asked_for: int) -> str:
    return f"{count} of {asked_for} samples {'has' if count == 1 else 'have'} a finite number, z is undefined"
