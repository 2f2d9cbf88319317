"""`topo completion`: what a shell needs to complete topo's commands, options and file names."""

from __future__ import annotations

import argparse
from typing import Any

from topo.cli.options import command
from topo.cli.output import say
from topo.errors import TopoError

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "completion",
        "the completion of a shell, to be written where the shell looks for it",
        "topo completion bash > ~/.local/share/bash-completion/completions/topo",
    )  # fmt: skip
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise TopoError("completion is written by shtab: pip install 'topo-masks[completion]'") from None
    say(shtab.complete(args.grammar, args.shell) + "\n")
    return 0
