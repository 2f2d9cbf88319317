"""What in a language model can do nothing: residual channels, query heads, groups of keys and values, experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from topo.containers.counting import Counts
from topo.language.config import Config
from topo.language.parts import DECODER, EMBEDDING, HEAD, part_of, writes
from topo.language.survey import Survey
from topo.report.groups import place_of

_PARTED = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("wq", "wk", "wv"), ("q", "k", "v"))
_STACKED = ("qkv_proj", "c_attn", "Wqkv", "qkv")  # all queries, then all keys, then all values
_INTERLEAVED = "query_key_value"
_LATENT = "kv_b_proj"  # of each head its keys, then its values, out of what all heads share (DeepSeek)
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "o", "out_lin")
_QUERIES = ("q_b_proj", "q_proj")
_EXPERT_PARTS = frozenset("w1 w2 w3 gate_proj up_proj down_proj gate_up_proj".split())


@dataclass(frozen=True)
class Dead:
    """How many there are, and how many can do nothing; None where it cannot be told.

    A query head is dead without a live row of its queries, or without a column that reads it. A group of keys and
    values is dead without a live row of values. An expert is dead where one of its matrices keeps nothing. A residual
    channel is dead if no layer writes it or none reads it, the embeddings and the head among them.
    """

    heads: int | None = None
    dead_heads: int | None = None
    kv_groups: int | None = None
    dead_kv_groups: int | None = None
    experts: int | None = None
    dead_experts: int | None = None

    def __add__(self, other: Dead) -> Dead:
        return Dead(*(_sum(a, b) for a, b in zip(self.values, other.values)))

    @property
    def values(self) -> tuple[int | None, ...]:
        """The six numbers in their order."""
        return (self.heads, self.dead_heads, self.kv_groups, self.dead_kv_groups, self.experts, self.dead_experts)


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


def dead_by_block(found: Survey) -> dict[tuple[str, int], Dead]:
    """(stack, block) -> what is dead in it. Heads are told where the folder's config says how many there are."""
    blocks: dict[tuple[str, int], dict[str, dict[int | None, tuple[str, Counts]]]] = {}
    for name, counts in found.decoder.items():
        place = place_of(name)
        if place is not None:
            held = blocks.setdefault((place.stack, place.block), {})
            held.setdefault(place.path, {})[place.expert] = name, counts
    made = {}
    for key, paths in blocks.items():
        single = {path: members[None][1] for path, members in paths.items() if None in members}
        heads = _heads(single, found.config) if found.config else Dead()
        made[key] = heads + _experts(paths, found)
    return made


def _heads(block: Mapping[str, Counts], config: Config) -> Dead:
    if not config.heads or not config.kv_heads:
        return Dead()
    total = Dead()
    for queries, values, columns in _attentions(block, config):
        dead = (queries == 0).all(axis=1)
        if columns is not None:
            dead |= (columns == 0).all(axis=1)
        without = int((values == 0).all(axis=1).sum())
        total += Dead(len(dead), int(dead.sum()), len(values), without)
    return total


def _attentions(
    block: Mapping[str, Counts], config: Config
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Of each attention of a block: kept weights by head of the query's rows, by group of the value's rows, and by head
    of the columns of the layer that reads the heads (None where there is none, or it does not fit)."""
    heads, groups = config.heads or 1, config.kv_heads or 1
    for path, counts in block.items():
        parent, _, last = path.rpartition(".")
        family = next((names for names in _PARTED if last == names[0]), None)
        rows = counts.rows
        if family is not None:
            value = block.get(f"{parent}.{family[2]}".lstrip("."))
            if value is None or len(rows) % heads or len(value.rows) % groups:
                continue
            queries, values = rows.reshape(heads, -1), value.rows.reshape(groups, -1)
            each = queries.shape[1]
        elif last in _STACKED or last == _INTERLEAVED:
            parts = _parts(rows, heads, groups, last, config)
            if parts is None:
                continue
            queries, values = parts
            each = queries.shape[1]
        elif last == _LATENT and config.value_dim:
            asked = next((block[p] for name in _QUERIES if (p := f"{parent}.{name}".lstrip(".")) in block), None)
            if asked is None or len(asked.rows) % heads or len(rows) % heads or len(rows) <= heads * config.value_dim:
                continue
            queries, values = asked.rows.reshape(heads, -1), rows.reshape(heads, -1)[:, -config.value_dim :]
            each = config.value_dim
        else:
            continue
        reader = next((block[p] for name in _OUTPUTS if (p := f"{parent}.{name}".lstrip(".")) in block), None)
        fits = reader is not None and len(reader.columns) == heads * each
        yield queries, values, reader.columns.reshape(heads, each) if reader is not None and fits else None


def _parts(
    rows: np.ndarray, heads: int, groups: int, last: str, config: Config
) -> tuple[np.ndarray, np.ndarray] | None:
    """Queries (heads, d) and values (groups, d) among the rows of a layer that makes all three; None if they do not
    fit."""
    if len(rows) % (heads + 2 * groups):
        return None
    each = len(rows) // (heads + 2 * groups)
    if last == _INTERLEAVED and (config.grouped or groups == heads):  # group by group: its queries, its key, its value
        by_group = rows.reshape(groups, heads // groups + 2, each) if heads % groups == 0 else None
        if by_group is None:
            return None
        return by_group[:, :-2].reshape(heads, each), by_group[:, -1]
    queries, _, values = np.split(rows, [heads * each, (heads + groups) * each])
    return queries.reshape(heads, each), values.reshape(groups, each)


def _experts(paths: Mapping[str, Mapping[int | None, tuple[str, Counts]]], found: Survey) -> Dead:
    kept: dict[tuple[str, int], list[int]] = {}
    for path, members in paths.items():
        parent, _, last = path.rpartition(".")
        if last not in _EXPERT_PARTS or not (parent == "experts" or parent.endswith(".experts")):
            continue
        for expert, (name, counts) in members.items():
            if expert is not None:
                kept.setdefault((parent, expert), []).append(counts.kept)
            elif name in found.experts:
                each = counts.rows.reshape(found.experts[name], -1)
                halves = np.split(each, 2, axis=1) if last == "gate_up_proj" and each.shape[1] % 2 == 0 else [each]
                for number in range(len(each)):
                    kept.setdefault((parent, number), []).extend(int(half[number].sum()) for half in halves)
    if not kept:
        return Dead()
    return Dead(experts=len(kept), dead_experts=sum(min(counts) == 0 for counts in kept.values()))


def residual_channels(found: Survey) -> tuple[int, int] | None:
    """(residual channels, those that no layer writes or none reads); None where the file does not tell how many.

    The embeddings write and the head reads; without a head of its own the embedding of tokens reads as well.
    """
    width = found.config.hidden if found.config else None
    width = width or _common_width(found)
    if not width:
        return None
    written, read = np.zeros(width, np.int64), np.zeros(width, np.int64)
    writers = readers = 0
    has_head = any(part_of(name) == HEAD for name in found.counts)
    for name, counts in found.counts.items():
        part, place = part_of(name), place_of(name)
        if part == DECODER and place is not None:
            if writes(place.path):
                if len(counts.rows) % width == 0:
                    written += counts.rows.reshape(-1, width).sum(axis=0)
                    writers += 1
            elif len(counts.columns) == width:
                read += counts.columns
                readers += 1
        elif part == EMBEDDING and len(counts.columns) == width:
            written += counts.columns
            writers += 1
            if not has_head and not any(word in name for word in ("pos", "wpe", "type")):  # tied: tokens are read too
                read += counts.columns
        elif part == HEAD and len(counts.columns) == width:
            read += counts.columns
    if not writers or not readers:
        return None
    return width, int(np.count_nonzero((written == 0) | (read == 0)))


def _common_width(found: Survey) -> int | None:
    """The width that the layers which write the residual stream have in common."""
    widths = {
        len(counts.rows) // found.experts.get(name, 1)
        for name, counts in found.decoder.items()
        if (place := place_of(name)) and writes(place.path)
    }
    return widths.pop() if len(widths) == 1 else None
