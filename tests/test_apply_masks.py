"""Masks on a model: pruned weights are exactly zero through everything that people do to a model."""

from __future__ import annotations

import copy
import socket

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import topo
from topo.errors import MaskError, WiringError
from topo.masks import MaskSet
from topo.models.modules.stored import Storage, storage
from topo.torch_prune import FromMask
from topo.train import Drift
from topo.train.masking import applied_masks


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))


def random_masks(model, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() > 1}
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


def masked_net():
    model = net()
    masks = random_masks(model)
    assert topo.apply_masks(model, masks) is model
    return model, masks


def step(model, optimizer, seed=0, amp=False):
    torch.manual_seed(seed)
    x, y = torch.randn(6, 3, 4, 4), torch.randint(5, (6,))

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


def check(model, masks):
    """Zero where pruned, and not where kept: the masks are those of the weights."""
    assert topo.verify_masks(model, masks) == ()
    weight = {name: model.get_submodule(name.rpartition(".")[0]).weight for name in masks}
    for name in masks:
        np.testing.assert_array_equal(weight[name].detach().float().numpy() != 0, masks[name])


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.001, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.001),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name):
    model, masks = masked_net()
    before = model[4].weight.detach().clone()
    optimizer = OPTIMIZERS[name](model.parameters())
    for seed in range(4):
        step(model, optimizer, seed)
    check(model, masks)
    assert not torch.equal(before, model[4].weight)


def test_momentum_from_before_the_masks_brings_nothing_back():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    step(model, optimizer)
    masks = random_masks(model)
    topo.apply_masks(model, masks)
    for seed in range(3):
        step(model, optimizer, seed)
    check(model, masks)


def test_an_optimizer_that_writes_noise_everywhere():
    model, masks = masked_net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    check(model, masks)


def test_amp_and_half_precision():
    model, masks = masked_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for seed in range(3):
        step(model, optimizer, seed, amp=True)
    check(model, masks)
    model.to(torch.bfloat16)
    assert model[4].weight.dtype == torch.bfloat16
    assert topo.verify_masks(model, masks) == ()


def test_torch_compile_gives_the_same_and_stays_masked():
    model, masks = masked_net()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    for seed in range(3):
        losses = [step(m, torch.optim.SGD(m.parameters(), 0.1, weight_decay=0.01), seed) for m in (compiled, twin)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    check(model, masks)
    assert topo.verify_masks(compiled, masks) == () and applied_masks(compiled) == masks


def test_deepcopy_is_masked_and_independent():
    model, masks = masked_net()
    twin = copy.deepcopy(model)
    step(twin, torch.optim.Adam(twin.parameters(), 0.1))
    check(twin, masks)
    assert not torch.equal(model[4].weight, twin[4].weight)
    topo.apply_masks(twin, random_masks(twin, seed=1))
    check(model, masks)


def test_state_dict_round_trip_carries_the_masks(tmp_path):
    model, masks = masked_net()
    step(model, torch.optim.Adam(model.parameters(), 0.1))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert topo.read_masks(tmp_path / "state.pt") == masks  # the masks of any parametrized model are read
    other = topo.apply_masks(net(), random_masks(net(), seed=9))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    check(other, masks)
    assert torch.equal(other[4].weight, model[4].weight)
    torch.save(topo.strip_masks(model).state_dict(), tmp_path / "plain.pt")
    assert topo.read_masks(tmp_path / "plain.pt") == masks  # zeros in the weights
    net().load_state_dict(torch.load(tmp_path / "plain.pt", weights_only=True))


def test_ddp():
    model, masks = masked_net()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), 0.1, 0.9, weight_decay=0.01)
        for seed in range(3):
            step(wrapped, optimizer, seed)
        check(model, masks)
        assert topo.verify_masks(wrapped, masks) == ()
    finally:
        torch.distributed.destroy_process_group()


def test_pruned_weights_get_no_gradient_and_kept_ones_the_plain_one():
    model, masks = masked_net()
    plain = topo.strip_masks(copy.deepcopy(model))
    x = torch.randn(2, 3, 4, 4)
    model(x).square().sum().backward()
    plain(x).square().sum().backward()
    gradient = model[4].parametrizations.weight.original.grad
    kept = torch.from_numpy(masks["4.weight"].copy())
    torch.testing.assert_close(gradient[kept], plain[4].weight.grad[kept])
    assert not gradient[~kept].any() and plain[4].weight.grad[~kept].any()


def test_a_copy_can_be_stripped_and_masked_further_without_harm_to_the_original():
    model, masks = masked_net()
    twin, third = copy.deepcopy(model), copy.deepcopy(model)
    topo.strip_masks(twin)
    topo.apply_masks(third, {"0.weight": np.ones((8, 3, 3, 3))})
    check(model, masks)
    step(model, torch.optim.SGD(model.parameters(), 0.1))
    attention = topo.apply_masks(nn.MultiheadAttention(4, 2), {"in_proj_weight": np.eye(12, 4)})
    copied = copy.deepcopy(attention)
    topo.strip_masks(copied)
    assert int((attention.in_proj_weight != 0).sum()) == int((copied.in_proj_weight != 0).sum()) == 4


def test_masks_are_replaced_and_stripped():
    model, _ = masked_net()
    other = random_masks(model := topo.strip_masks(model), seed=3)
    topo.apply_masks(topo.apply_masks(model, random_masks(model, seed=2)), other)
    assert applied_masks(model) == other and len(model[4].parametrizations.weight) == 1
    names = list(net().state_dict())
    assert sorted(topo.strip_masks(model).state_dict()) == sorted(names) and applied_masks(model) is None
    assert type(model[4]) is nn.Linear


def test_strip_keeps_the_parameter_that_the_optimizer_holds():
    model, masks = masked_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    topo.strip_masks(model)
    assert {id(p) for p in model.parameters()} == {id(p) for p in optimizer.param_groups[0]["params"]}
    step(model, optimizer)
    drift = topo.verify_masks(model, masks)
    assert [d.name for d in drift] == ["0.weight", "4.weight"]  # nothing holds them any more


def test_verify_reports_where_and_how_much():
    model = topo.strip_masks(topo.apply_masks(net(), MaskSet({"4.weight": np.eye(5, 128)})))
    with torch.no_grad():
        model[4].weight[2, 7], model[4].weight[3, 0] = 0.5, -2.0
    (found,) = topo.verify_masks(model, MaskSet({"4.weight": np.eye(5, 128)}))
    assert found == Drift("4.weight", 2, (2, 7), 2.0)
    assert str(found) == "'4.weight' holds 2 pruned weights that are not 0, the first at (2, 7), the largest 2"
    with torch.no_grad():
        model[4].weight[0, 1] = torch.nan
    assert topo.verify_masks(model, MaskSet({"4.weight": np.eye(5, 128)}))[0].count == 3


def test_tied_weights_are_masked_wherever_they_are_used():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    model = Tied()
    masks = MaskSet({"a.weight": np.eye(4)})
    topo.apply_masks(model, masks)
    step_ = torch.optim.SGD(model.parameters(), 0.1)
    model.b(model.a(torch.ones(1, 4))).sum().backward()
    step_.step()
    for part in (model.a, model.b):
        assert torch.equal(part.weight != 0, torch.eye(4, dtype=torch.bool))
    assert sum(p.numel() for p in model.parameters()) == 16


def test_weight_norm_underneath():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4)))
    masks = MaskSet({"0.weight": np.eye(4, 6)})
    topo.apply_masks(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()
    check(model, masks)


# Layouts


def test_layers_stored_input_first():
    transposed = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    mask = np.zeros((6, 2, 3, 3), bool)  # output 4 (group 1, its second) reads only the group's first input, 2
    mask[4, 0, 1, 2] = True
    topo.apply_masks(transposed, {"0.weight": mask})
    assert transposed[0].weight.shape == (4, 3, 3, 3)
    assert torch.nonzero(transposed[0].weight).tolist() == [[2, 1, 1, 2]]
    assert applied_masks(transposed) == MaskSet({"0.weight": mask})
    embedding = nn.Sequential(nn.Embedding(5, 3))
    topo.apply_masks(embedding, {"0.weight": np.eye(3, 5)})
    assert torch.nonzero(embedding[0].weight).tolist() == [[0, 0], [1, 1], [2, 2]]
    rng = np.random.default_rng(0)
    stacks = Storage((2, 3, 4), True, True), Storage((2, 3, 4), False, True)
    for held in (Storage((4, 3, 2, 2), True, groups=2), *stacks):
        mask = rng.random(held.mask_shape) < 0.5
        assert held.parameter(mask).shape == held.shape
        np.testing.assert_array_equal(held.mask(held.parameter(mask)), mask)


def test_gpt2s_square_layers_are_told_by_their_module():
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    model = nn.Sequential(pytorch_utils.Conv1D(3, 3))
    topo.apply_masks(model, {"0.weight": np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]])})  # only output 0 reads
    assert (model[0].weight != 0).tolist() == [[True, False, False]] * 3


class Experts(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))


def test_stacked_experts_by_shape_or_an_error():
    mask = np.zeros((2 * 4, 3), bool)
    mask[5, 2] = True  # expert 1, output 1, input 2
    for shape, place in (((2, 4, 3), [1, 1, 2]), ((2, 3, 4), [1, 2, 1])):
        model = topo.apply_masks(Experts(*shape), {"weight": mask})
        assert torch.nonzero(model.weight).tolist() == [place]
    with pytest.raises(WiringError, match=r"fits the parameter .* both output-first and input-first"):
        topo.apply_masks(Experts(2, 3, 3), {"weight": np.ones((6, 3))})
    with pytest.raises(WiringError, match=r"fits the parameter .* both"):
        storage("w", (3, 3), (3, 3), Experts(3, 3))


def test_what_does_not_fit():
    model = net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        WiringError, match=r"mask 'fc.weight' is not a parameter of the model; it has 0.weight, 4.weight"
    ):
        topo.apply_masks(model, {"0.weight": np.ones((8, 3, 3, 3)), "fc.weight": np.ones((2, 2))})
    with pytest.raises(WiringError, match=r"mask '4.weight' has shape \(5, 127\) but the model's parameter has"):
        topo.apply_masks(model, {"0.weight": np.zeros((8, 3, 3, 3)), "4.weight": np.ones((5, 127))})
    with pytest.raises(MaskError, match="holds 2"):
        topo.apply_masks(model, {"4.weight": np.full((5, 128), 2)})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# torch.nn.utils.prune


def test_from_mask_for_users_of_torchs_own_api():
    torch.manual_seed(0)
    layer, rng = nn.Linear(6, 4), np.random.default_rng(0)
    first, second = rng.random((4, 6)) < 0.6, rng.random((4, 6)) < 0.6
    FromMask.apply(layer, "weight", first)
    twin = copy.deepcopy(layer)
    FromMask.apply(layer, "weight", torch.from_numpy(second))  # a second full mask, in a container
    np.testing.assert_array_equal(layer.weight_mask.numpy() != 0, first & second)
    np.testing.assert_array_equal(twin.weight_mask.numpy() != 0, first)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, 0.9, weight_decay=0.1)
    for _ in range(3):
        layer(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()
    np.testing.assert_array_equal((layer(torch.ones(1, 6)), layer.weight)[1].detach().numpy() != 0, first & second)
    model = nn.Sequential(layer)
    with pytest.raises(WiringError, match=r"already pruned by torch.nn.utils.prune"):
        topo.apply_masks(model, {"0.weight": first})
    topo.strip_masks(model)
    assert not prune.is_pruned(model) and topo.verify_masks(model, {"0.weight": first & second}) == ()
    with pytest.raises(MaskError, match=r"the mask has shape \(4, 5\) but 'weight' of Linear has \(4, 6\)"):
        FromMask.apply(layer, "weight", np.ones((4, 5)))
    with pytest.raises(MaskError, match="holds 3"):
        FromMask.apply(layer, "weight", np.full((4, 6), 3))
