"""Effective edges on the traced wiring are the kept weights with a non-zero gradient, layer by layer.

The probe: positive random kept weights in float64, no biases, norms and saturations taken out, positive random
inputs; then the gradient of the summed output at a weight is a sum of positive products over the paths through it.
Attention has its softmax taken out, (q k^T) v: then a head passes where some pair of query and key units is live,
which is what the wiring's score and gate say. (With its softmax a head whose scores are all zero still averages its
values.)
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import topo
import topo.models
from naive.reach import effective

torch.set_num_threads(1)
DENSITIES = (0.2, 0.02, 0.005)


class Plain(nn.Module):
    """Takes the place of norms and saturating activations."""

    def forward(self, x, *_, **__):
        return x


def neutral(model):
    gone = (nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Tanh, nn.ReLU6, nn.Hardsigmoid)
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, gone) or "RMSNorm" in type(child).__name__ or "Activation" in type(child).__name__:
                setattr(part, name, Plain())
    return model


def positive_attention(q, k, v, *_, **__):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return q @ k.transpose(-1, -2) @ v


def by_gradient(model, masks, args, kwargs, pick):
    """Per parameter, which kept weights have a gradient."""
    model = neutral(model.double().eval())
    drawn = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if name in masks:
            kept = torch.from_numpy(masks[name])
            fan_in = max(1.0, float(kept.flatten(1).sum(1).double().mean()))
            p.data = kept * (0.5 + torch.rand(p.shape, generator=drawn, dtype=p.dtype)) / fan_in
        elif p.dim() > 1 and ("embed" in name or "wte" in name) and "position" not in name and "cls" not in name:
            p.data = 0.5 + torch.rand(p.shape, generator=drawn, dtype=p.dtype)
        else:
            p.data.zero_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", positive_attention)
        pick(model(*args, **kwargs)).sum().backward()
    parameters = dict(model.named_parameters())
    return {name: ((parameters[name].grad != 0) & (parameters[name] != 0)).numpy() for name in masks}


def weighted(model):
    """Names of the weights of linear layers and convolutions; transformers' Conv1D is a linear layer."""
    kinds = ("Linear", "Conv1d", "Conv2d", "Conv1D")
    return {f"{name}.weight" for name, part in model.named_modules() if type(part).__name__ in kinds}


def compare(build, args=(), kwargs=None, pick=lambda y: y, densities=DENSITIES):
    """Every kept weight of every layer, at every density; at the first some are on paths."""
    torch.manual_seed(0)
    kwargs = kwargs or {}
    model = build()
    wiring = topo.trace(model, args=args, kwargs=kwargs, strict=True, gates="hard")
    layers = {layer.name: layer for layer in wiring.layers if layer.kind != "embedding"}
    assert set(layers) == weighted(model)
    args = tuple(a.double() for a in args)
    kwargs = {
        key: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for key, v in kwargs.items()
    }
    total = []
    for density in densities:
        rng = np.random.default_rng(3)
        masks = {name: rng.random(layer.shape) < density for name, layer in layers.items()}
        found = effective(wiring, masks)
        stored = {name: m.swapaxes(0, 1).copy() if layers[name].transposed else m for name, m in masks.items()}
        torch.manual_seed(0)
        grads = by_gradient(build(), stored, args, kwargs, pick)
        for name, layer in layers.items():
            grad = grads[name].swapaxes(0, 1) if layer.transposed else grads[name]
            assert np.array_equal(found[name], grad), (
                f"{name} at {density}: {found[name].sum()} on paths, {grad.sum()} by gradient"
            )
        total.append(sum(int(found[name].sum()) for name in layers))

    assert total[0] > 0


def image(side):
    return (0.5 + torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2)),)


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
def test_resnet20(shortcut):
    compare(lambda: topo.models.build(f"resnet20:shortcut={shortcut}"), image(32))


def test_resnet50():
    compare(lambda: topo.models.build("resnet50:classes=10"), image(64), densities=DENSITIES[1:])


def test_mobilenetv2():
    compare(lambda: topo.models.build("mobilenetv2"), image(64), densities=(0.5, *DENSITIES))


def cbr(c_in, c_out, k=1, **kwargs):
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, k, padding=k // 2, bias=False, **kwargs), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Dense(nn.Module):
    """A small DenseNet: concatenations, bottlenecks, transitions."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 24, 3)
        self.blocks = nn.ModuleList()
        c = 24
        for block in range(3):
            if block:
                self.blocks.append(nn.Sequential(cbr(c, c // 2), nn.AvgPool2d(2)))
                c //= 2
            for _ in range(4):
                self.blocks.append(nn.ModuleList([cbr(c, 48), cbr(48, 12, 3)]))
                c += 12
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            if isinstance(block, nn.ModuleList):
                x = torch.cat([x, block[1](block[0](x))], 1)
            else:
                x = block(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inception(nn.Module):
    """Parallel branches of unlike depth, one through a pool, joined by concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 32, 3)
        self.blocks = nn.ModuleList()
        c = 32
        for _ in range(3):
            pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), cbr(c, 16))
            branches = [
                cbr(c, 16),
                nn.Sequential(cbr(c, 24), cbr(24, 32, 3)),
                nn.Sequential(cbr(c, 8), cbr(8, 16, 5)),
                pooled,
            ]
            self.blocks.append(nn.ModuleList(branches))
            c = 80
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.cat([branch(x) for branch in block], 1)
        return self.fc(x.mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Depthwise convolutions, a squeeze-and-excite gate, a channel shuffle and a residual."""

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 32, 3)
        self.wide = cbr(32, 64)
        self.depth = cbr(64, 64, 3, groups=64)
        self.down, self.up, self.act = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1), nn.Sigmoid()
        self.grouped, self.shuffle = cbr(64, 64, groups=4), nn.ChannelShuffle(4)
        self.last = cbr(64, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.depth(self.wide(x))
        y = self.act(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1))))) * y
        y = self.shuffle(self.grouped(y))
        return self.fc((x + self.last(y)).mean((-1, -2)))


@pytest.mark.parametrize("net", [Dense, Inception, SqueezeExcite])
def test_branching_convolutions(net):
    compare(net, image(32), densities=(0.5, *DENSITIES))


def test_hf_resnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], num_labels=10)
    compare(
        lambda: transformers.ResNetForImageClassification(config),
        kwargs={"pixel_values": image(64)[0]},
        pick=lambda y: y.logits,
    )


class OnPatches(nn.Module):
    """A ViT read at its patches: the class token starts as a constant, which is no source, so that no path leads
    from it."""

    def __init__(self, config):
        super().__init__()
        transformers = pytest.importorskip("transformers")
        self.vit = transformers.ViTModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, 10)

    def forward(self, x):
        return self.head(self.vit(x).last_hidden_state[:, 1:].mean(1))


def test_hf_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    compare(lambda: OnPatches(config), image(32), densities=(0.5, *DENSITIES))


TOKENS = {"input_ids": torch.arange(1, 9)[None]}


def test_hf_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=40
    )
    compare(
        lambda: transformers.BertForSequenceClassification(config),
        kwargs=TOKENS,
        pick=lambda y: y.logits,
        densities=(0.5, *DENSITIES),
    )


def test_hf_llama():
    """Grouped queries, rotary positions, gated feed-forward."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=40,
        use_cache=False,
    )
    compare(
        lambda: transformers.LlamaForCausalLM(config),
        kwargs=TOKENS,
        pick=lambda y: y.logits,
        densities=(0.5, *DENSITIES),
    )


def test_hf_gpt2():
    """Weights stored input-first; queries, keys and values split from one layer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=4, vocab_size=40, use_cache=False, tie_word_embeddings=False
    )
    compare(
        lambda: transformers.GPT2LMHeadModel(config),
        kwargs=TOKENS,
        pick=lambda y: y.logits,
        densities=(0.5, *DENSITIES),
    )
