"""What draws at random: a seed or a numpy Generator, as the user gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo.errors import TopoError


def as_rng(rng: int | np.random.Generator) -> np.random.Generator:
    """A numpy Generator from a seed; a Generator as it is.

    >>> int(as_rng(3).integers(9)) == int(np.random.default_rng(3).integers(9))
    True

    Raises TopoError for what is not a whole number of 0 or more.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(_seed(rng))


def own_rng(rng: int | np.random.Generator) -> np.random.Generator:
    """As `as_rng`, but a seed gives a stream that no `as_rng` of it gives: what is drawn is not what it drew before."""
    return rng if isinstance(rng, np.random.Generator) else as_rng(rng).spawn(1)[0]


def _seed(rng: Any) -> int:
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer) or rng < 0:
        raise TopoError(f"rng is {rng!r}; it is a seed, a whole number of 0 or more, or a numpy Generator")
    return int(rng)
