"""What tells one module from another, whatever it is called: its layers, their settings, shapes and types."""

from __future__ import annotations

import hashlib

from torch import nn


def structure(model: nn.Module) -> str:
    """SHA-256 over every module's path, class and settings, and every parameter's and buffer's name, shape and type.

    Weights do not count, nor does the code of `forward`, nor the order of parameters, which masks change.
    """
    lines = [f"{path} {_kind(part)} {part.extra_repr()}" for path, part in model.named_modules()]
    for held in (model.named_parameters(), model.named_buffers()):
        lines += sorted(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in held)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _kind(part: nn.Module) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
