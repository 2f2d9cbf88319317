"""What released code of this field gets wrong, as facts that hold here. Each test names the trap."""

from __future__ import annotations

import math

import numpy as np
import pytest

import topo
import toys
from topo.errors import FormatError, WiringError
from topo.graph import build_graph
from topo.graph import paths as flow
from topo.masks import MaskSet
from topo.metrics.paths import unit_centrality
from topo.wiring import Join, Layer, Wiring

pytestmark = pytest.mark.kernels


@pytest.mark.small
def test_skip_paths_are_scaled_with_their_branch() -> None:
    """Dividing each layer's input by its maximum, and not the skip, over-counts the skip's paths (DPaI)."""
    n, blocks = 5, 6
    wiring = toys.residual(width=n, blocks=blocks, kernel=1, inputs=n, classes=n)
    dense = MaskSet({name: np.ones(shape) for name, shape in wiring.shapes.items()})
    # Per block a stream of v paths a unit becomes v + n**2 v; the last has a convolution on its skip: n**2 v + n v.
    expected = n * n * (1 + n * n) ** (blocks - 1) * (n * n + n) * n
    report = topo.analyze(dense, wiring)
    assert report.network["effective_paths"] == expected
    assert report.network["log10_effective_paths"] == pytest.approx(math.log10(expected), rel=1e-14)


def test_networks_beyond_float64_have_neither_inf_nor_nan() -> None:
    """The released NPB counter: inf on a dense ResNet-1202, and at 50 % more effective than existing parameters."""
    wiring = toys.residual(width=16, blocks=150, kernel=3)
    masks = toys.sparse(wiring, 0.5, 1)
    report = topo.analyze(masks, wiring, metrics="paths")
    assert report.network["log10_effective_paths"] > 320
    exact = _log10(report.network["effective_paths"])
    assert report.network["log10_effective_paths"] == pytest.approx(exact, rel=1e-12)
    assert report.network["effective_params"] <= report.network["kept"]
    assert all(math.isfinite(value) for name, value in report.network.items() if name != "effective_paths")


def _log10(number: int) -> float:
    shift = max(number.bit_length() - 64, 0)
    return math.log10(number >> shift) + shift * math.log10(2)


def test_nodes_are_effective_by_reachability_not_by_counts_above_zero() -> None:
    """A unit on one path beside 10**400 others: its count is lost in a shared scale, its being effective is not."""
    n, depth = 10, 400
    steps: list[Layer | Join] = []
    stream, start = np.arange(n), n
    for k in range(depth):
        steps.append(Layer(f"l{k}", (n, n), stream, start))
        stream, start = np.arange(start, start + n), start + n
    steps.append(Layer("read", (2, n + 1), np.append(stream, 0), start))
    wiring = Wiring(np.arange(n), tuple(steps), [start, start + 1])
    masks = {name: np.ones(shape) for name, shape in wiring.shapes.items()}
    masks["read"] = np.zeros((2, n + 1))
    masks["read"][0, :n] = 1  # output 0 reads the stream
    masks["read"][1, n] = 1  # output 1 reads input 0 alone: a single path
    graph = build_graph(MaskSet(masks), wiring)
    assert unit_centrality(graph)[start + 1] == 0.0
    assert flow.live(graph).effective[start + 1]
    assert flow.exact_paths(graph) == 10 ** (depth + 1) + 1
    assert topo.analyze(MaskSet(masks), wiring).network["effective_nodes"] == n * depth + n + 1 + 2


def test_biases_and_pools_add_no_paths() -> None:
    """The released NPB counter counts biases as paths; average pools divide its counts, max pools cut them."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=True), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1, bias=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 2 * 2, 5),
    )  # fmt: skip
    wiring = topo.trace(net, (2, 8, 8))
    dense = MaskSet({name: np.ones(shape) for name, shape in wiring.shapes.items()})
    report = topo.analyze(dense, wiring)
    assert report.network["effective_paths"] == 2 * (9 * 3) * (9 * 4) * (4 * 5)
    dead = MaskSet({**dense, "0.weight": np.zeros((3, 2, 3, 3))})  # only biases are left to start from
    assert topo.analyze(dead, wiring).network["effective_params"] == 0


@pytest.mark.small
def test_shortcuts_are_recognised_by_structure_whatever_their_name() -> None:
    """Released code looks for 'shortcut' or 'downsample' in names, or counts tensors."""
    wiring = toys.residual(width=3, blocks=2)
    renamed = tuple(
        Layer(f"layer{i}", s.shape, s.reads, s.start, s.kind) if isinstance(s, Layer) else s
        for i, s in enumerate(wiring.steps)
    )
    assert Wiring(wiring.inputs, renamed, wiring.outputs).shortcuts == wiring.shortcuts != frozenset()


@pytest.mark.small
def test_a_short_list_of_masks_does_not_pass_unnoticed(tmp_path) -> None:
    """Masks zipped with layers by position: a list that is too short leaves layers dense without a word."""
    import pickle

    wiring = toys.complete(3, 4, 2)[1]
    path = tmp_path / "masks.pkl"
    path.write_bytes(pickle.dumps([np.ones((4, 3), np.float32)]))
    with pytest.raises((FormatError, WiringError), match=r"masks\.pkl"):
        topo.read_masks(path, wiring)


@pytest.mark.small
def test_sparsity_is_not_density() -> None:
    """In released code an argument called sparsity is the density."""
    report = topo.analyze({"fc": np.array([[1, 0, 0, 0]])})
    assert report.network["density"] == 0.25 and report.network["sparsity"] == 0.75
    assert report.network["effective_density"] == 0.25 and report.network["effective_sparsity"] == 0.75


@pytest.mark.small
def test_every_number_of_a_convolution_names_its_view() -> None:
    """Weight, kernel, channel and unrolled views are different graphs, and released tables do not say which."""
    report = topo.analyze({"conv": np.ones((2, 3, 3, 3))}, metrics="all")
    assert all(row.view in ("channel", "unit", "kernel") for row in report.rows)


def test_dead_ends_do_not_drown_the_paths_that_arrive() -> None:
    """Ten units of a stream lead nowhere after 10**400 paths; one beside them carries the only path that arrives."""
    n, depth = 11, 400
    wiring = toys.complete(*[n] * (depth + 1))[1]
    inner = np.ones((n, n), bool)
    inner[0, 1:] = inner[1:, 0] = False  # unit 0 apart from the others
    masks = {name: inner for name in wiring.names}
    masks[wiring.names[-1]] = np.zeros((n, n), bool)
    masks[wiring.names[-1]][0, 0] = True
    for arrays in (masks, dict(zip(wiring.names, [array.T for array in reversed(list(masks.values()))]))):
        report = topo.analyze(MaskSet(arrays), wiring, metrics="paths")
        assert report.network["effective_paths"] == 1 and report.network["log10_effective_paths"] == 0.0
        assert report.network["path_entropy_width"] == pytest.approx(depth + 1)
        assert report.network["path_entropy"] == pytest.approx(0.0, abs=1e-9)


def test_exact_sums_over_millions_of_units() -> None:
    """Limbs are carried before a sum of them leaves the integers that a float64 holds."""
    n = 300_000
    wiring = Wiring(np.arange(n), (Layer("fc", (1, n), np.arange(n), n),), [n])
    masks = MaskSet({"fc": np.ones((1, n), bool)})
    graph = build_graph(masks, wiring)
    assert flow.exact_paths(graph) == flow.exact_paths(graph, direction="backward") == n
    large = flow.Limbs(np.full((1, n), 2.0**36 - 1))
    assert large.fold(n).total() == large.spread(np.zeros(n, np.int64), 1).total() == n * (2**36 - 1)
    assert large.through(lambda x: x.sum(axis=1, keepdims=True), n).total() == n * (2**36 - 1)
