"""`topo formats explain FILE`: what each kind of file and each reader says of a file that is read, or is not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topo.cli.options import command
from topo.cli.tables import Page, Table
from topo.errors import FormatError, TopoError


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "formats",
        "why a file is read as it is, or is not: what each kind of file and each reader says of it",
        "topo formats explain mask.pt",
    )  # fmt: skip
    made.add_argument("action", choices=("explain",), metavar="explain", help="explain: show what was said of a file")
    made.add_argument("file", metavar="FILE", help="a file or folder")


def run(args: argparse.Namespace) -> int:
    """Exit 0 if some kind and some reader take the file, 1 if none does."""
    from topo.containers.opening import explain, open_container
    from topo.formats import readers
    from topo.formats.source import Source

    path = Path(args.file)
    if not path.exists():
        raise TopoError(f"'{path}': there is no such file")
    page = Page()
    kinds = [[name, "takes it" if lacks is None else "no", lacks or ""] for name, lacks in explain(path)]
    page.table(Table(["kind of file", "", "it says"], kinds, left=frozenset({1, 2})).wrapped(page.width))
    try:
        container = open_container(path)
    except FormatError as error:
        raise FormatError(f"'{path}': {error}") from None
    said = []
    for reader in readers():
        source = Source(container, None, list(container.notes))
        try:
            lacks = reader.lacks(source)
        except TopoError as error:
            lacks = str(error)
        said.append([reader.name, "takes it" if lacks is None else "no", lacks or ""])
    page.table(Table(["reader", "", "it says"], said, left=frozenset({1, 2})).wrapped(page.width))
    return 0 if any(answer == "takes it" for _, answer, _ in said) else 1
