"""Twins of the fit of degrees by a power law: plain loops and scipy's own minimiser. Samples are those of the code."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from naive.net import Net
from naive.whole import _undirected
from topo.metrics.power_law import SAMPLES, Fit, drawn, fit


def _fit(degrees: list[int]):
    best = None
    for first in sorted(set(degrees))[:-1]:
        tail = [d for d in degrees if d >= first]

        def unlikely(s, tail=tail, first=first):
            return s * sum(map(math.log, tail)) + len(tail) * math.log(zeta(s, first))

        s = minimize_scalar(unlikely, bounds=(1 + 1e-6, 30), method="bounded", options={"xatol": 1e-9}).x
        distance = 0.0
        for d in sorted(set(tail)):
            for at in (d, d - 1):
                seen = sum(t <= at for t in tail) / len(tail)
                distance = max(distance, abs(1 - zeta(s, at + 1) / zeta(s, first) - seen))
        if best is None or distance < best[2] - 1e-7:
            best = s, first, distance
    return best


def _degrees(net: Net) -> list[int]:
    return sorted(degree for _, degree in _undirected(net).degree if degree)


def power_law_exponent(net: Net):
    found = _fit(_degrees(net))
    return found[0] if found else math.nan


def power_law_p(net: Net):
    found = _fit(_degrees(net))
    if found is None:
        return math.nan
    degrees = np.unique(_degrees(net), return_counts=True)
    assert abs(fit(*degrees).distance - found[2]) < 1e-6
    law, rng = Fit(fit(*degrees).exponent, *found[1:]), np.random.default_rng(0)
    again = [fit(*drawn(*degrees, law, rng)) for _ in range(SAMPLES)]
    return sum(one is not None and one.distance >= fit(*degrees).distance - 1e-9 for one in again) / SAMPLES
