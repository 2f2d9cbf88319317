"""`topo trace --show`, `--profile` and the table of methods: what helps to see what happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from topo.cli import main
from topo.generate import methods
from topo.wiring import Join, Layer, Wiring


@pytest.fixture
def residual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wiring saved as JSON: two layers, the second of which is added to the inputs, which are padded by one."""
    monkeypatch.chdir(tmp_path)
    steps = (
        Layer("up.weight", (3, 2), [0, 1], 2),
        Layer("down.weight", (2, 3), [2, 3, 4], 5, positions=16),
        Join("add", ([5, 6], [0, -1]), 7),
    )
    Wiring([0, 1], steps, [7, 8], notes=("a note of the trace",)).save(tmp_path / "net.json")
    return tmp_path


def test_every_step_is_a_line_with_what_it_reads(residual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--show", "net.json"]) == 0
    printed = capsys.readouterr().out
    assert "net.json: 2 layers, 1 joins, 2 inputs, 2 outputs, 9 units" in printed
    assert re.search(r"^0 +linear +up.weight +3x2 +2-4 +inputs$", printed, re.M)
    assert re.search(r"^1 +linear +down.weight +2x3 +5-6 +up.weight +16$", printed, re.M)
    assert re.search(r"^2 +add +7-8 +down.weight \+ inputs, zero$", printed, re.M)
    assert "note: a note of the trace" in printed


def test_the_wiring_is_written_and_read_again(residual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--model", "net.json", "--json", "again.json", "--quiet"]) == 0
    assert (residual / "again.json").read_text() == (residual / "net.json").read_text()


@pytest.mark.parametrize("argv", [[], ["--show", "net.json", "--model", "net.json"]])
def test_which_network_is_said_once(argv: list[str], residual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_profile_names_files_of_topo_and_libraries(residual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--show", "net.json", "--profile"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"where the time went \(\d+\.\d\d s\):", told[0])
    assert any(re.search(r"s +\d+ %  topo/[\w/]+\.py, most in \w+", line) for line in told[1:])


def test_profile_tells_after_an_error_too(residual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--show", "missing.json", "--profile"]) == 1
    told = capsys.readouterr().err
    assert "where the time went" in told and "topo: " in told


def test_options_of_methods_stand_in_columns_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at, default = lines[0].index("-O"), lines[0].index("default")
    name, found = "", dict[str, list[str]]()
    for line in lines[1:]:
        name = line[: lines[0].index("needs")].strip() or name
        found.setdefault(name, []).extend([line[at:default].strip()] if line[at:default].strip() else [])
    assert found == {name: list(entry.options) for name, entry in methods().items()}
