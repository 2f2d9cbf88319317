"""What a network takes in, as users write it: shapes of one example, without the batch, by place or by name.

3x32x32              an image
ids:16               sixteen tokens
a=1x8,b=ids:16       two arguments of forward, by name
8,ids:16             two arguments, in order
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from topo.errors import TopoError

_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*")
_ITEM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=)?\s*(?P<ids>ids:)?\s*(?P<shape>[0-9x]+)")
_WAY = "write whole numbers of at least 1 with x between, such as 3x32x32, ids:16 for tokens, or a=1x8,b=ids:16 by name"


@dataclass(frozen=True)
class Input:
    """One argument of a network's forward: the shape of one example, without the batch.

    tokens: whole numbers (token ids) instead of floating-point numbers. name: of the argument, None if by place.

    >>> str(Input((16,), tokens=True, name="b"))
    'b=ids:16'
    """

    shape: tuple[int, ...]
    tokens: bool = False
    name: str | None = None

    def __str__(self) -> str:
        text = ("ids:" if self.tokens else "") + "x".join(map(str, self.shape))
        return f"{self.name}={text}" if self.name else text


Spec = str | Sequence[Any] | Mapping[str, Any]


def parse_inputs(text: str) -> tuple[Input, ...]:
    """The inputs that are written as `text`, as on the command line.

    >>> [item.shape for item in parse_inputs("a=1x8,b=ids:16")]
    [(1, 8), (16,)]

    TopoError if a part of it is not a shape, if a name stands twice, or if one without a name follows one with a name.
    """
    found: list[Input] = []
    for part in text.split(","):
        match = _ITEM.fullmatch(part.strip())
        if match is None or not _SHAPE.fullmatch(match["shape"]):
            raise TopoError(f"input shape '{part.strip() or text}' is not a valid shape; {_WAY}")
        found.append(Input(tuple(map(int, match["shape"].split("x"))), match["ids"] is not None, match["name"]))
    return _checked(found)


def read_inputs(spec: Spec) -> tuple[Input, ...]:
    """The inputs of a spec: a text, the shape of the only input, shapes or texts in order, or by name.

    >>> read_inputs({"a": (1, 8), "b": "ids:16"}) == parse_inputs("a=1x8,b=ids:16")
    True

    TopoError if it is none of these.
    """
    if isinstance(spec, str):
        return parse_inputs(spec)
    if isinstance(spec, Mapping):
        return _checked([_named(str(name), shape) for name, shape in spec.items()])
    sides = list(spec) if hasattr(spec, "__iter__") else [spec]
    if not any(isinstance(side, Input | str | Sequence) for side in sides):
        return (Input(_shape(sides)),)
    return _checked([_named(None, side) for side in sides])


def input_text(inputs: Sequence[Input]) -> str:
    """The inputs as text that `parse_inputs` reads."""
    return ",".join(map(str, inputs))


def plain_shape(inputs: Sequence[Input]) -> tuple[int, ...] | None:
    """The shape of the only input, if there is one alone, of floating-point numbers and without a name."""
    one = inputs[0] if len(inputs) == 1 else None
    return one.shape if one is not None and not one.tokens and one.name is None else None


def _named(name: str | None, shape: Any) -> Input:
    if isinstance(shape, Input):
        return shape
    if isinstance(shape, str):
        made = parse_inputs(shape)
        if len(made) > 1 or (name and made[0].name):
            raise TopoError(f"input shape '{shape}' should be that of one argument, such as 3x32x32 or ids:16")
        return Input(made[0].shape, made[0].tokens, name or made[0].name)
    return Input(_shape(shape), name=name)


def _shape(values: Any) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in values)
    except (TypeError, ValueError):
        shape = (0,)
    if not shape or min(shape) < 1:
        raise TopoError(f"input shape {values!r:.60} is not a valid shape; give (3, 32, 32), or text: {_WAY}")
    return shape


def _checked(inputs: list[Input]) -> tuple[Input, ...]:
    names = [item.name for item in inputs if item.name]
    for name in names:
        if names.count(name) > 1:
            raise TopoError(f"input '{name}' is given twice; each argument of the model is given once")
    if any(late.name is None and early.name for early, late in pairwise(inputs)):
        raise TopoError(f"input '{input_text(inputs)}': inputs without a name come before those with one")
    return tuple(inputs)
