"""Equal blocks are traced once: the wiring is that of the whole model, and what is not equal is traced whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn

import topo
from topo.trace import blocks

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 20, "use_cache": False}
N = 8
NOTE = "are equal: a few are traced"


def config(kind: str, n: int = N, **more: object) -> object:
    return getattr(transformers, f"{kind}Config")(**SIZES, num_hidden_layers=n, **more)


def llama(n: int = N) -> nn.Module:
    return transformers.LlamaForCausalLM(config("Llama", n, num_key_value_heads=1))


def without_numbers(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def both(model: nn.Module) -> tuple[topo.Wiring, topo.Wiring]:
    """As it is traced, and traced whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = topo.trace(model)
        with mock.patch.object(blocks, "_FEWEST", 10**6):
            return found, topo.trace(model)


def without_note(wiring: topo.Wiring) -> list[str]:
    return sorted(note for note in wiring.notes if NOTE not in note)


EQUAL = {
    "llama": llama,
    "llama without numbers": lambda: without_numbers(llama),
    "bert": lambda: transformers.BertModel(config("Bert")),
    "mixtral": lambda: (
        transformers.MixtralForCausalLM(  # whose experts run on tensors without numbers in bfloat16 alone
            config("Mixtral", num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=2)
        ).bfloat16()
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_repeated_blocks_are_those_of_the_whole_model(name):
    found, whole = both(EQUAL[name]())
    assert any(NOTE in note for note in found.notes) and not any(NOTE in note for note in whole.notes)
    assert blocks._equal(found, whole)
    assert found.parameters == whole.parameters and found.n_units == whole.n_units
    assert without_note(found) == without_note(whole)


class Skips(nn.Module):
    """The state behind an early block, counted from the front or from the end, joins the last one."""

    def __init__(self, at: int, n: int = N) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(n))
        self.out, self.at = nn.Linear(6, 3), at
        self.config = transformers.PretrainedConfig(num_hidden_layers=n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = []
        for layer in self.layers:
            x = x + torch.relu(layer(x))
            states.append(x)
        return self.out(x * states[self.at])


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, -2, -3, -4])
def test_states_of_any_block_may_be_read(at):
    model = Skips(at)
    found = topo.trace(model, (6,))
    with mock.patch.object(blocks, "_FEWEST", 10**6):
        whole = topo.trace(model, (6,))
    assert blocks._equal(found, whole)
    assert len(model.layers) == N


def test_unequal_blocks_are_traced_whole():
    model = llama()
    model.model.layers[4].mlp.act_fn = nn.Sigmoid()
    assert blocks.equal_blocks(model) is None
    model = llama(N + 1)
    model.model.layers[0].mlp.act_fn = nn.Sigmoid()
    run = blocks.equal_blocks(model)
    assert run is not None and run.first == 1
    found, whole = both(model)
    assert any(f"blocks 1 to {N}" in note for note in found.notes) and blocks._equal(found, whole)


class ByNumber(Skips):
    """One block is treated by its number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            y = layer(x)
            x = y if number == self.at else x + y
        return self.out(x)


@pytest.mark.parametrize("at", [2, 5, N - 2])
def test_a_block_that_is_treated_by_its_number_is_seen(at):
    found = topo.trace(ByNumber(at), (6,))
    assert not any(NOTE in note for note in found.notes)
    with mock.patch.object(blocks, "_FEWEST", 10**6):
        whole = topo.trace(ByNumber(at), (6,))
    assert blocks._equal(found, whole)


WAYS = {
    "turned": lambda self, w, x: x @ w,
    "turned by T": lambda self, w, x: x @ w.T.T,
    "in part": lambda self, w, x: torch.nn.functional.pad(x[:, :3] @ w[:3, :3], (0, 3)),
    "rows in another order": lambda self, w, x: x @ w[[5, 4, 3, 2, 1, 0]].T,
    "through a buffer": lambda self, w, x: x @ (w * self.kept).T,
    "with zeros written": lambda self, w, x: x @ w.clone().fill_diagonal_(0).T,
}


class LateOtherwise(Skips):
    """One block reads its weight turned, in part, or through a buffer, where the others do not."""

    def __init__(self, at: int, way: str) -> None:
        super().__init__(at)
        self.way = WAYS[way]
        self.register_buffer("kept", torch.eye(6).roll(1, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            x = x + (self.way(self, layer.weight, x) if number == self.at else x @ layer.weight.T)
        return self.out(x)


@pytest.mark.parametrize("way", WAYS)
def test_a_late_block_that_reads_its_weight_otherwise_is_seen(way):
    model = LateOtherwise(N - 1, way)
    found = topo.trace(model, (6,))
    assert not any(NOTE in note for note in found.notes)
    with mock.patch.object(blocks, "_FEWEST", 10**6):
        assert blocks._equal(found, topo.trace(model, (6,)))
