"""numpy's npz with x_train, y_train, x_test, y_test, as keras writes its data sets."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from topo.data import Dataset, layout
from topo.errors import DataError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


@layout(
    "npz",
    "a .npz file with x_train, y_train, x_test, y_test: uint8 images (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w)",
    recognise=lambda path: path.suffix == ".npz" and path.is_file(),
    rank=0,
)
def read(path: Path) -> Dataset:
    """Mirrored images count as the same class where there are three channels (photographs), not where there is one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if missing := [key for key in _KEYS if key not in arrays]:
                raise DataError(f"it has no array {missing[0]}; it should have {', '.join(_KEYS)}")
            x_train, y_train, x_test, y_test = (arrays[key] for key in _KEYS)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"it is no npz of plain arrays: {error}") from None
    train, test = _channels_first(x_train), _channels_first(x_test)
    labels = [array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array for array in (y_train, y_test)]
    if any(array.dtype.kind not in "iu" for array in labels):
        raise DataError(f"its labels are {labels[0].dtype} and {labels[1].dtype}; labels are whole numbers")
    classes = 1 + max(int(array.max(initial=-1)) for array in labels)
    names = tuple(map(str, range(classes)))
    return Dataset(path.stem, train, labels[0], test, labels[1], names, flips=train.shape[1] == 3)


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images
