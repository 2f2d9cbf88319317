"""Lattices on a ring: bands and small worlds.

The inputs of a layer stand on a ring of n places; output i of m stands at place i n / m.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import even, on_channels, packed
from topo.wiring import Wiring

# Distances held at a time.
_CHUNK = 1 << 20


def _distances(rows: int, columns: int) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, their distances to every column on the ring), so many rows at a time."""
    for start in range(0, rows, max(1, _CHUNK // columns)):
        stop = min(rows, start + max(1, _CHUNK // columns))
        away = np.abs(np.arange(columns) - np.arange(start, stop)[:, None] * (columns / rows))
        yield slice(start, stop), np.minimum(away, columns - away)


def _lowest(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """bool, of the keys' shape: the counts[i] lowest keys of row i."""
    found = np.zeros(keys.shape, np.bool_)
    np.put_along_axis(found, np.argsort(keys, axis=1), np.arange(keys.shape[1]) < counts[:, None], axis=1)
    return found


def band_graph(rows: int, columns: int, edges: int, delta: float, rng: np.random.Generator) -> np.ndarray:
    """Bit rows: row sums within 1; row i takes column j with weight (1 + distance)**-((1 - delta) / delta).

    Weighted sampling without replacement: the largest of log weight + Gumbel noise. delta 0 takes the nearest.
    """
    counts, words = even(edges, rows, rng), np.zeros((rows, -(-columns // 64)), np.uint64)
    for part, away in _distances(rows, columns):
        noise = rng.gumbel(size=away.shape)
        keys = (1 - delta) * np.log1p(away) - delta * noise if delta else away + 1e-9 * noise
        words[part] = packed(_lowest(keys, counts[part]))
    return words


def small_world_graph(rows: int, columns: int, edges: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Bit rows: row sums within 1; the nearest columns, each then moved to a random free one with chance beta."""
    counts, words = even(edges, rows, rng), np.zeros((rows, -(-columns // 64)), np.uint64)
    for part, away in _distances(rows, columns):
        near = _lowest(away + 1e-9 * rng.random(away.shape), counts[part])
        moved = np.minimum(rng.binomial(counts[part], beta), columns - counts[part])
        order = rng.random(away.shape)
        words[part] = packed((near & ~_lowest(order + ~near, moved)) | _lowest(order + near, moved))
    return words


def _fraction(method: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise TopoError(f"option '{name}' of method '{method}' holds {value:g}; it is a number from 0 to 1")


@generator(source="CHTs, Zhang et al. 2025, BRF")
def band(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, delta: float = 0.1) -> Drawn:
    """Receptive fields on a ring: chance falls as (1 + distance)**-(1 - delta) / delta; delta 0 band, 1 random."""
    _fraction("band", "delta", delta)
    for layer, budget in requested(wiring, budgets):
        yield layer.name, on_channels(layer, budget, lambda r, c, e: band_graph(r, c, e, delta, rng), rng)


@generator(source="CHTs, Zhang et al. 2025, BSW; Watts & Strogatz 1998")
def smallworld(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, beta: float = 0.1) -> Drawn:
    """Small world on a ring: each channel reads its nearest, then each edge is rewired with chance beta."""
    _fraction("smallworld", "beta", beta)
    for layer, budget in requested(wiring, budgets):
        yield layer.name, on_channels(layer, budget, lambda r, c, e: small_world_graph(r, c, e, beta, rng), rng)
