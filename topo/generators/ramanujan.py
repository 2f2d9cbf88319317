"""Ramanujan graphs in closed form: points and lines of finite planes, times complete graphs.

In the plane over the field of q elements there are q**2 points (x, y) and, for each of l slopes s, q parallel lines
y = s x + b. Each line has q points, each point l lines; lines of different slope meet in one point. So the incidence
matrix H has H H^T = q I + (J - I) x J, and singular values sqrt(l q) (once), sqrt(q) and 0. Joining each point b times
and each line a times (a Kronecker product with ones) multiplies them by sqrt(a b). That graph has l q a lines of degree
q b, q**2 b points of degree l a and density 1 / q; it is Ramanujan if

    sigma_2 = sqrt(q a b)  <=  sqrt(l a - 1) + sqrt(q b - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.biregular import biregular_graph
from topo.generators.channels import even, on_channels, placed
from topo.generators.fields import field, prime_power
from topo.masks import BitRows
from topo.wiring import Layer, Wiring


class Plane(NamedTuple):
    """l q a lines against q**2 b points; `upright` if the lines are rows."""

    q: int
    slopes: int
    a: int
    b: int
    upright: bool

    @property
    def edges(self) -> int:
        """q**2 b l a: q**2 b points on l a lines each."""
        return self.q**2 * self.b * self.slopes * self.a

    @property
    def sigma2(self) -> float:
        """sqrt(q a b)."""
        return math.sqrt(self.q * self.a * self.b)

    @property
    def bound(self) -> float:
        """sqrt(l a - 1) + sqrt(q b - 1)."""
        return math.sqrt(self.slopes * self.a - 1) + math.sqrt(self.q * self.b - 1)


def planes(rows: int, columns: int) -> Iterator[Plane]:
    """The constructions of this shape that are Ramanujan, for each q and side the one with least a b; q rises."""
    for q in range(2, math.isqrt(max(rows, columns)) + 1):
        if prime_power(q) is None:
            continue
        for lines, points, upright in ((rows, columns, True), (columns, rows, False)):
            if points % q**2 or lines % q:
                continue
            slopes = next((n for n in range(q, 1, -1) if lines // q % n == 0), None)
            if slopes is None:
                continue
            plane = Plane(q, slopes, lines // q // slopes, points // q**2, upright)
            if plane.sigma2 <= plane.bound:
                yield plane
                break


def plane_matrix(plane: Plane, rng: np.random.Generator) -> np.ndarray:
    """bool (rows, columns): the graph, with random slopes and its rows and columns in random order."""
    q, (add, multiply) = plane.q, field(plane.q)
    x, b = np.arange(q), np.arange(q)
    matrix = np.zeros((plane.slopes, q, q, q), np.bool_)  # slope, intercept, x, y
    for place, slope in enumerate(rng.permutation(q)[: plane.slopes]):
        matrix[place, b[:, None], x, add[multiply[slope, x], b[:, None]]] = True
    joined = np.tile(matrix.reshape(plane.slopes * q, q * q), (plane.a, plane.b))
    joined = joined[rng.permutation(len(joined))][:, rng.permutation(joined.shape[1])]
    return joined if plane.upright else joined.T


def _fitting(layer: Layer, budget: int) -> Plane | None:
    """The construction with most edges that can keep the budget exactly, else the nearest within a factor of 2."""
    share, found = budget / layer.groups, list(planes(layer.outputs // layer.groups, layer.shape[1]))
    exact = [plane for plane in found if plane.edges <= share <= plane.edges * layer.kernel_size]
    if exact:
        return max(exact, key=lambda plane: plane.edges)
    off = {plane: abs(min(max(share, plane.edges), plane.edges * layer.kernel_size) - share) for plane in found}
    nearest = min(found, key=lambda plane: off[plane], default=None)
    return (
        nearest
        if nearest is not None and share / 2 <= nearest.edges * layer.kernel_size and nearest.edges <= 2 * share
        else None
    )


def _plane_rows(layer: Layer, budget: int, plane: Plane, rng: np.random.Generator) -> BitRows:
    graph = np.concatenate([plane_matrix(plane, rng) for _ in range(layer.groups)])
    edges = layer.groups * plane.edges
    counts = np.zeros(graph.shape, np.int64)
    counts[graph] = even(min(max(budget, edges), edges * layer.kernel_size), edges, rng)
    return placed(layer, counts, rng)


@generator(
    source="Burnwal et al. 2021 (finite planes); Vooturi et al. 2021 (products)",
    quota="uniform",
    exact="no",
    keeps="Ramanujan graphs between channels; the budget where a kernel has room for it, else the nearest construction",
)
def ramanujan(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, otherwise: str = "error") -> Drawn:
    """Ramanujan graphs in closed form (points and lines of finite planes, products); density 1 / q of the channels.

    A layer takes the densest construction of its shape that its budget fills; a convolution meets the budget exactly by
    keeping more of each kernel, a linear layer takes the nearest construction within a factor of 2. otherwise: what to
    do with a layer whose shape and budget no construction fits: error, biregular (random, exact) or dense.
    """
    if otherwise not in ("error", "biregular", "dense"):
        raise TopoError(f"option 'otherwise' of 'ramanujan' holds '{otherwise}'; it is error, biregular or dense")
    for layer, budget in requested(wiring, budgets):
        plane = _fitting(layer, budget)
        if plane is not None:
            yield layer.name, _plane_rows(layer, budget, plane, rng)
        elif otherwise == "error":
            raise TopoError(_refusal(layer, budget))
        else:
            kept = budget if otherwise == "biregular" else layer.size
            yield layer.name, on_channels(layer, kept, lambda r, c, e: biregular_graph(r, c, e, 10, rng), rng)


def _refusal(layer: Layer, budget: int) -> str:
    rows, columns = layer.outputs // layer.groups, layer.shape[1]
    known = sorted({plane.q for plane in planes(rows, columns)})
    has = f"has constructions of density {', '.join(f'1/{q}' for q in known)}" if known else "has no construction"
    return (
        f"layer '{layer.name}' joins {columns} channels to {rows}, a shape that {has}, and is to keep {budget:,} of "
        f"{layer.size:,} parameters; -O otherwise=biregular (or dense) lets such layers be"
    )
