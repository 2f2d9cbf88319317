"""What is left of a weight while rounds of pruning empty it: its live entries, and the rows and columns they stand in.

Late rounds have one weight in a hundred. A pass over all of them to fill zeros, multiply, add or select then costs more
than the network: a `Block` keeps the live entries between rounds, in step with the masks, and gives way as they go.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Live = tuple[Tensor, Tensor]  # the rows and columns of a matrix that hold anything

_SMALL = 2**17  # weights of a layer whose products take less time than looking for what is left
STARTS = 0.5  # of the weight, in live entries: above, keeping them apart takes the time that it saves
_PAYS = 0.8  # of the matrix so far, in rows and columns that are left: copying these costs a fifth of the products


class Block:
    """The live entries of one weight, none of them negative.

    live: the outputs and the inputs (a channel at a place of the kernel) that are left, and values: the weights
    (outputs, inputs) of these, a leaf that takes slopes; both None while the block is the whole weight. inside: where
    in the block each live entry stands, in the order of the weight. entries: the live entries.

    >>> weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> block = Block(weight, torch.tensor([0, 2, 3]))
    >>> block.narrow(weight, torch.tensor([True, False, True]))
    >>> block.inside.tolist(), block.entries.tolist()
    ([0, 3], [1.0, 4.0])
    """

    def __init__(self, weight: nn.Parameter, places: Tensor) -> None:
        self.live: Live | None = None
        self.values: Tensor | None = None
        self.inside = places
        self.entries = weight.detach().reshape(-1)[places]
        self._looked = 2 * len(places)
        self._shrink(weight)

    def narrow(self, weight: nn.Parameter, keep: Tensor) -> None:
        """Keep these of the live entries, flags in their order; the weight itself has the others at 0 already."""
        if self.values is not None:
            self.values.detach().view(-1)[self.inside.masked_select(~keep)] = 0
        self.inside, self.entries = self.inside.masked_select(keep), self.entries.masked_select(keep)
        self._shrink(weight)

    def scores(self, slope: Tensor | None) -> Tensor:
        """Each live entry times the slope at its place in the block; 0 without slopes."""
        if slope is None:
            return torch.zeros_like(self.entries)
        return slope.reshape(-1).index_select(0, self.inside).mul_(self.entries)

    def places(self, weight: nn.Parameter) -> Tensor:
        """Where in the whole weight each live entry stands."""
        if self.live is None:
            return self.inside
        rows, columns = self.live
        return (rows[:, None] * weight[0].numel() + columns).view(-1)[self.inside]

    def _shrink(self, weight: nn.Parameter) -> None:
        """Leave out rows and columns in which nothing lives, where that pays."""
        if len(self.entries) > _PAYS * self._looked:
            return
        self._looked = len(self.entries)
        if weight.ndim < 2 or weight.numel() < _SMALL or not len(self.entries) or not bool(self.entries.min() > 0):
            return  # a live entry of 0 would be taken for a dead one
        matrix = weight.detach().flatten(1) if self.values is None else self.values.detach()
        out, into = matrix.sum(1) > 0, matrix.sum(0) > 0
        rows, columns = out.nonzero().view(-1), into.nonzero().view(-1)
        if len(rows) * len(columns) >= _PAYS * matrix.numel():
            return
        width = matrix.shape[1]
        row, column = out.cumsum(0).sub_(1).mul_(len(columns)), into.cumsum(0).sub_(1)
        self.inside = row[self.inside // width].add_(column[self.inside % width])
        self.live = (rows, columns) if self.live is None else (self.live[0][rows], self.live[1][columns])
        self.values = matrix[rows].index_select(1, columns).requires_grad_()


def begin(weight: nn.Parameter, places: Tensor) -> None:
    """Keep a block of the weight, from the places that live, if they are few enough."""
    if len(places) <= STARTS * weight.numel():
        weight.block = Block(weight, places)  # type: ignore[attr-defined]


def block_of(weight: Tensor) -> Block | None:
    """The block that is kept of a weight, if one is."""
    found = getattr(weight, "block", None)
    return found if isinstance(found, Block) else None
