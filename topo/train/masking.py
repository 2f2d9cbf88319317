"""Masks on a model: pruned weights are exactly zero, whatever optimizer works on it.

Two ways, by measurement (one thread, step time against the dense net: mlp:784-300-100-10 / ResNet-20 / ResNet-18):
a parametrization, which masks in every forward pass (+22 % / +8 % / +18 %), and one fused multiplication of all weights
after every optimizer step (+6 % / +1 % / +9 %). `apply_masks` uses the first: it needs no say over the optimizer and
goes wherever the module goes. `topo.train` owns its loop and uses the second; on a GPU that is one kernel a step
instead of two a layer (benchmarks/train_gpu.py measures both).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from topo._support.doors import first_line
from topo.errors import WiringError
from topo.masks import MaskSet, as_mask_set, warn_of_empty_layers
from topo.models.modules.holders import Holder, every_holder, holder, holders, own_class, unwrapped
from topo.models.modules.stored import Storage, natural, output_first_by_shape, storage
from topo.train.sharded import can_move, class_beneath, is_sharded, laid_as, moves_told
from topo.train.written import give_plainly, write_through

if TYPE_CHECKING:
    from topo.wiring import Wiring


class Masked(nn.Module):
    """The parametrization: weight where mask, else exactly 0 (and no gradient there). The mask is a bool buffer.

    held: how the parameter holds the mask. named: whether the mask was given under the name that the weight has here
    (a tied weight has others). order: the names of the module's parameters before any was masked. saved: whether the
    weight was part of state dicts (a buffer need not be).
    """

    mask: Tensor

    def __init__(self, mask: Tensor, held: Storage, named: bool, order: tuple[str, ...], saved: bool) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.held, self.named, self.order, self.saved = held, named, order, saved
        self._values: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and is_sharded(weight):  # outside of FSDP's own forward pass
            return torch.where(laid_as(self.mask, weight), weight, 0)
        # 0 and not 0.0, which makes floats of whole numbers; not weight * mask, which keeps NaN, infinities and -0.0.
        return torch.where(self.mask, weight, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """`layer.weight = x` sets x: what is pruned of it stays hidden, and is forgotten when masks are replaced."""
        return weight

    def known(self) -> Tensor:
        """The mask's values, also while the module is on the meta device."""
        return self.mask if self._values is None else self._values

    def set(self, mask: Tensor) -> None:
        """Other values, in the same buffer: what holds it (DistributedDataParallel, graphs) sees them."""
        if self.mask.is_meta:
            self._values = mask.clone()
        else:
            self.mask.copy_(mask)

    def _apply(self, fn: Any, recurse: bool = True) -> Masked:
        """To another device and back without losing the mask: through meta, and through `to_empty`, which leaves
        whatever stood in memory."""
        values = self.known()
        super()._apply(fn, recurse)
        if self.mask.is_meta:
            self._values = values
        else:
            self._values = None
            self.mask.copy_(values)
        return self


@dataclass(frozen=True)
class Drift:
    """A parameter whose pruned weights are not all zero.

    count: how many. index: of the first, in the parameter. largest: the largest magnitude among them.
    """

    name: str
    count: int
    index: tuple[int, ...]
    largest: float

    def __str__(self) -> str:
        what = "pruned weight that is not 0" if self.count == 1 else "pruned weights that are not 0"
        return f"'{self.name}' holds {self.count:,} {what}, the first at {self.index}, the largest {self.largest:.3g}"


def fitted(model: nn.Module, masks: MaskSet, wiring: Wiring | None = None) -> dict[str, Storage]:
    """How each masked parameter holds its mask; WiringError that names the first that does not fit.

    All masks are output-first, or all lie as torch stores the weights; one layout holds for all layers, so that a
    square layer is read as the others are.
    """
    places = {name: holder(model, name) for name in masks}
    turned = masks.provenance.get("input_first") or ()

    def laid_out(stored: bool) -> dict[str, Storage]:
        return {
            name: storage(
                name, masks.rows(name).shape, place.weight.shape, place.module, wiring, stored, name in turned
            )
            for name, place in places.items()
        }

    try:
        return laid_out(stored=False)
    except WiringError:
        try:
            return laid_out(stored=True)
        except WiringError:
            pass
        _require_one_layout(masks, places, wiring)
        raise


def _require_one_layout(masks: MaskSet, places: Mapping[str, Holder], wiring: Wiring | None) -> None:
    """WiringError that says which masks lie (out, in) and which (in, out), where both are there."""
    lies: dict[bool | None, list[str]] = {}
    for name, place in places.items():
        shapes = masks.rows(name).shape, place.weight.shape
        lies.setdefault(output_first_by_shape(name, *shapes, place.module, wiring), []).append(name)
    if lies.get(True) and lies.get(False):
        told = {way: ", ".join(f"'{name}'" for name in lies[way][:3]) for way in (True, False)}
        more = {way: f" and {len(lies[way]) - 3:,} more" if len(lies[way]) > 3 else "" for way in (True, False)}
        raise WiringError(
            f"the masks mix two layouts: {told[True]}{more[True]} lie (out, in), {told[False]}{more[False]} lie "
            "(in, out); transpose the ones or the others: all masks should lie (out, in), or all as the weights do"
        )


def tensor_of(mask: np.ndarray, held: Storage, device: torch.device | str) -> Tensor:
    """A mask as a bool tensor laid out as its parameter."""
    return torch.from_numpy(np.array(held.parameter(mask), np.bool_, order="C")).to(device)


def apply_masks(model: nn.Module, masks: MaskSet | Mapping[str, Any], wiring: Wiring | None = None) -> nn.Module:
    """Mask a model in place and give it back: from now on its pruned weights are exactly zero.

    They stay so through any optimizer, momentum, weight decay, AMP, torch.compile, deepcopy, state_dict round trips and
    DDP (mask before wrapping). A weight that several modules share is masked in each of them. Parameters without a mask
    stay as they are, dense or under the masks of an earlier call; masks that are given anew replace those, and weights
    that they bring back start at 0. What is written into a masked weight (`layer.weight = x`, `layer.weight.data += d`,
    nn.init) counts where the mask keeps. wiring: needed only where shapes do not tell whether a parameter is stored
    input-first.

    The masks are bool buffers of a parametrization, so a state dict holds `<name's module>.parametrizations.weight.0
    .mask` and `.original`; `strip_masks` gives plain weights with zeros.

    >>> masks = topo.generate("erk", "mlp:3-2-1", density=0.5)
    >>> model = topo.apply_masks(topo.models.build("mlp:3-2-1"), masks)
    >>> [int(layer.weight.count_nonzero()) for layer in (model.fc1, model.fc2)]
    [3, 1]

    Raises WiringError for a mask that fits no parameter, or that could not be in force at every module that holds the
    weight (nothing is masked then); MaskError for values other than 0 and 1.
    """
    inner, masks = unwrapped(model), as_mask_set(masks)
    held = fitted(inner, masks, wiring)
    plan = _planned(inner, masks, held)
    new = next((name for name, (places, _) in plan.items() if not all(map(applied, places))), None)
    if new is not None and isinstance(model, nn.parallel.DistributedDataParallel):
        raise WiringError(
            f"the model is wrapped in DistributedDataParallel and '{new}' is not masked yet; mask it before it is "
            "wrapped, so that every process gets the masks"
        )
    for places, mask in plan.values():
        alive = mask
        for there in (one for one in map(applied, places) if one is not None):
            alive = alive & there.known().to("cpu")
        for place in places:
            _forget(place, mask, alive)
    if new is not None:
        _require_movable(inner)
    with moves_told(inner):
        for name, (places, mask) in plan.items():
            for place in places:
                _put(place, mask, held[name], place is places[0])
    for name, method in _OWN_METHODS.items():
        if hasattr(inner, name):
            vars(inner)[name] = MethodType(method, inner)  # a deep copy binds it to the copy
    return model


def _named_in_order(
    model: nn.Module, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Parameter]]:
    """`named_parameters` of a masked model: a masked weight stands where it stood before it was masked.

    So `model.parameters()` has the order of the plain model, and the state of an optimizer, which counts them, goes
    from one to the other. torch lists a module's own parameters first and a parametrized weight after them.
    """
    given: set[Any] = set()
    for path, module in model.named_modules(prefix=prefix) if recurse else [(prefix, model)]:
        listed = dict(module._parameters)
        masked = dict(_on(module)) if recurse else {}
        if masked:
            order = next(iter(masked.values())).order
            beneath = {name: _beneath(module, name) for name in masked}
            own = module._parameters | {name: entry for name, entry in beneath.items() if entry is not None}
            listed = {name: own[name] for name in [*order, *own] if name in own}
        for name, parameter in listed.items():
            full = f"parametrizations.{name}.original" if name in masked else name
            full = f"{path}.{full}" if path else full
            seen = parameter if remove_duplicate else full
            if parameter is not None and seen not in given:
                given.add(seen)
                yield full, parameter


def _tie_beneath(model: nn.Module, *given: Any, **options: Any) -> Any:
    """`tie_weights` of a model of transformers, which looks for plain parameters: masks are off while it does."""
    with laid_aside(model, None):
        return cast(Any, type(model)).tie_weights(model, *given, **options)


def _save_plain(model: nn.Module, *given: Any, **options: Any) -> Any:
    """`save_pretrained` of a model of transformers: plain names and zeros in place, as `from_pretrained` reads them.

    With the names of a masked module it refuses tied weights, and reads others as if they were not there.
    """
    sharded = any(is_sharded(tensor) for place, _ in _masked(model) for tensor in place.stored)
    with nullcontext() if sharded else laid_aside(model, None):
        return cast(Any, type(model)).save_pretrained(model, *given, **options)


# What a masked model does in its own way.
_OWN_METHODS: dict[str, Callable[..., Any]] = {
    "named_parameters": _named_in_order,
    "tie_weights": _tie_beneath,
    "save_pretrained": _save_plain,
}


def _beneath(module: nn.Module, attribute: str) -> nn.Parameter | None:
    """The one parameter that a masked weight is computed from; None where there is a buffer, or several."""
    entry: Any = module.parametrizations[attribute]  # type: ignore[index]
    parameter: nn.Parameter | None = entry._parameters.get("original")
    return parameter


Plan = dict[str, tuple[tuple[Holder, ...], Tensor]]


def _planned(model: nn.Module, masks: MaskSet, held: Mapping[str, Storage]) -> Plan:
    """For each mask its holders and its values as they lie there; WiringError where one could not be in force."""
    plan: Plan = {}
    first: dict[int, str] = {}
    for name in masks:
        places = holders(model, holder(model, name))
        mask = tensor_of(masks[name], held[name], "cpu")
        for place in places:
            if (why := _out_of_reach(place)) is not None:
                raise WiringError(why if place is places[0] else f"'{name}' is also '{place.name}', and {why}")
        twin = next((first[id(tensor)] for tensor in places[0].stored if id(tensor) in first), None)
        if twin is not None:
            if not torch.equal(plan[twin][1], mask):
                raise WiringError(f"'{twin}' and '{name}' are one weight under two names, with two different masks")
            continue
        first |= {id(tensor): name for tensor in places[0].stored}
        plan[name] = places, mask
    return plan


def _out_of_reach(place: Holder) -> str | None:
    """Why no mask can be in force here, if so."""
    hook = place.hook
    if isinstance(hook, prune.BasePruningMethod):
        return f"'{place.name}' is already pruned by torch.nn.utils.prune; strip_masks(model) bakes that in"
    if hook is not None:
        kind = "weight_norm" if type(hook).__name__ == "WeightNorm" else "spectral_norm"
        return (
            f"'{place.name}' is written anew before each forward pass by torch.nn.utils.{kind}; "
            f"torch.nn.utils.parametrizations.{kind} can be masked"
        )
    return _not_written(place)


def _require_movable(model: nn.Module) -> None:
    if not can_move(model):
        raise WiringError(
            "the model is sharded, and this torch does not say where its shards lie; apply masks before fully_shard, "
            "and strip a whole model that has loaded the gathered state dict"
        )


def _not_written(place: Holder) -> str | None:
    """Why nothing can be written into the weight, if so."""
    for tensor in place.stored:
        if tensor.is_inference():
            return f"'{place.name}' was made in inference mode, where nothing can be written; build the model outside"
        if tensor.layout != torch.strided:
            return f"'{place.name}' is stored as {tensor.layout}; masks are of dense tensors (to_dense)"
        if not is_sharded(tensor) and any(n > 1 and not step for n, step in zip(tensor.shape, tensor.stride())):
            return f"'{place.name}' is an expanded view, whose elements share memory; give the module a clone of it"
    return None


def _put(place: Holder, mask: Tensor, held: Storage, named: bool) -> None:
    """Put a mask on one holder, or in place of the one there."""
    there = applied(place)
    if there is not None:
        there.set(mask)
        there.held, there.named = held, named
        return
    module, attribute = place.module, place.attribute
    order = next((one.order for _, one in _on(module)), tuple(module._parameters))
    own_class(module)
    saved = attribute not in module._non_persistent_buffers_set
    made = Masked(mask.clone(), held, named, order, saved).to(place.stored[0].device)
    try:
        parametrize.register_parametrization(module, attribute, made)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WiringError(f"'{place.name}' takes no mask: {first_line(error)}") from error
    write_through(module, attribute)
    if isinstance(module, nn.RNNBase):
        _keep_no_weights(module)


@torch.no_grad()
def _forget(place: Holder, mask: Tensor, alive: Tensor) -> None:
    """Set the weight to 0 where it was pruned before, or is from now on: weights that come back start there.

    alive: kept by `mask` and by the masks before it. What the optimizer's momentum left beneath the masks is gone.
    """
    stored = place.stored
    if stored[0].is_meta:
        return
    if not place.is_parametrized or _alone(place):
        for tensor in stored:
            tensor.copy_(torch.where(laid_as(alive, tensor), tensor, 0.0))
    elif applied(place) is not None and bool((mask & ~alive).any()):
        _forget_computed(place, mask & ~alive)


def _alone(place: Holder) -> bool:
    """Whether nothing but masks is between the parameter and the weight."""
    entry: Any = place.module.parametrizations[place.attribute]  # type: ignore[index]
    return bool(entry.is_tensor) and all(isinstance(part, Masked) for part in entry)


def _forget_computed(place: Holder, back: Tensor) -> None:
    """The same for a weight that is computed (weight norm), where it comes back: by the way that writes it.

    WiringError if that does not bring zeros there.
    """
    entry: Any = place.module.parametrizations[place.attribute]  # type: ignore[index]
    before = [tensor.clone() for tensor in place.stored]
    beneath = [part for part in entry if not isinstance(part, Masked)]
    setattr(place.module, place.attribute, place.weight.detach().clone())

    def computed() -> Tensor:
        made: Any = [getattr(entry, f"original{i}") for i in range(entry.ntensors)] if not entry.is_tensor else None
        made = beneath[0](entry.original) if made is None else beneath[0](*made)
        for part in beneath[1:]:
            made = part(made)
        return made

    # A row of zeros has no direction: it keeps the one that it had, at length 0.
    lost = ~torch.isfinite(computed())
    for tensor, was in zip(place.stored, before):
        if tensor.shape == lost.shape:
            tensor.copy_(torch.where(lost, was, tensor))
    now = computed()
    if bool((now[back.to(now.device)] != 0).any()):
        for tensor, was in zip(place.stored, before):
            tensor.copy_(was)
        raise WiringError(
            f"'{place.name}' is computed by {type(beneath[0]).__name__}: weights that its mask brings back cannot "
            "start at 0; strip_masks(model) before other masks are applied"
        )


def _keep_no_weights(module: nn.RNNBase) -> None:
    """A recurrent module keeps a list of its weights; a masked one gives them anew at each look, and keeps none that
    a deep copy could not copy."""

    def weights(self: nn.RNNBase) -> list[Tensor]:
        return [getattr(self, name) for name in self._flat_weights_names if hasattr(self, name)]

    vars(module).pop("_flat_weights", None)
    type(module)._flat_weights = property(weights, lambda self, values: None)  # type: ignore[assignment]


def applied(place: Holder) -> Masked | None:
    """The mask that `apply_masks` put on a weight, if there is one."""
    return dict(_on(place.module)).get(place.attribute)


def _on(module: nn.Module) -> Iterator[tuple[str, Masked]]:
    """The masked attributes of a module with their masks."""
    if parametrize.is_parametrized(module):
        for attribute, parts in module.parametrizations.items():  # type: ignore[union-attr, operator]
            yield from ((attribute, part) for part in parts if isinstance(part, Masked))


def _masked(model: nn.Module) -> Iterator[tuple[Holder, Masked]]:
    for path, module in list(model.named_modules()):
        for attribute, mask in list(_on(module)):
            yield Holder(path, module, attribute), mask


def applied_masks(model: nn.Module) -> MaskSet | None:
    """The masks that are in force on a model, by `apply_masks` or by torch.nn.utils.prune; None if there are none.

    A weight that several modules share has one mask, under the name under which it was given.
    """
    inner = unwrapped(model)
    found = {place.name: (place, part.held, part.known()) for place, part in _masked(inner) if part.named}
    for place in _pruned_by_torch(inner):
        found[place.name] = place, natural(place.weight.shape, place.module), _torch_mask(place)
    masks = {place.name: held.mask(mask.cpu().numpy() != 0) for place, held, mask in found.values()}
    return MaskSet(masks) if masks else None


def _pruned_by_torch(model: nn.Module) -> list[Holder]:
    """The weights of two or more dimensions that torch.nn.utils.prune masks; a tied one once."""
    found: dict[tuple[int, ...], Holder] = {}
    for place in every_holder(model):
        if isinstance(place.hook, prune.BasePruningMethod) and place.stored[0].dim() > 1:
            found.setdefault(tuple(map(id, place.stored)), place)
    return list(found.values())


def _torch_mask(place: Holder) -> Tensor:
    mask: Tensor = getattr(place.module, f"{place.attribute}_mask")
    return mask


def strip_masks(model: nn.Module) -> nn.Module:
    """Bake the masks in and give the model back: plain parameters again, zero where they were pruned.

    Undoes `apply_masks` and torch.nn.utils.prune alike; the parameters are the same objects in the order that they had
    before `apply_masks`. Other parametrizations of a masked weight (weight norm) are baked in with its mask. Nothing
    holds the weights at zero afterwards. A model that is sharded (FSDP2) stays so; every process strips it.

    >>> masks = topo.generate("erk", "mlp:3-2-1", density=0.5)
    >>> model = topo.strip_masks(topo.apply_masks(topo.models.build("mlp:3-2-1"), masks))
    >>> sorted(name for name, _ in model.named_parameters())
    ['fc1.bias', 'fc1.weight', 'fc2.bias', 'fc2.weight']

    Raises WiringError for a sharded weight that another parametrization computes too.
    """
    inner = unwrapped(model)
    places = [place for place, _ in _masked(inner)]
    for place in places:
        if any(map(is_sharded, place.stored)) and not _alone(place):
            raise WiringError(f"'{place.name}' is sharded and computed by another parametrization; strip a whole copy")
    if places:
        _require_movable(inner)
    with moves_told(inner):
        for place in places:
            with class_beneath(place.module):
                _strip(place)
    for name in _OWN_METHODS:
        vars(inner).pop(name, None)
    for module in inner.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return model


def _strip(place: Holder) -> None:
    module, attribute = place.module, place.attribute
    there: Any = applied(place)
    own_class(module)
    give_plainly(module, attribute)
    sharded = any(map(is_sharded, place.stored))  # nothing sets a DTensor to another one
    if sharded:
        with torch.no_grad():
            place.stored[0].copy_(place.weight)
    parametrize.remove_parametrizations(module, attribute, leave_parametrized=not sharded)
    names = [name for name in there.order if name in module._parameters]
    for name in [*names, *(name for name in module._parameters if name not in there.order)]:
        module._parameters[name] = module._parameters.pop(name)
    if not there.saved:
        module._non_persistent_buffers_set.add(attribute)
    if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
        module._init_flat_weights()


@contextmanager
def laid_aside(
    model: nn.Module,
    masks: MaskSet | Mapping[str, Any] | None,
    wiring: Wiring | None = None,
    moved: Sequence[MaskSet] = (),
) -> Iterator[MaskSet | None]:
    """The masks to train a model under: those given, and those on it for the layers that are not named.

    moved: a list into which a loop whose masks move puts those at its end, which are then put on the model.

    Inside, masks that are on plain parameters are off, for a loop that keeps weights at zero by itself; afterwards they
    are on again, in the way in which they were (torch.nn.utils.prune, or `apply_masks`).
    """
    inner = unwrapped(model)
    there = applied_masks(inner)
    given = None if masks is None else as_mask_set(masks)
    if there is None:
        yield given
        return
    everywhere = there if given is None else together(there, given)
    fitted(inner, everywhere, wiring)  # before the model is touched
    pruned = [place.name for place in _pruned_by_torch(inner)]
    for place, _ in list(_masked(inner)):
        if _alone(place):
            _strip(place)
    for place in list(every_holder(inner)):
        if isinstance(place.hook, prune.BasePruningMethod) and place.name in pruned:
            prune.remove(place.module, place.attribute)
    try:
        yield everywhere
    finally:
        put_back(inner, moved[-1] if moved else everywhere, pruned, wiring)


def put_back(
    model: nn.Module, masks: MaskSet, pruned: Sequence[str] | None = None, wiring: Wiring | None = None
) -> None:
    """Put masks on a model, on the layers `pruned` by torch.nn.utils.prune; by default on those that are so already."""
    pruned = [place.name for place in _pruned_by_torch(model)] if pruned is None else pruned
    held = fitted(model, masks, wiring)
    for name in pruned:
        place = holder(model, name)
        mask = tensor_of(masks[name], held[name], place.weight.device)
        prune.custom_from_mask(place.module, place.attribute, mask)
    _apply_some(model, masks, lambda name: name not in pruned, wiring)


def in_place(model: nn.Module, masks: MaskSet, wiring: Wiring | None = None) -> tuple[str, ...]:
    """The masked weights that are plain parameters, to be kept at zero in place; the others are masked by
    `apply_masks`, which a multiplication cannot do for a weight that is computed (weight norm)."""
    warn_of_empty_layers(masks)
    places = {name: holders(model, holder(model, name)) for name in masks}
    plain = {name: all(place.is_plain for place in places[name]) for name in masks}
    for why in (_not_written(places[name][0]) for name in masks if plain[name]):
        if why is not None:
            raise WiringError(why)
    _apply_some(model, masks, lambda name: not plain[name], wiring)
    return tuple(name for name in masks if plain[name])


def _apply_some(model: nn.Module, masks: MaskSet, wanted: Callable[[str], bool], wiring: Wiring | None) -> None:
    if some := {name: masks[name] for name in masks if wanted(name)}:
        apply_masks(model, some, wiring)


def together(there: MaskSet, given: MaskSet) -> MaskSet:
    """Masks on a model, and those given in their place where both name a layer."""
    stay = {name: there[name] for name in there if name not in given}
    if not stay:
        return given
    return MaskSet({**stay, **{name: given[name] for name in given}}, provenance=given.provenance)


def verify_masks(
    model: nn.Module, masks: MaskSet | Mapping[str, Any], wiring: Wiring | None = None
) -> tuple[Drift, ...]:
    """Where the model's weights are not zero though the masks prune them, module by module; empty if nowhere.

    What people need after fine-tuning, merging or exporting. NaN counts as not zero. A tied weight is looked at in
    every module that holds it; sharded weights are gathered. A Drift prints as one line.
    wiring: needed only where shapes do not tell whether a parameter is stored input-first.

    >>> masks = topo.generate("erk", "mlp:3-2-1", density=0.5)
    >>> model = topo.models.build("mlp:3-2-1")
    >>> [(drift.name, drift.count) for drift in topo.verify_masks(model, masks)]
    [('fc1.weight', 3), ('fc2.weight', 1)]
    >>> topo.verify_masks(topo.apply_masks(model, masks), masks)
    ()

    Raises WiringError for a mask that fits no parameter, or for a model on the meta device, which has no weights.
    """
    inner, masks = unwrapped(model), as_mask_set(masks)
    found = []
    for name, held in fitted(inner, masks, wiring).items():
        first = holder(inner, name)
        places = holders(inner, first) if first.stored else (first,)
        for place in [first, *(place for place in places[1:] if not place.is_plain)]:
            weight = _whole(place.weight)
            if weight.is_meta:
                raise WiringError(f"'{place.name}' is on the meta device and has no values to verify")
            revived = ~tensor_of(masks[name], held, weight.device) & (weight != 0)
            count = int(revived.sum())
            if count:
                at = int(revived.reshape(-1).int().argmax())
                index = tuple(map(int, np.unravel_index(at, held.shape)))
                found.append(Drift(place.name, count, index, float(weight[revived].abs().max())))
    return tuple(found)


def _whole(weight: Any) -> Tensor:
    """A weight, gathered if it is sharded."""
    whole: Tensor = weight.full_tensor() if is_sharded(weight) else weight
    return whole.detach()


class FusedMasks:
    """One multiplication for all masked parameters of a plain model, to be called after each optimizer step.

    The masks have the weights' type and memory layout, or the multiplication would not be one kernel.
    """

    def __init__(self, weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        self.masks = [torch.empty_like(weight).copy_(mask) for weight, mask in zip(weights, masks)]

    @classmethod
    def of(cls, model: nn.Module, masks: Mapping[str, Tensor]) -> FusedMasks:
        """masks: name -> bool tensor in the parameter's layout. WiringError for a weight that is none itself."""
        places = {name: holder(model, name) for name in masks}
        for name, place in places.items():
            if not all(each.is_plain for each in holders(model, place)):
                raise WiringError(f"'{name}' is computed by a parametrization or a hook, and cannot be masked in place")
        return cls([place.stored[0].detach() for place in places.values()], list(masks.values()))

    def set(self, masks: Sequence[Tensor]) -> None:
        """Other masks, in the same memory."""
        for held, mask in zip(self.masks, masks, strict=True):
            held.copy_(mask)

    @torch.no_grad()
    def __call__(self) -> None:
        if self.weights:
            torch._foreach_mul_(self.weights, self.masks)
