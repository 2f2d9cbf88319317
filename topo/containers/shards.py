"""Checkpoints in several files: a folder or an index JSON whose `weight_map` says which shard holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

from topo.containers.container import Container
from topo.containers.safetensors import LARGEST_HEADER, without_repeats
from topo.errors import FormatError

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLES = ("model.safetensors", "pytorch_model.bin")


def open_folder(folder: Path, open_one: Callable[[Path], Container]) -> Container:
    """A folder that holds one index, or one checkpoint file, which `open_one` takes apart."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror}") from None
    names = {path.name: path for path in files}
    indexes = [path for path in files if path.name.endswith(".index.json")]
    tensors = [path for path in files if path.suffix == ".safetensors"]
    preferred = [names[name] for name in (*_INDEXES, *_SINGLES) if name in names]
    for found in (preferred[:1], indexes, tensors):
        if len(found) == 1:
            return open_one(found[0])
    if len(tensors) > 1:
        raise FormatError(
            f"the folder holds {len(tensors)} safetensors files and no '*.safetensors.index.json' that joins them"
        )
    listed = ", ".join(repr(name) for name in list(names)[:4]) or "no file"
    raise FormatError(f"the folder holds {listed}: no '*.index.json' and no '*.safetensors'")


def open_index(data: mmap, folder: Path, open_one: Callable[[Path], Container]) -> Container:
    """The tensors that an index names, from the shards beside it, each of which `open_one` takes apart."""
    if len(data) > LARGEST_HEADER:
        raise FormatError(f"its {len(data):,} bytes are more than the {LARGEST_HEADER:,} that are read")
    try:
        document: Any = json.loads(data[:], object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is no JSON: {error}") from None
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise FormatError("it has no 'weight_map' from tensor names to shard files")
    content: dict[str, Any] = {}
    kind = "safetensors"
    for shard in dict.fromkeys(places.values()):
        if shard != Path(shard).name or shard in ("", ".", "..") or shard.endswith(".json"):
            raise FormatError(f"it names the shard '{shard}', which is no file beside it")
        if not (folder / shard).is_file():
            raise FormatError(f"its shard '{shard}' is missing")
        try:
            opened = open_one(folder / shard)
        except FormatError as error:
            raise FormatError(f"its shard '{shard}', {error}") from None
        if not isinstance(opened.content, dict):
            raise FormatError(f"its shard '{shard}' holds no tensors by name")
        kind = opened.kind
        for name in (name for name, place in places.items() if place == shard):
            if name not in opened.content:
                raise FormatError(f"its shard '{shard}' does not hold '{name}'")
            content[name] = opened.content[name]
    return Container(kind, content)
