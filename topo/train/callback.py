"""Masks in somebody else's training loop: Hugging Face's Trainer, Lightning, Composer, Accelerate, or one's own.

The model stays plain: its pruned weights get no gradient and are set to 0 after every step of the optimizer. So there
is nothing to strip: whatever is saved has plain names and zeros in place, and can be loaded anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from topo.errors import TrainingError, WiringError
from topo.masks import MaskSet, as_mask_set
from topo.models.modules.holders import unwrapped
from topo.train.masking import fitted, tensor_of, verify_masks
from topo.train.sharded import is_sharded, laid_as

if TYPE_CHECKING:
    from topo.wiring import Wiring

# Where frameworks keep their base classes; one that is imported gets a callback that is an instance of its own.
_BASES = (
    ("transformers.trainer_callback", "TrainerCallback"),
    ("lightning.pytorch.callbacks", "Callback"),
    ("pytorch_lightning.callbacks", "Callback"),
    ("composer.core.callback", "Callback"),
)


class MaskCallback:
    """Masks that stay in force while another loop trains.

    Give it to Hugging Face's Trainer (`callbacks=[...]`), to Lightning's or Composer's; import the framework first. In
    a loop of one's own, and with Accelerate, call `apply(model)` before the optimizer is made and `follow(optimizer)`
    after. Once an epoch, before a save and at the end every pruned weight is looked at. Gradient accumulation, clipping
    (pruned weights add nothing to the norm), GradScaler and DistributedDataParallel work as they do without it.

    masks: by parameter name, of the model or, where a framework wraps it, of the one module inside that they fit.
    wiring: as in `apply_masks`.

    >>> callback = MaskCallback({"fc.weight": [[True, False]]})
    >>> callback.masks.density
    0.5

    WiringError for masks that do not fit, or for a weight that is not a plain parameter;
    TrainingError if a pruned weight came alive.
    """

    def __new__(cls, *_: Any, **__: Any) -> MaskCallback:
        """An instance of the callbacks of every framework that is imported."""
        there = [getattr(sys.modules[home], name) for home, name in _BASES if home in sys.modules]
        kinds = [kind for kind in dict.fromkeys(there) if not issubclass(cls, kind)]
        return object.__new__(type(cls.__name__, (cls, *kinds), {"__module__": cls.__module__}) if kinds else cls)

    def __init__(self, masks: MaskSet | Mapping[str, Any], wiring: Wiring | None = None) -> None:
        self.masks, self.wiring = as_mask_set(masks), wiring
        self.model: nn.Module | None = None
        self._held: list[tuple[nn.Parameter, Tensor]] = []
        self._handles: list[Any] = []

    # -- the four things that happen

    def apply(self, model: nn.Module) -> nn.Module:
        """Set pruned weights to 0 and let no gradient reach them, from now on; the model is given back.

        Again on the same model, it finds weights that were replaced (moved, loaded) and holds those.
        """
        self.release()
        self.model = self._place(unwrapped(model))
        first: dict[int, tuple[str, Tensor]] = {}
        for name, held in fitted(self.model, self.masks, self.wiring).items():
            try:
                parameter = self.model.get_parameter(name)
            except AttributeError:
                raise WiringError(
                    f"'{name}' is computed by a parametrization or by torch.nn.utils.prune; a MaskCallback holds plain "
                    "parameters (strip_masks makes masked weights so)"
                ) from None
            mask = laid_as(tensor_of(self.masks[name], held, parameter.device), parameter)
            twin, other = first.setdefault(id(parameter), (name, mask))
            if twin != name:
                if not torch.equal(other, mask):
                    self.release()
                    raise WiringError(f"'{twin}' and '{name}' are one weight under two names, with two different masks")
                continue
            self._held.append((parameter, mask))
            if parameter.requires_grad:
                self._handles.append(parameter.register_hook(_Kept(mask)))
        self.hold()
        return model

    def follow(self, optimizer: Any) -> Any:
        """Hold the weights after every step of this optimizer; torch's, or one that wraps it (Accelerate)."""
        while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "accelerator_state"):
            inner = getattr(optimizer, "optimizer", None)
            if inner is None:
                raise TrainingError(f"a {type(optimizer).__name__} is not an optimizer of torch, nor does it hold one")
            optimizer = inner
        if self.model is not None and not self._holds():
            self.apply(self.model)  # it was sharded or moved in between
        self._handles.append(optimizer.register_step_pre_hook(lambda *_: self._hide()))
        self._handles.append(optimizer.register_step_post_hook(lambda *_: self.hold()))
        return optimizer

    @torch.no_grad()
    def hold(self) -> None:
        """Set pruned weights to 0, whatever they are."""
        for number, (parameter, mask) in enumerate(self._held):
            if mask.device != parameter.device:
                mask = mask.to(parameter.device)
                self._held[number] = parameter, mask
            if is_sharded(parameter):
                parameter.copy_(torch.where(mask, parameter, 0.0))
            else:
                parameter.masked_fill_(~mask, 0.0)  # not a product, which keeps NaN

    @torch.no_grad()
    def _hide(self) -> None:
        """Gradients of sharded parameters come from FSDP2, past every hook of theirs."""
        for parameter, mask in self._held:
            if is_sharded(parameter) and parameter.grad is not None:
                parameter.grad.copy_(torch.where(mask, parameter.grad, 0.0))

    def _holds(self) -> bool:
        """Whether the parameters that are held are still the model's."""
        there = set(map(id, self.model.parameters())) if self.model is not None else set()
        return all(id(parameter) in there for parameter, _ in self._held)

    def verify(self) -> None:
        """TrainingError that names the first pruned weight that is not 0, or that is not held any more."""
        if self.model is None:
            return
        for drift in verify_masks(self.model, self.masks, self.wiring):
            raise TrainingError(f"a mask is not in force: {drift}; what writes into the weights after the step?")

    def release(self) -> None:
        """Let go: nothing holds the weights any more, which are zero where they were pruned."""
        for handle in self._handles:
            handle.remove()
        self._held, self._handles = [], []

    def _place(self, model: nn.Module) -> nn.Module:
        """The module that the masks are of: this one, or the one child that they fit."""
        names = dict(model.named_parameters(remove_duplicate=False))
        if not any(name in names for name in self.masks):
            fits = [child for child in model.children() if set(self.masks) <= set(dict(child.named_parameters()))]
            if len(fits) == 1:
                return self._place(fits[0])
        return model

    # -- Hugging Face's Trainer; on_train_end is Lightning's too

    def on_init_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if given.get("model") is not None:
            self.apply(given["model"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.apply(given["model"])  # a checkpoint was loaded, perhaps

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.hold()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._hide()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.hold()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.verify()

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.verify()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.hold()  # the best checkpoint was loaded, perhaps
        self.verify()

    # -- Lightning

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str | None = None) -> None:
        self.apply(pl_module)

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        self.apply(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.hold()

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        self.verify()

    def on_save_checkpoint(self, trainer: Any, pl_module: nn.Module, checkpoint: Any) -> None:
        self.verify()

    # -- Composer

    def fit_start(self, state: Any, logger: Any) -> None:
        self.apply(state.model)

    def batch_end(self, state: Any, logger: Any) -> None:
        self.hold()

    def epoch_end(self, state: Any, logger: Any) -> None:
        self.verify()

    def fit_end(self, state: Any, logger: Any) -> None:
        self.hold()
        self.verify()

    def __getattr__(self, name: str) -> Any:
        """What a framework calls and the masks have nothing to do at."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")


class _Kept:
    """A gradient where the mask keeps, else 0."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.mask.device != gradient.device:
            self.mask = self.mask.to(gradient.device)
        return gradient * self.mask if gradient.is_sparse else gradient.masked_fill(~self.mask, 0.0)


def _nothing(*_: Any, **__: Any) -> None:
    """No part in this event."""
