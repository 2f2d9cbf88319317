"""Unrolled networks: paths of every place and weight against torch's float64 pass of ones, and CONV-6 as one graph.

    python benchmarks/unrolled_networks.py [--write] [--large]

Processor seconds on one thread, the least of three after a first call. torch's pass is on the model with its masks as
weights: max pools summed, norms and activations out, an input of ones, forward and backward. Both give the number of
paths, which is asserted to be equal.
"""

from __future__ import annotations

import os

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import argparse
import math
import resource
import time
from unittest.mock import patch

import torch
from processor_seconds import least
from run import HERE, machine, rewrite
from torch import nn

import topo
from topo.graph import build_graph
from topo.graph.unrolled import unrolled

MARKS = ("<!-- unrolled: written by benchmarks/unrolled_networks.py -->", "<!-- end of unrolled -->")


def whole_sum(x: torch.Tensor, _: int) -> torch.Tensor:
    """The sum of a whole map, where a network takes its mean."""
    return x.sum((2, 3), keepdim=True)


def counting(model: nn.Module, masks: topo.MaskSet) -> nn.Module:
    """The model as a counter of paths: its masks as weights, all that is not linear left out."""
    model = model.double().eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d):
            owner, _, last = name.rpartition(".")
            new: nn.Module = nn.Identity()
            if isinstance(module, nn.MaxPool2d):
                new = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, divisor_override=1)
            setattr(model.get_submodule(owner), last, new)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(masks[name].copy()) if name in masks else torch.zeros_like(parameter))
    return model


def counts_row(name: str, shape: tuple[int, ...], density: float) -> tuple[str, ...]:
    model = topo.models.build(name)
    wiring = topo.trace(model, shape)
    masks = topo.generate("uniform", wiring, density=density, rng=0)
    graph = build_graph(masks, wiring, "unrolled")

    def ours() -> float:
        graph.memo.clear()
        found = unrolled(graph)
        _ = found.forward, found.backward
        for step in found.layers:
            found.edge_paths(step)
        mantissa, exponent = found.total
        return math.log10(mantissa) + exponent * math.log10(2)

    counter = counting(model, masks)

    def theirs() -> float:
        counter.zero_grad()
        x = torch.ones((1, *shape), dtype=torch.float64, requires_grad=True)
        with patch.object(nn.functional, "adaptive_avg_pool2d", whole_sum):
            total = counter(x).sum()
        total.backward()
        return math.log10(float(total.detach()))

    assert math.isclose(ours(), theirs(), rel_tol=1e-9), (ours(), theirs())
    mine, torchs = least(ours, theirs)
    size = "x".join(map(str, shape))
    what = f"{name} at {size}, {100 * (1 - density):g}%: counts forward, backward and per weight"
    return what, f"{mine:.3f}", f"{torchs:.3f}", f"{torchs / mine:.1f}x"


def conv6_row() -> str:
    wiring = topo.trace(topo.models.build("conv6"))
    masks = topo.generate("uniform", wiring, density=0.02, rng=0)
    topo.analyze(topo.generate("uniform", "mlp:8-6-4", density=0.5), metrics="graph", view="unrolled")
    began = time.process_time()
    report = topo.analyze(masks, wiring, metrics="graph", view="unrolled", threads=1)
    seconds = time.process_time() - began
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"CONV-6 at 98%, unrolled: all {len(report.network)} numbers of the group `graph` in {seconds:.1f} s; the "
        f"process had {size:.2f} GB at most, torch included (goals: 15 s, 1.5 GB)."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="rewrite the table in benchmarks/README.md")
    parser.add_argument("--large", action="store_true", help="images of 224 pixels, too: minutes and gigabytes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [machine(), "", conv6_row(), "", "| task | ours, s | torch float64, s | ratio |", "|---|---:|---:|---:|"]
    print(lines[2], flush=True)
    cases = [("resnet18", (3, 32, 32), 0.1), ("resnet18", (3, 32, 32), 0.02)]
    if args.large:
        cases += [(n, (3, 224, 224), d) for n in ("resnet18", "resnet50") for d in (0.1, 0.02)]
    for case in cases:
        lines.append("| " + " | ".join(counts_row(*case)) + " |")
        print(lines[-1], flush=True)
    if args.write:
        rewrite(HERE / "README.md", MARKS, "\n".join(lines))


if __name__ == "__main__":
    main()
