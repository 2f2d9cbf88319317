"""Random biregular graphs: every output reads equally many inputs, every input is read equally often."""

from __future__ import annotations

import numpy as np

from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import even, on_channels
from topo.generators.choice import inverted
from topo.kernels.biregular import deal
from topo.kernels.rewire import trade
from topo.wiring import Wiring


def biregular_graph(rows: int, columns: int, edges: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Bit rows of a random simple graph: row sums within 1 of each other, column sums within 1 of each other.

    Dealt from shuffled decks of columns, then traded `rounds` times over all rows, towards the uniform distribution
    over the graphs with these row and column sums. Of a graph with over half of all edges, the complement is drawn.
    """
    few = min(edges, rows * columns - edges)
    words = np.zeros((rows, -(-columns // 64)), np.uint64)
    deal(even(few, rows, rng), 1, columns, columns, True, rng, words)
    trade(words, rounds, rng)
    return words if few == edges else inverted(words, columns)


@generator(source="Carstens et al. 2018 (curveball trades)")
def biregular(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, trades: int = 10) -> Drawn:
    """Random biregular graphs between channels: row and column sums within 1, mixed by curveball trades.

    trades: rounds over all rows. The start is random too, so that few are needed; never Havel-Hakimi, which joins the
    units of high degree first and builds disjoint bicliques of spectral gap 0.
    """

    def draw(rows: int, columns: int, edges: int) -> np.ndarray:
        return biregular_graph(rows, columns, edges, trades, rng)

    for layer, budget in requested(wiring, budgets):
        yield layer.name, on_channels(layer, budget, draw, rng)
