"""Plain pickles, through the restricted reader only."""

from __future__ import annotations

from mmap import mmap
from typing import Any

from topo.containers.container import Container
from topo.containers.pickle_machine import Buffer, Machine, resolved
from topo.containers.rebuild import Allowance, admitted
from topo.containers.torch_file import load_storage


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
    allowance = Allowance(len(data))
    machine = Machine(data, admitted(allowance, load_storage(allowance)), position=position)
    return resolved(machine.run(), allowance.spend)


def read_objects(data: Buffer, shape: tuple[int, ...], position: int = 0) -> Any:
    """What numpy pickled for an array of objects: the object itself for shape (), else a list."""
    content = read_pickle(data, position)
    if isinstance(content, list) and shape == () and len(content) == 1:
        return content[0]
    return content
