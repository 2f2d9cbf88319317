"""Commands killed at random moments, and run again: nothing half-written stays, and the end is the same bytes.

Each trial forks a process that has everything loaded already, lets it run a command, and sends it SIGKILL, SIGTERM or
SIGINT after a random part of the time that the command takes; now and then twice or thrice before it may finish. After
each blow every file is whole: as the undisturbed command writes it, or as a run folder holds it after some epoch. After
SIGTERM and SIGINT no temporary file is left. Then the command runs to its end, with --resume where it has that, and
all its files are those of the undisturbed command; what a clock says is left out.

Prints a line for each command; exits 1 if something was not so.
"""

from __future__ import annotations

import argparse
import importlib
import io
import itertools
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

import topo
import topo.kernels
from topo._support.atomic import PREFIX
from topo.cli import main as topo_main
from topo.masks import MaskSet

_TRAINED = ["--model", "mlp:64-12-10", "--data", "digits"]
COMMANDS = {
    "train": ["train", "m.npz", *_TRAINED, "--epochs", "4", "-o", "run"],
    "imp": ["imp", *_TRAINED, "--density", "0.5", "--epochs", "2", "--rewind-epoch", "1", "-o", "run"],
    "generate": ["generate", "balance", "--model", "mlp:64-32-10", "--density", "0.2", "-o", "masks.safetensors"],
    "convert": ["convert", "large.npz", "masks.safetensors"],
    "analyze": [
        *("analyze", "large.npz", "--metrics", "default,size", "--nulls", "same_layers:3"),
        *("--json", "r.json", "--csv", "r.csv", "--html", "r.html"),
    ],
    "shrink": ["shrink", "m.npz", "--model", "mlp:64-12-10", "--weights", "w.safetensors", "-o", "small.safetensors"],
    "evaluate": ["evaluate", "table.csv", "--json", "e.json"],
    "sweep": ["sweep", "sweep.toml", "-o", "run"],
}
_ALONE = ("--quiet", "--threads", "1")
RESUMED = ("train", "imp", "sweep")
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_CLOCK = re.compile(r"seconds|_at$|time")


def prepare(folder: Path) -> None:
    """What the commands read."""
    rng = np.random.default_rng(0)
    small = MaskSet({"fc1.weight": rng.random((12, 64)) < 0.4, "fc2.weight": rng.random((10, 12)) < 0.6})
    topo.write_masks(small, folder / "m.npz")
    sizes = (400, 900, 700, 300)
    large = {f"l{at}": rng.random((n, m)) < 0.3 for at, (m, n) in enumerate(itertools.pairwise(sizes))}
    topo.write_masks(MaskSet(large), folder / "large.npz")
    weights = {"fc1.weight": (12, 64), "fc1.bias": (12,), "fc2.weight": (10, 12), "fc2.bias": (10,)}
    save_file(
        {name: rng.standard_normal(shape).astype("f4") for name, shape in weights.items()}, folder / "w.safetensors"
    )
    rows = [f"n,d,0.1,{'ab'[at % 2]},{at / 20},{-at},{at % 3}" for at in range(12)]
    head = "network,data,density,method,accuracy,mean_log_density,sinks"
    (folder / "table.csv").write_text("\n".join([head, *rows]))
    grid = '[grid]\nmethod = ["erk", "uniform"]\ndensity = [0.3]\n'
    (folder / "sweep.toml").write_text(f'[sweep]\nmodel = "mlp:6-5-3"\nseeds = "0-2"\n{grid}')


def timeless(value: Any) -> Any:
    """JSON, or what a checkpoint holds, without what a clock says; tensors as bytes."""
    if isinstance(value, dict):
        return {key: timeless(held) for key, held in value.items() if not _CLOCK.search(str(key))}
    if isinstance(value, (list, tuple)):
        return [timeless(held) for held in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return value


def content(path: Path) -> Any:
    """What a file says; an exception where it is not whole."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return timeless(json.loads(data))
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in data.splitlines()]
    if path.suffix == ".pt":
        return timeless(torch.load(io.BytesIO(data), weights_only=True))
    if path.suffix == ".csv":
        if data == b"\n":  # of a run before its first epoch
            return []
        head, *rows = [line.split(",") for line in data.decode().splitlines()]
        assert data.endswith(b"\n") and all(len(row) == len(head) for row in rows), "a line is not whole"
        return [[cell for name, cell in zip(head, row) if not _CLOCK.search(name)] for row in [head, *rows]]
    return data


def files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def half_written(folder: Path, inputs: set[str], whole: dict[str, Any]) -> list[str]:
    """What is wrong with the files of a command that was killed."""
    wrong = []
    for name, path in files(folder).items():
        if name in inputs or path.name.startswith(PREFIX):
            continue
        try:
            held = content(path)
        except Exception as error:
            wrong.append(f"{name} is not whole: {type(error).__name__}: {error}")
            continue
        expected = whole.get(name)
        if path.suffix == ".pt" or path.name in ("plan.csv", "layers.csv", "results.csv"):
            continue  # as after some epoch, or some cells
        if path.name in ("metrics.jsonl", "curves.csv") and expected is not None:
            expected = expected[: len(held)]
        if expected is not None and held != expected:
            wrong.append(f"{name} differs from that of the command that was left alone")
    return wrong


def start(line: list[str], folder: Path) -> int:
    """Fork a process that runs the command in the folder; its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = topo_main([*line, *_ALONE])
    except KeyboardInterrupt:  # before the command began, or after it had ended
        code = 130
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def trial(name: str, folder: Path, seed: int, seconds: float, inputs: set[str], whole: dict[str, Any]) -> list[str]:
    """One command, killed once or several times and brought to its end; what was wrong."""
    rng = random.Random(seed)
    line, wrong = COMMANDS[name], []
    again = [*line, "--resume"] if name in RESUMED else line
    blows = 0
    while blows == 0 or rng.random() < 0.3:
        number = rng.choice(_SIGNALS)
        child = start(line if blows == 0 else again, folder)
        time.sleep(rng.random() * seconds * 1.1)
        os.kill(child, number)
        code = ended(child)
        blows += 1
        if code not in (0, -number, 130 if number == signal.SIGINT else 0):
            said = (folder / "said.txt").read_text()[-300:]
            wrong.append(f"{signal.Signals(number).name} ended it with {code}: {said}")
        wrong += half_written(folder, inputs, whole)
        left = [name for name in files(folder) if Path(name).name.startswith(PREFIX)]
        if number != signal.SIGKILL and code != 0 and left and blows == 1:
            wrong.append(f"{signal.Signals(number).name} left {left}")
    code = ended(start(again, folder))
    if code:
        return [*wrong, f"the command that went on ended with {code}: {(folder / 'said.txt').read_text()[-300:]}"]
    found = {}
    for at, path in files(folder).items():
        if at not in inputs and not path.name.startswith(PREFIX):
            found[at] = content(path)
    wrong += [f"{at} differs at the end" for at in sorted(set(found) | set(whole)) if found.get(at) != whole.get(at)]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help=f"of {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--count", type=int, default=200, help="trials of each command")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no threads but its own, and would wait for those of OpenMP
    for module in pkgutil.iter_modules(topo.kernels.__path__):
        importlib.import_module(f"topo.kernels.{module.name}")
    failures = 0
    root = Path(tempfile.mkdtemp())
    os.environ["TOPO_CACHE_DIR"] = str(root / "cache")
    home = os.getcwd()
    try:
        (root / "inputs").mkdir()
        prepare(root / "inputs")
        inputs = {*files(root / "inputs"), "said.txt"}
        for name in args.commands or COMMANDS:
            begun = time.monotonic()
            for _ in range(2):  # here first, so that the processes to be killed have everything loaded
                shutil.rmtree(root / "alone", ignore_errors=True)
                shutil.copytree(root / "inputs", root / "alone")
                os.chdir(root / "alone")
                if topo_main([*COMMANDS[name], *_ALONE]) != 0:
                    print(f"{name}: the command that is left alone fails")
                    return 1
            os.chdir(home)
            whole = {at: content(path) for at, path in files(root / "alone").items() if at not in inputs}
            shutil.rmtree(root / "alone")
            shutil.copytree(root / "inputs", root / "alone")
            clock = time.monotonic()
            assert ended(start(COMMANDS[name], root / "alone")) == 0
            seconds = time.monotonic() - clock
            bad = 0
            for seed in range(args.first, args.first + args.count):
                folder = root / "run"
                shutil.copytree(root / "inputs", folder)
                wrong = trial(name, folder, seed, seconds, inputs, whole)
                shutil.rmtree(folder)
                bad += bool(wrong)
                for text in wrong[:3]:
                    print(f"{name} {seed}: {text}", flush=True)
            failures += bad
            print(
                f"{name:9} {args.count:5} trials, {bad} wrong, {seconds:.2f} s alone, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    finally:
        os.chdir(home)
        shutil.rmtree(root)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
