"""Where batches come from: the images of a Dataset, cropped and mirrored here, or a user's own DataLoaders.

Sequences of tokens are in `sequences`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from topo.data import Dataset, load
from topo.data.tokens import holds_tokens, load_tokens
from topo.errors import TrainingError
from topo.models.modules.calling import Batch
from topo.stranger import in_one_line
from topo.train.feed import Feed, Plan, fits
from topo.train.ranks import Ranks
from topo.train.recipe import Recipe
from topo.train.sequences import TEST_BATCH, Sequences


class Source(Protocol):
    """Batches for a run, on its device.

    name, noun: what they are called. parts: train and, where there are such, test and val. steps: batches an epoch.
    sizes: of these, over all processes, where they are known beforehand. identity: what tells the data from others, for
    config.toml. notes: what a user should know.
    """

    name: str
    noun: str
    parts: tuple[str, ...]
    steps: int
    sizes: list[int] | None
    identity: dict[str, Any]
    notes: tuple[str, ...]
    ranks: Ranks

    def suit(self, model: nn.Module) -> None:
        """Make batches for this model; before any is asked for."""

    def first(self) -> Batch:
        """A small batch, to see whether the model takes it."""

    def lay(self, channels_last: bool, resident: bool | None) -> None:
        """Take the place on the device; resident: None decides by size."""

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """This process's share of every training batch."""

    def look(self, part: str) -> Iterator[Batch]:
        """This process's share of a part that is tested on."""


class Images:
    """The images of a Dataset.

    A last batch of fewer than two images a process is left out of each epoch, another one every time: batch norm needs
    two. Batches of one image, asked for as such, are given as they are.
    """

    noun = "images"

    def __init__(self, data: Dataset, recipe: Recipe, ranks: Ranks) -> None:
        self.data, self.recipe, self.ranks = data, recipe, ranks
        self.name, self.parts, self.notes = data.name, data.parts, data.notes
        count, batch = len(data.train_images), recipe.batch
        least = 2 * ranks.world if batch > 1 else ranks.world
        self.batches = [(start, min(start + batch, count)) for start in range(0, count, batch)]
        if self.batches[-1][1] - self.batches[-1][0] < least:
            self.batches.pop()
        if not self.batches or (ranks.world > 1 and batch < 2 * ranks.world):
            raise TrainingError(
                f"batches of {min(batch, count)} images are too small for {ranks.world} processes: each needs two"
            )
        self.count, self.steps = count, len(self.batches)
        self.sizes: list[int] | None = [stop - start for start, stop in self.batches]
        self.identity = {f"{part}_images": len(getattr(data, f"{part}_images")) for part in data.parts} | data.digests
        self.flip = recipe.flip and data.flips
        self.feeds: dict[str, Feed] = {}
        self.dtype = torch.float32

    def suit(self, model: nn.Module) -> None:
        """Give images in double precision to a model that is in it."""
        kinds = {parameter.dtype for parameter in model.parameters()}
        self.dtype = torch.float64 if torch.float64 in kinds else torch.float32

    def first(self) -> Batch:
        """Two black images, of the first class and of the last."""
        images = torch.zeros(2, *self.data.shape, dtype=self.dtype, device=self.ranks.device)
        return Batch(images, torch.tensor([0, len(self.data.classes) - 1], device=self.ranks.device), 2)

    def lay(self, channels_last: bool, resident: bool | None) -> None:
        data, padding = self.data, self.recipe.padding
        if resident is None:
            size = data.train_images.nbytes * (1 + 2 * padding / min(data.shape[1:])) ** 2
            size += sum(getattr(data, f"{part}_images").nbytes for part in data.parts[1:])
            resident = not isinstance(data.train_images, np.memmap) and fits(int(size), self.ranks.device)
        for part in data.parts:
            images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
            around, device = padding if part == "train" else 0, self.ranks.device
            moments = data.mean, data.std
            self.feeds[part] = Feed(images, labels, *moments, device, around, resident, channels_last, self.dtype)

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        drawn = Plan.drawn(self.count, seed, epoch, self.recipe.padding, self.flip)
        places = [self.ranks.share(*batch) for batch in self.batches]
        for images, labels in self.feeds["train"].batches(drawn, places):
            yield Batch(images, labels, len(labels))

    def straight(self) -> Iterator[Batch]:
        """The training part in order, neither cropped nor mirrored."""
        data, step = self.data, self.recipe.batch * TEST_BATCH
        resident = self.feeds["train"].resident
        moments = data.mean, data.std
        feed = Feed(
            data.train_images, data.train_labels, *moments, self.ranks.device, resident=resident, dtype=self.dtype
        )  # fmt: skip
        places = [slice(start, min(start + step, self.count)) for start in range(0, self.count, step)]
        for images, labels in feed.batches(Plan.straight(self.count), places):
            yield Batch(images, labels, len(labels))

    def look(self, part: str) -> Iterator[Batch]:
        feed, step = self.feeds[part], self.recipe.batch * TEST_BATCH
        places = [self.ranks.share(start, min(start + step, len(feed))) for start in range(0, len(feed), step)]
        places = [place for place in places if place.stop > place.start]
        for images, labels in feed.batches(Plan.straight(len(feed)), places):
            yield Batch(images, labels, len(labels))


class Loaders:
    """DataLoaders, or lists of batches, by part; they crop, mirror and normalise by themselves."""

    noun = "examples"
    sizes: list[int] | None = None

    def __init__(self, loaders: Mapping[str, Any], recipe: Recipe, ranks: Ranks) -> None:
        self.loaders, self.ranks = loaders, ranks
        self.parts = tuple(loaders)
        self.counts = {part: _length(part, loader) for part, loader in loaders.items()}
        self.steps = self.counts["train"]
        sampler = getattr(loaders["train"], "sampler", None)
        if ranks.world > 1 and not hasattr(sampler, "num_replicas"):
            raise TrainingError("several processes train: without a DistributedSampler their DataLoaders agree")
        held = getattr(loaders["train"], "dataset", loaders["train"])
        self.name = f"{type(loaders['train']).__name__} of {type(held).__name__}"
        digest = _digest(loaders)
        self.identity: dict[str, Any] = {f"{part}_batches": count for part, count in self.counts.items()}
        self.identity["content"] = digest or "unknown"
        self.notes: tuple[str, ...] = ()
        if digest is None:
            self.notes = ("what the data hold is not known beforehand: resumption onto other data would go unnoticed",)
        elif digest.startswith(_EXAMPLES):
            self.notes = (f"the data are told by {_LOOKS} examples of each part: others that differ elsewhere are not",)
        if recipe.padding or recipe.val:
            what = "padding" if recipe.padding else "val"
            self.notes += (f"the recipe's {what} is for data sets of images: a DataLoader does that by itself",)

    def suit(self, model: nn.Module) -> None:
        """Batches come as they are."""

    def first(self) -> Batch:
        with in_one_line("the training data gave no batch"), torch.random.fork_rng(devices=[]):
            held = next(iter(self.loaders["train"]))
        return self._placed("train", held)

    def _placed(self, part: str, held: Any) -> Batch:
        with in_one_line(f"a batch of the {part} data does not go to {self.ranks.device}"):
            return Batch.of(held).to(self.ranks.device)

    def lay(self, channels_last: bool, resident: bool | None) -> None:
        """Nothing is laid anywhere: batches come as they are."""

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        set_epoch = getattr(getattr(self.loaders["train"], "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        return self.look("train")

    def look(self, part: str) -> Iterator[Batch]:
        given, due = 0, self.counts[part]
        batches = iter(self.loaders[part])
        while True:
            with in_one_line(f"the {part} data gave no batch"):
                held = next(batches, None)
            if held is None:
                break
            given += 1
            if given > due:
                break
            yield self._placed(part, held)
        if given != due:
            more = "more" if given > due else f"{given:,}"
            raise TrainingError(f"the {part} data have {due:,} batches by their length and gave {more}")


def source_of(data: Any, recipe: Recipe, ranks: Ranks) -> Images | Loaders | Sequences:
    """A Dataset, what `topo.data.load` reads, tokens, a DataLoader or list of batches, several as a tuple or by part.

    TrainingError for a part of another name, and for data that nothing can be made of.
    """
    if holds_tokens(data):
        held = load_tokens(data)
        return Sequences(held.with_validation(recipe.val) if recipe.val else held, recipe, ranks)
    if recipe.task != "auto" or recipe.length:
        key, value = ("task", recipe.task) if recipe.task != "auto" else ("length", recipe.length)
        raise TrainingError(
            f"the recipe {recipe.name!r} has {key} = {value!r}, which is for tokens; these data are none"
        )
    if isinstance(data, str | Path | Dataset):
        return Images(load(data, val=recipe.val or None), recipe, ranks)
    if isinstance(data, tuple):
        if len(data) not in (2, 3) or any(isinstance(part, Tensor | np.ndarray) for part in data):
            raise TrainingError("data as a tuple are (train, test) or (train, val, test), each a DataLoader or batches")
        data = dict(zip(("train", "test") if len(data) == 2 else ("train", "val", "test"), data))
    if not isinstance(data, Mapping):
        data = {"train": data}
    if odd := [part for part in data if part not in ("train", "test", "val")]:
        raise TrainingError(f"data have a part called {odd[0]!r}; parts are train, test and val")
    if "train" not in data:
        raise TrainingError("data have no part called 'train'")
    if any(isinstance(part, Dataset | str | Path) for part in data.values()):
        raise TrainingError("a Dataset or path holds all parts by itself; it is given alone")
    return Loaders({part: data[part] for part in ("train", "test", "val") if part in data}, recipe, ranks)


def _length(part: str, loader: Any) -> int:
    if isinstance(loader, torch.utils.data.Dataset):
        raise TrainingError(
            f"the {part} data are a {type(loader).__name__}, one by one; a DataLoader makes batches of it"
        )
    try:
        count = len(loader)
    except (TypeError, NotImplementedError):
        count = None
    if count is None or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise TrainingError(
            f"the {part} data are a {type(loader).__name__} without a length; give a DataLoader over a data set with "
            "one, or a list of batches"
        )
    if count < 1:
        raise TrainingError(f"the {part} data hold no batch")
    return count


def _digest(loaders: Mapping[str, Any]) -> str | None:
    """SHA-256 of lists of batches and of TensorDatasets; of other data sets `_EXAMPLES` and that of some examples.

    None where neither is known: a stream, objects that have no content of their own, or examples that come out
    otherwise when they are read again under the same seeds.
    """
    digest, sampled = hashlib.sha256(), False
    for part, loader in loaders.items():
        digest.update(part.encode())
        held = getattr(loader, "dataset", loader)
        held = getattr(held, "tensors", held)
        if isinstance(held, list | tuple):
            if not _update(digest, held):
                return None
            continue
        first, second = hashlib.sha256(), hashlib.sha256()
        if not (_look(first, held) and _look(second, held)) or first.digest() != second.digest():
            return None
        digest.update(first.digest())
        sampled = True
    return _EXAMPLES * sampled + digest.hexdigest()


_EXAMPLES, _LOOKS = "examples:", 8


def _look(digest: Any, held: Any) -> bool:
    """Some examples of a data set from end to end, and how many there are, under seeds of torch, numpy and Python."""
    numbers, words = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002 (data sets draw from it)
            count = len(held)
            places = np.unique(np.linspace(0, count - 1, min(_LOOKS, count)).astype(int))
            return _update(digest, [count, *(held[int(place)] for place in places)])
    except Exception:  # whatever a user's data set raises where it is read out of order
        return False
    finally:
        random.setstate(numbers)
        np.random.set_state(words)  # noqa: NPY002


def _update(digest: Any, held: Any) -> bool:
    """Whether the content is known: of tensors, arrays, pictures, numbers and text, alone or in lists and dicts."""
    if isinstance(held, Mapping):
        held = [part for item in held.items() for part in item]
    if isinstance(held, tuple | list):
        digest.update(f"{len(held)} ".encode())
        return all([_update(digest, part) for part in held])
    if isinstance(held, Tensor) and (held.is_meta or held.layout != torch.strided or held.is_nested):
        return False
    if isinstance(held, Tensor):
        plain = held.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    elif hasattr(held, "__array_interface__"):  # of numpy and of PIL
        array = np.asarray(held)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return not array.dtype.hasobject
    else:
        digest.update(repr(held).encode())
        return held is None or isinstance(held, str | bytes | int | float | bool)
    return True
