"""`topo check`: yes or no, by exit code."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from topo._support.names import unknown
from topo.check import FAILURES, Finding, beyond_densities, check, chosen, matches, over_n_m
from topo.cli import inputs, language
from topo.cli.answers import Answer, as_json, as_junit
from topo.cli.options import UsageError, check_outputs, command, fraction, network_options, rule_options
from topo.cli.output import Progress, deliver, one_line, printable, quiet, say, speak
from topo.containers.together import shard_of
from topo.errors import TopoError
from topo.formats import Reading, naming
from topo.formats.coverage import size_of
from topo.formats.fitting import paired
from topo.language import DECODER, Filled, merged, output_first, part_of, read_adapter, read_config, survey
from topo.language.parts import decoder_layers
from topo.language.survey import as_matrix
from topo.masks import MaskSet
from topo.n_m import parse_n_m
from topo.report import few, left_out_line, note_lines
from topo.report.numerals import finite
from topo.wiring import Wiring

NO = 3
_HOLDS = {"layer-collapse": "no layer has collapsed", "no-paths": "paths are left"}


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "check",
        "answer yes or no about a mask by exit code (0 yes, 3 no), with the first place where each check fails",
        "topo check finetuned.safetensors --contains mask.pt --n-m 2:4 --layers 'layer*'",
    )  # fmt: skip
    made.add_argument("files", nargs="+", metavar="A", help="a mask file or folder; each of several is answered for")
    made.add_argument("--contains", metavar="B", help="is every parameter that the mask B prunes pruned in A too?")
    made.add_argument("--n-m", type=_n_m, metavar="N:M", help="are at most N kept of M consecutive inputs?")
    made.add_argument("--max-density", type=fraction, metavar="D", help="is no more than this share kept?")
    made.add_argument("--min-density", type=fraction, metavar="D", help="is at least this share kept?")
    made.add_argument(
        "--max-layer-density", type=fraction, metavar="D", help="is no more than this share kept in each layer?"
    )
    made.add_argument(
        "--fail-on", type=_failures, default=[], metavar="LIST", help=f"say no on any of: {','.join(FAILURES)}"
    )
    made.add_argument(
        "--adapter",
        metavar="LORA",
        help="answer for A as it is after a merge of this LoRA adapter (folder or file), and say which layers go dense",
    )
    made.add_argument(
        "--layers",
        metavar="PATTERN",
        help="look only at layers whose name matches, as in 'layer1.*' (default: all; of a language model the linear "
        "layers of its decoder)",
    )
    made.add_argument("--partial", action="store_true", help="say yes also where a file was read in part")
    made.add_argument(
        "--json", metavar="OUT", help="write the answers as JSON; - for standard output, and nothing else there"
    )
    made.add_argument("--junit", metavar="OUT", help="write the answers as JUnit's XML, which CI services show")
    network_options(made)
    rule_options(made)


def run(args: argparse.Namespace) -> int:
    nothing = not _requested(args) and not args.fail_on
    if nothing and args.adapter is None:
        asked = "--contains, --n-m, --max-density, --min-density, --max-layer-density, --adapter or --fail-on"
        raise UsageError(f"nothing to check: give {asked}")
    read = [path for path in (*args.files, args.contains, args.adapter) if path]
    check_outputs(read, {"--json": args.json, "--junit": args.junit})
    wiring = inputs.wiring_of(args)
    answers: list[Answer] = []
    for path in args.files:
        try:
            answers.append(_answer(argparse.Namespace(**vars(args), file=path), wiring, nothing))
        except TopoError as error:
            if len(args.files) == 1 and not (args.json or args.junit):
                raise
            answers.append(Answer(path, error=str(error)))
    if args.json != "-":
        for answer in answers:
            prefix = f"{answer.file}: " if len(answers) > 1 else ""
            for line in answer.lines:
                say(printable(prefix + line) + "\n")
    for form, text in ((args.junit, as_junit), (args.json, as_json)):
        if form:
            deliver(text(answers), form, args)
    failed = [answer for answer in answers if answer.error]
    for answer in failed:
        speak(f"topo: {one_line(str(answer.error))}")
    return 1 if failed else NO if any(answer.found for answer in answers) else 0


def _requested(args: argparse.Namespace) -> dict[str, Any]:
    """Check -> its bound or file, of those that were asked for; --fail-on stands by itself."""
    every = {
        "contains": args.contains,
        "n-m": args.n_m,
        "max-density": args.max_density,
        "min-density": args.min_density,
        "max-layer-density": args.max_layer_density,
    }
    return {name: value for name, value in every.items() if value is not None}


def _answer(args: argparse.Namespace, wiring: Wiring | None, nothing: bool) -> Answer:
    """What one file, args.file, is answered."""
    reading = inputs.understood(args.file, args, wiring, args.partial)
    by_bits = args.contains is not None or args.adapter is not None or args.fail_on
    is_language_model = language.is_one(reading) and bool(decoder_layers(reading.tensors))
    if is_language_model and reading.inferred and not by_bits:
        return _said(_by_counts(reading, args), args, nothing)
    return _said(_by_bits(reading, is_language_model, args, wiring, nothing), args, nothing)


@dataclass(frozen=True)
class _Found:
    """Where the checks fail, (kept, size) of each layer that was looked at, file -> what of it was left out, notes."""

    found: Sequence[Finding]
    sizes: Sequence[tuple[int, int]]
    partly: Mapping[str, str]
    notes: Sequence[str]


def _by_counts(reading: Reading, args: argparse.Namespace) -> _Found:
    """N:M and densities of a language model, in one pass that keeps no mask."""
    n_m = None if args.n_m is None else parse_n_m(args.n_m)
    with naming(args.file):
        reading = output_first(reading, read_config(args.file))
        names = [name for name in reading.tensors if args.layers is not None or part_of(name) == DECODER]
        names = language.selected(names, args.layers)
        kept = replace(reading, tensors={name: reading.tensors[name] for name in names})
        with Progress(not quiet(args)) as progress:
            threads = getattr(args, "threads", None)
            counted = survey(
                kept, None, patterns=[n_m] if n_m else [], threads=threads, progress=progress.line, beside=False
            )
    found = []
    if n_m is not None:
        over = [name for name in names if counted.counts[name].over[n_m]]
        if over:  # the place is looked up in the first layer alone
            with naming(args.file):
                first = over_n_m(over[0], as_matrix(over[0], reading.tensors[over[0]]).bits(over[0]), *n_m)
            found += [first] if first else []
            found += [Finding("n-m", name, f"'{name}'", None, counted.counts[name].over[n_m]) for name in over[1:]]
    sizes = {name: (counted.counts[name].kept, counted.counts[name].size) for name in names}
    found += beyond_densities(sizes, args.max_density, args.min_density, args.max_layer_density)
    left = {
        name: size_of(reading.source, stored, tensor) for name, (stored, tensor) in reading.outside.items()
    } | reading.lost
    missing = {name: size for name, size in left.items() if args.layers is not None or part_of(name) == DECODER}
    size = sum(size for _, size in sizes.values())
    line = left_out_line({"read": size, "left_out": sum(missing.values()), "names": list(missing)})
    partly = {args.file: line} if line else {}
    aside = [] if args.layers is not None else [_scope(len(names))]
    return _Found(found, list(sizes.values()), partly, [*aside, *counted.odd])


def _by_bits(
    reading: Reading, is_language_model: bool, args: argparse.Namespace, wiring: Wiring | None, nothing: bool
) -> _Found:
    """Every check, on masks."""
    said: list[str] = []
    if args.fail_on and is_language_model and wiring is None:
        reading, wiring, said = language.default_model(args.file, args, reading)
    asked = _read(reading, args.file, is_language_model, args)
    contains = other = None
    if args.contains:
        theirs = inputs.understood(args.contains, args, wiring, args.partial)
        other = _read(theirs, args.contains, language.is_one(theirs), args)
        contains = paired(asked.masks, other.masks)
        _refuse_incomparable(asked.masks, contains, args)
    scoped, aside = asked.in_scope(contains)
    names = chosen(scoped, args.layers)
    before, forecast = scoped, list[Filled]()
    if args.adapter is not None:
        scoped, forecast = merged(scoped, read_adapter(args.adapter))
    if contains is not None and other is not None and asked.is_language_model and args.layers is None:
        looked_at = [name for name in contains if name in scoped or part_of(name) == DECODER]
        size = sum(contains.rows(name).size for name in looked_at)
        contains = _only(contains, looked_at).with_provenance(coverage=other.coverage(size))
    report, notes, assumed = _report(scoped, wiring, args) if args.fail_on else (None, [], False)
    found = check(
        scoped,
        contains=contains,
        n_m=args.n_m,
        max_density=args.max_density,
        min_density=args.min_density,
        max_layer_density=args.max_layer_density,
        fail_on=args.fail_on,
        layers=args.layers,
        report=report,
        assumed=assumed,
    )
    if nothing:
        found += [
            Finding("adapter", entry.layer, _fills(entry), None, entry.filled) for entry in forecast if entry.filled
        ]
    partly = {
        path: line
        for path, held in ((args.file, before), (args.contains, contains))
        if held is not None and (line := inputs.left_out(held))
    }
    sizes = [(scoped.rows(name).kept(), scoped.rows(name).size) for name in names]
    return _Found(found, sizes, partly, [*aside, *_forecast(forecast, before, args), *said, *notes])


def _shards(args: argparse.Namespace) -> dict[str, str]:
    """Path -> the note on a file that is one shard of several, where no model says that it holds all layers."""
    if args.model:
        return {}
    paths = [path for path in (args.file, args.contains) if path and not Path(path).is_dir()]
    return {path: note for path in paths if (note := shard_of(Path(path).name))}


def _said(answer: _Found, args: argparse.Namespace, nothing: bool) -> Answer:
    """The answer with its lines; TopoError for a yes over a part that was not asked for."""
    found, partly = answer.found, {**_shards(args), **answer.partly}
    first = {finding.check: finding for finding in reversed(found)}
    requested = _requested(args)
    checks = [f"{name} {value}" for name, value in requested.items()]
    checks += [_HOLDS[failure] for failure in args.fail_on]
    checks += [f"a merge of {args.adapter} fills no zero"] if nothing else []
    lines = [f"note: {line}" if len(partly) == 1 else f"note: {path}: {line}" for path, line in partly.items()]
    if not found and partly and not args.partial and args.layers is None:
        path, line = next(iter(partly.items()))
        for said in lines if len(args.files) == 1 and args.json != "-" else []:
            say(printable(said) + "\n")
        raise TopoError(f"no yes over a part of '{path}': {line}; --layers PATTERN or --partial says that it is meant")
    kept, size = sum(n for n, _ in answer.sizes), sum(size for _, size in answer.sizes)
    if not found:
        layers = "1 layer" if len(answer.sizes) == 1 else f"{len(answer.sizes)} layers"
        lines.append(f"yes: {', '.join(checks)} ({layers}, {kept:,} of {size:,} parameters kept)")
    for name, finding in reversed(first.items()):
        more = sum(other.check == name for other in found) - 1
        tail = f" (and in {more} more {'layer' if more == 1 else 'layers'})" if more else ""
        lines.append(f"no: {name}: {finding.message}{tail}")
    lines += [f"note: {note}" for note in answer.notes if note not in partly.values()]
    named = (*requested, *args.fail_on, *(["adapter"] if nothing else []))
    notes = tuple(line.removeprefix("note: ") for line in lines if line.startswith("note: "))
    return Answer(args.file, named, tuple(found), tuple(lines), kept, size, notes=notes)


def _scope(layers: int, more: int = 0) -> str:
    beside = f" and {more} more that B prunes" if more else ""
    return (
        f"scope: the decoder's {layers} linear layers{beside}; embeddings and head are left aside, --layers '*' looks "
        "at all"
    )


@dataclass(frozen=True)
class _Asked:
    """A file that is checked: its masks, and whether they are a language model's."""

    masks: MaskSet
    is_language_model: bool
    left_out: Mapping[str, int]
    by_layers: bool

    def in_scope(self, contains: MaskSet | None) -> tuple[MaskSet, list[str]]:
        """The masks that are looked at, and a line that says so: of a language model the linear layers of its decoder,
        and what B prunes beside them, unless layers are named."""
        if not self.is_language_model or self.by_layers:
            return self.masks, []
        pruned = [n for n in contains or () if n in self.masks and contains.rows(n).kept() < contains.rows(n).size]  # type: ignore[union-attr]
        decoder = decoder_layers(self.masks)
        names = [name for name in self.masks if name in decoder or name in pruned]
        size = sum(self.masks.rows(name).size for name in names)
        scoped = _only(self.masks, names).with_provenance(coverage=self.coverage(size))
        return scoped, [_scope(len(decoder), len(names) - len(decoder))]

    def coverage(self, read: int) -> dict[str, Any]:
        """How much of the decoder was read, and what of it was left out."""
        missing = {name: size for name, size in self.left_out.items() if part_of(name) == DECODER}
        return {"read": read, "left_out": sum(missing.values()), "names": list(missing)}


def _read(reading: Reading, path: str, is_language_model: bool, args: argparse.Namespace) -> _Asked:
    """The masks of a file; of a language model output-first, also where not one weight is zero: that answers no."""
    with naming(path):
        if is_language_model:
            reading = output_first(reading, read_config(path))
        masks = reading.masks(dense=is_language_model)
    left = {name: size_of(reading.source, stored, tensor) for name, (stored, tensor) in reading.outside.items()}
    return _Asked(masks, is_language_model, {**left, **reading.lost}, args.layers is not None)


def _only(masks: MaskSet, names: Sequence[str]) -> MaskSet:
    return MaskSet({name: masks.rows(name) for name in names}, provenance=masks.provenance)


def _fills(entry: Filled) -> str:
    dense = ", and is dense then" if entry.filled == entry.pruned else ""
    return f"'{entry.layer}' loses {entry.filled:,} of its {entry.pruned:,} zeros in the merge{dense}"


def _forecast(forecast: Sequence[Filled], masks: MaskSet, args: argparse.Namespace) -> list[str]:
    """What a merge of the adapter does, in two lines."""
    if args.adapter is None:
        return []
    dense = [entry.layer for entry in forecast if entry.filled == entry.pruned]
    partly = [entry.layer for entry in forecast if 0 < entry.filled < entry.pruned]
    filled = sum(entry.filled for entry in forecast)
    zeros = sum(masks.rows(name).size - masks.rows(name).kept() for name in masks)
    lines = [f"after a merge of {args.adapter}: {filled:,} of {zeros:,} zeros are filled"]
    if dense:
        lines.append(f"{len(dense)} of {len(masks)} layers go dense: {few(dense)}")
    if partly:
        lines.append(f"{len(partly)} of {len(masks)} layers lose a part of their zeros: {few(partly)}")
    return lines


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
            raise argparse.ArgumentTypeError(unknown("answer to fail on", name, FAILURES))
    return list(dict.fromkeys(requested))
