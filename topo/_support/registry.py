"""Registries: a folder of files, a decorator, other packages' entry points, and a look-up that shows what there is."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, ValuesView
from typing import Any

from topo._support.names import unknown
from topo.errors import PluginWarning, TopoError


class Registry(Mapping[str, Any]):
    """Named functions of one kind, found on first use: in the files of one package, and in other packages.

    kind: what an entry is called in messages. package: whose files are imported, those named in `first` before the
    others; the order of entries is that in which they are registered. Another installed package registers its own by
    an entry point in the group of the registry's name ("topo.metrics", "topo.nulls", ...) that names the module whose
    import does so. One that cannot be loaded is a PluginWarning that names it.

    >>> shapes = Registry("shape")
    >>> @shapes.add("square")
    ... def square(n): return n * n
    >>> shapes["square"](3)
    9
    """

    def __init__(
        self, kind: str, package: str | None = None, first: Sequence[str] = (), group: str | None = None
    ) -> None:
        self.kind, self.group = kind, group or package
        self._package, self._first = package, tuple(first)
        self._entries: dict[str, Any] = {}
        self._packages: dict[str, str] = {}
        self._registering: str | None = None
        self._lock, self._found, self._finding = threading.RLock(), self.group is None, False

    def add(self, name: str | None = None) -> Callable[[Any], Any]:
        """Decorator: enter the function under `name`, by default its own.

        TopoError for a name that is taken, or that could not be asked for on a command line.
        """

        def enter(function: Any) -> Any:
            key = getattr(function, "__name__", None) if name is None else name
            if not isinstance(key, str) or not key or not key.isprintable() or key != key.strip() or "," in key:
                raise TopoError(f"a {self.kind} is called {key!r}; a name is text, without commas")
            if key in self._entries:
                raise TopoError(f"{self.kind} '{key}' is registered twice")
            self._entries[key] = function
            if self._registering:
                self._packages[key] = self._registering
            return function

        return enter

    def take(self, other: Registry) -> None:
        """Enter what another registry holds, where the name is free."""
        for name, entry in other.items():
            if name not in self._entries:
                self._entries[name] = entry
                if package := other.package_of(name):
                    self._packages[name] = package

    def package_of(self, name: str) -> str | None:
        """The installed package whose entry point registered `name`; None for topo's own and those of running code."""
        return self._packages.get(name)

    def _discover(self) -> None:
        if self._found:
            return
        with self._lock:  # another thread waits until everything is found
            if self._found or self._finding:
                return
            self._finding = True
            try:
                if self._package is not None:
                    package = importlib.import_module(self._package)
                    others = [module.name for module in pkgutil.iter_modules(package.__path__)]
                    for name in dict.fromkeys([*self._first, *others]):
                        importlib.import_module(f"{package.__name__}.{name}")
                for point in _entry_points().get(self.group or "", ()):
                    self._enter(point)
                self._found = True
            finally:
                self._finding = False

    def _enter(self, point: importlib.metadata.EntryPoint) -> None:
        package = point.dist.name if point.dist else point.value
        before, self._registering = dict(self._entries), package
        try:
            point.load()
        except Exception as error:
            self._entries = before
            warnings.warn(
                f"the package '{package}' offers the {self.kind} '{point.name}', which cannot be loaded: "
                f"{type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )
        finally:
            self._registering = None

    def __getitem__(self, name: str) -> Any:
        self._discover()
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise TopoError(unknown(self.kind, name, self._entries)) from None

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._entries)

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def values(self) -> ValuesView[Any]:
        """The entries; a Mapping's own view looks each of them up by its name."""
        self._discover()
        return self._entries.values()

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries


@functools.cache
def _entry_points() -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Those of all installed packages in groups "topo.*", by group; read once."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for package in importlib.metadata.distributions():
        for point in package.entry_points:
            if point.group.startswith("topo."):
                found.setdefault(point.group, []).append(point)
    return found
