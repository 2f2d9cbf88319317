"""Pictures in arrays as bytes with channels first: numbers are scaled by their type, axes are told apart or refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo.errors import DataError

_CHUNK = 1 << 24  # numbers that are looked at together
_FEW = 4  # channels of a picture: grey, grey and alpha, colours, colours and alpha


def as_bytes(images: np.ndarray) -> tuple[np.ndarray, str]:
    """uint8 images of the same shape, and what was done to them ("" for uint8, which is given back as it is).

    bool: False is 0 and True 255. uint16: round(v / 257), so that 65,535 is 255. Floats from 0 to 1: round(255 v).
    Whole numbers from 0 to 255 in any other type: themselves.

    >>> as_bytes(np.array([0, 257, 65535], np.uint16))[0]
    array([  0,   1, 255], dtype=uint8)

    DataError for what is none of these: NaN, negative numbers, or 16 bits that hold nothing above 255 (bytes in a wider
    type, or pictures that are nearly black).
    """
    kind = images.dtype.newbyteorder("=")
    if kind == np.uint8:
        return images, ""
    if kind.kind not in "buif" or not images.size:
        raise DataError(f"the images are of type {kind}; images are uint8, uint16, bool or floats from 0 to 1")
    if kind == np.bool_:
        return images.astype(np.uint8) * np.uint8(255), "bool images are 0 and 255"
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise DataError(
            f"the {kind} images run from {low} to {high}; floats run from 0 to 1 (undo a normalisation, or keep bytes)"
        )
    if kind == np.uint16:
        if high <= 255:
            raise DataError(
                f"the images are uint16 and run from {low} to {high}: nearly black, or bytes in a wider type; "
                "save bytes as uint8, and 16 bits over their whole range"
            )
        return _scaled(images, 1 / 257), "16-bit images are rounded to 8 bits"
    if kind.kind == "f" and high <= 1:
        return _scaled(images, 255.0), f"{kind} images from 0 to 1 are rounded to 8 bits"
    if high <= 255 and _whole(images):
        return images.astype(np.uint8), f"{kind} images hold whole numbers from {low:g} to {high:g}: taken as bytes"
    should = "floats run from 0 to 1" if kind.kind == "f" else "whole numbers run from 0 to 255, or to 65,535 in uint16"
    raise DataError(f"the {kind} images run from {low} to {high}; {should}")


def _scaled(images: np.ndarray, factor: float) -> np.ndarray:
    made = np.empty(images.shape, np.uint8)
    flat, out = images.reshape(-1), made.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        out[start : start + _CHUNK] = np.rint(part * factor)
    return made


def _whole(images: np.ndarray) -> bool:
    flat = images.reshape(-1)
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return all(bool((np.rint(part) == part).all()) for part in parts)


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images (n, a, b, c) have their channels last, by the shape alone.

    Two signs: one end of 1 to 4 channels, and a square of the two other axes. One sign is enough; DataError if both are
    there and disagree, or if there is none.

    >>> channels_last((10, 8, 8, 2)), channels_last((10, 3, 32, 32)), channels_last((10, 24, 32, 3))
    (True, False, True)
    """
    first, middle, last = shape[1:]
    signs = set()
    if (first <= _FEW) != (last <= _FEW):
        signs.add(last <= _FEW)
    if (first == middle) != (middle == last):
        signs.add(first == middle)
    if len(signs) != 1:
        raise DataError(
            f"images of shape {shape} may be channels-first or channels-last; "
            "give them to topo.data.Dataset, which takes (n, channels, height, width)"
        )
    return signs.pop()


def alpha_composed(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Pixels (h, w, c) over white: p a + 255 (1 - a), a = alpha / 255, rounded; as a page shows them."""
    share = alpha[..., None].astype(np.float64) / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def labels_of(part: str, labels: Any, images: int) -> np.ndarray:
    """Labels as int64 (n,); DataError if they are none, before anything as large as their values is made."""
    held = np.asarray(labels)
    if held.ndim == 2 and held.shape[1] == 1:
        held = held.reshape(-1)
    if held.dtype.kind not in "iu" or held.ndim != 1:
        raise DataError(
            f"the {part} labels are {held.dtype} of shape {held.shape}; labels are whole numbers, one for each image"
        )
    most = int(held.max(initial=0))
    if most > min(10 * images, 65_535):
        raise DataError(
            f"the {part} labels go up to {most:,}, with {images:,} images: no class numbers. "
            "Classes are numbered 0, 1, ..., at most ten times as many as there are images and at most 65,536"
        )
    return held.astype(np.int64)
