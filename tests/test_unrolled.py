"""The unrolled view against torch's own arithmetic: autograd of ones on sum-pooled networks, in float64."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from map_nets import effective_weights, of_weights, output_first, turned, wrong
from torch import nn

import topo
import toys
from topo.errors import TopoError, TraceError, WiringError
from topo.graph import build_graph
from topo.graph.unrolled import count_edges, map_edges, unrolled
from topo.graph.whole import whole_graph
from topo.wiring import Layer
from topo.wiring.maps import Strips, axis_taps, joint_taps


class Skips(nn.Module):
    """A stride, an identity skip, a shortcut of stride 2, concatenation, and a pool of a whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.short = nn.Conv2d(3, 4, 1, stride=2)
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.one(x))
        x = self.two(x) + self.short(x)
        return self.fc(torch.cat([x, x.flip(1)], 1).mean((2, 3)))


NETS = {
    "strides": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 2, 2, (1, 2))), (2, 7, 6)),
    "dilation": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2)), (2, 5, 6)),
    "same": (lambda: nn.Sequential(nn.Conv2d(1, 2, 4, padding="same"), nn.Conv2d(2, 1, 3)), (1, 5, 5)),
    "circular": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")), (1, 4, 4)),
    "reflected": (lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(1, 2, 3)), (1, 4, 4)),
    "pools": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(18, 3), nn.Linear(3, 2)
        ),
        (1, 6, 6),
    ),
    "ceil": (lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 1, 2)), (1, 5, 5)),
    "adaptive": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(12, 2)),
        (1, 7, 9),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2), nn.Conv2d(4, 1, 3, 2)),
        (2, 3, 4),
    ),
    "nearest": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 2, 3)), (1, 3, 3)),
    "line": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, 2), nn.AvgPool1d(2), nn.Conv1d(3, 2, 2)), (2, 13)),
    "cube": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2, padding=1), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(16, 1)),
        (1, 3, 3, 3),
    ),
    "skips": (Skips, (2, 6, 6)),
    "wide": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 32, 1), nn.Conv2d(32, 18, 3, 2, 1, groups=2), nn.Conv2d(18, 2, 5, padding=2)
        ),
        (2, 7, 9),
    ),
}


@cache
def traced(name: str) -> topo.Wiring:
    make, shape = NETS[name]
    return topo.trace(make().double().eval(), shape)


def masked(name: str, density: float = 0.6, seed: int = 0):
    torch.manual_seed(0)
    make, shape = NETS[name]
    wiring = traced(name)
    return make().double().eval(), shape, wiring, toys.sparse(wiring, density, seed)


def sums(name: str, density: float, seed: int):
    """(paths, parameter -> paths through each weight, paths through each place of the input), by torch."""
    model, shape, wiring, masks = masked(name, density, seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = lambda x: x
        if "Pool" in type(module).__name__:  # what a pool divides by, it adds
            module.forward = _sum_pool(module)
    if name == "skips":
        model.forward = _sums_of_skips(model)
    kept = {}
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.zero_()
            if key in masks:
                mask = torch.from_numpy(masks[key].copy()).double()
                if key in wiring.input_first:
                    mask = torch.from_numpy(turned(masks[key], wiring.input_first[key]).copy()).double()
                parameter.copy_(mask)
                kept[key] = parameter
    x = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    relu, torch.relu = torch.relu, lambda value: value
    try:
        total = model(x).sum()
    finally:
        torch.relu = relu
    total.backward()
    return total.item(), {key: value.grad.numpy() for key, value in kept.items()}, x.grad.numpy().reshape(-1)


def _sum_pool(module):
    space = int(type(module).__name__[-2])
    pool = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)[space - 1]
    if "Adaptive" in type(module).__name__:

        def adaptive(x):
            rows = []
            for i in range(module.output_size[0]):
                top, bottom = i * x.shape[2] // module.output_size[0], -(-(i + 1) * x.shape[2] // module.output_size[0])
                row = []
                for j in range(module.output_size[1]):
                    a, b = j * x.shape[3] // module.output_size[1], -(-(j + 1) * x.shape[3] // module.output_size[1])
                    row.append(x[:, :, top:bottom, a:b].sum((2, 3)))
                rows.append(torch.stack(row, -1))
            return torch.stack(rows, -2)

        return adaptive
    size = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
    stride = module.stride if isinstance(module.stride, int) else module.stride[0]
    padding = module.padding if isinstance(module.padding, int) else module.padding[0]

    def summed(x):
        if module.ceil_mode:
            x = nn.functional.pad(x, [0, size - 1] * space)
            outs = [-(-(n - size + 1 - size) // stride) + 1 for n in x.shape[2:]]
            made = pool(x, size, stride) * size**space
            return made[(..., *(slice(0, n) for n in outs))]
        return pool(x, size, stride, padding) * size**space

    return summed


def _sums_of_skips(model):
    def forward(x):
        x = model.stem(x)
        x = x + model.one(x)
        x = model.two(x) + model.short(x)
        return model.fc(torch.cat([x, x.flip(1)], 1).sum((2, 3)))

    return forward


@pytest.mark.parametrize("density, seed", [(1.0, 0), (0.6, 0), (0.3, 1)])
@pytest.mark.parametrize("name", NETS)
def test_paths_are_those_of_autograd(name: str, density: float, seed: int) -> None:
    """Exactly, also through each weight and place of the input; a weight is effective where its gradient is not 0."""
    _, _, wiring, masks = masked(name, density, seed)
    total, gradients, of_inputs = sums(name, density, seed)
    graph = build_graph(masks, wiring, "unrolled")
    found = unrolled(graph)
    assert found.exact == total
    assert math.ldexp(*found.total) == pytest.approx(total, rel=1e-12)
    through: dict[str, np.ndarray] = {}
    for step in found.layers:
        through[step.name] = through.get(step.name, 0) + of_weights(found, step)
    for key, gradient in gradients.items():
        expected = np.where(masks[key], output_first(gradient, wiring, key), 0.0)
        np.testing.assert_allclose(through[key], expected, rtol=1e-12, atol=0)
        assert (effective_weights(found, key) == (expected > 0)).all()
    values, exponent = found.backward.take(found.maps.inputs)
    np.testing.assert_allclose(np.ldexp(values, exponent), of_inputs, rtol=1e-12)


def test_drawn_networks_count_as_autograd_does() -> None:
    """Strides, dilation, groups, ways of padding, pools, skips, gates, constants, shared layers, one to three axes.

    `python tests/map_nets.py 500` compares as many networks as one asks for.
    """
    assert not wrong([*range(12), 97], density=0.6)  # 97: a mean of constants alone


@pytest.mark.small
def test_taps_meet_runs_of_strips() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        axes = []
        for _ in range(int(rng.integers(1, 4))):
            kernel, stride, dilation = (int(rng.integers(1, 4)) for _ in range(3))
            size, padding = int(rng.integers(1, 7)), int(rng.integers(3))
            out = (size + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
            axes.append((size, max(out, 1), kernel, stride, padding, dilation))
        taps = joint_taps(tuple(axis[0] for axis in axes), [axis_taps(*axis) for axis in axes])
        for strips in (Strips.of_axes(tuple(axes)), Strips.of_taps(taps)):
            at = strips.shifts[:, None] + strips.lanes
            assert np.array_equal(strips.cells[at], taps) and strips.shifts.max() + strips.length <= len(strips.cells)
            cells = np.full(len(strips.cells), -1)
            for begin, place, count in strips.runs:
                cells[begin : begin + count] = place + strips.step * np.arange(count)
            assert np.array_equal(cells, strips.cells)
            rows = strips.lanes.reshape(-1, strips.row)
            assert np.array_equal(rows, rows[:, :1] + np.arange(strips.row))


def test_counts_beyond_floats_keep_a_power_of_two_for_each_tensor() -> None:
    """A short and a long branch meet: 2**7 paths, and 2**1807 more, which no float holds."""
    units, steps = np.arange(8, dtype=np.int32), []
    for k in range(601):
        steps.append(Layer(f"l{k}", (8, 8), units + 8 * k, 8 * (k + 1)))
    steps.append(Layer("short", (8, 8), units, 8 * 602))
    steps.append(Layer("last", (2, 16), np.concatenate([units + 8 * 601, units + 8 * 602]), 8 * 603))
    wiring = topo.Wiring(units, tuple(steps), np.arange(2) + 8 * 603)
    masks = topo.MaskSet({name: np.ones(shape, bool) for name, shape in wiring.shapes.items()})
    found = unrolled(build_graph(masks, wiring, "unrolled"))
    paths = 2 * 8 * (8 + 8**601)
    assert found.exact == paths
    mantissa, exponent = found.total
    assert math.log2(mantissa) + exponent == pytest.approx(math.log2(paths), rel=1e-12)
    back, exponent = found.backward.take(found.maps.inputs)
    assert math.log2(back.sum()) + exponent == pytest.approx(math.log2(paths), rel=1e-12)
    for step in found.layers:
        values, exponent = found.edge_paths(step)
        assert math.log2(values.max()) + exponent <= math.log2(paths) + 1e-9
    short = next(step for step in found.layers if step.name == "short")
    values, exponent = found.edge_paths(short)
    np.testing.assert_array_equal(np.ldexp(values, exponent), 2.0)


def test_numbers_of_the_report_say_what_padding_starves() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1))
    wiring = topo.trace(model, (1, 1, 1))
    masks = topo.MaskSet({name: np.ones(shape, bool) for name, shape in wiring.shapes.items()})
    report = topo.analyze(masks, wiring, view="unrolled", metrics="paths")
    assert report.view == "unrolled"
    assert report.network["effective_params"] == 2 and report.network["effective_paths"] == 1
    assert report.network["units"] == report.network["effective_units"] == report.network["nodes"] == 3
    notes = [note["note"] for note in report.notes if note["metric"] == "effective_params"]
    assert notes == ["8 fewer than in the channel view: padding starves them"]
    assert math.isnan(report.network["path_entropy"])


def conv6() -> topo.Wiring:
    widths, layers, before = (64, 64, 128, 128, 256, 256), [], 3
    for at, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if at % 2 else [])]
        before = width
    with torch.device("meta"):
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 256), nn.Linear(256, 256), nn.Linear(256, 10))
    return topo.trace(model, (3, 32, 32))


@pytest.mark.parametrize("name, units", [("conv6", 232_970), ("resnet20", 191_498)])
def test_published_networks_have_their_units(name: str, units: int) -> None:
    wiring, density = (topo.networks.find_wiring("resnet20"), 0.02) if name == "resnet20" else (conv6(), 0.0005)
    masks = topo.generate("uniform", wiring, density=density, rng=0)
    graph = build_graph(masks, wiring, "unrolled")
    assert topo.analyze(masks, wiring, view="unrolled", metrics="units").network == {"units": units}
    assert whole_graph(graph).n == units


@pytest.mark.parametrize("name", NETS)
def test_edges_are_those_of_a_plain_loop(name: str) -> None:
    """Units, edges and paths of the list, with pools as their members and sums as in the channel view."""
    _, _, wiring, masks = masked(name, 0.5, 3)
    graph = build_graph(masks, wiring, "unrolled")
    found, whole = unrolled(graph), whole_graph(graph)
    ptr, ends, many = whole.outgoing
    assert (ends > np.repeat(np.arange(whole.n), np.diff(ptr))).all()
    ahead = np.where(whole.inputs, 1.0, 0.0)
    for unit in range(whole.n):
        here = slice(ptr[unit], ptr[unit + 1])
        np.add.at(ahead, ends[here], many[here] * ahead[unit])
    assert ahead[whole.outputs].sum() == found.exact
    report = topo.analyze(masks, wiring, view="unrolled", metrics="graph")
    assert report.network["one_hop"] == pytest.approx(1 + whole.size / whole.n)


def test_of_matrices_the_view_is_the_channel_view() -> None:
    for masks, wiring in (toys.complete(3, 4, 5, 2), (toys.sparse(toys.grouped(), 0.6, 1), toys.grouped())):
        one, two = (topo.analyze(masks, wiring, view=view, metrics="graph").network for view in ("channel", "unrolled"))
        for key, value in one.items():
            assert two[key] == pytest.approx(value, nan_ok=True), key


def test_strengths_count_every_place_of_a_weight() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))
    wiring = topo.trace(model, (1, 2, 2))
    weights = {"0.weight": np.arange(9.0).reshape(1, 1, 3, 3)}
    found = topo.analyze(
        {"0.weight": np.ones((1, 1, 3, 3))}, wiring, view="unrolled", metrics="mean_strength", weights=weights
    )
    each = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert found.network["mean_strength"] == 2 * (weights["0.weight"][0, 0] * each).sum() / 8


def test_an_edge_list_beyond_the_bound_is_refused_with_its_size() -> None:
    _, _, wiring, masks = masked("strides", 1.0)
    edges = whole_graph(build_graph(masks, wiring, "unrolled")).size
    assert topo.analyze(masks, wiring, view="unrolled", metrics="sinks", max_edges=edges).network["sinks"] >= 0
    with pytest.raises(TopoError, match=rf"has {edges:,} edges.*up to {edges - 1:,} are listed.*--max-edges"):
        topo.analyze(masks, wiring, view="unrolled", metrics="sinks", max_edges=edges - 1)


def test_what_needs_edges_of_layers_says_which_view_has_them() -> None:
    masks, wiring = toys.complete(2, 3)
    with pytest.raises(TopoError, match="take view channel or unit"):
        topo.to_networkx(build_graph(masks, wiring, "unrolled"))


def test_what_is_not_known_of_maps_is_said() -> None:
    _, _, wiring, masks = masked("strides")
    saved = topo.Wiring.from_json(wiring.to_json())
    with pytest.raises(WiringError, match=r"needs the sizes of feature maps.*give the model"):
        topo.analyze(masks, saved, view="unrolled")
    attention = topo.trace(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")), (1, 3, 3))
    with pytest.raises(TraceError, match=r"not known of this model: aten\.upsample_bilinear2d"):
        attention.maps()


def test_the_command_takes_the_view_and_the_bound(tmp_path, capsys) -> None:
    from topo.cli import main

    path = tmp_path / "mask.npz"
    masks = topo.generate("uniform", topo.networks.find_wiring("resnet20"), density=0.02, rng=0)
    topo.write_masks(masks, path)
    wanted = ["analyze", str(path), "--model", "resnet20", "--view", "unrolled", "--quiet", "--metrics"]
    assert main([*wanted, "units", "--json", "-"]) == 0
    assert '"units":191498' in capsys.readouterr().out.replace(" ", "")
    assert main([*wanted, "sinks", "--max-edges", "1000"]) == 1
    assert "the unrolled network has" in capsys.readouterr().err


def test_figures_and_comparisons_take_the_view(tmp_path, capsys) -> None:
    import json

    from topo.cli import main

    for seed in (0, 1):
        masks = topo.generate("uniform", topo.networks.find_wiring("digits_conv"), density=0.1, rng=seed)
        topo.write_masks(masks, tmp_path / f"{seed}.npz")
    pair = [str(tmp_path / "0.npz"), str(tmp_path / "1.npz"), "--model", "digits_conv", "--view", "unrolled", "--quiet"]
    assert main(["compare", *pair, "--json", "-"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert main(["analyze", *pair, "--json", "-"]) == 0
    reports = json.loads(capsys.readouterr().out)["reports"]
    for side, report in zip("ab", reports):
        for metric in ("effective_paths", "effective_units", "effective_params"):
            assert network[side][metric] == report["network"][metric]
    out = str(tmp_path / "figure.svg")
    assert main(["plot", "nodes_paths", *pair, "-o", out]) == 0
    assert main(["plot", "layered_graph", pair[0], *pair[2:], "-o", out]) == 2
    assert "plot 'layered_graph' has one view" in capsys.readouterr().err
    assert main(["analyze", *pair, "--metrics", "effective_units", "--nulls", "same_layers:3", "--json", "-"]) == 0
    for report in json.loads(capsys.readouterr().out)["reports"]:
        assert report["nulls"][0]["samples"] == 3 and report["nulls"][0]["observed"] > 300


@pytest.mark.parametrize("method, edges", [("uniform", 4_810_000), ("erk", 3_930_000)])
def test_conv6_has_as_many_edges_as_is_published(method: str, edges: int) -> None:
    """MGE's figures at 98 % sparsity, counted and not listed; masks differ by their borders."""
    wiring = conv6()
    masks = topo.generate(method, wiring, density=0.02, rng=0)
    found = unrolled(build_graph(masks, wiring, "unrolled"))
    assert count_edges(found, map_edges(found)) == pytest.approx(edges, rel=0.01)
