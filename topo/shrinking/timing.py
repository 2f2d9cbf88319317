"""How long models take on this machine: ratios to the dense one, for multiplications saved are not time saved."""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from topo.stranger import torch_kept

_ROUNDS, _LEAST = 7, 0.05


class _Csr(nn.Module):
    """A linear layer by torch's CSR matrices."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that its CSR matrices are new
            self.weight, self.bias = layer.weight.detach().to_sparse_csr(), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        made = (self.weight @ rows.T).T.reshape(*x.shape[:-1], -1)
        return made if self.bias is None else made + self.bias


def timed(dense: nn.Module, small: nn.Module, example: Any, batch: int = 16) -> dict[str, Any]:
    """Seconds of a forward pass of `batch` examples: median of 7 rounds, in turns; and ratios dense / other.

    csr: the dense model with its linear layers as torch's CSR matrices (convolutions have none in torch). 2:4: torch
    has its kernels on CUDA alone. What does not run is null, with a line in `notes`.
    """
    inputs = _batched(example, batch)
    models: dict[str, nn.Module] = {"dense": dense, "shrunk": small}
    notes = ["2:4 kernels of torch run on CUDA alone"]
    linear = [name for name, part in dense.named_modules() if type(part) is nn.Linear]
    others = any(isinstance(part, nn.modules.conv._ConvNd) for part in dense.modules())
    if linear:
        models["csr"] = _with_csr(dense, linear)
        if others:
            notes.append("csr: the linear layers alone; torch has no CSR convolution")
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad(), torch_kept():
        for name in list(models):
            try:
                models[name](*inputs[0], **inputs[1])
            except Exception as error:  # whatever torch says of a layout that it lacks
                if name != "csr":
                    raise
                notes.append(f"csr does not run: {str(error).splitlines()[0][:100]}")
                del models[name]
        for _ in range(_ROUNDS):
            for name, model in models.items():
                seconds[name].append(_once(model, inputs))
    found = {name: statistics.median(taken) if taken else None for name, taken in seconds.items()}
    base = found["dense"]
    ratios = {name: base / taken if base and taken else None for name, taken in found.items() if name != "dense"}
    return {
        "batch": batch,
        "threads": torch.get_num_threads(),
        "seconds": found,
        "times_faster": {**ratios, "2:4": None},
        "notes": notes,
    }


def _once(model: nn.Module, inputs: Any) -> float:
    count, start = 0, time.perf_counter()
    while True:
        model(*inputs[0], **inputs[1])
        count += 1
        taken = time.perf_counter() - start
        if taken > _LEAST:
            return taken / count


def _with_csr(model: nn.Module, names: list[str]) -> nn.Module:
    made = copy.deepcopy(model)
    for name in names:
        path, _, last = name.rpartition(".")
        if not name:
            return _Csr(made)  # type: ignore[arg-type]
        setattr(made.get_submodule(path), last, _Csr(made.get_submodule(name)))  # type: ignore[arg-type]
    return made


def _batched(example: Any, batch: int) -> Any:
    def wide(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        return value[:1].expand(batch, *value.shape[1:]).contiguous()

    args, kwargs = example
    made: Mapping[str, Any] = pytree.tree_map(wide, kwargs)
    return pytree.tree_map(wide, args), made
