"""Tracing places: the rules by which unit-id tensors that tell every place of a map apart pass through a network.

What moves ids about, adds, multiplies or lets them pass is as in `topo.trace.rules`; here are layers, pools and what
the channel view simplifies. An operation that is not known here is refused: a part is never taken for the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topo.trace.nodes import ACTIVATIONS, CASTS, NORMS, POOLS, is_pointwise, leaves, operation
from topo.trace.rules import RULES, plain, pointwise
from topo.trace.units import NoRule, Units, Weight, bare, filled
from topo.wiring import CONSTANT, NOTHING
from topo.wiring.maps import MapLayer, axis_taps, joint_taps

_SOFTMAX = frozenset("softmax _softmax _safe_softmax log_softmax _log_softmax".split())
_AS_EVER = (
    NORMS | CASTS | ACTIVATIONS | frozenset("add sub subtract rsub mul multiply div divide mean sum".split())
) | (frozenset("empty_like zeros_like zero new_zeros ones_like new_ones fill full_like copy".split()))


class MapUnits(Units):
    """The steps of maps as they are found. pools: those that are sums of windows."""

    mapped = True

    def __init__(self, batch: int = 1) -> None:
        super().__init__(batch)
        self.pools: set[int] = set()

    def merge(self, rows: Tensor) -> Tensor:
        """rows (n, m) -> (n,): a new unit for each row, the sum of all its entries, also of equal ones."""
        if rows.shape[1] == 1:
            return rows[:, 0]
        return self.window(list(bare(rows).numpy().T), rows.shape[:1])

    def window(self, operands: list[np.ndarray], shape: Any) -> Tensor:
        """Units that add the entries of each operand."""
        self.pools.add(len(self.steps))
        start = self._join("add", operands)
        ids = torch.arange(start, self.count, dtype=torch.int32)
        fed = torch.from_numpy(np.any([operand >= 0 for operand in operands], axis=0))
        constant = torch.from_numpy(np.any([operand == CONSTANT for operand in operands], axis=0))
        unfed = torch.where(constant, CONSTANT, NOTHING)  # a window of constants alone is one, too
        return torch.where(fed, ids, unfed).to(torch.int32).reshape(shape)

    def map_layer(
        self, weight: Any, reads: np.ndarray, shape: tuple[int, ...], taps: np.ndarray, groups: int, axes: Any
    ) -> Tensor:
        """Emit a layer that uses the whole of a parameter: int32 (out, places)."""
        if not isinstance(weight, Weight) or weight.kept is not None or weight.shape != weight.size:
            raise NoRule("its weight is not a whole parameter")
        layer = MapLayer(weight.name, shape, np.ascontiguousarray(reads, np.int32), taps, self.count, groups, axes)
        self.steps.append(layer)  # type: ignore[arg-type]
        start = self._reserve(shape[0] * layer.positions)
        return torch.arange(start, self.count, dtype=torch.int32).view(shape[0], -1)


def map_rule(units: MapUnits, inputs: list[Any], shape: Any) -> Any:
    """The ids that the operation of `units.node` makes of `inputs`; NoRule if places are not followed through it."""
    name = operation(units.node).removeprefix("aten.")
    if name in _RULES:
        return _RULES[name](units, inputs, shape)
    if name in _AS_EVER and (name not in _SOFTMAX or leaves(units.node)):
        return RULES[f"aten.{name}"](units, inputs, shape)
    if f"aten.{name}" not in RULES and is_pointwise(units.node):
        return pointwise(units, inputs, shape)
    raise NoRule("places of maps are not followed through it")


def _example(units: MapUnits, x: Any) -> np.ndarray:
    """The ids of one example: they are those of every other."""
    if not isinstance(x, Tensor) or not x.dim() or x.shape[0] != units.batch:
        raise NoRule("its input has no batch in front")
    return np.asarray(units.seen(x[0], learned=False).contiguous().numpy())


def _sides(value: Any, space: int) -> list[int]:
    value = [value] if isinstance(value, int) else list(value)
    return value * space if len(value) == 1 else value


def _convolution(units: MapUnits, inputs: list[Any], shape: Any) -> Tensor:
    name = operation(units.node)
    if name == "aten.convolution":
        x, weight, _, stride, padding, dilation, transposed, _, groups = inputs[:9]
    elif transposed := "transpose" in name:
        x, weight, _, stride, padding, _, groups, dilation = inputs[:8]
    else:
        x, weight, _, stride, padding, dilation, groups = inputs[:7]
    maps, kernel = _example(units, x), weight.shape[2:]
    space = len(kernel)
    stride, dilation = _sides(stride, space), _sides(dilation, space)
    if isinstance(padding, str):
        padding = [d * (n - 1) // 2 if padding == "same" else 0 for d, n in zip(dilation, kernel)]
    every = tuple(zip(maps.shape[1:], shape[2:], kernel, stride, _sides(padding, space), dilation))
    taps = joint_taps(maps.shape[1:], [axis_taps(*each, transposed=transposed) for each in every])
    out, per_group = (shape[1], weight.shape[0] // groups) if transposed else (shape[1], weight.shape[1])
    axes = None if transposed else every
    made = units.map_layer(weight, maps.reshape(len(maps), -1), (out, per_group, *kernel), taps, groups, axes)
    return made.view(1, *shape[1:]).expand(shape)


def _linear(units: MapUnits, inputs: list[Any], shape: Any) -> Tensor:
    x, weight = inputs[:2]
    rows = _example(units, x).reshape(-1, x.shape[-1])
    if len(weight.shape) != 2:
        raise NoRule("its weight is not a matrix")
    taps = np.arange(len(rows), dtype=np.int32)[None]
    made = units.map_layer(weight, rows.T, tuple(weight.shape), taps, 1, None)
    return made.T.reshape(1, *shape[1:]).expand(shape)


def _pool(units: MapUnits, inputs: list[Any], shape: Any) -> Any:
    sides = shape if isinstance(shape, list) else [shape]
    maps, name = _example(units, inputs[0]), operation(units.node).removeprefix("aten.")
    space = next(n for n in (1, 2, 3) if f"{n}d" in name)
    sizes, outs = maps.shape[-space:], sides[0][-space:]
    if "pad" in name:
        target: Any = units.node.target
        moved = target(torch.from_numpy(maps).double()[None], inputs[1])[0]
        made = moved.to(torch.int32)
    else:
        taps = joint_taps(sizes, _windows(name, inputs, sizes, outs))
        flat = maps.reshape(-1, int(np.prod(sizes)))
        padded = np.concatenate([flat, np.full((len(flat), 1), NOTHING, np.int32)], axis=1)
        operands = [padded[:, tap].reshape(-1) for tap in taps]
        one = len(operands) == 1
        made = torch.from_numpy(operands[0]) if one else units.window(operands, (len(operands[0]),))
    made = made.reshape(1, *sides[0][1:]).expand(sides[0])
    return [made, *(filled(other) for other in sides[1:])] if isinstance(shape, list) else made


def _windows(name: str, inputs: list[Any], sizes: Any, outs: Any) -> list[np.ndarray]:
    """Which places each output place adds, axis by axis: (window, out)."""
    space = len(sizes)
    if name.startswith(("max_pool", "avg_pool")):
        kernel = _sides(inputs[1], space)
        stride = _sides(inputs[2], space) if inputs[2] else kernel
        padding = _sides(inputs[3], space)
        dilation = _sides(inputs[4], space) if name.startswith("max") else [1] * space
        return [axis_taps(*each) for each in zip(sizes, outs, kernel, stride, padding, dilation)]
    if "adaptive" in name:
        found = []
        for size, out in zip(sizes, outs):
            first, stop = np.arange(out) * size // out, -(-(np.arange(1, out + 1) * size) // out)
            at = first + np.arange(int((stop - first).max()))[:, None]
            found.append(np.where(at < stop, at, -1))
        return found
    if name.startswith("upsample_nearest") and all(out % size == 0 for size, out in zip(sizes, outs)):
        return [(np.arange(out) * size // out)[None] for size, out in zip(sizes, outs)]
    raise NoRule("places of maps are not followed through it")


def _literally(units: MapUnits, inputs: list[Any], shape: Any) -> Tensor:
    parts = [plain(part) for part in inputs[0]]
    dim = inputs[1] if len(inputs) > 1 else 0
    return (torch.stack if operation(units.node) == "aten.stack" else torch.cat)(parts, dim)


def _pad(units: MapUnits, inputs: list[Any], shape: Any) -> Tensor:
    mode, value = (inputs[2], inputs[3]) if operation(units.node) == "aten.pad" else ("constant", inputs[2])
    x = inputs[0]
    if mode == "constant":
        if value:
            raise NoRule("it pads with a constant")
        return torch.nn.functional.pad(x, inputs[1], value=NOTHING)
    return torch.nn.functional.pad(x.double(), inputs[1], mode=mode).to(torch.int32)


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys("conv1d conv2d conv3d convolution".split(), _convolution),
    **dict.fromkeys("conv_transpose1d conv_transpose2d conv_transpose3d".split(), _convolution),
    "linear": _linear,
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _literally),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
}
