"""Pages of a mapped file, given back once they were read: a file larger than memory is read through a narrow window."""

from __future__ import annotations

from mmap import MADV_DONTNEED, PAGESIZE, mmap

import numpy as np

_FEW = 16 * PAGESIZE  # below this the call costs more than the pages


def release(block: np.ndarray) -> None:
    """Give back the pages under a block of a mapped file: read again, they come from the file again."""
    if block.nbytes < _FEW:
        return
    base = block
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    if not isinstance(mapped, mmap) or not block.flags.c_contiguous:
        return
    start = block.ctypes.data - np.frombuffer(mapped, np.uint8, 1).ctypes.data
    first = -(-start // PAGESIZE) * PAGESIZE
    length = (start + block.nbytes) // PAGESIZE * PAGESIZE - first
    if length > 0:
        mapped.madvise(MADV_DONTNEED, first, length)
