"""Slots: the places along the axes of tensors that go together, or stay together.

A slot is an index along an axis of a parameter, a buffer or an activation. Whatever an operation pairs element by
element must keep the same length, so the two slots are tied: they are in one class, and a class goes as a whole or not
at all. A residual stream ties one channel of every block, a view ties the rows of a head, a group ties its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PINNED = 0  # the class of all that stays: inputs, outputs, places that cannot be followed

Axis = np.ndarray | None  # int64, the slot at each index; None where nothing along the axis can go


class Slots:
    """Union-find over slots; slot 0 stands for what stays."""

    def __init__(self) -> None:
        self._parent = np.zeros(1 << 10, np.int64)
        self._count = 1
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> np.ndarray:
        """`count` slots, each in a class of its own."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros(self._count + len(self._parent), np.int64)])
        made = np.arange(start, self._count, dtype=np.int64)
        self._parent[start : self._count] = made
        return made

    def roots(self, slots: np.ndarray) -> np.ndarray:
        """The class of each slot."""
        found = self._parent[slots]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[slots] = found
        return found

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Slot by slot, the classes of both become one."""
        pairs = np.unique(np.stack([self.roots(left), self.roots(right)], 1), axis=0)
        for a, b in pairs.tolist():
            self._join(a, b)

    def together(self, rows: np.ndarray) -> None:
        """rows (n, m): the m slots of each row become one class."""
        if rows.shape[1] > 1:
            self.tie(np.repeat(rows[:, :1], rows.shape[1] - 1, 1).reshape(-1), rows[:, 1:].reshape(-1))

    def pin(self, slots: Axis, reason: str | None = None) -> None:
        """These stay. reason: why, for the report; None for inputs and outputs, of which nothing need be said."""
        if slots is None:
            return
        for root in np.unique(self.roots(slots)).tolist():
            if reason is None:
                self._join(PINNED, root)
            elif root != PINNED:
                self._reasons.setdefault(root, reason)

    def _join(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a != b:
            low, high = min(a, b), max(a, b)  # PINNED is the lowest
            self._parent[high] = low
            if high in self._reasons:
                self._reasons.setdefault(low, self._reasons.pop(high))

    def _root(self, slot: int) -> int:
        while self._parent[slot] != slot:
            slot = int(self._parent[slot])
        return slot

    @property
    def count(self) -> int:
        """Slots so far, the pinned one included."""
        return self._count

    def classes(self) -> np.ndarray:
        """The class of every slot."""
        return self.roots(np.arange(self._count))

    @property
    def reasons(self) -> dict[int, str]:
        """Class -> why it stays although nothing needs it, where that is so."""
        return {self._root(slot): reason for slot, reason in self._reasons.items()}

    def tie_axes(self, axes: Sequence[tuple[Axis, int]], what: str) -> Axis:
        """The axes of operands that an element-wise operation pairs, each with its length; the axis that comes out.

        An axis of length 1 is broadcast and tied to nothing. One whose slots are not known pins the others: `what` says
        what it is.
        """
        length = max(size for _, size in axes)
        wide = [slots for slots, size in axes if size == length]
        if length == 1:
            return None
        known = [slots for slots in wide if slots is not None]
        if not known:
            return None
        for other in known[1:]:
            self.tie(known[0], other)
        if len(known) < len(wide):
            self.pin(known[0], what)
        return known[0]
