"""Masks as buffers of their own names in a module: `X.mask`, `X.mask_weight`, `X.weight_m`, NNCF's `_binary_mask`, ...

Only those count that have the shape of a weight of their module, so that the masks of attention are left alone; a
vector of one entry per output channel; or what stands in a tree which holds masks and nothing else. Under any other
name (`X.gate`, `masks.X`) a tensor of 0 and 1 is the mask of the weight whose words its name holds
(`topo.formats.partners`); a note says so.
"""

from __future__ import annotations

import re

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.names import RECURRENT, unwrapped
from topo.formats.partners import by_shape_and_words, is_called_mask, says_gone, whose
from topo.formats.source import Found, Source, reader

_NNCF = re.compile(r"(.*?)\.pre_ops\.\d+\.(?:op\.)?_?(?:binary_)?mask$")
_LAST = re.compile(
    r"(?:_?(?:binary|keep|keeps?|prun(?:e|ed|ing)|sparse|sparsity|weight|kernel|w|channel|filter|out|output|"
    r"neuron|unit)_?)?_?masks?_?|m"
)


def _parameter(name: str) -> str | None:
    """The parameter that a buffer of this name masks, as far as names tell; None for no mask."""
    if found := _NNCF.fullmatch(name):
        return f"{found[1]}.weight"
    head, _, last = name.rpartition(".")
    dot = "." if head else ""
    if last.startswith("mask_"):
        return f"{head}{dot}{last.removeprefix('mask_')}"
    if last.endswith("_m") and len(last) > 2:
        return name.removesuffix("_m")
    if _LAST.fullmatch(last):
        own = head.endswith("weight") or RECURRENT.search(head)  # `fc.weight.mask`
        return head if own else f"{head}{dot}weight"
    return None


def buffers(source: Source) -> dict[str, Tensor]:
    """Parameter -> mask."""
    if not source.place.partners and not source.place.mentions("mask", "_m\n"):
        return {}
    known = {unwrapped(name): tensor.shape for name, (_, tensor) in source.place.parameters.items()}
    named = {name: _parameter(name) for name in source.state if "mask" in name or name.endswith("_m")}
    alone = all(named.get(name) for name, tensor in source.state.items() if tensor.ndim >= 2)
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        mask = source.state[name]
        if parameter is None or mask.ndim < 1 or "___" in name:
            continue
        shape = known.get(unwrapped(parameter), ())
        channels = mask.ndim == 1 and len(shape) > 1 and mask.shape == shape[:1] and mask.is_binary
        if channels or (mask.ndim > 1 and (shape == mask.shape or (alone and not shape))):
            found.setdefault(parameter, mask)
    taken = set(map(unwrapped, found))
    for name, parameter in source.place.partners.items():
        if unwrapped(parameter) not in taken:
            found[parameter] = source.state[name]
    return found


def recognise(source: Source) -> str | None:
    return None if buffers(source) else "no buffer '*.mask' or 'mask_*' of the shape of a weight"


@reader(
    "mask_buffers",
    "masks as buffers: X.mask, X.mask_weight, X.weight_m, NNCF's _binary_mask",
    before="npz",
    recognise=recognise,
)
def read(source: Source) -> Found:
    masks = buffers(source)
    used = {id(mask) for mask in masks.values()}
    names = [name for name, tensor in source.state.items() if id(tensor) in used]
    gone = next((name for name in names if says_gone(name)), None)
    if gone is not None and not source.requested:
        raise FormatError(
            f"in '{gone}' 1 may stand for what was pruned; --format mask_buffers reads 1 as kept; otherwise "
            "topo.MaskSet({name: array == 0}), then topo.write_masks"
        )
    partners = {name: of for name, of in source.place.partners.items() if _parameter(name) is None}
    taken = [f"'{name}' for '{of}'" for name, of in partners.items() if id(source.state[name]) in used]
    masked = by_shape_and_words((parameter, mask.shape) for parameter, mask in masks.items())
    for name, tensor in source.state.items():
        if id(tensor) not in used and tensor.ndim >= 2 and is_called_mask(name) and tensor.is_binary:
            if weight := whose(name, masked.get(tensor.shape, {})):
                source.notes.append(f"a second mask of '{weight}' left out: '{name}'")
    if taken:
        listed = ", ".join(taken[:3]) + (", ..." if len(taken) > 3 else "")
        source.notes.append(f"taken for masks by their names, shapes and values of 0 and 1: {listed}")
    return masks
