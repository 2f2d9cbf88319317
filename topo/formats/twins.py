"""Several whole networks under prefixes of one flat dict: a student and its teacher, a critic and its target.

Read together they would be one network of twice the layers. Names tell: below its prefix each has the same names and
shapes, and nothing is read beside them. Numbered parts (`layer.0`, `block1`) are layers of one network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from topo.errors import FormatError
from topo.formats.source import Source, plural, some

_ROLES = frozenset(
    "student teacher online target momentum generator discriminator actor critic policy reference original pruned "
    "finetuned ema swa".split()
)
_LETTERED = re.compile(r"(?:model|net|network|backbone|encoder|student|teacher)_?[a-z]")
_PARTS = re.compile(r"[._\d]+")
# Prefixes that all names share are looked behind so often.
_DEEPEST = 8


def _groups(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Prefix -> the names and shapes below it, where the names first part."""
    start, below = "", dict(shapes)
    for _ in range(_DEEPEST):
        groups: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, shape in below.items():
            first, _, rest = name.partition(".")
            groups.setdefault(f"{start}{first}", {})[rest] = shape
        if len(groups) > 1:
            return groups
        prefix, below = next(iter(groups.items()))
        start = f"{prefix}."
    return {}


def _is_role(prefix: str) -> bool:
    last = prefix.rpartition(".")[2].lower()
    return bool(_LETTERED.fullmatch(last)) or any(part in _ROLES for part in _PARTS.split(last))


def check_twins(shapes: Mapping[str, tuple[int, ...]], source: Source, reader: str) -> None:
    """A note on networks side by side in what was read without a model; FormatError where their names say that each is
    a network of its own, unless the place or the reader was asked for.

    shapes: of the masks, by name. reader: its name.
    """
    groups = _groups(shapes)
    if len(groups) < 2:
        return
    below = {prefix: frozenset(group.items()) for prefix, group in groups.items()}
    times = Counter(below.values())
    alike = [prefix for prefix, group in below.items() if times[group] > 1]
    roles = [prefix for prefix in groups if _is_role(prefix)]
    # `encoder_q.weight` beside `encoder_k.weight` may be two layers: a network of one layer does not show.
    several = min(map(len, groups.values())) > 1
    if several and len(alike) == len(groups) == len(roles) and not (source.requested or source.key):
        raise FormatError(
            f"it holds {plural(len(groups), 'network')} of the same names and shapes side by side, {some(groups)}: "
            f"--key {roles[0]} reads one, --format {reader} all as one network"
        )
    numbered = len({re.sub(r"\d+", "", prefix) for prefix in alike}) == 1
    whole = several and len(alike) == len(groups) and not numbered
    if whole or len(roles) > 1:
        said = some(alike if whole else roles)
        source.notes.append(f"read as one network, though each may be one of its own: {said}; --key takes one")
