"""What is counted of a weight matrix in one pass over its bytes, without keeping a mask: kept weights by row and
column, N:M groups, blocks, and odd numbers. Pages of a mapped file are given back as the pass goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from math import prod

import numpy as np

from topo._support.threads import over
from topo.containers.number_types import odd_numbers, packed
from topo.containers.pages import release
from topo.containers.tensors import Tensor
from topo.errors import MaskError
from topo.masks import BitRows
from topo.n_m import kept_in_groups

# Parameters that one thread takes at a time, and of them those whose bits stay in the processor's cache.
_TASK, _CACHED = 1 << 23, 1 << 20
_BY_KERNEL = frozenset({2, 4, 8, 16, 32, 64})  # lengths of N:M groups that lie within a word
BLOCK_SIDE = 4


@dataclass(frozen=True, eq=False)
class Counts:
    """What one pass found in a tensor of shape (out, ...), seen as a matrix (out, columns).

    rows: int64 (out,), kept weights of each row. columns: int64 (columns,). over: (n, m) -> groups of m consecutive
    inputs that keep more than n. blocks: 4 x 4 blocks with a kept weight. minus_zeros, denormals, infinite, nan: how
    many there are; a NaN and an infinite number count as kept, -0.0 does not.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: np.ndarray
    columns: np.ndarray
    over: Mapping[tuple[int, int], int]
    blocks: int
    minus_zeros: int = 0
    denormals: int = 0
    infinite: int = 0
    nan: int = 0

    @property
    def size(self) -> int:
        """Number of parameters, kept or not."""
        return prod(self.shape)

    @cached_property
    def kept(self) -> int:
        """Number of kept parameters."""
        return int(self.rows.sum())

    @property
    def density(self) -> float:
        """kept / size."""
        return self.kept / self.size

    @cached_property
    def dead_rows(self) -> int:
        """Rows without a kept weight."""
        return int(np.count_nonzero(self.rows == 0))

    @cached_property
    def dead_columns(self) -> int:
        """Columns without a kept weight."""
        return int(np.count_nonzero(self.columns == 0))

    def groups(self, m: int) -> int:
        """How many groups of m consecutive inputs there are; a last one may be shorter."""
        return self.shape[0] * -(-self.shape[1] // m) * (len(self.columns) // self.shape[1])

    @property
    def block_occupancy(self) -> float:
        """Share of the 4 x 4 blocks that hold a kept weight; incomplete ones at the edges count."""
        return self.blocks / (-(-self.shape[0] // BLOCK_SIDE) * -(-len(self.columns) // BLOCK_SIDE))


def count(
    tensor: Tensor,
    patterns: Sequence[tuple[int, int]] = ((2, 4),),
    threads: int | None = 1,
    advance: Callable[[int], None] | None = None,
    bits: np.ndarray | None = None,
) -> Counts:
    """Count what is not 0 in a tensor of two or more dimensions, whatever its type, in one pass.

    patterns: N:M patterns to look at. threads: over blocks of rows; the counts do not depend on their number. advance:
    called with the bytes of each part that is done, from one thread at a time. bits: uint64 (out, words), which become
    the bit rows of what is not 0.

    >>> found = count(Tensor.of(np.array([[0.5, 0.0, -0.0, 2.0], [0, 0, 0, 1]], np.float32)))
    >>> found.rows.tolist(), found.columns.tolist(), found.over, found.minus_zeros
    ([2, 1], [1, 0, 0, 2], {(2, 4): 0}, 1)

    Raises MaskError for values that are not numbers and for fewer than two dimensions.
    """
    if not tensor.is_number:
        raise MaskError(f"values of type {tensor.dtype} are not counted")
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise MaskError(f"a tensor of shape {tensor.shape} is not a matrix of weights")
    columns = prod(tensor.shape[1:])
    step = max(1, _TASK // columns // 64) * 64
    rows = np.empty(tensor.shape[0], np.int64)
    total = np.zeros(columns, np.int64)
    over_counts, tally, blocks, done = dict.fromkeys(patterns, 0), np.zeros(4, np.int64), 0, 0
    parts = _with_places(_even(tensor.rows(step)))
    task = partial(_part, tensor=tensor, patterns=tuple(patterns), kept=bits)
    while several := list(islice(parts, 4)):
        for found in over(task, several, threads):
            rows[done : done + len(found.rows)] = found.rows
            total += found.columns
            blocks += found.blocks
            tally += found.tally
            for pattern, number in found.over.items():
                over_counts[pattern] += number
            done += len(found.rows)
            if advance:
                advance(found.bytes)
    return Counts(tensor.shape, tensor.dtype, rows, total, over_counts, blocks, **odd_numbers(tensor.dtype, tally))


@dataclass(frozen=True, eq=False)
class _Part:
    rows: np.ndarray
    columns: np.ndarray
    over: dict[tuple[int, int], int]
    blocks: int
    tally: np.ndarray
    bytes: int


def _part(
    rows_from: tuple[int, np.ndarray], tensor: Tensor, patterns: tuple[tuple[int, int], ...], kept: np.ndarray | None
) -> _Part:
    """Counts of some rows, a block that begins at a row. kept: takes their bits."""
    from topo.kernels import statistics

    first, block = rows_from
    height, width = len(block), block[0].size
    words_wide = -(-width // 64)
    words = np.empty((min(height, max(8, _CACHED // width // 8 * 8)), words_wide), np.uint64)
    planes = np.empty((12, words_wide), np.uint64)
    rows, columns = np.empty(height, np.int64), np.zeros(64 * words_wide, np.int64)
    over_counts, tally, blocks = dict.fromkeys(patterns, 0), np.zeros(4, np.int64), 0
    for start in range(0, height, len(words)):
        values = block[start : start + len(words)].reshape(-1, width)
        bits = words[: len(values)] if kept is None else kept[first + start : first + start + len(values)]
        packed(values, tensor.dtype, bits, tally)
        statistics.row_counts(bits, rows[start : start + len(values)])
        statistics.add_columns(bits, planes, columns)
        blocks += int(statistics.occupied_blocks(bits))
        for n, m in patterns:
            if tensor.ndim == 2 and m in _BY_KERNEL:
                over_counts[n, m] += int(statistics.over_groups(bits, n, m)) if n < m else 0
            else:
                mask = BitRows((len(values), *tensor.shape[1:]), bits.copy())
                over_counts[n, m] += sum(int(np.count_nonzero(many > n)) for _, many in kept_in_groups(mask, m))
    release(block)
    return _Part(rows, columns[:width], over_counts, blocks, tally, block.nbytes)


def _with_places(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Each block with the number of rows before it."""
    done = 0
    for block in blocks:
        yield done, block
        done += len(block)


def _even(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows in blocks of a multiple of four rows, up to the last."""
    rest: np.ndarray | None = None
    for block in blocks:
        if rest is not None:
            block, rest = np.concatenate([rest, block]), None
        whole = len(block) - len(block) % BLOCK_SIDE
        if whole < len(block):
            rest = block[whole:]
        if whole:
            yield block[:whole]
    if rest is not None:
        yield rest
