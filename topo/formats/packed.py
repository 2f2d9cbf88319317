"""Weights in packed integers, several to a byte or word in an order that only their library knows: named and counted.

How many parameters they stand for is what the file says beside them (`weight_shape`, `g_idx` and `scales`), and 4 bits
each where it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from topo.containers.tensors import Tensor

# GPTQ, AWQ, EETQ; compressed-tensors; Marlin, dense and 2:4; HQQ; Quanto; QuIP#.
_NAMES = frozenset(
    {"qweight", "weight_packed", "packed_weight", "B", "B_24", "quant_weight", "W_q", "_data._data", "Qidxs"}
)
# Codes of vectors and what they point into, beside them: AQLM, VPTQ.
_CODES = {"codes": ("codebooks",), "indices": ("centroids", "centroids.weight")}
_ENDS = ("_blocks", "_qdata", ".W_q", ".weight._data._data")  # the first of MXFP4, the second of torchao
_OF_PACKED = ("centroids.weight", "codebooks", "scale", "scales", "zeros", "zero", ".B_meta", ".s", "_meta")
_EACH = {"int32": 8, "int64": 16, "uint8": 2, "int16": 4, "int8": 2}  # 4-bit numbers that it holds


def packed(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Name of a tensor of packed integers -> the number of parameters that it stands for."""
    return {name: _size(name, state) for name, tensor in state.items() if tensor.dtype in _EACH and _is(name, state)}


def is_beside_packed(name: str, packed: Mapping[str, int]) -> bool:
    """Whether a tensor belongs to the packed ones of its module: scales and code books."""
    if not packed or name in packed or not name.endswith(_OF_PACKED):
        return False
    inside = name.removesuffix(".weight").rpartition(".")[0]
    return any(other.rpartition(".")[0] in (inside, name.rpartition(".")[0]) for other in packed)


def _is(name: str, state: Mapping[str, Tensor]) -> bool:
    tensor, last = state[name], name.rpartition(".")[2]
    if tensor.ndim < 1:
        return False
    if last == "weight" and tensor.dtype == "uint8":  # bitsandbytes, 4 bits; NVFP4
        scale = state.get(f"{name}_scale")
        four_bits = scale is not None and scale.dtype.startswith("float8")
        return four_bits or f"{name}.absmax" in state or f"{name}.quant_map" in state
    if last in _CODES:
        return tensor.ndim >= 2 and any(f"{name.removesuffix(last)}{other}" in state for other in _CODES[last])
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
    books = state.get(f"{head}{dot}codebooks")
    if last == "codes" and books is not None and books.ndim == 4:  # (books, codes, outputs, inputs) of a vector
        return prod(tensor.shape[:2]) * prod(books.shape[2:])
    if last == "Qidxs":  # a code of the lattice E8 each
        return 8 * tensor.size
    inputs, scales = state.get(f"{head}{dot}g_idx"), state.get(f"{head}{dot}scales")
    if inputs is not None and scales is not None and scales.ndim == 2 and inputs.size > 1:
        return inputs.size * scales.shape[1]
    return tensor.size * (1 if tensor.dtype == "int8" and last == "qweight" else _EACH[tensor.dtype])
