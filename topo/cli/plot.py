"""`topo plot`: one figure, ready for a paper."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from topo.cli import inputs
from topo.cli.options import UsageError, check_outputs, command, network_options, plot_file
from topo.cli.output import quiet, speak, wrote
from topo.errors import TopoError
from topo.masks import MaskSet


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
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
        help="mask files, or reports (.json of topo analyze), tables (.csv, .jsonl), run folders, as the figure takes",
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
    if args.null and "null" not in parameters:
        raise UsageError(f"plot '{args.kind}' has no band for --null")
    if args.null and "null" in options:
        raise UsageError("--null and -O null are both given; a band is of one of them")
    check_outputs([*args.files, *args.null], {"-o": args.out})
    data, more = _given(args, options, parameters)
    if "rng" in parameters:
        more["rng"] = getattr(args, "seed", 0)
    with plots.paper(args.venue, wide=args.wide):
        figure = plots.figure()
        place = {"fig": figure} if "fig" in parameters else {"ax": figure.add_subplot()}
        draw(data, **place, **options, **more)
        plots.save(figure, args.out)
    wrote(args.out, args)
    return 0


def _option(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is no option; write KEY=VALUE, as in metric=ramanujan_gap")
    return key.strip(), value.strip()


def _once(options: list[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, value in options:
        if key in given:
            raise UsageError(f"-O {key} is given twice")
        given[key] = value
    return given


def _given(args: argparse.Namespace, options: dict[str, Any], parameters: Any) -> tuple[Any, dict[str, Any]]:
    """What the figure is drawn of, and what it takes besides."""
    from topo.plots import takes
    from topo.plots.reading import TABLES, is_reports, is_run, read_frontier, read_rows

    of, metrics = takes[args.kind]
    tabled = [path for path in args.files if Path(path).suffix.lower() in TABLES or is_run(path)]
    if of == "rows" or (tabled and args.kind == "nodes_paths"):
        if args.kind == "frontier" and all(is_reports(path) for path in args.files):
            fronts = {name: read_frontier(p) for p, name in zip(args.files, inputs.names_of(args.files))}
            return fronts if len(fronts) > 1 else next(iter(fronts.values())), {}
        return [row for path in args.files for row in read_rows(path)], {}
    if tabled:
        raise TopoError(f"plot '{args.kind}' is drawn of masks; '{tabled[0]}' is a table or a run")
    if "metric" in parameters and of == "reports":
        metric = options.get("metric", parameters["metric"].default)
        metrics = f"kept,density,effective_params,{'density' if metric == 'effective_density' else metric}"
    rewired = isinstance(options.get("null"), str) and not any(map(is_reports, args.files))
    if of == "reports" and not rewired:  # a null is drawn from masks, which the figure then analyses itself
        data = _reports(args, args.files, metrics, grouped=args.kind == "nodes_paths")
        null = _reports(args, args.null, metrics)
        return data if args.kind != "ramanujan_profile" else _only(data, args), {"null": null} if null else {}
    read = _masks(args, args.files)
    wiring = next(iter(read.values()))[1]
    more = {"wiring": wiring} if "wiring" in parameters else {}
    drawn = {name: _seen(*item, options, parameters) for name, item in read.items()}
    if args.null:
        more["null"] = {name: _seen(*item, options, parameters) for name, item in _masks(args, args.null).items()}
    if of == "graphs" or ("fig" not in parameters and len(read) == 1):
        return _only(drawn, args), more
    return drawn, more


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


def _masks(args: argparse.Namespace, paths: list[str]) -> dict[str, tuple[MaskSet, Any]]:
    """Short name -> (masks, wiring or None)."""
    wiring = inputs.wiring_of(args)
    found: dict[str, tuple[MaskSet, Any]] = {}
    for path, name in zip(paths, inputs.names_of(paths)):
        masks = inputs.read(path, args, wiring)
        wired, notes = inputs.network(masks, wiring, args)
        for note in notes if not quiet(args) else []:
            speak(f"topo: {name}: {note}")
        found[name] = (masks, wired)
    return found


def _reports(args: argparse.Namespace, paths: list[str], metrics: str, grouped: bool = False) -> Any:
    """A list of reports; grouped: by the method that made the masks, where every file says which."""
    from topo.analyze import analyze
    from topo.plots.reading import is_reports, read_reports

    reports, methods = [], []
    masks = [path for path in paths if not is_reports(path)]
    read = _masks(args, masks) if masks else {}
    names = dict(zip(masks, inputs.names_of(masks))) if masks else {}
    for path in paths:
        if is_reports(path):
            found = read_reports(path)
            reports += found
            methods += [None] * len(found)
            continue
        held, wired = read[names[path]]
        threads = getattr(args, "threads", None)
        reports.append(analyze(held, wired, metrics=metrics, threads=threads, mask_name=names[path]))
        methods.append(held.provenance.get("method"))
    if grouped and all(isinstance(method, str) for method in methods) and len(set(methods)) < len(methods):
        return {method: [r for r, m in zip(reports, methods) if m == method] for method in dict.fromkeys(methods)}
    return reports
