"""Figures on paper: exact widths, fonts that venues accept, and files with the same bytes every time.

What figures look like is written in `topo.mplstyle` beside this file, and nowhere else. `paper` takes it on top of
matplotlib's defaults, whatever a matplotlibrc or other styles say, and adds the width of a venue;
`plt.style.use("topo.plots.topo")` takes it on top of the settings in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from topo._support.atomic import replacing
from topo._support.names import unknown
from topo._version import __version__
from topo.errors import TopoError

# Widths of a column and of the whole text, in inches, from the venues' templates.
VENUES = {
    "neurips": (5.5, 5.5),
    "iclr": (5.5, 5.5),
    "icml": (3.25, 6.75),
    "cvpr": (3.25, 6.875),
    "ieee": (3.5, 7.16),
    "acm": (3.33, 7.0),
    "jmlr": (6.0, 6.0),
    "nature": (3.5, 7.2),
    "slides": (10.0, 12.0),
}
# Type, lines and marks of a venue, times those of paper: a slide is read from the back of a room.
_SCALES = {"slides": 2.0}
STYLE: dict[Any, Any] = dict(
    mpl.rc_params_from_file(Path(__file__).with_name("topo.mplstyle"), use_default_template=False)
)
# Of series, in this order: of STYLE, because colours alone do not tell them apart.
MARKERS, LINES = (STYLE["axes.prop_cycle"].by_key()[key] for key in ("marker", "linestyle"))
_GOLDEN, _LOWEST = 0.618, 2.6
# What a file says of itself, under the names that its format has for it.
_METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None, "Creator": f"topo {__version__}"},
    ".svg": {"Date": None, "Creator": f"topo {__version__}"},
    ".png": {"Software": f"topo {__version__}"},
}
_ABOUT = {".pdf": "Subject", ".svg": "Description", ".png": "Description"}
_scale: ContextVar[float] = ContextVar("scale of the venue in force", default=1.0)
_scale_of: WeakKeyDictionary[Figure, float] = WeakKeyDictionary()


@contextmanager
def paper(venue: str = "neurips", *, wide: bool = False, ratio: float | None = None) -> Iterator[None]:
    """Within it, figures are made for the page: as wide as a column of the venue (`wide`: as its text), 7 to 8 pt type.

    The venue "slides" is 10 inches wide, with type, lines and marks of twice the size.

    ratio: height / width, by default the golden section, in narrow columns as much more as makes 2.6 inches: type is as
    large there, and would leave no room for the axes. Settings outside have no say (except those that are not a matter
    of style, as the backend), and are untouched.

    >>> with paper("icml"):
    ...     ax = layer_profile(report)  # doctest: +SKIP

    Raises TopoError for an unknown venue.
    """
    if venue not in VENUES:
        raise TopoError(unknown("venue", venue, VENUES))
    width = VENUES[venue][wide]
    height = max(width * _GOLDEN, _LOWEST) if ratio is None else width * ratio
    scale = _SCALES.get(venue, 1.0)
    token = _scale.set(scale)
    try:
        with _styled(width, height, scale):
            yield
    finally:
        _scale.reset(token)


def _styled(width: float, height: float, scale: float) -> AbstractContextManager[None]:
    """The style and nothing else, for figures of so many inches, with type and lines `scale` times as large."""
    larger = {
        key: scale * value
        for key, value in STYLE.items()
        if isinstance(value, int | float) and key.endswith(("size", "width")) and not isinstance(value, bool)
    }
    return matplotlib.style.context(["default", {**STYLE, **larger, "figure.figsize": (width, height)}])


def figure() -> Figure:
    """An empty figure of this style and of the size in force, known to no window: it goes with its last variable.

    Axes that are added outside `paper` are of the settings in force there.
    """
    width, height = mpl.rcParams["figure.figsize"]
    with _styled(width, height, _scale.get()):
        made = Figure()
    _scale_of[made] = _scale.get()
    return made


def save(fig: Figure, path: str | Path, *, dpi: float = 300, about: str = "") -> None:
    """Write a figure as .pdf, .svg or .png, by the ending: the same figure gives the same bytes, whole or not at all.

    about: what the file says of itself where its format has a place for it (Subject of a .pdf, Description of others);
    `topo plot` writes the command, its version, the seed and the sha256 of the inputs there.

    So it does inside `paper` and outside, shown or saved before or not: what is only settled in drawing (fonts, ticks)
    is of this style, and a constrained layout is solved anew from its start.

    Raises TopoError for another ending, or where the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _METADATA:
        raise TopoError(f"a figure is saved as {', '.join(_METADATA)}; '{path}' ends otherwise")
    metadata = _METADATA[ending] | ({_ABOUT[ending]: about} if about else {})
    width, height = fig.get_size_inches()
    with replacing(path) as temporary, _styled(width, height, _scale_of.get(fig, 1.0)):
        _as_first_laid_out(fig)
        if any(ax.get_aspect() != "auto" for ax in fig.axes):  # the first solution cuts their labels, the fourth none
            for _ in range(3):
                fig.draw_without_rendering()
        fig.savefig(temporary, format=ending[1:], dpi=dpi, metadata=metadata)


def _as_first_laid_out(fig: Figure) -> None:
    """Axes where they were before a constrained layout moved them.

    It is solved in two steps from where axes are: solved again, places differ in the sixth decimal. Axes that were
    placed by hand are not in it, and stay.
    """
    if not isinstance(fig.get_layout_engine(), ConstrainedLayoutEngine):
        return
    for ax in fig.axes:
        place = ax.get_subplotspec()
        if not ax.get_in_layout():
            continue
        if place is not None:
            ax.set_subplotspec(place)
        elif ax.get_label() == "<colorbar>":  # matplotlib's name; it takes its place beside other axes
            page = fig.subplotpars
            ax.set_position((page.left, page.bottom, page.right - page.left, page.top - page.bottom))
            ax.set_in_layout(True)
