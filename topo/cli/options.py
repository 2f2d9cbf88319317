"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any

from topo._support.atomic import writable
from topo.errors import TopoError

PLOT_ENDINGS = (".pdf", ".svg", ".png")


class UsageError(TopoError):
    """Arguments that are understood but cannot be used together: exit code 2."""


class Once(argparse.Action):
    """Store a value, as argparse does of itself; a second one is wrong usage, not a silent change of mind."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest, self.default) is not self.default:
            raise argparse.ArgumentError(self, "it is given twice")
        setattr(namespace, self.dest, values)


def common() -> argparse.ArgumentParser:
    """Options of every command, accepted before and after its name."""
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = options.add_argument_group("common options")
    group.add_argument("--seed", type=at_least(0), metavar="N", help="seed of whatever is drawn at random (default 0)")
    group.add_argument("--threads", type=at_least(1), metavar="N", help="threads to work with (default: all cores)")
    group.add_argument("--quiet", action="store_true", help="no progress and no warnings")
    group.add_argument("--profile", action="store_true", help="say at the end where the time went")
    group.add_argument("--debug", action="store_true", help="show where an error comes from")
    return options


def command(
    commands: Any, parents: list[argparse.ArgumentParser], run: Any, name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    """Enter a command with its help; `run(args) -> exit code`."""
    made = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=parents,
        allow_abbrev=False,
    )
    made.register("action", None, Once)
    made.set_defaults(run=run, command=name)
    return made


def network_options(made: argparse.ArgumentParser, keys: bool = False) -> None:
    """--model, --input, --format and --key: how mask files are read. keys: --key may be given for each of several."""
    made.add_argument(
        "--model",
        metavar="M",
        help="the network: a built-in name (resnet20, resnet18:classes=200), mlp:784-300-100-10, file.py:factory, "
        "package.module:factory (with arguments: file.py:factory:width=16), hf:FOLDER, or a wiring saved as .json",
    )
    made.add_argument(
        "--input", type=_shape, metavar="SHAPE",
        help="input of the network without the batch: 3x32x32, ids:16 (tokens), or several: a=1x8,b=ids:16",
    )  # fmt: skip
    made.add_argument(
        "--inputs", metavar="FILE", help="example inputs of the network in its place: .json, .npz or .pt, by argument"
    )
    made.add_argument(
        "--format", metavar="NAME", help="format of the mask files, if it is not to be found out (topo list formats)"
    )
    action: Any = "append" if keys else None
    made.add_argument(
        "--key", metavar="PATH", action=action,
        help="the place in the file that is meant, where it holds several: masks, ema, pruner/masks"
        + ("; again for the next file, in their order" if keys else ""),
    )  # fmt: skip


def rule_options(made: argparse.ArgumentParser) -> None:
    """-O topk and -O threshold: how files of scores are read."""
    made.add_argument(
        "-O", dest="rule", action="append", default=[], type=_rule, metavar="KEY=VALUE",
        help="for files of scores: topk=0.5 (the share that each layer keeps) or threshold=0 (keep what is above)",
    )  # fmt: skip


def _rule(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if key not in ("topk", "threshold") or number != number or (key == "topk" and not 0 <= number <= 1):
        raise argparse.ArgumentTypeError(f"'{text}' should be topk=SHARE, from 0 to 1, or threshold=SCORE")
    return key, number


def layers_option(made: argparse.ArgumentParser) -> None:
    """--layers: which layers are masked."""
    made.add_argument(
        "--layers", action="append", metavar="GLOB",
        help="mask the layers of this name or pattern alone, as in 'blocks.*'; again for more (default: every linear "
        "layer and convolution)",
    )  # fmt: skip


def plot_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PLOT_ENDINGS:
        raise argparse.ArgumentTypeError(f"'{text}' should end in {', '.join(PLOT_ENDINGS[:-1])} or {PLOT_ENDINGS[-1]}")
    return path


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a fraction; it is a number from 0 to 1")
    return value


def _shape(text: str) -> Any:
    from topo.networks import parse_input

    try:
        return parse_input(text)
    except TopoError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least(least: int, most: int | None = None) -> Any:
    """The type of a whole number from `least` on, up to `most` where more would only be a slip that takes years."""
    meant = f"{least} or more" if most is None else f"from {least} to {most:,}"

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"'{text}' should be a whole number, {meant}")
        return value

    return number


def check_outputs(inputs: list[str], outputs: dict[str, str | Path | None]) -> None:
    """Before any work: each output can be written and is not an input; no two are the same. '-' is standard output."""
    read = {_place(path) for path in inputs}
    written: dict[object, str] = {}
    for option, out in outputs.items():
        if out is None:
            continue
        if str(out) != "-":
            writable(out)
        place = "-" if str(out) == "-" else _place(out)
        if place in written:
            raise UsageError(f"{written[place]} and {option} both write to '{out}'")
        if place in read:
            raise UsageError(f"{option} would overwrite the mask file '{out}'")
        if place is not None:
            written[place] = option


def _place(path: str | Path) -> object:
    """What two names of one file have in common, links of either kind followed; None for devices and pipes."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return None
    return found.st_dev, found.st_ino
