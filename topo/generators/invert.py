"""The inverted mask: an ablation that goes as far from a mask as its layer densities let it.

With the scores at hand, keeping the lowest (`-O invert=true` of a scoring method) is the same question asked of them.
"""

from __future__ import annotations

import numpy as np

from topo.generators import Drawn, generator
from topo.generators.choice import choose
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring


@generator(source="Frankle et al. 2021", rewires=True)
def invert(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """As many parameters in every layer as given masks keep, and as few of the same as can be.

    They are drawn from those that the masks do not keep. Where a mask keeps k of n parameters and k is over n / 2, all
    of the others are kept, and 2k - n of its own are drawn: the least overlap that there is.
    """
    for name in masks:
        rows = masks.rows(name)
        kept = rows.unpack().reshape(-1)
        count, left = rows.kept(), rows.size - rows.kept()
        mask = ~kept if count > left else np.zeros(rows.size, bool)
        pool = np.flatnonzero(kept if count > left else ~kept)
        more = count - int(mask.sum())
        if more:
            mask[pool[choose((1, len(pool)), more, rng).unpack()[0]]] = True
        yield name, BitRows.of_mask(mask.reshape(rows.shape))
