"""Masks held to the weights that stand beside them, or to the model: called as these are, and spread over them.

Pruners write masks under names that a ModuleDict may have (`layer1_0_conv`), number them, or keep an entry per output
channel or per kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from topo.containers.tensors import Rows, Tensor
from topo.errors import FormatError
from topo.formats.fitting import stored_shape, stored_shapes
from topo.formats.names import unwrapped
from topo.formats.partners import same_words
from topo.formats.source import Source, matching_order, plural, some


def called_as_weights(raw: Mapping[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Masks under the names of the weights beside them, where words or an order tell which are meant.

    Raises FormatError for numbered masks that do not fit the weights one by one.
    """
    wide = {name: tensor for name, tensor in raw.items() if tensor.ndim >= 1}
    if not wide or any(tensor.inferred for tensor in wide.values()):
        return dict(raw)
    beside = _weights_beside(source, raw)
    if all(name.isdecimal() for name in wide) and not all(f"{name}.weight" in beside for name in wide):
        return _by_number(wide, beside, source)
    if source.wiring is not None or not beside or any(name in beside for name in wide):
        return dict(raw)
    same = {name: f"{name}.weight" for name in wide if f"{name}.weight" in beside}  # a module's name
    others = same_words([name for name in wide if name not in same], beside)
    same |= others
    if not same or len(set(same.values())) < len(same):
        return dict(raw)
    source.made.update({new: [old, new] for old, new in same.items()})
    if others:
        source.notes.append(f"{plural(len(others), 'mask')} named as the weights beside them: {some(others.values())}")
    return {same.get(name, name): tensor for name, tensor in raw.items()}


def _by_number(masks: Mapping[str, Tensor], beside: Mapping[str, tuple[int, ...]], source: Source) -> dict[str, Tensor]:
    """Masks 0, 1, 2: of the modules of those numbers, or in the order of the weights."""
    wiring = source.wiring
    shapes = beside if wiring is None else stored_shapes(wiring)
    if not shapes or all(f"{name}.weight" in shapes or name in shapes for name in masks):
        return dict(masks)
    listed = [masks[name] for name in sorted(masks, key=int)]
    orders = {"the file's order": beside} if wiring is None else {"module order": wiring.parameters}
    found, _ = matching_order(list(listed), shapes, orders, "the weight" if wiring is None else "the model's layer")
    source.made.update({new: [old, new] for old, new in zip(sorted(masks, key=int), found)})
    source.notes.append(f"numbered masks named by the sequence of shapes, in {next(iter(orders))}")
    return found


def _weights_beside(source: Source, raw: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights at the place that was read and at those beside it, by parameter."""
    held = {name: tensor for name, (_, tensor) in source.place.parameters.items() if raw.get(name) is not tensor}
    own = {name: t.shape for name, t in held.items() if t.ndim >= 2 and t.is_float and not t.is_binary}
    others = source.weights_beside()
    best = max(others, key=len, default={})
    return {**{name: tensor.shape for name, tensor in best.items()}, **own}


def spread(raw: Mapping[str, Tensor], names: Mapping[str, str], source: Source) -> dict[str, Tensor]:
    """Masks of one entry per output channel, per kernel or per row, spread over the weights that they are of.

    names: those in the file -> parameters. Raises FormatError where nothing tells the weights' shapes.
    """
    if all(tensor.inferred for tensor in raw.values()):
        return dict(raw)
    shapes = {unwrapped(name): shape for name, shape in _weights_beside(source, raw).items()}
    result = dict(raw)
    wider = []
    for name, tensor in raw.items():
        shape = _shape_of(name, names[name], shapes, source)
        if tensor.inferred or tensor.ndim < 1 or shape in ((), tensor.shape):
            continue
        filled = (*tensor.shape, *[1] * (len(shape) - tensor.ndim))
        if len(filled) == len(shape) and all(n in (1, whole) for n, whole in zip(filled, shape)) and tensor.is_binary:
            result[name] = tensor.view(shape, partial(_filled, filled, shape))
            wider.append(name)
        elif tensor.ndim >= 2 and tensor.size == prod(shape) and tensor.shape[0] == shape[0]:
            result[name] = replace(tensor, shape=shape, rows=_laid_out(tensor, shape))
    if wider:
        source.notes.append(f"{plural(len(wider), 'mask')} smaller than the weight spread over it: {some(wider)}")
    wide = [tensor for tensor in result.values() if tensor.ndim >= 2]
    if wide and any(t.ndim > 2 for t in wide) and all(prod(t.shape[1:]) == 1 and not t.inferred for t in wide):
        if not all(tensor.is_ones for tensor in wide) and all(name not in _known(names, source) for name in raw):
            raise FormatError(
                f"its {plural(len(wide), 'mask')} of one entry per output channel lack the layers' shapes: give the "
                "model"
            )
    return result


def _known(names: Mapping[str, str], source: Source) -> dict[str, tuple[int, ...]]:
    wiring = source.wiring
    return {} if wiring is None else {old: wiring.shapes[new] for old, new in names.items() if new in wiring.shapes}


def _shape_of(name: str, parameter: str, shapes: Mapping[str, tuple[int, ...]], source: Source) -> tuple[int, ...]:
    """The shape of the weight that a mask is of; () where it is not known, or stored input-first."""
    wiring = source.wiring
    if wiring is not None:
        known = parameter in wiring.shapes and not wiring.layer(parameter).transposed
        return stored_shape(wiring.layer(parameter)) if known else ()
    own = unwrapped(name)
    return shapes.get(own) or shapes.get(f"{own}.weight") or ()


def _filled(smaller: tuple[int, ...], shape: tuple[int, ...], array: np.ndarray) -> np.ndarray:
    return np.broadcast_to(array.reshape(smaller), shape)


def _laid_out(tensor: Tensor, shape: tuple[int, ...]) -> Rows:
    """The rows of a flattened mask in the shape of its weight."""
    return lambda count: (block.reshape(-1, *shape[1:]) for block in tensor.rows(count))
