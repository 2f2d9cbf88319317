"""Weights in packed integers, several to a byte or word in an order that only their library knows: named and counted.

How many parameters they stand for is what the file says beside them (`weight_shape`, `g_idx` and `scales`), and 4 bits
each where it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from topo.containers.tensors import Tensor

# GPTQ, AWQ, EETQ; compressed-tensors; Marlin; HQQ; Quanto.
_NAMES = frozenset({"qweight", "weight_packed", "packed_weight", "B", "quant_weight", "W_q", "_data._data"})
_ENDS = ("_blocks", "_qdata", ".W_q", ".weight._data._data")  # the first of MXFP4, the second of torchao
_EACH = {"int32": 8, "int64": 16, "uint8": 2, "int16": 4, "int8": 2}  # 4-bit numbers that it holds


def packed(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Name of a tensor of packed integers -> the number of parameters that it stands for."""
    return {name: _size(name, state) for name, tensor in state.items() if not tensor.is_float and _is(name, state)}


def _is(name: str, state: Mapping[str, Tensor]) -> bool:
    tensor, last = state[name], name.rpartition(".")[2]
    if tensor.ndim < 1 or tensor.dtype not in _EACH:
        return False
    if last == "weight" and tensor.dtype == "uint8":  # bitsandbytes, 4 bits
        return f"{name}.absmax" in state or f"{name}.quant_map" in state
    if name.endswith("_blocks"):
        return f"{name.removesuffix('_blocks')}_scales" in state
    return tensor.ndim >= 2 and (last in _NAMES or name.endswith(_ENDS))


def _size(name: str, state: Mapping[str, Tensor]) -> int:
    tensor, (head, dot, last) = state[name], name.rpartition(".")
    shape = state.get(f"{head}{dot}weight_shape", state.get(f"{head}{dot}shape"))
    if shape is not None and shape.ndim == 1 and 2 <= shape.size <= 8 and shape.dtype.startswith("int"):
        sizes = [int(n) for n in shape.whole()]
        if min(sizes) > 0 and prod(sizes) <= 64 * tensor.size:
            return prod(sizes)
    inputs, scales = state.get(f"{head}{dot}g_idx"), state.get(f"{head}{dot}scales")
    if inputs is not None and scales is not None and scales.ndim == 2 and inputs.size > 1:
        return inputs.size * scales.shape[1]
    return tensor.size * (1 if tensor.dtype == "int8" and last == "qweight" else _EACH[tensor.dtype])
