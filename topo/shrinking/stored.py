"""Smaller models in files: their tensors with the map from the larger one, so that a name alone builds them again.

`shrunk:small.safetensors` names such a model wherever topo takes one: the model that the file names is built, cut as
the map says, and given the file's tensors. No code of the file is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.atomic import replacing
from topo.containers.opening import open_container
from topo.containers.safetensors import steady
from topo.containers.tensors import Tensor as Stored
from topo.errors import FormatError, TopoError
from topo.formats.tree import branches
from topo.shrinking.cut import add_bias, cut, set_sizes
from topo.trace.capture import clean

SCHEMA = "topo-shrink/1"
ENDINGS = (".safetensors", ".pt", ".pth")


def write(path: str | Path, state: Mapping[str, Tensor], model: str, document: str) -> None:
    """The tensors, the name of the model that they were cut from, and the map (JSON)."""
    about = {"topo_schema": SCHEMA, "model": model, "map": document}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import save_file

            own: dict[int, str] = {}
            alone = {}
            for name, tensor in tensors.items():  # safetensors holds each storage once
                alone[name] = tensor.clone() if tensor.data_ptr() in own else tensor
                own[tensor.data_ptr()] = name
            save_file(alone, temporary, about)
            steady(temporary)
        else:
            with open(temporary, "wb") as file:  # a full disk is an OSError then
                torch.save({**about, "state_dict": tensors}, file)


def read(path: str | Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """(model, map, tensors) of a file of `write`; FormatError if it is another."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise TopoError(f"there is no file '{path}'; a smaller model is written by topo shrink")
    held = open_container(path)
    about: Any = held.metadata if held.kind == "safetensors" else held.content
    if not isinstance(about, Mapping) or about.get("topo_schema") != SCHEMA:
        raise FormatError(f"'{path}' is not a smaller model: topo shrink writes those, with topo_schema {SCHEMA}")
    try:
        document = json.loads(about["map"])
        model, tensors = str(about["model"]), document["tensors"]
        state = held.content if held.kind == "safetensors" else held.content["state_dict"]
        if not isinstance(tensors, dict) or not isinstance(document["sizes"], list):
            raise ValueError("no tensors")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"'{path}' holds a map that cannot be read: {error}") from None
    return model, document, {name: _tensor(value) for name, value in state.items() if isinstance(value, Stored)}


def apply_map(model: nn.Module, document: Mapping[str, Any]) -> None:
    """Cut a model in place as a map says; TopoError if the map is of another model."""
    own = {name: tuple(t.shape) for name, t in model.state_dict(keep_vars=True).items()}
    kept: dict[str, tuple[np.ndarray | None, ...]] = {}
    try:
        for path in document["added"]:
            add_bias(model, str(path))
        for name, entry in document["tensors"].items():
            if name in own and tuple(entry["old_shape"]) != own[name]:
                raise TopoError(
                    f"the map is of a model whose '{name}' has shape {entry['old_shape']}; here {own[name]}"
                )
            rows = [None if row is None else np.asarray(row, np.int64) for row in entry["kept"]]
            if any(row is not None for row in rows):
                kept[name] = tuple(rows)
        cut(model, kept)
        sizes = [(str(path), str(key), tuple(v) if isinstance(v, list) else v) for path, key, v in document["sizes"]]
        set_sizes(model, sizes)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TopoError(f"the map does not fit the model: {error}") from None


def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Give a model the weights of a checkpoint of any kind; a line for what of the file was left.

    Names may carry the prefixes of wrappers and torch's own pruning (`weight_orig`). TopoError if a tensor of the model
    is missing in the file, or has another shape there.
    """
    path = Path(path)
    if not path.exists():
        raise TopoError(f"there is no file '{path}' with the model's weights")
    try:
        content = open_container(path).content
    except FormatError as error:
        raise FormatError(f"'{path}' holds no weights that can be read: {error}") from None
    own = {clean(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    best: dict[str, Stored] = {}
    for branch in branches(content):
        found: dict[str, Stored] = {}
        for name, tensor in branch.state.items():
            if not name.endswith("_mask"):
                found[clean(name)] = tensor
        if len(own.keys() & found.keys()) > len(own.keys() & best.keys()):
            best = found
    return given(model, {name: _tensor(tensor) for name, tensor in best.items()}, str(path))


def given(model: nn.Module, state: Mapping[str, Tensor], what: str) -> list[str]:
    """Give a model these tensors by name."""
    own = {clean(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TopoError(f"'{what}' has no weights for '{missing[0]}'{more} of the model's {len(own)} tensors")
    with torch.no_grad():
        for name, tensor in own.items():
            if name not in state:
                continue
            if tuple(state[name].shape) != tuple(tensor.shape):
                raise TopoError(
                    f"'{what}' has '{name}' of shape {tuple(state[name].shape)}; the model has {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])
    left = [name for name in state if name not in own]
    return [f"{len(left)} tensors of '{what}' are not of the model, the first '{left[0]}'"] if left else []


def _tensor(stored: Stored) -> Tensor:
    values = np.array(stored.whole())
    if stored.dtype == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)
