"""`train`: a network, a data set and a recipe in, a trained network and its run folder out."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from topo import networks
from topo._support.doors import first_line
from topo._support.seeds import as_rng
from topo._support.trees import require_tree
from topo.data import Dataset
from topo.errors import TopoError, TrainingError
from topo.files import write_masks
from topo.masks import MaskSet
from topo.models.modules.calling import Batch, is_lazy, scores_of
from topo.models.modules.holders import unwrapped
from topo.models.modules.stored import Storage
from topo.pruners.initial import rescale
from topo.pruners.parameters import Example, masked_parameters
from topo.quotas import budgets
from topo.stranger import in_one_line, out_of_memory, torch_kept
from topo.trace.inputs import carried_name
from topo.train.dynamic import Dynamics, dynamics, evened
from topo.train.feed import mixed
from topo.train.fit import Fit, Progress, own_randomness
from topo.train.folder import SCHEMA, Folder, environment
from topo.train.gradinit import gradinit
from topo.train.identity import structure
from topo.train.initial import initialise
from topo.train.masking import fitted, in_place, laid_aside, tensor_of
from topo.train.modes import Modes, modes_kept
from topo.train.ranks import Ranks, ranks
from topo.train.recipe import Recipe, find_recipe
from topo.train.record import Record, is_best
from topo.train.sequences import Sequences
from topo.train.source import Images, Source, source_of
from topo.train.task import Loss, Task

if TYPE_CHECKING:
    from topo.wiring import Wiring

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Run(Record):
    """A finished training run: its record, and the trained model on the device it was trained on."""

    model: nn.Module


Several = list[Any] | tuple[Any, ...]


@torch_kept()
def train(
    model: str | nn.Module,
    data: str | Path | Dataset | Any,
    *,
    masks: MaskSet | Mapping[str, Any] | Several | None = None,
    recipe: str | Path | Mapping[str, Any] | Recipe = "quick",
    epochs: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    rng: int | np.random.Generator | Several = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    wiring: Wiring | None = None,
    loss: Loss | None = None,
    output: str | int | None = None,
) -> Any:
    """Train a network, masked or dense.

    model: a name (`topo list models`, file.py:factory), whose weights are drawn as after torch.manual_seed(rng), or a
    module, which is trained in place from the weights it has (unless the recipe's `init` draws them anew). Modules
    that were set to eval() in a model that trains stay so (frozen batch norms). masks: by parameter name; by default
    those of `apply_masks(model, ...)`, and none is a dense run. Pruned weights are exactly zero after every step.
    data: what `topo.data.load` takes, tokens (a text, a file of token numbers, `topo.data.tokens`), or DataLoaders
    (lists of batches): one to train on, a tuple (train, test) or (train, val, test), or a dict by these names; a batch
    is (inputs, targets) or a dict. recipe: see `topo.train.recipe`; batch, padding, flip and val are not for
    DataLoaders. loss: (answer, targets) -> mean, by default what the targets decide (`topo.train.task.Task`: classes,
    tokens, pixels, values). output: which part of the answer is judged, a key or a place; by default the logits, or
    the first floating tensor. epochs: other than the recipe's, to which its milestones scale. device: auto, cpu, cuda,
    cuda:1. threads: of the processor, torch's choice by default. out: the run folder. resume: go on from its
    checkpoint, bit for bit on the same device. progress(done, total,
    label): called about twice a second. wiring: only for masks whose layout shapes do not tell.

    A list of masks, or of seeds as rng (or both, as long), trains as many networks side by side, as `topo.train_many`,
    and gives a tuple of runs; out, resume, loss and output are for one.

    Under torchrun every process calls this with the same arguments; the batch is the global one.

    >>> masks = topo.generate("erk", "mlp:64-32-10", density=0.5)
    >>> run = topo.train("mlp:64-32-10", "digits", masks=masks, epochs=1)
    >>> run.masks == masks, run.final_accuracy > 0.5, topo.verify_masks(run.model, masks)
    (True, True, ())

    Raises TrainingError, one line, for a run that cannot start, diverges or runs out of memory (its message names the
    checkpoint that is left), and the errors of masks and data.
    """
    if isinstance(masks, list | tuple) or isinstance(rng, list | tuple):
        for name, value in (("out", out), ("resume", resume), ("loss", loss), ("output", output)):
            if value:
                raise TrainingError(f"{name} is for one network; several masks or seeds train side by side without it")
        import topo

        each = list(masks) if isinstance(masks, list | tuple) else [masks] * len(cast(Several, rng))
        how: dict[str, Any] = {"recipe": recipe, "epochs": epochs, "device": device, "threads": threads}
        return topo.train_many(model, each, data, seeds=cast(Any, rng), progress=progress, wiring=wiring, **how)
    chosen = find_recipe(recipe) if epochs is None else find_recipe(recipe).for_epochs(epochs)
    seed = seed_of(rng)
    with on_threads(threads), ranks(device) as here, memory_errors():
        source = source_of(data, chosen, here)
        task = Task(loss, output, isinstance(source, Sequences))
        network, name = built(shaped(model, source, task), seed)
        source.suit(unwrapped(network))
        moved: list[MaskSet] = []
        with modes_kept(unwrapped(network)), laid_aside(network, masks, wiring, moved) as given:
            given, notes = started(unwrapped(network), source, given, chosen, seed, wiring)
            given = here.same_masks(given)
            fit = prepared(network, source, given, chosen, here, seed, wiring, task=task)
            folder = Folder(out) if out is not None and here.first else None
            where = None if out is None else Path(out)
            with nullcontext() if folder is None else folder.alone():
                begin(fit, folder, described(name, fit, given), given, resume, where)
                carry_out(fit, folder, progress)
                finish(fit, folder)
                if fit.moving is not None:
                    given = fit.moving.masks()
                    moved.append(given)
                    if folder is not None:
                        write_masks(given, folder / "masks.safetensors")
                record = recorded(fit, given)
                record["notes"] += (*notes, *networks.drawn_at_random(model))
                run = Run(**record, folder=where, model=unwrapped(network))
                if folder is not None:
                    folder.write_json("summary.json", run.summary())
            here.wait()
    return run


def started(
    model: nn.Module, source: Source, masks: MaskSet | None, recipe: Recipe, seed: int, wiring: Wiring | None
) -> tuple[MaskSet | None, tuple[str, ...]]:
    """The masks to start from, where the recipe moves them: those given, or random ones of its density; and notes."""
    if not recipe.moves:
        return masks, ()
    if masks is None and not recipe.density:
        raise TrainingError(f"sparse = '{recipe.sparse}' moves masks and there are none; give some, or density = 0.1")
    if masks is not None and recipe.density:
        raise TrainingError(f"density = {recipe.density:g} draws masks, and masks are given; leave one of them out")
    notes: list[str] = []
    if masks is None:
        held, _, notes = masked_parameters(model, wiring=wiring, example=example_of(model, source.first()))
        shapes, rng = {name: how.mask_shape for name, how in held.items()}, as_rng(mixed(seed, 4))
        rows = {}
        for name, count in budgets("erk", shapes, density=recipe.density).items():
            flat = np.zeros(int(np.prod(shapes[name])), np.bool_)
            flat[rng.choice(flat.size, count, replace=False)] = True
            rows[name] = flat.reshape(shapes[name])
        turned = {name: how.groups for name, how in held.items() if how.turned}
        masks = MaskSet(rows, provenance={"input_first": turned} if turned else {})
        masks = masks.with_provenance(method="erk", seed=seed, density=recipe.density)
    if dynamics[recipe.sparse].even:
        masks, count = evened(masks, seed)
        if count:
            notes.append(f"{count:,} of {masks.kept:,} weights moved, for every unit of a layer to keep as many")
    return masks, tuple(notes)


def finish(fit: Fit, folder: Folder | None) -> None:
    """The weights that were tested last stay in the model and go into the folder."""
    if folder is not None:
        folder.write_weights(fit.tested(), "final.safetensors")
    fit.settle()


def recorded(fit: Fit, masks: MaskSet | None) -> dict[str, Any]:
    """What a record holds, but for the folder."""
    return {
        "masks": masks,
        "recipe": fit.recipe,
        "history": tuple(fit.history),
        "seed": fit.seed,
        "device": str(fit.ranks.device),
        "notes": (*fit.source.notes, *fit.task.passes.notes),
    }


def seed_of(rng: int | np.random.Generator) -> int:
    """The seed itself, or one drawn by a Generator; TopoError for what is neither."""
    drawn = as_rng(rng)
    return int(rng) if isinstance(rng, int | np.integer) else int(drawn.integers(2**31))


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """torch on so many threads inside, and on as many as before outside; TrainingError if there is no such number."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise TrainingError(f"threads is {count!r}; it should be a whole number from 1")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shaped(model: str | nn.Module, source: Source, task: Task) -> str | nn.Module:
    """The model, after one batch where it has lazy layers, drawn as after torch.manual_seed(0)."""
    if isinstance(model, nn.Module):
        require_tree(model)
    if isinstance(model, nn.Module) and is_lazy(model):
        inner = unwrapped(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try_out(inner.to(source.ranks.device), source, task)
    return model


def built(model: str | nn.Module, seed: int) -> tuple[nn.Module, str]:
    """The module and its name; a named one with the weights that torch.manual_seed(seed) gives it."""
    if isinstance(model, nn.Module):
        require_tree(model)
        return model, carried_name(model)
    if not isinstance(model, str | Path):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TrainingError(f"{kind} is not a model; give a torch.nn.Module, the name of a model or file.py:factory")
    network = networks.ready(str(model), seed)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise TrainingError(f"the model '{model}' is built without weights; give a module with weights")
    return network, str(model)


def prepared(
    model: nn.Module,
    source: Source,
    masks: MaskSet | None,
    recipe: Recipe,
    here: Ranks,
    seed: int,
    wiring: Wiring | None = None,
    first: int = 0,
    task: Task | None = None,
) -> Fit:
    """The model on its device, initialised and masked, ready to train from epoch `first`."""
    network, task = unwrapped(model), task or Task()
    held, laid = dressed(network, source, masks, recipe, here, seed, wiring, task)
    fit = Fit(network, source, recipe, laid, here, seed, first, task)
    if recipe.moves and masks is not None:
        steps = -(-fit.steps // recipe.accumulate) * recipe.epochs
        fit.moving = Dynamics(
            recipe.sparse, network, masks, held, laid, every=recipe.update_every, alpha=recipe.alpha,
            end=recipe.update_until * steps, seed=seed,
        )  # fmt: skip
    return fit


def dressed(
    network: nn.Module,
    source: Source,
    masks: MaskSet | None,
    recipe: Recipe,
    here: Ranks,
    seed: int,
    wiring: Wiring | None,
    task: Task,
) -> tuple[dict[str, Storage], dict[str, Tensor]]:
    """Put the model on its device and draw its weights; how parameters hold masks, and those to be kept in place."""
    if recipe.best_on == "val" and "val" not in source.parts:
        raise TrainingError(
            f"the recipe {recipe.name!r} has best_on = 'val' and '{source.name}' has no validation part; val = 0.1 "
            "holds out a tenth of the training images"
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise TrainingError(f"the model {type(network).__name__} is on the meta device and has no weights to train")
    with in_one_line(f"the model does not go to {here.device}"):
        network.to(here.device)
    source.suit(network)
    try_out(network, source, task)
    laid: dict[str, Tensor] = {}
    held: dict[str, Storage] = {}
    if masks is not None:
        held = fitted(network, masks, wiring)
        laid = {name: tensor_of(masks[name], held[name], here.device) for name in in_place(network, masks, wiring)}
    initialise(network, recipe.init, laid, torch.Generator().manual_seed(mixed(seed, 1)))
    if recipe.init == "rescaled" and masks is not None:
        rescale(network, masks)
    if recipe.init == "gradinit":
        _scaled(network, source, laid, here, seed, task)
    return held, laid


def _scaled(
    network: nn.Module, source: Source, laid: dict[str, Tensor], here: Ranks, seed: int, task: Task
) -> dict[str, float]:
    """GradInit on the run's own batches."""
    if here.world > 1:
        raise TrainingError("init = 'gradinit' learns in one process")
    source.lay(False, None)
    drawn = (batch for epoch in itertools.count() for batch in source.epoch(mixed(seed, 6), epoch))
    with modes_kept(network), own_randomness(mixed(seed, 7), here.device), in_one_line("gradinit"):
        Modes(network).train()
        return gradinit(
            network, laid, lambda number: next(drawn),
            lambda running, batch: task.judge(task.answer(running, network, batch), batch).loss / batch.examples,
        )  # fmt: skip


def try_out(model: nn.Module, source: Source, task: Task) -> None:
    """TrainingError if the model does not take the first examples, or if its answer does not fit their targets."""
    batch = source.first()
    images = source.data if isinstance(source, Images) else None
    what = "x".join(map(str, images.shape)) + " images" if images else "batches"
    try:
        with modes_kept(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            answer = task.answer(model.eval(), model, batch)
    except TopoError:
        raise
    except Exception as error:  # whatever the model raises
        if out_of_memory(error):
            raise
        raise TrainingError(f"the model does not take the {what} of '{source.name}': {first_line(error)}") from error
    if images is not None and task.loss is None and task.output is None:
        _check_classes(answer, images)
    with in_one_line(f"the loss of the model on the {what} of '{source.name}'"):
        task.judge(answer, batch)


def _check_classes(answer: Any, data: Dataset) -> None:
    scores, classes = scores_of(answer), len(data.classes)
    if scores is None or scores.shape != (2, classes):
        gives = tuple(scores.shape[1:]) if scores is not None else f"a {type(answer).__name__}"
        raise TrainingError(
            f"the model gives {gives} for an image; '{data.name}' has {classes} classes, so it should give "
            f"({classes},); built-in networks take classes={classes}"
        )


def example_of(model: nn.Module, batch: Batch) -> Example:
    """One example of a batch as the arguments of the model, where the model is."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    inputs = batch.to(device).inputs
    with in_one_line("one example cannot be taken out of a batch"):
        if isinstance(inputs, Mapping):
            return (), {name: part[:1] for name, part in inputs.items()}
        return tuple(part[:1] for part in (inputs if isinstance(inputs, tuple | list) else (inputs,))), {}


def described(name: str, fit: Fit, masks: MaskSet | None) -> dict[str, dict[str, Any]]:
    """What config.toml holds: all that decides a run, but for the device. Data and module are told by their content."""
    return {
        "run": {
            "schema": SCHEMA,
            "model": name,
            "structure": structure(fit.model),
            "data": fit.source.name,
            **fit.source.identity,
            "loss": fit.task.name,
            "output": fit.task.output,
            "masks": "dense" if masks is None else masks.content_hash,
            "seed": fit.seed,
        },
        "recipe": fit.recipe.table(),
    }


def begin(
    fit: Fit, folder: Folder | None, config: dict[str, Any], masks: MaskSet | None, resume: bool, path: Path | None
) -> None:
    """Load the checkpoint of a run that goes on, or write the first files of a new one."""
    if path is None:
        if resume:
            raise TrainingError("there is nothing to resume without a run folder")
        return
    fit.ranks.wait()
    known = Folder(path)
    if known.started and not resume:
        raise TrainingError(f"'{path}' holds a run already; resume it, or choose another folder")
    fit.ranks.wait()
    if known.started and (known / "checkpoint.pt").exists():
        known.check(config)
        fit.load(known.read_checkpoint())
        fit.ranks.require_same("the checkpoints", str(fit.epoch))
        return
    if folder is not None:
        if masks is not None:
            write_masks(masks, folder / "masks.safetensors")
        folder.write_json("environment.json", environment(fit.ranks.device))
        folder.write_config(config)
    fit.ranks.wait()


def carry_out(fit: Fit, folder: Folder | None, progress: Progress | None, keep: int | None = None) -> State | None:
    """The epochs that are left, each with its files; the weights after epoch `keep`, which rewind.pt holds too."""
    left = "no run folder was given, so no checkpoint is left"
    kept: State | None = None
    with equal_bits(fit.recipe.deterministic, fit.choices.compile != "off"), _tensorboard(folder, fit.epoch) as log:
        while True:
            if keep == fit.epoch:
                with in_one_line("the state dict of the model is not one of tensors"):
                    kept = {name: tensor.detach().cpu().clone() for name, tensor in fit.model.state_dict().items()}
                if folder is not None:
                    folder.write_checkpoint({"schema": SCHEMA, "model": kept}, "rewind.pt")
            if folder is not None:
                with in_one_line("the state dict of the model is not one of tensors"):
                    state = fit.state()
                folder.write_checkpoint(state)
                folder.write_history(fit.history)
                if fit.moving is not None and fit.epoch in fit.recipe.mask_epochs:
                    folder.write_moved(fit.moving.masks(), fit.epoch)
                left = f"'{folder / 'checkpoint.pt'}' holds epoch {fit.epoch}"
            if fit.epoch >= fit.recipe.epochs:
                return kept
            try:
                fit.run_epoch(progress)
            except TrainingError as error:
                raise TrainingError(f"{error}; {left}") from error.__cause__
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise TrainingError(
                    f"out of memory on {fit.ranks.device} in epoch {fit.epoch + 1} with batches of "
                    f"{fit.recipe.batch}: a smaller batch, or placement stream, needs less; {left}"
                ) from None
            log(fit.history[-1])
            if folder is not None and is_best(fit.history, fit.recipe):
                folder.write_weights(fit.tested(), "best.safetensors")


@contextmanager
def equal_bits(requested: bool, compiled: bool) -> Iterator[None]:
    """torch's deterministic kernels inside, where the recipe promises equal bits; torch warns where it has none."""
    before, memory = torch.get_deterministic_debug_mode(), cast(Any, torch.utils.deterministic)
    filled, workspace = memory.fill_uninitialized_memory, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    # The debug mode is use_deterministic_algorithms(warn_only=True) without importing the compiler (two seconds).
    with torch.backends.cudnn.flags(enabled=True, benchmark=not requested, deterministic=requested):
        try:
            if requested:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
                memory.fill_uninitialized_memory = False  # it writes into memory that nothing reads
                torch.set_deterministic_debug_mode("warn")
            if requested and compiled:
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            if requested and compiled:
                torch.use_deterministic_algorithms(False)
            torch.set_deterministic_debug_mode(before)
            memory.fill_uninitialized_memory = filled
            if workspace is None:
                os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Memory that ends before the first epoch, while the data and the model go to the device."""
    try:
        yield
    except TopoError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory before the first epoch: placement stream keeps the images off the device"
        ) from None


@contextmanager
def _tensorboard(folder: Folder | None, epoch: int) -> Iterator[Any]:
    """A function that logs a row of the history, if TensorBoard is installed and there is a folder."""
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        with nullcontext():
            yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard", purge_step=epoch + 1) as writer:  # type: ignore[no-untyped-call]

        def log(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, row["epoch"])  # type: ignore[no-untyped-call]

        yield log
