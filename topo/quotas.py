"""Quotas: how many parameters each layer keeps. Shapes and a budget in, exact integers out.

A quota asks for a share of each layer l, a real number. Shares sum to the budget K and none exceeds the layer's size
N_l: what a full layer cannot take goes to the others. Integers follow by largest remainder, ties in layer order, so
that a budget is met exactly; in released code the roundings drift, and full layers lose their excess.

    uniform    K N_l / N
    er         min(N_l, e N_l (out + in) / (out in))                 Mocanu et al. 2018
    erk        min(N_l, e (out + in + height + width))               Evci et al. 2020, section 3
    erk_plus   the last layer whole, erk on the others               Liu et al. 2022
    igq        N_l / (F N_l + 1)                                     Vysogorets & Kempe 2021
    balanced   min(N_l, e)                                           Gadhikar et al. 2023
    pyramidal  F^l N_l                                               Gadhikar et al. 2023
    smart_ratio  .3 N_L in the last, min(N_l, e N_l ((L-l+1)^2 + L-l+1))  Su et al. 2020
    owl        min(N_l, e N_l (1 - s + D_l - mean D)), s = 1 - K / N Yin et al. 2024
    alpha      min(N_l, e N_l g_l), g linear in a tail exponent      Lu et al. 2024
    given      min(N_l, e d_l N_l) for given densities d_l or counts d_l N_l

with e or F such that the sum is K; `in` is what one output reads (in / groups of a convolution), as in the shape, and
l = 1 .. L counts layers from the input. All but igq and pyramidal are rational and computed as such. `owl` and `alpha`
look at more than shapes: methods that see weights measure it and hand it on (`topo.calibrated`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
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
    dense: str | Sequence[str] = (),
    **options: Any,
) -> dict[str, int]:
    """Parameters that each layer keeps: whole numbers from 0 to its size that sum exactly to the budget.

    shapes: name -> (out, in / groups, *kernel), in network order. The budget K is one of density (K = round(density N)
    of N parameters), sparsity (the same at 1 - sparsity) and total (K itself); `given` can do without. dense: layers
    that are kept whole, by name or pattern, in a list or one text with commas; the quota shares the rest of the budget
    among the other layers. options: the quota's own.

    >>> budgets("erk", {"a": (8, 4), "b": (2, 8)}, density=0.5)
    {'a': 13, 'b': 11}

    Raises TopoError for an unknown quota or option, for none or several of density, sparsity and total, for one out of
    range, and for a budget that the quota cannot meet.
    """
    budget = _budget(density, sparsity, total, shapes)
    shares = _spread(quota, shapes, None if budget is None else round(budget), dense, options)
    return dict(zip(shapes, _integers(shares)))


def _spread(
    quota: str, shapes: Shapes, total: Number | None, dense: str | Sequence[str], options: Mapping[str, Any]
) -> list[Fraction]:
    """The quota's share of each layer, beside those that are kept whole."""
    whole = kept_whole(dense, shapes)
    if not whole:
        return _shares(quota, shapes, total, options)
    if total is None:
        raise TopoError("dense says which layers a budget leaves whole: give one of density, sparsity and total")
    sizes = _sizes(shapes)
    rest = beside_whole(total, sizes, whole)
    others = {name: shape for name, shape in shapes.items() if name not in whole}
    own = {key: _without(value, whole) for key, value in options.items()}
    found = dict(zip(others, _shares(quota, others, rest, own))) if others else {}
    return [found.get(name, Fraction(size)) for name, size in sizes.items()]


def kept_whole(dense: str | Sequence[str], names: Iterable[str]) -> set[str]:
    """The layers that `dense` names, by name or pattern; TopoError if one stands for none.

    >>> sorted(kept_whole("conv*, fc", ["conv1", "conv2", "mid", "fc"]))
    ['conv1', 'conv2', 'fc']
    """
    patterns = [part.strip() for part in dense.split(",") if part.strip()] if isinstance(dense, str) else list(dense)
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise TopoError(f"dense: no layer is called '{pattern}'; there are: {', '.join(known[:12])}")
    return {name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)}


def beside_whole(total: Number, sizes: Mapping[str, int], whole: set[str]) -> Number:
    """What is left of a budget for the layers that are not kept whole; TopoError if that is less than nothing."""
    taken = sum(sizes[name] for name in whole)
    if total < taken:
        named = ", ".join(sorted(whole)[:3]) + (", ..." if len(whole) > 3 else "")
        raise TopoError(f"the layers kept dense ({named}) hold {taken:,} parameters, but the budget is {_text(total)}")
    return total - taken


def _without(value: Any, whole: set[str]) -> Any:
    """An option of a quota; one that speaks of layers, without those that are kept whole."""
    return {name: held for name, held in value.items() if name not in whole} if isinstance(value, Mapping) else value


def densities(
    quota: str,
    shapes: Shapes,
    density: float | None = None,
    sparsity: float | None = None,
    total: int | None = None,
    dense: str | Sequence[str] = (),
    **options: Any,
) -> dict[str, float]:
    """Density that the quota asks of each layer, nothing rounded: K = density N here. Arguments as in `budgets`.

    >>> densities("erk", {"a": (8, 4), "b": (2, 8)}, density=0.5)
    {'a': 0.4090909090909091, 'b': 0.6818181818181818}
    """
    budget = _budget(density, sparsity, total, shapes)
    shares = _spread(quota, shapes, None if budget is None else Fraction(budget), dense, options)
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
def balanced(shapes: Shapes, total: Number) -> list[Fraction]:
    """The same number of parameters in every layer, as far as each holds them."""
    sizes = list(_sizes(shapes).values())
    return _capped([1] * len(sizes), sizes, total)


@quota
def pyramidal(shapes: Shapes, total: Number) -> list[Fraction]:
    """Density F^l in layer l: every layer keeps the same fraction of the density before it.

    F is found by bisection to the last bit; the sum grows with it from 0 to N at F = 1.
    """
    sizes = list(_sizes(shapes).values())
    if total in (0, sum(sizes)):
        return [Fraction(size if total else 0) for size in sizes]
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if math.fsum(middle ** (layer + 1) * size for layer, size in enumerate(sizes)) < total:
            low = middle
        else:
            high = middle
    return [min(Fraction(high ** (layer + 1)) * size, Fraction(size)) for layer, size in enumerate(sizes)]


@quota
def smart_ratio(shapes: Shapes, total: Number, last: float = 0.3, squares: bool = False) -> list[Fraction]:
    """Density falling with depth as (L-l+1)^2 + (L-l+1), the last layer at 30 %: random tickets' smart ratios.

    last: the last layer's density, which grows only where the others are full. squares: divide by l^2, as the paper
    does for VGG. TopoError if the budget is smaller than what the last layer keeps.
    """
    if isinstance(last, bool) or not isinstance(last, Real) or not 0 <= last <= 1:
        raise TopoError(f"last is {last!r}; it is the density of the last layer, from 0 to 1")
    sizes, count = list(_sizes(shapes).values()), len(shapes)
    end = Fraction(last) * sizes[-1]
    if total < end:
        raise TopoError(
            f"quota 'smart_ratio' keeps {_text(end)} parameters of the last layer '{list(shapes)[-1]}', but the budget "
            f"is {_text(total)}; give another `last`"
        )
    end = max(end, Fraction(total) - sum(sizes[:-1]))
    steps = [(count - layer) ** 2 + count - layer for layer in range(count - 1)]  # l = layer + 1
    weights = [
        Fraction(step, (layer + 1) ** 2 if squares else 1) * size
        for layer, (step, size) in enumerate(zip(steps, sizes))
    ]
    return [*(_capped(weights, sizes[:-1], total - end) if weights else []), end]


@quota
def owl(
    shapes: Shapes, total: Number, outliers: Mapping[str, float] | None = None, span: float = 0.08
) -> list[Fraction]:
    """More where more outliers are: density 1 - s + D_l - mean(D), D the outlier ratios scaled to a width of 2 span.

    outliers: name -> outlier ratio of the layer (the same for all layers of a block), the share of scores above M times
    their mean. The paper cuts what passes 0 or 1, which changes the total; here one factor and caps keep it.
    """
    measured = _measured("owl", "outliers", outliers, shapes)
    low, high = min(measured), max(measured)
    scaled = [2 * Fraction(span) * (value - low) / (high - low) if high > low else Fraction(0) for value in measured]
    sizes = list(_sizes(shapes).values())
    wanted = Fraction(total) / sum(sizes)
    mean = sum((value * size for value, size in zip(scaled, sizes)), Fraction(0)) / sum(sizes)
    # A density that would be negative is a millionth of the budget's: every layer stays able to take its part.
    weights = [max(wanted + value - mean, wanted / 10**6) * size for value, size in zip(scaled, sizes)]
    return _capped(weights, sizes, total)


@quota
def alpha(
    shapes: Shapes, total: Number, exponents: Mapping[str, float] | None = None, span: float = 0.3
) -> list[Fraction]:
    """Less where spectra are heavy-tailed no more: sparsity linear in the tail exponent, from 1 - span to 1 + span.

    exponents: name -> Hill exponent of the layer's spectrum; a small one means a heavy tail, a well-trained layer. The
    sparsities s_l = e ((a_l - min a) / (max a - min a) 2 span + 1 - span) have e such that the sum is the budget;
    layers that would pass 0 are full.
    """
    measured = _measured("alpha", "exponents", exponents, shapes)
    low, high = min(measured), max(measured)
    width = 2 * Fraction(span)
    scaled = [
        (value - low) / (high - low) * width + 1 - Fraction(span) if high > low else Fraction(1) for value in measured
    ]
    sizes = list(_sizes(shapes).values())
    pruned = _capped([value * size for value, size in zip(scaled, sizes)], sizes, sum(sizes) - Fraction(total))
    return [size - share for size, share in zip(sizes, pruned)]


def _measured(quota: str, option: str, values: Mapping[str, float] | None, shapes: Shapes) -> list[Fraction]:
    """One finite number a layer, exactly; TopoError that says who measures them where there are none."""
    if values is None:
        raise TopoError(
            f"quota '{quota}' looks at {'activations' if quota == 'owl' else 'weights'}: name it with a method that "
            f"sees them (topo generate wanda --quota {quota}), or give {option}, a number for each layer"
        )
    found: list[Fraction] = []
    for name in shapes:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise TopoError(f"{option} of quota '{quota}' holds {value!r} for '{name}'; it is a number for each layer")
        found.append(Fraction(float(value)))
    return found


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
