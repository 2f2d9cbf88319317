"""Doors that run somebody else's model leave torch as it was, and tell what it raises in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.calibrated.pruning import prune as calibrated
from topo.errors import TopoError
from topo.pruners import prune
from topo.train.survival import irp

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
BATCHES = [(X[:12], Y[:12]), (X[12:], Y[12:])]
RECIPE = {"epochs": 1, "lr": 0.1, "padding": 0, "flip": False, "batch": 12}


def images() -> topo.data.Dataset:
    held = X.reshape(24, 1, 2, 3).sigmoid().numpy()
    return topo.data.Dataset("held", held, Y.numpy(), held, Y.numpy(), ("a", "b", "c"))


def _gradients_off() -> None:
    torch.set_grad_enabled(False)


def _random() -> None:
    torch.manual_seed(5)
    torch.rand(3)


CHANGES = {
    "gradients": _gradients_off,
    "default type": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("cpu:0"),
    "deterministic": lambda: torch.set_deterministic_debug_mode("warn"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "anomaly": lambda: torch.set_anomaly_enabled(True),
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "random numbers": _random,
}


class Careless(nn.Module):
    """Changes torch's settings at the end of a forward pass, in an odd place, and leaves them so; or raises."""

    def __init__(self, change=None, early: bool = False, raises: BaseException | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.change, self.early, self.raises = change, early, raises

    def forward(self, x):
        if self.raises is not None:
            raise self.raises
        if self.early and self.change:
            self.change()
        made = self.b(torch.relu(self.a(x.flatten(1))))
        if not self.early and self.change:
            self.change()
        return made


DOORS = {
    "trace": lambda net: topo.trace(net, (6,)),
    "maps": lambda net: topo.trace(net, (6,)).maps(),
    "shrink": lambda net: topo.shrink(net, {"a.weight": np.eye(8, 6) > 0}, input_shape=(6,)),
    "generate balance": lambda net: topo.generate("balance", net, density=0.5, input_shape=(6,)),
    "generate snip": lambda net: topo.generate("snip", net, density=0.5, batches=BATCHES),
    "prune magnitude": lambda net: prune("magnitude", net, density=0.5, input_shape=(6,)),
    "prune synflow": lambda net: prune("synflow", net, density=0.5, input_shape=(6,), rounds=2),
    "prune px": lambda net: prune("px", net, density=0.5, batches=BATCHES, rounds=1),
    "calibrated": lambda net: calibrated("wanda", net, [X], density=0.5),
    "train": lambda net: topo.train(net, (BATCHES, BATCHES), recipe={"epochs": 1, "lr": 0.1, "padding": 0}),
    "train images": lambda net: topo.train(net, images(), recipe=RECIPE),
    "train_many": lambda net: topo.train_many(net, [None, None], images(), recipe=RECIPE),
    "imp": lambda net: topo.imp(net, (BATCHES, BATCHES), density=0.8, recipe={"epochs": 1, "lr": 0.1, "padding": 0}),
    "irp": lambda net: irp(net, images(), density=0.8, rounds=1, recipe=RECIPE),
}
NO_GRADIENTS_NEEDED = {"trace", "maps", "shrink", "generate balance", "prune magnitude", "calibrated"}


def _state() -> dict[str, object]:
    """By public names, and apart from how topo reads them."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default type": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "device mode": torch.overrides._len_torch_function_stack(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomaly": torch.is_anomaly_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "attention": torch.backends.cuda.flash_sdp_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "random numbers": tuple(torch.get_rng_state().tolist()),
    }


@pytest.mark.parametrize("door", DOORS)
def test_doors_leave_torch_as_it_was(door):
    def every() -> None:
        for change in CHANGES.values():
            change()

    before = _state()
    for early in (False, True):
        try:
            DOORS[door](Careless(every, early))
        except TopoError as error:
            assert "\n" not in str(error)
            assert early and door not in NO_GRADIENTS_NEEDED, error
        assert _state() == before, (door, early)


@pytest.mark.parametrize("door", [door for door in DOORS if door not in NO_GRADIENTS_NEEDED])
def test_gradients_that_a_pass_leaves_off_are_told(door):
    off = DOORS[door](Careless(_gradients_off))
    said = off.notes if hasattr(off, "notes") else ()
    if isinstance(off, topo.MaskSet):
        said = off.provenance.get("notes", ())
    if door == "train_many":
        said = off[0].notes
    if door == "imp":
        said = off.levels[0].notes
    if door == "irp":
        said = off.rounds[0].notes
    assert any("turns gradients off and leaves them so" in note for note in said), said
    with pytest.raises(TopoError, match="the model's forward pass turns gradients off"):
        DOORS[door](Careless(_gradients_off, early=True))


def test_what_a_pass_leaves_changed_changes_no_result():
    """What topo computes after it is as if the setting had not been touched."""

    def made(change=None):
        pruned = prune("snip", Careless(change=change), density=0.5, batches=BATCHES)
        run = topo.train(Careless(change=change), (BATCHES, BATCHES), recipe={"epochs": 2, "lr": 0.1, "padding": 0})
        return pruned, run.model.a.weight

    pruned, weight = made()
    for name in ("gradients", "default type", "default device", "anomaly"):
        again = made(CHANGES[name])
        assert again[0] == pruned and torch.equal(again[1], weight) and again[1].dtype == torch.float32, name


@pytest.mark.parametrize(
    "door", [door for door in DOORS if door not in ("maps", "generate balance", "prune magnitude")]
)
def test_what_a_model_raises_is_one_line_at_every_door(door):
    """Memory that ends, too, which loops pass on to where it can be told."""
    before = _state()
    for error in (MemoryError("none\nleft"), torch.OutOfMemoryError("CUDA out of memory"), KeyError("x")):
        with pytest.raises(TopoError) as caught:
            DOORS[door](Careless(raises=error))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 900, caught.value
    assert _state() == before


def test_a_precision_that_torch_does_not_say_closes_no_door():
    """Where a user set the newer setting, torch refuses to read the older one."""
    held = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert len(topo.trace(Careless(), (6,)).layers) == 2
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = held
    change = Careless(lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"))
    topo.generate("magnitude", change, density=0.5, input_shape=(6,))
    assert torch.backends.cuda.matmul.fp32_precision == held
