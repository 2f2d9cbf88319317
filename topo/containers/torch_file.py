"""torch.save files since torch 1.6, read without torch.

`torch.load(weights_only=True)` runs no code either, but it takes memory that the file only promises (a tensor larger
than its storage makes torch enlarge the storage), it copies every tensor, and it costs a second of import. Here the
pickle goes through the restricted reader, and tensors are views of the mapped file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from topo.containers.container import Container, File, container
from topo.containers.pickle_machine import Admitted, Machine, resolved
from topo.containers.rebuild import Allowance, Storage, admitted, storage_reference
from topo.containers.tensors import numpy_dtype
from topo.containers.torch_legacy import load_storage
from topo.containers.zip import stored_span
from topo.errors import FormatError


def _recognise(file: File) -> str | None:
    if not file.is_zip:
        return "it is not a zip archive"
    return None if pickle_in(file) else "it holds no 'data.pkl'"


def pickle_in(file: File, name: str = "data.pkl") -> str | None:
    """The entry of this name in a torch archive, whatever folder stands before it."""
    return next((e.filename for e in file.entries if e.filename.rpartition("/")[2] == name), None)


@container("torch", "torch.save: a pickle and an entry for each storage", recognise=_recognise, before=("npz", "zip"))
def open_torch(file: File) -> Container:
    """data.pkl and one stored entry per storage."""
    allowance = Allowance(len(file.data))
    name = pickle_in(file) or ""
    machine = machine_of(file, name, "data/", admitted(allowance, load_storage(allowance)))
    content, notes = resolved(machine, machine.run(), allowance.spend)
    return Container("torch", content, notes=tuple(notes))


def machine_of(file: File, pickle: str, storages_in: str, table: Mapping[tuple[str, str], Admitted]) -> Machine:
    """A machine over one pickle of an archive, whose storages are entries of a folder beside it."""
    spans = {entry.filename: entry for entry in file.entries if not entry.is_dir()}
    start, stop = stored_span(file.data, spans[pickle])
    root = pickle.rpartition("/")[0]
    root = f"{root}/" if root else ""
    byteorder = spans.get(f"{root}byteorder")
    order: Literal["<", ">"] = (
        ">" if byteorder is not None and file.data[slice(*stored_span(file.data, byteorder))] == b"big" else "<"
    )
    view, storages = memoryview(file.data), dict[str, Storage]()

    def storage(reference: Any) -> Storage:
        dtype, key, count = storage_reference(reference)
        if key not in storages:
            entry = spans.get(f"{root}{storages_in}{key}")
            if entry is None:
                raise FormatError(f"it is truncated: the values '{key}' of a tensor are missing")
            storages[key] = Storage(dtype, view[slice(*stored_span(file.data, entry))], order)
        found = storages[key]
        if found.data is not None and count * numpy_dtype(dtype).itemsize > len(found.data):
            raise FormatError(f"a storage promises {count:,} elements of {dtype} and holds {len(found.data):,} bytes")
        return Storage(dtype, found.data, order)

    return Machine(file.data, table, storage, start, stop)
