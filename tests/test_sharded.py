"""FSDP2 and tensor parallelism in two processes (gloo, on the CPU): masks before and after, as in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.slow

WORKER = """
import json, os, sys
import numpy as np, torch
import torch._dynamo  # which optimizers import
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
import topo

torch.set_num_threads(1)
child = os.fork()  # what was imported serves both; nothing of torch runs in other threads yet
rank = int(child == 0)
dist.init_process_group("gloo", init_method="file://" + sys.argv[1] + "/meet", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
draw = np.random.default_rng(0)
shapes = {"0.weight": (8, 6), "2.weight": (7, 8), "4.weight": (3, 7)}
first, second = ({name: draw.random(shape) < 0.5 for name, shape in shapes.items()} for _ in range(2))
x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))

def sharded(model, **how):
    for layer in model[::2]:
        fully_shard(layer, mesh=mesh, **how)
    return fully_shard(model, mesh=mesh, **how)

def trained(model, optimizer=None, own=None, follow=None, clip=0.0):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1, foreach=False)
    if follow is not None:
        follow(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        model(x.chunk(2)[rank] if own is None else own).square().mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return optimizer

def values(model):
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]

def apart(model, other):
    return max(float((a - b).abs().max()) for a, b in zip(values(model), values(other), strict=True))

alone = topo.apply_masks(net(), first)
trained(alone, own=x)
topo.strip_masks(alone)
found, drift = {}, {}

model = sharded(topo.apply_masks(net(), first))
optimizer = trained(model)
drift["before"] = len(topo.verify_masks(model, first))
found["read"] = topo.read_masks(model) == topo.MaskSet(first)
held = list(optimizer.param_groups[0]["params"])
topo.strip_masks(model)
found["plain names"] = [name for name, _ in model.named_parameters()] == [name for name, _ in net().named_parameters()]
found["same parameters"] = all(a is b for a, b in zip(held, model.parameters()))
found["stripped"] = len(topo.verify_masks(model, first)) == 0
found["as alone"] = apart(model, alone)
trained(model, optimizer)
found["free"] = len(topo.verify_masks(model, first)) == 3
topo.apply_masks(model, second)
trained(model, optimizer)
drift["anew"] = len(topo.verify_masks(model, second))
topo.apply_masks(model, first)
back = torch.tensor(first["0.weight"] & ~second["0.weight"])
found["regrown"] = float(model[0].weight.full_tensor().detach()[back].abs().sum())

model = topo.apply_masks(sharded(net()), first)
trained(model)
drift["after"] = len(topo.verify_masks(topo.strip_masks(model), first))
found["after as alone"] = apart(model, alone)

model = topo.apply_masks(sharded(net(), mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32)), first)
trained(model, clip=0.1)
drift["bfloat16"] = len(topo.verify_masks(model, first))

for when in ("before", "after"):
    callback, model = topo.MaskCallback(first), net()
    if when == "before":
        callback.apply(model)
    sharded(model)
    if when == "after":
        callback.apply(model)
    trained(model, follow=callback.follow)
    callback.verify()
    found["callback " + when] = apart(model, alone)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, numbers):
        return self.head(self.words(numbers))

mask = {"head.weight": draw.random((9, 6)) < 0.5}
masked_first = fully_shard(topo.apply_masks(Tied(), mask), mesh=mesh)
for model in (masked_first, topo.apply_masks(fully_shard(Tied(), mesh=mesh), mask)):
    trained(model, own=torch.arange(9))
    topo.strip_masks(model)
    trained(topo.apply_masks(model, mask), own=torch.arange(9))
    drift["tied"] = drift.get("tied", 0) + len(topo.verify_masks(model, mask))
    found["one weight"] = len(list(model.parameters())) == 1

model = parallelize_module(net(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
topo.apply_masks(model, first)
trained(model, own=x)
drift["tensor parallel"] = len(topo.verify_masks(model, first))
found["tensor parallel"] = apart(topo.strip_masks(model), alone)

with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump([found, drift], file)
dist.destroy_process_group()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_sharded_models_are_masked_stripped_and_masked_anew(tmp_path):
    run = [sys.executable, "-W", "ignore", "-c", WORKER, str(tmp_path)]
    ended = subprocess.run(run, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        found, drift = json.loads((tmp_path / f"{rank}.json").read_text())
        assert not any(drift.values()), drift
        for name, value in found.items():
            assert value is True or (not isinstance(value, bool) and value < 1e-6), (name, value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", ["apply_masks", "callback"])
def test_autocast_and_a_scaler(kind, way):
    import numpy as np

    import topo

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    masks = {"0.weight": np.eye(8, 6) > 0, "2.weight": np.eye(3, 8) > 0}
    callback = topo.MaskCallback(masks)
    callback.apply(model) if way == "callback" else topo.apply_masks(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    if way == "callback":
        callback.follow(optimizer)
    scaler, x = torch.amp.GradScaler("cpu", init_scale=2.0**40), torch.randn(16, 6)
    scales, losses = [], []
    for _ in range(40):  # the first scales overflow: those steps are left out
        optimizer.zero_grad()
        with torch.autocast("cpu", kind):
            loss = (model(x) - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert topo.verify_masks(model, masks) == ()
    if kind == torch.float16:
        assert scales[-1] < scales[0]
    if way == "callback":
        callback.verify()
