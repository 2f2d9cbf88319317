"""The configuration model: random simple graphs with the degrees of given masks."""

from __future__ import annotations

import numpy as np

from topo.generators import Drawn, generator
from topo.kernels.rewire import trade
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring


@generator(source="Strona et al. 2014; Carstens et al. 2018", rewires=True)
def configuration(wiring: Wiring, masks: MaskSet, rng: np.random.Generator, *, trades: int = 20) -> Drawn:
    """Given masks rewired at random: every row sum and every column sum stays, by curveball trades.

    Rows are output units, columns are weights of one unit (input channel and kernel position); the groups of a grouped
    convolution are rewired each for itself. trades: rounds over all rows; the overlap with the given masks beyond
    chance halves with each, so that 20 leave a millionth.
    """
    for name in masks:
        words = masks.rows(name).words.copy()
        for group in np.split(words, wiring.layer(name).groups):
            trade(group, trades, rng)
        yield name, BitRows(masks.rows(name).shape, words)
