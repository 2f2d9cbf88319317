"""CIFAR-10 and CIFAR-100 as their authors publish them: the binary version and the Python version.

Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html. The pickles of the Python version go through the
restricted reader, as every pickle does here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from topo.containers.mapped import bytes_of
from topo.containers.pickle_file import read_pickle
from topo.containers.tensors import Tensor
from topo.data import Dataset, layout
from topo.errors import DataError, FormatError

_PIXELS = 3 * 32 * 32
# The constants of the SynFlow family, which most papers on pruning at initialisation share.
_MOMENTS = {
    "cifar10": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
_TRAIN10 = tuple(f"data_batch_{n}" for n in range(1, 6))
# Records of a file to train on, and of the file to test on, as published.
_RECORDS = {"cifar10": (10_000, 10_000), "cifar100": (50_000, 10_000)}
# Layout -> (files to train on, files to test on, names of the classes).
_FILES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cifar10": (_TRAIN10, "test_batch", "batches.meta"),
    "cifar10_binary": (tuple(f"{name}.bin" for name in _TRAIN10), "test_batch.bin", "batches.meta.txt"),
    "cifar100": (("train",), "test", "meta"),
    "cifar100_binary": (("train.bin",), "test.bin", "fine_label_names.txt"),
}
_INSIDE = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")


def _folder(path: Path, kind: str) -> Path | None:
    """The folder that holds this version: `path`, or the one of its official name inside."""
    train, _, names = _FILES[kind]
    for folder in (path, *(path / inside for inside in _INSIDE)):
        first = folder / train[0]
        if first.is_file() and (kind != "cifar100" or (folder / names).is_file()):
            return folder
    return None


def _enter(kind: str, about: str) -> None:
    @layout(kind, about, recognise=lambda path: _folder(path, kind) is not None)
    def read(path: Path) -> Dataset:
        return _read(path, kind)


def _read(path: Path, kind: str) -> Dataset:
    folder, name = _folder(path, kind) or path, kind.removesuffix("_binary")
    train, test, _ = _FILES[kind]
    one = _binary if kind.endswith("_binary") else _pickled
    parts = [one(folder / file, name) for file in (*train, test)]
    notes = _counted(name, dict(zip((*train, test), (len(part[1]) for part in parts))))
    images, labels = (np.concatenate([part[side] for part in parts[:-1]]) for side in (0, 1))
    mean, std = _MOMENTS[name]
    return Dataset(name, images, labels, *parts[-1], _classes(folder, kind), mean, std, notes=notes)


def _counted(name: str, found: dict[str, int]) -> tuple[str, ...]:
    """A note on a set that is smaller as a whole; DataError for a file that lacks records which the others have."""
    *train, test = found
    each, tested = _RECORDS[name]
    due = dict.fromkeys(train, each) | {test: tested}
    if found == due:
        return ()
    official = [file for file in found if found[file] == due[file]]
    odd = [file for file in found if file not in official] if official else []
    odd = odd or [file for file in train if found[file] != found[train[0]]]
    if odd:
        raise DataError(f"'{odd[0]}' has {found[odd[0]]:,} records; it should have {due[odd[0]]:,}, as published")
    few = f"{found[train[0]]:,} records a file to train on and {found[test]:,} to test on"
    return (f"a set of another size than published: {few}, not {each:,} and {tested:,}",)


def _binary(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Records of a label (CIFAR-100: a coarse and a fine one) and 3072 pixels, a byte each."""
    record = _PIXELS + (1 if name == "cifar10" else 2)
    held = np.fromfile(path, np.uint8)
    if not held.size or held.size % record:
        raise DataError(f"'{path.name}' has {held.size:,} bytes; it should hold records of {record:,} bytes")
    rows = held.reshape(-1, record)
    return rows[:, -_PIXELS:].reshape(-1, 3, 32, 32), rows[:, -_PIXELS - 1].astype(np.int64)


def _pickled(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    record = _unpickled(path)
    images = _entry(record, "data", path)
    labels = _entry(record, "labels" if name == "cifar10" else "fine_labels", path)
    pixels = images.whole() if isinstance(images, Tensor) else np.zeros(0)
    numbers = labels.whole() if isinstance(labels, Tensor) else np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(numbers) != len(pixels):
        raise DataError(
            f"'{path.name}' holds images {pixels.dtype} {pixels.shape} and {len(numbers)} labels; "
            f"it should hold uint8 (n, {_PIXELS}) and n labels"
        )
    return pixels.reshape(-1, 3, 32, 32), numbers


def _unpickled(path: Path) -> dict[Any, Any]:
    try:
        record, _ = read_pickle(bytes_of(path))
    except (FormatError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"'{path.name}' is not a pickle of arrays: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"'{path.name}' holds a {type(record).__name__}; it should hold a dict")
    return record


def _entry(record: dict[Any, Any], name: str, path: Path) -> Any:
    """By name; the files' own names are bytes or text, as Python 2 or 3 wrote them."""
    for key in (name, name.encode()):
        if key in record:
            return record[key]
    raise DataError(f"'{path.name}' has no entry '{name}'; it has {', '.join(map(str, record))[:200]}")


def _classes(folder: Path, kind: str) -> tuple[str, ...]:
    """The names of the classes, or their numbers where that file is missing."""
    path = folder / _FILES[kind][2]
    count = 10 if kind.startswith("cifar10") and not kind.startswith("cifar100") else 100
    if not path.is_file():
        return tuple(map(str, range(count)))
    if kind.endswith("_binary"):
        names = path.read_text("utf-8", "replace").split()
    else:
        found = _entry(_unpickled(path), "label_names" if count == 10 else "fine_label_names", path)
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]
    if len(names) != count:
        raise DataError(f"'{path.name}' names {len(names)} classes; there should be {count}")
    return tuple(names)


_enter("cifar10", "a folder with data_batch_1 ... data_batch_5 and test_batch (CIFAR-10, Python version)")
_enter("cifar10_binary", "a folder with data_batch_1.bin ... and test_batch.bin (CIFAR-10, binary version)")
_enter("cifar100", "a folder with train, test and meta (CIFAR-100, Python version)")
_enter("cifar100_binary", "a folder with train.bin and test.bin (CIFAR-100, binary version)")
