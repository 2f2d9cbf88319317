"""Method dpai: the node-path objective climbed by gradients of scores, as a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.graph import Block, WiredGraph, build_graph, paths
from topo.masks import BitRows, MaskSet
from topo.optimize.problem import Balanced, Problem
from topo.optimize.registry import Progress, method
from topo.optimize.repair import mend
from topo.wiring import Wiring


@method(source="DPaI: Differentiable Pruning at Initialization with Node-Path Balance Principle, ICLR 2025")
def dpai(
    wiring: Wiring,
    *,
    total: int | None = None,
    rng: int | np.random.Generator = 0,
    progress: Progress | None = None,
    budgets: str | Mapping[str, int] = "erk",
    alpha: float = 0.99,
    beta: float = 0.5,
    lr: float = 0.1,
    steps: int = 500,
    repaired: bool = False,
) -> Balanced:
    """Differentiable pruning at initialization: log paths climbed by Adam on scores, with a push for dead nodes.

    Every weight has a score s ~ N(0, 1); a layer's mask is its largest |s|. The gradient of log P with respect to an
    entry of a mask is F_i B_j / P, so that two walks over the graph replace automatic differentiation. Straight
    through, s goes uphill along
        (1 - alpha) g + alpha [(1 - beta) g at nodes on no path + beta g at empty kernels],   g = F_i B_j / P.
    alpha, beta as in the authors' scripts (which take lr 0.005 and 3000 steps; their code's defaults stand here).
    The released code divides what a convolution reads by its maximum, and not what goes around it by a skip; counts
    here carry one power of two for each tensor, and branches are brought to the same before they are added.

    Adam moves all scores alike while their slopes stand still: it takes dead nodes or empty kernels to set things off,
    and small networks where everything is alive stay as they are drawn. Layers keep exactly their budgets; not every
    parameter is effective unless `repaired`. A baseline: masks of method `balance` have as many nodes and paths in a
    thousandth of the time.
    """
    if not (0 <= alpha <= 1 and 0 <= beta <= 1 and steps >= 1 and lr > 0):
        raise TopoError(f"alpha {alpha} and beta {beta} are from 0 to 1, steps {steps} at least 1, lr {lr} positive")
    fixed = isinstance(budgets, Mapping)
    problem = Problem(wiring, total=None if fixed else total, budgets=budgets if fixed else None)  # type: ignore[arg-type]
    split = problem.split("erk" if fixed else budgets)  # type: ignore[arg-type]
    draw = as_rng(rng)
    layers = [_Scores(problem, name, split[name], draw) for name in problem.names]
    trace = []
    for step in range(1, steps + 1):
        graph = build_graph(MaskSet({layer.name: layer.mask() for layer in layers}), wiring)
        if progress is not None:
            progress(step - 1, steps, "step")
        walk = paths.counts(graph)
        log_paths = paths.log10(walk.forward_total())
        if step == 1 or step % max(1, steps // 20) == 0:
            trace.append((f"step {step}", log_paths))
        slopes = _slopes(graph, problem, (alpha, beta))
        for layer in layers:
            layer.climb(slopes[layer.name], lr, step)
    masks = MaskSet({layer.name: layer.mask() for layer in layers})
    notes: tuple[str, ...] = ()
    if repaired:
        masks, mended, notes = mend(masks, problem, draw, split=split)
        trace += mended
    return Balanced(masks, problem, tuple(trace), notes)


class _Scores:
    """Scores of one layer, (kernels, kernel_size), with the two moments of Adam."""

    def __init__(self, problem: Problem, name: str, budget: int, rng: np.random.Generator) -> None:
        layer = problem.layer(name)
        self.name, self.shape, self.budget = name, layer.shape, budget
        self.scores = rng.standard_normal((layer.size // layer.kernel_size, layer.kernel_size), np.float32)
        self.mean, self.square = np.zeros_like(self.scores), np.zeros_like(self.scores)

    def mask(self) -> BitRows:
        """The `budget` largest |s|."""
        size = self.scores.size
        kept = np.zeros(size, bool)
        kept[np.argpartition(np.abs(self.scores).reshape(-1), size - self.budget)[size - self.budget :]] = True
        return BitRows.of_mask(kept.reshape(self.shape), self.name)

    def climb(self, slopes: np.ndarray, rate: float, step: int) -> None:
        from topo.kernels.scores import ascend

        ascend(self.scores, self.mean, self.square, np.ascontiguousarray(slopes.reshape(-1)), rate, step)


def _slopes(graph: WiredGraph, problem: Problem, weights: tuple[float, float]) -> dict[str, np.ndarray]:
    """Layer -> the direction for each kernel, float64 (out, in / groups)."""
    alpha, beta = weights
    walk, effective = paths.counts(graph), paths.live(graph).effective
    mantissa, exponent = walk.forward_total()
    found: dict[str, np.ndarray] = {}
    for index, step in enumerate(graph.steps):
        if not isinstance(step, Block) or step.name not in problem.names:
            continue
        layer = step.use
        ahead, behind = walk.read[index], walk.backward[index + 1]
        rows, columns = layer.shape[:2]
        f = ahead.mantissa.reshape(layer.groups, columns).repeat(rows // layer.groups, axis=0)
        # Without any path P has no logarithm; the layer's largest product takes its place.
        shift = ahead.exponent + behind.exponent - exponent if mantissa else 0
        g = np.ldexp(f * behind.mantissa[:, None] / (mantissa or 1.0), int(np.clip(shift, -1000, 1000)))
        alive = effective[layer.reads].reshape(layer.groups, columns).repeat(rows // layer.groups, axis=0)
        dead = ~(alive & effective[layer.start : layer.stop][:, None])
        empty = _empty(step)
        weight = (1 - alpha) + alpha * ((1 - beta) * dead + beta * empty)
        found[step.name] = found.get(step.name, 0.0) + np.where(np.isfinite(g), g, 0.0) * weight
    return found


def _empty(step: Block) -> np.ndarray:
    """bool (out, in / groups): kernels without a kept weight."""
    held = step.rows.unpack().reshape(*step.shape[:2], math.prod(step.shape[2:]))
    return np.asarray(~held.any(axis=2))
