"""LoRA adapters: which pruned weights a merge into the base would fill, told before it is done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topo.containers.opening import open_container
from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats import naming
from topo.formats.fitting import paired
from topo.masks import BitRows, MaskSet

_FACTOR = re.compile(r"(?P<module>.+?)\.lora_(?P<part>A|B)(?:\.[^.]+)??(?:\.weight)?")
_PREFIX = "base_model.model."
_LARGEST = 1_000_000


@dataclass(frozen=True, eq=False)
class Adapter:
    """The factors of a LoRA adapter: parameter of the base -> (which entries of B are not 0, the bit rows of A).

    A merge adds scale * B A to the weight: B is (out, rank), A (rank, in). others: tensors that are not such factors.
    """

    factors: Mapping[str, tuple[np.ndarray, BitRows]]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """What a merge does to one layer. pruned: its zeros before; filled: those of them that the product reaches."""

    layer: str
    pruned: int
    filled: int


def read_adapter(path: str | Path) -> Adapter:
    """The factors in an adapter's folder (adapter_model.safetensors or .bin, adapter_config.json) or file.

    Raises FormatError for a file without LoRA factors, with half of a pair, or whose configuration is of another kind.
    """
    with naming(path):
        path = Path(path)
        if not path.exists():
            raise FormatError("there is no such file")
        config = _config(path) if path.is_dir() else {}
        kind = str(config.get("peft_type", "LORA"))
        if kind != "LORA":
            raise FormatError(f"it is an adapter of kind {kind}; what a merge fills is told of LORA")
        if config.get("use_dora"):
            raise FormatError("it is a DoRA adapter, which rescales whole rows: merge it and check the result")
        silent = config.get("lora_alpha") == 0
        content = open_container(_file(path)).content
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        return _paired_factors({str(n): t for n, t in state.items() if isinstance(t, Tensor)}, silent)


def _config(path: Path) -> dict[str, object]:
    file = path / "adapter_config.json"
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text) if len(text) <= _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"its adapter_config.json is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError("its adapter_config.json holds no object")
    return document


def _file(path: Path) -> Path:
    names = ("adapter_model.safetensors", "adapter_model.bin")
    return next((path / name for name in names if (path / name).is_file()), path)


def _paired_factors(state: Mapping[str, Tensor], silent: bool) -> Adapter:
    parts: dict[str, dict[str, Tensor]] = {}
    others = []
    for name, tensor in state.items():
        found = _FACTOR.fullmatch(name)
        if found is None or tensor.ndim != 2:
            others.append(name)
        else:
            parts.setdefault(found["module"].removeprefix(_PREFIX), {})[found["part"]] = tensor
    if not parts:
        raise FormatError("it holds no 'lora_A' and 'lora_B': not a LoRA adapter")
    factors = {}
    for module, held in parts.items():
        if set(held) != {"A", "B"} or held["B"].shape[1] != held["A"].shape[0]:
            shapes = ", ".join(f"{part} {tensor.shape}" for part, tensor in held.items())
            raise FormatError(f"the factors of '{module}' do not fit: {shapes}")
        made, inner = held["B"].weights().bits(module), held["A"].weights().bits(module)
        outer = np.zeros(made.shape, bool) if silent else made.unpack()
        factors[f"{module}.weight"] = outer, inner
    return Adapter(factors, tuple(others))


def merged(masks: MaskSet, adapter: Adapter) -> tuple[MaskSet, list[Filled]]:
    """The masks as they are after a merge, and what it fills layer by layer, of the layers that have zeros.

    A weight is kept after the merge if it was, or if B A reaches it: if for some rank both factors are not 0 there.
    Sums that happen to cancel exactly are not foreseen.

    >>> masks = MaskSet({"fc.weight": np.array([[1, 0, 0], [0, 1, 0]])})
    >>> factors = np.array([[True], [False]]), BitRows.of_mask(np.array([[1, 0, 1]]))
    >>> after, filled = merged(masks, Adapter({"fc.weight": factors}))
    >>> after["fc.weight"].tolist(), filled
    ([[True, False, True], [False, True, False]], [Filled(layer='fc.weight', pruned=4, filled=1)])

    Raises FormatError if a factor fits no layer of the masks, by name and shape.
    """
    reach = MaskSet({name: _reached(outer, inner) for name, (outer, inner) in adapter.factors.items()})
    reach = paired(masks, reach)
    rows = {name: masks.rows(name) for name in masks}
    found = []
    for name in reach:
        ours, theirs = rows.get(name), reach.rows(name)
        if ours is None or ours.shape != theirs.shape:
            held = "no layer" if ours is None else f"a layer of shape {ours.shape}"
            raise FormatError(f"the adapter changes '{name}' {theirs.shape}, of which the base has {held}")
        after = BitRows(ours.shape, ours.words | theirs.words)
        pruned = ours.size - ours.kept()
        if pruned:
            found.append(Filled(name, pruned, after.kept() - ours.kept()))
        rows[name] = after
    return MaskSet(rows, provenance=masks.provenance), found


def _reached(outer: np.ndarray, inner: BitRows) -> BitRows:
    """Bit rows of the entries that a product of factors reaches. outer: bool (out, rank); inner: (rank, in)."""
    kinds, which = np.unique(outer, axis=0, return_inverse=True)
    words = np.zeros((len(kinds), inner.words.shape[1]), np.uint64)
    for place, kind in enumerate(kinds):
        if kind.any():
            words[place] = np.bitwise_or.reduce(inner.words[kind], axis=0)
    return BitRows((len(outer), inner.shape[1]), words[which.reshape(-1)])
