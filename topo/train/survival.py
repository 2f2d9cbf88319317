"""`irp`: iterative pruning with rewinding, which counts how many rounds each weight survives."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.atomic import made_folder
from topo._support.seeds import as_rng
from topo.data import Dataset
from topo.errors import TrainingError
from topo.files import write_masks
from topo.masks import MaskSet
from topo.models.modules.holders import holder, unwrapped
from topo.pruners.parameters import masked_parameters
from topo.pruners.predicted import write_survival
from topo.stranger import told, torch_kept
from topo.train.fit import Progress
from topo.train.lottery import smallest_pruned
from topo.train.masking import applied_masks
from topo.train.modes import modes_kept
from topo.train.ranks import ranks
from topo.train.recipe import Recipe, find_recipe
from topo.train.record import Record
from topo.train.run import built, example_of, on_threads, seed_of, shaped, train
from topo.train.source import Images, source_of
from topo.train.task import Task

SCHEDULES = ("num", "pct")


@dataclass(frozen=True, eq=False)
class Survival:
    """What iterative pruning counted.

    survived: parameter -> rounds, laid out as the parameter. masks: after the last round. rounds: the record of each.
    """

    survived: dict[str, np.ndarray]
    masks: MaskSet
    rounds: tuple[Record, ...]


def shares(rounds: int, density: float, schedule: str = "num") -> list[float]:
    """Share of the survivors that round i = 0, 1, ... keeps; the product is `density`.

    num: 1 - (1 - d) / (T - (1 - d) i), which prunes as many weights in each round; pct: d^(1 / T).

    >>> shares(2, 0.5)
    [0.75, 0.6666666666666667]
    """
    if schedule == "pct":
        return [density ** (1 / rounds)] * rounds
    return [1 - (1 - density) / (rounds - (1 - density) * i) for i in range(rounds)]


@torch_kept()
@told("irp on the model")
def irp(
    model: str | nn.Module,
    data: str | Path | Dataset | Any,
    *,
    density: float = 0.01,
    rounds: int = 20,
    schedule: str = "num",
    recipe: str | Path | Mapping[str, Any] | Recipe = "quick",
    epochs: int | None = None,
    layers: str | Sequence[str] | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    rng: int | np.random.Generator = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Survival:
    """Prune in rounds, all state rewound each time, and count the rounds that each weight survives.

    Each round trains the network from its first state (weights, biases, batch norms) under the masks of the round
    before, then keeps `shares` of the survivors, the largest magnitudes of all layers together. out: a folder with
    round_01, round_02, ... (run folders), masks.safetensors and survival.safetensors, from which `topo autosparse fit`
    learns: of every weight its first value, the gradient of the mean loss there over the training part, and its count.
    resume: go on with the round, and within it the epoch, that was reached. Other arguments as in `topo.train`.

    >>> found = irp("mlp:64-10", "digits", density=0.5, rounds=2, epochs=1)
    >>> found.masks.kept, sorted(set(found.survived["fc1.weight"].ravel().tolist()))
    (320, [0, 1, 2])

    TrainingError, one line, for a density outside 0 .. 1, fewer than one weight, or a model that is masked already.
    """
    chosen = find_recipe(recipe) if epochs is None else find_recipe(recipe).for_epochs(epochs)
    if not isinstance(density, int | float) or not 0 < density < 1:
        raise TrainingError(f"density {density!r} is none to prune to; it should be above 0 and below 1")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise TrainingError(f"rounds is {rounds!r}; it should be a whole number from 1")
    if schedule not in SCHEDULES:
        raise TrainingError(f"schedule is {schedule!r}; it should be one of {', '.join(SCHEDULES)}")
    if chosen.moves:
        raise TrainingError(f"sparse = '{chosen.sparse}' moves masks, which the rounds of irp hold")
    seed = seed_of(rng)
    with on_threads(threads), ranks(device) as here:
        if here.world > 1:
            raise TrainingError("irp runs in one process")
        source = source_of(data, chosen, here)
        if not isinstance(source, Images):
            raise TrainingError("irp takes a data set of images, neither DataLoaders nor tokens")
        network, _ = built(shaped(model, source, Task()), seed)
        first = unwrapped(copy.deepcopy(network)).to(here.device)
        if applied_masks(first) is not None:
            raise TrainingError("the model is masked already; irp starts from a dense one")
        held, _, _ = masked_parameters(first, example=example_of(first, source.first()), layers=layers)
        masks = MaskSet({name: np.ones(how.mask_shape, np.bool_) for name, how in held.items()})
        if turned := {name: how.groups for name, how in held.items() if how.turned}:
            masks = masks.with_provenance(input_first=turned)
        if round(density * masks.size) < 1:
            raise TrainingError(f"density {density} keeps none of {masks.size:,} weights; at least one should stay")
        slopes = _gradient(first, source, list(held))
    if out is not None:
        made_folder(out, "the run folder")
    size, left, draws = masks.size, 1.0, as_rng(seed).spawn(1)[0]
    counts = {name: np.zeros(how.mask_shape, np.int16) for name, how in held.items()}
    records: list[Record] = []
    for number, share in enumerate(shares(rounds, density, schedule), 1):
        left *= share
        where = None if out is None else Path(out) / f"round_{number:02d}"
        run = train(
            copy.deepcopy(first), data, masks=masks, recipe=chosen, device=device, out=where, rng=seed,
            resume=resume and where is not None, threads=threads, progress=_named(progress, number, rounds),
        )  # fmt: skip
        records.append(run)
        weights = {n: how.mask(holder(run.model, n).weight.detach().float().cpu().numpy()) for n, how in held.items()}
        keep = round(density * size) if number == rounds else max(round(left * size), round(density * size))
        masks = smallest_pruned(weights, masks, keep, draws)
        for name in counts:
            counts[name] += masks[name]
    masks = masks.with_provenance(method="irp", seed=seed, density=masks.density, options={
        "rounds": rounds, "schedule": schedule, "recipe": chosen.name, "epochs": chosen.epochs,
    })  # fmt: skip
    survived = {name: held[name].parameter(count) for name, count in counts.items()}
    if out is not None:
        write_masks(masks, Path(out) / "masks.safetensors")
        parts = {
            name: (holder(first, name).weight.detach().float().cpu(), slopes[name], torch.tensor(survived[name]))
            for name in survived
        }
        write_survival(Path(out) / "survival.safetensors", parts, {"rounds": rounds, "density": density, "seed": seed})
    return Survival(survived, masks, tuple(records))


def _gradient(model: nn.Module, source: Images, names: list[str]) -> dict[str, Tensor]:
    """Of the mean loss over the training part, in eval mode, images neither cropped nor mirrored."""
    source.suit(model)
    source.lay(False, None)
    weights = [holder(model, name).weight for name in names]
    total = [torch.zeros_like(weight) for weight in weights]
    count, task = len(source.data.train_images), Task()
    with modes_kept(model):
        model.eval()
        for batch in source.straight():
            loss = task.judge(task.answer(model, model, batch), batch).loss / count
            if not loss.requires_grad:
                raise TrainingError(f"nothing can be scored: {task.passes.why_no_gradient()}")
            for held, slope in zip(total, torch.autograd.grad(loss, weights, allow_unused=True)):
                if slope is not None:
                    held += slope
    return {name: slope.detach().float().cpu() for name, slope in zip(names, total)}


def _named(progress: Progress | None, number: int, last: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, label: progress(done, total, f"round {number} of {last}, {label}")
