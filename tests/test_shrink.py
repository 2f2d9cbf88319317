"""Shrinking: what goes, what stays and why; outputs and effective counts against the masked original, by many nets."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

import topo
from topo.cli import main
from topo.errors import ShrinkError, TopoError, TraceWarning
from topo.networks import build
from topo.shrinking import proof

pytestmark = pytest.mark.small
FAST = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Plain(nn.Module):
    """Convolutions with batch norm and padding, a flatten, linear layers."""

    shape = (2, 6, 6)

    def __init__(self, width: int = 5, bias: bool = True, padding: int = 1) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, width, 3, padding=padding, bias=bias)
        self.bn = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width + 1, 1, bias=bias)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc, self.out = nn.Linear(4 * (width + 1), 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.sigmoid(self.b(F.relu(self.bn(self.a(x))))))
        return self.out(F.gelu(self.fc(x.flatten(1))))


class Residual(nn.Module):
    """Streams whose sums tie their channels, and a grouped and a depthwise convolution inside the branches."""

    shape = (3, 5, 5)

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.one = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for _ in range(2))
        self.mid = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=g) for g in (2 * width, width))
        self.two = nn.ModuleList(nn.Conv2d(2 * width, width, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for one, mid, two, norm in zip(self.one, self.mid, self.two, self.norms):
            x = F.relu(x + norm(two(F.relu6(mid(F.relu(one(x)))))))
        return self.out(x.mean((2, 3)))


class Joined(nn.Module):
    """A U-Net in small: down, up by a transposed convolution, and a concatenation of both."""

    shape = (2, 4, 4)

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, width, 3, padding=1), nn.Conv2d(width, 2 * width, 1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.norm, self.out = nn.GroupNorm(2, 2 * width), nn.Conv2d(2 * width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = F.leaky_relu(self.down(x))
        low = self.up(F.elu(self.deep(F.max_pool2d(high, 2))))
        return self.out(self.norm(torch.cat([high, low], 1)))


class Attending(nn.Module):
    """A transformer block with its own heads, a gated MLP, and a norm over the stream."""

    shape = (3, 8)

    def __init__(self, heads: int = 4, width: int = 3) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 3 * heads * width)
        self.proj, self.gate = nn.Linear(heads * width, 8), nn.Linear(8, 20)
        self.down = nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, t, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1))
        a, g = self.gate(x).chunk(2, -1)
        return x + self.down(F.silu(g) * a)


class Recurrent(nn.Module):
    """An LSTM or GRU over two layers, in one or both directions."""

    shape = (4, 3)

    def __init__(self, kind: str = "LSTM", both: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5)
        self.rnn = getattr(nn, kind)(5, 6, num_layers=2, batch_first=True, bidirectional=both)
        self.out = nn.Linear(6 * (1 + both), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(torch.tanh(self.inner(x)))[0])


FAMILIES = {
    "plain": lambda draw: Plain(draw(st.integers(3, 7)), draw(st.booleans()), draw(st.integers(0, 1))),
    "residual": lambda draw: Residual(draw(st.integers(2, 5))),
    "joined": lambda draw: Joined(draw(st.sampled_from([2, 4]))),
    "attending": lambda draw: Attending(draw(st.integers(2, 4)), draw(st.integers(2, 4))),
    "recurrent": lambda draw: Recurrent(draw(st.sampled_from(["LSTM", "GRU", "RNN"])), draw(st.booleans())),
}


def stirred(net: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with biases, shifts and statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


def dead_masks(net: nn.Module, shape: tuple[int, ...], seed: int, density: float, dead: float) -> dict[str, np.ndarray]:
    """Random masks, in which whole rows and columns are pruned too."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, sides in topo.trace(net, shape).shapes.items():
        mask = rng.random(sides) < density
        mask[rng.random(sides[0]) < dead] = False
        mask[:, rng.random(sides[1]) < dead] = False
        made[name] = mask
    return made


def masked_twin(net: nn.Module, masks: dict[str, np.ndarray]) -> nn.Module:
    """The original with zeros where the masks prune, by plain loops."""
    twin = copy.deepcopy(net)
    weights = dict(twin.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weight = weights[name]
            laid = mask if mask.shape == tuple(weight.shape) else mask.swapaxes(0, 1)
            weight.mul_(torch.from_numpy(np.array(laid, order="C")))
    return twin


def assert_same(net: nn.Module, masks: dict[str, np.ndarray], small: topo.Shrunk, shape: tuple[int, ...]) -> None:
    """Outputs within 1e-9 of the largest, on other inputs than those of the proof; effective counts equal."""
    x = torch.from_numpy(np.random.default_rng(99).normal(size=(4, *shape)))
    with torch.no_grad():
        before, after = masked_twin(net, masks)(x), small.model(x)
    assert float((before - after).abs().max()) <= 1e-9 * float(before.abs().max())
    counts = small.report["effective"]
    assert counts["part"] == counts["after"]
    assert counts["before"]["effective_paths"] == counts["after"]["effective_paths"]
    if isinstance(net, Residual | Joined):  # no activation that is never 0, whose weights read a constant
        assert counts["before"] == counts["after"]
    assert small.report["proof"]["relative_difference"] <= 1e-9
    counted = topo.analyze(small.masks, topo.trace(small.model, shape), metrics="effective_params,effective_nodes")
    assert counted.network["effective_params"] == counts["after"]["effective_params"]
    state = dict(net.state_dict())
    for name, tensor in small.model.state_dict().items():
        if name in small.kept and tensor.dim() > 1:  # biases may hold constants
            old = masked_twin(net, masks).state_dict()[name]
            assert np.array_equal(old.numpy()[np.ix_(*small.kept[name])], tensor.numpy()), name
            assert name in state


@pytest.mark.parametrize("family", FAMILIES)
def test_random_masks_leave_outputs_and_effective_counts_as_they_were(family: str) -> None:
    removed = 0

    @FAST
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        nonlocal removed
        net = stirred(FAMILIES[family](data.draw)).double()
        seed = data.draw(st.integers(0, 1000))
        masks = dead_masks(net, net.shape, seed, data.draw(st.sampled_from([0.3, 0.6, 0.9])), 0.3)
        try:
            small = topo.shrink(net, masks, input_shape=net.shape, check=1)
        except ShrinkError as error:
            assert "everything is dead" in str(error)
            return
        removed += small.report["removed"]
        assert_same(net, masks, small, net.shape)

    holds()
    assert removed > 0


@pytest.mark.kernels
@pytest.mark.parametrize("family", [Plain, Residual, Joined, Attending, Recurrent])
def test_nothing_goes_where_nothing_is_dead(family: type) -> None:
    net = stirred(family())
    masks = {name: np.ones(shape, bool) for name, shape in topo.trace(net, family.shape).shapes.items()}
    small = topo.shrink(net, masks, input_shape=family.shape, check=1)
    assert small.report["removed"] == 0 and small.report["stays"] == {}
    assert {k: v.shape for k, v in small.model.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }
    assert all(torch.equal(a, b) for a, b in zip(small.model.parameters(), net.parameters()))
    assert not {p.data_ptr() for p in small.model.parameters()} & {p.data_ptr() for p in net.parameters()}


def test_batch_norm_in_training_mode_is_taken_in_eval_mode_and_told() -> None:
    net = stirred(Plain()).train()
    masks = dead_masks(net, net.shape, 0, 0.9, 0.3)
    small = topo.shrink(net, masks, input_shape=net.shape, check=1)
    assert any("training mode" in note for note in small.report["notes"]) and net.training and not small.model.training
    x, twin = torch.rand(2, *net.shape), masked_twin(net, masks).eval()
    assert torch.allclose(twin(x), small.model(x), atol=1e-5)


def test_everything_dead_says_so() -> None:
    net = stirred(Plain())
    masks = {name: np.ones(shape, bool) for name, shape in topo.trace(net, Plain.shape).shapes.items()}
    masks["b.weight"] = masks["b.weight"] & False
    with pytest.raises(ShrinkError, match="everything is dead"):
        topo.shrink(net, masks, input_shape=Plain.shape)


def test_a_constant_goes_into_the_next_bias_but_not_through_padding() -> None:
    first, last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 3, padding=1)
    net = stirred(nn.Sequential(first, last)).double()
    masks = {"0.weight": np.array([[[[1]]], [[[0]]]]), "1.weight": np.ones((1, 2, 3, 3))}
    small = topo.shrink(net, masks, input_shape=(1, 5, 5))
    assert small.report["removed"] == 0
    assert small.report["stays"] == {"it goes through padding, which holds another value than the constant": 1}
    net[1].padding = (0, 0)
    small = topo.shrink(net, masks, input_shape=(1, 5, 5))
    assert small.model[0].weight.shape == (1, 1, 1, 1) and small.model[1].weight.shape == (1, 1, 3, 3)
    folded = net[1].bias + net[1].weight[0, 1].sum() * net[0].bias[1]
    assert torch.allclose(small.model[1].bias, folded, rtol=1e-14)


def test_a_constant_gives_a_layer_a_bias_where_it_had_none() -> None:
    net = stirred(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2, bias=False))).double()
    small = topo.shrink(net, {"0.weight": [[1, 1], [0, 0], [1, 0]], "2.weight": np.ones((2, 3))}, input_shape=(2,))
    assert small.added == ("2",)
    assert torch.allclose(small.model[2].bias, net[2].weight[:, 1] * torch.tanh(net[0].bias[1]), rtol=1e-14)


def test_zeros_that_a_mask_keeps_are_alive() -> None:
    net = stirred(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    nn.init.zeros_(net[1].weight)
    small = topo.shrink(net, {"0.weight": np.ones((3, 2)), "1.weight": np.ones((1, 3))}, input_shape=(2,))
    assert small.report["removed"] == 0


def test_tied_parameters_stay_tied_and_of_one_size() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.out = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.b(F.relu(self.a(F.relu(self.into(x))))))

    net = stirred(Tied()).double()
    dead = np.ones((6, 6), bool)
    dead[[1, 4]], dead[:, [1, 4]] = False, False
    masks = {"into.weight": np.ones((6, 3)), "a.weight": dead, "out.weight": np.ones((2, 6))}
    masks["out.weight"][:, 4] = 0
    small = topo.shrink(net, masks, input_shape=(3,))
    assert small.model.a.weight is small.model.b.weight
    x = torch.rand(5, 3, dtype=torch.float64)
    assert torch.allclose(masked_twin(net, masks)(x), small.model(x), rtol=1e-12)
    assert small.model.a.weight.shape[0] < 6


@pytest.mark.kernels
def test_masks_of_a_live_model_are_read_from_it_and_its_hooks_go() -> None:
    net = stirred(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
    mask = torch.ones(5, 3)
    mask[2] = 0
    torch_prune.custom_from_mask(net[0], "weight", mask)
    with torch.no_grad():
        net[0].bias[2] = 0.5
    small = topo.shrink(net, input_shape=(3,))
    assert small.model[0].weight.shape == (4, 3) and "weight_orig" not in dict(small.model.named_parameters())
    assert "weight_orig" in dict(net[0].named_parameters())
    x = torch.rand(4, 3)
    assert torch.allclose(net(x), small.model(x), atol=1e-6)


def test_what_may_change_the_outputs_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].register_forward_hook(lambda module, args, out: out * 2)
    with pytest.raises(ShrinkError, match="module '0' has a forward hook"):
        topo.shrink(net, {"0.weight": np.ones((2, 3))}, input_shape=(3,))
    with pytest.raises(ShrinkError, match="meta device"):
        topo.shrink(nn.Linear(3, 2, device="meta"), {"weight": np.ones((2, 3))}, input_shape=(3,))
    with pytest.raises(ShrinkError, match="check is 0"):
        topo.shrink(nn.Linear(3, 2), {"weight": np.ones((2, 3))}, input_shape=(3,), check=0)
    with pytest.raises(TopoError):
        topo.shrink(nn.Linear(3, 2), {"weight": np.ones((2, 4))}, input_shape=(3,))


def written_view(net: nn.Module, x: Tensor) -> Tensor:
    return net.out(F.relu(net.a(x)).view(-1, 8 * 16))


def rearranged(net: nn.Module, x: Tensor) -> Tensor:
    return net.out(F.pixel_shuffle(F.relu(net.a(x)), 2))


def squeezed(net: nn.Module, x: Tensor) -> Tensor:
    high = F.relu(net.a(x))
    return net.out(high * torch.sigmoid(net.b(high.mean((2, 3))))[:, :, None, None])


def padded(net: nn.Module, x: Tensor) -> Tensor:
    return net.out(F.pad(F.relu(net.a(x)), (0, 0, 0, 0, 2, 2)) + net.b(x))


def scaled(net: nn.Module, x: Tensor) -> Tensor:
    return net.out(F.prelu(F.instance_norm(net.a(x)), net.b))


def several(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    high = F.relu(net.a(x))
    return {"whole": net.out(high), "part": high[:, :2]}


def summed(net: nn.Module, x: Tensor) -> Tensor:
    return net.out(torch.einsum("bchw,c->bchw", F.relu(net.a(x)), net.b))


ODD = {
    written_view: (nn.Conv2d(2, 8, 1), None, nn.Linear(128, 2)),
    rearranged: (nn.Conv2d(2, 8, 1), None, nn.Conv2d(2, 2, 1)),
    squeezed: (nn.Conv2d(2, 8, 1), nn.Linear(8, 8), nn.Conv2d(8, 2, 1)),
    padded: (nn.Conv2d(2, 8, 1), nn.Conv2d(2, 12, 1), nn.Conv2d(12, 2, 1)),
    scaled: (nn.Conv2d(2, 8, 1), nn.Parameter(torch.rand(8)), nn.Conv2d(8, 2, 1)),
    several: (nn.Conv2d(2, 8, 1), None, nn.Conv2d(8, 2, 1)),
    summed: (nn.Conv2d(2, 8, 1), nn.Parameter(torch.rand(8)), nn.Conv2d(8, 2, 1)),
}


@pytest.mark.parametrize("forward", ODD, ids=lambda forward: forward.__name__)
def test_odd_code_gives_the_same_outputs_or_its_units_stay(forward) -> None:
    made = type("Odd", (nn.Module,), {"forward": forward})()
    for name, part in zip(("a", "b", "out"), ODD[forward]):
        if part is not None:
            setattr(made, name, part)
    net = stirred(made).double()
    masks = {name: np.ones(p.shape, bool) for name, p in net.named_parameters() if p.dim() > 1}
    masks["a.weight"][[1, 4, 5, 6, 7]] = False
    if forward is padded:
        masks["b.weight"][[3, 6, 7, 8, 9]] = False
    small = topo.shrink(net, masks, input_shape=(2, 4, 4))
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    before, after = masked_twin(net, masks)(x), small.model(x)
    before, after = (list(y.values()) if isinstance(y, dict) else [y] for y in (before, after))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(before, after))
    assert small.report["removed"] or small.report["stays"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("family", [Plain, Residual, Attending])
def test_models_too_large_for_doubles_are_held_in_single_precision(
    family: type, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision rounds by a hundredth: what is computed in float32 agrees, though weights stay as they are."""
    monkeypatch.setattr(proof, "_DOUBLE_AT_MOST", 0)
    monkeypatch.setattr(proof, "_MOST_AT_ONCE", 50)
    net = stirred(family()).to(dtype)
    for parameter in net.parameters():
        parameter.data *= 0.3
    names = topo.trace(family(), family.shape).shapes
    masks = {name: np.ones(shape, bool) for name, shape in names.items()}
    for mask in masks.values():
        mask[1::4] = False
    small = topo.shrink(net, masks, input_shape=family.shape, check=1)
    assert small.report["proof"]["dtype"] == "float32" and small.report["proof"]["relative_difference"] < 1e-4
    assert all(parameter.dtype == dtype for parameter in small.model.parameters())
    if dtype == torch.float32:  # the wiring comes from the graph of the whole
        again = topo.trace(small.model, family.shape)
        assert again.shapes == small.wiring.shapes and np.array_equal(again.outputs, small.wiring.outputs)
        steps = zip(again.steps, small.wiring.steps, strict=True)
        assert all(np.array_equal(a, b) for old, new in steps for a, b in zip(old.operands, new.operands, strict=True))
    monkeypatch.setattr(sys.modules["topo.shrink"], "_LARGE", 0)  # masks as bits, put on the weights as they are cut
    large = topo.shrink(net, masks, input_shape=family.shape, check=1)
    assert large.masks == small.masks and large.report == small.report
    held = large.model.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in small.model.state_dict().items())
    inputs = [((torch.rand(2, *family.shape, dtype=dtype),), {})]
    exact = proof.run(copy.deepcopy(net).double(), inputs, torch.float64)[0][0]
    single = proof.run(net, inputs, torch.float32)[0][0]
    assert single.dtype == torch.float64 and float((exact - single).abs().max()) < 1e-4 * float(exact.abs().max())


def test_a_model_whose_functions_hold_the_original_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net.run = lambda x: net[1](net[0](x))
    net.__class__ = type("Held", (nn.Sequential,), {"forward": lambda self, x: self.run(x)})
    with pytest.raises(ShrinkError, match="hold the original's layers"):
        topo.shrink(
            net,
            {"0.weight": np.ones((4, 3)), "1.weight": np.ones((2, 4))},
            topo.trace(net, (3,)),
            args=(torch.rand(1, 3),),
        )


def test_what_cannot_be_followed_is_refused_or_stays_whole() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            high = self.b(torch.relu(self.a(x)))
            return self.c(torch.linalg.qr(high[:, None] * torch.eye(5, dtype=x.dtype))[0].sum(1))

    net = stirred(Odd()).double()
    masks = {name: np.ones(getattr(net, name[0]).weight.shape, bool) for name in ("a.weight", "b.weight", "c.weight")}
    masks["a.weight"][[1, 2]], masks["b.weight"][:, 3], masks["c.weight"][:, 1] = False, False, False
    with pytest.warns(TraceWarning, match="linalg_qr"), pytest.raises(ShrinkError, match=r"linalg_qr.*--conservative"):
        topo.shrink(net, masks, input_shape=(4,))
    with pytest.warns(TraceWarning) as told:
        small = topo.shrink(net, masks, input_shape=(4,), conservative=True)
    assert len(told) == 1
    assert small.model.a.weight.shape == (3, 4) and small.model.b.weight.shape == (5, 3)  # all that qr reads stays
    x = torch.rand(3, 4, dtype=torch.float64)
    assert torch.allclose(masked_twin(net, masks)(x), small.model(x), rtol=1e-9)


def test_the_smaller_model_exports_and_prints_in_a_line() -> None:
    net = stirred(Residual())
    small = topo.shrink(net, dead_masks(net, net.shape, 1, 0.4, 0.3), input_shape=net.shape)
    x = torch.rand(1, *net.shape)
    assert torch.equal(torch.export.export(small.model, (x,)).module()(x), small.model(x))
    assert repr(small).startswith(f"Shrunk({small.report['before']['parameters']:,} -> ") and "\n" not in repr(small)


# -- the command


def test_the_command_writes_a_model_that_its_name_builds_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    net = stirred(topo.models.build("mlp:12-9-7-3"))
    rng = np.random.default_rng(0)
    masks = topo.MaskSet({f"fc{i}.weight": rng.random(s) < 0.25 for i, s in ((1, (9, 12)), (2, (7, 9)), (3, (3, 7)))})
    topo.write_masks(masks, tmp_path / "mask.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pt")
    for out in (tmp_path / "small.safetensors", tmp_path / "tiny.pt"):
        code = main(
            ["shrink", str(tmp_path / "mask.safetensors"), "--model", "mlp:12-9-7-3", "--weights",
             str(tmp_path / "w.pt"), "--check", "3", "--json", "-", "-o", str(out)]
        )  # fmt: skip
        report = json.loads(capsys.readouterr().out)
        assert code == 0 and report["proof"]["inputs"] == 3
        small = build(f"shrunk:{out}").eval()
        assert (
            sum(p.numel() for p in small.parameters()) == report["after"]["parameters"] < report["before"]["parameters"]
        )
        x = torch.rand(6, 12)
        twin = masked_twin(net, {name: masks[name] for name in masks})
        assert torch.allclose(twin(x), small(x), atol=1e-5)
        document = json.loads(out.with_suffix(".map.json").read_text())
        assert document["tensors"]["fc1.weight"]["old_shape"] == [9, 12]
        left = topo.read_masks(out.with_suffix(".masks.safetensors"))
        counted = topo.analyze(left, topo.networks.find_wiring(f"shrunk:{out}"), metrics="effective_params")
        assert counted.network["effective_params"] == report["effective"]["before"]["effective_params"]


def test_bad_calls_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mask, weights, out = (str(tmp_path / name) for name in ("m.safetensors", "w.pt", "o.safetensors"))
    topo.write_masks(topo.MaskSet({"fc1.weight": np.ones((2, 3)), "fc2.weight": np.ones((1, 2))}), mask)
    torch.save(topo.models.build("mlp:3-3-1").state_dict(), weights)
    model = ["--model", "mlp:3-2-1"]
    cases = [
        ([mask, "-o", out], 2, "--model"),
        ([mask, *model, "--weights", weights, "-o", str(tmp_path / "o.onnx")], 2, "should end in"),
        ([mask, *model, "-o", out], 1, "--weights"),
        ([mask, *model, "--weights", weights, "-o", out], 1, "'fc1.weight' of shape (3, 3); the model has (2, 3)"),
        ([mask, *model, "--weights", str(tmp_path / "none.pt"), "-o", out], 1, "there is no file"),
    ]
    for arguments, code, said in cases:
        assert main(["shrink", *arguments]) == code
        error = capsys.readouterr().err.strip()
        assert said in error and len(error.splitlines()) == 1, error
    assert not Path(out).exists()
