"""Figures on paper: exact widths, fonts that venues accept, and files with the same bytes every time.

What figures look like is written in `topo.mplstyle` beside this file, and nowhere else:
`plt.style.use("topo.plots.topo")` takes it as it is, `paper` adds the width of a venue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from topo.atomic import replacing
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
}
STYLE: dict[Any, Any] = dict(
    mpl.rc_params_from_file(Path(__file__).with_name("topo.mplstyle"), use_default_template=False)
)
# Of series, in this order: of STYLE, because colours alone do not tell them apart.
MARKERS, LINES = (STYLE["axes.prop_cycle"].by_key()[key] for key in ("marker", "linestyle"))
_GOLDEN, _LOWEST = 0.618, 2.6
# What a file is written with, also of a figure that was drawn in another style.
_FONTS: dict[Any, Any] = {key: STYLE[key] for key in ("pdf.fonttype", "ps.fonttype", "svg.fonttype", "svg.hashsalt")}
_METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".png": {"Software": None},
}


@contextmanager
def paper(venue: str = "neurips", *, wide: bool = False, ratio: float | None = None) -> Iterator[None]:
    """Within it, figures are made for the page: as wide as a column of the venue (`wide`: as its text), 7 to 8 pt type.

    ratio: height / width, by default the golden section, in narrow columns as much more as makes 2.6 inches: type is as
    large there, and would leave no room for the axes. Settings outside are untouched.

    >>> with paper("icml"):
    ...     ax = layer_profile(report)  # doctest: +SKIP

    Raises TopoError for an unknown venue.
    """
    if venue not in VENUES:
        raise TopoError(f"no venue is called '{venue}'; there are: {', '.join(VENUES)}")
    width = VENUES[venue][wide]
    height = max(width * _GOLDEN, _LOWEST) if ratio is None else width * ratio
    with mpl.rc_context({**STYLE, "figure.figsize": (width, height)}):
        yield


def figure() -> Figure:
    """An empty figure of the current style, known to no window: it goes with the last variable that holds it."""
    return Figure()


def save(fig: Figure, path: str | Path, *, dpi: float = 300) -> None:
    """Write a figure as .pdf, .svg or .png, by the ending: the same figure gives the same bytes, whole or not at all.

    Raises TopoError for another ending, or where the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _METADATA:
        raise TopoError(f"a figure is saved as {', '.join(_METADATA)}; '{path}' ends otherwise")
    with replacing(path) as temporary, mpl.rc_context(_FONTS):
        fig.savefig(temporary, format=ending[1:], dpi=dpi, metadata=_METADATA[ending])
