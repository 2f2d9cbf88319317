"""What figures are given: runs of unlike recipes, masks of unlike networks, labels, empty masks. About 8 s."""

import itertools
import json
import re
from dataclasses import fields
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tomli_w
from test_figures import CASES, _front
from test_figures_print import _ax, _drawn, _faults, _said

import topo
from topo import plots
from topo.cli import main
from topo.errors import TopoError
from topo.plots.reading import read_rows
from topo.plots.settings import SETTINGS, settled
from topo.train.recipe import Recipe, find_recipe

pytestmark = pytest.mark.slow

matplotlib.use("agg")
MODEL = "mlp:12-10-8-4"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _mask(method="erk", density=0.3, model=MODEL, seed=0):
    return topo.generate(method, model, density=density, rng=seed)


def _run(path, masks, accuracy=0.5, seed=0, model=MODEL, imp=None, **recipe):
    """A run folder as `topo train` leaves it; without an accuracy, one that was cut off."""
    Path(path).mkdir()
    config = {"run": {"schema": "topo-run/1", "model": model, "data": "digits", "masks": "x", "seed": seed}}
    config["recipe"] = find_recipe("quick").changed(**recipe).table()
    config |= {"imp": imp} if imp else {}
    (Path(path) / "config.toml").write_text(tomli_w.dumps(config))
    (Path(path) / "environment.json").write_text("{}")
    (Path(path) / "metrics.jsonl").write_text("")
    if masks is not None:
        topo.write_masks(masks, Path(path) / "masks.safetensors")
    if accuracy is not None:
        summary = {"final_test_accuracy": accuracy, "density": masks and masks.density, "recipe": "quick", "seed": seed}
        (Path(path) / "summary.json").write_text(json.dumps(summary))
    return path


def _rows(*paths):
    return [row for path in paths for row in read_rows(path)]


def _legend(ax):
    return [label.replace("\n", " ") for label in ax.get_legend_handles_labels()[1]]


def _command(capsys, *arguments):
    """(exit status, the last line of stderr, text of the picture)."""
    code = main(["plot", *map(str, arguments), "-o", "x.svg"])
    said = capsys.readouterr().err.strip()
    found = re.findall(r"<text[^>]*>(.*?)</text>", Path("x.svg").read_text(), re.DOTALL) if code == 0 else []
    return code, said, [" ".join(re.sub("<[^>]+>", "", text).split()) for text in found]


# Runs of unlike recipes.


def test_settings_are_the_keys_of_recipes_but_for_their_names():
    """But for the density, which figures draw, and the epochs whose masks are kept, which change no run."""
    others = {"name", "source", "density", "mask_epochs"}
    assert {spec.name for spec in fields(Recipe)} - set(SETTINGS) == others


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(folder):
    masks = _mask()
    runs = [_run(f"a{seed}", masks, 0.5 + 0.1 * seed, seed) for seed in range(2)]
    ax = plots.accuracy_sparsity(_rows(*runs), ax=_ax())
    assert _legend(ax) == ["erk"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [55])
    runs += [_run("b", masks, 0.9, init="kaiming_normal"), _run("c", masks, 0.2, init="kaiming_normal", lr=0.05)]
    ax = plots.accuracy_sparsity(_rows(*runs), ax=_ax())
    assert _legend(ax) == [
        "erk, init=as_built, lr=0.1", "erk, init=kaiming_normal, lr=0.1", "erk, init=kaiming_normal, lr=0.05", "chance",
    ]  # fmt: skip
    means = {line.get_label(): line.get_ydata()[0] for line in ax.lines if "erk" in str(line.get_label())}
    np.testing.assert_allclose(list(means.values()), [55, 90, 20])
    figure = plots.metric_accuracy(_rows(*runs), metric="density", baseline="density", fig=matplotlib.figure.Figure())
    assert len(_legend(figure.axes[0])) == 3 and "of 3 points, means of up to 2 runs" in _said(figure)[1]


def test_dense_runs_of_unlike_recipes_are_two_baselines(folder):
    runs = [_run("a", None, 0.9, epochs=20), _run("b", None, 0.8, epochs=3), _run("c", _mask(), 0.5)]
    ax = plots.accuracy_sparsity(_rows(*runs), ax=_ax())
    first, second = (line for line in ax.lines if "dense" in str(line.get_label()))
    assert _legend(ax)[1:] == ["dense, epochs=20", "dense, epochs=3"]
    assert [line.get_ydata()[0] for line in (first, second)] == [90, 80]
    assert first.get_linestyle() != second.get_linestyle()


def test_rewinding_is_a_setting_and_level_0_is_dense(folder):
    imp = {"level": 1, "fraction": 0.2, "rewind": "weights", "rewind_epoch": 1}
    whole = topo.MaskSet({name: np.ones(mask.shape) for name, mask in _mask().items()})
    runs = [_run("l0", whole, 0.9, imp=imp | {"level": 0}), _run("l1", _mask("uniform"), 0.8, imp=imp)]
    runs += [_run("m1", _mask("uniform"), 0.7, imp=imp | {"rewind": "learning_rate"}), _run("d", None, 0.9)]
    rows = _rows(*runs)
    assert [row["method"] for row in rows] == ["dense", "imp", "imp", "dense"]
    ax = plots.accuracy_sparsity(rows, ax=_ax())
    assert _legend(ax) == ["imp, rewind=weights", "imp, rewind=learning_rate", "dense"]


def test_labels_of_settings():
    def names(*rows, **more):
        return settled([{"method": "erk", **row} for row in rows], "method", "", **more)

    assert names({"lr": "0.10"}, {"lr": 0.1}, {"lr": ""}) == ["erk"] * 3
    assert names({"lr": 1}, {"lr": 2}, {}) == ["erk, lr=1", "erk, lr=2", "erk, lr unknown"]
    assert names({"lr": 1}, {"lr": 2}, besides=("lr",)) == ["erk", "erk"]
    assert names({"recipe": "a"}, {"recipe": "b"}) == ["erk, recipe=a", "erk, recipe=b"]
    assert names({"recipe": "a", "lr": 1}, {"recipe": "b", "lr": 2})[0] == "erk, lr=1"
    assert names({"flip": True}, {"flip": False}) == ["erk, flip=True", "erk, flip=False"]
    one, two = ({key: k for key in ("init", "epochs", "batch", "lr", "momentum")} for k in (1, 2))
    assert names(one, two)[1] == "erk, init=2, epochs=2, batch=2, 2 more keys"
    half = {**one, "momentum": 2}  # the key that tells it apart is named before others
    assert names(one, two, half)[2] == "erk, init=1, momentum=2, epochs=1, 2 more keys"


# Unfinished runs, and metrics that runs lack.


def test_unfinished_runs_are_left_out_and_counted(folder, capsys):
    _run("a", _mask(), 0.5)
    _run("b", _mask(), None, lr=0.05)
    _run("c", None, None)
    code, _, texts = _command(capsys, "accuracy_sparsity", "a", "b")
    assert code == 0 and "sparsity (1 run unfinished, left out)" in texts and "erk" in texts
    code, _, texts = _command(capsys, "metric_accuracy", "a", "b", "c", "-O", "metric=effective_density")
    assert code == 0 and "2runsunfinished,leftout" in "".join(texts).replace(" ", "")  # each letter is set alone
    Path("b/metrics.jsonl").unlink()  # killed before the first epoch
    for kind, *options in (("accuracy_sparsity",), ("metric_accuracy", "-O", "metric=density")):
        code, said, _ = _command(capsys, kind, "b", "c", *options)
        assert code == 1 and "no run is finished: none of 2 run folders has a summary.json" in said


def test_a_metric_that_runs_lack_is_computed_from_their_masks(folder, capsys, monkeypatch):
    masks = [_mask(method) for method in ("erk", "uniform", "biregular")]
    runs = [_run(f"r{k}", m, 0.5 + 0.1 * k) for k, m in enumerate(masks)]
    seen = []
    real = plots.plots["metric_accuracy"]

    def spy(
        data, fig=None, *, metric: str, y: str = "accuracy", baseline: str = "mean_log_density", group: str = "method"
    ):
        seen.extend(data)
        return real(data, fig, metric=metric, y=y, baseline=baseline, group=group)

    monkeypatch.setitem(plots.plots._entries, "metric_accuracy", spy)
    assert _command(capsys, "metric_accuracy", *runs, _run("d", None), "-O", "metric=log10_effective_paths")[0] == 0
    for row, held in zip(seen, masks):
        network = topo.analyze(held, MODEL, metrics="log10_effective_paths,mean_log_density").network
        assert {name: row[name] for name in network} == dict(network)
    assert np.isnan(seen[3]["log10_effective_paths"])


def test_a_metric_that_cannot_be_computed_says_what_to_do(folder, capsys):
    skip = topo.MaskSet({"a": np.eye(4), "b": np.eye(3)})  # no chain
    _run("a", skip, 0.5, model="Net")
    code, said, _ = _command(capsys, "metric_accuracy", "a", "-O", "metric=effective_nodes")
    assert code == 1 and "'effective_nodes' of the run 'a' needs the network's wiring" in said
    assert "'Net'" in said and said.endswith("give --model")
    _run("b", _mask(), 0.5)
    for metric, what in (("spam", "is called so (topo"), ("fan_in_mean", "but one of layers (topo list metrics)")):
        code, said, _ = _command(capsys, "metric_accuracy", "b", "-O", f"metric={metric}")
        assert code == 1 and f"no run holds a number '{metric}'" in said and what in said
    code, said, _ = _command(capsys, "metric_accuracy", "b", "-O", "metric=path_norm")
    assert code == 1 and "'path_norm' is a number of weights, and runs are measured by their masks" in said


# Masks of unlike networks.


def _unlike():
    return {"a": _mask(), "b": _mask(model="mlp:12-9-8-4")}


@pytest.mark.parametrize("kind", ["mask_overlap", "layer_profile", "density_profile", "mask_dynamics"])
def test_masks_of_unlike_networks_are_refused(kind):
    first, other = _unlike().values()
    said = r"masks of one network, but layer '{}' is 10x12 in 'a' and {} in 'b'"
    fewer = topo.MaskSet({name: mask for name, mask in list(first.items())[1:]})
    layer = next(iter(first))
    for second, shape in ((other, "9x12"), (fewer, "not there")):
        with pytest.raises(TopoError, match=said.format(layer, shape)):
            _drawn(kind, {"a": first, "b": second}, {})
    turned = topo.MaskSet(dict(reversed(list(first.items()))))
    _drawn(kind, {"a": first, "b": turned}, {})


def test_a_null_of_another_network_is_refused():
    first, other = _unlike().values()
    with pytest.raises(TopoError, match="a band is drawn of masks of one network, but layer"):
        plots.layer_profile(first, ax=_ax(), null=[other])
    with pytest.raises(TopoError, match="no layer is called"):
        plots.spectrum([first, topo.MaskSet({"x": np.eye(4)})], ax=_ax(), null=None)


def test_spectra_are_of_one_layer():
    first, second = (topo.MaskSet({"a": np.eye(8, k), "b": np.eye(k, 8)}) for k in (6, 4))
    second = topo.MaskSet({"a": np.tri(8, 6, -5), "b": np.tri(6, 8)})
    ax = plots.spectrum([first, second], ax=_ax(), null=None)
    assert "(a, " in ax.get_xlabel()
    assert [len(line.get_xdata()) for line in ax.lines if line.get_marker() != "None"] == [6, 3, 3]  # three are zero


def test_nodes_and_paths_are_of_one_network(folder, capsys):
    for name, masks in _unlike().items():
        topo.write_masks(masks, f"{name}.npz")
    code, said, _ = _command(capsys, "nodes_paths", "a.npz", "b.npz")
    assert code == 1 and "'a' has 34 nodes in all and 'b' 33" in said
    one, two = (topo.analyze(_mask(model=m), metrics="paths") for m in ("mlp:6-4-3-2", "mlp:6-3-4-2"))
    with pytest.raises(TopoError, match=r"layer 'fc1.weight' is 4x6 in 'one' and 3x6 in 'two'"):
        plots.nodes_paths({"one": one, "two": [two]}, ax=_ax())
    rows = [
        {"method": m, "nodes": n, "effective_nodes": 5, "log10_effective_paths": 1.0} for m, n in (("a", 7), ("b", 9))
    ]
    with pytest.raises(TopoError, match="'a' has 7 nodes in all and 'b' 9"):
        plots.nodes_paths(rows, ax=_ax())
    for row in rows:
        del row["nodes"]
    assert _legend(plots.nodes_paths(rows, ax=_ax()))[:2] == ["a", "b"]


# Names.


def test_a_band_says_whose_null_it_is():
    masks = {"erk": _mask(), "uniform": _mask("uniform")}
    for draw, options in ((plots.layer_profile, {"metric": "sigma2"}), (plots.spectrum, {})):
        ax = draw(masks, ax=_ax(), null="shuffle:20", **options)
        assert "shuffle of erk: 5 to 95 % of 20 samples" in _legend(ax)
        given = [topo.generate("shuffle", MODEL, source=masks["erk"], rng=k) for k in range(2)]
        assert "given shuffle masks: least to largest of 2 samples" in _legend(
            draw(masks, ax=_ax(), null=given, **options)
        )
        assert "shuffle: least to largest of 2 samples" in _legend(draw(masks["erk"], ax=_ax(), null=given, **options))


def test_names_have_no_endings_unless_these_tell_them_apart(folder, capsys):
    for name in ("a.safetensors", "b.npz", "b.safetensors", "c0.05.npz"):
        topo.write_masks(_mask(), name)
    files = ("a.safetensors", "b.npz", "b.safetensors", "c0.05.npz")
    wanted = {"a", "b.npz", "b.safetensors", "c0.05"}
    for kind in ("layer_profile", "density_profile", "spectrum", "degree_distribution", "mask_overlap"):
        code, _, texts = _command(capsys, kind, *files, "--quiet")
        assert code == 0 and wanted <= set(texts), kind
    masks = [topo.read_masks(name) for name in files]
    assert _legend(plots.layer_profile(masks, ax=_ax())) == ["a", "b.npz", "b.safetensors", "c0.05"]
    assert _legend(plots.nodes_paths([topo.analyze(m, metrics="paths") for m in masks[:2]], ax=_ax()))[:2] == ["a", "b"]


def test_a_label_is_given_before_the_path(folder, capsys):
    Path("d=1").mkdir()
    for name in ("a.npz", "b.npz", "d=1/c.npz"):
        topo.write_masks(_mask(), name)
    for kind in ("mask_overlap", "layer_profile", "nodes_paths"):
        code, _, texts = _command(capsys, kind, "SynFlow, 2 %=a.npz", "b.npz", "d=1/c.npz", "--quiet")
        assert code == 0 and {"SynFlow, 2 %", "b", "c"} <= set(texts), kind
    assert main(["analyze", "a.npz", "--json", "r.json", "--quiet"]) == 0
    capsys.readouterr()
    code, _, texts = _command(capsys, "density_profile", "mine=r.json", "b.npz", "--quiet")
    assert code == 0 and {"mine", "b"} <= set(texts)
    code, said, _ = _command(capsys, "layer_profile", "x=missing.npz")
    assert code == 1 and "'missing.npz'" in said
    code, said, _ = _command(capsys, "layer_profile", "d=2/c.npz")
    assert code == 1 and "'2/c.npz'" in said


def test_a_label_names_runs_tables_and_fronts(folder, capsys):
    for seed in range(2):
        _run(f"r{seed}", _mask(), 0.5 + 0.1 * seed, seed)
    _run("u", _mask("uniform"), 0.4)
    code, _, texts = _command(capsys, "accuracy_sparsity", "ours=r0", "ours=r1", "u")
    assert code == 0 and "ours" in texts and "uniform" in texts and "erk" not in texts
    assert "sparsity (bands: 95 % interval of the mean, up to 2 runs)" in texts
    Path("f.json").write_text(_front().to_json())
    Path("f.csv").write_text(_front().to_csv())
    code, _, texts = _command(capsys, "frontier", "one=f.json", "two=f.csv")
    assert code == 0 and {text.partition(":")[0] for text in texts} >= {"one", "two"}
    code, said, _ = _command(capsys, "accuracy_sparsity", "r0", "r1", "./r0")
    assert code == 2 and "'./r0' is given twice: what it holds would count twice" in said


def test_a_label_leaves_a_run_in_its_family(folder, capsys):
    for k, method in enumerate(("erk", "uniform", "biregular")):
        _run(method, _mask(method), 0.5 + 0.1 * k)
    _, _, plain = _command(capsys, "metric_accuracy", "erk", "uniform", "biregular", "-O", "metric=effective_density")
    _, _, named = _command(capsys, "metric_accuracy", "A=erk", "uniform", "biregular", "-O", "metric=effective_density")
    below = [re.findall(r"of\dpoints.*", "".join(texts).replace(" ", "")) for texts in (plain, named)]
    assert "of3pointswithin1cell" in below[0][0] and "of3pointswithin1cell" in below[1][0] and "A" in named


def test_the_same_file_given_twice_stands_there_twice(folder, capsys):
    topo.write_masks(_mask(), "a.npz")
    for kind in ("mask_overlap", "layer_profile", "spectrum"):
        code, _, texts = _command(capsys, kind, "a.npz", "a.npz", "--quiet")
        assert code == 0 and {"a", "a (2)"} <= set(texts), kind
    assert len(plots.mask_overlap([_mask(), _mask()], ax=_ax()).images[0].get_array()) == 2


def test_names_that_are_numbered_stay_apart():
    from topo.plots.given import numbered

    assert numbered(["b (3)", "b", "b"]) == ["b (3)", "b", "b (3) (3)"]


def test_long_names_are_cut_and_phrases_are_not():
    wiring, long = MODEL, "the_masks_of_a_method_with_a_rather_long_name_and_its_seed_{}_in_the_end"
    masks = {long.format(k): _mask(seed=k) for k in range(6)}
    reports = {name: topo.analyze(m, wiring, metrics="paths") for name, m in masks.items()}
    cases = [
        ("nodes_paths", reports, {}, {"equal log P + 2 log N", "not dominated"}),
        ("spectrum", masks, {}, {"Ramanujan bounds", "shuffle of "}),
        ("density_profile", reports, {}, {"effective density"}),
    ]
    for (kind, data, options, phrases), venue in itertools.product(cases, ("icml", "neurips")):
        figure = _drawn(kind, data, options, venue)
        texts = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_legend().get_texts()]
        assert len(set(texts)) == len(texts) and not set(texts) & set(masks)
        for phrase in phrases:
            assert any(text.startswith(phrase) for text in texts), (kind, venue, texts)
        assert _faults(figure) == [], (kind, venue)


# Parts of a page.


@pytest.mark.parametrize(
    "kind", ["metric_accuracy", "mask_dynamics", "mask_overlap", "accuracy_sparsity", "nodes_paths"]
)
def test_a_figure_in_half_a_page_fits_its_half(kind):
    import inspect

    draw, (data, options) = plots.plots[kind], CASES[kind]()
    with plots.paper("neurips"):
        page = plots.figure()
        left, right = page.subfigures(1, 2)
        by_figure = "fig" in inspect.signature(draw).parameters
        draw(data, **({"fig": left} if by_figure else {"ax": left.add_subplot()}), **options)
        ax = right.add_subplot()
        ax.set_title("beside")
        page.draw_without_rendering()
        texts = [t for t in left.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()]
        named = [t for t in texts if len(t.get_text()) > 4]
        assert named
        for text in named:
            box = text.get_window_extent()
            assert box.x0 >= left.bbox.x0 - 2 and box.x1 <= left.bbox.x1 + 2, text.get_text()
    assert _faults(page) == []


def test_the_page_of_axes_is_their_subfigure():
    from topo.plots.axes import page_of, size_of

    with plots.paper("neurips"):
        page = plots.figure()
        narrow, _ = page.subfigures(1, 2, width_ratios=[1, 3])
        top, _ = narrow.subfigures(2, 1)
        ax, whole = top.add_subplot(), page.add_subplot()
    width, height = 72 * page.get_figwidth(), 72 * page.get_figheight()
    assert page_of(whole) == (width, height)
    np.testing.assert_allclose(page_of(ax), (width / 4, height / 2))
    assert size_of(ax)[0] < width / 4


# Empty masks.


def _empty(kept=()):
    shapes = {"fc1": (8, 12), "fc2": (4, 8)}
    return topo.MaskSet({name: np.full(shape, name in kept) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    "kind, said",
    [
        ("spectrum", "layer 'fc1' keeps nothing"),
        ("path_flow", "no path from the inputs to the outputs is left"),
        ("degree_distribution", "no parameter is kept: there are no degrees to draw"),
        ("mask_overlap", "no mask keeps a parameter: there is no overlap to draw"),
        ("mask_dynamics", "no mask keeps a parameter: there is no course to draw"),
    ],
)
def test_of_nothing_nothing_is_drawn(kind, said):
    data = {"a": _empty(), "b": _empty()} if kind.startswith("mask_") else _empty()
    with pytest.raises(TopoError, match=f"^{said}"):
        _drawn(kind, data, {})


@pytest.mark.parametrize(
    "kind", ["layer_profile", "density_profile", "ramanujan_profile", "layered_graph", "mask_matrix", "nodes_paths"]
)
def test_empty_masks_are_said_to_be_empty(folder, capsys, kind):
    for name, kept in (("zero", ()), ("stub", ("fc1",))):
        topo.write_masks(_empty(kept), f"{name}.npz")
        code, _, texts = _command(capsys, kind, f"{name}.npz", "--quiet")
        shown = " ".join(texts)
        assert code == 0
        if kind == "nodes_paths":
            assert "no path left" in shown
        elif kind == "mask_matrix":
            assert ("0 of 96 kept" in shown) == (name == "zero")
        elif name == "zero":
            assert "no parameter is kept" in shown
        elif kind == "layered_graph":
            assert "no path is left" in shown
        elif kind != "ramanujan_profile":  # it counts what is kept, not what is on paths
            assert "no parameter is on a path" in shown


def test_one_empty_mask_among_others_is_named():
    masks = {"none": _empty(), "all": _empty(("fc1", "fc2"))}
    assert "no parameter is kept in none" in plots.layer_profile(masks, ax=_ax()).get_xlabel().replace("\n", " ")
    ax = plots.degree_distribution(masks, ax=_ax())
    assert _legend(ax) == ["none (nothing kept)", "all"]
    ax = plots.mask_overlap({**masks, "nil": _empty()}, ax=_ax())
    assert ax.get_xlabel() == "crossed out: neither keeps a parameter"
    assert not any("nan" in text.get_text() for text in ax.texts)
    with pytest.raises(TopoError, match="no parameter is kept in layer 'fc1'"):
        plots.degree_distribution(_empty(("fc2",)), ax=_ax(), layer="fc1")
    with pytest.raises(TopoError, match="no mask keeps a parameter in fc1"):
        plots.mask_overlap([_empty(("fc2",))] * 2, ax=_ax(), layer="fc1")


# Files of other kinds.


def test_json_of_another_kind_is_called_what_it_is(folder, capsys):
    Path("front.json").write_text(_front().to_json())
    Path("r.json").write_text(topo.analyze(_mask()).to_json())
    Path("o.json").write_text('{"schema": "topo/99"}')
    Path("n.json").write_text("{}")
    Path("h.json").write_text('{"schema": "topo/1"}')
    for kind, file, said in (
        ("layer_profile", "front", "'front.json' is a frontier, which topo plot frontier draws"),
        ("frontier", "r", "no column 'log10_paths'"),
        ("layer_profile", "o", "JSON of the schema 'topo/99'"),
        ("density_profile", "n", "JSON without a schema"),
        ("density_profile", "h", "it lacks 'reports'"),
    ):
        code, error, _ = _command(capsys, kind, f"{file}.json")
        assert code == 1 and said in error, error
