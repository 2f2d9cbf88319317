"""torch.ao.pruning: the state of a sparsifier, state -> parameter name -> mask; and masks kept as parametrizations."""

from __future__ import annotations

import re

from topo.containers.tensors import Tensor
from topo.formats.source import Found, Source, reader, suffixed

_BUFFER = re.compile(r"(.*?)(?:^|\.)parametrizations\.([^.]+)\.\d+\.mask")


def _buffers(source: Source) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if not source.place.mentions(".mask\n"):
        return found
    for name, tensor in source.state.items():
        if parts := _BUFFER.fullmatch(name):
            found[f"{parts[1]}.{parts[2]}".lstrip(".")] = tensor
    return found


def _sparsifier(source: Source) -> dict[str, Tensor]:
    """The masks in `sparsifier.state_dict()`: under "state", a dict {"mask": ...} for each parameter."""
    if "state" not in source.trail:
        return {}
    return suffixed(source.state, ".mask")


def recognise(source: Source) -> str | None:
    if _buffers(source) or _sparsifier(source):
        return None
    return "no sparsifier state with masks and no '*.parametrizations.weight.0.mask'"


@reader(
    "torch_ao",
    "torch.ao.pruning: sparsifier.state_dict(), or masks kept as parametrizations",
    before=("npz", "mask_buffers"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    return _sparsifier(source) or _buffers(source)
