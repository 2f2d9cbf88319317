"""Spectra: golden values, closed forms, hard spectra against dense singular values, and what the certificate says."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from numpy.linalg import svd

import naive.spectral
import topo
import toys
from topo.errors import TopoError
from topo.graph import LayeredGraph, build_graph, singular
from topo.graph.bipartite import Bipartite, of_block, weighted
from topo.graph.singular import TopTwo, second, top_two
from topo.kernels import components as components_kernel
from topo.kernels import spectrum as kernels
from topo.masks import BitRows, MaskSet
from topo.metrics import between, metrics
from topo.metrics.full_spectrum import full_spectrum_coordinate, full_spectrum_distance
from topo.metrics.spectral import degree_classes, spectra
from topo.wiring import Layer, Wiring, chain

pytestmark = pytest.mark.kernels


def layer(mask: np.ndarray, name: str, view: str | None = None) -> float:
    graph = build_graph(MaskSet({"a": mask}), None, view)
    return metrics[f"layer:{name}"](graph, graph.blocks[0]).number


def numbers(mask: np.ndarray, view: str | None = None) -> dict[str, float]:
    return topo.analyze({"a": mask}, metrics="spectral", view=view).layers[0]


def bipartite(mask: np.ndarray) -> Bipartite:
    return Bipartite(BitRows.of_mask(mask != 0).words, mask.shape[1])


def dense_pair(matrix: np.ndarray) -> tuple[float, float]:
    found = [*svd(matrix.astype(float), compute_uv=False), 0.0]
    return float(found[0]), float(found[1])


def check(found: TopTwo, matrix: np.ndarray, promise: float = 1e-8) -> None:
    """Right to 1e-8, and within the bound that was given; LAPACK's own error is a few units of rounding."""
    one, two = dense_pair(matrix)
    error = max(abs(found.sigma1 - one), abs(found.sigma2 - two))
    assert found.error <= promise * one
    assert error <= found.error + 1e-13 * one


# Known answers.


@pytest.mark.small
@pytest.mark.parametrize("a, b", [(1, 1), (1, 7), (3, 4), (64, 5)])
def test_complete_bipartite_graph(a: int, b: int) -> None:
    found = numbers(np.ones((b, a)))
    assert found["sigma1"] == pytest.approx(math.sqrt(a * b), rel=1e-15)
    assert found["sigma2"] == 0 and found["components"] == 1
    assert found["ramanujan_gap"] == pytest.approx(math.sqrt(a - 1) + math.sqrt(b - 1))
    assert found["spectral_gap"] == found["sigma1"] and found["is_ramanujan"] == 1
    assert found["expansion_ratio"] == b / a
    if min(a, b) >= 3:
        assert found["narc"] == pytest.approx(1 / math.sqrt(a * b) - 1)
        assert found["imdb"] == pytest.approx(found["ramanujan_gap"]) and found["imdb_coverage"] == 1


@pytest.mark.small
def test_dense_classifier() -> None:
    found = numbers(np.ones((10, 512)))
    expected = {"sigma1": 71.554176, "ramanujan_gap": 25.605309, "narc": -0.986025}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-6)


GOLDEN = [
    (0, (64, 64, 3, 3), 0.1, 3786, 575, 64, {
        "sigma1": 21.42071, "sigma2": 9.59343, "ramanujan_bound": 9.98915, "ramanujan_gap": 0.39571,
        "delta_s": -0.55558, "narc": 0.02223, "imdb": 0.16217, "imdb_relative": 0.02971, "imdb_classes": 8,
    }),
    (1, (32, 16, 3, 3), 0.2, 921, 144, 32, {
        "sigma1": 14.50053, "sigma2": 6.62613, "ramanujan_bound": 7.59369, "ramanujan_gap": 0.96756,
        "delta_s": 0.72249, "narc": -0.02344, "imdb": 0.48905, "imdb_relative": 0.11028, "imdb_classes": 4,
    }),
    (3, (64, 32, 1, 1), 0.3, 605, 32, 64, {
        "sigma1": 14.13259, "sigma2": 5.97006, "ramanujan_bound": 7.13900, "ramanujan_gap": 1.16894,
        "delta_s": 1.27772, "narc": -0.07642, "imdb": None, "imdb_relative": None, "imdb_classes": 0,
    }),
]  # fmt: skip


@pytest.mark.parametrize("seed, shape, density, kept, n_l, n_r, expected", GOLDEN)
def test_golden_values_of_the_papers_code(seed, shape, density, kept, n_l, n_r, expected) -> None:
    """Values of the released code, which computes in float32: hence 1e-4."""
    mask = np.random.RandomState(seed).random_sample(shape) < density
    graph = build_graph(MaskSet({"a": mask}))
    found = spectra(graph)["a"]
    assert (found.edges, found.n_l, found.n_r) == (kept, n_l, n_r)
    for name, value in expected.items():
        got = metrics[f"layer:{name}"](graph, graph.blocks[0])
        if value is None:
            assert math.isnan(got.number) and got.note
        else:
            assert got.number == pytest.approx(value, abs=1e-4), name


@pytest.mark.small
def test_the_second_singular_value_is_not_the_first_again() -> None:
    """WideTopo takes the second largest |eigenvalue| of the adjacency, sigma1 again: its gap is 0 on every graph."""
    mask = np.random.default_rng(0).random((20, 30)) < 0.3
    adjacency = np.block([[np.zeros((20, 20)), mask], [mask.T, np.zeros((30, 30))]])
    largest = np.sort(np.abs(np.linalg.eigvalsh(adjacency)))[::-1]
    assert largest[0] - largest[1] < 1e-12
    assert layer(mask, "spectral_gap") == pytest.approx(largest[0] - largest[2], rel=1e-12) and largest[2] < 5


@pytest.mark.small
def test_a_union_of_bicliques_is_no_expander() -> None:
    """What Havel-Hakimi makes of a biregular degree sequence: disjoint K_dd, with gap 0 and sigma2 above the bound."""
    found = numbers(np.kron(np.eye(4), np.ones((15, 15))))
    assert found["sigma1"] == pytest.approx(15, rel=1e-14) and found["components"] == 4
    assert found["spectral_gap"] <= found["sigma_error"] < 1e-11 and found["spectral_ratio"] == pytest.approx(1)
    assert found["ramanujan_bound"] == pytest.approx(2 * math.sqrt(14)) and found["is_ramanujan"] == 0


@pytest.mark.small
def test_a_cycle_reaches_its_bound_exactly() -> None:
    """Two cycles: sigma2 = 2 = sqrt(1) + sqrt(1); rounding must not decide."""
    cycle = np.eye(7) + np.roll(np.eye(7), 1, axis=1)
    assert layer(np.kron(np.eye(2), cycle), "is_ramanujan") == 1


@pytest.mark.small
@pytest.mark.parametrize("view", ["kernel", "channel", "unit"])
def test_an_empty_layer_is_undefined_and_says_so(view: str) -> None:
    report = topo.analyze({"a": np.zeros((4, 3, 2, 2)), "b": np.ones((5, 4))}, metrics="spectral", view=view)
    empty = report.layers[0]
    defined = {"components": 0, "gated": 1, "imdb_classes": 0}
    assert {name: value for name, value in empty.items() if name in defined} == defined
    undefined = [name for name in empty if name not in (*defined, "layer", "shape")]
    assert all(math.isnan(empty[name]) for name in undefined)
    noted = {note["metric"] for note in report.notes if note["layer"] == "a"}
    assert set(undefined) <= noted
    assert report.network["sigma1_layers"] == 1 and report.network["sigma1"] == report.layers[1]["sigma1"]


@pytest.mark.small
def test_the_papers_gate() -> None:
    sparse = np.eye(6) + np.roll(np.eye(6), 1, axis=1)  # 2-regular
    found = numbers(sparse)
    assert found["gated"] == 1 and math.isnan(found["narc"]) and math.isnan(found["imdb"])
    assert found["ramanujan_gap"] == pytest.approx(2 - math.sqrt(3))
    dense = sparse + np.roll(np.eye(6), 2, axis=1)  # 3-regular
    found = numbers(dense)
    assert found["gated"] == 0 and found["imdb_classes"] == 1 and found["imdb"] == found["ramanujan_gap"]


@pytest.mark.small
def test_imdb_is_gated_by_the_classes_alone() -> None:
    """K_{3,3} beside 12 edges that stand alone: mean degrees of 21/15 = 1.4, and one class of degree 3.

    Its singular values are 3 and 0, so that Delta_r = sqrt(2) + sqrt(2).
    """
    matrix = np.zeros((15, 15))
    matrix[:3, :3] = 1
    matrix[range(3, 15), range(3, 15)] = 1
    found = numbers(matrix)
    assert found["gated"] == 1 and math.isnan(found["narc"])
    assert found["imdb_classes"] == 1 and found["imdb"] == pytest.approx(2 * math.sqrt(2))
    assert found["imdb_coverage"] == 3 / 15


@pytest.mark.parametrize("rows", [3, 16, 17, 96, 97, 150])
@pytest.mark.parametrize("columns", [7, 20, 70, 200])
@pytest.mark.parametrize("kind", ["random", "regular", "blocks", "alone", "copies"])
def test_the_second_value_of_a_class(rows: int, columns: int, kind: str) -> None:
    """Connected or not, wide or tall, with the first value once or as often as there are rows."""
    rng = np.random.default_rng(rows + columns)
    mask = rng.random((rows, columns)) < 0.3
    if kind == "regular":
        mask = np.argsort(rng.random((rows, columns)), axis=1) < 4
    elif kind == "blocks":
        mask = np.arange(rows)[:, None] % 2 == np.arange(columns) % 2
    elif kind == "alone":
        mask = np.arange(columns) // 3 == np.arange(rows)[:, None]
    elif kind == "copies":
        mask = np.repeat(mask[: -(-rows // 2)], 2, axis=0)[:rows]
    mask = mask[mask.any(axis=1)]
    one, two = dense_pair(mask)
    if two < 1e-9 * one:
        pytest.skip("of rank 1, where nobody asks")
    found, proved = second(bipartite(mask), int(mask.any(axis=0).sum()))
    assert proved and found == pytest.approx(two, abs=1e-8 * one)


@pytest.mark.small
def test_classes_that_touch_as_many_units_as_they_have_edges_need_not_be_alike() -> None:
    """Three channels of degree 9, each with three weights to three outputs of its own: sigma2 is sigma1, sqrt(27)."""
    mask = np.zeros((9, 3, 3, 1))
    mask[range(9), np.arange(9) // 3] = 1
    found = numbers(mask, "channel")
    assert found["imdb_classes"] == 1
    assert found["imdb"] == pytest.approx(math.sqrt(8) + math.sqrt(2) - math.sqrt(27))


@pytest.mark.small
def test_classes_of_one_unit_are_the_variant_of_mge() -> None:
    mask = np.zeros((6, 4))
    mask[:3, :3] = 1  # K_33: three left units of degree 3
    mask[:5, 3] = 1  # one of degree 5
    graph = build_graph(MaskSet({"a": mask}))
    ungated = replace(spectra(graph)["a"], n_r=4)  # d_r = 14/5 is below the gate: lift it
    spectra(graph)["a"] = ungated
    assert not ungated.gated
    one = degree_classes(graph, graph.blocks[0])
    assert (one.count, one.coverage, one.gap) == (1, 0.75, pytest.approx(2 * math.sqrt(2)))
    both = degree_classes(graph, graph.blocks[0], least_units=1)
    assert both == one  # the class of degree 5 has d_r = 1


# Hard spectra.


def blocks(*parts: np.ndarray) -> np.ndarray:
    whole = np.zeros((sum(len(p) for p in parts), sum(p.shape[1] for p in parts)))
    row = column = 0
    for part in parts:
        whole[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return whole


def hard_cases() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def random(shape, density):
        return (rng.random(shape) < density).astype(float)

    block, small = random((150, 450), 0.07), random((40, 40), 0.25)
    cycle = np.eye(130) + np.roll(np.eye(130), 1, axis=1)
    cases = {
        "two equal blocks": blocks(block, block),
        "two equal blocks joined by an edge": blocks(block, block),
        "8 equal blocks": blocks(*[small] * 8),
        "permutation": np.eye(300)[rng.permutation(300)],
        "complete": np.ones((200, 512)),
        "complete minus an edge": np.ones((200, 512)),
        "complete minus a matching": 1 - np.eye(256),
        "circulant": sum(np.roll(np.eye(256), k * k, axis=1) for k in range(8)).clip(0, 1),
        "hypercube": np.array([[float((i ^ j).bit_count() == 1) for j in range(256)] for i in range(256)]),
        "duplicated rows": np.repeat(random((128, 900), 0.1), 2, axis=0),
        "hub columns": np.hstack([np.ones((256, 40)), random((256, 900), 0.02)]),
        "hub row": np.vstack([np.ones((1, 900)), random((250, 900), 0.002)]),
        "almost empty": random((256, 2304), 0.001),
        "almost a forest": random((300, 300), 1 / 300),
        "path": np.eye(300) + np.eye(300, k=1),
        "two cycles": blocks(cycle, cycle),
        "bicliques": np.kron(np.eye(30), np.ones((8, 8))),
        "bicliques of all sizes": blocks(*[np.ones((k, 2 * k)) for k in range(1, 20)]),
        "comb": np.vstack([np.ones((1, 200)), np.eye(200)]),
        "tall": random((1500, 120), 0.1),
        "one row": np.ones((1, 300)),
        "one column": np.ones((300, 1)),
        "single edge": np.pad(np.ones((1, 1)), 120),
        "dense random": random((128, 1152), 0.5),
    }
    cases["two equal blocks joined by an edge"][0, 450] = 1
    cases["complete minus an edge"][3, 4] = 0
    return cases


HARD = hard_cases()


@pytest.mark.parametrize("solver", ["by shape", "csr", "gram", "tables"])
@pytest.mark.parametrize("name", HARD)
def test_hard_spectra(name: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every solver on every case: two are forced for all sides above 4."""
    if solver != "by shape":
        monkeypatch.setattr(singular, "SMALL", 4)
        monkeypatch.setattr(singular, "_sparse", lambda graph: solver == "csr")
    if solver == "tables":
        monkeypatch.setattr(singular, "LARGEST_GRAM", 0)
    found = top_two(bipartite(HARD[name]))
    check(found, HARD[name])
    graph = nx.Graph((f"l{i}", f"r{j}") for i, j in zip(*np.nonzero(HARD[name])))
    assert found.components == nx.number_connected_components(graph)
    if solver == "by shape":
        assert found.proved and naive.spectral.nothing_missed(HARD[name], found.sigma2 + found.error)


# Near-copies: a Krylov space of one vector holds one combination of vectors whose values agree to many digits.


def near_copies(rng: np.random.Generator, n: int, copies: int, links: int, weighted: bool = False) -> np.ndarray:
    """Equal blocks (n, 3n/2) in a row, each joined to the next by a path through `links` units on each side."""
    block = (rng.random((n, 3 * n // 2)) < 0.15) * (rng.random((n, 3 * n // 2)) if weighted else 1.0)
    whole = blocks(*[block] * copies, np.zeros(((copies - 1) * links, (copies - 1) * links)))
    row, column = copies * n, copies * block.shape[1]
    for copy in range(copies - 1):
        end = copy * block.shape[1] + int(rng.integers(block.shape[1]))
        for _ in range(links):
            whole[row, end] = whole[row, column] = 1
            row, end, column = row + 1, column, column + 1
        whole[(copy + 1) * n + int(rng.integers(n)), end] = 1
    return whole


def of_weights(matrix: np.ndarray) -> Bipartite:
    return Bipartite(BitRows.of_mask(matrix != 0).words, matrix.shape[1], matrix, integer=False)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("links", range(6))
def test_near_copies_are_never_outside_the_bound(links: int, copies: int, is_weighted: bool) -> None:
    rng = np.random.default_rng(100 * links + 10 * copies + is_weighted)
    for n in (40, 110):
        matrix = near_copies(rng, n, copies, links, is_weighted)
        found = top_two(of_weights(matrix) if is_weighted else bipartite(matrix))
        check(found, matrix)
        assert found.proved


@pytest.mark.parametrize("solver", ["gram", "csr", "tables"])
@pytest.mark.parametrize("copies", [2, 3])
def test_where_no_proof_is_affordable_a_second_start_finds_near_copies(copies, solver, monkeypatch) -> None:
    monkeypatch.setattr(singular, "LARGEST_PROVED", 96)
    monkeypatch.setattr(singular, "LARGEST_GRAM", 0 if solver == "tables" else 8192)
    monkeypatch.setattr(singular, "_sparse", lambda graph: solver == "csr")
    for links in range(1, 5):
        matrix = near_copies(np.random.default_rng(links), 60, copies, links)
        found = top_two(bipartite(matrix))
        check(found, matrix)
        assert not found.proved


def test_a_case_from_outside() -> None:
    """sigma1 and sigma2 of one component agree to ten digits, sigma3 is .035 below."""
    case = Path(__file__).parents[2] / "shared" / "cases" / "near_copies_110.npz"
    if not case.exists():
        pytest.skip(f"{case} is not there")
    matrix = np.load(case)["fc"]
    found = numbers(matrix)
    assert found["sigma2"] == pytest.approx(4.0043329, abs=1e-6) and found["sigma_proved"] == 1
    check(top_two(bipartite(matrix)), matrix)


def test_classes_and_weighted_gaps_of_near_copies() -> None:
    """The same solver under imdb, imsg and the weighted gap: all left units have one degree, so all are one class."""
    rng = np.random.default_rng(3)
    block = np.zeros((110, 110))
    for _ in range(4):
        block += np.eye(110)[rng.permutation(110)]
    block = np.minimum(block, 1)
    matrix = blocks(block, block)
    one, two = np.argwhere(block)[0], np.argwhere(block)[-1]
    matrix[one[0], one[1]] = matrix[110 + two[0], 110 + two[1]] = 0  # swap two edges between the copies
    matrix[one[0], 110 + two[1]] = matrix[110 + two[0], one[1]] = 1
    weights = matrix * 0.5
    graph = build_graph(MaskSet({"a": matrix}), weights={"a": weights})
    net = naive.Net(graph.masks, chain(graph.masks), "channel", None)
    expected = naive.spectral.coordinate(net, "a", weights)
    assert full_spectrum_coordinate(graph, graph.blocks[0]) == pytest.approx(expected, rel=1e-7)
    assert layer(matrix, "imdb") == pytest.approx(naive.spectral.layer_imdb(net, "a"), rel=1e-7)


def test_a_number_that_is_not_proved_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((130, 300)) < 0.2
    report = topo.analyze({"a": mask}, metrics="spectral")
    assert report.layers[0]["sigma_proved"] == 1 and not [n for n in report.notes if "proved" in n["note"]]
    monkeypatch.setattr(singular, "LARGEST_PROVED", 96)
    report = topo.analyze({"a": mask}, metrics="spectral")
    assert report.layers[0]["sigma_proved"] == 0 and report.network["sigma_proved"] == 0
    told = {note["metric"] for note in report.notes if "not proved" in note["note"] and note["layer"] == "a"}
    assert told >= {"sigma_error", "sigma_proved"}


def test_the_proof_can_fail() -> None:
    """Values that miss the second, or put it too low, have no proof."""
    matrix = HARD["dense random"]
    graph = bipartite(matrix)
    levels = singular._Levels(graph, singular.gram(graph)[0])
    values, vectors = np.linalg.eigh(levels.products.astype(float))
    values, vectors = values[::-1], vectors[:, ::-1].T

    def proved(*found: int, value: float | None = None, beyond: float = math.inf) -> bool:
        inner = np.diag([values[k] for k in found[:-1]] + [values[found[-1]] if value is None else value])
        ritz = singular._Ritz(vectors[list(found)], inner, np.zeros(inner.shape), beyond)
        return ritz.proved(levels, 1e-13) is not None

    for beyond in (math.inf, values[5], values[30]):  # by a level alone, and in float32 by the gap to what comes next
        assert proved(0, 1, beyond=beyond)
        assert not proved(0, 2, beyond=beyond) and not proved(1, 2, beyond=beyond)
    assert not proved(0, 1, value=values[1] * (1 - 1e-6))
    assert proved(0, 1, 2, 3, beyond=values[4]) and not proved(0, 2, 3, 4, beyond=values[5])


def test_the_proof_by_a_gap_counts_vectors_that_have_not_converged() -> None:
    """Whatever vectors it is given, and however large the gap is said to be: no bound below the truth."""
    rng, found = np.random.default_rng(7), 0
    for trial in range(120):
        mask = rng.random((110, 130)) < rng.choice([0.05, 0.3])
        graph = bipartite(mask)
        levels = singular._Levels(graph, None if trial % 2 else singular.gram(graph)[0])
        products = singular.gram(graph)[0].astype(float)
        values, vectors = np.linalg.eigh(products)
        k = int(rng.integers(2, 6))
        noise = 10.0 ** rng.uniform(-9, -2)
        space = np.linalg.qr(vectors[:, ::-1][:, :k] + noise * rng.standard_normal((110, k)))[0].T
        inner = space @ products @ space.T
        residuals = space @ products - inner @ space
        beyond = rng.choice([values[-k - 1], values[-k - 1] * 1.02, values[-k - 4]])
        part = singular._Ritz(space, inner, residuals @ residuals.T, float(beyond))._by_gap(levels, 1e-12 * values[-1])
        if part is not None:
            found += 1
            assert np.abs(np.sqrt(values[::-1][:2]) - part.sigmas).max() <= part.error
    assert found > 40


def test_the_certificate_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of random graphs of all shapes and densities, each solver in turn."""
    rng = np.random.default_rng(1)
    for trial in range(240):
        monkeypatch.setattr(singular, "SMALL", (96, 4)[trial % 2])
        monkeypatch.setattr(singular, "_sparse", lambda graph, csr=trial % 4 < 2: csr)
        shape = rng.integers(1, 260, 2)
        mask = rng.random(shape) < rng.choice([0.003, 0.01, 0.03, 0.1, 0.4, 0.99])
        found = top_two(bipartite(mask))
        if mask.any():
            check(found, mask)
        else:
            assert math.isnan(found.sigma1) and found.components == 0


def test_clusters_beyond_the_krylov_space_fall_back_to_all_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singular, "MOST_STEPS", 40)
    path = HARD["path"]
    check(top_two(bipartite(path)), path)


def test_aimed_at_accuracy_is_far_better_than_promised() -> None:
    for name in ("dense random", "hub columns", "tall", "duplicated rows"):
        found, (one, two) = top_two(bipartite(HARD[name])), dense_pair(HARD[name])
        assert max(abs(found.sigma1 - one), abs(found.sigma2 - two)) <= 1e-12 * one


def test_the_same_bits_again_and_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(2)
    masks = {f"l{k}": rng.random((256, 40 * (k + 1), 3, 3)) < 0.1 for k in range(6)}
    reports = [topo.analyze(masks, metrics="spectral", threads=threads) for threads in (1, 2, 5)]
    assert reports[0].to_json() == reports[1].to_json() == reports[2].to_json()


# Multiplicities, groups, weights.


@pytest.mark.parametrize("shape", [(150, 130, 3, 3), (130, 150, 5, 5), (40, 30, 2)])
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_multiplicities(shape, density) -> None:
    mask = np.random.default_rng(0).random(shape) < density
    graph = build_graph(MaskSet({"a": mask}), None, "channel")
    counts = mask.reshape(*shape[:2], -1).sum(axis=2)
    check(top_two(of_block(graph.blocks[0])), counts)
    assert spectra(graph)["a"].edges == mask.sum()


@pytest.mark.small
def test_proportional_rows_have_rank_one() -> None:
    """Multiplicities 1, 2 and 3 in every row of a class: sigma2 is 0, not the root of a rounding error."""
    counts = np.outer([1, 2, 3], [1, 2, 3])
    mask = np.arange(9) < counts[:, :, None]
    found = numbers(mask, "channel")
    assert found["sigma2"] == 0 and found["sigma1"] == pytest.approx(14) and found["sigma_error"] < 1e-14


@pytest.mark.small
@pytest.mark.parametrize("view", ["kernel", "channel", "unit"])
@pytest.mark.parametrize("groups", [2, 6])
def test_groups_are_blocks(groups: int, view: str) -> None:
    """A grouped convolution has the spectrum of the block-diagonal matrix of its groups, whose bits straddle words."""
    n, per_group = 12, 13
    wiring = Wiring(
        np.arange(groups * per_group),
        (Layer("a", (n, per_group, 3, 3), np.arange(groups * per_group), groups * per_group, "conv", groups=groups),),
        np.arange(groups * per_group, groups * per_group + n),
    )
    masks = toys.sparse(wiring, 0.3, 1)
    graph = build_graph(masks, wiring, view)
    kernel_size = masks["a"].reshape(n, per_group, 9)
    flat = {"kernel": kernel_size.reshape(n, -1), "channel": kernel_size.sum(2), "unit": kernel_size.any(2)}[
        view
    ].astype(float)
    matrix = blocks(*np.split(flat, groups))
    made = of_block(graph.blocks[0])
    check(top_two(made), matrix)
    assert made.left == matrix.shape[1] and spectra(graph)["a"].edges == matrix.sum()
    assert top_two(made).components >= groups


def test_depthwise_convolution_is_a_forest_of_stars() -> None:
    n = 200
    wiring = Wiring(np.arange(n), (Layer("a", (n, 1, 3, 3), np.arange(n), n, "conv", groups=n),), np.arange(n, 2 * n))
    masks = toys.sparse(wiring, 0.5, 0)
    found = topo.analyze(masks, wiring, metrics="spectral").layers[0]
    degrees = np.sort(masks["a"].reshape(n, 9).sum(axis=1))[::-1]
    assert found["sigma1"] == pytest.approx(math.sqrt(degrees[0]), rel=1e-15)
    assert found["sigma2"] == pytest.approx(math.sqrt(degrees[1]), rel=1e-15)
    assert found["components"] == np.count_nonzero(degrees)


def weighted_graph(shape, density, seed=0, view=None) -> tuple[LayeredGraph, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(shape).astype(np.float32) * 0.05
    return build_graph(MaskSet({"a": rng.random(shape) < density}), None, view, weights={"a": weights}), weights


@pytest.mark.parametrize("view", ["kernel", "channel", "unit"])
@pytest.mark.parametrize("shape, density", [((12, 8, 3, 3), 0.4), ((9, 30), 0.6), ((110, 24, 3, 3), 0.2)])
def test_full_spectrum_equals_its_naive_twin(shape, density, view) -> None:
    graph, weights = weighted_graph(shape, density, view=view)
    net = naive.Net(graph.masks, chain(graph.masks), "channel", view)
    expected = naive.spectral.coordinate(net, "a", weights.astype(float))
    block = graph.blocks[0]
    assert full_spectrum_coordinate(graph, block) == pytest.approx(expected, rel=1e-7)
    assert metrics["layer:full_spectrum"](graph, block).number == pytest.approx(math.hypot(*expected), rel=1e-7)
    for place, name in ((1, "weighted_spectral_gap"), (3, "imsg")):
        assert metrics[f"layer:{name}"](graph, block).number == pytest.approx(expected[place], rel=1e-7)
    mean = metrics["network:weighted_spectral_gap"](graph).number
    assert mean == metrics["layer:weighted_spectral_gap"](graph, block).number


@pytest.mark.small
def test_distance_of_full_spectra() -> None:
    graph, weights = weighted_graph((12, 8, 3, 3), 0.4)
    dense = build_graph(MaskSet({"a": np.ones((12, 8, 3, 3))}), weights={"a": weights})
    block = graph.blocks[0]
    assert full_spectrum_distance(graph, graph, block) == 0
    one, two = full_spectrum_coordinate(graph, block), full_spectrum_coordinate(dense, dense.blocks[0])
    assert full_spectrum_distance(graph, dense, block) == math.dist(one, two) > 0
    with pytest.raises(TopoError, match="needs its weights"):
        full_spectrum_coordinate(build_graph(graph.masks), block)
    with pytest.raises(TopoError, match="no mask for layer 'a'"):
        full_spectrum_distance(graph, build_graph(MaskSet({"b": np.ones((2, 2))})), block)


@pytest.mark.small
def test_weights_that_say_nothing() -> None:
    mask, said = MaskSet({"a": np.ones((4, 4))}), {}
    for key, weights in {"none": None, "zero": np.zeros((4, 4)), "inf": np.full((4, 4), np.inf)}.items():
        graph = build_graph(mask, weights={"a": weights} if weights is not None else None)
        value = metrics["layer:full_spectrum"](graph, graph.blocks[0])
        assert math.isnan(value.number)
        said[key] = value.note
    assert said["none"] == "needs weights" and "0" in said["zero"] and "finite" in said["inf"]


def test_weights_close_to_rank_one_are_certified_all_the_same() -> None:
    """Squares lose half the digits of a small sigma2; all singular values do not."""
    rng = np.random.default_rng(0)
    for n in (30, 140):
        near = np.outer(rng.random(n) + 1, rng.random(2 * n) + 1) * (1 + 1e-9 * rng.random((n, 2 * n)))
        graph = build_graph(MaskSet({"a": np.ones((n, 2 * n))}), weights={"a": near})
        check(top_two(weighted(graph.blocks[0], near)), near, 1e-12)


@pytest.mark.parametrize("n", [300, 500])
def test_what_is_left_beside_a_far_larger_value(n: int) -> None:
    """A column of ones on a small diagonal: rounding of the first value is no direction of what is left."""
    weights = np.eye(n) * 1e-3
    weights[:, 0] = 1
    graph = build_graph(MaskSet({"a": weights != 0}), weights={"a": weights})
    check(top_two(weighted(graph.blocks[0], weights)), weights, 1e-8)


def test_large_multiplicities_close_to_rank_one() -> None:
    values = np.full((400, 400), 4000, np.float32)
    values[0, 0] = 4001
    graph = build_graph(MaskSet({"a": np.ones((400, 400), bool)}))
    check(top_two(replace(weighted(graph.blocks[0], values), integer=True)), values, 1e-8)


def test_weights_of_any_scale() -> None:
    graph, weights = weighted_graph((20, 30), 0.5)
    value = metrics["layer:weighted_spectral_gap"](graph, graph.blocks[0]).number
    for scale in (1e-200, 1e180):
        scaled = build_graph(graph.masks, weights={"a": weights.astype(float) * scale})
        assert metrics["layer:weighted_spectral_gap"](scaled, scaled.blocks[0]).number == pytest.approx(value * scale)


# Between layers.


@pytest.mark.small
def test_scores_between_layers_by_hand() -> None:
    """Layer one: 2 inputs, 3 outputs of degrees 2, 1, 0. Layer two reads each by 2 kernel_size, 2 outputs."""
    one = np.array([[1, 1], [1, 0], [0, 0]])
    two = np.array([[[1, 1], [1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0]]])
    masks = MaskSet({"one": one, "two": two})
    (pair,) = between.pairs(build_graph(masks, chain(masks)))
    assert between.copeland(pair) == pytest.approx(np.mean([1 / 1, 0.5 / 1, 0.5 / 0.5, 0.5 / 0.5]))
    assert between.overlap_coefficient(pair) == pytest.approx((1 / 1 + 0) / 2)
    assert between.compatibility(pair) == 1
    two[:, 1] = 0
    masks = MaskSet({"one": one, "two": two})
    (pair,) = between.pairs(build_graph(masks, chain(masks)))
    assert between.compatibility(pair) == 0.5 and between.overlap_coefficient(pair) == 1


@pytest.mark.small
def test_isolated_last_units_shift_nothing_between_layers() -> None:
    """The released code takes degrees without the number of units, so that missing last units misalign the rest."""
    masks, _ = toys.complete(4, 5, 6)
    cut = {name: masks[name].copy() for name in masks}
    cut["fc1"][-1] = 0  # the last hidden unit is isolated on both sides
    cut["fc2"][:, -1] = 0
    made = MaskSet(cut)
    (pair,) = between.pairs(build_graph(made, chain(made)))
    assert between.copeland(pair) == 1 and between.compatibility(pair) == 1


# Kernels.


def words(mask: np.ndarray) -> np.ndarray:
    return BitRows.of_mask(mask).words


@pytest.mark.small
@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (4, 64), (5, 65), (67, 130), (70, 7)])
def test_kernels_against_numpy(shape) -> None:
    rng = np.random.default_rng(shape[1])
    mask = rng.random(shape) < 0.4
    rows, columns = shape
    products = np.empty((rows, rows), np.float32)
    kernels.gram(words(mask), products)
    assert (products == mask.astype(int) @ mask.T.astype(int)).all()
    turned = np.full((columns, -(-rows // 64)), 7, np.uint64)
    kernels.transpose(words(mask), turned)
    assert (BitRows((columns, rows), turned).unpack() == mask.T).all() and (turned == words(mask.T)).all()
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    indices = np.empty(indptr[-1], np.int32)
    kernels.to_csr(words(mask), indptr, indices)
    assert (indices == np.nonzero(mask)[1]).all()
    again = np.full((rows, rows), np.nan, np.float32)
    kernels.gram_of_lists(indptr, indices, np.concatenate([[0], np.cumsum(mask.sum(axis=0))]), again)
    assert (again == products).all()
    c, vectors = rng.random(2), rng.standard_normal((2, rows))
    expected = np.triu(5 * np.eye(rows) - products + np.einsum("k,ki,kj->ij", c, vectors, vectors))
    for kind, near in ((np.float32, 1e-6), (np.float64, 1e-13)):
        matrix, same = np.zeros((2, rows, rows), kind)
        trace = kernels.shifted(products, 5.0, c, vectors, matrix)
        starts = np.concatenate([[0], np.cumsum(mask.sum(axis=0))])
        assert kernels.shifted_by_lists(indptr, indices, starts, 5.0, c, vectors, same) == pytest.approx(trace)
        assert trace == pytest.approx(np.trace(expected)) and (abs(matrix - same) <= near * abs(matrix)).all()
        assert matrix == pytest.approx(expected, rel=near, abs=near)
    x, y, u = rng.random(rows), np.empty(rows), np.empty(columns)
    kernels.through_csr(indptr, indices, x, u, y)
    assert y == pytest.approx(mask @ (mask.T @ x))
    kernels.through_gram(products, x, y)
    assert y == pytest.approx(mask @ (mask.T @ x))


@pytest.mark.parametrize("shape, density", [((300, 900), 0.01), ((300, 900), 0.3), ((130, 4000), 0.003)])
def test_the_gram_is_the_same_by_words_and_by_lists(shape, density) -> None:
    graph = bipartite(np.random.default_rng(0).random(shape) < density)
    matrix = BitRows(shape, graph.words).unpack().astype(np.float32)
    assert singular._few_pairs(graph) == (density < 0.1)
    assert (singular.gram(graph)[0] == matrix @ matrix.T).all()


@pytest.mark.small
@pytest.mark.parametrize("groups, columns", [(1, 5), (3, 64), (4, 13), (5, 130)])
def test_spread_groups(groups: int, columns: int) -> None:
    mask = np.random.default_rng(0).random((groups * 2, columns)) < 0.5
    spread = np.zeros((groups * 2, -(-groups * columns // 64)), np.uint64)
    kernels.spread_groups(words(mask), 2, columns, spread)
    assert (spread == words(blocks(*np.split(mask, groups)) != 0)).all()


@pytest.mark.small
@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("kind", ["random", "weak", "path"])
def test_tridiagonal(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    alpha, beta = (np.full(n, 2.0), np.ones(n)) if kind == "path" else (rng.random(n), rng.random(n))
    beta *= 1e-9 if kind == "weak" else 1
    full = np.diag(alpha) + np.diag(beta[: n - 1], 1) + np.diag(beta[: n - 1], -1)
    k = min(2, n)
    values, vectors = np.empty(k), np.empty((k, n))
    kernels.top_of_tridiagonal(alpha, beta, values, vectors)
    assert values == pytest.approx(np.linalg.eigvalsh(full)[::-1][:k], rel=1e-14)
    assert full @ vectors.T == pytest.approx(vectors.T * values, abs=1e-13)
    assert vectors @ vectors.T == pytest.approx(np.eye(k), abs=1e-8)


@pytest.mark.small
@pytest.mark.parametrize("n", [2, 3, 5, 17, 40])
def test_second_largest(n: int) -> None:
    rows = np.random.default_rng(n).integers(0, 2, (n, 2 * n)).astype(float)
    for matrix in (rows @ rows.T, np.eye(n), np.ones((n, n)), np.diag(np.arange(n, 0.0, -1.0))):
        expected = np.linalg.eigvalsh(matrix)
        assert kernels.second_largest(matrix.copy()) == pytest.approx(expected[-2], abs=1e-14 * n * expected[-1])


@pytest.mark.small
@pytest.mark.parametrize("in_csr", [False, True])
def test_lanczos(in_csr: bool) -> None:
    """One start finds the largest two of what it can see, orthonormal vectors, and says when there is but one."""
    rng = np.random.default_rng(5)
    mask = rng.random((30, 50)) < 0.2
    indptr, indices = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]), np.nonzero(mask)[1].astype(np.int32)
    if not in_csr:
        indptr, indices = indptr[:0], indices[:0]
    products = np.zeros((0, 0), np.float32) if in_csr else (mask.astype(np.float32) @ mask.T)
    start = rng.standard_normal(30)
    start /= np.linalg.norm(start)
    theta, vectors, inner, across = np.empty(5), np.empty((4, 30)), np.empty((4, 4)), np.empty((4, 4))
    out = theta, vectors, inner, across
    expected = svd(mask.astype(float), compute_uv=False) ** 2
    for wanted, k in ((0.0, 2), (1.001 * (expected[1] - expected[2]) / (30 * expected[1] - mask.sum()), 3), (9.0, 2)):
        assert kernels.lanczos(products, indptr, indices, 50, start, 1e-9, 1e-12, wanted, *out) == k
        assert theta[:2] == pytest.approx(expected[:2], rel=1e-11) and theta[k] == pytest.approx(expected[k], rel=1e-3)
        space, image = vectors[:k], vectors[:k] @ mask @ mask.T
        assert space @ space.T == pytest.approx(np.eye(k), abs=1e-14)
        assert inner[:k, :k] == pytest.approx(image @ space.T, abs=1e-12)
        residuals = image - inner[:k, :k] @ space
        assert across[:k, :k] == pytest.approx(residuals @ residuals.T, rel=1e-6, abs=1e-22)
    same = 3 * np.eye(30, dtype=np.float32)
    assert kernels.lanczos(same, indptr[:0], indices[:0], 0, start, 1e-9, 1e-12, 0.0, *out) == 0


@pytest.mark.small
@pytest.mark.parametrize("seed", range(12))
def test_components_against_networkx(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 90, 2)
    mask = rng.random((rows, columns)) < rng.choice([0.004, 0.01, 0.03, 0.3])
    labels = np.empty(rows, np.int64)
    count = components_kernel.components(words(mask), labels)
    graph = nx.Graph((("row", i), ("column", j)) for i, j in zip(*np.nonzero(mask)))
    found = list(nx.connected_components(graph))
    assert count == len(found) and set(labels[labels >= 0]) == set(range(count))
    for part in found:
        assert len({int(labels[i]) for side, i in part if side == "row"}) == 1
    assert ((labels >= 0) == mask.any(axis=1)).all()


@pytest.mark.slow
def test_scipy_stays_out_of_small_analyses_and_of_balance() -> None:
    """numba imports its linear algebra to see if it is there; what a user compiles with np.dot has it all the same."""
    code = (
        "import sys, numpy, topo; masks = topo.MaskSet({'a': numpy.random.rand(60, 300) < .1}); topo.analyze(masks); "
        "topo.generate('balance', topo.chain(masks), density=.1); from numba.np import arraymath, linalg; "
        "print([name for name in sys.modules if name.startswith(('scipy.sparse', 'scipy.linalg'))]); "
        "linalg.ensure_blas(); print(arraymath._HAVE_BLAS, 'scipy.linalg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\nTrue True\n"
