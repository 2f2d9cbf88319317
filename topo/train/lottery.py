"""Iterative magnitude pruning: train, prune the smallest weights, rewind, and again.

Frankle & Carbin 2019 (rewinding to the start), Frankle et al. 2020 (to an early epoch k), Renda et al. 2020 (learning
rate rewinding: keep the trained weights, replay the schedule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from topo._support.seeds import as_rng
from topo.data import Dataset
from topo.errors import TrainingError
from topo.files import write_masks
from topo.masks import MaskSet
from topo.models.modules.holders import holder, unwrapped
from topo.models.modules.stored import Storage
from topo.networks import drawn_at_random
from topo.pruners import TIES
from topo.pruners.parameters import masked_parameters
from topo.pruners.selection import Lots, top
from topo.stranger import in_one_line, torch_kept
from topo.train.fit import Progress
from topo.train.folder import Folder
from topo.train.masking import laid_aside, put_back, together
from topo.train.modes import modes_kept
from topo.train.ranks import ranks
from topo.train.recipe import Recipe, find_recipe
from topo.train.record import Record
from topo.train.run import (
    State,
    begin,
    built,
    carry_out,
    described,
    example_of,
    finish,
    memory_errors,
    on_threads,
    prepared,
    recorded,
    seed_of,
    shaped,
)
from topo.train.sequences import Sequences
from topo.train.source import source_of
from topo.train.task import Loss, Task

if TYPE_CHECKING:
    from topo.wiring import Wiring

_REWINDS = ("weights", "learning_rate")
OPTIONS = ("fraction", "rewind", "rewind_epoch", "layers", "ties")  # of imp, that change what it finds


@dataclass(frozen=True, eq=False)
class Tickets:
    """What iterative magnitude pruning found.

    model: trained at the last level. masks: of that level. levels: the record of each; level 0 is dense. folder: where
    their run folders are.
    """

    model: nn.Module
    masks: MaskSet
    levels: tuple[Record, ...]
    folder: Path | None = None


def level_budgets(size: int, density: float, fraction: float) -> tuple[int, ...]:
    """Kept weights at levels 1, 2, ...: round(size (1 - fraction)^level), the last one exactly round(density size).

    >>> level_budgets(1000, 0.5, 0.2)
    (800, 640, 512, 500)
    """
    target = round(density * size)
    count = max(1, ceil(log(density) / log(1 - fraction) - 1e-9))
    return (*(max(target, round(size * (1 - fraction) ** level)) for level in range(1, count)), target)


def smallest_pruned(
    weights: dict[str, np.ndarray], masks: MaskSet, keep: int, rng: np.random.Generator, lots: Lots | None = None
) -> MaskSet:
    """The `keep` largest magnitudes among the kept weights of all layers together; of equal ones the generator draws.

    weights: in the masks' layout. lots: counts those that are drawn.
    """
    flat = np.concatenate(
        [np.where(masks[name], np.abs(weights[name]).astype(np.float64), -1.0).reshape(-1) for name in masks]
    )
    kept = top(flat, keep, rng, lots)
    ends = np.cumsum([masks.rows(name).size for name in masks])[:-1]
    parts = zip(masks, np.split(kept, ends))
    rows = {name: part.reshape(masks.rows(name).shape) for name, part in parts}
    return MaskSet(rows, provenance=masks.provenance)


def require_levels(
    recipe: Recipe, fraction: Any = 0.2, rewind: Any = "weights", rewind_epoch: Any = 0, ties: Any = "few"
) -> None:
    """TrainingError for options of `imp` that are none, with a recipe."""
    if not _is_share(fraction):
        raise TrainingError(f"fraction {fraction!r} of the weights cannot be pruned each level; it is above 0, below 1")
    if rewind not in _REWINDS:
        raise TrainingError(f"rewind is {rewind!r}; it should be one of {', '.join(_REWINDS)}")
    if ties not in TIES:
        raise TrainingError(f"ties is {ties!r}; it should be one of {', '.join(TIES)}")
    if not isinstance(rewind_epoch, int) or not 0 <= rewind_epoch < recipe.epochs:
        raise TrainingError(
            f"rewind_epoch is {rewind_epoch!r}; the recipe has epochs 0 to {recipe.epochs - 1} to go to"
        )


@torch_kept()
def imp(
    model: str | nn.Module,
    data: str | Path | Dataset | Any,
    *,
    density: float,
    fraction: float = 0.2,
    rewind: str = "weights",
    rewind_epoch: int = 0,
    layers: str | Sequence[str] | None = None,
    wiring: Wiring | None = None,
    recipe: str | Path | dict[str, Any] | Recipe = "quick",
    epochs: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    rng: int | np.random.Generator = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
    output: str | int | None = None,
    ties: str = "few",
) -> Tickets:
    """Iterative magnitude pruning down to a density, exactly round(density * size) weights.

    Each level trains with `recipe`, then prunes `fraction` of the remaining weights, the smallest of all layers
    together (at the papers' 20 %, density 0.1 takes 11 levels after the dense one). rewind="weights": survivors go back
    to their values after `rewind_epoch` epochs of level 0, and later levels train the remaining epochs;
    "learning_rate": they keep their trained values and only the schedule is replayed from `rewind_epoch`. The optimizer
    starts afresh at each level. layers: names or patterns of layers; by default every linear layer and convolution of
    the model's wiring, the parameters that every method masks (a tied weight once). wiring: of the model, traced from
    the data by default. Masks that are on the model stay: they are where a layer starts from. ties: "few" or "random":
    of weights of equal magnitude at the edge some are drawn by lot; where most of the kept are, only by "random".

    out: a folder with `level_00`, `level_01`, ... (run folders) and masks.safetensors; resume goes on with the level,
    and within it the epoch, that was reached. Other arguments as in `train`.

    >>> tickets = topo.imp("mlp:64-10", "digits", density=0.64, epochs=1)
    >>> [level.masks.kept for level in tickets.levels]
    [640, 512, 410]

    TrainingError for a density outside 0 .. 1, a fraction outside 0 .. 1 or a rewind epoch outside the recipe's;
    TopoError where most of the kept weights would be drawn by lot (weights that are all 0).
    """
    chosen = find_recipe(recipe)
    chosen = chosen if epochs is None else chosen.for_epochs(epochs)
    if not _is_share(density):
        raise TrainingError(f"density {density!r} is none to prune to; it should be above 0 and below 1")
    require_levels(chosen, fraction, rewind, rewind_epoch, ties)
    if chosen.moves:
        raise TrainingError(f"sparse = '{chosen.sparse}' moves masks, which imp's levels hold; train does that")
    seed = seed_of(rng)
    with on_threads(threads), ranks(device) as here, memory_errors(), ExitStack() as after:
        source = source_of(data, chosen, here)
        task = Task(loss, output, isinstance(source, Sequences))
        network, name = built(shaped(model, source, task), seed)
        inner = unwrapped(network)
        source.suit(inner)
        after.enter_context(modes_kept(inner))
        example = example_of(inner, source.first())
        held, found, told = masked_parameters(inner, wiring=wiring, example=example, layers=layers)
        if out is not None and here.first:
            after.enter_context(Folder(out).alone())
        with laid_aside(inner, None, found) as there:
            masks = _start(there, held)
            budgets = _budgets(masks, density, fraction)
            draws, lots = as_rng(seed).spawn(1)[0], Lots()
            rewound: State = {}
            records: list[Record] = []
            for level, keep in enumerate((masks.kept, *budgets)):
                if level:
                    lots.clear()
                    masks = smallest_pruned(_weights(inner, held), masks, keep, draws, lots)
                    lots.check(keep, ties)
                    if rewind == "weights":
                        with in_one_line("the model does not take the weights back that it had"):
                            inner.load_state_dict(rewound)
                every = masks if there is None else together(there, masks)
                path = None if out is None else Path(out) / f"level_{level:02d}"
                # Level 0 draws the weights and trains from the start.
                level_recipe, first = (chosen.changed(init="as_built"), rewind_epoch) if level else (chosen, 0)
                fit = prepared(inner, source, every, level_recipe, here, seed, found, first, task)
                folder = Folder(path) if path is not None and here.first else None
                config = described(name, fit, every)
                config["imp"] = {"level": level, "fraction": fraction, "rewind": rewind, "rewind_epoch": rewind_epoch}
                begin(fit, folder, config, every, resume, path)
                kept = carry_out(fit, folder, _named(progress, level, len(budgets)), None if level else rewind_epoch)
                if not level:
                    rewound = kept if kept is not None else Folder(_there(path)).read_checkpoint("rewind.pt")["model"]
                finish(fit, folder)
                records.append(Record(**recorded(fit, every), folder=path))
                if folder is not None:
                    folder.write_json("summary.json", records[-1].summary())
                here.wait()
        if there is not None:
            put_back(inner, every, wiring=found)
        notes = [*told, *lots.notes(masks.kept), *drawn_at_random(model)]
        masks = every.with_provenance(**{"notes": notes} if notes else {})
        masks = masks.with_provenance(method="imp", model=name, seed=seed, options={
            "fraction": fraction, "rewind": rewind, "rewind_epoch": rewind_epoch, "recipe": chosen.name,
            "epochs": chosen.epochs,
        })  # fmt: skip
        if out is not None and here.first:
            write_masks(masks, Path(out) / "masks.safetensors")
        here.wait()
    return Tickets(inner, masks, tuple(records), None if out is None else Path(out))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and bool(0 < value < 1)


def _start(there: MaskSet | None, held: Mapping[str, Storage]) -> MaskSet:
    """The masks that the levels start from: those on the model, or dense ones."""
    rows = {
        name: there[name] if there is not None and name in there else np.ones(storage.mask_shape, np.bool_)
        for name, storage in held.items()
    }
    turned = {name: storage.groups for name, storage in held.items() if storage.turned}
    return MaskSet(rows, provenance={"input_first": turned} if turned else {})


def _budgets(masks: MaskSet, density: float, fraction: float) -> tuple[int, ...]:
    """Kept weights at levels 1, 2, ..., each fewer than before; TrainingError where none or no fewer stay."""
    budgets = level_budgets(masks.size, density, fraction)
    if budgets[-1] < 1:
        raise TrainingError(f"density {density} keeps none of {masks.size:,} weights; at least one should stay")
    if masks.kept <= budgets[-1]:
        raise TrainingError(
            f"density {density} keeps {budgets[-1]:,} of {masks.size:,} weights; the masks on the model keep "
            f"{masks.kept:,} already"
        )
    return tuple(keep for keep in budgets if keep < masks.kept)


def _weights(model: nn.Module, held: dict[str, Storage]) -> dict[str, np.ndarray]:
    return {
        name: storage.mask(holder(model, name).weight.detach().float().cpu().numpy()) for name, storage in held.items()
    }


def _there(path: Path | None) -> Path:
    if path is None:
        raise TrainingError("there is nothing to resume without a run folder")
    return path


def _named(progress: Progress | None, level: int, last: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, label: progress(done, total, f"level {level} of {last}, {label}")
