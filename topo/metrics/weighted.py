"""WEIGHTED: sums over the paths of the masked network of products of its weights.

Notation: theta o m the kept weights, pi_p the product of those on path p. All numbers here are sums of positive terms
over the paths that `effective_paths` counts, with its rules: a kernel's positions add, an add sums its branches, paths
follow the value branch of a gate that is open, biases and normalisation are left out, an embedding without a mask is
where paths start. With weights of 1 the sum over the paths is their number. A parameter that is used twice stands on a
path once for each use. In the unit view, too, every weight of a kernel counts.

The channel graph has no pixels: an input of ones is one number a channel, and no sum runs over positions. Trained
networks leave float64 both ways (1e30 for a ResNet, far beyond for deep chains): everything is computed with an
exponent for each unit, and `log10_` says what the plain number cannot. Undefined, with the reason, where weights are
lacking, also those of a layer without a mask, and where a weight is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from topo.graph import Block, WiredGraph, laid_out, paths
from topo.graph.floating import Floating, bands
from topo.graph.memo import shared
from topo.metrics import metric
from topo.metrics.paths import log10_effective_paths
from topo.report import Value

_GONON = "Gonon et al., A path-norm toolkit for modern networks, ICLR 2024"
_GEBHART = "Gebhart et al., A Unified Paths Perspective for Pruning at Initialization, arXiv 2101.10552"
_TANAKA = "Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, 2020"
_SLAB = 1 << 22  # weights that are turned into float64 at a time

Total = tuple[float, int]  # mantissa, exponent


@dataclass(frozen=True, eq=False)
class Powers:
    """The edges of one use of a layer, in the channel graph, each weighing the sum of |w|**power of its kept weights.

    power 0 counts the kept weights, those that are 0 too. weights: of the block's shape; not looked at for power 0.
    """

    block: Block
    weights: np.ndarray
    power: int
    bound = 0  # of multiplicities, which the exact integers ask for

    @property
    def reads(self) -> np.ndarray:
        """int32 (in,): the unit behind each input channel."""
        return self.block.reads

    def _slabs(self) -> Iterator[tuple[slice, slice, np.ndarray, int]]:
        """(rows, columns, matrix, exponent): pieces, matrix (groups, rows, columns) * 2**exponent, that add up."""
        block, kept = self.block, self.block.rows.unpack()
        rows, columns = block.shape[0] // block.groups, block.shape[1]
        # Some groups whole, or some rows of the only one.
        step = max(1, _SLAB // block.rows.columns) if block.groups == 1 else rows * max(1, _SLAB // kept[:rows].size)
        for first in range(0, block.shape[0], step):
            across = slice(first, min(first + step, block.shape[0]))
            groups = slice(first // rows, -(-across.stop // rows))
            along = slice(groups.start * columns, groups.stop * columns)
            here = kept[across].reshape(groups.stop - groups.start, -1, columns, block.kernel_size)
            if self.power == 0:
                yield across, along, here.sum(axis=3, dtype=np.float64), 0
                continue
            size = np.abs(self.weights[across].astype(np.float64)).reshape(here.shape)
            for band, exponent in bands(np.where(here, size, 0.0)):
                yield across, along, (band**self.power).sum(axis=3), self.power * exponent

    def pull(self, x: Floating) -> Floating:
        """y_j = sum_i w_ij x_i: (in,) -> (out,)."""
        return self._through(x, forwards=True)

    def push(self, b: Floating) -> Floating:
        """z_i = sum_j w_ij b_j: (out,) -> (in,)."""
        return self._through(b, forwards=False)

    def _through(self, x: Floating, forwards: bool) -> Floating:
        size = self.block.shape[0] if forwards else len(self.reads)
        total = Floating.zeros(size)
        for across, along, matrix, exponent in self._slabs():
            given, taken = (along, across) if forwards else (across, along)
            for values, scale in x.take(given).bands():
                # Not BLAS: its sums depend on the number of threads.
                sums = np.einsum("goi,gi->go" if forwards else "goi,go->gi", matrix, values.reshape(len(matrix), -1))
                total = total.plus(Floating(sums.ravel(), scale + exponent).spread(taken, size))
        return total


@dataclass(frozen=True, eq=False)
class _Weighted(Block):
    """A block whose edges carry powers of its weights."""

    powers: Powers | None = None

    @cached_property
    def edges(self) -> Any:
        return self.powers


def _walk(graph: WiredGraph, power: int) -> paths.Walk:
    """A walk that sums prod |w|**power over paths; gates open as the masks say."""
    assert graph.weights is not None
    steps = []
    for step in graph.steps:
        if isinstance(step, Block) and not step.source:
            same = {field.name: getattr(step, field.name) for field in fields(step)}
            step = _Weighted(**same, powers=Powers(step, laid_out(graph.weights[step.name], step.use), power))
        steps.append(step)
    return paths.Walk(replace(graph, steps=tuple(steps), memo={}), Floating, alive=paths.live(graph).forward)


@shared
def why_no_weights(graph: WiredGraph) -> str | None:
    """Why sums over weighted paths are undefined; None where they are defined."""
    if graph.weights is None:
        return "needs weights"
    blocks = [block for block in graph.blocks if not block.source]
    lacking = [block.name for block in blocks if block.name not in graph.weights]
    if lacking:
        return f"needs the weights of every layer: there are none of {', '.join(lacking)}"
    wild = [block.name for block in blocks if not np.isfinite(graph.weights[block.name]).all()]
    return f"weights that are not all finite numbers: {', '.join(wild)}" if wild else None


@shared
def _flow(graph: WiredGraph) -> Total:
    """1^T prod |theta o m| 1."""
    return _walk(graph, 1).go_forward().forward_total()


@shared
def _trace(graph: WiredGraph) -> Total:
    """sum over e of F_i B_j, F and B the sums of prod theta**2 ahead of edge e = (i, j) and behind it."""
    walk = _walk(graph, 2).go_forward().go_backward()
    total = Floating.zeros(1)
    for index, read in walk.read.items():
        step = walk.steps[index]
        assert isinstance(step, Block)
        mantissa, exponent = Powers(step, np.empty(0), 0).pull(read).dot(walk.backward[index + 1])
        total = total.plus(Floating(np.array([mantissa]), exponent))
    return total.total()


def _plain(graph: WiredGraph, function: Callable[[WiredGraph], Total], name: str) -> Value:
    """The number itself, where float64 holds it with all its digits."""
    why = why_no_weights(graph)
    if why:
        return Value(math.nan, why)
    mantissa, exponent = function(graph)
    if mantissa and not -1021 <= exponent <= 1024:
        found = paths.log10((mantissa, exponent))
        return Value(math.nan, f"10**{found:.6g} is beyond the range of float64: see log10_{name}")
    return Value(math.ldexp(mantissa, exponent), None)


def _logarithm(graph: WiredGraph, function: Callable[[WiredGraph], Total]) -> Value:
    """log10, -inf of 0 with the reason."""
    why = why_no_weights(graph)
    if why:
        return Value(math.nan, why)
    total = function(graph)
    if total[0]:
        return Value(paths.log10(total), None)
    return Value(-math.inf, log10_effective_paths(graph).note or "every path crosses weights of 0")


def _network(unit: str, source: str):
    return metric(group="weighted", scope="network", unit=unit, source=source, wired=True, weighted=True)


@_network("norm", _GONON)
def path_norm(graph: WiredGraph) -> Value:
    """L1 path norm: sum over paths of prod |w|, one pass of |w| on ones. Keeps its value if units are rescaled.

    The paper's paths start at biases too, and its networks hold normalisation as weights; those are left out here.
    """
    return _plain(graph, _flow, "path_norm")


@_network("log10 norm", _GONON)
def log10_path_norm(graph: WiredGraph) -> Value:
    """log10 of path_norm, on any depth; -inf where no path carries weight."""
    return _logarithm(graph, _flow)


@_network("trace", _GEBHART)
def path_kernel_trace(graph: WiredGraph) -> Value:
    """Trace of the path kernel: sum over kept weights e and paths p through e of (pi_p / theta_e)**2.

    It is the sum of dR2 / d(theta_e**2), R2 = sum over paths of prod theta**2: one pass forwards, one backwards. A kept
    weight of 0 has a derivative too. Rescaling units changes it.
    """
    return _plain(graph, _trace, "path_kernel_trace")


@_network("log10 trace", _GEBHART)
def log10_path_kernel_trace(graph: WiredGraph) -> Value:
    """log10 of path_kernel_trace, on any depth; -inf where it is 0."""
    return _logarithm(graph, _trace)


@_network("flow", _TANAKA)
def synflow_flow(graph: WiredGraph) -> Value:
    """R = 1^T prod |theta o m| 1, what SynFlow conserves: on this graph the same number as path_norm.

    On a model they differ: SynFlow sums the outputs for an input of ones of the images' size, so that every pixel,
    padding and pool weighs in, with the model's biases and norms in absolute values. This graph has none of these, and
    is what SynFlow's R is of linear layers without biases and of 1 x 1 images.
    """
    return _plain(graph, _flow, "synflow_flow")


@_network("log10 flow", _TANAKA)
def log10_synflow_flow(graph: WiredGraph) -> Value:
    """log10 of synflow_flow, on any depth; -inf where no path carries weight."""
    return _logarithm(graph, _flow)
