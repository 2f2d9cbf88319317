"""What a reader is, and what it is shown: an opened file, its state dict, and the wiring if the user named a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo._support.registry import Registry
from topo.containers.container import Container
from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.names import is_weight, parameters
from topo.formats.tree import Branch, at_key, branches
from topo.masks import MaskSet

if TYPE_CHECKING:
    from topo.wiring import Wiring

formats = Registry("format", "topo.formats")

_EMPTY = Branch((), {}, {})


@dataclass
class Source:
    """An opened file as readers see it: one place of its tree, and what stands beside that.

    branch: the place (`topo.formats.tree`). notes: what the reader assumed or left out, a line each. provenance: what
    the file says of itself. as_parameters: the file says that input-first layers are laid out as their parameters,
    whatever its format does. asked: the user named the reader. rule: how scores become masks, {"topk": share} or
    {"threshold": score}.
    """

    container: Container
    wiring: Wiring | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    as_parameters: bool = False
    branch: Branch | None = None
    asked: bool = False
    rule: Mapping[str, float] = field(default_factory=dict)
    key: str | None = None

    @cached_property
    def tree(self) -> list[Branch]:
        """Every place of the file with tensors, or those under the key that the user named."""
        found = branches(self.container.content)
        return found if self.key is None else at_key(found, self.key)

    def at(self, branch: Branch) -> Source:
        """The same file seen from another place, with notes of its own."""
        seen = replace(self, branch=branch, notes=list(self.notes), provenance=dict(self.provenance))
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
            named = {name: t for name, (_, t) in parameters(branch.state).items()}
            weights = {n: t for n, t in named.items() if t.ndim >= 2 and is_weight(n) and not t.is_mask_type}
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
            return f"a list of {plural(len(content), 'entry')}: {_entry(content[0], 1)}, ..." if content else "no entry"
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
    return f"{count:,} {what.removesuffix('y') + 'ie' if what.endswith('entry') else what}s"


Found = Mapping[str, Tensor]


@dataclass(frozen=True)
class Reader:
    """One file format.

    rank: place in the order of detection. recognise(source): None if the file is of this format, else what it lacks; it
    looks at names, types and shapes, at values only where nothing else tells. read(source): parameter name -> mask, or
    weights whose zeros are the mask. output_first: masks are stored as this project holds them, (out, in, ...), also
    those of parameters that torch stores input-first. ending, write: for the formats that are written too.
    """

    name: str
    about: str
    rank: int
    recognise: Callable[[Source], str | None]
    read: Callable[[Source], Found]
    output_first: bool = False
    ending: str | None = None
    write: Callable[[MaskSet, Path], None] | None = None


def reader(
    name: str, about: str, *, rank: int, recognise: Callable[[Source], str | None], **more: Any
) -> Callable[[Callable[[Source], Found]], Callable[[Source], Found]]:
    """Decorator over a read function: enter it in the registry of formats."""

    def enter(read: Callable[[Source], Found]) -> Callable[[Source], Found]:
        formats.add(name)(Reader(name, about, rank, recognise, read, **more))
        return read

    return enter


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
