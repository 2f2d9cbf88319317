"""Repair: any mask made into one with an exact budget in which every parameter lies on a path."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import NotFound
from topo.graph import build_graph, dense_rows, paths
from topo.masks import BitRows, MaskSet
from topo.n_m import kept_in_groups
from topo.optimize.moves import Round
from topo.optimize.problem import Problem
from topo.optimize.wake_units import Share, open_path, sprout
from topo.wiring import Wiring

ROUNDS = 100
# Rounds in which every layer is held to its own budget: where all fit, 1 to 6 were needed. Then, in which what finds no
# place in its layer goes elsewhere. At last the network is filled as one.
_HELD, _LOOSE = 12, 60


def repair(
    masks: MaskSet,
    wiring: Wiring,
    *,
    total: int | None = None,
    budgets: Mapping[str, int] | None = None,
    rng: int | np.random.Generator = 0,
    **constraints: object,
) -> MaskSet:
    """Masks with exactly as many parameters as asked, all of them effective, as near to the given ones as greed goes.

    Parameters that lie on no path are given up, and as many are put where they carry most paths: a unit more between
    input i and output j adds exactly F_i B_j, and what is free in it, the kernel position, is drawn at random. Where
    all kernels between live units are full, dead units are woken, with an input and an output each. A mask that keeps
    too much loses what carries least. A network without any path gets one first.

    total: parameters in all, by default those of `masks`; budgets: of each layer. constraints: those of `Problem`
    (n_m, min_fan_in, dense, flops). Same seed, same masks.

    Raises NotFound, a TopoError, if no such masks are found, which is not a proof that there are none.
    """
    if total is None and budgets is None:
        total = masks.kept
    problem = Problem(wiring, total=total, budgets=budgets, **constraints)  # type: ignore[arg-type]
    return mend(masks, problem, as_rng(rng))[0]


def mend(
    masks: MaskSet,
    problem: Problem,
    rng: np.random.Generator,
    *,
    split: Mapping[str, int] | None = None,
    gentle: bool = False,
    given: Collection[str] = (),
) -> tuple[MaskSet, list[tuple[str, float]], tuple[str, ...]]:
    """`repair` for a problem; (masks, trace, notes).

    The problem's own budgets are kept, or there are no masks. split: what each layer should keep, by a rule. Layers
    keep it as long as that works, and where some layer cannot, units go to the others, and a note names the layers.
    gentle: as in `Round`. given: dense layers that are what they are, and may hold parameters on no path.

    Raises NotFound where the search ends without masks, or with masks that break what was asked.
    """
    masks = _as_constrained(masks, problem, rng)
    trace: list[tuple[str, float]] = []
    held = problem.budgets if problem.budgets is not None else split
    whole = (problem.names, problem.count)
    each: list[Share] = [] if held is None else [((name,), held[name]) for name in problem.names]
    last = ROUNDS if problem.budgets is not None else _HELD if each else 0  # round in which each layer is held
    for turn in range(ROUNDS):
        graph = build_graph(masks, problem.wiring)
        trace.append(("given" if turn == 0 else f"repair {turn}", paths.log10(paths.counts(graph).forward_total())))
        work = Round(problem, graph, rng, gentle)
        if trace[-1][1] == -math.inf:
            open_path(work)
        elif not work.drop_useless():
            try:
                if turn >= last and turn < _LOOSE:
                    _spread(work, each, whole[1])
                if _fitted(work, each if turn < last else [whole]):
                    if (why := _broken(problem, masks, given)) is not None:
                        raise not_found(problem, why)
                    return masks, trace, _moved(masks, held)
            except NotFound:
                if turn >= last or problem.budgets is not None:
                    raise
                last = turn  # nothing is kept of what this round did
                continue
        masks = work.masks()
    raise not_found(problem, f"{ROUNDS} rounds of repair did not end")


def _as_constrained(masks: MaskSet, problem: Problem, rng: np.random.Generator) -> MaskSet:
    """Dense layers whole, and of each group of a pattern N:M at most N: those on a path first, then at random."""
    rows = {name: dense_rows(masks.shapes[name]) if name in problem.whole else masks.rows(name) for name in masks}
    over = [name for name in rows if name in problem.names and _over(problem, name, rows[name])]
    if over:
        words = paths.effective_words(build_graph(masks, problem.wiring))
        for name in over:
            (n, m), shape = problem.n_m or (1, 1), masks.shapes[name]
            mask = rows[name].unpack().reshape(shape[0], shape[1], -1).copy()
            rank = mask * (1 + rng.random(mask.shape) + BitRows(mask.shape, words[name]).unpack())
            for start in range(0, shape[1], m):
                group = rank[:, start : start + m]
                if group.shape[1] > n:
                    least = np.partition(group, -n, axis=1)[:, -n]
                    mask[:, start : start + m] &= group >= least[:, None]
            rows[name] = BitRows.of_mask(mask.reshape(shape))
    return MaskSet(rows)


def _over(problem: Problem, name: str, rows: BitRows) -> bool:
    """Whether these rows keep more than the N of N:M somewhere."""
    pattern = problem.pattern(name)
    return pattern is not None and any(int(held.max()) > pattern[0] for _, held in kept_in_groups(rows, pattern[1]))


def _fitted(work: Round, shares: list[Share]) -> bool:
    """Units added or taken until shares hold what they should; whether nothing was left to do.

    Raises NotFound where nothing can be done.
    """
    work.cover()
    missing = [(names, units - sum(work.kept(name) for name in names)) for names, units in shares]
    stuck = [share for share in missing if not work.fit(*share)]
    if stuck and not work.changed and not sprout(work, missing):
        names, units = stuck[0]
        what = f"'{names[0]}'" if len(names) == 1 else "the network"
        raise not_found(
            work.problem,
            f"{units} {'parameters' if work.problem.whole_problem is None else 'blocks'} find no place, as all of "
            f"{what} is full or closed by a constraint" + _leading_nowhere(work.problem, names),
        )
    return not work.changed and not stuck


def _spread(work: Round, each: list[Share], total: int) -> None:
    """Layers filled up to their shares as far as that goes, and what the others have too much given up."""
    for names, units in each:
        if (missing := units - work.kept(names[0])) > 0:
            work.fit(names, missing)
    over = tuple(name for (name,), units in each if work.kept(name) > units)
    if over and (missing := total - sum(work.kept(name) for (name,), _ in each)) < 0:
        with suppress(NotFound):  # constraints may hold what these layers have too much
            work.fit(over, missing)


def _broken(problem: Problem, masks: MaskSet, given: Collection[str]) -> str | None:
    """What these masks break of what a problem asks, in words; None if they keep all of it."""
    kept = {name: masks.rows(name).kept() for name in problem.names}
    if sum(kept.values()) != problem.count:
        return f"the nearest keep {problem.told(sum(kept.values()))}"
    for name, wanted in (problem.budgets or {}).items():
        if kept[name] != wanted:
            return f"the nearest keep {kept[name]:,} of '{name}', not {wanted:,}"
    for name in problem.names:
        rows, least = masks.rows(name), problem.fan_in(name)
        if name in problem.whole and kept[name] < problem.layer(name).size:
            return f"the nearest keep {kept[name]:,} of '{name}', which is dense"
        fan_in = np.bitwise_count(rows.words).sum(axis=1, dtype=np.int64)
        if ((fan_in > 0) & (fan_in < least)).any():
            return f"the nearest have units of '{name}' with {fan_in[fan_in > 0].min()} weights"
        if _over(problem, name, rows):
            return f"the nearest break the pattern in '{name}'"
    spent = sum(problem.costs[name] * kept[name] for name in kept) if problem.macs is not None else 0
    if problem.macs is not None and spent > problem.macs * (1 + 1e-12):
        return f"the nearest take {2 * spent:,} FLOPs, and the limit is {2 * problem.macs:,.0f}"
    words = paths.effective_words(build_graph(masks, problem.wiring))
    for name in problem.names:
        useful = int(np.bitwise_count(words[name]).sum(dtype=np.int64))
        if name not in given and useful < kept[name]:
            return f"{kept[name] - useful:,} of the {kept[name]:,} parameters of '{name}' stay on no path"
    return None


def _moved(masks: MaskSet, split: Mapping[str, int] | None) -> tuple[str, ...]:
    """A note where layers keep other counts than a split says."""
    kept = {name: masks.rows(name).kept() for name in split or ()}
    wanted = dict(split or {})
    off = [f"'{name}' {count:,} instead of {wanted[name]:,}" for name, count in kept.items() if count != wanted[name]]
    if not off:
        return ()
    told = ", ".join(off[:6]) + (f" and {len(off) - 6} more" if len(off) > 6 else "")
    return (f"layers whose budgets do not fit keep others: {told}",)


def not_found(problem: Problem, why: str) -> NotFound:
    """The error of a search for masks of a problem, in the numbers that were asked for."""
    requested = f"no masks of {problem.told()} in which every parameter is effective were found"
    return NotFound(f"{requested}: {why}; other masks may exist")


def _leading_nowhere(problem: Problem, names: tuple[str, ...]) -> str:
    """Of these layers, those with parameters that lie on no path even if every one is kept, for an error."""
    name = problem.names[0]
    dense = build_graph(MaskSet({name: np.ones(problem.layer(name).shape, bool)}), problem.wiring)
    words = paths.effective_words(dense)
    lost = {name: problem.layer(name).size - int(np.bitwise_count(words[name]).sum()) for name in names}
    told = ", ".join(f"{count:,} of '{name}'" for name, count in lost.items() if count)
    return f"; on no path of this wiring lie {told}" if told else ""
