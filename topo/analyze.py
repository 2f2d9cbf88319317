"""analyze: masks and wiring in, a report of every metric asked for out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import WiringError
from topo.graph import LayeredGraph, build_graph
from topo.masks import MaskSet, as_mask_set
from topo.metrics import Metric, chosen
from topo.networks import find_wiring
from topo.report import Report, Row, Value
from topo.wiring import Wiring, chain

if TYPE_CHECKING:
    from torch import nn

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
) -> Report:
    """Compute metrics of a mask set.

    masks: a MaskSet, or a mapping from parameter name to a mask. wiring: from `topo.trace`, or whatever
    `topo.networks.find_wiring` takes, such as "resnet20"; without it, masks that form
    a plain stack are chained (a note says so) and others get the metrics of single layers only, network metrics being
    NaN with the reason. metrics: "default", "all", groups or names.
    view: "channel", "unit" or "kernel", see `topo.views`; by default networks are counted in the channel view, single
    layers seen in the kernel view. weights: parameter -> array, for weighted metrics. threads: default all cores.
    mask_name: the report's name for the masks, by default the file they came from. progress: called as (done, total,
    what).

    Raises TopoError for an unknown metric or view, WiringError naming the first layer at which masks and wiring differ.
    """
    masks = as_mask_set(masks)
    if wiring is not None:
        wiring = find_wiring(wiring)
    entries = chosen(metrics, weights=weights is not None)
    notes: list[str] = [str(note) for note in masks.provenance.get("notes", ())]
    unwired = ""
    if wiring is None:
        try:
            wiring = chain(masks)
        except WiringError as error:
            unwired = "needs the network's wiring"
            notes.append(f"network metrics need the network's wiring, which is no plain chain: {error}")
    graph = build_graph(masks, wiring, view, weights=weights, threads=threads)
    if wiring is not None:
        notes += wiring.notes
        notes += _dense_notes(graph)
    rows = list(_rows(graph, entries, unwired, mask_name or str(masks.provenance.get("file", "masks")), progress))
    return Report(
        mask=mask_name or str(masks.provenance.get("file", "masks")),
        format=masks.provenance.get("format"),
        model=wiring.model if wiring else None,
        view=graph.view,
        shapes={block.name: block.shape for block in graph.masked_blocks},
        rows=rows,
        notes=[{"metric": None, "layer": None, "note": note} for note in notes],
    )


def _dense_notes(graph: LayeredGraph) -> list[str]:
    dense = [block.name for block in graph.blocks if not block.masked and not block.source]
    return [f"layers without a mask, taken as dense: {', '.join(dense)}"] if dense else []


def _rows(graph: LayeredGraph, entries: list[Metric], unwired: str, name: str, progress: Progress | None):
    """One row per network metric, then per layer one row per layer metric."""
    jobs: list[tuple[Metric, tuple]] = [(entry, ()) for entry in entries if entry.scope == "network"]
    jobs += [(entry, (block,)) for block in graph.masked_blocks for entry in entries if entry.scope == "layer"]
    for done, (entry, block) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), f"{entry.name} {block[0].name}" if block else entry.name)
        value = Value(math.nan, unwired) if entry.wired and graph.wiring is None else entry(graph, *block)
        view = graph.view if entry.view == "network" else graph.layer_view
        yield Row(name, entry.name, block[0].name if block else None, view, value.number, entry.unit, value.note)
    if progress:
        progress(len(jobs), len(jobs), "done")
