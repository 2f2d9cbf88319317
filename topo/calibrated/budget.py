"""How many weights of a layer stay, and which: exactly so many a row, a block of columns or a group of N:M."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Keep:
    """The budget of one layer as a matrix (out, columns). count: weights in all. taps: kernel positions; the columns of
    each lie together, so that inputs / taps consecutive ones are input channels. nm: at most n of each m of these."""

    count: int
    taps: int = 1
    nm: tuple[int, int] | None = None

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Ranges of the groups of m inputs; the last of each kernel position may be smaller."""
        assert self.nm is not None
        inputs, m = columns // self.taps, self.nm[1]
        return [
            (tap * inputs + first, min(tap * inputs + first + m, (tap + 1) * inputs))
            for tap in range(self.taps)
            for first in range(0, inputs, m)
        ]


def highest(scores: Tensor, count: int) -> Tensor:
    """Flags of exactly `count` of the highest scores of a tensor; of equals, those that come first.

    >>> highest(torch.tensor([[1.0, 3.0], [3.0, 2.0]]), 2).tolist()
    [[False, True], [True, False]]
    """
    flags = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    flags[scores.reshape(-1).argsort(descending=True, stable=True)[:count]] = True
    return flags.view(scores.shape)


def highest_in_rows(scores: Tensor, count: int) -> Tensor:
    """Flags of `count` scores, the same number in each row, or one more in the rows whose next is the highest."""
    rows, columns = scores.shape
    each, more = divmod(count, rows)
    order = scores.argsort(dim=1, descending=True, stable=True)
    flags = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    flags.scatter_(1, order[:, :each], True)
    if more:
        next_one = scores.gather(1, order[:, each : each + 1])
        chosen = highest(next_one[:, 0], more)
        flags[chosen.nonzero()[:, 0], order[chosen, each]] = True
    assert columns >= each + (more > 0)
    return flags


def highest_in_group(scores: Tensor, n: int) -> Tensor:
    """Flags of the n highest scores of each row."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(1, order[:, :n], True)
