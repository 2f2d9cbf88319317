"""SPECTRAL: every layer as an expander; gaps, Ramanujan bounds and their relatives, in the view of single layers.

Notation: isolated units dropped, n_l left and n_r right units remain with E edges (multiplicities counted), d_l = E /
n_l and d_r = E / n_r are mean degrees; sigma1 >= sigma2 are the largest singular values of the biadjacency matrix. The
adjacency's spectrum is symmetric, so the third largest |eigenvalue| of the papers is sigma2.

The papers compute gaps only where d_l >= 3 and d_r >= 3. Here `narc` keeps that gate, `imdb` has it class by class (a
layer of mean degree 2.5 may have a class of degree 3), the others are computed wherever they are defined, and `gated`
says which layers the papers leave out. A network's value is the mean
over the layers where it is defined; their number stands beside it as `<name>_layers`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo._support import threads
from topo._support.doors import summary
from topo.errors import TopoError
from topo.graph import Block, LayeredGraph
from topo.graph.bipartite import Bipartite, of_block
from topo.graph.memo import shared
from topo.graph.singular import TopTwo, second, top_two
from topo.metrics import metric
from topo.report import Value

_PAL = "Pal et al., A Study on the Ramanujan Graph Property of Winning Lottery Tickets, ICML 2022, sec. 3"
_HOANG = "Hoang et al., Revisiting Pruning at Initialization through the Lens of Ramanujan Graph, ICLR 2023, sec. 3"
_VITA = "released code of Hoang et al., Revisiting Pruning at Initialization, ICLR 2023 (scores.py)"
EMPTY = Value(math.nan, "the layer keeps no weight")
_GATE = Value(math.nan, "a mean degree is below 3 (the papers' gate)")
NOT_PROVED = "not proved complete (too large): a second start found no larger value, but one may exist"
NO_CLASS = Value(math.nan, "no class of left units of equal degree counts")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A layer's sides and its two largest singular values. dim_in, dim_out: the sides with isolated units."""

    dim_in: int
    dim_out: int
    n_l: int
    n_r: int
    edges: int
    top: TopTwo

    @property
    def d_l(self) -> float:
        """Mean degree on the left, E / n_l."""
        return self.edges / self.n_l

    @property
    def d_r(self) -> float:
        """Mean degree on the right, E / n_r."""
        return self.edges / self.n_r

    @property
    def bound(self) -> float:
        """sqrt(d_l - 1) + sqrt(d_r - 1)."""
        return ramanujan(self.d_l, self.d_r)

    @property
    def gated(self) -> bool:
        """Whether the papers leave the layer out: no edge, d_l < 3 or d_r < 3."""
        return self.edges == 0 or self.d_l < 3 or self.d_r < 3


def ramanujan(d_l: float, d_r: float) -> float:
    """sqrt(d_l - 1) + sqrt(d_r - 1): as biregular graphs grow, no limit of their sigma2 is smaller (Feng & Li 1996).

    >>> ramanujan(5, 10)
    5.0
    """
    return math.sqrt(d_l - 1) + math.sqrt(d_r - 1)


# What several metrics share, once per graph: layers side by side on threads.


def over_layers(graph: LayeredGraph, function: Callable[[Block], Any]) -> dict[str, Any]:
    """Layer -> function of its block, side by side on the graph's threads where there is much to do."""
    workers = graph.threads if graph.masks.size > 1 << 20 else 1
    return dict(zip((b.name for b in graph.masked_blocks), threads.over(function, graph.masked_blocks, workers)))


@shared
def bipartites(graph: LayeredGraph) -> dict[str, Bipartite]:
    """Layer -> its bipartite graph."""
    return over_layers(graph, of_block)


@shared
def spectra(graph: LayeredGraph) -> dict[str, Spectrum]:
    """Layer -> its spectrum."""

    def of_layer(block: Block) -> Spectrum:
        made = bipartites(graph)[block.name]
        left, right = made.left_degrees, made.right_degrees
        sides = (made.left, made.right, int(np.count_nonzero(left)), int(np.count_nonzero(right)))
        return Spectrum(*sides, int(right.sum()), top_two(made))

    bipartites(graph)
    return over_layers(graph, of_layer)


@shared
def _degree_classes(graph: LayeredGraph) -> dict[str, Classes]:
    return over_layers(graph, lambda block: degree_classes(graph, block))


# Of a layer; each is registered three times: for layers, and for the network as a mean and as a count.


def layerwise(unit: str, source: str = "definition", *, weighted: bool = False) -> Callable[[Callable], Callable]:
    """Register `layer_<name>`(graph, block), and for the network `<name>` and `<name>_layers`.

    Of a network: the mean over the layers where it is defined, NaN where there is none, and how many those are.
    """

    def enter(function: Callable) -> Callable:
        name, doc = function.__name__.removeprefix("layer_"), summary(function)

        @shared
        def values(graph: LayeredGraph) -> dict[str, Value]:
            return {block.name: Value.of(function(graph, block)) for block in graph.masked_blocks}

        @functools.wraps(function)
        def of_layer(graph: LayeredGraph, block: Block) -> Value:
            return values(graph)[block.name]

        def mean(graph: LayeredGraph) -> float | Value:
            numbers = [float(value.number) for value in values(graph).values() if not math.isnan(value.number)]
            if numbers:
                return math.fsum(numbers) / len(numbers)
            reasons = {value.note for value in values(graph).values()}
            return Value(math.nan, reasons.pop() if len(reasons) == 1 else "no layer has it defined")

        def count(graph: LayeredGraph) -> int:
            return sum(not math.isnan(value.number) for value in values(graph).values())

        mean.__name__, mean.__doc__ = name, f"Mean over the layers where it is defined: {doc}"
        count.__name__, count.__doc__ = f"{name}_layers", f"Number of layers where {name} is defined."
        about: dict[str, Any] = {"group": "spectral", "wired": False, "view": "layer", "source": source}
        about["weighted"] = weighted
        metric(scope="network", unit=unit, **about)(mean)
        metric(scope="network", unit="layers", **about)(count)
        metric(scope="layer", unit=unit, **about)(of_layer)
        return function

    return enter


def _layer(unit: str, source: str = "definition") -> Callable[[Callable[[Spectrum], Any]], Callable]:
    """Register a function of a layer's spectrum; undefined where the layer is empty."""

    def enter(function: Callable[[Spectrum], Any]) -> Callable:
        @functools.wraps(function)
        def of_block(graph: LayeredGraph, block: Block) -> Any:
            layer = spectra(graph)[block.name]
            return function(layer) if layer.edges else EMPTY

        return layerwise(unit, source)(of_block)

    return enter


@_layer("singular value")
def layer_sigma1(layer: Spectrum) -> float:
    """Largest singular value of the biadjacency matrix."""
    return layer.top.sigma1


@_layer("singular value")
def layer_sigma2(layer: Spectrum) -> float:
    """Second largest singular value; equal to sigma1 in unions of equal components, 0 where one side has one unit."""
    return layer.top.sigma2


@_layer("singular value")
def layer_sigma_error(layer: Spectrum) -> Value:
    """Bound on the errors of sigma1 and sigma2: 1e-8 sigma1, more beyond 4096 units; complete if sigma_proved is 1."""
    return Value(layer.top.error, None if layer.top.proved else NOT_PROVED)


@_layer("0 or 1")
def layer_sigma_proved(layer: Spectrum) -> Value:
    """1 if no larger singular value can have been missed: shown by a Cholesky factor, up to 2048 units a side."""
    return Value(int(layer.top.proved), None if layer.top.proved else NOT_PROVED)


@layerwise("components")
def layer_components(graph: LayeredGraph, block: Block) -> int:
    """Connected components with at least one edge."""
    return spectra(graph)[block.name].top.components


@_layer("singular value", _PAL)
def layer_spectral_gap(layer: Spectrum) -> float:
    """sigma1 - sigma2."""
    return layer.top.sigma1 - layer.top.sigma2


@_layer("ratio")
def layer_spectral_ratio(layer: Spectrum) -> float:
    """sigma2 / sigma1."""
    return layer.top.sigma2 / layer.top.sigma1


@_layer("singular value", _HOANG)
def layer_ramanujan_bound(layer: Spectrum) -> float:
    """sqrt(d_l - 1) + sqrt(d_r - 1), with mean degrees."""
    return layer.bound


@_layer("singular value", _HOANG)
def layer_ramanujan_gap(layer: Spectrum) -> float:
    """Delta_r = ramanujan_bound - sigma2."""
    return layer.bound - layer.top.sigma2


@_layer("ratio", _HOANG)
def layer_ramanujan_gap_relative(layer: Spectrum) -> float | Value:
    """ramanujan_gap / ramanujan_bound."""
    if layer.bound == 0:
        return Value(math.nan, "the bound is 0: every unit has one edge")
    return (layer.bound - layer.top.sigma2) / layer.bound


@_layer("0 or 1", _PAL)
def layer_is_ramanujan(layer: Spectrum) -> int:
    """1 if sigma2 <= ramanujan_bound, up to the error of sigma2."""
    return int(layer.top.sigma2 <= layer.bound + layer.top.error)


@_layer("singular value", _HOANG)
def layer_delta_s(layer: Spectrum) -> float:
    """2 sqrt(sigma1 - 1) - sigma2."""
    return 2 * math.sqrt(max(layer.top.sigma1 - 1, 0.0)) - layer.top.sigma2


@_layer("ratio", _VITA)
def layer_narc(layer: Spectrum) -> float | Value:
    """[(sigma2^2/4 + 1) sqrt(n_l n_r) - |2E - E n_r/dim_out|] / (dim_in dim_out); gated.

    2E counts both directions of an edge: it is what the released code, and so what published numbers, hold.
    """
    if layer.gated:
        return _GATE
    random = (layer.top.sigma2**2 / 4 + 1) * math.sqrt(layer.n_l * layer.n_r)
    found = abs(2 * layer.edges - layer.edges * layer.n_r / layer.dim_out)
    return (random - found) / (layer.dim_in * layer.dim_out)


@_layer("ratio", _VITA)
def layer_expansion_ratio(layer: Spectrum) -> float:
    """n_r / n_l."""
    return layer.n_r / layer.n_l


@layerwise("0 or 1", _HOANG)
def layer_gated(graph: LayeredGraph, block: Block) -> int:
    """1 if the papers leave the layer out: d_l < 3 or d_r < 3, or no edge at all."""
    return int(spectra(graph)[block.name].gated)


# By classes of left units of one degree d: each is regular on its left, as the bound wants it.


@dataclass(frozen=True)
class Classes:
    """gap, relative: means of Delta_r and of Delta_r / bound over the classes that count. count: how many do.

    coverage: share of the left units (isolated ones dropped) in them. gap and relative are NaN where none counts, and
    coverage where there are no left units. proved: whether sigma2 is, in all of them.
    """

    gap: float
    relative: float
    count: int
    coverage: float
    proved: bool = True


def degree_classes(graph: LayeredGraph, block: Block, least_units: int = 3) -> Classes:
    """Iterative mean difference of bound: the mean of Delta_r over the classes of left units of equal degree d.

    A class of at least `least_units` units with all right units, isolated ones dropped, counts if d >= 3 and d_r >= 3
    in it, whatever the mean degrees of the layer are. least_units=1 is the variant of MGE's code, which asks
    for a degree of at least 3 and for no number of units.

    Raises TopoError for a block that is not masked.
    """
    layer = spectrum(graph, block)
    if layer.edges == 0:
        return Classes(math.nan, math.nan, 0, math.nan)
    made = bipartites(graph)[block.name]
    gaps, bounds, covered, proved = [], [], 0, True
    for degree, units, touched in classes(made, least_units):
        d_r = degree * len(units) / touched
        if degree < 3 or d_r < 3:
            continue
        # Units that touch together no more than each of them are alike: rank 1.
        alike = touched == degree and made.values is None
        sigma2, shown = (0.0, True) if alike else second(made.turned.only_right(units), touched)
        proved = proved and shown
        bound = ramanujan(degree, d_r)
        gaps.append(bound - sigma2)
        bounds.append(bound)
        covered += len(units)
    if not gaps:
        return Classes(math.nan, math.nan, 0, 0.0)
    relative = float(np.mean(np.array(gaps) / np.array(bounds)))
    return Classes(float(np.mean(gaps)), relative, len(gaps), covered / layer.n_l, proved)


def classes(made: Bipartite, least_units: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """(degree, left units of that degree, number of right units that they touch), degrees ascending."""
    degrees = made.left_degrees
    sizes = np.bincount(degrees)
    order, starts = np.argsort(degrees, kind="stable"), np.cumsum(sizes) - sizes
    found = np.flatnonzero(sizes >= least_units)
    found = found[found > 0]
    if len(found) == 0:
        return
    every = np.flatnonzero(sizes)
    joined = np.bitwise_or.reduceat(made.turned.words[order], starts[every], axis=0)
    touched = np.bitwise_count(joined).sum(axis=1)[np.searchsorted(every, found)]
    for degree, number in zip(found.tolist(), touched.tolist()):
        yield degree, order[starts[degree] : starts[degree] + sizes[degree]], number


def spectrum(graph: LayeredGraph, block: Block) -> Spectrum:
    """A layer's sides and singular values. Raises TopoError for a block that is not masked."""
    if not block.masked:
        raise TopoError(f"layer '{block.name}' has no mask; spectra are of masked layers")
    return spectra(graph)[block.name]


def _of_classes(graph: LayeredGraph, block: Block, number: float, found: Classes) -> Value:
    """The number, with a note where it is not proved; why there is none where no class counts."""
    if found.count:
        return Value(number, None if found.proved else NOT_PROVED)
    return EMPTY if spectra(graph)[block.name].edges == 0 else NO_CLASS


@layerwise("singular value", _HOANG)
def layer_imdb(graph: LayeredGraph, block: Block) -> float | Value:
    """Mean of Delta_r over the classes of at least 3 left units of one degree, where d >= 3 and d_r >= 3."""
    found = _degree_classes(graph)[block.name]
    return _of_classes(graph, block, found.gap, found)


@layerwise("ratio", _HOANG)
def layer_imdb_relative(graph: LayeredGraph, block: Block) -> float | Value:
    """Mean of Delta_r / bound over the classes of imdb."""
    found = _degree_classes(graph)[block.name]
    return _of_classes(graph, block, found.relative, found)


@layerwise("classes", _HOANG)
def layer_imdb_classes(graph: LayeredGraph, block: Block) -> int:
    """Number of classes that imdb is the mean of."""
    return _degree_classes(graph)[block.name].count


@layerwise("fraction")
def layer_imdb_coverage(graph: LayeredGraph, block: Block) -> float | Value:
    """Share of the left units, isolated ones dropped, in the classes of imdb."""
    coverage = _degree_classes(graph)[block.name].coverage
    return EMPTY if math.isnan(coverage) else coverage
