"""Mask files in and out, with the network that they belong to where they need one; live objects too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topo import formats
from topo.errors import FormatError, MaskError, TopoError, WiringError
from topo.masks import MaskSet, as_mask_set, warn_of_empty_layers


def read_masks(
    source: str | Path | Any,
    model: Any = None,
    *,
    format: str | None = None,
    input_shape: Sequence[int] | None = None,
    key: str | None = None,
    topk: float | None = None,
    threshold: float | None = None,
) -> MaskSet:
    """The masks of a file or folder, whatever pruner wrote it, or of a live object.

    source: a path; or a torch module, a state dict or a sparsifier, whose masks are found by the same rules (torch's
    own pruning, torch.ao, `apply_masks`, zeros). model: what the masks belong to, needed only where the file carries no
    names: a name (`"resnet20"`, `"file.py:factory"`), a torch module or a Wiring; the masks then come in its order and
    must fit it. format: the reader to use, by name; found from the content otherwise. input_shape: of the model,
    without the batch. key: the place that is meant where a file holds several ("ema", "pruner/masks").
    topk, threshold: how scores become masks, where a file holds those: the share of each layer that is kept, or the
    score above which a weight is kept.

    `provenance["coverage"]` says how many parameters were read and names those that were not.

    >>> state = {"fc.weight": np.array([[0.5, 0.0], [0.0, 2.0]])}
    >>> read_masks(state)["fc.weight"].tolist()
    [[True, False], [False, True]]

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
    rule = _rule(topk, threshold)
    if isinstance(source, str | Path):
        return formats.read(source, wiring, format, key=key, rule=rule)
    name = formats.live.name_of(source)
    try:
        chosen = None if format is None else formats.formats[format]
        return formats.read_container(formats.live.opened(source), name, wiring, chosen, key, rule)
    except (FormatError, MaskError, WiringError) as error:
        raise type(error)(formats.refusal(name, error)) from None


def _rule(topk: float | None, threshold: float | None) -> dict[str, float]:
    given = {name: float(value) for name, value in (("topk", topk), ("threshold", threshold)) if value is not None}
    if len(given) > 1:
        raise TopoError("topk and threshold are both given; one of them makes masks of scores")
    if "topk" in given and not 0 <= given["topk"] <= 1:
        raise TopoError(f"topk is {given['topk']:g}; it is the share that each layer keeps, from 0 to 1")
    if "threshold" in given and given["threshold"] != given["threshold"]:
        raise TopoError("threshold is not a number")
    return given


def read_weights(
    path: str | Path, masks: MaskSet, model: Any = None, *, key: str | None = None
) -> dict[str, np.ndarray]:
    """The weights of the masked parameters in a checkpoint, for `analyze(..., weights=...)`: parameter -> float array.

    path: the checkpoint. masks: which parameters, of which shapes. model: what they belong to, as for `read_masks`.
    key: the place that is meant where a file holds several ("ema").

    >>> np.savez("pruned.npz", **{"fc.weight": np.array([[0.5, 0, -2]])})
    >>> topo.read_weights("pruned.npz", topo.read_masks("pruned.npz"))
    {'fc.weight': array([[ 0.5,  0. , -2. ]])}

    Raises FormatError, one line that names the file, if a mask has no weights of its shape there.
    """
    wiring = None
    if model is not None:
        from topo.networks import find_wiring

        wiring = find_wiring(model)
    return formats.read_weights(path, masks, wiring, key)


def write_masks(masks: MaskSet, path: str | Path) -> None:
    """Write masks and their provenance to a path that ends in `.safetensors` (the project's own format) or `.npz`.

    A MaskWarning names layers whose masks keep nothing.

    >>> masks = topo.generate("erk", "mlp:3-2-1", density=0.5)
    >>> topo.write_masks(masks, "mask.safetensors")
    >>> topo.read_masks("mask.safetensors") == masks
    True
    """
    masks = as_mask_set(masks)
    warn_of_empty_layers(masks)
    formats.write(masks, path)
