"""`topo compare`: what two mask files share, or what several have in common."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from topo._version import __version__
from topo.cli import inputs, language
from topo.cli.options import UsageError, check_outputs, command, network_options, rule_options
from topo.cli.output import Progress, deliver, quiet
from topo.cli.tables import Page, Table
from topo.compare import Comparison, compare, distances, trajectory
from topo.errors import WiringError
from topo.formats import naming
from topo.formats.fitting import paired
from topo.language import DECODER, output_first, part_of, read_config
from topo.language.parts import decoder_layers
from topo.masks import MaskSet
from topo.report import Report, few, left_out_line, note_lines
from topo.report.groups import is_language_model
from topo.report.numerals import decimal, finite, shown
from topo.wiring import Wiring, chain

_NETWORK = (
    "kept",
    "effective_params",
    "effective_nodes",
    "path_entropy_width",
    "effective_units",
    "effective_paths",
    "log10_effective_paths",
)


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    from topo.graph.views import VIEWS

    made = command(
        commands, parents, run, "compare",
        "what two masks of one network share, layer by layer; of several: densities, nodes, paths, overlaps",
        "topo compare before.pt after.pt --model resnet20\n"
        "  topo compare run.pt run.pt --key model --key ema\n"
        "  topo compare synflow.safetensors snip.safetensors balance.safetensors --model resnet20\n"
        "  topo compare runs/set/masks --model resnet20",
    )  # fmt: skip
    made.add_argument(
        "a",
        metavar="A",
        help="a mask file or folder; a folder of mask files alone: their course, in the order of names",
    )
    made.add_argument("b", metavar="B", nargs="?", help="another")
    made.add_argument("more", metavar="C", nargs="*", default=[], help="and others")
    network_options(made, keys=True)
    rule_options(made)
    made.add_argument("--view", choices=VIEWS, help="the graph of the network's numbers (default: channel)")
    made.add_argument(
        "--json", metavar="OUT", help="write the numbers as JSON; - for standard output, and nothing else there"
    )


def run(args: argparse.Namespace) -> int:
    from topo.analyze import analyze

    if args.b is None:
        return _course(args)
    paths = [args.a, args.b, *args.more]
    check_outputs(paths, {"--json": args.json})
    wiring = inputs.wiring_of(args)
    keys = _keys(args.key, len(paths))
    names = inputs.names_of(paths)
    if len(set(keys)) > 1:
        names = [name if key is None else f"{name} {key}" for name, key in zip(names, keys)]
    held = [_read(path, args, wiring, key) for path, key in zip(paths, keys)]
    held = [held[0], *(paired(held[0], masks) for masks in held[1:])]
    found = [[compare(a, b) for b in held] for a in held] if args.more else [[compare(*held)]]
    reports, wires = [], []
    for masks, name in zip(held, names):
        wired, notes = inputs.network(masks, wiring, args)
        threads = getattr(args, "threads", None)
        with Progress(not quiet(args), f"{name}, ") as progress:
            report = analyze(
                masks, wired, metrics=_NETWORK, view=args.view, threads=threads, mask_name=name, progress=progress
            )
        reports.append(report.with_notes(notes))
        wires.append(wired)
    far, reasons = _distances(held, wires)
    if args.more:
        _several(args, names, held, reports, found, far, reasons)
    else:
        _two(args, names, reports, found[0][0], {name: rows[0][1] for name, rows in far.items()}, reasons)
    return 0


_LARGEST = 60_000_000  # parameters of masks whose units are matched


def _distances(
    held: Sequence[MaskSet], wires: Sequence[Wiring | None]
) -> tuple[dict[str, list[list[float]]], list[str]]:
    """Distance -> of every pair, over the layers of both; {} with the reason for large masks and other networks."""
    if (most := max(masks.size for masks in held)) > _LARGEST:
        return {}, [f"distances of graphs are left out: a mask has {most:,} parameters, above {_LARGEST:,}"]
    if any(wired is not None and wires[0] is not None and wired.shapes != wires[0].shapes for wired in wires):
        return {}, ["distances of graphs are left out: the masks are of different networks"]
    pairs = {(i, j): _far(held[i], held[j], wires[0]) for i in range(len(held)) for j in range(i + 1, len(held))}
    zero = {name: 0.0 if value == value else value for name, value in pairs[0, 1].items()}
    found = {
        name: [
            [zero[name] if i == j else pairs[min(i, j), max(i, j)][name] for j in range(len(held))]
            for i in range(len(held))
        ]
        for name in zero
    }
    unmatched = not is_language_model(held[0]) and any(math.isnan(pair["nnstd"]) for pair in pairs.values())
    return found, ["nnstd is undefined without the network's wiring: name --model"] if unmatched else []


def _far(a: MaskSet, b: MaskSet, wiring: Wiring | None) -> dict[str, float]:
    """Distances of two masks in their network, or else in the chain of the layers of both."""
    shared = [name for name in a if name in b]
    wiring = _chained(MaskSet({name: a.rows(name) for name in shared}), wiring)
    return distances(a, b, wiring if wiring is not None and set(shared) <= set(wiring.shapes) else None)


def _course(args: argparse.Namespace) -> int:
    """A folder of masks, in order: what is born and dies from each to the next, and how far they are from the first."""
    folder = Path(args.a)
    check_outputs([args.a], {"--json": args.json})
    files = inputs.in_order(folder) if folder.is_dir() else []
    if len(files) < 2 or (folder / "config.json").exists():
        raise UsageError(f"one mask is compared with others: name another, or a folder of mask files, not '{args.a}'")
    wiring = inputs.wiring_of(args)
    keys = _keys(args.key, len(files))
    series = {file.name: _read(str(file), args, wiring, key) for file, key in zip(files, keys)}
    wired, notes = inputs.network(next(iter(series.values())), wiring, args)
    chained = _chained(next(iter(series.values())), wired)
    steps = trajectory(series, chained)
    if chained is not wired and chained is not None:
        notes = [*notes, *chained.notes]
    notes = [*notes, *(f"{name}: {line}" for name, masks in series.items() for line in _told(masks))]
    if args.json:
        document = {
            "schema": "topo-course/1",
            "version": __version__,
            "folder": args.a,
            "steps": [{k: _finite(v) if isinstance(v, float) else v for k, v in step.items()} for step in steps],
            "coverage": [masks.provenance.get("coverage") for masks in series.values()],
            "notes": notes,
        }
        deliver(json.dumps(document, allow_nan=False, indent=1) + "\n", args.json, args)
    if args.json != "-":
        page = Page()
        page.heading(f"{args.a}, {len(files)} masks in order")
        page.table(Table(list(steps[0]), [[step["mask"], *map(shown, list(step.values())[1:])] for step in steps]))
        page.notes(notes)
    return 0


def _told(masks: MaskSet) -> list[str]:
    """What was left out of a file, and the other notes of its reading."""
    partly = inputs.left_out(masks)
    return [*([partly] if partly else []), *inputs.rest(masks)]


def _chained(masks: MaskSet, wired: Wiring | None) -> Wiring | None:
    """The wiring, or that of a plain chain, as `topo analyze` takes it."""
    if wired is not None or is_language_model(masks):
        return wired
    try:
        return chain(masks)
    except WiringError:
        return None


def _read(path: str, args: argparse.Namespace, wiring: Wiring | None, key: str | None) -> MaskSet:
    """The masks of a file; of a language model those of its decoder's linear layers, output-first, dense ones too."""
    reading = inputs.understood(path, args, wiring, key=key)
    decoder = decoder_layers(reading.tensors) if language.is_one(reading) else []
    with naming(path):
        if not decoder:
            return reading.masks()
        masks = output_first(reading, read_config(path)).masks(set(decoder), dense=True)
    lost = {name: size for name, size in reading.lost.items() if part_of(name) == DECODER}
    coverage = {"read": masks.size, "left_out": sum(lost.values()), "names": list(lost)}
    scope = f"scope: the decoder's {len(decoder)} linear layers"
    before = inputs.left_out(masks)
    said = [note for note in inputs.rest(masks) if note != before and not language.ANSWERED.search(note)]
    return masks.with_provenance(coverage=coverage, notes=[scope, *said])


def _keys(given: list[str] | None, count: int) -> list[str | None]:
    """The key of each file: one for all, or one for each; UsageError for another number."""
    if given is None or len(given) == 1:
        return [None if given is None else given[0]] * count
    if len(given) != count:
        raise UsageError(f"--key is given {len(given)} times for {count} files; give it once, or once for each")
    return list(given)


def _two(
    args: argparse.Namespace,
    names: Sequence[str],
    reports: list[Report],
    found: Comparison,
    far: Mapping[str, float],
    reasons: Sequence[str],
) -> None:
    remarks = [{"metric": None, "layer": None, "note": line} for line in [*_remarks(reports), *reasons]]
    found = replace(found, notes=(*remarks, *found.notes))
    wired_both = all(finite(report.network["effective_paths"]) for report in reports)
    network = {side: _numbers(report) for side, report in zip("ab", reports)} if wired_both else {}
    if args.json:
        apart = {name: _finite(value) for name, value in far.items()}
        text = found.to_json(a=names[0], b=names[1], network=network, distances=apart, coverage=_coverage(reports))
        deliver(text, args.json, args)
    if args.json != "-":
        page = Page()
        page.heading(f"A = {names[0]}, B = {names[1]}")
        page.notes(_partly(reports))
        if wired_both:
            page.table(_network_table(reports))
        if far and not found.groups:
            page.table(Table(["distance of graphs", "A, B"], [[name, shown(value)] for name, value in far.items()]))
        for by in dict.fromkeys(entry["by"] for entry in found.groups):
            page.table(_group_table(by, found.groups))
        if not found.groups:
            page.table(_layer_table(found.total, found.layers))
        else:
            page.table(_layer_table(found.total, ()))
        page.notes([line for line in note_lines(found.notes) if line not in _partly(reports, alone=True)])


def _several(
    args: argparse.Namespace,
    names: Sequence[str],
    held: Sequence[MaskSet],
    reports: list[Report],
    found: Sequence[Sequence[Comparison]],
    far: Mapping[str, Sequence[Sequence[float]]],
    reasons: Sequence[str],
) -> None:
    """Network numbers, the density of every layer and the overlap of every pair, a column for each mask set."""
    sides = _sides(len(names))
    layers = {name: shape for masks in held for name, shape in masks.shapes.items()}
    density = {
        name: [masks.rows(name).kept() / masks.rows(name).size if name in masks else math.nan for masks in held]
        for name in layers
    }
    overlap = [[float(pair.total["overlap"]) for pair in row] for row in found]
    notes = [*_remarks(reports), *_missing(held), *reasons]
    if args.json:
        document = {
            "schema": "topo-compare-several/1",
            "version": __version__,
            "masks": list(names),
            "network": [_numbers(report) for report in reports],
            "layers": [
                {"layer": name, "shape": list(shape), "density": [_finite(d) for d in density[name]]}
                for name, shape in layers.items()
            ],
            "overlap": [[_finite(value) for value in row] for row in overlap],
            "distances": {name: [[_finite(value) for value in row] for row in rows] for name, rows in far.items()},
            "coverage": _coverage(reports),
            "notes": notes,
        }
        deliver(json.dumps(document, allow_nan=False, indent=1) + "\n", args.json, args)
    if args.json != "-":
        page = Page()
        page.heading(", ".join(f"{side} = {name}" for side, name in zip(sides, names)))
        page.notes(_partly(reports))
        page.table(_network_table(reports))
        lines = [[n, "x".join(map(str, shape)), *map(shown, density[n])] for n, shape in layers.items()]
        page.table(Table(["density of layer", "shape", *sides], lines, keys=2))
        for name, rows in {"overlap": overlap, **far}.items():
            page.table(Table([name, *sides], [[side, *map(shown, row)] for side, row in zip(sides, rows)]))
        page.notes([line for line in notes if line not in _partly(reports, alone=True)])


def _coverage(reports: Sequence[Report]) -> list[Any]:
    return [report.coverage and dict(report.coverage) for report in reports]


def _partly(reports: Sequence[Report], alone: bool = False) -> list[str]:
    """What no mask covers, a line for each mask set; alone: as the notes below have it where it holds for all."""
    lines = [left_out_line(report.coverage) for report in reports]
    sides = [f"{side}: {line}" for side, line in zip(_sides(len(lines)), lines) if line]
    return [*sides, *(line for line in lines if line)] if alone else sides


def _missing(held: Sequence[MaskSet]) -> list[str]:
    """Which layers are masked in some only, so that an overlap is of those that both hold."""
    layers = dict.fromkeys(name for masks in held for name in masks)
    lacking = {side: [n for n in layers if n not in masks] for side, masks in zip(_sides(len(held)), held)}
    return [
        f"{side} has no mask for {few(names)}; its overlaps are of the layers that both hold"
        for side, names in lacking.items()
        if names
    ]


def _sides(count: int) -> list[str]:
    """A, B, ..., Z, then numbers."""
    return [chr(ord("A") + k) if k < 26 else str(k + 1) for k in range(count)]


def _finite(value: float) -> float | None:
    return value if finite(value) else None


def _remarks(reports: list[Report]) -> list[str]:
    """What is to be said of the masks as a whole; what holds for all, once."""
    lines = [note_lines(note for note in report.notes if note["metric"] is None) for report in reports]
    sides = [(side, line) for side, said in zip(_sides(len(lines)), lines) for line in said]
    shared = set(lines[0]).intersection(*lines[1:])
    models = dict.fromkeys(report.model for report in reports if report.model)
    if len(models) > 1:
        sides.append(("", f"the masks are of different networks: {', '.join(models)}"))
        shared.add(sides[-1][1])
    return list(dict.fromkeys(line if line in shared else f"{side}: {line}" for side, line in sides))


def _numbers(report: Report) -> dict[str, Any]:
    exact = {name: decimal(int(n)) for name, n in report.network.items() if name == "effective_paths" and finite(n)}
    return {name: number if finite(number) else None for name, number in report.network.items()} | exact


def _network_table(reports: list[Report]) -> Table:
    units = {row.metric: (row.unit, row.view) for row in reports[0].rows if row.layer is None}
    lines = [
        [name, *(shown(report.network[name], unit) for report in reports), unit, view]
        for name, (unit, view) in units.items()
        if all(name in report.network for report in reports)
    ]
    sides = _sides(len(reports))
    return Table(["network", *sides, "unit", "view"], lines, left=frozenset({len(sides) + 1, len(sides) + 2}))


def _group_table(by: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """Groups of one kind, a line each; neighbouring blocks with equal numbers are one line."""
    members = [entry for entry in groups if entry["by"] == by]
    columns = [key for key in members[0] if key not in ("by", "group")]
    lines: list[list[str]] = []
    for entry in members:
        cells = [shown(entry[key]) for key in columns]
        if by == "block" and lines and lines[-1][1:] == cells:
            lines[-1][0] = f"{lines[-1][0].partition('-')[0]}-{entry['group']}"
        else:
            lines.append([entry["group"], *cells])
    return Table([by, *columns], lines)


def _layer_table(total: Mapping[str, Any], layers: tuple[Mapping[str, Any], ...]) -> Table:
    def line(entry: Mapping[str, Any]) -> list[str]:
        return [
            entry.get("layer", "total"),
            "x".join(map(str, entry.get("shape", ()))),
            *(shown(entry[key]) for key in total),
        ]

    return Table(["layer", "shape", *total], [line(entry) for entry in (*layers, total)], keys=2)
