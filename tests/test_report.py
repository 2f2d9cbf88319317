"""Report: values that explain themselves, and every form of them."""

import csv
import io
import json
import math

import numpy as np
import pytest

from topo.errors import TopoError
from topo.report import Report, Row, Value, note_lines, reports_to_csv, reports_to_json
from topo.report.holm import holm
from topo.report.numerals import decimal, shown

HUGE = 10**5000 + 7
NO_PATH = "no path is left"


def _report(mask="a.pt", paths=HUGE, log_paths=5000.0):
    rows = [
        Row(mask, "density", None, "channel", np.float64(0.02), "fraction"),
        Row(mask, "effective_paths", None, "channel", paths, "paths"),
        Row(mask, "log10_effective_paths", None, "channel", log_paths, "log10 paths", NO_PATH if paths == 0 else None),
        Row(mask, "kept", "conv_1.weight", "channel", np.int64(5418), "parameters"),
        Row(mask, "gap", "conv_1.weight", "kernel", math.nan, "", "degree below 1"),
        Row(mask, "kept", "fc.weight", "channel", 0, "parameters"),
        Row(mask, "gap", "fc.weight", "kernel", np.float32(1.5)),
    ]
    shapes = {"conv_1.weight": (16, 3, 3, 3), "fc.weight": (10, 64)}
    return Report(
        mask, "topo", "resnet20", "channel", shapes, rows, [{"metric": None, "layer": None, "note": "a chain"}]
    )


@pytest.mark.small
@pytest.mark.parametrize("digits", [1, 599, 600, 601, 1200, 1201, 4300, 4301, 9000])
def test_decimal_of_any_size(digits):
    assert decimal(10**digits) == "1" + "0" * digits
    assert decimal(10**digits - 1) == "9" * digits
    assert decimal(-(10**digits)) == "-1" + "0" * digits


@pytest.mark.small
def test_decimal_reads_back():
    assert decimal(0) == "0"
    number = 7**7000
    text, back = decimal(number), 0
    for start in range(0, len(text), 500):
        piece = text[start : start + 500]
        back = back * 10 ** len(piece) + int(piece)
    assert back == number


@pytest.mark.small
@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.02, "fraction", "0.0200"),
        (2e-5, "fraction", "2.00e-05"),
        (5418, "parameters", "5,418"),
        (24, "paths", "24"),
        (1_234_567, "paths", "1.23e+06"),
        (1234 * 10**27, "paths", "1.23e+30"),
        (123.456, "", "123.46"),
        (12345.6, "", "12,345.60"),
        (math.nan, "", "–"),
        (-math.inf, "", "-inf"),
        (0.0, "fraction", "0.0000"),
    ],
)
def test_numbers_in_tables(number, unit, text):
    assert shown(number, unit) == text


@pytest.mark.small
def test_an_integer_of_any_size_can_be_shown():
    assert shown(HUGE, "paths") == shown(HUGE) == "1.00e+5000"
    assert repr(Value(HUGE, "so")) == "Value(1.00e+5000, 'so')"
    assert "1.00e+5000" in repr(_report().rows[1])
    first = "Report(a.pt, format topo, model resnet20, view channel: 7 numbers of 2 layers)"
    assert repr(_report()).splitlines()[0] == first


@pytest.mark.small
def test_values_are_plain_python_numbers():
    assert type(Value(np.int32(3)).number) is int
    assert type(Value(np.float32(0.5)).number) is float
    assert type(Value(np.True_).number) is int
    assert math.isnan(Value(None, "why").number)
    assert Value.of(3) == Value(3)
    value = Value(1, "so")
    assert Value.of(value) is value


@pytest.mark.small
def test_network_and_layers():
    report = _report()
    assert report.network["density"] == 0.02
    assert report.network["effective_paths"] == HUGE
    assert [entry["layer"] for entry in report.layers] == ["conv_1.weight", "fc.weight"]
    assert report.layers[0]["shape"] == (16, 3, 3, 3)
    assert report.layers[0]["kept"] == 5418
    assert math.isnan(report.layers[0]["gap"])
    assert report.collapsed == ("fc.weight",)


@pytest.mark.small
def test_a_report_is_immutable():
    report = _report()
    with pytest.raises(AttributeError):
        report.mask = "b"
    with pytest.raises(TypeError):
        report.network["density"] = 1.0
    with pytest.raises(TypeError):
        report.shapes["x"] = (1, 1)
    report.layers[0]["kept"] = 7
    assert report.layers[0]["kept"] == 5418


@pytest.mark.small
def test_a_layer_off_all_paths_has_collapsed():
    rows = [Row("m", "kept", "a", "channel", 3), Row("m", "effective_params", "a", "channel", 0)]
    assert Report("m", None, None, "channel", {"a": (2, 2)}, rows).collapsed == ("a",)
    rows = [
        Row("m", "kept", "a", "channel", 3),
        Row("m", "effective_params", "a", "channel", math.nan, note="no wiring"),
    ]
    assert Report("m", None, None, "channel", {"a": (2, 2)}, rows).collapsed == ()


@pytest.mark.small
def test_notes_come_from_the_analysis_and_from_rows_each_once():
    report = _report()
    expected = [
        {"metric": None, "layer": None, "note": "a chain"},
        {"metric": "gap", "layer": "conv_1.weight", "note": "degree below 1"},
    ]
    assert list(report.notes) == expected
    again = Report("m", None, None, "channel", report.shapes, report.rows, report.notes)
    assert list(again.notes) == expected
    assert report.with_notes(["first"]).notes[0]["note"] == "first"


@pytest.mark.small
def test_what_is_not_finite_always_has_a_note():
    assert Row("m", "x", None, "channel", math.nan).note == "undefined"
    assert "-inf" in Row("m", "x", None, "channel", -math.inf).note


@pytest.mark.small
def test_the_same_note_is_one_line():
    notes = [{"metric": "gap", "layer": f"l{i}", "note": "too thin"} for i in range(6)]
    notes += [{"metric": "paths", "layer": None, "note": "too thin"}]
    assert note_lines(notes) == ["gap of l0, l1, l2, l3 and 2 more: too thin", "paths: too thin"]


@pytest.mark.small
def test_json_is_the_schema_and_has_no_nan():
    text = reports_to_json([_report("a.pt"), _report("b.pt", paths=0, log_paths=-math.inf)])

    def refuse(constant):
        raise AssertionError(f"JSON holds {constant}")

    document = json.loads(text, parse_constant=refuse)
    assert list(document) == ["schema", "version", "reports"]
    assert document["schema"] == "topo/1"
    first, second = document["reports"]
    assert list(first) == [
        "mask",
        "format",
        "model",
        "view",
        "views",
        "network",
        "layers",
        "nulls",
        "notes",
        "coverage",
        "provenance",
        "units",
    ]
    assert (first["mask"], first["format"], first["model"], first["view"]) == ("a.pt", "topo", "resnet20", "channel")
    assert first["views"] == {"gap": "kernel"}
    assert first["network"]["effective_paths"] == "1" + "0" * 4999 + "7"
    assert second["network"]["effective_paths"] == "0"
    assert second["network"]["log10_effective_paths"] is None
    assert {"metric": "log10_effective_paths", "layer": None, "note": NO_PATH} in second["notes"]
    assert first["layers"][0] == {"layer": "conv_1.weight", "shape": [16, 3, 3, 3], "kept": 5418, "gap": None}
    assert first["layers"][1]["gap"] == 1.5
    assert json.loads(_report().to_json())["reports"] == [first]


@pytest.mark.small
def test_views_that_differ_from_the_reports():
    rows = [
        Row("m", "a", None, "channel", 1),
        Row("m", "a", "fc", "channel", 1),
        Row("m", "b", None, "kernel", 1),
        Row("m", "b", "fc", "kernel", 1),
        Row("m", "c", None, "channel", 1),
        Row("m", "c", "fc", "kernel", 1),
        Row("m", "d", "fc", "kernel", 1),
        Row("m", "e", None, "unit", 1),
        Row("m", "e", "fc", "kernel", 1),
        Row("m", "f", None, "unit", 1),
        Row("m", "f", "fc", "channel", 1),
    ]
    report = Report("m", None, None, "channel", {"fc": (1, 2)}, rows)
    both = {"e": "unit", "layer:e": "kernel", "f": "unit", "layer:f": "channel"}
    assert report.views == {"b": "kernel", "layer:c": "kernel", "d": "kernel", **both}
    assert json.loads(report.to_json())["reports"][0]["views"] == dict(report.views)


def _entry(null, metric, p, z=0.0, observed=2, mean=1.0, std=0.5, layer=None, samples=50):
    numbers = {"observed": observed, "mean": mean, "std": std, "z": z, "p": p}
    return {"null": null, "samples": samples, "metric": metric, "layer": layer, **numbers}


@pytest.mark.small
def test_few_samples_do_not_tell_noise():
    """The least p of n samples is 2 / (n + 1): 39 of them explain nothing, unless every one is the same."""
    entries = [
        _entry("first", "density", 0.05, samples=39),
        _entry("first", "kept", 1, math.nan, 2, 2.0, 0.0, samples=39),
        _entry("second", "density", 1.0, samples=50),
    ]
    report = Report("m", None, None, "channel", {"a": (1, 2)}, [], nulls=entries)
    assert report.first_explaining_null == {"kept": "first"}
    assert "too few samples to tell noise (p below 0.05 takes 40): density" in report.null_lines()


@pytest.mark.small
def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([math.nan, 0.5])[0]) and holm([math.nan, 0.5])[1] == 0.5


@pytest.mark.small
def test_the_first_null_model_within_noise():
    entries = [
        _entry("first", "density", 0.04, 3.0),
        _entry("first", "kept", 1, math.nan, 2, 2.0, 0.0),
        _entry("first", "gap", 0.04, math.nan, 2, 1.0, 0.0),
        _entry("first", "dash", math.nan, math.nan, 2, 1.0, math.nan),
        _entry("first", "density", 1.0, layer="fc.weight"),
        _entry("second", "density", 0.3, -1.9),
        _entry("second", "kept", 0.02, 5.0),
        _entry("second", "gap", 0.04, -7.0),
        _entry("third", "density", 0.02, 9.0),
    ]
    rows = [Row("m", "density", None, "channel", 2, "fraction")]
    report = Report("m", None, None, "channel", {"fc.weight": (1, 2)}, rows, nulls=entries)
    assert report.first_explaining_null == {"density": "second", "kept": "first", "gap": None}
    tested = "7 numbers were tested: by chance some 0 have p < 0.05"
    assert report.null_lines() == [
        "first within noise (p >= 0.05) at first: kept",
        "first within noise (p >= 0.05) at second: density (|z| 1.9)",
        "beyond noise of every null model (p < 0.05): gap",
        tested,
    ]
    assert report.null_lines({"gap"}) == ["beyond noise of every null model (p < 0.05): gap", tested]
    header, lines = report.tables()[1]
    assert header[:3] == ["null", "samples", "metric"]
    assert [line[2] for line in lines] == ["density", "gap", "dash", "density", "kept", "gap", "density"]
    assert [entry["metric"] for entry in report.only("density").nulls] == ["density"] * 4
    adjusted = report.with_holm()
    assert adjusted.tables()[1][0][-1] == "p_holm" and len(adjusted.tables()[1][1][0]) == len(adjusted.tables()[1][0])
    assert adjusted.nulls[0]["p_holm"] == pytest.approx(0.04 * 6)  # the third smallest of eight
    document = json.loads(report.to_json())["reports"][0]["nulls"]
    assert document[1] == {**entries[1], "z": None} and document[0] == entries[0]


@pytest.mark.small
def test_csv_is_tidy():
    rows = list(csv.DictReader(io.StringIO(reports_to_csv([_report("a.pt"), _report("b,c.pt")]))))
    assert list(rows[0]) == ["mask", "metric", "layer", "view", "value", "unit", "note"]
    assert len(rows) == 14
    assert rows[0]["value"] == "0.02"
    assert rows[1]["value"] == "1" + "0" * 4999 + "7"
    assert (rows[4]["layer"], rows[4]["view"], rows[4]["value"], rows[4]["note"]) == (
        "conv_1.weight",
        "kernel",
        "",
        "degree below 1",
    )
    assert rows[7]["mask"] == "b,c.pt"


def test_frame_holds_floats_and_says_what_is_beyond_them():
    pandas = pytest.importorskip("pandas")
    frame = _report().to_frame()
    assert list(frame.columns) == ["mask", "metric", "layer", "view", "value", "unit", "note", "exact"]
    assert frame["exact"].dropna().tolist() == ["1" + "0" * 4999 + "7"]
    assert frame["value"].dtype == np.float64
    paths = frame[frame.metric == "effective_paths"].iloc[0]
    assert pandas.isna(paths["value"])
    assert "1.00e+5000 is beyond float64" in paths["note"]
    assert frame[frame.metric == "kept"]["value"].tolist() == [5418.0, 0.0]


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(TopoError, match=r"topo-masks\[pandas\]"):
        _report().to_frame()


@pytest.mark.small
def test_a_report_of_chosen_metrics():
    report = _report()
    few = report.only("gap, kept")
    assert few.tables()[-1][0] == ["layer", "shape", "gap", "kept"]
    assert few.layers == [{key: layer[key] for key in ("layer", "shape", "gap", "kept")} for layer in report.layers]
    assert few.only(["kept"]).tables()[-1][0] == ["layer", "shape", "kept"]
    assert {note["metric"] for note in report.notes} == {None, "gap"}
    assert {note["metric"] for note in few.only("kept").notes} == {None}
    with pytest.raises(TopoError, match=r"'a\.pt' has no metric 'gaps'; it has: .*gap"):
        report.only("gaps")


@pytest.mark.small
def test_markdown():
    text = _report().to_markdown()
    assert "| effective\\_paths | 1.00e+5000 | paths | channel |" in text
    assert "| layer | shape | kept | gap |" in text
    assert "| conv\\_1.weight | 16x3x3x3 | 5,418 | – |" in text
    assert "- gap of conv\\_1.weight: degree below 1" in text


@pytest.mark.small
def test_latex_escapes_and_marks():
    text = _report(paths=0, log_paths=-math.inf).to_latex()
    assert text.count("\\toprule") == text.count("\\bottomrule") == 2
    assert "\\begin{tabular}{lrll}" in text
    assert "conv\\_1.weight & 16x3x3x3 & 5,418 & -- \\\\" in text
    assert "\\textbf{fc.weight} & \\textbf{10x64} & \\textbf{0} & \\textbf{1.5000} \\\\" in text
    assert "$-\\infty$" in text
    assert "$1.00 \\times 10^{5000}$" in _report().to_latex()
    odd = Report("50%_&{x}", None, None, "channel", {"a#b$c": (1, 2)}, [Row("m", "kept", "a#b$c", "channel", 1)])
    negative = Report("m", None, None, "channel", {"a-1": (1, 2)}, [Row("m", "gap", "a-1", "channel", -0.0755)])
    assert "a-1 & 1x2 & $-0.0755$ \\\\" in negative.to_latex()
    assert "50\\%\\_\\&\\{x\\}" in odd.to_latex()
    assert "a\\#b\\$c" in odd.to_latex()


@pytest.mark.small
def test_html_escapes():
    report = Report("<m>", None, None, "channel", {"<a>": (1, 2)}, [Row("m", "kept", "<a>", "channel", 0)])
    html = report._repr_html_()
    assert "<a>" not in html
    assert "&lt;a&gt;" in html
    assert "font-weight:bold" in html


def test_a_wiring_may_be_named():
    import topo

    masks = topo.generate("erk", "lenet5", density=0.1)
    assert topo.analyze(masks, "lenet5").to_json() == topo.analyze(masks, topo.networks.find_wiring("lenet5")).to_json()
    with pytest.raises(TopoError, match="a dict cannot be traced"):
        topo.analyze(masks, {"fc": [[1]]})
    with pytest.raises(TopoError, match="lenet6"):
        topo.analyze(masks, "lenet6")
