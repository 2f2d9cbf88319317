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
from topo.containers.container import containers
from topo.errors import TopoError
from topo.formats import formats
from topo.metrics import metrics
from topo.pruners import pruners

pytestmark = pytest.mark.small
Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """(name, text) -> the module of a new file. What it registers is forgotten after the test."""
    for registry in (metrics, pruners, formats, containers):
        len(registry)  # finds all there is
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
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
