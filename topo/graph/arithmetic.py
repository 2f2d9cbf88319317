"""Two ways to hold a vector of path counts: floats with a shared power of two, and exact integers in limbs.

Both can be added, gathered, spread and sent through a layer, so that one walk over the graph serves for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from topo._support import threads

LinearMap = Callable[[np.ndarray], np.ndarray]
_NEVER = -(1 << 40)  # exponent of a vector of zeros: smaller than any other, and differences stay far from overflow


class Scaled:
    """mantissa * 2**exponent: float64 (n,) with its maximum in [0.5, 1), and one integer for the whole vector.

    All terms of a path count are positive, so the relative error is at most (sum of fan-ins) * 2**-53. Entries more
    than 2**1074 below the maximum of their vector become 0: reachability is never read off counts.
    """

    __slots__ = ("exponent", "mantissa")

    def __init__(self, mantissa: np.ndarray, exponent: int = 0) -> None:
        largest = float(mantissa.max(initial=0.0))
        shift = math.frexp(largest)[1]
        self.mantissa = np.ldexp(mantissa, -shift) if shift else mantissa
        self.exponent = exponent + shift if largest else _NEVER

    @classmethod
    def held(cls, mantissa: np.ndarray, exponent: int) -> Scaled:
        """As given: the maximum is in [0.5, 1) already, or all is 0."""
        found = cls.__new__(cls)
        found.mantissa, found.exponent = mantissa, exponent
        return found

    @classmethod
    def ones(cls, n: int) -> Scaled:
        """n ones."""
        return cls(np.ones(n))

    @classmethod
    def zeros(cls, n: int) -> Scaled:
        """n zeros."""
        return cls(np.zeros(n))

    def _at(self, exponent: int) -> np.ndarray:
        shift = max(self.exponent - exponent, -2000)
        return np.ldexp(self.mantissa, shift) if shift else self.mantissa

    def plus(self, other: Scaled) -> Scaled:
        """Both branches are rescaled to the larger exponent first."""
        exponent = max(self.exponent, other.exponent)
        return Scaled(self._at(exponent) + other._at(exponent), exponent)

    def through(self, linear: LinearMap, bound: int) -> Scaled:
        """The image under a matrix that is given as a function of float64 vectors. `bound` is for Limbs."""
        return Scaled(linear(self.mantissa), self.exponent)

    def times(self, flags: np.ndarray) -> Scaled:
        """Entries whose flag is False become 0."""
        return Scaled(self.mantissa * flags, self.exponent)

    def take(self, index: Any) -> Scaled:
        """The entries at these places, or in this slice."""
        return (
            self if isinstance(index, slice) and index == slice(None) else Scaled(self.mantissa[index], self.exponent)
        )

    def spread(self, index: Any, n: int) -> Scaled:
        """A vector of n entries with entry i added at index[i]."""
        if isinstance(index, slice):
            target = np.zeros(n)
            target[index] = self.mantissa
        else:
            target = np.bincount(index, self.mantissa, n).astype(np.float64, copy=False)
        return Scaled(target, self.exponent)

    def fold(self, width: int) -> Scaled:
        """Sums of `width` consecutive entries."""
        return Scaled(self.mantissa.reshape(-1, width).sum(axis=1), self.exponent)

    def total(self) -> tuple[float, int]:
        """(mantissa, exponent) of the sum of all entries."""
        mantissa, shift = math.frexp(float(self.mantissa.sum()))
        return (mantissa, self.exponent + shift) if mantissa else (0.0, 0)


class Limbs:
    """Exact non-negative integers: float64 (limbs, n), entry = sum over l of limb[l] * 2**(BITS * l).

    A limb stays below 2**BITS between steps and a step multiplies it by at most 2**(53 - BITS) in sum, so that every
    float64 operation is exact; steps that could exceed this are split by `through`.
    """

    BITS: ClassVar[int] = 36
    MOST: ClassVar[int] = 1 << 16  # so many limbs are added up before a carry
    WORKERS: ClassVar[int | None] = 1  # threads that send limbs through a layer, each so many of them:
    AT_ONCE: ClassVar[int] = 8
    __slots__ = ("limbs",)

    def __init__(self, limbs: np.ndarray) -> None:
        self.limbs = limbs

    @classmethod
    def ones(cls, n: int) -> Limbs:
        """n ones."""
        return cls(np.ones((1, n)))

    @classmethod
    def zeros(cls, n: int) -> Limbs:
        """n zeros."""
        return cls(np.zeros((1, n)))

    @classmethod
    def _carried(cls, limbs: np.ndarray) -> Limbs:
        """Move what exceeds 2**BITS in a limb to the next one."""
        base, rows = 2.0**cls.BITS, []
        carry = np.zeros(limbs.shape[1])
        for row in limbs:
            row = row + carry
            carry = np.floor(row / base)
            rows.append(row - carry * base)
        while carry.any():
            high = np.floor(carry / base)
            rows.append(carry - high * base)
            carry = high
        while len(rows) > 1 and not rows[-1].any():
            rows.pop()
        return cls(np.stack(rows))

    def plus(self, other: Limbs) -> Limbs:
        """The sum, carried."""
        long, short = (self, other) if len(self.limbs) >= len(other.limbs) else (other, self)
        limbs = long.limbs.copy()
        limbs[: len(short.limbs)] += short.limbs
        return self._carried(limbs)

    def through(self, linear: LinearMap, bound: int) -> Limbs:
        """As Scaled.through, by a function of several vectors, (n, in) -> (n, out).

        The multiplicities that meet in one entry of the image sum to at most `bound`.
        """
        if bound <= self.MOST:
            parts = [self.limbs[first : first + self.AT_ONCE] for first in range(0, len(self.limbs), self.AT_ONCE)]
            return self._carried(np.concatenate(threads.over(linear, parts, self.WORKERS)))
        half = 2.0 ** (self.BITS // 2)  # more weights than that into one unit: send the limbs in two halves
        high = np.floor(self.limbs / half)
        low_part = self._carried(linear(self.limbs - high * half))
        high_part = self._carried(linear(high))
        for _ in range(2):  # times `half` in two steps, each exact
            high_part = self._carried(high_part.limbs * np.sqrt(half))
        return low_part.plus(high_part)

    def times(self, flags: np.ndarray) -> Limbs:
        """Entries whose flag is False become 0."""
        return type(self)(self.limbs * flags)

    def take(self, index: Any) -> Limbs:
        """The entries at these places, or in this slice."""
        return self if isinstance(index, slice) and index == slice(None) else type(self)(self.limbs[:, index])

    def spread(self, index: Any, n: int) -> Limbs:
        """A vector of n entries with entry i added at index[i]."""
        if isinstance(index, slice):
            limbs = np.zeros((len(self.limbs), n))
            limbs[:, index] = self.limbs
            return type(self)(limbs)
        total = self.zeros(n)
        for first in range(0, len(index), self.MOST):
            part = slice(first, first + self.MOST)
            sums = [np.bincount(index[part], limb[part], n) for limb in self.limbs]
            total = total.plus(self._carried(np.stack(sums)))
        return total

    def fold(self, width: int) -> Limbs:
        """Sums of `width` consecutive entries."""
        total = self.zeros(self.limbs.shape[1] // width)
        entries = self.limbs.reshape(len(self.limbs), -1, width)
        for first in range(0, width, self.MOST):
            total = total.plus(self._carried(entries[:, :, first : first + self.MOST].sum(axis=2)))
        return total

    def total(self) -> int:
        """The sum of all entries, a Python integer."""
        n, at_once = self.limbs.shape[1], 1 << (62 - self.BITS)  # so many limbs sum below 2**62
        found = 0
        for first in range(0, n, at_once):
            sums = self.limbs[:, first : first + at_once].sum(axis=1, dtype=np.int64)
            found += sum(int(one) << (self.BITS * place) for place, one in enumerate(sums))
        return found


def limbs_on(workers: int | None) -> type[Limbs]:
    """Limbs that so many threads send through a layer; the numbers do not depend on it."""

    class Shared(Limbs):
        WORKERS = workers
        __slots__ = ()

    return Shared
