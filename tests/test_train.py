"""Training: the digits are learned, pruned weights stay zero, and a killed run goes on as if nothing had happened."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tomllib

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.data import Dataset, load
from topo.errors import TopoError, TrainingError, WiringError
from topo.masks import MaskSet
from topo.networks import build
from topo.pruners import prune
from topo.train import Recipe, recipes
from topo.train.feed import Feed, Plan
from topo.train.folder import Folder
from topo.train.initial import initialise
from topo.train.masking import applied_masks
from topo.train.recipe import find_recipe
from topo.train.schedule import learning_rate

QUICK = recipes["quick"]
COLUMNS = {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds"}


def random_masks(shapes, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


MLP_MASKS = random_masks({"fc1.weight": (32, 64), "fc2.weight": (10, 32)})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- recipes, schedules, TOML


def test_recipes_of_the_papers():
    assert set(recipes) == {
        *("autosparse", "bert_tickets", "chars", "fashion", "gem_miner", "grasp", "mnist1d", "npb", "open_lth", "phew"),
        *("quick", "rigl", "synflow", "text", "tost"),
    }
    for recipe in recipes.values():
        assert recipe.source and recipe.ema == 0
    assert recipes["npb"].milestones == (80, 120) and recipes["synflow"].milestones == (60, 120)
    assert recipes["grasp"].weight_decay == 5e-4 and recipes["open_lth"].init == "open_lth"
    for system in (
        "AutoSparse",
        "BERT tickets",
        "Gem-Miner",
        "ToST",
        "RigL",
        "SET",
        "GraSP",
        "NPB",
        "PHEW",
        "Synaptic-Flow",
    ):
        assert any(system in recipe.source for recipe in recipes.values()), system
    rigl = recipes["rigl"]
    assert rigl.moves and (rigl.alpha, rigl.update_every, rigl.update_until) == (0.3, 100, 0.75)
    shorter = recipes["synflow"].for_epochs(16)
    assert shorter.milestones == pytest.approx((6, 12)) and shorter.epochs == 16


def test_a_recipe_from_a_file_and_what_is_none(tmp_path):
    (tmp_path / "mine.toml").write_text('epochs = 3\nlr = 1\noptimizer = "adam"\n')
    assert find_recipe(tmp_path / "mine.toml") == Recipe(name="mine", epochs=3, lr=1.0, optimizer="adam")
    for text, said in (
        ("epoch = 3", "the recipe 'bad' has the key 'epoch', which no recipe has"),
        ("epochs = 2.5", "epochs = 2.5; it should be a whole number from 1"),
        ("lr = 0", "lr = 0; it should be a number above 0"),
        ("lr = nan", "lr = nan"),
        ('flip = "yes"', "flip = 'yes'; it should be true or false"),
        ('schedule = "step"', "it should be one of multistep, cosine, linear, one_cycle, constant"),
        ("milestones = [3, 1]", "a list of epochs in rising order"),
        ('optimizer = "adam"\nnesterov = true', "nesterov = True"),
        ("lr = ", "is not TOML"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(TrainingError, match=said.replace("[", r"\[")):
            find_recipe(tmp_path / "bad.toml")
    with pytest.raises(TopoError, match=r"no recipe is called 'npd'; did you mean 'npb'.* grasp"):
        find_recipe("npd")
    with pytest.raises(TrainingError, match=r"cannot read .*none.toml"):
        find_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("name", list(recipes))
def test_toml_round_trip(name, tmp_path):
    table = recipes[name].table()
    folder = Folder(tmp_path)
    folder.write_config({"run": {"seed": 1, "masks": None}, "recipe": table})
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"run": {"seed": 1}, "recipe": table}
    folder.check({"run": {"seed": 1, "masks": None}, "recipe": table})
    assert find_recipe(tmp_path / "config.toml") == recipes[name]  # a run can be repeated from its folder


def test_schedules_equal_torchs_own():
    steps, epochs = 7, 12

    def torchs(make, per_step):
        optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
        scheduler, found = make(optimizer), []
        for step in range(steps * epochs):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_step or step % steps == steps - 1:
                scheduler.step()
        return found

    lr = torch.optim.lr_scheduler
    cases = {
        "multistep": (lambda o: lr.MultiStepLR(o, [6, 9], 0.1), False),
        "cosine": (lambda o: lr.CosineAnnealingLR(o, steps * epochs), True),
        "one_cycle": (lambda o: lr.OneCycleLR(o, 0.1, steps * epochs), True),
    }
    for schedule, case in cases.items():
        recipe = Recipe(epochs=epochs, schedule=schedule, milestones=(6, 9), lr=0.1)
        ours = [learning_rate(recipe, step, steps) for step in range(steps * epochs)]
        assert ours == pytest.approx(torchs(*case), rel=1e-6, abs=1e-12), schedule
    warm = Recipe(epochs=4, schedule="constant", warmup=2, lr=1.0)
    assert [learning_rate(warm, s, 2) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    scaled = recipes["synflow"].for_epochs(7)
    rates = [learning_rate(scaled, step, 8) for step in range(56)]
    assert [rates.index(r) for r in sorted(set(rates), reverse=True)] == [0, 21, 42]  # 60/160 and 120/160 of 56


# -- images


def test_crops_and_mirrors_are_those_of_numpy_and_streaming_gives_the_same():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 3, 6, 5), dtype=np.uint8), np.arange(20)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    plan = Plan.drawn(20, seed=1, epoch=2, padding=2, flip=True)
    places = [slice(0, 8), slice(8, 16), slice(16, 19)]
    for last in (False, True):
        feeds = [Feed(images, labels, mean, std, torch.device("cpu"), 2, resident, last) for resident in (True, False)]
        ours, streamed = (list(feed.batches(plan, places)) for feed in feeds)
        for (x, y), (x2, y2) in zip(ours, streamed):
            assert torch.equal(x, x2) and torch.equal(y, y2)
            assert x.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        x = torch.cat([x for x, _ in ours]).numpy()
        assert [len(x) for x, _ in ours] == [8, 8, 3]
        for row, index in enumerate(plan.order[:19].tolist()):
            padded = np.pad(images[index], ((0, 0), (2, 2), (2, 2)))
            top, left = int(plan.top[row]), int(plan.left[row])
            expected = padded[:, top : top + 6, left : left + 5]
            expected = expected[:, :, ::-1] if plan.mirror[row] else expected
            expected = (expected / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
            np.testing.assert_allclose(x[row], expected, atol=1e-5)
    plan = Plan.drawn(500, seed=1, epoch=2, padding=2, flip=True)
    assert {*plan.top.tolist()} == {*plan.left.tolist()} == {*range(5)} and 200 < int(plan.mirror.sum()) < 300
    assert sorted(plan.order.tolist()) == list(range(500))


def test_a_memory_map_is_streamed_and_trains_the_same(tmp_path):
    digits = load("digits")
    np.save(tmp_path / "x.npy", digits.train_images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    parts = (mapped, digits.train_labels, digits.test_images, digits.test_labels, digits.classes)
    recipe = QUICK.changed(padding=1, flip=True)
    runs = [
        topo.train("mlp:64-10", data, recipe=recipe, epochs=2)
        for data in (Dataset("digits", *parts), Dataset("digits", np.array(mapped), *parts[1:]))
    ]
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())


# -- training


def test_a_dense_net_learns_the_digits(tmp_path):
    """Acceptance: 98 %."""
    state = torch.random.get_rng_state()
    run = topo.train("digits_conv", "digits", out=tmp_path / "run")
    assert run.final_accuracy >= 0.98
    assert torch.equal(state, torch.random.get_rng_state())  # nothing seeds globally
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 16)) and set(rows[0]) == COLUMNS
    assert (tmp_path / "run" / "curves.csv").read_text().count("\n") == 16
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["final_test_accuracy"] == rows[-1]["test_accuracy"] == run.final_accuracy
    assert summary["best_test_accuracy"] == max(row["test_accuracy"] for row in rows) == run.best_accuracy
    assert rows[summary["best_epoch"] - 1]["test_accuracy"] == run.best_accuracy
    assert "test set" in summary["best_is"] and summary["environment"]["torch"] == torch.__version__
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert same(state["model"], run.model.state_dict()) and state["epoch"] == 15
    digits = load("digits")
    with torch.no_grad():
        scores = run.model.eval()(torch.from_numpy(digits.normalised(digits.test_images)))
    assert (scores.argmax(1).numpy() == digits.test_labels).mean() == pytest.approx(run.final_accuracy, abs=0.003)


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_with_many_paths_learn_what_random_ones_do_not(seed):
    """Acceptance at 1 % of the weights, in 4 epochs; benchmarks/train_digits.py has 15 epochs and five seeds."""
    accuracy = {}
    for method in ("erk", "synflow", "balance"):
        model = build("digits_conv", seed)
        if method == "synflow":
            masks = prune(method, model, density=0.01, input_shape=(1, 8, 8), rng=seed)
        else:
            masks = topo.generate(method, "digits_conv", density=0.01, rng=seed)
        assert masks.kept == 562
        accuracy[method] = topo.train(model, "digits", masks=masks, epochs=4, rng=seed).final_accuracy
    assert accuracy["synflow"] > accuracy["erk"] + 0.04 and accuracy["balance"] > accuracy["erk"] + 0.04


RECIPES = {
    "sgd": QUICK,
    "adam": Recipe(batch=64, optimizer="adam", lr=0.003, schedule="cosine", warmup=1, epochs=2, padding=1),
    "adamw, ema": Recipe(batch=64, optimizer="adamw", lr=0.003, schedule="constant", ema=0.8, epochs=2),
    "bf16": QUICK.changed(amp="bf16", channels_last="on", label_smoothing=0.1),
    "sparse He": QUICK.changed(init="sparse_he"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_pruned_weights_are_zero_under_every_recipe(name, tmp_path):
    shapes = {"conv1.weight": (32, 1, 3, 3), "conv2.weight": (64, 32, 3, 3), "fc.weight": (10, 64)}
    masks = random_masks(shapes, 0.2)  # conv3 has no mask: dense
    run = topo.train("digits_conv", "digits", masks=masks, recipe=RECIPES[name], epochs=2, out=tmp_path / "run")
    assert topo.verify_masks(run.model, masks) == ()
    assert run.masks == masks == topo.read_masks(tmp_path / "run" / "masks.safetensors")
    kept = int((run.model.fc.weight != 0).sum())
    assert kept == masks["fc.weight"].sum() and bool((run.model.conv3.weight != 0).all())
    assert run.summary()["density"] == masks.density
    assert run.final_accuracy > 0.2
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["average"] is not None) == ("ema" in name)


def test_a_masked_model_trains_masked_and_stays_so():
    masks = MLP_MASKS
    model = topo.apply_masks(topo.models.build("mlp:64-32-10"), masks)
    run = topo.train(model, "digits", epochs=2)
    assert run.model is model and run.masks == masks
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert topo.verify_masks(model, masks) == ()  # still masked, whatever is done to it


def test_masks_on_the_model_give_way_to_masks_that_are_given_if_they_fit():
    model = topo.apply_masks(topo.models.build("mlp:64-32-10"), MLP_MASKS)
    with pytest.raises(WiringError, match=r"mask 'fc1.weight' has shape"):
        topo.train(model, "digits", epochs=1, masks={"fc1.weight": np.ones((3, 3))})
    assert applied_masks(model) == MLP_MASKS
    other = random_masks(MLP_MASKS.shapes, seed=5)
    assert topo.train(model, "digits", epochs=1, masks=other).masks == other == applied_masks(model)


def test_the_loop_equals_a_plain_one_with_parametrized_masks():
    """The fused multiplication after each step and masks in every forward pass are the same training."""
    torch.manual_seed(0)
    a = topo.models.build("mlp:64-32-10")
    b = topo.models.build("mlp:64-32-10")
    b.load_state_dict(a.state_dict())
    recipe = Recipe(epochs=2, batch=100, lr=0.1, weight_decay=1e-3, padding=0, flip=False, schedule="constant")
    topo.train(a, "digits", masks=MLP_MASKS, recipe=recipe, rng=5)
    topo.apply_masks(b, MLP_MASKS)
    digits = load("digits")
    x, y = torch.from_numpy(digits.normalised(digits.train_images)), torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.SGD(b.parameters(), 0.1, 0.9, weight_decay=1e-3)
    for epoch in range(2):
        for part in Plan.drawn(len(x), 5, epoch, 0, False).order.split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(b(x[part]), y[part]).backward()
            optimizer.step()
    for name, weight in topo.strip_masks(b).state_dict().items():
        torch.testing.assert_close(a.state_dict()[name], weight, atol=1e-5, rtol=1e-4)


def test_seeds():
    def weights(rng):
        return topo.train("mlp:64-10", "digits", epochs=1, rng=rng).model.state_dict()

    assert same(weights(3), weights(3)) and not same(weights(3), weights(4))
    torch.manual_seed(3)
    by_hand = topo.train(topo.models.build("mlp:64-10"), "digits", epochs=1, rng=3)
    assert same(weights(3), by_hand.model.state_dict())
    assert same(weights(np.random.default_rng(7)), weights(np.random.default_rng(7)))


def test_ablations_of_the_start_from_the_command_line(tmp_path):
    """A saved mask under its own weights, under weights drawn anew (reinitialise), and rescaled (SBP-SR)."""
    from topo.cli import main

    masks = random_masks({"fc1.weight": (32, 64), "fc2.weight": (10, 32)}, 0.2)
    topo.write_masks(masks, tmp_path / "mask.safetensors")
    start = {}
    for kind in ("as_built", "kaiming_normal", "rescaled"):
        still = ["-O", "lr=1e-30", "-O", "weight_decay=0.0", "-O", f"init={kind}", "--epochs", "1", "--seed", "4"]
        words = ["train", str(tmp_path / "mask.safetensors"), "--model", "mlp:64-32-10", "--data", "digits", *still]
        assert main([*words, "-o", str(tmp_path / kind)]) == 0
        assert topo.read_masks(tmp_path / kind / "masks.safetensors") == masks
        start[kind] = torch.load(tmp_path / kind / "checkpoint.pt", weights_only=True)["model"]["fc1.weight"]
    torch.manual_seed(4)
    model = topo.models.build("mlp:64-32-10")
    mask = torch.from_numpy(masks["fc1.weight"].copy())
    torch.testing.assert_close(start["as_built"], model.fc1.weight.detach() * mask)
    assert torch.equal(start["kaiming_normal"] != 0, mask)
    assert not torch.isclose(start["kaiming_normal"], start["as_built"])[mask].any()
    rho = topo.pruners.rescale(model, masks)["fc1.weight"]
    torch.testing.assert_close(start["rescaled"], start["as_built"] * rho)
    assert rho > 1.5


def test_sparse_he_keeps_the_variance_that_plain_he_loses():
    masks = {f"{i}.weight": torch.from_numpy(np.random.default_rng(i).random((400, 400)) < 0.1) for i in range(3)}
    stds = {}
    for kind in ("kaiming_normal", "sparse_he"):
        model = nn.Sequential(*(nn.Linear(400, 400, bias=False) for _ in range(3)))
        initialise(model, kind, masks, torch.Generator().manual_seed(0))
        with torch.no_grad():
            x = torch.randn(200, 400, generator=torch.Generator().manual_seed(1))
            for i, layer in enumerate(model):
                x = torch.relu(x) * 2**0.5 if i else x  # so that each layer gets unit second moments
                x = x @ (layer.weight * masks[f"{i}.weight"]).T / 2**0.5
        stds[kind] = x.std().item()
    assert stds["sparse_he"] == pytest.approx(1.0, rel=0.1)
    assert stds["kaiming_normal"] == pytest.approx(0.1**1.5, rel=0.1)
    grouped = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2))
    mask = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    mask[2:, 1] = True  # output 4 keeps all 8 weights of its group's two inputs
    initialise(grouped, "sparse_he", {"0.weight": mask}, torch.Generator().manual_seed(0))
    assert torch.equal(grouped[0].weight != 0, mask)
    drawn = torch.randn((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grouped[0].weight[mask], drawn[mask] * (2 / 8) ** 0.5)
    lth = topo.train("digits_conv", "digits", recipe=QUICK.changed(init="open_lth"), epochs=1)
    assert lth.final_accuracy > 0.3


# -- resuming


class Interrupting(nn.Module):
    """Dropout draws from torch's global generator; the given call number of `forward` is interrupted."""

    def __init__(self, stop=None):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2, self.drop = nn.Linear(64, 32), nn.Linear(32, 10), nn.Dropout(0.3)
        self.stop, self.calls = stop, 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == self.stop:
            raise KeyboardInterrupt
        return self.fc2(self.drop(torch.relu(self.fc1(x.flatten(1)))))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_interrupted_run_goes_on_bit_for_bit(optimizer, tmp_path):
    recipe = Recipe(epochs=4, batch=64, lr=0.01, optimizer=optimizer, ema=0.9, padding=1, schedule="cosine")
    straight = topo.train(Interrupting(), "digits", masks=MLP_MASKS, recipe=recipe, rng=2)
    with pytest.raises(KeyboardInterrupt):
        topo.train(Interrupting(60), "digits", masks=MLP_MASKS, recipe=recipe, rng=2, out=tmp_path / "run")
    assert Folder(tmp_path / "run").read_checkpoint()["epoch"] == 2  # 23 steps an epoch
    resumed = topo.train(
        Interrupting(), "digits", masks=MLP_MASKS, recipe=recipe, rng=2, out=tmp_path / "run", resume=True
    )
    assert same(straight.model.state_dict(), resumed.model.state_dict())
    for a, b in zip(straight.history, resumed.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    again = topo.train(
        Interrupting(), "digits", masks=MLP_MASKS, recipe=recipe, rng=2, out=tmp_path / "run", resume=True
    )
    assert again.history == resumed.history  # finished: nothing is trained again


# The command, killed as the history of a number of epochs is about to be written, or just was.
KILLED = """
import os, signal, sys
from topo.cli import main
from topo.train.folder import Folder
epochs, when, write = int(sys.argv[1]), sys.argv[2], Folder.write_history
def write_history(folder, history):
    if when == "before" and len(history) == epochs: os.kill(os.getpid(), signal.SIGKILL)
    write(folder, history)
    if when == "after" and len(history) == epochs: os.kill(os.getpid(), signal.SIGKILL)
Folder.write_history = write_history
main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_command_goes_on_bit_for_bit(when, tmp_path):
    line = ["train", str(tmp_path / "m.safetensors"), "--model", "mlp:64-32-10", "--data", "digits"]
    line += ["-O", "padding=1", "--epochs", "6", "--seed", "3", "-o", str(tmp_path / "run")]
    topo.write_masks(MLP_MASKS, tmp_path / "m.safetensors")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOPO_CACHE_DIR": str(tmp_path / "cache")}
    how = {"env": environment, "capture_output": True, "text": True}
    killed = subprocess.run([sys.executable, "-c", KILLED, "3", when, *line], **how)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Folder(tmp_path / "run").read_checkpoint()["epoch"] == 3
    done = subprocess.run([sys.executable, "-m", "topo", *line, "--resume"], check=True, **how)
    assert re.match(r"final test accuracy \d\d\.\d\d% \(epoch 6, .*; best .*, chosen on the test set;", done.stdout)
    recipe = QUICK.changed(padding=1)
    straight = topo.train("mlp:64-32-10", "digits", masks=MLP_MASKS, recipe=recipe, epochs=6, rng=3, threads=1)
    state = Folder(tmp_path / "run").read_checkpoint()
    assert same(state["model"], straight.model.state_dict()) and state["epoch"] == 6
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 7))


def test_a_run_is_resumed_only_as_it_was_started(tmp_path):
    out = tmp_path / "run"
    topo.train("mlp:64-10", "digits", epochs=1, out=out)
    with pytest.raises(TrainingError, match="holds a run already; resume it, or choose another folder"):
        topo.train("mlp:64-10", "digits", epochs=1, out=out)
    for change, said in (
        ({"epochs": 2}, "recipe.epochs = 1, not 2"),
        ({"rng": 1}, "run.seed = 0, not 1"),
        ({"masks": {"fc1.weight": np.eye(10, 64)}}, "run.masks = 'dense', not '"),
    ):
        with pytest.raises(TrainingError, match=said):
            topo.train("mlp:64-10", "digits", **{"epochs": 1, **change}, out=out, resume=True)
    (out / "checkpoint.pt").write_bytes(b"broken")
    with pytest.raises(TrainingError, match=r"'.*checkpoint.pt' is not a checkpoint that can be read"):
        topo.train("mlp:64-10", "digits", epochs=1, out=out, resume=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_run_folder_has_one_writer_until_it_dies(tmp_path):
    out = tmp_path / "run"
    code = (
        "import sys; from topo.train.folder import Folder\n"
        "with Folder(sys.argv[1]).alone(): print('ready', flush=True); input()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"ready\n"
    for start in (lambda: topo.train("mlp:64-10", "digits", epochs=1, out=out), lambda: imp_of(out)):
        with pytest.raises(TrainingError, match="another process is writing the run in"):
            start()
    assert list(out.iterdir()) == []
    (out / ".topo-abc.pt").write_bytes(b"half")
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    topo.train("mlp:64-10", "digits", epochs=1, out=out)
    assert not (out / ".topo-abc.pt").exists() and (out / "summary.json").exists()
    topo.train("mlp:64-10", "digits", epochs=1, out=out, resume=True)  # the lock was given back


def imp_of(out):
    return topo.imp("mlp:64-10", "digits", density=0.8, epochs=1, out=out)


# -- what goes wrong


def test_a_loss_that_diverges_ends_with_a_line_and_a_checkpoint(tmp_path):
    class Diverging(Interrupting):
        def forward(self, x):
            self.calls += self.training
            return self.fc2(torch.relu(self.fc1(x.flatten(1)))) * (torch.nan if self.calls > 30 else 1.0)

    with pytest.raises(TrainingError) as caught:
        topo.train(Diverging(), "digits", epochs=4, out=tmp_path / "run")
    said = str(caught.value)
    assert "the loss is not a finite number any more in epoch 2" in said and "a smaller lr" in said
    assert said.endswith("checkpoint.pt' holds epoch 1")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 1 and all(value.isfinite().all() for value in state["model"].values())
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


def test_out_of_memory_ends_with_a_line_and_a_checkpoint(tmp_path):
    class Hungry(Interrupting):
        def forward(self, x):
            self.calls += self.training
            if self.calls > 30:
                torch.empty(1 << 55, dtype=torch.uint8)
            return super().forward(x)

    with pytest.raises(TrainingError) as caught:
        topo.train(Hungry(), "digits", epochs=4, out=tmp_path / "run")
    said = str(caught.value)
    assert said.startswith("out of memory on cpu in epoch") and "with batches of 64" in said and "\n" not in said
    assert "checkpoint.pt' holds epoch" in said
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["epoch"] >= 0
    with pytest.raises(TrainingError, match="no run folder was given, so no checkpoint is left"):
        topo.train(Hungry(), "digits", epochs=4)


def test_what_cannot_be_trained(tmp_path):
    for model, options, said in (
        ("resnet20", {}, r"does not take the 1x8x8 images of 'digits'"),
        ("mlp:64-9", {}, r"gives \(9,\) for an image; 'digits' has 10 classes"),
        ("mlp:64-10", {"device": "gpu"}, "'gpu' is not a device"),
        ("mlp:64-10", {"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ("mlp:64-10", {"masks": {"fc9.weight": np.eye(3)}}, "mask 'fc9.weight' is not a parameter"),
        ("mlp:64-10", {"epochs": 0}, "epochs = 0; it should be a whole number from 1"),
        ("mlp:64-10", {"resume": True}, "nothing to resume without a run folder"),
        ("nonsense", {}, "no built-in model is called 'nonsense'"),
    ):
        with pytest.raises(TopoError, match=said):
            topo.train(model, "digits", **options)


def test_progress_and_the_function_named_train():
    seen = []
    topo.train("mlp:64-10", "digits", epochs=2, progress=lambda *said: seen.append(said))
    assert seen[-1][:2] == (46, 46)
    assert "epoch 2 of 2, loss" in seen[-1][2] and "images/s" in seen[-1][2]
    assert callable(topo.train) and importlib.import_module("topo.train").train is topo.train


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    topo.train("mlp:64-10", "digits", epochs=1, out=tmp_path / "run")
    installed = importlib.util.find_spec("tensorboard") is not None
    assert bool(list((tmp_path / "run").glob("tensorboard/events*"))) == installed


def test_command_line_errors(capsys, tmp_path):
    from topo.cli import main

    base = ["train", "dense", "--data", "digits", "-o", str(tmp_path / "run"), "--quiet"]
    assert main(base) == 2 and "--model" in capsys.readouterr().err
    assert main([*base, "--model", "mlp:64-10", "-O", "lr=high"]) == 1
    assert "lr = 'high'" in capsys.readouterr().err
    assert main([*base, "--model", "mlp:64-10", "--recipe", "none"]) == 1
    assert main([*base, "--model", "mlp:64-10", "--epochs", "1", "-O", "optimizer=adam", "-O", "nesterov=false"]) == 0
    assert "final test accuracy" in capsys.readouterr().out
    for what in ("recipes", "data"):
        assert main(["list", what]) == 0
    assert "npb" in (said := capsys.readouterr().out) and "tiny_imagenet" in said


@pytest.mark.small
def test_living_weights_leave_no_relu_without_a_positive_one() -> None:
    """Every output of at most 16 kept weights has its largest above 0; magnitudes, wide units are as in sparse_he."""
    layers = {
        "0": nn.Linear(40, 30), "1": nn.Conv2d(4, 8, 3, groups=2), "2": nn.ConvTranspose2d(6, 8, 3, groups=2),
    }  # fmt: skip
    masks = {}
    for name, layer in layers.items():
        kept = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        masks[f"{name}.weight"] = kept
    drawn = {}
    for kind in ("sparse_he", "living"):
        model = nn.Sequential(*layers.values())
        initialise(model, kind, masks, torch.Generator().manual_seed(0))
        drawn[kind] = [layer.weight.detach().clone() for layer in model]
    for old, new, layer, kept in zip(drawn["sparse_he"], drawn["living"], layers.values(), masks.values()):
        assert torch.equal(old.abs(), new.abs())
        rows, held = (by_output(w, layer) for w in (new, kept))
        small = (held.sum(dim=1) > 0) & (held.sum(dim=1) <= 16)
        assert small.any() and (rows.max(dim=1).values[small] == rows.abs().max(dim=1).values[small]).all()
        wide = held.sum(dim=1) > 16
        assert torch.equal(rows[wide], by_output(old, layer)[wide])


@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_orthogonal_weights_are_partial_isometries_inside_their_masks(density: float) -> None:
    """Singular values sqrt(2), as many as a largest matching (by networkx) has pairs, and 0; the mask holds all."""
    layers = {
        "0": nn.Linear(40, 30), "1": nn.Linear(20, 50), "2": nn.Conv2d(6, 8, 3, groups=2),
        "3": nn.ConvTranspose2d(6, 8, 3, groups=2),
    }  # fmt: skip
    model = nn.Sequential(*layers.values())
    draws = torch.Generator().manual_seed(1)
    masks = {f"{n}.weight": torch.rand(x.weight.shape, generator=draws) < density for n, x in layers.items()}
    masks["1.weight"] = torch.block_diag(torch.ones(25, 10), torch.ones(25, 10)).bool()  # of two blocks
    initialise(model, "orthogonal", masks, torch.Generator().manual_seed(0))
    for (name, kept), layer in zip(masks.items(), layers.values()):
        assert not layer.weight[~kept].any() and not layer.bias.any()
        groups = getattr(layer, "groups", 1)
        for rows, held in zip(by_output(layer.weight, layer).chunk(groups), by_output(kept, layer).chunk(groups)):
            matching = nx.bipartite.maximum_matching(edges := _bipartite(held), [n for n in edges if n < len(held)])
            values = torch.linalg.svdvals(rows.detach().double())
            wanted = torch.zeros(len(values), dtype=torch.float64)
            wanted[: len(matching) // 2] = 2**0.5
            assert torch.allclose(values, wanted, atol=1e-6), name
            assert (rows != 0).any(1).equal(held.any(1))
    blocks = layers["1"].weight.detach()
    assert ((blocks != 0).sum(1) > 1).float().mean() > 0.5  # spread, where the mask lets it
    again = nn.Linear(40, 30)
    initialise(again, "orthogonal", {"weight": masks["0.weight"]}, torch.Generator().manual_seed(0))
    assert torch.equal(again.weight, layers["0"].weight)


def _bipartite(kept: torch.Tensor) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(sum(kept.shape)))
    graph.add_edges_from((int(i), len(kept) + int(j)) for i, j in kept.nonzero())
    return graph


def by_output(weight: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Weights of each output unit, in a row, the slow way."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return weight.flatten(1)
    each = weight.shape[0] // layer.groups
    rows = [weight[g * each : (g + 1) * each, o] for g in range(layer.groups) for o in range(weight.shape[1])]
    return torch.stack([row.flatten() for row in rows])
