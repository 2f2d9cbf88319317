"""torch.save files as torch wrote them before version 1.6: five pickles, then the storages one after another."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal

from topo.containers.container import Container, File, container
from topo.containers.pickle_machine import Buffer, Machine, corrupt, resolved
from topo.containers.rebuild import Allowance, Storage, admitted, storage_reference
from topo.containers.tensors import numpy_dtype
from topo.errors import FormatError

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")


def is_legacy(data: Buffer) -> bool:
    """Whether the bytes are of the layout that torch wrote before version 1.6."""
    return bytes(data[: len(_LEGACY_START)]) == _LEGACY_START


@container("torch_legacy", "torch.save before torch 1.6", starts_with=_LEGACY_START, before="pickle")
def open_legacy(file: File) -> Container:
    """The layout before torch 1.6: five pickles, then the storages one after another."""
    allowance = Allowance(len(file.data))
    machine, root = _read_legacy(file.data, allowance, load_storage(allowance))
    content, notes = resolved(machine, root, allowance.spend)
    return Container("torch", content, notes=tuple(notes))


def _read_legacy(data: Buffer, allowance: Allowance, nested: Callable[[Any], Any] | None) -> tuple[Machine, Any]:
    storages: dict[str, tuple[Storage, int]] = {}

    def storage(reference: Any) -> Any:
        if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
            return reference[1]  # the class of a pickled module; its source code stands beside it
        dtype, key, count = storage_reference(reference)
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
    return machine, root


def load_storage(allowance: Allowance) -> Callable[[Any], Any]:
    """torch.storage._load_from_bytes for plain pickles of tensors: each holds its storage as a file of the old
    layout."""

    def load(data: Any) -> Storage:
        if not isinstance(data, (bytes, memoryview)) or not is_legacy(data):
            raise corrupt("a tensor whose storage is not a torch file")
        allowance.copy(len(data))  # each is read once; the same bytes again and again would take hours
        _, root = _read_legacy(data, allowance, None)
        if not isinstance(root, Storage):
            raise corrupt("a tensor whose storage is none")
        return root

    return load
