"""analyze: masks and wiring in, a report of every metric asked for out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from topo import nulls as ladder
from topo._support import threads as pool
from topo.errors import TopoError, TraceError, WiringError
from topo.files import read_masks
from topo.graph import LayeredGraph, build_graph
from topo.graph.drawing import drawing
from topo.input_spec import Spec
from topo.masks import MaskSet, are_masks, as_mask_set
from topo.metrics import GROUPS, Metric, chosen, named
from topo.metrics.science import ALONE, BESIDE
from topo.networks import find_wiring, named_in
from topo.report import Number, Report, Row, Value, few
from topo.report.groups import is_language_model, side_by_side
from topo.wiring import Wiring, chain

if TYPE_CHECKING:
    from torch import nn

# How well another number is known: it is not a property of the masks, and has no place in a null model.
_CERTIFICATES = frozenset({"sigma_error", "sigma_proved"})

# Units of a network from which on what the metrics of one group share is let go before the next group: of ten million
# units 2.4 GB came together.
_WIDE = 1 << 20

# Parameters up to which a report holds its masks, to draw their network on a page: 16 MB of bits.
_DRAWN = 1 << 27

# What of a mask set's provenance a report holds under a name of its own, or does not need: how masks are laid out.
_TOLD_ELSEWHERE = frozenset({"format", "coverage", "notes", "input_first"})

Progress = Callable[[int, int, str], Any]


def analyze(
    masks: MaskSet | Any,
    wiring: Wiring | nn.Module | str | Path | None = None,
    *,
    metrics: str | Sequence[str] = "default",
    view: str | None = None,
    weights: Mapping[str, Any] | None = None,
    threads: int | None = None,
    mask_name: str | None = None,
    progress: Progress | None = None,
    nulls: str | Mapping[str, int] | None = None,
    rng: int | np.random.Generator = 0,
    input_shape: Spec | None = None,
    max_edges: int | None = None,
) -> Report:
    """Compute metrics of a mask set.

    masks: a MaskSet, a mapping from parameter name to a mask, a state dict (any other mapping), or a torch module: the
    masks of these two are found as `topo.read_masks` finds them, and the wiring of a module is traced if none is given
    (on `input_shape`, without the batch, unless the module has its own). wiring: from `topo.trace`, or whatever
    `topo.networks.find_wiring` takes, such as "resnet20"; without it, masks that name a built-in model, as those that
    topo wrote do, are on that; masks that form a plain stack are chained (a note says so), and others get the metrics
    of single layers only, network metrics being NaN with the reason, and each convolution is in one group.
    metrics: "default", "all", groups or names.
    view: "channel", "unit", "kernel" or "unrolled", see `topo.graph.views`; by default networks are counted in the
    channel view, single layers seen in the kernel view. max_edges: most edges of the unrolled view that may be listed,
    for the group `graph`. weights: parameter -> array laid out as its mask, or tensor laid out as
    its parameter (a state_dict), for weighted metrics. threads: default all cores.
    mask_name: the report's name for the masks, by default the file they came from. progress: called as (done, total,
    what), from one thread at a time.
    nulls: null model -> number of samples, as {"same_layers": 100} or "same_layers:100,same_degrees:50"; the same
    metrics are computed of every sample (weights stay at their places), and `Report.nulls` says how far the masks are
    from them, see `topo.nulls`. None draws 20 samples of same_degrees for metrics of the group `science` that are asked
    for by name; "none" or {} draws none. rng: draws the samples; they are the same on any number of threads, and those
    of one null model whatever others are asked for.

    >>> masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    >>> report = topo.analyze(masks, topo.chain(masks), metrics="paths")
    >>> report.network["effective_paths"], [layer["kept"] for layer in report.layers]
    (3, [3, 2])

    Raises TopoError for an unknown metric, view or null model, and for a null model that needs a wiring that is not
    there; WiringError naming the first layer at which masks and wiring differ.
    """
    if hasattr(masks, "state_dict"):
        masks, wiring, untraced = _of_module(masks, wiring, input_shape)
    elif isinstance(masks, Mapping) and not isinstance(masks, MaskSet) and not are_masks(masks):
        wiring = None if wiring is None else find_wiring(wiring, input_shape)
        masks, untraced = read_masks(masks, wiring), []
    else:
        masks, untraced = as_mask_set(masks), []
    if weights is not None and not isinstance(weights, Mapping):
        raise TopoError(f"weights are arrays by parameter name, not {weights!r:.60}; topo.read_weights reads a file")
    if wiring is not None:
        wiring = find_wiring(wiring, input_shape)
    entries = chosen(metrics, weights=weights is not None)
    beside = named(metrics, "science") if nulls is None else []
    wanted = dict(BESIDE) if beside else ladder.requested({} if nulls is None else nulls)
    of_networks = {entry.name for entry in entries if entry.scope == "network"}

    def is_held(name: str, of_layer: bool) -> bool:
        """Whether null models are drawn for a number; unasked, not for what is of the network and of each layer."""
        return not beside or (name in beside and not (of_layer and name in of_networks))

    held = [entry for entry in entries if is_held(entry.name, entry.scope == "layer")]
    notes: list[str] = [str(note) for note in masks.provenance.get("notes", ())] + untraced
    provenance = _provenance(masks)  # ahead of the work, in whose time the file may be written anew
    if "sha256" in getattr(masks.provenance, "lost", ()):
        notes.append("the file is gone, or was written anew, since its masks were read: its SHA-256 is not known")
    unwired = ""
    if wiring is None and any(entry.wired for entry in entries):
        wiring, said = named_in(masks)
        notes += said
    if wiring is None:
        try:
            if is_language_model(masks):  # whose layers may fit one behind the other, but do not stand so
                raise WiringError("blocks of a language model run side by side; give its folder, or the model")
            if side_by_side(masks):
                raise WiringError("queries and keys of a block run side by side; give the model")
            wiring = chain(masks)
        except WiringError as error:
            unwired = "needs the network's wiring"
            notes.append(f"network metrics need the network's wiring, which is not a plain chain: {error}")
    elif len(used := wiring.used(masks)) < len(masks):
        aside = [f"{name} ({masks[name].size:,} parameters)" for name in masks if name not in used]
        notes.append(f"masks of layers that the traced way through the model does not use: {', '.join(aside)}")
        wiring.check(masks)
        masks = used
    for null in wanted:
        ladder.nulls[null].check(wiring)
    build = partial(build_graph, wiring=wiring, view=view, weights=weights, max_edges=max_edges)
    graph = build(masks, threads=threads)
    if wiring is not None:
        notes += wiring.notes
        notes += _dense_notes(graph)
    name = mask_name or str(masks.provenance.get("file", "masks"))
    rows = list(_rows(graph, entries, unwired, name, progress))

    numbers = partial(_numbers, build=build, entries=held, unwired=unwired)
    samples = _samples(masks, wiring, wanted, rng, numbers, threads, progress) if wanted else {}
    for null in wanted:
        notes += ladder.nulls[null].remarks(masks, wiring)
    scores, undefined = _scores([row for row in rows if is_held(row.metric, row.layer is not None)], samples)
    return Report(
        mask=name,
        format=masks.provenance.get("format"),
        model=wiring.model if wiring else None,
        view=graph.view,
        shapes={block.name: block.shape for block in graph.masked_blocks},
        rows=_beside(rows, scores),
        notes=[*({"metric": None, "layer": None, "note": note} for note in notes), *undefined],
        nulls=scores,
        coverage=masks.provenance.get("coverage"),
        provenance=provenance,
        drawing=None if wiring is None or masks.size > _DRAWN else partial(drawing, masks, wiring, graph.view),
    )


def _provenance(masks: MaskSet) -> dict[str, Any]:
    """What is known of where masks come from; "density" is the one that was asked for, where that is known."""
    known = {key: value for key, value in masks.provenance.items() if key not in _TOLD_ELSEWHERE}
    return known if (asked := known.pop("asked_density", None)) is None else {**known, "density": asked}


def _of_module(module: Any, wiring: Any, input_shape: Spec | None) -> tuple[MaskSet, Wiring | None, list[str]]:
    """The masks on a module, its wiring, and why it has none.

    A wiring that does not know all masked layers is given up: what it leaves out would be missing from the numbers.
    """
    found: Wiring | None = None
    try:
        found = find_wiring(module if wiring is None else wiring, input_shape)
    except TraceError as error:
        if wiring is not None or input_shape is not None:
            raise
        return read_masks(module), None, [f"the module was not traced: {error}"]
    whole = read_masks(module)
    if wiring is None and not all(name in found.shapes for name in whole):
        plain = _stripped(module)
        traced = find_wiring(plain, input_shape) if plain is not None else found
        found = traced if len(traced.names) > len(found.names) else found
    masks = read_masks(module, found)
    if wiring is None and len(masks) < len(whole):
        missing = few([name for name in whole if name not in masks])
        return whole, None, [f"the traced wiring has no layer for {missing}: layers are looked at one by one"]
    return masks, found, []


def _stripped(module: Any) -> Any:
    """A copy without parametrizations that mask, which hide weights from the trace; None if torch cannot copy it."""
    from topo.train import strip_masks

    try:
        return strip_masks(copy.deepcopy(module))
    except RuntimeError:
        return None


def _numbers(
    sample: MaskSet,
    *,
    build: Callable[[MaskSet], LayeredGraph],
    entries: list[Metric],
    unwired: str,
) -> list[Number]:
    """The numbers of one sample of a null model, in the order of the report's rows."""
    return [row.value for row in _rows(build(sample), entries, unwired, "sample", None)]


def _samples(
    masks: MaskSet,
    wiring: Wiring | None,
    wanted: Mapping[str, int],
    rng: int | np.random.Generator,
    numbers: Callable[[MaskSet], list[Number]],
    threads: int | None,
    progress: Progress | None,
) -> dict[str, list[list[Number]]]:
    """Null model -> the numbers of each of its samples, in the order of the report's rows."""
    jobs = [(name, seed) for name, seeds in ladder.seeds(rng, wanted).items() for seed in seeds]
    done, lock = count(1), Lock()

    def one(job: tuple[str, np.random.Generator]) -> list[Number]:
        found = numbers(ladder.nulls[job[0]](masks, job[1], wiring))
        if progress:
            with lock:
                progress(next(done), len(jobs), f"null model {job[0]}")
        return found

    drawn = iter(pool.over(one, jobs, threads))
    return {name: [next(drawn) for _ in range(number)] for name, number in wanted.items()}


def _scores(
    rows: Sequence[Row], samples: Mapping[str, Sequence[Sequence[Number]]]
) -> tuple[list[dict[str, Any]], list[dict[str, str | None]]]:
    """The rows against the samples, and notes on what is undefined.

    What is a number neither in the masks nor in any sample has no entry, nor has the error of another number.
    """
    scores: list[dict[str, Any]] = []
    notes: list[dict[str, str | None]] = []
    for name, drawn in samples.items():
        for place, row in enumerate(rows):
            if row.metric in _CERTIFICATES:
                continue
            found = asdict(ladder.score(row.value, [numbers[place] for numbers in drawn]))
            if not found["samples"] and row.value != row.value:
                continue
            note = found.pop("note")
            about = {"metric": row.metric, "layer": row.layer}
            found = {"null": name, "samples": found.pop("samples"), **about, "observed": row.value, **found}
            scores.append(found)
            if note:
                notes.append({**about, "note": f"{name}: {note}"})
    return scores, notes


def _beside(rows: Sequence[Row], scores: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows; those of numbers that stand beside a null model do not say that they stand alone."""
    held = {(entry["metric"], entry["layer"]) for entry in scores if entry["p"] == entry["p"]}

    def told(row: Row) -> Row:
        if row.note is None or ALONE not in row.note or (row.metric, row.layer) not in held:
            return row
        return replace(row, note=row.note.replace(ALONE, "").removesuffix("; ") or None)

    return [told(row) for row in rows]


def _dense_notes(graph: LayeredGraph) -> list[str]:
    dense = [block.name for block in graph.blocks if not block.masked and not block.source]
    return [f"layers without a mask, taken as dense: {', '.join(dense)}"] if dense else []


def _rows(graph: LayeredGraph, entries: list[Metric], unwired: str, name: str, progress: Progress | None):
    """One row per network metric, then per layer one row per layer metric."""
    jobs: list[tuple[Metric, tuple]] = [(entry, ()) for entry in entries if entry.scope == "network"]
    jobs += [(entry, (block,)) for block in graph.masked_blocks for entry in entries if entry.scope == "layer"]
    wide = graph.wiring is not None and graph.wiring.n_units > _WIDE
    order = sorted(range(len(jobs)), key=lambda at: _phase(jobs[at][0])) if wide else range(len(jobs))
    values: dict[int, Value] = {}
    for done, at in enumerate(order):
        entry, block = jobs[at]
        if progress:
            progress(done, len(jobs), f"{entry.name} {block[0].name}" if block else entry.name)
        values[at] = Value(math.nan, unwired) if entry.wired and graph.wiring is None else entry(graph, *block)
        if wide and (done + 1 == len(jobs) or _phase(jobs[order[done + 1]][0]) != _phase(entry)):
            graph.memo.clear()
    for at, (entry, block) in enumerate(jobs):
        view = graph.view if entry.view == "network" else graph.layer_view
        value = values[at]
        yield Row(name, entry.name, block[0].name if block else None, view, value.number, entry.unit, value.note)
    if progress:
        progress(len(jobs), len(jobs), "done")


def _phase(entry: Metric) -> int:
    """The place of a metric's group; groups that share one list of edges stand together."""
    return GROUPS.index("graph" if entry.group == "science" else entry.group)
