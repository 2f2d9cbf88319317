"""Repair: any mask made into one with an exact budget in which every parameter lies on a path."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from topo._support.seeds import as_rng
from topo.errors import NotFound
from topo.graph import build_graph, paths
from topo.masks import MaskSet
from topo.optimize.moves import Round
from topo.optimize.problem import Problem
from topo.optimize.wake_units import open_path, sprout
from topo.wiring import Wiring

ROUNDS = 100


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
    return mend(masks, problem, budgets, as_rng(rng))[0]


def mend(
    masks: MaskSet, problem: Problem, budgets: Mapping[str, int] | None, rng: np.random.Generator
) -> tuple[MaskSet, list[tuple[str, float]]]:
    """`repair` for a problem; (masks, trace). budgets: of each layer, if they are to be kept."""
    trace: list[tuple[str, float]] = []
    total = sum(budgets.values()) if budgets is not None else problem.total
    assert total is not None
    if budgets is None:
        shares = [(problem.names, total)]
    else:
        shares = [((name,), budgets[name]) for name in problem.names]
    for turn in range(ROUNDS):
        graph = build_graph(masks, problem.wiring)
        trace.append(("given" if turn == 0 else f"repair {turn}", paths.log10(paths.counts(graph).forward_total())))
        work = Round(problem, graph, rng)
        if trace[-1][1] == -math.inf:
            open_path(work)
        elif not work.drop_useless():
            work.cover()
            missing = [(names, units - sum(work.kept(name) for name in names)) for names, units in shares]
            stuck = [share for share in missing if not work.fit(*share)]
            if not work.changed and not stuck:
                return masks, trace
            if stuck and not work.changed and not sprout(work, missing):
                names, units = stuck[0]
                what = f"'{names[0]}'" if len(names) == 1 else "the network"
                raise not_found(
                    problem,
                    f"{units} {'parameters' if problem.whole_problem is None else 'blocks'} find no place, as all of "
                    f"{what} is full or closed by a constraint" + _leading_nowhere(problem, names),
                )
        masks = work.masks()
    raise not_found(problem, f"{ROUNDS} rounds of repair did not end")


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
