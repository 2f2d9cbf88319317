"""Sparse matrices, whoever wrote them, as Tensors: coordinates, compressed rows or columns, blocks, diagonals."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError, MaskError


def coordinates(indices: np.ndarray, values: np.ndarray, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor from coordinates: indices (ndim, n) integers, values (n,); values at the same place add up, as torch has
    it.

    Raises MaskError for a coordinate outside of `shape`.
    """
    limits = np.array(shape, np.int64).reshape(-1, 1)
    if indices.shape != (len(shape), len(values)) or ((indices < 0) | (indices >= limits)).any():
        raise MaskError(f"a sparse tensor of shape {shape} holds coordinates outside of it")

    if len(shape) < 2:
        dense = np.zeros(shape, values.dtype)
        np.add.at(dense, tuple(indices), values)
        return Tensor.of(dense, dtype)
    return _scattered(tuple(indices), values, shape, dtype)


def _scattered(places: tuple[np.ndarray, ...], values: np.ndarray, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor from the places (row, column, ...) of its values, made some rows at a time, never as a whole.

    values: numbers (n,), or pieces of rows (n, width), and then columns of pieces.
    """
    order = np.argsort(places[0], kind="stable")
    first, rest, ordered = places[0][order], [axis[order] for axis in places[1:]], values[order]
    width = values.shape[1:]
    inner = (shape[1] // width[0], *width) if width else shape[1:]

    def rows(count: int) -> Iterator[np.ndarray]:
        for start in range(0, shape[0], count):
            stop = min(start + count, shape[0])
            here = slice(*np.searchsorted(first, (start, stop)))
            dense = np.zeros((stop - start, *inner), values.dtype)
            np.add.at(dense, (first[here] - start, *(axis[here] for axis in rest)), ordered[here])
            yield dense.reshape(stop - start, *shape[1:])

    return Tensor(shape, dtype, rows)


def compressed(
    starts: np.ndarray, others: np.ndarray, values: np.ndarray, shape: tuple[int, ...], dtype: str, by_rows: bool
) -> Tensor:
    """A matrix from compressed rows (columns where not by_rows): entries starts[i] to starts[i + 1] stand in row i, in
    the columns `others`; values (n,), or blocks (n, height, width) and then rows and columns of blocks.

    Raises FormatError for parts that do not add up.
    """
    height, width = values.shape[1:] if values.ndim == 3 else (1, 1)
    if len(shape) != 2 or values.ndim not in (1, 3) or min(height, width) < 1 or shape[0] % height or shape[1] % width:
        raise FormatError(f"a sparse tensor of shape {shape} with values of shape {values.shape} is not read")
    grid = shape[0] // height, shape[1] // width
    counts = np.diff(starts)
    if (
        starts.ndim != 1
        or others.ndim != 1
        or len(starts) != grid[0 if by_rows else 1] + 1
        or starts[0] != 0
        or (counts < 0).any()
        or not starts[-1] == len(others) == len(values)
        or ((others < 0) | (others >= grid[1 if by_rows else 0])).any()
    ):
        raise FormatError(f"a sparse tensor of shape {shape} whose {'rows' if by_rows else 'columns'} do not add up")
    along = np.repeat(np.arange(len(counts)), counts)
    places = (along, others) if by_rows else (others, along)

    if values.ndim == 1:
        return _scattered(places, values, shape, dtype)
    lines = (places[0][:, None] * height + np.arange(height)).reshape(-1)
    return _scattered((lines, np.repeat(places[1], height)), values.reshape(-1, width), shape, dtype)


def semi_structured(packed: Tensor, meta: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A 2:4 matrix (float32: 1:2) as torch keeps it for CUTLASS: half of the values of each row, and where they stand.

    packed: (rows, columns / 2). meta: int16, or int32 for int8 values, (rows, ...): two bits for each 16-bit value
    (8-bit of int8), its place among four; rows within groups of 32 (16 of int8) and 2 x 2 blocks exchanged, and pairs
    of columns stored one after the other, as CUTLASS' `reorder_meta` and `ColumnMajorInterleaved<2>` have it.

    Raises FormatError for parts that do not add up.
    """
    rows, half = packed.shape if packed.ndim == 2 else (0, 0)
    of_bytes, bits = packed.dtype == "int8", {"int16": 16, "int32": 32}.get(meta.dtype, 0)
    pieces = 2 if packed.dtype == "float32" else 1  # 16-bit pieces of a value
    group, weave = (16, 2) if of_bytes else (32, 4)
    if (
        shape != (rows, 2 * half)
        or packed.dtype not in ("int8", "float16", "bfloat16", "float32")
        or bits != (32 if of_bytes else 16)
        or rows % group
        or meta.ndim != 2
        or meta.shape[0] != rows
        or meta.shape[1] * bits != 2 * half * pieces
    ):
        raise FormatError(
            f"a semi-structured tensor of shape {shape} with {packed.dtype} {packed.shape} and {meta.dtype} "
            f"{meta.shape} is not read; save its to_dense()"
        )
    row, column = np.arange(rows).reshape(-1, 1), np.arange(meta.shape[1])
    to = row // group * group + row % 8 * weave + row % group // 8
    moved = ((to % 2 == 0) & (column % 2 == 1)).astype(np.int64) - ((to % 2 == 1) & (column % 2 == 0))
    to, column = to + moved, column - moved
    stored = np.ascontiguousarray(meta.whole()).reshape(-1).view(f"<u{bits // 8}")
    words = stored[column // 2 * rows * 2 + to * 2 + column % 2]
    held = np.dtype("u1" if of_bytes else "<u2")

    def blocks(count: int) -> Iterator[np.ndarray]:
        shifts = np.arange(0, bits, 2, dtype=words.dtype)
        start = 0
        for block in packed.rows(count):
            places = (words[start : start + len(block), :, None] >> shifts & 3).reshape(len(block), -1).astype(np.int64)
            places += np.arange(places.shape[1]) // 2 * 4
            dense = np.zeros((len(block), 2 * half * pieces), held)
            np.put_along_axis(dense, places, np.ascontiguousarray(block).view(held), axis=1)
            yield dense.view(block.dtype)
            start += len(block)

    return Tensor(shape, packed.dtype, blocks)


def diagonals(offsets: np.ndarray, values: np.ndarray, shape: tuple[int, ...], dtype: str) -> Tensor:
    """scipy's dia: values[k, j] stands at (j - offsets[k], j).

    Raises FormatError for parts that do not add up.
    """
    if len(shape) != 2 or offsets.ndim != 1 or values.ndim != 2 or len(offsets) != len(values):
        raise FormatError(f"a sparse tensor of shape {shape} whose diagonals do not add up")
    if len(np.unique(offsets)) != len(offsets) or prod(values.shape) > 2 * prod(shape) + 2 * sum(shape):
        raise FormatError(f"a sparse tensor of shape {shape} with diagonals that repeat or run outside of it")

    def rows(count: int) -> Iterator[np.ndarray]:
        for start in range(0, shape[0], count):
            stop = min(start + count, shape[0])
            dense = np.zeros((stop - start, shape[1]), values.dtype)
            for offset, line in zip(offsets.tolist(), values):
                columns = np.arange(max(start + offset, 0), min(stop + offset, values.shape[1], shape[1]))
                dense[columns - offset - start, columns] = line[columns]
            yield dense

    return Tensor(shape, dtype, rows)
