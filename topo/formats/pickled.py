"""Plain pickles and .npy files, through the restricted reader only."""

from __future__ import annotations

import io
from math import prod
from mmap import mmap
from typing import Any

import numpy as np

from topo.errors import FormatError
from topo.formats.archive import read_npy_header
from topo.formats.container import Container
from topo.formats.rebuild import Allowance, admitted
from topo.formats.restricted import Buffer, Machine, resolved
from topo.formats.tensors import Tensor


def is_pickle(data: mmap) -> bool:
    """Protocols 2 to 5 start with their number; 0 and 1 with a mark, a list, a dict or a name, and all end with a
    dot."""
    return (data[0] == 0x80 and 2 <= data[1] <= 5) if len(data) > 1 and data[0] == 0x80 else data[:1] in (
        b"(", b"]", b"}", b"c",
    ) and data[-1:] == b"."  # fmt: skip


def open_pickle(data: mmap) -> Container:
    """Lists and dicts of arrays."""
    return Container("pickle", read_pickle(data))


def read_pickle(data: Buffer, position: int = 0) -> Any:
    """The object of one pickle, its arrays as Tensors; FormatError for anything that is no array or plain container."""
    from topo.formats.torch_file import load_storage

    allowance = Allowance(len(data))
    return resolved(Machine(data, admitted(allowance, load_storage(allowance)), position=position).run())


def read_objects(data: Buffer, shape: tuple[int, ...], position: int = 0) -> Any:
    """What numpy pickled for an array of objects: the object itself for shape (), else a list."""
    content = read_pickle(data, position)
    if isinstance(content, list) and shape == () and len(content) == 1:
        return content[0]
    return content


def open_npy(data: mmap) -> Container:
    """One array, or the dict or list in an array of objects."""
    head = io.BytesIO(data[: 1 << 16])
    shape, fortran, dtype, start = read_npy_header(head)
    if dtype.hasobject:
        return Container("npy", read_objects(data, shape, start))
    promised = start + prod(shape) * dtype.itemsize
    if promised != len(data):
        raise FormatError(f"an array of shape {shape} promises {promised:,} bytes and the file has {len(data):,}")
    if dtype.kind not in "biuf" or not prod(shape):
        raise FormatError(f"it holds one array of type {dtype} and shape {shape}, which is no mask")
    held = np.dtype("u1") if dtype.kind == "b" else dtype
    array = np.frombuffer(data, held, prod(shape), start).reshape(shape, order="F" if fortran else "C")
    return Container("npy", [Tensor.of(array, dtype.name)])
