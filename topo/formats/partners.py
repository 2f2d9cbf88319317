"""Whose mask a tensor of 0 and 1 is, where weights stand beside it: by its name, word for word, and by its shape.

`mask_stem.weight`, `masks.stem`, `pruner/stem_mask` and `stem.gate` all hold the words of `stem.weight`. A list of
masks (`masks.0`, `masks.1`) goes by the order of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from topo.containers.tensors import Tensor
from topo.formats.names import unwrapped

_BETWEEN = re.compile(r"[._/:\-]+")
_SILENT = frozenset({"weight", "kernel"})
_MASK_WORDS = frozenset("mask masks binary keep kept pruner prune pruned pruning sparsity sparse dict".split())
# Masks of tokens, not of weights.
_TOKENS = re.compile(
    r"(?:attn|attention|padding|pad|key|src|tgt|token|seq\w*)_?masks?$|causal|tril|triu|attn_bias", re.I
)
# Words for what is gone: 1 would stand for what was pruned.
_GONE = re.compile(
    r"(?:is_?)?(?:pruned|removed|dropped|zeroed|deleted|dead|cut|masked_?out)(?:_?(?:weights|params))?", re.I
)
_NUMBERED = re.compile(r"(?:^|.*[._])_?masks?[._]?(\d+)$", re.I)


@lru_cache(1 << 14)
def words(name: str) -> tuple[str, ...]:
    """The words of a parameter's name, but for "weight" and wrappers.

    >>> words("module.layer1.0.conv.weight"), words("mask_layer1_0_conv")
    (('layer1', '0', 'conv'), ('mask', 'layer1', '0', 'conv'))
    """
    return tuple(word for word in _BETWEEN.split(unwrapped(name)) if word and word not in _SILENT)


def bare(name: str) -> tuple[str, ...]:
    """The words of a mask's name that are not about masks."""
    return tuple(word for word in words(name) if word.lower() not in _MASK_WORDS)


def is_called_mask(name: str) -> bool:
    """Whether a tensor is called a mask of weights, not one of attention."""
    return "mask" in name.lower() and not _TOKENS.search(name)


def says_gone(word: str) -> bool:
    """Whether a key or the last part of a name says that 1 stands for what was pruned."""
    return bool(_GONE.fullmatch(word))


def holds_both(tensor: Tensor) -> bool:
    """Whether some of its values are not 0, and some not 1."""
    return not tensor.is_ones and any(bool(block.any()) for block in tensor.blocks())


def same_words(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Name -> the only one of `known` that has its words, for those that have one: `stem_weight` is `stem.weight`."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for name in known:
        by_words.setdefault(words("_".join(words(name))), []).append(name)
    found = {}
    for name in names:
        hits = by_words.get(words("_".join(bare(name))), [])
        if len(hits) == 1:
            found[name] = hits[0]
    return found


def partners(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a tensor -> the weight of the same state that it masks.

    It holds 0 and 1 alone, has the weight's shape, and its name holds the weight's words. What is not called a mask
    holds both 0 and 1 too.
    """
    asked = [name for name, tensor in state.items() if tensor.ndim >= 2 and _may_mask(name, state)]
    asked = [name for name in asked if state[name].is_binary and (is_called_mask(name) or holds_both(state[name]))]
    if not asked:
        return {}
    found, listed = {}, {}
    others = [name for name, tensor in state.items() if tensor.ndim >= 2 and name not in set(asked)]
    by_shape: dict[tuple[int, ...], dict[tuple[str, ...], list[str]]] = {}
    for name in others:
        by_shape.setdefault(state[name].shape, {}).setdefault(words(name), []).append(name)
    for name in asked:
        if number := _NUMBERED.match(name):
            listed[int(number[1])] = name
            continue
        weight = _whose(name, by_shape.get(state[name].shape, {}))
        if weight is not None and not state[weight].is_binary:
            found[name] = weight
    return {**found, **_in_order(listed, state, others)}


def _may_mask(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of this name could be the mask of another, as far as is seen at once."""
    if name.endswith(".weight"):  # of a module, or what a prefix is put before
        if "mask" in name:
            return True
        head, _, rest = name.partition(".")
        _, line, last = head.partition("_")
        if line and f"{last}.{rest}" in state:
            return True
        while rest:
            if rest in state:
                return True
            rest = rest.partition(".")[2]
        return False
    if name.endswith("_mask") and (name[:-5] in state or f"{name[:-5]}_orig" in state):
        return False  # torch's own, which has readers of its own
    return "parametrizations." not in name and not _TOKENS.search(name)


def _whose(name: str, weights: Mapping[tuple[str, ...], list[str]]) -> str | None:
    """The weight with the longest run of the name's words; else the only one whose words end as the name's do."""
    said = words(name)
    for length in range(len(said), 0, -1):
        hits = {
            weights[run][0]
            for i in range(len(said) - length + 1)
            if len(weights.get(run := said[i : i + length], ())) == 1
        }
        if hits:
            return hits.pop() if len(hits) == 1 else None
    core = bare(name)
    if not core:
        return weights[()][0] if len(weights.get((), ())) == 1 else None
    ends = [names for key, names in weights.items() if key[-len(core) :] == core]
    return ends[0][0] if len(ends) == 1 and len(ends[0]) == 1 else None


def _in_order(listed: Mapping[int, str], state: Mapping[str, Tensor], others: Iterable[str]) -> dict[str, str]:
    """Masks in a list -> weights: by their numbers where these are the modules', else by the order of all weights."""
    weights = [name for name in others if name.endswith("weight")]
    masks = [listed[number] for number in sorted(listed)]
    if {words(name) for name in weights} == {(str(number),) for number in listed}:
        weights = [next(name for name in weights if words(name) == (str(number),)) for number in sorted(listed)]
    if not masks or [state[name].shape for name in masks] != [state[name].shape for name in weights]:
        return {}
    return dict(zip(masks, weights))
