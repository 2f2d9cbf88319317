"""Plain pickles, through the restricted reader only."""

from __future__ import annotations

from mmap import mmap
from typing import Any

from topo.containers.container import Container, File, container
from topo.containers.pickle_machine import Buffer, Machine, resolved
from topo.containers.rebuild import Allowance, admitted
from topo.containers.torch_legacy import load_storage


def _recognise(file: File) -> str | None:
    if is_pickle(file.data):
        return None
    return "it does not start as protocol 2 to 5 of pickle does, nor as the older ones do that end with a dot"


def is_pickle(data: bytes | mmap) -> bool:
    """Protocols 2 to 5 start with their number; 0 and 1 with a mark, a list, a dict or a name, and all end with a
    dot."""
    if data[:1] == b"\x80":
        return data[1:2] in (b"\2", b"\3", b"\4", b"\5")
    return data[:1] in (b"(", b"]", b"}", b"c") and data[-1:] == b"."


@container("pickle", "a Python pickle of lists and dicts of arrays", recognise=_recognise)
def open_pickle(file: File) -> Container:
    """Lists and dicts of arrays."""
    content, notes = read_pickle(file.data)
    return Container("pickle", content, notes=tuple(notes))


def read_pickle(data: Buffer, position: int = 0) -> tuple[Any, list[str]]:
    """The object of one pickle, its arrays as Tensors, and a note of what was left out; FormatError where arrays are
    out of reach."""
    allowance = Allowance(len(data))
    machine = Machine(data, admitted(allowance, load_storage(allowance)), position=position)
    return resolved(machine, machine.run(), allowance.spend)


def read_objects(data: Buffer, shape: tuple[int, ...], position: int = 0) -> tuple[Any, list[str]]:
    """What numpy pickled for an array of objects: the object itself for shape (), else a list; and a note."""
    content, notes = read_pickle(data, position)
    if isinstance(content, list) and shape == () and len(content) == 1:
        return content[0], notes
    return content, notes
