"""Graphs for other libraries, and masks from theirs: networkx and scipy.

>>> import topo
>>> graph = topo.build_graph(masks := topo.MaskSet({"fc.weight": [[1, 1, 0], [0, 1, 0]]}), topo.chain(masks))
>>> sorted(to_networkx(graph).edges())
[(0, 3), (1, 3), (1, 4)]
>>> to_scipy(graph, "fc.weight").toarray().tolist()
[[1, 1, 0], [0, 1, 0]]
>>> from_networkx(to_networkx(graph)) == masks
True
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from topo._support.names import unknown
from topo.errors import MaskError, TopoError, WiringError
from topo.graph import Block, LayeredGraph, WiredGraph, build_graph, paths, views
from topo.masks import MaskSet, as_mask_set
from topo.wiring import Join, Wiring

if TYPE_CHECKING:
    import networkx
    import scipy.sparse

LEVELS = ("unit", "layer")
# A graph of networkx takes some 500 bytes for an edge.
MOST_EDGES = 1_000_000


def to_scipy(graph: LayeredGraph | MaskSet, layer: str) -> scipy.sparse.csr_array:
    """The biadjacency matrix of one layer in its layer view: int64 (out, columns), how many kept weights an edge has.

    graph: of `topo.build_graph`; masks will do, each convolution in one group. Columns are input channels, in the
    kernel view (input channel, kernel position) pairs; groups of a convolution are blocks on the diagonal.

    >>> masks = topo.MaskSet({"fc": np.array([[1, 1], [1, 0]])})
    >>> topo.to_scipy(masks, "fc").toarray().tolist()
    [[1, 1], [1, 0]]

    Raises TopoError for a layer that the graph does not hold, and for an embedding without a mask.
    """
    from scipy.sparse import csr_array

    edges = _block(graph, layer).layer_edges
    rows, columns, multiplicities = edges.pairs()
    return csr_array((multiplicities, (rows, columns)), shape=(len(edges.fan_in()), len(edges.reads)))


def to_networkx(
    graph: LayeredGraph | MaskSet,
    layer: str | Wiring | None = None,
    *,
    wiring: Wiring | None = None,
    level: str = "unit",
    max_edges: int | None = MOST_EDGES,
) -> networkx.Graph:
    """The whole network as a DiGraph, or one layer by itself as a bipartite Graph.

    graph: of `topo.build_graph`, or masks with the wiring of their network, as in `to_networkx(masks, wiring)`; for a
    layer by itself masks will do.

    level "unit": a node for each unit, called by its number, with `kind` (input, layer, add, gate or score), `layer`
    (the parameter that makes it, or None), `channel` (its place in it), `subset` (0 for inputs, i + 1 for step i, as
    `networkx.multipartite_layout` takes it), `input` (paths start here), `output` and `effective` (it is on a path).
    An edge has `layer` and `multiplicity`, the paths that it carries: kept weights of a layer, 1 of an addition and of
    the value branch of an open gate, 0 of the branches that only open and close it. So effective_paths is the sum over
    directed paths from `input` to `output` of the product of multiplicities.

    level "layer": a node for each step, called by its `subset`, with `kind`, `layer`, `units`, and `params` and `kept`
    of what a layer uses; edges say how many `units` are read.

    layer: the name of one, in its layer view: nodes ("in", i) and ("out", j) with `bipartite` 0 and 1. No wiring is
    needed.

    >>> masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    >>> graph = topo.to_networkx(topo.build_graph(masks, topo.chain(masks)))
    >>> sorted(graph.edges), graph.edges[0, 2]
    ([(0, 2), (0, 3), (1, 2), (2, 4), (3, 4)], {'layer': 'a', 'multiplicity': 1})

    Raises TopoError for an unknown layer or level, for more than max_edges edges (None sets no limit), and for a
    network without wiring.
    """
    if isinstance(layer, Wiring):
        if wiring is not None:
            raise TopoError("two wirings are given; a network has one")
        layer, wiring = None, layer
    if layer is not None and not isinstance(layer, str):
        raise TopoError(f"layer is a {type(layer).__name__}; it is the name of a layer, or a wiring (topo.trace)")
    if not isinstance(graph, LayeredGraph):
        graph = build_graph(as_mask_set(graph), wiring)
    elif wiring is not None:
        raise TopoError("a graph of topo.build_graph has its wiring; none can be given beside it")
    if level not in LEVELS:
        raise TopoError(f"level is '{level}'; it is one of {', '.join(LEVELS)}")
    if layer is not None:
        return _bipartite(graph, layer, math.inf if max_edges is None else max_edges)
    if not isinstance(graph, WiredGraph):
        raise WiringError(
            "a graph of the network needs its wiring (topo.trace(model) or topo.chain): to_networkx(masks, wiring)"
        )
    if level == "layer":
        return _of_layers(graph)
    return _of_units(graph, math.inf if max_edges is None else max_edges)


def from_networkx(graph: networkx.Graph, names: Sequence[str] | None = None) -> MaskSet:
    """The masks of a chain of linear layers that keep the edges of a layered graph.

    graph: its nodes have `subset`, the layer they stand in (inputs first, as those of
    `networkx.complete_multipartite_graph`), or `bipartite`, 0 and 1; within a layer they are units in the order in
    which the graph holds them. An edge joins neighbouring layers; directed ones lead on. names: of the parameters, one
    fewer than layers of nodes; by default those that `to_networkx` wrote down, else fc1.weight, fc2.weight, ... A layer
    that was a convolution comes back as the matrix of its view.

    >>> import networkx as nx
    >>> graph = nx.DiGraph([("x", "y"), ("y", "z")])
    >>> nx.set_node_attributes(graph, {"x": 0, "y": 1, "z": 2}, "subset")
    >>> topo.from_networkx(graph).shapes
    {'fc1.weight': (1, 1), 'fc2.weight': (1, 1)}

    Raises MaskError for nodes without a layer, edges that join no neighbours, and edges of several weights.
    """
    if not hasattr(graph, "nodes"):
        raise MaskError(f"masks are made of a graph of networkx here, not of a {type(graph).__name__}")
    layers: dict[int, list[Hashable]] = {}
    for node, about in graph.nodes(data=True):
        subset = about.get("subset", about.get("bipartite"))
        if not isinstance(subset, int | np.integer):
            raise MaskError(
                f"node {node!r} has neither 'subset', the number of the layer that it stands in, nor 'bipartite'"
            )
        layers.setdefault(int(subset), []).append(node)
    if len(layers) < 2:
        raise MaskError("the graph has no two layers of nodes that a mask could join")
    order = sorted(layers)
    places = {node: (k, unit) for k, subset in enumerate(order) for unit, node in enumerate(layers[subset])}
    masks = [np.zeros((len(layers[b]), len(layers[a])), bool) for a, b in pairwise(order)]
    for a, b, about in graph.edges(data=True):
        (source, i), (target, j) = (places[a], places[b]) if graph.is_directed() else sorted((places[a], places[b]))
        if target != source + 1:
            raise MaskError(
                f"edge ({a!r}, {b!r}) joins layers {order[source]} and {order[target]}; it should lead to the next"
            )
        weights = about.get("multiplicity", 1) + int(masks[source][j, i])  # parallel edges are several, too
        if weights != 1:
            raise MaskError(f"edge ({a!r}, {b!r}) stands for {weights} weights; a linear layer has one")
        masks[source][j, i] = True
    told = graph.graph.get("layers")
    if names is None:
        names = (
            told
            if isinstance(told, list) and len(told) == len(masks)
            else [f"fc{k}.weight" for k in range(1, len(masks) + 1)]
        )
    if not len(names) == len(set(names)) == len(masks):
        raise MaskError(f"names are {', '.join(map(str, names))}; each of {len(masks)} masks takes one of its own")
    return MaskSet(dict(zip(names, masks)))


def _block(graph: LayeredGraph | MaskSet, layer: str) -> Block:
    graph = graph if isinstance(graph, LayeredGraph) else build_graph(as_mask_set(graph))
    for block in graph.blocks:
        if block.name == layer:
            if block.source:
                raise TopoError(f"'{layer}' is an embedding without a mask: its outputs are where paths start")
            return block
    raise TopoError(unknown("layer", layer, [block.name for block in graph.blocks]))


def _bipartite(graph: LayeredGraph, layer: str, max_edges: float) -> networkx.Graph:
    import networkx as nx

    block = _block(graph, layer)
    edges = block.layer_edges
    _check(edges.total if graph.layer_view == "kernel" else _joined(block), max_edges)
    rows, columns, multiplicities = edges.pairs()
    made = nx.Graph(layers=[layer], view=graph.layer_view)
    made.add_nodes_from((("in", i) for i in range(len(edges.reads))), bipartite=0)
    made.add_nodes_from((("out", j) for j in range(len(edges.fan_in()))), bipartite=1)
    made.add_edges_from(
        (("in", i), ("out", j), {"multiplicity": m})
        for i, j, m in zip(columns.tolist(), rows.tolist(), multiplicities.tolist())
    )
    return made


def _of_units(graph: WiredGraph, max_edges: float) -> networkx.DiGraph:
    import networkx as nx

    _check(sum(_joined(block) for _, block in graph.uses), max_edges)
    live = paths.live(graph)
    found = [(step, *_edges_of(step, live.forward)) for step in graph.steps]
    starts = set(graph.wiring.inputs.tolist())
    for step, wired in zip(graph.steps, graph.wiring.steps):
        if isinstance(step, Block) and step.source:
            starts.update(range(wired.start, wired.stop))
    ends, effective = set(graph.wiring.outputs.tolist()), live.effective.tolist()
    made = nx.DiGraph(layers=list(graph.wiring.names), view=graph.view)
    for subset, kind, layer, units in _groups(graph):
        for channel, unit in enumerate(units):
            made.add_node(unit, kind=kind, layer=layer, channel=channel, subset=subset)
            made.nodes[unit].update(input=unit in starts, output=unit in ends, effective=effective[unit])
    for step, sources, targets, multiplicities in found:
        layer = step.name if isinstance(step, Block) else None
        made.add_edges_from(
            (a, b, {"layer": layer, "multiplicity": m})
            for a, b, m in zip(sources.tolist(), targets.tolist(), multiplicities.tolist())
        )
    return made


def _of_layers(graph: WiredGraph) -> networkx.DiGraph:
    import networkx as nx

    made = nx.DiGraph(layers=list(graph.wiring.names), view=graph.view)
    maker = np.full(graph.wiring.n_units, -1)
    for subset, kind, layer, units in _groups(graph):
        made.add_node(subset, kind=kind, layer=layer, units=len(units))
        maker[units] = subset
    for subset, step in enumerate(graph.steps, 1):
        if isinstance(step, Block) and not step.source:
            made.nodes[subset].update(params=step.use.used, kept=step.kept)
        reads = np.unique(np.concatenate(step.operands) if isinstance(step, Join) else step.reads)
        before, read = np.unique(maker[reads[reads >= 0]], return_counts=True)
        made.add_edges_from((a, subset, {"units": n}) for a, n in zip(before.tolist(), read.tolist()))
    return made


def _groups(graph: WiredGraph) -> Iterator[tuple[int, str, str | None, list[int]]]:
    """(subset, kind, layer, units) of the inputs and of each step."""
    yield 0, "input", None, graph.wiring.inputs.tolist()
    for subset, (step, wired) in enumerate(zip(graph.steps, graph.wiring.steps), 1):
        kind, layer = (step.kind, None) if isinstance(step, Join) else ("layer", step.name)
        yield subset, kind, layer, list(range(wired.start, wired.stop))


def _edges_of(step: Block | Join, live: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(from unit, to unit, multiplicity) of a step, each pair of units once. live: bool (units + 2,), reached ones."""
    if isinstance(step, Join):
        heads = np.arange(len(step.operands[0])) // step.width + step.start
        sources, targets = np.concatenate(step.operands), np.tile(heads, len(step.operands))
        carries = [step.kind == "add" or (step.kind == "gate" and k == 0) for k in range(len(step.operands))]
        multiplicities = (np.array(carries)[:, None] & live[heads]).reshape(-1).astype(np.int64)
    elif step.source:
        return (np.zeros(0, np.int64),) * 3
    else:
        rows, columns, multiplicities = step.edges.pairs()
        sources, targets = step.edges.reads[columns], rows + step.use.start
    known = sources >= 0
    pairs, places = np.unique(targets[known].astype(np.int64) << 32 | sources[known], return_inverse=True)
    return pairs & 0xFFFFFFFF, pairs >> 32, np.bincount(places, multiplicities[known]).astype(np.int64)


def _joined(block: Block) -> int:
    """How many pairs of units a layer joins, found without listing them."""
    return views.unit(block.rows, block.reads, block.groups).total


def _check(edges: int, most: float) -> None:
    if edges > most:
        raise TopoError(f"the graph has {edges:,} edges; networkx gets up to {most:,} unless max_edges says more")
