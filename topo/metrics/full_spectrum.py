"""SPECTRAL, with weights: |W o M| in place of M, and the full-spectrum coordinate of a layer.

The full spectrum of Hoang et al. (NeurIPS 2023) is (Delta_r, weighted spectral gap, imdb, imsg). Their code takes its
L2 norm, the distance from the origin; their text speaks of the distance from the network at its start: both are here.
Undefined is NaN, where their code has 0. No axis is normalised: the scale of the weights decides what the norm shows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from topo.errors import TopoError
from topo.graph import Block, LayeredGraph
from topo.graph.bipartite import weighted
from topo.graph.memo import shared
from topo.graph.singular import TopTwo, top_two
from topo.metrics.spectral import (
    EMPTY,
    NO_CLASS,
    NOT_PROVED,
    bipartites,
    classes,
    layerwise,
    over_layers,
    ramanujan,
    spectra,
    spectrum,
)
from topo.report import Value

_FULL = "Hoang et al., Don't just prune by magnitude! Your mask topology is a secret weapon, NeurIPS 2023, sec. 3"


class FullSpectrum(NamedTuple):
    """The full-spectrum coordinate of a layer; NaN where undefined. imdb and imsg are of the NeurIPS 2023 variant."""

    ramanujan_gap: float
    weighted_spectral_gap: float
    imdb: float
    imsg: float


@shared
def _weighted(graph: LayeredGraph) -> dict[str, tuple[FullSpectrum, str | None]]:
    return over_layers(graph, lambda block: _coordinate(graph, block))


def full_spectrum_coordinate(graph: LayeredGraph, block: Block) -> FullSpectrum:
    """(Delta_r, weighted spectral gap, imdb, imsg) of a layer.

    Classes are those of the NeurIPS 2023 code: at least 2 left units of one degree d >= 3, right units touched with
    d_r > 1; the gaps of a class of a left and b right units count max(a, b) / (a + b - 1) times.

    Raises TopoError for a block that is not masked or a graph without its weights.
    """
    spectrum(graph, block)
    if graph.weights is None or block.name not in graph.weights:
        raise TopoError(f"the full-spectrum coordinate of '{block.name}' needs its weights")
    return _weighted(graph)[block.name][0]


def full_spectrum_distance(graph: LayeredGraph, reference: LayeredGraph, block: Block) -> float:
    """L2 distance between a layer's full-spectrum coordinates here and in `reference`, which has weights of its own.

    `reference` is the dense network, the masks before training, or any other. NaN where a coordinate is undefined.
    Raises TopoError if `reference` has no such layer.
    """
    other = {each.name: each for each in reference.masked_blocks}.get(block.name)
    if other is None:
        raise TopoError(f"the reference has no mask for layer '{block.name}'")
    return math.dist(full_spectrum_coordinate(graph, block), full_spectrum_coordinate(reference, other))


def _coordinate(graph: LayeredGraph, block: Block) -> tuple[FullSpectrum, str | None]:
    """The coordinate, and why it is undefined as a whole, or that a singular value of it is not proved."""
    nothing = FullSpectrum(math.nan, math.nan, math.nan, math.nan)
    layer = spectra(graph)[block.name]
    if graph.weights is None or block.name not in graph.weights:
        return nothing, "needs weights"
    if layer.edges == 0:
        return nothing, EMPTY.note
    weights = graph.weights[block.name]
    if not np.isfinite(weights).all():
        return nothing, "the layer's weights are not all finite numbers"
    scale = float(np.abs(weights).max(initial=0, where=block.rows.unpack()))
    if scale == 0:
        return nothing, "every kept weight of the layer is 0"
    made, heavy = bipartites(graph)[block.name], weighted(block, np.asarray(weights, np.float64) / scale)
    whole = top_two(heavy)
    gaps, weighted_gaps, proved = [], [], whole.proved
    for degree, units, touched in classes(made, 2):
        d_r = degree * len(units) / touched
        if degree < 3 or d_r <= 1:
            continue
        factor = max(len(units), touched) / (len(units) + touched - 1)
        structure, loaded = (top_two(kind.turned.only_right(units)) for kind in (made, heavy))
        proved = proved and structure.proved and loaded.proved
        gaps.append(factor * (ramanujan(degree, d_r) - structure.sigma2))
        weighted_gaps.append(factor * scale * _gap(loaded))
    imdb, imsg = (float(np.mean(found)) if found else math.nan for found in (gaps, weighted_gaps))
    found = FullSpectrum(layer.bound - layer.top.sigma2, scale * _gap(whole), imdb, imsg)
    return found, None if proved else NOT_PROVED


def _gap(top: TopTwo) -> float:
    return top.sigma1 - top.sigma2 if top.components else 0.0


@layerwise("weight", _FULL, weighted=True)
def layer_weighted_spectral_gap(graph: LayeredGraph, block: Block) -> Value:
    """sigma1 - sigma2 of the matrix |W| on the kept weights."""
    found, why = _weighted(graph)[block.name]
    return Value(found.weighted_spectral_gap, why)


@layerwise("weight", _FULL, weighted=True)
def layer_imsg(graph: LayeredGraph, block: Block) -> Value:
    """Mean weighted gap of the classes of at least 2 left units of one degree, times max(a, b) / (a + b - 1)."""
    found, why = _weighted(graph)[block.name]
    return Value(found.imsg, why or (NO_CLASS.note if math.isnan(found.imsg) else None))


@layerwise("norm", _FULL, weighted=True)
def layer_full_spectrum(graph: LayeredGraph, block: Block) -> Value:
    """L2 norm of (ramanujan_gap, weighted gap, imdb, imsg), the latter two with that factor; d_l >= 3 and d_r > 1."""
    found, why = _weighted(graph)[block.name]
    if why and math.isnan(found.weighted_spectral_gap):
        return Value(math.nan, why)
    layer = spectra(graph)[block.name]
    if layer.d_l < 3 or layer.d_r <= 1:
        return Value(math.nan, "the paper's gate: d_l >= 3 and d_r > 1")
    return Value(math.hypot(*found), NO_CLASS.note if math.isnan(found.imdb) else why)
