"""RadiX-Nets: mixed-radix topologies, whose paths are as many between any input and any output.

With radices N_1 ... N_k of product n, layer i joins unit j to j + t N_1 ... N_{i-1} modulo n, t < N_i: after k layers
exactly one path leads from every unit to every other, as digits make up a number. Widths D n are D copies of the n
places, and each edge joins all copies of one place to all copies of the other (a Kronecker product with ones).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import placed
from topo.wiring import Layer, Wiring

Radices = tuple[int, ...]
# Nets that keep more times the budget, or less than one in so many of it, are taken only where their radices are given.
_NEAR = 2.0


def factorings(n: int, largest: int | None = None) -> Iterator[Radices]:
    """Every way of writing n as a product of factors of 2 or more, in falling order."""
    if n == 1:
        yield ()
    for factor in range(min(n, largest or n), 1, -1):
        if n % factor == 0:
            for rest in factorings(n // factor, factor):
                yield (factor, *rest)


def radix_matrix(radices: Sequence[int], position: int) -> np.ndarray:
    """bool (n, n), outputs by inputs: layer `position` of the mixed-radix net, counted through again and again."""
    n, place = math.prod(radices), position % len(radices)
    step, units = math.prod(radices[:place]), np.arange(math.prod(radices))
    matrix = np.zeros((n, n), np.bool_)
    for jump in range(radices[place]):
        matrix[(units + jump * step) % n, units] = True
    return matrix


def _read(text: str) -> Radices:
    parts = text.split("-") if text else []
    if not all(part.isdecimal() and 2 <= int(part) <= 1 << 20 for part in parts):
        raise TopoError(f"option 'radices' of method 'radix' holds '{text}'; it is numbers of 2 or more, as in 4-4-4")
    return tuple(map(int, parts))


def _multiplicity(layer: Layer, budget: int, radix: int, n: int) -> int:
    """Parameters of each kernel that is kept: as many as come nearest the budget."""
    kernels = layer.outputs * radix * (layer.shape[1] // n)
    return min(max(1, round(budget / kernels)), layer.kernel_size)


def _kept(layers: Sequence[tuple[Layer, int]], radices: Radices) -> int:
    n = math.prod(radices)
    return sum(
        layer.outputs * radix * (layer.shape[1] // n) * _multiplicity(layer, budget, radix, n)
        for place, (layer, budget) in enumerate(layers)
        for radix in [radices[place % len(radices)]]
    )


def _chosen(layers: Sequence[tuple[Layer, int]]) -> Radices:
    """The radices whose product divides all widths and whose net comes nearest the budget; more edges among equals."""
    common = math.gcd(*(width for layer, _ in layers for width in (layer.outputs // layer.groups, layer.shape[1])))
    if common == 1:
        raise TopoError(
            "the widths of these layers have no common divisor, so that no mixed radix fits: "
            + ", ".join(f"'{layer.name}' {layer.shape[1]}-{layer.outputs // layer.groups}" for layer, _ in layers[:6])
            + (" ..." if len(layers) > 6 else "")
            + "; -O ends=dense leaves the first and the last layer dense"
        )
    budget = max(1, sum(budget for _, budget in layers))
    nearest = min(factorings(common), key=lambda radices: abs(math.log(_kept(layers, radices) / budget)))
    kept = _kept(layers, nearest)
    if not budget / _NEAR <= kept <= budget * _NEAR:
        raise TopoError(
            f"the mixed-radix net of these widths that is nearest to {budget:,} parameters keeps {kept:,}: their "
            f"common divisor is {common}; take widths that share more factors, ends=dense, or radices, as in 4-4"
        )
    return nearest


@generator(
    source="Robinett & Kepner 2019",
    quota="uniform",
    exact="no",
    keeps="equally many paths between any input and any output of a plain chain of full systems; the nearest budget",
)
def radix(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, radices: str = "", ends: str = "fit") -> Drawn:
    """RadiX-Net, mixed-radix layers with Kronecker widths; path counts known in closed form, budget only nearly met.

    radices: as in 4-4-4, taken in turn by the layers in running order; by default the factors of the widths' greatest
    common divisor that come nearest the budget. ends: dense leaves the first and the last layer dense, fit masks them
    too. A unit of layer i feeds N_i D_i others with m_i parameters each (m_i of a convolution's kernel, 1 in a linear
    layer), so that a plain chain has inputs * prod(N_i D_i m_i) paths, spread evenly where the radices end with the
    network. The budget cannot be met exactly: the nearest net is taken, if it keeps half to twice as many parameters;
    given radices are taken whatever they keep.
    """
    if ends not in ("fit", "dense"):
        raise TopoError(f"option 'ends' of method 'radix' holds '{ends}'; it is fit or dense")
    given, layers = _read(radices), list(requested(wiring, budgets))
    inner = layers[1:-1] if ends == "dense" else layers
    if not inner:
        raise TopoError("method 'radix' with ends=dense needs three layers or more")
    system = given or _chosen(inner)
    n = math.prod(system)
    names = {layer.name: place for place, (layer, _) in enumerate(inner)}
    for layer, budget in layers:
        rows, columns = layer.outputs // layer.groups, layer.shape[1]
        if layer.name not in names:
            yield layer.name, placed(layer, np.full((layer.outputs, columns), layer.kernel_size), rng)
            continue
        for width in (rows, columns):
            if width % n:
                raise TopoError(
                    f"layer '{layer.name}' has {width} units on a side, no multiple of {n}, as {system} asks"
                )
        place = names[layer.name]
        matrix = np.tile(radix_matrix(system, place), (layer.outputs // n, columns // n))
        yield layer.name, placed(layer, matrix * _multiplicity(layer, budget, system[place % len(system)], n), rng)
