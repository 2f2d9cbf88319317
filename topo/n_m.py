"""N:M patterns: at most N kept among M consecutive inputs, the sparsity that tensor cores run.

Groups lie along the input axis (dimension 1) and start at multiples of M; in a convolution there are groups along the
input channels for each kernel position. A last, incomplete group obeys the same bound N.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from topo.errors import TopoError
from topo.masks import BitRows

# Parameters unpacked at a time: 16 MB of bools.
_CHUNK = 1 << 24


def parse_n_m(text: str) -> tuple[int, int]:
    """ "2:4" -> (2, 4); TopoError unless 1 <= N <= M."""
    parts = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text.strip())
    n, m = (int(part) for part in parts.groups()) if parts else (0, 0)
    if not 1 <= n <= m:
        raise TopoError(f"'{text}' is not an N:M pattern; N:M is two whole numbers with 1 <= N <= M, as in 2:4")
    return n, m


def kept_in_groups(rows: BitRows, m: int) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of the mask as (first row, kept (rows, ceil(in / m), kernel positions)): kept weights of each group.

    Adding m slices takes a fifth of the time of numpy's reduceat.
    """
    inputs = rows.shape[1]
    positions = rows.columns // inputs
    height = max(1, _CHUNK // rows.columns)
    for start in range(0, rows.shape[0], height):
        words = rows.words[start : start + height]
        mask = BitRows((len(words), inputs, positions), words).unpack()
        kept = np.zeros((len(words), -(-inputs // m), positions), np.uint8 if m < 256 else np.int32)
        for offset in range(min(m, inputs)):
            part = mask[:, offset::m]
            kept[:, : part.shape[1]] += part
        yield start, kept
