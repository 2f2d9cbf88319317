"""Language models in `topo train` and `imp`: windows, hidden tokens, resumption, BERT tickets, bad data."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.cli import main
from topo.data.tokens import Tokens, load_tokens
from topo.errors import TopoError
from topo.train import irp
from topo.train.ranks import Ranks
from topo.train.recipe import Recipe
from topo.train.sequences import Sequences, hidden

RECIPE = {"epochs": 2, "batch": 4, "lr": 0.05, "optimizer": "adam", "schedule": "constant", "padding": 0, "flip": False}


class Bigram(nn.Module):
    """Each token's next one by a table; nothing else is seen."""

    def __init__(self, vocabulary: int = 6, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.embed(tokens)))


def cycle(count: int = 400) -> Tokens:
    """0 1 2 3 4 0 1 ...: the next token is known, and 5 masks."""
    row = np.arange(count) % 5
    return Tokens("cycle", row, row[:100], mask=5)


def source(data: Tokens, **recipe) -> Sequences:
    return Sequences(data, Recipe(**RECIPE | recipe), Ranks(0, 1, torch.device("cpu")))


def test_windows_hold_every_token_once_and_ask_for_the_next():
    made = source(Tokens("row", np.arange(41), np.arange(30)), length=8)
    shown = [batch for batch in made.epoch(0, 0)]
    inputs, targets = (torch.cat([getattr(batch, side) for batch in shown]) for side in ("inputs", "targets"))
    assert sorted(inputs.flatten().tolist()) == list(range(40)) and torch.equal(targets, inputs + 1)
    other = torch.cat([batch.inputs for batch in made.epoch(0, 1)])
    assert not torch.equal(inputs, other) and torch.equal(inputs, torch.cat([b.inputs for b in made.epoch(0, 0)]))
    assert [batch.inputs[:, 0].tolist() for batch in made.look("test")] == [[0, 8, 16]]


def test_hidden_tokens_are_as_in_the_paper():
    rows = torch.randint(5, (4000, 20), generator=torch.Generator().manual_seed(0))
    shown, wanted = hidden(rows, 0.15, 99, 5, 7)
    judged = wanted != -100
    assert (judged.sum(1) == 3).all() and torch.equal(wanted[judged], rows[judged])
    assert torch.equal(shown[~judged], rows[~judged])
    masked, same = (shown[judged] == 99).double().mean(), (shown[judged] == rows[judged]).double().mean()
    assert masked == pytest.approx(0.8, abs=0.015)
    assert same == pytest.approx(0.1 + 0.1 / 5, abs=0.01)  # some random tokens are the right ones
    again = hidden(rows, 0.15, 99, 5, 7)
    assert torch.equal(shown, again[0]) and not torch.equal(shown, hidden(rows, 0.15, 99, 5, 8)[0])


@pytest.mark.parametrize("length", [6, 9])  # 6: as many tokens as there are classes, so that shapes tell nothing
def test_what_a_table_can_know_is_learnt_under_masks(length):
    masks = {"out.weight": np.random.default_rng(0).random((6, 8)) < 0.8}
    run = topo.train(Bigram(), cycle(), masks=masks, recipe=RECIPE | {"length": length, "epochs": 8})
    assert run.final_accuracy == 1.0 and topo.verify_masks(run.model, masks) == ()


@pytest.mark.parametrize("task", ["next", "masked"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, task):
    recipe = RECIPE | {"task": task, "length": 10, "epochs": 3}

    def killed(done, total, label):
        if label.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        topo.train(Bigram(), cycle(), recipe=recipe, out=tmp_path / "run", progress=killed)
    gone_on = topo.train(Bigram(), cycle(), recipe=recipe, out=tmp_path / "run", resume=True)
    whole = topo.train(Bigram(), cycle(), recipe=recipe)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, gone_on.model.state_dict()[name])
    other = Tokens("cycle", cycle().train[::-1].copy(), cycle().test, mask=5)
    with pytest.raises(TopoError, match="holds a run on other data"):
        topo.train(Bigram(), other, recipe=recipe, out=tmp_path / "run", resume=True)


def test_data_come_from_texts_numbers_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij" * 10)
    held = load_tokens(tmp_path / "a.txt")
    assert (len(held.train), len(held.test), held.mask, held.train[0]) == (90, 10, 256, ord("a"))
    np.save(tmp_path / "n.npy", np.arange(50).reshape(5, 10))
    held = load_tokens(tmp_path / "n.npy")
    assert (len(held.train), held.mask) == (45, None) and held.with_validation(0.2).val.tolist() == list(range(36, 45))
    parts = tmp_path / "parts"
    parts.mkdir()
    for part in ("train", "test", "val"):
        (parts / f"{part}.txt").write_text(part * 20)
    held = load_tokens(parts)
    assert bytes(held.val.astype(np.uint8)).decode() == "val" * 20
    run = topo.train(Bigram(257), parts, recipe=RECIPE | {"length": 10})
    assert {"val_loss", "test_loss"} <= run.history[-1].keys() and run.chosen_on == "the validation part"
    built_in = load_tokens("docstrings")
    assert len(built_in.train) > 3 * len(built_in.test) > 10_000 and built_in.largest == 256


def test_what_does_not_fit_is_one_line(tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    np.save(tmp_path / "floats.npy", np.ones(50))
    (tmp_path / "two").mkdir()
    np.save(tmp_path / "two" / "train.npy", np.arange(9))
    long, bare = Bigram(6), Tokens("bare", np.arange(5), np.arange(5))
    cases = {
        "is not text in UTF-8": lambda: topo.train(Bigram(), tmp_path / "bytes.txt"),
        "token numbers are one array": lambda: topo.train(Bigram(), tmp_path / "floats.npy"),
        "holds no train.txt and test.txt": lambda: topo.train(Bigram(), tmp_path / "two"),
        "is not a file": lambda: topo.train(Bigram(), tmp_path / "none.txt"),
        "holds token 5; the model knows 0 to 3": lambda: topo.train(Bigram(4), cycle()),
        "names none that stands for hidden ones": lambda: topo.train(long, bare, recipe=RECIPE | {"task": "masked"}),
        "too few for one sequence of length = 99": lambda: topo.train(long, bare, recipe=RECIPE | {"length": 99}),
        "has task = 'next', which is for tokens": lambda: topo.train("mlp:64-10", "digits", recipe={"task": "next"}),
        "has length = 9, which is for tokens": lambda: topo.train("mlp:64-10", "digits", recipe={"length": 9}),
        "it should be one of auto, next, masked": lambda: Recipe(task="last"),
        "a number above 0, below 1": lambda: Recipe(mask_share=0.0),
        "they are a row of whole numbers from 0": lambda: Tokens("x", np.array([-1, 2]), np.arange(3)),
        "irp takes a data set of images": lambda: irp(Bigram(), cycle(), rounds=1),
        "does not take the batches": lambda: topo.train("mlp:64-10", cycle(), recipe=RECIPE),
    }
    for said, call in cases.items():
        with pytest.raises(TopoError) as caught:
            call()
        assert said in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_nets_of_tokens_train_one_by_one_with_a_note():
    masks = [{"out.weight": np.ones((6, 8))}, None]
    runs = topo.train_many(Bigram(), masks, cycle(100), recipe=RECIPE | {"length": 10})
    assert all("one by one: the data are tokens" in run.notes[-1] for run in runs)


def test_bert_tickets_prune_the_encoder_alone(tmp_path):
    """The masked-language task is taken from the model's name; a folder without weights has them drawn by the seed."""
    pytest.importorskip("transformers")
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 257, "hidden_size": 16,
              "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
              "max_position_embeddings": 32}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    argv = ["imp", "--model", f"hf:{tmp_path}", "--data", str(tmp_path / "text.txt"), "--recipe", "bert_tickets",
            "-O", "length=32", "--density", "0.81", "--fraction", "0.1", "--layers", "bert.encoder.*weight",
            "-o", str(tmp_path / "tickets"), "--quiet"]  # fmt: skip
    assert main(argv) == 0
    masks = topo.read_masks(tmp_path / "tickets" / "masks.safetensors")
    assert len(masks) == 12 and all(name.startswith("bert.encoder.") for name in masks)
    assert masks.kept == round(0.81 * masks.size)
    config = (tmp_path / "tickets" / "level_00" / "config.toml").read_text()
    assert 'task = "masked"' in config and "length = 32" in config
    assert "the weights are drawn from the seed" in masks.provenance["notes"][-1]


def test_a_folders_own_weights_are_scored_and_trained_never_others(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(5)
    made = transformers.GPT2LMHeadModel(config)
    made.save_pretrained(tmp_path / "own")
    model, layers = f"hf:{tmp_path / 'own'}", "transformer.h.*.weight"
    masks = topo.generate("magnitude", model, density=0.3, layers=layers)
    flat = np.concatenate([np.abs(made.get_parameter(name).detach().numpy().ravel()) for name in masks])
    least = np.sort(flat)[::-1][masks.kept - 1]
    for name in masks:
        weight = np.abs(made.get_parameter(name).detach().numpy()).T  # input-first
        assert np.array_equal(masks[name], weight >= least)
    tokens = Tokens("t", np.arange(300) % 40, np.arange(60) % 40)
    run = topo.train(
        model, tokens, masks=masks, recipe=RECIPE | {"lr": 1e-12, "length": 8, "epochs": 1, "weight_decay": 0.0}
    )
    kept = run.model.get_parameter("transformer.wte.weight")
    torch.testing.assert_close(kept, made.transformer.wte.weight)
    assert topo.verify_masks(run.model, masks) == () and not any("drawn" in note for note in run.notes)
    weights = tmp_path / "own" / "model.safetensors"
    weights.rename(tmp_path / "own" / "pytorch_model.bin")
    with pytest.raises(TopoError, match=r"hf:"):
        topo.generate("magnitude", model, density=0.3, layers=layers)
