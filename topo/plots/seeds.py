"""Seeds: which masks differ in nothing but what was drawn, and the mean and spread of their numbers.

Masks of one method and density whose seeds differ are one series: its mean, and around it an interval as a band, as
bars or as dots. Masks that a user named are series of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from topo.errors import TopoError
from topo.graph import LayeredGraph
from topo.plots.given import Found, choice, plain, stems
from topo.report import Report

INTERVALS = ("t95", "sd", "range", "none")
SHOWN = ("band", "bars", "dots")
_SAID = {"t95": "95 % interval of the mean", "sd": "standard deviation", "range": "least to largest"}
# Series that are told apart by eye; of more, users say what they want.
MOST = 8
_AUTO, _NONE = "auto", "none"
_KEYS = ("model", "method", "options", "density_asked")


def check_spread(interval: str, show: str) -> None:
    """TopoError for words that are not of INTERVALS and SHOWN."""
    choice("interval", interval, INTERVALS)
    choice("show", show, SHOWN)


def interval_of(values: Sequence[float], kind: str) -> tuple[float, float]:
    """(low, high) around the mean of numbers; the mean itself of one number, and where no interval is wanted.

    "t95": mean -+ t(0.975, n - 1) sd / sqrt(n) (Student 1908); "sd": mean -+ sd, of n - 1; "range": least and largest.

    >>> interval_of([1.0, 3.0], "range"), [round(x, 3) for x in interval_of([1.0, 3.0], "sd")]
    ((1.0, 3.0), [0.586, 3.414])
    """
    mean = float(np.mean(values))
    if len(values) < 2 or kind == "none":
        return mean, mean
    if kind == "range":
        return min(values), max(values)
    half = float(np.std(values, ddof=1))
    if kind == "t95":
        from scipy.stats import t

        half *= float(t.ppf(0.975, len(values) - 1)) / math.sqrt(len(values))
    return mean - half, mean + half


def said_of(interval: str, show: str, most: int) -> str:
    """What bands, bars or dots are, in words; nothing where no value is of several masks or runs."""
    if most < 2 or (interval == "none" and show != "dots"):
        return ""
    if show == "dots":
        return f"dots: each of up to {most}"
    return f"{'bands' if show == 'band' else 'bars'}: {_SAID[interval]}, up to {most}"


def draw_spread(
    ax: Axes,
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    interval: str,
    show: str,
    color: str,
    halves: Mapping[int, float] | None = None,
) -> None:
    """Draw around the means at x what the values spread: a band, a bar each, or every value as a dot.

    halves: place in x -> half the width of the interval, where it is known of a mean whose values are not.
    """
    many = [len(found) > 1 for found in values]
    if show == "dots":
        places = [place for place, found, several in zip(x, values, many) for _ in found if several]
        every = [value for found, several in zip(values, many) for value in found if several]
        size = 0.6 * mpl.rcParams["lines.markersize"]
        ax.plot(places, every, linestyle="none", marker="o", markersize=size, color=color, alpha=0.45, zorder=2)
        return
    known = dict(halves or {}) if interval != "none" else {}
    if interval == "none" or not (any(many) or known):
        return
    ends = np.array([interval_of(found, interval) if found else (math.nan, math.nan) for found in values])
    for k, half in known.items():
        ends[k] += (-half, half)
    if ax.get_yscale() == "log":  # an interval that reaches zero has no lower end there
        least = np.array([min(found, default=math.nan) for found in values])
        ends[:, 0] = np.where(ends[:, 0] > 0, ends[:, 0], least)
    if show == "band" and len(x) > 1:
        ax.fill_between(x, ends[:, 0], ends[:, 1], color=color, alpha=0.15, linewidth=0)
        return
    look: dict[str, Any] = {"color": color, "linewidth": 0.8, "capsize": 2, "marker": "none", "linestyle": "none"}
    for k, (place, (low, high)) in enumerate(zip(x, ends)):
        if many[k] or k in known:
            ax.errorbar([place], [(low + high) / 2], [[(high - low) / 2]], **look)


def series_of(given: Mapping[str, Any], data: Any, group: str, what: str) -> dict[str, list[Any]]:
    """Label -> the items of a series. given: label -> item, as `labelled` made it of `data`.

    group: "auto" puts together what differs in its seed alone (the same model, method, options and density) where
    several items do, unless a user gave the labels; "none" puts nothing together; otherwise columns with commas
    between: of the provenance, or fields of files' names.

    Raises TopoError for a column that an item lacks, and for more than 8 series that nobody named.
    """
    chosen = isinstance(data, Mapping) and not isinstance(data, Found)
    if group == _NONE or (group == _AUTO and (chosen or len(given) < 2)):
        return {label: [item] for label, item in given.items()}
    columns = {label: _columns(item) for label, item in given.items()}
    found: dict[str, list[Any]] = {}
    if group == _AUTO:
        shared: dict[Any, list[str]] = {}
        for label in given:
            shared.setdefault(_key(columns[label], label), []).append(label)
        twice = {
            key for key, labels in shared.items() if len({str(columns[k].get("seed")) for k in labels}) < len(labels)
        }
        together: dict[Any, list[str]] = {}
        for label in given:  # one mask twice is not a sample
            key = _key(columns[label], label)
            together.setdefault(label if key in twice else key, []).append(label)
        names = _names([columns[labels[0]] for labels in together.values()], list(together.values()))
        found = {name: [given[label] for label in labels] for name, labels in zip(names, together.values())}
    else:
        keys = [key.strip() for key in group.split(",") if key.strip()]
        for label, item in given.items():
            for key in keys:
                if _entry(columns[label], key) is None:
                    known = ", ".join(map(str, columns[label])) or "nothing"
                    raise TopoError(f"'{label}' has no '{key}' to group by; known of it: {known}")
            name = ", ".join(_text(key, _entry(columns[label], key)) for key in keys)
            found.setdefault(name, []).append(item)
    if len(found) > MOST and not chosen and group == _AUTO:
        raise TopoError(
            f"{len(found)} series of {what} cannot be told apart: group=method (or other columns) averages them, "
            "group=none draws each, and labels of one's own (LABEL=FILE) are all drawn"
        )
    return found


def _columns(item: Any) -> dict[str, Any]:
    if isinstance(item, Report):
        return {"mask": item.mask, **({"model": item.model} if item.model else {}), **item.columns}
    masks = item.masks if isinstance(item, LayeredGraph) else item
    known = dict(masks.provenance)
    if "density" in known:
        known["density_asked"] = known.pop("density")
    return {key: value for key, value in known.items() if isinstance(value, str | int | float)}


def _entry(columns: Mapping[str, Any], key: str) -> Any:
    return columns.get(key, columns.get("density_asked") if key == "density" else None)


def _key(columns: Mapping[str, Any], label: str) -> Any:
    """What masks share that differ in their seed alone; of others, which say too little, the label."""
    density = _entry(columns, "density")
    if columns.get("method") is None or columns.get("seed") is None or density is None:
        return label
    return tuple(str(_entry(columns, key)) for key in _KEYS)


def _names(columns: Sequence[Mapping[str, Any]], labels: Sequence[Sequence[str]]) -> list[str]:
    """What tells each series apart: its method, with the density where there are several; of one mask its label."""
    alone = dict(zip([group[0] for group in labels], stems([group[0] for group in labels])))
    several = {str(_entry(known, "density")) for known, group in zip(columns, labels) if len(group) > 1}
    names = []
    for known, group in zip(columns, labels):
        if len(group) == 1:
            names.append(alone[group[0]])
            continue
        name = plain(known["method"])
        name += plain(_said_options(known.get("options")))
        names.append(f"{name}, {_text('density', _entry(known, 'density'))}" if len(several) > 1 else name)
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _said_options(options: Any) -> str:
    """ " (floor=8)" of {"floor": 8} or of its JSON; nothing where no option was set."""
    if isinstance(options, str) and options.startswith("{"):
        try:
            options = json.loads(options)
        except ValueError:
            pass
    if isinstance(options, Mapping):
        options = ", ".join(f"{key}={value}" for key, value in options.items())
    return f" ({options})" if options else ""


def _text(key: str, value: Any) -> str:
    if key in ("density", "density_asked"):
        return f"{100 * float(value):.3g} %"
    return plain(value if key == "method" else f"{key} {value}")
