"""Parallelism: a pool of threads over layers or row blocks. Kernels release the GIL, results come back in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def count(threads: int | None) -> int:
    """How many threads to use: `threads`, or all cores this process may run on."""
    return threads if threads else len(os.sched_getaffinity(0))


def over(function: Callable[[Any], Any], items: Iterable[Any], threads: int | None = 1) -> list[Any]:
    """[function(item) for item in items], on `threads` threads; the result does not depend on their number."""
    items = list(items)
    number = min(count(threads), len(items))
    if number <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(function, items))
