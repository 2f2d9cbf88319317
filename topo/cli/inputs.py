"""Mask files and the networks they belong to, as the commands are given them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo.cli.options import UsageError
from topo.cli.output import printable, quiet, speak
from topo.formats import Reading, naming, opened
from topo.masks import MaskSet
from topo.report import left_out_line
from topo.wiring import Wiring

# Commands that say above their own numbers what a file lacks; of the others it is said on standard error.
_TELLS = ("analyze", "check", "compare", "convert")


def wiring_of(args: argparse.Namespace) -> Wiring | None:
    """The wiring of --model, None without it."""
    if args.model is None:
        return None
    from topo.networks import find_wiring

    if args.input is not None and args.inputs is not None:
        raise UsageError("--input and --inputs both say what the network takes; give one of them")
    return find_wiring(args.model, args.input, inputs=args.inputs)


def understood(
    path: str, args: argparse.Namespace, wiring: Wiring | None, partial: bool = False, key: str | None = None
) -> Reading:
    """A file that was understood by the command's options, and not read yet; UsageError for two rules.

    partial: shards may be missing. key: in place of --key.
    """
    rule: list[tuple[str, float]] = getattr(args, "rule", [])
    if len(rule) > 1:
        raise UsageError("-O is given twice; one rule makes masks of scores")
    return opened(path, wiring, args.format, key=args.key if key is None else key, rule=dict(rule), partial=partial)


def read(path: str, args: argparse.Namespace, wiring: Wiring | None, key: str | None = None) -> MaskSet:
    """The masks of a file by the command's options, under `key` if that is given; UsageError for two rules."""
    reading = understood(path, args, wiring, getattr(args, "partial", False), key)
    with naming(path):
        masks = reading.masks()
    if args.command not in _TELLS and not quiet(args) and (line := left_out(masks)):
        speak(printable(f"topo: note: '{path}': {line}"))
    return masks


def left_out(masks: Mapping[str, Any] | MaskSet) -> str | None:
    """What is to be said above all numbers: that a file was read in part."""
    return left_out_line(masks.provenance.get("coverage") if isinstance(masks, MaskSet) else masks)


def rest(masks: MaskSet) -> list[str]:
    """The other notes of a reading."""
    first = left_out(masks)
    return [str(note) for note in masks.provenance.get("notes", ()) if note != first]


def network(masks: MaskSet, wiring: Wiring | None, args: argparse.Namespace) -> tuple[Wiring | None, list[str]]:
    """The wiring of --model, or of the model that the file itself names, and what is to be said about that."""
    if wiring is not None:
        return wiring, []
    from topo.networks import named_in

    if not masks.provenance.get("model"):
        given = next((option for option in ("input", "inputs") if getattr(args, option)), None)
        return None, [f"--{given} says nothing without --model"] if given else []
    return named_in(masks, args.input)


def names_of(paths: list[str]) -> list[str]:
    """Short names that tell the files apart: base names, with as many folders in front as it takes."""
    if len(set(paths)) < len(paths):  # a file that is given twice has one name
        named = dict(zip(dict.fromkeys(paths), names_of(list(dict.fromkeys(paths)))))
        return [named[path] for path in paths]
    parts = [Path(os.fsencode(path).decode("utf-8", "replace")).parts for path in paths]
    names = ["/".join(p[-1:]) for p in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        twice = {name for name in names if names.count(name) > 1}
        if not twice:
            break
        names = ["/".join(p[-depth:]) if name in twice else name for name, p in zip(names, parts)]
    return names


def in_order(folder: Path) -> list[Path]:
    """The files of a folder by name, numbers in them counting as numbers: epoch_9 before epoch_10."""

    def place(file: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]

    return sorted((file for file in folder.iterdir() if not file.name.startswith(".")), key=place)
