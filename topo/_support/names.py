"""What is said of a name that is unknown: the nearest ones, and what there is."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 60


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One line: the kind of thing, the name, what was perhaps meant, and all that there are.

    >>> unknown("metric", "denstiy", ["kept", "density"])
    "no metric is called 'denstiy'; did you mean 'density'? There are: kept, density"
    """
    names = [str(entry) for entry in known]
    if not names:
        return f"no {kind} is called '{name}'; there is none"
    near = nearest(str(name), names)
    meant = f"did you mean {' or '.join(repr(entry) for entry in near)}? There" if near else "there"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"no {kind} is called '{name}'; {meant} are: {', '.join(names[:_LISTED])}{more}"


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'digits'?", or nothing where no name is near.

    >>> meant("digitz", ["digits", "chars"]), meant("x", ["digits"])
    ("; did you mean 'digits'?", '')
    """
    near = nearest(name, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names that are spelt most like it, at most two; letter case does not count.

    >>> nearest("Kept", ["kept", "density"])
    ['kept']
    """
    lowered = {entry.lower(): entry for entry in known}
    return [lowered[entry] for entry in get_close_matches(name.lower(), lowered, n=2, cutoff=0.6)]
