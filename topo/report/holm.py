"""Many p values at once: Holm's step-down adjustment."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979): the k-th smallest of n times n - k + 1, at most 1, rising.

    Below a level a, the chance that any true null hypothesis is among them is at most a, however they depend on each
    other. NaN stays, and does not count.

    >>> holm([0.01, 0.04, 0.03, math.nan])
    [0.03, 0.06, 0.06, nan]
    """
    order = sorted((k for k, p in enumerate(values) if p == p), key=lambda k: values[k])
    adjusted, least = [math.nan] * len(values), 0.0
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * values[k]))
        adjusted[k] = least
    return adjusted
