"""The command line as people type it: wrong names, chosen columns, many files of `check`, and what CI reads of it."""

import argparse
import importlib
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest

import topo
from topo.check import check
from topo.cli import main, parser
from topo.cli.choosing import check_values, condition, lines_of
from topo.cli.options import UsageError
from topo.masks import MaskSet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("command")
    for seed, density in ((0, 0.2), (1, 0.4), (2, 0.6)):
        masks = topo.generate("uniform", "mlp:10-8-6-4", density=density, rng=seed)
        topo.write_masks(masks, place / f"m{seed}.safetensors")
    (place / "bad.pt").write_bytes(b"none")
    return place


def said(capsys, *argv):
    code = main([*map(str, argv), "--quiet"])
    return code, *capsys.readouterr()


def _commands():
    return next(action for action in parser()._actions if hasattr(action, "choices") and action.choices).choices


@pytest.mark.small
def test_options_are_whole_words_and_near_ones_are_named(capsys):
    """Of every command and every long option: less than the whole word is refused, with the word and that usage."""
    for name, command in _commands().items():
        assert command.allow_abbrev is False, name
        for option in command._option_string_actions:
            if not option.startswith("--") or len(option) < 6 or option[:-1] in command._option_string_actions:
                continue
            with pytest.raises(SystemExit):
                command.error(f"unrecognized arguments: {option[:-1]}")
            error = capsys.readouterr().err
            assert f"usage: topo {name}" in error and "did you mean --" in error


@pytest.mark.small
@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["anlyze", "x"], "did you mean analyze?"),
        (["analyze", "x", "--modle", "resnet20"], "did you mean --model"),
        (["list", "metric"], "did you mean metrics?"),
        (["analyze", "x", "--model", "resnet2"], "or 'resnet20'"),
        (["analyze", "x", "--metrics", "denstiy"], "did you mean 'density'"),
        (["generate", "erkk", "--model", "mlp:2-2"], "did you mean 'erk'"),
        (["plot", "layer_profiel", "x", "-o", "a.pdf"], "did you mean 'layer_profile'"),
        (["analyze", "x", "--format", "torch_prun"], "did you mean 'torch_prune'"),
        (["check", "x", "--fail-on", "layer_collapse"], "did you mean 'layer-collapse'"),
        (["train", "dense", "--model", "mlp:64-4", "--data", "digitz", "-o", "r"], "did you mean 'digits'"),
    ],
)
def test_did_you_mean(argv, meant, capsys):
    code, _, error = said(capsys, *argv)
    assert code in (1, 2) and meant in error, error


@pytest.mark.small
def test_lines_are_chosen_as_by_hand():
    entries = [
        {"a": 2, "b": "x"},
        {"a": math.nan, "b": "y"},
        {"a": 10**400, "b": "x"},
        {"a": 2.0, "b": "z"},
        {"b": "q"},
    ]

    class Given:
        filter, sort = [], None

    def chosen(sort=None, *conditions):
        Given.sort, Given.filter = sort, [condition(text) for text in conditions]
        return lines_of(entries, Given)

    assert chosen("a") == [0, 3, 2, 1, 4] and chosen("-a") == [2, 0, 3, 1, 4]
    assert chosen(None, "a>=2") == [0, 2, 3] and chosen(None, "a != 2") == [2] and chosen("b", "b~[xy]") == [0, 2, 1]
    assert chosen(None, "b=x", "a<3") == [0]


@pytest.mark.small
def test_values_of_a_filter_are_those_that_a_column_can_hold():
    """A typo would leave no line, or with != every one: it is refused; numbers may be any."""
    entries = [
        {"density": 0.5, "layer": "fc1", "shape": [4, 3]},
        {"density": math.nan, "layer": "fc2", "shape": [2, 4]},
    ]

    def tried(text):
        check_values(argparse.Namespace(filter=[condition(text)]), entries)

    for text in (
        "density<0",
        "density!=3",
        "density=1e-3",
        "layer=fc1",
        "layer!=fc2",
        "layer~*2",
        "shape=4x3",
        "shape~*x4",
    ):
        tried(text)
    for sign in ("<", "<=", ">", ">="):
        for value in ("O.1", "0,1", "nan", "", "fc1"):
            with pytest.raises(argparse.ArgumentTypeError, match=f"'{value}', which is not a number"):
                tried(f"density{sign}{value}")
    for sign in ("=", "!="):
        with pytest.raises(UsageError, match=r"density is a number, 'O\.1' none"):
            tried(f"density{sign}O.1")
        with pytest.raises(UsageError, match=r"no layer is called 'fcl'; did you mean 'fc[12]'"):
            tried(f"layer{sign}fcl")
    with pytest.raises(UsageError, match=r"no layer is called 'conv\*'"):
        tried("layer~conv*")


def test_tables_are_sorted_and_cut(folder, capsys):
    files = [folder / f"m{seed}.safetensors" for seed in (1, 0, 2)]
    code, out, _ = said(capsys, "analyze", *files, "--metrics", "paths", "--sort=-density", "--columns", "density,kept")
    names = [line.split()[0] for line in out.splitlines() if ".safetensors" in line]
    assert code == 0 and names == ["m2.safetensors", "m1.safetensors", "m0.safetensors"]
    assert "effective_nodes" not in out
    code, out, _ = said(capsys, "analyze", *files, "--metrics", "paths", "--filter", "density<0.5")
    assert "1 of 3 masks shown" in out or "2 of 3 masks shown" in out
    assert "m2.safetensors" not in out and "m1.safetensors" in out
    code, out, _ = said(capsys, "analyze", files[0], "--metrics", "paths", "--columns", "kept", "--sort=-kept")
    kept = [layer["kept"] for layer in topo.analyze(topo.read_masks(files[0]), metrics="kept").layers]
    shown = [int(line.split()[-1]) for line in out.splitlines() if ".weight" in line and "note" not in line]
    assert shown == sorted(kept, reverse=True)
    code, _, error = said(capsys, "analyze", files[0], "--sort", "densty")
    assert code == 2 and "did you mean 'density'" in error
    code, out, _ = said(capsys, "analyze", files[0], "--metrics", "paths", "--filter", f"kept={max(kept)}")
    assert code == 0 and f"1 of {len(kept)} layers shown" in out
    code, out, error = said(capsys, "analyze", files[0], "--filter", "layer=fcc", "--json", folder / "no.json")
    assert code == 2 and "no layer is called 'fcc'" in error and not out and not (folder / "no.json").exists()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("option", ["--sort={}", "--sort=-{}", "--columns=kept,{}", "--filter={}>0"])
@pytest.mark.parametrize("name, meant", [("densty", "did you mean 'density'"), ("narc", "no column is called 'narc'")])
def test_a_column_that_no_table_has_is_refused_before_the_work(
    folder, capsys, monkeypatch, tmp_path, count, option, name, meant
):
    """Unknown names, and metrics that --metrics does not choose: nothing is read, printed or written."""
    monkeypatch.setattr("topo.cli.analyze.report_of", lambda *args: pytest.fail("the work was begun"))
    files = [folder / f"m{seed}.safetensors" for seed in range(count)]
    written = ["--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv"]
    code, out, error = said(capsys, "analyze", *files, "--metrics", "paths", option.format(name), *written)
    assert (code, out) == (2, "") and meant in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option", ["--sort=log10_path_norm", "--columns=log10_path_norm", "--filter=log10_path_norm>0"]
)
def test_a_column_that_only_weights_would_make_is_refused_before_anything_is_said(folder, capsys, tmp_path, option):
    code, out, error = said(capsys, "analyze", folder / "m0.safetensors", option, "--json", tmp_path / "a.json")
    assert (code, out) == (2, "") and "log10_path_norm" in error and not list(tmp_path.iterdir())


def test_every_column_of_the_table_of_masks_can_be_asked_for(folder, capsys):
    """Those that differ, and those that the heading says for all."""
    files = [folder / f"m{seed}.safetensors" for seed in range(2)]
    for column in ("mask", "format", "model", "view", "density", "effective_nodes"):
        code, out, error = said(
            capsys, "analyze", *files, "--metrics", "paths", f"--sort={column}", f"--columns=kept,{column}",
            f"--filter={column}~*",
        )  # fmt: skip
        assert code == 0 and "m0.safetensors" in out and "m1.safetensors" in out, (column, error)
    wanted = "method,seed,density_asked,effective_nodes"  # where masks are from is shown where it is asked for
    requested = ["--metrics", "paths", "--sort=-seed", "--filter=method=uniform", f"--columns={wanted}"]
    code, out, error = said(capsys, "analyze", *files, *requested)
    found = [line.split() for line in out.splitlines() if ".safetensors" in line]
    asked = [topo.read_masks(file).provenance for file in reversed(files)]
    assert code == 0, error
    assert [row[1:4] for row in found] == [[p["method"], str(p["seed"]), f"{p['asked_density']:.4f}"] for p in asked]


def test_a_gate_over_several_files(folder, capsys, tmp_path):
    files = [folder / f"m{seed}.safetensors" for seed in range(3)]
    code, out, _ = said(capsys, "check", *files, "--min-density", "0.3", "--junit", tmp_path / "out.xml")
    assert code == 3 and out.count("yes:") == 2 and "density 0.197368 is under 0.3" in out
    suites = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [suite.get("failures") for suite in suites] == ["1", "0", "0"]
    assert "under 0.3" in suites[0][0][0].get("message")
    code, out, error = said(capsys, "check", *files, folder / "bad.pt", "--max-layer-density", "0.5", "--json", "-")
    found = json.loads(out)
    assert code == 1 and [entry["answer"] for entry in found["files"]] == ["yes", "yes", "no", "error"]
    assert found["answer"] == "error" and "bad.pt" in error and "bad.pt" in found["files"][3]["error"]
    assert {finding["check"] for finding in found["files"][2]["findings"]} == {"max-layer-density"}
    kept = sum(rows.sum() for rows in topo.read_masks(files[2]).values())
    assert found["files"][2]["kept"] == kept
    assert said(capsys, "check", *files, "--max-density", "0.7", "--fail-on", "layer-collapse")[0] in (0, 3)
    code, _, error = said(capsys, "check", files[0])
    assert code == 2 and "--min-density" in error


@pytest.mark.small
def test_bounds_of_densities_by_hand():
    masks = MaskSet({"a": np.ones((2, 2)), "b": np.eye(4)})
    assert check(masks, min_density=0.4) == [] and check(masks, max_layer_density=1.0) == []
    (finding,) = check(masks, min_density=0.5)
    assert (finding.check, finding.count) == ("min-density", 8) and "'b' with 0.25" in finding.message
    (finding,) = check(masks, max_layer_density=0.3)
    assert (finding.layer, finding.count) == ("a", 4)
    assert check(masks, min_density=0.25, layers="b") == [] and check(masks, max_layer_density=0.25, layers="b") == []


@pytest.mark.small
def test_an_output_that_cannot_be_written_is_said_before_the_work(capsys, monkeypatch, tmp_path):
    module = importlib.import_module("topo.generate")
    monkeypatch.setattr(module, "generate", lambda *_, **__: pytest.fail("the work was begun"))
    code, _, error = said(
        capsys, "generate", "erk", "--model", "mlp:4-3-2", "--density", "0.5", "-o", tmp_path / "m.pt"
    )
    assert code == 1 and "written to files that end in" in error


@pytest.mark.small
def test_completion_knows_every_command(capsys):
    pytest.importorskip("shtab", reason="shtab, of the extra `completion`, is not installed")
    code, out, _ = said(capsys, "completion", "bash")
    assert code == 0 and all(name in out for name in _commands())
