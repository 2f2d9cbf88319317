"""Vectors of non-negative numbers of any size: an exponent for each entry, so that weights of any scale pass any depth.

Path counts share one exponent (`arithmetic.Scaled`), since a path counts at least 1. Weights do not: a stream through
weights of 1e3 and then 1e-3 meets at the end, as its equal, one through 1e-3 and then 1e3, after having been 1e600
times it half-way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_NEVER = -(1 << 40)  # exponent of 0: smaller than any other, and differences stay far from overflow
_GONE = -2000  # 2**_GONE is 0 in float64
# A band of entries lies within such a factor of its largest. Products of an entry and of a squared weight then stay
# above the smallest normal number, 2**-1022.
SPAN = 400  # 2**-SPAN, for entries of a vector
SQUARED = 250  # 2**-SQUARED, for weights


class Floating:
    """mantissa * 2**exponent, entry by entry: float64 (n,) in [0.5, 1) or 0, and int64 (n,).

    Sums align each entry with the largest of its own terms, so the relative error of an entry is at most (number of
    additions on the way to it) * 2**-53, whatever the others are.
    """

    __slots__ = ("exponent", "mantissa")

    def __init__(self, mantissa: np.ndarray, exponent: np.ndarray | int = 0) -> None:
        self.mantissa, shift = np.frexp(mantissa)
        self.exponent = np.where(self.mantissa > 0, shift + np.asarray(exponent, np.int64), _NEVER)

    @classmethod
    def ones(cls, n: int) -> Floating:
        """n ones."""
        return cls(np.ones(n))

    @classmethod
    def zeros(cls, n: int) -> Floating:
        """n zeros."""
        return cls(np.zeros(n))

    def _at(self, exponent: np.ndarray) -> np.ndarray:
        """Mantissas in units of 2**exponent, an exponent for each entry, none below the entry's own."""
        return np.ldexp(self.mantissa, np.maximum(self.exponent - exponent, _GONE))

    def plus(self, other: Floating) -> Floating:
        """The sum."""
        exponent = np.maximum(self.exponent, other.exponent)
        return Floating(self._at(exponent) + other._at(exponent), exponent)

    def through(self, linear: Callable[[Floating], Floating], bound: int) -> Floating:
        """The image under a matrix that is given as a function of such vectors. `bound` is for Limbs."""
        return linear(self)

    def times(self, flags: np.ndarray) -> Floating:
        """Entries whose flag is False become 0."""
        return Floating(self.mantissa * flags, self.exponent)

    def take(self, index: Any) -> Floating:
        """The entries at these places, or in this slice."""
        return Floating(self.mantissa[index], self.exponent[index])

    def spread(self, index: Any, n: int) -> Floating:
        """A vector of n entries with entry i added at index[i]."""
        exponent = np.full(n, _NEVER, np.int64)
        if isinstance(index, slice):
            target = np.zeros(n)
            exponent[index], target[index] = self.exponent, self.mantissa
            return Floating(target, exponent)
        np.maximum.at(exponent, index, self.exponent)
        return Floating(np.bincount(index, self._at(exponent[index]), n), exponent)

    def fold(self, width: int) -> Floating:
        """Sums of `width` consecutive entries."""
        exponent = self.exponent.reshape(-1, width).max(axis=1)
        return Floating(self._at(np.repeat(exponent, width)).reshape(-1, width).sum(axis=1), exponent)

    def dot(self, other: Floating) -> tuple[float, int]:
        """(mantissa, exponent) of the sum of products."""
        return Floating(self.mantissa * other.mantissa, self.exponent + other.exponent).total()

    def total(self) -> tuple[float, int]:
        """(mantissa, exponent) of the sum of all entries; (0.0, 0) of zeros."""
        exponent = int(self.exponent.max(initial=_NEVER))
        mantissa, shift = math.frexp(float(self._at(np.full_like(self.exponent, exponent)).sum()))
        return (mantissa, exponent + shift) if mantissa else (0.0, 0)

    def bands(self) -> Iterator[tuple[np.ndarray, int]]:
        """(values, exponent) with this vector their sum of values * 2**exponent: float64, 0 or in [2**-SPAN, 1)."""
        left = self.exponent
        while (largest := int(left.max(initial=_NEVER))) > _NEVER:
            inside = left > largest - SPAN
            yield np.where(inside, np.ldexp(self.mantissa, np.maximum(left - largest, _GONE)), 0.0), largest
            left = np.where(inside, _NEVER, left)


def bands(values: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """As Floating.bands, for finite non-negative float64 of any shape, in [2**-SQUARED, 1) so that squares fit too.

    Weights of a network are one band; an array of zeros is none.
    """
    left = values
    while (largest := float(left.max(initial=0.0))) > 0:
        exponent = math.frexp(largest)[1]
        band = np.ldexp(left, -exponent)
        outside = band < 2.0**-SQUARED
        if not left[outside].any():
            yield band, exponent
            return
        band[outside] = 0.0
        yield band, exponent
        left = np.where(outside, left, 0.0)
