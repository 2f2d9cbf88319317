"""What a reader is, and what it is shown: an opened file, its state dict, and the wiring if the user named a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topo._support.doors import check_function, said
from topo._support.order import in_order, names_before
from topo._support.registry import Registry
from topo.containers.container import Container
from topo.containers.tensors import Tensor
from topo.errors import FormatError, TopoError
from topo.formats.names import is_weight
from topo.formats.tree import Branch, at_key, branches
from topo.masks import MaskSet

if TYPE_CHECKING:
    from topo.wiring import Wiring

formats = Registry("format", "topo.formats")

# What the project's own files say that they are -> their reader.
OWN = {"topo-masks/1": "topo", "topo-masks-npz/1": "npz"}
# What every refusal ends with.
WAY_OUT = "in Python: masks = topo.MaskSet({name: array}); topo.write_masks(masks, 'masks.npz')"
_EMPTY = Branch((), {}, {})
_MOST_PLACES = 500


@dataclass
class Source:
    """An opened file as readers see it: one place of its tree, and what stands beside that.

    branch: the place (`topo.formats.tree`). notes: what the reader assumed or left out, a line each. provenance: what
    the file says of itself. as_parameters: the file says that input-first layers are laid out as their parameters,
    whatever its format does. asked: the user named the reader. rule: how scores become masks, {"topk": share} or
    {"threshold": score}. key: the only place that the user wants read. made: tensors that were put together -> the
    names in the file that they are made of. memo: what a reader wants to find once.
    """

    container: Container
    wiring: Wiring | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    as_parameters: bool = False
    branch: Branch | None = None
    requested: bool = False
    rule: Mapping[str, float] = field(default_factory=dict)
    key: str | None = None
    made: dict[str, list[str]] = field(default_factory=dict)
    memo: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @cached_property
    def tree(self) -> list[Branch]:
        """Every place of the file with tensors, or those under the key that the user named."""
        if self.own is not None and self.key is None:
            return [Branch((), self.container.content, dict(self.container.content))]
        found = branches(self.container.content)
        found = found if self.key is None else at_key(found, self.key)
        if len(found) > _MOST_PLACES:
            raise FormatError(f"it holds tensors in {len(found):,} places; --key says which are meant")
        return found if self.wiring is None else [replace(place, known=self.wiring.names) for place in found]

    @property
    def own(self) -> str | None:
        """The reader of a file that this project wrote: its names are those of the masks, whatever else they could
        mean. None for any other file."""
        return OWN.get(self.container.metadata.get("topo_schema", ""))

    def at(self, branch: Branch) -> Source:
        """The same file seen from another place, with notes of its own."""
        seen = replace(self, branch=branch, notes=list(self.notes), provenance=dict(self.provenance), memo={})
        seen.tree = self.tree  # walked once
        return seen

    @cached_property
    def place(self) -> Branch:
        """The branch, or where none was chosen the one with the most tensors of two or more dimensions."""
        return self.branch or max(self.tree, key=lambda branch: len(branch.wide), default=_EMPTY)

    @property
    def content(self) -> Any:
        """The dict or list at this place."""
        return self.place.content

    @property
    def trail(self) -> tuple[str, ...]:
        """The keys that lead to it."""
        return self.place.path

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Its tensors by name; empty for a list."""
        return self.place.state

    @property
    def others(self) -> list[Branch]:
        """The other places with tensors of two or more dimensions."""
        return [branch for branch in self.tree if branch is not self.place and branch.wide]

    def weights_beside(self) -> list[dict[str, Tensor]]:
        """The weights of each other place, by parameter, in the file's order."""
        found = []
        for branch in self.others:
            named = {name: t for name, (_, t) in branch.parameters.items()}
            weights = {n: t for n, t in named.items() if t.ndim >= 2 and is_weight(n) and t.is_float}
            found += [weights] if weights else []
        return found

    @cached_property
    def described(self) -> str:
        """The content, two levels of it, in some words."""
        content = self.container.content
        if isinstance(content, Mapping) and content:
            return f"a dict with {_listed(content, 1)}"
        if isinstance(content, Mapping):
            return "an empty dict"
        if isinstance(content, (list, tuple)):
            return f"a list of {len(content)} entries: {_entry(content[0], 1)}, ..." if content else "an empty list"
        return _entry(content, 1)


def _listed(content: Mapping[Any, Any], depth: int) -> str:
    wide = sorted(content, key=lambda name: not _tells(content[name]))  # tensors and dicts first
    told = ", ".join(f"'{str(name)[:60]}' {_entry(content[name], depth)}".strip() for name in wide[:3])
    return told + (", ..." if len(wide) > 3 else "")


def _tells(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or (isinstance(value, Tensor) and value.ndim >= 2)


def _entry(value: Any, depth: int) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {'x'.join(map(str, value.shape)) or 'number'}"
    if isinstance(value, Mapping):
        return f"({_listed(value, depth - 1)})" if depth and value else f"(a dict of {len(value)})"
    if isinstance(value, (list, tuple)):
        return f"(a list of {len(value)})"
    return f"({type(value).__name__})"


def some(names: Iterable[str], most: int = 3) -> str:
    """'a', 'b', 'c', ... of a longer list."""
    listed = list(names)
    return ", ".join(f"'{name}'" for name in listed[:most]) + (", ..." if len(listed) > most else "")


def plural(count: int, what: str) -> str:
    """'1 layer', '2 layers'."""
    if count == 1:
        return f"{count} {what}"
    return f"{count:,} {what}s"


Found = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Reader:
    """One file format.

    recognise(source): None if the file is of this format, else what it lacks; it looks at names, types and shapes, at
    values only where nothing else tells. read(source): parameter name -> mask, or weights whose zeros are the mask.
    before: readers that are asked after this one. output_first: masks are stored as this project holds them,
    (out, in, ...), also those of parameters that torch stores input-first. ending, write: for the formats that are
    written too.
    """

    name: str
    about: str
    recognise: Callable[[Source], str | None]
    read: Callable[[Source], Found]
    before: tuple[str, ...] = ()
    output_first: bool = False
    ending: str | None = None
    write: Callable[[MaskSet, Path], None] | None = None

    def lacks(self, source: Source) -> str | None:
        """What the file lacks to be of this format, None if nothing; FormatError for a reader that says neither."""
        lacks = self._asked(self.recognise, source)
        if lacks is not None and not (isinstance(lacks, str) and lacks.strip()):
            raise FormatError(
                f"the reader '{self.name}' is faulty: recognise gives {lacks!r:.80}; it gives None for a file of its "
                "format, else a text that says what the file lacks"
            )
        return lacks

    def masks(self, source: Source) -> dict[str, Tensor]:
        """What `read` gives, arrays as Tensors; FormatError that names the reader for anything else."""
        found = self._asked(self.read, source)
        if not isinstance(found, Mapping):
            raise FormatError(
                f"the reader '{self.name}' is faulty: read gives a {type(found).__name__}; it gives a dict from "
                "parameter names to arrays"
            )
        return {self._name(name): self._tensor(name, value) for name, value in found.items()}

    def _asked(self, function: Callable[[Source], Any], source: Source) -> Any:
        try:
            return function(source)
        except (TopoError, MemoryError):
            raise
        except Exception as error:  # a plugin's own mistake: whatever Python says of it, with the plugin's name
            raise FormatError(f"the reader '{self.name}' failed: {said(error)}") from error

    def _name(self, name: object) -> str:
        if not isinstance(name, str):
            raise FormatError(f"the reader '{self.name}' is faulty: it names a mask {name!r:.80}, which is not a text")
        return name

    def _tensor(self, name: str, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        try:
            if not hasattr(value, "__array__"):
                raise TypeError
            return Tensor.of(np.asarray(value))
        except (TypeError, ValueError, RuntimeError):
            raise FormatError(
                f"the reader '{self.name}' is faulty: for '{name}' it gives a {type(value).__name__}, which is not "
                "an array"
            ) from None


def reader(
    name: str,
    about: str,
    *,
    recognise: Callable[[Source], str | None],
    before: str | Sequence[str] = (),
    output_first: bool = False,
    ending: str | None = None,
    write: Callable[[MaskSet, Path], None] | None = None,
    **unknown: Any,
) -> Callable[[Callable[[Source], Found]], Callable[[Source], Found]]:
    """Decorator over a read function: enter it in the registry of formats.

    before: the readers, by name, that recognise this format's files too and are asked after it. A reader that says
    nothing is asked ahead of those registered before it.
    Raises TopoError, naming the reader, for a word that is unknown or of the wrong type, and for a name that is taken.
    """
    if unknown:
        raise TopoError(
            f"reader '{name}': there is no {next(iter(unknown))}=; a reader takes recognise, before, output_first, "
            "ending and write"
        )
    for word, text in (("name", name), ("description", about)):
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise TopoError(f"reader {name!r}: its {word} is {text!r}, not one line of text")
    check_function(f"reader '{name}': recognise", recognise, "source", documented=False)
    if write is not None:
        check_function(f"reader '{name}': write", write, "masks, path", documented=False)
    if not isinstance(output_first, bool):
        raise TopoError(f"reader '{name}': output_first is {output_first!r}, not True or False")
    if (ending is None) != (write is None) or not (ending is None or re.fullmatch(r"\.\w+", ending)):
        raise TopoError(f"reader '{name}': ending ('.npz') and write are given together, or neither")
    ahead_of = names_before("reader", name, before)

    def enter(read: Callable[[Source], Found]) -> Callable[[Source], Found]:
        if not callable(read):
            raise TopoError(f"reader '{name}': @reader stands over a function, not over a {type(read).__name__}")
        check_function(f"reader '{name}'", read, "source", documented=False)
        if not (read.__module__ or "").startswith("topo.formats."):
            len(formats)  # what is built in is registered first, so that a name that is taken is a plugin's mistake
        formats.add(name)(Reader(name, about, recognise, read, ahead_of, output_first, ending, write))
        return read

    return enter


def readers() -> list[Reader]:
    """All readers in the order in which they are asked."""
    return list(_ordered(tuple(formats.values())))


@lru_cache(1)
def _ordered(entries: tuple[Reader, ...]) -> list[Reader]:
    by_name = {entry.name: entry for entry in entries}
    return [by_name[name] for name in in_order("format", {entry.name: entry.before for entry in entries})]


def suffixed(state: Mapping[str, Tensor], suffix: str) -> dict[str, Tensor]:
    """The entries whose name ends so, under the rest of their name."""
    return {name.removesuffix(suffix): tensor for name, tensor in state.items() if name.endswith(suffix)}


def matching_order(
    tensors: list[Tensor | None], shapes: Mapping[str, tuple[int, ...]], orders: Mapping[str, Iterable[str]], whose: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Name a list of masks by the sequence of shapes; None is a dense layer and fits any.

    orders: name of an order -> parameter names in it, the preferred first. Gives the named masks and the orders that
    fit.
    Raises FormatError with the first position that differs, in the preferred order, and both shapes.
    """
    fitting, complaint = {}, ""
    for order, names in orders.items():
        expected = list(names)
        wrong = next(
            (i for i, (t, n) in enumerate(zip(tensors, expected)) if t is not None and t.shape != shapes[n]), None
        )
        if wrong is None and len(tensors) == len(expected):
            fitting[order] = expected
        elif not complaint and wrong is not None:
            name = expected[wrong]
            complaint = (
                f"mask {wrong} of the list has shape {tensors[wrong].shape} but {whose} '{name}' has {shapes[name]}"  # type: ignore[union-attr]
            )
        elif not complaint:
            complaint = f"the list has {len(tensors)} masks but {whose}s are {len(expected)}"
            longer = expected[len(tensors) :] or [
                f"mask {len(expected)} of shape {getattr(tensors[-1], 'shape', None)}"
            ]
            complaint += f"; the first without a partner is {longer[0]!r}"
    if not fitting:
        raise FormatError(complaint)
    best = next(iter(fitting.values()))
    named = {name: Tensor.full(shapes[name]) if t is None else t for name, t in zip(best, tensors)}
    return named, list(fitting)
