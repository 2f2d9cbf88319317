"""Pruned language models: folders of transformers, counted exactly; scopes, groups, dead parts, damaged folders."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from language_models import BLOCKS, CONFIGS, HEADS, HIDDEN, is_decoder, model, prune, saved

import topo
from topo import formats, language
from topo.cli import main
from topo.language import numbers
from topo.language.dead import _parts, dead_by_block, residual_channels
from topo.language.table import block_table
from topo.report.groups import is_language_model

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return command


def surveyed(folder: Path) -> language.Survey:
    return language.survey(formats.opened(folder), language.read_config(folder), threads=1)


def without_numbers(name: str) -> str:
    return ".".join(part for part in name.split(".") if not part.isdecimal())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_is_counted_exactly(name, tmp_path):
    made = model(name)
    prune(made)
    tensors = saved(made, tmp_path)
    found = surveyed(tmp_path)
    if not all(parameter in found.counts for parameter in tensors):  # a prefix that all have goes
        tensors = {parameter.removeprefix("model."): tensor for parameter, tensor in tensors.items()}
    assert found.counts.keys() == tensors.keys() and not found.left_out
    assert is_language_model(tensors)
    for parameter, tensor in tensors.items():
        kept = (tensor != 0).numpy()
        if name == "gpt2" and is_decoder(parameter):
            kept = kept.T
        assert found.counts[parameter].rows.tolist() == kept.sum(1).tolist(), parameter
        assert found.counts[parameter].columns.tolist() == kept.sum(0).tolist(), parameter
    decoder = {n: t for n, t in tensors.items() if is_decoder(n)}
    kept = {n: int((t != 0).sum()) for n, t in tensors.items()}
    pruned, of_decoder, everything = found.scopes
    assert (of_decoder.layers, of_decoder.kept) == (len(decoder), sum(kept[n] for n in decoder))
    assert (pruned.layers, pruned.params) == (len(decoder), sum(t.numel() for t in decoder.values()))
    assert (everything.kept, everything.params) == (sum(kept.values()), sum(t.numel() for t in tensors.values()))
    groups = numbers.report(found, name).groups
    for projection in {entry["projection"] for entry in groups if "projection" in entry}:
        wanted = sum(kept[n] for n in decoder if f".{projection}." in f".{without_numbers(n)}")
        assert sum(e["kept"] for e in groups if e.get("projection") == projection) == wanted, projection
    header, lines, _ = block_table(found)
    assert len(lines) == BLOCKS and header[0] == "block"


def test_the_numbers_of_the_pass_are_those_of_the_metrics_on_bits(tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        f"layers.{block}.self_attn.{name}.weight": np.where(rng.random(shape) < share, 1.5, 0.0).astype(np.float32)
        for block in range(2)
        for name, shape, share in (("q_proj", (24, 70), 0.5), ("k_proj", (9, 70), 0.1), ("o_proj", (70, 24), 0.02))
    }
    np.savez(tmp_path / "w.npz", **weights)
    reading = formats.opened(tmp_path / "w.npz")
    metrics = [name for name in numbers._LAYERS if name in {entry.name for entry in topo.metrics.chosen("all")}]
    listed = ",".join([*numbers._NETWORK, *metrics])
    counted = numbers.report(language.survey(reading), "w", listed)
    on_bits = topo.analyze(reading.masks(), metrics=listed)
    assert set(metrics) == set(numbers._LAYERS)
    for ours, theirs in zip(counted.layers, on_bits.layers):
        assert (ours.pop("layer"), ours.pop("shape")) == (theirs.pop("layer"), theirs.pop("shape"))
        assert ours == pytest.approx(theirs, rel=1e-12)
    for metric in numbers._NETWORK:
        assert counted.network[metric] == pytest.approx(on_bits.network[metric], rel=1e-12)
    assert [row.unit for row in counted.rows if row.layer] == [row.unit for row in on_bits.rows if row.layer]


# -- dead parts


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_are_laid_out_as_the_model_computes_them(name, tmp_path):
    """Without the value rows that we take for group 0's, its heads give nothing in the model itself."""
    made = model(name)
    config = made.config.to_dict()
    groups = {"gpt2": HEADS, "opt": HEADS, "gpt_neox": HEADS, "falcon": 1}.get(name, 2)
    saved(made, tmp_path)
    facts = language.read_config(tmp_path)
    assert (facts.heads, facts.kv_heads) == (HEADS, groups), config
    named = dict(made.named_modules())
    names = ("self_attn", "attn", "attention", "self_attention")
    inside = next(module for path, module in named.items() if path.rpartition(".")[2] in names)
    fused = next((n for n in ("qkv_proj", "query_key_value", "c_attn") if hasattr(inside, n)), None)
    source = getattr(inside, fused or "v_proj")
    rows = source.weight.shape[1] if fused == "c_attn" else source.weight.shape[0]
    if fused is None:
        values = np.arange(rows).reshape(groups, -1)
        queries = np.arange(inside.q_proj.weight.shape[0]).reshape(HEADS, -1)
    else:
        queries, values = _parts(np.arange(rows), HEADS, groups, fused, facts)
    assert queries.shape[0] == HEADS and values.shape[0] == groups
    with torch.no_grad():
        view = source.weight.T if fused == "c_attn" else source.weight
        view[torch.from_numpy(values[0].copy())] = 0
        if source.bias is not None:
            source.bias[torch.from_numpy(values[0].copy())] = 0
    output = next(getattr(inside, n) for n in ("o_proj", "out_proj", "c_proj", "dense") if hasattr(inside, n))
    seen = []
    handle = output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        made(torch.arange(6)[None] + 3)
    finally:
        handle.remove()
    by_head = seen[0].reshape(6, HEADS, -1).abs().sum(dim=(0, 2))
    dead = [head for head in range(HEADS) if by_head[head].item() == 0]
    assert dead == list(range(HEADS // groups))
    saved(made, tmp_path)
    found = dead_by_block(surveyed(tmp_path))
    assert [(d.kv_groups, d.dead_kv_groups) for d in found.values()] == [(groups, 1), (groups, 0)]
    assert sum(d.dead_heads for d in found.values()) == 0


@pytest.mark.parametrize("queries", [None, 12], ids=["one query matrix", "two query matrices"])
def test_heads_out_of_what_all_share_are_counted(queries, tmp_path):
    """DeepSeek: in `kv_b_proj` each head's keys stand before its values; a head without values gives nothing."""
    import transformers

    config = transformers.DeepseekV3Config(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=queries, kv_lora_rank=10, qk_nope_head_dim=6, qk_rope_head_dim=4,
        v_head_dim=5, first_k_dense_replace=2, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    made = transformers.DeepseekV3ForCausalLM(config).eval()
    first, second = (layer.self_attn for layer in made.model.layers)
    with torch.no_grad():
        first.kv_b_proj.weight.view(4, 11, -1)[1, 6:] = 0
        asked = second.q_proj if queries is None else second.q_b_proj
        asked.weight.view(4, 10, -1)[0] = 0
        second.o_proj.weight.view(-1, 4, 5)[:, 2] = 0
        seen = []
        first.o_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        made(torch.arange(6)[None] + 3)
    by_head = seen[0].reshape(6, 4, 5).abs().sum(dim=(0, 2))
    assert (by_head == 0).tolist() == [False, True, False, False]
    saved(made, tmp_path)
    found = dead_by_block(surveyed(tmp_path))
    assert [d.values[:4] for d in found.values()] == [(4, 0, 4, 1), (4, 2, 4, 0)]


def test_dead_heads_experts_and_channels_are_counted(tmp_path):
    made = model("mixtral")
    with torch.no_grad():
        state = dict(made.named_parameters())
        state["model.layers.0.self_attn.q_proj.weight"][8:16] = 0  # head 1: no queries
        state["model.layers.1.self_attn.o_proj.weight"][:, 24:] = 0  # head 3: nobody reads it
        state["model.layers.1.mlp.experts.down_proj"][2] = 0
        for name, tensor in state.items():
            if name.endswith(("embed_tokens.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight", "gate.weight")):
                tensor[:, 5] = 0
            elif name.endswith("gate_up_proj"):
                tensor[:, :, 5] = 0
            elif name.endswith("o_proj.weight"):
                tensor[7] = 0
            elif name.endswith("down_proj"):
                tensor[:, 7] = 0
        state["lm_head.weight"][:, 5] = 0
        state["model.embed_tokens.weight"][:, 7] = 0
    saved(made, tmp_path)
    found = surveyed(tmp_path)
    assert residual_channels(found) == (HIDDEN, 2)
    told = {name: number for name, number, _ in numbers.dead_numbers(found)}
    assert (told["heads"], told["dead_heads"], told["dead_kv_groups"]) == (2 * HEADS, 2, 0)
    assert (told["experts"], told["dead_experts"]) == (6, 1)


def test_experts_count_alike_under_both_names(tmp_path):
    made = model("mixtral")
    prune(made)
    saved(made, tmp_path / "hub")
    state = {name: tensor.detach() for name, tensor in made.state_dict().items()}
    torch.save(state, tmp_path / "fused.pt")
    apart, joined = surveyed(tmp_path / "hub"), language.survey(formats.opened(tmp_path / "fused.pt"), threads=1)
    assert [scope.as_dict() | {"layers": 0} for scope in apart.scopes] == [
        scope.as_dict() | {"layers": 0} for scope in joined.scopes
    ]
    one = {entry["group"]: entry for entry in numbers.report(apart, "a").grouped("layers.*")}
    other = {entry["group"]: entry for entry in numbers.report(joined, "b").grouped("layers.*")}
    for block in ("layers.0", "layers.1"):
        assert one[block]["kept"] == other[block]["kept"] and one[block]["params"] == other[block]["params"]
    fused = sum(e["kept"] for e in numbers.report(joined, "b").groups if "gate_up" in e["group"])
    apart_groups = numbers.report(apart, "a").groups
    assert fused == sum(e["kept"] for e in apart_groups if e.get("projection") in ("w1", "w3"))


# -- the command


def test_analyze_says_scopes_blocks_and_the_folders_own_model(tmp_path, run):
    made = model("llama")
    prune(made)
    tensors = saved(made, tmp_path / "pruned")
    code, out, err = run("analyze", tmp_path / "pruned", "--metrics", "density,effective_params", "--json", "-")
    assert code == 0, err
    (report,) = json.loads(out)["reports"]
    kept = {name: int((tensor != 0).sum()) for name, tensor in tensors.items()}
    decoder = [name for name in tensors if is_decoder(name)]
    assert report["scope"] == "decoder"
    assert [entry["scope"] for entry in report["scopes"]] == ["pruned", "decoder", "all"]
    share = sum(kept[n] for n in decoder) / sum(tensors[n].numel() for n in decoder)
    assert report["network"]["density"] == pytest.approx(share, rel=1e-15)
    assert report["model"].startswith("hf:") and report["network"]["effective_params"] <= sum(kept[n] for n in decoder)
    assert report["coverage"] == {"read": sum(t.numel() for t in tensors.values()), "left_out": 0, "names": []}
    assert len(report["groups"]) == 7 * BLOCKS + 2
    assert {entry["layer"] for entry in report["layers"]} == set(tensors)
    code, out, _ = run("analyze", tmp_path / "pruned", "--metrics", "density")
    assert code == 0 and "| left out: none" in out and f"decoder {7 * BLOCKS} linear layers {share:.4f}" in out


def test_the_wiring_of_a_folder_is_traced_once(tmp_path, monkeypatch):
    saved(model("llama"), tmp_path)
    first = topo.networks.find_wiring(f"hf:{tmp_path}")
    monkeypatch.setattr("topo.networks.build", None)
    again = topo.networks.find_wiring(f"hf:{tmp_path}")
    assert again.model == first.model == f"hf:{tmp_path}" and again.shapes == first.shapes
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
    with pytest.raises(TypeError):  # another input is traced anew
        topo.networks.find_wiring(f"hf:{tmp_path}", topo.networks.parse_input("ids:5"))


def test_equal_blocks_are_folded_and_groups_go_by_pattern(tmp_path, run):
    mask = np.tile([1.0, 1.0, 0.0, 0.0], (8, 2)).astype(np.float32)
    names = [f"layers.{n}.self_attn.{p}_proj.weight" for n in range(5) for p in "qkvo"]
    state = dict.fromkeys(names, mask) | {"layers.4.self_attn.q_proj.weight": np.ones((8, 8), np.float32)}
    np.savez(tmp_path / "m.npz", **{name: np.array(tensor) * 3 for name, tensor in state.items()})
    code, out, _ = run("analyze", tmp_path / "m.npz", "--metrics", "kept,density,n_m_2_4")
    assert code == 0 and "0-3 " in out and "4/4" in out and "3/4" in out and "equal blocks are folded" in out
    code, out, _ = run("analyze", tmp_path / "m.npz", "--metrics", "kept,density", "--group", "layers.*", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    of_groups = {r["group"]: r["value"] for r in rows if not r["layer"] and r["metric"] == "kept" and r["group"]}
    assert of_groups == {**{f"layers.{n}": "128" for n in range(4)}, "layers.4": "160"}
    assert {r["group"] for r in rows if r["layer"].startswith("layers.2.")} == {"layers.2"}
    code, _, err = run("analyze", tmp_path / "m.npz", "--group", "nothing.*")
    assert code == 1 and err.count("\n") == 1 and "matches no layer" in err
    code, out, _ = run("analyze", tmp_path / "m.npz", "--layers", "*.0.*", "--metrics", "sigma1,kept", "--json", "-")
    assert code == 0 and len(json.loads(out)["reports"][0]["layers"]) == 4


def test_spectra_are_not_in_the_default_of_a_large_folder(tmp_path, run, monkeypatch):
    made = model("llama")
    prune(made)
    saved(made, tmp_path)
    monkeypatch.setattr("topo.cli.language.LARGE", 10_000)
    code, out, _ = run("analyze", tmp_path)
    assert code == 0 and "--metrics spectral --layers '*.0.*'" in " ".join(out.split()) and "sigma2" not in out
    code, out, _ = run("analyze", tmp_path, "--json", "-")
    (report,) = json.loads(out)["reports"]
    assert report["model"] is None and "n_m_2_4" in report["layers"][0] and "sigma2" not in report["layers"][0]


def test_what_the_config_claims_is_held_against_what_was_counted(tmp_path, run):
    made = model("llama")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() >= 2 and is_decoder(name):
                parameter.view(len(parameter), -1, 4)[:, :, 2:] = 0
    saved(made, tmp_path)
    path = tmp_path / "config.json"
    for stated, said in ((0.5, "says sparsity 0.5, 2:4, as counted"), (0.7, "says sparsity 0.7, 2:4, but counted is")):
        config = json.loads(path.read_text())
        claim = {"format": "dense", "global_sparsity": stated, "sparsity_structure": "2:4"}
        path.write_text(json.dumps({**config, "compression_config": {"sparsity_config": claim}}))
        _, out, _ = run("analyze", tmp_path, "--metrics", "density")
        assert said in " ".join(out.split())


# -- damaged and odd folders


def folder(tmp_path: Path) -> Path:
    made = model("mixtral")
    prune(made)
    saved(made, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    return tmp_path


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_lost_shard_is_one_line_and_the_rest_is_reported_with_its_coverage(tmp_path, run, damage):
    whole = surveyed(folder(tmp_path)).size
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink() if damage == "missing" else shard.write_bytes(shard.read_bytes()[:-1000])
    code, out, err = run("analyze", tmp_path, "--metrics", "density", "--json", "-")
    assert code == 1 and err.count("\n") == 1 and shard.name in err and "--partial" in err
    (report,) = json.loads(out)["reports"]
    assert report["coverage"]["read"] + report["coverage"]["left_out"] == whole and report["coverage"]["names"]
    code, out, err = run("analyze", tmp_path, "--metrics", "density", "--partial")
    assert code == 0 and err == "" and "left out: '" in out
    code, out, err = run("check", tmp_path, "--max-density", "0.9")
    assert code == 1 and err.count("\n") == 1 and shard.name in err


def test_nan_is_counted_and_noted(tmp_path, run):
    made = model("llama")
    prune(made)
    with torch.no_grad():
        made.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    saved(made, tmp_path)
    code, out, err = run("analyze", tmp_path, "--metrics", "density")
    assert code == 0 and err == "" and "NaN" in out and "layers.1.mlp.up_proj.weight" in out
    assert topo.read_masks(tmp_path)["model.layers.1.mlp.up_proj.weight"][3, 4]


def test_a_config_that_does_not_fit_is_said_and_layers_are_told_all_the_same(tmp_path, run):
    made = model("llama")
    prune(made)
    saved(made, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"intermediate_size": 50},
                   {"architectures": ["NothingLikeIt"]}):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        code, out, err = run("analyze", tmp_path, "--metrics", "kept,effective_params")
        assert code == 0, err
        assert "the network of config.json is not used: " in " ".join(out.split())
        assert "model.layers.0.mlp.up_proj.weight" in out
    (tmp_path / "config.json").write_text("{")
    code, out, err = run("analyze", tmp_path, "--metrics", "kept")
    assert code == 1 and err.count("\n") == 1 and "config.json" in err


def test_a_quantised_folder_and_an_adapter_alone_are_one_line(tmp_path, run):
    from safetensors.torch import save_file

    packed = {f"model.layers.{n}.self_attn.{p}_proj.qweight": torch.ones(4, 32, dtype=torch.int32)
              for n in range(2) for p in "qkvo"}  # fmt: skip
    save_file(packed | {"model.embed_tokens.weight": torch.ones(96, 32)}, tmp_path / "model.safetensors")
    for command in (("analyze", tmp_path), ("check", tmp_path, "--n-m", "2:4")):
        code, _, err = run(*command)
        assert code == 1 and err.count("\n") == 1 and "8 weights are packed integers" in err
    (tmp_path / "lora").mkdir()
    adapter(tmp_path / "lora", {"model.layers.0.self_attn.q_proj": (torch.ones(8, 2), torch.ones(2, 8))})
    for command in (("analyze", tmp_path / "lora"), ("check", tmp_path / "lora", "--max-density", ".5")):
        code, _, err = run(*command)
        assert code == 1 and err.count("\n") == 1 and "adapter" in err


# -- checks


def adapter(path: Path, factors: dict[str, tuple[torch.Tensor, torch.Tensor]], **config) -> None:
    """A LoRA adapter as PEFT saves it: module -> (B, A)."""
    from safetensors.torch import save_file

    path.mkdir(exist_ok=True)
    state = {}
    for module, (outer, inner) in factors.items():
        state[f"base_model.model.{module}.lora_A.weight"] = inner.contiguous()
        state[f"base_model.model.{module}.lora_B.weight"] = outer.contiguous()
    save_file(state, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}))


def two_four(made) -> None:
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() >= 2 and is_decoder(name):
                parameter.view(len(parameter), -1, 4)[:, :, 2:] = 0


def test_check_looks_at_the_decoder_and_says_so(tmp_path, run):
    made = model("llama")
    two_four(made)
    saved(made, tmp_path / "a")
    for question in (("--n-m", "2:4"), ("--max-density", "0.5"), ("--contains", tmp_path / "a")):
        code, out, err = run("check", tmp_path / "a", *question)
        assert code == 0 and out.startswith("yes: ") and f"the decoder's {7 * BLOCKS} linear layers" in out, (out, err)
    code, out, err = run("check", tmp_path / "a", "--max-density", "0.5", "--layers", "*")
    assert code == 3 and "scope" not in out
    with torch.no_grad():
        made.model.layers[1].mlp.down_proj.weight[3, 5:8] = 1.0
    saved(made, tmp_path / "b")
    code, out, _ = run("check", tmp_path / "b", "--n-m", "2:4")
    assert code == 3 and "'model.layers.1.mlp.down_proj.weight' keeps 4 of 4 in row 3, inputs 4-7" in out
    code, out, _ = run("check", tmp_path / "b", "--contains", tmp_path / "a")
    assert code == 3 and "keeps 2 parameters that B prunes, the first at (3, 6)" in out


def test_masks_in_any_container_stand_on_either_side(tmp_path, run):
    made = model("gpt2")
    prune(made)
    tensors = saved(made, tmp_path / "folder")
    kept = {n: (t.T if is_decoder(n) else t) != 0 for n, t in tensors.items() if is_decoder(n)}
    topo.write_masks(topo.MaskSet(kept), tmp_path / "own.safetensors")
    np.savez(tmp_path / "plain.npz", **{n.removeprefix("transformer."): m.numpy() for n, m in kept.items()})
    for other in ("own.safetensors", "plain.npz"):
        for pair in ((tmp_path / "folder", tmp_path / other), (tmp_path / other, tmp_path / "folder")):
            code, out, err = run("check", pair[0], "--contains", pair[1])
            assert code == 0, (other, out, err)
    made.to(torch.float32)
    prune(made, 0.9, seed=3)
    saved(made, tmp_path / "more")
    assert run("check", tmp_path / "more", "--contains", tmp_path / "folder")[0] == 0
    assert run("check", tmp_path / "folder", "--contains", tmp_path / "more")[0] == 3


def test_what_b_prunes_beside_the_decoder_is_looked_at_too(tmp_path, run):
    made = model("llama")
    prune(made)
    saved(made, tmp_path / "a")
    with torch.no_grad():
        made.lm_head.weight[::2] = 0
    saved(made, tmp_path / "b")
    code, out, _ = run("check", tmp_path / "a", "--contains", tmp_path / "b")
    assert code == 3 and "'lm_head.weight'" in out and "and 1 more that B prunes" in out


def test_a_merge_is_foreseen_exactly(tmp_path, run):
    made = model("llama")
    prune(made)
    saved(made, tmp_path / "base")
    rng = torch.Generator().manual_seed(0)
    factors = {}
    for block in range(BLOCKS):
        q = made.model.layers[block].self_attn.q_proj.weight.shape
        outer, inner = torch.randn(q[0], 2, generator=rng), torch.randn(2, q[1], generator=rng)
        if block:
            outer[::2], inner[1, ::3] = 0, 0
        factors[f"model.layers.{block}.self_attn.q_proj"] = outer, inner
    factors["model.layers.0.mlp.up_proj"] = torch.zeros(48, 2), torch.randn(2, 32, generator=rng)  # untrained
    adapter(tmp_path / "lora", factors)
    base = {n: p.detach().clone() for n, p in made.named_parameters()}
    filled = 0
    with torch.no_grad():
        for module, (outer, inner) in factors.items():
            weight = dict(made.named_parameters())[f"{module}.weight"]
            after = weight.float() + 2.0 * (outer @ inner)
            filled += int(((weight == 0) & (after != 0)).sum())
            weight.copy_(after)
    code, out, _ = run("check", tmp_path / "base", "--adapter", tmp_path / "lora", "--contains", tmp_path / "base")
    zeros = sum(int((tensor == 0).sum()) for name, tensor in base.items() if is_decoder(name) and tensor.dim() == 2)
    assert code == 3 and f"{filled:,} of {zeros:,} zeros are filled" in out
    assert f"1 of {7 * BLOCKS} layers go dense: model.layers.0.self_attn.q_proj.weight" in out
    assert f"1 of {7 * BLOCKS} layers lose a part of their zeros: model.layers.1.self_attn.q_proj.weight" in out
    saved(made, tmp_path / "merged")
    assert run("check", tmp_path / "merged", "--contains", tmp_path / "base")[0] == 3
    code, out, _ = run("check", tmp_path / "base", "--adapter", tmp_path / "lora")
    assert code == 3 and out.startswith("no: adapter: ")
    adapter(tmp_path / "silent", {"model.layers.0.mlp.up_proj": factors["model.layers.0.mlp.up_proj"]})
    code, out, _ = run("check", tmp_path / "base", "--adapter", tmp_path / "silent", "--contains", tmp_path / "base")
    assert code == 0 and "0 of" in out
    for change, said in (({"use_dora": True}, "DoRA"), ({"peft_type": "IA3"}, "IA3")):
        adapter(tmp_path / "odd", factors, **change)
        code, _, err = run("check", tmp_path / "base", "--adapter", tmp_path / "odd")
        assert code == 1 and err.count("\n") == 1 and said in err
    adapter(tmp_path / "odd", {"model.layers.7.mlp.up_proj": factors["model.layers.0.mlp.up_proj"]})
    code, _, err = run("check", tmp_path / "base", "--adapter", tmp_path / "odd")
    assert code == 1 and err.count("\n") == 1 and "model.layers.7" in err


def test_a_dense_merge_is_answered_no_and_not_refused(tmp_path, run):
    made = model("llama")
    saved(made, tmp_path / "dense")
    prune(made)
    saved(made, tmp_path / "base")
    code, out, _ = run("check", tmp_path / "dense", "--contains", tmp_path / "base")
    assert code == 3 and "keeps" in out


# -- comparisons


def test_compare_tells_overlap_and_churn_by_projection_and_depth(tmp_path, run):
    made = model("llama")
    prune(made)
    a = saved(made, tmp_path / "a")
    made = model("llama")
    prune(made, 0.3, seed=5)
    b = saved(made, tmp_path / "b")
    code, out, err = run("compare", tmp_path / "a", tmp_path / "b", "--json", "-")
    assert code == 0, err
    groups = json.loads(out)["groups"]
    assert [entry["by"] for entry in groups] == ["projection"] * 7 + ["block"] * BLOCKS
    for entry in groups:
        part = f".{entry['group']}." if entry["by"] == "projection" else f".layers.{entry['group']}."
        names = [name for name in a if is_decoder(name) and part in name]
        both = sum(int(((a[n] != 0) & (b[n] != 0)).sum()) for n in names)
        kept = [sum(int((side[n] != 0).sum()) for n in names) for side in (a, b)]
        assert (entry["layers"], entry["both"], entry["kept_a"], entry["kept_b"]) == (len(names), both, *kept)
        assert entry["churn"] == pytest.approx((sum(kept) - 2 * both) / sum(kept))
        assert entry["overlap"] == pytest.approx(both / (sum(kept) - both))
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0 and "projection" in out and "churn" in out and f"the decoder's {7 * BLOCKS} linear layers" in out


# -- the page


def test_the_walk_through_of_the_page_is_what_the_commands_say(tmp_path, run, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "language_models.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(page.split("```python\n")[1].split("```")[0], "page", "exec"), {})
    told = re.findall(r"^```text\n\$ topo (.*?)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(told) == 5
    for line, said in told:
        _, out, err = run(*shlex.split(line))
        assert err == "" and out == said, line


# -- checks by counts, several folders, stored bits


def test_checks_by_counts_and_by_bits_agree(tmp_path, run):
    made = model("mixtral")
    prune(made)
    saved(made, tmp_path / "a")
    torch.save({name: tensor.detach() for name, tensor in made.state_dict().items()}, tmp_path / "fused.pt")
    masks = topo.read_masks(tmp_path / "a")
    for pattern in ("2:4", "1:3", "4:4"):
        expected = [finding for finding in topo.check.check(masks, n_m=pattern) if is_decoder(finding.layer)]
        code, out, _ = run("check", tmp_path / "a", "--n-m", pattern)
        assert code == (3 if expected else 0)
        if expected:
            assert f"no: n-m: {expected[0].message} (and in {len(expected) - 1} more" in out
        assert run("check", tmp_path / "fused.pt", "--n-m", pattern)[0] == code
    for bound in ("0.4", "0.6"):
        expected = int(sum(masks.rows(n).kept() for n in masks if is_decoder(n))
                       > round(float(bound) * sum(masks.rows(n).size for n in masks if is_decoder(n))))  # fmt: skip
        assert run("check", tmp_path / "a", "--max-density", bound)[0] == 3 * expected
    code, out, _ = run("check", tmp_path / "a", "--fail-on", "layer-collapse,no-paths")
    assert code == 0 and "the folder's own config.json is the model" in out


def test_several_folders_make_a_table_with_their_scopes(tmp_path, run):
    made = model("llama")
    prune(made)
    saved(made, tmp_path / "a")
    prune(made, 0.6, seed=4)
    saved(made, tmp_path / "b")
    code, out, _ = run("analyze", tmp_path / "a", tmp_path / "b", "--metrics", "density,kept")
    assert code == 0 and out.count("density by scope: pruned") == 2


def test_a_folder_of_stored_bits_is_counted_by_its_bits(tmp_path, run):
    from safetensors.torch import save_file

    made = model("llama")
    prune(made)
    tensors = {name: tensor for name, tensor in made.state_dict().items() if tensor.dim() == 2}
    state = {}
    for name, tensor in tensors.items():
        if is_decoder(name):
            kept = (tensor != 0).numpy()
            bits = np.packbits(kept, axis=-1, bitorder="little")
            state[f"{name}.bitmask"] = torch.from_numpy(bits)
            state[f"{name}.shape"] = torch.tensor(tensor.shape)
            state[f"{name}.compressed"] = tensor[tensor != 0]
        else:
            state[name] = tensor.contiguous()
    save_file(state, tmp_path / "model.safetensors")
    code, out, err = run("analyze", tmp_path, "--metrics", "kept,density", "--json", "-")
    assert code == 0, err
    (report,) = json.loads(out)["reports"]
    assert report["network"]["kept"] == sum(int((t != 0).sum()) for n, t in tensors.items() if is_decoder(n))
    assert report["coverage"]["read"] == sum(t.numel() for t in tensors.values()) and not report["coverage"]["left_out"]
    assert run("check", tmp_path, "--max-density", "0.6")[0] == 0


def test_folders_of_other_transformers_have_their_model_too(tmp_path, run):
    import transformers

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    made = transformers.ResNetForImageClassification(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() >= 2:
                parameter[torch.rand(parameter.shape) < 0.5] = 0
    made.save_pretrained(tmp_path)
    code, out, err = run("analyze", tmp_path, "--metrics", "effective_params,kept", "--json", "-")
    assert code == 0, err
    (report,) = json.loads(out)["reports"]
    assert report["model"] == f"hf:{tmp_path}", report["notes"]
    assert report["network"]["effective_params"] > 0


def test_queries_and_keys_of_any_transformer_are_no_chain() -> None:
    names = [f"vit.encoder.layer.0.attention.attention.{name}.weight" for name in ("query", "key", "value")]
    report = topo.analyze(topo.MaskSet({name: np.eye(4) for name in names}), metrics="paths")
    assert np.isnan(report.network["effective_paths"])
    assert any("queries and keys of a block run side by side" in str(note["note"]) for note in report.notes)


def test_progress_tells_speed_and_the_time_left():
    """3.2 of 13.5 GB in .4 s are 8 GB/s, and the other 10.3 take 1.3 s more."""
    from topo.language.survey import _speed

    assert _speed(3_200_000_000, 13_500_000_000, 0.4) == "3.2 of 13.5 GB, 8.0 GB/s, 1 s left"
    assert _speed(0, 10**9, 0.0) == "0.0 of 1.0 GB, 0.0 GB/s, 0 s left"
