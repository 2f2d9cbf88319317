"""Wirings that no model has, drawn at random: the kernels that sweep them against plain searches and the walk.

Every kind of step, groups, kernels that straddle words, reads in any order with repeats and holes, parameters used
again and in part, embeddings without a mask, outputs anywhere.
"""

from __future__ import annotations

import numpy as np
import pytest

import naive
from topo.graph import build_graph
from topo.graph import paths as flow
from topo.graph.arithmetic import Scaled
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.wiring import Join, Layer, Wiring

pytestmark = [pytest.mark.small, pytest.mark.kernels]
KERNELS = [(), (), (3, 3), (7, 7), (7, 10)]


def random_wiring(rng: np.random.Generator) -> Wiring:
    inputs = int(rng.integers(1, 6))
    steps: list[Layer | Join] = []
    made = inputs

    def pick(count: int, holes: float = 0.05) -> np.ndarray:
        units = (rng.integers(made) + np.arange(count)) % made if rng.random() < 0.4 else rng.integers(0, made, count)
        return np.where(rng.random(count) < holes, -1, units)

    def some(count: int) -> np.ndarray | None:
        return np.flatnonzero(rng.random(count) < 0.6) if rng.random() < 0.2 else None

    for k in range(int(rng.integers(1, 9))):
        kind = rng.choice(["layer", "layer", "layer", "layer", "add", "gate", "score", "embedding"])
        known = [step for step in steps if isinstance(step, Layer) and step.kind != "embedding"]
        if kind == "layer" and known and rng.random() < 0.25:  # the same parameter, maybe in other groups
            name, shape = known[-1].name, known[-1].shape
        elif kind == "layer":
            groups = int(rng.choice([1, 1, 2, 3]))
            sizes = groups * int(rng.integers(1, 5)), int(rng.integers(1, 7))
            name, shape = f"l{k}", (*sizes, *KERNELS[rng.integers(len(KERNELS))])
        if kind == "layer":
            groups = int(rng.choice([g for g in (1, 2, 3) if shape[0] % g == 0]))
            part = {"rows": some(shape[0]), "columns": some(shape[1])}
            family = "conv" if len(shape) > 2 else "linear"
            steps.append(Layer(name, shape, pick(shape[1] * groups), made, family, groups, **part))
        elif kind == "embedding":
            vocabulary = int(rng.integers(1, 80))
            steps.append(Layer(f"e{k}", (int(rng.integers(1, 5)), vocabulary), pick(vocabulary), made, kind))
        else:
            width, count = int(rng.integers(1, 4)) if kind == "score" else 1, int(rng.integers(0, 6))
            operands = 2 if kind == "score" else int(rng.integers(2, 4))
            steps.append(Join(kind, tuple(pick(count * width, 0.15) for _ in range(operands)), made, width))
        made = steps[-1].stop
    return Wiring(np.arange(inputs), tuple(steps), rng.permutation(made)[: int(rng.integers(1, 8))])


@pytest.mark.parametrize("seed", range(120))
def test_sweeps_of_random_wirings(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("topo.graph.graph._COPIED", int(rng.choice([0, 3, 1 << 14])))
    wiring = random_wiring(rng)
    density = rng.choice([0.05, 0.3, 0.7, 1.0])
    masked = [name for name in wiring.names if wiring.layer(name).kind != "embedding" and rng.random() < 0.9]
    masks = MaskSet({"none": np.ones((1, 1))})
    if masked:
        masks = MaskSet({name: rng.random(wiring.layer(name).shape) < density for name in masked})
    else:
        wiring = Wiring(wiring.inputs, (*wiring.steps, Layer("none", (1, 1), [0], wiring.n_units)), wiring.outputs)
    graph, net = build_graph(masks, wiring), naive.Net(masks, wiring)

    state = flow.live(graph)
    assert set(np.flatnonzero(state.forward[: wiring.n_units]).tolist()) == net.forward
    assert set(np.flatnonzero(state.backward[: wiring.n_units]).tolist()) == net.backward
    for name, words in flow.effective_words(graph).items():
        if name in masks:
            assert int(np.bitwise_count(words).sum()) == len(net.effective[name])
    assert metrics["network:effective_nodes"](graph).number == naive.effective_nodes(net)

    for only in (None, state.effective):
        walk = flow.Walk(graph, Scaled, only=only).go_forward().go_backward()
        swept = flow.Swept(graph, only)
        for mine, other in [
            *zip(swept.forward, walk.forward, strict=True),
            *zip(swept.backward, walk.backward, strict=True),
            *((swept.read[index], walk.read[index]) for index in walk.read),
            *((swept.pushed[index], walk.pushed[index]) for index in walk.pushed),
        ]:
            assert mine.exponent == other.exponent
            assert mine.mantissa == pytest.approx(other.mantissa, rel=1e-12, abs=0)
    exact, (mantissa, exponent) = flow.exact_paths(graph), flow.counts(graph).forward_total()
    assert exact == flow.exact_paths(graph, direction="backward")
    assert np.ldexp(mantissa, exponent) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_pairs_joined_of_random_wirings(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the side that has fewer units, some at a time, rows of layers some at a time: always the same share."""
    rng = np.random.default_rng(seed)
    wiring = random_wiring(rng)
    wiring = Wiring(wiring.inputs, (*wiring.steps, Layer("last", (2, 1), [0], wiring.n_units)), wiring.outputs)
    density = rng.choice([0.3, 0.7, 1.0])
    masks = MaskSet({name: rng.random(wiring.layer(name).shape) < density for name in wiring.names})
    graph, net = build_graph(masks, wiring), naive.Net(masks, wiring)
    expected = [twin(net) for twin in map(naive.twin, ("pairs_joined", "expected_dead_relu_share"))]
    for at_once, flags in ((256, 1 << 24), (1, 1), (3, 20)):
        monkeypatch.setattr("topo.metrics.living._AT_ONCE", at_once)
        monkeypatch.setattr("topo.metrics.living._FLAGS", flags)
        found = [metrics[f"network:{name}"](graph).number for name in ("pairs_joined", "expected_dead_relu_share")]
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
