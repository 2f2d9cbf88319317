"""What somebody adds in ten minutes: a file or two, written to an empty folder and loaded, and nothing else touched."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import naive
import topo
import toys
from topo.cli import main
from topo.containers.container import containers
from topo.data import data
from topo.errors import TopoError
from topo.formats import formats
from topo.generators import generators
from topo.metrics import metrics
from topo.models import models
from topo.nulls import nulls
from topo.optimize import methods
from topo.plots import plots
from topo.pruners import pruners
from topo.quotas import quotas

REGISTRIES = (metrics, pruners, formats, containers, generators, quotas, nulls, models, data, plots, methods)
pytestmark = pytest.mark.small
Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """(name, text) -> the module of a new file. What it registers is forgotten after the test."""
    from topo.plots import takes

    for registry in REGISTRIES:
        len(registry)  # finds all there is
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    for drawn in set(takes):
        monkeypatch.setitem(takes, drawn, takes[drawn])
    monkeypatch.syspath_prepend(tmp_path)

    def written(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text)
        return importlib.import_module(name)

    return written


METRIC = """
from topo.metrics import metric


@metric(group="degrees", scope="layer", unit="share", source="definition", wired=False)
def layer_{name}(graph, block):
    '''The share of a layer's outputs that keep a weight.'''
    return float(graph.masks[block.name].reshape(block.shape[0], -1).any(axis=1).mean())
"""
TWIN = """
def layer_{name}(net, name):
    return sum(row.any() for row in net.masks[name]) / len(net.masks[name])
"""


def test_a_metric_is_two_files(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("mine_outputs", METRIC.format(name="outputs_in_use"))
    new = metrics["layer:outputs_in_use"]
    assert naive.lacking([new]) == [
        "metric 'outputs_in_use' of the layer has no twin: "
        "write `def layer_outputs_in_use(net, name)` in tests/naive/mine_outputs.py"
    ]

    (tmp_path / "naive").mkdir()
    (tmp_path / "naive" / "mine_outputs.py").write_text(TWIN.format(name="outputs_in_use"))
    monkeypatch.setattr(naive, "__path__", [*naive.__path__, str(tmp_path / "naive")])
    naive.families.cache_clear()
    try:
        assert naive.lacking(metrics.values()) == []
        wiring = toys.residual(width=3, blocks=2)
        masks = toys.sparse(wiring, 0.1, seed=0)
        report = topo.analyze(masks, wiring, metrics="outputs_in_use")
        twin = naive.twin("layer_outputs_in_use")
        shown = {row["layer"]: row["outputs_in_use"] for row in report.layers}
        assert shown == {name: pytest.approx(twin(naive.Net(masks, wiring), name)) for name in masks}
        assert len(set(shown.values())) > 2
    finally:
        naive.families.cache_clear()
    assert "outputs_in_use" in {entry.name for entry in topo.metrics.chosen("degrees")}


PRUNER = """
from topo.pruners import pruner


@pruner(data="none", cost="none", source="definition")
def {name}(net, batches, *, rng, power=1.0):
    '''|w| to a power: large weights are kept.'''
    return {{name: {score} for name, weight in net.weights.items()}}
"""


def test_a_pruner_is_one_file(load: Load) -> None:
    torch = pytest.importorskip("torch")
    load("mine_power", PRUNER.format(name="powered", score="weight.abs() ** power"))
    torch.manual_seed(0)
    model = topo.models.build("mlp:8-6-4")
    masks = topo.generate("powered", model, density=0.25, input_shape=(8,), power=2.0)
    assert masks.kept == 18 and masks.provenance["options"]["power"] == 2.0
    assert masks == topo.generate("magnitude", model, density=0.25, input_shape=(8,))


def test_a_pruner_that_turns_its_scores_is_named(load: Load) -> None:
    pytest.importorskip("torch")
    load("mine_turned", PRUNER.format(name="turned", score="weight.T"))
    with pytest.raises(
        TopoError, match=r"pruner 'turned' gives .* \(8, 6\) for 'fc1\.weight', whose shape is \(6, 8\)"
    ):
        topo.generate("turned", topo.models.build("mlp:8-6-4"), density=0.25, input_shape=(8,))


def test_a_name_is_free_again_after_the_test(load: Load) -> None:
    assert "outputs_in_use" not in {entry.name for entry in metrics.values()} and "powered" not in pruners


CSV_FOLDER = """
import numpy as np

from topo.containers.container import container


@container("csv_folder_of_mine", "a .csv of zeros and ones for each layer", folder="*.csv")
def open_csv_folder(folder):
    return {path.stem: np.loadtxt(path, delimiter=",", ndmin=2) for path in folder.files}
"""
READER = """
import numpy as np

from topo.formats import reader


def lacks(source):
    return None if any(name.endswith(".alive") for name in source.state) else "no array '*.alive'"


@reader("alive_of_mine", "which outputs are alive: 'NAME.alive' beside 'NAME'", recognise=lacks)
def read(source):
    alive = {name.removesuffix(".alive"): array for name, array in source.state.items() if name.endswith(".alive")}
    return {name: np.outer(array.whole(), np.ones(source.state[name].shape[1])) for name, array in alive.items()}
"""


def test_a_kind_of_file_is_one_file(load: Load, tmp_path: Path) -> None:
    load("mine_csv", CSV_FOLDER)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "fc.weight.csv").write_text("1,0,1\n0,0,1\n")
    masks = topo.read_masks(tmp_path / "layers")
    assert masks["fc.weight"].tolist() == [[True, False, True], [False, False, True]]


def test_a_reader_is_one_file(load: Load, tmp_path: Path) -> None:
    load("mine_alive", READER)
    np.savez(tmp_path / "m.npz", **{"fc.weight": np.full((3, 2), 0.5), "fc.weight.alive": np.array([1, 0, 1])})
    masks = topo.read_masks(tmp_path / "m.npz")
    assert (masks.kept, masks.provenance["format"]) == (4, "alive_of_mine")


GENERATOR = """
import numpy as np

from topo.generators import generator
from topo.masks import BitRows


@generator(source="definition")
def last_rows(wiring, budgets, rng):
    '''The last weights of each layer, row by row.'''
    for name, kept in budgets.items():
        shape = wiring.shapes[name]
        size = int(np.prod(shape))
        yield name, BitRows.of_mask((np.arange(size) >= size - kept).reshape(shape))
"""
QUOTA = """
from topo.quotas import quota


@quota
def most_at_the_end(shapes, total):
    '''Layers are filled one after the other, from the output on.'''
    shares = []
    for shape in reversed(shapes.values()):
        shares.append(min(shape[0] * shape[1], total - sum(shares)))
    return shares[::-1]
"""


def test_a_generator_and_a_quota_are_one_file_each(load: Load) -> None:
    load("mine_generator", GENERATOR)
    load("mine_quota", QUOTA)
    masks = topo.generate("last_rows", "mlp:8-6-4", density=0.5, quota="most_at_the_end")
    assert masks["fc2.weight"].all() and masks.kept == 36
    assert masks["fc1.weight"].tolist() == [[False] * 8] * 4 + [[False] * 4 + [True] * 4] + [[True] * 8]


NULL = """
from topo.masks import BitRows
from topo.nulls import null


@null("how many inputs each output unit keeps")
def mirrored(wiring, masks, rng):
    '''Each layer, or its mirror image, by lot.'''
    for name in masks:
        yield name, BitRows.of_mask(masks[name][:, ::-1] if rng.integers(2) else masks[name])
"""


def test_a_null_model_is_one_file(load: Load) -> None:
    load("mine_null", NULL)
    masks = topo.MaskSet({"fc1.weight": np.eye(3, 4), "fc2.weight": np.tri(2, 3)})
    report = topo.analyze(masks, metrics="effective_paths", nulls={"mirrored": 40}, rng=0)
    (row,) = [row for row in report.nulls if row["null"] == "mirrored"]
    assert row["samples"] == 40
    sides = [{name: mask[:, ::step] for name, mask in masks.items()} for step in (1, -1)]
    drawn = {topo.nulls.nulls["mirrored"](masks, seed).content_hash for seed in range(40)}
    assert drawn == {
        topo.MaskSet({**one, "fc2.weight": two["fc2.weight"]}).content_hash for one in sides for two in sides
    }


PLOT = """
from topo.plots import figure, plot


@plot(of="masks")
def kept_steps(masks, ax=None, *, colour: str = "0.4"):
    '''Kept weights of each layer, as steps.'''
    ax = figure().add_subplot() if ax is None else ax
    ax.step(range(len(masks)), [masks.rows(name).kept() for name in masks], color=colour, where="mid")
    return ax
"""


def test_a_plot_is_one_file(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("mine_plot", PLOT)
    masks = topo.MaskSet({"fc1.weight": np.eye(3, 4), "fc2.weight": np.tri(2, 3)})
    (line,) = topo.plots.plots["kept_steps"](masks).lines
    assert line.get_ydata().tolist() == [3, 3]
    topo.write_masks(masks, tmp_path / "m.npz")
    out = tmp_path / "m.svg"
    assert main(["plot", "kept_steps", str(tmp_path / "m.npz"), "-O", "colour=#123456", "-o", str(out), "--quiet"]) == 0
    assert "#123456" in out.read_text()
    assert main(["list", "plots"]) == 0 and "Kept weights of each layer, as steps" in capsys.readouterr().out


MODEL = """
from topo.models import model
from topo.models.options import Count


@model("this test", shape=(6,), classes=Count(3), width=Count(5))
def two_lines(classes, width):
    '''Two linear layers.'''
    from torch import nn

    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, classes))
"""


def test_an_architecture_is_one_file(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    load("mine_model", MODEL)
    out = tmp_path / "m.npz"
    line = ["generate", "er", "--model", "two_lines:width=4", "--density", "0.5", "-o", str(out), "--quiet"]
    assert main(line) == 0
    masks = topo.read_masks(out)
    assert masks.shapes == {"0.weight": (4, 6), "2.weight": (3, 4)} and masks.kept == 18


DATA = """
import numpy as np

from topo.data import Dataset, layout


@layout("two_rows", "a text file of two rows of numbers, one for each class", recognise=lambda p: p.suffix == ".rows")
def read(path):
    rows = np.loadtxt(path, dtype=np.uint8).reshape(2, 1, 1, -1)
    images, labels = np.repeat(rows, 10, axis=0), np.repeat([0, 1], 10)
    return Dataset(path.stem, images, labels, images, labels, ("first", "second"), flips=False)
"""


def test_a_data_set_is_one_file(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    load("mine_data", DATA)
    (tmp_path / "mine.rows").write_text("0 0 250 250\n250 250 0 0\n")
    images = topo.data.load(tmp_path / "mine.rows")
    assert images.classes == ("first", "second") and images.train_images.shape == (20, 1, 1, 4)
    recipe = {"epochs": 8, "batch": 5, "padding": 0}
    run = topo.train("mlp:4-6-2", str(tmp_path / "mine.rows"), recipe=recipe)
    assert run.final_accuracy == 1


def test_a_recipe_is_one_file(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "short.toml").write_text('source = "this test"\nepochs = 1\nbatch = 500\nlr = 0.25\n')
    run = topo.train("mlp:64-6-10", "digits", recipe=str(tmp_path / "short.toml"))
    assert len(run.history) == 1 and run.recipe.lr == 0.25
    (tmp_path / "short.toml").write_text("epoch = 1\n")
    with pytest.raises(TopoError, match=r"has the key 'epoch', which no recipe has; keys are .*epochs"):
        topo.train("mlp:64-6-10", "digits", recipe=str(tmp_path / "short.toml"))


OPTIMIZER = """
from topo.masks import BitRows, MaskSet
from topo.optimize.problem import Balanced, Problem
from topo.optimize.registry import method


@method(source="definition")
def stars(wiring, *, total=None, rng=0, progress=None, budgets="erk", first: int = 0):
    '''One output of each layer keeps what it can, then the next.'''
    import numpy as np

    problem = Problem(wiring, total=total)
    masks = {}
    for name, kept in problem.split(budgets).items():
        shape = wiring.shapes[name]
        flags = (np.arange(np.prod(shape)) < kept).reshape(shape)
        masks[name] = np.roll(flags, first, axis=0)
    return Balanced(MaskSet(masks), problem, (), ())
"""


def test_an_optimizer_is_one_file(load: Load) -> None:
    load("mine_optimizer", OPTIMIZER)
    masks = topo.generate("stars", "mlp:8-6-4", density=0.25, first="2")
    assert masks.kept == 18 and masks.provenance["options"]["first"] == 2
    assert not masks["fc1.weight"][:2].any() and masks["fc1.weight"][2].all()


RULE = """
import torch

import topo


@torch.library.custom_op("topo_ten_minutes::mirror", mutates_args=())
def mirror(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1)


@mirror.register_fake
def _(x):
    return torch.empty_like(x)


@topo.rule("topo_ten_minutes.mirror")
def units_of_mirror(units, inputs, shape):
    return inputs[0].flip(1)


class Mirrored(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.second(mirror(self.first(x)))
"""


def test_a_rule_of_a_trace_is_one_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from topo.trace import rules

    monkeypatch.setattr(rules, "RULES", held := dict(rules.RULES))
    monkeypatch.setattr(importlib.import_module("topo.trace.walk"), "RULES", held)
    mine = load("mine_rule", RULE)
    first, second = topo.trace(mine.Mirrored(), (2,), strict=True).layers
    assert second.reads.tolist() == [first.start + 2, first.start + 1, first.start]


GROWTH = """
from topo.train.dynamic import dynamic


@dynamic("small", source="definition")
def by_small_gradient(layer):
    '''Weights grow where the gradient of the loss is smallest.'''
    return -layer.gradient.abs()
"""


def test_a_rule_of_growth_is_one_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from topo.train.dynamic import dynamics

    monkeypatch.setattr(dynamics, "_entries", dict(dynamics._entries))
    load("mine_growth", GROWTH)
    recipe = {"epochs": 1, "batch": 400, "sparse": "small", "update_every": 1}
    masks = topo.generate("random", "mlp:64-6-10", density=0.2)
    run = topo.train("mlp:64-6-10", "digits", masks=masks, recipe=recipe)
    assert run.masks.kept == masks.kept and run.masks != masks and run.masks.provenance["sparse"] == "small"


CALIBRATED = """
from topo.calibrated import calibrated
from topo.calibrated.budget import highest_in_rows


@calibrated(seen="norms", cost="one pass", source="definition")
def by_inputs(weight, seen, keep):
    '''Weights whose inputs are largest.'''
    mask = highest_in_rows(seen.expand_as(weight), keep.count)
    return mask, weight * mask
"""


def test_a_pruner_by_calibration_is_one_file(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from topo.calibrated import methods as by_data
    from topo.calibrated import prune

    len(by_data)
    monkeypatch.setattr(by_data, "_entries", dict(by_data._entries))
    load("mine_calibrated", CALIBRATED)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    pruned = prune("by_inputs", model, sparsity=0.5, calibration=[torch.tensor([[1.0, 5.0, 2.0, 4.0]])])
    assert pruned.masks["0.weight"].tolist() == [[False, True, False, True]] * 3
