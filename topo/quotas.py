"""Quotas: how many parameters each layer keeps. Shapes and a budget in, exact integers out.

A quota asks for a share of each layer l, a real number. Shares sum to the budget K and none exceeds the layer's size
N_l: what a full layer cannot take goes to the others. Integers follow by largest remainder, ties in layer order, so
that a budget is met exactly; in released code the roundings drift, and full layers lose their excess.

    uniform    K N_l / N
    er         min(N_l, e N_l (out + in) / (out in))                 Mocanu et al. 2018
    erk        min(N_l, e (out + in + height + width))               Evci et al. 2020, section 3
    erk_plus   the last layer whole, erk on the others               Liu et al. 2022
    igq        N_l / (F N_l + 1)                                     Vysogorets & Kempe 2021
    given      min(N_l, e d_l N_l) for given densities d_l or counts d_l N_l

with e or F such that the sum is K; `in` is what one output reads (in / groups of a convolution), as in the shape. All
but igq are rational and computed as such.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from topo._support.doors import called, check_function
from topo._support.registry import Registry
from topo.errors import TopoError

Shapes = Mapping[str, Sequence[int]]
Number = Fraction | int

quotas = Registry("quota", group="topo.quotas")


def quota(function: Callable[..., list[Fraction]]) -> Callable[..., list[Fraction]]:
    """Decorator: register a function (shapes, total, *, options) that gives the share of each layer, in their order.

    Shares are numbers from 0 to the layer's size that sum to the total. TopoError for a function that cannot be called
    so, or says nothing of itself.
    """
    check_function(f"quota '{getattr(function, '__name__', function)}'", function, "shapes, total")
    return quotas.add()(function)


def budgets(
    quota: str,
    shapes: Shapes,
    density: float | None = None,
    sparsity: float | None = None,
    total: int | None = None,
    **options: Any,
) -> dict[str, int]:
    """Parameters that each layer keeps: whole numbers from 0 to its size that sum exactly to the budget.

    shapes: name -> (out, in / groups, *kernel), in network order. The budget K is one of density (K = round(density N)
    of N parameters), sparsity (the same at 1 - sparsity) and total (K itself); `given` can do without. options: the
    quota's own.

    >>> budgets("erk", {"a": (8, 4), "b": (2, 8)}, density=0.5)
    {'a': 13, 'b': 11}

    Raises TopoError for an unknown quota or option, for none or several of density, sparsity and total, for one out of
    range, and for a budget that the quota cannot meet.
    """
    budget = _budget(density, sparsity, total, shapes)
    shares = _shares(quota, shapes, None if budget is None else round(budget), options)
    return dict(zip(shapes, _integers(shares)))


def densities(
    quota: str,
    shapes: Shapes,
    density: float | None = None,
    sparsity: float | None = None,
    total: int | None = None,
    **options: Any,
) -> dict[str, float]:
    """Density that the quota asks of each layer, nothing rounded: K = density N here. Arguments as in `budgets`.

    >>> densities("erk", {"a": (8, 4), "b": (2, 8)}, density=0.5)
    {'a': 0.4090909090909091, 'b': 0.6818181818181818}
    """
    budget = _budget(density, sparsity, total, shapes)
    shares = _shares(quota, shapes, None if budget is None else Fraction(budget), options)
    return {name: float(share / size) for share, (name, size) in zip(shares, _sizes(shapes).items())}


def _sizes(shapes: Shapes) -> dict[str, int]:
    """N_l; TopoError unless there are layers, each with 2 or more dimensions of 1 or more."""
    if not shapes:
        raise TopoError("a quota needs the shape of at least one layer; none is given")
    for name, shape in shapes.items():
        if len(shape) < 2 or min(shape) < 1:
            raise TopoError(f"layer '{name}' has shape {tuple(shape)}; a layer has (out, in, ...), each at least 1")
    return {name: math.prod(map(int, shape)) for name, shape in shapes.items()}


def _budget(density: float | None, sparsity: float | None, total: int | None, shapes: Shapes) -> float | None:
    """K, not rounded, of the one that is given; None if none is."""
    requested = {"density": density, "sparsity": sparsity, "total": total}
    held = {name: value for name, value in requested.items() if value is not None}
    if not held:
        return None
    if len(held) > 1:
        raise TopoError(f"a budget is one of density, sparsity and total; given are {' and '.join(held)}")
    (name, value), size = held.popitem(), sum(_sizes(shapes).values())
    if name == "total":
        if not isinstance(value, Integral) or not 0 <= value <= size:
            raise TopoError(f"total is {value!r}; it is a whole number from 0 to {size}, the number of parameters")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise TopoError(f"{name} is {value!r}; it is a number from 0 to 1")
    # In decimal, so that sparsity 0.9 is density 0.1 and not 0.09999999999999998, which rounds another way.
    kept = float(1 - Fraction(repr(float(value)))) if name == "sparsity" else float(value)
    return kept * size


def _shares(quota: str, shapes: Shapes, total: Number | None, options: Mapping[str, Any]) -> list[Fraction]:
    """The quota's share of each layer."""
    rule = quotas[quota]
    budget, *allowed = list(inspect.signature(rule).parameters.values())[1:]
    names = [parameter.name for parameter in allowed]
    for name in options:
        if name not in names:
            takes = f"it takes {', '.join(names)}" if names else "it takes none"
            raise TopoError(f"quota '{quota}' has no option '{name}'; {takes}")
    if total is None and budget.default is inspect.Parameter.empty:
        raise TopoError(f"quota '{quota}' needs a budget: give one of density, sparsity and total")
    sizes = _sizes(shapes)
    shares = called(f"quota '{quota}'", "", rule, shapes, total, **options)
    if not isinstance(shares, Sequence) or len(shares) != len(sizes):
        raise TopoError(f"quota '{quota}' gives {shares!r:.60}; it gives a list of {len(sizes)} shares")
    for share, (name, size) in zip(shares, sizes.items()):
        if isinstance(share, bool) or not isinstance(share, int | Fraction | float) or not 0 <= share <= size:
            raise TopoError(f"quota '{quota}' gives {share!r:.40} for '{name}'; a share is a number from 0 to {size}")
    exact = [Fraction(share) for share in shares]
    if total is not None and round(sum(exact)) != round(total):
        raise TopoError(f"quota '{quota}' shares out {_text(sum(exact))} parameters; the budget is {_text(total)}")
    return exact


def _integers(shares: list[Fraction]) -> list[int]:
    """Floors, and one more for the largest remainders, until they sum to the sum of the shares, rounded.

    Ties go in layer order. There are as many remainders as ones to give, or more: no layer passes its size.
    """
    total = round(sum(shares))
    floors = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda layer: floors[layer] - shares[layer])
    for layer in order[: total - sum(floors)]:
        floors[layer] += 1
    return floors


def _capped(weights: Sequence[Number], sizes: Sequence[int], total: Number) -> list[Fraction]:
    """min(size_l, e weight_l) with e such that the sum is `total`.

    Layers that e would overfill are set to their size and e is found again for the others, where it can only grow.
    The layers of positive weight must be able to hold `total`.
    """
    full: set[int] = set()
    while True:
        free = [layer for layer in range(len(sizes)) if layer not in full]
        rest = total - sum(sizes[layer] for layer in full)
        weight = sum(weights[layer] for layer in free)
        over = [layer for layer in free if rest * weights[layer] >= sizes[layer] * weight > 0]
        if not over:
            break
        full.update(over)
    share = {layer: Fraction(rest) * weights[layer] / weight if weight else Fraction(0) for layer in free}
    return [share.get(layer, Fraction(size)) for layer, size in enumerate(sizes)]


def _text(total: Number) -> str:
    return f"{float(total):.12g}"


@quota
def uniform(shapes: Shapes, total: Number) -> list[Fraction]:
    """The same density in every layer."""
    sizes = list(_sizes(shapes).values())
    return _capped(sizes, sizes, total)


@quota
def er(shapes: Shapes, total: Number) -> list[Fraction]:
    """Erdos-Renyi: density proportional to (out + in) / (out in), capped at 1; a kernel's sides do not count."""
    weights = [(shape[0] + shape[1]) * math.prod(map(int, shape[2:])) for shape in shapes.values()]
    return _capped(weights, list(_sizes(shapes).values()), total)


@quota
def erk(shapes: Shapes, total: Number) -> list[Fraction]:
    """Erdos-Renyi-Kernel: density proportional to the sum of the shape over its product, capped at 1."""
    return _capped([sum(map(int, shape)) for shape in shapes.values()], list(_sizes(shapes).values()), total)


@quota
def erk_plus(shapes: Shapes, total: Number) -> list[Fraction]:
    """ERK with the last layer dense, for networks with many classes; impossible if the budget is smaller than it."""
    *others, last = shapes
    size = _sizes(shapes)[last]
    if total < size:
        raise TopoError(
            f"quota 'erk_plus' keeps the last layer '{last}' whole, {size} parameters, but the budget is {_text(total)}"
        )
    return [*(erk({name: shapes[name] for name in others}, total - size) if others else []), Fraction(size)]


@quota
def igq(shapes: Shapes, total: Number) -> list[Fraction]:
    """Ideal gas quota: density 1 / (F N_l + 1); in very sparse networks all layers keep nearly the same number.

    F >= 0 is found by bisection to the last bit: the sum falls from N at F = 0 and is at most (layers) / F.
    """
    sizes = list(_sizes(shapes).values())
    if total in (0, sum(sizes)):
        return [Fraction(size if total else 0) for size in sizes]
    low, high = 0.0, len(sizes) / total
    while low < (middle := (low + high) / 2) < high:
        if math.fsum(size / (middle * size + 1) for size in sizes) > total:
            low = middle
        else:
            high = middle
    return [Fraction(size / (high * size + 1)) for size in sizes]


@quota
def given(
    shapes: Shapes,
    total: Number | None = None,
    densities: Mapping[str, float] | None = None,
    counts: Mapping[str, int] | None = None,
) -> list[Fraction]:
    """Given densities or counts of every layer; a budget scales them all by one factor, capped at 1.

    densities: name -> number from 0 to 1. counts: name -> number from 0 to the layer's size. Exactly one of the two.
    """
    sizes = _sizes(shapes)
    if (densities is None) == (counts is None):
        raise TopoError("quota 'given' takes densities or counts, one of them: a mapping from every layer to a number")
    what, wanted = ("densities", densities) if counts is None else ("counts", counts)
    assert wanted is not None
    for name in [*shapes, *wanted]:
        if name not in shapes or name not in wanted:
            where = "the given " + what if name not in wanted else "the shapes"
            raise TopoError(f"layer '{name}' is missing from {where}; a profile has the layers of the network")
        most = 1 if counts is None else sizes[name]
        if not 0 <= wanted[name] <= most:
            raise TopoError(f"the given {what} hold {wanted[name]!r} for '{name}'; it is a number from 0 to {most}")
    shares = [Fraction(wanted[name]) * (size if counts is None else 1) for name, size in sizes.items()]
    if total is None:
        return shares
    room = sum(size for size, share in zip(sizes.values(), shares) if share)
    if total > room:
        raise TopoError(f"the budget is {_text(total)}, but the layers that the given {what} do not empty hold {room}")
    return _capped(shares, list(sizes.values()), total)
