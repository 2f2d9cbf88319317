"""Paths and nodes: closed forms, properties, and sizes at which floats would overflow."""

from __future__ import annotations

import gc
import math
import re
import weakref
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
import topo
import toys
from topo.errors import TopoError, WiringError
from topo.graph import build_graph
from topo.graph import paths as flow
from topo.graph.arithmetic import Scaled
from topo.masks import BitRows, MaskSet
from topo.metrics import metrics
from topo.metrics.paths import edge_centrality, effective_masks, unit_centrality
from topo.wiring import Join, Layer, Wiring, chain

pytestmark = pytest.mark.kernels


def network(masks: MaskSet, wiring: Wiring, name: str, view: str = "channel") -> float:
    return metrics[f"network:{name}"](build_graph(masks, wiring, view)).number


@pytest.mark.small
@pytest.mark.parametrize("widths", [(3, 4), (2, 3, 4, 5), (1, 1, 1)])
def test_complete_chain_has_the_product_of_its_widths_as_paths(widths) -> None:
    masks, wiring = toys.complete(*widths)
    assert network(masks, wiring, "effective_paths") == math.prod(widths)
    assert network(masks, wiring, "effective_nodes") == sum(widths)
    assert network(masks, wiring, "path_entropy_width") == pytest.approx(sum(widths))
    assert network(masks, wiring, "path_entropy") == pytest.approx(sum(math.log(a * b) for a, b in pairwise(widths)))


@pytest.mark.small
@pytest.mark.parametrize("radices", [(2, 2, 2), (3, 4), (2, 3, 5)])
def test_mixed_radix_net_joins_every_pair_by_one_path(radices) -> None:
    masks, wiring = toys.mixed_radix(*radices)
    n = math.prod(radices)
    assert network(masks, wiring, "effective_paths") == n * n
    assert network(masks, wiring, "balance_gap") == pytest.approx(0, abs=1e-12)
    product = np.linalg.multi_dot([masks[name].astype(float) for name in reversed(list(masks))])
    assert (product == 1).all()


@pytest.mark.small
def test_disjoint_blocks_and_balance_law() -> None:
    masks, wiring = toys.disjoint(blocks=3, size=2, depth=4)
    assert network(masks, wiring, "effective_paths") == 3 * 2**5
    # log P + sum of H over hidden layers = sum of H over parameters
    hidden = 3 * math.log(6)
    assert math.log(3 * 2**5) + hidden == pytest.approx(network(masks, wiring, "path_entropy"))


@pytest.mark.small
@pytest.mark.parametrize("seed", range(5))
def test_balance_law_of_chains(seed: int) -> None:
    """log P + sum H(V) over hidden layers = sum H(pi) over layers <= sum log n (node-path balance law)."""
    _, wiring = toys.complete(6, 7, 8, 5)
    masks = toys.sparse(wiring, 0.5, seed)
    graph = build_graph(masks, wiring)
    widths = [metrics["layer:path_entropy_width"](graph, block).number for block in graph.masked_blocks[1:]]
    left = math.log(network(masks, wiring, "effective_paths")) + sum(map(math.log, widths))
    assert left == pytest.approx(network(masks, wiring, "path_entropy"))
    assert 0 <= network(masks, wiring, "balance_gap") < 1


@pytest.mark.small
def test_residual_toy_by_hand() -> None:
    """Two blocks of one channel: stem, (1 + 1) routes, then (1 + 1) routes through the shortcut convolution."""
    wiring = toys.residual(width=1, blocks=2, kernel=1, inputs=1, classes=1)
    masks = toys.sparse(wiring, 1.1)
    assert network(masks, wiring, "effective_paths") == 4
    assert network(masks, wiring, "nodes") == 1 + 2 + 2 + 1 + 1  # stem, two convolutions twice, classifier, output
    assert [wiring.steps[i].name for i in wiring.shortcuts] == ["1.shortcut"]
    dead = MaskSet({**masks, "0.conv2": np.zeros((1, 1, 1, 1))})
    assert network(dead, wiring, "effective_paths") == 2
    assert network(dead, wiring, "layer_collapse") == 2  # 0.conv1 leads nowhere without 0.conv2


@st.composite
def chains(draw) -> tuple[MaskSet, Wiring]:
    widths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    kernel_size = draw(st.sampled_from([1, 4, 9]))
    seed, density = draw(st.integers(0, 10**6)), draw(st.sampled_from([0.1, 0.3, 0.6, 1.0]))
    rng = np.random.default_rng(seed)
    masks = MaskSet({f"l{k}": rng.random((b, a, kernel_size)) < density for k, (a, b) in enumerate(pairwise(widths))})
    return masks, chain(masks)


@pytest.mark.small
@settings(max_examples=60, deadline=None)
@given(chains())
def test_counts_agree_with_python_integers_and_reachability_with_networkx(case) -> None:
    masks, wiring = case
    net, graph = naive.Net(masks, wiring), build_graph(masks, wiring)
    expected = naive.paths_by_integers(net)
    assert flow.exact_paths(graph) == flow.exact_paths(graph, direction="backward") == expected
    total = flow.log10(flow.counts(graph).forward_total())
    assert total == (pytest.approx(math.log10(expected), abs=1e-12) if expected else -math.inf)
    assert flow.log10(flow.counts(graph).backward_total()) == (
        pytest.approx(total, abs=1e-12) if expected else -math.inf
    )
    digraph = nx.DiGraph()
    digraph.add_nodes_from(range(wiring.n_units))
    for layer in net.layers:
        digraph.add_edges_from((u, v) for _, u, v in net.parameters(layer))
    reached = set(net.starts).union(*(nx.descendants(digraph, s) for s in net.starts))
    reaching = set(net.ends).union(*(nx.ancestors(digraph, e) for e in net.ends))
    assert set(np.flatnonzero(flow.live(graph).effective).tolist()) == reached & reaching


@pytest.mark.small
@settings(max_examples=40, deadline=None)
@given(chains(), st.integers(0, 10**6))
def test_one_more_edge_never_lowers_anything(case, pick: int) -> None:
    masks, wiring = case
    name = list(masks)[pick % len(masks)]
    more = masks[name].copy()
    more.reshape(-1)[pick % more.size] = True
    richer = MaskSet({**masks, name: more})
    for metric in ("effective_paths", "effective_nodes", "effective_units", "effective_params"):
        assert network(richer, wiring, metric) >= network(masks, wiring, metric)


def big_residual(width: int = 64, blocks: int = 6) -> tuple[MaskSet, Wiring]:
    wiring = toys.residual(width=width, blocks=blocks, kernel=3, inputs=3, classes=10)
    return toys.sparse(wiring, 0.1, 1), wiring


def test_a_graph_dies_with_its_last_name() -> None:
    """Metrics memoised on a graph make no cycle through it: bits and counts are freed at once, not by a collection."""
    graph = build_graph(*toys.complete(4, 3, 2))
    for metric in metrics.values():
        if metric.scope == "network" and not metric.weighted:
            metric(graph)
    gone = weakref.ref(graph)
    gc.disable()
    try:
        del graph, metric
        assert gone() is None
    finally:
        gc.enable()


def test_threads_change_nothing() -> None:
    _, wiring = toys.complete(1100, 1300, 1200, 1300)  # large enough for the pool to be used
    masks = toys.sparse(wiring, 0.002, 3)
    one, count = (topo.analyze(masks, wiring, threads=n) for n in (1, 4))
    assert one.to_json() == count.to_json()


def test_exact_integers_at_network_size_agree_with_python_integers() -> None:
    masks, wiring = big_residual()
    graph = build_graph(masks, wiring)
    exact = flow.exact_paths(graph)
    assert exact == flow.exact_paths(graph, direction="backward") == naive.paths_by_integers(naive.Net(masks, wiring))
    assert exact > 2**64
    assert flow.log10(flow.counts(graph).forward_total()) == pytest.approx(math.log10(exact), rel=1e-13)


@pytest.mark.parametrize("width, depth", [(8, 400), (64, 2400)])
def test_depth_neither_overflows_nor_underflows(width: int, depth: int) -> None:
    """Dense chains: float64 alone would be inf from 2**1024 on; 4300 digits is where str(int) gives up."""
    masks, wiring = toys.complete(*[width] * depth)
    report = topo.analyze(masks, wiring, metrics="paths")
    assert report.network["effective_paths"] == width**depth
    assert report.network["log10_effective_paths"] == pytest.approx(depth * math.log10(width), rel=1e-12)
    assert report.network["balance_gap"] == pytest.approx(0, abs=1e-12)
    digits = re.search(r'"effective_paths": "(\d+)"', report.to_json()).group(1)
    assert len(digits) == math.floor(depth * math.log10(width)) + 1 and digits[-1] == str(width**depth % 10)


def test_shared_scale_survives_branches_of_very_different_size() -> None:
    """A skip of one path beside a branch of 10**600: both branches keep their scale, and the small one is not lost."""
    n, depth = 10, 600
    steps: list[Layer | Join] = []
    stream, start = np.arange(n), n
    for k in range(depth):
        steps.append(Layer(f"l{k}", (n, n), stream, start))
        stream, start = np.arange(start, start + n), start + n
    steps.append(Join("add", (stream, np.arange(n)), start))
    wiring = Wiring(np.arange(n), tuple(steps), np.arange(start, start + n))
    dense = toys.sparse(wiring, 1.1)
    assert network(dense, wiring, "effective_paths") == 10 ** (depth + 1) + 10
    cut = MaskSet({**dense, "l7": np.zeros((n, n))})
    assert network(cut, wiring, "effective_paths") == 10
    assert network(cut, wiring, "log10_effective_paths") == pytest.approx(1.0)


def lengthy(first: int, second: int, width: int = 64) -> Wiring:
    """Two branches of layers 1 - width - 1, `first` and `second` of them long, that meet in sums and in a flatten."""
    steps: list[Layer | Join] = []
    ends, unit = [], 1
    for count in (first, second):
        read = 0
        for _ in range(count):
            steps.append(Layer(f"{len(steps)}", (width, 1), np.array([read]), unit))
            steps.append(Layer(f"{len(steps)}", (1, width), np.arange(unit, unit + width), unit + width))
            unit, read = unit + width + 1, unit + width
        ends.append(read)
    steps.append(Join("add", (np.array(ends), np.array(ends[::-1]), np.array([-1, ends[0]])), unit))
    steps.append(Layer("out", (2, 6), np.array([unit, -1, ends[1], unit + 1, unit, ends[0]]), unit + 2))
    return Wiring(np.array([0]), tuple(steps), np.array([unit + 3, unit + 2, ends[1]]))


SWEPT = {
    "chain": toys.complete(3, 70, 2)[1],
    "residual": toys.residual(width=7, blocks=3),
    **{name: getattr(toys, name)() for name in ("branching", "gated", "sliced", "grouped", "embedded", "strange")},
    "joins of no units": Wiring(
        np.arange(2),
        (
            *(Join(kind, (np.zeros(0, np.int32),) * 2, 2) for kind in ("add", "gate", "score")),
            Layer("a", (2, 2), np.array([1, 0]), 2),
        ),
        np.array([3, 1, 2]),
    ),
}
LENGTHY = {"short branch": lengthy(200, 1), "long branch": lengthy(1, 200)}  # 2**1200 paths beside 2**6


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.small) for name in SWEPT), *LENGTHY])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("all_units", [True, False])
def test_swept_counts_are_those_of_the_walk(name: str, density: float, all_units: bool) -> None:
    """The kernels that take many steps a call against the walk that takes one, unit by unit, exponents included."""
    wiring = (SWEPT | LENGTHY)[name]
    leave_out = tuple(n for n, s in wiring.shapes.items() if wiring.layer(n).kind == "embedding")
    graph = build_graph(toys.sparse(wiring, density, 1, leave_out), wiring)
    only = None if all_units else flow.live(graph).effective
    walk = flow.Walk(graph, Scaled, only=only).go_forward().go_backward()
    swept = flow.Swept(graph, only)
    for side in ("forward", "backward"):
        for mine, other in zip(getattr(swept, side), getattr(walk, side), strict=True):
            _same_counts(mine, other)
    assert swept.read.keys() == walk.read.keys() == swept.pushed.keys() == walk.pushed.keys()
    for index in walk.read:
        _same_counts(swept.read[index], walk.read[index])
        _same_counts(swept.pushed[index], walk.pushed[index])
    assert swept.forward_total() == pytest.approx(walk.forward_total(), rel=1e-13)
    assert swept.backward_total() == pytest.approx(walk.backward_total(), rel=1e-13)


def _same_counts(mine: Scaled, other: Scaled) -> None:
    assert mine.exponent == other.exponent
    assert mine.mantissa == pytest.approx(other.mantissa, rel=1e-13, abs=0)


@pytest.mark.small
def test_large_layers_stand_alone_in_runs_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = toys.residual(width=7, blocks=3)
    masks = toys.sparse(wiring, 0.2)
    whole = build_graph(masks, wiring)
    assert len(whole.runs) == 1
    for limit in (0, 5, 6):
        monkeypatch.setattr("topo.graph.graph._COPIED", limit)
        split = build_graph(masks, wiring, threads=2)
        assert [run[:2] for run in split.runs] != [run[:2] for run in whole.runs]
        assert sum(last - first for first, last, _ in split.runs) == len(wiring.steps)
        before, after = flow.effective_by_step(whole), flow.effective_by_step(split)
        assert before.words.keys() == after.words.keys() and (before.read == after.read).all()
        assert all((before.words[index] == after.words[index]).all() for index in before.words)
        for one, other in zip(flow.counts(whole).backward, flow.counts(split).backward):
            _same_counts(one, other)


@pytest.mark.small
@settings(max_examples=20, deadline=None)
@given(chains(), st.sampled_from([1, 3]))
def test_counts_that_are_let_go_on_several_threads_are_the_same(case, threads: int) -> None:
    masks, wiring = case
    before = flow.exact_paths(build_graph(masks, wiring))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo.graph.paths._LARGE", 0)
        assert flow.exact_paths(build_graph(masks, wiring, threads=threads)) == before
        wiring = toys.residual(width=7, blocks=3)
        masks = toys.sparse(wiring, 0.2)
        graph = build_graph(masks, wiring, threads=threads)
        assert flow.exact_paths(graph) == flow.exact_paths(graph, direction="backward")


@pytest.mark.small
def test_words_that_do_not_fit_their_layer_are_named() -> None:
    wiring = toys.complete(3, 70, 2)[1]
    name = wiring.names[1]
    masks = MaskSet({**toys.sparse(wiring, 0.5), name: BitRows((2, 70), np.zeros((2, 1), np.uint64))})
    with pytest.raises(WiringError, match=re.escape(f"layer '{name}' (2, 70) has 2 words; its rows take 4")):
        flow.live(build_graph(masks, wiring))


@pytest.mark.small
@pytest.mark.parametrize("size", [4, 70])
def test_an_unmasked_parameter_embeds_in_one_use_and_multiplies_in_another(size: int) -> None:
    n = size
    steps = (
        Layer("e", (n, n), np.arange(n), n, "embedding"),
        Layer("a", (n, n), np.arange(n, 2 * n), 2 * n),
        Layer("e", (n, n), np.arange(2 * n, 3 * n), 3 * n),
    )
    graph = build_graph(MaskSet({"a": np.eye(n)}), Wiring(np.arange(n), steps, np.arange(3 * n, 4 * n)))
    assert flow.exact_paths(graph) == n * n and flow.live(graph).effective[n:-2].all()
    assert [graph.steps[i].rows.shape for i in (0, 2)] == [(n, 1), (n, n)]


@pytest.mark.small
def test_paths_that_start_at_embeddings_alone_are_counted_from_both_ends() -> None:
    steps = (Layer("e", (3, 5), np.full(5, -1), 0, "embedding"), Layer("a", (2, 3), np.arange(3), 3))
    wiring = Wiring(np.zeros(0, np.int32), steps, np.array([3, 4]))
    graph = build_graph(MaskSet({"a": np.array([[1, 1, 0], [0, 1, 1]])}), wiring)
    assert [flow.exact_paths(graph, direction=way) for way in ("forward", "backward")] == [4, 4]
    assert flow.counts(graph).backward_total() == flow.counts(graph).forward_total() == (0.5, 3)


@pytest.mark.small
def test_no_path_is_minus_infinity_with_a_reason() -> None:
    masks = MaskSet({"a": np.ones((3, 2)), "b": np.zeros((2, 3))})
    report = topo.analyze(masks)
    assert report.network["effective_paths"] == 0
    assert report.network["log10_effective_paths"] == -math.inf
    assert math.isnan(report.network["path_entropy"])
    assert '"log10_effective_paths": null' in report.to_json()
    assert any(note["metric"] == "log10_effective_paths" for note in report.notes)
    assert report.network["layer_collapse"] == 2
    assert any("a, b" in note["note"] for note in report.notes if note["metric"] == "layer_collapse")


@pytest.mark.small
def test_centrality_of_units_and_edges() -> None:
    masks, wiring = toys.complete(2, 3, 2)[0], toys.complete(2, 3, 2)[1]
    graph = build_graph(masks, wiring)
    assert unit_centrality(graph) == pytest.approx([1 / 2] * 2 + [1 / 3] * 3 + [1 / 2] * 2)
    assert edge_centrality(graph, "fc1") == pytest.approx(np.full((3, 2), 1 / 6))
    wiring = toys.branching()
    masks = toys.sparse(wiring, 0.4, 1)
    graph, net = build_graph(masks, wiring), naive.Net(masks, wiring)
    assert len(net.paths) > 0
    share = unit_centrality(graph)
    for unit in range(wiring.n_units):
        met = sum(any(unit in (u, v) for _, u, v in path) for path in net.paths)
        assert share[unit] == pytest.approx(met / len(net.paths))
    for index, step in enumerate(wiring.steps):
        if isinstance(step, Layer) and step is wiring.layer(step.name):
            assert edge_centrality(graph, step.name).sum() == pytest.approx(net.visits(index).total() / len(net.paths))


@pytest.mark.small
def test_effective_masks_keep_the_paths_and_nothing_else() -> None:
    wiring = toys.residual(width=4, blocks=2, kernel=2)
    masks = toys.sparse(wiring, 0.15, 2)
    lean = effective_masks(build_graph(masks, wiring))
    assert lean.kept == network(masks, wiring, "effective_params") < masks.kept
    assert network(lean, wiring, "effective_paths") == network(masks, wiring, "effective_paths") > 0
    assert network(lean, wiring, "effective_nodes") == network(masks, wiring, "effective_nodes")


@pytest.mark.small
def test_routes_of_a_gate() -> None:
    """One unit each: a value branch and a gate branch. "value" counts 1 path, "all" 2, and a dead gate leaves none."""
    steps = (Layer("v", (1, 1), [0], 1), Layer("g", (1, 1), [0], 2), Join("gate", ([1], [2]), 3))
    wiring = Wiring([0], steps, [3])
    masks = MaskSet({"v": [[1]], "g": [[1]]})
    graph = build_graph(masks, wiring)
    assert flow.exact_paths(graph) == 1
    assert flow.exact_paths(graph, routes="all") == flow.exact_paths(graph, routes="all", direction="backward") == 2
    assert network(masks, wiring, "effective_params") == 2
    shut = MaskSet({"v": [[1]], "g": [[0]]})
    assert flow.exact_paths(build_graph(shut, wiring)) == 0
    assert network(shut, wiring, "effective_params") == 0
    with pytest.raises(TopoError, match="routes is 'most'"):
        flow.exact_paths(graph, routes="most")


@pytest.mark.small
def test_score_is_live_where_a_query_meets_a_key() -> None:
    """Two heads of width two: head 0 has query 0 and key 0, head 1 query 0 and key 1, which never meet."""
    steps = (
        Layer("q", (4, 1), [0], 1),
        Layer("k", (4, 1), [0], 5),
        Layer("v", (2, 1), [0], 9),
        Join("score", (range(1, 5), range(5, 9)), 11, width=2),
        Join("gate", ([9, 10], [11, 12]), 13),
    )
    wiring = Wiring([0], steps, [13, 14])
    masks = MaskSet({"q": [[1], [0], [1], [0]], "k": [[1], [0], [0], [1]], "v": [[1], [1]]})
    graph = build_graph(masks, wiring)
    assert flow.live(graph).forward[[11, 12, 13, 14]].tolist() == [True, False, True, False]
    assert flow.exact_paths(graph) == 1
    assert network(masks, wiring, "effective_params") == 3


@pytest.mark.small
def test_unit_view_drops_multiplicities() -> None:
    masks = MaskSet({"conv": np.ones((2, 3, 3, 3)), "fc": np.ones((4, 2 * 5))})
    assert network(masks, chain(masks), "effective_paths") == 3 * 9 * 2 * 5 * 4
    assert network(masks, chain(masks), "effective_paths", "unit") == 3 * 2 * 4
    assert build_graph(masks, chain(masks), "kernel").view == "channel"
    with pytest.raises(TopoError, match="no view is called 'rolled'"):
        build_graph(masks, chain(masks), "rolled")


@pytest.mark.small
def test_units_are_read_in_any_order() -> None:
    """A channel shuffle, and a zero channel in front of others: neither is the identity, and zeros are not node."""
    rng = np.random.default_rng(0)
    first, second, third = rng.random((6, 4)) < 0.6, rng.random((5, 6)) < 0.6, rng.random((3, 3)) < 0.7
    order = np.array([0, 3, 1, 4, 2, 5])
    steps = (
        Layer("first", (6, 4), np.arange(4), 4),
        Layer("second", (5, 6), 4 + order, 10),
        Layer("third", (3, 3), np.array([-1, 11, 13]), 15),
    )
    wiring = Wiring(np.arange(4), steps, np.arange(15, 18))
    masks = MaskSet({"first": first, "second": second, "third": third})
    made = second.astype(int) @ first.sum(1)[order]
    assert network(masks, wiring, "effective_paths") == (third[:, 1:].astype(int) @ made[[1, 3]]).sum()
    assert network(masks, wiring, "nodes") == 4 + 6 + 2 + 3


def test_more_units_into_one_than_a_limb_has_room_for() -> None:
    """300,001 units with 59**6 paths each pass 2**53, at which a float64 would lose the odd end."""
    widths = (*(59,) * 6, 300_001, 1)
    masks, wiring = toys.complete(*widths)
    assert network(masks, wiring, "effective_paths") == 59**6 * 300_001
