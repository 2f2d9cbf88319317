"""What figures share: axes, marks, legends above the axes, names of layers, and labels that do not touch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from topo.plots.given import plain, short
from topo.plots.style import LINES, MARKERS

RED, GREY, PALE = "#b00020", "#777777", "#d9d9d9"
# Share of the figure's height that upright names may take.
_TALLEST_NAMES = 0.34
# Of layers: where more than every fourth would have to be left out, they are numbered instead.
_MOST_SKIPPED = 4
# Handle of an entry of a legend, the gaps beside it and the gap to the next column, times the size of the type.
_HANDLE = 4.5
_LEGEND: dict[str, Any] = {"columnspacing": 1.5, "labelspacing": 0.3}
# Share of the page that axes take before they are laid out; points that a name and numbers beside them take, twice.
_SHARE, _BESIDE = 0.775, 56.0
_MOST_ROWS = 4  # of a legend, if shorter labels can help it
_TALLEST_LEGEND = 1 / 3  # of the page's height
# Letters that the words of a name are cut to, until it fits.
_CUTS = (99, 6, 5, 4, 3, 2, 1)
# Where a label is tried, in widths of a mark from its middle: (x, y, horizontal, vertical alignment).
_PLACES = (
    (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"),
    (1, 1, "left", "bottom"), (-1, 1, "right", "bottom"), (1, -1, "left", "top"), (-1, -1, "right", "top"),
)  # fmt: skip


def axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(layout="constrained").add_subplot()


def colour(number: int) -> str:
    """Of a series, from the style in force; as a value, for names like "C0" would be looked up again when saving."""
    return mpl.colors.to_hex(f"C{number}")


def series(number: int) -> dict[str, Any]:
    """Colour, mark and line of a series: of eight colours the first 64 differ, the first 8 in colour and in mark."""
    place, round_ = number % len(MARKERS), number // len(MARKERS)
    marker = MARKERS[(place + round_) % len(MARKERS)]
    return {"color": colour(number), "marker": marker, "linestyle": LINES[(place + round_) % len(LINES)]}


def key(ax: Axes, label: str, **look: Any) -> None:
    """An entry of the legend without a line in the axes."""
    ax.plot([], [], label=label, **{"marker": "none", "linestyle": "-", **look})


def mark(ax: Axes, places: Sequence[int], label: str, height: float = 0.0, **look: Any) -> None:
    """Marks on the lower edge of the axes, or so much of the axes above it."""
    if places:
        look |= {"linestyle": "none", "markerfacecolor": "white", "markeredgewidth": 1.3, "zorder": 5, "clip_on": False}
        ax.plot(places, [height] * len(places), transform=ax.get_xaxis_transform(), label=label, **look)


def size_of(ax: Axes) -> tuple[float, float]:
    """Width of the axes and height of the figure, in points; roughly, for the layout is only known once it is drawn."""
    width, height = page_of(ax)
    return width * ax.get_position().width, height


def page_of(ax: Axes) -> tuple[float, float]:
    """Width and height in points of the figure, or of the subfigure, that the axes are part of."""
    figure = ax.get_figure(root=False)
    assert figure is not None
    if isinstance(figure, Figure):
        return 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    return 72 * figure.bbox.width / figure.dpi, 72 * figure.bbox.height / figure.dpi


def points(size: Any) -> float:
    return FontProperties(size=size).get_size_in_points()


def width_of(text: str, size: float) -> float:
    """Points that a line of text takes; roughly, of mathematics."""
    text = text.replace(r"\$", "\0")
    if "$" in text:
        text = re.sub(r"[\\${}_^,]", "", re.sub(r"\\[A-Za-z]+", "x", text))
    text = text.replace("\0", "$")
    return float(TextToPath().get_text_width_height_descent(text, _font(size), False)[0])


def _font(size: float) -> FontProperties:
    return FontProperties(family=mpl.rcParams["font.family"], size=size)


def fitted(text: str, room: float, size: float) -> str:
    """Text in as few lines as fit into `room` points, broken at blanks; lines that it has already stay apart."""
    if "\n" in text:
        return "\n".join(fitted(line, room, size) for line in text.split("\n"))
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width_of(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def name_x(ax: Axes, text: str, beside: float = 0.0) -> None:
    """What stands under the axes, in as many lines as it takes. beside: points of long names at the left."""
    size = points(mpl.rcParams["axes.labelsize"])
    room = min(_room(ax), page_of(ax)[0] - beside - 2 * size) if beside else _room(ax)
    ax.set_xlabel(fitted(text, room, size))


def name_y(ax: Axes, text: str) -> None:
    """What stands beside the axes, in as many lines as it takes."""
    ax.set_ylabel(fitted(text, 0.62 * size_of(ax)[1], points(mpl.rcParams["axes.labelsize"])))


def remark(ax: Axes, text: str) -> None:
    """What has to be known to read the figure, in small grey type in place of the name of the x axis."""
    ax.set_xlabel(fitted(text, _room(ax), small()), fontsize=small(), color=GREY)


def nothing(ax: Axes, text: str) -> None:
    """Empty axes say why: in their middle, and without ticks, which would be numbers of nothing."""
    ax.set_yticks([])
    room = 0.9 * size_of(ax)[0]
    ax.text(
        0.5,
        0.5,
        fitted(text, room, small()),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=small(),
        color=GREY,
    )


def whole_ticks(axis: Axis, values: Any) -> None:
    """Ticks at whole numbers, where all values are: half a unit is none."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size and (finite == np.round(finite)).all():
        axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def headline(ax: Axes, text: str, room: float | None = None) -> None:
    """What is seen, above the axes at the left, `room` points wide."""
    ax.set_title(fitted(text, room or _room(ax), small()), fontsize=small(), loc="left")


def _room(ax: Axes) -> float:
    """Points across that text under axes may take: it is centred on them, not on the page."""
    return size_of(ax)[0] / _SHARE - _BESIDE


def name_layers(ax: Axes, layers: Sequence[str]) -> str:
    """Names under the axis, which says what was left of them; that is returned, too, for figures that say more.

    A last part that all share is left out, and a first one that all names of several parts share. Names stand upright
    where they would touch; where they still would, every 2nd, 3rd or 4th layer is named, with the words of names cut to
    so many letters as fit and tell layers apart. With more layers or longer names than that, layers are numbered.
    """
    layers = [plain(name) for name in layers]
    ends = {name.rpartition(".")[2] for name in layers}
    names = [name.rpartition(".")[0] or name for name in layers] if len(ends) == 1 else list(layers)
    every, rules = 1, []
    if first := _first_part(names):
        names = [name.removeprefix(f"{first}.") for name in names]
        rules.append(f"without {first}.")
    width, height = size_of(ax)
    room, size = width / len(names), points(mpl.rcParams["xtick.labelsize"])
    if max(width_of(name, size) for name in names) + 0.5 * size > room:
        every = math.ceil(1.2 * size / room)
        cut = _cut(names, _TALLEST_NAMES * height, size)
        if cut is None or every > _MOST_SKIPPED:
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            name_x(ax, "layer, by number from 0")
            return "layers by number from 0"
        names, letters = cut
        rules += [("", "", "every 2nd named", "every 3rd named", "every 4th named")[every]] if every > 1 else []
        rules += [f"words cut to {letters} letter{'s' * (letters > 1)}"] if letters < _CUTS[0] else []
        ax.tick_params(axis="x", labelrotation=90)
    ax.set_xticks(range(0, len(names), every), names[::every], fontsize=size)
    name_x(ax, f"layer ({', '.join(rules)})" if rules else "layer")
    return f"layers: {', '.join(rules)}" if rules else ""


def _first_part(names: Sequence[str]) -> str:
    """The first part of all names of several parts, if it can be left out; nothing of fewer than three such names.

    >>> _first_part(["stem", "blocks.0.a", "blocks.0.b", "blocks.1.a"]), _first_part(["a.0", "a.1", "0", "a.2"])
    ('blocks', '')
    """
    parted = [name for name in names if "." in name]
    firsts = {name.partition(".")[0] for name in parted}
    if len(firsts) != 1 or len(parted) < 3:
        return ""
    first = firsts.pop()
    rest = [name.removeprefix(f"{first}.") for name in names]
    return first if len(set(rest)) == len(set(names)) and not first.isdecimal() else ""


def _cut(names: Sequence[str], room: float, size: float) -> tuple[list[str], int] | None:
    """Names whose words have so many letters that the longest fits into `room` points, and how many these are.

    None if they do not fit, or names of different layers would be equal.
    """
    for letters in _CUTS:
        cut = [re.sub("[A-Za-z]+", lambda word, k=letters: word[0][:k], name) for name in names]  # type: ignore[misc]
        if len(set(cut)) < len(set(names)):
            return None
        if max(width_of(name, size) for name in cut) <= room:
            return cut, letters
    return None


def clipped(names: Sequence[str], room: float, size: float) -> list[str]:
    """Names that take more than `room` points with dots in their middle, of as many letters as tell them apart."""
    width = cache(lambda text: width_of(text, size))  # each is asked for again at the next `least`
    for least in range(6, max(map(len, names), default=0) + 1):
        cut = [_clip(name, room, width, least) for name in names]
        if len(set(cut)) == len(set(names)):
            return cut
    return list(names)


def _clip(name: str, room: float, width: Callable[[str], float], least: int) -> str:
    """As much of both ends of a name as fits, at least so many letters."""
    cut, kept = name, len(name) - 1
    while kept >= least and width(cut) > room:
        cut = f"{name[: (kept + 1) // 2]}…{name[len(name) - kept // 2 :]}"
        kept -= 1
    return cut


def legend(ax: Axes, names: Sequence[str] = (), beside: float = 0.0) -> None:
    """Above the axes, where it hides nothing, in as many columns as fit.

    names: what masks and groups are called, in labels; they alone are cut, if the legend grew too high.
    Where there are too many for a third of the page's height, the last names are left out and counted: "and 28 more".
    beside: points that the axes' own names at the left take, where they are long.
    """
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        size = points(mpl.rcParams["legend.fontsize"])
        room = max(size_of(ax)[0], size_of(ax)[0] / _SHARE - 0.85 * _BESIDE)
        room = min(room, page_of(ax)[0] - beside - 2 * size) if beside else room
        shown, labels, columns = _bounded(
            labels, names, size_of(ax)[1], size, lambda some: _in_columns(some, names, room, size)
        )
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
        ax.legend(_with_rest(handles, shown), labels, ncols=columns, **place, **_LEGEND)


def _bounded(
    labels: Sequence[str],
    names: Sequence[str],
    height: float,
    size: float,
    arranged: Callable[[Sequence[str]], tuple[list[str], int]],
) -> tuple[list[int], list[str], int]:
    """(entries that are shown, their lines and those of the rest, columns): of no more than a third of the height.

    Entries that name a mask or a group go first, from the last one on; what the figure's marks mean stays.
    """
    most = max(_MOST_ROWS, int(_TALLEST_LEGEND * height / (1.3 * size)))
    spare = [k for k, label in enumerate(labels) if not names or any(name in label for name in names)]

    def keeping(count: int) -> tuple[bool, tuple[list[int], list[str], int]]:
        """Whether it is low enough with so many of the spare entries, and how it looks then."""
        gone = set(spare[count:])
        shown = [k for k in range(len(labels)) if k not in gone]
        lines, columns = arranged([*(labels[k] for k in shown), *([f"and {len(gone)} more"] if gone else [])])
        parts = np.array_split([line.count("\n") + 1 for line in lines], columns)
        return max(int(part.sum()) for part in parts) <= most, (shown, lines, columns)

    fits, found = keeping(len(spare))
    low, high = min(1, len(spare)), len(spare)
    if fits or low == high:
        return found
    found = keeping(low)[1]
    while high - low > 1:
        middle = (low + high) // 2
        fits, tried = keeping(middle)
        low, high, found = (middle, high, tried) if fits else (low, middle, found)
    return found


def _with_rest(handles: Sequence[Any], shown: Sequence[int]) -> list[Any]:
    """The handles that are shown, and an empty one for how many are not."""
    blank = [Line2D([], [], linestyle="none")] if len(shown) < len(handles) else []
    return [*(handles[k] for k in shown), *blank]


def _in_columns(labels: Sequence[str], names: Sequence[str], room: float, size: float) -> tuple[list[str], int]:
    """Labels of a legend, and in how many columns they stand in `room` points.

    If many stood in one, names are cut to half the room, then labels broken, and then what all names share left out.
    """
    lines = [fitted(label, room - _HANDLE * size, size) for label in labels]
    columns, half = columns_of(lines, room), room / 2 - (_HANDLE - 0.7) * size
    if columns > 1 or len(labels) <= _MOST_ROWS:
        return lines, columns
    for brief in (names, short(names)):
        cut = _shortened(labels, names, brief, half, size)
        for width in (room - _HANDLE * size, half):
            lines = [fitted(label, width, size) for label in cut]
            if (columns := columns_of(lines, room)) > 1:
                return lines, columns
    return lines, columns


def _shortened(
    labels: Sequence[str], names: Sequence[str], brief: Sequence[str], room: float, size: float
) -> list[str]:
    """Labels whose names are cut, so that a label fits into `room` points if it can; all but the names stays.

    A name is all of a label, its end after a comma or "of", or its start before a colon or a bracket.
    brief: what the names are taken as.
    """
    clip = cache(lambda rest: clipped(brief, room - width_of(rest, size), size))
    shown = []
    for label in labels:
        found = [re.search(rf"(?:^|(?<=, )|(?<= of )){re.escape(name)}(?=$|:| \()", label) for name in names]
        known = [(match, k) for k, match in enumerate(found) if match and "$" not in names[k]]
        if not known:
            shown.append(label)
            continue
        match, k = max(known, key=lambda pair: len(pair[0][0]))
        before, after = label[: match.start()], label[match.end() :]
        cut = clip(before + after)[k]
        shown.append(label if cut == match[0] else f"{before}{cut}{after}")
    return shown


def figure_legend(fig: Figure | SubFigure, ax: Axes) -> None:
    """Above all panels of a figure, if there are several things to tell apart; they are those of one panel.

    Of a sixth of the height, or four rows: the titles of the panels and what is said below need the rest.
    """
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        size = points(mpl.rcParams["legend.fontsize"])
        room = 72 * fig.bbox.width / fig.dpi - size

        def arranged(some: Sequence[str]) -> tuple[list[str], int]:
            lines = [fitted(label, room - _HANDLE * size, size) for label in some]
            return lines, columns_of(lines, room)

        shown, labels, columns = _bounded(labels, (), 36 * fig.bbox.height / fig.dpi, size, arranged)
        fig.legend(_with_rest(handles, shown), labels, loc="outside upper left", ncols=columns, **_LEGEND)


def columns_of(labels: Sequence[str], room: float) -> int:
    """The most columns of a legend, filled column by column, that fit into `room` points."""
    size = points(mpl.rcParams["legend.fontsize"])
    widths = [max(width_of(line, size) for line in label.split("\n")) + _HANDLE * size for label in labels]
    for columns in range(len(labels), 1, -1):
        tall = np.array_split(widths, columns)
        if sum(part.max() for part in tall) - 1.5 * size <= room:
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
    """Points of the type of remarks inside the axes: that of tick labels."""
    return points(mpl.rcParams["xtick.labelsize"])


def name_points(ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], color: str = GREY) -> None:
    """Names beside points, each where it touches no point and no other name, left out where there is no such place.

    Drawn for the present layout; later changes of the limits may move names onto each other.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    size, mark = small(), mpl.rcParams["lines.markersize"] + 0.5
    spots = ax.transData.transform(np.column_stack([x, y]))
    side = mark * scale
    taken = [Bbox.from_bounds(px - side / 2, py - side / 2, side, side) for px, py in spots]
    frame = ax.get_window_extent()
    done: set[tuple[str, int, int]] = set()
    outline: list[AbstractPathEffect] = [withStroke(linewidth=1.5, foreground="white")]
    for (px, py), place, name in zip(spots, zip(x, y), names):
        key = (name, round(px / side / 1.5), round(py / side / 1.5))
        if key in done:
            continue
        done.add(key)
        width, height = width_of(name, size) * scale, 1.1 * size * scale
        for right, above, across, up in _PLACES:
            dx, dy = right * mark, above * mark
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


def log_labels(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers where these are short: exponents are too small for print."""
    low, high = sorted(axis.get_view_interval())
    if 1e-4 <= low and high <= 1e5:
        ticks = log_ticks(low, high)
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_formatter(NullFormatter())


def percent(share: float) -> str:
    """0.05 -> "5 %", 0.0201 -> "2 %"."""
    return f"{100 * share:.2g} %"
