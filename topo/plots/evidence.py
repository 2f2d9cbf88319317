"""The figure of `topo evaluate`: each metric's correlation with accuracy, raw and given the density of the layers."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from topo.evaluate import Evaluation

_APART = 0.17  # of a line: raw above, partial below


def draw_evidence(found: Evaluation, ax: Axes) -> Axes:
    """A forest: a line a metric, the strongest on top, with 95 % intervals; metrics that no cell defines are left out.

    The dashed line is the noise ceiling, the mean correlation of accuracy with that of the same method's other seeds.
    """
    shown = [entry for entry in found.metrics if not math.isnan(entry["rho"])]
    sides = [("raw", "rho", "low", "high", -_APART)]
    if found.baseline is not None:
        sides.append((f"given {found.baseline}", "partial", "partial_low", "partial_high", _APART))
    for label, key, low, high, shift in sides:
        held = [(place + shift, entry) for place, entry in enumerate(shown) if not math.isnan(entry[key])]
        x, y = [entry[key] for _, entry in held], [place for place, _ in held]
        drawn = ax.plot(x, y, linestyle="none", label=label)
        for place, entry in held:
            if not math.isnan(entry[low]):
                ax.plot([entry[low], entry[high]], [place, place], "-", marker="", color=drawn[0].get_color(), lw=1)
    ax.axvline(0, color="black", lw=0.6)
    if not math.isnan(found.ceiling):
        ax.axvline(found.ceiling, color="black", lw=0.6, ls="--", label="noise ceiling")
    ax.set_yticks(range(len(shown)), [str(entry["metric"]) for entry in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlim(-1, 1)
    ax.set_xlabel(f"rank correlation with accuracy, mean of {found.cells} cells")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax
