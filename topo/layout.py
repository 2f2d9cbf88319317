"""Masks are output-first, parameters are not always: the one way to turn axes, with the groups of convolutions."""

from __future__ import annotations

import numpy as np

from topo.errors import MaskError


def output_first_shape(shape: tuple[int, ...], groups: int = 1) -> tuple[int, ...]:
    """(in, out / groups, ...) -> (out, in / groups, ...); MaskError if the groups do not divide the inputs.

    >>> output_first_shape((4, 3, 5, 5), groups=2)
    (6, 2, 5, 5)
    """
    inputs, outputs, *rest = shape
    if inputs % groups:
        raise MaskError(f"a parameter of shape {shape} takes {inputs} inputs, which {groups} groups do not divide")
    return (outputs * groups, inputs // groups, *rest)


def output_first(array: np.ndarray, groups: int = 1) -> np.ndarray:
    """An array of shape (in, out / groups, ...), laid out as (out, in / groups, ...), group by group.

    >>> output_first(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[1, 4], [2, 5], [3, 6]]
    """
    shape = output_first_shape(array.shape, groups)
    if groups == 1:
        return array.swapaxes(0, 1)
    inputs, outputs, *rest = array.shape
    return array.reshape(groups, inputs // groups, outputs, *rest).swapaxes(1, 2).reshape(shape)


def input_first(array: np.ndarray, groups: int = 1) -> np.ndarray:
    """The way back: an array of shape (out, in / groups, ...), laid out as (in, out / groups, ...).

    >>> input_first(output_first(np.arange(12).reshape(4, 3), groups=2), groups=2).tolist()
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    """
    return output_first(array, groups)  # within a group both exchange the two axes
