"""`topo list`: what there is to choose from."""

from __future__ import annotations

import argparse
from typing import Any

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


def _metrics() -> Table:
    from topo.metrics import metrics

    lines = [
        [entry.name, entry.group, entry.scope, "needed" if entry.wired else "", entry.unit, _meaning(entry)]
        for entry in metrics.values()
    ]
    return Table(["metric", "group", "of", "wiring", "unit", "meaning"], lines, left=frozenset(range(1, 6)))


def _meaning(entry: Any) -> str:
    """The definition in a line, and where it was published."""
    return entry.doc if entry.source == "definition" else f"{entry.doc} [{entry.source}]"


def _methods() -> Table:
    from topo.generate import methods

    lines = []
    for name, entry in methods().items():
        takes = ", ".join(f"{key}={value}" for key, value in entry.options.items())
        cost = getattr(entry, "cost", "")
        about = f"{entry.description} [{entry.source}]"
        about = "; ".join([about, *([f"cost: {cost}"] if cost else []), *([f"options: {takes}"] if takes else [])])
        lines.append([name, getattr(entry, "needs", "nothing"), about])
    return Table(["method", "needs", "masks"], lines, left=frozenset({1, 2}))


def _formats() -> Table:
    from topo.formats import readers

    lines = [[entry.name, entry.about] for entry in readers()]
    return Table(["format", "holds"], lines, left=frozenset({1}))


def _models() -> Table:
    from topo.models import models

    lines = [
        [name, "x".join(map(str, entry.input_shape())), f"{entry.description}; options: {entry.usage}"]
        for name, entry in models.items()
    ]
    return Table(["model", "input", "network"], lines, left=frozenset({1, 2}))


def _nulls() -> Table:
    from topo.nulls import nulls

    lines = [[name, "needed" if entry.wired else "", entry.keeps] for name, entry in nulls.items()]
    return Table(["null", "wiring", "keeps"], lines, left=frozenset({1, 2}))


def _quotas() -> Table:
    from topo.quotas import quotas

    lines = [[name, (rule.__doc__ or "").strip().partition("\n")[0]] for name, rule in quotas.items()]
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

    lines = [
        [name, "built in" if entry.recognise is None else "your files", entry.about] for name, entry in data.items()
    ]
    return Table(["data", "from", "what it is"], lines, left=frozenset({1, 2}))


def _plots() -> Table:
    from topo.plots import plots

    lines = [[name, (draw.__doc__ or "").strip().partition("\n")[0]] for name, draw in plots.items()]
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
}
