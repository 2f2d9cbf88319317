"""Twins of the spectral metrics: dense singular values, networkx for components, definitions word by word."""

from __future__ import annotations

import math
import sys

import networkx as nx
import numpy as np
import scipy.linalg

from naive.net import Net, in_use
from topo.wiring import Layer


def matrix(net: Net, name: str, weights: np.ndarray | None = None, use: Layer | None = None) -> np.ndarray:
    """Biadjacency matrix (left, right) in the layer view, isolated units included; with weights, of |w|."""
    layer, mask = use or net.wiring.layer(name), net.masks[name]
    edges = mask.astype(float) if weights is None else np.abs(weights) * mask
    out, kernel_size = layer.shape[0], layer.kernel_size
    columns = layer.shape[1] * (kernel_size if net.layer_view == "kernel" else 1)
    found = np.zeros((columns * layer.groups, out))
    for index in zip(*np.nonzero(mask)):
        o, i = int(index[0]), int(index[1])
        tap = int(np.ravel_multi_index(index[2:], layer.shape[2:])) if len(index) > 2 else 0
        column = i * kernel_size + tap if net.layer_view == "kernel" else i
        place = (o * layer.groups // out) * columns + column
        if net.layer_view == "unit" and weights is None:
            found[place, o] = 1
        else:
            found[place, o] += edges[index]
    return found


def nothing_missed(b: np.ndarray, level: float) -> bool:
    """Inertia by LDL: at most one singular value of b is above `level`, up to what rounding may shift."""
    small = b if b.shape[0] <= b.shape[1] else b.T
    products, n = small @ small.T, len(small)
    _, blocks, _ = scipy.linalg.ldl(np.eye(n) * (level**2 + n * n * 2.0**-53 * products.sum(axis=0).max()) - products)
    pairs = np.append(np.diagonal(blocks, -1) != 0, False)  # 2 x 2 blocks have one negative eigenvalue each
    single = ~(pairs | np.roll(pairs, 1))
    return int(np.count_nonzero(np.diagonal(blocks)[single] < 0) + np.count_nonzero(pairs)) <= 1


def trimmed(b: np.ndarray) -> np.ndarray:
    """Without isolated units."""
    return b[b.any(axis=1)][:, b.any(axis=0)]


def sigmas(b: np.ndarray) -> tuple[float, float]:
    found = [*np.linalg.svd(b, compute_uv=False), 0.0]
    return float(found[0]), float(found[1])


def bound(b: np.ndarray) -> float:
    return math.sqrt(b.sum() / b.shape[0] - 1) + math.sqrt(b.sum() / b.shape[1] - 1)


def gap(b: np.ndarray) -> float:
    return bound(b) - sigmas(b)[1]


def degrees(b: np.ndarray) -> tuple[float, float]:
    return b.sum() / b.shape[0], b.sum() / b.shape[1]


def classes(b: np.ndarray, least_units: int, least_right: float) -> list[np.ndarray]:
    """Trimmed matrices of the classes of left units of one degree that count."""
    found = []
    for d in sorted(set(b.sum(axis=1)) - {0}):
        units = b[b.sum(axis=1) == d]
        part = trimmed(units)
        if len(units) >= least_units and degrees(part)[0] >= 3 and degrees(part)[1] >= least_right:
            found.append(part)
    return found


def _defined(function):
    """NaN for an empty layer."""

    def of_layer(net: Net, name: str):
        b = trimmed(matrix(net, name))
        return function(b) if b.size else math.nan

    return of_layer


layer_sigma1 = _defined(lambda b: sigmas(b)[0])
layer_sigma2 = _defined(lambda b: sigmas(b)[1])
layer_sigma_error = _defined(lambda b: 0.0)
layer_sigma_proved = _defined(lambda b: 1)
layer_spectral_gap = _defined(lambda b: sigmas(b)[0] - sigmas(b)[1])
layer_spectral_ratio = _defined(lambda b: sigmas(b)[1] / sigmas(b)[0])
layer_ramanujan_bound = _defined(bound)
layer_ramanujan_gap = _defined(gap)
layer_ramanujan_gap_relative = _defined(lambda b: gap(b) / bound(b) if bound(b) else math.nan)
layer_is_ramanujan = _defined(lambda b: int(gap(b) > -1e-9))
layer_delta_s = _defined(lambda b: 2 * math.sqrt(max(sigmas(b)[0] - 1, 0)) - sigmas(b)[1])
layer_expansion_ratio = _defined(lambda b: b.shape[1] / b.shape[0])


def layer_components(net: Net, name: str):
    b = matrix(net, name)
    graph = nx.Graph((("left", i), ("right", j)) for i, j in zip(*np.nonzero(b)))
    return nx.number_connected_components(graph)


def layer_gated(net: Net, name: str):
    b = trimmed(matrix(net, name))
    return int(not b.size or min(degrees(b)) < 3)


def layer_narc(net: Net, name: str):
    full = matrix(net, name)
    b = trimmed(full)
    if layer_gated(net, name):
        return math.nan
    n_l, n_r = b.shape
    d_l, edges = b.sum() / n_l, b.sum()
    first = (sigmas(b)[1] ** 2 / 4 + 1) * math.sqrt(n_l * n_r)
    return (first - abs(2 * edges - d_l / full.shape[1] * n_l * n_r)) / full.size


def _imdb(net: Net, name: str) -> list[np.ndarray]:
    return classes(trimmed(matrix(net, name)), 3, 3)


def layer_imdb(net: Net, name: str):
    found = _imdb(net, name)
    return sum(map(gap, found)) / len(found) if found else math.nan


def layer_imdb_relative(net: Net, name: str):
    found = _imdb(net, name)
    return sum(gap(b) / bound(b) for b in found) / len(found) if found else math.nan


def layer_imdb_classes(net: Net, name: str):
    return len(_imdb(net, name))


def layer_imdb_coverage(net: Net, name: str):
    b = trimmed(matrix(net, name))
    return sum(map(len, _imdb(net, name))) / len(b) if b.size else math.nan


def coordinate(net: Net, name: str, weights: np.ndarray) -> tuple[float, float, float, float]:
    """The full-spectrum coordinate, with the conventions of the NeurIPS 2023 code but NaN for what is undefined."""
    b, heavy = matrix(net, name), matrix(net, name, weights)
    gaps, weighted_gaps = [], []
    for d in sorted(set(b.sum(axis=1)) - {0}):
        units = b.sum(axis=1) == d
        part = trimmed(b[units])
        k_l, k_r = part.shape
        if k_l >= 2 and d >= 3 and part.sum() / k_r > 1:
            factor = max(k_l, k_r) / (k_l + k_r - 1)
            gaps.append(factor * gap(part))
            one, two = sigmas(heavy[units])
            weighted_gaps.append(factor * (one - two))
    one, two = sigmas(heavy)
    means = [sum(found) / len(found) if found else math.nan for found in (gaps, weighted_gaps)]
    return gap(trimmed(b)), one - two, *means


def layer_weighted_spectral_gap(net: Net, name: str):
    return math.nan  # the contract is held without weights; tests/test_spectral.py uses `coordinate`


layer_imsg = layer_full_spectrum = layer_weighted_spectral_gap


# Of the network.


def _mean(twin):
    def mean(net: Net):
        values = [value for name in net.masks if not math.isnan(value := twin(net, name))]
        return sum(values) / len(values) if values else math.nan

    return mean


def _count(twin):
    return lambda net: sum(not math.isnan(twin(net, name)) for name in net.masks)


for _key, _twin in list(vars().items()):
    if _key.startswith("layer_"):
        _name = _key.removeprefix("layer_")
        setattr(sys.modules[__name__], _name, _mean(_twin))
        setattr(sys.modules[__name__], f"{_name}_layers", _count(_twin))


def pairs(net: Net) -> list[tuple[np.ndarray, np.ndarray, dict[int, list[int]]]]:
    """(left x right of the first, of the second, output of the first -> columns of the second that read it)."""
    kernels = Net(net.masks, net.wiring, net.view)
    found = []

    def of_use(layer: Layer) -> np.ndarray:
        whole, per_group = matrix(kernels, layer.name, use=layer), layer.shape[1] * layer.kernel_size
        for place, o in zip(*np.nonzero(whole)):
            if not in_use(layer, int(o), int(place) % per_group // layer.kernel_size):
                whole[place, o] = 0
        return whole

    steps = [step for step in net.wiring.steps if isinstance(step, Layer) and step in net.layers]
    for place, second in enumerate(steps):
        for first in steps[:place]:
            if first.name not in net.masks or second.name not in net.masks:
                continue
            kernel_size: dict[int, list[int]] = {}
            for j, unit in enumerate(second.reads):
                if first.start <= unit < first.stop:
                    kernel_size.setdefault(int(unit) - first.start, []).extend(
                        range(j * second.kernel_size, (j + 1) * second.kernel_size)
                    )
            if kernel_size:
                found.append((of_use(first), of_use(second), kernel_size))
    return found


def _over_pairs(score):
    def mean(net: Net):
        values = [value for pair in pairs(net) if not math.isnan(value := score(*pair))]
        return sum(values) / len(values) if values else math.nan

    return mean


def _average(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@_over_pairs
def copeland(one, two, kernel_size):
    n_left, n_right = one.any(axis=1).sum(), two.any(axis=0).sum()
    if not n_right:
        return math.nan
    a = {c: one[:, c].sum() / n_left for c in kernel_size if one[:, c].any()}
    return _average([two[t].sum() / n_right / a[c] for c in a for t in kernel_size[c]])


@_over_pairs
def overlap_coefficient(one, two, kernel_size):
    found = []
    for c in kernel_size:
        sets = [set(np.flatnonzero(two[t])) for t in kernel_size[c]]
        if all(sets):
            found.append(len(set.intersection(*sets)) / min(map(len, sets)))
    return _average(found)


@_over_pairs
def compatibility(one, two, kernel_size):
    return _average([float(any(two[t].any() for t in kernel_size[c])) for c in kernel_size if one[:, c].any()])
