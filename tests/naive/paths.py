"""Twins of PATHS: every path enumerated, Python integers. Small networks only."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby

import numpy as np

from naive.net import Net, in_use
from topo.masks import MaskSet
from topo.wiring import Layer, Wiring


def entropy(visits: Counter) -> float:
    total = sum(visits.values())
    return -sum(n / total * math.log(n / total) for n in visits.values()) if total else 0.0


def width(visits: Counter) -> float:
    return math.exp(entropy(visits)) if visits else 0.0


# Of the network.


def params(net: Net):
    return sum(int(np.prod(shape)) for shape in net.masks.shapes.values())


def kept(net: Net):
    return sum(int(net.masks[name].sum()) for name in net.masks)


def density(net: Net):
    return kept(net) / params(net)


def sparsity(net: Net):
    return 1 - kept(net) / params(net)


def effective_params(net: Net):
    return sum(len(net.effective[name]) for name in net.masks)


def effective_density(net: Net):
    return effective_params(net) / params(net)


def effective_sparsity(net: Net):
    return 1 - effective_density(net)


def nodes(net: Net):
    return sum(len({int(u) for u in layer.reads if u >= 0}) for _, layer in net.node_layers) + len(net.ends)


def effective_nodes(net: Net):
    found = len(net.ends & net.forward)
    for _, layer in net.node_layers:
        found += len({u for _, u, v in net.parameters(layer) if u in net.forward and v in net.backward})
    return found


def _units(net: Net):
    return {int(u) for layer in net.layers for u in layer.reads if u >= 0} | net.ends


def units(net: Net):
    return len(_units(net))


def effective_units(net: Net):
    return len(_units(net) & net.forward & net.backward)


def effective_kernels(net: Net):
    pairs = {(unit_of(net, *p), first_use(net, *p).start + p[1]) for name in net.masks for p in net.effective[name]}
    return sum(unit >= 0 for unit, _ in pairs)


def first_use(net: Net, name: str, o: int, i: int, *tap: int) -> Layer:
    """The first use that takes a parameter."""
    return next(use for use in net.layers if use.name == name and in_use(use, o, i))


def unit_of(net: Net, name: str, o: int, i: int, *tap: int) -> int:
    """The unit behind a parameter."""
    first = first_use(net, name, o, i)
    return int(first.reads[o // (first.shape[0] // first.groups) * first.shape[1] + i])


def layer_collapse(net: Net):
    return sum(not net.effective[name] for name in net.masks)


def effective_paths(net: Net):
    return len(net.paths)


def log10_effective_paths(net: Net):
    return math.log10(len(net.paths)) if net.paths else -math.inf


def path_entropy_width(net: Net):
    if not net.paths:
        return math.nan
    ends = Counter(path[-1][2] for path in net.paths)
    return sum(width(net.inputs_of(index)) for index, _ in net.node_layers) + width(ends)


def _layer_indices(net: Net):
    return [index for index, step in enumerate(net.wiring.steps) if step in net.layers]


def path_entropy(net: Net):
    return sum(entropy(net.visits(index)) for index in _layer_indices(net)) if net.paths else math.nan


def reachable(wiring: Wiring, masked: Iterable[str]) -> tuple[set[int], set[int]]:
    """Units on a directed way from a start, and on one to an end, along value branches, every weight kept."""
    dense = Net(MaskSet({name: np.ones(wiring.shapes[name], bool) for name in masked}), wiring)
    back = defaultdict(list)
    for unit, arcs in dense.arcs.items():
        for _, following in arcs:
            back[following].append(unit)

    def reached(units: set[int], following: Mapping[int, list[int]]) -> set[int]:
        seen, waiting = set(units), list(units)
        while waiting:
            new = set(following.get(waiting.pop(), ())) - seen
            seen |= new
            waiting += new
        return seen

    ahead = {unit: [v for _, v in arcs] for unit, arcs in dense.arcs.items()}
    return reached(dense.starts, ahead), reached(dense.ends, back)


def balance_gap(net: Net):
    if not net.paths:
        return math.nan
    ahead, behind = reachable(net.wiring, net.masks)
    counts = [sum(u in ahead and v in behind for _, u, v in net.edges(layer)) for layer in net.layers]
    bound = sum(math.log(count) for count in counts if count)
    return 1 - path_entropy(net) / bound if bound else math.nan


def _macs(net: Net, weights, name: str | None = None):
    used = [layer for layer in net.layers if layer.kind != "embedding" and name in (None, layer.name)]
    if any(layer.positions is None for layer in used):
        return math.nan
    return sum(
        layer.positions for layer in used for o, i, *_ in map(tuple, weights(layer)) if in_use(layer, int(o), int(i))
    )


def macs_dense(net: Net, name: str | None = None):
    return _macs(net, lambda layer: np.ndindex(layer.shape), name)


def macs_kept(net: Net, name: str | None = None):
    return _macs(net, lambda layer: np.argwhere(net.array(layer.name)), name)


def macs_effective(net: Net, name: str | None = None):
    return _macs(net, lambda layer: [index for _, *index in net.effective[layer.name]], name)


def flops_dense(net: Net, name: str | None = None):
    return 2 * macs_dense(net, name)


def flops_kept(net: Net, name: str | None = None):
    return 2 * macs_kept(net, name)


def flops_effective(net: Net, name: str | None = None):
    return 2 * macs_effective(net, name)


# Of a layer.

layer_macs_dense, layer_macs_kept, layer_macs_effective = macs_dense, macs_kept, macs_effective
layer_flops_dense, layer_flops_kept, layer_flops_effective = flops_dense, flops_kept, flops_effective


def layer_kept(net: Net, name: str):
    return int(net.masks[name].sum())


def layer_density(net: Net, name: str):
    return float(net.masks[name].mean())


def layer_sparsity(net: Net, name: str):
    return 1 - float(net.masks[name].mean())


def layer_dead_in(net: Net, name: str):
    layer, mask = net.wiring.layer(name), net.masks[name]
    groups = np.split(mask, layer.groups)
    return sum(not group[:, i].any() for group in groups for i in range(layer.shape[1]))


def layer_dead_out(net: Net, name: str):
    return sum(not row.any() for row in net.masks[name])


def layer_effective_params(net: Net, name: str):
    return len(net.effective[name])


def layer_effective_in(net: Net, name: str):
    return len({unit_of(net, *p) for p in net.effective[name]} - {-1})


def layer_effective_out(net: Net, name: str):
    return len({p[1] for p in net.effective[name]})


def layer_path_entropy_width(net: Net, name: str):
    if not net.paths:
        return math.nan
    uses = [layer for layer in net.layers if layer.name == name]
    ahead, behind = reachable(net.wiring, net.masks)
    dense = Net(MaskSet({other: np.ones(shape, bool) for other, shape in net.wiring.shapes.items()}), net.wiring)
    met = [use for use in uses if any(u in ahead and v in behind for _, u, v in dense.parameters(use))]
    return width(net.inputs_of(net.wiring.steps.index((met + uses)[0])))


def paths_by_integers(net: Net) -> int:
    """The number of paths by a forward pass of Python integers, for networks too large to enumerate."""
    count = Counter(dict.fromkeys(net.starts, 1))
    for step in net.wiring.steps:
        if isinstance(step, Layer):
            if step not in net.sources:
                for (_, v), group in groupby(sorted((u, v) for _, u, v in net.edges(step)), key=lambda e: (0, e[1])):
                    count[v] += sum(count[u] for u, _ in group)
        elif step.kind != "score":
            for op in step.operands if step.kind == "add" else step.operands[:1]:
                for k, u in enumerate(op):
                    if u >= 0 and (step.kind == "add" or step.start + k in net.forward):
                        count[step.start + k] += count[int(u)]
    return sum(count[u] for u in net.ends)
