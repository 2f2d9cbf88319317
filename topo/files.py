"""Mask files in and out, with the network that they belong to where they need one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topo import formats
from topo.masks import MaskSet, warn_of_empty_layers


def read_masks(
    path: str | Path, model: Any = None, *, format: str | None = None, input_shape: Sequence[int] | None = None
) -> MaskSet:
    """The masks of a file or folder, whatever pruner wrote it.

    model: what the masks belong to, needed only where the file carries no names: a name (`"resnet20"`,
    `"file.py:factory"`), a torch module or a Wiring; the masks then come in its order and must fit it. format: the
    reader to use, by name; found from the file's content otherwise. input_shape: of the model, without the batch.

    >>> np.savez("pruned.npz", **{"fc.weight": np.array([[0.5, 0, -2]])})
    >>> masks = topo.read_masks("pruned.npz")
    >>> masks["fc.weight"].tolist(), masks.density
    ([[True, False, True]], 0.6666666666666666)

    Raises FormatError, MaskError or WiringError, each with one line that names the file or the layer.
    """
    wiring = None
    if model is not None:
        from topo.networks import find_wiring

        wiring = find_wiring(model, input_shape)
    return formats.read(path, wiring, format)


def read_weights(path: str | Path, masks: MaskSet, model: Any = None) -> dict[str, np.ndarray]:
    """The weights of the masked parameters in a checkpoint, for `analyze(..., weights=...)`: parameter -> float array.

    >>> np.savez("pruned.npz", **{"fc.weight": np.array([[0.5, 0, -2]])})
    >>> topo.read_weights("pruned.npz", topo.read_masks("pruned.npz"))
    {'fc.weight': array([[ 0.5,  0. , -2. ]])}

    Raises FormatError, one line that names the file, if a mask has no weights of its shape there.
    """
    wiring = None
    if model is not None:
        from topo.networks import find_wiring

        wiring = find_wiring(model)
    return formats.read_weights(path, masks, wiring)


def write_masks(masks: MaskSet, path: str | Path) -> None:
    """Write masks and their provenance, as `.safetensors` (the project's own format) or `.npz`.

    A MaskWarning names layers whose masks keep nothing.

    >>> masks = topo.generate("erk", "mlp:3-2-1", density=0.5)
    >>> topo.write_masks(masks, "mask.safetensors")
    >>> topo.read_masks("mask.safetensors") == masks
    True
    """
    warn_of_empty_layers(masks)
    formats.write(masks, path)
