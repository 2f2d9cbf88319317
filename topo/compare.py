"""Two mask sets of one network: what both keep, what only one keeps, how far their graphs are; and series of masks."""

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
from topo.graph import build_graph
from topo.graph.matching import matched_costs
from topo.graph.pictures import degree_drift, layer_distances
from topo.masks import MaskSet
from topo.metrics.science import active_neuron_rate
from topo.report.groups import by_block_and_projection, in_block_order, is_language_model
from topo.wiring import Wiring

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


def distances(a: MaskSet, b: MaskSet, wiring: Wiring | None = None) -> dict[str, float]:
    """How far two mask sets are as graphs, whatever their hidden units are called; over the layers that both hold.

    graphon_distance: each layer as a picture of 10 x 10 densities, input and output channels in the order of their
    degrees; root of the mean square of the differences, a mean by layer size. fan_in_distance, fan_out_distance: mean
    difference of sorted degrees, as a share of the largest possible, a mean by layer size. nnstd: mean over the outputs
    of these layers of the Jaccard distance of what feeds them, units being matched layer by layer
    (`topo.graph.matching.matched_costs`), the lesser of A matched to B and B to A; NaN without a wiring.

    >>> a, b = MaskSet({"fc": np.array([[1, 1, 0, 0]])}), MaskSet({"fc": np.array([[1, 0, 1, 0]])})
    >>> distances(a, b)["fan_in_distance"], distances(a, b)["graphon_distance"]
    (0.0, 0.0)

    Sources: Pham et al. 2025 (graphon), Liu et al., ECML 2020 (NNSTD).
    Raises MaskError as `compare`.
    """
    found = compare(a, b)
    b = paired(a, b)
    names, sizes = [entry["layer"] for entry in found.layers], [entry["size"] for entry in found.layers]
    groups = _groups(wiring)
    each = [layer_distances(a.rows(name), b.rows(name), groups.get(name, 1)) for name in names]
    parts = {key: [one[key] for one in each] for key in ("graphon_distance", "fan_in_distance", "fan_out_distance")}
    mean = {key: float(np.average(values, weights=sizes)) for key, values in parts.items()}
    if wiring is None:
        return {"nnstd": math.nan, **mean}
    held = [MaskSet({name: masks.rows(name) for name in names}) for masks in (a, b)]
    for masks in held:
        wiring.check(masks)
    ours, theirs = map(wiring.plain_masks, held)
    both_ways = [matched_costs(*pair, wiring.plain).values() for pair in ((ours, theirs), (theirs, ours))]
    nnstd = min(float(np.mean(np.concatenate(list(costs)))) if costs else math.nan for costs in both_ways)
    return {"nnstd": nnstd, **mean}


def _groups(wiring: Wiring | None) -> dict[str, int]:
    return {name: wiring.layer(name).groups for name in wiring.names} if wiring is not None else {}


def trajectory(series: Mapping[str, MaskSet], wiring: Wiring | None = None) -> list[dict[str, Any]]:
    """A series of masks in order, a dict each: {"mask", "kept", "density", "born", "died", "survived", "exploration",
    "active_neuron_rate", "degree_drift"}.

    born, died: weights that the one before does not keep, or kept, as shares of all; of the first NaN. survived: those
    of the first that are kept. exploration: share of all weights that some mask up to here keeps (Liu et al., In-Time
    Over-Parameterization, ICML 2021). active_neuron_rate: as the metric, NaN without a wiring. degree_drift: mean
    difference of units' degrees, fan-in and fan-out, from the first mask's, over the mean degree there.

    >>> one, other = MaskSet({"fc": np.array([[1, 1, 0, 0]])}), MaskSet({"fc": np.array([[1, 0, 1, 0]])})
    >>> [entry["exploration"] for entry in trajectory({"0": one, "1": other})]
    [0.5, 0.75]

    Raises MaskError if masks differ in their layers, and for a series of none.
    """
    if not series:
        raise MaskError("a series of no masks has no course: give one mask set at least")
    first = before = next(iter(series.values()))
    ever = {name: np.zeros_like(first.rows(name).words) for name in first}
    found: list[dict[str, Any]] = []
    groups = _groups(wiring)
    for label, given in series.items():
        masks = paired(first, given)
        if masks.shapes != first.shapes:
            raise MaskError(f"'{label}' has other layers than '{next(iter(series))}': a series is of one network")
        for name in ever:
            ever[name] |= masks.rows(name).words
        step, since = compare(before, masks).total, compare(first, masks).total
        explored = sum(int(np.bitwise_count(words).sum(dtype=np.int64)) for words in ever.values())
        live = active_neuron_rate(build_graph(masks, wiring)).number if wiring is not None else math.nan
        found.append(
            {
                "mask": label,
                "kept": masks.kept,
                "density": masks.density,
                "born": step["only_b"] / masks.size if found else math.nan,
                "died": step["only_a"] / masks.size if found else math.nan,
                "survived": since["both"] / since["kept_a"] if since["kept_a"] else math.nan,
                "exploration": explored / masks.size,
                "active_neuron_rate": live,
                "degree_drift": degree_drift(first, masks, groups),
            }
        )
        before = masks
    return found


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
