"""Options that all methods share, read into a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from topo.errors import NotFound, TopoError
from topo.n_m import parse_n_m
from topo.optimize.problem import Balanced, Problem, as_names, rule_flops
from topo.optimize.quotient import quotient
from topo.quotas import quotas
from topo.wiring import Wiring


def requested(
    wiring: Wiring,
    total: int | None,
    budgets: str | Mapping[str, int],
    *,
    nm: str | tuple[int, int] | None = None,
    block: str | int | None = None,
    min_fan_in: int | Mapping[str, int] = 1,
    dense: str | tuple[str, ...] = (),
    flops: str | float | None = None,
    terms: Mapping[str, float] | None = None,
) -> tuple[Problem, Callable[[Balanced], Balanced]]:
    """(the problem to solve, what makes its solution one of the network that was asked about).

    They differ only under a block constraint, which is solved on the network of blocks (see `quotient`).
    """
    limit = flops_limit(flops, wiring, total if isinstance(budgets, str) else sum(budgets.values()))
    problem = Problem(
        wiring,
        total=None if isinstance(budgets, Mapping) else total,
        budgets=budgets if isinstance(budgets, Mapping) else None,
        n_m=parse_n_m(nm) if isinstance(nm, str) else nm,
        min_fan_in=min_fan_in,
        dense=as_names(dense),
        flops=limit,
        **({} if terms is None else {"terms": terms}),  # type: ignore[arg-type]
    )
    if block is None:
        return problem, lambda found: found
    return quotient(problem, block, budgets if isinstance(budgets, str) else "water")


def flops_limit(flops: str | float | None, wiring: Wiring, total: int | None) -> float | None:
    """A limit of FLOPs as a number: of the budgets of a rule, where it is named."""
    if not isinstance(flops, str):
        return flops
    try:
        return float(flops)
    except ValueError:
        pass
    rules = ("npb", "water", *quotas)
    if flops not in rules:
        raise TopoError(f"flops is '{flops}'; it is a number, a share up to 1, or a rule: {', '.join(rules)}")
    return rule_flops(Problem(wiring, total=total), "erk" if flops == "npb" else flops)


# Totals that are tried where none were found, over the one asked for.
_NEAR = (1.02, 1.1, 1.3, 2.0, 0.8)


def near(attempt: Callable[[int], Balanced], total: int | None) -> Balanced:
    """attempt(total); where it finds no masks, the error names the first of some near totals for which it does.

    Raises NotFound.
    """
    assert total is not None
    try:
        return attempt(total)
    except NotFound as error:
        for factor in _NEAR:
            try:
                found = attempt(round(total * factor))
            except TopoError:
                continue
            raise NotFound(f"{error}. Masks of {found.problem.told(found.masks.kept)} were found") from None
        raise
