"""X-Nets: graphs that are regular on one side."""

from __future__ import annotations

import numpy as np

from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import even, on_channels, packed, unpacked
from topo.kernels.biregular import deal
from topo.wiring import Wiring


def picked_graph(rows: int, columns: int, edges: int, rng: np.random.Generator) -> np.ndarray:
    """Bit rows: each unit of the smaller side picks its partners on the other, uniformly; their numbers differ by 1."""
    small, large = min(rows, columns), max(rows, columns)
    words = np.zeros((small, -(-large // 64)), np.uint64)
    deal(even(edges, small, rng), 1, large, large, False, rng, words)
    return words if rows <= columns else packed(unpacked(words, large).T)


@generator(source="Prabhu et al. 2018, X-Net")
def xnet(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Each channel on the smaller side picks equally many distinct partners on the other, at random."""
    for layer, budget in requested(wiring, budgets):
        yield layer.name, on_channels(layer, budget, lambda r, c, e: picked_graph(r, c, e, rng), rng)
