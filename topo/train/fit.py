"""The training loop: epochs over a plan, one fused multiplication that keeps pruned weights at zero, tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topo.data import Dataset
from topo.errors import TrainingError
from topo.train.feed import Feed, Plan, fits, mixed
from topo.train.folder import SCHEMA
from topo.train.masking import FusedMasks
from topo.train.ranks import Ranks
from topo.train.recipe import Recipe
from topo.train.schedule import learning_rate

Progress = Callable[[int, int, str], None]
_LOOK = 0.5  # seconds between looks at the loss: on a GPU each look waits for it
_WORTH_COMPILING = 5000  # steps; torch.compile takes about a minute for a ResNet (judged, see benchmarks/train_gpu.py)
_TEST_BATCH = 4  # times the training batch: no gradients are kept


@dataclass(frozen=True)
class Choices:
    """What the recipe's "auto" came to on this device."""

    amp: bool
    channels_last: bool
    compile: str
    resident: bool

    @classmethod
    def of(cls, recipe: Recipe, model: nn.Module, data: Dataset, ranks: Ranks, steps: int) -> Choices:
        gpu = ranks.device.type == "cuda"
        amp = recipe.amp == "bf16" or (
            recipe.amp == "auto" and gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        convolutions = any(isinstance(part, nn.Conv2d) for part in model.modules())
        last = recipe.channels_last == "on" or (recipe.channels_last == "auto" and gpu and amp and convolutions)
        compiled = recipe.compile
        if compiled == "auto":
            compiled = "default" if gpu and steps >= _WORTH_COMPILING else "off"
        padded = data.train_images.nbytes * (1 + 2 * recipe.padding / min(data.shape[1:])) ** 2
        mapped = isinstance(data.train_images, np.memmap)
        resident = recipe.placement == "device" or (
            recipe.placement == "auto" and not mapped and fits(int(padded) + data.test_images.nbytes, ranks.device)
        )
        return cls(amp, last, compiled, resident)


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators (dropout) seeded inside and as they were outside."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class Fit:
    """A model, its data and its optimizer, at the end of some epoch.

    model: plain (no parametrized masks), on the device. masks: name -> bool tensor in the parameter's layout. first:
    how many epochs are left out at the beginning. One process's part of each batch is its share of the same global
    batch, and losses are divided by the global batch's size, so that several processes compute what one would. A last
    batch of fewer than two images a process is left out: batch norm needs two.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        masks: Mapping[str, Tensor],
        ranks: Ranks,
        seed: int,
        first: int = 0,
    ) -> None:
        self.model, self.recipe, self.ranks, self.seed = model, recipe, ranks, seed
        self.epoch, self.first, self.history = first, first, list[dict[str, Any]]()
        count, batch = len(data.train_images), recipe.batch
        self.batches = [(start, min(start + batch, count)) for start in range(0, count, batch)]
        if self.batches[-1][1] - self.batches[-1][0] < 2 * ranks.world:
            self.batches.pop()
        if not self.batches or (ranks.world > 1 and batch < 2 * ranks.world):
            raise TrainingError(
                f"batches of {min(batch, count)} images are too small for {ranks.world} processes: each needs two"
            )
        self.count = count
        steps = self.steps * (recipe.epochs - first)
        self.choices = choices = Choices.of(recipe, model, data, ranks, steps)
        self.flip = recipe.flip and data.flips
        shared = (data.mean, data.std, ranks.device)
        self.train_feed = Feed(
            data.train_images, data.train_labels, *shared, recipe.padding, choices.resident, choices.channels_last
        )
        self.test_feed = Feed(data.test_images, data.test_labels, *shared, 0, choices.resident, choices.channels_last)
        if choices.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fused = FusedMasks.of(model, masks)
        self.fused()
        self.running = self._wrapped()
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.names, self.parameters = [name for name, _ in trained], [parameter for _, parameter in trained]
        self.optimizer = self._optimizer()
        self.average = [p.detach().clone() for p in self.parameters] if recipe.ema else None

    @property
    def steps(self) -> int:
        """Per epoch."""
        return len(self.batches)

    def _wrapped(self) -> nn.Module:
        running = self.model
        if self.ranks.world > 1:
            from torch.nn.parallel import DistributedDataParallel

            ids = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
            running = DistributedDataParallel(running, device_ids=ids)
        if self.choices.compile != "off":
            running = torch.compile(running, mode=self.choices.compile)  # type: ignore[assignment]
        return running

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        if self.ranks.device.type == "cuda":
            shared["fused"] = True  # one kernel for all parameters
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(self.parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(self.parameters, **shared)

    # -- one epoch

    def run_epoch(self, progress: Progress | None) -> None:
        """Train one epoch, test, and add a row to the history. TrainingError if the loss is no finite number."""
        began, place = time.perf_counter(), self.epoch + 1
        with _own_randomness(mixed(self.seed, place, 1), self.ranks.device):
            loss, accuracy, rate = self._train(began, progress)
            test_loss, test_accuracy = self.test()
        self.epoch = place
        self.history.append(
            {
                "epoch": place,
                "train_loss": loss,
                "train_accuracy": accuracy,
                "test_loss": test_loss if math.isfinite(test_loss) else None,
                "test_accuracy": test_accuracy,
                "lr": rate,
                "seconds": time.perf_counter() - began,
            }
        )

    def _train(self, began: float, progress: Progress | None) -> tuple[float, float, float]:
        recipe, ranks = self.recipe, self.ranks
        plan = Plan.drawn(self.count, self.seed, self.epoch, recipe.padding, self.flip)
        self.running.train()
        totals, seen, looked = torch.zeros(2, dtype=torch.float64, device=ranks.device), 0, began
        first_rate = learning_rate(recipe, self.epoch * self.steps, self.steps)
        feed = self.train_feed.batches(plan, [ranks.share(*batch) for batch in self.batches])
        for number, ((images, labels), (start, stop)) in enumerate(zip(feed, self.batches)):
            rate = learning_rate(recipe, self.epoch * self.steps + number, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(ranks.device.type, torch.bfloat16, enabled=self.choices.amp):
                scores = self.running(images)
            summed = F.cross_entropy(scores.float(), labels, reduction="sum", label_smoothing=recipe.label_smoothing)
            # DistributedDataParallel divides the gradients' sum by the number of processes.
            (summed * (ranks.world / (stop - start))).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.fused()
            self._follow()
            totals += torch.stack([summed.detach().double(), (scores.argmax(1) == labels).sum().double()])
            seen += stop - start
            now = time.perf_counter()
            if now - looked > _LOOK and number + 1 < self.steps:
                looked = now
                self._show(totals, seen, number + 1, now - began, progress)
        loss, correct = (ranks.summed(totals) / seen).tolist()
        if not math.isfinite(loss):
            raise self._diverged(self.steps)
        self._say(progress, self.steps, f"loss {loss:.4g}, accuracy {correct:.2%}", seen, time.perf_counter() - began)
        return loss, correct, first_rate

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average of the weights; pruned ones are zero in it, as they always were."""
        if self.average is not None:
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - self.recipe.ema)

    def _show(self, totals: Tensor, seen: int, step: int, seconds: float, progress: Progress | None) -> None:
        loss, correct = totals.tolist()  # this process's share
        own = max(1, seen // self.ranks.world)
        if not math.isfinite(loss) and self.ranks.world == 1:  # several processes must stop together: at the end
            raise self._diverged(step)
        self._say(progress, step, f"loss {loss / own:.4g}, accuracy {correct / own:.2%}", seen, seconds)

    def _say(self, progress: Progress | None, step: int, said: str, seen: int, seconds: float) -> None:
        if progress is None or not self.ranks.first:
            return
        done = (self.epoch - self.first) * self.steps + step
        total = (self.recipe.epochs - self.first) * self.steps
        before = sum(row["seconds"] for row in self.history)
        earlier = len(self.history) * self.steps + step
        left = (before + seconds) / max(earlier, 1) * (total - done)
        progress(
            done, total,
            f"epoch {self.epoch + 1} of {self.recipe.epochs}, {said}, {seen / max(seconds, 1e-9):,.0f} images/s, "
            f"{_clock(left)} left",
        )  # fmt: skip

    def _diverged(self, step: int) -> TrainingError:
        return TrainingError(
            f"the loss is no finite number any more in epoch {self.epoch + 1} (step {step} of {self.steps}, "
            f"lr {self.optimizer.param_groups[0]['lr']:.3g}); a smaller lr, or a warmup, helps"
        )

    # -- tests

    @torch.no_grad()
    def test(self) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on the test part, with the averaged weights if there are some."""
        self.ranks.from_first([buffer for buffer in self.model.buffers() if buffer.numel()])  # batch norm's
        count, step = len(self.test_feed), self.recipe.batch * _TEST_BATCH
        places = [self.ranks.share(start, min(start + step, count)) for start in range(0, count, step)]
        places = [place for place in places if place.stop > place.start]
        totals = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        with self.averaged():
            self.model.eval()
            for images, labels in self.test_feed.batches(Plan.straight(count), places):
                with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.choices.amp):
                    scores = self.model(images)
                loss = F.cross_entropy(scores.float(), labels, reduction="sum")
                totals += torch.stack([loss.double(), (scores.argmax(1) == labels).sum().double()])
            self.model.train()
        loss, accuracy = (self.ranks.summed(totals) / count).tolist()
        return loss, accuracy

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the last ones, if there are some."""
        if self.average is None:
            yield
            return
        kept = [p.detach().clone() for p in self.parameters]
        _overwrite(self.parameters, self.average)
        try:
            yield
        finally:
            _overwrite(self.parameters, kept)

    def settle(self) -> None:
        """The run is over: the averaged weights stay."""
        if self.average is not None:
            _overwrite(self.parameters, self.average)

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain tensors, numbers and texts, on the CPU."""
        return {
            "schema": SCHEMA,
            "epoch": self.epoch,
            "model": {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()},
            "optimizer": by_name(self.optimizer.state_dict(), self.names),
            "average": None if self.average is None else dict(zip(self.names, self.average)),
            "history": self.history,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(in_order(state["optimizer"], self.names))
        if self.average is not None:
            _overwrite(self.average, [state["average"][name] for name in self.names])
        self.epoch, self.history = int(state["epoch"]), [dict(row) for row in state["history"]]


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
    for target, source in zip(targets, sources):
        target.detach().copy_(source)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
