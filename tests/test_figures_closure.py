"""Every file that topo writes is an input of every figure whose data it holds; others are refused in one line."""

import csv
import json
import re
from pathlib import Path

import matplotlib
import pytest
from test_figures import _courses, _front
from test_figures_inputs import _run

import topo
from topo import plots
from topo.cli import main
from topo.errors import TopoError
from topo.plots.written import HOLDERS, KINDS, kind_of

pytestmark = pytest.mark.slow

matplotlib.use("agg")
MODEL = "mlp:12-10-8-4"
OPTIONS = {
    "metric_accuracy": ["-O", "metric=effective_density", "-O", "cell=data"],
    "null_forest": ["-O", "metrics=effective_nodes,log10_effective_paths"],
}
# Figures that are drawn of one mask.
ONE = ("ramanujan_profile", "layered_graph", "path_flow", "mask_matrix")
# Figure -> columns that its tables have.
NEEDED = {
    "accuracy_sparsity": {"accuracy"}, "ranking": {"accuracy", "method"}, "metric_accuracy": {"accuracy"},
    "frontier": {"nodes", "log10_paths"}, "nodes_paths": {"effective_nodes", "log10_effective_paths"},
    "metric_sparsity": {"effective_density", "density"},
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Name -> a file or folder of each kind, as the commands write it."""
    folder = tmp_path_factory.mktemp("written")
    made = {}

    def path(name):
        made[name] = folder / name
        return made[name]

    masks = {f"{m}_s{s}": topo.generate(m, MODEL, density=0.4, rng=s) for m in ("erk", "uniform") for s in (0, 1)}
    for name, held in masks.items():
        topo.write_masks(held, folder / f"{name}.safetensors")
    path("erk_s0.safetensors")
    reports = topo.analyze_files(str(folder / "*.safetensors"), MODEL, nulls={"same_layers": 3}, rng=0)
    reports.to_json(path("all.json"))
    path("one.json").write_text(reports[0].to_json())
    reports.to_csv(path("all.csv"))
    reports.to_frame(wide=True).to_csv(path("wide.csv"), index=False)
    reports.to_frame(level="layer").to_csv(path("layers.csv"), index=False)
    reports.summary(["method", "density_asked"]).to_csv(path("summary.csv"))
    epochs = _courses()[0][1]
    for number, (name, held) in enumerate(masks.items()):
        run = Path(_run(folder / f"run_{name}", held, 0.5 + 0.1 * number, number % 2, MODEL))
        lines = "".join(json.dumps({**epoch, "train_loss": 1.0}) + "\n" for epoch in epochs)
        (run / "metrics.jsonl").write_text(lines)
    path("run_erk_s0")
    (folder / "imp").mkdir()
    for level in range(2):
        run = _run(folder / "imp" / f"level_{level:02d}", masks[f"erk_s{level}"], 0.6, imp={"level": level})
        (Path(run) / "metrics.jsonl").write_text(lines)
    path("imp")
    made["metrics.jsonl"] = made["run_erk_s0"] / "metrics.jsonl"
    toml = {"sweep": {"model": MODEL, "seeds": "0-1"}, "grid": {"method": ["erk", "uniform"], "density": [0.4]}}
    results = topo.sweep(toml, out=path("results"))
    assert not results.failures
    for cell in list(results.rows):  # as if trained, which takes longer
        _run_in(made["results"] / "runs" / str(cell["id"]), lines)
    _with_accuracy(made["results"])
    made["sweep summary.csv"] = made["results"] / "summary.csv"
    path("front.json").write_text(_front().to_json())
    path("front.csv").write_text(_front().to_csv())
    table = [{"network": "a", "data": "d", "density": 0.1, "method": "xyz"[k % 3], "accuracy": k, "paths": (7 * k) % 5}
             for k in range(9)]  # fmt: skip
    path("evidence.json").write_text(topo.evaluate(table).to_json())
    return made


def _run_in(folder, lines):
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("")
    (folder / "environment.json").write_text("{}")
    (folder / "metrics.jsonl").write_text(lines)


def _with_accuracy(folder):
    for name in ("results.csv", "summary.csv"):
        with (folder / name).open() as file:
            rows = list(csv.DictReader(file))
        key = "accuracy" if name == "results.csv" else "accuracy_mean"
        for k, row in enumerate(rows):
            row[key] = 0.5 + 0.1 * k
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _holds(figure, path):
    """Whether a file holds what a figure is drawn of, told from the file alone."""
    kind = kind_of(path)
    fits = [part for part in plots.takes[figure][0].split(",") if kind in HOLDERS[part]]
    if not fits:
        return False
    many = kind in ("rounds", "sweep") or Path(path).name in ("all.json", "all.csv", "layers.csv")
    if figure in ONE:
        return not many
    if figure in ("mask_overlap", "mask_dynamics"):
        return many
    if fits[0] in ("reports", "masks", "graphs"):
        if figure == "null_forest":
            return kind in ("masks", "run", "rounds") or Path(path).suffix == ".json"
        return not (Path(path).name == "layers.csv" and figure in ("nodes_paths", "metric_sparsity"))
    if fits[0] == "rows" or (figure == "frontier" and kind != "frontier"):
        from topo.plots.written import rows_of_file

        columns = {key for row in rows_of_file(path, kind) for key in row}
        return NEEDED[figure] <= columns and not (figure == "ranking" and kind in ("run", "rounds"))
    return True


@pytest.mark.parametrize("figure", sorted(plots.plots))
def test_every_written_file_is_drawn_or_refused_in_one_line(written, tmp_path, monkeypatch, capsys, figure):
    monkeypatch.chdir(tmp_path)
    drawn = 0
    for name, path in written.items():
        out = tmp_path / "x.svg"
        out.unlink(missing_ok=True)
        code = main(["plot", figure, str(path), "--model", MODEL, "-o", str(out), *OPTIONS.get(figure, []), "--quiet"])
        said = capsys.readouterr().err
        assert "Traceback" not in said and "internal" not in said, (figure, name, said)
        if not _holds(figure, path):
            assert code in (1, 2) and said.count("\n") == 1 and not out.exists(), (figure, name, said)
            assert re.search(
                "takes|drawn of|column|holds no|in one cell|no null model|needs|no report|there is none", said
            ), said
            continue
        assert code == 0, (figure, name, said)
        assert "<text" in out.read_text()
        drawn += 1
    assert drawn, figure


def test_every_kind_of_file_is_among_those_that_are_tried(written):
    assert {kind_of(path) for path in written.values()} == set(KINDS)


def test_reports_of_tables_say_what_those_of_json_do(written):
    whole, table = (topo.read_reports(written[name]) for name in ("all.json", "all.csv"))
    for one, other in zip(whole, table):
        assert one.network.keys() == other.network.keys() and repr(one.network) == repr(other.network)
        assert {k: v for k, v in one.columns.items()} == dict(other.columns)
        for a, b in zip(one.layers, other.layers):
            assert a.pop("shape") != b.pop("shape") and repr(a) == repr(b)
    with pytest.raises(TopoError, match=r"'.*wide.csv' .*neither the columns"):
        topo.read_reports(written["wide.csv"])


def test_seeds_are_averaged_and_named_ones_are_not(written):
    from matplotlib.figure import Figure

    def labels(data, **options):
        ax = plots.layer_profile(data, ax=Figure().add_subplot(), **options)
        return ax.get_legend_handles_labels()[1], ax

    reports = list(topo.read_reports(written["all.json"]))
    found, ax = labels(reports)
    assert found == ["erk", "uniform"] and "95 % interval of the mean, up to 2 masks" in ax.get_xlabel()
    means = [sum(r.layers[k]["density"] for r in reports[:2]) / 2 for k in range(3)]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx(means)
    assert len(ax.collections) == 2  # a band each
    assert len(labels(reports, group="none")[0]) == 4
    assert labels({r.mask: r for r in reports})[0] == [r.mask for r in reports]
    assert labels(reports, group="seed")[0] == ["seed 0", "seed 1"]
    twice = [reports[0], reports[0]]  # one mask twice is no sample
    assert len(labels(twice)[0]) == 2
    with pytest.raises(TopoError, match="has no 'spam' to group by; known of it: mask, model"):
        labels(reports, group="spam")
    with pytest.raises(TopoError, match="9 series of layer profiles cannot be told apart: group=method"):
        labels([topo.analyze({"fc": [[1, 0], [1, k % 2]]}, mask_name=f"m{k}") for k in range(9)])


@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_a_figure_says_how_it_was_made(written, tmp_path, monkeypatch, ending):
    """The command, the version and the hash of each input stand in the file."""
    import hashlib

    monkeypatch.chdir(tmp_path)
    Path("r.json").write_bytes(written["one.json"].read_bytes())
    assert main(["plot", "density_profile", "r.json", "-o", f"x.{ending}", "--quiet"]) == 0
    said = Path(f"x.{ending}").read_bytes().decode("latin-1").replace("&quot;", '"').replace("\\", "")
    digest = hashlib.sha256(Path("r.json").read_bytes()).hexdigest()
    assert "plot density_profile r.json" in said and f"topo {topo.__version__}" in said
    assert f'"r.json": "{digest}"' in said


def test_slides_have_type_that_is_read_from_afar(written):
    from test_figures import CASES
    from test_figures_print import _drawn, _faults

    for kind in CASES:
        figure = _drawn(kind, *CASES[kind](), "slides")
        least = min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip())
        assert least >= 14 and _faults(figure) == [], kind
