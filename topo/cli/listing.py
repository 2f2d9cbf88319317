"""`topo list`: what there is to choose from."""

from __future__ import annotations

import argparse
import textwrap
from itertools import zip_longest
from typing import Any

from topo._support.doors import summary
from topo.cli.options import command
from topo.cli.tables import Page, Table


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "list",
        f"what there is to choose from: {', '.join(_LISTS)}",
        "topo list metrics",
    )  # fmt: skip
    made.add_argument("what", choices=tuple(_LISTS), metavar="WHAT", help=", ".join(_LISTS))


def run(args: argparse.Namespace) -> int:
    page = Page()
    page.table(_LISTS[args.what]().wrapped(page.width))
    return 0


def entry_package(registry: Any, name: str) -> str:
    """(from PACKAGE) for what the entry point of another package registered; nothing for topo's own."""
    package = registry.package_of(name)
    return f" (from {package})" if package else ""


def _metrics() -> Table:
    from topo.metrics import metrics

    lines = [
        [
            entry.name,
            entry.group,
            entry.scope,
            "needed" if entry.wired else "",
            entry.unit,
            _meaning(entry) + entry_package(metrics, key),
        ]
        for key, entry in metrics.items()
    ]
    return Table(["metric", "group", "of", "wiring", "unit", "meaning"], lines, left=frozenset(range(1, 6)))


def _meaning(entry: Any) -> str:
    """The definition in a line, and where it was published."""
    return entry.doc if entry.source == "definition" else f"{entry.doc} [{entry.source}]"


def _methods() -> Table:
    """A method's options stand beside its description, a line each."""
    from topo.generate import methods

    return _table_of_methods(dict(methods()), "masks")


def _scores() -> Table:
    """Those of the methods that rank weights, by the score that they rank them by."""
    from topo.pruners import pruners

    return _table_of_methods(dict(pruners), "score of a weight")


def _table_of_methods(shown: dict[str, Any], what: str) -> Table:
    from topo.generate import methods

    room = 64
    lines = []
    for name, entry in shown.items():
        cost = getattr(entry, "cost", "")
        about = f"{entry.description} [{entry.source}]" + (f"; cost: {cost}" if cost else "")
        said = textwrap.wrap(about + entry_package(methods(), name), room)
        options = [(key, _default(value)) for key, value in entry.options.items()]
        for place, (text, (option, default)) in enumerate(zip_longest(said, options, fillvalue=("", ""))):
            first = [name, getattr(entry, "needs", "nothing")] if place == 0 else ["", ""]
            lines.append([*first, option, default, text if isinstance(text, str) else ""])
    return Table(["method", "needs", "-O", "default", what], lines, left=frozenset({1, 2, 3, 4}))


def _default(value: Any) -> str:
    return "none" if value is None else "''" if value == "" else str(value)


def _formats() -> Table:
    from topo.formats import readers

    lines = [[entry.name, entry.about] for entry in readers()]
    return Table(["format", "holds"], lines, left=frozenset({1}))


def _models() -> Table:
    from topo.models import models

    lines = [
        [
            name,
            "x".join(map(str, entry.input_shape())),
            f"{entry.description}; options: {entry.usage}{entry_package(models, name)}",
        ]
        for name, entry in models.items()
    ]
    return Table(["model", "input", "network"], lines, left=frozenset({1, 2}))


def _nulls() -> Table:
    from topo.nulls import nulls

    lines = [
        [name, "needed" if entry.wired else "", entry.keeps + entry_package(nulls, name)]
        for name, entry in nulls.items()
    ]
    return Table(["null", "wiring", "keeps"], lines, left=frozenset({1, 2}))


def _quotas() -> Table:
    from topo.quotas import quotas

    lines = [[name, summary(rule) + entry_package(quotas, name)] for name, rule in quotas.items()]
    return Table(["quota", "how the parameters are divided among the layers"], lines, left=frozenset({1}))


def _recipes() -> Table:
    from topo.train.recipe import recipes

    lines = [
        [name, recipe.epochs, recipe.batch, recipe.optimizer, recipe.lr, _schedule(recipe), recipe.weight_decay,
         recipe.source]
        for name, recipe in recipes.items()
    ]  # fmt: skip
    header = ["recipe", "epochs", "batch", "optimizer", "lr", "schedule", "weight decay", "of"]
    return Table(header, [[str(cell) for cell in line] for line in lines], left=frozenset({3, 5, 7}))


def _schedule(recipe: Any) -> str:
    drops = ", ".join(f"{epoch:g}" for epoch in recipe.milestones)
    return f"x{recipe.factor:g} at {drops}" if drops else recipe.schedule


def _data() -> Table:
    from topo.data import data
    from topo.data.tokens import BUILT_IN

    lines = [
        [name, "built in" if entry.recognise is None else "your files", entry.about + entry_package(data, name)]
        for name, entry in data.items()
    ]
    lines += [
        [BUILT_IN, "built in", "tokens: the docstrings of fifty modules of Python's own library"],
        ["tokens", "your files", "a text, a file of token numbers, or a folder with train and test (val) of either"],
    ]
    return Table(["data", "from", "what it is"], lines, left=frozenset({1, 2}))


def _plots() -> Table:
    from topo.plots import plots

    lines = [[name, summary(draw) + entry_package(plots, name)] for name, draw in plots.items()]
    return Table(["plot", "shows"], lines, left=frozenset({1}))


_LISTS = {
    "metrics": _metrics,
    "methods": _methods,
    "models": _models,
    "formats": _formats,
    "nulls": _nulls,
    "quotas": _quotas,
    "plots": _plots,
    "recipes": _recipes,
    "data": _data,
    "scores": _scores,
}
