"""Views: the graphs that one layer may be, from its bit rows and the units that it reads. A function for each view.

channel   a unit is a channel; an edge per kernel with at least one kept weight, its multiplicity the number kept.
unit      the same, multiplicity 1.
kernel    output channels against (input channel, kernel position): the bit rows themselves; a view of single layers.
unrolled  a unit is a place of a feature map (`topo.graph.unrolled`); a view of networks.

Networks are counted in the channel view (or unit); single layers are bipartite graphs in the kernel view of the
Ramanujan papers (or any other).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from topo._support.distinct import distinct
from topo._support.names import unknown
from topo.errors import TopoError
from topo.masks import BitRows, column_counts, kernel_counts

_AT_ONCE = 1 << 20  # multiplicities that are looked at together
# So many vectors or more are sooner through bit rows of so many words side by side than one after the other; below, it
# is not worth a kernel of its own.
_TOGETHER, _MANY_WORDS = 3, 1 << 14


@dataclass(frozen=True, eq=False, slots=True)
class Edges:
    """The edges of one layer, row = output unit, column = place in `reads`.

    reads: int32 (groups * columns,), the unit behind each column of each group; -1 is none. A unit may stand twice.
    words: uint64 (rows, w) bit rows of a layer without groups, `kernel_size` bits a column: its multiplicity is how
    many are set. Otherwise None, and counts: uint16 (rows, columns), the multiplicities of a layer with groups.
    """

    reads: np.ndarray
    words: np.ndarray | None
    counts: np.ndarray | None = None
    kernel_size: int = 1
    groups: int = 1

    @property
    def _bits(self) -> np.ndarray:
        """`words`, of a layer that has them."""
        assert self.words is not None
        return self.words

    @property
    def total(self) -> int:
        """Sum of multiplicities."""
        if self.counts is not None:
            return int(self.counts.sum(dtype=np.int64))
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    @property
    def bound(self) -> int:
        """No row and no column has a larger sum of multiplicities."""
        if self.counts is not None:
            return int(self.counts.max(initial=0)) * max(self.counts.shape)
        return max(len(self.reads), len(self._bits)) * self.kernel_size

    def fan_in(self) -> np.ndarray:
        """Sum of the multiplicities of each row: int64 (rows,)."""
        if self.counts is not None:
            return self.counts.sum(axis=1, dtype=np.int64)
        return np.bitwise_count(self._bits).sum(axis=1, dtype=np.int64)

    def fan_out(self) -> np.ndarray:
        """Sum of the multiplicities of each column: int64 (len(reads),)."""
        if self.counts is not None:
            groups = self.counts.reshape(self.groups, -1, self.counts.shape[1])
            return groups.sum(axis=1, dtype=np.int64).reshape(-1)
        sums = column_counts(self._bits)
        return sums[: len(self.reads) * self.kernel_size].reshape(-1, self.kernel_size).sum(axis=1)

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, place in `reads`, multiplicity) of each edge, row by row: int64 (edges,) each."""
        pieces = list(self.pieces())
        none = np.zeros(0, np.int64)
        rows, places, many = (np.concatenate([none, *part]) for part in (zip(*pieces) if pieces else ((), (), ())))
        return rows, places, many

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What `pairs` holds, in its order, so many edges at a time that memory stays small."""
        rows, width = len(self._bits if self.counts is None else self.counts), len(self.reads) // max(self.groups, 1)
        wide = 64 * max(1, _AT_ONCE // 64)  # whole words, whatever the size of a kernel
        tall = max(1, _AT_ONCE // max(width, 1))
        for first in range(0, rows, tall):
            part = slice(first, min(first + tall, rows))
            for left in range(0, width, wide):
                counts = self._piece(part, left, min(left + wide, width))
                row, column = np.nonzero(counts)
                many = counts[row, column]
                row += first
                column += left
                if self.groups > 1:
                    column += row // (rows // self.groups) * width
                yield row, column, many.astype(np.int64)

    def _piece(self, rows: slice, left: int, right: int) -> np.ndarray:
        """The multiplicities of some rows, columns from left (a multiple of 64) to right."""
        if self.counts is not None:
            return self.counts[rows, left:right]
        k = self.kernel_size
        words = np.ascontiguousarray(self._bits[rows, left * k // 64 : -(-right * k // 64)])
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=(right - left) * k, bitorder="little")
        return bits.reshape(len(bits), -1, k).sum(axis=2, dtype=np.uint16) if k > 1 else bits

    def pull(self, x: np.ndarray) -> np.ndarray:
        """y = M x for the multiplicities M: float64 (len(reads),) -> (rows,); several: (n, len(reads)) -> (n, rows)."""
        from topo.kernels import paths

        if x.ndim > 1:
            return self._pull_several(x)
        if self.counts is not None:
            y = np.empty(len(self.counts))
            paths.pull_counts(self.counts, len(self.counts) // self.groups, np.ascontiguousarray(x), y)
            return y
        columns = np.zeros(64 * self._bits.shape[1])
        columns[: len(x) * self.kernel_size].reshape(-1, self.kernel_size)[:] = x[:, None]
        y = np.empty(len(self._bits))
        paths.pull_bits(self._bits, columns, y)
        return y

    def _pull_several(self, x: np.ndarray) -> np.ndarray:
        if len(x) < _TOGETHER or self.counts is not None or self._bits.size < _MANY_WORDS:
            return np.stack([self.pull(one) for one in x])
        from topo.kernels.limbs import LANES, pull_lanes

        words, columns = self._bits, x.shape[1] * self.kernel_size
        found = np.empty((len(x), len(words)))
        for first in range(0, len(x), LANES):
            part = x[first : first + LANES]
            if len(part) < _TOGETHER:
                found[first:] = self._pull_several(part)
                continue
            given, sums = np.zeros((64 * words.shape[1], LANES)), np.empty((len(words), LANES))
            given[:columns].reshape(-1, self.kernel_size, LANES)[:, :, : len(part)] = part.T[:, None]
            pull_lanes(words, given, sums)
            found[first : first + LANES] = sums.T[: len(part)]
        return found

    def push(self, b: np.ndarray) -> np.ndarray:
        """z = M^T b for the multiplicities M: float64 (rows,) -> (len(reads),), or several as `pull` takes them."""
        from topo.kernels import paths

        if b.ndim > 1:
            return np.stack([self.push(one) for one in b])

        if self.counts is not None:
            z = np.empty(len(self.reads))
            paths.push_counts(self.counts, len(self.counts) // self.groups, np.ascontiguousarray(b), z)
            return z
        columns = np.empty(64 * self._bits.shape[1])
        paths.push_bits(self._bits, np.ascontiguousarray(b), columns)
        columns = columns[: len(self.reads) * self.kernel_size]
        return columns.reshape(-1, self.kernel_size).sum(axis=1) if self.kernel_size > 1 else columns


def _counts(rows: BitRows) -> np.ndarray:
    """Kept weights of each kernel: uint16 (out, in / groups)."""
    return kernel_counts(rows.words, rows.columns, rows.columns // rows.shape[1])


def channel(rows: BitRows, reads: np.ndarray, groups: int = 1) -> Edges:
    """rows of shape (out, in / groups, ...), reads (in,) -> edges whose multiplicity is the number of kept weights."""
    if groups > 1:
        return Edges(reads, None, _counts(rows), groups=groups)
    return Edges(reads, rows.words, kernel_size=rows.columns // rows.shape[1])


def unit(rows: BitRows, reads: np.ndarray, groups: int = 1) -> Edges:
    """rows of shape (out, in / groups, ...), reads (in,) -> edges of multiplicity 1, one a joined pair of units.

    A linear layer behind a flatten reads a unit several times; those weights are one edge here.
    """
    if groups > 1:
        return Edges(*_merged(reads, np.minimum(_counts(rows), 1), groups), groups=groups)
    units = distinct(reads)
    if rows.shape[1] == rows.columns == len(units):
        return Edges(reads, rows.words)
    joined = _counts(rows) != 0 if rows.columns > rows.shape[1] else rows.unpack()
    if len(units) < len(reads):
        order = np.argsort(reads, kind="stable")
        starts = np.searchsorted(reads[order], units)
        joined, reads = np.logical_or.reduceat(joined[:, order], starts, axis=1), units.astype(np.int32)
    return Edges(reads, BitRows.of_mask(joined).words)


def _merged(reads: np.ndarray, joined: np.ndarray, groups: int) -> tuple[np.ndarray, None, np.ndarray]:
    """A unit that a group reads several times has its edges in the first of these columns; the others read none."""
    of_groups = reads.reshape(groups, -1)
    once = np.sort(of_groups, axis=1)
    if not ((once[:, 1:] == once[:, :-1]) & (once[:, 1:] >= 0)).any():
        return reads, None, joined
    reads, found = of_groups.copy(), np.zeros_like(joined)
    for group, rows in enumerate(np.split(np.arange(len(joined)), groups)):
        _, first, which = np.unique(of_groups[group], return_index=True, return_inverse=True)
        for column, place in enumerate(first[which]):
            found[rows, place] |= joined[rows, column]
        reads[group, np.setdiff1d(np.arange(reads.shape[1]), first)] = -1
    return reads.reshape(-1), None, found


def kernel(rows: BitRows, groups: int = 1) -> Edges:
    """rows of shape (out, in / groups, ...) -> edges of multiplicity 1 from (input channel, kernel position) pairs.

    The pair (i, position) of group g is column (g in / groups + i) kernel_size + position.
    """
    columns = np.arange(groups * rows.columns, dtype=np.int32)
    if groups > 1:
        return Edges(columns, None, rows.unpack().reshape(rows.shape[0], -1).astype(np.uint16), groups=groups)
    return Edges(columns, rows.words)


def of_layer(view: str, rows: BitRows, groups: int = 1) -> Edges:
    """The edges of a layer by itself, in any view: every input channel (or feature) is a unit of its own."""
    if view == "kernel":
        return kernel(rows, groups)
    return NETWORK_VIEWS[view](rows, np.arange(groups * rows.shape[1], dtype=np.int32), groups)


NETWORK_VIEWS = {"channel": channel, "unit": unit}
VIEWS = ("channel", "unit", "kernel", "unrolled")


def requested(view: str | None) -> tuple[str, str]:
    """(view of the network, view of single layers) for the view a user asks for; TopoError if it is not known.

    None is the default of each, channel and kernel; "kernel" leaves the network's paths in the channel view, "unrolled"
    single layers in the kernel view.
    """
    if view is None or view == "kernel":
        return "channel", "kernel"
    if view == "unrolled":
        return "unrolled", "kernel"
    if view not in VIEWS:
        raise TopoError(unknown("view", view, VIEWS))
    return view, view
