"""Names and layouts of a file fitted to the model's: wrapper prefixes off, input-first parameters turned
output-first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.source import Source, plural, some

if TYPE_CHECKING:
    from topo.wiring import Layer, Wiring

# What wrappers put before every name: DataParallel and DDP, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("._orig_mod.", ".")  # a compiled part of the model


def _without_model(names: Mapping[str, str]) -> dict[str, str]:
    """`model.` off, again and again while every name has it."""
    changed = dict(names)
    while changed and all(name.startswith("model.") and name != "model." for name in changed.values()):
        changed = {old: _unwrapped(name.removeprefix("model.")) for old, name in changed.items()}
    return changed


def aligned(names: Iterable[str], wiring: Wiring | None) -> dict[str, str]:
    """Name in the file -> parameter name.

    Without a wiring `module.` and `_orig_mod.` are taken off, and `model.` if every name has it. With one, as little is
    taken off (from all names, or `model.` from those that have it) as makes most names those of the model.
    Raises FormatError if two names become one.
    """
    plain = {name: name for name in names}
    unwrapped = {name: _unwrapped(name) for name in plain}
    if wiring is None:
        best = _without_model(unwrapped)
    else:
        loose = {old: _unwrapped(name.removeprefix("model.")) for old, name in unwrapped.items()}
        known = set(wiring.names)
        candidates = (plain, unwrapped, _without_model(unwrapped), loose)
        best = max(candidates, key=lambda candidate: len(known.intersection(candidate.values())))
    taken: dict[str, str] = {}
    for old, name in best.items():
        if name in taken:
            raise FormatError(f"'{taken[name]}' and '{old}' are both the parameter '{name}'")
        taken[name] = old
    return best


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
