"""`topo convert`: masks of any format into a file that any reader understands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from topo.cli import inputs
from topo.cli.options import UsageError, check_outputs, command, network_options, rule_options
from topo.cli.output import printable, say, wrote
from topo.files import write_masks


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "convert",
        "write the masks of a file in another format: .safetensors (with provenance) or .npz",
        "topo convert mask.pkl mask.safetensors --model resnet20",
    )  # fmt: skip
    made.add_argument("source", metavar="IN", help="a mask file or folder, written by any pruner")
    made.add_argument("target", metavar="OUT", help="the file to write; its ending says the format")
    made.add_argument("--force", action="store_true", help="write OUT also where it is IN, or lies in the folder IN")
    network_options(made)
    rule_options(made)


def run(args: argparse.Namespace) -> int:
    check_outputs([], {"OUT": args.target})
    if not args.force and _within(args.target, args.source):
        raise UsageError(f"OUT would overwrite the mask file '{args.target}'; --force says that it is meant")
    wiring = inputs.wiring_of(args)
    masks = inputs.read(args.source, args, wiring)
    if wiring is not None:
        shape = {"input_shape": list(wiring.input_shape)} if wiring.input_shape else {}
        masks = masks.with_provenance(model=args.model, **shape)
    write_masks(masks, args.target)
    if first := inputs.left_out(masks):
        say(printable(f"note: {first}") + "\n")
    found = f" ({masks.provenance['format']})" if masks.provenance.get("format") else ""
    say(
        printable(
            f"{len(masks)} masks{found}, {masks.kept:,} of {masks.size:,} parameters kept, density {masks.density:.4f}"
        )
        + "\n"
    )
    for note in inputs.rest(masks):
        say(printable(f"note: {note}") + "\n")
    wrote(args.target, args)
    return 0


def _within(target: str, source: str) -> bool:
    """Whether the target is there already, as the source or in it."""
    try:
        if os.path.samefile(target, source):
            return True
    except (OSError, ValueError):
        return False
    return Path(source).is_dir() and Path(target).resolve().is_relative_to(Path(source).resolve())
