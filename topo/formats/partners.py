"""Whose mask a tensor of 0 and 1 is, where weights stand beside it: by its name, word for word, and by its shape.

`mask_stem.weight`, `masks.stem`, `pruner/stem_mask` and `stem.gate` all hold the words of `stem.weight`. A list of
masks (`masks.0`, `masks.1`) goes by the order of the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.names import unwrapped

_BETWEEN = re.compile(r"[._/:\-]+")
_LEVELS = re.compile(r"[./:]+")
_SILENT = frozenset({"weight", "kernel"})
_MASK_WORDS = frozenset("mask masks binary keep kept pruner prune pruned pruning sparsity sparse dict".split())
# Masks of tokens, not of weights.
_TOKENS = re.compile(
    r"(?:attn|attention|padding|pad|key|src|tgt|token|seq\w*)_?masks?$|causal|tril|triu|attn_bias", re.I
)
# Words for what is gone: 1 would stand for what was pruned.
_GONE = re.compile(
    r"(?:(?:is|to)_?)?(?:pruned|removed|dropped|zeroed|deleted|discarded|killed|dead|cut|masked_?out|"
    r"(?:to_?)(?:prune|remove|drop|zero)|"
    r"(?:prune|pruning|drop|remove)_?(?:idx|index|indexes|indices))"
    r"(?:_?(?:weights|params|masks?))?",
    re.I,
)
# The same of whole parts alone: "zero" is a word of layers' names too.
_ZEROS = re.compile(r"(?:is_?zeros?|zeros|zeros?_?(?:masks?|idx|index|indices|weights|positions|locations))", re.I)
_OPPOSITE = re.compile(
    r"(?:is_?)?(?:not|neg|negated|negative|inv(?:erse|erted)?|complement(?:ary)?)(?:_?(?:weights|params|masks?))?", re.I
)
# Shape -> words -> names.
ByShape = dict[tuple[int, ...], dict[tuple[str, ...], list[str]]]
NUMBERED = re.compile(r"(?:^|.*[._])_?masks?[._]?(\d+)$", re.I)


@lru_cache(1 << 14)
def words(name: str) -> tuple[str, ...]:
    """The words of a parameter's name, but for "weight" and wrappers.

    >>> words("module.layer1.0.conv.weight"), words("mask_layer1_0_conv")
    (('layer1', '0', 'conv'), ('mask', 'layer1', '0', 'conv'))
    """
    return tuple(word for word in _BETWEEN.split(unwrapped(name)) if word and word not in _SILENT)


@lru_cache(1 << 14)
def bare(name: str) -> tuple[str, ...]:
    """The words of a mask's name that are not about masks."""
    return tuple(word for word in words(name) if word.lower() not in _MASK_WORDS)


def is_called_mask(name: str) -> bool:
    """Whether a tensor is called a mask of weights, not one of attention."""
    return "mask" in name.lower() and not _TOKENS.search(name)


def is_of_tokens(name: str) -> bool:
    """Whether a tensor is called a mask of attention or of padding."""
    return bool(_TOKENS.search(name))


def says_gone(name: str, weight: str = "") -> bool:
    """Whether a part of a name says that 1 stands for what was pruned: `fc.pruned`, `removed_mask.fc`, `pruned_fc`.

    weight: whose mask it is; words of its own name say nothing (`negative.0.mask` of `negative.0.weight`).
    """
    own = set(words(weight))
    said = [part for part in _BETWEEN.split(name) if part and part not in own]
    wholes = [part for part in _LEVELS.split(name) if not own.issuperset(words(part))]
    return (
        any(map(_GONE.fullmatch, (*said, *map("_".join, pairwise(said)), *wholes)))
        or any(map(_OPPOSITE.fullmatch, said))
        or any(map(_ZEROS.fullmatch, wholes))
    )


def holds_both(tensor: Tensor) -> bool:
    """Whether some of its values are not 0, and some not 1."""
    return not tensor.is_ones and any(bool(block.any()) for block in tensor.blocks())


def is_mask(tensor: Tensor) -> bool:
    """Whether it holds 0 and 1, both and nothing else: a mask or an adjacency, and no weights."""
    return tensor.is_binary and holds_both(tensor)


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


def by_shape_and_words(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> ByShape:
    """Shape -> words -> the names of that shape with those words."""
    found: ByShape = {}
    for name, shape in shapes:
        found.setdefault(shape, {}).setdefault(words(name), []).append(name)
    return found


def partners(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a tensor -> the weight of the same state that it masks.

    It holds 0 and 1 alone, has the weight's shape, and its name holds the weight's words. What is not called a mask
    holds both 0 and 1 too, or is called as another of this state that does.
    """
    wide = [name for name, tensor in state.items() if tensor.ndim >= 2]
    known = {words(name) for name in wide}
    ends = Counter(said[start:] for said in known for start in range(len(said)))
    binary = [name for name in wide if _may_mask(name, state, known, ends) and state[name].is_binary]
    asked = [name for name in binary if is_called_mask(name) or holds_both(state[name])]
    if not asked:
        return {}
    claimed: dict[str, list[str]] = {}
    listed: dict[str, dict[int, str]] = {}
    others = [name for name in wide if name not in set(asked)]
    places = by_shape_and_words((name, state[name].shape) for name in others)
    for name in asked:
        if number := NUMBERED.match(name):
            listed.setdefault(name[: number.start(1)], {})[int(number[1])] = name
            continue
        weight = whose(name, places.get(state[name].shape, {}))
        if weight is not None and (not state[weight].is_binary or is_called_mask(name) > is_called_mask(weight)):
            claimed.setdefault(weight, []).append(name)
    called = {_beside(name, weight) for weight, names in claimed.items() for name in names}
    full = [name for name in binary if name not in set(asked)]  # all of 1, or of 0, and called as those are
    places = by_shape_and_words((name, state[name].shape) for name in others if name not in full) if full else {}
    for name in full:
        weight = whose(name, places.get(state[name].shape, {}))
        if weight is not None and weight not in claimed and _beside(name, weight) in called:
            claimed[weight] = [name]
    likeliest = ((_likeliest(weight, names, state), weight) for weight, names in claimed.items())
    found = {name: weight for name, weight in likeliest if name is not None}
    if len(listed) == 1:
        found |= _in_order(next(iter(listed.values())), state, others)
    return found


def _likeliest(weight: str, names: list[str], state: Mapping[str, Tensor]) -> str | None:
    """Of the tensors that may mask a weight the one that is called a mask, or that says least beside its words.

    None where nothing of that name masks it, as zeros of the weight tell. Raises FormatError for several masks.
    """
    masks = [name for name in names if is_called_mask(name)]
    if not masks:
        names = [name for name in names if not contradicted(state[name], state[weight])]
    for chosen in (masks, names):
        least = min((len(bare(name)) for name in chosen), default=0)
        nearest = [name for name in chosen if len(bare(name)) == least]
        if len(nearest) == 1:
            return nearest[0]
        if len(nearest) > 1 and chosen is masks:
            said = " and ".join(f"'{name}'" for name in nearest[:2])
            raise FormatError(f"{said} may both be the mask of '{weight}': leave one out, or give --key of the masks")
    return None


def contradicted(tensor: Tensor, weight: Tensor) -> bool:
    """Whether a weight that has zeros has other values where the tensor has 0: it was not pruned by it."""
    return weight.is_float and weight.has_zero and any(
        bool(((mask == 0) & (block != 0)).any()) for mask, block in zip(tensor.blocks(), weight.blocks())
    )  # fmt: skip


def _beside(name: str, weight: str) -> tuple[str, ...]:
    """What a name says beside the weight's words: ("gate",) of `stem.gate`."""
    own = set(words(weight))
    return tuple(word for word in words(name) if word not in own)


def _may_mask(
    name: str, state: Mapping[str, Tensor], known: Collection[tuple[str, ...]], ends: Mapping[tuple[str, ...], int]
) -> bool:
    """Whether a tensor of this name could be the mask of another, as far as is seen at once.

    known: words of the tensors of two or more dimensions. ends: last words -> how many of them have these.
    """
    if name.endswith(".weight"):  # of a module, or what a prefix is put before
        if "mask" in name:
            return True
        said = words(name)
        if not said:
            return False
        core = bare(name)
        others = ends.get(core, 0) - (said[len(said) - len(core) :] == core)
        return (core != said and bool(core) and others > 0) or any(said[i:] in known for i in range(1, len(said)))
    if name.endswith("_mask") and (name[:-5] in state or f"{name[:-5]}_orig" in state):
        return False  # torch's own, which has readers of its own
    return "parametrizations." not in name and "___" not in name and not _TOKENS.search(name)


def whose(name: str, weights: Mapping[tuple[str, ...], list[str]]) -> str | None:
    """The weight with the longest run of the name's words; else the only one whose words end as the name's do; else
    the one whose last words are the longest run in the name.

    A number alone is a weight's name at the front (`0.gate`), not behind other words (`aug.0`).
    """
    said = words(name)
    for length in range(len(said), 0, -1):
        hits = {
            weights[run][0]
            for i in range(len(said) - length + 1)
            if len(weights.get(run := said[i : i + length], ())) == 1
            and (i == 0 or is_called_mask(name) or not all(word.isdecimal() for word in run))
        }
        if hits:
            return hits.pop() if len(hits) == 1 else None
    core = bare(name)
    if not core:
        return weights[()][0] if len(weights.get((), ())) == 1 else None
    ends = [names for key, names in weights.items() if key[-len(core) :] == core]
    if ends:
        return ends[0][0] if len(ends) == 1 and len(ends[0]) == 1 else None
    best: dict[int, list[str]] = {}
    for names in weights.values():
        if length := _last_words_in(words(names[0]), said):
            best.setdefault(length, []).extend(names)
    nearest = best[max(best)] if best else []
    return nearest[0] if len(nearest) == 1 else None


def _last_words_in(weight: tuple[str, ...], said: tuple[str, ...]) -> int:
    """How many of the last words of a weight's name are a run of what is said; numbers alone count at its front."""
    for length in range(len(weight), 0, -1):
        end = weight[-length:]
        for i in range(len(said) - length + 1):
            if said[i : i + length] == end and (i == 0 or not all(word.isdecimal() for word in end)):
                return length
    return 0


def _in_order(listed: Mapping[int, str], state: Mapping[str, Tensor], others: Iterable[str]) -> dict[str, str]:
    """Masks in a list -> weights: by their numbers where these are the modules', else by the order of all weights."""
    weights = [name for name in others if name.endswith("weight")]
    masks = [listed[number] for number in sorted(listed)]
    if {words(name) for name in weights} == {(str(number),) for number in listed}:
        weights = [next(name for name in weights if words(name) == (str(number),)) for number in sorted(listed)]
    if not masks or [state[name].shape for name in masks] != [state[name].shape for name in weights]:
        return {}
    return dict(zip(masks, weights))
