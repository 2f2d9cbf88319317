"""Yes-or-no questions to a mask set, each answered with the places where it fails.

Masks get lost in fine-tuning, merging, conversion and export without a word; these are the checks to run afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from topo._support.names import unknown
from topo.errors import TopoError
from topo.masks import BitRows, MaskSet
from topo.n_m import kept_in_groups, parse_n_m
from topo.report import Report

FAILURES = ("layer-collapse", "no-paths")


@dataclass(frozen=True)
class Finding:
    """One place where a check fails.

    check: contains, n-m, max-density, min-density, max-layer-density, adapter, layer-collapse or no-paths. layer: None
    for the whole. message: the line for a reader. index: of the first parameter (contains), or of the first one of the
    first group (n-m), in torch's layout. count: parameters (contains, adapter) or groups (n-m) that fail in this layer.
    """

    check: str
    layer: str | None
    message: str
    index: tuple[int, ...] | None = None
    count: int | None = None


def check(
    masks: MaskSet,
    *,
    contains: MaskSet | None = None,
    n_m: str | None = None,
    max_density: float | None = None,
    min_density: float | None = None,
    max_layer_density: float | None = None,
    fail_on: Sequence[str] = (),
    layers: str | None = None,
    report: Report | None = None,
    assumed: bool = False,
) -> list[Finding]:
    """Where the asked checks fail, one finding per check and layer; an empty list means yes.

    contains: every parameter that this mask set prunes is pruned in `masks` too. n_m: "2:4" asks for at most 2 kept
    among 4 consecutive inputs, see `over_n_m`. max_density: at most round(max_density * size) parameters are kept,
    which is how many a mask made at that density has. min_density: at least so many are kept. max_layer_density: as
    max_density, of each layer by itself. fail_on: "layer-collapse" (a layer without effective parameter)
    and "no-paths" (no path from input to output). layers: a pattern (`layer1.*`); only matching layers are looked at.
    report: what `analyze` says of the masks on their wiring, with effective_params and effective_paths. "no-paths"
    needs it; without it a layer has collapsed when it keeps nothing. assumed: the report's wiring is a chain that was
    only assumed; residual connections may then hold open what the chain finds closed, so that it answers yes alone.

    Raises TopoError for a pattern that matches no layer, an unknown name in fail_on, "no-paths" without wiring, and
    a no that rests on an assumed chain alone.
    """
    names = chosen(masks, layers)
    found: list[Finding] = []
    if contains is not None:
        pruned = [name for name in contains if name in names or (name not in masks and matches(name, layers))]
        found += _present(_lost(masks, contains, name) for name in pruned)
    if n_m is not None:
        n, m = parse_n_m(n_m)
        found += _present(over_n_m(name, masks.rows(name), n, m) for name in names)
    if (max_density, min_density, max_layer_density) != (None, None, None):
        counts = {name: (masks.rows(name).kept(), masks.rows(name).size) for name in names}
        found += beyond_densities(counts, max_density, min_density, max_layer_density)
    for failure in fail_on:
        if failure not in FAILURES:
            raise TopoError(unknown("answer to fail on", failure, FAILURES))
    wired: list[Finding] = []
    if "layer-collapse" in fail_on:
        wired += _collapsed(masks, names, report)
    if "no-paths" in fail_on:
        wired += _present([_no_paths(report)])
    certain = [finding for finding in wired if not assumed or finding.count == 0]  # a layer that keeps nothing
    if wired and not certain and not found:
        raise TopoError(
            f"'{wired[0].check}' cannot be answered: {wired[0].message}, if the layers form a plain chain, which is "
            "only assumed; residual connections may lead around; give the model"
        )
    return found + certain


def chosen(masks: MaskSet, pattern: str | None) -> list[str]:
    """The layers that match a pattern, all for None; TopoError if none does."""
    names = [name for name in masks if matches(name, pattern)]
    if not names:
        raise TopoError(f"no layer matches '{pattern}'; there are: {', '.join(masks)}")
    return names


def matches(name: str, pattern: str | None) -> bool:
    """Whether a layer's name fits a pattern (`layer1.*`); all do for None."""
    return pattern is None or fnmatchcase(name, pattern)


def _present(findings: Iterator[Finding | None] | Sequence[Finding | None]) -> list[Finding]:
    return [finding for finding in findings if finding is not None]


def _lost(masks: MaskSet, contains: MaskSet, name: str) -> Finding | None:
    theirs = contains.rows(name)
    if name not in masks:
        count = theirs.size - theirs.kept()
        if count == 0:
            return None
        message = f"there is no mask '{name}' {theirs.shape}, where B prunes {count:,} parameters"
        return Finding("contains", name, message, None, count)
    ours = masks.rows(name)
    if ours.shape != theirs.shape:
        return Finding("contains", name, f"'{name}' has shape {ours.shape} but {theirs.shape} in B")
    kept = ours.words & ~theirs.words
    count = int(np.bitwise_count(kept).sum(dtype=np.int64))
    if count == 0:
        return None
    row = int(kept.any(axis=1).argmax())
    column = int(np.unpackbits(kept[row].view(np.uint8), bitorder="little").argmax())
    index = _index((row, *np.unravel_index(column, ours.shape[1:])))
    plural = "parameter that B prunes" if count == 1 else "parameters that B prunes, the first"
    return Finding("contains", name, f"'{name}' keeps {count:,} {plural} at {index}", index, count)


def over_n_m(name: str, rows: BitRows, n: int, m: int) -> Finding | None:
    """Where a mask breaks N:M, see `topo.n_m`: more than n kept among m consecutive inputs.

    The first one is first by row, then by group, then by kernel position.
    """
    count, first = 0, None
    inputs = rows.shape[1]
    for start, kept in kept_in_groups(rows, m):
        over = kept > n
        if first is None and over.any():
            row, group, position = _index(np.unravel_index(over.argmax(), over.shape))
            first = (start + row, group * m, position, int(kept[row, group, position]))
        count += int(over.sum())
    if first is None:
        return None
    row, begin, position, most = first
    end = min(begin + m, inputs)
    where = f"inputs {begin}-{end - 1}" if end - begin > 1 else f"input {begin}"
    kernel = _index(np.unravel_index(position, rows.shape[2:])) if len(rows.shape) > 2 else ()
    at = f", kernel position {kernel}" if kernel else ""
    more = f"; {count:,} groups of this layer keep more than {n}" if count > 1 else ""
    message = f"'{name}' keeps {most} of {end - begin} in row {row}, {where}{at}; {n}:{m} allows {n}{more}"
    return Finding("n-m", name, message, (row, begin, *kernel), count)


def _index(values: Sequence[np.integer | int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def beyond_densities(
    counts: Mapping[str, tuple[int, int]],
    most: float | None = None,
    least: float | None = None,
    most_of_layer: float | None = None,
) -> list[Finding]:
    """Where densities are beyond these bounds, of layers whose (kept, size) are given; a bound D is round(D * size)."""
    kept, size = sum(k for k, _ in counts.values()), sum(s for _, s in counts.values())
    found = []

    def told(check: str, word: str, bound: float, kind: str, layer: str) -> Finding:
        share = density(layer)
        message = (
            f"density {kept / size:.6g} is {word} {bound:g} ({kept:,} of {size:,} parameters kept); "
            f"the {kind} layer is '{layer}' with {share:.4g}"
        )
        return Finding(check, None, message, None, kept)

    def density(name: str) -> float:
        return counts[name][0] / counts[name][1]

    if most is not None and kept > round(most * size):
        found.append(told("max-density", "over", most, "densest", max(counts, key=density)))
    if least is not None and kept < round(least * size):
        found.append(told("min-density", "under", least, "sparsest", min(counts, key=density)))
    for name, (k, s) in counts.items() if most_of_layer is not None else ():
        if most_of_layer is not None and k > round(most_of_layer * s):
            message = f"'{name}' has density {k / s:.6g}, over {most_of_layer:g} ({k:,} of {s:,} parameters kept)"
            found.append(Finding("max-layer-density", name, message, None, k))
    return found


def _collapsed(masks: MaskSet, names: list[str], report: Report | None) -> list[Finding]:
    effective = {entry["layer"]: entry.get("effective_params") for entry in report.layers} if report else {}
    empty, off_paths = [], []  # a layer that keeps nothing is why others lie on no path: it comes first
    for name in names:
        kept = masks.rows(name).kept()
        if kept == 0:
            empty.append(Finding("layer-collapse", name, f"'{name}' keeps no parameter", None, 0))
        elif effective.get(name) == 0:
            message = f"'{name}' keeps {kept:,} parameters, none of which lies on a path from input to output"
            off_paths.append(Finding("layer-collapse", name, message, None, kept))
    return empty + off_paths


def _no_paths(report: Report | None) -> Finding | None:
    paths = report.network.get("effective_paths") if report else None
    if paths is None or paths != paths:
        said = [note["note"] for note in report.notes if note["metric"] is None] if report else []
        why = said[-1] if said else "masks do not carry the network's wiring"
        raise TopoError(f"'no-paths' cannot be answered: {why}; give the model")
    return None if paths else Finding("no-paths", None, "no path leads from input to output")
