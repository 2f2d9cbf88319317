"""Which kind of file it is, by what each kind says of itself, and taking it apart."""

from __future__ import annotations

from pathlib import Path

from topo.containers.container import Container, File, Kind, kinds
from topo.errors import FormatError


def open_container(path: Path, partial: bool = False) -> Container:
    """Take a file, or a folder, apart. partial: shards that are missing or damaged are left out, and named.

    Raises FormatError with the reason, not naming the file.
    """
    return take_apart(File(path, partial=partial))


def take_apart(file: File) -> Container:
    """As `open_container`, for a part of a file too."""
    try:
        kind = kind_of(file)
        if kind is None:
            raise FormatError(_unknown(file))
        try:
            return kind.opened(file)
        except FormatError as error:
            raise FormatError(f"as {kind.name}: {error}") from error.__cause__
    finally:  # what was found, and what is said of it, holds only if the file is still that file
        if file.map is not None:
            file.map.check()


def kind_of(file: File) -> Kind | None:
    """The first kind that a file is of, None if it is of none."""
    if file.is_too_deep:
        raise FormatError("it holds files within files within files, without end")
    return next((kind for kind in kinds() if kind.lacks(file) is None), None)


def explain(path: Path) -> list[tuple[str, str | None]]:
    """What each kind says a file lacks, None if nothing, in the order in which they are asked."""
    file = File(path)
    return [(kind.name, _said(kind, file)) for kind in kinds()]


def _said(kind: Kind, file: File) -> str | None:
    try:
        return kind.lacks(file)
    except FormatError as error:
        return str(error)


def _unknown(file: File) -> str:
    if file.is_folder:
        listed = ", ".join(repr(path.name) for path in file.files[:4]) or "no file"
        return f"the folder holds {listed}{', ...' if len(file.files) > 4 else ''}: nothing that is read"
    return (
        f"it starts with {file.start[:8]!r}, which no kind of file that is read does: "
        f"{', '.join(sorted(kind.name for kind in kinds() if not kind.folder and not kind.refuses))}"
    )
