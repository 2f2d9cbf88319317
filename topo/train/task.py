"""What a model is trained for: the loss of its answers, and how many of them are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topo.errors import TrainingError
from topo.models.modules.calling import Batch, call, loss_of, scores_of, takes
from topo.stranger import PassKept

_IGNORED = -100  # torch's label for what is not judged

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Judged:
    """loss: the sum over the batch's examples. right of judged: None where an answer is not right or wrong."""

    loss: Tensor
    right: Tensor | None
    judged: int | Tensor


@dataclass(frozen=True)
class Task:
    """The loss of a model on a batch.

    loss: the user's own, (answer, targets) -> mean loss. output: which part of the answer is judged (a key, or the
    place in a tuple); an own loss is given the whole answer unless it is named. tokens: the data are sequences of
    tokens, so that classes lie in the last axis whatever the shapes. passes: what a forward pass left of torch's
    settings.

    Without an own loss the targets decide. Whole numbers are classes: cross-entropy, for one answer an example (n, c),
    for each token (n, t, c) or for each pixel (n, c, h, w); -100 is not judged. Floats are values: the mean square of
    the differences. A model that is given labels by name and returns a loss (transformers) is trained on that.
    """

    loss: Loss | None = None
    output: str | int | None = None
    tokens: bool = False
    passes: PassKept = field(default_factory=PassKept, compare=False, repr=False)

    @property
    def name(self) -> str:
        """For the record of a run."""
        if self.loss is None:
            return "by the targets"
        return getattr(self.loss, "__qualname__", None) or type(self.loss).__qualname__

    def answer(self, running: Callable[..., Any], model: nn.Module, batch: Batch) -> Any:
        """What the model gives; labels go along where it takes them by name and has no other loss to go by."""
        inputs = batch.inputs
        if self.loss is None and isinstance(inputs, dict) and batch.targets is not None and takes(model, "labels"):
            inputs = {**inputs, "labels": batch.targets}
        with self.passes:
            return call(running, inputs)

    def judge(self, answer: Any, batch: Batch, smoothing: float = 0.0, others: bool = False) -> Judged:
        """smoothing: of labels, over all classes, or over the others alone (`smoothed`).

        TrainingError, one line, for answers and targets that do not fit each other.
        """
        targets, scores = batch.targets, scores_of(answer, self.output)
        if self.loss is not None:
            mean = self.loss(scores if self.output is not None else answer, targets)
            if not isinstance(mean, Tensor) or mean.numel() != 1:
                gives = f"shape {tuple(mean.shape)}" if isinstance(mean, Tensor) else f"a {type(mean).__name__}"
                raise TrainingError(f"the loss {self.name} gives {gives}; it should give one number, the mean")
            return Judged(_wide(mean).reshape(()) * batch.examples, *self._right(scores, targets))
        own = loss_of(answer)
        if own is not None:
            single = isinstance(targets, Tensor) and targets.dim() == 1  # tokens may be shifted inside the model
            return Judged(_wide(own) * batch.examples, *(self._right(scores, targets) if single else (None, 0)))
        if not isinstance(targets, Tensor) or scores is None:
            lacks = "its batches hold no targets" if not isinstance(targets, Tensor) else "it gives no floating tensor"
            raise TrainingError(f"the model cannot be trained as it is: {lacks}; give loss=, (answer, targets) -> mean")
        if targets.is_floating_point():
            return _squares(scores, targets, batch)
        return self._classes(scores, targets, batch, smoothing, others)

    def _classes(self, scores: Tensor, targets: Tensor, batch: Batch, smoothing: float, others: bool) -> Judged:
        """Cross-entropy; for more than one answer an example, its mean over those that are judged."""
        axis = self._class_axis(scores, targets)
        if axis is None:
            raise _unfit(scores, targets, "classes need a number for each class, (n, classes), (n, tokens, classes) or "
                         "(n, classes, height, width); give loss= for others")  # fmt: skip
        flat, wanted = _wide(scores.movedim(axis, -1).reshape(-1, scores.shape[axis])), targets.reshape(-1).long()
        smooth = smoothed(smoothing, flat.shape[1], others)
        summed = F.cross_entropy(flat, wanted, reduction="sum", label_smoothing=smooth, ignore_index=_IGNORED)
        right = (flat.argmax(1) == wanted).sum()
        if targets.dim() == 1:
            return Judged(summed, right, batch.examples)
        judged = (wanted != _IGNORED).sum()
        return Judged(summed / judged.clamp(min=1) * batch.examples, right, judged)

    def _right(self, scores: Tensor | None, targets: Any) -> tuple[Tensor | None, int | Tensor]:
        if scores is None or not isinstance(targets, Tensor) or targets.is_floating_point():
            return None, 0
        axis = self._class_axis(scores, targets)
        if axis is None:
            return None, 0
        return (scores.argmax(axis) == targets).sum(), (targets != _IGNORED).sum()

    def _class_axis(self, scores: Tensor, targets: Tensor) -> int | None:
        """Which axis of the scores are the classes; None if none is, or if two may be."""
        if scores.dim() != targets.dim() + 1 or scores.shape[0] != targets.shape[0]:
            return None
        last, second = scores.shape[:-1] == targets.shape, scores.shape[2:] == targets.shape[1:]
        if targets.dim() == 1:
            return 1
        if self.tokens:
            return -1 if last else None
        return None if last == second else (-1 if last else 1)


def smoothed(smoothing: float, classes: int, others: bool) -> float:
    """Label smoothing as torch takes it, which shares it among all classes, of one shared among the others alone.

    The right class then has 1 - eps, each other one eps / (C - 1): torch's is eps C / (C - 1).
    """
    return min(1.0, smoothing * classes / (classes - 1)) if others and classes > 1 else smoothing


def _wide(tensor: Tensor) -> Tensor:
    """In single precision at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _squares(scores: Tensor, targets: Tensor, batch: Batch) -> Judged:
    if scores.shape != targets.shape:
        raise _unfit(scores, targets, "values need one answer each; they are not broadcast")
    return Judged(F.mse_loss(_wide(scores), _wide(targets)) * batch.examples, None, 0)


def _unfit(scores: Tensor, targets: Tensor, should: str) -> TrainingError:
    return TrainingError(
        f"the model gives {tuple(scores.shape)} for targets {tuple(targets.shape)} of {targets.dtype}: {should}"
    )
