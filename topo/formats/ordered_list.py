"""Lists of masks without names, in module order: NPB's pickles, other pruners' `{'mask': [...]}`, lottery-ticket
pickles."""

from __future__ import annotations

import re
from typing import Any

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.fitting import stored_shapes
from topo.formats.source import Found, Source, matching_order, plural, reader


def _list(source: Source) -> list[Any] | None:
    content = source.content
    if isinstance(content, dict) and source.container.kind == "npz":
        if source.state and all(re.fullmatch(r"arr_\d+", name) for name in source.state):
            content = [source.state[name] for name in sorted(source.state, key=lambda name: int(name[4:]))]
    if not isinstance(content, list):
        return None
    masks = [entry for entry in content if isinstance(entry, Tensor) and entry.ndim >= 2]
    if not masks or not (source.place.named("mask") or all(mask.is_binary for mask in masks)):
        return None
    return list(content)


def recognise(source: Source) -> str | None:
    if isinstance(source.content, list) and source.place.wide:
        return None if _list(source) else "its list of arrays holds other values than 0 and 1"
    return None if _list(source) else "no list of arrays of two or more dimensions"


@reader(
    "ordered_list",
    "a list of masks without names (NPB, ToST and lottery-ticket pickles); needs a model",
    recognise=recognise,
)
def read(source: Source) -> Found:
    entries = _list(source) or []
    odd = next((entry for entry in entries if entry is not None and not isinstance(entry, Tensor)), None)
    if odd is not None:
        raise FormatError(f"its list holds a {type(odd).__name__} among the masks")
    masks = [entry for entry in entries if isinstance(entry, Tensor) and entry.ndim >= 2]
    none = sum(entry is None for entry in entries)
    if none:
        source.notes.append(f"{plural(none, 'place')} of the list without a mask passed over")
    if len(masks) + none < len(entries):
        source.notes.append(f"{plural(len(entries) - len(masks) - none, 'array')} of fewer than two dimensions ignored")
    if source.wiring is None:
        return _by_weights(source, masks)
    wiring = source.wiring
    orders = {"module order": wiring.parameters, "running order": wiring.names}
    found, fitting = matching_order(list(masks), stored_shapes(wiring), orders, "the model's layer")
    source.notes.append(f"names from the model by the sequence of shapes, in {fitting[0]}")
    if len(fitting) > 1 and wiring.parameters != wiring.names:
        source.notes.append("the shapes fit the model's running order too; module order is what released code writes")
    return found


def _by_weights(source: Source, masks: list[Tensor]) -> Found:
    """The masks named by the weights that the file holds beside them."""
    beside = source.weights_beside()
    if not beside:
        raise FormatError(f"its {plural(len(masks), 'mask')} without names need a model to name them")
    shapes = {name: tensor.shape for name, tensor in beside[0].items()}
    found, _ = matching_order(list(masks), shapes, {"checkpoint": shapes}, "the checkpoint's weight")
    source.notes.append("names from the weights beside the list, by the sequence of shapes")
    return found
