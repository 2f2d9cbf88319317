"""Unit-id tensors: what a trace knows of an activation, and the steps that it writes.

Every activation of the traced network is stood for by an int32 tensor of the same shape that holds, at each element,
what comes in there. That is one of four things:

* a unit, by its number (0, 1, 2, ...);
* nothing: NOTHING, exactly zero (padding, zero states, what a known mask closes);
* a constant that is never zero: CONSTANT, or LEARNED where parameters are in it;
* a unit beside such a constant, so never zero, whatever becomes of the unit: its number with the mark BESIDE
  (`1 + scale`, `sigmoid(x)`) or BESIDE_LEARNED (`x + positions`). Paths follow the unit. A product with it stays open.
  A layer sees the constant of BESIDE; learned offsets are to it what biases are, and no source.

Most are constant over batch, space or tokens, so they are kept as expanded tensors (stride 0 along those axes):
ResNet-50's activations then take kilobytes, and every rule looks at one element per channel. Parameters are stood for
by `Weight`: the coordinates of each element in its parameter, again expanded tensors, so that transposes, slices and
splits of a weight are run literally too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from topo.masks import BitRows
from topo.wiring import CONSTANT, NOTHING, Join, Layer, Step

MOST_PAIRS = 1 << 26
MOST_ENTRIES = 1 << 22
LEARNED = -3
BESIDE, BESIDE_LEARNED = 1 << 29, 1 << 28
_MARKS = BESIDE | BESIDE_LEARNED


class NoRule(Exception):
    """Raised by a rule whose operation, as it is called here, it cannot follow."""


@dataclass(frozen=True)
class Weight:
    """A view of a parameter: coords[k] holds, for each element of the view, its index along the parameter's axis k.

    kept: bool, of the view's shape, where elements are zero whatever the parameter holds (a triangle, padding).
    """

    name: str
    size: tuple[int, ...]
    coords: tuple[Tensor, ...]
    kept: Tensor | None = None

    @classmethod
    def whole(cls, name: str, size: Sequence[int]) -> Weight:
        size = tuple(int(n) for n in size)
        axes = [torch.arange(n, dtype=torch.int32) for n in size]
        sides = [[-1 if i == k else 1 for i in range(len(size))] for k in range(len(size))]
        return cls(name, size, tuple(axis.view(side).expand(size) for axis, side in zip(axes, sides)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.coords[0].shape) if self.coords else ()

    def over(self, dims: Sequence[int], axis: int) -> bool:
        """Whether the coordinate along the parameter's `axis` changes along any of the view's `dims`."""
        return any(self.coords[axis].shape[d] > 1 and not _constant(self.coords[axis], d) for d in dims)


def filled(shape: Sequence[int], kind: int = CONSTANT) -> Tensor:
    """Ids of a tensor that is CONSTANT, LEARNED or NOTHING throughout."""
    return torch.full((1,) * len(shape), kind, dtype=torch.int32).expand(tuple(shape))


def tracked(value: Any) -> bool:
    """Whether `value` is an id tensor that carries a unit somewhere."""
    return isinstance(value, Tensor) and value.numel() > 0 and bool((compact(value)[0] >= 0).any())


def bare(ids: Tensor) -> Tensor:
    """The ids without their marks: the number of a unit, or a kind of constant."""
    return torch.where(ids >= 0, ids & ~_MARKS, ids)


def marks(ids: Tensor) -> Tensor:
    """What stands beside the unit of each entry: BESIDE, BESIDE_LEARNED, both or 0; of a constant, what it would be."""
    return torch.where(ids >= 0, ids & _MARKS, torch.where(ids == CONSTANT, BESIDE, 0).to(torch.int32)) | torch.where(
        ids == LEARNED, BESIDE_LEARNED, 0
    ).to(torch.int32)


def _of_marks(beside: Tensor) -> Tensor:
    """What is left of a constant where no unit is: the reverse of `marks`."""
    learned = torch.where(beside & BESIDE_LEARNED != 0, LEARNED, NOTHING)
    return torch.where(beside & BESIDE != 0, CONSTANT, learned).to(torch.int32)


def is_open(ids: Tensor) -> bool:
    """Whether no entry is ever zero."""
    return ids.numel() > 0 and bool((marks(compact(ids)[0]) != 0).all())


def _constant(ids: Tensor, dim: int) -> bool:
    """Whether ids do not change along `dim`; the two first entries decide mostly, so this is cheap."""
    if ids.shape[dim] <= 1 or ids.stride(dim) == 0:
        return True
    first = ids.narrow(dim, 0, 1)
    return bool((ids.narrow(dim, 1, 1) == first).all()) and bool((ids == first).all())


def squash(ids: Tensor) -> Tensor:
    """The same ids with stride 0 along every axis along which they are constant."""
    for dim in range(ids.dim()):
        if ids.shape[dim] > 1 and ids.stride(dim) != 0 and _constant(ids, dim):
            ids = ids.narrow(dim, 0, 1).expand(ids.shape)
    return ids


def compact(*tensors: Tensor) -> list[Tensor]:
    """Broadcast id tensors, narrowed to one entry along every axis along which none of them changes."""
    wide = list(torch.broadcast_tensors(*tensors)) if len(tensors) > 1 else list(tensors)
    for dim in range(wide[0].dim()):
        if wide[0].shape[dim] > 1 and all(t.stride(dim) == 0 for t in wide):
            wide = [t.narrow(dim, 0, 1) for t in wide]
    return wide


def carried(ids: Tensor) -> Tensor:
    """The units of ids without their marks, with one entry along every axis along which they do not change."""
    return compact(squash(bare(compact(ids)[0])))[0]


def _in_order(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in order of first appearance, and which of them each row is."""
    if (rows[1:, 0] > rows[:-1, 0]).all():
        return rows, np.arange(len(rows))
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[first[order]], rank[which.reshape(-1)]


class Units:
    """The steps of a wiring as they are found. `node` is the fx node whose rule runs. mapped: every place is a unit."""

    mapped = False

    def __init__(self, batch: int = 1, gates: str = "soft", biases: str = "closed") -> None:
        self.batch, self.gates, self.biases = batch, gates, biases
        self.node: Any = None
        self.count = 0
        self.steps: list[Step] = []
        self.inputs: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.scores: set[int] = set()
        self._merged: dict[tuple[Any, ...], int] = {}
        self._beside: dict[int, int] = {}
        self._sliced: dict[str, list[int]] = {}
        self.entry_layers: dict[str, int] = {}
        self.env: dict[Any, Any] = {}
        self.roots: dict[Any, Any] = {}
        self.known: Any = {}
        self._zero: dict[Any, bool | None] = {}
        self.saturated = False  # whether `gates` made a difference

    def not_zero_at_zero(self, several: bool = False) -> bool:
        """Whether the element-wise operation of `node`, of one tensor, gives something else than 0 for 0.

        several: of several tensors, for 0 in all of them.
        """
        taken = sum(isinstance(arg, Node) for arg in (*self.node.args, *self.node.kwargs.values()))
        return (taken == 1 or several) and self._at(None) is False

    def closed_by(self) -> list[bool]:
        """For each tensor that the element-wise operation of `node` takes: whether it gives 0 wherever that is 0."""
        return [self._at(rank) is True for rank in range(sum(isinstance(arg, Node) for arg in self.node.args))]

    def _at(self, rank: int | None) -> bool | None:
        """Whether the operation of `node` gives 0 if its tensor of this rank is 0, or all are; None if that fails."""
        target, args, kwargs = self.node.target, self.node.args, self.node.kwargs
        key = (target, rank, repr(["x" if isinstance(arg, Node) else arg for arg in args]), repr(kwargs))
        if key not in self._zero:
            ranks, some = count(), torch.tensor([-2.0, -0.7, 0.6, 3.0])
            given = [
                (torch.zeros(4), some)[rank not in (None, next(ranks))] if isinstance(a, Node) else a for a in args
            ]
            try:
                made = target(*given, **kwargs)
                self._zero[key] = not bool(made.any()) if isinstance(made, Tensor) else None
            except (RuntimeError, TypeError, ValueError):  # a cast to a device without values, another form
                self._zero[key] = None
        return self._zero[key]

    # -- making units

    def _reserve(self, n: int) -> int:
        start, self.count = self.count, self.count + n
        return start

    def source(self, n: int) -> np.ndarray:
        """n new input units."""
        start = self._reserve(n)
        self.inputs.append((start, n))
        return np.arange(start, start + n, dtype=np.int32)

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _join(self, kind: str, operands: Sequence[np.ndarray], width: int = 1) -> int:
        join = Join(kind, tuple(operands), self.count, width)
        self.steps.append(join)
        if kind == "score":
            self.scores.update(range(join.start, join.stop))
        return self._reserve(join.outputs)

    def seen(self, ids: Tensor, learned: bool = True) -> Tensor:
        """The ids as joins and layers read them: units, -1 and -2.

        A unit beside a constant becomes a unit of its own, the sum of both, which is always live. learned: whether
        learned offsets count (in products), or are left out (in layers).
        """
        small = compact(ids)[0]
        wanted = small & (_MARKS if learned else BESIDE)
        beside = (small >= 0) & (wanted != 0)
        found = torch.where(small == LEARNED, CONSTANT, bare(small))
        if bool(beside.any()):
            plain = found[beside].numpy()
            new = np.array([unit for unit in dict.fromkeys(plain.tolist()) if unit not in self._beside], np.int32)
            if len(new):
                start = self._join("add", (new, np.full(len(new), CONSTANT, np.int32)))
                self._beside.update(zip(new.tolist(), range(start, start + len(new))))
            found[beside] = torch.tensor([self._beside[unit] for unit in plain.tolist()], dtype=torch.int32)
        return found.expand(ids.shape)

    def _pairs(self, kind: str, x: Tensor, y: Tensor, joined: Tensor, ids: Tensor) -> Tensor:
        """ids, with new units where `joined`, one for each distinct pair in order of appearance."""
        here = joined.reshape(-1).numpy()
        if here.any():
            rows = torch.stack((x, y), -1).reshape(-1, 2).numpy()
            made = ids.reshape(-1).numpy().copy()
            distinct, which = _in_order(rows[here])
            made[here] = self._join(kind, (distinct[:, 0], distinct[:, 1])) + which
            ids = torch.from_numpy(made).view(x.shape)
        return ids

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Ids of x + y: the paths of both.

        Where one carries no unit, or both are equal, the other passes, beside what is never zero in either. Else every
        position where at least one carries a unit gets a new unit, so that a residual stream stays one contiguous
        range.
        """
        shape = torch.broadcast_shapes(x.shape, y.shape)
        x, y = compact(x, y)
        beside, x, y = marks(x) | marks(y), bare(x), bare(y)
        on_x, on_y = x >= 0, y >= 0
        units = torch.where(on_x, x, y)
        if bool((on_x & on_y & (x != y)).any()):
            x, y = torch.where(on_x, x, NOTHING), torch.where(on_y & (x != y), y, NOTHING)
            units = self._pairs("add", x, y, on_x | on_y, units)
        return squash(torch.where(on_x | on_y, units | beside, _of_marks(beside)).expand(shape))

    def gate(self, value: Tensor, by: Tensor) -> Tensor:
        """Ids of value * by: zero with zero, and where one is a constant, or both are equal, the other passes.

        The product of a unit and itself beside a constant, x * sigmoid(x), is zero with the unit.
        """
        shape = torch.broadcast_shapes(value.shape, by.shape)
        x, y = compact(value, by)
        zero = (x == NOTHING) | (y == NOTHING)
        on_x, on_y = x >= 0, y >= 0
        same = bare(x) == bare(y)
        ids = torch.where(on_x, torch.where(on_y & same, x & y, x), torch.where(on_y, y, torch.minimum(x, y)))
        ids = torch.where(zero, NOTHING, ids).to(torch.int32)
        joined = on_x & on_y & ~same
        if bool(joined.any()):
            x, y = (self.seen(torch.where(joined, side, NOTHING)) for side in (x, y))
            ids = self._pairs("gate", x, y, joined, ids)
        return squash(ids.expand(shape))

    def merge(self, rows: Tensor) -> Tensor:
        """rows (n, m) -> (n,): the one unit of each row, or a new one that adds all of them, beside its constants."""
        if rows.shape[1] == 1:
            return rows[:, 0]
        if rows.shape[1] == 0:
            return torch.full(rows.shape[:1], NOTHING, dtype=torch.int32)
        if bool((rows == rows[:, :1]).all()):
            return rows[:, 0]
        beside, rows = _union(marks(rows)), bare(rows)
        top = rows.amax(1)
        if not bool((torch.where(rows < 0, top[:, None], rows) == top[:, None]).all()):
            ordered = np.sort(rows.numpy(), axis=1)
            keep = ordered >= 0
            keep[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
            counts = keep.sum(1)
            mixed = counts > 1
            sets = np.full((int(mixed.sum()), int(counts.max())), NOTHING, np.int32)
            filled = np.arange(sets.shape[1]) < counts[mixed][:, None]
            sets[filled] = ordered[mixed][keep[mixed]]
            distinct, which = _in_order(sets)
            key = (distinct.shape, distinct.tobytes())
            if key not in self._merged:
                self._merged[key] = self._join("add", list(distinct.T))
            ids = top.numpy().copy()
            ids[mixed] = self._merged[key] + which
            top = torch.from_numpy(ids)
        return torch.where(top >= 0, top | beside, _of_marks(beside))

    def reduce(self, ids: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
        """Ids of a sum, mean or pool of all entries along `dims`."""
        dims = sorted({d % ids.dim() for d in dims}) if ids.dim() else []
        others = [d for d in range(ids.dim()) if d not in dims]
        small = compact(ids)[0].permute(*others, *dims)
        sides = small.shape[: len(others)]
        merged = self.merge(small.reshape(int(np.prod(sides)), -1)).view(sides)
        merged = merged.expand([ids.shape[d] for d in others])
        for dim in dims if keepdim else ():
            merged = merged.unsqueeze(dim)
        return merged

    def channels(self, ids: Tensor, dim: int) -> Tensor:
        """(n,) the unit of each index along `dim`; units that share an index are added."""
        return self.reduce(ids, [d for d in range(ids.dim()) if d != dim % ids.dim()])

    # -- products

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y (n, width) -> (n,) attention-score units, one for each distinct row of pairs."""
        zero = (x == NOTHING) | (y == NOTHING)
        fixed = torch.where((marks(x) != 0) & (marks(y) != 0), marks(x) | marks(y), 0)
        beside = _union(torch.where(zero, 0, fixed).to(torch.int32))
        x, y = (torch.where(zero, NOTHING, self.seen(side)).to(torch.int32) for side in (x, y))
        rows = torch.stack((x, y), -1).numpy()
        alive = (rows >= 0).any((1, 2))
        ids = _of_marks(beside)
        if alive.any():
            distinct, which = _in_order(rows[alive].reshape(int(alive.sum()), -1))
            pairs = distinct.reshape(-1, 2)
            made = self._join("score", (pairs[:, 0], pairs[:, 1]), x.shape[1]) + which
            ids[torch.from_numpy(alive)] = torch.from_numpy(made.astype(np.int32)) | beside[torch.from_numpy(alive)]
        return ids

    def product(self, x: Tensor, y: Tensor, value: int | None) -> Tensor:
        """Ids of the sum of x * y over their last axis.

        If no pair of units changes along that axis, the product is a gate, with operand `value` (0 or 1) as its value
        branch. If it does and `value` is None, the sum is an attention score; else it is the sum of the gated values.
        """
        shape = torch.broadcast_shapes(x.shape, y.shape)[:-1]
        x, y = compact(x, y)
        if x.numel() > MOST_PAIRS:
            raise NoRule(f"a product over {x.numel()} pairs of units")
        if x.shape[-1] > 1 and value is None and tracked(x) and tracked(y):
            made = self.score(x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])).view(x.shape[:-1])
        else:
            gated = self.gate(y, x) if value == 1 else self.gate(x, y)
            made = self.reduce(gated, [-1])
        return squash(made.expand(shape))

    # -- layers

    def layer(
        self,
        weight: Weight,
        reads: Tensor,
        *,
        out: Sequence[int],
        into: Sequence[int],
        shared: Sequence[int] = (),
        kind: str = "linear",
        groups: int = 1,
        positions: int | None = None,
        **geometry: Any,
    ) -> Tensor:
        """Emit the layer of a weight and give the ids of its outputs, shaped as the view's `shared` + `out` axes.

        reads: the units behind the view's `shared` + `into` axes, flattened. The rest of the view's axes are the
        kernel's. A slice of a parameter makes the whole layer, with its `rows` and `columns` noted and no unit (-1)
        read at the columns outside; slices that do the same to the same units are one layer. The axes of a parameter
        that picks one of several matrices (experts) become groups.
        """
        if weight.kept is not None:
            return self._patterned(weight, reads, out, into, shared, kind, groups, positions, geometry)
        return self._laid(weight, reads, out, into, shared, kind, groups, positions, geometry, None)

    def _patterned(
        self,
        weight: Weight,
        reads: Tensor,
        out: Any,
        into: Any,
        shared: Any,
        kind: str,
        groups: int,
        positions: Any,
        geometry: Any,
    ) -> Tensor:
        """A layer of a weight with known zeros: outputs and inputs that have no weight at all are left out."""
        assert weight.kept is not None
        sides = [weight.shape[d] for d in out], [weight.shape[d] for d in into]
        if shared or groups > 1:
            raise NoRule(f"part of the matrices of parameter '{weight.name}'")
        rest = [d for d in range(len(weight.shape)) if d not in (*out, *into)]
        kept = weight.kept.permute(*out, *into, *rest).reshape(math.prod(sides[0]), math.prod(sides[1]), -1).numpy()
        rows, columns = np.flatnonzero(kept.any((1, 2))), np.flatnonzero(kept.any((0, 2)))
        ids = torch.full((len(kept),), NOTHING, dtype=torch.int32)
        if not len(rows):
            return ids.view(sides[0])
        inner = kept[rows][:, columns]
        coords = tuple(
            c.permute(*out, *into, *rest).reshape(len(kept), kept.shape[1], *(weight.shape[d] for d in rest))[rows][
                :, columns
            ]
            for c in weight.coords
        )
        whole = Weight(weight.name, weight.size, tuple(squash(c) for c in coords))
        pattern = None if inner.all() else inner
        made = self._laid(whole, reads.reshape(-1)[columns], [0], [1], [], kind, 1, positions, geometry, pattern)
        ids[torch.from_numpy(rows)] = made
        return ids.view(sides[0])

    def _laid(
        self,
        weight: Weight,
        reads: Tensor,
        out: Sequence[int],
        into: Sequence[int],
        shared: Sequence[int],
        kind: str,
        groups: int,
        positions: int | None,
        geometry: Any,
        kept: np.ndarray | None,
    ) -> Tensor:
        rest = [d for d in range(len(weight.shape)) if d not in (*out, *into, *shared)]
        role: dict[int, str] = {}
        for axis, length in enumerate(weight.size):
            moves = [
                name
                for name, dims in (("out", out), ("in", into), ("kernel", rest), ("group", shared))
                if weight.over(dims, axis)
            ]
            if len(moves) > 1:
                raise NoRule(f"a view of parameter '{weight.name}' that mixes its axes")
            if moves:
                role[axis] = moves[0]
            elif length > 1 and kind == "conv" and axis >= 2:
                role[axis] = "kernel"
        for axis in [axis for axis, name in role.items() if name == "kernel" and rest]:
            if kept is None and len(_distinct(self._flat(weight, [axis], rest))) < weight.size[axis]:
                if groups > 1 or shared:
                    raise NoRule(f"part of the kernels of parameter '{weight.name}'")
                sides = [math.prod(weight.shape[d] for d in dims) for dims in (out, into, rest)]
                kept = np.ones(sides, np.bool_)
        for wanted in ("out", "in"):
            free = [axis for axis in range(len(weight.size)) if axis not in role]
            if wanted not in role.values() and free:
                role[free[0]] = wanted
        for axis, length in enumerate(weight.size):
            role.setdefault(axis, "group" if length > 1 else "kernel")
        axes = {
            name: [a for a in range(len(weight.size)) if role[a] == name] for name in ("out", "in", "kernel", "group")
        }
        if (into and not axes["in"]) or not (axes["out"] or axes["group"]) or not (axes["in"] or axes["group"]):
            raise NoRule(f"parameter '{weight.name}' of shape {weight.size}, which is not a matrix")

        n_out, n_in, n_group = (int(np.prod([weight.size[a] for a in axes[name]])) for name in ("out", "in", "group"))
        at = [
            self._flat(weight, axes["group"], list(shared)),
            *(self._flat(weight, axes[n], d) for n, d in (("out", out), ("in", into))),
        ]
        group, row, column = at
        if groups > 1:
            if n_group > 1 or not np.array_equal(row, np.arange(n_out)) or not np.array_equal(column, np.arange(n_in)):
                raise NoRule(f"a grouped convolution with part of parameter '{weight.name}'")
            full = self.seen(reads, learned=False).numpy()
        else:
            if len(_distinct(column)) < len(column):
                if kept is not None:
                    raise NoRule(f"a view of parameter '{weight.name}' that holds an input of it several times")
                return self._repeated(weight, reads, out, into, shared, kind, positions, geometry, column)
            if len(_distinct(group)) < len(group):
                raise NoRule(f"a view of parameter '{weight.name}' that holds a matrix of it several times")
            full = np.full((n_group, n_in), NOTHING, np.int32)
            full[group[:, None], column[None, :]] = self.seen(reads, learned=False).reshape(len(group), -1).numpy()
            full = full.reshape(-1)
        if (full == CONSTANT).any() and (full < 0).all():
            full[full == CONSTANT] = self.source(int((full == CONSTANT).sum()))
            self.note(f"layer '{weight.name}' reads a learned or fixed constant: its inputs count as input units")
        flipped = bool(axes["out"] and axes["in"]) and min(axes["out"]) > min(axes["in"])
        per_group = groups if flipped else 1
        shape = (n_out * n_group * per_group, n_in // per_group, *(weight.size[a] for a in axes["kernel"]))
        order = (*axes["group"], *axes["out"], *axes["in"], *axes["kernel"])
        rows = group[:, None] * n_out + row[None, :]
        start = self._emit(
            weight.name,
            shape,
            full,
            kind=kind,
            groups=max(groups, n_group),
            positions=positions,
            transposed=flipped,
            rows=_part(rows, shape[0]) if groups == 1 else None,
            columns=_part(column, shape[1]) if groups == 1 else None,
            pattern=None if kept is None else self._pattern(weight, axes, shape, kept, row, column, rest),
            own=weight.size,
            axes=order,
            **geometry,
        )
        if (full == NOTHING).all():
            return filled((shape[0],) if groups > 1 else [weight.shape[d] for d in (*shared, *out)], NOTHING)
        if groups > 1:
            return torch.arange(start, start + shape[0], dtype=torch.int32)
        return torch.from_numpy((start + rows).astype(np.int32)).view([weight.shape[d] for d in (*shared, *out)])

    def _repeated(
        self,
        weight: Weight,
        reads: Tensor,
        out: Any,
        into: Any,
        shared: Any,
        kind: str,
        positions: Any,
        geometry: Any,
        column: np.ndarray,
    ) -> Tensor:
        """A view that holds an input of the parameter several times (expanded along its inputs): it reads their sum."""
        if len(into) != 1:
            raise NoRule(f"a view of parameter '{weight.name}' that holds an input of it several times")
        _, first, which = np.unique(column, return_index=True, return_inverse=True)
        places = reads.reshape(-1, len(column))
        sums = [self.merge(places[:, torch.from_numpy(np.flatnonzero(which == k))]) for k in range(len(first))]
        once = torch.from_numpy(first)
        taken = Weight(weight.name, weight.size, tuple(c.index_select(into[0], once) for c in weight.coords))
        merged = torch.stack(sums, 1).reshape(-1)
        return self._laid(taken, merged, out, into, shared, kind, 1, positions, geometry, None)

    def _pattern(
        self, weight: Weight, axes: Any, shape: tuple[int, ...], kept: np.ndarray, row: Any, column: Any, rest: Any
    ) -> BitRows:
        """Which weights of the whole layer take part: kept (out, in, kernel) at the rows and columns of the view."""
        tap = self._flat(weight, axes["kernel"], rest) if rest else np.zeros(1, np.int64)
        pattern = np.zeros((shape[0], shape[1], math.prod(shape[2:])), np.bool_)
        places = np.broadcast_arrays(row[:, None, None], column[None, :, None], tap[None, None, :])
        if len(_distinct(row)) < len(row) or shape[0] != len(pattern):
            raise NoRule(f"a view of parameter '{weight.name}' that holds an output of it several times")
        np.logical_or.at(pattern, tuple(places), kept)
        return BitRows.of_mask(pattern.reshape(shape))

    def share(self, since: int, parts: int) -> None:
        """Layers emitted as step `since` and later are `parts` matrices, each of which sees its part of the rows."""
        for index, step in enumerate(self.steps[since:], since):
            if isinstance(step, Layer) and step.positions:
                self.steps[index] = replace(step, positions=-(-step.positions // parts))
                self.note(f"the rows of '{step.name}' are taken to go to its {parts} matrices in equal parts")

    @staticmethod
    def _flat(weight: Weight, axes: Sequence[int], dims: Sequence[int]) -> np.ndarray:
        """For each index along the view's `dims`, flattened, its flat index along the parameter's `axes`."""
        flat = np.zeros(int(np.prod([weight.shape[d] for d in dims])), np.int64)
        for axis in axes:
            at = weight.coords[axis]
            for d in reversed(range(at.dim())):
                if d not in dims:
                    at = at.select(d, 0)
            kept = sorted(dims)
            at = at.permute([kept.index(d) for d in dims])
            flat = flat * weight.size[axis] + at.reshape(-1).numpy()
        return flat

    def embedding(self, weight: Weight, positions: int | None) -> np.ndarray:
        """Emit an embedding and give its units; its vocabulary are new input units.

        A parameter that is also a layer's (an output head tied to the embedding) has the layer's mask, which is the
        other way round.
        """
        vocabulary, width = weight.size
        start = self._emit(
            weight.name,
            (width, vocabulary),
            self.source(vocabulary),
            kind="embedding",
            positions=positions,
            transposed=True,
            own=weight.size,
            axes=(1, 0),
        )
        return np.arange(start, start + width, dtype=np.int32)

    def entries(self, weight: Weight) -> Tensor:
        """The ids of a view of a parameter whose entries are units of their own, each read off a constant."""
        if len(weight.size) < 2:
            ids = filled(weight.shape, LEARNED)
            return ids if weight.kept is None else torch.where(weight.kept, ids, NOTHING).to(torch.int32)
        n = math.prod(weight.size)
        if n > MOST_ENTRIES:
            raise NoRule(f"a weight that is made of the {n:,} entries of '{weight.name}', which are too many")
        if weight.name not in self.entry_layers:
            axes = tuple(range(len(weight.size)))
            fed = np.full(1, CONSTANT, np.int32)
            start = self._emit(weight.name, (n, 1), fed, own=weight.size, axes=axes)
            self.entry_layers[weight.name] = start
        ids = torch.zeros((1,) * len(weight.shape), dtype=torch.int32)
        for axis, length in enumerate(weight.size):
            ids = ids * length + weight.coords[axis]
        ids = ids + self.entry_layers[weight.name]
        return squash((ids if weight.kept is None else torch.where(weight.kept, ids, NOTHING)).to(torch.int32))

    def _emit(self, name: str, shape: tuple[int, ...], reads: np.ndarray, **about: Any) -> int:
        layer = Layer(name, shape, reads, self.count, **about)
        for index in self._sliced.get(name, ()) if layer.pattern is None else ():
            before = self.steps[index]
            if isinstance(before, Layer) and _continues(before, layer):
                assert before.rows is not None and layer.rows is not None
                self.steps[index] = replace(before, rows=_part(np.append(before.rows, layer.rows), shape[0]))
                return before.start
        if layer.rows is not None:
            self._sliced.setdefault(name, []).append(len(self.steps))
        self.steps.append(layer)
        return self._reserve(shape[0])


def _union(beside: Tensor) -> Tensor:
    """(n, m) marks -> (n,): those of each row."""
    found = torch.where((beside & BESIDE != 0).any(1), BESIDE, 0) | torch.where(
        (beside & BESIDE_LEARNED != 0).any(1), BESIDE_LEARNED, 0
    )
    return found.to(torch.int32)


def with_one_mask(steps: list[Step]) -> list[Step]:
    """Each parameter's mask settled: output-first if that does for all its uses, else of the parameter's own shape.

    A matrix or kernel whose uses are all output-first, or all input-first, has the layer's shape. One that is used both
    ways (W and W.T) and one of more dimensions than a layer knows (experts, heads) has the parameter's.
    """
    plain: dict[str, bool] = {}
    turned: dict[str, set[bool]] = {}
    for step in steps:
        if isinstance(step, Layer) and step.own is not None and step.axes is not None:
            size = step.own
            straight = step.axes == tuple(range(len(size))) and size == step.shape
            swapped = step.axes == (1, 0, *range(2, len(size))) and step.shape == (size[1], size[0], *size[2:])
            swapped = swapped and step.transposed  # not where axis 1 picks one of several matrices
            grouped = step.groups > 1 and step.kind == "conv"
            plain[step.name] = plain.get(step.name, True) and (straight or swapped or grouped)
            turned.setdefault(step.name, set()).add(step.transposed)
    settled: list[Step] = []
    for step in steps:
        if isinstance(step, Layer) and step.own is not None and step.axes is not None:
            if plain[step.name] and len(turned[step.name]) == 1:
                step = replace(step, own=None, axes=None)
            elif step.own is not None and step.axes == tuple(range(len(step.own))) and step.own == step.shape:
                step = replace(step, own=None, axes=None, transposed=False)
            else:
                step = replace(step, transposed=False)
        settled.append(step)
    return settled


def _part(places: np.ndarray, length: int) -> np.ndarray | None:
    """The distinct places, ascending; None if these are all."""
    distinct = _distinct(places)
    return distinct if len(distinct) < length else None


def _distinct(places: np.ndarray) -> np.ndarray:
    """np.unique; most views hold ascending places, for which looking is far cheaper."""
    flat = places.reshape(-1)
    return flat if (flat[1:] > flat[:-1]).all() else np.unique(flat)


def _continues(before: Layer, layer: Layer) -> bool:
    """Whether two uses of slices of a parameter differ in their rows alone, and share none."""
    return (
        before.name == layer.name
        and before.rows is not None
        and before.pattern is None
        and layer.rows is not None
        and not np.isin(before.rows, layer.rows).any()
        and all(
            np.array_equal(getattr(before, key.name), getattr(layer, key.name))
            for key in fields(Layer)
            if key.name not in ("rows", "start", "pattern")
        )
    )
