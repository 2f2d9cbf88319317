"""open_lth: `mask.pth`, a dict of int32 tensors by parameter name, and the buffers of its pruned models'
checkpoints."""

from __future__ import annotations

from topo.containers.tensors import Tensor
from topo.formats.mask_dict import only_masks
from topo.formats.source import Found, Source, reader


def _buffers(source: Source) -> Found:
    """`mask_blocks___0___conv1___weight` -> the mask of `blocks.0.conv1.weight`, under any wrapper's prefix."""
    found: dict[str, Tensor] = {}
    if not source.place.mentions("mask_"):
        return found
    for name, tensor in source.state.items():
        prefix, mark, rest = name.rpartition("mask_")
        if mark and "___" in rest and (not prefix or prefix.endswith(".")):
            found[prefix + rest.replace("___", ".")] = tensor
    return found


def recognise(source: Source) -> str | None:
    if _buffers(source):
        return None
    if source.container.kind != "torch":
        return "no buffer 'mask_..___weight'"
    wide = [tensor.dtype for tensor in source.place.wide]
    lacks = only_masks(source.state) if set(wide) == {"int32"} else "its masks are not all int32"
    return lacks and f"no buffer 'mask_..___weight', and no dict of masks: {lacks}"


@reader(
    "openlth",
    "open_lth's mask.pth (int32 by parameter name) and mask_..___.. buffers",
    before=("rigl", "torch_ao", "bitmask", "flax", "npz"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    return _buffers(source) or source.state
