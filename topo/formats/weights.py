"""The weights behind masks: float tensors of a checkpoint, for metrics that look at more than the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.fitting import aligned, oriented
from topo.formats.source import Source, some

if TYPE_CHECKING:
    from topo.masks import MaskSet
    from topo.wiring import Wiring


def weights_of(source: Source, masks: MaskSet, wiring: Wiring | None) -> dict[str, np.ndarray]:
    """Parameter -> float array of its mask's shape, for every mask and for the wiring's layers without one.

    FormatError if a mask has no weights of its shape.
    """
    floats, names = _nearest(source, masks, wiring)
    found, _ = oriented({names[name]: tensor for name, tensor in floats.items()}, wiring, output_first=False)
    if wiring is None:  # what the masks themselves know of their network
        turned = masks.provenance.get("input_first", {})
        found |= {name: found[name].output_first(groups) for name, groups in turned.items() if name in found}
    missing = [name for name in masks if name not in found]
    if missing:
        raise FormatError(f"it holds no weights for {some(missing)}")
    for name in masks:
        if found[name].shape != masks.rows(name).shape:
            raise FormatError(
                f"its weights '{name}' have shape {found[name].shape} but the mask has {masks.rows(name).shape}"
            )
    others = {} if wiring is None else {name: size for name, size in wiring.shapes.items() if name not in masks}
    unmasked = [name for name, size in others.items() if name in found and found[name].shape == size]
    return {name: _floats(name, found[name]) for name in (*masks, *unmasked)}


def _nearest(source: Source, masks: MaskSet, wiring: Wiring | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of the place of the file that has most of the masks' parameters, and their names as the masks'."""
    best: tuple[int, dict[str, Tensor], dict[str, str]] = (-1, {}, {})
    for branch in source.tree:
        floats = {name: t for name, (_, t) in branch.parameters.items() if t.is_float and not t.is_binary}
        names = aligned(floats, wiring)
        fit = sum(name in masks for name in names.values())
        if fit > best[0]:
            best = fit, floats, names
    return best[1:]


def _floats(name: str, tensor: Tensor) -> np.ndarray:
    values = np.array(tensor.whole(), order="C")  # of its own: the file may change, or be cut short, later
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype.kind != "f":
        raise FormatError(f"its weights '{name}' are of type {tensor.dtype}, which is not read as numbers")
    return values
