"""`topo warm`: compile every kernel now, so that no later command does."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from topo.cli.options import command
from topo.cli.output import Progress, quiet, say
from topo.errors import TopoError

_SHAPES = {"a.weight": (64, 32, 3, 3), "b.weight": (64, 64, 3, 3), "c.weight": (128, 64, 1, 1), "d.weight": (10, 128)}
_DENSITY = 0.1
_LONG = (1 << 11, 1 << 10)  # beyond what numpy packs


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    command(
        commands, parents, run, "warm",
        "compile every kernel now, once for this installation and processor",
        "topo warm",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Work of every kind on a network of four layers, for what it compiles."""
    began = time.monotonic()
    work = list(_work())
    with Progress(not quiet(args), "compiling, ") as progress:
        for done, (label, task) in enumerate(work):
            progress(done, len(work), label)
            try:
                task()
            except TopoError:
                continue  # not of a network such as this
    say(f"{_compiled()} kernels are ready, {time.monotonic() - began:.0f} s\n")
    return 0


def _work() -> Iterator[tuple[str, Callable[[], object]]]:
    """(what it is, what to call): files of every number, all metrics, null models and methods."""
    import numpy as np

    import topo
    from topo.generate import methods
    from topo.graph.views import of_layer
    from topo.masks import BitRows
    from topo.nulls import nulls

    rng = np.random.default_rng(0)
    drawn = {name: rng.random(shape) < _DENSITY for name, shape in _SHAPES.items()}
    masks = topo.MaskSet(drawn)
    wiring = topo.chain(masks)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in _SHAPES.items()}
    for dtype in (np.float32, np.float64, np.float16, np.uint8):
        for writeable in (False, True):  # as arrays are; as files are
            values = np.ones(_LONG, dtype)
            values.flags.writeable = writeable
            yield f"{np.dtype(dtype)} weights", partial(BitRows.of_weights, values, "weights")
    large = of_layer("channel", BitRows.of_mask(np.ones((1 << 10, 1 << 10), np.bool_)))
    yield "exact counts of large layers", partial(large.pull, np.ones((3, 1 << 10)))
    yield "metrics", partial(topo.analyze, masks, wiring, metrics="all", weights=weights)
    yield "metrics of layers", partial(topo.analyze, masks, metrics="all", view="channel")
    wide = topo.MaskSet({"a": rng.random((300, 9000)) < _DENSITY, "b": rng.random((5, 300)) < 0.5})
    yield "metrics of wide layers", partial(topo.analyze, wide, topo.chain(wide))
    for kind in nulls:
        yield f"null {kind}", partial(topo.analyze, masks, wiring, metrics="paths", nulls={kind: 1})
    for method in methods():
        yield method, partial(topo.generate, method, wiring, density=_DENSITY)
        yield method, partial(topo.generate, method, wiring, source=masks)
    yield "balance, paths", partial(topo.generate, "balance", wiring, density=_DENSITY, mode="paths")
    yield "balance, N:M", partial(topo.generate, "balance", wiring, density=2 * _DENSITY, nm="2:4")


def _compiled() -> int:
    """How many kernels, each counted once a type of arguments, this process holds."""
    modules = [module for name, module in sys.modules.items() if name.startswith("topo.kernels.")]
    kernels = {value for module in modules for value in vars(module).values() if hasattr(value, "nopython_signatures")}
    return sum(len(kernel.nopython_signatures) for kernel in kernels)
