"""MaskSet: which parameters a pruner kept, by parameter name, as bits."""

from __future__ import annotations

import hashlib
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from topo._support.late import Late
from topo._support.names import unknown
from topo._support.screen import folding, printable, screen
from topo.errors import MaskError, MaskWarning

# Below this many elements numpy packs sooner than numba is imported; once it is, the kernel is twice as fast.
_SMALL = 1 << 20
# Up to this many bits or bytes numpy takes some 20 us more than a kernel, which first has to be compiled, .4 s each.
_TINY = 1 << 16
_PACKED = {np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint8)}  # as they are, of this machine's byte order
_BFLOAT16_INFINITY = 0x7F80  # 8 bits of exponent above 7 of fraction; more is NaN


def _pack(values: np.ndarray, strict: bool = False) -> tuple[np.ndarray, bool]:
    """values (rows, cols) -> bit rows (rows, ceil(cols / 64)) of values != 0, and whether a value is odd.

    Odd is a value other than 0 and 1 if strict, else NaN. uint16 stands for the bits of bfloat16.
    """
    rows, cols = values.shape
    if values.size < _SMALL and ("numba" not in sys.modules or (values.size <= _TINY and values.itemsize == 1)):
        if values.itemsize == 1 and values.dtype.kind in "biu":  # bytes are packed as they are: two passes, not five
            octets = values.view(np.uint8)
            return packed_rows(octets), strict and bool(np.maximum.reduce(octets, axis=None) > 1)
        magnitudes = values & 0x7FFF if values.dtype == np.uint16 and not strict else values
        kept = magnitudes != 0
        return packed_rows(kept), bool((kept & (values != 1)).any() if strict else _has_nan(values))
    kernels = _kernels()
    words = np.empty((rows, -(-cols // 64)), np.uint64)
    if values.dtype in _PACKED and values.flags.c_contiguous:
        return words, kernels.pack(values, words, strict, 0)
    native = values.dtype.newbyteorder("=")
    if native in (np.bool_, np.int8):
        native, values = np.dtype(np.uint8), values.view(np.uint8)
        values.flags.writeable = False  # as what is read from files, so that the kernel compiles once
    elif native in (np.float16, np.uint16) and not strict:
        infinity = 0x7C00 if native == np.float16 else _BFLOAT16_INFINITY
        return words, kernels.pack(np.ascontiguousarray(values, native).view(np.uint16), words, False, infinity)
    elif native not in _PACKED:
        odd = strict and bool(((values != 0) & (values != 1)).any())
        kernels.pack(np.ascontiguousarray(values != 0).view(np.uint8), words, False, 0)
        return words, odd
    return words, kernels.pack(np.ascontiguousarray(values, native), words, strict, 0)


def packed_rows(values: np.ndarray) -> np.ndarray:
    """values (rows, cols) of one byte each -> bit rows of those that are not 0, by numpy alone."""
    rows, cols = values.shape
    if cols % 64 == 0:  # without room at the ends of rows, all at once: a third less time
        return np.packbits(values.reshape(-1), bitorder="little").view(np.uint64).reshape(rows, cols // 64)
    words = np.zeros((rows, -(-cols // 64)), np.uint64)
    packed = np.packbits(values, axis=1, bitorder="little")
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


def column_counts(words: np.ndarray) -> np.ndarray:
    """uint64 (rows, w) bit rows -> int64 (64 w,): how many rows have each column."""
    if 64 * words.size <= _TINY:
        return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").sum(axis=0, dtype=np.int64)
    counts = np.empty(64 * words.shape[1], np.int64)
    _kernels().column_counts(words, counts)
    return counts


def kernel_counts(words: np.ndarray, columns: int, kernel_size: int) -> np.ndarray:
    """uint64 (rows, w) bit rows of `columns` columns -> uint16 (rows, columns / kernel_size): kept weights of each."""
    if 64 * words.size <= _TINY:
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little")
        return bits.reshape(len(words), -1, kernel_size).sum(axis=2, dtype=np.uint16)
    counts = np.empty((len(words), columns // kernel_size), np.uint16)
    _kernels().kernel_counts(words, kernel_size, counts)
    return counts


def transposed(words: np.ndarray, columns: int) -> np.ndarray:
    """uint64 (rows, w) bit rows of `columns` columns -> uint64 (columns, ceil(rows / 64)): column j is row j."""
    turned = np.zeros((columns, -(-len(words) // 64)), np.uint64)
    if 64 * words.size <= _TINY:
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little")
        packed = np.packbits(bits.T, axis=1, bitorder="little")
        turned.view(np.uint8)[:, : packed.shape[1]] = packed
    else:
        from topo.kernels.spectrum import transpose

        transpose(words, turned)
    return turned


@cache
def _kernels() -> Any:
    """The kernels of bit rows, imported when they are first called: numba takes a moment."""
    from topo.kernels import bits

    return bits


def _has_nan(values: np.ndarray) -> bool:
    if values.dtype == np.uint16:
        return bool((values & 0x7FFF).max() > _BFLOAT16_INFINITY)
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def as_numpy(values: Any) -> np.ndarray:
    """A numpy array or a torch tensor (any device, any dtype) as a numpy array; bfloat16 becomes float32."""
    if type(values) is np.ndarray:
        return values
    if hasattr(values, "detach"):
        if values.is_meta:
            raise MaskError("a tensor on the meta device holds no values, so it is not a mask")
        tensor = values.detach().cpu()
        if tensor.layout is not _strided():
            tensor = tensor.to_dense()
        return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    return np.asarray(values)


def _strided() -> Any:
    import torch

    return torch.strided


@dataclass(frozen=True, eq=False, slots=True)
class BitRows:
    """The bits of one mask: a row per output unit, a column per input weight of it.

    `shape` is the parameter's shape (out, in, ...), `words` (out, ceil(in * ... / 64)) uint64; bit j % 64 of words[i, j
    // 64] is the mask at (i, j), j counting the flattened rest of the shape. Padding bits are 0.
    """

    shape: tuple[int, ...]
    words: np.ndarray

    def __post_init__(self) -> None:
        self.words.flags.writeable = False

    @classmethod
    def of_mask(cls, values: Any, name: str = "mask") -> BitRows:
        """From an array or tensor that holds only 0 and 1 (of any dtype); MaskError otherwise."""
        array = _with_shape(as_numpy(values), name)
        words, odd = _pack(array.reshape(array.shape[0], -1), strict=array.dtype.kind != "b")
        if odd:
            value = array[(array != 0) & (array != 1)][0]
            raise MaskError(f"mask '{name}' holds {value}; a mask holds only 0 and 1")
        return cls(array.shape, words)

    @classmethod
    def of_weights(cls, values: Any, name: str = "weight") -> BitRows:
        """From weights: kept is what is not zero (-0.0 is zero). MaskError if a weight is NaN.

        A uint16 array holds the bits of bfloat16 numbers, which numpy cannot name.
        """
        array = _with_shape(as_numpy(values), name)
        words, odd = _pack(array.reshape(array.shape[0], -1))
        if odd:
            raise MaskError(f"'{name}' holds NaN; whether a NaN weight was kept cannot be known")
        return cls(array.shape, words)

    @property
    def size(self) -> int:
        """Number of parameters, kept or not."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Weights of one row: in * height * width of a convolution."""
        return self.size // self.shape[0]

    def kept(self) -> int:
        """Number of kept parameters."""
        return int(np.bitwise_count(self.words).sum(dtype=np.int64))

    def unpack(self) -> np.ndarray:
        """The mask as a read-only bool array of `shape`."""
        bits = np.unpackbits(self.words.view(np.uint8), axis=1, count=self.columns, bitorder="little")
        mask = bits.view(np.bool_).reshape(self.shape)
        mask.flags.writeable = False
        return mask

    def same_as(self, other: BitRows) -> bool:
        """Whether shape and bits are equal."""
        return self.shape == other.shape and np.array_equal(self.words, other.words)


def _with_shape(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim < 2:
        raise MaskError(f"mask '{name}' has shape {array.shape}; a mask has 2 or more dimensions, (out, in, ...)")
    if 0 in array.shape:
        raise MaskError(f"mask '{name}' has shape {array.shape}: it holds no parameter")
    if array.dtype.kind not in "biuf":
        raise MaskError(f"mask '{name}' holds values of type {array.dtype}; a mask holds only 0 and 1")
    return array


class MaskSet(Mapping[str, np.ndarray]):
    """Masks of a network by parameter name, in network order; read-only.

    A mapping from name to a bool array in torch's layout, (out, in) or (out, in / groups, height, width): True is kept.
    Held as bit rows (`rows(name)`), an eighth of a byte a parameter. Two sets are equal when they hold the same masks
    under the same names, in whatever order and from whatever file.

    masks: name -> array of 0 and 1, or tensor. provenance: where they come from, as `topo.write_masks` writes it and
    reports tell it (method, seed, model, ...); nothing by default.

    >>> masks = MaskSet({"fc.weight": np.array([[1, 0], [1, 1]])})
    >>> masks.kept, masks.size, masks.density
    (3, 4, 0.75)

    Raises MaskError for values other than 0 and 1, for fewer than two dimensions and for an empty set.
    """

    def __init__(self, masks: Mapping[str, Any], *, provenance: Mapping[str, Any] | None = None) -> None:
        """masks: name -> array or tensor of 0 and 1, or BitRows. provenance: where they come from, JSON-able values."""
        if not masks:
            raise MaskError("a mask set holds at least one mask; this one is empty")
        for name in masks:
            if not isinstance(name, str) or not name:
                raise MaskError(f"a mask is called by its parameter's name, not {name!r}")
        self._rows = {
            name: mask if isinstance(mask, BitRows) else BitRows.of_mask(mask, name) for name, mask in masks.items()
        }
        self._provenance = provenance if isinstance(provenance, Late) else Late(provenance or {}, {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self.rows(name).unpack()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def rows(self, name: str) -> BitRows:
        """The bit rows of one mask."""
        try:
            return self._rows[name]
        except KeyError:
            raise KeyError(unknown("mask", name, self._rows)) from None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, in network order."""
        return {name: rows.shape for name, rows in self._rows.items()}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the masks come from: file and format, or method, model, seed and options."""
        return self._provenance

    @property
    def size(self) -> int:
        """Number of masked parameters, kept or not."""
        return sum(rows.size for rows in self._rows.values())

    @property
    def kept(self) -> int:
        """Number of kept parameters."""
        return sum(rows.kept() for rows in self._rows.values())

    @property
    def density(self) -> float:
        """kept / size."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    @property
    def content_hash(self) -> str:
        """SHA-256 over names, shapes and bits, by name: the same for the same masks from any file."""
        digest = hashlib.sha256()
        for name in sorted(self._rows):
            rows = self._rows[name]
            digest.update(f"{name}\0{rows.shape}\0".encode())
            digest.update(rows.words.astype("<u8", copy=False).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskSet):
            return NotImplemented
        return self._rows.keys() == other._rows.keys() and all(
            rows.same_as(other._rows[name]) for name, rows in self._rows.items()
        )

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __repr__(self) -> str:
        return screen(*self._table())

    def _repr_html_(self) -> str:
        return folding(*self._table(), "mask")

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        """What a screen shows: a line, a header, and a row for each mask."""
        kept = {name: rows.kept() for name, rows in self._rows.items()}
        total = sum(kept.values())
        share = f"{total:,} of {self.size:,} parameters kept, density {total / self.size:.4g}"
        lines = [
            [printable(name), "x".join(map(str, rows.shape)), f"{kept[name]:,}", f"{kept[name] / rows.size:.4f}"]
            for name, rows in self._rows.items()
        ]
        return f"MaskSet({len(self)} masks, {share})", ["mask", "shape", "kept", "density"], lines

    def with_provenance(self, **provenance: Any) -> MaskSet:
        """The same masks with these entries added to the provenance."""
        return MaskSet(self._rows, provenance=self._provenance.updated(provenance))

    def in_order(self, names: Iterable[str]) -> MaskSet:
        """The same masks in the order of `names`; masks that it does not name follow in their own order."""
        first = {name: self._rows[name] for name in names if name in self._rows}
        return MaskSet({**first, **self._rows}, provenance=self._provenance)


def as_mask_set(masks: Any) -> MaskSet:
    """A MaskSet as it is; a mapping from name to array or tensor made into one; MaskError for anything else."""
    if isinstance(masks, MaskSet):
        return masks
    if isinstance(masks, Mapping):
        return MaskSet(masks)
    raise MaskError(f"masks are a MaskSet or a mapping from parameter name to mask, not {type(masks).__name__}")


def are_masks(values: Mapping[Any, Any]) -> bool:
    """Whether each value can only be meant as a mask: of two or more dimensions, and no weights.

    Weights are floats other than 0 and 1. Integers are masks, or a mistake that is named when they are read.
    """
    for value in values.values():
        if isinstance(value, BitRows):
            continue
        if isinstance(value, Mapping | list | tuple | str) or not hasattr(value, "dtype"):
            return isinstance(value, list | tuple) and np.ndim(value) >= 2
        array = as_numpy(value)
        if array.ndim < 2 or (array.dtype.kind == "f" and not ((array == 0) | (array == 1)).all()):
            return False
    return True


def warn_of_empty_layers(masks: MaskSet) -> None:
    """A MaskWarning that names the layers whose masks keep nothing, if there are any: nothing passes through them."""
    empty = [name for name in masks if not masks.rows(name).kept()]
    if not empty:
        return
    if len(empty) == len(masks):
        text = f"the masks keep none of {masks.size:,} weights"
    else:
        named = ", ".join(f"'{name}'" for name in empty[:3]) + (", ..." if len(empty) > 3 else "")
        text = f"{len(empty)} of {len(masks)} layers keep no weight: {named}"
    warnings.warn(text, MaskWarning, stacklevel=3)
