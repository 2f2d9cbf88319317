"""The training loop: epochs over a plan, one fused multiplication that keeps pruned weights at zero, tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from topo.errors import TrainingError
from topo.models.modules.calling import Batch
from topo.stranger import in_one_line
from topo.train.dynamic import Dynamics
from topo.train.feed import mixed
from topo.train.folder import SCHEMA
from topo.train.ghosts import Ghosts, strength
from topo.train.masking import FusedMasks, Masked
from topo.train.modes import Modes
from topo.train.ranks import Ranks
from topo.train.recipe import Recipe
from topo.train.schedule import learning_rate
from topo.train.source import Source
from topo.train.task import Judged, Task

Progress = Callable[[int, int, str], None]
_LOOK = 0.5  # seconds between looks at the loss: on a GPU each look waits for it
_WORTH_COMPILING = 5000  # steps; torch.compile takes about a minute for a ResNet (judged, see benchmarks/train_gpu.py)
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Choices:
    """What the recipe's "auto" came to on this device. amp: the type of autocast, None for none."""

    amp: torch.dtype | None
    channels_last: bool
    compile: str

    @classmethod
    def of(cls, recipe: Recipe, model: nn.Module, ranks: Ranks, steps: int) -> Choices:
        gpu = ranks.device.type == "cuda"
        amp = _TYPES.get(recipe.amp)
        if recipe.amp == "auto" and gpu and torch.cuda.is_bf16_supported(including_emulation=False):
            amp = torch.bfloat16
        convolutions = any(isinstance(part, nn.Conv2d) for part in model.modules())
        last = recipe.channels_last == "on" or (recipe.channels_last == "auto" and gpu and bool(amp) and convolutions)
        compiled = recipe.compile
        if recipe.haunted:
            compiled = "off"  # its graph would keep the first strength
        if compiled == "auto":
            compiled = "default" if gpu and steps >= _WORTH_COMPILING else "off"
        return cls(amp, last, compiled)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators (dropout) seeded inside and as they were outside."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def stepper(recipe: Recipe, parameters: Sequence[Tensor], device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer."""
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if device.type == "cuda":
        shared["fused"] = True  # one kernel for all parameters
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **shared)


class Fit:
    """A model, its data and its optimizer, at the end of some epoch.

    model: plain (no parametrized masks), on the device, its modules in the modes that they train in. masks: name ->
    bool tensor in the parameter's layout. first: how many epochs are left out at the beginning. One process's part of
    each batch is its share of the same global batch, and losses are divided by the global batch's size, so that several
    processes compute what one would.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        recipe: Recipe,
        masks: Mapping[str, Tensor],
        ranks: Ranks,
        seed: int,
        first: int = 0,
        task: Task | None = None,
    ) -> None:
        self.model, self.source, self.recipe, self.ranks, self.seed = model, source, recipe, ranks, seed
        self.task = task or Task()
        self.epoch, self.first, self.history = first, first, list[dict[str, Any]]()
        self.modes = Modes(model)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise TrainingError("nothing can be trained: the model has no parameter that requires a gradient")
        self.ghosts: Ghosts | None = None
        if recipe.haunted:
            if ranks.world > 1:
                raise TrainingError("ghost_activation and ghost_skip train in one process")
            draws = torch.Generator().manual_seed(mixed(seed, 5))
            self.ghosts = Ghosts(model, recipe.ghost_activation, recipe.ghost_skip, draws)
            trained |= dict(self.ghosts.named_parameters())
        self.names, self.parameters = list(trained), list(trained.values())
        self.choices = choices = Choices.of(recipe, model, ranks, source.steps * (recipe.epochs - first))
        source.lay(choices.channels_last, {"device": True, "stream": False}.get(recipe.placement))
        if choices.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fused = FusedMasks.of(model, masks)
        self.fused()
        self.masked = [(model.get_parameter(name), mask) for name, mask in masks.items()]
        self.running = self._wrapped()
        with in_one_line(f"the optimizer {recipe.optimizer} does not take the parameters"):
            self.optimizer = stepper(recipe, self.parameters, ranks.device)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=choices.amp == torch.float16)
        self.average = [p.detach().clone() for p in self.parameters] if recipe.ema else None
        self.taken = 0  # steps of the optimizer
        self.statistics: dict[str, Tensor] = {}  # batch norm's, for the averaged weights
        self.moving: Dynamics | None = None  # of the masks, where they move

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.source.steps

    def _wrapped(self) -> nn.Module:
        running = self.model
        if self.ranks.world > 1:
            from torch.nn.parallel import DistributedDataParallel

            ids = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
            running = DistributedDataParallel(running, device_ids=ids)
        if self.choices.compile != "off":
            running = torch.compile(running, mode=self.choices.compile)  # type: ignore[assignment]
        return running

    # -- one epoch

    def run_epoch(self, progress: Progress | None) -> None:
        """Train one epoch, test, and add a row to the history. TrainingError if the loss is not a finite number."""
        began, place = time.perf_counter(), self.epoch + 1
        with own_randomness(mixed(self.seed, place, 1), self.ranks.device), self._haunted(0):
            loss, accuracy, rate = self._train(began, progress)
            row: dict[str, Any] = {"epoch": place, "train_loss": loss, "train_accuracy": accuracy}
            found = self.looked_at()
        for part in ("val", "test") if "val" in found else ("test",):
            loss_, accuracy_ = found.get(part, (math.nan, None))
            row |= {f"{part}_loss": loss_ if math.isfinite(loss_) else None, f"{part}_accuracy": accuracy_}
        self.epoch = place
        self.history.append(row | {"lr": rate, "seconds": time.perf_counter() - began})

    def _haunted(self, step: int) -> AbstractContextManager[None]:
        """The ghosts, if there are any, as strong as at this step of the epoch."""
        if self.ghosts is None:
            return nullcontext()
        self.ghosts.alpha = strength(self.epoch * self.steps + step, self.recipe.epochs * self.steps)
        return self.ghosts.awake()

    def _train(self, began: float, progress: Progress | None) -> tuple[float, float | None, float]:
        recipe, ranks = self.recipe, self.ranks
        self.modes.train()
        totals, looked = Totals(ranks), began
        first_rate = learning_rate(recipe, self.epoch * self.steps, self.steps)
        for number, batch in enumerate(self.source.epoch(self.seed, self.epoch)):
            rate = learning_rate(recipe, self.epoch * self.steps + number, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._haunted(number)
            with in_one_line(f"training stopped in epoch {self.epoch + 1}, step {number + 1} of {self.steps}"):
                judged = self._judged(self.running, batch, recipe.label_smoothing)
                if not judged.loss.requires_grad:
                    raise TrainingError(f"nothing can be trained: {self.task.passes.why_no_gradient()}")
                self.scaler.scale(judged.loss * self._share(number, batch)).backward()
                if number + 1 == self.steps or (number + 1) % recipe.accumulate == 0:
                    self._step()
                totals.add(judged, batch)
            now = time.perf_counter()
            if now - looked > _LOOK and number + 1 < self.steps:
                looked = now
                self._show(totals, number + 1, now - began, progress)
        loss, accuracy, seen = totals.means()
        if not math.isfinite(loss):
            raise self._diverged(self.steps)
        self._say(progress, self.steps, _shown(loss, accuracy), seen, time.perf_counter() - began)
        return loss, accuracy, first_rate

    def _judged(self, running: Callable[..., Any], batch: Batch, smoothing: float = 0.0) -> Judged:
        with torch.autocast(self.ranks.device.type, self.choices.amp or torch.bfloat16, enabled=bool(self.choices.amp)):
            answer = self.task.answer(running, self.model, batch)
        return self.task.judge(answer, batch, smoothing, self.recipe.smoothing == "others")

    def _share(self, number: int, batch: Batch) -> float:
        """What the batch's summed loss is multiplied by, for the mean over all examples of the step.

        DistributedDataParallel divides the gradients' sum by the number of processes. Where the sizes of batches are
        not known beforehand, those of one step count the same.
        """
        together = self.recipe.accumulate
        start = number // together * together
        stop = min(start + together, self.steps)
        if self.source.sizes is None:
            return 1 / (batch.examples * (stop - start))
        return self.ranks.world / sum(self.source.sizes[start:stop])

    def _step(self) -> None:
        """A step of the optimizer; pruned weights are back at zero after it, and no gradient of theirs is measured.

        Where the masks move, that takes the step's place.
        """
        if self.moving is not None and self.moving.due(self.taken + 1):
            self._move(self.moving)
            return
        if self.recipe.clip:
            self.scaler.unscale_(self.optimizer)
            for parameter, mask in self.masked:
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.fused()
        self._follow()

    def _move(self, moving: Dynamics) -> None:
        """The masks move; what does not stay is zero in the weights, the momentum and the moving average."""
        self.scaler.unscale_(self.optimizer)
        stays = moving.move(self.taken + 1, self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.fused.set(list(moving.laid.values()))
        if self.average is not None:
            averages = {id(parameter): average for parameter, average in zip(self.parameters, self.average)}
            for name, stay in stays.items():
                averages[id(moving.places[name])].mul_(stay)
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average of the weights; pruned ones are zero in it, as they always were."""
        if self.average is not None:
            decay = min(self.recipe.ema, (1 + self.taken) / (10 + self.taken))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.taken += 1

    def _show(self, totals: Totals, step: int, seconds: float, progress: Progress | None) -> None:
        loss, accuracy, seen = totals.means(alone=True)
        if not math.isfinite(loss) and self.ranks.world == 1:  # several processes must stop together: at the end
            raise self._diverged(step)
        self._say(progress, step, _shown(loss, accuracy), seen * self.ranks.world, seconds)

    def _say(self, progress: Progress | None, step: int, said: str, seen: int, seconds: float) -> None:
        if progress is None or not self.ranks.first:
            return
        done = (self.epoch - self.first) * self.steps + step
        total = (self.recipe.epochs - self.first) * self.steps
        progress(
            done, total,
            f"epoch {self.epoch + 1} of {self.recipe.epochs}, {said}, {seen / max(seconds, 1e-9):,.0f} "
            f"{self.source.noun}/s",
        )  # fmt: skip

    def _diverged(self, step: int) -> TrainingError:
        return TrainingError(
            f"the loss is not a finite number any more in epoch {self.epoch + 1} (step {step} of {self.steps}, "
            f"lr {self.optimizer.param_groups[0]['lr']:.3g}); a smaller lr, or a warmup, helps"
        )

    # -- tests

    @torch.no_grad()
    def looked_at(self) -> dict[str, tuple[float, float | None]]:
        """Mean loss and accuracy on each part but the training one, with the averaged weights if there are some."""
        self.ranks.from_first([buffer for buffer in self.model.buffers() if buffer.numel()])  # batch norm's
        found = {}
        with self.averaged():
            self.model.eval()
            for part in self.source.parts[1:]:
                totals = Totals(self.ranks)
                with in_one_line(f"the {part} part could not be tested on after epoch {self.epoch + 1}"):
                    for batch in self.source.look(part):
                        totals.add(self._judged(self.model, batch), batch)
                found[part] = totals.means()[:2]
        self.modes.train()
        return found

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the last ones, if there are some, with statistics of their own."""
        if self.average is None:
            yield
            return
        buffers = dict(self.model.named_buffers())
        places = [*self.parameters, *buffers.values()]
        kept = [tensor.detach().clone() for tensor in places]
        _overwrite(self.parameters, self.average)
        if self.modes.norms():
            self.modes.renorm(self._shown_again)
            self.ranks.from_first([buffer for buffer in buffers.values() if buffer.numel()])
        self.statistics = {name: buffer.detach().clone() for name, buffer in buffers.items()}
        try:
            yield
        finally:
            _overwrite(places, kept)

    def _shown_again(self) -> None:
        """The epoch's training batches once more through the model."""
        for batch in self.source.epoch(self.seed, self.epoch):
            self._judged(self.model, batch)

    def settle(self) -> None:
        """The run is over: the averaged weights stay, with the statistics under which they were tested."""
        if self.average is not None:
            _overwrite(self.parameters, self.average)
            buffers = dict(self.model.named_buffers())
            _overwrite([buffers[name] for name in self.statistics], list(self.statistics.values()))

    def tested(self) -> dict[str, Tensor]:
        """The weights that were tested last, on the CPU, by the names of the plain model and with zeros in place."""
        with in_one_line("the state dict of the model is not one of tensors"):
            kept = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.settle()
            state = plain_state(self.model)
        if self.average is not None:
            self.model.load_state_dict(kept)
        return state

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain tensors, numbers and texts, by the parameters' names."""
        return {
            "schema": SCHEMA,
            "epoch": self.epoch,
            "taken": self.taken,
            "model": {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()},
            "optimizer": by_name(self.optimizer.state_dict(), self.names),
            "average": None if self.average is None else dict(zip(self.names, self.average)),
            "statistics": self.statistics,
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            **({} if self.moving is None else {"masks": self.moving.state()}),
            **({} if self.ghosts is None else {"ghosts": self.ghosts.state()}),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        with in_one_line("the checkpoint is not of this model"):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(in_order(state["optimizer"], self.names))
            if self.average is not None:
                _overwrite(self.average, [state["average"][name] for name in self.names])
            self.statistics = {name: value.to(self.ranks.device) for name, value in state["statistics"].items()}
            self.scaler.load_state_dict(state["scaler"])
            if self.moving is not None:
                self.moving.load(state["masks"])
                self.fused.set(list(self.moving.laid.values()))
            if self.ghosts is not None:
                self.ghosts.load(state["ghosts"])
        self.taken, self.epoch = int(state["taken"]), int(state["epoch"])
        self.history = [dict(row) for row in state["history"]]


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """An optimizer's state under the names of its parameters: their order depends on how a model got its masks."""
    groups = [{**group, "params": [names[at] for at in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[at]: values for at, values in state["state"].items()}, "param_groups": groups}


def in_order(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The way back, for parameters in this order."""
    groups = [{**group, "params": list(range(len(names)))} for group in state["param_groups"]]
    return {
        "state": {at: state["state"][name] for at, name in enumerate(names) if name in state["state"]},
        "param_groups": groups,
    }


@torch.no_grad()
def _overwrite(targets: list[Any], sources: list[Any]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.detach().copy_(source)


def widest(device: torch.device) -> torch.dtype:
    """The floats in which sums are kept; an Apple GPU has no doubles."""
    return torch.float32 if device.type == "mps" else torch.float64


class Totals:
    """Sums over the batches of a part: of the loss, of right answers, of those that are right or wrong, of examples."""

    def __init__(self, ranks: Ranks) -> None:
        kind = widest(ranks.device)
        self.ranks, self.examples = ranks, 0
        self.loss, self.right = torch.zeros(2, dtype=kind, device=ranks.device).unbind()
        self.judged: int | Tensor = 0

    def add(self, judged: Judged, batch: Batch) -> None:
        """One more batch."""
        self.loss += judged.loss.detach()
        self.right += 0 if judged.right is None else judged.right
        self.judged = self.judged + judged.judged
        self.examples += batch.examples

    def means(self, alone: bool = False) -> tuple[float, float | None, int]:
        """Mean loss, accuracy (None where no answer is right or wrong) and examples; alone: of this process's share."""
        judged, examples = (torch.as_tensor(count).to(self.loss) for count in (self.judged, self.examples))
        sums = torch.stack([self.loss, self.right, judged, examples])
        loss, right, counted, seen = (sums if alone else self.ranks.summed(sums)).tolist()
        return loss / max(seen, 1), right / counted if counted else None, int(seen)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict on the CPU in which masked weights have their plain names, and zeros where they are pruned."""
    state = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    for path, part in model.named_modules():
        for attribute, steps in part.parametrizations.items() if parametrize.is_parametrized(part) else ():  # type: ignore[union-attr, operator]
            if any(isinstance(step, Masked) for step in steps):
                start = f"{path}." if path else ""
                within = f"{start}parametrizations.{attribute}."
                state = {name: tensor for name, tensor in state.items() if not name.startswith(within)}
                state[start + attribute] = getattr(part, attribute)
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _shown(loss: float, accuracy: float | None) -> str:
    return f"loss {loss:.4g}" if accuracy is None else f"loss {loss:.4g}, accuracy {accuracy:.2%}"
