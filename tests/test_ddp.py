"""Two processes, as torchrun starts them (gloo, on the CPU): the same masks on both, and the result of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tomli_w
import torch

import topo
from topo.masks import MaskSet
from topo.train.folder import Folder
from topo.train.recipe import Recipe

pytestmark = pytest.mark.slow

# 1442 images in batches of 101: odd parts, and a last batch of 28.
RECIPE = Recipe(epochs=2, batch=101, lr=0.05, padding=1, schedule="cosine", label_smoothing=0.1)
WORKER = """
import gc, json, os, sys
import numpy as np, torch
import topo
from topo.errors import TrainingError
from topo.masks import MaskSet
from topo.train import Recipe
from topo.train.recipe import find_recipe

out, rank = sys.argv[1], int(os.environ["RANK"])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
masks = MaskSet({name: np.random.default_rng(rank + 1).random(shape) < 0.4
                 for name, shape in {"fc1.weight": (32, 64), "fc2.weight": (10, 32)}.items()})
recipe = find_recipe(out + "/recipe.toml")
run = topo.train("mlp:64-32-10", "digits", masks=masks, recipe=recipe, rng=7, out=out + "/two")
total = sum(p.double().sum().item() for p in run.model.parameters())
said = []
other = {"fc1.weight": np.ones((32, 64))} if rank else masks
for given, seed in ((other, 7), (masks, 7)):
    try:
        topo.train("mlp:64-32-10", "digits", masks=given, recipe=recipe, rng=seed, out=out + "/two")
    except TrainingError as error:
        said.append(str(error))
user = topo.apply_masks(topo.models.build("mlp:64-32-10"), run.masks)
wrapped = torch.nn.parallel.DistributedDataParallel(user)
optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01, weight_decay=0.1)
for step in range(3):
    torch.manual_seed(10 * step + rank)
    optimizer.zero_grad()
    wrapped(torch.randn(8, 64)).square().sum().backward()
    optimizer.step()
with open(f"{out}/rank{rank}.json", "w") as file:
    json.dump({"hash": run.masks.content_hash, "own": masks.content_hash, "total": total, "said": said,
               "accuracy": run.final_accuracy, "drift": len(topo.verify_masks(user, run.masks)),
               "user": sum(p.double().sum().item() for p in user.parameters())}, file)
del wrapped, optimizer  # what holds the group: its threads must end before the interpreter does
gc.collect()
torch.distributed.destroy_process_group()
"""


def torchrun(*line, environment=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [*start, *map(str, line)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_share_masks_and_give_the_result_of_one(tmp_path):

    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(RECIPE.table()))
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun(tmp_path / "worker.py", tmp_path)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    # The masks of process 0 on both, though each was given its own.
    assert ranks[0]["hash"] == ranks[1]["hash"] == ranks[0]["own"] != ranks[1]["own"]
    assert ranks[0]["total"] == ranks[1]["total"] and ranks[0]["accuracy"] == ranks[1]["accuracy"]
    # Names that differ, and a folder that is taken, end on both with a line.
    for rank in ranks:
        assert "the names and shapes of the masks of process 1 differ from those of process 0" in rank["said"][0]
        assert "holds a run already" in rank["said"][1]
        assert rank["drift"] == 0 and rank["user"] == ranks[0]["user"]
    masks = MaskSet(
        {
            name: np.random.default_rng(1).random(shape) < 0.4
            for name, shape in {"fc1.weight": (32, 64), "fc2.weight": (10, 32)}.items()
        }
    )
    alone = topo.train("mlp:64-32-10", "digits", masks=masks, recipe=RECIPE, rng=7)
    state = Folder(tmp_path / "two").read_checkpoint()
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(state["model"][name], weight, atol=1e-4, rtol=1e-3)
    assert topo.read_masks(tmp_path / "two" / "masks.safetensors") == masks
    for one, two in zip(alone.history, state["history"], strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.01)
    assert topo.verify_masks(alone.model, masks) == ()


def test_the_command_under_torchrun(tmp_path):
    line = ["-m", "topo", "train", "dense", "--model", "digits_conv", "--data", "digits", "--epochs", "2", "--quiet"]
    said = torchrun(*line, "-o", tmp_path / "run", environment={"TOPO_CACHE_DIR": str(tmp_path / "cache")})
    assert said.count("final test accuracy") == 1  # only process 0 speaks
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["environment"]["processes"] == 2 and summary["final_test_accuracy"] > 0.5
