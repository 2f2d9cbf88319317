"""One cell: its mask made or read, measured and, where asked, trained. What comes of it is bytes and plain values."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topo.analyze import analyze
from topo.errors import TopoError
from topo.files import read_masks, write_masks
from topo.generate import find_method, generate, is_pruner
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.nulls import nulls
from topo.sweep.plan import DENSE, FILE, REINIT, Cell
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


def carry_out(cell: Cell) -> Outcome:
    """Make, measure and train; whatever goes wrong is a line in the outcome."""
    began = time.perf_counter()
    try:
        found = _carried_out(cell)
    except TopoError as error:
        return Outcome(error=" ".join(str(error).split()))
    except Exception as error:
        return Outcome(error=f"internal error: {type(error).__name__}: {' '.join(str(error).split())}")
    return Outcome(found.files, {**found.row, "seconds": time.perf_counter() - began}, found.layers)


def _carried_out(cell: Cell) -> Outcome:
    settings, work = cell.settings, cell.work
    model = _place(settings["network"], work)
    wiring = find_wiring(model, work["input"])
    masks = _masks(cell, model, wiring)
    if settings["null"] and settings["null"] != REINIT:
        known = {"null_of": settings["method"], "null": settings["null"], "seed": settings["seed"]}
        drawn = nulls[settings["null"]](masks, int(settings["seed"] or 0), wiring)
        masks = drawn.with_provenance(model=settings["network"], density=drawn.density, **known)
    report = analyze(masks, wiring, metrics=_metrics(work), view=work["view"], threads=1, mask_name=cell.id)
    row: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="topo-cell-") as place:
        file = Path(place) / "masks.safetensors"
        write_masks(masks, file)
        files[f"masks/{cell.id}.safetensors"] = file.read_bytes()
        files[f"reports/{cell.id}.json"] = report.to_json().encode()
        if work["recipe"] is not None:
            row |= _trained(cell, model, masks, Path(place) / "run", files)
    row |= {("density_kept" if key == "density" else key): value for key, value in report.network.items()}
    return Outcome(files, row, tuple(dict(layer) for layer in report.layers))


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
    entry = find_method(method)
    given: dict[str, Any] = json.loads(settings["options"]) if settings["options"] else {}
    given |= {"quota": settings["quota"]} if settings.get("quota") else {}
    if is_pruner(entry):
        given |= {"input_shape": work["input"]} if work["input"] else {}
        if entry.needs == "data":
            given |= {"batches": _seen(work, int(settings["seed"]))}
    start: Any = model if is_pruner(entry) else wiring

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


def _trained(cell: Cell, model: str, masks: MaskSet, place: Path, files: dict[str, bytes]) -> dict[str, Any]:
    from topo.train import train
    from topo.train.recipe import find_recipe

    settings, work = cell.settings, cell.work
    recipe = find_recipe(dict(work["recipe"]))
    if settings["null"] == REINIT:
        recipe = recipe.changed(init="kaiming_normal")
    run = train(
        model, _data(work), masks=None if settings["method"] == DENSE else masks, recipe=recipe,
        device=work["device"], out=place, rng=int(settings["train_seed"]), threads=1,
    )  # fmt: skip
    summary = run.summary()
    for name in _KEPT:
        if (place / name).is_file():
            files[f"runs/{cell.id}/{name}"] = (place / name).read_bytes()
    last = run.history[-1]
    return {
        "accuracy": summary["final_test_accuracy"],
        "loss": summary["final_test_loss"],
        "train_accuracy": last["train_accuracy"],
        "train_loss": last["train_loss"],
        **({"val_accuracy": last["val_accuracy"]} if "val_accuracy" in last else {}),
    }
