"""topo evaluate: its statistics against plain twins, and the masks of a published study."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import topo
from topo import cli
from topo.evidence import cluster_bootstrap, controlled, left_out, ranked, read_table, spearman

MGE = Path(__file__).parents[1] / ".." / "shared" / "cases" / "mge_masks.csv"
STATIC = ("er", "erk", "grasp", "prospr", "snip", "synflow", "uniform")


def table(seed: int, cells: int = 4, methods: int = 4, seeds: int = 2, noise: float = 0.3) -> list[dict[str, object]]:
    """Rows in which accuracy rises with `good`, which rises with mean_log_density; `none` is noise."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for cell in range(cells):
        for method in range(methods):
            for number in range(seeds):
                base = method / methods + 0.1 * rng.normal()
                good = base + 0.5 * rng.normal()
                row = {"network": f"n{cell // 2}", "data": "d", "density": 0.1 / (1 + cell % 2), "method": f"m{method}"}
                accuracy = good + noise * rng.normal()
                row |= {"seed": number, "accuracy": accuracy, "mean_log_density": base, "good": good}
                rows.append({**row, "none": rng.normal(), "fixed": 3})
    return rows


def by_name(found: topo.Evaluation) -> dict[str, dict]:
    return {entry["metric"]: entry for entry in found.to_dict()["metrics"]}


def write(path: Path, rows: list[dict]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_correlations_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = rng.integers(0, 6, 30).astype(float), rng.normal(size=30), rng.normal(size=30)
    assert np.array_equal(ranked(x), stats.rankdata(x))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    a, b, c = stats.spearmanr(x, y)[0], stats.spearmanr(x, z)[0], stats.spearmanr(y, z)[0]
    assert controlled(x, y, z[:, None]) == pytest.approx((a - b * c) / math.sqrt((1 - b * b) * (1 - c * c)))


def test_infinite_values_have_a_rank_and_constants_no_correlation() -> None:
    x = np.array([-math.inf, 1.0, 2.0, 3.0, 4.0, math.inf])
    assert spearman(x, np.arange(6.0)) == pytest.approx(1)
    assert math.isnan(spearman(np.ones(6), np.arange(6.0)))
    assert math.isnan(controlled(x, np.arange(6.0)[::-1].copy(), x[:, None]))  # nothing is left of x


def test_the_bootstrap_draws_whole_clusters() -> None:
    rng = np.random.default_rng(0)
    same = cluster_bootstrap([0.2, 0.4, 0.2, 0.4], ["a", "a", "b", "b"], draws=300, rng=rng)
    assert (same.low, same.high) == pytest.approx((0.3, 0.3)) and same.p == pytest.approx(2 / 301)
    apart = cluster_bootstrap([-1.0, -1.0, 1.0, math.nan], ["a", "a", "b", "c"], draws=300, rng=rng)
    assert (apart.low, apart.high, apart.clusters, apart.cells) == (-1, 1, 2, 3)
    one = cluster_bootstrap([0.5, 0.1], ["a", "a"], draws=300, rng=rng)
    assert one.mean == pytest.approx(0.3) and math.isnan(one.low) and math.isnan(one.p)


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    """A mark of the byte order is no part of the first name; other dividers are named."""
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfdensity,accuracy\n0.1,0.5\n")
    assert dict(read_table(tmp_path / "a.csv").columns) == {"density": ("0.1",), "accuracy": ("0.5",)}
    for sign in ";\t":
        (tmp_path / "b.csv").write_text(f"density{sign}accuracy\n0,1{sign}0,5\n")
        with pytest.raises(topo.TopoError, match=f"divides its entries by {re.escape(repr(sign))}; a table divides"):
            read_table(tmp_path / "b.csv")


def test_intervals_of_few_clusters_hold_the_mean_as_often_as_the_page_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text("utf-8")
    rates, counts = re.search(r"in ([\d, and]+) % of draws of ([\d, and]+) clusters", " ".join(page.split())).groups()
    rng = np.random.default_rng(0)
    for rate, count in zip(re.findall(r"\d+", rates), map(int, re.findall(r"\d+", counts)), strict=True):
        found = [
            cluster_bootstrap(rng.standard_normal(count).tolist(), range(count), draws=400, rng=rng) for _ in range(900)
        ]
        held = np.mean([one.low <= 0 <= one.high for one in found])
        assert abs(held - int(rate) / 100) < 3.3 * math.sqrt(held * (1 - held) / 900) + 0.005, (count, held)


def test_a_line_learns_from_other_families_alone() -> None:
    """Against a plain loop over rows."""
    rng = np.random.default_rng(3)
    family, x = np.repeat([0, 1, 2], 6), rng.normal(size=(18, 2))
    y = x[:, 0] + 0.4 * rng.normal(size=18)
    cells = [np.arange(0, 18, 2), np.arange(1, 18, 2)]
    r2, pairs, rows = left_out(x, y, cells, family)
    predicted, gaps = np.empty(18), []
    for one in range(3):
        fit = np.linalg.lstsq(np.c_[np.ones(12), x[family != one]], y[family != one], rcond=None)[0]
        said = np.c_[np.ones(18), x] @ fit
        predicted[family == one] = said[family == one]
        for cell in cells:
            for a in cell:
                for b in cell:
                    if family[a] == one and family[b] != one:
                        gaps.append((y[a] > y[b]) == (said[a] > said[b]))
    centred = y - np.where(np.arange(18) % 2, y[1::2].mean(), y[::2].mean())
    assert r2 == pytest.approx(1 - ((y - predicted) ** 2).sum() / (centred**2).sum())
    assert pairs == pytest.approx(np.mean(gaps)) and rows == 18
    assert math.isnan(left_out(x, y, cells, np.zeros(18, int))[0])


def test_what_is_planted_is_found_and_noise_is_not() -> None:
    found = topo.evaluate(table(1, cells=8, methods=6, seeds=3))
    named = by_name(found)
    assert found.rows == 144 and found.cells == 8 and found.clusters == 4
    assert named["good"]["rho"] > 0.8 and named["good"]["partial"] > 0.7 and named["good"]["partial_low"] > 0
    assert abs(named["none"]["rho"]) < 0.25 and named["none"]["p_holm"] > named["none"]["p"] - 1e-12
    assert named["mean_log_density"]["partial"] is None
    assert named["fixed"]["rho"] is None and named["fixed"]["cells"] == 0
    assert "seed" not in named and any("seed" in note for note in found.notes)
    assert 0 < found.ceiling < 1 and named["good"]["means"] > 0.5
    gains = {tuple(entry["features"]): entry["gain"] for entry in found.to_dict()["left_out"]}
    assert gains[("mean_log_density", "good")] > 0.2 > gains[("mean_log_density", "none")]
    assert gains[("mean_log_density",)] is None


def test_order_of_rows_changes_nothing_and_kinds_of_tables_are_one(tmp_path: Path) -> None:
    rows = table(2)
    first = topo.evaluate(rows)
    shuffled = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    named, other = by_name(first), by_name(topo.evaluate(shuffled))
    assert all(named[name]["rho"] == pytest.approx(other[name]["rho"]) for name in ("good", "none"))
    path = write(tmp_path / "t.csv", rows)
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    lines = tmp_path / "t.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for given in (columns, read_table(path), read_table(packed), read_table(lines)):
        assert topo.evaluate(given).to_json() == first.to_json()


def test_undefined_and_infinite_values_and_one_primary_metric() -> None:
    rows = table(4)
    for row in rows[:3]:
        row["good"] = None
    rows[5]["mean_log_density"] = -math.inf
    found = by_name(topo.evaluate(rows, primary="good"))
    assert found["good"]["undefined"] == 3 and found["good"]["p_holm"] == found["good"]["p"]
    assert found["mean_log_density"]["undefined"] == 0 and found["mean_log_density"]["rho"] is not None


def test_layer_densities_take_away_what_they_explain() -> None:
    rows = table(6, cells=2, methods=6, seeds=4)
    for row in rows:
        row["density:a"] = 10 ** float(row["mean_log_density"])  # type: ignore[arg-type]
        row["density:b"] = 0.1
    found = by_name(topo.evaluate(rows))
    assert found["good"]["partial_components"] == pytest.approx(found["good"]["partial"])  # one component: the baseline
    assert "density:a" not in found


@pytest.mark.parametrize(
    "change, said",
    [
        ({"accuracy": "acuracy"}, "no column 'acuracy' (accuracy), the nearest is 'accuracy'"),
        ({"cell": ("network", "dataset")}, "--cell none"),
        ({"family": "pruner"}, "--family none"),
        ({"baseline": "good_"}, "the nearest is 'good'"),
        ({"accuracy": "method"}, "does not hold numbers"),
        ({"cell": ("network", "data", "density", "method", "seed")}, "the largest of 32 has 1"),
        ({"cell": "network"}, "names of columns in a list"),
        ({"metrics": ["method"]}, "does not hold numbers"),
        ({"metrics": ["god"]}, "the nearest is 'good'"),
        ({"primary": "god"}, "not among the metrics"),
    ],
)
def test_refusals_name_what_is_wrong(change: dict, said: str) -> None:
    with pytest.raises(topo.TopoError) as caught:
        topo.evaluate(table(0), **change)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_rows_without_a_place_are_refused_and_pooling_is_asked_for() -> None:
    rows = table(0)
    pooled = topo.evaluate(rows, cell=None, family=None)
    assert pooled.cells == 1 and pooled.left_out == () and math.isnan(pooled.ceiling)
    rows[3]["density"] = None
    with pytest.raises(topo.TopoError, match="1 of 32 rows have no entry in 'density'"):
        topo.evaluate(rows)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,a\n1,2\n", "a,b\n1\n", "accuracy\n1\n"])
def test_broken_tables_are_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert cli.main(["evaluate", str(path), "--json", "-"]) == 1
    assert capsys.readouterr().err.startswith("topo: ")


def test_the_command_writes_table_json_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t.csv", table(0))
    assert cli.main(["evaluate", str(path), "--plot", str(tmp_path / "f.svg")]) == 0
    page = capsys.readouterr().out
    assert "32 masks in 4 cells" in page and "mean_log_density + good" in page
    assert (tmp_path / "f.svg").stat().st_size > 1000
    assert cli.main(["evaluate", str(path), "--json", "-", "--metrics", "good,none"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["metric"] for entry in document["metrics"]] == ["good", "none"]
    assert set(document) >= {"rows", "cells", "ceiling", "metrics", "left_out"}
    keys = "metric cells rho low high partial partial_low partial_high partial_components p_holm".split()
    assert set(document["metrics"][0]) >= set(keys)
    assert cli.main(["evaluate", str(path), "--family", "none", "--cell", "none", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == []


@pytest.mark.skipif(not MGE.is_file(), reason="the table of the published study is not beside the checkout")
def test_masks_of_a_published_study() -> None:
    """Layer density is the strongest; failures of connection survive its control; little adds out of sample."""
    with MGE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["pruning"] in STATIC]
    found = topo.evaluate(rows, cell=("model", "dataset", "sparsity"), family="pruning")
    named = by_name(found)
    assert (found.rows, found.cells, found.clusters) == (1251, 60, 12)
    assert found.metrics[0]["metric"] == "mld" and found.metrics[0]["rho"] == pytest.approx(0.611, abs=0.001)
    for name in ("r_in", "cut_nodes", "no_connected_components", "source_nodes"):
        assert named[name]["partial_high"] < 0 and named[name]["partial"] < -0.2
    for name in ("r_in", "cut_nodes", "no_connected_components"):
        assert named[name]["partial_p_holm"] < 0.05
    gains = [entry["gain"] for entry in found.to_dict()["left_out"] if entry["gain"] is not None]
    assert 0.04 < max(gains) <= 0.05
    one = next(rows_ for key, rows_ in _cells(rows).items() if Counter(r["pruning"] for r in rows_)["erk"] > 1)
    x = [-math.inf if row["mld"] == "-inf" else float(row["mld"]) for row in one]
    assert spearman(np.array(x), np.array([float(row["accuracy"]) for row in one])) == pytest.approx(
        stats.spearmanr(x, [float(row["accuracy"]) for row in one])[0]
    )


def _cells(rows: list[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["model"], row["dataset"], row["sparsity"]), []).append(row)
    return found


def test_what_evaluates_nothing_is_named() -> None:
    """The outcome is no metric; one family has no ceiling; exact integers beyond floats are told to be level."""
    rows = table(0)
    for name in ("accuracy", "network", "method"):
        with pytest.raises(topo.TopoError, match=f"'{name}'"):
            topo.evaluate(rows, metrics=[name])
    with pytest.raises(topo.TopoError, match="'accuracy' is not a metric here"):
        topo.evaluate(rows, metrics=["good", "accuracy"])
    alone = topo.evaluate([row for row in table(0, methods=2, seeds=8) if row["method"] == "m0"])
    assert alone.cells == 4 and math.isnan(alone.ceiling) and alone.to_dict()["ceiling"] is None
    great = [{**row, "paths": str(10 ** (300 + k))} for k, row in enumerate(rows)]
    assert "paths: 23 entries are infinite, or beyond 1.8e308, and rank as equal" in topo.evaluate(great).notes
