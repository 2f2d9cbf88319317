"""sweep: the cells of a plan carried out, those that are done already left, and the tables written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import TopoError
from topo.sweep.cell import Outcome
from topo.sweep.engines import Batch, Engine, opened
from topo.sweep.folder import Folder
from topo.sweep.plan import Cell, batches, read_plan

if TYPE_CHECKING:
    import pandas

Progress = Callable[[int, int, str], None]
_DIED = "the process that carried it out died twice (killed, or out of memory): the cell is set aside"


@dataclass(frozen=True, repr=False)
class Results:
    """rows: of results.csv, in the plan's order. failures: id -> why. left: cells that are neither done nor failed.

    >>> toml = {"sweep": {"model": "mlp:8-6-2"}, "grid": {"method": "erk", "density": [0.5, 0.25]}}
    >>> results = sweep(toml, out="results")
    >>> [row["kept"] for row in results.rows], results.failures
    ([30, 15], {})
    """

    folder: Path
    rows: tuple[Mapping[str, Any], ...]
    failures: Mapping[str, str]
    left: int

    def __repr__(self) -> str:
        said = f"{len(self.rows):,} cells done, {len(self.failures):,} failed, {self.left:,} left"
        return f"Results({said}, in '{self.folder}')"

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas table."""
        import pandas

        return pandas.DataFrame([dict(row) for row in self.rows])


def sweep(
    toml: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    engine: str = "local",
    address: str | None = None,
    resume: bool = False,
    only: str | Sequence[str] = (),
    shard: str | None = None,
    fail_fast: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """Carry out every cell of a sweep; write masks, reports, runs and tables into the folder `out`.

    toml: the file of a sweep (docs/sweeps.md), or its tables. engine: "local", in processes of joblib where something
    is trained or cells are many; "dask", on the cluster at `address`, or on local processes. resume: go on in a folder
    that holds cells of this sweep; what is done is left, what failed is tried again. only: k=v, cells of this setting.
    shard: i/n, every n-th cell from the i-th. fail_fast: stop at the first cell that fails. workers: processes, by
    default as many as cores. progress: called as (done and failed, all, label).

    Seeds are those of the cells: order, engine and workers change nothing, and `seconds` is the only column of
    results.csv that differs between runs. A process that dies takes only its cell with it, which is tried once more,
    alone.

    >>> toml = {"sweep": {"model": "mlp:8-6-2", "seeds": "0-1"}, "grid": {"method": ["erk", "uniform"], "density": 0.5}}
    >>> [(row["method"], row["seed"]) for row in sweep(toml, out="seeds").rows]
    [('erk', 0), ('erk', 1), ('uniform', 0), ('uniform', 1)]

    Raises TopoError for a sweep that is none, and for a folder that holds something else.
    """
    plan = read_plan(toml)
    chosen = plan.chosen([only] if isinstance(only, str) else only, shard)
    folder = Folder(out, plan, resume)
    todo = [cell for cell in chosen if not folder.done(cell)]
    folder.tables()
    try:
        if todo:
            trains = plan.cells[0].work["recipe"] is not None
            count = max(1, min(workers or os.cpu_count() or 1, len(todo)))
            with opened(engine, address, count, len(todo), trains) as held:
                _carry_out(held, folder, batches(todo, count), fail_fast, progress)
    finally:
        rows = folder.tables()
    folder.page(rows)
    failures = {cell.id: folder.failed[cell.id] for cell in chosen if cell.id in folder.failed}
    return Results(folder.path, tuple(rows), failures, len(plan.cells) - len(rows) - len(failures))


def _carry_out(
    engine: Engine, folder: Folder, todo: Sequence[Batch], fail_fast: bool, progress: Progress | None
) -> None:
    """All cells; those whose process died once more, one at a time, so that none dies beside a guilty one."""
    ended, died, failed, total = 0, list[Cell](), 0, sum(map(len, todo))

    def end(cell: Cell, outcome: Outcome) -> None:
        nonlocal ended, failed
        folder.keep(cell, outcome)
        ended, failed = ended + 1, failed + (outcome.error is not None)
        if progress is not None:
            progress(ended, total, f"{failed} failed; {cell.label}" if failed else cell.label)
        if outcome.error is not None and fail_fast:
            raise TopoError(f"a cell failed ({cell.label}): {outcome.error}")

    for cell, outcome in engine.outcomes(todo):
        if outcome is None:
            died.append(cell)
        else:
            end(cell, outcome)
    for suspect in died:
        for cell, outcome in engine.outcomes([[suspect]]):
            end(cell, outcome or Outcome(error=_DIED))
