"""Chains of element-wise functions that are 0 at 0 though a part of them is not: `exp(w) - 1`, `2 sigmoid(x) - 1`.

Of weights that are made from parameters, and of activations that gate. Effective weights must be those with a gradient.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient_nets.table import fc, par, three
from gradients import Case, Net, differences
from quick_capture import quick_capture
from torch import Tensor, nn

import topo
from topo.metrics.paths import effective_masks

Function = Callable[[Tensor], Tensor]
# The probe scales what a saturation reads, so that these come first.
FIRST: dict[str, Function] = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "cos": lambda x: torch.cos(x / 9),
    "sin": lambda x: torch.sin(x / 9),
    "cosh": lambda x: torch.cosh(x / 9),
    "expm1": lambda x: torch.expm1(x / 9),
    "log1p": torch.log1p,
    "exp2": lambda x: 2.0 ** (x / 9),
    "": lambda x: x,
}
NEXT: dict[str, Function] = {
    "plus": lambda x: x + 0.7,
    "less": lambda x: 3 - x / 9,
    "squared": lambda x: (x / 9 + 1) ** 2,
    "root": lambda x: torch.sqrt(1 + x * x),
    "over": lambda x: 1 / (1 + x * x),
    "soft sign": lambda x: x / (1 + x.abs()),
    "rectified": lambda x: F.relu(x + 2),
    "gelu": lambda x: F.gelu(x + 3),
    "times one more": lambda x: x * (1 + x),
    "times itself off": lambda x: (1 + x) * (2 + x),
    "mixed": lambda x: torch.lerp(x, 1 + x * x, 0.3),
    "added": lambda x: torch.addcmul(x + 1, x, x),
    "turned": lambda x: (x.T + 1).T,
    "cut": lambda x: torch.cat([part + 1 for part in x.chunk(2)]),
    "elsewhere": lambda x: torch.where(torch.ones((), dtype=torch.bool), x + 1, x),
    "held": lambda x: x.clamp(min=-50) + 1,
}
CHAINS = 60


def chains(seed: int, many: int) -> Iterator[tuple[str, Function]]:
    """Functions of a few steps; of most, their value at 0 is taken off at the end or in between."""
    rng = np.random.default_rng(seed)
    for _ in range(many):
        names = [str(rng.choice(list(FIRST))), *(str(rng.choice(list(NEXT))) for _ in range(int(rng.integers(0, 4))))]
        steps = [(FIRST if at == 0 else NEXT)[name] for at, name in enumerate(names)]
        cut = int(rng.integers(0, len(steps) + 1)) if rng.random() < 0.8 else 99
        yield " ".join([*names, "off after", str(cut)]), made_of(steps, cut)


def made_of(steps: list[Function], cut: int) -> Function:
    offsets = [0.0] * (len(steps) + 1)
    if cut < len(offsets):
        offsets[cut] = float(run(steps, offsets, torch.zeros(2, 2, dtype=torch.float64), cut)[0, 0])
    return lambda x: run(steps, offsets, x, len(steps))


def run(steps: list[Function], offsets: list[float], x: Tensor, until: int) -> Tensor:
    for step, offset in zip(steps[:until], offsets):
        x = step(x - offset if offset else x)
    return x - offsets[until] if offsets[until] else x


class Many(nn.Module):
    """One small network for each function: of a weight, or of an activation that gates."""

    def __init__(self, functions: list[tuple[str, Function]]) -> None:
        super().__init__()
        self.functions = functions
        self.nets = nn.ModuleList(
            Net(of_weight, f=f, w=par(4, 4), o=fc(4, 2))
            if at % 2
            else Net(of_gate, f=f, a=fc(4, 4), b=fc(4, 4), o=fc(4, 2))
            for at, (_, f) in enumerate(functions)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [net(x) for net in self.nets]


def of_weight(s: Net, x: Tensor) -> Tensor:
    return s.o(x @ s.f(s.w))


def of_gate(s: Net, x: Tensor) -> Tensor:
    return s.o(s.b(x) * s.f(s.a(x)))


def test_random_chains_of_functions():
    functions = list(chains(5, CHAINS))
    found = differences(Case(lambda: Many(functions), ((4, 4),), densities=(0.4,)), "soft", quick_capture)
    assert not found, "\n".join(f"{functions[int(line.split('.')[1])][0]}: {line}" for line in found)


def test_the_chains_are_of_both_kinds():
    at_zero = [float(f(torch.zeros(2, 2, dtype=torch.float64))[0, 0]) for _, f in chains(5, CHAINS)]
    assert 15 < sum(value == 0 for value in at_zero) < CHAINS - 15


EYE, TRIANGLE = torch.eye(8), torch.ones(8, 8).tril()
OF_WEIGHTS: dict[str, Function] = {
    "less an identity": lambda w: w.exp() - EYE,
    "less the transpose": lambda w: w.exp() - w.T.exp(),
    "more than once the transpose": lambda w: 2 * w - w.T,
    "less the transpose twice": lambda w: torch.sub(w, w.T, alpha=2),
    "of a sum": lambda w: (w + w.T).exp() - 1,
    "of a product": lambda w: (w * w.T).exp() - 1,
    "of a product of matrices": lambda w: (w @ w).exp() - 1,
    "of a triangle": lambda w: (w * TRIANGLE).exp() - 1,
    "in a triangle": lambda w: (w.exp() - 1) * TRIANGLE,
    "two of them": lambda w: (w.exp() - 1) * (w.T.exp() - 1),
    "both ways": lambda w: (w.exp() - (-w).exp()) / (w.exp() + (-w).exp()),
    "chosen": lambda w: torch.where(EYE > 0, w.exp(), w.cos()) - 1,
    "chosen, one of them": lambda w: torch.where(EYE > 0, w.exp(), w) - 1,
    "filled": lambda w: w.exp().masked_fill(EYE > 0, 0.0) - 1,
    "padded": lambda w: F.pad((w.exp() - 1)[:6], (0, 0, 1, 1)),
    "nothing of it": lambda w: w * 0.0 + w.T,
}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_weights_made_from_one_parameter(name):
    function = OF_WEIGHTS[name]
    case = Case(three(lambda s, x: s.o(x @ function(s.w)), w=lambda: par(8, 8)), ((8, 8),))
    assert not differences(case, "soft", quick_capture)


def notes_of(
    forward: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch, device: str = "cpu", **held: Tensor
) -> str:
    monkeypatch.setattr(importlib.import_module("topo.trace"), "capture", quick_capture) if device == "cpu" else None
    makers = {key: (lambda v=v: v) for key, v in held.items()}
    model = three(forward, w=lambda: par(8, 8), **makers)().double().to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "\n".join(topo.trace(model, args=(torch.ones(3, 8, device=device).double(),)).notes)


def test_what_may_cancel_is_noted(monkeypatch):
    by_units = torch.full((8,), math.log(2), dtype=torch.float64)
    by_units[3:] = 0.5
    text = notes_of(lambda s, x: s.o(F.softplus(s.a(x)) - s.c), monkeypatch, c=by_units)
    assert "'sub' adds a constant that cancels it at some places" in text
    assert "adds a constant" not in notes_of(lambda s, x: s.o(F.softplus(s.a(x)) - s.c), monkeypatch, c=by_units + 1)
    text = notes_of(lambda s, x: s.o(F.softplus(s.a(x)) - s.c), monkeypatch, device="meta", c=by_units)
    assert "'sub' adds a constant whose values are not known" in text
    for function in (
        lambda w: w * torch.arange(8) - w.T * torch.arange(8),
        lambda w: w + (-w.T),
        lambda w: (w + w.T) - w.T,
    ):
        text = notes_of(lambda s, x, f=function: s.o(x @ f(s.w)), monkeypatch)
        assert "a function of 'w' is taken off another" in text
    for function in (lambda w: w + w.T, lambda w: w - w.T, lambda w: 2 * w - w.T, lambda w: w - w.roll(1, 0)):
        assert "is taken off" not in notes_of(lambda s, x, f=function: s.o(x @ f(s.w)), monkeypatch)


@pytest.mark.parametrize("constant", [torch.log(torch.tensor(2.0)).item(), math.log(2), torch.tensor(math.log(2))])
def test_what_cancels_in_the_type_of_the_model_alone(constant, monkeypatch):
    """A shift that was rounded to float32: softplus(0) less it is 0 there, and 1e-9 in float64."""
    monkeypatch.setattr(importlib.import_module("topo.trace"), "capture", quick_capture)
    model = three(lambda s, x: s.o(s.b(x) * (F.softplus(s.a(x)) - constant)))()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wiring = topo.trace(model, args=(torch.ones(3, 8),))
    masks = {name: np.ones(shape, bool) for name, shape in wiring.shapes.items()}
    masks["a.weight"][:4] = False
    live = effective_masks(topo.build_graph(topo.MaskSet(masks), wiring))
    assert live["b.weight"][4:].all() and not live["b.weight"][:4].any()


def test_products_that_cancel_are_noted(monkeypatch):
    def said(function: Callable[[Tensor, Tensor], Tensor]) -> bool:
        text = notes_of(lambda s, x: s.o(x @ function(s.w, s.v)), monkeypatch, v=par(8, 8))
        return "'v' and others is taken off something else of it" in text

    for takes in (
        lambda w, v: (w + 1) * v - v,
        lambda w, v: w.exp() * v - v,
        lambda w, v: (w + v) ** 2 - v**2,
        lambda w, v: -v + (w + 1) * v,
    ):
        assert said(takes)
    for adds in (lambda w, v: w - v, lambda w, v: w + v @ v.T, lambda w, v: w * v):
        assert not said(adds)
