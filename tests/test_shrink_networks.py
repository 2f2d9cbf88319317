"""Named architectures under masks with dead units: the smaller network is equal, is timed, and trains on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_shrink import masked_twin, stirred
from torch import Tensor, nn
from torch.nn import functional as F

import topo
from topo.cli import main

pytestmark = pytest.mark.slow


class Dense(nn.Module):
    """DenseNet's block: every layer reads the concatenation of all before it, behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * k) for k in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * k, 4, 3, padding=1, bias=False) for k in range(3))
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.fc(F.relu(x).mean((2, 3)))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the concatenation of both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        return self.out(torch.cat([a, F.relu(self.up(F.relu(self.b(a))))], 1))


def hf(name: str, head: str, **sizes: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    common = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return getattr(transformers, head)(getattr(transformers, f"{name}Config")(**common, **sizes)).eval()


IMAGE, TOKENS = (3, 32, 32), "ids:6"
# Name -> what builds it, and what it takes.
NETWORKS = {
    "resnet20": (lambda: topo.models.build("resnet20"), IMAGE),
    "resnet50": (lambda: topo.models.build("resnet50:stem=cifar"), IMAGE),
    "mobilenetv2": (lambda: topo.models.build("mobilenetv2:stem=cifar"), IMAGE),
    "densenet": (Dense, (3, 8, 8)),
    "unet": (UNet, (3, 8, 8)),
    "vit": (lambda: hf("ViT", "ViTForImageClassification", image_size=16, patch_size=8), (3, 16, 16)),
    "bert": (lambda: hf("Bert", "BertModel", vocab_size=30), TOKENS),
    "llama": (lambda: hf("Llama", "LlamaForCausalLM", num_key_value_heads=2, vocab_size=30), TOKENS),
}


def half_dead(model: nn.Module, wiring: topo.Wiring) -> topo.MaskSet:
    """Half of the weights, and nothing of a third of the outputs of layers but those that outputs depend on alone."""
    rng = np.random.default_rng(0)
    masks = {}
    for name in wiring.names[:-1]:
        if wiring.layer(name).kind == "embedding":
            continue
        masks[name] = rng.random(wiring.shapes[name]) < 0.5
        if len(masks[name]) > 3:
            masks[name][rng.permutation(len(masks[name]))[: len(masks[name]) // 3]] = False
    return topo.MaskSet(masks)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::topo.errors.TraceWarning")
def test_named_architectures_shrink_to_equal_networks(name):
    torch.manual_seed(0)
    build, takes = NETWORKS[name]
    model = stirred(build()).double()  # what is folded into biases is rounded as they are
    wiring = topo.trace(model, takes)
    masks = half_dead(model, wiring)
    small = topo.shrink(model, masks, input_shape=takes)
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, small.model))
    assert small.report["removed"] > 0 and after < before
    twin = masked_twin(model, masks)
    x = torch.randint(30, (2, 6)) if takes == TOKENS else torch.rand(2, *takes, dtype=torch.float64)
    given, found = (first(net(x)) for net in (twin, small.model))
    assert (given - found).abs().max() <= 1e-9 * given.abs().max()


def first(found):
    return found if isinstance(found, Tensor) else found[0]


def test_both_are_timed_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    net = topo.models.build("mlp:12-9-3")
    masks = topo.MaskSet({"fc1.weight": (np.arange(9) > 3)[:, None] & np.ones((9, 12), bool)})
    topo.write_masks(masks, tmp_path / "m.npz")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    line = ["shrink", str(tmp_path / "m.npz"), "--model", "mlp:12-9-3", "--weights", str(tmp_path / "w.pt"), "--time"]
    assert main([*line, "--json", "-", "-o", str(tmp_path / "o.pt")]) == 0
    found = json.loads(capsys.readouterr().out)["time"]
    assert found["times_faster"]["shrunk"] > 0


def test_training_goes_on_from_the_smaller_network(tmp_path: Path) -> None:
    net = topo.models.build("mlp:64-20-10")
    masks = topo.MaskSet(
        {"fc1.weight": (np.arange(20) > 8)[:, None] & (np.random.default_rng(0).random((20, 64)) < 0.5)}
    )
    small = topo.shrink(net, masks, input_shape=(64,))
    assert small.model.fc1.weight.shape == (11, 64)
    run = topo.train(small.model, "digits", masks=small.masks, epochs=1)
    assert topo.verify_masks(run.model, small.masks) == () and run.final_accuracy > 0.1
