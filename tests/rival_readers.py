"""Whole and damaged files, read by us and by torch and the safetensors package: what both accept must be equal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import mutated

from topo.containers.opening import open_container
from topo.containers.tensors import Tensor
from topo.errors import TopoError

KINDS = ("torch", "torch_legacy", "safetensors")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


def state_dict(rng: np.random.Generator, plain: bool) -> dict[str, Any]:
    """Tensors of random shapes and types; strided views of shared storages too, unless plain."""
    import torch

    found = {}
    for place in range(int(rng.integers(1, 6))):
        shape = tuple(int(n) for n in rng.integers(0 if rng.random() < 0.1 else 1, 5, rng.integers(0, 5)))
        values = rng.integers(-3, 4, shape) * (rng.random(shape) < 0.5)
        tensor = torch.as_tensor(np.asarray(values)).to(getattr(torch, DTYPES[int(rng.integers(len(DTYPES)))]))
        name = f"layer{place}." + ("weight", "bias", "weight_mask", "kernel")[int(rng.integers(4))]
        found[name] = tensor
        if plain or tensor.ndim < 2 or not tensor.numel():
            continue
        match int(rng.integers(5)):
            case 0:
                found[name] = tensor.transpose(0, 1)
            case 1:
                found[name] = tensor[::2]
            case 2:
                found[f"tied{place}"] = tensor
            case 3:
                found[name] = tensor[:1].expand(3, *tensor.shape[1:])
    return found


def write(kind: str, folder: Path, rng: np.random.Generator) -> Path:
    """A whole file of a kind."""
    if kind == "safetensors":
        from safetensors.torch import save_file

        state = {name: tensor.contiguous() for name, tensor in state_dict(rng, True).items()}
        save_file(state, folder / "m.safetensors")
        return folder / "m.safetensors"
    import torch

    content = state_dict(rng, False)
    content = {"state_dict": content, "epoch": 3, "lr": [0.1]} if rng.random() < 0.5 else content
    torch.save(content, folder / "m.pt", _use_new_zipfile_serialization=kind == "torch")
    return folder / "m.pt"


def files(kind: str, folder: Path, count: int, first: int = 0) -> Iterator[Path]:
    """A whole file, then four mutations of it, another whole file, ..."""
    data = b""
    for number in range(first, first + count):
        rng = np.random.default_rng([number, sum(kind.encode())])
        if number % 5 == 0 or not data:
            path = write(kind, folder, rng)
            data = path.read_bytes()
        else:
            path.with_suffix(".new").write_bytes(mutated(data, rng))
            path.with_suffix(".new").replace(path)  # a file of its own: the old one may still be mapped
        yield path


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, tuple[str, tuple[int, ...], bytes]]]:
    """The tensors of a tree by the keys that lead to them: type, shape and bytes."""
    if isinstance(value, Tensor):
        array = np.ascontiguousarray(value.whole())
        array = array != 0 if value.dtype == "bool" else array  # of damaged ones torch makes 1 only when it copies
        yield name, (value.dtype, tuple(value.shape), array.astype(array.dtype.newbyteorder("=")).tobytes())
    elif isinstance(value, (dict, list, tuple)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(entry, f"{name}/{key}")
    elif type(value).__module__.startswith("torch") and hasattr(value, "stride"):
        import torch

        plain = value.detach().resolve_conj().contiguous()
        held = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
        held = plain.view(torch.uint8) != 0 if plain.dtype == torch.bool else held
        yield name, (str(plain.dtype).removeprefix("torch."), tuple(plain.shape), held.numpy().tobytes())


def _theirs(kind: str, path: Path) -> Any:
    if kind == "safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=True, map_location="cpu")


def outcome(kind: str, path: Path) -> str:
    """Who accepts the file: "both", "ours", "theirs" or "none"; AssertionError where both do and differ."""
    ours: Any = None
    theirs: Any = None
    try:
        ours = dict(_flat(open_container(path).content))
    except TopoError:
        pass
    try:
        theirs = dict(_flat(_theirs(kind, path)))
    except Exception:
        pass
    if ours is None or theirs is None:
        return "none" if ours is theirs else "theirs" if ours is None else "ours"
    assert ours == theirs, f"{ours} and not {theirs}"
    return "both"
