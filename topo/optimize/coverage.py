"""A bound on paths that knows coverage: of masks that keep so many nodes alive (docs/theory.md).

The paths of a chain are a vector times matrices times a vector, so that
    P <= |column sums of M_1| prod sigma1(M_l) |row sums of M_L|,
and a layer of n units with a rows and b columns that are not empty cannot have every norm (`topo.kernels.coverage`).
Through an addition norms add, an identity has norm 1. Each factor is a curve over the layer's units; units, FLOPs and
nodes are shared out by multipliers: for any mu, rho, nu >= 0
    log P <= mu N + rho F - nu k + sum over blocks of max (log factor - mu n - rho cost + nu nodes),
so that every multiplier gives a valid bound, and the least is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from topo.wiring import Join, Layer, Wiring

# Every n up to so many from the least on, and as many in equal ratios beyond: loses .004 to .05 decades on ResNet-20.
_POINTS = 220
_POINTS_OF_A_CHOICE = 40
# Where nodes may be dead, live ones of a tensor are taken from these parts of it, to the next.
_PARTS = (0.0, 0.25, 0.5, 0.75, 0.9)
_LARGEST_CURVE, _LARGEST_OF_A_CHOICE = 3000, 300


@dataclass(frozen=True, eq=False)
class Part:
    """A block between two tensors that all paths meet, and how often it is there.

    With at most nodes[k] live nodes the log of its factor is at most values[k] from units[k] units on. cost: least
    multiply-accumulates of a unit.
    """

    nodes: np.ndarray
    units: np.ndarray
    values: np.ndarray
    cost: float
    times: int = 1


def coverage_bound(wiring: Wiring, total: int, *, nodes: int, macs: float | None = None) -> float | None:
    """Bound on log10 paths of masks with `total` parameters and at least `nodes` live nodes (of `effective_nodes`).

    macs: most multiply-accumulates of the kept weights. None where it does not apply: networks that are not a chain of
    layers and residual blocks of up to three layers, or use a parameter twice.
    """
    every = sum(len(np.unique(step.reads)) for step in _counted(wiring)) + len(wiring.outputs)
    parts = _parts(wiring, total, full=nodes >= every, priced=macs is not None)
    if parts is None:
        return None

    def at(mu: float, rho: float, nu: float) -> float:
        found = mu * total + (rho * macs if macs else 0.0) - nu * nodes
        for part in parts:
            price = mu + rho * part.cost
            worth = part.values - price * part.units + (nu * part.nodes if nu else 0.0)
            found += part.times * float(np.max(worth))
        return found

    full = nodes >= every
    scale = 1.0 / total

    def over_nodes(mu: float, rho: float) -> float:
        return at(mu, rho, 0.0) if full else min(at(mu, rho, 0.0), _least(lambda nu: at(mu, rho, nu), 1e-4, 3.0, 12))

    def over_cost(mu: float) -> float:
        without = over_nodes(mu, 0.0)
        return (
            without
            if macs is None
            else min(without, _least(lambda rho: over_nodes(mu, rho), 0.05 / macs, 50 / macs, 12))
        )

    return _least(over_cost, 0.02 * scale, 60.0 * scale, 16) / math.log(10)


def _least(value: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """The least value found by golden section on a logarithmic scale."""
    ratio, a, b = (math.sqrt(5) - 1) / 2, math.log(low), math.log(high)
    x, y = b - ratio * (b - a), a + ratio * (b - a)
    at_x, at_y = value(math.exp(x)), value(math.exp(y))
    best = min(at_x, at_y)
    for _ in range(steps):
        if at_x < at_y:
            b, y, at_y = y, x, at_x
            x = b - ratio * (b - a)
            at_x = value(math.exp(x))
        else:
            a, x, at_x = x, y, at_y
            y = a + ratio * (b - a)
            at_y = value(math.exp(y))
        best = min(best, at_x, at_y)
    return best


def _counted(wiring: Wiring) -> list[Layer]:
    """Layers whose inputs are nodes."""
    return [s for k, s in enumerate(wiring.steps) if isinstance(s, Layer) and k not in wiring.shortcuts]


# -- the network as blocks in a row


@dataclass(frozen=True)
class _Edge:
    start: int
    end: int
    layer: Layer | None
    shortcut: bool = False


def _edges(wiring: Wiring) -> list[_Edge] | None:
    """Layers and identities between tensors (0: the inputs, k + 1: what step k makes); None for another network."""
    names = [layer.name for layer in wiring.layers]
    if len(set(names)) < len(names):
        return None
    found = []
    for index, step in enumerate(wiring.steps):
        if isinstance(step, Join) and step.kind != "add":
            return None
        if isinstance(step, Layer) and (step.kind == "embedding" or step.used < step.size):
            return None
        for read in (step.reads,) if isinstance(step, Layer) else step.operands:
            tensors = [tensor for tensor, _, _ in wiring.groups.parts(read)]
            units, counts = np.unique(read[read >= 0], return_counts=True)
            if len(tensors) != 1 or (isinstance(step, Join) and counts.max(initial=1) > 1):
                return None
            if isinstance(step, Layer) and (len(units) < wiring.groups.sizes[tensors[0]] or (read < 0).any()):
                return None
            layer = step if isinstance(step, Layer) else None
            found.append(_Edge(tensors[0], index + 1, layer, index in wiring.shortcuts))
    return found


def _blocks(wiring: Wiring) -> list[tuple[int, list[list[_Edge]]]] | None:
    """(end, routes of edges) between tensors that all paths meet, in order; None if routes share an edge."""
    edges = _edges(wiring)
    ends = {tensor for tensor, _, _ in wiring.groups.parts(wiring.outputs)}
    if edges is None or len(ends) != 1 or len(np.unique(wiring.outputs)) < wiring.groups.sizes[max(ends)]:
        return None
    last = ends.pop()
    behind = {last}  # tensors that lead to the outputs
    for edge in reversed(edges):
        if edge.end in behind:
            behind.add(edge.start)
    edges = [edge for edge in edges if edge.end in behind]
    cuts = [t for t in sorted(behind) if not any(e.start < t < e.end for e in edges)]
    if cuts[0] != 0 or cuts[-1] != last:
        return None
    blocks = []
    for start, end in pairwise(cuts):
        inside = [edge for edge in edges if start <= edge.start and edge.end <= end]
        routes = list(_routes(inside, start, end))
        taken = [id(edge) for route in routes for edge in route]
        if len(set(taken)) < len(taken):
            return None
        blocks.append((end, routes))
    return blocks


def _routes(edges: list[_Edge], start: int, end: int) -> Iterator[list[_Edge]]:
    if start == end:
        yield []
    for edge in edges:
        if edge.start == start:
            for rest in _routes(edges, edge.end, end):
                yield [edge, *rest]


def _parts(wiring: Wiring, total: int, *, full: bool, priced: bool) -> list[Part] | None:
    blocks = _blocks(wiring)
    if blocks is None:
        return None
    held: dict[tuple[object, ...], Part] = {}
    found: dict[tuple[object, ...], int] = {}
    for place, (_, routes) in enumerate(blocks):
        routes = [[edge for edge in route if edge.layer is not None] for route in routes]
        ends = (place == 0) + 2 * (place == len(blocks) - 1)
        if any(len(route) > 3 for route in routes) or (ends and (len(routes) > 1 or len(routes[0]) != 1)):
            return None
        if not any(routes):
            continue
        after = len(routes) > 1  # what an addition makes need not come from this layer
        key = (ends, after, *(tuple(_shape(edge) for edge in route) for route in routes))
        if key not in held:
            part = _part(routes, total, ends, full, after, priced)
            if part is None:
                return None
            held[key] = part
        found[key] = found.get(key, 0) + 1
    return [replace(held[key], times=times) for key, times in found.items()]


def _shape(edge: _Edge) -> tuple[int, int, int, int, int, bool]:
    layer = edge.layer
    assert layer is not None
    units, counts = np.unique(layer.reads, return_counts=True)
    repeats = int(counts.max())
    return len(units), layer.outputs, layer.kernel_size * repeats, layer.groups, layer.positions or 0, edge.shortcut


Curve = tuple[np.ndarray, np.ndarray]  # units from which on, log of the norm


def _part(routes: list[list[_Edge]], total: int, ends: int, full: bool, after: bool, priced: bool) -> Part | None:
    """The block of these routes of layers. ends: 1 for the first layer of the network, 2 for the last, 3 for both."""
    shapes = [[_shape(edge) for edge in route] for route in routes]
    costs = [float(shape[4]) for route in shapes for shape in route]
    main = max(range(len(shapes)), key=lambda k: (len(shapes[k]), -k))
    if any(shape[5] for shape in shapes[main]) or any(
        not shape[5] for k, route in enumerate(shapes) for shape in route if k != main
    ):
        return None  # a second branch whose inputs are nodes
    tensors = [shape[0] for shape in shapes[main]]
    outputs = shapes[main][-1][1] if ends & 2 else 0
    sizes = [*tensors, *([outputs] if outputs else [])]
    points = _POINTS if full else _POINTS_OF_A_CHOICE
    most = _LARGEST_CURVE if full else _LARGEST_OF_A_CHOICE
    choices: list[tuple[int, Curve]] = []
    for low, high in _live(sizes, full):
        curve: Curve | None = None
        for k, shape in enumerate(shapes[main]):
            rows = low[k]
            inside = k + 1 < len(shapes[main])
            columns = low[k + 1] if inside or outputs else (shape[1] if full and not after else 0)
            this = _curve(shape, rows, columns, total, ends, points)
            curve = this if curve is None else _series(curve, this, most)
        assert curve is not None
        for k, route in enumerate(shapes):
            if k == main:
                continue
            other: Curve = (np.zeros(1), np.zeros(1))
            for shape in route:
                other = _series(other, _curve(shape, 0, 0, total, 0, points), most)
            curve = _parallel(curve, other, bool(route), most)
        if len(curve[0]):
            choices.append((sum(high), curve))
    if not choices:
        return None
    nodes = np.concatenate([np.full(len(units), count, np.float64) for count, (units, _) in choices])
    units, values = (np.concatenate(arrays) for arrays in zip(*(curve for _, curve in choices)))
    return Part(nodes, units, values, min(costs) if priced else 0.0)


def _live(sizes: list[int], full: bool) -> Iterator[tuple[list[int], list[int]]]:
    """(least, most live units of each tensor), for every combination of intervals."""
    if full:
        yield sizes, sizes
        return
    intervals = []
    for size in sizes:
        parts = _PARTS if len(sizes) < 3 else _PARTS[:: len(_PARTS) - 1]
        starts = sorted({int(part * size) for part in parts} | {size})
        intervals.append([(a, b - 1) for a, b in pairwise(starts)] + [(size, size)])
    for chosen in product(*intervals):
        yield [low for low, _ in chosen], [high for _, high in chosen]


def _curve(
    shape: tuple[int, int, int, int, int, bool], rows: int, columns: int, total: int, ends: int, points: int
) -> Curve:
    """Log norms of a layer: on (g_k, g_k+1] the value at g_k+1, from g_k + 1 units on, which is an upper bound."""
    from topo.kernels.coverage import column_norms, norms

    inputs, outputs, most, groups, _, _ = shape
    least = max(rows, columns, 1)
    top = min(total, inputs * outputs // groups * most)
    if least > top:
        return np.zeros(0), np.zeros(0)
    fine = min(least + points, top)
    ns = np.unique(np.r_[np.arange(least, fine + 1), np.geomspace(fine, top, points).astype(np.int64), top])
    if ends == 3:
        values = ns.astype(np.float64)
    elif ends & 1:
        values = column_norms(ns, rows, columns, inputs, outputs, most)
    elif ends & 2:
        values = column_norms(ns, columns, rows, outputs, inputs, most)
    elif groups > 1:
        values = np.minimum(np.sqrt(most * ns.astype(np.float64)), float(most) * max(inputs, outputs) / groups)
    else:
        values = norms(ns, rows, columns, inputs, outputs, most)
    if groups > 1 and ends:
        values = np.where(values < 0, ns.astype(np.float64), values)
    starts = np.r_[ns[0], ns[:-1] + 1].astype(np.float64)
    values = np.maximum.accumulate(np.where(values > 0, np.log(np.maximum(values, 1e-300)), -np.inf))
    known = np.isfinite(values)
    free = not (rows or columns)  # a layer that nobody needs may be empty
    return (
        np.r_[[0.0] if free else [], starts[known]],
        np.r_[[-np.inf] if free else [], values[known]],
    )


def _series(one: Curve, two: Curve, most: int) -> Curve:
    return _best((one[0][:, None] + two[0]).ravel(), (one[1][:, None] + two[1]).ravel(), most)


def _parallel(one: Curve, two: Curve, parameters: bool, most: int) -> Curve:
    """Norms of sums; without parameters the second is an identity."""
    if not parameters:
        return one[0], np.logaddexp(one[1], 0.0)
    return _best((one[0][:, None] + two[0]).ravel(), np.logaddexp(one[1][:, None], two[1]).ravel(), most)


def _best(units: np.ndarray, values: np.ndarray, most: int) -> Curve:
    """The largest value for so many units or fewer; longer curves by intervals, each with its last value."""
    order = np.argsort(units, kind="stable")
    units, values = units[order], np.maximum.accumulate(values[order])
    new = np.r_[True, values[1:] > values[:-1]] if len(values) else np.zeros(0, bool)
    units, values = units[new], values[new]
    if len(units) > most:
        places = np.unique(np.linspace(0, len(units) - 1, most).astype(int))
        units, values = units[np.r_[0, places[:-1] + 1]], values[places]
    return units, values
