"""Twins of DEGREES, STRUCTURE and the quotas: loops over weights, sorted lists, definitions as they are written."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from naive.net import Net


def edges(net: Net, name: str) -> Counter:
    """(left unit, right unit) -> multiplicity in the layer view."""
    layer, mask, view = net.wiring.layer(name), net.masks[name], getattr(net, "layer_view", "kernel")
    found: Counter = Counter()
    for out, channel, *tap in np.argwhere(mask).tolist():
        group = out // (layer.shape[0] // layer.groups)
        left = (group, channel, *tap) if view == "kernel" else (group, channel)
        found[left, out] = 1 if view == "unit" else found[left, out] + 1
    return found


def fan_in(net: Net, name: str) -> list[int]:
    found = edges(net, name)
    return [sum(m for (_, right), m in found.items() if right == out) for out in range(net.masks[name].shape[0])]


def fan_out(net: Net, name: str) -> list[int]:
    layer, found = net.wiring.layer(name), edges(net, name)
    kernel_size = layer.shape[2:] if getattr(net, "layer_view", "kernel") == "kernel" else ()
    sides = [range(n) for n in (layer.groups, layer.shape[1], *kernel_size)]
    return [sum(m for (left, _), m in found.items() if left == unit) for unit in product(*sides)]


def cv(degrees: list[int]) -> float:
    return float(np.std(degrees) / np.mean(degrees)) if any(degrees) else math.nan


def gini(degrees: list[int]) -> float:
    """Mean absolute difference of two units over twice the mean."""
    differences = [abs(a - b) for a in degrees for b in degrees]
    return float(np.mean(differences) / (2 * np.mean(degrees))) if any(degrees) else math.nan


def layer_fan_in_mean(net: Net, name: str):
    return float(np.mean(fan_in(net, name)))


def layer_fan_in_cv(net: Net, name: str):
    return cv(fan_in(net, name))


def layer_fan_in_gini(net: Net, name: str):
    return gini(fan_in(net, name))


def layer_fan_in_max(net: Net, name: str):
    return max(fan_in(net, name))


def layer_fan_in_max_ratio(net: Net, name: str):
    return max(fan_in(net, name)) / np.mean(fan_in(net, name)) if any(fan_in(net, name)) else math.nan


def layer_fan_out_mean(net: Net, name: str):
    return float(np.mean(fan_out(net, name)))


def layer_fan_out_cv(net: Net, name: str):
    return cv(fan_out(net, name))


def layer_fan_out_gini(net: Net, name: str):
    return gini(fan_out(net, name))


def layer_fan_out_max(net: Net, name: str):
    return max(fan_out(net, name))


def layer_fan_out_max_ratio(net: Net, name: str):
    return max(fan_out(net, name)) / np.mean(fan_out(net, name)) if any(fan_out(net, name)) else math.nan


def layer_dead_columns(net: Net, name: str):
    return fan_out(net, name).count(0)


def layer_degree_assortativity(net: Net, name: str):
    found = list(edges(net, name).elements())
    outs = Counter(left for left, _ in found)
    ins = Counter(right for _, right in found)
    x, y = [outs[left] for left, _ in found], [ins[right] for _, right in found]
    return float(np.corrcoef(x, y)[0, 1]) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def n_m(mask: np.ndarray, n: int, m: int) -> float:
    flat = mask.reshape(*mask.shape[:2], -1)
    groups = [
        sum(flat[row, start : start + m, position]) <= n
        for row in range(flat.shape[0])
        for start in range(0, flat.shape[1], m)
        for position in range(flat.shape[2])
    ]
    return sum(groups) / len(groups)


def block_occupancy(mask: np.ndarray, height: int = 4, width: int = 4) -> float:
    matrix = mask.reshape(len(mask), -1)
    blocks = [
        matrix[row : row + height, column : column + width].any()
        for row in range(0, matrix.shape[0], height)
        for column in range(0, matrix.shape[1], width)
    ]
    return sum(blocks) / len(blocks)


def layer_n_m_2_4(net: Net, name: str):
    return n_m(net.masks[name], 2, 4)


def layer_n_m_4_8(net: Net, name: str):
    return n_m(net.masks[name], 4, 8)


def layer_block_occupancy(net: Net, name: str):
    return block_occupancy(net.masks[name])


def layer_mask_diversity_bits(net: Net, name: str):
    mask = net.masks[name]
    return math.log2(math.comb(mask.size, int(mask.sum()))) / mask.size


def _densities(net: Net) -> list[float]:
    return [float(net.masks[name].mean()) for name in net.masks]


def mean_density(net: Net):
    return sum(_densities(net)) / len(net.masks)


def min_density(net: Net):
    return min(_densities(net))


def mean_log_density(net: Net):
    return sum(math.log(d) if d else -math.inf for d in _densities(net)) / len(net.masks)


# Quotas. The last layer of `sizes` is the last of the network.


def rounded(shares: list, total: int) -> list[int]:
    """Floors; then, one at a time, the layer that is furthest below its share (the first of these) gets one more."""
    counts = [int(share) for share in shares]
    while sum(counts) < total:
        behind = [share - count for share, count in zip(shares, counts)]
        counts[behind.index(max(behind))] += 1
    return counts


def proportional(weights: list[int], sizes: list[int], total: int) -> list[Fraction]:
    """min(size, e weight): the layer that is overfilled most is made dense, one at a time, as in the released code."""
    dense: set[int] = set()
    while len(dense) < len(sizes):
        free = [i for i in range(len(sizes)) if i not in dense]
        e = Fraction(total - sum(sizes[i] for i in dense), sum(weights[i] for i in free))
        fullest = max(free, key=lambda i: e * weights[i] / sizes[i])
        if e * weights[fullest] <= sizes[fullest]:
            return [Fraction(sizes[i]) if i in dense else e * weights[i] for i in range(len(sizes))]
        dense.add(fullest)
    return [Fraction(size) for size in sizes]


def uniform(shapes: list[tuple], total: int) -> list[int]:
    sizes = [math.prod(shape) for shape in shapes]
    return rounded([Fraction(total * size, sum(sizes)) for size in sizes], total)


def er(shapes: list[tuple], total: int) -> list[int]:
    sizes = [math.prod(shape) for shape in shapes]
    weights = [(shape[0] + shape[1]) * size // (shape[0] * shape[1]) for shape, size in zip(shapes, sizes)]
    return rounded(proportional(weights, sizes, total), total)


def erk(shapes: list[tuple], total: int) -> list[int]:
    return rounded(proportional([sum(s) for s in shapes], [math.prod(s) for s in shapes], total), total)


def igq(shapes: list[tuple], total: int) -> list[int]:
    """F by bisection of its logarithm in 60 digits, from 1e-30 to 1e30; nothing and everything apart."""
    sizes = [math.prod(shape) for shape in shapes]
    if total in (0, sum(sizes)):
        return [size if total else 0 for size in sizes]
    with localcontext() as context:
        context.prec = 60
        low, high = Decimal(-30), Decimal(30)
        for _ in range(150):
            middle = (low + high) / 2
            shares = [size / (10**middle * size + 1) for size in sizes]
            low, high = (middle, high) if sum(shares) > total else (low, middle)
        return rounded([share + Decimal("1e-40") for share in shares], total)


def _distance(net: Net, quota) -> float:
    kept = [int(net.masks[name].sum()) for name in net.masks]
    wanted = quota(list(net.masks.shapes.values()), sum(kept))
    sizes = [net.masks[name].size for name in net.masks]
    return math.sqrt(sum(((k - w) / size) ** 2 for k, w, size in zip(kept, wanted, sizes)) / len(sizes))


def uniform_distance(net: Net):
    return _distance(net, uniform)


def erk_distance(net: Net):
    return _distance(net, erk)


def igq_distance(net: Net):
    return _distance(net, igq)


def layer_four_cycles(net: Net, name: str):
    """Every pair of outputs, the left units that they share, every pair of those."""
    sides: dict = {}
    for left, right in edges(net, name):
        sides.setdefault(right, set()).add(left)
    return sum(math.comb(len(a & b), 2) for a, b in combinations(sides.values(), 2))
