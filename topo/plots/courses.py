"""Courses: what a run says of itself, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.plots.axes import axes, legend, name_x, name_y, nothing, series, whole_ticks
from topo.plots.given import number, plain, worded
from topo.plots.registry import plot
from topo.plots.seeds import check_spread, draw_spread, said_of
from topo.plots.settings import settled

_MARKED = 30  # epochs; longer courses have no marks


@plot("courses")
def training_curves(
    data: Any,
    ax: Axes | None = None,
    *,
    y: str = "test_accuracy",
    group: str = "method",
    interval: str = "t95",
    show: str = "band",
    **style: Any,
) -> Axes:
    """A number of each epoch of training, a curve for each method: the mean over seeds and an interval.

    data: run folders (paths), `Run`s of `topo.train`, (what is known of a run, its epochs) pairs, or label -> one of
    them. y: a number of metrics.jsonl: test_accuracy, train_loss, lr, seconds, ...; accuracies are drawn in percent.
    group: the column by which runs are called. Runs of one group that differ in nothing but their seed are averaged
    where their epochs agree; those that were trained otherwise have curves of their own (`topo.plots.settings`).
    interval: "t95" (95 % of the mean, Student), "sd", "range" or "none", shown as a "band", "bars" or "dots". Runs
    without an epoch are left out, and counted. style: of the curves.

    Raises TopoError where no run has an epoch, or no epoch a number `y`.
    """
    check_spread(interval, show)
    found = _runs(data)
    begun = [(row, epochs) for row, epochs in found if epochs]
    if not begun:
        raise TopoError(f"no epoch is finished in any of {len(found)} runs: there is no course to draw")
    if not any(math.isfinite(number(epoch.get(y))) for _, epochs in begun for epoch in epochs):
        known = dict.fromkeys(key for _, epochs in begun for epoch in epochs for key in epoch)
        raise TopoError(f"no epoch has a number '{y}'; it has: {', '.join(key for key in known if key != 'epoch')}")
    rows = [row for row, _ in begun]
    names = settled(rows, group, "run", (y,))
    names = [plain(row["label"]) if row.get("label") else name for row, name in zip(rows, names)]
    rounds = [str(row["round"]) if row.get("round") else "" for row in rows]
    names = [f"{name}, {part}" if part else name for name, part in zip(names, rounds)]
    scale = 100.0 if "accuracy" in y else 1.0
    curves: dict[str, dict[float, list[float]]] = {}
    for name, (_, epochs) in zip(names, begun):
        for place, epoch in enumerate(epochs, 1):
            value = number(epoch.get(y))
            if math.isfinite(value):
                at = number(epoch.get("epoch"))
                curves.setdefault(name, {}).setdefault(at if math.isfinite(at) else place, []).append(scale * value)
    ax = axes(ax)
    values = [value for curve in curves.values() for held in curve.values() for value in held]
    if y == "lr" and min(values) > 0 and max(values) > 20 * min(values):
        ax.set_yscale("log")
    most = 1
    for i, (name, curve) in enumerate(curves.items()):
        x = sorted(curve)
        look = series(i) | ({"marker": "none"} if len(x) > _MARKED else {})
        ax.plot(x, [float(np.mean(curve[at])) for at in x], **{**look, "label": name, **style})
        draw_spread(ax, x, [curve[at] for at in x], interval, show, look["color"])
        most = max(most, *(len(curve[at]) for at in x))
    if scale == 100:
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0.0), min(high, 100.5))
    said = said_of(interval, show, most)
    told = [f"{said} runs"] if said else []
    left = len(found) - len(begun)
    told += [f"{left} run{'s' * (left > 1)} without an epoch left out"] if left else []
    whole_ticks(ax.xaxis, [at for curve in curves.values() for at in curve])
    name_x(ax, f"epoch ({'; '.join(told)})" if told else "epoch")
    name_y(ax, worded(y) + (" (%)" if scale == 100 else ""))
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    if len(curves) > 1 or any(row.get("label") for row in rows):
        legend(ax, list(curves))
    if not values:
        nothing(ax, "nothing to draw")
    return ax


Course = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]


def _runs(data: Any) -> list[Course]:
    if isinstance(data, Mapping):
        return [({**row, "label": str(label)}, epochs) for label, item in data.items() for row, epochs in _of(item)]
    items = [data] if isinstance(data, str | Path) or hasattr(data, "history") else data
    if not isinstance(items, Sequence):
        raise TopoError(f"a course is drawn of runs and run folders, not of {type(data).__name__}")
    if not len(items):
        raise TopoError("a course is drawn of one run or more; none was given")
    return [course for item in items for course in _of(item)]


def _of(item: Any) -> Sequence[Course]:
    """The courses of a path, a Run, or a pair."""
    from topo.plots.written import courses_of, kind_of

    if isinstance(item, str | Path):
        if not Path(item).exists():
            raise TopoError(f"there is no file or folder '{item}'")
        kind = kind_of(item)
        if kind not in ("run", "rounds", "sweep", "course"):
            raise TopoError(f"'{item}' is not the folder of a run")
        return courses_of(item, kind)
    if hasattr(item, "history") and hasattr(item, "masks"):
        held = item.masks
        known = {} if held is None else dict(held.provenance)
        method = "dense" if held is None else known.get("method", "masked")
        return [({"method": method, "seed": item.seed}, list(item.history))]
    if isinstance(item, tuple) and len(item) == 2:
        return [item]
    raise TopoError(f"a course is drawn of runs and run folders, not of {type(item).__name__}")
