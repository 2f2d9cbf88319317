"""What decides a run besides its masks and its seed: runs that differ in it are not averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from topo.plots.given import Row, called, number, plain, told

# Columns that tell how a run was trained: [run] and [recipe] of a run's config.toml, its [imp], the recipe's name.
SETTINGS = (
    "model", "data", "train_images", "test_images", "init", "epochs", "batch", "optimizer", "lr", "momentum",
    "nesterov", "weight_decay", "schedule", "milestones", "factor", "warmup", "label_smoothing", "ema", "padding",
    "flip", "amp", "channels_last", "compile", "deterministic", "placement", "accumulate", "clip", "val", "best_on",
    "rewind", "rewind_epoch", "fraction", "sparse", "alpha", "update_every", "update_until",
    "mask_share", "ghost_activation", "ghost_skip", "length", "smoothing", "task",
)  # fmt: skip
# Keys that a label names; how many more differ is said behind them.
_NAMED = 3


def settled(rows: Sequence[Row], group: str, otherwise: str, besides: Iterable[str] = ()) -> list[str]:
    """What each row is called: its entry in the column `group`, and where rows of one group differ, in what.

    Rows of a group that differ in one of SETTINGS are called "erk, init=kaiming_normal" and "erk, init=as_built". The
    name of the recipe counts where no key differs. A key of which only one value is told does not differ; where there
    are more, a row without it is "init unknown". besides: columns that are seen to already.

    >>> settled([{"method": m, "lr": lr} for m, lr in (("erk", 0.1), ("erk", "0.10"), ("npb", 1), ("npb", 2))],
    ...     "method", "runs")
    ['erk', 'erk', 'npb, lr=1', 'npb, lr=2']
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(called(row, group, otherwise), []).append(place)
    names = [""] * len(rows)
    for name, places in groups.items():
        mine = [rows[place] for place in places]
        for place, text in zip(places, _differences(mine, {group, *besides})):
            names[place] = f"{name}, {text}" if text else name
    return names


def _differences(rows: Sequence[Row], besides: set[str]) -> list[str]:
    """Of each row the keys in which some differ, with its own values, those first that tell most rows apart."""
    keys = [key for key in SETTINGS if key not in besides and _differ(rows, key)]
    if not keys and "recipe" not in besides and _differ(rows, "recipe"):
        keys = ["recipe"]
    telling: list[str] = []
    for key in keys:
        if _kinds(rows, [*telling, key]) > _kinds(rows, telling):
            telling.append(key)
    keys = [*telling, *(key for key in keys if key not in telling)]
    shown = keys[: max(_NAMED, len(telling))]
    rest = len(keys) - len(shown)
    more = [f"{rest} more key{'s' * (rest > 1)}"] if rest else []
    return [", ".join([*(_said(row, key) for key in shown), *more]) for row in rows]


def _differ(rows: Sequence[Row], key: str) -> bool:
    return len({_value(row, key) for row in rows if told(row, key)}) > 1


def _kinds(rows: Sequence[Row], keys: Sequence[str]) -> int:
    return len({tuple(_value(row, key) for key in keys) for row in rows})


def _said(row: Row, key: str) -> str:
    return plain(f"{key}={_value(row, key)}") if told(row, key) else f"{key} unknown"


def _value(row: Row, key: str) -> str:
    """An entry as text; numbers alike however they are written."""
    value = number(row.get(key)) if not isinstance(row.get(key), bool) else math.nan
    return f"{value:.12g}" if math.isfinite(value) else str(row.get(key))
