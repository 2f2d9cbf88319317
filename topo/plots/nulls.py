"""Null bands: what a number would be for masks drawn at random from those that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.generators import generators
from topo.graph import LayeredGraph
from topo.masks import MaskSet
from topo.plots.furniture import PALE
from topo.report import Report
from topo.wiring import Layer, Wiring

# "METHOD:N", or masks (graphs, reports) drawn already, also by label. "none" is no band, for the command line.
Null = str | Sequence[Any] | Mapping[str, Any] | None
# A 5 % quantile of fewer samples is hardly more than the least of them.
_QUANTILES_FROM = 20
_MOST = 10_000


def wanted(null: Null) -> Null:
    """`null`, None for "none" and for an empty sequence."""
    return None if (isinstance(null, str) and null == "none") or not null else null


def sampled(null: str, masks: MaskSet, wiring: Wiring | None, rng: int | np.random.Generator) -> list[MaskSet]:
    """Masks that a method which rewires masks makes of these: "shuffle:20" are twenty that `shuffle` drew.

    wiring: None takes each layer for itself, in one group.

    Raises TopoError for another method and a number below 1.
    """
    method, _, count = null.partition(":")
    known = [name for name, entry in generators.items() if entry.rewires]
    if method not in known or not count.isdecimal() or not 1 <= int(count) <= _MOST:
        raise TopoError(f"null is '{null}'; it is METHOD:N, as in shuffle:20, with a method of {', '.join(known)}")
    net, draws = wiring or apart(masks), np.random.default_rng(rng)
    return [generators[method](net, masks, rng=draws).with_provenance(method=method) for _ in range(int(count))]


def apart(masks: MaskSet, groups: Mapping[str, int] | None = None) -> Wiring:
    """A wiring in which no layer feeds another. groups: of convolutions, 1 where not given."""
    layers, ends, start = [], [], 0
    for name in masks:
        shape, split = masks.rows(name).shape, (groups or {}).get(name, 1)
        reads = np.arange(start, start + shape[1] * split)
        kind = "linear" if len(shape) == 2 else "conv"
        layers.append((name, shape, reads, kind, split))
        start += len(reads)
    steps = []
    for name, shape, reads, kind, split in layers:
        steps.append(Layer(name, shape, reads, start, kind, split))
        ends.append(np.arange(start, start + shape[0]))
        start += shape[0]
    return Wiring(np.concatenate([entry[2] for entry in layers]), tuple(steps), np.concatenate(ends))


def named(items: Iterable[Any]) -> str:
    """What drew the samples, where all of them say the same: "shuffle", otherwise "null masks"."""
    found = set()
    for item in items:
        masks = item.masks if isinstance(item, LayeredGraph) else item
        found.add(None if isinstance(masks, Report) else masks.provenance.get("method"))
    method = found.pop() if len(found) == 1 else None
    return str(method) if method else "null masks"


def band(ax: Axes, x: Sequence[float], samples: np.ndarray, name: str) -> None:
    """Grey, from the 5 % to the 95 % quantile of samples (n, len(x)); of fewer than 20 from the least to the largest.

    Values that are not finite are left out of their place; a place without any has no band.
    """
    finite = np.where(np.isfinite(samples), samples, np.nan)
    known = np.isfinite(finite).any(axis=0)
    ends = (0.05, 0.95) if len(samples) >= _QUANTILES_FROM else (0.0, 1.0)
    low, high = np.full((2, len(x)), np.nan)
    if known.any():
        low[known], high[known] = np.nanquantile(finite[:, known], ends, axis=0)
    what = "5 to 95 %" if ends[0] else "least to largest"
    look: dict[str, Any] = {"color": PALE, "zorder": 0, "label": f"{name}: {what} of {len(samples)} samples"}
    if len(samples) == 1:
        look["label"] = f"{name}: one sample"
    if len(x) == 1:
        ax.fill_between([x[0] - 0.2, x[0] + 0.2], low[[0, 0]], high[[0, 0]], linewidth=1.5, **look)
    else:
        ax.fill_between(x, low, high, linewidth=1.5, **look)
