"""Every option of every command with values that nobody means: an exit code, a line, and never an internal error."""

import argparse

import numpy as np
import pytest

import topo
from topo.cli import main, parser
from topo.masks import MaskSet

# Lines that work, or stop where work would be long (training at its data); an option is added, or a value exchanged.
LINES = {
    "analyze": ["analyze", "a.npz", "--metrics", "density"],
    "generate": ["generate", "er", "--model", "mlp:6-5-3", "--density", "0.5", "-o", "o.npz"],
    "generate, a frontier": "generate balance --model mlp:6-5-3 --density 0.5 --frontier 2 -o o.csv".split(),
    "train": ["train", "dense", "--model", "mlp:6-5-3", "--data", "none", "-o", "run"],
    "imp": ["imp", "--model", "mlp:6-5-3", "--data", "none", "--density", "0.5", "-o", "run"],
    "shrink": ["shrink", "a.npz", "--model", "mlp:6-5-3", "--weights", "none.safetensors", "-o", "small.safetensors"],
    "compare": ["compare", "a.npz", "b.npz"],
    "check": ["check", "a.npz", "--max-density", "1"],
    "convert": ["convert", "a.npz", "c.npz"],
    "plot": ["plot", "density_profile", "a.npz", "-o", "o.svg"],
    "trace": ["trace", "--show", "mlp:6-5-3"],
    "formats": ["formats", "explain", "a.npz"],
    "list": ["list", "nulls"],
    "warm": ["warm"],
    "report": ["report", "none.json", "-o", "r.html"],
    "completion": ["completion", "bash"],
    "irp": ["irp", "--model", "mlp:6-5-3", "--data", "none", "-o", "run"],
    "autosparse": ["autosparse", "fit", "none.safetensors", "-o", "p.safetensors"],
    "evaluate": ["evaluate", "table.csv"],
    "sweep": ["sweep", "none.toml", "-o", "results"],
}
HOSTILE = [
    "", " ", "nan", "-1", "1e999", "9" * 10, "9" * 25, "9" * 5000, "\u202e\x1b[31m\u00fc", "\udcff", "none/none",
    "folder", ",", "=", ":", "x" * 5000, "density", "mlp:0-0", "0x0", "a=b=c", "*", "[", "a.npz", "..", "~nobody/x",
]  # fmt: skip
_EACH = 3  # of the values an option meets every third, the next option the next third: together, every value


def _commands():
    return next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("topo.cli.warm._work", lambda: ())  # minutes
    (tmp_path / "folder").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        topo.write_masks(MaskSet({"w": rng.random((4, 6)) < 0.5, "v": rng.random((3, 4)) < 0.7}), name)
    return tmp_path


def _with(line, action, value):
    """The line with this value in place of the option's own, or of the first place."""
    if not action.option_strings:
        return [line[0], value, *line[2:]]
    option = action.option_strings[0]
    for name in action.option_strings:
        if name in line:
            at = line.index(name)
            return [*line[:at], name, value, *line[at + 2 :]]
    return [*line, f"{option}={value}" if option.startswith("--") else option + value]


@pytest.mark.parametrize("title", list(LINES))
def test_every_option_with_values_that_nobody_means(title, folder, capsys):
    line, odd = LINES[title], []
    masks = {name: (folder / name).read_bytes() for name in ("a.npz", "b.npz")}
    options = [a for a in _commands()[line[0]]._actions if a.nargs != 0 and a.dest != "help"]
    for number, action in enumerate(options):
        for value in HOSTILE[number % _EACH :: _EACH]:
            code = main(_with(line, action, value))
            said = capsys.readouterr().err
            last = (said.strip().splitlines() or [""])[-1]
            loud = any(mark in said for mark in ("internal error", "Traceback", "\x1b"))
            if code not in (0, 1, 2, 3) or loud or (code in (1, 2) and not last.startswith("topo")):
                odd.append(((action.option_strings or [action.dest])[0], value[:30], code, last[:200]))
            for name, content in masks.items():  # an output may have gone there
                if (folder / name).read_bytes() != content:
                    (folder / name).write_bytes(content)
    assert odd == []
    assert not list(folder.rglob(".topo-*"))


def test_every_command_has_a_line():
    assert {line[0] for line in LINES.values()} == set(_commands())


@pytest.mark.parametrize(
    "line",
    [
        "generate balance --model mlp:6-5-3 --density 0.5 --frontier 9999999999",
        "generate snip --model mlp:64-5-10 --density 0.5 --data digits --examples 9999999999 -o o.npz",
        "shrink a.npz --model mlp:6-5-3 --check 9999999999 -o small.safetensors",
    ],
)
def test_numbers_that_would_take_years_are_refused(line, folder, capsys):
    assert main(line.split()) in (1, 2)
    assert "9999999999" in capsys.readouterr().err.replace(",", "").splitlines()[-1]
