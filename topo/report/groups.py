"""Layers in groups: by a pattern of their names, and, of networks of numbered blocks, by block and projection."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from topo.errors import TopoError

# `model.layers.3.self_attn.q_proj.weight`: the stack `model.layers`, block 3, the path `self_attn.q_proj`.
_BLOCK = re.compile(r"(?P<stack>(?:^|.*?\.)(?:layers|layer|h|blocks|block))\.(?P<block>\d+)\.(?P<path>.+)")
_EXPERT = re.compile(r"(?:^|\.)experts\.(?P<expert>\d+)\.")
# Projections that only language models call so, and those that other transformers have too.
_TELLING = frozenset(
    "q_proj k_proj v_proj o_proj qkv_proj gate_proj up_proj down_proj gate_up_proj query_key_value c_attn Wqkv "
    "dense_h_to_4h dense_4h_to_h wq wk wv".split()
)
_COMMON = frozenset("q k v query key value qkv out_proj in_proj".split())
_TOKENS = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared|lm_head)\b")
_ORDER = (
    "q k v qkv c_attn Wqkv query_key_value o dense out gate up gate_up down fc1 fc2 fc_in fc_out c_fc dense_h_to_4h "
    "dense_4h_to_h w1 w3 w2"
).split()
OTHERS = "others"

# Numbers of layers that add up; of shares the mean is weighted by parameters, of everything else it is plain.
_SUMMED = frozenset({"parameters", "units", "4-cycles", "kernels", "FLOPs", "bytes"})


@dataclass(frozen=True)
class Place:
    """Where a parameter stands: in which stack of blocks, in which block, under which path in it, in which expert.

    path: the modules within the block without numbers, as in `mlp.experts.w1`. expert: None outside of experts.
    """

    stack: str
    block: int
    path: str
    expert: int | None = None


@lru_cache(1 << 16)
def place_of(name: str) -> Place | None:
    """The place of a parameter in numbered blocks; None for one that stands in no block.

    >>> place_of("model.layers.3.mlp.experts.7.w1.weight")
    Place(stack='model.layers', block=3, path='mlp.experts.w1', expert=7)
    """
    found = _BLOCK.fullmatch(name)
    if found is None:
        return None
    parts = [part for part in found["path"].removesuffix(".weight").split(".") if not part.isdecimal()]
    if not parts or parts == ["weight"]:
        return None
    expert = _EXPERT.search(found["path"])
    return Place(found["stack"], int(found["block"]), ".".join(parts), int(expert["expert"]) if expert else None)


def is_language_model(names: Iterable[str]) -> bool:
    """Whether the names are those of a transformer's blocks as language models have them."""
    listed = list(names)
    last = {place.path.rpartition(".")[2] for name in listed if (place := place_of(name))}
    return bool(last & _TELLING) or (bool(last & _COMMON) and any(map(_TOKENS.search, listed)))


def side_by_side(names: Iterable[str]) -> bool:
    """Whether keys and queries stand in one block: layers that may fit one behind the other, but do not stand so.

    >>> side_by_side(["vit.encoder.layer.0.attention.query.weight", "vit.encoder.layer.0.attention.key.weight"])
    True
    """
    last = {place.path.rpartition(".")[2] for name in names if (place := place_of(name))}
    return bool(last & {"key", "k", "k_proj"}) and bool(last & {"query", "q", "q_proj"})


def by_block_and_projection(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name -> (block, projection) of the parameters that stand in numbered blocks.

    The projection is as much of the end of the path as tells it from the others; a block is its number, behind its
    stack where there are several.

    >>> by_block_and_projection(["h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight", "h.0.mlp.c_fc.weight"])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'h.0.attn.c_proj.weight': ('0', 'attn.c_proj'), 'h.0.mlp.c_proj.weight': ('0', 'mlp.c_proj'),
     'h.0.mlp.c_fc.weight': ('0', 'c_fc')}
    """
    places = {name: place for name in names if (place := place_of(name))}
    paths = {place.path for place in places.values()}
    several = len({place.stack for place in places.values()}) > 1
    short = {path: _shortest(path, paths) for path in paths}
    return {
        name: (f"{place.stack}.{place.block}" if several else str(place.block), short[place.path])
        for name, place in places.items()
    }


def _shortest(path: str, paths: set[str]) -> str:
    parts = path.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if sum(other == end or other.endswith(f".{end}") for other in paths) == 1:
            return end
    return path


def in_block_order(projections: Iterable[str]) -> list[str]:
    """Each projection once, in the order in which a block computes them; unknown ones last, in their own order.

    >>> in_block_order(["down_proj", "q_proj", "up_proj", "q_proj", "router"])
    ['q_proj', 'up_proj', 'down_proj', 'router']
    """
    given = list(dict.fromkeys(projections))
    rank = {name: place for place, name in enumerate(_ORDER)}
    last = {name: name.rpartition(".")[2].removesuffix("_proj") for name in given}
    return sorted(given, key=lambda name: (name.count("."), rank.get(last[name], len(rank))))


def labels(names: Sequence[str], pattern: str | None = None) -> dict[str, dict[str, str]]:
    """Name -> {"group": label} of every layer; {} where no pattern is given and the names tell no groups.

    pattern: parts of a name with dots between, `*` for any one part or piece of it, found anywhere in the name: what it
    matches is the label. `layers.*` groups by block, `*_proj` by projection. With brackets it is a regular expression,
    and the label is what the brackets hold. Layers that it does not match are the group "others".
    None: block and projection, for names of a language model; then an entry has "block" and "projection" too.

    >>> labels(["layers.0.q_proj.weight", "layers.1.q_proj.weight", "head.weight"], "layers.*")
    ... # doctest: +NORMALIZE_WHITESPACE
    {'layers.0.q_proj.weight': {'group': 'layers.0'}, 'layers.1.q_proj.weight': {'group': 'layers.1'},
     'head.weight': {'group': 'others'}}

    Raises TopoError for a pattern that is not one, and for one that matches no layer.
    """
    if pattern is None:
        if not is_language_model(names):
            return {}
        known = by_block_and_projection(names)
        return {
            name: {"group": f"{known[name][0]}.{known[name][1]}", "block": known[name][0], "projection": known[name][1]}
            if name in known
            else {"group": name.removesuffix(".weight")}
            for name in names
        }
    compiled = _compiled(pattern)
    found = {name: _label(compiled.search(name)) for name in names}
    if not any(found.values()):
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise TopoError(f"the pattern '{pattern}' matches no layer; there are: {listed}")
    return {name: {"group": label or OTHERS} for name, label in found.items()}


def _compiled(pattern: str) -> re.Pattern[str]:
    if "(" in pattern:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise TopoError(f"'{pattern}' is not a regular expression: {error}") from None
    parts = pattern.strip().strip(".")
    if not parts:
        raise TopoError("an empty pattern groups nothing; write 'layers.*' (by block) or '*_proj' (by projection)")
    bare = parts.removeprefix("model.")  # which names of a file read without its model lack
    plain = "".join({"*": r"[^.]*", "?": r"[^.]"}.get(letter, re.escape(letter)) for letter in bare)
    optional = r"(?:model\.)?" if bare != parts else ""
    return re.compile(rf"(?:^|(?<=\.)){optional}{plain}(?=\.|$)")


def _label(found: re.Match[str] | None) -> str:
    if found is None:
        return ""
    parts = [part for part in found.groups() if part] if found.re.groups else [found[0]]
    return ".".join(parts)


def grouped(
    layers: Sequence[Mapping[str, Any]], units: Mapping[str, str], pattern: str | None = None
) -> list[dict[str, Any]]:
    """{"group", "layers": how many, "params", metric: number, ...} of each group, in the order of its first layer.

    layers: as `Report.layers` has them. units: metric -> unit. Counts are summed, shares weighted by parameters; a
    largest degree is the largest of the group, every other number the plain mean over the layers that define it, NaN
    where none does. Groups: see `labels`.
    """
    names = [str(entry["layer"]) for entry in layers]
    known = labels(names, pattern)
    groups: dict[str, tuple[dict[str, str], list[Mapping[str, Any]]]] = {}
    for entry in layers:
        if (label := known.get(str(entry["layer"]))) is not None:
            groups.setdefault(label["group"], (label, []))[1].append(entry)
    found = []
    for label, members in groups.values():
        sizes = [math.prod(entry["shape"]) for entry in members]
        made: dict[str, Any] = {**label, "layers": len(members), "params": sum(sizes)}
        for metric, unit in units.items():
            held = [(entry[metric], size) for entry, size in zip(members, sizes) if metric in entry]
            if held:
                made[metric] = _together(metric, unit, held)
        if {"kept", "density", "sparsity"} <= made.keys():  # exactly, not by way of shares
            made["density"] = made["kept"] / made["params"]
            made["sparsity"] = 1.0 - made["density"]
        found.append(made)
    return found


def _together(metric: str, unit: str, held: Sequence[tuple[Any, int]]) -> Any:
    defined = [(value, size) for value, size in held if value == value]
    if not defined:
        return math.nan
    values = [value for value, _ in defined]
    if unit in _SUMMED:
        return sum(values)
    if metric.endswith("_max"):
        return max(values)
    if unit == "fraction":
        return sum(value * size for value, size in defined) / sum(size for _, size in defined)
    return sum(values) / len(values)
