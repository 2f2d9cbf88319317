"""Graphs of fixed degrees whose second singular value is turned up: edges are drawn into clusters."""

from __future__ import annotations

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.biregular import biregular_graph
from topo.generators.channels import on_channels
from topo.kernels.rewire import gather
from topo.masks import BitRows
from topo.wiring import Wiring

_MOST = 1_000_000


@generator(source="definition; Hoory et al. 2006, section 2 (few edges between clusters, large sigma2)")
def clustered(
    wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, excess: float = 0.5, clusters: int = 2
) -> Drawn:
    """Biregular graphs with edges drawn into random clusters at fixed degrees: a knob on sigma2.

    Each layer starts as `biregular` makes it; its units are shared out to clusters, those of each side at random and of
    equal size. Pairs of edges between clusters then swap ends, which leaves every row sum and every column sum as it
    is, until as many edges lie within clusters as chance leaves there and `excess` of the others; at 1 as many as swaps
    reach. Masks of one seed have the same degrees and kept counts at every `excess`. Two clusters bring a singular
    value of about `excess` sigma1, which is the second one once it is above what the random graph has anyway.
    """
    if not 0 <= excess <= 1 or not 2 <= clusters <= _MOST:
        raise TopoError(f"excess is {excess}, clusters {clusters}; one is from 0 to 1, the other from 2 to {_MOST:,}")
    asked = list(requested(wiring, budgets))
    for (layer, budget), own in zip(asked, rng.spawn(len(asked))):

        def draw(rows: int, columns: int, edges: int, own: np.random.Generator = own) -> np.ndarray:
            return biregular_graph(rows, columns, edges, 10, own)

        words = on_channels(layer, budget, draw, own).words.copy()
        for group in np.split(words, layer.groups):
            of_row = own.permutation(np.arange(len(group)) % clusters)
            of_column = np.repeat(own.permutation(np.arange(layer.shape[1]) % clusters), layer.kernel_size)
            gather(group, of_row, of_column, excess, own)
        yield layer.name, BitRows(layer.shape, words)
