"""Mixtures of experts under two names: a parameter for each expert, as checkpoints have them, or one for all, as the
modules of transformers 5 do.

    experts.E.w1, gate_proj | experts.E.w3, up_proj    ->  experts.gate_up_proj[E]: the gate's rows, then up's
    experts.E.w2, down_proj                            ->  experts.down_proj[E]
    block_sparse_moe                                  <->  mlp
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from topo.containers.tensors import Tensor

_ONE = re.compile(
    r"(?P<head>(?:.*\.)?experts\.)(?P<expert>\d+)\.(?P<part>w1|w2|w3|gate_proj|up_proj|down_proj)\.weight"
)
_ALL = re.compile(r"(?P<head>(?:.*\.)?experts\.)(?P<part>gate_up_proj|down_proj)")
_PARTS = {"w1": "gate", "gate_proj": "gate", "w3": "up", "up_proj": "up", "w2": "down", "down_proj": "down"}


def renamed(
    found: Mapping[str, Tensor], names: Collection[str] | None
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The tensors with experts under the names of a network, and for each that was made the names it was made of."""
    if names is None or not any("experts." in name for name in found):
        return dict(found), {}
    model = [name for name in names if "experts." in name]
    tensors = {_block(name, names): (name, tensor) for name, tensor in found.items()}
    made: dict[str, list[str]] = {}
    if any(_ALL.fullmatch(name) for name in model):
        result = _joined(tensors, made)
    elif any(_ONE.fullmatch(name) for name in model):
        result = _parted(tensors, made, "w1" if any(".w1." in name for name in model) else "gate_proj")
    else:
        result = {name: tensor for name, (_, tensor) in tensors.items()}
    made |= {new: [old] for new, (old, _) in tensors.items() if new in result and new != old and new not in made}
    return result, made


def _block(name: str, names: Collection[str]) -> str:
    for old, new in ((".block_sparse_moe.", ".mlp."), (".mlp.", ".block_sparse_moe.")):
        if old in name and any(new in other for other in names) and not any(old in other for other in names):
            return name.replace(old, new)
    return name


def _joined(tensors: Mapping[str, tuple[str, Tensor]], made: dict[str, list[str]]) -> dict[str, Tensor]:
    """A tensor for each expert -> one for all; where a part is missing they stay as they are."""
    groups: dict[str, dict[tuple[int, str], str]] = {}
    for name in tensors:
        if one := _ONE.fullmatch(name):
            groups.setdefault(one["head"], {})[int(one["expert"]), _PARTS[one["part"]]] = name
    result = {name: tensor for name, (_, tensor) in tensors.items()}
    for head, names in groups.items():
        count = max(expert for expert, _ in names) + 1
        for parts, new in ((("gate", "up"), "gate_up_proj"), (("down",), "down_proj")):
            wanted = [names.get((expert, part)) for expert in range(count) for part in parts]
            listed = [name for name in wanted if name is not None]
            pieces = [tensors[name][1] for name in listed]
            if len(listed) < len(wanted) or len({(p.shape, p.dtype, p.inferred) for p in pieces}) != 1:
                continue
            for name in listed:
                del result[name]
            result[head + new] = _stack(pieces, len(parts))
            made[head + new] = [tensors[name][0] for name in listed]
    return result


def _stack(pieces: list[Tensor], parts: int) -> Tensor:
    """Matrices (out, in) as (experts, parts * out, in)."""

    def rows(count: int) -> Iterator[np.ndarray]:
        for start in range(0, len(pieces), parts):
            yield np.concatenate([piece.whole() for piece in pieces[start : start + parts]])[np.newaxis]

    out, inputs = pieces[0].shape
    return replace(pieces[0], shape=(len(pieces) // parts, parts * out, inputs), rows=rows)


def _parted(tensors: Mapping[str, tuple[str, Tensor]], made: dict[str, list[str]], style: str) -> dict[str, Tensor]:
    """One tensor for all experts -> one for each."""
    names = ("w1", "w3", "w2") if style == "w1" else ("gate_proj", "up_proj", "down_proj")
    result: dict[str, Tensor] = {}
    for name, (old, tensor) in tensors.items():
        whole = _ALL.fullmatch(name)
        if whole is None or tensor.ndim != 3:
            result[name] = tensor
            continue
        experts, out, inputs = tensor.shape
        parts = names[:2] if whole["part"] == "gate_up_proj" else names[2:]
        height = out // len(parts)
        for expert in range(experts):
            for place, part in enumerate(parts):
                new = f"{whole['head']}{expert}.{part}.weight"
                result[new] = _slice(tensor, expert, place * height, height, inputs)
                made[new] = [old]
    return result


def _slice(tensor: Tensor, expert: int, start: int, height: int, inputs: int) -> Tensor:
    def rows(count: int) -> Iterator[np.ndarray]:
        for place, slab in enumerate(tensor.rows(1)):
            if place == expert:
                yield from Tensor.of(slab[0, start : start + height]).rows(count)

    return replace(tensor, shape=(height, inputs), rows=rows)
