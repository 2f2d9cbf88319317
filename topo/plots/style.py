"""Figures on paper: exact widths, fonts that venues accept, and files with the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
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
# Okabe & Ito: told apart with every kind of colour blindness. Yellow comes last: it is faint on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_GOLDEN = 0.618
# Type 42 is TrueType: venues refuse the Type 3 fonts that matplotlib embeds by default. SVG text stays text.
_FONTS: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "topo"}
_METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".png": {"Software": None},
}


@contextmanager
def paper(venue: str = "neurips", *, wide: bool = False, ratio: float = _GOLDEN) -> Iterator[None]:
    """Within it, figures are made for the page: as wide as a column of the venue (`wide`: as its text), 7 to 8 pt type.

    ratio: height / width. Settings outside are untouched.

    >>> with paper("icml"):
    ...     ax = layer_profile(report)  # doctest: +SKIP

    Raises TopoError for an unknown venue.
    """
    if venue not in VENUES:
        raise TopoError(f"no venue is called '{venue}'; there are: {', '.join(VENUES)}")
    width = VENUES[venue][wide]
    style: dict[Any, Any] = {
        **_FONTS,
        "figure.figsize": (width, width * ratio),
        "figure.constrained_layout.use": True,
        "savefig.bbox": None,
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "legend.fontsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "lines.linewidth": 1.0,
        "lines.markersize": 3.5,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "ytick.minor.width": 0.4,
        "ytick.minor.size": 1.5,
        "grid.linewidth": 0.4,
        "grid.color": "#dddddd",
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=OKABE_ITO),
    }
    with mpl.rc_context(style):
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
