"""`topo analyze`: the topology of mask files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from topo.cli import inputs, language
from topo.cli.choosing import check_columns, check_values, choosing_options, columns_of, left_line, lines_of, listed
from topo.cli.options import UsageError, at_least, check_outputs, command, network_options, plot_file, rule_options
from topo.cli.output import Progress, deliver, quiet, wrote
from topo.cli.tables import Page, Table
from topo.errors import FormatError, TopoError
from topo.language import Survey
from topo.masks import MaskSet
from topo.metrics import GROUPS, Metric, chosen
from topo.report import (
    MOST_GRAPHS,
    OF_LAYERS,
    Report,
    left_out_line,
    note_lines,
    reports_to_csv,
    reports_to_html,
    reports_to_json,
)
from topo.report.numerals import shown
from topo.report.report import ORIGIN


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    from topo.graph.views import VIEWS

    made = command(
        commands, parents, run, "analyze",
        "the exact topology of mask files: effective paths, nodes and parameters, layer by layer",
        "topo analyze mask.pt --model resnet20 --json mask.json --plot mask.pdf",
    )  # fmt: skip
    made.add_argument(
        "files", nargs="+", metavar="FILE", help="a mask file or folder, written by any pruner; several make one table"
    )
    network_options(made)
    rule_options(made)
    made.add_argument(
        "--view", choices=VIEWS, help="the graph of a convolution (default: channel, and kernel for single layers)"
    )
    made.add_argument(
        "--max-edges",
        type=at_least(1),
        metavar="N",
        help="most edges of the unrolled view that may be listed (100 million)",
    )
    made.add_argument(
        "--metrics",
        default="default",
        metavar="LIST",
        help="default, all, or names and groups with commas between (topo list metrics)",
    )
    made.add_argument(
        "--layers",
        metavar="GLOB",
        help="look only at layers whose name matches, one by one, as in '*.0.*' (without the network's wiring)",
    )
    made.add_argument(
        "--group",
        metavar="PATTERN",
        help="the layers' numbers by group too: what the pattern matches in a name, as in 'layers.*' (by block) or "
        "'*_proj' (by projection); language models are grouped by block and projection anyway",
    )
    made.add_argument("--partial", action="store_true", help="a file that is read in part (a shard is missing) is fine")
    made.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint with the weights behind the masks, for weighted spectra and sums over paths",
    )
    made.add_argument(
        "--nulls",
        metavar="KIND:N,...",
        help="z-scores and p of every number against N samples of null models, as in same_layers:100 (topo list "
        "nulls); numbers of the group science get same_degrees:20 unless this says else, as none",
    )
    made.add_argument(
        "--holm", action="store_true", help="with --nulls: p adjusted for the number of all that were tested, p_holm"
    )
    choosing_options(made)
    made.add_argument(
        "--json", metavar="OUT", help="write the report as JSON; - for standard output, and nothing else there"
    )
    made.add_argument(
        "--csv", metavar="OUT", help="write a tidy CSV table; - for standard output, and nothing else there"
    )
    made.add_argument(
        "--html", metavar="OUT", help="write one page that opens offline in any browser, to sort and filter"
    )
    made.add_argument(
        "--plot", type=plot_file, metavar="OUT", help="draw densities layer by layer, as .pdf, .svg or .png"
    )


def run(args: argparse.Namespace) -> int:
    check_outputs(args.files, {"--json": args.json, "--csv": args.csv, "--html": args.html, "--plot": args.plot})
    entries = chosen(args.metrics, weights=args.weights is not None)
    if args.plot and "density" not in {entry.name for entry in entries}:
        raise UsageError("--plot draws the densities of layers: --metrics should hold density")
    if args.holm and not args.nulls:
        raise UsageError("--holm adjusts the p of null models: give --nulls too, as in --nulls same_layers:100")
    check_columns(args, _possible_columns(entries, several=len(args.files) > 1))
    wiring = inputs.wiring_of(args)
    if args.layers and wiring is not None:
        raise UsageError("--layers looks at layers one by one, without the network of --model; give one of them")
    reports, surveys, broken = [], [], []
    for number, (path, name) in enumerate(zip(args.files, inputs.names_of(args.files)), 1):
        prefix = f"{name} ({number} of {len(args.files)}), " if len(args.files) > 1 else ""
        with Progress(not quiet(args), prefix) as progress:
            report, found, error = report_of(path, name, args, wiring, progress)
        report = report if args.html and number <= MOST_GRAPHS else report.without_drawing()
        reports.append(report.with_groups(args.group) if args.group is not None else report)
        surveys.append(found)
        broken += [error] if error else []
    if args.holm:
        reports = [report.with_holm() for report in reports]
    check_columns(args, _columns(reports))
    check_values(args, reports[0].layers if len(reports) == 1 else _rows(reports))
    if args.plot:
        _plot(reports, args)
    texts = {"json": reports_to_json, "csv": reports_to_csv}
    for form, text in sorted(texts.items(), key=lambda item: getattr(args, item[0]) == "-"):
        if getattr(args, form):
            deliver(text(reports), getattr(args, form), args)
    if args.html:
        deliver(reports_to_html(reports, command=args.typed), args.html, args)
    if "-" not in (args.json, args.csv, args.html):
        page = Page()
        brief = bool({"default", "all"} & {name.strip() for name in args.metrics.split(",")})
        if len(reports) > 1:
            show_several(reports, page, args, brief)
        elif surveys[0] is not None:
            language.show(
                reports[0], surveys[0], page, lambda report, page: _body(report, page, args, brief, not brief)
            )
        else:
            show(reports[0], page, args, brief)
    if broken and not args.partial:
        raise TopoError(f"{broken[0]}; the rest was reported: --partial says that it is meant")
    return 0


def _possible_columns(entries: Sequence[Metric], several: bool) -> list[str]:
    """Columns of the table that --sort, --filter and --columns may name, as far as the metrics tell beforehand."""
    if not several:
        return ["layer", "shape", *(entry.name for entry in entries if entry.scope == "layer")]
    known = [*_OF_MASKS, *(entry.name for entry in entries if entry.scope == "network"), *sorted(_OF_LANGUAGE)]
    return [*known, *("density_asked" if name == "density" else name for name in ORIGIN), "read", "left_out"]


def _columns(reports: Sequence[Report]) -> list[str]:
    """Columns of the table that --sort, --filter and --columns may name."""
    entries = reports[0].layers if len(reports) == 1 else _rows(reports)
    return list(dict.fromkeys(key for entry in entries for key in entry))


def _rows(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """A row for each of several masks."""
    return [
        {**{name: getattr(report, name) for name in _OF_MASKS}, **report.columns, **report.network}
        for report in reports
    ]


def report_of(
    path: str, name: str, args: argparse.Namespace, wiring: Any, progress: Progress
) -> tuple[Report, Survey | None, FormatError | None]:
    """Read one file, find its network, analyse it: the report, what was counted of a language model, and why a part of
    the file could not be read."""
    from topo.analyze import analyze
    from topo.files import read_weights

    error = None
    try:
        reading = inputs.understood(path, args, wiring)
    except FormatError as refused:
        error = refused
        reading = language.retried(path, args, wiring, refused)
    if language.is_one(reading):
        return *language.analysed(path, name, args, reading, wiring, progress), error
    notes: list[str] = []
    if wiring is None and args.layers is None:
        reading, wiring, notes = language.default_model(path, args, reading)
    with inputs.naming(path):
        masks = reading.masks()
    found, more = inputs.network(masks, wiring, args)
    notes += more
    if args.layers is not None:
        selected = language.selected(list(masks), args.layers)
        known = {key: value for key, value in masks.provenance.items() if key != "model"}
        masks = MaskSet({layer: masks.rows(layer) for layer in selected}, provenance=known)
        found, notes = None, []
    report = analyze(
        masks,
        found,
        metrics=args.metrics,
        view=args.view,
        max_edges=args.max_edges,
        weights=read_weights(args.weights, masks, found) if args.weights else None,
        threads=getattr(args, "threads", None),
        mask_name=name,
        progress=progress,
        nulls=args.nulls,
        rng=getattr(args, "seed", 0),
    )
    return report.with_notes(notes), None, error


_OF_MASKS = ("mask", "format", "model", "view")
# What a terminal shows where several groups were computed: a layer in 120 columns. JSON and CSV hold everything.
_OF_NETWORK = frozenset(
    "spectral_gap spectral_ratio ramanujan_gap is_ramanujan imdb narc weighted_spectral_gap full_spectrum "
    "log10_path_norm log10_path_kernel_trace log10_synflow_flow".split()
)
_OF_LANGUAGE = frozenset(
    "heads dead_heads kv_groups dead_kv_groups experts dead_experts residual_channels dead_residual_channels "
    "mean_density min_density".split()
)


def show(report: Report, page: Page, args: argparse.Namespace, brief: bool = False) -> None:
    """One mask: the network's numbers, then the layers', then the notes. brief: chosen metrics only."""
    for line in report.headings:
        page.heading(line)
    first = left_out_line(report.coverage)
    page.notes([first] if first else [])
    _body(report, page, args, brief)


def _body(report: Report, page: Page, args: argparse.Namespace, brief: bool, layers: bool = True) -> None:
    """The tables and the notes. layers: a row for each layer too."""
    first = left_out_line(report.coverage)
    for header, lines in report.tables():
        if header[0] == "network":
            page.table(Table(header, _folded(lines, brief), left=frozenset({2, 3})))
        elif header[0] == "null":
            if against := _against(lines, brief):
                page.table(Table(header, against, left=frozenset({2})))
        elif layers or args.columns or args.sort or args.filter:
            every = len(lines)
            lines = [lines[place] for place in lines_of(report.layers, args)]
            marks = {i: "collapsed" for i, line in enumerate(lines) if line[0] in report.collapsed}
            columns = columns_of(header, 2, args)
            if columns is None:
                columns = [c for c, name in enumerate(header) if name != "sparsity" or "density" not in header]
                if brief:
                    columns = [c for c in columns if c < 2 or header[c] in OF_LAYERS]
            page.table(Table(header, lines, keys=2, marks=marks).only(columns))
            page.notes(left_line(len(lines), every, "layers"))
    if report.group is not None:
        page.table(language.group_table(report, brief))
    notes = note_lines(note for note in report.notes if not _of_null(note, report)) + report.null_lines()
    if brief:
        told = _OF_NETWORK | OF_LAYERS | _paths()
        shown_notes = (note for note in report.notes if note["metric"] is None or note["metric"] in told)
        notes = note_lines(note for note in shown_notes if not _of_null(note, report))
        notes += report.null_lines(_OF_NETWORK | _paths())
        notes.append(f"more numbers: --metrics {', '.join(GROUPS[1:])} (topo list metrics), --json")
    page.notes([note for note in notes if note != first])


def _of_null(note: Mapping[str, str | None], report: Report) -> bool:
    """Whether a note says why a z is undefined: a dash in the table, and in JSON the reason.

    Where samples were left out of a number of the network, that is said.
    """
    if note["metric"] is None or (note["layer"] is None and "left out" in str(note["note"])):
        return False
    return str(note["note"]).partition(":")[0] in {entry["null"] for entry in report.nulls}


def _against(lines: Sequence[Sequence[str]], brief: bool) -> list[Sequence[str]]:
    """Rows of null models; brief: of the metrics that the network's own table shows then."""
    told = _OF_NETWORK | _paths()
    return [line for line in lines if not brief or line[2] in told]


def _paths() -> frozenset[str]:
    return frozenset(entry.name for entry in chosen("paths"))


def _folded(lines: Sequence[Sequence[str]], brief: bool) -> list[list[str]]:
    """Rows of the network: a mean over layers says over how many, instead of in a row of its own."""
    told = _OF_NETWORK | _OF_LANGUAGE | _paths()
    counts = {name.removesuffix("_layers"): value for name, value, *_ in lines if name.endswith("_layers")}
    means = {name for name, *_ in lines} & counts.keys()
    folded = []
    for name, value, unit, view in lines:
        if name.endswith("_layers") and name.removesuffix("_layers") in means:
            continue
        if name in means:
            unit = f"{unit}, mean of {counts[name]} layer{'s' * (counts[name] != '1')}"
        if not brief or name in told:
            folded.append([name, value, unit, view])
    width = [row for row in folded if row[0] == "path_entropy_width"]
    place = next((k for k, row in enumerate(folded) if row[0] == "effective_nodes"), None)
    if brief and width and place is not None:  # where all nodes live, how many of them paths meet is in the width
        folded.remove(width[0])
        folded.insert(place + 1, width[0])
    return folded


_ACROSS = frozenset(
    "kept density effective_params effective_density effective_nodes path_entropy_width effective_units layer_collapse "
    "log10_effective_paths balance_gap flops_effective ramanujan_gap imdb".split()
)


def show_several(reports: Sequence[Report], page: Page, args: argparse.Namespace, brief: bool = False) -> None:
    """A row for each mask, the network's numbers as columns; what holds for all is said once. brief: chosen metrics."""
    common = [f"{len(reports)} masks"]
    keys = {"mask": [report.mask for report in reports]}
    for name in _OF_MASKS[1:]:
        values = [getattr(report, name) or "" for report in reports]
        if len(set(values)) > 1:
            keys[name] = values
        elif values[0]:
            common.append(f"{name} {values[0]}")
    page.heading(", ".join(common))
    partly = {report.mask: line for report in reports if (line := left_out_line(report.coverage))}
    page.notes([f"{name}: {line}" for name, line in partly.items()])
    page.notes([f"{report.mask}: {line}" for report in reports if (line := report.scope_line)])
    units = {row.metric: row.unit for report in reports for row in report.rows if row.layer is None}
    if "effective_nodes" in units and "path_entropy_width" in units:
        order = [name for name in units if name != "path_entropy_width"]
        order.insert(order.index("effective_nodes") + 1, "path_entropy_width")
        units = {name: units[name] for name in order}
    if brief and args.columns is None:
        units = {metric: unit for metric, unit in units.items() if metric in _ACROSS}
    asked = [name for name in dict.fromkeys(listed(args.columns)) if name not in units and name not in _OF_MASKS]
    every = reports
    reports = [reports[place] for place in lines_of(_rows(reports), args)]
    keys = {name: [values[every.index(report)] for report in reports] for name, values in keys.items()}
    lines = [
        [values[i] for values in keys.values()]
        + [_told(report.columns.get(name)) for name in asked]
        + [shown(report.network[m], unit) if m in report.network else "" for m, unit in units.items()]
        for i, report in enumerate(reports)
    ]
    marks = {i: "collapsed" for i, report in enumerate(reports) if report.collapsed}
    left = frozenset(range(len(keys), len(keys) + len(asked)))
    table = Table([*keys, *asked, *units], lines, keys=len(keys), marks=marks, left=left)
    columns = columns_of(table.header, len(keys), args, above=_OF_MASKS)
    page.table(table if columns is None else table.only(columns))
    page.notes(left_line(len(reports), len(every), "masks"))
    against = [
        [report.mask, *line]
        for report in reports
        for header, lines_of in report.tables()
        if header[0] == "null"
        for line in _against(lines_of, brief)
    ]
    if against:
        header = next(header for report in reports for header, _ in report.tables() if header[0] == "null")
        page.table(Table(["mask", *header], against, keys=2, left=frozenset({3})))
    told = _OF_NETWORK | _paths() if brief else None
    explained = [f"{report.mask}: {line}" for report in reports for line in report.null_lines(told)]
    page.notes(_notes_of_several(reports) + explained)


def _told(value: Any) -> str:
    """Where a mask comes from, in a cell."""
    return "" if value is None else value if isinstance(value, str) else shown(value)


def _notes_of_several(reports: Sequence[Report]) -> list[str]:
    """Notes on networks, with the masks that they are about unless all; notes on layers are left out here."""
    masks: dict[str, list[str]] = {}
    for report in reports:
        shown_notes = (note for note in report.notes if note["layer"] is None and not _of_null(note, report))
        for line in note_lines(shown_notes):
            if line == left_out_line(report.coverage):
                continue  # said above the numbers
            masks.setdefault(line, []).append(report.mask)
    return [line if len(names) == len(reports) else f"{', '.join(names)}: {line}" for line, names in masks.items()]


def _plot(reports: Sequence[Report], args: argparse.Namespace) -> None:
    from topo import plots

    with plots.paper():
        figure = plots.figure()
        plots.density_profile(list(reports), ax=figure.add_subplot())
        plots.save(figure, args.plot)
    wrote(args.plot, args)
