"""Real masks of ResNet-20, counted by an independent road: ones and gradients in float64 through the torch model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import topo
from topo.graph import build_graph
from topo.graph import paths as flow
from topo.masks import MaskSet
from topo.trace import trace
from topo.wiring import Wiring

torch = pytest.importorskip("torch")
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def wiring() -> Wiring:
    return trace(topo.models.build("resnet20"), (3, 32, 32))


def by_torch(masks: MaskSet) -> tuple[float, dict[str, np.ndarray]]:
    """(paths, kernel multiplicities that a gradient reaches) of ResNet-20 at the level of channels.

    Each kernel's number of kept weights is put at its centre and a 1 x 1 image of ones is sent through: convolutions
    then see their centres only, so the output counts paths between channels.
    """
    net = topo.models.build("resnet20").double().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    kernels = {}
    for name, parameter in net.named_parameters():
        if name in masks:
            count = torch.from_numpy(masks[name].reshape(*parameter.shape[:2], -1).sum(axis=2).astype(np.float64))
            centre = (..., *(n // 2 for n in parameter.shape[2:]))
            parameter.data.zero_()
            parameter.data[centre] = count
            kernels[name] = (parameter, centre, count)
        elif name.endswith("bias"):
            parameter.data.zero_()
    total = net(torch.ones(1, 3, 1, 1, dtype=torch.float64)).sum()
    total.backward()
    reached = {
        name: np.where((p.grad[c] != 0).numpy(), count.numpy(), 0).astype(np.int64)
        for name, (p, c, count) in kernels.items()
    }
    return float(total.detach()), reached


def files() -> list:
    if not DATA.is_dir():
        return [
            pytest.param(None, marks=pytest.mark.skip(reason="the shared reference masks are not beside this checkout"))
        ]
    return [pytest.param(path, id=path.name) for path in sorted(DATA.iterdir()) if path.suffix != ".md"]


@pytest.mark.parametrize("path", files())
def test_reference_masks_by_gradients(path: Path, wiring: Wiring) -> None:
    masks = topo.read_masks(path, wiring)
    paths, reached = by_torch(masks)
    report = topo.analyze(masks, wiring)
    assert report.network["log10_effective_paths"] == pytest.approx(math.log10(paths), rel=1e-12)
    assert report.network["effective_paths"] == flow.exact_paths(build_graph(masks, wiring), direction="backward")
    assert float(report.network["effective_paths"]) == pytest.approx(paths, rel=1e-12)
    counted = {row["layer"]: row["effective_params"] for row in report.layers}
    assert counted == {name: int(count.sum()) for name, count in reached.items()}
    assert report.network["effective_kernels"] == sum(int((r > 0).sum()) for r in reached.values())
    assert {row["layer"]: row["effective_in"] for row in report.layers} == {
        n: int((r.sum(axis=0) > 0).sum()) for n, r in reached.items()
    }
    streams = [int((r.sum(axis=0) > 0).sum()) for n, r in reached.items() if "shortcut" not in n]
    outputs = int((reached["fc.weight"].sum(axis=1) > 0).sum())
    assert report.network["effective_nodes"] == sum(streams) + outputs


def test_dense_resnet20_has_701_nodes(wiring: Wiring) -> None:
    dense = MaskSet({name: np.ones(shape, bool) for name, shape in wiring.shapes.items()})
    report = topo.analyze(dense, wiring)
    assert report.network["nodes"] == report.network["effective_nodes"] == 701
    assert report.network["params"] == report.network["effective_params"] == 270_896
    assert report.network["log10_effective_paths"] == pytest.approx(48, abs=0.5)
    assert report.network["flops_dense"] == 2 * report.network["macs_dense"] == 2 * 40_813_184
