"""Figures on paper: type that can be read at every venue's width, null bands, cells, hypervolumes. About 22 s."""

import configparser
import functools
import inspect
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_figures import CASES, _chain, _masks, _report

import topo
from topo import plots
from topo.cli import main
from topo.errors import TopoError
from topo.optimize.frontier import hypervolume
from toys import complete

pytestmark = pytest.mark.slow

matplotlib.use("agg")
SMALLEST = 7.0  # points
# (width, venue, wide), every width once.
PAGES = {width: (venue, bool(wide)) for venue, pair in plots.VENUES.items() for wide, width in enumerate(pair)}
_data = functools.cache(lambda kind: CASES[kind]())


def _drawn(kind, data, options, venue="neurips", wide=False):
    draw = plots.plots[kind]
    with plots.paper(venue, wide=wide):
        figure = plots.figure()
        place = {"fig": figure} if "fig" in inspect.signature(draw).parameters else {"ax": figure.add_subplot()}
        draw(data, **place, **options)
        figure.draw_without_rendering()
    return figure


def _tick_labels(axis):
    """(labels that are drawn, all labels)."""
    every = [label for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)]
    low, high = sorted(axis.get_view_interval())
    edge = 1e-9 * (high - low)
    shown = [
        label
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if label.get_visible() and label.get_text().strip() and low - edge <= tick.get_loc() <= high + edge
    ]
    return shown, every


_NUMBER = re.compile(r"[-\u2212]?[\d.]+( ?[%x])?|\$.*\$")


def _faults(figure):
    """What cannot be read: small type, text off the page or on text (by over a point), numbers of nobody knows what."""
    shown, ticks, nameless = [], set(), []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            drawn, every = _tick_labels(axis)
            shown += drawn
            ticks |= set(every)
            numbers = drawn and ax.has_data() and all(_NUMBER.fullmatch(label.get_text()) for label in drawn)
            nameless += [f"without a name: {axis.axis_name} axis"] if numbers and not axis.get_label_text() else []
    shown += [t for t in figure.findobj(Text) if t not in ticks and t.get_visible() and t.get_text().strip()]
    page, found, boxes = figure.bbox, nameless, [(t.get_text(), t.get_window_extent()) for t in dict.fromkeys(shown)]
    assert boxes
    found += [f"{t.get_fontsize()} pt: {t.get_text()!r}" for t in shown if t.get_fontsize() < SMALLEST]
    for text, box in boxes:
        if box.x0 < page.x0 - 1 or box.y0 < page.y0 - 1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1:
            found.append(f"off the page: {text!r}")
    point = 1.2 * figure.dpi / 72
    for (text, a), (other, b) in itertools.combinations(boxes, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > point and min(a.y1, b.y1) - max(a.y0, b.y0) > point:
            found.append(f"{text!r} on {other!r}")
    return found


@pytest.mark.parametrize("width", PAGES)
def test_all_type_can_be_read_at_every_width_of_a_venue(width):
    for kind in CASES:
        figure = _drawn(kind, *_data(kind), *PAGES[width])
        assert figure.get_figwidth() == width
        assert _faults(figure) == [], kind


def test_small_type_and_texts_that_touch_are_found():
    figure = _drawn("density_profile", *_data("density_profile"))
    figure.axes[0].set_title("small", fontsize=6.9)
    assert _faults(figure) == ["6.9 pt: 'small'"]
    figure = _drawn("density_profile", *_data("density_profile"))
    figure.axes[0].text(0.5, 0.5, "here", transform=figure.axes[0].transAxes)
    figure.axes[0].text(0.5, 0.5, "there", transform=figure.axes[0].transAxes)
    figure.text(0.999, 0.5, "beyond")
    figure.axes[0].set_ylabel("")
    assert _faults(figure) == ["without a name: y axis", "off the page: 'beyond'", "'here' on 'there'"]


def _crowd():
    """What fills a page: fifty layers with long names, twelve masks, twelve methods."""
    rng = np.random.default_rng(0)
    deep = topo.MaskSet({f"encoder.layer{k}.attention.conv.weight": rng.random((6, 6)) < 0.4 for k in range(50)})
    report = _report(deep, topo.chain(deep), "deep")
    names = [f"resnet20_mask_of_{method}_seed{k}" for method in ("synflow", "uniform", "erk") for k in range(4)]
    rows = [
        {"method": f"method {m}", "family": "all", "density": d, "m": m * d, "mean_log_density": math.log(d) - m,
         "accuracy": 0.9 - 0.01 * m}
        for m in range(12) for d in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
    ]  # fmt: skip
    return [
        ("layered_graph", deep, {}),
        ("path_flow", deep, {}),
        ("layer_profile", report, {"metric": "ramanujan_gap"}),
        ("density_profile", {name: report for name in names[:6]}, {}),
        ("ramanujan_profile", report, {}),
        ("mask_overlap", {name: _masks(0.3, seed)[0] for seed, name in enumerate(names)}, {}),
        ("accuracy_sparsity", rows, {}),
        ("metric_accuracy", rows, {"metric": "m"}),
    ]


@pytest.mark.parametrize("venue", ["neurips", "icml"])
def test_crowded_figures_can_be_read(venue):
    for kind, data, options in _crowd():
        figure = _drawn(kind, data, options, venue)
        assert _faults(figure) == [], kind
        least = 0.2 if venue == "icml" else 0.33
        assert figure.axes[0].get_window_extent().height > least * figure.bbox.height, kind


HOSTILE = "$\\frac$"


def _hostile():
    """Kind -> data and options whose every name would be a formula, a wrong one, or moves a terminal."""
    layers = (f"{HOSTILE}a.weight", f"b\n{HOSTILE}.weight", "c\x1b[31m_$x$^.weight")
    shapes = ((6, 5), (4, 6), (3, 4))
    masks = {
        f"{HOSTILE} {seed}": topo.MaskSet(
            {name: np.random.default_rng([seed, k]).random(shape) < 0.8
             for k, (name, shape) in enumerate(zip(layers, shapes))}
        )
        for seed in range(3)
    }  # fmt: skip
    reports = {
        name: topo.analyze(held, topo.chain(held), mask_name=name, nulls={"same_layers": 3}, rng=0)
        for name, held in masks.items()
    }
    rows = [
        {"method": f"{HOSTILE}{k % 3}", "data": HOSTILE, "density": 0.1 * (1 + k // 3 % 2), "accuracy": 0.5 + k / 99,
         "seed": k // 6, HOSTILE: k}
        for k in range(12)
    ]  # fmt: skip
    epochs = [{"epoch": 1, "test_accuracy": 0.5, HOSTILE: 1.0}, {"epoch": 2, "test_accuracy": 0.6, HOSTILE: 2.0}]
    one, report = next(iter(masks.values())), next(iter(reports.values()))
    several = ("layer_profile", "density_profile", "nodes_paths", "metric_sparsity", "metric_heatmap", "dead_units")
    return {
        **{kind: (reports, {}) for kind in several},
        **{kind: (masks, {}) for kind in ("spectrum", "degree_distribution", "mask_overlap", "mask_dynamics")},
        **{kind: (one, {}) for kind in ("mask_matrix", "layered_graph", "path_flow")},
        **{kind: (report, {}) for kind in ("ramanujan_profile", "null_forest")},
        **{kind: (rows, {}) for kind in ("accuracy_sparsity", "ranking")},
        "metric_accuracy": (rows, {"metric": HOSTILE, "baseline": "density"}),
        "training_curves": ([({"method": f"{HOSTILE}{k}"}, epochs) for k in range(2)], {"y": HOSTILE}),
        "frontier": ({HOSTILE: [{"nodes": 3, "log10_paths": 1.0}], "$x$": [{"nodes": 2, "log10_paths": 2.0}]}, {}),
    }


def test_names_are_never_formulas(tmp_path):
    found = _hostile()
    assert set(found) == set(plots.plots)
    for kind, (data, options) in found.items():
        assert _faults(_drawn(kind, data, options, "icml")) == [], kind
    plots.save(_drawn("mask_overlap", *found["mask_overlap"]), tmp_path / "a.svg")
    assert f">{HOSTILE} 0</text>" in " ".join((tmp_path / "a.svg").read_text().split())


def _many(kind, count):
    names = [f"resnet20_mask_of_{m}_seed{k}" for m in ("synflow", "uniform", "erk", "balance") for k in range(10)]
    masks = {name: _masks(0.3, seed) for seed, name in enumerate(names[:count])}
    if kind in ("spectrum", "degree_distribution"):
        return {name: item for name, (item, _) in masks.items()}
    if kind == "accuracy_sparsity":
        return [
            {"method": name, "density": d, "accuracy": 0.9 - 0.01 * k}
            for k, name in enumerate(masks)
            for d in (0.5, 0.1)
        ]
    return {name: _report(*item, name) for name, item in masks.items()}


@pytest.mark.parametrize(
    "kind", ["layer_profile", "density_profile", "nodes_paths", "degree_distribution", "accuracy_sparsity", "spectrum"]
)
def test_figures_of_many_masks_keep_room_for_what_they_show(kind):
    """13 and 40 masks in the narrowest column: a legend of a third of the page at most, which counts the rest."""
    options = {"null": None} if kind == "spectrum" else {"metric": "density"} if kind == "layer_profile" else {}
    for count in (13, 40):
        figure = _drawn(kind, _many(kind, count), options, "icml")
        assert _faults(figure) == []
        ax = figure.axes[0]
        assert ax.get_window_extent().height > 0.3 * figure.bbox.height
        assert ax.get_legend().get_window_extent().height < 0.4 * figure.bbox.height
        shown = [text.get_text() for text in ax.get_legend().get_texts()]
        assert count == 13 or (shown[-1].startswith("and ") and shown[-1].endswith(" more") and len(shown) > 3)


def test_forty_methods_leave_room_for_their_accuracies():
    rows = [
        {"method": f"synflow_seed_variant_{m}", "family": "all", "density": d, "m": m * d,
         "mean_log_density": math.log(d) - m, "accuracy": 0.9 - 0.01 * m}
        for m in range(40) for d in (0.5, 0.1, 0.01)
    ]  # fmt: skip
    figure = _drawn("metric_accuracy", rows, {"metric": "m"}, "icml")
    assert _faults(figure) == []
    (found,) = figure.legends
    assert found.get_window_extent().height < 0.3 * figure.bbox.height
    assert found.get_texts()[-1].get_text().endswith(" more")
    assert figure.axes[0].get_window_extent().height > 0.2 * figure.bbox.height


def test_empty_axes_say_that_nothing_is_defined():
    empty = topo.MaskSet({"a": np.zeros((6, 5), bool), "b": np.zeros((4, 6), bool)})
    report = topo.analyze(empty, metrics="all")
    for kind, options, said in (
        ("layer_profile", {"metric": "ramanujan_gap"}, "undefined in every layer"),
        ("ramanujan_profile", {}, "undefined in every layer"),
        ("nodes_paths", {}, "no mask has a path"),
    ):
        (ax,) = _drawn(kind, report, options, "icml").axes
        assert any(said in text.get_text().replace("\n", " ") for text in ax.texts), kind
        assert not len(ax.get_yticks())


def test_axes_of_units_have_ticks_at_whole_units():
    few = topo.MaskSet({"a": np.eye(6, 5, dtype=bool), "b": np.eye(4, 6, dtype=bool)})
    report = topo.analyze(few, metrics="all")
    for kind, options, side in (
        ("layer_profile", {"metric": "kept"}, "y"),
        ("layer_profile", {"metric": "effective_in"}, "y"),
        ("nodes_paths", {}, "x"),
    ):
        (ax,) = _drawn(kind, report, options, "icml").axes
        ticks = getattr(ax, f"get_{side}ticks")()
        assert len(ticks) and (np.asarray(ticks) == np.round(ticks)).all(), kind


_CUT = "layer (words cut to 6 letters)"


@pytest.mark.parametrize(
    "names, first, said",
    [
        (["a.weight", "b.weight"], "a", "layer"),
        ([f"layer1.{k}.conv" for k in range(22)], "0", "layer (without layer1.)"),
        ([f"layer1.{k}.conv" for k in range(50)], "0", "layer (without layer1., every 2nd named)"),
        ([f"encoder{k}.attention.projection" for k in range(9)] + ["y"], "encode0.attent.projec", _CUT),
        ([f"layer{k}" for k in range(300)], None, "layer, by number from 0"),
        ([f"{'some' * 9}{end}" for end in "abcdefghi"], None, "layer, by number from 0"),
    ],
)
def test_names_of_layers_follow_a_rule_that_is_stated(names, first, said):
    from topo.plots.axes import name_layers

    with plots.paper():
        ax = plots.figure().add_subplot()
        name_layers(ax, names)
    assert ax.get_xlabel() == said
    if first is not None:
        assert ax.get_xticklabels()[0].get_text() == first
        assert {label.get_fontsize() for label in ax.get_xticklabels()} == {7.0}


# The style.


def test_the_style_file_is_what_paper_sets():
    before = dict(matplotlib.rcParams)
    with pyplot.style.context(["default", "topo.plots.topo"]):
        alone = dict(matplotlib.rcParams)
    with plots.paper("neurips"):
        paper = dict(matplotlib.rcParams)
    with plots.paper("icml"):
        narrow = dict(matplotlib.rcParams)
    assert alone["figure.figsize"] == pytest.approx(paper["figure.figsize"])
    assert {key for key in alone if alone[key] != paper[key]} <= {"figure.figsize"}
    assert {key for key in alone if alone[key] != narrow[key]} == {"figure.figsize"}
    assert paper["pdf.fonttype"] == 42 and paper["figure.constrained_layout.use"]
    cycle = paper["axes.prop_cycle"].by_key()
    assert all(len(set(cycle[key])) == 8 for key in ("color", "marker")) and len(set(cycle["linestyle"])) == 4
    assert dict(matplotlib.rcParams) == before


def test_no_figure_room_sets_anything_when_imported():
    code = (
        "import matplotlib; before = dict(matplotlib.rcParams); from topo import plots; list(plots.plots.values()); "
        "plots.paper; assert dict(matplotlib.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_style_file_is_installed():
    config = configparser.ConfigParser()
    root = Path(__file__).parents[1]
    config.read(root / "setup.cfg")
    assert config["options.package_data"]["topo.plots"].split() == ["topo.mplstyle"]
    assert (root / "topo" / "plots" / "topo.mplstyle").is_file()


def test_a_figure_keeps_its_colours_outside_its_style():
    figure = _drawn("density_profile", *_data("density_profile"))
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["red"])}):
        assert matplotlib.colors.to_hex(figure.axes[0].lines[0].get_color()) == "#0072b2"


def test_series_differ_without_colour():
    from topo.plots.axes import series

    with plots.paper():
        looks = [series(k) for k in range(64)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 64
    assert len({look["marker"] for look in looks[:8]}) == 8


# Null bands.


def _ax():
    return Figure(layout="constrained").add_subplot()


def _band(ax):
    """(low, high, label) of the band."""
    (band,) = ax.collections
    points = band.get_paths()[0].vertices
    x = np.unique(points[:, 0])
    ends = np.array([[points[points[:, 0] == place, 1].min(), points[points[:, 0] == place, 1].max()] for place in x])
    return ends[:, 0], ends[:, 1], band.get_label()


def _heights(ax):
    """The values of a profile's layers, those of shortcuts, which stand apart from the line, in their places."""
    line, aside = ax.lines[:2]
    return [
        y for _, y in sorted([*zip(line.get_xdata(), line.get_ydata()), *zip(aside.get_xdata(), aside.get_ydata())])
    ]


def test_a_null_band_is_drawn_of_a_method_and_a_number():
    masks, wiring = _masks()
    ax = plots.layer_profile(masks, "ramanujan_gap", ax=_ax(), null="shuffle:3", wiring=wiring, rng=5)
    rng = np.random.default_rng(5).spawn(1)[0]  # no seed draws the masks that it drew
    drawn = [topo.generate("shuffle", wiring, source=masks, rng=rng) for _ in range(3)]
    reports = [topo.analyze(m, wiring, metrics="ramanujan_gap") for m in drawn]
    values = np.array([[entry["ramanujan_gap"] for entry in report.layers] for report in reports])
    low, high, label = _band(ax)
    np.testing.assert_allclose(low, values.min(axis=0))
    np.testing.assert_allclose(high, values.max(axis=0))
    assert label == "shuffle: least to largest of 3 samples"
    given = plots.layer_profile(_report(masks, wiring), "ramanujan_gap", ax=_ax(), null=reports)
    np.testing.assert_allclose(_band(given)[0], low)
    assert _band(given)[2] == "null masks: least to largest of 3 samples"
    other = plots.layer_profile(masks, "ramanujan_gap", ax=_ax(), null="shuffle:3", wiring=wiring, rng=6)
    assert not np.allclose(_band(other)[0], low)


def test_a_null_band_keeps_what_its_method_keeps():
    masks, wiring = _masks()
    ax = plots.layer_profile(masks, "fan_out_max", ax=_ax(), null="configuration:20", wiring=wiring)
    low, high, label = _band(ax)
    np.testing.assert_allclose(low, _heights(ax))
    np.testing.assert_allclose(high, low)
    assert label == "configuration: 5 to 95 % of 20 samples"
    dense, _ = complete(4, 3)
    ax = plots.spectrum(dense, ax=_ax(), null="shuffle:5")
    low, high, _ = _band(ax)  # K_{4,3} whatever is drawn: sqrt(12), 0, 0
    np.testing.assert_allclose(low, [math.sqrt(12), 0, 0], atol=1e-6)
    np.testing.assert_allclose(high, low, atol=1e-6)


def test_a_null_band_of_a_grouped_layer_keeps_its_groups():
    from topo.plots.nulls import sampled
    from topo.wiring import apart

    rng = np.random.default_rng(0)
    masks = topo.MaskSet({"conv": rng.random((8, 2, 3, 3)) < 0.4})
    for drawn in sampled("configuration:3", masks, apart(masks, {"conv": 4}), 0):
        for group in range(4):
            mine = slice(2 * group, 2 * group + 2)
            np.testing.assert_array_equal(drawn["conv"][mine].sum(axis=0), masks["conv"][mine].sum(axis=0))


def test_a_null_band_may_be_of_a_null_model():
    masks, wiring = _masks()
    ax = plots.layer_profile(masks, "fan_in_max", ax=_ax(), null="same_rows:20", wiring=wiring)
    low, high, label = _band(ax)
    np.testing.assert_allclose(low, _heights(ax))
    np.testing.assert_allclose(high, low)
    assert label == "same_rows: 5 to 95 % of 20 samples"


@pytest.mark.parametrize(
    "null", ["snip:3", "invert:3", "shuffle", "shuffle:0", "shuffle:-1", "shuffle:2.5", "shuffle:", "x"]
)
def test_what_is_no_null(null):
    said = r"it is METHOD:N, as in shuffle:20, with a method of shuffle, configuration, same_total, .*, relabelled$"
    with pytest.raises(TopoError, match=said):
        plots.layer_profile(_chain(2), ax=_ax(), null=null)
    with pytest.raises(TopoError, match=said):
        plots.spectrum(_chain(2), ax=_ax(), null=null)
    with pytest.raises(TopoError, match="is drawn from masks; a report holds none"):
        plots.layer_profile(_report(*_masks()), ax=_ax(), null="shuffle:3")


def test_the_command_draws_a_null_band_by_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    masks, _ = _masks()
    topo.write_masks(masks, "m.safetensors")  # no wiring is known, and no chain fits
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["-O", "metric=sigma2", "-O", "null=shuffle:4", "--seed", str(seed), "--quiet"]
        assert main(["plot", "layer_profile", "m.safetensors", *options, "-o", "x.svg"]) == 0
        Path("x.svg").rename(f"{name}.svg")  # the command, with its seed, stands in the file
    a, b, c = (Path(f"{name}.svg").read_text() for name in "abc")
    assert "--seed 1" in a and "--seed 2" in c
    a, b, c = (text.partition("</metadata>")[2] for text in (a, b, c))
    assert a == b != c
    assert "shuffle: least to largest of 4 samples" in a
    assert main(["plot", "spectrum", "m.safetensors", "--null", "m.safetensors", "-o", "d.svg", "--quiet"]) == 0
    assert "null masks: one sample" in Path("d.svg").read_text()


# Cells.


def _families():
    """Two families at one sparsity: within each more is better, and the better family has less."""
    return [
        {"method": f"{family}{k}", "family": family, "sparsity": 0.9, "m": low + k, "mean_log_density": (k * k) % 3,
         "accuracy": accuracy + 0.01 * k}
        for family, low, accuracy in (("random", 10, 0.5), ("scores", 0, 0.9)) for k in range(4)
    ]  # fmt: skip


def _said(figure):
    return [ax.get_title(loc="left") for ax in figure.axes], figure.get_supxlabel().replace("\n", " ")


def test_families_are_never_pooled_within_a_sparsity():
    titles, below = _said(_drawn("metric_accuracy", _families(), {"metric": "m"}))
    assert titles[0].startswith("$\\rho$ = 1.00")
    assert below == "Spearman's $\\rho$ of 8 points within 2 cells of one sparsity and family"
    titles, below = _said(_drawn("metric_accuracy", _families(), {"metric": "m", "cell": "sparsity"}))
    assert titles[0].startswith("$\\rho$ = -0.52") and below.endswith("within 1 cell")  # 6 sum d^2 = 128: 1 - 128/84


def test_the_partial_correlation_is_that_of_what_the_baseline_leaves():
    rng = np.random.default_rng(1)
    rows = [
        {"method": k, "family": c, "m": rng.random() + c, "mean_log_density": rng.random(), "accuracy": rng.random()}
        for c in range(3) for k in range(9)
    ]  # fmt: skip
    titles, _ = _said(_drawn("metric_accuracy", rows, {"metric": "m"}))
    table = np.array([[row[name] for name in ("m", "mean_log_density", "accuracy")] for row in rows]).reshape(3, 9, 3)
    ranks = (table.argsort(axis=1).argsort(axis=1) - 4.0).reshape(27, 3)
    left = [ranks[:, k] - ranks[:, 1] * (ranks[:, 1] @ ranks[:, k]) / (ranks[:, 1] @ ranks[:, 1]) for k in (0, 2)]
    assert titles[0].endswith(f"given the baseline: {np.corrcoef(left)[0, 1]:.2f}")
    assert titles[0].startswith(f"$\\rho$ = {np.corrcoef(ranks[:, 0], ranks[:, 2])[0, 1]:.2f}\n")
    assert titles[1].startswith(f"$\\rho$ = {np.corrcoef(ranks[:, 1], ranks[:, 2])[0, 1]:.2f}\n")


def test_seeds_are_one_point_and_a_point_alone_is_not_counted():
    rows = [
        {"method": m, "density": 0.1, "seed": s, "m": k + 0.1 * s, "mean_log_density": k, "accuracy": 0.5 + 0.1 * k}
        for k, m in enumerate(("uniform", "erk", "biregular", "synflow", "mine")) for s in range(2)
    ]  # fmt: skip
    _, below = _said(_drawn("metric_accuracy", rows, {"metric": "m"}))
    assert below == (
        "Spearman's $\\rho$ of 3 points, means of up to 2 runs, within 1 cell of one sparsity and family; "
        "2 alone in their cell (hollow) not counted"
    )
    _, below = _said(_drawn("metric_accuracy", rows, {"metric": "m", "means": False}))
    assert below.startswith("Spearman's $\\rho$ of 10 points within 3 cells")


def test_undefined_correlations_are_said_with_the_reason():
    rows = [{**row, "m": 1.0} for row in _families()]
    titles, _ = _said(_drawn("metric_accuracy", rows, {"metric": "m"}))
    assert titles[0].replace("\n", " ") == "$\\rho$ undefined, m is constant in cells given the baseline: undefined"
    titles, below = _said(_drawn("metric_accuracy", _families()[3:5], {"metric": "m"}))
    assert {title.replace("\n", " ") for title in titles} == {"$\\rho$ undefined, fewer than 3 points share a cell"}
    assert "2 alone in their cell" in below
    plain = [{key: row[key] for key in ("m", "mean_log_density", "accuracy")} for row in _families()]
    _, below = _said(_drawn("metric_accuracy", plain, {"metric": "m"}))
    assert below.endswith("of 8 points within 1 cell; the table does not tell sparsity or family")
    with pytest.raises(TopoError, match="no column 'spam' for cells; it has: accuracy, family"):
        _drawn("metric_accuracy", _families(), {"metric": "m", "cell": "sparsity,spam"})
    with pytest.raises(TopoError, match="no row has a number in 'm'"):
        _drawn("metric_accuracy", [{**row, "m": np.nan} for row in _families()], {"metric": "m"})
    with pytest.raises(TopoError, match="in 'm', 'mean_log_density' and 'accuracy' at once"):
        holes = [{**row, ("m", "accuracy")[k % 2]: np.nan} for k, row in enumerate(_families())]
        _drawn("metric_accuracy", holes, {"metric": "m"})


def test_families_of_methods():
    from topo.plots.comparable_runs import family_of

    assert [family_of(m) for m in ("erk", "shuffle", "balance", "synflow", "mine")] == [
        "shapes", "masks", "optimized", "scores", "mine",
    ]  # fmt: skip


# Hypervolumes.


def test_the_hypervolume_of_a_front_is_printed():
    rows = [{"nodes": n, "log10_paths": p} for n, p in ((10, 1.0), (5, 2.0), (4, 1.5))]
    ax = _drawn("frontier", rows, {}).axes[0]
    assert ax.get_legend_handles_labels()[1] == ["masks: hypervolume 15"]  # 10 * 1 + 5 * (2 - 1)
    assert "nodes times decades of paths, above (0, 0)" in ax.get_xlabel().replace("\n", " ").replace("\xa0", " ")
    front, _ = _data("frontier")
    ax = _drawn("frontier", front, {}).axes[0]
    assert ax.get_legend_handles_labels()[1][0] == f"mode balanced: hypervolume {front.hypervolume:.3f}"
    assert front.hypervolume == hypervolume([(p.nodes / 70, p.log10_paths / 4.5) for p in front.points])
    assert "from (0, 0) to (all nodes, bound)" in ax.get_xlabel().replace("\n", " ").replace("\xa0", " ")


# The list.


def test_the_list_gives_each_figure_one_line(capsys):
    assert main(["list", "plots"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(plots.plots)
    assert {line.split()[0] for line in lines[1:]} == set(plots.plots)


@pytest.mark.parametrize("venue", ["icml", "ieee", "nature"])
def test_names_of_masks_stay_on_the_saved_page(venue, tmp_path):
    """Squares leave room beside them that a layout finds after several solutions: a file held half a name."""
    masks = {name: _data("mask_overlap")[0][key] for name, key in zip(("SynFlow", "ERK", "biregular"), "abc")}
    with plots.paper(venue):
        figure = plots.figure()
        plots.mask_overlap(masks, ax=figure.add_subplot())
        plots.save(figure, tmp_path / "a.png", dpi=100)
        plots.save(figure, tmp_path / "b.png", dpi=100)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(image.convert("L"))
    assert all((edge > 250).all() for edge in (shown[:, :2], shown[:, -2:], shown[:2], shown[-2:]))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
