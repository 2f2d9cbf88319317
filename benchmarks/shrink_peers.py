"""The same dead channels taken out by `topo.shrink` and by Torch-Pruning, where that is installed.

    pip install torch-pruning; python benchmarks/shrink_peers.py digits_conv vgg16 resnet20

A third of the channels of each layer is pruned (of residual networks in the first layers of blocks, so that no stream
loses a channel). First networks as they are made, whose dead channels are zero; then with shifts in the norms, where a
dead channel has a value. What counts is how far the outputs are from those of the masked network.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import torch
from torch import nn

import topo


def stirred(model: nn.Module) -> None:
    """Batch norms with shifts and statistics that are not trivial."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)


def row(name: str, shifts: bool) -> str:
    import torch_pruning as peer

    torch.manual_seed(0)
    model = topo.models.build(name).eval()
    if shifts:
        stirred(model)
    shape = topo.models.input_shape(name)
    rng = np.random.default_rng(0)
    masks = {key: np.ones(tuple(p.shape), bool) for key, p in model.named_parameters() if p.dim() > 1}
    dead = {}
    for key in list(masks)[:-1]:
        if "blocks" not in " ".join(masks) or key.endswith("conv1.weight"):
            dead[key] = np.flatnonzero(rng.random(len(masks[key])) < 1 / 3)
            masks[key][dead[key]] = False
    small = topo.shrink(model, masks)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for key, parameter in twin.named_parameters():
            if key in masks:
                parameter *= torch.from_numpy(masks[key])
    theirs = copy.deepcopy(twin)
    graph = peer.DependencyGraph().build_dependency(theirs, example_inputs=torch.randn(1, *shape))
    modules = dict(theirs.named_modules())
    for key, channels in dead.items():
        layer = modules[key.rpartition(".")[0]]
        linear = isinstance(layer, nn.Linear)
        cut = peer.prune_linear_out_channels if linear else peer.prune_conv_out_channels
        graph.get_pruning_group(layer, cut, idxs=channels.tolist()).prune()
    x = torch.randn(8, *shape)
    with torch.no_grad():
        y = twin(x)
        off = [float((y - made(x)).abs().max() / y.abs().max()) for made in (small.model, theirs)]
    counts = [sum(p.numel() for p in made.parameters()) for made in (model, small.model, theirs)]
    told = [name, "yes" if shifts else "no", *(f"{count:,}" for count in counts), *(f"{gap:.1e}" for gap in off)]
    return "| " + " | ".join(told) + " |"


def main(names: list[str]) -> None:
    print("| network | shifts | parameters | ours | Torch-Pruning | ours off by | Torch-Pruning off by |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in names:
        for shifts in (False, True):
            print(row(name, shifts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
