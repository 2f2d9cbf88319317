"""Masks in force at every holder: random module trees x random masks x optimizers, against a masked reference."""

from __future__ import annotations

import copy
import importlib
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import topo
from topo.errors import WiringError
from topo.masks import MaskSet
from topo.models.modules.holders import copied, holder, holders, own_class
from topo.train.masking import applied_masks

WIDTH = 6


class Product(nn.Module):
    """x @ W and back, W stored (in, out)."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(WIDTH, 9) / 3), nn.Parameter(torch.randn(9, WIDTH) / 3)

    def forward(self, x):
        return torch.tanh(x @ self.up) @ self.down


class Tied(nn.Module):
    """Two linear layers of one weight, and a third that uses it transposed."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return torch.tanh(self.b(torch.relu(self.a(x)))) @ self.a.weight


class Head(nn.Module):
    """An output head tied to an embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return x + self.embedding(self.head(x).argmax(1))


class Listed(nn.Module):
    """Weights in a ParameterList and a ParameterDict."""

    def __init__(self):
        super().__init__()
        self.list = nn.ParameterList([torch.randn(8, WIDTH) / 3])
        self.dict = nn.ParameterDict({"down": torch.randn(WIDTH, 8) / 3})

    def forward(self, x):
        return F.linear(torch.relu(F.linear(x, self.list[0])), self.dict["down"])


class Buffered(nn.Module):
    """Fixed weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("up", torch.randn(9, WIDTH) / 3)
        self.register_buffer("down", torch.randn(WIDTH, 9) / 3, persistent=False)

    def forward(self, x):
        return F.linear(torch.tanh(F.linear(x, self.up)), self.down)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        x = x.view(len(x) // 2, 2, WIDTH)
        return self.inner(x, x, x)[0].reshape(-1, WIDTH)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, x):
        return self.inner(x.view(len(x) // 2, 2, WIDTH))[0].reshape(-1, WIDTH)


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.back = nn.Conv1d(1, 3, 3, padding=1), nn.ConvTranspose1d(3, 1, 3, padding=1)

    def forward(self, x):
        return self.back(torch.relu(self.inner(x[:, None])))[:, 0]


class Branches(nn.Module):
    """Blocks in a ModuleDict, added."""

    def __init__(self, blocks):
        super().__init__()
        self.branches = nn.ModuleDict({f"b{i}": block for i, block in enumerate(blocks)})

    def forward(self, x):
        return x + sum(block(x) for block in self.branches.values())


def pruned_bias():
    return prune.l1_unstructured(nn.Linear(WIDTH, WIDTH), "bias", 2)


LEAVES = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "product": Product,
    "tied": Tied,
    "head": Head,
    "listed": Listed,
    "buffered": Buffered,
    "attention": Attention,
    "recurrent": Recurrent,
    "convolved": Convolved,
    "pruned bias": pruned_bias,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
}


def tree(draw, depth=0):
    """A module (n, WIDTH) -> (n, WIDTH), of random blocks in random containers."""
    if depth == 2 or draw.random() < 0.4:
        return LEAVES[draw.choice(list(LEAVES))]()
    blocks = [tree(draw, depth + 1) for _ in range(draw.randint(1, 3))]
    return Branches(blocks) if draw.random() < 0.4 else nn.Sequential(*blocks)


def weights(model):
    """Every weight of two or more dimensions under one of its names, as a reference that knows torch alone sees it."""
    found, seen = {}, set()
    for path, module in model.named_modules():
        if isinstance(module, nn.utils.parametrize.ParametrizationList):
            continue
        names = [*module._parameters, *module._buffers, *getattr(module, "parametrizations", {})]
        for name in names:
            value = getattr(module, name)
            key = id(value)
            if value is not None and value.dim() > 1 and key not in seen and not isinstance(module, nn.BatchNorm1d):
                seen.add(key)
                found[f"{path}.{name}" if path else name] = tuple(value.shape)
    return found


def transposed(model, name):
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.ConvTranspose1d | nn.Embedding | Product)


def some_masks(names, rng):
    masks = {}
    for name, shape in names.items():
        mask = rng.random(shape) < rng.uniform(0.1, 0.9)
        masks[name] = mask
    return masks


def as_given(model, laid):
    """Masks as the parameters lie -> as topo takes them, output first."""
    return MaskSet({name: np.swapaxes(m, 0, 1) if transposed(model, name) else m for name, m in laid.items()})


@torch.no_grad()
def reference(plain, model, laid):
    """A plain twin whose masked weights are weight x mask, put together from the stored tensors by hand."""
    parameters = dict(plain.named_parameters())
    for name, value in model.named_parameters():
        if ".parametrizations." not in f".{name}":
            parameters[name].copy_(value)
    for path, module in model.named_modules():
        for key, entry in getattr(module, "parametrizations", {}).items():
            if hasattr(entry, "original0"):
                g, v = entry.original0, entry.original1
                value = v * (g / v.norm(dim=1, keepdim=True))
            elif type(entry[0]).__name__ == "_SpectralNorm":
                value = entry.original / (entry[0]._u @ entry.original @ entry[0]._v)
            else:
                value = entry.original
            twins = [each.name for each in holders(model, holder(model, f"{path}.{key}"))]
            mask = next((torch.from_numpy(laid[name]) for name in twins if name in laid), 1.0)
            getattr(plain.get_submodule(path), key).copy_(value * mask)
    return plain


def plain_twin(model):
    twin = copied(model)
    for module in list(twin.modules()):
        if nn.utils.parametrize.is_parametrized(module):
            own_class(module)  # a deep copy shares its class with the original
            for name in list(module.parametrizations):
                nn.utils.parametrize.remove_parametrizations(module, name)
    return twin


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.001, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.001),
}


def in_force(model, laid):
    """Exactly zero where pruned, at every module that holds the weight."""
    for name, mask in laid.items():
        for place in holders(model, holder(model, name)):
            value = place.weight.detach().numpy()
            assert not value[~mask].any() and not np.isnan(value).any(), place.name


def test_the_state_of_an_optimizer_goes_from_a_plain_model_to_a_masked_one_and_back():
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))

    def step(model, optimizer):
        optimizer.zero_grad()
        (model(torch.linspace(-1, 1, 36).reshape(2, 2, 3, 3)) ** 2).sum().backward()
        optimizer.step()

    masks = {"0.weight": np.arange(72).reshape(4, 2, 3, 3) % 3 > 0, "3.weight": np.arange(20).reshape(5, 4) % 2 > 0}
    plain, masked = net(), topo.apply_masks(net(), masks)
    names = [name for name, _ in masked.named_parameters()]
    assert names[:2] == ["0.parametrizations.weight.original", "0.bias"] and len(names) == 6
    assert [name for name, _ in masked.named_parameters("net", recurse=False)] == []
    assert set(names) == dict(nn.Module.named_parameters(masked)).keys()
    assert [id(p) for p in copy.deepcopy(masked).parameters()] != [id(p) for p in masked.parameters()]
    first = torch.optim.AdamW(plain.parameters())
    step(plain, first)
    second = torch.optim.AdamW(masked.parameters())
    second.load_state_dict(first.state_dict())
    step(masked, second)
    assert topo.verify_masks(masked, masks) == ()
    first.load_state_dict(second.state_dict())
    step(plain, first)
    assert [p.shape for p in topo.strip_masks(masked).parameters()] == [p.shape for p in plain.parameters()]
    assert "named_parameters" not in vars(masked)


@pytest.mark.parametrize("seed", range(16))
def test_random_trees_under_random_masks(seed):
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(tree(draw), nn.Linear(WIDTH, WIDTH), tree(draw)).eval()
    if draw.random() < 0.5:  # a tie across the tree
        model[1].weight = next(
            (m.weight for m in model[2].modules() if type(m) is nn.Linear and m.in_features == m.out_features),
            model[1].weight,
        )
    names = {name: shape for name, shape in weights(model).items() if draw.random() < 0.7}
    laid = some_masks(names, rng)
    before, order = copy.deepcopy(model.state_dict()), [id(p) for p in model.parameters()]
    kinds, keys = [type(m) for m in model.modules()], list(model.state_dict())
    computed = [
        name for name in laid if nn.utils.parametrize.is_parametrized(model.get_submodule(name.rpartition(".")[0]))
    ]
    twin = plain_twin(model)
    masks = as_given(model, laid) if laid else {}
    if draw.random() < 0.5:
        optimizer = OPTIMIZERS[draw.choice(list(OPTIMIZERS))](model.parameters())  # from before the masks
        topo.apply_masks(model, masks)
    else:
        topo.apply_masks(model, masks)
        assert [id(p) for p in model.parameters()] == order
        if not computed and not prune.is_pruned(model):  # strip is the way back, up to the zeros
            stripped = topo.strip_masks(model)
            assert [id(p) for p in stripped.parameters()] == order and list(stripped.state_dict()) == keys
            assert [type(m) for m in stripped.modules()] == kinds
            for key, value in stripped.state_dict().items():
                mask = torch.from_numpy(laid[key]) if key in laid else True
                tied = any(
                    value is not None and key in (p.name for p in holders(model, holder(model, n))) for n in laid
                )
                assert tied or torch.equal(value, before[key] * mask)
            topo.apply_masks(model, masks)
        optimizer = OPTIMIZERS[draw.choice(list(OPTIMIZERS))](model.parameters())
    for _ in range(10):
        in_force(model, laid)
        x = torch.randn(8, WIDTH)
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    in_force(model, laid)
    assert topo.verify_masks(model, masks) == ()
    assert laid == {} or applied_masks(model) == masks
    if laid:
        x = torch.randn(8, WIDTH)
        torch.testing.assert_close(model(x), reference(twin, model, laid)(x), rtol=1e-4, atol=1e-5)
    clone = copied(model)
    topo.strip_masks(clone)
    torch.testing.assert_close(clone(x), model(x))
    assert topo.verify_masks(clone, masks) == ()


# One kind of holder at a time


def zero_where_pruned(model, name, mask):
    assert not holder(model, name).weight.detach().numpy()[~mask].any()


def test_a_mask_that_is_replaced_is_replaced_at_every_holder():
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for seed in range(3):
        mask = np.random.default_rng(seed).random((WIDTH, WIDTH)) < 0.4
        topo.apply_masks(model, {("a.weight", "b.weight")[seed % 2]: mask})
        for _ in range(3):
            model(torch.randn(4, WIDTH)).square().sum().backward()
            optimizer.step()
        for name in ("a.weight", "b.weight"):
            zero_where_pruned(model, name, mask)
        assert len(applied_masks(model)) == 1  # one weight, counted once
    with pytest.raises(WiringError, match=r"'a.weight' and 'b.weight' are one weight under two names"):
        topo.apply_masks(model, {"a.weight": mask, "b.weight": ~mask})
    topo.apply_masks(model, {"a.weight": mask, "b.weight": mask})


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_hooks_that_write_the_weight_anew_are_refused(norm):
    model = nn.Sequential(norm(nn.Linear(4, 3)), nn.Linear(3, 3))
    kind = norm.__name__
    before = list(model.state_dict())
    with pytest.raises(WiringError, match=rf"'0.weight' is written anew .* torch.nn.utils.parametrizations.{kind} can"):
        topo.apply_masks(model, {"1.weight": np.eye(3), "0.weight": np.eye(3, 4)})
    assert list(model.state_dict()) == before  # nothing is masked where one mask cannot be


def test_weights_out_of_reach_are_refused():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.all = [self.fc.weight]

    with pytest.raises(WiringError, match=r"'fc.weight' is also kept in the attribute 'all'"):
        topo.apply_masks(Kept(), {"fc.weight": np.eye(3)})
    lone = nn.Linear(3, 3)
    lone.scale = torch.ones(3, 3)
    with pytest.raises(WiringError, match="'scale' is neither a parameter nor a buffer"):
        topo.apply_masks(lone, {"scale": np.eye(3)})
    with pytest.raises(WiringError, match=r"'0.weight' has no shape yet; run one batch"):
        topo.apply_masks(nn.Sequential(nn.LazyLinear(3)), {"0.weight": np.eye(3)})
    half = Tied()
    prune.l1_unstructured(half.b, "weight", 3)
    with pytest.raises(WiringError, match=r"'a.weight' is also 'b.weight', and 'b.weight' is already pruned"):
        topo.apply_masks(half, {"a.weight": np.eye(WIDTH)})


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 5), lambda: parametrizations.weight_norm(nn.Linear(4, 5))])
def test_weights_that_come_back_start_at_zero(make):
    model = nn.Sequential(make())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.1)
    first, second = np.zeros((5, 4), bool), np.ones((5, 4), bool)
    first[:3, :2] = True  # rows 3 and 4 are empty
    topo.apply_masks(model, {"0.weight": np.ones((5, 4))})
    for mask in (first, first, first):
        model(torch.randn(3, 4)).square().sum().backward()
        optimizer.step()  # momentum from before the mask moves what it hides
        topo.apply_masks(model, {"0.weight": mask})
    kept = model[0].weight.detach().numpy()[first]
    topo.apply_masks(model, {"0.weight": second})
    now = model[0].weight.detach().numpy()
    assert not now[~first].any()
    np.testing.assert_allclose(now[first], kept, rtol=1e-5)
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    assert np.isfinite(model[0].weight.detach().numpy()).all()


def test_the_trace_of_a_masked_model_has_its_layers():
    from torch.nn.modules.module import Module

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.conv, self.attention = nn.Conv1d(3, 8, 3, padding=1), nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm, self.out = parametrizations.weight_norm(nn.Linear(8, 5)), nn.Parameter(torch.randn(5, 4))

        def forward(self, x):
            x = self.conv(x).transpose(1, 2)
            x = x + self.attention(x, x, x)[0]
            return torch.relu(self.norm(x.mean(1))) @ self.out

    dense, model = topo.trace(Net(), (3, 6)), Net()
    rng = np.random.default_rng(0)
    topo.apply_masks(model, {name: rng.random(shape) < 0.5 for name, shape in dense.shapes.items()}, dense)
    masked = topo.trace(model, (3, 6))
    assert dense.shapes == masked.shapes and len(masked.shapes) == 5 and masked.notes == dense.notes
    assert masked.input_first == dense.input_first


# What is written into a masked weight


def written(change, mask=None):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    mask = np.eye(3, 4, dtype=bool) if mask is None else mask
    topo.apply_masks(layer, {"weight": mask})
    parameter, before = layer.parametrizations.weight.original, layer.weight.detach().clone()
    change(layer)
    assert layer.parametrizations.weight.original is parameter
    zero_where_pruned(layer, "weight", mask)
    return layer.weight.detach() - before, torch.from_numpy(mask)


DELTA = torch.arange(12.0).view(3, 4) + 1


def assign_parameter(layer):
    layer.weight = nn.Parameter(layer.weight.detach() + DELTA)


def assign_tensor(layer):
    with torch.no_grad():
        layer.weight = layer.weight + DELTA


def augmented(layer):
    with torch.no_grad():
        layer.weight += DELTA


def data_augmented(layer):
    layer.weight.data += DELTA


def data_assigned(layer):
    layer.weight.data = layer.weight.data + DELTA


def by_rows(layer):
    with torch.no_grad():
        for row, delta in zip(layer.weight, DELTA):
            row += delta


def by_view(layer):
    layer.weight.detach().view(-1).add_(DELTA.view(-1))


@pytest.mark.parametrize(
    "merge", [assign_parameter, assign_tensor, augmented, data_augmented, data_assigned, by_rows, by_view]
)
def test_a_merge_under_a_mask_is_the_weight_plus_the_masked_change(merge):
    change, mask = written(merge)
    torch.testing.assert_close(change, mask * DELTA)


def test_initialisation_reaches_masked_weights():
    for init in (
        nn.init.kaiming_normal_,
        nn.init.xavier_uniform_,
        nn.init.orthogonal_,
        lambda w: nn.init.constant_(w, 3),
    ):
        change, mask = written(lambda layer, init=init: init(layer.weight))
        assert bool((change != 0).equal(mask))
    change, mask = written(lambda layer: layer.reset_parameters())
    assert bool((change != 0).equal(mask))


def test_weights_that_are_computed_are_drawn_anew_too():
    from topo.pruners import reinitialise, rescale
    from topo.train.initial import initialise

    def normed():
        torch.manual_seed(0)
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(30, 20)), nn.Linear(20, 5))

    wanted, model = reinitialise(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 5)), rng=3), normed()
    reinitialise(model, rng=3)
    torch.testing.assert_close(model[0].weight, wanted[0].weight)
    before = model[0].weight.detach().clone()
    factors = rescale(model, {"0.weight": np.random.default_rng(0).random((20, 30)) < 0.5})
    torch.testing.assert_close(model[0].weight, before * factors["0.weight"])
    initialise(model, "kaiming_normal", {}, torch.Generator().manual_seed(0))
    drawn = model[0].weight.detach().clone()
    initialise(twin := nn.Sequential(nn.Linear(30, 20)), "kaiming_normal", {}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, twin[0].weight.detach())
    with pytest.raises(WiringError, match=r"'0.weight' is written anew .* takes no values"):
        reinitialise(nn.Sequential(weight_norm(nn.Linear(4, 3))))


def test_what_is_given_out_is_a_plain_tensor_to_everybody(tmp_path):
    layer = topo.apply_masks(nn.Linear(4, 3), {"weight": np.eye(3, 4)})
    for tensor in (layer.weight, layer.weight.detach(), layer.weight.data[1]):
        torch.save(tensor, tmp_path / "w.pt")
        assert type(torch.load(tmp_path / "w.pt", weights_only=True)) is torch.Tensor
    assert type(copy.deepcopy(layer.weight.detach())) is torch.Tensor and type(layer.weight * 2) is torch.Tensor
    own = nn.Parameter(layer.weight)  # another parameter, with a life of its own
    with torch.no_grad():
        own += 1
    assert isinstance(own, nn.Parameter) and int((layer.weight != 0).sum()) == 3
    assert bool((own.detach()[0, 1:] == 1).all())
    per_example = torch.func.vmap(lambda x: torch.func.functional_call(layer, {}, x))(torch.ones(5, 4))
    torch.testing.assert_close(per_example, layer(torch.ones(5, 4)))
    with torch.inference_mode():
        assert layer(torch.ones(1, 4)).shape == (1, 3)
    torch.testing.assert_close(torch.jit.trace(layer, torch.ones(1, 4))(torch.ones(2, 4)), layer(torch.ones(2, 4)))
    with pytest.raises(WiringError, match=r"'weight' of a masked Linear has shape \(3, 4\); \(2, 2\) cannot take"):
        layer.weight = torch.ones(2, 2)
    with pytest.raises(WiringError, match="NoneType cannot take its place"):
        layer.weight = None


# Devices and wrappers


def test_masks_survive_the_meta_device():
    masks = {"0.weight": np.eye(4, 3), "2.weight": np.ones((2, 4))}

    def net():
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    with torch.device("meta"):
        model = net()
    topo.apply_masks(model, masks)
    assert applied_masks(model) == MaskSet(masks)
    with pytest.raises(WiringError, match="on the meta device and has no values"):
        topo.verify_masks(model, masks)
    model.to_empty(device="cpu")
    topo.apply_masks(model, {"2.weight": np.eye(2, 4)})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    expected = MaskSet({"0.weight": np.eye(4, 3), "2.weight": np.eye(2, 4)})
    assert applied_masks(model) == expected and topo.verify_masks(model, expected) == ()
    model.to("meta").to_empty(device="cpu")
    assert applied_masks(model) == expected


def test_masks_come_before_distributed_wrapping(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(3, 3)))
        with pytest.raises(WiringError, match=r"wrapped in DistributedDataParallel and '0.weight' is not masked yet"):
            topo.apply_masks(wrapped, {"0.weight": np.eye(3)})
        inner = topo.apply_masks(nn.Sequential(nn.Linear(3, 3)), {"0.weight": np.eye(3)})
        wrapped, mask = nn.parallel.DistributedDataParallel(inner), inner[0].parametrizations.weight[0].mask
        topo.apply_masks(wrapped, {"0.weight": np.tri(3)})  # other masks, in the same buffers
        assert inner[0].parametrizations.weight[0].mask is mask
        assert applied_masks(wrapped) == MaskSet({"0.weight": np.tri(3)})
    finally:
        torch.distributed.destroy_process_group()


def test_masks_are_in_force_under_sharding(tmp_path, monkeypatch):
    """Two processes, and masks after sharding: test_sharded."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    sharded = importlib.import_module("topo.train.sharded")  # topo.train is the function, too

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh, masks = init_device_mesh("cpu", (1,)), {"0.weight": np.eye(6, 4), "2.weight": np.eye(3, 6)}
        model = fully_shard(topo.apply_masks(net(), masks), mesh=mesh)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.1)
        for seed in range(4):
            if seed == 2:
                topo.apply_masks(model, masks := {**masks, "0.weight": np.tri(6, 4)})  # other masks, in place
            model(torch.randn(5, 4)).square().sum().backward()
            optimizer.step()
        assert topo.verify_masks(model, masks) == () and applied_masks(model) == MaskSet(masks)
        with monkeypatch.context() as patch:
            patch.setattr(sharded, "_known", lambda model: None)
            with pytest.raises(WiringError, match="this torch does not say where its shards lie"):
                topo.strip_masks(model)
            with pytest.raises(WiringError, match="this torch does not say where its shards lie"):
                topo.apply_masks(fully_shard(net(), mesh=mesh), masks)
        whole = topo.apply_masks(net(), masks)
        whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
        x = torch.randn(5, 4)
        expected = model(x)
        torch.testing.assert_close(topo.strip_masks(whole)(x), expected)
        torch.testing.assert_close(topo.strip_masks(model)(x), expected)
        assert topo.verify_masks(whole, masks) == ()
    finally:
        torch.distributed.destroy_process_group()


def test_a_recurrent_module_can_be_copied_after_a_masked_pass():
    model = nn.Sequential(nn.LSTM(3, 4, 2))
    names = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() > 1}
    rng = np.random.default_rng(0)
    topo.apply_masks(model, {name: rng.random(shape) < 0.5 for name, shape in names.items()})
    x = torch.randn(5, 1, 3)
    before = model(x)[0]
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x)[0], before)
    topo.strip_masks(twin)
    torch.testing.assert_close(twin(x)[0], before)
    with torch.no_grad():
        twin[0].weight_hh_l0.zero_()
    assert not torch.allclose(twin(x)[0], before)  # it reads its own parameters again


# Training


@pytest.fixture(scope="module")
def digit_masks():
    rng = np.random.default_rng(0)
    return MaskSet({"fc1.weight": rng.random((32, 64)) < 0.3, "fc2.weight": rng.random((10, 32)) < 0.5})


def test_models_pruned_by_torch_train_under_their_masks(digit_masks):
    model = topo.models.build("mlp:64-32-10")
    prune.custom_from_mask(model.fc1, "weight", torch.from_numpy(digit_masks["fc1.weight"].copy()))
    prune.l1_unstructured(model.fc1, "bias", 5)
    bias = model.fc1.bias_mask.bool()
    run = topo.train(model, "digits", epochs=1)
    assert run.masks == MaskSet({"fc1.weight": digit_masks["fc1.weight"]})
    assert topo.verify_masks(model, run.masks) == () and prune.is_pruned(model.fc1)
    model(torch.randn(1, 64))
    assert not model.fc1.bias[~bias].any() and model.fc1.bias[bias].all()
    run = topo.train(model, "digits", epochs=1, masks=digit_masks)
    assert run.masks == digit_masks and topo.verify_masks(model, digit_masks) == ()


def test_masks_of_layers_that_are_not_named_stay_in_training(digit_masks):
    model = topo.apply_masks(topo.models.build("mlp:64-32-10"), {"fc1.weight": digit_masks["fc1.weight"]})
    run = topo.train(model, "digits", epochs=1, masks={"fc2.weight": digit_masks["fc2.weight"]})
    assert run.masks == digit_masks == applied_masks(model)


def test_a_weight_normed_layer_trains_under_a_mask(digit_masks):
    model = topo.models.build("mlp:64-32-10")
    parametrizations.weight_norm(model.fc1)
    run = topo.train(model, "digits", masks=digit_masks, epochs=1)
    assert run.masks == digit_masks and topo.verify_masks(model, digit_masks) == ()
    assert int((model.fc1.weight != 0).sum()) == digit_masks["fc1.weight"].sum()


def test_a_run_resumes_whichever_way_its_masks_were_given(digit_masks, tmp_path):
    def start(kind):
        torch.manual_seed(0)
        model = topo.models.build("mlp:64-32-10")
        if kind == "applied":
            return topo.apply_masks(model, digit_masks), {}
        if kind == "pruned":
            for name in digit_masks:
                mask = torch.from_numpy(digit_masks[name].copy())
                prune.custom_from_mask(model.get_submodule(name[:-7]), "weight", mask)
            return model, {}
        return model, {"masks": digit_masks}

    recipe = {"optimizer": "adam", "lr": 0.01, "ema": 0.9, "epochs": 2}
    model, given = start("given")
    whole = topo.train(model, "digits", recipe=recipe, **given)
    wanted = dict(whole.model.named_parameters())
    for first, second in (("given", "applied"), ("applied", "pruned"), ("pruned", "given")):
        folder = tmp_path / first
        model, given = start(first)
        stopped = Stop()
        with pytest.raises(KeyboardInterrupt):
            topo.train(model, "digits", recipe=recipe, out=folder, progress=stopped, **given)
        model, given = start(second)
        run = topo.train(model, "digits", recipe=recipe, out=folder, resume=True, **given)
        for name, value in topo.strip_masks(run.model).named_parameters():
            assert torch.equal(value, wanted[name]), (first, second, name)


class Stop:
    """Progress that ends a run in its second epoch."""

    def __call__(self, done, total, label):
        if done > total / 2:
            raise KeyboardInterrupt
