"""What enters a network into the table, and the parts that the families share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gradients import Case, Net
from torch import nn

TABLE: dict[str, Case] = {}

# What the tracer does not get right yet, a reason and its rows (a; b; c); the tests expect these to fail.
MISSED: dict[str, str] = {}
_REASONS = {name.strip(): reason for reason, names in MISSED.items() for name in names.split(";")}


def enter(family: str, name: str, build: Callable[[], nn.Module], *shapes: Any, **options: Any) -> None:
    key = f"{family}/{name}"
    assert key not in TABLE, key
    TABLE[key] = Case(build, shapes, missed=_REASONS.get(key), **options)


def fc(n: int = 8, m: int = 8) -> nn.Module:
    return nn.Linear(n, m, bias=False)


def conv(n: int = 4, m: int = 4, k: int = 1, **how: Any) -> nn.Module:
    return nn.Conv2d(n, m, k, padding=how.pop("padding", k // 2), bias=False, **how)


def par(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*shape))


def parts(forward: Callable[..., Any], **makers: Callable[[], Any]) -> Callable[[], nn.Module]:
    """A network of these parts, made anew at each call."""
    return lambda: Net(forward, **{name: make() for name, make in makers.items()})


def three(forward: Callable[..., Any], **more: Callable[[], Any]) -> Callable[[], nn.Module]:
    """Layers a, b of 8 to 8 and o of 8 to 4, and more."""
    return parts(forward, **{"a": fc, "b": fc, "o": lambda: fc(8, 4), **more})


ROWS, TOKENS, MAPS = (3, 8), (2, 5, 8), (2, 4, 6, 6)


def odd(family: str, name: str, forward: Callable[..., Any], *shapes: Any, **options: Any) -> None:
    """A network of layers a, b (8 to 8) and o (8 to 4), and of parts of its own."""
    more = options.pop("parts", {})
    enter(family, name, three(forward, **more), *(shapes or (ROWS,)), **options)
