"""Views: which graph of a layer is meant. One function each, from bit rows and the units read to the edges.

channel   a unit is a channel; an edge per kernel with at least one kept weight, its multiplicity the number kept.
unit      the same, multiplicity 1.
kernel    output channels against (input channel, kernel position): the bit rows themselves; a view of single layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topo.errors import TopoError
from topo.masks import BitRows


@dataclass(frozen=True, eq=False, slots=True)
class Edges:
    """The edges of one layer, row = output unit, column = place in `reads`.

    reads: int32 (groups * columns,), the unit behind each column of each group; -1 is none.
    words: uint64 (rows, w) bit rows where every multiplicity is 0 or 1 and there is one group; otherwise None and
    counts: uint16 (rows, columns), the multiplicities.
    """

    reads: np.ndarray
    words: np.ndarray | None
    counts: np.ndarray | None
    groups: int = 1

    @property
    def rows(self) -> int:
        return len(self.words if self.words is not None else self.counts)  # type: ignore[arg-type]

    def matrix(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Multiplicities (rows, columns) of a range of rows, uint8 or uint16."""
        if self.counts is not None:
            return self.counts[first:last]
        assert self.words is not None
        return np.unpackbits(self.words[first:last].view(np.uint8), axis=1, count=len(self.reads), bitorder="little")


def _folded(rows: BitRows, reads: np.ndarray, groups: int) -> tuple[BitRows, np.ndarray, int]:
    """(rows, reads, taps): weights of one output that read the same unit side by side, as one kernel of `taps` places.

    A linear layer behind a flatten of 7 x 7 maps reads each channel 49 times: it is a 7 x 7 convolution. Where a unit
    is read unequally often, columns stay as they are (taps of the layer's own kernel, reads with repetitions).
    """
    taps = rows.size // (rows.shape[0] * rows.shape[1])
    if groups > 1 or len(reads) < 2 or (reads[1:] > reads[:-1]).all():
        return rows, reads, taps
    order = np.argsort(reads, kind="stable")
    units, times = np.unique(reads, return_counts=True)
    if times[0] == 1 or (times != times[0]).any():
        return rows, reads, taps
    if (order[1:] < order[:-1]).any():
        array = rows.unpack().reshape(rows.shape[0], rows.shape[1], taps)[:, order]
        rows = BitRows.of_mask(array)
    return rows, units.astype(np.int32), taps * int(times[0])


def channel(rows: BitRows, reads: np.ndarray, groups: int = 1) -> Edges:
    """rows of shape (out, in / groups, ...), reads (in,) -> edges whose multiplicity is the number of kept weights."""
    rows, reads, taps = _folded(rows, reads, groups)
    if taps == 1 and groups == 1:
        return Edges(reads, rows.words, None)
    from topo.kernels.bits import kernel_counts

    counts = np.empty((rows.shape[0], len(reads) // groups), np.uint16)
    kernel_counts(rows.words, taps, counts)
    return Edges(reads, None, counts, groups)


def unit(rows: BitRows, reads: np.ndarray, groups: int = 1) -> Edges:
    """rows of shape (out, in / groups, ...), reads (in,) -> edges of multiplicity 1, one a joined pair of units."""
    edges = channel(rows, reads, groups)
    units = np.unique(edges.reads)
    if groups > 1:
        assert edges.counts is not None
        return Edges(edges.reads, None, np.minimum(edges.counts, 1), groups)
    if len(units) == len(edges.reads) and edges.words is not None:
        return edges
    joined = edges.matrix() != 0
    if len(units) < len(edges.reads):
        order = np.argsort(edges.reads, kind="stable")
        starts = np.searchsorted(edges.reads[order], units)
        joined = np.logical_or.reduceat(joined[:, order], starts, axis=1)
        edges = Edges(units.astype(np.int32), None, None)
    return Edges(edges.reads, BitRows.of_mask(joined).words, None)


NETWORK_VIEWS = {"channel": channel, "unit": unit}


def of_network(view: str):
    """The function of a view in which whole networks are counted; TopoError for others."""
    if view not in NETWORK_VIEWS:
        reason = "is a view of single layers" if view == "kernel" else "is not known"
        raise TopoError(f"view '{view}' {reason}; paths are counted in view {' or '.join(NETWORK_VIEWS)}")
    return NETWORK_VIEWS[view]
