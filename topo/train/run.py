"""`train`: a network, a data set and a recipe in, a trained network and its run folder out."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from topo import networks
from topo.data import Dataset, load
from topo.errors import TopoError, TrainingError
from topo.files import write_masks
from topo.masks import MaskSet
from topo.models.holders import unwrapped
from topo.pruners.initial import rescale
from topo.trace.inputs import carried_name
from topo.train.feed import mixed
from topo.train.fit import Fit, Progress
from topo.train.folder import SCHEMA, Folder, environment
from topo.train.initial import initialise
from topo.train.masking import fitted, in_place, laid_aside, tensor_of
from topo.train.ranks import Ranks, ranks
from topo.train.recipe import Recipe, find_recipe
from topo.train.record import Record

if TYPE_CHECKING:
    from topo.wiring import Wiring

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Run(Record):
    """A finished training run: its record, and the trained model on the device it was trained on."""

    model: nn.Module


def train(
    model: str | nn.Module,
    data: str | Path | Dataset,
    *,
    masks: MaskSet | Mapping[str, Any] | None = None,
    recipe: str | Path | Mapping[str, Any] | Recipe = "quick",
    epochs: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    rng: int | np.random.Generator = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    wiring: Wiring | None = None,
) -> Run:
    """Train a network, masked or dense.

    model: a name (`topo list models`, file.py:factory), whose weights are drawn as after torch.manual_seed(rng), or a
    module, which is trained in place from the weights it has (unless the recipe's `init` draws them anew). masks: by
    parameter name; by default those of `apply_masks(model, ...)`, and none is a dense run. Pruned weights are exactly
    zero after every step. data, recipe: see `topo.data.load` and `topo.train.recipe`. epochs: other than the recipe's,
    to which its milestones scale. device: auto, cpu, cuda, cuda:1. threads: of the processor, torch's choice by
    default. out: the run folder. resume: go on from its checkpoint, bit for bit on the same device. progress(done,
    total, label): called about twice a second. wiring: only for masks whose layout shapes do not tell.

    Under torchrun every process calls this with the same arguments; the batch is the global one.

    >>> masks = topo.generate("erk", "mlp:64-32-10", density=0.5)
    >>> run = topo.train("mlp:64-32-10", "digits", masks=masks, epochs=1)
    >>> run.masks == masks, run.final_accuracy > 0.5, topo.verify_masks(run.model, masks)
    (True, True, ())

    Raises TrainingError, one line, for a run that cannot start, diverges or runs out of memory (its message names the
    checkpoint that is left), and the errors of masks and data.
    """
    chosen = find_recipe(recipe) if epochs is None else _in_epochs(find_recipe(recipe), epochs)
    seed = int(rng) if isinstance(rng, int | np.integer) else int(rng.integers(2**31))
    with on_threads(threads), ranks(device) as here, _memory_errors():
        dataset = load(data)
        network, name = built(model, seed)
        with laid_aside(network, masks, wiring) as given:
            given = here.same_masks(given)
            fit = prepared(network, dataset, given, chosen, here, seed, wiring)
            folder = Folder(out) if out is not None and here.first else None
            config = described(name, dataset, given, chosen, seed)
            begin(fit, folder, config, given, resume, None if out is None else Path(out))
            carry_out(fit, folder, progress)
            fit.settle()
            where = None if out is None else Path(out)
            run = Run(given, chosen, tuple(fit.history), seed, str(here.device), where, unwrapped(network))
            if folder is not None:
                folder.write_json("summary.json", run.summary())
            here.wait()
    return run


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """torch on so many threads inside, and on as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return recipe.for_epochs(recipe.changed(epochs=epochs).epochs)


def built(model: str | nn.Module, seed: int) -> tuple[nn.Module, str]:
    """The module and its name; a named one with the weights that torch.manual_seed(seed) gives it."""
    if isinstance(model, nn.Module):
        return model, carried_name(model)
    network = networks.build(str(model), seed)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise TrainingError(f"the model '{model}' is built without weights; give a module with weights")
    return network, str(model)


def prepared(
    model: nn.Module,
    data: Dataset,
    masks: MaskSet | None,
    recipe: Recipe,
    here: Ranks,
    seed: int,
    wiring: Wiring | None = None,
    first: int = 0,
) -> Fit:
    """The model on its device, initialised and masked, ready to train from epoch `first`."""
    network = unwrapped(model).to(here.device)
    laid: dict[str, Tensor] = {}
    if masks is not None:
        held = fitted(network, masks, wiring)
        laid = {name: tensor_of(masks[name], held[name], here.device) for name in in_place(network, masks, wiring)}
    initialise(network, recipe.init, laid, torch.Generator().manual_seed(mixed(seed, 1)))
    if recipe.init == "rescaled" and masks is not None:
        rescale(network, masks)
    _check(network, data, here.device)
    return Fit(network, data, recipe, laid, here, seed, first)


def _check(model: nn.Module, data: Dataset, device: torch.device) -> None:
    """TrainingError if the model does not take these images, or does not give one number a class."""
    shape = "x".join(map(str, data.shape))
    was = model.training
    try:
        with torch.no_grad():
            scores = model.eval()(torch.zeros(2, *data.shape, device=device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if _out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise TrainingError(f"the model does not take the {shape} images of '{data.name}': {said}") from None
    finally:
        model.train(was)
    if not isinstance(scores, Tensor) or scores.shape != (2, len(data.classes)):
        gives = tuple(scores.shape[1:]) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise TrainingError(
            f"the model gives {gives} for an image; '{data.name}' has {len(data.classes)} classes, so it should give "
            f"({len(data.classes)},); built-in networks take classes={len(data.classes)}"
        )


def described(name: str, data: Dataset, masks: MaskSet | None, recipe: Recipe, seed: int) -> dict[str, dict[str, Any]]:
    """What config.toml holds: all that decides a run, but for the device."""
    return {
        "run": {
            "schema": SCHEMA,
            "model": name,
            "data": data.name,
            "train_images": len(data.train_images),
            "test_images": len(data.test_images),
            "masks": "dense" if masks is None else masks.content_hash,
            "seed": seed,
        },
        "recipe": recipe.table(),
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
    with _convolutions(fit.recipe.deterministic), _tensorboard(folder, fit.epoch) as log:
        while True:
            if keep == fit.epoch:
                kept = {name: tensor.detach().cpu().clone() for name, tensor in fit.model.state_dict().items()}
                if folder is not None:
                    folder.write_checkpoint({"schema": SCHEMA, "model": kept}, "rewind.pt")
            if folder is not None:
                folder.write_checkpoint(fit.state())
                folder.write_history(fit.history)
                left = f"'{folder / 'checkpoint.pt'}' holds epoch {fit.epoch}"
            if fit.epoch >= fit.recipe.epochs:
                return kept
            try:
                fit.run_epoch(progress)
            except TrainingError as error:
                raise TrainingError(f"{error}; {left}") from None
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                raise TrainingError(
                    f"out of memory on {fit.ranks.device} in epoch {fit.epoch + 1} with batches of "
                    f"{fit.recipe.batch}: a smaller batch, or placement stream, needs less; {left}"
                ) from None
            log(fit.history[-1])


def _convolutions(deterministic: bool) -> Any:
    return torch.backends.cudnn.flags(enabled=True, benchmark=not deterministic, deterministic=deterministic)


def _out_of_memory(error: BaseException) -> bool:
    said = str(error)
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in said or "not enough memory" in said


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Memory that ends before the first epoch, while the data and the model go to the device."""
    try:
        yield
    except TopoError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
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
