"""Where cells are carried out: in this process, in processes beside it (joblib's), or on a dask cluster.

An engine takes batches of cells, which one process carries out together, and gives each cell back with its outcome, in
any order, or with None where the process that had it died.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from topo.errors import TopoError
from topo.sweep.cell import Outcome, carry_out
from topo.sweep.plan import Cell

ENGINES = ("local", "dask")
Batch = Sequence[Cell]
Given = Iterator[tuple[Cell, Outcome | None]]


class Engine(Protocol):
    def outcomes(self, batches: Sequence[Batch]) -> Given:
        """Each cell with its outcome; None if its worker died."""


class Here:
    """One after the other, in this process: masks of small networks take less time than starting a process does."""

    def outcomes(self, batches: Sequence[Batch]) -> Given:
        for batch in batches:
            yield from zip(batch, carry_out(batch))


class Processes:
    """So many processes of joblib's loky; no more batches are under way than there are processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def outcomes(self, batches: Sequence[Batch]) -> Given:
        from concurrent.futures import FIRST_COMPLETED, wait

        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import BrokenProcessPool

        waiting = list(reversed(batches))
        while waiting:
            pool = ProcessPoolExecutor(max_workers=min(self.workers, len(waiting)))
            under_way: dict[Any, Batch] = {}
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < self.workers:
                        batch = waiting[-1]
                        under_way[pool.submit(carry_out, batch)] = waiting.pop()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        batch = under_way.pop(future)
                        try:
                            found: Sequence[Outcome | None] = future.result()
                        except BrokenProcessPool:
                            found = [None] * len(batch)
                        yield from zip(batch, found)
                        if None in found:
                            raise BrokenProcessPool
            except BrokenProcessPool:
                for future, batch in under_way.items():
                    kept = future.done() and future.exception() is None
                    yield from zip(batch, future.result() if kept else [None] * len(batch))
            finally:
                pool.shutdown(wait=False, kill_workers=True)


class Dask:
    """A dask cluster: at an address, or one of local processes that ends with the sweep."""

    def __init__(self, workers: int, address: str | None) -> None:
        self.workers, self.address = workers, address
        self.client: Any = None

    def outcomes(self, batches: Sequence[Batch]) -> Given:
        from distributed import KilledWorker, as_completed

        futures = {self.client.submit(carry_out, batch, pure=False): batch for batch in batches}
        for future in as_completed(list(futures)):
            batch = futures.pop(future)
            error = future.exception()
            if error is None:
                yield from zip(batch, future.result())
            elif isinstance(error, KilledWorker):
                yield from ((cell, None) for cell in batch)
            else:
                said = f"dask: {type(error).__name__}: {' '.join(str(error).split())}"
                yield from ((cell, Outcome(error=said)) for cell in batch)
            future.release()


@contextmanager
def opened(engine: str, address: str | None, count: int, cells: int, trains: bool) -> Iterator[Engine]:
    """The engine of this name, of `count` workers; TopoError for another, or where no dask or no cluster is there."""
    if engine not in ENGINES:
        raise TopoError(f"engine is '{engine}'; it is one of {', '.join(ENGINES)}")
    if address is not None and engine != "dask":
        raise TopoError("an address is that of a dask cluster: it goes with the engine dask")
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
