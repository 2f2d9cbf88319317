"""Names of parameters: what wrappers, parametrizations and pruners put around them, taken off."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from topo.containers.tensors import Tensor

# What wrappers put into names, at any depth: DataParallel and DDP, torch.compile, FSDP, checkpointing, Lightning's
# strategies, PEFT.
_WRAPPERS = frozenset(
    "module _orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module _forward_module base_layer".split()
)
_WRAPPED = re.compile(r"module\.|_mod\.|base_layer\.")
_PARAMETRIZED = re.compile(r"(?P<module>.*?)(?:^|\.)parametrizations\.(?P<name>[^.]+)\.original(?P<part>\d*)")
# Parameters of recurrent layers and cells.
RECURRENT = re.compile(r"(?:^|\.)weight_(?:ih|hh|hr)(?:_l\d+)?(?:_reverse)?$")
# Fused experts of transformers: (experts, out, in), under no "weight".
FUSED = re.compile(r"(?:^|\.)experts\.(?:gate_up_proj|gate_proj|up_proj|down_proj|w1|w2|w3)$")
# Not `time_emb_proj` and `emb_layers.1`, which are linear.
_EMB = re.compile(r"(?:^|[._])embs?(?:\.weight)?$")
# Averages of weights beside them, and what stands behind the name of a weight of another time, or of its gradient.
# Nothing else does: `weight_2`, `weight_imag` and `in_proj_weight_k` are weights of their own.
_AVERAGE = re.compile(r"(?:.*[._])?(?:ema|swa|averaged?|shadow)(?:_\w+?)?\.(?:module\.)?")
_FORMER = re.compile(r"[._](?:grad|old|prev(?:ious)?|init(?:ial)?|(?:max_)?exp_avg(?:_sq)?|momentum(?:_buffer)?|ema)")
_PLAIN = (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")
# Adapters beside a base: factors and scales, which are not weights of the network.
ADAPTER = re.compile(
    r"(?:^|[._])(?:lora_(?:A|B|embedding|magnitude|down|up)|hada_w\d|lokr_w\d|ia3_l|vera_|b?oft_[rRsS])"
)


@lru_cache(1 << 16)
def unwrapped(name: str) -> str:
    """The name without the parts that wrappers put into it.

    >>> unwrapped("module.stem._orig_mod.conv.base_layer.weight")
    'stem.conv.weight'
    """
    if not _WRAPPED.search(name):
        return name
    parts = name.split(".")
    kept = [part for part in parts[:-1] if part not in _WRAPPERS]
    return ".".join([*kept, parts[-1]])


def plain(name: str) -> str:
    """The parameter that a tensor stands for: parametrizations and torch's pruning undone.

    >>> plain("body.parametrizations.weight.original1"), plain("fc.weight_orig")
    ('body.weight', 'fc.weight')
    """
    if "parametrizations." in name and (found := _PARAMETRIZED.fullmatch(name)):
        return f"{found['module']}.{found['name']}".lstrip(".")
    return name.removesuffix("_orig").removesuffix("._data")  # the latter of Quanto's tensors


def parameters(state: Mapping[str, Tensor], masks: Collection[str] = ()) -> dict[str, tuple[str, Tensor]]:
    """Parameter -> (its name in the file, its tensor): the one that holds the zeros where torch keeps several.

    masks: names of those that are masks of others, and no parameters.

    Weight norm splits a weight into its direction (`weight_v`, `original1`), which has the weight's zeros, and its
    length (`weight_g`, `original0`), which is left out.
    """
    found: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in state.items():
        if name in masks:
            continue
        if name.endswith(_PLAIN) and "parametrizations." not in name:
            found.setdefault(name, (name, tensor))
            continue
        if name.endswith(".original0") and name.removesuffix("0") + "1" in state:
            continue
        other = name.removesuffix("_orig").removesuffix("_mask")
        if other.endswith("_g") and any(other[:-2] + end in state for end in ("_v", "_v_orig")):
            continue
        parameter = plain(name)
        if parameter.endswith("_v") and tensor.ndim >= 2 and f"{parameter[:-2]}_g" in state:
            parameter = parameter[:-2]
        found.setdefault(parameter, (name, tensor))
    return found


def copies(state: Mapping[str, Tensor], known: Collection[str] = (), averages: bool = True) -> list[str]:
    """Names of tensors that repeat a weight beside them in another state: its shape, and `ema.X`, also without the dots
    of X, or X with something behind it that says so (`weight_grad`, `weight.old`).

    known: names of a network's layers, which are kept. averages: whether to look for the former.
    """
    found = []
    for name, tensor in state.items():
        cut = name.rfind("weight") + 6
        whole = state.get(name[:cut]) if 6 <= cut < len(name) and _FORMER.fullmatch(name, cut) else None
        if whole is not None and tensor.ndim >= 2 and tensor.shape == whole.shape and not _is_one_of(name, known):
            found.append(name)
    if averages:
        layers = [layer for layer in known if _AVERAGE.match(layer)]  # `fc.weight` is not `ema.fc.weight`
        found += [name for name in _averages(state) if not _is_one_of(name, layers)]
    return found


def _averages(state: Mapping[str, Tensor]) -> list[str]:
    plainly: dict[tuple[int, ...], list[str]] = {}
    parts = {name: _AVERAGE.match(name) for name in state}
    for name, average in parts.items():
        if average is None and state[name].ndim >= 2:
            plainly.setdefault(state[name].shape, []).append("." + plain(unwrapped(name)))
    found = []
    for name, average in parts.items():
        if average is not None:
            rest = plain(unwrapped(name[average.end() :]))
            if any(_repeats(rest, other) for other in plainly.get(state[name].shape, ())):
                found.append(name)
    return found


def _repeats(rest: str, other: str) -> bool:
    """Whether what follows `ema.` is more of another's name than "weight", which `ema.weight` of a module has too."""
    if "." in rest:
        return other.endswith(f".{rest}")
    return len(rest) > len(other.rpartition(".")[2]) and other.replace(".", "").endswith(rest)


def _is_one_of(name: str, layers: Collection[str]) -> bool:
    """Whether a network has a layer of this name, with or without first parts."""
    full = f".{unwrapped(name)}"
    return any(own.endswith(full) or full.endswith(own) for own in (f".{unwrapped(layer)}" for layer in layers))


def is_weight(name: str) -> bool:
    """Whether torch or a known library gives this name to a weight matrix or kernel."""
    last = name.rpartition(".")[2]
    return last.endswith("weight") or bool(RECURRENT.search(name) or FUSED.search(name))


def is_embedding(name: str) -> bool:
    """Whether it is named like an embedding."""
    lowered = name.lower()
    return "embed" in lowered or "wte" in lowered or "wpe" in lowered or bool(_EMB.search(lowered))


def is_vector(tensor: Tensor) -> bool:
    """Whether at most one dimension has more than one entry: biases, scales and statistics in any shape."""
    return sum(n > 1 for n in tensor.shape) <= 1
