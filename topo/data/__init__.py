"""Image data sets from a user's own files, as numpy arrays; the digits are built in.

Images become uint8, labels whole numbers; nothing is downloaded and no file runs code. A data set on disk is recognised
by its layout. Adding a layout is one function under `@layout(...)` in a file of this folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.doors import called, check_function, check_text
from topo._support.names import meant
from topo._support.registry import Registry
from topo._support.seeds import as_rng
from topo.data.pixels import as_bytes
from topo.errors import DataError

__all__ = ["Dataset", "Layout", "batches", "data", "layout", "load"]

_VERBS = {"train": "train", "val": "validate", "test": "test"}
_CHUNK = 1 << 24  # bytes of images looked at together
_OVERLAP = 0.1  # share of test images among the training ones from which a note speaks; published sets hold a few twice


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels, a part to train on, a part to test on and, perhaps, one to validate on (to choose an epoch).

    train_images, test_images, val_images: uint8 (n, channels, height, width); may be memory maps. Other types are
    scaled to bytes, and a note says so: 16 bits by 65,535, floats from 0 to 1. Labels: int64 (n,), 0 .. len(classes) -
    1. classes: their names. mean, std: per channel, of images scaled to 0 .. 1; measured on the training images if not
    given. flips: whether a mirrored image is of the same class. notes: what was assumed, and what was left out.

    DataError for other shapes or numbers, for labels out of range and for an empty part.
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
    val_images: np.ndarray | None = None
    val_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.val_images is None) != (self.val_labels is None):
            raise DataError(f"'{self.name}' has one of validation images and labels without the other")
        for part in self.parts:
            images, labels = getattr(self, f"{part}_images"), np.asarray(getattr(self, f"{part}_labels"))
            if images.ndim != 4:
                raise DataError(
                    f"the {part} images of '{self.name}' are {images.dtype} of shape {images.shape}; "
                    "images are of shape (n, channels, height, width)"
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
            if images.shape[1:] != self.train_images.shape[1:]:
                raise DataError(
                    f"the images of '{self.name}' are {self.train_images.shape[1:]} to train on "
                    f"and {images.shape[1:]} to {'test' if part == 'test' else 'validate'} on; both should be the same"
                )
            try:
                held, done = as_bytes(images)
            except DataError as error:
                raise DataError(f"the {part} part of '{self.name}': {error}") from None
            object.__setattr__(self, f"{part}_images", held)
            object.__setattr__(self, f"{part}_labels", labels.astype(np.int64))
            if done and done not in self.notes:
                object.__setattr__(self, "notes", (*self.notes, done))
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
    def parts(self) -> tuple[str, ...]:
        """train, test and, where there is one, val."""
        return ("train", "test") if self.val_images is None else ("train", "test", "val")

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what the data set holds, "images" and "labels", whatever its files are called."""
        found = {"images": hashlib.sha256(), "labels": hashlib.sha256()}
        for part in self.parts:
            images = getattr(self, f"{part}_images")
            found["images"].update(f"{part} {images.shape}".encode())
            for piece in self._pieces[part]:
                found["images"].update(piece)
            found["labels"].update(f"{part} {self.classes}".encode())
            found["labels"].update(np.ascontiguousarray(getattr(self, f"{part}_labels")).tobytes())
        return {side: digest.hexdigest() for side, digest in found.items()}

    @cached_property
    def _pieces(self) -> dict[str, list[bytes]]:
        """A digest of each image of each part."""
        return {part: [_digest(image) for image in getattr(self, f"{part}_images")] for part in self.parts}

    @property
    def overlap(self) -> tuple[str, ...]:
        """A note on each part that is looked at and holds images of the training part; found by hash."""
        seen, notes = set(self._pieces["train"]), []
        for part in self.parts[1:]:
            count, whole = sum(piece in seen for piece in self._pieces[part]), len(self._pieces[part])
            if count >= _OVERLAP * whole:
                what = "all" if count == whole else f"{count:,}"
                notes.append(f"{what} of the {whole:,} {part} images are training images too: no fair test")
        return tuple(notes)

    def with_validation(self, share: float) -> Dataset:
        """The same data with this share of each class's training images (at least one) held out for validation.

        Drawn by a fixed seed, so that every run holds out the same ones. DataError if there is a validation part
        already, if a class has one image only, or if the images are a memory map, which stays whole.
        """
        if self.val_images is not None:
            raise DataError(f"'{self.name}' has a validation part of its own; val = {share} asks for another")
        if isinstance(self.train_images, np.memmap):
            raise DataError(f"'{self.name}' is a memory map, which is not split; give it a folder 'val'")
        rng, held = np.random.default_rng(0), np.zeros(len(self.train_labels), np.bool_)
        for label in np.unique(self.train_labels):
            places = np.flatnonzero(self.train_labels == label)
            count = max(1, round(share * len(places)))
            if count >= len(places):
                raise DataError(f"class '{self.classes[label]}' of '{self.name}' has too few images for val = {share}")
            held[rng.choice(places, count, replace=False)] = True
        note = f"{int(held.sum()):,} of {len(held):,} training images are held out for validation"
        return replace(
            self,
            train_images=self.train_images[~held],
            train_labels=self.train_labels[~held],
            val_images=self.train_images[held],
            val_labels=self.train_labels[held],
            notes=(*self.notes, note),
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, f'{part}_labels')):,} to {verb}" for part, verb in _VERBS.items()
                           if getattr(self, f"{part}_labels") is not None)  # fmt: skip
        shape = "x".join(map(str, self.shape))
        return f"Dataset('{self.name}': images of {shape} in {len(self.classes)} classes, {counts})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """uint8 images -> float32, (x / 255 - mean) / std."""
        mean, std = (np.asarray(side, np.float32)[:, None, None] for side in (self.mean, self.std))
        return (images.astype(np.float32) / 255 - mean) / std


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


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

    about: a line for people. recognise(path) -> bool. read(path, **options) -> Dataset. general: asked only where no
    other layout recognises the path. options: the names that `read` takes beside the path. A built-in data set has no
    `recognise`.
    """

    name: str
    about: str
    read: Callable[..., Dataset]
    recognise: Callable[[Path], bool] | None = None
    general: bool = False
    options: tuple[str, ...] = ()


data = Registry("data set", __name__)


def layout(
    name: str,
    about: str,
    *,
    recognise: Callable[[Path], bool] | None = None,
    general: bool = False,
    options: tuple[str, ...] = (),
) -> Callable[[Any], Any]:
    """Decorator: enter the function that reads a layout; arguments as in `Layout`.

    DataError for other words, and for functions that cannot be called with a path (built-in data: without) and the
    options.
    """

    def enter(read: Callable[..., Dataset]) -> Callable[..., Dataset]:
        plugin = f"data set '{name}'"
        check_text(plugin, about=about)
        if not isinstance(general, bool):
            raise DataError(f"{plugin} has general={general!r}; it is True or False")
        if not isinstance(options, tuple) or not all(isinstance(option, str) for option in options):
            raise DataError(f"{plugin} has options={options!r}; they are names in a tuple")
        takes = ("path, *, " if recognise is not None else "*, ") + ", ".join(options)
        check_function(plugin, read, takes, documented=False)
        if recognise is not None:
            check_function(f"{plugin}, recognise", recognise, "path", documented=False)
        data.add(name)(Layout(name, about, read, recognise, general, options))
        return read

    return enter


def load(
    source: str | Path | Dataset,
    *,
    size: int | None = None,
    cache: str | Path | None = None,
    val: float | None = None,
) -> Dataset:
    """A data set: "digits", or the path of a folder or .npz file in one of the layouts of `topo list data`.

    size: side of the square images that picture folders are scaled and cropped to; others have one size anyway. cache:
    a folder in which decoded pictures are kept as a memory map, for data larger than memory and for a second run. val:
    this share of the training images is held out for validation (`Dataset.with_validation`).

    DataError, one line, if there is no such data, if its layout is unknown or if its files are not what they should be.
    """
    found = source if isinstance(source, Dataset) else _read(source, size, cache)
    if val is not None:
        if isinstance(val, bool) or not isinstance(val, int | float) or not 0 < val < 1:
            raise DataError(f"val is {val!r}; it is the share of the training images to validate on, above 0, below 1")
        found = found.with_validation(val)
    more = [note for note in found.overlap if note not in found.notes]
    return replace(found, notes=(*found.notes, *more)) if more else found


def _said(source: Any) -> str:
    """What was given, in a few words: arrays would fill lines."""
    return f"'{source}'" if isinstance(source, str | Path) else f"a {type(source).__name__}"


def _read(source: str | Path, size: int | None, cache: str | Path | None) -> Dataset:
    built_in = [entry.name for entry in data.values() if entry.recognise is None]
    if str(source) in built_in:
        return data[str(source)].read()
    try:
        path = Path(source or None).expanduser()  # type: ignore[arg-type]  # "" is not the folder one is in
    except (TypeError, RuntimeError, ValueError):  # of arrays, which are neither true nor false
        raise DataError(
            f"{_said(source)} is not a data set; give digits, the path of a folder or file, or a Dataset"
        ) from None
    if not path.exists():
        raise DataError(
            f"there is no data set '{source}': no file or folder of that name, and built in is {', '.join(built_in)}"
            f"{meant(str(source), built_in)}"
        )
    given = {key: value for key, value in (("size", size), ("cache", cache)) if value is not None}
    recognised = [entry for entry in data.values() if not entry.general and _recognises(entry, path)]
    recognised = recognised or [entry for entry in data.values() if entry.general and _recognises(entry, path)]
    if len(recognised) > 1:
        names = " and ".join(entry.name for entry in recognised)
        raise DataError(f"'{path}' is in {len(recognised)} layouts, {names}: keep the files of one of them there")
    if recognised:
        return _read_as(recognised[0], path, given)
    known = "; ".join(f"{entry.name}: {entry.about}" for entry in data.values() if entry.recognise)
    raise DataError(f"'{path}' is in no known layout; there are {known}")


def _recognises(entry: Layout, path: Path) -> bool:
    if entry.recognise is None:
        return False
    plugin = f"data set '{entry.name}'"
    recognised = called(f"{plugin}, recognise,", f" at '{path}'", entry.recognise, path)
    if not isinstance(recognised, bool | np.bool_):
        raise DataError(f"{plugin}, recognise, gives {recognised!r:.40} for '{path}'; it gives True or False")
    return bool(recognised)


def _read_as(entry: Layout, path: Path, options: dict[str, Any]) -> Dataset:
    if odd := [key for key in options if key not in entry.options]:
        raise DataError(f"'{path}' is of layout {entry.name}, which takes no {' and no '.join(odd)}")
    try:
        found = entry.read(path, **options)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from None
    except OSError as error:
        raise DataError(f"'{path}': it cannot be read: {error}") from None
    if not isinstance(found, Dataset):
        raise DataError(
            f"data set '{entry.name}' gives {type(found).__name__} for '{path}'; it gives a topo.data.Dataset"
        )
    return found


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
