"""torch.save files, both layouts, read without torch.

`torch.load(weights_only=True)` runs no code either, but it takes memory that the file only promises (a tensor larger
than its storage makes torch enlarge the storage), it copies every tensor, and it costs a second of import. Here the
pickle goes through the restricted reader, and tensors are views of the mapped file.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from mmap import mmap
from typing import Any, Literal

from topo.containers.container import Container
from topo.containers.pickle_machine import Admitted, Buffer, Machine, corrupt, resolved
from topo.containers.rebuild import STORAGES, Allowance, Storage, admitted
from topo.containers.tensors import numpy_dtype
from topo.containers.zip import stored_span
from topo.errors import FormatError

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")


def is_legacy(data: Buffer) -> bool:
    """Whether the bytes are of the layout that torch wrote before version 1.6."""
    return bytes(data[: len(_LEGACY_START)]) == _LEGACY_START


def _reference(key: Any) -> tuple[str, str, int]:
    """dtype, key and number of elements of the storage that a persistent id names."""
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Admitted):
        raise corrupt("a reference to what is no storage")
    kind = key[1].name.rpartition(".")[2]
    if kind not in STORAGES or not isinstance(key[4], int) or key[4] < 0 or not isinstance(key[2], str):
        raise corrupt("a storage of an unknown type")
    return STORAGES[kind], key[2], key[4]


def open_zip(data: mmap, entries: list[zipfile.ZipInfo]) -> Container:
    """The layout since torch 1.6: data.pkl and one stored entry per storage."""
    spans = {entry.filename: stored_span(data, entry) for entry in entries if not entry.is_dir()}
    pickles = [name for name in spans if name.rpartition("/")[2] == "data.pkl"]
    root = pickles[0].removesuffix("data.pkl")
    order: Literal["<", ">"] = (
        ">" if root + "byteorder" in spans and data[slice(*spans[root + "byteorder"])] == b"big" else "<"
    )
    view = memoryview(data)
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        dtype, key, count = _reference(reference)
        if key not in storages:
            span = spans.get(f"{root}data/{key}")
            if span is None:
                raise FormatError(f"it is truncated: the values '{key}' of a tensor are missing")
            storages[key] = Storage(dtype, view[slice(*span)], order)
        found = storages[key]
        if found.data is not None and count * numpy_dtype(dtype).itemsize > len(found.data):
            raise FormatError(f"a storage promises {count:,} elements of {dtype} and holds {len(found.data):,} bytes")
        return Storage(dtype, found.data, order)

    allowance = Allowance(len(data))
    start, stop = spans[pickles[0]]
    machine = Machine(data, admitted(allowance, load_storage(allowance)), storage, start, stop)
    return Container("torch", resolved(machine.run(), allowance.spend))


def open_legacy(data: mmap) -> Container:
    """The layout before torch 1.6: five pickles, then the storages one after another."""
    allowance = Allowance(len(data))
    root = _read_legacy(data, allowance, load_storage(allowance))
    return Container("torch", resolved(root, allowance.spend))


def _read_legacy(data: Buffer, allowance: Allowance, nested: Callable[[Any], Any] | None) -> Any:
    storages: dict[str, tuple[Storage, int]] = {}

    def storage(reference: Any) -> Any:
        if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
            return reference[1]  # the class of a pickled module; its source code stands beside it
        dtype, key, count = _reference(reference)
        if len(reference) > 5 and reference[5] is not None:
            raise FormatError(
                "it holds storages within storages, which torch no longer writes; save it again with a newer torch"
            )
        return storages.setdefault(key, (Storage(dtype), count))[0]

    machine = Machine(data, admitted(allowance, nested), storage)
    magic, protocol, system = machine.run(), machine.run(), machine.run()
    if magic != _MAGIC or protocol != 1001 or not isinstance(system, dict):
        raise FormatError(f"its layout is {protocol!r}; torch writes 1001")
    order: Literal["<", ">"] = "<" if system.get("little_endian", True) else ">"
    root = machine.run()
    keys = machine.run()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise corrupt("the list of storages is not that of the tensors")
    for key in keys:
        held, count = storages[key]
        (promised,) = struct.unpack(order + "q", machine.take(8))
        if promised != count:
            raise corrupt(f"a storage of {count:,} elements is followed by {promised:,}")
        held.data, held.order = machine.take(count * numpy_dtype(held.dtype).itemsize), order
    return root


def load_storage(allowance: Allowance) -> Callable[[Any], Any]:
    """torch.storage._load_from_bytes for plain pickles of tensors: each holds its storage as a file of the old
    layout."""

    def load(data: Any) -> Storage:
        if not isinstance(data, (bytes, memoryview)) or not is_legacy(data):
            raise corrupt("a tensor whose storage is no torch file")
        allowance.copy(len(data))  # each is read once; the same bytes again and again would take hours
        root = _read_legacy(data, allowance, None)
        if not isinstance(root, Storage):
            raise corrupt("a tensor whose storage is none")
        return root

    return load
