"""The index of a checkpoint in several files: a JSON whose `weight_map` says which shard holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from topo.containers.container import MOST_TENSORS, Container, File, container
from topo.containers.opening import take_apart
from topo.containers.safetensors import LARGEST_HEADER, without_repeats
from topo.errors import FormatError


@container("shard_index", "an index: which shard holds which tensor", suffix=(".index.json", ".json"))
def open_index(file: File) -> Container:
    """The tensors that an index names, from the shards beside it.

    Of a file that may be read in part, the tensors of shards that are missing or damaged are missing.
    """
    data = file.data
    if len(data) > LARGEST_HEADER:
        raise FormatError(f"its {len(data):,} bytes are more than the {LARGEST_HEADER:,} that are read")
    try:
        document: Any = json.loads(data[:], object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not JSON: {error}") from None
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise FormatError("it has no 'weight_map' from tensor names to shard files")
    if len(places) > MOST_TENSORS:
        raise FormatError(f"it names {len(places):,} tensors; at most {MOST_TENSORS:,} are read")
    content: dict[str, Any] = {}
    kind, notes, missing = "safetensors", list[str](), list[str]()
    shards: dict[str, list[str]] = {}
    for name, shard in places.items():
        shards.setdefault(shard, []).append(name)
    for shard, names in shards.items():
        if shard != Path(shard).name or shard in ("", ".", "..") or shard.endswith(".json"):
            raise FormatError(f"it names the shard '{shard}', which is not a file beside it")
        try:
            kind = _take(file, shard, names, content, notes)
        except FormatError as error:
            if not file.partial:
                raise
            missing.extend(name for name in names if name not in content)
            notes.append(f"{error}: {len(missing)} tensors left out")
    if not content:
        raise FormatError("not one of its shards can be read")
    files = tuple(shards)
    return Container(kind, content, notes=tuple(dict.fromkeys(notes)), files=files, missing=tuple(missing))


def _take(file: File, shard: str, names: list[str], content: dict[str, Any], notes: list[str]) -> str:
    """The tensors of these names from one shard into the content; the shard's kind."""
    path = file.path.parent / shard
    if not path.is_file():
        raise FormatError(f"its shard '{shard}' is missing")
    try:
        opened = take_apart(file.beside(path))
    except FormatError as error:
        raise FormatError(f"its shard '{shard}', {error}") from None
    if not isinstance(opened.content, dict):
        raise FormatError(f"its shard '{shard}' holds no tensors by name")
    notes.extend(opened.notes)
    for name in names:
        if name not in opened.content:
            raise FormatError(f"its shard '{shard}' does not hold '{name}'")
        content[name] = opened.content[name]
    return opened.kind
