"""The study's page: written by its script from its tables alone, with intervals and differences as scipy has them."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

import topo
from topo.sweep.plan import read_plan

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study", ROOT / "docs" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_script_writes_of_the_tables(study: ModuleType) -> None:
    assert study.PAGE.read_text("utf-8") == study.page(study.read())
    assert sum(path.stat().st_size for path in study.TABLES.iterdir()) < 2_000_000


def test_every_table_holds_all_cells_of_a_sweep_that_is_shipped(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "sweeps")  # beside the network of one
    for name, rows in study.read().items():
        toml = tomllib.loads((ROOT / "sweeps" / f"{name}.toml").read_text("utf-8"))
        assert {row["data"] for row in rows} == {toml["train"]["data"]}
        toml["train"]["data"] = "digits"  # its own data are not on every machine
        planned = [cell.settings for cell in read_plan(toml).cells]
        keys = ("network", "method", "options", "density", "density_effective", "lr", "seed", "null")
        assert Counter(tuple(row.get(key, "") for key in keys) for row in rows) == Counter(
            tuple("" if cell.get(key) is None else str(cell.get(key)) for key in keys) for cell in planned
        ), name


def test_intervals_are_those_of_student(study: ModuleType) -> None:
    numbers = [3.0, 4.5, 2.0, 7.25, 5.0]
    mean, half = study.interval(numbers)
    low, high = stats.t.interval(0.95, 4, np.mean(numbers), stats.sem(numbers))
    assert np.allclose([mean - half, mean + half], [low, high])
    one, other = {"0": 3.0, "1": 5.0, "2": 9.0}, {"1": 4.0, "2": 7.0, "3": 1.0}
    assert study.paired(one, other) == study.interval([1.0, 2.0])
    assert [study.verdict(found) for found in ((2.0, 1.0), (-2.0, 1.0), (1.0, 2.0))] == [1, -1, 0]
    assert study.counted([1, -1, 0, 1]) == "above in 2, below in 1, open in 1 of 4 cells"


def test_options_are_chosen_by_their_mean_over_the_sets_of_the_choice(study: ModuleType) -> None:
    """By hand: 8 wins on one set, 16 on the mean; other methods, nulls and sets do not count."""
    basic = {"method": "balance", "density": "0.1", "density_effective": "", "accuracy": "0.9", "null": ""}

    def rows(data: str, network: str, accuracies: dict[int, list[float]]) -> list[dict[str, str]]:
        return [
            basic
            | {"data": data, "network": network, "options": json.dumps({"floor": floor}), "seed": str(seed),
               "val_accuracy": str(value)}
            for floor, held in accuracies.items() for seed, value in enumerate(held)
        ]  # fmt: skip

    tables = {
        "one": rows("mnist1d", "mnist1d_mlp", {8: [0.60, 0.62], 16: [0.59, 0.61], 4: [0.99, 0.99]}),
        "two": rows("digits", "digits_conv", {8: [0.70, 0.72], 16: [0.76, 0.74]}),  # none of 4: it is not chosen
        "three": rows("chars", "chars_mlp", {8: [0.99, 0.99], 16: [0.1, 0.1]}),
        "four": rows("digits", "residual.py:net", {8: [0.99, 0.99], 16: [0.1, 0.1]}),
    }
    tables["one"] += [{**row, "null": "same_layers", "val_accuracy": "1.0"} for row in tables["one"][:2]]
    tables["one"].append(
        {
            **basic,
            "data": "mnist1d",
            "network": "mnist1d_mlp",
            "method": "erk",
            "options": "",
            "seed": "0",
            "val_accuracy": "1",
        }
    )
    best, text = study.chosen(tables)
    assert best == "balance 16"
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[2:] == [
        ["balance 16", "60.0", "75.0", "67.5", ""],
        ["balance 8", "61.0", "71.0", "66.0", study.said(study.interval([-1.0, -1.0, 6.0, 2.0]), sign=True)],
    ]


def test_tables_are_packed_with_what_failed(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TABLES", tmp_path / "study")
    toml = {
        "sweep": {"model": "mlp:64-32-10", "seeds": "0-1"},
        "grid": {"method": ["erk"], "density": 0.1},
        "method": {"balance": {"min_fan_in": [1, 60]}},
    }
    toml["grid"]["method"].append("balance")
    results = topo.sweep(toml, tmp_path / "tiny")
    assert len(results.failures) == 2
    (tmp_path / "tiny" / "results.csv").write_text(_with_accuracy((tmp_path / "tiny" / "results.csv").read_text()))
    study.pack(tmp_path / "tiny")
    first = (tmp_path / "study" / "tiny.csv.gz").read_bytes()
    study.pack(tmp_path / "tiny")
    assert (tmp_path / "study" / "tiny.csv.gz").read_bytes() == first
    rows = study.read()["tiny"]
    assert len(rows) == 6 and len(study.whole(rows)) == 4
    kinds = {study.kind(row) for row in rows}
    assert kinds == {"erk", "balance 1", "balance 60"}
    assert {json.loads(row["options"])["min_fan_in"] for row in rows if not row["accuracy"]} == {60}


def _with_accuracy(text: str) -> str:
    """The table of a sweep that trained nothing, with accuracies."""
    header, *lines = text.splitlines()
    return "\n".join([f"{header},accuracy", *(f"{line},0.5" for line in lines)]) + "\n"


def test_doses_and_kept_nodes_are_counted_from_the_rows(study: ModuleType) -> None:
    """By hand: the dose that raises sigma2 by 2 costs 10 points; the chosen options keep fewer nodes and are ahead."""
    basic = {"data": "d", "network": "n.py:net", "density": "0.1", "density_effective": "", "null": ""}
    basic |= {"effective_params": "50"}
    rows = [
        basic | {"method": "clustered", "options": json.dumps({"excess": dose}), "seed": str(seed),
                 "sigma2": str(2 + 2 * dose),
                 "accuracy": str(0.5 - 0.1 * dose + 0.01 * seed)}
        for dose in (0.0, 1.0) for seed in range(3)
    ]  # fmt: skip
    text, sentence = study.turned(rows, "sigma2")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert [line[:3] for line in lines[2:]] == [["0", "2.00", "50"], ["1", "4.00", "50"]]
    assert (
        lines[2][3].startswith("51.0 ±")
        and lines[3][3].startswith("41.0 ±")
        and "below in 1, open in 0 of 1" in sentence
    )
    made = {"balance": ("20", 0.6), "npb": ("30", 0.5), "erk": ("40", 0.4)}
    rows = [
        basic | {"method": name, "options": "", "seed": str(seed), "effective_nodes": nodes,
                 "accuracy": str(accuracy + 0.001 * seed)}
        for name, (nodes, accuracy) in made.items() for seed in range(3)
    ]  # fmt: skip
    text, sentence = study.nodes({"n": rows}, "balance")
    assert text.splitlines()[-1] == "| n | 10 % | 20 | 30 | 40 |"
    assert "in 1 of 1 cells" in sentence and "above in 1, below in 0" in sentence


def test_a_part_that_is_run_later_joins_the_cells_that_are_there(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "TABLES", tmp_path / "study")

    def packed(method: str, accuracy: str) -> list[dict[str, str]]:
        folder = tmp_path / method / "some"
        folder.mkdir(parents=True, exist_ok=True)
        settings = "mnist1d_mlp,mnist1d,{},,0.1,,0,,0".format
        header = "network,data,method,options,density,density_effective,seed,null,train_seed,accuracy,seconds\n"
        (folder / "results.csv").write_text(f"{header}{settings(method)},{accuracy},1\n")
        (folder / "failures.csv").write_text("id,error\n")
        study.pack(folder)
        return study.read()["some"]

    assert [row["method"] for row in packed("erk", "0.5")] == ["erk"]
    assert [row["method"] for row in packed("dpai", "0.6")] == ["erk", "dpai"]
    assert [(row["method"], row["accuracy"]) for row in packed("erk", "0.7")] == [("dpai", "0.6"), ("erk", "0.7")]


def _made(accuracies: dict[str, float], **more: str) -> list[dict[str, str]]:
    basic = {"data": "d", "network": "n", "options": "", "density": "0.02", "density_effective": "", "null": ""} | more
    return [
        basic | {"method": name, "seed": str(seed), "accuracy": str(accuracy + 0.001 * seed)}
        for name, accuracy in accuracies.items() for seed in range(3)
    ]  # fmt: skip


def test_the_goal_is_met_where_every_rival_is_behind(study: ModuleType) -> None:
    """By hand: ahead of all at 2 %, behind npb at 1 %; a table that lacks a rival does not count."""
    rivals = dict.fromkeys(study.GOAL[0], 0.4)
    rows = _made({**rivals, "balance": 0.5}) + _made({**rivals, "npb": 0.6, "balance": 0.5}, density="0.01")
    said = study.goal({"one": rows, "two": _made({"erk": 0.1, "balance": 0.5})}, "balance")
    assert "in 1 of the 3 cells where all of these were run: n at 2 %." in said
    assert "n at 1 % (against npb), n at 0.5 % (against erk, npb, dpai, synflow, phew)." in said


def test_the_questions_aside_are_answered_from_their_rows(study: ModuleType) -> None:
    rows = _made({"erk": 0.3, "balance": 0.5}, lr="0.1") + _made({"erk": 0.6, "balance": 0.5}, lr="0.2")
    _, text, said = study.learning_rates(rows)
    assert text.splitlines()[0] == "| masks | 2 %, lr 0.1 | 2 %, lr 0.2 |"
    assert "at the same rate is above in 1, below in 1, open in 0 of 2 cells" in said
    assert "each at its own best rate, chosen on the test data, above in 0, below in 1, open in 0 of 1 cells" in said
    rows = _made({"snip": 0.5}) + _made({"snip": 0.5}, null="relabelled") + _made({"snip": 0.2}, null="invert")
    _, _, said = study.controls(rows)
    assert f"{study.CONTROLS['invert']}: above in 0, below in 1, open in 0 of 1 cells" in said
    rows = _made({"dense": 0.9}, density="1.0") + _made({"balance": 0.5, "imp": 0.6, "rigl": 0.4, "set": 0.4})
    _, text, said = study.trained_masks(rows)
    assert "imp above in 1, below in 0" in said and "set above in 0, below in 1" in said
    assert "| dense | **90.1 ± 0.2** |  |" in text
