"""Masks held to the weights that stand beside them, or to the model: called as these are, and spread over them.

Pruners write masks under names that a ModuleDict may have (`layer1_0_conv`), number them, or keep an entry per output
channel or per kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from topo.containers.tensors import Rows, Tensor
from topo.errors import FormatError
from topo.formats.fitting import aligned, stored_shape, stored_shapes
from topo.formats.names import unwrapped
from topo.formats.partners import NUMBERED, by_shape_and_words, same_words, whose
from topo.formats.source import Source, matching_order, plural, some

_DECIMAL = re.compile(r"(\d+)")


def called_as_weights(raw: Mapping[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Masks under the names of the weights beside them, where words or an order tell which are meant.

    Raises FormatError for numbered masks that do not fit the weights one by one.
    """
    wide = {name: tensor for name, tensor in raw.items() if tensor.ndim >= 1}
    if not wide or any(tensor.inferred for tensor in wide.values()):
        return dict(raw)
    beside = _weights_beside(source, raw)
    numbers = _numbers(wide)
    if numbers and not all(f"{number}.weight" in beside for number in numbers.values()):
        return _by_number(wide, numbers, beside, source)
    if not beside or any(name in beside for name in wide) or _fits(source, wide):
        return dict(raw)
    same = {name: f"{name}.weight" for name in wide if f"{name}.weight" in beside}  # a module's name
    others = same_words([name for name in wide if name not in same], beside)
    rest = [name for name in wide if name not in same and name not in others]
    places = by_shape_and_words(beside.items())
    for name in rest:
        weight = whose(name, places.get(wide[name].shape, {}))
        others |= {} if weight is None else {name: weight}
    same |= others
    if not same or len(set(same.values())) < len(same):
        if source.wiring is None and not any(name.endswith(f".{known}") for known in beside for name in wide):
            source.notes.append(f"the masks are not called as the weights beside them are: {some(beside)}")
        return dict(raw)
    fits = {old for old, new in same.items() if new.endswith(f".{old}")}  # but for a prefix: the name stays
    source.made.update({old if old in fits else new: [old, new] for old, new in same.items()})
    same = {old: new for old, new in same.items() if old not in fits}
    others = {old: new for old, new in others.items() if old not in fits}
    if others:
        source.notes.append(f"{plural(len(others), 'mask')} named as the weights beside them: {some(others.values())}")
    return {same.get(name, name): tensor for name, tensor in raw.items()}


def _by_number(
    masks: Mapping[str, Tensor], numbers: Mapping[str, int], beside: Mapping[str, tuple[int, ...]], source: Source
) -> dict[str, Tensor]:
    """Masks 0, 1, 2: of the modules of those numbers, or in the order of the weights."""
    wiring = source.wiring
    shapes = beside if wiring is None else stored_shapes(wiring)
    if not shapes or all(f"{name}.weight" in shapes or name in shapes for name in masks):
        return dict(masks)
    order = sorted(masks, key=lambda name: numbers[name])
    orders = {"the file's order": beside} if wiring is None else {"module order": wiring.parameters}
    whose = "the weight" if wiring is None else "the model's layer"
    found, _ = matching_order([masks[name] for name in order], shapes, orders, whose)
    source.made.update({new: [old, new] for old, new in zip(order, found)})
    source.notes.append(f"numbered masks named by the sequence of shapes, in {next(iter(orders))}")
    return found


def _numbers(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Name -> its number, where the masks are `0`, `1`, `2`, or `masks.0`, `masks.1`, `masks.2`; else none."""
    found = [(name, NUMBERED.fullmatch(name) or _DECIMAL.fullmatch(name)) for name in masks]
    numbered = {name: match for name, match in found if match is not None}
    starts = {name[: match.start(1)] for name, match in numbered.items()}
    if len(starts) != 1 or len(numbered) < len(masks):
        return {}
    return {name: int(match[1]) for name, match in numbered.items()}


def _fits(source: Source, masks: Mapping[str, Tensor]) -> bool:
    """Whether the masks are called as the model's layers are, as far as they go."""
    wiring = source.wiring
    if wiring is None:
        return False
    try:
        names = aligned(masks, wiring, source.state)
    except FormatError:
        return False
    return all(names[name] in wiring.shapes for name, tensor in masks.items() if tensor.ndim >= 2)


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
            _require_one_way(name, tensor.shape, shape)
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


def _require_one_way(name: str, mask: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """FormatError for a mask of several dimensions that torch's broadcasting would lay along other axes."""
    last = (*[1] * (len(shape) - len(mask)), *mask)
    if 1 < len(mask) < len(shape) and all(n in (1, whole) for n, whole in zip(last, shape)):
        raise FormatError(
            f"mask '{name}' has shape {mask}, its weight {shape}: it may stand for the first axes or for the last; "
            f"give it {len(shape)} dimensions"
        )


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
