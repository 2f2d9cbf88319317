"""Every method masks the same parameters of a model, and scores what is there: ties, NaN, types, outputs, batches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils import prune as torch_prune

import topo
from topo.cli import main
from topo.errors import MaskWarning, TopoError
from topo.masks import MaskSet
from topo.models.modules.holders import made_plain
from topo.pruners import prune

SHAPE = (1, 8, 8)


class Odd(nn.Module):
    """Stacked projections, a matrix of one's own, a weight that is used twice, an output head; 10 classes."""

    def __init__(self, dress=lambda layer: layer):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.own = nn.Parameter(torch.randn(8, 12) / 3)
        self.dressed = dress(nn.Linear(12, 12))
        self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12, bias=False)
        self.b.weight = self.a.weight
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        x = x.flatten(0, 1) if x.dim() == 4 else x
        x = x + self.attention(x, x, x)[0]
        x = torch.relu(self.dressed(torch.tanh(x.mean(1) @ self.own)))
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))))


SHAPES = {
    "attention.in_proj_weight": (24, 8),
    "attention.out_proj.weight": (8, 8),
    "own": (12, 8),
    "dressed.weight": (12, 12),
    "a.weight": (12, 12),
    "head.weight": (10, 12),
}
SIZE = sum(a * b for a, b in SHAPES.values())


def half_masked(layer):
    mask = np.random.default_rng(1).random((12, 12)) < 0.5
    return topo.apply_masks(nn.Sequential(layer), {"0.weight": mask})[0]


DRESSES = {
    "plain": lambda layer: layer,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": weight_norm,
    "old spectral norm": spectral_norm,
    "masked": half_masked,
    "pruned": lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5),
}


def odd(dress="plain"):
    torch.manual_seed(0)
    model = Odd(DRESSES[dress]).eval()
    model(torch.randn(2, *SHAPE)).sum().backward()  # hooks leave computed weights behind
    model.zero_grad()
    return model


def batches():
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((12, *SHAPE), dtype=np.float32), rng.integers(0, 10, 12)) for _ in range(2)]


METHODS = ("erk", "random", "uniform", "magnitude", "lamp", "snip", "grasp")


@pytest.mark.parametrize("dress", DRESSES)
def test_every_method_masks_the_same_parameters(dress):
    model = odd(dress)
    for method in METHODS:
        data = batches() if method in ("snip", "grasp") else None
        masks = topo.generate(method, model, density=0.3, input_shape=SHAPE, batches=data)
        assert masks.shapes == SHAPES and list(masks) == list(SHAPES), method
        assert masks.kept == round(0.3 * SIZE)
        assert masks.provenance["input_first"] == {"own": 1}
    erk = topo.generate("erk", model, density=0.3, input_shape=SHAPE)
    shared = prune("magnitude", model, density=0.3, input_shape=SHAPE, quota="erk")
    assert {n: shared.rows(n).kept() for n in shared} == {n: erk.rows(n).kept() for n in erk}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_masks_the_layers_that_are_named(method):
    data = batches() if method in ("snip", "grasp") else None
    masks = topo.generate(method, odd("masked"), density=0.5, input_shape=SHAPE, batches=data, layers="a*")
    assert set(masks) == {"attention.in_proj_weight", "attention.out_proj.weight", "a.weight"}


@pytest.mark.parametrize("dress", DRESSES)
def test_what_is_on_a_weight_counts_into_its_scores(dress):
    model, plain = odd(dress), odd(dress)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for name in SHAPES:
        made_plain(plain, name)
    for method in ("magnitude", "snip", "grasp"):
        how = {"batches": batches(), "input_shape": SHAPE, "density": 0.1}
        assert prune(method, model, **how) == prune(method, plain, **how)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dress", ["weight norm", "masked", "pruned"])
def test_imp_masks_the_same_parameters(dress):
    model = odd(dress)
    found = topo.imp(model, "digits", density=0.25, fraction=0.5, epochs=1, recipe={"padding": 0, "flip": False})
    assert found.masks.shapes == SHAPES and found.masks.kept == round(0.25 * SIZE)
    assert topo.verify_masks(model, found.masks) == ()
    before = {"masked": np.random.default_rng(1).random((12, 12)) < 0.5}.get(dress)
    assert before is None or not (found.masks["dressed.weight"] & ~before).any()  # what was pruned stays so
    other = topo.apply_masks(odd(), {"own": np.zeros((12, 8))})
    with pytest.raises(TopoError, match=r"the masks on the model keep 664 already"):
        topo.imp(other, "digits", density=0.9, epochs=1)


def test_layers_by_pattern_and_what_is_none():
    model = odd()
    masks = prune("magnitude", model, density=0.5, layers=["head.weight", "a.*"])
    assert list(masks) == ["a.weight", "head.weight"] and masks.provenance["layers"] == ["head.weight", "a.*"]
    for call in (
        lambda: prune("magnitude", model, density=0.5, layers="tail.*", input_shape=SHAPE),
        lambda: topo.generate("erk", model, density=0.5, layers=["tail.*"], input_shape=SHAPE),
        lambda: topo.imp(model, "digits", density=0.5, layers=["tail.*"]),
    ):
        with pytest.raises(TopoError, match=r"no layer is called 'tail.\*'; there are: .*head.weight"):
            call()
    with pytest.raises(TopoError, match=r"'dpai' takes no layers"):
        topo.generate("dpai", model, density=0.5, layers="a.*", input_shape=SHAPE)


@pytest.mark.parametrize("method", ["balance", "npb"])
def test_the_optimizer_masks_the_layers_that_are_named_among_the_others(method):
    net = topo.trace(topo.models.build("mlp:12-10-8-6"), (12,))
    masks = topo.generate(method, net, density=0.4, layers=["fc[12].weight"])
    assert list(masks) == ["fc1.weight", "fc2.weight"] and masks.kept == 80  # of 120 + 80, fc3's 48 beside them
    whole = topo.generate(method, net, budgets=None, density=0.4)
    assert list(whole) == list(net.names) and whole.kept == round(0.4 * 248)
    assert "not masked count as dense in the certificate: fc3.weight" in masks.provenance["certificate"]["notes"][-1]
    with pytest.raises(TopoError, match=r"no layer is called 'fc9'"):
        topo.generate(method, net, density=0.4, layers="fc9")
    paths = topo.generate("balance", net, density=0.4, layers="fc1.weight", mode="paths")
    assert list(paths) == ["fc1.weight"] and paths.kept == 48


def test_a_model_whose_layers_are_not_all_known_is_not_masked_in_part():
    with pytest.raises(TopoError, match=r"own, attention.in_proj_weight \(37.9% of the weights\) may be layers, too"):
        prune("magnitude", odd(), density=0.5)
    plain = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    assert list(prune("magnitude", plain, density=0.5)) == ["1.weight"]


def test_a_trace_that_failed_is_told():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            if torch.compiler.is_compiling() or x.shape[0] == 1:
                raise ValueError("not now")
            return self.fc(x)

    data = [(np.ones((2, 4), np.float32), np.array([0, 1]))]
    masks = prune("snip", Stubborn(), density=0.5, batches=data)
    assert masks.kept == 6 and "since the trace failed" in masks.provenance["notes"][0]
    model = Stubborn()
    model.own = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(TopoError, match=r"own \(25.0% .* the trace failed \(.*not now.*\); name the layers"):
        prune("snip", model, density=0.5, batches=data)


def test_a_transformer_of_input_first_layers():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=12)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(20, (3, 6))
    batch = {"input_ids": ids, "labels": ids}
    found = [topo.generate("erk", model, density=0.4), topo.generate("magnitude", model, density=0.4)]
    found.append(topo.generate("snip", model, density=0.4, batches=[batch]))
    found.append(topo.generate("grasp", model, density=0.4, batches=[({"input_ids": ids}, ids)]))
    for masks in found:
        assert masks.shapes == found[0].shapes and masks.kept == found[0].kept
    assert found[0].shapes["transformer.h.0.attn.c_attn.weight"] == (24, 8)


# Ties


def net(value=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    if value is not None:
        nn.init.constant_(model[1].weight, value)
        nn.init.constant_(model[3].weight, value)
    return model


@pytest.mark.parametrize("method", ["magnitude", "lamp"])
def test_scores_that_are_all_equal_are_refused_unless_told_otherwise(method):
    for value, said in ((0.0, "scores of 0"), (0.5, "equal scores")):
        with pytest.raises(
            TopoError, match=rf"148 of the 148 kept parameters \(100.0%\) were drawn by lot among {said}"
        ):
            prune(method, net(value), density=0.1)
        masks = prune(method, net(value), density=0.1, ties="random")
        assert masks.kept == 148 and masks.provenance["ties"] == 148
        assert "drawn by lot" in masks.provenance["notes"][0]
        assert masks != prune(method, net(value), density=0.1, ties="random", rng=1)


def test_some_ties_are_noted_and_few_only_counted(tmp_path, capsys):
    model = net()
    with torch.no_grad():
        model[1].weight[:2] = 0.0  # 128 of 1,480
    few = prune("magnitude", model, density=1353 / 1480)
    assert few.provenance["ties"] == 1 and "notes" not in few.provenance
    some = prune("magnitude", model, density=1452 / 1480)
    assert some.provenance["ties"] == 100
    assert some.provenance["notes"] == ["100 of the 1,452 kept parameters (6.9%) were drawn by lot among scores of 0"]
    by_layer = prune("magnitude", model, quota={"1.weight": 1200, "3.weight": 200})
    assert by_layer.provenance["ties"] == 48
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    made = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))\n"
        "    with torch.no_grad():\n        made[0].weight[:2] = 0\n    return made\n"
    )
    out = str(tmp_path / "m.safetensors")
    command = ["generate", "magnitude", "--model", f"{tmp_path}/own.py:net", "--input", "8", "-o", out]
    assert main([*command, "--density", "0.95"]) == 0
    assert "topo: 11 of the 91 kept parameters (12.1%) were drawn by lot among scores of 0" in capsys.readouterr().err
    assert main(["generate", "lamp", *command[2:], "--density", "0.99", "-O", "ties=random", "--layers", "0.*"]) == 0
    assert list(topo.read_masks(out)) == ["0.weight"]


def test_lamp_draws_among_equal_weights_by_lot():
    masks = [prune("lamp", net(0.3), density=0.1, rng=seed, ties="random") for seed in (0, 0, 1)]
    assert masks[0] == masks[1] != masks[2]
    assert masks[0].kept == 148 and masks[0].provenance["ties"] == 148
    taken = np.flatnonzero(masks[0]["1.weight"].reshape(-1))
    assert taken.max() > 1000  # not the first of the layer


def test_weights_that_cannot_be_scored_are_named_with_their_share():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.one, self.two = nn.Linear(64, 4), nn.Linear(4, 10), nn.Linear(4, 10)

        def forward(self, x):
            x = torch.tanh(self.trunk(x.flatten(1)))
            return self.one(x), self.two(x)

    torch.manual_seed(0)
    masks = prune("snip", Heads(), density=0.1, batches=batches())
    assert masks.provenance["notes"] == [
        "the output that counts does not depend on 'two.weight' (11.9% of the parameters): all scores are 0"
    ]
    assert "notes" not in prune("magnitude", Heads(), density=0.1, input_shape=SHAPE).provenance


# NaN


def test_nan_is_traced_to_where_it_begins():
    class Log(nn.Module):
        def forward(self, x):
            return torch.log(x - 1e3)

    data = batches()
    late = net()
    with torch.no_grad():
        late[3].weight[0, 0] = torch.nan
    norm = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    norm[2].running_var[3] = torch.inf
    bad = [(x.copy(), y) for x, y in data]
    bad[1][0][3] = np.inf
    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Log(), nn.Linear(8, 10))
    for model, seen, where in (
        (late, data, "the parameter '3.weight', which holds nan"),
        (norm, data, "the buffer '2.running_var', which holds inf"),
        (net(), bad, "batch 1, which holds inf"),
        (inner, data, r"the output of '2' \(Log\), which holds nan for batch 0"),
    ):
        if model is norm:  # infinite variance makes zeros; a NaN comes with the mean
            model[2].running_mean[3] = torch.nan
            where = "the buffer '2.running_mean', which holds nan"
        with pytest.raises(TopoError, match=rf"scores of '.*' are not finite .*; it begins in {where}"):
            prune("snip", model, density=0.1, batches=seen)


# Types, outputs, batches


@pytest.mark.parametrize("method", ["magnitude", "lamp", "snip", "grasp", "force", "synflow", "phew", "random"])
def test_half_precision_models(method):
    model = net().to(torch.bfloat16)
    masks = prune(method, model, density=0.2, batches=batches(), input_shape=SHAPE)
    assert masks.kept == round(0.2 * masks.size)


def test_second_derivatives_through_attention():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.value, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 10)

        def forward(self, x):
            x = x[:, 0]
            q, v = self.query(x), self.value(x)
            return self.head(F.scaled_dot_product_attention(q[:, None], q[:, None], v[:, None])[:, 0].mean(1))

    torch.manual_seed(0)
    model = Attending()
    masks = prune("grasp", model, density=0.3, batches=batches())
    assert masks.kept == round(0.3 * (64 + 64 + 80)) and len(masks) == 3


class Several(nn.Module):
    """Two inputs, and what `made` makes of the logits."""

    def __init__(self, made):
        super().__init__()
        self.left, self.right, self.made = nn.Linear(64, 10), nn.Linear(4, 10), made

    def forward(self, a, b):
        return self.made(self.left(a.flatten(1)) + self.right(b))


def test_outputs_and_batches_of_several_kinds():
    def model(made):
        torch.manual_seed(0)
        return Several(made)

    rng = np.random.default_rng(0)
    parts = [(x, rng.standard_normal((12, 4), dtype=np.float32), y) for x, y in batches()]
    kinds = {
        "tuple": [((a, b), y) for a, b, y in parts],
        "list": [[[torch.from_numpy(a), torch.from_numpy(b)], y] for a, b, y in parts],
        "dict": [({"b": b, "a": a}, y) for a, b, y in parts],
        "labels": [{"a": a, "b": b, "labels": y} for a, b, y in parts],
    }
    wanted = prune("snip", model(lambda z: z), density=0.2, batches=kinds["tuple"])
    assert set(wanted) == {"left.weight", "right.weight"}
    for kind in kinds.values():
        assert prune("snip", model(lambda z: z), density=0.2, batches=kind) == wanted
    for made, output in (
        (lambda z: {"logits": z, "aux": -z}, ""),
        (lambda z: {"aux": -z, "out": z}, "out"),
        (lambda z: (z.argmax(1), z), ""),
        (lambda z: (-z, z), "1"),
    ):
        assert prune("snip", model(made), density=0.2, batches=kinds["tuple"], output=output) == wanted
    with pytest.raises(TopoError, match="gives no tensor under output 'x'; it gives a dict with aux, out"):
        prune("snip", model(lambda z: {"aux": z, "out": z}), density=0.2, batches=kinds["tuple"], output="x")
    with pytest.raises(TopoError, match="a tuple of 1, no tensor of a floating type"):
        prune("snip", model(lambda z: (z.argmax(1),)), density=0.2, batches=kinds["tuple"])


def test_classes_for_each_token():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
    ids = torch.randint(20, (4, 6))
    labels = ids.roll(-1, 1).index_fill(1, torch.tensor([5]), -100)
    masks = prune("snip", model, density=0.5, batches=[(ids, labels)])
    assert list(masks) == ["1.weight"] and masks.kept == 80


# Masks that keep nothing


def test_empty_layers_are_never_written_or_trained_without_a_word(tmp_path):
    empty = MaskSet({"fc1.weight": np.zeros((32, 64)), "fc2.weight": np.ones((10, 32))})
    with pytest.warns(MaskWarning, match="1 of 2 layers keep no weight: 'fc1.weight'"):
        topo.write_masks(empty, tmp_path / "m.safetensors")
    with pytest.warns(MaskWarning, match="1 of 2 layers keep no weight: 'fc1.weight'"):
        topo.train("mlp:64-32-10", "digits", masks=empty, epochs=1)
    with pytest.warns(MaskWarning, match="the masks keep none of 4 weights"):
        topo.write_masks(MaskSet({"a": np.zeros((2, 2))}), tmp_path / "m.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        topo.write_masks(MaskSet({"a": np.eye(2)}), tmp_path / "n.npz")


def test_open_paths_are_counted_through_tied_weights():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3))
    net[2].weight = net[0].weight
    masks = topo.generate("px", net, density=0.6, batches=[(torch.randn(9, 6), torch.arange(9) % 3)])
    assert sorted(masks) == ["0.weight", "3.weight"] and masks.kept == round(0.6 * (36 + 18))
