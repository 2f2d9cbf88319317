"""Rules of operations that move, pool, select or write places of a tensor; `rules` says what a rule is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topo.trace.nodes import POOLS, REDUCTIONS, feature_axis, operation, outcome, statistic
from topo.trace.rules import aten, contract, has_axis, is_matrix, looked_up, plain, pointwise
from topo.trace.units import LEARNED, NoRule, Units, Weight, carried, filled, squash, tracked
from topo.trace.weights import Made
from topo.wiring import CONSTANT, NOTHING

_MOST_FACTORS = 256
_MOST_WRITTEN = 1 << 22
_SIGN = (
    "a norm over one entry leaves no more than its sign, and lets no gradient pass: paths through it are counted as if "
    "it did"
)
_EXTREMA = frozenset("amax amin max min median nanmedian".split())


@aten(*POOLS)
def pool(units: Units, inputs: list[Any], shape: Any) -> Any:
    """Pools, resampling and border padding: every place of a map carries its channel's unit."""
    sides = shape if isinstance(shape, list) else [shape]
    x, name = inputs[0], operation(units.node)
    space = next(n for n in (1, 2, 3) if f"{n}d" in name)
    dims = list(range(x.dim() - space, x.dim()))
    known = statistic(units.node, units.roots) if any(side > 1 for side in carried(x).shape[-space:]) else None
    if known:
        made = filled(sides[0], CONSTANT if known == "scale" else NOTHING)
    else:
        made = units.reduce(x, dims, keepdim=True).expand(sides[0])
    return [made, *(filled(other) for other in sides[1:])] if isinstance(shape, list) else made


@aten(*REDUCTIONS)
def reduction(units: Units, inputs: list[Any], shape: Any) -> Any:
    """A mean, sum or extremum: the units along it are one and the same (a pool over space), or added; or it is a
    statistic
    that only rescales what it was taken from, which is not a path."""
    x = inputs[0]
    if len(inputs) == 2 and isinstance(inputs[1], Tensor):
        return pointwise(units, inputs, shape)
    sides = shape if isinstance(shape, list) else [shape]
    dims = _reduced_dims(units, inputs, x.dim())
    weighted = _weighted_sum(units, dims, sides[0]) if operation(units.node) in ("aten.sum", "aten.mean") else None
    known = statistic(units.node, units.roots) if any(carried(x).shape[d] > 1 for d in dims) else None
    if math.prod(x.shape[d] for d in dims) == 1:
        name = operation(units.node).removeprefix("aten.")
        if name in ("var", "std"):
            return filled(sides[0], NOTHING)
        if name in ("var_mean", "std_mean"):
            return [filled(sides[0], NOTHING), units.reduce(x, dims, keepdim=len(sides[0]) == x.dim()).expand(sides[1])]
        if name in ("norm", "linalg_vector_norm") and statistic(units.node, units.roots) == "scale":
            units.note(_SIGN)
    if weighted is not None:
        made = weighted
    elif known:
        made = filled(sides[0], CONSTANT if known == "scale" else NOTHING)
    else:
        name = operation(units.node).removeprefix("aten.")
        if name in _EXTREMA and any(carried(x).shape[d] > 1 for d in dims):
            units.note(f"'{name}' over units is taken for their sum")
        made = units.reduce(x, dims, keepdim=len(sides[0]) == x.dim())
        # The logarithm of how many there are, at least.
        if name == "logsumexp" and math.prod(x.shape[d] for d in dims) > 1:
            made = units.add(made, filled((1,) * made.dim()))
    made = made.expand(sides[0])
    if operation(units.node) in ("aten.var_mean", "aten.std_mean"):
        return [made, made]
    return [made, *(filled(other) for other in sides[1:])] if isinstance(shape, list) else made


def _weighted_sum(units: Units, dims: list[int], shape: Any) -> Tensor | None:
    """(x * W).sum(dims) is a layer: a locally connected one, the scores of graph attention."""
    node = units.node.args[0]
    if operation(node) not in ("aten.mul", "aten.multiply") or len(node.args) < 2:
        return None
    sides: list[Any] = [units.env.get(arg) if isinstance(arg, Node) else arg for arg in node.args[:2]]
    x, weight = reversed(sides) if isinstance(sides[0], Made) else sides
    if not isinstance(weight, Weight) or not tracked(x) or len([n for n in weight.size if n > 1]) < 2:
        return None
    whole = torch.broadcast_shapes(tuple(x.shape), weight.shape)
    if not any(weight.shape[d - len(whole)] > 1 for d in dims if len(whole) - d <= len(weight.shape)):
        return None
    of_x, of_w = ([d for d in range(len(whole)) if has_axis(side.shape, d, whole)] for side in (x, weight))
    x = x.reshape([whole[d] for d in of_x]) if len(of_x) < x.dim() else x
    coords = tuple(c.reshape([whole[d] for d in of_w]) if len(of_w) < c.dim() else c for c in weight.coords)
    taken = [d for d in range(len(whole)) if d not in dims]
    made = contract(units, x, replace(weight, coords=coords), (of_x, of_w, taken), tuple(whole[d] for d in taken))
    return made.reshape(shape) if tuple(made.shape) != tuple(shape) else made


@aten("prod")
def prod(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """A product of many is a gate of all."""
    x = inputs[0]
    dims = _reduced_dims(units, inputs, x.dim())
    return _multiplied(units, x, dims)[-1].reshape(shape) if dims else x.expand(shape)


def _multiplied(units: Units, x: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """The products of the first 1, 2, ... entries along `dims`."""
    others = [d for d in range(x.dim()) if d not in dims]
    rows = x.permute(*others, *dims).reshape(*(x.shape[d] for d in others), -1)
    if rows.shape[-1] > _MOST_FACTORS and carried(rows).shape[-1] > 1:
        raise NoRule(f"a product of {rows.shape[-1]} factors")
    found = [rows[..., 0]]
    for at in range(1, rows.shape[-1]):
        found.append(units.gate(found[-1], rows[..., at]))
    return found


@aten("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def running(units: Units, inputs: list[Any], shape: Any) -> Any:
    """Running sums, products and extrema: entry k is made of the first k entries, a lower triangle."""
    x = inputs[0]
    if isinstance(shape, list):
        name = operation(units.node).removeprefix("aten.")
        if x.dim() and carried(x).shape[inputs[1]] > 1:
            units.note(f"'{name}' over units is taken for their running sum")
        return [running(units, inputs, shape[0]), filled(shape[1])]
    dim = inputs[1] % x.dim() if x.dim() else 0
    if operation(units.node) == "aten.logcumsumexp" and x.dim():  # the logarithm of how many there were, at least
        offset = filled(shape, CONSTANT).clone()
        offset.narrow(dim, 0, 1).fill_(NOTHING)
        return units.add(_running(units, x, dim, shape), offset)
    return _running(units, x, dim, shape)


def _running(units: Units, x: Tensor, dim: int, shape: Any) -> Tensor:
    if not x.dim() or carried(x).shape[dim] == 1:
        return x.expand(shape)
    if operation(units.node) == "aten.cumprod":
        return torch.stack(_multiplied(units, x, [dim]), dim).expand(shape)
    kept = torch.ones(x.shape[dim], x.shape[dim], dtype=torch.bool).tril()
    rows = torch.where(kept, x.movedim(dim, -1).unsqueeze(-2), NOTHING)
    return units.reduce(squash(rows), [-1]).movedim(-1, dim).expand(shape)


def _reduced_dims(units: Units, inputs: list[Any], dims: int) -> list[int]:
    names = [argument.name for argument in units.node.target._schema.arguments]
    dim = inputs[names.index("dim")] if "dim" in names else None
    if dim is None or dim == []:
        return list(range(dims))
    return [d % dims for d in (dim if isinstance(dim, (list, tuple)) else [dim])] if dims else []


def _channel_like(units: Units, ids: Tensor, dim: int) -> bool:
    """Whether entries along `dim` are channels or features, and not places.

    Their units differ; or it is axis 1 of a map of one channel; or, where all units are one, the last axis where there
    are no places, or the one that the layer which reads it next takes for features.
    """
    small = carried(ids)
    if small.shape[dim] > 1 or (ids.shape[dim] == 1 and dim == 1 and ids.dim() >= 4):
        return True
    if small.numel() > 1:
        return False
    return dim - ids.dim() == (-1 if ids.dim() < 3 else feature_axis(units.node, units.roots))


@aten("cat", "concat", "concatenate")
def cat(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Literal; but constants along an axis of places (a class token, border zeros) take the channel's unit."""
    dim = inputs[1] % len(shape)
    parts = [plain(part) for part in inputs[0]]
    parts = [part for part in parts if part.dim() == len(shape)]
    live = [part for part in parts if tracked(part)]
    if live and not any(_channel_like(units, part, dim) for part in live):
        slabs = [part.narrow(dim, 0, 1) for part in live]
        if all(torch.equal(slab, slabs[0]) for slab in slabs[1:]) and len(live) == len(parts):
            return slabs[0].expand(shape)
        if len(live) < len(parts):
            fill = units.reduce(torch.cat(slabs, dim), [dim], keepdim=True)
            if all(torch.equal(slab, fill) for slab in slabs):
                fixed = [units.reduce(part, [dim], keepdim=True) for part in parts if not tracked(part)]
                return units.reduce(torch.cat([fill, *fixed], dim), [dim], keepdim=True).expand(shape)
            parts = [
                part if tracked(part) else units.add(units.reduce(part, [dim], keepdim=True), fill).expand(part.shape)
                for part in parts
            ]
    return squash(torch.cat(parts, dim))


@aten("stack")
def stack(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    return squash(torch.stack([plain(part) for part in inputs[0]], inputs[1]))


@aten("pad", "constant_pad_nd")
def pad(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """What stands beside places takes the channel's unit (a border makes no new channel); channels of zeros carry none,
    those of another value are constants."""
    x, sides = plain(inputs[0]), list(inputs[1])
    name = "value" if operation(units.node) == "aten.constant_pad_nd" else "mode"
    names = [argument.name for argument in units.node.target._schema.arguments]
    literal = name == "value" or inputs[names.index("mode")] == "constant"
    kind = CONSTANT if literal and inputs[names.index("value")] else NOTHING
    for dim in range(x.dim()):
        at = 2 * (x.dim() - 1 - dim)
        if at >= len(sides) or not any(sides[at : at + 2]):
            continue
        if _channel_like(units, x, dim) and literal:
            x = torch.nn.functional.pad(x, [*[0] * at, *sides[at : at + 2]], value=kind)
        elif _channel_like(units, x, dim):
            x = units.reduce(x, [dim], keepdim=True).expand([*x.shape[:dim], shape[dim], *x.shape[dim + 1 :]])
        else:
            x = x.narrow(dim, 0, 1).expand([*x.shape[:dim], shape[dim], *x.shape[dim + 1 :]])
            if kind == CONSTANT and tracked(x):
                units.note("'pad' puts a constant beside places: what is padded is taken to be never zero")
            x = units.add(x, filled((1,) * x.dim(), kind))
    return squash(x)


@aten("tril", "triu")
def triangle(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Zeros in one triangle; where the units are the same at all places of it (causal scores), all stay."""
    x = plain(inputs[0])
    if all(side == 1 for side in carried(x).shape[-2:]):
        return x.expand(shape)
    kept = torch.ones(shape[-2:], dtype=torch.bool)
    kept = kept.tril(inputs[1]) if operation(units.node) == "aten.tril" else kept.triu(inputs[1])
    return squash(torch.where(kept, x, NOTHING))


@aten("im2col")
def im2col(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """F.unfold: each channel becomes one feature per kernel position."""
    per_channel = units.reduce(inputs[0], [-2, -1])
    return per_channel.repeat_interleave(shape[-2] // per_channel.shape[-1], -1).unsqueeze(-1).expand(shape)


@aten("col2im")
def col2im(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    columns = inputs[0].unflatten(-2, (shape[-3], -1))
    return units.reduce(columns, [-2, -1]).unsqueeze(-1).unsqueeze(-1).expand(shape)


@aten("view_as_complex")
def view_as_complex(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    units.note("the real and the imaginary part of complex numbers are taken for one unit")
    return units.reduce(inputs[0], [-1]).expand(shape)


@aten("view_as_real", "view_as_real_copy")
def view_as_real(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    return inputs[0].unsqueeze(-1).expand(shape)


@aten("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Each channel at places that a grid says: any of its places, gated by the grid, of which 0 is the middle."""
    x, grid = plain(inputs[0]), plain(inputs[1])
    by = units.reduce(grid, [-1]).unsqueeze(1)
    if inputs[2] == 1 and tracked(by):  # the nearest place
        units.note(
            "'grid_sampler' takes the nearest place, by which no gradient passes: its grid is counted all the same"
        )
    value = units.reduce(x, range(2, x.dim()), keepdim=True)
    return units.gate(value.expand(shape), units.add(by, filled((1,) * by.dim())).expand(shape))


# -- indexing


@aten("index", "_unsafe_index")
def index(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """Literal where the indices are known while tracing; else any entry may be meant, so that they are added."""
    x, given = inputs[0], units.node.args[1]
    if isinstance(x, Made):
        return _row_of_table(units, x, all(at is None for at in given[1:]) and given[0] is not None, shape)
    known = [units.known.get(at) if at is not None else None for at in given]
    if all(at is None or value is not None for at, value in zip(given, known)):
        return squash(x[tuple(slice(None) if value is None else value for value in known)])
    dims: list[int] = []
    at = 0
    if x.dim() and any(side > 1 for side in carried(x).shape):
        units.note("'index' picks entries by what the data hold: each output is taken to depend on all of them")
    integers = all(at is None or outcome(at).dtype is not torch.bool for at in given)
    if integers and any(value is not None for value in known):
        unknown = [d for d, (at, value) in enumerate(zip(given, known)) if at is not None and value is None]
        zero = torch.zeros((), dtype=torch.long)
        places = [slice(None) if at is None else zero if value is None else value for at, value in zip(given, known)]
        return squash(units.reduce(x, unknown, keepdim=True)[tuple(places)].expand(shape))
    for node in given:
        width = outcome(node).dim() if node is not None and outcome(node).dtype is torch.bool else 1
        dims.extend(range(at, at + width) if node is not None else ())
        at += width
    return _anywhere(units, x, dims, shape)


def _row_of_table(units: Units, table: Any, of_rows: bool, shape: Any) -> Tensor:
    """Rows of a parameter by numbers that are data: an embedding."""
    if isinstance(table, Weight) and not is_matrix(table):
        return filled(shape, LEARNED)
    if not of_rows:
        raise NoRule("entries of a parameter by numbers that are data, other than its rows")
    return looked_up(units, table, shape)


def _anywhere(units: Units, x: Tensor, dims: Sequence[int], shape: Sequence[int]) -> Tensor:
    """x with its axes `dims`, of which unknown entries are picked, replaced by the output's new axes."""
    small = units.reduce(x, dims)
    first = min(dims) if list(dims) == list(range(min(dims), max(dims) + 1)) else 0
    new = len(shape) - small.dim()
    return small[(*[slice(None)] * first, *[None] * new)].expand(shape)


@aten("index_select")
def index_select(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, dim = inputs[0], inputs[1] % len(shape)
    if isinstance(x, Made):
        return _row_of_table(units, x, dim == 0, shape)
    known = units.known.get(units.node.args[2])
    return (
        squash(x.index_select(dim, known)) if known is not None else units.reduce(x, [dim], keepdim=True).expand(shape)
    )


@aten("gather", "take_along_dim", "topk", "sort", "kthvalue")
def gather(units: Units, inputs: list[Any], shape: Any) -> Any:
    x = inputs[0]
    name = operation(units.node).removeprefix("aten.")
    at = (
        units.known.get(units.node.args[2 if name == "gather" else 1]) if name in ("gather", "take_along_dim") else None
    )
    if at is not None and name == "gather":
        return squash(plain(x).gather(inputs[1], at))
    if at is not None:
        return squash(torch.take_along_dim(plain(x), at, *([] if inputs[2] is None else [inputs[2]])))
    dim = inputs[[argument.name for argument in units.node.target._schema.arguments].index("dim")]
    small = units.reduce(x, [dim if dim is not None else -1], keepdim=True)
    if x.dim() and carried(x).shape[dim if dim is not None else -1] > 1:
        name = operation(units.node).removeprefix("aten.")
        units.note(f"'{name}' picks entries by what they hold: each output is taken to depend on all of them")
    first = shape[0] if isinstance(shape, list) else shape
    if small.dim() != len(first):
        raise NoRule("a gather over all entries")
    for d in range(len(first)):
        small = small.narrow(d, 0, min(small.shape[d], first[d]))
    return (
        [small.expand(first), *(filled(other) for other in shape[1:])]
        if isinstance(shape, list)
        else small.expand(first)
    )


@aten("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_reduce", "index_fill")
def scatter(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """What is written to known places lies there; else it may lie anywhere along its axis, and is added there."""
    name = operation(units.node).removeprefix("aten.")
    x, dim = plain(inputs[0]), inputs[1]
    source = plain(inputs[3], x.shape if not isinstance(inputs[3], Tensor | Made) else None)
    if source.dim() != x.dim():
        source = source.expand(x.shape) if not source.dim() else source
    if source.dim() != x.dim():
        return x
    at, dim = units.known.get(units.node.args[2]), dim % x.dim()
    alike = carried(x).shape[dim] == 1 == carried(source).shape[dim] and tracked(source)
    places = alike and not (name.startswith("index") and _channel_like(units, x, dim))
    if at is not None and not places and x.numel() < _MOST_WRITTEN:
        if name.startswith("index"):
            at = at.reshape([-1 if d == dim else 1 for d in range(x.dim())])
            at = at.expand([at.shape[dim] if d == dim else n for d, n in enumerate(x.shape)])
        source = source[tuple(slice(0, n) for n in at.shape)].expand(at.shape)
        flat = torch.arange(x.numel()).view(x.shape).gather(dim, at)
        how = [text for text in (*inputs[4:], units.node.kwargs.get("reduce")) if isinstance(text, str)]
        adds = "add" in name or bool(how)
        if any(text in ("prod", "multiply", "amax", "amin") for text in how):
            units.note(f"'{name}' by '{how[0]}' is taken for sums")
        x = _without(x, flat) if units.node.kwargs.get("include_self") is False or False in inputs[5:] else x
        return _written(units, x, source, flat, adds)
    if not places:
        units.note(f"'{name}' writes to places that are not known: each output may hold all that is written")
    written = units.reduce(source, [dim], keepdim=True)
    if any(a != b for d, (a, b) in enumerate(zip(written.shape, x.shape)) if d != dim and a != 1):
        raise NoRule("a scatter into part of a tensor")
    return units.add(x, written.expand(x.shape))


def _without(x: Tensor, flat: Tensor) -> Tensor:
    """x with nothing at these places."""
    held = x.reshape(-1).clone()
    held[flat.reshape(-1)] = NOTHING
    return held.view(x.shape)


def _written(units: Units, x: Tensor, source: Tensor, flat: Tensor, adds: bool) -> Tensor:
    """x with `source` written to, or added at, the places `flat` (numbers of elements of x)."""
    held, places, values = x.reshape(-1).clone(), flat.reshape(-1), source.reshape(-1)
    if not adds:
        held[places] = values
        return squash(held.view(x.shape))
    order = torch.argsort(places, stable=True)
    places, values = places[order], values[order]
    touched, counts = torch.unique_consecutive(places, return_counts=True)
    rank = torch.arange(len(places)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    rows = torch.full((len(touched), int(counts.max()) + 1), NOTHING, dtype=torch.int32)
    rows[:, 0] = held[touched]
    rows[torch.arange(len(touched)).repeat_interleave(counts), rank + 1] = values
    held[touched] = units.merge(rows)
    return squash(held.view(x.shape))


@aten("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, values, given = plain(inputs[0]), plain(inputs[2]), units.node.args[1]
    known = [units.known.get(at) if at is not None else None for at in given]
    if all(at is None or value is not None for at, value in zip(given, known)):
        places = tuple(slice(None) if value is None else value for value in known)
        flat = torch.arange(x.numel()).view(x.shape)[places]
        return _written(units, x, values.expand(flat.shape), flat, len(inputs) > 3 and bool(inputs[3]))
    taken = sum(1 for at in given if at is not None)
    if any(at is None for at in given[:taken]):
        raise NoRule("writing to unknown places of inner axes")
    rest = len(shape) - taken
    inner = units.reduce(values, list(range(values.dim() - rest))) if values.dim() > rest else values
    units.note("'index_put' writes to places that are not known: each output may hold all that is written")
    return units.add(x, inner.expand(shape))


@aten("diagonal_scatter", "slice_scatter", "select_scatter", "as_strided_scatter")
def view_scatter(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """What is written to the places that the view of this name sees."""
    x = plain(inputs[0])
    view = getattr(torch.ops.aten, operation(units.node).removeprefix("aten.").removesuffix("_scatter"))
    flat = view(torch.arange(x.numel()).view(x.shape), *inputs[2:])
    return _written(units, x, plain(inputs[1]).expand(flat.shape), flat, False)


@aten("put")
def put(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    x, at = plain(inputs[0]), units.known.get(units.node.args[1])
    if at is None:
        raise NoRule("it writes to places that are not known")
    return _written(units, x, plain(inputs[2]).expand(at.shape), at % x.numel(), bool(inputs[3]))


@aten("diag", "diagflat")
def diag(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    """The diagonal of a matrix, or a matrix that has these on its diagonal."""
    x, by = plain(inputs[0]), inputs[1]
    x = x.reshape(-1) if operation(units.node) == "aten.diagflat" else x
    if x.dim() == 2:
        return squash(x.diagonal(by))
    made = torch.full(shape, NOTHING, dtype=torch.int32)
    made.diagonal(by).copy_(x)
    return squash(made)


@aten("masked_scatter")
def masked_scatter(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    known, x, source = units.known.get(units.node.args[1]), plain(inputs[0]), plain(inputs[2])
    if known is not None and x.numel() < _MOST_WRITTEN:
        return squash(x.expand(shape).contiguous().masked_scatter(known.expand(shape), source.contiguous()))
    units.note("'masked_scatter' writes to places that are not known: each output may hold all that is written")
    every = units.reduce(source, list(range(source.dim())))
    return units.add(x.expand(shape), every.expand(shape))


@aten("copy", "set_")
def copy(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    return plain(inputs[1]).expand(shape)


@aten("empty_like", "zeros_like", "zero", "new_zeros", "new_empty", "new_empty_strided")
def zeros(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    return filled(shape, NOTHING)


@aten("ones_like", "rand_like", "randn_like", "bernoulli", "new_ones")
def ones(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    return filled(shape)


@aten("fill", "full_like", "new_full")
def full(units: Units, inputs: list[Any], shape: Any) -> Tensor:
    value = inputs[2] if operation(units.node) == "aten.new_full" else inputs[1]
    return plain(value, shape).expand(shape)
