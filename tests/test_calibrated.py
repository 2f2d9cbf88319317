"""Wanda and SparseGPT: twins in loops, exact budgets, every small language model, quotas that are measured, the CLI."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import topo
from topo.cli import main
from topo.errors import TopoError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import language_models as lm  # noqa: E402

from topo.calibrated import methods, prune  # noqa: E402
from topo.calibrated.blocks import find_chain  # noqa: E402
from topo.calibrated.budget import Keep  # noqa: E402
from topo.calibrated.calibration import calls, read_tokens  # noqa: E402
from topo.calibrated.matrices import Matrix, is_matrix  # noqa: E402
from topo.calibrated.measured import hill_exponent, outlier_share  # noqa: E402
from topo.calibrated.sparsegpt import sparsegpt  # noqa: E402
from topo.calibrated.wanda import wanda  # noqa: E402

nn = torch.nn


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens(count: int = 4, length: int = 16) -> list:
    return [torch.randint(0, 96, (1, length), generator=torch.Generator().manual_seed(i)) for i in range(count)]


def chain(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).double()


def drawn(out: int, columns: int, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((columns, 200)) * rng.random((columns, 1)) + 0.3 * rng.standard_normal((1, 200))
    return torch.from_numpy(rng.standard_normal((out, columns))), torch.from_numpy(x)


# -- one layer


def test_wanda_is_its_definition() -> None:
    weight, x = drawn(6, 10)
    mask, left = wanda(weight, x.square().sum(1), Keep(24))
    for row in range(6):
        judged = [abs(float(weight[row, j])) * float(x[j].norm()) for j in range(10)]
        best = sorted(range(10), key=lambda j: -judged[j])[:4]
        assert sorted(mask[row].nonzero()[:, 0].tolist()) == sorted(best)
    assert torch.equal(left, weight * mask)
    mask, _ = wanda(weight, x.square().sum(1), Keep(27))  # rows that keep one more: those whose next score is highest
    assert int(mask.sum()) == 27 and set(mask.sum(1).tolist()) == {4, 5}


def obs(weight: np.ndarray, hessian: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Column after column: prune, and change the later columns by the inverse Hessian of those that are left."""
    weight = weight.copy()
    for j in range(weight.shape[1]):
        inverse = np.linalg.inv(hessian[j:, j:])
        for row in range(len(weight)):
            if not mask[row, j]:
                error = weight[row, j] / inverse[0, 0]
                weight[row, j:] -= error * inverse[0]
                weight[row, j] = 0
    return weight


@pytest.mark.parametrize("block", [4, 7, 128])
@pytest.mark.parametrize("nm", [None, (2, 4), (1, 3)])
def test_sparsegpt_makes_up_for_what_is_pruned(block: int, nm: tuple[int, int] | None) -> None:
    weight, x = drawn(5, 14)
    gram = 2 / 200 * x @ x.T
    groups = Keep(0, nm=nm).groups(14) if nm else []
    count = 5 * sum(min(nm[0], b - a) for a, b in groups) if nm else 33
    mask, left = sparsegpt(weight, gram, Keep(count, nm=nm), damp=0.01, block=block)
    assert int(mask.sum()) == count and bool((left[~mask] == 0).all())
    assert all(int(mask[row, a:b].sum()) == min(nm[0], b - a) for a, b in groups for row in range(5))
    damped = gram.numpy() + 0.01 * float(gram.diagonal().mean()) * np.eye(14)
    np.testing.assert_allclose(left.numpy(), obs(weight.numpy(), damped, mask.numpy()), rtol=1e-8, atol=1e-10)


def test_sparsegpt_blocks_keep_their_part_of_the_budget_exactly() -> None:
    weight, x = drawn(7, 30)
    for count in (1, 50, 104, 209, 210):
        mask, _ = sparsegpt(weight, x @ x.T, Keep(count), block=8)
        assert int(mask.sum()) == count
        kept = [int(mask[:, a : a + 8].sum()) for a in range(0, 30, 8)]
        assert all(abs(k - count * min(8, 30 - a) / 30) <= 1 for k, a in zip(kept, range(0, 30, 8)))


def test_sparsegpt_leaves_less_error_than_wanda_and_wanda_less_than_magnitude() -> None:
    weight, x = drawn(40, 60)
    keep = Keep(1200)
    lefts = [
        sparsegpt(weight, 2 / 200 * x @ x.T, keep)[1], wanda(weight, x.square().sum(1), keep)[1],
        wanda(weight, torch.ones(60, dtype=torch.float64), keep)[1],
    ]  # fmt: skip
    errors = [float(((left - weight) @ x).square().sum()) for left in lefts]
    assert errors[0] < 0.9 * errors[1] and errors[1] < 0.97 * errors[2]


def test_inputs_that_are_never_other_than_zero_are_pruned_first() -> None:
    weight, x = drawn(4, 9)
    x[[2, 5]] = 0
    for method, seen in ((wanda, x.square().sum(1)), (sparsegpt, x @ x.T)):
        mask, left = method(weight, seen, Keep(28))
        assert not mask[:, [2, 5]].any() and bool(torch.isfinite(left).all())


# -- layers as matrices


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (3, 5, 6)), (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7)),
        (nn.Conv2d(3, 4, (2, 3), dilation=2, padding_mode="reflect", padding=1), (2, 3, 8, 8)),
        (nn.Conv1d(4, 4, 3, padding=2, groups=4), (2, 4, 9)),
    ],
)  # fmt: skip
def test_a_matrix_times_its_columns_is_the_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x = layer.double(), torch.randn(*shape, dtype=torch.float64)
    matrix = Matrix("weight", layer)
    columns, rows = matrix._columns(x), matrix.rows().chunk(matrix.groups)
    made = torch.cat([part @ held for part, held in zip(rows, columns)])  # (out, positions)
    with torch.no_grad():
        layer.bias.zero_()
        expected = layer(x)
    out = expected.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).reshape(len(made), -1)
    torch.testing.assert_close(made, out)
    before = layer.weight.detach().clone()
    matrix.write(matrix.rows())
    assert torch.equal(layer.weight, before)


# -- whole models


@pytest.mark.parametrize("name", list(lm.CONFIGS))
def test_every_language_model_block_by_block(name: str) -> None:
    model = lm.model(name).float()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for method in methods:
        pruned = prune(method, model, tokens(), sparsity=0.6)
        size = pruned.masks.size
        assert pruned.masks.kept == round(0.4 * size) and all(lm.is_decoder(layer) for layer in pruned.masks)
        assert "no chain" not in " ".join(pruned.masks.provenance["notes"])
        own = dict(pruned.model.named_parameters())
        for layer, mask in pruned.masks.items():
            weight = own[layer].detach().numpy()
            weight = weight.T if layer in pruned.masks.provenance.get("input_first", {}) else weight
            assert not weight[~mask].any() and weight[mask].any()
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    again = prune(method, model, tokens(), sparsity=0.6)
    assert again.masks == pruned.masks


def test_later_blocks_are_judged_by_what_the_pruned_ones_before_them_give() -> None:
    model, x = chain(), [torch.randn(40, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))]
    found = find_chain(model, calls(x, model, "wanda"), is_matrix)
    assert found is not None and found[0].blocks == tuple(model)
    pruned = prune("wanda", model, x, density=0.5)
    first, second = (model[i].weight.detach() for i in (0, 2))
    mask, left = wanda(first, x[0].square().sum(0), Keep(96))
    assert np.array_equal(mask.numpy(), pruned.masks["0.weight"])
    hidden = torch.relu(x[0] @ left.T + model[0].bias.detach())
    mask, _ = wanda(second, hidden.square().sum(0), Keep(128))
    assert np.array_equal(mask.numpy(), pruned.masks["2.weight"])
    dense = torch.relu(model[0](x[0])).detach()
    assert not np.array_equal(wanda(second, dense.square().sum(0), Keep(128))[0].numpy(), pruned.masks["2.weight"])


def test_a_model_that_is_no_chain_is_one_block_and_says_so() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1, groups=2)])
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.parts[0](x) + self.parts[1](x)).mean((2, 3)))

    x = [(np.random.default_rng(0).standard_normal((3, 2, 6, 6)), np.zeros(3, int))]
    for method in methods:
        pruned = prune(method, Fork(), x, density=0.5)
        assert pruned.masks.kept == round(0.5 * pruned.masks.size) and len(pruned.masks) == 3
        assert "not a chain of blocks" in pruned.masks.provenance["notes"][0]
        pruned = prune(method, Fork(), x, nm="1:2", layers=["parts.*"])
        from topo.check import check

        assert list(pruned.masks) == ["parts.0.weight", "parts.1.weight"]
        assert check(pruned.masks, n_m="1:2").ok if hasattr(check(pruned.masks, n_m="1:2"), "ok") else True


@pytest.mark.parametrize("method", list(methods))
def test_n_m_of_both_and_dense_layers(method: str) -> None:
    model = lm.model("llama").float()
    pruned = prune(method, model, tokens(), nm="2:4", dense="*.0.self_attn.q_proj.weight")
    for name, mask in pruned.masks.items():
        whole = name == "model.layers.0.self_attn.q_proj.weight"
        assert mask.all() if whole else (mask.reshape(len(mask), -1, 4).sum(2) == 2).all()


# -- quotas that are measured


def test_outlier_shares_and_tail_exponents_by_hand() -> None:
    judged = [torch.tensor([[1.0, 1, 1, 13]]), torch.tensor([[1.0, 1], [1, 1]])]
    assert outlier_share(judged, 5) == pytest.approx(100 / 8)
    values = torch.tensor([8.0, 4, 2, 1], dtype=torch.float64)  # squared singular values 64, 16, 4, 1
    assert hill_exponent(torch.diag(values)) == pytest.approx(1 + 2 / (math.log(16) + math.log(4)))
    assert hill_exponent(torch.eye(4)) == math.inf and hill_exponent(torch.zeros(3, 3)) == 2.0


@pytest.mark.parametrize("quota", ["owl", "alpha"])
def test_measured_quotas_share_out_by_block_and_exactly(quota: str) -> None:
    model = lm.model("llama").float()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:2] *= 40  # outliers in the second block
        for part in model.model.layers[1].modules() if quota == "alpha" else ():
            if is_matrix(part):
                part.weight[: len(part.weight) // 4] *= 30  # and heavy tails
    masks = prune("wanda", model, tokens(), sparsity=0.7, quota=quota, owl_span=0.1).masks
    assert masks.kept == round(0.3 * masks.size)
    density = [np.mean([masks[n].mean() for n in masks if f"layers.{i}." in n]) for i in (0, 1)]
    assert density[1] > density[0] + 0.05
    spread = [np.ptp([masks[n].mean() for n in masks if f"layers.{i}." in n]) for i in (0, 1)]
    assert max(spread) < 0.01


# -- calibration data, the command line, bad input


def test_token_files_of_every_kind_give_the_same_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 96, 100).astype(np.int32)
    np.save(tmp_path / "a.npy", flat)
    np.savez(tmp_path / "a.npz", ids=flat)
    torch.save(torch.from_numpy(flat), tmp_path / "a.pt")
    from safetensors.torch import save_file

    save_file({"ids": torch.from_numpy(flat)}, tmp_path / "a.safetensors")
    for path in sorted(tmp_path.iterdir()):
        found = read_tokens(path, length=30)
        assert [row.tolist() for row in found] == [[flat[i : i + 30].tolist()] for i in (0, 30, 60)]
        assert len(read_tokens(path, length=10, sequences=4, rng=1)) == 4


def saved(tmp_path: Path, name: str = "llama") -> Path:
    lm.model(name).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_prunes_a_folder_and_writes_what_others_read(tmp_path: Path, capsys) -> None:
    folder = saved(tmp_path)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 96, (6, 32)))
    out, weights = tmp_path / "m.safetensors", tmp_path / "pruned"
    base = ["generate", "sparsegpt", "--model", f"hf:{folder}", "--data", str(tmp_path / "ids.npy"), "--length", "16"]
    assert main([*base, "--sparsity", "0.5", "-o", str(out), "--out-weights", str(weights)]) == 0
    masks = topo.read_masks(out)
    assert masks.kept == masks.size // 2 and masks.provenance["calibration"]["positions"] == 12 * 16
    read = topo.read_masks(weights)
    assert all(np.array_equal(read[name], mask) for name, mask in masks.items())
    assert main([*base, "-O", "nm=2:4", "-o", str(tmp_path / "nm.safetensors")]) == 0
    assert main(["check", str(tmp_path / "nm.safetensors"), "--n-m", "2:4"]) == 0
    capsys.readouterr()


def test_text_goes_through_the_folders_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate("[UNK] a b c d".split())}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("a b c d " * 5)
    assert [row.tolist() for row in read_tokens(tmp_path / "text.txt", tokenizer=tmp_path, length=8)] == [
        [[1, 2, 3, 4] * 2], [[1, 2, 3, 4] * 2]
    ]  # fmt: skip


def test_images_and_a_checkpoint_of_ones_own(tmp_path: Path, capsys) -> None:
    model = topo.models.build("mlp:64-20-10")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    base = ["generate", "wanda", "--model", "mlp:64-20-10", "--data", "digits", "--examples", "2", "--density", "0.3"]
    assert main([*base, "--weights", str(tmp_path / "w.pt"), "-o", str(tmp_path / "m.npz"),
                 "--out-weights", str(tmp_path / "p.safetensors")]) == 0  # fmt: skip
    masks = topo.read_masks(tmp_path / "m.npz")
    assert masks.kept == round(0.3 * masks.size)
    capsys.readouterr()


def test_bad_input_gets_one_line(tmp_path: Path) -> None:
    model, ids = lm.model("llama").float(), tokens(1, 8)
    np.save(tmp_path / "few.npy", np.arange(20))
    np.save(tmp_path / "large.npy", np.arange(200))
    np.save(tmp_path / "floats.npy", np.ones(50))
    (tmp_path / "text.txt").write_text("a b")
    cases = {
        "method 'wanda' needs data": lambda: prune("wanda", model, None, sparsity=0.5),
        "needs data:": lambda: topo.generate("sparsegpt", chain(), density=0.5),
        "too few for one sequence of 64": lambda: read_tokens(tmp_path / "few.npy", length=64),
        "holds 2 sequences of 8": lambda: read_tokens(tmp_path / "few.npy", length=8, sequences=9),
        "holds 199, which is not a token": lambda: read_tokens(tmp_path / "large.npy", vocabulary=96, length=8),
        "token numbers are one array": lambda: read_tokens(tmp_path / "floats.npy"),
        "needs the tokenizer": lambda: read_tokens(tmp_path / "text.txt"),
        "is not a file": lambda: read_tokens(tmp_path / "none.txt"),
        "leaves 'model.layers.0": lambda: prune("wanda", model, ids, density=0.0001),
        "2:4 keeps": lambda: prune("wanda", model, ids, density=0.3, nm="2:4"),
        "a budget is needed": lambda: prune("wanda", model, ids),
        "no option 'blok'": lambda: prune("sparsegpt", model, ids, density=0.5, blok=3),
        "option 'block' of method 'sparsegpt' holds 0": lambda: prune("sparsegpt", model, ids, density=0.5, block=0),
        "not a N:M": lambda: prune("wanda", model, ids, nm="4:2"),
        "no layer is called": lambda: prune("wanda", model, ids, density=0.5, layers="nothing"),
        "starts from": lambda: topo.generate("wanda", chain(), density=0.5, source={"a": np.ones((2, 2), bool)}),
        "item 0 of the calibration": lambda: prune("wanda", chain(), [object()], density=0.5),
        "is not finite": lambda: prune("wanda", chain(), [torch.full((3, 12), math.nan)], density=0.5),
    }
    for said, call in cases.items():
        with pytest.raises(TopoError) as caught:
            call()
        text = str(caught.value)
        assert "\n" not in text and (said in text or said in ("not a N:M", "starts from")), text
