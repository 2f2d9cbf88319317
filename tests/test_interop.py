"""Graphs of networkx and scipy: the same numbers by their own algorithms, and masks back from graphs."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

import topo
import toys
from topo import build_graph
from topo.errors import MaskError, TopoError, WiringError
from topo.graph import paths as flow
from topo.masks import MaskSet

pytestmark = pytest.mark.small


def _cases():
    for name in ("residual", "branching", "gated", "sliced", "embedded"):
        wiring = getattr(toys, name)()
        for density in (1.0, 0.6, 0.3):
            yield pytest.param(toys.sparse(wiring, density, 3), wiring, id=f"{name}-{density}")
    yield pytest.param(toys.sparse(toys.embedded(), 0.6, 1, ("words",)), toys.embedded(), id="source")
    yield pytest.param(*toys.mixed_radix(2, 3, 2), id="radix")


def paths_of(digraph: nx.DiGraph) -> int:
    """The sum over directed paths of the product of multiplicities, in topological order."""
    count = {}
    for unit in nx.topological_sort(digraph):
        before = sum(count[a] * edge["multiplicity"] for a, edge in digraph.pred[unit].items())
        count[unit] = before + digraph.nodes[unit]["input"]
    return sum(count[unit] for unit, ends in digraph.nodes(data="output") if ends)


@pytest.mark.parametrize("view", ["channel", "unit"])
@pytest.mark.parametrize("masks, wiring", list(_cases()))
def test_a_digraph_has_the_units_and_paths_of_the_network(masks, wiring, view) -> None:
    graph = build_graph(masks, wiring, view)
    made = topo.to_networkx(graph)
    assert sorted(made) == list(range(wiring.n_units))
    assert paths_of(made) == flow.exact_paths(graph)
    assert [u for u in sorted(made) if made.nodes[u]["effective"]] == np.flatnonzero(
        flow.live(graph).effective
    ).tolist()
    for step, number in zip(wiring.steps, range(1, len(wiring.steps) + 1)):
        units = [u for u, subset in made.nodes(data="subset") if subset == number]
        assert units == list(range(step.start, step.stop))
        assert [made.nodes[u]["channel"] for u in units] == list(range(len(units)))
        assert {made.nodes[u]["layer"] for u in units} == {getattr(step, "name", None)}


def test_a_closed_gate_carries_no_path() -> None:
    masks = toys.sparse(toys.gated(), 1.0)
    closed = MaskSet({**masks, "gate": np.zeros_like(masks["gate"])})
    made = topo.to_networkx(build_graph(closed, toys.gated()))
    assert paths_of(made) == 0
    assert nx.has_path(made, 0, max(made))  # the units are joined all the same


def test_the_steps_as_a_graph() -> None:
    wiring = toys.residual()
    masks = toys.sparse(wiring, 0.5)
    made = topo.to_networkx(build_graph(masks, wiring), level="layer")
    assert [kind for _, kind in made.nodes(data="kind")] == ["input"] + [
        getattr(step, "kind", "layer") if isinstance(step, topo.wiring.Join) else "layer" for step in wiring.steps
    ]
    stem, last = made.nodes[1], made.nodes[len(wiring.steps)]
    assert stem == {"kind": "layer", "layer": "stem", "units": 4, "params": 108, "kept": int(masks["stem"].sum())}
    assert last["layer"] == "fc"
    assert made.edges[0, 1] == {"units": 3}
    assert sorted(made.pred[4]) == [1, 3]  # the first addition: the stream, and the branch
    assert nx.is_directed_acyclic_graph(made)


@pytest.mark.parametrize("view", ["channel", "unit", "kernel"])
@pytest.mark.parametrize("name", ["a", "grouped", "depthwise", "twice", "first"])
def test_one_layer_as_a_matrix_and_as_a_bipartite_graph(name, view) -> None:
    wiring = toys.branching()
    masks = toys.sparse(wiring, 0.5, 2)
    graph = build_graph(masks, None if name in ("a", "first") else wiring, view)
    matrix = topo.to_scipy(graph, name)
    mask, groups = masks[name], wiring.layer(name).groups if graph.wiring else 1
    dense = mask.reshape(*mask.shape[:2], -1).astype(int)
    per_group = {"channel": dense.sum(2), "unit": dense.any(2) * 1, "kernel": dense.reshape(len(dense), -1)}[view]
    expected = np.zeros((len(dense), groups * per_group.shape[1]), int)
    for row in range(len(dense)):
        start = row // (len(dense) // groups) * per_group.shape[1]
        expected[row, start : start + per_group.shape[1]] = per_group[row]
    assert matrix.dtype == np.int64
    assert (matrix.toarray() == expected).all() and matrix.nnz == (expected > 0).sum()
    made = topo.to_networkx(graph, name)
    ins, outs = [("in", i) for i in range(expected.shape[1])], [("out", j) for j in range(expected.shape[0])]
    assert list(made) == ins + outs
    assert (nx.bipartite.biadjacency_matrix(made, outs, ins, weight="multiplicity").toarray() == expected).all()


def test_spectra_and_components_by_others() -> None:
    graph = build_graph(*toys.disjoint(3, 4, 2))
    matrix = topo.to_scipy(graph, "fc0")
    found = topo.analyze(*toys.disjoint(3, 4, 2), metrics="sigma1,sigma2,components").layers[0]
    values = np.linalg.svd(matrix.toarray().astype(float), compute_uv=False)
    assert values[:2] == pytest.approx([found["sigma1"], found["sigma2"]]) == [4, 4]
    assert nx.number_connected_components(topo.to_networkx(graph, "fc0")) == found["components"] == 3


def test_masks_come_back_from_their_graph() -> None:
    masks, _ = toys.mixed_radix(2, 3, 2)
    thinned = MaskSet({name: mask & (np.arange(mask.size).reshape(mask.shape) % 3 > 0) for name, mask in masks.items()})
    for given in (masks, thinned):
        graph = build_graph(given, topo.chain(given))
        assert topo.from_networkx(topo.to_networkx(graph)) == given
        assert list(topo.from_networkx(topo.to_networkx(graph))) == list(given)
        one = topo.from_networkx(topo.to_networkx(graph, "fc1"))
        assert list(one) == ["fc1"] and (one["fc1"] == given["fc1"]).all()


def test_masks_from_the_graphs_of_networkx() -> None:
    masks = topo.from_networkx(nx.complete_multipartite_graph(3, 2).to_undirected())
    assert list(masks) == ["fc1.weight"] and masks["fc1.weight"].shape == (2, 3) and masks["fc1.weight"].all()
    regular = nx.bipartite.configuration_model([2, 2, 2], [3, 3], create_using=nx.Graph(), seed=1)
    named = topo.from_networkx(regular, names=["head.weight"])
    assert (named["head.weight"].T == nx.bipartite.biadjacency_matrix(regular, [0, 1, 2]).toarray()).all()


def test_what_is_no_chain_is_refused() -> None:
    plain = nx.Graph([(0, 1)])
    with pytest.raises(MaskError, match="node 0 has neither 'subset'"):
        topo.from_networkx(plain)
    with pytest.raises(MaskError, match="no two layers"):
        topo.from_networkx(nx.Graph())
    with pytest.raises(MaskError, match=r"edge \(0, 2\) joins layers 0 and 2; it should lead to the next"):
        topo.from_networkx(nx.complete_multipartite_graph(1, 1, 1))
    backwards = nx.DiGraph([(1, 0)])
    nx.set_node_attributes(backwards, {0: 0, 1: 1}, "subset")
    with pytest.raises(MaskError, match=r"edge \(1, 0\) joins layers 1 and 0"):
        topo.from_networkx(backwards)
    with pytest.raises(MaskError, match="names are a, b; each of 1 masks"):
        topo.from_networkx(nx.complete_bipartite_graph(2, 2), names=["a", "b"])
    masks = toys.sparse(toys.residual(), 1.0)
    with pytest.raises(MaskError, match="stands for 9 weights; a linear layer has one"):
        topo.from_networkx(topo.to_networkx(build_graph(masks, view="channel"), "stem"))


def test_parallel_edges_and_odd_layers_are_refused() -> None:
    parallel = nx.MultiGraph([(0, 1), (0, 1)])
    nx.set_node_attributes(parallel, {0: 0, 1: 1}, "subset")
    with pytest.raises(MaskError, match=r"edge \(0, 1\) stands for 2 weights"):
        topo.from_networkx(parallel)
    for odd in ("first", 1.5, [1], math.nan):
        named = nx.Graph([(0, 1)])
        nx.set_node_attributes(named, {0: 0, 1: odd}, "subset")
        with pytest.raises(MaskError, match="node 1 has neither 'subset', the number of the layer"):
            topo.from_networkx(named)
    graph = nx.complete_bipartite_graph(2, 3)
    graph.graph["layers"] = 5
    assert list(topo.from_networkx(graph)) == ["fc1.weight"]
    loop = nx.complete_bipartite_graph(2, 3)
    loop.add_edge(0, 0)
    with pytest.raises(MaskError, match="joins layers 0 and 0"):
        topo.from_networkx(loop)


def test_masks_alone_will_do_for_a_layer() -> None:
    masks = toys.sparse(toys.residual(), 0.5)
    assert (topo.to_scipy(masks, "fc").toarray() == masks["fc"]).all()
    assert (topo.to_scipy({"fc": masks["fc"]}, "fc").toarray() == masks["fc"]).all()
    with pytest.raises(MaskError, match="not of a MaskSet"):
        topo.from_networkx(masks)
    assert topo.to_networkx(masks, "fc", max_edges=None).number_of_edges() == masks["fc"].sum()
    graph = build_graph(toys.sparse(toys.embedded(), 0.6, 1, ("words",)), toys.embedded())
    with pytest.raises(TopoError, match="'words' is an embedding without a mask"):
        topo.to_scipy(graph, "words")


def test_steps_that_use_parts_say_so() -> None:
    masks = toys.sparse(toys.sliced(), 1.0)
    made = topo.to_networkx(build_graph(masks, toys.sliced()), level="layer")
    assert [(n["params"], n["kept"]) for _, n in made.nodes(data=True) if n["layer"] == "rows"] == [(6, 6), (9, 9)]


def test_bad_questions_are_answered_in_one_line() -> None:
    masks, wiring = toys.complete(4, 3, 2)
    graph = build_graph(masks, wiring)
    with pytest.raises(TopoError, match=r"no layer is called 'fc9'; did you mean .* There are: fc1, fc2"):
        topo.to_scipy(graph, "fc9")
    with pytest.raises(TopoError, match="no layer is called 'fc9'"):
        topo.to_networkx(graph, "fc9")
    with pytest.raises(TopoError, match="level is 'edge'; it is one of unit, layer"):
        topo.to_networkx(graph, level="edge")
    for layer, edges in ((None, 18), ("fc1", 12)):
        with pytest.raises(TopoError, match=f"has {edges} edges; networkx gets up to 5 unless max_edges"):
            topo.to_networkx(graph, layer, max_edges=5)
    with pytest.raises(WiringError, match="needs its wiring"):
        topo.to_networkx(build_graph(masks))
    assert topo.to_networkx(build_graph(masks), "fc1").number_of_edges() == 12


@pytest.mark.small
def test_masks_and_a_wiring_make_a_graph_and_errors_stay_short() -> None:
    """to_networkx(masks, wiring), by place or by name; a wiring is never printed whole."""
    masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    wiring = topo.chain(masks)
    expected = sorted(topo.to_networkx(topo.build_graph(masks, wiring)).edges)
    for found in (topo.to_networkx(masks, wiring), topo.to_networkx(masks, wiring=wiring)):
        assert sorted(found.edges) == expected
    assert sorted(topo.to_networkx(masks, "a", wiring=wiring).nodes) == sorted(topo.to_networkx(masks, "a").nodes)
    for call in (
        lambda: topo.to_networkx(masks, wiring, wiring=wiring),
        lambda: topo.to_networkx(topo.build_graph(masks, wiring), wiring),
        lambda: topo.to_networkx(masks, 3),
        lambda: topo.to_networkx(masks, "spam"),
        lambda: topo.to_networkx(masks),
    ):
        with pytest.raises(topo.errors.TopoError) as error:
            call()
        assert len(str(error.value)) < 200 and "array(" not in str(error.value)
