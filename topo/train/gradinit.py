"""GradInit: how large each tensor of weights begins, learned so that the first step lowers the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from topo.errors import TrainingError
from topo.models.modules.calling import Batch

Judge = Callable[[Callable[..., object], Batch], Tensor]  # (how the model is called, batch) -> mean loss

ITERATIONS, RATE, STEP, BOUND, LEAST, CLIP = 180, 0.01, 0.1, 1.0, 0.01, 1.0


def gradinit(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    batches: Callable[[int], Batch],
    judge: Judge,
    *,
    iterations: int = ITERATIONS,
) -> dict[str, float]:
    """Learn one positive factor for every trained tensor, multiply it in, and give the factors by name.

    With theta = s o theta0, g the gradient of the mean loss on the first half of a batch and n its norm over all kept
    weights: where n > 1 a step of Adam (lr 0.01) on n, elsewhere on L(theta - 0.1 g / n) / 0.1 over the second half.
    Gradients of s are clipped to norm 1, and s stays at or above 0.01. masks: name -> bool tensor in the parameter's
    layout; pruned weights are zero and take no step. batches(i): the i-th batch. The statistics of batch norms stay.

    Source: Zhu et al. 2021 (GradInit), algorithm 1; there the halves are two batches that overlap by half.

    TrainingError for a gradient that is zero or not finite.
    """
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    for name, mask in masks.items():
        if name in start:
            start[name].mul_(mask)
    scales = {name: torch.ones((), dtype=value.dtype, device=value.device) for name, value in start.items()}
    free = [scale.requires_grad_() for scale in scales.values()]
    optimizer = torch.optim.Adam(free, RATE)
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        state = {**weights, **{name: value.clone() for name, value in buffers.items()}}
        return judge(lambda *given, **named: torch.func.functional_call(model, state, given, named), batch)

    with sdpa_kernel(SDPBackend.MATH):  # the only kernel of attention that has a second derivative
        for number in range(iterations):
            first, second = halves(batches(number))
            weights = {name: value * scales[name] for name, value in start.items()}
            aim = loss(weights, first)
            if not aim.requires_grad:
                raise TrainingError(
                    "gradinit: the loss has no gradient; the forward pass detaches it or turns gradients off"
                )
            slopes = torch.autograd.grad(aim, list(weights.values()), create_graph=True, allow_unused=True)
            kept = {
                name: slope * masks[name] if name in masks else slope
                for name, slope in zip(weights, slopes)
                if slope is not None
            }
            norm = torch.stack([slope.square().sum() for slope in kept.values()]).sum().sqrt() if kept else free[0] * 0
            size = float(norm.detach())
            if not 0 < size < float("inf"):
                raise TrainingError(f"gradinit: the gradient of the loss has norm {size:g} at the start; no step helps")
            if size > BOUND:
                aim = norm
            else:
                moved = {name: weights[name] - STEP * kept[name] / norm if name in kept else weights[name]
                         for name in weights}  # fmt: skip
                aim = loss(moved, second) / STEP
            found = torch.autograd.grad(aim, free, allow_unused=True)
            for scale, slope in zip(free, found):
                scale.grad = torch.zeros_like(scale) if slope is None else slope
            nn.utils.clip_grad_norm_(free, CLIP)
            optimizer.step()
            with torch.no_grad():
                for scale in free:
                    scale.clamp_(min=LEAST)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in scales:
                value.copy_(start[name] * scales[name])
    return {name: float(scale.detach()) for name, scale in scales.items()}


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The first and the second half of a batch; a batch of one example twice."""
    count = batch.examples
    if count < 2:
        return batch, batch
    middle = count // 2
    return _part(batch, slice(0, middle)), _part(batch, slice(middle, count))


def _part(batch: Batch, rows: slice) -> Batch:
    inputs, targets = (_sliced(side, rows, batch.examples) for side in (batch.inputs, batch.targets))
    return Batch(inputs, targets, len(range(*rows.indices(batch.examples))))


def _sliced(held: object, rows: slice, count: int) -> object:
    if isinstance(held, Tensor):
        return held[rows] if held.dim() and len(held) == count else held
    if isinstance(held, Mapping):
        return {name: _sliced(part, rows, count) for name, part in held.items()}
    return type(held)(_sliced(part, rows, count) for part in held) if isinstance(held, tuple | list) else held
