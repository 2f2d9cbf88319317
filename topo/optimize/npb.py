"""Method npb: Node-Path Balancing as published, layer by layer, with each layer solved exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.graph import Block, build_graph, dense_rows
from topo.graph.arithmetic import Scaled
from topo.graph.paths import Walk
from topo.masks import BitRows, MaskSet
from topo.optimize.layers import solve_layer_npb
from topo.optimize.options import near, requested
from topo.optimize.problem import Balanced, Problem, log10_paths
from topo.optimize.registry import Progress, method
from topo.optimize.regular import deal_rows
from topo.optimize.repair import mend
from topo.wiring import Layer, Wiring

# What the released code gives shortcut convolutions; their kernels have one place, so that it only breaks ties.
_BETA_OF_SHORTCUTS = 0.001


@method(
    source="Pham et al., Towards Data-Agnostic Pruning At Initialization: What Makes a Good Sparse Mask?, NeurIPS 2023"
)
def npb(
    wiring: Wiring,
    *,
    total: int | None = None,
    rng: int | np.random.Generator = 0,
    progress: Progress | None = None,
    budgets: str | Mapping[str, int] = "erk",
    alpha: float = 0.01,
    beta: float = 1.0,
    max_p: int = 9,
    nm: str | None = None,
    block: str | None = None,
    min_fan_in: int = 1,
    dense: str = "",
    flops: str | float | None = None,
    released: bool = False,
    repaired: bool = True,
) -> Balanced:
    """Node-Path Balancing: nodes, paths and filled kernels weighed layer by layer, in closed form instead of by MILP.

    From the inputs on, each layer gets the masks that maximise alpha (nodes) + (1 - alpha) (paths that leave it) + beta
    (kernels not empty), given the number of paths that reach its inputs; then all is repaired to the exact budget.
    budgets: how the total is split; layers keep that split, and where it does not fit, a note says so. max_p: most
    weights of a kernel (raised where the budget needs more, and never more than the kernel holds); first layers and
    shortcuts are free of it. As published, beta is 0 in linear layers. Paths are counted in the channel view; the
    released code counts pixels. nm, block, min_fan_in, dense, flops:
    constraints, see `topo.optimize.Problem`.

    released: the layer problem as the released code poses it, see `solve_layer_npb`. repaired: False leaves the layers
    as they are solved, parameters on no path included, and then a layer may keep less than its budget.

    A large node count does not mean accuracy: at equal sparsity more nodes went with a larger error in our experiments
    (see method `balance`), and one-unit peripheries collect nodes at no use. It is here for comparison.
    """
    if not 0 <= alpha <= 1:
        raise TopoError(f"alpha is {alpha}; it is the share of nodes against paths, from 0 to 1")
    if not beta >= 0:
        raise TopoError(f"beta is {beta}; it is the weight of kernels, 0 or more")
    draws = as_rng(rng)

    def attempt(total: int | None) -> Balanced:
        problem, restore = requested(
            wiring, total, budgets, nm=nm, block=block, min_fan_in=min_fan_in, dense=dense, flops=flops,
            terms={"nodes": alpha, "paths": 1 - alpha, "kernels": beta},
        )  # fmt: skip
        rule = budgets if isinstance(budgets, str) else "water"
        return restore(
            solve_node_path(
                problem, draws, rule=rule, max_p=max_p, released=released, repaired=repaired, progress=progress
            )
        )

    return near(attempt, total) if isinstance(budgets, str) else attempt(total)


def solve_node_path(
    problem: Problem,
    rng: np.random.Generator,
    *,
    rule: str = "erk",
    max_p: int = 9,
    released: bool = False,
    repaired: bool = True,
    progress: Progress | None = None,
) -> Balanced:
    """Layers solved one after the other for the problem's terms nodes, paths and kernels; see `npb`."""
    terms = {name: problem.terms.get(name, 0.0) for name in ("nodes", "paths", "kernels")}
    whole = terms["nodes"] + terms["paths"]
    if whole <= 0:
        raise TopoError("one of the terms nodes and paths has a positive weight")
    alpha, beta = terms["nodes"] / whole, terms["kernels"] / whole
    split = problem.split(rule)
    masks: dict[str, BitRows] = {}
    first = problem.names[0]
    dense = MaskSet({first: dense_rows(problem.layer(first).shape)})
    walk = Walk(build_graph(dense, problem.wiring), Scaled).start()
    for index, step in enumerate(walk.steps):
        if isinstance(step, Block) and step.name in split:
            layer = step.use
            if layer.name not in masks:
                if progress is not None:
                    progress(len(masks), len(split), layer.name)
                paths = walk.gather(layer.reads).mantissa
                masks[layer.name] = _layer(problem, index, paths, split[layer.name], alpha, beta, max_p, released, rng)
            step = Block(layer.name, masks[layer.name], layer=layer)
        walk.advance(index, step)
    solved = MaskSet({name: masks[name] for name in problem.names})
    if not repaired:
        return Balanced(solved, problem, (("solved", log10_paths(solved, problem.wiring)),))
    mended, trace, notes = mend(solved, problem, rng, split=split)
    return Balanced(mended, problem, tuple(trace), notes)


def _layer(
    problem: Problem,
    index: int,
    paths: np.ndarray,
    budget: int,
    alpha: float,
    beta: float,
    max_p: int,
    released: bool,
    rng: np.random.Generator,
) -> BitRows:
    """The optimal rows of the layer at step `index`, dealt at random."""
    wiring, shortcut = problem.wiring, index in problem.wiring.shortcuts
    layer = wiring.steps[index]
    assert isinstance(layer, Layer)
    pattern = problem.pattern(layer.name)
    most = max(min(max_p, layer.kernel_size), math.ceil(budget / (layer.outputs * layer.shape[1])))
    rows = solve_layer_npb(
        paths,
        layer.outputs,
        layer.kernel_size if shortcut or np.isin(layer.reads, wiring.inputs).all() else most,
        budget,
        alpha=alpha,
        beta=_BETA_OF_SHORTCUTS if shortcut else 0.0 if layer.kind == "linear" else beta,
        groups=layer.groups,
        n_m=pattern,
        min_fan_in=problem.fan_in(layer.name),
        released=released,
        rng=None if released else rng,
    )
    return deal_rows(layer, rows.units, rows.open_, pattern, rng)
