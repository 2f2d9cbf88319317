"""The trade of paths against nodes, or against FLOPs, at one budget: points along a knob, their Pareto set."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from topo.errors import TopoError
from topo.graph import build_graph, dense_rows
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.optimize.bounds import upper_bound
from topo.optimize.problem import prunable
from topo.optimize.registry import Progress, methods
from topo.wiring import Wiring

SCHEMA = "topo-frontier/1"
# Degree floors beyond this leave so few units that layers are nearly dense between them.
_LARGEST_FLOOR = 64.0
KNOBS = {"balanced": "degree_floor", "paths": "active"}
OVER = ("nodes", "flops")
# Most stairs of the bound over nodes.
_STAIRS = 8


@dataclass(frozen=True)
class Point:
    """One mask set. value: of the knob, degree_floor or active by mode, or flops. width: Hill nodes.

    balance: U / sum log n_e. flops: share of the dense network's, NaN where they are unknown.
    """

    mode: str
    value: float
    nodes: int
    log10_paths: float
    width: float
    balance: float
    kept: int
    efficient: bool = False
    flops: float = math.nan


@dataclass(frozen=True)
class Frontier:
    """Points along the knob of a mode, at one budget. all_nodes, bound (log10 paths): what no mask can pass.

    over: what paths are traded against, "nodes" or "flops". hypervolume: share of the rectangle from (0, 0) to
    (all_nodes, bound) that the points dominate; over FLOPs of that from (most FLOPs of a point, 0) to (0, bound).
    certified: whether the bound is proved, see `upper_bound`. left_out: values of the knob without masks.
    bounds, in mode "paths": stairs (place where one ends, log10 paths that no mask passes there); covered: the
    hypervolume as a share of what they leave room for.
    """

    points: tuple[Point, ...]
    total: int
    all_nodes: int
    bound: float
    certified: bool
    hypervolume: float
    model: str | None = None
    seed: int | None = None
    over: str = "nodes"
    left_out: tuple[float, ...] = ()
    bounds: tuple[tuple[float, float], ...] = ()
    covered: float | None = None

    @property
    def pareto(self) -> tuple[Point, ...]:
        """Points that no other beats in paths and in nodes (or FLOPs), by rising nodes (or FLOPs)."""
        return tuple(sorted((p for p in self.points if p.efficient), key=lambda p: (self.place(p), -p.log10_paths)))

    def place(self, point: Point) -> float:
        """What paths are traded against, of a point."""
        return point.flops if self.over == "flops" else float(point.nodes)

    def to_json(self) -> str:
        """JSON text that `from_json` reads back."""
        held = asdict(self)
        for point in held["points"]:
            point |= {
                key: None for key, value in point.items() if isinstance(value, float) and not math.isfinite(value)
            }
        return json.dumps({"schema": SCHEMA, **held}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Frontier:
        """What `to_json` wrote; TopoError if the text is none."""
        try:
            held = json.loads(text)
            if held.pop("schema") != SCHEMA:
                raise KeyError("schema")
            held["left_out"] = tuple(held.get("left_out", ()))
            held["bounds"] = tuple((place, bound) for place, bound in held.get("bounds", ()))
            points: list[dict[str, Any]] = [
                {key: math.nan if value is None else value for key, value in p.items()} for p in held["points"]
            ]
            return cls(**{**held, "points": tuple(Point(**point) for point in points)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TopoError(f"this is not a frontier in JSON: {type(error).__name__} {error}") from None

    def to_csv(self) -> str:
        """A line for each point."""
        text = io.StringIO()
        names = [field.name for field in fields(Point)]
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(point) for point in self.points)
        return text.getvalue()


def front(
    wiring: Wiring,
    *,
    total: int,
    over: str = "nodes",
    points: int = 11,
    mode: str | None = None,
    values: Sequence[float] | None = None,
    rng: int = 0,
    progress: Progress | None = None,
    **options: object,
) -> Frontier:
    """Masks with `total` parameters along a knob of method `balance`: paths against nodes, or against FLOPs.

    over "nodes": mode "balanced" (the default) with degree floors from 1 up, in equal ratios; mode "paths" with the
    fraction of nodes alive, from 1 down to 0, the bare core. over "flops": mode "paths" (the default) or "balanced"
    without a limit first, then under limits that fall in equal ratios to an eighth, as far as they can be met; the
    knob's value is the share of the dense network's FLOPs. values: of the knob, instead of `points` chosen ones.
    options: of the method.

    >>> from topo.networks import find_wiring
    >>> front(find_wiring("mlp:8-6-4"), total=30, points=2).all_nodes
    18

    Raises TopoError for an unknown mode, or fewer than two points or more than 1,000.
    """
    if over not in OVER:
        raise TopoError(f"over is '{over}'; a front runs over one of {', '.join(OVER)}")
    mode = mode or ("paths" if over == "flops" else "balanced")
    if mode not in KNOBS:
        raise TopoError(f"mode is '{mode}'; it is one of {', '.join(KNOBS)}")
    knob = "flops" if over == "flops" else KNOBS[mode]
    if knob in options:
        raise TopoError(f"{knob} runs along the frontier of mode {mode}; it cannot be an option too")
    if values is None and not 2 <= points <= 1000:
        raise TopoError(f"a frontier of {points} points is asked for; it has from 2 to 1,000")
    found: list[Point] = []
    left_out: list[float] = []

    def solve(value: float | None) -> None:
        if progress is not None:
            progress(len(found) + len(left_out), points if values is None else len(values), f"{knob} {value or 1:.3g}")
        given = {} if value is None else {knob: float(value)}
        try:
            certificate = methods["balance"](wiring, total=total, rng=rng, mode=mode, **given, **options).certificate
        except TopoError:
            if over != "flops" or value is None:
                raise
            left_out.append(float(value))
            return
        share = certificate.flops / certificate.flops_dense
        counts = (certificate.nodes, certificate.log10_paths, certificate.width, certificate.ratio, certificate.kept)
        found.append(Point(mode, share if value is None else float(value), *counts, flops=share))

    if values is None and over == "flops":
        solve(None)
        if not math.isfinite(found[0].flops):
            raise TopoError("a front over FLOPs needs to know them: give the model and its input shape")
        values = (found[0].flops * (1 / 8) ** np.linspace(0.0, 1.0, points)[1:]).tolist()
    elif values is None:
        spread = np.linspace(0.0, 1.0, points)
        values = (_LARGEST_FLOOR**spread if mode == "balanced" else 1.0 - spread).tolist()
    for value in values:
        solve(value)
    if not found:
        raise TopoError(f"no masks of {total:,} parameters were found at any of these FLOPs")
    bound = upper_bound(wiring, total=total)
    all_nodes = metrics["network:nodes"](build_graph(_dense(wiring), wiring)).number
    if over == "flops":
        most = max(point.flops for point in found)
        plane = [(1 - point.flops / most, point.log10_paths) for point in found]
        covered = hypervolume([(x, y / bound.log10_paths) for x, y in plane])
    else:
        plane = [(float(point.nodes), point.log10_paths) for point in found]
        covered = hypervolume([(x / all_nodes, y / bound.log10_paths) for x, y in plane])
    bounds: tuple[tuple[float, float], ...] = ()
    share = None
    if mode == "paths" and bound.log10_paths > 0:
        bounds = _bounds(wiring, total, found, int(all_nodes), over)
        widths = [1 - place / most if over == "flops" else place / all_nodes for place, _ in bounds]
        # a bound holds from its place on: the room is the staircase of each with the place before it
        room = hypervolume([(width, least / bound.log10_paths) for width, (_, least) in zip(widths, bounds)])
        share = covered / room if room else None
    return Frontier(
        points=tuple(replace(point, efficient=flag) for point, flag in zip(found, efficient(plane))),
        total=total,
        all_nodes=int(all_nodes),
        bound=bound.log10_paths,
        certified=bound.certified,
        hypervolume=covered,
        model=wiring.model,
        seed=rng,
        over=over,
        left_out=tuple(left_out),
        bounds=bounds,
        covered=share,
    )


def _bounds(
    wiring: Wiring, total: int, found: Sequence[Point], all_nodes: int, over: str
) -> tuple[tuple[float, float], ...]:
    """(where a stair of the bound ends, log10 paths of it): masks between two points are bounded by the better one."""
    if over == "flops":
        dense = 2 * sum((layer.positions or 0) * layer.used for layer in wiring.layers)
        places = sorted({point.flops for point in found})
        below = [0.0, *places[:-1]]
        return tuple(
            (low, upper_bound(wiring, total=total, flops=high * dense).log10_paths) for low, high in zip(below, places)
        )
    counts = np.array(sorted({0, *(point.nodes for point in found), all_nodes}))
    counts = counts[np.unique(np.linspace(0, len(counts) - 1, _STAIRS + 1).astype(int))]
    return tuple(
        (float(high), upper_bound(wiring, total=total, nodes=int(low)).log10_paths) for low, high in pairwise(counts)
    )


# The name of 0.1, which is that of this module too.
frontier = front


def _dense(wiring: Wiring) -> MaskSet:
    name = prunable(wiring)[0]
    return MaskSet({name: dense_rows(wiring.layer(name).shape)})


def efficient(points: Iterable[tuple[float, float]]) -> list[bool]:
    """Of points (x, y), both to be large: whether no other point is at least as good in both and better in one."""
    points = list(points)
    return [not any((u >= x and v >= y) and (u > x or v > y) for u, v in points) for x, y in points]


def hypervolume(points: Iterable[tuple[float, float]], reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """Area that is dominated by points (x, y), both to be large, above a reference point.

    >>> hypervolume([(1.0, 0.5), (0.5, 1.0)])
    0.75
    """
    area, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area
