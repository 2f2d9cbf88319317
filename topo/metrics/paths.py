"""PATHS: parameters, nodes, paths, FLOPs and their balance (spec of the group in docs; sources per metric).

Notation: F_i paths from the inputs to unit i, B_j paths from unit j to the outputs, M_ij kept weights from i to j, P
all paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from topo import views
from topo.errors import TopoError
from topo.graph import Block, LayeredGraph, columns_to_inputs, used_bits
from topo.masks import BitRows, MaskSet
from topo.metrics import flow, metric, shared
from topo.report import Value
from topo.wiring import Layer

_NPB = "Pham et al., Towards Data-Agnostic Pruning At Initialization, NeurIPS 2023"
_VK = "Vysogorets & Kempe, Connectivity Matters, arXiv 2107.02306"
_BALANCE = "node-path balance law: log P + sum H(V) = sum H(pi) <= sum log n"
_NO_PATH = "no path from the inputs to the outputs is left"


def _network(unit: str, source: str = "definition", *, wired: bool = True):
    return metric(group="paths", scope="network", unit=unit, source=source, wired=wired)


def _layer(unit: str, source: str = "definition", *, wired: bool = True):
    return metric(group="paths", scope="layer", unit=unit, source=source, wired=wired)


# What follows needs no wiring.


@_network("parameters", wired=False)
def params(graph: LayeredGraph) -> int:
    """Number of masked parameters, kept or not."""
    return graph.masks.size


@_network("parameters", wired=False)
def kept(graph: LayeredGraph) -> int:
    """Number of kept parameters."""
    return sum(block.kept for block in graph.masked_blocks)


@_network("fraction", wired=False)
def density(graph: LayeredGraph) -> float:
    """kept / params."""
    return kept(graph) / params(graph)


@_network("fraction", wired=False)
def sparsity(graph: LayeredGraph) -> float:
    """1 - density."""
    return 1.0 - density(graph)


@_layer("parameters", wired=False)
def layer_kept(graph: LayeredGraph, block: Block) -> int:
    """Number of kept parameters of the layer."""
    return block.kept


@_layer("fraction", wired=False)
def layer_density(graph: LayeredGraph, block: Block) -> float:
    """Kept over all parameters of the layer."""
    return block.kept / block.size


@_layer("fraction", wired=False)
def layer_sparsity(graph: LayeredGraph, block: Block) -> float:
    """1 - density of the layer."""
    return 1.0 - block.kept / block.size


@_layer("units", wired=False)
def layer_dead_in(graph: LayeredGraph, block: Block) -> int:
    """Input channels of the layer without a kept weight (fan-out 0)."""
    return int(np.count_nonzero(~block.used_inputs))


@_layer("units", wired=False)
def layer_dead_out(graph: LayeredGraph, block: Block) -> int:
    """Output units of the layer without a kept weight (fan-in 0)."""
    return int(np.count_nonzero(~block.used_outputs))


# Effective: on a path from an input to an output, decided by booleans.


@shared
def _effective_by_layer(graph: LayeredGraph) -> dict[str, int]:
    return {
        name: int(np.bitwise_count(words).sum(dtype=np.int64)) for name, words in flow.effective_words(graph).items()
    }


def effective_masks(graph: LayeredGraph) -> MaskSet:
    """The masks reduced to their effective parameters: the same paths, nothing useless."""
    words = flow.effective_words(graph)
    return MaskSet(
        {block.name: BitRows(block.shape, words[block.name]) for block in graph.masked_blocks},
        provenance=graph.masks.provenance,
    )


@_network("parameters", _VK)
def effective_params(graph: LayeredGraph) -> int:
    """Kept parameters on a path from an input to an output."""
    by_layer = _effective_by_layer(graph)
    return sum(by_layer[block.name] for block in graph.masked_blocks)


@_network("fraction", _VK)
def effective_density(graph: LayeredGraph) -> float:
    """effective_params / params."""
    return effective_params(graph) / params(graph)


@_network("fraction", _VK)
def effective_sparsity(graph: LayeredGraph) -> float:
    """1 - effective_density."""
    return 1.0 - effective_density(graph)


@_layer("parameters", _VK)
def layer_effective_params(graph: LayeredGraph, block: Block) -> int:
    """Kept parameters of the layer on a path from an input to an output."""
    return _effective_by_layer(graph)[block.name]


@shared
def _uses(graph: LayeredGraph) -> dict[str, list[tuple[Block, np.ndarray]]]:
    """Parameter -> (use, effective bits that it is the first to take), for each use that is the first to take any."""
    found: dict[str, list[tuple[Block, np.ndarray]]] = {}
    left = dict(flow.effective_words(graph))
    for _, block in graph.uses:
        if block.name not in found or left[block.name].any():
            assert block.layer is not None
            words = used_bits(BitRows(block.shape, left[block.name]), block.layer).words
            found.setdefault(block.name, []).append((block, words))
            left[block.name] = left[block.name] & ~words
    return found


@_layer("units")
def layer_effective_in(graph: LayeredGraph, block: Block) -> int:
    """Input units of the layer with an effective weight in it (a unit that is read several times counts once).

    A weight that several uses of the parameter take counts in the first.
    """
    read = [_effective_inputs(words, step) for step, words in _uses(graph)[block.name]]
    return len(_distinct(np.concatenate(read)))


@_layer("units")
def layer_effective_out(graph: LayeredGraph, block: Block) -> int:
    """Output units of the layer with an effective weight in it."""
    return int(np.count_nonzero(flow.effective_words(graph)[block.name].any(axis=1)))


def _effective_inputs(words: np.ndarray, block: Block) -> np.ndarray:
    """Units that the layer reads with one of the weights in `words`."""
    columns = np.bitwise_or.reduce(words.reshape(block.groups, -1, words.shape[1]), axis=1)
    used = block.reads[columns_to_inputs(columns, block.shape[1], block.taps)]
    return _distinct(used)


def _distinct(units: np.ndarray) -> np.ndarray:
    """The units of an array, each once, in rising order, without "no unit"."""
    if units.size and units[0] >= 0 and (units[1:] > units[:-1]).all():
        return units
    return np.unique(units[units >= 0])


@shared
def _node_layers(graph: LayeredGraph) -> list[tuple[int, Block]]:
    """Steps whose inputs are nodes in the papers' convention: not shortcut layers, not unmasked embeddings."""
    assert graph.wiring is not None
    return [(index, block) for index, block in graph.uses if index not in graph.wiring.shortcuts]


@_network("nodes", _NPB)
def nodes(graph: LayeredGraph) -> int:
    """Input units of every layer but shortcuts, plus the outputs: a stream counts once for each layer that reads it."""
    assert graph.wiring is not None
    read = sum(len(_distinct(step.reads)) for _, step in _node_layers(graph))
    return read + len(graph.wiring.outputs)


@_network("nodes", _NPB)
def effective_nodes(graph: LayeredGraph) -> int:
    """Of `nodes`, those with an effective weight in the layer that reads them; effective outputs (ResNet-20: 701)."""
    assert graph.wiring is not None
    state, outputs = flow.live(graph), graph.wiring.outputs
    live_outputs = int(np.count_nonzero(state.forward[outputs] & state.backward[outputs]))
    read = flow.effective_by_step(graph).read.tolist()
    return sum(read[index] for index, _ in _node_layers(graph)) + live_outputs


@shared
def _units(graph: LayeredGraph) -> np.ndarray:
    """Units that a layer reads or the network gives, each once."""
    assert graph.wiring is not None
    reads = [block.reads for _, block in graph.uses]
    return _distinct(np.concatenate([*reads, graph.wiring.outputs]))


@_network("units")
def units(graph: LayeredGraph) -> int:
    """Distinct units that a layer reads or the network gives: each tensor counts once."""
    return len(_units(graph))


@_network("units")
def effective_units(graph: LayeredGraph) -> int:
    """Of `units`, those on a path from an input to an output."""
    return int(np.count_nonzero(flow.live(graph).effective[_units(graph)]))


@_network("kernels")
def effective_kernels(graph: LayeredGraph) -> int:
    """Pairs (input unit, output unit) of a layer that an effective weight joins: k x k kernels that are not empty.

    A weight that several uses of the parameter take counts in the first.
    """
    total = 0
    for block in graph.masked_blocks:
        for step, words in _uses(graph)[block.name]:
            edges = views.unit(BitRows(step.shape, words), step.reads, step.groups)
            total += edges.total
            if (edges.reads < 0).any():
                total -= int(edges.fan_out()[edges.reads < 0].sum())
    return total


@_network("layers")
def layer_collapse(graph: LayeredGraph) -> Value:
    """Number of masked layers without an effective parameter; the note names them."""
    by_layer = _effective_by_layer(graph)
    names = [block.name for block in graph.masked_blocks if by_layer[block.name] == 0]
    return Value(len(names), f"no effective parameter in: {', '.join(names)}" if names else None)


# Paths.


@_network("paths", _NPB)
def effective_paths(graph: LayeredGraph) -> int:
    """P: paths from an input unit to an output unit along kept weights, exact."""
    return flow.exact_paths(graph)


@_network("log10 paths", _NPB)
def log10_effective_paths(graph: LayeredGraph) -> Value:
    """log10 P, -inf if no path is left; by mantissa and exponent, on any depth."""
    value = flow.log10(flow.effective_counts(graph).forward_total())
    return Value(value, _NO_PATH if value == -math.inf else None)


def unit_centrality(graph: LayeredGraph) -> np.ndarray:
    """V(v) = F(v) B(v) / P, the share of all paths that meet each unit: float64 (units,), NaN where no path is left."""
    walk = flow.effective_counts(graph)
    assert graph.wiring is not None
    mantissa, exponent = walk.forward_total()
    share = np.full(graph.wiring.n_units, np.nan if mantissa == 0 else 0.0)
    if mantissa:
        for group, units_ in _group_units(graph):
            ahead, behind = walk.forward[group], walk.backward[group]
            if behind is not None:
                shift = int(np.clip(ahead.exponent + behind.exponent - exponent, -2000, 2000))
                share[units_] = np.ldexp(ahead.mantissa * behind.mantissa / mantissa, shift)
    return share


def _group_units(graph: LayeredGraph):
    assert graph.wiring is not None
    yield 0, graph.wiring.inputs
    for index, step in enumerate(graph.wiring.steps):
        yield index + 1, slice(step.start, step.stop)


def edge_centrality(graph: LayeredGraph, name: str) -> np.ndarray:
    """F_i M_ij B_j / P, the share of all paths on each edge of a layer: float64 (out, in / groups), NaN if none.

    The layer is the first use of the parameter `name` that a path could meet; its columns are the input channels of
    each group, in order.
    """
    walk = flow.effective_counts(graph)
    mantissa, exponent = walk.forward_total()
    if name not in _met_use(graph):
        raise TopoError(f"no layer is called '{name}'; there are: {', '.join(_met_use(graph))}")
    index = _met_use(graph)[name]
    step = graph.steps[index]
    assert isinstance(step, Block)
    rows, columns = step.shape[0], step.shape[1]
    if not mantissa or step.source:
        return np.full((rows, columns), np.nan)
    ahead, behind = walk.gather(step.reads), walk.backward[index + 1]
    shift = int(np.clip(ahead.exponent + behind.exponent - exponent, -2000, 2000))
    kept_ = step.rows.unpack().reshape(rows, columns, -1).sum(axis=2)
    per_group = ahead.mantissa.reshape(step.groups, columns).repeat(rows // step.groups, axis=0)
    return np.ldexp(kept_ * per_group * behind.mantissa[:, None] / mantissa, shift)


# Balance: entropies of a uniformly random path, in nats.


def _entropy(weights: np.ndarray) -> float:
    """Shannon entropy of weights / sum(weights); 0 if they are all 0."""
    total = weights.sum()
    if total <= 0:
        return 0.0
    share = weights[weights > 0] / total
    return float(-(share * np.log(share)).sum())


def _width(weights: np.ndarray) -> float:
    """exp of the entropy (Hill number): how many units share the paths; 0 if no path comes by."""
    return math.exp(_entropy(weights)) if weights.sum() > 0 else 0.0


@shared
def _met_use(graph: LayeredGraph) -> dict[str, int]:
    """Parameter -> the first step that uses it and that a path could meet; where none could, the first."""
    assert graph.wiring is not None
    ahead, behind = graph.wiring.reachable
    found: dict[str, int] = {}
    for index, step in enumerate(graph.steps):
        if isinstance(step, Block) and step.layer is not None and step.name not in found:
            made = (behind[step.layer.start : step.layer.stop] & step.layer.part[0]).reshape(step.groups, -1)
            if (made.any(axis=1) & ahead[step.reads].reshape(step.groups, -1).any(axis=1)).any():
                found[step.name] = index
    first = {step.name: index for index, step in reversed(list(enumerate(graph.steps))) if isinstance(step, Block)}
    return first | found


@shared
def _widths(graph: LayeredGraph) -> dict[int, float]:
    """Step -> width of the layer's inputs: the Hill number of F_i sum_j M_ij B_j over its input units."""
    walk = flow.effective_counts(graph)
    found = {}
    for index, read in walk.read.items():
        step = graph.steps[index]
        assert isinstance(step, Block)
        reads, through = step.edges.reads, read.mantissa * walk.pushed[index].mantissa
        if len(np.unique(reads)) < len(reads):
            _, places = np.unique(reads, return_inverse=True)
            through = np.bincount(places, through)
        found[index] = _width(through)
    return found


def _has_paths(graph: LayeredGraph) -> bool:
    return flow.effective_counts(graph).forward_total()[0] > 0


@_network("nodes", _BALANCE)
def path_entropy_width(graph: LayeredGraph) -> Value:
    """Effective number of nodes: sum over layers (as `nodes`) of exp H of the unit that a random path visits."""
    if not _has_paths(graph):
        return Value(math.nan, _NO_PATH)
    assert graph.wiring is not None
    walk, widths = flow.effective_counts(graph), _widths(graph)
    return Value(
        sum(widths[index] for index, _ in _node_layers(graph)) + _width(walk.gather(graph.wiring.outputs).mantissa),
        None,
    )


@_layer("nodes", _BALANCE)
def layer_path_entropy_width(graph: LayeredGraph, block: Block) -> Value:
    """exp of the Shannon entropy of the input unit that a random path through the layer visits; 0 if none passes.

    Of a parameter that is used several times, in the first use that a path could meet.
    """
    if not _has_paths(graph):
        return Value(math.nan, _NO_PATH)
    return Value(_widths(graph)[_met_use(graph)[block.name]], None)


def entropy_bound(graph: LayeredGraph) -> float:
    """Sum over layers of log n, n the kept parameters that a path could meet: what path_entropy reaches at most.

    Parameters that only gate (queries, keys), or lead nowhere in this wiring, are left out: see `Wiring.reachable`.
    """
    assert graph.wiring is not None
    ahead, behind = graph.wiring.reachable
    bound = 0.0
    for _, block in graph.uses:
        assert block.layer is not None
        fed, used = ahead[block.edges.reads], behind[block.layer.start : block.layer.stop]
        every = fed.all() and used.all()
        total = block.edges.total if every else float(block.edges.pull(fed.astype(np.float64)) @ used)
        bound += math.log(total) if total else 0.0
    return bound


@shared
def _path_entropy(graph: LayeredGraph) -> float:
    """Sum over layers of the entropy H of the parameter on a random path through it; 0 of one that no path meets.

    With p_ij = F_i B_j / P_e for each of M_ij parameters, P_e = sum F_i M_ij B_j:
    H = log P_e - [ sum_i F_i log F_i (M^T B)_i + sum_j B_j log B_j (M F)_j ] / P_e, free of the scales of F and B.
    """
    walk = flow.effective_counts(graph)
    found = 0.0
    for index, read in walk.read.items():
        step = graph.steps[index]
        assert isinstance(step, Block)
        ahead, behind = read.mantissa, walk.backward[index + 1].mantissa
        given, taken = walk.forward[index + 1].mantissa, walk.pushed[index].mantissa
        # Both sums run over the same paths: each is divided by its own total, so that the scales cancel.
        total_in, total_out = float(ahead @ taken), float(given @ behind)
        if total_in <= 0 or total_out <= 0:
            continue
        inside = ahead > 0
        mean_ahead = float((ahead[inside] * np.log(ahead[inside])) @ taken[inside]) / total_in
        outside = behind > 0
        mean_behind = float((behind[outside] * np.log(behind[outside])) @ given[outside]) / total_out
        log_total = math.log(total_in) + (walk.pushed[index].exponent - walk.backward[index + 1].exponent) * math.log(
            2.0
        )
        found += max(log_total - mean_ahead - mean_behind, 0.0)
    return found


@_network("nats", _BALANCE)
def path_entropy(graph: LayeredGraph) -> Value:
    """U = sum over layers of the entropy of the parameter that a random path through the layer uses."""
    return Value(_path_entropy(graph), None) if _has_paths(graph) else Value(math.nan, _NO_PATH)


@_network("fraction", _BALANCE)
def balance_gap(graph: LayeredGraph) -> Value:
    """1 - U / sum over layers of log n, n kept weights: 0 iff every parameter of a layer lies on equally many paths.

    A layer whose paths are all cut wastes its n parameters; those that no path could meet, as they only gate or lead
    nowhere, count in neither sum.
    """
    if not _has_paths(graph):
        return Value(math.nan, _NO_PATH)
    bound = entropy_bound(graph)
    if bound == 0:
        return Value(math.nan, "every layer keeps a single parameter: the bound is 0")
    return Value(max(1.0 - _path_entropy(graph) / bound, 0.0), None)


# FLOPs of one example; one multiply-accumulate is two.


def _macs(graph: LayeredGraph, weights: Callable[[Block, Layer], int]) -> Value:
    """Sum over all uses of layers of the weights that take part, times output positions."""
    total = 0
    for step in graph.steps:
        if not isinstance(step, Block) or step.layer is None or step.layer.kind == "embedding":
            continue
        if step.layer.positions is None:
            return Value(math.nan, f"output size of '{step.name}' is unknown: give the model and its input shape")
        total += weights(step, step.layer) * step.layer.positions
    return Value(total, None)


def _twice(value: Value) -> Value:
    return Value(2 * value.number, value.note)


@_network("multiply-accumulates")
def macs_dense(graph: LayeredGraph) -> Value:
    """Multiply-accumulates of the dense layers on one example: weights x output positions."""
    return _macs(graph, lambda step, layer: layer.used)


@_network("multiply-accumulates")
def macs_kept(graph: LayeredGraph) -> Value:
    """Multiply-accumulates of the kept weights on one example."""
    return _macs(graph, lambda step, layer: step.kept)


@_network("multiply-accumulates")
def macs_effective(graph: LayeredGraph) -> Value:
    """Multiply-accumulates of the effective weights on one example."""
    words = flow.effective_words(graph)  # of any use: a weight that is kept for one is multiplied by in all

    def effective(step: Block, layer: Layer) -> int:
        if layer.used == layer.size:
            return _effective_by_layer(graph)[step.name]
        return int(np.bitwise_count(words[step.name] & step.rows.words).sum(dtype=np.int64))

    return _macs(graph, effective)


@_network("FLOPs")
def flops_dense(graph: LayeredGraph) -> Value:
    """2 x macs_dense."""
    return _twice(macs_dense(graph))


@_network("FLOPs")
def flops_kept(graph: LayeredGraph) -> Value:
    """2 x macs_kept."""
    return _twice(macs_kept(graph))


@_network("FLOPs")
def flops_effective(graph: LayeredGraph) -> Value:
    """2 x macs_effective."""
    return _twice(macs_effective(graph))
