"""The command `topo`: arguments in, exit code out. Each command is a file of this folder.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 1 bad input, 2 wrong usage,
3 a check answered no, 130 interrupted, 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import NoReturn

# Before numpy loads. Layers lie side by side on our own threads: with those of OpenBLAS on top, and other work beside
# it, the spectra of ResNet-18 took 15 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from topo._support.names import nearest
from topo._version import __version__
from topo.cli import (
    analyze,
    autosparse,
    check,
    compare,
    completion,
    convert,
    evaluate,
    formats,
    generate,
    imp,
    irp,
    listing,
    plot,
    report,
    shrink,
    sweep,
    trace,
    train,
    warm,
)
from topo.cli.options import UsageError, common
from topo.cli.output import compiling_told, interrupts, one_line, results_alone, speak, warnings_on_stderr
from topo.cli.profile import profiled
from topo.errors import TopoError

_COMMANDS = (
    analyze,
    generate,
    train,
    imp,
    irp,
    autosparse,
    shrink,
    compare,
    sweep,
    evaluate,
    check,
    convert,
    plot,
    report,
    trace,
    formats,
    listing,
    warm,
    completion,
)
INTERRUPTED, BROKEN_PIPE = 130, 141


class _Parser(argparse.ArgumentParser):
    """Wrong usage is said in a line that any terminal can take, whatever was typed, with what was perhaps meant."""

    def error(self, message: str) -> NoReturn:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        if found := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            message += _meant(found[1], known)
        elif found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += _meant(found[1], [name.strip("' ") for name in found[2].split(",")])
        super().error(one_line(message))


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    made = _Parser(
        prog="topo",
        description="Exact graph topology of neural-network pruning masks.",
        epilog="`topo COMMAND -h` shows the options of a command and an example.",
        parents=[common()],
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"topo {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands, [common()])
    made.set_defaults(commands=commands.choices)
    return made


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; what a command does not know is said with that command's usage, and ends the process."""
    grammar = parser()
    args, unknown = grammar.parse_known_args(argv)
    if unknown:
        args.commands[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    del args.commands
    args.grammar = grammar
    args.typed = shlex.join(["topo", *(sys.argv[1:] if argv is None else argv)])
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Never raises."""
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    command = "topo"
    pressed: list[int] = []
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, *thresholds[1:])  # a compiler makes many objects and no garbage: a tenth of its time
    try:
        args = parsed(argv)
        command = f"topo {args.command}"
        with warnings_on_stderr(args), results_alone(), compiling_told(args), interrupts(pressed):
            code: int = profiled(lambda: args.run(args)) if getattr(args, "profile", False) else args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except UsageError as error:
        return _fail(f"{one_line(str(error))} (see `{command} -h`)", 2, debug)
    except TopoError as error:
        return _fail(one_line(str(error)), 1, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        return _fail(one_line(str(error)), 1, debug)
    except Exception as error:
        if pressed:
            return _fail("interrupted", INTERRUPTED, debug)
        text = one_line(f"internal error: {type(error).__name__}: {error}")
        return _fail(text if debug else f"{text}; --debug shows where", 1, debug)
    finally:
        gc.set_threshold(*thresholds)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    speak(f"topo: {message}")
    return code


def _forget_stdout() -> None:
    """Point standard output at nothing, or the interpreter complains when it flushes at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:
        pass
