"""Wanda: weights by their size times that of their inputs, compared within each output."""

from __future__ import annotations

import torch
from torch import Tensor

from topo.calibrated import calibrated
from topo.calibrated.budget import Keep, highest_in_group, highest_in_rows


def scores(weight: Tensor, norms: Tensor) -> Tensor:
    """|w_ij| ||x_j||, the squared norms given."""
    return weight.abs() * norms.sqrt()


@calibrated(seen="norms", cost="two passes of the calibration data", source="Sun et al. 2024, section 3")
def wanda(weight: Tensor, seen: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """|w_ij| ||x_j||, the norm of input j over all calibration tokens; each output keeps as many. No weight changes.

    Rows keep the same number, some one more where the budget does not divide, so that it is exact. The released code
    drops floor(s columns) of each row. `-O nm=2:4` keeps 2 of 4 consecutive inputs.
    """
    judged = scores(weight, seen)
    if keep.nm is None:
        mask = highest_in_rows(judged, keep.count)
    else:
        mask = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
        for first, end in keep.groups(weight.shape[1]):
            mask[:, first:end] = highest_in_group(judged[:, first:end], keep.nm[0])
    return mask, weight * mask
