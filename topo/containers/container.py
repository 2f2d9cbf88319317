"""What a kind of file is, and the registry of them: a new kind is one function under `@container`, in one file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.doors import check_flags, check_function, said
from topo._support.order import in_order, names_before
from topo._support.registry import Registry
from topo.containers.mapped import IN_MEMORY, Mapped, bytes_of
from topo.containers.tensors import Tensor
from topo.containers.zip import archive_of
from topo.errors import FormatError, TopoError

MEGABYTE = 1_000_000
# Files within files: a zip of gzipped files is two. A file that holds itself would go on for ever.
_MOST_LEVELS = 4
_MOST_FILES = 10_000
# Tensors of one file: reading so many takes some seconds; the largest networks have some tens of thousands.
MOST_TENSORS = 100_000
_MOST_DEPTH = 72
# Of each of the files in a folder, so many are read into memory; larger ones are mapped.
_IN_MEMORY_OF_MANY = 100_000

containers = Registry("kind of file", "topo.containers")


@dataclass(frozen=True)
class Container:
    """A file taken apart once, without reading its arrays.

    kind: which kind of file it is ("safetensors", "npz", "torch", "pickle", ...). content: dicts, lists, plain values
    and Tensors, as stored. metadata: a safetensors file's text entries. notes: what was assumed or left out, a line
    each. files: those beside an index that were read with it. missing: tensors that an index names and whose files are
    missing or damaged, where that was allowed.
    """

    kind: str
    content: Any
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class File:
    """A file or folder that is to be taken apart, or a part of one that was unpacked.

    path: where it lies; of a part, where the whole lies with the part's name behind it. data: its bytes, in memory or
    mapped (a folder has none). partial: whether shards may be missing.
    """

    def __init__(self, path: Path, unpacked: bytes | mmap | None = None, level: int = 0, partial: bool = False) -> None:
        self.path, self._unpacked, self._level, self.partial = path, unpacked, level, partial

    @cached_property
    def is_folder(self) -> bool:
        return self._unpacked is None and self.path.is_dir()

    @cached_property
    def data(self) -> bytes | mmap:
        if self._unpacked is not None:
            return self._unpacked
        return bytes_of(self.path, IN_MEMORY if self._level == 0 else _IN_MEMORY_OF_MANY)

    @cached_property
    def start(self) -> bytes:
        """The first bytes; none of a folder."""
        return b"" if self.is_folder else self.data[:512]

    @cached_property
    def files(self) -> list[Path]:
        """The files in a folder, in the order of their names."""
        if not self.is_folder:
            return []
        try:
            found = sorted(path for path in self.path.iterdir() if path.is_file() and not path.name.startswith("."))
        except OSError as error:
            raise FormatError(f"it cannot be read: {error.strerror}") from None
        if len(found) > _MOST_FILES:
            raise FormatError(f"the folder holds {len(found):,} files; at most {_MOST_FILES:,} are looked at")
        return found

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        """The bytes as a zip archive; FormatError if its directory is not kept by them."""
        return archive_of(self.data)

    @cached_property
    def entries(self) -> list[zipfile.ZipInfo]:
        """What a zip archive holds."""
        return self.archive.infolist()

    @property
    def is_zip(self) -> bool:
        return self.start.startswith(b"PK")

    def beside(self, path: Path) -> File:
        """Another file, that this one names or holds."""
        return File(path, None, self._level + 1, self.partial)

    def part(self, name: str, unpacked: bytes | mmap) -> File:
        """A part of this file, unpacked."""
        return File(self.path / name, unpacked, self._level + 1, self.partial)

    @property
    def is_too_deep(self) -> bool:
        return self._level > _MOST_LEVELS

    @property
    def map(self) -> Mapped | None:
        """Its bytes where they are mapped and may change, None of a folder and of bytes in memory."""
        data = self.__dict__.get("data")
        return data if isinstance(data, Mapped) else None


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of file, as registered: see `container`."""

    name: str
    about: str
    open: Callable[[File], Any]
    starts_with: tuple[bytes, ...] = ()
    suffix: tuple[str, ...] = ()
    folder: str | None = None
    recognise: Callable[[File], str | None] | None = None
    before: tuple[str, ...] = ()
    refuses: bool = False

    def lacks(self, file: File) -> str | None:
        """What the file lacks to be of this kind, None if nothing."""
        if self.folder is not None:
            if not file.is_folder:
                return "it is not a folder"
            if not any(fnmatchcase(path.name, self.folder) for path in file.files):
                return f"the folder holds no '{self.folder}'"
        elif file.is_folder:
            return "it is a folder"
        if self.suffix and not file.path.name.lower().endswith(self.suffix):
            return self._no_suffix
        if self.starts_with and not file.start.startswith(self.starts_with):
            return self._no_start
        if self.recognise is None:
            return None
        lacks = self._asked(self.recognise, file)
        if lacks is not None and not (isinstance(lacks, str) and lacks.strip()):
            raise FormatError(
                f"the container '{self.name}' is faulty: recognise gives {lacks!r:.80}; it gives None for a file of "
                "its kind, else a text that says what the file lacks"
            )
        return lacks

    @cached_property  # every file is shown to every kind: putting the words together anew took as long as all the rest
    def _no_suffix(self) -> str:
        return f"its name does not end in {' or '.join(map(repr, self.suffix))}"

    @cached_property
    def _no_start(self) -> str:
        return f"it does not start with {' or '.join(map(repr, self.starts_with))}"

    def opened(self, file: File) -> Container:
        """The file taken apart, its arrays as Tensors that notice when the file changes."""
        made = self._asked(self.open, file)
        made = made if isinstance(made, Container) else Container(self.name, made)
        if file.map is None and self._is_built_in:
            return made
        return replace(made, content=_Checked(self, file.map).value(made.content))

    @property
    def _is_built_in(self) -> bool:
        return (self.open.__module__ or "").startswith("topo.containers.")

    def _asked(self, function: Callable[[File], Any], file: File) -> Any:
        try:
            return function(file)
        except TopoError:
            raise
        except MemoryError:
            raise FormatError("it takes more memory than there is") from None
        except Exception as error:  # of damaged files, and of a plugin's own mistakes
            if self._is_built_in:
                raise FormatError(f"it is corrupt ({said(error)})") from error
            raise FormatError(f"the container '{self.name}' failed: {said(error)}") from error


class _Checked:
    """What a container gave, as dicts, lists, plain values and Tensors; shared parts stay shared."""

    def __init__(self, kind: Kind, held: Mapped | None) -> None:
        self.kind, self.held = kind, held
        self.done: dict[int, tuple[Any, Any]] = {}  # with the value itself: its number stays taken

    def value(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, (str, int, float, bytes)):
            return value
        if id(value) in self.done:
            return self.done[id(value)][1]
        if depth > _MOST_DEPTH:
            raise FormatError(f"its content lies more than {_MOST_DEPTH} levels deep")
        if isinstance(value, Tensor):
            found: Any = self._watched(value)
        elif isinstance(value, Mapping):
            found = {key: self.value(entry, depth + 1) for key, entry in value.items()}
        elif isinstance(value, (list, tuple)):
            found = type(value)([self.value(entry, depth + 1) for entry in value])
        elif hasattr(value, "__array__"):
            found = self._array(value)
        else:
            found = value if isinstance(value, (memoryview, complex)) else self._refused(value)
        self.done[id(value)] = value, found
        return found

    def _array(self, value: Any) -> Any:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError):
            self._refused(value)
        return self._watched(Tensor.of(array)) if array.dtype.kind in "biufc" else self._refused(value)

    def _watched(self, tensor: Tensor) -> Tensor:
        rows, held = tensor.rows, self.held
        if held is None:
            return tensor

        def watched(count: int) -> Iterator[np.ndarray]:
            held.check()
            try:
                for block in rows(count):
                    yield block
                    held.check()
            except FormatError:  # of what lies there now
                held.check()
                raise

        return Tensor(tensor.shape, tensor.dtype, watched, tensor.inferred)

    def _refused(self, value: Any) -> Any:
        raise FormatError(
            f"the container '{self.kind.name}' is faulty: its content holds a {type(value).__name__}; it may hold "
            "dicts, lists, texts, numbers and arrays"
        )


def container(
    name: str,
    about: str,
    *,
    starts_with: bytes | Sequence[bytes] = (),
    suffix: str | Sequence[str] = (),
    folder: str | None = None,
    recognise: Callable[[File], str | None] | None = None,
    before: str | Sequence[str] = (),
    refuses: bool = False,
    **unknown: Any,
) -> Callable[[Callable[[File], Any]], Callable[[File], Any]]:
    """Decorator over a function that takes a `File` and gives its content: enter it as a kind of file.

    A file is of this kind when all that is said here holds. starts_with: its first bytes, or several ways to start.
    suffix: how its name ends (".csv"), or several. folder: it is a folder that holds files of this pattern ("*.csv").
    recognise(file): None if it is of this kind, else what it lacks. before: kinds, by name, that take such files too
    and are asked after this one; a kind that says nothing is asked ahead of those registered before it. refuses: the
    function only says why such files are not read, and in a folder they are passed over.

    The content is made of dicts, lists, texts, numbers, Tensors and numpy arrays; FormatError says why a file is not
    read.
    Raises TopoError, naming the kind, for a word that is unknown or of the wrong type, and for a name that is taken.

    >>> import numpy as np
    >>> @container("csv", "one mask as lines of 0 and 1", suffix=".csv")
    ... def read(file):
    ...     return {file.path.stem: np.loadtxt(file.path, delimiter=",", ndmin=2)}
    """
    if unknown:
        raise TopoError(
            f"container '{name}': there is no {next(iter(unknown))}=; a container takes starts_with, suffix, folder, "
            "recognise, before and refuses"
        )
    for word, text in (("name", name), ("description", about)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise TopoError(f"container {name!r}: its {word} is {text!r}, not one line of text")
    starts = (starts_with,) if isinstance(starts_with, bytes) else starts_with
    ends = (suffix,) if isinstance(suffix, str) else suffix
    if not isinstance(starts, (tuple, list)) or not all(isinstance(part, bytes) and part for part in starts):
        raise TopoError(f"container '{name}': starts_with={starts_with!r} is neither bytes nor several of them")
    if any(len(part) > 512 for part in starts):
        raise TopoError(f"container '{name}': starts_with is longer than the 512 bytes that are compared")
    if not isinstance(ends, (tuple, list)) or not all(isinstance(end, str) and end.startswith(".") for end in ends):
        raise TopoError(f"container '{name}': suffix={suffix!r} is neither an ending ('.csv') nor several of them")
    if folder is not None and not (isinstance(folder, str) and folder):
        raise TopoError(f"container '{name}': folder={folder!r} is not a pattern of file names ('*.csv')")
    if recognise is not None:
        check_function(f"container '{name}': recognise", recognise, "file", documented=False)
    check_flags(f"container '{name}'", refuses=refuses)
    if not (starts or ends or folder or recognise):
        raise TopoError(f"container '{name}': say how it is known: starts_with, suffix, folder or recognise")
    ahead_of = names_before("container", name, before)

    def enter(open: Callable[[File], Any]) -> Callable[[File], Any]:
        if not callable(open):
            raise TopoError(f"container '{name}': @container stands over a function, not over a {type(open).__name__}")
        check_function(f"container '{name}'", open, "file", documented=False)
        if not (open.__module__ or "").startswith("topo.containers."):
            len(containers)  # what is built in is registered first
        endings = tuple(end.lower() for end in ends)
        containers.add(name)(Kind(name, about, open, tuple(starts), endings, folder, recognise, ahead_of, refuses))
        return open

    return enter


def kinds() -> list[Kind]:
    """All kinds of files in the order in which they are asked."""
    return list(_ordered(tuple(containers.values())))


@lru_cache(1)
def _ordered(entries: tuple[Kind, ...]) -> list[Kind]:
    by_name = {kind.name: kind for kind in entries}
    return [by_name[name] for name in in_order(containers.kind, {kind.name: kind.before for kind in entries})]
