"""A mapping with values that cost something, which are found when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Late(Mapping[str, Any]):
    """A read-only mapping. known: its values. later: key -> what finds its value; it gives None where that can no more
    be known, and then the key is not there, but in `lost`.

    >>> about = Late({"file": "a.pt"}, {"sha256": lambda: "e3b0"})
    >>> about["sha256"], dict(about)
    ('e3b0', {'file': 'a.pt', 'sha256': 'e3b0'})
    """

    def __init__(self, known: Mapping[str, Any], later: Mapping[str, Callable[[], Any]]) -> None:
        self._known, self._later = dict(known), dict(later)
        self.lost: list[str] = []

    def _find(self, key: str) -> None:
        find = self._later.get(key)
        if find is None:
            return
        value = find()
        if value is not None:
            self._known[key] = value
        elif key not in self.lost:
            self.lost.append(key)
        self._later.pop(key, None)

    def __getitem__(self, key: str) -> Any:
        self._find(key)
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        for key in list(self._later):
            self._find(key)
        return iter(self._known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def updated(self, entries: Mapping[str, Any]) -> Late:
        """The same with these entries; what is found later is still found later."""
        later = {key: find for key, find in self._later.items() if key not in entries}
        return Late({**self._known, **entries}, later)
