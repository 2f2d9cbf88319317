"""`topo train`: masks, or a dense network, to a trained network and its run folder."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path
from typing import Any

from topo.cli import inputs
from topo.cli.options import UsageError, command, network_options
from topo.cli.output import Progress, printable, quiet, say, speak, wrote
from topo.errors import TraceError


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "train",
        "train the network of a mask file, or a dense one; pruned weights stay exactly zero",
        "topo train masks.safetensors --model digits_conv --data digits -o runs/masked\n"
        "  torchrun --nproc-per-node 2 -m topo train dense --model resnet20 --data cifar10 --recipe npb -o runs/two",
    )  # fmt: skip
    made.add_argument("masks", metavar="MASKS", help="a mask file or folder, or the word dense")
    training_options(made)


def training_options(made: argparse.ArgumentParser) -> None:
    """What `train` and `imp` share."""
    network_options(made)
    made.add_argument(
        "--data",
        required=True,
        metavar="D",
        help="digits, or a folder or .npz file of images (topo list data); docstrings, a text or token numbers",
    )
    made.add_argument("--recipe", default="quick", metavar="R", help="a name (topo list recipes) or a .toml file")
    made.add_argument("--epochs", type=int, metavar="N", help="epochs, other than the recipe's; its drops scale along")
    made.add_argument(
        "-O", dest="changes", action="append", default=[], type=change, metavar="KEY=VALUE",
        help="a key of the recipe with another value, as in lr=0.05; again for another",
    )  # fmt: skip
    made.add_argument("--device", default="auto", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:1, ...")
    made.add_argument("--size", type=int, metavar="SIDE", help="scale pictures of a folder to this many pixels")
    made.add_argument("--cache", metavar="FOLDER", help="keep decoded pictures there: for data larger than memory")
    made.add_argument("--resume", action="store_true", help="go on with the run in RUNDIR from its last epoch")
    made.add_argument("-o", dest="out", required=True, metavar="RUNDIR", help="the run folder")


def run(args: argparse.Namespace) -> int:
    data, shared = prepared(args)
    masks = None
    if args.masks != "dense":
        from topo.networks import find_wiring

        try:
            shape = args.input or (getattr(data, "shape", None) if args.inputs is None else None)
            wiring = find_wiring(args.model, shape, inputs=args.inputs)
        except TraceError:  # masks by name need no wiring
            wiring = None
        masks = inputs.read(args.masks, args, wiring)
        shared["wiring"] = wiring
    from topo.train import train

    with Progress(not quiet(args)) as progress:
        done = train(args.model, data, masks=masks, progress=progress, **shared)
    if first_process():
        speak_notes(done, data, args)
        say(printable(verdict(done)) + "\n")
        wrote(args.out, args)
    return 0


def prepared(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The data set, and the arguments that `train` and `imp` share."""
    if args.model is None:
        raise UsageError("--model says which network is trained; it is needed")
    if len({key for key, _ in args.changes}) < len(args.changes):
        raise UsageError("-O is given twice for one key")
    from topo.data import load
    from topo.data.tokens import holds_tokens
    from topo.train.recipe import find_recipe

    recipe = find_recipe(args.recipe)
    recipe = recipe.changed(**dict(args.changes)) if args.changes else recipe
    if holds_tokens(args.data, args.model):
        data = _tokens(args)
    else:
        data = load(args.data, size=args.size, cache=args.cache)
    if not quiet(args) and first_process():
        for note in data.notes:
            speak(f"topo: {printable(note)}")
    if args.resume and not quiet(args) and first_process() and not (Path(args.out) / "checkpoint.pt").exists():
        speak(f"topo: '{printable(str(args.out))}' holds no run to resume; a new one begins")
    return data, {
        "recipe": recipe,
        "epochs": args.epochs,
        "device": args.device,
        "out": args.out,
        "resume": args.resume,
        "rng": getattr(args, "seed", 0),
        "threads": getattr(args, "threads", None),
    }


def _tokens(args: argparse.Namespace) -> Any:
    """Token data, by the tokenizer of the model's folder if it has one."""
    from topo.data.tokens import has_tokenizer, load_tokens

    if args.size is not None or args.cache is not None:
        raise UsageError("--size and --cache are for pictures; these data are tokens")
    head, _, folder = args.model.partition(":")
    own = head == "hf" and has_tokenizer(Path(folder).expanduser())
    return load_tokens(args.data, tokenizer=Path(folder).expanduser() if own else None)


def first_process() -> bool:
    """Whether it is this process that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def speak_notes(record: Any, data: Any, args: argparse.Namespace) -> None:
    """What is to be known of the data that was not said when they were read: which part was held out."""
    for note in record.notes if not quiet(args) else ():
        if note not in data.notes:
            speak(f"topo: {printable(note)}")


def verdict(record: Any) -> str:
    """The final accuracy first; the best one named as what it is."""
    row, last = record.summary(), record.history[-1]
    return (
        f"final test accuracy {record.final_accuracy:.2%} (epoch {last['epoch']}, loss {record.final_loss:.4g}); "
        f"best {record.best_accuracy:.2%} in epoch {record.best_epoch}, chosen on {record.chosen_on}; "
        f"{row['seconds']:.1f} s on {record.device}"
    )


def change(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as in TOML; a bare word is text."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' changes nothing; write KEY=VALUE, as in lr=0.05")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
