"""Folders of pictures: Tiny-ImageNet as it is published, and a folder per class. PIL decodes them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.atomic import replacing, write_text
from topo._support.threads import over
from topo.data import Dataset, layout, split
from topo.data.pixels import alpha_composed, as_bytes
from topo.errors import DataError

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".gif", ".tif", ".tiff"})
_TRAIN, _TEST, _VAL = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
# Folders that systems leave behind.
_NO_CLASSES = frozenset({"__macosx", "@eadir", "__pycache__", "$recycle.bin", "lost+found"})
_DECODER = 3  # other pictures from the same files, another cache
# Tiny-ImageNet: the constants of the SynFlow family.
_TINY = (0.480, 0.448, 0.397), (0.276, 0.269, 0.282)


def _files(folder: Path) -> list[Path]:
    """All that lies below, but for hidden names (of a Mac: ._cat.png) and folders that hold something, in order.

    DataError for what is called a picture and is none, such as a link to nothing, a pipe or an empty folder, and for a
    folder that may not be looked into or is linked: the set is not whole.
    """
    found: list[Path] = []
    for inner in _inside(folder):
        below = []
        if inner.is_dir():
            if inner.is_symlink():
                raise DataError(f"'{inner}' is a link to a folder, which is not followed; put the folder itself there")
            below = _files(inner)
        if not below and _is_picture(inner) and not inner.is_file():
            if inner.is_symlink():
                raise DataError(f"'{inner}' is a link to '{os.readlink(inner)}', which is not there")
            what = "an empty folder" if inner.is_dir() else "a pipe, a socket or a device"
            raise DataError(f"'{inner}' is called a picture and is {what}; remove it, or put the picture there")
        found += below or [inner]
    return sorted(found)


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden names; DataError if it may not be looked into."""
    try:
        return [inner for inner in folder.iterdir() if not _hidden(inner.name)]
    except OSError as error:
        raise DataError(f"'{folder}' cannot be looked into: {error.strerror}") from None


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NO_CLASSES


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _ENDINGS


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if _is_picture(path)]


def _folders(path: Path) -> list[Path]:
    return sorted(inner for inner in path.iterdir() if inner.is_dir() and not _hidden(inner.name))


@dataclass
class _Classes:
    """The classes of a part: their pictures, by the folder's name, and what lies there and is not read."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> _Classes:
        found = cls()
        for folder in _folders(path):
            files = _files(folder)
            pictures = [file for file in files if _is_picture(file)]
            if pictures:
                found.pictures[folder.name] = pictures
            else:
                found.notes.append(f"the folder '{path.name}/{folder.name}' holds no picture and is not a class")
            if pictures and (others := [file for file in files if not _is_picture(file)]):
                found.notes.append(f"left out of class '{folder.name}': {_named(others)}, no picture by the ending")
            hidden = sorted(file for file in folder.rglob(".*") if _is_picture(file) and not file.name.startswith("._"))
            if hidden:
                found.notes.append(f"left out of class '{folder.name}': {_named(hidden)}, hidden by the dot")
        if stray := [file for file in sorted(path.iterdir()) if file.is_file() and _is_picture(file)]:
            stray = [file for file in stray if not _hidden(file.name)]
            found.notes += [f"left out of '{path.name}': {_named(stray)}, in no class folder"] if stray else []
        return found

    def labelled(self, number: dict[str, int]) -> list[tuple[Path, int]]:
        return [(file, number[name]) for name in sorted(self.pictures) for file in self.pictures[name]]


def _named(files: Sequence[Path]) -> str:
    return f"'{files[0].name}'" + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")


def _part(path: Path, names: Sequence[str]) -> Path | None:
    """The folder of one of these names, in capitals or not; DataError if there are two."""
    found = [folder for folder in _folders(path) if folder.name.lower() in names]
    if len(found) > 1:
        raise DataError(f"it has both '{found[0].name}' and '{found[1].name}'; one of them should be there")
    return found[0] if found else None


@layout(
    "tiny_imagenet",
    "a folder with wnids.txt, train/<id>/images and val/val_annotations.txt (Tiny-ImageNet-200)",
    recognise=lambda path: (path / "wnids.txt").is_file() and (path / "train").is_dir(),
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
        if wrong := [row for row in rows if len(row) < 2 or row[1] not in number]:
            raise DataError(f"val_annotations.txt has the line {' '.join(wrong[0])!r}; a line is file and class id")
        test = [(path / "val" / "images" / row[0], number[row[1]]) for row in rows]
    else:  # rearranged into a folder per class, as several repositories do
        test = [(file, number[name]) for name in ids for file in _pictures(path / "val" / name)]
    parts = _decoded("train", train, size, cache), _decoded("val", test, size, cache)
    notes = _unique(parts)
    if odd := [folder for folder in _folders(path / "train") if folder.name not in number]:
        notes = (f"left out of 'train': {_named(odd)}, not in wnids.txt", *notes)
    return Dataset("tiny_imagenet", *parts[0][:2], *parts[1][:2], tuple(ids), *_TINY, notes=notes)


@layout(
    "folder",
    "a folder with train/<class>/ and test/<class>/ (val/<class>/) of pictures, or <class>/ alone (every fifth tests)",
    recognise=lambda path: path.is_dir() and bool(_folders(path)),
    general=True,
    options=("size", "cache"),
)
def read_folder(path: Path, size: int | None = None, cache: str | Path | None = None) -> Dataset:
    """With train, test and val, val is validated on; with train and val alone, val is tested on, and a note says so."""
    train, test, val = (_part(path, names) for names in (_TRAIN, _TEST, _VAL))
    if train is None and (test or val) is not None:
        raise DataError(f"it has '{(test or val or path).name}' and no 'train'")
    if train is None or (test is None and val is None):
        found = _Classes.of(train or path)
        beside = _beside(path, {train.name}) if train is not None else []
        images, labels, said = _decoded((train or path).name, found.labelled(_numbers(found)), size, cache)
        return split(path.name, images, labels, tuple(sorted(found.pictures)), notes=(*beside, *found.notes, *said))
    notes = _beside(path, {place.name for place in (train, test, val) if place is not None})
    if test is None:
        notes.append(f"there is no folder 'test': '{val.name if val else ''}' is tested on")
        test, val = val, None
    places = [place for place in (train, test, val) if place is not None]
    parts = [_Classes.of(place) for place in places]
    number = _numbers(parts[0])
    for place, part in zip(places, parts):
        if odd := sorted(set(part.pictures) - set(number)):
            raise DataError(f"'{place.name}' has the class '{odd[0]}', which '{train.name}' lacks")
        if part.pictures and (odd := sorted(set(number) - set(part.pictures))):
            notes.append(f"'{place.name}' has no picture of {len(odd):,} of {len(number):,} classes, as of '{odd[0]}'")
    decoded = [_decoded(place.name, part.labelled(number), size, cache) for place, part in zip(places, parts)]
    notes += [note for part in parts for note in part.notes]
    held: dict[str, Any] = {"name": path.name, "classes": tuple(number), "notes": (*notes, *_unique(decoded))}
    for part_name, (images, labels, _) in zip(("train", "test", "val"), decoded):
        held |= {f"{part_name}_images": images, f"{part_name}_labels": labels}
    return Dataset(**held)


def _beside(path: Path, parts: set[str]) -> list[str]:
    """Notes on folders with pictures, and pictures, that lie beside the parts."""
    others = [folder for folder in _folders(path) if folder.name not in parts and _pictures(folder)]
    stray = [file for file in sorted(path.iterdir()) if file.is_file() and _is_picture(file) and not _hidden(file.name)]
    return [f"left out: {_named(found)}, beside the parts" for found in (others, stray) if found]


def _numbers(found: _Classes) -> dict[str, int]:
    return {name: index for index, name in enumerate(sorted(found.pictures))}


def _unique(parts: Iterable[tuple[Any, Any, tuple[str, ...]]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for part in parts for note in part[2]))


def _decoded(
    part: str, labelled: Sequence[tuple[Path, int]], size: int | None, cache: str | Path | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (n, 3, h, w), labels, and what was done to pictures; the images are a memory map if there is a cache."""
    if not labelled:
        raise DataError(f"'{part}' holds no picture (looked for {', '.join(sorted(_ENDINGS))})")
    if size is not None and not 1 <= size <= 1 << 14:
        raise DataError(f"the size is {size}; it is the side of square pictures, from 1 to {1 << 14:,} pixels")
    files, labels = [file for file, _ in labelled], np.array([label for _, label in labelled], np.int64)
    first = _picture(files[0], size)[0]
    shape = (len(files), *first.shape)
    if cache is None:
        images = np.empty(shape, np.uint8)
        return images, labels, _fill(images, files, size)
    path = _cached(Path(cache), files, size)
    said = path.with_suffix(".txt")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            held = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            notes = _fill(held, files, size)
            held.flush()
            if notes:
                write_text(said, "\n".join(notes))
    notes = tuple(said.read_text("utf-8").splitlines()) if said.is_file() else ()
    return np.load(path, mmap_mode="r", allow_pickle=False), labels, notes


def _cached(folder: Path, files: Sequence[Path], size: int | None) -> Path:
    """Named after the pictures' names, sizes and dates: other pictures, another file."""
    digest = hashlib.sha256(repr((_DECODER, size)).encode())
    for file in files:
        known = file.stat()
        digest.update(f"{file}\0{known.st_size}\0{known.st_mtime_ns}\0".encode())
    return folder / f"pictures-{digest.hexdigest()[:24]}.npy"


def _fill(images: np.ndarray, files: Sequence[Path], size: int | None) -> tuple[str, ...]:
    """Decode every picture into its place; a note on each thing that was done to some of them, with their number."""
    done: list[tuple[str, ...]] = [()] * len(files)

    def one(index: int) -> None:
        picture, done[index] = _picture(files[index], size)
        if picture.shape != images.shape[1:]:
            raise DataError(
                f"'{files[index].name}' has {picture.shape[2]}x{picture.shape[1]} pixels and '{files[0].name}' "
                f"{images.shape[3]}x{images.shape[2]}; give the size to scale them to"
            )
        images[index] = picture

    over(one, range(len(files)), None)
    counts = {what: sum(what in each for each in done) for what in dict.fromkeys(w for each in done for w in each)}
    return tuple(f"{count:,} of {len(files):,} pictures {what}" for what, count in counts.items())


def _picture(path: Path, size: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 (3, height, width), as the picture is to be seen, and what was done to it.

    Turned as its EXIF says; transparent pixels over white; 16 bits and floats scaled by their type. With a size, the
    shorter side is scaled to it and the middle kept.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large raises the error
            with Image.open(path) as opened:
                frames, wide = getattr(opened, "n_frames", 1), ";16" in str(getattr(opened, "tile", ""))
                image = ImageOps.exif_transpose(opened)
                pixels, done = _colours(image)
        if wide and image.mode[:1] not in "IF":  # of 16 bits a colour PIL reads the upper 8
            done = (*done, "have 16 bits a colour, of which the upper 8 are taken")
        if frames > 1:
            done = (*done, "have several frames, of which the first is taken")
        if size is not None:
            pixels = _cropped(pixels, size)
        return pixels.transpose(2, 0, 1), done
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, MemoryError) as error:
        raise DataError(f"'{path.name}' is not a picture that can be read: {error}") from None
    except DataError as error:
        raise DataError(f"'{path.name}': {error}") from None


def _colours(image: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 (height, width, 3) of a PIL image in any mode, and what was done to it."""
    if image.mode == "F" or image.mode.startswith("I"):
        held = np.asarray(image)
        if image.mode == "I":  # 16 bits in 32, as PIL opens some
            if held.min(initial=0) < 0 or held.max(initial=0) > 65_535:
                raise DataError(f"its pixels run from {held.min()} to {held.max()}; they should fit into 16 bits")
            held = held.astype(np.uint16)
        grey, _ = as_bytes(held.astype(held.dtype.newbyteorder("=")))
        what = "have floats, rounded to 8 bits" if image.mode == "F" else "have 16 bits, rounded to 8"
        return np.repeat(grey[..., None], 3, axis=2), (what,)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.uint8)
        alpha = rgba[..., 3]
        if (alpha < 255).any():
            return alpha_composed(rgba[..., :3], alpha), ("are transparent in places, composed over white",)
        return rgba[..., :3], ()
    return np.asarray(image.convert("RGB"), np.uint8), ()


def _cropped(pixels: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), np.uint8)
