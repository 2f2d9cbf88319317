"""The built-in networks: published sizes, parameter names that saved masks carry, and the spec grammar."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from torch import nn

from topo import models
from topo.errors import TopoError

DATA = Path(__file__).parents[2] / "shared" / "data"
STEMS = {"imagenet": ((3, 224, 224), 1000), "tiny": ((3, 64, 64), 200), "cifar": ((3, 32, 32), 10)}
STEMMED = ["mobilenetv2", "resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "vgg19"]
SPECS = [*models.names(), *(f"{name}:stem={stem}" for name in STEMMED for stem in STEMS), "resnet20:shortcut=pad"]


def on_meta(spec: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(spec)


def weights(spec: str) -> int:
    return sum(prod(shape) for shape in models.prunable(on_meta(spec)).values())


def parameters(spec: str) -> int:
    return sum(parameter.numel() for parameter in on_meta(spec).parameters())


# Every net


@pytest.mark.parametrize("spec", SPECS)
def test_one_input_gives_one_row_of_classes_without_memory(spec):
    network = on_meta(spec).eval()
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    out = network(torch.empty(1, *models.input_shape(spec), device="meta"))
    _, classes = STEMS[spec.partition("stem=")[2] or "cifar"]
    if spec in ("mobilenetv2", "resnet18", "resnet34", "resnet50"):
        classes = 1000
    if spec == "chars_mlp":
        classes = 64
    assert out.shape == (1, classes)


@pytest.mark.parametrize("spec", SPECS)
def test_masked_by_default_is_every_parameter_of_two_dimensions_or_more(spec):
    network = on_meta(spec)
    large = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}
    assert models.prunable(network) == large
    assert set(large) < set(network.state_dict())


@pytest.mark.parametrize("spec", ["mlp:6-4-3", "lenet300", "lenet5", "conv6", "resnet20", "resnet20:shortcut=pad",
                                  "wrn28:width=1", "vgg11"])  # fmt: skip
def test_fresh_weights_are_kaiming_normal_and_give_finite_outputs(spec):
    torch.manual_seed(0)
    network = models.build(spec)
    assert network.training
    name, weight = max(network.named_parameters(), key=lambda item: item[1].numel())
    fan_in = prod(weight.shape[1:])
    deviations = 5 * (2 * weight.numel()) ** -0.5  # of an estimated standard deviation, relative
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=deviations), name
    assert all(not p.any() for key, p in network.named_parameters() if key.endswith("bias"))
    shape = (2, *models.input_shape(spec))
    assert network.eval()(torch.ones(shape)).isfinite().all()


EXPORTED = ["mlp:6-4-3", "lenet5", "conv2", "resnet20", "resnet20:shortcut=pad", "resnet18", "resnet18:stem=tiny",
            "digits_conv", "vgg11", "vgg11:stem=imagenet", "wrn28:width=2", "mobilenetv2:stem=cifar"]  # fmt: skip


@pytest.mark.parametrize("spec", EXPORTED)
def test_torch_export_takes_it(spec):
    network = on_meta(spec).eval()
    example = torch.empty(1, *models.input_shape(spec), device="meta")
    program = torch.export.export(network, (example,), strict=False)
    layers = [n for n in program.graph.nodes if n.op == "call_function" and str(n.target).startswith(LAYER_OPS)]
    assert len(layers) == len(models.prunable(network))


LAYER_OPS = ("aten.conv2d", "aten.linear")


# Published sizes


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        # torchvision's tables of its weights ("num_params")
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("vgg11:stem=imagenet", 132_868_840),
        ("vgg13:stem=imagenet", 133_053_736),
        ("vgg16:stem=imagenet", 138_365_992),
        ("vgg19:stem=imagenet", 143_678_248),
        ("mobilenetv2", 3_504_872),
        # the CIFAR versions most used (kuangliu/pytorch-cifar); its VGGs have the head of the lottery-ticket ones
        ("resnet18:stem=cifar", 11_173_962),
        ("resnet34:stem=cifar", 21_282_122),
        ("resnet50:stem=cifar", 23_520_842),
        ("vgg11", 9_231_114),
        ("vgg13", 9_416_010),
        ("vgg16", 14_728_266),
        ("vgg19", 20_040_522),
        # akamaster/pytorch_resnet_cifar10, option A; He et al. 2016, table 6 rounds them: 0.27 0.46 0.66 0.85 1.7 M
        ("resnet20:shortcut=pad", 269_722),
        ("resnet32:shortcut=pad", 464_154),
        ("resnet44:shortcut=pad", 658_586),
        ("resnet56:shortcut=pad", 853_018),
        ("resnet110:shortcut=pad", 1_727_962),
        # Zagoruyko & Komodakis 2016, table 4: 36.5 M; WRN-28-2 is 1.5 M in the papers that use it
        ("wrn28", 36_479_194),
        ("wrn28:width=2", 1_467_610),
        # Han et al. 2015: 267 K and 431 K
        ("lenet300", 266_610),
        ("lenet5", 431_080),
    ],
)
def test_parameters_with_biases_and_norms(spec, published):
    assert parameters(spec) == published


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet20", 270_896),
        ("lenet300", 784 * 300 + 300 * 100 + 100 * 10),
        ("lenet5", 20 * 25 + 50 * 20 * 25 + 800 * 500 + 500 * 10),
        ("resnet18:stem=tiny", 11_261_632),
        ("vgg16:classes=100", 14_710_464 + 512 * 100),
        ("mlp:64-300-100-10", 50_200),
        ("digits_conv", 32 * 9 + 32 * 64 * 9 + 64 * 64 * 9 + 64 * 10),
        ("mnist1d_mlp", 41_400),
        ("fashion_mlp", 54_912),
        ("fashion_conv", 56_224),
        ("chars_mlp", 286_720),
        ("resnet18", 11_689_512 - 2 * 4_800 - 1000),
    ],
)
def test_weights(spec, expected):
    assert weights(spec) == expected


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_weights_of_cifar_resnets_in_closed_form(depth):
    n = (depth - 2) // 6
    stages = sum(9 * c * (2 * n * c) for c in (16, 32, 64)) - 9 * (16 * 32 + 32 * 64)
    plain = 3 * 16 * 9 + stages + 64 * 10
    assert weights(f"resnet{depth}:shortcut=pad") == plain
    assert weights(f"resnet{depth}") == plain + 16 * 32 + 32 * 64
    assert len(models.prunable(on_meta(f"resnet{depth}"))) == depth + 2


# Frankle & Carbin 2019, figure 2: 4.3, 2.4 and 1.7 M weights in all, 38 K, 260 K and 1.1 M in convolutions. The Conv-6
# that they draw has 2.3 M: 1,144,512 in convolutions, 256 * 4 * 4 * 256 + 256 * 256 + 256 * 10 after them.
@pytest.mark.parametrize(
    ("spec", "convolutions", "features"),
    [("conv2", 38_592, 64 * 16 * 16), ("conv4", 259_776, 128 * 8 * 8), ("conv6", 1_144_512, 256 * 4 * 4)],
)
def test_weights_of_the_lottery_ticket_convolutions(spec, convolutions, features):
    shapes = models.prunable(on_meta(spec)).values()
    assert sum(prod(shape) for shape in shapes if len(shape) == 4) == convolutions
    assert [shape for shape in shapes if len(shape) == 2] == [(256, features), (256, 256), (10, 256)]


# Units of the unrolled graph, shortcuts apart: pixels of the image and of every layer's output.
@pytest.mark.parametrize(("spec", "units"), [("conv6", 232_970), ("resnet20:shortcut=pad", 191_498)])
def test_unrolled_units(spec, units):
    network, counted = on_meta(spec).eval(), [prod(models.input_shape(spec))]
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda _part, _args, out: counted.append(out.numel()))
    network(torch.empty(1, *models.input_shape(spec), device="meta"))
    assert sum(counted) == units


@pytest.mark.parametrize(
    ("spec", "side"),
    [("stem=imagenet", 7), ("stem=cifar", 4), ("stem=tiny", 8)],
)
def test_last_maps_of_mobilenet_and_resnet(spec, side):
    image = torch.empty(1, *models.input_shape(f"mobilenetv2:{spec}"), device="meta")
    mobile, resnet = (on_meta(f"{name}:{spec}") for name in ("mobilenetv2", "resnet18"))
    assert mobile.features(image).shape == (1, 1280, side, side)
    stages = (resnet.conv1, resnet.maxpool, resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    assert nn.Sequential(*stages)(image).shape == (1, 512, side, side)


# Parameter names


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared masks are not beside this checkout")
def test_resnet20_has_the_names_shapes_and_order_of_open_lth():
    saved = torch.load(DATA / "openlth_mask_resnet20_d0.02.pth", weights_only=True)
    assert list(models.prunable(models.build("resnet20")).items()) == [(k, tuple(v.shape)) for k, v in saved.items()]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared masks are not beside this checkout")
def test_resnet20_loads_a_synflow_state():
    saved = torch.load(DATA / "synflow_family_resnet20_d0.02.pt", weights_only=True)
    state = {key: value for key, value in saved.items() if not key.endswith(("_mask", "shortcut.weight"))}
    network = models.build("resnet20")
    network.load_state_dict(state, strict=True)
    assert torch.equal(network.get_parameter("blocks.6.shortcut.0.weight"), saved["blocks.6.shortcut.0.weight"])


def test_names_of_the_cifar_vgg_count_the_pools():
    convolutions = [0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]
    assert list(models.prunable(on_meta("vgg16"))) == [*(f"layers.{i}.conv.weight" for i in convolutions), "fc.weight"]
    assert "layers.3.bn.running_mean" in on_meta("vgg16").state_dict()


def test_names_of_torchvision():
    vgg = models.prunable(on_meta("vgg16:stem=imagenet"))
    features = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    assert list(vgg) == [*(f"features.{i}.weight" for i in features), *(f"classifier.{i}.weight" for i in (0, 3, 6))]
    assert vgg["classifier.0.weight"] == (4096, 25088)
    resnet = models.prunable(on_meta("resnet18"))
    assert list(resnet)[:2] == ["conv1.weight", "layer1.0.conv1.weight"]
    assert resnet["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert resnet["conv1.weight"] == (64, 3, 7, 7)
    assert models.prunable(on_meta("resnet18:stem=tiny"))["conv1.weight"] == (64, 3, 3, 3)
    bottleneck = models.prunable(on_meta("resnet50"))
    assert len(bottleneck) == 54
    assert bottleneck["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    mobile = models.prunable(on_meta("mobilenetv2"))
    assert len(mobile) == 53
    assert mobile["features.0.0.weight"] == (32, 3, 3, 3)
    assert mobile["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert mobile["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert mobile["features.17.conv.2.weight"] == (320, 960, 1, 1)
    assert mobile["features.18.0.weight"] == (1280, 320, 1, 1)
    assert mobile["classifier.1.weight"] == (1000, 1280)


def test_names_of_wide_resnets():
    shapes = models.prunable(on_meta("wrn28:width=2,classes=100"))
    assert shapes["block1.layer.0.convShortcut.weight"] == (32, 16, 1, 1)
    assert shapes["block3.layer.3.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["fc.weight"] == (100, 128)
    assert "block1.layer.0.convShortcut.weight" not in models.prunable(on_meta("wrn28:width=1"))


def test_names_of_plain_stacks():
    assert models.prunable(models.build("mlp:4-3-2")) == {"fc1.weight": (3, 4), "fc2.weight": (2, 3)}
    assert list(models.prunable(on_meta("lenet5"))) == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]


# What they compute


def test_a_perceptron_takes_images_flattened():
    network = models.build("lenet300")
    image = torch.rand(2, 1, 28, 28)
    assert torch.equal(network(image), network(image.reshape(2, 784)))
    first, second = (layer.weight for layer in models.build("mlp:2-2-1").children())
    small = models.build("mlp:2-2-1")
    small.load_state_dict(
        {"fc1.weight": first, "fc1.bias": torch.zeros(2), "fc2.weight": second, "fc2.bias": torch.ones(1)}
    )
    x = torch.tensor([[0.5, -2.0]])
    assert torch.allclose(small(x), (x @ first.T).clamp(min=0) @ second.T + 1)


@pytest.mark.parametrize("spec", ["resnet20:shortcut=pad", "resnet20:shortcut=conv"])
def test_a_block_without_its_branch_is_its_shortcut(spec):
    block = models.build(spec).eval().blocks[3]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 8, 8) + 1
    halved = x[:, :, ::2, ::2]
    if "pad" in spec:
        expected = torch.zeros(1, 32, 4, 4)
        expected[:, 8:24] = halved
    else:
        mixed = torch.einsum("oi,bihw->bohw", block.shortcut[0].weight[:, :, 0, 0], halved)
        expected = torch.relu(mixed / (1 + block.shortcut[1].eps) ** 0.5)
    assert torch.allclose(block(x), expected, atol=1e-5)


# Specs


def test_options_and_their_defaults():
    assert models.build("resnet20:classes=100").fc.weight.shape == (100, 64)
    assert models.build("resnet18:classes=7, stem=cifar").fc.weight.shape == (7, 512)
    assert models.input_shape("resnet18:stem=tiny,classes=7") == (3, 64, 64)
    assert models.input_shape("mlp:12-5-2") == (12,)
    assert models.input_shape("lenet300") == (784,)
    assert models.input_shape("lenet5") == (1, 28, 28)
    assert [models.input_shape(name) for name in ("vgg16", "resnet18")] == [(3, 32, 32), (3, 224, 224)]
    assert models.models["resnet18"].usage == "classes=COUNT, stem=imagenet|tiny|cifar, branches=plain|stable"
    assert models.models["mlp"].usage == "784-300-100-10"
    assert models.models["resnet20"].description == "ResNet-20 for CIFAR (He et al. 2016, section 4.2)"
    assert all("\n" not in models.models[name].description for name in models.names())


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("resnet21", "no model is called 'resnet21'.*here are: .*resnet20, resnet32"),
        ("", "no model is called ''; there are: .*lenet5"),
        ("resnet20:depth=3", r"'resnet20' has no option 'depth=3'; it takes classes=COUNT, shortcut=conv\|pad"),
        ("resnet20:tiny", "'resnet20' has no option 'tiny'; it takes classes=COUNT"),
        ("resnet20:classes=10,", "'resnet20' has no option ''; it takes classes=COUNT"),
        ("resnet20:classes=0", "'resnet20' has classes='0'; classes is a whole number from 1"),
        ("resnet20:classes=-3", "'resnet20' has classes='-3'; classes is a whole number from 1"),
        ("resnet20:classes=ten", "'resnet20' has classes='ten'; classes is a whole number from 1"),
        ("resnet20:classes=²", "'resnet20' has classes='²'; classes is a whole number from 1"),
        ("resnet20:classes=", "'resnet20' has classes=''; classes is a whole number from 1"),
        ("resnet20:classes=1,classes=2", "'resnet20' has 'classes' twice; an option is given once"),
        ("resnet18:stem=small", "'resnet18' has stem='small'; stem is one of imagenet, tiny, cifar"),
        ("lenet300:stem=tiny", "'lenet300' has no option 'stem=tiny'; it takes classes=COUNT"),
        (
            "mlp:784",
            "'mlp' has sizes='784'; sizes is two whole numbers or more, up to 1,000 and 33,554,432 in all, each at",
        ),
        ("mlp:784-0-10", "'mlp' has sizes='784-0-10'; sizes is two whole numbers or more"),
        ("mlp:classes=10", "'mlp' has no option 'classes=10'; it takes 784-300-100-10"),
    ],
)
def test_a_bad_spec_gets_one_clear_line(spec, line):
    for ask in (models.build, models.input_shape):
        with pytest.raises(TopoError, match=line) as caught:
            ask(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_names_and_input_shapes_do_not_load_torch():
    code = (
        "import sys; from topo import models; "
        "shapes = [models.models[name].description and models.input_shape(name) for name in models.names()]; "
        "models.input_shape('resnet18:stem=tiny'); "
        "assert len(shapes) == 25 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
