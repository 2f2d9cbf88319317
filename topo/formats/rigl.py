"""rigl-torch checkpoints: `pruner.backward_masks`, a list of bool tensors in module order; None is a dense layer."""

from __future__ import annotations

from typing import Any

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.fitting import stored_shapes
from topo.formats.source import Found, Source, matching_order, reader


def _list(source: Source) -> list[Any] | None:
    masks = source.content
    return masks if isinstance(masks, list) and masks and source.trail[-1:] == ("backward_masks",) else None


def recognise(source: Source) -> str | None:
    return None if _list(source) else "no list 'pruner' -> 'backward_masks'"


@reader("rigl", "rigl-torch: pruner.backward_masks beside the weights", before="npz", recognise=recognise)
def read(source: Source) -> Found:
    masks = _list(source) or []
    if not all(mask is None or isinstance(mask, Tensor) for mask in masks):
        raise FormatError("'backward_masks' holds more than tensors and None")
    weights = next(({name: t.shape for name, t in beside.items()} for beside in source.weights_beside()), {})
    dense = sum(mask is None for mask in masks)
    if dense:
        source.notes.append(f"{dense} of {len(masks)} layers have no mask and are dense")
    if weights:
        found, _ = matching_order(masks, weights, {"checkpoint": weights}, "the checkpoint's weight")
    elif source.wiring is not None:
        orders = {"module": source.wiring.parameters, "running": source.wiring.names}
        found, _ = matching_order(masks, stored_shapes(source.wiring), orders, "the model's layer")
    else:
        raise FormatError("its masks without names, and without weights beside them, need a model to name them")
    return found
