"""Packages whose names load on first use, also where a function and the file that holds it have one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package whose function `trace` stays the function after its module `trace` was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and self.__dict__["_HOME"].get(name) == value.__name__:
            return  # the package's __getattr__ finds the function once it is asked for
        super().__setattr__(name, value)


def keep_names(package: str) -> None:
    """Names in the package's table `_HOME` (name -> module) are never hidden by a module of the same name."""
    sys.modules[package].__class__ = _Package


def load(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What `name` stands for, looked up once; AttributeError if the table has no such name."""
    if name not in homes:
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    found = getattr(importlib.import_module(homes[name]), name)
    setattr(sys.modules[package], name, found)
    return found
