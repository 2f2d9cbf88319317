"""Language models on the command line: which way a folder is read, its model by default, and its table of blocks."""

from __future__ import annotations

import argparse
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from topo import formats
from topo.cli.output import Progress, printable, quiet, speak
from topo.cli.tables import Page, Table
from topo.errors import FormatError, TopoError
from topo.formats import Reading
from topo.language import DECODER, Survey, numbers, part_of, read_config, survey
from topo.language.parts import decoder_layers
from topo.language.survey import WORTH_SAYING
from topo.language.table import block_table, read_line, scope_line
from topo.masks import MaskSet
from topo.metrics import chosen
from topo.report import Report, left_out_line
from topo.report.groups import is_language_model
from topo.report.numerals import shown
from topo.wiring import Wiring

# Beyond this many parameters the default is what one pass tells: spectra and paths are to be asked for.
LARGE = 200_000_000
ANSWERED = re.compile(r"embeddings? left out: ")


def is_one(reading: Reading) -> bool:
    """Whether a file holds a language model, by the names in it."""
    return is_language_model([*reading.tensors, *reading.outside])


def by_counts(reading: Reading, args: argparse.Namespace) -> bool:
    """Whether the counts of one pass are the answer, so that no mask need be kept."""
    if args.model or args.nulls or args.weights or args.view:
        return False
    if args.metrics.strip() == "default":
        return sum(tensor.size for tensor in reading.tensors.values()) > LARGE
    return numbers.told_by_counts(args.metrics)


def analysed(
    path: str, name: str, args: argparse.Namespace, reading: Reading, wiring: Wiring | None, progress: Progress
) -> tuple[Report, Survey]:
    """The report of a language model, and what was counted of it."""
    from topo.analyze import analyze
    from topo.files import read_weights

    with formats.naming(path):
        config = read_config(path)
        names = decoder_layers(reading.tensors) or list(reading.tensors)
        keep = [] if by_counts(reading, args) else [name for name in names if _is_selected(name, args.layers)]
        found = survey(reading, config, threads=getattr(args, "threads", None), progress=progress.line, keep=keep)
        _read(found, name, args)
        reading.remarks({layer: held.kept for layer, held in found.counts.items()}, {})  # refuses what is dense
    kept = selected(list(found.decoder or found.counts), args.layers)
    if by_counts(reading, args):
        default = args.metrics.strip() == "default"
        metrics = numbers.DEFAULT if default else args.metrics
        made = numbers.report(found.only(kept) if args.layers else found, name, metrics, reading.reader.name)
        said = [note for note in reading.source.notes if not ANSWERED.search(note)]
        if default:
            said.append(
                f"paths and spectra are not in the default beyond {LARGE // 1_000_000} million parameters: "
                "--metrics paths, or --metrics spectral --layers '*.0.*'"
            )
        return made.with_notes(said), found
    notes: list[str] = []
    if wiring is None and args.layers is None and any(entry.wired for entry in chosen(args.metrics)):
        reading, wiring, notes = default_model(path, args, reading)
        found = _as_the_model(found, reading)
    with formats.naming(path):
        names = decoder_layers(reading.tensors) or list(reading.tensors)
        masks = reading.masks(set(selected(names, args.layers)), known=found.masks)
    masks = answered(masks, found)
    weights = read_weights(args.weights, masks, wiring) if args.weights else None
    made = analyze(
        masks,
        wiring,
        metrics=args.metrics,
        view=args.view,
        max_edges=args.max_edges,
        weights=weights,
        threads=getattr(args, "threads", None),
        mask_name=name,
        progress=progress,
        nulls=args.nulls,
        rng=getattr(args, "seed", 0),
    )
    made = made.with_notes(notes)
    return numbers.with_survey(made, found, () if args.layers else None), found


def selected(names: list[str], pattern: str | None) -> list[str]:
    """Those of the names that match a pattern; TopoError if none does."""
    matching = [name for name in names if _is_selected(name, pattern)]
    if not matching:
        raise TopoError(f"no layer matches '{pattern}'; there are: {', '.join(names[:8])}, ...")
    return matching


def _is_selected(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(name, pattern)


def answered(masks: MaskSet, found: Survey) -> MaskSet:
    """The masks of the decoder, whose notes no longer say of embeddings and the head what the survey tells better."""
    before = left_out_line(masks.provenance.get("coverage"))
    said = [note for note in masks.provenance.get("notes", ()) if note != before and not ANSWERED.search(str(note))]
    line = left_out_line(found.coverage)
    return masks.with_provenance(coverage=found.coverage, notes=[*([line] if line else []), *said])


def default_model(path: str, args: argparse.Namespace, reading: Reading) -> tuple[Reading, Wiring | None, list[str]]:
    """The file read with the network of its folder's config.json where the names of both fit, and what is to be said.

    They fit where each linear layer of the blocks that one has the other has too, in the same shape.
    """
    if not (Path(path) / "config.json").is_file():
        return reading, None, []
    from topo.networks import find_wiring

    model = f"hf:{path}"
    try:
        wiring = find_wiring(model, args.input, inputs=args.inputs)
        if reading.source.container.missing:
            formats.opened(path, wiring)  # says what is missing
        fitted = reading.with_network(wiring, args.format, args.key, dict(args.rule))
        unlike = _unlike(fitted, wiring)
    except TopoError as error:
        return reading, None, [f"the network of config.json is not used: {error}"]
    if unlike:
        return reading, None, [f"the network of config.json is not used: {unlike}"]
    return fitted, wiring, ["the folder's own config.json is the model"]


def _as_the_model(found: Survey, reading: Reading) -> Survey:
    """The survey under the model's names, which may have a prefix that those of the file lack."""
    first = next(iter(found.decoder), None)
    whole = next((name for name in reading.tensors if first is not None and name.endswith(f".{first}")), None)
    return found if whole is None else found.under(whole.removesuffix(str(first)))


def _unlike(reading: Reading, wiring: Wiring) -> str | None:
    """Where the file and the network do not fit, None where they do."""
    ours = {name: tensor.shape for name, tensor in reading.tensors.items() if part_of(name) == DECODER}
    theirs = {name: shape for name, shape in wiring.shapes.items() if part_of(name) == DECODER}
    extra = [name for name in reading.outside if part_of(name) == DECODER]
    if extra or not ours:
        return f"it has no layer '{next(iter(extra), 'in a block')}'"
    missing = next((name for name in theirs if name not in ours), None)
    if missing:
        return f"the file has no weights of its layer '{missing}'"
    odd = next((name for name, shape in ours.items() if theirs.get(name, shape) != shape), None)
    return f"its layer '{odd}' has shape {theirs[odd]}, the file's {ours[odd]}" if odd else None


def _read(found: Survey, name: str, args: argparse.Namespace) -> None:
    """How fast it was, on standard error, for what took a while."""
    if not quiet(args) and found.bytes >= WORTH_SAYING:
        rate = found.bytes / found.seconds / 1e9
        speak(f"topo: {printable(name)}: read {read_line(found)}: {rate:.1f} GB/s")


def show(report: Report, found: Survey, page: Page, told: Any) -> None:
    """One language model: what was read, its scopes, its blocks, the network's numbers, the notes.

    told(report, page): shows the numbers and notes of a report, without its heading.
    """
    page.heading(f"{report.headings[0]}: {read_line(found)}")
    page.notes([line for line in [left_out_line(report.coverage)] if line])
    page.heading(scope_line(found))
    if found.decoder:
        header, lines, folded = block_table(found)
        page.table(Table(header, lines))
        if folded:
            page.notes(["equal blocks are folded"])
    told(report, page)


_GROUP_COLUMNS = ("kept", "density", "effective_params", "dead_in", "dead_out", "n_m_2_4", "sigma2", "ramanujan_gap")


def group_table(report: Report, brief: bool) -> Table:
    """A row for each group of the report, its numbers as columns. brief: the most used ones alone."""
    units = {row.metric: row.unit for row in report.rows if row.layer is not None}
    columns = [name for name in units if any(name in entry for entry in report.groups)]
    columns = [name for name in columns if not brief or name in _GROUP_COLUMNS]
    lines = [
        [entry["group"], str(entry["layers"]), f"{entry['params']:,}"]
        + [shown(entry[name], units[name]) if name in entry else "" for name in columns]
        for entry in report.groups
    ]
    return Table(["group", "layers", "params", *columns], lines)


def retried(path: str, args: argparse.Namespace, wiring: Wiring | None, error: FormatError) -> Reading:
    """What can be read of a folder some of whose shards cannot; the error itself where that is nothing."""
    try:
        reading = formats.opened(path, wiring, args.format, key=args.key, rule=dict(args.rule), partial=True)
    except FormatError:
        raise error from None
    if not reading.source.container.missing:
        raise error
    return reading
