"""Numbers each once. numpy.unique hashes since numpy 2.3, which took a minute for the ten million units of a layer."""

from __future__ import annotations

import numpy as np


def distinct(numbers: np.ndarray) -> np.ndarray:
    """A vector's numbers in order, each once; the vector itself, not a copy, where it is so already.

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    if bool((numbers[1:] > numbers[:-1]).all()):
        return numbers
    ordered = np.sort(numbers, axis=None)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
