"""Scores that a rule turns into masks at every pass: edge-popup's `X.scores`, movement pruning's `X.mask_scores`.

Which weights they keep is not in the file: `topk` keeps that share of each layer, by |score| in edge-popup (Ramanujan
et al. 2020, released code: GetSubnet over scores.abs()) and by score in movement pruning (Sanh et al. 2020,
TopKBinarizer); `threshold` keeps the scores above it, as they are.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError, MaskError
from topo.formats.names import unwrapped
from topo.formats.source import Found, Source, plural, reader, some

_SCORES = re.compile(r"(.*?)(?:(\.)|_|^)(mask_scores|scores|popup_scores|weight_scores|score)$")


def scores(source: Source) -> dict[str, tuple[Tensor, bool]]:
    """Parameter -> its scores, and whether their size counts, not their sign."""
    tree = source.place.named(r"score")
    if not tree and not source.place.mentions("score"):
        return {}
    known = {unwrapped(name): t.shape for name, (_, t) in source.place.parameters.items()}
    found: dict[str, tuple[Tensor, bool]] = {}
    for name, tensor in source.state.items():
        if tensor.ndim < 2 or not tensor.is_float:
            continue
        if tree:
            found[name] = tensor, True
        elif named := _SCORES.fullmatch(name):
            parameter = named[1] if named[1].endswith("weight") else f"{named[1]}.weight".lstrip(".")
            if known.get(unwrapped(parameter), tensor.shape) == tensor.shape:
                found[parameter] = tensor, named[3] != "mask_scores"
    return found


def recognise(source: Source) -> str | None:
    return None if scores(source) else "no '*.scores' or '*.mask_scores' of the shape of a weight"


@reader(
    "scores",
    "edge-popup's X.scores, movement pruning's X.mask_scores; needs -O topk=SHARE or -O threshold=SCORE",
    before="npz",
    recognise=recognise,
)
def read(source: Source) -> Found:
    found = scores(source)
    if not source.rule:
        raise FormatError(
            f"it holds scores ({some(found, 1)}) and not the rule that makes masks of them: give -O topk=0.5 (the "
            "share that each layer keeps) or -O threshold=0"
        )
    rule, value = next(iter(source.rule.items()))
    sizes = any(by_size for _, by_size in found.values())
    how = (", by size" if sizes else ", by score") if rule == "topk" else ""
    source.notes.append(f"masks of {plural(len(found), 'layer')} made from scores by {rule}={value:g}{how}")
    return {name: _mask(name, tensor, rule, value, by_size) for name, (tensor, by_size) in found.items()}


def _mask(name: str, tensor: Tensor, rule: str, value: float, by_size: bool) -> Tensor:
    def kept(array: np.ndarray) -> np.ndarray:
        numbers = array if tensor.dtype != "bfloat16" else (array.astype(np.uint32) << 16).view(np.float32)
        if numbers.dtype.kind != "f":
            raise MaskError(f"scores '{name}' are of type {tensor.dtype}, which is not read as numbers")
        if np.isnan(numbers).any():
            raise MaskError(f"scores '{name}' hold NaN")
        if rule == "threshold":
            return np.asarray(numbers > value)
        flat = np.abs(numbers).reshape(-1) if by_size else numbers.reshape(-1)
        # How many stay, to the one, as the two released codes count them.
        count = flat.size - int((1 - value) * flat.size) if by_size else int(value * flat.size)
        mask = np.zeros(flat.size, bool)
        mask[np.argsort(flat, kind="stable")[flat.size - count :]] = True
        return mask.reshape(numbers.shape)

    return replace(tensor.view(tensor.shape, kept), dtype="bool")
