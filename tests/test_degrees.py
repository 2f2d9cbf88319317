"""Degrees: closed forms, every view against its twin, and what grouped convolutions do."""

from __future__ import annotations

import math

import numpy as np
import pytest

import naive.degrees
import toys
from topo.graph import build_graph
from topo.kernels.bits import column_counts
from topo.masks import BitRows, MaskSet
from topo.metrics import degrees, metrics
from topo.metrics.degrees import gini, peak, variation

pytestmark = [pytest.mark.small, pytest.mark.kernels]
NAMES = [entry.name for entry in metrics.values() if entry.group == "degrees"]


def layer(mask: np.ndarray, metric: str, view: str | None = None) -> float:
    graph = build_graph(MaskSet({"w": mask}), None, view)
    value = metrics[f"layer:{metric}"](graph, graph.blocks[0])
    assert value.note or not math.isnan(value.number)
    return value.number


def regular(n: int, degree: int) -> np.ndarray:
    """A circulant: every row and every column has `degree` ones."""
    return np.array([[(j - i) % n < degree for j in range(n)] for i in range(n)])


def test_a_regular_graph_is_even_and_has_no_assortativity() -> None:
    mask = regular(7, 3)
    for side in ("fan_in", "fan_out"):
        assert layer(mask, f"{side}_mean") == layer(mask, f"{side}_max") == 3
        assert layer(mask, f"{side}_cv") == layer(mask, f"{side}_gini") == 0
        assert layer(mask, f"{side}_max_ratio") == 1
    assert math.isnan(layer(mask, "degree_assortativity"))


def test_a_star_is_as_uneven_as_can_be() -> None:
    n = 8
    mask = np.zeros((n, 5), bool)
    mask[3] = True  # one output reads everything
    assert layer(mask, "fan_in_gini") == 1 - 1 / n
    assert layer(mask, "fan_in_max_ratio") == n
    assert layer(mask, "fan_in_cv") == pytest.approx(math.sqrt(n - 1))
    assert layer(mask, "fan_in_mean") == 5 / n
    assert layer(mask, "fan_out_gini") == 0 and layer(mask, "dead_columns") == 0
    assert layer(mask.T, "fan_out_gini") == 1 - 1 / n and layer(mask.T, "dead_columns") == n - 1


def test_assortativity_of_double_stars_and_of_blocks() -> None:
    hubs = np.zeros((4, 4), bool)
    hubs[0], hubs[:, 0] = True, True  # the hubs' partners have one edge; one edge joins hub and hub
    # over the 7 edges: (4, 4), three (4, 1), three (1, 4)
    x, y = [4, 4, 4, 4, 1, 1, 1], [4, 1, 1, 1, 4, 4, 4]
    assert layer(hubs, "degree_assortativity") == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert layer(hubs, "degree_assortativity") < -0.5
    blocks = np.zeros((5, 5), bool)
    blocks[:3, :3] = blocks[3:, 3:] = True  # K_33 and K_22: like joins like
    assert layer(blocks, "degree_assortativity") == pytest.approx(1)


def test_an_empty_layer_is_undefined_and_says_so() -> None:
    graph = build_graph(MaskSet({"w": np.zeros((3, 4), bool)}))
    for name in NAMES:
        value = metrics[f"layer:{name}"](graph, graph.blocks[0])
        if name.endswith(("mean", "max", "dead_columns")):
            assert value.number == (4 if name == "dead_columns" else 0) and value.note is None
        else:
            assert math.isnan(value.number) and value.note == "the layer keeps no weight"


def test_views_of_one_kernel() -> None:
    mask = np.zeros((2, 2, 3, 3), bool)
    mask[0, 0, 0], mask[1, 0, 0, 0], mask[1, 1, 2, 2] = True, True, True
    found = {
        view: [layer(mask, name, view) for name in ("fan_in_max", "fan_out_max", "fan_out_mean", "dead_columns")]
        for view in ("kernel", "channel", "unit")
    }
    assert found == {"kernel": [3, 2, 5 / 18, 14], "channel": [3, 4, 2.5, 0], "unit": [2, 2, 1.5, 0]}


def test_statistics_of_any_numbers() -> None:
    assert variation(np.array([1, 1, 1])) == gini(np.array([1, 1, 1])) == 0
    assert variation(np.array([0, 2])) == 1 and gini(np.array([0, 2])) == 0.5 and peak(np.array([0, 2])) == 2
    assert all(math.isnan(of(np.array([0, 0]))) for of in (variation, gini, peak))
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.integers(0, 9, 12)
        assert gini(x) == pytest.approx(naive.degrees.gini(x.tolist()))
        assert variation(x) == pytest.approx(naive.degrees.cv(x.tolist()))
        assert gini(3 * x) == gini(x) and gini(rng.permutation(x)) == gini(x)


@pytest.mark.parametrize("view", ["kernel", "channel", "unit"])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 0.05])
def test_every_layer_equals_its_twin(view: str, density: float) -> None:
    for wiring in (toys.branching(), toys.residual(width=3, blocks=1), toys.embedded()):
        masks = toys.sparse(wiring, density, 7)
        graph, net = build_graph(masks, wiring, view), naive.Net(masks, wiring)
        net.layer_view = view
        for block in graph.masked_blocks:
            assert degrees.fan_in(graph, block).tolist() == naive.degrees.fan_in(net, block.name)
            assert degrees.fan_out(graph, block).tolist() == naive.degrees.fan_out(net, block.name)
            for name in NAMES:
                value = metrics[f"layer:{name}"](graph, block)
                twin = naive.twin(f"layer_{name}")(net, block.name)
                assert value.number == pytest.approx(twin, nan_ok=True, abs=1e-12), (block.name, name)
                assert bool(value.note) == math.isnan(value.number)


@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (4, 64), (5, 65), (254, 2), (255, 70), (256, 3), (600, 130)])
def test_column_counts(shape) -> None:
    for density in (1.0, 0.4):
        mask = np.random.default_rng(1).random(shape) < density
        words = BitRows.of_mask(mask).words
        counts = np.full(64 * words.shape[1], 7)
        column_counts(words, counts)
        assert (counts[: shape[1]] == mask.sum(axis=0)).all() and not counts[shape[1] :].any()
