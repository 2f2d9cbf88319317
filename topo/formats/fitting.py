"""Names and layouts of a file fitted to the model's: prefixes of wrappers and of the model, and input-first
parameters turned output-first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.experts import renamed
from topo.formats.names import plain, unwrapped
from topo.formats.partners import same_words
from topo.formats.source import Source, plural, some
from topo.masks import MaskSet

if TYPE_CHECKING:
    from topo.wiring import Layer, Wiring

_EMA = re.compile(r"(^|[._])(ema|swa|averaged?|shadow)([._]|$)")


def aligned(names: Iterable[str], wiring: Wiring | None, every: Iterable[str] | None = None) -> dict[str, str]:
    """Name in the file -> parameter name.

    The names of wrappers go at any depth. Without a wiring, `model.` goes too if every name of the file has it (every:
    those of its tensors, by default the names to align). With one, a prefix goes, or comes, that makes most names those
    of the model, and a module's name stands for its weight.
    Raises FormatError if two names become one, and if two prefixes fit alike.
    """
    listed = list(names)
    best = _by_file(listed, listed if every is None else every) if wiring is None else _by_names(listed, wiring.names)
    taken: dict[str, str] = {}
    for old, name in best.items():
        if name in taken:
            raise FormatError(f"'{taken[name]}' and '{old}' are both the parameter '{name}'")
        taken[name] = old
    return best


def _by_file(names: list[str], every: Iterable[str]) -> dict[str, str]:
    """`model.` off, again and again while every name of the file has it."""
    listed = list(every)
    prefix = ""
    while listed and all(plain(unwrapped(name)).startswith(f"{prefix}model.") for name in listed):
        prefix += "model."
    return {name: unwrapped(name).removeprefix(prefix) for name in names}


def _by_names(names: list[str], whose: Iterable[str]) -> dict[str, str]:
    known = set(whose)
    tails: dict[str, set[str]] = {}  # what remains of the model's names without their first parts -> those parts
    for name in known:
        for place in (i for i, letter in enumerate(name) if letter == "."):
            tails.setdefault(name[place + 1 :], set()).add(name[: place + 1])

    def parameter(name: str) -> str | None:
        bare = unwrapped(name)
        return next((n for n in (name, bare, f"{bare}.weight", bare.removesuffix(".weight")) if n in known), None)

    loose = same_words([name for name in names if parameter(name) is None], known)

    def forms(name: str) -> Iterator[tuple[str, str, str]]:
        """(prefix off, prefix on, parameter) in every way that makes the name one of the model's."""
        if found := parameter(name):
            yield "", "", found
        plain = unwrapped(name)
        for cut in (place + 1 for place, letter in enumerate(plain) if letter in "./:"):
            if found := parameter(plain[cut:]):
                yield plain[:cut], "", found
        for ending in (plain, f"{plain}.weight"):
            for prefix in sorted(tails.get(ending, ())):
                yield "", prefix, prefix + ending
        if name in loose:  # `layer1_0_conv`, as a ModuleDict must have it
            yield "", "", loose[name]

    fits: dict[tuple[str, str], set[str]] = {}
    ways = {name: {(off, on): found for off, on, found in forms(name)} for name in names}
    for found in ways.values():
        for way, name in found.items():
            fits.setdefault(way, set()).add(name)
    if not fits:
        return {name: unwrapped(name) for name in names}
    first = _most(fits, set())
    others = {way: found - fits[first] for way, found in fits.items() if way != first}
    second = _most(others, fits[first]) if any(others.values()) else None
    if second is not None and len(_places(others)) > 1:
        second = None  # nothing tells which of them is meant

    def fitted(name: str) -> str:
        """By the first prefix, or outside of it (a head beside the prefixed rest) by another."""
        found = ways[name]
        if first in found:
            return found[first]
        beside = found.get(second) if second is not None else None
        return beside if beside is not None and beside not in fits[first] else unwrapped(name)

    return {name: fitted(name) for name in names}


def _most(fits: Mapping[tuple[str, str], set[str]], taken: set[str]) -> tuple[str, str]:
    """The prefix under which most names fit: none, then one that is not an average, if several do.

    Raises FormatError if two prefixes give the same parameters, or if the names fit several parts of the model.
    """
    most = max(map(len, fits.values()))
    best = [way for way, found in fits.items() if len(found) == most]
    if not taken and len(places := _places(fits)) > 1:
        said = ", ".join(f"'{place.rstrip('.')}'" for place in places[:3]) + (", ..." if len(places) > 3 else "")
        raise FormatError(
            f"its names fit {len(places)} parts of the model: {said}; name the masks as the model does, such as "
            f"'{min(fits['', places[0]])}'"
        )
    if ("", "") in best:
        return "", ""
    best = [way for way in best if not _EMA.search(way[0])] or best
    if len(best) > 1 and not taken and len({frozenset(fits[way]) for way in best}) < len(best):
        said = ", ".join(f"'{(off or on).rstrip('.')}'" for off, on in sorted(best))
        raise FormatError(f"its names fit the model under several prefixes: {said}; --key takes one")
    return best[0]


def _places(fits: Mapping[tuple[str, str], set[str]]) -> list[str]:
    """The parts of the model that most names fit alike, where no names fit as they are or without a prefix."""
    most = max(map(len, fits.values()))
    best = [way for way, found in fits.items() if len(found) == most]
    return [on for _, on in best] if all(on for _, on in best) else []


def paired(a: MaskSet, b: MaskSet) -> MaskSet:
    """B under A's names, where they differ by wrappers, a prefix, module names or the form of experts.

    Masks of B that are none of A keep their names. The two sets stay as they are where nothing fits.
    """
    if all(name in a for name in b):
        return b
    tensors = {name: b.rows(name) for name in b}
    if any("experts." in name for name in b) and any("experts." in name for name in a):
        fitted, made = renamed({name: Tensor.of(b[name]) for name in b}, list(a))
        if made:
            tensors = {name: tensor.bits(name) for name, tensor in fitted.items()}
    try:
        names = _by_names(list(tensors), a)
    except FormatError:
        return b
    if not any(name in a for name in names.values()):  # each has a prefix of its own
        mine, others = _shared(list(a)), _shared(list(tensors))
        names = {name: mine + name.removeprefix(others) for name in tensors}
    before = sum(name in a for name in b)
    fits = sum(names[name] in a and a.rows(names[name]).shape == rows.shape for name, rows in tensors.items())
    if fits <= before or len(set(names.values())) < len(names):
        return b
    return MaskSet({names[name]: rows for name, rows in tensors.items()}, provenance=b.provenance)


def _shared(names: list[str]) -> str:
    """The modules with which all names begin, `net.` of `net.stem.weight` and `net.head.weight`."""
    parts = [name.split(".")[:-1] for name in names]
    common = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts)) if len(names) > 1 else ()
    return "".join(f"{level[0]}." for level in common)


def stored_shape(layer: Layer) -> tuple[int, ...]:
    """The shape in which torch stores the parameter of a layer."""
    if layer.own is not None:
        return layer.own
    out, inputs, *rest = layer.shape
    return (inputs * layer.groups, out // layer.groups, *rest) if layer.transposed else layer.shape


def stored_shapes(wiring: Wiring) -> dict[str, tuple[int, ...]]:
    return {name: stored_shape(wiring.layer(name)) for name in wiring.names}


def oriented(
    found: Mapping[str, Tensor], wiring: Wiring | None, output_first: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Masks of input-first parameters turned output-first; of stacked experts (experts, out, in) laid flat where the
    wiring has them so (those of its first version).

    A square layer does not show how it is stored: then it is as the file's other layers are, and if none tells, as the
    format stores them (`output_first`); the names of those stand second.
    """
    turned = dict(found)
    if wiring is None:
        return turned, []
    for name, tensor in found.items():
        shape = wiring.shapes.get(name)
        if tensor.ndim == 3 and shape == (tensor.shape[0] * tensor.shape[1], tensor.shape[2]):
            turned[name] = tensor.stacked()
    layers = {name: wiring.layer(name) for name in found if name in wiring.shapes and wiring.layer(name).transposed}
    told = [found[name].shape == layer.shape for name, layer in layers.items() if stored_shape(layer) != layer.shape]
    square_is_final = (any(told) and all(told)) or (output_first and not told)
    for name, layer in layers.items():
        stored = stored_shape(layer)
        if found[name].shape == stored and (stored != layer.shape or not square_is_final):
            turned[name] = found[name].output_first(layer.groups)
    return turned, [] if told else list(layers)


def without_scales(found: Mapping[str, Tensor], source: Source, masks_only: bool = False) -> dict[str, Tensor]:
    """The masks of weight matrices and kernels only.

    Masks of fewer than two dimensions (biases, normalisation) are left out, and all-ones masks of shape (c, 1, 1):
    scale layers on identity shortcuts, except from files that hold nothing but masks (`masks_only`). A note counts
    them, and those among them that prune something.
    """
    names = source.wiring.shapes if source.wiring else {}

    def is_scale(tensor: Tensor) -> bool:
        return not masks_only and tensor.ndim == 3 and tensor.shape[1:] == (1, 1) and tensor.is_ones

    kept, ones, others = {}, 0, []
    for name, tensor in found.items():
        if name in names or (tensor.ndim >= 2 and not is_scale(tensor)):
            kept[name] = tensor
        elif tensor.is_ones:
            ones += 1
        else:
            others.append(name)
    if ones:
        source.notes.append(f"{plural(ones, 'all-ones mask')} of biases, normalisation and scale layers ignored")
    if others:
        source.notes.append(
            f"{plural(len(others), 'mask')} of biases and normalisation with zeros ignored: {some(others)}"
        )
    return kept
