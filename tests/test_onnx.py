"""A smaller model is one that ONNX takes, by the line of docs/shrink.md; where onnx is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import topo

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript, which is not installed")


@pytest.mark.filterwarnings("ignore")
def test_a_smaller_model_is_exported_and_computes_the_same(tmp_path: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    masks = {f"{i}.weight": np.ones(net[i].weight.shape, bool) for i in (0, 3, 5)}
    masks["0.weight"][[1, 5]] = False
    masks["3.weight"][2] = False
    small = topo.shrink(net, masks, input_shape=(3, 8, 8))
    assert small.model[0].out_channels == 6 and small.model[5].in_features == 48
    x = torch.rand(1, 3, 8, 8)
    torch.onnx.export(small.model, (x,), tmp_path / "small.onnx")
    made = reference.ReferenceEvaluator(str(tmp_path / "small.onnx"))
    (y,) = made.run(None, {made.input_names[0]: x.numpy()})
    np.testing.assert_allclose(y, small.model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
