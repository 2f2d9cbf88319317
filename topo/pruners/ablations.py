"""What of a mask matters? Ablations of Frankle et al. 2021 on any mask.

Shuffling within layers is the generator `shuffle`, drawing the weights anew is `reinitialise`, and keeping the lowest
scores is `prune(..., invert=True)`. Where the scores are not known, `invert` below goes as far from a mask as it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from topo.errors import MaskError
from topo.masks import MaskSet, as_mask_set


def invert(masks: Any, *, rng: int | np.random.Generator = 0) -> MaskSet:
    """As many parameters in every layer, drawn from those that the mask does not keep.

    Raises MaskError for a layer of which more than half is kept.
    """
    given, draw = as_mask_set(masks), np.random.default_rng(rng)
    found = {}
    for name in given:
        mask = given[name].reshape(-1)
        free, count = np.flatnonzero(~mask), int(mask.sum())
        if count > len(free):
            raise MaskError(f"layer '{name}' keeps {count} of {mask.size} parameters; only {len(free)} others are left")
        flags = np.zeros(mask.size, bool)
        flags[draw.choice(free, count, replace=False)] = True
        found[name] = flags.reshape(given.rows(name).shape)
    return MaskSet(found, provenance={**given.provenance, "inverted": True})
