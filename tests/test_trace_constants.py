"""What is a constant whatever the network computes: no path, and no source where it is 0.

A softmax of one score, a norm or variance of one entry. The masks that gradients would give are known by hand here.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient_nets.table import three
from quick_capture import quick_capture
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import jacfwd, jvp, vmap

import topo
from topo.errors import TopoError
from topo.graph import build_graph
from topo.masks import MaskSet
from topo.metrics.paths import effective_masks

Function = Callable[[Tensor], Tensor]


def by_one(function: Function) -> Function:
    """A function over an axis of one entry."""
    return lambda x: function(x.unsqueeze(-1)).squeeze(-1)


def less_what_is_written_since(x: Tensor) -> Tensor:
    one, other = x.clone(), x.clone()
    one[:, :4] = 0
    return other - one


def less_what_has_no_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        held = x.clone()
    return x - held


ZERO: dict[str, Function] = {
    "log_softmax": by_one(lambda x: x.log_softmax(-1)),
    "layer_norm": by_one(lambda x: F.layer_norm(x, (1,))),
    "group_norm": lambda x: F.group_norm(x, 8),
    "variance": lambda x: x.unsqueeze(-1).var(-1, correction=0),
    "deviation": lambda x: x.unsqueeze(-1).std(-1, correction=0),
    "variance and mean": lambda x: torch.var_mean(x.unsqueeze(-1), -1, correction=0)[0],
}
ONE: dict[str, Function] = {
    "softmax": by_one(lambda x: x.softmax(-1)),
}
PASSES: dict[str, Function] = {
    "less half of it": lambda x: x - 0.5 * x,
    "less twice of it": lambda x: torch.sub(x, x, alpha=2),
    "less another": lambda x: x - x.roll(1, -1),
    "less what it was": lambda x: x.clone().add_(1).mul_(2) - x,
    "less a function of it": lambda x: torch.relu(x) - torch.tanh(x),
    "less what it was before it was written": lambda x: x.clone() - x.mul_(3),
    "less its mean of two": lambda x: (x.view(-1, 4, 2) - x.view(-1, 4, 2).mean(-1, keepdim=True)).reshape(x.shape),
    "less what is written since": less_what_is_written_since,
    "less what has no gradient": less_what_has_no_gradient,
    "a tiny part": lambda x: x / 1e13,
    "straight through": lambda x: x + (x.round() - x).detach(),
    "softmax of two": lambda x: x.view(-1, 4, 2).softmax(-1).reshape(x.shape),
    "layer_norm of two": lambda x: F.layer_norm(x.view(-1, 4, 2), (2,)).reshape(x.shape),
    "over its square": lambda x: x / (x * x),
    "a variance with it": lambda x: torch.var_mean(x.unsqueeze(-1), -1, correction=0)[1],
}


@pytest.fixture
def living(monkeypatch):
    """Network -> how many weights of each layer are effective in the dense network; its notes."""
    monkeypatch.setattr(importlib.import_module("topo.trace"), "capture", quick_capture)

    def found(forward, gates="soft", rows=3):
        model = three(forward)().double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wiring = topo.trace(model, args=(torch.ones(rows, 8).double(),), gates=gates)
        masks = MaskSet({name: np.ones(wiring.shapes[name], bool) for name in wiring.shapes})
        effective = effective_masks(build_graph(masks, wiring))
        return {name: int(np.asarray(effective[name]).sum()) for name in masks}, "\n".join(wiring.notes)

    return found


@pytest.mark.parametrize("name", [*ZERO, *ONE])
def test_constants_are_no_paths(name, living):
    zero, function = name in ZERO, {**ZERO, **ONE}[name]
    added, _ = living(lambda s, x: s.o(s.b(x) + function(s.a(x))))
    assert added == {"a.weight": 0, "b.weight": 64, "o.weight": 32}
    gated, _ = living(lambda s, x: s.o(x + s.b(x) * function(s.a(x))))
    assert gated == {"a.weight": 0, "b.weight": 0 if zero else 64, "o.weight": 32}


@pytest.mark.parametrize("name", PASSES)
def test_what_does_not_cancel_stays(name, living):
    found, _ = living(lambda s, x: s.o(s.b(x) + PASSES[name](s.a(x))))
    assert found == {"a.weight": 64, "b.weight": 64, "o.weight": 32}


def test_an_attention_to_one_key_reads_its_value_alone(living):
    def attend(s, x):
        q, k, v = (side[:, None] for side in (s.a(x), s.b(x), x))
        return s.o(F.scaled_dot_product_attention(q, k, v)[:, 0])

    assert living(attend)[0] == {"a.weight": 0, "b.weight": 0, "o.weight": 32}
    assert living(attend, gates="hard")[0] == {"a.weight": 64, "b.weight": 64, "o.weight": 32}


def test_a_sign_is_counted_with_a_note(living):
    found, notes = living(lambda s, x: s.o(s.b(x) * by_one(lambda y: F.normalize(y, dim=-1))(s.a(x))))
    assert found["a.weight"] == 64 and "a norm over one entry leaves no more than its sign" in notes


class Transformed(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 4), nn.Linear(4, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a, x))


def left_open(a: nn.Module, x: Tensor) -> Tensor:
    importlib.import_module("torch._functorch.eager_transforms").enter_jvp_nesting()
    torch._C._functorch._vmap_increment_nesting(3, "error")
    torch._C._functorch._grad_increment_nesting()
    forward_ad.enter_dual_level()
    raise ValueError("left open")


TRANSFORMED: dict[str, Callable[..., Tensor]] = {
    "jvp": lambda a, x: jvp(a, (x,), (x,))[1],
    "jacfwd": lambda a, x: jacfwd(lambda y: a(y).tanh())(x[0]),
    "vmap of a decision": lambda a, x: vmap(lambda y: a(y) if y.sum() > 0 else y)(x),
    "left open": left_open,
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_are_followed_or_told_and_leave_nothing_behind(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert "b.weight" in topo.trace(Transformed(TRANSFORMED[name]), (4,)).names
        except TopoError as error:
            assert str(error) and "\n" not in str(error)
    assert torch._C._functorch.peek_interpreter_stack() is None and forward_ad._current_level == -1
    moved = nn.Linear(3, 3).double()
    moved(torch.ones(1, 3).double()).sum().backward()
    assert moved.weight.grad is not None
