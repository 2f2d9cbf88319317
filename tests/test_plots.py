"""Plots: what is drawn, and that saved files are reproducible and fit for print."""

import itertools
import math
import re
import zlib

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from topo import plots
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.report import Report, Row

pytestmark = pytest.mark.slow

matplotlib.use("agg")


def _report(values, mask="a.pt", metric="density", effective=None):
    shapes = {f"block.{i}.weight": (10, 10) for i in range(len(values))}
    rows = [Row(mask, metric, name, "channel", value) for name, value in zip(shapes, values)]
    if effective is not None:
        rows += [Row(mask, "effective_params", name, "channel", value) for name, value in zip(shapes, effective)]
    return Report(mask, None, None, "channel", shapes, rows)


def _axes():
    return Figure(layout="constrained").add_subplot()


def _line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_every_plot_is_registered_and_called_by_its_name():
    assert set(plots.plots) >= {"layer_profile", "density_profile"}
    for name, draw in plots.plots.items():
        assert getattr(plots, name) is draw
        assert name in dir(plots)
        assert draw.__doc__


def test_a_profile_draws_the_numbers_and_returns_its_axes():
    ax = _axes()
    assert plots.layer_profile(_report([0.5, 0.4, 0.3]), ax=ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5, 0.4, 0.3])
    assert ax.get_yscale() == "linear"
    assert ax.get_ylabel() == "density"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2"]
    assert ax.get_xlabel() == "layer (without block.)"


def test_a_new_figure_is_made_where_no_axes_are_given():
    from matplotlib import pyplot

    ax = plots.layer_profile(_report([0.5, 0.4]))
    assert ax.figure.number in pyplot.get_fignums()
    pyplot.close(ax.figure)


def test_the_scale_is_logarithmic_where_values_span_decades():
    ax = plots.layer_profile(_report([0.5, 0.005]), ax=_axes())
    assert ax.get_yscale() == "log"
    ax = plots.layer_profile(_report([-1.0, 500.0], metric="gap"), metric="gap", ax=_axes())
    assert ax.get_yscale() == "linear"


def test_collapsed_and_undefined_layers_are_marked_at_the_bottom():
    report = _report([math.nan, 3.0, 2.0, 1.0], metric="gap", effective=[5, 5, 0, 5])
    ax = plots.layer_profile(report, "gap", ax=_axes())
    np.testing.assert_array_equal(_line(ax, "collapsed").get_xdata(), [2])
    np.testing.assert_array_equal(_line(ax, "undefined").get_xdata(), [0])
    assert set(_line(ax, "collapsed").get_ydata()) == {0.0}
    assert _line(ax, "collapsed").get_transform() == ax.get_xaxis_transform()
    assert math.isnan(ax.lines[0].get_ydata()[0])


def test_density_profile_draws_effective_density_beside():
    report = _report([0.5, 0.01, 0.2], effective=[50, 0, 10])
    ax = plots.density_profile(report, ax=_axes())
    np.testing.assert_allclose(_line(ax, "density").get_ydata(), [0.5, 0.01, 0.2])
    np.testing.assert_allclose(_line(ax, "effective density").get_ydata(), [0.5, np.nan, 0.1])
    np.testing.assert_array_equal(_line(ax, "collapsed").get_xdata(), [1])
    assert ax.get_yscale() == "log"


def test_masks_are_drawn_without_an_analysis():
    masks = MaskSet({"a.weight": np.eye(4), "b.weight": np.zeros((2, 2))}, provenance={"file": "m.pt"})
    ax = plots.density_profile(masks, ax=_axes())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0.0])
    np.testing.assert_array_equal(_line(ax, "collapsed").get_xdata(), [1])
    with pytest.raises(TopoError, match="'gap' needs a report"):
        plots.layer_profile(masks, "gap", ax=_axes())


def test_several_masks_are_told_apart_without_colour():
    ax = plots.layer_profile([_report([0.5, 0.4], "a"), _report([0.3, 0.2], "b"), _report([0.3, 0.1], "b")], ax=_axes())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "b (3)"]
    assert len({line.get_marker() for line in ax.lines}) == 3
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    assert len({line.get_color() for line in ax.lines}) == 3
    ax = plots.layer_profile({"one": _report([0.5]), "two": _report([0.4])}, ax=_axes())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


@pytest.mark.parametrize("layers", [1, 22, 50, 300])
def test_names_of_layers_never_overlap(layers):
    with plots.paper():
        figure = plots.figure()
        ax = plots.layer_profile(_report(np.linspace(0.9, 0.5, layers)), ax=figure.add_subplot())
        figure.draw_without_rendering()
        boxes = [
            label.get_window_extent() for label in ax.get_xticklabels() if label.get_text() and label.get_visible()
        ]
        boxes = sorted((box for box in boxes if 0 <= box.x0 <= figure.bbox.width), key=lambda box: box.x0)
    assert boxes
    assert all(left.x1 <= right.x0 + 0.5 for left, right in itertools.pairwise(boxes))


def test_what_cannot_be_drawn():
    with pytest.raises(TopoError, match="holds no 'narc' of layers; it holds: density"):
        plots.layer_profile(_report([0.5]), "narc", ax=_axes())
    with pytest.raises(TopoError, match="not of int"):
        plots.layer_profile([3], ax=_axes())
    with pytest.raises(TopoError, match="none was given"):
        plots.layer_profile([], ax=_axes())


def test_masks_and_graphs_are_analysed_where_reports_are_drawn():
    import topo
    from topo.errors import WiringError

    rng = np.random.default_rng(0)
    one, two = (topo.MaskSet({"a": rng.random((9, 8)) < p, "b": rng.random((4, 9)) < p}) for p in (0.5, 0.8))
    reports = [
        topo.analyze(masks, metrics="density,nodes,effective_nodes,log10_effective_paths") for masks in (one, two)
    ]
    graph = topo.build_graph(two, topo.chain(two))
    for data, same in (
        (one, reports[0]),
        ([one, two], reports),
        ({"x": [one, graph], "y": reports[1]}, {"x": reports, "y": reports[1]}),
    ):
        drawn, expected = (plots.nodes_paths(item, ax=_axes()) for item in (data, same))
        assert [line.get_xydata().tolist() for line in drawn.lines] == [
            line.get_xydata().tolist() for line in expected.lines
        ]
    drawn = plots.ramanujan_profile(one, ax=_axes())
    expected = plots.ramanujan_profile(topo.analyze(one, metrics="kept,ramanujan_gap,imdb"), ax=_axes())
    assert drawn.lines[0].get_ydata() == pytest.approx(expected.lines[0].get_ydata())
    skip = topo.MaskSet({"a": np.ones((4, 3)), "b": np.ones((2, 5))})
    with pytest.raises(WiringError, match="'mask 1' needs the network's wiring"):
        plots.nodes_paths(skip, ax=_axes())
    with pytest.raises(TopoError, match="'masks', whose effective_nodes are not known: needs the network's wiring"):
        plots.nodes_paths([topo.analyze(skip)], ax=_axes())
    for kind, what in (("frontier", "MaskSet"), ("accuracy_sparsity", "MaskSet")):
        with pytest.raises(TopoError, match=f"drawn of a table of masks or runs, not of a {what}"):
            getattr(plots, kind)(one)


def test_units_outside_the_part_of_a_use_are_not_drawn():
    import topo
    import toys
    from topo.graph.columns import Columns

    wiring = toys.sliced()
    graph = topo.build_graph(toys.sparse(wiring, 1.0), wiring)
    units = {tuple(found.tolist()) for found in Columns(graph).units.values()}
    assert {(7, 10), (13, 14, 16), (3, 4, 5, 6), (17, 18)} <= units
    for kind in ("layered_graph", "path_flow"):
        getattr(plots, kind)(graph, ax=_axes())


def test_paper_sets_the_column_and_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with plots.paper("icml"):
        assert plots.figure().get_figwidth() == 3.25
    with plots.paper("icml", wide=True):
        assert plots.figure().get_figwidth() == 6.75
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(TopoError, match="no venue is called 'arxiv'; there are: neurips"), plots.paper("arxiv"):
        pass


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending):
    for name in "ab":
        figure = Figure()
        plots.density_profile(_report([0.5, 0.01, 0.0], effective=[50, 1, 0]), ax=figure.add_subplot())
        plots.save(figure, tmp_path / f"{name}.{ending}")
    first = (tmp_path / f"a.{ending}").read_bytes()
    assert first == (tmp_path / f"b.{ending}").read_bytes()
    assert len(first) > 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{ending}", f"b.{ending}"]


def test_pdf_embeds_no_type_3_font(tmp_path):
    figure = Figure()
    plots.layer_profile(_report([0.5, 0.4]), ax=figure.add_subplot())
    plots.save(figure, tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        try:
            content += zlib.decompress(stream)
        except zlib.error:
            continue
    assert b"/CIDFontType2" in content
    assert b"/Type3" not in content


def test_a_figure_is_saved_as_what_it_can_be(tmp_path):
    with pytest.raises(TopoError, match=r"saved as .pdf, .svg, .png"):
        plots.save(Figure(), tmp_path / "a.jpg")
    with pytest.raises(TopoError, match="cannot write"):
        plots.save(Figure(), tmp_path / "missing" / "a.pdf")
