"""Two mask sets of one network: what both keep, what only one keeps, layer by layer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo._version import __version__
from topo.errors import MaskError
from topo.formats.fitting import paired
from topo.masks import MaskSet
from topo.report.groups import by_block_and_projection, in_block_order, is_language_model

SCHEMA = "topo-compare/1"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Numbers of two mask sets A and B.

    total and each of layers: a dict {"size", "kept_a", "kept_b", "both", "only_a", "only_b", "overlap", "hamming",
    "hamming_share", "churn"}; a layer has "layer" and "shape" before them. overlap = both / (both + only_a + only_b),
    the intersection over the union, NaN where both are empty; hamming = only_a + only_b, and its share of size;
    churn = hamming / (kept_a + kept_b), the share of kept weights that the other does not keep.
    layers: those that both hold, in A's order. notes: {"metric", "layer", "note"}. groups: of a language model the same
    numbers summed, with {"by": "projection" or "block", "group", "layers"} before them.
    """

    total: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    notes: tuple[Mapping[str, str | None], ...]
    groups: tuple[Mapping[str, Any], ...] = ()

    def to_json(self, **more: Any) -> str:
        """JSON text {"schema": "topo-compare/1", "version", ..., "total", "layers", "notes"}; undefined is null."""
        document = {
            "schema": SCHEMA,
            "version": __version__,
            **more,
            "total": _finite(self.total),
            "layers": [_finite(entry) for entry in self.layers],
            **({"groups": [_finite(entry) for entry in self.groups]} if self.groups else {}),
            "notes": list(self.notes),
        }
        return json.dumps(document, allow_nan=False, indent=1) + "\n"


def compare(a: MaskSet, b: MaskSet) -> Comparison:
    """Overlap and Hamming distance of two mask sets, per layer and in total over the layers that both hold.

    >>> a, b = MaskSet({"fc": np.array([[1, 1, 0, 0]])}), MaskSet({"fc": np.array([[1, 0, 1, 0]])})
    >>> found = compare(a, b)
    >>> found.total["both"], found.total["hamming"], round(found.total["overlap"], 4)
    (1, 2, 0.3333)

    B is compared under A's names where they differ by wrappers, a prefix or module names.

    Raises MaskError if a layer differs in shape, or if no layer is in both.
    """
    b = paired(a, b)
    shared = [name for name in a if name in b]
    if not shared:
        raise MaskError(f"the two mask sets share no layer: A has '{next(iter(a))}', ..., B has '{next(iter(b))}', ...")
    notes: list[dict[str, str | None]] = [
        {"metric": None, "layer": name, "note": f"only in {side}: left out of the comparison"}
        for side, these, those in (("A", a, b), ("B", b, a))
        for name in these
        if name not in those
    ]
    layers: list[dict[str, Any]] = []
    for name in shared:
        ours, theirs = a.rows(name), b.rows(name)
        if ours.shape != theirs.shape:
            turned = ours.shape[1::-1] == theirs.shape[:2] and ours.shape[2:] == theirs.shape[2:]
            hint = "; one may be as stored input-first: read both with their model" if turned else ""
            raise MaskError(f"'{name}' has shape {ours.shape} in A but {theirs.shape} in B{hint}")
        both = int(np.bitwise_count(ours.words & theirs.words).sum(dtype=np.int64))
        layers.append({"layer": name, "shape": ours.shape, **_numbers(ours.size, ours.kept(), theirs.kept(), both)})
    total = _summed(layers)
    empty = "both masks are empty, so their overlap is 0 / 0"
    notes += [
        {"metric": "overlap", "layer": entry.get("layer"), "note": empty}
        for entry in (total, *layers)
        if math.isnan(entry["overlap"])
    ]
    return Comparison(total, tuple(layers), tuple(notes), tuple(_grouped(layers)))


def _summed(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return _numbers(*(sum(entry[key] for entry in layers) for key in ("size", "kept_a", "kept_b", "both")))


def _grouped(layers: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The numbers of a language model by projection, and by block."""
    names = [entry["layer"] for entry in layers]
    known = by_block_and_projection(names) if is_language_model(names) else {}
    for place, by in ((1, "projection"), (0, "block")):
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in layers:
            if entry["layer"] in known:
                groups.setdefault(known[entry["layer"]][place], []).append(entry)
        for group in in_block_order(groups) if by == "projection" else sorted(groups, key=_numbers_in):
            members = groups[group]
            yield {"by": by, "group": group, "layers": len(members), **_summed(members)}


def _numbers_in(block: str) -> tuple[str, int]:
    stack, _, number = block.rpartition(".")
    return stack, int(number)


def _numbers(size: int, kept_a: int, kept_b: int, both: int) -> dict[str, int | float]:
    union, hamming = kept_a + kept_b - both, kept_a + kept_b - 2 * both
    return {
        "size": size,
        "kept_a": kept_a,
        "kept_b": kept_b,
        "both": both,
        "only_a": kept_a - both,
        "only_b": kept_b - both,
        "overlap": both / union if union else math.nan,
        "hamming": hamming,
        "hamming_share": hamming / size,
        "churn": hamming / (kept_a + kept_b) if kept_a + kept_b else math.nan,
    }


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
