"""Other data, losses and loops than our own: DataLoaders, tokens, regression, and the frameworks' trainers."""

from __future__ import annotations

import copy
import importlib.util
import tomllib
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import topo
from topo.data import load
from topo.errors import MaskError, TopoError, TrainingError, WiringError
from topo.masks import MaskSet
from topo.train import MaskCallback, Recipe
from topo.train.masking import applied_masks

RECIPE = Recipe(epochs=2, batch=64, lr=0.05, padding=0, flip=False, schedule="constant")


def masks_of(model, seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    return MaskSet({n: rng.random(tuple(p.shape)) < density for n, p in model.named_parameters() if p.dim() > 1})


def mlp(*sizes):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digit_tensors(count=640):
    digits = load("digits")
    x = torch.from_numpy(digits.normalised(digits.train_images))[:count]
    return TensorDataset(x, torch.from_numpy(digits.train_labels)[:count])


# -- topo.train on a user's own data


def test_a_dataloader_trains_as_a_plain_loop_would():
    loader, masks = DataLoader(digit_tensors(), 64), masks_of(mlp(64, 32, 10))
    run = topo.train(mlp(64, 32, 10), (loader, loader), masks=masks, recipe=RECIPE)
    hand = topo.apply_masks(mlp(64, 32, 10), masks)
    optimizer = torch.optim.SGD(hand.parameters(), 0.05, 0.9, weight_decay=1e-4)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(hand(x), y).backward()
            optimizer.step()
    for name, value in topo.strip_masks(hand).state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    assert topo.verify_masks(run.model, masks) == () and run.final_accuracy > 0.5


def test_shuffled_loaders_are_reproduced_and_resumed(tmp_path):
    def train(model, **more):
        data = {"train": DataLoader(digit_tensors(), 64, shuffle=True), "test": DataLoader(digit_tensors(), 200)}
        return topo.train(model, data, recipe=RECIPE, rng=3, **more)

    class Stopping(nn.Sequential):
        calls = 0

        def forward(self, x):
            self.calls += self.training
            if self.calls == 15:
                raise KeyboardInterrupt
            return super().forward(x)

    whole = train(nn.Sequential(*mlp(64, 10)))
    with pytest.raises(KeyboardInterrupt):
        train(Stopping(*mlp(64, 10)), out=tmp_path)
    Stopping.calls = 1000
    again = train(Stopping(*mlp(64, 10)), out=tmp_path, resume=True)
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in whole.model.state_dict().items())
    other = DataLoader(TensorDataset(*(t.flip(0) for t in digit_tensors().tensors)), 64, shuffle=True)
    with pytest.raises(TrainingError, match=r"other data \(content\)"):
        topo.train(Stopping(*mlp(64, 10)), {"train": other, "test": DataLoader(digit_tensors(), 200)}, recipe=RECIPE,
                   rng=3, out=tmp_path, resume=True)  # fmt: skip


def test_data_sets_of_ones_own_are_told_by_some_examples(tmp_path):
    class Own(torch.utils.data.Dataset):
        def __init__(self, sign=1.0, count=64, noise=None):
            self.sign, self.count, self.noise = sign, count, noise

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            x = torch.linspace(-1, 1, 64) * self.sign + torch.rand(()) + np.random.rand()  # noqa: NPY002
            return (x if self.noise is None else x + next(self.noise)).float(), index % 10

    def content(data):
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run = topo.train(mlp(64, 10), DataLoader(data, 32), recipe=RECIPE, epochs=1, out=out)
        return out, tomllib.loads((out / "config.toml").read_text())["run"]["content"], run.notes

    out, first, notes = content(Own())
    assert first.startswith("examples:") and "by 8 examples of each part" in notes[0]
    assert content(Own())[1] == first
    assert first not in (content(Own(sign=2.0))[1], content(Own(count=96))[1])
    _, unknown, notes = content(Own(noise=iter(range(10**6))))
    assert unknown == "unknown" and "would go unnoticed" in notes[0]
    with pytest.raises(TrainingError, match=r"other data \(content\)"):
        topo.train(mlp(64, 10), DataLoader(Own(sign=2.0), 32), recipe=RECIPE, epochs=1, out=out, resume=True)


class Dicts(nn.Module):
    """Tokens in, a dict out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)

    def forward(self, ids):
        return {"hidden": (hidden := self.embed(ids)), "scores": self.head(hidden)}


def test_tokens_dicts_and_an_output_by_name():
    ids = torch.randint(20, (96, 7), generator=torch.Generator().manual_seed(0))
    labels = (ids + 1) % 20
    labels[:, 0] = -100
    data = [({"ids": ids[i : i + 32]}, labels[i : i + 32]) for i in range(0, 96, 32)]
    recipe = RECIPE.changed(epochs=40, lr=0.5, weight_decay=0.0)
    masks = MaskSet({"head.weight": np.random.default_rng(0).random((20, 16)) < 0.7})
    run = topo.train(Dicts(), (data, data), masks=masks, recipe=recipe, output="scores")
    assert run.final_accuracy == 1.0 and topo.verify_masks(run.model, masks) == ()
    by_dict = [{"ids": x["ids"], "labels": y} for x, y in data]
    same = topo.train(Dicts(), (by_dict, by_dict), masks=masks, recipe=recipe, output="scores")
    assert same.final_accuracy == 1.0
    with pytest.raises(
        TrainingError, match="output='logits' is not a tensor of what the model gives: a dict with 'hidden'"
    ):
        topo.train(Dicts(), data, recipe=recipe, output="logits")


@pytest.mark.parametrize("own", [False, True])
def test_regression_has_a_loss_and_no_accuracy(own, tmp_path):
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(x, x[:, :3] @ torch.ones(3, 1)), 32)
    loss = (lambda answer, y: (answer - y).abs().mean()) if own else None
    run = topo.train(mlp(8, 16, 1), (data, data), recipe=RECIPE.changed(epochs=8), loss=loss, out=tmp_path)
    assert run.final_loss < (0.5 if own else 0.1) and np.isnan(run.final_accuracy)
    assert run.summary()["final_test_accuracy"] is None and "NaN" not in (tmp_path / "summary.json").read_text()
    found = topo.imp(mlp(8, 16, 1), (data, data), density=0.5, fraction=0.5, recipe=RECIPE, loss=loss)
    assert found.masks.kept == 72 and found.levels[-1].final_loss < 2


def test_two_inputs_and_pixels():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, a, b):
            return (self.conv(torch.cat([a, b], 1)),)

    a, b = torch.rand(8, 1, 4, 5), torch.rand(8, 1, 4, 5)
    data = [((a, b), (a > b).long()[:, 0])] * 4
    assert topo.train(Two(), (data, data), recipe=RECIPE.changed(lr=0.5, epochs=20)).final_accuracy > 0.8


def test_accumulated_batches_are_one_large_one_and_clipping_leaves_out_the_pruned():
    masks = masks_of(mlp(64, 32, 10))
    results = []
    for batch, accumulate in ((160, 1), (40, 4)):
        recipe = RECIPE.changed(batch=batch, accumulate=accumulate, clip=0.3)
        results.append(topo.train(mlp(64, 32, 10), "digits", masks=masks, recipe=recipe, rng=1).model.state_dict())
    loader = DataLoader(digit_tensors(), 160)
    for batch, accumulate in ((160, 1), (40, 4)):
        recipe = RECIPE.changed(accumulate=accumulate, clip=0.3)
        loader = DataLoader(digit_tensors(), batch)
        results.append(topo.train(mlp(64, 32, 10), loader, masks=masks, recipe=recipe).model.state_dict())
    hand, loader = topo.apply_masks(mlp(64, 32, 10), masks), DataLoader(digit_tensors(), 160)
    optimizer = torch.optim.SGD(hand.parameters(), 0.05, 0.9, weight_decay=1e-4)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(hand(x), y).backward()
            nn.utils.clip_grad_norm_(hand.parameters(), 0.3)
            optimizer.step()
    results.append(topo.strip_masks(hand).state_dict())
    for one, other in ((0, 1), (2, 3), (2, 4)):
        for name in results[one]:
            torch.testing.assert_close(results[one][name], results[other][name], atol=1e-4, rtol=1e-3)


def test_half_precision_with_a_scaler(tmp_path):
    masks = masks_of(mlp(64, 32, 10))
    run = topo.train(mlp(64, 32, 10), "digits", masks=masks, recipe=RECIPE.changed(amp="fp16"), out=tmp_path)
    assert run.final_accuracy > 0.7 and topo.verify_masks(run.model, masks) == ()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["scaler"]["scale"] > 0


def test_equal_bits_are_asked_of_torch_and_settings_come_back():
    seen = []

    class Looking(nn.Sequential):
        def forward(self, x):
            requested = torch.are_deterministic_algorithms_enabled()
            seen.append((requested, torch.is_deterministic_algorithms_warn_only_enabled()) if self.training else None)
            return super().forward(x)

    for requested in (True, False):
        topo.train(Looking(*mlp(64, 10)), "digits", recipe=RECIPE.changed(deterministic=requested), epochs=1)
        assert set(seen) - {None} == {(requested, requested)}
        assert not torch.are_deterministic_algorithms_enabled()
        seen.clear()


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def test_data_and_losses_that_cannot_be_trained_on():
    x, y = digit_tensors(64).tensors
    for data, options, said in (
        (DataLoader(Stream(), 4), {}, "without a length"),
        (iter([(x, y)]), {}, "without a length"),
        (digit_tensors(), {}, "one by one; a DataLoader makes batches of it"),
        ([], {}, "hold no batch"),
        ([x], {}, "a batch is a Tensor"),
        ([(x, y, y)], {}, "a batch is a tuple of 3"),
        ((x, y), {}, "data as a tuple are"),
        ({"train": [(x, y)], "dev": [(x, y)]}, {}, "a part called 'dev'"),
        ({"test": [(x, y)]}, {}, "no part called 'train'"),
        ([(x, y.float())], {}, "values need one answer each; they are not broadcast"),
        ([(x, y + 5)], {}, "Target 1[0-4] is out of bounds"),
        ([(x, None)], {}, "hold no targets; give loss="),
        ([(x, y)], {"loss": lambda a, b: a}, r"gives shape \(64, 10\); it should give one number"),
        ([(x, y)], {"loss": lambda a, b: 1.0}, "gives a float; it should give one number"),
        ([(x, y)], {"output": 3}, "output=3 is not a tensor of what the model gives"),
        ([(torch.rand(4, 65), y[:4])], {}, "does not take the batches"),
    ):
        with pytest.raises(TopoError, match=said) as caught:
            topo.train(mlp(64, 10), data, recipe=RECIPE, epochs=1, **options)
        assert "\n" not in str(caught.value)


# -- masks in the loops of others


def plain_loop(model, steps=6, optimizer=None, callback=None):
    x, y = digit_tensors(256).tensors
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    if callback is not None:
        callback.follow(optimizer)
    for step in range(steps):
        part = slice(40 * step, 40 * step + 40)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def test_a_callback_in_a_loop_of_ones_own_equals_applied_masks():
    masks = masks_of(mlp(64, 32, 10))
    held, applied = mlp(64, 32, 10), topo.apply_masks(mlp(64, 32, 10), masks)
    callback = MaskCallback(masks)
    assert callback.apply(held) is held
    names = list(held.state_dict())
    plain_loop(held, callback=callback)
    plain_loop(applied)
    assert list(held.state_dict()) == names == list(mlp(64, 32, 10).state_dict())
    for name, value in topo.strip_masks(applied).state_dict().items():
        torch.testing.assert_close(held.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    assert topo.verify_masks(held, masks) == ()
    callback.verify()
    with torch.no_grad():
        held[1].weight.add_(torch.nan)
    with pytest.raises(TrainingError, match=r"a mask is not in force: '1.weight' holds"):
        callback.verify()
    callback.hold()
    callback.verify()
    callback.release()
    plain_loop(held, 1)
    assert topo.verify_masks(held, masks) != ()


def test_what_a_callback_refuses():
    masks = masks_of(mlp(64, 10))
    with pytest.raises(MaskError, match="at least one mask"):
        MaskCallback({})
    with pytest.raises(WiringError, match="is not a parameter of the model"):
        MaskCallback({"fc.weight": np.eye(3)}).apply(mlp(64, 10))
    with pytest.raises(WiringError, match="is computed by a parametrization"):
        MaskCallback(masks).apply(topo.apply_masks(mlp(64, 10), masks))
    with pytest.raises(TrainingError, match="is not an optimizer of torch"):
        MaskCallback(masks).follow(object())
    inside = nn.ModuleDict({"net": mlp(64, 10), "other": nn.Linear(2, 2)})
    assert topo.verify_masks(MaskCallback(masks).apply(inside)["net"], masks) == ()


def tiny_classifier():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def test_weights_that_transformers_ties_are_tied_under_their_masks():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "eos_token_id": 1}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=1, **size))
    names = ("transformer.wte.weight", "transformer.h.0.attn.c_proj.weight")  # a square layer, stored input-first
    masks = {name: np.random.default_rng(0).random(tuple(model.get_parameter(name).shape)) < 0.5 for name in names}
    order = [id(parameter) for parameter in topo.apply_masks(model, masks).parameters()]
    for again in (model.tie_weights, model.init_weights):
        again()
        assert topo.verify_masks(model, masks) == () and [id(p) for p in model.parameters()] == order
        assert torch.equal(model.lm_head.weight, model.transformer.wte.weight)
        assert not model.lm_head.weight[~torch.from_numpy(masks[names[0]])].any()
    assert "tie_weights" not in vars(topo.strip_masks(model)) and model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("tied", [True, False])
def test_a_masked_model_of_transformers_is_saved_as_a_plain_one(tied, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "eos_token_id": 1}
    config = transformers.GPT2Config(bos_token_id=1, tie_word_embeddings=tied, **size)
    model = transformers.GPT2LMHeadModel(config).eval()
    names = ("transformer.wte.weight", "transformer.h.0.attn.c_proj.weight")
    masks = {name: np.random.default_rng(0).random(tuple(model.get_parameter(name).shape)) < 0.5 for name in names}
    order = [id(parameter) for parameter in topo.apply_masks(model, masks).parameters()]
    ids = torch.arange(8)[None]
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    assert [id(parameter) for parameter in model.parameters()] == order  # the masks are on as before
    assert applied_masks(model) == MaskSet(masks) and torch.equal(model(ids).logits, expected)
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert topo.verify_masks(again, masks) == ()
    torch.testing.assert_close(again(ids).logits, expected)
    assert "save_pretrained" not in vars(topo.strip_masks(model))


class Rows(torch.utils.data.Dataset):
    def __init__(self, count=32):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(30, (count, 6), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index, 0] % 3}


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="Trainer needs accelerate")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_hugging_faces_trainer(accumulate, tmp_path):
    transformers = pytest.importorskip("transformers")
    from transformers.trainer_callback import TrainerCallback

    model = tiny_classifier()
    masks = masks_of(model, density=0.3)
    names = list(model.state_dict())
    callback = MaskCallback(masks)
    assert isinstance(callback, TrainerCallback) and isinstance(callback, MaskCallback)
    seen = []

    class Looking(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **given):
            seen.append(topo.verify_masks(model, masks))

    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=4, learning_rate=0.01, use_cpu=True,
        gradient_accumulation_steps=accumulate, save_strategy="epoch", eval_strategy="epoch", report_to=[],
        load_best_model_at_end=True, weight_decay=0.1, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[callback, Looking()]
    )
    assert topo.verify_masks(model, masks) == ()  # from the start, before an optimizer is made
    trainer.train()
    assert len(seen) == 2 * 8 // accumulate and set(seen) == {()}
    assert topo.verify_masks(model, masks) == () and list(model.state_dict()) == names
    for checkpoint in sorted((tmp_path / "out").glob("checkpoint-*")):
        saved = transformers.BertForSequenceClassification.from_pretrained(checkpoint)
        assert topo.verify_masks(saved, masks) == ()
        np.testing.assert_array_equal(topo.read_masks(checkpoint)["classifier.weight"], masks["classifier.weight"])


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="Trainer needs accelerate")
@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.wte.weight"])
def test_trainer_with_tied_weights_goes_on_from_a_checkpoint(name, tmp_path):
    transformers = pytest.importorskip("transformers")

    def trained(resume=None):
        torch.manual_seed(0)
        size = {"vocab_size": 30, "n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 1}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(bos_token_id=1, eos_token_id=1, **size))
        callback = MaskCallback(masks)
        arguments = transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=0.01, use_cpu=True, seed=1,
            gradient_accumulation_steps=2, save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True,
            report_to=[], weight_decay=0.1, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        rows = [{"input_ids": row, "labels": row} for row in Rows().ids]
        trainer = transformers.Trainer(
            model, arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=[callback]
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        assert model.lm_head.weight is model.transformer.wte.weight
        assert not model.lm_head.weight[~torch.from_numpy(kept)].any() and model.lm_head.weight[kept].all()
        return model.state_dict()

    kept = np.random.default_rng(0).random((30, 4)) < 0.5
    masks = {name: kept if name.startswith("lm") else kept.T}
    first = trained()
    checkpoint = min(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    again = trained(resume=str(checkpoint))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_two_masks_for_one_weight_are_refused_by_the_callback():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    MaskCallback({"0.weight": np.eye(4), "1.weight": np.eye(4)}).apply(model)
    with pytest.raises(WiringError, match="one weight under two names, with two different masks"):
        MaskCallback({"0.weight": np.eye(4), "1.weight": 1 - np.eye(4)}).apply(model)


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate(tmp_path):
    from accelerate import Accelerator

    masks, model = masks_of(mlp(64, 32, 10)), mlp(64, 32, 10)
    callback = MaskCallback(masks)
    callback.apply(model)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(digit_tensors(), 64))
    callback.follow(optimizer)
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
        callback.verify()
    accelerator.save_model(model, tmp_path)
    assert topo.read_masks(tmp_path / "model.safetensors") == masks


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp(64, 32, 10)

        def training_step(self, batch, _):
            assert topo.verify_masks(self.net, masks) == ()
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 0.01)

    module, masks = Module(), masks_of(mlp(64, 32, 10))
    callback = MaskCallback(masks)
    assert isinstance(callback, lightning.Callback)
    before = module.net[1].weight.detach().clone()
    trainer = lightning.Trainer(max_epochs=2, callbacks=[callback], accelerator="cpu", logger=False,
                                enable_progress_bar=False, accumulate_grad_batches=2,
                                default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(module, DataLoader(digit_tensors(), 64))
    assert topo.verify_masks(module.net, masks) == () and not torch.equal(module.net[1].weight, before)
    (saved,) = tmp_path.rglob("*.ckpt")
    held = torch.load(saved, weights_only=False)["state_dict"]
    plain = mlp(64, 32, 10)
    plain.load_state_dict({name.removeprefix("net."): value for name, value in held.items()})
    assert topo.verify_masks(plain, masks) == ()


def test_composer():
    composer = pytest.importorskip("composer", reason="Composer is not installed")
    model, masks = mlp(64, 32, 10), masks_of(mlp(64, 32, 10))
    wrapped = composer.models.ComposerClassifier(model, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    callback = MaskCallback(masks)
    composer.Trainer(model=wrapped, train_dataloader=DataLoader(digit_tensors(), 64), max_duration="2ep",
                     optimizers=optimizer, callbacks=[callback], device="cpu").fit()  # fmt: skip
    assert topo.verify_masks(model, masks) == ()


def test_distributed_data_parallel_and_a_deep_copy(tmp_path):
    masks, model = masks_of(mlp(64, 32, 10)), mlp(64, 32, 10)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        callback = MaskCallback(masks)
        callback.apply(wrapped)
        plain_loop(wrapped, callback=callback)
        callback.verify()
        twin = copy.deepcopy(model)
        assert topo.verify_masks(twin, masks) == ()
        del wrapped
    finally:
        torch.distributed.destroy_process_group()
