"""GRAPH beyond the twins of test_metrics.py: known networks, weights, eigenvalues of larger graphs, and bad input."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

import naive
import topo
import toys
from naive.weighted import WeightedNet
from topo.graph import build_graph
from topo.graph.whole import WholeGraph, whole_graph
from topo.metrics import chosen
from topo.metrics.whole import core_units, graph_spectral_gap, laplacian_radius

pytestmark = pytest.mark.small
NAMES = """sinks sources disconnected removable_in removable_out one_hop two_hop two_paths mean_strength mean_coreness
connected_components largest_component cut_edges cut_nodes tau_core tau_core_share h_score laplacian_radius
graph_spectral_gap""".split()


def test_the_group_holds_the_names_that_are_promised() -> None:
    found = {entry.name for entry in chosen("graph", weights=False)}
    assert set(NAMES) <= found
    raw = {"connected_components", "tau_core", "tau_core_share", "h_score", "laplacian_radius", "graph_spectral_gap"}
    assert {f"{name}_normalised" for name in set(NAMES) - raw} == found - set(NAMES)


def test_a_complete_chain_is_counted_by_hand() -> None:
    masks, wiring = toys.complete(3, 4, 2)
    found = topo.analyze(masks, wiring, metrics="graph").network
    assert found["sinks"] == found["sources"] == found["disconnected"] == found["cut_edges"] == 0
    assert found["one_hop"] == 1 + 20 / 9
    assert found["two_hop"] == (3 * 7 + 4 * 3 + 2) / 9
    assert found["two_paths"] == 3 * math.comb(4, 2) + 4 * math.comb(5, 2) + 2 * math.comb(4, 2)
    assert found["mean_coreness"] == 4  # K(4, 5), inputs and outputs on one side
    assert found["tau_core"] == 2 and found["h_score"] == 0
    assert found["laplacian_radius"] == pytest.approx(9) and found["graph_spectral_gap"] == pytest.approx(20**0.5)
    assert math.isnan(found["mean_strength"])


def test_a_waist_is_the_core() -> None:
    masks, wiring = toys.complete(6, 1, 6)
    found = topo.analyze(masks, wiring, metrics="tau_core,h_score,cut_nodes,cut_edges").network
    assert found == {"tau_core": 1, "h_score": 1 - 1 / 6, "cut_nodes": 1, "cut_edges": 12}
    assert core_units(build_graph(masks, wiring)) == [6]


@pytest.mark.parametrize("name", ["chain", "branching", "gated", "sliced", "words"])
def test_strengths_are_those_of_the_weights(name: str) -> None:
    wiring = {
        "chain": toys.complete(2, 3, 3, 2)[1],
        "branching": toys.branching(),
        "gated": toys.gated(),
        "sliced": toys.sliced(),
        "words": toys.embedded(),
    }[name]
    masks = toys.sparse(wiring, 0.6, 1)
    rng = np.random.default_rng(0)
    weights = {key: rng.standard_normal(shape) for key, shape in masks.shapes.items()}
    found = topo.analyze(masks, wiring, metrics="mean_strength,mean_strength_normalised", weights=weights).network
    net = WeightedNet(masks, wiring, weights)
    assert found["mean_strength"] == pytest.approx(naive.mean_strength(net), rel=1e-12)
    assert found["mean_strength_normalised"] == pytest.approx(naive.mean_strength_normalised(net), rel=1e-12)


def test_counts_of_paths_leave_float64_and_the_core_does_not_mind() -> None:
    masks, wiring = toys.complete(20, *[30] * 250, 20)
    found = topo.analyze(masks, wiring, metrics="tau_core,h_score,log10_effective_paths").network
    assert found["log10_effective_paths"] > 360
    assert found["tau_core"] == 18 and found["h_score"] == 0


@pytest.mark.parametrize("seed, clusters", [(0, 1), (1, 3)])
def test_eigenvalues_of_larger_graphs(seed: int, clusters: int) -> None:
    """Also where the second is the first of another component, and where units are alone."""
    rng = np.random.default_rng(seed)
    block = rng.random((200, 250)) < 0.05
    mask = np.kron(np.eye(clusters), block).astype(bool)
    mask[::7] = False
    masks = topo.MaskSet({"a": mask, "b": rng.random((30, len(mask))) < 0.02})
    graph = build_graph(masks, topo.chain(masks))
    whole = whole_graph(graph)
    ptr, ends, _ = whole.outgoing
    flat = nx.Graph()
    flat.add_nodes_from(range(whole.n))
    flat.add_edges_from(zip(np.repeat(np.arange(whole.n), np.diff(ptr)).tolist(), ends.tolist()))
    values = np.linalg.eigvalsh(nx.to_numpy_array(flat, nodelist=range(whole.n)))
    assert graph_spectral_gap(graph).number == pytest.approx(values[-1] - values[-2], abs=1e-8 * values[-1])
    radius = np.linalg.eigvalsh(nx.laplacian_matrix(flat).toarray().astype(float))[-1]
    assert laplacian_radius(graph).number == pytest.approx(radius, rel=1e-8)


def test_resnet20_has_the_units_of_its_tensors_and_uniform_masks_feed_them_all() -> None:
    """Outside check: sums are no units of their own, whether the skip is a convolution or not."""
    wiring = topo.trace(topo.models.build("resnet20"), (3, 32, 32))
    tensors = 3 + 16 + 6 * 16 + 6 * 32 + 6 * 64 + 10
    for method in ("uniform", "erk"):
        masks = topo.generate(method, wiring, density=0.4, rng=0)
        graph = build_graph(masks, wiring)
        assert whole_graph(graph).n == tensors
        found = topo.analyze(masks, wiring, metrics="sources,disconnected,connected_components").network
        assert found == {"sources": 0, "disconnected": 0, "connected_components": 1}


def test_parallel_edges_are_one_and_their_paths_add_up() -> None:
    whole = WholeGraph.of_edges(
        3, np.array([1, 0, 0, 0]), np.array([2, 2, 1, 2]), np.arange(1.0, 5.0), *np.eye(3, dtype=bool)[[0, 2]]
    )
    assert [part.tolist() for part in whole.outgoing] == [[0, 2, 3, 3], [1, 2, 2], [3.0, 6.0, 1.0]]
    assert [part.tolist() for part in whole.incoming] == [[0, 0, 1, 3], [0, 0, 1], [3.0, 6.0, 1.0]]


def test_without_wiring_each_is_undefined_with_the_reason() -> None:
    report = topo.analyze({"a": np.ones((3, 4)), "b": np.ones((2, 5))}, metrics="graph")
    assert set(NAMES) <= set(report.network) and all(math.isnan(value) for value in report.network.values())
    assert all("wiring" in row.note for row in report.rows)


def test_no_number_of_network_science_stands_without_its_note() -> None:
    masks, wiring = toys.complete(3, 4, 2)
    report = topo.analyze(masks, wiring, metrics="science")
    assert {row.metric for row in report.rows} == {entry.name for entry in chosen("science")}
    assert all("says little alone" in row.note for row in report.rows)
