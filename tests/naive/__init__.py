"""Twins: everything that is computed fast, again, the obvious way. Small networks only.

A metric `x` of the network has a twin `x(net)`, one of layers a twin `layer_x(net, name)`, where `net` is a `Net`: the
masked network as lists. Every file of this folder is looked through, nothing is registered; a new metric of
topo/metrics/NAME.py has its twin in tests/naive/NAME.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from naive.net import Net, in_use

__all__ = ["Net", "in_use", "twin"]


_FAMILIES = tuple(found.name for found in pkgutil.iter_modules(__path__))


def twin(name: str) -> Callable[..., Any] | None:
    """What the files of this folder define under a name; None without one."""
    families = [vars(importlib.import_module(f"{__name__}.{family}")) for family in _FAMILIES]
    found = {id(family[name]): family[name] for family in families if name in family}
    assert len(found) < 2, f"two files of tests/naive/ define '{name}'"
    return next(iter(found.values()), None)


def __getattr__(name: str) -> Any:
    """`from naive import degrees` is the file, `from naive import effective_paths` a twin of any file."""
    if name in _FAMILIES:
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("_") or (found := twin(name)) is None:
        raise AttributeError(f"no file of tests/naive/ defines '{name}'")
    return found
