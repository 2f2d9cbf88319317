"""Zeros in the weights of a checkpoint: what is left of a mask when only the weights were saved.

With a model its layers are read; without one, every weight of two or more dimensions except what is named like an
embedding, and parameters under other names that hold a zero. Zeros do not tell pruned weights from weights that happen
to be 0 (underflow, zero initialisation, rounding to a few levels), so the masks say in a note that they were inferred.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.experts import renamed
from topo.formats.fitting import aligned
from topo.formats.names import ADAPTER, is_embedding, is_vector, is_weight
from topo.formats.packed import is_beside_packed
from topo.formats.partners import holds_both, is_called_mask, is_mask
from topo.formats.source import WAY_OUT, Found, Source, plural, reader, some

_NO_PARAMETER = (
    "pos",
    "token",
    "table",
    "index",
    "mean",
    "std",
    "anchor",
    "grid",
    "bias",
    "mask",
    "score",
    "scale",
    "zero",
)
_ATTENTION = re.compile(r"attn|attention|causal|token|seq", re.I)


def weights(source: Source) -> dict[str, Tensor]:
    """The weights of the place, by parameter, that may show a mask by their zeros; found once."""
    if "weights" not in source.memo:
        source.memo["weights"] = _weights(source)
    return source.memo["weights"]


def _weights(source: Source) -> dict[str, Tensor]:
    found = {
        name: tensor
        for name, (stored, tensor) in source.place.parameters.items()
        if tensor.ndim >= 2
        and tensor.is_number
        and (tensor.is_float or tensor.is_quantised)
        and stored not in source.place.packed
        and not is_beside_packed(stored, source.place.packed)
        and not ADAPTER.search(name)
    }
    if source.wiring is not None:
        fitted, made = renamed(found, source.wiring.names if source.wiring is not None else None)
        source.made.update(made)
        names = aligned(fitted, source.wiring)
        return {name: tensor for name, tensor in fitted.items() if names[name] in source.wiring.shapes}
    return {name: tensor for name, tensor in found.items() if _is_layer(name, tensor)}


def _is_layer(name: str, tensor: Tensor) -> bool:
    if is_weight(name):
        return not (tensor.ndim == 3 and tensor.shape[1:] == (1, 1))
    if re.fullmatch(r"arr_\d+|\d+", name):
        return False
    odd = is_embedding(name) or is_vector(tensor) or any(part in name.lower() for part in _NO_PARAMETER)
    return not odd and tensor.is_float and tensor.ndim <= 4 and tensor.has_zero and not is_mask(tensor)


def recognise(source: Source) -> str | None:
    if not weights(source) and any(map(ADAPTER.search, source.state)):
        return "a LoRA adapter alone is not a network: merge it into its base (merge_and_unload) and save that"
    if weights(source):
        return None
    if source.place.packed:
        return "its weights are packed integers (GPTQ, AWQ, int4), which only their library unpacks: dequantise them"
    if source.wiring is not None:
        return "none of the model's layers is in it by name"
    return "no float tensor '*weight' of two or more dimensions"


@reader(
    "zeros",
    "zeros in the weights of a checkpoint: state dicts, safetensors, sharded or not",
    before="ordered_list",
    recognise=recognise,
)
def read(source: Source) -> Found:
    found = weights(source)
    _refuse_hidden_masks(source)
    _refuse_strange_masks(source, found)
    if source.wiring is None:
        embeddings = [name for name in found if is_embedding(name)]
        if embeddings and len(embeddings) < len(found):
            source.notes.append(
                f"{plural(len(embeddings), 'embedding')} left out: {some(embeddings)}; a model tells which are masked"
            )
            found = {name: tensor for name, tensor in found.items() if name not in embeddings}
        bare = [name for name in found if not is_weight(name)]
        if bare:
            source.notes.append(f"zeros of {plural(len(bare), 'parameter')} not called weight read too: {some(bare)}")
    integers = {name: _from_zero_point(source, name, tensor) for name, tensor in found.items() if tensor.is_quantised}
    if integers:
        source.notes.append(f"{plural(len(integers), 'weight')} of 8-bit integers: kept is what is not 0")
    return {name: integers.get(name, tensor).weights() for name, tensor in found.items()}


def _from_zero_point(source: Source, name: str, tensor: Tensor) -> Tensor:
    """8-bit integers less the zero point that stands beside them, one for all, for each row, or for groups in it."""
    stored = source.place.parameters[name][0] if name in source.place.parameters else name
    head = stored.removesuffix("weight")
    beside = (f"{stored}_zero_point", f"{head}zero_point", f"{head}zero_points", f"{head}weight_zp", f"{stored}_zp")
    zero = next((source.state[other] for other in beside if other in source.state), None)
    if zero is None or not zero.is_number or not any(bool(block.any()) for block in zero.blocks()):
        return tensor
    points = zero.whole().astype(np.int16)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    groups = points.size // rows if points.size % rows == 0 else 0
    if points.size == 1:
        points = points.reshape(1, 1)
    elif groups and columns % groups == 0 and points.shape[0] == rows:
        points = np.repeat(points.reshape(rows, groups), columns // groups, axis=1)
    else:
        raise FormatError(f"the zero points of '{name}' have shape {zero.shape}, beside {tensor.shape}: dequantise it")

    def shifted(array: np.ndarray) -> np.ndarray:
        return (array.reshape(rows, columns).astype(np.int16) - points).reshape(tensor.shape)

    return replace(tensor.view(tensor.shape, shifted), dtype="int16")


def _refuse_strange_masks(source: Source, found: Found) -> None:
    """FormatError for what is called a mask, holds 0 and 1, has the shape of a weight, and is not known to be whose."""
    if source.requested or not source.place.mentions("mask", "Mask", "MASK"):
        return
    masks = {name for name, tensor in found.items() if is_called_mask(name) and tensor.is_binary}
    held = (
        {name: tensor for name, (_, tensor) in source.place.parameters.items()} if len(masks) == len(found) else found
    )
    shapes = {t.shape: name for name, t in held.items() if name not in masks and t.ndim >= 2 and not t.is_binary}
    for name, tensor in source.state.items():
        if tensor.shape in shapes and is_called_mask(name) and holds_both(tensor):
            if tensor.is_binary and not _ATTENTION.search(name):
                raise FormatError(
                    f"'{name}' holds 0 and 1 in the shape of '{shapes[tensor.shape]}', and its name does not say whose "
                    f"mask it is; {WAY_OUT}; --format zeros reads the weights"
                )


def _refuse_hidden_masks(source: Source) -> None:
    """FormatError for parametrized weights without a zero and without their parametrization's own tensors."""
    if source.requested:
        return
    marker = ".parametrizations."
    if not source.place.mentions(marker):
        return
    for name, tensor in source.state.items():
        if marker in name and name.endswith(".original") and tensor.ndim >= 2:
            inside = name.removesuffix("original")
            alone = not any(other.startswith(inside) and other != name for other in source.state)
            if alone and not tensor.has_zero:
                raise FormatError(
                    f"'{name}' is masked by a parametrization whose mask is not in the file (torch.ao.pruning): save "
                    "sparsifier.state_dict(), or squash_mask() first; --format zeros reads it as dense"
                )


def rounded(tensor: Tensor) -> bool:
    """Whether weights lie on a grid of few levels, as int4 and int8 rounding leaves them (of its first row)."""
    if not tensor.is_float or tensor.dtype.startswith("float8"):
        return tensor.is_quantised
    block = next(iter(tensor.rows(1)))
    row = np.ascontiguousarray(block).reshape(-1)[:64]
    if tensor.dtype == "bfloat16":
        row = (row.astype(np.uint32) << 16).view(np.float32)
    sizes = sorted({abs(value) for value in row.tolist() if value})  # of 64 numbers, sooner than by numpy
    if len(sizes) < 3 or not all(map(math.isfinite, sizes)):
        return False
    step = min(sizes[0], *(above - below for below, above in pairwise(sizes)))
    levels = [size / step for size in sizes]
    return levels[-1] <= 128 and all(abs(level - round(level)) < 0.1 for level in levels)
