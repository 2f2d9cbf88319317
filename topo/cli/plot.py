"""`topo plot`: one figure, ready for a paper."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo._support.doors import called
from topo.cli import inputs
from topo.cli.options import UsageError, check_outputs, command, network_options, plot_file
from topo.cli.output import printable, quiet, speak, wrote
from topo.errors import TopoError
from topo.masks import MaskSet


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    from topo.graph.views import VIEWS

    made = command(
        commands, parents, run, "plot",
        "draw a figure for a paper; every kind is in `topo list plots`",
        "topo plot layered_graph mask.pt --model resnet20 -o network.pdf\n"
        "  topo plot spectrum mask.pt --model resnet20 -O layer=blocks.0.conv1 -o spectrum.svg\n"
        "  topo plot layer_profile mask.pt --model resnet20 -O metric=ramanujan_gap -O null=shuffle:20 -o gap.pdf\n"
        "  topo plot accuracy_sparsity runs/* -o accuracy.pdf --venue icml",
    )  # fmt: skip
    made.add_argument("kind", metavar="KIND", help="which figure (topo list plots)")
    made.add_argument(
        "files", nargs="+", metavar="INPUT",
        help="mask files, or reports (.json of topo analyze), tables (.csv, .jsonl), run folders, as the figure takes; "
        "LABEL=INPUT gives it a label instead of its file's name (a path that exists as it is written is not a label)",
    )  # fmt: skip
    network_options(made)
    made.add_argument(
        "-O", dest="options", action="append", default=[], type=_option, metavar="KEY=VALUE",
        help="an option of the figure, again for another",
    )  # fmt: skip
    made.add_argument(
        "--null",
        action="append",
        default=[],
        metavar="FILE",
        help="masks of a null model, for a band (layer_profile, spectrum); -O null=shuffle:20 draws them",
    )
    made.add_argument(
        "--view", choices=VIEWS, help="the graph of a convolution, for figures of metrics and those with a view"
    )
    made.add_argument("--venue", default="neurips", metavar="V", help="width and type of a venue (default neurips)")
    made.add_argument("--wide", action="store_true", help="as wide as the page's text, not a column")
    made.add_argument(
        "-o", dest="out", type=plot_file, required=True, metavar="OUT", help="the file to write: .pdf, .svg or .png"
    )


def run(args: argparse.Namespace) -> int:
    from topo import plots
    from topo.plots.reading import read_options

    draw = plots.plots[args.kind]
    parameters = inspect.signature(draw).parameters
    options = read_options(args.kind, draw, _once(args.options))
    if args.view is not None:
        _take_view(args, options, parameters)
    if args.null and "null" not in parameters:
        raise UsageError(f"plot '{args.kind}' has no band for --null")
    if args.null and "null" in options:
        raise UsageError("--null and -O null are both given; a band is of one of them")
    files = _inputs(_spread(args.kind, args.files))
    check_outputs([*(item.path for item in files), *args.null], {"-o": args.out})
    data, more = _given(args, files, options, parameters)
    if "rng" in parameters:
        more["rng"] = getattr(args, "seed", 0)
    with plots.paper(args.venue, wide=args.wide):
        figure = plots.figure()
        place = {"fig": figure} if "fig" in parameters else {"ax": figure.add_subplot()}
        drawn = called(f"plot '{args.kind}'", "", draw, data, **place, **options, **more)
        if getattr(drawn, "figure", drawn) is not figure:
            raise TopoError(f"plot '{args.kind}' gives {type(drawn).__name__}; it gives the axes that it drew on")
        plots.save(figure, args.out, about=_about(args, files))
    wrote(args.out, args)
    return 0


_HASHED = 256 * 2**20  # bytes, as of provenance


def _about(args: argparse.Namespace, files: list[_Input]) -> str:
    """What the figure says of how it was made: command, version, seed, and the inputs by their content."""
    from topo._version import __version__

    hashes = {item.path: _sha256(Path(item.path)) for item in files}
    made = {"command": args.typed, "topo": __version__, "seed": getattr(args, "seed", 0), "inputs": hashes}
    return printable(json.dumps(made, ensure_ascii=True))


def _sha256(path: Path) -> str:
    """The hash of a file; of a folder that of the names and hashes of what lies in it; of large files their size."""
    found = hashlib.sha256()
    if path.is_dir():
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            found.update(f"{part.relative_to(path).as_posix()} {_sha256(part)}\n".encode(errors="surrogateescape"))
        return found.hexdigest()
    if path.stat().st_size > _HASHED:
        return f"{path.stat().st_size} bytes, not hashed"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Input:
    """A path and what it is called in the figure, as nothing else is; own: the label as it was given, if one was."""

    path: str
    label: str
    own: str = ""


def _spread(kind: str, files: list[str]) -> list[str]:
    """Of a course that is drawn of one folder of mask files, these, in the order of their names and numbers."""
    folder = Path(files[0])
    if kind != "mask_dynamics" or len(files) > 1 or not folder.is_dir() or (folder / "config.json").exists():
        return files
    if _kind(files[0]) != "masks":  # runs, rounds and sweeps know which of their files are masks
        return files
    return [str(file) for file in inputs.in_order(folder)] or files


def _inputs(texts: list[str], labels: bool = True) -> list[_Input]:
    """Paths, by their labels or by short names that tell them apart; what comes twice is numbered."""
    from topo.plots.given import numbered, stems

    split = [_labelled(text) if labels else ("", text) for text in texts]
    if not split:
        return []
    names = stems(inputs.names_of([path for _, path in split]))
    names = numbered([label or name for (label, _), name in zip(split, names)])
    return [_Input(path, name, label) for (label, path), name in zip(split, names)]


def _labelled(text: str) -> tuple[str, str]:
    """(label, path); no label for a path that exists as it is written, and before a "=" inside a missing path."""
    label, sign, path = text.partition("=")
    if not sign or not label.strip() or not path or Path(text).exists():
        return "", text
    return (label.strip(), path) if Path(path).exists() or Path(label).name == label else ("", text)


def _take_view(args: argparse.Namespace, options: dict[str, Any], parameters: Any) -> None:
    """--view as the figure's own option, or for the metrics that it shows; UsageError where it has neither."""
    from topo.plots import takes

    if "view" in parameters:
        if options.setdefault("view", args.view) != args.view:
            raise UsageError("--view and -O view are both given")
    elif "reports" not in takes[args.kind][0].split(",") or isinstance(options.get("null"), str):
        raise UsageError(f"plot '{args.kind}' has one view; --view is of figures of metrics, and of single layers")


def _option(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not an option; write KEY=VALUE, as in metric=ramanujan_gap")
    return key.strip(), value.strip()


def _once(options: list[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, value in options:
        if key in given:
            raise UsageError(f"-O {key} is given twice")
        given[key] = value
    return given


def _given(
    args: argparse.Namespace, files: list[_Input], options: dict[str, Any], parameters: Any
) -> tuple[Any, dict[str, Any]]:
    """What the figure is drawn of, and what it takes besides."""
    from topo.plots import takes
    from topo.plots.written import courses_of, evaluation_in

    of, metrics = takes[args.kind]
    kinds = {item.path: _kind(item.path) for item in files}
    part = _part(args, of.split(","), files, kinds)
    nulls = _inputs(args.null, labels=False)
    if part in ("rows", "frontiers"):
        return _rows(args, files, kinds, options, parameters), {}
    if part == "courses":
        every = [(item, *found) for item in files for found in courses_of(item.path, kinds[item.path])]
        return [({**row, "label": item.own} if item.own else row, epochs) for item, row, epochs in every], {}
    if part == "evaluation":
        if len(files) > 1:
            raise UsageError(f"plot '{args.kind}' is drawn of one JSON of topo evaluate; {len(files)} were given")
        return evaluation_in(files[0].path), {}
    if "metric" in parameters and part == "reports":
        metric = options.get("metric", parameters["metric"].default)
        metrics = ",".join(filter(None, ("kept,density,effective_params", metric, metrics)))
    written = any(kinds[item.path] in ("reports", "sweep") for item in files)
    default = parameters["null"].default if "null" in parameters else None
    rewired = isinstance(options.get("null", default), str) and not written
    if part == "reports" and not rewired:  # a null is drawn from masks, which the figure then analyses itself
        data = _reports(args, files, kinds, metrics)
        null = _reports(args, nulls, {item.path: _kind(item.path) for item in nulls}, metrics)
        return data if args.kind != "ramanujan_profile" else _only(data, args), {"null": null} if null else {}
    from topo.plots.given import Found

    read = _masks(args, _mask_files(files, kinds, args))
    wiring = next(iter(read.values()))[1]
    more = {"wiring": wiring} if "wiring" in parameters else {}
    drawn = {name: _seen(*item, options, parameters) for name, item in read.items()}
    if nulls:
        more["null"] = {name: _seen(*item, options, parameters) for name, item in _masks(args, nulls).items()}
    if part == "graphs" or ("fig" not in parameters and len(read) == 1):
        return _only(drawn, args), more
    return drawn if any(item.own for item in files) else Found(drawn), more


def _kind(path: str) -> str:
    from topo.plots.written import kind_of

    return kind_of(path)


def _part(args: argparse.Namespace, parts: list[str], files: list[_Input], kinds: dict[str, str]) -> str:
    """What the figure is made of: the first of `parts` that every input holds."""
    from topo.plots.written import HOLDERS, refused

    for part in parts:
        if all(kinds[item.path] in HOLDERS[part] for item in files):
            return part
    for item in files:
        if not any(kinds[item.path] in HOLDERS[part] for part in parts):
            raise refused(args.kind, parts, item.path, kinds[item.path])
    if set(parts) == {"frontiers", "rows"}:
        return "frontiers"
    raise UsageError(f"plot '{args.kind}' takes masks and reports, or tables; these are both: draw them one by one")


def _mask_files(files: list[_Input], kinds: dict[str, str], args: argparse.Namespace) -> list[_Input]:
    """Mask files, each with its label: those of runs, rounds and sweeps in their place."""
    from topo.plots.given import numbered
    from topo.plots.written import masks_in

    found: list[_Input] = []
    for item in files:
        held = masks_in(item.path, kinds[item.path], every=args.kind == "mask_dynamics")
        alone = len(files) == 1 and not item.own
        for name, path in held.items():
            label = name if alone and name else " ".join(filter(None, (item.label, name)))
            found.append(_Input(path, label, item.own))
    return [_Input(item.path, name, item.own) for item, name in zip(found, numbered([item.label for item in found]))]


def _rows(
    args: argparse.Namespace, files: list[_Input], kinds: dict[str, str], options: dict[str, Any], parameters: Any
) -> Any:
    """Rows of tables and runs, or frontiers by label; a label stands in the column by which rows are grouped."""
    from topo.plots.reading import read_frontier
    from topo.plots.written import rows_of_file, runs_in

    seen: set[tuple[Path, str]] = set()
    for item in files:
        place = (Path(item.path).resolve(), item.own)
        if place in seen and kinds[item.path] != "frontier":
            raise UsageError(f"'{item.path}' is given twice: what it holds would count twice")
        seen.add(place)
    found = [(item, kinds[item.path]) for item in files]
    if args.kind == "frontier" and any(item.own or kind == "frontier" for item, kind in found):
        fronts = {
            item.label: read_frontier(item.path) if kind == "frontier" else rows_of_file(item.path, kind)
            for item, kind in found
        }
        return fronts if len(fronts) > 1 or files[0].own else next(iter(fronts.values()))
    held = [(item, rows_of_file(item.path, kind)) for item, kind in found]
    if args.kind == "metric_accuracy":
        from topo.plots.run_metrics import measure

        wiring = inputs.wiring_of(args)
        wanted = [options.get(name, parameters[name].default) for name in ("metric", "baseline")]
        runs = {
            str(folder): row
            for item, rows in held
            if kinds[item.path] in ("run", "rounds")
            for folder, row in zip(runs_in(item.path, kinds[item.path]), rows)
        }
        every = [row for _, rows in held for row in rows]
        measure(runs, every, wanted, lambda masks: inputs.network(masks, wiring, args))
    group = options.get("group", parameters["group"].default) if "group" in parameters else ""
    for rows in [rows for item, rows in held if item.own]:
        _keep_families(rows, group)
    return [{**row, group: item.own} if item.own else row for item, rows in held for row in rows]


def _keep_families(rows: list[dict[str, Any]], group: str) -> None:
    """Write down which family the method of a row is of, before a label takes the method's place."""
    from topo.plots.comparable_runs import family_of
    from topo.plots.given import told

    for row in rows:
        if told(row, group) and not told(row, "family"):
            row["family"] = family_of(str(row[group]))


def _seen(masks: MaskSet, wiring: Any, options: dict[str, Any], parameters: Any) -> Any:
    """Masks as they are, or where a figure has a view as a graph: only a wiring knows the groups of convolutions."""
    if "view" not in parameters or wiring is None:
        return masks
    from topo.graph import build_graph

    return build_graph(masks, wiring, options.get("view", parameters["view"].default))


def _only(items: Any, args: argparse.Namespace) -> Any:
    items = list(items.values()) if isinstance(items, dict) else list(items)
    if len(items) != 1:
        raise UsageError(f"plot '{args.kind}' is drawn of one mask; {len(items)} were given")
    return items[0]


def _masks(args: argparse.Namespace, files: list[_Input]) -> dict[str, tuple[MaskSet, Any]]:
    """Label -> (masks, wiring or None)."""
    wiring = inputs.wiring_of(args)
    found: dict[str, tuple[MaskSet, Any]] = {}
    for item in files:
        masks = inputs.read(item.path, args, wiring)
        wired, notes = inputs.network(masks, wiring, args)
        for note in notes if not quiet(args) else []:
            speak(f"topo: {item.label}: {note}")
        found[item.label] = (masks, wired)
    return found


def _reports(args: argparse.Namespace, files: list[_Input], kinds: dict[str, str], metrics: str) -> Any:
    """Label -> report; of nodes and paths those of one label, or else of one method where every file says which."""
    from topo.analyze import analyze
    from topo.plots.given import Found, numbered, short, stems
    from topo.plots.written import reports_of

    reports, methods, names = [], [], []
    for item in files:
        if kinds[item.path] in ("reports", "sweep"):
            found = reports_of(item.path, kinds[item.path])
            labels = stems([report.mask for report in found])
            names += [" ".join(filter(None, (item.own, name if len(found) > 1 or not item.own else "")))
                      for name in labels]  # fmt: skip
        else:
            read = _masks(args, _mask_files([item], kinds, args) if kinds[item.path] != "masks" else [item])
            names += list(read)
            threads = getattr(args, "threads", None)
            found = [
                analyze(held, wired, metrics=metrics, view=args.view, threads=threads, mask_name=name)
                for name, (held, wired) in read.items()
            ]
        reports += found
        methods += [report.provenance.get("method") for report in found]
    if args.kind == "nodes_paths":
        owned = [item.own for item in files]
        if any(owned):
            groups: list[Any] = names
        elif all(isinstance(method, str) for method in methods) and len(set(methods)) < len(methods):
            groups = methods
        else:
            groups = numbered(short(names))
        return {group: [r for r, g in zip(reports, groups) if g == group] for group in dict.fromkeys(groups)}
    named = dict(zip(numbered(names), reports))
    return named if any(item.own for item in files) else Found(named)
