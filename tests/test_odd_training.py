"""Odd models, batches, recipes and masks: each works, or ends with one line; never with an error of torch or numpy."""

from __future__ import annotations

import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as Data

import topo
from topo.data import Dataset
from topo.errors import TopoError

RECIPE = {"epochs": 1, "batch": 8, "lr": 0.05, "padding": 0, "flip": False, "schedule": "constant"}


def images(count=24, shape=(1, 4, 4), classes=3):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % classes
    return Dataset("odd", x, labels, 255 - x[:6], labels[:6], tuple("abcdefgh"[:classes]))


class Says(nn.Module):
    """A linear layer whose answer is changed by a function."""

    def __init__(self, change, features=3, **how):
        super().__init__()
        self.fc, self.change = nn.Linear(16, features, **how), change

    def forward(self, x):
        return self.change(self.fc(x.flatten(1)))


def raising(error):
    def change(_):
        raise error

    return change


def plain(*parts):
    return nn.Sequential(nn.Flatten(), *(parts or (nn.Linear(16, 3),)))


def frozen():
    return plain().requires_grad_(False)


def only_some(model, word):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(word in name)
    return model


def holding(value):
    model = plain()
    with torch.no_grad():
        model[1].weight[0, 0] = value
    return model


def shared():
    layer = nn.Linear(16, 16)
    return plain(layer, nn.ReLU(), layer, nn.Linear(16, 3))


class Wordless(Exception):
    """An error whose own words raise."""

    def __str__(self):
        raise RuntimeError("no words")


class Uninitialised(nn.Module):
    """Its author forgot super().__init__()."""

    def __init__(self):
        pass


class Overridden(Says):
    """A method of torch's own does something else."""

    def __init__(self, **methods):
        super().__init__(lambda scores: scores)
        for name, method in methods.items():
            object.__setattr__(self, name, method)


Answer = namedtuple("Answer", "scores more")


def raising_anything(*given, **how):
    raise KeyError("odd\nlines")


def of_class(**members):
    """A linear layer of a class of its own."""
    return type("Own", (Says,), members)(lambda scores: scores)


def without_words(self, name):
    if name in self.__dict__.get("_modules", ()):
        return self._modules[name]
    raise KeyError(name)


def growing(self, x):
    self.register_parameter(f"p{len(list(self.parameters()))}", nn.Parameter(torch.zeros(2, 2)))
    return self.fc(x.flatten(1))


def hooked(register):
    register(model := plain())
    return model


def late(error):
    calls = []

    def change(scores):
        calls.append(0)
        if len(calls) > 3:
            raise error
        return scores

    return Says(change)


def flaky():
    calls = []

    def change(scores):
        calls.append(0)
        if len(calls) > 4:
            raise ZeroDivisionError("division by zero in\nmany lines")
        return scores

    return Says(change)


def with_weight(make):
    model = plain()
    model[1].weight = nn.Parameter(make(), requires_grad=make().is_floating_point())
    return model


def in_inference_mode():
    with torch.inference_mode():
        return plain()


def holding_itself():
    model = plain()
    model[1]._modules["up"] = model
    return model


def with_attribute(value):
    model = plain()
    model.odd = value
    return model


class Own(torch.Tensor):
    pass


def channels_last():
    parts = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(2, 3)
    return nn.Sequential(*parts).to(memory_format=torch.channels_last)


MODELS = {
    "made in inference mode": in_inference_mode,
    "a weight of whole numbers": lambda: with_weight(lambda: torch.ones(3, 16, dtype=torch.int64)),
    "an expanded weight": lambda: with_weight(lambda: torch.randn(1, 16).expand(3, 16)),
    "a weight that lies otherwise": lambda: with_weight(lambda: torch.randn(16, 3).t()),
    "a sparse weight": lambda: with_weight(lambda: torch.randn(3, 16).to_sparse()),
    "a weight of a class of its own": lambda: with_weight(lambda: torch.randn(3, 16).as_subclass(Own)),
    "a weight in eight bits": lambda: with_weight(lambda: torch.randn(3, 16).to(torch.float8_e4m3fn)),
    "channels last": channels_last,
    "a layer without units": lambda: plain(nn.Linear(16, 0), nn.Linear(0, 3)),
    "holds itself": holding_itself,
    "holds a lock": lambda: with_attribute(threading.Lock()),
    "holds a generator": lambda: with_attribute(number for number in range(3)),
    "wrapped": lambda: nn.DataParallel(plain()),
    "compiled": lambda: torch.compile(plain(), backend="eager"),
    "a class": lambda: nn.Linear,
    "a function": lambda: plain,
    "lazy": lambda: plain(nn.LazyLinear(3)),
    "lazy convolution": lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)),
    "no parameter": lambda: plain(nn.Identity()),
    "no layer": lambda: nn.Sequential(),
    "all frozen": frozen,
    "weights frozen": lambda: only_some(plain(), "bias"),
    "biases frozen": lambda: only_some(plain(), "weight"),
    "on meta": lambda: plain().to("meta"),
    "double": lambda: plain().double(),
    "bfloat16": lambda: plain().bfloat16(),
    "float16": lambda: plain().half(),
    "complex": lambda: plain(nn.Linear(16, 3, dtype=torch.complex64)),
    "nan": lambda: holding(torch.nan),
    "infinite": lambda: holding(torch.inf),
    "wrong width": lambda: plain(nn.Linear(17, 3)),
    "too few classes": lambda: plain(nn.Linear(16, 2)),
    "too many classes": lambda: plain(nn.Linear(16, 4)),
    "three channels": lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 3)),
    "kernel too large": lambda: nn.Sequential(nn.Conv2d(1, 2, 9), nn.Flatten(), nn.Linear(2, 3)),
    "batch norm": lambda: plain(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    "batch norm without statistics": lambda: plain(nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3)),
    "instance norm": lambda: nn.Sequential(nn.Conv2d(1, 2, 4), nn.InstanceNorm2d(2), nn.Flatten(), nn.Linear(2, 3)),
    "gives none": lambda: Says(lambda scores: None),
    "gives a number": lambda: Says(lambda scores: 1.0),
    "gives a scalar": lambda: Says(lambda scores: scores.sum()),
    "gives whole numbers": lambda: Says(lambda scores: scores.argmax(1)),
    "gives no gradient": lambda: Says(lambda scores: scores.detach()),
    "gives a tuple": lambda: Says(lambda scores: (scores, None)),
    "gives a dict": lambda: Says(lambda scores: {"a": scores}),
    "gives an empty tuple": lambda: Says(lambda scores: ()),
    "gives numpy": lambda: Says(lambda scores: scores.detach().numpy()),
    "gives one row less": lambda: Says(lambda scores: scores[1:]),
    "gives nan": lambda: Says(lambda scores: scores * torch.nan),
    "gives infinity": lambda: Says(lambda scores: scores * torch.inf),
    "raises a value error": lambda: Says(raising(ValueError("odd\nlines"))),
    "raises a key error": lambda: Says(raising(KeyError("odd"))),
    "raises an assertion": lambda: Says(raising(AssertionError())),
    "raises a stop": lambda: Says(raising(StopIteration())),
    "raises not implemented": lambda: Says(raising(NotImplementedError())),
    "raises later": flaky,
    "changes its input": lambda: Says(lambda scores: scores.mul_(2)),
    "shares a layer": shared,
    "normed weights": lambda: plain(nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))),
    "old normed weights": lambda: plain(nn.utils.weight_norm(nn.Linear(16, 3))),
    "pruned by torch": lambda: plain(nn.utils.prune.l1_unstructured(nn.Linear(16, 3), "weight", 0.5)),
    "sparse gradients": lambda: nn.Sequential(nn.Flatten(), Says(lambda s: s), nn.Identity()),
    "scripted": lambda: torch.jit.script(plain()),
    "a recurrent layer": lambda: plain(nn.Unflatten(1, (4, 4)), nn.RNN(4, 3)),
    "zeros": lambda: Says(lambda scores: scores * 0),
    "raises without words": lambda: Says(raising(Wordless())),
    "raises a memory error later": lambda: late(MemoryError()),
    "raises without words later": lambda: late(Wordless()),
    "never initialised": Uninitialised,
    "lists no parameter": lambda: Overridden(named_parameters=raising_anything),
    "has no state": lambda: Overridden(state_dict=raising_anything),
    "has another state": lambda: Overridden(state_dict=lambda **how: {"fc.weight": 3}),
    "does not change its mode": lambda: Overridden(train=raising_anything),
    "gives a sparse tensor": lambda: Says(lambda scores: scores.to_sparse()),
    "gives a named tuple": lambda: Says(lambda scores: Answer(scores, 1)),
    "gives its own loss, a number": lambda: Says(lambda scores: {"loss": 1.0, "logits": scores}),
    "a hook on its state": lambda: hooked(lambda model: model.register_state_dict_post_hook(raising_anything)),
    "a hook on a gradient": lambda: hooked(lambda model: model[1].weight.register_hook(raising_anything)),
    "a hook on its input": lambda: hooked(
        lambda model: model.register_forward_pre_hook(lambda _, args: args[0][:, :, :2])
    ),
    "two devices": lambda: plain(nn.Linear(16, 8), nn.Linear(8, 3).to("meta")),
    "exported": lambda: torch.export.export(plain(), (torch.zeros(2, 1, 4, 4),)).module(),
    "raises a memory error": lambda: Says(raising(MemoryError("odd\nlines"))),
    "no memory on a device": lambda: Says(raising(torch.OutOfMemoryError("odd\nlines"))),
    "cannot be shown": lambda: of_class(__repr__=raising_anything),
    "raises where it is asked for what it has not": lambda: of_class(__getattr__=without_words),
    "gives out no parameter": lambda: of_class(parameters=lambda self, recurse=True: iter(())),
    "takes no state": lambda: of_class(load_state_dict=raising_anything),
    "grows": lambda: of_class(forward=growing),
    "each row by itself": lambda: of_class(forward=lambda self, x: torch.vmap(self.fc)(x.flatten(1))),
}  # fmt: skip
NAMED = ("resnet20", "mlp:16-x", "mlp:16-0", "", "no.such:thing", "nothing.py:make", 3, None)
RECIPES = (
    {"warmup": 2.0}, {"warmup": 1.0}, {"label_smoothing": 1.0}, {"label_smoothing": 1}, {"momentum": 1.0}, {"ema": 1.0},
    {"epochs": 0}, {"epochs": True}, {"epochs": 1.5}, {"batch": 0}, {"batch": 10**9}, {"lr": float("inf")},
    {"weight_decay": float("nan")}, {"accumulate": 0}, {"clip": -1.0},
    {"padding": -1}, {"padding": 4.5}, {"val": 1.0}, {"val": 0.99}, {"best_on": "val"},
    {"best_on": "train"}, {"milestones": [-1.0]}, {"milestones": "3"}, {"milestones": [2, 1]}, {"factor": 0},
    {"optimizer": "lion"}, {"optimizer": "adam", "nesterov": True}, {"schedule": "one_cycle", "warmup": 0.5},
    {"task": 3}, {"task": "masked"}, {"length": True}, {"length": 9}, {"mask_share": "x"}, {"ghost_skip": float("nan")},
    {"ghost_activation": "relu"}, {"smoothing": 3}, {"milestones": [float("nan")]}, {"milestones": {}}, {"clip": "1"},
    {"density": 0.5}, {"alpha": 2}, {"sparse": "rigl"}, {"sparse": "cht", "density": 1e-9, "mask_epochs": [9]},
    {"update_every": 0}, {"optimizer": None}, {"schedule": b"x"}, {"name": "a\nb", "lr": -1}, {"": 1}, {"lr": True},
    {"batch": "8"}, {"deterministic": 1}, {"source": None}, {"init": ["a"]}, {"best_on": None}, {"ema": "x"},
    {"init": "zeros"}, {"amp": "fp8"}, {"nothing": 1}, {"name": 3}, {"epochs": None}, {"lr": "0.1"},
)  # fmt: skip
FINE = (
    {"batch": 1}, {"batch": 23}, {"batch": 24}, {"batch": 100}, {"accumulate": 50}, {"clip": 1e-30}, {"padding": 9},
    {"ema": 0.999999}, {"warmup": 0.999}, {"label_smoothing": 0.999}, {"amp": "fp16"}, {"amp": "bf16"}, {"val": 0.34},
    {"schedule": "one_cycle"}, {"schedule": "cosine"}, {"channels_last": "on"}, {"placement": "stream"},
    {"init": "sparse_he"}, {"init": "rescaled"}, {"init": "open_lth"}, {"init": "gradinit"}, {"init": "orthogonal"},
    {"init": "signed"}, {"ghost_activation": "mish"}, {"ghost_skip": 2.0},
    {"smoothing": "others", "label_smoothing": 0.9},
    {"schedule": "linear"}, {"milestones": [5.0], "schedule": "multistep"},
)  # fmt: skip


def one_line(action, *args, **how):
    """What it gives, or None after an error that is one line and ours."""
    try:
        return action(*args, **how)
    except TopoError as error:
        said = str(error)
        assert said and "\n" not in said and len(said) < 700, said
        assert not said.startswith(("Error", "Expected")), said
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_odd_models(name):
    torch.manual_seed(0)
    run = one_line(topo.train, MODELS[name](), images(), recipe=RECIPE)
    assert run is None or np.isfinite(run.final_loss) or "gives" in name
    found = one_line(topo.imp, MODELS[name](), images(), density=0.5, fraction=0.5, recipe=RECIPE)
    assert found is None or found.masks.density == pytest.approx(0.5, abs=0.1)
    batch = [(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)]
    for method, more in (
        ("snip", {"batches": batch}),
        ("magnitude", {}),
        ("wanda", {"batches": batch}),
        ("synflow", {"rounds": 2}),
        ("erk", {}),
    ):
        masks = one_line(topo.generate, method, MODELS[name](), density=0.5, input_shape=(1, 4, 4), **more)
        assert masks is None or masks.density == pytest.approx(0.5, abs=0.1)
        if (
            masks is not None
            and name not in ("on meta", "two devices")
            and one_line(topo.apply_masks, model := MODELS[name](), masks)
        ):
            assert topo.verify_masks(model, masks) == ()
            assert topo.verify_masks(topo.strip_masks(model), masks) == ()


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "wanda", "sparsegpt"])
def test_memory_that_ends_is_told_and_models_without_parameters_are_named(method):
    batch = [(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)]
    how = {"density": 0.5, "batches": batch, "input_shape": (1, 4, 4)}
    if method == "synflow":
        del how["batches"]
    for name in ("raises a memory error", "no memory on a device"):
        with pytest.raises(TopoError, match=r"memory ended|odd"):
            topo.generate(method, MODELS[name](), **how)
    for name in ("gives out no parameter", "each row by itself", "cannot be shown"):
        masks = one_line(topo.generate, method, MODELS[name](), **how)
        assert masks is None or masks.density == pytest.approx(0.5, abs=0.1)


SIDE_BY_SIDE = (
    "raises without words later", "raises a memory error later", "never initialised", "lists no parameter",
    "holds a lock", "gives a named tuple", "exported", "raises later",
)  # fmt: skip


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_odd_models_side_by_side(name):
    runs = one_line(topo.train_many, MODELS[name](), [None, None], images(), recipe=RECIPE)
    assert runs is None or len(runs) == 2


X, Y = torch.linspace(-1, 1, 128).view(8, 16), torch.arange(8) % 3


class Stops:
    """Batches that end in an error."""

    def __init__(self, error, after=1):
        self.error, self.after = error, after

    def __len__(self):
        return 3

    def __iter__(self):
        for number in range(3):
            if number >= self.after:
                raise self.error
            yield X, Y


class Broken(Data):
    def __len__(self):
        return 8

    def __getitem__(self, place):
        raise ValueError("this item\nis odd")


BATCHES = {
    "fewer targets": [(X, Y[:5])], "values, too wide": [(X, torch.randn(8, 4))],
    "one hot": [(X, nn.functional.one_hot(Y, 3))],
    "one hot in floats": [(X, nn.functional.one_hot(Y, 3).float())], "below 0": [(X, Y - 5)],
    "nothing judged": [(X, torch.full((8,), -100))], "too large": [(X, Y + 7)], "true and false": [(X, Y > 1)],
    "words as targets": [(X, ["a"] * 8)], "lists": [(X, Y.tolist())], "arrays": [(X.numpy(), Y.numpy())],
    "bytes as targets": [(X, Y.to(torch.int8))], "unsigned targets": [(X, Y.to(torch.uint16))],
    "a column": [(X, Y[:, None])],
    "one target": [(X, torch.tensor(1))], "no targets": [(X, None)], "complex targets": [(X, Y.to(torch.complex64))],
    "nan as targets": [(X, torch.full((8, 3), torch.nan))], "bytes": [(X.to(torch.uint8), Y)],
    "whole numbers": [(X.long(), Y)],
    "complex": [(X.to(torch.complex64), Y)], "half": [(X.half(), Y)], "double": [(X.double(), Y)],
    "nan": [(X * torch.nan, Y)],
    "infinite": [(X * torch.inf, Y)], "empty": [(X[:0], Y[:0])], "a number": [(torch.tensor(1.0), torch.tensor(1))],
    "words": [(["a"] * 8, Y)], "none": [(None, Y)], "sparse": [(X.to_sparse(), Y)], "on meta": [(X.to("meta"), Y)],
    "too narrow": [(X[:, :7], Y)], "three": [(X, Y, Y)], "one": [(X,)], "no labels": [{"input": X}],
    "labels none": [{"input": X, "labels": None}], "another argument": [{"foo": X, "labels": Y}],
    "dict": [{"input": X, "labels": Y}],
    "a set": [{1, 2}], "text": ["ab", "cd"], "numbers": [1, 2], "a byte string": b"ab", "an array": np.zeros((2, 2)),
    "two inputs": [((X, X), Y)], "of two widths": [(X, Y), (X[:, :7], Y)], "then none": [(X, Y), None],
    "one row": [(X[:1], Y[:1])],
    "ends in an index error": Stops(IndexError("odd")), "ends in a stop": Stops(StopIteration()),
    "begins with an error": Stops(RuntimeError("odd\nlines"), 0), "ends without words": Stops(Wordless()),
    "a broken data set": DataLoader(Broken(), 4),
    "an odd collation": DataLoader(TensorDataset(X, Y), 4, collate_fn=raising_anything),
    "all dropped": DataLoader(TensorDataset(X, Y), 16, drop_last=True), "one by one": TensorDataset(X, Y),
    "objects": [(np.array([object()] * 8), Y)], "read only": [(np.broadcast_to(np.float32(1), (8, 16)), Y)],
    "with a gradient": [(X.clone().requires_grad_(), Y)], "nested": [(torch.nested.nested_tensor([X[0], X[1]]), Y[:2])],
    "an empty test part": {"train": [(X, Y)], "test": []}, "an odd test part": {"train": [(X, Y)],
    "test": [(X[:, :3], Y)]},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BATCHES)
def test_odd_batches(name):
    batches = BATCHES[name]
    run = one_line(topo.train, nn.Linear(16, 3), batches, recipe=RECIPE)
    assert run is None or np.isfinite(run.history[-1]["train_loss"])
    one_line(topo.imp, nn.Linear(16, 3), batches, density=0.5, fraction=0.5, recipe=RECIPE)
    batches = batches["train"] if isinstance(batches, dict) else batches
    for method in ("snip", "wanda"):
        model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        masks = one_line(topo.generate, method, model, density=0.5, batches=batches)
        assert masks is None or masks.kept == round(0.5 * masks.size)


@pytest.mark.parametrize("name", NAMED)
def test_odd_names(name):
    assert one_line(topo.train, name, images(), recipe=RECIPE) is None
    assert one_line(topo.imp, name, images(), density=0.5, recipe=RECIPE) is None


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_odd_recipes(number):
    recipe = RECIPE | RECIPES[number]
    assert one_line(topo.train, plain(), images(), recipe=recipe) is None
    assert one_line(topo.imp, plain(), images(), density=0.5, fraction=0.5, recipe=recipe) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(FINE)))
def test_recipes_at_the_edge(number):
    model = plain(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    run = topo.train(model, images(), recipe=RECIPE | FINE[number], masks={"1.weight": np.ones((8, 16))})
    assert np.isfinite(run.final_loss)


WRITABLE = {
    "made in inference mode": "made in inference mode",
    "an expanded weight": "is an expanded view, whose elements share memory",
    "a sparse weight": "is stored as torch.sparse_coo",
}


@pytest.mark.parametrize("name", WRITABLE)
def test_weights_into_which_nothing_can_be_written(name):
    masks = {"1.weight": np.eye(3, 16)}
    with pytest.raises(TopoError, match=rf"^'1.weight' .*{WRITABLE[name]}"):
        topo.apply_masks(MODELS[name](), masks)


def test_whole_numbers_stay_whole_under_a_mask():
    layer = nn.Linear(4, 3)
    del layer.weight
    layer.register_buffer("weight", torch.full((3, 4), 7, dtype=torch.int8))
    topo.apply_masks(layer, {"weight": np.eye(3, 4)})
    assert layer.weight.dtype == torch.int8 and layer.weight.equal(7 * torch.eye(3, 4, dtype=torch.int8))


@pytest.mark.parametrize("method", ["magnitude", "erk", "snip"])
def test_weights_off_the_way_that_was_traced_are_told(method):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.never = nn.Linear(16, 3), nn.Linear(16, 5)

        def forward(self, x):
            return self.a(x.flatten(1))

    batch = [(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)]
    more = {"batches": batch} if method == "snip" else {}
    masks = topo.generate(method, Branching(), density=0.5, input_shape=(1, 4, 4), **more)
    said = "not masked, since no output depends on them on the way that was traced: 'never.weight'"
    assert said in masks.provenance["notes"] and "never.weight" not in masks
    assert not topo.generate(method, plain(), density=0.5, input_shape=(1, 4, 4), **more).provenance.get("notes")


def test_a_square_matrix_of_ones_own_is_laid_as_its_masks_have_on_record():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 16))

        def forward(self, x):
            return x.flatten(1) @ self.w

    masks = topo.generate("erk", Own(), density=0.4, input_shape=(1, 4, 4))
    model = topo.apply_masks(Own(), masks)
    assert not model.w.detach().numpy()[~masks["w"].T].any() and topo.verify_masks(model, masks) == ()
    with pytest.raises(TopoError, match=r"fits the parameter .* both output-first and input-first"):
        topo.apply_masks(Own(), {"w": masks["w"]})


def test_batches_of_one_under_batch_norm():
    said = "Expected more than 1 value per channel"
    with pytest.raises(TopoError, match=rf"^training stopped in epoch 1, step 1 of 24: ValueError: {said}"):
        topo.train(MODELS["batch norm"](), images(), recipe=RECIPE | {"batch": 1})


def test_odd_data_and_arguments():
    good = images()
    for data in (
        None,
        3,
        "",
        [],
        {},
        (),
        [None],
        {"train": None},
        nn.Linear(2, 2),
        np.zeros((4, 4)),
        torch.zeros(4, 4),
    ):
        assert one_line(topo.train, plain(), data, recipe=RECIPE) is None
        assert one_line(topo.imp, plain(), data, density=0.5, recipe=RECIPE) is None
    for more in (
        {"epochs": -1}, {"epochs": "3"}, {"device": "tpu"}, {"device": "mps"}, {"device": 3}, {"recipe": 3},
        {"recipe": None},
        {"recipe": {"epochs": {}}}, {"masks": {}}, {"masks": {"1.weight": np.zeros((3, 17))}}, {"masks": 3},
        {"masks": {"1.weight": "x"}}, {"masks": {"1.bias": np.ones(3)}}, {"masks": {"2.weight": np.ones((3, 16))}},
        {"rng": -1}, {"rng": "x"}, {"rng": None}, {"rng": 1.5}, {"threads": 0}, {"threads": -1}, {"loss": 3},
        {"output": "nothing"}, {"resume": True}, {"out": 3},
    ):  # fmt: skip
        assert one_line(topo.train, plain(), good, **({"recipe": RECIPE} | more)) is None, more
    for more in ({"density": 0}, {"density": "x"}, {"density": None}, {"fraction": "x"}, {"fraction": 0},
                 {"rewind_epoch": 1}, {"rewind_epoch": "x"}, {"layers": []}, {"layers": ["9.weight"]},

                 {"layers": ["1.bias"]}):  # fmt: skip
        assert one_line(topo.imp, plain(), good, **({"recipe": RECIPE, "density": 0.5} | more)) is None, more


def test_masks_laid_out_the_wrong_way_are_refused_whatever_their_shape():
    """The model decides, for all layers alike: a mask (in, out) fits a square layer by its shape alone."""
    model = plain(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    turned = {"1.weight": np.eye(16), "3.weight": np.ones((16, 3))}
    with pytest.raises(TopoError, match=r"mask '3.weight' has shape \(16, 3\) but the model's parameter has \(3, 16\).*"
                       r"input-first"):  # fmt: skip
        topo.apply_masks(model, turned)
    assert one_line(topo.train, model, images(), masks=turned, recipe=RECIPE) is None


def test_masks_that_mix_layouts_are_told_apart_by_name():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    a, b, c = (transformers.pytorch_utils.Conv1D(*shape) for shape in ((20, 8), (6, 20), (5, 6)))  # out, in
    model = nn.Sequential(a, nn.ReLU(), b, nn.Tanh(), c)
    masks = {"0.weight": np.ones((20, 8)), "2.weight": np.ones((20, 6)), "4.weight": np.ones((5, 6))}
    with pytest.raises(TopoError, match=r"mix two layouts: '0.weight', '4.weight' lie \(out, in\), '2.weight' lie "
                       r"\(in, out\); transpose"):  # fmt: skip
        topo.apply_masks(model, masks)
    for one in (
        {**masks, "2.weight": masks["2.weight"].T},
        {n: m if n == "2.weight" else m.T for n, m in masks.items()},
    ):
        topo.strip_masks(topo.apply_masks(model, one))
