"""Many masks at once: analyze_files, the tables and summaries of Reports, what comes back from JSON, and reprs."""

import csv
import io
import json
import math
import statistics

import numpy as np
import pytest

import topo
from topo.analyze_files import fields_of
from topo.errors import MaskWarning, TopoError
from topo.report import Report, Reports, Row
from topo.report.numerals import decimal, whole
from topo.report.summary import t95

PATTERN = "{method}_d{density:g}_s{seed:d}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three seeds of two methods, on a network of three layers."""
    place = tmp_path_factory.mktemp("masks")
    for method in ("erk", "uniform"):
        for seed in (2, 10, 0):
            masks = topo.generate(method, "mlp:12-8-6-3", density=0.5, rng=seed)
            topo.write_masks(masks, place / f"{method}_d0.5_s{seed}.safetensors")
    return place


@pytest.fixture(scope="module")
def reports(folder):
    return topo.analyze_files(f"{folder}/*.safetensors", pattern=PATTERN, metrics="paths")


def test_every_file_once_in_the_order_of_names(reports, folder):
    assert [report.fields["seed"] for report in reports] == [0, 2, 10] * 2
    assert not reports.errors and len(reports) == 6 and isinstance(reports, Reports)
    alone = topo.analyze(topo.read_masks(folder / "erk_d0.5_s2.safetensors"), metrics="paths")
    assert dict(reports[1].network) == dict(alone.network) and alone.model == reports[1].model == "mlp:12-8-6-3"
    assert reports[1].provenance["sha256"] == alone.provenance["sha256"]
    assert (alone.provenance["method"], alone.provenance["seed"], alone.provenance["file"]) == (
        "erk", 2, "erk_d0.5_s2.safetensors",
    )  # fmt: skip
    made = topo.generate("erk", "mlp:12-8-6-3", density=0.017, rng=2)
    assert topo.analyze(made, metrics="kept").provenance["density"] == 0.017 != made.density


def test_the_command_says_the_same(reports, folder, capsys):
    from topo.cli import main

    file = str(folder / "erk_d0.5_s2.safetensors")
    assert main(["analyze", file, "--metrics", "paths", "--json", "-", "--quiet"]) == 0
    ours = json.loads(capsys.readouterr().out)["reports"][0]
    again = json.loads(topo.analyze(topo.read_masks(file), metrics="paths").to_json())["reports"][0]
    notes = ours.pop("notes"), again.pop("notes")
    assert ours == again
    assert sorted(map(str, notes[0])) == sorted(map(str, notes[1]))
    assert ours["provenance"]["method"] == "erk" and ours["coverage"]["left_out"] == 0


def test_a_bad_file_ends_nothing(folder, tmp_path):
    bad = tmp_path / "erk_d0.5_s7.pt"
    bad.write_bytes(b"no mask")
    other = tmp_path / "odd.safetensors"
    other.write_bytes((folder / "erk_d0.5_s0.safetensors").read_bytes())
    seen = []
    with pytest.warns(MaskWarning, match="2 of 3 files have no report"):
        found = topo.analyze_files(
            [bad, folder / "erk_d0.5_s0.safetensors", other], pattern=PATTERN, metrics="kept",
            progress=lambda *said: seen.append(said),
        )  # fmt: skip
    assert len(found) == 1 and list(found.errors) == [str(bad), str(other)]
    assert "does not fit the pattern" in found.errors[str(other)]
    assert seen[0][:2] == (0, 3) and seen[-1] == (3, 3, "done")
    for files, said in (
        (f"{tmp_path}/*.none", "is called like"),
        (tmp_path / "x.pt", "no file"),
        ([], "none was given"),
    ):
        with pytest.raises(TopoError, match=said):
            topo.analyze_files(files)
    with pytest.raises(TopoError, match="did you mean 'density'"):
        topo.analyze_files(bad, metrics="denstiy")


@pytest.mark.small
@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        (PATTERN, "a/b/erk_plus_d1e-2_s-3.pth.tar", {"method": "erk_plus", "density": 0.01, "seed": -3}),
        ("{net}/{seed:d}", "runs/vgg/7.npz", {"net": "vgg", "seed": 7}),
        ("m{x:g}", "m.5.pt", {"x": 0.5}),
        ("{a}.{b}.pt", "x.y.pt", {"a": "x", "b": "y"}),
    ],
)
def test_fields_of_names(pattern, name, fields):
    assert dict(fields_of(name, pattern)) == fields


@pytest.mark.small
@pytest.mark.parametrize("pattern", ["{", "{seed:q}", "{a}{a}", "plain", "{0}", "{a!r}"])
def test_what_is_no_pattern(pattern):
    with pytest.raises(TopoError, match="pattern"):
        fields_of("a.pt", pattern)


def test_wide_frames(reports):
    pytest.importorskip("pandas")
    frame = reports.to_frame(wide=True)
    assert len(frame) == 6 and frame["seed"].tolist() == [0, 2, 10] * 2 and set(frame["density"]) == {0.5}
    for report, (_, row) in zip(reports, frame.iterrows()):
        assert row["measured_density"] == report.network["density"]
        assert row["effective_paths"] == decimal(report.network["effective_paths"])
        assert row["effective_nodes"] == report.network["effective_nodes"]
        assert row["sha256"] == report.provenance["sha256"] and row["read"] == 162
    layers = reports.to_frame(level="layer")
    assert len(layers) == 18 and set(layers["layer"]) == set(reports[0].shapes)
    assert layers["kept"].tolist() == [layer["kept"] for report in reports for layer in report.layers]
    tidy = reports.to_frame()
    assert len(tidy) == sum(len(report.rows) for report in reports) and tidy["value"].dtype == np.float64
    with pytest.raises(TopoError, match="level"):
        reports.to_frame(level="unit")


def test_summaries_are_students(reports):
    summary = reports.summary(by=["method", "density"])
    assert len({(row["method"], row["density"]) for row in summary}) == 2
    row = next(row for row in summary if row["method"] == "uniform" and row["metric"] == "effective_nodes")
    values = [report.network["effective_nodes"] for report in reports.filter(method="uniform")]
    assert row["n"] == row["masks"] == 3 and row["mean"] == pytest.approx(statistics.mean(values))
    assert row["sd"] == pytest.approx(statistics.stdev(values))
    assert row["t95"] == pytest.approx(4.302652729911275 * row["sd"] / math.sqrt(3))  # t(0.975, 2)
    assert math.isnan(t95(1.0, 1)) and t95(2.0, 10) == pytest.approx(2.2621571628 * 2 / math.sqrt(10))
    assert "effective_paths" not in summary["metric"] and "log10_effective_paths" in summary["metric"]
    with pytest.raises(TopoError, match="did you mean 'method'"):
        reports.summary(by="methd")


def _made(method, density, seed, **numbers):
    rows = [Row("m", metric, None, "channel", value) for metric, value in numbers.items()]
    fields = {"method": method, "d": density, "seed": seed}
    return Report(f"{method}{seed}", None, None, "channel", {}, rows, provenance={"fields": fields})


@pytest.mark.small
def test_the_best_of_each_density_is_bold():
    """By hand: at d = 0.1 `b_1` has more nodes and `a` less gap; at d = 0.2 `a` stands alone, and is unmarked."""
    made = [
        _made("a", 0.1, 0, nodes=1.0, gap=1.0),
        _made("a", 0.1, 1, nodes=3.0, gap=math.nan),
        _made("b_1", 0.1, 0, nodes=5, gap=2.0),
        _made("a", 0.2, 0, nodes=9.0, gap=4.0),
    ]
    text = Reports(made).summary(by=["method", "d"]).to_latex(["nodes", "gap"], best="bold", lower=["gap"])
    body = [line for line in text.splitlines() if line.endswith("\\\\")][1:]
    assert body == [
        "a & 0.1 & 2.0000 $\\pm$ 12.71 & \\textbf{1.0000} \\\\",
        "a & 0.2 & 9.0000 & 4.0000 \\\\",
        "b\\_1 & 0.1 & \\textbf{5.0000} & 2.0000 \\\\",
    ]
    summary = Reports(made).summary(by=["method", "d"])
    gap = next(row for row in summary if row["metric"] == "gap" and row["method"] == "a" and row["d"] == 0.1)
    assert (gap["masks"], gap["n"]) == (2, 1)
    lines = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert list(lines[0]) == ["method", "d", "metric", "masks", "n", "mean", "sd", "t95"] and len(lines) == len(summary)
    with pytest.raises(TopoError, match="best is"):
        summary.to_latex(best="blod")


@pytest.mark.small
def test_choices_among_reports():
    made = Reports([_made(m, d, s, nodes=s) for m in "ab" for d in (0.1, 0.2) for s in (0, 1)], {"x": "why"})
    assert len(made.filter(method="a")) == 4 and len(made.filter(method="a", d=[0.1, 0.3], seed=1)) == 1
    assert len(made.filter(nodes=lambda n: n > 0)) == 4 and dict(made.filter(d=0.2).errors) == {"x": "why"}
    with pytest.raises(TopoError, match="no column is called 'metod'; did you mean 'method'"):
        made.filter(metod="a")


def test_json_and_csv_come_back(reports, tmp_path):
    text = reports.to_json(tmp_path / "all.json")
    again = topo.read_reports(tmp_path / "all.json")
    assert again.to_json() == text == (tmp_path / "all.json").read_text()
    assert [report.rows for report in again] == [report.rows for report in reports]
    assert Report.from_json(reports[0].to_json()).to_json() == reports[0].to_json()
    with pytest.raises(TopoError, match="6 reports, not one"):
        Report.from_json(text)
    lines = list(csv.DictReader(io.StringIO(reports.to_csv(tmp_path / "all.csv"))))
    assert {line["method"] for line in lines} == {"erk", "uniform"} and all(line["sha256"] for line in lines)
    assert {line["density"] for line in lines} == {"0.5"} and {line["seed"] for line in lines} == {"0", "2", "10"}


@pytest.mark.small
@pytest.mark.parametrize(
    "odd", ["", "[]", "{}", '{"schema": "topo/1"}', '{"schema": "topo/1", "reports": [{}]}', "\x00"]
)
def test_what_is_no_report_is_said(odd, tmp_path):
    (tmp_path / "r.json").write_text(odd)
    with pytest.raises(TopoError, match=r"r\.json"):
        topo.read_reports(tmp_path / "r.json")


@pytest.mark.small
def test_counts_of_any_size_come_back():
    for number in (0, 7, -(10**700), 3**20000):
        assert whole(decimal(number)) == number
    for odd in ("", "1.5", "٣", "1" * 200_001, "nan"):
        with pytest.raises(ValueError, match="whole number"):
            whole(odd)


def test_one_screen_of_each(folder):
    """At most 24 lines of text, whatever there is to show; HTML that folds; no control character of a name."""
    deep = "mlp:" + "-".join(["4"] * 60)
    masks = topo.generate("erk", deep, density=0.5)
    wiring = topo.networks.find_wiring(deep)
    report = topo.analyze(masks, wiring, metrics="paths")
    for thing in (masks, wiring, topo.build_graph(masks, wiring), report, Reports([report] * 50)):
        assert 1 < len(repr(thing).splitlines()) < 25, type(thing)
        assert "<" in thing._repr_html_()
    for folded in (masks, wiring, topo.build_graph(masks, wiring), report):
        assert "<details>" in folded._repr_html_()
    hostile = topo.MaskSet({"\x1b[31m<script>": np.eye(2)})
    assert "\x1b" not in repr(hostile) and "<script>" not in hostile._repr_html_()
    said = str(report)
    assert "effective_nodes" in said and next(iter(report.shapes)) in said
    assert len(said.splitlines()) > 60


def test_results_print_in_a_few_lines(tmp_path):
    """However many cells, metrics, epochs or images they hold."""
    toml = {"sweep": {"model": "mlp:8-6-2", "seeds": "0-9"}, "grid": {"method": ["erk", "uniform"], "density": 0.5}}
    table = {"accuracy": list(range(6)), **{f"metric{k}": [k, *range(5)] for k in range(60)}}
    digits = topo.data.load("digits")
    run = topo.train("mlp:64-8-10", digits, masks=topo.generate("erk", "mlp:64-8-10", density=0.5), epochs=1)
    said = {
        "20 cells done, 0 failed, 0 left": topo.sweep(toml, tmp_path / "results"),
        "6 rows, 1 cells": topo.evaluate(table, cell=None, family=None),
        "images of 1x8x8 in 10 classes": digits,
        "296 of 592 parameters kept, 1 epochs of 'quick', seed 0": run,
    }
    for text, thing in said.items():
        assert text in repr(thing) and len(repr(thing).splitlines()) < 25, repr(thing)


def test_a_model_by_its_text_takes_an_input_shape_and_is_called_as_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from torch import nn\n\ndef Net():\n    return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))\n"
    (tmp_path / "net.py").write_text(text)
    masks = topo.generate("erk", "net.py:Net", density=0.5, input_shape=(6,))
    assert topo.analyze(masks, "net.py:Net", metrics="paths", input_shape=(6,)).model == "net.py:Net"
