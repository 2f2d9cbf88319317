"""SCIENCE: do the degrees of the whole graph fall as a power? Clauset's fit of the tail, and how well it fits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from topo.graph import WiredGraph
from topo.graph.memo import shared
from topo.graph.whole import whole_graph
from topo.metrics import metric
from topo.metrics.science import ALONE
from topo.metrics.whole import NO_EDGES
from topo.report import Value

_CLAUSET = "Clauset, Shalizi & Newman, Power-law distributions in empirical data, SIAM Review 2009"
_STEEPEST = 30.0
SAMPLES = 100
_FEW = 100  # units: in Clauset et al., figure 4.1, other laws pass for a power law up to there
_MOST_DEGREES = 1_000_000  # beyond a table of the law, drawn one by one for each sample: five seconds
_MOST_TAILS = 60  # degrees at which a tail may begin; of more, every so many


@dataclass(frozen=True)
class Fit:
    """P(degree = d) = d**-exponent / zeta(exponent, first) for d >= first; distance: Kolmogorov and Smirnov's."""

    exponent: float
    first: int
    distance: float


def fit(values: np.ndarray, counts: np.ndarray) -> Fit | None:
    """The tail of degrees that is nearest to a power law, its exponent by maximum likelihood.

    values: the degrees that units have, above 0 and rising; counts: how many units have each. A tail holds at least two
    different degrees; exponents are looked for between 1 and 30. None without such a tail.

    >>> fit(np.array([1, 2, 4, 8]), np.array([1600, 400, 100, 25])).first
    1
    """
    if len(values) < 2:
        return None
    places = np.arange(len(values) - 1)
    if len(places) > _MOST_TAILS:
        places = np.unique(np.linspace(0, len(values) - 2, _MOST_TAILS).astype(np.int64))
    firsts, tail = values[places].astype(np.float64), np.cumsum(counts[::-1])[::-1]
    logs = np.cumsum((counts * np.log(values))[::-1])[::-1] / tail
    exponents = _likeliest(firsts, logs[places])
    best: Fit | None = None
    for place, first, exponent in zip(places, firsts, exponents):
        seen = np.cumsum(counts[place:]) / tail[place]
        # The step functions differ most at a degree that is there, or just below it.
        above = _survival(exponent, first, values[place:] + 1.0)
        below = _survival(exponent, first, values[place:].astype(np.float64))
        distance = max(np.abs(1 - above - seen).max(), np.abs(1 - below[1:] - seen[:-1]).max(initial=0.0))
        if best is None or distance < best.distance - 1e-12:
            best = Fit(float(exponent), int(first), float(distance))
    return best


def _survival(exponent: float, first: float, values: np.ndarray) -> np.ndarray:
    """P(degree >= value)."""
    from scipy.special import zeta

    return zeta(exponent, values) / zeta(exponent, first)


def _likeliest(firsts: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """The exponents that make tails from `firsts` with such mean logarithms likeliest, to 1e-7; by golden sections."""
    from scipy.special import zeta

    def unlikely(exponents: np.ndarray) -> np.ndarray:
        return np.log(zeta(exponents, firsts) * firsts**exponents) + exponents * (logs - np.log(firsts))

    low, high = np.full(len(firsts), 1 + 1e-6), np.full(len(firsts), _STEEPEST)
    golden = (math.sqrt(5) - 1) / 2
    one, other = high - golden * (high - low), low + golden * (high - low)
    at_one, at_other = unlikely(one), unlikely(other)
    for _ in range(40):
        left = at_one < at_other
        low, high = np.where(left, low, one), np.where(left, other, high)
        kept, kept_at = np.where(left, one, other), np.where(left, at_one, at_other)
        new = np.where(left, high - golden * (high - low), low + golden * (high - low))
        at_new = unlikely(new)
        one, other = np.where(left, new, kept), np.where(left, kept, new)
        at_one, at_other = np.where(left, at_new, kept_at), np.where(left, kept_at, at_new)
    return (low + high) / 2


def drawn(values: np.ndarray, counts: np.ndarray, law: Fit, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many degrees, as `fit` takes them: below the tail as they are, drawn with return; in the tail by the law.

    How many units have each degree is drawn at once, not unit by unit: of ten million units that took minutes.
    Source: Clauset et al., section 4.1.
    """
    body = values < law.first
    units, in_body = int(counts.sum()), int(counts[body].sum())
    in_tail = int(rng.binomial(units, 1 - in_body / units))
    ends = law.first + np.arange(1 << 12)
    above = _survival(law.exponent, law.first, ends.astype(np.float64))
    near = rng.multinomial(in_tail, np.append(above[:-1] - above[1:], above[-1]))
    # Beyond the table the sum is an integral.
    far = ends[-1] * (1 - rng.random(int(near[-1]))) ** (1 / (1 - law.exponent))
    beyond, of_beyond = np.unique(np.minimum(far, 1e15).astype(np.int64), return_counts=True)
    within = rng.multinomial(units - in_tail, counts[body] / in_body) if in_body else counts[:0]
    found = np.concatenate([values[body], ends[:-1], beyond]), np.concatenate([within, near[:-1], of_beyond])
    seen = found[1] > 0
    return found[0][seen], found[1][seen]


@shared
def _fitted(graph: WiredGraph) -> tuple[np.ndarray, np.ndarray, Fit | None]:
    values, counts = whole_graph(graph).many_of_each
    values, counts = values[values > 0], counts[values > 0]
    return values, counts, fit(values, counts)


def _no_tail(degrees: np.ndarray) -> str:
    return "all units have one degree: there is no tail" if len(degrees) else NO_EDGES


@metric(group="science", scope="network", unit="exponent", source=_CLAUSET)
def power_law_exponent(graph: WiredGraph) -> Value:
    """Exponent of the tail of the units' degrees that is nearest to a power law, by maximum likelihood; undirected."""
    degrees, _, found = _fitted(graph)
    if found is None:
        return Value(math.nan, _no_tail(degrees))
    steep = ", which fall faster than every power that is looked at" if found.exponent > _STEEPEST - 1e-3 else ""
    return Value(found.exponent, f"of degrees from {found.first} on{steep}; {ALONE}")


@metric(group="science", scope="network", unit="probability", source=_CLAUSET)
def power_law_p(graph: WiredGraph) -> Value:
    """Share of 100 samples of the fitted power law that are further from their own fits; up to 0.1 rules it out."""
    degrees, counts, found = _fitted(graph)
    if found is None:
        return Value(math.nan, _no_tail(degrees))
    rng, further, units = np.random.default_rng(0), 0, int(counts.sum())
    if units * _survival(found.exponent, found.first, np.array([found.first + float(1 << 12)]))[0] > _MOST_DEGREES:
        return Value(math.nan, f"{units:,} units have edges; samples of a tail this heavy are drawn of fewer")
    for _ in range(SAMPLES):
        again = fit(*drawn(degrees, counts, found, rng))
        further += again is not None and again.distance >= found.distance - 1e-9
    tail = int(counts[degrees >= found.first].sum())
    few = f" (fewer than {_FEW} seldom rule a power law out)" if tail < _FEW else ""
    return Value(further / SAMPLES, f"of {tail:,} units in the tail{few}; {ALONE}")
