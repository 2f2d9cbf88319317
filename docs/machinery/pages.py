"""Pages written from the registries and from the command line's own parsers, while the site is built.

A line `<!-- generated: metrics -->` of a Markdown page becomes the text of the function `metrics` below, and so with
every name in `GENERATED`. No list of what there is stands in the pages themselves. A link to a file of the repository
that is not a page of the site (`../notebooks/README.md`) is a link where the page is read in the repository, and names
the file in the site.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from machinery.docstrings import described, restructured

_LINK = re.compile(r"\[([^\]]+)\]\((\.\.[^)]*)\)")
_PLACE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|$#~^])")
_CODE = re.compile(r"`([^`]+)`")
_BAR = re.compile(r"(?<!\\)\|")
HERE = Path(__file__).resolve().parents[1]


def text(value: Any) -> str:
    """Plain text as Markdown that shows it as it is; `code` stays code."""
    parts = _CODE.split(" ".join(str(value).split()))
    return "".join(f"`{part}`" if k % 2 else _MARKUP.sub(r"\\\1", part) for k, part in enumerate(parts))


def code(value: Any) -> str:
    return f"`{value}`"


def table(header: list[str], lines: Iterable[list[str]]) -> Iterator[str]:
    """Bars are escaped here, in code too: elsewhere code shows the backslash."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for line in lines:
        yield "| " + " | ".join(_BAR.sub(r"\|", cell) for cell in line) + " |"
    yield ""


def docstring(function: Any) -> Iterator[str]:
    """A docstring, in a block of reStructuredText."""
    yield from ["```{eval-rst}", *restructured(function.__doc__ or "", described(function)), "```", ""]


def options(found: dict[str, Any]) -> str:
    return ", ".join(code(f"{name}={value}") for name, value in found.items()) or "none"


# -- from registries


def metrics() -> Iterator[str]:
    """By group: a metric in a line, that of layers and that of the network together."""
    from topo.metrics import GROUPS
    from topo.metrics import metrics as registry

    for group in GROUPS:
        entries = [entry for entry in registry.values() if entry.group == group]
        names = dict.fromkeys(entry.name for entry in entries)
        counts = [name for name in names if name.endswith("_layers") and name.removesuffix("_layers") in names]
        yield from [f"## {group}", ""]
        lines = []
        for name in names:
            if name not in counts:
                lines.append(_metric_line(name, [entry for entry in entries if entry.name == name]))
        yield from table(["metric, *unit*", "what it is", "view", "source"], lines)
        if counts:
            yield "Beside each mean over layers stands the number of layers that it is a mean of: "
            yield ", ".join(code(name) for name in counts) + "."
            yield ""


def _metric_line(name: str, entries: list[Any]) -> list[str]:
    entries = sorted(entries, key=lambda entry: entry.scope != "layer")
    meanings = []
    for entry in entries:
        whole = " ".join((entry.function.__doc__ or "").split())
        if len(entries) > 1 and entry.scope == "network" and whole.endswith(entries[0].doc):
            whole = whole.removesuffix(entries[0].doc).rstrip(" :")
        needs = [word for word, flag in (("wiring", entry.wired), ("weights", entry.weighted)) if flag]
        mark = f" *Needs {' and '.join(needs)}.*" if needs else ""
        head = f"**{entry.scope}**: " if len(entries) > 1 else ""
        meanings.append(f"{head}{text(whole)}{mark}")
    views = dict.fromkeys("network" if entry.view == "network" else "single layer" for entry in entries)
    units, sources = (dict.fromkeys(getattr(entry, side) for entry in entries) for side in ("unit", "source"))
    scopes = ", ".join(entry.scope for entry in entries)
    return [
        f"{code(name)}<br>*{text(', '.join(units))}*",
        "<br>".join(meanings) if len(entries) > 1 else f"**{scopes}**: {meanings[0]}",
        ", ".join(views),
        "<br>".join(map(text, sources)),
    ]


def generators() -> Iterator[str]:
    from topo.generators import generators as registry

    for name, entry in registry.items():
        exact = {
            "layers": "every layer keeps exactly its budget",
            "total": "the network keeps exactly its budget, layers nearly",
            "no": f"the structure forbids an exact budget: {entry.keeps or 'the nearest it has'}",
        }[entry.exact]
        quota = "its own" if entry.fixed else f"`{entry.quota}` unless told otherwise"
        budget = "from the masks it is given" if entry.rewires else quota
        yield from _method(name, entry.function, entry, [("Budgets", f"{budget}; {exact}")])


def optimizers() -> Iterator[str]:
    from topo.optimize import methods as registry

    for name, entry in registry.items():
        yield from _method(name, entry.function, entry, [])


def pruners() -> Iterator[str]:
    from topo.pruners import pruners as registry

    for name, entry in registry.items():
        needs = "batches of (x, y)" if entry.needs == "data" else "no data"
        yield from _method(name, entry.score, entry, [("Looks at", f"the model's weights, {needs}"),
                                                      ("Cost", text(entry.cost))])  # fmt: skip


def calibrated() -> Iterator[str]:
    from topo.calibrated import methods as registry

    for name, entry in registry.items():
        yield from _method(name, entry.function, entry, [("Cost", text(entry.cost))])


def _method(name: str, function: Any, entry: Any, more: list[tuple[str, str]]) -> Iterator[str]:
    yield from [f"### {name}", ""]
    yield from docstring(function)
    for key, value in [("Source", text(entry.source)), *more, ("Options", options(entry.options))]:
        yield f"* {key}: {value}"
    yield ""


def formats() -> Iterator[str]:
    from topo.formats import readers

    yield from table(
        ["format", "what it holds", "written to"],
        ([code(entry.name), text(entry.about), code("*" + entry.ending) if entry.write else ""] for entry in readers()),
    )


def models() -> Iterator[str]:
    from topo.models import models as registry

    for name, entry in registry.items():
        yield from [f"### {name}", ""]
        yield from docstring(entry.make)
        shape = "x".join(map(str, entry.input_shape()))
        usage = ", ".join(code(part) for part in entry.usage.split(", ")) if entry.usage else "none"
        yield from [f"* Source: {text(entry.source)}", f"* Input: {shape}", f"* Options: {usage}", ""]


def plots() -> Iterator[str]:
    from topo.plots import plots as registry
    from topo.plots import takes
    from topo.plots.reading import options_of

    made = {
        "reports": "reports, or masks and a model",
        "masks": "masks",
        "graphs": "masks and a model",
        "rows": "a table, reports or runs",
        "courses": "runs",
        "evaluation": "JSON of topo evaluate",
        "frontiers": "JSON of topo generate --frontier",
    }
    for name, draw in registry.items():
        yield from [f"### {name}", ""]
        if (HERE / "gallery" / f"{name}.png").is_file():
            yield from [f"![{name}](gallery/{name}.png)", ""]
        yield from ["```{eval-rst}", f".. autofunction:: topo.plots.{name}", "   :no-index-entry:", "```", ""]
        found = options({key: _default(parameter) for key, parameter in options_of(draw).items()})
        drawn = "; or ".join(made[part] for part in takes[name][0].split(","))
        yield from [f"* On the command line it is drawn of {drawn}.", f"* `-O`: {found}", ""]


def _default(parameter: Any) -> Any:
    return "" if parameter.default in (parameter.empty, None) else parameter.default


def quotas() -> Iterator[str]:
    from topo.quotas import quotas as registry

    for name, rule in registry.items():
        yield from [f"### {name}", ""]
        yield from docstring(rule)


def recipes() -> Iterator[str]:
    """As the files have them; what they leave out is as in `Recipe`."""
    from topo.train.recipe import recipes as registry

    folder = files("topo.train").joinpath("recipes")
    for name in registry:
        yield from [f"### {name}", "", "```toml", folder.joinpath(f"{name}.toml").read_text("utf-8").strip(), "```", ""]


def data() -> Iterator[str]:
    from topo.data import data as registry

    yield from table(
        ["data", "from", "what it is"],
        (
            [code(name), "built in" if entry.recognise is None else "your files", text(entry.about)]
            for name, entry in registry.items()
        ),
    )


def kernels() -> Iterator[str]:
    """A section for every file of `kernels/`."""
    for module in iter_modules(import_module("topo.kernels").__path__):
        name = f"topo.kernels.{module.name}"
        yield from [f"## {module.name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]


# -- from argparse


def commands() -> Iterator[str]:
    from topo.cli import parser
    from topo.cli.options import common

    whole, shared = parser(), common()
    formatter = whole._get_formatter()
    names = {action.dest for action in shared._actions}
    yield from ["## Options of every command", "", "They stand before or after the command's name.", ""]
    yield from _arguments(shared._actions, formatter)
    version = [action for action in whole._actions if action.option_strings and action.dest not in {*names, "help"}]
    yield from ["Of `topo` itself:", ""]
    yield from _arguments(version, formatter)
    (sub,) = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    for name, made in sub.choices.items():
        own = [action for action in made._actions if action.dest not in {*names, "help"}]
        yield from [f"## topo {name}", "", text(made.description), "", "```text", _usage(made, own), "```", ""]
        yield from _arguments(own, made._get_formatter())
        head, _, example = (made.epilog or "").partition("\n")
        if example:
            lines = [line.strip() for line in example.splitlines()]
            yield from [text(head.capitalize()), "", "```console", *(f"$ {line}" for line in lines), "```", ""]


def _usage(made: argparse.ArgumentParser, own: list[argparse.Action]) -> str:
    formatter = argparse.HelpFormatter(made.prog, width=86)
    formatter.add_usage(None, own, made._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _arguments(actions: Iterable[argparse.Action], formatter: argparse.HelpFormatter) -> Iterator[str]:
    lines = []
    for action in actions:
        parts = formatter._format_args(action, action.metavar or action.dest.upper()) if action.nargs != 0 else ""
        shown = [f"{option} {parts}".strip() for option in action.option_strings] or [parts]
        said = formatter._expand_help(action) if action.help else ""
        must = "; required" if action.required and action.option_strings else ""
        lines.append(["<br>".join(map(code, shown)), text(said) + must])
    yield from table(["argument", "meaning"], lines) if lines else ()


def changelog() -> Iterator[str]:
    """CHANGELOG.md without its title; its links to files are text, as those of pages."""
    lines = (HERE.parent / "CHANGELOG.md").read_text("utf-8").splitlines()[1:]
    for line in lines:
        yield re.sub(r"\[([^\]]+)\]\((?![a-z]+:)([^)#]+)[^)]*\)", r"\1 (`\2` in the repository)", line)


_PAGES = (
    metrics,
    generators,
    optimizers,
    pruners,
    calibrated,
    quotas,
    formats,
    models,
    plots,
    recipes,
    data,
    kernels,
    commands,
    changelog,
)
GENERATED = {made.__name__: made for made in _PAGES}


def _outside(page: str, link: re.Match[str]) -> str:
    """A link out of the site as text. One to no file stays a link, of which Sphinx then warns."""
    target = (HERE / page).parent.joinpath(link[2]).resolve()
    if target.is_relative_to(HERE) or not target.is_file():
        return link[0]
    return f"{link[1]} (`{target.relative_to(HERE.parent)}` in the repository)"


def _fill(app: Any, page: str, source: list[str]) -> None:
    linked = _LINK.sub(lambda link: _outside(page, link), source[0])
    source[0] = _PLACE.sub(lambda match: "\n".join(GENERATED[match[1]]()), linked)


# -- what a page of a registry shows already


@cache
def _registered() -> frozenset[Any]:
    from topo.calibrated import methods as by_calibration
    from topo.formats import formats as by_format
    from topo.generators import generators as by_shape
    from topo.metrics import metrics as numbers
    from topo.models import models as networks
    from topo.optimize import methods as by_balance
    from topo.plots import plots as figures
    from topo.pruners import pruners as by_score
    from topo.quotas import quotas as rules

    entries = [*by_shape.values(), *by_balance.values(), *numbers.values()]
    found = {entry.function for entry in entries} | {entry.score for entry in by_score.values()}
    found |= {entry.make for entry in networks.values()} | {entry.read for entry in by_format.values()}
    found |= {entry.function for entry in by_calibration.values()}
    return frozenset(found | set(figures.values()) | set(rules.values()))


def _skip(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Left out: what is registered, which has a page from the registry; fields, which their class describes."""
    if not callable(thing) and not isinstance(thing, property | cached_property | classmethod | staticmethod):
        return True
    return True if what == "module" and not isinstance(thing, type) and thing in _registered() else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _fill)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": False}
