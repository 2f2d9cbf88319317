"""An upper bound on the number of paths of any mask with so many parameters (docs/theory.md, "A bound on paths").

Give each layer e an exponent x_e in [0, 1] and each tensor t a y_t >= 0 with x_e + x_e' + y_t >= 1 for every layer e
into t and e' out of it (through additions and concatenations), x_e + y_t >= 1 at inputs and outputs. Then
    P <= prod_t C_t^{y_t} * (paths of the network at large, a layer counting n_e^{x_e} K_e^{1 - x_e}, an identity 1),
K_e the most parameters between two units. Along one route the paths are a join of the relations "e keeps a parameter
from i to j at kernel position k"; the Atserias-Grohe-Marx inequality bounds it, with the position covered by x_e + (1 -
x_e); then sum over routes. A join that repeats a unit r times counts r. The bound knows nothing of coverage.

Exponents alternate between tensors here: xi for layers that leave a tensor of one colour, 1 - xi for the other, and the
larger of the two where a layer joins equal colours, with y = 0 but at inputs and outputs. That is always admissible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from topo.errors import TopoError
from topo.optimize.coverage import coverage_bound
from topo.wiring import Join, Layer, Wiring

_EXPONENTS = np.linspace(0.3, 0.7, 9)
_NOT_CERTIFIED = (
    "not certified: the bound holds for its budgets, but that no other budgets have a larger one is not proved "
    "(blocks of three layers or more, or branches that are not series-parallel)"
)


@dataclass(frozen=True)
class Bound:
    """log10 P <= log10_paths for every mask. certified: proved; otherwise `note` says what is not.

    exponent: xi. budgets: of each layer where the bound is reached.
    """

    log10_paths: float
    certified: bool
    note: str | None
    exponent: float
    budgets: Mapping[str, float]


def upper_bound(
    wiring: Wiring,
    *,
    total: int | None = None,
    budgets: Mapping[str, int] | None = None,
    nodes: int | None = None,
    flops: float | None = None,
) -> Bound:
    """Bound on log10 of the paths of any mask with these budgets, or with `total` parameters in all.

    nodes: of masks with so many effective nodes or more; flops: with so many FLOPs or fewer. With either, the smaller
    of this bound and the coverage bound (`topo.optimize.coverage`), where that applies; it is proved.

    For given budgets it always holds. For a total the right side is maximised over budgets (a fixed point, and the
    Frank-Wolfe gap added to it): that is a proof where log P(n) is concave, as in chains and in residual blocks of two
    layers. In blocks of three (bottlenecks) and in networks that are not series-parallel (DenseNet) it is not
    concave, and the bound says that it is not certified.

    Layers of the wiring that `budgets` does not name count as dense. Raises TopoError for a total that does not fit.
    """
    if (total is None) == (budgets is None):
        raise TopoError("a bound is for a total or for budgets, one of them")
    if nodes is not None or flops is not None:
        if total is None:
            raise TopoError("a bound for nodes or FLOPs is for a total")
        plain = upper_bound(wiring, total=total)
        covered = coverage_bound(wiring, total, nodes=nodes or 0, macs=None if flops is None else flops / 2)
        if covered is None or (plain.certified and plain.log10_paths <= covered):
            return plain
        told = [f"masks with {nodes:,} nodes or more"] if nodes else []
        told += [f"masks with {flops:.4g} FLOPs or fewer"] if flops is not None else []
        return replace(plain, log10_paths=covered, certified=True, note=f"coverage bound, of {' and '.join(told)}")
    macro = _Macro(wiring)
    names = list(macro.sizes)
    if budgets is not None:
        counts = np.array([float(budgets.get(name, macro.sizes[name])) for name in names])
        value, exponent = min((macro.at(counts, xi)[0], xi) for xi in _EXPONENTS)
        return Bound(float(value) / math.log(10), True, None, float(exponent), dict(zip(names, counts.tolist())))
    sizes = np.array([macro.sizes[name] for name in names], float)
    if total is None or not 0 < total <= sizes.sum():
        raise TopoError(f"the total is {total}; the layers hold 1 to {sizes.sum():.0f}")
    proved = [float(xi) for xi in _EXPONENTS if macro.concave(xi)]
    value, reached, exponent = min((*_largest(macro, sizes, total, xi), xi) for xi in proved or [0.5])
    note = None if proved else _NOT_CERTIFIED
    return Bound(float(value) / math.log(10), bool(proved), note, exponent, dict(zip(names, reached)))


def _largest(macro: _Macro, sizes: np.ndarray, total: float, xi: float) -> tuple[float, tuple[float, ...]]:
    """max over 0 <= n <= sizes, sum n = total, of the bound at xi: value plus Frank-Wolfe gap, and where it is."""
    counts = np.maximum(sizes * total / sizes.sum(), 1e-9)
    for _ in range(400):
        _, slopes = macro.at(counts, xi)
        # at the optimum n is proportional to its elasticity, or at its cap
        following = np.maximum(_capped(slopes * counts, sizes, total), 1e-9)
        moved = np.abs(following - counts).max()
        counts = following
        if moved < 1e-7 * total:
            break
    value, slopes = macro.at(counts, xi)
    left, linear = float(total), 0.0
    for k in np.argsort(-slopes):
        taken = min(left, sizes[k])
        linear += slopes[k] * taken
        left -= taken
    return value + max(linear - float(slopes @ counts), 0.0), tuple(counts.tolist())


def _capped(weights: np.ndarray, caps: np.ndarray, total: float) -> np.ndarray:
    """min(caps, s weights) with sum `total`."""
    found, free, left = np.zeros(len(caps)), np.ones(len(caps), bool), float(total)
    while free.any():
        if weights[free].sum() <= 0:
            found[free] = left * caps[free] / caps[free].sum()
            break
        shares = np.where(free, weights, 0.0) * (left / weights[free].sum())
        over = free & (shares >= caps)
        if not over.any():
            found[free] = shares[free]
            break
        found[over] = caps[over]
        left -= caps[over].sum()
        free &= ~over
    return found


class _Macro:
    """The network at large: tensor 0 holds the inputs, tensor i + 1 what step i makes."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.sizes = {name: wiring.layer(name).size for name in wiring.names if wiring.layer(name).kind != "embedding"}
        self.index = {name: k for k, name in enumerate(self.sizes)}
        self.reads = [_passed(wiring, step) for step in wiring.steps]
        self.ends = _tensors(wiring, wiring.outputs)
        self.repeats = [self._repeats(step) for step in wiring.steps]
        self.colour = self._colours()

    def _repeats(self, step: Layer | Join) -> int:
        """Most parameters between two units of a layer; most units of a join that one unit goes into, by one operand.

        For each way of choosing one of them the join is an identity, so that paths are at most so many times as many.
        """
        if isinstance(step, Layer):
            return step.kernel_size * _most_often(step.reads) if step.name in self.index else 1
        return max(map(_most_often, _operands(step)), default=1)

    def _layer(self, index: int) -> Layer | None:
        step = self.wiring.steps[index]
        return step if isinstance(step, Layer) and step.name in self.index else None

    def _colours(self) -> list[int]:
        """0 or 1 for each tensor, equal where an addition or a concatenation joins them, different across layers if
        possible."""
        parent = list(range(len(self.wiring.steps) + 1))

        def root(tensor: int) -> int:
            while parent[tensor] != tensor:
                tensor = parent[tensor]
            return tensor

        for index, read in enumerate(self.reads):
            joined = read if self._layer(index) else [*read, index + 1]
            for tensor in joined[1:]:
                parent[root(tensor)] = root(joined[0])
        colour: dict[int, int] = {}
        for index, read in enumerate(self.reads):
            if read and self._layer(index) and index not in self.wiring.shortcuts:
                before = colour.setdefault(root(read[0]), 0)
                colour.setdefault(root(index + 1), 1 - before)
        return [colour.get(root(tensor), 0) for tensor in range(len(parent))]

    def _out(self, tensor: int, xi: float) -> float:
        """Exponent of layers that leave a tensor; those that enter have at least 1 minus it."""
        return xi if self.colour[tensor] == 0 else 1.0 - xi

    def exponent(self, index: int, xi: float) -> float:
        read = self.reads[index]
        return max(self._out(read[0], xi) if read else 0.0, 1.0 - self._out(index + 1, xi))

    def at(self, counts: np.ndarray, xi: float) -> tuple[float, np.ndarray]:
        """(log of the bound, its gradient) at n = counts."""
        steps, sizes = self.wiring.steps, self.wiring.groups.sizes
        ahead = np.full(len(steps) + 1, -np.inf)  # logs: networks of a thousand layers overflow otherwise
        ahead[0] = (1.0 - self._out(0, xi)) * math.log(sizes[0])
        factor = np.zeros(len(steps))
        for index, step in enumerate(steps):
            layer = self._layer(index)
            if layer is None and isinstance(step, Layer):
                ahead[index + 1] = (1.0 - self._out(index + 1, xi)) * math.log(sizes[index + 1])
                continue
            if layer is not None:
                x = self.exponent(index, xi)
                factor[index] = x * math.log(counts[self.index[layer.name]]) + (1 - x) * math.log(self.repeats[index])
            else:
                factor[index] = math.log(self.repeats[index])
            if self.reads[index]:
                ahead[index + 1] = np.logaddexp.reduce(ahead[self.reads[index]]) + factor[index]
        behind = np.full(len(steps) + 1, -np.inf)
        behind[self.ends] = [self._out(tensor, xi) * math.log(sizes[tensor]) for tensor in self.ends]
        total = float(np.logaddexp.reduce(ahead[self.ends] + behind[self.ends]))
        slopes = np.zeros(len(counts))
        for index in range(len(steps) - 1, -1, -1):
            layer = self._layer(index)
            if layer is not None and self.reads[index]:
                share = math.exp(min(ahead[index + 1] + behind[index + 1] - total, 0.0))
                k = self.index[layer.name]
                slopes[k] += share * self.exponent(index, xi) / counts[k]
            for tensor in self.reads[index]:
                behind[tensor] = np.logaddexp(behind[tensor], behind[index + 1] + factor[index])
        return total, slopes

    def concave(self, xi: float) -> bool:
        """Whether log P(n) is certainly concave: series-parallel, every parallel branch concave in n.

        A product of powers is concave where its exponents sum to at most 1; sums of concave functions are; products of
        them are log-concave, which is enough in series but not inside another branch.
        """
        monomial, concave, log_concave = 0, 1, 2
        edges: list[tuple[object, object, float, int]] = [("start", 0, 0.0, monomial)]
        for index, read in enumerate(self.reads):
            degree = self.exponent(index, xi) if self._layer(index) else 0.0
            edges += [(tensor, ("read", index), 0.0, monomial) for tensor in read]
            edges.append((("read", index), index + 1, degree, monomial))
            if not read and isinstance(self.wiring.steps[index], Layer):
                edges.append(("start", ("read", index), 0.0, monomial))
        edges += [(tensor, "end", 0.0, monomial) for tensor in self.ends]
        while True:
            pairs: dict[tuple[object, object], list[tuple[float, int]]] = {}
            for u, v, degree, kind in edges:
                pairs.setdefault((u, v), []).append((degree, kind))
            edges = []
            for (u, v), parallel in pairs.items():
                if len(parallel) > 1:
                    if any(kind == log_concave or (kind == monomial and d > 1 + 1e-9) for d, kind in parallel):
                        return False
                    parallel = [(0.0, concave)]
                edges.append((u, v, *parallel[0]))
            into: dict[object, list[int]] = {}
            out: dict[object, list[int]] = {}
            for k, (u, v, _, _) in enumerate(edges):
                out.setdefault(u, []).append(k)
                into.setdefault(v, []).append(k)
            dead = [v for v in into if v != "end" and v not in out] + [u for u in out if u != "start" and u not in into]
            if dead:
                edges = [edge for edge in edges if edge[0] not in dead and edge[1] not in dead]
                continue
            through = next((v for v in into if len(into[v]) == 1 and len(out.get(v, ())) == 1), None)
            if through is None:
                return len(edges) <= 1
            (u, _, d1, k1), (_, v, d2, k2) = edges[into[through][0]], edges[out[through][0]]
            if k1 == k2 == monomial:
                kind = monomial
            elif (k1 == monomial and d1 == 0) or (k2 == monomial and d2 == 0):
                kind = max(k1, k2)
            else:
                kind = log_concave
            gone = {into[through][0], out[through][0]}
            edges = [edge for k, edge in enumerate(edges) if k not in gone] + [(u, v, d1 + d2, kind)]


def _passed(wiring: Wiring, step: Layer | Join) -> list[int]:
    """Tensors whose paths a step passes on: a gate its value branch, a score none, an embedding starts anew."""
    if isinstance(step, Layer):
        return [] if step.kind == "embedding" else _tensors(wiring, step.reads)
    return [tensor for read in _operands(step) for tensor in _tensors(wiring, read)]


def _operands(join: Join) -> tuple[np.ndarray, ...]:
    """Those whose paths go on."""
    return {"add": join.operands, "gate": join.operands[:1], "score": ()}[join.kind]


def _most_often(units: np.ndarray) -> int:
    return int(np.unique(units[units >= 0], return_counts=True)[1].max(initial=1))


def _tensors(wiring: Wiring, units: np.ndarray) -> list[int]:
    return [tensor for tensor, _, _ in wiring.groups.parts(units)]
