"""The inverted mask: an ablation that goes as far from a mask as its layer densities let it.

With the scores at hand, keeping the lowest (`-O invert=true` of a scoring method) is the same question asked of them.
"""

from __future__ import annotations

import numpy as np

from topo.errors import MaskError
from topo.generators import Drawn, generator
from topo.generators.choice import choose
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring


@generator(source="Frankle et al. 2021", rewires=True)
def invert(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """As many parameters in every layer as given masks keep, drawn from those that they do not keep."""
    for name in masks:
        rows = masks.rows(name)
        free, count = np.flatnonzero(~rows.unpack()), rows.kept()
        if count > len(free):
            raise MaskError(f"layer '{name}' keeps {count} of {rows.size} parameters; only {len(free)} others are left")
        drawn = choose((1, len(free)), count, rng).unpack()[0] if count else np.zeros(len(free), bool)
        mask = np.zeros(rows.size, bool)
        mask[free[drawn]] = True
        yield name, BitRows.of_mask(mask.reshape(rows.shape))
