"""jaxpruner and flax trees saved as npz: keys are paths, kernels are (height, width, in, out) or (in, out).

`params/Conv_0/kernel` becomes the mask `Conv_0.kernel` of shape (out, in, height, width); with a model whose parameter
is called `Conv_0.weight`, that. Masks are read from `masks/...`, or from the zeros of the kernels if there are none.
jaxpruner's packed masks (numpy.packbits, one dimension) are unpacked to the shape of the kernel beside them.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import MaskError
from topo.formats.mask_dict import only_masks
from topo.formats.source import Found, Source, reader

_COLLECTIONS = ("params", "masks", "mask")


def _kernels(source: Source) -> dict[tuple[str, str], Tensor]:
    """(collection, dotted path) -> kernel."""
    found = {}
    for key, tensor in source.state.items():
        path = [part for part in re.split(r"[/.]", key) if part]
        if path and path[-1] == "kernel":
            collection = next((part for part in path if part in _COLLECTIONS), "")
            found[collection.rstrip("s"), ".".join(part for part in path if part not in _COLLECTIONS)] = tensor
    return found


def recognise(source: Source) -> str | None:
    return None if source.container.kind == "npz" and _kernels(source) else "it is not an npz with '*/kernel'"


def _unpacked(packed: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    size = int(np.prod(shape, dtype=object))
    if packed.dtype != "uint8" or packed.size != -(-size // 8):
        raise MaskError(f"packed mask '{name}' has {packed.size} bytes of {packed.dtype} for a kernel of shape {shape}")
    return replace(packed.view(shape, lambda bits: np.unpackbits(bits, count=size).reshape(shape)), dtype="bool")


def output_first(kernel: Tensor) -> Tensor:
    """(..., in, out) -> (out, in, ...)."""
    last = kernel.ndim - 1
    return kernel.transposed((last, last - 1, *range(last - 1)))


@reader(
    "flax",
    "jaxpruner and flax trees as npz: '/kernel' arrays, HWIO or (in, out)",
    before="npz",
    recognise=recognise,
    output_first=True,
)
def read(source: Source) -> Found:
    kernels = _kernels(source)
    weights = {name: kernel for (collection, name), kernel in kernels.items() if collection != "mask"}
    masks = {name: kernel for (collection, name), kernel in kernels.items() if collection == "mask"}
    if not masks:
        masks = weights if only_masks(weights) is None else {name: kernel.weights() for name, kernel in weights.items()}
    known = source.wiring.shapes if source.wiring else {}
    found = {}
    for name, mask in masks.items():
        if mask.ndim == 1 and name in weights:
            mask = _unpacked(mask, name, weights[name].shape)
        torch_name = name.removesuffix("kernel") + "weight"
        found[torch_name if torch_name in known else name] = output_first(mask) if mask.ndim >= 2 else mask
    if any(mask.ndim == 3 for mask in found.values()):
        source.notes.append("kernels of three dimensions are taken as one-dimensional convolutions")
    return found
