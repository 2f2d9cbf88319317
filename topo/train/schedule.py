"""The learning rate as a function of the step: no state, so that a resumed run has the same one."""

from __future__ import annotations

from math import cos, pi

from topo.train.recipe import Recipe

_RISE, _FROM, _TO = 0.3, 25.0, 250_000.0  # one cycle: share of rising steps, lr / first, lr / last (torch's defaults)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of step 0, 1, ...

    With t = step / steps_per_epoch, T = epochs, w = warmup: below w it rises as lr (t + 1 / steps_per_epoch) / w; then
    multistep: lr factor^(number of milestones <= t); cosine: lr (1 + cos(pi (t - w) / (T - w))) / 2; linear: lr (T - t)
    / (T - w), which is 0 after the last step; one_cycle: half
    cosines from lr / 25 up to lr a step before 0.3 T and down to lr / 250,000 at the last step (torch's OneCycleLR);
    constant: lr.
    """
    t = step / steps_per_epoch
    if t < recipe.warmup:
        return recipe.lr * min(1.0, (t + 1 / steps_per_epoch) / recipe.warmup)
    if recipe.schedule == "multistep":
        # A milestone that was scaled to the epochs may lie a rounding error above the step it means.
        return recipe.lr * recipe.factor ** sum(milestone <= t + 1e-9 for milestone in recipe.milestones)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + cos(pi * (t - recipe.warmup) / max(recipe.epochs - recipe.warmup, 1e-9))) / 2
    if recipe.schedule == "linear":
        return recipe.lr * (recipe.epochs - t) / (recipe.epochs - recipe.warmup)
    if recipe.schedule == "one_cycle":
        total = recipe.epochs * steps_per_epoch
        peak, last = _RISE * total - 1, total - 1
        if step < peak:
            return _between(recipe.lr / _FROM, recipe.lr, step / peak)
        return _between(recipe.lr, recipe.lr / _TO, (step - peak) / (last - peak))
    return recipe.lr


def _between(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) * (1 + cos(pi * share)) / 2
