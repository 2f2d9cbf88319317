"""What a reader is, and what it is shown: an opened file, its state dict, and the wiring if the user named a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo._support.registry import Registry
from topo.containers.container import Container
from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.masks import MaskSet

if TYPE_CHECKING:
    from topo.wiring import Wiring

formats = Registry("format", "topo.formats")

NESTED = ("state_dict", "model_state_dict", "model", "net")


@dataclass
class Source:
    """An opened file as readers see it.

    state: the tensors by name of the innermost state dict; trail: the keys that led to it.
    notes: what the reader assumed or left out, a line each. provenance: what the file says of itself.
    as_parameters: the file says that input-first layers are laid out as their parameters, whatever its format does.
    """

    container: Container
    wiring: Wiring | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    as_parameters: bool = False

    @property
    def content(self) -> Any:
        """What the file holds, as its container was opened."""
        return self.container.content

    @cached_property
    def _descended(self) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        content: Any = self.content
        trail: list[str] = []
        while isinstance(content, dict) and len(trail) < 8:
            inner = next((key for key in NESTED if _holds_tensors(content.get(key))), None)
            if inner is None:
                break
            content = content[inner]
            trail.append(inner)
        if not isinstance(content, dict):
            return tuple(trail), {}
        return tuple(trail), {str(name): value for name, value in content.items() if isinstance(value, Tensor)}

    @property
    def trail(self) -> tuple[str, ...]:
        """The keys that led to the innermost state dict."""
        return self._descended[0]

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the innermost state dict by name; empty where the file is no such thing."""
        return self._descended[1]

    @cached_property
    def described(self) -> str:
        """The content in some words, for the error that nobody could read it."""
        if self.state:
            return f"{plural(len(self.state), 'tensor')}: {some(self.state)}"
        if isinstance(self.content, dict):
            return f"a dict with {some(map(str, self.content))}" if self.content else "an empty dict"
        if isinstance(self.content, (list, tuple)):
            return f"a list of {len(self.content)} entries"
        return f"one value of type {type(self.content).__name__}"


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, dict) or depth > 4:
        return False
    return any(isinstance(entry, Tensor) for entry in value.values()) or any(
        _holds_tensors(value.get(key), depth + 1) for key in NESTED
    )


def some(names: Iterable[str], most: int = 3) -> str:
    """'a', 'b', 'c', ... of a longer list."""
    listed = list(names)
    return ", ".join(f"'{name}'" for name in listed[:most]) + (", ..." if len(listed) > most else "")


def plural(count: int, what: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


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
