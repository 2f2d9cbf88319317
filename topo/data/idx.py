"""The IDX files of MNIST and its family: MNIST, Fashion-MNIST, KMNIST, EMNIST; packed with gzip or plain.

LeCun et al. 1998, http://yann.lecun.com/exdb/mnist: two zero bytes, the type of the entries, the number of axes, each
axis's length as four bytes, then the entries. Fashion-MNIST is also known by name where Debian's package
`dataset-fashion-mnist` (MIT) is installed.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from topo.data import Dataset, layout
from topo.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILE = re.compile(
    r"(?:(?P<set>.+)-)?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx(?P<axes>[13])-ubyte(\.gz)?"
)
_AXES = {"images": 3, "labels": 1}
_BYTES = 0x08  # the type of entries: unsigned bytes, the only one that these sets have
_CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def _files(path: Path) -> dict[tuple[str, str, str], list[Path]]:
    """(data set's prefix, train or test, images or labels) -> files of that name."""
    found: dict[tuple[str, str, str], list[Path]] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        name = _FILE.fullmatch(file.name)
        if name and file.is_file() and _AXES[name["what"]] == int(name["axes"]):
            part = "train" if name["part"] == "train" else "test"
            found.setdefault((name["set"] or "", part, name["what"]), []).append(file)
    return found


@layout(
    "idx",
    "the four files of MNIST, Fashion-MNIST, KMNIST or EMNIST, train-images-idx3-ubyte and so on, also .gz",
    recognise=lambda path: bool(_files(path)),
)
def read(path: Path) -> Dataset:
    """Mirrored images are of another class. EMNIST's images lie on their side and are turned; a note says so.

    A file that is there packed and plain is read plain. Labels that begin at 1, as those of EMNIST's letters, are
    lowered by one.
    """
    files, notes = _files(path), list[str]()
    sets = list(dict.fromkeys(prefix for prefix, _, _ in files))
    if len(sets) > 1:
        raise DataError(f"it holds {len(sets)} data sets, {', '.join(sets)}: keep one in the folder")
    held = {}
    for part in ("train", "test"):
        for what in ("images", "labels"):
            if not (named := files.get((sets[0], part, what))):
                raise DataError(f"it has no file of {part} {what}: {'t10k' if part == 'test' else part}-{what}-idx...")
            held[part, what] = _array(named[0], _AXES[what])
    if "emnist" in sets[0].lower():
        notes.append("the images of EMNIST lie on their side; they are turned upright")
        for part in ("train", "test"):
            held[part, "images"] = np.ascontiguousarray(held[part, "images"].transpose(0, 2, 1))
    least = min(int(held[part, "labels"].min(initial=255)) for part in ("train", "test"))
    if least == 1:
        notes.append("the labels begin at 1, and are lowered by one")
        for part in ("train", "test"):
            held[part, "labels"] = held[part, "labels"] - 1
    most = max(int(held[part, "labels"].max(initial=0)) for part in ("train", "test"))
    parts = (held["train", "images"][:, None], held["train", "labels"].astype(np.int64),
             held["test", "images"][:, None], held["test", "labels"].astype(np.int64))  # fmt: skip
    return Dataset(sets[0] or path.name, *parts, tuple(map(str, range(most + 1))), flips=False, notes=tuple(notes))


@layout("fashion_mnist", "Fashion-MNIST, 60,000 + 10,000 pictures of 28x28, where Debian's dataset-fashion-mnist is")
def fashion() -> Dataset:
    """From /usr/share/datasets/fashion-mnist; clothes may be mirrored."""
    if not DEBIAN.is_dir():
        raise DataError(
            f"there is no '{DEBIAN}': install Debian's package dataset-fashion-mnist, or give the path of a folder "
            "with the four files train-images-idx3-ubyte.gz and so on"
        )
    found = read(DEBIAN)
    parts = found.train_images, found.train_labels, found.test_images, found.test_labels
    return Dataset("fashion_mnist", *parts, _CLOTHES, flips=True)


def _array(path: Path, axes: int) -> np.ndarray:
    """The entries of an IDX file of unsigned bytes with so many axes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, _BYTES, axes)):
                want = bytes((0, 0, _BYTES, axes)).hex(" ")
                raise DataError(f"'{path.name}' begins with {head[:4].hex(' ')}; an IDX file of this name with {want}")
            shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
            size = math.prod(shape)
            data = file.read(min(size, 1 << 33) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{path.name}' is not a whole gzip file: {error}") from None
    if len(data) != size:
        said = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"'{path.name}' should hold {size:,} entries, shape {shape}, and holds {said}")
    return np.frombuffer(data, np.uint8).reshape(shape)
