"""The trade between nodes and paths at one budget: points along a knob, their Pareto set, its hypervolume."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from topo.errors import TopoError
from topo.optimize.bounds import upper_bound
from topo.optimize.registry import Progress, methods
from topo.wiring import Wiring

SCHEMA = "topo-frontier/1"
# Degree floors beyond this leave so few units that layers are nearly dense between them.
_LARGEST_FLOOR = 64.0
KNOBS = {"balanced": "degree_floor", "paths": "active"}


@dataclass(frozen=True)
class Point:
    """One mask set. value: of the knob, degree_floor or active by mode. width: Hill nodes. balance: U / sum log n_e."""

    mode: str
    value: float
    nodes: int
    log10_paths: float
    width: float
    balance: float
    kept: int
    efficient: bool = False


@dataclass(frozen=True)
class Frontier:
    """Points along the knob of a mode, at one budget. all_nodes, bound (log10 paths): what no mask can pass.

    hypervolume: share of the rectangle from (0, 0) to (all_nodes, bound) that the points dominate. certified: whether
    the bound is proved, see `upper_bound`.
    """

    points: tuple[Point, ...]
    total: int
    all_nodes: int
    bound: float
    certified: bool
    hypervolume: float
    model: str | None = None
    seed: int | None = None

    @property
    def pareto(self) -> tuple[Point, ...]:
        """Points that no other has both more nodes and more paths than, by rising nodes."""
        return tuple(sorted((p for p in self.points if p.efficient), key=lambda p: (p.nodes, -p.log10_paths)))

    def to_json(self) -> str:
        """JSON text that `from_json` reads back."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Frontier:
        """What `to_json` wrote; TopoError if the text is none."""
        try:
            held = json.loads(text)
            if held.pop("schema") != SCHEMA:
                raise KeyError("schema")
            return cls(**{**held, "points": tuple(Point(**point) for point in held["points"])})
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


def frontier(
    wiring: Wiring,
    *,
    total: int,
    points: int = 11,
    mode: str = "balanced",
    values: Sequence[float] | None = None,
    rng: int = 0,
    progress: Progress | None = None,
    **options: object,
) -> Frontier:
    """Masks with `total` parameters along the knob of a mode of method `balance`, from most to fewest nodes.

    mode "balanced": degree floors from 1 up, in equal ratios. mode "paths": the fraction of nodes alive, from 1 down to
    0, the bare core. values: of the knob, instead of `points` chosen ones. options: of the method.

    Raises TopoError for an unknown mode, or fewer than two points or more than 1,000.
    """
    if mode not in KNOBS:
        raise TopoError(f"mode is '{mode}'; it is one of {', '.join(KNOBS)}")
    if KNOBS[mode] in options:
        raise TopoError(f"{KNOBS[mode]} runs along the frontier of mode {mode}; it cannot be an option too")
    if values is None:
        if not 2 <= points <= 1000:
            raise TopoError(f"a frontier of {points} points is asked for; it has from 2 to 1,000")
        spread = np.linspace(0.0, 1.0, points)
        values = (_LARGEST_FLOOR**spread if mode == "balanced" else 1.0 - spread).tolist()
    found = []
    for k, value in enumerate(values):
        if progress is not None:
            progress(k, len(values), f"{KNOBS[mode]} {value:.3g}")
        knob = {KNOBS[mode]: float(value)}
        certificate = methods["balance"](wiring, total=total, rng=rng, mode=mode, **knob, **options).certificate
        found.append(
            Point(
                mode,
                float(value),
                certificate.nodes,
                certificate.log10_paths,
                certificate.width,
                certificate.ratio,
                certificate.kept,
            )
        )
    flags = efficient([(point.nodes, point.log10_paths) for point in found])
    bound = upper_bound(wiring, total=total)
    limits = (certificate.all_nodes, bound.log10_paths)
    return Frontier(
        points=tuple(Point(**{**asdict(point), "efficient": flag}) for point, flag in zip(found, flags)),
        total=total,
        all_nodes=limits[0],
        bound=limits[1],
        certified=bound.certified,
        hypervolume=hypervolume([(p.nodes / limits[0], p.log10_paths / limits[1]) for p in found]),
        model=wiring.model,
        seed=rng,
    )


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
