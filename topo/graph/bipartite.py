"""The bipartite graph of a single layer, in its view: left units feed right units (its outputs), a row for each right.

kernel   a left unit is a column of the weight matrix, (input channel, kernel position).
channel  a left unit is an input channel; a kernel is as many parallel edges as it keeps weights.
unit     the same without multiplicities.

Convolutions with groups are block-diagonal: each group has its own left units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topo.graph.graph import Block
from topo.masks import BitRows, column_counts, kernel_counts, transposed


@dataclass(frozen=True, eq=False)
class Bipartite:
    """words: uint64 (right, w) bit rows, a bit for each joined pair. left: how many columns they have.

    values: None if every edge counts once, otherwise float (right, left), not negative and 0 exactly where no bit is
    set. integer: they are multiplicities; otherwise weights.
    """

    words: np.ndarray
    left: int
    values: np.ndarray | None = None
    integer: bool = True

    def __post_init__(self) -> None:
        words = self.words.view()
        words.flags.writeable = False  # as a mask's own rows are, so that each kernel compiles once
        object.__setattr__(self, "words", words)

    @property
    def right(self) -> int:
        """How many right units there are, isolated ones too."""
        return len(self.words)

    @cached_property
    def right_degrees(self) -> np.ndarray:
        """int64 (right,): edges at each right unit, with multiplicities."""
        if self.values is not None and self.integer:
            return self.values.sum(axis=1, dtype=np.int64)
        return np.bitwise_count(self.words).sum(axis=1, dtype=np.int64)

    @cached_property
    def left_degrees(self) -> np.ndarray:
        """int64 (left,): edges at each left unit, with multiplicities."""
        if self.values is not None and self.integer:
            return self.values.sum(axis=0, dtype=np.int64)
        return column_counts(self.words)[: self.left]

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """indptr (right + 1,) and indices (edges,): the left units of each right one, of a graph without values."""
        from topo.kernels.spectrum import to_csr

        indptr = np.concatenate([[0], np.cumsum(self.right_degrees)])
        indices = np.empty(indptr[-1], np.int32)
        to_csr(self.words, indptr, indices)
        return indptr, indices

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 (left + 1,): degrees of the left units summed up."""
        return np.concatenate([[0], np.cumsum(self.left_degrees)])

    @cached_property
    def turned(self) -> Bipartite:
        """Left and right exchanged."""
        words = transposed(self.words, self.left)
        values = None if self.values is None else np.ascontiguousarray(self.values.T)
        return Bipartite(words, self.right, values, self.integer)

    def only_right(self, units: np.ndarray) -> Bipartite:
        """The graph of these right units and all left ones."""
        values = None if self.values is None else self.values[units]
        return Bipartite(self.words[units], self.left, values, self.integer)


def of_block(block: Block) -> Bipartite:
    """The bipartite graph of a layer in the view of single layers."""
    if block.layer_view == "kernel" or block.kernel_size == 1:
        return Bipartite(*_spread_bits(block.rows.words, block.rows.columns, block.groups))
    counts = kernel_counts(block.rows.words, block.rows.columns, block.kernel_size)
    words, left = _spread_bits(BitRows.of_mask(counts != 0).words, block.shape[1], block.groups)
    if block.layer_view == "unit":
        return Bipartite(words, left)
    return Bipartite(words, left, _spread(counts.astype(np.float32), block.groups))


def weighted(block: Block, weights: np.ndarray) -> Bipartite:
    """The same graph with |w| on its edges; in the channel and unit views the |w| of a kernel are added up.

    Kept weights that are 0 are not edges. weights: of the block's shape.
    """
    kept = np.where(block.rows.unpack(), np.abs(weights), 0).reshape(block.shape[0], -1)
    if block.layer_view != "kernel":
        kept = kept.reshape(*block.shape[:2], -1).sum(axis=2, dtype=np.float64)
    values = _spread(kept, block.groups)
    return Bipartite(BitRows.of_weights(values, block.name).words, values.shape[1], values, integer=False)


def _spread_bits(words: np.ndarray, columns: int, groups: int) -> tuple[np.ndarray, int]:
    """As `_spread`, for bit rows of `columns` columns: (bit rows, groups * columns)."""
    if groups == 1:
        return words, columns
    from topo.kernels.spectrum import spread_groups

    spread = np.zeros((len(words), -(-columns * groups // 64)), np.uint64)
    spread_groups(words, len(words) // groups, columns, spread)
    return spread, columns * groups


def _spread(matrix: np.ndarray, groups: int) -> np.ndarray:
    """(rows, c) -> (rows, groups * c): the rows of group g in its own columns."""
    if groups == 1:
        return matrix
    rows, columns = matrix.shape
    spread = np.zeros((groups, rows // groups, groups, columns), matrix.dtype)
    place = np.arange(groups)
    spread[place, :, place] = matrix.reshape(groups, -1, columns)
    return spread.reshape(rows, groups * columns)
