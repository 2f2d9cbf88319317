"""scipy.sparse.save_npz: an npz that keeps the parts of one sparse matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo.containers.container import Container, File, container
from topo.containers.npy import npy_header
from topo.containers.npz import check_unpacked_size, lacks_arrays, member
from topo.containers.rebuild import DEFLATED_ROW, Allowance
from topo.containers.sparse import compressed, coordinates, diagonals
from topo.containers.tensors import Tensor
from topo.containers.zip import open_member
from topo.errors import FormatError


def _recognise(file: File) -> str | None:
    if lacks := lacks_arrays(file):
        return lacks
    names = {entry.filename for entry in file.entries}
    if file.archive.comment:  # masks that are called so, written by this project
        return "its archive has a comment, which scipy writes none of"
    known = {"format.npy", "shape.npy", "data.npy", "_is_array.npy"}
    places = {"indices.npy", "indptr.npy", "row.npy", "col.npy", "coords.npy", "offsets.npy"}
    return None if {"format.npy", "shape.npy", "data.npy"} <= names <= known | places else (
        "its arrays are not 'format', 'shape', 'data' and where the data stand"
    )  # fmt: skip


@container("scipy_npz", "one sparse matrix by scipy.sparse.save_npz", recognise=_recognise, before="npz")
def open_scipy(file: File) -> Container:
    """The matrix under the name of the file, as it has none of its own: csr, csc, bsr, coo or dia."""
    check_unpacked_size(file)
    parts = {entry.filename.removesuffix(".npy"): member(file, entry, []) for entry in file.entries}
    if odd := [name for name, part in parts.items() if not isinstance(part, Tensor)]:
        raise FormatError(f"its '{odd[0]}' is not an array")
    if parts["shape"].size != 2 or not parts["shape"].dtype.startswith("int"):
        raise FormatError("its 'shape' does not hold the two sizes of a matrix")
    shape = tuple(int(n) for n in parts["shape"].whole().reshape(-1))
    if min(shape) < 1:
        raise FormatError(f"it holds a matrix of shape {shape}")
    Allowance(len(file.data), DEFLATED_ROW).tensor(shape)
    kind, values = _format(file), parts["data"]
    if not values.is_number:
        raise FormatError(f"its values are of type {values.dtype}")

    def part(name: str) -> np.ndarray:
        if name not in parts or not parts[name].dtype.startswith(("int", "uint")):
            raise FormatError(f"as a {kind} matrix it lacks integers '{name}'")
        return parts[name].whole().astype(np.int64)

    def matrix() -> Any:
        if kind in ("csr", "csc", "bsr"):
            return compressed(part("indptr"), part("indices"), values.whole(), shape, values.dtype, kind != "csc")
        if kind == "coo":
            places = part("coords") if "coords" in parts else np.stack([part("row"), part("col")])
            return coordinates(places, values.whole(), shape, values.dtype)
        if kind == "dia":
            return diagonals(part("offsets"), values.whole(), shape, values.dtype)
        raise FormatError(f"a sparse matrix of format {kind!r} is not read; save its tocsr()")

    return Container("scipy_npz", {file.path.stem: matrix()})


def _format(file: File) -> str:
    """The text in 'format.npy': bytes or, by some versions, text."""
    entry = next(entry for entry in file.entries if entry.filename == "format.npy")
    with open_member(file.archive, entry) as stream:
        shape, _, dtype, _ = npy_header(stream)
        text = stream.read(64)
    if shape or dtype.kind not in "SU" or len(text) != dtype.itemsize:
        raise FormatError("its 'format' is not a short text")
    found = np.frombuffer(text, dtype)[0]
    return found.decode("latin-1") if isinstance(found, bytes) else str(found)
