"""Tensor: an array in a file, read block by block and packed to bits on the way, so that a mask never lies in memory
twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import prod

import numpy as np

from topo.containers.number_types import odd_numbers, packed
from topo.containers.pages import release
from topo.errors import MaskError
from topo.layout import output_first, output_first_shape
from topo.masks import BitRows

# Elements packed at once: large enough for the compiled kernel, small enough that its temporaries (three bytes an
# element for a # check of a float mask) stay below 16 MB whatever the layer.
BLOCK = 1 << 22

# dtypes that numpy cannot name -> the integers that hold their bits.
_BITS: dict[str, np.dtype] = {
    "bfloat16": np.dtype("<u2"),
    "float8_e4m3fn": np.dtype("u1"),
    "float8_e5m2": np.dtype("u1"),
    "float8_e4m3fnuz": np.dtype("u1"),
    "float8_e5m2fnuz": np.dtype("u1"),
}
# 8-bit floats: the bits of 1.0.
_ONE8 = {"float8_e4m3fn": 0x38, "float8_e5m2": 0x3C, "float8_e4m3fnuz": 0x40, "float8_e5m2fnuz": 0x40}

Rows = Callable[[int], Iterator[np.ndarray]]


def bits_of(shape: tuple[int, ...]) -> int:
    """The bits of a tensor's bit rows: each row is filled up to whole words, 64 bits for a single column."""
    rows = shape[0] if len(shape) > 1 else 1
    return 64 * rows * -(-prod(shape[1:] if len(shape) > 1 else shape) // 64)


@cache
def numpy_dtype(name: str) -> np.dtype:
    """The numpy type that holds the bytes of a tensor type, little-endian; booleans are read as bytes, so that 2 is
    seen."""
    return _BITS[name] if name in _BITS else np.dtype("u1" if name == "bool" else name).newbyteorder("<")


@dataclass(frozen=True, eq=False, init=False)
class Tensor:
    """An array of a file, not yet read.

    shape: (rows, ...), of `ndim` sizes. dtype: its type by name ("float32", "bool", "bfloat16", ...). rows(n): the
    array as consecutive blocks of at most n rows; bfloat16 and 8-bit floats come as the unsigned integers that hold
    their bits.
    inferred: the values are weights, and the mask is where they are not 0.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: Rows
    inferred: bool = False
    ndim: int = field(init=False)

    def __init__(self, shape: tuple[int, ...], dtype: str, rows: Rows, inferred: bool = False) -> None:
        # At once: one by one, past the frozen fields, took a tenth of reading a file of small tensors.
        self.__dict__.update(shape=shape, dtype=dtype, rows=rows, inferred=inferred, ndim=len(shape))

    @classmethod
    def of(cls, array: np.ndarray, dtype: str | None = None) -> Tensor:
        """From an array (a view of a mapped file, mostly), of the named type."""

        def rows(count: int) -> Iterator[np.ndarray]:
            if array.ndim == 0:
                yield array
                return
            for start in range(0, len(array), count):
                yield array[start : start + count]

        return cls(array.shape, dtype or array.dtype.name, rows)

    @classmethod
    def full(cls, shape: tuple[int, ...]) -> Tensor:
        """The mask of a dense layer."""
        return cls.of(np.broadcast_to(np.True_, shape))

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def is_number(self) -> bool:
        """Whether the values can be a mask or weights at all (no text, no complex numbers, no type unknown here)."""
        return self.dtype in _BITS or self.dtype.startswith(("bool", "int", "uint", "float"))

    def whole(self) -> np.ndarray:
        """The whole array; of shape () or (n,) too."""
        if self.ndim == 0 or 0 in self.shape:
            return next(iter(self.rows(1)), np.zeros(self.shape, numpy_dtype(self.dtype)))
        blocks = list(self.rows(self.shape[0]))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of whole rows, of about BLOCK elements."""
        count = self.shape[0] if self.shape else 1
        if self.size > BLOCK:
            count = max(1, BLOCK // max(1, prod(self.shape[1:])))
        for block in self.rows(max(1, count)):
            # An unaligned view (pickles, old safetensors headers) would compile the kernels a second time.
            yield block if block.flags.aligned else block.copy()

    def stacked(self) -> Tensor:
        """The matrices of a (experts, out, in) array one below the other, (experts * out, in)."""

        def rows(count: int) -> Iterator[np.ndarray]:
            for slab in self.rows(1):
                matrix = slab[0]
                for start in range(0, len(matrix), count):
                    yield matrix[start : start + count]

        experts, out, inputs = self.shape
        return replace(self, shape=(experts * out, inputs), rows=rows)

    def weights(self) -> Tensor:
        """The same array read as weights: kept is what is not 0."""
        return Tensor(self.shape, self.dtype, self.rows, True)

    @cached_property
    def is_binary(self) -> bool:
        """Whether every value is 0 or 1; the first block that holds another ends the search."""
        if not self.is_number or not self.size:
            return False
        try:
            first = next(self.rows(1)).reshape(-1)[:64]  # weights mostly show here what they are
            return _holds_bits(self._as_mask(first)) and all(_holds_bits(self._as_mask(b)) for b in self.blocks())
        except MaskError:
            return False

    @cached_property
    def has_zero(self) -> bool:
        """Whether a value is 0; the first block that holds one ends the search."""
        if not self.is_number or not self.size:
            return False
        sign = 0x7FFF if self.dtype == "bfloat16" else 0x7F if self.dtype in _BITS else None
        return any(bool(((block if sign is None else block & sign) == 0).any()) for block in self.blocks())

    @cached_property
    def is_quantised(self) -> bool:
        """Whether these are weights in 8-bit integers: signed, and larger than any mask's."""
        if self.dtype != "int8" or self.ndim < 2:
            return False
        return any(bool((np.abs(block.astype(np.int16)) > 2).any()) for block in self.blocks())

    @cached_property
    def is_signs(self) -> bool:
        """Whether every value is -1 or 1, and both are there."""
        if not self.is_number or self.dtype in _BITS or not self.size:
            return False
        seen = {-1: False, 1: False}
        for block in self.blocks():
            low, high = block == -1, block == 1
            if not (low | high).all():
                return False
            seen = {-1: seen[-1] or bool(low.any()), 1: seen[1] or bool(high.any())}
        return all(seen.values())

    @cached_property
    def is_ones(self) -> bool:
        """Whether every value is 1."""
        try:
            return self.is_number and all(bool((self._as_mask(block) == 1).all()) for block in self.blocks())
        except MaskError:
            return False

    def bits(self, name: str, nan: dict[str, int] | None = None) -> BitRows:
        """The mask as bit rows; MaskError for a value that no mask holds.

        nan: takes how many weights are NaN, where there are any; they are not 0, and count as kept.
        """
        if not self.is_number:
            raise MaskError(f"mask '{name}' holds values of type {self.dtype}; a mask holds only 0 and 1")
        if self.ndim < 2 or 0 in self.shape:  # refused there, in its words
            return BitRows.of_mask(np.zeros(self.shape, np.bool_), name)
        words = np.empty((self.shape[0], -(-prod(self.shape[1:]) // 64)), np.uint64)
        if self.inferred:
            self._pack_weights(name, words, nan)
        else:
            words = self._pack_mask(name, words)
        return BitRows(self.shape, words)

    def _pack_mask(self, name: str, words: np.ndarray) -> np.ndarray:
        """The bit rows, in `words` if they come in several blocks."""
        done = 0
        for block in self.blocks():
            mask = BitRows.of_mask(self._as_mask(block, name), name).words
            release(block)
            if len(block) == len(words):
                words = mask
            else:
                words[done : done + len(block)] = mask
            done += len(block)
        return words

    def _pack_weights(self, name: str, words: np.ndarray, nan: dict[str, int] | None) -> None:
        tally = np.zeros(4, np.int64)
        done = 0
        for block in self.blocks():
            rows = words[done : done + len(block)]
            packed(block.reshape(len(block), -1), self.dtype, rows, tally, False)
            release(block)
            done += len(block)
        if nan is not None and tally.any():
            count = odd_numbers(self.dtype, tally).get("nan")
            nan.update({name: count} if count else {})

    def output_first(self, groups: int = 1) -> Tensor:
        """An input-first parameter turned output-first.

        (in, out, ...) -> (out, in, ...); with groups, (in, out / groups, ...) -> (out, in / groups, ...), group by
        group.
        """
        return self.view(output_first_shape(self.shape, groups), lambda array: output_first(array, groups))

    def transposed(self, axes: Sequence[int]) -> Tensor:
        """The axes in another order."""
        return self.view(tuple(self.shape[axis] for axis in axes), lambda array: array.transpose(axes))

    def view(self, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """The whole array changed into one of `shape`, when it is read."""

        def rows(count: int) -> Iterator[np.ndarray]:
            yield from Tensor.of(change(self.whole())).rows(count)

        return replace(self, shape=shape, rows=rows)

    def _as_mask(self, block: np.ndarray, name: str = "mask") -> np.ndarray:
        """A block as values that numpy can compare with 0 and 1."""
        if self.dtype not in _BITS:
            return block
        one, magnitude = (0x3F80, 0x7FFF) if self.dtype == "bfloat16" else (_ONE8[self.dtype], 0x7F)
        kept = block == one
        # -0.0 is 0, except for the fnuz types, where that pattern is the NaN.
        zero = block == 0 if self.dtype.endswith("fnuz") else (block & magnitude) == 0
        if not (kept | zero).all():
            raise MaskError(f"mask '{name}' holds {self.dtype} values other than 0 and 1; a mask holds only 0 and 1")
        return kept


def _holds_bits(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())
