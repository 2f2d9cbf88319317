"""Folders of pictures: Tiny-ImageNet as it is published, and a folder per class. PIL decodes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from topo._support.atomic import replacing
from topo._support.threads import over
from topo.data import Dataset, layout, split
from topo.errors import DataError

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".gif", ".tif", ".tiff"})
_TRAIN, _TEST = ("train", "training"), ("test", "val", "valid", "validation")
# Tiny-ImageNet: the constants of the SynFlow family.
_TINY = (0.480, 0.448, 0.397), (0.276, 0.269, 0.282)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _part(path: Path, names: Sequence[str]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)


@layout(
    "tiny_imagenet",
    "a folder with wnids.txt, train/<id>/images and val/val_annotations.txt (Tiny-ImageNet-200)",
    recognise=lambda path: (path / "wnids.txt").is_file() and (path / "train").is_dir(),
    rank=20,
    options=("size", "cache"),
)
def read_tiny(path: Path, size: int | None = None, cache: str | Path | None = None) -> Dataset:
    """The published test part has no labels, so the validation part is tested on, as in the papers."""
    ids = (path / "wnids.txt").read_text().split()
    number = {name: index for index, name in enumerate(ids)}
    train = [(file, number[name]) for name in ids for file in _pictures(path / "train" / name)]
    listed = path / "val" / "val_annotations.txt"
    if listed.is_file() and (path / "val" / "images").is_dir():
        rows = [line.split("\t") for line in listed.read_text().splitlines() if line.strip()]
        if odd := [row for row in rows if len(row) < 2 or row[1] not in number]:
            raise DataError(f"val_annotations.txt has the line {' '.join(odd[0])!r}; a line is file and class id")
        test = [(path / "val" / "images" / row[0], number[row[1]]) for row in rows]
    else:  # rearranged into a folder per class, as several repositories do
        test = [(file, number[name]) for name in ids for file in _pictures(path / "val" / name)]
    parts = _decoded("train", train, size, cache), _decoded("val", test, size, cache)
    return Dataset("tiny_imagenet", *parts[0], *parts[1], tuple(ids), *_TINY)


@layout(
    "folder",
    "a folder with train/<class>/ and test/<class>/ of pictures, or with <class>/ alone (every fifth is tested on)",
    recognise=lambda path: path.is_dir() and bool(_classes(path)),
    rank=90,
    options=("size", "cache"),
)
def read_folder(path: Path, size: int | None = None, cache: str | Path | None = None) -> Dataset:
    train, test = _part(path, _TRAIN), _part(path, _TEST)
    names = _classes(train or path)
    labelled = [
        [(file, number) for number, name in enumerate(names) for file in _pictures(folder / name)]
        for folder in (train or path, test)
        if folder is not None
    ]
    if train is None or test is None:
        if train is None and test is not None:
            raise DataError(f"it has '{test.name}' and no 'train'")
        return split(path.name, *_decoded("train", labelled[0], size, cache), tuple(names))
    if odd := sorted(set(_classes(test)) - set(names)):
        raise DataError(f"'{test.name}' has the class '{odd[0]}', which '{train.name}' lacks")
    parts = _decoded(train.name, labelled[0], size, cache), _decoded(test.name, labelled[1], size, cache)
    return Dataset(path.name, *parts[0], *parts[1], tuple(names))


def _decoded(
    part: str, labelled: Sequence[tuple[Path, int]], size: int | None, cache: str | Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 3, side, side) and labels; the images as a memory map if there is a cache."""
    if not labelled:
        raise DataError(f"'{part}' holds no picture (looked for {', '.join(sorted(_ENDINGS))})")
    files, labels = [file for file, _ in labelled], np.array([label for _, label in labelled], np.int64)
    first = _picture(files[0], size)
    shape = (len(files), *first.shape)
    if cache is None:
        images = np.empty(shape, np.uint8)
        _fill(images, files, size)
        return images, labels
    path = _cached(Path(cache), files, size)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            held = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            _fill(held, files, size)
            held.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False), labels


def _cached(folder: Path, files: Sequence[Path], size: int | None) -> Path:
    """Named after the pictures' names, sizes and dates: other pictures, another file."""
    digest = hashlib.sha256(repr(size).encode())
    for file in files:
        known = file.stat()
        digest.update(f"{file}\0{known.st_size}\0{known.st_mtime_ns}\0".encode())
    return folder / f"pictures-{digest.hexdigest()[:24]}.npy"


def _fill(images: np.ndarray, files: Sequence[Path], size: int | None) -> None:
    def one(index: int) -> None:
        picture = _picture(files[index], size)
        if picture.shape != images.shape[1:]:
            raise DataError(
                f"'{files[index].name}' has {picture.shape[2]}x{picture.shape[1]} pixels and '{files[0].name}' "
                f"{images.shape[3]}x{images.shape[2]}; give the size to scale them to"
            )
        images[index] = picture

    over(one, range(len(files)), None)


def _picture(path: Path, size: int | None) -> np.ndarray:
    """uint8 (3, height, width); with a size, the shorter side is scaled to it and the middle kept."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            if size is not None:
                width, height = image.size
                scale = size / min(width, height)
                image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), 2)
                left, top = (image.width - size) // 2, (image.height - size) // 2
                image = image.crop((left, top, left + size, top + size))
            return np.asarray(image, np.uint8).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"'{path.name}' is no picture that can be read: {error}") from None
