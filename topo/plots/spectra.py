"""Singular values and degrees of layers, as bipartite graphs of their view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from topo.errors import TopoError
from topo.graph import Block, LayeredGraph
from topo.graph.bipartite import Bipartite, of_block
from topo.graph.singular import gram
from topo.masks import MaskSet
from topo.metrics import degrees
from topo.metrics.spectral import ramanujan
from topo.plots.axes import GREY, axes, colour, headline, key, legend, log_labels, name_x, name_y, series
from topo.plots.given import Masked, choice, graph_of, labelled, layer_called, plain
from topo.plots.nulls import Null, band, named, sampled, wanted
from topo.plots.registry import plot
from topo.wiring import apart

Data = Masked | Sequence[Masked] | Mapping[str, Masked]
# All singular values by a dense method, n^3: half a minute.
_LARGEST = 4096
# Degrees over their layer's mean are drawn on a logarithmic axis where the largest is this many medians.
_DECADE = 6.0
# Masks whose Ramanujan bounds have an entry of the legend each.
_FEW = 4


@plot("masks")
def spectrum(
    data: Data,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    view: str = "kernel",
    null: str | Sequence[Masked] | Mapping[str, Masked] | None = "shuffle:20",
    rng: int | np.random.Generator = 0,
    **style: Any,
) -> Axes:
    """All singular values of a layer, largest first, against its Ramanujan bound and a null band.

    data: masks or graphs, several of them, or by label. layer: its name, by default the one that keeps most in the
    first. view: of the layer as a bipartite graph (a graph comes with its own); units without an edge are left out.
    null: a grey band of what the values of the first are by chance: "METHOD:N", N layers that a method which rewires
    masks at random (shuffle: any of its density; configuration: any of its degrees) or a null model of `topo.nulls`
    makes of it; or masks, drawn
    already; None or "none" for no band. It goes from the 5 % to the 95 % quantile, of fewer than 20 samples from the
    least to the largest. Beside several masks its name says whose null it is; of one that was given, that it was. rng:
    of the null. style: of the lines.

    Raises TopoError for a layer that keeps nothing or is not in every mask, or whose smaller side has over 4096 units.
    """
    ax = axes(ax)
    given = labelled(data, Masked, "a spectrum")
    graphs = {label: graph_of(item, view=view) for label, item in given.items()}
    first = layer_called(next(iter(graphs.values())), layer)
    blocks = {label: layer_called(graph, first.name) for label, graph in graphs.items()}
    _null_band(ax, wanted(null), first, view, rng, list(given))
    none: dict[str, int] = {}
    for i, (label, block) in enumerate(blocks.items()):
        made = of_block(block)
        values = _singular(made, block.name)
        look = {**series(i), "linewidth": 0.7}
        size = mpl.rcParams["lines.markersize"] * (0.6 if len(values) > 40 else 1)
        name = label if len(blocks) > 1 else "singular values"
        ax.plot(
            range(1, len(values) + 1), values, **{**look, "markersize": size, "label": name, **style},
            rasterized=len(values) > 2000,
        )  # fmt: skip
        zeros = range(len(values) + 1, min(made.left, made.right) + 1)
        if len(zeros):
            more = {"linestyle": "none", "markerfacecolor": "white", "markersize": size, "label": None}
            ax.plot(zeros, [0.0] * len(zeros), **{**look, **more}, clip_on=False, rasterized=len(zeros) > 2000)
            none[label] = len(zeros)
        bound = _bound(made)
        if math.isfinite(bound):
            text = "Ramanujan bound" + (f", {label}" if len(blocks) > 1 else r" $\sqrt{d_l-1}+\sqrt{d_r-1}$")
            look = {"linestyle": (0, (4, 2)), "linewidth": 1}
            ax.axhline(bound, color=colour(i), label=text if len(blocks) <= _FEW else None, **look)
    if len(blocks) > _FEW:
        key(ax, "Ramanujan bounds", color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    told = f"; hollow: {', '.join(f'{count:,}' for count in none.values())} zero" if none else ""
    name_x(ax, f"rank ({plain(first.name.removesuffix('.weight'))}, {first.layer_view} view{told})")
    name_y(ax, "singular value")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, list(given))
    return ax


def _singular(made: Bipartite, name: str) -> np.ndarray:
    """All singular values of the graph without its isolated units, falling."""
    if made.right > made.left:
        made = made.turned
    kept = np.flatnonzero(made.right_degrees)
    least = min(len(kept), int(np.count_nonzero(made.left_degrees)))
    if least == 0:
        raise TopoError(f"layer '{name}' keeps nothing: it has no singular values")
    if len(kept) > _LARGEST:
        raise TopoError(f"layer '{name}' has {len(kept)} units on its smaller side; spectra are drawn up to {_LARGEST}")
    products, _ = gram(made.only_right(kept))
    squares = np.linalg.eigvalsh(products.astype(np.float64))
    return np.sqrt(np.maximum(squares, 0))[::-1][:least]


def _bound(made: Bipartite) -> float:
    left, right = np.count_nonzero(made.left_degrees), np.count_nonzero(made.right_degrees)
    edges = int(made.right_degrees.sum())
    return ramanujan(edges / left, edges / right) if edges >= max(left, right) > 0 else math.nan


def _null_band(
    ax: Axes, null: Null, like: Block, view: str, rng: int | np.random.Generator, labels: Sequence[str]
) -> None:
    """A band of the singular values of layers that are drawn from `like`, or given. labels: of what is beside it."""
    if null is None:
        return
    if isinstance(null, str):
        alone = MaskSet({like.name: like.rows})
        drawn: Mapping[str, Any] = labelled(
            sampled(null, alone, apart(alone, {like.name: like.groups}), rng), MaskSet, "a band"
        )
        blocks = [replace(like, rows=masks.rows(like.name)) for masks in drawn.values()]
    else:
        drawn = labelled(null, Masked, "a band")
        blocks = [layer_called(graph_of(item, view=view), like.name) for item in drawn.values()]
    values = [_singular(of_block(block), block.name) for block in blocks]
    longest = max(map(len, values))
    padded = np.array([np.pad(found, (0, longest - len(found))) for found in values])
    band(ax, range(1, longest + 1), padded, named(drawn.values(), null, labels))


@plot("masks")
def degree_distribution(
    data: Data,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    side: str = "in",
    view: str = "kernel",
    relative: bool = True,
    **style: Any,
) -> Axes:
    """How fan-ins (or fan-outs) are spread: the share of units with at least so many edges (ccdf).

    data: masks or graphs, several of them, or by label. layer: of one layer, beside the ccdf of a random layer with the
    same density (grey); by default of all layers, one line each for one mask set, pooled for several. side: "in",
    "out". relative: degrees over the mean of their layer, so that layers can be compared. style: of the lines.

    Raises TopoError if nothing is kept of what is to be drawn; one empty mask among others is called so.
    """
    ax = axes(ax)
    choice("side", side, ("in", "out"))
    given = labelled(data, Masked, "a distribution of degrees")
    graphs = {label: graph_of(item, view=view) for label, item in given.items()}
    blocks = {k: g.masked_blocks if layer is None else (layer_called(g, layer),) for k, g in graphs.items()}
    if not any(block.kept for found in blocks.values() for block in found):
        where = "" if layer is None else f" in layer '{next(iter(blocks.values()))[0].name}'"
        raise TopoError(f"no parameter is kept{where}: there are no degrees to draw")
    empty = ""
    if layer is None and len(graphs) == 1:
        empty = _each_layer(ax, next(iter(graphs.values())), side, relative, style)
    else:
        for i, (label, graph) in enumerate(graphs.items()):
            found = np.concatenate([_degrees(graph, b, side, relative or layer is None) for b in blocks[label]])
            name = label if found.any() else f"{label} (nothing kept)"
            look = {**series(i), "label": name if len(graphs) > 1 else "mask"}
            _ccdf(ax, found, {**look, **style})
        if layer is not None:
            label, graph = next(iter(graphs.items()))
            like = f", density of {label}" if len(graphs) > 1 else ", same density"
            _random_degrees(ax, layer_called(graph, layer), side, relative, f"random{like}")
        legend(ax, list(given))
    first = next(iter(graphs.values()))
    what = {"in": "fan-in", "out": "fan-out"}[side]
    over = " / mean of the layer" if relative or (layer is None and len(graphs) > 1) else ""
    name = "" if layer is None else f"{plain(layer_called(first, layer).name.removesuffix('.weight'))}, "
    name_x(ax, f"{what}{over} ({name}{first.layer_view} view{empty})")
    name_y(ax, "share of units with at least as many")
    ax.set_ylim(0, 1.02)
    drawn = np.concatenate([line.get_xdata() for line in ax.lines] or [np.ones(1)])
    positive = drawn[drawn > 0]
    if positive.size and positive.max() > _DECADE * np.median(positive) and relative:
        ax.set_xscale("log")
        ax.set_xlim(max(positive.min(), positive.max() / 1e3) / 1.3, positive.max() * 1.3)
        log_labels(ax.xaxis)
    else:
        ax.set_xlim(left=0)
    ax.grid(True)
    ax.set_axisbelow(True)
    return ax


def _degrees(graph: LayeredGraph, block: Block, side: str, relative: bool) -> np.ndarray:
    found = (degrees.fan_in if side == "in" else degrees.fan_out)(graph, block).astype(float)
    return found / found.mean() if relative and found.any() else found


def _ccdf(ax: Axes, found: np.ndarray, look: dict[str, Any]) -> None:
    """Share of values >= x, as steps that are right at each value."""
    values, counts = np.unique(found, return_counts=True)
    above = np.append(np.cumsum(counts[::-1])[::-1], 0) / len(found)
    x = np.concatenate([[0.0], values])
    look = {**look, "marker": "none"}
    ax.step(np.append(x, values[-1]), np.concatenate([[1.0], above[:-1], [0.0]]), where="pre", **look)


def _each_layer(ax: Axes, graph: LayeredGraph, side: str, relative: bool, style: Mapping[str, Any]) -> str:
    """Draw a line for each layer; what is to be said of those that keep nothing."""
    blocks = graph.masked_blocks
    alive = [block for block in blocks if block.kept]
    colours = mpl.colormaps["viridis"].resampled(256)
    for place, block in enumerate(blocks):
        if block.kept:
            look = {"color": colours(0.92 * place / max(len(blocks) - 1, 1)), "linewidth": 0.8, "linestyle": "-"}
            label = None if len(blocks) > 6 else plain(block.name.removesuffix(".weight"))
            _ccdf(ax, _degrees(graph, block, side, relative), {**look, "label": label, **style})
    if len(blocks) > 6:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, (len(blocks) - 1) / 0.92), colours)
        bar = ax.figure.colorbar(scale, ax=ax, label="layer, by number from 0", pad=0.02, aspect=25)
        bar.ax.set_ylim(0, len(blocks) - 1)
        bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    else:
        legend(ax, [plain(block.name.removesuffix(".weight")) for block in blocks])
    if len(alive) == len(blocks):
        return ""
    return f"; empty layers left out: {len(blocks) - len(alive)}"


def _random_degrees(ax: Axes, block: Block, side: str, relative: bool, label: str) -> None:
    """The binomial ccdf of a layer whose weights are kept independently with the same density (kernel view)."""
    if block.layer_view != "kernel" or not block.kept:
        return
    from scipy.stats import binom

    trials = block.rows.columns if side == "in" else block.shape[0] // block.groups
    mean = trials * block.kept / block.size
    reach = np.arange(0, min(trials, int(mean + 6 * math.sqrt(mean) + 6)) + 1)
    scale = mean if relative else 1.0
    ax.step(
        reach / scale, binom.sf(reach - 1, trials, block.kept / block.size), where="pre", color=GREY, linewidth=0.8,
        linestyle="--", marker="none", label=label, zorder=1,
    )  # fmt: skip


@plot("masks")
def mask_matrix(
    data: Masked,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    view: str = "kernel",
    order: str = "degree",
    grid: int = 160,
    **style: Any,
) -> Axes:
    """The mask of a layer as a matrix, outputs against inputs; of a large one the density of blocks.

    layer: its name, by default the one that keeps most. view: "kernel" has a column for each (input channel, kernel
    position), "channel" one for each input channel. order: "degree" sorts both sides, most edges first (the empirical
    graphon); "none" leaves units where they are. grid: most rows and columns that are drawn;
    of more units, blocks of units are one cell. style: of the image.
    """
    from topo.plots.given import one

    choice("order", order, ("degree", "none"))
    choice("view", view, ("kernel", "channel"))
    if grid < 1:
        raise TopoError(f"grid is {grid}; it is a number of cells, 1 or more")
    ax = axes(ax)
    item = one(data, Masked, "a matrix")
    block = layer_called(graph_of(item, view=view), layer)
    dense = block.rows.unpack().reshape(block.shape[0], block.shape[1], -1)
    matrix = dense.reshape(len(dense), -1).astype(np.float32) if view == "kernel" else dense.mean(axis=2)
    if order == "degree":
        matrix = matrix[np.argsort(-matrix.sum(axis=1), kind="stable")]
        matrix = matrix[:, np.argsort(-matrix.sum(axis=0), kind="stable")]
    cells = _averaged(_averaged(matrix, grid).T, grid).T
    binary = cells.shape == matrix.shape and view == "kernel"
    if not binary:
        cells = np.where(cells > 0, cells, math.nan)
    palette = mpl.colormaps["Greys" if binary else "viridis"].with_extremes(bad="white")
    look: dict[str, Any] = {"cmap": palette, "vmin": 0, "interpolation": "nearest"}
    look |= {"aspect": "auto", "rasterized": True, "extent": (0, matrix.shape[1], matrix.shape[0], 0)}
    image = ax.imshow(cells, **{**look, **({"vmax": 1} if binary else {}), **style})
    if not binary:
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=25)
        rows, columns = (math.ceil(n / c) for n, c in zip(matrix.shape, cells.shape))
        bar.set_label(
            f"density of {rows} x {columns} entries" if (rows, columns) != (1, 1) else "share of kernel_size kept"
        )
    sort = ", by degree" if order == "degree" else ""
    name_x(ax, f"{'input channel and tap' if view == 'kernel' and block.kernel_size > 1 else 'input unit'}{sort}")
    name_y(ax, f"output unit{sort}")
    name = plain(block.name.removesuffix(".weight"))
    text = f"{name}: {block.kept:,} of {block.size:,} kept, {view} view" + ("" if binary else "; white: empty")
    headline(ax, text)
    for spine in ax.spines.values():
        spine.set_visible(True)
    return ax


def _averaged(matrix: np.ndarray, most: int) -> np.ndarray:
    """Rows averaged in at most `most` groups of equal size (the last may be smaller)."""
    size = math.ceil(len(matrix) / most)
    starts = np.arange(0, len(matrix), size)
    sizes = np.diff(np.append(starts, len(matrix)))
    return np.add.reduceat(matrix, starts, axis=0) / sizes[:, None]
