"""What goes: the largest set of classes of which nothing that stays needs anything but a constant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from topo.shrinking.flow import Found, Use
from topo.shrinking.slots import PINNED, Axis


@dataclass(frozen=True, eq=False)
class Decision:
    """gone: bool, by slot. folded: uses whose constants go into biases. stays: reason -> classes that nothing needs
    and that stay all the same."""

    gone: np.ndarray
    classes: np.ndarray
    folded: tuple[tuple[Use, np.ndarray], ...]
    stays: dict[str, int]

    def left(self, slots: np.ndarray) -> np.ndarray:
        """Indices along an axis that stay."""
        return np.flatnonzero(~self.gone[slots])


def decide(found: Found, axes: Iterable[np.ndarray], pinned: Mapping[int, str], fold: bool = True) -> Decision:
    """axes: slots of each axis of a parameter, none of which may become empty. pinned: classes that stay, and why.

    fold: whether constants other than 0 may go into biases.
    """
    classes = found.slots.classes()
    uses = [_foldable(use, fold) for use in _settled(found.uses)]
    soft = {int(classes[slot]): why for slot, why in {**found.slots.reasons, **pinned}.items()}
    rows = [np.unique(classes[slots]) for slots in axes]
    keep = np.zeros(len(classes), np.bool_)
    keep[PINNED] = True
    keep[list(soft)] = True
    last: set[int] = set()
    while True:
        _spread(keep, uses, classes)
        empty = {int(row[0]) for row in rows if not keep[row].any()}
        if not empty:
            break
        last |= empty
        keep[list(empty)] = True
    gone = ~keep[classes]
    folded = []
    for use in uses:
        columns = gone[use.inputs] & use.foldable & (use.constants != 0)
        if columns.any() and not gone[use.outputs].all():
            folded.append((use, columns))
    return Decision(gone, classes, tuple(folded), _stays(keep, uses, classes, soft, last))


def _spread(keep: np.ndarray, uses: list[Use], classes: np.ndarray) -> None:
    """What a unit that stays needs stays: it is read by a kept weight, and is not a constant that can be folded."""
    changed = True
    while changed:
        changed = False
        for use in reversed(uses):
            inputs = classes[use.inputs]
            open_ = ~keep[inputs] & ~use.foldable
            wanted = keep[classes[use.outputs]]
            if open_.any() and wanted.any():
                needed = open_ & use.joined(wanted)
                if needed.any():
                    keep[inputs[needed]] = True
                    changed = True


def _settled(uses: list[Use]) -> list[Use]:
    """Uses of one bias must fold the same constants into it; else only 0 folds."""
    groups: dict[str, list[int]] = {}
    for at, use in enumerate(uses):
        groups.setdefault(use.bias or f"{use.path} ", []).append(at)
    made = list(uses)
    for places in groups.values():
        first = uses[places[0]]
        for at in places[1:]:
            if uses[at].name != first.name or not np.array_equal(uses[at].constants, first.constants):
                for each in places:
                    made[each] = replace(
                        uses[each],
                        foldable=uses[each].foldable & (uses[each].constants == 0),
                        why="its layer is used more than once, with other constants",
                    )
                break
    return made


def _foldable(use: Use, fold: bool) -> Use:
    return use if fold else replace(use, foldable=use.foldable & (use.constants == 0))


def _stays(
    keep: np.ndarray, uses: list[Use], classes: np.ndarray, soft: Mapping[int, str], last: set[int]
) -> dict[str, int]:
    """Reason -> classes that stay though no unit that is needed needs them."""
    free = np.zeros(len(keep), np.bool_)
    free[PINNED] = True
    _spread(free, [replace(use, foldable=use.constant) for use in uses], classes)
    found: dict[str, int] = {}
    spare = {int(root) for root in np.unique(classes) if keep[root] and not free[root]}
    told: dict[int, str] = {root: why for root, why in soft.items() if root in spare}
    told |= {root: "it is the last unit of its layer" for root in last & spare}
    for use in uses:
        for root in np.unique(classes[use.inputs][use.constant & ~use.foldable]).tolist():
            if root in spare:
                told.setdefault(root, use.why)
    for root in spare:
        why = told.get(root, "a unit that stays reads it")
        found[why] = found.get(why, 0) + 1
    return found


def axis_slots(axes: Iterable[Axis]) -> list[np.ndarray]:
    """The axes that have slots."""
    return [slots for slots in axes if slots is not None and len(slots)]
