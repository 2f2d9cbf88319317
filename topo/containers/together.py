"""Checkpoints in several files, in a folder or a zip: which of the files are meant, and the tensors of all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from topo.containers.container import Container, Kind
from topo.containers.tensors import Tensor
from topo.errors import FormatError

# What stands beside a checkpoint and holds no weights of the model.
_ASIDE = ("optimizer*", "scheduler*", "training_args*", "rng_state*", "scaler*", "events.out*")
_PREFERRED = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
)
_MASKS = re.compile(r"(?:^|[_.-])(?:masks?|tickets?)(?:[_.-]|$)", re.I)
_NUMBERED = re.compile(r"(?P<stem>.*?)-(?P<number>\d{1,6})-of-(?P<count>\d{1,6})(?P<end>\..*)?")


@dataclass(frozen=True)
class Part:
    """A file that is read: its name, its kind, and taking it apart."""

    name: str
    kind: Kind
    open: Callable[[], Container]


def together(parts: list[Part], whose: str) -> Container:
    """What the files of a folder or archive hold together.

    An index, or the file that has a checkpoint's usual name, or the only one; else all of them, which then hold a
    tensor each, or tensors by name. Notes tell which files were left aside, and that files were joined.
    Raises FormatError when a shard is missing, and when files hold the same name: then they are several checkpoints.
    """
    if not parts:
        raise FormatError(f"{whose} holds no file that is read")
    chosen = _chosen(parts)
    aside = [part.name for part in parts if part not in chosen]
    if len(chosen) == 1 and chosen[0].kind.name != "shard_index":
        _complete(chosen, whose)
    if len(chosen) == 1:
        opened = _opened(chosen[0])
        content, kind, notes = opened.content, opened.kind, list(opened.notes)
        aside = [name for name in aside if name not in opened.files]
        metadata: Mapping[str, str] = opened.metadata
        files, missing = opened.files, opened.missing
    else:
        _complete(chosen, whose)
        content, kind, notes = _joined(chosen, whose)
        metadata = {}
        files, missing = tuple(part.name for part in chosen), ()
    masks = [name for name in aside if _MASKS.search(PurePath(name).stem)]
    if masks:
        raise FormatError(
            f"{whose} holds {_some(part.name for part in chosen)} and {_some(masks)}: masks beside weights are "
            "files of their own; read one of them by itself"
        )
    if aside:
        notes.append(f"of {whose}, {_some(part.name for part in chosen)} read and {_some(aside)} left aside")
    return Container(kind, content, metadata, tuple(notes), files, missing)


def _chosen(parts: list[Part]) -> list[Part]:
    by_name = {PurePath(part.name).name: part for part in parts}
    indexes = [part for part in parts if part.kind.name == "shard_index"]
    tensors = [part for part in parts if part.kind.name == "safetensors"]
    for found in ([by_name[name] for name in _PREFERRED if name in by_name][:1], indexes, tensors, parts):
        if len(found) == 1:
            return found
    rest = [part for part in parts if not any(fnmatchcase(PurePath(part.name).name, odd) for odd in _ASIDE)]
    rest = [part for part in rest if part.kind.name != "shard_index"] if not indexes else rest
    return tensors or rest or parts


def shard_of(name: str) -> str | None:
    """The note on a file that is called as one of several shards; None for any other, and for 1 of 1."""
    found = _NUMBERED.fullmatch(name)
    if found is None or int(found["count"]) < 2:
        return None
    return f"one shard of {int(found['count'])} by its name, and the others are not read: give the folder"


def _complete(parts: list[Part], whose: str) -> None:
    """FormatError if files are numbered as shards and one is missing."""
    series: dict[tuple[str, str, str], set[int]] = {}
    for part in parts:
        if found := _NUMBERED.fullmatch(PurePath(part.name).name):
            series.setdefault((found["stem"], found["count"], found["end"] or ""), set()).add(int(found["number"]))
    for (stem, count, end), numbers in series.items():
        start = 0 if 0 in numbers else 1
        missing = next((n for n in range(start, start + min(int(count), 100_000)) if n not in numbers), None)
        if missing is not None:
            raise FormatError(f"{whose} lacks the shard '{stem}-{missing:0{len(count)}}-of-{count}{end}'")


def _joined(parts: list[Part], whose: str) -> tuple[dict[str, Any], str, list[str]]:
    content: dict[str, Any] = {}
    home: dict[str, str] = {}
    notes: list[str] = []
    kinds = set()
    for part in parts:
        opened = _opened(part)
        kinds.add(opened.kind)
        notes.extend(opened.notes)
        for name, tensor in _by_name(part, opened.content, whose).items():
            if name in home:
                raise FormatError(
                    f"{whose} holds {len(parts)} files and no index that joins them, and '{home[name]}' and "
                    f"'{part.name}' both hold '{name}': give the one that is meant"
                )
            content[name], home[name] = tensor, part.name
    notes.append(f"{len(parts)} files of {whose} joined: {_some(part.name for part in parts)}")
    return content, kinds.pop() if len(kinds) == 1 else "folder", notes


def _by_name(part: Part, content: Any, whose: str) -> dict[str, Tensor]:
    """The tensors of one of several files; a single one without a name is called as its file is."""
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if isinstance(content, Tensor):
        return {part.name.removesuffix(PurePath(part.name).suffix).replace("/", "."): content}
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(f"{whose} holds several files, and '{part.name}' is more than tensors by name: give one file")
    return {str(name): tensor for name, tensor in content.items()}


def _opened(part: Part) -> Container:
    try:
        return part.open()
    except FormatError as error:
        raise FormatError(f"its file '{part.name}', {error}") from None


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(f"'{name}'" for name in listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
