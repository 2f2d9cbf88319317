"""Networks by name: built in with a cache, the user's own files and modules, transformers folders, saved wirings."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import topo
from topo.networks import build, find_wiring, parse_input

OWN = """
import torch
def net():
    from neighbour import WIDTH  # late, as factories do

    return torch.nn.Sequential(torch.nn.Linear(4, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 2))

def broken():
    raise KeyError("depth")

def number():
    return 3
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    monkeypatch.setenv("TOPO_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def own(tmp_path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    path = tmp_path / "own_nets.py"
    path.write_text(OWN)
    return path


def same(a, b):
    return a.to_json() == b.to_json()


def test_parse_input():
    assert parse_input("3x32x32") == (3, 32, 32)
    assert parse_input("784") == (784,)
    for text in ("", "3x", "0x2", "3,", "-1", "a", "a=", "ids:", "a=3,a=4", "a=3,4", "ids=", "3x32x32,a=x"):
        with pytest.raises(topo.TopoError, match=r"such as 3x32x32|given twice|come before"):
            parse_input(text)


def test_built_in_is_cached(cache):
    first = find_wiring("mlp:20-10-5")
    assert first.model == "mlp:20-10-5" and first.input_shape == (20,)
    assert [layer.shape for layer in first.layers] == [(10, 20), (5, 10)]
    (kept,) = cache.iterdir()
    assert same(first, find_wiring("mlp:20-10-5"))
    kept.write_text(first.to_json().replace('"stride":[]', '"stride":[7]'))
    assert find_wiring("mlp:20-10-5").layers[0].stride == (7,), "the cache is not read"


@pytest.mark.parametrize("broken", [b"", b"\xff\xfe", b'{"schema": "topo-wiring/1"}', b"[]"])
def test_broken_cache_is_passed_over(cache, broken):
    first = find_wiring("mlp:4-3")
    (kept,) = cache.iterdir()
    kept.write_bytes(broken)
    assert same(first, find_wiring("mlp:4-3"))
    assert topo.Wiring.load(kept).model == "mlp:4-3", "the broken file is not replaced"


def test_cache_is_of_the_code_that_made_it(monkeypatch):
    from topo import networks

    before = networks._cache_path("lenet5", (1, 28, 28))
    assert before == networks._cache_path("lenet5", (1, 28, 28)) != networks._cache_path("lenet5", (1, 32, 32))
    read = type(before).read_bytes
    monkeypatch.setattr(type(before), "read_bytes", lambda path: read(path) + b"#" * (path.name == "rules.py"))
    assert before != networks._cache_path("lenet5", (1, 28, 28))


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path / "file" / "folder"))
    assert find_wiring("mlp:4-3").names == ("fc1.weight",)


@pytest.mark.slow
def test_cached_road_is_free_of_torch(cache):
    code = "import sys, topo.networks as n; w = n.find_wiring('mlp:4-3'); print('torch' in sys.modules, len(w.layers))"
    env = {**os.environ, "TOPO_CACHE_DIR": str(cache)}
    seen = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["True", "1"], ["False", "1"]]


def test_input_shape_of_a_built_in_can_be_given(cache):
    assert find_wiring("resnet20").input_shape == (3, 32, 32)
    small = find_wiring("resnet20", (3, 16, 16))
    assert small.input_shape == (3, 16, 16) and small.layer("conv.weight").positions == 256


def test_own_file(own):
    assert isinstance(build(f"{own}:net"), nn.Sequential)
    wiring = find_wiring(f"{own}:net", (4,))
    assert wiring.model == f"{own}:net" and wiring.shapes == {"0.weight": (3, 4), "2.weight": (2, 3)}
    assert str(own.parent) not in sys.path


def test_module_on_the_path(own, monkeypatch):
    monkeypatch.syspath_prepend(str(own.parent))
    assert isinstance(build("own_nets:net"), nn.Sequential)
    sys.modules.pop("own_nets"), sys.modules.pop("neighbour")


@pytest.mark.parametrize(
    "name, says",
    [
        ("resnet21", "no built-in model is called 'resnet21'; did you mean .*resnet20"),
        ("{own}:broken", "raised KeyError: 'depth'"),
        ("{own}:number", "gave a int; it should give a torch.nn.Module"),
        ("{own}:absent", "names no function 'absent'; the module has: net, broken, number"),
        ("nowhere.py:net", "there is no file 'nowhere.py'"),
        ("no.such.module:net", "there is no Python module 'no.such.module'"),
        ("hf:nowhere", "should name a folder with a config.json"),
        ("mlp:4-x", "mlp"),
    ],
)
def test_one_clear_line(own, name, says):
    with pytest.raises(topo.TopoError, match=says) as error:
        build(name.format(own=own))
    assert "\n" not in str(error.value)


def test_file_that_does_not_run(tmp_path):
    (tmp_path / "bad.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(topo.TopoError, match="raised ZeroDivisionError: division by zero"):
        build(f"{tmp_path / 'bad.py'}:net")


def test_own_network_needs_an_input_shape(own):
    with pytest.raises(topo.TopoError, match="needs an example of its argument 'input': the shape of one input"):
        find_wiring(f"{own}:net")


def test_saved_wiring_module_and_wiring(tmp_path):
    module = nn.Linear(3, 2)
    wiring = find_wiring(module, (3,))
    assert find_wiring(wiring) is wiring
    wiring.save(tmp_path / "wiring.json")
    assert same(find_wiring(tmp_path / "wiring.json"), wiring)
    assert same(find_wiring(str(tmp_path / "wiring.json")), wiring)
    with pytest.raises(topo.TopoError, match=r"^cannot read (the wiring )?'.*absent\.json'"):
        find_wiring(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(topo.TopoError, match="schema"):
        find_wiring(tmp_path / "other.json")


def test_transformers_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    module = build(f"hf:{tmp_path}")
    assert type(module).__name__ == "LlamaForCausalLM"
    assert all(parameter.device.type == "meta" for parameter in module.parameters())
    wiring = find_wiring(f"hf:{tmp_path}")
    assert wiring.model == f"hf:{tmp_path}" and len(wiring.layers) == 9
    assert wiring.parameters == tuple(name for name, p in module.named_parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 10**9}, "hidden_size 1,000,000,000; up to"),
        ({"vocab_size": 10**12}, "vocab_size 1,000,000,000,000; up to"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers 1,000,000; up to 10,000 are built"),
        ({"num_hidden_layers": -(10**30)}, "num_hidden_layers a number beyond all sizes"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"max_position_embeddings": 10**10}, "max_position_embeddings"),
        ({"text_config": {"depths": [2, 10**7]}}, "depths 10,000,000"),
        ({"hidden_size": 10**7, "intermediate_size": 10**7}, r"more than 1e\+13 parameters"),
        ({"num_hidden_layers": 10**4, "hidden_size": 64}, "more than 100 modules"),
        ({"hidden_size": "5"}, "."),
        ({"hidden_size": 1e9}, "."),
        ({"architectures": 5}, "architectures 5; it should be a list of one name"),
        ({"architectures": "LlamaForCausalLM"}, "should be a list of one name"),
        ({"architectures": ["LlamaModel", "LlamaForCausalLM"]}, "should be a list of one name"),
        ({"architectures": {"a": "LlamaModel"}}, "should be a list of one name"),
        ({"model_type": 5}, "."),
        ({"attn_implementation": {"text": "a/b"}}, "which is code to fetch"),
    ],
)
def test_a_config_of_an_absurd_size_is_refused_in_a_line(tmp_path, changes, says, monkeypatch):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    document = json.loads(transformers.LlamaConfig(**small).to_json_string())
    if "modules" in says:
        monkeypatch.setattr("topo.models.config_json._MOST_MODULES", 100)
    (tmp_path / "config.json").write_text(json.dumps({**document, "architectures": ["LlamaForCausalLM"], **changes}))
    with pytest.raises(topo.TopoError, match=says) as caught:
        build(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_transformers_folder_is_built_without_the_net_and_leaves_the_library_as_it_was(tmp_path, monkeypatch):
    transformers, hub = pytest.importorskip("transformers"), pytest.importorskip("huggingface_hub")
    from torch.nn.modules import module as registering

    seen = []
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    config.architectures = ["LlamaModel"]
    config.save_pretrained(tmp_path)
    start = transformers.LlamaModel.__init__

    def noted(self, *args, **kwargs):
        seen.append((hub.is_offline_mode(), os.environ["HF_HUB_OFFLINE"]))
        start(self, *args, **kwargs)

    monkeypatch.setattr(transformers.LlamaModel, "__init__", noted)
    before = hub.is_offline_mode(), os.environ.get("HF_HUB_OFFLINE")
    hooks = dict(registering._global_module_registration_hooks), dict(registering._global_parameter_registration_hooks)
    build(f"hf:{tmp_path}")
    assert seen == [(True, "1")]
    assert (hub.is_offline_mode(), os.environ.get("HF_HUB_OFFLINE")) == before
    assert hooks == (registering._global_module_registration_hooks, registering._global_parameter_registration_hooks)


def test_transformers_folder_of_an_unknown_kind(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["NoSuchModel"]}))
    with pytest.raises(topo.TopoError, match="architecture 'NoSuchModel'"):
        build(f"hf:{tmp_path}")
    for kind in ("TrainingArguments", "pipeline", 5):  # names of the package that are not network
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": [kind]}))
        with pytest.raises(topo.TopoError, match=f"architecture '{kind}'"):
            build(f"hf:{tmp_path}")
    for text, says in (("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[1]", "holds a list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(topo.TopoError, match=says):
            build(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoConfig": "own.Config"}},
        {"model_type": "bert", "num_hidden_layers": 1, "auto_map": {"AutoModel": "own.Config"}},
        {"model_type": "bert", "architectures": ["BertModel"], "attn_implementation": "owner/kernel"},
    ],
)
def test_transformers_folder_runs_no_code(tmp_path, monkeypatch, config):
    pytest.importorskip("transformers")
    requested = []
    monkeypatch.setattr("builtins.input", lambda *text: requested.append(text) or "y")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import PreTrainedConfig as Config\n"
    )
    try:
        assert type(build(f"hf:{tmp_path}")).__name__ == "BertModel"
    except topo.TopoError as error:
        assert "custom code" in str(error) or "code to fetch" in str(error)
    assert not requested and not (tmp_path / "ran").exists()


def test_a_name_from_a_stranger_takes_no_memory(cache):
    with pytest.raises(topo.TopoError, match="has 364,288,003,200,000,432 parameters; up to 1,000"):
        find_wiring("wrn28:width=1000000", largest=1000)
    assert not cache.exists()


def test_random_numbers_are_left_alone(cache):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    find_wiring("lenet5")
    assert torch.equal(torch.get_rng_state(), state)
