"""Cells: a mask made or read, measured and, where asked, trained. What comes of each is bytes and plain values.

Where the sweep asks for it (`at_once`), the masks of a batch are trained side by side (`topo.train_many`).
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topo.analyze import analyze
from topo.errors import TopoError
from topo.files import read_masks, write_masks
from topo.generate import calibrates, find_method, generate, is_pruner
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.nulls import nulls
from topo.sweep.plan import DENSE, FILE, IMP, INVERT, REINIT, Cell
from topo.wiring import Wiring

# Of a run's folder; its checkpoint is left out: the cell is trained again from the same seed where it is needed.
_KEPT = ("config.toml", "environment.json", "metrics.jsonl", "summary.json", "masks.safetensors")
_ALWAYS = "mean_log_density"  # the baseline of topo evaluate
_ROUNDS = 60  # of the search for an effective density


@dataclass(frozen=True)
class Outcome:
    """files: path in RESULTS -> bytes. row: column -> value. layers: a mapping a layer. error: why there is none."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class _Made:
    """A cell's mask, measured. outcome: without what training adds to it, unless the mask came of this training."""

    cell: Cell
    model: str
    masks: MaskSet
    outcome: Outcome
    trained: bool = False


def carry_out(cells: Sequence[Cell]) -> list[Outcome]:
    """Make and measure each, and train; whatever goes wrong is a line in the cell's outcome."""
    made = [_tried(_make, cell) for cell in cells]
    ready = [one for one in made if isinstance(one, _Made) and one.cell.work["recipe"] is not None and not one.trained]
    trained = dict(zip((one.cell.id for one in ready), _trained(ready)))
    outcomes = [one.outcome if isinstance(one, _Made) else one for one in made]
    return [trained.get(cell.id, outcome) for cell, outcome in zip(cells, outcomes)]


def _tried(work: Callable[[Any], Any], given: Any) -> Any:
    """What it gives, or an Outcome with the line of what went wrong."""
    try:
        return work(given)
    except TopoError as error:
        return Outcome(error=" ".join(str(error).split()))
    except MemoryError:
        return Outcome(error="not enough memory for this network and its mask")
    except Exception as error:  # one cell's fault, whatever it is, ends that cell alone
        return Outcome(error=f"internal error: {type(error).__name__}: {' '.join(str(error).split())}")


def _make(cell: Cell) -> _Made:
    began = time.perf_counter()
    settings, work = cell.settings, cell.work
    model = _place(settings["network"], work)
    wiring = find_wiring(model, work["input"])
    moved = _moved(cell, model, wiring)
    masks = _masks(cell, model, wiring) if moved is None else moved.run.masks
    if settings["null"] and settings["null"] != REINIT:
        known = {"null_of": settings["method"], "null": settings["null"], "seed": settings["seed"]}
        drawn = _null(settings["null"], masks, int(settings["seed"] or 0), wiring)
        masks = drawn.with_provenance(model=settings["network"], density=drawn.density, **known)
    report = analyze(masks, wiring, metrics=_metrics(work), view=work["view"], threads=1, mask_name=cell.id)
    files = {f"reports/{cell.id}.json": report.to_json().encode()}
    with tempfile.TemporaryDirectory(prefix="topo-cell-") as place:
        file = Path(place) / "masks.safetensors"
        write_masks(masks, file)
        files[f"masks/{cell.id}.safetensors"] = file.read_bytes()
    row = {("density_kept" if key == "density" else key): value for key, value in report.network.items()}
    row["seconds"] = time.perf_counter() - began
    found = _Made(cell, model, masks, Outcome(files, row, tuple(dict(layer) for layer in report.layers)))
    if moved is None or settings["null"]:
        return found
    return replace(
        found, outcome=_with_run(found, moved.run.summary(), moved.run.history, moved.files, 0), trained=True
    )


def _null(kind: str, masks: MaskSet, seed: int, wiring: Wiring) -> MaskSet:
    if kind == INVERT:
        return generate(INVERT, wiring, source=masks, rng=seed)
    return nulls[kind](masks, seed, wiring)


def _metrics(work: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*work["metrics"], _ALWAYS]))


def _place(model: str, work: Mapping[str, Any]) -> str:
    """The network's name; a file that stands beside the sweep's TOML is named from there."""
    head, _, rest = model.partition(":")
    beside = Path(work["folder"]) / head
    return f"{beside}:{rest}" if rest and beside.is_file() else model


def _data(work: Mapping[str, Any]) -> str:
    """The data set's name; a path that stands beside the sweep's TOML is named from there."""
    beside = Path(work["folder"]) / work["data"]
    return str(beside) if beside.exists() else str(work["data"])


def _masks(cell: Cell, model: str, wiring: Wiring) -> MaskSet:
    settings, work = cell.settings, cell.work
    if settings.get("file"):
        path = Path(work["folder"]) / settings["file"]
        options = {key: settings[key] for key in ("format", "key") if settings.get(key)}
        return read_masks(path, wiring, **options)
    method = settings["method"]
    if method == FILE:
        raise TopoError("the cell names no file")
    if method == DENSE:
        return generate("uniform", wiring, density=1.0, rng=0)
    given: dict[str, Any] = json.loads(settings["options"]) if settings["options"] else {}
    if method == IMP:
        return _ticket(cell, model, given)
    return _generated(method, given, cell, model, wiring)


def _ticket(cell: Cell, model: str, given: Mapping[str, Any]) -> MaskSet:
    """The mask that iterative magnitude pruning finds with the recipe, from the weights of the mask's seed."""
    from topo.train.lottery import imp

    seed = int(cell.settings["seed"])
    return imp(model, _data(cell.work), density=cell.settings["density"], rng=seed, **_static(cell), **given).masks


def _generated(method: str, given: dict[str, Any], cell: Cell, model: str, wiring: Wiring) -> MaskSet:
    settings, work = cell.settings, cell.work
    entry = find_method(method)
    given |= {"quota": settings["quota"]} if settings.get("quota") else {}
    if is_pruner(entry):
        given |= {"input_shape": work["input"]} if work["input"] else {}
    if entry.needs == "data":
        given |= {"batches": _seen(work, int(settings["seed"]))}
    start: Any = model if is_pruner(entry) or calibrates(entry) else wiring

    def at(density: float) -> MaskSet:
        return generate(method, start, density=density, rng=int(settings["seed"]), **given)

    if settings.get("density_effective") in ("", None):
        return at(settings["density"])
    return _at_effective(at, settings["density_effective"], wiring)


def _seen(work: Mapping[str, Any], seed: int) -> list[Any]:
    """Ten examples of every class, in batches of at most about 256, for pruners that look at data."""
    from topo.data import batches, load

    if not work["data"]:
        raise TopoError("the method looks at data: name a data set in [train]")
    found = load(_data(work))
    classes, each = len(found.classes), 10
    share = max(n for n in range(1, each + 1) if each % n == 0 and (n == 1 or n * classes <= 256))
    return list(batches(found, share * classes, seed, per_class=each, count=each // share))


def _at_effective(at: Any, wanted: float, wiring: Wiring) -> MaskSet:
    """Masks whose effective density is `wanted`, within a thousandth of the weights that it stands for.

    The budget is halved in upon, in whole parameters. What a budget keeps effective is drawn anew with each, so that it
    need not rise evenly: where the halving ends beside the goal, budgets around its end are tried.

    TopoError with the nearest that was found, where none comes so near.
    """
    size = sum(layer.size for layer in wiring.layers)
    goal = round(wanted * size)
    near = max(1, math.floor(goal / 1000))
    tried: dict[int, tuple[int, MaskSet]] = {}

    def effective(kept: int) -> int:
        if kept not in tried:
            masks = at(kept / size)
            tried[kept] = (int(analyze(masks, wiring, metrics=["effective_params"], threads=1)
                               .network["effective_params"]), masks)  # fmt: skip
        return tried[kept][0]

    low, high = min(goal, size), size
    if low == high:
        effective(low)
    while low < high and len(tried) < _ROUNDS // 2:
        middle = (low + high) // 2
        found = effective(middle)
        if abs(found - goal) <= near:
            return tried[middle][1]
        low, high = (middle + 1, high) if found < goal else (low, middle)
    step = 1
    while len(tried) < _ROUNDS and step < size:
        for kept in (low - step, low + step):
            if goal <= kept <= size and abs(effective(kept) - goal) <= near:
                return tried[kept][1]
        step += 1
    best = min(tried.values(), key=lambda pair: abs(pair[0] - goal))
    if abs(best[0] - goal) <= near:
        return best[1]
    raise TopoError(f"no budget keeps {goal:,} effective parameters within {near:,}; the nearest keeps {best[0]:,}")


def _trained(made: Sequence[_Made]) -> list[Outcome]:
    """Each with its training. Where one of several that train side by side fails, each is tried apart."""
    if made and made[0].cell.work.get("side_by_side"):
        together = _tried(_side_by_side, made)
        if isinstance(together, list):
            return together
        each = [_tried(_side_by_side, [one]) for one in made]
        return [found[0] if isinstance(found, list) else found for found in each]
    return [_tried(_alone, one) for one in made]


def _static(cell: Cell) -> dict[str, Any]:
    """How a cell trains, whatever is asked of its initial weights."""
    from topo.train.recipe import find_recipe

    return {"recipe": find_recipe(dict(cell.work["recipe"])), "device": cell.work["device"], "threads": 1}


def _how(cell: Cell) -> dict[str, Any]:
    how = _static(cell)
    return how | ({"recipe": how["recipe"].changed(init="kaiming_normal")} if cell.settings["null"] == REINIT else {})


def _wanted(one: _Made) -> MaskSet | None:
    return None if one.cell.settings["method"] == DENSE else one.masks


@dataclass(frozen=True)
class _Run:
    """A run, and of its folder what is kept."""

    run: Any
    files: Mapping[str, bytes]


def _run(cell: Cell, model: str, masks: MaskSet | None, how: Mapping[str, Any]) -> _Run:
    from topo.train import train

    with tempfile.TemporaryDirectory(prefix="topo-cell-") as folder:
        place, seed = Path(folder) / "run", int(cell.settings["train_seed"])
        run = train(model, _data(cell.work), masks=masks, out=place, rng=seed, **how)
        return _Run(run, {name: path.read_bytes() for name in _KEPT if (path := place / name).is_file()})


def _moved(cell: Cell, model: str, wiring: Wiring) -> _Run | None:
    """The training in which a dynamic method moves the masks; None for methods that make masks otherwise."""
    settings = cell.settings
    if cell.work["recipe"] is None or settings.get("file") or not _is_dynamic(settings["method"]):
        return None
    given = json.loads(settings["options"]) if settings["options"] else {}
    start = _generated(given.pop("start", "erk"), {}, cell, model, wiring)
    how = _static(cell)
    return _run(cell, model, start, how | {"recipe": how["recipe"].changed(sparse=settings["method"], **given)})


def _is_dynamic(method: str) -> bool:
    from topo.train.dynamic import dynamics

    return method in dynamics


def _alone(one: _Made) -> Outcome:
    began = time.perf_counter()
    found = _run(one.cell, one.model, _wanted(one), _how(one.cell))
    return _with_run(one, found.run.summary(), found.run.history, found.files, time.perf_counter() - began)


def _side_by_side(made: Sequence[_Made]) -> list[Outcome]:
    from topo.train import train_many

    began, cell = time.perf_counter(), made[0].cell
    beside = made if len(made) > 1 else [*made, *made]  # one net alone is convolved otherwise than one of several
    runs = train_many(
        made[0].model, [_wanted(one) for one in beside], _data(cell.work), at_once=len(beside),
        seeds=[int(one.cell.settings["train_seed"]) for one in beside], **_how(cell),
    )  # fmt: skip
    each, found = (time.perf_counter() - began) / len(made), []
    for one, run in zip(made, runs):
        lines = "".join(json.dumps(dict(row)) + "\n" for row in run.history)
        summary = run.summary()
        files = {"summary.json": (json.dumps(summary, indent=2) + "\n").encode(), "metrics.jsonl": lines.encode()}
        found.append(_with_run(one, summary, run.history, files, each))
    return found


def _with_run(
    one: _Made,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    files: Mapping[str, bytes],
    seconds: float,
) -> Outcome:
    last, before = history[-1], one.outcome
    row = {
        "accuracy": summary["final_test_accuracy"],
        "loss": summary["final_test_loss"],
        "train_accuracy": last["train_accuracy"],
        "train_loss": last["train_loss"],
        **({"val_accuracy": last["val_accuracy"]} if "val_accuracy" in last else {}),
    }
    of_run = {f"runs/{one.cell.id}/{name}": data for name, data in files.items()}
    return Outcome(
        {**before.files, **of_run}, {**row, **before.row, "seconds": before.row["seconds"] + seconds}, before.layers
    )
