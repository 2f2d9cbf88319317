"""What a run would do on a GPU, on a machine without one: types, devices and the scaler, on a pretended device."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map

import topo
from topo.errors import TrainingError
from topo.pruners.network import with_doubles
from topo.train import Recipe
from topo.train.fit import Choices, widest
from topo.train.ranks import Ranks, _device
from topo.train.ranks import ranks as joined

MPS = torch.device("mps")
# Operations that take tensors of two devices; vmap makes the statistics of batch norm below what is watched here.
_FREE = (
    "native_batch_norm",
    "native_batch_norm_backward",
    "copy_",
    "_to_copy",
    "index",
    "detach",
    "_local_scalar_dense",
    "set_",
    "set_data",
)


def data():
    draw = np.random.default_rng(0)
    images = draw.random((24, 1, 2, 3)).astype(np.float32)
    return topo.data.Dataset("held", images, np.arange(24) % 3, images, np.arange(24) % 3, ("a", "b", "c"))


class Pretended(TorchDispatchMode):
    """Tensors that were sent to "mps" stay here and are remembered by their memory. As on an Apple GPU, none of them
    may hold doubles, and none may be reckoned with one that was not sent."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, Tensor] = {}
        self.count = 0

    def has(self, tensor: Tensor) -> bool:
        return tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in self.there

    def put(self, tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        if tensor.numel():
            self.there[tensor.untyped_storage().data_ptr()] = tensor  # held, so that the memory is not used anew
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = [tensor for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor) and tensor.numel()]
        if any(self.has(tensor) for tensor in given):
            self.count += 1
            name = func.overloadpacket.__name__
            if any(not self.has(tensor) and tensor.dim() for tensor in given) and name not in _FREE:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found mps and cpu")
            for tensor in tree_iter(made):
                if isinstance(tensor, Tensor):
                    self.put(tensor)
        return made


class Sends(TorchFunctionMode):
    """What is asked for on "mps" is made here and remembered; what comes back to the CPU is a copy."""

    def __init__(self, place: Pretended) -> None:
        super().__init__()
        self.place = place

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in ("device", "_parse_to"):
            return func(*args, **kwargs)
        asked = [torch.device(each).type for each in tree_iter((args, kwargs)) if _is_device(each)]
        args, kwargs = tree_map(lambda each: "cpu" if _is_device(each) else each, (args, kwargs))
        if name in ("cpu", "tolist", "numpy") or "cpu" in asked:
            args = (_copied(args[0]), *args[1:]) if args and isinstance(args[0], Tensor) else args
        made = func(*args, **kwargs)
        if "mps" not in asked or not isinstance(made, Tensor):
            return made
        return self.place.put(made if self.place.has(made) else _copied(made) if name == "to" else made)


def _is_device(value) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value in ("mps", "cpu"))


def _copied(tensor: Tensor) -> Tensor:
    with _disable_current_modes():
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)


@pytest.fixture
def mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    place = Pretended()
    with place, Sends(place):
        yield place


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


MASKS = {"1.weight": np.eye(8, 6) > 0, "4.weight": np.eye(3, 8) > 0}
RECIPE = {"epochs": 2, "batch": 8, "lr": 0.1, "padding": 1, "flip": True, "warmup": 0}
RUNS = {
    "train": lambda more: topo.train(net(), data(), masks=MASKS, recipe=RECIPE | more, device="mps"),
    "train_many": lambda more: topo.train_many(net(), [MASKS, MASKS], data(), recipe=RECIPE | more, device="mps")[0],
}


@pytest.mark.parametrize("door", RUNS)
def test_no_doubles_and_no_mixture_of_devices_on_an_apple_gpu(door, mps):
    for more in ({}, {"clip": 0.5, "accumulate": 2}, {"optimizer": "adamw", "ema": 0.9}, {"sparse": "rigl"}):
        before = mps.count
        run = RUNS[door](more)
        assert mps.count > before + 100 and run.device == "mps", "the run was not on the device"
        alone = [note for note in run.notes if "one by one" in note]
        assert len(alone) == (door == "train_many" and bool({"ema", "sparse"} & set(more))), alone


def test_scores_are_taken_on_the_cpu_where_a_gpu_has_no_doubles(monkeypatch):
    for place, moved in (("mps", True), ("cuda", False), ("cpu", False)):
        model = net()
        monkeypatch.setattr(
            model, "parameters", lambda place=place: iter([SimpleNamespace(device=torch.device(place))])
        )
        asked: list[bool] = []
        monkeypatch.setattr(model, "cpu", lambda asked=asked: asked.append(True))
        assert with_doubles(model) is model and bool(asked) == moved


def test_what_the_pretended_gpu_refuses(mps):
    sent = torch.ones(3).to(MPS)
    with pytest.raises(TypeError, match="float64"):
        sent.double()
    with pytest.raises(RuntimeError, match="same device"):
        sent + torch.ones(3)
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64, device=MPS)
    assert (sent.cpu() + torch.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("bf16", [True, False])
def test_what_auto_comes_to(bf16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert [str(_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    with pytest.raises(TrainingError, match="torch sees 2 GPUs"):
        _device("cuda:2")
    images, words = nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Sequential(nn.Linear(1, 1))
    gpu, recipe = Ranks(0, 1, torch.device("cuda", 0)), Recipe(epochs=1)
    chosen = Choices.of(recipe, images, gpu, 10**6)
    assert chosen == Choices(torch.bfloat16 if bf16 else None, bf16, "default")
    assert Choices.of(recipe, words, gpu, 1) == Choices(torch.bfloat16 if bf16 else None, False, "off")
    for kind in ("cpu", "mps"):
        assert Choices.of(recipe, images, Ranks(0, 1, torch.device(kind)), 10**6) == Choices(None, False, "off")
    assert [widest(torch.device(kind)) for kind in ("cuda", "cpu", "mps")] == [torch.float64] * 2 + [torch.float32]


def test_a_device_that_is_not_there_is_told():
    if not torch.backends.mps.is_available():
        with pytest.raises(TrainingError, match="'mps' is not there"), joined("mps"):
            pass
    for name in ("meta", "xla", "nonsense", "cuda:99"):
        with pytest.raises(TrainingError, match=r"is not a device|is not there"), joined(name):
            pass


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16", "auto"])
def test_only_halves_are_scaled(amp, monkeypatch):
    made = []

    class Scaler(torch.amp.GradScaler):
        def __init__(self, device, **how):
            made.append((device, how["enabled"]))
            super().__init__(device, **how)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    topo.train(net(), data(), recipe=RECIPE | {"amp": amp, "epochs": 1}, device="cpu")
    assert made == [("cpu", amp == "fp16")]
