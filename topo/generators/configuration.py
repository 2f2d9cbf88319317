"""The configuration model: random simple graphs with the degrees of given masks."""

from __future__ import annotations

import numpy as np

from topo.generators import Drawn, generator
from topo.generators.rewiring import mixing, rewire
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring


@generator(source="Strona et al. 2014; Carstens et al. 2018", rewires=True)
def configuration(wiring: Wiring, masks: MaskSet, rng: np.random.Generator, *, trades: int = 0) -> Drawn:
    """Given masks rewired at random: every row sum and every column sum stays, by curveball trades.

    Rows are output units, columns are weights of one unit (input channel and kernel position); the groups of a grouped
    convolution are rewired each for itself. trades: rounds over all rows and all columns; 0 takes as many as a layer
    needs, measured (`topo.generators.rewiring.mixing`).
    """
    for name in masks:
        rows, groups = masks.rows(name), wiring.layer(name).groups
        words = rows.words.copy()
        rewire(words, rows.columns, groups, trades or mixing(rows, groups).rounds, rng)
        yield name, BitRows(rows.shape, words)
