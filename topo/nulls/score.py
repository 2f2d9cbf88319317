"""A number of masks against the same number of samples of a null model: mean, deviation, z and p."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Number = int | float
# Singular values are promised to 1e-8 of the largest. Differences of numbers near 1 round at 1e-16 whatever is left.
_ROUNDING, _FLOOR = 1e-8, 1e-14


@dataclass(frozen=True)
class Score:
    """One number against samples of a null model.

    samples: those with a number; -inf, the logarithm of no path, is one. mean, std, with samples - 1 in the
    denominator, z = (observed - mean) / std: where all of them are finite. p = min(1, 2 min(low, high)), two-sided:
    low = (1 + samples at or below the observed number) / (1 + samples), high the same from above. What is undefined is
    NaN, and the note says why; it also tells how many samples were left out, having no number.
    """

    samples: int
    mean: float = math.nan
    std: float = math.nan
    z: float = math.nan
    p: float = math.nan
    note: str | None = None


def score(observed: Number, drawn: Sequence[Number]) -> Score:
    """The observed number against those of samples; samples without a number (NaN) are left out, and told.

    Of numbers that are not integers, differences below 1e-8 of the largest, or below 1e-14, are taken for rounding:
    such numbers are equal, and count in both tails.

    >>> score(5, [1, 2, 3])
    Score(samples=3, mean=2.0, std=1.0, z=3.0, p=0.5, note=None)
    """
    numbers = [number for number in drawn if number == number]
    count, left_out = len(numbers), sum(number != number for number in drawn)
    if not count:
        return Score(0, note=f"none of {left_out} samples has a number")
    told = [f"{left_out} of {len(drawn)} samples have no number and are left out"] if left_out else []
    exact = all(isinstance(number, int) for number in (*numbers, observed))
    try:
        values, seen = np.array([float(n) for n in numbers]), float(observed)
    except OverflowError:
        p = _both_tails(observed, numbers, 0) if exact else math.nan
        return Score(count, p=p, note="; ".join([*told, "numbers are beyond float64; see their logarithm"]))
    finite = values[np.isfinite(values)]
    unit = math.ldexp(1.0, math.frexp(np.abs(finite).max(initial=0.0))[1] - 1)  # squares of it may leave float64
    small = 0.0 if exact else max(_ROUNDING * unit, _FLOOR)  # between samples; what was observed may be larger
    near = 0.0 if exact else max(small, _ROUNDING * abs(seen)) if math.isfinite(seen) else small
    p = _both_tails(observed, numbers, 0) if exact else _both_tails(seen, values.tolist(), near)
    alike = len(set(numbers)) == 1 if exact else len(finite) == count and float(np.ptp(values)) <= small
    equal = observed == numbers[0] if exact else bool(seen == values[0] or abs(seen - values[0]) <= near)
    if len(finite) < count and not (values == values[0]).all():
        some = f"{count - len(finite)} of {count} samples are {values[~np.isfinite(values)][0]:g}"
        return Score(count, p=p, note="; ".join([*told, f"{some}: mean, std and z are undefined"]))
    mean, std = float(values[0]), 0.0
    if len(finite) == count:
        # Integers as their distances from one of them: float64 holds these where it does not hold the numbers.
        start = int(numbers[0]) if exact else 0
        parts = np.array([float(n - start) for n in numbers]) / unit if exact else values / unit
        mean = float(parts.mean()) * unit + start
        std = float(parts.std(ddof=1)) * unit if count > 1 else math.nan
        apart = float(observed - start) / unit - float(parts.mean())
    if count == 1:
        why = "a single sample has a number"
    elif len(finite) < count or alike:  # all samples are one number
        why, std = "every sample has the observed number" if equal else "all samples have the same number", 0.0
        mean = seen if equal else mean
    elif not math.isfinite(seen):
        why = "the masks themselves have no number" if math.isnan(seen) else f"the masks' own number is {seen:g}"
    else:
        return Score(count, mean, std, apart / (std / unit), p, "; ".join(told) or None)
    return Score(count, mean, std, p=p, note="; ".join([*told, f"{why}, z is undefined"]))


def _both_tails(seen: Number, drawn: Sequence[Number], near: float) -> float:
    """p from the ranks of the observed number from below and from above, itself counted; NaN if there is no number.

    Integers are compared as such (near = 0), whatever their size.
    """
    if seen != seen:
        return math.nan
    low, high = sum(number <= seen + near for number in drawn), sum(number >= seen - near for number in drawn)
    return min(1.0, 2 * (1 + min(low, high)) / (1 + len(drawn)))
