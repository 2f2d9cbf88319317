"""Where cells are carried out: in this process, in processes beside it (joblib's), or on a dask cluster.

An engine gives each cell back with its outcome, in any order, or with None where the process that had it died.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from topo.errors import TopoError
from topo.sweep.cell import Outcome, carry_out
from topo.sweep.plan import Cell

ENGINES = ("local", "dask")
Given = Iterator[tuple[Cell, Outcome | None]]


class Engine(Protocol):
    def outcomes(self, cells: Sequence[Cell]) -> Given:
        """Each cell with its outcome; None if its worker died."""


class Here:
    """One after the other, in this process: masks of small networks take less time than starting a process does."""

    def outcomes(self, cells: Sequence[Cell]) -> Given:
        for cell in cells:
            yield cell, carry_out(cell)


class Processes:
    """So many processes of joblib's loky; no more cells are under way than there are processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def outcomes(self, cells: Sequence[Cell]) -> Given:
        from concurrent.futures import FIRST_COMPLETED, wait

        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import BrokenProcessPool

        waiting = list(reversed(cells))
        while waiting:
            pool = ProcessPoolExecutor(max_workers=min(self.workers, len(waiting)))
            under_way: dict[Any, Cell] = {}
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < self.workers:
                        cell = waiting[-1]
                        under_way[pool.submit(carry_out, cell)] = waiting.pop()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        cell = under_way.pop(future)
                        try:
                            found: Outcome | None = future.result()
                        except BrokenProcessPool:
                            found = None
                        yield cell, found
                        if found is None:
                            raise BrokenProcessPool
            except BrokenProcessPool:
                for future, cell in under_way.items():
                    kept = future.done() and future.exception() is None
                    yield cell, future.result() if kept else None
            finally:
                pool.shutdown(wait=False, kill_workers=True)


class Dask:
    """A dask cluster: at an address, or one of local processes that ends with the sweep."""

    def __init__(self, workers: int, address: str | None) -> None:
        self.workers, self.address = workers, address
        self.client: Any = None

    def outcomes(self, cells: Sequence[Cell]) -> Given:
        from distributed import KilledWorker, as_completed

        futures = {self.client.submit(carry_out, cell, pure=False): cell for cell in cells}
        for future in as_completed(list(futures)):
            cell = futures.pop(future)
            error = future.exception()
            if error is None:
                yield cell, future.result()
            elif isinstance(error, KilledWorker):
                yield cell, None
            else:
                yield cell, Outcome(error=f"dask: {type(error).__name__}: {' '.join(str(error).split())}")
            future.release()


@contextmanager
def opened(engine: str, address: str | None, workers: int | None, cells: int, trains: bool) -> Iterator[Engine]:
    """The engine of this name; TopoError for another, or where dask or its cluster is not there."""
    if engine not in ENGINES:
        raise TopoError(f"engine is '{engine}'; it is one of {', '.join(ENGINES)}")
    if address is not None and engine != "dask":
        raise TopoError("an address is that of a dask cluster: it goes with the engine dask")
    count = max(1, min(workers or os.cpu_count() or 1, cells))
    if engine == "local":
        few = not trains and cells < 64
        yield Here() if few else Processes(count)
        return
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise TopoError("the engine dask needs dask.distributed: pip install 'topo-masks[dask]'") from None
    # A cell whose worker died is tried again by itself, when the others are done, and not beside innocent ones.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        held = Dask(count, address)
        try:
            if address is not None:
                cluster, held.client = None, Client(address, timeout=30)
            else:
                cluster = LocalCluster(
                    n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
                held.client = Client(cluster)
        except (OSError, TimeoutError, ValueError) as error:
            raise TopoError(f"no dask cluster answers at '{address}': {' '.join(str(error).split())}") from None
        try:
            yield held
        finally:
            held.client.close()
            if cluster is not None:
                cluster.close()
