"""Random regular expanders, in one piece."""

from __future__ import annotations

import numpy as np

from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.biregular import biregular_graph
from topo.generators.channels import on_channels
from topo.kernels.components import components
from topo.wiring import Wiring

# Switches tried before a graph is left in pieces: a few are enough unless there are hardly more edges than in a tree.
_ATTEMPTS = 1000


def expander_graph(rows: int, columns: int, edges: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Bit rows of a random simple graph, degrees within 1 on both sides; in one piece with rows + columns - 1 edges.

    Decks alone would not do: rows that share a deck share no column, which raises the second singular value (measured,
    n = 60, d = 15: 6.81 as dealt, 6.41 after trades, 6.41 by a long chain of switches).
    """
    words = biregular_graph(rows, columns, edges, rounds, rng)
    if edges >= rows + columns - 1:
        _join(words, rng)
    return words


def _join(words: np.ndarray, rng: np.random.Generator) -> None:
    """Join all components by switches (a-b, c-d) -> (a-d, c-b) across two of them; degrees stay.

    Such a switch joins them unless both edges are bridges; with as many edges as a tree has, not all are.
    """
    labels, after = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
    for _ in range(_ATTEMPTS):
        count = components(words, labels)
        if count == 1:
            return
        a, c = rng.choice(np.flatnonzero(labels == 0)), rng.choice(np.flatnonzero(labels > 0))
        b, d = _edge(words[a], rng), _edge(words[c], rng)
        _switch(words, a, b, c, d)
        if components(words, after) >= count:
            _switch(words, a, d, c, b)


def _edge(row: np.ndarray, rng: np.random.Generator) -> int:
    """A random set bit."""
    return int(rng.choice(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))))


def _switch(words: np.ndarray, a: int, b: int, c: int, d: int) -> None:
    for row, column in ((a, b), (a, d), (c, b), (c, d)):
        words[row, column >> 6] ^= np.uint64(1 << (column & 63))


@generator(source="Stewart et al. 2023; Friedman 2008")
def expander(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, trades: int = 10) -> Drawn:
    """Random r-regular graphs between channels, r from the budget, joined into one component.

    As `biregular`, but connected for certain where a layer (of each group) keeps rows + columns - 1 pairs of channels
    or more; with less no graph is. Random regular graphs are nearly Ramanujan, as unions of r random permutations are.
    """
    for layer, budget in requested(wiring, budgets):
        yield layer.name, on_channels(layer, budget, lambda r, c, e: expander_graph(r, c, e, trades, rng), rng)
