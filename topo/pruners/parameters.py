"""Which weights of a model every method masks, and how each of them holds its mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from topo._support.trees import require_tree
from topo.errors import TopoError, TraceError
from topo.models import prunable
from topo.models.modules.holders import holder, unwrapped
from topo.models.modules.stored import Storage, natural, storage
from topo.networks import left_unmasked, maskable, matching
from topo.trace import trace
from topo.wiring import Wiring

Example = tuple[tuple[Any, ...], dict[str, Any]]


def masked_parameters(
    model: nn.Module,
    *,
    wiring: Wiring | None = None,
    input_shape: Any = None,
    example: Example | None = None,
    layers: str | Sequence[str] | None = None,
) -> tuple[dict[str, Storage], Wiring | None, list[str]]:
    """The weights that every method masks, with how each holds its mask; the model's wiring, where it is known; notes.

    They are the linear layers and convolutions of the wiring, or the layers of it that `layers` names: weight-normed
    and masked ones, stacked projections and matrices of one's own as well as modules of the known types; a tied weight
    once. The wiring is the one given, or traced, from an input of `input_shape`, or of the shape that the model
    carries, or from an `example`, the arguments of a forward pass.
    Without any of these, and where the trace fails, types of modules must do: the weights of all linear layers and
    convolutions, if the model has no other parameter that might be meant; a note tells of the trace that failed.

    TopoError, which says what to give, where neither is enough; for `layers` that are none; WiringError for a wiring
    that is not the model's.
    """
    module = unwrapped(model)
    require_tree(module)
    trouble = ""
    try:
        found = wiring if wiring is not None else _traced(module, input_shape, example)
    except TraceError as error:
        found, trouble = None, str(error).partition("\n")[0]
    if found is None:
        notes = [f"layers are told by the types of their modules, since the trace failed: {trouble}"] if trouble else []
        return _by_type(module, layers, trouble), None, notes
    if wiring is not None and layers is None:
        strange = [name for name in prunable(module) if name not in _all_names(module, found)]
        if strange:
            known = ", ".join(wiring.names)
            raise TopoError(f"'{strange[0]}' of the model is not a layer of the given wiring; its layers are: {known}")
    held = {}
    for name, shape in maskable(found, layers).items():
        place = holder(module, name)
        have = tuple(place.weight.shape)
        if math.prod(have) != math.prod(shape):
            raise TopoError(f"'{name}' has shape {have} but the wiring's layer has {shape}")
        held[name] = storage(name, shape, have, place.module, found)
    return held, found, left_unmasked(found) if layers is None else []


def _all_names(model: nn.Module, wiring: Wiring) -> set[str]:
    """The wiring's layers under each name that the model has for them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = {id(parameters[name]) for name in wiring.names if name in parameters}
    return {*wiring.names, *(name for name, parameter in parameters.items() if id(parameter) in known)}


def _traced(model: nn.Module, input_shape: Any, example: Example | None) -> Wiring | None:
    """The wiring, None if no input is known."""
    carries = getattr(model, "topo_inputs", None) is not None or getattr(model, "config", None) is not None
    if input_shape is not None or carries:
        return trace(model, input_shape)
    return None if example is None else trace(model, args=example[0], kwargs=example[1])


def _by_type(model: nn.Module, layers: str | Sequence[str] | None, trouble: str) -> dict[str, Storage]:
    """The weights of linear layers and convolutions by their modules' types."""
    known = {name: holder(model, name) for name in prunable(model)}
    seen: dict[tuple[int, ...], str] = {}
    for name, place in known.items():
        seen.setdefault(tuple(map(id, place.stored)), name)
    once = list(seen.values())
    if layers is not None:
        once = matching(layers, once)
    elif others := _others(model, {ident for key in seen for ident in key}):
        way = "give the shape of one input (input_shape=(3, 32, 32), --input 3x32x32), so that the model is traced, or "
        way = f"the trace failed ({trouble}); " if trouble else way
        share = sum(others.values()) / sum(p.numel() for p in model.parameters() if p.dim() > 1)
        raise TopoError(
            f"{', '.join(list(others)[:3])}{', ...' if len(others) > 3 else ''} ({share:.1%} of the weights) may be "
            f"layers, too: {way}name the layers to mask (layers=, --layers)"
        )
    if not once:
        raise TopoError(f"the model {type(model).__name__} has no linear layer or convolution to prune")
    return {name: natural(known[name].weight.shape, known[name].module) for name in once}


def _others(model: nn.Module, known: set[int]) -> Mapping[str, int]:
    """Parameters of two or more dimensions that are not weights of known layers, nor embeddings of their own."""
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and id(parameter) not in known | embeddings
    }
