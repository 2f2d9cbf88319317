"""Twins: everything that is computed fast, again, the obvious way. Small networks only.

A metric `x` of the network has a twin `x(net)`, one of layers a twin `layer_x(net, name)`, where `net` is a `Net`: the
masked network as lists. Every file of this folder is looked through, nothing is registered; a new metric of
topo/metrics/NAME.py has its twin in tests/naive/NAME.py.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from naive.net import Net, in_use

__all__ = ["Net", "in_use", "lacking", "name_of_twin", "twin"]


@functools.cache
def families() -> dict[str, dict[str, Any]]:
    """File -> what it defines."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    return {name: vars(importlib.import_module(f"{__name__}.{name}")) for name in names}


def twin(name: str) -> Callable[..., Any] | None:
    """What the files of this folder define under a name; None without one."""
    found = {id(family[name]): family[name] for family in families().values() if name in family}
    assert len(found) < 2, f"two files of tests/naive/ define '{name}'"
    return next(iter(found.values()), None)


def name_of_twin(metric: Any) -> str:
    return metric.name if metric.scope == "network" else f"layer_{metric.name}"


def lacking(metrics: Iterable[Any]) -> list[str]:
    """What is to be written so that every metric has its twin."""
    return [
        f"metric '{metric.name}' of the {metric.scope} has no twin: write "
        f"`def {name_of_twin(metric)}(net{', name' if metric.scope == 'layer' else ''})` "
        f"in tests/naive/{metric.function.__module__.rpartition('.')[2]}.py"
        for metric in metrics
        if twin(name_of_twin(metric)) is None
    ]


def __getattr__(name: str) -> Any:
    """`from naive import degrees` is the file, `from naive import effective_paths` a twin of any file."""
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("_") or (found := twin(name)) is None:
        raise AttributeError(f"no file of tests/naive/ defines '{name}'")
    return found
