"""What figures share: axes, marks, legends above the axes, names of layers, and labels that do not touch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

MARKERS = "osD^vP*h"
STYLES = ("-", "--", ":", "-.")
RED, GREY, PALE = "#b00020", "#777777", "#d9d9d9"
# Points; smaller type is not read on paper.
_SMALLEST_TYPE = 5.0
# Share of the figure's height that upright names may take.
_TALLEST_NAMES = 0.36
# Where a label is tried, in points from its mark: (x, y, horizontal, vertical alignment).
_PLACES = (
    (4, 0, "left", "center"), (-4, 0, "right", "center"), (0, 4, "center", "bottom"), (0, -4, "center", "top"),
    (4, 4, "left", "bottom"), (-4, 4, "right", "bottom"), (4, -4, "left", "top"), (-4, -4, "right", "top"),
)  # fmt: skip


def axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained").add_subplot()


def turn(sequence: Sequence[Any], number: int) -> Any:
    return sequence[number % len(sequence)]


def mark(ax: Axes, places: Sequence[int], label: str, height: float = 0.0, **look: Any) -> None:
    """Marks on the lower edge of the axes, or so much of the axes above it."""
    if places:
        look |= {"linestyle": "none", "markerfacecolor": "white", "markeredgewidth": 1.3, "zorder": 5, "clip_on": False}
        ax.plot(places, [height] * len(places), transform=ax.get_xaxis_transform(), label=label, **look)


def size_of(ax: Axes) -> tuple[float, float]:
    """Width of the axes and height of the figure, in points; roughly, for the layout is only known once it is drawn."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return 72 * figure.get_figwidth() * ax.get_position().width, 72 * figure.get_figheight()


def points(size: Any) -> float:
    return FontProperties(size=size).get_size_in_points()


def name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Names under the axis, without a last part that all share; upright where they would touch, else numbers."""
    ends = {name.rpartition(".")[2] for name in layers}
    names = [name.rpartition(".")[0] or name for name in layers] if len(ends) == 1 else list(layers)
    longest = 0.6 * max(map(len, names))  # times the size of the type
    width, height = size_of(ax)
    room = width / len(names)
    upright = longest * points(mpl.rcParams["xtick.labelsize"]) > room
    size = points(mpl.rcParams["xtick.labelsize"])
    if upright:
        size = min(size, room / 1.15, _TALLEST_NAMES * height / longest)
    if size < _SMALLEST_TYPE:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("layer, by number from 0")
        return
    ax.set_xticks(range(len(names)), names, fontsize=size)
    if upright:
        ax.tick_params(axis="x", labelrotation=90)
    ax.set_xlabel("layer")


def legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing, in as many columns as fit."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        columns = columns_of(labels, size_of(ax)[0])
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            columnspacing=1.5,
            labelspacing=0.3,
        )


def columns_of(labels: Sequence[str], room: float) -> int:
    """The most columns of a legend, filled column by column, that fit into `room` points."""
    plain = [re.sub(r"\\[a-z]+|[\\${}_^,]", "", label) for label in labels]
    widths = [points(mpl.rcParams["legend.fontsize"]) * (0.55 * len(label) + 4.5) for label in plain]
    for columns in range(len(labels), 1, -1):
        tall = np.array_split(widths, columns)
        if sum(part.max() for part in tall) <= room:
            return columns
    return 1


def new_figure(fig: Figure | SubFigure | None, *, wide: float = 1.0) -> Figure | SubFigure:
    """The figure that is given, or a new one of the current style, `wide` times as wide."""
    if fig is not None:
        return fig
    from matplotlib import pyplot

    width, height = mpl.rcParams["figure.figsize"]
    return pyplot.figure(layout="constrained", figsize=(width * wide, height))


def small() -> float:
    """Points of the type of remarks inside the axes: that of tick labels, at most 7."""
    return min(7.0, points(mpl.rcParams["xtick.labelsize"]))


def name_points(ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], color: str = GREY) -> None:
    """Names beside points, each where it touches no point and no other name, left out where there is no such place.

    Drawn for the present layout; later changes of the limits may move names onto each other.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    size = small() - 1
    spots = ax.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(px - 2 * scale, py - 2 * scale, 4 * scale, 4 * scale) for px, py in spots]
    frame = ax.get_window_extent()
    done: set[tuple[str, int, int]] = set()
    outline: list[AbstractPathEffect] = [withStroke(linewidth=1.5, foreground="white")]
    for (px, py), place, name in zip(spots, zip(x, y), names):
        key = (name, round(px / scale / 6), round(py / scale / 6))
        if key in done:
            continue
        done.add(key)
        width, height = 0.6 * size * len(name) * scale, 1.1 * size * scale
        for dx, dy, across, up in _PLACES:
            left = px + dx * scale - {"left": 0.0, "center": width / 2, "right": width}[across]
            low = py + dy * scale - {"bottom": 0.0, "center": height / 2, "top": height}[up]
            box = Bbox.from_bounds(left, low, width, height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                text = ax.annotate(
                    name, place, (dx, dy), textcoords="offset points", ha=across, va=up, fontsize=size, color=color
                )
                text.set_in_layout(False)
                text.set_path_effects(outline)
                taken.append(box)
                break


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten from low to high, at most about eight of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= 8:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 8)]


def percent(share: float) -> str:
    """0.05 -> "5 %", 0.0201 -> "2 %"."""
    return f"{100 * share:.2g} %"
