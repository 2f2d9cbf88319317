"""Registries: a folder of files, a decorator, and a look-up whose error shows what there is."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from topo.errors import TopoError


class Registry(Mapping[str, Any]):
    """Named functions of one kind, found in the files of one package on first use.

    >>> shapes = Registry("shape")
    >>> @shapes.add("square")
    ... def square(n): return n * n
    >>> shapes["square"](3)
    9
    """

    def __init__(self, kind: str, package: str | None = None, first: Sequence[str] = ()) -> None:
        """package: whose files are imported on first use, those named in `first` before the others: the order of
        entries is that in which they are registered."""
        self.kind, self._package, self._first = kind, package, tuple(first)
        self._entries: dict[str, Any] = {}
        self._lock, self._finding = threading.RLock(), False

    def add(self, name: str | None = None) -> Callable[[Any], Any]:
        """Decorator: enter the function under `name`, by default its own."""

        def enter(function: Any) -> Any:
            key = name or function.__name__
            if key in self._entries:
                raise TopoError(f"{self.kind} '{key}' is registered twice")
            self._entries[key] = function
            return function

        return enter

    def _discover(self) -> None:
        if self._package is None:
            return
        with self._lock:  # another thread waits until everything is found
            if self._package is None or self._finding:
                return
            self._finding = True
            try:
                package = importlib.import_module(self._package)
                others = [module.name for module in pkgutil.iter_modules(package.__path__)]
                for name in dict.fromkeys([*self._first, *others]):
                    importlib.import_module(f"{package.__name__}.{name}")
                self._package = None
            finally:
                self._finding = False

    def __getitem__(self, name: str) -> Any:
        self._discover()
        try:
            return self._entries[name]
        except KeyError:
            raise TopoError(f"no {self.kind} is called '{name}'; there are: {', '.join(self._entries)}") from None

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._entries)

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries
