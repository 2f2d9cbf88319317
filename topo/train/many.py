"""`train_many`: one architecture under many masks, trained side by side; each net as if it were alone.

Parameters and buffers of K nets lie stacked, the first dimension the net. `torch.func.vmap` turns K linear layers into
one batched matrix product and K convolutions into one grouped convolution; the optimizer and the masks work on the
stacks, elementwise. Small nets gain most: alone they wait for the interpreter, side by side for the processor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topo._support.doors import first_line
from topo._support.trees import require_tree
from topo.data import Dataset
from topo.errors import TopoError, TrainingError
from topo.masks import MaskSet, as_mask_set
from topo.models.modules.holders import copied, unwrapped
from topo.stranger import PassKept, out_of_memory, torch_kept
from topo.train.feed import mixed
from topo.train.fit import Choices, Progress, own_randomness, stepper, widest
from topo.train.masking import FusedMasks, applied_masks
from topo.train.modes import Modes
from topo.train.ranks import Ranks, ranks
from topo.train.recipe import Recipe, find_recipe
from topo.train.run import Run, built, dressed, equal_bits, on_threads, seed_of, shaped, train
from topo.train.schedule import learning_rate
from topo.train.sequences import Sequences
from topo.train.source import Images, source_of
from topo.train.task import Task, smoothed

if TYPE_CHECKING:
    from topo.wiring import Wiring

Masks = MaskSet | Mapping[str, Any] | None


@torch_kept()
def train_many(
    model: str | nn.Module,
    masks: Sequence[Masks],
    data: str | Path | Dataset | Any,
    *,
    seeds: int | Sequence[int] = 0,
    recipe: str | Path | Mapping[str, Any] | Recipe = "quick",
    epochs: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    wiring: Wiring | None = None,
    at_once: int = 32,
) -> tuple[Run, ...]:
    """Train one network under each of several masks, side by side; a Run for each, as `topo.train` gives it alone.

    masks: one for each net, None for a dense one. seeds: one for all, or one for each: run i is that of
    `topo.train(model, data, masks=masks[i], rng=seeds[i])` to rounding. A model that is given as a module is copied for
    each net and left as it is. at_once: how many nets lie on the device together. Other arguments as in `topo.train`.

    Nets train side by side on data sets of images. Where that cannot be as if alone (dropout, which draws; a moving
    average; masks that move; DataLoaders; several processes; layers that `torch.func.vmap` does not know) they train
    one by one, and a note of each run says why.

    >>> masks = [topo.generate("erk", "mlp:64-32-10", density=d) for d in (0.2, 0.5)]
    >>> runs = topo.train_many("mlp:64-32-10", masks, "digits", epochs=1)
    >>> [run.masks == mask for run, mask in zip(runs, masks)]
    [True, True]

    TrainingError for no masks, for as many seeds as there are not masks, and as `topo.train`, with the net's number.
    """
    chosen = find_recipe(recipe) if epochs is None else find_recipe(recipe).for_epochs(epochs)
    if isinstance(masks, MaskSet | Mapping) or not isinstance(masks, Sequence) or not masks:
        raise TrainingError("train_many takes a list of masks, one for each net; train takes one")
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise TrainingError(f"at_once is {at_once!r}; it should be a whole number from 1")
    each = [seeds] * len(masks) if isinstance(seeds, int | np.integer) else list(seeds)
    if len(each) != len(masks):
        raise TrainingError(f"there are {len(each)} seeds for {len(masks)} masks; one for all, or one for each")
    each = [seed_of(seed) for seed in each]
    given = [None if one is None else as_mask_set(one) for one in masks]
    how: dict[str, Any] = {"recipe": chosen, "device": device, "threads": threads, "wiring": wiring}

    def alone(place: int) -> Run:
        net = copied(model) if isinstance(model, nn.Module) else model
        tell = _told(progress, place, len(given), chosen.epochs)
        try:
            return train(net, data, masks=given[place], rng=each[place], progress=tell, **how)
        except TrainingError as error:
            raise TrainingError(f"net {place + 1} of {len(given)}: {error}") from error.__cause__

    if isinstance(model, nn.Module):
        require_tree(model)
    with on_threads(threads), ranks(device) as here:
        source = source_of(data, chosen, here)
        why = _apart(model, source, chosen, here)
        found: list[Run] = []
        for start in range(0, len(given), at_once):
            if why or not isinstance(source, Images):
                break
            part = slice(start, start + at_once)
            try:
                together = Together(model, given[part], source, chosen, here, each[part], wiring)
                found += together.carried_out(progress)
            except TopoError:
                raise
            except Exception as error:  # whatever the model or torch.func raises
                if out_of_memory(error):
                    raise TrainingError(
                        f"out of memory on {here.device} with {at_once} nets side by side; a smaller at_once needs less"
                    ) from None
                why = f"they do not run side by side: {first_line(error)}"
                break
    for place in range(len(found), len(given)):
        run = alone(place)
        found.append(Run(**{**vars(run), "notes": (*run.notes, f"the nets trained one by one: {why}")}))
    return tuple(found)


def _apart(model: str | nn.Module, source: Any, recipe: Recipe, here: Ranks) -> str:
    """Why nets cannot train side by side, as if alone; empty if nothing speaks against it."""
    if isinstance(source, Sequences):
        return "the data are tokens"
    if not isinstance(source, Images):
        return "DataLoaders give each net batches of its own"
    if recipe.ema:
        return "the recipe averages weights (ema)"
    if recipe.haunted:
        return "the recipe has ghosts (ghost_activation, ghost_skip)"
    if recipe.moves:
        return f"the recipe moves masks (sparse = '{recipe.sparse}')"
    if here.world > 1:
        return "several processes share each batch"
    if recipe.amp == "fp16":
        return "fp16 scales the loss of each net"
    if isinstance(model, nn.Module) and applied_masks(unwrapped(model)) is not None:
        return "the model is masked already"
    return ""


def _told(progress: Progress | None, place: int, count: int, epochs: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, label: progress(place * total + done, count * total, f"net {place + 1}, {label}")


class Together:
    """K nets of one architecture in training, stacked."""

    def __init__(
        self,
        model: str | nn.Module,
        masks: Sequence[MaskSet | None],
        source: Images,
        recipe: Recipe,
        here: Ranks,
        seeds: Sequence[int],
        wiring: Wiring | None,
    ) -> None:
        self.masks, self.source, self.recipe, self.ranks, self.seeds = masks, source, recipe, here, seeds
        self.nets: list[nn.Module] = []
        laid: list[dict[str, Tensor]] = []
        for mask, seed in zip(masks, seeds):
            net, _ = built(shaped(copied(model) if isinstance(model, nn.Module) else model, source, Task()), seed)
            _, kept = dressed(unwrapped(net), source, mask, recipe, here, seed, wiring, Task())
            if mask is not None and set(kept) != set(mask):
                raise RuntimeError("a masked weight is computed by a parametrization")
            self.nets.append(net)
            laid.append(kept)
        self.base = unwrapped(self.nets[0])
        self.modes = Modes(self.base)
        choices = Choices.of(recipe, self.base, here, 0)
        self.amp = choices.amp
        source.lay(False, {"device": True, "stream": False}.get(recipe.placement))
        inner = [unwrapped(net) for net in self.nets]
        self.trained = {
            name: torch.stack([dict(net.named_parameters())[name].detach() for net in inner]).requires_grad_()
            for name, parameter in self.base.named_parameters()
            if parameter.requires_grad
        }
        if not self.trained:
            raise TrainingError("nothing can be trained: the model has no parameter that requires a gradient")
        frozen = [name for name, parameter in self.base.named_parameters() if not parameter.requires_grad]
        self.fixed = {name: torch.stack([net.get_parameter(name).detach() for net in inner]) for name in frozen} | {
            name: torch.stack([dict(net.named_buffers())[name] for net in inner])
            for name, _ in self.base.named_buffers()
        }
        flags = self._flags(laid)
        self.fused = FusedMasks([self._stack(name).detach() for name in flags], list(flags.values()))
        self.fused()
        self.optimizer = stepper(recipe, list(self.trained.values()), here.device)
        self.history: list[list[dict[str, Any]]] = [[] for _ in masks]
        self.passes = PassKept()

    def _stack(self, name: str) -> Tensor:
        return self.trained[name] if name in self.trained else self.fixed[name]

    def _flags(self, laid: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The stacked masks; where a net has none for a layer, it is dense there."""
        # A tied weight is stacked under the first of its names.
        own = {id(parameter): name for name, parameter in self.base.named_parameters()}
        first = {name: own[id(parameter)] for name, parameter in self.base.named_parameters(remove_duplicate=False)}
        wanted = dict.fromkeys(first[name] for masks in laid for name in masks)
        found = {}
        for name in wanted:
            shape = self._stack(name).shape[1:]
            rows = []
            for masks in laid:
                kept = torch.ones(shape, dtype=torch.bool, device=self.ranks.device)
                for given, mask in masks.items():
                    if first[given] == name:
                        kept &= mask
                rows.append(kept)
            found[name] = torch.stack(rows)
        return found

    # -- steps

    def _answers(self, images: Tensor, shared: bool) -> Tensor:
        """(nets, images, classes)."""

        def one(trained: dict[str, Tensor], fixed: dict[str, Tensor], images: Tensor) -> Any:
            with self.passes:
                return torch.func.functional_call(self.base, {**trained, **fixed}, (images,))

        with torch.autocast(self.ranks.device.type, self.amp or torch.bfloat16, enabled=bool(self.amp)):
            places = (0, 0, None if shared else 0)
            given = torch.func.vmap(one, in_dims=places)(self.trained, self.fixed, images)
        if not isinstance(given, Tensor) or given.dim() != 3:
            raise RuntimeError("the model gives more than one answer an image")
        return given if given.dtype == torch.float64 else given.float()

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """(images, labels, whether all nets share them)."""
        own = list(dict.fromkeys(self.seeds))
        if len(own) == 1:
            for batch in self.source.epoch(own[0], epoch):
                yield batch.inputs, batch.targets, True
            return
        which = [own.index(seed) for seed in self.seeds]
        for batches in zip(*(self.source.epoch(seed, epoch) for seed in own), strict=True):
            yield (
                torch.stack([batches[place].inputs for place in which]),
                torch.stack([batches[place].targets for place in which]),
                False,
            )

    def _losses(self, answers: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        """Summed loss and right answers of each net."""
        nets, count, classes = answers.shape
        wanted = labels.expand(nets, count)
        flat = F.cross_entropy(
            answers.reshape(-1, classes), wanted.reshape(-1), reduction="none", label_smoothing=smoothing
        )
        return flat.view(nets, count).sum(1), (answers.argmax(2) == wanted).sum(1)

    def _step(self) -> None:
        gradients = [parameter.grad for parameter in self.trained.values() if parameter.grad is not None]
        if self.recipe.clip:
            for weight, mask in zip(self.fused.weights, self.fused.masks):
                for parameter in self.trained.values():
                    if parameter.data_ptr() == weight.data_ptr() and parameter.grad is not None:
                        parameter.grad.mul_(mask)
            norms = torch.stack([each.flatten(1).norm(dim=1) for each in gradients]).norm(dim=0)
            scale = (self.recipe.clip / (norms + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_
            for each in gradients:
                each.mul_(scale.view(-1, *[1] * (each.dim() - 1)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.fused()

    def run_epoch(self, epoch: int, progress: Progress | None) -> None:
        """Train and test all nets for one epoch."""
        began, recipe, steps = time.perf_counter(), self.recipe, self.source.steps
        self.modes.train()
        loss, right, seen = self._nothing()
        for number, (images, labels, shared) in enumerate(self._batches(epoch)):
            rate = learning_rate(recipe, epoch * steps + number, steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            answers = self._answers(images, shared)
            smooth = smoothed(recipe.label_smoothing, answers.shape[2], recipe.smoothing == "others")
            losses, correct = self._losses(answers, labels, smooth)
            start = number // recipe.accumulate * recipe.accumulate
            counts = (self.source.sizes or [])[start : min(start + recipe.accumulate, steps)]
            (losses.sum() / sum(counts)).backward()
            if number + 1 == steps or (number + 1) % recipe.accumulate == 0:
                self._step()
            loss, right, seen = loss + losses.detach(), right + correct, seen + labels.shape[-1]
        trained = self._means(loss, right, seen)
        if odd := [place for place, (value, _) in enumerate(trained) if not math.isfinite(value)]:
            raise TrainingError(
                f"the loss of net {odd[0] + 1} of {len(self.masks)} is not a finite number any more in epoch "
                f"{epoch + 1}; a smaller lr, or a warmup, helps"
            )
        looks = {part: self._looked_at(part) for part in self.source.parts[1:]}
        took = time.perf_counter() - began
        first = learning_rate(recipe, epoch * steps, steps)
        for place, history in enumerate(self.history):
            row: dict[str, Any] = {
                "epoch": epoch + 1,
                "train_loss": trained[place][0],
                "train_accuracy": trained[place][1],
            }
            for part in ("val", "test") if "val" in looks else ("test",):
                value, share = looks[part][place]
                row |= {f"{part}_loss": value if math.isfinite(value) else None, f"{part}_accuracy": share}
            history.append(row | {"lr": first, "seconds": took / len(self.masks)})
        if progress is not None:
            progress(epoch + 1, recipe.epochs, f"epoch {epoch + 1} of {recipe.epochs}, {len(self.masks)} nets")

    def _nothing(self) -> tuple[Tensor, Tensor, int]:
        zeros = torch.zeros(2, len(self.masks), dtype=widest(self.ranks.device), device=self.ranks.device)
        return zeros[0], zeros[1], 0

    @staticmethod
    def _means(loss: Tensor, right: Tensor, seen: int) -> list[tuple[float, float]]:
        return [(a / seen, b / seen) for a, b in zip(loss.tolist(), right.tolist())]

    @torch.no_grad()
    def _looked_at(self, part: str) -> list[tuple[float, float]]:
        self.base.eval()
        loss, right, seen = self._nothing()
        for batch in self.source.look(part):
            losses, correct = self._losses(self._answers(batch.inputs, True), batch.targets, 0.0)
            loss, right, seen = loss + losses, right + correct, seen + batch.examples
        self.modes.train()
        return self._means(loss, right, seen)

    def carried_out(self, progress: Progress | None) -> list[Run]:
        """All epochs; the runs, each with its own module."""
        with equal_bits(self.recipe.deterministic, False):
            for epoch in range(self.recipe.epochs):
                with own_randomness(mixed(self.seeds[0], epoch + 1, 1), self.ranks.device):
                    self.run_epoch(epoch, progress)
        stacks = self.trained | self.fixed
        runs = []
        for place, net in enumerate(self.nets):
            inner = unwrapped(net)
            with torch.no_grad():
                for name, held in [*inner.named_parameters(), *inner.named_buffers()]:
                    held.copy_(stacks[name][place])
            runs.append(
                Run(
                    masks=self.masks[place],
                    recipe=self.recipe,
                    history=tuple(self.history[place]),
                    seed=self.seeds[place],
                    device=str(self.ranks.device),
                    notes=(*self.source.notes, *self.passes.notes),
                    folder=None,
                    model=inner,
                )
            )
        return runs
