"""What a network is traced on: inputs as users write them, as files hold them, as models carry and configs say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import topo
from topo.cli import main
from topo.errors import TopoError, TraceError
from topo.input_spec import Input, parse_inputs, read_inputs
from topo.networks import build, find_wiring
from topo.trace.inputs import inputs_in

torch.set_num_threads(1)

TWO = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.fc, self.table = nn.Linear(8, width), nn.Embedding(20, width)
        self.out = nn.Linear(2 * width, 3)

    def forward(self, a, b):
        return self.out(torch.cat([self.fc(a), self.table(b).mean(1)], 1))

def two(width):
    return Two(width)

def flat():
    return Two()

def with_tensors(width=6):
    return Two(width), (torch.zeros(2, 8), torch.ones(2, 16, dtype=torch.long))

def with_names():
    return Two(), {"a": torch.zeros(1, 8), "b": torch.ones(1, 16, dtype=torch.long)}

def with_call():
    return Two(), ((torch.zeros(1, 8),), {"b": torch.ones(1, 16, dtype=torch.long)})

def with_text():
    return Two(), "a=8,b=ids:16"

def with_shape():
    return nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), (8,)

def with_nonsense():
    return Two(), 3

def many(width, *, depth, act="relu", sizes=()):
    assert (width, depth, act) == (16, 2, "gelu") and sizes == (4, 5), (width, depth, act, sizes)
    return nn.Linear(width, depth)
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own_two.py"
    path.write_text(TWO)
    return path


def module(own, factory="flat"):
    return build(f"{own}:{factory}")


# -- as text


@pytest.mark.parametrize(
    "text, inputs",
    [
        ("3x32x32", [Input((3, 32, 32))]),
        ("ids:16", [Input((16,), tokens=True)]),
        ("a=1x8, b=ids:16", [Input((1, 8), name="a"), Input((16,), True, "b")]),
        ("8,ids:4x16,c=2", [Input((8,)), Input((4, 16), True), Input((2,), name="c")]),
    ],
)
def test_text_and_back(text, inputs):
    assert list(parse_inputs(text)) == inputs
    assert parse_inputs(",".join(map(str, inputs))) == tuple(inputs)


def test_specs_of_every_kind_are_one():
    assert read_inputs((3, 8, 8)) == read_inputs(np.array([3, 8, 8])) == read_inputs("3x8x8") == (Input((3, 8, 8)),)
    assert read_inputs({"a": (8,), "b": "ids:16"}) == parse_inputs("a=8,b=ids:16")
    assert read_inputs([(8,), "ids:16"]) == parse_inputs("8,ids:16")
    for wrong in ((), (0, 3), [(3,), ()], {"a": "3,4"}, {"a": None}, "a=3x", (-1,)):
        with pytest.raises(TopoError):
            read_inputs(wrong)


# -- several inputs


def names(wiring):
    return sorted(set(wiring.names))


@pytest.mark.parametrize(
    "spec", ["a=8,b=ids:16", "a=1x8,b=ids:16", {"a": (8,), "b": "ids:16"}, "8,ids:16", "b=ids:16,a=8"]
)
def test_two_inputs(own, spec):
    wiring = topo.trace(module(own), spec)
    assert names(wiring) == ["fc.weight", "out.weight", "table.weight"] and len(wiring.outputs) == 3
    assert (wiring.notes != ()) == (spec == "a=1x8,b=ids:16"), "a batch that is taken for granted is told"


@pytest.mark.parametrize("factory", ["with_tensors", "with_names", "with_call", "with_text"])
def test_factories_that_give_inputs(own, factory):
    assert names(find_wiring(f"{own}:{factory}")) == ["fc.weight", "out.weight", "table.weight"]
    assert find_wiring(f"{own}:with_shape").input_shape == (8,)


@pytest.mark.parametrize(
    "spec, says",
    [
        (None, r"arguments 'a', 'b': give --input a=SHAPE,b=SHAPE"),
        ("8", r"argument 'b': give --input a=SHAPE,b=SHAPE"),
        ("b=ids:16", r"argument 'a': give"),
        ("a=8,b=ids:16,c=3", "takes no argument 'c'; its forward takes a, b"),
        ("8,ids:16,3", "3 inputs are given by place; the forward of Two takes a, b"),
    ],
)
def test_missing_arguments_are_named(own, spec, says):
    with pytest.raises(TraceError, match=says) as error:
        topo.trace(module(own), spec)
    assert "\n" not in str(error.value)


def test_missing_keyword_of_a_call_is_named(own):
    with pytest.raises(TraceError, match="argument 'b'"):
        topo.trace(module(own), kwargs={"a": torch.zeros(1, 8)})


def test_an_argument_with_a_default_is_not_asked_for():
    class Optional(nn.Linear):
        def forward(self, input, scale=None, *rest, **more):
            return super().forward(input if scale is None else input * scale)

    assert len(topo.trace(Optional(4, 2), (4,)).layers) == 1
    with pytest.raises(TraceError, match="argument 'input'"):
        topo.trace(Optional(4, 2))


# -- files


def test_inputs_in_files(tmp_path, own):
    a, b = np.zeros((2, 8), np.float64), np.ones((2, 16), np.int64)
    np.savez(tmp_path / "named.npz", a=a, b=b)
    np.savez(tmp_path / "placed.npz", a, b)
    torch.save({"a": torch.tensor(a), "b": torch.tensor(b)}, tmp_path / "named.pt")
    torch.save((torch.tensor(a), torch.tensor(b)), tmp_path / "placed.pt")
    (tmp_path / "named.json").write_text(json.dumps({"a": a.tolist(), "b": b.tolist()}))
    (tmp_path / "placed.json").write_text(json.dumps([a.tolist(), b.tolist()]))
    (tmp_path / "shapes.json").write_text(json.dumps({"a": "8", "b": "ids:16"}))
    files = [path for path in tmp_path.iterdir() if path.suffix != ".py"]
    assert len(files) == 7
    for path in files:
        args, kwargs = inputs_in(path)
        tensors = [*args, *kwargs.values()]
        assert [t.is_floating_point() for t in tensors] == [True, False] and list(kwargs) in ([], ["a", "b"])
        assert names(find_wiring(f"{own}:flat", inputs=path)) == ["fc.weight", "out.weight", "table.weight"]
    torch.save(torch.zeros(1, 8), tmp_path / "one.pt")
    (tmp_path / "one.json").write_text("[[0.0, 0.5]]")
    assert inputs_in(tmp_path / "one.pt")[0][0].shape == (1, 8) and inputs_in(tmp_path / "one.json")[0][0].shape == (
        1,
        2,
    )


class Bomb:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("x.txt", b"", "should end in .json, .npz or .pt"),
        ("none.json", None, "no such file"),
        ("x.json", b"{", "cannot be read"),
        ("x.json", b"3", "an object of arrays"),
        ("x.json", b"{}", "an object of arrays"),
        ("x.json", b'{"a": "3x"}', "not a valid shape"),
        ("x.json", b'{"a": [[1], [1, 2]]}', "cannot be read"),
        ("x.npz", b"PK", "cannot be read"),
        ("x.pt", b"\x80", "cannot be read"),
    ],
)
def test_files_that_hold_no_inputs(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TopoError, match=says) as error:
        inputs_in(path)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_files_of_inputs_run_no_code(tmp_path, capsys):
    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], object))
    for path in (tmp_path / "bomb.pt", tmp_path / "bomb.npz"):
        capsys.readouterr()
        with pytest.raises(TopoError, match="cannot be read"):
            inputs_in(path)
        assert capsys.readouterr().out == ""


# -- factories with arguments


def test_arguments_of_factories(own):
    assert build(f"{own}:two:width=16").fc.out_features == 16
    assert build(f"{own}:with_tensors:width=4").fc.out_features == 4
    assert tuple(build(f"{own}:many:width=16,depth=2,act=gelu,sizes=(4, 5)").weight.shape) == (2, 16)
    assert find_wiring(f"{own}:two:width=16", "8,ids:16").model == f"{own}:two:width=16"


@pytest.mark.parametrize(
    "tail, says",
    [
        ("two", "needs its argument 'width': write .*own_two.py:two:width=VALUE"),
        ("many", "needs its arguments 'width', 'depth': write .*:many:width=VALUE,depth=VALUE"),
        ("many:width=16", "needs its argument 'depth': write .*:many:width=16,depth=VALUE"),
        ("two:height=3", "takes no argument 'height'; it takes width"),
        ("two:width", "'width' is not a valid argument; write name=value"),
        ("two:width=3,width=4", "has 'width' twice"),
        ("two:width=x", "raised "),
        ("with_nonsense", "example inputs are a int"),
    ],
)
def test_arguments_that_do_not_fit(own, tail, says):
    with pytest.raises(TopoError, match=says) as error:
        build(f"{own}:{tail}")
    assert "\n" not in str(error.value)


# -- built-in models carry what they take


def test_built_in_models_need_no_shape():
    net = topo.models.build("mlp:6-5-4-3")
    wiring = topo.trace(net)
    assert (wiring.model, wiring.input_shape) == ("mlp:6-5-4-3", (6,))
    masks = topo.generate("uniform", net, density=0.5)
    report = topo.analyze(masks, net)
    assert report.model == "mlp:6-5-4-3" and report.network["effective_paths"]
    scored = topo.generate("synflow", net, sparsity=0.5, rng=0)
    assert scored.kept == round(0.5 * scored.size)
    assert scored.provenance["model"] == "mlp:6-5-4-3" and scored.provenance["input_shape"] == [6]


def test_a_changed_model_gives_up_its_name():
    net = topo.models.build("mlp:6-5-4-3")
    net.fc3 = nn.Linear(4, 7)
    wiring = topo.trace(net)
    assert wiring.input_shape == (6,) and wiring.model == type(net).__name__


@pytest.mark.parametrize("name", list(topo.models.models))
def test_every_built_in_model_carries_its_name_and_shape(name):
    with torch.device("meta"):
        net = topo.models.build(name)
    assert net.topo_name == name and tuple(net.topo_inputs) == topo.models.input_shape(name)


# -- the command line


def test_command_line(tmp_path, own, capsys):
    masks = topo.MaskSet({"fc.weight": np.ones((6, 8), bool), "out.weight": np.eye(3, 12, dtype=bool)})
    topo.write_masks(masks, tmp_path / "m.safetensors")
    np.savez(tmp_path / "x.npz", a=np.zeros((1, 8)), b=np.ones((1, 16), np.int64))
    command = ["analyze", str(tmp_path / "m.safetensors"), "--model", f"{own}:two:width=6", "--json", "-", "--quiet"]
    counts = []
    for given in (["--input", "a=1x8,b=ids:16"], ["--inputs", str(tmp_path / "x.npz")]):
        assert main([*command, *given]) == 0
        (report,) = json.loads(capsys.readouterr().out)["reports"]
        counts.append(report["network"]["effective_paths"])
    assert counts == ["24", "24"]
    assert main(command) == 1
    assert "arguments 'a', 'b'" in capsys.readouterr().err
    assert main([*command, "--input", "8,ids:16", "--inputs", "x.npz"]) == 2
    assert "give one of them" in capsys.readouterr().err


# -- transformers


def configs():
    import transformers as t

    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    both = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    both |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "vocab_size": 40}
    conv = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    return {
        "WhisperForConditionalGeneration": t.WhisperConfig(
            **both, **ends, num_mel_bins=8, max_source_positions=16, max_target_positions=16
        ),
        "CLIPModel": t.CLIPConfig(
            text_config={
                **small,
                "vocab_size": 40,
                "max_position_embeddings": 16,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            vision_config={**small, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        ),
        "Wav2Vec2ForCTC": t.Wav2Vec2Config(
            **small, **conv, vocab_size=20, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2
        ),
        "T5ForConditionalGeneration": t.T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=40),
        "TimesformerModel": t.TimesformerConfig(**small, image_size=16, patch_size=8, num_frames=2),
    }


@pytest.mark.parametrize(
    "architecture",
    [
        "WhisperForConditionalGeneration",
        "CLIPModel",
        "Wav2Vec2ForCTC",
        "T5ForConditionalGeneration",
        "TimesformerModel",
    ],
)
@pytest.mark.filterwarnings("ignore::topo.errors.TraceWarning")
def test_folders_say_what_their_models_take(tmp_path, architecture):
    """Every linear layer and convolution of the model is in the wiring that its folder gives, without any input."""
    pytest.importorskip("transformers")
    config = configs()[architecture]
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    wiring = find_wiring(f"hf:{tmp_path}")
    net = build(f"hf:{tmp_path}")
    weights = {name for name, p in net.named_parameters() if p.dim() > 1 and not name.endswith(("positions.weight",))}
    layers = {
        n for n in weights if n.endswith(("proj.weight", "fc1.weight", "fc2.weight", "dense.weight", "wi.weight"))
    }
    assert layers and layers <= set(wiring.names)
