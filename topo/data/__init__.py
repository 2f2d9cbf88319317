"""Image data sets from a user's own files, as numpy arrays; the digits are built in.

Images are uint8, labels whole numbers; nothing is downloaded and no file runs code. A data set on disk is recognised by
its layout. Adding a layout is one function under `@layout(...)` in a file of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.registry import Registry
from topo._support.seeds import as_rng
from topo.errors import DataError

__all__ = ["Dataset", "Layout", "batches", "data", "layout", "load"]

_CHUNK = 1 << 24  # bytes of images looked at together


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, a part to train on and a part to test on.

    train_images, test_images: uint8 (n, channels, height, width); may be memory maps. train_labels, test_labels: int64
    (n,), 0 .. len(classes) - 1. classes: their names. mean, std: per channel, of images scaled to 0 .. 1; measured on
    the training images if not given. flips: whether a mirrored image is of the same class. notes: what was assumed.

    DataError for other shapes or types, for labels out of range and for an empty part.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    flips: bool = True
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), np.asarray(getattr(self, f"{part}_labels"))
            if images.ndim != 4 or images.dtype != np.uint8:
                raise DataError(
                    f"the {part} images of '{self.name}' are {images.dtype} of shape {images.shape}; "
                    "images are uint8 of shape (n, channels, height, width)"
                )
            if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
                raise DataError(
                    f"the {part} labels of '{self.name}' are {labels.dtype} of shape {labels.shape}; "
                    f"labels are whole numbers, one for each of the {len(images)} images"
                )
            if not images.size:
                raise DataError(f"the {part} part of '{self.name}' holds no image")
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise DataError(
                    f"the {part} labels of '{self.name}' run from {labels.min()} to {labels.max()}; "
                    f"with {len(self.classes)} classes they run from 0 to {len(self.classes) - 1}"
                )
            object.__setattr__(self, f"{part}_labels", labels.astype(np.int64))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"the images of '{self.name}' are {self.train_images.shape[1:]} to train on "
                f"and {self.test_images.shape[1:]} to test on; both should be the same"
            )
        if not self.mean:
            mean, std = _moments(self.train_images)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0] or min(self.std) <= 0:
            raise DataError(
                f"'{self.name}' has mean {self.mean} and std {self.std}; both hold one number for each of "
                f"{self.shape[0]} channels, and std is above 0"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """uint8 images -> float32, (x / 255 - mean) / std."""
        mean, std = (np.asarray(side, np.float32)[:, None, None] for side in (self.mean, self.std))
        return (images.astype(np.float32) / 255 - mean) / std


def _moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images scaled to 0 .. 1, exact but for the last rounding."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    step = max(1, _CHUNK // max(1, images[0].size))
    for start in range(0, len(images), step):
        for channel, row in enumerate(counts):
            row += np.bincount(images[start : start + step, channel].reshape(-1), minlength=256)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(axis=1)
    std = np.sqrt(np.maximum(counts @ levels**2 / counts.sum(axis=1) - mean**2, 0))
    std[std == 0] = 1.0  # a channel of one value: normalised to 0
    return tuple(mean.tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class Layout:
    """A way in which data sets lie on disk.

    about: a line for people. recognise(path) -> bool. read(path, **options) -> Dataset. rank: looked at in this order.
    options: the names that `read` takes beside the path. A built-in data set has no `recognise`.
    """

    name: str
    about: str
    read: Callable[..., Dataset]
    recognise: Callable[[Path], bool] | None = None
    rank: int = 0
    options: tuple[str, ...] = ()


data = Registry("data set", __name__)


def layout(
    name: str,
    about: str,
    *,
    recognise: Callable[[Path], bool] | None = None,
    rank: int = 0,
    options: tuple[str, ...] = (),
) -> Callable[[Any], Any]:
    """Decorator: enter the function that reads a layout."""

    def enter(read: Callable[..., Dataset]) -> Callable[..., Dataset]:
        data.add(name)(Layout(name, about, read, recognise, rank, options))
        return read

    return enter


def load(source: str | Path | Dataset, *, size: int | None = None, cache: str | Path | None = None) -> Dataset:
    """A data set: "digits", or the path of a folder or .npz file in one of the layouts of `topo list data`.

    size: side of the square images that picture folders are scaled and cropped to; others have one size anyway. cache:
    a folder in which decoded pictures are kept as a memory map, for data larger than memory and for a second run.

    DataError, one line, if there is no such data, if its layout is unknown or if its files are not what they should be.
    """
    if isinstance(source, Dataset):
        return source
    built_in = [entry.name for entry in data.values() if entry.recognise is None]
    if str(source) in built_in:
        return data[str(source)].read()
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(
            f"there is no data set '{source}': no file or folder of that name, and built in is {', '.join(built_in)}"
        )
    given = {key: value for key, value in (("size", size), ("cache", cache)) if value is not None}
    for entry in sorted(data.values(), key=lambda entry: entry.rank):
        if entry.recognise is not None and entry.recognise(path):
            if odd := [key for key in given if key not in entry.options]:
                raise DataError(f"'{path}' is of layout {entry.name}, which takes no {' and no '.join(odd)}")
            try:
                return entry.read(path, **given)
            except DataError as error:
                raise DataError(f"'{path}': {error}") from None
            except OSError as error:
                raise DataError(f"'{path}': it cannot be read: {error}") from None
    known = "; ".join(f"{entry.name}: {entry.about}" for entry in data.values() if entry.recognise)
    raise DataError(f"'{path}' is in no known layout; there are {known}")


def every_fifth(labels: np.ndarray) -> np.ndarray:
    """Where the test part is, of data without one: images 5, 10, 15, ... of each class, in the order of the files."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        rank[where] = np.arange(len(where))
    return rank % 5 == 4


def split(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], **more: Any) -> Dataset:
    """A data set without a test part of its own, cut by `every_fifth`; a note says so."""
    test = every_fifth(labels)
    note = f"no test part of its own: every fifth image of each class is kept for it ({int(test.sum()):,})"
    parts = images[~test], labels[~test], images[test], labels[test]
    made = Dataset(name, *parts, classes, **more)
    return replace(made, notes=(*made.notes, note))


def batches(
    dataset: Dataset, size: int, rng: int | np.random.Generator, *, per_class: int | None = None, count: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of training images for pruners that look at data, without repeats: float32 normalised images, labels.

    size: images a batch. count: how many batches. per_class: draw as many images of every class in the whole (count *
    size = classes * per_class), as GraSP and Synaptic-Flow do with 10; otherwise images are drawn evenly from all.

    DataError if there are not enough images, or if the sizes do not fit.
    """
    if size < 1 or count < 1:
        raise DataError(f"{count} batches of {size} images: both should be at least 1")
    rng, labels = as_rng(rng), dataset.train_labels
    if per_class is None:
        if size * count > len(labels):
            raise DataError(f"{count} batches of {size} need {size * count} images; '{dataset.name}' has {len(labels)}")
        chosen = rng.choice(len(labels), size * count, replace=False)
    else:
        classes = len(dataset.classes)
        if per_class * classes != size * count:
            raise DataError(
                f"{per_class} images of each of {classes} classes are {per_class * classes}; "
                f"{count} batches of {size} take {size * count}"
            )
        counts = np.bincount(labels, minlength=classes)
        if counts.min() < per_class:
            least = int(counts.argmin())
            raise DataError(
                f"class '{dataset.classes[least]}' of '{dataset.name}' has {counts[least]} images to train on; "
                f"{per_class} were asked for"
            )
        each = [rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in range(classes)]
        chosen = rng.permutation(np.concatenate(each))
    for start in range(0, len(chosen), size):
        places = chosen[start : start + size]
        yield dataset.normalised(dataset.train_images[places]), labels[places]
