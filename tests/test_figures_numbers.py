"""Figures: what is ranked, sampled and left out, by hand; settings and shows in between that change no byte."""

import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.backends.backend_agg
import numpy as np
import pytest
from test_figures import CASES, _chain, _draw
from test_figures_print import _ax, _band, _drawn, _faults, _said

import topo
from topo import plots
from topo.errors import TopoError
from topo.optimize import Frontier
from topo.optimize.frontier import Point

pytestmark = pytest.mark.slow

matplotlib.use("agg")


def _titles(rows, **options):
    """The three correlations as they are said above the panels, and what is said below."""
    (left, right), below = _said(_drawn("metric_accuracy", rows, {"metric": "m", **options}))
    rho, _, given = left.partition("given the baseline: ")
    return [text.replace("\n", " ").strip() for text in (rho, given, right.partition("\nthe baseline")[0])], below


def _row(method, m, base, accuracy, **more):
    return {
        "method": method,
        "family": "all",
        "sparsity": 0.9,
        "m": m,
        "mean_log_density": base,
        "accuracy": accuracy,
    } | more


# Ranks.


def test_means_of_equal_numbers_are_ties_whatever_the_number_of_seeds():
    assert np.mean([0.1] * 3) != np.mean([0.1] * 2)
    rows = [
        _row(f"method {k}", k, 0.1, 0.5 + 0.1 * k, seed=seed) for k in range(5) for seed in range(2 + (k in (1, 3, 4)))
    ]
    (rho, given, base), _ = _titles(rows)
    assert rho == "$\\rho$ = 1.00"
    assert base == "$\\rho$ undefined, mean log density is constant in cells"
    assert given == "undefined, it is constant in cells"


def test_equal_accuracies_share_a_rank():
    rows = [
        _row(f"method {k}", m, base, accuracy, seed=seed)
        for k, (m, base, accuracy) in enumerate([(1, 2, 0.1), (2, 1, 0.1), (3, 4, 0.1), (4, 3, 0.9)])
        for seed in range(2 + k % 2)
    ]
    (rho, *_), _ = _titles(rows)
    assert rho == "$\\rho$ = 0.77"  # ranks 1 2 3 4 and 2 2 2 4: 3 / sqrt(5 * 3)


def test_a_large_cell_weighs_no_more_per_point_than_a_small_one():
    rows = [_row(f"method {k}", k, k * k % 5, 0.1 * k, cell="nine") for k in range(9)]
    rows += [_row(f"method {k}", k, k, 0.5 - 0.1 * k, cell="two") for k in range(2)]
    (rho, *_), _ = _titles(rows, cell="cell")
    nine, two = 60 / 81, 2 * 0.5**2 / 4  # sums of squares of (rank - mean) / size
    assert rho == f"$\\rho$ = {(nine - two) / (nine + two):.2f}" == "$\\rho$ = 0.71"


def test_a_partial_correlation_takes_three_points_more_than_cells():
    numbers = [(1, 2, 0.1), (2, 3, 0.2), (3, 1, 0.3), (4, 4, 0.9)]
    rows = [_row(f"method {k}", *three) for k, three in enumerate(numbers)]
    (_, given, _), _ = _titles(rows[:3])
    assert given == "undefined, 3 points less 1 cell are under 3"
    (rho, given, _), _ = _titles([row | {"cell": k % 2} for k, row in enumerate(rows)], cell="cell")
    assert given == "undefined, 4 points less 2 cells are under 3"
    assert rho == "$\\rho$ = 1.00"
    rows[0]["accuracy"] = 0.25
    (rho, given, _), _ = _titles(rows)  # ranks 1 2 3 4; 2 3 1 4; 2 1 3 4: r_02 = 0.8, r_01 = 0.4, r_12 = 0.2
    assert rho == "$\\rho$ = 0.80"
    assert float(given) == round((0.8 - 0.4 * 0.2) / math.sqrt((1 - 0.4**2) * (1 - 0.2**2)), 2)


# Cells.


def test_one_sparsity_is_one_cell_however_it_was_written():
    from topo.plots.comparable_runs import cells_of

    ways = [{"density": 0.1}, {"sparsity": 0.9}, {"density": 1 - 0.9}, {"density": "0.1"}]
    cells, used, unknown = cells_of(ways, "sparsity", "method")
    assert set(cells) == {("0.1",)} and (used, unknown) == ("sparsity", "")
    near = [{"density": d} for d in (0.010, 0.014, 0.1, 0.101)]
    assert len(set(cells_of(near, "sparsity", "method")[0])) == 4


def test_tables_with_density_and_with_sparsity_are_joined():
    import pandas

    first = [_row(f"a{k}", k, k * k % 3, 0.1 * k) for k in range(4)]
    second = [{**_row(f"b{k}", k, k, 0.9 - 0.1 * k), "density": 0.02} for k in range(4)]
    for row in second:
        del row["sparsity"]
    table = pandas.concat([pandas.DataFrame(first), pandas.DataFrame(second)])
    titles, below = _titles(table)
    assert titles[0] == "$\\rho$ = 0.00" and "of 8 points within 2 cells" in below and "left out" not in below
    ax = _drawn("accuracy_sparsity", table.assign(method="m"), {}).axes[0]
    assert sorted(ax.lines[0].get_xdata()) == [0.02, 0.1]
    assert "left out" not in ax.get_xlabel()
    table = table.rename(columns={"m": "effective_nodes", "accuracy": "log10_effective_paths"})
    texts = {text.get_text() for text in _drawn("nodes_paths", table, {}).axes[0].texts}
    assert texts == {"2 %", "10 %"}


def test_an_empty_family_follows_from_the_method_and_unknown_rows_are_left_out():
    from topo.plots.comparable_runs import cells_of

    rows = [_row("erk", 1, 1, 0.1, family=empty) for empty in ("", None, math.nan, "nan", "shapes")]
    assert set(cells_of(rows, "sparsity,family", "method")[0]) == {("0.1", "shapes")}
    rows = [_row(f"method {k}", k, k * k % 3, 0.1 * k) for k in range(4)]
    rows += [_row("method 9", 9, 0, 0.05, sparsity=math.nan), _row(None, 8, 0, 0.05, family=math.nan)]
    titles, below = _titles(rows)
    assert titles[0] == "$\\rho$ = 1.00"
    assert below.endswith("of 4 points within 1 cell; 2 rows of unknown sparsity and family left out")
    with pytest.raises(TopoError, match="and tells its sparsity and family"):
        _titles([rows[4], rows[0] | {"m": None}])
    titles, below = _titles([row | {"family": None, "method": None, "sparsity": ""} for row in rows])
    assert below.endswith("of 6 points within 1 cell; the table does not tell sparsity or family")


# Bands.


def test_a_band_goes_from_5_to_95_percent_of_what_is_finite():
    from topo.plots.nulls import band

    samples = np.column_stack([np.arange(21.0), np.arange(21.0), np.full(21, 3.0)])
    samples[[0, 1], 1] = math.inf, -math.inf
    ax = _ax()
    band(ax, range(3), samples, "shuffle")
    low, high, label = _band(ax)
    np.testing.assert_allclose(low, [1, 2, 3])  # 19 samples are left of the second: the least and the largest
    np.testing.assert_allclose(high, [19, 20, 3])
    assert label == "shuffle: 5 to 95 % of 19 to 21 samples, of under 20 least to largest"


@pytest.mark.parametrize(
    "finite, said",
    [
        ([25, 25], "5 to 95 % of 25 samples"),
        ([25, 0], "5 to 95 % of 25 samples"),
        ([20, 25], "5 to 95 % of 20 to 25 samples"),
        ([4, 19], "least to largest of 4 to 19 samples"),
        ([1, 1], "one sample"),
        ([0, 0], "no finite sample"),
    ],
)
def test_a_band_says_how_many_samples_are_finite(finite, said):
    from topo.plots.nulls import band

    samples = np.where(np.arange(25)[:, None] < finite, 1.0, math.nan)
    ax = _ax()
    band(ax, range(2), samples, "shuffle")
    assert ax.collections[0].get_label() == f"shuffle: {said}"


def test_a_band_of_one_layer_can_be_seen():
    from topo.plots.nulls import band

    ax = _ax()
    band(ax, [0], np.array([[1.0], [4.0]]), "shuffle")
    box = ax.collections[0].get_paths()[0].get_extents()
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((-0.2, 1, 0.2, 4))


def test_a_band_is_drawn_from_the_first_mask():
    eyes = [topo.MaskSet({"a": np.tri(6, 6, k), "b": np.tri(4, 6, k)}) for k in (0, 3)]
    ax = plots.layer_profile(eyes, "fan_in_mean", ax=_ax(), null="configuration:1")
    low, high, _ = _band(ax)
    np.testing.assert_allclose(low, ax.lines[0].get_ydata())
    np.testing.assert_allclose(high, low)
    assert (ax.lines[1].get_ydata() > low).all()


def test_a_spectrum_that_ends_earlier_has_zeros():
    first = topo.MaskSet({"fc": np.eye(4)})
    nulls = [first, topo.MaskSet({"fc": np.diag([1, 1, 0, 0])})]
    low, high, _ = _band(plots.spectrum(first, ax=_ax(), null=nulls))
    np.testing.assert_allclose(high, [1, 1, 1, 1])
    np.testing.assert_allclose(low, [1, 1, 0, 0])


# Axes and fronts.


@pytest.mark.parametrize(
    "densities, labels",
    [
        ((0.1, 0.02), ["90 %", "98 %"]),
        ((0.00012, 0.0001, 0.00005), ["99.988 %", "99.99 %", "99.995 %"]),
        ((0.1, 0.00004), ["90 %", "99.996 %"]),
        ((0.104, 0.101), ["89.6 %", "89.9 %"]),
    ],
)
def test_sparsities_have_as_many_digits_as_tell_them_apart(densities, labels):
    from topo.plots.accuracies import _sparsities

    assert _sparsities(densities) == labels


@pytest.mark.parametrize("venue", ["neurips", "icml"])
@pytest.mark.parametrize(
    "densities", [(0.00012, 0.0001, 0.00005), np.geomspace(2e-4, 1e-5, 9), np.geomspace(1, 1e-7, 30)[1:]]
)
def test_sparsities_near_100_percent_can_be_read(venue, densities):
    rows = [{"method": "a", "density": d, "accuracy": 0.5} for d in densities]
    figure = _drawn("accuracy_sparsity", rows, {}, venue)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert _faults(figure) == []
    assert len(set(labels)) == len(labels) > 1 and "100 %" not in labels


def test_a_front_as_columns_and_what_is_none():
    columns = {"nodes": [1, 2], "log10_paths": [2.0, 1.0]}
    legends = [
        _drawn("frontier", data, {}).axes[0].get_legend_handles_labels()[1]
        for data in (
            columns,
            {"first": columns},
            {"first": [dict(nodes=1, log10_paths=2), dict(nodes=2, log10_paths=1)]},
        )
    ]
    assert legends == [["masks: hypervolume 3"], ["first: hypervolume 3"], ["first: hypervolume 3"]]
    for data, said in (
        ([1, 2], "a table holds rows, which are mappings, not int"),
        (["ab"], "not str"),
        ({"nodes": 3, "log10_paths": 2}, "column 'nodes' of a table is a sequence, not int"),
        ({"nodes": [], "log10_paths": []}, "holds no row"),
        (Frontier((), 3, 3, 1.0, True, 0.0), "no point"),
    ):
        with pytest.raises(TopoError, match=said):
            plots.frontier(data, ax=_ax())


@pytest.mark.parametrize(
    "nodes, bound, said", [(4, 0.0, "undefined, the bound is 0"), (0, 1.0, "undefined, no nodes"), (4, 1.0, "0.000")]
)
def test_a_hypervolume_without_a_rectangle_is_undefined(nodes, bound, said):
    front = Frontier((Point("paths", 1.0, 2, 0.0, 1.0, 1.0, 3, True),), 3, nodes, bound, True, 0.0)
    ax = _drawn("frontier", front, {}).axes[0]
    assert ax.get_legend_handles_labels()[1][0] == f"mode paths: hypervolume {said}"


# Files.

# What a matplotlibrc may say, and no figure in `paper` does.
_RC = """
font.family: serif
axes.grid: True
axes.facecolor: eeeeee
figure.facecolor: cccccc
savefig.facecolor: yellow
savefig.bbox: tight
legend.frameon: True
xtick.major.size: 9
xtick.minor.visible: True
text.color: green
mathtext.fontset: cm
lines.linewidth: 4
figure.dpi: 50
image.cmap: gray
"""
_SAVE = """
import sys
import matplotlib
from topo import plots
print(matplotlib.rcParams["font.family"], end="")
rows = [{"method": m, "density": d, "accuracy": 1 - m - d} for m in (0.1, 0.2) for d in (0.2, 0.1)]
with plots.paper():
    figure = plots.figure()
    ax = plots.accuracy_sparsity(rows, ax=figure.add_subplot())
    ax.set_title(r"$\\rho$")
matplotlib.backends.backend_agg.FigureCanvasAgg(figure).draw()
plots.save(figure, sys.argv[1])
"""


def test_a_matplotlibrc_changes_no_byte(tmp_path):
    (tmp_path / "matplotlibrc").write_text(_RC)
    said = []
    for name, rc in (("plain", matplotlib.get_data_path()), ("own", tmp_path)):
        environment = {**os.environ, "MATPLOTLIBRC": str(Path(rc) / "matplotlibrc"), "MPLBACKEND": "agg"}
        code = "import matplotlib.backends.backend_agg" + _SAVE
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / f"{name}.svg"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said == ["['sans-serif']", "['serif']"]
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "own.svg").read_bytes()


def test_an_empty_figure_is_of_the_style_and_of_the_size_in_force():
    with matplotlib.rc_context({"figure.facecolor": "red", "figure.dpi": 50, "figure.figsize": (2, 1)}):
        figure = plots.figure()
        assert figure.get_facecolor() == (1, 1, 1, 1) and figure.dpi == 100
        assert tuple(figure.get_size_inches()) == (2, 1) and figure.get_layout_engine() is not None
        with plots.paper("icml"):
            assert plots.figure().get_figwidth() == 3.25
            assert matplotlib.get_backend() == "agg"


@pytest.mark.parametrize("kind", CASES)
def test_a_figure_that_was_shown_has_the_same_bytes(tmp_path, kind):
    figure = _draw(kind)[0]
    plots.save(figure, tmp_path / "a.svg")
    own = figure.dpi
    with matplotlib.rc_context({"axes.grid": True, "font.family": "serif", "xtick.major.size": 9}):
        for dpi in (72, 144, 211):
            figure.set_dpi(dpi)
            matplotlib.backends.backend_agg.FigureCanvasAgg(figure).draw()
        figure.set_dpi(own)
        plots.save(figure, tmp_path / "b.svg")
    again = _draw(kind)[0]
    matplotlib.backends.backend_agg.FigureCanvasAgg(again).draw()
    plots.save(again, tmp_path / "c.svg")
    first, *others = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert all(first == other for other in others)


def test_axes_that_were_placed_by_hand_stay(tmp_path):
    with plots.paper():
        figure = plots.figure()
        plots.layer_profile(_chain(3), ax=figure.add_subplot())
        moved = figure.add_subplot(1, 2, 2)
        for k, ax in enumerate((figure.add_axes((0, 0, 1, 1)), moved)):
            ax.set_position((0.3, 0.3 + 0.2 * k, 0.1, 0.1))
            plots.save(figure, tmp_path / "a.svg")
            assert ax.get_position().bounds == pytest.approx((0.3, 0.3 + 0.2 * k, 0.1, 0.1))
            assert not ax.get_in_layout()
        own = matplotlib.figure.Figure()
        own.add_subplot().set_position((0.3, 0.3, 0.1, 0.1))
        plots.save(own, tmp_path / "a.svg")
        assert own.axes[0].get_position().bounds == pytest.approx((0.3, 0.3, 0.1, 0.1))


def test_text_of_an_svg_is_text(tmp_path):
    plots.save(_drawn("layer_profile", _chain(2), {}), tmp_path / "a.svg")
    assert ">density</text>" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("unknown", [(), ("fc2",), ("fc1", "fc2", "fc3")])
@pytest.mark.parametrize("several", [False, True])
def test_dead_units_that_are_not_known_are_not_none(unknown, several):
    """An undefined count is a gap that is told, never a layer without dead units."""
    masks = topo.MaskSet({name: np.ones((3, 3), bool) for name in ("fc1", "fc2", "fc3")})
    found = topo.analyze(masks, topo.chain(masks), metrics="dead_out,effective_out")
    rows = [
        topo.report.Row(row.mask, row.metric, row.layer, row.view, math.nan if row.layer in unknown else row.value)
        for row in found.rows
    ]
    made = topo.report.Report("a", None, None, "channel", found.shapes, rows)
    fig = plots.figure()
    ax = plots.dead_units({"a": made, "b": made} if several else made, fig.add_subplot())
    said = " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))
    assert ("no unit is dead" in said) == (len(unknown) < 3)
    assert ("undefined in every layer" in said) == (len(unknown) == 3)
    assert ("undefined in 1 of 3 layers" in said) == ("where that is known" in said) == (len(unknown) == 1)
    drawn = ax.lines[0].get_ydata() if several else [bar.get_height() for bar in ax.patches[:3]]
    assert [name for name, value in zip(found.shapes, drawn) if math.isnan(value)] == list(unknown)
