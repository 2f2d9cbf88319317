"""SparseGPT: prune column after column, and let the columns that follow make up for it."""

from __future__ import annotations

import torch
from torch import Tensor

from topo.calibrated import calibrated
from topo.calibrated.budget import Keep, highest, highest_in_group
from topo.errors import TopoError


@calibrated(
    seen="gram", cost="two passes of the calibration data and an inverse of columns x columns a layer",
    source="Frantar & Alistarh 2023, algorithm 1",
)  # fmt: skip
def sparsegpt(
    weight: Tensor, seen: Tensor, keep: Keep, *, damp: float = 0.01, block: int = 128
) -> tuple[Tensor, Tensor]:
    """w_ij^2 / [H^-1]_jj^2 in blocks of columns, H = 2/n X X^T; what is pruned is made up for by later columns.

    H has `damp` of the mean of its diagonal added. Each block of `block` columns keeps its part of the budget, exactly,
    the largest remainders first; under N:M (`-O nm=2:4`) each group does, chosen when its first column comes. Inputs
    that are never other than zero are pruned first.
    """
    columns = weight.shape[1]
    weight, hessian = weight.clone(), seen.clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    upper = _upper(hessian)
    mask = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
    for (first, end), count in _blocks(weight.shape, keep, block):
        part, own = weight[:, first:end].clone(), upper[first:end, first:end]
        errors = torch.zeros_like(part)
        if keep.nm is None:
            mask[:, first:end] = highest(_judged(part, own.diagonal(), dead[first:end]), count)
        starts = {} if keep.nm is None else dict(keep.groups(columns))
        for i in range(end - first):
            if (group := starts.get(first + i)) is not None:
                at = slice(i, group - first)
                judged = _judged(part[:, at], own.diagonal()[at], dead[first + i : group])
                mask[:, first + i : group] = highest_in_group(judged, keep.nm[0])  # type: ignore[index]
            left = part[:, i] * mask[:, first + i]
            errors[:, i] = (part[:, i] - left) / own[i, i]
            part[:, i:] -= errors[:, i : i + 1] * own[i : i + 1, i:]
            part[:, i] = left
        weight[:, first:end] = part
        weight[:, end:] -= errors @ upper[first:end, end:]
    return mask, weight * mask


def _judged(weight: Tensor, diagonal: Tensor, dead: Tensor) -> Tensor:
    return (weight / diagonal).square().masked_fill(dead, -1.0)


def _upper(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse; its row j holds what is left of the inverse after columns before j."""
    try:
        return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    except torch.linalg.LinAlgError:
        raise TopoError(
            "sparsegpt: the inputs of a layer are too much alike for its Hessian to be inverted; "
            "give more calibration data or a larger damp (-O damp=0.1)"
        ) from None


def _blocks(shape: torch.Size, keep: Keep, size: int) -> list[tuple[tuple[int, int], int]]:
    """Ranges of about `size` columns, whole groups of N:M, each with what it keeps of the budget."""
    columns = shape[1]
    ends: list[int] = []
    for _, end in keep.groups(columns) if keep.nm else [(0, c + 1) for c in range(columns)]:
        if ends and end - (ends[-2] if len(ends) > 1 else 0) <= size:
            ends[-1] = end
        else:
            ends.append(end)
    ranges = list(zip([0, *ends[:-1]], ends))
    counts, given = [], 0
    for _, end in ranges:  # cumulative rounding: each within one of its share, the sum exact
        upto = keep.count * end // columns
        counts.append(upto - given)
        given = upto
    return list(zip(ranges, counts))
