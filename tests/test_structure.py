"""Structure: patterns, diversity and density profiles; published values and definitions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive.degrees
import topo
import toys
from topo.errors import MaskError, TopoError
from topo.graph import build_graph
from topo.masks import BitRows, MaskSet
from topo.metrics import metrics
from topo.metrics.diversity import diversity_bits, log2_choices, square_fillings
from topo.metrics.structure import block_occupancy, n_m_compliance
from topo.quotas import budgets

pytestmark = [pytest.mark.small, pytest.mark.kernels]
ENTRIES = [entry for entry in metrics.values() if entry.group == "structure"]


def network(masks: MaskSet, metric: str):
    return metrics[f"network:{metric}"](build_graph(masks))


@pytest.mark.parametrize(
    "kind, bits",
    [
        ("8:16", 0.853),
        ("4:8", 0.766),
        ("2:4", 0.646),
        ("transposable 4:8", 0.574),
        ("transposable 2:4", 0.406),
    ],
)
def test_published_diversity_at_half_density(kind: str, bits: float) -> None:
    assert round(diversity_bits(kind), 3) == bits


def test_diversity_of_unstructured_and_block_masks() -> None:
    assert diversity_bits("unstructured", 0.5) == 1
    assert diversity_bits("4x4 blocks", 0.5) == 0.0625
    assert diversity_bits("1x8 blocks", 0.25) == pytest.approx(diversity_bits("unstructured", 0.25) / 8)
    assert diversity_bits("unstructured", 0) == diversity_bits("unstructured", 1) == 0
    assert diversity_bits("2:4") == pytest.approx(math.log2(6) / 4)
    # a wider group restricts less; the limit is unstructured
    assert diversity_bits("2:4") < diversity_bits("4:8") < diversity_bits("512:1024") < 1
    assert diversity_bits("500000:1000000") == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(
    "kind, density, text",
    [
        ("spam", None, "'spam' is not a kind of mask"),
        ("transposable spam", None, "not a kind of mask"),
        ("4:2", None, "is not an N:M pattern"),
        ("2:4", 0.5, "have density 2/4; none is to be given"),
        ("unstructured", None, "need a density from 0 to 1"),
        ("4x4 blocks", 1.5, "need a density from 0 to 1, not 1.5"),
        ("transposable 8:16", None, "are counted up to M = 14"),
    ],
)
def test_diversity_that_cannot_be_asked(kind: str, density: float | None, text: str) -> None:
    with pytest.raises(TopoError, match=text):
        diversity_bits(kind, density)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_square_fillings_by_enumeration(m: int) -> None:
    rows = list(product((0, 1), repeat=m))
    for n in range(m + 1):
        regular = [row for row in rows if sum(row) == n]
        found = sum(all(sum(column) == n for column in zip(*matrix)) for matrix in product(regular, repeat=m))
        assert square_fillings(m, n) == found


def test_square_fillings_known_and_symmetric() -> None:
    assert [square_fillings(n, 1) for n in range(1, 7)] == [1, 2, 6, 24, 120, 720]  # permutations
    assert square_fillings(8, 4) == 116963796250  # OEIS A058527
    assert square_fillings(9, 2) == square_fillings(9, 7)


@given(st.integers(1, 6000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_log2_choices_against_integers(n: int, share: float) -> None:
    k = round(share * n)
    assert log2_choices(n, k) == pytest.approx(math.log2(math.comb(n, k)), rel=1e-10)


@pytest.mark.parametrize("n, k", [(10**9, 1100), (10**12, 3000), (10**15, 1200), (10**7, 10**7 - 20000)])
def test_log2_choices_of_layers_beyond_differences_of_logarithms(n: int, k: int) -> None:
    """Differences of lgamma lose 3e-10 at a billion weights, 6e-5 at 1e15."""
    assert log2_choices(n, k) == pytest.approx(math.log2(math.comb(n, k)), rel=1e-14)


def test_log2_choices_of_a_large_layer() -> None:
    n = 4096 * 11008
    assert log2_choices(n, n // 2) / n == pytest.approx(1, abs=1e-6)
    assert log2_choices(n, 1) == math.log2(n) and log2_choices(n, 0) == 0
    # across the change of method, C(n, 1000) = C(n, 999) (n - 999) / 1000
    step = log2_choices(n, 1000) - log2_choices(n, 999)
    assert step == pytest.approx(math.log2((n - 999) / 1000), abs=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_patterns_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(2, 5)))
    m = int(rng.integers(1, 7))
    n = int(rng.integers(1, m + 1))
    mask = rng.random(shape) < rng.random()
    assert n_m_compliance(mask, n, m) == naive.degrees.n_m(mask, n, m)
    height, width = (int(side) for side in rng.integers(1, 7, 2))
    assert block_occupancy(mask, height, width) == pytest.approx(naive.degrees.block_occupancy(mask, height, width))


def test_n_m_compliance_counts_groups() -> None:
    mask = np.tile([True, True, False, False], (6, 8))
    assert n_m_compliance(mask, 2, 4) == n_m_compliance(mask, 4, 8) == 1
    mask[0, :3] = True  # one group of 48 keeps 3; its 4:8 group keeps 5 of 8
    assert n_m_compliance(mask, 2, 4) == 47 / 48 and n_m_compliance(mask, 4, 8) == 23 / 24
    assert n_m_compliance(BitRows.of_mask(mask), 3, 4) == 1
    assert n_m_compliance(mask, 300, 400) == 1 and n_m_compliance(np.ones((1, 400)), 300, 400) == 0
    with pytest.raises(TopoError, match="4:2 is not an N:M pattern"):
        n_m_compliance(mask, 4, 2)
    with pytest.raises(MaskError, match="holds 2"):
        n_m_compliance(np.array([[2, 0]]), 2, 4)


def test_n_m_of_a_convolution_runs_along_its_channels() -> None:
    mask = np.zeros((2, 8, 3, 3), bool)
    mask[:, :2] = True  # eighteen in a row of the flattened kernel, but two of four channels
    assert n_m_compliance(mask, 2, 4) == 1
    mask[0, 2, 1, 1] = True
    assert n_m_compliance(mask, 2, 4) == 35 / 36


def test_block_occupancy_of_blocks_and_of_one_weight() -> None:
    mask = np.zeros((16, 130), bool)
    mask[4:8, 60:64] = True
    assert block_occupancy(mask) == 1 / (4 * 33)
    assert block_occupancy(mask, 16, 130) == 1
    assert block_occupancy(mask, 1, 1) == mask.mean()
    assert block_occupancy(np.zeros((5, 5))) == 0 and block_occupancy(np.ones((5, 5))) == 1
    with pytest.raises(TopoError, match="blocks of 0 x 4 weights are none"):
        block_occupancy(mask, 0)


def test_structure_equals_its_twins() -> None:
    for wiring, density in product((toys.branching(), toys.residual(), toys.embedded()), (1.0, 0.5, 0.1, 0.0)):
        masks = toys.sparse(wiring, density, 3)
        graph, net = build_graph(masks, wiring), naive.Net(masks, wiring)
        for entry in ENTRIES:
            if entry.scope == "network":
                value, twin = entry(graph).number, naive.twin(entry.name)(net)
                assert value == pytest.approx(twin, abs=1e-12, nan_ok=True), entry.name
                continue
            for block in graph.masked_blocks:
                twin = naive.twin(f"layer_{entry.name}")(net, block.name)
                assert entry(graph, block).number == pytest.approx(twin, abs=1e-12, nan_ok=True), (
                    entry.name,
                    block.name,
                )


def test_density_profile() -> None:
    masks = MaskSet({"a": np.eye(4), "b": np.eye(2), "c": np.ones((3, 3))})
    assert network(masks, "mean_density").number == pytest.approx(1.75 / 3)
    assert network(masks, "min_density").number == 0.25
    assert network(masks, "mean_log_density").number == pytest.approx(math.log(0.25 * 0.5) / 3)
    empty = network(MaskSet({"a": np.eye(4), "b": np.zeros((2, 2)), "c": np.zeros((3, 3))}), "mean_log_density")
    assert empty.number == -math.inf and empty.note == "no weight is kept in: b, c"


@pytest.mark.parametrize("quota", ["uniform", "erk", "igq"])
def test_distance_is_zero_for_the_quota_itself(quota: str) -> None:
    shapes = {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (32, 16, 1, 1), "d": (10, 32)}
    wanted = budgets(quota, shapes, density=0.13)
    arrays = {name: (np.arange(math.prod(shape)) < wanted[name]).reshape(shape) for name, shape in shapes.items()}
    assert network(MaskSet(arrays), f"{quota}_distance").number == 0
    others = {"uniform", "erk", "igq"} - {quota}
    assert all(network(MaskSet(arrays), f"{other}_distance").number > 0.01 for other in others)
    arrays["b"] = np.roll(arrays["b"].reshape(-1), 1).reshape(shapes["b"])  # which weights does not matter
    assert network(MaskSet(arrays), f"{quota}_distance").number == 0


def test_uniform_distance_by_hand() -> None:
    masks = MaskSet({"a": np.ones((2, 2)), "b": np.zeros((2, 2))})  # uniform: 2 of 4 each
    assert network(masks, "uniform_distance").number == 0.5


@pytest.mark.small
def test_four_cycles_of_complete_and_of_girth_six_graphs() -> None:
    """K_ab has C(a, 2) C(b, 2); points and lines of the Fano plane share at most one neighbour, so none."""
    report = topo.analyze({"a": np.ones((5, 4)), "conv": np.ones((3, 2, 2, 2))}, metrics="four_cycles")
    assert [row["four_cycles"] for row in report.layers] == [10 * 6, 3 * 28]
    fano = [[0, 1, 2], [0, 3, 4], [0, 5, 6], [1, 3, 5], [1, 4, 6], [2, 3, 6], [2, 4, 5]]
    plane = np.zeros((7, 7), bool)
    for line, points in enumerate(fano):
        plane[line, points] = True
    assert topo.analyze({"fano": plane}, metrics="four_cycles").layers[0]["four_cycles"] == 0
