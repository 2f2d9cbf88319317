"""numpy's .npy: one array, or the dict or list in an array of objects."""

from __future__ import annotations

import io
import warnings
from math import prod
from typing import Any

import numpy as np

from topo.containers.container import Container, File, container
from topo.containers.pickle_file import read_objects
from topo.containers.tensors import Tensor
from topo.errors import FormatError


@container("npy", "numpy's .npy: one array, or a dict or list of them", starts_with=b"\x93NUMPY")
def open_npy(file: File) -> Container:
    """One array, or the dict or list in an array of objects."""
    data = file.data
    shape, fortran, dtype, start = npy_header(io.BytesIO(data[: 1 << 16]))
    if dtype.hasobject:
        content, notes = read_objects(data, shape, start)
        return Container("npy", content, notes=tuple(notes))
    promised = start + prod(shape) * dtype.itemsize
    if promised != len(data):
        raise FormatError(f"an array of shape {shape} promises {promised:,} bytes and the file has {len(data):,}")
    if dtype.kind not in "biuf" or not prod(shape):
        raise FormatError(f"it holds one array of type {dtype} and shape {shape}, which is not a mask")
    held = np.dtype("u1") if dtype.kind == "b" else dtype
    array = np.frombuffer(data, held, prod(shape), start).reshape(shape, order="F" if fortran else "C")
    return Container("npy", [Tensor.of(array, dtype.name)])


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """shape, column-major or not, dtype and length of an .npy header; ValueError if it is none."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():  # of headers by Python 2, and of odd escapes in corrupt ones
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read(stream)
    except Exception as error:  # numpy lets out whatever Python's tokenizer and parser say of the text
        raise ValueError(f"{type(error).__name__}: {str(error)[:100]}") from None
    if any(n < 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype, stream.tell()
