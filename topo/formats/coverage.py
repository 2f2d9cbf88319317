"""What of a file was read, and what was not: no part is told as the whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError, MaskError
from topo.formats.names import is_vector, is_weight, unwrapped
from topo.formats.packed import is_beside_packed
from topo.formats.partners import is_called_mask, is_mask, is_of_tokens
from topo.formats.source import Source, plural, some
from topo.formats.tree import Branch
from topo.masks import BitRows
from topo.report.coverage import left_out_line

if TYPE_CHECKING:
    from topo.wiring import Wiring

# Ends of names that stand for no parameter of their own: masks and what pruners and quantisers keep beside weights.
_BESIDE = (".bitmask", ".shape", ".compressed", ".row_offsets", ".scores", ".mask_scores", ".flag", "_mask", ".mask",
           ".bias_scores", ".bias_flag", ".qzeros", ".g_idx", "running_mean", "running_var")  # fmt: skip

# Integers that are places of tokens, pixels and windows, and no weights.
_PLACES = re.compile(
    r"(?:^|[._])(?:\w*_)?(?:ids?|index|indexes|positions?|coords?|anchors?|grid|buckets?|table|order)$", re.I
)


@dataclass(frozen=True)
class Coverage:
    """read: parameters with a mask. left_out: name -> parameters of what has none."""

    read: int
    left_out: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: {"read", "left_out", "names"}."""
        return {"read": self.read, "left_out": sum(self.left_out.values()), "names": list(self.left_out)}


def uncovered(source: Source, found: Iterable[str]) -> dict[str, tuple[str, Tensor]]:
    """Parameters of two or more dimensions without a mask, of the place that was read and of weights beside it -> their
    names in the file, and their tensors.

    found: names as the reader gave them, before they became the model's.
    """
    used = {unwrapped(old) for name in found for old in source.made.get(name, [name])}
    bare = {name.removesuffix(".weight") for name in used}
    left: dict[str, tuple[str, Tensor]] = {}
    beside = [other for other in source.others if _same_network(other, used | bare)]
    every = [(place, *pair) for place in (source.place, *beside) for pair in place.parameters.items()]
    for place, parameter, (name, tensor) in every:
        if (tensor.ndim < 2 and name not in place.packed) or is_beside_packed(name, place.packed):
            continue
        plain = unwrapped(parameter)
        if "/" in plain:  # flax: a collection, then the path
            plain = ".".join(part for part in plain.split("/") if part not in ("params", "masks", "mask"))
        if (
            plain in used
            or parameter in used
            or plain in bare
            or (place is not source.place and _ends_in(plain, used))
            or plain.removesuffix("kernel") + "weight" in used
            or not (name in place.packed or _counts(name, plain, tensor))
        ):
            continue
        left[plain] = name, tensor
    repeated = ((name, source.state[name]) for name in source.place.copies)
    return left | {
        name: (name, tensor) for name, tensor in repeated if unwrapped(name) not in used and tensor.ndim >= 2
    }


def coverage(
    source: Source, left: Mapping[str, tuple[str, Tensor]], masks: Mapping[str, BitRows], lost: Mapping[str, int]
) -> Coverage:
    """How much has a mask, and how much has none (`uncovered`), or lies in a file that is missing (lost)."""
    read = sum(rows.size for rows in masks.values())
    return Coverage(read, {**{plain: size_of(source, name, tensor) for plain, (name, tensor) in left.items()}, **lost})


def size_of(source: Source, name: str, tensor: Tensor) -> int:
    """Parameters that a tensor of this name in the file stands for: packed integers hold several each."""
    return next((branch.packed[name] for branch in source.tree if name in branch.packed), tensor.size)


def _same_network(place: Branch, used: set[str]) -> bool:
    """Whether a place holds weights of the parameters that were read: masks of some beside weights of all."""
    names = {unwrapped(name) for name, (_, tensor) in place.parameters.items() if tensor.is_float and tensor.ndim >= 2}
    return any(_ends_in(name, used) for name in names)


def _ends_in(name: str, used: set[str]) -> bool:
    """Whether a name, or what is left of it without its first parts, is one of those."""
    while name:
        if name in used or name.removesuffix(".weight") in used:
            return True
        name = name.partition(".")[2]
    return False


def _counts(name: str, plain: str, tensor: Tensor) -> bool:
    if tensor.ndim < 2 or name.endswith(_BESIDE) or "mask" in name.rpartition(".")[2]:
        return False
    if not tensor.is_number:  # complex numbers, and packed types of safetensors
        return True
    if is_weight(plain):
        return not (tensor.ndim == 3 and tensor.shape[1:] == (1, 1))
    if is_vector(tensor):
        return False
    if is_mask(tensor):
        return not (is_of_tokens(name) or name.endswith("bias") or _PLACES.search(name))  # attention's, a triangle
    return tensor.is_float or (tensor.dtype != "bool" and not _PLACES.search(name) and not tensor.is_binary)


def of_model(known: Coverage, wiring: Wiring, masks: Collection[str]) -> Coverage:
    """With the model's layers that have no mask, whether the file holds weights of them or not."""
    missing = {name: int(np.prod(wiring.shapes[name])) for name in wiring.names if name not in masks}
    tails = {name.removesuffix(".weight") for name in missing}

    def same(name: str) -> bool:
        return any(name == tail or name.removesuffix(".weight").endswith(f".{tail}") for tail in tails) or any(
            tail.endswith("." + name.removesuffix(".weight")) or tail == name.removesuffix(".weight") for tail in tails
        )

    others = {name: size for name, size in known.left_out.items() if not missing or not same(name)}
    return Coverage(known.read, {**missing, **others})


def told(known: Coverage) -> list[str]:
    """The note on what was left out, none if nothing was."""
    line = left_out_line(known.as_dict())
    return [line] if line else []


def undecided(left: Mapping[str, tuple[str, Tensor]]) -> Iterator[str]:
    """The note on what was left out because it holds 0 and 1, and its name does not tell weights from masks."""
    odd = [plain for plain, (_, tensor) in left.items() if not is_weight(plain) and is_mask(tensor)]
    if odd:
        yield f"of 0 and 1, so masks or weights, and not read: {some(odd)}"


# What tensors are called that decide of a weight beside them.
_DECIDING = ("mask", "score", "logit", "alpha", "gate", "_m\n")


def unused(source: Source, raw: Mapping[str, Tensor]) -> Iterator[str]:
    """Notes on tensors that look like a mask of a weight, or like scores of one that was read, and were not used."""
    if not source.place.mentions(*_DECIDING):
        return
    used = {unwrapped(name) for name in raw}
    taken = {id(tensor) for tensor in raw.values()}
    shapes = {unwrapped(name): tensor.shape for name, (_, tensor) in source.place.parameters.items()}
    odd, others = [], []
    for name, tensor in source.state.items():
        head, _, last = unwrapped(name).rpartition(".")
        if tensor.size < 2 or id(tensor) in taken or not any(part in f"{last}\n" for part in _DECIDING):
            continue
        head = unwrapped(name).removesuffix("_m") if name.endswith("_m") else head
        for weight in (head, f"{head}.weight"):
            if weight in shapes and name != weight:
                if shapes[weight] == tensor.shape:
                    odd += [name] if weight in used else []
                elif is_called_mask(last):
                    others.append(f"{name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}")
    if odd:
        yield f"beside the weights, of their shape and not used: {some(odd)}"
    if others:
        yield f"called masks, of other shapes than the weights, and not used: {some(others)}"


def disagreements(
    source: Source, raw: Mapping[str, Tensor], rows: Mapping[str, BitRows], names: Mapping[str, str]
) -> Iterator[str]:
    """Notes on weights of the file whose zeros are not those of the masks that were taken.

    raw: the masks in the file; rows: the masks; names: as the file has them -> as the masks are called.
    Raises FormatError if the masks are 1 exactly where the weights are 0.
    """
    own = {names.get(name, name): name for name in names}
    places: list[Branch] = [source.place, *source.others]
    for place in places:
        if place.is_list or (place is not source.place and any(name.endswith("_mask") for name in place.state)):
            continue  # a list names no weights; a tree with masks of its own says so itself
        weights = {unwrapped(name): tensor for name, (_, tensor) in place.parameters.items() if tensor.is_float}
        differ, dense, seen, partial, opposite = [], 0, 0, 0, 0
        for name, mask in rows.items():
            file = unwrapped(own.get(name, name))
            tensor = next((weights[n] for n in (name, file, f"{file}.weight") if n in weights), None)
            if tensor is None or tensor.ndim < 2 or tensor is raw.get(own.get(name, name)):  # the mask itself
                continue
            if tensor.shape != mask.shape:
                if source.wiring is None and tensor.ndim != len(mask.shape) and tensor.size != mask.size:
                    raise MaskError(f"mask '{name}' has shape {mask.shape} but its weight has {tensor.shape}")
                if source.wiring is None and tensor.ndim == len(mask.shape):
                    yield f"mask '{name}' has shape {mask.shape} but the weight beside it has {tensor.shape}"
                continue
            try:
                zero = tensor.weights().bits(name)
            except MaskError:
                continue
            seen += 1
            dense += zero.kept() == zero.size
            if 0 < mask.kept() < mask.size:  # a layer that is wholly pruned, or dense, tells nothing
                partial += 1
                opposite += not (mask.words & zero.words).any() and mask.kept() + zero.kept() == zero.size
            if (mask.words & ~zero.words).any() or (place is not source.place and (zero.words & ~mask.words).any()):
                differ.append(name)
        if partial and opposite == partial and not source.requested:
            raise FormatError(
                f"its masks are 1 where the weights are 0, in {plural(partial, 'layer')}: 1 stands for what was "
                "pruned; --format zeros reads the weights; otherwise topo.MaskSet({name: array == 0}), then "
                "topo.write_masks"
            )
        if differ:
            yield _differs(source, place, differ, dense == seen)


def _differs(source: Source, place: Branch, differ: list[str], dense: bool) -> str:
    where = f"the weights under '{place.key}'" if place.path else "the weights"
    count = plural(len(differ), "layer")
    if place is source.place:
        return f"{where} hold zeros that the masks keep, in {count}: {some(differ)}; --format zeros reads those"
    taken = f"masks taken from '{source.place.key or 'the top of the file'}'"
    if dense:
        return f"{taken}; {where} differ: none of them is zero"
    return f"{taken}; the zeros of {where} differ in {count}: {some(differ)}"
