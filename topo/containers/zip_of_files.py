"""A zip of files that are read: what they hold together, as if they lay in a folder."""

from __future__ import annotations

import zipfile
import zlib
from mmap import mmap
from pathlib import PurePath

from topo.containers.container import Container, File, container
from topo.containers.opening import kind_of, take_apart
from topo.containers.together import Part, together
from topo.containers.unpacking import unpacked
from topo.containers.zip import open_member
from topo.errors import FormatError

_MOST_FILES = 2_000


@container("zip", "a zip of files that are read", starts_with=b"PK")
def open_files(file: File) -> Container:
    """What the files hold together; names are those of the entries, less a folder that holds all of them."""
    entries = [entry for entry in file.entries if not entry.is_dir() and not _hidden(entry.filename)]
    if len(entries) > _MOST_FILES:
        raise FormatError(f"it holds {len(entries):,} files; at most {_MOST_FILES:,} are looked at")
    top = _common_folder([entry.filename for entry in entries])
    found = []
    for entry in entries:
        if not entry.file_size:
            continue
        part = file.part(entry.filename.removeprefix(top), _bytes(file, entry))
        kind = kind_of(part)
        # The shards that an index names are joined by their names: the index looks for them in a folder.
        if kind is not None and not kind.refuses and kind.name != "shard_index":
            name = entry.filename.removeprefix(top)
            found.append(Part(name, kind, lambda part=part: take_apart(part)))  # type: ignore[misc]
    if not found:
        listed = ", ".join(repr(entry.filename) for entry in entries[:4]) or "nothing"
        more = ", ..." if len(entries) > 4 else ""
        raise FormatError(f"it is neither a torch file nor an npz nor a zip of such; it holds {listed}{more}")
    return together(found, f"the zip '{file.path.name}'")


def _hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or PurePath(name).name.startswith(".")


def _common_folder(names: list[str]) -> str:
    first = names[0].partition("/")[0] + "/" if names else ""
    return first if all(name.startswith(first) for name in names) else ""


def _bytes(file: File, entry: zipfile.ZipInfo) -> bytes | mmap:
    try:
        with open_member(file.archive, entry) as stream:
            return unpacked(stream, entry.compress_size)
    except FormatError as error:
        raise FormatError(f"its entry '{entry.filename}': {error}") from None
    except (EOFError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"its entry '{entry.filename}' is corrupt ({error})") from None
