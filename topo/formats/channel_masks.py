"""Masks of one entry per output channel: each stands for the whole row of its layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.fitting import aligned, stored_shape
from topo.formats.source import Found, Source, plural, reader
from topo.layout import input_first


def recognise(source: Source) -> str | None:
    state = source.state
    if not state or source.place.wide:
        return "it holds tensors of two or more dimensions" if state else "no masks by name"
    flat = [tensor for tensor in state.values() if tensor.ndim == 1 and tensor.size > 1]
    if len(flat) != len(state) or not all(tensor.is_binary for tensor in flat):
        return "not every tensor is a vector of 0 and 1"
    if all(tensor.is_ones for tensor in flat):
        return "its vectors are all ones"
    if source.wiring is None and not source.place.named("mask") and source.place.path:
        return "no key says that its vectors are masks"
    return None


@reader("channel_masks", "a vector of 0 and 1 per output channel of each layer", before="zeros", recognise=recognise)
def read(source: Source) -> Found:
    shapes: dict[str, tuple[int, ...]] = {}
    turned: dict[str, int] = {}
    names = {name: name for name in source.state}
    if source.wiring is not None:
        names = aligned(source.state, source.wiring)
        shapes = {name: stored_shape(source.wiring.layer(name)) for name in source.wiring.names}
        turned = source.wiring.input_first
    else:
        for weights in source.weights_beside():
            shapes = {name: tensor.shape for name, tensor in weights.items()}
            names = {name: name if name in shapes else f"{name}.weight" for name in source.state}
            if any(name in shapes for name in names.values()):
                break
    found: dict[str, Tensor] = {}
    for name, mask in source.state.items():
        shape, groups = shapes.get(names[name]), turned.get(names[name])
        if shape is None:
            continue
        outputs = shape[0] if groups is None else shape[1] * groups
        if mask.size != outputs:
            raise FormatError(f"'{name}' masks {mask.size} output channels but its layer has {outputs}")
        found[name] = _rows(mask, shape, groups)
    if not found:
        lacking = "the layers' shapes: give the model" if source.wiring is None else "a layer of the model"
        raise FormatError(f"its {plural(len(source.state), 'mask')} of one entry per output channel lack {lacking}")
    source.notes.append(f"{plural(len(found), 'mask')} of one entry per output channel, taken for whole rows")
    return found


def _rows(mask: Tensor, shape: tuple[int, ...], groups: int | None) -> Tensor:
    """Every entry of a vector over its row; of an input-first parameter, laid out as that is stored."""

    def spread(array: np.ndarray) -> np.ndarray:
        if groups is None:
            return np.broadcast_to(array.reshape(-1, *[1] * (len(shape) - 1)), shape)
        first = (shape[1] * groups, shape[0] // groups, *shape[2:])
        return input_first(np.broadcast_to(array.reshape(-1, *[1] * (len(shape) - 1)), first), groups)

    return replace(mask.view(shape, spread))
