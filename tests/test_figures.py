"""Every figure: what it promises, and that it looks as it did (tests/figures/*.png, small and grey).

python tests/test_figures.py        draw the pictures anew, after a change that was looked at
"""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.backends.backend_agg
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

import topo
from topo import plots
from topo.cli import main
from topo.errors import TopoError
from topo.graph import build_graph
from topo.optimize import Frontier
from topo.optimize.frontier import Point, hypervolume
from toys import branching, complete, disjoint, embedded, gated, residual, sparse

pytestmark = pytest.mark.slow

matplotlib.use("agg")
PICTURES = Path(__file__).parent / "figures"
WIDTH = 160  # pixels, of pictures that are compared
# Mean and worst difference of grey values (0 to 255), the worst over squares of 8 pixels. On one machine both are 0;
# without one thin dashed line the worst is 5.
MEAN, WORST = 0.6, 4.0


def _masks(density=0.25, seed=0, leave_out=()):
    wiring = residual(width=8, blocks=3)
    return sparse(wiring, density, seed, leave_out), wiring


def _dead():
    """A network with an empty layer, which its skip saves."""
    masks, wiring = _masks()
    return topo.MaskSet({**masks, "1.conv1": np.zeros_like(masks["1.conv1"])}), wiring


def _report(masks, wiring, name="a", metrics="paths,ramanujan_gap,imdb"):
    return topo.analyze(masks, wiring, metrics=metrics, mask_name=name)


def _chain(layers, width=6, density=0.5):
    rng = np.random.default_rng(layers)
    return topo.MaskSet({f"fc{k}.weight": rng.random((width, width)) < density for k in range(layers)})


def _table():
    """A table that a formula makes, with a gap: accuracies of three methods at four densities, three seeds."""
    rows = []
    for m, method in enumerate(("random", "erk", "synflow")):
        for density in (0.2, 0.1, 0.05, 0.02):
            for seed in range(3):
                wave = math.sin(7 * m + 50 * density + 2 * seed)
                row = {"method": method, "density": density, "sparsity": 1 - density, "seed": seed}
                row |= {"accuracy": 0.9 - 0.3 * (0.02 / density) * (1.2 - 0.3 * m) + 0.01 * wave}
                rows.append({**row, "gap": 0.5 * m + wave, "mean_log_density": math.log(density) + 0.1 * wave * wave})
    rows[5]["gap"] = math.nan
    return [*rows, {"method": "dense", "density": 1.0, "sparsity": 0.0, "accuracy": 0.95, "gap": math.nan}]


def _course():
    masks, wiring = _masks(0.4)
    found = [masks]
    for seed in range(1, 5):
        rng = np.random.default_rng(seed)
        found.append(
            topo.MaskSet(
                {k: (v & (rng.random(v.shape) > 0.2)) | (rng.random(v.shape) < 0.03) for k, v in found[-1].items()}
            )
        )
    return found, wiring


def _layer_profile():
    masks, wiring = _dead()
    null = [topo.generate("shuffle", wiring, source=masks, rng=seed) for seed in range(4)]
    return _report(masks, wiring), {"metric": "ramanujan_gap", "null": [_report(m, wiring) for m in null]}


def _density_profile():
    masks, wiring = _dead()
    other, _ = _masks(0.1, 3)
    return [_report(masks, wiring, "first"), _report(other, wiring, "second")], {}


def _nodes_paths():
    wiring = residual(width=8, blocks=3)
    first, second = (
        [_report(sparse(wiring, d, seed), wiring, metrics="paths") for d in (0.05, 0.1, 0.3)] for seed in (0, 1)
    )
    return {"first": first, "second": second}, {}


def _front():
    """Points on a quarter of a circle, one of them dominated."""
    places = [(round(60 * math.cos(a)), 4 * math.sin(a)) for a in (0.2, 0.6, 1.0, 1.4)] + [(30, 2.0)]
    points = tuple(Point("balanced", 1.0, n, p, n, 0.9, 300, efficient=k < 4) for k, (n, p) in enumerate(places))
    volume = hypervolume([(n / 70, p / 4.5) for n, p in places])
    return Frontier(points, total=300, all_nodes=70, bound=4.5, certified=True, hypervolume=volume)


def _scored():
    """A report with null models, whose z a formula makes."""
    masks, wiring = _masks()
    report = _report(masks, wiring)
    names = [name for name in report.network if not math.isnan(report.network[name])][:12]
    scores = [
        {"null": null, "samples": 40, "metric": name, "layer": None, "observed": 1.0, "mean": 0.0, "std": 1.0,
         "z": (-1) ** k * 1.7**k / (1 + 3 * n), "p": 0.02 if k > 3 else 0.5}
        for n, null in enumerate(("same_layers", "same_rows")) for k, name in enumerate(names)
    ]  # fmt: skip
    return replace(report, nulls=scores)


def _courses():
    """Epochs of two methods and two seeds, by a formula."""
    return [
        ({"method": method, "seed": seed},
         [{"epoch": e, "test_accuracy": 0.9 - 0.6 / (e + m) + 0.02 * seed * math.sin(e)} for e in range(1, 9)])
        for m, method in enumerate(("erk", "synflow"), 1) for seed in range(2)
    ]  # fmt: skip


def _several():
    wiring = residual(width=8, blocks=3)
    return {f"{d:g} s{s}": _report(sparse(wiring, d, s), wiring, f"{d:g} s{s}") for d in (0.1, 0.3) for s in (0, 1)}


# Kind -> what it is drawn of, and options.
CASES = {
    "layer_profile": _layer_profile,
    "density_profile": _density_profile,
    "ramanujan_profile": lambda: (_report(*_dead()), {}),
    "spectrum": lambda: (_masks()[0], {"layer": "1.conv2", "null": "shuffle:5"}),
    "degree_distribution": lambda: (_dead()[0], {"side": "out"}),
    "mask_matrix": lambda: (_masks()[0], {"layer": "0.conv1"}),
    "layered_graph": lambda: (_dead()[0], {"wiring": _dead()[1]}),
    "path_flow": lambda: (_dead()[0], {"wiring": _dead()[1]}),
    "nodes_paths": _nodes_paths,
    "mask_overlap": lambda: ({name: _masks(0.3, seed)[0] for seed, name in enumerate("abc")}, {}),
    "mask_dynamics": lambda: (_course()[0], {"wiring": _course()[1], "metric": "log10_effective_paths"}),
    "accuracy_sparsity": lambda: (_table(), {}),
    "metric_accuracy": lambda: (_table()[:-1], {"metric": "gap"}),
    "frontier": lambda: (_front(), {}),
    "metric_sparsity": lambda: (_table()[:-1], {"metric": "gap", "show": "bars"}),
    "metric_heatmap": lambda: (_several(), {"metric": "density"}),
    "null_forest": lambda: (_scored(), {}),
    "training_curves": lambda: (_courses(), {}),
    "ranking": lambda: (_table()[:-1], {}),
    "dead_units": lambda: (_report(*_dead()), {}),
}


def _draw(kind):
    draw, (data, options) = plots.plots[kind], CASES[kind]()
    with plots.paper("neurips"):
        figure = plots.figure()
        place = {"fig": figure} if "fig" in inspect.signature(draw).parameters else {"ax": figure.add_subplot()}
        return figure, draw(data, **place, **options)


def _picture(figure):
    """Grey values (height, WIDTH): drawn four times as large and averaged."""
    figure.set_dpi(4 * WIDTH / figure.get_figwidth())
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., :3].astype(float).mean(axis=2)
    height = grey.shape[0] // 4 * 4
    return grey[:height, : 4 * WIDTH].reshape(height // 4, 4, WIDTH, 4).mean(axis=(1, 3))


def _difference(a, b):
    """(mean, worst square of 8 x 8 pixels) of the difference of two pictures."""
    assert a.shape == b.shape
    apart = np.abs(a - b)
    rows, columns = (n // 8 * 8 for n in apart.shape)
    squares = apart[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8).mean(axis=(1, 3))
    return apart.mean(), squares.max()


def _stored(kind):
    with Image.open(PICTURES / f"{kind}.png") as image:
        return np.asarray(image.convert("L"), float)


def test_every_figure_has_a_case():
    assert set(CASES) == set(plots.plots) == set(plots.takes)


@pytest.mark.parametrize("kind", CASES)
def test_a_figure_looks_as_it_did_and_changes_no_setting(kind):
    before = dict(matplotlib.rcParams)
    figure, result = _draw(kind)
    assert dict(matplotlib.rcParams) == before
    figure_level = "fig" in inspect.signature(plots.plots[kind]).parameters
    assert isinstance(result, Figure | SubFigure if figure_level else Axes)
    assert result is figure or result.get_figure() is figure
    mean, worst = _difference(_picture(figure), _stored(kind))
    assert mean < MEAN, f"{kind}: {mean}"
    assert worst < WORST, f"{kind}: {worst}"


def test_the_comparison_tells_figures_apart():
    pictures = {kind: _stored(kind) for kind in CASES}
    for kind, picture in pictures.items():
        for other, found in pictures.items():
            if kind != other:
                mean, worst = _difference(picture, found)
                assert mean > MEAN or worst > WORST, (kind, other)
    figure, ax = _draw("spectrum")
    ax.lines[-1].set_visible(False)  # the bound
    assert _difference(_picture(figure), _stored("spectrum"))[1] > WORST


@pytest.mark.parametrize("kind", CASES)
def test_drawn_twice_it_has_the_same_bytes(tmp_path, kind):
    for name in "ab":
        figure = _draw(kind)[0]
        for ending in ("pdf", "svg", "png"):
            plots.save(figure, tmp_path / f"{name}.{ending}", dpi=100)
    for ending in ("pdf", "svg", "png"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes(), ending


@pytest.mark.parametrize("layers", [1, 50])
@pytest.mark.parametrize("kind", ["layered_graph", "path_flow", "degree_distribution", "spectrum", "ramanujan_profile"])
def test_one_layer_and_fifty(kind, layers):
    masks = _chain(layers)
    data = _report(masks, None) if kind == "ramanujan_profile" else masks
    with plots.paper():
        figure = plots.figure()
        ax = plots.plots[kind](data, ax=figure.add_subplot())
        figure.draw_without_rendering()
        page = figure.bbox
        boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text() and t.get_visible()]
    assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert ax.get_window_extent().height > 0.35 * page.height


# What is drawn.


def test_layered_graph_counts_live_units_and_says_what_it_leaves_out():
    masks = topo.MaskSet({"a": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]]), "b": np.array([[1, 0, 0], [0, 0, 1]])})
    ax = plots.layered_graph(masks, ax=Figure().add_subplot())
    assert sorted(t.get_text() for t in ax.texts) == ["1 of 2", "1 of 3", "1 of 3"]
    assert sum(len(lines.get_segments()) for lines in ax.collections[:-1]) == masks.kept
    wide, wiring = complete(90, 90)
    ax = plots.layered_graph(wide, ax=Figure().add_subplot(), wiring=wiring, most_units=10, most_edges=40)
    assert "a dot is up to 9 units; 40 of 100 lines drawn" in ax.get_xlabel()


def test_skips_of_a_residual_network_are_arcs_over_its_layers():
    masks, wiring = _dead()
    ax = plots.layered_graph(masks, ax=Figure().add_subplot(), wiring=wiring)
    assert len(ax.patches) == 3  # two identities and a shortcut layer
    names = [tick.get_text() for tick in ax.get_xticklabels()]
    assert names == ["input", "stem", "0.conv1", "0.conv2", "1.conv1", "1.conv2", "2.conv1", "2.conv2", "fc"]


@pytest.mark.parametrize(
    "masks, wiring",
    [disjoint(3, 4, 3), _masks(0.5), (sparse(branching(), 0.8), branching()), (sparse(gated(), 0.8), gated())],
    ids=["disjoint", "residual", "branching", "gated"],
)
def test_every_column_of_a_flow_holds_all_paths(masks, wiring):
    from topo.graph.columns import Columns
    from topo.metrics.paths import unit_centrality
    from topo.plots.flows import _bars, _flows

    graph = build_graph(masks, wiring)
    columns, share = Columns(graph), np.append(unit_centrality(graph), 0.0)
    bars, bar_of = {}, np.zeros(len(share), int)
    for column in columns.order:
        bars[column], places = _bars(share[columns.units[column]], 0.9, 4)
        bar_of[columns.units[column]] = places
    flows = _flows(columns, share, bar_of, bars)
    for depth in range(max(columns.depth.values()) + 1):
        here = sum(bars[c].shares.sum() for c in columns.order if columns.depth[c] == depth)
        passing = sum(table.sum() for a, b, table in flows if columns.depth[a] < depth < columns.depth[b])
        assert here + passing == pytest.approx(1)
    for a, b, table in flows:
        assert (table.sum(axis=1) <= bars[a].shares + 1e-9).all()
        assert (table.sum(axis=0) <= bars[b].shares + 1e-9).all()


def test_spectrum_draws_all_singular_values_and_the_bound():
    masks = topo.MaskSet({"fc": np.random.default_rng(0).random((12, 20)) < 0.6})
    ax = plots.spectrum(masks, ax=Figure().add_subplot(), null=None)
    np.testing.assert_allclose(
        ax.lines[0].get_ydata(), np.linalg.svd(masks["fc"].astype(float), compute_uv=False), atol=1e-6
    )
    edges = masks.kept
    assert ax.lines[1].get_ydata()[0] == pytest.approx(math.sqrt(edges / 20 - 1) + math.sqrt(edges / 12 - 1))
    with pytest.raises(TopoError, match="keeps nothing"):
        plots.spectrum(topo.MaskSet({"fc": np.zeros((3, 3))}), ax=Figure().add_subplot())


def test_overlap_knows_chance():
    rng = np.random.default_rng(0)
    a, b = (topo.MaskSet({"fc": rng.random((200, 200)) < 0.1}) for _ in range(2))
    ax = plots.mask_overlap({"a": a, "b": b}, ax=Figure().add_subplot())
    texts = [t.get_text() for t in ax.texts]  # of a mask with itself nothing is said
    assert len(texts) == 2 and all(t.startswith("0.05\n") and t.endswith(("1.0x", "0.9x", "1.1x")) for t in texts)
    with pytest.raises(TopoError, match="two masks or more"):
        plots.mask_overlap(a, ax=Figure().add_subplot())


def test_partial_correlation_of_a_copy_of_the_baseline_says_nothing_new():
    rng = np.random.default_rng(0)
    base, noise = rng.random(60), rng.random(60)
    rows = [{"m": b + 0.3 * n, "mean_log_density": b, "accuracy": 0.5 + 0.4 * b} for b, n in zip(base, noise)]
    figure = plots.metric_accuracy(rows, fig=Figure(layout="constrained"), metric="m")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[1].startswith("$\\rho$ = 1.00\n")
    assert titles[0].endswith("given the baseline: undefined, it\nfixes accuracy")


def test_intervals_of_accuracies():
    from topo.plots.seeds import interval_of

    assert interval_of([0.5], "t95") == (0.5, 0.5)
    assert interval_of([0.2, 0.4], "range") == (0.2, 0.4)
    low, high = interval_of([0.1, 0.2, 0.3], "t95")
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    with pytest.raises(TopoError, match="accuracies are fractions"):
        plots.accuracy_sparsity([{"density": 0.1, "accuracy": 93.0}], ax=Figure().add_subplot())


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda ax: plots.layered_graph(3, ax=ax), "cannot be drawn of int"),
        (lambda ax: plots.layered_graph(sparse(branching(), 0.5), ax=ax), "needs the network's wiring"),
        (lambda ax: plots.degree_distribution(_chain(2), ax=ax, side="up"), "side is 'up'; it is one of in, out"),
        (lambda ax: plots.mask_matrix(_chain(2), ax=ax, layer="x"), "no layer is called 'x'; there are: fc0.weight"),
        (lambda ax: plots.path_flow(_chain(2), ax=ax, tau=0), "tau is 0"),
        (lambda ax: plots.path_flow(_chain(2, density=0), ax=ax), "no path"),
        (lambda ax: plots.accuracy_sparsity([], ax=ax), "holds no row"),
        (lambda ax: plots.accuracy_sparsity([{"a": 1}], ax=ax), "no column 'accuracy'; it has: a"),
        (lambda ax: plots.mask_overlap([_chain(2)], ax=ax), "two masks or more"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(call, said):
    with pytest.raises(TopoError, match=said) as caught:
        call(Figure().add_subplot())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wiring", [branching(), gated(), embedded()], ids=["branching", "gated", "embedded"])
def test_networks_with_joins_groups_and_flattening_are_drawn(wiring):
    masks = sparse(wiring, 0.8)
    for draw in (plots.layered_graph, plots.path_flow):
        figure = Figure(layout="constrained")
        ax = draw(masks, ax=figure.add_subplot(), wiring=wiring)
        figure.draw_without_rendering()
        assert ax.get_xlim()[1] > 2


# The command.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for density in (0.3, 0.6):
        topo.write_masks(topo.generate("erk", "mlp:12-10-8-4", density=density), f"erk_{density}.safetensors")
    return tmp_path


def test_command_draws_masks_reports_and_tables(folder, capsys):
    files = ["erk_0.3.safetensors", "erk_0.6.safetensors"]
    for kind in ("nodes_paths", "mask_overlap", "mask_dynamics", "layer_profile", "degree_distribution"):
        assert main(["plot", kind, *files, "-o", f"{kind}.pdf"]) == 0
    for kind in ("layered_graph", "path_flow", "spectrum", "mask_matrix", "ramanujan_profile", "density_profile"):
        assert main(["plot", kind, files[0], "-o", f"{kind}.svg", "--venue", "icml"]) == 0
    assert main(["analyze", files[0], "--metrics", "all", "--json", "r.json", "--quiet"]) == 0
    assert main(["plot", "layer_profile", "r.json", "-O", "metric=sigma2", "--null", files[1], "-o", "a.png"]) == 0
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _table()))
    assert main(["plot", "accuracy_sparsity", "t.jsonl", "-O", "interval=sd", "-o", "acc.png"]) == 0
    assert main(["plot", "metric_accuracy", "t.jsonl", "-O", "metric=gap", "-o", "gap.png", "--wide"]) == 0
    assert len(list(folder.glob("*.pdf"))) == 5 and len(list(folder.glob("*.svg"))) == 6
    assert capsys.readouterr().err.count("topo: wrote") == 14


def test_a_report_read_from_its_file_holds_the_same_numbers(folder):
    from topo.report import read_reports

    masks = topo.read_masks("erk_0.3.safetensors")
    report = topo.analyze(masks, metrics="all")
    Path("r.json").write_text(report.to_json())
    (found,) = read_reports("r.json")
    assert found.to_json() == report.to_json()


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["nope", "erk_0.3.safetensors"], 1, "no plot is called 'nope'"),
        (["mask_matrix", "erk_0.3.safetensors", "-O", "grid=few"], 1, "is 'few'; it is of type int"),
        (
            ["spectrum", "erk_0.3.safetensors", "-O", "colour=red"],
            1,
            "has no option 'colour'; it takes: layer, view, null",
        ),
        (["mask_matrix", "erk_0.3.safetensors", "--null", "erk_0.6.safetensors"], 2, "has no band"),
        (["layer_profile", "erk_0.3.safetensors", "-O", "null=erk:3"], 1, "null is 'erk:3'; it is METHOD:N"),
        (["spectrum", "erk_0.3.safetensors", "-O", "null=shuffle:0"], 1, "null is 'shuffle:0'; it is METHOD:N"),
        (["spectrum", "erk_0.3.safetensors", "-O", "null=shuffle:2", "--null", "erk_0.6.safetensors"], 2, "both given"),
        (["layer_profile", "erk_0.3.safetensors", "-O", "metric=spam"], 1, "no metric or group is called 'spam'"),
        (["metric_accuracy", "t.jsonl", "-O", "metric=gap", "-O", "cell=spam"], 1, "no column 'spam' for cells"),
        (["frontier", "t.jsonl"], 1, "the table has no column 'nodes'"),
        (["mask_matrix", "erk_0.3.safetensors", "-O", "layer=spam"], 1, "no layer is called 'spam'"),
        (["mask_dynamics", "erk_0.3.safetensors"], 1, "two masks or more"),
        (["mask_matrix", "t.jsonl"], 1, "takes mask files, run folders"),
        (["layered_graph", "erk_0.3.safetensors", "erk_0.6.safetensors"], 2, "drawn of one mask; 2 were given"),
        (["metric_accuracy", "t.csv"], 1, "needs the option 'metric'"),
        (["accuracy_sparsity", "t.csv"], 1, "cannot read 't.csv'"),
        (["accuracy_sparsity", "erk_0.3.safetensors"], 1, "is a mask file"),
        (["layer_profile", "missing.json"], 1, "cannot read 'missing.json'"),
        (["spectrum", "erk_0.3.safetensors", "--venue", "arxiv"], 1, "no venue is called"),
    ],
)
def test_command_refuses_in_one_line_and_leaves_no_file(folder, capsys, arguments, code, said):
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _table()))
    assert main(["plot", *arguments, "-o", "x.pdf", "--quiet"]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(folder.glob("*x.pdf"))


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in CASES:
        Image.fromarray(_picture(_draw(name)[0]).round().astype(np.uint8)).save(PICTURES / f"{name}.png", optimize=True)
