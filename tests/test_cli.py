"""The command line: what it prints where, its exit codes, and that it never leaves half a file."""

import argparse
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import topo
from topo.cli import main
from topo.cli.inputs import names_of
from topo.cli.output import Progress, printable
from topo.cli.tables import Table, plain
from topo.masks import MaskSet

DATA = Path(__file__).parents[2] / "shared" / "data"
MASK = Path(__file__).parents[1] / "notebooks" / "masks" / "synflow_resnet20_d0.02.safetensors"
REAL = DATA / "torch_prune_resnet20_d0.02.pt"
needs_data = pytest.mark.skipif(not REAL.exists(), reason="the shared mask files are not here")
SHAPES = {"fc1.weight": (30, 64), "fc2.weight": (20, 30), "fc3.weight": (10, 20)}


def _masks(seed=0, density=0.2, **provenance):
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(shape) < density for name, shape in SHAPES.items()}
    return MaskSet(masks, provenance=provenance)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Wirings of built-in models are kept here, not where the user keeps them."""
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder to work in, with a.safetensors, and b.safetensors whose second layer has collapsed."""
    monkeypatch.chdir(tmp_path)
    topo.write_masks(_masks(), "a.safetensors")
    topo.write_masks(MaskSet({**_masks(1), "fc2.weight": np.zeros((20, 30))}), "b.safetensors")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command: (exit code, standard output, standard error)."""

    def run(*argv):
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# analyze


def test_analyze_prints_the_network_then_the_layers_then_the_notes(files, run):
    code, out, err = run("analyze", "a.safetensors", "--metrics", "paths")
    assert (code, err) == (0, "")
    report = topo.analyze(_masks(), metrics="paths")
    heading, network, layers, notes = out.split("\n\n")
    assert heading == "a.safetensors, format topo, view channel"
    lines = [re.split(r" {2,}", line) for line in network.splitlines()]
    assert lines[0] == ["network", "value", "unit", "view"]
    assert [line[0] for line in lines[1:]] == list(report.network)
    assert ["kept", f"{_masks().kept:,}", "parameters", "channel"] in lines
    assert [line.split()[0] for line in layers.splitlines()[-3:]] == list(SHAPES)
    assert notes.startswith("note: wiring: a plain chain")
    assert max(map(len, out.splitlines())) <= 120
    assert out.isascii()
    assert "\x1b" not in out


def test_json_alone_on_standard_output_is_the_report(files, run):
    code, out, err = run("analyze", "a.safetensors", "--json", "-")
    assert (code, err) == (0, "")
    document = json.loads(out)
    masks = topo.read_masks("a.safetensors")
    assert document == json.loads(topo.analyze(masks).to_json())
    assert document["reports"][0]["mask"] == "a.safetensors"


def test_files_are_written_whole_and_the_same_each_time(files, run):
    written = []
    for folder in ("one", "two"):
        (files / folder).mkdir()
        options = [f"--{form}={folder}/x.{form}" for form in ("json", "csv")]
        code, out, err = run("analyze", "a.safetensors", "b.safetensors", *options, f"--plot={folder}/x.pdf")
        assert code == 0
        assert err.splitlines() == [f"topo: wrote {folder}/x.{form}" for form in ("pdf", "json", "csv")]
        assert out.startswith("2 masks, format topo, view channel\n")
        written.append({path.name: path.read_bytes() for path in (files / folder).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"x.json", "x.csv", "x.pdf"}
    assert [report["mask"] for report in json.loads(written[0]["x.json"])["reports"]] == [
        "a.safetensors",
        "b.safetensors",
    ]
    rows = list(csv.DictReader(io.StringIO(written[0]["x.csv"].decode())))
    assert {row["mask"] for row in rows} == {"a.safetensors", "b.safetensors"}
    assert written[0]["x.pdf"].startswith(b"%PDF")


def test_several_files_make_one_table(files, run):
    code, out, _ = run("analyze", "a.safetensors", "b.safetensors", "--metrics", "kept,effective_paths,layer_collapse")
    assert code == 0
    _, table, *_ = out.split("\n\n")
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["a.safetensors", "b.safetensors"]
    assert lines[-1].endswith("collapsed")
    assert not lines[-2].endswith("collapsed")
    assert "fc1.weight" not in table


def test_collapsed_layers_stand_out(files, run):
    code, out, _ = run("analyze", "b.safetensors", "--metrics", "kept,density")
    assert code == 0
    marked = [line.split()[0] for line in out.splitlines() if line.endswith("collapsed")]
    assert marked == ["fc2.weight"]


def test_metrics_and_view_are_passed_on(files, run):
    code, out, _ = run("analyze", "a.safetensors", "--metrics", "effective_paths", "--view", "unit", "--json", "-")
    report = json.loads(out)["reports"][0]
    assert code == 0
    assert report["view"] == "unit"
    assert list(report["network"]) == ["effective_paths"]
    code, out, err = run("analyze", "a.safetensors", "--metrics", "typo")
    assert (code, out) == (1, "")
    assert "no metric or group is called 'typo'" in err


def test_without_a_model_masks_that_are_no_chain_say_so(files, run):
    topo.write_masks(MaskSet({"x": np.ones((4, 4)), "y": np.ones((5, 5))}), "odd.npz")
    code, out, _ = run("analyze", "odd.npz", "--json", "-")
    report = json.loads(out)["reports"][0]
    assert code == 0
    assert report["network"]["kept"] == 41
    assert report["network"]["effective_paths"] is None
    assert any("'y' takes 5 inputs" in note["note"] for note in report["notes"])


def test_the_model_that_a_file_names_is_used_and_said(files, run):
    topo.write_masks(_masks(model="mlp:64-30-20-10"), "named.safetensors")
    code, out, _ = run("analyze", "named.safetensors", "--json", "-")
    report = json.loads(out)["reports"][0]
    assert code == 0
    assert report["model"] == "mlp:64-30-20-10"
    assert report["notes"][0]["note"] == "the file itself names the model mlp:64-30-20-10"
    topo.write_masks(_masks(model="mlp:64-30-21-10"), "wrong.safetensors")
    code, out, _ = run("analyze", "wrong.safetensors", "--json", "-")
    report = json.loads(out)["reports"][0]
    assert code == 0
    assert "the file names the model 'mlp:64-30-21-10', but: mask 'fc2.weight'" in report["notes"][0]["note"]
    assert report["network"]["effective_paths"] is not None


@pytest.mark.parametrize(
    "model", ["evil.py:factory", "evil:factory", "hf:.", "wiring.json", "mlp:wiring.json", "mlp:64-99999999999-10"]
)
def test_a_file_chooses_no_code_to_run_and_no_size(files, run, monkeypatch, model):
    (files / "evil.py").write_text("open('ran', 'w').close()\ndef factory(): open('ran', 'w').close()\n")
    monkeypatch.syspath_prepend(str(files))
    topo.write_masks(_masks(model=model), "evil.safetensors")
    code, out, _ = run("analyze", "evil.safetensors", "--json", "-")
    assert code == 0
    assert not (files / "ran").exists()
    note = json.loads(out)["reports"][0]["notes"][0]["note"]
    assert note.startswith(f"the file names the model '{model}', ")


def test_a_model_that_does_not_fit_names_the_layer(files, run):
    code, out, err = run("analyze", "a.safetensors", "--model", "mlp:64-30-21-10")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "'fc2.weight' has shape (20, 30) but the model's layer has (21, 30)" in err


def test_a_model_of_ones_own_prints_to_standard_error_and_ends_nothing(files, run):
    (files / "own.py").write_text(
        "import sys\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 30), nn.Linear(30, 20), nn.Linear(20, 10)\n"
        "    def forward(self, x):\n"
        "        print('in forward')\n"
        "        return self.fc3(self.fc2(self.fc1(x)))\n"
        "def loud():\n    print('in the factory')\n    return Net()\n"
        "def leave():\n    sys.exit(5)\n"
    )
    code, out, err = run("analyze", "a.safetensors", "--model", "own.py:loud", "--input", "64", "--json", "-")
    assert code == 0 and json.loads(out)["reports"][0]["network"]["effective_paths"]
    assert "in the factory" in err
    code, out, err = run("analyze", "a.safetensors", "--model", "own.py:leave", "--input", "64")
    assert (code, out) == (1, "") and "the factory 'own.py:leave' raised SystemExit: 5" in err


@needs_data
def test_every_form_of_a_real_mask_gives_the_same_numbers(run):
    names = ("synflow_family", "openlth_mask", "torch_prune", "zeros_in_weights")
    paths = [next(DATA.glob(f"{name}*")) for name in names]
    code, out, err = run("analyze", *paths, "--model", "resnet20", "--json", "-")
    reports = json.loads(out)["reports"]
    assert (code, err) == (0, "")
    assert [report["mask"] for report in reports] == [path.name for path in paths]
    assert reports[0]["network"]["kept"] == 5418
    assert all(report["network"] == reports[0]["network"] for report in reports)
    assert all(report["layers"] == reports[0]["layers"] for report in reports)


# compare, check, convert, list


def test_compare(files, run):
    code, out, err = run("compare", "a.safetensors", "b.safetensors")
    assert (code, err) == (0, "")
    assert out.startswith("A = a.safetensors, B = b.safetensors\n")
    total = next(line for line in out.splitlines() if line.startswith("total"))
    a, b = (topo.read_masks(f"{name}.safetensors") for name in "ab")
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    assert total.split()[1:5] == [f"{n:,}" for n in (a.size, a.kept, b.kept, both)]
    assert next(line.split() for line in out.splitlines() if line.startswith("effective_paths"))[2] == "0"
    code, out, _ = run("compare", "a.safetensors", "b.safetensors", "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert document["total"]["both"] == both
    assert document["network"]["a"]["effective_paths"].isdecimal()
    assert document["network"]["b"]["log10_effective_paths"] is None


def test_compare_says_what_is_not_comparable(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, model in (("a", "mlp:20-10-10"), ("b", "mlp:20-10-10-10")):
        topo.write_masks(topo.generate("erk", model, density=0.5), f"{name}.safetensors")
    different = "the masks are of different networks: mlp:20-10-10, mlp:20-10-10-10"
    out = run("compare", "a.safetensors", "b.safetensors")[1]
    assert different in out and "fc3.weight: only in B" in out
    out = run("compare", "a.safetensors", "b.safetensors", "a.safetensors")[1]
    assert different in out and "note: C has no mask for fc3.weight;" in out and "B has no" not in out
    assert "different networks" not in run("compare", "a.safetensors", "a.safetensors", "a.safetensors")[1]
    code, _, err = run("compare", "a.safetensors")
    assert code == 2 and "name another, or a folder of mask files, not 'a.safetensors'" in err


def test_check_answers_by_exit_code(files, run):
    assert run(
        "check", "a.safetensors", "--contains", "a.safetensors", "--max-density", "0.5", "--fail-on", "no-paths"
    ) == (
        0,
        "yes: contains a.safetensors, max-density 0.5, paths are left (3 layers, "
        f"{_masks().kept} of {_masks().size:,} parameters kept)\n"
        "note: wiring: a plain chain, assumed from the shapes; residual connections cannot be seen in masks\n",
        "",
    )
    code, out, err = run("check", "b.safetensors", "--contains", "a.safetensors", "--fail-on", "layer-collapse")
    assert (code, err) == (3, "")
    contains, collapse, _note = out.splitlines()
    assert contains.startswith("no: contains: 'fc1.weight' keeps ")
    assert contains.endswith(" (and in 1 more layer)")
    assert collapse == "no: layer-collapse: 'fc2.weight' keeps no parameter"  # what a chain says is not certain
    code, out, err = run("check", "b.safetensors", "--fail-on", "no-paths")
    assert (code, out) == (1, "") and "which is only assumed" in err
    code, out, _ = run("check", "b.safetensors", "--fail-on", "layer-collapse,no-paths", "--model", "mlp:64-30-20-10")
    assert code == 3 and "'fc2.weight' keeps no parameter (and in 2 more layers)" in out
    assert "no: no-paths: no path leads from input to output" in out
    code, out, _ = run("check", "b.safetensors", "--max-density", "0", "--layers", "fc2*")
    assert code == 0
    code, out, _ = run("check", "a.safetensors", "--n-m", "1:8")
    assert code == 3
    assert out.startswith("no: n-m: 'fc1.weight' keeps ")


def test_check_of_paths_needs_wiring(files, run):
    topo.write_masks(MaskSet({"x": np.ones((4, 4)), "y": np.ones((5, 5))}), "odd.npz")
    code, out, err = run("check", "odd.npz", "--fail-on", "no-paths")
    assert (code, out) == (1, "")
    assert "'no-paths' cannot be answered" in err
    assert "'y' takes 5 inputs" in err
    code, out, _ = run("check", "odd.npz", "--fail-on", "layer-collapse")
    assert code == 0
    assert "a layer counts as collapsed when it keeps nothing" in out


def test_convert_round_trips(files, run):
    code, out, err = run("convert", "a.safetensors", "c.npz")
    assert (code, err) == (0, "topo: wrote c.npz\n")
    assert out.startswith("3 masks (topo), ")
    code, _, _ = run("--quiet", "convert", "c.npz", "d.safetensors", "--model", "mlp:64-30-20-10")
    assert code == 0
    back = topo.read_masks("d.safetensors")
    assert back == _masks()
    assert back.content_hash == _masks().content_hash
    assert back.provenance["model"] == "mlp:64-30-20-10"
    assert list(back.provenance["input_shape"]) == [64]
    code, _, err = run("convert", "a.safetensors", "c.txt")
    assert code == 1
    assert ".npz or .safetensors" in err


@pytest.mark.parametrize(
    ("what", "entry"),
    [
        ("metrics", "effective_paths"),
        ("models", "resnet20"),
        ("formats", "torch_prune"),
        ("quotas", "erk"),
        ("plots", "layer_profile"),
    ],
)
def test_list(run, what, entry):
    code, out, err = run("list", what)
    assert (code, err) == (0, "")
    assert any(line.split()[:1] == [entry] for line in out.splitlines())
    assert max(map(len, out.splitlines())) <= 120


# exit codes and errors


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["analyze"],
        ["analyze", "a.safetensors", "--view", "odd"],
        ["analyze", "a.safetensors", "--model", "mlp:64-30-20-10", "--model", "mlp:64-30-20-10"],
        ["analyze", "a.safetensors", "--threads", "0"],
        ["analyze", "a.safetensors", "--input", "3x0"],
        ["analyze", "a.safetensors", "--plot", "x.jpg"],
        ["analyze", "a.safetensors", "--plot", "x.png", "--metrics", "spectral"],
        ["analyze", "a.safetensors", "--json", "-", "--csv", "-"],
        ["analyze", "a.safetensors", "--json", "x", "--csv", "./x"],
        ["analyze", "a.safetensors", "--json", "a.safetensors"],
        ["check", "a.safetensors"],
        ["check", "a.safetensors", "--n-m", "4:2"],
        ["check", "a.safetensors", "--max-density", "2"],
        ["check", "a.safetensors", "--max-density", "nan"],
        ["check", "a.safetensors", "--max-density", "0.2", "--max-density", "0.3"],
        ["check", "a.safetensors", "--contains", "a.safetensors", "--contains", "b.safetensors"],
        ["check", "a.safetensors", "--fail-on", "typo"],
        ["compare", "a.safetensors"],
        ["convert", "a.safetensors"],
        ["list", "typo"],
    ],
)
def test_wrong_usage_is_exit_code_2(files, run, argv):
    before = (files / "a.safetensors").read_bytes()
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert "topo" in err
    assert "Traceback" not in err
    assert (files / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["analyze", "missing.pt"], "'missing.pt'"),
        (["analyze", "junk.pt"], "'junk.pt'"),
        (["analyze", "a.safetensors", "--format", "typo"], "no format is called 'typo'"),
        (["analyze", "a.safetensors", "--model", "typo"], "typo"),
        (["analyze", "a.safetensors", "--json", "missing/x.json"], "there is no folder 'missing'"),
        (["analyze", "a.safetensors", "--json", "."], "it is a folder"),
        (["compare", "a.safetensors", "odd.npz"], "share no layer"),
        (["check", "a.safetensors", "--max-density", "1", "--layers", "x*"], "no layer matches 'x*'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(files, run, argv, words):
    (files / "junk.pt").write_bytes(b"\x80junk\n" * 9)
    topo.write_masks(MaskSet({"x": np.ones((4, 4))}), "odd.npz")
    code, out, err = run(*argv)
    assert (code, out) == (1, "")
    assert err.startswith("topo: ")
    assert err.count("\n") == 1
    assert words in err
    _, _, err = run("--debug", *argv)
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("topo: ")


def test_what_nobody_foresaw_is_one_line_too(files, run, monkeypatch):
    def fail(*args, **more):
        raise RuntimeError("a\nb\x1b[2J")

    monkeypatch.setattr("topo.cli.inputs.understood", fail)
    code, out, err = run("analyze", "a.safetensors")
    assert (code, out) == (1, "")
    assert err == "topo: internal error: RuntimeError: a b\\x1b[2J; --debug shows where\n"
    _, _, err = run("analyze", "a.safetensors", "--debug")
    assert "Traceback" in err


def test_ctrl_c_that_a_compiler_swallows_is_an_interrupt(files, run, monkeypatch) -> None:
    def swallow(*args):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("no compiled object yet") from None

    def read(function, handler) -> tuple[int, str]:
        monkeypatch.setattr("topo.cli.inputs.understood", function)
        before = signal.signal(signal.SIGINT, handler)
        try:
            code, _, err = run("analyze", "a.safetensors")
            assert signal.getsignal(signal.SIGINT) is handler
            return code, err
        finally:
            signal.signal(signal.SIGINT, before)

    assert read(swallow, signal.default_int_handler) == (130, "topo: interrupted\n")
    for function, handler in (
        (lambda *args: 1 / 0, signal.default_int_handler),  # an error without Ctrl-C stays one
        (lambda *args: signal.raise_signal(signal.SIGINT) or 1 / 0, signal.SIG_IGN),  # as under nohup
    ):
        code, err = read(function, handler)
        assert code == 1 and "internal error: ZeroDivisionError" in err


def test_ctrl_c_leaves_no_half_file(files, run, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    before = sorted(files.iterdir())
    for option, name in (("--json", "x.json"), ("--plot", "x.png")):
        assert run("analyze", "a.safetensors", option, name) == (130, "", "topo: interrupted\n")
        assert sorted(files.iterdir()) == before


def test_a_file_can_be_read_by_those_whom_the_umask_lets(files, run):
    before = os.umask(0o027)
    try:
        run("analyze", "a.safetensors", "--json", "x.json")
    finally:
        os.umask(before)
    assert (files / "x.json").stat().st_mode & 0o777 == 0o640


def test_a_file_does_not_choose_how_much_memory_its_network_takes(files, run):
    """The name is a stranger's: 364 million billion parameters are not traced for a mask of a million."""
    topo.write_masks(
        MaskSet({"fc": np.ones((1000, 1000))}, provenance={"model": "wrn28:width=100000"}), "x.safetensors"
    )
    code, out, _ = run("analyze", "x.safetensors", "--metrics", "kept")
    assert code == 0 and "up to 268,435,456 are looked at" in " ".join(out.split())
    topo.write_masks(MaskSet({"fc": np.ones((4, 4))}, provenance={"model": "wrn28:width=100000"}), "x.safetensors")
    assert "no built-in one of its size" in run("analyze", "x.safetensors", "--metrics", "kept")[1]


def test_every_command_has_help_with_an_example(run):
    for command in ("analyze", "compare", "check", "convert", "list"):
        code, out, _ = run(command, "-h")
        assert code == 0
        assert f"example:\n  topo {command} " in out


def test_common_options_stand_before_and_after_the_command(files, run):
    assert run("--quiet", "--threads", "1", "analyze", "a.safetensors", "--csv", "x.csv")[2] == ""
    assert run("analyze", "a.safetensors", "--csv", "x.csv", "--quiet", "--threads", "1")[2] == ""
    assert run("analyze", "a.safetensors", "--csv", "x.csv")[2] == "topo: wrote x.csv\n"
    assert run("--version") == (0, f"topo {topo.__version__}\n", "")


def test_warnings_are_lines_on_standard_error(files, run, monkeypatch):
    import warnings

    from topo.errors import TraceWarning

    read = topo.cli.inputs.understood

    def warn(*args):
        warnings.warn("an operation\nwithout a rule", TraceWarning, stacklevel=2)
        warnings.warn("a library's", DeprecationWarning, stacklevel=2)
        return read(*args)

    monkeypatch.setattr("topo.cli.inputs.understood", warn)
    assert run("analyze", "a.safetensors", "--json", "-")[2] == "topo: warning: an operation without a rule\n"
    assert run("analyze", "a.safetensors", "--json", "-", "--quiet")[2] == ""


# in its own process


def _spawn(*argv, **more):
    return subprocess.Popen([sys.executable, "-m", "topo", *map(str, argv)], **more)


@pytest.mark.slow
def test_the_process_ends_with_the_exit_code(files):
    for argv, code in ((["list", "quotas"], 0), (["analyze", "missing"], 1), (["analyze"], 2)):
        assert _spawn(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == code
    assert _spawn("check", "a.safetensors", "--max-density", "0", stdout=subprocess.DEVNULL).wait() == 3


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(files):
    process = _spawn("analyze", "a.safetensors", "--quiet", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.slow
def test_a_full_disk_is_one_line(files):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        process = _spawn("analyze", "a.safetensors", "--quiet", stdout=full, stderr=subprocess.PIPE)
        err = process.stderr.read().decode()
    assert process.wait() == 1
    assert err == "topo: [Errno 28] No space left on device\n"


@pytest.mark.slow
def test_analysis_of_a_safetensors_file_imports_no_torch(files):
    """The wiring of a built-in model comes from a cache file after its first trace."""
    code = "import sys; from topo.cli import main; code = main(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    argv = ["analyze", "a.safetensors", "--model", "mlp:64-30-20-10", "--json", "x.json"]
    environment = {**os.environ, "TOPO_CACHE_DIR": str(files / "cache")}
    first, second = (
        subprocess.run([sys.executable, "-c", code, *argv], env=environment, capture_output=True) for _ in range(2)
    )
    assert (first.returncode, second.returncode) == (1, 0)
    assert json.loads((files / "x.json").read_text())["reports"][0]["model"] == "mlp:64-30-20-10"


def _on_a_terminal(*argv, **environment):
    """What a command writes to a terminal of 120 columns."""
    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = _spawn(*argv, stdout=follower, env={**env, "TERM": "xterm", "COLUMNS": "120", **environment})
    os.close(follower)
    written = b""
    try:
        while part := os.read(leader, 65536):
            written += part
    except OSError:  # the other end was closed
        pass
    os.close(leader)
    assert process.wait() == 0
    return written.decode()


@pytest.mark.slow
def test_on_a_terminal_collapsed_layers_are_red_unless_no_color(files):
    argv = ["analyze", "b.safetensors", "--metrics", "kept,density"]
    lines = [line for line in _on_a_terminal(*argv).splitlines() if "collapsed" in line]
    assert len(lines) == 1
    assert "fc2.weight" in lines[0]
    assert "\x1b[1;31m" in lines[0]
    assert "…" not in _on_a_terminal("analyze", "b.safetensors", COLUMNS="90")
    plain_lines = [line for line in _on_a_terminal(*argv, NO_COLOR="1").splitlines() if "collapsed" in line]
    assert len(plain_lines) == 1
    assert "31m" not in plain_lines[0]


# parts


@pytest.mark.small
def test_names_tell_files_apart():
    assert names_of(["x/a.pt", "y/b.pt"]) == ["a.pt", "b.pt"]
    assert names_of(["l1/main/mask.pth", "l2/main/mask.pth", "b.pt"]) == [
        "l1/main/mask.pth",
        "l2/main/mask.pth",
        "b.pt",
    ]
    assert names_of(["a.pt", "a.pt"]) == ["a.pt", "a.pt"]


@pytest.mark.small
def test_wide_tables_are_cut_into_parts_that_fit():
    header = ["layer", *(f"a_long_metric_name_{i}" for i in range(30))]
    lines = [[f"layer.{i}", *["1,234,567"] * 30] for i in range(3)]
    text = plain(Table(header, lines, marks={1: "collapsed"}), 100)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("layer.2") == text.count("\n\n") + 1 > 1
    assert text.count("collapsed") == text.count("layer.1")
    assert text.count("1,234,567") == 90
    assert plain(Table(["layer", "x"], [["m" * 200, "1"]]), 100).count("...") == 1


@pytest.mark.small
def test_control_characters_never_reach_a_terminal():
    assert printable("a\x1b[2J\r\x07b") == "a\\x1b[2J\\r\\x07b"
    assert "\x1b" not in plain(Table(["layer"], [["a\x1b[2Jb"]]))


@pytest.mark.small
def test_wrong_usage_is_one_printable_line_whatever_was_typed(run):
    for value in ("\x1b[31m", "a\nb", "\u202e", "9" * 5000):
        for line in (["list", value], ["list", "nulls", "--threads", value + "x"], ["trace", "--input", value]):
            code, _, err = run(*line)
            last = err.strip().splitlines()[-1]
            assert code in (1, 2) and last.isprintable() and last.startswith("topo") and len(last) < 2100, line


def test_progress_shows_only_after_two_seconds(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("topo.cli.output._PATIENCE", 2.0)
    with Progress(True, "a.pt, ") as progress:
        progress(1, 9, "early")
        clock[0] = 2.5
        progress(2, 9, "late")
        clock[0] = 3.0
        progress(3, 9, "too soon after")
    with Progress(False) as progress:
        clock[0] = 99.0
        progress(2, 9, "quiet")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "topo: a.pt, 2 of 9: late, 8 s left\n")


class Screen(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def seen(screen):
    """What was written, without the codes that move and colour."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())


def told(progress):
    """Two pieces of work in turn, then a line."""
    progress(0, 4, "[b]first\x1b[2J")
    progress(3, 4, "[b]first\x1b[2J")
    progress(1, 2, "second")
    progress.line("3.2 of 13.5 GB")


def test_on_a_terminal_a_bar_says_the_time_left_and_goes(monkeypatch):
    monkeypatch.setattr("topo.cli.output._PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with Progress(True, "a.pt, ") as progress:
        told(progress)
    text = seen(screen)
    assert "1/2 -:--:-- a.pt, second" in text and "[b]first\\x1b[2J" in text and "a.pt, 3.2 of 13.5 GB" in text
    assert "\x1b[2J" not in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("\x1b[2K")  # the last line is gone


def test_in_a_notebook_tqdm_says_it(monkeypatch, capsys):
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("topo.cli.output._PATIENCE", 0.0)
    with Progress(True) as progress:
        told(progress)
    err = capsys.readouterr().err
    assert "3/4" in err and "[b]first\\x1b[2J" in err and "second" in err and "3.2 of 13.5 GB" in err


def test_logs_say_the_time_left_of_the_work_at_hand(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("topo.cli.output._PATIENCE", 2.0)
    with Progress(True) as progress:
        for second, at in ((90, (1, 2)), (100, (0, 10)), (150, (1, 10)), (160, (5, 10))):
            clock[0] = float(second)
            progress(*at, "x")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "topo: 1 of 2: x, 0 s left", "topo: 0 of 10: x", "topo: 1 of 10: x, 7 min left", "topo: 5 of 10: x, 1 min left"
    ]  # fmt: skip


def test_a_layer_fits_a_terminal_of_120_columns(capsys) -> None:
    assert main(["analyze", str(MASK), "--model", "resnet20"]) == 0
    text = capsys.readouterr().out
    layers = [line for line in text.splitlines() if line.startswith("blocks.8.conv2.weight")]
    assert len(layers) == 1 and max(map(len, text.splitlines())) <= 120
    assert main(["analyze", str(MASK), "--model", "resnet20", "--metrics", "degrees,narc"]) == 0
    every = capsys.readouterr().out
    assert "narc" in every and "fan_" in every


def test_weights_beside_masks(capsys, tmp_path) -> None:
    path = DATA / "torch_prune_resnet20_d0.02.pt"
    if not path.exists():
        pytest.skip("the shared mask files are not here")
    requested = ["analyze", str(path), "--model", "resnet20", "--json", "-"]
    requested += ["--metrics", "weighted_spectral_gap,weighted_spectral_gap_layers"]
    assert main([*requested, "--weights", str(path)]) == 0
    with_weights = json.loads(capsys.readouterr().out)["reports"][0]["network"]
    assert with_weights["weighted_spectral_gap"] > 0 and with_weights["weighted_spectral_gap_layers"] == 22
    assert main(requested) == 0
    without = json.loads(capsys.readouterr().out)["reports"][0]
    assert without["network"]["weighted_spectral_gap"] is None
    assert any(note["note"] == "needs weights" for note in without["notes"])
    assert main([*requested, "--weights", str(MASK)]) == 1
    assert "holds no weights for 'conv.weight'" in capsys.readouterr().err


def test_path_counts_beyond_float64_in_every_command(capsys, tmp_path) -> None:
    """A dense chain of 400 layers of 8 units: 8**400 paths are not float64."""
    deep = MaskSet({f"l{k}": np.ones((8, 8), bool) for k in range(399)})
    path = tmp_path / "deep.safetensors"
    topo.write_masks(deep, path)
    assert main(["compare", str(path), str(path), "--json", "-"]) == 0
    assert str(8**400) in capsys.readouterr().out
    assert main(["compare", str(path), str(path)]) == 0
    assert main(["check", str(path), "--fail-on", "no-paths"]) == 0
    assert main(["analyze", str(path), "--metrics", "paths", "--csv", "-"]) == 0
    assert str(8**400) in capsys.readouterr().out


def test_warm_runs_work_of_every_kind_and_passes_over_what_does_not_fit(run, monkeypatch):
    from topo.cli import warm
    from topo.errors import TopoError
    from topo.generate import methods
    from topo.nulls import nulls

    work = list(warm._work())
    labels = [label for label, _ in work]
    assert {*methods(), *(f"null {kind}" for kind in nulls)} <= set(labels)
    done = []

    def refused():
        done.append("refused")
        raise TopoError("not of this network")

    chosen = [("refused", refused), work[labels.index("metrics")], ("last", lambda: done.append("last"))]
    monkeypatch.setattr(warm, "_work", lambda: chosen)
    code, out, err = run("warm")
    assert code == 0 and done == ["refused", "last"] and not err
    assert int(re.match(r"(\d+) kernels are ready", out)[1]) > 10


def test_that_kernels_are_being_compiled_is_said_once(capsys):
    """What the watcher meets at each look is played to it; at the end of the play the command is over."""
    from numba.core import event

    from topo.cli import output

    class Play:
        def __init__(self, *looks):
            self.looks = iter(looks)

        def wait(self, seconds):
            met = next(self.looks, "over")
            if met == "kernel":
                event.start_event("numba:compile", {})
                event.end_event("numba:compile", {})
            return met == "over"

    def said(*looks):
        output._watch_compiler(Play(*looks))
        return capsys.readouterr().err

    assert said() == said("nothing") == said("kernel", "nothing", "nothing") == ""  # before two seconds are over
    assert said("nothing", "nothing", "kernel", "kernel", "kernel").count("compiling kernels, once") == 1
    with output.compiling_told(argparse.Namespace(quiet=True)):
        assert not any(thread.name.endswith("(_watch_compiler)") for thread in threading.enumerate())
