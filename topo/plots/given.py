"""What figures are given: reports, masks, graphs and tables, one of them, several, or by label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topo._support.names import nearest, unknown
from topo._support.screen import printable
from topo.analyze import analyze
from topo.errors import TopoError, WiringError
from topo.graph import LayeredGraph, WiredGraph, build_graph
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.report import Report
from topo.wiring import Wiring, chain

Masked = MaskSet | LayeredGraph


class Found(dict[str, Any]):
    """Items by names that nobody chose, as those of files: figures may average them over seeds."""


Row = Mapping[str, Any]
# Ends of file names that say how a file is written, and nothing of what it holds.
_ENDINGS = (
    ".safetensors", ".npz", ".npy", ".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar", ".tgz", ".gz", ".zip",
    ".h5", ".hdf5", ".onnx", ".json", ".jsonl", ".csv",
)  # fmt: skip
# Cells of a table without an entry, as text: of None, of NaN, of pandas' own.
_LISTED = 12  # columns in an error
_EMPTY = ("", "None", "nan", "NaN", "<NA>", "NaT")


def labelled(data: Any, kinds: Any, what: str) -> dict[str, Any]:
    """Label -> item. A Report is called by its mask, a MaskSet by its file, both without the file's ending.

    A name that comes twice is numbered.
    """
    if isinstance(data, Mapping) and not isinstance(data, MaskSet):
        given = {plain(label): item for label, item in data.items()}
    else:
        items = [data] if isinstance(data, kinds) else _listed(data, what)
        names = stems([_name(item, f"mask {k}") for k, item in enumerate(items, 1)])
        given = dict(zip(numbered([plain(name) for name in names]), items))
    for item in given.values():
        if not isinstance(item, kinds):
            raise TopoError(f"{what} is drawn of {_kinds(kinds)}, not of {type(item).__name__}")
    if not given:
        raise TopoError(f"{what} is drawn of one mask or more; none was given")
    return given


def plain(name: Any) -> str:
    """A stranger's name as figures write it: dollars begin no formula, control characters are escapes.

    >>> plain("$x$")
    '\\\\$x\\\\$'
    """
    return printable(str(name)).replace("$", r"\$")


def worded(name: str) -> str:
    """A metric or a column in words."""
    return plain(name.replace("_", " "))


def stems(names: Sequence[str]) -> list[str]:
    """File names without their endings, but for those that only the ending tells apart.

    >>> stems(["a.pt", "b.pth.tar", "c.npz", "c.pt", "d0.02"])
    ['a', 'b', 'c.npz', 'c.pt', 'd0.02']
    """
    cut = {name: _stem(name) for name in names}
    shared = Counter(cut.values())
    return [cut[name] if shared[cut[name]] == 1 else name for name in names]


def _stem(name: str) -> str:
    while (ending := next((e for e in _ENDINGS if name.lower().endswith(e)), None)) and Path(name).name != ending:
        name = name[: -len(ending)]
    return name


def numbered(names: Sequence[str]) -> list[str]:
    """Names, each that was there before with its place behind it.

    >>> numbered(["a", "b", "b"])
    ['a', 'b', 'b (3)']
    """
    found: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        while name in found:
            name = f"{name} ({place})"
        found[name] = None
    return list(found)


def same_network(given: Mapping[str, Any], what: str) -> None:
    """TopoError unless all masks, graphs and reports have layers of the same names and shapes.

    It names the first layer that differs, and the two that it differs in.
    """
    first, *others = given
    shapes = {label: shapes_of(item) for label, item in given.items()}
    for label in others:
        for layer in dict.fromkeys((*shapes[first], *shapes[label])):
            if shapes[first].get(layer) != shapes[label].get(layer):
                raise TopoError(
                    f"{what} is drawn of masks of one network, but layer '{layer}' is "
                    f"{_shaped(shapes[first].get(layer))} in '{first}' and "
                    f"{_shaped(shapes[label].get(layer))} in '{label}'"
                )


def shapes_of(item: Report | Masked) -> Mapping[str, tuple[int, ...]]:
    """Layer -> shape."""
    if isinstance(item, Report):
        return item.shapes
    masks = item.masks if isinstance(item, LayeredGraph) else item
    return masks.shapes


def _shaped(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else "x".join(map(str, shape))


def _listed(data: Any, what: str) -> list[Any]:
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return list(data)
    raise TopoError(f"{what} cannot be drawn of {type(data).__name__}")


def _kinds(kinds: Any) -> str:
    names = [kind.__name__ for kind in getattr(kinds, "__args__", (kinds,))]
    return " or ".join(f"a {name}" for name in names)


def _name(item: Any, otherwise: str) -> str:
    if isinstance(item, Report):
        return item.mask
    masks = item.masks if isinstance(item, LayeredGraph) else item
    return str(masks.provenance.get("file", otherwise)) if isinstance(masks, MaskSet) else otherwise


def one(data: Any, kinds: Any, what: str) -> Any:
    """The only item; TopoError if there are several."""
    given = labelled(data, kinds, what)
    if len(given) > 1:
        raise TopoError(f"{what} is drawn of one mask; {len(given)} were given")
    return next(iter(given.values()))


def graph_of(item: Masked, wiring: Wiring | str | Any | None = None, view: str | None = None) -> LayeredGraph:
    """A graph as it is; of masks, that on the wiring, which is a Wiring, a model's name or a torch module."""
    if isinstance(item, LayeredGraph):
        return item
    return build_graph(item, None if wiring is None else find_wiring(wiring), view)


def wired(item: Masked, wiring: Wiring | str | Any | None, what: str) -> WiredGraph:
    """As `graph_of`, always with a wiring: masks without one are chained if they fit; WiringError otherwise."""
    if isinstance(item, MaskSet) and wiring is None:
        try:
            wiring = chain(item)
        except WiringError as error:
            raise WiringError(f"{what} needs the network's wiring (wiring=, --model): {error}") from None
    graph = graph_of(item, wiring)
    if not isinstance(graph, WiredGraph):
        raise WiringError(f"{what} needs a graph with the network's wiring; this one has none")
    return graph


def report_of(item: Report | Masked, metrics: str, wiring: Any = None) -> Report:
    """A report as it is; of masks, these metrics."""
    if isinstance(item, Report):
        return item
    if isinstance(item, LayeredGraph):
        return analyze(item.masks, item.wiring, metrics=metrics)
    return analyze(item, None if wiring is None else find_wiring(wiring), metrics=metrics)


def rows_of(data: Any, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A table as rows: a list of mappings, columns by name, a pandas table; TopoError if a needed column is missing."""
    if isinstance(data, Report | MaskSet | LayeredGraph):
        raise TopoError(f"this figure is drawn of a table of masks or runs, not of a {type(data).__name__}")
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        rows = [dict(row) for row in data.to_dict("records")]
    elif isinstance(data, Mapping):
        for name, column in data.items():
            if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__len__"):
                raise TopoError(f"the column '{name}' of a table is a sequence, not {type(column).__name__}")
        lengths = {len(column) for column in data.values()}
        if len(lengths) > 1:
            raise TopoError(f"the columns of a table have equal lengths; these have {sorted(lengths)}")
        rows = [dict(zip(data, values)) for values in zip(*data.values())]
    else:
        rows = []
        for row in _listed(data, "a table"):
            if not isinstance(row, Mapping) or isinstance(row, MaskSet):
                raise TopoError(f"a table holds rows, which are mappings, not {type(row).__name__}")
            rows.append(dict(row))
    if not rows:
        raise TopoError("the table holds no row")
    known = dict.fromkeys(key for row in rows for key in row)
    for name in needed:
        if name not in known:
            names = [str(key) for key in known]
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            near = nearest(name, names)
            meant = f", perhaps '{near[0]}'" if near else ""
            raise TopoError(f"the table has no column '{name}'{meant}; it has: {', '.join(names[:_LISTED])}{more}")
    return rows


def number(value: Any) -> float:
    """A cell as a number; NaN where it is empty or none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def density_of(row: Row) -> float:
    """The density of a row, from its column density or, where that holds none, sparsity; NaN if neither does."""
    density = number(row.get("density"))
    return density if math.isfinite(density) else 1.0 - number(row.get("sparsity"))


def told(row: Row, name: str) -> bool:
    """Whether a row has an entry in a column: an empty one, None and NaN (also as text) are none."""
    return str(row.get(name)).strip() not in _EMPTY


def called(row: Row, name: str, otherwise: str) -> str:
    """The entry of a row in a column, as text; `otherwise` where it has none."""
    return plain(row[name]) if told(row, name) else otherwise


def layer_called(graph: LayeredGraph, layer: str | None) -> Any:
    """The block of a layer; by default the one that keeps most. The end ".weight" may be left out."""
    blocks = {block.name: block for block in graph.masked_blocks}
    if layer is None:
        return max(blocks.values(), key=lambda block: block.kept)
    for name in (layer, f"{layer}.weight"):
        if name in blocks:
            return blocks[name]
    raise TopoError(unknown("layer", layer, blocks))


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """`value`; TopoError unless it is allowed."""
    if value not in allowed:
        raise TopoError(f"{name} is '{value}'; it is one of {', '.join(allowed)}")
    return value


def short(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin or end with, cut at dots and underscores.

    >>> short(["synflow_d0.02.pt", "erk_d0.02.pt"])
    ['synflow', 'erk']
    """
    if len(set(names)) < 2:
        return list(names)
    start, end = 0, 0
    least = min(map(len, names))
    while start < least and len({name[: start + 1] for name in names}) == 1:
        start += 1
    while end < least - start and len({name[len(name) - end - 1 :] for name in names}) == 1:
        end += 1
    while start and names[0][start - 1] not in "._-/ ":
        start -= 1
    while end and names[0][len(names[0]) - end] not in "._-/ ":
        end -= 1
    cut = [name[start : len(name) - end] for name in names]
    return cut if all(cut) and len(set(cut)) == len(set(names)) else list(names)
