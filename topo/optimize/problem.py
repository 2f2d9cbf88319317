"""Problem: what is asked of a mask. Balanced: what was found, with its certificate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from topo.errors import TopoError
from topo.graph import WiredGraph, build_graph, paths
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.metrics.balance import entropy_bound
from topo.optimize.bounds import Bound, upper_bound
from topo.optimize.water_filling import water_fill
from topo.quotas import budgets as quota_budgets
from topo.wiring import Layer, Wiring

TERMS = ("balance", "paths", "nodes", "kernels")


def prunable(wiring: Wiring) -> tuple[str, ...]:
    """The parameters that a method masks: all of the wiring but embeddings, in running order."""
    return tuple(name for name in wiring.names if wiring.layer(name).kind != "embedding")


@dataclass(frozen=True, eq=False)
class Problem:
    """Masks for a network with exactly `total` parameters, or with exactly budgets[name] in each layer.

    terms: what is maximised, name -> weight. {"balance": 1}: U, how evenly parameters share the paths. {"paths": 1}:
    log P. {"nodes": alpha, "paths": 1 - alpha, "kernels": beta}: the objective of Node-Path Balancing, layer by layer.
    See `solve`. Constraints:
    n_m: (N, M), at most N of M consecutive inputs at each output and kernel position; an incomplete last group obeys
    the same N. min_fan_in: an output unit that keeps any weight keeps at least so many; one number or by layer.
    dense: names or patterns (`fc.*`) of layers that keep every weight; the other constraints pass them by. Not beside
    a layer whose parts are used apart.
    flops: at most so many FLOPs (2 x multiply-accumulates of the kept weights on one example); up to 1 it is the share
    of the dense network's.
    whole_problem: the one that was asked, where this is the same on a network of blocks.

    Raises TopoError for a constraint that contradicts itself or the budget.
    """

    wiring: Wiring
    total: int | None = None
    budgets: Mapping[str, int] | None = None
    terms: Mapping[str, float] = field(default_factory=lambda: {"balance": 1.0})
    n_m: tuple[int, int] | None = None
    min_fan_in: int | Mapping[str, int] = 1
    dense: tuple[str, ...] = ()
    flops: float | None = None
    whole_problem: Problem | None = None

    def __post_init__(self) -> None:
        odd_terms = [name for name, weight in self.terms.items() if name not in TERMS or not weight >= 0]
        if odd_terms or not any(self.terms.values()):
            raise TopoError(f"terms are {', '.join(TERMS)} with weights of 0 or more; given are {dict(self.terms)}")
        if (self.total is None) == (self.budgets is None):
            raise TopoError("a problem has either a total or a budget for each layer")
        for pattern in self.dense:
            if not any(fnmatchcase(name, pattern) for name in self.names):
                raise TopoError(f"no layer matches '{pattern}'; there are: {', '.join(self.names)}")
        sliced = [layer.name for layer in self.wiring.layers if layer.used < layer.size]
        if self.dense and sliced:
            raise TopoError(f"layers cannot be kept dense beside one whose parts are used apart, as '{sliced[0]}'")
        if self.budgets is not None:
            odd = sorted(set(self.budgets) ^ set(self.names))
            if odd:
                raise TopoError(f"budgets name every layer and no other; they differ in {', '.join(odd[:6])}")
        for name in self.names:
            fan_in, most = self.fan_in(name), math.prod(self.layer(name).shape[1:])
            if not 1 <= fan_in <= most:
                raise TopoError(
                    f"layer '{name}' has a minimum fan-in of {fan_in}; a unit of it reads 1 to {most} weights"
                )
        most = sum(self.capacity.values())
        if self.total is not None and not 0 < self.total <= most:
            raise self._outside(1, most)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters that are masked, in running order."""
        return prunable(self.wiring)

    @property
    def count(self) -> int:
        """Parameters in all."""
        return sum(self.budgets.values()) if self.budgets is not None else self.total or 0

    def told(self, total: int | None = None) -> str:
        """A number of parameters, by default the one asked for, with the density that asks for it, for a message."""
        if self.whole_problem is not None:
            return self.whole_problem.told(total)
        if total is None:
            total = self.count
        size = sum(self.layer(name).size for name in self.names)
        density = next(text for n in range(1, 18) if round(float(text := f"{total / size:.{n}g}") * size) == total)
        return f"{total:,} parameter{'' if total == 1 else 's'} (density {density})"

    @cached_property
    def whole(self) -> frozenset[str]:
        """Layers kept dense."""
        return frozenset(n for n in self.names if any(fnmatchcase(n, pattern) for pattern in self.dense))

    def layer(self, name: str) -> Layer:
        """The first use of a parameter."""
        return self.wiring.layer(name)

    def fan_in(self, name: str) -> int:
        """Least number of kept weights of an output unit that keeps any."""
        if name in self.whole:
            return 1
        return self.min_fan_in if isinstance(self.min_fan_in, int) else self.min_fan_in.get(name, 1)

    def pattern(self, name: str) -> tuple[int, int] | None:
        """(N, M) of a layer; None if it has none."""
        return None if name in self.whole else self.n_m

    @cached_property
    def capacity(self) -> dict[str, int]:
        """Layer -> most parameters that it may keep."""
        found = {}
        for name in self.names:
            layer, pattern = self.layer(name), self.pattern(name)
            inputs = layer.shape[1]
            if pattern is not None:
                n, m = pattern
                inputs = inputs // m * n + min(inputs % m, n)
            found[name] = layer.outputs * inputs * layer.kernel_size
        return found

    @cached_property
    def costs(self) -> dict[str, int]:
        """Layer -> multiply-accumulates of one weight on one example, over all uses of the parameter.

        Raises TopoError where they are not known, or differ from weight to weight.
        """
        found = dict.fromkeys(self.names, 0)
        sliced = dict.fromkeys(layer.name for layer in self.wiring.layers if layer.used < layer.size)
        for layer in self.wiring.layers:
            if layer.name in found:
                if layer.positions is None:
                    raise TopoError(f"FLOPs of '{layer.name}' are unknown: give the model and its input shape")
                found[layer.name] += layer.positions
        for name in [name for name in sliced if name in found]:
            uses = [layer for layer in self.wiring.layers if layer.name == name]
            price = np.sum([(use.positions or 0) * np.outer(*use.part) for use in uses], axis=0)
            if price.min() < price.max():
                raise TopoError(
                    f"weights of '{name}' take {price.min()} to {price.max()} multiply-accumulates, as parts of it are "
                    "used apart; a FLOPs budget needs one price a layer"
                )
            found[name] = int(price[0, 0])
        return found

    @cached_property
    def macs(self) -> float | None:
        """Limit of multiply-accumulates; None without a FLOPs budget."""
        if self.flops is None:
            return None
        if self.flops <= 0:
            raise TopoError(
                f"flops is {self.flops}; it is a positive number, or a share of the dense network's up to 1"
            )
        if self.flops <= 1:
            return self.flops * sum(self.costs[name] * self.layer(name).size for name in self.names)
        return self.flops / 2

    def split(self, rule: str = "water") -> dict[str, int]:
        """Parameters of each layer by a rule: "water" (equal shares, capped) or a quota (erk, uniform, igq, ...).

        Every layer gets at least its minimum fan-in. The problem's own budgets come first, and are only checked.
        """
        if self.budgets is not None:
            return self._checked(self.budgets)
        assert self.total is not None
        fixed = {name: self.capacity[name] for name in self.whole}
        names = [name for name in self.names if name not in fixed]
        rest = self.total - sum(fixed.values())
        if rest < 0 or (not names and rest):
            raise TopoError(f"layers kept dense hold {self.told(sum(fixed.values()))}; the budget is {self.told()}")
        if names:
            caps = [self.capacity[name] for name in names]
            least = [self.fan_in(name) for name in names]
            if not sum(least) <= rest <= sum(caps):
                raise self._outside(*(sum(fixed.values()) + sum(held) for held in (least, caps)))
            weights = None
            if rule != "water":
                shapes = {name: self.layer(name).shape for name in names}
                weights = list(quota_budgets(rule, shapes, total=rest).values())
            limit = self.macs
            if limit is not None:
                limit -= sum(self.costs[name] * size for name, size in fixed.items())
            costs = [self.costs[name] for name in names] if limit is not None else None
            try:
                shares = water_fill(caps, rest, least=least, weights=weights, costs=costs, limit=limit)
            except TopoError as error:
                raise TopoError(f"the budget is {self.told()}: {error}") from None
            fixed |= dict(zip(names, shares.tolist()))
        return {name: fixed[name] for name in self.names}

    def _outside(self, low: int, most: int) -> TopoError:
        under = f" under {self.n_m[0]}:{self.n_m[1]}" if self.n_m else ""
        return TopoError(f"the budget is {self.told()}; these layers hold {self.told(low)} to {self.told(most)}{under}")

    def _checked(self, budgets: Mapping[str, int]) -> dict[str, int]:
        for name in self.names:
            requested = budgets[name]
            low = self.capacity[name] if name in self.whole else self.fan_in(name)
            if not low <= requested <= self.capacity[name]:
                unit = "parameters" if self.whole_problem is None else "blocks"
                raise TopoError(
                    f"'{name}' has a budget of {requested} {unit}; it may keep {low} to {self.capacity[name]}"
                )
        spent = sum(self.costs[name] * budgets[name] for name in self.names) if self.macs is not None else 0
        if self.macs is not None and spent > self.macs:
            raise TopoError(f"the budgets take {2 * spent} FLOPs; the limit is {2 * self.macs:.0f}")
        return {name: int(budgets[name]) for name in self.names}


@dataclass(frozen=True)
class Certificate:
    """How good a mask is against what no mask can pass.

    entropy: U, nats, sum over layers of the entropy of the parameter on a random path. log_budgets: sum over layers of
    log n_e, its upper bound for these budgets (what only gates, or leads nowhere, is in neither). ratio: U /
    that, 1 iff every parameter of a layer is on equally many paths. bound: on log10 paths of any mask with as many
    parameters.
    flops: 2 x multiply-accumulates of the kept weights on one example; flops_dense: of the network; flops_npb: of ERK's
    budgets for as many parameters, those of `npb`. NaN where they are unknown.
    """

    kept: int
    effective: int
    nodes: int
    all_nodes: int
    inputs: int
    all_inputs: int
    width: float
    log10_paths: float
    entropy: float
    log_budgets: float
    bound: Bound
    flops: float = math.nan
    flops_dense: float = math.nan
    flops_npb: float = math.nan

    @property
    def ratio(self) -> float:
        """entropy / log_budgets; NaN where every layer keeps a single parameter."""
        return self.entropy / self.log_budgets if self.log_budgets else math.nan

    def summary(self) -> dict[str, Any]:
        """The numbers by name, as JSON holds them: what is not finite is None."""
        names: tuple[str, ...] = ("kept", "effective", "nodes", "all_nodes", "inputs", "all_inputs", "width")
        names += ("log10_paths", "entropy", "log_budgets", "ratio")
        found = {name: getattr(self, name) for name in names}
        found |= {"log10_paths_bound": self.bound.log10_paths, "bound_certified": self.bound.certified}
        found |= {name: getattr(self, name) for name in ("flops", "flops_dense", "flops_npb")}
        return {name: number if math.isfinite(number) else None for name, number in found.items()}


@dataclass(frozen=True, eq=False)
class Balanced:
    """Masks that solve a problem, and how they were found.

    trace: (stage, log10 of the paths) in order. notes: what was given up, a line each.
    """

    masks: MaskSet
    problem: Problem
    trace: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def graph(self) -> WiredGraph:
        """The masks on the problem's wiring."""
        return build_graph(self.masks, self.problem.wiring)

    @cached_property
    def certificate(self) -> Certificate:
        """Counts, U against its bound, and the bound on paths; computed when first asked for."""

        def value(name: str) -> Any:
            return metrics[f"network:{name}"](self.graph).number

        return Certificate(
            kept=value("kept"),
            effective=value("effective_params"),
            nodes=value("effective_nodes"),
            all_nodes=value("nodes"),
            inputs=int(paths.live(self.graph).effective[self.problem.wiring.inputs].sum()),
            all_inputs=len(self.problem.wiring.inputs),
            width=value("path_entropy_width"),
            log10_paths=value("log10_effective_paths"),
            entropy=value("path_entropy"),
            log_budgets=entropy_bound(self.graph),
            bound=self._bound(value("effective_nodes")),
            flops=value("flops_kept"),
            flops_dense=value("flops_dense"),
            flops_npb=self._flops_npb(),
        )

    def _bound(self, nodes: int) -> Bound:
        """Where paths are what is maximised, of masks with as many nodes and no more FLOPs than allowed."""
        if not self.problem.terms.get("paths") or self.problem.terms.get("nodes"):
            return upper_bound(self.problem.wiring, total=self.masks.kept)
        macs = self.problem.macs
        flops = None if macs is None else 2 * macs
        return upper_bound(self.problem.wiring, total=self.masks.kept, nodes=nodes, flops=flops)

    def _flops_npb(self) -> float:
        try:
            return rule_flops(Problem(self.problem.wiring, total=self.masks.kept), "erk")
        except TopoError:  # FLOPs are unknown, or differ from weight to weight
            return math.nan


def log10_paths(masks: MaskSet, wiring: Wiring) -> float:
    """log10 of the number of paths."""
    return metrics["network:log10_effective_paths"](build_graph(masks, wiring)).number


def rule_flops(problem: Problem, rule: str) -> float:
    """FLOPs (2 x multiply-accumulates on one example) of the budgets that a rule gives the layers."""
    split = replace(problem, flops=None).split(rule)
    return float(2 * sum(problem.costs[name] * count for name, count in split.items()))


def as_names(text: str | Iterable[str]) -> tuple[str, ...]:
    """Layer names or patterns, from a list or from one text with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else tuple(text)
