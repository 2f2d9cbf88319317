"""What a page draws of a network: dots of units, layer by layer, the lines between them, and who carries the paths.

Plain numbers that JSON holds. A dot is a unit, as long as the lines of all units are few enough; in larger networks
the units of a layer with most paths have dots of their own, its other live units share one, and its dead units one.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np

from topo.graph import paths
from topo.graph.columns import Columns, Link
from topo.graph.graph import build_graph
from topo.masks import MaskSet
from topo.wiring import Wiring

MOST_LINES = 20_000
MOST_DOTS = 3_000
# Per cent of a layer's paths: the fewest units that carry so much are told.
STOPS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.9, 100)
_LEVELS = 9
# How many dots a layer may have: the first that gives few enough.
_LADDER = (512, 256, 192, 128, 96, 64, 48, 32, 24, 20, 16, 12, 10, 8, 6, 5, 4, 3, 2, 1)


def drawing(masks: MaskSet, wiring: Wiring, view: str | None = None, most_lines: int = MOST_LINES) -> dict[str, Any]:
    """The network as a page draws it.

    view: "channel" or "unit"; of another one the channel view is drawn. Keys: "view"; "stops", per cent; "columns",
    dicts {"name", "depth", "units", "live", "by_skip": live units that no effective weight of a layer reaches,
    "fewest": the fewest units that carry each stop's share of the column's paths}; "dots", lists [column, first unit or
    -1 for several, units, live units, share of all paths, fan-in and fan-out of kept kernels, live units by the skip
    alone]; "links", dicts {"layer" (None for identities), "from", "to": columns, "lines": [dot, dot, level, ...]},
    level 1 to 9 by the share of the link's paths, 0 for kernels on no path.

    >>> masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    >>> found = drawing(masks, topo.chain(masks))
    >>> [(column["name"], column["live"]) for column in found["columns"]], found["dots"][0][4]
    ([('input', 2), ('a', 2), ('b', 1)], 0.6667)

    Raises WiringError if masks and wiring do not fit.
    """
    graph = build_graph(masks, wiring, view if view == "unit" else "channel")
    columns = Columns(graph)
    share = np.append(np.nan_to_num(paths.unit_centrality(graph)), [0.0, 0.0])
    placed = _dots(columns, share, most_lines)
    return {
        "view": graph.view,
        "stops": list(STOPS),
        "columns": [
            {"name": columns.names[c], "depth": columns.depth[c], "units": len(columns.units[c]),
             "live": int(columns.alive[columns.units[c]].sum()),
             "by_skip": int(columns.by_skip[columns.units[c]].sum()),
             "fewest": fewest(share[columns.units[c]], int(columns.alive[columns.units[c]].sum()))}
            for c in columns.order
        ],
        "dots": _told(columns, share, placed),
        "links": [_lines(columns, link, share, placed) for link in columns.links],
    }  # fmt: skip


def fewest(shares: np.ndarray, live: int) -> list[int]:
    """The fewest units that carry each stop's share of the sum; all live ones carry 100 %, however little some do.

    >>> fewest(np.array([0.1, 0.6, 0.3, 0.0]), 3)[-4:]
    [3, 3, 3, 3]
    """
    running = np.cumsum(np.sort(shares)[::-1])
    if not len(running) or running[-1] <= 0:
        return [0] * (len(STOPS) - 1) + [live]
    wanted = np.array(STOPS[:-1]) / 100 * running[-1] * (1 - 1e-12)
    return [int(n) + 1 for n in np.searchsorted(running, wanted)] + [live]


def _dots(columns: Columns, share: np.ndarray, most_lines: int) -> np.ndarray:
    """The dot of each unit that is drawn, numbered column by column, units with most paths first; -1 of others."""
    ranked = [
        units[np.lexsort((np.arange(len(units)), -share[units], ~columns.alive[units]))]
        for units in (columns.units[c] for c in columns.order)
    ]
    live = [int(columns.alive[units].sum()) for units in ranked]

    def placed(most: int) -> np.ndarray:
        found, first = np.full(len(columns.drawn), -1), 0
        for units, count in zip(ranked, live):
            places = np.arange(len(units))
            if len(units) > most:
                places = np.where(places < count, np.minimum(places, most - 1), min(count, most))
            found[units] = first + places
            first += int(places.max(initial=-1)) + 1
        return found

    def too_many(most: int) -> bool:
        found = placed(most)
        if found.max() >= MOST_DOTS:
            return True
        lines = 0
        for link in columns.links:
            lines += len(np.unique(_pairs(link, found)))
            if lines > most_lines:
                return True
        return False

    widest = max(map(len, ranked))
    ladder = [widest, *(n for n in _LADDER if n < widest)]
    return placed(ladder[min(bisect_left(ladder, True, key=lambda most: not too_many(most)), len(ladder) - 1)])


def _pairs(link: Link, placed: np.ndarray) -> np.ndarray:
    return placed[link.source].astype(np.int64) << 32 | placed[link.target]


def _told(columns: Columns, share: np.ndarray, placed: np.ndarray) -> list[list[Any]]:
    count = int(placed.max()) + 1
    into, out = np.zeros(len(placed), np.int64), np.zeros(len(placed), np.int64)
    for link in columns.links:
        if link.layer is not None:
            into += np.bincount(link.target, minlength=len(into))
            out += np.bincount(link.source, minlength=len(out))
    told: list[list[Any]] = [[] for _ in range(count)]
    for place, column in enumerate(columns.order):
        units = columns.units[column]
        of_unit = placed[units]
        for dot in np.unique(of_unit).tolist():
            inside = np.flatnonzero(of_unit == dot)
            those = units[inside]
            first = int(inside[0]) if len(inside) == 1 else -1
            sums = int(columns.alive[those].sum()), _brief(float(share[those].sum()))
            degrees = int(into[those].sum()), int(out[those].sum())
            told[dot] = [place, first, len(inside), *sums, *degrees, int(columns.by_skip[those].sum())]
    return told


def _brief(share: float) -> float:
    """Four digits, and 1 for all paths alone."""
    rounded = float(f"{share:.4g}")
    return min(rounded, 0.9999) if share < 1 - 1e-9 else rounded


def _lines(columns: Columns, link: Link, share: np.ndarray, placed: np.ndarray) -> dict[str, Any]:
    """One line for all edges between two dots; it is on a path if one of them is."""
    good = columns.effective(link)
    # how much of the paths may run along a line: the lesser of its ends' shares. Only the ink of a line depends on it.
    amount = np.where(good, np.maximum(np.minimum(share[link.source], share[link.target]), 1e-300), 0.0)
    keys, which = np.unique(_pairs(link, placed), return_inverse=True)
    sums = np.bincount(which, amount, len(keys))
    level = np.ceil(_LEVELS * np.sqrt(sums / max(float(sums.max(initial=0)), 1e-300))).astype(int)
    lines = np.column_stack([keys >> 32, keys & 0xFFFFFFFF, level])
    a, b = (columns.order.index(int(c)) for c in columns.column_of(np.array([link.source[0], link.target[0]])))
    return {"layer": link.layer, "from": a, "to": b, "lines": lines.reshape(-1).tolist()}
