"""numpy's npz with x_train, y_train, x_test, y_test, as keras writes its data sets."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from topo.data import Dataset, layout
from topo.data.pixels import channels_last, labels_of
from topo.errors import DataError

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_VAL = ("x_val", "y_val")


@layout(
    "npz",
    "a .npz file with x_train, y_train, x_test, y_test (x_val, y_val): images (n, h, w), (n, h, w, c) or (n, c, h, w)",
    recognise=lambda path: path.suffix == ".npz" and path.is_file(),
)
def read(path: Path) -> Dataset:
    """Mirrored images count as the same class where there are three channels (photographs), not where there is one."""
    arrays, notes = _arrays(path)
    images = {key: _channels_first(arrays[key]) for key in arrays if key.startswith("x")}
    count = sum(len(array) for array in images.values() if array.ndim)
    labels = {key: labels_of(key, arrays[key], count) for key in arrays if key.startswith("y")}
    known = set(np.unique(labels["y_train"]).tolist())
    for key, held in labels.items():
        if odd := sorted(set(np.unique(held).tolist()) - known):
            raise DataError(f"{key} has the label {odd[0]}, which y_train lacks: nothing could learn that class")
    most = max(known, default=-1)
    if empty := [label for label in range(most) if label not in known]:
        if empty == [0]:
            notes.append(f"the labels run from 1 to {most}, none is 0: class 0 is empty; number classes from 0")
        else:
            notes.append(f"{len(empty):,} of {most + 1:,} classes have no image, the first is {empty[0]}")
    names, val = tuple(map(str, range(most + 1))), (images.get(_VAL[0]), labels.get(_VAL[1]))
    parts = images[_KEYS[0]], labels[_KEYS[1]], images[_KEYS[2]], labels[_KEYS[3]]
    if images[_KEYS[0]].ndim == 4 and (count := images[_KEYS[0]].shape[1]) in (2, 4):
        notes.append(f"the images have {count} channels, all taken as they are: one that is transparency, too")
    flips = images[_KEYS[0]].ndim == 4 and images[_KEYS[0]].shape[1] == 3
    return Dataset(path.stem, *parts, names, flips=flips, notes=tuple(notes), val_images=val[0], val_labels=val[1])


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of the data set, and notes; none is made before its size is known to be that of its bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            if missing := [key for key in _KEYS if key not in held]:
                raise DataError(f"it has no array {missing[0]}; it should have {', '.join(_KEYS)}")
            if 0 < sum(key in held for key in _VAL) < len(_VAL):
                raise DataError(f"it has one of {' and '.join(_VAL)} without the other")
            taken = [key for key in (*_KEYS, *_VAL) if key in held]
            for key in taken:
                _check_size(archive, held[key], key)
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in taken}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"it is not an npz of plain arrays: {error}") from None
    except MemoryError:
        raise DataError("its arrays do not fit into memory") from None
    left = sorted(set(held) - set(taken))
    return found, [f"left out: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}"] if left else []


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, key: str) -> None:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = header(file)
        if kind.hasobject:
            raise ValueError(f"'{key}' holds Python objects")
        size, there = math.prod(shape) * kind.itemsize, entry.file_size - file.tell()
        if size != there:
            raise ValueError(f"'{key}' should hold {size:,} bytes, shape {shape} of {kind}, and holds {there:,}")


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    last = images.ndim == 4 and channels_last(images.shape)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if last else images
