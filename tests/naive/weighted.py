"""Twins of the weighted metrics: every path enumerated, products of exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from naive.net import Net


class WeightedNet(Net):
    """A network whose parameters weigh something."""

    def __init__(self, masks, wiring, weights: dict[str, np.ndarray]) -> None:
        super().__init__(masks, wiring)
        self.weights = weights

    def factors(self, path) -> list[Fraction]:
        """|w| of each weight on a path, once for each use."""
        used = [(what[1], what[2:]) for what, _, _ in path if what[0] != "join"]
        return [abs(Fraction(float(self.weights[name][place]))) for name, place in used]


def exact_flow(net: WeightedNet) -> Fraction:
    return sum((math.prod(net.factors(path), start=Fraction(1)) for path in net.paths), Fraction(0))


def exact_trace(net: WeightedNet) -> Fraction:
    """sum over p and e in p of (pi_p / theta_e)**2, as the product of the other weights, squared."""
    total = Fraction(0)
    for path in net.paths:
        factors = net.factors(path)
        for left_out in range(len(factors)):
            total += math.prod(factors[:left_out] + factors[left_out + 1 :], start=Fraction(1)) ** 2
    return total


def log10(value: Fraction) -> float:
    """log10 of a fraction whose two integers may be of any size."""
    return math.log10(value.numerator) - math.log10(value.denominator) if value else -math.inf


def _where_weighted(number):
    """Without weights undefined: so the contract of tests/test_metrics.py sees them."""
    return lambda net: number(net) if isinstance(net, WeightedNet) else math.nan


path_norm = _where_weighted(lambda net: float(exact_flow(net)))
log10_path_norm = _where_weighted(lambda net: log10(exact_flow(net)))
synflow_flow, log10_synflow_flow = path_norm, log10_path_norm
path_kernel_trace = _where_weighted(lambda net: float(exact_trace(net)))
log10_path_kernel_trace = _where_weighted(lambda net: log10(exact_trace(net)))
