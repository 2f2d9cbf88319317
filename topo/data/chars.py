"""Next characters of the Python standard library's own sources: text that every installation has.

Each example is 32 characters, one-hot, and the character after them. Bits per character are the loss over ln 2.
"""

from __future__ import annotations

import platform
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

from topo.data import Dataset, layout
from topo.errors import DataError

CONTEXT, SYMBOLS = 32, 64
_TRAIN, _TEST = 16_000, 4_000
_OTHER = "other"


@layout("chars", f"the next of {SYMBOLS} characters after {CONTEXT} of Python's own sources (16,000 + 4,000 places)")
def read() -> Dataset:
    """One-hot characters, 32 x 64, from the modules of the running Python; every fifth module is tested on.

    The 63 commonest characters of the training modules have a symbol each, all others share one. The sources differ
    between versions of Python: the note names the version, and digests tell data sets apart.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    modules = sorted(path for path in folder.glob("*.py") if path.is_file())
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in modules]
    parts = ["".join(text for k, text in enumerate(texts) if (k % 5 == 4) == test) for test in (False, True)]
    if min(map(len, parts)) <= CONTEXT:
        raise DataError(f"the standard library in '{folder}' holds no sources to read characters from")
    counts = Counter(parts[0])
    known = sorted(counts, key=lambda letter: (-counts[letter], letter))[: SYMBOLS - 1]
    number = {letter: k for k, letter in enumerate(known)}
    draws = np.random.default_rng(0)
    held: list[np.ndarray] = []
    for text, count in zip(parts, (_TRAIN, _TEST)):
        codes = np.array([number.get(letter, SYMBOLS - 1) for letter in text])
        places = np.sort(draws.choice(len(codes) - CONTEXT, min(count, len(codes) - CONTEXT), replace=False))
        shown = codes[places[:, None] + np.arange(CONTEXT)]
        images = np.zeros((len(places), 1, CONTEXT, SYMBOLS), np.uint8)
        np.put_along_axis(images, shown[:, None, :, None], 255, axis=3)
        held += [images, codes[places + CONTEXT]]
    note = f"characters of the standard library of Python {platform.python_version()}; its versions differ"
    names = tuple(letter if letter.isprintable() and letter != " " else repr(letter) for letter in known)
    names += (_OTHER,) * (SYMBOLS - len(names))
    return Dataset(
        "chars", held[0], held[1], held[2], held[3], names, mean=(0.0,), std=(1.0,), flips=False, notes=(note,)
    )  # fmt: skip
