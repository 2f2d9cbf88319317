"""`topo check`: yes or no, by exit code."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topo.check import FAILURES, Finding, check, chosen, matches
from topo.cli import inputs, language
from topo.cli.answers import Answer, as_json, as_junit
from topo.cli.options import UsageError, check_outputs, command, fraction, network_options, rule_options
from topo.cli.output import Progress, deliver, one_line, printable, quiet, say, speak
from topo.errors import TopoError
from topo.formats import naming
from topo.formats.coverage import size_of
from topo.formats.fitting import paired
from topo.language import DECODER, Filled, merged, output_first, part_of, read_adapter, read_config
from topo.language.parts import decoder_layers
from topo.masks import MaskSet
from topo.n_m import parse_n_m
from topo.report import few, note_lines
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
    given = (args.contains, args.n_m, args.max_density, args.min_density, args.max_layer_density)
    if all(value is None for value in given) and not args.fail_on and args.adapter is None:
        asked = "--contains, --n-m, --max-density, --min-density, --max-layer-density, --adapter or --fail-on"
        raise UsageError(f"nothing to check: give {asked}")
    read = [path for path in (*args.files, args.contains, args.adapter) if path]
    check_outputs(read, {"--json": args.json, "--junit": args.junit})
    wiring = inputs.wiring_of(args)
    answers: list[Answer] = []
    for path in args.files:
        try:
            answers.append(_answer(path, args, wiring))
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


def _answer(path: str, args: argparse.Namespace, wiring: Wiring | None) -> Answer:
    """What one file is answered."""
    asked = _read(path, args, wiring)
    masks = asked.masks
    contains = other = None
    if args.contains:
        other = _read(args.contains, args, wiring)
        contains = paired(masks, other.masks)
        _refuse_incomparable(path, masks, contains, args)
    scoped, aside = asked.in_scope(contains)
    names = chosen(scoped, args.layers)
    before, forecast = scoped, list[Filled]()
    if args.adapter is not None:
        scoped, forecast = merged(scoped, read_adapter(args.adapter))
    if contains is not None and other is not None and asked.is_language_model and args.layers is None:
        looked_at = [name for name in contains if name in scoped or part_of(name) == DECODER]
        contains = _only(contains, looked_at).with_provenance(coverage=other.coverage(contains, looked_at))
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
    requested = {
        "contains": args.contains,
        "n-m": args.n_m,
        "max-density": args.max_density,
        "min-density": args.min_density,
        "max-layer-density": args.max_layer_density,
    }
    requested = {name: value for name, value in requested.items() if value is not None}
    alone = not requested and not args.fail_on
    if alone:
        found += [
            Finding("adapter", entry.layer, _fills(entry), None, entry.filled) for entry in forecast if entry.filled
        ]
    checks = [f"{name} {value}" for name, value in requested.items()]
    checks += [_HOLDS[failure] for failure in args.fail_on]
    checks += [f"a merge of {args.adapter} fills no zero"] if alone else []
    partly = {
        name: line
        for name, held in ((path, before), (args.contains, contains))
        if held is not None and (line := inputs.left_out(held))
    }
    lines = [f"note: {line}" if len(partly) == 1 else f"note: {name}: {line}" for name, line in partly.items()]
    if not found and partly and not args.partial and args.layers is None:
        part, line = next(iter(partly.items()))
        for said in lines if len(args.files) == 1 and args.json != "-" else []:
            say(printable(said) + "\n")
        raise TopoError(f"no yes over a part of '{part}': {line}; --layers PATTERN or --partial says that it is meant")
    sizes = [(scoped.rows(name).kept(), scoped.rows(name).size) for name in names]
    kept, size = sum(n for n, _ in sizes), sum(size for _, size in sizes)
    if not found:
        layers = "1 layer" if len(names) == 1 else f"{len(names)} layers"
        lines.append(f"yes: {', '.join(checks)} ({layers}, {kept:,} of {size:,} parameters kept)")
    first = {finding.check: finding for finding in reversed(found)}
    for name, finding in reversed(first.items()):
        more = sum(other.check == name for other in found) - 1
        tail = f" (and in {more} more {'layer' if more == 1 else 'layers'})" if more else ""
        lines.append(f"no: {name}: {finding.message}{tail}")
    told = [*aside, *_forecast(forecast, before, args), *notes]
    lines += [f"note: {note}" for note in told if note not in partly.values()]
    named = [*requested, *args.fail_on, *(["adapter"] if alone else [])]
    return Answer(
        path, tuple(named), tuple(found), tuple(lines), kept, size, before.provenance.get("coverage"),
        notes=tuple(line.removeprefix("note: ") for line in lines if line.startswith("note: ")),
    )  # fmt: skip


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
        scope = f"scope: the decoder's {len(decoder)} linear layers"
        if len(names) > len(decoder):
            scope += f" and {len(names) - len(decoder)} more that B prunes"
        scope += "; embeddings and head are left aside, --layers '*' looks at all"
        return _only(self.masks, names).with_provenance(coverage=self.coverage(self.masks, names)), [scope]

    def coverage(self, masks: MaskSet, names: Sequence[str]) -> dict[str, Any]:
        """How much of the decoder was read: these layers, and what of it was left out."""
        missing = {name: size for name, size in self.left_out.items() if part_of(name) == DECODER}
        size = sum(masks.rows(name).size for name in names)
        return {"read": size, "left_out": sum(missing.values()), "names": list(missing)}


def _read(path: str, args: argparse.Namespace, wiring: Wiring | None) -> _Asked:
    """The masks of a file; of a language model output-first, also where not one weight is zero: that answers no."""
    reading = inputs.understood(path, args, wiring, args.partial)
    whole = language.is_one(reading) and bool(decoder_layers(reading.tensors))
    with naming(path):
        if whole:
            reading = output_first(reading, read_config(path))
        masks = reading.masks(dense=whole)
    left = {name: size_of(stored, tensor) for name, (stored, tensor) in reading.outside.items()}
    return _Asked(masks, whole, {**left, **reading.lost}, args.layers is not None)


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


def _refuse_incomparable(path: str, masks: MaskSet, contains: MaskSet, args: argparse.Namespace) -> None:
    """TopoError for two files that share no layer, or hold one in different shapes: that is no "no"."""
    wanted = [name for name in contains if matches(name, args.layers)]
    shared = [name for name in wanted if name in masks]
    if wanted and not shared:
        raise TopoError(
            f"'{path}' and '{args.contains}' cannot be compared: they share no layer; A has "
            f"'{next(iter(masks))}', ..., B has '{next(iter(contains))}', ..."
        )
    for name in shared:
        ours, theirs = masks.rows(name).shape, contains.rows(name).shape
        if ours != theirs:
            raise TopoError(
                f"'{path}' and '{args.contains}' cannot be compared: '{name}' has shape {ours} but {theirs} in B"
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
