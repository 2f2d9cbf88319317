"""The order of plugins that say whom they go before, in place of numbers that everybody must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topo.errors import TopoError


def in_order(kind: str, before: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each ahead of those that it goes before; of two that say nothing of each other, the one registered last
    comes first, so that a plugin is asked ahead of what is built in.

    Raises TopoError for a name that does not exist, and for a circle.

    >>> in_order("toy", {"weights": (), "masks": ("weights",), "plugin": ()})
    ['plugin', 'masks', 'weights']
    """
    for name, others in before.items():
        unknown = next((other for other in others if other not in before), None)
        if unknown is not None:
            raise TopoError(
                f"{kind} '{name}' goes before '{unknown}', which is not a {kind}; there are: {', '.join(before)}"
            )
    found: list[str] = []
    left = dict.fromkeys(reversed(list(before)))
    while left:
        ahead = next((name for name in left if not any(name in before[other] for other in left)), None)
        if ahead is None:
            raise TopoError(f"{kind}s that go before each other in a circle: {', '.join(left)}")
        del left[ahead]
        found.append(ahead)
    return found


def names_before(kind: str, name: str, before: object) -> tuple[str, ...]:
    """`before=` as a tuple of names; TopoError for anything that is not a name or several."""
    names = (before,) if isinstance(before, str) else before
    if not isinstance(names, (tuple, list)) or not all(isinstance(other, str) and other for other in names):
        raise TopoError(f"{kind} '{name}': before={before!r} is neither a name nor several of them")
    return tuple(names)
