"""Cutting a model: its tensors lose the places that go, its layers get the sizes that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Kept = Mapping[str, tuple[np.ndarray | None, ...]]


def cut(model: nn.Module, kept: Kept) -> None:
    """In place: of each named tensor the places that stay along each axis (None: all). Ties are kept."""
    done: dict[int, Tensor] = {}
    with torch.no_grad():
        for path, module in model.named_modules(remove_duplicate=False):
            for group in (module._parameters, module._buffers):
                for name, tensor in list(group.items()):
                    places = kept.get(f"{path}.{name}" if path else name)
                    if tensor is None or (places is None and id(tensor) not in done):
                        continue
                    if id(tensor) not in done and places is not None:
                        made = shortened(tensor, places)
                        if isinstance(tensor, nn.Parameter):
                            made = nn.Parameter(made, tensor.requires_grad)
                        done[id(tensor)] = made
                        done[id(made)] = made
                    group[name] = done[id(tensor)]
    for module in model.modules():
        _resize(module)


def shortened(tensor: Tensor, places: tuple[np.ndarray | None, ...]) -> Tensor:
    """The tensor at the places that stay along each axis."""
    made = tensor.detach()
    for axis, at in enumerate(places):
        if at is not None:
            made = made.index_select(axis, torch.from_numpy(np.asarray(at, np.int64)).to(tensor.device))
    return made.clone() if made.data_ptr() == tensor.data_ptr() else made


def _resize(module: Any) -> None:
    """The attributes of torch's own layers follow their tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) and isinstance(weight, Tensor):
        module.out_features, module.in_features = weight.shape[0], weight.shape[1]
    elif isinstance(module, _ConvNd) and isinstance(weight, Tensor):
        first, second = weight.shape[:2]
        if isinstance(module, _ConvTransposeNd):
            module.groups = _share(module.groups, first, module.in_channels)
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.groups = _share(module.groups, first, module.out_channels)
            module.out_channels, module.in_channels = first, second * module.groups
    elif isinstance(module, _NormBase):
        held = next((t for t in (weight, module.running_mean) if isinstance(t, Tensor)), None)
        if held is not None:
            module.num_features = len(held)
    elif isinstance(module, nn.GroupNorm) and isinstance(weight, Tensor):
        module.num_groups = module.num_groups * len(weight) // module.num_channels
        module.num_channels = len(weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.num_embeddings, module.embedding_dim = len(module.weight), module.weight.size(1)
    elif isinstance(module, nn.RNNBase):
        sides = [getattr(module, f"weight_{side}_l0").shape[1] for side in ("ih", "hh")]
        module.input_size, module.hidden_size = sides
        module._init_flat_weights()
    elif isinstance(module, nn.RNNCellBase):
        module.input_size, module.hidden_size = module.weight_ih.size(1), module.weight_hh.size(1)


def _share(groups: int, left: int, channels: int) -> int:
    """Groups go as wholes."""
    return groups if groups == 1 else groups * left // channels


def set_sizes(model: nn.Module, sizes: list[tuple[str, str, Any]]) -> None:
    """Sizes that a module keeps as a number: (module, attribute, value)."""
    for path, attribute, value in sizes:
        setattr(model.get_submodule(path), attribute, value)


def add_bias(model: nn.Module, path: str) -> None:
    """Give a layer without a bias one of zeros."""
    module = model.get_submodule(path)
    weight: Tensor = module.weight  # type: ignore[assignment]
    outputs = module.out_channels if isinstance(module, _ConvNd) else weight.shape[0]
    module._parameters["bias"] = nn.Parameter(torch.zeros(outputs, dtype=weight.dtype, device=weight.device))  # type: ignore[arg-type]
