"""A folder: the files in it that are of kinds that are read, taken together."""

from __future__ import annotations

from pathlib import Path

from topo.containers.container import Container, File, container
from topo.containers.opening import kind_of, take_apart
from topo.containers.together import Part, together


def _recognise(file: File) -> str | None:
    return None if file.files else "the folder holds no file"


@container("folder", "a folder: one checkpoint, its shards, or an array in each file", folder="*", recognise=_recognise)
def open_folder(file: File) -> Container:
    """What the files hold together; FormatError if it is not clear which of them are meant."""
    found = []
    for path in file.files:
        part = file.beside(path)
        kind = kind_of(part) if path.stat().st_size else None
        if kind is not None and kind.name == "shard_index" and not path.name.endswith(".index.json"):
            continue  # a configuration
        if kind is not None and not kind.refuses:
            found.append(Part(path.name, kind, lambda part=part: take_apart(part)))  # type: ignore[misc]
    return together(found, f"the folder '{Path(file.path).name}'")
