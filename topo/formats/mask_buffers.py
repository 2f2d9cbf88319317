"""Masks as buffers of their own names in a module: `X.mask`, `X.mask_weight`, `X.weight_m`, NNCF's `_binary_mask`, ...

Only those count that have the shape of a weight of their module, so that the masks of attention are left alone; or
that stand in a tree which holds masks and nothing else. Under any other name (`X.gate`) a tensor is the mask of the
weight of its module if it has that weight's shape and holds both 0 and 1 and nothing else; a note says so.
"""

from __future__ import annotations

import re

from topo.containers.tensors import Tensor
from topo.formats.names import RECURRENT, binary_beside, unwrapped
from topo.formats.source import Found, Source, reader, some

_NNCF = re.compile(r"(.*?)\.pre_ops\.\d+\.(?:op\.)?_?(?:binary_)?mask$")
_LAST = re.compile(r"(?:_?(?:binary|keep|keeps?|prun(?:e|ed|ing)|sparse|sparsity|weight|kernel|w)_?)?_?masks?_?|m")


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
    known = {unwrapped(name): tensor.shape for name, (_, tensor) in source.place.parameters.items()}
    named = {name: _parameter(name) for name in source.state if "mask" in name or name.endswith("_m")}
    alone = all(named.get(name) for name, tensor in source.state.items() if tensor.ndim >= 2)
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        mask = source.state[name]
        if parameter is None or mask.ndim < 2 or "___" in name:
            continue
        fits = known.get(unwrapped(parameter)) == mask.shape
        if fits or (alone and unwrapped(parameter) not in known):
            if parameter in found:
                source.notes.append(f"a second mask of '{parameter}' left out: {some([name])}")
            found.setdefault(parameter, mask)
    for name, parameter in binary_beside(source.state).items():
        found.setdefault(parameter, source.state[name])
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
    for name, parameter in binary_beside(source.state).items():
        if _parameter(name) is None:
            source.notes.append(f"'{name}' is taken for the mask of '{parameter}': it has its shape and holds 0 and 1")
    return buffers(source)
