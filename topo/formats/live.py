"""Objects of a running program as sources: a torch module, a state dict, a sparsifier, by the same rules as files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from topo.containers.container import Container
from topo.containers.tensors import Tensor
from topo.errors import FormatError

_DEEPEST = 64


def is_live(source: Any) -> bool:
    """Whether it is not a path of a file but something with tensors in it."""
    return isinstance(source, Mapping | list | tuple) or hasattr(source, "state_dict")


def opened(source: Any) -> Container:
    """What a module, a state dict or a sparsifier holds, as a file's content would be.

    A module gives all its parameters and buffers, also those that its state dict leaves out: torch.ao keeps masks in
    such buffers. Raises FormatError for a tensor without values, and for an object that is none of these.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.nn.Module):
        held: Any = dict(source.state_dict(keep_vars=True))
        held |= dict(source.named_buffers(remove_duplicate=False))
    elif isinstance(source, Mapping | list | tuple):
        held = source
    elif callable(getattr(source, "state_dict", None)):
        held = source.state_dict()
    else:
        raise FormatError(
            f"masks are read from a file, a module, a state dict or a sparsifier, not from a {type(source).__name__}"
        )
    return Container("live", _content(held, 0, ""))


def name_of(source: Any) -> str:
    """What the masks of a live object are called where those of a file have its name."""
    return type(source).__name__


def _content(value: Any, depth: int, name: str) -> Any:
    if depth > _DEEPEST:
        raise FormatError(f"it is nested more than {_DEEPEST} levels deep")
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {key: _content(entry, depth + 1, str(key)) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(entry, depth + 1, name) for entry in value]
    if isinstance(value, np.ndarray):
        return Tensor.of(value)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    if value.device.type == "meta":
        raise FormatError(f"'{name}' is on the meta device, which has shapes and no values")
    plain = value.detach()
    if hasattr(plain, "full_tensor"):  # sharded over processes, which all read
        plain = plain.full_tensor()
    if plain.is_quantized:
        plain = plain.dequantize()  # exactly 0 where the integer is the zero point
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    plain = plain.cpu()
    named = str(plain.dtype).removeprefix("torch.")
    if named == "bfloat16":
        return Tensor.of(plain.view(torch.int16).numpy().view(np.uint16), named)
    if named.startswith("float8"):
        return Tensor.of(plain.view(torch.uint8).numpy(), named)
    return Tensor.of(plain.resolve_conj().numpy())
