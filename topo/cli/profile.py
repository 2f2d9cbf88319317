"""`--profile`: where the time of a command went, by file, on standard error."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import topo
from topo.cli.output import speak

_PACKAGE = Path(topo.__file__).parent
_MOST = 12


def profiled(run: Callable[[], int]) -> int:
    """Run a command; then say how long its files and the libraries they call took, the longest first.

    Seconds are each file's own. Work of other threads counts for the file that waits for them, and the profiler itself
    slows many small calls, up to twofold.
    """
    profiler, begin = cProfile.Profile(), time.perf_counter()
    try:
        return profiler.runcall(run)
    finally:
        _tell(pstats.Stats(profiler), time.perf_counter() - begin)


def _tell(stats: Any, seconds: float) -> None:
    own: dict[str, float] = defaultdict(float)
    slowest: dict[str, tuple[float, str]] = {}
    for (file, _, function), (_, _, mine, _, _) in stats.stats.items():
        place = _place(file)
        own[place] += mine
        slowest[place] = max(slowest.get(place, (0.0, "")), (mine, function))
    speak(f"where the time went ({seconds:.2f} s):")
    for place, mine in sorted(own.items(), key=lambda item: -item[1])[:_MOST]:
        speak(f"{mine:8.2f} s {100 * mine / max(sum(own.values()), 1e-9):4.0f} %  {place}, most in {slowest[place][1]}")


def _place(file: str) -> str:
    """A file of topo as it stands in the tree, or the library that a file belongs to."""
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return str(Path("topo") / path.relative_to(_PACKAGE))
    parts = path.parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if path.parent.name == "kernels":
        return f"topo/kernels/{path.name}"
    return "Python itself"
