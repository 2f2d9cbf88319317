"""Units that are joined to the same others, as the leaves of a hub are: one of each kind stands for all in eigenvalues.

Let k_i be how many units of kind i there are, d_i their degree, and A the adjacency of kinds. Twins are not joined to
one another. Vectors that differ on twins alone are eigenvectors: of the adjacency matrix to 0, of the Laplacian to d_i,
below its largest eigenvalue, which is at least 1 + max d. The other eigenvalues are those of S A S and of diag(d) - S A
S with S = diag(sqrt(k_i)).

Source: Godsil & Royle, Algebraic Graph Theory, 2001, chapter 9 (equitable partitions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topo.graph.whole import WholeGraph, in_buckets


@dataclass(frozen=True, eq=False)
class Kinds:
    """ptr int32 (kinds + 1,), ends int32: the kinds joined to each, both ways. degrees, sizes: float64 (kinds,).

    left_out: how many units of the whole graph are not the first of a kind with edges.
    """

    ptr: np.ndarray
    ends: np.ndarray
    degrees: np.ndarray
    sizes: np.ndarray
    left_out: int

    def times(self, x: np.ndarray) -> np.ndarray:
        """S A S x."""
        from topo.kernels import whole as kernels

        roots, y = np.sqrt(self.sizes), np.empty(len(self.sizes))
        kernels.adjacent(self.ptr, self.ends, roots * x, y)
        return roots * y

    def matrix(self) -> np.ndarray:
        """S A S."""
        roots, found = np.sqrt(self.sizes), np.zeros((len(self.sizes), len(self.sizes)))
        begins = np.repeat(np.arange(len(roots)), np.diff(self.ptr))
        found[begins, self.ends] = roots[begins] * roots[self.ends]
        return found


def kinds_of_units(whole: WholeGraph) -> Kinds:
    """The kinds of the units that have edges.

    >>> star = np.zeros(3, int), np.arange(1, 4), np.ones(3), np.zeros(3, int)
    >>> kinds_of_units(WholeGraph.of_edges(4, star, *np.zeros((2, 4), bool), np.ones(1, bool))).sizes.tolist()
    [1.0, 3.0]
    """
    from topo.kernels import whole as kernels

    ptr, ends = whole.joined[0].both
    degrees = np.diff(ptr)
    first = np.empty(len(degrees), np.int32)
    keys = np.random.default_rng(0).integers(0, 1 << 64, len(degrees), np.uint64)
    kernels.twins(ptr, ends, keys, first)
    del keys
    own = np.flatnonzero((first == np.arange(len(first), dtype=np.int32)) & (degrees > 0))
    if len(own) == len(first):
        return Kinds(ptr, ends, degrees.astype(np.float64), np.ones(len(own)), whole.n - len(own))
    number = np.full(len(first), -1, np.int32)
    number[own] = np.arange(len(own), dtype=np.int32)
    sizes = np.bincount(number[first[degrees > 0]], minlength=len(own)).astype(np.float64)
    begin, end = np.repeat(number, degrees), number[ends]
    real = (begin >= 0) & (end >= 0)
    between, order = in_buckets(begin[real], len(own))
    return Kinds(between, end[real][order], degrees[own].astype(np.float64), sizes, whole.n - len(own))
