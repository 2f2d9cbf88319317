"""How types of numbers lie in bits: which patterns are zero, denormal, infinite and NaN, also of types that numpy
cannot name; and the one way from an array of weights to bit rows."""

from __future__ import annotations

import sys

import numpy as np

from topo.masks import packed_rows

# Type -> (bits that are not the sign, smallest normal number, largest finite one, -0.0), as patterns of bits.
FLOATS = {
    "bfloat16": (0x7FFF, 0x0080, 0x7F7F, 0x8000),
    "float16": (0x7FFF, 0x0400, 0x7BFF, 0x8000),
    "float32": (0x7FFFFFFF, 0x00800000, 0x7F7FFFFF, 0x80000000),
    "float64": (0x7FFFFFFFFFFFFFFF, 0x0010000000000000, 0x7FEFFFFFFFFFFFFF, 0x8000000000000000),
    "float8_e4m3fn": (0x7F, 0x08, 0x7E, 0x80),  # no infinity: one step above the largest number is NaN
    "float8_e5m2": (0x7F, 0x04, 0x7B, 0x80),
    "float8_e4m3fnuz": (0xFF, 0x08, 0xFF, 0x80),  # neither infinity nor -0.0, whose pattern is the NaN
    "float8_e5m2fnuz": (0xFF, 0x04, 0xFF, 0x80),
}
# Below this many elements numpy packs sooner than numba is imported.
_SMALL = 1 << 20


def patterns(dtype: str, unsigned: np.dtype) -> np.ndarray:
    """The four patterns of a type, as the integers that hold its bits; of integers every pattern is a finite number."""
    full = int(np.iinfo(unsigned).max)
    return np.array(FLOATS.get(dtype, (full, 0, full, full)), unsigned)


def packed(values: np.ndarray, dtype: str, words: np.ndarray, tally: np.ndarray, every: bool = True) -> None:
    """values (rows, cols) of the named type into bit rows of what is not 0; odd numbers are added to the tally.

    words: uint64 (rows, ceil(cols / 64)). tally: int64 (4,), -0.0, denormal, infinite, NaN; see `odd_numbers`.
    every: all four; else, of types that numpy knows, NaN alone, which takes a pass less.
    """
    as_named = values.dtype.kind == "f" or dtype not in FLOATS
    if not every and as_named and values.size < _SMALL and "numba" not in sys.modules:
        words[:] = packed_rows(values != 0)
        if values.dtype.kind == "f" and np.isnan(np.maximum.reduce(values, axis=None, initial=0)):  # NaN is the largest
            tally[3] += np.count_nonzero(np.isnan(values))
        return
    itemsize = values.dtype.itemsize
    unsigned = np.dtype(f"u{itemsize}")
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).view(unsigned)
    plain = native if native.flags.aligned else native.copy()
    pattern = patterns(dtype, unsigned)
    if values.size < _SMALL and "numba" not in sys.modules:
        _packed_by_numpy(plain, pattern, words, tally, every or dtype.endswith("fnuz"))
    else:
        from topo.kernels import statistics

        plain.flags.writeable = False  # as what is read from files, so that the kernel compiles once
        statistics.pack_and_tally(plain, pattern, words, tally)
    if dtype.endswith("fnuz"):  # the sign is within what is compared, so that negative ones are not denormals there
        tally[1] += int(np.count_nonzero((plain > 0x80) & ((plain & 0x7F) < pattern[1])))


def _packed_by_numpy(plain: np.ndarray, pattern: np.ndarray, words: np.ndarray, tally: np.ndarray, every: bool) -> None:
    magnitude, normal, largest, sign = pattern
    sizes = plain & magnitude
    kept = sizes != 0
    words[:] = packed_rows(kept)
    first, beyond = 0, 0
    if sizes.max(initial=0) > largest:
        above = sizes[sizes > largest]
        first = int(np.count_nonzero(above - largest == 1))
        beyond = len(above) - first
    tally += np.array((0, 0, first, beyond), np.int64)
    if every:
        tally[:2] += np.count_nonzero(plain == sign), np.count_nonzero(kept & (sizes < normal))


def odd_numbers(dtype: str, tally: np.ndarray) -> dict[str, int]:
    """What a tally says of a type: {"minus_zeros", "denormals", "infinite", "nan"}; nothing of integers."""
    minus, denormal, infinite, nan = map(int, tally)
    if dtype not in FLOATS:
        return {}
    if dtype.endswith("fnuz"):
        return {"minus_zeros": 0, "denormals": denormal, "infinite": 0, "nan": minus}
    if dtype == "float8_e4m3fn":
        infinite, nan = 0, infinite + nan
    return {"minus_zeros": minus, "denormals": denormal, "infinite": infinite, "nan": nan}
