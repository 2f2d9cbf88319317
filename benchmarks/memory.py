"""How much memory a piece of work takes beside what is held before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


def anonymous() -> int:
    """Bytes of memory of this process that are of no file."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def beside() -> Iterator[list[int]]:
    """[bytes]: the most, so far, beside what there was at the start; looked at a hundred times a second."""
    before, most, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()
