"""HDF5, as Keras and h5py write it: the arrays by their path; read by h5py, which is installed apart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from topo.containers.container import Container, File, container
from topo.containers.rebuild import DEFLATED_ROW, Allowance
from topo.containers.tensors import Tensor
from topo.errors import FormatError

_MOST_ENTRIES = 100_000


@container(
    "hdf5", "HDF5 as Keras and h5py write it: arrays by their path (needs h5py)", starts_with=b"\x89HDF\r\n\x1a\n"
)
def open_hdf5(file: File) -> Container:
    """The arrays of numbers by path, `dense/kernel:0`; links, arrays in other files and text are left out, with a
    note."""
    try:
        import h5py
    except ImportError:
        raise FormatError("it is an HDF5 file, which h5py reads: pip install h5py") from None
    try:
        # From bytes, not from the path: HDF5 then can open no other file.
        opened = h5py.File(io.BytesIO(file.data), "r", locking=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"it is truncated or corrupt ({str(error)[:200]})") from None
    allowance, content, left = Allowance(len(file.data), DEFLATED_ROW), dict[str, Tensor](), list[str]()

    def visit(name: str, entry: Any) -> None:
        if len(content) + len(left) > _MOST_ENTRIES:
            raise FormatError(f"it holds more than {_MOST_ENTRIES:,} entries")
        if not isinstance(entry, h5py.Dataset):
            return
        if entry.is_virtual or entry.external or entry.shape is None or entry.dtype.kind not in "biuf":
            left.append(name)
            return
        allowance.tensor(tuple(entry.shape))
        content[name] = Tensor(tuple(entry.shape), _dtype(entry), lambda count: _rows(name, entry, count))

    try:
        opened.visititems(visit)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise FormatError(f"it is truncated or corrupt ({str(error)[:200]})") from None
    told = f"{len(left)} entries that are not arrays of numbers left out: {left[0]}" if left else ""
    return Container("hdf5", content, notes=(told,) if told else ())


def _dtype(entry: Any) -> str:
    return "bool" if entry.dtype.kind == "b" else str(entry.dtype.newbyteorder("=").name)


def _rows(name: str, entry: Any, count: int) -> Iterator[np.ndarray]:
    try:
        if not entry.shape:
            yield np.asarray(entry[()])
            return
        for start in range(0, entry.shape[0], count):
            yield np.asarray(entry[start : start + count])
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise FormatError(f"its '{name}' is truncated or corrupt ({str(error)[:200]})") from None
