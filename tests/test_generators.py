"""Generators: exact budgets, the structure that each promises, and draws that are uniform where they say so."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

import topo
import toys
from topo.cli import main
from topo.errors import TopoError
from topo.generators import generators
from topo.generators.biregular import biregular_graph
from topo.generators.channels import packed, unpacked
from topo.generators.choice import choose, shares
from topo.generators.expander import expander_graph
from topo.generators.fields import field, prime_power
from topo.generators.radix import factorings
from topo.generators.ramanujan import plane_matrix, planes
from topo.kernels import biregular as deals
from topo.kernels import rewire
from topo.kernels.components import components
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.quotas import budgets
from topo.wiring import chain

pytestmark = pytest.mark.kernels

DETERMINISTIC = {"radix"}  # on linear layers; in a convolution kernel positions are drawn


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Wirings of built-in models are kept here, not where the user keeps them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPO_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def wirings():
    return {
        "mlp": toys.complete(20, 33, 70, 12)[1],
        "residual": toys.residual(width=8, blocks=3),
        "branching": toys.branching(),
        "gated": toys.gated(heads=2, width=4),
        "resnet20": find_wiring("resnet20"),
        "mobilenetv2": find_wiring("mobilenetv2:stem=cifar"),
    }


def made(name, wiring, density=0.3, rng=0, **options):
    """A mask set by method `name`, on widths that fit it."""
    if name == "radix":
        wiring = toys.complete(8, 16, 8, 24)[1]
    if name == "ramanujan":
        options = {"otherwise": "biregular", **options}
    if generators[name].rewires:
        options["source"] = topo.generate("erk", wiring, density=density, rng=7)
    else:
        options["density"] = density
    return topo.generate(name, wiring, rng=rng, **options)


def sigmas(matrix):
    return np.linalg.svd(matrix.astype(float), compute_uv=False)


def channel_counts(masks, layer):
    """Kept parameters by (output, input channel of its group)."""
    return unpacked(masks.rows(layer.name).words, layer.size // layer.outputs).reshape(
        layer.outputs, layer.shape[1], layer.kernel_size
    )


# What every generator promises


@pytest.mark.parametrize("network", ["mlp", "residual", "branching", "gated", "resnet20", "mobilenetv2"])
@pytest.mark.parametrize("name", list(generators))
def test_contract(name, network) -> None:
    wiring = wirings()[network]
    before, entry = wiring.to_json(), generators[name]
    masks = made(name, wiring)
    assert masks == made(name, wiring)
    assert masks != made(name, wiring, rng=1) or name in DETERMINISTIC
    assert wiring.to_json() == before
    if name != "radix":
        assert masks.shapes == wiring.shapes and list(masks) == list(wiring.names)
    if entry.exact != "no":
        assert masks.kept == round(0.3 * masks.size)
    else:
        assert masks.provenance["asked"] == round(0.3 * masks.size) and masks.provenance["keeps"] == entry.keeps
    for key in masks:
        rows = masks.rows(key)
        assert not rows.columns % 64 or not (rows.words[:, -1] >> np.uint64(rows.columns % 64)).any()  # padding


@pytest.mark.parametrize("name", [n for n, g in generators.items() if g.exact == "layers" and not g.rewires])
def test_given_budgets_are_kept_to_the_parameter(name) -> None:
    wiring, rng = wirings()["branching"], np.random.default_rng(3)
    for _ in range(20):
        # N:M cannot hold a dense layer
        share = 4 if name == "nm" else 1
        wanted = {key: int(rng.integers(0, math.prod(s) // share + 1)) for key, s in wiring.shapes.items()}
        masks = topo.generate(name, wiring, budgets=wanted, rng=rng)
        assert {key: masks.rows(key).kept() for key in masks} == wanted
    for density in (0, 1):
        if name != "nm" or density == 0:
            wanted = {key: density * math.prod(shape) for key, shape in wiring.shapes.items()}
            assert topo.generate(name, wiring, budgets=wanted).density == density


def test_quotas_and_their_names() -> None:
    wiring = wirings()["resnet20"]
    for name in ("uniform", "er", "erk", "erk_plus", "igq"):
        masks = topo.generate(name, wiring, density=0.05)
        assert {key: masks.rows(key).kept() for key in masks} == budgets(name, wiring.shapes, density=0.05)
        with pytest.raises(TopoError, match="takes no quota; it has its own"):
            topo.generate(name, wiring, density=0.05, quota="igq")
    masks = topo.generate("biregular", wiring, density=0.05, quota="igq")
    assert {key: masks.rows(key).kept() for key in masks} == budgets("igq", wiring.shapes, density=0.05)
    assert topo.generate("erk", wiring, sparsity=0.9).kept == topo.generate("erk", wiring, density=0.1).kept


def test_the_model_is_untouched_and_named() -> None:
    import torch

    module = topo.models.build("mlp:8-6-4")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.random.get_rng_state()
    masks = topo.generate("biregular", module, input_shape=(8,), density=0.5, rng=np.random.default_rng(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert masks.shapes == topo.models.prunable(module)
    assert masks.provenance["seed"] is None
    assert topo.generate("biregular", "mlp:8-6-4", density=0.5).provenance["model"] == "mlp:8-6-4"


def test_embeddings_are_masked_only_where_asked() -> None:
    wiring = toys.embedded()
    assert list(topo.generate("erk", wiring, density=0.5)) == ["head"]
    assert topo.generate("uniform", wiring, budgets={"words": 4}).shapes == {"words": (3, 5)}


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("spam",), "no method is called 'spam'; there are: random, uniform"),
        (("biregular", {"density": 0.1, "trade": 3}), "no option 'trade'; it takes trades=10"),
        (("erk", {"density": 0.1, "x": 3}), "no option 'x'; it takes none"),
        (("biregular", {"density": 0.1, "trades": "many"}), "'trades' of method 'biregular' holds 'many'; it is"),
        (("band", {"density": 0.1, "delta": 1.5}), "'delta' of method 'band' holds 1.5"),
        (("erk", {}), "needs a budget"),
        (("erk", {"density": 0.1, "sparsity": 0.9}), "one of density, sparsity and total"),
        (("erk", {"density": 1.2}), "density is 1.2"),
        (("erk", {"density": 0.1, "budgets": {"fc1": 3}}), "density cannot be given too"),
        (("biregular", {"quota": "erk", "budgets": {"fc1": 3}}), "quota cannot be given too"),
        (("biregular", {"budgets": "erk"}), "counts by layer name, not 'erk'"),
        (("erk", {"budgets": {"fc1": 661}}), "the budget of layer 'fc1' is 661"),
        (("erk", {"budgets": {"fc9": 1}}), "no layer is called 'fc9'"),
        (("biregular", {"density": 0.1, "quota": "spam"}), "no quota is called 'spam'"),
        (("shuffle", {}), "rewires masks: give it some"),
        (("erk", {"density": 0.1, "source": toys.complete(20, 33, 70, 12)[0]}), "takes no source"),
        (("shuffle", {"density": 0.1, "source": toys.complete(20, 33, 70, 12)[0]}), "'shuffle' takes no density"),
        (("configuration", {"source": toys.complete(20, 34)[0]}), "mask 'fc1' has shape"),
        (("nm", {"density": 0.6}), "holds at most 330 parameters under 2:4"),
        (("nm", {"density": 0.1, "nm": "5:4"}), "'5:4' is not an N:M pattern"),
        (("block", {"density": 0.1, "block": "4"}), "HEIGHTxWIDTH"),
        (("radix", {"density": 0.1}), "have no common divisor"),
        (("radix", {"density": 0.1, "radices": "4-4"}), "'fc1' has 33 units on a side, no multiple of 16"),
        (("radix", {"density": 0.1, "radices": "4-1"}), "numbers of 2 or more"),
        (("ramanujan", {"density": 0.1}), "joins 20 channels to 33, a shape that has no construction"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(arguments, says) -> None:
    method, given = (*arguments, {})[:2]
    with pytest.raises(TopoError) as error:
        topo.generate(method, toys.complete(20, 33, 70, 12)[1], **given)
    assert says in str(error.value) and "\n" not in str(error.value)


# Exact random choice


@pytest.mark.small
@given(st.integers(1, 9), st.integers(1, 150), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_choose_keeps_exactly(rows, columns, density, seed) -> None:
    kept = round(density * rows * columns)
    mask = choose((rows, columns), kept, np.random.default_rng(seed))
    assert mask.kept() == kept and mask.unpack().sum() == kept


@pytest.mark.small
@pytest.mark.parametrize("kept", [3, 5])
def test_choose_is_uniform(kept) -> None:
    """All 56 subsets of 8 are equally likely, drawn from either side."""
    rng = np.random.default_rng(kept)
    seen = Counter(choose((2, 4), kept, rng).unpack().tobytes() for _ in range(6000))
    assert len(seen) == 56 and chisquare(list(seen.values())).pvalue > 1e-3


def test_choose_is_even_over_a_large_layer() -> None:
    """Counts of 64 x 64 tiles against their hypergeometric variance; nothing of words or coins shows."""
    mask = choose((512, 4608), 235_930, np.random.default_rng(0)).unpack()
    tiles = mask.reshape(8, 64, 72, 64).sum(axis=(1, 3))
    expected, variance = 4096 * 0.1, 4096 * 0.1 * 0.9
    assert 500 < ((tiles - expected) ** 2 / variance).sum() < 660  # chi-square with 575 degrees of freedom
    assert abs(mask.sum(axis=0).mean() - 51.2) < 0.01 and mask.sum(axis=0).std() < 1.1 * math.sqrt(51.2 * 0.9)


@pytest.mark.small
def test_shares_are_hypergeometric() -> None:
    rng, sizes = np.random.default_rng(0), np.array([2, 3, 4])
    seen = Counter(tuple(shares(sizes, 4, rng).tolist()) for _ in range(6000))
    ways = {
        (a, b, 4 - a - b): math.comb(2, a) * math.comb(3, b) * math.comb(4, 4 - a - b)
        for a in range(3) for b in range(4) if a + b <= 4
    }  # fmt: skip
    assert set(seen) == set(ways)
    expected = [6000 * n / math.comb(9, 4) for n in ways.values()]
    assert chisquare([seen[key] for key in ways], expected).pvalue > 1e-3
    huge = np.array([3 * 10**9, 10**9])  # numpy's own sampler ends at 10**9
    assert shares(huge, 4 * 10**8, rng).sum() == 4 * 10**8


# Kernels


@pytest.mark.small
@given(st.integers(1, 12), st.integers(1, 70), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_balanced_deals(rows, columns, seed) -> None:
    """Row sums as asked, all columns of a cell distinct, column sums within 1 of each other."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, columns + 1, rows)
    words = np.zeros((rows, -(-columns // 64)), np.uint64)
    deals.deal(counts, 1, columns, columns, True, rng, words)
    matrix = unpacked(words, columns)
    assert (matrix.sum(axis=1) == counts).all() and np.ptp(matrix.sum(axis=0)) <= 1
    assert words.view(np.uint8).sum() == packed(matrix).view(np.uint8).sum()


@pytest.mark.small
def test_deals_are_uniform() -> None:
    """Independent cells: 20 triples of 6. Balanced cells of 2 and 2 from a deck of 3: 6 pairs of distinct pairs."""
    rng = np.random.default_rng(1)
    triples: Counter = Counter()
    pairs: Counter = Counter()
    for _ in range(3000):
        words = np.zeros((2, 1), np.uint64)
        deals.deal(np.array([3, 3]), 1, 6, 6, False, rng, words)
        triples.update(words[:, 0].tolist())
        words = np.zeros((2, 1), np.uint64)
        deals.deal(np.array([2, 2]), 1, 3, 3, True, rng, words)
        pairs[tuple(words[:, 0].tolist())] += 1
    assert len(triples) == 20 and chisquare(list(triples.values())).pvalue > 1e-3
    assert len(pairs) == 6 and chisquare(list(pairs.values())).pvalue > 1e-3
    words = np.zeros((3, 1), np.uint64)
    deals.deal(np.array([4, 1, 4, 1, 4, 1]), 2, 4, 5, False, rng, words)  # a last cell of one column
    assert words[:, 0].tolist() == [0b11111] * 3


START = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]], bool)


def graphs_with_the_sums_of(matrix):
    """Every 0/1 matrix with these row and column sums, as tuples of row words."""
    columns = matrix.shape[1]
    ways = [[sum(1 << c for c in chosen) for chosen in combinations(range(columns), k)] for k in matrix.sum(axis=1)]
    sums = matrix.sum(axis=0)
    return [t for t in product(*ways) if all(sum(x >> c & 1 for x in t) == sums[c] for c in range(columns))]


@pytest.mark.small
def test_trades_reach_every_graph_equally_often() -> None:
    states, rng, words = graphs_with_the_sums_of(START), np.random.default_rng(5), packed(START)
    seen: Counter = Counter()
    for _ in range(5000):
        rewire.trade(words, 8, rng)
        seen[tuple(words[:, 0].tolist())] += 1
    assert len(states) == 51 and set(seen) == set(states)
    assert chisquare([seen[state] for state in states]).pvalue > 1e-3


@pytest.mark.small
def test_both_ways_of_dealing_a_trade_are_uniform() -> None:
    """6 differing bits over two words, 2 of them due to the first row: 15 outcomes."""
    rng = np.random.default_rng(2)
    start = np.zeros((2, 2), np.uint64)
    start[0] = (0b1001, 0b0001)  # one common bit
    start[1] = (0b0111, 0b0110)
    differing = int(sum(x.bit_count() for x in (start[0] ^ start[1]).tolist()))
    due = int(sum(x.bit_count() for x in (start[0] & ~start[1]).tolist()))
    for way in (rewire._in_turn, rewire._by_coins):
        seen: Counter = Counter()
        for _ in range(3000):
            words = start.copy()
            if way is rewire._in_turn:
                way(words, 0, 1, due, differing, rng)
            else:
                way(words, 0, 1, due, rng, np.empty(2, np.uint64))
            assert ((words[0] & words[1]) == (start[0] & start[1])).all()
            assert ((words[0] ^ words[1]) == (start[0] ^ start[1])).all()
            seen[tuple(words[0].tolist())] += 1
        assert len(seen) == math.comb(differing, due) and chisquare(list(seen.values())).pvalue > 1e-3


@pytest.mark.small
def test_trades_by_coins_keep_the_sums() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((20, 130)) < 0.5
    words = packed(mask)
    assert rewire.trade(words, 10, rng) > 0
    traded = unpacked(words, 130)
    assert (traded.sum(axis=0) == mask.sum(axis=0)).all() and (traded.sum(axis=1) == mask.sum(axis=1)).all()
    assert (traded & mask).mean() < 0.3  # half at the start; a quarter and a little, as column sums stay


# Structure


@pytest.mark.parametrize("network", ["mlp", "residual", "branching", "mobilenetv2"])
@pytest.mark.parametrize("name", ["biregular", "expander"])
def test_regular_graphs_have_even_rows_columns_and_kernels(name, network) -> None:
    wiring = wirings()[network]
    for density in (0.05, 0.3, 0.8):
        masks = made(name, wiring, density)
        for key in masks:
            layer = wiring.layer(key)
            kept = channel_counts(masks, layer)
            pairs = kept.sum(axis=2)
            assert np.ptp(pairs) <= 1 and np.ptp(pairs.sum(axis=1)) <= 1
            assert np.ptp(pairs.reshape(layer.groups, -1, layer.shape[1]).sum(axis=1)) <= 1
            assert np.ptp(kept.sum(axis=(0, 1))) <= 1


@pytest.mark.small
@pytest.mark.parametrize("degree", [3, 15])
def test_biregular_graphs_are_no_union_of_bicliques(degree) -> None:
    """The trap of Havel-Hakimi: at n = 60, d = 15 four copies of K_15,15 with singular values 15, 15, 15, 15."""
    rng = np.random.default_rng(0)
    for words in (biregular_graph(60, 60, 60 * degree, 10, rng), expander_graph(60, 60, 60 * degree, 10, rng)):
        first, second = sigmas(unpacked(words, 60))[:2]
        assert components(words, np.empty(60, np.int64)) == 1
        assert first == pytest.approx(degree) and second < 1.05 * 2 * math.sqrt(degree - 1) < degree


def switched(n, degree, rng):
    """A random regular bipartite graph the slow way: a circulant, and ten single switches for each edge."""
    graph = (np.arange(n) - np.arange(n)[:, None]) % n < degree
    edges = np.argwhere(graph).tolist()
    for x, y in rng.integers(0, len(edges), (10 * len(edges), 2)).tolist():
        (a, b), (c, d) = edges[x], edges[y]
        if not graph[a, d] and not graph[c, b]:
            graph[a, b] = graph[c, d] = False
            graph[a, d] = graph[c, b] = True
            edges[x][1], edges[y][1] = d, b
    return graph


@pytest.mark.small
def test_biregular_gap_is_that_of_random_graphs() -> None:
    """n = 60, d = 15: sigma_2 as in graphs of a naive switch chain; the Ramanujan bound is 7.48."""
    rng = np.random.default_rng(1)
    ours = [sigmas(unpacked(biregular_graph(60, 60, 900, 10, rng), 60))[1] for _ in range(20)]
    naive = [sigmas(switched(60, 15, rng))[1] for _ in range(20)]
    assert max(ours) < 2 * math.sqrt(14)
    assert abs(np.mean(ours) - np.mean(naive)) < 4 * math.hypot(np.std(ours), np.std(naive)) / math.sqrt(20)


@pytest.mark.small
@pytest.mark.parametrize("rows, columns", [(30, 30), (17, 40), (64, 9), (5, 2)])
def test_expanders_are_connected_wherever_edges_suffice(rows, columns) -> None:
    rng = np.random.default_rng(0)
    for edges in range(rows + columns - 1, rows * columns, max(1, rows * columns // 12)):
        words = expander_graph(rows, columns, edges, 10, rng)
        assert components(words, np.empty(rows, np.int64)) == 1
        graph = unpacked(words, columns)
        assert graph.sum() == edges and np.ptp(graph.sum(axis=0)) <= 1 and np.ptp(graph.sum(axis=1)) <= 1


def test_configuration_keeps_every_degree() -> None:
    for network in ("residual", "branching", "mobilenetv2"):
        wiring = wirings()[network]
        source = toys.sparse(wiring, 0.3, seed=4)
        masks = topo.generate("configuration", wiring, source=source, rng=2)
        moved = 0
        for key in masks:
            layer = wiring.layer(key)
            before, after = (m[key].reshape(layer.groups, layer.outputs // layer.groups, -1) for m in (source, masks))
            assert (before.sum(axis=1) == after.sum(axis=1)).all() and (before.sum(axis=2) == after.sum(axis=2)).all()
            moved += int((before != after).sum())
        assert moved > 0.1 * source.kept


def test_inverted_masks_keep_as_many_and_as_few_of_the_same_as_can_be() -> None:
    wiring = find_wiring("resnet20")
    source = topo.generate("erk", wiring, density=0.1, rng=3)
    other = topo.generate("invert", wiring, source=source)
    assert [other.rows(n).kept() for n in source] == [source.rows(n).kept() for n in source]
    shared = {name: int((source[name] & other[name]).sum()) for name in source}
    assert shared == {name: max(0, int(2 * mask.sum()) - mask.size) for name, mask in source.items()}
    assert 0 < sum(map(bool, shared.values())) < len(shared)
    drawn = [topo.generate("invert", source={"a": [[1, 1, 1, 0]]}, rng=k)["a"][0].tolist() for k in range(40)]
    assert {tuple(row) for row in drawn} == {(1, 1, 0, 1), (1, 0, 1, 1), (0, 1, 1, 1)}


def test_shuffle_keeps_counts_and_nothing_else() -> None:
    wiring = toys.complete(64, 64, 64)[1]
    source = MaskSet({name: np.arange(64 * 64).reshape(64, 64) < 400 for name in wiring.names})
    masks = topo.generate("shuffle", wiring, source=source)
    assert [masks.rows(name).kept() for name in masks] == [400, 400]
    assert all(masks[name][:7].sum() < 80 for name in masks)  # of 400 that were all there; expected 44
    part = topo.generate("shuffle", wiring, source={"fc2": source["fc2"]})
    assert list(part) == ["fc2"]


def test_xnet_is_regular_on_the_smaller_side() -> None:
    wiring = wirings()["mlp"]
    masks = topo.generate("xnet", wiring, density=0.2)
    for key in masks:
        axis = 1 if masks[key].shape[0] <= masks[key].shape[1] else 0
        assert np.ptp(masks[key].sum(axis=axis)) <= 1
        assert np.ptp(masks[key].sum(axis=1 - axis)) > 1


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:3"])
@pytest.mark.parametrize("network", ["residual", "branching", "resnet20"])
def test_nm_complies(pattern, network) -> None:
    wiring = wirings()[network]
    n, m = map(int, pattern.split(":"))
    for density in (n / m, 0.1):
        masks = topo.generate("nm", wiring, density=density, nm=pattern)
        assert masks.kept == round(density * masks.size)
        for key in masks:
            kept = np.add.reduceat(masks[key], np.arange(0, masks[key].shape[1], m), axis=1, dtype=int)
            assert kept.max() <= n
            whole = kept[:, : masks[key].shape[1] // m]
            assert whole.size == 0 or density < n / m or masks[key].shape[1] % m or (whole == n).all()


@pytest.mark.small
def test_nm_groups_are_uniform() -> None:
    rng = np.random.default_rng(0)
    mask = topo.generate("nm", toys.complete(4000, 3)[1], density=0.5, rng=rng)["fc1"]
    seen = Counter(group.tobytes() for group in mask.reshape(-1, 4))
    assert len(seen) == 6 and chisquare(list(seen.values())).pvalue > 1e-3


def test_blocks_are_whole_but_for_one() -> None:
    wiring = toys.complete(20, 33)[1]
    for kept in (0, 1, 33, 160, 161, 659, 660):
        mask = topo.generate("block", wiring, budgets={"fc1": kept}, block="4x8")["fc1"]
        parts = [mask[i : i + 4, j : j + 8] for i in range(0, 33, 4) for j in range(0, 20, 8)]
        assert mask.sum() == kept
        assert sum(0 < part.sum() < part.size for part in parts) <= 1


def test_bands_and_small_worlds() -> None:
    wiring = toys.complete(64, 64)[1]

    def mean_distance(name, **options):
        mask = topo.generate(name, wiring, density=0.125, **options)["fc1"]
        assert (mask.sum(axis=1) == 8).all()
        row, column = np.nonzero(mask)
        return float(np.minimum(abs(row - column), 64 - abs(row - column)).mean())

    assert mean_distance("band", delta=0) == 2.0  # 0, 1, 1, 2, 2, 3, 3 and one of the 4s
    assert mean_distance("band", delta=0.3) < mean_distance("band", delta=0.6) < mean_distance("band", delta=1.0)
    assert mean_distance("band", delta=1.0) == pytest.approx(16, abs=1.5)
    assert mean_distance("smallworld", beta=0) == 2.0
    assert 3 < mean_distance("smallworld", beta=0.2) < 6
    assert mean_distance("smallworld", beta=1.0) == pytest.approx(17.9, abs=1.5)  # every edge leaves the band


# Closed constructions


@pytest.mark.parametrize(
    "widths, radices", [((8, 8, 8, 8), (2, 2, 2)), ((6, 12, 18), (3, 2)), ((12, 12, 24, 36), (3, 2, 2))]
)
def test_radix_paths_in_closed_form(widths, radices) -> None:
    """inputs * prod(N_i D_i) paths, as many between any input and any output."""
    wiring = toys.complete(*widths)[1]
    masks = topo.generate("radix", wiring, density=0.3, radices="-".join(map(str, radices)))
    n = math.prod(radices)
    count = widths[0] * math.prod(radix * width // n for radix, width in zip(radices, widths[1:]))
    network = topo.analyze(masks, wiring, metrics=["effective_paths", "effective_params"]).network
    assert network["effective_paths"] == count and network["effective_params"] == masks.kept
    matrix = np.eye(widths[0], dtype=int)
    for name in masks:
        matrix = masks[name].astype(int) @ matrix
    assert (matrix == count // (widths[0] * widths[-1])).all()


def test_radix_of_convolutions_and_dense_ends() -> None:
    shapes = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (16, 8, 3, 3), "d": (10, 16)}
    wiring = chain(MaskSet({name: np.ones(shape) for name, shape in shapes.items()}))
    made = topo.generate("radix", wiring, density=0.2, ends="dense", radices="2-4")
    assert made["a"].all() and made["d"].all()
    b, c = (made[key].reshape(*made[key].shape[:2], 9).sum(axis=2) for key in "bc")
    assert len(np.unique(b)) == len(np.unique(c)) == 2  # an edge has its multiplicity or none
    assert (b > 0).sum() == 8 * 2 and (c > 0).sum() == 16 * 4
    count = 3 * 8 * 9 * (2 * b.max()) * (4 * 2 * c.max()) * 10
    assert topo.analyze(made, wiring, metrics="effective_paths").network["effective_paths"] == count
    chosen = topo.generate("radix", toys.complete(64, 64, 64)[1], density=1 / 8)
    assert chosen.density == 1 / 8  # 8 times 8 is the nearest


@pytest.mark.small
def test_factorings() -> None:
    assert list(factorings(12)) == [(12,), (6, 2), (4, 3), (3, 2, 2)]
    assert len(list(factorings(2**9))) == 30  # partitions of 9


@pytest.mark.small
@pytest.mark.parametrize("q", [2, 3, 4, 5, 8, 9, 16, 25, 27])
def test_fields(q) -> None:
    add, multiply = field(q)
    every = np.arange(q)
    assert (add == add.T).all() and (multiply == multiply.T).all()
    assert (add[0] == every).all() and (multiply[1] == every).all() and not multiply[0].any()
    assert all(sorted(row) == list(every) for row in add)
    assert all(sorted(row) == list(every) for row in multiply[1:])
    left = multiply[every[:, None, None], add[every[:, None], every]]
    assert (left == add[multiply[:, :, None], multiply[:, None, :]]).all()
    assert (multiply[multiply][:, :, every] == multiply[every[:, None, None], multiply]).all()


@pytest.mark.small
def test_prime_powers() -> None:
    assert [q for q in range(28) if prime_power(q)] == [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27]
    assert prime_power(27) == (3, 3)


@pytest.mark.small
@pytest.mark.parametrize(
    "rows, columns", [(16, 16), (32, 16), (9, 9), (25, 10), (20, 25), (64, 64), (64, 32), (128, 128)]
)
def test_planes_are_ramanujan(rows, columns) -> None:
    found = list(planes(rows, columns))
    assert found
    for plane in found:
        matrix = plane_matrix(plane, np.random.default_rng(0))
        assert matrix.shape == (rows, columns) and matrix.sum() == plane.edges == rows * columns / plane.q
        left, right = matrix.sum(axis=1), matrix.sum(axis=0)
        assert np.ptp(left) == np.ptp(right) == 0
        values = sigmas(matrix)
        assert values[0] == pytest.approx(math.sqrt(left[0] * right[0]))
        assert values[1] == pytest.approx(plane.sigma2)
        assert values[1] <= math.sqrt(left[0] - 1) + math.sqrt(right[0] - 1) == pytest.approx(plane.bound)
        assert components(packed(matrix), np.empty(rows, np.int64)) == 1


def test_ramanujan_masks_pass_the_metric() -> None:
    wiring = toys.complete(64, 64, 32, 64)[1]
    masks = topo.generate("ramanujan", wiring, density=1 / 8)
    assert masks.density == 1 / 8
    report = topo.analyze(masks, wiring, metrics=["is_ramanujan", "components"])
    assert report.network["is_ramanujan"] == 1 and report.network["components"] == 1
    conv = chain(MaskSet({"a": np.ones((32, 64, 3, 3))}))
    mask = topo.generate("ramanujan", conv, density=0.05)["a"]
    assert mask.sum() == round(0.05 * mask.size)  # exact, as kernels have room
    pairs = mask.any(axis=(2, 3))
    assert sigmas(pairs)[1] <= math.sqrt(pairs.sum(axis=0)[0] - 1) + math.sqrt(pairs.sum(axis=1)[0] - 1)
    assert topo.generate("ramanujan", toys.complete(20, 30)[1], density=0.3, otherwise="dense").density == 1


# Files and the command


def test_provenance_survives_the_file(tmp_path) -> None:
    masks = topo.generate("nm", "resnet20", density=0.25, nm="1:4", rng=3)
    topo.write_masks(masks, tmp_path / "m.safetensors")
    again = topo.read_masks(tmp_path / "m.safetensors")
    assert again == masks and list(again) == list(masks)
    known = {key: again.provenance[key] for key in ("method", "options", "seed", "model", "input_shape", "created_by")}
    assert known == {
        "method": "nm",
        "options": {"nm": "1:4", "quota": "uniform"},
        "seed": 3,
        "model": "resnet20",
        "input_shape": [3, 32, 32],
        "created_by": f"topo {topo.__version__}",
    }


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_command_writes_masks_and_says_so(run) -> None:
    code, out, err = run("generate", "biregular", "--model", "mlp:64-32-10", "--density", "0.1", "-O", "trades=3")
    file = Path("biregular_mlp-64-32-10_d0.1001.safetensors")
    assert (code, err) == (0, f"topo: wrote {file}\n")
    assert out == "237 of 2,368 parameters kept, density 0.1001, 2 layers\n"
    masks = topo.read_masks(file)
    assert masks.kept == 237 and masks.provenance["options"] == {"trades": 3, "quota": "erk"}
    assert masks == topo.generate("biregular", "mlp:64-32-10", density=0.1, trades=3)
    again = ("generate", "biregular", "--model", "mlp:64-32-10", "--sparsity", "0.9", "-O", "trades=3")
    code, out, err = run(*again)
    assert (code, out) == (1, "") and "is there already" in err
    first = file.read_bytes()
    assert run(*again, "-o", file)[0] == 0
    assert file.read_bytes() == first  # same seed, same bytes
    code, out, _ = run("--quiet", "generate", "radix", "--model", "mlp:64-64-64", "--density", "0.1", "-o", "r.npz")
    assert code == 0 and out.endswith("; asked were 819\n")


def test_command_starts_from_masks(run) -> None:
    masks = topo.generate("erk", "mlp:64-32-10", density=0.1)
    topo.write_masks(masks, "a.safetensors")
    rewired = ("generate", "shuffle", "--model", "mlp:64-32-10", "--from", "a.safetensors", "--seed", "5", "-o")
    assert run(*rewired, "a.safetensors")[0] == 2  # it would overwrite its source
    assert run(*rewired, "b.safetensors")[0] == 0
    shuffled = topo.read_masks("b.safetensors")
    assert shuffled.provenance["seed"] == 5 and shuffled != masks
    assert [shuffled.rows(n).kept() for n in masks] == [masks.rows(n).kept() for n in masks]


def test_command_takes_the_model_from_the_file_or_none(run) -> None:
    masks = topo.generate("erk", "mlp:64-32-10", density=0.1)
    topo.write_masks(masks, "named.safetensors")
    topo.write_masks(topo.MaskSet({name: masks[name] for name in masks}), "bare.npz")
    for method in ("shuffle", "configuration", "invert"):
        made = {}
        for source, model in (("named.safetensors", "mlp:64-32-10"), ("bare.npz", None)):
            code, out, _ = run("generate", method, "--from", source, "--seed", "5", "-o", f"{method}-{source}")
            assert (code, out) == (0, "237 of 2,368 parameters kept, density 0.1001, 2 layers\n")
            made[source] = topo.read_masks(f"{method}-{source}")
            assert made[source].provenance.get("model") == model
        assert made["named.safetensors"] == made["bare.npz"] != masks
        for name in masks if method == "configuration" else ():
            for axis in (0, 1):
                np.testing.assert_array_equal(made["bare.npz"][name].sum(axis), masks[name].sum(axis))
    assert run("generate", "shuffle", "--from", "bare.npz")[0] == 0
    assert topo.read_masks("shuffle_bare_d0.1001.safetensors") == topo.generate("shuffle", source=masks)
    with pytest.raises(TopoError, match="'erk' makes masks for a network: give its wiring"):
        topo.generate("erk", density=0.1)


@pytest.mark.parametrize(
    "argv, code, says",
    [
        (("erk", "--model", "mlp:8-4", "--density", "0.1", "--from", "a.npz"), 2, "'erk' starts from no masks"),
        (("erk", "--model", "mlp:8-4"), 2, "give --density or --sparsity"),
        (("erk", "--model", "mlp:8-4", "--density", "0.1", "--sparsity", "0.9"), 2, "not allowed with"),
        (("erk", "--model", "mlp:8-4", "--sparsity", "98"), 2, "--sparsity: '98' is not a fraction"),
        (("erk", "--density", "0.1"), 2, "--model"),
        (("erk", "--model", "mlp:8-4", "--density", "2"), 2, "'2' is not a fraction; it is a number from 0 to 1"),
        (("shuffle", "--model", "mlp:8-4"), 2, "--from"),
        (("nm", "--model", "mlp:8-4", "--density", "0.5", "-O", "nm"), 2, "KEY=VALUE"),
        (("nm", "--model", "mlp:8-4", "--density", "0.5", "-O", "nm=2:4", "-O", "nm=1:4"), 2, "twice"),
        (("nm", "--model", "mlp:8-4", "--density", "0.5", "-O", "rng=4"), 2, "options of its own"),
        (("nm", "--model", "mlp:8-4", "--density", "0.5", "-O", "mn=2:4"), 1, "it takes nm=2:4"),
        (("spam", "--model", "mlp:8-4", "--density", "0.5"), 1, "no method is called 'spam'"),
        (("erk", "--model", "mlp:8-4", "--density", "0.5", "-o", "no/m.safetensors"), 1, "no folder"),
        (("erk", "--model", "mlp:8-4", "--density", "0.5", "-o", "m.txt"), 1, "end in"),
    ],
)
def test_command_errors(run, argv, code, says) -> None:
    found, out, err = run("generate", *argv)
    assert (found, out) == (code, "") and says in err
    assert not [*Path().iterdir()]


def test_list_methods(run) -> None:
    code, out, _ = run("list", "methods")
    assert code == 0
    for name, entry in generators.items():
        assert f"\n{name} " in out
        assert entry.description.endswith(".") and len(entry.description) < 120
    assert json.dumps(sorted(generators)) == json.dumps(sorted(
        "random uniform er erk erk_plus igq biregular configuration xnet radix nm block expander band smallworld "
        "shuffle invert ramanujan smart_ratio clustered".split()
    ))  # fmt: skip


def test_a_radix_net_far_from_the_budget_is_refused() -> None:
    """Widths of common divisor 2 leave one system, (2,), which is dense."""
    with pytest.raises(TopoError, match=r"nearest to 678 parameters keeps 3,392: their common divisor is 2"):
        topo.generate("radix", "mlp:64-32-32-10", density=0.2)
    assert topo.generate("radix", "mlp:64-32-32-10", density=0.2, radices="2").kept == 3392


@pytest.mark.parametrize(
    "given, message",
    [
        ({"rng": "x"}, "rng is 'x'; it is a seed, a whole number of 0 or more, or a numpy Generator"),
        ({"rng": -1}, "rng is -1"),
        ({"rng": 1.5}, "rng is 1.5"),
        ({"rng": True}, "rng is True"),
        ({"density": "0.1"}, "density is '0.1'; it is a number from 0 to 1"),
        ({"density": True}, "density is True"),
        ({"density": float("nan")}, "density is nan"),
    ],
)
@pytest.mark.parametrize("method", ["erk", "balance", "magnitude"])
def test_what_is_no_seed_and_no_density(method: str, given: dict, message: str) -> None:
    with pytest.raises(TopoError, match=re.escape(message)):
        topo.generate(method, "mlp:8-6-4", **{"density": 0.5, **given})


def test_a_rewired_mask_is_another_under_the_seed_that_drew_it() -> None:
    """Overlaps of chance: uniform masks share the density of their parameters, not all of them."""
    from topo.nulls import nulls
    from topo.plots.nulls import sampled

    wiring = find_wiring("lenet5")
    for seed in (0, 7):
        for source in (topo.generate("uniform", wiring, density=0.1, rng=seed),
                       topo.generate("random", wiring, density=0.1, rng=seed)):  # fmt: skip
            drawn = [topo.generate("shuffle", wiring, source=source, rng=seed)]
            drawn += [nulls[name](source, rng=seed) for name in ("same_total", "same_layers")]
            drawn += sampled("shuffle:2", source, wiring, seed) + sampled("same_total:2", source, wiring, seed)
            for masks in drawn:
                assert masks.kept == source.kept
                both = sum(int((masks[name] & source[name]).sum()) for name in source)
                assert both < 0.2 * source.kept
            assert drawn[-1] != drawn[-2] != drawn[0]


def test_masks_remember_what_they_were_made_from() -> None:
    source = topo.generate("erk", "lenet5", density=0.1, rng=3)
    for wiring in (None, "lenet5"):
        made = topo.generate("shuffle", wiring, source=source, rng=1).provenance
        origin = {"method": "erk", "seed": 3, "density": source.density, "content_hash": source.content_hash}
        assert made["source"] == origin
        assert (made["model"], made["input_shape"], made["seed"]) == ("lenet5", [1, 28, 28], 1)
    noted = topo.generate("configuration", source=source).provenance["notes"]
    assert noted == ["each convolution was taken to be in one group: groups are known with a model alone"]
    assert "notes" not in topo.generate("configuration", "lenet5", source=source).provenance


@pytest.mark.parametrize("excess", [0.0, 0.8, 1.0])
def test_clusters_turn_sigma2_up_at_fixed_degrees(excess: float) -> None:
    """Of one seed: the sums of rows and of columns stay, sigma2 rises; the kernel gathers as its plain twin counts."""
    wiring = find_wiring("mlp:60-60-40-10")
    masks = topo.generate("clustered", wiring, density=0.2, rng=3, excess=excess, quota="uniform")
    start = topo.generate("clustered", wiring, density=0.2, rng=3, excess=0, quota="uniform")
    for name in masks:
        for axis in (0, 1):
            np.testing.assert_array_equal(masks[name].sum(axis), start[name].sum(axis))
    sigmas = [topo.analyze(each, wiring, metrics=["sigma2"]).network["sigma2"] for each in (start, masks)]
    assert sigmas[1] > sigmas[0] * (1 + 0.2 * excess) if excess else masks == start
    conv = find_wiring("digits_conv")
    masks = topo.generate("clustered", conv, density=0.2, excess=excess)
    start = topo.generate("clustered", conv, density=0.2, excess=0)
    assert all(
        (masks[n].sum(0) == start[n].sum(0)).all() and masks.rows(n).kept() == start.rows(n).kept() for n in masks
    )


def test_gathered_edges_are_those_within_clusters() -> None:
    rng = np.random.default_rng(0)
    for columns in (3, 64, 70):
        mask = rng.random((20, columns)) < 0.3
        words = np.ascontiguousarray(packed(mask))
        of_row, of_column = rng.integers(0, 3, 20), rng.integers(0, 3, columns)
        within = of_row[:, None] == of_column
        before = int((mask & within).sum())
        goal = before + 0.5 * int((mask & ~within).sum())
        inside = rewire.gather(words, of_row, of_column, 0.5, rng)
        after = unpacked(words, columns)
        assert inside == int((after & within).sum()) and (inside < goal + 2)
        assert (after.sum(0) == mask.sum(0)).all() and (after.sum(1) == mask.sum(1)).all()
        if columns == 70:
            assert inside >= goal
