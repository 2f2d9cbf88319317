"""A dict of masks by parameter name, in any container: iterative-pruning `.npy` and `.pkl` dicts, safetensors of
masks."""

from __future__ import annotations

from collections.abc import Mapping

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.names import ADAPTER, is_weight
from topo.formats.packed import packed
from topo.formats.source import Found, Source, reader, some


def only_masks(state: Mapping[str, Tensor]) -> str | None:
    """None if every tensor of two or more dimensions can only be a mask, else why not.

    Integers and booleans are masks or a mistake that is named when they are read; floats are masks if all are 0 or 1,
    which weights betray in their first block.
    """
    wide = {name: tensor for name, tensor in state.items() if tensor.ndim >= 2}
    if not wide:
        return "no tensor of two or more dimensions" if state else "no numbers under a name"
    for name, tensor in wide.items():
        if not tensor.is_number:
            return f"'{name}' holds values of type {tensor.dtype}"
        if ADAPTER.search(name):
            return f"'{name}' holds factors of an adapter"
        if tensor.is_quantised:
            return f"'{name}' holds 8-bit weights"
        if tensor.is_float and not tensor.is_binary:
            return f"'{name}' holds {tensor.dtype} values other than 0 and 1"
    if integers := packed(state):
        return f"{some(integers, 1)} holds packed weights"
    # A network whose weights are all 0 or all 1 after some mishap is not a mask when its biases and statistics say
    # otherwise.
    odd = [name for name, tensor in state.items() if tensor.ndim == 1 and tensor.is_float and not tensor.is_binary]
    return f"{some(odd, 1)} holds other values than 0 and 1" if odd else None


def refuse_doubles(source: Source) -> None:
    """FormatError where `fc.weight` and another tensor of its module hold 0 and 1 in one shape: one of them masks."""
    if source.requested:
        return
    for name, tensor in source.state.items():
        head, _, last = name.rpartition(".")
        weight = source.state.get(f"{head}.weight") if head and tensor.ndim >= 2 and last != "weight" else None
        if weight is not None and weight.shape == tensor.shape and not is_weight(name):
            raise FormatError(
                f"'{head}.weight' and '{name}' both hold 0 and 1: one may be the mask of the other; leave one out, or "
                "--format mask_dict reads each as a layer"
            )


def recognise(source: Source) -> str | None:
    return "it is an npz" if source.container.kind == "npz" else only_masks(source.state)


@reader(
    "mask_dict",
    "a dict of tensors of 0 and 1 by parameter name, pickled or in safetensors",
    before="zeros",
    recognise=recognise,
)
def read(source: Source) -> Found:
    refuse_doubles(source)
    return source.state
