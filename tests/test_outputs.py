"""Every file that a command writes: where it may go, where it may not, and that nothing half-written stays.

The commands are read off the parser: a new one that has an output needs its line in `LINES`.
"""

import argparse
import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import topo
from topo._support.atomic import PREFIX, replacing, write_text
from topo.cli import main, parser
from topo.errors import TopoError
from topo.masks import MaskSet

# A line of every command that writes, without its outputs. (A run folder is no file: see test_train.)
LINES = {
    "analyze": ["analyze", "a.npz", "--metrics", "density"],
    "generate": ["generate", "er", "--model", "mlp:6-5-3", "--density", "0.5"],
    "compare": ["compare", "a.npz", "b.npz"],
    "convert": ["convert", "a.npz"],
    "plot": ["plot", "density_profile", "a.npz"],
    "trace": ["trace", "--show", "mlp:6-5-3"],
    "check": ["check", "a.npz", "--max-density", "1"],
    "report": ["report", "r.json"],
    "evaluate": ["evaluate", "table.csv"],
    "shrink": ["shrink", "n.npz", "--model", "mlp:6-5-3", "--weights", "w.safetensors"],
}
# Outputs of other lines: weights come of the methods that look at data.
OTHERS = {
    ("shrink", "--json"): [*LINES["shrink"], "-o", "small.pt"],
    ("generate", "--out-weights"): [
        *("generate", "wanda", "--model", "mlp:64-5-10", "--weights", "d.safetensors", "--density", "0.5"),
        *("--data", "digits", "--examples", "16", "-o", "m.npz"),
    ],
}
ENDINGS = {
    "--out-weights": ".safetensors",
    "--json": ".json",
    "--csv": ".csv",
    "--html": ".html",
    "--junit": ".xml",
    "--plot": ".svg",
}
OF_COMMAND = {"generate": ".npz", "convert": ".npz", "plot": ".svg", "report": ".html", "shrink": ".safetensors"}


def _commands():
    subparsers = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subparsers.choices


def _outputs():
    """(command, option or None for a place, ending) of whatever writes a file: its metavar is OUT."""
    found = []
    for name, command in _commands().items():
        for action in command._actions:
            if action.metavar == "OUT":
                option = action.option_strings[0] if action.option_strings else None
                found.append((name, option, ENDINGS.get(option, OF_COMMAND.get(name, ".json"))))
    return found


def _line(command, option, target):
    return [*OTHERS.get((command, option), LINES[command]), *([option] if option else []), str(target), "--quiet"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        topo.write_masks(MaskSet({"w": rng.random((4, 6)) < 0.5, "v": rng.random((3, 4)) < 0.7}), name)
    topo.write_masks(MaskSet({"fc1.weight": rng.random((5, 6)) < 0.5, "fc2.weight": np.eye(3, 5)}), "n.npz")
    for name, sizes in (("w", (6, 5, 3)), ("d", (64, 5, 10))):
        ends = enumerate(itertools.pairwise(sizes), 1)
        tensors = {f"fc{at}.{kind}": np.ones((n, m) if kind == "weight" else n, np.float32)
                   for at, (m, n) in ends for kind in ("weight", "bias")}  # fmt: skip
        save_file(tensors, f"{name}.safetensors")
    (tmp_path / "r.json").write_text(topo.analyze(MaskSet({"w": np.eye(3)}), metrics="kept").to_json())
    rows = [f"n,d,0.1,{'ab'[at % 2]},{at / 20},{-at},{at % 3}" for at in range(12)]
    head = "network,data,density,method,accuracy,mean_log_density,sinks"
    (tmp_path / "table.csv").write_text("\n".join([head, *rows]))
    return tmp_path


def _left(folder):
    return [path for path in folder.rglob(f"{PREFIX}*")]


def _refused(capsys, line, *words):
    code = main(line)
    said = capsys.readouterr().err.strip().splitlines()
    assert code in (1, 2), (line, code, said)
    assert len(said) == 1 and all(word in said[0] for word in words), (line, said)


def test_every_option_that_writes_is_found_by_its_metavar_and_has_a_line():
    writing = {name for name, option, _ in _outputs()}
    assert writing == set(LINES)
    for name, command in _commands().items():
        for action in command._actions:
            if (action.help or "").startswith(("write", "the file to write", "draw")) and action.nargs != 0:
                assert action.metavar == "OUT", f"{name} {action.dest}: what is written has the metavar OUT"


@pytest.mark.parametrize(("command", "option", "ending"), _outputs())
def test_where_a_command_writes(command, option, ending, folder, capsys):
    """A file, a link's target, a pipe; not a folder, a missing folder, a loop, a name too long, a full device."""
    plain = folder / f"plain{ending}"
    assert main(_line(command, option, plain)) == 0
    expected = plain.read_bytes()

    def as_expected(content, typed):  # a page says by which command it was made
        return content.replace(bytes(typed), bytes(plain)) == expected

    (folder / "real").mkdir()
    target, link = folder / "real" / f"x{ending}", folder / f"link{ending}"
    link.symlink_to(target)  # it dangles
    for _ in range(2):
        assert main(_line(command, option, link)) == 0
        assert link.is_symlink() and as_expected(target.read_bytes(), link) and target.is_file()
        target.write_text("old")
        target.chmod(0o640)
    assert main(_line(command, option, link)) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o640 and as_expected(target.read_bytes(), link)

    pipe = folder / f"pipe{ending}"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    assert main(_line(command, option, pipe)) == 0
    reader.join()
    assert as_expected(got[0], pipe) and stat.S_ISFIFO(pipe.stat().st_mode)

    capsys.readouterr()
    inner = folder / f"folder{ending}"
    inner.mkdir()
    _refused(capsys, _line(command, option, inner), "is a folder")
    _refused(capsys, _line(command, option, folder / "none" / f"x{ending}"), "there is no folder")
    (folder / f"loop{ending}").symlink_to(folder / f"loop{ending}")
    _refused(capsys, _line(command, option, folder / f"loop{ending}"), "circle")
    _refused(capsys, _line(command, option, folder / ("x" * 300 + ending)), "too long")
    _refused(capsys, _line(command, option, plain / f"x{ending}"), "there is no folder")
    (folder / f"nowhere{ending}").symlink_to(folder / "none" / "x")
    _refused(capsys, _line(command, option, folder / f"nowhere{ending}"), "there is no folder")
    full = folder / f"full{ending}"
    full.symlink_to("/dev/full")
    if Path("/dev/full").exists():
        _refused(capsys, _line(command, option, full), "No space left")
        assert Path("/dev/full").is_char_device()
    assert _left(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize(("command", "option", "ending"), _outputs())
def test_a_device_is_written_through_and_never_replaced(command, option, ending, folder, capsys):
    null = folder / f"null{ending}"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        null.open("wb").close()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    assert main(_line(command, option, null)) == 0
    assert null.is_char_device() and null.stat().st_rdev == os.makedev(1, 3)


_AS_NOBODY = """
import os, sys
from topo.cli import main
good, bad = eval(sys.argv[1])
for line in good:  # whatever it imports is read before the user changes
    assert main(line) == 0, line
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in bad:
    print("==", main(line))
    print("==", file=sys.stderr)
"""


@pytest.mark.slow
def test_what_is_read_only_is_refused_in_a_line(folder):
    """All commands in one process, which is not root's: root may write anywhere."""
    (folder / "shut").mkdir()
    lines, good = [], []
    for command, option, ending in _outputs():
        closed = folder / f"closed{ending}"
        closed.write_text("x")
        closed.chmod(0o444)
        good.append(_line(command, option, folder / f"open{ending}"))
        lines += [_line(command, option, closed), _line(command, option, folder / "shut" / f"x{ending}")]
    (folder / "shut").chmod(0o555)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/") and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", _AS_NOBODY, repr((good, lines))], capture_output=True, text=True)
    said = [part.strip() for part in done.stderr.split("==\n")][:-1]
    assert done.stdout.count("== 1\n") == len(lines), done.stdout + done.stderr
    for line, text in zip(lines, said, strict=True):
        assert "read-only" in text and len(text.splitlines()) == 1, (line, text)
    assert _left(folder) == []
    assert all(path.read_text() == "x" for path in folder.glob("closed*"))


_RUNS = {
    "train": ["train", "dense", "--model", "mlp:64-10", "--data", "digits", "--epochs", "1"],
    "imp": ["imp", "--density", "0.5", "--model", "mlp:64-10", "--data", "digits", "--epochs", "1"],
    "irp": ["irp", "--model", "mlp:64-10", "--data", "digits", "--epochs", "1"],
    "sweep": ["sweep", "sweep.toml"],
}


def test_every_command_that_makes_a_folder_has_a_line():
    assert set(_RUNS) == {
        name
        for name, command in _commands().items()
        if any(action.metavar in ("RUNDIR", "RESULTS") and action.option_strings for action in command._actions)
    }


@pytest.mark.parametrize("command", _RUNS)
def test_where_a_folder_of_a_run_may_not_be(command, folder, capsys):
    """An empty name was the folder that one stands in: its files lay beside one's own."""
    Path("sweep.toml").write_text('[sweep]\nmodel = "mlp:6-5-3"\n[grid]\nmethod = "er"\ndensity = 0.5\n')
    os.mkfifo("pipe")
    Path("dangling").symlink_to("none/x")
    Path("loop").symlink_to("loop")
    before = sorted(os.listdir())
    for target in ("a.npz", "a.npz/x", "pipe", "dangling", "loop", "x" * 300, "", "/dev/null", "a\0b"):
        _refused(capsys, [*_RUNS[command], "-o", target, "--quiet"], "")
    assert sorted(os.listdir()) == before and Path("pipe").is_fifo() and Path("/dev/null").is_char_device()


def test_two_outputs_on_one_file_by_any_name_are_wrong_usage(folder, capsys):
    (folder / "x.json").write_text("")
    os.link(folder / "x.json", folder / "hard.csv")
    (folder / "soft.csv").symlink_to("x.json")
    for other in ("x.json", "./x.json", "hard.csv", "soft.csv", str(folder / "x.json")):
        _refused(capsys, ["analyze", "a.npz", "--json", "x.json", "--csv", other], "both write")
    _refused(capsys, ["analyze", "a.npz", "--json", "-", "--csv", "-"], "both write")
    os.link(folder / "a.npz", folder / "same.npz")
    for other in ("a.npz", "same.npz"):
        _refused(capsys, ["analyze", "a.npz", "--json", other], "would overwrite")
    assert main(["analyze", "a.npz", "--json", "/dev/null", "--csv", "/dev/null"]) == 0


def test_convert_onto_its_own_input_needs_force(folder, capsys):
    before = topo.read_masks("a.npz")
    Path("soft.npz").symlink_to("a.npz")
    for target in ("a.npz", "./a.npz", "hard.npz", "soft.npz"):
        Path("hard.npz").unlink(missing_ok=True)
        os.link("a.npz", "hard.npz")
        _refused(capsys, ["convert", "a.npz", target], "--force")
        assert main(["convert", "a.npz", target, "--force"]) == 0
        capsys.readouterr()
    assert topo.read_masks("a.npz") == before
    (folder / "in").mkdir()
    topo.write_masks(before, "in/model.safetensors")
    _refused(capsys, ["convert", "in", "in/model.safetensors"], "--force")
    assert main(["convert", "in", "in/masks.safetensors"]) == 0


@pytest.mark.slow
def test_standard_output_is_written_through_by_every_name(folder):
    """Onto a pipe and onto a file, after what was said before; --json of a file that it is redirected to, too."""
    shown = subprocess.run(
        [sys.executable, "-m", "topo", "trace", "--show", "mlp:2-2"], capture_output=True, check=True
    ).stdout
    code = "import sys; from topo.cli import main; sys.exit(max(main(l) for l in eval(sys.argv[1])))"
    names = [name for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1") if Path(name).exists()]
    lines = repr([["trace", "--show", "mlp:2-2", "--json", name, "--quiet"] for name in names])
    piped = subprocess.run([sys.executable, "-c", code, lines], capture_output=True, check=True).stdout
    with open("out.txt", "wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run([sys.executable, "-c", code, lines], stdout=file, check=True)
    written = Path("out.txt").read_bytes()
    assert written == b"before\n" + piped
    parts = piped.split(shown)
    assert len(parts) == len(names) + 1 and parts[0] == b"" and len(set(parts[1:])) == 1
    assert parts[1].startswith(b"{")


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file(folder, capsys):
    """By a limit on the size of files, in a process of its own."""
    rng = np.random.default_rng(0)
    for name in ("a.npz", "b.npz"):
        topo.write_masks(MaskSet({"w": rng.random((300, 400)) < 0.5, "v": rng.random((30, 300)) < 0.5}), name)
    lines = []
    for command, option, ending in _outputs():
        old = folder / f"old{command}{option or ''}{ending}"
        old.write_text("old")
        lines.append(_line(command, option, old))
    lines.append(
        ["train", "dense", "--model", "mlp:64-10", "--data", "digits", "--epochs", "1", "-o", "run", "--quiet"]
    )
    code = (
        "import resource, signal, sys; from topo.cli import main\n"
        "import topo.train, topo.plots, matplotlib.font_manager\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "for line in eval(sys.argv[1]):\n    print('==', main(line)); print('==', file=sys.stderr)\n"
    )
    environment = {**os.environ, "TOPO_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", code, repr(lines)], capture_output=True, text=True, env=environment)
    said = [part.strip() for part in done.stderr.split("==\n")][:-1]
    for line, text in zip(lines, said, strict=True):
        assert "cannot write" in text and len(text.splitlines()) == 1, (line, text)
    assert all(path.read_text() == "old" for path in folder.glob("old*"))
    assert _left(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_process_that_is_told_to_end_leaves_no_temporary_file(number, folder):
    code = (
        f"import signal; signal.signal({int(number)}, signal.default_int_handler if {number == signal.SIGINT} else 0)\n"
        "from topo._support.atomic import replacing\n"  # a shell that goes on without a terminal may have it ignored
        "with replacing('x.json') as temporary:\n"
        "    with replacing('y.json') as other:\n"
        "        temporary.write_text('half'); other.write_text('half'); print('ready', flush=True); input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"ready\n"
    assert len(_left(folder)) == 2
    process.send_signal(number)
    assert process.wait() == -number
    process.stdin.close()
    process.stdout.close()
    assert _left(folder) == [] and not Path("x.json").exists()


def test_what_is_written_is_on_the_disk_before_it_has_its_name(folder, monkeypatch):
    seen = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append(("sync", os.fstat(number).st_ino)), sync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(("name", os.stat(a).st_ino)), rename(a, b)))
    write_text("x.json", "text")
    topo.write_masks(MaskSet({"w": np.ones((2, 2))}), "m.safetensors")
    assert [what for what, _ in seen] == ["sync", "name"] * 2
    assert seen[0][1] == seen[1][1] and seen[2][1] == seen[3][1]


def test_a_failing_writer_leaves_the_handlers_and_the_file_as_they_were(folder):
    Path("x.json").write_text("old")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(ZeroDivisionError), replacing("x.json") as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert Path("x.json").read_text() == "old" and _left(folder) == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
    for name in ("", "a\0b", "x" * 300):
        with pytest.raises(TopoError, match="cannot write"):
            write_text(name, "text")


def test_many_threads_write_one_file_whole(folder):
    texts = [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=("x.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if Path("x.txt").exists():
            assert Path("x.txt").read_text() in texts
    assert Path("x.txt").read_text() in texts and _left(folder) == []


def test_safetensors_of_one_content_are_the_same_bytes_each_time(folder):
    """The official package orders metadata anew for each file."""
    import torch

    from topo.pruners.predicted import write_survival
    from topo.shrinking.stored import write as write_smaller
    from topo.train.folder import Folder

    layer = torch.eye(3)
    writers = {
        "weights of a run": lambda path: Folder(path.parent).write_weights({"a": layer}, path.name),
        "survival": lambda path: write_survival(path, {"a": (layer, layer.clone(), layer.clone())}, {"rounds": 2}),
        "smaller model": lambda path: write_smaller(path, {"a": layer}, "mlp:3-3", "{}"),
        "masks": lambda path: topo.write_masks(MaskSet({"a": np.eye(3)}, provenance={"model": "m", "seed": 1}), path),
    }
    for what, write in writers.items():
        found = set()
        for at in range(8):
            write(folder / f"{at}.safetensors")
            found.add((folder / f"{at}.safetensors").read_bytes())
        assert len(found) == 1, what
