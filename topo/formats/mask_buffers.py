"""Masks as buffers of their own names in a module: `X.mask`, `X.mask_weight`, `X.weight_m`, NNCF's `_binary_mask`, ...

Only those count that have the shape of a weight of their module, so that the masks of attention are left alone; a
vector of one entry per output channel; or what stands in a tree which holds masks and nothing else. Two masks of one
weight are refused. Under any other name (`X.gate`, `masks.X`) a tensor of 0 and 1 is the mask of the weight whose words
its name holds (`topo.formats.partners`); a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    claims: dict[str, dict[str, str]] = {}
    for name, parameter in named.items():
        mask = source.state[name]
        if parameter is None or mask.ndim < 1 or "___" in name:
            continue
        shape = known.get(unwrapped(parameter), ())
        vector = mask.ndim == 1 and len(shape) > 1 and mask.shape in (shape[:1], shape[1:2]) and mask.is_binary
        if vector or (mask.ndim > 1 and (shape == mask.shape or (alone and not shape))):
            claims.setdefault(unwrapped(parameter), {})[name] = parameter
    for name, parameter in source.place.partners.items():
        if is_called_mask(name) or unwrapped(parameter) not in claims:
            claims.setdefault(unwrapped(parameter), {})[name] = parameter
    found: dict[str, Tensor] = {}
    for plain, claimed in claims.items():
        name = _one(plain, list(claimed), source.state)
        mask = source.state[name]
        if mask.ndim > 1 or mask.shape == known[plain][:1]:  # one of inputs alone is named among what is not used
            found[claimed[name]] = mask
    return found


def _one(weight: str, names: list[str], state: Mapping[str, Tensor]) -> str:
    """The mask of a weight: of several tensors called so the only one of 0 and 1. FormatError for two of them."""
    masks = [name for name in names if state[name].is_binary] or names[:1]
    if len({id(state[name]) for name in masks}) > 1:
        said = " and ".join(f"'{name}'" for name in masks[:2])
        raise FormatError(f"{said} may both be the mask of '{weight}': leave one out, or give --key of the masks")
    return masks[0]


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
    used = {id(mask): parameter for parameter, mask in masks.items()}
    names = {name: used[id(tensor)] for name, tensor in source.state.items() if id(tensor) in used}
    gone = next((name for name, parameter in names.items() if says_gone(name, parameter)), None)
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
