"""jaxpruner and flax trees, as npz, pickles or safetensors: kernels are (height, width, in, out) or (in, out).

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
# Files of numpy's arrays: no torch module is among what calls its parameters kernels there.
_OF_ARRAYS = ("npz", "npy", "pickle")
# What flax calls modules without a name of their own.
_NUMBERED = re.compile(r"(?:^|[/.])(?:Conv|ConvTranspose|Dense|DenseGeneral|MultiHeadDotProductAttention|MLP)_\d+[/.]")


def _kernels(source: Source) -> dict[tuple[str, str], tuple[str, Tensor]]:
    """(collection, dotted path) -> (key, kernel). Where there are `params`, kernels of optimizers and averages are
    none: those below no collection, or below one that lies deeper."""
    found = []
    for key, tensor in source.state.items():
        path = [part for part in re.split(r"[/.]", key) if part]
        if path and path[-1] == "kernel":
            depth = next((place for place, part in enumerate(path) if part in _COLLECTIONS), None)
            collection = "" if depth is None else path[depth].rstrip("s")
            name = ".".join(part for part in path if part not in _COLLECTIONS)
            found.append((collection, depth, name, key, tensor))
    of_params = [depth for collection, depth, *_ in found if collection == "param" and depth is not None]
    if of_params:
        first = {"param": min(of_params)}
        found = [entry for entry in found if entry[0] and entry[1] == first.get(entry[0], entry[1])]
    return {(collection, name): (key, tensor) for collection, _, name, key, tensor in found}


def recognise(source: Source) -> str | None:
    names = [name for name in source.state if name.endswith("kernel") and re.search(r"(?:^|[/.])kernel$", name)]
    if not names:
        return "no array '*/kernel'"
    if any(name.endswith("weight") and tensor.ndim >= 2 for name, tensor in source.state.items()):
        return "it has weights beside its kernels, as no flax tree has"
    if source.container.kind in _OF_ARRAYS or any("/" in name or _NUMBERED.search(name) for name in names):
        return None
    keys = {*source.trail, *(part for name in names for part in name.split("."))}
    return None if keys.intersection(_COLLECTIONS) else "nothing says that its '*.kernel' are those of flax"


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
    "jaxpruner and flax trees: '/kernel' arrays, HWIO or (in, out)",
    before=("npz", "mask_buffers"),
    recognise=recognise,
    output_first=True,
)
def read(source: Source) -> Found:
    kernels = _kernels(source)
    weights = {name: kernel for (collection, name), (_, kernel) in kernels.items() if collection != "mask"}
    masks = {name: kernel for (collection, name), (_, kernel) in kernels.items() if collection == "mask"}
    if not masks:
        masks = weights if only_masks(weights) is None else {name: kernel.weights() for name, kernel in weights.items()}
    known = source.wiring.shapes if source.wiring else {}
    keys: dict[str, list[str]] = {}
    for (_, name), (key, _) in kernels.items():
        keys.setdefault(name, []).append(key)
    found = {}
    for name, mask in masks.items():
        if mask.ndim == 1 and name in weights:
            mask = _unpacked(mask, name, weights[name].shape)
        torch_name = name.removesuffix("kernel") + "weight"
        parameter = torch_name if torch_name in known else name
        found[parameter] = output_first(mask) if mask.ndim >= 2 else mask
        source.made[parameter] = [parameter, *keys[name]]
    if any(mask.ndim == 3 for mask in found.values()):
        source.notes.append("kernels of three dimensions are taken as one-dimensional convolutions")
    return found
