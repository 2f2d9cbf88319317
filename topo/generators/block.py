"""Random blocks: rectangles of the weight matrix are kept whole or pruned whole."""

from __future__ import annotations

import re

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import packed
from topo.masks import BitRows
from topo.wiring import Layer, Wiring


def _sides(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}", text):
        raise TopoError(f"option 'block' of method 'block' holds '{text}'; it is HEIGHTxWIDTH, as in 4x4")
    height, width = map(int, text.split("x"))
    return height, width


def _lengths(total: int, side: int) -> np.ndarray:
    """`total` cut into pieces of `side`; the last is what is left."""
    return np.minimum(side, total - np.arange(0, total, side))


def block_rows(layer: Layer, budget: int, height: int, width: int, rng: np.random.Generator) -> BitRows:
    """The layer as a matrix (out, in * kernel_size), blocks kept in random order until they hold the budget.

    The last one is cut to a random part of itself, so that the budget is exact.
    """
    down, across = _lengths(layer.outputs, height), _lengths(layer.size // layer.outputs, width)
    sizes = np.outer(down, across).reshape(-1)
    order = rng.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    kept = np.zeros(len(sizes), np.bool_)
    kept[order[before < budget]] = True
    matrix = kept.reshape(len(down), -1).repeat(down, axis=0).repeat(across, axis=1)
    if budget:
        last = order[before < budget][-1]
        row, column = divmod(int(last), len(across))
        part = matrix[row * height : (row + 1) * height, column * width : (column + 1) * width]
        over = int(sizes[kept].sum()) - budget
        part[np.unravel_index(rng.permutation(part.size)[:over], part.shape)] = False
    return BitRows(layer.shape, packed(matrix))


@generator(source="definition")
def block(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, block: str = "4x4") -> Drawn:
    """Random blocks of the matrix (out, in x kernel), kept whole; one block a layer is cut to meet the budget.

    Blocks at the lower and right edge are smaller where the sides do not divide the matrix.
    """
    height, width = _sides(block)
    for layer, budget in requested(wiring, budgets):
        yield layer.name, block_rows(layer, budget, height, width, rng)
