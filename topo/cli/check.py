"""`topo check`: yes or no, by exit code."""

from __future__ import annotations

import argparse
from typing import Any

from topo.check import FAILURES, check, chosen, matches
from topo.cli import inputs
from topo.cli.options import UsageError, command, fraction, network_options, rule_options
from topo.cli.output import Progress, printable, quiet, say
from topo.errors import TopoError
from topo.formats.fitting import paired
from topo.masks import MaskSet
from topo.n_m import parse_n_m
from topo.report import note_lines
from topo.report.numerals import finite

NO = 3
_HOLDS = {"layer-collapse": "no layer has collapsed", "no-paths": "paths are left"}


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "check",
        "answer yes or no about a mask by exit code (0 yes, 3 no), with the first place where each check fails",
        "topo check finetuned.safetensors --contains mask.pt --n-m 2:4 --layers 'layer*'",
    )  # fmt: skip
    made.add_argument("file", metavar="A", help="a mask file or folder")
    made.add_argument("--contains", metavar="B", help="is every parameter that the mask B prunes pruned in A too?")
    made.add_argument("--n-m", type=_n_m, metavar="N:M", help="are at most N kept of M consecutive inputs?")
    made.add_argument("--max-density", type=fraction, metavar="D", help="is no more than this share kept?")
    made.add_argument(
        "--fail-on", type=_failures, default=[], metavar="LIST", help=f"say no on any of: {','.join(FAILURES)}"
    )
    made.add_argument("--layers", metavar="PATTERN", help="look only at layers whose name matches, as in 'layer1.*'")
    made.add_argument("--partial", action="store_true", help="say yes also where a file was read in part")
    network_options(made)
    rule_options(made)


def run(args: argparse.Namespace) -> int:
    if args.contains is None and args.n_m is None and args.max_density is None and not args.fail_on:
        raise UsageError("nothing to check: give --contains, --n-m, --max-density or --fail-on")
    wiring = inputs.wiring_of(args)
    masks = inputs.read(args.file, args, wiring)
    contains = inputs.read(args.contains, args, wiring) if args.contains else None
    if contains is not None:
        contains = paired(masks, contains)
        _refuse_incomparable(masks, contains, args)
    names = chosen(masks, args.layers)
    report, notes, assumed = _report(masks, wiring, args) if args.fail_on else (None, [], False)
    found = check(
        masks,
        contains=contains,
        n_m=args.n_m,
        max_density=args.max_density,
        fail_on=args.fail_on,
        layers=args.layers,
        report=report,
        assumed=assumed,
    )
    first = {finding.check: finding for finding in reversed(found)}
    requested = {"contains": args.contains, "n-m": args.n_m, "max-density": args.max_density}
    checks = [f"{name} {value}" for name, value in requested.items() if value is not None]
    checks += [_HOLDS[failure] for failure in args.fail_on]
    partly = {
        path: line
        for path, held in ((args.file, masks), (args.contains, contains))
        if held is not None and (line := inputs.left_out(held))
    }
    for path, line in partly.items():
        say(printable(f"note: {line}" if len(partly) == 1 else f"note: {path}: {line}") + "\n")
    if not found and partly and not args.partial and args.layers is None:
        path, line = next(iter(partly.items()))
        raise TopoError(f"no yes over a part of '{path}': {line}; --layers PATTERN or --partial says that it is meant")
    if not found:
        sizes = [(masks.rows(name).kept(), masks.rows(name).size) for name in names]
        kept = f"{sum(n for n, _ in sizes):,} of {sum(size for _, size in sizes):,} parameters kept"
        layers = "1 layer" if len(names) == 1 else f"{len(names)} layers"
        say(printable(f"yes: {', '.join(checks)} ({layers}, {kept})") + "\n")
    for name, finding in reversed(first.items()):
        more = sum(other.check == name for other in found) - 1
        tail = f" (and in {more} more {'layer' if more == 1 else 'layers'})" if more else ""
        say(printable(f"no: {name}: {finding.message}{tail}") + "\n")
    for note in notes:
        if note in partly.values():
            continue
        say(printable(f"note: {note}") + "\n")
    return NO if found else 0


def _refuse_incomparable(masks: MaskSet, contains: MaskSet, args: argparse.Namespace) -> None:
    """TopoError for two files that share no layer, or hold one in different shapes: that is no "no"."""
    wanted = [name for name in contains if matches(name, args.layers)]
    shared = [name for name in wanted if name in masks]
    if wanted and not shared:
        raise TopoError(
            f"'{args.file}' and '{args.contains}' cannot be compared: they share no layer; A has "
            f"'{next(iter(masks))}', ..., B has '{next(iter(contains))}', ..."
        )
    for name in shared:
        ours, theirs = masks.rows(name).shape, contains.rows(name).shape
        if ours != theirs:
            raise TopoError(
                f"'{args.file}' and '{args.contains}' cannot be compared: '{name}' has shape {ours} but {theirs} in B"
            )


def _report(masks: Any, wiring: Any, args: argparse.Namespace) -> tuple[Any, list[str], bool]:
    """What is known of paths, the notes that go with the answer, and whether it rests on an assumed chain."""
    from topo.analyze import analyze

    wired, notes = inputs.network(masks, wiring, args)
    with Progress(not quiet(args)) as progress:
        threads = getattr(args, "threads", None)
        report = analyze(masks, wired, metrics="effective_params,effective_paths", threads=threads, progress=progress)
    report = report.with_notes(notes)
    remarks = note_lines(note for note in report.notes if note["metric"] is None)
    if not finite(report.network["effective_paths"]):
        remarks.append("without wiring a layer counts as collapsed when it keeps nothing")
    return report, remarks, wired is None


def _n_m(text: str) -> str:
    try:
        parse_n_m(text)
    except TopoError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.strip()


def _failures(text: str) -> list[str]:
    requested = [part.strip() for part in text.split(",")]
    for name in requested:
        if name not in FAILURES:
            raise argparse.ArgumentTypeError(f"'{name}' is nothing to fail on; there are: {', '.join(FAILURES)}")
    return list(dict.fromkeys(requested))
