"""The rules of weighted operations, norms, pools and attention: which slots they tie, and where they vary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from topo.shrinking.flow import Flow, Joined, NotFollowed, along_whole, rule_for
from topo.shrinking.seen import KeptBits, Large, Seen, of, varying
from topo.shrinking.slots import PINNED, Axis
from topo.trace.nodes import POOLS, operation, sizes

PADDED = "it goes through padding, which holds another value than the constant"


def kept_of(weight: Seen) -> Tensor:
    """bool, of the weight's shape: what its mask keeps; of a weight that the code computes, what is not zero."""
    if not weight.fixed:
        raise NotFollowed("its weight depends on the input")
    mask = weight.mask
    return weight.whole() != 0 if mask is None else mask


def joined_by(kept: Tensor) -> Joined:
    """As `KeptBits.joined`, of a mask (out, in)."""
    return lambda outputs: np.asarray(kept.numpy()[outputs].any(0))


# -- linear layers


@rule_for("linear")
def linear(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, weight, bias = inputs[:3]
    joined = weight.kept.joined if isinstance(weight.kept, KeptBits) else None
    laid, (out, into) = weight.whole(), weight.axes
    return _linear(flow, node, x, weight, kept_of(weight), laid, out, into, bias, joined)


@rule_for("addmm")
def addmm(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    bias, x, weight = inputs[:3]
    if inputs[3:5] not in ([1, 1], []) or bias.dim != 1:
        raise NotFollowed("beta, alpha or a matrix that is added")
    kept, laid = kept_of(weight).T, weight.whole().T
    return _linear(flow, node, x, weight, kept, laid, weight.axes[1], weight.axes[0], bias)


def _linear(
    flow: Flow,
    node: Node,
    x: Seen,
    weight: Seen,
    kept: Tensor,
    laid: Tensor,
    out: Axis,
    into: Axis,
    bias: Any,
    joined: Joined | None = None,
) -> Seen:
    flow.tie(x.axes[-1], into, "") if x.shape[-1] > 1 else None
    if isinstance(bias, Seen):
        flow.tie(out, bias.axes[0], "")
    reach = x.varies.expand(*x.varies.shape[:-1], laid.shape[1])
    if x.varies.shape[-1] == 1:
        flags = x.varies & kept.any(1)
    else:
        flags = (reach.to(torch.float32) @ kept.T.to(torch.float32)) > 0
    values = _linear_values(x, laid, flags)
    if isinstance(bias, Seen):
        values = values + bias.whole().to(torch.float64)
    gives = weight.whole if joined and isinstance(weight, Large) else None
    flow.use(node, weight, joined or joined_by(kept), into, out, laid, x.only(-1), None, bias, gives)
    shape = (*x.shape[:-1], laid.shape[0])
    return of(shape, (*x.axes[:-1], out), flags, values)


def _linear_values(x: Seen, laid: Tensor, flags: Tensor) -> Tensor:
    """What comes out where nothing varies; 0 elsewhere."""
    known = x.value.to(torch.float64)
    values = torch.zeros((*x.value.shape[:-1], laid.shape[0]), dtype=torch.float64)
    rows = torch.nonzero(~flags.reshape(-1, laid.shape[0]).all(0)).reshape(-1)
    if len(rows) and bool((known != 0).any()):
        values[..., rows] = known.expand(*known.shape[:-1], laid.shape[1]) @ laid[rows].to(torch.float64).T
    return values


@rule_for("matmul mm bmm")
def matmul(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, y = inputs[:2]
    if y.fixed and y.dim == 2 and not (x.fixed and x.name):
        kept, laid = kept_of(y).T, y.whole().T
        return _linear(flow, node, x, y, kept, laid, y.axes[1], y.axes[0], None)
    if x.dim < 2 or y.dim < 2:
        raise NotFollowed("a product with a vector")
    for seen, axis in ((x, -1), (y, -2)):
        flow.slots.pin(seen.axes[axis], "a product of two activations sums over it")
    shape = sizes(value.shape)
    dims = len(shape)
    batch: list[Axis] = []
    for d in range(dims - 2):
        sides = [(s.axes[d - dims + s.dim], s.shape[d - dims + s.dim]) for s in (x, y) if d - dims + s.dim >= 0]
        batch.append(flow.slots.tie_axes(sides, "it meets a tensor of a size that is written"))
    axes = (*batch, x.axes[-2], y.axes[-1])
    inner = x.shape[-1]

    def wide(values: Tensor, axis: int) -> Tensor:
        side = list(values.shape)
        side[axis] = inner
        return values.expand(side).to(torch.float64)

    left, right = wide(x.varies, -1), wide(y.varies, -2)
    flags = (left @ wide(y.varies | (y.value != 0), -2) + wide(x.varies | (x.value != 0), -1) @ right) > 0
    return of(shape, axes, flags, wide(x.value, -1) @ wide(y.value, -2))


@rule_for("embedding")
def embedding(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    weight = inputs[0]
    flow.slots.pin(weight.axes[0])
    shape = sizes(value.shape)
    flags = kept_of(weight).any(0).reshape([1] * (len(shape) - 1) + [-1])
    axes: list[Axis] = [None] * (len(shape) - 1)
    return varying(shape, [*axes, weight.axes[1]], flags)


# -- convolutions


@rule_for("conv1d conv2d conv3d")
def convolution(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, weight, bias, padding, groups = inputs[0], inputs[1], inputs[2], inputs[4], int(inputs[6])
    sides = padding if isinstance(padding, (list, tuple)) else [padding]
    padded = any(side != 0 and side != "valid" for side in sides) and not (
        padding == "same" and math.prod(weight.shape[2:]) == 1
    )
    return _convolution(flow, node, x, weight, bias, groups, value, PADDED if padded else None, False)


@rule_for("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, weight, bias, groups = inputs[0], inputs[1], inputs[2], int(inputs[6])
    return _convolution(
        flow, node, x, weight, bias, groups, value, "a transposed convolution spreads it unevenly", True
    )


def _convolution(
    flow: Flow, node: Node, x: Seen, weight: Seen, bias: Any, groups: int, value: Any, why: str | None, turned: bool
) -> Seen:
    kept, laid = kept_of(weight).flatten(2), weight.whole().flatten(2)
    kept = kept.any(2) if kept.shape[2] > 1 else kept.squeeze(2)
    for positions in weight.axes[2:]:
        flow.slots.pin(positions)
    into, out = weight.axes[1], weight.axes[0]
    if turned:
        kept, laid = (t.reshape(groups, -1, *t.shape[1:]).transpose(1, 2).flatten(0, 1) for t in (kept, laid))
        into, out = out, into
    axis = x.dim - weight.dim + 1
    channels, made = x.shape[axis], laid.shape[0]
    if groups == 1:
        flow.tie(x.axes[axis], into, "") if channels > 1 else None
    else:
        out = _grouped(flow, x.axes[axis], weight, groups, channels, made, turned)
    if isinstance(bias, Seen) and made > 1:
        flow.tie(out, bias.axes[0], "")
    read = x.only(axis)
    uniform, constants, _ = read
    clean = uniform & (constants == 0) if why else uniform
    opened = torch.from_numpy(~clean).reshape(groups, 1, -1)
    flags = (kept.reshape(groups, made // groups, -1) & opened).any(2).reshape(-1)
    values = torch.zeros(made, dtype=torch.float64)
    if (read_as := np.where(clean, constants, 0.0)).any():
        each = laid.sum(2, dtype=torch.float64).reshape(groups, made // groups, -1)
        values = (each * torch.from_numpy(read_as).reshape(groups, 1, -1)).sum(2).reshape(-1)
    if isinstance(bias, Seen):
        values = values + bias.whole().to(torch.float64)
    if groups == 1:
        flow.use(node, weight, joined_by(kept), into, out, laid, read, why, bias)
    shape = sizes(value.shape)
    side = [-1 if d == axis else 1 for d in range(len(shape))]
    axes: list[Axis] = [x.axes[d] if d < axis else None for d in range(len(shape))]
    axes[axis] = out
    return of(shape, axes, flags.view(side), values.view(side))


def _grouped(flow: Flow, reads: Axis, weight: Seen, groups: int, channels: int, made: int, turned: bool) -> Axis:
    """The slots of what a grouped convolution makes: all that a group reads and makes goes together."""
    flow.slots.pin(weight.axes[1])
    own = weight.axes[0]
    if own is None or reads is None:
        flow.tie(own, reads, "")
        return None if turned else own
    if turned:
        flow.slots.tie(reads, own)
        first = own.reshape(groups, -1)
        flow.slots.together(first)
        return np.repeat(first[:, 0], made // groups)
    flow.slots.together(np.concatenate([reads.reshape(groups, -1), own.reshape(groups, -1)], 1))
    return own


# -- norms


def _shaped(seen: Any, dims: int, axis: int) -> Tensor | None:
    if not isinstance(seen, Seen):
        return None
    return seen.whole().to(torch.float64).reshape([-1 if d == axis else 1 for d in range(dims)])


def _scaled(flow: Flow, x: Seen, parts: list[Any]) -> list[Tensor | None]:
    """Parameters of a norm, one entry a channel, tied to the channels."""
    for part in parts:
        if isinstance(part, Seen):
            flow.tie(x.axes[1], part.axes[0], "") if x.shape[1] > 1 else None
    return [_shaped(part, x.dim, 1) for part in parts]


def _affine(values: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    values = values if scale is None else values * scale
    return values if shift is None else values + shift


@rule_for("batch_norm")
def batch_norm(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, training, eps = inputs[0], bool(inputs[5]), float(inputs[7])
    scale, shift, mean, var = _scaled(flow, x, inputs[1:5])
    return _normalised(x, scale, shift, None if training else mean, None if training else var, eps)


@rule_for("instance_norm")
def instance_norm(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, own, eps = inputs[0], bool(inputs[5]), float(inputs[7])
    scale, shift, mean, var = _scaled(flow, x, inputs[1:5])
    return _normalised(x, scale, shift, None if own else mean, None if own else var, eps)


def _normalised(
    x: Seen, scale: Tensor | None, shift: Tensor | None, mean: Tensor | None, var: Tensor | None, eps: float
) -> Seen:
    """By stored statistics; without them, by those of the channel, which a constant channel leaves at 0."""
    if mean is None or var is None:
        uniform = x.only(1)[0].reshape([-1 if d == 1 else 1 for d in range(x.dim)])
        values = torch.zeros([x.shape[1] if d == 1 else 1 for d in range(x.dim)], dtype=torch.float64)
        return of(x.shape, x.axes, torch.from_numpy(~uniform), _affine(values, scale, shift))
    return of(x.shape, x.axes, x.varies, _affine((x.value - mean) / torch.sqrt(var + eps), scale, shift))


@rule_for("layer_norm rms_norm")
def layer_norm(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, count = inputs[0], len(inputs[1])
    over = list(range(x.dim - count, x.dim))
    for axis in over:
        flow.slots.pin(x.axes[axis], f"{operation(node).removeprefix('aten.')} runs over all units")
    for part in inputs[2:4]:
        if isinstance(part, Seen):
            for at, axis in enumerate(over):
                flow.tie(x.axes[axis], part.axes[at], "")
    flags = x.varies.amax(over, keepdim=True)
    if bool(flags.all()):
        return varying(x.shape, x.axes)
    full = along_whole(x, over)
    more = [part.whole().to(torch.float64) if isinstance(part, Seen) else part for part in inputs[1:]]
    target: Any = node.target
    return of(x.shape, x.axes, flags, target(full, *more[: len(target._schema.arguments) - 1]))


@rule_for("group_norm")
def group_norm(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, groups, eps = inputs[0], int(inputs[1]), float(inputs[4])
    scale, shift = _scaled(flow, x, inputs[2:4])
    slots = x.axes[1]
    if slots is not None:
        flow.slots.together(slots.reshape(groups, -1))
        flow.note_size(node, slots.reshape(groups, -1)[:, 0], groups)
        if groups == 1:
            flow.slots.pin(slots, "group_norm runs over all units")
    uniform, constants, _ = x.only(1)
    flags = torch.from_numpy(~uniform).reshape(groups, -1).any(1).repeat_interleave(x.shape[1] // groups)
    values = F.group_norm(torch.from_numpy(constants)[None, :, None].expand(1, -1, 2), groups, eps=eps)[0, :, 0]
    side = [-1 if d == 1 else 1 for d in range(x.dim)]
    return of(x.shape, x.axes, flags.view(side), _affine(values.view(side), scale, shift))


# -- element-wise with axes of their own


@rule_for("prelu")
def prelu(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, slope = inputs[:2]
    if slope.shape[0] > 1:
        flow.tie(x.axes[1], slope.axes[0], "")
    by = slope.whole().to(torch.float64)
    by = by.reshape([-1 if d == 1 else 1 for d in range(x.dim)]) if x.dim > 1 else by
    return of(x.shape, x.axes, x.varies, torch.where(x.value > 0, x.value.to(torch.float64), x.value * by))


@rule_for("softmax _softmax _safe_softmax log_softmax _log_softmax")
def softmax(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, dim = inputs[0], int(inputs[1])
    flow.slots.pin(x.axes[dim], "softmax runs over all units")
    flags = x.varies.amax(dim, keepdim=True)
    if bool(flags.all()):
        return varying(x.shape, x.axes)
    made = torch.softmax(along_whole(x, [dim % x.dim]), dim)
    return of(x.shape, x.axes, flags, made.log() if "log" in operation(node) else made)


@rule_for("glu")
def glu(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, dim = inputs[0], int(inputs[1]) % inputs[0].dim
    slots, half = x.axes[dim], x.shape[dim] // 2
    axes = list(x.axes)
    if slots is not None:
        flow.slots.tie(slots[:half], slots[half:])
        axes[dim] = slots[:half]
    flags, known = x.whole("varies").chunk(2, dim), x.whole().chunk(2, dim)
    nothing = ~flags[0] & (known[0] == 0)
    return of(sizes(value.shape), axes, (flags[0] | flags[1]) & ~nothing, known[0] * torch.sigmoid(known[1]))


# -- layout of several


@rule_for("cat concat concatenate stack")
def cat(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    parts = [part for part in inputs[0] if part.shape != (0,)]
    flags, known = [p.whole("varies") for p in parts], [p.whole().to(torch.float64) for p in parts]
    shapes, sides = [p.shape for p in parts], [p.axes for p in parts]
    shape, dim = sizes(value.shape), int(inputs[1]) % len(value.shape)
    if operation(node) == "aten.stack":
        flags, known = [f.unsqueeze(dim) for f in flags], [k.unsqueeze(dim) for k in known]
        shapes = [(*s[:dim], 1, *s[dim:]) for s in shapes]
        sides = [(*a[:dim], None, *a[dim:]) for a in sides]
    axes: list[Axis] = []
    for d in range(len(shape)):
        if d != dim:
            lengths = [(a[d], s[d]) for a, s in zip(sides, shapes)]
            axes.append(flow.slots.tie_axes(lengths, "it is joined to a tensor of a size that is written"))
        elif all(a[d] is None for a in sides):
            axes.append(None)
        else:
            pinned = [np.full(s[d], PINNED, np.int64) if a[d] is None else a[d] for a, s in zip(sides, shapes)]
            axes.append(np.concatenate(pinned))  # type: ignore[arg-type]
    return of(shape, axes, torch.cat(flags, dim), torch.cat(known, dim), all(p.fixed for p in parts))


@rule_for("pad constant_pad_nd")
def pad(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    x, sides = inputs[0], [int(n) for n in inputs[1]]
    mode = inputs[2] if operation(node) == "aten.pad" else "constant"
    fill = inputs[3] if operation(node) == "aten.pad" else inputs[2]
    axes = list(x.axes)
    for at in range(len(sides) // 2):
        d, before, after = x.dim - 1 - at, sides[2 * at], sides[2 * at + 1]
        if axes[d] is None or (before, after) == (0, 0):
            continue
        if mode != "constant" or min(before, after) < 0:
            raise NotFollowed("units are padded otherwise than by a constant")
        ends = [flow.slots.new(before), flow.slots.new(after)]
        axes[d] = np.concatenate([ends[0], axes[d], ends[1]])
        for end in ends:
            flow.note_size(node, end, len(end))
    if mode != "constant":
        flags, known = (F.pad(t.to(torch.float64), sides, mode) for t in (x.whole("varies"), x.whole()))
        return of(sizes(value.shape), axes, flags > 0, known)
    flags = F.pad(x.whole("varies"), sides, value=False)
    return of(sizes(value.shape), axes, flags, F.pad(x.whole().to(torch.float64), sides, value=float(fill or 0)))


# -- pools, resampling


@rule_for(" ".join(sorted(POOLS)))
def pool(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Any:
    x, name = inputs[0], operation(node).removeprefix("aten.")
    first = value[0] if isinstance(value, (list, tuple)) else value
    shape = sizes(first.shape)
    spatial = next(int(c) for c in name if c.isdigit())
    axis = x.dim - spatial - 1
    for d in range(axis + 1, x.dim):
        flow.slots.pin(x.axes[d], f"{name} runs over it")
    uniform, constants, _ = x.only(axis)
    if "avg_pool" in name and "adaptive" not in name:
        padding = inputs[3] if isinstance(inputs[3], (list, tuple)) else [inputs[3]]
        counted, divisor = bool(inputs[5]), inputs[6] if len(inputs) > 6 else None
        if divisor is not None or (counted and any(padding)) or inputs[4]:
            uniform = uniform & (constants == 0)
    elif "max_pool" not in name and "adaptive" not in name and "nearest" not in name and "pad" not in name:
        uniform = uniform & (constants == 0)  # weights of resampling add up to 1 only nearly
    side = [-1 if d == axis else 1 for d in range(len(shape))]
    axes = [x.axes[d] if d <= axis else None for d in range(len(shape))]
    flags = torch.from_numpy(~uniform).view(side)
    made = of(shape, axes, flags, torch.from_numpy(np.where(uniform, constants, 0.0)).view(side))
    if isinstance(value, (list, tuple)):
        return [made, *(varying(sizes(v.shape)) for v in value[1:])]
    return made


# -- attention


@rule_for("scaled_dot_product_attention")
def attention(flow: Flow, node: Node, inputs: list[Any], value: Any) -> Seen:
    query, key, values, mask = inputs[:4]
    for seen in (query, key):
        flow.slots.pin(seen.axes[-1], "the scores of attention sum over it")
    for seen, axis in ((query, -2), (key, -2), (values, -2)):
        flow.slots.pin(seen.axes[axis], "attention runs over it")
    axes: list[Axis] = []
    for d in range(query.dim - 2):
        heads, shared = query.shape[d], key.shape[d]
        sides = [(key.axes[d], shared), (values.axes[d], shared)]
        if heads == shared:
            axes.append(flow.slots.tie_axes([(query.axes[d], heads), *sides], "attention"))
            continue
        slots = flow.slots.tie_axes(sides, "attention")
        if slots is not None and query.axes[d] is not None:
            flow.slots.together(np.concatenate([slots[:, None], query.axes[d].reshape(shared, -1)], 1))
        else:
            flow.tie(slots, query.axes[d], "attention")
        axes.append(query.axes[d])
    if isinstance(mask, Seen):
        for d, slots in enumerate(mask.axes):
            at = d - mask.dim + query.dim
            if slots is not None and mask.shape[d] > 1 and 0 <= at < len(axes):
                flow.tie(axes[at], slots, "attention")
            else:
                flow.slots.pin(slots, "attention")
    # the weights of attention add up to 1: a value that is the same at every place passes
    low, high = values.value.amin(-2, keepdim=True), values.value.amax(-2, keepdim=True)
    flags = values.varies.amax(-2, keepdim=True) | (low != high)
    shape = sizes(value.shape)
    for d in range(query.dim - 2):
        if query.shape[d] != key.shape[d] and flags.shape[d] > 1:
            flags, low = (t.repeat_interleave(query.shape[d] // key.shape[d], d) for t in (flags, low))
    if isinstance(mask, Seen) or (len(inputs) > 5 and inputs[5]):
        flags = flags | (low != 0)  # a row that is masked wholly gives 0, or no number
    return of(shape, (*axes, None, values.axes[-1]), flags, low)
