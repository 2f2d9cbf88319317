"""GRAPH beyond the twins of test_metrics.py: known networks, weights, eigenvalues of larger graphs, and bad input."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest
from matplotlib.text import Text
from scipy.special import zeta
from torch import nn

import naive
import topo
import toys
from naive.net import Net
from naive.weighted import WeightedNet
from topo.graph import build_graph, views
from topo.graph import whole as whole_counts
from topo.graph.communities import _once as searched
from topo.graph.communities import communities, modularity_of
from topo.graph.references import lattice, rewired
from topo.graph.twins import kinds_of_units
from topo.graph.whole import WholeGraph, whole_graph
from topo.kernels import science as kernels
from topo.kernels import whole as whole_kernels
from topo.masks import BitRows
from topo.metrics import chosen, metrics
from topo.metrics.power_law import Fit, drawn, fit, power_law_p
from topo.metrics.science import ALONE, closed_ways, community_labels, modularity, structural_consistency
from topo.metrics.whole import core_units, graph_spectral_gap, laplacian_radius

pytestmark = pytest.mark.kernels
NAMES = """sinks sources disconnected removable_in removable_out one_hop two_hop two_paths mean_strength mean_coreness
connected_components largest_component cut_edges cut_nodes tau_core tau_core_share h_score laplacian_radius
graph_spectral_gap""".split()


@pytest.mark.small
def test_the_group_holds_the_names_that_are_promised() -> None:
    found = {entry.name for entry in chosen("graph", weights=False)}
    assert set(NAMES) <= found
    raw = {"connected_components", "tau_core", "tau_core_share", "h_score", "laplacian_radius", "graph_spectral_gap"}
    assert {f"{name}_normalised" for name in set(NAMES) - raw} == found - set(NAMES)


@pytest.mark.small
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


@pytest.mark.small
def test_a_waist_is_the_core() -> None:
    masks, wiring = toys.complete(6, 1, 6)
    found = topo.analyze(masks, wiring, metrics="tau_core,h_score,cut_nodes,cut_edges").network
    assert found == {"tau_core": 1, "h_score": 1 - 1 / 6, "cut_nodes": 1, "cut_edges": 12}
    assert core_units(build_graph(masks, wiring)) == [6]


@pytest.mark.small
def test_the_core_is_drawn_where_it_lies() -> None:
    masks, wiring = toys.complete(6, 1, 6)
    fig = topo.plots.figure()
    ax = topo.plots.layered_graph(build_graph(masks, wiring), fig.add_subplot(), core=True)
    rings = [dots for dots in ax.collections if dots.get_zorder() == 4]
    assert len(rings) == 1 and rings[0].get_offsets()[:, 0].tolist() == [1.0]
    assert any("1 units meet 90 % of paths, hourglass score 0.83" in text.get_text() for text in fig.findobj(Text))


@pytest.mark.small
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
    for view in ("channel", "unit"):
        found = topo.analyze(masks, wiring, metrics="graph", weights=weights, view=view).network
        assert found["weighted_graph_spectral_gap"] == pytest.approx(naive.weighted_graph_spectral_gap(net), abs=1e-9)
        assert found["weighted_laplacian_radius"] == pytest.approx(naive.weighted_laplacian_radius(net), rel=1e-9)


@pytest.mark.small
def test_weighted_eigenvalues_of_a_larger_graph_and_weights_of_one() -> None:
    """Where all weigh 1 they are those of the plain graph; scales of weights scale them; without any, undefined."""
    rng = np.random.default_rng(0)
    masks = topo.MaskSet({"a": rng.random((300, 200)) < 0.05, "b": rng.random((20, 300)) < 0.1})
    ones = {name: np.ones(shape) for name, shape in masks.shapes.items()}
    names = "graph_spectral_gap,laplacian_radius,weighted_graph_spectral_gap,weighted_laplacian_radius"
    wiring = topo.chain(masks)
    for scale in (1.0, 1e-200, 1e200):
        weights = {name: scale * one for name, one in ones.items()}
        found = topo.analyze(masks, wiring, metrics=names, weights=weights).network
        for name in names.split(",")[:2]:
            assert found[f"weighted_{name}"] == pytest.approx(scale * found[name], rel=1e-6)
    without = topo.analyze(masks, wiring, metrics=names)
    assert math.isnan(without.network["weighted_laplacian_radius"])
    assert any(note["note"] == "needs weights" for note in without.notes)
    places = topo.analyze(masks, wiring, metrics=names, weights=ones, view="unrolled")
    assert math.isnan(places.network["weighted_graph_spectral_gap"]), "undefined, or told: never the channel's"


def test_counts_of_paths_leave_float64_and_the_core_does_not_mind() -> None:
    masks, wiring = toys.complete(20, *[30] * 250, 20)
    found = topo.analyze(masks, wiring, metrics="tau_core,h_score,log10_effective_paths").network
    assert found["log10_effective_paths"] > 360
    assert found["tau_core"] == 18 and found["h_score"] == 0


@pytest.mark.small
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


@pytest.mark.small
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


@pytest.mark.small
def test_parallel_edges_are_one_and_their_paths_add_up() -> None:
    edges = np.array([1, 0, 0, 0]), np.array([2, 2, 1, 2]), np.arange(1.0, 5.0), np.array([0, 2, 1, 1], np.int32)
    whole = WholeGraph.of_edges(3, edges, *np.eye(3, dtype=bool)[[0, 2]], np.ones(3, bool))
    assert whole.made_by.tolist() == [1, 2, 0]
    assert [part.tolist() for part in whole.outgoing] == [[0, 2, 3, 3], [1, 2, 2], [3.0, 6.0, 1.0]]
    assert [part.tolist() for part in whole.incoming()] == [[0, 0, 1, 3], [0, 0, 1], [3.0, 6.0, 1.0]]


@pytest.mark.small
def test_without_wiring_each_is_undefined_with_the_reason() -> None:
    report = topo.analyze({"a": np.ones((3, 4)), "b": np.ones((2, 5))}, metrics="graph")
    assert set(NAMES) <= set(report.network) and all(math.isnan(value) for value in report.network.values())
    assert all("wiring" in row.note for row in report.rows)


@pytest.mark.small
def test_no_number_of_network_science_stands_alone_or_says_that_it_does() -> None:
    wiring = toys.complete(6, 8, 5)[1]
    masks = toys.sparse(wiring, 0.5, 1)
    alone = topo.analyze(masks, wiring, metrics="science", nulls="none")
    assert {row.metric for row in alone.rows} == {entry.name for entry in chosen("science")} and not alone.nulls
    assert all("says little alone" in row.note for row in alone.rows)
    everything = topo.analyze(masks, wiring, metrics="all")
    assert not everything.nulls
    assert {row.note for row in everything.rows if row.metric == "path_length"} == {ALONE}
    beside = topo.analyze(masks, wiring, metrics="kept,path_length,modularity,rich_club")
    assert {entry["metric"] for entry in beside.nulls} == {"path_length", "modularity", "rich_club"}
    assert all(entry["null"] == "same_degrees" and entry["samples"] == 20 for entry in beside.nulls)
    assert beside.network == {key: alone.network.get(key, value) for key, value in beside.network.items()}
    notes = {row.metric: row.note for row in beside.rows if row.layer is None}
    assert notes["path_length"] is None and notes["modularity"] == "a lower bound"
    assert {entry["null"] for entry in topo.analyze(masks, wiring, metrics="science", nulls="same_layers:2").nulls} == {
        "same_layers"
    }


def _network(graph: nx.Graph) -> WholeGraph:
    begin, end = (np.array(side) for side in zip(*(sorted(edge) for edge in graph.edges)))
    size, none = len(begin), np.zeros(len(graph), bool)
    edges = begin, end, np.ones(size), np.zeros(size, np.int32)
    return WholeGraph.of_edges(len(graph), edges, none, none, np.ones(1, bool))


@pytest.mark.small
def test_disjoint_blocks_are_the_communities() -> None:
    masks, wiring = toys.disjoint(6, 5, 3)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(30) for _ in range(4)]
    mixed = {name: masks[name][orders[k + 1]][:, orders[k]] for k, name in enumerate(masks)}
    graph = build_graph(topo.MaskSet(mixed), wiring)
    labels = community_labels(graph)
    assert len(set(labels.tolist())) == 6 and modularity(graph).number == pytest.approx(5 / 6)


@pytest.mark.small
def test_communities_are_the_best_of_all_on_small_networks() -> None:
    """Every partition of seven units is tried; greedy moves may miss the best by little."""
    for seed in range(6):
        masks = topo.MaskSet({"a": np.random.default_rng(seed).random((3, 4)) < 0.6})
        graph = build_graph(masks, topo.chain(masks))
        found, best = modularity(graph).number, max(modularity_of(whole_graph(graph), p) for p in _partitions(7))
        assert best - 0.03 <= found <= best + 1e-12


def _partitions(n: int, start: tuple[int, ...] = ()):
    if len(start) == n:
        yield np.array(start)
        return
    for label in range(max(start, default=-1) + 2):
        yield from _partitions(n, (*start, label))


def test_references_keep_the_degrees_of_each_layer_and_skips() -> None:
    wiring = topo.networks.find_wiring("resnet20")
    whole = whole_graph(build_graph(topo.generate("erk", wiring, density=0.03, rng=0), wiring))
    for other in (rewired(whole, np.random.default_rng(0)), lattice(whole, np.random.default_rng(0))):
        for side in ("begins", "ends"):
            one, two = ((g.begins if side == "begins" else g.outgoing[1], g.made_by) for g in (whole, other))
            assert sorted(zip(*one)) == sorted(zip(*two))
        joins = [
            {(u, v) for u, v, by in zip(g.begins, g.outgoing[1], g.made_by) if not g.of_layers[by]}
            for g in (whole, other)
        ]
        assert joins[0] == joins[1] and (other.begins < other.outgoing[1]).all()
        assert set(zip(other.begins, other.outgoing[1])) != set(zip(whole.begins, whole.outgoing[1]))
    assert closed_ways(lattice(whole, np.random.default_rng(0))) > 1.4 * closed_ways(whole)


def ring_distance(words: np.ndarray, columns: int) -> float:
    rows, places = np.nonzero(np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little"))
    apart = np.abs((rows + 0.5) / len(words) - (places + 0.5) / columns)
    return float(np.minimum(apart, 1 - apart).sum())


@pytest.mark.parametrize("shape", [(12, 12), (9, 70)])
def test_edges_of_a_lattice_lie_near_each_other_on_a_ring(shape: tuple[int, int]) -> None:
    """Both ends of the ring are neighbours, each trade brings edges nearer, and in the end none would."""
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < 0.2
    words = BitRows.of_mask(mask).words.copy()
    before = ring_distance(words, shape[1])
    kernels.latticize(words, shape[1], 200, rng)
    found = np.unpackbits(words.view(np.uint8), axis=1, count=shape[1], bitorder="little").astype(bool)
    assert (found.sum(0) == mask.sum(0)).all() and (found.sum(1) == mask.sum(1)).all()
    after = ring_distance(words, shape[1])
    assert after < 0.5 * before
    rows, columns = np.nonzero(found)
    for a, b in combinations(range(len(rows)), 2):
        traded = found.copy()
        traded[rows[a], columns[a]] = traded[rows[b], columns[b]] = False
        ends = [(rows[a], columns[b]), (rows[b], columns[a])]
        if rows[a] == rows[b] or columns[a] == columns[b] or any(found[end] for end in ends):
            continue
        for end in ends:
            traded[end] = True
        assert ring_distance(BitRows.of_mask(traded).words, shape[1]) >= after - 1e-9
    corner = np.zeros((8, 8), bool)  # units 0 and 7 are next to each other: a trade would part them
    corner[0, 7] = corner[7, 0] = corner[3, 3] = True
    words = BitRows.of_mask(corner).words.copy()
    kernels.latticize(words, 8, 200, rng)
    assert ring_distance(words, 8) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_science_of_a_recurrent_network_is_that_of_its_twins(kind: str) -> None:
    """Steps of one layer are edges of one graph; each number by networkx on the unrolled network."""
    net = nn.ModuleDict({"rnn": getattr(nn, kind)(4, 3, batch_first=True), "out": nn.Linear(3, 2)})
    net.forward = lambda x: net["out"](net["rnn"](x)[0])
    wiring = topo.trace(net, (2, 4))
    compared = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        masks = topo.MaskSet({name: rng.random(shape) < 0.5 for name, shape in wiring.shapes.items()})
        found = topo.analyze(masks, wiring, metrics="science", nulls="none").network
        for name in found:
            if (twin := getattr(naive, name, None)) is not None:
                compared += 1
                assert found[name] == pytest.approx(twin(Net(masks, wiring)), rel=1e-6, nan_ok=True), name
    assert compared >= 18


def test_nothing_is_consistent_where_every_pair_is_joined() -> None:
    masks, wiring = toys.complete(4, 5, 3)
    report = topo.analyze(masks, wiring, metrics=["structural_consistency"])
    assert math.isnan(report.network["structural_consistency"])
    assert any("join every pair of units that they could" in str(note["note"]) for note in report.notes)
    fewer = {name: np.array(masks[name]) for name in masks}
    fewer["fc1"][0, 0] = False
    assert 0 <= topo.analyze(fewer, wiring, metrics=["structural_consistency"]).network["structural_consistency"] <= 1


def test_a_ring_of_neighbours_is_more_of_a_small_world_than_chance() -> None:
    wiring = toys.complete(80, 80, 80)[1]
    masks = topo.generate("smallworld", wiring, density=0.1, rng=0)
    found = topo.analyze(masks, wiring, metrics="science", nulls="none").network
    assert found["small_world_sigma"] > 1.5


@pytest.mark.small
def test_cycles_and_betweenness_are_those_of_networkx() -> None:
    for graph in (nx.karate_club_graph(), nx.path_graph(5), nx.complete_graph(6), nx.gnm_random_graph(30, 80, seed=1)):
        whole = _network(graph)
        cycles, ways = (int(n) for n in kernels.four_cycles(*whole.both))
        assert (4 * cycles / ways if ways else 0) == nx.bipartite.robins_alexander_clustering(nx.Graph(graph.edges))
        between = np.empty(whole.n)
        kernels.betweenness(*whole.both, between)
        expected = nx.betweenness_centrality(graph, normalized=False)
        np.testing.assert_allclose(between, [expected[v] for v in sorted(graph)], atol=1e-9)


@pytest.mark.small
def test_a_power_law_is_recovered_and_a_binomial_is_ruled_out() -> None:
    rng = np.random.default_rng(2)
    law = drawn(np.array([3]), np.array([4000]), Fit(2.5, 3, 0.0), rng)
    found = fit(*law)
    assert found.exponent == pytest.approx(2.5, abs=0.1)
    again = [fit(*drawn(*law, found, rng)).distance for _ in range(20)]
    assert np.mean(np.array(again) >= found.distance) > 0.1
    flat = np.unique(rng.binomial(40, 0.5, 400_000), return_counts=True)
    found = fit(*flat)
    few, many = (topo.generate("uniform", f"mlp:{n}-{n}-{n}", density=0.1, rng=0) for n in (12, 900))
    told = [power_law_p(build_graph(masks, topo.chain(masks))).note for masks in (few, many)]
    assert "units in the tail (fewer than 100 seldom" in told[0] and "units in the tail; " in told[1]
    assert found.distance > max(fit(*drawn(*flat, found, rng)).distance for _ in range(5))


@pytest.mark.small
def test_as_many_degrees_are_drawn_as_there_are_and_the_body_stays_a_body() -> None:
    values, counts = np.array([1, 2, 5, 9]), np.array([5000, 3000, 1500, 500])
    rng = np.random.default_rng(0)
    samples = [dict(zip(*(side.tolist() for side in drawn(values, counts, Fit(2.2, 5, 0.0), rng)))) for _ in range(50)]
    assert {sum(sample.values()) for sample in samples} == {10_000} and max(map(max, samples)) > 5000
    assert {degree for sample in samples for degree in sample if degree < 5} == {1, 2}
    assert [np.mean([s[d] for s in samples]) for d in (1, 2)] == pytest.approx([5000, 3000], rel=0.01)
    of_law = 2000 * 5**-2.2 / float(zeta(2.2, 5))
    assert np.mean([sample[5] for sample in samples]) == pytest.approx(of_law, rel=0.03)


def _graph_of(mask: np.ndarray):
    masks = topo.MaskSet({"w": mask})
    return build_graph(masks, topo.chain(masks))


@pytest.mark.small
@pytest.mark.parametrize("copies", [1, 7])
def test_twins_stand_for_one_another_in_eigenvalues(copies: int) -> None:
    """Eigenvalues by kinds are those of the matrix of all units."""
    rng = np.random.default_rng(copies)
    mask = np.repeat(np.repeat(rng.random((9, 11)) < 0.3, copies, axis=0), copies, axis=1)
    mask[:, -3:] = False  # units without an edge
    mask[0, : 2 * copies] = True  # leaves, once the others are gone
    mask[1:, : 2 * copies] = False
    graph = _graph_of(mask[:, rng.permutation(mask.shape[1])])
    whole, kinds = whole_graph(graph), kinds_of_units(whole_graph(graph))
    matrix = np.zeros((whole.n, whole.n))
    matrix[whole.begins, whole.outgoing[1]] = matrix[whole.outgoing[1], whole.begins] = 1.0
    rows = np.unique(matrix[matrix.any(axis=1)], axis=0)
    assert len(kinds.sizes) == len(rows) and kinds.sizes.sum() == matrix.any(axis=1).sum()
    first, second = np.sort(np.linalg.eigvalsh(matrix))[::-1][:2]
    radius = np.linalg.eigvalsh(np.diag(matrix.sum(axis=1)) - matrix).max()
    assert graph_spectral_gap(graph).number == pytest.approx(first - second)
    assert laplacian_radius(graph).number == pytest.approx(radius)
    x = rng.random(len(rows))
    np.testing.assert_allclose(kinds.times(x), kinds.matrix() @ x)


@pytest.mark.small
def test_units_of_one_fingerprint_are_compared_end_by_end() -> None:
    whole = whole_graph(_graph_of(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], bool)))
    first = np.empty(whole.n, np.int32)
    whole_kernels.twins(*whole.both, np.zeros(whole.n, np.uint64), first)
    assert first.tolist() == [0, 1, 2, 3, 4, 4, 6, 7]


@pytest.mark.small
def test_stars_are_communities_of_highest_modularity() -> None:
    """Known without a search, which of ten million leaves took a minute; the search finds no better labels."""
    mask = np.kron(np.eye(3, dtype=bool), np.ones((1, 5), bool))
    for turned in (mask, mask.T, np.vstack([mask, np.zeros_like(mask)])):
        whole = whole_graph(_graph_of(turned))
        labels = communities(whole)
        assert len(set(labels[whole.degrees > 0].tolist())) == 3
        assert modularity_of(whole, labels) == pytest.approx(2 / 3)
        assert modularity_of(whole, searched(whole, np.random.default_rng(0))) == pytest.approx(2 / 3)


@pytest.mark.small
def test_units_without_an_edge_change_no_number_but_their_own() -> None:
    """Numbers are counted on the units that have edges where most have none, as in a wide layer that keeps little."""
    rng, few = np.random.default_rng(4), np.zeros((30, 40), bool)
    few[:6, :7] = rng.random((6, 7)) < 0.5
    wide, narrow = _graph_of(few), _graph_of(few[:6, :7])
    assert whole_graph(wide).joined[0].n < whole_graph(wide).n and whole_graph(narrow).joined[0] is whole_graph(narrow)
    for name in ("cut_edges", "cut_nodes", "largest_component", "tau_core", "h_score", "two_paths", "rich_club"):
        entry = metrics[f"network:{name}"]
        assert entry(wide).number == pytest.approx(entry(narrow).number), name
    assert [whole_graph(wide).outgoing[1].size] == [whole_graph(narrow).size] == [int(few.sum())]
    left = whole_graph(wide).n - whole_graph(narrow).n
    for name in ("connected_components", "disconnected"):
        assert metrics[f"network:{name}"](wide).number == metrics[f"network:{name}"](narrow).number + left


@pytest.mark.small
def test_blocks_are_consistent_and_chance_is_not() -> None:
    def of(mask: np.ndarray) -> float:
        masks = topo.MaskSet({"a": mask})
        return structural_consistency(build_graph(masks, topo.chain(masks))).number

    blocks = np.kron(np.eye(5), np.ones((8, 8))).astype(bool)
    assert of(blocks) > 0.95 and of(np.random.default_rng(0).random((40, 40)) < 0.2) < 0.4


@pytest.mark.small
@pytest.mark.parametrize("seed", range(6))
def test_cores_are_those_of_counting_all_paths_anew(seed: int) -> None:
    """Exact counts lose what a unit closed; counts beyond 2**53 are taken anew. Both take the same units."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(3, 12, rng.integers(2, 6))
    masks = topo.MaskSet({f"l{at}": rng.random((n, m)) < 0.5 for at, (m, n) in enumerate(pairwise(widths))})
    for wiring in (topo.chain(masks), toys.branching(), toys.gated(), toys.sliced()):
        graph = build_graph(masks if wiring.steps[0].name in masks else toys.sparse(wiring, 0.6, seed), wiring)
        whole = whole_graph(graph)
        counts = whole_counts._Paths(whole)
        total, top = whole_counts._all_paths(whole, counts.ahead())
        anew = whole_counts._recounted_core(counts, total, top, 0.9, 1 << 40)
        assert whole_counts.core_of_paths(whole, 0.9, 1 << 40) == anew
        flat = WholeGraph.of_edges(*_flat(whole, counts, total, top)) if total else None
        if flat is not None:
            size = len(whole_counts.core_of_paths(flat, 0.9, 1 << 40))
            assert whole_counts.flat_core(whole, 0.9, 1 << 40) == size


def _flat(whole: WholeGraph, counts, total: float, top: int):
    """Edges of the flat network, paths of each counted one input at a time."""
    inputs, outputs = np.flatnonzero(whole.inputs), np.flatnonzero(whole.outputs)
    many = np.array([np.ldexp(*counts.ahead(np.arange(whole.n) == unit))[outputs] for unit in inputs])
    row, column = np.nonzero(many)
    n = len(inputs) + len(outputs)
    ends = np.arange(n) < len(inputs)
    edges = (row.astype(np.int32), (column + len(inputs)).astype(np.int32), many[row, column], np.zeros(len(row), int))
    return n, edges, ends, ~ends, np.ones(1, bool)


@pytest.mark.small
def test_the_core_of_a_layer_looks_at_each_edge_a_few_times() -> None:
    """All paths were counted anew for each unit: ten million weights took more than 150 s."""
    rng = np.random.default_rng(0)
    masks = topo.MaskSet({"w": rng.random((300, 200)) < 0.5})
    whole = whole_graph(build_graph(masks, topo.chain(masks)))
    work = 4 * whole.size + 200 * whole.n
    assert len(whole_counts.core_of_paths(whole, 0.9, work)) == whole_counts.flat_core(whole, 0.9, work)


@pytest.mark.small
@pytest.mark.parametrize("groups, kernel, width", [(1, 1, 300), (1, 9, 130), (4, 9, 130), (4, 1, 30)])
def test_edges_in_pieces_are_the_edges(groups: int, kernel: int, width: int, monkeypatch) -> None:
    rows = BitRows.of_mask(np.random.default_rng(0).random((12, width, kernel)) < 0.2)
    edges = views.channel(rows, np.arange(groups * width, dtype=np.int32), groups)
    whole = edges.pairs()
    monkeypatch.setattr(views, "_AT_ONCE", 70)
    assert len(list(edges.pieces())) > 1 and all(map(np.array_equal, whole, edges.pairs()))
    kept = np.zeros((12, groups, width), int)
    kept[whole[0], whole[1] // width, whole[1] % width] = whole[2]
    own = kept[np.arange(12), np.arange(12) // (12 // groups)]
    assert np.array_equal(own, rows.unpack().reshape(12, width, kernel).sum(axis=2)) and kept.sum() == own.sum()
