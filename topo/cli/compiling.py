"""The first command of an installation, which compiles kernels: two processes do it, one from each end.

numba compiles on one core, ten seconds for all that an analysis needs. While this process compiles what it meets first,
a second one compiles what it will meet last, and both keep it in the same cache.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from topo import threads

# What numba's cache holds once this Python has analysed something.
_LAST = f"paths.count_backward-*.py{sys.version_info.major}{sys.version_info.minor}.nbi"


@contextmanager
def from_both_ends(most: int | None) -> Iterator[None]:
    """Within: if the cache is empty, a second process fills it from the other end. It goes when this one is through.

    most: as many threads may work, None for all cores. With one, this process compiles alone.
    """
    if threads.count(most) < 2 or not sys.executable or _is_filled():
        yield
        return
    try:
        other = subprocess.Popen(
            # -P: a file of the current folder is never imported in place of a module
            [sys.executable, "-P", "-c", "from topo.cli.compiling import other_end; other_end()"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # no more processes are allowed; one is enough
        yield
        return
    try:
        yield
    finally:
        other.kill()
        other.wait()


def _is_filled() -> bool:
    from topo.kernels import CACHES

    return any(any(folder.rglob(_LAST)) for folder in CACHES)


def other_end() -> None:
    """What the second process runs: an analysis of next to nothing, the last steps of it first."""
    import numpy as np

    from topo.analyze import analyze
    from topo.graph import build_graph
    from topo.masks import MaskSet
    from topo.metrics import flow
    from topo.wiring import chain

    rng = np.random.default_rng(0)
    masks = MaskSet({name: rng.random((24, 24)) < 0.3 for name in ("one", "two")})
    wiring = chain(masks)
    flow.swept_backward(build_graph(masks, wiring))
    analyze(masks, wiring, metrics="spectral,degrees", threads=1)
