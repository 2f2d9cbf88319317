"""Null bands: what a number would be for masks drawn at random from those that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo._support.seeds import own_rng
from topo.errors import TopoError
from topo.generators import generators
from topo.graph import LayeredGraph
from topo.masks import MaskSet
from topo.nulls import nulls
from topo.plots.axes import PALE
from topo.report import Report
from topo.wiring import Wiring, apart

# "METHOD:N", or masks (graphs, reports) drawn already, also by label. "none" is not a band, for the command line.
Null = str | Sequence[Any] | Mapping[str, Any] | None
# A 5 % quantile of fewer samples is hardly more than the least of them.
_QUANTILES_FROM = 20
_MOST = 10_000
# It rewires masks, and is not chance: it avoids what they keep, at half density there is one such mask, above it none.
_NO_CHANCE = ("invert",)


def wanted(null: Null) -> Null:
    """`null`, None for "none" and for an empty sequence."""
    return None if (isinstance(null, str) and null == "none") or not null else null


def sampled(null: str, masks: MaskSet, wiring: Wiring | None, rng: int | np.random.Generator) -> list[MaskSet]:
    """Masks that a method which rewires masks at random, or a null model of `topo.nulls`, makes of these.

    "shuffle:20" are twenty that `shuffle` drew, "same_rows:20" twenty with the same row sums. wiring: None takes each
    layer for itself, in one group.

    Raises TopoError for another method, a number below 1, and a null model without the wiring that it needs.
    """
    method, _, count = null.partition(":")
    known = [name for name, entry in generators.items() if entry.rewires and name not in _NO_CHANCE]
    if method not in (*known, *nulls) or not count.isdecimal() or not 1 <= int(count) <= _MOST:
        raise TopoError(
            f"null is '{null}'; it is METHOD:N, as in shuffle:20, with a method of {', '.join([*known, *nulls])}"
        )
    draws = own_rng(rng)
    if method in nulls:
        return [nulls[method](masks, draws, wiring) for _ in range(int(count))]
    net = wiring or apart(masks)
    return [generators[method](net, masks, rng=draws).with_provenance(method=method) for _ in range(int(count))]


def named(items: Iterable[Any], null: Null, labels: Sequence[str]) -> str:
    """What drew the samples, where all of them say the same: "shuffle", otherwise "null masks".

    labels: of the masks beside the band. Where these are several, it says whose null it is, "shuffle of erk": a method
    draws it from the first. Of masks that were given as a null nobody knows whose they are: "given shuffle masks".
    """
    found = set()
    for item in items:
        masks = item.masks if isinstance(item, LayeredGraph) else item
        found.add(None if isinstance(masks, Report) else masks.provenance.get("method"))
    method = found.pop() if len(found) == 1 else None
    if len(labels) > 1 and isinstance(null, str):
        return f"{method} of {labels[0]}"
    if len(labels) > 1:
        return f"given {method or 'null'} masks"
    return str(method) if method else "null masks"


def band(ax: Axes, x: Sequence[float], samples: np.ndarray, name: str) -> None:
    """Grey, from the 5 % to the 95 % quantile of samples (n, len(x)); of fewer than 20 from the least to the largest.

    Values that are not finite are left out of their place, and do not count there; a place without any has no band.
    """
    finite = np.where(np.isfinite(samples), samples, np.nan)
    counts = np.isfinite(finite).sum(axis=0)
    amount = counts >= _QUANTILES_FROM
    low, high = np.full((2, len(x)), np.nan)
    for places, ends in ((amount, (0.05, 0.95)), (~amount & (counts > 0), (0.0, 1.0))):
        if places.any():
            low[places], high[places] = np.nanquantile(finite[:, places], ends, axis=0)
    look: dict[str, Any] = {"color": PALE, "zorder": 0, "label": f"{name}: {_what(counts[counts > 0])}"}
    if len(x) == 1:
        ax.fill_between([x[0] - 0.2, x[0] + 0.2], low[[0, 0]], high[[0, 0]], linewidth=1.5, **look)
    else:
        ax.fill_between(x, low, high, linewidth=1.5, **look)


def _what(counts: np.ndarray) -> str:
    """What a band is of so many samples at its places, in words."""
    if not counts.size:
        return "no finite sample"
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one sample"
    number = f"{most}" if least == most else f"{least} to {most}"
    if most < _QUANTILES_FROM:
        return f"least to largest of {number} samples"
    rest = f", of under {_QUANTILES_FROM} least to largest" if least < _QUANTILES_FROM else ""
    return f"5 to 95 % of {number} samples{rest}"
