"""What the command line says: text that any terminal can take, progress, warnings."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from topo._support.atomic import write_text
from topo._support.bar import Bar, watched
from topo._support.screen import printable
from topo.errors import MaskWarning, TraceWarning

# Work shorter than this shows no progress (seconds); afterwards a line every so often where it cannot be overwritten.
_PATIENCE, _EVERY = 2.0, 10.0


def one_line(text: str, most: int = 2000) -> str:
    """One printable line, bounded in length."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 4] + " ..."


_OURS = (MaskWarning, TraceWarning)
# Where results go while `results_alone` sends everything else that is printed elsewhere.
_results: TextIO | None = None


@contextmanager
def results_alone() -> Iterator[None]:
    """Within it standard output holds results alone: what a user's own model prints goes to standard error."""
    global _results
    before, _results = _results, stdout()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = before


@contextmanager
def interrupts(pressed: list[int]) -> Iterator[None]:
    """Within it Ctrl-C is noted in `pressed`, too: a compiler at work can swallow the exception, and fail later."""

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # ignored, or somebody else's
    ):
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stdout() -> TextIO:
    """The standard output, for results."""
    return sys.stdout if _results is None else _results


def say(text: str, stream: TextIO | None = None) -> None:
    """Write to standard output; a character that its encoding lacks becomes '?'."""
    stream = stream or stdout()
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))


def speak(line: str) -> None:
    """Write a line to standard error; a closed one is nobody's error."""
    try:
        say(line + "\n", sys.stderr)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def quiet(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "quiet", False))


def deliver(text: str, out: str | Path, args: argparse.Namespace) -> None:
    """Text to a file, whole or not at all, or to standard output for '-'."""
    if str(out) == "-":
        say(text)
    else:
        write_text(out, text)
        wrote(out, args)


def wrote(out: str | Path, args: argparse.Namespace) -> None:
    if not quiet(args):
        speak(f"topo: wrote {printable(str(out))}")


@contextmanager
def warnings_on_stderr(args: argparse.Namespace) -> Iterator[None]:
    """Our own warnings are lines on standard error, unless --quiet; those of libraries only show with --debug."""
    with warnings.catch_warnings():
        if not getattr(args, "debug", False):
            warnings.simplefilter("ignore")
        for kind in _OURS:
            warnings.simplefilter("ignore" if quiet(args) else "always", kind)
        show = warnings.showwarning

        def showwarning(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, _OURS):
                speak(f"topo: warning: {one_line(str(message))}")
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = showwarning
        yield


@contextmanager
def compiling_told(args: argparse.Namespace) -> Iterator[None]:
    """Within it a line on standard error says so, once, if kernels are being compiled when two seconds are over."""
    done = threading.Event()
    watch = threading.Thread(target=_watch_compiler, args=(done,), daemon=True)
    if not quiet(args):
        watch.start()
    try:
        yield
    finally:
        done.set()


def _watch_compiler(done: threading.Event) -> None:
    """From two seconds on ask numba, once it is loaded, if it compiles; what comes from the cache is not an event."""
    events: Any = None
    if done.wait(min(_PATIENCE, threading.TIMEOUT_MAX)):
        return
    while not hasattr(events, "install_recorder"):  # its last name: the module is loaded
        events = sys.modules.get("numba.core.event")
        if done.wait(0.1):
            return
    listener = events.RecordingListener()
    events.register("numba:compile", listener)
    try:
        while not done.wait(0.1):
            if any(event.is_start for _, event in list(listener.buffer)):
                speak("topo: compiling kernels, once for this installation (`topo warm` does it ahead)")
                return
    finally:
        events.unregister("numba:compile", listener)


class Progress:
    """A callback (done, total, label) that shows on standard error how far work is, if it takes over two seconds.

    On a terminal, or in a notebook, a bar with the time left that is gone at the end; otherwise a line every ten
    seconds, which says the time left, too.
    """

    def __init__(self, shown: bool, prefix: str = "") -> None:
        self._shown, self._prefix = shown, prefix
        self._bar = Bar() if watched() else None
        self._began = time.monotonic()  # what is being counted; one callback tells of several pieces of work in turn
        self._next = self._began + _PATIENCE
        self._at = (0, 0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int, label: str) -> None:
        now = time.monotonic()
        if total != self._at[1] or done < self._at[0]:
            self._began = now
        self._at = (done, total)
        if not self._shown or now < self._next:
            return
        if self._bar is not None:
            self._bar.show(done, total, f"{self._prefix}{label}")
            return
        left = f", {clock((now - self._began) / done * (total - done))} left" if done >= total / 20 else ""
        self._log(f"{done} of {total}: {label}{left}", now)

    def line(self, text: str) -> None:
        """A line in one's own words."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        if self._bar is not None:
            self._bar.line(f"{self._prefix}{text}")
        else:
            self._log(text, now)

    def _log(self, text: str, now: float) -> None:
        speak(f"topo: {one_line(self._prefix + text, 200)}")
        self._next = now + _EVERY


def clock(seconds: float) -> str:
    """As a reader wants it.

    >>> clock(8.2), clock(200), clock(7400)
    ('8 s', '3 min', '2 h 3 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
