"""topo sweep: the plan, cells that are done once, tables that do not depend on who made them, and deaths."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import topo
from topo import cli
from topo.errors import TopoError
from topo.evidence import read_table
from topo.generate import methods
from topo.sweep import engines, read_plan
from topo.sweep.cell import carry_out
from topo.sweep.plan import batches
from topo.train.recipe import find_recipe

ROOT = Path(__file__).parents[1]
NET = "mlp:64-12-10"
POISON = """
import os, signal
from torch import nn

def net():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def tables(**changes: dict) -> dict:
    """A sweep of eight masks; changes by table."""
    basic = {"sweep": {"model": NET, "seeds": "0-1"}, "grid": {"method": ["erk", "balance"], "density": [0.5, 0.25]}}
    return {name: {**basic.get(name, {}), **changes.get(name, {})} for name in {**basic, **changes}}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_a_plan_is_every_combination_in_order() -> None:
    plan = read_plan(
        tables(
            sweep={"model": [NET, "lenet300"]},
            method={"balance": {"degree_floor": [4, 8]}},
            nulls={"kinds": ["same_layers", "reinit"]},
            train={"data": "digits", "seeds": [3, 4]},
        )
    )
    counts = Counter((c.settings["network"], c.settings["method"], c.settings["null"]) for c in plan.cells)
    assert counts[NET, "erk", ""] == 2 * 2 * 2 and counts["lenet300", "balance", "reinit"] == 2 * 2 * 2 * 2
    assert len({cell.id for cell in plan.cells}) == len(plan.cells) == 2 * 3 * (8 + 16)
    first = plan.cells[0].settings
    assert (first["data"], first["density"], first["seed"], first["train_seed"]) == ("digits", 0.5, 0, 3)
    shards = [cell.id for part in ("1/3", "2/3", "3/3") for cell in plan.chosen(shard=part)]
    assert sorted(shards) == sorted(cell.id for cell in plan.cells)
    only = plan.chosen(["method=erk", "seed=1", "null="])
    assert len(only) == 2 * 2 * 2 and {cell.settings["seed"] for cell in only} == {1}
    left = read_plan(tables(exclude={"where": [{"method": "erk", "density": 0.25}, {"seed": 1}]}))
    assert [(c.settings["method"], c.settings["density"]) for c in left.cells] == [
        ("erk", 0.5), ("balance", 0.5), ("balance", 0.25)]  # fmt: skip


def test_ids_follow_what_a_cell_depends_on(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef net():\n    return nn.Linear(4, 2)\n")
    toml = tmp_path / "s.toml"
    text = '[sweep]\nmodel = "net.py:net"\ninput = "4"\n[grid]\nmethod = "erk"\ndensity = 0.5\n'
    toml.write_text(text)
    ids = [read_plan(toml).cells[0].id]
    file.write_text(file.read_text() + "# changed\n")
    ids.append(read_plan(toml).cells[0].id)
    toml.write_text(text + '[analyze]\nmetrics = "kept"\n')
    ids.append(read_plan(toml).cells[0].id)
    toml.write_text(text.replace("0.5", "0.25"))
    ids.append(read_plan(toml).cells[0].id)
    assert len(set(ids)) == 4
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in (file, toml):
        (other / path.name).write_text(path.read_text())
    assert read_plan(other / "s.toml").cells[0].id == ids[-1]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"sweeep": {}}, "'sweeep', which it does not know; the nearest is 'sweep'"),
        ({"grid": {"densty": 1}}, "the nearest is 'density'"),
        ({"sweep": {"sed": 1}}, "the nearest is 'seeds'"),
        ({"sweep": {"model": "resnet21"}}, "no model is called 'resnet21'"),
        ({"sweep": {"model": "gone.py:net"}}, "no file 'gone.py'"),
        ({"sweep": {"seeds": "4-1"}}, "seeds is '4-1'"),
        ({"sweep": {"seeds": [-1]}}, "seeds is [-1]"),
        ({"grid": {"method": "synflw"}}, "the nearest is 'synflow'"),
        ({"grid": {"density": [2]}}, "density holds 2"),
        ({"grid": {"density": [0.5, 0.5]}}, "a cell twice: network mlp:64-12-10, method erk, density 0.5, seed 0"),
        ({"method": {"balance": {"degre_floor": 4}}}, "the nearest is 'degree_floor'"),
        ({"method": {"snip": {}}}, "[grid] does not name"),
        ({"nulls": {"kinds": ["same_layer"]}}, "the nearest is 'same_layers'"),
        ({"nulls": {"kinds": ["reinit"]}}, "needs [train]"),
        ({"train": {"data": "digit"}}, "the nearest is 'digits'"),
        ({"train": {"data": "digits", "recipe": "quik"}}, "quik"),
        ({"train": {"data": "digits", "epoch": 3}}, "the nearest is 'epochs'"),
        ({"train": {"data": "digits", "options": {"lrr": 3}}}, "lrr"),
        ({"train": {"data": "digits", "options": {"lr": []}}}, "'lr' in [train.options] holds no value"),
        ({"train": {"data": "digits", "options": {"lr": [0.1, "x"]}}}, "lr"),
        ({"train": {"data": "digits", "options": {"density": [0.1, 0.2]}}}, "its column is another's"),
        ({"train": {"data": "digits", "options": {"sparse": ["static", "rigl"]}}}, 'in [grid], as in method = "rigl"'),
        ({"grid": {"method": ["imp"]}}, "the method 'imp' trains: it needs [train]"),
        ({"grid": {"method": "rigll"}}, "the nearest is 'rigl'"),
        (
            {"grid": {"method": "rigl"}, "method": {"rigl": {"alfa": 1}}, "train": {"data": "digits"}},
            "the nearest is 'alpha'",
        ),
        (
            {"grid": {"method": "imp", "quota": "igq"}, "train": {"data": "digits"}},
            "'imp' ranks all layers together: it takes no quota",
        ),
        (
            {
                "sweep": {"model": NET},
                "grid": {"method": ["set"], "density_effective": 0.1},
                "train": {"data": "digits"},
            },
            "'set' trains",
        ),
        ({"nulls": {"kinds": ["inverted"]}}, "the nearest is 'invert'"),
        ({"train": {"data": "digits", "epochs": 3, "options": {"epochs": [1, 2]}}}, "epochs stands in [train] and in"),
        *(
            ({"grid": {"method": name}, "method": {name: options}, "train": {"data": "digits"}}, f"[method.{name}] ")
            for name, options in (
                ("imp", {"fraction": [0.2, 7.0]}),
                ("imp", {"rewind": "bananas"}),
                ("imp", {"rewind_epoch": 10**6}),
                ("imp", {"ties": 3}),
                ("rigl", {"alpha": [0.3, "x"]}),
                ("set", {"update_every": -1}),
            )
        ),
        ({"sweep": {"model": []}}, "model holds no value"),
        ({"sweep": {"input": 64}}, "input is 64"),
        ({"grid": {"method": []}}, "method holds no value"),
        ({"grid": {"density": []}}, "density holds no value"),
        ({"grid": {"quota": []}}, "quota holds no value"),
        ({"method": {"balance": {"degree_floor": []}}}, "degree_floor holds no value in [method.balance]"),
        ({"method": {"balance": {"density": []}}}, "density holds no value"),
        ({"grid": {"method": ["erk", "snip"]}}, "the method 'snip' looks at data: name a data set in [train]"),
        ({"grid": {"method": ["erk", "repair"]}}, "the method 'repair' starts from masks"),
        (
            {"grid": {"method": "set"}, "method": {"set": {"start": ["erk", "erkk"]}}, "train": {"data": "digits"}},
            "no method is called 'erkk', start of 'set'; the nearest is 'erk'",
        ),
        ({"files": {"path": "gone/{seed}.pt"}}, "no file 'gone/{seed}.pt'"),
        ({"files": {"path": "../tes*/{seed}.gone"}}, "no file '../tes*/{seed}.gone'"),
        ({"grid": {"sparsity": 0.5}}, "'erk' is given a density and a sparsity"),
        ({"grid": {"quota": "erkk"}}, "no quota is called 'erkk'; the nearest is 'erk'"),
        ({"analyze": {"metrics": "pathz"}}, "did you mean 'paths'"),
        ({"analyze": {"view": "chan"}}, "view is 'chan'"),
        ({"exclude": {"where": [{"metod": "erk"}]}}, "the nearest is 'method'"),
        ({"exclude": {"where": [{"method": "erk"}, {"method": "balance"}]}}, "leaves none"),
    ],
)
def test_what_a_sweep_does_not_hold_is_named(change: dict, said: str) -> None:
    with pytest.raises(topo.TopoError) as caught:
        read_plan(tables(**change))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_field_of_files_is_no_key_of_the_recipe_too(tmp_path: Path) -> None:
    for lr in ("0.5", "0.7"):
        topo.write_masks(topo.generate("erk", NET, density=0.5), tmp_path / f"lr{lr}.npz")
    given = {"sweep": {"model": NET}, "files": {"path": str(tmp_path / "lr{lr}.npz")}, "train": {"data": "digits"}}
    assert [cell.settings["lr"] for cell in read_plan(given).cells] == [0.5, 0.7]
    with pytest.raises(topo.TopoError, match=r"'lr' is a field of \[\[files\]\] and has several values"):
        read_plan(given | {"train": {"data": "digits", "options": {"lr": [0.1, 0.01]}}})


def test_cells_are_what_the_single_commands_make_and_are_made_once(tmp_path: Path) -> None:
    given = tables(nulls={"kinds": ["same_layers"]}, analyze={"metrics": "paths,kept"})
    results = topo.sweep(given, tmp_path / "a")
    assert len(results.rows) == 16 and not results.failures and not results.left
    row = next(r for r in results.rows if (r["method"], r["density"], r["seed"], r["null"]) == ("erk", 0.25, 1, ""))
    wiring = topo.networks.find_wiring(NET)
    masks = topo.generate("erk", wiring, density=0.25, rng=1)
    assert topo.read_masks(tmp_path / "a" / "masks" / f"{row['id']}.safetensors") == masks
    report = topo.analyze(masks, wiring, metrics=["paths", "kept", "mean_log_density"])
    assert row["kept"] == masks.kept and row["log10_effective_paths"] == report.network["log10_effective_paths"]
    null = results.rows[results.rows.index(row) + 1]
    drawn = topo.read_masks(tmp_path / "a" / "masks" / f"{null['id']}.safetensors")
    assert null["null"] == "same_layers" and drawn != masks and null["kept"] == row["kept"]
    # another run gives the same bytes, but for the seconds
    topo.sweep(given, tmp_path / "b", shard="2/2")
    topo.sweep(given, tmp_path / "b", resume=True)
    for name in ("plan.csv", "layers.csv", "summary.csv", "failures.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert rows(tmp_path / "a" / "results.csv") == rows(tmp_path / "b" / "results.csv")
    assert [r["id"] for r in rows(tmp_path / "a" / "results.csv")] == [c.id for c in read_plan(given).cells]
    # what is done is left, what lacks a file is made again
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a" / "cells").iterdir()}
    (tmp_path / "a" / "masks" / f"{row['id']}.safetensors").unlink()
    (tmp_path / "a" / "cells" / f"{null['id']}.json").write_text("{")
    topo.sweep(given, tmp_path / "a", resume=True)
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a" / "cells").iterdir()}
    assert {name for name in kept if kept[name] != again[name]} == {f"{row['id']}.json", f"{null['id']}.json"}
    # more seeds add cells
    more = topo.sweep(given | {"sweep": {"model": NET, "seeds": "0-2"}}, tmp_path / "a", resume=True)
    assert len(more.rows) == 24


def test_folders_of_others_are_refused_and_left(tmp_path: Path) -> None:
    given = tables(grid={"method": "erk"}, analyze={"metrics": "kept"})
    out = tmp_path / "r"
    topo.sweep(given, out)
    before = (out / "results.csv").read_bytes()
    with pytest.raises(topo.TopoError, match="holds files already; --resume"):
        topo.sweep(given, out)
    with pytest.raises(topo.TopoError, match="another sweep"):
        topo.sweep(tables(grid={"method": "uniform"}), out, resume=True)
    held = json.loads((out / "sweep.json").read_text())
    (out / "sweep.json").write_text(json.dumps(held | {"code": "0.0.9"}))
    with pytest.raises(topo.TopoError, match=r"was made by topo 0\.0\.9"):
        topo.sweep(given, out, resume=True)
    assert (out / "results.csv").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("mine")
    with pytest.raises(topo.TopoError, match="not the folder of a sweep"):
        topo.sweep(given, tmp_path / "other", resume=True)
    with pytest.raises(topo.TopoError, match="shard is '3/2'"):
        topo.sweep(given, tmp_path / "new", shard="3/2")
    assert not (tmp_path / "new").exists()


def test_masks_of_files_and_a_cell_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        masks = topo.generate("erk", NET, density=0.5, rng=seed)
        topo.write_masks(masks, tmp_path / f"mine_d0.5_s{seed}.safetensors")
    (tmp_path / "mine_d0.5_s2.safetensors").write_bytes(b"nothing")
    toml = tmp_path / "s.toml"
    toml.write_text(
        f'[sweep]\nmodel = "{NET}"\n[[files]]\npath = "{{method}}_d{{density}}_s{{seed}}.safetensors"\n'
        '[analyze]\nmetrics = "kept"\n'
    )
    out = tmp_path / "r"
    assert cli.main(["sweep", str(toml), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert "2 cells done, 1 failed, 0 left of 3" in said.out and "mine_d0.5_s2.safetensors" in said.err
    assert [(r["method"], r["density"], r["seed"]) for r in rows(out / "results.csv")] == [
        ("mine", "0.5", "0"), ("mine", "0.5", "1")]  # fmt: skip
    assert [r["state"] for r in rows(out / "plan.csv")] == ["done", "done", "failed"]
    assert len(rows(out / "failures.csv")) == 1
    topo.write_masks(masks, tmp_path / "mine_d0.5_s2.safetensors")  # mended: another cell, and the old one is orphaned
    assert cli.main(["sweep", str(toml), "-o", str(out), "--resume", "--quiet"]) == 0
    assert len(rows(out / "results.csv")) == 3 and rows(out / "failures.csv") == []


def test_every_cell_is_on_the_page(tmp_path: Path) -> None:
    results = topo.sweep(tables(), tmp_path / "r")
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    for row in results.rows:
        assert f">{row['id']}</a>" in page and f'data-v="{row["log10_effective_paths"]!r}"' in page
        assert f">{row['method']}</td>" in page


def test_without_pyarrow_a_parquet_table_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TopoError, match=r"'r\.parquet' needs pyarrow: pip install"):
        read_table("r.parquet")


def test_results_are_a_parquet_table_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet table is written")
    results = topo.sweep(tables(), tmp_path / "r")
    table = read_table(tmp_path / "r" / "results.parquet")
    names = {name: [row.get(name) for row in results.rows] for name in table.columns}
    assert set(names) == {name for row in results.rows for name in row}
    for name, values in names.items():
        assert table.columns[name] == tuple("" if value in (None, "") else str(value) for value in values), name
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(TopoError, match="is not a Parquet table"):
        read_table(tmp_path / "no.parquet")


def test_equal_effective_density_is_met(tmp_path: Path) -> None:
    grid = {"method": "erk", "density_effective": [0.05, 0.02]}
    whole = topo.sweep(
        {"sweep": {"model": NET}, "grid": {"method": "erk", "density_effective": 1.0}}, tmp_path / "whole"
    )
    assert whole.rows[0]["density_kept"] == 1
    given = {"sweep": {"model": "mlp:64-60-60-10"}, "grid": grid, "analyze": {"metrics": "paths"}}
    found = topo.sweep(given, tmp_path / "r")
    size = 64 * 60 + 60 * 60 + 60 * 10
    for row in found.rows:
        goal = round(row["density_effective"] * size)
        assert abs(row["effective_params"] - goal) <= max(1, goal // 1000) and row["kept"] > row["effective_params"]
        assert row["density"] == row["density_effective"] < row["density_kept"]


def test_every_method_is_made_in_a_cell_or_refused_by_the_plan() -> None:
    """Each that needs no masks and no file: with the budget that it keeps, from a model where it reads weights."""
    short = {"edge_popup": {"epochs": 1}, "gem_miner": {"epochs": 2, "every": 1}, "escalate": {"basis": 1},
             "px": {"rounds": 1}, "ntk_sap": {"rounds": 1}, "ramanujan": {"otherwise": "biregular"},
             "dpai": {"steps": 2}}  # fmt: skip
    wanted = [name for name, entry in methods().items() if entry.needs != "masks" and name != "autosparse"]
    given = {
        "sweep": {"model": "mlp:64-8-10"}, "grid": {"method": wanted, "density": 0.5}, "analyze": {"metrics": "kept"},
        "method": short, "train": {"data": "digits"},
    }  # fmt: skip
    cells = [replace(cell, work={**cell.work, "recipe": None}) for cell in read_plan(given).cells]
    found = {cell.settings["method"]: outcome for cell, outcome in zip(cells, carry_out(cells))}
    assert {name: one.error for name, one in found.items() if one.error is not None} == {}
    assert {name for name, one in found.items() if one.row["kept"] != 296} <= {"radix", "ramanujan", "escalate"}


def test_the_plan_is_shown_without_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = tmp_path / "s.toml"
    grid = '[grid]\nmethod = ["erk", "uniform", "npb"]\ndensity = 0.1\n'
    toml.write_text(f'[sweep]\nmodel = "{NET}"\nseeds = "0-99"\n{grid}')
    assert cli.main(["sweep", str(toml), "--dry-run", "-o", str(tmp_path / "r")]) == 0
    assert "300 cells of 300, not trained; 0 done" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()
    assert cli.main(["sweep", str(toml)]) == 2 and "-o names the folder" in capsys.readouterr().err
    assert cli.main(["sweep", str(toml), "--dry-run", "--only", "sed=1"]) == 1
    assert "the nearest is 'seed'" in capsys.readouterr().err


def test_the_time_left_is_that_of_cells_of_the_same_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml, out = tmp_path / "s.toml", tmp_path / "r"
    grid = '[grid]\nmethod = ["erk", "balance", "uniform"]\ndensity = [0.5, 0.25]\n'
    toml.write_text(f'[sweep]\nmodel = "{NET}"\nseeds = "0-2"\n{grid}')
    cells = read_plan(toml).cells
    out.mkdir()
    lines = [f"{cell.id},{ {'erk': 1, 'balance': 10}[cell.settings['method']] }\n"
             for cell in cells if cell.settings["method"] != "uniform" and cell.settings["seed"]]  # fmt: skip
    (out / "results.csv").write_text("id,seconds\n" + "".join(lines))
    assert cli.main(["sweep", str(toml), "--dry-run", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "18 cells of 18, not trained; 8 done" in said
    assert "about 55 s left" in said  # 2 of 1 s, 2 of 10 s; 6 of a method that none is done of: of 5.5 s, the median


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_plans(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are shown without their data, too, which are named; only those of one come from elsewhere."""
    plan = read_plan(path, shown=True)
    assert all(cell.work["recipe"] for cell in plan.cells) and len({c.settings["seed"] for c in plan.cells}) >= 5
    assert cli.main(["sweep", str(path), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(plan.cells)} cells of {len(plan.cells)}, trained on" in said and plan.lacks in said
    assert ("cannot be carried out" in said) == bool(plan.lacks)
    if plan.lacks:
        assert path.stem == "cifar10_resnet20"
        with pytest.raises(TopoError, match="there is no data set 'cifar-10-batches-py'"):
            read_plan(path)


@pytest.mark.slow
def test_a_plan_of_methods_by_shapes_is_read_without_torch_and_scipy(tmp_path: Path) -> None:
    toml = tmp_path / "s.toml"
    grid = '[grid]\nmethod = ["dense", "erk", "npb", "balance"]\ndensity = 0.1\n'
    toml.write_text(f'[sweep]\nmodel = "{NET}"\nseeds = "0-99"\n{grid}[train]\ndata = "digits"\n')
    code = "import sys; from topo.cli import main; main(sys.argv[1:]); print({*sys.modules} & {'torch', 'scipy.stats'})"
    argv = [sys.executable, "-c", code, "sweep", str(toml), "--dry-run"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "400 cells of 400" in told and told.endswith("set()\n")


TRAINED = {
    "sweep": {"model": NET, "seeds": "0-1"},
    "grid": {"method": "erk", "density": [0.5]},
    "train": {"data": "digits", "epochs": 1},
    "analyze": {"metrics": "kept"},
}


def carried_out(given: dict, folder: Path) -> list[tuple[dict, topo.MaskSet, Path]]:
    """The cells of a plan: each one's settings with what came of it, its mask and its folder of the run."""
    cells, found = read_plan(given).cells, []
    for cell, outcome in zip(cells, carry_out(cells)):
        assert outcome.error is None
        for name, data in outcome.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        masks = topo.read_masks(folder / "masks" / f"{cell.id}.safetensors")
        found.append(({**cell.settings, **outcome.row}, masks, folder / "runs" / cell.id))
    return found


def test_every_kind_of_a_mask_trains_beside_it_at_every_rate(tmp_path: Path) -> None:
    """Each is what the single commands make of the mask, and is trained with the rate that its row names."""
    kinds = ["same_effective", "relabelled", "invert", "reinit"]
    given = {
        "sweep": {"model": NET}, "grid": {"method": "erk", "density": 0.2}, "nulls": {"kinds": kinds},
        "train": {"data": "digits", "epochs": 1, "options": {"lr": [0.1, 0.02]}}, "analyze": {"metrics": "kept"},
        "exclude": {"where": [{"lr": 0.02, "null": "reinit"}]},
    }  # fmt: skip
    found = carried_out(given, tmp_path)
    assert [(row["lr"], row["null"]) for row, _, _ in found] == [
        *((0.1, kind) for kind in ("", *kinds)), *((0.02, kind) for kind in ("", *kinds[:-1]))]  # fmt: skip
    wiring = topo.networks.find_wiring(NET)
    masks = topo.generate("erk", wiring, density=0.2, rng=0)
    made = {"": masks, "reinit": masks, "invert": topo.generate("invert", wiring, source=masks, rng=0)}
    made |= {kind: topo.nulls.nulls[kind](masks, 0, wiring) for kind in ("same_effective", "relabelled")}
    for row, held, run in found:
        assert held == made[row["null"]]
        config = tomllib.loads((run / "config.toml").read_text())["recipe"]
        assert config["lr"] == row["lr"] and (config["init"] == "kaiming_normal") == (row["null"] == "reinit")
    assert len({row["loss"] for row, _, _ in found}) == len(found)
    assert not any((masks[name] & made["invert"][name]).any() for name in masks)
    cells = read_plan({**given, "train": {**given["train"], "at_once": 9}}).cells
    assert [len(batch) for batch in batches(cells, 1)] == [4, 1, 4]  # never two rates in one batch


def test_masks_that_training_makes_are_rows(tmp_path: Path) -> None:
    """imp: its last level over again. rigl: the masks at the end, with the run that moved them; nulls stand still."""
    given = {
        "sweep": {"model": NET}, "grid": {"method": ["imp", "rigl"], "density": 0.3}, "analyze": {"metrics": "kept"},
        "method": {"imp": {"fraction": 0.5}, "rigl": {"start": "uniform", "update_every": 5}},
        "nulls": {"kinds": ["reinit"]}, "train": {"data": "digits", "epochs": 1},
    }  # fmt: skip
    found = carried_out(given, tmp_path)
    names = [("imp", ""), ("imp", "reinit"), ("rigl", ""), ("rigl", "reinit")]
    assert [(row["method"], row["null"]) for row, _, _ in found] == names
    accuracies, held = [row["accuracy"] for row, _, _ in found], [masks for _, masks, _ in found]
    tickets = topo.imp(NET, "digits", density=0.3, fraction=0.5, epochs=1, rng=0, threads=1)
    assert held[0] == held[1] == tickets.masks
    assert accuracies[0] == tickets.levels[-1].final_accuracy != accuracies[1]
    start = topo.generate("uniform", NET, density=0.3, rng=0)
    moving = find_recipe("quick").changed(sparse="rigl", update_every=5).for_epochs(1)
    run = topo.train(NET, "digits", masks=start, recipe=moving, rng=0, threads=1)
    assert held[2] == held[3] == run.masks != start and held[2].kept == start.kept
    assert accuracies[2] == run.final_accuracy != accuracies[3]
    assert json.loads((found[2][2] / "summary.json").read_text())["final_test_accuracy"] == accuracies[2]


@pytest.mark.slow
def test_engines_give_the_same_tables_and_survive_a_poison_cell(tmp_path: Path) -> None:
    """The poisonous network kills the process that builds it; the sweep itself never builds one.

    It comes last, so that it dies in a process that is there already: each costs seconds of imports.
    """
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    (tmp_path / "poison.py").write_text(POISON)
    given = {**TRAINED, "sweep": {"model": [NET, f"{tmp_path}/poison.py:net"], "seeds": "0-1", "input": "64"}}
    given["exclude"] = {"where": [{"network": f"{tmp_path}/poison.py:net", "seed": 1}]}
    found = {}
    for engine, workers in (("local", 1), ("dask", 2)):
        found[engine] = topo.sweep(given, tmp_path / engine, engine=engine, workers=workers)
        assert len(found[engine].rows) == 2 and len(found[engine].failures) == 1
        assert "died twice" in next(iter(found[engine].failures.values()))
    for name in ("plan.csv", "layers.csv", "failures.csv"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "dask" / name).read_bytes(), name
    assert rows(tmp_path / "local" / "results.csv") == rows(tmp_path / "dask" / "results.csv")
    row = found["local"].rows[0]
    run = topo.train(NET, "digits", masks=topo.generate("erk", NET, density=0.5, rng=0), epochs=1, rng=0, threads=1)
    assert row["accuracy"] == run.final_accuracy
    summary = json.loads((tmp_path / "local" / "runs" / row["id"] / "summary.json").read_text())
    assert summary["final_test_accuracy"] == row["accuracy"]


def test_a_process_that_dies_gives_back_what_others_had_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes: one dies while the other works, whose batch comes back undone; what waited is carried out."""
    (tmp_path / "deadly.py").write_text(
        "import os, signal, threading\ndef carry_out(batch):\n"
        "    if 'poison' in batch:\n        threading.Event().wait(0.5)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n    threading.Event().wait(600 if 'slow' in batch else 0)\n"
        "    return [cell.upper() for cell in batch]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(engines, "carry_out", importlib.import_module("deadly").carry_out)
    given = [["poison"], ["slow"], ["one", "two"], ["three"]]
    found = dict(engines.Processes(2).outcomes(given))
    assert found == {"poison": None, "slow": None, "one": "ONE", "two": "TWO", "three": "THREE"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_killed_command_goes_on_where_it_was(tmp_path: Path, engine: str) -> None:
    """Whichever engine carried it out, any other goes on."""
    if engine == "dask":
        pytest.importorskip("distributed", reason="dask.distributed is not installed")
    toml = tmp_path / "s.toml"
    toml.write_text(f'[sweep]\nmodel = "{NET}"\nseeds = "0-59"\n[grid]\nmethod = ["balance"]\ndensity = [0.5]\n')
    out = tmp_path / "r"
    told = "progress=lambda *where: print('a cell', flush=True)"
    code = f"import topo; topo.sweep({str(toml)!r}, {str(out)!r}, engine={engine!r}, workers=2, {told})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "a cell\n"
        os.kill(running.pid, signal.SIGKILL)
    done = {path.name: path.read_bytes() for path in (out / "cells").glob("*.json")}
    assert 1 <= len(done)
    assert cli.main(["sweep", str(toml), "-o", str(out), "--quiet", "--resume"]) == 0
    assert len(rows(out / "results.csv")) == 60
    assert all((out / "cells" / name).read_bytes() == data for name, data in done.items())


def test_masks_that_train_side_by_side_have_the_numbers_of_any_batch(tmp_path: Path) -> None:
    """As alone to rounding; and the same to the bit whatever trains beside them."""
    given = {**TRAINED, "grid": {"method": ["erk", "dense"], "density": 0.5}}
    alone = carry_out(read_plan(given).cells)
    given["train"] = {**given["train"], "at_once": 4}
    cells = read_plan(given).cells
    found = topo.sweep(given, tmp_path, workers=1).rows
    assert [row["id"] for row in found] == [cell.id for cell in cells] and len(found) == len(alone) == 4
    for one, other in zip(found, alone):
        assert one["loss"] == pytest.approx(other.row["loss"], rel=1e-3) and one["accuracy"] > 0.2
    for part in (cells[1:3], cells[3:]):
        for cell, again in zip(part, carry_out(part)):
            whole = next(row for row in found if row["id"] == cell.id)
            assert {key: whole[key] for key in again.row if key != "seconds"} == {
                key: value for key, value in again.row.items() if key != "seconds"
            }
    wider = read_plan({**given, "train": {**given["train"], "at_once": 3}}).cells
    assert [cell.id for cell in wider] == [cell.id for cell in cells] != [cell.id for cell in read_plan(TRAINED).cells]
    assert [len(batch) for batch in batches(wider, 1)] == [3, 1] and [len(batch) for batch in batches(cells, 2)] == [
        2,
        2,
    ]
    assert json.loads((tmp_path / "runs" / cells[0].id / "summary.json").read_text())["final_epoch"] == 1


def test_evaluate_reads_the_folder_of_a_sweep(tmp_path: Path) -> None:
    given = tables(sweep={"seeds": "0-2"}, grid={"method": ["erk", "uniform", "balance"]})
    results = topo.sweep(given, tmp_path / "r")
    table = read_table(tmp_path / "r")
    assert len(table) == len(results.rows) and "density:fc1.weight" in table.columns
    columns = dict(table.columns) | {"accuracy": tuple(str(row["log10_effective_paths"]) for row in results.rows)}
    columns["data"] = ("digits",) * len(table)
    found = topo.evaluate(columns, metrics=["log10_effective_paths"])
    assert found.cells == 2 and found.metrics[0]["rho"] == pytest.approx(1)
    assert found.baseline == "mean_log_density"
