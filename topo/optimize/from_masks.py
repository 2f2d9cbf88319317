"""Method repair: the masks of any pruner with an exact budget and every parameter effective, by few changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.graph import Block, build_graph, dense_rows, paths
from topo.masks import MaskSet
from topo.n_m import parse_n_m
from topo.optimize.moves import Cells, Round
from topo.optimize.options import flops_limit
from topo.optimize.problem import Balanced, Problem, as_names, prunable
from topo.optimize.registry import Progress, method
from topo.optimize.repair import mend
from topo.optimize.wake_units import Ways
from topo.wiring import Layer, Wiring

# Rounds in which dead ends are joined; each joins all that pay.
_ROUNDS = 20


@method(source="topo.optimize.repair", name="repair", starts=True)
def repair_masks(
    wiring: Wiring,
    *,
    source: MaskSet,
    total: int | None = None,
    rng: int | np.random.Generator = 0,
    progress: Progress | None = None,
    budgets: str | Mapping[str, int] = "source",
    nm: str | None = None,
    min_fan_in: int = 1,
    dense: str = "",
    flops: str | float | None = None,
) -> Balanced:
    """Any mask, of any pruner, with an exact budget and every parameter on a path, by as few changes as greed finds.

    A unit that only lacks a way on, or a way in, is joined where that takes fewer new parameters than it makes
    effective; other parameters on no path are given up. What is missing goes where it carries most paths; where there
    is too much, what carries least goes, from units that keep others. The note and the provenance count the changes.
    Layers that the masks do not name are whole and stay so. budgets: "source" lets layers keep what they have as far as
    that goes, a mapping says what each keeps. nm, min_fan_in, dense, flops: constraints, see `topo.optimize.Problem`.
    """
    if isinstance(budgets, str) and budgets != "source":
        raise TopoError(f"budgets is '{budgets}'; repair takes numbers of each layer, or 'source'")
    wiring.check(source)
    names = prunable(wiring)
    left = [name for name in names if name not in source]
    whole = MaskSet({name: source.rows(name) if name in source else dense_rows(wiring.shapes[name]) for name in names})
    others = {name: source.rows(name) for name in source if name not in names}
    given = MaskSet({**{name: whole.rows(name) for name in names}, **others})
    fixed = None if isinstance(budgets, str) else {**budgets, **{name: wiring.layer(name).size for name in left}}
    wanted = None
    if fixed is None:
        held = sum(wiring.layer(name).size for name in left)
        apart = sum(rows.kept() for rows in others.values())
        wanted = (source.kept if total is None else total) - apart + held
    problem = Problem(
        wiring,
        total=wanted,
        budgets=fixed,
        n_m=parse_n_m(nm) if nm else None,
        min_fan_in=min_fan_in,
        dense=(*as_names(dense), *left),
        flops=flops_limit(flops, wiring, wanted or sum((fixed or {}).values())),
    )
    draws = as_rng(rng)
    effective = paths.effective_words(build_graph(given, wiring))
    useless = given.kept - sum(int(np.bitwise_count(words).sum(dtype=np.int64)) for words in effective.values())
    joined = given if nm else _joined(given, problem, draws)
    mended, trace, notes = mend(joined, problem, draws, gentle=True, given=left)
    kept = MaskSet({name: mended.rows(name) for name in source})
    added, removed = _changes(source, kept)
    said = f"{added:,} parameters added and {removed:,} removed; {useless:,} of the given ones were on no path"
    return Balanced(kept, problem, tuple(trace), (said, *notes))


def _changes(before: MaskSet, after: MaskSet) -> tuple[int, int]:
    """(parameters put into masks, parameters taken out)."""
    added = removed = 0
    for name in before:
        old, new = before.rows(name).words, after.rows(name).words
        added += int(np.bitwise_count(new & ~old).sum(dtype=np.int64))
        removed += int(np.bitwise_count(old & ~new).sum(dtype=np.int64))
    return added, removed


def _joined(masks: MaskSet, problem: Problem, rng: np.random.Generator) -> MaskSet:
    """Units that parameters reach, or that reach on, but not both, joined where that pays.

    Dropping c parameters on no path and putting c elsewhere is 2 c changes; r new ones that save them cost r, and r
    others that go for them. Where the budget takes parameters away in any case, those on no path go first.
    """
    for _ in range(_ROUNDS):
        work = Round(problem, build_graph(masks, problem.wiring), rng)
        gains = _gains(work)
        useless = _useless(work)
        kept = sum(work.kept(name) for name in problem.names)
        ways, joined = Ways(work), False
        for unit in np.argsort(-gains, kind="stable")[: int((gains > 1).sum())].tolist():
            if useless <= kept - problem.count:
                break
            if not np.isfinite(ways.ahead[unit] + ways.behind[unit]):
                continue
            kernels = ways.through(unit)
            if not 0 < len(kernels) < gains[unit]:
                continue
            for name, source, target, _ in kernels:
                kept += work.add([Cells(name, np.array([source]), np.array([target]), np.zeros(1))])
            useless -= int(gains[unit])
            joined = True
        if not joined:
            return masks
        masks = work.masks()
    return masks


def _useless(work: Round) -> int:
    words = paths.effective_words(work.graph)
    return sum(work.kept(name) - int(np.bitwise_count(words[name]).sum(dtype=np.int64)) for name in work.problem.names)


def _gains(work: Round) -> np.ndarray:
    """int64 (units + 2,): parameters that one way through a dead unit would make effective, if it alone is missing."""
    live, wiring = work.live, work.problem.wiring
    gains = np.zeros(wiring.n_units + 2, np.int64)
    for step in work.graph.steps:
        if not isinstance(step, Block) or not isinstance(step.layer, Layer):
            continue
        layer = step.layer
        counts = step.rows.unpack().reshape(layer.groups, -1, layer.shape[1], layer.kernel_size).sum(axis=3)
        ahead = live.forward[layer.reads].reshape(layer.groups, 1, -1)
        behind = live.backward[layer.start : layer.stop].reshape(layer.groups, -1, 1)
        into, out = (counts * ahead).sum(axis=2).reshape(-1), (counts * behind).sum(axis=1).reshape(-1)
        made = slice(layer.start, layer.stop)
        gains[made] += np.where(live.forward[made] & ~live.backward[made], into, 0)
        np.add.at(gains, layer.reads, np.where(live.backward[layer.reads] & ~live.forward[layer.reads], out, 0))
    gains[-2:] = 0
    return gains
