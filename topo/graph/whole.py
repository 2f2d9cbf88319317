"""The network as one graph: its units and edges in one list, for numbers of the whole network.

A unit of the graph is an input or what a layer or a join makes. A sum is one with what leads only into it (the last
layer of a residual branch, a shortcut convolution), so that a residual network has the units of its tensors, and what
is read by others too, as an identity skip, has an edge to the sum. Everything that feeds a unit has an edge to it,
queries, keys and gates too; paths follow the value branch alone. Rows of a parameter that take no part are not units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from topo.errors import TopoError
from topo.graph import paths
from topo.graph.graph import Block, WiredGraph
from topo.graph.memo import shared
from topo.graph.unrolled import Edges
from topo.masks import BitRows
from topo.wiring import Join, Layer

Lists = tuple[np.ndarray, np.ndarray, np.ndarray]
Counts = tuple[np.ndarray, np.ndarray]  # mantissas and exponents
_AT_ONCE = 1 << 20  # units whose products are taken together
_MOST_JOINED = 1 << 26  # pairs of an input and an output that paths join: 1.6 GB with what is made of them


def in_buckets(keys: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """keys below n -> where the entries of each begin, (n + 1,), and the entries in order of their keys."""
    from topo.kernels import whole

    ptr = _begins(n, len(keys))
    order = np.empty(len(keys), np.int32 if len(keys) < 1 << 31 else np.int64)
    whole.in_buckets(keys, n, ptr, order)
    return ptr, order


def _begins(n: int, entries: int) -> np.ndarray:
    """Room for where the entries of each unit begin: int32 (n + 1,), int64 of two thousand million entries."""
    return np.empty(n + 1, np.int32 if entries < 1 << 31 else np.int64)


def _narrow(many: np.ndarray) -> np.ndarray:
    """Numbers of paths an edge, in a byte each where they are whole and fit: of a hundred million edges 0.1 GB, not
    0.8."""
    if many.dtype == np.uint8 or not many.size or many.max() > 255 or many.min() < 0:
        return many
    narrow = many.astype(np.uint8)
    return narrow if many.dtype.kind in "iu" or np.array_equal(narrow, many) else many


def _rises(numbers: np.ndarray) -> bool:
    """Whether none is below the one before it."""
    return bool((numbers[1:] >= numbers[:-1]).all())


@dataclass(frozen=True, eq=False)
class WholeGraph:
    """A directed graph without cycles or parallel edges; every edge leads from a lower number to a higher.

    n: units. outgoing: ptr int32 (n + 1,), ends int32 (edges,), many (edges,), how many paths follow each edge (0 of
    what only gates), uint8 where all fit and else float64. inputs, outputs: bool (n,). made_by: (edges,), the number of
    what made each edge, in the smallest unsigned type: a group of a use of a layer, or a join. of_layers: bool, by that
    number, whether it is a layer's.
    """

    n: int
    outgoing: Lists
    inputs: np.ndarray
    outputs: np.ndarray
    made_by: np.ndarray
    of_layers: np.ndarray

    @classmethod
    def of_edges(
        cls,
        n: int,
        edges: Edges,
        inputs: np.ndarray,
        outputs: np.ndarray,
        of_layers: np.ndarray,
    ) -> WholeGraph:
        """Edges in any order; of parallel ones the paths add up, and the first says what made them.

        >>> both, ends = np.zeros(2, int), np.eye(2, dtype=bool)
        >>> WholeGraph.of_edges(2, (both, both + 1, np.array([1.0, 2.0]), both), *ends, np.ones(1, bool)).size
        1
        """
        begin, end, many, made_by = edges
        del edges
        order = None if _rises(end) else in_buckets(end, n)[1]
        ptr, by_begin = in_buckets(begin if order is None else begin[order], n)
        if order is not None or not _rises(begin):
            order = by_begin if order is None else order[by_begin]
            begin, end, many, made_by = begin[order], end[order], many[order], made_by[order]
        del by_begin, order
        new = np.ones(len(end), np.bool_)
        new[1:] = (end[1:] != end[:-1]) | (begin[1:] != begin[:-1])
        if not new.all():
            many = np.add.reduceat(many, np.flatnonzero(new), dtype=np.float64)
            end, made_by = end[new], made_by[new]
            ptr = np.concatenate([[0], np.cumsum(new)])[ptr].astype(ptr.dtype)
        many = _narrow(many)
        lists = ptr, end.astype(np.int32, copy=False), many if many.dtype == np.uint8 else many.astype(np.float64)
        return cls(n, lists, inputs, outputs, made_by.astype(_of_makers(of_layers), copy=False), of_layers)

    @property
    def size(self) -> int:
        """Number of edges."""
        return len(self.outgoing[1])

    def incoming(self) -> Lists:
        """The edges by the unit that they lead to: ptr, where they come from, how many paths follow each."""
        from topo.kernels import whole

        ptr, ends, many = self.outgoing
        found = np.empty_like(ptr), np.empty_like(ends), np.empty_like(many)
        whole.turned(ptr, ends, many, *found)
        return found

    @cached_property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """The edges both ways: ptr int32 (n + 1,), ends int32 (2 edges,)."""
        from topo.kernels import whole

        found = _begins(self.n, 2 * self.size), np.empty(2 * self.size, np.int32)
        whole.both_ways(*self.outgoing[:2], *found)
        return found

    @property
    def begins(self) -> np.ndarray:
        """int32 (edges,): the unit that each edge leaves."""
        return np.repeat(np.arange(self.n, dtype=np.int32), self.out_degrees)

    @property
    def out_degrees(self) -> np.ndarray:
        """int32 (n,): edges from each unit."""
        return np.diff(self.outgoing[0])

    @property
    def in_degrees(self) -> np.ndarray:
        """int32 (n,): edges to each unit."""
        from topo.kernels import whole

        found = np.zeros(self.n, self.outgoing[0].dtype)
        whole.count(self.outgoing[1], found)
        return found

    @property
    def degrees(self) -> np.ndarray:
        """int32 (n,): edges of each unit."""
        found = self.in_degrees
        found += self.out_degrees
        return found

    @cached_property
    def many_of_each(self) -> tuple[np.ndarray, np.ndarray]:
        """(degrees that units have, rising, how many units have each): int64 both."""
        ordered = np.sort(self.degrees)
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        return ordered[first].astype(np.int64), np.diff(first, append=len(ordered))

    @cached_property
    def joined(self) -> tuple[WholeGraph, np.ndarray]:
        """The graph without the units that no path meets, as they have no edge, and int32, the unit behind each of it.

        Where few have none it is the graph itself. Paths from a unit to itself, an input that is an output, stay.
        """
        on = (self.degrees > 0) | (self.inputs & self.outputs)
        count = int(np.count_nonzero(on))
        if 2 * count > self.n:
            return self, np.arange(self.n, dtype=np.int32)
        ptr, ends, many = self.outgoing
        place = np.cumsum(on, dtype=np.int32) - np.int32(1)
        lists = np.append(ptr[:-1][on], ptr[-1:]), place[ends], many
        whole = WholeGraph(count, lists, self.inputs[on], self.outputs[on], self.made_by, self.of_layers)
        return whole, np.flatnonzero(on).astype(np.int32)


def _stand_ins(graph: WiredGraph, starts: np.ndarray) -> np.ndarray:
    """int32 (units,): the unit that stands for each, -1 for those that are none. starts: bool, where paths start."""
    from topo.kernels.whole import count

    wiring = graph.wiring
    readers = np.zeros(wiring.n_units, np.int32)
    words = np.zeros(wiring.n_units, np.bool_)
    stands = np.full(wiring.n_units, -1, np.int32)
    stands[wiring.inputs] = wiring.inputs
    for seen, step in zip(graph.steps, wiring.steps):
        made = np.arange(step.start, step.stop)
        stands[made] = made
        if isinstance(step, Layer):
            stands[made[~step.part[0]]] = -1
        if isinstance(seen, Block) and seen.source:
            words[step.operands[0]] = True
            continue
        for read in step.operands:
            count(read if read.min(initial=0) >= 0 else read[read >= 0], readers)
    readers[wiring.outputs] += 2  # an output is a unit of its own
    stands[words & (readers == 0)] = -1  # the vocabulary of an embedding where paths start
    free = (readers == 1) & ~starts & (stands >= 0)
    for step in reversed(wiring.steps):  # a sum may itself lead into another alone
        if isinstance(step, Join) and step.kind == "add":
            made = np.arange(step.start, step.stop)
            for operand in step.operands:
                here = (operand >= 0) & free[operand]
                stands[operand[here]] = stands[made[here]]
    return stands


def makers(steps: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, layers among them having `groups` -> the first number of each, and whether a number is a layer's."""
    sizes = [getattr(step, "groups", 0) for step in steps]
    of_layers = np.repeat(np.array(sizes, np.int64) > 0, np.maximum(sizes, 1))
    return np.cumsum([0, *np.maximum(sizes, 1)])[:-1], of_layers


def _of_makers(of_layers: np.ndarray) -> np.dtype:
    """The type that numbers what makes edges."""
    return np.min_scalar_type(max(len(of_layers) - 1, 0))


def _edges(graph: WiredGraph, first: np.ndarray) -> Iterator[Edges]:
    """The edges, step by step in pieces, units of the wiring; from may be below 0. first: see `makers`."""
    for step, number in zip(graph.steps, first):
        if isinstance(step, Block):
            if not step.source:
                for rows, places, many in step.edges.pieces():
                    made_by = number + rows // (step.shape[0] // step.groups)
                    yield step.edges.reads[places], step.use.start + rows, many, made_by
            continue
        made = step.start + np.arange(len(step.operands[0])) // step.width
        for place, operand in enumerate(step.operands):
            follows = step.kind == "add" or (step.kind == "gate" and place == 0)
            yield operand, made, np.full(len(made), follows, np.uint8), np.full(len(made), number)


@dataclass(frozen=True, eq=False)
class Numbers:
    """number: int32 (units,), the place of each unit of the wiring in the whole graph, -1 for those that are none.

    units: int32 (n,), the unit of the wiring behind each of the graph. inputs: bool (n,), where paths start.
    """

    number: np.ndarray
    units: np.ndarray
    inputs: np.ndarray


@shared
def numbers(graph: WiredGraph) -> Numbers:
    """The units of the whole graph, in running order."""
    wiring = graph.wiring
    starts = np.zeros(wiring.n_units, np.bool_)
    starts[wiring.inputs] = True
    running = [wiring.inputs]
    for seen, step in zip(graph.steps, wiring.steps):
        starts[step.start : step.stop] |= isinstance(seen, Block) and seen.source
        running.append(np.arange(step.start, step.stop, dtype=np.int32))
    stands = _stand_ins(graph, starts)
    order = np.concatenate(running)
    own = order[stands[order] == order]
    number = np.full(wiring.n_units, -1, np.int32)
    number[own] = np.arange(len(own), dtype=np.int32)
    number = np.where(stands >= 0, number[stands], np.int32(-1))
    return Numbers(number, own, starts[own])


@shared
def whole_graph(graph: WiredGraph) -> WholeGraph:
    """The whole network as it is seen: `channel`, `unit` or `unrolled`.

    TopoError, with their number, for more edges of places than `graph.max_edges`, before any is listed.
    """
    if graph.view == "unrolled":
        return _of_places(graph)
    named, ahead = numbers(graph), paths.live(graph).forward
    first, of_layers = makers(graph.steps)
    lists = [_NO_EDGES]
    for begin, end, many, made_by in _edges(graph, first):
        many = _narrow(many * ahead[end])  # a closed gate has no path
        begin, end = np.where(begin >= 0, named.number[begin], -1), named.number[end]
        real = (begin >= 0) & (end >= 0) & (begin != end)  # what leads only into a sum is one with it
        lists.append((begin[real], end[real], many[real], made_by[real].astype(_of_makers(of_layers))))
    outputs = np.zeros(len(named.units), np.bool_)
    outputs[named.number[graph.wiring.outputs]] = True
    return WholeGraph.of_edges(len(outputs), _joined(lists), named.inputs, outputs, of_layers)


_NO_EDGES: Edges = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(0, np.uint8))


def _joined(lists: list[Edges]) -> Edges:
    """One list of edges; the pieces are let go, field by field, so that edges are not held twice."""
    begins, ends, manys, makers_of = map(list, zip(*lists))
    lists.clear()

    def one(field: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(field)
        field.clear()
        return joined

    return one(begins), one(ends), one(manys), one(makers_of)


def _of_places(graph: WiredGraph) -> WholeGraph:
    from topo.graph import unrolled as places

    found = places.unrolled(graph)
    listed = places.map_edges(found)
    size = places.count_edges(found, listed)
    if size > graph.max_edges:
        raise TopoError(
            f"the unrolled network has {size:,} edges, about {16 * size / 2**30:.1f} GB as a list; up to "
            f"{graph.max_edges:,} are listed unless --max-edges (max_edges) says more"
        )
    n = int(listed.number.max(initial=-1)) + 1
    first, of_layers = makers(found.maps.steps)
    edges = _joined([_NO_EDGES, *places.list_edges(found, listed, first)])
    inputs, outputs = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    inputs[listed.number[found.maps.inputs]] = outputs[listed.number[found.maps.outputs]] = True
    return WholeGraph.of_edges(n, edges, inputs, outputs, of_layers)


def total_weight(graph: WiredGraph) -> float:
    """Sum of |w| over the kept weights of every use of a layer that join two units, and 1 for each edge of a join."""
    from topo.graph.graph import laid_out

    assert graph.weights is not None
    if graph.view == "unrolled":
        return _weight_of_places(graph)
    number, total = numbers(graph).number, 0.0
    for step in graph.steps:
        if not isinstance(step, Block):
            made = number[step.start + np.arange(len(step.operands[0])) // step.width]
            for operand in step.operands:
                fed = np.where(operand >= 0, number[operand], -1)
                total += np.count_nonzero((fed >= 0) & (fed != made))
        elif not step.source:
            kept = step.rows.unpack().reshape(step.groups, -1, step.shape[1], step.kernel_size)
            size = np.abs(laid_out(graph.weights[step.name], step.use).astype(np.float64)).reshape(kept.shape)
            fed = (step.reads >= 0) & (number[step.reads] >= 0)
            size *= fed.reshape(step.groups, 1, step.shape[1], 1)
            total += float(size.sum(where=kept))
    return total


def weighted_graph(graph: WiredGraph) -> WholeGraph:
    """The whole graph with the strength of each edge as `many`: the sum of |w| of what it joins, 1 of a join's.

    Of the channel and unit views. Edges of one pair of units add up.
    """
    from topo.graph.graph import laid_out

    assert graph.weights is not None
    named = numbers(graph)
    first, of_layers = makers(graph.steps)
    lists = [_NO_EDGES]
    for step, number in zip(graph.steps, first):
        if isinstance(step, Block):
            if step.source:
                continue
            kept = step.rows.unpack().reshape(step.shape[0], step.shape[1], -1)
            size = np.abs(laid_out(graph.weights[step.name], step.use).astype(np.float64)).reshape(kept.shape)
            rows, columns = np.nonzero(kept.any(axis=2))
            many = np.where(kept, size, 0.0).sum(axis=2)[rows, columns]
            group = rows // (step.shape[0] // step.groups)
            begin, end, made_by = step.reads[group * step.shape[1] + columns], step.use.start + rows, number + group
        else:
            begin = np.concatenate(step.operands)
            end = np.tile(step.start + np.arange(len(step.operands[0])) // step.width, len(step.operands))
            many, made_by = np.ones(len(end)), np.full(len(end), number)
        begin, end = np.where(begin >= 0, named.number[begin], -1), named.number[end]
        real = (begin >= 0) & (end >= 0) & (begin != end)
        lists.append((begin[real], end[real], many[real], made_by[real].astype(np.int32)))
    outputs = np.zeros(len(named.units), np.bool_)
    outputs[named.number[graph.wiring.outputs]] = True
    return WholeGraph.of_edges(len(outputs), _joined(lists), named.inputs, outputs, of_layers)


def _weight_of_places(graph: WiredGraph) -> float:
    from topo.graph import unrolled as places

    assert graph.weights is not None
    found = places.unrolled(graph)
    listed = places.map_edges(found)
    members, total = listed.sizes, 0.0
    for step in found.layers:
        kept = found.rows[step.name].unpack().reshape(step.groups, -1, step.columns)
        size = np.abs(np.asarray(graph.weights[step.name], np.float64)).reshape(kept.shape)
        joined = places.joined_by_columns(found, step, members)
        total += float((np.where(kept, size, 0.0).sum(axis=1) * joined).sum())
    joins = replace(found, rows={name: BitRows(r.shape, np.zeros_like(r.words)) for name, r in found.rows.items()})
    first = makers(joins.maps.steps)[0]
    return total + sum(len(edges[0]) for edges in places.list_edges(joins, listed, first))


class _Paths:
    """Counts on one graph: mantissa and exponent of the paths to each unit, of those that avoid some units."""

    def __init__(self, whole: WholeGraph) -> None:
        self.whole, self.none = whole, np.zeros(whole.n, np.bool_)

    @cached_property
    def incoming(self) -> Lists:
        return self.whole.incoming()

    def _count(self, lists: Lists, begin: np.ndarray, closed: np.ndarray, backwards: bool) -> Counts:
        from topo.kernels import whole as kernels

        mantissa, exponent = np.empty(self.whole.n), np.empty(self.whole.n, np.int32)
        kernels.paths_to(*lists, begin, closed, backwards, mantissa, exponent)
        return mantissa, exponent

    def ahead(self, begin: np.ndarray | None = None, closed: np.ndarray | None = None) -> Counts:
        """Paths from the inputs, or from where `begin` is True."""
        begin, closed = self.whole.inputs if begin is None else begin, self.none if closed is None else closed
        return self._count(self.incoming, begin, closed, False)

    def behind(self, begin: np.ndarray | None = None, closed: np.ndarray | None = None) -> Counts:
        """Paths to the outputs, or to where `begin` is True."""
        begin, closed = self.whole.outputs if begin is None else begin, self.none if closed is None else closed
        return self._count(self.whole.outgoing, begin, closed, True)


def _scaled(mantissa: np.ndarray, exponent: np.ndarray, by: int) -> np.ndarray:
    return np.ldexp(mantissa, np.clip(exponent - by, -2000, 1000))


def _all_paths(whole: WholeGraph, ahead: Counts) -> tuple[float, int]:
    """The number of paths as total * 2**exponent, by those to each unit; 0.0 if there is none."""
    mantissa, exponent = (side[whole.outputs] for side in ahead)
    top = int(exponent[mantissa > 0].max(initial=-(1 << 30)))
    return (float(_scaled(mantissa, exponent, top).sum()), top) if (mantissa > 0).any() else (0.0, 0)


def core_of_paths(whole: WholeGraph, tau: float, most_work: int) -> list[int] | None:
    """Units taken one by one, each on most of the paths that none before it meets, until they meet tau of all paths.

    Of units on equally many (to 1e-9) the first is taken. [] if there is no path; None if more than `most_work` units
    and edges would be looked at. Counts below 2**53 are exact, and then only what a unit leads to is looked at.
    """
    from topo.kernels import whole as kernels

    whole, units = whole.joined
    counts = _Paths(whole)
    ahead, behind = counts.ahead(), counts.behind()
    total, top = _all_paths(whole, ahead)
    if total and max(ahead[1].max(), behind[1].max()) <= 53 and math.ldexp(total, top) < 1 << 53:
        paths = math.ldexp(total, top)
        taken = np.empty(whole.n, np.int32)
        exact = [np.ldexp(mantissa, exponent, out=mantissa) for mantissa, exponent in (ahead, behind)]
        del ahead, behind
        size = kernels.exact_core(
            *whole.outgoing, *counts.incoming, *exact, paths, paths * _rest(tau), most_work, taken
        )
        return None if size < 0 else units[taken[:size]].tolist()
    found = _recounted_core(counts, total, top, tau, most_work)
    return None if found is None else units[found].tolist()


def _rest(tau: float) -> float:
    """The share of all paths that a core need not meet."""
    return (1 - tau) * (1 + 1e-12) + 1e-12


def _recounted_core(counts: _Paths, total: float, top: int, tau: float, most_work: int) -> list[int] | None:
    """The same of counts that float64 rounds: all paths are counted anew for each unit."""
    whole = counts.whole
    taken: list[int] = []
    closed, left = counts.none.copy(), 1.0
    while total and left > _rest(tau):
        if (len(taken) + 1) * whole.size > most_work:
            return None
        ahead, behind = counts.ahead(closed=closed), counts.behind(closed=closed)
        share = np.empty(whole.n)
        for first in range(0, whole.n, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            share[part] = _scaled(ahead[0][part] * behind[0][part] / total, ahead[1][part] + behind[1][part], top)
        del ahead, behind
        unit = int(np.argmax(share >= share.max() * (1 - 1e-9)))
        taken.append(unit)
        closed[unit] = True
        left -= share[unit]
    return taken


def flat_core(whole: WholeGraph, tau: float, most_work: int) -> int | None:
    """Size of the core, as `core_of_paths`, of the flat network: an edge from input to output for each path.

    None if more than `most_work` units and edges would be looked at, or more than `_MOST_JOINED` pairs are joined.
    """
    from topo.kernels import whole as kernels

    whole = whole.joined[0]
    counts = _Paths(whole)
    ahead = counts.ahead()
    total, top = _all_paths(whole, ahead)
    inputs, outputs = np.flatnonzero(whole.inputs), np.flatnonzero(whole.outputs)
    forwards = len(inputs) <= len(outputs)
    ones, others = (inputs, outputs) if forwards else (outputs, inputs)
    mantissa, exponent = counts.behind() if forwards else ahead
    share = _scaled(mantissa[ones] / total, exponent[ones], top)
    place = np.full(whole.n, -1, np.int32)
    place[others] = np.arange(len(others))
    most = min(len(ones) * len(others), _MOST_JOINED)
    ptr, ends, shares = np.empty(len(ones) + 1, np.int64), np.empty(most, np.int32), np.empty(most)
    lists, step = (whole.outgoing, 1) if forwards else (counts.incoming, -1)
    size = kernels.joined_by_paths(ones, share, *lists, mantissa, exponent, step, place, most_work, ptr, ends, shares)
    if size < 0:
        return None
    del counts, ahead, lists, mantissa, exponent, place
    back = in_buckets(ends[:size], len(others))
    found = kernels.flat_core(ptr, ends[:size], shares[:size], *back, not forwards, _rest(tau), most_work)
    return None if found < 0 else int(found)


def units_on_paths(whole: WholeGraph) -> int:
    """How many units are on a path from an input to an output."""
    counts = _Paths(whole.joined[0])
    return int(np.count_nonzero((counts.ahead()[0] > 0) & (counts.behind()[0] > 0)))
