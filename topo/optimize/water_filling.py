"""How many parameters each layer gets: water filling, under a total and a FLOPs budget.

P * prod(effective nodes) <= prod(n_e) (node-path balance law), so that the best budgets maximise sum_e log n_e: equal
shares, capped by what a layer holds. With a price on operations, n_e = min(cap_e, w_e / (tau + mu cost_e)).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from topo.errors import TopoError


def water_fill(
    caps: Any, total: int, *, least: Any = 1, weights: Any = None, costs: Any = None, limit: float | None = None
) -> np.ndarray:
    """Whole numbers n with least <= n <= caps, sum n = total, that maximise sum w log n; sum costs n <= limit.

    weights: of the layers, 1 by default. Rounding is by largest remainder, ties in order; under a limit what rounding
    leaves goes to the cheapest layers, so that the limit holds.

    >>> water_fill([10, 100, 100], 100)
    array([10, 45, 45])

    Raises TopoError where no such numbers exist.
    """
    caps = np.asarray(caps, np.int64)
    least = np.minimum(np.broadcast_to(np.asarray(least, np.int64), caps.shape), caps)
    weights = np.ones(len(caps)) if weights is None else np.asarray(weights, np.float64)
    if not least.sum() <= total <= caps.sum():
        raise TopoError(f"layers that hold {least.sum():,} to {caps.sum():,} parameters cannot share {total:,}")
    shares = _shares(weights, least, caps, total)
    if costs is None or limit is None:
        return _rounded(shares, least, caps, total)
    costs = np.asarray(costs, np.float64)
    if float(costs @ _rounded(shares, least, caps, total)) <= limit:
        return _rounded(shares, least, caps, total)
    cheapest = _cheapest(costs, least, caps, total)
    if float(costs @ cheapest) > limit:
        needed = 2 * float(costs @ cheapest)
        raise TopoError(f"so many parameters cost at least {needed:.6g} FLOPs; the limit is {2 * limit:.6g}")
    dearest = costs[cheapest > least].max(initial=costs.min())  # cheaper layers fill up as tau falls to -mu * this
    low, high = -60.0, 60.0  # tau / mu = exp(t) - dearest: from the cheapest filling to equal shares
    for turn in range(101):
        middle = (low + high) / 2 if turn < 100 else low
        price = costs - dearest + max(np.ptp(costs), 1.0) * np.exp(middle)
        shares = _shares(np.where(price > 0, weights / np.where(price > 0, price, 1.0), np.inf), least, caps, total)
        low, high = (low, middle) if float(costs @ shares) > limit else (middle, high)
    whole = np.maximum(np.floor(shares + 1e-9).astype(np.int64), least)
    found = _cheapest(costs, whole, caps, total) if whole.sum() <= total else cheapest
    return found if float(costs @ found) <= limit else cheapest


def _shares(weights: np.ndarray, least: np.ndarray, caps: np.ndarray, total: int) -> np.ndarray:
    """clip(s * weights, least, caps) with s such that the sum is `total`; infinite weights stand at their cap.

    The sum is linear in s between the places where a layer leaves its least or reaches its cap.
    """
    free = (weights > 0) & np.isfinite(weights)
    shares = np.where(np.isinf(weights), caps, least).astype(np.float64)
    if free.any():
        w, low, high = weights[free], least[free], caps[free]
        breaks = np.sort(np.concatenate([low / w, high / w]))
        sums = np.clip(breaks[:, None] * w, low, high).sum(axis=1)
        shares[free] = np.clip(np.interp(total - shares[~free].sum(), sums, breaks) * w, low, high)
    return shares


def _rounded(shares: np.ndarray, least: np.ndarray, caps: np.ndarray, total: int) -> np.ndarray:
    floors = np.clip(np.floor(shares + 1e-9).astype(np.int64), least, caps)
    while (missing := total - int(floors.sum())) != 0:
        sign = 1 if missing > 0 else -1
        free = np.flatnonzero(floors < caps if sign > 0 else floors > least)
        order = free[np.argsort(sign * (floors - shares)[free], kind="stable")]
        floors[order[: abs(missing)]] += sign
    return floors


def _cheapest(costs: np.ndarray, start: np.ndarray, caps: np.ndarray, total: int) -> np.ndarray:
    """`start`, and what is missing to `total` where it costs least."""
    found, left = start.copy(), total - int(start.sum())
    for k in np.argsort(costs, kind="stable"):
        more = min(left, int(caps[k] - found[k]))
        found[k] += more
        left -= more
    return found
